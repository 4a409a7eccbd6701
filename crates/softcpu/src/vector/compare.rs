//! Comparisons of packed integers, and tests that set flags.

use std::marker::PhantomData;

use super::encoding::{Encoded, Encoding, with_encoding};
use super::lane::{Lane, elements, zip};
use super::lanewise::kernels;
use super::memory;
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step};

/// A comparison's result as an element of the same width: all ones if it holds.
macro_rules! mask {
    ($t:ty, $compare:tt) => {
        |a: $t, b: $t| if a $compare b { !0 } else { 0 }
    };
}

kernels! {
    Pcmpeqb |a, b, _| zip::<u8, 16>(a, b, mask!(u8, ==));
    Pcmpeqw |a, b, _| zip::<u16, 8>(a, b, mask!(u16, ==));
    Pcmpeqd |a, b, _| zip::<u32, 4>(a, b, mask!(u32, ==));
    Pcmpeqq |a, b, _| zip::<u64, 2>(a, b, mask!(u64, ==));
    Pcmpgtb |a, b, _| zip::<i8, 16>(a, b, mask!(i8, >));
    Pcmpgtw |a, b, _| zip::<i16, 8>(a, b, mask!(i16, >));
    Pcmpgtd |a, b, _| zip::<i32, 4>(a, b, mask!(i32, >));
    Pcmpgtq |a, b, _| zip::<i64, 2>(a, b, mask!(i64, >));
}

/// Which bits a test looks at.
pub trait Tested {
    /// In each quadword.
    const BITS: u64;
}

/// PTEST: every bit.
pub struct Every;
/// VTESTPS: signs of single precision.
pub struct Signs32;
/// VTESTPD: signs of double precision.
pub struct Signs64;

impl Tested for Every {
    const BITS: u64 = u64::MAX;
}
impl Tested for Signs32 {
    const BITS: u64 = 0x8000_0000_8000_0000;
}
impl Tested for Signs64 {
    const BITS: u64 = 1 << 63;
}

/// ZF: `a & b` is zero; CF: `!a & b` is; the other flags are cleared.
fn test<T: Tested, E: Encoding>(cpu: &mut Cpu, op: &Op, b: Ymm) -> Step {
    let a = cpu.vector.ymm(op.extra);
    let lanes = if E::WIDE { 2 } else { 1 };
    let none = |f: fn(u64, u64) -> u64| (0..lanes).all(|i| (f(a[i][0], b[i][0]) | f(a[i][1], b[i][1])) & T::BITS == 0);
    let (zf, cf) = (none(|a, b| a & b), none(|a, b| !a & b));
    cpu.flags.set_bits(u64::from(zf) << 6 | u64::from(cf));
    Ok(Flow::Next)
}

fn test_register<T: Tested, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = cpu.vector.ymm(op.src);
    test::<T, E>(cpu, op, b)
}

fn test_memory<T: Tested, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = memory::load_sized::<E>(cpu, env, op, E::ALIGNED && !cpu.vector.misaligned())?;
    test::<T, E>(cpu, op, b)
}

/// PTEST, VTESTPS, VTESTPD.
pub fn test_of<T: Tested>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => test_register::<T, E> as Handler,
        Place::Memory(_) => test_memory::<T, E>,
    })
}

/// The top bits of a lane's elements of some width, gathered.
pub trait Signs {
    /// One bit for each element.
    fn signs(lane: Lane) -> u32;
    /// Elements of a lane.
    const COUNT: u32;
}

/// Elements of type `T`, of which a lane has `N`.
pub struct Elements<T, const N: usize>(PhantomData<T>);

macro_rules! signs {
    ($($t:ty: $n:literal)*) => {$(
        impl Signs for Elements<$t, $n> {
            const COUNT: u32 = $n;
            #[inline(always)]
            fn signs(lane: Lane) -> u32 {
                elements::<$t, $n>(lane).into_iter().rev().fold(0, |mask, x| mask << 1 | u32::from(x < 0))
            }
        }
    )*};
}

signs!(i8: 16 i32: 4 i64: 2);

fn movmsk<S: Signs, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let value = cpu.vector.ymm(op.src);
    let high = if E::WIDE { S::signs(value[1]) << S::COUNT } else { 0 };
    cpu.regs[usize::from(op.dst)] = u64::from(S::signs(value[0]) | high);
    Ok(Flow::Next)
}

/// PMOVMSKB, MOVMSKPS, MOVMSKPD: top bits to a general register.
pub fn movmsk_of<S: Signs>(encoded: Encoded) -> Handler {
    with_encoding!(encoded, E => movmsk::<S, E> as Handler)
}
