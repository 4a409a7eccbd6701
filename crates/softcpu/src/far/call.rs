//! Far CALL.

use x86defs::segment::{self as attr, system};
use x86defs::vector;

use super::code::Target;
use super::{Stack, TaskSource, carried_out, immediate_pointer, next_rip, read_pointer, truncate};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop};
use crate::segment::{CS, Descriptor, SS, Segment, fault_code};

/// CALL ptr16:16, ptr16:32.
pub fn call_far_ptr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (offset, selector) = immediate_pointer(op);
    call(cpu, env, op, offset, selector)
}

/// CALL m16:16, m16:32, m16:64.
pub fn call_far_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let op = &carried_out(cpu, op);
    let (offset, selector) = read_pointer(cpu, env, op)?;
    call(cpu, env, op, offset, selector)
}

fn call(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, offset: u64, selector: u16) -> Step {
    let bytes = u64::from(op.size);
    if !cpu.protected() {
        let target = cpu.real_target(selector, truncate(offset, op.size))?;
        return same_level(cpu, env, op, bytes, &target);
    }
    if selector & !attr::RPL == 0 {
        return Err(cpu.gp0());
    }
    let descriptor = cpu.read_system_descriptor(env, selector, vector::GP, false)?;
    match descriptor.system_type() {
        None if descriptor.is_code() => {
            let target = cpu.direct_target(env, descriptor, selector, offset)?;
            same_level(cpu, env, op, bytes, &target)
        }
        Some(system::CALL_GATE16) if !cpu.long_mode() => through_gate(cpu, env, op, &descriptor, selector, 2),
        Some(system::CALL_GATE) => {
            let bytes = if cpu.long_mode() { 8 } else { 4 };
            through_gate(cpu, env, op, &descriptor, selector, bytes)
        }
        Some(system::TASK_GATE | system::TSS16 | system::TSS) if !cpu.long_mode() => {
            let next = next_rip(cpu, op);
            cpu.transfer_to_task(env, descriptor, selector, TaskSource::Call, next)?;
            Ok(Flow::Indirect)
        }
        _ => Err(cpu.selector_fault(vector::GP, selector, false)),
    }
}

/// Push the return address on the current stack and go.
fn same_level(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: u64, target: &Target) -> Step {
    // The stack of 64-bit code is wide, whatever is called.
    let mut stack = Stack::current(cpu);
    stack.push(cpu, env, bytes, cpu.seg(CS).selector.into())?;
    stack.push(cpu, env, bytes, next_rip(cpu, op))?;
    stack.commit(cpu);
    target.enter(cpu);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

fn through_gate(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, gate: &Descriptor, gate_selector: u16, bytes: u64) -> Step {
    let (descriptor, selector) = cpu.gate_target(env, gate, gate_selector)?;
    let offset = gate.gate_offset(bytes > 2);
    if descriptor.is_conforming() || descriptor.dpl() == cpu.cpl {
        let target = cpu.code_target(env, descriptor, selector, offset, cpu.cpl, false)?;
        return same_level(cpu, env, op, bytes, &target);
    }
    let target = cpu.code_target(env, descriptor, selector, offset, descriptor.dpl(), false)?;
    let mut stack = inner_stack(cpu, env, target.cpl)?;
    let mut parameters = [0; 31];
    let count = if bytes == 8 { 0 } else { gate.gate_parameters() as usize };
    let mut source = Stack::current(cpu);
    for parameter in &mut parameters[..count] {
        *parameter = source.pop(cpu, env, bytes)?;
    }
    stack.push(cpu, env, bytes, cpu.seg(SS).selector.into())?;
    stack.push(cpu, env, bytes, cpu.regs[4])?;
    for parameter in parameters[..count].iter().rev() {
        stack.push(cpu, env, bytes, *parameter)?;
    }
    stack.push(cpu, env, bytes, cpu.seg(CS).selector.into())?;
    stack.push(cpu, env, bytes, next_rip(cpu, op))?;
    stack.commit(cpu);
    cpu.segs[usize::from(SS)] = *stack.segment();
    target.enter(cpu);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

/// The stack of an inner level, from the TSS.
fn inner_stack(cpu: &mut Cpu, env: &mut Env<'_>, cpl: u8) -> Result<Stack, Stop> {
    let (selector, pointer) = cpu.tss_stack(env, cpl, false)?;
    if cpu.long_mode() {
        let segment = Segment { attributes: u16::from(cpl) << attr::DPL_SHIFT, ..Segment::null(cpl.into()) };
        return Ok(Stack::new(cpu, segment, pointer, cpl, true));
    }
    if selector & !attr::RPL == 0 {
        return Err(cpu.raise_with(vector::TS, 0));
    }
    let segment = cpu.checked_stack(env, selector, cpl, [vector::TS, vector::SS], false)?;
    Ok(Stack::new(cpu, segment, pointer, cpl, false).with_error_code(fault_code(selector, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::TR;
    use crate::testing::Machine;

    fn op(selector: u16, offset: u64) -> Op {
        Op { imm: offset, disp: selector.into(), size: 4, len: 7, ..Op::new(call_far_ptr) }
    }

    #[test]
    fn a_gate_switches_stacks_and_copies_parameters() {
        let mut machine = Machine::protected32();
        machine.gdt(&[
            (0x18, 0x00CF_FB00_0000_FFFF),
            (0x20, 0x00CF_F300_0000_FFFF),
            (0x28, 0x0000_EC02_0008_5678), // call gate to 8:5678, DPL 3, two parameters
        ]);
        machine.cpu.segs[usize::from(TR)] =
            Segment { base: Machine::TSS, limit: 0x67, attributes: 0x8B, ..Segment::null(0x50) };
        machine.store32(Machine::TSS + 4, 0x7000);
        machine.store32(Machine::TSS + 8, 0x10);
        machine.set_cpl(3);
        machine.cpu.segs[usize::from(CS)].selector = 0x1B;
        machine.cpu.segs[usize::from(SS)].selector = 0x23;
        machine.cpu.regs[4] = 0x6000;
        machine.store32(0x6000, 0x11);
        machine.store32(0x6004, 0x22);
        machine.with(|cpu, env| call_far_ptr(cpu, env, &op(0x2B, 0))).expect("through the gate");
        let cpu = &machine.cpu;
        assert_eq!((cpu.cpl, cpu.rip, cpu.seg(CS).selector, cpu.seg(SS).selector), (0, 0x5678, 8, 0x10));
        assert_eq!(cpu.regs[4], 0x7000 - 24);
        let frame: Vec<u32> = (0..6).map(|i| machine.load32(0x7000 - 24 + 4 * i)).collect();
        assert_eq!(frame, [0x107, 0x1B, 0x11, 0x22, 0x6000, 0x23]);
    }

    #[test]
    fn a_stack_that_does_not_fit_leaves_everything_as_it_was() {
        let mut machine = Machine::protected32();
        machine.cpu.segs[usize::from(SS)].limit = 0xFFF;
        machine.cpu.regs[4] = 4;
        let result = machine.with(|cpu, env| call_far_ptr(cpu, env, &op(8, 0x10)));
        assert_eq!(machine.outcome(result), Err((vector::SS, Some(0))));
        assert_eq!((machine.cpu.regs[4], machine.cpu.rip), (4, 0x100));
    }
}
