//! What can go wrong with guest memory.

/// Why guest memory could not be made or reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The size is zero, not a multiple of the page size, or above the limit.
    #[error("guest memory of {size:#x} bytes is not possible: a multiple of 4096 up to {max:#x} is needed")]
    Size {
        /// Bytes asked for.
        size: u64,
        /// The largest possible size in bytes.
        max: u64,
    },
    /// The host refuses the mapping.
    #[error("the host cannot map {size:#x} bytes of guest memory: {source}")]
    Map {
        /// Bytes asked for.
        size: u64,
        /// The host's reason.
        source: vm_memory::mmap::MmapRegionError,
    },
    /// A firmware image is too large, or no multiple of the page size.
    #[error("a firmware image of {size:#x} bytes is not possible: a multiple of 4096 up to {max:#x} is needed")]
    RomSize {
        /// Bytes of the image.
        size: u64,
        /// The largest possible size in bytes.
        max: u64,
    },
    /// Some byte of the range is not RAM, or is to be written and can only be read.
    #[error("guest-physical range {gpa:#x}+{len:#x} is not RAM")]
    NotRam {
        /// First byte.
        gpa: u64,
        /// Length in bytes.
        len: u64,
    },
}
