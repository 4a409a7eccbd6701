//! Split virtqueues, section 2.7: where the driver offers chains, and the device returns them.

use guestmem::GuestMemory;

use crate::chain::{Chain, DESCRIPTOR_SIZE};

/// The most entries that a queue here has.
pub const MAX_QUEUE_SIZE: u16 = 256;

/// Driver area: the driver wants no interrupts.
const NO_INTERRUPT: u16 = 1;
/// Both rings: flags, then the index, then the entries.
const INDEX: u64 = 2;
const ENTRIES: u64 = 4;
const AVAILABLE_SIZE: u64 = 2;
const USED_SIZE: u64 = 8;

/// What a driver has done wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A ring or table lies, or reaches, outside of RAM.
    #[error("a ring is not in RAM")]
    RingOutsideRam,
    /// The size of a queue is no power of two, or its parts are not aligned.
    #[error("the queue's size or addresses are not possible")]
    BadQueue,
    /// More chains are said to be available than there are entries.
    #[error("{count} chains are available in a queue of {size}")]
    BadIndex {
        /// Chains said to be available.
        count: u16,
        /// Entries of the queue.
        size: u16,
    },
    /// A chain leaves its table, or goes round in it.
    #[error("a chain goes on at descriptor {index}, out of its table or for ever")]
    BadChain {
        /// The descriptor at which that shows.
        index: u16,
    },
    /// An indirect table within another, or of impossible length, or with a descriptor behind it.
    #[error("the indirect table at {gpa:#x} of {len} bytes is not possible")]
    BadIndirectTable {
        /// Where it is.
        gpa: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// A buffer to be read stands behind one to be written.
    #[error("a readable buffer follows a writable one")]
    ReadableAfterWritable,
    /// A buffer is not RAM.
    #[error("the buffer at {gpa:#x} of {len} bytes is not in RAM")]
    BufferOutsideRam {
        /// Where it is.
        gpa: u64,
        /// Its length in bytes.
        len: u32,
    },
    /// The buffers of a chain are longer together than [`crate::MAX_CHAIN_BYTES`].
    #[error("the buffers of a chain are too long")]
    ChainTooLarge,
    /// What a device says of a request that it cannot answer.
    #[error("{0}")]
    BadRequest(&'static str),
}

/// One virtqueue. The registers are the transport's to read and write while the queue is not enabled.
#[derive(Clone, Debug, Hash)]
pub struct Queue {
    max_size: u16,
    /// Entries, a power of two.
    pub size: u16,
    /// The driver has set it up.
    pub is_enabled: bool,
    /// Guest-physical address of the descriptor table.
    pub descriptors: u64,
    /// Guest-physical address of the driver area: the available ring.
    pub driver: u64,
    /// Guest-physical address of the device area: the used ring.
    pub device: u64,
    /// The next chain to take, and the next entry to return one in; both run freely.
    next_available: u16,
    next_used: u16,
    /// `next_used` when the driver was last told.
    told_used: u16,
    /// VIRTIO_F_EVENT_IDX was agreed on.
    pub(crate) has_event_index: bool,
}

impl Queue {
    /// A queue as after reset.
    pub fn new(max_size: u16) -> Self {
        debug_assert!(max_size.is_power_of_two() && max_size <= MAX_QUEUE_SIZE);
        Self {
            max_size,
            size: max_size,
            is_enabled: false,
            descriptors: 0,
            driver: 0,
            device: 0,
            next_available: 0,
            next_used: 0,
            told_used: 0,
            has_event_index: false,
        }
    }

    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.max_size);
    }

    /// Take the next chain; `None`: there is none.
    ///
    /// # Errors
    /// If the driver has broken a rule of section 2.7.
    pub fn pop(&mut self, memory: &GuestMemory) -> Result<Option<Chain>, Error> {
        self.check()?;
        let count = read_u16(memory, self.driver, INDEX)?.wrapping_sub(self.next_available);
        if count > self.size {
            return Err(Error::BadIndex { count, size: self.size });
        }
        if count == 0 {
            return Ok(None);
        }
        let slot = u64::from(self.next_available % self.size);
        let head = read_u16(memory, self.driver, ENTRIES + AVAILABLE_SIZE * slot)?;
        let chain = Chain::collect(memory, self.descriptors, self.size, head)?;
        self.next_available = self.next_available.wrapping_add(1);
        Ok(Some(chain))
    }

    /// Section 4.1.4.3.2 and 2.7: a power of two, and parts that are aligned.
    fn check(&self) -> Result<(), Error> {
        let aligned = self.descriptors.is_multiple_of(DESCRIPTOR_SIZE)
            && self.driver.is_multiple_of(AVAILABLE_SIZE)
            && self.device.is_multiple_of(ENTRIES);
        let possible = self.size.is_power_of_two() && self.size <= self.max_size;
        if aligned && possible { Ok(()) } else { Err(Error::BadQueue) }
    }

    /// Return a chain, of whose writable part the first `written` bytes were written.
    ///
    /// # Errors
    /// If the used ring is not RAM.
    pub fn push(&mut self, memory: &GuestMemory, head: u16, written: u32) -> Result<(), Error> {
        let slot = u64::from(self.next_used % self.size);
        let entry = u64::from(head) | u64::from(written) << 32;
        write(memory, self.device, ENTRIES + USED_SIZE * slot, &entry.to_le_bytes())?;
        self.next_used = self.next_used.wrapping_add(1);
        write(memory, self.device, INDEX, &self.next_used.to_le_bytes())
    }

    /// Say up to where chains were taken, so that the driver notifies us of the next, and find out whether it wants to be told
    /// of those that were returned (sections 2.7.7 and 2.7.10).
    ///
    /// # Errors
    /// If the rings are not RAM.
    pub fn settle(&mut self, memory: &GuestMemory) -> Result<bool, Error> {
        let told = std::mem::replace(&mut self.told_used, self.next_used);
        let returned = self.next_used.wrapping_sub(told);
        if !self.has_event_index {
            return Ok(returned != 0 && read_u16(memory, self.driver, 0)? & NO_INTERRUPT == 0);
        }
        let after_used = ENTRIES + USED_SIZE * u64::from(self.size);
        write(memory, self.device, after_used, &self.next_available.to_le_bytes())?;
        let event = read_u16(memory, self.driver, ENTRIES + AVAILABLE_SIZE * u64::from(self.size))?;
        // The entry that the driver waits for is among those returned since.
        Ok(self.next_used.wrapping_sub(event).wrapping_sub(1) < returned)
    }
}

fn read_u16(memory: &GuestMemory, base: u64, offset: u64) -> Result<u16, Error> {
    let mut bytes = [0; 2];
    let gpa = base.checked_add(offset).ok_or(Error::RingOutsideRam)?;
    memory.read_bytes(gpa, &mut bytes).map_err(|_| Error::RingOutsideRam)?;
    Ok(u16::from_le_bytes(bytes))
}

fn write(memory: &GuestMemory, base: u64, offset: u64, bytes: &[u8]) -> Result<(), Error> {
    let gpa = base.checked_add(offset).ok_or(Error::RingOutsideRam)?;
    memory.write_bytes(gpa, bytes).map_err(|_| Error::RingOutsideRam)
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
