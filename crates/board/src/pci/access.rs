//! The board's side of the bus: accesses to ports and memory that functions answer, and where their interrupts go.

use super::bus::DATA;
use super::config::Space;
use super::msi;
use crate::board::{Board, TIMER_PCI};
use crate::deadlines::NEVER;

impl Board {
    /// Read from CONFIG_DATA, within its end.
    pub(crate) fn read_pci_config(&mut self, port: u16, size: usize) -> u32 {
        let value = self.pci.read_data(port, size, &self.memory, self.now_ns);
        self.pci_changed();
        value
    }

    /// Write to CONFIG_DATA, within its end.
    pub(crate) fn write_pci_config(&mut self, port: u16, size: usize, value: u32) {
        self.pci.write_data(port, size, value, &self.memory, self.now_ns);
        self.pci_changed();
    }

    /// Read what some function has there.
    pub(crate) fn read_pci(&mut self, space: Space, address: u64, size: usize) -> Option<u64> {
        let target = self.pci.find(space, address)?;
        let value = self.pci.read(target, size, &self.memory, self.now_ns);
        self.pci_changed();
        Some(value)
    }

    /// Write to what some function has there. False: there is none.
    pub(crate) fn write_pci(&mut self, space: Space, address: u64, size: usize, value: u64) -> bool {
        let Some(target) = self.pci.find(space, address) else { return false };
        self.pci.write(target, size, value, &self.memory, self.now_ns);
        self.pci_changed();
        true
    }

    /// The time of some function has come.
    pub(crate) fn fire_pci(&mut self) {
        self.pci.expire(&self.memory, self.now_ns);
        self.flush_virtio_console();
        self.pci_changed();
    }

    /// Do what functions want after something happened to them: interrupts, and a call at their time.
    pub(crate) fn pci_changed(&mut self) {
        for (address, data) in self.pci.take_messages() {
            if let Some(message) = msi::decode(address, data) {
                self.send(message);
            }
        }
        let irqs = self.pci.pulled_irqs();
        let changed = irqs ^ std::mem::replace(&mut self.pci_irqs, irqs);
        for irq in (0..u32::BITS).filter(|irq| changed & 1 << irq != 0) {
            self.set_irq(irq, irqs & 1 << irq != 0);
        }
        let deadline = self.pci.deadline_ns().unwrap_or(NEVER);
        self.deadlines.set(self.apics.len() + TIMER_PCI, deadline);
    }
}

/// Whether an access of that width, which begins in CONFIG_DATA, ends there too. One that does not is split to bytes.
pub fn is_within_data(port: u16, size: usize) -> bool {
    usize::from(port - DATA) + size <= 4
}
