//! Transcendental instructions: F2XM1, FYL2X, FYL2XP1, FPTAN, FPATAN, FSIN, FCOS, FSINCOS. SDM vol. 1 section 8.3.10.
//!
//! What they compute is rounded once, from more than 100 bits, by RC; PC does not matter. Hardware is a unit in the last place
//! away from that now and then. Here are the arguments for which there is nothing to compute, and flags; PE is always set if
//! something was computed, be it exact, as hardware does.

mod constants;
mod functions;
#[cfg(test)]
mod hardware;
mod wide;

use softfloat::{Class, Context, Exact, Format, Unpacked, X80, convert, flag, round_full};

use self::wide::Wide;
use super::arithmetic::underflow;
use super::response::INDEFINITE;
use super::state::{C1, C2};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

/// Arguments of sine and its like from this exponent on are refused: C2 is set.
const TOO_LARGE: i32 = 63;
const ONE: X80 = X80::new(0x3FFF, 1 << 63);

fn wide(value: Unpacked) -> Wide {
    Wide { negative: value.sign, exponent: value.exponent, mantissa: u128::from(value.significand) << 64 }
}

/// The final form of what was computed.
fn rounded(cx: &mut Context, value: Wide) -> X80 {
    let exact = Exact { sign: value.negative, exponent: value.exponent, significand: value.mantissa };
    let result: X80 = round_full(cx, exact);
    let tiny = result.sign_exponent & 0x7FFF == 0;
    cx.raise(if tiny { flag::PE | flag::UE } else { flag::PE });
    result
}

fn invalid(cx: &mut Context) -> X80 {
    cx.raise(flag::IE);
    INDEFINITE
}

/// The answer to what is no number or infinite: an invalid operation, or a NaN.
fn no_number(cx: &mut Context, value: Unpacked) -> X80 {
    if value.is_infinity() { invalid(cx) } else { convert(cx, value) }
}

fn is_number(value: Unpacked) -> bool {
    value.class <= Class::Infinity
}

// -- one argument

/// A function of ST(0).
pub trait Function {
    /// Whether large arguments are refused.
    const PERIODIC: bool;
    /// Compute it.
    fn apply(cx: &mut Context, x: Unpacked) -> X80;
}

/// FSIN.
pub struct Sine;
/// FCOS.
pub struct Cosine;
/// F2XM1.
pub struct Exponential;

impl Function for Sine {
    const PERIODIC: bool = true;
    fn apply(cx: &mut Context, x: Unpacked) -> X80 {
        match x.class {
            Class::Zero => X80::zero(x.sign),
            Class::Finite => {
                cx.note_denormals(&[x]);
                rounded(cx, functions::sine_and_cosine(wide(x)).0)
            }
            _ => no_number(cx, x),
        }
    }
}

impl Function for Cosine {
    const PERIODIC: bool = true;
    fn apply(cx: &mut Context, x: Unpacked) -> X80 {
        match x.class {
            Class::Zero => ONE,
            Class::Finite => {
                cx.note_denormals(&[x]);
                rounded(cx, functions::sine_and_cosine(wide(x)).1)
            }
            _ => no_number(cx, x),
        }
    }
}

impl Function for Exponential {
    const PERIODIC: bool = false;
    fn apply(cx: &mut Context, x: Unpacked) -> X80 {
        match x.class {
            Class::Zero => X80::zero(x.sign),
            Class::Finite => {
                cx.note_denormals(&[x]);
                let argument = wide(x);
                // Beyond -1 to 1 the result is undefined (SDM vol. 2 F2XM1).
                let inside = !Wide::ONE.is_smaller(argument);
                rounded(cx, if inside { functions::exp2_minus_one(argument) } else { argument })
            }
            Class::Infinity if x.sign => X80 { sign_exponent: 0xBFFF, ..ONE },
            _ => convert(cx, x),
        }
    }
}

/// Whether the argument of a periodic function is too large: C2 tells. The caller has cleared it.
fn is_refused(cpu: &mut Cpu, op: &Op) -> bool {
    let x = cpu.fpu.st(0).unpack();
    let refused = x.class == Class::Finite && x.exponent >= TOO_LARGE;
    if refused {
        cpu.note_x87(op);
        cpu.fpu.set_conditions(C1 | C2, C2);
    }
    refused
}

/// FSIN, FCOS, F2XM1.
pub fn function<F: Function>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if F::PERIODIC {
        cpu.fpu.set_conditions(C2, 0);
    }
    if cpu.fpu.is_empty(0) {
        return underflow(cpu, op, 0, false);
    }
    if F::PERIODIC && is_refused(cpu, op) {
        return Ok(Flow::Next);
    }
    let mut cx = cpu.x87_context();
    let result = F::apply(&mut cx, cpu.fpu.st(0).unpack());
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, result);
    }
    Ok(Flow::Next)
}

/// FSINCOS, FPTAN: a result replaces ST(0), then another one is pushed.
fn pushing(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    compute: impl FnOnce(&mut Context, Unpacked) -> (X80, X80),
) -> Step {
    cpu.x87_ready(env)?;
    cpu.fpu.set_conditions(C2, 0);
    if let Some(fault) = cpu.pushing_fault() {
        return cpu.two_indefinites(op, fault);
    }
    if is_refused(cpu, op) {
        return Ok(Flow::Next);
    }
    let mut cx = cpu.x87_context();
    let (replacing, pushed) = compute(&mut cx, cpu.fpu.st(0).unpack());
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(0, replacing);
        cpu.fpu.push(pushed);
    }
    Ok(Flow::Next)
}

