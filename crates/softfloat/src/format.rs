//! The formats, and the one form that arithmetic works on.

use crate::context::Context;

/// What an encoding stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// ±0.
    Zero,
    /// Any other number.
    Finite,
    /// ±∞.
    Infinity,
    /// NaN that raises nothing.
    QuietNan,
    /// NaN that raises IE.
    SignallingNan,
    /// No number at all: unnormals, pseudo-infinities and pseudo-NaNs of [`X80`] (SDM vol. 1 table 8-3).
    Unsupported,
}

/// A value taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unpacked {
    /// What it is.
    pub class: Class,
    /// It was encoded as a denormal (or pseudo-denormal): using it raises DE. Clear it where an instruction does not.
    pub denormal: bool,
    /// Negative.
    pub sign: bool,
    /// A finite value is `significand` · 2^(`exponent` − 63).
    pub exponent: i32,
    /// Bit 63 is set if it is finite or a NaN; of a NaN, bit 62 tells quiet ones.
    pub significand: u64,
}

const INTEGER_BIT: u64 = 1 << 63;
const QUIET_BIT: u64 = 1 << 62;

impl Unpacked {
    /// The answer to invalid operations: "QNaN floating-point indefinite", which is negative.
    pub const DEFAULT_NAN: Self =
        Self { class: Class::QuietNan, denormal: false, sign: true, exponent: 0, significand: INTEGER_BIT | QUIET_BIT };

    /// ±0.
    #[inline]
    pub const fn zero(sign: bool) -> Self {
        Self { class: Class::Zero, denormal: false, sign, exponent: 0, significand: 0 }
    }

    /// ±∞.
    pub const fn infinity(sign: bool) -> Self {
        Self { class: Class::Infinity, denormal: false, sign, exponent: 0, significand: INTEGER_BIT }
    }

    /// `significand` · 2^(`exponent` − 63).
    #[inline]
    pub fn finite(sign: bool, exponent: i32, significand: u64) -> Self {
        if significand == 0 {
            return Self::zero(sign);
        }
        let shift = significand.leading_zeros();
        Self {
            class: Class::Finite,
            denormal: false,
            sign,
            exponent: exponent - shift as i32,
            significand: significand << shift,
        }
    }

    /// Any NaN.
    pub fn is_nan(&self) -> bool {
        matches!(self.class, Class::QuietNan | Class::SignallingNan)
    }

    /// ±0.
    pub fn is_zero(&self) -> bool {
        self.class == Class::Zero
    }

    /// ±∞.
    pub fn is_infinity(&self) -> bool {
        self.class == Class::Infinity
    }

    /// The quiet NaN that a NaN becomes.
    pub fn quieted(self) -> Self {
        Self { class: Class::QuietNan, significand: self.significand | QUIET_BIT, ..self }
    }

    /// With the other sign, also of a NaN.
    pub fn negated(self) -> Self {
        Self { sign: !self.sign, ..self }
    }

    /// As positive, also of a NaN.
    pub fn absolute(self) -> Self {
        Self { sign: false, ..self }
    }
}

/// A binary floating-point format.
pub trait Format: Copy + Eq + std::fmt::Debug {
    /// Bits of the significand, with the integer bit.
    const PRECISION: u32;
    /// Bits of the exponent.
    const EXPONENT_BITS: u32;
    /// The stored exponent of infinities and NaNs.
    const EXPONENT_SPECIAL: u32 = (1 << Self::EXPONENT_BITS) - 1;
    /// Stored exponent minus exponent.
    const BIAS: i32 = (1 << (Self::EXPONENT_BITS - 1)) - 1;
    /// The largest exponent of a finite value.
    const EXPONENT_MAX: i32 = Self::BIAS;
    /// The smallest exponent of a normal value.
    const EXPONENT_MIN: i32 = 1 - Self::BIAS;
    /// By how much x87's answer to an unmasked overflow or underflow changes the exponent (SDM vol. 1 section 8.5.4).
    const TRAP_SCALE: i32 = 3 << (Self::EXPONENT_BITS - 2);

    /// Sign, stored exponent, and the significand with the integer bit at bit 63.
    fn split(self) -> (bool, u32, u64);

    /// The inverse of [`Format::split`]: bits of the significand below the precision are dropped.
    fn assemble(sign: bool, exponent: u32, significand: u64) -> Self;

    /// To how many bits results are rounded.
    #[inline(always)]
    fn precision(_cx: &Context) -> u32 {
        Self::PRECISION
    }

    /// Take apart.
    #[inline]
    fn unpack(self) -> Unpacked {
        let (sign, exponent, significand) = self.split();
        let of = |class| Unpacked { class, denormal: false, sign, exponent: exponent as i32 - Self::BIAS, significand };
        if exponent == 0 {
            let exponent = Self::EXPONENT_MIN;
            return Unpacked { denormal: significand != 0, ..Unpacked::finite(sign, exponent, significand) };
        }
        if significand & INTEGER_BIT == 0 {
            return of(Class::Unsupported);
        }
        if exponent != Self::EXPONENT_SPECIAL {
            return of(Class::Finite);
        }
        of(match significand << 1 {
            0 => Class::Infinity,
            _ if significand & QUIET_BIT != 0 => Class::QuietNan,
            _ => Class::SignallingNan,
        })
    }

    /// ±0.
    #[inline]
    fn zero(sign: bool) -> Self {
        Self::assemble(sign, 0, 0)
    }

    /// ±∞.
    fn infinity(sign: bool) -> Self {
        Self::assemble(sign, Self::EXPONENT_SPECIAL, INTEGER_BIT)
    }

