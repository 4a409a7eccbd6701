//! `Memory`.

use guestmem::GuestMemory;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::error::memory_error;

/// RAM by guest-physical address.
#[pyclass(frozen, module = "paravirt._native")]
pub struct Memory(pub GuestMemory);

/// The most that one read returns; a larger one is the caller's mistake.
const MAX_READ: u64 = 1 << 40;

#[pymethods]
impl Memory {
    #[getter]
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn ranges(&self) -> Vec<(u64, u64)> {
        self.0.ranges()
    }

    fn read<'py>(&self, py: Python<'py>, gpa: u64, length: u64) -> PyResult<Bound<'py, PyBytes>> {
        // Before anything is allocated for it.
        if length > self.0.size().min(MAX_READ) {
            return Err(memory_error(guestmem::Error::NotRam { gpa, len: length }));
        }
        PyBytes::new_with(py, length as usize, |bytes| self.0.read_bytes(gpa, bytes).map_err(memory_error))
    }

    fn write(&self, py: Python<'_>, gpa: u64, data: PyBuffer<u8>) -> PyResult<()> {
        self.0.write_bytes(gpa, &data.to_vec(py)?).map_err(memory_error)
    }

    fn clear(&self, gpa: u64, length: u64) -> PyResult<()> {
        self.0.clear(gpa, length).map_err(memory_error)
    }

    fn read_int(&self, gpa: u64, size: usize) -> PyResult<u64> {
        let mut bytes = [0; 8];
        self.0.read_bytes(gpa, &mut bytes[..int_size(size)?]).map_err(memory_error)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn write_int(&self, gpa: u64, size: usize, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let bytes = truncated(value)?.to_le_bytes();
        self.0.write_bytes(gpa, &bytes[..int_size(size)?]).map_err(memory_error)
    }

    fn take_dirty_pages(&self) -> Vec<u64> {
        self.0.take_dirty_pages()
    }
}

fn int_size(size: usize) -> PyResult<usize> {
    if matches!(size, 1 | 2 | 4 | 8) {
        Ok(size)
    } else {
        Err(PyValueError::new_err(format!("an integer in guest memory has 1, 2, 4 or 8 bytes, not {size}")))
    }
}

/// A Python int modulo 2^64: results of hypercalls are often negative.
pub fn truncated(value: &Bound<'_, PyAny>) -> PyResult<u64> {
    match value.extract::<u64>() {
        Ok(value) => Ok(value),
        Err(_) => match value.extract::<i64>() {
            Ok(value) => Ok(value as u64),
            Err(_) => value.call_method1("__and__", (u64::MAX,))?.extract(),
        },
    }
}
