//! LAR, LSL, VERR, VERW, ARPL: questions about selectors, answered in ZF.

use x86defs::segment::{self as attr, system};

use super::Descriptor;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Op, Step, Stop, Width, slot};

/// The r/m16 operand.
pub(super) fn selector_operand(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<u16, Stop> {
    if op.extra & 1 == 1 { Ok(u16::get(&cpu.regs, op.src)) } else { addr::read_operand(cpu, env, op) }
}

/// #UD in real and virtual-8086 mode.
pub(super) fn require_protected(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.protected() { Ok(()) } else { Err(cpu.ud()) }
}

/// The descriptor, if the selector is not null and its table has it. Faults of reading it (#PF) are faults.
fn visible_descriptor(cpu: &mut Cpu, env: &mut Env<'_>, selector: u16) -> Result<Option<Descriptor>, Stop> {
    if selector & !attr::RPL == 0 {
        return Ok(None);
    }
    match cpu.read_system_descriptor(env, selector, x86defs::vector::GP, false) {
        Ok(descriptor) => Ok(Some(descriptor)),
        Err(Stop::Fault) if cpu.fault.vector == x86defs::vector::GP => Ok(None),
        Err(stop) => Err(stop),
    }
}

/// Whether the program may know of a descriptor: CPL and RPL are within DPL, or it is conforming code.
fn is_accessible(cpu: &Cpu, descriptor: &Descriptor, selector: u16) -> bool {
    descriptor.is_conforming() || cpu.cpl.max((selector & attr::RPL) as u8) <= descriptor.dpl()
}

/// What LAR and LSL have in common. `types` are the system types that the instruction knows, in legacy and in long mode.
fn query(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    types: [&[u16]; 2],
    value: impl FnOnce(&Descriptor) -> u32,
) -> Step {
    require_protected(cpu)?;
    let selector = selector_operand(cpu, env, op)?;
    let known = types[usize::from(cpu.long_mode())];
    let descriptor = visible_descriptor(cpu, env, selector)?.filter(|descriptor| {
        descriptor.system_type().is_none_or(|kind| known.contains(&kind)) && is_accessible(cpu, descriptor, selector)
    });
    if let Some(descriptor) = descriptor {
        let value = value(&descriptor);
        match op.size {
            2 => u16::set(&mut cpu.regs, op.dst, value as u16),
            _ => cpu.regs[slot(op.dst)] = value.into(),
        }
    }
    cpu.flags.set_zf(descriptor.is_some());
    Ok(Flow::Sync)
}

/// LAR: access rights.
pub fn lar(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use system::*;
    let types: [&[u16]; 2] =
        [&[TSS16, LDT, TSS16_BUSY, CALL_GATE16, TASK_GATE, TSS, TSS_BUSY, CALL_GATE], &[LDT, TSS, TSS_BUSY, CALL_GATE]];
    query(cpu, env, op, types, |descriptor| (descriptor.low >> 32) as u32 & 0x00FF_FF00)
}

/// LSL: limit.
pub fn lsl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    use system::*;
    let types: [&[u16]; 2] = [&[TSS16, LDT, TSS16_BUSY, TSS, TSS_BUSY], &[LDT, TSS, TSS_BUSY]];
    query(cpu, env, op, types, Descriptor::limit)
}

fn verify(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, suits: fn(&Descriptor) -> bool) -> Step {
    require_protected(cpu)?;
    let selector = selector_operand(cpu, env, op)?;
    let found = visible_descriptor(cpu, env, selector)?;
    cpu.flags.set_zf(found.is_some_and(|descriptor| suits(&descriptor) && is_accessible(cpu, &descriptor, selector)));
    Ok(Flow::Sync)
}

/// VERR: can it be read?
pub fn verr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    verify(cpu, env, op, Descriptor::is_readable)
}

/// VERW: can it be written?
pub fn verw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    verify(cpu, env, op, Descriptor::is_writable_data)
}

/// ARPL: raise the RPL of the destination to that of the source.
pub fn arpl(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    require_protected(cpu)?;
    let register = op.extra & 1 == 1;
    let destination = if register {
        u16::get(&cpu.regs, op.dst)
    } else {
        // A load, and a store only where there is something to change: page faults say so.
        addr::read_operand::<u16>(cpu, env, op)?
    };
    let rpl = u16::get(&cpu.regs, op.src) & attr::RPL;
    let lower = destination & attr::RPL < rpl;
    if lower {
        let raised = destination & !attr::RPL | rpl;
        if register {
            u16::set(&mut cpu.regs, op.dst, raised);
        } else {
            addr::write_operand(cpu, env, op, raised)?;
        }
    }
    cpu.flags.set_zf(lower);
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use x86defs::vector;

    use super::*;
    use crate::segment::DS;
    use crate::testing::Machine;

    fn op(size: u8) -> Op {
        Op { dst: 0, src: 1, extra: 1, size, ..Op::new(lar) }
    }

    #[test]
    fn rights_and_limits_of_what_may_be_seen() {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x00CF_F300_0000_FFFF), (0x20, 0x0000_8E00_0008_0000), (0x28, 0x0000_8900_0000_0067)]);
        // Selector, LAR, LSL; `None` clears ZF and leaves the register.
        for (selector, rights, limit) in [
            (0x1B, Some(0x00CF_F300), Some(0xFFFF_FFFF)),
            (0x20, None, None),
            (0x28, Some(0x8900), Some(0x67)),
            (0x2B, None, None),
            (0, None, None),
            (0xF000, None, None),
        ] {
            for (handler, expected) in [(lar as crate::op::Handler, rights), (lsl, limit)] {
                machine.cpu.regs[0] = 0xDEAD;
                machine.cpu.regs[1] = selector;
                machine.with(|cpu, env| handler(cpu, env, &op(4))).expect("no fault");
                assert_eq!(machine.cpu.flags.zf(), expected.is_some(), "{selector:#x}");
                assert_eq!(machine.cpu.regs[0], expected.unwrap_or(0xDEAD), "{selector:#x}");
            }
        }
    }

    #[test]
    fn not_in_real_mode() {
        let mut machine = Machine::real();
        let result = machine.with(|cpu, env| verr(cpu, env, &op(2)));
        assert_eq!(machine.outcome(result), Err((vector::UD, None)));
    }

    #[test]
    fn arpl_that_changes_nothing_needs_no_right_to_write() {
        for (source, outcome) in [(1, Ok(())), (3, Err((vector::GP, Some(0))))] {
            let mut machine = Machine::protected32();
            machine.cpu.segs[usize::from(DS)].attributes &= !attr::RW;
            machine.cpu.regs[1] = source;
            machine.store32(0x6000, 0x12);
            let op = Op { disp: 0x6000, seg: DS, address: 4, extra: 0, ..op(2) };
            let result = machine.with(|cpu, env| arpl(cpu, env, &op)).map(|_| ());
            assert_eq!(machine.outcome(result), outcome);
        }
    }

    #[test]
    fn arpl_raises_only() {
        let mut machine = Machine::protected32();
        for (destination, source, result) in [(0x10, 3, 0x13), (0x13, 1, 0x13), (0x11, 1, 0x11)] {
            machine.cpu.regs[0] = destination;
            machine.cpu.regs[1] = source;
            machine.with(|cpu, env| arpl(cpu, env, &op(2))).expect("no fault");
            assert_eq!((machine.cpu.regs[0], machine.cpu.flags.zf()), (result, destination != result));
        }
    }
}
