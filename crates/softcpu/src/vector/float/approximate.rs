//! RCP and RSQRT: approximations, which raise nothing and do not look at MXCSR.
//!
//! Manuals promise a relative error of at most 1.5 · 2^−12 (SDM vol. 2, RCPPS), and vendors keep it with different bits. These
//! are the bits of AMD's family 19h: twelve bits of the significand choose from a bipartite table (Das Sarma and Matula,
//! "Faithful Bipartite ROM Reciprocal Tables", ARITH 12, 1995), a sum of two entries, one for the upper and middle four bits
//! and one for the upper and lower four.

use softfloat::{Class, Context, F32, Format, Unpacked};

use super::approximate_tables::{RCP, RSQRT_EVEN, RSQRT_ODD};
use super::elementwise::Elementwise;
use super::part::{Element, Part};

/// A bipartite table of 12-bit significands, in units of 2^-13: between one half and one.
pub struct Bipartite {
    /// By the upper and middle four bits.
    pub base: [u16; 256],
    /// By the upper and lower four bits: how much less.
    pub less: [u8; 256],
}

impl Bipartite {
    /// The significand for a normalised one, as the bits of an [`F32`] between one half (included) and one.
    fn look_up(&self, significand: u64) -> u32 {
        let index = (significand << 1 >> 52) as usize;
        let value = self.base[index >> 4] - u16::from(self.less[index >> 4 & 0xF0 | index & 0xF]);
        0x3F00_0000 | (u32::from(value) & 0xFFF) << 11
    }
}

/// A number between one half and one, times 2^`power`; too small a result is zero.
fn scaled(sign: bool, bits: u32, power: i32) -> F32 {
    let exponent = (bits >> 23) as i32 + power;
    if exponent <= 0 {
        F32::zero(sign)
    } else {
        F32(u32::from(sign) << 31 | (exponent as u32) << 23 | bits & 0x7F_FFFF)
    }
}

fn special(value: Unpacked) -> Option<F32> {
    match value.class {
        Class::QuietNan | Class::SignallingNan => Some(F32::nan(value.quieted())),
        Class::Zero => Some(F32::infinity(value.sign)),
        Class::Finite if value.denormal => Some(F32::infinity(value.sign)),
        _ => None,
    }
}

fn reciprocal(value: F32) -> F32 {
    let x = value.unpack();
    match special(x) {
        Some(result) => result,
        None if x.is_infinity() => F32::zero(x.sign),
        None => scaled(x.sign, RCP.look_up(x.significand), -x.exponent),
    }
}

fn reciprocal_root(value: F32) -> F32 {
    let x = value.unpack();
    match special(x) {
        Some(result) => result,
        None if x.sign => F32::nan(Unpacked::DEFAULT_NAN),
        None if x.is_infinity() => F32::zero(false),
        None => {
            let table = if x.exponent & 1 == 0 { &RSQRT_EVEN } else { &RSQRT_ODD };
            scaled(false, table.look_up(x.significand), -(x.exponent >> 1))
        }
    }
}

macro_rules! approximations {
    ($($(#[$doc:meta])* $name:ident $function:ident;)*) => {$(
        $(#[$doc])*
        pub struct $name;
        impl Elementwise for $name {
            #[inline(always)]
            fn element<F: Element>(_cx: &mut Context, _i: usize, _d: F, _a: F, b: F, _imm: u8) -> F {
                F::from_bits($function(F32::from_bits(b.to_bits())).to_bits())
            }
        }
    )*};
}

approximations! {
    /// RCPPS, RCPSS.
    Rcp reciprocal;
    /// RSQRTPS, RSQRTSS.
    Rsqrt reciprocal_root;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Results of an AMD EPYC (family 19h).
    #[test]
    fn results_are_those_of_the_silicon() {
        for (x, rcp, rsqrt) in [
            (0x0000_0000, 0x7F80_0000, 0x7F80_0000),
            (0x8000_0001, 0xFF80_0000, 0xFF80_0000),
            (0x0080_0000, 0x7E7F_F000, 0x5EFF_F800),
            (0x3F80_0000, 0x3F7F_F000, 0x3F7F_F800),
            (0x4000_0000, 0x3EFF_F000, 0x3F35_0000),
            (0xBF80_0000, 0xBF7F_F000, 0xFFC0_0000),
            (0x7E7F_FFFF, 0x0080_0000, 0x2000_0000),
            (0x7E80_0000, 0x0000_0000, 0x1FFF_F800),
            (0x7EFF_FFFF, 0x0000_0000, 0x1FB5_0800),
            (0xFF80_0000, 0x8000_0000, 0xFFC0_0000),
            (0x7F80_0001, 0x7FC0_0001, 0x7FC0_0001),
        ] {
            assert_eq!((reciprocal(F32(x)).0, reciprocal_root(F32(x)).0), (rcp, rsqrt), "{x:#010x}");
        }
    }

    /// SDM vol. 2, RCPPS and RSQRTPS.
    #[test]
    fn the_relative_error_is_within_bounds() {
        let bound = 1.5 / 4096.0;
        for bits in (0x3F80_0000u32..0x4080_0000).step_by(509) {
            let x = f64::from(f32::from_bits(bits));
            let of = |f: fn(F32) -> F32| f64::from(f32::from_bits(f(F32(bits)).0));
            assert!((of(reciprocal) * x - 1.0).abs() <= bound, "{x}");
            assert!((of(reciprocal_root) * x.sqrt() - 1.0).abs() <= bound, "{x}");
        }
    }
}
