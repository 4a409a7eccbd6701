//! Delivery of exceptions and interrupts through the IVT or IDT.

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;

/// What is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// An exception, at the instruction's own RIP (fault) or behind it (trap: RIP has been advanced).
    Exception { vector: u8, error_code: Option<u32>, payload: u64 },
    /// INT n, INT3, INTO, INT1: `return_rip` is behind the instruction; gates' DPL is checked (not for INT1).
    Software { vector: u8, return_rip: u64, privileged: bool },
    /// External interrupt or NMI.
    External { vector: u8 },
}

/// A triple fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown;

impl Cpu {
    /// Deliver an event; exceptions during delivery become what SDM vol. 3 table 6-5 says, up to a triple fault. An `Err(Ok(stop))`
    /// is a stop that is no fault (an IDT in device memory, say).
    pub fn deliver(&mut self, _env: &mut Env<'_>, _event: Event) -> Result<(), Result<Stop, Shutdown>> {
        Err(Err(Shutdown))
    }
}
