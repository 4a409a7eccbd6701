//! MSI-X: a table of messages in a base address register, PCI Local Bus Specification 3.0 section 6.8.2.

use super::config::ConfigSpace;

const CAPABILITY_ID: u8 = 0x11;
/// Message control, behind id and pointer.
const CONTROL: usize = 2;
const ENABLE: u16 = 1 << 15;
const FUNCTION_MASK: u16 = 1 << 14;

/// Bytes of a table entry: address, upper address, data, vector control.
const ENTRY_SIZE: u32 = 16;
const ENTRY_DATA: u32 = 8;
const ENTRY_CONTROL: u32 = 12;
const MASKED: u32 = 1;
/// Where the pending bits are; the table is at 0.
const PENDING: u32 = 0x800;
/// The most entries here: one word of pending bits.
const MAX_ENTRIES: usize = 64;

/// Bytes of the base address register.
pub const WINDOW_SIZE: u32 = 0x1000;

#[derive(Clone, Debug, Hash)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
}

impl Entry {
    const RESET: Self = Self { address: 0, data: 0, control: MASKED };

    fn is_masked(&self) -> bool {
        self.control & MASKED != 0
    }
}

/// The table, its pending bits, and what waits to be sent.
#[derive(Clone, Debug, Hash)]
pub struct Msix {
    /// Where the capability is.
    offset: usize,
    control: u16,
    entries: Vec<Entry>,
    pending: u64,
    messages: Vec<(u64, u32)>,
}

impl Msix {
    /// Add the capability for a table with `entries` in register `bar`.
    pub fn new(config: &mut ConfigSpace, entries: usize, bar: u8) -> Self {
        assert!((1..=MAX_ENTRIES).contains(&entries), "{entries} messages are not possible");
        let mut body = (entries as u16 - 1).to_le_bytes().to_vec();
        body.extend(u32::from(bar).to_le_bytes());
        body.extend((PENDING | u32::from(bar)).to_le_bytes());
        let offset = config.add_capability(CAPABILITY_ID, &body);
        config.allow(offset + CONTROL, &(ENABLE | FUNCTION_MASK).to_le_bytes());
        Self { offset, control: 0, entries: vec![Entry::RESET; entries], pending: 0, messages: Vec::new() }
    }

