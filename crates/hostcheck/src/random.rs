//! Random numbers with a taste for corners.

/// SplitMix64: good enough, tiny, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

const CORNERS: [u64; 17] = [
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x7FFF_FFFF,
    0x8000_0000,
    0xFFFF_FFFF,
    0x7FFF_FFFF_FFFF_FFFF,
    0x8000_0000_0000_0000,
    0xFFFF_FFFF_FFFF_FFFF,
    0x8080_8080_8080_8080,
    0x7F80_FF00_8001_7FFF,
];

impl Random {
    /// Numbers that depend on these and nothing else.
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut random = Self(seed);
        let mixed = random.next() ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        Self(mixed)
    }

    /// Any 64 bits.
    #[expect(clippy::should_implement_trait, reason = "not an iterator")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// `0..end`; `end` is positive.
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(end)) >> 64) as u64
    }

    /// True in so many of a hundred cases.
    pub fn percent(&mut self, share: u64) -> bool {
        self.below(100) < share
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, items: &[T]) -> T {
        items[self.below(items.len() as u64) as usize]
    }

    /// An integer: a corner of some width, one near zero or minus one, or anything.
    pub fn integer(&mut self) -> u64 {
        match self.below(20) {
            0..7 => self.pick(&CORNERS),
            7..9 => self.below(256),
            9..11 => self.below(256).wrapping_neg(),
            11..13 => 1 << self.below(64),
            13 => self.next() >> self.below(64),
            _ => self.next(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_and_repeat() {
        let draw = |seed, stream| Random::new(seed, stream).next();
        assert_eq!(draw(1, 2), draw(1, 2));
        assert_ne!(draw(1, 2), draw(1, 3));
        assert_ne!(draw(1, 2), draw(2, 2));
        let mut random = Random::new(0, 0);
        assert!((0..1000).all(|_| random.below(7) < 7));
    }
}
