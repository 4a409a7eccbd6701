//! The first serial port: a 16550A at 0x3F8, interrupt 4, and the host's end of its wire: where output goes, and a queue of
//! input that gives the chip no more than it can take, as a wire with flow control.

use std::collections::VecDeque;
use std::hash::{Hash, Hasher};

use crate::console_watch::ConsoleWatch;
use crate::output::Output;
use crate::uart::Uart;

/// The port's registers.
pub const FIRST_PORT: u16 = 0x3F8;
pub const LAST_PORT: u16 = 0x3FF;
/// The port's interrupt line.
pub const IRQ: u8 = 4;

const DATA: u16 = FIRST_PORT;
const LINE_STATUS: u16 = FIRST_PORT + 5;
/// So many times the line status was read twice with nothing between: the guest waits for input. One that prints reads it
/// once for each byte, as the transmitter is always empty.
const WAITING_POLLS: u8 = 8;

/// What waits on the wire.
#[derive(Clone, Copy, Debug, Hash)]
enum Signal {
    Byte(u8),
    Break,
}

/// The serial port.
pub struct SerialPort {
    chip: Uart,
    /// What does not fit into the chip yet.
    input: VecDeque<Signal>,
    /// Repeated reads of the line status since the port was set up, up to [`WAITING_POLLS`].
    polls: u8,
    /// The last access was a read of the line status.
    polled: bool,
    output: Output,
    watch: ConsoleWatch,
    /// The text that [`SerialPort::watch`] waits for has been printed.
    text: Option<usize>,
}

/// The host cannot take the guest's output; the reason is with [`Output::take_error`].
#[derive(Debug, PartialEq, Eq)]
pub struct OutputFailed;

impl SerialPort {
    pub fn new() -> Self {
        Self {
            chip: Uart::new(),
            input: VecDeque::new(),
            polls: 0,
            polled: false,
            output: Output::default(),
            watch: ConsoleWatch::default(),
            text: None,
        }
    }

    /// RESET. The wire, and what waits on it, stays.
    pub fn reset(&mut self) {
        self.chip = Uart::new();
        (self.polls, self.polled) = (0, false);
    }

    /// The host's end of the wire.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Wait for lines that the guest's kernel prints; see [`ConsoleWatch`].
    pub fn watch(&mut self, texts: Vec<Vec<u8>>) {
        self.watch.set_texts(texts);
    }

    /// The number of the text that was printed since the last call.
    pub fn take_text(&mut self) -> Option<usize> {
        self.text.take()
    }

    /// Bytes for the guest to receive.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend(bytes.iter().map(|&byte| Signal::Byte(byte)));
        self.fill_chip();
    }

    /// A break on the wire, behind what waits.
    pub fn receive_break(&mut self) {
        self.input.push_back(Signal::Break);
        self.fill_chip();
    }

    /// How many bytes the guest would take now. 0 while it does not listen: a driver that starts reads the data register
    /// to clear it, and what it was sent before is lost.
    pub fn input_room(&self) -> usize {
        let listens = self.chip.interrupts_on_input() || self.polls == WAITING_POLLS;
        if listens && self.input.is_empty() { self.chip.room() } else { 0 }
    }

    fn fill_chip(&mut self) {
        while self.chip.room() > 0
            && let Some(signal) = self.input.pop_front()
        {
            match signal {
                Signal::Byte(byte) => self.chip.receive(byte),
                Signal::Break => self.chip.receive_break(),
            }
        }
    }

    /// Level of the interrupt line.
    pub fn interrupt_line(&self) -> bool {
        self.chip.interrupt_line()
    }

    pub fn read(&mut self, port: u16) -> u8 {
        let polls = port == LINE_STATUS;
        if polls && self.polled {
            self.polls = WAITING_POLLS.min(self.polls + 1);
        }
        self.polled = polls;
        let value = self.chip.read(port - FIRST_PORT);
        self.fill_chip();
        value
    }

    /// # Errors
    /// If the host cannot take the byte.
    pub fn write(&mut self, port: u16, value: u8) -> Result<(), OutputFailed> {
        self.polled = false;
        if port != DATA {
            self.polls = 0;
        }
        let sent = self.chip.write(port - FIRST_PORT, value);
        self.fill_chip();
        if let Some(byte) = sent
            && self.chip.is_polled()
        {
            self.text = self.watch.note(byte);
        }
        match sent {
            Some(byte) if !self.output.put(byte) => Err(OutputFailed),
            _ => Ok(()),
        }
    }
}

