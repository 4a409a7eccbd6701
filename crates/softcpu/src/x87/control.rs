//! Control and status words.

use x86defs::{cr, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Op, Step, Width};

const AX: u8 = 0;

/// FNINIT.
pub fn fninit(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.x87_available()?;
    cpu.fpu.initialise();
    Ok(Flow::Next)
}

/// FNCLEX.
pub fn fnclex(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.x87_available()?;
    cpu.fpu.clear_exceptions();
    Ok(Flow::Next)
}

/// FNSTSW AX.
pub fn fnstsw_ax(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.x87_available()?;
    let status = cpu.fpu.status();
    u16::set(&mut cpu.regs, AX, status);
    Ok(Flow::Next)
}

/// FNSTSW m16.
pub fn fnstsw_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_available()?;
    let status = cpu.fpu.status();
    addr::write_operand(cpu, env, op, status)?;
    cpu.after_store()
}

/// FNSTCW m16.
pub fn fnstcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_available()?;
    let control = cpu.fpu.control();
    addr::write_operand(cpu, env, op, control)?;
    cpu.after_store()
}

/// FLDCW m16.
pub fn fldcw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let control = addr::read_operand(cpu, env, op)?;
    cpu.fpu.set_control(control);
    Ok(Flow::Next)
}

/// WAIT: #NM if CR0.MP and CR0.TS are both set; then the error of an earlier instruction is reported.
pub fn wait(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let both = cr::CR0_MP | cr::CR0_TS;
    if cpu.cr0 & both == both {
        return Err(cpu.raise(vector::NM));
    }
    cpu.x87_settled(env)?;
    Ok(Flow::Next)
}

/// FNOP.
pub fn fnop(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    cpu.note_x87(op);
    Ok(Flow::Next)
}

/// FNENI, FNDISI, FNSETPM: control instructions of the 8087 and 80287 that do nothing since the 80387 (SDM vol. 3 section 23.18.7).
pub fn nothing(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.x87_available()?;
    Ok(Flow::Next)
}
