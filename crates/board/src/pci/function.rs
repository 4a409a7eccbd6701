//! A function on the bus: its configuration space, and the device behind it.

use std::hash::{Hash, Hasher};

use guestmem::GuestMemory;

use super::config::{BARS, COMMAND_INTX_OFF, COMMAND_MASTER, ConfigSpace};
use super::offset::INTERRUPT_PIN;

/// What a device may use while it is asked for something.
pub struct Context<'a> {
    pub memory: &'a GuestMemory,
    pub now_ns: u64,
    /// The guest lets the function reach RAM and send messages.
    pub is_master: bool,
}

/// What lies behind a function's base address registers. What a device leaves out is as if there were nothing.
pub trait Device: Send {
    /// Read `size` bytes, 1 to 8, at an offset of a base address register. The access may reach beyond its end.
    fn read(&mut self, bar: usize, offset: u32, size: usize, context: &Context<'_>) -> u64;

    /// Write, likewise; bits above `size` bytes are zero.
    fn write(&mut self, bar: usize, offset: u32, size: usize, value: u64, context: &Context<'_>);

    /// Software reads configuration space. `None`: what is kept there.
    fn read_config(&mut self, _offset: usize, _size: usize, _context: &Context<'_>) -> Option<u32> {
        None
    }

    /// Software has written to configuration space, and it looks like this now.
    fn config_written(&mut self, _config: &ConfigSpace, _offset: usize, _size: usize, _context: &Context<'_>) {}

    /// The time has come that [`Device::deadline_ns`] told.
    fn expire(&mut self, _context: &Context<'_>) {}

    /// When the device wants [`Device::expire`] to be called.
    fn deadline_ns(&self) -> Option<u64> {
        None
    }

    /// Whether the device asks for its INTx line.
    fn wants_line(&self) -> bool {
        false
    }

    /// The messages to be sent since the last call: address and data.
    fn take_messages(&mut self) -> Vec<(u64, u32)> {
        Vec::new()
    }

    /// RESET.
    fn reset(&mut self);

    /// Feed everything that can influence the guest's future to `hasher`.
    fn hash_state(&self, hasher: &mut dyn Hasher);

    /// For those who know which device it is.
    fn as_any(&mut self) -> &mut dyn std::any::Any;
}

/// A function without registers outside of configuration space.
pub struct Bare;

impl Device for Bare {
    fn read(&mut self, _: usize, _: u32, _: usize, _: &Context<'_>) -> u64 {
        0
    }
    fn write(&mut self, _: usize, _: u32, _: usize, _: u64, _: &Context<'_>) {}
    fn reset(&mut self) {}
    fn hash_state(&self, _: &mut dyn Hasher) {}
    fn as_any(&mut self) -> &mut dyn std::any::Any {
        self
    }
}

/// A function at its place.
pub struct Function {
    /// Device number in bits 7:3, function in 2:0.
    pub devfn: u8,
    pub config: ConfigSpace,
    pub device: Box<dyn Device>,
    /// As it came from the factory.
    initial: ConfigSpace,
}

impl Function {
    pub fn new(devfn: u8, config: ConfigSpace, device: Box<dyn Device>) -> Self {
        Self { devfn, initial: config.clone(), config, device }
    }

    pub fn slot(&self) -> u8 {
        self.devfn >> 3
    }

    pub fn reset(&mut self) {
        self.config = self.initial.clone();
        self.device.reset();
    }

    pub fn is_master(&self) -> bool {
        self.config.has_command(COMMAND_MASTER)
    }

    /// Which of PIRQA# to PIRQD# the function pulls: the slots take turns, as on every PC's board. Brings its status up to
    /// date.
    pub fn pulled_pirq(&mut self) -> Option<usize> {
        let wants = self.device.wants_line();
        self.config.set_intx_status(wants);
        (wants && !self.config.has_command(COMMAND_INTX_OFF)).then(|| self.pirq()).flatten()
    }

    /// Which of PIRQA# to PIRQD# its pin is wired to; `None`: it has none.
    pub fn pirq(&self) -> Option<usize> {
        let pin = self.config.byte(INTERRUPT_PIN).checked_sub(1)?;
        Some(usize::from(self.slot().wrapping_add(pin).wrapping_sub(1) & 3))
    }

    /// Its windows that decode now: register, first address and size.
    pub fn decoded(&self) -> impl Iterator<Item = (usize, super::config::Bar, u32)> + '_ {
        (0..BARS).filter_map(|index| Some((index, self.config.bar(index)?, self.config.decoded(index)?)))
    }
}

impl Hash for Function {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.devfn.hash(hasher);
        self.config.hash(hasher);
        self.device.hash_state(hasher);
    }
}
