//! FXSAVE and FXRSTOR: SDM vol. 2, APM vol. 5.

use x86defs::{cr, vector};

use super::area::Area;
use super::component::LEGACY;
use super::legacy::{self, Pointers};
use super::registers_in;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop};

const ALIGNMENT: u64 = 16;
const DWORD: u64 = 4;

fn check(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 { Err(cpu.raise(vector::NM)) } else { Ok(()) }
}

/// Whether XMM registers take part. An operating system that has not said that it knows them keeps its own; AMD's fast form
/// leaves them to 64-bit kernels that save them by other means (APM vol. 2 section 11.4.4.2).
fn includes_xmm(cpu: &Cpu) -> bool {
    let fast = cpu.efer & cr::EFER_FFXSR != 0 && cpu.cpl == 0 && cpu.mode.is_64();
    cpu.cr4 & cr::CR4_OSFXSR != 0 && !fast
}

/// The memory operand. Of one that is not even a multiple of 4, AMD's silicon complains as of any alignment that is checked; it
/// is up to the processor (SDM vol. 2 FXSAVE, #AC).
fn area(cpu: &mut Cpu, op: &Op, write: bool) -> Result<Area, Stop> {
    let checked = if cpu.features.amd { DWORD } else { 1 };
    Area::checked(cpu, op, checked, ALIGNMENT, write)
}

/// FXSAVE, FXSAVE64 (`size` 8).
pub fn fxsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check(cpu)?;
    let area = area(cpu, op, true)?;
    let mut region = [0; LEGACY];
    legacy::save_x87(&cpu.fpu, Pointers::of(cpu, op.size == 8), &mut region);
    let registers = if includes_xmm(cpu) { registers_in(cpu) } else { 0 };
    if cpu.cr4 & cr::CR4_OSFXSR != 0 {
        legacy::save_mxcsr(cpu, &mut region);
    }
    legacy::save_xmm(&cpu.vector, registers, &mut region);
    // What is behind the registers is the software's.
    area.store(cpu, env, &[(0, LEGACY as u64)], &[(0, &region[..legacy::xmm(registers).end])])
}

/// FXRSTOR, FXRSTOR64 (`size` 8).
pub fn fxrstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check(cpu)?;
    let area = area(cpu, op, false)?;
    let region = area.load::<LEGACY>(cpu, env, 0)?;
    let mut vector = cpu.vector;
    if cpu.cr4 & cr::CR4_OSFXSR != 0 {
        vector.mxcsr = legacy::load_mxcsr(cpu, &region).ok_or_else(|| cpu.gp0())?;
    }
    if includes_xmm(cpu) {
        legacy::load_xmm(&mut vector, registers_in(cpu), &region);
    }
    cpu.vector = vector;
    cpu.fpu = legacy::load_x87(&region, op.size == 8);
    Ok(Flow::Next)
}
