//! The test device of kvm-unit-tests (`pc-testdev`): a latch, interrupt lines, memory that is a device.

/// A latch of four bytes: it reads as what was written last.
pub const LATCH_FIRST_PORT: u16 = 0xE0;
pub const LATCH_LAST_PORT: u16 = 0xE3;
/// A latch of one byte.
pub const BYTE_LATCH_PORT: u16 = 0xE8;
/// One port for each global system interrupt: its level.
pub const LINE_FIRST_PORT: u16 = 0x2000;
pub const LINE_LAST_PORT: u16 = LINE_FIRST_PORT + crate::ioapic::PINS as u16 - 1;
/// Memory that is reached as a device.
pub const MEMORY_ADDRESS: u64 = 0xFF00_0000;
/// Bytes of it.
pub const MEMORY_SIZE: u64 = 0x10000;

/// The device's state but for the lines, which the board holds.
#[derive(Clone, Debug, Hash)]
pub struct TestDevice {
    latch: [u8; 4],
    byte_latch: u8,
    memory: Box<[u8]>,
}

impl TestDevice {
    pub fn new() -> Self {
        Self { latch: [0; 4], byte_latch: 0, memory: vec![0; MEMORY_SIZE as usize].into_boxed_slice() }
    }

    pub fn read_latch(&self, port: u16) -> u8 {
        self.latch[usize::from(port & 3)]
    }

    pub fn write_latch(&mut self, port: u16, value: u8) {
        self.latch[usize::from(port & 3)] = value;
    }

    pub fn byte_latch(&self) -> u8 {
        self.byte_latch
    }

    pub fn set_byte_latch(&mut self, value: u8) {
        self.byte_latch = value;
    }

    /// Read `size` bytes (at most 8) at `offset`. Bytes beyond the memory read as ones.
    pub fn read_memory(&self, offset: u64, size: usize) -> u64 {
        (0..size as u64).rev().fold(0, |value, index| {
            let byte = self.memory.get((offset + index) as usize).copied().unwrap_or(0xFF);
            value << 8 | u64::from(byte)
        })
    }

    /// Write the low `size` bytes (at most 8) of `value` at `offset`. Bytes beyond the memory are lost.
    pub fn write_memory(&mut self, offset: u64, size: usize, value: u64) {
        for (index, byte) in value.to_le_bytes().into_iter().take(size).enumerate() {
            if let Some(target) = self.memory.get_mut(offset as usize + index) {
                *target = byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_is_written_and_has_an_end() {
        let mut device = TestDevice::new();
        device.write_memory(3, 4, 0xAABB_CCDD);
        assert_eq!(device.read_memory(2, 8), 0x00AA_BBCC_DD00);
        device.write_memory(MEMORY_SIZE - 2, 4, 0x1122_3344);
        assert_eq!(device.read_memory(MEMORY_SIZE - 2, 4), 0xFFFF_3344);
    }
}
