//! The 8254 interval timer, Intel data sheet 231164, and port 0x61, which controls its third channel.
//!
//! A channel is a start time, a count and a mode: what it shows and when its output rises follow from the time. A new count
//! takes effect when it is complete, also in the periodic modes, where the chip would first finish the running period.

use crate::ticks::TickRate;

/// The 8254's input clock.
const RATE: TickRate = TickRate(1_193_182);
/// Interrupt of channel 0.
pub const IRQ: u8 = 0;
/// Counters 0 to 2, each a port.
pub const CHANNEL_0: u16 = 0x40;
/// Control word.
pub const CONTROL: u16 = 0x43;
/// System control port B.
pub const SYSTEM_CONTROL_B: u16 = 0x61;

/// Control word, bits 7:6: read back instead of a channel.
const READ_BACK: u8 = 3;
/// Read-back command: latch no count, latch no status (active low both).
const READ_BACK_NO_COUNT: u8 = 1 << 5;
const READ_BACK_NO_STATUS: u8 = 1 << 4;
const STATUS_OUTPUT: u8 = 1 << 7;
const STATUS_NULL_COUNT: u8 = 1 << 6;

/// Port 0x61: gate of channel 2.
const SPEAKER_GATE: u8 = 1 << 0;
/// Port 0x61: speaker data enable, and the enables of parity and channel check; kept, without effect.
const SPEAKER_BITS: u8 = 0x0F;
/// Port 0x61: toggles with each memory refresh.
const REFRESH_TOGGLE: u8 = 1 << 4;
/// Port 0x61: output of channel 2.
const SPEAKER_OUTPUT: u8 = 1 << 5;
/// A PC/AT refreshes each 15.085 us.
const REFRESH_NS: u64 = 15_085;

/// Bits 5:4 of the control word.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
enum Access {
    Low,
    High,
    LowHigh,
}

/// One counter.
#[derive(Clone, Debug, Hash)]
struct Channel {
    mode: u8,
    bcd: bool,
    access: Access,
    /// 1 to 0x10000 (0 written means the largest).
    count: u32,
    /// When counting began, in ticks since power-on. `None`: no complete count yet, or not triggered.
    start: Option<u64>,
    gate: bool,
    /// Ticks counted when the gate went low in a mode that pauses then.
    paused_at: Option<u64>,
    /// The low byte of a two-byte write that is half done.
    half_written: Option<u8>,
    /// The next byte read is the high one.
    read_high: bool,
    latched_count: Option<u16>,
    latched_status: Option<u8>,
}

impl Channel {
    fn new(gate: bool) -> Self {
        Self {
            mode: 3,
            bcd: false,
            access: Access::LowHigh,
            count: 0x10000,
            start: None,
            gate,
            paused_at: None,
            half_written: None,
            read_high: false,
            latched_count: None,
            latched_status: None,
        }
    }

    fn is_periodic(&self) -> bool {
        matches!(self.mode, 2 | 3)
    }

    /// Modes 1 and 5 start with a rising gate, not with the count.
    fn is_triggered(&self) -> bool {
        matches!(self.mode, 1 | 5)
    }

    /// Ticks counted so far.
    fn elapsed(&self, tick: u64) -> Option<u64> {
        let start = self.start?;
        Some(self.paused_at.unwrap_or_else(|| tick.saturating_sub(start)))
    }

    /// The OUT pin (data sheet, "Mode definitions").
    fn output(&self, tick: u64) -> bool {
        let count = u64::from(self.count);
        let Some(elapsed) = self.elapsed(tick) else {
            return self.mode != 0;
        };
        match self.mode {
            0 | 1 => elapsed >= count,
            2 => !self.gate || elapsed % count != count - 1 || count == 1,
            3 => !self.gate || elapsed % count < count.div_ceil(2),
            _ => elapsed != count,
        }
    }

