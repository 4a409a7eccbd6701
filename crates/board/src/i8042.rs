//! The 8042 keyboard controller, with a keyboard and a mouse that answer, and that nobody touches.
//!
//! IBM PS/2 Hardware Interface Technical Reference, "Keyboard and auxiliary device controller".

use crate::reset::ResetKind;

/// Data port.
pub const DATA: u16 = 0x60;
/// Status (read) and command (write).
pub const COMMAND: u16 = 0x64;
/// Interrupt of the keyboard.
pub const KEYBOARD_IRQ: u8 = 1;
/// Interrupt of the mouse.
pub const MOUSE_IRQ: u8 = 12;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;
/// What is in the output buffer comes from the mouse.
const STATUS_MOUSE: u8 = 1 << 5;

const CONFIGURATION_INTERRUPT: u8 = 1 << 0;
const CONFIGURATION_MOUSE_INTERRUPT: u8 = 1 << 1;
const CONFIGURATION_SYSTEM: u8 = 1 << 2;
const CONFIGURATION_KEYBOARD_DISABLED: u8 = 1 << 4;
const CONFIGURATION_MOUSE_DISABLED: u8 = 1 << 5;

/// Output port: processor reset, active low.
const OUTPUT_NOT_RESET: u8 = 1 << 0;
/// Output port: gate A20, which is always open here.
const OUTPUT_A20: u8 = 1 << 1;

const ACK: u8 = 0xFA;
const RESEND: u8 = 0xFE;
/// The longest answer is three bytes; more waits only if nobody reads.
const QUEUE_LIMIT: usize = 16;

/// What the next byte at the data port means.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
enum Expecting {
    #[default]
    KeyboardCommand,
    KeyboardParameter,
    Configuration,
    OutputPort,
    /// A byte to be seen as if the keyboard had sent it.
    KeyboardEcho,
    /// A byte to be seen as if the mouse had sent it.
    MouseEcho,
    /// A byte for the mouse.
    Mouse,
}

/// Where a byte comes from.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Source {
    Controller,
    Keyboard,
    Mouse,
}

/// The controller.
#[derive(Clone, Debug, Hash)]
pub struct I8042 {
    configuration: u8,
    output_port: u8,
    expecting: Expecting,
    last_was_command: bool,
    /// The mouse waits for the parameter of a command.
    mouse_parameter: bool,
    queue: Vec<(Source, u8)>,
    interrupt: Option<u8>,
}

impl I8042 {
    /// As firmware leaves it: tested, keyboard on, its interrupt off.
    pub fn new() -> Self {
        Self {
            configuration: CONFIGURATION_SYSTEM | CONFIGURATION_MOUSE_DISABLED,
            output_port: OUTPUT_NOT_RESET | OUTPUT_A20,
            expecting: Expecting::default(),
            last_was_command: false,
            mouse_parameter: false,
            queue: Vec::new(),
            interrupt: None,
        }
    }

    /// The line on which an interrupt was asked for since the last call, by a pulse.
    pub fn take_interrupt(&mut self) -> Option<u8> {
        self.interrupt.take()
    }

    pub fn read_status(&self) -> u8 {
        let full = match self.queue.first() {
            None => 0,
            Some((Source::Mouse, _)) => STATUS_OUTPUT_FULL | STATUS_MOUSE,
            Some(_) => STATUS_OUTPUT_FULL,
        };
        let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
        full | command | self.configuration & STATUS_SYSTEM | STATUS_UNLOCKED
    }

    pub fn read_data(&mut self) -> u8 {
        if self.queue.is_empty() {
            return 0;
        }
        let (_, byte) = self.queue.remove(0);
        self.signal();
        byte
    }

    /// Ask for the interrupt of the byte that is to be read next, if its source may interrupt.
    fn signal(&mut self) {
        let enabled = |bit: u8| self.configuration & bit != 0;
        self.interrupt = match self.queue.first() {
            Some((Source::Keyboard, _)) if enabled(CONFIGURATION_INTERRUPT) => Some(KEYBOARD_IRQ),
            Some((Source::Mouse, _)) if enabled(CONFIGURATION_MOUSE_INTERRUPT) => Some(MOUSE_IRQ),
            _ => None,
        };
    }

