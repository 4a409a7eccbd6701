//! The bus: which function an access means, by configuration mechanism 1 (PCI Local Bus Specification 3.0 section 3.2.2.3.2) or
//! by the addresses that functions decode.

use std::hash::{Hash, Hasher};

use guestmem::GuestMemory;

use super::chipset::{
    HOST_BRIDGE_DEVFN, ISA_BRIDGE_DEVFN, PIRQ_OFF, PIRQ_ROUTE, POWER_DEVFN, host_bridge, isa_bridge, power_management,
};
use super::config::{ConfigSpace, Space};
use super::function::{Bare, Context, Device, Function};
use super::host_bridge::HostBridge;
use super::testdev::{self, PciTestDevice};

/// CONFIG_ADDRESS, 32 bits.
pub const ADDRESS: u16 = 0xCF8;
/// CONFIG_DATA, of any width.
pub const DATA: u16 = 0xCFC;
pub const DATA_LAST: u16 = 0xCFF;

const ENABLE: u32 = 1 << 31;

/// Interrupt lines that the ISA bridge can drive.
const IRQS: usize = 16;
/// The slots of devices that are plugged in, after the chipset's and before the test device's.
const FIRST_SLOT: u8 = 2;
const LAST_SLOT: u8 = testdev::DEVFN / 8 - 1;

/// Addresses that a function answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    space: Space,
    base: u32,
    size: u32,
    function: usize,
    bar: usize,
}

/// Where in a function's registers an access goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    function: usize,
    bar: usize,
    pub offset: u32,
}

/// The bus, and the address register.
pub struct Pci {
    address: u32,
    /// Ascending by place.
    functions: Vec<Function>,
    /// What the functions decode: kept, because every access to a port or device asks for it.
    windows: Vec<Window>,
    /// [`Pci::assign`] has been called since RESET.
    pub(super) is_assigned: bool,
}

impl Pci {
    /// The chipset alone.
    pub fn new() -> Self {
        let functions = [(ISA_BRIDGE_DEVFN, isa_bridge()), (POWER_DEVFN, power_management())]
            .map(|(devfn, config)| Function::new(devfn, config, Box::new(Bare)));
        let mut functions = Vec::from(functions);
        functions.insert(0, Function::new(HOST_BRIDGE_DEVFN, host_bridge(), Box::new(HostBridge)));
        Self { address: 0, functions, windows: Vec::new(), is_assigned: false }
    }

    /// RESET: nothing decodes until firmware, or [`Pci::assign`], has given it addresses.
    pub fn reset(&mut self) {
        self.address = 0;
        self.is_assigned = false;
        self.for_each_function(Function::reset);
    }

    // -- what is on the bus

    /// Plug a device into the first free slot; returns its number. `None`: all are taken.
    pub fn plug(&mut self, config: ConfigSpace, device: Box<dyn Device>) -> Option<u8> {
        let slot =
            (FIRST_SLOT..=LAST_SLOT).find(|&slot| self.functions.iter().all(|function| function.slot() != slot))?;
        self.insert(Function::new(slot << 3, config, device));
        Some(slot)
    }

    /// Whether the test device is there.
    pub fn set_test_device(&mut self, present: bool) {
        let at = self.functions.iter().position(|function| function.devfn == testdev::DEVFN);
        match at {
            None if present => {
                self.insert(Function::new(testdev::DEVFN, testdev::config(), Box::new(PciTestDevice::default())));
            }
            Some(at) if !present => {
                self.functions.remove(at);
                self.find_windows();
            }
            _ => {}
        }
    }

    fn insert(&mut self, function: Function) {
        let at = self.functions.partition_point(|other| other.devfn < function.devfn);
        self.functions.insert(at, function);
        if self.is_assigned {
            self.assign();
        }
        self.find_windows();
    }

    /// The device in a slot, function 0.
    pub fn device_mut(&mut self, slot: u8) -> Option<&mut dyn Device> {
        let function = self.functions.iter_mut().find(|function| function.devfn == slot << 3)?;
        Some(function.device.as_mut())
    }

    pub fn for_each_function(&mut self, f: impl FnMut(&mut Function)) {
        self.functions.iter_mut().for_each(f);
        self.find_windows();
    }

    // -- configuration space

    pub fn address(&self) -> u32 {
        self.address
    }

    pub fn set_address(&mut self, value: u32) {
        // Bits 30:24 and 1:0 are reserved.
        self.address = value & 0x80FF_FFFC;
    }

