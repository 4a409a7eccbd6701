//! What is debugged, as `gdbstub` asks for it: vCPUs are threads, numbered from 1.

use std::collections::BTreeSet;
use std::convert::Infallible;

use gdbstub::common::{Signal, Tid};
use gdbstub::target::ext::base::BaseOps;
use gdbstub::target::ext::base::multithread::{
    MultiThreadBase, MultiThreadRangeStepping, MultiThreadRangeSteppingOps, MultiThreadResume, MultiThreadResumeOps,
    MultiThreadSchedulerLocking, MultiThreadSchedulerLockingOps, MultiThreadSingleStep, MultiThreadSingleStepOps,
};
use gdbstub::target::ext::base::single_register_access::{SingleRegisterAccess, SingleRegisterAccessOps};
use gdbstub::target::ext::breakpoints::{
    Breakpoints, BreakpointsOps, HwBreakpoint, HwBreakpointOps, SwBreakpoint, SwBreakpointOps,
};
use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, MonitorCmdOps};
use gdbstub::target::ext::thread_extra_info::{ThreadExtraInfo, ThreadExtraInfoOps};
use gdbstub::target::{Target, TargetError, TargetResult};
use vcpu::Register;

use crate::registers::{RegisterNumber, Registers, X86, read_one, write_one};

/// The machine that is debugged. vCPUs are named by their index, memory by linear address.
pub trait Debuggee {
    /// How many vCPUs there are, at least one.
    fn num_vcpus(&self) -> usize;
    /// A register.
    fn register(&self, vcpu: usize, register: Register) -> u64;
    /// Set a register; false if it cannot hold the value.
    fn set_register(&mut self, vcpu: usize, register: Register, value: u64) -> bool;
    /// An MSR, if there is one.
    fn msr(&mut self, vcpu: usize, index: u32) -> Option<u64>;
    /// Set an MSR; false if there is none, or it cannot hold the value.
    fn set_msr(&mut self, vcpu: usize, index: u32, value: u64) -> bool;
    /// x87 and vector state in XSAVE's standard format.
    fn extended_state(&self, vcpu: usize) -> Vec<u8>;
    /// Set all of that; false if it is not possible.
    fn set_extended_state(&mut self, vcpu: usize, image: &[u8]) -> bool;
    /// Read memory; returns how many bytes could be read from the beginning.
    fn read_memory(&mut self, vcpu: usize, gva: u64, data: &mut [u8]) -> usize;
    /// Write memory, whatever the page's rights; false, with nothing written, if something is not mapped.
    fn write_memory(&mut self, vcpu: usize, gva: u64, data: &[u8]) -> bool;
    /// Stop every vCPU before it executes the instruction at an address. Asked for once for each address.
    fn insert_breakpoint(&mut self, gva: u64);
    /// Undo that.
    fn remove_breakpoint(&mut self, gva: u64);
    /// Answer gdb's command `monitor`.
    fn monitor(&mut self, command: &str) -> String;
    /// A few words on a vCPU, for `info threads`.
    fn describe(&self, vcpu: usize) -> String;
}

/// How to go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resume {
    /// The vCPU to stop again behind its next instruction.
    pub step: Option<usize>,
    /// Not before it has left these addresses, the second excluded.
    pub range: Option<(u64, u64)>,
    /// All other vCPUs stand still.
    pub alone: bool,
}

/// A debuggee, and what gdb has asked of it.
pub struct Threads<D> {
    pub debuggee: D,
    pub resume: Resume,
    /// gdb's breakpoints of both kinds. They work in the same way, but it wants to be told which it was.
    pub software: BTreeSet<u64>,
    pub hardware: BTreeSet<u64>,
    /// vCPUs that are to run while others are not named.
    named: Option<usize>,
}

impl<D: Debuggee> Threads<D> {
    pub fn new(debuggee: D) -> Self {
        Self { debuggee, resume: Resume::default(), software: BTreeSet::new(), hardware: BTreeSet::new(), named: None }
    }

