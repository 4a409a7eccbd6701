//! Integer arithmetic on packed elements. MMX has the same, on half a lane.

use super::lane::{Lane, elements, horizontal, lane, map, zip};
use super::lanewise::kernels;

/// Sums of the products of neighbours, each pair as one element of twice the width.
#[inline(always)]
fn pairs<T>(f: impl Fn(usize) -> T) -> impl Fn(usize) -> (T, T) {
    move |i| (f(2 * i), f(2 * i + 1))
}

/// Sum of the absolute differences of eight bytes.
fn sum_of_differences(a: [u8; 8], b: [u8; 8]) -> u64 {
    a.into_iter().zip(b).map(|(a, b)| u64::from(a.abs_diff(b))).sum()
}

/// PMADDUBSW: bytes of `a` are unsigned, those of `b` signed.
#[inline(always)]
fn multiply_add_bytes(a: Lane, b: Lane) -> Lane {
    let (a, b): ([u8; 16], [i8; 16]) = (elements(a), elements(b));
    let sums = pairs(|i| i32::from(a[i]) * i32::from(b[i]));
    lane::<i16, 8>(std::array::from_fn(|i| {
        let (low, high) = sums(i);
        (low + high).clamp(i16::MIN.into(), i16::MAX.into()) as i16
    }))
}

#[inline(always)]
fn multiply_add_words(a: Lane, b: Lane) -> Lane {
    let (a, b): ([i16; 8], [i16; 8]) = (elements(a), elements(b));
    let sums = pairs(|i| i32::from(a[i]) * i32::from(b[i]));
    lane::<i32, 4>(std::array::from_fn(|i| {
        let (low, high) = sums(i);
        low.wrapping_add(high)
    }))
}

/// MPSADBW: eight blocks of four bytes of `a`, each one byte further, against one block of `b`.
fn blocks_of_differences(a: Lane, b: Lane, imm: u8) -> Lane {
    let (a, b): ([u8; 16], [u8; 16]) = (elements(a), elements(b));
    let (from, against) = (usize::from(imm >> 2 & 1) * 4, usize::from(imm & 3) * 4);
    lane::<u16, 8>(std::array::from_fn(|i| (0..4).map(|k| u16::from(a[from + i + k].abs_diff(b[against + k]))).sum()))
}

/// PHMINPOSUW: the least word, and where it is first.
fn least_word(words: [u16; 8]) -> Lane {
    let (at, least) = words.into_iter().enumerate().min_by_key(|&(_, word)| word).unwrap_or_default();
    [u64::from(least) | (at as u64) << 16, 0]
}

