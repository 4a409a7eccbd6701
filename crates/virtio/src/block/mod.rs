//! The block device, section 5.2: a disk of 512-byte sectors on some [`Storage`].

mod file;
mod snapshot;
mod storage;

use std::any::Any;
use std::hash::Hasher;
use std::io;

use crate::chain::Chain;
use crate::device::{Device, Seat};
use crate::queue::{Error, MAX_QUEUE_SIZE};

pub use file::FileStorage;
pub use snapshot::Snapshot;
pub use storage::Storage;

const DEVICE_ID: u16 = 2;
const SECTOR: u64 = 512;

/// Features, section 5.2.3.
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const WRITE_ZEROES: u64 = 1 << 14;

/// Request types, section 5.2.6.
const REQUEST_IN: u32 = 0;
const REQUEST_OUT: u32 = 1;
const REQUEST_FLUSH: u32 = 4;
const REQUEST_GET_ID: u32 = 8;
const REQUEST_WRITE_ZEROES: u32 = 13;

const STATUS_OK: u8 = 0;
const STATUS_IO_ERROR: u8 = 1;
const STATUS_UNSUPPORTED: u8 = 2;

/// Bytes before the data: type, reserved, first sector.
const HEADER_SIZE: usize = 16;
/// Bytes of the text that names a disk.
const ID_SIZE: usize = 20;
/// What a write-zeroes request says: first sector, number of sectors, flags.
const RANGE_SIZE: usize = 16;

/// Requests as large as a chain can be: segments of 64 KiB, and as many as fit between header and status.
const MAX_SEGMENT: u32 = 64 << 10;
const MAX_SEGMENTS: u32 = MAX_QUEUE_SIZE as u32 - 2;
/// The most sectors that a write-zeroes request covers.
const MAX_ZERO_SECTORS: u32 = 8192;
/// Data goes through a buffer of this many bytes.
const CHUNK: usize = 128 << 10;

/// What a disk shows of itself besides its data.
#[derive(Clone, Debug, Default)]
pub struct BlockConfig {
    /// Text that names the disk, of which 20 bytes count.
    pub id: String,
}

/// A request that fails, and what its status tells the guest.
enum Failure {
    /// The host could not do it.
    Io(io::Error),
    /// The driver must not ask for that.
    Refused,
    /// There is no such request.
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The device.
pub struct Block {
    storage: Box<dyn Storage>,
    id: [u8; ID_SIZE],
    sectors: u64,
    buffer: Vec<u8>,
    /// How many requests the host could not carry out, and why the first.
    failures: u64,
    first_failure: Option<io::Error>,
}

impl Block {
    /// A disk as long as its storage is now, in whole sectors.
    pub fn new(storage: Box<dyn Storage>, config: &BlockConfig) -> Self {
        let mut id = [0; ID_SIZE];
        for (to, from) in id.iter_mut().zip(config.id.bytes()) {
            *to = from;
        }
        let sectors = storage.len() / SECTOR;
        Self { storage, id, sectors, buffer: vec![0; CHUNK], failures: 0, first_failure: None }
    }

    /// How many requests the host could not carry out since the last call, and why the first: `None` if all went well.
    pub fn take_failures(&mut self) -> Option<(u64, io::Error)> {
        let error = self.first_failure.take()?;
        Some((std::mem::take(&mut self.failures), error))
    }

    /// Byte offset of a range of sectors, if the disk has them.
    fn position(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let inside = bytes.is_multiple_of(SECTOR) && sector <= self.sectors && bytes / SECTOR <= self.sectors - sector;
        if inside { Ok(sector * SECTOR) } else { Err(Failure::Refused) }
    }

    /// Carry out a request; returns the bytes of data written to the chain.
    fn request(&mut self, header: Header, chain: &Chain, seat: &Seat<'_>) -> Result<u64, Failure> {
        match header.kind {
            REQUEST_IN => self.read(header.sector, chain, seat),
            REQUEST_OUT => self.write(header.sector, chain, seat).map(|()| 0),
            REQUEST_FLUSH => Ok(self.storage.flush().map(|()| 0)?),
            REQUEST_GET_ID => {
                let room = (chain.writable_len() - 1).min(ID_SIZE as u64) as usize;
                Ok(chain.write_at(seat.memory, 0, &self.id[..room]) as u64)
            }
            REQUEST_WRITE_ZEROES => self.write_zeroes(chain, seat).map(|()| 0),
            _ => Err(Failure::Unsupported),
        }
    }

    fn read(&mut self, sector: u64, chain: &Chain, seat: &Seat<'_>) -> Result<u64, Failure> {
        let bytes = chain.writable_len() - 1;
        let position = self.position(sector, bytes)?;
        for (done, count) in chunks(bytes) {
            let buffer = &mut self.buffer[..count];
            self.storage.read_at(position + done, buffer)?;
            chain.write_at(seat.memory, done, buffer);
        }
        Ok(bytes)
    }

