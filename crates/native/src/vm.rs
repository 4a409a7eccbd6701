//! `Vm`: the engine and the board, put together.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

use board::{ApicFeatures, Board, BoardConfig, OptionalDevice, OptionalDevices};
use guestmem::GuestMemory;
use pyo3::exceptions::{PyKeyError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict};
use softcpu::{Activity, Answer, CpuidEntry, CpuidTable, Doze, Engine, EngineConfig, HostVendor};
use vcpu::{Bus, Clock, CpuMode, Exit as EngineExit, Register, Reply, StopReason};
use x86defs::{cpuid, dr, vector};

use crate::devices;
use crate::error::{HostError, memory_error, not_mapped};
use crate::exit::{Caller, Exit, KIND_NAMES};
use crate::memory::{Memory, truncated};

/// Instructions between two looks for signals: some 20 ms.
const CHUNK: u64 = 5_000_000;
/// Instructions that run before the interpreter lock is released: most exits come sooner, and releasing costs more.
const ATTACHED: u64 = 2_000;
/// Steps that other vCPUs take before somebody looks for signals.
const CHUNK_OF_STEPS: u32 = 20_000;

fn no_apic_register(offset: u32) -> PyErr {
    PyKeyError::new_err(format!(
        "the local APIC is off, or its register {offset:#x} does not exist or refuses the value"
    ))
}

/// What is locked as one.
pub(crate) struct Inner {
    pub(crate) engine: Engine,
    board: Board,
    cpuid: CpuidTable,
    /// The last exit, for answers.
    last: Option<EngineExit>,
    /// Exits by kind, in the order of [`KIND_NAMES`].
    exits: [u64; KIND_NAMES.len()],
}

/// A machine on the software engine.
#[pyclass(frozen, module = "paravirt._native")]
pub struct Vm {
    inner: Mutex<Inner>,
    interrupted: AtomicBool,
    memory: GuestMemory,
}

fn parse_host(host: &str) -> PyResult<HostVendor> {
    match host {
        "intel" => Ok(HostVendor::Intel),
        "amd" => Ok(HostVendor::Amd),
        "lguest" => Ok(HostVendor::Lguest),
        _ => Err(PyValueError::new_err(format!("unknown host {host:?}: \"intel\", \"amd\" or \"lguest\""))),
    }
}

fn parse_register(name: &str) -> PyResult<Register> {
    Register::ALL
        .iter()
        .copied()
        .find(|register| register.name() == name)
        .ok_or_else(|| PyKeyError::new_err(format!("there is no register {name:?}")))
}

impl Vm {
    /// The machine, unless another thread runs it.
    pub(crate) fn lock(&self) -> PyResult<MutexGuard<'_, Inner>> {
        match self.inner.try_lock() {
            Ok(inner) => Ok(inner),
            Err(std::sync::TryLockError::WouldBlock) => {
                Err(PyRuntimeError::new_err("the machine is running in another thread"))
            }
            Err(std::sync::TryLockError::Poisoned(_)) => {
                Err(PyRuntimeError::new_err("the machine is broken: an earlier call ended in an internal error"))
            }
        }
    }

    /// The machine, with the index of a vCPU checked.
    fn lock_for(&self, vcpu: usize) -> PyResult<MutexGuard<'_, Inner>> {
        let inner = self.lock()?;
        if vcpu < inner.engine.num_cpus() {
            Ok(inner)
        } else {
            let last = inner.engine.num_cpus() - 1;
            Err(PyValueError::new_err(format!("there is no vCPU {vcpu}: 0..={last}")))
        }
    }

    /// Read memory by a vCPU's page tables. `Err`: only so many bytes could be read.
    pub(crate) fn read_linear(&self, vcpu: usize, gva: u64, bytes: &mut [u8]) -> Result<usize, usize> {
        let inner = self.lock_for(vcpu).map_err(|_| 0_usize)?;
        let mut done = 0;
        let whole = for_each_page(gva, bytes.len() as u64, |gva, range| {
            let gpa = inner.engine.cpu(vcpu).translate(gva, false, None).ok_or_else(|| not_mapped(gva, 1))?;
            self.memory.read_bytes(gpa, &mut bytes[range.clone()]).map_err(|_| not_mapped(gva, 1))?;
            done = range.end;
            Ok(())
        });
        whole.map(|()| done).map_err(|_| done)
    }
}

impl Inner {
    pub(crate) fn register(&self, vcpu: usize, register: Register) -> u64 {
        match register {
            Register::Cr8 => self.board.cr8(vcpu),
            _ => self.engine.cpu(vcpu).register(register),
        }
    }

