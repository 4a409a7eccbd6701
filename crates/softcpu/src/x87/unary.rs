//! Operations on ST(0), alone or with ST(1), that are not transcendental.

use softfloat::{Class, Context, Format, Quotient, Remainder, Unpacked, X80, convert, flag, from_i64};

use super::arithmetic::underflow;
use super::response::{INDEFINITE, StackFault};
use super::state::{C0, C1, C2, C3};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

/// An operation on ST(0).
pub trait Unary {
    /// Compute it.
    fn apply(cx: &mut Context, value: X80) -> X80;
}

/// FCHS.
pub struct Chs;
/// FABS.
pub struct Abs;
/// FSQRT.
pub struct Sqrt;
/// FRNDINT.
pub struct RoundInteger;

const SIGN: u16 = 0x8000;

impl Unary for Chs {
    fn apply(_cx: &mut Context, value: X80) -> X80 {
        X80 { sign_exponent: value.sign_exponent ^ SIGN, ..value }
    }
}

impl Unary for Abs {
    fn apply(_cx: &mut Context, value: X80) -> X80 {
        X80 { sign_exponent: value.sign_exponent & !SIGN, ..value }
    }
}

impl Unary for Sqrt {
    fn apply(cx: &mut Context, value: X80) -> X80 {
        softfloat::sqrt(cx, value.unpack())
    }
}

impl Unary for RoundInteger {
    fn apply(cx: &mut Context, value: X80) -> X80 {
        let rounding = cx.rounding;
        let value = value.unpack();
        cx.note_denormals(&[value]);
        softfloat::round_to_integral(cx, value, rounding)
    }
}

/// One of them.
pub fn unary<U: Unary>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) {
        return underflow(cpu, op, 0, false);
    }
    let mut cx = cpu.x87_context();
    let result = U::apply(&mut cx, cpu.fpu.st(0));
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, result);
    }
    Ok(Flow::Next)
}

/// FSCALE: ST(0) times two to the power of ST(1), truncated.
pub fn fscale(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        return underflow(cpu, op, 0, false);
    }
    let mut cx = cpu.x87_context();
    let result = scaled(&mut cx, cpu.fpu.st(0).unpack(), cpu.fpu.st(1).unpack());
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, result);
    }
    Ok(Flow::Next)
}

fn scaled(cx: &mut Context, value: Unpacked, power: Unpacked) -> X80 {
    let is_number = |operand: Unpacked| operand.class <= Class::Infinity;
    if !is_number(value) || !is_number(power) {
        // The choice among NaNs is that of every other operation.
        return softfloat::add(cx, value, power);
    }
    cx.note_denormals(&[value, power]);
    let value = Unpacked { denormal: false, ..value };
    if !power.is_infinity() {
        let integer = softfloat::to_integer(&mut Context::from_fcw(0x37F), power, softfloat::Rounding::Zero);
        // What has no place in 32 bits overflows or underflows whatever the value.
        let limit = if power.sign { i32::MIN } else { i32::MAX };
        let power = if integer == i32::MIN { limit } else { integer };
        return softfloat::scale(cx, value, power);
    }
    match (power.sign, value.class) {
        (false, Class::Zero) | (true, Class::Infinity) => {
            cx.flags = flag::IE;
            INDEFINITE
        }
        (false, _) => X80::infinity(value.sign),
        (true, _) => X80::zero(value.sign),
    }
}

/// FXTRACT: the exponent replaces ST(0), then the significand is pushed.
pub fn fxtract(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if let Some(fault) = cpu.pushing_fault() {
        return cpu.two_indefinites(op, fault);
    }
    let mut cx = cpu.x87_context();
    let (exponent, significand) = extracted(&mut cx, cpu.fpu.st(0).unpack());
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, exponent);
        cpu.fpu.push(significand);
    }
    Ok(Flow::Next)
}

fn extracted(cx: &mut Context, value: Unpacked) -> (X80, X80) {
    match value.class {
        Class::Zero => {
            cx.raise(flag::ZE);
            (X80::infinity(true), X80::zero(value.sign))
        }
        Class::Finite => {
            cx.note_denormals(&[value]);
            let significand = Unpacked { exponent: 0, denormal: false, ..value };
            (convert(cx, from_i64(value.exponent.into())), convert(cx, significand))
        }
        Class::Infinity => (X80::infinity(false), X80::infinity(value.sign)),
        _ => {
            let nan = convert(cx, value);
            (nan, nan)
        }
    }
}

impl Cpu {
    /// What is wrong with the stack for an instruction that replaces ST(0) and then pushes.
    pub(super) fn pushing_fault(&self) -> Option<StackFault> {
        if self.fpu.is_empty(0) {
            Some(StackFault::Underflow)
        } else if self.fpu.is_full() {
            Some(StackFault::Overflow)
        } else {
            None
        }
    }

    /// The answer to that.
    #[cold]
    pub(super) fn two_indefinites(&mut self, op: &Op, fault: StackFault) -> Step {
        if self.x87_stack_fault(op, fault) {
            self.fpu.fill(0, INDEFINITE);
            self.fpu.push(INDEFINITE);
        }
        Ok(Flow::Next)
    }
}

/// FPREM, and FPREM1 (`NEAREST`).
pub fn fprem<const NEAREST: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    cpu.fpu.set_conditions(C2, 0);
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        return underflow(cpu, op, 0, false);
    }
    let mut cx = cpu.x87_context();
    let kind = if NEAREST { Remainder::Nearest } else { Remainder::Truncating };
    let (result, quotient) = softfloat::remainder(&mut cx, cpu.fpu.st(0).unpack(), cpu.fpu.st(1).unpack(), kind);
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, result);
        // Without a quotient C0 and C3 stay.
        if !result.unpack().is_nan() {
            cpu.fpu.set_conditions(C0 | C1 | C2 | C3, quotient_bits(quotient));
        }
    }
    Ok(Flow::Next)
}

/// The three low bits of the quotient, or that there is more to do.
fn quotient_bits(quotient: Quotient) -> u16 {
    match quotient {
        Quotient::Partial => C2,
        Quotient::Complete(quotient) => [(4, C0), (2, C3), (1, C1)]
            .into_iter()
            .filter(|&(bit, _)| quotient & bit != 0)
            .fold(0, |codes, (_, code)| codes | code),
    }
}
