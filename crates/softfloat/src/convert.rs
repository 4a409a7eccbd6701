//! Conversions between formats, from and to integers, to integral values; scaling.

use crate::context::{Context, Rounding, flag};
use crate::format::{Class, Format, Unpacked};
use crate::round::{pack, shift_right_sticky};

/// The value in another format (or the same one: signalling NaNs become quiet).
///
/// Raises DE for a denormal operand; where an instruction does not, clear [`Unpacked::denormal`].
#[inline]
pub fn convert<F: Format>(cx: &mut Context, a: Unpacked) -> F {
    let a = cx.operand(a);
    if let Some(nan) = cx.nan(&[a]) {
        return F::nan(nan);
    }
    cx.note_denormals(&[a]);
    pack(cx, a)
}

/// An integer, unpacked: [`convert`] rounds it.
#[inline]
pub fn from_i64(value: i64) -> Unpacked {
    Unpacked::finite(value < 0, 63, value.unsigned_abs())
}

/// An integer, unpacked: [`convert`] rounds it.
#[inline]
pub fn from_u64(value: u64) -> Unpacked {
    Unpacked::finite(false, 63, value)
}

/// An integer type to convert to.
pub trait Integer: Copy + Eq + std::fmt::Debug + TryFrom<i128> {
    /// The answer if the value does not fit: the "integer indefinite" value.
    const INDEFINITE: Self;
}

impl Integer for i16 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for i32 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for i64 {
    const INDEFINITE: Self = Self::MIN;
}
impl Integer for u32 {
    const INDEFINITE: Self = Self::MAX;
}
impl Integer for u64 {
    const INDEFINITE: Self = Self::MAX;
}

/// A magnitude below 2^63, rounded to an integer.
struct Integral {
    magnitude: u64,
    inexact: bool,
    up: bool,
}

/// Round a zero, or a finite value with an exponent below 63.
fn integral(a: Unpacked, rounding: Rounding) -> Integral {
    // 64 bits in front of the point and 64 behind it.
    let fixed = shift_right_sticky(u128::from(a.significand) << 64, (63 - a.exponent) as u32);
    let (magnitude, rest) = ((fixed >> 64) as u64, fixed as u64);
    let up = match rounding {
        Rounding::Nearest => rest > 1 << 63 || rest == 1 << 63 && magnitude & 1 != 0,
        Rounding::Down => a.sign && rest != 0,
        Rounding::Up => !a.sign && rest != 0,
        Rounding::Zero => false,
    };
    Integral { magnitude: magnitude + u64::from(up), inexact: rest != 0, up }
}

/// The value as an integer. IE and the indefinite value for what has no place in it; never DE.
pub fn to_integer<I: Integer>(cx: &mut Context, a: Unpacked, rounding: Rounding) -> I {
    let a = cx.operand(a);
    let (magnitude, inexact, up) = match a.class {
        Class::Zero => (0, false, false),
        Class::Finite if a.exponent < 63 => {
            let rounded = integral(a, rounding);
            (i128::from(rounded.magnitude), rounded.inexact, rounded.up)
        }
        Class::Finite if a.exponent == 63 => (i128::from(a.significand), false, false),
        _ => (i128::MAX, false, false),
    };
    let Ok(value) = I::try_from(if a.sign { -magnitude } else { magnitude }) else {
        cx.raise(flag::IE);
        return I::INDEFINITE;
    };
    cx.rounded_up = up;
    if inexact {
        cx.raise(flag::PE);
    }
    value
}

/// The value rounded to an integral one. Raises PE if that changes it; never DE.
pub fn round_to_integral<F: Format>(cx: &mut Context, a: Unpacked, rounding: Rounding) -> F {
    let a = cx.operand(a);
    if let Some(nan) = cx.nan(&[a]) {
        return F::nan(nan);
    }
    if a.class != Class::Finite || a.exponent >= 63 {
        return pack(cx, a);
    }
    let Integral { magnitude, inexact, up } = integral(a, rounding);
    let result = pack(cx, Unpacked::finite(a.sign, 63, magnitude));
    cx.rounded_up = up;
    if inexact {
        cx.raise(flag::PE);
    }
    result
}

/// a · 2^`power`.
pub fn scale<F: Format>(cx: &mut Context, a: Unpacked, power: i32) -> F {
    let a = cx.operand(a);
    if let Some(nan) = cx.nan(&[a]) {
        return F::nan(nan);
    }
    cx.note_denormals(&[a]);
    // Beyond this it makes no difference, not even to a scaled result.
    let power = power.clamp(-0x2_0000, 0x2_0000);
    pack(cx, Unpacked { exponent: a.exponent + power, ..a })
}
