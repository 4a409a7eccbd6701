//! Architectural numbers of the x86: registers, bits, vectors, MSR indices. No logic.
//!
//! Names are those of the Intel SDM, or of the AMD APM where only AMD defines the thing, so that a search in the
//! manual finds the line here. This crate depends on nothing.
#![forbid(unsafe_code)]

pub mod cpuid;
pub mod cr;
pub mod dr;
pub mod msr;
pub mod paging;
pub mod rflags;
pub mod segment;
pub mod vector;
