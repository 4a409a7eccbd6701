//! Copy on write: what the guest writes is kept in memory, and what is beneath stays as it is.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::io;

use super::storage::Storage;

/// Bytes that are copied together: the block of most file systems.
const CLUSTER: u64 = 4096;

/// Storage in front of another, which is only read.
pub struct Snapshot<S> {
    base: S,
    /// What was written, by number of cluster. The last one of a disk may reach beyond its end.
    clusters: BTreeMap<u64, Box<[u8]>>,
    /// How many clusters there may be.
    limit: u64,
}

impl<S: Storage> Snapshot<S> {
    /// Keep up to `limit_bytes` of writes; beyond that the guest gets I/O errors.
    pub fn new(base: S, limit_bytes: u64) -> Self {
        Self { base, clusters: BTreeMap::new(), limit: limit_bytes / CLUSTER }
    }

    /// The part of a range that lies in one cluster, for each: cluster, offset in it, range of the buffer.
    fn parts(position: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = position + done as u64;
            let offset = at % CLUSTER;
            let count = ((CLUSTER - offset) as usize).min(len - done);
            let range = done..done + count;
            done += count;
            (count > 0).then_some((at / CLUSTER, offset as usize, range))
        })
    }

    /// The cluster for writing, copied from the base unless all of it is going to be overwritten.
    fn cluster(&mut self, number: u64, is_whole: bool) -> io::Result<&mut [u8]> {
        if !self.clusters.contains_key(&number) {
            if self.clusters.len() as u64 >= self.limit {
                let limit = self.limit * CLUSTER;
                let message = format!("the guest has written more than the {limit} bytes that the snapshot may keep");
                return Err(io::Error::new(io::ErrorKind::StorageFull, message));
            }
            let mut bytes = vec![0; CLUSTER as usize].into_boxed_slice();
            if !is_whole {
                let start = number * CLUSTER;
                let count = (self.base.len() - start).min(CLUSTER) as usize;
                self.base.read_at(start, &mut bytes[..count])?;
            }
            self.clusters.insert(number, bytes);
        }
        Ok(self.clusters.entry(number).or_default())
    }
}

impl<S: Storage> Storage for Snapshot<S> {
    fn len(&self) -> u64 {
        self.base.len()
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read_at(&mut self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        let len = buffer.len();
        let last = (position + len as u64) / CLUSTER;
        if self.clusters.range(position / CLUSTER..=last).next().is_none() {
            return self.base.read_at(position, buffer);
        }
        for (number, offset, range) in Self::parts(position, len) {
            match self.clusters.get(&number) {
                Some(bytes) => buffer[range.clone()].copy_from_slice(&bytes[offset..offset + range.len()]),
                None => self.base.read_at(number * CLUSTER + offset as u64, &mut buffer[range])?,
            }
        }
        Ok(())
    }

    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        for (number, offset, range) in Self::parts(position, bytes.len()) {
            let cluster = self.cluster(number, range.len() == CLUSTER as usize)?;
            cluster[offset..offset + range.len()].copy_from_slice(&bytes[range]);
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn hash_state(&self, mut hasher: &mut dyn Hasher) {
        self.clusters.hash(&mut hasher);
    }
}
