//! Handlers of floating-point instructions whose result goes to a vector register.

use softfloat::Context;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step, Stop};
use crate::vector::encoding::{Encoded, Encoding, with_encoding};
use crate::vector::memory;
use crate::vector::state::Ymm;

/// What an instruction computes from. Where the encoding has one lane only, the high ones are of no account.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The destination, as it was.
    pub d: Ymm,
    /// First source.
    pub a: Ymm,
    /// Second source; of a memory operand shorter than a vector the rest is zero.
    pub b: Ymm,
    /// Immediate byte.
    pub imm: u8,
}

/// What an instruction computes.
pub trait Kernel {
    /// Size of the memory operand for vectors of so many bytes: 32, 16, 8, 4 or 2.
    fn operand(vector: u64) -> u64 {
        vector
    }
    /// The result. Of an encoding that is not wide the high lane does not count.
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm;
}

/// Load the second source from memory; legacy encodings want whole vectors aligned.
#[inline(always)]
pub fn load<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: u64) -> Result<Ymm, Stop> {
    let aligned = E::ALIGNED && bytes == 16 && !cpu.vector.misaligned();
    let linear = memory::locate(cpu, op, bytes, false, aligned)?;
    let low = match bytes {
        32 => return cpu.read_lanes(env, linear, op.seg),
        16 => cpu.read_lane(env, linear, op.seg)?,
        8 => [cpu.read::<u64>(env, linear, op.seg)?, 0],
        4 => [cpu.read::<u32>(env, linear, op.seg)?.into(), 0],
        _ => [cpu.read::<u16>(env, linear, op.seg)?.into(), 0],
    };
    Ok([low, [0; 2]])
}

#[inline(always)]
fn finish<K: Kernel, E: Encoding>(cpu: &mut Cpu, op: &Op, b: Ymm) -> Step {
    let sources = Sources { d: cpu.vector.ymm(op.dst), a: cpu.vector.ymm(op.extra), b, imm: op.imm as u8 };
    let mut cx = cpu.simd_context();
    let result = K::compute::<E>(&mut cx, &sources);
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    E::set(cpu, op.dst, result);
    Ok(Flow::Next)
}

fn from_register<K: Kernel, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = cpu.vector.ymm(op.src);
    finish::<K, E>(cpu, op, b)
}

fn from_memory<K: Kernel, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = load::<E>(cpu, env, op, K::operand(E::BYTES))?;
    finish::<K, E>(cpu, op, b)
}

/// The handler of a kernel.
pub fn handler<K: Kernel>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_register::<K, E> as Handler,
        Place::Memory(_) => from_memory::<K, E>,
    })
}