    /// False: it cannot hold that.
    pub(crate) fn set_register(&mut self, vcpu: usize, register: Register, value: u64) -> bool {
        match register {
            Register::Cr8 if value > 15 => false,
            Register::Cr8 => {
                self.board.set_cr8(vcpu, value);
                true
            }
            _ => self.engine.cpu_mut(vcpu).set_register(register, value).is_ok(),
        }
    }

    /// An MSR as RDMSR reads it, bypassing exits; `None`: there is none.
    pub(crate) fn msr(&mut self, vcpu: usize, index: u32) -> Option<u64> {
        let engine = &mut self.engine;
        self.board.without_claims(|board| engine.read_msr(board, vcpu, index))
    }

    /// False: there is none, or it cannot hold that.
    pub(crate) fn set_msr(&mut self, vcpu: usize, index: u32, value: u64) -> bool {
        let engine = &mut self.engine;
        self.board.without_claims(|board| engine.write_msr(board, vcpu, index, value))
    }

    /// What a vCPU does, in a word.
    pub(crate) fn describe(&self, vcpu: usize) -> &'static str {
        match self.engine.cpu(vcpu).activity {
            Activity::Running => "running",
            Activity::Halted => "halted",
            Activity::WaitForSipi => "waiting to be started",
            Activity::Shutdown => "shut down",
        }
    }

    /// Until an exit, or until `vcpu` has executed an instruction in its turn; a budget if it does not get one for long.
    fn step_in_turn(&mut self, vcpu: usize) -> EngineExit {
        for _ in 0..CHUNK_OF_STEPS {
            let before = self.engine.instructions();
            match self.engine.run(&mut self.board, 1) {
                EngineExit::Budget if self.engine.instructions() == before => {}
                EngineExit::Budget if self.engine.current() == vcpu => return EngineExit::Step { vcpu },
                EngineExit::Budget => {}
                exit => return exit,
            }
        }
        EngineExit::Budget
    }

    fn caller(&self, vcpu: usize) -> Caller {
        use Register::{R8, R9, R10, Rax, Rbp, Rbx, Rcx, Rdi, Rdx, Rip, Rsi};
        let cpu = self.engine.cpu(vcpu);
        Caller {
            registers: [Rax, Rbx, Rcx, Rdx, Rsi, Rdi, Rbp, R8, R9, R10, Rip].map(|name| cpu.register(name)),
            cpl: cpu.cpl,
            mode: match cpu.cpu_mode() {
                CpuMode::Real | CpuMode::Virtual8086 => 0,
                CpuMode::Protected16 | CpuMode::Compatibility16 => 16,
                CpuMode::Protected32 | CpuMode::Compatibility32 => 32,
                CpuMode::Long64 => 64,
            },
        }
    }

    fn answer(&mut self, answer: Answer) {
        if let Some(vcpu) = self.last.and_then(vcpu_of) {
            self.engine.answer(vcpu, answer);
        }
    }

    /// Remember an exit and translate it.
    fn exited(&mut self, exit: EngineExit) -> PyResult<Exit> {
        self.last = Some(exit);
        if exit == EngineExit::Stop(StopReason::HostError) {
            let error = self.board.take_host_error().map_or_else(|| "unknown".into(), |error| error.to_string());
            return Err(HostError::new_err(format!("cannot write the guest's console: {error}")));
        }
        let translated = Exit::new(exit, |vcpu| self.caller(vcpu));
        self.exits[translated.kind()] += 1;
        Ok(translated)
    }

    /// What the last exit's access would have done without its claim.
    fn default_answer(&mut self) -> Option<Answer> {
        let engine = &mut self.engine;
        let last = self.last?;
        self.board.without_claims(|board| match last {
            EngineExit::PortRead { vcpu, port, size } => value_of(board.port_read(vcpu, port, size.into()), u64::from),
            EngineExit::PortWrite { vcpu, port, size, value } => {
                value_of(board.port_write(vcpu, port, size.into(), value), |()| 0)
            }
            EngineExit::MmioRead { vcpu, gpa, size } => value_of(board.mmio_read(vcpu, gpa, size.into()), |v| v),
            EngineExit::MmioWrite { vcpu, gpa, size, value } => {
                value_of(board.mmio_write(vcpu, gpa, size.into(), value), |()| 0)
            }
            EngineExit::MsrRead { vcpu, index } => {
                Some(engine.read_msr(board, vcpu, index).map_or(Answer::Fault, Answer::Value))
            }
            EngineExit::MsrWrite { vcpu, index, value } => {
                let written = engine.write_msr(board, vcpu, index, value);
                Some(if written { Answer::Value(0) } else { Answer::Fault })
            }
            EngineExit::Cpuid { vcpu, leaf, subleaf } => {
                let enabled = board.apic_base(vcpu) & x86defs::msr::APIC_BASE_ENABLE != 0;
                Some(Answer::Cpuid(engine.cpu(vcpu).cpuid_now(leaf, subleaf, enabled)))
            }
            EngineExit::Exception { vcpu, .. } => {
                engine.inject_intercepted(vcpu);
                None
            }
            EngineExit::Halt { vcpu } => {
                engine.cpu_mut(vcpu).activity = Activity::Halted;
                None
            }
            _ => None,
        })
    }
}

