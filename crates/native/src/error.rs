//! Rust errors as Python exceptions: the one table.

use pyo3::prelude::*;
use pyo3::{create_exception, exceptions::PyException};

create_exception!(_native, NativeError, PyException, "Base of what the native module raises by itself.");
create_exception!(_native, MemoryRangeError, NativeError, "Some byte of a range is not RAM, or not mapped.");
create_exception!(_native, HostError, NativeError, "The host refused something.");
create_exception!(_native, GdbProtocolError, NativeError, "What came from gdb is not its protocol.");

/// `guestmem`'s errors.
pub fn memory_error(error: guestmem::Error) -> PyErr {
    match error {
        guestmem::Error::Size { .. } | guestmem::Error::RomSize { .. } => {
            pyo3::exceptions::PyValueError::new_err(error.to_string())
        }
        guestmem::Error::Map { .. } => HostError::new_err(error.to_string()),
        guestmem::Error::NotRam { gpa, len } => MemoryRangeError::new_err((error.to_string(), gpa, len)),
    }
}

/// A linear address that the vCPU does not map.
pub fn not_mapped(gva: u64, len: u64) -> PyErr {
    MemoryRangeError::new_err((format!("linear address {gva:#x} is not mapped"), gva, len))
}