    /// The counting element.
    fn counter(&self, tick: u64) -> u16 {
        let count = u64::from(self.count);
        let elapsed = self.elapsed(tick).unwrap_or(0);
        let value = match self.mode {
            2 => count - elapsed % count,
            // Counts down by two, each half period anew.
            3 => count - (elapsed * 2) % count,
            // Goes on below zero.
            _ => {
                let modulus = if self.bcd { 10_000 } else { 0x10000 };
                (count + modulus - elapsed % modulus) % modulus
            }
        };
        if self.bcd { to_bcd(value) } else { value as u16 }
    }

    /// When OUT rises for the first time after `tick`.
    fn next_rise(&self, tick: u64) -> Option<u64> {
        let (start, count) = (self.start?, u64::from(self.count));
        if !self.gate {
            return None;
        }
        let rise = match self.mode {
            0 | 1 => start + count,
            2 | 3 => start + (tick.saturating_sub(start) / count + 1) * count,
            _ => start + count + 1,
        };
        (rise > tick).then_some(rise)
    }

    fn write_control(&mut self, control: u8) {
        self.access = match control >> 4 & 3 {
            1 => Access::Low,
            2 => Access::High,
            _ => Access::LowHigh,
        };
        // Modes 6 and 7 are 2 and 3.
        let mode = control >> 1 & 7;
        self.mode = if mode > 5 { mode - 4 } else { mode };
        self.bcd = control & 1 != 0;
        self.start = None;
        self.paused_at = None;
        self.half_written = None;
        self.read_high = false;
        self.latched_count = None;
        self.latched_status = None;
    }

    fn write(&mut self, value: u8, tick: u64) {
        let value16 = match (self.access, self.half_written.take()) {
            (Access::Low, _) => u16::from(value),
            (Access::High, _) => u16::from(value) << 8,
            (Access::LowHigh, Some(low)) => u16::from_le_bytes([low, value]),
            (Access::LowHigh, None) => {
                self.half_written = Some(value);
                if self.mode == 0 {
                    self.start = None;
                }
                return;
            }
        };
        self.count = match (value16, self.bcd) {
            (0, true) => 10_000,
            (0, false) => 0x10000,
            (_, true) => from_bcd(value16),
            (_, false) => u32::from(value16),
        };
        if !self.is_triggered() {
            self.start = Some(tick);
            self.paused_at = (!self.gate).then_some(0);
        }
    }

    fn latch_count(&mut self, tick: u64) {
        if self.latched_count.is_none() {
            self.latched_count = Some(self.counter(tick));
        }
    }

    fn latch_status(&mut self, tick: u64) {
        if self.latched_status.is_some() {
            return;
        }
        let access = match self.access {
            Access::Low => 1,
            Access::High => 2,
            Access::LowHigh => 3,
        };
        let output = if self.output(tick) { STATUS_OUTPUT } else { 0 };
        let null = if self.start.is_none() { STATUS_NULL_COUNT } else { 0 };
        self.latched_status = Some(output | null | access << 4 | self.mode << 1 | u8::from(self.bcd));
    }

    fn read(&mut self, tick: u64) -> u8 {
        if let Some(status) = self.latched_status.take() {
            return status;
        }
        let [low, high] = self.latched_count.unwrap_or_else(|| self.counter(tick)).to_le_bytes();
        let (value, complete) = match self.access {
            Access::Low => (low, true),
            Access::High => (high, true),
            Access::LowHigh => {
                self.read_high = !self.read_high;
                if self.read_high { (low, false) } else { (high, true) }
            }
        };
        if complete {
            self.latched_count = None;
        }
        value
    }

    fn set_gate(&mut self, gate: bool, tick: u64) {
        if gate == self.gate {
            return;
        }
        if gate {
            self.open_gate(tick);
        } else if !self.is_triggered() {
            self.paused_at = self.elapsed(tick);
        }
        self.gate = gate;
    }

    /// A rising gate triggers modes 1 and 5, restarts 2 and 3, and lets 0 and 4 go on.
    fn open_gate(&mut self, tick: u64) {
        let paused_at = self.paused_at.take();
        if self.is_triggered() || (self.is_periodic() && self.start.is_some()) {
            self.start = Some(tick);
        } else if let Some(elapsed) = paused_at {
            self.start = Some(tick.saturating_sub(elapsed));
        }
    }
}

