//! The registers of the performance counters, and RDPMC.

use x86defs::{cpuid as bit, cr, msr};

use super::{FIXED, GENERAL, GLOBAL_FIXED, MASK, Now};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::features::Features;
use crate::msr::{MsrWrite, When};
use crate::op::{Flow, Op, Step, Width};

/// Reserved bits of Intel's event selects: AnyThread, which came later and has gone, and the upper half.
const INTEL_SELECT_RESERVED: u64 = 0xFFFF_FFFF_0020_0000;
/// AMD's, which are dropped.
const AMD_SELECT_RESERVED: u64 = 0xFFFF_FFF0_0028_0000;
/// IA32_PERF_GLOBAL_OVF_CTRL: besides the counters', the overflow of the debug store and the change of any.
const OVF_CTRL_OTHERS: u64 = 3 << 62;
/// RDPMC: a fixed counter.
const RDPMC_FIXED: u32 = 1 << 30;

/// Counters of version 2 of the architectural ones, or more.
fn num_general(f: &Features) -> usize {
    let announced = match (f.amd, f.x1_ecx & bit::X1_ECX_PERFCTR_CORE != 0) {
        (true, true) => 6,
        (true, false) => 0,
        (false, _) if f.pmu_eax & 0xFF >= 2 => f.pmu_eax >> 8 & 0xFF,
        (false, _) => 0,
    };
    GENERAL.min(announced as usize)
}

fn num_fixed(f: &Features) -> usize {
    if f.amd || num_general(f) == 0 { 0 } else { FIXED.min(f.pmu_edx as usize & 0x1F) }
}

/// The lowest `count` bits.
fn bits(count: usize) -> u64 {
    (1 << count) - 1
}

/// Bits that the global registers have for the counters that there are.
fn global_bits(f: &Features) -> u64 {
    bits(num_general(f)) | bits(num_fixed(f)) << GLOBAL_FIXED
}

/// Which counter, and whether it is its event select: AMD's come in pairs, or apart as on the K7.
fn numbered(index: u32) -> usize {
    let number = match index {
        msr::PERF_EVENT_SELECT0..=msr::PERF_EVENT_SELECT3 => index - msr::PERF_EVENT_SELECT0,
        msr::PERF_COUNTER0..=msr::PERF_COUNTER3 => index - msr::PERF_COUNTER0,
        msr::AMD_PERF_CTL0..=msr::AMD_PERF_CTR5 => (index - msr::AMD_PERF_CTL0) / 2,
        msr::AMD_PERF_COUNTER0..=msr::AMD_PERF_COUNTER3 => index - msr::AMD_PERF_COUNTER0,
        _ => index.wrapping_sub(msr::AMD_PERF_EVENT_SELECT0),
    };
    number as usize
}

impl Cpu {
    fn pmu_now(&self, when: When) -> Now {
        Now { done: self.meter.done(when.work), clock: when.clock }
    }

    fn pmu_configure(&mut self, when: When) -> MsrWrite {
        let now = self.pmu_now(when);
        self.pmu.configure(&now, self.features.amd);
        MsrWrite::Done
    }

    fn general_counter(&self, index: u32) -> Option<usize> {
        Some(numbered(index)).filter(|&number| number < num_general(&self.features))
    }

    fn fixed_counter(&self, index: u32) -> Option<usize> {
        let number = index.wrapping_sub(msr::FIXED_CTR0) as usize;
        Some(number).filter(|&number| number < num_fixed(&self.features))
    }
}

/// IA32_PMCx, PerfCtrx; of AMD's pairs the odd one.
pub fn read_counter(cpu: &Cpu, index: u32, when: When) -> Option<u64> {
    if is_select_of_pair(index) {
        return read_select(cpu, index, when);
    }
    let number = cpu.general_counter(index)?;
    Some(cpu.pmu.general[number].value(&cpu.pmu_now(when)) & MASK)
}

/// Intel's take 32 bits and extend their sign (SDM vol. 3 section 20.2.8).
pub fn write_counter(cpu: &mut Cpu, index: u32, value: u64, when: When) -> MsrWrite {
    if is_select_of_pair(index) {
        return write_select(cpu, index, value, when);
    }
    let Some(number) = cpu.general_counter(index) else { return MsrWrite::Unknown };
    let value = if cpu.features.amd { value } else { value as i32 as u64 };
    let now = cpu.pmu_now(when);
    cpu.pmu.status = cpu.pmu.status(&now);
    let counter = &mut cpu.pmu.general[number];
    counter.restart(value, counter.watch, &now);
    MsrWrite::Done
}

fn is_select_of_pair(index: u32) -> bool {
    matches!(index, msr::AMD_PERF_CTL0..=msr::AMD_PERF_CTR5) && index.is_multiple_of(2)
}

