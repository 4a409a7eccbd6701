//! Instructions on single flags: LAHF, SAHF, CLC, STC, CMC, CLD, STD, SALC. (CLI and STI are the system's.)

use x86defs::rflags;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, HIGH_BYTES, Op, Step, Width};

const AL: u8 = 0;
const AH: u8 = HIGH_BYTES;
/// The flags that AH holds.
const LOW_FLAGS: u64 = rflags::CF | rflags::PF | rflags::AF | rflags::ZF | rflags::SF;

/// LAHF.
pub fn lahf(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let value = (cpu.flags.bits() & LOW_FLAGS | rflags::FIXED) as u8;
    u8::set(&mut cpu.regs, AH, value);
    Ok(Flow::Next)
}

/// SAHF.
pub fn sahf(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let value = u64::from(u8::get(&cpu.regs, AH));
    let bits = cpu.flags.bits() & !LOW_FLAGS | value & LOW_FLAGS;
    cpu.flags.set_bits(bits);
    Ok(Flow::Next)
}

/// CLC.
pub fn clc(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.flags.set_cf(false);
    Ok(Flow::Next)
}

/// STC.
pub fn stc(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.flags.set_cf(true);
    Ok(Flow::Next)
}

/// CMC.
pub fn cmc(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let cf = cpu.flags.cf();
    cpu.flags.set_cf(!cf);
    Ok(Flow::Next)
}

/// CLD.
pub fn cld(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.system_flags &= !rflags::DF;
    Ok(Flow::Next)
}

/// STD.
pub fn std(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.system_flags |= rflags::DF;
    Ok(Flow::Next)
}

/// SALC, undocumented: AL becomes 0xFF or 0, as CF.
pub fn salc(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let value = if cpu.flags.cf() { 0xFF } else { 0 };
    u8::set(&mut cpu.regs, AL, value);
    Ok(Flow::Next)
}
