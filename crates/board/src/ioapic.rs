//! The I/O APIC: 24 pins, Intel 82093AA data sheet with the EOI register of later parts (version 0x20).

use crate::lapic::{DeliveryMode, Destination, Message};

/// Pins of the I/O APIC, and so the number of global system interrupts.
pub const PINS: usize = 24;
/// Guest-physical address of the register page.
pub const ADDRESS: u64 = 0xFEC0_0000;
/// Bytes of the register page.
pub const SIZE: u64 = 0x1000;

/// Memory-mapped: index of the register that the window shows.
const IOREGSEL: u64 = 0x00;
/// Memory-mapped: the window.
const IOWIN: u64 = 0x10;
/// Memory-mapped: end of the interrupt with the vector that is written.
const EOI: u64 = 0x40;

const INDEX_ID: u8 = 0x00;
const INDEX_VERSION: u8 = 0x01;
const INDEX_ARBITRATION: u8 = 0x02;
const INDEX_REDIRECTION: u8 = 0x10;
const INDEX_REDIRECTION_LAST: u8 = INDEX_REDIRECTION + 2 * PINS as u8 - 1;

/// Highest pin, and a version with an EOI register.
const VERSION_VALUE: u32 = (PINS as u32 - 1) << 16 | 0x20;

const DELIVERY_STATUS: u64 = 1 << 12;
const REMOTE_IRR: u64 = 1 << 14;
const LEVEL: u64 = 1 << 15;
const MASKED: u64 = 1 << 16;
const LOGICAL: u64 = 1 << 11;
/// What software may write of an entry.
const WRITABLE: u64 = (0xFF << 56 | 0x1_FFFF) & !(DELIVERY_STATUS | REMOTE_IRR);

/// A redirection table entry, as the registers show it.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    fn mode(self) -> DeliveryMode {
        DeliveryMode::from_bits((self.0 >> 8) as u32)
    }

    fn is_masked(self) -> bool {
        self.0 & MASKED != 0
    }

    /// Only interrupts with a vector can be level-triggered; the other modes are edges whatever bit 15 says.
    fn is_level(self) -> bool {
        self.0 & LEVEL != 0 && self.mode().has_vector()
    }

    fn awaits_eoi(self) -> bool {
        self.0 & REMOTE_IRR != 0
    }

    fn message(self) -> Message {
        Message {
            destination: Destination::narrow((self.0 >> 56) as u8, self.0 & LOGICAL != 0),
            mode: self.mode(),
            vector: self.0 as u8,
            level_triggered: self.is_level(),
        }
    }
}

/// State of the I/O APIC.
#[derive(Clone, Debug, Hash)]
pub struct IoApic {
    select: u8,
    /// Bits 27:24 of the ID register.
    id: u8,
    entries: [Entry; PINS],
    /// Levels of the pins.
    lines: u32,
}

/// Pins on which something changed that may let an interrupt go out: one bit each.
pub type PinSet = u32;

impl IoApic {
    pub fn new() -> Self {
        Self { select: 0, id: 0, entries: [Entry(MASKED); PINS], lines: 0 }
    }

    /// RESET. The lines belong to the devices.
    pub fn reset(&mut self) {
        *self = Self { lines: self.lines, ..Self::new() };
    }

    /// A pin changes its level. Returns the message of an edge, or of a level that waits for no EOI.
    pub fn set_line(&mut self, pin: usize, level: bool) -> Option<Message> {
        let bit = 1 << pin;
        let rises = level && self.lines & bit == 0;
        if level {
            self.lines |= bit
        } else {
            self.lines &= !bit
        }
        let entry = *self.entries.get(pin)?;
        if entry.is_level() {
            return self.level_message(pin);
        }
        // An edge on a masked pin is lost (82093AA section 3.2.4, bit 16).
        (rises && !entry.is_masked()).then(|| entry.message())
    }