/// The last four decimal digits.
fn to_bcd(value: u64) -> u16 {
    let value = value % 10_000;
    [1000, 100, 10, 1].into_iter().fold(0, |bcd, place| bcd << 4 | (value / place % 10) as u16)
}

/// Digits above 9 count as the chip's adders would see them; the result is never 0 for a non-zero argument.
fn from_bcd(value: u16) -> u32 {
    let digit = |shift: u32| u32::from(value) >> shift & 0xF;
    digit(12) * 1000 + digit(8) * 100 + digit(4) * 10 + digit(0)
}

/// The chip, and port 0x61.
#[derive(Clone, Debug, Hash)]
pub struct Pit {
    channels: [Channel; 3],
    system_control_b: u8,
}

impl Pit {
    pub fn new() -> Self {
        Self { channels: [Channel::new(true), Channel::new(true), Channel::new(false)], system_control_b: 0 }
    }

    /// The OUT pin of channel 0, which is IRQ 0.
    pub fn irq_level(&self, now_ns: u64) -> bool {
        self.channels[0].output(RATE.ticks(now_ns))
    }

    /// When IRQ 0 rises next after `now_ns`.
    pub fn next_irq_ns(&self, now_ns: u64) -> Option<u64> {
        self.channels[0].next_rise(RATE.ticks(now_ns)).map(|tick| RATE.ns(tick))
    }

    pub fn read(&mut self, port: u16, now_ns: u64) -> u8 {
        match self.channels.get_mut(usize::from(port & 3)) {
            Some(channel) => channel.read(RATE.ticks(now_ns)),
            // The control word cannot be read.
            None => 0xFF,
        }
    }

    pub fn write(&mut self, port: u16, value: u8, now_ns: u64) {
        let tick = RATE.ticks(now_ns);
        if port == CONTROL {
            self.write_control(value, tick);
        } else if let Some(channel) = self.channels.get_mut(usize::from(port & 3)) {
            channel.write(value, tick);
        }
    }

    fn write_control(&mut self, value: u8, tick: u64) {
        let select = value >> 6;
        if select == READ_BACK {
            for (index, channel) in self.channels.iter_mut().enumerate() {
                if value & 2 << index == 0 {
                    continue;
                }
                if value & READ_BACK_NO_COUNT == 0 {
                    channel.latch_count(tick);
                }
                if value & READ_BACK_NO_STATUS == 0 {
                    channel.latch_status(tick);
                }
            }
        } else if value >> 4 & 3 == 0 {
            self.channels[usize::from(select)].latch_count(tick);
        } else {
            self.channels[usize::from(select)].write_control(value);
        }
    }

    pub fn read_system_control_b(&self, now_ns: u64) -> u8 {
        let refresh = if (now_ns / REFRESH_NS).is_multiple_of(2) { 0 } else { REFRESH_TOGGLE };
        let output = if self.channels[2].output(RATE.ticks(now_ns)) { SPEAKER_OUTPUT } else { 0 };
        self.system_control_b | refresh | output
    }

