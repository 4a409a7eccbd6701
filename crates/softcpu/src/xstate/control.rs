//! XGETBV and XSETBV, and what CPUID says of XCR0.

use super::component::{AVX, SSE, X87};
use super::{mask, registers_in};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Width};
use x86defs::cr;

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
/// CPUID leaf 0xD.1 EAX: XGETBV with ECX = 1.
const HAS_IN_USE: u32 = 1 << 2;

/// XGETBV.
pub fn xgetbv(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    let value = match u32::get(&cpu.regs, RCX) {
        0 => cpu.xcr0,
        1 if cpu.features.xsave_eax & HAS_IN_USE != 0 => cpu.xcr0 & cpu.in_use_with_mxcsr(registers_in(cpu)),
        _ => return Err(cpu.gp0()),
    };
    u32::set(&mut cpu.regs, RAX, value as u32);
    u32::set(&mut cpu.regs, RDX, (value >> 32) as u32);
    Ok(Flow::Next)
}

/// XSETBV.
pub fn xsetbv(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(cpu.ud());
    }
    let value = mask(cpu);
    let allowed = cpu.cpl == 0 && u32::get(&cpu.regs, RCX) == 0 && is_sound(value, cpu.supported());
    if !allowed {
        return Err(cpu.gp0());
    }
    cpu.xcr0 = value;
    cpu.availability_changed();
    Ok(Flow::Sync)
}

/// Whether XCR0 can hold a value: x87 is always there, and AVX extends SSE (SDM vol. 1 section 13.3).
fn is_sound(value: u64, supported: u64) -> bool {
    value & X87 != 0 && value & !supported == 0 && (value & AVX == 0 || value & SSE != 0)
}
