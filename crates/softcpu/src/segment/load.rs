//! Loading and storing the registers for data and stack segments.

use x86defs::{cpuid, rflags, segment as attr, vector};

use super::{CS, DS, ES, FS, GS, SS, Segment};
use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::exec::addr;
use crate::far::Stack;
use crate::op::{Flow, Op, Step, Stop, Width, slot};

impl Cpu {
    /// What loading DS, ES, FS, GS or SS with `selector` leaves, after all checks; the descriptor is marked as accessed.
    pub fn data_segment(&mut self, env: &mut Env<'_>, number: u8, selector: u16) -> Result<Segment, Stop> {
        if !self.protected() {
            // The limit and the rights stay as they are in real mode, which is what "big real mode" lives on.
            let base = u64::from(selector) << 4;
            return Ok(if self.system_flags & rflags::VM != 0 {
                Segment::virtual_8086(selector)
            } else {
                Segment { selector, base, ..*self.seg(number) }
            });
        }
        if number == SS { self.stack_segment(env, selector) } else { self.plain_data_segment(env, number, selector) }
    }

    fn stack_segment(&mut self, env: &mut Env<'_>, selector: u16) -> Result<Segment, Stop> {
        let rpl = (selector & attr::RPL) as u8;
        if selector & !attr::RPL == 0 {
            if self.mode.is_64() && self.cpl < 3 && rpl == self.cpl {
                return Ok(Segment { attributes: u16::from(rpl) << attr::DPL_SHIFT, ..Segment::null(selector) });
            }
            return Err(self.gp0());
        }
        self.checked_stack(env, selector, self.cpl, [vector::GP, vector::SS], false)
    }

    /// A stack segment for privilege level `cpl`: `vectors` are raised if it does not fit, and if it is not present.
    pub fn checked_stack(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        cpl: u8,
        vectors: [u8; 2],
        ext: bool,
    ) -> Result<Segment, Stop> {
        let [unfit, absent] = vectors;
        let mut descriptor = self.read_descriptor(env, selector, unfit, ext)?;
        let rpl = (selector & attr::RPL) as u8;
        if rpl != cpl || descriptor.dpl() != cpl || !descriptor.is_writable_data() {
            return Err(self.selector_fault(unfit, selector, ext));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(absent, selector, ext));
        }
        self.mark_accessed(env, &mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    fn plain_data_segment(&mut self, env: &mut Env<'_>, number: u8, selector: u16) -> Result<Segment, Stop> {
        if selector & !attr::RPL == 0 {
            // Intel's silicon clears the base. AMD's left it as it was (APM vol. 2 section 4.5.2), until it announced otherwise.
            let cleared = self.features.x21_eax & cpuid::X21_EAX_NULL_SEL_CLR_BASE != 0;
            let base = if self.host == HostVendor::Amd && !cleared { self.seg(number).base } else { 0 };
            return Ok(Segment { base, ..Segment::null(selector) });
        }
        let mut descriptor = self.read_descriptor(env, selector, vector::GP, false)?;
        let privilege = self.cpl.max((selector & attr::RPL) as u8);
        if !descriptor.is_readable() || !descriptor.is_conforming() && privilege > descriptor.dpl() {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(vector::NP, selector, false));
        }
        self.mark_accessed(env, &mut descriptor)?;
        Ok(descriptor.segment(selector))
    }

    /// After a return to an outer level: data segments that it may not use become null (SDM vol. 2 RET).
    pub fn drop_privileged_segments(&mut self) {
        for number in [ES, DS, FS, GS] {
            let segment = *self.seg(number);
            let conforming = segment.has(attr::S | attr::CODE | attr::DC);
            if segment.has(attr::P) && segment.dpl() < self.cpl && !conforming {
                // The base stays: it may have been set through FS_BASE or GS_BASE.
                self.segs[usize::from(number)] = Segment { base: segment.base, ..Segment::null(0) };
            }
        }
    }

    fn load_data_segment(&mut self, env: &mut Env<'_>, number: u8, selector: u16) -> Step {
        let segment = self.data_segment(env, number, selector)?;
        self.segs[usize::from(number & 7)] = segment;
        self.segments_changed();
        Ok(Flow::Sync)
    }

    /// Events and debug traps wait until the instruction behind a load of SS is done (SDM vol. 3 section 6.8.3).
    fn shadow_stack_load(&mut self) {
        self.interrupt_shadow = true;
        self.shadow_is_mov_ss = true;
    }
}

/// MOV Sreg, r/m16.
pub fn mov_to_seg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if op.extra == CS || op.extra > GS {
        return Err(cpu.ud());
    }
    let selector = if op.imm == 1 { u16::get(&cpu.regs, op.src) } else { addr::read_operand::<u16>(cpu, env, op)? };
    let flow = cpu.load_data_segment(env, op.extra, selector)?;
    if op.extra == SS {
        cpu.shadow_stack_load();
    }
    Ok(flow)
}

