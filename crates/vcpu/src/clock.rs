//! Virtual time. There is one source: nanoseconds since power-on. Everything else derives from it.

/// Converts between nanoseconds and ticks of the reference TSC, without drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Clock {
    tsc_khz: u32,
}

impl Clock {
    /// A clock whose TSC runs at `tsc_khz` (at least 1).
    pub fn new(tsc_khz: u32) -> Self {
        Self { tsc_khz: tsc_khz.max(1) }
    }

    /// TSC frequency in kHz.
    pub fn tsc_khz(self) -> u32 {
        self.tsc_khz
    }

    /// Reference TSC at `ns`, rounded down.
    #[inline]
    pub fn ns_to_tsc(self, ns: u64) -> u64 {
        if self.tsc_khz == 1_000_000 {
            return ns;
        }
        // Guests ask for the time all the time, and 64 bits are enough for more than an hour.
        match ns.checked_mul(u64::from(self.tsc_khz)) {
            Some(product) => product / 1_000_000,
            None => (u128::from(ns) * u128::from(self.tsc_khz) / 1_000_000) as u64,
        }
    }

    /// The first nanosecond at which the reference TSC is at least `tsc`; saturates at `u64::MAX`.
    #[inline]
    pub fn tsc_to_ns(self, tsc: u64) -> u64 {
        let ns = (u128::from(tsc) * 1_000_000).div_ceil(u128::from(self.tsc_khz));
        u64::try_from(ns).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_never_early_and_never_a_tick_late() {
        for khz in [1, 999_999, 1_000_000, 2_400_001, 5_000_000] {
            let clock = Clock::new(khz);
            for tsc in [0, 1, 2, 3, 1_000_003, 1 << 40] {
                let ns = clock.tsc_to_ns(tsc);
                assert!(clock.ns_to_tsc(ns) >= tsc);
                assert!(ns == 0 || clock.ns_to_tsc(ns - 1) < tsc);
            }
        }
    }
}
