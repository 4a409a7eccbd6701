//! The PCI test device (1B36:0005), QEMU's `docs/specs/pci-testdev`: it counts accesses of an announced width to an announced
//! offset. One half is reached through memory, one through ports; they are alike.

use std::any::Any;
use std::hash::{Hash, Hasher};

use super::config::{ConfigSpace, Identity, Space};
use super::function::{Context, Device};

/// The last slot, out of the way of what is plugged in.
pub const DEVFN: u8 = 31 << 3;

/// Selects a test (write).
const TEST: u32 = 0x00;
/// Bytes of the access to make; 0: no such test.
const WIDTH: u32 = 0x01;
/// Where to make it, 32 bits.
const OFFSET: u32 = 0x04;
/// What to write, 32 bits.
const DATA: u32 = 0x08;
/// How many matching writes came, 32 bits.
const COUNT: u32 = 0x0C;
/// The test's name, zero-terminated.
const NAME: u32 = 0x10;

/// Where matching writes go.
const TARGET_OFFSET: u32 = 0x80;
const TARGET_DATA: u32 = 0xFA;

/// One test: its name, the width to write with, and whether the data must match too.
struct Test {
    name: &'static str,
    width: usize,
    match_data: bool,
}

/// The tests of either half.
const TESTS: [Test; 3] = [
    Test { name: "any-byte", width: 1, match_data: false },
    Test { name: "any-dword", width: 4, match_data: false },
    Test { name: "matching-word", width: 2, match_data: true },
];

/// Base address registers of the halves.
const MEMORY_BAR: usize = 0;
const PORTS_BAR: usize = 1;

/// What configuration space shows of the device.
pub fn config() -> ConfigSpace {
    let identity =
        Identity { vendor: 0x1B36, device: 0x0005, class: 0xFF_0000, revision: 0, subsystem: (0x1AF4, 0x1100) };
    ConfigSpace::new(identity).with_bar(MEMORY_BAR, Space::Memory, 0x1000).with_bar(PORTS_BAR, Space::Io, 0x100)
}

/// The device.
#[derive(Debug, Default, Hash)]
pub struct PciTestDevice {
    halves: [Half; 2],
}

impl Device for PciTestDevice {
    fn read(&mut self, bar: usize, offset: u32, size: usize, _: &Context<'_>) -> u64 {
        self.halves.get(bar).map_or(0, |half| half.read(offset, size))
    }

    fn write(&mut self, bar: usize, offset: u32, size: usize, value: u64, _: &Context<'_>) {
        if let Some(half) = self.halves.get_mut(bar) {
            half.write(offset, size, value);
        }
    }

    fn reset(&mut self) {
        *self = Self::default();
    }

    fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        self.hash(&mut hasher);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// One half of the device.
#[derive(Clone, Debug, Default, Hash)]
struct Half {
    selected: u8,
    count: u32,
}

impl Half {
    fn test(&self) -> Option<&'static Test> {
        TESTS.get(usize::from(self.selected))
    }

    /// Read `size` bytes, 1 to 8.
    fn read(&self, offset: u32, size: usize) -> u64 {
        (0..size as u32)
            .rev()
            .fold(0, |value, index| value << 8 | u64::from(self.read_byte(offset.wrapping_add(index))))
    }

    fn read_byte(&self, offset: u32) -> u8 {
        let Some(test) = self.test() else { return 0 };
        let byte_of = |value: u32| value.to_le_bytes()[(offset & 3) as usize];
        match offset & !3 {
            TEST if offset == TEST => self.selected,
            TEST if offset == WIDTH => test.width as u8,
            OFFSET => byte_of(TARGET_OFFSET),
            DATA => byte_of(TARGET_DATA),
            COUNT => byte_of(self.count),
            NAME.. => test.name.as_bytes().get((offset - NAME) as usize).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Write `size` bytes, 1 to 8.
    fn write(&mut self, offset: u32, size: usize, value: u64) {
        if offset == TEST {
            self.selected = value as u8;
            self.count = 0;
            return;
        }
        let Some(test) = self.test() else { return };
        let matches =
            offset == TARGET_OFFSET && size == test.width && (!test.match_data || value == u64::from(TARGET_DATA));
        if matches {
            self.count = self.count.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_test_counts_what_it_announces() {
        let mut device = Half::default();
        for test in 0..TESTS.len() {
            device.write(TEST, 1, test as u64);
            let width = device.read(WIDTH, 1) as usize;
            let offset = device.read(OFFSET, 4) as u32;
            for _ in 0..16 {
                device.write(offset, width, device.read(DATA, 4));
            }
            device.write(offset, 8, 0);
            assert_eq!(device.read(COUNT, 4), 16);
        }
        device.write(TEST, 1, TESTS.len() as u64);
        assert_eq!(device.read(WIDTH, 1), 0);
    }

    #[test]
    fn the_name_ends_with_a_zero() {
        let device = Half::default();
        let name: Vec<u8> = (NAME..).map(|offset| device.read(offset, 1) as u8).take_while(|&byte| byte != 0).collect();
        assert_eq!(name, TESTS[0].name.as_bytes());
    }
}