/// MOV r/m16, Sreg: a register is written at the operand size, zero-extended; memory always gets 16 bits.
pub fn mov_from_seg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if op.extra > GS {
        return Err(cpu.ud());
    }
    let selector = cpu.seg(op.extra).selector;
    if op.imm != 1 {
        addr::write_operand(cpu, env, op, selector)?;
    } else if op.size == 2 {
        u16::set(&mut cpu.regs, op.dst, selector);
    } else {
        cpu.regs[slot(op.dst)] = selector.into();
    }
    Ok(Flow::Sync)
}

/// PUSH Sreg.
pub fn push_seg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let selector = cpu.seg(op.extra).selector;
    let mut stack = Stack::current(cpu);
    // Zero-extended, which SDM vol. 2 PUSH allows at every operand size.
    stack.push(cpu, env, u64::from(op.size), selector.into())?;
    stack.commit(cpu);
    Ok(Flow::Sync)
}

/// POP Sreg.
pub fn pop_seg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if op.extra == CS || op.extra > GS {
        return Err(cpu.ud());
    }
    let mut stack = Stack::current(cpu);
    let selector = stack.pop(cpu, env, u64::from(op.size))? as u16;
    let segment = cpu.data_segment(env, op.extra, selector)?;
    // The stack pointer's width is that of the old SS.
    stack.commit(cpu);
    cpu.segs[usize::from(op.extra)] = segment;
    cpu.segments_changed();
    if op.extra == SS {
        cpu.shadow_stack_load();
    }
    Ok(Flow::Sync)
}

/// LDS, LES, LSS, LFS, LGS.
pub fn load_far_pointer(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if op.extra == CS || op.extra > GS {
        return Err(cpu.ud());
    }
    let (offset, selector) = crate::far::read_pointer(cpu, env, op)?;
    let flow = cpu.load_data_segment(env, op.extra, selector)?;
    match op.size {
        2 => u16::set(&mut cpu.regs, op.dst, offset as u16),
        4 => u32::set(&mut cpu.regs, op.dst, offset as u32),
        _ => cpu.regs[slot(op.dst)] = offset,
    }
    Ok(flow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn real_mode_keeps_the_limit() {
        let mut machine = Machine::real();
        machine.cpu.segs[usize::from(DS)].limit = u32::MAX;
        let segment = machine.with(|cpu, env| cpu.data_segment(env, DS, 0x1234)).expect("real mode");
        assert_eq!((segment.base, segment.limit), (0x12340, u32::MAX));
    }

    #[test]
    fn data_segments_are_checked() {
        let mut machine = Machine::protected32();
        // 0x18: data DPL 3; 0x20: not present; 0x28: execute-only code; 0x30: TSS
        machine.gdt(&[(0x18, 0x00CF_F300_0000_FFFF), (0x20, 0x00CF_1300_0000_FFFF), (0x28, 0x00CF_9900_0000_FFFF)]);
        machine.gdt(&[(0x30, 0x0000_8900_0000_0067)]);
        for (selector, outcome) in [
            (0x00, Ok(0)),
            (0x10, Ok(0x10)),
            (0x1B, Ok(0x1B)),
            (0x13, Err((vector::GP, Some(0x10)))),
            (0x20, Err((vector::NP, Some(0x20)))),
            (0x28, Err((vector::GP, Some(0x28)))),
            (0x30, Err((vector::GP, Some(0x30)))),
            (0x1000, Err((vector::GP, Some(0x1000)))),
            (0x0C, Err((vector::GP, Some(0x0C)))),
        ] {
            let result = machine.with(|cpu, env| cpu.data_segment(env, DS, selector));
            assert_eq!(machine.outcome(result).map(|segment| segment.selector), outcome, "{selector:#x}");
        }
        let result = machine.with(|cpu, env| cpu.data_segment(env, SS, 0x1B));
        assert_eq!(machine.outcome(result).map(|segment| segment.selector), Err((vector::GP, Some(0x18))));
        let result = machine.with(|cpu, env| cpu.data_segment(env, SS, 0));
        assert_eq!(machine.outcome(result).map(|segment| segment.selector), Err((vector::GP, Some(0))));
    }

    #[test]
    fn loading_marks_the_descriptor() {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x00CF_9200_0000_FFFF)]);
        let segment = machine.with(|cpu, env| cpu.data_segment(env, DS, 0x18)).expect("a data segment");
        assert!(segment.has(attr::ACCESSED));
        assert_eq!(machine.load64(Machine::GDT + 0x18), 0x00CF_9300_0000_FFFF);
    }
}