    fn answer(&mut self, source: Source, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= QUEUE_LIMIT {
            self.queue.extend(bytes.iter().map(|&byte| (source, byte)));
        }
        self.signal();
    }

    /// A command to the controller. Some reset the machine.
    pub fn write_command(&mut self, command: u8) -> Option<ResetKind> {
        self.last_was_command = true;
        self.expecting = Expecting::KeyboardCommand;
        match command {
            0x20 => self.answer(Source::Controller, &[self.configuration]),
            0x60 => self.expecting = Expecting::Configuration,
            0xA7 => self.configuration |= CONFIGURATION_MOUSE_DISABLED,
            0xA8 => self.configuration &= !CONFIGURATION_MOUSE_DISABLED,
            // Tests of both ports: nothing is wrong.
            0xA9 | 0xAB => self.answer(Source::Controller, &[0]),
            0xAA => {
                self.configuration |= CONFIGURATION_SYSTEM;
                self.answer(Source::Controller, &[0x55]);
            }
            0xAD => self.configuration |= CONFIGURATION_KEYBOARD_DISABLED,
            0xAE => self.configuration &= !CONFIGURATION_KEYBOARD_DISABLED,
            // Input port: keyboard not locked.
            0xC0 => self.answer(Source::Controller, &[0x80]),
            0xD0 => self.answer(Source::Controller, &[self.output_port]),
            0xD1 => self.expecting = Expecting::OutputPort,
            0xD2 => self.expecting = Expecting::KeyboardEcho,
            0xD3 => self.expecting = Expecting::MouseEcho,
            0xD4 => self.expecting = Expecting::Mouse,
            // Pulse output lines low: bit 0 is the processor's reset line.
            0xF0..=0xFF if command & 1 == 0 => return Some(ResetKind::Soft),
            _ => {}
        }
        None
    }

    /// A byte to the data port. Writing the output port may reset the machine.
    pub fn write_data(&mut self, value: u8) -> Option<ResetKind> {
        self.last_was_command = false;
        match std::mem::take(&mut self.expecting) {
            Expecting::KeyboardCommand => self.keyboard_command(value),
            Expecting::KeyboardParameter => self.answer(Source::Keyboard, &[ACK]),
            Expecting::Configuration => self.configuration = value,
            Expecting::OutputPort => {
                let resets = self.output_port & !value & OUTPUT_NOT_RESET != 0;
                // The reset line is released by the reset itself.
                self.output_port = value | OUTPUT_NOT_RESET | OUTPUT_A20;
                return resets.then_some(ResetKind::Soft);
            }
            Expecting::KeyboardEcho => self.answer(Source::Keyboard, &[value]),
            Expecting::MouseEcho => self.answer(Source::Mouse, &[value]),
            Expecting::Mouse => self.mouse_command(value),
        }
        None
    }

    fn keyboard_command(&mut self, command: u8) {
        match command {
            0xFF => self.answer(Source::Keyboard, &[ACK, 0xAA]),
            0xEE => self.answer(Source::Keyboard, &[0xEE]),
            0xF2 => self.answer(Source::Keyboard, &[ACK, 0xAB, 0x83]),
            0xED | 0xF0 | 0xF3 => {
                self.expecting = Expecting::KeyboardParameter;
                self.answer(Source::Keyboard, &[ACK]);
            }
            0xF4..=0xF6 => self.answer(Source::Keyboard, &[ACK]),
            _ => self.answer(Source::Keyboard, &[RESEND]),
        }
    }

