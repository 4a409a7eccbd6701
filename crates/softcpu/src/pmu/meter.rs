//! What a vCPU has done so far: the instructions that it retired and the time that it was not halted, by privilege.
//!
//! Nothing is counted while instructions run. The engine counts the instructions of all vCPUs and the time anyway, so it is
//! enough to look at both whenever a vCPU begins and ends to run, and whenever it changes between CPL 3 and the others.

use std::ops::{Add, Sub};

/// An amount of work, or the engine's counts at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Work {
    /// Instructions retired.
    pub instructions: u64,
    /// Virtual nanoseconds.
    pub ns: u64,
}

impl Add for Work {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self { instructions: self.instructions.wrapping_add(other.instructions), ns: self.ns.wrapping_add(other.ns) }
    }
}

impl Sub for Work {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self { instructions: self.instructions.wrapping_sub(other.instructions), ns: self.ns.wrapping_sub(other.ns) }
    }
}

/// Work done at CPL 0 to 2, and at CPL 3.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Done {
    /// At CPL 0 to 2.
    pub supervisor: Work,
    /// At CPL 3.
    pub user: Work,
}

/// One vCPU's.
#[derive(Clone, Copy, Debug, Default)]
pub struct Meter {
    done: Done,
    /// It runs, at CPL 3 if so, and has done what the engine has counted since.
    running: Option<(bool, Work)>,
}

impl Meter {
    /// The vCPU begins to run.
    pub fn start(&mut self, now: Work, user: bool) {
        self.running = Some((user, now));
    }

    /// The vCPU has changed its privilege, perhaps.
    #[inline]
    pub fn set_level(&mut self, now: Work, user: bool) {
        if self.running.is_some_and(|(before, _)| before != user) {
            self.done = self.done(now);
            self.running = Some((user, now));
        }
    }

    /// The engine is about to count an instruction that is none.
    pub fn discount(&mut self) {
        if let Some((_, since)) = &mut self.running {
            since.instructions = since.instructions.wrapping_add(1);
        }
    }

    /// The vCPU has run.
    pub fn stop(&mut self, now: Work) {
        self.done = self.done(now);
        self.running = None;
    }

    /// What it has done by now.
    pub fn done(&self, now: Work) -> Done {
        let mut done = self.done;
        if let Some((user, since)) = self.running {
            let level = if user { &mut done.user } else { &mut done.supervisor };
            *level = *level + (now - since);
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(instructions: u64, ns: u64) -> Work {
        Work { instructions, ns }
    }

    #[test]
    fn work_goes_to_whoever_runs_and_to_its_level() {
        let mut meter = Meter::default();
        meter.start(at(100, 1_000), false);
        meter.set_level(at(110, 1_010), false);
        meter.set_level(at(120, 1_050), true);
        meter.discount();
        assert_eq!(meter.done(at(131, 1_090)), Done { supervisor: at(20, 50), user: at(10, 40) });
        meter.stop(at(141, 1_100));
        // Others run.
        assert_eq!(meter.done(at(900, 9_000)), Done { supervisor: at(20, 50), user: at(20, 50) });
        meter.start(at(900, 9_000), true);
        assert_eq!(meter.done(at(901, 9_001)).user, at(21, 51));
    }
}
