//! One lane of 128 bits, and its views as elements.

use bytemuck::Pod;

/// Two quadwords, the low one first.
pub type Lane = [u64; 2];

/// A lane as elements, the lowest first.
#[inline(always)]
pub fn elements<T: Pod, const N: usize>(lane: Lane) -> [T; N]
where
    [T; N]: Pod,
{
    bytemuck::cast(lane)
}

/// A lane of elements.
#[inline(always)]
pub fn lane<T: Pod, const N: usize>(elements: [T; N]) -> Lane
where
    [T; N]: Pod,
{
    bytemuck::cast(elements)
}

/// Apply a function to each pair of elements.
#[inline(always)]
pub fn zip<T: Pod, const N: usize>(a: Lane, b: Lane, f: impl Fn(T, T) -> T) -> Lane
where
    [T; N]: Pod,
{
    let (a, b): ([T; N], [T; N]) = (elements(a), elements(b));
    lane::<T, N>(std::array::from_fn(|i| f(a[i], b[i])))
}

/// Apply a function to each element.
#[inline(always)]
pub fn map<T: Pod, const N: usize>(a: Lane, f: impl Fn(T) -> T) -> Lane
where
    [T; N]: Pod,
{
    lane::<T, N>(elements::<T, N>(a).map(f))
}

/// Apply a function to each two neighbours of `a` and `b`: results of `a` are in the low half.
#[inline(always)]
pub fn horizontal<T: Pod, const N: usize>(a: Lane, b: Lane, f: impl Fn(T, T) -> T) -> Lane
where
    [T; N]: Pod,
{
    let (a, b): ([T; N], [T; N]) = (elements(a), elements(b));
    lane::<T, N>(std::array::from_fn(|i| {
        let (from, i) = if i < N / 2 { (&a, 2 * i) } else { (&b, 2 * i - N) };
        f(from[i], from[i + 1])
    }))
}

/// Elements of `a` and `b` in turn, from their low halves, or from their high halves if `HIGH`.
#[inline(always)]
pub fn interleave<T: Pod, const N: usize, const HIGH: bool>(a: Lane, b: Lane) -> Lane
where
    [T; N]: Pod,
{
    let (a, b): ([T; N], [T; N]) = (elements(a), elements(b));
    let first = if HIGH { N / 2 } else { 0 };
    lane::<T, N>(std::array::from_fn(|i| if i % 2 == 0 { a[first + i / 2] } else { b[first + i / 2] }))
}

/// Pack the elements of `a`, then those of `b`, into elements of half the width.
#[inline(always)]
pub fn pack<S: Pod, const N: usize, T: Pod, const M: usize>(a: Lane, b: Lane, f: impl Fn(S) -> T) -> Lane
where
    [S; N]: Pod,
    [T; M]: Pod,
{
    let (a, b): ([S; N], [S; N]) = (elements(a), elements(b));
    lane::<T, M>(std::array::from_fn(|i| f(if i < N { a[i] } else { b[i - N] })))
}

/// From each element of `b` if its bit in `mask` is set, else of `a`.
#[inline(always)]
pub fn blend<T: Pod, const N: usize>(a: Lane, b: Lane, mask: u8) -> Lane
where
    [T; N]: Pod,
{
    let (a, b): ([T; N], [T; N]) = (elements(a), elements(b));
    lane::<T, N>(std::array::from_fn(|i| if mask >> (i % 8) & 1 != 0 { b[i] } else { a[i] }))
}

/// The lane as one number.
#[inline(always)]
pub fn to_u128(lane: Lane) -> u128 {
    u128::from(lane[0]) | u128::from(lane[1]) << 64
}

/// The lane of one number.
#[inline(always)]
pub fn from_u128(value: u128) -> Lane {
    [value as u64, (value >> 64) as u64]
}

// Views of a lane as elements rely on the order of bytes.
#[cfg(target_endian = "big")]
compile_error!("the software CPU needs a little-endian computer");
