//! A stack on which something is built or from which something is taken, before any register changes.

use x86defs::{cr, rflags, segment as attr, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::mmu::Access;
use crate::op::Stop;
use crate::segment::{SS, Segment};

/// RSP's number.
const RSP: usize = 4;

/// A stack: its segment, a pointer into it, and the rights with which it is accessed.
#[derive(Clone, Copy, Debug)]
pub struct Stack {
    segment: Segment,
    pointer: u64,
    /// Bits of the pointer that move; the others stay.
    mask: u64,
    access: Access,
    /// Error code of #SS if it is left.
    error_code: u32,
}

impl Stack {
    /// The current stack.
    pub fn current(cpu: &Cpu) -> Self {
        let wide = cpu.mode.is_64();
        Self {
            segment: *cpu.seg(SS),
            pointer: cpu.regs[RSP],
            mask: mask(wide, cpu.seg(SS)),
            access: access(cpu, cpu.cpl, wide),
            error_code: 0,
        }
    }

    /// Another stack, used at privilege level `cpl`: by its segment, or all of memory (`wide`) as in 64-bit mode.
    pub fn new(cpu: &Cpu, segment: Segment, pointer: u64, cpl: u8, wide: bool) -> Self {
        let mask = mask(wide, &segment);
        Self { segment, pointer, mask, access: access(cpu, cpl, wide), error_code: 0 }
    }

    /// With this error code of #SS.
    pub fn with_error_code(self, error_code: u32) -> Self {
        Self { error_code, ..self }
    }

    /// The segment.
    pub fn segment(&self) -> &Segment {
        &self.segment
    }

    /// All 64 bits of the pointer.
    pub fn pointer(&self) -> u64 {
        self.pointer
    }

    /// Move the pointer down to a multiple of 16.
    pub fn align(&mut self) {
        self.pointer &= !15;
    }

    /// Move the pointer up: release `bytes`.
    pub fn release(&mut self, bytes: u64) {
        self.pointer = self.moved(bytes);
    }

    fn moved(&self, distance: u64) -> u64 {
        // As with any register, a 16-bit result leaves the rest and a 32-bit one clears it.
        let kept = if self.mask == 0xFFFF { self.pointer & !self.mask } else { 0 };
        kept | self.pointer.wrapping_add(distance) & self.mask
    }

    /// The linear address of `bytes` at the pointer.
    fn linear(&self, cpu: &mut Cpu, pointer: u64, bytes: u64) -> Result<u64, Stop> {
        let offset = pointer & self.mask;
        if self.access.wide {
            let offset = cpu.untagged(offset);
            let last = offset.wrapping_add(bytes - 1);
            return if cpu.is_canonical(offset) && cpu.is_canonical(last) {
                Ok(offset)
            } else {
                Err(cpu.raise_with(vector::SS, self.error_code))
            };
        }
        // A flat segment wraps at its end, as ordinary accesses do.
        let flat = self.segment.limit == u32::MAX && !self.segment.has(attr::DC);
        if !flat && !self.segment.contains(offset, bytes) {
            return Err(cpu.raise_with(vector::SS, self.error_code));
        }
        Ok(self.segment.base.wrapping_add(offset) & 0xFFFF_FFFF)
    }

    /// #AC, for a stack of CPL 3 only: what lies on an inner one is not checked (SDM vol. 3 section 6.15, interrupt 17).
    fn check_alignment(&self, cpu: &mut Cpu, linear: u64, bytes: u64) -> Result<(), Stop> {
        let checked = self.access.user && cpu.system_flags & rflags::AC != 0 && cpu.cr0 & cr::CR0_AM != 0;
        if checked && linear & (bytes - 1) != 0 { Err(cpu.raise_with(vector::AC, 0)) } else { Ok(()) }
    }

    /// Push the low `bytes` (2, 4 or 8) of a value.
    pub fn push(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, bytes: u64, value: u64) -> Result<(), Stop> {
        let pointer = self.moved(bytes.wrapping_neg());
        let linear = self.linear(cpu, pointer, bytes)?;
        self.check_alignment(cpu, linear, bytes)?;
        cpu.store_with(env, linear, bytes, SS, Access { write: true, ..self.access }, value)?;
        cpu.debug.note_data(linear, bytes, true);
        self.pointer = pointer;
        Ok(())
    }

    /// Pop a value of `bytes` (2, 4 or 8), zero-extended.
    pub fn pop(&mut self, cpu: &mut Cpu, env: &mut Env<'_>, bytes: u64) -> Result<u64, Stop> {
        let linear = self.linear(cpu, self.pointer, bytes)?;
        self.check_alignment(cpu, linear, bytes)?;
        let value = cpu.load_with(env, linear, bytes, SS, self.access)?;
        cpu.debug.note_data(linear, bytes, false);
        self.pointer = self.moved(bytes);
        Ok(value)
    }

    /// Make it the current stack: RSP only, SS is up to the caller.
    pub fn commit(&self, cpu: &mut Cpu) {
        cpu.regs[RSP] = self.pointer;
    }
}

/// Which bits of RSP are the stack pointer.
fn mask(wide: bool, segment: &Segment) -> u64 {
    if wide {
        u64::MAX
    } else if segment.has(attr::DB) {
        0xFFFF_FFFF
    } else {
        0xFFFF
    }
}

fn access(cpu: &Cpu, cpl: u8, wide: bool) -> Access {
    let smap = cpl != 3 && cpu.cr4 & cr::CR4_SMAP != 0 && cpu.system_flags & rflags::AC == 0;
    Access { write: false, fetch: false, user: cpl == 3, smap, wide }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn alignment_counts_at_cpl_3_only() {
        let mut machine = Machine::protected32();
        machine.cpu.cr0 |= cr::CR0_AM;
        machine.cpu.set_rflags(rflags::AC);
        machine.cpu.regs[RSP] = 0x7002;
        for (cpl, bytes, expected) in
            [(0, 4, Ok(())), (3, 2, Ok(())), (3, 4, Err((vector::AC, Some(0)))), (3, 8, Err((vector::AC, Some(0))))]
        {
            machine.set_cpl(cpl);
            let mut stack = Stack::current(&machine.cpu);
            let pushed = machine.with(|cpu, env| stack.push(cpu, env, bytes, 1));
            assert_eq!(machine.outcome(pushed), expected, "push of {bytes} at CPL {cpl}");
            let mut stack = Stack::current(&machine.cpu);
            let popped = machine.with(|cpu, env| stack.pop(cpu, env, bytes).map(|_| ()));
            assert_eq!(machine.outcome(popped), expected, "pop of {bytes} at CPL {cpl}");
        }
        // The inner stack of a call from there, however it lies.
        let mut inner = Stack::new(&machine.cpu, *machine.cpu.seg(SS), 0x7001, 0, false);
        machine.with(|cpu, env| inner.push(cpu, env, 4, 1)).expect("not checked");
    }
}
