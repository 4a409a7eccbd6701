//! Near transfers: JMP, Jcc, LOOP, JCXZ, CALL, RET. Also BOUND.
//!
//! The op of a direct branch holds in `imm` the distance of the target, and in `disp` that of the next instruction, both
//! from the start of the block, where RIP is while a block runs.

use x86defs::vector;

use super::addr::{self, check_code_offset};
use super::form::{Kind, Place, with_condition};
use super::stack::{self, AnyStack, Stack, Stack32, Stack64, with_stack};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step, Stop, Width, slot};

const RCX: u8 = 1;

/// How RIP moves. The decoder picks the kind.
pub trait Near {
    /// RIP at a distance from the start of the block.
    fn at(cpu: &Cpu, distance: u64) -> u64;
    /// Whether RIP may become `target`; #GP(0) if not.
    fn check(cpu: &mut Cpu, target: u64) -> Result<(), Stop>;
    /// The target of a direct branch.
    #[inline(always)]
    fn target(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        let target = Self::at(cpu, op.imm);
        Self::check(cpu, target)?;
        Ok(target)
    }
}

/// 64-bit mode.
pub struct Near64;
/// 32-bit operands in a flat code segment.
pub struct Near32;
/// Everything else: operand size and limit count.
pub struct AnyNear;

impl Near for Near64 {
    #[inline(always)]
    fn at(cpu: &Cpu, distance: u64) -> u64 {
        cpu.rip.wrapping_add(distance)
    }
    #[inline(always)]
    fn check(cpu: &mut Cpu, target: u64) -> Result<(), Stop> {
        // RIP is canonical, so only a long way can lead out.
        if (target ^ cpu.rip) >> 40 != 0 { check_code_offset(cpu, target) } else { Ok(()) }
    }
}

impl Near for Near32 {
    #[inline(always)]
    fn at(cpu: &Cpu, distance: u64) -> u64 {
        cpu.rip.wrapping_add(distance) & 0xFFFF_FFFF
    }
    #[inline(always)]
    fn check(_cpu: &mut Cpu, _target: u64) -> Result<(), Stop> {
        Ok(())
    }
}

impl Near for AnyNear {
    fn at(cpu: &Cpu, distance: u64) -> u64 {
        cpu.wrap(cpu.rip.wrapping_add(distance))
    }
    fn check(cpu: &mut Cpu, target: u64) -> Result<(), Stop> {
        check_code_offset(cpu, target)
    }
    fn target(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
        let target = Self::at(cpu, op.imm) & addr::size_mask(op.size);
        Self::check(cpu, target)?;
        Ok(target)
    }
}

macro_rules! with_near {
    ($kind:expr, $N:ident => $e:expr) => {
        match $kind {
            Kind::Flat64 => {
                type $N = Near64;
                $e
            }
            Kind::Flat32 => {
                type $N = Near32;
                $e
            }
            Kind::Segmented => {
                type $N = AnyNear;
                $e
            }
        }
    };
}

#[inline(always)]
fn taken<N: Near>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.rip = N::target(cpu, op)?;
    Ok(Flow::Taken)
}

#[inline(always)]
fn not_taken<N: Near>(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.rip = N::at(cpu, op.disp as u64);
    Ok(Flow::NotTaken)
}

fn jmp_direct<N: Near>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    taken::<N>(cpu, op)
}

/// JMP rel.
pub fn jmp(kind: Kind) -> Handler {
    with_near!(kind, N => jmp_direct::<N>)
}

fn jcc_of<N: Near, const CC: u8>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.flags.condition(CC) { taken::<N>(cpu, op) } else { not_taken::<N>(cpu, op) }
}

/// Jcc.
pub fn jcc(kind: Kind, condition: u8) -> Handler {
    with_near!(kind, N => with_condition!(condition, CC => jcc_of::<N, CC> as Handler))
}

/// What LOOP and its kin look at besides the counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Loop {
    /// LOOP.
    Always,
    /// LOOPE.
    WhileZero,
    /// LOOPNE.
    WhileNotZero,
    /// JCXZ: the counter is not decremented, and must be zero.
    CounterZero,
}

fn loop_of<const KIND: u8>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let decrement = u64::from(KIND != Loop::CounterZero as u8);
    let count = cpu.regs[usize::from(RCX)].wrapping_sub(decrement) & addr::size_mask(op.address);
    let zero = cpu.flags.zf();
    let take = match KIND {
        k if k == Loop::CounterZero as u8 => count == 0,
        k if k == Loop::WhileZero as u8 => count != 0 && zero,
        k if k == Loop::WhileNotZero as u8 => count != 0 && !zero,
        _ => count != 0,
    };
    // A target outside the code segment faults before the counter changes.
    let step = if take { taken::<AnyNear>(cpu, op)? } else { not_taken::<AnyNear>(cpu, op)? };
    if decrement != 0 {
        match op.address {
            2 => u16::set(&mut cpu.regs, RCX, count as u16),
            4 => u32::set(&mut cpu.regs, RCX, count as u32),
            _ => cpu.regs[usize::from(RCX)] = count,
        }
    }
    Ok(step)
}

/// LOOP, LOOPE, LOOPNE, JCXZ; the counter has the address size.
pub fn loop_while(what: Loop) -> Handler {
    match what {
        Loop::Always => loop_of::<{ Loop::Always as u8 }>,
        Loop::WhileZero => loop_of::<{ Loop::WhileZero as u8 }>,
        Loop::WhileNotZero => loop_of::<{ Loop::WhileNotZero as u8 }>,
        Loop::CounterZero => loop_of::<{ Loop::CounterZero as u8 }>,
    }
}

