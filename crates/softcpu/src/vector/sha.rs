//! SHA-1 and SHA-256: FIPS 180-4; SDM vol. 2 SHA1RNDS4 and its kin.

use super::compute::Ternary;
use super::lane::{Lane, elements, lane};
use super::lanewise::kernels;

/// Four rounds of SHA-1. `a`: the working variables A (highest) to D; `b`: four words of the schedule, E added to the highest.
fn rounds4(a: Lane, b: Lane, function: u8) -> Lane {
    let ([mut d, mut c, mut b_, mut a], words): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    let (mut e, constant) = (0u32, [0x5A82_7999, 0x6ED9_EBA1, 0x8F1B_BCDC, 0xCA62_C1D6u32][usize::from(function & 3)]);
    for word in words.into_iter().rev() {
        let mixed = match function & 3 {
            0 => b_ & c ^ !b_ & d,
            2 => b_ & c ^ b_ & d ^ c & d,
            _ => b_ ^ c ^ d,
        };
        let next = mixed.wrapping_add(a.rotate_left(5)).wrapping_add(word).wrapping_add(e).wrapping_add(constant);
        (a, b_, c, d, e) = (next, a, b_.rotate_left(30), c, d);
    }
    lane([d, c, b_, a])
}

/// E of the next four rounds, added to the highest of four words.
fn next_e(a: Lane, b: Lane) -> Lane {
    let (a, mut words): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    words[3] = words[3].wrapping_add(a[3].rotate_left(30));
    lane(words)
}

fn sha1_message1(a: Lane, b: Lane) -> Lane {
    let (a, b): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    lane([b[2] ^ a[0], b[3] ^ a[1], a[0] ^ a[2], a[1] ^ a[3]])
}

fn sha1_message2(a: Lane, b: Lane) -> Lane {
    let (a, b): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    let w16 = (a[3] ^ b[2]).rotate_left(1);
    let w17 = (a[2] ^ b[1]).rotate_left(1);
    let w18 = (a[1] ^ b[0]).rotate_left(1);
    lane([(a[0] ^ w16).rotate_left(1), w18, w17, w16])
}

fn small_sigma(x: u32, rotations: [u32; 2], shift: u32) -> u32 {
    x.rotate_right(rotations[0]) ^ x.rotate_right(rotations[1]) ^ x >> shift
}

fn big_sigma(x: u32, rotations: [u32; 3]) -> u32 {
    rotations.into_iter().fold(0, |sum, count| sum ^ x.rotate_right(count))
}

fn sha256_message1(a: Lane, b: Lane) -> Lane {
    let (a, b): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    let next = [a[1], a[2], a[3], b[0]];
    lane::<u32, 4>(std::array::from_fn(|i| a[i].wrapping_add(small_sigma(next[i], [7, 18], 3))))
}

fn sha256_message2(a: Lane, b: Lane) -> Lane {
    let (a, b): ([u32; 4], [u32; 4]) = (elements(a), elements(b));
    let next = |a: u32, b: u32| a.wrapping_add(small_sigma(b, [17, 19], 10));
    let (w16, w17) = (next(a[0], b[2]), next(a[1], b[3]));
    lane([w16, w17, next(a[2], w16), next(a[3], w17)])
}

kernels! {
    Sha1rnds4 |a, b, imm| rounds4(a, b, imm);
    Sha1nexte |a, b, _| next_e(a, b);
    Sha1msg1 |a, b, _| sha1_message1(a, b);
    Sha1msg2 |a, b, _| sha1_message2(a, b);
    Sha256msg1 |a, b, _| sha256_message1(a, b);
    Sha256msg2 |a, b, _| sha256_message2(a, b);
}

/// Two rounds of SHA-256: the words of the schedule, with their constants added, are in the low half of XMM0.
pub struct Sha256rnds2;

