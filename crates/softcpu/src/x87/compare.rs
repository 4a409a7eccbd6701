//! Comparisons and FXAM.

use std::cmp::Ordering;

use softfloat::{Class, Compare, Format, Unpacked};
use x86defs::rflags;

use super::memory::Memory;
use super::response::StackFault;
use super::state::{C0, C1, C2, C3};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step};

fn condition_codes(ordering: Option<Ordering>) -> u16 {
    match ordering {
        Some(Ordering::Greater) => 0,
        Some(Ordering::Less) => C0,
        Some(Ordering::Equal) => C3,
        None => C0 | C2 | C3,
    }
}

/// Compare ST(0), to condition codes. `other` is `None` if it is an empty register.
fn to_conditions(cpu: &mut Cpu, op: &Op, other: Option<Unpacked>, kind: Compare, pops: u8) -> Step {
    let Some(other) = other.filter(|_| !cpu.fpu.is_empty(0)) else {
        let completes = cpu.x87_stack_fault(op, StackFault::Underflow);
        return conclude(cpu, completes, None, pops);
    };
    let mut cx = cpu.x87_context();
    let ordering = softfloat::compare(&mut cx, cpu.fpu.st(0).unpack(), other, kind);
    let completes = cpu.settle_x87(op, &cx);
    conclude(cpu, completes, ordering, pops)
}

/// An exception that is not masked prevents the pops. AMD's CPUs set the condition codes in spite of it, Intel's do not (SDM vol. 2
/// FCOM, FCOMI).
fn conclude(cpu: &mut Cpu, completes: bool, ordering: Option<Ordering>, pops: u8) -> Step {
    if completes || cpu.features.amd {
        cpu.fpu.set_conditions(C0 | C2 | C3, condition_codes(ordering));
    }
    if completes {
        (0..pops).for_each(|_| cpu.fpu.pop());
    }
    Ok(Flow::Next)
}

fn register(cpu: &Cpu, i: u8) -> Option<Unpacked> {
    (!cpu.fpu.is_empty(i)).then(|| cpu.fpu.st(i).unpack())
}

fn kind(quiet: bool) -> Compare {
    if quiet { Compare::Quiet } else { Compare::Signalling }
}

/// FCOM, FCOMP, FICOM, FICOMP with a memory operand.
pub fn compare_memory<M: Memory, const POPS: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let operand = M::read(cpu, env, op)?;
    cpu.note_x87_operand(op);
    to_conditions(cpu, op, Some(operand.unpack()), Compare::Signalling, POPS)
}

/// FCOM, FCOMP, FUCOM, FUCOMP with ST(i).
pub fn compare_register<const QUIET: bool, const POPS: u8>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let other = register(cpu, op.src);
    to_conditions(cpu, op, other, kind(QUIET), POPS)
}

/// FTST.
pub fn ftst(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    to_conditions(cpu, op, Some(Unpacked::zero(false)), Compare::Signalling, 0)
}

/// FCOMI, FCOMIP, FUCOMI, FUCOMIP: the result goes to ZF, PF and CF, the other three are cleared. The condition codes stay.
pub fn compare_eflags<const QUIET: bool, const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let c1 = cpu.fpu.status() & C1;
    let (ordering, completes) = if let Some(other) = register(cpu, op.src).filter(|_| !cpu.fpu.is_empty(0)) {
        let mut cx = cpu.x87_context();
        let ordering = softfloat::compare(&mut cx, cpu.fpu.st(0).unpack(), other, kind(QUIET));
        let completes = cpu.settle_x87(op, &cx);
        cpu.fpu.set_conditions(C1, c1);
        (ordering, completes)
    } else {
        (None, cpu.x87_stack_fault(op, StackFault::Underflow))
    };
    if completes || cpu.features.amd {
        cpu.flags.set_bits(match ordering {
            Some(Ordering::Greater) => 0,
            Some(Ordering::Less) => rflags::CF,
            Some(Ordering::Equal) => rflags::ZF,
            None => rflags::ZF | rflags::PF | rflags::CF,
        });
    }
    if completes && POP {
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

/// FXAM.
pub fn fxam(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    cpu.note_x87(op);
    let value = cpu.fpu.st(0).unpack();
    let class = if cpu.fpu.is_empty(0) {
        C3 | C0
    } else {
        match value.class {
            Class::Unsupported => 0,
            Class::QuietNan | Class::SignallingNan => C0,
            Class::Infinity => C2 | C0,
            Class::Zero => C3,
            Class::Finite if value.denormal => C3 | C2,
            Class::Finite => C2,
        }
    };
    cpu.fpu.set_conditions(C0 | C1 | C2 | C3, class | if value.sign { C1 } else { 0 });
    Ok(Flow::Next)
}