    fn write(&mut self, sector: u64, chain: &Chain, seat: &Seat<'_>) -> Result<(), Failure> {
        self.check_writable()?;
        let bytes = chain.readable_len() - HEADER_SIZE as u64;
        let position = self.position(sector, bytes)?;
        for (done, count) in chunks(bytes) {
            let buffer = &mut self.buffer[..count];
            chain.read_at(seat.memory, HEADER_SIZE as u64 + done, buffer);
            self.storage.write_at(position + done, buffer)?;
        }
        Ok(())
    }

    fn write_zeroes(&mut self, chain: &Chain, seat: &Seat<'_>) -> Result<(), Failure> {
        self.check_writable()?;
        let mut range = [0; RANGE_SIZE];
        if chain.read_at(seat.memory, HEADER_SIZE as u64, &mut range) < RANGE_SIZE {
            return Err(Failure::Refused);
        }
        let [sector @ .., c0, c1, c2, c3, _, _, _, _] = range;
        let count = u32::from_le_bytes([c0, c1, c2, c3]);
        if count > MAX_ZERO_SECTORS {
            return Err(Failure::Refused);
        }
        let bytes = u64::from(count) * SECTOR;
        let position = self.position(u64::from_le_bytes(sector), bytes)?;
        chunks(bytes).try_for_each(|(done, count)| self.zero(position + done, count))
    }

    /// What is zero already is not written, so that a sparse file stays one.
    fn zero(&mut self, position: u64, count: usize) -> Result<(), Failure> {
        let buffer = &mut self.buffer[..count];
        self.storage.read_at(position, buffer)?;
        if buffer.iter().any(|&byte| byte != 0) {
            buffer.fill(0);
            self.storage.write_at(position, buffer)?;
        }
        Ok(())
    }

    fn check_writable(&self) -> Result<(), Failure> {
        // VIRTIO_BLK_F_RO says so; a driver that writes all the same gets an I/O error (section 5.2.6.2).
        if self.storage.is_read_only() { Err(Failure::Refused) } else { Ok(()) }
    }

    fn note_failure(&mut self, error: io::Error) {
        self.failures += 1;
        self.first_failure.get_or_insert(error);
    }

    /// `struct virtio_blk_config`, section 5.2.4, as far as the features make it valid.
    fn config_bytes(&self) -> [u8; 60] {
        let mut config = [0; 60];
        config[0..8].copy_from_slice(&self.sectors.to_le_bytes());
        for (offset, value) in
            [(8, MAX_SEGMENT), (12, MAX_SEGMENTS), (20, SECTOR as u32), (48, MAX_ZERO_SECTORS), (52, 1)]
        {
            config[offset..offset + 4].copy_from_slice(&value.to_le_bytes());
        }
        config
    }
}

/// What a request begins with.
struct Header {
    kind: u32,
    sector: u64,
}

impl Header {
    fn read(chain: &Chain, seat: &Seat<'_>) -> Option<Self> {
        let mut bytes = [0; HEADER_SIZE];
        if chain.read_at(seat.memory, 0, &mut bytes) < HEADER_SIZE {
            return None;
        }
        let value = u128::from_le_bytes(bytes);
        Some(Self { kind: value as u32, sector: (value >> 64) as u64 })
    }
}

/// Split a length into pieces that fit the buffer: offset and length.
fn chunks(bytes: u64) -> impl Iterator<Item = (u64, usize)> {
    (0..bytes).step_by(CHUNK).map(move |done| (done, (bytes - done).min(CHUNK as u64) as usize))
}

impl Device for Block {
    fn id(&self) -> u16 {
        DEVICE_ID
    }

    fn features(&self) -> u64 {
        let writable = if self.storage.is_read_only() { READ_ONLY } else { WRITE_ZEROES };
        SIZE_MAX | SEG_MAX | BLK_SIZE | FLUSH | writable
    }

    fn queues(&self) -> usize {
        1
    }

    fn config(&self, offset: usize) -> u8 {
        self.config_bytes().get(offset).copied().unwrap_or(0)
    }

    fn serve(&mut self, _: usize, chain: &Chain, seat: &Seat<'_>) -> Result<u32, Error> {
        let header = Header::read(chain, seat).ok_or(Error::BadRequest("a disk request without a header"))?;
        let Some(status_at) = chain.writable_len().checked_sub(1) else {
            return Err(Error::BadRequest("a disk request without room for its status"));
        };
        let (written, status) = match self.request(header, chain, seat) {
            Ok(written) => (written, STATUS_OK),
            Err(Failure::Unsupported) => (0, STATUS_UNSUPPORTED),
            Err(Failure::Refused) => (0, STATUS_IO_ERROR),
            Err(Failure::Io(error)) => {
                self.note_failure(error);
                (0, STATUS_IO_ERROR)
            }
        };
        chain.write_at(seat.memory, status_at, &[status]);
        // The length counts what was written from the start without a gap: all of it, or nothing but the status.
        Ok(if written == status_at { written as u32 + 1 } else { written as u32 })
    }

    fn hash_state(&self, hasher: &mut dyn Hasher) {
        self.storage.hash_state(hasher);
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

#[cfg(test)]
#[path = "../block_tests.rs"]
pub(crate) mod tests;
