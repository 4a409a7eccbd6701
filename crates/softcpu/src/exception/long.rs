//! Delivery through the IDT in long mode: SDM vol. 3 section 6.14.

use x86defs::segment::{self as attr, system};
use x86defs::vector;

use super::Delivery;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::far::Stack;
use crate::op::Stop;
use crate::segment::{CS, Descriptor, SS, Segment};

/// Bytes of an IDT entry.
const ENTRY: u64 = 16;
/// Where IST1 would be if it had the number 0.
const TSS_IST: u64 = 28;

impl Cpu {
    pub(super) fn deliver_long(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<(), Stop> {
        let ext = delivery.ext;
        let gate = self.long_gate(env, delivery)?;
        let (descriptor, selector) = self.handler_descriptor(env, &gate, ext)?;
        if !descriptor.has(attr::L) {
            return Err(self.selector_fault(vector::GP, selector, ext));
        }
        let inner = !descriptor.is_conforming() && descriptor.dpl() < self.cpl;
        let cpl = if inner { descriptor.dpl() } else { self.cpl };
        let target = self.code_target(env, descriptor, selector, gate.gate_offset(true), cpl, ext)?;
        let pointer = match gate.gate_ist() {
            0 if inner => self.tss_stack(env, cpl, ext)?.1,
            0 => self.regs[4],
            ist => self.read_tss(env, TSS_IST + 8 * ist, 8, ext)?,
        };
        let segment = if inner {
            Segment { attributes: u16::from(cpl) << attr::DPL_SHIFT, ..Segment::null(cpl.into()) }
        } else {
            *self.seg(SS)
        };
        let mut stack = Stack::new(self, segment, pointer, cpl, true).with_error_code(ext.into());
        stack.align();
        let frame = [
            self.seg(SS).selector.into(),
            self.regs[4],
            self.pushed_flags(delivery),
            self.seg(CS).selector.into(),
            delivery.return_rip,
        ];
        for value in frame {
            stack.push(self, env, 8, value)?;
        }
        if let Some(code) = delivery.error_code {
            stack.push(self, env, 8, code.into())?;
        }
        let flags = self.handler_flags(gate.system_type() == Some(system::INT_GATE));
        self.segs[usize::from(SS)] = segment;
        stack.commit(self);
        target.enter(self);
        self.set_rflags(flags);
        self.segments_changed();
        Ok(())
    }

    fn long_gate(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<Descriptor, Stop> {
        let entry = ENTRY * u64::from(delivery.vector);
        if entry + ENTRY - 1 > u64::from(self.idtr.limit) {
            return Err(self.raise_with(vector::GP, delivery.idt_error()));
        }
        let address = self.idtr.base.wrapping_add(entry);
        let low = self.read_system(env, address)?;
        let high = u64::from(self.read_system::<u32>(env, address.wrapping_add(8))?);
        let gate = Descriptor { low, high, address };
        let known = matches!(gate.system_type(), Some(system::INT_GATE | system::TRAP_GATE));
        if !known || delivery.software && gate.dpl() < self.cpl {
            return Err(self.raise_with(vector::GP, delivery.idt_error()));
        }
        if !gate.is_present() {
            return Err(self.raise_with(vector::NP, delivery.idt_error()));
        }
        Ok(gate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exception::Event;
    use crate::segment::TR;
    use crate::testing::Machine;

    fn machine() -> Machine {
        let mut machine = Machine::long64();
        machine.cpu.segs[usize::from(TR)] =
            Segment { base: Machine::TSS, limit: 0x67, attributes: 0x8B, ..Segment::null(0x50) };
        machine.store64(Machine::TSS + 4, 0x7008);
        machine.store64(Machine::TSS + 36, 0x6000);
        machine
    }

    /// A gate to 8:0x123 with a DPL and an IST.
    fn gate(machine: &mut Machine, number: u64, dpl: u64, ist: u64) {
        machine.store64(Machine::IDT + 16 * number, 0x0000_8E00_0008_0123 | dpl << 45 | ist << 32);
        machine.store64(Machine::IDT + 16 * number + 8, 0);
    }

    #[test]
    fn the_stack_is_aligned_and_always_saved() {
        let mut machine = machine();
        gate(&mut machine, 0x30, 0, 0);
        machine.cpu.regs[4] = 0x7ABC;
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x30 })).expect("delivered");
        let cpu = &machine.cpu;
        assert_eq!((cpu.regs[4], cpu.rip, cpu.seg(SS).selector), (0x7AB0 - 40, 0x123, 0x10));
        let frame: Vec<u64> = (0..5).map(|i| machine.load64(cpu.regs[4] + 8 * i)).collect();
        assert_eq!(frame, [0x100, 8, 2, 0x7ABC, 0x10]);
    }

    #[test]
    fn stacks_come_from_the_tss() {
        let mut machine = machine();
        gate(&mut machine, 0x30, 0, 0);
        gate(&mut machine, 0x31, 0, 1);
        machine.set_cpl(3);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x30 })).expect("delivered");
        assert_eq!((machine.cpu.regs[4], machine.cpu.cpl, machine.cpu.seg(SS).selector), (0x7000 - 40, 0, 0));
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x31 })).expect("delivered");
        assert_eq!(machine.cpu.regs[4], 0x6000 - 40);
    }

    #[test]
    fn a_stack_that_is_not_canonical_is_a_stack_fault() {
        let mut machine = machine();
        gate(&mut machine, 0x30, 0, 1);
        gate(&mut machine, 12, 0, 0);
        machine.store64(Machine::TSS + 36, 0x8000_0000_0000_0000);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x30 })).expect("the #SS handler");
        assert_eq!(machine.load64(machine.cpu.regs[4]), 1, "error code EXT");
    }

    #[test]
    fn a_page_fault_while_pushing_is_at_the_interrupted_instruction() {
        let mut machine = machine();
        gate(&mut machine, 0x30, 0, 1);
        gate(&mut machine, 14, 0, 0);
        machine.store64(Machine::TSS + 36, 0x4000_0000);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x30 })).expect("the #PF handler");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cr2, machine.load64(cpu.regs[4]), machine.load64(cpu.regs[4] + 8)), (0x3FFF_FFF8, 2, 0x100));
    }
}