    /// The message that the level of a pin asks for.
    pub fn level_message(&self, pin: usize) -> Option<Message> {
        let entry = *self.entries.get(pin)?;
        let asserted = self.lines & 1 << pin != 0;
        (entry.is_level() && asserted && !entry.is_masked() && !entry.awaits_eoi()).then(|| entry.message())
    }

    /// Some local APIC has accepted the message of a pin.
    pub fn accepted(&mut self, pin: usize) {
        if let Some(entry) = self.entries.get_mut(pin)
            && entry.is_level()
        {
            entry.0 |= REMOTE_IRR;
        }
    }

    /// Whether an edge on the pin goes anywhere.
    pub fn is_open(&self, pin: usize) -> bool {
        self.entries.get(pin).is_some_and(|entry| !entry.is_masked())
    }

    /// Whether some pin sends this vector level-triggered.
    pub fn has_level_vector(&self, vector: u8) -> bool {
        self.entries.iter().any(|entry| entry.is_level() && entry.0 as u8 == vector)
    }

    /// The interrupt with this vector has been handled. Returns the pins to look at again.
    pub fn end_of_interrupt(&mut self, vector: u8) -> PinSet {
        let mut pins = 0;
        for (pin, entry) in self.entries.iter_mut().enumerate() {
            if entry.awaits_eoi() && entry.0 as u8 == vector {
                entry.0 &= !REMOTE_IRR;
                pins |= 1 << pin;
            }
        }
        pins
    }

    /// Read from the register page.
    pub fn read(&self, offset: u64) -> u32 {
        match offset {
            IOREGSEL => u32::from(self.select),
            IOWIN => self.read_selected(),
            _ => 0,
        }
    }

    fn read_selected(&self) -> u32 {
        match self.select {
            INDEX_ID | INDEX_ARBITRATION => u32::from(self.id) << 24,
            INDEX_VERSION => VERSION_VALUE,
            INDEX_REDIRECTION..=INDEX_REDIRECTION_LAST => {
                let index = self.select - INDEX_REDIRECTION;
                (self.entries[usize::from(index / 2)].0 >> (index % 2 * 32)) as u32
            }
            _ => 0,
        }
    }

    /// Write to the register page. Returns the pins to look at again.
    pub fn write(&mut self, offset: u64, value: u32) -> PinSet {
        match offset {
            IOREGSEL => self.select = value as u8,
            IOWIN => return self.write_selected(value),
            EOI => return self.end_of_interrupt(value as u8),
            _ => {}
        }
        0
    }

