//! A 16550A, the chip of a PC's serial ports (National Semiconductor PC16550D data sheet, 1995). Its wire is as fast as need
//! be: what is transmitted has gone at once, and the character time-out of the receiver has always passed.

use std::collections::VecDeque;

/// Registers, by offset. With the divisor latch open the first two are the divisor.
const DATA: u16 = 0;
const INTERRUPT_ENABLE: u16 = 1;
/// Read: which interrupt. Written: FIFO control.
const INTERRUPT_IDENTIFICATION: u16 = 2;
const LINE_CONTROL: u16 = 3;
const MODEM_CONTROL: u16 = 4;
const LINE_STATUS: u16 = 5;
const MODEM_STATUS: u16 = 6;
const SCRATCH: u16 = 7;

const ENABLE_RECEIVED: u8 = 1 << 0;
const ENABLE_TRANSMITTER: u8 = 1 << 1;
const ENABLE_LINE_STATUS: u8 = 1 << 2;
const ENABLE_MODEM_STATUS: u8 = 1 << 3;
const ENABLE_BITS: u8 = 0x0F;

/// Causes of interrupts as the identification register names them (data sheet table IV), most urgent first.
const CAUSE_LINE_STATUS: u8 = 0x06;
const CAUSE_RECEIVED: u8 = 0x04;
const CAUSE_TIME_OUT: u8 = 0x0C;
const CAUSE_TRANSMITTER: u8 = 0x02;
const CAUSE_MODEM_STATUS: u8 = 0x00;
const CAUSE_NONE: u8 = 0x01;
const FIFOS_ENABLED: u8 = 0xC0;

const FIFO_ENABLE: u8 = 1 << 0;
const FIFO_CLEAR_RECEIVER: u8 = 1 << 1;
/// Bits that a FIFO control register keeps: enable, DMA mode, trigger level.
const FIFO_KEPT: u8 = 0xC9;
/// How many bytes raise the interrupt, by bits 7:6.
const TRIGGER_LEVELS: [usize; 4] = [1, 4, 8, 14];
const FIFO_SIZE: usize = 16;

const DIVISOR_LATCH: u8 = 1 << 7;

const DTR: u8 = 1 << 0;
const RTS: u8 = 1 << 1;
const OUT1: u8 = 1 << 2;
const OUT2: u8 = 1 << 3;
const LOOP_BACK: u8 = 1 << 4;
const MODEM_CONTROL_BITS: u8 = 0x1F;

const DATA_READY: u8 = 1 << 0;
const OVERRUN: u8 = 1 << 1;
const BREAK: u8 = 1 << 4;
/// Holding register and shift register are both empty.
const TRANSMITTER_EMPTY: u8 = 0x60;
const ERROR_IN_FIFO: u8 = 1 << 7;

const CTS: u8 = 1 << 4;
const DSR: u8 = 1 << 5;
const RI: u8 = 1 << 6;
const DCD: u8 = 1 << 7;
/// What is at the other end of the wire: a terminal that is switched on.
const CONNECTED: u8 = CTS | DSR | DCD;
const RI_ENDED: u8 = 1 << 2;

/// A received character, with its error bits of the line status register.
#[derive(Clone, Copy, Debug, Hash)]
struct Received {
    byte: u8,
    errors: u8,
}

/// The chip.
#[derive(Debug, Hash)]
pub struct Uart {
    divisor: [u8; 2],
    interrupt_enable: u8,
    fifo_control: u8,
    line_control: u8,
    modem_control: u8,
    scratch: u8,
    /// Overrun, and the errors of the oldest character, until they are read.
    line_errors: u8,
    /// What has changed of the modem's lines since they were read.
    modem_changes: u8,
    received: VecDeque<Received>,
    /// The transmitter has run empty and nobody has been told.
    transmitter_ran_empty: bool,
}

impl Uart {
    pub fn new() -> Self {
        Self {
            divisor: [12, 0],
            interrupt_enable: 0,
            fifo_control: 0,
            line_control: 0x03,
            modem_control: 0,
            scratch: 0,
            line_errors: 0,
            modem_changes: 0,
            received: VecDeque::new(),
            transmitter_ran_empty: false,
        }
    }

    // -- the wire

