//! Debug registers, breakpoints, single-stepping. SDM vol. 3 chapter 18.

use x86defs::dr;

/// DR0–DR7 and pending debug conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DebugState {
    /// DR0–DR3.
    pub addresses: [u64; 4],
    /// DR6.
    pub dr6: u64,
    /// DR7. After a change call [`crate::Cpu::rights_changed`].
    pub dr7: u64,
    /// DR6 bits of traps that are due when the instruction retires.
    pub pending: u64,
}

impl Default for DebugState {
    fn default() -> Self {
        Self { addresses: [0; 4], dr6: dr::DR6_INIT, dr7: dr::DR7_INIT, pending: 0 }
    }
}

impl DebugState {
    /// Whether some data or I/O breakpoint is enabled.
    pub fn watches_data(&self) -> bool {
        false
    }
    /// Whether some instruction breakpoint is enabled.
    pub fn watches_code(&self) -> bool {
        false
    }
    /// DR6 bits of the enabled instruction breakpoints at `linear`; 0 if none.
    pub fn code_hit(&self, _linear: u64) -> u64 {
        0
    }
    /// Note a data access: breakpoints that it hits become pending.
    pub fn note_data(&mut self, _linear: u64, _bytes: u64, _write: bool) {}
}