impl Hash for SerialPort {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        (&self.chip, &self.input, self.polls, self.polled).hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERRUPT_ENABLE: u16 = FIRST_PORT + 1;
    const FIFO_CONTROL: u16 = FIRST_PORT + 2;
    const MODEM_CONTROL: u16 = FIRST_PORT + 4;

    fn read_all(port: &mut SerialPort) -> Vec<u8> {
        std::iter::from_fn(|| (port.read(LINE_STATUS) & 1 != 0).then(|| port.read(DATA))).collect()
    }

    #[test]
    fn what_the_guest_prints_is_captured_without_change() {
        let mut port = SerialPort::new();
        assert_eq!(port.read(LINE_STATUS) & 0x20, 0x20);
        for byte in *b"a\r\n\0\xff" {
            port.write(DATA, byte).unwrap();
        }
        assert_eq!(port.output().take_captured(), b"a\r\n\0\xff");
    }

    #[test]
    fn input_longer_than_the_fifo_arrives_whole() {
        for fifo_control in [0, 1] {
            let mut port = SerialPort::new();
            port.write(FIFO_CONTROL, fifo_control).unwrap();
            let sent: Vec<u8> = (0..=255).collect();
            port.receive(&sent);
            assert_eq!(read_all(&mut port), sent);
        }
    }

    #[test]
    fn the_interrupt_stays_while_there_is_input() {
        let mut port = SerialPort::new();
        port.receive(b"xy");
        assert!(!port.interrupt_line());
        port.write(INTERRUPT_ENABLE, 1).unwrap();
        for _ in 0..2 {
            assert!(port.interrupt_line());
            port.read(DATA);
        }
        assert!(!port.interrupt_line());
    }

    #[test]
    fn loop_back_comes_before_what_waits_on_the_wire() {
        let mut port = SerialPort::new();
        port.write(MODEM_CONTROL, 0x10).unwrap();
        port.receive(b"w");
        port.write(DATA, b'l').unwrap();
        assert_eq!(port.read(DATA), b'l');
        port.write(MODEM_CONTROL, 0).unwrap();
        assert_eq!(port.read(DATA), b'w');
        assert!(port.output().take_captured().is_empty());
    }

    #[test]
    fn there_is_room_for_a_guest_that_listens() {
        let mut port = SerialPort::new();
        assert_eq!(port.input_room(), 0);
        port.write(INTERRUPT_ENABLE, 1).unwrap();
        assert_eq!(port.input_room(), 1);
        port.write(FIFO_CONTROL, 1).unwrap();
        assert_eq!(port.input_room(), 16);
        port.receive(&[0; 20]);
        assert_eq!(port.input_room(), 0);
    }

    #[test]
    fn polling_is_listening_and_printing_is_not() {
        let mut port = SerialPort::new();
        for _ in 0..100 {
            port.read(LINE_STATUS);
            port.write(DATA, b'.').unwrap();
        }
        assert_eq!(port.input_room(), 0);
        for _ in 0..=WAITING_POLLS {
            port.read(LINE_STATUS);
        }
        assert_eq!(port.input_room(), 1);
    }

    #[test]
    fn a_break_arrives_behind_the_bytes_before_it() {
        let mut port = SerialPort::new();
        port.receive(b"a");
        port.receive_break();
        assert_eq!((port.read(LINE_STATUS) & 0x11, port.read(DATA)), (0x01, b'a'));
        assert_eq!((port.read(LINE_STATUS) & 0x11, port.read(DATA)), (0x11, 0));
    }

    #[test]
    fn a_kernel_polls_and_is_watched_and_a_driver_is_not() {
        let mut port = SerialPort::new();
        port.watch(vec![b"panic".to_vec()]);
        let mut print = |interrupts: u8| {
            port.write(INTERRUPT_ENABLE, interrupts).unwrap();
            for byte in *b"panic\n" {
                port.write(DATA, byte).unwrap();
            }
            port.take_text()
        };
        assert_eq!(print(2), None);
        assert_eq!(print(0), Some(0));
        assert_eq!(port.take_text(), None);
    }
}
