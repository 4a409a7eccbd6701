//! `GdbSession`: gdb's side of a machine. The protocol is in the crate `gdb`; here the machine is found for it.

use ::gdb::{Debuggee, Ended, ProtocolError, Session, State, Stop};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use vcpu::Register;

use crate::error::GdbProtocolError;
use crate::vm::{Inner, Vm};

/// A machine, and the Python object that decides what the engine does not know: breakpoints, and what `monitor` answers.
struct Machine {
    vm: Py<Vm>,
    owner: Py<PyAny>,
    num_vcpus: usize,
    /// The first thing that the owner raised.
    error: Option<PyErr>,
}

impl Machine {
    /// Look at the machine, or change it. `None` while it runs in another thread.
    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> Option<R> {
        self.vm.get().lock().ok().map(|mut inner| f(&mut inner))
    }

    fn ask<R>(&mut self, f: impl FnOnce(&Bound<'_, PyAny>) -> PyResult<R>) -> Option<R> {
        match Python::attach(|py| f(self.owner.bind(py))) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

impl Debuggee for Machine {
    fn num_vcpus(&self) -> usize {
        self.num_vcpus
    }
    fn register(&self, vcpu: usize, register: Register) -> u64 {
        self.with(|inner| inner.register(vcpu, register)).unwrap_or(0)
    }
    fn set_register(&mut self, vcpu: usize, register: Register, value: u64) -> bool {
        self.with(|inner| inner.set_register(vcpu, register, value)).unwrap_or(false)
    }
    fn msr(&mut self, vcpu: usize, index: u32) -> Option<u64> {
        self.with(|inner| inner.msr(vcpu, index)).flatten()
    }
    fn set_msr(&mut self, vcpu: usize, index: u32, value: u64) -> bool {
        self.with(|inner| inner.set_msr(vcpu, index, value)).unwrap_or(false)
    }
    fn extended_state(&self, vcpu: usize) -> Vec<u8> {
        self.with(|inner| inner.engine.cpu(vcpu).xsave_image()).unwrap_or_default()
    }
    fn set_extended_state(&mut self, vcpu: usize, image: &[u8]) -> bool {
        self.with(|inner| inner.engine.cpu_mut(vcpu).set_xsave_image(image).is_ok()).unwrap_or(false)
    }
    fn read_memory(&mut self, vcpu: usize, gva: u64, data: &mut [u8]) -> usize {
        self.vm.get().read_linear(vcpu, gva, data).unwrap_or_else(|done| done)
    }
    fn write_memory(&mut self, vcpu: usize, gva: u64, data: &[u8]) -> bool {
        self.vm.get().write_virtual(vcpu, gva, data).is_ok()
    }
    fn insert_breakpoint(&mut self, gva: u64) {
        self.ask(|owner| owner.call_method1("insert_breakpoint", (gva,)).map(drop));
    }
    fn remove_breakpoint(&mut self, gva: u64) {
        self.ask(|owner| owner.call_method1("remove_breakpoint", (gva,)).map(drop));
    }
    fn monitor(&mut self, command: &str) -> String {
        self.ask(|owner| owner.call_method1("monitor", (command,))?.extract()).unwrap_or_default()
    }
    fn describe(&self, vcpu: usize) -> String {
        let name = self.with(|inner| inner.describe(vcpu)).unwrap_or("running");
        format!("cpu{vcpu} {name}")
    }
}

/// One connection of gdb to a machine.
#[pyclass(module = "paravirt._native")]
pub struct GdbSession(Session<Machine>);

impl GdbSession {
    /// What the owner has raised comes first.
    fn finish(&mut self, result: Result<(), ProtocolError>) -> PyResult<()> {
        if let Some(error) = self.0.debuggee().error.take() {
            return Err(error);
        }
        result.map_err(|error| GdbProtocolError::new_err(error.0))
    }

    fn report(&mut self, stop: Stop) -> PyResult<()> {
        let result = self.0.report(stop);
        self.finish(result)
    }
}

#[pymethods]
impl GdbSession {
    #[new]
    fn new(vm: Py<Vm>, owner: Py<PyAny>) -> PyResult<Self> {
        let num_vcpus = vm.get().lock()?.engine.num_cpus();
        let machine = Machine { vm, owner, num_vcpus, error: None };
        Session::new(machine).map(Self).map_err(|error| GdbProtocolError::new_err(error.0))
    }

    fn feed(&mut self, data: &[u8]) -> PyResult<()> {
        let result = self.0.feed(data);
        self.finish(result)
    }

    fn take_output<'py>(&mut self, py: Python<'py>) -> Bound<'py, PyBytes> {
        PyBytes::new(py, &self.0.take_output())
    }

    #[getter]
    fn state(&self) -> &'static str {
        match self.0.state() {
            Some(State::Stopped) => "stopped",
            Some(State::Running { interrupt: false, .. }) => "running",
            Some(State::Running { interrupt: true, .. }) => "interrupted",
            Some(State::Ended(Ended::Detached)) => "detached",
            Some(State::Ended(Ended::Killed)) => "killed",
            Some(State::Ended(Ended::Exited)) => "exited",
            None => "broken",
        }
    }

    #[getter]
    fn resume(&self) -> (Option<usize>, Option<(u64, u64)>, bool) {
        match self.0.state() {
            Some(State::Running { resume, .. }) => (resume.step, resume.range, resume.alone),
            _ => (None, None, false),
        }
    }

    fn report_breakpoint(&mut self, vcpu: usize, gva: u64) -> PyResult<()> {
        self.report(Stop::Breakpoint { vcpu, gva })
    }

    fn report_signal(&mut self, vcpu: usize, signal: u8) -> PyResult<()> {
        self.report(Stop::Signal { vcpu, signal })
    }

    fn report_exit(&mut self, status: u8) -> PyResult<()> {
        self.report(Stop::Exited(status))
    }

    fn clear(&mut self) -> PyResult<()> {
        self.0.clear();
        self.finish(Ok(()))
    }
}
