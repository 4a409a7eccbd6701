//! The entropy device, section 5.4: random bytes from a generator with a seed, so that equal runs get equal bytes. Whoever wants
//! real entropy takes the seed from there.

use std::any::Any;
use std::hash::{Hash, Hasher};

use rand_chacha::ChaCha20Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::chain::Chain;
use crate::device::{Device, Seat};
use crate::queue::Error;

const DEVICE_ID: u16 = 4;
/// The most bytes that one request gets; a driver asks again.
const MAX_REQUEST: u64 = 64 << 10;

/// The device.
pub struct Entropy {
    random: ChaCha20Rng,
}

impl Entropy {
    /// A device whose bytes depend on the seed alone.
    pub fn new(seed: [u8; 32]) -> Self {
        Self { random: ChaCha20Rng::from_seed(seed) }
    }
}

impl Device for Entropy {
    fn id(&self) -> u16 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self, _: usize) -> u8 {
        0
    }

    fn serve(&mut self, _: usize, chain: &Chain, seat: &Seat<'_>) -> Result<u32, Error> {
        let mut bytes = vec![0; chain.writable_len().min(MAX_REQUEST) as usize];
        self.random.fill_bytes(&mut bytes);
        Ok(chain.write_at(seat.memory, 0, &bytes) as u32)
    }

    fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        (self.random.get_seed(), self.random.get_word_pos()).hash(&mut hasher);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
