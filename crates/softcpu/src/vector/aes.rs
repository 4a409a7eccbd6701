//! AES: FIPS 197; SDM vol. 1 section 12.13.
//!
//! A lane is the state, its columns one after the other.

use super::galois::{inverse, multiply};
use super::lane::{Lane, elements, lane};
use super::lanewise::kernels;

/// AES works modulo x^8 + x^4 + x^3 + x + 1.
const AES_FIELD: u16 = 0x11B;

const fn substitute(x: u8) -> u8 {
    let b = inverse(x);
    b ^ b.rotate_left(1) ^ b.rotate_left(2) ^ b.rotate_left(3) ^ b.rotate_left(4) ^ 0x63
}

const SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[i] = substitute(i as u8);
        i += 1;
    }
    table
};

const INVERSE_SBOX: [u8; 256] = {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        table[SBOX[i] as usize] = i as u8;
        i += 1;
    }
    table
};

/// Multiples of each byte by the four factors of a column of MixColumns, as a dword.
const fn multiples(factors: [u8; 4]) -> [u32; 256] {
    let mut table = [0; 256];
    let mut i = 0;
    while i < 256 {
        let x = i as u8;
        table[i] = u32::from_le_bytes([
            multiply(x, factors[0], AES_FIELD),
            multiply(x, factors[1], AES_FIELD),
            multiply(x, factors[2], AES_FIELD),
            multiply(x, factors[3], AES_FIELD),
        ]);
        i += 1;
    }
    table
}

const MIX: [u32; 256] = multiples([2, 1, 1, 3]);
const INVERSE_MIX: [u32; 256] = multiples([14, 9, 13, 11]);

/// Byte `i` of the result is byte `from(i)` of the state, substituted.
fn shift_and_substitute(state: Lane, sbox: &[u8; 256], from: impl Fn(usize) -> usize) -> [u8; 16] {
    let state: [u8; 16] = elements(state);
    std::array::from_fn(|i| sbox[usize::from(state[from(i) % 16])])
}

/// ShiftRows and SubBytes: row `i % 4` moves left by as many columns.
fn forward(state: Lane) -> [u8; 16] {
    shift_and_substitute(state, &SBOX, |i| i + 4 * (i % 4))
}

fn backward(state: Lane) -> [u8; 16] {
    shift_and_substitute(state, &INVERSE_SBOX, |i| i + 12 * (i % 4))
}

fn mix(state: [u8; 16], table: &[u32; 256]) -> Lane {
    let column =
        |c: usize| (0..4).fold(0, |sum, row| sum ^ table[usize::from(state[4 * c + row])].rotate_left(8 * row as u32));
    lane::<u32, 4>(std::array::from_fn(column))
}

fn add(state: Lane, key: Lane) -> Lane {
    [state[0] ^ key[0], state[1] ^ key[1]]
}

fn assist(key: Lane, constant: u8) -> Lane {
    let words: [u32; 4] = elements(key);
    let substituted = |x: u32| u32::from_le_bytes(x.to_le_bytes().map(|x| SBOX[usize::from(x)]));
    let rotated = |x: u32| substituted(x).rotate_right(8) ^ u32::from(constant);
    lane([substituted(words[1]), rotated(words[1]), substituted(words[3]), rotated(words[3])])
}

kernels! {
    Aesenc |state, key, _| add(mix(forward(state), &MIX), key);
    Aesenclast |state, key, _| add(lane(forward(state)), key);
    Aesdec |state, key, _| add(mix(backward(state), &INVERSE_MIX), key);
    Aesdeclast |state, key, _| add(lane(backward(state)), key);
    Aesimc |_, key, _| mix(elements(key), &INVERSE_MIX);
    Aeskeygenassist |_, key, constant| assist(key, constant);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::lane::from_u128;
    use crate::vector::lanewise::Kernel;

    /// FIPS 197 appendix B, rounds 1 and 10, and back.
    #[test]
    fn rounds_of_the_standard() {
        let state = |hex: u128| from_u128(hex.swap_bytes());
        let start = state(0x193D_E3BE_A0F4_E22B_9AC6_8D2A_E9F8_4808);
        let key = state(0xA0FA_FE17_8854_2CB1_23A3_3939_2A6C_7605);
        assert_eq!(Aesenc::lane(start, key, 0), state(0xA49C_7FF2_689F_352B_6B5B_EA43_026A_5049));
        let (last, key) =
            (state(0xEB40_F21E_592E_3884_8BA1_13E7_1BC3_42D2), state(0xD014_F9A8_C9EE_2589_E13F_0CC8_B663_0CA6));
        let cipher = state(0x3925_841D_02DC_09FB_DC11_8597_196A_0B32);
        assert_eq!(Aesenclast::lane(last, key, 0), cipher);
        assert_eq!(Aesdeclast::lane(add(cipher, key), [0; 2], 0), last);
    }

    #[test]
    fn decryption_undoes_encryption() {
        let (state, key) = ([0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210], [5, 7]);
        let encrypted = add(Aesenc::lane(state, key, 0), key);
        assert_eq!(Aesdeclast::lane(Aesimc::lane([0; 2], encrypted, 0), [0; 2], 0), state);
        assert_eq!(Aesdec::lane(state, key, 0), add(Aesimc::lane([0; 2], Aesdeclast::lane(state, [0; 2], 0), 0), key));
    }

    /// FIPS 197 appendix A.1: the first expansion of the key.
    #[test]
    fn key_expansion_of_the_standard() {
        let last = 0x09CF_4F3Cu32.swap_bytes();
        let words: [u32; 4] = elements(Aeskeygenassist::lane([0; 2], lane([0, 0, 0, last]), 1));
        assert_eq!(words[3], 0x8B84_EB01u32.swap_bytes());
    }
}