fn value_of<T>(reply: Reply<T>, number: impl FnOnce(T) -> u64) -> Option<Answer> {
    match reply {
        Reply::Done(value) => Some(Answer::Value(number(value))),
        Reply::Fault => Some(Answer::Fault),
        Reply::Exit => None,
    }
}

/// The vCPU that an exit is of, where it can be answered.
fn vcpu_of(exit: EngineExit) -> Option<usize> {
    match exit {
        EngineExit::Hypercall { vcpu }
        | EngineExit::PortRead { vcpu, .. }
        | EngineExit::PortWrite { vcpu, .. }
        | EngineExit::MmioRead { vcpu, .. }
        | EngineExit::MmioWrite { vcpu, .. }
        | EngineExit::MsrRead { vcpu, .. }
        | EngineExit::MsrWrite { vcpu, .. }
        | EngineExit::Cpuid { vcpu, .. } => Some(vcpu),
        _ => None,
    }
}

#[pymethods]
impl Vm {
    #[new]
    #[pyo3(signature = (*, cpus, memory_bytes, host, seed, slice_instructions=(500, 4000), tsc_khz=1_000_000, start_unix_ns=0))]
    fn new(
        cpus: usize,
        memory_bytes: u64,
        host: &str,
        seed: u64,
        slice_instructions: (u64, u64),
        tsc_khz: u32,
        start_unix_ns: u64,
    ) -> PyResult<Self> {
        if cpus == 0 || cpus > board::MAX_VCPUS {
            return Err(PyValueError::new_err(format!("{cpus} vCPUs: 1..={} are possible", board::MAX_VCPUS)));
        }
        let memory = GuestMemory::new(memory_bytes).map_err(memory_error)?;
        let clock = Clock::new(tsc_khz);
        let config = EngineConfig { cpus, host: parse_host(host)?, seed, slice: slice_instructions, clock };
        let mut board = Board::new(BoardConfig {
            vcpus: cpus,
            memory: memory.clone(),
            clock,
            start_unix_ns,
            apic: ApicFeatures::default(),
            devices: OptionalDevices::default(),
        });
        board.firmware_handoff();
        let inner = Inner {
            engine: Engine::new(&config, memory.clone()),
            board,
            cpuid: CpuidTable::default(),
            last: None,
            exits: [0; KIND_NAMES.len()],
        };
        Ok(Self { inner: Mutex::new(inner), interrupted: AtomicBool::new(false), memory })
    }

    #[getter]
    fn memory(&self) -> Memory {
        Memory(self.memory.clone())
    }

    // -- running

    #[pyo3(signature = (max_instructions=None, answer=None))]
    fn run(&self, py: Python<'_>, max_instructions: Option<u64>, answer: Option<&Bound<'_, PyAny>>) -> PyResult<Exit> {
        let mut guard = self.lock()?;
        let inner = &mut *guard;
        if let Some(value) = answer {
            let value = truncated(value)?;
            inner.answer(Answer::Value(value));
        }
        let end = inner.engine.instructions().saturating_add(max_instructions.unwrap_or(u64::MAX));
        let mut chunk = ATTACHED;
        loop {
            let budget = chunk.min(end - inner.engine.instructions());
            let exit = if chunk == ATTACHED {
                inner.engine.run(&mut inner.board, budget)
            } else {
                py.detach(|| inner.engine.run(&mut inner.board, budget))
            };
            if exit != EngineExit::Budget || inner.engine.instructions() >= end || self.interrupted.swap(false, Relaxed)
            {
                return inner.exited(exit);
            }
            py.check_signals()?;
            chunk = CHUNK;
        }
    }

    fn answer_cpuid(&self, eax: u32, ebx: u32, ecx: u32, edx: u32) -> PyResult<()> {
        self.lock()?.answer(Answer::Cpuid([eax, ebx, ecx, edx]));
        Ok(())
    }

    fn answer_fault(&self) -> PyResult<()> {
        self.lock()?.answer(Answer::Fault);
        Ok(())
    }

