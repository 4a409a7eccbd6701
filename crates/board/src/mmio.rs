//! Memory-mapped devices.

use crate::board::Board;
use crate::pci::Space;
use crate::{hpet, ioapic, testdev};

/// All ones in `size` bytes, 1 to 8: what nobody answers reads as.
pub fn all_ones(size: usize) -> u64 {
    u64::MAX >> (64 - 8 * size.clamp(1, 8))
}

impl Board {
    /// The offset in the vCPU's xAPIC page, if `gpa` is there.
    #[inline]
    pub(crate) fn xapic_offset(&self, vcpu: usize, gpa: u64) -> Option<u32> {
        (self.apics[vcpu].page()? == gpa & !0xFFF).then_some((gpa & 0xFFF) as u32)
    }

    pub(crate) fn device_read(&mut self, gpa: u64, size: usize) -> u64 {
        if let Some(offset) = offset_in(gpa, ioapic::ADDRESS, ioapic::SIZE) {
            return u64::from(self.ioapic.read(offset)) & all_ones(size);
        }
        if let Some(offset) = offset_in(gpa, hpet::ADDRESS, hpet::SIZE) {
            return self.hpet.read(offset, size, self.now_ns);
        }
        if let Some(offset) = offset_in(gpa, testdev::MEMORY_ADDRESS, testdev::MEMORY_SIZE)
            && self.devices.test_device
        {
            return self.test_device.read_memory(offset, size);
        }
        self.read_pci(Space::Memory, gpa, size).unwrap_or(u64::MAX) & all_ones(size)
    }

    pub(crate) fn device_write(&mut self, gpa: u64, size: usize, value: u64) {
        if let Some(offset) = offset_in(gpa, ioapic::ADDRESS, ioapic::SIZE) {
            let pins = self.ioapic.write(offset, value as u32);
            self.service_pins(pins);
            self.schedule_pit();
        } else if let Some(offset) = offset_in(gpa, hpet::ADDRESS, hpet::SIZE) {
            self.hpet.write(offset, size, value, self.now_ns);
            self.hpet_changed();
        } else if let Some(offset) = offset_in(gpa, testdev::MEMORY_ADDRESS, testdev::MEMORY_SIZE)
            && self.devices.test_device
        {
            self.test_device.write_memory(offset, size, value);
        } else {
            self.write_pci(Space::Memory, gpa, size, value & all_ones(size));
        }
    }
}

fn offset_in(gpa: u64, address: u64, size: u64) -> Option<u64> {
    gpa.checked_sub(address).filter(|&offset| offset < size)
}
