//! Kernels that do the same to each element, or to the lowest one only.

use std::marker::PhantomData;

use softfloat::Context;

use super::kernel::{Kernel, Sources};
use super::part::Element;
use crate::vector::encoding::Encoding;
use crate::vector::lane::Lane;
use crate::vector::state::Ymm;

/// A function of one element of each source.
pub trait Elementwise {
    /// What a scalar instruction does not compute is that of the destination, not that of the first source.
    const KEEPS_DESTINATION: bool = false;
    /// One element of the result. `i` is its place in the lane; `d` is what the destination has there. Instructions with one
    /// source ignore `a`.
    fn element<F: Element>(cx: &mut Context, i: usize, d: F, a: F, b: F, imm: u8) -> F;
}

/// A function of one lane of each source.
pub trait Lanewise {
    /// One lane of the result.
    fn lane(cx: &mut Context, d: Lane, a: Lane, b: Lane, imm: u8) -> Lane;
}

/// [`Lanewise`], for the whole vector.
pub struct Lanes<K>(PhantomData<K>);
/// [`Elementwise`], for all elements.
pub struct Packed<O, F>(PhantomData<(O, F)>);
/// [`Elementwise`], for the lowest element.
pub struct Scalar<O, F>(PhantomData<(O, F)>);

impl<K: Lanewise> Kernel for Lanes<K> {
    #[inline(always)]
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm {
        let low = K::lane(cx, s.d[0], s.a[0], s.b[0], s.imm);
        [low, if E::WIDE { K::lane(cx, s.d[1], s.a[1], s.b[1], s.imm) } else { [0; 2] }]
    }
}

impl<O: Elementwise, F: Element> Lanewise for Packed<O, F> {
    #[inline(always)]
    fn lane(cx: &mut Context, d: Lane, a: Lane, b: Lane, imm: u8) -> Lane {
        let mut result = [0; 2];
        for i in 0..F::COUNT {
            let [d, a, b] = [d, a, b].map(|lane| F::of_lane(lane, i));
            O::element(cx, i, d, a, b, imm).put(&mut result, i);
        }
        result
    }
}

impl<O: Elementwise, F: Element> Kernel for Scalar<O, F> {
    #[inline(always)]
    fn operand(_vector: u64) -> u64 {
        F::BYTES as u64
    }
    #[inline(always)]
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm {
        let [d, a, b] = [s.d, s.a, s.b].map(|vector| F::of_lane(vector[0], 0));
        let mut low = if O::KEEPS_DESTINATION { s.d[0] } else { s.a[0] };
        O::element(cx, 0, d, a, b, s.imm).put(&mut low, 0);
        [low, [0; 2]]
    }
}