kernels! {
    Paddb |a, b, _| zip::<u8, 16>(a, b, u8::wrapping_add);
    Paddw |a, b, _| zip::<u16, 8>(a, b, u16::wrapping_add);
    Paddd |a, b, _| zip::<u32, 4>(a, b, u32::wrapping_add);
    Paddq |a, b, _| zip::<u64, 2>(a, b, u64::wrapping_add);
    Psubb |a, b, _| zip::<u8, 16>(a, b, u8::wrapping_sub);
    Psubw |a, b, _| zip::<u16, 8>(a, b, u16::wrapping_sub);
    Psubd |a, b, _| zip::<u32, 4>(a, b, u32::wrapping_sub);
    Psubq |a, b, _| zip::<u64, 2>(a, b, u64::wrapping_sub);
    Paddsb |a, b, _| zip::<i8, 16>(a, b, i8::saturating_add);
    Paddsw |a, b, _| zip::<i16, 8>(a, b, i16::saturating_add);
    Paddusb |a, b, _| zip::<u8, 16>(a, b, u8::saturating_add);
    Paddusw |a, b, _| zip::<u16, 8>(a, b, u16::saturating_add);
    Psubsb |a, b, _| zip::<i8, 16>(a, b, i8::saturating_sub);
    Psubsw |a, b, _| zip::<i16, 8>(a, b, i16::saturating_sub);
    Psubusb |a, b, _| zip::<u8, 16>(a, b, u8::saturating_sub);
    Psubusw |a, b, _| zip::<u16, 8>(a, b, u16::saturating_sub);

    Pmullw |a, b, _| zip::<u16, 8>(a, b, u16::wrapping_mul);
    Pmulld |a, b, _| zip::<u32, 4>(a, b, u32::wrapping_mul);
    Pmulhw |a, b, _| zip::<i16, 8>(a, b, |a, b| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    Pmulhuw |a, b, _| zip::<u16, 8>(a, b, |a, b| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    Pmulhrsw |a, b, _| zip::<i16, 8>(a, b, |a, b| ((((i32::from(a) * i32::from(b)) >> 14) + 1) >> 1) as i16);
    Pmuludq |a, b, _| zip::<u64, 2>(a, b, |a, b| (a & 0xFFFF_FFFF) * (b & 0xFFFF_FFFF));
    Pmuldq |a, b, _| zip::<u64, 2>(a, b, |a, b| (i64::from(a as i32) * i64::from(b as i32)) as u64);
    Pmaddwd |a, b, _| multiply_add_words(a, b);
    Pmaddubsw |a, b, _| multiply_add_bytes(a, b);

    Pavgb |a, b, _| zip::<u8, 16>(a, b, |a, b| ((u16::from(a) + u16::from(b) + 1) >> 1) as u8);
    Pavgw |a, b, _| zip::<u16, 8>(a, b, |a, b| ((u32::from(a) + u32::from(b) + 1) >> 1) as u16);
    Psadbw |a, b, _| std::array::from_fn(|i| sum_of_differences(a[i].to_le_bytes(), b[i].to_le_bytes()));
    Mpsadbw(3) |a, b, imm| blocks_of_differences(a, b, imm);
    Phminposuw |_, b, _| least_word(elements(b));

    Pminub |a, b, _| zip::<u8, 16>(a, b, u8::min);
    Pminuw |a, b, _| zip::<u16, 8>(a, b, u16::min);
    Pminud |a, b, _| zip::<u32, 4>(a, b, u32::min);
    Pminsb |a, b, _| zip::<i8, 16>(a, b, i8::min);
    Pminsw |a, b, _| zip::<i16, 8>(a, b, i16::min);
    Pminsd |a, b, _| zip::<i32, 4>(a, b, i32::min);
    Pmaxub |a, b, _| zip::<u8, 16>(a, b, u8::max);
    Pmaxuw |a, b, _| zip::<u16, 8>(a, b, u16::max);
    Pmaxud |a, b, _| zip::<u32, 4>(a, b, u32::max);
    Pmaxsb |a, b, _| zip::<i8, 16>(a, b, i8::max);
    Pmaxsw |a, b, _| zip::<i16, 8>(a, b, i16::max);
    Pmaxsd |a, b, _| zip::<i32, 4>(a, b, i32::max);

    Pabsb |_, b, _| map::<i8, 16>(b, i8::wrapping_abs);
    Pabsw |_, b, _| map::<i16, 8>(b, i16::wrapping_abs);
    Pabsd |_, b, _| map::<i32, 4>(b, i32::wrapping_abs);
    Psignb |a, b, _| zip::<i8, 16>(a, b, |a, b| a.wrapping_mul(b.signum()));
    Psignw |a, b, _| zip::<i16, 8>(a, b, |a, b| a.wrapping_mul(b.signum()));
    Psignd |a, b, _| zip::<i32, 4>(a, b, |a, b| a.wrapping_mul(b.signum()));

    Phaddw |a, b, _| horizontal::<u16, 8>(a, b, u16::wrapping_add);
    Phaddd |a, b, _| horizontal::<u32, 4>(a, b, u32::wrapping_add);
    Phaddsw |a, b, _| horizontal::<i16, 8>(a, b, i16::saturating_add);
    Phsubw |a, b, _| horizontal::<u16, 8>(a, b, u16::wrapping_sub);
    Phsubd |a, b, _| horizontal::<u32, 4>(a, b, u32::wrapping_sub);
    Phsubsw |a, b, _| horizontal::<i16, 8>(a, b, i16::saturating_sub);
}
