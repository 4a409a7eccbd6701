//! One function's configuration space: a type 0 header with its base address registers, and a list of capabilities. PCI Local
//! Bus Specification 3.0 chapter 6.

use super::offset::{BAR0, CAPABILITIES, CLASS, COMMAND, INTERRUPT_LINE, INTERRUPT_PIN, REVISION, STATUS, SUBSYSTEM};

/// Bytes of configuration space.
pub const CONFIG_SIZE: usize = 256;
/// Base address registers of a type 0 header.
pub const BARS: usize = 6;

/// Command: answers accesses to its I/O, and to its memory space.
pub const COMMAND_IO: u16 = 1 << 0;
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: may reach RAM, and send messages.
pub const COMMAND_MASTER: u16 = 1 << 2;
/// Command: does not drive its INTx line.
pub const COMMAND_INTX_OFF: u16 = 1 << 10;
/// Command bits that exist: the above, and SERR#.
const COMMAND_BITS: u16 = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_INTX_OFF | 1 << 8;

/// Status: the function asks for its INTx line, whether or not it may drive it.
const STATUS_INTX: u16 = 1 << 3;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Status: medium DEVSEL# timing.
const STATUS_MEDIUM: u16 = 1 << 9;

/// Where the list of capabilities begins, and the end of each is rounded to.
const FIRST_CAPABILITY: usize = 0x40;

/// Low bit of a base address register: I/O space.
const BAR_IO: u32 = 1;

/// The two spaces in which a function has registers.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Space {
    Io,
    /// 32-bit addresses, not prefetchable: all that the devices here need.
    Memory,
}

/// A base address register: what it is for, and how many bytes (a power of two) it decodes.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub struct Bar {
    pub space: Space,
    pub size: u32,
}

/// What a function is.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    /// Class, subclass and programming interface.
    pub class: u32,
    pub revision: u8,
    /// Subsystem vendor and subsystem.
    pub subsystem: (u16, u16),
}

/// Configuration space as software sees it.
#[derive(Clone, Debug, Hash)]
pub struct ConfigSpace {
    bytes: [u8; CONFIG_SIZE],
    /// Which bits software may change.
    writable: [u8; CONFIG_SIZE],
    bars: [Option<Bar>; BARS],
    /// Where the next capability goes, and which byte points to it.
    next_capability: usize,
    last_pointer: usize,
}

impl ConfigSpace {
    pub fn new(identity: Identity) -> Self {
        let mut space = Self {
            bytes: [0; CONFIG_SIZE],
            writable: [0; CONFIG_SIZE],
            bars: [None; BARS],
            next_capability: FIRST_CAPABILITY,
            last_pointer: CAPABILITIES,
        };
        space.put(0, &identity.vendor.to_le_bytes());
        space.put(2, &identity.device.to_le_bytes());
        space.put(REVISION, &[identity.revision]);
        space.put(CLASS, &identity.class.to_le_bytes()[..3]);
        space.put(SUBSYSTEM, &identity.subsystem.0.to_le_bytes());
        space.put(SUBSYSTEM + 2, &identity.subsystem.1.to_le_bytes());
        space.put(STATUS, &STATUS_MEDIUM.to_le_bytes());
        space.allow(COMMAND, &COMMAND_BITS.to_le_bytes());
        space.allow(INTERRUPT_LINE, &[0xFF]);
        space
    }

    // -- making it

    /// Add a base address register.
    pub fn with_bar(mut self, index: usize, space: Space, size: u32) -> Self {
        debug_assert!(size.is_power_of_two() && size >= 16, "{size:#x} bytes cannot be decoded");
        self.bars[index] = Some(Bar { space, size });
        let flags = if space == Space::Io { BAR_IO } else { 0 };
        self.put(bar_offset(index), &flags.to_le_bytes());
        // Writing all ones and reading back shows the size: the bits below it cannot be changed.
        self.allow(bar_offset(index), &(!(size - 1)).to_le_bytes());
        self
    }

    /// Say which INTx pin the function has: 1 for INTA#.
    pub fn with_pin(mut self, pin: u8) -> Self {
        self.bytes[INTERRUPT_PIN] = pin;
        self
    }

    /// Say that functions 1 to 7 of the slot are worth looking for.
    pub fn multifunction(mut self) -> Self {
        self.bytes[super::offset::HEADER_TYPE] |= 0x80;
        self
    }

    /// Add a capability: its id and what follows the pointer to the next one. Returns where it is.
    pub fn add_capability(&mut self, id: u8, body: &[u8]) -> usize {
        let offset = self.next_capability;
        self.bytes[self.last_pointer] = offset as u8;
        self.put(offset, &[id, 0]);
        self.put(offset + 2, body);
        self.last_pointer = offset + 1;
        self.next_capability = (offset + 2 + body.len()).next_multiple_of(4);
        self.set_status(STATUS_CAPABILITIES, true);
        offset
    }

