//! A driver for tests: one queue in guest memory, as section 2.7 wants it.

use guestmem::GuestMemory;

use crate::{Device, Transport};

pub const DESCRIPTORS: u64 = 0x1000;
pub const DRIVER: u64 = 0x3000;
pub const DEVICE: u64 = 0x4000;
pub const SIZE: u16 = 16;
/// Where buffers may go.
pub const BUFFERS: u64 = 0x1_0000;
pub const MEMORY: u64 = 0x10_0000;

pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;
pub const INDIRECT: u16 = 4;

const VERSION_1: u64 = 1 << 32;

pub struct Driver {
    pub memory: GuestMemory,
    pub transport: Transport,
    pub now_ns: u64,
    queue: usize,
    available: u16,
}

impl Driver {
    /// A device with one of its queues set up, and VERSION_1 and `features` agreed on.
    pub fn new(device: Box<dyn Device>, queue: usize, features: u64) -> Self {
        let memory = GuestMemory::new(MEMORY).unwrap();
        let mut transport = Transport::new(device);
        transport.set_status(3);
        transport.set_driver_features(VERSION_1 | features);
        transport.set_status(11);
        assert_eq!(transport.status(), 11, "the features are accepted");
        let registers = transport.queue_mut(queue).unwrap();
        (registers.size, registers.is_enabled) = (SIZE, true);
        (registers.descriptors, registers.driver, registers.device) = (DESCRIPTORS, DRIVER, DEVICE);
        transport.set_status(15);
        Self { memory, transport, now_ns: 0, queue, available: 0 }
    }

    /// Write a descriptor to a table.
    pub fn describe(&self, table: u64, index: u16, gpa: u64, len: u32, flags: u16, next: u16) {
        let value = u128::from(gpa) | u128::from(len) << 64 | u128::from(flags) << 96 | u128::from(next) << 112;
        self.memory.write_bytes(table + 16 * u64::from(index), &value.to_le_bytes()).unwrap();
    }

    /// Describe buffers as one chain from descriptor 0 on: address, length, writable.
    pub fn chain(&self, buffers: &[(u64, u32, bool)]) {
        for (index, &(gpa, len, writable)) in buffers.iter().enumerate() {
            let last = index + 1 == buffers.len();
            let flags = if writable { WRITE } else { 0 } | if last { 0 } else { NEXT };
            self.describe(DESCRIPTORS, index as u16, gpa, len, flags, index as u16 + 1);
        }
    }

    /// Make the chain at `head` available.
    pub fn offer(&mut self, head: u16) {
        let entry = DRIVER + 4 + 2 * u64::from(self.available % SIZE);
        self.memory.write_bytes(entry, &head.to_le_bytes()).unwrap();
        self.available = self.available.wrapping_add(1);
        self.memory.write_bytes(DRIVER + 2, &self.available.to_le_bytes()).unwrap();
    }

    /// Notify the device and let it work; whether it wants to interrupt.
    pub fn run(&mut self) -> bool {
        self.transport.kick(self.queue, self.now_ns);
        while let Some(due) = self.transport.due_ns() {
            self.now_ns = due;
            self.transport.serve(&self.memory, due);
        }
        self.transport.take_interrupts() != Default::default()
    }

    /// Offer the chain at descriptor 0 and let the device work; what it says it has written.
    pub fn request(&mut self) -> u32 {
        self.offer(0);
        self.run();
        self.used(self.used_index().wrapping_sub(1)).1
    }

    pub fn used_index(&self) -> u16 {
        u16::from_le_bytes(self.bytes(DEVICE + 2))
    }

    /// An entry of the used ring: head and length.
    pub fn used(&self, index: u16) -> (u32, u32) {
        let entry = u64::from_le_bytes(self.bytes(DEVICE + 4 + 8 * u64::from(index % SIZE)));
        (entry as u32, (entry >> 32) as u32)
    }

    pub fn bytes<const N: usize>(&self, gpa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.memory.read_bytes(gpa, &mut bytes).unwrap();
        bytes
    }

    pub fn needs_reset(&self) -> bool {
        self.transport.status() & 64 != 0
    }
}
