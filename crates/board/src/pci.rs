//! PCI configuration space by mechanism 1, PCI Local Bus Specification 3.0 chapter 6: one bus with a host bridge, an ISA bridge
//! and perhaps a test device.
//!
//! There is no firmware, so base addresses are assigned from the start, and the devices decode.

/// CONFIG_ADDRESS, 32 bits.
pub const ADDRESS: u16 = 0xCF8;
/// CONFIG_DATA, of any width.
pub const DATA: u16 = 0xCFC;
pub const DATA_LAST: u16 = 0xCFF;

const ENABLE: u32 = 1 << 31;

const COMMAND: usize = 0x04;
const STATUS: usize = 0x06;
const CLASS: usize = 0x0A;
const BAR0: usize = 0x10;
const INTERRUPT_LINE: usize = 0x3C;

const CLASS_HOST_BRIDGE: u16 = 0x0600;
const CLASS_ISA_BRIDGE: u16 = 0x0601;
const CLASS_OTHER: u16 = 0xFF00;

const COMMAND_IO: u8 = 1 << 0;
const COMMAND_MEMORY: u8 = 1 << 1;
/// Command bits that exist: I/O, memory, bus master; SERR# in the upper byte.
const COMMAND_BITS: [u8; 2] = [0x07, 0x01];
/// Low bit of a base address register: I/O space.
const BAR_IO: u32 = 1;

const CONFIG_SIZE: usize = 256;

/// Base address registers of the test device.
const TEST_MEMORY: usize = 0;
const TEST_PORTS: usize = 1;
const TEST_MEMORY_ADDRESS: u32 = 0xFEB0_0000;
const TEST_MEMORY_SIZE: u32 = 0x1000;
const TEST_PORTS_ADDRESS: u32 = 0xC000;
const TEST_PORTS_SIZE: u32 = 0x100;

/// One function's configuration space.
#[derive(Clone, Debug, Hash)]
struct Function {
    /// Device number in bits 7:3, function in 2:0.
    devfn: u8,
    config: [u8; CONFIG_SIZE],
    /// Which bits software may change.
    writable: [u8; CONFIG_SIZE],
}

impl Function {
    fn new(device: u8, vendor_id: u16, device_id: u16, class: u16) -> Self {
        let mut function = Self { devfn: device << 3, config: [0; CONFIG_SIZE], writable: [0; CONFIG_SIZE] };
        function.set_u16(0, vendor_id);
        function.set_u16(2, device_id);
        function.set_u16(CLASS, class);
        // Medium DEVSEL# timing.
        function.set_u16(STATUS, 0x0200);
        function.config[COMMAND] = COMMAND_IO | COMMAND_MEMORY;
        function.writable[COMMAND..COMMAND + 2].copy_from_slice(&COMMAND_BITS);
        function.writable[INTERRUPT_LINE] = 0xFF;
        function
    }

    fn set_u16(&mut self, offset: usize, value: u16) {
        self.config[offset..offset + 2].copy_from_slice(&value.to_le_bytes());
    }

    /// Add a base address register. `size` is a power of two.
    fn with_bar(mut self, index: usize, address: u32, size: u32, flags: u32) -> Self {
        let bytes = BAR0 + 4 * index..BAR0 + 4 * index + 4;
        self.config[bytes.clone()].copy_from_slice(&(address | flags).to_le_bytes());
        // Writing all ones and reading back shows the size: the bits below it cannot be changed.
        self.writable[bytes].copy_from_slice(&(!(size - 1)).to_le_bytes());
        self
    }

    /// The address in a base address register, if the function decodes that space.
    fn bar(&self, index: usize) -> Option<u32> {
        let offset = BAR0 + 4 * index;
        let value = u32::from_le_bytes(self.config[offset..offset + 4].try_into().ok()?);
        let (space, flags) = if value & BAR_IO != 0 { (COMMAND_IO, 0x3) } else { (COMMAND_MEMORY, 0xF) };
        (self.config[COMMAND] & space != 0).then_some(value & !flags)
    }

    fn write(&mut self, offset: usize, value: u8) {
        let writable = self.writable[offset];
        self.config[offset] = self.config[offset] & !writable | value & writable;
    }
}

/// The bus, and the address register.
#[derive(Clone, Debug, Hash)]
pub struct Pci {
    address: u32,
    functions: Vec<Function>,
    has_test_device: bool,
}

/// Position of the test device in `functions`.
const TEST_DEVICE: usize = 2;

impl Pci {
    pub fn new(has_test_device: bool) -> Self {
        let functions = vec![
            Function::new(0, 0x8086, 0x1237, CLASS_HOST_BRIDGE),
            Function::new(1, 0x8086, 0x7000, CLASS_ISA_BRIDGE),
            Function::new(4, 0x1B36, 0x0005, CLASS_OTHER)
                .with_bar(TEST_MEMORY, TEST_MEMORY_ADDRESS, TEST_MEMORY_SIZE, 0)
                .with_bar(TEST_PORTS, TEST_PORTS_ADDRESS, TEST_PORTS_SIZE, BAR_IO),
        ];
        Self { address: 0, functions, has_test_device }
    }

    /// RESET, and assignment of the base addresses as firmware does it.
    pub fn reset(&mut self) {
        *self = Self::new(self.has_test_device);
    }

    pub fn set_test_device(&mut self, present: bool) {
        self.has_test_device = present;
    }

