//! Horizontal addition and subtraction: neighbours within a lane, first those of the first source.

use std::marker::PhantomData;

use softfloat::{Context, fast};

use super::elementwise::Lanewise;
use super::part::Element;
use crate::vector::lane::Lane;

/// HADD, or HSUB if `SUBTRACT`.
pub struct Horizontal<F, const SUBTRACT: bool>(PhantomData<F>);

impl<F: Element, const SUBTRACT: bool> Lanewise for Horizontal<F, SUBTRACT> {
    #[inline(always)]
    fn lane(cx: &mut Context, _d: Lane, a: Lane, b: Lane, _imm: u8) -> Lane {
        let mut result = [0; 2];
        for i in 0..F::COUNT {
            let (source, pair) = if i < F::COUNT / 2 { (a, i) } else { (b, i - F::COUNT / 2) };
            let (x, y) = (F::of_lane(source, 2 * pair), F::of_lane(source, 2 * pair + 1));
            let sum = if SUBTRACT { fast::sub(cx, x, y) } else { fast::add(cx, x, y) };
            sum.put(&mut result, i);
        }
        result
    }
}
