//! A virtio device as a driver finds it on the bus.

use guestmem::GuestMemory;
use virtio::Entropy;

use super::super::bus::{DATA, Pci};
use super::super::config::Space;
use super::*;

const SLOT: u8 = 2;
const MASTER: u32 = 7;
const REGISTERS: u64 = 0xFE00_0000;
const MSIX: u64 = 0xFE00_4000;
const COMMON: u64 = REGISTERS;
const ISR: u64 = REGISTERS + 0x1000;
const NOTIFY: u64 = REGISTERS + 0x3000;

const DESCRIPTORS: u64 = 0x1000;
const DRIVER: u64 = 0x2000;
const DEVICE: u64 = 0x3000;
const BUFFER: u64 = 0x4000;

/// A bus with one entropy device, its driver as far as the bus is concerned.
struct Machine {
    pci: Pci,
    memory: GuestMemory,
    now_ns: u64,
}

impl Machine {
    fn new() -> Self {
        let mut pci = Pci::new();
        let (config, function) = VirtioFunction::new(Box::new(Entropy::new([1; 32])));
        assert_eq!(pci.plug(config, Box::new(function)), Some(SLOT));
        pci.assign();
        Self { pci, memory: GuestMemory::new(0x10_0000).unwrap(), now_ns: 0 }
    }

    fn select(&mut self, offset: usize) -> u16 {
        self.pci.set_address(1 << 31 | u32::from(SLOT) << 11 | offset as u32 & 0xFC);
        DATA + (offset & 3) as u16
    }

    fn config(&mut self, offset: usize, size: usize) -> u32 {
        let port = self.select(offset);
        self.pci.read_data(port, size, &self.memory, self.now_ns)
    }

    fn set_config(&mut self, offset: usize, size: usize, value: u32) {
        let port = self.select(offset);
        self.pci.write_data(port, size, value, &self.memory, self.now_ns);
    }

    fn read(&mut self, gpa: u64, size: usize) -> u64 {
        let target = self.pci.find(Space::Memory, gpa).unwrap();
        self.pci.read(target, size, &self.memory, self.now_ns)
    }

    fn write(&mut self, gpa: u64, size: usize, value: u64) {
        let target = self.pci.find(Space::Memory, gpa).unwrap();
        self.pci.write(target, size, value, &self.memory, self.now_ns);
    }

    /// The capabilities: where each is, its id, and the `cfg_type` of virtio's.
    fn capabilities(&mut self) -> Vec<(usize, u32, u32)> {
        let mut found = Vec::new();
        let mut at = self.config(0x34, 1) as usize;
        while at != 0 {
            found.push((at, self.config(at, 1), self.config(at + 3, 1)));
            at = self.config(at + 1, 1) as usize;
        }
        found
    }

    /// Set the device up, with a buffer of 16 bytes in its queue.
    fn start(&mut self) {
        self.set_config(4, 2, MASTER);
        self.write(COMMON + 0x14, 1, 3);
        self.write(COMMON + 0x08, 4, 1);
        self.write(COMMON + 0x0C, 4, 1);
        self.write(COMMON + 0x14, 1, 11);
        assert_eq!(self.read(COMMON + 0x14, 1), 11);
        self.write(COMMON + 0x18, 2, 8);
        for (offset, address) in [(0x20, DESCRIPTORS), (0x28, DRIVER), (0x30, DEVICE)] {
            self.write(COMMON + offset, 4, address);
            self.write(COMMON + offset + 4, 4, 0);
        }
        self.write(COMMON + 0x1C, 2, 1);
        self.write(COMMON + 0x14, 1, 15);
        let descriptor = u128::from(BUFFER) | 16 << 64 | 2 << 96;
        self.memory.write_bytes(DESCRIPTORS, &descriptor.to_le_bytes()).unwrap();
        self.memory.write_bytes(DRIVER + 2, &[1, 0]).unwrap();
    }

    /// Notify the device, and let time pass until it has answered.
    fn request(&mut self) {
        self.write(NOTIFY, 2, 0);
        while let Some(deadline) = self.pci.deadline_ns() {
            self.now_ns = deadline;
            self.pci.expire(&self.memory, deadline);
        }
    }

    fn used(&self) -> u8 {
        let mut bytes = [0];
        self.memory.read_bytes(DEVICE + 2, &mut bytes).unwrap();
        bytes[0]
    }
}

#[test]
fn the_device_says_what_it_is_and_where_its_parts_are() {
    let mut machine = Machine::new();
    assert_eq!(machine.config(0, 4), 0x1044_1AF4);
    assert_eq!(machine.config(8, 1), 1);
    let capabilities = machine.capabilities();
    let kinds: Vec<_> = capabilities.iter().map(|&(_, id, kind)| (id, if id == 9 { kind } else { 0 })).collect();
    assert_eq!(kinds, [(0x11, 0), (9, 1), (9, 3), (9, 4), (9, 2), (9, 5)]);
    for (at, _, kind) in capabilities.into_iter().filter(|&(_, id, _)| id == 9) {
        let offset = machine.config(at + 8, 4);
        let region = Region::of(offset);
        let expected = match kind {
            1 | 5 => Region::Common,
            2 => Region::Notify,
            3 => Region::Isr,
            _ => Region::Device,
        };
        assert_eq!(region, Some((expected, 0)));
    }
}

