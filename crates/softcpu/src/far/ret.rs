//! Far RET, and what it shares with IRET: returning to the same or an outer privilege level.

use x86defs::segment as attr;
use x86defs::vector;

use super::Stack;
use super::code::Target;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop};
use crate::segment::{SS, Segment};

/// RETF, RETF imm16.
pub fn ret_far(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.size);
    let released = op.imm & 0xFFFF;
    let mut stack = Stack::current(cpu);
    let offset = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    if !cpu.protected() {
        let target = cpu.real_target(selector, offset)?;
        stack.release(released);
        stack.commit(cpu);
        target.enter(cpu);
        cpu.segments_changed();
        return Ok(Flow::Indirect);
    }
    let target = cpu.return_target(env, selector, offset)?;
    stack.release(released);
    if target.cpl == cpu.cpl {
        stack.commit(cpu);
        target.enter(cpu);
    } else {
        let pointer = stack.pop(cpu, env, bytes)?;
        let selector = stack.pop(cpu, env, bytes)? as u16;
        let segment = cpu.return_stack(env, selector, &target)?;
        let mut outer = Stack::new(cpu, segment, pointer, target.cpl, target.is_64(cpu));
        outer.release(released);
        cpu.leave_to(&target, &outer);
    }
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

impl Cpu {
    /// The code segment that RET and IRET return to: SDM vol. 2 RET, "return to outer or same privilege level".
    pub fn return_target(&mut self, env: &mut Env<'_>, selector: u16, offset: u64) -> Result<Target, Stop> {
        if selector & !attr::RPL == 0 {
            return Err(self.gp0());
        }
        let descriptor = self.read_descriptor(env, selector, vector::GP, false)?;
        let rpl = (selector & attr::RPL) as u8;
        let level = if descriptor.is_conforming() { descriptor.dpl() <= rpl } else { descriptor.dpl() == rpl };
        if !descriptor.is_code() || rpl < self.cpl || !level {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        self.code_target(env, descriptor, selector, offset, rpl, false)
    }

    /// The stack segment of the level that is returned to. 64-bit code above CPL 3 may have a null one, with
    /// its RPL.
    pub fn return_stack(&mut self, env: &mut Env<'_>, selector: u16, target: &Target) -> Result<Segment, Stop> {
        if selector & !attr::RPL == 0 {
            if target.is_64(self) && target.cpl < 3 && (selector & attr::RPL) as u8 == target.cpl {
                return Ok(Segment { attributes: u16::from(target.cpl) << attr::DPL_SHIFT, ..Segment::null(selector) });
            }
            return Err(self.gp0());
        }
        self.checked_stack(env, selector, target.cpl, [vector::GP, vector::SS], false)
    }

    /// Go to an outer level. Ends with [`Cpu::segments_changed`] by the caller.
    pub fn leave_to(&mut self, target: &Target, stack: &Stack) {
        let outwards = target.cpl > self.cpl;
        target.enter(self);
        self.segs[usize::from(SS)] = *stack.segment();
        stack.commit(self);
        if outwards {
            self.drop_privileged_segments();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::{CS, DS, ES};
    use crate::testing::Machine;

    #[test]
    fn an_outer_level_gets_its_stack_and_loses_our_segments() {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x00CF_FB00_0000_FFFF), (0x20, 0x00CF_F300_0000_FFFF)]);
        machine.cpu.segs[usize::from(ES)].attributes |= 3 << attr::DPL_SHIFT;
        machine.cpu.regs[4] = 0x7000;
        for (i, word) in [0x1234, 0x1B, 0xAA, 0xBB, 0x6000, 0x23].into_iter().enumerate() {
            machine.store32(0x7000 + 4 * i as u64, word);
        }
        let op = Op { imm: 8, size: 4, len: 3, ..Op::new(ret_far) };
        machine.with(|cpu, env| ret_far(cpu, env, &op)).expect("returned");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cpl, cpu.rip, cpu.regs[4]), (3, 0x1234, 0x6008));
        assert_eq!((cpu.seg(CS).selector, cpu.seg(SS).selector), (0x1B, 0x23));
        assert_eq!((cpu.seg(DS).selector, cpu.seg(DS).attributes), (0, 0));
        assert_eq!(cpu.seg(ES).selector, 0x10);
    }
}
