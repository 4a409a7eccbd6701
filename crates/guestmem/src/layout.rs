//! Where RAM lies in guest-physical space.

/// End (exclusive) of RAM below 4 GiB; from here to [`HIGH_RAM_BASE`] is the hole for devices.
pub const LOW_RAM_END: u64 = 0xC000_0000;
/// Where RAM that does not fit below the hole goes on.
pub const HIGH_RAM_BASE: u64 = 1 << 32;
/// The most RAM a machine may have, in bytes: 1 TiB.
pub const MAX_RAM_SIZE: u64 = 1 << 40;
