//! Addition, multiplication, division, square root, and the fused multiply-add.

use crate::context::{Context, Rounding, flag};
use crate::format::{Class, Format, Unpacked};
use crate::round::{Exact, pack, round, shift_right_sticky};

/// a + b.
#[inline]
pub fn add<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked) -> F {
    add_signed(cx, a, b, false)
}

/// a − b.
#[inline]
pub fn sub<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked) -> F {
    add_signed(cx, a, b, true)
}

#[inline]
fn add_signed<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked, negate: bool) -> F {
    let (a, b) = (cx.operand(a), cx.operand(b));
    if let Some(nan) = cx.nan(&[a, b]) {
        return F::nan(nan);
    }
    let b = Unpacked { sign: b.sign ^ negate, ..b };
    if a.is_infinity() && b.is_infinity() && a.sign != b.sign {
        return F::nan(cx.invalid());
    }
    cx.note_denormals(&[a, b]);
    sum(cx, a.class, a.into(), b.class, b.into())
}

/// The sum of two values that are not NaNs, nor infinities of opposite signs. Lower bits of a significand of 128 bits must
/// be clear as far as the other one has bits to lose: see [`fused_multiply_add`].
#[inline]
fn sum<F: Format>(cx: &mut Context, class_a: Class, a: Exact, class_b: Class, b: Exact) -> F {
    match (class_a, class_b) {
        (Class::Infinity, _) => F::infinity(a.sign),
        (_, Class::Infinity) => F::infinity(b.sign),
        (Class::Zero, Class::Zero) => F::zero(if a.sign == b.sign { a.sign } else { cx.rounding == Rounding::Down }),
        (Class::Zero, _) => round(cx, b),
        (_, Class::Zero) => round(cx, a),
        _ => sum_finite(cx, a, b),
    }
}

#[inline]
fn sum_finite<F: Format>(cx: &mut Context, a: Exact, b: Exact) -> F {
    let (large, small) = if a.exponent >= b.exponent { (a, b) } else { (b, a) };
    // One bit of room for the carry. When more than the lowest bits get lost the two are so far apart that a difference has
    // at most one leading zero more, so the sticky bit stays below the rounding bit.
    let exponent = large.exponent + 1;
    let x = shift_right_sticky(large.significand, 1);
    let y = shift_right_sticky(small.significand, 1 + large.exponent.abs_diff(small.exponent));
    let (sign, significand) = if large.sign == small.sign {
        (large.sign, x + y)
    } else if x >= y {
        (large.sign, x - y)
    } else {
        (small.sign, y - x)
    };
    if significand == 0 {
        return F::zero(cx.rounding == Rounding::Down);
    }
    round(cx, Exact { sign, exponent, significand })
}

/// a · b, exactly. Both are finite.
#[inline]
fn product(a: Unpacked, b: Unpacked) -> Exact {
    Exact {
        sign: a.sign ^ b.sign,
        exponent: a.exponent + b.exponent + 1,
        significand: u128::from(a.significand) * u128::from(b.significand),
    }
}

/// What a product is by the classes of its factors, which are not NaNs; `None`: 0 · ∞.
#[inline]
fn product_class(a: Class, b: Class) -> Option<Class> {
    match (a, b) {
        (Class::Zero, Class::Infinity) | (Class::Infinity, Class::Zero) => None,
        (Class::Finite, Class::Finite) => Some(Class::Finite),
        (Class::Zero, _) | (_, Class::Zero) => Some(Class::Zero),
        _ => Some(Class::Infinity),
    }
}

/// a · b.
#[inline]
pub fn mul<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked) -> F {
    let (a, b) = (cx.operand(a), cx.operand(b));
    if let Some(nan) = cx.nan(&[a, b]) {
        return F::nan(nan);
    }
    let Some(class) = product_class(a.class, b.class) else { return F::nan(cx.invalid()) };
    cx.note_denormals(&[a, b]);
    match class {
        Class::Finite => round(cx, product(a, b)),
        Class::Zero => F::zero(a.sign ^ b.sign),
        _ => F::infinity(a.sign ^ b.sign),
    }
}

/// a / b.
pub fn div<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked) -> F {
    let (a, b) = (cx.operand(a), cx.operand(b));
    if let Some(nan) = cx.nan(&[a, b]) {
        return F::nan(nan);
    }
    let sign = a.sign ^ b.sign;
    match (a.class, b.class) {
        (Class::Infinity, Class::Infinity) | (Class::Zero, Class::Zero) => return F::nan(cx.invalid()),
        (Class::Finite, Class::Zero) => {
            cx.raise(flag::ZE);
            return F::infinity(sign);
        }
        _ => cx.note_denormals(&[a, b]),
    }
    match (a.class, b.class) {
        (Class::Infinity, _) => F::infinity(sign),
        (Class::Zero, _) | (_, Class::Infinity) => F::zero(sign),
        _ => round(cx, quotient(a, b, sign)),
    }
}