    fn answer_default(&self) -> PyResult<Option<u64>> {
        let mut inner = self.lock()?;
        let answer = inner.default_answer();
        if let Some(answer) = answer {
            inner.answer(answer);
        }
        Ok(match answer {
            Some(Answer::Value(value)) => Some(value),
            _ => None,
        })
    }

    fn answer_done(&self) -> PyResult<()> {
        self.lock()?.answer(Answer::Done);
        Ok(())
    }

    #[pyo3(signature = (vcpu, vector, error_code=None, cr2=None))]
    fn inject_exception(&self, vcpu: usize, vector: u8, error_code: Option<u32>, cr2: Option<u64>) -> PyResult<()> {
        let mut inner = self.lock_for(vcpu)?;
        if vector > 31 || vector == vector::NMI {
            return Err(PyValueError::new_err(format!("vector {vector} is no exception")));
        }
        let payload = match vector {
            vector::PF => cr2.unwrap_or_else(|| inner.engine.cpu(vcpu).cr2),
            // The one #DB that software has reason to inject: the single step behind an instruction done for the guest.
            vector::DB => dr::DR6_BS,
            _ => 0,
        };
        inner.engine.inject(vcpu, vector, error_code, payload);
        Ok(())
    }

    #[pyo3(signature = (vcpu, answer=None))]
    fn step(&self, vcpu: usize, answer: Option<&Bound<'_, PyAny>>) -> PyResult<Exit> {
        let mut guard = self.lock_for(vcpu)?;
        let inner = &mut *guard;
        if let Some(value) = answer {
            inner.answer(Answer::Value(truncated(value)?));
        }
        let exit = inner.engine.step(&mut inner.board, vcpu);
        inner.exited(exit)
    }

    #[pyo3(signature = (vcpu, answer=None))]
    fn step_in_turn(&self, vcpu: usize, answer: Option<&Bound<'_, PyAny>>) -> PyResult<Exit> {
        let mut inner = self.lock_for(vcpu)?;
        if let Some(value) = answer {
            inner.answer(Answer::Value(truncated(value)?));
        }
        let exit = inner.step_in_turn(vcpu);
        inner.exited(exit)
    }

    fn current_vcpu(&self) -> PyResult<usize> {
        Ok(self.lock()?.engine.current())
    }

    fn interrupt(&self) {
        self.interrupted.store(true, Relaxed);
    }

    // -- what the engine may decide by itself, and what exits

    fn set_host(&self, host: &str) -> PyResult<()> {
        self.lock()?.engine.set_host(parse_host(host)?);
        Ok(())
    }

    #[pyo3(signature = (leaves, arch_capabilities=0))]
    fn set_cpuid(&self, leaves: Vec<(u32, Option<u32>, u32, u32, u32, u32)>, arch_capabilities: u64) -> PyResult<()> {
        let entries = leaves.into_iter().map(|(leaf, subleaf, eax, ebx, ecx, edx)| CpuidEntry {
            leaf,
            subleaf,
            registers: [eax, ebx, ecx, edx],
        });
        let mut inner = self.lock()?;
        inner.cpuid = CpuidTable::new(entries.collect()).with_arch_capabilities(arch_capabilities);
        let table = inner.cpuid.clone();
        let features = table.features();
        inner.engine.set_cpuid(&table);
        inner.board.set_features(ApicFeatures {
            x2apic: features.l1_ecx & cpuid::L1_ECX_X2APIC != 0,
            tsc_deadline: features.l1_ecx & cpuid::L1_ECX_TSC_DEADLINE != 0,
            physical_address_bits: features.physical_bits as u8,
        });
        Ok(())
    }

    fn intercept_exception(&self, vector: u8, enabled: bool) -> PyResult<()> {
        self.lock()?.engine.intercept_exception(vector, enabled);
        Ok(())
    }

    fn intercept_cpuid(&self, enabled: bool) -> PyResult<()> {
        let mut inner = self.lock()?;
        for vcpu in 0..inner.engine.num_cpus() {
            inner.engine.cpu_mut(vcpu).intercept_cpuid = enabled;
        }
        Ok(())
    }

    fn intercept_halt(&self, enabled: bool) -> PyResult<()> {
        self.lock()?.engine.intercept_halt(enabled);
        Ok(())
    }

    fn intercept_idle(&self, enabled: bool) -> PyResult<()> {
        self.lock()?.engine.intercept_idle(enabled);
        Ok(())
    }

    fn claim_ports(&self, first: u16, last: u16) -> PyResult<()> {
        self.lock()?.board.claim_ports(first, last);
        Ok(())
    }

    fn claim_msrs(&self, first: u32, last: u32) -> PyResult<()> {
        self.lock()?.board.claim_msrs(first, last);
        Ok(())
    }

