//! Virtio devices as Python asks for them.

use board::Board;
use pyo3::prelude::*;
use virtio::{Block, BlockConfig, Entropy, FileStorage, Snapshot, Storage};

use crate::console::duplicate;
use crate::error::HostError;

/// A disk in the file behind a descriptor, which stays the caller's. `snapshot_bytes`: keep that much of what is written in
/// memory and leave the file as it is.
pub fn add_disk(board: &mut Board, fd: i32, readonly: bool, snapshot_bytes: Option<u64>, id: &str) -> PyResult<u8> {
    let file = FileStorage::new(duplicate(fd)?, readonly || snapshot_bytes.is_some())?;
    let storage: Box<dyn Storage> = match snapshot_bytes {
        Some(limit) => Box::new(Snapshot::new(file, limit)),
        None => Box::new(file),
    };
    plugged(board.plug_virtio(Box::new(Block::new(storage, &BlockConfig { id: id.to_owned() }))))
}

/// An entropy device whose bytes depend on the seed.
pub fn add_entropy(board: &mut Board, seed: [u8; 32]) -> PyResult<u8> {
    plugged(board.plug_virtio(Box::new(Entropy::new(seed))))
}

/// A second way to the console.
pub fn add_console(board: &mut Board) -> PyResult<u8> {
    if board.has_virtio_console() {
        return Err(HostError::new_err("the machine has a virtio console already"));
    }
    plugged(board.plug_virtio_console())
}

/// How many requests to the disk in a slot have failed since the last call, and why the first did.
pub fn take_disk_failures(board: &mut Board, slot: u8) -> Option<(u64, String)> {
    let (count, error) = board.virtio_device_mut::<Block>(slot)?.take_failures()?;
    Some((count, error.to_string()))
}

fn plugged(slot: Option<u8>) -> PyResult<u8> {
    slot.ok_or_else(|| HostError::new_err("all PCI slots are taken"))
}
