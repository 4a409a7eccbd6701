//! What a virtio device is to its transport.

use std::any::Any;
use std::hash::Hasher;

use guestmem::GuestMemory;

use crate::chain::Chain;
use crate::queue::Error;
use crate::transport::LATENCY_NS;

/// What a device has while it works on a request.
pub struct Seat<'a> {
    /// The machine's RAM.
    pub memory: &'a GuestMemory,
    /// Features that device and driver have agreed on.
    pub features: u64,
}

/// A device, whatever bus it is on.
pub trait Device: Send {
    /// Its type, section 5.
    fn id(&self) -> u16;

    /// The features of its type that it offers; those of queues and transport are the transport's.
    fn features(&self) -> u64;

    /// How many queues it has.
    fn queues(&self) -> usize;

    /// A byte of its configuration space; zero beyond the end.
    fn config(&self, offset: usize) -> u8;

    /// Whether the device has a use for chains of this queue now.
    fn wants(&self, _queue: usize) -> bool {
        true
    }

    /// How long it takes, in ns of virtual time, until the device looks at a queue to which something has happened.
    fn latency_ns(&self, _queue: usize) -> u64 {
        LATENCY_NS
    }

    /// Carry a request out. Returns how many bytes were written to its writable part.
    ///
    /// # Errors
    /// If it is no request, which breaks the device.
    fn serve(&mut self, queue: usize, chain: &Chain, seat: &Seat<'_>) -> Result<u32, Error>;

    /// The driver resets the device. What belongs to the host stays.
    fn reset(&mut self) {}

    /// Feed everything that can influence the guest's future to `hasher`.
    fn hash_state(&self, hasher: &mut dyn Hasher);

    /// For those who know which device it is.
    fn as_any(&mut self) -> &mut dyn Any;
}
