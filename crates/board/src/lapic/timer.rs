//! The local APIC's timer, SDM vol. 3 section 12.5.4.
//!
//! It counts a bus clock of 1 GHz, one tick per nanosecond, divided by the divide configuration register. Nothing runs
//! while it counts: what is kept is the moment at which it reaches zero.

use vcpu::Clock;

use super::registers::{LVT_TIMER_MODE, LVT_TIMER_PERIODIC, LVT_TIMER_TSC_DEADLINE};

/// Bits 18:17 of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerMode {
    OneShot,
    Periodic,
    TscDeadline,
    /// The reserved encoding: never counts.
    Reserved,
}

impl TimerMode {
    pub fn of_lvt(lvt: u32) -> Self {
        match lvt & LVT_TIMER_MODE {
            0 => Self::OneShot,
            LVT_TIMER_PERIODIC => Self::Periodic,
            LVT_TIMER_TSC_DEADLINE => Self::TscDeadline,
            _ => Self::Reserved,
        }
    }

    fn counts(self) -> bool {
        matches!(self, Self::OneShot | Self::Periodic)
    }
}

/// State of the timer but for its LVT entry.
#[derive(Clone, Debug, Default, Hash)]
pub struct Timer {
    initial_count: u32,
    divide_configuration: u32,
    /// When the count reaches zero, or the deadline the TSC. `None`: stopped.
    expiry_ns: Option<u64>,
    /// The TSC deadline MSR; 0 when disarmed.
    deadline_tsc: u64,
    /// The vCPU's TSC minus the reference TSC.
    tsc_offset: u64,
}

impl Timer {
    /// As after RESET, but for the TSC, which is not the timer's.
    pub fn reset(&mut self) {
        *self = Self { tsc_offset: self.tsc_offset, ..Self::default() };
    }

    pub fn initial_count(&self) -> u32 {
        self.initial_count
    }

    pub fn divide_configuration(&self) -> u32 {
        self.divide_configuration
    }

    /// Nanoseconds per count: the divide values of SDM figure 12-10, bits 3, 1 and 0.
    fn divisor(&self) -> u64 {
        let bits = (self.divide_configuration & 3) | (self.divide_configuration >> 1 & 4);
        1 << ((bits + 1) & 7)
    }

    fn period_ns(&self) -> u64 {
        u64::from(self.initial_count) * self.divisor()
    }

    pub fn set_initial_count(&mut self, mode: TimerMode, count: u32, now_ns: u64) {
        if !mode.counts() {
            return;
        }
        self.initial_count = count;
        self.expiry_ns = (count != 0).then(|| now_ns.saturating_add(self.period_ns()));
    }

    pub fn current_count(&self, mode: TimerMode, now_ns: u64) -> u32 {
        match self.expiry_ns {
            Some(expiry) if mode.counts() => expiry.saturating_sub(now_ns).div_ceil(self.divisor()) as u32,
            _ => 0,
        }
    }

    /// The count goes on from where it is, at the new speed.
    pub fn set_divide_configuration(&mut self, mode: TimerMode, value: u32, now_ns: u64) {
        let count = self.current_count(mode, now_ns);
        self.divide_configuration = value;
        if mode.counts() && self.expiry_ns.is_some() {
            self.expiry_ns = Some(now_ns.saturating_add(u64::from(count) * self.divisor()));
        }
    }

    /// Entering or leaving TSC-deadline mode disarms the timer; between one-shot and periodic it counts on.
    pub fn change_mode(&mut self, old: TimerMode, new: TimerMode) {
        if old == new || (old.counts() && new.counts()) {
            return;
        }
        self.initial_count = 0;
        self.deadline_tsc = 0;
        self.expiry_ns = None;
    }

    pub fn deadline_tsc(&self) -> u64 {
        self.deadline_tsc
    }

    /// WRMSR to IA32_TSC_DEADLINE; ignored in other modes.
    pub fn set_deadline_tsc(&mut self, mode: TimerMode, deadline: u64, clock: Clock, now_ns: u64) {
        if mode == TimerMode::TscDeadline {
            self.deadline_tsc = deadline;
            self.expiry_ns = self.deadline_expiry(clock, now_ns);
        }
    }

    pub fn set_tsc_offset(&mut self, mode: TimerMode, offset: u64, clock: Clock, now_ns: u64) {
        self.tsc_offset = offset;
        if mode == TimerMode::TscDeadline {
            self.expiry_ns = self.deadline_expiry(clock, now_ns);
        }
    }

    fn deadline_expiry(&self, clock: Clock, now_ns: u64) -> Option<u64> {
        if self.deadline_tsc == 0 {
            return None;
        }
        let reference = clock.ns_to_tsc(now_ns);
        let guest = reference.wrapping_add(self.tsc_offset);
        match self.deadline_tsc.checked_sub(guest) {
            None | Some(0) => Some(now_ns),
            Some(ticks) => reference.checked_add(ticks).map(|tsc| clock.tsc_to_ns(tsc)),
        }
    }