    /// How many bytes the receiver takes from the wire before it would lose one.
    pub fn room(&self) -> usize {
        if self.is_looped_back() { 0 } else { self.fifo_size() - self.received.len().min(self.fifo_size()) }
    }

    /// A byte arrives on the wire. In loop-back mode the chip does not listen.
    pub fn receive(&mut self, byte: u8) {
        if !self.is_looped_back() {
            self.take_in(Received { byte, errors: 0 });
        }
    }

    /// The wire is held at zero for longer than a character takes: a break.
    pub fn receive_break(&mut self) {
        if !self.is_looped_back() {
            self.take_in(Received { byte: 0, errors: BREAK });
        }
    }

    /// Whether the guest wants an interrupt when a byte arrives.
    pub fn interrupts_on_input(&self) -> bool {
        self.interrupt_enable & ENABLE_RECEIVED != 0
    }

    /// Whether no event at all raises an interrupt: who uses the chip polls it.
    pub fn is_polled(&self) -> bool {
        self.interrupt_enable == 0
    }

    /// Level of the interrupt line. A PC can cut it by OUT2; as guests forget that, and no other emulator insists, this
    /// one does not either.
    pub fn interrupt_line(&self) -> bool {
        self.cause() != CAUSE_NONE
    }

    fn take_in(&mut self, character: Received) {
        if self.received.len() >= self.fifo_size() {
            self.line_errors |= OVERRUN;
            // Without FIFOs the new character replaces the old one; a FIFO keeps what it has (data sheet section 8.3).
            if self.fifo_control & FIFO_ENABLE != 0 {
                return;
            }
            self.received.clear();
        }
        self.received.push_back(character);
        if self.received.len() == 1 {
            self.line_errors |= character.errors;
        }
    }

    fn fifo_size(&self) -> usize {
        if self.fifo_control & FIFO_ENABLE == 0 { 1 } else { FIFO_SIZE }
    }

    fn is_looped_back(&self) -> bool {
        self.modem_control & LOOP_BACK != 0
    }

    // -- registers

    /// Read the register at an offset of 0 to 7.
    pub fn read(&mut self, register: u16) -> u8 {
        let is_latch_open = self.line_control & DIVISOR_LATCH != 0;
        match register {
            DATA if is_latch_open => self.divisor[0],
            INTERRUPT_ENABLE if is_latch_open => self.divisor[1],
            DATA => self.read_data(),
            INTERRUPT_ENABLE => self.interrupt_enable,
            INTERRUPT_IDENTIFICATION => self.read_identification(),
            LINE_CONTROL => self.line_control,
            MODEM_CONTROL => self.modem_control,
            LINE_STATUS => self.read_line_status(),
            MODEM_STATUS => self.modem_lines() | std::mem::take(&mut self.modem_changes),
            _ => self.scratch,
        }
    }

    /// Write the register at an offset of 0 to 7; returns what goes out on the wire.
    pub fn write(&mut self, register: u16, value: u8) -> Option<u8> {
        let is_latch_open = self.line_control & DIVISOR_LATCH != 0;
        match register {
            DATA if is_latch_open => self.divisor[0] = value,
            INTERRUPT_ENABLE if is_latch_open => self.divisor[1] = value,
            DATA => return self.transmit(value),
            INTERRUPT_ENABLE => self.enable_interrupts(value),
            INTERRUPT_IDENTIFICATION => self.control_fifo(value),
            LINE_CONTROL => self.line_control = value,
            MODEM_CONTROL => self.control_modem(value),
            SCRATCH => self.scratch = value,
            _ => {} // The status registers are written in the factory only.
        }
        None
    }

    fn transmit(&mut self, byte: u8) -> Option<u8> {
        self.transmitter_ran_empty = true;
        if !self.is_looped_back() {
            return Some(byte);
        }
        self.take_in(Received { byte, errors: 0 });
        None
    }

    fn read_data(&mut self) -> u8 {
        let Some(character) = self.received.pop_front() else { return 0 };
        self.line_errors &= OVERRUN;
        self.line_errors |= self.received.front().map_or(0, |next| next.errors);
        character.byte
    }

    fn enable_interrupts(&mut self, value: u8) {
        let rises = value & !self.interrupt_enable;
        self.interrupt_enable = value & ENABLE_BITS;
        // The transmitter is empty, and says so when it is asked (data sheet section 8.6.3).
        self.transmitter_ran_empty |= rises & ENABLE_TRANSMITTER != 0;
    }

