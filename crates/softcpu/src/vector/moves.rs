//! Moves of whole vectors.

use super::encoding::{Encoded, Encoding, with_encoding};
use super::memory;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step};

fn between<E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = cpu.vector.ymm(op.src);
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

fn load<E: Encoding, const ALIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = memory::load::<E>(cpu, env, op, ALIGNED)?;
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

fn store<E: Encoding, const ALIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = cpu.vector.ymm(op.src);
    memory::store::<E>(cpu, env, op, ALIGNED, value)?;
    cpu.after_store()
}

/// Where a move goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `dst` from `src`.
    Between,
    /// `dst` from memory.
    Load,
    /// Memory from `src`.
    Store,
}

/// The handler of a move. `aligned`: memory must be, with any encoding (MOVAPS, MOVDQA, MOVNTDQ).
pub fn handler(encoded: Encoded, direction: Direction, aligned: bool) -> Handler {
    with_encoding!(encoded, E => match (direction, aligned) {
        (Direction::Between, _) => between::<E> as Handler,
        (Direction::Load, false) => load::<E, false>,
        (Direction::Load, true) => load::<E, true>,
        (Direction::Store, false) => store::<E, false>,
        (Direction::Store, true) => store::<E, true>,
    })
}
