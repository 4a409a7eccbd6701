//! Virtio devices on the PCI bus: modern ones only, virtio 1.2 section 4.1.

mod common;
mod layout;

use std::any::Any;
use std::hash::{Hash, Hasher};

use virtio::Transport;

use super::config::ConfigSpace;
use super::function::{Context, Device};
use super::msix::Msix;
use common::{CommonConfig, is_reset};
use layout::{CONFIG_WINDOW, MSIX_BAR, REGISTERS_BAR, Region, WINDOW_DATA, WINDOW_LENGTH, WINDOW_OFFSET};

/// ISR status: a queue has something, the configuration has changed.
const ISR_QUEUE: u8 = 1 << 0;
const ISR_CONFIG: u8 = 1 << 1;

/// A device behind its registers.
pub struct VirtioFunction {
    transport: Transport,
    common: CommonConfig,
    isr: u8,
    msix: Msix,
    /// Where the capability is through which configuration space shows the registers.
    window_at: usize,
    window: Window,
}

/// What that capability looks at.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Window {
    bar: usize,
    offset: u32,
    length: u32,
}

impl VirtioFunction {
    /// A device, and what configuration space shows of it.
    pub fn new(device: Box<dyn virtio::Device>) -> (ConfigSpace, Self) {
        let transport = Transport::new(device);
        let mut config = layout::config_space(transport.device_id());
        let msix = Msix::new(&mut config, transport.num_queues() + 1, MSIX_BAR as u8);
        let window_at = layout::add_capabilities(&mut config);
        let common = CommonConfig::new(transport.num_queues());
        (config, Self { transport, common, isr: 0, msix, window_at, window: Window::default() })
    }

    /// The device itself.
    pub fn device_mut(&mut self) -> &mut dyn virtio::Device {
        self.transport.device_mut()
    }

    /// Whether a driver uses the device.
    pub fn is_live(&self) -> bool {
        self.transport.is_live()
    }

    /// The host has something for a queue.
    pub fn kick(&mut self, queue: usize, now_ns: u64) {
        self.transport.kick(queue, now_ns);
    }

    fn read_register(&mut self, offset: u32, size: usize) -> u64 {
        match Region::of(offset) {
            Some((Region::Common, offset)) => self.common.read(&self.transport, offset, size),
            // Reading it acknowledges (section 4.1.4.5).
            Some((Region::Isr, 0)) => std::mem::take(&mut self.isr).into(),
            Some((Region::Device, offset)) => self.read_device_config(offset, size),
            _ => 0,
        }
    }

    fn read_device_config(&self, offset: u32, size: usize) -> u64 {
        let offset = offset as usize;
        (offset..offset + size).rev().fold(0, |value, offset| value << 8 | u64::from(self.transport.config(offset)))
    }

    fn write_register(&mut self, offset: u32, size: usize, value: u64, context: &Context<'_>) {
        match Region::of(offset) {
            Some((Region::Common, offset)) => {
                self.common.write(&mut self.transport, self.msix.len(), offset, size, value);
                if is_reset(offset, size, value) {
                    self.forget();
                }
            }
            Some((Region::Notify, offset)) if context.is_master => {
                self.transport.kick((offset / layout::NOTIFY_MULTIPLIER) as usize, context.now_ns);
            }
            _ => {}
        }
        self.signal();
    }

    /// The driver has reset the device.
    fn forget(&mut self) {
        self.common.reset();
        self.isr = 0;
    }

    /// Pass on what the driver is to be told: by messages if they are on, else by the line (section 4.1.5.1.2).
    fn signal(&mut self) {
        let interrupts = self.transport.take_interrupts();
        if self.msix.is_enabled() {
            for vector in self.common.vectors(interrupts) {
                self.msix.raise(vector.into());
            }
            return;
        }
        if interrupts.queues != 0 {
            self.isr |= ISR_QUEUE;
        }
        if interrupts.config {
            self.isr |= ISR_CONFIG;
        }
    }

    /// The part of the registers that the capability looks at, if it looks at a possible one (section 4.1.4.9).
    fn window_target(&self, size: usize) -> Option<(usize, u32)> {
        let Window { bar, offset, length } = self.window;
        let possible = length as usize == size && matches!(size, 1 | 2 | 4) && offset % length == 0;
        possible.then_some((bar, offset))
    }
}

impl Device for VirtioFunction {
    fn read(&mut self, bar: usize, offset: u32, size: usize, _: &Context<'_>) -> u64 {
        match bar {
            REGISTERS_BAR => self.read_register(offset, size),
            MSIX_BAR => self.msix.read(offset, size),
            _ => 0,
        }
    }

    fn write(&mut self, bar: usize, offset: u32, size: usize, value: u64, context: &Context<'_>) {
        match bar {
            REGISTERS_BAR => self.write_register(offset, size, value, context),
            MSIX_BAR => self.msix.write(offset, size, value),
            _ => {}
        }
    }

    fn read_config(&mut self, offset: usize, size: usize, context: &Context<'_>) -> Option<u32> {
        let (bar, at) = (offset == self.window_at + WINDOW_DATA).then(|| self.window_target(size))??;
        Some(self.read(bar, at, size, context) as u32)
    }

    fn config_written(&mut self, config: &ConfigSpace, offset: usize, size: usize, context: &Context<'_>) {
        self.msix.config_written(config);
        self.window = Window {
            bar: config.byte(self.window_at + CONFIG_WINDOW).into(),
            offset: config.read(self.window_at + WINDOW_OFFSET, 4),
            length: config.read(self.window_at + WINDOW_LENGTH, 4),
        };
        let data_at = self.window_at + WINDOW_DATA;
        if let Some((bar, at)) = (offset == data_at).then(|| self.window_target(size)).flatten() {
            self.write(bar, at, size, config.read(data_at, size).into(), context);
        }
    }

    fn expire(&mut self, context: &Context<'_>) {
        if context.is_master {
            self.transport.serve(context.memory, context.now_ns);
            self.signal();
        } else {
            self.transport.postpone();
        }
    }

    fn deadline_ns(&self) -> Option<u64> {
        self.transport.due_ns()
    }

    fn wants_line(&self) -> bool {
        self.isr != 0 && !self.msix.is_enabled()
    }

    fn take_messages(&mut self) -> Vec<(u64, u32)> {
        self.msix.take_messages()
    }

    fn reset(&mut self) {
        self.transport.reset();
        self.forget();
        self.msix.reset();
        self.window = Window::default();
    }

    fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        (&self.common, self.isr, &self.msix, self.window).hash(&mut hasher);
        self.transport.hash_state(hasher);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
mod tests;
