//! What all engines share: exits, the bus that a vCPU sits on, virtual time, registers by name.
//!
//! May depend on `x86defs` only. An *engine* executes vCPUs; what stands around them (interrupt controllers, devices,
//! the hypervisor above) is reached through the [`Bus`] trait and through [`Exit`]s.
#![forbid(unsafe_code)]

mod bus;
mod clock;
mod exit;
mod register;

pub use bus::{Bus, Pending, Reply};
pub use clock::Clock;
pub use exit::{Exit, StopReason};
pub use register::{CpuMode, Register};
