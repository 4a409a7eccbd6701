//! LDMXCSR and STMXCSR.

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Handler, Op, Step};
use crate::vector::encoding::{Encoded, Encoding, with_encoding};
use crate::vector::state::mxcsr_mask;

fn load<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = addr::read_operand::<u32>(cpu, env, op)?;
    if value & !mxcsr_mask(&cpu.features) != 0 {
        return Err(cpu.gp0());
    }
    cpu.vector.mxcsr = value;
    Ok(Flow::Next)
}

fn store<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    addr::write_operand(cpu, env, op, cpu.vector.mxcsr)?;
    cpu.after_store()
}

/// LDMXCSR, or STMXCSR.
pub fn handler(encoded: Encoded, loads: bool) -> Handler {
    with_encoding!(encoded, E => if loads { load::<E> as Handler } else { store::<E> })
}
