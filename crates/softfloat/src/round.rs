//! Round and pack: the one place where results get their final form, and where overflow, underflow and precision exceptions come
//! from.

use crate::context::{Context, Rounding, Rules, flag};
use crate::format::{Class, Format, Unpacked};

/// An exact result: `significand` · 2^(`exponent` − 127). Its lowest bit stands for all bits that lie beyond, if it is set
/// by [`shift_right_sticky`].
#[derive(Clone, Copy, Debug)]
pub struct Exact {
    /// Negative.
    pub sign: bool,
    /// Of bit 127.
    pub exponent: i32,
    /// Not normalised, not zero.
    pub significand: u128,
}

impl From<Unpacked> for Exact {
    #[inline]
    fn from(value: Unpacked) -> Self {
        Self { sign: value.sign, exponent: value.exponent, significand: u128::from(value.significand) << 64 }
    }
}

/// Shift right; the lowest bit of the result is set if a bit was lost.
#[inline]
pub fn shift_right_sticky(value: u128, count: u32) -> u128 {
    match count {
        0 => value,
        1..128 => value >> count | u128::from(value << (128 - count) != 0),
        _ => u128::from(value != 0),
    }
}

/// A significand that was cut to the precision.
struct Cut {
    /// Integer bit at bit 63; zero if it was rounded up to the next power of two.
    significand: u64,
    /// Rounded up to the next power of two.
    carry: bool,
    /// Something was cut off.
    inexact: bool,
    /// The magnitude increased.
    up: bool,
}

#[inline]
fn cut(significand: u128, precision: u32, rounding: Rounding, sign: bool) -> Cut {
    const HALF: u128 = 1 << 127;
    let last = 1u64 << (64 - precision);
    let kept = (significand >> 64) as u64 & last.wrapping_neg();
    let rest = significand << precision;
    let up = match rounding {
        Rounding::Nearest => rest > HALF || rest == HALF && kept & last != 0,
        Rounding::Down => sign && rest != 0,
        Rounding::Up => !sign && rest != 0,
        Rounding::Zero => false,
    };
    let (significand, carry) = if up { kept.overflowing_add(last) } else { (kept, false) };
    Cut { significand, carry, inexact: rest != 0, up }
}

/// Round to the format, and raise what there is to raise.
#[inline]
pub fn round<F: Format>(cx: &mut Context, exact: Exact) -> F {
    round_to(cx, exact, F::precision(cx))
}

/// As [`round`], but to the full precision of the format: precision control concerns addition, subtraction, multiplication,
/// division and square root only (SDM vol. 1 section 8.1.5.2).
#[inline]
pub fn round_full<F: Format>(cx: &mut Context, exact: Exact) -> F {
    round_to(cx, exact, F::PRECISION)
}

/// Any value in its final form; only finite ones need rounding.
#[inline]
pub fn pack<F: Format>(cx: &mut Context, value: Unpacked) -> F {
    match value.class {
        Class::Finite => round_full(cx, value.into()),
        Class::Zero => F::zero(value.sign),
        Class::Infinity => F::infinity(value.sign),
        Class::QuietNan | Class::SignallingNan | Class::Unsupported => F::nan(value.quieted()),
    }
}

#[inline]
fn round_to<F: Format>(cx: &mut Context, exact: Exact, precision: u32) -> F {
    let Exact { sign, exponent, significand } = exact;
    let shift = significand.leading_zeros();
    let (exponent, significand) = (exponent - shift as i32, significand << (shift & 127));
    let cut = cut(significand, precision, cx.rounding, sign);
    let rounded_exponent = exponent + i32::from(cut.carry);
    if exponent >= F::EXPONENT_MIN && rounded_exponent <= F::EXPONENT_MAX {
        return finish(cx, sign, rounded_exponent, &cut);
    }
    if exponent < F::EXPONENT_MIN {
        underflow(cx, sign, exponent, significand, precision, &cut)
    } else {
        overflow(cx, sign, rounded_exponent, precision, &cut)
    }
}

/// A result within the range of exponents.
#[inline]
fn finish<F: Format>(cx: &mut Context, sign: bool, exponent: i32, cut: &Cut) -> F {
    cx.rounded_up = cut.up;
    if cut.inexact {
        cx.raise(flag::PE);
    }
    F::assemble(sign, (exponent + F::BIAS) as u32, cut.significand | u64::from(cut.carry) << 63)
}

/// Whether an exponent out of range is answered with a scaled one.
fn scales(cx: &Context, flag: u8) -> bool {
    cx.rules == Rules::X87 && !cx.is_masked(flag)
}

/// Too large: SDM vol. 1 section 4.9.1.4.
#[cold]
fn overflow<F: Format>(cx: &mut Context, sign: bool, exponent: i32, precision: u32, cut: &Cut) -> F {
    cx.raise(flag::OE);
    if scales(cx, flag::OE) {
        let scaled = exponent - F::TRAP_SCALE;
        if scaled <= F::EXPONENT_MAX {
            return finish(cx, sign, scaled, cut);
        }
        // Only FSCALE comes here: "massive overflow" gives infinity whatever the rounding mode (SDM vol. 1 section 8.5.4).
        cx.raise(flag::PE);
        cx.rounded_up = true;
        return F::infinity(sign);
    }
    if !cx.is_masked(flag::OE) && cx.rules == Rules::Sse {
        // No result: only whether it would have been exact, but for its exponent, is told.
        cx.raise(if cut.inexact { flag::PE } else { 0 });
        return F::zero(sign);
    }
    cx.raise(flag::PE);
    let away = match cx.rounding {
        Rounding::Nearest => true,
        Rounding::Down => sign,
        Rounding::Up => !sign,
        Rounding::Zero => false,
    };
    cx.rounded_up = away;
    if away { F::infinity(sign) } else { F::largest(sign, precision) }
}

/// Below the normal numbers before rounding: SDM vol. 1 section 4.9.1.5. Tiny is what is still below them after rounding with
/// an exponent that is not bounded.
#[cold]
fn underflow<F: Format>(
    cx: &mut Context,
    sign: bool,
    exponent: i32,
    significand: u128,
    precision: u32,
    unbounded: &Cut,
) -> F {
    let tiny = exponent + i32::from(unbounded.carry) < F::EXPONENT_MIN;
    if tiny && !cx.is_masked(flag::UE) {
        cx.raise(flag::UE);
        if cx.rules == Rules::Sse {
            // No result: only whether it would have been exact, but for its exponent, is told.
            cx.raise(if unbounded.inexact { flag::PE } else { 0 });
            return F::zero(sign);
        }
        let scaled = exponent + i32::from(unbounded.carry) + F::TRAP_SCALE;
        if scaled >= F::EXPONENT_MIN {
            return finish(cx, sign, scaled, unbounded);
        }
        // Likewise (section 8.5.5).
        cx.raise(flag::PE);
        return F::zero(sign);
    }
    if tiny && cx.ftz {
        cx.raise(flag::UE | flag::PE);
        return F::zero(sign);
    }
    let distance = (F::EXPONENT_MIN - exponent) as u32;
    let cut = cut(shift_right_sticky(significand, distance), precision, cx.rounding, sign);
    if cut.inexact {
        cx.raise(if tiny { flag::UE | flag::PE } else { flag::PE });
    }
    cx.rounded_up = cut.up;
    F::assemble(sign, (cut.significand >> 63) as u32, cut.significand)
}