    /// Take all of gdb's breakpoints away.
    pub fn clear(&mut self) {
        for gva in std::mem::take(&mut self.software).union(&std::mem::take(&mut self.hardware)) {
            self.debuggee.remove_breakpoint(*gva);
        }
    }

    fn vcpu(&self, tid: Tid) -> TargetResult<usize, Self> {
        let vcpu = tid.get() - 1;
        if vcpu < self.debuggee.num_vcpus() { Ok(vcpu) } else { Err(TargetError::NonFatal) }
    }

    /// Change one set of breakpoints, and the debuggee's if none of both had the address, or none has it any more.
    fn change(&mut self, gva: u64, change: impl FnOnce(&mut Self) -> bool) -> bool {
        let has = |threads: &Self| threads.software.contains(&gva) || threads.hardware.contains(&gva);
        let before = has(self);
        let changed = change(self);
        match (before, has(self)) {
            (false, true) => self.debuggee.insert_breakpoint(gva),
            (true, false) => self.debuggee.remove_breakpoint(gva),
            _ => {}
        }
        changed
    }
}

/// The thread of a vCPU.
pub fn thread(vcpu: usize) -> Tid {
    Tid::MIN.saturating_add(vcpu)
}

fn done<D: Debuggee>(success: bool) -> TargetResult<(), Threads<D>> {
    if success { Ok(()) } else { Err(TargetError::NonFatal) }
}

impl<D: Debuggee> Target for Threads<D> {
    type Arch = X86;
    type Error = Infallible;

    fn base_ops(&mut self) -> BaseOps<'_, X86, Infallible> {
        BaseOps::MultiThread(self)
    }
    fn support_breakpoints(&mut self) -> Option<BreakpointsOps<'_, Self>> {
        Some(self)
    }
    fn support_monitor_cmd(&mut self) -> Option<MonitorCmdOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> MultiThreadBase for Threads<D> {
    fn read_registers(&mut self, registers: &mut Registers, tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.vcpu(tid)?;
        *registers = Registers::read(&mut self.debuggee, vcpu);
        Ok(())
    }
    fn write_registers(&mut self, registers: &Registers, tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.vcpu(tid)?;
        done::<D>(registers.write(&mut self.debuggee, vcpu))
    }
    fn support_single_register_access(&mut self) -> Option<SingleRegisterAccessOps<'_, Tid, Self>> {
        Some(self)
    }
    fn read_addrs(&mut self, gva: u64, data: &mut [u8], tid: Tid) -> TargetResult<usize, Self> {
        let vcpu = self.vcpu(tid)?;
        match self.debuggee.read_memory(vcpu, gva, data) {
            0 if !data.is_empty() => Err(TargetError::NonFatal),
            len => Ok(len),
        }
    }
    fn write_addrs(&mut self, gva: u64, data: &[u8], tid: Tid) -> TargetResult<(), Self> {
        let vcpu = self.vcpu(tid)?;
        done::<D>(self.debuggee.write_memory(vcpu, gva, data))
    }
    fn list_active_threads(&mut self, thread_is_active: &mut dyn FnMut(Tid)) -> Result<(), Infallible> {
        (0..self.debuggee.num_vcpus()).map(thread).for_each(thread_is_active);
        Ok(())
    }
    fn support_resume(&mut self) -> Option<MultiThreadResumeOps<'_, Self>> {
        Some(self)
    }
    fn support_thread_extra_info(&mut self) -> Option<ThreadExtraInfoOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> SingleRegisterAccess<Tid> for Threads<D> {
    fn read_register(&mut self, tid: Tid, number: RegisterNumber, buffer: &mut [u8]) -> TargetResult<usize, Self> {
        let vcpu = self.vcpu(tid)?;
        let bytes = read_one(&mut self.debuggee, vcpu, number);
        buffer.get_mut(..bytes.len()).ok_or(TargetError::NonFatal)?.copy_from_slice(&bytes);
        Ok(bytes.len())
    }
    fn write_register(&mut self, tid: Tid, number: RegisterNumber, bytes: &[u8]) -> TargetResult<(), Self> {
        let vcpu = self.vcpu(tid)?;
        done::<D>(write_one(&mut self.debuggee, vcpu, number, bytes))
    }
}

