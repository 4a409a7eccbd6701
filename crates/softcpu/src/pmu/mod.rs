//! Performance counters: Intel's architectural ones, version 2 (SDM vol. 3 chapter 20), and AMD's (APM vol. 2 section 13.2).
//!
//! Two things are counted: instructions, and cycles in which the vCPU was not halted, of which there is one each nanosecond of
//! virtual time. Cycles of reference are those of the TSC. Events that are not known never happen; CPUID says which of the
//! architectural ones there are. Counters cost nothing while they count, see [`meter`].

mod meter;
mod msrs;

use vcpu::Clock;

pub use meter::{Done, Meter, Work};
pub use msrs::{
    rdpmc, read_counter, read_fixed, read_fixed_ctrl, read_global_ctrl, read_global_status, read_ovf_ctrl, read_select,
    write_counter, write_fixed, write_fixed_ctrl, write_global_ctrl, write_global_status, write_ovf_ctrl, write_select,
};

/// General counters: AMD's CPUs have six.
const GENERAL: usize = 6;
/// Fixed counters: instructions, cycles, cycles of reference.
const FIXED: usize = 3;
/// Counters are 48 bits wide.
const WIDTH: u32 = 48;
const MASK: u64 = (1 << WIDTH) - 1;
/// In the global registers: the first fixed counter.
const GLOBAL_FIXED: usize = 32;

/// Event select: at CPL 3, at CPL 0 to 2.
const SELECT_USER: u64 = 1 << 16;
const SELECT_SUPERVISOR: u64 = 1 << 17;
/// Event select: interrupt on overflow.
const SELECT_INTERRUPT: u64 = 1 << 20;
const SELECT_ENABLE: u64 = 1 << 22;
/// Event select: a counter mask counts cycles with so many events, which nothing here has.
const SELECT_COUNTER_MASK: u64 = 0xFF << 24;

/// What can be counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Event {
    Instructions,
    Cycles,
    ReferenceCycles,
}

/// Unit mask and event of Intel's architectural events (SDM vol. 3 table 20-1).
const INTEL_EVENTS: [(u64, Event); 3] =
    [(0x003C, Event::Cycles), (0x013C, Event::ReferenceCycles), (0x00C0, Event::Instructions)];
/// Of AMD's: cycles not in halt, retired instructions (PPR of family 17h, section 2.1.15.4).
const AMD_EVENTS: [(u64, Event); 2] = [(0x0076, Event::Cycles), (0x00C0, Event::Instructions)];
/// Unit mask and event number. AMD's event numbers have four more bits at 35:32.
const SELECT_EVENT: u64 = 0xF_0000_FFFF;
/// What the fixed counters count.
const FIXED_EVENTS: [Event; FIXED] = [Event::Instructions, Event::Cycles, Event::ReferenceCycles];

/// What a counter that is turned on counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Watch {
    event: Event,
    supervisor: bool,
    user: bool,
    /// Overflow interrupts.
    interrupt: bool,
}

impl Watch {
    /// How often the event has happened.
    fn count(&self, done: &Done, clock: Clock) -> u64 {
        let mut work = Work::default();
        if self.supervisor {
            work = work + done.supervisor;
        }
        if self.user {
            work = work + done.user;
        }
        match self.event {
            Event::Instructions => work.instructions,
            Event::Cycles => work.ns,
            Event::ReferenceCycles => clock.ns_to_tsc(work.ns),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Counter {
    /// Its value when `watch` had counted `from`.
    value: u64,
    from: u64,
    watch: Option<Watch>,
}

impl Counter {
    /// Its value now, with bits above [`WIDTH`] if it has overflowed since.
    fn value(&self, now: &Now) -> u64 {
        let counted = self.watch.map_or(0, |watch| watch.count(&now.done, now.clock).wrapping_sub(self.from));
        self.value.wrapping_add(counted)
    }

    /// Go on from `value`, counting something else perhaps.
    fn restart(&mut self, value: u64, watch: Option<Watch>, now: &Now) {
        *self = Self { value: value & MASK, watch, from: watch.map_or(0, |watch| watch.count(&now.done, now.clock)) };
    }
}

/// What counters are read from.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// What the vCPU has done.
    pub done: Done,
    /// Converts time.
    pub clock: Clock,
}

/// The counters of a vCPU, with what controls them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pmu {
    general: [Counter; GENERAL],
    fixed: [Counter; FIXED],
    selects: [u64; GENERAL],
    fixed_ctrl: u64,
    global_ctrl: u64,
    /// Overflows that were noted and not cleared.
    status: u64,
    /// Some counter that counts interrupts on overflow.
    interrupts: bool,
}

impl Pmu {
    fn counters(&self) -> impl Iterator<Item = (usize, &Counter)> {
        (0..).zip(&self.general).chain((GLOBAL_FIXED..).zip(&self.fixed))
    }

