//! IRET.

use x86defs::{cr, rflags, vector};

use super::{Stack, TaskSource};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};
use crate::segment::{CS, DS, ES, FS, GS, SS, Segment};

/// Flags that every IRET may change.
const ALWAYS: u64 = rflags::ARITHMETIC | rflags::TF | rflags::DF | rflags::NT;
/// Flags that one with an operand of 32 or 64 bits may change too.
const WIDE: u64 = rflags::RF | rflags::AC | rflags::ID;

/// IRET, IRETD, IRETQ.
pub fn iret(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.system_flags & rflags::VM != 0 {
        return from_virtual_8086(cpu, env, op);
    }
    // Even if it faults (SDM vol. 3 section 6.7.1).
    cpu.nmi_blocked = false;
    if !cpu.protected() {
        return real(cpu, env, op);
    }
    if cpu.system_flags & rflags::NT != 0 {
        if cpu.long_mode() {
            return Err(cpu.gp0());
        }
        cpu.return_to_previous_task(env, cpu.rip.wrapping_add(u64::from(op.len)))?;
        return Ok(Flow::Indirect);
    }
    protected(cpu, env, op)
}

/// Flags after popping `image` at privilege level `cpl`.
fn merged_flags(cpu: &Cpu, image: u64, bytes: u64, cpl: u8) -> u64 {
    let mut mask = ALWAYS;
    if bytes > 2 {
        mask |= WIDE;
    }
    let iopl = (cpu.system_flags >> rflags::IOPL_SHIFT & 3) as u8;
    if cpl <= iopl {
        mask |= rflags::IF;
    }
    if cpl == 0 {
        mask |= rflags::IOPL;
        if bytes > 2 {
            mask |= rflags::VIF | rflags::VIP;
        }
    }
    cpu.rflags() & !mask | image & mask
}

fn real(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.size);
    let mut stack = Stack::current(cpu);
    let offset = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    let image = stack.pop(cpu, env, bytes)?;
    let target = cpu.real_target(selector, offset)?;
    // Like CPL 0, but VIF and VIP stay (SDM vol. 2 IRET, real-address mode).
    let virtual_flags = cpu.system_flags & (rflags::VIF | rflags::VIP);
    let flags = merged_flags(cpu, image, bytes, 0) & !(rflags::VIF | rflags::VIP) | virtual_flags;
    stack.commit(cpu);
    target.enter(cpu);
    cpu.set_rflags(flags);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

/// SDM vol. 2 IRET, "return from virtual-8086 mode".
fn from_virtual_8086(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.size);
    let iopl3 = cpu.system_flags & rflags::IOPL == rflags::IOPL;
    let virtualised = !iopl3 && cpu.cr4 & cr::CR4_VME != 0 && bytes == 2;
    if !iopl3 && !virtualised {
        return Err(cpu.gp0());
    }
    let mut stack = Stack::current(cpu);
    let offset = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    let image = stack.pop(cpu, env, bytes)?;
    let mut flags = merged_flags(cpu, image, bytes, 3);
    if virtualised {
        let wants_interrupts = image & rflags::IF != 0;
        if image & rflags::TF != 0 || wants_interrupts && cpu.system_flags & rflags::VIP != 0 {
            return Err(cpu.gp0());
        }
        flags = flags & !rflags::VIF | if wants_interrupts { rflags::VIF } else { 0 };
    }
    let target = cpu.real_target(selector, offset)?;
    cpu.nmi_blocked = false;
    stack.commit(cpu);
    target.enter(cpu);
    cpu.set_rflags(flags);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

fn protected(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.size);
    let from_64 = cpu.mode.is_64();
    let mut stack = Stack::current(cpu);
    let offset = stack.pop(cpu, env, bytes)?;
    let selector = stack.pop(cpu, env, bytes)? as u16;
    let image = stack.pop(cpu, env, bytes)?;
    if image & rflags::VM != 0 && cpu.cpl == 0 && bytes == 4 && !cpu.long_mode() {
        return to_virtual_8086(cpu, env, stack, offset, selector, image);
    }
    let target = cpu.return_target(env, selector, offset)?;
    let flags = merged_flags(cpu, image, bytes, cpu.cpl);
    if target.cpl == cpu.cpl && !from_64 {
        stack.commit(cpu);
        target.enter(cpu);
    } else {
        let pointer = stack.pop(cpu, env, bytes)?;
        let selector = stack.pop(cpu, env, bytes)? as u16;
        let segment = cpu.return_stack(env, selector, &target)?;
        let outer = Stack::new(cpu, segment, pointer, target.cpl, target.is_64(cpu));
        cpu.leave_to(&target, &outer);
    }
    cpu.set_rflags(flags);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

