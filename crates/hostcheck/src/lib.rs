//! Judges the software CPU by the processor that we sit on: generated sequences of unprivileged instructions run natively and
//! on `softcpu`, from the same state, and everything that a program can see afterwards is compared.
//!
//! A test crate. It may depend on `softcpu` and everything below it, and nothing may depend on it. It is empty but on x86-64
//! Linux, since what it compares with is the host. `docs/testing-against-hardware.md` says how to use it.
//!
//! # How a case runs
//!
//! [`generate`] makes a [`case::Case`]: code, registers, and what memory holds, all of it from a seed. [`native`] loads that
//! state, jumps to the code and comes back by a jump behind it, or by a signal, which is where exceptions surface in a
//! process. [`guest`] does the same with a vCPU at CPL 3 whose page tables map the same addresses. [`compare`] compares two
//! [`case::Outcome`]s, and [`check`] finds the first instruction after which they differ.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![cfg_attr(not(test), warn(missing_docs))]

pub mod case;
pub mod catalogue;
pub mod check;
pub mod compare;
pub mod generate;
pub mod guest;
pub mod host;
pub mod layout;
pub mod native;
pub mod random;
pub mod xsave;
