//! The outside world as a vCPU sees it.

use crate::StopReason;

/// The bus's answer to one access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<T> {
    /// Carried out.
    Done(T),
    /// Refused: the vCPU raises #GP(0). Only for MSRs.
    Fault,
    /// Somebody above the engine must answer. The engine stops *before* the instruction retires, reports the matching
    /// [`crate::Exit`], and restarts the instruction once the answer is there.
    Exit,
}

/// Asynchronous events waiting for a vCPU, most urgent first in the order the CPU takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pending {
    /// INIT has been received and not yet taken.
    pub init: bool,
    /// SIPI has been received while waiting for it.
    pub sipi: bool,
    /// NMI is latched.
    pub nmi: bool,
    /// The local APIC (or the 8259 through LINT0) has a deliverable external interrupt.
    pub interrupt: bool,
}

impl Pending {
    /// Whether anything waits.
    pub fn any(self) -> bool {
        self.init || self.sipi || self.nmi || self.interrupt
    }
}

/// Everything around the vCPUs: I/O ports, memory-mapped devices, MSRs that belong to no CPU core, interrupts, timers.
///
/// Addresses are guest-physical, sizes are in bytes (1, 2, 4 or 8), `vcpu` is the index of the accessing vCPU. The engine
/// calls [`Bus::advance`] with the current time before every other call whose result depends on time.
///
/// What a bus leaves out is as if there were nothing: no device, no interrupt, no time.
pub trait Bus {
    /// Read from memory that is not RAM. Unclaimed addresses read as all ones.
    fn mmio_read(&mut self, _vcpu: usize, _gpa: u64, size: usize) -> Reply<u64> {
        Reply::Done(u64::MAX >> (64 - 8 * size))
    }
    /// Write to memory that is not RAM. Unclaimed addresses ignore it.
    fn mmio_write(&mut self, _vcpu: usize, _gpa: u64, _size: usize, _value: u64) -> Reply<()> {
        Reply::Done(())
    }
    /// IN, size 1, 2 or 4. Unclaimed ports read as all ones.
    fn port_read(&mut self, _vcpu: usize, _port: u16, size: usize) -> Reply<u32> {
        Reply::Done(u32::MAX >> (32 - 8 * size))
    }
    /// OUT, size 1, 2 or 4.
    fn port_write(&mut self, _vcpu: usize, _port: u16, _size: usize, _value: u32) -> Reply<()> {
        Reply::Done(())
    }
    /// Whether an MSR is served here although the CPU core may own it: whoever is above the engine wants to see it.
    fn claims_msr(&self, _index: u32) -> bool {
        false
    }
    /// RDMSR of an MSR that the CPU core does not own (local APIC, TSC deadline, hypervisor), or that is claimed.
    fn msr_read(&mut self, _vcpu: usize, _index: u32) -> Reply<u64> {
        Reply::Fault
    }
    /// WRMSR, likewise.
    fn msr_write(&mut self, _vcpu: usize, _index: u32, _value: u64) -> Reply<()> {
        Reply::Fault
    }
    /// Task priority as CR8 shows it: bits 7:4 of the APIC's TPR, 0..=15.
    fn cr8(&self, _vcpu: usize) -> u64 {
        0
    }
    /// MOV to CR8. `value` is 0..=15.
    fn set_cr8(&mut self, _vcpu: usize, _value: u64) {}
    /// The vCPU's TSC now differs from the reference TSC of [`crate::Clock`] by `offset` ticks; TSC deadlines follow.
    fn set_tsc_offset(&mut self, _vcpu: usize, _offset: u64) {}

    /// A performance counter of this vCPU has overflowed and wants to interrupt: LVT performance.
    fn performance_interrupt(&mut self, _vcpu: usize) {}

    /// FERR#: an x87 error waits to be reported and CR0.NE is clear. `first`: it is a new one. Returns IGNNE#, whether the
    /// vCPU is to go on in spite of it; if not it stays where it is until an interrupt comes, and asks again.
    fn x87_error(&mut self, _vcpu: usize, _first: bool) -> bool {
        false
    }

    /// Let time pass until `now_ns`: every timer that is due by then fires. Time never goes back.
    fn advance(&mut self, _now_ns: u64) {}
    /// When the next timer fires, in ns of virtual time. `None`: nothing will happen by itself.
    fn next_event_ns(&self) -> Option<u64> {
        None
    }
    /// What waits for this vCPU, whether or not it can take it now (the CPU knows its IF, shadow and NMI blocking).
    fn pending(&self, _vcpu: usize) -> Pending {
        Pending::default()
    }
    /// The INTA cycle: the vector of the highest-priority interrupt, which becomes in service. `None`: it has gone
    /// meanwhile (no interrupt is taken).
    fn take_interrupt(&mut self, _vcpu: usize) -> Option<u8> {
        None
    }
    /// Clear the NMI latch.
    fn take_nmi(&mut self, _vcpu: usize) {}
    /// Take INIT: the APIC goes to its INIT state. Returns whether this vCPU is the boot processor, which restarts at the
    /// reset vector while others wait for SIPI.
    fn take_init(&mut self, _vcpu: usize) -> bool {
        true
    }
    /// Take SIPI: its vector. The vCPU starts in real mode at `vector << 12`.
    fn take_sipi(&mut self, _vcpu: usize) -> u8 {
        0
    }
    /// SIPI is accepted only while waiting for it (SDM vol. 3 section 9.4.4.1): the engine says when it is.
    fn set_wait_for_sipi(&mut self, _vcpu: usize, _waiting: bool) {}
    /// Whether a device asked the machine to stop since the last call (debug exit, reset, power-off). Taken by the call.
    fn take_stop(&mut self) -> Option<StopReason> {
        None
    }
}
