//! One lane of 128 bits, and its views as elements.

use bytemuck::Pod;

/// Two quadwords, the low one first.
pub type Lane = [u64; 2];

/// Apply a function to each pair of elements.
#[inline(always)]
pub fn zip<T: Pod, const N: usize>(a: Lane, b: Lane, f: impl Fn(T, T) -> T) -> Lane
where
    [T; N]: Pod,
{
    let (a, b): ([T; N], [T; N]) = (bytemuck::cast(a), bytemuck::cast(b));
    bytemuck::cast::<[T; N], Lane>(std::array::from_fn(|i| f(a[i], b[i])))
}

// Views of a lane as elements rely on the order of bytes.
#[cfg(target_endian = "big")]
compile_error!("the software CPU needs a little-endian computer");
