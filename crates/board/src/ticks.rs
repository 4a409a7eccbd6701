//! Fixed-frequency counters on virtual time.

const NS_PER_SECOND: u128 = 1_000_000_000;

/// The frequency of a crystal. Ticks count from virtual time 0, so that nothing drifts.
#[derive(Clone, Copy, Debug)]
pub struct TickRate(pub u32);

impl TickRate {
    /// Ticks since power-on at `ns`, rounded down.
    #[inline]
    pub fn ticks(self, ns: u64) -> u64 {
        // At most ns * 2^32 / 10^9 < 2^67: only rates above 1 GHz could overflow, and no crystal of a PC is that fast.
        (u128::from(ns) * u128::from(self.0) / NS_PER_SECOND) as u64
    }

    /// The first nanosecond at which `tick` has been reached; saturates.
    #[inline]
    pub fn ns(self, tick: u64) -> u64 {
        u64::try_from((u128::from(tick) * NS_PER_SECOND).div_ceil(u128::from(self.0))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_begins_at_its_nanosecond() {
        for rate in [TickRate(1_193_182), TickRate(3_579_545), TickRate(32_768)] {
            for tick in [1, 2, 1000, 1 << 40] {
                let ns = rate.ns(tick);
                assert_eq!(rate.ticks(ns), tick);
                assert_eq!(rate.ticks(ns - 1), tick - 1);
            }
        }
    }
}