    fn counters_mut(&mut self) -> impl Iterator<Item = (usize, &mut Counter)> {
        (0..).zip(&mut self.general).chain((GLOBAL_FIXED..).zip(&mut self.fixed))
    }

    /// What a counter counts by the registers that control it.
    fn watch(&self, number: usize, amd: bool) -> Option<Watch> {
        // AMD's counters have no common switch.
        if !amd && self.global_ctrl >> number & 1 == 0 {
            return None;
        }
        if let Some(fixed) = number.checked_sub(GLOBAL_FIXED) {
            let control = self.fixed_ctrl >> (4 * fixed);
            let (supervisor, user, interrupt) = (control & 1 != 0, control & 2 != 0, control & 8 != 0);
            return (supervisor || user).then_some(Watch { event: FIXED_EVENTS[fixed], supervisor, user, interrupt });
        }
        let select = self.selects[number];
        let events: &[(u64, Event)] = if amd { &AMD_EVENTS } else { &INTEL_EVENTS };
        let (_, event) = events.iter().find(|(code, _)| *code == select & SELECT_EVENT)?;
        let set = |flag: u64| select & flag != 0;
        (set(SELECT_ENABLE) && !set(SELECT_COUNTER_MASK)).then_some(Watch {
            event: *event,
            supervisor: set(SELECT_SUPERVISOR),
            user: set(SELECT_USER),
            interrupt: set(SELECT_INTERRUPT),
        })
    }

    /// Bits of IA32_PERF_GLOBAL_STATUS: overflows noted, and those that have happened since.
    fn status(&self, now: &Now) -> u64 {
        self.counters().filter(|(_, counter)| counter.value(now) > MASK).fold(self.status, |all, (i, _)| all | 1 << i)
    }

    /// Take what the registers say now into account.
    fn configure(&mut self, now: &Now, amd: bool) {
        self.status = self.status(now);
        let mut watches = [None; GLOBAL_FIXED + FIXED];
        for (number, _) in self.counters() {
            watches[number] = self.watch(number, amd);
        }
        for (number, counter) in self.counters_mut() {
            let value = counter.value(now);
            counter.restart(value, watches[number], now);
        }
        self.interrupts = watches.iter().flatten().any(|watch| watch.interrupt);
    }

    /// Whether the engine must look out for overflows.
    #[inline]
    pub fn interrupts(&self) -> bool {
        self.interrupts
    }

    /// The least time in which a counter that interrupts can overflow, in nanoseconds, of which an instruction takes one.
    pub fn until_overflow(&self, now: &Now) -> u64 {
        let remaining = |counter: &Counter| {
            let watch = counter.watch.filter(|watch| watch.interrupt)?;
            let events = (MASK + 1).saturating_sub(counter.value(now));
            Some(if watch.event == Event::ReferenceCycles { now.clock.tsc_to_ns(events) } else { events })
        };
        self.counters().filter_map(|(_, counter)| remaining(counter)).min().unwrap_or(u64::MAX)
    }

