//! When each timer of the board wants to be called next.

/// No deadline.
pub const NEVER: u64 = u64::MAX;

/// One deadline in ns for each timer, and the earliest of them at hand, because every instruction block asks for it.
#[derive(Clone, Debug, Hash)]
pub struct Deadlines {
    slots: Vec<u64>,
    earliest: u64,
}

impl Deadlines {
    pub fn new(timers: usize) -> Self {
        Self { slots: vec![NEVER; timers], earliest: NEVER }
    }

    /// The earliest deadline; [`NEVER`] if there is none.
    #[inline]
    pub fn earliest(&self) -> u64 {
        self.earliest
    }

    pub fn set(&mut self, timer: usize, deadline_ns: u64) {
        let old = std::mem::replace(&mut self.slots[timer], deadline_ns);
        if deadline_ns <= self.earliest {
            self.earliest = deadline_ns;
        } else if old == self.earliest {
            self.earliest = self.slots.iter().copied().min().unwrap_or(NEVER);
        }
    }

    /// The timer with the earliest deadline at or before `now_ns`; of equals the one with the lowest number.
    pub fn due(&self, now_ns: u64) -> Option<usize> {
        if self.earliest > now_ns || self.earliest == NEVER {
            return None;
        }
        self.slots.iter().position(|&deadline| deadline == self.earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_are_due_in_the_order_of_their_deadlines() {
        let mut deadlines = Deadlines::new(3);
        deadlines.set(0, 30);
        deadlines.set(1, 10);
        deadlines.set(2, 10);
        let mut order = Vec::new();
        assert_eq!(deadlines.due(9), None);
        while let Some(timer) = deadlines.due(30) {
            order.push(timer);
            deadlines.set(timer, NEVER);
        }
        assert_eq!(order, [1, 2, 0]);
        assert_eq!(deadlines.earliest(), NEVER);
        assert_eq!(deadlines.due(NEVER), None);
    }

    #[test]
    fn moving_the_earliest_away_finds_the_next() {
        let mut deadlines = Deadlines::new(2);
        deadlines.set(0, 5);
        deadlines.set(1, 7);
        deadlines.set(0, 9);
        assert_eq!(deadlines.earliest(), 7);
    }
}