    fn control_fifo(&mut self, value: u8) {
        let is_switched = (value ^ self.fifo_control) & FIFO_ENABLE != 0;
        // The other bits count only while FIFOs are enabled.
        self.fifo_control = if value & FIFO_ENABLE != 0 { value & FIFO_KEPT } else { 0 };
        if is_switched || value & (FIFO_ENABLE | FIFO_CLEAR_RECEIVER) == FIFO_ENABLE | FIFO_CLEAR_RECEIVER {
            self.received.clear();
            self.line_errors &= OVERRUN;
        }
    }

    fn control_modem(&mut self, value: u8) {
        let before = self.modem_lines();
        self.modem_control = value & MODEM_CONTROL_BITS;
        let (after, changed) = (self.modem_lines(), before ^ self.modem_lines());
        self.modem_changes |= (changed & (CTS | DSR | DCD)) >> 4;
        if changed & before & !after & RI != 0 {
            self.modem_changes |= RI_ENDED;
        }
    }

    /// The lines from the modem; in loop-back mode they are those to it (data sheet section 8.7, bit 4).
    fn modem_lines(&self) -> u8 {
        if !self.is_looped_back() {
            return CONNECTED;
        }
        [(RTS, CTS), (DTR, DSR), (OUT1, RI), (OUT2, DCD)]
            .into_iter()
            .filter(|(from, _)| self.modem_control & from != 0)
            .fold(0, |lines, (_, to)| lines | to)
    }

    fn read_line_status(&mut self) -> u8 {
        let ready = if self.received.is_empty() { 0 } else { DATA_READY };
        let in_fifo =
            self.fifo_control & FIFO_ENABLE != 0 && self.received.iter().any(|character| character.errors != 0);
        let status = TRANSMITTER_EMPTY | ready | self.line_errors | if in_fifo { ERROR_IN_FIFO } else { 0 };
        self.line_errors = 0;
        if let Some(oldest) = self.received.front_mut() {
            oldest.errors = 0;
        }
        status
    }

    fn read_identification(&mut self) -> u8 {
        let cause = self.cause();
        if cause == CAUSE_TRANSMITTER {
            self.transmitter_ran_empty = false;
        }
        cause | if self.fifo_control & FIFO_ENABLE != 0 { FIFOS_ENABLED } else { 0 }
    }

