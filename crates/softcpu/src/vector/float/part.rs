//! Elements of a vector.

use softfloat::fast::Fast;
use softfloat::{F16, F32, F64};

use crate::vector::lane::Lane;
use crate::vector::state::Ymm;

/// What a vector consists of.
pub trait Part: Copy {
    /// Size in bytes.
    const BYTES: usize;
    /// From the low bits.
    fn from_bits(bits: u64) -> Self;
    /// Zero-extended.
    fn to_bits(self) -> u64;

    /// Element `i` of a lane.
    #[inline(always)]
    fn of_lane(lane: Lane, i: usize) -> Self {
        let bit = 8 * Self::BYTES * i;
        Self::from_bits(lane[(bit / 64) & 1] >> (bit % 64))
    }

    /// Replace element `i` of a lane.
    #[inline(always)]
    fn put(self, lane: &mut Lane, i: usize) {
        let bit = 8 * Self::BYTES * i;
        let mask = u64::MAX >> (64 - 8 * Self::BYTES) << (bit % 64);
        let word = &mut lane[(bit / 64) & 1];
        *word = *word & !mask | self.to_bits() << (bit % 64) & mask;
    }

    /// Element `i` of a vector.
    #[inline(always)]
    fn of(vector: &Ymm, i: usize) -> Self {
        let per_lane = 16 / Self::BYTES;
        Self::of_lane(vector[(i / per_lane) & 1], i % per_lane)
    }
}

/// A floating-point element that arithmetic is done on.
pub trait Element: Part + Fast {
    /// Elements of a lane.
    const COUNT: usize = 16 / Self::BYTES;
    /// All bits set, or none: the result of a comparison.
    #[inline(always)]
    fn mask(set: bool) -> Self {
        Self::from_bits(if set { u64::MAX } else { 0 })
    }
}

macro_rules! part {
    ($($name:ty: $bits:ty, $bytes:literal, |$value:ident| $get:expr, |$raw:ident| $make:expr;)*) => {$(
        impl Part for $name {
            const BYTES: usize = $bytes;
            #[inline(always)]
            fn from_bits(bits: u64) -> Self {
                let $raw = bits as $bits;
                $make
            }
            #[inline(always)]
            fn to_bits(self) -> u64 {
                let $value = self;
                u64::from($get)
            }
        }
    )*};
}

part! {
    F16: u16, 2, |value| value.0, |raw| Self(raw);
    F32: u32, 4, |value| value.0, |raw| Self(raw);
    F64: u64, 8, |value| value.0, |raw| Self(raw);
    i32: u32, 4, |value| value as u32, |raw| raw as Self;
    i64: u64, 8, |value| value as u64, |raw| raw as Self;
}

impl Element for F32 {}
impl Element for F64 {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_is_put_where_it_is_found() {
        let mut lane = [u64::MAX; 2];
        F32(0x1234_5678).put(&mut lane, 3);
        assert_eq!(lane, [u64::MAX, 0x1234_5678_FFFF_FFFF]);
        assert_eq!(F32::of(&[[0; 2], lane], 7), F32(0x1234_5678));
        (-2i32).put(&mut lane, 0);
        assert_eq!(i32::of_lane(lane, 0), -2);
        assert_eq!(lane[0], 0xFFFF_FFFF_FFFF_FFFE);
    }
}