    /// The function and offset that an access to a data port means.
    fn selected(&mut self, port: u16) -> Option<(&mut Function, usize)> {
        let address = self.address;
        let (bus, devfn) = ((address >> 16) as u8, (address >> 8) as u8);
        if address & ENABLE == 0 || bus != 0 {
            return None;
        }
        let function = self.functions.iter_mut().find(|function| function.devfn == devfn)?;
        Some((function, (address & 0xFC) as usize + usize::from(port & 3)))
    }

    /// Read CONFIG_DATA: 1 to 4 bytes that do not cross its end. Where no function is, all ones.
    pub fn read_data(&mut self, port: u16, size: usize, memory: &GuestMemory, now_ns: u64) -> u32 {
        let Some((function, offset)) = self.selected(port) else { return u32::MAX };
        let context = Context { memory, now_ns, is_master: function.is_master() };
        let special = function.device.read_config(offset, size, &context);
        special.unwrap_or_else(|| function.config.read(offset, size))
    }

    /// Write CONFIG_DATA, likewise.
    pub fn write_data(&mut self, port: u16, size: usize, value: u32, memory: &GuestMemory, now_ns: u64) {
        let Some((function, offset)) = self.selected(port) else { return };
        function.config.write(offset, size, value);
        let context = Context { memory, now_ns, is_master: function.is_master() };
        function.device.config_written(&function.config, offset, size, &context);
        self.find_windows();
    }

    // -- what functions decode

    fn find_windows(&mut self) {
        self.windows.clear();
        for (index, function) in self.functions.iter().enumerate() {
            self.windows.extend(function.decoded().map(|(register, bar, base)| Window {
                space: bar.space,
                base,
                size: bar.size,
                function: index,
                bar: register,
            }));
        }
    }

    /// Who answers at an address; the lowest place if several would.
    #[inline]
    pub fn find(&self, space: Space, address: u64) -> Option<Target> {
        self.windows.iter().find_map(|window| {
            let offset = address.checked_sub(window.base.into())?;
            (window.space == space && offset < window.size.into()).then_some(Target {
                function: window.function,
                bar: window.bar,
                offset: offset as u32,
            })
        })
    }

    pub fn read(&mut self, target: Target, size: usize, memory: &GuestMemory, now_ns: u64) -> u64 {
        let Some(function) = self.functions.get_mut(target.function) else { return u64::MAX };
        let context = Context { memory, now_ns, is_master: function.is_master() };
        function.device.read(target.bar, target.offset, size, &context)
    }

    pub fn write(&mut self, target: Target, size: usize, value: u64, memory: &GuestMemory, now_ns: u64) {
        let Some(function) = self.functions.get_mut(target.function) else { return };
        let context = Context { memory, now_ns, is_master: function.is_master() };
        function.device.write(target.bar, target.offset, size, value, &context);
    }

    // -- what functions want

    /// Call every device whose time has come.
    pub fn expire(&mut self, memory: &GuestMemory, now_ns: u64) {
        for function in &mut self.functions {
            if function.device.deadline_ns().is_some_and(|deadline| deadline <= now_ns) {
                let context = Context { memory, now_ns, is_master: function.is_master() };
                function.device.expire(&context);
            }
        }
    }

    pub fn deadline_ns(&self) -> Option<u64> {
        self.functions.iter().filter_map(|function| function.device.deadline_ns()).min()
    }

    /// The messages to be sent: address and data. Who may not be a master sends none.
    pub fn take_messages(&mut self) -> Vec<(u64, u32)> {
        let mut messages = Vec::new();
        for function in &mut self.functions {
            let taken = function.device.take_messages();
            if function.is_master() {
                messages.extend(taken);
            }
        }
        messages
    }

    /// The interrupt lines that are pulled, one bit each: PIRQs are shared, and the ISA bridge routes them.
    pub fn pulled_irqs(&mut self) -> u32 {
        let routes = self.pirq_routes();
        self.functions
            .iter_mut()
            .filter_map(Function::pulled_pirq)
            .filter_map(|pirq| routes.get(pirq).copied())
            .filter(|&route| route & PIRQ_OFF == 0)
            .fold(0, |lines, route| lines | 1 << (usize::from(route) % IRQS))
    }

    fn pirq_routes(&self) -> [u8; 4] {
        let bridge = self.functions.iter().find(|function| function.devfn == ISA_BRIDGE_DEVFN);
        bridge.map_or([PIRQ_OFF; 4], |bridge| [0, 1, 2, 3].map(|pirq| bridge.config.byte(PIRQ_ROUTE + pirq)))
    }
}