    /// Offset in the test device's memory.
    pub fn test_memory_offset(&self, gpa: u64) -> Option<u32> {
        let base = u64::from(self.test_bar(TEST_MEMORY)?);
        let offset = gpa.checked_sub(base).filter(|&offset| offset < u64::from(TEST_MEMORY_SIZE))?;
        Some(offset as u32)
    }

    /// Offset in the test device's ports.
    pub fn test_port_offset(&self, port: u16) -> Option<u32> {
        let base = self.test_bar(TEST_PORTS)?;
        u32::from(port).checked_sub(base).filter(|&offset| offset < TEST_PORTS_SIZE)
    }

    fn test_bar(&self, index: usize) -> Option<u32> {
        if !self.has_test_device {
            return None;
        }
        // A register that software has set to 0 decodes nothing, as everywhere.
        self.functions.get(TEST_DEVICE)?.bar(index).filter(|&base| base != 0)
    }

    pub fn address(&self) -> u32 {
        self.address
    }

    pub fn set_address(&mut self, value: u32) {
        // Bits 30:24 and 1:0 are reserved.
        self.address = value & 0x80FF_FFFC;
    }

    /// The function and offset that an access to a data port means.
    fn target(&mut self, port: u16) -> Option<(&mut Function, usize)> {
        let address = self.address;
        let (bus, devfn) = ((address >> 16) as u8, (address >> 8) as u8);
        if address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let present = if self.has_test_device { TEST_DEVICE + 1 } else { TEST_DEVICE };
        let function = self.functions[..present].iter_mut().find(|function| function.devfn == devfn)?;
        Some((function, (address & 0xFC) as usize + usize::from(port & 3)))
    }

    /// Read one byte of CONFIG_DATA. Where no function is, all ones.
    pub fn read_data(&mut self, port: u16) -> u8 {
        self.target(port).map_or(0xFF, |(function, offset)| function.config[offset])
    }

    /// Write one byte of CONFIG_DATA.
    pub fn write_data(&mut self, port: u16, value: u8) {
        if let Some((function, offset)) = self.target(port) {
            function.write(offset, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pci: &mut Pci, devfn: u8, offset: u8) -> u32 {
        pci.set_address(ENABLE | u32::from(devfn) << 8 | u32::from(offset));
        u32::from_le_bytes([0, 1, 2, 3].map(|byte| pci.read_data(DATA + byte)))
    }

    fn write(pci: &mut Pci, devfn: u8, offset: u8, value: u32) {
        pci.set_address(ENABLE | u32::from(devfn) << 8 | u32::from(offset));
        for (byte, value) in value.to_le_bytes().into_iter().enumerate() {
            pci.write_data(DATA + byte as u16, value);
        }
    }

    fn functions(pci: &mut Pci) -> Vec<(u8, u32)> {
        (0..=255).map(|devfn| (devfn, read(pci, devfn, 0))).filter(|&(_, id)| id != u32::MAX).collect()
    }

    #[test]
    fn the_bus_holds_what_is_there() {
        assert_eq!(functions(&mut Pci::new(true)), [(0, 0x1237_8086), (1 << 3, 0x7000_8086), (4 << 3, 0x0005_1B36)]);
        assert_eq!(functions(&mut Pci::new(false)).len(), 2);
    }

    #[test]
    fn other_buses_and_a_disabled_address_read_as_ones() {
        let mut pci = Pci::new(true);
        pci.set_address(ENABLE | 1 << 16);
        assert_eq!(pci.read_data(DATA), 0xFF);
        pci.set_address(0);
        assert_eq!(pci.read_data(DATA), 0xFF);
    }

    #[test]
    fn base_addresses_can_be_sized_and_moved() {
        let mut pci = Pci::new(true);
        for (index, size, flags) in [(0u8, TEST_MEMORY_SIZE, 0), (1, TEST_PORTS_SIZE, BAR_IO)] {
            let offset = 0x10 + 4 * index;
            let old = read(&mut pci, 4 << 3, offset);
            write(&mut pci, 4 << 3, offset, u32::MAX);
            assert_eq!(read(&mut pci, 4 << 3, offset), !(size - 1) | flags);
            write(&mut pci, 4 << 3, offset, old);
            assert_eq!(read(&mut pci, 4 << 3, offset), old);
        }
        write(&mut pci, 4 << 3, 0x18, u32::MAX);
        assert_eq!(read(&mut pci, 4 << 3, 0x18), 0);
        write(&mut pci, 4 << 3, 0x10, 0xE000_0000);
        assert_eq!(pci.test_memory_offset(0xE000_0FFF), Some(0xFFF));
        assert_eq!(pci.test_memory_offset(u64::from(TEST_MEMORY_ADDRESS)), None);
    }

    #[test]
    fn a_device_whose_decoding_is_off_does_not_answer() {
        let mut pci = Pci::new(true);
        assert_eq!(pci.test_port_offset(0xC0FF), Some(0xFF));
        assert_eq!(pci.test_port_offset(0xC100), None);
        write(&mut pci, 4 << 3, 4, 0);
        assert_eq!(pci.test_port_offset(0xC000), None);
        assert_eq!(pci.test_memory_offset(u64::from(TEST_MEMORY_ADDRESS)), None);
    }

    #[test]
    fn identity_cannot_be_written() {
        let mut pci = Pci::new(true);
        write(&mut pci, 0, 0, 0);
        assert_eq!(read(&mut pci, 0, 0), 0x1237_8086);
    }
}
