//! The handlers of ops, by family.
//!
//! A handler is a function generic over operation, operand width and address kind ([`addr`], [`form`]), so that what runs is
//! straight-line code for just its case. Each family exports functions that pick the handler for a form that the decoder has
//! found. Every handler computes whatever can fault before it changes a register or a flag.

pub mod addr;
pub mod alu;
pub mod atomic;
pub mod bcd;
pub mod bits;
pub mod bmi;
pub mod branch;
pub mod flagops;
pub mod form;
pub mod fused;
pub mod misc;
pub mod mov;
pub mod muldiv;
#[cfg(test)]
mod random;
pub mod shift;
pub mod stack;
pub mod string;
#[cfg(test)]
pub mod testing;
#[cfg(test)]
mod tests;