impl<D: Debuggee> ThreadExtraInfo for Threads<D> {
    fn thread_extra_info(&self, tid: Tid, buffer: &mut [u8]) -> Result<usize, Infallible> {
        let Ok(vcpu) = self.vcpu(tid) else { return Ok(0) };
        let text = self.debuggee.describe(vcpu);
        let len = text.len().min(buffer.len());
        buffer[..len].copy_from_slice(&text.as_bytes()[..len]);
        Ok(len)
    }
}

/// A signal to go on with is a process's; a machine has none, so it is ignored.
impl<D: Debuggee> MultiThreadResume for Threads<D> {
    fn resume(&mut self) -> Result<(), Infallible> {
        // "Only this thread, until something happens": run it instruction by instruction for ever.
        if self.resume.alone && self.resume.step.is_none() {
            self.resume.step = self.named;
            self.resume.range = Some((0, u64::MAX));
        }
        Ok(())
    }
    fn clear_resume_actions(&mut self) -> Result<(), Infallible> {
        self.resume = Resume::default();
        self.named = None;
        Ok(())
    }
    fn set_resume_action_continue(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.named = self.vcpu(tid).ok().or(self.named);
        Ok(())
    }
    fn support_single_step(&mut self) -> Option<MultiThreadSingleStepOps<'_, Self>> {
        Some(self)
    }
    fn support_range_step(&mut self) -> Option<MultiThreadRangeSteppingOps<'_, Self>> {
        Some(self)
    }
    fn support_scheduler_locking(&mut self) -> Option<MultiThreadSchedulerLockingOps<'_, Self>> {
        Some(self)
    }
}

impl<D: Debuggee> MultiThreadSingleStep for Threads<D> {
    fn set_resume_action_step(&mut self, tid: Tid, _signal: Option<Signal>) -> Result<(), Infallible> {
        self.resume.step = self.vcpu(tid).ok();
        Ok(())
    }
}

impl<D: Debuggee> MultiThreadRangeStepping for Threads<D> {
    fn set_resume_action_range_step(&mut self, tid: Tid, start: u64, end: u64) -> Result<(), Infallible> {
        self.resume.step = self.vcpu(tid).ok();
        self.resume.range = Some((start, end));
        Ok(())
    }
}

impl<D: Debuggee> MultiThreadSchedulerLocking for Threads<D> {
    fn set_resume_action_scheduler_lock(&mut self) -> Result<(), Infallible> {
        self.resume.alone = true;
        Ok(())
    }
}

impl<D: Debuggee> Breakpoints for Threads<D> {
    fn support_sw_breakpoint(&mut self) -> Option<SwBreakpointOps<'_, Self>> {
        Some(self)
    }
    fn support_hw_breakpoint(&mut self) -> Option<HwBreakpointOps<'_, Self>> {
        Some(self)
    }
}

/// They are the debuggee's own, and change nothing in the guest's memory.
impl<D: Debuggee> SwBreakpoint for Threads<D> {
    fn add_sw_breakpoint(&mut self, gva: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change(gva, |threads| threads.software.insert(gva));
        Ok(true)
    }
    fn remove_sw_breakpoint(&mut self, gva: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.change(gva, |threads| threads.software.remove(&gva)))
    }
}

impl<D: Debuggee> HwBreakpoint for Threads<D> {
    fn add_hw_breakpoint(&mut self, gva: u64, _kind: usize) -> TargetResult<bool, Self> {
        self.change(gva, |threads| threads.hardware.insert(gva));
        Ok(true)
    }
    fn remove_hw_breakpoint(&mut self, gva: u64, _kind: usize) -> TargetResult<bool, Self> {
        Ok(self.change(gva, |threads| threads.hardware.remove(&gva)))
    }
}

impl<D: Debuggee> MonitorCmd for Threads<D> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<(), Infallible> {
        let answer = self.debuggee.monitor(&String::from_utf8_lossy(command));
        out.write_raw(answer.as_bytes());
        Ok(())
    }
}