    /// A command to the mouse, or the parameter of one: two buttons, no movement.
    fn mouse_command(&mut self, command: u8) {
        if std::mem::take(&mut self.mouse_parameter) {
            return self.answer(Source::Mouse, &[ACK]);
        }
        match command {
            0xFF => self.answer(Source::Mouse, &[ACK, 0xAA, 0]),
            0xF2 => self.answer(Source::Mouse, &[ACK, 0]),
            // Status: disabled, 4 counts per mm, 100 samples per second.
            0xE9 => self.answer(Source::Mouse, &[ACK, 0, 2, 100]),
            // A packet on request.
            0xEB => self.answer(Source::Mouse, &[ACK, 1 << 3, 0, 0]),
            0xE8 | 0xF3 => {
                self.mouse_parameter = true;
                self.answer(Source::Mouse, &[ACK]);
            }
            0xE6 | 0xE7 | 0xEA | 0xEC | 0xEE | 0xF0 | 0xF4..=0xF6 => self.answer(Source::Mouse, &[ACK]),
            _ => self.answer(Source::Mouse, &[RESEND]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_self_test_passes() {
        let mut controller = I8042::new();
        assert_eq!(controller.write_command(0xAA), None);
        assert_eq!(controller.read_status() & STATUS_OUTPUT_FULL, STATUS_OUTPUT_FULL);
        assert_eq!(controller.read_data(), 0x55);
        assert_eq!(controller.read_status() & STATUS_OUTPUT_FULL, 0);
    }

    #[test]
    fn command_fe_resets_softly() {
        assert_eq!(I8042::new().write_command(0xFE), Some(ResetKind::Soft));
        assert_eq!(I8042::new().write_command(0xFF), None);
    }

    #[test]
    fn clearing_bit_0_of_the_output_port_resets() {
        let mut controller = I8042::new();
        controller.write_command(0xD0);
        let port = controller.read_data();
        assert_eq!(port & 3, 3);
        controller.write_command(0xD1);
        assert_eq!(controller.write_data(port & !1), Some(ResetKind::Soft));
        controller.write_command(0xD1);
        assert_eq!(controller.write_data(port), None);
    }

    #[test]
    fn the_keyboard_answers_and_interrupts_once_enabled() {
        let mut controller = I8042::new();
        controller.write_data(0xF2);
        assert_eq!(controller.take_interrupt(), None);
        assert_eq!([(); 3].map(|()| controller.read_data()), [0xFA, 0xAB, 0x83]);
        controller.write_command(0x60);
        controller.write_data(CONFIGURATION_INTERRUPT);
        controller.write_data(0xED);
        assert_eq!(controller.take_interrupt(), Some(KEYBOARD_IRQ));
        assert_eq!(controller.read_data(), ACK);
        controller.write_data(7);
        assert_eq!(controller.read_data(), ACK);
    }

    fn to_mouse(controller: &mut I8042, byte: u8) {
        controller.write_command(0xD4);
        controller.write_data(byte);
    }

    #[test]
    fn the_mouse_answers_beside_the_keyboard() {
        let mut controller = I8042::new();
        controller.write_command(0x60);
        controller.write_data(CONFIGURATION_INTERRUPT | CONFIGURATION_MOUSE_INTERRUPT);
        to_mouse(&mut controller, 0xFF);
        assert_eq!(controller.take_interrupt(), Some(MOUSE_IRQ));
        controller.write_data(0xEE);
        assert_eq!(controller.read_status() & (STATUS_OUTPUT_FULL | STATUS_MOUSE), STATUS_OUTPUT_FULL | STATUS_MOUSE);
        assert_eq!([(); 3].map(|()| controller.read_data()), [ACK, 0xAA, 0]);
        assert_eq!(controller.read_status() & (STATUS_OUTPUT_FULL | STATUS_MOUSE), STATUS_OUTPUT_FULL);
        assert_eq!(controller.take_interrupt(), Some(KEYBOARD_IRQ));
        assert_eq!(controller.read_data(), 0xEE);
        to_mouse(&mut controller, 0xF3);
        to_mouse(&mut controller, 0xFF);
        assert_eq!([(); 2].map(|()| controller.read_data()), [ACK, ACK]);
    }

    /// How guests find out whether there is a second port.
    #[test]
    fn the_mouse_port_loops_back() {
        let mut controller = I8042::new();
        controller.write_command(0xA9);
        assert_eq!(controller.read_data(), 0);
        controller.write_command(0xD3);
        controller.write_data(0xA5);
        assert_ne!(controller.read_status() & STATUS_MOUSE, 0);
        assert_eq!(controller.read_data(), 0xA5);
    }

    #[test]
    fn answers_that_nobody_reads_do_not_pile_up() {
        let mut controller = I8042::new();
        for _ in 0..1000 {
            controller.write_data(0xFF);
        }
        assert!(controller.queue.len() <= QUEUE_LIMIT);
    }
}
