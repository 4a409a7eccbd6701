//! Moves: MOV, MOVZX, MOVSX, MOVSXD, LEA, XCHG, BSWAP, MOVBE, CMOVcc, SETcc, XLAT, CBW and its kin, CWD and its kin.

use super::addr::{self, Address};
use super::form::{Form, Place, with_address, with_condition, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step, Threaded, Width, slot, threaded};

const RAX: u8 = 0;
const RDX: u8 = 2;

#[inline(always)]
fn mov_reg_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = T::get(&cpu.regs, op.src);
    T::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_reg_imm<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    T::set(&mut cpu.regs, op.dst, T::from_u64(op.imm));
    Ok(Flow::Next)
}

#[inline(always)]
fn mov_reg_mem_fast<T: Width, A: Address>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let offset = addr::ram_to_load::<T, A>(cpu, op)?;
    let value = cpu.mem.load::<T>(offset);
    T::set(&mut cpu.regs, op.dst, value);
    Some(Flow::Next)
}

fn mov_reg_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = addr::read_operand::<T>(cpu, env, op)?;
    T::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

#[inline(always)]
fn source<T: Width, const IMMEDIATE: bool>(cpu: &Cpu, op: &Op) -> T {
    if IMMEDIATE { T::from_u64(op.imm) } else { T::get(&cpu.regs, op.src) }
}

#[inline(always)]
fn mov_mem_fast<T: Width, A: Address, const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let offset = addr::ram_to_store::<T, A>(cpu, op)?;
    cpu.mem.store(offset, source::<T, IMMEDIATE>(cpu, op));
    Some(Flow::Next)
}

fn mov_mem<T: Width, const IMMEDIATE: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = source::<T, IMMEDIATE>(cpu, op);
    addr::write_operand(cpu, env, op, value)?;
    cpu.after_store()
}

/// MOV.
pub fn mov(form: Form, size: u8) -> Threaded {
    with_width!(size, T => match form {
        Form::RegReg => threaded!(mov_reg_reg::<T>),
        Form::RegImm => threaded!(mov_reg_imm::<T>),
        Form::RegMem(kind) => with_address!(kind, A => threaded!(mov_reg_mem_fast::<T, A>, mov_reg_mem::<T>)),
        Form::MemReg(kind) => with_address!(kind, A => threaded!(mov_mem_fast::<T, A, false>, mov_mem::<T, false>)),
        Form::MemImm(kind) => with_address!(kind, A => threaded!(mov_mem_fast::<T, A, true>, mov_mem::<T, true>)),
    })
}

#[inline(always)]
fn extended<S: Width, const SIGNED: bool>(value: S) -> u64 {
    if SIGNED { value.sign_extend() } else { value.to_u64() }
}

#[inline(always)]
fn extend_reg<S: Width, T: Width, const SIGNED: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = extended::<S, SIGNED>(S::get(&cpu.regs, op.src));
    T::set(&mut cpu.regs, op.dst, T::from_u64(value));
    Ok(Flow::Next)
}

#[inline(always)]
fn extend_mem_fast<S: Width, T: Width, A: Address, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let offset = addr::ram_to_load::<S, A>(cpu, op)?;
    let value = extended::<S, SIGNED>(cpu.mem.load::<S>(offset));
    T::set(&mut cpu.regs, op.dst, T::from_u64(value));
    Some(Flow::Next)
}

fn extend_mem<S: Width, T: Width, const SIGNED: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = extended::<S, SIGNED>(addr::read_operand::<S>(cpu, env, op)?);
    T::set(&mut cpu.regs, op.dst, T::from_u64(value));
    Ok(Flow::Next)
}

/// MOVSX and MOVSXD (`SIGNED`), MOVZX: from a source of `from` bytes to a register of `to` bytes.
pub fn extend<const SIGNED: bool>(source: Place, from: u8, to: u8) -> Threaded {
    with_width!(from, S => with_width!(to, T => match source {
        Place::Register => threaded!(extend_reg::<S, T, SIGNED>),
        Place::Memory(kind) => with_address!(kind, A => threaded!(extend_mem_fast::<S, T, A, SIGNED>, extend_mem::<S, T, SIGNED>)),
    }))
}

#[inline(always)]
fn lea_wide<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let offset = addr::sum(cpu, op);
    T::set(&mut cpu.regs, op.dst, T::from_u64(offset));
    Ok(Flow::Next)
}

fn lea_masked<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let offset = addr::effective(cpu, op);
    T::set(&mut cpu.regs, op.dst, T::from_u64(offset));
    Ok(Flow::Next)
}

/// LEA.
pub fn lea(size: u8, address: u8) -> Threaded {
    // Truncation to the operand does what the address size asks, unless that is narrower.
    with_width!(size, T => if address >= size { threaded!(lea_wide::<T>) } else { threaded!(lea_masked::<T>) })
}

fn xchg_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (a, b) = (T::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src));
    T::set(&mut cpu.regs, op.dst, b);
    T::set(&mut cpu.regs, op.src, a);
    Ok(Flow::Next)
}