/// SDM vol. 2 IRET, "return to virtual-8086 mode".
fn to_virtual_8086(cpu: &mut Cpu, env: &mut Env<'_>, mut stack: Stack, offset: u64, selector: u16, image: u64) -> Step {
    let pointer = stack.pop(cpu, env, 4)?;
    let mut selectors = [0; 5];
    for selector in &mut selectors {
        *selector = stack.pop(cpu, env, 4)? as u16;
    }
    if offset > 0xFFFF {
        return Err(cpu.raise_with(vector::GP, 0));
    }
    for (number, selector) in [SS, ES, DS, FS, GS].into_iter().zip(selectors) {
        cpu.segs[usize::from(number)] = Segment::virtual_8086(selector);
    }
    cpu.segs[usize::from(CS)] = Segment::virtual_8086(selector);
    cpu.rip = offset;
    cpu.regs[4] = pointer;
    cpu.cpl = 3;
    cpu.set_rflags(image);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

impl Cpu {
    /// IRET with NT set: back to the task that the current TSS links to (SDM vol. 3 section 7.3).
    fn return_to_previous_task(&mut self, env: &mut Env<'_>, next: u64) -> Result<(), crate::op::Stop> {
        let selector = self.read_tss(env, 0, 2, false)? as u16;
        if selector & x86defs::segment::TI != 0 || selector & !x86defs::segment::RPL == 0 {
            return Err(self.selector_fault(vector::TS, selector, false));
        }
        let descriptor = self.read_descriptor(env, selector, vector::TS, false)?;
        self.switch_task(env, descriptor, selector, TaskSource::Return, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    fn op(size: u8) -> Op {
        Op { size, len: 1, ..Op::new(iret) }
    }

    #[test]
    fn long_mode_always_pops_the_stack_pointer() {
        let mut machine = Machine::long64();
        machine.cpu.regs[4] = 0x7000;
        machine.cpu.nmi_blocked = true;
        for (i, word) in [0x1234, 8, 0x40202, 0x6666, 0].into_iter().enumerate() {
            machine.store64(0x7000 + 8 * i as u64, word);
        }
        machine.with(|cpu, env| iret(cpu, env, &op(8))).expect("returned");
        let cpu = &machine.cpu;
        assert_eq!((cpu.rip, cpu.regs[4], cpu.rflags(), cpu.nmi_blocked), (0x1234, 0x6666, 0x40202, false));
        assert_eq!(cpu.seg(SS).selector, 0);
    }

    #[test]
    fn a_null_stack_above_cpl_3_needs_its_rpl() {
        let mut machine = Machine::long64();
        machine.gdt(&[(0x18, 0x00AF_BB00_0000_FFFF)]);
        machine.cpu.regs[4] = 0x7000;
        for (i, word) in [0x1234, 0x19, 0x202, 0x6000, 2].into_iter().enumerate() {
            machine.store64(0x7000 + 8 * i as u64, word);
        }
        let result = machine.with(|cpu, env| iret(cpu, env, &op(8)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
        machine.store64(0x7020, 1);
        machine.with(|cpu, env| iret(cpu, env, &op(8))).expect("returned");
        assert_eq!((machine.cpu.cpl, machine.cpu.seg(SS).selector), (1, 1));
    }

    #[test]
    fn a_null_stack_is_refused_at_cpl_3() {
        let mut machine = Machine::long64();
        machine.gdt(&[(0x18, 0x00AF_FB00_0000_FFFF), (0x20, 0x00CF_F300_0000_FFFF)]);
        machine.cpu.regs[4] = 0x7000;
        for (i, word) in [0x1234, 0x1B, 0x3202, 0x6000, 3].into_iter().enumerate() {
            machine.store64(0x7000 + 8 * i as u64, word);
        }
        let result = machine.with(|cpu, env| iret(cpu, env, &op(8)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
        assert_eq!((machine.cpu.cpl, machine.cpu.regs[4]), (0, 0x7000));
        machine.store64(0x7020, 0x23);
        machine.with(|cpu, env| iret(cpu, env, &op(8))).expect("returned");
        assert_eq!((machine.cpu.cpl, machine.cpu.rflags()), (3, 0x3202));
    }

    #[test]
    fn outer_levels_cannot_change_if_and_iopl() {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x00CF_FB00_0000_FFFF)]);
        machine.set_cpl(3);
        machine.cpu.set_rflags(rflags::IF);
        machine.cpu.regs[4] = 0x7000;
        for (i, word) in [0x10, 0x1B, 0x3001].into_iter().enumerate() {
            machine.store32(0x7000 + 4 * i as u64, word);
        }
        machine.with(|cpu, env| iret(cpu, env, &op(4))).expect("returned");
        assert_eq!(machine.cpu.rflags(), rflags::FIXED | rflags::IF | rflags::CF);
    }

    #[test]
    fn into_virtual_8086_mode_and_not_out_of_it() {
        let mut machine = Machine::protected32();
        machine.cpu.regs[4] = 0x7000;
        let words = [0x100, 0x200, 0x2_0202, 0x8000, 0x300, 0x400, 0x500, 0x600, 0x700];
        for (i, word) in words.into_iter().enumerate() {
            machine.store32(0x7000 + 4 * i as u64, word);
        }
        machine.with(|cpu, env| iret(cpu, env, &op(4))).expect("returned");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cpl, cpu.linear_rip(), cpu.regs[4]), (3, 0x2100, 0x8000));
        assert_eq!((cpu.seg(SS).base, cpu.seg(GS).base, cpu.mode.is_real()), (0x3000, 0x7000, true));
        let result = machine.with(|cpu, env| iret(cpu, env, &op(4)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))), "IOPL is 0");
    }
}
