//! XADD, CMPXCHG, CMPXCHG8B, CMPXCHG16B. vCPUs take turns between instructions, so that every instruction is atomic.

use super::addr;
use super::alu::{Add, Binary};
use super::form::{Place, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step, Width};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const RBX: u8 = 3;

fn xadd_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (old, addend) = (T::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src));
    let sum = Add::apply(&mut cpu.flags, old, addend);
    // In this order: with the same register twice the sum stays.
    T::set(&mut cpu.regs, op.src, old);
    T::set(&mut cpu.regs, op.dst, sum);
    Ok(Flow::Next)
}

fn xadd_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let addend = T::get(&cpu.regs, op.src);
    let old = addr::update_operand::<T>(cpu, env, op, |flags, old| Add::apply(flags, old, addend))?;
    T::set(&mut cpu.regs, op.src, old);
    cpu.after_store()
}

/// XADD.
pub fn xadd(place: Place, size: u8) -> Handler {
    with_width!(size, T => match place {
        Place::Register => xadd_reg::<T> as Handler,
        Place::Memory(_) => xadd_mem::<T>,
    })
}

fn cmpxchg_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (expected, old) = (T::get(&cpu.regs, RAX), T::get(&cpu.regs, op.dst));
    cpu.flags.sub(expected, old, expected.wrapping_sub(old));
    if expected == old {
        let new = T::get(&cpu.regs, op.src);
        T::set(&mut cpu.regs, op.dst, new);
    } else {
        T::set(&mut cpu.regs, RAX, old);
    }
    Ok(Flow::Next)
}

fn cmpxchg_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let (expected, new) = (T::get(&cpu.regs, RAX), T::get(&cpu.regs, op.src));
    let old = addr::update_operand::<T>(cpu, env, op, |flags, old| {
        flags.sub(expected, old, expected.wrapping_sub(old));
        // There is always a write cycle (SDM vol. 2 CMPXCHG).
        if expected == old { new } else { old }
    })?;
    if expected != old {
        T::set(&mut cpu.regs, RAX, old);
    }
    cpu.after_store()
}

/// CMPXCHG.
pub fn cmpxchg(place: Place, size: u8) -> Handler {
    with_width!(size, T => match place {
        Place::Register => cmpxchg_reg::<T> as Handler,
        Place::Memory(_) => cmpxchg_mem::<T>,
    })
}

/// CMPXCHG8B.
pub fn cmpxchg8b(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let linear = addr::operand(cpu, op, 8, true)?;
    let old = cpu.read_for_write::<u64>(env, linear, op.seg)?;
    let pair = |cpu: &Cpu, high, low| u64::from(u32::get(&cpu.regs, high)) << 32 | u64::from(u32::get(&cpu.regs, low));
    let equal = old == pair(cpu, RDX, RAX);
    let new = if equal { pair(cpu, RCX, RBX) } else { old };
    cpu.write(env, linear, op.seg, new)?;
    cpu.flags.set_zf(equal);
    if !equal {
        u32::set(&mut cpu.regs, RAX, old as u32);
        u32::set(&mut cpu.regs, RDX, (old >> 32) as u32);
    }
    cpu.after_store()
}

/// CMPXCHG16B.
pub fn cmpxchg16b(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let linear = addr::operand(cpu, op, 16, true)?;
    if linear % 16 != 0 {
        return Err(cpu.gp0());
    }
    // Aligned, so that both halves lie in one page and the second one cannot fault after the first.
    let low = cpu.read_for_write::<u64>(env, linear, op.seg)?;
    let high = cpu.read_for_write::<u64>(env, linear + 8, op.seg)?;
    let reg = |cpu: &Cpu, slot| u64::get(&cpu.regs, slot);
    let equal = low == reg(cpu, RAX) && high == reg(cpu, RDX);
    let (new_low, new_high) = if equal { (reg(cpu, RBX), reg(cpu, RCX)) } else { (low, high) };
    cpu.write(env, linear, op.seg, new_low)?;
    cpu.write(env, linear + 8, op.seg, new_high)?;
    cpu.flags.set_zf(equal);
    if !equal {
        u64::set(&mut cpu.regs, RAX, low);
        u64::set(&mut cpu.regs, RDX, high);
    }
    cpu.after_store()
}
