//! The first serial port: a 16550A at 0x3F8, interrupt 4. The chip is `vm-superio`'s; this file adds what surrounds it: an
//! input queue of any length, and the host's end of the wire.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use vm_superio::Trigger;
use vm_superio::serial::{Error, NoEvents, Serial, SerialState};

use crate::output::Output;

/// The port's registers.
pub const FIRST_PORT: u16 = 0x3F8;
pub const LAST_PORT: u16 = 0x3FF;
/// The port's interrupt line.
pub const IRQ: u8 = 4;

/// Remembers that the chip asked for an interrupt.
#[derive(Debug, Default)]
struct InterruptRequest(AtomicBool);

impl Trigger for InterruptRequest {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.0.store(true, Relaxed);
        Ok(())
    }
}

type Chip = Serial<InterruptRequest, NoEvents, Output>;

/// The serial port.
pub struct SerialPort {
    chip: Chip,
    /// What does not fit into the chip's FIFO yet.
    input: VecDeque<u8>,
}

/// The host cannot take the guest's output; the reason is with [`Output::take_error`].
#[derive(Debug, PartialEq, Eq)]
pub struct OutputFailed;

impl SerialPort {
    pub fn new() -> Self {
        Self { chip: Serial::new(InterruptRequest::default(), Output::default()), input: VecDeque::new() }
    }

    /// RESET. The wire, and what waits on it, stays.
    pub fn reset(&mut self) {
        let output = std::mem::take(self.chip.writer_mut());
        self.chip = Serial::new(InterruptRequest::default(), output);
    }

    /// The host's end of the wire.
    pub fn output(&mut self) -> &mut Output {
        self.chip.writer_mut()
    }

    /// Bytes for the guest to receive.
    pub fn receive(&mut self, bytes: &[u8]) {
        self.input.extend(bytes);
        self.fill_fifo();
    }

    fn fill_fifo(&mut self) {
        let count = self.chip.fifo_capacity().min(self.input.len());
        let (front, _) = self.input.as_slices();
        let chunk = &front[..count.min(front.len())];
        // In loop-back mode the chip takes nothing; what it has not taken stays in the queue.
        let taken = self.chip.enqueue_raw_bytes(chunk).unwrap_or(0);
        self.input.drain(..taken);
    }

    /// Whether the chip asked for an interrupt since the last call: a pulse on its line.
    pub fn take_interrupt(&mut self) -> bool {
        self.chip.interrupt_evt().0.swap(false, Relaxed)
    }

    pub fn read(&mut self, port: u16) -> u8 {
        let value = self.chip.read(register(port));
        if !self.input.is_empty() {
            self.fill_fifo();
        }
        value
    }

    /// # Errors
    /// If the host cannot take the byte.
    pub fn write(&mut self, port: u16, value: u8) -> Result<(), OutputFailed> {
        let result = self.chip.write(register(port), value);
        if !self.input.is_empty() {
            self.fill_fifo();
        }
        match result {
            Err(Error::IOError(_)) => Err(OutputFailed),
            // A trigger cannot fail, and the chip drops what its FIFO cannot hold, as hardware does.
            Ok(()) | Err(Error::Trigger(_) | Error::FullFifo) => Ok(()),
        }
    }
}

fn register(port: u16) -> u8 {
    (port & 7) as u8
}

impl Hash for SerialPort {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let SerialState {
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
            in_buffer,
        } = self.chip.state();
        [
            baud_divisor_low,
            baud_divisor_high,
            interrupt_enable,
            interrupt_identification,
            line_control,
            line_status,
            modem_control,
            modem_status,
            scratch,
        ]
        .hash(hasher);
        in_buffer.hash(hasher);
        self.input.hash(hasher);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u16 = 0x3F8;
    const INTERRUPT_ENABLE: u16 = 0x3F9;
    const MODEM_CONTROL: u16 = 0x3FC;
    const LINE_STATUS: u16 = 0x3FD;

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
        let mut port = SerialPort::new();
        let sent: Vec<u8> = (0..=255).collect();
        port.receive(&sent);
        let mut received = Vec::new();
        while port.read(LINE_STATUS) & 1 != 0 {
            received.push(port.read(DATA));
        }
        assert_eq!(received, sent);
    }

    #[test]
    fn input_interrupts_once_enabled() {
        let mut port = SerialPort::new();
        port.receive(b"x");
        assert!(!port.take_interrupt());
        port.write(INTERRUPT_ENABLE, 1).unwrap();
        assert!(port.take_interrupt());
        assert!(!port.take_interrupt());
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
}
