//! Integer arithmetic and logic: ADD, OR, ADC, SBB, AND, SUB, XOR, CMP, TEST, INC, DEC, NEG, NOT.

use super::addr::Address;
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
        let (cf, one) = (flags.cf(), T::from_u64(1));
        let r = a.wrapping_add(one);
        flags.add(a, one, r);
        flags.set_cf(cf);
        r
    };
    Dec |flags, a| {
        let (cf, one) = (flags.cf(), T::from_u64(1));
        let r = a.wrapping_sub(one);
        flags.sub(a, one, r);
        flags.set_cf(cf);
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

fn reg_mem<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let linear = A::linear(cpu, op, T::BYTES, false)?;
    let b = cpu.read::<T>(env, linear, op.seg)?;
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a, b);
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, r);
    }
    Ok(Flow::Next)
}

fn mem_reg<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = T::get(&cpu.regs, op.src);
    mem::<O, T, A>(cpu, env, op, b)
}

fn mem_imm<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    mem::<O, T, A>(cpu, env, op, T::from_u64(op.imm))
}

#[inline(always)]
fn mem<O: Binary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, b: T) -> Step {
    let linear = A::linear(cpu, op, T::BYTES, O::STORES)?;
    if !O::STORES {
        let a = cpu.read::<T>(env, linear, op.seg)?;
        O::apply(&mut cpu.flags, a, b);
        return Ok(Flow::Next);
    }
    let a = cpu.read_for_write::<T>(env, linear, op.seg)?;
    let mut flags = cpu.flags;
    let r = O::apply(&mut flags, a, b);
    cpu.write(env, linear, op.seg, r)?;
    cpu.flags = flags;
    cpu.after_store()
}

fn unary_reg<O: Unary, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let a = T::get(&cpu.regs, op.dst);
    let r = O::apply(&mut cpu.flags, a);
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

fn unary_mem<O: Unary, T: Width, A: Address>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let linear = A::linear(cpu, op, T::BYTES, true)?;
    let a = cpu.read_for_write::<T>(env, linear, op.seg)?;
    let mut flags = cpu.flags;
    let r = O::apply(&mut flags, a);
    cpu.write(env, linear, op.seg, r)?;
    cpu.flags = flags;
    cpu.after_store()
}

/// The handler of a two-operand operation.
pub fn binary<O: Binary>(form: Form, size: u8) -> Handler {
    with_width!(size, T => match form {
        Form::RegReg => reg_reg::<O, T> as Handler,
        Form::RegImm => reg_imm::<O, T>,
        Form::RegMem(kind) => with_address!(kind, A => reg_mem::<O, T, A>),
        Form::MemReg(kind) => with_address!(kind, A => mem_reg::<O, T, A>),
        Form::MemImm(kind) => with_address!(kind, A => mem_imm::<O, T, A>),
    })
}

/// The handler of a one-operand operation.
pub fn unary<O: Unary>(place: Place, size: u8) -> Handler {
    with_width!(size, T => match place {
        Place::Register => unary_reg::<O, T> as Handler,
        Place::Memory(kind) => with_address!(kind, A => unary_mem::<O, T, A>),
    })
}