    /// Set bytes, whatever software may write.
    pub fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    /// Let software change these bits.
    pub fn allow(&mut self, offset: usize, bits: &[u8]) {
        self.writable[offset..offset + bits.len()].copy_from_slice(bits);
    }

    // -- software's accesses

    /// Read `size` bytes, 1 to 4. Beyond the end there are zeros.
    pub fn read(&self, offset: usize, size: usize) -> u32 {
        (0..size).rev().fold(0, |value, index| value << 8 | u32::from(self.byte(offset + index)))
    }

    /// Write `size` bytes, 1 to 4: the bits that may be changed.
    pub fn write(&mut self, offset: usize, size: usize, value: u32) {
        for (offset, value) in (offset..CONFIG_SIZE).zip(value.to_le_bytes().into_iter().take(size)) {
            let writable = self.writable[offset];
            self.bytes[offset] = self.bytes[offset] & !writable | value & writable;
        }
    }

    pub fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(offset).copied().unwrap_or(0)
    }

    fn word(&self, offset: usize) -> u16 {
        u16::from_le_bytes([self.byte(offset), self.byte(offset + 1)])
    }

    // -- what it says

    /// Whether a bit of the command register is set.
    pub fn has_command(&self, bit: u16) -> bool {
        self.word(COMMAND) & bit != 0
    }

    pub fn set_command(&mut self, bits: u16) {
        self.put(COMMAND, &(bits & COMMAND_BITS).to_le_bytes());
    }

    /// The function's INTx line, as its status register shows it.
    pub fn set_intx_status(&mut self, level: bool) {
        self.set_status(STATUS_INTX, level);
    }

    fn set_status(&mut self, bit: u16, on: bool) {
        let status = self.word(STATUS);
        self.put(STATUS, &if on { status | bit } else { status & !bit }.to_le_bytes());
    }

    pub fn bar(&self, index: usize) -> Option<Bar> {
        self.bars.get(index).copied().flatten()
    }

    /// Give a base address register its address.
    pub fn set_bar_address(&mut self, index: usize, address: u32) {
        self.write(bar_offset(index), 4, address);
    }

    /// The address that a base address register decodes: `None` if that is switched off, or nobody has set it.
    pub fn decoded(&self, index: usize) -> Option<u32> {
        let bar = self.bar(index)?;
        let (command, flags) = match bar.space {
            Space::Io => (COMMAND_IO, 0x3),
            Space::Memory => (COMMAND_MEMORY, 0xF),
        };
        let address = self.read(bar_offset(index), 4) & !flags;
        (self.has_command(command) && address != 0).then_some(address)
    }
}

fn bar_offset(index: usize) -> usize {
    BAR0 + 4 * index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space() -> ConfigSpace {
        let identity = Identity { vendor: 0x1234, device: 0x5678, class: 0x01_0203, revision: 4, subsystem: (5, 6) };
        ConfigSpace::new(identity).with_bar(0, Space::Memory, 0x1000).with_bar(1, Space::Io, 0x100)
    }

    #[test]
    fn the_header_says_what_the_function_is() {
        let space = space();
        assert_eq!(space.read(0, 4), 0x5678_1234);
        assert_eq!(space.read(8, 4), 0x0102_0304);
        assert_eq!(space.read(0x2C, 4), 0x0006_0005);
        assert_eq!(space.read(0xFE, 4), 0, "beyond the end");
    }

    #[test]
    fn base_addresses_show_their_size_and_can_be_moved() {
        let mut space = space();
        for (offset, sized) in [(0x10, 0xFFFF_F000), (0x14, 0xFFFF_FF01), (0x18, 0)] {
            space.write(offset, 4, u32::MAX);
            assert_eq!(space.read(offset, 4), sized);
        }
        space.set_bar_address(0, 0xE000_0000);
        assert_eq!(space.decoded(0), None, "decoding is off");
        space.write(4, 2, u32::from(COMMAND_MEMORY));
        assert_eq!((space.decoded(0), space.decoded(1)), (Some(0xE000_0000), None));
        space.set_bar_address(0, 0);
        assert_eq!(space.decoded(0), None);
    }

    #[test]
    fn capabilities_are_a_list_that_ends() {
        let mut space = space();
        assert_eq!(space.add_capability(0x11, &[1, 2, 3]), 0x40);
        assert_eq!(space.add_capability(0x09, &[4; 14]), 0x48);
        assert_eq!(space.read(6, 2) & 0x10, 0x10);
        assert_eq!([0x34, 0x40, 0x41, 0x48, 0x49].map(|at| space.byte(at)), [0x40, 0x11, 0x48, 0x09, 0]);
    }

    #[test]
    fn identity_and_reserved_bits_cannot_be_written() {
        let mut space = space();
        let before = space.read(0, 4);
        for offset in 0..CONFIG_SIZE {
            space.write(offset, 4, u32::MAX);
        }
        assert_eq!(space.read(0, 4), before);
        assert_eq!(space.read(4, 2), u32::from(COMMAND_BITS));
    }
}
