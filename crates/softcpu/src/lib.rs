//! The software CPU: decode, execute, translate addresses, raise exceptions, and take turns between vCPUs.
//!
//! May depend on `x86defs`, `guestmem` and `vcpu`. It knows no device, no hypervisor's name and no Python; the world outside
//! is the [`vcpu::Bus`] that [`Engine::run`] is given.
//!
//! # How an instruction is executed
//!
//! [`decode`] turns bytes into [`op::Op`]s, plain structs with a function pointer, and groups them into blocks that end at a
//! branch or at the end of the page ([`cache`]). The [`engine`] runs a block by calling each op's handler in turn. A handler
//! that returns `Err` has changed nothing that the guest can see: a fault is delivered at the instruction's own RIP,
//! and an instruction that needs an answer from outside is simply executed again once the answer is known.
//!
//! Handlers that touch the bus (I/O, device memory, MSRs, time) run alone, with RIP and the clock exact: see
//! [`op::Stop::Careful`].
#![forbid(unsafe_code)]

mod cache;
mod cpu;
mod cpuid;
mod debug;
mod decode;
mod engine;
mod exception;
mod exec;
mod far;
mod features;
mod flags;
mod lam;
mod mem;
mod mmu;
mod mmx;
mod msr;
mod op;
mod pmu;
mod registers;
mod segment;
mod syscall;
mod system;
#[cfg(test)]
mod testing;
mod tlb;
mod vector;
mod x87;
mod xstate;

pub use cpu::{Activity, Cpu, Doze, HostVendor};
pub use cpuid::{CpuidEntry, CpuidTable};
pub use engine::{Engine, EngineConfig, Statistics};
pub use msr::{MsrWrite, Msrs};
pub use op::Answer;
pub use registers::RegisterValueError;
pub use xstate::ImageError;