    /// Note the overflows that have happened; whether one of them interrupts.
    pub fn take_overflows(&mut self, now: &Now) -> bool {
        let mut interrupt = false;
        let mut status = self.status;
        for (number, counter) in self.counters_mut() {
            let value = counter.value(now);
            if value > MASK {
                status |= 1 << number;
                interrupt |= counter.watch.is_some_and(|watch| watch.interrupt);
                counter.restart(value, counter.watch, now);
            }
        }
        self.status = status;
        interrupt
    }
}

#[cfg(test)]
mod tests {
    use x86defs::{cpuid as bit, cr, msr, vector};

    use crate::exec::testing::{CODE, Machine, Mode};
    use crate::msr::{MsrWrite, When};
    use crate::pmu::Work;

    const ENABLED: u64 = super::SELECT_ENABLE | super::SELECT_SUPERVISOR;

    /// A machine with four general and three fixed counters, or AMD's six.
    fn machine(amd: bool) -> Machine {
        let mut machine = Machine::new(Mode::Protected32);
        let features = &mut machine.cpu().features;
        (features.pmu_eax, features.pmu_edx) = (0x0430_0402, 0x603);
        features.amd = amd;
        machine
    }

    fn write(machine: &mut Machine, index: u32, value: u64) -> MsrWrite {
        let when = machine.when();
        machine.cpu().write_msr(index, value, when)
    }

    fn read(machine: &mut Machine, index: u32) -> u64 {
        let when = machine.when();
        machine.cpu().read_msr(index, when).expect("a counter")
    }

    #[test]
    fn instructions_and_cycles_are_counted_while_enabled() {
        for (amd, select, counter, cycles) in [
            (false, msr::PERF_EVENT_SELECT0, msr::PERF_COUNTER0, 0x3C),
            (true, msr::AMD_PERF_EVENT_SELECT0, msr::AMD_PERF_COUNTER0, 0x76),
        ] {
            let mut machine = machine(amd);
            for (i, event) in [(0, 0xC0), (1, cycles), (2, 0x55)] {
                assert_eq!(write(&mut machine, select + i, ENABLED | event), MsrWrite::Done);
            }
            // Only at CPL 3.
            write(&mut machine, select + 3, ENABLED & !super::SELECT_SUPERVISOR | super::SELECT_USER | 0xC0);
            if !amd {
                write(&mut machine, msr::PERF_GLOBAL_CTRL, 0xF);
            }
            // mov ecx, 100; loop $; nop
            machine.run(&[0xB9, 100, 0, 0, 0, 0xE2, 0xFE, 0x90]).expect("no fault");
            let counts = [0, 1, 2, 3].map(|i| read(&mut machine, counter + i));
            assert_eq!(counts, [102, 102, 0, 0], "amd {amd}");
            write(&mut machine, select, 0xC0);
            write(&mut machine, counter, 7);
            machine.cpu().rip = CODE;
            machine.run(&[0x90, 0x90]).expect("no fault");
            assert_eq!((read(&mut machine, counter), read(&mut machine, counter + 1)), (7, 104));
        }
    }

    #[test]
    fn amds_pairs_are_the_same_counters() {
        let mut machine = machine(true);
        write(&mut machine, msr::AMD_PERF_CTL0 + 2, ENABLED | 0xC0);
        assert_eq!(read(&mut machine, msr::AMD_PERF_EVENT_SELECT0 + 1), ENABLED | 0xC0);
        machine.run(&[0x90, 0x90, 0x90]).expect("no fault");
        assert_eq!(
            (read(&mut machine, msr::AMD_PERF_CTR0 + 2), read(&mut machine, msr::AMD_PERF_COUNTER0 + 1)),
            (3, 3)
        );
        machine.cpu().features.x1_ecx &= !bit::X1_ECX_PERFCTR_CORE;
        assert_eq!(read(&mut machine, msr::AMD_PERF_COUNTER0 + 1), 0, "not announced");
        assert_eq!(write(&mut machine, msr::AMD_PERF_CTL0, 0), MsrWrite::Unknown);
    }

