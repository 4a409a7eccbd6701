//! The host's side of virtio devices: plugging them in, and the console's bytes.

use std::io::Write;

use vcpu::StopReason;
use virtio::{Console, Device};

use super::virtio::VirtioFunction;
use crate::board::Board;

/// Queue of the console with buffers for input.
const CONSOLE_RECEIVE: usize = 0;
/// How much input is asked for when the guest has taken all of the last.
const INPUT_AT_ONCE: usize = 4096;

impl Board {
    /// Plug a virtio device into the first free PCI slot; returns its number. `None`: all are taken. To be done before the guest
    /// runs.
    pub fn plug_virtio(&mut self, device: Box<dyn Device>) -> Option<u8> {
        let (config, function) = VirtioFunction::new(device);
        self.pci.plug(config, Box::new(function))
    }

    /// Plug in a virtio console, which shares its other end with the serial port: what is printed on it goes where
    /// [`Board::set_console`] says, and [`Board::console_input`] comes to it alone. `None`: no slot is free.
    pub fn plug_virtio_console(&mut self) -> Option<u8> {
        self.virtio_console = self.plug_virtio(Box::new(Console::new()));
        self.virtio_console
    }

    /// Whether there is a virtio console; there is no use for two.
    pub fn has_virtio_console(&self) -> bool {
        self.virtio_console.is_some()
    }

    /// A virtio device by its slot, if it is of that kind.
    pub fn virtio_device_mut<D: Device + 'static>(&mut self, slot: u8) -> Option<&mut D> {
        self.virtio_function(slot)?.device_mut().as_any().downcast_mut()
    }

    fn virtio_function(&mut self, slot: u8) -> Option<&mut VirtioFunction> {
        self.pci.device_mut(slot)?.as_any().downcast_mut()
    }

    /// How much input the virtio console takes now: none before a driver uses it. `None`: there is none.
    pub(crate) fn virtio_console_room(&mut self) -> Option<usize> {
        let function = self.virtio_function(self.virtio_console?)?;
        let is_live = function.is_live();
        let console: &mut Console = function.device_mut().as_any().downcast_mut()?;
        Some(if is_live && console.waiting() == 0 { INPUT_AT_ONCE } else { 0 })
    }

    /// Give input to the virtio console, for a driver to take now or later. False: there is none.
    pub(crate) fn virtio_console_input(&mut self, bytes: &[u8]) -> bool {
        let now_ns = self.now_ns;
        let Some(function) = self.virtio_console.and_then(|slot| self.virtio_function(slot)) else { return false };
        if let Some(console) = function.device_mut().as_any().downcast_mut::<Console>() {
            console.send(bytes);
        }
        function.kick(CONSOLE_RECEIVE, now_ns);
        self.pci_changed();
        true
    }

    /// Pass on what the guest has printed on the virtio console.
    pub(crate) fn flush_virtio_console(&mut self) {
        let Some(console) = self.virtio_console.and_then(|slot| self.virtio_device_mut::<Console>(slot)) else {
            return;
        };
        let printed = console.take_output();
        if !printed.is_empty() && self.serial.output().write_all(&printed).is_err() {
            self.request_stop(StopReason::HostError);
        }
    }
}
