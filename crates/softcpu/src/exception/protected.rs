//! Delivery through the IDT in protected and virtual-8086 mode: SDM vol. 3 section 6.12.

use x86defs::segment::{self as attr, system};
use x86defs::{rflags, vector};

use super::Delivery;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::far::{Stack, TaskSource};
use crate::op::Stop;
use crate::segment::{CS, DS, Descriptor, ES, FS, GS, SS, Segment, fault_code};

/// Bytes of an IDT entry.
const ENTRY: u64 = 8;

impl Cpu {
    pub(super) fn deliver_protected(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<(), Stop> {
        let gate = self.protected_gate(env, delivery)?;
        if gate.system_type() == Some(system::TASK_GATE) {
            return self.deliver_to_task(env, delivery, &gate);
        }
        let kind = gate.attributes() & 15;
        let wide = matches!(kind, system::INT_GATE | system::TRAP_GATE);
        let interrupt_gate = matches!(kind, system::INT_GATE | system::INT_GATE16);
        let bytes = if wide { 4 } else { 2 };
        let (descriptor, selector) = self.handler_descriptor(env, &gate, delivery.ext)?;
        let from_virtual = self.system_flags & rflags::VM != 0;
        let inner = !descriptor.is_conforming() && descriptor.dpl() < self.cpl;
        if from_virtual && (!inner || descriptor.dpl() != 0) {
            return Err(self.selector_fault(vector::GP, selector, delivery.ext));
        }
        let cpl = if inner { descriptor.dpl() } else { self.cpl };
        let target = self.code_target(env, descriptor, selector, gate.gate_offset(wide), cpl, delivery.ext)?;
        let mut stack = if inner {
            self.handler_stack(env, cpl, delivery.ext)?
        } else {
            Stack::current(self).with_error_code(delivery.ext.into())
        };
        if from_virtual {
            for number in [GS, FS, DS, ES] {
                stack.push(self, env, bytes, self.seg(number).selector.into())?;
            }
        }
        if inner {
            stack.push(self, env, bytes, self.seg(SS).selector.into())?;
            stack.push(self, env, bytes, self.regs[4])?;
        }
        for value in [self.pushed_flags(delivery), self.seg(CS).selector.into(), delivery.return_rip] {
            stack.push(self, env, bytes, value)?;
        }
        if let Some(code) = delivery.error_code {
            stack.push(self, env, bytes, code.into())?;
        }
        if from_virtual {
            for number in [GS, FS, DS, ES] {
                self.segs[usize::from(number)] = Segment::null(0);
            }
        }
        let flags = self.handler_flags(interrupt_gate);
        self.segs[usize::from(SS)] = *stack.segment();
        stack.commit(self);
        target.enter(self);
        self.set_rflags(flags);
        self.segments_changed();
        Ok(())
    }

    fn protected_gate(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<Descriptor, Stop> {
        use system::*;
        let entry = ENTRY * u64::from(delivery.vector);
        if entry + ENTRY - 1 > u64::from(self.idtr.limit) {
            return Err(self.raise_with(vector::GP, delivery.idt_error()));
        }
        let address = self.idtr.base.wrapping_add(entry);
        let gate = Descriptor { low: self.read_system(env, address)?, high: 0, address };
        let known = matches!(gate.system_type(), Some(TASK_GATE | INT_GATE16 | TRAP_GATE16 | INT_GATE | TRAP_GATE));
        if !known || delivery.software && gate.dpl() < self.cpl {
            return Err(self.raise_with(vector::GP, delivery.idt_error()));
        }
        if !gate.is_present() {
            return Err(self.raise_with(vector::NP, delivery.idt_error()));
        }
        Ok(gate)
    }

    /// The code segment that a gate names, privilege checked.
    pub(super) fn handler_descriptor(
        &mut self,
        env: &mut Env<'_>,
        gate: &Descriptor,
        ext: bool,
    ) -> Result<(Descriptor, u16), Stop> {
        let selector = gate.gate_selector();
        if selector & !attr::RPL == 0 {
            return Err(self.raise_with(vector::GP, ext.into()));
        }
        let descriptor = self.read_descriptor(env, selector, vector::GP, ext)?;
        if !descriptor.is_code() || descriptor.dpl() > self.cpl {
            return Err(self.selector_fault(vector::GP, selector, ext));
        }
        Ok((descriptor, selector))
    }

    /// The stack of an inner level, from the TSS.
    fn handler_stack(&mut self, env: &mut Env<'_>, cpl: u8, ext: bool) -> Result<Stack, Stop> {
        let (selector, pointer) = self.tss_stack(env, cpl, ext)?;
        if selector & !attr::RPL == 0 {
            return Err(self.raise_with(vector::TS, ext.into()));
        }
        let segment = self.checked_stack(env, selector, cpl, [vector::TS, vector::SS], ext)?;
        Ok(Stack::new(self, segment, pointer, cpl, false).with_error_code(fault_code(selector, ext)))
    }

    /// Through a task gate: the handler is a task of its own, and the error code goes to its stack.
    fn deliver_to_task(&mut self, env: &mut Env<'_>, delivery: &Delivery, gate: &Descriptor) -> Result<(), Stop> {
        if delivery.resume {
            self.system_flags |= rflags::RF;
        }
        self.switch_through_gate(env, gate, TaskSource::Event { ext: delivery.ext }, delivery.return_rip)?;
        if let Some(code) = delivery.error_code {
            let bytes = if self.tss_is_32() { 4 } else { 2 };
            let mut stack = Stack::current(self).with_error_code(delivery.ext.into());
            stack.push(self, env, bytes, code.into())?;
            stack.commit(self);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exception::Event;
    use crate::far::int_n;
    use crate::op::Op;
    use crate::segment::TR;
    use crate::testing::Machine;

    fn int(number: u64) -> Op {
        Op { imm: number, len: 2, ..Op::new(int_n) }
    }

    /// A machine at CPL 3 with an inner stack at 0x10:0x7000.
    fn user() -> Machine {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x00CF_FB00_0000_FFFF), (0x20, 0x00CF_F300_0000_FFFF)]);
        machine.cpu.segs[usize::from(TR)] =
            Segment { base: Machine::TSS, limit: 0x67, attributes: 0x8B, ..Segment::null(0x50) };
        machine.store32(Machine::TSS + 4, 0x7000);
        machine.store32(Machine::TSS + 8, 0x10);
        machine.set_cpl(3);
        machine.cpu.segs[usize::from(CS)].selector = 0x1B;
        machine.cpu.segs[usize::from(SS)].selector = 0x23;
        machine
    }

    #[test]
    fn software_needs_a_gate_of_its_own_level() {
        let mut machine = user();
        machine.store64(Machine::IDT + 8 * 0x30, 0x0000_8E00_0008_0333);
        let result = machine.with(|cpu, env| int_n(cpu, env, &int(0x30)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0x30 << 3 | 2))));
        machine.store64(Machine::IDT + 8 * 0x30, 0x0000_EF00_0008_0333);
        machine.cpu.set_rflags(rflags::IF);
        machine.with(|cpu, env| int_n(cpu, env, &int(0x30))).expect("DPL 3");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cpl, cpu.rip, cpu.seg(SS).selector, cpu.regs[4]), (0, 0x333, 0x10, 0x7000 - 20));
        assert_eq!(cpu.rflags(), rflags::FIXED | rflags::IF, "a trap gate");
        let frame: Vec<u32> = (0..5).map(|i| machine.load32(cpu.regs[4] + 4 * i)).collect();
        assert_eq!(frame, [0x102, 0x1B, 0x202, 0x8000, 0x23]);
    }

    #[test]
    fn a_bad_inner_stack_is_an_invalid_tss() {
        let mut machine = user();
        machine.store64(Machine::IDT + 8 * 0x30, 0x0000_EE00_0008_0333);
        for (selector, vector, code) in
            [(0, vector::TS, 0), (0x13, vector::TS, 0x10), (8, vector::TS, 8), (0x1000, vector::TS, 0x1000)]
        {
            machine.store32(Machine::TSS + 8, selector);
            let result = machine.with(|cpu, env| int_n(cpu, env, &int(0x30)));
            assert_eq!(machine.outcome(result), Err((vector, Some(code))), "{selector:#x}");
        }
        machine.cpu.segs[usize::from(TR)].limit = 5;
        let result = machine.with(|cpu, env| int_n(cpu, env, &int(0x30)));
        assert_eq!(machine.outcome(result), Err((vector::TS, Some(0x50))));
        assert_eq!((machine.cpu.cpl, machine.cpu.rip), (3, 0x100));
    }

    #[test]
    fn virtual_8086_segments_are_saved() {
        let mut machine = user();
        machine.cpu.set_rflags(rflags::VM | rflags::IOPL);
        for number in [ES, CS, SS, DS, FS, GS] {
            machine.cpu.segs[usize::from(number)] = Segment::virtual_8086(0x100 + u16::from(number));
        }
        machine.cpu.segments_changed();
        machine.store64(Machine::IDT + 8 * 0x30, 0x0000_EE00_0008_0333);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x30 })).expect("delivered");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cpl, cpu.system_flags & rflags::VM, cpu.seg(GS).selector), (0, 0, 0));
        let frame: Vec<u32> = (0..9).map(|i| machine.load32(cpu.regs[4] + 4 * i)).collect();
        assert_eq!(frame, [0x100, 0x101, 0x2_3002, 0x8000, 0x102, 0x100, 0x103, 0x104, 0x105]);
    }
}