impl Ternary for Sha256rnds2 {
    fn lane(a: Lane, b: Lane, words: Lane) -> Lane {
        let ([mut h, mut g, mut d, mut c], [mut f, mut e, mut b, mut a]): ([u32; 4], [u32; 4]) =
            (elements(a), elements(b));
        for word in elements::<u32, 4>(words).into_iter().take(2) {
            let chosen = e & f ^ !e & g;
            let majority = a & b ^ a & c ^ b & c;
            let first = chosen.wrapping_add(big_sigma(e, [6, 11, 25])).wrapping_add(word).wrapping_add(h);
            let second = majority.wrapping_add(big_sigma(a, [2, 13, 22]));
            (a, b, c, d, e, f, g, h) = (first.wrapping_add(second), a, b, c, d.wrapping_add(first), e, f, g);
        }
        lane([f, e, b, a])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::lanewise::Kernel;

    fn sum(a: Lane, b: Lane) -> Lane {
        super::super::lane::zip::<u32, 4>(a, b, u32::wrapping_add)
    }

    /// The constants of SHA-256: the first 32 bits behind the point of the cube roots of the first 64 primes.
    fn constants() -> Vec<u32> {
        let is_prime = |n: &u128| (2..*n).all(|d| !n.is_multiple_of(d));
        let with_bit = |n: u128, root: u128, bit: u32| {
            let next = root | 1 << bit;
            if next.pow(3) <= n { next } else { root }
        };
        let root = |n: u128| (0..36).rev().fold(0, |root, bit| with_bit(n, root, bit));
        (2..).filter(is_prime).take(64).map(|prime| root(prime << 96) as u32).collect()
    }

    /// FIPS 180-4's example "abc", as software computes it with these instructions.
    #[test]
    fn sha256_of_abc() {
        let constants = constants();
        let mut words = [lane([0x6162_6380u32, 0, 0, 0]), [0; 2], [0; 2], lane([0, 0, 0, 24u32])];
        let start = [
            lane([0x9B05_688Cu32, 0x510E_527F, 0xBB67_AE85, 0x6A09_E667]),
            lane([0x5BE0_CD19u32, 0x1F83_D9AB, 0xA54F_F53A, 0x3C6E_F372]),
        ];
        let [mut abef, mut cdgh] = start;
        for four in constants.chunks_exact(4) {
            let mixed = sum(words[0], lane([four[0], four[1], four[2], four[3]]));
            for pair in [mixed, [mixed[1], 0]] {
                (cdgh, abef) = (abef, Sha256rnds2::lane(cdgh, abef, pair));
            }
            let (w2, w3) = (words[2], words[3]);
            let middle = [w2[0] >> 32 | w2[1] << 32, w2[1] >> 32 | w3[0] << 32];
            let next = sum(Sha256msg1::lane(words[0], words[1], 0), middle);
            words = [words[1], w2, w3, Sha256msg2::lane(next, w3, 0)];
        }
        assert_eq!(elements::<u32, 4>(sum(abef, start[0])), [0x9617_7A9Cu32, 0xB003_61A3, 0x8F01_CFEA, 0xBA78_16BF]);
        assert_eq!(elements::<u32, 4>(sum(cdgh, start[1])), [0xF200_15ADu32, 0xB410_FF61, 0x5DAE_2223, 0x4141_40DE]);
    }

    /// The same with SHA-1.
    #[test]
    fn sha1_of_abc() {
        let mut words = [lane([0, 0, 0, 0x6162_6380u32]), [0; 2], [0; 2], lane([24u32, 0, 0, 0])];
        let start = lane([0x1032_5476u32, 0x98BA_DCFE, 0xEFCD_AB89, 0x6745_2301]);
        let (mut abcd, mut before) = (start, None);
        for group in 0..20 {
            // E is what A was four rounds ago, rotated.
            let e = match before {
                None => sum(words[0], lane([0, 0, 0, 0xC3D2_E1F0u32])),
                Some(before) => Sha1nexte::lane(before, words[0], 0),
            };
            before = Some(abcd);
            abcd = Sha1rnds4::lane(abcd, e, group / 5);
            let mixed = Sha1msg1::lane(words[0], words[1], 0);
            let next = Sha1msg2::lane([mixed[0] ^ words[2][0], mixed[1] ^ words[2][1]], words[3], 0);
            words = [words[1], words[2], words[3], next];
        }
        let e = Sha1nexte::lane(before.unwrap_or_default(), lane([0, 0, 0, 0xC3D2_E1F0u32]), 0);
        assert_eq!(elements::<u32, 4>(sum(abcd, start)), [0x7850_C26Cu32, 0xBA3E_2571, 0x4706_816A, 0xA999_3E36]);
        assert_eq!(elements::<u32, 4>(e)[3], 0x9CD0_D89D);
    }
}
