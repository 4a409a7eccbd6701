//! What belongs nowhere else: NOP, fences, cache hints, undefined instructions, RDRAND.

use x86defs::{rflags, vector};

use super::addr;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Width};
use crate::segment::SS;

/// Nothing: NOP, fences (all accesses are in order), prefetches (which never fault).
pub fn nop(_cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    Ok(Flow::Next)
}

/// #UD: an instruction that is undefined, or not announced by CPUID, or not implemented.
pub fn ud(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    Err(cpu.ud())
}

/// CLFLUSH, CLFLUSHOPT, CLWB: there is no cache, but the address faults as a load does (SDM vol. 2 CLFLUSH).
pub fn clflush(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let linear = addr::operand(cpu, op, 1, false)?;
    if !cpu.is_canonical(linear) {
        let vector = if op.seg == SS { vector::SS } else { vector::GP };
        return Err(cpu.raise_with(vector, 0));
    }
    // Translated only: a line of device memory is flushed without reading it.
    let access = cpu.data_access(false);
    cpu.walk(env, linear, access)?;
    Ok(Flow::Next)
}

/// RDRAND and RDSEED: numbers that follow from when and where they are drawn, so that runs repeat. Stands alone.
pub fn rdrand(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    // The finaliser of SplitMix64.
    let mut z = (env.now_ns() ^ (cpu.index as u64) << 48).wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    let value = z ^ z >> 31;
    match op.size {
        2 => u16::set(&mut cpu.regs, op.dst, value as u16),
        4 => u32::set(&mut cpu.regs, op.dst, value as u32),
        _ => u64::set(&mut cpu.regs, op.dst, value),
    }
    cpu.flags.set_bits(rflags::CF);
    Ok(Flow::Next)
}
