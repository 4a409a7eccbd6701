//! Where the parts of a virtio device are, and the capabilities that say so: virtio 1.2 section 4.1.4.

use super::super::config::{ConfigSpace, Identity, Space};
use super::super::msix;

/// Base address registers: the virtio structures, and the table of messages.
pub const REGISTERS_BAR: usize = 0;
pub const MSIX_BAR: usize = 1;

const REGISTERS_SIZE: u32 = 0x4000;
/// Each structure has a page of its own.
const REGION_SIZE: u32 = 0x1000;
/// Bytes between the notification addresses of two queues.
pub const NOTIFY_MULTIPLIER: u32 = 4;

const VENDOR: u16 = 0x1AF4;
/// Modern devices are numbered from here by their types.
const FIRST_DEVICE: u16 = 0x1040;
/// Subsystem of devices that QEMU makes; drivers do not look at it.
const SUBSYSTEM: u16 = 0x1100;
/// Modern devices have revision 1 or above.
const REVISION: u8 = 1;

const CAPABILITY_VENDOR: u8 = 0x09;
/// Offsets in such a capability: register, and for the window its data.
pub const CONFIG_WINDOW: usize = 4;
pub const WINDOW_OFFSET: usize = 8;
pub const WINDOW_LENGTH: usize = 12;
pub const WINDOW_DATA: usize = 16;
/// `cfg_type` of the capability that shows registers in configuration space.
const TYPE_WINDOW: u8 = 5;

/// The structures of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Region {
    Common,
    Isr,
    Device,
    Notify,
}

impl Region {
    /// In the order of their places, with their `cfg_type` and length.
    const ALL: [(Self, u8, u32); 4] =
        [(Self::Common, 1, 0x38), (Self::Isr, 3, 1), (Self::Device, 4, REGION_SIZE), (Self::Notify, 2, REGION_SIZE)];

    /// Which structure has an offset of the register, and where in it that is.
    pub fn of(offset: u32) -> Option<(Self, u32)> {
        let (region, ..) = Self::ALL.get((offset / REGION_SIZE) as usize)?;
        Some((*region, offset % REGION_SIZE))
    }
}

/// Class codes by device type; others are what no class describes.
fn class(device: u16) -> u32 {
    match device {
        2 => 0x01_8000,
        3 => 0x07_8000,
        _ => 0xFF_0000,
    }
}

/// The header of a device of that type.
pub fn config_space(device: u16) -> ConfigSpace {
    let identity = Identity {
        vendor: VENDOR,
        device: FIRST_DEVICE + device,
        class: class(device),
        revision: REVISION,
        subsystem: (VENDOR, SUBSYSTEM),
    };
    ConfigSpace::new(identity)
        .with_bar(REGISTERS_BAR, Space::Memory, REGISTERS_SIZE)
        .with_bar(MSIX_BAR, Space::Memory, msix::WINDOW_SIZE)
        .with_pin(1)
}

/// Add the capabilities that say where the structures are; returns where the window's is.
pub fn add_capabilities(config: &mut ConfigSpace) -> usize {
    for (page, (region, kind, length)) in (0..).zip(Region::ALL) {
        let multiplier = if region == Region::Notify { &NOTIFY_MULTIPLIER.to_le_bytes()[..] } else { &[] };
        add_capability(config, kind, page * REGION_SIZE, length, multiplier);
    }
    let window = add_capability(config, TYPE_WINDOW, 0, 0, &[0; 4]);
    // Software says what to look at, and the data pass through.
    config.allow(window + CONFIG_WINDOW, &[0xFF]);
    config.allow(window + WINDOW_OFFSET, &[0xFF; 12]);
    window
}

/// `struct virtio_pci_cap`: length, type, register, padding, offset, length, and what a type has more.
fn add_capability(config: &mut ConfigSpace, kind: u8, offset: u32, length: u32, more: &[u8]) -> usize {
    let mut body = vec![16 + more.len() as u8, kind, REGISTERS_BAR as u8, 0, 0, 0];
    body.extend(offset.to_le_bytes());
    body.extend(length.to_le_bytes());
    body.extend(more);
    config.add_capability(CAPABILITY_VENDOR, &body)
}
