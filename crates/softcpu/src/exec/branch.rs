//! Near transfers: JMP, Jcc, LOOP, JCXZ, CALL, RET. Also BOUND.
//!
//! The op of a direct branch holds in `imm` the distance of the target, and in `disp` that of the next instruction, both
//! from the start of the block, where RIP is while a block runs.

use x86defs::vector;

use super::addr::{self, check_code_offset};
use super::form::{Kind, Place, with_condition, with_width};
use super::stack::{self, AnyStack, Stack, Stack32, Stack64, with_stack};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step, Stop, Threaded, Width, slot, threaded};

const RCX: u8 = 1;

/// How RIP moves. The decoder picks the kind.
pub trait Near {
    /// RIP at a distance from the start of the block.
    fn at(cpu: &Cpu, distance: u64) -> u64;
    /// Whether RIP may become `target`, as far as one sees without looking closer.
    fn is_inside(cpu: &Cpu, target: u64) -> bool;
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
    fn is_inside(cpu: &Cpu, target: u64) -> bool {
        // RIP is canonical, so only a long way can lead out.
        (target ^ cpu.rip) >> 40 == 0
    }
}

impl Near for Near32 {
    #[inline(always)]
    fn at(cpu: &Cpu, distance: u64) -> u64 {
        cpu.rip.wrapping_add(distance) & 0xFFFF_FFFF
    }
    #[inline(always)]
    fn is_inside(_cpu: &Cpu, _target: u64) -> bool {
        true
    }
}

impl Near for AnyNear {
    fn at(cpu: &Cpu, distance: u64) -> u64 {
        cpu.wrap(cpu.rip.wrapping_add(distance))
    }
    fn is_inside(_cpu: &Cpu, _target: u64) -> bool {
        false
    }
}

/// The target of a direct branch, if it needs no closer look.
#[inline(always)]
fn plain_target<N: Near>(cpu: &Cpu, op: &Op) -> Option<u64> {
    let target = N::at(cpu, op.imm);
    N::is_inside(cpu, target).then_some(target)
}

/// The target of a direct branch; #GP(0) if RIP may not become that.
fn target(cpu: &mut Cpu, op: &Op) -> Result<u64, Stop> {
    let target = AnyNear::at(cpu, op.imm) & addr::size_mask(op.size);
    check_code_offset(cpu, target)?;
    Ok(target)
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
            Kind::Based64 | Kind::Segmented => {
                type $N = AnyNear;
                $e
            }
        }
    };
}

fn taken(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.rip = target(cpu, op)?;
    Ok(Flow::Taken)
}

fn not_taken(cpu: &mut Cpu, op: &Op) -> Step {
    cpu.rip = AnyNear::at(cpu, op.disp as u64);
    Ok(Flow::NotTaken)
}

#[inline(always)]
fn jmp_fast<N: Near>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    cpu.rip = plain_target::<N>(cpu, op)?;
    Some(Flow::Taken)
}

fn jmp_direct(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    taken(cpu, op)
}

/// JMP rel.
pub fn jmp(kind: Kind) -> Threaded {
    with_near!(kind, N => threaded!(jmp_fast::<N>, jmp_direct))
}

/// Jcc whose target needs no closer look.
#[inline(always)]
pub(super) fn jcc_fast<N: Near, const CC: u8>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    if cpu.flags.condition(CC) {
        jmp_fast::<N>(cpu, op)
    } else {
        cpu.rip = N::at(cpu, op.disp as u64);
        Some(Flow::NotTaken)
    }
}

fn jcc_of<const CC: u8>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.flags.condition(CC) { taken(cpu, op) } else { not_taken(cpu, op) }
}

/// Jcc.
pub fn jcc(kind: Kind, condition: u8) -> Threaded {
    with_near!(kind, N => with_condition!(condition, CC => threaded!(jcc_fast::<N, CC>, jcc_of::<CC>)))
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
    let step = if take { taken(cpu, op)? } else { not_taken(cpu, op)? };
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

#[inline(always)]
fn call_fast<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, op: &Op, target: u64) -> Option<()> {
    let back = return_address::<T, N>(cpu, op);
    if !(N::is_inside(cpu, target) && stack::push_to_ram::<T, S>(cpu, back)) {
        return None;
    }
    cpu.rip = target;
    Some(())
}

/// Call with any stack in any code.
fn call_to<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, target: u64) -> Result<(), Stop> {
    check_code_offset(cpu, target)?;
    let back = return_address::<T, AnyNear>(cpu, op);
    stack::push::<T, AnyStack>(cpu, env, back)?;
    cpu.rip = target;
    Ok(())
}

#[inline(always)]
fn call_direct_fast<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    call_fast::<T, N, S>(cpu, op, N::at(cpu, op.imm))?;
    Some(Flow::Taken)
}

fn call_direct<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = target(cpu, op)?;
    call_to::<T>(cpu, env, op, target)?;
    Ok(Flow::Taken)
}

/// CALL rel.
pub fn call(size: u8, kind: Kind) -> Threaded {
    with_call!(size, kind, T, N, S => threaded!(call_direct_fast::<T, N, S>, call_direct::<T>))
}

#[inline(always)]
fn call_reg_fast<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    call_fast::<T, N, S>(cpu, op, T::get(&cpu.regs, op.src).to_u64())?;
    Some(Flow::Indirect)
}

fn call_reg<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = T::get(&cpu.regs, op.src).to_u64();
    call_to::<T>(cpu, env, op, target)?;
    Ok(Flow::Indirect)
}

fn call_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = addr::read_operand::<T>(cpu, env, op)?.to_u64();
    call_to::<T>(cpu, env, op, target)?;
    Ok(Flow::Indirect)
}

/// CALL r/m.
pub fn call_indirect(place: Place, size: u8, kind: Kind) -> Threaded {
    with_call!(size, kind, T, N, S => match place {
        Place::Register => threaded!(call_reg_fast::<T, N, S>, call_reg::<T>),
        Place::Memory(_) => threaded!(call_mem::<T>),
    })
}

fn jmp_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let target = T::get(&cpu.regs, op.src).to_u64();
    check_code_offset(cpu, target)?;
    cpu.rip = target;
    Ok(Flow::Indirect)
}

fn jmp_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = addr::read_operand::<T>(cpu, env, op)?.to_u64();
    check_code_offset(cpu, target)?;
    cpu.rip = target;
    Ok(Flow::Indirect)
}

/// JMP r/m.
pub fn jmp_indirect(place: Place, size: u8) -> Threaded {
    with_width!(size, T => match place {
        Place::Register => threaded!(jmp_reg::<T>),
        Place::Memory(_) => threaded!(jmp_mem::<T>),
    })
}

#[inline(always)]
fn ret_fast<T: Width, N: Near, S: Stack>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let target = stack::peek_in_ram::<T, S>(cpu)?.to_u64();
    if !N::is_inside(cpu, target) {
        return None;
    }
    stack::release::<S>(cpu, T::BYTES + op.imm);
    cpu.rip = target;
    Some(Flow::Indirect)
}

fn ret_near<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let target = stack::peek::<T, AnyStack>(cpu, env)?.to_u64();
    check_code_offset(cpu, target)?;
    stack::release::<AnyStack>(cpu, T::BYTES + op.imm);
    cpu.rip = target;
    Ok(Flow::Indirect)
}

/// RET, RET imm16 (bytes to release in `imm`).
pub fn ret(size: u8, kind: Kind) -> Threaded {
    with_call!(size, kind, T, N, S => threaded!(ret_fast::<T, N, S>, ret_near::<T>))
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
