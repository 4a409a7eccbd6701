//! Guest-physical memory: one anonymous mapping, with a dirty bit and a "holds decoded code" bit for each page.
//!
//! May depend on no other crate of the workspace. This is the one home of raw pointers.
//!
//! # Who may write how
//!
//! A page has two bits that a writer must honour: *dirty* (migration and snapshots look at it) and *code* (an engine has
//! decoded instructions from the page and must hear of writes to it). [`GuestMemory::write_bytes`] honours both.
//! [`GuestMemory::store`] honours neither: an engine's software TLB hands out pages for it only once
//! [`GuestMemory::open_for_stores`] has said that there is nothing left to honour.

mod error;
mod firmware;
mod layout;
mod memory;

pub use error::Error;
pub use firmware::{MAX_ROM_SIZE, SHADOW_BASE, SHADOW_END};
pub use layout::{HIGH_RAM_BASE, LOW_RAM_END, MAX_RAM_SIZE};
pub use memory::{GuestMemory, RamOffset, Scalar};

/// Bytes of a guest page.
pub const PAGE_SIZE: u64 = 4096;
