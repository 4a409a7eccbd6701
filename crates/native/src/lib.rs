//! PyO3 binding: `paravirt._native`.
//!
//! May depend on every other crate; translates, decides nothing. One file for each Python class; types and documentation of
//! what Python sees are in `python/paravirt/_native.pyi`.
#![deny(unsafe_code)]

mod console;
mod devices;
mod error;
mod exit;
mod gdb;
mod memory;
mod vm;

use pyo3::prelude::*;

/// The module.
#[pymodule]
fn _native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("PROFILE", if cfg!(debug_assertions) { "debug" } else { "release" })?;
    module.add("NativeError", module.py().get_type::<error::NativeError>())?;
    module.add("MemoryRangeError", module.py().get_type::<error::MemoryRangeError>())?;
    module.add("HostError", module.py().get_type::<error::HostError>())?;
    module.add("GdbProtocolError", module.py().get_type::<error::GdbProtocolError>())?;
    module.add_class::<exit::ExitKind>()?;
    module.add_class::<exit::Exit>()?;
    module.add_class::<memory::Memory>()?;
    module.add_class::<vm::Vm>()?;
    module.add_class::<gdb::GdbSession>()?;
    Ok(())
}
