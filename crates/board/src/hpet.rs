//! The high precision event timer, IA-PC HPET specification 1.0a: a counter of 100 MHz and three comparators, of which two can
//! take the interrupts of the 8254 and the real-time clock over.

use crate::mmio::all_ones;
use crate::ticks::TickRate;

/// Where its registers are.
pub const ADDRESS: u64 = 0xFED0_0000;
/// Bytes of them.
pub const SIZE: u64 = 0x400;
/// Comparators.
pub const TIMERS: usize = 3;

const RATE: TickRate = TickRate(100_000_000);
/// Femtoseconds of a tick, as the capabilities show it.
const PERIOD_FS: u64 = 10_000_000;

/// Registers, each of 64 bits (table 2).
const CAPABILITIES: u64 = 0x000;
const CONFIGURATION: u64 = 0x010;
const STATUS: u64 = 0x020;
const COUNTER: u64 = 0x0F0;
const FIRST_TIMER: u64 = 0x100;
const TIMER_STRIDE: u64 = 0x20;
const TIMER_CONFIGURATION: u64 = 0x00;
const TIMER_COMPARATOR: u64 = 0x08;

/// Capabilities: revision 1, three timers, 64 bits, legacy replacement, vendor 8086.
const CAPABILITIES_LOW: u64 = 0x8086_0001 | (TIMERS as u64 - 1) << 8 | 1 << 13 | 1 << 15;

/// Configuration: the counter runs, interrupts are let out.
const ENABLE: u64 = 1 << 0;
/// Configuration: timers 0 and 1 replace IRQ 0 and 8.
const LEGACY: u64 = 1 << 1;

/// Timer configuration.
const LEVEL: u64 = 1 << 1;
const INTERRUPT: u64 = 1 << 2;
const PERIODIC: u64 = 1 << 3;
const PERIODIC_CAPABLE: u64 = 1 << 4;
const WIDE_CAPABLE: u64 = 1 << 5;
/// The next value written to the comparator of a periodic timer goes there, and not only to its period.
const VALUE_SET: u64 = 1 << 6;
const NARROW: u64 = 1 << 8;
const ROUTE_SHIFT: u32 = 9;
const ROUTE: u64 = 0x1F << ROUTE_SHIFT;
/// Bits that software may change.
const WRITABLE: u64 = LEVEL | INTERRUPT | PERIODIC | VALUE_SET | NARROW | ROUTE;
/// Bits that never change: any timer can go to GSI 16 to 23, which nobody else uses.
const FIXED: u64 = PERIODIC_CAPABLE | WIDE_CAPABLE | ROUTES << 32;
const ROUTES: u64 = 0x00FF_0000;

/// Lines that a legacy replacement drives.
const LEGACY_IRQS: [u32; 2] = [0, 8];

/// What a timer does to an interrupt line.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq)]
pub enum Signal {
    /// Up and down at once.
    Pulse(u32),
    /// Up, until its status bit is cleared.
    Level(u32, bool),
}

#[derive(Clone, Debug, Hash)]
struct Timer {
    configuration: u64,
    comparator: u64,
    /// Of a periodic timer, in ticks; 0: it does not repeat.
    period: u64,
    /// The tick since power-on at which the counter reaches the comparator; `None` while it stands still.
    due: Option<u64>,
}

impl Timer {
    fn new() -> Self {
        Self { configuration: 0, comparator: u64::MAX, period: 0, due: None }
    }

    fn has(&self, bit: u64) -> bool {
        self.configuration & bit != 0
    }

    /// What the counter and the comparator are compared by.
    fn mask(&self) -> u64 {
        if self.has(NARROW) { u32::MAX.into() } else { u64::MAX }
    }

    /// Wait for the counter, which shows `counter` now, at `tick`. A value that it has passed comes after a whole round.
    fn arm(&mut self, counter: u64, tick: u64) {
        self.due = tick.checked_add(self.comparator.wrapping_sub(counter) & self.mask());
    }

