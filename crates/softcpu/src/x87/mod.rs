//! The x87 floating-point unit: SDM vol. 1 chapter 8, APM vol. 1 chapter 6 and vol. 5.
//!
//! Arithmetic is [`softfloat`]'s; here is the register stack, and what becomes of results and exceptions ([`response`]). A handler
//! goes through the same steps in each family: whether the unit may be used and no earlier error waits ([`check`]); the
//! operand from memory, which may fault; empty and full registers; the operation; the flags, and the result if there is one.
//!
//! What the op holds: the register number of ST(i) in `src`, FOP in `imm`, else as everywhere.
//!
//! Where the manuals leave something open (condition codes that are "undefined", results of unsupported arguments) it is as
//! an AMD EPYC 9004 has it.

mod arithmetic;
mod check;
mod compare;
mod control;
mod environment;
mod memory;
mod response;
mod stack;
pub mod state;
#[cfg(test)]
mod tests;
mod transcendental;
mod transfer;
mod unary;

pub use arithmetic::{Add, Div, DivReversed, Mul, Sub, SubReversed, with_memory, with_register, with_st0};
pub use compare::{compare_eflags, compare_memory, compare_register, ftst, fxam};
pub use control::{fldcw, fnclex, fninit, fnop, fnstcw, fnstsw_ax, fnstsw_mem, nothing, wait};
pub use environment::{fldenv, fnsave, fnstenv, frstor};
pub use memory::{Bcd, Memory, OPERAND, Truncated};
pub use stack::{fdecstp, ffree, fincstp, fxch};
pub use transcendental::{
    ArcTangent, Cosine, Exponential, Logarithm, LogarithmPlusOne, Sine, fptan, fsincos, function, function2,
};
pub use transfer::{fcmov, fstpnce, load_constant, load_memory, load_register, store_memory, store_register};
pub use unary::{Abs, Chs, RoundInteger, Sqrt, fprem, fscale, fxtract, unary};
