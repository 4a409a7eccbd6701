//! INT n, INT3, INTO, INT1.

use x86defs::{cr, rflags, vector};

use super::next_rip;
use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::exception::Delivery;
use crate::op::{Flow, Op, Step, Stop};
use crate::system;

/// The vector by which a kernel calls a host without virtualization, which owns the IDT's entry; for user code it is an
/// interrupt like any other (Linux 4.0 include/linux/lguest_launcher.h, `LGUEST_TRAP_ENTRY`).
const LGUEST_CALL: u8 = 0x1F;

/// INT n.
pub fn int_n(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let number = op.imm as u8;
    if number == LGUEST_CALL && cpu.host == HostVendor::Lguest && cpu.cpl == 0 {
        return system::hypercall(cpu, env);
    }
    if cpu.system_flags & rflags::VM != 0 {
        let iopl3 = cpu.system_flags & rflags::IOPL == rflags::IOPL;
        if cpu.cr4 & cr::CR4_VME != 0 && !redirected(cpu, env, number)? {
            let return_rip = next_rip(cpu, op);
            cpu.deliver_within_virtual_8086(env, number, return_rip)?;
            cpu.debug.stepping = false;
            return Ok(Flow::Indirect);
        }
        if !iopl3 {
            return Err(cpu.gp0());
        }
    }
    software_interrupt(cpu, env, op, number)
}

/// INT3.
pub fn int3(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    software_interrupt(cpu, env, op, vector::BP)
}

/// INTO.
pub fn into(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.flags.of() { software_interrupt(cpu, env, op, vector::OF) } else { Ok(Flow::Sync) }
}

/// INT1 (ICEBP): a #DB that checks no gate's DPL. In DR6 it reports only what MOV SS has held off.
pub fn int1(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let delivery = Delivery { ext: true, ..Delivery::trap(vector::DB, next_rip(cpu, op)) };
    let held = std::mem::take(&mut cpu.debug.pending);
    let flow = deliver(cpu, env, &delivery);
    match flow {
        Ok(_) => cpu.debug.record(held),
        Err(_) => cpu.debug.pending = held,
    }
    flow
}

fn software_interrupt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, number: u8) -> Step {
    let delivery = Delivery { software: true, ..Delivery::trap(number, next_rip(cpu, op)) };
    deliver(cpu, env, &delivery)
}

fn deliver(cpu: &mut Cpu, env: &mut Env<'_>, delivery: &Delivery) -> Step {
    cpu.deliver_once(env, delivery)?;
    // The handler is not stepped into (SDM vol. 3 section 18.3.1.4).
    cpu.debug.stepping = false;
    Ok(Flow::Indirect)
}

/// Whether INT n in virtual-8086 mode with CR4.VME goes to the IDT: its bit in the TSS's redirection map, which lies below the
/// I/O map (SDM vol. 3 section 20.3.3).
fn redirected(cpu: &mut Cpu, env: &mut Env<'_>, number: u8) -> Result<bool, Stop> {
    const IO_MAP_BASE: u64 = 102;
    let map = cpu.read_tss(env, IO_MAP_BASE, 2, false)?;
    let Some(offset) = (map + u64::from(number / 8)).checked_sub(32) else { return Ok(true) };
    let tr = *cpu.seg(crate::segment::TR);
    if offset > u64::from(tr.limit) {
        return Err(cpu.gp0());
    }
    let byte: u8 = cpu.read_system(env, tr.base.wrapping_add(offset))?;
    Ok(byte >> (number % 8) & 1 != 0)
}
