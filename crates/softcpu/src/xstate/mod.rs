//! Extended state as a whole: FXSAVE, XSAVE and their kin, XCR0. SDM vol. 1 chapters 10.5 and 13, APM vol. 2 section 11.5.
//!
//! The state is cut into components ([`component`]). An area in memory has two parts that always lie at the same place, the
//! legacy region which FXSAVE writes too ([`legacy`]) and the header, and behind them the other components, at fixed places or
//! one behind the other (compacted). [`save`] and [`restore`] are one function each; the instructions differ in what they
//! leave out.

mod area;
pub mod component;
mod control;
mod fxsave;
mod image;
mod legacy;
mod restore;
mod save;

#[cfg(test)]
mod tests;

pub use control::{xgetbv, xsetbv};
pub use fxsave::{fxrstor, fxsave};
pub use image::ImageError;
pub use restore::{xrstor, xrstors};
pub use save::{xsave, xsavec, xsaveopt, xsaves};

use x86defs::{cr, vector};

use crate::cpu::Cpu;
use crate::op::Stop;
use crate::vector::lane::Lane;

/// How many vector registers an instruction saves or restores: outside 64-bit mode there are eight (SDM vol. 1 section 13.5).
fn registers_in(cpu: &Cpu) -> u8 {
    if cpu.mode.is_64() { 16 } else { 8 }
}

/// #UD unless CR4.OSXSAVE, #NM if another task's state is in the registers.
fn check_enabled(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    if cpu.cr0 & cr::CR0_TS != 0 { Err(cpu.raise(vector::NM)) } else { Ok(()) }
}

/// EDX:EAX, the components that an instruction names.
fn mask(cpu: &Cpu) -> u64 {
    cpu.regs[0] & 0xFFFF_FFFF | cpu.regs[2] << 32
}

fn lane_to_bytes(lane: Lane) -> [u8; 16] {
    bytemuck::cast(lane)
}

fn lane_from_bytes(bytes: &[u8; 16]) -> Lane {
    bytemuck::cast(*bytes)
}