    fn write_selected(&mut self, value: u32) -> PinSet {
        match self.select {
            INDEX_ID => self.id = (value >> 24 & 0xF) as u8,
            INDEX_REDIRECTION..=INDEX_REDIRECTION_LAST => {
                let index = self.select - INDEX_REDIRECTION;
                let pin = usize::from(index / 2);
                let shift = index % 2 * 32;
                let writable = WRITABLE & 0xFFFF_FFFF << shift;
                let entry = &mut self.entries[pin];
                entry.0 = entry.0 & !writable | u64::from(value) << shift & writable;
                // Kernels for parts without EOI register clear remote IRR by switching to edge and back.
                if !entry.is_level() {
                    entry.0 &= !REMOTE_IRR;
                }
                return 1 << pin;
            }
            _ => {}
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_entry(pin: u8, value: u64) -> IoApic {
        let mut ioapic = IoApic::new();
        program(&mut ioapic, pin, value);
        ioapic
    }

    fn program(ioapic: &mut IoApic, pin: u8, value: u64) -> PinSet {
        ioapic.write(IOREGSEL, u32::from(INDEX_REDIRECTION + 2 * pin + 1));
        ioapic.write(IOWIN, (value >> 32) as u32);
        ioapic.write(IOREGSEL, u32::from(INDEX_REDIRECTION + 2 * pin));
        ioapic.write(IOWIN, value as u32)
    }

    fn entry(ioapic: &mut IoApic, pin: u8) -> u32 {
        ioapic.write(IOREGSEL, u32::from(INDEX_REDIRECTION + 2 * pin));
        ioapic.read(IOWIN)
    }

    #[test]
    fn an_edge_goes_out_once_and_a_masked_one_is_lost() {
        let mut ioapic = with_entry(3, 0x55);
        assert_eq!(ioapic.set_line(3, true).map(|message| message.vector), Some(0x55));
        assert_eq!(ioapic.set_line(3, true), None);
        ioapic.set_line(3, false);
        program(&mut ioapic, 3, MASKED | 0x55);
        assert_eq!(ioapic.set_line(3, true), None);
        program(&mut ioapic, 3, 0x55);
        assert_eq!(ioapic.level_message(3), None);
    }

    #[test]
    fn a_level_goes_out_again_after_eoi_while_the_line_is_high() {
        let mut ioapic = with_entry(4, LEVEL | 0x60);
        assert!(ioapic.set_line(4, true).is_some());
        ioapic.accepted(4);
        assert_ne!(u64::from(entry(&mut ioapic, 4)) & REMOTE_IRR, 0);
        assert_eq!(ioapic.set_line(4, true), None);
        assert_eq!(ioapic.end_of_interrupt(0x61), 0);
        assert_eq!(ioapic.end_of_interrupt(0x60), 1 << 4);
        assert!(ioapic.level_message(4).is_some());
        ioapic.set_line(4, false);
        assert_eq!(ioapic.level_message(4), None);
    }

    #[test]
    fn unmasking_an_asserted_level_sends_it() {
        let mut ioapic = with_entry(5, LEVEL | MASKED | 0x60);
        assert_eq!(ioapic.set_line(5, true), None);
        assert_eq!(program(&mut ioapic, 5, LEVEL | 0x60), 1 << 5);
        assert!(ioapic.level_message(5).is_some());
    }

    #[test]
    fn the_eoi_register_ends_an_interrupt() {
        let mut ioapic = with_entry(5, LEVEL | 0x60);
        ioapic.set_line(5, true);
        ioapic.accepted(5);
        assert_eq!(ioapic.write(EOI, 0x60), 1 << 5);
    }

    #[test]
    fn switching_to_edge_clears_remote_irr() {
        let mut ioapic = with_entry(5, LEVEL | 0x60);
        ioapic.set_line(5, true);
        ioapic.accepted(5);
        program(&mut ioapic, 5, 0x60);
        program(&mut ioapic, 5, LEVEL | 0x60);
        assert!(ioapic.level_message(5).is_some());
    }

    #[test]
    fn read_only_bits_stay() {
        let mut ioapic = with_entry(0, u64::MAX);
        assert_eq!(u64::from(entry(&mut ioapic, 0)) & (DELIVERY_STATUS | REMOTE_IRR), 0);
        ioapic.write(IOREGSEL, u32::from(INDEX_VERSION));
        ioapic.write(IOWIN, 0);
        assert_eq!(ioapic.read(IOWIN), VERSION_VALUE);
        ioapic.write(IOREGSEL, u32::from(INDEX_ID));
        ioapic.write(IOWIN, u32::MAX);
        assert_eq!(ioapic.read(IOWIN), 0x0F00_0000);
        ioapic.write(IOREGSEL, u32::from(INDEX_ARBITRATION));
        assert_eq!(ioapic.read(IOWIN), 0x0F00_0000);
    }

    #[test]
    fn registers_that_do_not_exist_read_as_zero() {
        let mut ioapic = IoApic::new();
        for index in (0x40..=0xFF).chain([3, 0xF]) {
            ioapic.write(IOREGSEL, index);
            ioapic.write(IOWIN, u32::MAX);
            assert_eq!(ioapic.read(IOWIN), 0);
        }
    }
}
