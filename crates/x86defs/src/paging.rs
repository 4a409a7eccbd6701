//! Page table entries and page-fault error codes, SDM vol. 3 chapter 4.

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;
/// Offset within a page.
pub const PAGE_MASK: u64 = PAGE_SIZE - 1;

/// Present.
pub const PTE_P: u64 = 1 << 0;
/// Writable.
pub const PTE_W: u64 = 1 << 1;
/// User.
pub const PTE_U: u64 = 1 << 2;
/// Accessed.
pub const PTE_A: u64 = 1 << 5;
/// Dirty.
pub const PTE_D: u64 = 1 << 6;
/// Page size: this entry maps a large page.
pub const PTE_PS: u64 = 1 << 7;
/// Global.
pub const PTE_G: u64 = 1 << 8;
/// Position of the protection key.
pub const PTE_PKEY_SHIFT: u32 = 59;
/// No execute.
pub const PTE_NX: u64 = 1 << 63;

/// #PF error code: protection violation, not a missing page.
pub const PF_P: u32 = 1 << 0;
/// #PF error code: write.
pub const PF_W: u32 = 1 << 1;
/// #PF error code: user access.
pub const PF_U: u32 = 1 << 2;
/// #PF error code: reserved bit set.
pub const PF_RSVD: u32 = 1 << 3;
/// #PF error code: instruction fetch.
pub const PF_I: u32 = 1 << 4;
/// #PF error code: protection key.
pub const PF_PK: u32 = 1 << 5;
