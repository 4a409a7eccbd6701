//! Virtio devices, OASIS specification 1.2: block, entropy and console, with what all transports share of a device. How the
//! registers look on a bus is the transport's business.
//!
//! May depend on `guestmem` only.
//!
//! # Why the queues are our own
//!
//! The crate `virtio-queue` walks descriptors through `vm-memory`'s own guest memory, while a write to ours must mark pages
//! dirty and drop decoded code ([`guestmem`] says why); its iterator ends silently where a chain is malformed, and a device must
//! tell such a chain from a short one; and every bit of state must be there to be hashed. What a split ring needs beyond that
//! is not much.
//!
//! # Time
//!
//! Nothing happens at a notification but that a time is set at which the device will look at that queue: [`LATENCY_NS`] later,
//! in virtual time. Then it takes what is there, in order. So a run depends on the guest alone, and a guest sees that devices take time.
//!
//! # A hostile driver
//!
//! A queue that makes no sense breaks its device, which says so by DEVICE_NEEDS_RESET and touches nothing until it is reset
//! (section 2.1.2). A chain is bounded in descriptors and bytes before anything of it is used, and so is what is done
//! at a time.
#![forbid(unsafe_code)]

mod block;
mod chain;
mod console;
mod device;
#[cfg(test)]
mod driver;
mod entropy;
mod queue;
mod transport;

pub use block::{Block, BlockConfig, FileStorage, Snapshot, Storage};
pub use chain::{Chain, MAX_CHAIN_BYTES};
pub use console::Console;
pub use device::{Device, Seat};
pub use entropy::Entropy;
pub use queue::{Error, MAX_QUEUE_SIZE, Queue};
pub use transport::{Interrupts, LATENCY_NS, Transport};
