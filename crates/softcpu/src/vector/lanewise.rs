//! Instructions that do the same to each lane of two sources.

use std::marker::PhantomData;

use super::compute::{self, Compute};
use super::encoding::Encoded;
use super::lane::Lane;
use super::state::{VectorState, Ymm};
use crate::exec::form::Place;
use crate::op::{Handler, Op};

/// What such an instruction computes. It must not depend on anything but its arguments.
pub trait Kernel {
    /// Bits of the immediate byte that concern the low lane alone: for the high lane it is shifted by so many.
    const IMMEDIATE_BITS: u32 = 0;
    /// One lane of the result, from one lane of each source and the immediate byte. Instructions with one source
    /// ignore `a`.
    fn lane(a: Lane, b: Lane, imm: u8) -> Lane;
}

/// Define kernels: `Name |a, b, imm| expression;`, or `Name(n) ...` if each lane has `n` bits of the immediate to itself.
macro_rules! kernels {
    ($($name:ident $(($bits:literal))? |$a:pat_param, $b:pat_param, $imm:pat_param| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl $crate::vector::lanewise::Kernel for $name {
            $(const IMMEDIATE_BITS: u32 = $bits;)?
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

/// Computes a [`Kernel`] for each lane.
pub struct Lanes<K>(PhantomData<K>);

impl<K: Kernel> Compute for Lanes<K> {
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        let (a, imm) = (vectors.ymm(op.extra), op.imm as u8);
        [K::lane(a[0], b[0], imm), K::lane(a[1], b[1], imm >> K::IMMEDIATE_BITS)]
    }
}

/// The handler of a kernel whose operand has `size` bytes if it is in memory.
pub fn handler<K: Kernel>(encoded: Encoded, source: Place, size: u8) -> Handler {
    compute::handler::<Lanes<K>>(encoded, source, size)
}