    /// A NaN, whose low bits are dropped if they do not fit. It should be quiet: of a signalling one nothing might be left.
    fn nan(nan: Unpacked) -> Self {
        Self::assemble(nan.sign, Self::EXPONENT_SPECIAL, nan.significand)
    }

    /// The finite value with the largest magnitude in a precision.
    fn largest(sign: bool, precision: u32) -> Self {
        Self::assemble(sign, Self::EXPONENT_SPECIAL - 1, u64::MAX << (64 - precision))
    }
}

macro_rules! interchange_format {
    ($(#[$doc:meta])* $name:ident($bits:ty), precision $precision:literal, exponent $exponent:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        pub struct $name(pub $bits);

        impl Format for $name {
            const PRECISION: u32 = $precision;
            const EXPONENT_BITS: u32 = $exponent;

            #[inline(always)]
            fn split(self) -> (bool, u32, u64) {
                let sign = self.0 >> (<$bits>::BITS - 1) != 0;
                let exponent = (self.0 >> ($precision - 1)) as u32 & Self::EXPONENT_SPECIAL;
                let fraction = (self.0 as u64) << (64 - $precision) & !INTEGER_BIT;
                (sign, exponent, fraction | u64::from(exponent != 0) << 63)
            }

            #[inline(always)]
            fn assemble(sign: bool, exponent: u32, significand: u64) -> Self {
                let fraction = (significand & !INTEGER_BIT) >> (64 - $precision);
                let sign = (sign as $bits) << (<$bits>::BITS - 1);
                Self(sign | (exponent as $bits) << ($precision - 1) | fraction as $bits)
            }
        }
    };
}

interchange_format! {
    /// binary16, "half precision".
    F16(u16), precision 11, exponent 5
}
interchange_format! {
    /// binary32, "single precision".
    F32(u32), precision 24, exponent 8
}
interchange_format! {
    /// binary64, "double precision".
    F64(u64), precision 53, exponent 11
}

/// x87's "double extended precision", whose integer bit is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct X80 {
    /// The 64 bits of the significand, integer bit on top.
    pub significand: u64,
    /// Sign, and 15 bits of exponent.
    pub sign_exponent: u16,
}

impl X80 {
    /// From sign and exponent, and significand.
    pub const fn new(sign_exponent: u16, significand: u64) -> Self {
        Self { significand, sign_exponent }
    }

    /// From the ten bytes that it takes in memory.
    pub fn from_bytes(bytes: [u8; 10]) -> Self {
        let wide = bytes.iter().rev().fold(0, |value, &byte| value << 8 | u128::from(byte));
        Self::new((wide >> 64) as u16, wide as u64)
    }

    /// The ten bytes that it takes in memory.
    pub fn to_bytes(self) -> [u8; 10] {
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&self.significand.to_le_bytes());
        bytes[8..].copy_from_slice(&self.sign_exponent.to_le_bytes());
        bytes
    }
}

impl Format for X80 {
    const PRECISION: u32 = 64;
    const EXPONENT_BITS: u32 = 15;

    #[inline(always)]
    fn split(self) -> (bool, u32, u64) {
        (self.sign_exponent >> 15 != 0, u32::from(self.sign_exponent & 0x7FFF), self.significand)
    }

    #[inline(always)]
    fn assemble(sign: bool, exponent: u32, significand: u64) -> Self {
        Self { significand, sign_exponent: u16::from(sign) << 15 | exponent as u16 }
    }

    #[inline(always)]
    fn precision(cx: &Context) -> u32 {
        cx.precision.bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_normalises() {
        assert_eq!(F64(1.0f64.to_bits()).unpack(), Unpacked::finite(false, 0, 1 << 63));
        assert_eq!(F32((-1.5f32).to_bits()).unpack(), Unpacked::finite(true, 0, 3 << 62));
        let smallest = F32(1).unpack();
        assert_eq!((smallest.exponent, smallest.significand, smallest.denormal), (-149, 1 << 63, true));
    }

    #[test]
    fn classes_are_told_apart() {
        let class = |bits| F16(bits).unpack().class;
        assert_eq!(
            [0x8000, 1, 0x3C00, 0x7C00, 0x7E00, 0x7C01].map(class),
            [Class::Zero, Class::Finite, Class::Finite, Class::Infinity, Class::QuietNan, Class::SignallingNan]
        );
    }

    #[test]
    fn extended_encodings_without_integer_bit_are_no_numbers() {
        let class = |sign_exponent, significand| X80 { significand, sign_exponent }.unpack().class;
        assert_eq!(class(0x3FFF, 0x7FFF_FFFF_FFFF_FFFF), Class::Unsupported);
        assert_eq!(class(0x7FFF, 0), Class::Unsupported);
        assert_eq!(class(0x7FFF, 1), Class::Unsupported);
        assert_eq!(class(0x7FFF, 1 << 63), Class::Infinity);
    }

    #[test]
    fn a_pseudo_denormal_has_the_value_of_the_smallest_normal_numbers() {
        let pseudo = X80 { significand: 1 << 63, sign_exponent: 0 }.unpack();
        let normal = X80 { significand: 1 << 63, sign_exponent: 1 }.unpack();
        assert!(pseudo.denormal && !normal.denormal);
        assert_eq!(pseudo.exponent, normal.exponent);
    }

    #[test]
    fn ten_bytes() {
        let value = X80::new(0xC123, 0x8877_6655_4433_2211);
        assert_eq!(value.to_bytes(), [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x23, 0xC1]);
        assert_eq!(X80::from_bytes(value.to_bytes()), value);
    }
}