/// FSINCOS.
pub fn fsincos(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    pushing(cpu, env, op, |cx, x| match x.class {
        Class::Zero => (X80::zero(x.sign), ONE),
        Class::Finite => {
            cx.note_denormals(&[x]);
            let (sine, cosine) = functions::sine_and_cosine(wide(x));
            (rounded(cx, sine), rounded(cx, cosine))
        }
        _ => {
            let nan = no_number(cx, x);
            (nan, nan)
        }
    })
}

/// FPTAN.
pub fn fptan(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    pushing(cpu, env, op, tangent)
}

fn tangent(cx: &mut Context, x: Unpacked) -> (X80, X80) {
    match x.class {
        Class::Zero => (X80::zero(x.sign), ONE),
        Class::Finite => {
            cx.note_denormals(&[x]);
            let (sine, cosine) = functions::sine_and_cosine(wide(x));
            (rounded(cx, sine.divide(cosine)), ONE)
        }
        _ => {
            let nan = no_number(cx, x);
            (nan, nan)
        }
    }
}

// -- two arguments

/// A function of ST(1) and ST(0).
pub trait Function2 {
    /// Compute it.
    fn apply(cx: &mut Context, y: Unpacked, x: Unpacked) -> X80;
}

/// FPATAN: the angle of (x, y).
pub struct ArcTangent;
/// FYL2X: y · log2(x).
pub struct Logarithm;
/// FYL2XP1: y · log2(x + 1).
pub struct LogarithmPlusOne;

/// FPATAN, FYL2X, FYL2XP1: pops; the result goes to the new ST(0).
pub fn function2<F: Function2>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(1) {
        return underflow(cpu, op, 1, true);
    }
    let (y, x) = (cpu.fpu.st(1).unpack(), cpu.fpu.st(0).unpack());
    let mut cx = cpu.x87_context();
    let result = if is_number(y) && is_number(x) {
        F::apply(&mut cx, y, x)
    } else {
        // The choice among NaNs is that of every other operation.
        softfloat::add(&mut cx, x, y)
    };
    if cpu.settle_x87(op, &cx) {
        cpu.fpu.set_st(1, result);
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

impl Function2 for ArcTangent {
    /// SDM vol. 2 table 3-31.
    fn apply(cx: &mut Context, y: Unpacked, x: Unpacked) -> X80 {
        cx.note_denormals(&[y, x]);
        // On the positive axis, and infinitely far out to the right.
        if y.is_zero() && !x.sign || x.is_infinity() && !x.sign && !y.is_infinity() {
            return X80::zero(y.sign);
        }
        // What is infinite is one, and all else nothing compared with it.
        let finite = |value: Unpacked, other: Unpacked| match value.class {
            Class::Infinity => Wide { negative: value.sign, ..Wide::ONE },
            Class::Finite if !other.is_infinity() => wide(value),
            _ => Wide { negative: value.sign, ..Wide::ZERO },
        };
        let (y, x) = (finite(y, x), finite(x, y));
        // Both are zero only on the negative axis: y is nothing compared with x.
        let x = if y.is_zero() { Wide { negative: true, ..Wide::ONE } } else { x };
        rounded(cx, functions::arc_tangent(y, x))
    }
}

/// y times a logarithm that is zero or infinite.
fn product(cx: &mut Context, y: Unpacked, logarithm: Unpacked) -> X80 {
    softfloat::mul(cx, Unpacked { denormal: false, ..y }, logarithm)
}

impl Function2 for Logarithm {
    /// SDM vol. 2 table 3-60.
    fn apply(cx: &mut Context, y: Unpacked, x: Unpacked) -> X80 {
        if x.sign && !x.is_zero() {
            return invalid(cx);
        }
        if x.is_zero() && y.class == Class::Finite {
            cx.raise(flag::ZE);
            return X80::infinity(!y.sign);
        }
        cx.note_denormals(&[y, x]);
        let logarithm = match x.class {
            Class::Zero => return product(cx, y, Unpacked::infinity(true)),
            Class::Infinity => return product(cx, y, Unpacked::infinity(false)),
            _ => functions::log2(wide(x)),
        };
        if logarithm.is_zero() || y.class != Class::Finite {
            let one = Unpacked { exponent: 0, ..Unpacked::finite(logarithm.negative, 63, 1) };
            return product(cx, y, if logarithm.is_zero() { Unpacked::zero(false) } else { one });
        }
        rounded(cx, wide(y) * logarithm)
    }
}

impl Function2 for LogarithmPlusOne {
    /// SDM vol. 2 table 3-61. It says nothing of arguments beyond -(1 - √½) to √2 - 1: hardware computes the function where there
    /// is one, and gives the argument back where not.
    fn apply(cx: &mut Context, y: Unpacked, x: Unpacked) -> X80 {
        if x.is_infinity() && x.sign {
            return invalid(cx);
        }
        cx.note_denormals(&[y, x]);
        // It has the sign of x, is zero where x is, and infinite where x is.
        if y.class != Class::Finite || x.class != Class::Finite {
            return product(cx, y, Unpacked { denormal: false, ..x });
        }
        let argument = wide(x);
        let exists = !x.sign || argument.is_smaller(Wide::ONE);
        rounded(cx, if exists { wide(y) * functions::log2_plus_one(argument) } else { argument })
    }
}
