//! Operands worth trying: numbers in the formats that instructions read.

use crate::catalogue::Family;
use crate::random::Random;

/// A format that fills 64 bits, once or several times.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// Integers of any width.
    Integer,
    /// Four binary16.
    Half,
    /// Two binary32.
    Single,
    /// One binary64.
    Double,
    /// 80 bits of an x87 register, in 128.
    Extended,
    /// 18 decimal digits and a sign, in 80 bits of 128.
    Decimal,
}

impl Kind {
    /// What suits a family.
    pub fn draw(random: &mut Random, family: Family) -> Self {
        match family {
            Family::X87 => {
                random.pick(&[Self::Integer, Self::Single, Self::Double, Self::Extended, Self::Extended, Self::Decimal])
            }
            Family::SseFloat => random.pick(&[Self::Integer, Self::Single, Self::Single, Self::Double, Self::Double]),
            Family::AvxFloat => {
                random.pick(&[Self::Integer, Self::Half, Self::Single, Self::Single, Self::Double, Self::Double])
            }
            _ => Self::Integer,
        }
    }

    /// 64 bits.
    pub fn word(self, random: &mut Random) -> u64 {
        match self {
            Self::Integer => random.integer(),
            Self::Half => (0..4).fold(0, |word, i| word | float(random, 5, 10) << (16 * i)),
            Self::Single => float(random, 8, 23) << 32 | float(random, 8, 23),
            Self::Double | Self::Decimal => float(random, 11, 52),
            Self::Extended => extended(random).0,
        }
    }

    /// 128 bits.
    pub fn pair(self, random: &mut Random) -> u128 {
        match self {
            Self::Extended => {
                let (significand, sign_exponent) = extended(random);
                u128::from(significand) | u128::from(sign_exponent) << 64 | u128::from(random.next()) << 80
            }
            Self::Decimal => {
                let digits = (0..18).fold(0, |digits, _| digits << 4 | u128::from(random.below(10)));
                // A digit too large is undefined, but loads something.
                digits | u128::from(random.next() & 0x80) << 72
            }
            _ => u128::from(self.word(random)) | u128::from(self.word(random)) << 64,
        }
    }
}

/// A biased exponent of so many bits: near that of one, at either end, or any.
fn exponent(random: &mut Random, bits: u32) -> u64 {
    let top = (1 << bits) - 1;
    let one = top >> 1;
    match random.below(10) {
        0..5 => one - 4 + random.below(9),
        5 => random.below(3),
        6 => top - random.below(3),
        // About where integers end, and where rounding to fewer bits begins.
        7 => (one + random.below(80)).min(top),
        _ => random.below(top + 1),
    }
}

/// A fraction of so many bits: mostly with few bits set, or few clear.
fn fraction(random: &mut Random, bits: u32) -> u64 {
    let mask = u64::MAX >> (64 - bits);
    mask & match random.below(10) {
        0 => 0,
        1 => u64::MAX,
        2 => 1,
        3 => 1 << (bits - 1),
        4 => random.next() << random.below(bits.into()),
        5 => 1 << random.below(bits.into()),
        6 => !(1 << random.below(bits.into())),
        _ => random.next(),
    }
}

/// A number of an IEEE interchange format.
fn float(random: &mut Random, exponent_bits: u32, fraction_bits: u32) -> u64 {
    let sign = random.below(2) << (exponent_bits + fraction_bits);
    let exponent = exponent(random, exponent_bits);
    // Infinities and zeros are too few if fractions are drawn.
    let special = exponent == 0 || exponent == (1 << exponent_bits) - 1;
    let fraction = if special && random.percent(40) { 0 } else { fraction(random, fraction_bits) };
    sign | exponent << fraction_bits | fraction
}

/// Significand, and sign and exponent, of an x87 number; a few are in formats that have not been valid since the 387.
pub fn extended(random: &mut Random) -> (u64, u16) {
    let exponent = exponent(random, 15);
    let fraction = if random.percent(20) { 0 } else { fraction(random, 63) };
    let integer = if random.percent(4) { random.below(2) } else { u64::from(exponent != 0) };
    (integer << 63 | fraction, (random.below(2) << 15 | exponent) as u16)
}
