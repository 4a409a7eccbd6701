//! Where the bytes of a disk are.

use std::hash::Hasher;
use std::io;

/// Bytes by position. Ranges lie within the length, which does not change.
pub trait Storage: Send {
    /// Bytes that there are.
    fn len(&self) -> u64;

    /// Whether there is nothing at all.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether it cannot be written.
    fn is_read_only(&self) -> bool;

    /// Fill the buffer.
    ///
    /// # Errors
    /// What the host says.
    fn read_at(&mut self, position: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Write all of the bytes.
    ///
    /// # Errors
    /// What the host says; some of them may have been written.
    fn write_at(&mut self, position: u64, bytes: &[u8]) -> io::Result<()>;

    /// Make what was written durable.
    ///
    /// # Errors
    /// What the host says.
    fn flush(&mut self) -> io::Result<()>;

    /// Feed what is kept in memory to `hasher`: files are the world's.
    fn hash_state(&self, hasher: &mut dyn Hasher);
}
