//! IN and OUT, with the rights that IOPL and the TSS's bitmap give: SDM vol. 1 chapter 19.

use vcpu::{Exit, Reply};
use x86defs::{cr, rflags};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::string::repeat;
use crate::op::{Flow, Op, Step, Stop, Width, ZERO, slot};
use crate::segment::{ES, TR};

const RCX: u8 = 1;
const RSI: u8 = 6;
const RDI: u8 = 7;
/// Where a TSS says where its I/O bitmap begins.
const IO_MAP_BASE: u64 = 102;

/// IN.
pub fn in_(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = port_in(cpu, env, port(cpu, op), op.size)?;
    match op.size {
        1 => u8::set(&mut cpu.regs, 0, value as u8),
        2 => u16::set(&mut cpu.regs, 0, value as u16),
        _ => u32::set(&mut cpu.regs, 0, value),
    }
    Ok(Flow::Sync)
}

/// OUT.
pub fn out_(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = cpu.regs[0] as u32 & crate::exec::addr::size_mask(op.size) as u32;
    port_out(cpu, env, port(cpu, op), op.size, value)?;
    Ok(Flow::Sync)
}

/// INS: one element, and on to the next if it is repeated.
pub fn ins(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeated(cpu, env, op, RDI, |cpu, env, op, offset| {
        let bytes = u64::from(op.size);
        // Before the port is read, which cannot be undone.
        let linear = addr::linear(cpu, ES, offset, bytes, true)?;
        cpu.probe_write(env, linear, bytes, ES)?;
        let value = port_in(cpu, env, cpu.regs[2] as u16, op.size)?;
        match op.size {
            1 => cpu.write(env, linear, ES, value as u8),
            2 => cpu.write(env, linear, ES, value as u16),
            _ => cpu.write(env, linear, ES, value),
        }
    })
}

/// OUTS, likewise.
pub fn outs(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    repeated(cpu, env, op, RSI, |cpu, env, op, offset| {
        let linear = addr::linear(cpu, op.seg, offset, op.size.into(), false)?;
        let value = match op.size {
            1 => cpu.read::<u8>(env, linear, op.seg)?.into(),
            2 => cpu.read::<u16>(env, linear, op.seg)?.into(),
            _ => cpu.read::<u32>(env, linear, op.seg)?,
        };
        port_out(cpu, env, cpu.regs[2] as u16, op.size, value)
    })
}