/// Compile an expression for an operand size, a kind of stack and the kind of code that goes with it. Flat ones are only
/// used with the mode's own operand size.
macro_rules! with_call {
    ($size:expr, $kind:expr, $T:ident, $N:ident, $S:ident => $e:expr) => {
        match ($kind, $size) {
            (Kind::Flat64, 8) => {
                type $T = u64;
                type $N = Near64;
                type $S = Stack64;
                $e
            }
            (Kind::Flat32, 4) => {
                type $T = u32;
                type $N = Near32;
                type $S = Stack32;
                $e
            }
            _ => {
                type $N = AnyNear;
                with_stack!($size, Kind::Segmented, $T, $S => $e)
            }
        }
    };
}

/// The return address of a call.
#[inline(always)]
fn return_address<T: Width, N: Near>(cpu: &Cpu, op: &Op) -> T {
    T::from_u64(N::at(cpu, u64::from(op.at) + u64::from(op.len)))
}

fn call_direct<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = N::target(cpu, op)?;
    let back = return_address::<T, N>(cpu, op);
    if !stack::push_to_ram::<T, S>(cpu, back) {
        return call_direct_slow::<T>(cpu, env, op);
    }
    cpu.rip = target;
    Ok(Flow::Taken)
}

#[cold]
fn call_direct_slow<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = AnyNear::target(cpu, op)?;
    let back = return_address::<T, AnyNear>(cpu, op);
    stack::push::<T, AnyStack>(cpu, env, back)?;
    cpu.rip = target;
    Ok(Flow::Taken)
}

/// CALL rel.
pub fn call(size: u8, kind: Kind) -> Handler {
    with_call!(size, kind, T, N, S => call_direct::<T, N, S> as Handler)
}

fn call_reg<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = T::get(&cpu.regs, op.src).to_u64();
    N::check(cpu, target)?;
    let back = return_address::<T, N>(cpu, op);
    if !stack::push_to_ram::<T, S>(cpu, back) {
        return call_reg_slow::<T>(cpu, env, op);
    }
    cpu.rip = target;
    Ok(Flow::Indirect)
}

#[cold]
fn call_to<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, target: u64) -> Step {
    check_code_offset(cpu, target)?;
    let back = return_address::<T, AnyNear>(cpu, op);
    stack::push::<T, AnyStack>(cpu, env, back)?;
    cpu.rip = target;
    Ok(Flow::Indirect)
}

#[cold]
fn call_reg_slow<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = T::get(&cpu.regs, op.src).to_u64();
    call_to::<T>(cpu, env, op, target)
}

fn call_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = addr::read_operand::<T>(cpu, env, op)?.to_u64();
    call_to::<T>(cpu, env, op, target)
}

/// CALL r/m.
pub fn call_indirect(place: Place, size: u8, kind: Kind) -> Handler {
    with_call!(size, kind, T, N, S => match place {
        Place::Register => call_reg::<T, N, S> as Handler,
        Place::Memory(_) => call_mem::<T>,
    })
}

fn jmp_reg<T: Width, N: Near>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let target = T::get(&cpu.regs, op.src).to_u64();
    N::check(cpu, target)?;
    cpu.rip = target;
    Ok(Flow::Indirect)
}

fn jmp_mem<T: Width, N: Near>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = addr::read_operand::<T>(cpu, env, op)?.to_u64();
    N::check(cpu, target)?;
    cpu.rip = target;
    Ok(Flow::Indirect)
}

/// JMP r/m.
pub fn jmp_indirect(place: Place, size: u8, kind: Kind) -> Handler {
    with_near!(kind, N => match (place, size) {
        (Place::Register, 2) => jmp_reg::<u16, N> as Handler,
        (Place::Register, 4) => jmp_reg::<u32, N>,
        (Place::Register, _) => jmp_reg::<u64, N>,
        (Place::Memory(_), 2) => jmp_mem::<u16, N>,
        (Place::Memory(_), 4) => jmp_mem::<u32, N>,
        (Place::Memory(_), _) => jmp_mem::<u64, N>,
    })
}

#[inline(always)]
fn return_to<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, op: &Op, target: u64) -> Step {
    N::check(cpu, target)?;
    stack::release::<S>(cpu, T::BYTES + op.imm);
    cpu.rip = target;
    Ok(Flow::Indirect)
}

fn ret_near<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    match stack::peek_in_ram::<T, S>(cpu) {
        Some(target) => return_to::<T, N, S>(cpu, op, target.to_u64()),
        None => ret_near_slow::<T>(cpu, env, op),
    }
}

#[cold]
fn ret_near_slow<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = stack::peek::<T, AnyStack>(cpu, env)?.to_u64();
    return_to::<T, AnyNear, AnyStack>(cpu, op, target)
}

/// RET, RET imm16 (bytes to release in `imm`).
pub fn ret(size: u8, kind: Kind) -> Handler {
    with_call!(size, kind, T, N, S => ret_near::<T, N, S> as Handler)
}

/// BOUND: two signed bounds in memory.
pub fn bound(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let bytes = u64::from(op.size);
    let index = cpu.regs[slot(op.dst)];
    let ok = if op.size == 2 {
        let (low, high) = (addr::read_operand::<u16>(cpu, env, op)?, addr::read_part::<u16>(cpu, env, op, bytes)?);
        (low as i16..=high as i16).contains(&(index as i16))
    } else {
        let (low, high) = (addr::read_operand::<u32>(cpu, env, op)?, addr::read_part::<u32>(cpu, env, op, bytes)?);
        (low as i32..=high as i32).contains(&(index as i32))
    };
    if ok { Ok(Flow::Next) } else { Err(cpu.raise(vector::BR)) }
}
