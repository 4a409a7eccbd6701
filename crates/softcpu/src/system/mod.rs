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
pub use crate::segment::{arpl, lar, lgdt, lidt, lldt, lsl, ltr, sgdt, sidt, sldt, str_, verr, verw};
pub use control::{clts, lmsw_mem, lmsw_reg, mov_from_cr, mov_to_cr, smsw_mem, smsw_reg};
pub use flags::{clac, cli, stac, sti};
pub use hypercall::{hypercall, vmcall, vmmcall};
pub use io::{in_, ins, out_, outs};
pub use misc::{hlt, monitor, mwait, pause, rdfsbase, rdpid, rdpkru, rdpmc, rdtsc, rdtscp, swapgs, wrpkru};
pub use translation::{invd, invlpg, invpcid, wbinvd};

use crate::cpu::Cpu;
use crate::op::Stop;

/// What slow instructions cost beyond the nanosecond that every instruction takes: roughly what they do on hardware. A loop of
/// them then takes the time that its author expects.
pub(crate) mod cost {
    /// Reading a control register.
    pub const READ_CONTROL: u64 = 25;
    /// Serialising instructions, as writing a control register or an MSR, or INVLPG.
    pub const SERIALIZING: u64 = 100;
    /// Writing back all caches.
    pub const WRITE_BACK: u64 = 10_000;
    /// PAUSE.
    pub const PAUSE: u64 = 40;
    /// Reading the time-stamp counter or an MSR.
    pub const READ_COUNTER: u64 = 10;
}

/// #GP(0) above CPL 0.
fn require_cpl0(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cpl == 0 { Ok(()) } else { Err(cpu.gp0()) }
}