/// Carry out one element at the index register, and count.
fn repeated(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    index: u8,
    element: fn(&mut Cpu, &mut Env<'_>, &Op, u64) -> Result<(), Stop>,
) -> Step {
    let mask = addr::size_mask(op.address);
    let get = |cpu: &Cpu, register: u8| cpu.regs[slot(register)] & mask;
    let set = |cpu: &mut Cpu, register: u8, value: u64| match op.address {
        2 => u16::set(&mut cpu.regs, register, value as u16),
        4 => u32::set(&mut cpu.regs, register, value as u32),
        _ => cpu.regs[slot(register)] = value,
    };
    let repeats = op.extra != repeat::NONE;
    if repeats && get(cpu, RCX) == 0 {
        return Ok(Flow::Sync);
    }
    let offset = get(cpu, index);
    element(cpu, env, op, offset)?;
    let distance = u64::from(op.size);
    let backwards = cpu.system_flags & rflags::DF != 0;
    let moved = if backwards { offset.wrapping_sub(distance) } else { offset.wrapping_add(distance) };
    set(cpu, index, moved);
    if repeats {
        let left = get(cpu, RCX).wrapping_sub(1);
        set(cpu, RCX, left);
        if left & mask != 0 {
            return Err(Stop::Again);
        }
    }
    Ok(Flow::Sync)
}

fn port(cpu: &Cpu, op: &Op) -> u16 {
    if op.src == ZERO { op.imm as u8 as u16 } else { cpu.regs[2] as u16 }
}

/// Read a port if the program may: for IN and INS.
fn port_in(cpu: &mut Cpu, env: &mut Env<'_>, port: u16, bytes: u8) -> Result<u32, Stop> {
    check_permission(cpu, env, port, bytes)?;
    let value = cpu.ask_bus(
        env,
        |cpu, env| match env.bus.port_read(cpu, port, bytes.into()) {
            Reply::Done(value) => Reply::Done(value.into()),
            Reply::Fault => Reply::Fault,
            Reply::Exit => Reply::Exit,
        },
        |vcpu| Exit::PortRead { vcpu, port, size: bytes },
    )?;
    note(cpu, port, bytes);
    Ok(value as u32)
}

/// Write a port if the program may: for OUT and OUTS.
fn port_out(cpu: &mut Cpu, env: &mut Env<'_>, port: u16, bytes: u8, value: u32) -> Result<(), Stop> {
    check_permission(cpu, env, port, bytes)?;
    cpu.ask_bus(
        env,
        |cpu, env| match env.bus.port_write(cpu, port, bytes.into(), value) {
            Reply::Done(()) => Reply::Done(0),
            Reply::Fault => Reply::Fault,
            Reply::Exit => Reply::Exit,
        },
        |vcpu| Exit::PortWrite { vcpu, port, size: bytes, value },
    )?;
    note(cpu, port, bytes);
    Ok(())
}

/// I/O breakpoints exist with CR4.DE only.
fn note(cpu: &mut Cpu, port: u16, bytes: u8) {
    if cpu.cr4 & cr::CR4_DE != 0 {
        cpu.debug.note_io(port, bytes.into());
    }
}

fn check_permission(cpu: &mut Cpu, env: &mut Env<'_>, port: u16, bytes: u8) -> Result<(), Stop> {
    if cpu.cr0 & cr::CR0_PE == 0 {
        return Ok(());
    }
    let iopl = (cpu.system_flags >> rflags::IOPL_SHIFT & 3) as u8;
    if cpu.cpl <= iopl && cpu.system_flags & rflags::VM == 0 {
        return Ok(());
    }
    let tr = *cpu.seg(TR);
    if !cpu.tss_is_32() || u64::from(tr.limit) < IO_MAP_BASE + 1 {
        return Err(cpu.gp0());
    }
    let base: u16 = cpu.read_system(env, tr.base.wrapping_add(IO_MAP_BASE))?;
    let offset = u64::from(base) + u64::from(port / 8);
    // Two bytes are always read, so a map ends with a byte of ones (SDM vol. 1 section 19.5.2).
    if offset + 1 > u64::from(tr.limit) {
        return Err(cpu.gp0());
    }
    let map: u16 = cpu.read_system(env, tr.base.wrapping_add(offset))?;
    let wanted = ((1u16 << bytes) - 1) << (port % 8);
    if map & wanted == 0 { Ok(()) } else { Err(cpu.gp0()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::segment::Segment;
    use crate::testing::Machine;

    #[test]
    fn the_bitmap_decides_above_iopl() {
        let mut machine = Machine::protected32();
        machine.set_cpl(3);
        machine.cpu.segs[usize::from(TR)] =
            Segment { base: Machine::TSS, limit: 0x68 + 0x20, attributes: 0x8B, ..Segment::null(0x50) };
        machine.store32(Machine::TSS + 0x64, 0x68 << 16);
        // Ports 0x10–0x17 are allowed but 0x13.
        machine.store32(Machine::TSS + 0x68, 0xFF08_FFFF);
        for (port, bytes, allowed) in [
            (0x12, 1, true),
            (0x13, 1, false),
            (0x12, 2, false),
            (0x14, 4, true),
            (0x17, 1, true),
            (0x17, 2, false),
            (0x0F, 1, false),
            (0x100, 1, false),
            (0xFFFF, 1, false),
        ] {
            let result = machine.with(|cpu, env| port_out(cpu, env, port, bytes, 1));
            assert_eq!(result.is_ok(), allowed, "{port:#x} {bytes}");
        }
        machine.cpu.set_rflags(rflags::IOPL);
        machine.with(|cpu, env| port_out(cpu, env, 0x13, 1, 7)).expect("IOPL 3");
        assert_eq!(machine.bus.ports[&0x13], 7);
    }
}
