//! Binary floating point with 128 bits of significand: what transcendental functions are computed in before the result is
//! rounded to 64. Results are truncated, so each operation is wrong by at most some units of 2^-127 of the result.

use std::ops::{Add, Mul, Neg, Sub};

/// `mantissa` × 2^(`exponent` - 127), with the mantissa's highest bit set; or zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wide {
    /// The number is below zero.
    pub negative: bool,
    /// Exponent of the highest bit.
    pub exponent: i32,
    /// Significand; 0 only if the number is.
    pub mantissa: u128,
}

impl Wide {
    /// Zero.
    pub const ZERO: Self = Self { negative: false, exponent: 0, mantissa: 0 };
    /// One.
    pub const ONE: Self = Self::constant(0, 1 << 127);

    /// A positive constant.
    pub const fn constant(exponent: i32, mantissa: u128) -> Self {
        Self { negative: false, exponent, mantissa }
    }

    /// `integer` × 2^`exponent`.
    pub fn scaled(negative: bool, integer: u128, exponent: i32) -> Self {
        if integer == 0 {
            return Self::ZERO;
        }
        let zeros = integer.leading_zeros();
        Self { negative, exponent: exponent + 127 - zeros as i32, mantissa: integer << zeros }
    }

    /// A small integer.
    pub fn integer(value: i64) -> Self {
        Self::scaled(value < 0, value.unsigned_abs().into(), 0)
    }

    /// Whether this is zero.
    pub fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Without its sign.
    pub fn abs(self) -> Self {
        Self { negative: false, ..self }
    }

    /// Multiplied by 2^`power`.
    pub fn scale(self, power: i32) -> Self {
        if self.is_zero() { self } else { Self { exponent: self.exponent + power, ..self } }
    }

    /// Whether the magnitude is less than that of `other`.
    pub fn is_smaller(self, other: Self) -> bool {
        !other.is_zero() && (self.is_zero() || (self.exponent, self.mantissa) < (other.exponent, other.mantissa))
    }

    /// The nearest integer of magnitude below 2^31 (halves away from zero).
    pub fn nearest_integer(self) -> i32 {
        match self.exponent {
            _ if self.is_zero() => 0,
            ..-1 => 0,
            -1 => {
                if self.negative {
                    -1
                } else {
                    1
                }
            }
            exponent => {
                let twice = (self.mantissa >> (126 - exponent.min(30))) as i64;
                let magnitude = ((twice + 1) >> 1) as i32;
                if self.negative { -magnitude } else { magnitude }
            }
        }
    }

    /// Divided by a number that is not zero.
    pub fn divide(self, divisor: Self) -> Self {
        debug_assert!(!divisor.is_zero());
        if self.is_zero() {
            return self;
        }
        let (mut rest, by) = (self.mantissa, divisor.mantissa);
        let fits = rest >= by;
        if fits {
            rest -= by;
        }
        // One bit of the quotient at a time; the first is known.
        let mut quotient = u128::from(fits);
        for _ in 0..127 + u32::from(!fits) {
            let carry = rest >> 127 != 0;
            rest <<= 1;
            quotient <<= 1;
            if carry || rest >= by {
                rest = rest.wrapping_sub(by);
                quotient |= 1;
            }
        }
        let exponent = self.exponent - divisor.exponent - i32::from(!fits);
        Self { negative: self.negative != divisor.negative, exponent, mantissa: quotient | u128::from(rest != 0) }
    }

    /// The sum of `terms` of the series `first` × (1 + x·c1·(1 + x·c2·(1 + ...))), with the factors c as fractions.
    pub fn series(self, x: Self, terms: u32, factor: impl Fn(u32) -> (i64, i64)) -> Self {
        let mut sum = Self::ONE;
        for n in (1..=terms).rev() {
            let (over, under) = factor(n);
            sum = Self::ONE + x * sum.times_fraction(over, under);
        }
        self * sum
    }

