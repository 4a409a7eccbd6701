//! The functions themselves, on numbers that are finite and not zero. Results are good to 110 bits at least.

use super::constants::{
    ARC_TANGENT_STEPS, ARC_TANGENTS, FIRST_LOGARITHM, HALF_PI, LN_2, LOG2_E, LOGARITHM_STEPS, LOGARITHMS, PI,
};
use super::wide::Wide;

/// π/2 in units of 2^-65, with the 66 bits of π that the hardware reduces arguments by: Intel's (SDM vol. 1 section 8.3.8), and AMD's.
const REDUCING_HALF_PI: u128 = 0x3_243F_6A88_85A3_08D3;
/// A series ends where terms fall below 2 to the power of this.
const NEGLIGIBLE: i32 = -124;

/// How many terms a series needs whose terms shrink by 2^`exponent`, if it has `most` otherwise.
fn terms(exponent: i32, most: u32) -> u32 {
    if exponent >= 0 { most } else { most.min((NEGLIGIBLE / exponent) as u32 + 1) }
}

/// An argument of magnitude below 2^63 as a multiple of π/2, and the rest, of magnitude up to π/4.
fn reduced(magnitude: Wide) -> (u32, Wide) {
    if magnitude.exponent < -1 {
        return (0, magnitude);
    }
    // 64 bits of significand, and bit 0 stands for 2^-65.
    let fixed = magnitude.mantissa >> (62 - magnitude.exponent.min(62));
    let (quotient, rest) = (fixed / REDUCING_HALF_PI, fixed % REDUCING_HALF_PI);
    let beyond = REDUCING_HALF_PI - rest;
    let quadrant = (quotient & 3) as u32;
    if beyond < rest {
        (quadrant + 1, Wide::scaled(true, beyond, -65))
    } else {
        (quadrant, Wide::scaled(false, rest, -65))
    }
}

/// Sine of an argument up to π/4.
fn first_sine(x: Wide) -> Wide {
    let square = x * x;
    x.series(-square, terms(square.exponent, 16), |n| (1, i64::from(2 * n * (2 * n + 1))))
}

/// Cosine of an argument up to π/4.
fn first_cosine(x: Wide) -> Wide {
    let square = x * x;
    Wide::ONE.series(-square, terms(square.exponent, 17), |n| (1, i64::from((2 * n - 1) * 2 * n)))
}

/// Sine and cosine of an argument of magnitude below 2^63.
pub fn sine_and_cosine(x: Wide) -> (Wide, Wide) {
    let (quadrant, rest) = reduced(x.abs());
    let (sine, cosine) = (first_sine(rest), first_cosine(rest));
    let (sine, cosine) = match quadrant & 3 {
        0 => (sine, cosine),
        1 => (cosine, -sine),
        2 => (-sine, -cosine),
        _ => (-cosine, sine),
    };
    (if x.negative { -sine } else { sine }, cosine)
}

/// Arc tangent of a number from 0 to 1.
fn first_arc_tangent(x: Wide) -> Wide {
    let step = x.scale(ARC_TANGENT_STEPS.trailing_zeros() as i32).nearest_integer();
    let known = Wide::integer(step.into()).scale(-(ARC_TANGENT_STEPS.trailing_zeros() as i32));
    let rest = if step == 0 { x } else { (x - known).divide(Wide::ONE + x * known) };
    let square = rest * rest;
    let series = |n: u32| (i64::from(2 * n) - 1, i64::from(2 * n) + 1);
    let arc = rest.series(-square, terms(square.exponent, 13), series);
    let base = usize::try_from(step).ok().and_then(|step| ARC_TANGENTS.get(step)).copied().unwrap_or(Wide::ZERO);
    base + arc
}

/// The angle of the point (x, y), from -π to π.
pub fn arc_tangent(y: Wide, x: Wide) -> Wide {
    let first = if x.is_smaller(y) {
        HALF_PI - first_arc_tangent(x.abs().divide(y.abs()))
    } else {
        first_arc_tangent(y.abs().divide(x.abs()))
    };
    let upper = if x.negative { PI - first } else { first };
    Wide { negative: y.negative, ..upper }
}

/// log2 of a / b, which is near 1, by the difference a - b.
fn near_one(difference: Wide, sum: Wide) -> Wide {
    let ratio = difference.divide(sum);
    let square = ratio * ratio;
    let series = |n: u32| (i64::from(2 * n) - 1, i64::from(2 * n) + 1);
    let half = ratio.series(square, terms(square.exponent, 11), series);
    (half * LOG2_E).scale(1)
}

/// Binary logarithm of a positive number; zero only of 1.
pub fn log2(x: Wide) -> Wide {
    /// The upper bits of √2.
    const SQRT_2: u128 = 0xB504 << 112;
    let large = x.mantissa > SQRT_2;
    let power = x.exponent + i32::from(large);
    let first = Wide { exponent: -i32::from(large), ..x };
    let step = first.scale(LOGARITHM_STEPS.trailing_zeros() as i32).nearest_integer();
    let known = Wide::integer(step.into()).scale(-(LOGARITHM_STEPS.trailing_zeros() as i32));
    let index = usize::try_from(step - FIRST_LOGARITHM).ok();
    let base = index.and_then(|index| LOGARITHMS.get(index)).copied().unwrap_or(Wide::ZERO);
    let base = if step < LOGARITHM_STEPS { -base } else { base };
    near_one(first - known, first + known) + base + Wide::integer(power.into())
}

/// log2(x + 1) of a number above -1.
pub fn log2_plus_one(x: Wide) -> Wide {
    if x.exponent < -6 { near_one(x, Wide::integer(2) + x) } else { log2(Wide::ONE + x) }
}

/// 2^x - 1 of a number from -1 to 1.
pub fn exp2_minus_one(x: Wide) -> Wide {
    let power = x * LN_2;
    power.series(power, terms(power.exponent, 31), |n| (1, i64::from(n) + 1))
}
