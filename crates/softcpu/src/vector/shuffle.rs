//! Shuffles, packs and blends within lanes.

use super::compute::Ternary;
use super::lane::{Lane, blend, elements, from_u128, interleave, lane, pack, to_u128, zip};
use super::lanewise::kernels;

/// Element `i` of the result is the element that two bits of the immediate name.
#[inline(always)]
fn pick(imm: u8, i: usize) -> usize {
    usize::from(imm >> (2 * i) & 3)
}

fn shuffle_dwords(low: Lane, high: Lane, imm: u8) -> Lane {
    let (low, high): ([u32; 4], [u32; 4]) = (elements(low), elements(high));
    lane([low[pick(imm, 0)], low[pick(imm, 1)], high[pick(imm, 2)], high[pick(imm, 3)]])
}

/// PSHUFW's shuffle of the four words of a quadword.
pub fn shuffle_words(quadword: u64, imm: u8) -> u64 {
    (0..4).fold(0, |value, i| value | (quadword >> (16 * pick(imm, i)) & 0xFFFF) << (16 * i))
}

/// Bytes of `a` by the low bits of those of `b`, or zero if the top bit is set.
fn shuffle_bytes(a: Lane, b: Lane) -> Lane {
    let bytes: [u8; 16] = elements(a);
    super::lane::map::<u8, 16>(b, |i| if i & 0x80 != 0 { 0 } else { bytes[usize::from(i & 15)] })
}

/// 16 bytes from byte `imm` of `a` above `b`.
fn align(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b, bits) = (to_u128(a), to_u128(b), 8 * u32::from(imm));
    from_u128(match bits {
        0 => b,
        8..=127 => b >> bits | a << (128 - bits),
        _ => a.checked_shr(bits - 128).unwrap_or(0),
    })
}

/// INSERTPS, from a register: bits 7..6 say which element of `b`, which in memory is the only one ([`Insertps32`]).
fn insert_single(a: Lane, element: u32, imm: u8) -> Lane {
    let mut singles: [u32; 4] = elements(a);
    singles[usize::from(imm >> 4 & 3)] = element;
    lane::<u32, 4>(std::array::from_fn(|i| if imm >> i & 1 != 0 { 0 } else { singles[i] }))
}

/// Control words of VPERMILPD have their selector in bit 1.
fn permute_qwords(a: Lane, b: Lane) -> Lane {
    b.map(|control| a[(control >> 1 & 1) as usize])
}

fn permute_dwords(a: Lane, b: Lane) -> Lane {
    let a: [u32; 4] = elements(a);
    super::lane::map::<u32, 4>(b, |control| a[control as usize & 3])
}

kernels! {
    Pshufb |a, b, _| shuffle_bytes(a, b);
    Pshufd |_, b, imm| shuffle_dwords(b, b, imm);
    Pshuflw |_, b, imm| [shuffle_words(b[0], imm), b[1]];
    Pshufhw |_, b, imm| [b[0], shuffle_words(b[1], imm)];
    Shufps |a, b, imm| shuffle_dwords(a, b, imm);
    Shufpd(2) |a, b, imm| [a[usize::from(imm & 1)], b[usize::from(imm >> 1 & 1)]];
    Palignr |a, b, imm| align(a, b, imm);

    Punpcklbw |a, b, _| interleave::<u8, 16, false>(a, b);
    Punpcklwd |a, b, _| interleave::<u16, 8, false>(a, b);
    Punpckldq |a, b, _| interleave::<u32, 4, false>(a, b);
    Punpcklqdq |a, b, _| [a[0], b[0]];
    Punpckhbw |a, b, _| interleave::<u8, 16, true>(a, b);
    Punpckhwd |a, b, _| interleave::<u16, 8, true>(a, b);
    Punpckhdq |a, b, _| interleave::<u32, 4, true>(a, b);
    Punpckhqdq |a, b, _| [a[1], b[1]];

    Packsswb |a, b, _| pack::<i16, 8, i8, 16>(a, b, |x| x.clamp(-0x80, 0x7F) as i8);
    Packssdw |a, b, _| pack::<i32, 4, i16, 8>(a, b, |x| x.clamp(-0x8000, 0x7FFF) as i16);
    Packuswb |a, b, _| pack::<i16, 8, u8, 16>(a, b, |x| x.clamp(0, 0xFF) as u8);
    Packusdw |a, b, _| pack::<i32, 4, u16, 8>(a, b, |x| x.clamp(0, 0xFFFF) as u16);

    Pblendw |a, b, imm| blend::<u16, 8>(a, b, imm);
    Blendps(4) |a, b, imm| blend::<u32, 4>(a, b, imm);
    Blendpd(2) |a, b, imm| blend::<u64, 2>(a, b, imm);
    Insertps |a, b, imm| insert_single(a, elements::<u32, 4>(b)[usize::from(imm >> 6)], imm);
    Insertps32 |a, b, imm| insert_single(a, b[0] as u32, imm);

    Movddup |_, b, _| [b[0]; 2];
    Movsldup |_, b, _| b.map(|x| x & 0xFFFF_FFFF | x << 32);
    Movshdup |_, b, _| b.map(|x| x >> 32 | x & 0xFFFF_FFFF_0000_0000);

    Vpermilps |a, b, _| permute_dwords(a, b);
    Vpermilpd |a, b, _| permute_qwords(a, b);
    VpermilpsImmediate |_, b, imm| shuffle_dwords(b, b, imm);
    VpermilpdImmediate(2) |_, b, imm| [b[usize::from(imm & 1)], b[usize::from(imm >> 1 & 1)]];

    Movss |a, b, _| [a[0] & !0xFFFF_FFFF | b[0] & 0xFFFF_FFFF, a[1]];
    Movsd |a, b, _| [b[0], a[1]];
    Movlhps |a, b, _| [a[0], b[0]];
    Movhlps |a, b, _| [b[1], a[1]];
    // Clears the rest; so do loads of MOVD, MOVSS and MOVSD.
    Movq |_, b, _| [b[0], 0];
}

/// Variable blends: from `b` where the top bit of the mask's element is set.
macro_rules! variable_blends {
    ($($name:ident: $t:ty, $n:literal;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Ternary for $name {
            #[inline(always)]
            fn lane(a: Lane, b: Lane, mask: Lane) -> Lane {
                let mask = super::lane::map::<$t, $n>(mask, |x| if x < 0 { -1 } else { 0 });
                let keep = zip::<u64, 2>(mask, a, |mask, a| !mask & a);
                [keep[0] | mask[0] & b[0], keep[1] | mask[1] & b[1]]
            }
        }
    )*};
}

variable_blends! {
    Pblendvb: i8, 16;
    Blendvps: i32, 4;
    Blendvpd: i64, 2;
}