    /// Times a fraction of small integers.
    fn times_fraction(self, over: i64, under: i64) -> Self {
        let numerator = if over == 1 { self } else { self * Self::integer(over) };
        let by = under.unsigned_abs();
        // 128 bits by 64 at most: exact but for the last bits.
        let quotient = numerator.mantissa / u128::from(by);
        let rest = numerator.mantissa % u128::from(by);
        let zeros = quotient.leading_zeros();
        let more = if zeros == 0 { 0 } else { (rest << zeros) / u128::from(by) };
        Self {
            negative: numerator.negative != (under < 0),
            exponent: numerator.exponent - zeros as i32,
            mantissa: quotient << zeros | more,
        }
    }
}

/// The upper half of a product.
fn multiply_high(a: u128, b: u128) -> u128 {
    let (a1, a0) = (a >> 64, a & u128::from(u64::MAX));
    let (b1, b0) = (b >> 64, b & u128::from(u64::MAX));
    let low = (a0 * b0) >> 64;
    let (middle, carry) = (a1 * b0).overflowing_add(a0 * b1);
    let (middle, more) = middle.overflowing_add(low);
    a1 * b1 + (middle >> 64) + (u128::from(u8::from(carry) + u8::from(more)) << 64)
}

impl Mul for Wide {
    type Output = Self;
    fn mul(self, other: Self) -> Self {
        if self.is_zero() || other.is_zero() {
            return Self::ZERO;
        }
        let high = multiply_high(self.mantissa, other.mantissa);
        let short = high.leading_zeros();
        let exponent = self.exponent + other.exponent + 1 - short as i32;
        Self { negative: self.negative != other.negative, exponent, mantissa: high << short }
    }
}

impl Neg for Wide {
    type Output = Self;
    fn neg(self) -> Self {
        Self { negative: !self.negative, ..self }
    }
}

impl Add for Wide {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        let (large, small) = if self.is_smaller(other) { (other, self) } else { (self, other) };
        if small.is_zero() {
            return large;
        }
        let distance = large.exponent.wrapping_sub(small.exponent) as u32;
        // What is too small to be seen still decides on which side of `large` the sum is.
        let aligned = small.mantissa.checked_shr(distance).unwrap_or(0).max(1);
        if large.negative == small.negative {
            let (sum, carry) = large.mantissa.overflowing_add(aligned);
            let mantissa = if carry { sum >> 1 | 1 << 127 } else { sum };
            return Self { mantissa, exponent: large.exponent + i32::from(carry), ..large };
        }
        Self::scaled(large.negative, large.mantissa - aligned, large.exponent - 127)
    }
}

impl Sub for Wide {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self + -other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirds() {
        let third = Wide::ONE.divide(Wide::integer(3));
        assert_eq!((third.exponent, third.mantissa >> 1), (-2, u128::MAX / 3));
        let one = third * Wide::integer(3);
        let error = Wide::ONE - one;
        assert!(error.is_zero() || error.exponent <= -126, "{error:?}");
        assert_eq!(Wide::integer(-7).divide(Wide::integer(7)), -Wide::ONE);
    }

    #[test]
    fn products_carry() {
        assert_eq!(multiply_high(u128::MAX, u128::MAX), u128::MAX - 1);
        assert_eq!(Wide::integer(-12) * Wide::integer(11), Wide::integer(-132));
    }

    #[test]
    fn sums_cancel_and_remember_what_is_too_small() {
        assert_eq!(Wide::integer(5) - Wide::integer(5), Wide::ZERO);
        assert_eq!(Wide::integer(5) - Wide::integer(7), Wide::integer(-2));
        assert_eq!(Wide::integer(3) + Wide::integer(5), Wide::integer(8));
        let tiny = Wide::ONE.scale(-1000);
        assert!((Wide::ONE - tiny).is_smaller(Wide::ONE));
        assert!(Wide::ONE.is_smaller(Wide::ONE + tiny));
    }

    #[test]
    fn nearest_integers() {
        for (twice, nearest) in [(0, 0), (1, 1), (-1, -1), (3, 2), (4, 2), (7, 4), (-9, -5), (2001, 1001)] {
            assert_eq!(Wide::integer(twice).scale(-1).nearest_integer(), nearest, "{twice}");
        }
        assert_eq!(Wide::ONE.scale(-2).nearest_integer(), 0);
    }
}