/// The first 65 or 66 bits of a / b, and a sticky one. Both are finite.
fn quotient(a: Unpacked, b: Unpacked, sign: bool) -> Exact {
    let divisor = u128::from(b.significand);
    let dividend = u128::from(a.significand) << 63;
    let (high, rest) = (dividend / divisor, dividend % divisor);
    let (low, rest) = ((rest << 2) / divisor, (rest << 2) % divisor);
    let significand = high << 3 | low << 1 | u128::from(rest != 0);
    // `high` is a / b · 2^63, and stands three bits above the lowest one.
    Exact { sign, exponent: a.exponent - b.exponent + 127 - 66, significand }
}

/// √a.
pub fn sqrt<F: Format>(cx: &mut Context, a: Unpacked) -> F {
    let a = cx.operand(a);
    if let Some(nan) = cx.nan(&[a]) {
        return F::nan(nan);
    }
    if a.sign && !a.is_zero() {
        return F::nan(cx.invalid());
    }
    cx.note_denormals(&[a]);
    if a.class != Class::Finite {
        return pack(cx, a);
    }
    // a = radicand · 2^(2·half − 126) with an even exponent; so the root of the radicand has its integer bit at bit 63.
    let half = a.exponent >> 1;
    let radicand = u128::from(a.significand) << (63 + (a.exponent & 1));
    let root = radicand.isqrt();
    let rest = radicand - root * root;
    // (root + ½)² = root² + root + ¼ lies between integers: it is never hit.
    let below = if rest > root { 3 } else { u128::from(rest != 0) };
    round(cx, Exact { sign: false, exponent: half, significand: root << 64 | below << 62 })
}

/// The signs of a fused multiply-add. They apply to numbers: a NaN that is the result keeps its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Negate {
    /// −(a · b).
    pub product: bool,
    /// − c.
    pub addend: bool,
}

