//! MMX: what [`crate::vector`] does to a lane, done to the significands of the x87 registers, which are half as wide.
//!
//! Nothing is computed twice: a handler makes a lane of its operands as [`Halves`] says, and calls the kernel of the SSE
//! instruction of the same name.

use std::marker::PhantomData;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::{Place, with_width};
use crate::op::{Flow, Handler, Op, Step, Width};
use crate::vector::available::Available;
use crate::vector::compare::{Elements, Signs};
use crate::vector::lane::{Lane, map};
use crate::vector::lanewise::Kernel;
use crate::vector::shuffle;

/// An MMX instruction of two sources.
pub trait Mmx {
    /// The result.
    fn compute(a: u64, b: u64, imm: u8) -> u64;
}

/// A kernel that does the same to each element, or to each half of a lane: the low half is what MMX has.
pub struct Low<K>(PhantomData<K>);
/// A kernel that takes the high halves of its sources (PUNPCKH*): in MMX they are all there is above the middle.
pub struct High<K>(PhantomData<K>);
/// A kernel that makes the low half of its result of the first source, the high half of the second (packs, horizontal sums): in
/// MMX the two sources are a lane.
pub struct Joined<K>(PhantomData<K>);

impl<K: Kernel> Mmx for Low<K> {
    #[inline(always)]
    fn compute(a: u64, b: u64, imm: u8) -> u64 {
        K::lane([a, 0], [b, 0], imm)[0]
    }
}

impl<K: Kernel> Mmx for High<K> {
    #[inline(always)]
    fn compute(a: u64, b: u64, imm: u8) -> u64 {
        let spread = |x: u64| -> Lane { [0, x >> 32] };
        K::lane(spread(a), spread(b), imm)[0]
    }
}

impl<K: Kernel> Mmx for Joined<K> {
    #[inline(always)]
    fn compute(a: u64, b: u64, imm: u8) -> u64 {
        K::lane([a, b], [0; 2], imm)[0]
    }
}

/// PSHUFB.
pub struct Pshufb;
/// PSHUFW.
pub struct Pshufw;
/// PALIGNR.
pub struct Palignr;

impl Mmx for Pshufb {
    fn compute(a: u64, b: u64, _imm: u8) -> u64 {
        let byte = |i: u8| if i & 0x80 != 0 { 0 } else { (a >> (8 * u32::from(i & 7))) as u8 };
        map::<u8, 16>([b, 0], byte)[0]
    }
}

impl Mmx for Pshufw {
    fn compute(_a: u64, b: u64, imm: u8) -> u64 {
        shuffle::shuffle_words(b, imm)
    }
}

impl Mmx for Palignr {
    fn compute(a: u64, b: u64, imm: u8) -> u64 {
        let joined = u128::from(a) << 64 | u128::from(b);
        joined.checked_shr(8 * u32::from(imm)).unwrap_or(0) as u64
    }
}

#[inline(always)]
fn finish<M: Mmx>(cpu: &mut Cpu, op: &Op, b: u64) -> Step {
    let value = M::compute(cpu.fpu.mmx(op.extra), b, op.imm as u8);
    cpu.fpu.set_mmx(op.dst, value);
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

fn from_register<M: Mmx>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let b = cpu.fpu.mmx(op.src);
    finish::<M>(cpu, op, b)
}

fn from_memory<M: Mmx, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let b = addr::read_operand::<T>(cpu, env, op)?.to_u64();
    finish::<M>(cpu, op, b)
}

/// The handler of an instruction whose operand has `size` bytes if it is in memory: PUNPCKL* load no more than they use.
pub fn handler<M: Mmx>(source: Place, size: u8) -> Handler {
    match (source, size) {
        (Place::Register, _) => from_register::<M>,
        (Place::Memory(_), 4) => from_memory::<M, u32>,
        (Place::Memory(_), _) => from_memory::<M, u64>,
    }
}

fn insert_register<T: Width, const KEEP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    insert::<T, KEEP>(cpu, op, T::get(&cpu.regs, op.src))
}

fn insert_memory<T: Width, const KEEP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let element = addr::read_operand::<T>(cpu, env, op)?;
    insert::<T, KEEP>(cpu, op, element)
}

/// How far element `imm` (modulo their count) is from bit 0.
#[inline(always)]
fn position<T: Width>(op: &Op) -> u32 {
    (op.imm as u32 % (64 / T::BITS)) * T::BITS
}

#[inline(always)]
fn insert<T: Width, const KEEP: bool>(cpu: &mut Cpu, op: &Op, element: T) -> Step {
    let at = position::<T>(op);
    let kept = if KEEP { cpu.fpu.mmx(op.dst) & !(u64::MAX >> (64 - T::BITS) << at) } else { 0 };
    cpu.fpu.set_mmx(op.dst, kept | element.to_u64() << at);
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

/// MOVD, MOVQ, and PINSRW if `keep`: element `imm` of `dst` from a general register or memory.
pub fn insert_of(source: Place, size: u8, keep: bool) -> Handler {
    with_width!(size, T => match (source, keep) {
        (Place::Register, true) => insert_register::<T, true> as Handler,
        (Place::Register, false) => insert_register::<T, false>,
        (Place::Memory(_), true) => insert_memory::<T, true>,
        (Place::Memory(_), false) => insert_memory::<T, false>,
    })
}

fn extract_register<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let element = T::from_u64(cpu.fpu.mmx(op.src) >> position::<T>(op));
    u64::set(&mut cpu.regs, op.dst, element.to_u64());
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

fn extract_memory<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let element = T::from_u64(cpu.fpu.mmx(op.src) >> position::<T>(op));
    addr::write_operand(cpu, env, op, element)?;
    cpu.fpu.enter_mmx();
    cpu.after_store()
}

/// MOVD, MOVQ, MOVNTQ, PEXTRW: element `imm` of `src` to a general register or memory.
pub fn extract_of(target: Place, size: u8) -> Handler {
    with_width!(size, T => match target {
        Place::Register => extract_register::<T> as Handler,
        Place::Memory(_) => extract_memory::<T>,
    })
}

/// PMOVMSKB.
pub fn pmovmskb(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let signs = Elements::<i8, 16>::signs([cpu.fpu.mmx(op.src), 0]);
    u64::set(&mut cpu.regs, op.dst, signs.into());
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

/// MOVQ2DQ.
pub fn movq2dq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(Available::SSE)?;
    cpu.mmx_ready(env)?;
    let value = cpu.fpu.mmx(op.src);
    cpu.vector.set_xmm(op.dst, [value, 0]);
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

/// MOVDQ2Q.
pub fn movdq2q(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(Available::SSE)?;
    cpu.mmx_ready(env)?;
    let value = cpu.vector.xmm(op.src)[0];
    cpu.fpu.set_mmx(op.dst, value);
    cpu.fpu.enter_mmx();
    Ok(Flow::Next)
}

/// EMMS.
pub fn emms(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    cpu.fpu.leave_mmx();
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests;
