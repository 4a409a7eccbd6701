//! Conversions of elements into elements of another type.

use std::marker::PhantomData;

use softfloat::{Context, F16, F32, F64, Format, Rounding, from_i64, to_integer};

use super::kernel::{Kernel, Sources};
use super::part::Part;
use crate::vector::encoding::Encoding;
use crate::vector::lane::Lane;
use crate::vector::state::Ymm;

/// A conversion.
pub trait Convert {
    /// From what.
    type From: Part;
    /// To what.
    type To: Part;
    /// Convert one element.
    fn convert(cx: &mut Context, value: Self::From) -> Self::To;
}

/// Between floating-point formats.
pub struct Float<S, D>(PhantomData<(S, D)>);

impl<S: Part + Format, D: Part + Format> Convert for Float<S, D> {
    type From = S;
    type To = D;
    #[inline]
    fn convert(cx: &mut Context, value: S) -> D {
        softfloat::convert(cx, value.unpack())
    }
}

/// From half precision: neither DAZ nor DE (SDM vol. 1 section 14.4.1).
pub struct FromHalf;

impl Convert for FromHalf {
    type From = F16;
    type To = F32;
    #[inline]
    fn convert(cx: &mut Context, value: F16) -> F32 {
        let value = softfloat::Unpacked { denormal: false, ..value.unpack() };
        softfloat::convert(cx, value)
    }
}

/// From a signed integer.
pub struct FromInteger<S, D>(PhantomData<(S, D)>);

impl<S: Part + Into<i64>, D: Part + Format> Convert for FromInteger<S, D> {
    type From = S;
    type To = D;
    #[inline]
    fn convert(cx: &mut Context, value: S) -> D {
        softfloat::convert(cx, from_i64(value.into()))
    }
}

/// To a signed integer, rounded as MXCSR says, or truncated.
pub struct ToInteger<S, D, const TRUNCATE: bool>(PhantomData<(S, D)>);

impl<S: Part + Format, D: Part + softfloat::Integer, const TRUNCATE: bool> Convert for ToInteger<S, D, TRUNCATE> {
    type From = S;
    type To = D;
    #[inline]
    fn convert(cx: &mut Context, value: S) -> D {
        let rounding = if TRUNCATE { Rounding::Zero } else { cx.rounding };
        to_integer(cx, value.unpack(), rounding)
    }
}

/// A conversion of as many elements as the larger type has in a vector. What remains of the result is zero.
pub struct Elements<C>(PhantomData<C>);

/// How many elements are converted, if vectors have so many bytes.
pub const fn count<C: Convert>(vector: u64) -> usize {
    let (from, to) = (C::From::BYTES, C::To::BYTES);
    vector as usize / if from > to { from } else { to }
}

/// Convert the first elements.
#[inline(always)]
pub fn elements<C: Convert>(cx: &mut Context, source: &Ymm, count: usize) -> Ymm {
    let mut result = [[0; 2]; 2];
    for i in 0..count {
        let per_lane = 16 / C::To::BYTES;
        C::convert(cx, C::From::of(source, i)).put(&mut result[(i / per_lane) & 1], i % per_lane);
    }
    result
}

impl<C: Convert> Kernel for Elements<C> {
    #[inline(always)]
    fn operand(vector: u64) -> u64 {
        (count::<C>(vector) * C::From::BYTES) as u64
    }
    #[inline(always)]
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm {
        elements::<C>(cx, &s.b, count::<C>(E::BYTES))
    }
}

/// A conversion of the lowest element. What remains of the result is the first source's.
pub struct Lowest<C>(PhantomData<C>);

impl<C: Convert> Lowest<C> {
    /// The low lane of the result.
    #[inline(always)]
    pub fn lane(cx: &mut Context, first: Lane, value: C::From) -> Lane {
        let mut result = first;
        C::convert(cx, value).put(&mut result, 0);
        result
    }
}

impl<C: Convert> Kernel for Lowest<C> {
    #[inline(always)]
    fn operand(_vector: u64) -> u64 {
        C::From::BYTES as u64
    }
    #[inline(always)]
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm {
        [Self::lane(cx, s.a[0], C::From::of_lane(s.b[0], 0)), [0; 2]]
    }
}

/// CVTSS2SD, CVTPS2PD.
pub type Widen = Float<F32, F64>;
/// CVTSD2SS, CVTPD2PS.
pub type Narrow = Float<F64, F32>;