fn xchg_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let new = T::get(&cpu.regs, op.src);
    let old = addr::update_operand::<T>(cpu, env, op, |_, _| new)?;
    T::set(&mut cpu.regs, op.src, old);
    cpu.after_store()
}

/// XCHG.
pub fn xchg(place: Place, size: u8) -> Handler {
    with_width!(size, T => match place {
        Place::Register => xchg_reg::<T> as Handler,
        Place::Memory(_) => xchg_mem::<T>,
    })
}

/// BSWAP r16 is undefined; silicon clears the low half, as if the register were read as zero-extended 32 bits and only the
/// top 16 of the swapped bits (zeros) were kept.
fn bswap16(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    u16::set(&mut cpu.regs, op.dst, 0);
    Ok(Flow::Next)
}

fn bswap32(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = u32::get(&cpu.regs, op.dst).swap_bytes();
    u32::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

fn bswap64(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let register = &mut cpu.regs[slot(op.dst)];
    *register = register.swap_bytes();
    Ok(Flow::Next)
}

/// BSWAP.
pub fn bswap(size: u8) -> Handler {
    match size {
        2 => bswap16,
        4 => bswap32,
        _ => bswap64,
    }
}

#[inline(always)]
fn swapped<T: Width>(value: T) -> T {
    T::from_u64(value.to_u64().swap_bytes() >> (64 - T::BITS))
}

fn movbe_load<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = addr::read_operand::<T>(cpu, env, op)?;
    T::set(&mut cpu.regs, op.dst, swapped(value));
    Ok(Flow::Next)
}

fn movbe_store<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = swapped(T::get(&cpu.regs, op.src));
    addr::write_operand(cpu, env, op, value)?;
    cpu.after_store()
}

/// MOVBE, which has a memory operand on one side.
pub fn movbe(loads: bool, size: u8) -> Handler {
    with_width!(size, T => if loads { movbe_load::<T> as Handler } else { movbe_store::<T> })
}

#[inline(always)]
fn cmov_reg<T: Width, const CC: u8>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let from = if cpu.flags.condition(CC) { op.src } else { op.dst };
    // The destination is written in any case: a 32-bit one loses its upper half.
    let value = T::get(&cpu.regs, from);
    T::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

fn cmov_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let loaded = addr::read_operand::<T>(cpu, env, op)?;
    let value = if cpu.flags.condition(op.extra) { loaded } else { T::get(&cpu.regs, op.dst) };
    T::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

/// CMOVcc; the condition is also in `extra`.
pub fn cmov(source: Place, size: u8, condition: u8) -> Threaded {
    with_width!(size, T => match source {
        Place::Register => with_condition!(condition, CC => threaded!(cmov_reg::<T, CC>)),
        Place::Memory(_) => threaded!(cmov_mem::<T>),
    })
}

#[inline(always)]
fn set_reg<const CC: u8>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = u8::from(cpu.flags.condition(CC));
    u8::set(&mut cpu.regs, op.dst, value);
    Ok(Flow::Next)
}

fn set_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = u8::from(cpu.flags.condition(op.extra));
    addr::write_operand(cpu, env, op, value)?;
    cpu.after_store()
}

/// SETcc; the condition is also in `extra`.
pub fn set(place: Place, condition: u8) -> Threaded {
    match place {
        Place::Register => with_condition!(condition, CC => threaded!(set_reg::<CC>)),
        Place::Memory(_) => threaded!(set_mem),
    }
}

/// XLAT: the table is at `base` in `seg`, AL is the index.
pub fn xlat(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let index = u64::from(u8::get(&cpu.regs, RAX));
    let offset = cpu.regs[slot(op.base)].wrapping_add(index) & addr::size_mask(op.address);
    let linear = addr::linear(cpu, op.seg, offset, 1, false)?;
    let value = cpu.read::<u8>(env, linear, op.seg)?;
    u8::set(&mut cpu.regs, RAX, value);
    Ok(Flow::Next)
}

fn widen<S: Width, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let value = S::get(&cpu.regs, RAX).sign_extend();
    T::set(&mut cpu.regs, RAX, T::from_u64(value));
    Ok(Flow::Next)
}

/// CBW, CWDE, CDQE, by the size of the result.
pub fn cbw(size: u8) -> Threaded {
    match size {
        2 => threaded!(widen::<u8, u16>),
        4 => threaded!(widen::<u16, u32>),
        _ => threaded!(widen::<u32, u64>),
    }
}

fn spread_sign<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let sign = (T::get(&cpu.regs, RAX).sign_extend() as i64 >> 63) as u64;
    T::set(&mut cpu.regs, RDX, T::from_u64(sign));
    Ok(Flow::Next)
}

/// CWD, CDQ, CQO, by the size of the operand.
pub fn cwd(size: u8) -> Threaded {
    with_width!(size, T => threaded!(spread_sign::<T>))
}
