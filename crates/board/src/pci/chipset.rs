//! The chipset's own functions: Intel 440FX's host bridge (data sheet 290549), and PIIX3 and PIIX4 beside it (290550, 290562).
//! What software finds in them is here; the devices that they stand for (8259s, 8254, power management) are the board's.

use super::config::{ConfigSpace, Identity};
use super::host_bridge::{PAM, PAM_WRITABLE};

pub const HOST_BRIDGE_DEVFN: u8 = 0x00;
pub const ISA_BRIDGE_DEVFN: u8 = 0x08;
pub const POWER_DEVFN: u8 = 0x0B;

const INTEL: u16 = 0x8086;

/// ISA bridge: PIRQ route control, one byte for each of PIRQA# to PIRQD#.
pub const PIRQ_ROUTE: usize = 0x60;
/// Route control: the line goes nowhere.
pub const PIRQ_OFF: u8 = 1 << 7;
/// Route control: bits that exist.
const PIRQ_BITS: u8 = PIRQ_OFF | 0x0F;

/// Power management: base of the I/O block, and what switches it on.
const POWER_BASE: usize = 0x40;
const POWER_ENABLE: usize = 0x80;

/// Device B: what is trapped. A system management interrupt for writes to port 0xB2 is enabled already, which tells firmware that
/// somebody has set system management mode up, and there is none.
const DEVICE_B: usize = 0x58;
const APM_ENABLE: u32 = 1 << 25;

pub fn host_bridge() -> ConfigSpace {
    let mut space =
        ConfigSpace::new(Identity { vendor: INTEL, device: 0x1237, class: 0x06_0000, revision: 2, subsystem: (0, 0) });
    space.allow(PAM, &PAM_WRITABLE);
    space
}

pub fn isa_bridge() -> ConfigSpace {
    let mut space =
        ConfigSpace::new(Identity { vendor: INTEL, device: 0x7000, class: 0x06_0100, revision: 0, subsystem: (0, 0) })
            .multifunction();
    space.put(PIRQ_ROUTE, &[PIRQ_OFF; 4]);
    space.allow(PIRQ_ROUTE, &[PIRQ_BITS; 4]);
    space
}

/// The block stays where the board has it, so its base can be read and not written.
pub fn power_management() -> ConfigSpace {
    let mut space =
        ConfigSpace::new(Identity { vendor: INTEL, device: 0x7113, class: 0x06_8000, revision: 3, subsystem: (0, 0) })
            .with_pin(1);
    space.put(POWER_BASE, &(u32::from(crate::acpi_pm::FIRST_PORT) | 1).to_le_bytes());
    space.put(POWER_ENABLE, &[1]);
    space.put(DEVICE_B, &APM_ENABLE.to_le_bytes());
    space
}
