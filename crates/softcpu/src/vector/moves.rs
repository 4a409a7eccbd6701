//! Moves of whole vectors.

use super::encoding::{Encoded, Encoding, with_encoding};
use super::memory;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Kind;
use crate::op::{Flow, Handler, Op, Step};

fn between<E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = cpu.vector.ymm(op.src);
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// In a flat segment.
fn load_flat<E: Encoding, const ALIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let Some(value) = memory::load_flat::<E>(cpu, op, ALIGNED) else { return load::<E, ALIGNED>(cpu, env, op) };
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

#[cold]
fn load<E: Encoding, const ALIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = memory::load::<E>(cpu, env, op, ALIGNED)?;
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// In a flat segment.
fn store_flat<E: Encoding, const ALIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    match memory::store_flat::<E>(cpu, op, ALIGNED, cpu.vector.ymm(op.src)) {
        Some(()) => Ok(Flow::Next),
        None => store::<E, ALIGNED>(cpu, env, op),
    }
}

#[cold]
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
    Load(Kind),
    /// Memory from `src`.
    Store(Kind),
}

fn move_of<const ALIGNED: bool>(encoded: Encoded, direction: Direction) -> Handler {
    with_encoding!(encoded, E => match direction {
        Direction::Between => between::<E> as Handler,
        Direction::Load(Kind::Based64 | Kind::Segmented) => load::<E, ALIGNED>,
        Direction::Load(_) => load_flat::<E, ALIGNED>,
        Direction::Store(Kind::Based64 | Kind::Segmented) => store::<E, ALIGNED>,
        Direction::Store(_) => store_flat::<E, ALIGNED>,
    })
}

/// The handler of a move. `aligned`: memory must be, with any encoding (MOVAPS, MOVDQA, MOVNTDQ).
pub fn handler(encoded: Encoded, direction: Direction, aligned: bool) -> Handler {
    if aligned { move_of::<true>(encoded, direction) } else { move_of::<false>(encoded, direction) }
}
