//! The 8042 keyboard controller, with a keyboard that answers and whose keys nobody presses. There is no mouse.
//!
//! IBM PS/2 Hardware Interface Technical Reference, "Keyboard and auxiliary device controller".

use crate::reset::ResetKind;

/// Data port.
pub const DATA: u16 = 0x60;
/// Status (read) and command (write).
pub const COMMAND: u16 = 0x64;
/// Interrupt of the keyboard.
pub const IRQ: u8 = 1;

const STATUS_OUTPUT_FULL: u8 = 1 << 0;
const STATUS_SYSTEM: u8 = 1 << 2;
const STATUS_COMMAND: u8 = 1 << 3;
const STATUS_UNLOCKED: u8 = 1 << 4;

const CONFIGURATION_INTERRUPT: u8 = 1 << 0;
const CONFIGURATION_SYSTEM: u8 = 1 << 2;
const CONFIGURATION_KEYBOARD_DISABLED: u8 = 1 << 4;
const CONFIGURATION_MOUSE_DISABLED: u8 = 1 << 5;

/// Output port: processor reset, active low.
const OUTPUT_NOT_RESET: u8 = 1 << 0;
/// Output port: gate A20, which is always open here.
const OUTPUT_A20: u8 = 1 << 1;

const KEYBOARD_ACK: u8 = 0xFA;
const KEYBOARD_RESEND: u8 = 0xFE;
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
    /// A byte for the mouse that is not there.
    Mouse,
}

/// The controller.
#[derive(Clone, Debug, Hash)]
pub struct I8042 {
    configuration: u8,
    output_port: u8,
    expecting: Expecting,
    last_was_command: bool,
    queue: Vec<u8>,
    interrupt: bool,
}

impl I8042 {
    /// As firmware leaves it: tested, keyboard on, its interrupt off.
    pub fn new() -> Self {
        Self {
            configuration: CONFIGURATION_SYSTEM | CONFIGURATION_MOUSE_DISABLED,
            output_port: OUTPUT_NOT_RESET | OUTPUT_A20,
            expecting: Expecting::default(),
            last_was_command: false,
            queue: Vec::new(),
            interrupt: false,
        }
    }

    /// Whether an interrupt was asked for since the last call: a pulse on its line.
    pub fn take_interrupt(&mut self) -> bool {
        std::mem::take(&mut self.interrupt)
    }

    pub fn read_status(&self) -> u8 {
        let full = if self.queue.is_empty() { 0 } else { STATUS_OUTPUT_FULL };
        let command = if self.last_was_command { STATUS_COMMAND } else { 0 };
        full | command | self.configuration & STATUS_SYSTEM | STATUS_UNLOCKED
    }

    pub fn read_data(&mut self) -> u8 {
        if self.queue.is_empty() {
            return 0;
        }
        let byte = self.queue.remove(0);
        self.interrupt = !self.queue.is_empty() && self.configuration & CONFIGURATION_INTERRUPT != 0;
        byte
    }

    fn answer(&mut self, bytes: &[u8]) {
        if self.queue.len() + bytes.len() <= QUEUE_LIMIT {
            self.queue.extend(bytes);
        }
    }

    fn keyboard_answer(&mut self, bytes: &[u8]) {
        self.answer(bytes);
        self.interrupt |= self.configuration & CONFIGURATION_INTERRUPT != 0;
    }

    /// A command to the controller. Some reset the machine.
    pub fn write_command(&mut self, command: u8) -> Option<ResetKind> {
        self.last_was_command = true;
        self.expecting = Expecting::KeyboardCommand;
        match command {
            0x20 => self.answer(&[self.configuration]),
            0x60 => self.expecting = Expecting::Configuration,
            0xA7 => self.configuration |= CONFIGURATION_MOUSE_DISABLED,
            0xA8 => self.configuration &= !CONFIGURATION_MOUSE_DISABLED,
            // Mouse port test: clock line stuck low, for nothing is connected.
            0xA9 => self.answer(&[1]),
            0xAA => {
                self.configuration |= CONFIGURATION_SYSTEM;
                self.answer(&[0x55]);
            }
            0xAB => self.answer(&[0]),
            0xAD => self.configuration |= CONFIGURATION_KEYBOARD_DISABLED,
            0xAE => self.configuration &= !CONFIGURATION_KEYBOARD_DISABLED,
            // Input port: keyboard not locked.
            0xC0 => self.answer(&[0x80]),
            0xD0 => self.answer(&[self.output_port]),
            0xD1 => self.expecting = Expecting::OutputPort,
            0xD2 => self.expecting = Expecting::KeyboardEcho,
            0xD3 | 0xD4 => self.expecting = Expecting::Mouse,
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
            Expecting::KeyboardParameter => self.keyboard_answer(&[KEYBOARD_ACK]),
            Expecting::Configuration => self.configuration = value,
            Expecting::OutputPort => {
                let resets = self.output_port & !value & OUTPUT_NOT_RESET != 0;
                // The reset line is released by the reset itself.
                self.output_port = value | OUTPUT_NOT_RESET | OUTPUT_A20;
                return resets.then_some(ResetKind::Soft);
            }
            Expecting::KeyboardEcho => self.keyboard_answer(&[value]),
            Expecting::Mouse => {}
        }
        None
    }

    fn keyboard_command(&mut self, command: u8) {
        match command {
            0xFF => self.keyboard_answer(&[KEYBOARD_ACK, 0xAA]),
            0xEE => self.keyboard_answer(&[0xEE]),
            0xF2 => self.keyboard_answer(&[KEYBOARD_ACK, 0xAB, 0x83]),
            0xED | 0xF0 | 0xF3 => {
                self.expecting = Expecting::KeyboardParameter;
                self.keyboard_answer(&[KEYBOARD_ACK]);
            }
            0xF4..=0xF6 => self.keyboard_answer(&[KEYBOARD_ACK]),
            _ => self.keyboard_answer(&[KEYBOARD_RESEND]),
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
        assert!(!controller.take_interrupt());
        assert_eq!([(); 3].map(|()| controller.read_data()), [0xFA, 0xAB, 0x83]);
        controller.write_command(0x60);
        controller.write_data(CONFIGURATION_INTERRUPT);
        controller.write_data(0xED);
        assert!(controller.take_interrupt());
        assert_eq!(controller.read_data(), KEYBOARD_ACK);
        controller.write_data(7);
        assert_eq!(controller.read_data(), KEYBOARD_ACK);
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
