//! Where things are, in the process and in the guest alike. All of it lies below 2 GiB, so that 32-bit code and absolute
//! addresses reach it.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// First byte that generated code may use as data: two pages to write to, then a read-only one; nothing around them.
pub const SCRATCH: u64 = 0x1000_0000;
/// Bytes that can be written.
pub const WRITABLE: usize = 2 * PAGE as usize;
/// Bytes that can be read.
pub const READABLE: usize = 3 * PAGE as usize;
/// Around the scratch area so much is reserved without rights: where repeated string instructions end, and displacements err.
pub const GUARD: u64 = 1 << 20;
/// Generated code: two pages, so that it can cross from one to the next. What is behind the code differs on the two sides, so no
/// address that a gather makes of the scratch area's and a power of two is here, either.
pub const CODE: u64 = 0x2A5B_4000;
/// Bytes of it.
pub const CODE_SIZE: usize = 2 * PAGE as usize;
/// What the native side loads and stores state with; unknown to the guest. No address that a gather makes of the scratch area's and
/// a power of two.
pub const CONTEXT: u64 = 0x35A3_7000;
/// GS base in 64-bit mode, so that segment overrides have something to do.
pub const GS_BASE: u64 = SCRATCH + 0x40;

/// Selectors as 64-bit Linux has them in user mode.
pub mod selector {
    /// CS of 64-bit code.
    pub const CODE64: u16 = 0x33;
    /// CS of 32-bit code.
    pub const CODE32: u16 = 0x23;
    /// Data.
    pub const DATA: u16 = 0x2B;
}