    /// The comparator has been reached: a periodic timer goes on, without what was missed.
    fn advance(&mut self, counter: u64, tick: u64) {
        self.due = None;
        if self.has(PERIODIC) && self.period != 0 {
            let late = counter.wrapping_sub(self.comparator) & self.mask();
            let left = self.period - late % self.period;
            self.comparator = counter.wrapping_add(left) & self.mask();
            self.due = tick.checked_add(left);
        } else if self.has(NARROW) {
            // A narrow counter comes round again after 43 seconds.
            self.due = tick.checked_add(1 << 32);
        }
    }

    fn write_comparator(&mut self, value: u64) {
        let value = value & self.mask();
        if self.has(PERIODIC) {
            self.period = value;
        }
        if !self.has(PERIODIC) || self.has(VALUE_SET) {
            self.comparator = value;
        }
        self.configuration &= !VALUE_SET;
    }

    fn write_configuration(&mut self, value: u64) {
        self.configuration = value & WRITABLE;
        self.comparator &= self.mask();
        self.period &= self.mask();
    }
}

/// The device.
#[derive(Clone, Debug, Hash)]
pub struct Hpet {
    configuration: u64,
    /// Level-triggered timers that want to be acknowledged.
    status: u64,
    /// What the counter shows, less the ticks since power-on while it runs.
    counter: u64,
    timers: [Timer; TIMERS],
    signals: Vec<Signal>,
}

impl Default for Hpet {
    fn default() -> Self {
        let timers = std::array::from_fn(|_| Timer::new());
        Self { configuration: 0, status: 0, counter: 0, timers, signals: Vec::new() }
    }
}

impl Hpet {
    fn runs(&self) -> bool {
        self.configuration & ENABLE != 0
    }

    /// IRQ 0 and 8 are this device's.
    pub fn replaces_legacy(&self) -> bool {
        self.configuration & (ENABLE | LEGACY) == ENABLE | LEGACY
    }

    fn counter(&self, now_ns: u64) -> u64 {
        if self.runs() { self.counter.wrapping_add(RATE.ticks(now_ns)) } else { self.counter }
    }

    /// When some timer is due.
    pub fn next_event_ns(&self) -> Option<u64> {
        self.timers.iter().filter_map(|timer| timer.due).min().map(|tick| RATE.ns(tick))
    }

    /// What the lines are to do since the last call.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// Let every timer go off that is due.
    pub fn expire(&mut self, now_ns: u64) {
        let (tick, counter) = (RATE.ticks(now_ns), self.counter(now_ns));
        for index in 0..TIMERS {
            if self.timers[index].due.is_some_and(|due| due <= tick) {
                self.timers[index].advance(counter, tick);
                self.go_off(index);
            }
        }
    }

    fn line(&self, index: usize) -> u32 {
        match LEGACY_IRQS.get(index) {
            Some(&irq) if self.replaces_legacy() => irq,
            _ => ((self.timers[index].configuration & ROUTE) >> ROUTE_SHIFT) as u32,
        }
    }

    /// Whether a line is one that the timer can go to.
    fn is_connected(&self, index: usize) -> bool {
        self.replaces_legacy() && index < LEGACY_IRQS.len() || ROUTES & 1 << self.line(index) != 0
    }

    fn go_off(&mut self, index: usize) {
        let (level, open) = (self.timers[index].has(LEVEL), self.timers[index].has(INTERRUPT));
        if level {
            self.status |= 1 << index;
        }
        if open && self.is_connected(index) {
            let line = self.line(index);
            self.signals.push(if level { Signal::Level(line, true) } else { Signal::Pulse(line) });
        }
    }

    /// Withdraw a level-triggered interrupt.
    fn acknowledge(&mut self, index: usize) {
        if self.status & 1 << index != 0 {
            self.status &= !(1 << index);
            if self.is_connected(index) {
                self.signals.push(Signal::Level(self.line(index), false));
            }
        }
    }

    /// Read 1 to 8 bytes that lie in one register.
    pub fn read(&self, offset: u64, size: usize, now_ns: u64) -> u64 {
        let shift = offset % 8 * 8;
        if offset % 8 + size as u64 > 8 {
            return 0;
        }
        self.register(offset & !7, now_ns) >> shift & all_ones(size)
    }