impl Hash for Pci {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (self.address, self.is_assigned).hash(hasher);
        self.functions.hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::{COMMAND_IO, COMMAND_MEMORY};
    use super::*;

    const TEST: u8 = testdev::DEVFN;

    fn pci() -> Pci {
        let mut pci = Pci::new();
        pci.set_test_device(true);
        pci.assign();
        pci
    }

    fn memory() -> GuestMemory {
        GuestMemory::new(0x1000).unwrap()
    }

    fn read(pci: &mut Pci, devfn: u8, offset: u8) -> u32 {
        pci.set_address(ENABLE | u32::from(devfn) << 8 | u32::from(offset));
        pci.read_data(DATA, 4, &memory(), 0)
    }

    fn write(pci: &mut Pci, devfn: u8, offset: u8, value: u32) {
        pci.set_address(ENABLE | u32::from(devfn) << 8 | u32::from(offset));
        pci.write_data(DATA, 4, value, &memory(), 0);
    }

    fn functions(pci: &mut Pci) -> Vec<(u8, u32)> {
        (0..=255).map(|devfn| (devfn, read(pci, devfn, 0))).filter(|&(_, id)| id != u32::MAX).collect()
    }

    #[test]
    fn the_bus_holds_what_is_there() {
        let chipset = [(0, 0x1237_8086), (1 << 3, 0x7000_8086), (1 << 3 | 3, 0x7113_8086)];
        assert_eq!(functions(&mut Pci::new()), chipset);
        assert_eq!(functions(&mut pci())[3..], [(TEST, 0x0005_1B36)]);
    }

    #[test]
    fn other_buses_and_a_disabled_address_read_as_ones() {
        let mut pci = pci();
        for address in [ENABLE | 1 << 16, 0] {
            pci.set_address(address);
            assert_eq!(pci.read_data(DATA, 4, &memory(), 0), u32::MAX);
        }
    }

    #[test]
    fn a_window_moves_with_its_register_and_the_command_switches_it() {
        let mut pci = pci();
        let memory = u64::from(read(&mut pci, TEST, 0x10));
        let ports = u64::from(read(&mut pci, TEST, 0x14) & !3);
        assert_eq!((memory, ports), (0xFE00_0000, 0xC000));
        assert_eq!(pci.find(Space::Memory, memory + 0xFFF).map(|target| target.offset), Some(0xFFF));
        assert_eq!(pci.find(Space::Io, ports + 0xFF).map(|target| target.offset), Some(0xFF));
        assert_eq!(pci.find(Space::Io, memory), None);
        assert_eq!(pci.find(Space::Io, ports + 0x100), None);
        write(&mut pci, TEST, 0x10, 0xE000_0000);
        assert_eq!(pci.find(Space::Memory, memory), None);
        assert!(pci.find(Space::Memory, 0xE000_0000).is_some());
        write(&mut pci, TEST, 4, u32::from(COMMAND_IO));
        assert_eq!(pci.find(Space::Memory, 0xE000_0000), None);
        assert!(pci.find(Space::Io, ports).is_some());
        write(&mut pci, TEST, 4, u32::from(COMMAND_MEMORY));
        assert_eq!(pci.find(Space::Io, ports), None);
        pci.reset();
        assert_eq!(pci.find(Space::Memory, 0xE000_0000), None);
    }

    #[test]
    fn firmware_routes_the_lines_and_says_so() {
        let mut pci = Pci::new();
        assert_eq!(read(&mut pci, ISA_BRIDGE_DEVFN, 0x60), 0x8080_8080);
        pci.assign();
        assert_eq!(read(&mut pci, ISA_BRIDGE_DEVFN, 0x60), 0x0B0B_0A0A);
        assert_eq!(read(&mut pci, POWER_DEVFN, 0x3C) & 0xFFFF, 0x0109);
        write(&mut pci, ISA_BRIDGE_DEVFN, 0x60, u32::MAX);
        assert_eq!(read(&mut pci, ISA_BRIDGE_DEVFN, 0x60), 0x8F8F_8F8F);
    }

    #[test]
    fn there_are_slots_for_29_devices() {
        let mut pci = pci();
        for slot in FIRST_SLOT..=LAST_SLOT {
            assert_eq!(pci.plug(host_bridge(), Box::new(Bare)), Some(slot));
        }
        assert_eq!(pci.plug(host_bridge(), Box::new(Bare)), None);
        assert_eq!(LAST_SLOT - FIRST_SLOT + 1, 29);
    }
}
