//! Shifts of packed integers: by one count for all elements, or by one for each; and of lanes, by bytes.

use std::marker::PhantomData;

use super::compute::Whole;
use super::lane::{Lane, from_u128, map, to_u128, zip};
use super::lanewise::{Kernel, kernels};
use super::state::Ymm;

/// A shift of all elements by one count, which may be anything.
pub trait Shift {
    /// Shift one lane.
    fn shift(lane: Lane, count: u64) -> Lane;
}

macro_rules! shifts {
    ($($name:ident: $t:ty, $n:literal, |$x:ident, $count:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Shift for $name {
            #[inline(always)]
            fn shift(lane: Lane, count: u64) -> Lane {
                // A count that fits no u32 shifts everything out, as any large one.
                let $count = u32::try_from(count).unwrap_or(u32::MAX);
                map::<$t, $n>(lane, |$x| $body)
            }
        }
    )*};
}

shifts! {
    Psllw: u16, 8, |x, count| x.checked_shl(count).unwrap_or(0);
    Pslld: u32, 4, |x, count| x.checked_shl(count).unwrap_or(0);
    Psllq: u64, 2, |x, count| x.checked_shl(count).unwrap_or(0);
    Psrlw: u16, 8, |x, count| x.checked_shr(count).unwrap_or(0);
    Psrld: u32, 4, |x, count| x.checked_shr(count).unwrap_or(0);
    Psrlq: u64, 2, |x, count| x.checked_shr(count).unwrap_or(0);
    Psraw: i16, 8, |x, count| x >> count.min(15);
    Psrad: i32, 4, |x, count| x >> count.min(31);
}

/// The count is the immediate; the r/m operand is what is shifted.
pub struct ByImmediate<S>(PhantomData<S>);

impl<S: Shift> Kernel for ByImmediate<S> {
    #[inline(always)]
    fn lane(_a: Lane, b: Lane, imm: u8) -> Lane {
        S::shift(b, imm.into())
    }
}

/// The count is the low quadword of the r/m operand, for all lanes.
pub struct ByCount<S>(PhantomData<S>);

impl<S: Shift> Whole for ByCount<S> {
    #[inline(always)]
    fn whole(a: Ymm, b: Ymm, _imm: u8) -> Ymm {
        a.map(|lane| S::shift(lane, b[0][0]))
    }
}

impl<S: Shift> Kernel for ByCount<S> {
    #[inline(always)]
    fn lane(a: Lane, b: Lane, _imm: u8) -> Lane {
        S::shift(a, b[0])
    }
}

kernels! {
    Pslldq |_, b, imm| from_u128(to_u128(b).checked_shl(8 * u32::from(imm)).unwrap_or(0));
    Psrldq |_, b, imm| from_u128(to_u128(b).checked_shr(8 * u32::from(imm)).unwrap_or(0));
    Vpsllvd |a, b, _| zip::<u32, 4>(a, b, |a, b| a.checked_shl(b).unwrap_or(0));
    Vpsrlvd |a, b, _| zip::<u32, 4>(a, b, |a, b| a.checked_shr(b).unwrap_or(0));
    Vpsravd |a, b, _| zip::<u32, 4>(a, b, |a, b| (a as i32 >> b.min(31)) as u32);
    Vpsllvq |a, b, _| zip::<u64, 2>(a, b, |a, b| if b < 64 { a << b } else { 0 });
    Vpsrlvq |a, b, _| zip::<u64, 2>(a, b, |a, b| if b < 64 { a >> b } else { 0 });
}
