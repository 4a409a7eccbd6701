//! What moves data from lane to lane: permutations, broadcasts, insertion and extraction of lanes, extension of elements.

use bytemuck::Pod;

use super::compute::wholes;
use super::lane::Lane;
use super::state::Ymm;

const ZERO: Lane = [0; 2];

fn permute_qwords(b: Ymm, imm: u8) -> Ymm {
    let b: [u64; 4] = bytemuck::cast(b);
    bytemuck::cast::<[u64; 4], Ymm>(std::array::from_fn(|i| b[usize::from(imm >> (2 * i) & 3)]))
}

fn permute_dwords(control: Ymm, b: Ymm) -> Ymm {
    let (control, b): ([u32; 8], [u32; 8]) = (bytemuck::cast(control), bytemuck::cast(b));
    bytemuck::cast(control.map(|i| b[i as usize & 7]))
}

/// One lane of VPERM2F128: which of the four, or zero.
fn pick_lane(a: Ymm, b: Ymm, selector: u8) -> Lane {
    match selector & 15 {
        0 => a[0],
        1 => a[1],
        2 => b[0],
        3 => b[1],
        selector if selector & 8 != 0 => ZERO,
        selector => pick_lane(a, b, selector & 3),
    }
}

/// The low element everywhere: a quadword of it, which is made by multiplication.
fn broadcast(b: Ymm, element: u64, spread: u64) -> Ymm {
    [[(b[0][0] & element).wrapping_mul(spread); 2]; 2]
}

/// As many of the low elements as fit, each widened.
#[inline(always)]
fn extend<S: Pod, const N: usize, T: Pod, const M: usize>(b: Ymm, f: impl Fn(S) -> T) -> Ymm
where
    [S; N]: Pod,
    [T; M]: Pod,
{
    let from: [S; N] = bytemuck::cast(b[0]);
    let lane = |first: usize| bytemuck::cast::<[T; M], Lane>(std::array::from_fn(|i| f(from[first + i])));
    // Where a lane takes an eighth of the source, the two take a quarter of it: no index is out of bounds.
    [lane(0), lane(M)]
}

wholes! {
    Vpermq |_, b, imm| permute_qwords(b, imm);
    Vpermd |a, b, _| permute_dwords(a, b);
    Vperm2f128 |a, b, imm| [pick_lane(a, b, imm), pick_lane(a, b, imm >> 4)];
    Vinsertf128 |a, b, imm| if imm & 1 == 0 { [b[0], a[1]] } else { [a[0], b[0]] };

    Vpbroadcastb |_, b, _| broadcast(b, 0xFF, 0x0101_0101_0101_0101);
    Vpbroadcastw |_, b, _| broadcast(b, 0xFFFF, 0x0001_0001_0001_0001);
    Vpbroadcastd |_, b, _| broadcast(b, 0xFFFF_FFFF, 0x0000_0001_0000_0001);
    Vpbroadcastq |_, b, _| [[b[0][0]; 2]; 2];
    Vbroadcastf128 |_, b, _| [b[0]; 2];

    Pmovsxbw |_, b, _| extend::<i8, 16, i16, 8>(b, i16::from);
    Pmovsxbd |_, b, _| extend::<i8, 16, i32, 4>(b, i32::from);
    Pmovsxbq |_, b, _| extend::<i8, 16, i64, 2>(b, i64::from);
    Pmovsxwd |_, b, _| extend::<i16, 8, i32, 4>(b, i32::from);
    Pmovsxwq |_, b, _| extend::<i16, 8, i64, 2>(b, i64::from);
    Pmovsxdq |_, b, _| extend::<i32, 4, i64, 2>(b, i64::from);
    Pmovzxbw |_, b, _| extend::<u8, 16, u16, 8>(b, u16::from);
    Pmovzxbd |_, b, _| extend::<u8, 16, u32, 4>(b, u32::from);
    Pmovzxbq |_, b, _| extend::<u8, 16, u64, 2>(b, u64::from);
    Pmovzxwd |_, b, _| extend::<u16, 8, u32, 4>(b, u32::from);
    Pmovzxwq |_, b, _| extend::<u16, 8, u64, 2>(b, u64::from);
    Pmovzxdq |_, b, _| extend::<u32, 4, u64, 2>(b, u64::from);
}