    fn register(&self, offset: u64, now_ns: u64) -> u64 {
        match offset {
            CAPABILITIES => PERIOD_FS << 32 | CAPABILITIES_LOW,
            CONFIGURATION => self.configuration,
            STATUS => self.status,
            COUNTER => self.counter(now_ns),
            _ => match timer_register(offset) {
                Some((index, TIMER_CONFIGURATION)) => self.timers[index].configuration | FIXED,
                Some((index, TIMER_COMPARATOR)) => self.timers[index].comparator,
                _ => 0,
            },
        }
    }

    /// Write 1 to 8 bytes that lie in one register.
    pub fn write(&mut self, offset: u64, size: usize, value: u64, now_ns: u64) {
        if offset % 8 + size as u64 > 8 {
            return;
        }
        self.expire(now_ns);
        let (shift, register) = (offset % 8 * 8, offset & !7);
        let mask = all_ones(size) << shift;
        let written = value << shift & mask;
        let merged = self.register(register, now_ns) & !mask | written;
        match register {
            CONFIGURATION => self.write_configuration(merged & (ENABLE | LEGACY), now_ns),
            STATUS => (0..TIMERS).filter(|index| written & 1 << index != 0).for_each(|index| self.acknowledge(index)),
            COUNTER if !self.runs() => self.counter = merged,
            _ => self.write_timer(register, merged, now_ns),
        }
    }

    fn write_configuration(&mut self, value: u64, now_ns: u64) {
        let counter = self.counter(now_ns);
        (0..TIMERS).for_each(|index| self.acknowledge(index));
        self.configuration = value;
        if self.replaces_legacy() {
            // Whatever the replaced devices did with their lines last.
            self.signals.extend(LEGACY_IRQS.map(|irq| Signal::Level(irq, false)));
        }
        self.counter = if self.runs() { counter.wrapping_sub(RATE.ticks(now_ns)) } else { counter };
        (0..TIMERS).for_each(|index| self.arm(index, now_ns));
    }

    fn write_timer(&mut self, register: u64, value: u64, now_ns: u64) {
        let Some((index, register)) = timer_register(register) else { return };
        match register {
            TIMER_CONFIGURATION => {
                self.acknowledge(index);
                self.timers[index].write_configuration(value);
            }
            TIMER_COMPARATOR => self.timers[index].write_comparator(value),
            _ => return,
        }
        self.arm(index, now_ns);
    }

    /// Nobody needs to be woken for a timer that asks for no interrupt.
    fn arm(&mut self, index: usize, now_ns: u64) {
        let (runs, counter) = (self.runs(), self.counter(now_ns));
        let timer = &mut self.timers[index];
        timer.due = None;
        if runs && (timer.has(INTERRUPT) || timer.has(PERIODIC) || timer.has(LEVEL)) {
            timer.arm(counter, RATE.ticks(now_ns));
        }
    }
}