    #[test]
    fn an_overflow_shows_in_the_status_and_interrupts_where_it_happens() {
        let mut machine = machine(false);
        write(&mut machine, msr::FIXED_CTR0, (1 << 48) - 10);
        // Fixed counter 0, at CPL 0, with interrupt.
        write(&mut machine, msr::FIXED_CTR_CTRL, 9);
        write(&mut machine, msr::PERF_GLOBAL_CTRL, 1 << 32);
        machine.poke(CODE, &[0xEB, 0xFE]);
        machine.run_budget(9);
        assert_eq!((read(&mut machine, msr::PERF_GLOBAL_STATUS), machine.bus.performance_interrupts), (0, 0));
        machine.run_budget(1);
        assert_eq!((read(&mut machine, msr::PERF_GLOBAL_STATUS), machine.bus.performance_interrupts), (1 << 32, 1));
        machine.run_budget(5);
        assert_eq!((read(&mut machine, msr::FIXED_CTR0), machine.bus.performance_interrupts), (5, 1));
        write(&mut machine, msr::PERF_GLOBAL_OVF_CTRL, 1 << 32);
        assert_eq!(read(&mut machine, msr::PERF_GLOBAL_STATUS), 0);
    }

    #[test]
    fn values_that_are_refused() {
        let mut machine = machine(false);
        for (index, value, expected) in [
            (msr::PERF_COUNTER0, 0x1_8000_0000, MsrWrite::Done),
            (msr::PERF_COUNTER3 + 1, 0, MsrWrite::Unknown),
            (msr::PERF_EVENT_SELECT0, 1 << 21, MsrWrite::Refused),
            (msr::PERF_EVENT_SELECT0, 1 << 32, MsrWrite::Refused),
            (msr::FIXED_CTR0, 1 << 48, MsrWrite::Refused),
            (msr::FIXED_CTR_CTRL, 4, MsrWrite::Refused),
            (msr::FIXED_CTR_CTRL, 1 << 12, MsrWrite::Refused),
            (msr::PERF_GLOBAL_CTRL, 1 << 4, MsrWrite::Refused),
            (msr::PERF_GLOBAL_STATUS, 0, MsrWrite::Refused),
        ] {
            assert_eq!(write(&mut machine, index, value), expected, "{index:#x} {value:#x}");
        }
        assert_eq!(read(&mut machine, msr::PERF_COUNTER0), 0xFFFF_8000_0000, "the sign is extended");
        machine.cpu().features.pmu_eax = 0;
        for index in [msr::FIXED_CTR0, msr::PERF_GLOBAL_CTRL, msr::PERF_COUNTER3] {
            assert_eq!(write(&mut machine, index, 0), MsrWrite::Unknown, "{index:#x}");
        }
        assert_eq!(read(&mut machine, msr::PERF_COUNTER0), 0);
    }

    #[test]
    fn rdpmc_reads_counters_that_exist() {
        for (ecx, expected) in [
            (0, Ok(())),
            (3, Ok(())),
            (4, Err(vector::GP)),
            (0x4000_0002, Ok(())),
            (0x4000_0003, Err(vector::GP)),
            (u64::from(u32::MAX), Err(vector::GP)),
        ] {
            let mut machine = machine(false);
            machine.cpu().regs[1] = ecx;
            assert_eq!(machine.run(&[0x0F, 0x33]), expected, "{ecx:#x}");
        }
        let mut machine = machine(false);
        machine.cpu().cpl = 3;
        assert_eq!(machine.run(&[0x0F, 0x33]), Err(vector::GP));
        machine.cpu().cr4 |= cr::CR4_PCE;
        assert_eq!(machine.run(&[0x0F, 0x33]), Ok(()));
    }

    #[test]
    fn reference_cycles_are_those_of_the_tsc() {
        let watch =
            super::Watch { event: super::Event::ReferenceCycles, supervisor: true, user: true, interrupt: false };
        let work = |ns| Work { instructions: 0, ns };
        let done = super::Done { supervisor: work(1_000), user: work(500) };
        assert_eq!(watch.count(&done, vcpu::Clock::new(2_000_000)), 3_000);
        let when = When::new(work(10), vcpu::Clock::new(3_000_000));
        assert_eq!(when.tsc, 30);
    }
}
