//! 256 bits, one for each interrupt vector: IRR, ISR and TMR.

/// A set of vectors.
#[derive(Clone, Copy, Debug, Default, Hash, PartialEq, Eq)]
pub struct VectorSet([u64; 4]);

impl VectorSet {
    pub fn contains(&self, vector: u8) -> bool {
        self.0[usize::from(vector / 64)] & 1 << (vector % 64) != 0
    }

    pub fn insert(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] |= 1 << (vector % 64);
    }

    pub fn remove(&mut self, vector: u8) {
        self.0[usize::from(vector / 64)] &= !(1 << (vector % 64));
    }

    pub fn set(&mut self, vector: u8, present: bool) {
        if present { self.insert(vector) } else { self.remove(vector) }
    }

    /// The highest vector, which is the one of highest priority.
    #[inline]
    pub fn highest(&self) -> Option<u8> {
        let word = (0..4).rev().find(|&word| self.0[word] != 0)?;
        Some((word * 64 + 63) as u8 - self.0[word].leading_zeros() as u8)
    }

    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    pub fn len(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// Bits `32 * index` to `32 * index + 31`, as the eight registers of a set show them. `index` is taken modulo 8.
    pub fn word(&self, index: u32) -> u32 {
        (self.0[(index as usize / 2) % 4] >> (index % 2 * 32)) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_vector_is_found_in_every_word() {
        let mut set = VectorSet::default();
        assert_eq!(set.highest(), None);
        for vector in [0, 31, 63, 64, 127, 200, 255] {
            set.insert(vector);
            assert_eq!(set.highest(), Some(vector));
            assert_ne!(set.word(u32::from(vector / 32)) & 1 << (vector % 32), 0);
        }
        assert_eq!(set.len(), 7);
        set.remove(255);
        assert_eq!(set.highest(), Some(200));
    }
}