/// The timer that a register is of, and its offset there.
fn timer_register(offset: u64) -> Option<(usize, u64)> {
    let offset = offset.checked_sub(FIRST_TIMER)?;
    let index = (offset / TIMER_STRIDE) as usize;
    (index < TIMERS).then_some((index, offset % TIMER_STRIDE))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK_NS: u64 = 10;
    const TIMER_0: u64 = FIRST_TIMER;

    fn running(timer: u64, configuration: u64, comparator: u64) -> Hpet {
        let mut hpet = Hpet::default();
        let registers = FIRST_TIMER + TIMER_STRIDE * timer;
        hpet.write(registers, 8, configuration, 0);
        hpet.write(registers + TIMER_COMPARATOR, 8, comparator, 0);
        hpet.write(CONFIGURATION, 8, ENABLE | LEGACY, 0);
        hpet.take_signals();
        hpet
    }

    fn signals_at(hpet: &mut Hpet, now_ns: u64) -> Vec<Signal> {
        hpet.expire(now_ns);
        hpet.take_signals()
    }

    #[test]
    fn the_counter_runs_when_enabled_and_can_be_set_when_not() {
        let mut hpet = Hpet::default();
        assert_eq!(hpet.read(CAPABILITIES, 8, 0), 0x0098_9680_8086_A201);
        assert_eq!(hpet.read(COUNTER, 8, 1000), 0);
        hpet.write(COUNTER + 4, 4, 5, 1000);
        hpet.write(CONFIGURATION, 4, ENABLE, 1000);
        assert_eq!(hpet.read(COUNTER, 8, 1000 + 7 * TICK_NS), 5 << 32 | 7);
        assert_eq!(hpet.read(COUNTER + 4, 4, 1000 + 7 * TICK_NS), 5);
        hpet.write(COUNTER, 8, 0, 2000);
        assert_eq!(hpet.read(COUNTER, 8, 2000), 5 << 32 | 100, "it cannot be set while it runs");
        hpet.write(CONFIGURATION, 4, 0, 2000);
        assert_eq!(hpet.read(COUNTER, 4, 9000), 100);
    }

    #[test]
    fn a_one_shot_replaces_the_8254() {
        let mut hpet = running(0, INTERRUPT, 50);
        assert_eq!(hpet.next_event_ns(), Some(50 * TICK_NS));
        assert_eq!(signals_at(&mut hpet, 50 * TICK_NS - 1), []);
        assert_eq!(signals_at(&mut hpet, 50 * TICK_NS), [Signal::Pulse(0)]);
        assert_eq!(hpet.next_event_ns(), None);
    }

    #[test]
    fn a_periodic_timer_is_set_in_two_writes_and_drops_what_was_missed() {
        let mut hpet = running(1, INTERRUPT | PERIODIC | VALUE_SET | NARROW, 30);
        hpet.write(TIMER_0 + TIMER_STRIDE + TIMER_COMPARATOR, 4, 100, 0);
        assert_eq!(hpet.next_event_ns(), Some(30 * TICK_NS));
        assert_eq!(signals_at(&mut hpet, 30 * TICK_NS), [Signal::Pulse(8)]);
        assert_eq!(hpet.next_event_ns(), Some(130 * TICK_NS));
        assert_eq!(signals_at(&mut hpet, 555 * TICK_NS), [Signal::Pulse(8)]);
        assert_eq!(hpet.next_event_ns(), Some(630 * TICK_NS));
        assert_eq!(hpet.read(TIMER_0 + TIMER_STRIDE + TIMER_COMPARATOR, 8, 0), 630);
    }

    #[test]
    fn a_level_stays_until_it_is_acknowledged() {
        let mut hpet = running(2, INTERRUPT | LEVEL | 17 << ROUTE_SHIFT, 5);
        assert_eq!(signals_at(&mut hpet, 5 * TICK_NS), [Signal::Level(17, true)]);
        assert_eq!(hpet.read(STATUS, 4, 0), 4);
        hpet.write(STATUS, 4, 3, 100);
        assert_eq!(hpet.take_signals(), []);
        hpet.write(STATUS, 4, 4, 100);
        assert_eq!(hpet.take_signals(), [Signal::Level(17, false)]);
        assert_eq!(hpet.read(STATUS, 4, 0), 0);
    }

    #[test]
    fn a_line_that_cannot_be_reached_stays_quiet() {
        let mut hpet = running(2, INTERRUPT | 3 << ROUTE_SHIFT, 5);
        assert_eq!(signals_at(&mut hpet, 1000), []);
    }

    #[test]
    fn a_comparator_that_was_passed_waits_for_a_whole_round() {
        let mut hpet = running(0, INTERRUPT | NARROW, u64::MAX);
        hpet.write(TIMER_0 + TIMER_COMPARATOR, 4, 4, 5 * TICK_NS);
        assert_eq!(hpet.next_event_ns(), Some((4 + (1 << 32)) * TICK_NS));
    }

    #[test]
    fn whatever_is_written_nothing_overflows() {
        for configuration in [0, u64::MAX, INTERRUPT | PERIODIC] {
            for comparator in [0, 1, u64::MAX] {
                let mut hpet = running(0, configuration, comparator);
                for now in [0, 1, 1 << 40, u64::MAX] {
                    hpet.expire(now);
                    hpet.write(TIMER_0 + TIMER_COMPARATOR + 3, 8, u64::MAX, now);
                    hpet.write(TIMER_0 + TIMER_COMPARATOR, 8, u64::MAX, now);
                    let _ = (hpet.next_event_ns(), hpet.read(COUNTER, 4, now), hpet.read(0x3FF, 8, now));
                }
            }
        }
    }
}
