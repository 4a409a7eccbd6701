//! Instructions that do the same to each lane of two sources.

use super::encoding::{Encoded, Encoding, with_encoding};
use super::lane::Lane;
use super::memory;
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step};

/// What such an instruction computes. It must not depend on anything but its arguments.
pub trait Kernel {
    /// One lane of the result, from one lane of each source and the immediate byte. Instructions with one source
    /// ignore `a`.
    fn lane(a: Lane, b: Lane, imm: u8) -> Lane;
}

/// Define kernels: `Name |a, b, imm| expression;`.
macro_rules! kernels {
    ($($name:ident |$a:pat_param, $b:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl $crate::vector::lanewise::Kernel for $name {
            #[inline(always)]
            fn lane(
                $a: $crate::vector::lane::Lane,
                $b: $crate::vector::lane::Lane,
                $imm: u8,
            ) -> $crate::vector::lane::Lane {
                $body
            }
        }
    )*};
}

pub(crate) use kernels;

#[inline(always)]
fn finish<K: Kernel, E: Encoding>(cpu: &mut Cpu, op: &Op, b: Ymm) -> Step {
    let (a, imm) = (cpu.vector.ymm(op.extra), op.imm as u8);
    let high = if E::WIDE { K::lane(a[1], b[1], imm) } else { [0; 2] };
    E::set(cpu, op.dst, [K::lane(a[0], b[0], imm), high]);
    Ok(Flow::Next)
}

fn from_register<K: Kernel, E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = cpu.vector.ymm(op.src);
    finish::<K, E>(cpu, op, b)
}

fn from_memory<K: Kernel, E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = memory::load::<E>(cpu, env, op, E::ALIGNED)?;
    finish::<K, E>(cpu, op, b)
}

/// The handler of a kernel.
pub fn handler<K: Kernel>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_register::<K, E> as Handler,
        Place::Memory(_) => from_memory::<K, E>,
    })
}
