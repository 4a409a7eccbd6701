//! Moves of one element between a vector and a general register or memory: MOVD, MOVQ, PINSR*, PEXTR*, and stores of a part.

use super::encoding::{Encoded, Encoding, with_encoding};
use super::lane::{Lane, from_u128, to_u128};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::{Place, with_width};
use crate::op::{Flow, Handler, Op, Step, Width};

/// How far element `number` (modulo their count) of width `T` is from bit 0.
#[inline(always)]
fn position<T: Width>(number: u64) -> u32 {
    (number as u32 % (128 / T::BITS)) * T::BITS
}

/// `lane` with another element; if not `KEEP` all else becomes zero.
#[inline(always)]
fn inserted<T: Width, const KEEP: bool>(lane: Lane, number: u64, element: T) -> Lane {
    let at = position::<T>(number);
    let kept = if KEEP { to_u128(lane) & !(u128::from(u64::MAX >> (64 - T::BITS)) << at) } else { 0 };
    from_u128(kept | u128::from(element.to_u64()) << at)
}

#[inline(always)]
fn extracted<T: Width>(lane: Lane, number: u64) -> T {
    T::from_u64((to_u128(lane) >> position::<T>(number)) as u64)
}

fn insert_register<E: Encoding, T: Width, const KEEP: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = inserted::<T, KEEP>(cpu.vector.xmm(op.extra), op.imm, T::get(&cpu.regs, op.src));
    E::set(cpu, op.dst, [value, [0; 2]]);
    Ok(Flow::Next)
}

fn insert_memory<E: Encoding, T: Width, const KEEP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let element = addr::read_operand::<T>(cpu, env, op)?;
    let value = inserted::<T, KEEP>(cpu.vector.xmm(op.extra), op.imm, element);
    E::set(cpu, op.dst, [value, [0; 2]]);
    Ok(Flow::Next)
}

/// Element `imm` of `dst` from a general register or memory. The others come from `extra` if `keep`, else they are zero.
pub fn insert(encoded: Encoded, source: Place, size: u8, keep: bool) -> Handler {
    with_encoding!(encoded, E => with_width!(size, T => match (source, keep) {
        (Place::Register, true) => insert_register::<E, T, true> as Handler,
        (Place::Register, false) => insert_register::<E, T, false>,
        (Place::Memory(_), true) => insert_memory::<E, T, true>,
        (Place::Memory(_), false) => insert_memory::<E, T, false>,
    }))
}

/// Zero-extended, whatever the size of the general register.
fn extract_register<E: Encoding, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let element = extracted::<T>(cpu.vector.xmm(op.src), op.imm);
    u64::set(&mut cpu.regs, op.dst, element.to_u64());
    Ok(Flow::Next)
}

fn extract_memory<E: Encoding, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let element = extracted::<T>(cpu.vector.xmm(op.src), op.imm);
    addr::write_operand(cpu, env, op, element)?;
    cpu.after_store()
}

/// Element `imm` of `src` to a general register or memory.
pub fn extract(encoded: Encoded, target: Place, size: u8) -> Handler {
    with_encoding!(encoded, E => with_width!(size, T => match target {
        Place::Register => extract_register::<E, T> as Handler,
        Place::Memory(_) => extract_memory::<E, T>,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_numbered_from_the_low_end_modulo_their_count() {
        let lane = [0x0706_0504_0302_0100, 0x0F0E_0D0C_0B0A_0908];
        assert_eq!(extracted::<u8>(lane, 0x1E), 0x0E);
        assert_eq!(extracted::<u32>(lane, 7), 0x0F0E_0D0C);
        assert_eq!(extracted::<u64>(lane, 2), lane[0]);
        assert_eq!(inserted::<u16, true>(lane, 9, 0xABCD), [0x0706_0504_ABCD_0100, lane[1]]);
        assert_eq!(inserted::<u64, true>(lane, 1, 5), [lane[0], 5]);
        assert_eq!(inserted::<u32, false>(lane, 0, 5), [5, 0]);
    }
}
