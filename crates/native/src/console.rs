//! A console that writes to a file descriptor which the caller keeps.

use std::fs::File;
use std::io::{self, Write};

use pyo3::prelude::*;

/// Writes at once, to a duplicate of the caller's descriptor.
pub struct FdWriter(File);

impl FdWriter {
    /// Duplicate `fd`.
    ///
    /// # Errors
    /// `OSError` if it is not open.
    pub fn new(fd: i32) -> PyResult<Self> {
        duplicate(fd).map(Self)
    }
}

/// The file behind a descriptor that the caller keeps.
///
/// # Errors
/// `OSError` if it is not open.
#[expect(unsafe_code, reason = "a file descriptor arrives from Python as a number")]
pub fn duplicate(fd: i32) -> PyResult<File> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(9).into());
    }
    // SAFETY: the descriptor is only duplicated while borrowed; `try_clone_to_owned` fails with EBADF if it is not open, and
    // it is not negative, the one value that `BorrowedFd` must not have.
    let borrowed = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
    Ok(File::from(borrowed.try_clone_to_owned()?))
}

impl Write for FdWriter {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.0.write(buffer)
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
