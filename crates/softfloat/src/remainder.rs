//! x87's partial remainder.

use crate::context::Context;
use crate::format::{Class, Format, Unpacked};
use crate::round::pack;

/// Which remainder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remainder {
    /// FPREM: the quotient is truncated.
    Truncating,
    /// FPREM1: the quotient is rounded to the nearest integer, and to the even one of two, as IEEE 754 has it.
    Nearest,
}

/// What is known of the quotient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quotient {
    /// The remainder is final; these are the low 64 bits of the quotient's magnitude.
    Complete(u64),
    /// The exponents are too far apart. The remainder is that of a multiple of `b`; do it again.
    Partial,
}

/// a modulo b, or a step on the way there. It is exact, and has the sign of `a` (truncating).
pub fn remainder<F: Format>(cx: &mut Context, a: Unpacked, b: Unpacked, kind: Remainder) -> (F, Quotient) {
    let (a, b) = (cx.operand(a), cx.operand(b));
    let complete = Quotient::Complete(0);
    if let Some(nan) = cx.nan(&[a, b]) {
        return (F::nan(nan), complete);
    }
    if a.is_infinity() || b.is_zero() {
        return (F::nan(cx.invalid()), complete);
    }
    cx.note_denormals(&[a, b]);
    if a.class != Class::Finite || b.class != Class::Finite {
        return (pack(cx, a), complete);
    }
    let distance = a.exponent - b.exponent;
    if distance >= 64 {
        let steps = partial_steps(distance);
        let (_, rest) = divide(a, b, steps);
        let rest = Unpacked::finite(a.sign, b.exponent + (distance - steps as i32), rest);
        return (pack(cx, rest), Quotient::Partial);
    }
    let (rest, quotient) = match kind {
        Remainder::Truncating => truncating(a, b, distance),
        Remainder::Nearest => nearest(a, b, distance),
    };
    (pack(cx, rest), Quotient::Complete(quotient))
}

/// How many bits of the quotient one incomplete step deals with: "an implementation-dependent number between 32 and 63"
/// (SDM vol. 2, FPREM).
fn partial_steps(distance: i32) -> u32 {
    32 | distance as u32 & 31
}

/// Quotient and rest of the significands, `a`'s shifted left by `count`, at most 63.
fn divide(a: Unpacked, b: Unpacked, count: u32) -> (u64, u64) {
    let (dividend, divisor) = (u128::from(a.significand) << count, u128::from(b.significand));
    // Both significands have bit 63 set, so the quotient is below 2^(count + 1).
    ((dividend / divisor) as u64, (dividend % divisor) as u64)
}

fn truncating(a: Unpacked, b: Unpacked, distance: i32) -> (Unpacked, u64) {
    if distance < 0 {
        return (a, 0);
    }
    let (quotient, rest) = divide(a, b, distance as u32);
    (Unpacked::finite(a.sign, b.exponent, rest), quotient)
}

fn nearest(a: Unpacked, b: Unpacked, distance: i32) -> (Unpacked, u64) {
    if distance < -1 {
        return (a, 0);
    }
    if distance == -1 {
        // |a| < |b|; it is more than half of it if its significand is the larger one.
        if a.significand <= b.significand {
            return (a, 0);
        }
        // 2·b − a, below b, in units of a's last place.
        let rest = (b.significand - (a.significand - b.significand), a.exponent);
        return (Unpacked::finite(!a.sign, rest.1, rest.0), 1);
    }
    let (quotient, rest) = divide(a, b, distance as u32);
    let other = b.significand - rest;
    if rest > other || rest == other && quotient & 1 != 0 {
        (Unpacked::finite(!a.sign, b.exponent, other), quotient.wrapping_add(1))
    } else {
        (Unpacked::finite(a.sign, b.exponent, rest), quotient)
    }
}
