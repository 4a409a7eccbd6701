//! Integer arithmetic on packed elements.

use super::lane::zip;
use super::lanewise::kernels;

kernels! {
    AddBytes |a, b, _| zip::<u8, 16>(a, b, u8::wrapping_add);
    AddWords |a, b, _| zip::<u16, 8>(a, b, u16::wrapping_add);
    AddDwords |a, b, _| zip::<u32, 4>(a, b, u32::wrapping_add);
    AddQwords |a, b, _| zip::<u64, 2>(a, b, u64::wrapping_add);
}