    fn claim_mmio(&self, gpa: u64, length: u64) -> PyResult<()> {
        self.lock()?.board.claim_mmio(gpa, last_of(gpa, length)?);
        Ok(())
    }

    fn release_ports(&self, first: u16, last: u16) -> PyResult<()> {
        self.lock()?.board.release_ports(first, last);
        Ok(())
    }

    fn release_msrs(&self, first: u32, last: u32) -> PyResult<()> {
        self.lock()?.board.release_msrs(first, last);
        Ok(())
    }

    fn release_mmio(&self, gpa: u64, length: u64) -> PyResult<()> {
        self.lock()?.board.release_mmio(gpa, last_of(gpa, length)?);
        Ok(())
    }

    fn add_breakpoint(&self, gva: u64) -> PyResult<()> {
        self.lock()?.engine.add_breakpoint(gva);
        Ok(())
    }

    fn remove_breakpoint(&self, gva: u64) -> PyResult<()> {
        self.lock()?.engine.remove_breakpoint(gva);
        Ok(())
    }

    fn set_policy_port(&self, name: &str, enabled: bool) -> PyResult<()> {
        let device = match name {
            "testdev" => OptionalDevice::TestDevice,
            "debug-exit" => OptionalDevice::DebugExit,
            "debugcon" => OptionalDevice::DebugConsole,
            "pci-testdev" => OptionalDevice::PciTestDevice,
            _ => return Err(PyValueError::new_err(format!("there is no optional device {name:?}"))),
        };
        self.lock()?.board.set_optional(device, enabled);
        Ok(())
    }

    // -- state

    fn get_register(&self, vcpu: usize, name: &str) -> PyResult<u64> {
        let register = parse_register(name)?;
        Ok(self.lock_for(vcpu)?.register(vcpu, register))
    }

    fn set_register(&self, vcpu: usize, name: &str, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let register = parse_register(name)?;
        let value = truncated(value)?;
        if self.lock_for(vcpu)?.set_register(vcpu, register, value) {
            Ok(())
        } else {
            Err(PyValueError::new_err(format!("{name} cannot hold {value:#x}")))
        }
    }

