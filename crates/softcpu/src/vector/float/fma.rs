//! Fused multiply-add.

use softfloat::{Context, Negate, fast};

use super::elementwise::Elementwise;
use super::part::Element;

/// What becomes of the addend.
pub trait Addend {
    /// Whether it is subtracted, in element `i`.
    fn subtracted(i: usize) -> bool;
}

/// Added.
pub struct Plus;
/// Subtracted.
pub struct Minus;
/// Subtracted in even elements, added in odd ones.
pub struct Alternating;
/// Added in even elements, subtracted in odd ones.
pub struct AlternatingMinus;

macro_rules! addends {
    ($($name:ident |$i:pat_param| $subtracted:expr;)*) => {$(
        impl Addend for $name {
            #[inline(always)]
            fn subtracted($i: usize) -> bool {
                $subtracted
            }
        }
    )*};
}

addends! {
    Plus |_| false;
    Minus |_| true;
    Alternating |i| i & 1 == 0;
    AlternatingMinus |i| i & 1 != 0;
}

/// `ORDER` is 132, 213 or 231: which operands are multiplied, and which one is added. `NEGATED`: the product is.
pub struct Fma<A, const ORDER: u32, const NEGATED: bool>(std::marker::PhantomData<A>);

impl<A: Addend, const ORDER: u32, const NEGATED: bool> Elementwise for Fma<A, ORDER, NEGATED> {
    const KEEPS_DESTINATION: bool = true;

    #[inline(always)]
    fn element<F: Element>(cx: &mut Context, i: usize, d: F, a: F, b: F, _imm: u8) -> F {
        let (x, y, z) = match ORDER {
            132 => (d, b, a),
            213 => (a, d, b),
            _ => (a, b, d),
        };
        let negate = Negate { product: NEGATED, addend: A::subtracted(i) };
        fast::fused_multiply_add(cx, x, y, z, negate)
    }
}
