//! Why an engine stopped running the guest.

/// A reason to stop that a device gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// `isa-debug-exit`: the value written.
    DebugExit(u32),
    /// A hard reset was requested (0xCF9, 8042, port 0x92).
    Reset,
    /// An INIT-like (soft) reset that preserves memory.
    SoftReset,
    /// Suspend to RAM (ACPI S3).
    Suspend,
    /// Power-off (ACPI S5, Bochs' shutdown port).
    PowerOff,
    /// The kernel has printed a line on the console that somebody waits for: the number of the text.
    ConsoleText(usize),
    /// The time that an interface above asked to be called at has come.
    Alarm,
    /// An interrupt has ended that an interface above watches.
    EndOfInterrupt {
        /// On which vCPU.
        vcpu: usize,
        /// Its vector.
        vector: u8,
    },
    /// A device could not do its work on the host, for example the console's stream is closed.
    HostError,
}

/// One exit. RIP is that of the instruction which caused it; it has not retired.
///
/// Exits that ask for an answer (`Hypercall`, `Port*`, `Mmio*`, `Msr*`, `Cpuid`) are completed by answering, after which
/// the instruction is restarted with the answer and retires as any other. Setting RIP instead abandons it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant's sentence says what its fields are; sizes are in bytes")]
pub enum Exit {
    /// The host's own hypercall instruction.
    Hypercall { vcpu: usize },
    /// An intercepted exception, not yet delivered. To let it happen, inject it.
    Exception { vcpu: usize, vector: u8, error_code: Option<u32> },
    /// IN from a port that is served above the engine.
    PortRead { vcpu: usize, port: u16, size: u8 },
    /// OUT, likewise.
    PortWrite { vcpu: usize, port: u16, size: u8, value: u32 },
    /// Read from device memory that is served above the engine.
    MmioRead { vcpu: usize, gpa: u64, size: u8 },
    /// Write, likewise.
    MmioWrite { vcpu: usize, gpa: u64, size: u8, value: u64 },
    /// RDMSR, likewise.
    MsrRead { vcpu: usize, index: u32 },
    /// WRMSR, likewise.
    MsrWrite { vcpu: usize, index: u32, value: u64 },
    /// CPUID, when intercepted.
    Cpuid { vcpu: usize, leaf: u32, subleaf: u32 },
    /// HLT, when intercepted.
    Halt { vcpu: usize },
    /// A breakpoint of the host (not of the guest) is at RIP, which has not been executed.
    Breakpoint { vcpu: usize },
    /// One instruction was executed, as asked.
    Step { vcpu: usize },
    /// Triple fault.
    Shutdown { vcpu: usize },
    /// Every vCPU sleeps, when intercepted. `until_ns`: when the next timer fires; `None`: only something from outside can
    /// wake one.
    Idle { until_ns: Option<u64> },
    /// Every vCPU is halted and nothing can wake one.
    Deadlock,
    /// The instruction budget of this call is used up.
    Budget,
    /// A device asked to stop.
    Stop(StopReason),
}
