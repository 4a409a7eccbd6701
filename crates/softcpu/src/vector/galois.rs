//! Arithmetic of polynomials over GF(2): PCLMULQDQ and GFNI.

use super::lane::{Lane, from_u128, zip};
use super::lanewise::kernels;

/// GF2P8MULB and its kin, as AES, work modulo x^8 + x^4 + x^3 + x + 1.
const FIELD: u16 = 0x11B;

/// Product modulo `field`.
pub const fn multiply(a: u8, b: u8, field: u16) -> u8 {
    let (mut product, mut a, mut i) = (0u16, a as u16, 0);
    while i < 8 {
        if b >> i & 1 != 0 {
            product ^= a;
        }
        a <<= 1;
        if a & 0x100 != 0 {
            a ^= field;
        }
        i += 1;
    }
    product as u8
}

/// The multiplicative inverse, of 0 it is 0: the 254th power.
pub const fn inverse(x: u8) -> u8 {
    let (mut power, mut result, mut i) = (x, 1, 0);
    while i < 7 {
        power = multiply(power, power, FIELD);
        result = multiply(result, power, FIELD);
        i += 1;
    }
    result
}

/// Product without carries.
fn carryless(a: u64, b: u64) -> u128 {
    (0..64).filter(|i| b >> i & 1 != 0).fold(0, |product, i| product ^ u128::from(a) << i)
}

/// A matrix of bits times a byte: row `i` of the matrix, which gives bit `i`, is its byte `7 - i`.
fn transformed(matrix: u64, x: u8, constant: u8) -> u8 {
    let rows = matrix.to_be_bytes();
    (0..8).fold(constant, |sum, i| sum ^ ((rows[i] & x).count_ones() as u8 & 1) << i)
}

/// Each quadword of `b` is the matrix for the bytes of `a` beside it.
fn affine(a: Lane, b: Lane, constant: u8, f: impl Fn(u8) -> u8) -> Lane {
    zip::<u64, 2>(a, b, |bytes, matrix| {
        u64::from_le_bytes(bytes.to_le_bytes().map(|x| transformed(matrix, f(x), constant)))
    })
}

kernels! {
    Pclmulqdq |a, b, imm| from_u128(carryless(a[usize::from(imm & 1)], b[usize::from(imm >> 4 & 1)]));
    Gf2p8mulb |a, b, _| zip::<u8, 16>(a, b, |a, b| multiply(a, b, FIELD));
    Gf2p8affineqb |a, b, imm| affine(a, b, imm, |x| x);
    Gf2p8affineinvqb |a, b, imm| affine(a, b, imm, inverse);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::lanewise::Kernel;

    #[test]
    fn inverses() {
        assert_eq!(inverse(0), 0);
        assert!((1..=255).all(|x| multiply(x, inverse(x), FIELD) == 1));
    }

    #[test]
    fn products() {
        assert_eq!(multiply(0x57, 0x83, FIELD), 0xC1, "the example of FIPS 197 section 4.2");
        assert_eq!(carryless(3, 3), 5);
        let (a, b) = ([0, 1 << 63], [1 << 63, 0]);
        assert_eq!(Pclmulqdq::lane(a, b, 0x01), [0, 1 << 62]);
        assert_eq!(Pclmulqdq::lane(a, b, 0x11), [0, 0]);
    }

    #[test]
    fn the_identity_matrix() {
        let identity = 0x0102_0408_1020_4080;
        assert_eq!(Gf2p8affineqb::lane([0x1234, 0], [identity; 2], 0), [0x1234, 0]);
        assert_eq!(Gf2p8affineinvqb::lane([0x53, 0], [identity; 2], 0), [0xCA, 0]);
    }
}
