//! MMX aside, the vector registers and what computes on them: SSE, AVX and their kin.
//!
//! Nearly all of these instructions do the same to each 128-bit lane. So an instruction is a *kernel*, a function of one lane
//! of each source ([`lane`]), and what differs between its encodings is written once ([`encoding`]): how many
//! lanes there are, what becomes of the rest of the register, whether memory must be aligned, and which bits must be set for it to
//! be executed at all.
//!
//! Operands: destination in `dst`; first source in `extra` (the VEX.vvvv register, or the destination again in legacy SSE);
//! second source, the r/m operand, in `src` or memory; an immediate byte in `imm`.

pub mod across;
pub mod aes;
pub mod arithmetic;
pub mod available;
pub mod bitfield;
pub mod compare;
pub mod compute;
pub mod element;
pub mod encoding;
pub mod float;
pub mod galois;
pub mod gather;
pub mod lane;
pub mod lanewise;
pub mod logic;
pub mod masked;
pub mod memory;
pub mod moves;
pub mod sha;
pub mod shift;
pub mod shuffle;
pub mod state;
pub mod strings;

#[cfg(test)]
mod tests;
