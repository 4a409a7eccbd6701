//! Arithmetic, minimum and maximum, rounding.

use std::cmp::Ordering;

use softfloat::{Compare, Context, Rounding, fast, flag};

use super::elementwise::Elementwise;
use super::kernel::{Kernel, Sources};
use super::part::Element;
use crate::vector::encoding::Encoding;
use crate::vector::lane::Lane;
use crate::vector::state::Ymm;

/// Define element functions: `Name |cx, a, b| expression;`.
macro_rules! elementwise {
    ($($name:ident |$cx:ident, $a:pat_param, $b:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Elementwise for $name {
            #[inline(always)]
            fn element<F: Element>($cx: &mut Context, _i: usize, _d: F, $a: F, $b: F, _imm: u8) -> F {
                $body
            }
        }
    )*};
}

elementwise! {
    Add |cx, a, b| fast::add(cx, a, b);
    Sub |cx, a, b| fast::sub(cx, a, b);
    Mul |cx, a, b| fast::mul(cx, a, b);
    Div |cx, a, b| fast::div(cx, a, b);
    Sqrt |cx, _, b| fast::sqrt(cx, b);
    Min |cx, a, b| choose(cx, a, b, Ordering::Less);
    Max |cx, a, b| choose(cx, a, b, Ordering::Greater);
}

/// `a` if it stands to `b` as wanted, else `b`: also for zeros of both signs, and if one of them is a NaN.
#[inline(always)]
fn choose<F: Element>(cx: &mut Context, a: F, b: F, wanted: Ordering) -> F {
    let order = fast::compare(cx, a, b, Compare::Signalling);
    let chosen = if order == Some(wanted) { a } else { b };
    if cx.daz { flush(chosen) } else { chosen }
}

/// A denormal as zero.
fn flush<F: Element>(value: F) -> F {
    let unpacked = value.unpack();
    if unpacked.denormal { F::zero(unpacked.sign) } else { value }
}

/// ADDSUB: even elements are subtracted, odd ones added.
pub struct AddSub;

impl Elementwise for AddSub {
    #[inline(always)]
    fn element<F: Element>(cx: &mut Context, i: usize, _d: F, a: F, b: F, _imm: u8) -> F {
        if i & 1 == 0 { fast::sub(cx, a, b) } else { fast::add(cx, a, b) }
    }
}

/// ROUND: immediate bits 1:0 are the rounding mode, unless bit 2 says MXCSR's; bit 3 suppresses PE.
pub struct Round;

impl Elementwise for Round {
    #[inline(always)]
    fn element<F: Element>(cx: &mut Context, _i: usize, _d: F, _a: F, b: F, imm: u8) -> F {
        let rounding = if imm & 4 != 0 { cx.rounding } else { Rounding::from_bits(imm) };
        let before = cx.flags;
        let result = softfloat::round_to_integral(cx, b.unpack(), rounding);
        if imm & 8 != 0 {
            cx.flags &= before | !flag::PE;
        }
        result
    }
}

/// DPPS and DPPD: products of the elements that immediate bits 7:4 choose are added pairwise; immediate bits 3:0 tell which
/// elements of the result are the sum. The others are zero.
pub struct DotProduct<F>(std::marker::PhantomData<F>);

impl<F: Element> DotProduct<F> {
    fn products(cx: &mut Context, a: Lane, b: Lane, imm: u8) -> [F; 4] {
        let mut terms = [F::zero(false); 4];
        for (i, term) in terms.iter_mut().enumerate().take(F::COUNT) {
            if imm >> (4 + i) & 1 != 0 {
                *term = fast::mul(cx, F::of_lane(a, i), F::of_lane(b, i));
            }
        }
        terms
    }

    fn spread(sum: F, imm: u8) -> Lane {
        let mut result = [0; 2];
        for i in (0..F::COUNT).filter(|i| imm >> i & 1 != 0) {
            sum.put(&mut result, i);
        }
        result
    }
}

/// Both lanes go through multiplication and the additions together, and each of these steps may raise its own exceptions (SDM
/// vol. 2, DPPS).
impl<F: Element> Kernel for DotProduct<F> {
    fn compute<E: Encoding>(cx: &mut Context, s: &Sources) -> Ymm {
        let lanes = if E::WIDE { 0..2 } else { 0..1 };
        let mut terms = [[F::zero(false); 4]; 2];
        for lane in lanes.clone() {
            terms[lane] = Self::products(cx, s.a[lane], s.b[lane], s.imm);
        }
        let mut left = F::COUNT;
        while left > 1 && cx.settle() {
            for terms in &mut terms[lanes.clone()] {
                for i in 0..left / 2 {
                    terms[i] = fast::add(cx, terms[2 * i], terms[2 * i + 1]);
                }
            }
            left /= 2;
        }
        terms.map(|[sum, ..]| Self::spread(sum, s.imm))
    }
}