/// ±a · b ± c with one rounding, for formats up to [`F64`](crate::F64).
///
/// NaNs count in the order of the arguments. 0 · ∞ + NaN is that NaN (SDM vol. 1 section 14.5.3).
pub fn fused_multiply_add<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked, c: Unpacked, negate: Negate) -> F {
    const { assert!(F::PRECISION <= 53) };
    let (a, b, c) = (cx.operand(a), cx.operand(b), cx.operand(c));
    if let Some(nan) = cx.nan(&[a, b, c]) {
        return F::nan(nan);
    }
    let c = Unpacked { sign: c.sign ^ negate.addend, ..c };
    let sign = a.sign ^ b.sign ^ negate.product;
    let Some(class) = product_class(a.class, b.class) else { return F::nan(cx.invalid()) };
    if class == Class::Infinity && c.is_infinity() && sign != c.sign {
        return F::nan(cx.invalid());
    }
    cx.note_denormals(&[a, b, c]);
    // The product has at most 106 bits and `c` 53, of the 128 that `sum_finite` has.
    sum(cx, class, Exact { sign, ..product(a, b) }, c.class, c.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Rounding;
    use crate::fast;
    use crate::format::{F32, F64, X80};

    const DEFAULT_MXCSR: u32 = 0x1F80;

    /// Numbers of all magnitudes and near each other, zeros, infinities, NaNs; the same ones in every run.
    fn operands(count: u32) -> impl Iterator<Item = (u64, u64, u64)> {
        let mut state = 0x9E37_79B9_7F4A_7C15u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let bits = state;
            match bits % 7 {
                // Few bits in the significand: ties, exact results.
                0 => bits & !0 << 40,
                1 => bits & 0x800F_FFFF_FFFF_FFFF,
                // Exponents near 1.
                2..=4 => bits & 0x801F_FFFF_FFFF_FFFF | 0x3FE0_0000_0000_0000,
                5 => [0, 1 << 63, 0x7FF0 << 48, 0xFFF0 << 48, 0x7FF8 << 48, 0x0010 << 48][bits as usize / 7 % 6],
                _ => bits,
            }
        };
        (0..count).map(move |_| (next(), next(), next()))
    }

    #[test]
    fn results_are_those_of_the_host() {
        let check = |name: &str, ours: u64, host: f64| {
            assert!(ours == host.to_bits() || host.is_nan() && f64::from_bits(ours).is_nan(), "{name} {ours:x} {host}");
        };
        for (x, y, _) in operands(100_000) {
            let (a, b) = (f64::from_bits(x), f64::from_bits(y));
            let (ua, ub) = (F64(x).unpack(), F64(y).unpack());
            let cx = &mut Context::from_mxcsr(DEFAULT_MXCSR);
            check("add", add::<F64>(cx, ua, ub).0, a + b);
            check("sub", sub::<F64>(cx, ua, ub).0, a - b);
            check("mul", mul::<F64>(cx, ua, ub).0, a * b);
            check("div", div::<F64>(cx, ua, ub).0, a / b);
            check("sqrt", sqrt::<F64>(cx, ua).0, a.sqrt());
            let single = crate::convert::<F32>(cx, ua).unpack();
            check("single", crate::convert::<F64>(cx, single).0, f64::from(a as f32));
        }
    }

    /// Result and flags of both ways, whether or not somebody cares for PE.
    fn check_fast<F: fast::Fast>(of: impl Fn(u64) -> F) {
        for (x, y, z) in operands(100_000) {
            let (a, b, c) = (of(x), of(y), of(z));
            let check = |name: &str,
                         quick: fn(&mut Context, F, F, F) -> F,
                         exact: fn(&mut Context, [Unpacked; 3]) -> F| {
                for ignored in [0, flag::PE] {
                    let mut cx = Context::from_mxcsr(DEFAULT_MXCSR | u32::from(ignored));
                    let mut other = cx;
                    let results = (quick(&mut cx, a, b, c), exact(&mut other, [a.unpack(), b.unpack(), c.unpack()]));
                    assert_eq!(results.0, results.1, "{name} {a:?} {b:?} {c:?}");
                    assert_eq!(cx.flags | ignored, other.flags | ignored, "{name} {a:?} {b:?} {c:?}");
                }
            };
            check("add", |cx, a, b, _| fast::add(cx, a, b), |cx, [a, b, _]| add(cx, a, b));
            check("sub", |cx, a, b, _| fast::sub(cx, a, b), |cx, [a, b, _]| sub(cx, a, b));
            check("mul", |cx, a, b, _| fast::mul(cx, a, b), |cx, [a, b, _]| mul(cx, a, b));
            check("div", |cx, a, b, _| fast::div(cx, a, b), |cx, [a, b, _]| div(cx, a, b));
            check("sqrt", |cx, a, _, _| fast::sqrt(cx, a), |cx, [a, _, _]| sqrt(cx, a));
            check(
                "fma",
                |cx, a, b, c| fast::fused_multiply_add(cx, a, b, c, Negate::default()),
                |cx, [a, b, c]| fused_multiply_add(cx, a, b, c, Negate::default()),
            );
            let negate = Negate { product: true, addend: true };
            let fused = fast::fused_multiply_add(&mut Context::from_mxcsr(DEFAULT_MXCSR), a, b, c, negate);
            let [a, b, c] = [a, b, c].map(Format::unpack);
            assert_eq!(fused, fused_multiply_add(&mut Context::from_mxcsr(DEFAULT_MXCSR), a, b, c, negate));
        }
    }

    #[test]
    fn the_fast_way_and_the_exact_one_agree() {
        check_fast(F64);
        // The lower half of the exponent's bits stays, and so do many zeros behind them.
        check_fast(|x| F32((x >> 63 << 31 | x >> 52 << 23 & 0x7F80_0000 | x >> 29 & 0x7F_FFFF) as u32));
    }

    #[test]
    fn directed_rounding_brackets_the_exact_result() {
        let third = |rounding| {
            let mut cx = Context { rounding, ..Context::from_mxcsr(DEFAULT_MXCSR) };
            let one = F64(1f64.to_bits()).unpack();
            let result = div::<F64>(&mut cx, one, F64(3f64.to_bits()).unpack());
            (result.0, cx.flags, cx.rounded_up)
        };
        assert_eq!(third(Rounding::Down), (0x3FD5_5555_5555_5555, flag::PE, false));
        assert_eq!(third(Rounding::Up), (0x3FD5_5555_5555_5556, flag::PE, true));
        assert_eq!(third(Rounding::Nearest), third(Rounding::Zero));
    }

    #[test]
    fn precision_control_rounds_extended_results() {
        let mut cx = Context::from_fcw(0x037F);
        let (one, three) = (F64(1f64.to_bits()).unpack(), F64(3f64.to_bits()).unpack());
        assert_eq!(div::<X80>(&mut cx, one, three).significand, 0xAAAA_AAAA_AAAA_AAAB);
        let mut single = Context::from_fcw(0x007F);
        assert_eq!(div::<X80>(&mut single, one, three).significand, 0xAAAA_AB00_0000_0000);
    }

    #[test]
    fn x87_answers_unmasked_overflow_with_a_scaled_exponent() {
        let mut cx = Context::from_fcw(0x037F & !u16::from(flag::OE));
        let large = X80 { significand: 1 << 63, sign_exponent: 0x7FFE }.unpack();
        let product: X80 = mul(&mut cx, large, large);
        assert_eq!(product, X80 { significand: 1 << 63, sign_exponent: (2 * 0x3FFF - 24576 + 0x3FFF) as u16 });
        assert_eq!(cx.flags, flag::OE);
    }

    #[test]
    fn a_product_and_sum_are_rounded_once() {
        let mut cx = Context::from_mxcsr(DEFAULT_MXCSR);
        // (1 + ε)² − (1 + 2ε) = ε², which is nothing after two roundings.
        let of = |value: f64| F64(value.to_bits()).unpack();
        let a = of(1.0 + f64::EPSILON);
        let result = fused_multiply_add::<F64>(
            &mut cx,
            a,
            a,
            of(1.0 + 2.0 * f64::EPSILON),
            Negate { addend: true, ..Negate::default() },
        );
        assert_eq!(f64::from_bits(result.0), f64::EPSILON * f64::EPSILON);
        assert_eq!(cx.flags, 0);
        assert_eq!(
            fused_multiply_add::<F64>(&mut cx, of(0.0), of(f64::INFINITY), of(1.0), Negate::default()).0,
            0xFFF8_0000_0000_0000
        );
    }
}
