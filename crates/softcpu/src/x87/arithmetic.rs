//! Addition, subtraction, multiplication, division.

use softfloat::{Context, Format, Unpacked, X80};

use super::memory::Memory;
use super::response::{INDEFINITE, StackFault};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

/// An operation on destination and source.
pub trait Operator {
    /// Compute it.
    fn apply(cx: &mut Context, destination: Unpacked, source: Unpacked) -> X80;
}

macro_rules! operators {
    ($($name:ident |$cx:ident, $d:ident, $s:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Operator for $name {
            #[inline]
            fn apply($cx: &mut Context, $d: Unpacked, $s: Unpacked) -> X80 {
                $body
            }
        }
    )*};
}

operators! {
    Add |cx, d, s| softfloat::add(cx, d, s);
    Mul |cx, d, s| softfloat::mul(cx, d, s);
    Sub |cx, d, s| softfloat::sub(cx, d, s);
    SubReversed |cx, d, s| softfloat::sub(cx, s, d);
    Div |cx, d, s| softfloat::div(cx, d, s);
    DivReversed |cx, d, s| softfloat::div(cx, s, d);
}

#[inline]
fn operate<O: Operator, const POP: bool>(cpu: &mut Cpu, op: &Op, destination: u8, source: Unpacked) -> Step {
    let mut cx = cpu.x87_context();
    let result = O::apply(&mut cx, cpu.fpu.st(destination).unpack(), source);
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(destination, result);
        if POP {
            cpu.fpu.pop();
        }
    }
    Ok(Flow::Next)
}

/// An operand is an empty register.
#[cold]
pub fn underflow(cpu: &mut Cpu, op: &Op, destination: u8, pop: bool) -> Step {
    if cpu.x87_stack_fault(op, StackFault::Underflow) {
        cpu.fpu.fill(destination, INDEFINITE);
        if pop {
            cpu.fpu.pop();
        }
    }
    Ok(Flow::Next)
}

/// ST(0) and a memory operand.
pub fn with_memory<O: Operator, M: Memory>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let source = M::read(cpu, env, op)?;
    cpu.note_x87_operand(op);
    if cpu.fpu.is_empty(0) {
        return underflow(cpu, op, 0, false);
    }
    operate::<O, false>(cpu, op, 0, source.unpack())
}

/// ST(0) := ST(0) with ST(i).
pub fn with_register<O: Operator>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src) {
        return underflow(cpu, op, 0, false);
    }
    let source = cpu.fpu.st(op.src).unpack();
    operate::<O, false>(cpu, op, 0, source)
}

/// ST(i) := ST(i) with ST(0).
pub fn with_st0<O: Operator, const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src) {
        return underflow(cpu, op, op.src, POP);
    }
    let source = cpu.fpu.st(0).unpack();
    operate::<O, POP>(cpu, op, op.src, source)
}