    /// The most urgent cause of an interrupt that is enabled.
    fn cause(&self) -> u8 {
        let enabled = |bit| self.interrupt_enable & bit != 0;
        if enabled(ENABLE_LINE_STATUS) && self.line_errors != 0 {
            CAUSE_LINE_STATUS
        } else if enabled(ENABLE_RECEIVED) && !self.received.is_empty() {
            let level = TRIGGER_LEVELS[usize::from(self.fifo_control >> 6)];
            if self.received.len() >= level { CAUSE_RECEIVED } else { CAUSE_TIME_OUT }
        } else if enabled(ENABLE_TRANSMITTER) && self.transmitter_ran_empty {
            CAUSE_TRANSMITTER
        } else if enabled(ENABLE_MODEM_STATUS) && self.modem_changes != 0 {
            CAUSE_MODEM_STATUS
        } else {
            CAUSE_NONE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fifo() -> Uart {
        let mut uart = Uart::new();
        uart.write(INTERRUPT_IDENTIFICATION, FIFO_ENABLE);
        uart
    }

    #[test]
    fn identification_tells_a_16550a() {
        let mut uart = Uart::new();
        assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), CAUSE_NONE);
        uart.write(INTERRUPT_IDENTIFICATION, FIFO_ENABLE);
        assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), CAUSE_NONE | FIFOS_ENABLED);
    }

    #[test]
    fn the_divisor_hides_data_and_interrupt_enable() {
        let mut uart = Uart::new();
        uart.write(INTERRUPT_ENABLE, 0x5);
        uart.write(LINE_CONTROL, DIVISOR_LATCH);
        assert_eq!(uart.write(DATA, 1), None);
        uart.write(INTERRUPT_ENABLE, 2);
        assert_eq!((uart.read(DATA), uart.read(INTERRUPT_ENABLE)), (1, 2));
        uart.write(LINE_CONTROL, 0x03);
        assert_eq!(uart.read(INTERRUPT_ENABLE), 0x5);
    }

    #[test]
    fn a_full_fifo_keeps_the_oldest_and_says_overrun_once() {
        let mut uart = with_fifo();
        (0..=16).for_each(|byte| uart.receive(byte));
        assert_eq!(uart.room(), 0);
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY | OVERRUN | DATA_READY);
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY | DATA_READY);
        let read: Vec<u8> = (0..16).map(|_| uart.read(DATA)).collect();
        assert_eq!(read, (0..16).collect::<Vec<u8>>());
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY);
    }

    #[test]
    fn without_fifos_the_newest_byte_stays() {
        let mut uart = Uart::new();
        uart.receive(1);
        uart.receive(2);
        assert_eq!(uart.read(LINE_STATUS) & OVERRUN, OVERRUN);
        assert_eq!(uart.read(DATA), 2);
    }

    #[test]
    fn the_receiver_interrupts_until_it_is_empty() {
        let mut uart = with_fifo();
        uart.write(INTERRUPT_IDENTIFICATION, FIFO_ENABLE | 0x40); // From four bytes on.
        uart.write(INTERRUPT_ENABLE, ENABLE_RECEIVED);
        assert!(!uart.interrupt_line());
        (0..5).for_each(|byte| uart.receive(byte));
        for cause in [CAUSE_RECEIVED, CAUSE_RECEIVED, CAUSE_TIME_OUT, CAUSE_TIME_OUT, CAUSE_TIME_OUT] {
            assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), cause | FIFOS_ENABLED);
            uart.read(DATA);
        }
        assert!(!uart.interrupt_line());
    }

    #[test]
    fn the_transmitter_interrupts_when_enabled_and_after_each_byte() {
        let mut uart = Uart::new();
        uart.write(INTERRUPT_ENABLE, ENABLE_TRANSMITTER);
        assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), CAUSE_TRANSMITTER);
        assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), CAUSE_NONE);
        assert_eq!(uart.write(DATA, b'a'), Some(b'a'));
        assert!(uart.interrupt_line());
        uart.write(INTERRUPT_ENABLE, 0);
        assert!(!uart.interrupt_line());
    }

    #[test]
    fn a_break_is_a_zero_with_its_bit_and_the_most_urgent_cause() {
        let mut uart = with_fifo();
        uart.write(INTERRUPT_ENABLE, ENABLE_BITS);
        uart.receive(b'a');
        uart.receive_break();
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY | DATA_READY | ERROR_IN_FIFO);
        assert_eq!(uart.read(DATA), b'a');
        assert_eq!(uart.read(INTERRUPT_IDENTIFICATION), CAUSE_LINE_STATUS | FIFOS_ENABLED);
        assert_eq!(uart.read(LINE_STATUS) & (BREAK | DATA_READY), BREAK | DATA_READY);
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY | DATA_READY);
        assert_eq!(uart.read(DATA), 0);
    }

    #[test]
    fn loop_back_sends_to_itself_and_turns_the_modem_lines_round() {
        let mut uart = Uart::new();
        assert_eq!(uart.read(MODEM_STATUS), CONNECTED);
        uart.write(MODEM_CONTROL, LOOP_BACK | RTS | OUT2);
        assert_eq!(uart.read(MODEM_STATUS), CTS | DCD | 0x02);
        assert_eq!(uart.write(DATA, b'x'), None);
        uart.receive(b'y');
        assert_eq!(uart.room(), 0);
        assert_eq!(uart.read(DATA), b'x');
        uart.write(MODEM_CONTROL, LOOP_BACK | OUT1);
        uart.write(MODEM_CONTROL, LOOP_BACK);
        assert_eq!(uart.read(MODEM_STATUS) & RI_ENDED, RI_ENDED);
    }

    #[test]
    fn clearing_the_fifo_drops_what_came() {
        let mut uart = with_fifo();
        uart.receive(1);
        uart.write(INTERRUPT_IDENTIFICATION, FIFO_ENABLE | FIFO_CLEAR_RECEIVER);
        assert_eq!(uart.read(LINE_STATUS), TRANSMITTER_EMPTY);
    }
}
