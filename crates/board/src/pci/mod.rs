//! The PCI bus and what is on it: one bus behind an i440FX host bridge, as in QEMU's machine `pc`, reached by configuration
//! mechanism 1. PCI Local Bus Specification 3.0.
//!
//! [`Pci`] finds the function that an access means. A [`Function`] is its configuration space and a [`Device`], which is
//! what lies behind its base address registers. What a function wants (its line, messages, to be called later) is collected
//! after each access by [`crate::board::Board`], which knows where interrupts go.

mod access;
mod assign;
mod bus;
mod chipset;
mod config;
mod function;
mod host_bridge;
mod msi;
mod msix;
mod testdev;
mod virtio;
mod virtio_host;

pub use access::is_within_data;
pub use bus::{ADDRESS, DATA, DATA_LAST, Pci};
pub use config::Space;

/// Offsets in the header of configuration space (type 0).
mod offset {
    pub const COMMAND: usize = 0x04;
    pub const STATUS: usize = 0x06;
    pub const REVISION: usize = 0x08;
    pub const CLASS: usize = 0x09;
    pub const HEADER_TYPE: usize = 0x0E;
    pub const BAR0: usize = 0x10;
    pub const SUBSYSTEM: usize = 0x2C;
    pub const CAPABILITIES: usize = 0x34;
    pub const INTERRUPT_LINE: usize = 0x3C;
    pub const INTERRUPT_PIN: usize = 0x3D;
}