/// IA32_PERFEVTSELx, PerfEvtSelx.
pub fn read_select(cpu: &Cpu, index: u32, _when: When) -> Option<u64> {
    Some(cpu.pmu.selects[cpu.general_counter(index)?])
}

pub fn write_select(cpu: &mut Cpu, index: u32, value: u64, when: When) -> MsrWrite {
    let Some(number) = cpu.general_counter(index) else { return MsrWrite::Unknown };
    if !cpu.features.amd && value & INTEL_SELECT_RESERVED != 0 {
        return MsrWrite::Refused;
    }
    cpu.pmu.selects[number] = if cpu.features.amd { value & !AMD_SELECT_RESERVED } else { value };
    cpu.pmu_configure(when)
}

/// IA32_FIXED_CTRx.
pub fn read_fixed(cpu: &Cpu, index: u32, when: When) -> Option<u64> {
    let number = cpu.fixed_counter(index)?;
    Some(cpu.pmu.fixed[number].value(&cpu.pmu_now(when)) & MASK)
}

pub fn write_fixed(cpu: &mut Cpu, index: u32, value: u64, when: When) -> MsrWrite {
    let Some(number) = cpu.fixed_counter(index) else { return MsrWrite::Unknown };
    if value & !MASK != 0 {
        return MsrWrite::Refused;
    }
    let now = cpu.pmu_now(when);
    cpu.pmu.status = cpu.pmu.status(&now);
    let counter = &mut cpu.pmu.fixed[number];
    counter.restart(value, counter.watch, &now);
    MsrWrite::Done
}

/// IA32_FIXED_CTR_CTRL.
pub fn read_fixed_ctrl(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(cpu.pmu.fixed_ctrl)
}

/// Of each counter's four bits that for AnyThread is reserved.
pub fn write_fixed_ctrl(cpu: &mut Cpu, _index: u32, value: u64, when: When) -> MsrWrite {
    let defined = (0..num_fixed(&cpu.features)).fold(0, |all, i| all | 0xB << (4 * i));
    if value & !defined != 0 {
        return MsrWrite::Refused;
    }
    cpu.pmu.fixed_ctrl = value;
    cpu.pmu_configure(when)
}

/// IA32_PERF_GLOBAL_CTRL.
pub fn read_global_ctrl(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(cpu.pmu.global_ctrl)
}

pub fn write_global_ctrl(cpu: &mut Cpu, _index: u32, value: u64, when: When) -> MsrWrite {
    if value & !global_bits(&cpu.features) != 0 {
        return MsrWrite::Refused;
    }
    cpu.pmu.global_ctrl = value;
    cpu.pmu_configure(when)
}

/// IA32_PERF_GLOBAL_STATUS, which is read-only.
pub fn read_global_status(cpu: &Cpu, _index: u32, when: When) -> Option<u64> {
    Some(cpu.pmu.status(&cpu.pmu_now(when)))
}

pub fn write_global_status(_cpu: &mut Cpu, _index: u32, _value: u64, _when: When) -> MsrWrite {
    MsrWrite::Refused
}

/// IA32_PERF_GLOBAL_OVF_CTRL reads as zero.
pub fn read_ovf_ctrl(_cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(0)
}

/// Clears bits of the status.
pub fn write_ovf_ctrl(cpu: &mut Cpu, _index: u32, value: u64, when: When) -> MsrWrite {
    if value & !(global_bits(&cpu.features) | OVF_CTRL_OTHERS) != 0 {
        return MsrWrite::Refused;
    }
    let now = cpu.pmu_now(when);
    cpu.pmu.take_overflows(&now);
    cpu.pmu.status &= !value;
    MsrWrite::Done
}

/// RDPMC: SDM vol. 2.
pub fn rdpmc(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 && cpu.cr4 & cr::CR4_PCE == 0 {
        return Err(cpu.gp0());
    }
    let which = cpu.regs[1] as u32;
    let when = When::now(env);
    let index = match which.checked_sub(RDPMC_FIXED) {
        Some(fixed) => fixed.checked_add(msr::FIXED_CTR0),
        None => Some(which).filter(|&number| number < GENERAL as u32).map(|number| msr::AMD_PERF_CTR0 + 2 * number),
    };
    let value = index.and_then(|index| {
        if which & RDPMC_FIXED != 0 { read_fixed(cpu, index, when) } else { read_counter(cpu, index, when) }
    });
    let Some(value) = value else { return Err(cpu.gp0()) };
    u32::set(&mut cpu.regs, 0, value as u32);
    u32::set(&mut cpu.regs, 2, (value >> 32) as u32);
    Ok(Flow::Sync)
}
