//! Integer arithmetic and logic: ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT.

use super::addr::{self, Address};
use super::form::{Form, Place, with_address, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Flow, Handler, Op, Step, Width};

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

fn reg_reg<O: Binary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (a, b) = (T::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src));
    let r = O::apply(&mut cpu.flags, a, b);
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, r);
    }
    Ok(Flow::Next)
}

fn reg_imm<O: Binary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a, T::from_u64(op.imm));
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, r);
    }
    Ok(Flow::Next)
}

#[inline(always)]
fn apply_to_reg<O: Binary, T: Width>(cpu: &mut Cpu, op: &Op, b: T) -> Step {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a, b);
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, r);
    }
    Ok(Flow::Next)
}

fn reg_mem<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    match addr::ram_to_load::<T, A>(cpu, op) {
        Some(offset) => {
            let b = cpu.mem.load::<T>(offset);
            apply_to_reg::<O, T>(cpu, op, b)
        }
        None => reg_mem_slow::<O, T>(cpu, env, op),
    }
}

#[cold]
fn reg_mem_slow<O: Binary, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = addr::read_operand::<T>(cpu, env, op)?;
    apply_to_reg::<O, T>(cpu, op, b)
}

/// The second operand of a memory destination.
#[inline(always)]
fn source<T: Width, const IMMEDIATE: bool>(cpu: &Cpu, op: &Op) -> T {
    if IMMEDIATE { T::from_u64(op.imm) } else { T::get(&cpu.regs, op.src) }
}

fn mem<O: Binary, T: Width, A: Address, const IMMEDIATE: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = source::<T, IMMEDIATE>(cpu, op);
    let offset = if O::STORES { addr::ram_to_store::<T, A>(cpu, op) } else { addr::ram_to_load::<T, A>(cpu, op) };
    let Some(offset) = offset else { return mem_slow::<O, T, IMMEDIATE>(cpu, env, op) };
    let r = O::apply(&mut cpu.flags, cpu.mem.load::<T>(offset), b);
    if O::STORES {
        cpu.mem.store(offset, r);
    }
    Ok(Flow::Next)
}

#[cold]
fn mem_slow<O: Binary, T: Width, const IMMEDIATE: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = source::<T, IMMEDIATE>(cpu, op);
    if O::STORES {
        addr::update_operand::<T>(cpu, env, op, |flags, a| O::apply(flags, a, b))?;
        return cpu.after_store();
    }
    let a = addr::read_operand::<T>(cpu, env, op)?;
    O::apply(&mut cpu.flags, a, b);
    Ok(Flow::Next)
}

fn unary_reg<O: Unary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a);
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

fn unary_mem<O: Unary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let Some(offset) = addr::ram_to_store::<T, A>(cpu, op) else { return unary_mem_slow::<O, T>(cpu, env, op) };
    let r = O::apply(&mut cpu.flags, cpu.mem.load::<T>(offset));
    cpu.mem.store(offset, r);
    Ok(Flow::Next)
}

#[cold]
fn unary_mem_slow<O: Unary, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    addr::update_operand::<T>(cpu, env, op, |flags, a| O::apply(flags, a))?;
    cpu.after_store()
}

/// The handler of a two-operand operation.
pub fn binary<O: Binary>(form: Form, size: u8) -> Handler {
    with_width!(size, T => match form {
        Form::RegReg => reg_reg::<O, T> as Handler,
        Form::RegImm => reg_imm::<O, T>,
        Form::RegMem(kind) => with_address!(kind, A => reg_mem::<O, T, A>),
        Form::MemReg(kind) => with_address!(kind, A => mem::<O, T, A, false>),
        Form::MemImm(kind) => with_address!(kind, A => mem::<O, T, A, true>),
    })
}

/// The handler of a one-operand operation.
pub fn unary<O: Unary>(place: Place, size: u8) -> Handler {
    with_width!(size, T => match place {
        Place::Register => unary_reg::<O, T> as Handler,
        Place::Memory(kind) => with_address!(kind, A => unary_mem::<O, T, A>),
    })
}
