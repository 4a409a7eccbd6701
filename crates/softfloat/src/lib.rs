//! Floating-point arithmetic as the x86 defines it: IEEE 754 with exact flags, and what the x86 adds to it.
//!
//! May depend on nothing. It knows no registers and no instructions: who uses it brings a [`Context`], made from MXCSR or from
//! x87's control word, and takes the flags back from it.
//!
//! # How it is cut
//!
//! A [`Format`] (binary16, 32, 64 or the 80-bit extended one) is taken apart into the one form that all arithmetic works on,
//! [`Unpacked`]. An operation on unpacked operands computes an exact result and rounds it, once, to the format that the caller
//! names: `add::<F32>(&mut context, a.unpack(), b.unpack())`. So operands may have other formats than the result, as in
//! x87's operations with memory operands.
//!
//! [`fast`] has the same operations for operands and results of one format; where the host's own arithmetic gives the same
//! result with the same flags, it is used.
//!
//! Where "SDM" is cited it is Intel's Software Developer's Manual; chapters 4, 8, 11 and 14 of volume 1 tell most of it.
#![forbid(unsafe_code)]

mod arith;
mod compare;
mod context;
mod convert;
pub mod fast;
mod format;
mod remainder;
mod round;

pub use arith::{Negate, add, div, fused_multiply_add, mul, sqrt, sub};
pub use compare::{Compare, compare};
pub use context::{Context, Precision, Rounding, Rules, flag};
pub use convert::{Integer, convert, from_i64, from_u64, round_to_integral, scale, to_integer};
pub use format::{Class, F16, F32, F64, Format, Unpacked, X80};
pub use remainder::{Quotient, Remainder, remainder};
pub use round::{Exact, round_full};
