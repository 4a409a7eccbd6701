//! `ExitKind` and `Exit`.

use pyo3::prelude::*;
use vcpu::{Exit as EngineExit, StopReason};

macro_rules! kinds {
    ($($name:ident = $number:literal),* $(,)?) => {
        $(const $name: u8 = $number;)*

        /// Their names, by number.
        pub const KIND_NAMES: [&str; [$($number),*].len()] = [$(stringify!($name)),*];
        // The numbers are those of the places in the list.
        const _: () = {
            let numbers = [$($number),*];
            let mut place = 0;
            while place < numbers.len() {
                assert!(numbers[place] == place);
                place += 1;
            }
        };

        /// Numbers of `Exit.kind`.
        #[pyclass(frozen, module = "paravirt._native")]
        pub struct ExitKind;

        #[pymethods]
        impl ExitKind {
            $(#[classattr] const $name: u8 = $number;)*
        }
    };
}

kinds! {
    HYPERCALL = 0, EXCEPTION = 1, PORT_READ = 2, PORT_WRITE = 3, MMIO_READ = 4, MMIO_WRITE = 5, MSR_READ = 6, MSR_WRITE = 7,
    CPUID = 8, HALT = 9, BREAKPOINT = 10, STEP = 11, SHUTDOWN = 12, DEADLOCK = 13, BUDGET = 14, DEBUG_EXIT = 15, RESET = 16,
    SOFT_RESET = 17, POWER_OFF = 18, SUSPEND = 19, ALARM = 20,
    END_OF_INTERRUPT = 21, IDLE = 22, CONSOLE_TEXT = 23,
}

/// What a hypercall exit shows of its caller.
#[derive(Clone, Copy, Default)]
pub struct Caller {
    /// rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, rip.
    pub registers: [u64; 11],
    pub cpl: u8,
    pub mode: u8,
}

/// One exit.
#[pyclass(frozen, module = "paravirt._native")]
#[derive(Clone, Copy, Default)]
pub struct Exit {
    #[pyo3(get)]
    kind: u8,
    #[pyo3(get)]
    vcpu: usize,
    #[pyo3(get)]
    address: u64,
    #[pyo3(get)]
    size: u8,
    #[pyo3(get)]
    value: u64,
    #[pyo3(get)]
    has_error_code: bool,
    caller: Caller,
}

#[pymethods]
impl Exit {
    #[getter]
    fn registers(&self) -> [u64; 11] {
        self.caller.registers
    }
    #[getter]
    fn cpl(&self) -> u8 {
        self.caller.cpl
    }
    #[getter]
    fn mode(&self) -> u8 {
        self.caller.mode
    }
    fn __repr__(&self) -> String {
        format!(
            "<Exit kind={} vcpu={} address={:#x} size={} value={:#x}>",
            self.kind, self.vcpu, self.address, self.size, self.value
        )
    }
}

impl Exit {
    /// The number of the kind.
    pub fn kind(&self) -> usize {
        self.kind.into()
    }

    /// Translate; `caller` is asked for hypercalls only.
    pub fn new(exit: EngineExit, caller: impl FnOnce(usize) -> Caller) -> Self {
        let of = |kind, vcpu| Self { kind, vcpu, ..Self::default() };
        match exit {
            EngineExit::Hypercall { vcpu } => Self { caller: caller(vcpu), ..of(HYPERCALL, vcpu) },
            EngineExit::Exception { vcpu, vector, error_code } => Self {
                address: vector.into(),
                value: error_code.unwrap_or(0).into(),
                has_error_code: error_code.is_some(),
                ..of(EXCEPTION, vcpu)
            },
            EngineExit::PortRead { vcpu, port, size } => Self { address: port.into(), size, ..of(PORT_READ, vcpu) },
            EngineExit::PortWrite { vcpu, port, size, value } => {
                Self { address: port.into(), size, value: value.into(), ..of(PORT_WRITE, vcpu) }
            }
            EngineExit::MmioRead { vcpu, gpa, size } => Self { address: gpa, size, ..of(MMIO_READ, vcpu) },
            EngineExit::MmioWrite { vcpu, gpa, size, value } => {
                Self { address: gpa, size, value, ..of(MMIO_WRITE, vcpu) }
            }
            EngineExit::MsrRead { vcpu, index } => Self { address: index.into(), ..of(MSR_READ, vcpu) },
            EngineExit::MsrWrite { vcpu, index, value } => Self { address: index.into(), value, ..of(MSR_WRITE, vcpu) },
            EngineExit::Cpuid { vcpu, leaf, subleaf } => {
                Self { address: leaf.into(), value: subleaf.into(), ..of(CPUID, vcpu) }
            }
            EngineExit::Halt { vcpu } => of(HALT, vcpu),
            EngineExit::Breakpoint { vcpu } => of(BREAKPOINT, vcpu),
            EngineExit::Step { vcpu } => of(STEP, vcpu),
            EngineExit::Shutdown { vcpu } => of(SHUTDOWN, vcpu),
            EngineExit::Idle { until_ns } => Self { value: until_ns.unwrap_or(u64::MAX), ..of(IDLE, 0) },
            EngineExit::Deadlock => of(DEADLOCK, 0),
            EngineExit::Budget => of(BUDGET, 0),
            EngineExit::Stop(StopReason::DebugExit(value)) => Self { value: value.into(), ..of(DEBUG_EXIT, 0) },
            EngineExit::Stop(StopReason::Reset) => of(RESET, 0),
            EngineExit::Stop(StopReason::SoftReset) => of(SOFT_RESET, 0),
            EngineExit::Stop(StopReason::ConsoleText(text)) => Self { value: text as u64, ..of(CONSOLE_TEXT, 0) },
            EngineExit::Stop(StopReason::Suspend) => of(SUSPEND, 0),
            EngineExit::Stop(StopReason::Alarm) => of(ALARM, 0),
            EngineExit::Stop(StopReason::EndOfInterrupt { vcpu, vector }) => {
                Self { address: vector.into(), ..of(END_OF_INTERRUPT, vcpu) }
            }
            // The caller of the engine has turned a failing console into an exception already.
            EngineExit::Stop(StopReason::PowerOff | StopReason::HostError) => of(POWER_OFF, 0),
        }
    }
}
