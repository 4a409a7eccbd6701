//! Floating-point instructions: those that MXCSR governs, and the approximations.
//!
//! An instruction is a [`Kernel`](kernel::Kernel), a function of its sources and a [`softfloat::Context`]; [`kernel`] has the
//! handlers, which load the operands, see to exceptions and store the result. Most kernels follow from a function of single
//! elements ([`elementwise`], [`convert`]).

pub mod approximate;
mod approximate_tables;
pub mod arithmetic;
pub mod compare;
pub mod control;
pub mod convert;
pub mod elementwise;
pub mod exception;
pub mod fma;
pub mod general;
pub mod half;
pub mod horizontal;
pub mod kernel;
pub mod mmx;
pub mod part;

#[cfg(test)]
mod tests;
