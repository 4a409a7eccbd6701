//! Code segments as targets of transfers.

use x86defs::{rflags, segment as attr, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;
use crate::segment::{CS, Descriptor, Segment, TR, fault_code};

/// A place to go to, checked in every respect.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What CS will hold; its RPL is the new CPL.
    pub segment: Segment,
    /// What RIP will hold.
    pub offset: u64,
    /// The new privilege level.
    pub cpl: u8,
}

impl Target {
    /// Go there. The caller sets what else changes and ends with [`Cpu::segments_changed`].
    pub fn enter(&self, cpu: &mut Cpu) {
        cpu.segs[usize::from(CS)] = self.segment;
        cpu.rip = self.offset;
        cpu.cpl = self.cpl;
    }

    /// Whether it is 64-bit code.
    pub fn is_64(&self, cpu: &Cpu) -> bool {
        cpu.long_mode() && self.segment.has(attr::L)
    }
}

impl Cpu {
    /// A real-mode or virtual-8086 target: no descriptor, and the limit stays; #GP(0) beyond it.
    pub fn real_target(&mut self, selector: u16, offset: u64) -> Result<Target, Stop> {
        let segment = if self.system_flags & rflags::VM != 0 {
            Segment::virtual_8086(selector)
        } else {
            Segment { selector, base: u64::from(selector) << 4, ..*self.seg(CS) }
        };
        if offset > u64::from(segment.limit) {
            return Err(self.gp0());
        }
        Ok(Target { segment, offset, cpl: self.cpl })
    }

    /// The target in a code segment whose privilege has been checked; it becomes `cpl`. Checks presence (#NP), the mode bits,
    /// and the offset against the limit or for being canonical (#GP).
    pub fn code_target(
        &mut self,
        env: &mut Env<'_>,
        mut descriptor: Descriptor,
        selector: u16,
        offset: u64,
        cpl: u8,
        ext: bool,
    ) -> Result<Target, Stop> {
        if self.long_mode() && descriptor.has(attr::L | attr::DB) {
            return Err(self.selector_fault(vector::GP, selector, ext));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(vector::NP, selector, ext));
        }
        let is_64 = self.long_mode() && descriptor.has(attr::L);
        let inside = if is_64 { self.is_canonical(offset) } else { offset <= u64::from(descriptor.limit()) };
        if !inside {
            return Err(self.raise_with(vector::GP, u32::from(ext)));
        }
        self.mark_accessed(env, &mut descriptor)?;
        let selector = selector & !attr::RPL | u16::from(cpl);
        Ok(Target { segment: descriptor.segment(selector), offset, cpl })
    }

    /// Far JMP or CALL straight to a code segment: the privilege level stays (SDM vol. 3 section 5.8.1).
    pub fn direct_target(
        &mut self,
        env: &mut Env<'_>,
        descriptor: Descriptor,
        selector: u16,
        offset: u64,
    ) -> Result<Target, Stop> {
        let allowed = if descriptor.is_conforming() {
            descriptor.dpl() <= self.cpl
        } else {
            (selector & attr::RPL) as u8 <= self.cpl && descriptor.dpl() == self.cpl
        };
        if !allowed {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        self.code_target(env, descriptor, selector, offset, self.cpl, false)
    }

    /// The code segment behind a call gate, with gate and target checked except for what JMP and CALL treat differently:
    /// SDM vol. 3 section 5.8.4.
    pub fn gate_target(
        &mut self,
        env: &mut Env<'_>,
        gate: &Descriptor,
        gate_selector: u16,
    ) -> Result<(Descriptor, u16), Stop> {
        if gate.dpl() < self.cpl || gate.dpl() < (gate_selector & attr::RPL) as u8 {
            return Err(self.selector_fault(vector::GP, gate_selector, false));
        }
        if !gate.is_present() {
            return Err(self.selector_fault(vector::NP, gate_selector, false));
        }
        let selector = gate.gate_selector();
        if selector & !attr::RPL == 0 {
            return Err(self.gp0());
        }
        let descriptor = self.read_descriptor(env, selector, vector::GP, false)?;
        let fits = descriptor.is_code() && descriptor.dpl() <= self.cpl;
        if !fits || self.long_mode() && !descriptor.has(attr::L) {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        Ok((descriptor, selector))
    }

    /// The stack pointer and stack segment that the TSS has for a privilege level: SS:ESP, or RSP alone in long mode.
    pub fn tss_stack(&mut self, env: &mut Env<'_>, cpl: u8, ext: bool) -> Result<(u16, u64), Stop> {
        let cpl = u64::from(cpl);
        if self.long_mode() {
            let rsp = self.read_tss(env, 4 + 8 * cpl, 8, ext)?;
            return Ok((0, rsp));
        }
        if self.tss_is_32() {
            let esp = self.read_tss(env, 4 + 8 * cpl, 4, ext)?;
            Ok((self.read_tss(env, 8 + 8 * cpl, 2, ext)? as u16, esp))
        } else {
            let sp = self.read_tss(env, 2 + 4 * cpl, 2, ext)?;
            Ok((self.read_tss(env, 4 + 4 * cpl, 2, ext)? as u16, sp))
        }
    }

    /// Whether the current TSS is a 32-bit (or 64-bit) one.
    pub fn tss_is_32(&self) -> bool {
        self.seg(TR).attributes & 8 != 0
    }

    /// Read from the current TSS; #TS if it is too short.
    pub fn read_tss(&mut self, env: &mut Env<'_>, offset: u64, bytes: u64, ext: bool) -> Result<u64, Stop> {
        let tr = *self.seg(TR);
        if offset + bytes - 1 > u64::from(tr.limit) {
            return Err(self.raise_with(vector::TS, fault_code(tr.selector, ext)));
        }
        let linear = tr.base.wrapping_add(offset);
        match bytes {
            2 => self.read_system::<u16>(env, linear).map(u64::from),
            4 => self.read_system::<u32>(env, linear).map(u64::from),
            _ => self.read_system::<u64>(env, linear),
        }
    }
}