    fn get_registers<'py>(&self, py: Python<'py>, vcpu: usize) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.lock_for(vcpu)?;
        let registers = PyDict::new(py);
        for &register in Register::ALL {
            registers.set_item(register.name(), inner.register(vcpu, register))?;
        }
        Ok(registers)
    }

    fn get_xsave_image<'py>(&self, py: Python<'py>, vcpu: usize) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.lock_for(vcpu)?.engine.cpu(vcpu).xsave_image()))
    }

    fn set_xsave_image(&self, vcpu: usize, image: &[u8]) -> PyResult<()> {
        let mut inner = self.lock_for(vcpu)?;
        inner.engine.cpu_mut(vcpu).set_xsave_image(image).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn get_msr(&self, vcpu: usize, index: u32) -> PyResult<u64> {
        self.lock_for(vcpu)?.msr(vcpu, index).ok_or_else(|| PyKeyError::new_err(format!("there is no MSR {index:#x}")))
    }

    fn set_msr(&self, vcpu: usize, index: u32, value: u64) -> PyResult<()> {
        if self.lock_for(vcpu)?.set_msr(vcpu, index, value) {
            Ok(())
        } else {
            Err(PyKeyError::new_err(format!("MSR {index:#x} does not exist or cannot hold {value:#x}")))
        }
    }

    #[pyo3(signature = (vcpu, gva, write=false, user=None))]
    fn translate(&self, vcpu: usize, gva: u64, write: bool, user: Option<bool>) -> PyResult<Option<u64>> {
        Ok(self.lock_for(vcpu)?.engine.cpu(vcpu).translate(gva, write, user))
    }

    fn read_virtual<'py>(&self, py: Python<'py>, vcpu: usize, gva: u64, length: u64) -> PyResult<Bound<'py, PyBytes>> {
        if length > self.memory.size() {
            return Err(not_mapped(gva, length));
        }
        PyBytes::new_with(py, length as usize, |bytes| {
            self.read_linear(vcpu, gva, bytes)
                .map(drop)
                .map_err(|done| not_mapped(gva.wrapping_add(done as u64), length - done as u64))
        })
    }

    pub(crate) fn write_virtual(&self, vcpu: usize, gva: u64, data: &[u8]) -> PyResult<()> {
        let inner = self.lock_for(vcpu)?;
        let mut parts = Vec::new();
        for_each_page(gva, data.len() as u64, |gva, range| {
            let len = range.len() as u64;
            let gpa =
                inner.engine.cpu(vcpu).translate(gva, false, None).filter(|&gpa| self.memory.offset(gpa).is_some());
            parts.push((gpa.ok_or_else(|| not_mapped(gva, len))?, range));
            Ok(())
        })?;
        // Every page is there: from here on nothing fails, so the write is all or nothing.
        parts.into_iter().try_for_each(|(gpa, range)| self.memory.write_bytes(gpa, &data[range]).map_err(memory_error))
    }

    fn is_halted(&self, vcpu: usize) -> PyResult<bool> {
        Ok(self.lock_for(vcpu)?.engine.cpu(vcpu).activity == Activity::Halted)
    }

    fn activity(&self, vcpu: usize) -> PyResult<&'static str> {
        Ok(match self.lock_for(vcpu)?.engine.cpu(vcpu).activity {
            Activity::Running => "running",
            Activity::Halted => "halted",
            Activity::WaitForSipi => "not started",
            Activity::Shutdown => "shut down",
        })
    }

    fn wake(&self, vcpu: usize) -> PyResult<()> {
        self.lock_for(vcpu)?.engine.cpu_mut(vcpu).kicked = true;
        Ok(())
    }

    fn doze(&self, vcpu: usize) -> PyResult<()> {
        self.lock_for(vcpu)?.engine.cpu_mut(vcpu).doze = Doze::Asked;
        Ok(())
    }

    fn run_ns(&self, vcpu: usize) -> PyResult<u64> {
        Ok(self.lock_for(vcpu)?.engine.cpu(vcpu).run_ns)
    }

    fn park(&self, vcpu: usize, parked: bool) -> PyResult<()> {
        let mut guard = self.lock_for(vcpu)?;
        let inner = &mut *guard;
        let cpu = inner.engine.cpu_mut(vcpu);
        let activity = if parked { Activity::WaitForSipi } else { Activity::Running };
        if parked && cpu.replay.pending {
            cpu.activity_after_call = Some(activity);
        } else {
            cpu.activity = activity;
        }
        // Neither state takes a SIPI: an INIT must come first.
        inner.board.set_wait_for_sipi(vcpu, false);
        Ok(())
    }

    fn flush_tlb(&self, vcpu: usize) -> PyResult<()> {
        self.lock_for(vcpu)?.engine.cpu_mut(vcpu).tlb.flush();
        Ok(())
    }

    fn reset_vcpu(&self, vcpu: usize) -> PyResult<()> {
        self.lock_for(vcpu)?.engine.cpu_mut(vcpu).reset();
        Ok(())
    }

    fn reset(&self, hard: bool) -> PyResult<()> {
        let mut guard = self.lock()?;
        let inner = &mut *guard;
        if hard {
            inner.board.reset(board::ResetKind::Hard);
            inner.board.firmware_handoff();
        } else {
            inner.board.reset(board::ResetKind::Soft);
        }
        for vcpu in 0..inner.engine.num_cpus() {
            let cpu = inner.engine.cpu_mut(vcpu);
            if hard {
                cpu.reset();
                inner.board.set_tsc_offset(vcpu, 0);
            } else {
                cpu.init();
                cpu.activity = if vcpu == 0 { Activity::Running } else { Activity::WaitForSipi };
            }
            inner.board.set_wait_for_sipi(vcpu, vcpu != 0);
        }
        Ok(())
    }

    fn suspend(&self) -> PyResult<bool> {
        let mut guard = self.lock()?;
        let inner = &mut *guard;
        let Some(wake_ns) = inner.board.wake_ns() else { return Ok(false) };
        inner.engine.sleep_until(wake_ns);
        inner.board.wake(inner.engine.now_ns());
        inner.board.firmware_handoff();
        for vcpu in 0..inner.engine.num_cpus() {
            inner.engine.cpu_mut(vcpu).reset();
            inner.board.set_wait_for_sipi(vcpu, vcpu != 0);
        }
        Ok(true)
    }

    fn boot_protected32(&self, vcpu: usize, entry: u32, eax: u32, ebx: u32) -> PyResult<()> {
        let mut inner = self.lock_for(vcpu)?;
        let cpu = inner.engine.cpu_mut(vcpu);
        cpu.init();
        cpu.set_flat_protected32(entry);
        cpu.regs[0] = eax.into();
        cpu.regs[3] = ebx.into();
        Ok(())
    }

    fn recent_blocks(&self, vcpu: usize) -> PyResult<Vec<(u64, u32, u32)>> {
        Ok(self.lock_for(vcpu)?.engine.recent_blocks(vcpu))
    }

    fn state_hash(&self) -> PyResult<u64> {
        let inner = self.lock()?;
        let mut hasher = DefaultHasher::new();
        inner.engine.hash_state(&mut hasher);
        inner.board.hash_state(&mut hasher);
        let mut page = [0; guestmem::PAGE_SIZE as usize];
        for offset in self.memory.touched_pages() {
            self.memory.read_at(offset, &mut page);
            if page.iter().any(|&byte| byte != 0) {
                (offset, page.as_slice()).hash(&mut hasher);
            }
        }
        Ok(hasher.finish())
    }

    // -- interrupts

    #[pyo3(signature = (apic_id, vector, delivery_mode=0))]
    fn deliver_interrupt(&self, apic_id: u32, vector: u8, delivery_mode: u8) -> PyResult<bool> {
        let mode = match delivery_mode {
            0 => board::DeliveryMode::Fixed,
            4 => board::DeliveryMode::Nmi,
            _ => return Err(PyValueError::new_err(format!("delivery mode {delivery_mode}: 0 (fixed) or 4 (NMI)"))),
        };
        Ok(self.lock()?.board.deliver(apic_id, vector, mode))
    }

    fn set_irq(&self, gsi: u8, level: bool) -> PyResult<()> {
        self.lock()?.board.set_irq(gsi.into(), level);
        Ok(())
    }

    fn apic_ids(&self) -> PyResult<Vec<u32>> {
        Ok(self.lock()?.board.apic_ids())
    }

    fn apic_eoi_state(&self, vcpu: usize) -> PyResult<(u32, bool)> {
        Ok(self.lock_for(vcpu)?.board.apic_eoi_state(vcpu))
    }

    fn read_apic(&self, vcpu: usize, offset: u32) -> PyResult<u64> {
        self.lock_for(vcpu)?.board.read_apic(vcpu, offset).ok_or_else(|| no_apic_register(offset))
    }

    fn write_apic(&self, vcpu: usize, offset: u32, value: u64) -> PyResult<()> {
        let done = self.lock_for(vcpu)?.board.write_apic(vcpu, offset, value);
        if done { Ok(()) } else { Err(no_apic_register(offset)) }
    }

    #[pyo3(signature = (vcpu, gpa))]
    fn set_pv_eoi(&self, vcpu: usize, gpa: Option<u64>) -> PyResult<()> {
        self.lock_for(vcpu)?.board.set_pv_eoi(vcpu, gpa);
        Ok(())
    }

    fn set_upcall(&self, vcpu: usize, target: Option<(u8, u64)>) -> PyResult<()> {
        self.lock_for(vcpu)?.board.set_upcall(vcpu, target);
        Ok(())
    }

    fn raise_upcall(&self, vcpu: usize) -> PyResult<()> {
        self.lock_for(vcpu)?.board.raise_upcall(vcpu);
        Ok(())
    }

    fn watch_end_of_interrupt(&self, vcpu: usize, vector: u8, watched: bool) -> PyResult<()> {
        self.lock_for(vcpu)?.board.watch_end_of_interrupt(vcpu, vector, watched);
        Ok(())
    }

    fn set_auto_eoi(&self, vcpu: usize, vector: u8, enabled: bool) -> PyResult<()> {
        self.lock_for(vcpu)?.board.set_auto_eoi(vcpu, vector, enabled);
        Ok(())
    }

    fn set_alarm(&self, deadline_ns: Option<u64>) -> PyResult<()> {
        self.lock()?.board.set_alarm(deadline_ns);
        Ok(())
    }

    // -- time

    fn now_ns(&self) -> PyResult<u64> {
        Ok(self.lock()?.engine.now_ns())
    }

    fn pass_time(&self, until_ns: u64) -> PyResult<()> {
        self.lock()?.engine.sleep_until(until_ns);
        Ok(())
    }

    fn tsc(&self, vcpu: usize) -> PyResult<u64> {
        let inner = self.lock_for(vcpu)?;
        let reference = inner.engine.clock().ns_to_tsc(inner.engine.now_ns());
        Ok(reference.wrapping_add(inner.engine.cpu(vcpu).tsc_offset))
    }

    fn tsc_offset(&self, vcpu: usize) -> PyResult<u64> {
        Ok(self.lock_for(vcpu)?.engine.cpu(vcpu).tsc_offset)
    }

    fn instructions(&self) -> PyResult<u64> {
        Ok(self.lock()?.engine.instructions())
    }

    // -- board

    #[pyo3(signature = (fd))]
    fn set_console_fd(&self, fd: Option<i32>) -> PyResult<()> {
        self.lock()?.board.set_console(match fd {
            Some(fd) => Some(Box::new(crate::console::FdWriter::new(fd)?)),
            None => None,
        });
        Ok(())
    }

    #[pyo3(signature = (fd, *, readonly=false, snapshot_bytes=None, id=""))]
    fn add_disk(&self, fd: i32, readonly: bool, snapshot_bytes: Option<u64>, id: &str) -> PyResult<u8> {
        devices::add_disk(&mut self.lock()?.board, fd, readonly, snapshot_bytes, id)
    }

    fn take_disk_failures(&self, slot: u8) -> PyResult<Option<(u64, String)>> {
        Ok(devices::take_disk_failures(&mut self.lock()?.board, slot))
    }

    fn add_entropy(&self, seed: [u8; 32]) -> PyResult<u8> {
        devices::add_entropy(&mut self.lock()?.board, seed)
    }

    fn add_virtio_console(&self) -> PyResult<u8> {
        devices::add_console(&mut self.lock()?.board)
    }

    fn take_console<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.lock()?.board.take_console()))
    }

    fn print_console(&self, data: &[u8]) -> PyResult<()> {
        self.lock()?.board.print_console(data).map_err(|error| HostError::new_err(error.to_string()))
    }

    fn recent_console<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.lock()?.board.recent_console()))
    }

    fn watch_console(&self, texts: Vec<Vec<u8>>) -> PyResult<()> {
        self.lock()?.board.watch_console(texts);
        Ok(())
    }

    fn console_input(&self, data: &[u8]) -> PyResult<()> {
        self.lock()?.board.console_input(data);
        Ok(())
    }

    fn console_break(&self) -> PyResult<()> {
        self.lock()?.board.console_break();
        Ok(())
    }

    fn console_room(&self) -> PyResult<usize> {
        Ok(self.lock()?.board.console_room())
    }

    fn set_fw_cfg(&self, key: u16, data: &[u8]) -> PyResult<()> {
        self.lock()?.board.set_fw_cfg(key, data.to_vec()).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn set_fw_cfg_file(&self, name: &str, data: &[u8]) -> PyResult<u16> {
        self.lock()?
            .board
            .set_fw_cfg_file(name, data.to_vec())
            .map_err(|error| PyValueError::new_err(error.to_string()))
    }

    #[pyo3(signature = (fd))]
    fn set_debug_console_fd(&self, fd: Option<i32>) -> PyResult<()> {
        self.lock()?.board.set_debug_console(match fd {
            Some(fd) => Some(Box::new(crate::console::FdWriter::new(fd)?)),
            None => None,
        });
        Ok(())
    }

    fn take_debug_console<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        Ok(PyBytes::new(py, &self.lock()?.board.take_debug_console()))
    }

    fn set_rom(&self, image: &[u8]) -> PyResult<()> {
        let _stopped = self.lock()?;
        self.memory.set_rom(image).map_err(memory_error)
    }

    fn set_cmos(&self, index: u8, value: u8) -> PyResult<()> {
        self.lock()?.board.set_cmos(index, value);
        Ok(())
    }

    fn get_cmos(&self, index: u8) -> PyResult<u8> {
        Ok(self.lock()?.board.get_cmos(index))
    }

    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let inner = self.lock()?;
        let statistics = inner.engine.statistics();
        let counters = PyDict::new(py);
        counters.set_item("instructions", inner.engine.instructions())?;
        counters.set_item("blocks_decoded", statistics.blocks_decoded)?;
        counters.set_item("blocks_invalidated", statistics.blocks_invalidated)?;
        counters.set_item("interrupts", statistics.interrupts)?;
        counters.set_item("exceptions", statistics.exceptions)?;
        counters.set_item("turns", statistics.turns)?;
        for (name, count) in KIND_NAMES.iter().zip(inner.exits) {
            counters.set_item(format!("exits_{}", name.to_ascii_lowercase()), count)?;
        }
        Ok(counters)
    }
}

/// Last byte of a guest-physical range.
fn last_of(gpa: u64, length: u64) -> PyResult<u64> {
    (length.checked_sub(1))
        .and_then(|length| gpa.checked_add(length))
        .ok_or_else(|| PyValueError::new_err(format!("no guest-physical range: {gpa:#x}+{length:#x}")))
}

/// Split a linear range at page boundaries: the address of each part, and its place in the buffer.
fn for_each_page(
    gva: u64,
    length: u64,
    mut f: impl FnMut(u64, std::ops::Range<usize>) -> PyResult<()>,
) -> PyResult<()> {
    let mut done = 0;
    while done < length {
        let address = gva.wrapping_add(done);
        let part = (guestmem::PAGE_SIZE - address % guestmem::PAGE_SIZE).min(length - done);
        f(address, done as usize..(done + part) as usize)?;
        done += part;
    }
    Ok(())
}
