//! Instructions that make one vector of two: how their operands are fetched and their result is kept.

use std::marker::PhantomData;

use super::encoding::{Encoded, Encoding, with_encoding};
use super::lane::Lane;
use super::memory;
use super::state::{VectorState, Ymm};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::{Kind, Place};
use crate::op::{Flow, Handler, Op, Step};

/// What an instruction computes from its r/m operand `b` and the registers that the op names.
pub trait Compute {
    /// Whether memory must be aligned without VEX on AMD's CPUs as well as on Intel's.
    const ALIGNED_ON_AMD: bool = true;
    /// Whether an operand that MXCSR.MM lets be anywhere is its low quadword only.
    const LOW_HALF: bool = false;
    /// The result. Only the low lane counts if the encoding is not wide.
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm;
}

/// A function that goes across lanes.
pub trait Whole {
    /// The result from the first source, the second one, and the immediate byte.
    fn whole(a: Ymm, b: Ymm, imm: u8) -> Ymm;
}

/// A function of each lane with a third source. Its register is in the immediate: that of VEX.is4, or XMM0.
pub trait Ternary {
    /// One lane of the result.
    fn lane(a: Lane, b: Lane, c: Lane) -> Lane;
}

/// Computes a [`Whole`].
pub struct Across<W>(PhantomData<W>);

impl<W: Whole> Compute for Across<W> {
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        W::whole(vectors.ymm(op.extra), b, op.imm as u8)
    }
}

/// Computes a [`Ternary`].
pub struct WithThird<T>(PhantomData<T>);

impl<T: Ternary> Compute for WithThird<T> {
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        let (a, c) = (vectors.ymm(op.extra), vectors.ymm(op.imm as u8));
        [T::lane(a[0], b[0], c[0]), T::lane(a[1], b[1], c[1])]
    }
}

/// Computes what `C` does, with an operand that only Intel's CPUs want to be aligned.
pub struct UnalignedOnAmd<C>(PhantomData<C>);

impl<C: Compute> Compute for UnalignedOnAmd<C> {
    const ALIGNED_ON_AMD: bool = false;
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        C::compute(vectors, op, b)
    }
}

/// Computes what `C` does, of an operand whose low quadword alone counts. Where it need not be aligned silicon loads no more.
pub struct LowHalf<C>(PhantomData<C>);

impl<C: Compute> Compute for LowHalf<C> {
    const LOW_HALF: bool = true;
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        C::compute(vectors, op, b)
    }
}

/// Define functions across lanes: `Name |a, b, imm| expression;`.
macro_rules! wholes {
    ($($name:ident |$a:pat_param, $b:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl $crate::vector::compute::Whole for $name {
            #[inline(always)]
            fn whole(
                $a: $crate::vector::state::Ymm,
                $b: $crate::vector::state::Ymm,
                $imm: u8,
            ) -> $crate::vector::state::Ymm {
                $body
            }
        }
    )*};
}

pub(crate) use wholes;

fn from_register<C: Compute, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = C::compute(&cpu.vector, op, cpu.vector.ymm(op.src));
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// From an operand as wide as the encoding's vectors, in a flat segment.
fn from_flat<C: Compute, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let Some(b) = memory::load_flat::<E>(cpu, op, E::ALIGNED) else { return from_memory::<C, E>(cpu, env, op) };
    let value = C::compute(&cpu.vector, op, b);
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// From an operand of `size` bytes, wherever it is.
fn from_memory<C: Compute, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let aligned = E::ALIGNED && (C::ALIGNED_ON_AMD || !cpu.features.amd) && !cpu.vector.misaligned();
    let b = if C::LOW_HALF && E::ALIGNED && !aligned {
        [[memory::load_half(cpu, env, op)?, 0], [0; 2]]
    } else {
        memory::load_sized::<E>(cpu, env, op, aligned)?
    };
    let value = C::compute(&cpu.vector, op, b);
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// The handler of a computation whose operand has `size` bytes if it is in memory.
pub fn handler<C: Compute>(encoded: Encoded, source: Place, size: u8) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_register::<C, E> as Handler,
        Place::Memory(Kind::Flat64 | Kind::Flat32) if u64::from(size) == E::BYTES => from_flat::<C, E>,
        Place::Memory(_) => from_memory::<C, E>,
    })
}
