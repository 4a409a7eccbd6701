//! Conversions between a vector register's lowest element and a general register.

use softfloat::Format;

use super::convert::{Convert, FromInteger, Lowest, ToInteger};
use super::kernel;
use super::part::{Element, Part};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step, Width, slot};
use crate::vector::encoding::{Encoded, Encoding, with_encoding};
use crate::vector::state::Ymm;

#[inline(always)]
fn to_finish<C: Convert>(cpu: &mut Cpu, op: &Op, b: Ymm) -> Step {
    let mut cx = cpu.simd_context();
    let result = C::convert(&mut cx, C::From::of_lane(b[0], 0));
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    // 32-bit results are zero-extended.
    cpu.regs[slot(op.dst)] = result.to_bits();
    Ok(Flow::Next)
}

fn to_from_register<C: Convert, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = cpu.vector.ymm(op.src);
    to_finish::<C>(cpu, op, b)
}

fn to_from_memory<C: Convert, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = kernel::load::<E>(cpu, env, op, C::From::BYTES as u64)?;
    to_finish::<C>(cpu, op, b)
}

fn to<C: Convert>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => to_from_register::<C, E> as Handler,
        Place::Memory(_) => to_from_memory::<C, E>,
    })
}

/// CVTSS2SI and its kin, to a register of `size` bytes.
pub fn to_general<F: Element, const TRUNCATE: bool>(encoded: Encoded, source: Place, size: u8) -> Handler {
    if size == 8 {
        to::<ToInteger<F, i64, TRUNCATE>>(encoded, source)
    } else {
        to::<ToInteger<F, i32, TRUNCATE>>(encoded, source)
    }
}

#[inline(always)]
fn from_finish<C: Convert, E: Encoding>(cpu: &mut Cpu, op: &Op, value: u64) -> Step {
    let mut cx = cpu.simd_context();
    let low = Lowest::<C>::lane(&mut cx, cpu.vector.xmm(op.extra), C::From::from_bits(value));
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    E::set(cpu, op.dst, [low, [0; 2]]);
    Ok(Flow::Next)
}

fn from_from_register<C: Convert, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = cpu.regs[slot(op.src)];
    from_finish::<C, E>(cpu, op, value)
}

fn from_from_memory<C: Convert, E: Encoding, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = addr::read_operand::<T>(cpu, env, op)?;
    from_finish::<C, E>(cpu, op, value.to_u64())
}

fn from<C: Convert, T: Width>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_from_register::<C, E> as Handler,
        Place::Memory(_) => from_from_memory::<C, E, T>,
    })
}

/// CVTSI2SS and CVTSI2SD, from an operand of `size` bytes.
pub fn from_general<F: Element + Format>(encoded: Encoded, source: Place, size: u8) -> Handler {
    if size == 8 {
        from::<FromInteger<i64, F>, u64>(encoded, source)
    } else {
        from::<FromInteger<i32, F>, u32>(encoded, source)
    }
}
