//! Integer arithmetic and logic: ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT.

use super::addr::{self, Address};
use super::form::{Form, Place, with_address, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Flow, Op, Step, Threaded, Width, threaded};

/// An operation on two operands.
pub trait Binary {
    /// Whether the result goes to the first operand.
    const STORES: bool;
    /// Compute result and flags.
    fn apply<T: Width>(flags: &mut Flags, a: T, b: T) -> T;
}

/// An operation on one operand.
pub trait Unary {
    /// Compute result and flags.
    fn apply<T: Width>(flags: &mut Flags, a: T) -> T;
}

macro_rules! binary {
    ($($name:ident $stores:literal |$flags:ident, $a:ident, $b:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Binary for $name {
            const STORES: bool = $stores;
            #[inline(always)]
            fn apply<T: Width>($flags: &mut Flags, $a: T, $b: T) -> T {
                $body
            }
        }
    )*};
}

binary! {
    Add true |flags, a, b| {
        let r = a.wrapping_add(b);
        flags.add(a, b, r);
        r
    };
    Adc true |flags, a, b| {
        let r = a.wrapping_add(b).wrapping_add(T::from_u64(flags.cf().into()));
        flags.add(a, b, r);
        r
    };
    Sub true |flags, a, b| {
        let r = a.wrapping_sub(b);
        flags.sub(a, b, r);
        r
    };
    Sbb true |flags, a, b| {
        let r = a.wrapping_sub(b).wrapping_sub(T::from_u64(flags.cf().into()));
        flags.sub(a, b, r);
        r
    };
    Cmp false |flags, a, b| {
        let r = a.wrapping_sub(b);
        flags.sub(a, b, r);
        r
    };
    And true |flags, a, b| {
        flags.logic(a & b);
        a & b
    };
    Or true |flags, a, b| {
        flags.logic(a | b);
        a | b
    };
    Xor true |flags, a, b| {
        flags.logic(a ^ b);
        a ^ b
    };
    Test false |flags, a, b| {
        flags.logic(a & b);
        a & b
    };
}

macro_rules! unary {
    ($($name:ident |$flags:ident, $a:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Unary for $name {
            #[inline(always)]
            fn apply<T: Width>($flags: &mut Flags, $a: T) -> T {
                $body
            }
        }
    )*};
}

unary! {
    Inc |flags, a| {
        let r = a.wrapping_add(T::from_u64(1));
        flags.increment(a, r);
        r
    };
    Dec |flags, a| {
        let r = a.wrapping_sub(T::from_u64(1));
        flags.decrement(a, r);
        r
    };
    Neg |flags, a| {
        let zero = T::from_u64(0);
        let r = zero.wrapping_sub(a);
        flags.sub(zero, a, r);
        r
    };
    Not |_flags, a| !a;
}

#[inline(always)]
fn apply_to_reg<O: Binary, T: Width>(cpu: &mut Cpu, op: &Op, b: T) -> Flow {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a, b);
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, r);
    }
    Flow::Next
}

/// With operands for which there is nothing to look at.
#[inline(always)]
pub(super) fn reg_reg_fast<O: Binary, T: Width>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let b = T::get(&cpu.regs, op.src);
    Some(apply_to_reg::<O, T>(cpu, op, b))
}

/// Likewise.
#[inline(always)]
pub(super) fn reg_imm_fast<O: Binary, T: Width>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    Some(apply_to_reg::<O, T>(cpu, op, T::from_u64(op.imm)))
}

#[inline(always)]
fn reg_reg<O: Binary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let b = T::get(&cpu.regs, op.src);
    Ok(apply_to_reg::<O, T>(cpu, op, b))
}

#[inline(always)]
fn reg_imm<O: Binary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    Ok(apply_to_reg::<O, T>(cpu, op, T::from_u64(op.imm)))
}

/// With a memory operand, if that is an ordinary one.
#[inline(always)]
pub(super) fn reg_mem_fast<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let offset = addr::ram_to_load::<T, A>(cpu, op)?;
    let b = cpu.mem.load::<T>(offset);
    Some(apply_to_reg::<O, T>(cpu, op, b))
}

fn reg_mem<O: Binary, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = addr::read_operand::<T>(cpu, env, op)?;
    Ok(apply_to_reg::<O, T>(cpu, op, b))
}

/// The second operand of a memory destination.
#[inline(always)]
fn source<T: Width, const IMMEDIATE: bool>(cpu: &Cpu, op: &Op) -> T {
    if IMMEDIATE { T::from_u64(op.imm) } else { T::get(&cpu.regs, op.src) }
}

/// Likewise.
#[inline(always)]
pub(super) fn mem_fast<O: Binary, T: Width, A: Address, const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let b = source::<T, IMMEDIATE>(cpu, op);
    let offset = if O::STORES { addr::ram_to_store::<T, A>(cpu, op) } else { addr::ram_to_load::<T, A>(cpu, op) }?;
    let r = O::apply(&mut cpu.flags, cpu.mem.load::<T>(offset), b);
    if O::STORES {
        cpu.mem.store(offset, r);
    }
    Some(Flow::Next)
}

fn mem<O: Binary, T: Width, const IMMEDIATE: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = source::<T, IMMEDIATE>(cpu, op);
    if O::STORES {
        addr::update_operand::<T>(cpu, env, op, |flags, a| O::apply(flags, a, b))?;
        return cpu.after_store();
    }
    let a = addr::read_operand::<T>(cpu, env, op)?;
    O::apply(&mut cpu.flags, a, b);
    Ok(Flow::Next)
}

#[inline(always)]
fn unary_reg<O: Unary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a);
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

#[inline(always)]
fn unary_mem_fast<O: Unary, T: Width, A: Address>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let offset = addr::ram_to_store::<T, A>(cpu, op)?;
    let r = O::apply(&mut cpu.flags, cpu.mem.load::<T>(offset));
    cpu.mem.store(offset, r);
    Some(Flow::Next)
}

fn unary_mem<O: Unary, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    addr::update_operand::<T>(cpu, env, op, |flags, a| O::apply(flags, a))?;
    cpu.after_store()
}

/// The handler of a two-operand operation.
pub fn binary<O: Binary>(form: Form, size: u8) -> Threaded {
    with_width!(size, T => match form {
        Form::RegReg => threaded!(reg_reg::<O, T>),
        Form::RegImm => threaded!(reg_imm::<O, T>),
        Form::RegMem(kind) => with_address!(kind, A => threaded!(reg_mem_fast::<O, T, A>, reg_mem::<O, T>)),
        Form::MemReg(kind) => with_address!(kind, A => threaded!(mem_fast::<O, T, A, false>, mem::<O, T, false>)),
        Form::MemImm(kind) => with_address!(kind, A => threaded!(mem_fast::<O, T, A, true>, mem::<O, T, true>)),
    })
}

/// The handler of a one-operand operation.
pub fn unary<O: Unary>(place: Place, size: u8) -> Threaded {
    with_width!(size, T => match place {
        Place::Register => threaded!(unary_reg::<O, T>),
        Place::Memory(kind) => with_address!(kind, A => threaded!(unary_mem_fast::<O, T, A>, unary_mem::<O, T>)),
    })
}
