//! The register stack.

use softfloat::X80;

use super::response::{INDEFINITE, StackFault};
use super::state::Fpu;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

impl Fpu {
    /// Free ST(0), and count TOP up.
    #[inline]
    pub(super) fn pop(&mut self) {
        self.set_empty(0, true);
        self.set_top(self.top().wrapping_add(1));
    }

    /// Count TOP down, and fill the new ST(0).
    #[inline]
    pub(super) fn push(&mut self, value: X80) {
        self.set_top(self.top().wrapping_sub(1));
        self.fill(0, value);
    }

    /// Change ST(`i`), which is not empty then.
    #[inline]
    pub(super) fn fill(&mut self, i: u8, value: X80) {
        self.set_st(i, value);
        self.set_empty(i, false);
    }

    /// Whether the next push overflows.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        !self.is_empty(7)
    }
}

/// FXCH and its aliases.
pub fn fxch(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let empty = [0, op.src].map(|i| cpu.fpu.is_empty(i));
    if empty != [false; 2] {
        if !cpu.x87_stack_fault(op, StackFault::Underflow) {
            return Ok(Flow::Next);
        }
        for (i, _) in [0, op.src].into_iter().zip(empty).filter(|&(_, empty)| empty) {
            cpu.fpu.fill(i, INDEFINITE);
        }
    } else {
        cpu.note_x87(op);
        cpu.fpu.set_c1(false);
    }
    let (first, second) = (cpu.fpu.st(0), cpu.fpu.st(op.src));
    cpu.fpu.set_st(0, second);
    cpu.fpu.set_st(op.src, first);
    Ok(Flow::Next)
}

/// FFREE, and FFREEP, which pops then.
pub fn ffree<const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    cpu.note_x87(op);
    cpu.fpu.set_c1(false);
    cpu.fpu.set_empty(op.src, true);
    if POP {
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

fn turn(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, by: u8) -> Step {
    cpu.x87_ready(env)?;
    cpu.note_x87(op);
    cpu.fpu.set_c1(false);
    cpu.fpu.set_top(cpu.fpu.top().wrapping_add(by));
    Ok(Flow::Next)
}

/// FINCSTP.
pub fn fincstp(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    turn(cpu, env, op, 1)
}

/// FDECSTP.
pub fn fdecstp(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    turn(cpu, env, op, 7)
}