    pub fn write_system_control_b(&mut self, value: u8, now_ns: u64) {
        self.system_control_b = value & SPEAKER_BITS;
        self.channels[2].set_gate(value & SPEAKER_GATE != 0, RATE.ticks(now_ns));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn programmed(control: u8, count: u16) -> Pit {
        let mut pit = Pit::new();
        pit.write(CONTROL, control, 0);
        let port = 0x40 + u16::from(control >> 6);
        pit.write(port, count as u8, 0);
        pit.write(port, (count >> 8) as u8, 0);
        pit
    }

    fn rises(pit: &Pit, from: u64, wanted: usize) -> Vec<u64> {
        let mut ticks = Vec::new();
        let mut tick = from;
        while let Some(rise) = pit.channels[0].next_rise(tick) {
            ticks.push(rise);
            tick = rise;
            if ticks.len() == wanted {
                break;
            }
        }
        ticks
    }

    #[test]
    fn each_mode_raises_its_output_when_the_data_sheet_says() {
        for (control, expected) in [
            (0x30, vec![100]),
            (0x32, vec![]), // triggered by the gate, which is always high
            (0x34, vec![100, 200, 300]),
            (0x36, vec![100, 200, 300]),
            (0x38, vec![101]),
            (0x3A, vec![]),
            (0x3E, vec![100, 200, 300]),
        ] {
            assert_eq!(rises(&programmed(control, 100), 0, 3), expected, "{control:#x}");
        }
    }

    #[test]
    fn the_output_really_rises_there() {
        for control in [0x30, 0x34, 0x36, 0x38] {
            for count in [2, 3, 100] {
                let pit = programmed(control, count);
                for rise in rises(&pit, 0, 3) {
                    assert!(!pit.channels[0].output(rise - 1), "{control:#x} {count}");
                    assert!(pit.channels[0].output(rise), "{control:#x} {count}");
                }
            }
        }
    }

    #[test]
    fn a_count_of_zero_is_65536() {
        assert_eq!(rises(&programmed(0x34, 0), 0, 1), [0x10000]);
        assert_eq!(rises(&programmed(0x35, 0), 0, 1), [10_000]);
        assert_eq!(rises(&programmed(0x35, 0x1234), 0, 1), [1234]);
    }

    #[test]
    fn a_latched_count_stays_until_it_is_read() {
        let mut pit = programmed(0x34, 1000);
        let later = RATE.ns(100);
        pit.write(CONTROL, 0x00, later);
        pit.write(CONTROL, 0x00, RATE.ns(200));
        assert_eq!([pit.read(0x40, RATE.ns(300)), pit.read(0x40, RATE.ns(300))], 900u16.to_le_bytes());
        assert_eq!([pit.read(0x40, RATE.ns(300)), pit.read(0x40, RATE.ns(300))], 700u16.to_le_bytes());
    }

    #[test]
    fn read_back_gives_status_then_count() {
        let mut pit = programmed(0x34, 1000);
        pit.write(CONTROL, 0xC2, RATE.ns(10));
        assert_eq!(pit.read(0x40, 0), STATUS_OUTPUT | 0x34);
        assert_eq!([pit.read(0x40, 0), pit.read(0x40, 0)], 990u16.to_le_bytes());
        pit.write(CONTROL, 0x30, 0);
        pit.write(CONTROL, 0xE2, 0);
        assert_eq!(pit.read(0x40, 0), STATUS_NULL_COUNT | 0x30);
    }

    #[test]
    fn the_gate_pauses_a_calibration_on_channel_2() {
        let mut pit = programmed(0xB0, 100);
        assert_eq!(pit.read_system_control_b(RATE.ns(500)) & SPEAKER_OUTPUT, 0);
        pit.write_system_control_b(SPEAKER_GATE, RATE.ns(1000));
        assert_eq!(pit.read_system_control_b(RATE.ns(1099)) & SPEAKER_OUTPUT, 0);
        assert_ne!(pit.read_system_control_b(RATE.ns(1100)) & SPEAKER_OUTPUT, 0);
    }

    #[test]
    fn a_rising_gate_triggers_a_one_shot() {
        let mut pit = programmed(0xB2, 100);
        assert_ne!(pit.read_system_control_b(0) & SPEAKER_OUTPUT, 0);
        pit.write_system_control_b(SPEAKER_GATE, RATE.ns(10));
        assert_eq!(pit.read_system_control_b(RATE.ns(50)) & SPEAKER_OUTPUT, 0);
        assert_ne!(pit.read_system_control_b(RATE.ns(110)) & SPEAKER_OUTPUT, 0);
    }

    #[test]
    fn no_byte_sequence_panics() {
        let mut pit = Pit::new();
        let mut state = 1u32;
        for step in 0..20_000u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let port = 0x40 + (state >> 30) as u16;
            pit.write(port, (state >> 16) as u8, step * 1000);
            pit.read(0x40 + (state >> 28 & 3) as u16, step * 1000);
            pit.write_system_control_b((state >> 8) as u8, step * 1000);
            pit.next_irq_ns(step * 1000);
            pit.read_system_control_b(u64::MAX);
        }
    }
}
