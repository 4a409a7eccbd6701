//! The CMOS real-time clock and its memory, Motorola MC146818A with the PC/AT's century byte.
//!
//! The clock is virtual time plus an offset, which the guest changes by setting it. Flags in register C are found out when
//! somebody looks, or when an interrupt is due; while the interrupt line is up nothing more can happen to it.

use crate::ticks::TickRate;

/// Index port; bit 7, which masks NMI on old boards, is ignored.
pub const INDEX: u16 = 0x70;
/// Data port.
pub const DATA: u16 = 0x71;
/// Interrupt line.
pub const IRQ: u8 = 8;

const SECONDS: u8 = 0x00;
const SECONDS_ALARM: u8 = 0x01;
const MINUTES: u8 = 0x02;
const MINUTES_ALARM: u8 = 0x03;
const HOURS: u8 = 0x04;
const HOURS_ALARM: u8 = 0x05;
const DAY_OF_WEEK: u8 = 0x06;
const DAY_OF_MONTH: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0A;
const REGISTER_B: u8 = 0x0B;
const REGISTER_C: u8 = 0x0C;
const REGISTER_D: u8 = 0x0D;
const CENTURY: u8 = 0x32;

/// Register A: update in progress.
const UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// Register A: 32768 Hz crystal, and the fastest useful rate of the periodic interrupt: 1024 Hz.
const REGISTER_A_DEFAULT: u8 = 0x26;
/// Register A: divider; other values than this stop the clock.
const DIVIDER: u8 = 0x70;
const DIVIDER_32768_HZ: u8 = 0x20;
/// Register B: the time is being set.
const SET: u8 = 1 << 7;
const PERIODIC: u8 = 1 << 6;
const ALARM: u8 = 1 << 5;
const UPDATE_ENDED: u8 = 1 << 4;
const BINARY: u8 = 1 << 2;
const HOURS_24: u8 = 1 << 1;
/// Register C: the interrupt line is up.
const INTERRUPT: u8 = 1 << 7;
/// Register D: memory and time are valid.
const VALID: u8 = 1 << 7;

/// Hours: afternoon, in 12-hour format.
const PM: u8 = 1 << 7;
/// An alarm byte from here on matches everything.
const DO_NOT_CARE: u8 = 0xC0;

const NS_PER_SECOND: u64 = 1_000_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// How long before the update its flag shows (data sheet: 244 us).
const UPDATE_WARNING_NS: u64 = 244_000;
const CRYSTAL: TickRate = TickRate(32_768);

/// A date and time of the proleptic Gregorian calendar, plain binary.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
struct DateTime {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    /// 1 is Sunday.
    weekday: u64,
}

impl DateTime {
    fn of_unix(seconds: u64) -> Self {
        let days = seconds / SECONDS_PER_DAY;
        let in_day = seconds % SECONDS_PER_DAY;
        let (year, month, day) = date_of_days(days);
        Self {
            year,
            month,
            day,
            hour: in_day / 3600,
            minute: in_day / 60 % 60,
            second: in_day % 60,
            // 1 January 1970 was a Thursday.
            weekday: (days + 4) % 7 + 1,
        }
    }

