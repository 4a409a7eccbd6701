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
pub use hypercall::{vmcall, vmmcall};
pub use io::{in_, ins, out_, outs};
pub use misc::{hlt, monitor, mwait, pause, rdfsbase, rdpid, rdpkru, rdpmc, rdtsc, rdtscp, swapgs, wrpkru};
pub use translation::{invd, invlpg, invpcid, wbinvd};

use crate::cpu::Cpu;
use crate::op::Stop;

/// #GP(0) above CPL 0.
fn require_cpl0(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cpl == 0 { Ok(()) } else { Err(cpu.gp0()) }
}
