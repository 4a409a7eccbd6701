//! The little of x87 that a kernel needs to find out whether there is one: FNINIT, FNSTSW, FNSTCW, FLDCW, FNCLEX, WAIT.

use x86defs::{cr, vector};

use super::addr;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop, Width};

/// x87 state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fpu {
    /// FCW.
    pub control: u16,
    /// FSW.
    pub status: u16,
}

impl Default for Fpu {
    /// As RESET leaves it (SDM vol. 3 table 9-1).
    fn default() -> Self {
        Self { control: 0x40, status: 0 }
    }
}

/// FCW after FNINIT.
const FCW_INIT: u16 = 0x37F;
/// Status bits that FNCLEX clears: exceptions, stack fault, summary, busy.
const EXCEPTIONS: u16 = 0x80FF;
const AX: u8 = 0;

/// #NM: SDM vol. 3 table 9-3.
fn check_available(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr0 & (cr::CR0_EM | cr::CR0_TS) != 0 { Err(cpu.raise(vector::NM)) } else { Ok(()) }
}

/// FNINIT.
pub fn fninit(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_available(cpu)?;
    cpu.fpu = Fpu { control: FCW_INIT, status: 0 };
    Ok(Flow::Next)
}

/// FNCLEX.
pub fn fnclex(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_available(cpu)?;
    cpu.fpu.status &= !EXCEPTIONS;
    Ok(Flow::Next)
}

/// FNSTSW AX.
pub fn fnstsw_ax(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_available(cpu)?;
    let status = cpu.fpu.status;
    u16::set(&mut cpu.regs, AX, status);
    Ok(Flow::Next)
}

/// FNSTSW m16.
pub fn fnstsw_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_available(cpu)?;
    let status = cpu.fpu.status;
    addr::write_operand(cpu, env, op, status)?;
    cpu.after_store()
}

/// FNSTCW m16.
pub fn fnstcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_available(cpu)?;
    let control = cpu.fpu.control;
    addr::write_operand(cpu, env, op, control)?;
    cpu.after_store()
}

/// FLDCW m16.
pub fn fldcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_available(cpu)?;
    cpu.fpu.control = addr::read_operand(cpu, env, op)?;
    Ok(Flow::Next)
}

/// WAIT: #NM if CR0.MP and CR0.TS are both set.
pub fn wait(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let both = cr::CR0_MP | cr::CR0_TS;
    if cpu.cr0 & both == both { Err(cpu.raise(vector::NM)) } else { Ok(Flow::Next) }
}
