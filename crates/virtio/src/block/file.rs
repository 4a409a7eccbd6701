//! A raw image: the file's bytes are the disk's.

use std::fs::File;
use std::hash::Hasher;
use std::io::{self, Read, Seek, SeekFrom, Write};

use super::storage::Storage;

/// A file. Writes go to the host at once, and are durable after a flush.
pub struct FileStorage {
    file: File,
    len: u64,
    is_read_only: bool,
}

impl FileStorage {
    /// A disk in a file, or block device, that is open for what will be done with it.
    ///
    /// # Errors
    /// If the file cannot tell its length.
    pub fn new(mut file: File, is_read_only: bool) -> io::Result<Self> {
        // The end of a block device is found by seeking; its metadata do not tell it.
        let len = file.seek(SeekFrom::End(0))?;
        Ok(Self { file, len, is_read_only })
    }
}

impl Storage for FileStorage {
    fn len(&self) -> u64 {
        self.len
    }

    fn is_read_only(&self) -> bool {
        self.is_read_only
    }

    fn read_at(&mut self, position: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.file.read_exact(buffer)
    }

    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(position))?;
        self.file.write_all(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.is_read_only { Ok(()) } else { self.file.sync_data() }
    }

    fn hash_state(&self, _: &mut dyn Hasher) {}
}