#[test]
fn without_messages_the_line_is_pulled_until_the_status_is_read() {
    let mut machine = Machine::new();
    machine.start();
    machine.request();
    assert_eq!(machine.used(), 1);
    // Slot 2, INTA#: PIRQB#, which is IRQ 10.
    assert_eq!(machine.pci.pulled_irqs(), 1 << 10);
    assert_eq!(machine.config(6, 2) & 8, 8);
    machine.set_config(4, 2, MASTER | 0x400);
    assert_eq!(machine.pci.pulled_irqs(), 0, "INTx is switched off");
    machine.set_config(4, 2, MASTER);
    assert_eq!(machine.read(ISR, 1), 1);
    assert_eq!((machine.pci.pulled_irqs(), machine.read(ISR, 1)), (0, 0));
}

#[test]
fn each_queue_has_its_message() {
    let mut machine = Machine::new();
    machine.start();
    machine.set_config(0x42, 2, 0x8000);
    machine.write(COMMON + 0x1A, 2, 1);
    machine.write(MSIX + 16, 8, 0xFEE0_0000);
    machine.write(MSIX + 24, 8, 0x31);
    machine.request();
    assert_eq!(machine.pci.take_messages(), [(0xFEE0_0000, 0x31)]);
    assert_eq!((machine.pci.pulled_irqs(), machine.read(ISR, 1)), (0, 0));
    machine.write(COMMON + 0x1A, 2, 2);
    assert_eq!(machine.read(COMMON + 0x1A, 2), 0xFFFF, "there are two messages");
}

#[test]
fn who_is_no_master_reaches_no_memory() {
    let mut machine = Machine::new();
    machine.start();
    machine.set_config(4, 2, 3);
    machine.request();
    assert_eq!(machine.used(), 0);
    machine.set_config(4, 2, MASTER);
    machine.write(NOTIFY, 2, 0);
    machine.set_config(4, 2, 3);
    machine.now_ns = machine.pci.deadline_ns().unwrap();
    machine.pci.expire(&machine.memory, machine.now_ns);
    assert_eq!((machine.used(), machine.pci.deadline_ns()), (0, None));
}

#[test]
fn an_enabled_queue_stays_where_it_is() {
    let mut machine = Machine::new();
    machine.start();
    machine.write(COMMON + 0x20, 4, 0x8000);
    machine.write(COMMON + 0x18, 2, 4);
    assert_eq!((machine.read(COMMON + 0x20, 8), machine.read(COMMON + 0x18, 2)), (DESCRIPTORS, 8));
    machine.write(COMMON + 0x14, 1, 0);
    assert_eq!((machine.read(COMMON + 0x20, 8), machine.read(COMMON + 0x18, 2)), (0, 256));
}

#[test]
fn a_reset_by_the_bus_forgets_the_driver() {
    let mut machine = Machine::new();
    machine.start();
    machine.write(NOTIFY, 2, 0);
    machine.pci.reset();
    machine.pci.assign();
    assert_eq!((machine.read(COMMON + 0x14, 1), machine.pci.deadline_ns()), (0, None));
}

#[test]
fn a_queue_that_makes_no_sense_is_told_by_status_and_interrupt() {
    let mut machine = Machine::new();
    machine.start();
    machine.memory.write_bytes(DRIVER + 2, &[0xFF, 0xFF]).unwrap();
    machine.request();
    assert_eq!((machine.read(COMMON + 0x14, 1), machine.read(ISR, 1)), (15 | 64, 2));
}

#[test]
fn configuration_space_shows_the_registers() {
    let mut machine = Machine::new();
    let window = machine.capabilities().last().unwrap().0;
    let look = |machine: &mut Machine, offset: u32, length: u32| {
        machine.set_config(window + 4, 1, 0);
        machine.set_config(window + 8, 4, offset);
        machine.set_config(window + 12, 4, length);
    };
    look(&mut machine, 0x12, 2);
    assert_eq!(machine.config(window + 16, 2), 1, "one queue");
    look(&mut machine, 0x14, 1);
    machine.set_config(window + 16, 1, 3);
    assert_eq!(machine.read(COMMON + 0x14, 1), 3);
    look(&mut machine, 0x14, 3);
    machine.set_config(window + 16, 1, 7);
    assert_eq!(machine.read(COMMON + 0x14, 1), 3, "no such length");
    look(&mut machine, u32::MAX, 1);
    assert_eq!(machine.config(window + 16, 1), 0);
}

/// Whatever is written where, nothing panics.
#[test]
fn no_access_does_harm() {
    let mut machine = Machine::new();
    machine.start();
    let mut random = 1u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    for _ in 0..20_000 {
        let size = [1, 2, 4, 8][(next() % 4) as usize];
        let gpa = REGISTERS + next() % 0x5000;
        let value = if next() % 2 == 0 { next() % 16 } else { next() } & u64::MAX >> (64 - 8 * size);
        match next() % 4 {
            0 => machine.set_config((next() % 64 + 0x40) as usize & !3, 4, value as u32),
            1 => machine.write(gpa, size, value),
            2 => machine.write(COMMON + next() % 0x40, size, value),
            _ => _ = machine.read(gpa, size),
        }
        if next() % 64 == 0 {
            machine.start();
        }
        if let Some(deadline) = machine.pci.deadline_ns() {
            machine.now_ns = machine.now_ns.max(deadline);
            machine.pci.expire(&machine.memory, machine.now_ns);
        }
        machine.pci.take_messages();
    }
}
