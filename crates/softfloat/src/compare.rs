//! Comparison.

use std::cmp::Ordering;

use crate::context::{Context, flag};
use crate::format::{Class, Unpacked};

/// What a comparison thinks of quiet NaNs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Only signalling NaNs raise IE.
    Quiet,
    /// Any NaN raises IE.
    Signalling,
}

/// How `a` stands to `b`; `None`: unordered.
pub fn compare(cx: &mut Context, a: Unpacked, b: Unpacked, kind: Compare) -> Option<Ordering> {
    let (a, b) = (cx.operand(a), cx.operand(b));
    let worst = a.class.max(b.class);
    if worst >= Class::QuietNan {
        if worst > Class::QuietNan || kind == Compare::Signalling {
            cx.raise(flag::IE);
        }
        return None;
    }
    cx.note_denormals(&[a, b]);
    if a.is_zero() && b.is_zero() {
        return Some(Ordering::Equal);
    }
    let magnitude = |value: Unpacked| (value.class, value.exponent, value.significand);
    Some(match (a.sign, b.sign) {
        (false, true) => Ordering::Greater,
        (true, false) => Ordering::Less,
        (false, false) => magnitude(a).cmp(&magnitude(b)),
        (true, true) => magnitude(b).cmp(&magnitude(a)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::{F64, Format};

    fn quiet(a: f64, b: f64) -> (Option<Ordering>, u8) {
        let mut cx = Context::from_mxcsr(0x1F80);
        (compare(&mut cx, F64(a.to_bits()).unpack(), F64(b.to_bits()).unpack(), Compare::Quiet), cx.flags)
    }

    #[test]
    fn numbers_are_ordered_as_the_host_orders_them() {
        let values = [0.0, -0.0, 1.0, -1.0, 1.5, 2.0, -2.0, 1e300, -1e-300, f64::INFINITY, f64::NEG_INFINITY];
        for a in values {
            for b in values {
                assert_eq!(quiet(a, b), (a.partial_cmp(&b), 0), "{a} {b}");
            }
        }
    }

    #[test]
    fn a_signalling_comparison_raises_ie_for_any_nan() {
        let mut cx = Context::from_mxcsr(0x1F80);
        let nan = Unpacked::DEFAULT_NAN;
        assert_eq!(compare(&mut cx, nan, nan, Compare::Quiet), None);
        assert_eq!(cx.flags, 0);
        assert_eq!(compare(&mut cx, nan, nan, Compare::Signalling), None);
        assert_eq!(cx.flags, flag::IE);
    }

    #[test]
    fn a_denormal_raises_de_unless_it_counts_as_zero() {
        assert_eq!(quiet(5e-324, 0.0), (Some(Ordering::Greater), flag::DE));
        let mut cx = Context::from_mxcsr(0x1F80 | 1 << 6);
        let order = compare(&mut cx, F64(1).unpack(), F64(0).unpack(), Compare::Quiet);
        assert_eq!((order, cx.flags), (Some(Ordering::Equal), 0));
    }
}
