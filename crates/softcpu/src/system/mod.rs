//! Instructions of the operating system: control registers, interrupts and I/O, time, translations, hypercalls.

mod control;
mod flags;
mod hypercall;
mod io;
mod misc;
mod translation;

pub use crate::cpuid::cpuid;
pub use crate::debug::{mov_from_dr, mov_to_dr};
pub use crate::msr::{rdmsr, wrmsr};
pub use crate::pmu::rdpmc;
pub use crate::segment::{arpl, lar, lgdt, lidt, lldt, lsl, ltr, sgdt, sidt, sldt, str_, verr, verw};
pub use control::{clts, lmsw_mem, lmsw_reg, mov_from_cr, mov_to_cr, smsw_mem, smsw_reg};
pub use flags::{clac, cli, stac, sti};
pub use hypercall::{hypercall, vmcall, vmmcall};
pub use io::{in_, ins, out_, outs};
pub use misc::{hlt, monitor, mwait, pause, rdfsbase, rdpid, rdpkru, rdtsc, rdtscp, swapgs, wrpkru};
pub use translation::{invd, invlpg, invpcid, wbinvd};

use crate::cpu::Cpu;
use crate::op::Stop;

/// What some instructions cost, in virtual nanoseconds, beyond what every system instruction does: roughly what they take on
/// hardware, so that a loop of them takes the time that its author expects.
pub(crate) mod cost {
    /// Writing a control register, which often empties the TLB.
    pub const WRITE_CONTROL: u64 = 200;
    /// Other serialising instructions, as writing an MSR, or INVLPG.
    pub const SERIALIZING: u64 = 50;
    /// Writing back all caches.
    pub const WRITE_BACK: u64 = 10_000;
}

/// #GP(0) above CPL 0.
fn require_cpl0(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cpl == 0 { Ok(()) } else { Err(cpu.gp0()) }
}