    /// When [`Timer::expire`] will next say yes.
    #[inline]
    pub fn expiry_ns(&self) -> Option<u64> {
        self.expiry_ns
    }

    /// Let the timer expire if it is due. Periods that have passed together expire together: nobody could see them apart.
    #[inline]
    pub fn expire(&mut self, mode: TimerMode, now_ns: u64) -> bool {
        match self.expiry_ns {
            Some(expiry) if expiry <= now_ns => {
                self.deadline_tsc = 0;
                self.expiry_ns = match mode {
                    TimerMode::Periodic => self.next_period(expiry, now_ns),
                    _ => None,
                };
                true
            }
            _ => false,
        }
    }

    fn next_period(&self, expiry_ns: u64, now_ns: u64) -> Option<u64> {
        let period = self.period_ns();
        if period == 0 {
            return None;
        }
        let periods = (now_ns - expiry_ns) / period + 1;
        expiry_ns.checked_add(periods.checked_mul(period)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIVIDE_BY_1: u32 = 0b1011;

    fn started(mode: TimerMode, count: u32) -> Timer {
        let mut timer = Timer::default();
        timer.set_divide_configuration(mode, DIVIDE_BY_1, 0);
        timer.set_initial_count(mode, count, 0);
        timer
    }

    #[test]
    fn every_divide_value_of_figure_12_10() {
        for (bits, divisor) in [
            (0b0000, 2),
            (0b0001, 4),
            (0b0010, 8),
            (0b0011, 16),
            (0b1000, 32),
            (0b1001, 64),
            (0b1010, 128),
            (0b1011, 1),
        ] {
            let timer = Timer { divide_configuration: bits, ..Timer::default() };
            assert_eq!(timer.divisor(), divisor, "{bits:#b}");
        }
    }

    #[test]
    fn one_shot_counts_down_once() {
        let mut timer = started(TimerMode::OneShot, 100);
        assert_eq!(timer.current_count(TimerMode::OneShot, 40), 60);
        assert!(!timer.expire(TimerMode::OneShot, 99));
        assert!(timer.expire(TimerMode::OneShot, 100));
        assert!(!timer.expire(TimerMode::OneShot, 1000));
        assert_eq!(timer.current_count(TimerMode::OneShot, 1000), 0);
    }

    #[test]
    fn periods_keep_their_phase_however_late_they_are_noticed() {
        let mut timer = started(TimerMode::Periodic, 100);
        assert!(timer.expire(TimerMode::Periodic, 350));
        assert_eq!(timer.expiry_ns(), Some(400));
    }

    #[test]
    fn changing_between_one_shot_and_periodic_counts_on() {
        let mut timer = started(TimerMode::OneShot, 100);
        timer.change_mode(TimerMode::OneShot, TimerMode::Periodic);
        assert_eq!(timer.current_count(TimerMode::Periodic, 40), 60);
        assert!(timer.expire(TimerMode::Periodic, 100));
        assert_eq!(timer.expiry_ns(), Some(200));
    }

    #[test]
    fn entering_deadline_mode_disarms() {
        let mut timer = started(TimerMode::OneShot, 100);
        timer.change_mode(TimerMode::OneShot, TimerMode::TscDeadline);
        assert_eq!((timer.initial_count(), timer.expiry_ns()), (0, None));
    }

    #[test]
    fn a_deadline_counts_the_guests_tsc() {
        let clock = Clock::new(2_000_000);
        let mut timer = Timer::default();
        timer.set_tsc_offset(TimerMode::TscDeadline, 1000, clock, 0);
        // At 50 ns the guest's TSC is 100 + 1000; 200 more ticks are 100 ns.
        timer.set_deadline_tsc(TimerMode::TscDeadline, 1300, clock, 50);
        assert_eq!(timer.expiry_ns(), Some(150));
        timer.set_tsc_offset(TimerMode::TscDeadline, 1100, clock, 50);
        assert_eq!(timer.expiry_ns(), Some(100));
        assert!(timer.expire(TimerMode::TscDeadline, 100));
        assert_eq!(timer.deadline_tsc(), 0);
    }

    #[test]
    fn a_deadline_in_the_past_is_due_at_once_and_one_beyond_time_never() {
        let clock = Clock::new(1_000_000);
        let mut timer = Timer::default();
        timer.set_deadline_tsc(TimerMode::TscDeadline, 5, clock, 10);
        assert_eq!(timer.expiry_ns(), Some(10));
        timer.set_deadline_tsc(TimerMode::TscDeadline, u64::MAX, Clock::new(1), 10);
        assert!(timer.expiry_ns().is_none_or(|ns| ns == u64::MAX));
    }
}
