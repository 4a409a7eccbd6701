//! Decimal adjustment: AAA, AAS, AAM, AAD, DAA, DAS. Not in 64-bit mode.

use x86defs::vector;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, HIGH_BYTES, Op, Step, Width};

const AL: u8 = 0;
const AH: u8 = HIGH_BYTES;

fn al(cpu: &Cpu) -> u8 {
    u8::get(&cpu.regs, AL)
}

/// AAA: SDM vol. 2. SF, ZF and PF are undefined; they are those of AL.
pub fn aaa(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    ascii_adjust(cpu, 0x106)
}

/// AAS.
pub fn aas(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    // Both subtract 6 from AX and 1 from AH.
    ascii_adjust(cpu, 0u16.wrapping_sub(0x106))
}

fn ascii_adjust(cpu: &mut Cpu, correction: u16) -> Step {
    let ax = u16::get(&cpu.regs, AL);
    let adjust = ax & 0xF > 9 || cpu.flags.af();
    let ax = if adjust { ax.wrapping_add(correction) } else { ax } & 0xFF0F;
    u16::set(&mut cpu.regs, AL, ax);
    cpu.flags.set_all(ax as u8, adjust, false, adjust);
    Ok(Flow::Next)
}

/// DAA.
pub fn daa(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let old = al(cpu);
    let low = old & 0xF > 9 || cpu.flags.af();
    let high = old > 0x99 || cpu.flags.cf();
    let new = old.wrapping_add(if low { 6 } else { 0 }).wrapping_add(if high { 0x60 } else { 0 });
    u8::set(&mut cpu.regs, AL, new);
    cpu.flags.set_all(new, high, false, low);
    Ok(Flow::Next)
}

/// DAS.
pub fn das(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let (old, old_cf) = (al(cpu), cpu.flags.cf());
    let low = old & 0xF > 9 || cpu.flags.af();
    let high = old > 0x99 || old_cf;
    let new = old.wrapping_sub(if low { 6 } else { 0 }).wrapping_sub(if high { 0x60 } else { 0 });
    u8::set(&mut cpu.regs, AL, new);
    // The borrow of the first step counts even if the second one is not taken.
    let cf = high || (low && old < 6);
    cpu.flags.set_all(new, cf, false, low);
    Ok(Flow::Next)
}

/// AAM: divide AL by `imm`.
pub fn aam(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (value, base) = (al(cpu), op.imm as u8);
    let (Some(quotient), Some(remainder)) = (value.checked_div(base), value.checked_rem(base)) else {
        return Err(cpu.raise(vector::DE));
    };
    u8::set(&mut cpu.regs, AH, quotient);
    u8::set(&mut cpu.regs, AL, remainder);
    cpu.flags.logic(remainder);
    Ok(Flow::Next)
}

/// AAD: AL becomes AL + AH * `imm`, AH zero.
pub fn aad(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let high = u8::get(&cpu.regs, AH).wrapping_mul(op.imm as u8);
    let low = al(cpu).wrapping_add(high);
    u16::set(&mut cpu.regs, AL, low.into());
    cpu.flags.logic(low);
    Ok(Flow::Next)
}