    fn to_unix(self) -> u64 {
        let days = days_of_date(self.year, self.month, self.day);
        days * SECONDS_PER_DAY + self.hour * 3600 + self.minute * 60 + self.second
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_in_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days of the years 1 to `year - 1`.
fn days_before_year(year: u64) -> u64 {
    let full = year.saturating_sub(1);
    full * 365 + full / 4 - full / 100 + full / 400
}

/// Days from 1 January 1970; dates before it are that day. `month` is 1 to 12.
fn days_of_date(year: u64, month: u64, day: u64) -> u64 {
    let before_month: u64 = (1..month).map(|month| days_in_month(year, month)).sum();
    (days_before_year(year) + before_month + day.saturating_sub(1)).saturating_sub(days_before_year(1970))
}

fn date_of_days(days: u64) -> (u64, u64, u64) {
    let absolute = days + days_before_year(1970);
    // At most one too early: 400 years have 146097 days.
    let mut year = absolute * 400 / 146_097 + 1;
    if days_before_year(year) > absolute {
        year -= 1;
    } else if days_before_year(year + 1) <= absolute {
        year += 1;
    }
    let mut rest = absolute - days_before_year(year);
    let mut month = 1;
    while rest >= days_in_month(year, month) {
        rest -= days_in_month(year, month);
        month += 1;
    }
    (year, month, rest + 1)
}

/// The clock and its 128 bytes.
#[derive(Clone, Debug, Hash)]
pub struct Rtc {
    index: u8,
    /// The bytes behind the registers: alarms and memory. Time and registers A to D are not here.
    memory: [u8; 128],
    register_a: u8,
    register_b: u8,
    /// Flags of register C but [`INTERRUPT`].
    flags: u8,
    /// What the clock shows at virtual time 0, in ns since 1970. Wraps, for a guest may set the clock back; wide, for it
    /// may set it to the year 9999.
    epoch_ns: u128,
    /// The time while it is being set, or the clock is stopped.
    held: Option<DateTime>,
    /// Until when flags have been found out.
    seen_ns: u64,
}

impl Rtc {
    pub fn new(start_unix_ns: u64) -> Self {
        Self {
            index: 0,
            memory: [0; 128],
            register_a: REGISTER_A_DEFAULT,
            register_b: HOURS_24,
            flags: 0,
            epoch_ns: start_unix_ns.into(),
            held: None,
            seen_ns: 0,
        }
    }

    /// RESET: no interrupts; time and memory have a battery.
    pub fn reset(&mut self) {
        self.register_b &= !(PERIODIC | ALARM | UPDATE_ENDED);
        self.flags = 0;
        self.index = 0;
    }

    /// (whole seconds since 1970, ns since the last of them)
    fn unix(&self, now_ns: u64) -> (u64, u64) {
        let ns = self.epoch_ns.wrapping_add(now_ns.into());
        ((ns / u128::from(NS_PER_SECOND)) as u64, (ns % u128::from(NS_PER_SECOND)) as u64)
    }

    fn time(&self, now_ns: u64) -> DateTime {
        self.held.unwrap_or_else(|| DateTime::of_unix(self.unix(now_ns).0))
    }

    /// Let the clock show `time`; the second begins now.
    fn set_time(&mut self, time: DateTime, now_ns: u64) {
        self.epoch_ns = (u128::from(time.to_unix()) * u128::from(NS_PER_SECOND)).wrapping_sub(now_ns.into());
    }

    /// Set a byte of memory from outside of the guest. Time and registers A to D are not memory.
    pub fn set_memory(&mut self, index: u8, value: u8) {
        self.memory[usize::from(index & 0x7F)] = value;
    }

    /// A byte of memory.
    pub fn memory(&self, index: u8) -> u8 {
        self.memory[usize::from(index & 0x7F)]
    }

    // -- interrupts

    fn is_running(&self) -> bool {
        self.held.is_none()
    }

    /// Ticks of the crystal between periodic interrupts. `None`: rate 0 is none.
    fn period_ticks(&self) -> Option<u64> {
        match self.register_a & 0xF {
            0 => None,
            // Rates 1 and 2 are those of 8 and 9.
            rate @ 1..=2 => Some(1 << (rate + 6)),
            rate => Some(1 << (rate - 1)),
        }
    }

    /// The next moment after `ns` at which the flag will be set.
    fn next_flag_ns(&self, flag: u8, ns: u64) -> Option<u64> {
        match flag {
            PERIODIC => {
                let period = self.period_ticks()?;
                Some(CRYSTAL.ns((CRYSTAL.ticks(ns) / period + 1) * period))
            }
            UPDATE_ENDED if self.is_running() => ns.checked_add(NS_PER_SECOND - self.unix(ns).1),
            ALARM if self.is_running() => {
                let (unix_seconds, fraction_ns) = self.unix(ns);
                let seconds = self.seconds_to_alarm(unix_seconds % SECONDS_PER_DAY)?;
                ns.checked_add(seconds * NS_PER_SECOND - fraction_ns)
            }
            _ => None,
        }
    }

    /// Seconds from a second of the day to the next that the alarm matches, 1 to 86400.
    fn seconds_to_alarm(&self, second_of_day: u64) -> Option<u64> {
        let [seconds, minutes, hours] = [SECONDS_ALARM, MINUTES_ALARM, HOURS_ALARM].map(|index| self.alarm(index));
        let first_second = |minute_of_day: u64, from: u64| {
            let matching = |second: &u64| seconds.is_none_or(|alarm| alarm == *second);
            (from..60).find(matching).map(|second| minute_of_day * 60 + second)
        };
        let matches_minute = |minute_of_day: &u64| {
            hours.is_none_or(|alarm| alarm == minute_of_day / 60)
                && minutes.is_none_or(|alarm| alarm == minute_of_day % 60)
        };
        let start = second_of_day + 1;
        // The rest of the present minute, then whole minutes of this day and the next.
        let this_minute =
            Some(start / 60 % 1440).filter(matches_minute).and_then(|minute| first_second(minute, start % 60));
        if let Some(second) = this_minute {
            return Some((second + SECONDS_PER_DAY - second_of_day - 1) % SECONDS_PER_DAY + 1);
        }
        let minute = (1..=1440).map(|later| (start / 60 + later) % 1440).find(matches_minute)?;
        let second = first_second(minute, 0)?;
        Some((second + SECONDS_PER_DAY - second_of_day - 1) % SECONDS_PER_DAY + 1)
    }

    /// The value that an alarm byte asks for. `None`: any.
    fn alarm(&self, index: u8) -> Option<u64> {
        let raw = self.memory[usize::from(index)];
        (raw < DO_NOT_CARE).then(|| if index == HOURS_ALARM { self.decode_hours(raw) } else { self.decode(raw) })
    }

    /// Find out which flags have been set meanwhile.
    fn update_flags(&mut self, now_ns: u64) {
        for flag in [PERIODIC, ALARM, UPDATE_ENDED] {
            if self.flags & flag == 0 && self.next_flag_ns(flag, self.seen_ns).is_some_and(|ns| ns <= now_ns) {
                self.flags |= flag;
            }
        }
        self.seen_ns = now_ns;
    }

    /// The level of the interrupt line.
    pub fn irq_level(&mut self, now_ns: u64) -> bool {
        self.update_flags(now_ns);
        self.flags & self.register_b != 0
    }

    /// When the interrupt line will rise by itself.
    pub fn next_event_ns(&self, now_ns: u64) -> Option<u64> {
        if self.flags & self.register_b != 0 {
            return None;
        }
        [PERIODIC, ALARM, UPDATE_ENDED]
            .into_iter()
            .filter(|flag| self.register_b & flag != 0)
            .filter_map(|flag| self.next_flag_ns(flag, now_ns))
            .min()
    }

    // -- registers

    /// Write the index port.
    pub fn select(&mut self, value: u8) {
        self.index = value & 0x7F;
    }

    /// Read the data port.
    pub fn read(&mut self, now_ns: u64) -> u8 {
        match self.index {
            REGISTER_A => self.register_a | self.update_in_progress(now_ns),
            REGISTER_B => self.register_b,
            REGISTER_C => self.read_register_c(now_ns),
            REGISTER_D => VALID,
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | CENTURY => self.read_time(now_ns),
            index => self.memory[usize::from(index)],
        }
    }

    fn update_in_progress(&self, now_ns: u64) -> u8 {
        let to_update = NS_PER_SECOND - self.unix(now_ns).1;
        if self.is_running() && to_update <= UPDATE_WARNING_NS { UPDATE_IN_PROGRESS } else { 0 }
    }

    /// Reading clears all flags, and so the line.
    fn read_register_c(&mut self, now_ns: u64) -> u8 {
        self.update_flags(now_ns);
        let flags = std::mem::take(&mut self.flags);
        flags | if flags & self.register_b != 0 { INTERRUPT } else { 0 }
    }

    fn read_time(&self, now_ns: u64) -> u8 {
        let time = self.time(now_ns);
        match self.index {
            SECONDS => self.encode(time.second),
            MINUTES => self.encode(time.minute),
            HOURS => self.encode_hours(time.hour),
            DAY_OF_WEEK => self.encode(time.weekday),
            DAY_OF_MONTH => self.encode(time.day),
            MONTH => self.encode(time.month),
            YEAR => self.encode(time.year % 100),
            _ => self.encode(time.year / 100 % 100),
        }
    }

    /// Write the data port.
    pub fn write(&mut self, value: u8, now_ns: u64) {
        self.update_flags(now_ns);
        match self.index {
            REGISTER_A => {
                let time = self.time(now_ns);
                self.register_a = value & !UPDATE_IN_PROGRESS;
                self.start_or_hold(time, now_ns);
            }
            REGISTER_B => {
                let time = self.time(now_ns);
                // Setting the time forbids the update-ended interrupt (data sheet, register B).
                self.register_b = if value & SET != 0 { value & !UPDATE_ENDED } else { value };
                self.start_or_hold(time, now_ns);
            }
            REGISTER_C | REGISTER_D => {}
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK..=YEAR | CENTURY => self.write_time(value, now_ns),
            index => self.memory[usize::from(index)] = value,
        }
    }

    /// The clock stands while it is being set, and while its divider is off.
    fn start_or_hold(&mut self, time: DateTime, now_ns: u64) {
        let runs = self.register_b & SET == 0 && self.register_a & DIVIDER == DIVIDER_32768_HZ;
        match (runs, self.held) {
            (true, Some(held)) => {
                self.held = None;
                self.set_time(held, now_ns);
            }
            (false, None) => self.held = Some(time),
            _ => {}
        }
    }

    fn write_time(&mut self, value: u8, now_ns: u64) {
        let mut time = self.time(now_ns);
        // Whatever a guest writes becomes some date: the chip would count on from anything, which no clock shows.
        let number = self.decode(value);
        match self.index {
            SECONDS => time.second = number.min(59),
            MINUTES => time.minute = number.min(59),
            HOURS => time.hour = self.decode_hours(value).min(23),
            DAY_OF_WEEK => time.weekday = number.clamp(1, 7),
            DAY_OF_MONTH => time.day = number.clamp(1, 31),
            MONTH => time.month = number.clamp(1, 12),
            YEAR => time.year = time.year / 100 * 100 + number.min(99),
            _ => time.year = number.min(99) * 100 + time.year % 100,
        }
        match &mut self.held {
            Some(held) => *held = time,
            None => self.set_time(time, now_ns),
        }
    }

    fn encode(&self, value: u64) -> u8 {
        let value = value as u8;
        if self.register_b & BINARY != 0 { value } else { (value / 10) << 4 | (value % 10) }
    }

    fn decode(&self, value: u8) -> u64 {
        u64::from(if self.register_b & BINARY != 0 { value } else { (value >> 4) * 10 + (value & 0xF) })
    }

    fn encode_hours(&self, hour: u64) -> u8 {
        if self.register_b & HOURS_24 != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    fn decode_hours(&self, value: u8) -> u64 {
        if self.register_b & HOURS_24 != 0 {
            return self.decode(value);
        }
        self.decode(value & !PM) % 12 + if value & PM != 0 { 12 } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2009-02-13 23:31:30 UTC, a Friday.
    const START: u64 = 1_234_567_890 * NS_PER_SECOND;

    fn read(rtc: &mut Rtc, index: u8, now_ns: u64) -> u8 {
        rtc.select(index);
        rtc.read(now_ns)
    }

    fn write(rtc: &mut Rtc, index: u8, value: u8, now_ns: u64) {
        rtc.select(index);
        rtc.write(value, now_ns);
    }

    #[test]
    fn the_time_in_bcd() {
        let mut rtc = Rtc::new(START);
        let fields = [CENTURY, YEAR, MONTH, DAY_OF_MONTH, DAY_OF_WEEK, HOURS, MINUTES, SECONDS];
        assert_eq!(fields.map(|field| read(&mut rtc, field, 0)), [0x20, 0x09, 0x02, 0x13, 6, 0x23, 0x31, 0x30]);
        assert_eq!(read(&mut rtc, SECONDS, 5 * NS_PER_SECOND), 0x35);
    }

    #[test]
    fn the_time_in_binary_and_12_hours() {
        let mut rtc = Rtc::new(START);
        write(&mut rtc, REGISTER_B, BINARY, 0);
        assert_eq!(read(&mut rtc, HOURS, 0), PM | 11);
        assert_eq!(read(&mut rtc, MINUTES, 0), 31);
        for (hour, shown) in [(0, 12), (1, 1), (11, 11), (12, PM | 12), (13, PM | 1)] {
            assert_eq!(rtc.encode_hours(hour), shown);
            assert_eq!(rtc.decode_hours(shown), hour);
        }
    }

    #[test]
    fn dates_go_there_and_back() {
        for days in (0..80_000).chain([1_000_000]) {
            let (year, month, day) = date_of_days(days);
            assert_eq!(days_of_date(year, month, day), days, "{year}-{month}-{day}");
            assert!((1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day));
        }
        assert_eq!(date_of_days(11_016), (2000, 2, 29));
    }

    #[test]
    fn the_guest_sets_the_clock() {
        let mut rtc = Rtc::new(START);
        let now = 10 * NS_PER_SECOND + 7;
        write(&mut rtc, REGISTER_B, SET | HOURS_24, now);
        for (index, value) in
            [(YEAR, 0x26), (MONTH, 0x12), (DAY_OF_MONTH, 0x31), (HOURS, 0x23), (MINUTES, 0x59), (SECONDS, 0x58)]
        {
            write(&mut rtc, index, value, now);
        }
        assert_eq!(read(&mut rtc, SECONDS, now + 5 * NS_PER_SECOND), 0x58);
        write(&mut rtc, REGISTER_B, HOURS_24, now);
        assert_eq!(read(&mut rtc, SECONDS, now + NS_PER_SECOND), 0x59);
        assert_eq!(read(&mut rtc, YEAR, now + 2 * NS_PER_SECOND), 0x27);
        assert_eq!(read(&mut rtc, DAY_OF_MONTH, now + 2 * NS_PER_SECOND), 0x01);
    }

    #[test]
    fn an_update_is_announced() {
        let mut rtc = Rtc::new(START);
        assert_eq!(read(&mut rtc, REGISTER_A, 0), REGISTER_A_DEFAULT);
        assert_eq!(read(&mut rtc, REGISTER_A, NS_PER_SECOND - 1), REGISTER_A_DEFAULT | UPDATE_IN_PROGRESS);
        assert_eq!(read(&mut rtc, REGISTER_A, NS_PER_SECOND), REGISTER_A_DEFAULT);
    }

    #[test]
    fn the_periodic_interrupt_waits_for_register_c() {
        let mut rtc = Rtc::new(START);
        write(&mut rtc, REGISTER_B, HOURS_24 | PERIODIC, 0);
        let first = rtc.next_event_ns(0).unwrap();
        assert_eq!(first, CRYSTAL.ns(32));
        assert!(!rtc.irq_level(first - 1));
        assert!(rtc.irq_level(first));
        assert_eq!(rtc.next_event_ns(first), None);
        assert_eq!(read(&mut rtc, REGISTER_C, first), INTERRUPT | PERIODIC);
        assert!(!rtc.irq_level(first));
        assert_eq!(rtc.next_event_ns(first), Some(CRYSTAL.ns(64)));
    }

    #[test]
    fn the_alarm_matches_its_time_and_wildcards() {
        let mut rtc = Rtc::new(START);
        write(&mut rtc, REGISTER_B, HOURS_24 | ALARM, 0);
        for (alarm, seconds) in [
            ([0x23, 0x31, 0x31], 1),
            ([0x23, 0x31, 0x30], SECONDS_PER_DAY),
            ([0x23, 0x32, 0x00], 30),
            ([0x00, 0x00, 0x00], 28 * 60 + 30),
            ([0xFF, 0xFF, 0x05], 35),
            ([0xFF, 0x30, 0xFF], 58 * 60 + 30),
            ([0xFF, 0xFF, 0xFF], 1),
        ] {
            for (index, value) in [HOURS_ALARM, MINUTES_ALARM, SECONDS_ALARM].into_iter().zip(alarm) {
                write(&mut rtc, index, value, 0);
            }
            assert_eq!(rtc.next_event_ns(0), Some(seconds * NS_PER_SECOND), "{alarm:x?}");
        }
        // A minute that does not exist never comes.
        write(&mut rtc, MINUTES_ALARM, 0x75, 0);
        assert_eq!(rtc.next_event_ns(0), None);
    }

    #[test]
    fn flags_are_set_without_interrupts_too() {
        let mut rtc = Rtc::new(START);
        assert_eq!(read(&mut rtc, REGISTER_C, NS_PER_SECOND) & (INTERRUPT | UPDATE_ENDED), UPDATE_ENDED);
        assert_eq!(read(&mut rtc, REGISTER_C, NS_PER_SECOND), 0);
    }

    #[test]
    fn memory_survives_a_reset() {
        let mut rtc = Rtc::new(START);
        write(&mut rtc, 0x0F, 0x0A, 0);
        write(&mut rtc, REGISTER_B, HOURS_24 | PERIODIC, 0);
        rtc.reset();
        assert_eq!(read(&mut rtc, 0x0F, 0), 0x0A);
        assert_eq!(read(&mut rtc, REGISTER_B, 0), HOURS_24);
    }

    #[test]
    fn no_byte_sequence_panics() {
        let mut rtc = Rtc::new(START);
        let mut state = 1u32;
        for step in 0..20_000u64 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let now = step * 10_000_000;
            write(&mut rtc, (state >> 24) as u8 % 14, (state >> 16) as u8, now);
            rtc.select((state >> 8) as u8);
            rtc.read(now);
            rtc.irq_level(now);
            rtc.next_event_ns(now);
        }
    }
}
