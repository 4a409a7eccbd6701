//! Which ports, addresses and MSRs are served above the engine.

/// A set of I/O ports: one bit each, so that every access asks in constant time.
#[derive(Clone, Hash)]
pub struct PortClaims(Box<[u64]>);

impl PortClaims {
    pub fn new() -> Self {
        Self(vec![0; 0x10000 / 64].into_boxed_slice())
    }

    #[inline]
    pub fn contains(&self, port: u16) -> bool {
        self.0[usize::from(port / 64)] & 1 << (port % 64) != 0
    }

    /// Add or remove the ports `first..=last`.
    pub fn set(&mut self, first: u16, last: u16, claimed: bool) {
        for port in first..=last {
            let bit = 1 << (port % 64);
            let word = &mut self.0[usize::from(port / 64)];
            if claimed { *word |= bit } else { *word &= !bit }
        }
    }
}

/// A set of numbers as disjoint inclusive ranges, ascending.
#[derive(Clone, Debug, Default, Hash, PartialEq, Eq)]
pub struct RangeSet(Vec<(u64, u64)>);

impl RangeSet {
    #[inline]
    pub fn contains(&self, value: u64) -> bool {
        if self.0.is_empty() {
            return false;
        }
        let after = self.0.partition_point(|&(first, _)| first <= value);
        after > 0 && self.0[after - 1].1 >= value
    }

    /// Add `first..=last`. An empty range (first above last) adds nothing.
    pub fn insert(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        self.remove(first, last);
        let at = self.0.partition_point(|&(start, _)| start < first);
        self.0.insert(at, (first, last));
    }

    /// Remove `first..=last`, cutting ranges that reach beyond it.
    pub fn remove(&mut self, first: u64, last: u64) {
        if first > last {
            return;
        }
        let mut kept = Vec::with_capacity(self.0.len() + 1);
        for &(start, end) in &self.0 {
            if end < first || start > last {
                kept.push((start, end));
                continue;
            }
            if start < first {
                kept.push((start, first - 1));
            }
            if end > last {
                kept.push((last + 1, end));
            }
        }
        self.0 = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_can_be_cut_into_a_range() {
        let mut set = RangeSet::default();
        set.insert(10, 20);
        set.insert(18, 30);
        set.remove(15, 16);
        for (value, expected) in [(9, false), (10, true), (14, true), (15, false), (16, false), (17, true), (30, true)]
        {
            assert_eq!(set.contains(value), expected, "{value}");
        }
        assert!(!set.contains(31));
        set.insert(0, u64::MAX);
        assert!(set.contains(u64::MAX));
        set.remove(0, u64::MAX);
        assert_eq!(set, RangeSet::default());
    }

    #[test]
    fn the_last_port_can_be_claimed() {
        let mut ports = PortClaims::new();
        ports.set(0xffff, 0xffff, true);
        assert!(ports.contains(0xffff) && !ports.contains(0xfffe));
        ports.set(0, 0xffff, false);
        assert!(!ports.contains(0xffff));
    }
}
