//! Far JMP.

use x86defs::segment::{self as attr, system};
use x86defs::vector;

use super::{TaskSource, carried_out, immediate_pointer, next_rip, read_pointer, truncate};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

/// JMP ptr16:16, ptr16:32.
pub fn jmp_far_ptr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (offset, selector) = immediate_pointer(op);
    jump(cpu, env, op, offset, selector)
}

/// JMP m16:16, m16:32, m16:64.
pub fn jmp_far_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let op = &carried_out(cpu, op);
    let (offset, selector) = read_pointer(cpu, env, op)?;
    jump(cpu, env, op, offset, selector)
}

fn jump(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, offset: u64, selector: u16) -> Step {
    let target = if cpu.protected() {
        if selector & !attr::RPL == 0 {
            return Err(cpu.gp0());
        }
        let descriptor = cpu.read_system_descriptor(env, selector, vector::GP, false)?;
        match descriptor.system_type() {
            None if descriptor.is_code() => cpu.direct_target(env, descriptor, selector, offset)?,
            Some(system::CALL_GATE16) if !cpu.long_mode() => through_gate(cpu, env, &descriptor, selector, false)?,
            Some(system::CALL_GATE) => through_gate(cpu, env, &descriptor, selector, true)?,
            Some(system::TASK_GATE | system::TSS16 | system::TSS) if !cpu.long_mode() => {
                let next = next_rip(cpu, op);
                cpu.transfer_to_task(env, descriptor, selector, TaskSource::Jump, next)?;
                return Ok(Flow::Indirect);
            }
            _ => return Err(cpu.selector_fault(vector::GP, selector, false)),
        }
    } else {
        cpu.real_target(selector, truncate(offset, op.size))?
    };
    target.enter(cpu);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

fn through_gate(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    gate: &crate::segment::Descriptor,
    gate_selector: u16,
    wide: bool,
) -> Result<super::code::Target, crate::op::Stop> {
    let (descriptor, selector) = cpu.gate_target(env, gate, gate_selector)?;
    // A jump does not change the privilege level.
    if !descriptor.is_conforming() && descriptor.dpl() != cpu.cpl {
        return Err(cpu.selector_fault(vector::GP, selector, false));
    }
    cpu.code_target(env, descriptor, selector, gate.gate_offset(wide), cpu.cpl, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::CS;
    use crate::testing::Machine;

    fn op(selector: u16, offset: u64) -> Op {
        Op { imm: offset, disp: selector.into(), size: 4, len: 7, ..Op::new(jmp_far_ptr) }
    }

    #[test]
    fn to_code_segments_of_every_kind() {
        let mut machine = Machine::protected32();
        machine.gdt(&[
            (0x18, 0x00CF_FB00_0000_FFFF), // code, DPL 3
            (0x20, 0x00CF_9F00_0000_FFFF), // conforming code, DPL 0
            (0x28, 0x00CF_1B00_0000_FFFF), // not present
            (0x30, 0x0040_9B00_0000_0FFF), // limit 0xFFF
            (0x38, 0x0000_8C00_0008_5678), // call gate to 8:5678
            (0x40, 0x0000_8C00_0018_5678), // call gate to 0x18
        ]);
        for (selector, offset, outcome) in [
            (8, 0x1234, Ok((8, 0x1234))),
            (0x0B, 0, Err((vector::GP, Some(8)))),
            (0x18, 0, Err((vector::GP, Some(0x18)))),
            (0x23, 0x10, Ok((0x20, 0x10))),
            (0x28, 0, Err((vector::NP, Some(0x28)))),
            (0x30, 0xFFF, Ok((0x30, 0xFFF))),
            (0x30, 0x1000, Err((vector::GP, Some(0)))),
            (0x38, 0x9999, Ok((8, 0x5678))),
            (0x40, 0, Err((vector::GP, Some(0x18)))),
            (0x10, 0, Err((vector::GP, Some(0x10)))),
            (0, 0, Err((vector::GP, Some(0)))),
        ] {
            let result = machine.with(|cpu, env| jmp_far_ptr(cpu, env, &op(selector, offset)));
            let result = machine.outcome(result).map(|_| (machine.cpu.seg(CS).selector, machine.cpu.rip));
            assert_eq!(result, outcome, "{selector:#x}");
            machine.cpu.segs[usize::from(CS)].selector = 8;
        }
    }

    #[test]
    fn into_64_bit_code() {
        let mut machine = Machine::long64();
        machine.gdt(&[(0x18, 0x00EF_9B00_0000_FFFF), (0x20, 0x00CF_9B00_0000_FFFF)]);
        let result = machine.with(|cpu, env| jmp_far_ptr(cpu, env, &op(0x18, 0)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0x18))), "both L and D");
        machine.with(|cpu, env| jmp_far_ptr(cpu, env, &op(0x20, 0x10))).expect("compatibility mode");
        assert_eq!(machine.cpu.mode.bits(), 32);
        machine.with(|cpu, env| jmp_far_ptr(cpu, env, &op(8, 0x20))).expect("64-bit mode");
        assert!(machine.cpu.mode.is_64());
    }
}