    pub fn reset(&mut self) {
        self.control = 0;
        self.entries.fill(Entry::RESET);
        self.pending = 0;
        self.messages.clear();
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_enabled(&self) -> bool {
        self.control & ENABLE != 0
    }

    /// Configuration space was written.
    pub fn config_written(&mut self, config: &ConfigSpace) {
        self.control = config.read(self.offset + CONTROL, 2) as u16;
        self.send_pending();
    }

    /// The device has an interrupt to signal. An entry that does not exist signals nothing.
    pub fn raise(&mut self, index: usize) {
        if self.is_enabled() && index < self.entries.len() {
            self.pending |= 1 << index;
            self.send_pending();
        }
    }

    /// Send what is pending and not masked.
    fn send_pending(&mut self) {
        if !self.is_enabled() || self.control & FUNCTION_MASK != 0 {
            return;
        }
        for (index, entry) in self.entries.iter().enumerate() {
            if self.pending & 1 << index != 0 && !entry.is_masked() {
                self.pending &= !(1 << index);
                self.messages.push((entry.address, entry.data));
            }
        }
    }

    pub fn take_messages(&mut self) -> Vec<(u64, u32)> {
        std::mem::take(&mut self.messages)
    }

    /// Read 4 or 8 bytes that are aligned; software must not read in other ways, and gets zeros.
    pub fn read(&self, offset: u32, size: usize) -> u64 {
        match size {
            4 => self.read_dword(offset).into(),
            8 => u64::from(self.read_dword(offset)) | u64::from(self.read_dword(offset + 4)) << 32,
            _ => 0,
        }
    }

    fn read_dword(&self, offset: u32) -> u32 {
        if offset >= PENDING {
            return match offset - PENDING {
                0 => self.pending as u32,
                4 => (self.pending >> 32) as u32,
                _ => 0,
            };
        }
        let Some(entry) = self.entries.get((offset / ENTRY_SIZE) as usize) else { return 0 };
        match offset % ENTRY_SIZE {
            0 => entry.address as u32,
            4 => (entry.address >> 32) as u32,
            ENTRY_DATA => entry.data,
            ENTRY_CONTROL => entry.control,
            _ => 0,
        }
    }

    /// Write, likewise.
    pub fn write(&mut self, offset: u32, size: usize, value: u64) {
        match size {
            4 => self.write_dword(offset, value as u32),
            8 => {
                self.write_dword(offset, value as u32);
                self.write_dword(offset + 4, (value >> 32) as u32);
            }
            _ => {}
        }
        self.send_pending();
    }

    fn write_dword(&mut self, offset: u32, value: u32) {
        let Some(entry) = self.entries.get_mut((offset / ENTRY_SIZE) as usize) else { return };
        match offset % ENTRY_SIZE {
            // Bits 1:0 of an address must be zero.
            0 => entry.address = entry.address & !0xFFFF_FFFF | u64::from(value & !3),
            4 => entry.address = entry.address & 0xFFFF_FFFF | u64::from(value) << 32,
            ENTRY_DATA => entry.data = value,
            ENTRY_CONTROL => entry.control = value & MASKED,
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::Identity;
    use super::*;

    fn msix(entries: usize) -> (ConfigSpace, Msix) {
        let mut config = ConfigSpace::new(Identity { vendor: 1, device: 2, class: 0, revision: 0, subsystem: (0, 0) });
        let msix = Msix::new(&mut config, entries, 1);
        (config, msix)
    }

    fn set_control(config: &mut ConfigSpace, msix: &mut Msix, control: u16) {
        config.write(msix.offset + CONTROL, 2, control.into());
        msix.config_written(config);
    }

    #[test]
    fn the_capability_tells_table_and_pending_bits() {
        let (mut config, mut msix) = msix(3);
        assert_eq!(config.read(0x40, 4), 0x0002_0011);
        assert_eq!((config.read(0x44, 4), config.read(0x48, 4)), (1, 0x801));
        set_control(&mut config, &mut msix, 0xFFFF);
        assert_eq!(config.read(0x42, 2), 0xC002, "the size cannot be written");
    }

    #[test]
    fn a_masked_message_waits() {
        let (mut config, mut msix) = msix(2);
        msix.raise(1);
        assert_eq!(msix.read(PENDING, 4), 0, "switched off, nothing is signalled");
        set_control(&mut config, &mut msix, ENABLE);
        msix.write(16, 8, 0xFEE0_1000);
        msix.write(24, 4, 0x41);
        msix.raise(1);
        msix.raise(1);
        assert_eq!((msix.read(PENDING, 4), msix.take_messages()), (2, vec![]));
        set_control(&mut config, &mut msix, ENABLE | FUNCTION_MASK);
        msix.write(28, 4, 0);
        assert!(msix.take_messages().is_empty(), "the whole function is masked");
        set_control(&mut config, &mut msix, ENABLE);
        assert_eq!(msix.take_messages(), [(0xFEE0_1000, 0x41)]);
        assert_eq!(msix.read(PENDING, 8), 0);
    }

    #[test]
    fn outside_of_the_table_there_is_nothing() {
        let (_, mut msix) = msix(1);
        for offset in (0..WINDOW_SIZE).step_by(4) {
            msix.write(offset, 8, u64::MAX);
            msix.write(offset + 1, 2, u64::MAX);
        }
        assert_eq!([0, 4, 8, 12].map(|offset| msix.read(offset, 4)), [0xFFFF_FFFC, 0xFFFF_FFFF, 0xFFFF_FFFF, 1]);
        assert_eq!((msix.read(16, 4), msix.read(WINDOW_SIZE - 4, 8), msix.read(0, 2)), (0, 0, 0));
        msix.raise(1);
        msix.raise(usize::MAX);
    }
}
