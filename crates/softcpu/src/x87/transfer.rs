//! Loads, stores, constants, conditional moves.

use softfloat::{X80, flag};

use super::memory::Memory;
use super::response::{INDEFINITE, StackFault, is_stored};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step};

/// FLD, FILD, FBLD of a memory operand. AMD's CPUs load a denormal although its exception is not masked (Intel's do not: SDM
/// vol. 1 section 8.5.2).
pub fn load_memory<M: Memory>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let operand = M::read(cpu, env, op)?;
    cpu.note_x87_operand(op);
    if cpu.fpu.is_full() {
        return no_push(cpu, op, StackFault::Overflow);
    }
    let mut cx = cpu.x87_context();
    let value = operand.load(&mut cx);
    let denormal = cx.unmasked() & flag::BEFORE == flag::DE;
    if cpu.settle_x87(op, &cx) || denormal && cpu.features.amd {
        cpu.fpu.push(value);
    }
    Ok(Flow::Next)
}

/// FLD ST(i).
pub fn load_register(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(op.src) {
        return no_push(cpu, op, StackFault::Underflow);
    }
    if cpu.fpu.is_full() {
        return no_push(cpu, op, StackFault::Overflow);
    }
    push(cpu, op, cpu.fpu.st(op.src))
}

/// Push what raises no exception, onto a register that is empty.
fn push(cpu: &mut Cpu, op: &Op, value: X80) -> Step {
    cpu.note_x87(op);
    cpu.fpu.set_c1(false);
    cpu.fpu.push(value);
    Ok(Flow::Next)
}

#[cold]
fn no_push(cpu: &mut Cpu, op: &Op, fault: StackFault) -> Step {
    if cpu.x87_stack_fault(op, fault) {
        cpu.fpu.push(INDEFINITE);
    }
    Ok(Flow::Next)
}

/// FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ: the number of the constant is in `src`.
pub fn load_constant(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    /// The constants' exponents, and significands truncated to 66 bits; the low two are apart. Each is rounded by RC (SDM vol. 1
    /// section 8.3.8).
    const CONSTANTS: [(u16, u64, u8); 7] = [
        (0x3FFF, 0x8000_0000_0000_0000, 0),
        (0x4000, 0xD49A_784B_CD1B_8AFE, 1),
        (0x3FFF, 0xB8AA_3B29_5C17_F0BB, 2),
        (0x4000, 0xC90F_DAA2_2168_C234, 3),
        (0x3FFD, 0x9A20_9A84_FBCF_F798, 2),
        (0x3FFE, 0xB172_17F7_D1CF_79AB, 3),
        (0, 0, 0),
    ];
    cpu.x87_ready(env)?;
    if cpu.fpu.is_full() {
        return no_push(cpu, op, StackFault::Overflow);
    }
    let (exponent, truncated, rest) = CONSTANTS[usize::from(op.src) % CONSTANTS.len()];
    let up = match cpu.fpu.control() >> 10 & 3 {
        0 => rest >= 2,
        2 => rest != 0,
        _ => false,
    };
    push(cpu, op, X80::new(exponent, truncated + u64::from(up)))
}

/// FST, FSTP, FIST, FISTP, FISTTP, FBSTP to memory.
pub fn store_memory<M: Memory, const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let mut cx = cpu.x87_context();
    let empty = cpu.fpu.is_empty(0);
    let value = M::store(&mut cx, if empty { INDEFINITE } else { cpu.fpu.st(0) });
    if empty {
        return store_nothing::<M, POP>(cpu, env, op, value);
    }
    let stored = is_stored(&cx);
    if stored {
        value.write(cpu, env, op)?;
    } else {
        M::probe(cpu, env, op)?;
    }
    cpu.settle_x87_store(op, &cx);
    if stored && POP {
        cpu.fpu.pop();
    }
    cpu.after_store()
}

/// Store an empty register: the indefinite value, if that is masked.
#[cold]
fn store_nothing<M: Memory, const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, indefinite: M) -> Step {
    if cpu.x87_context().is_masked(flag::IE) {
        indefinite.write(cpu, env, op)?;
    } else {
        M::probe(cpu, env, op)?;
    }
    cpu.note_x87_operand(op);
    if cpu.x87_stack_fault(op, StackFault::Underflow) && POP {
        cpu.fpu.pop();
    }
    cpu.after_store()
}

fn st0_to_register<const POP: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let mut value = cpu.fpu.st(0);
    if cpu.fpu.is_empty(0) {
        if !cpu.x87_stack_fault(op, StackFault::Underflow) {
            return Ok(Flow::Next);
        }
        value = INDEFINITE;
    } else {
        cpu.note_x87(op);
        cpu.fpu.set_c1(false);
    }
    cpu.fpu.fill(op.src, value);
    if POP {
        cpu.fpu.pop();
    }
    Ok(Flow::Next)
}

/// FSTPNCE (D9D8), "no check of empty": an empty ST(0) is not stored, only popped.
pub fn fstpnce(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if !cpu.fpu.is_empty(0) {
        return st0_to_register::<true>(cpu, env, op);
    }
    cpu.x87_ready(env)?;
    cpu.note_x87(op);
    cpu.fpu.set_c1(false);
    cpu.fpu.pop();
    Ok(Flow::Next)
}

/// FST and FSTP to ST(i), and its aliases.
pub fn store_register(pop: bool) -> Handler {
    if pop { st0_to_register::<true> } else { st0_to_register::<false> }
}

/// FCMOVcc: the condition as CMOVcc has it is in `dst`.
pub fn fcmov(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    if cpu.fpu.is_empty(0) || cpu.fpu.is_empty(op.src) {
        if cpu.x87_stack_fault(op, StackFault::Underflow) {
            cpu.fpu.fill(0, INDEFINITE);
        }
        return Ok(Flow::Next);
    }
    cpu.note_x87(op);
    if cpu.flags.condition(op.dst) {
        let value = cpu.fpu.st(op.src);
        cpu.fpu.set_st(0, value);
    }
    Ok(Flow::Next)
}
