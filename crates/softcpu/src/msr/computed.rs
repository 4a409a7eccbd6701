//! MSRs that are more than a place for a value.

use x86defs::{cpuid as bit, cr, msr};

use super::{Kept, MsrWrite, When, allow};
use crate::cpu::{Cpu, HostVendor};
use crate::features::FeatureWord;
use crate::segment::{FS, GS};

/// Bits of EFER, each with the feature it belongs to: it can be set if that is announced.
const EFER_FEATURES: [(u64, FeatureWord, u32); 5] = [
    (cr::EFER_SCE, |f| f.x1_edx, bit::X1_EDX_SYSCALL),
    (cr::EFER_LME, |f| f.x1_edx, bit::X1_EDX_LM),
    (cr::EFER_NXE, |f| f.x1_edx, bit::X1_EDX_NX),
    (cr::EFER_FFXSR, |f| f.x1_edx, bit::X1_EDX_FFXSR),
    (cr::EFER_AIBRSE, |f| f.x21_eax, bit::X21_EAX_AUTO_IBRS),
];
/// IA32_DEBUGCTL: last branch record. There is none that it could turn on, so it stays clear, as with hypervisors without one.
const DEBUGCTL_LBR: u64 = 1 << 0;
/// IA32_DEBUGCTL: single-step on branches. A debug exception clears it.
const DEBUGCTL_BTF: u64 = 1 << 1;

pub fn read_tsc(cpu: &Cpu, _index: u32, when: When) -> Option<u64> {
    Some(when.tsc.wrapping_add(cpu.tsc_offset))
}

pub fn write_tsc(cpu: &mut Cpu, _index: u32, value: u64, when: When) -> MsrWrite {
    let offset = value.wrapping_sub(when.tsc);
    cpu.msrs.tsc_adjust = cpu.msrs.tsc_adjust.wrapping_add(offset.wrapping_sub(cpu.tsc_offset));
    cpu.tsc_offset = offset;
    MsrWrite::TscOffset
}

pub fn read_tsc_adjust(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(cpu.msrs.tsc_adjust)
}

pub fn write_tsc_adjust(cpu: &mut Cpu, _index: u32, value: u64, _when: When) -> MsrWrite {
    cpu.tsc_offset = cpu.tsc_offset.wrapping_add(value.wrapping_sub(cpu.msrs.tsc_adjust));
    cpu.msrs.tsc_adjust = value;
    MsrWrite::TscOffset
}

pub fn read_efer(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(cpu.efer)
}

pub fn write_efer(cpu: &mut Cpu, _index: u32, value: u64, _when: When) -> MsrWrite {
    let announced = EFER_FEATURES.iter().filter(|(_, word, mask)| word(&cpu.features) & mask != 0);
    // LMA follows paging and ignores what is written.
    let allowed = announced.fold(cr::EFER_LMA, |allowed, (flag, ..)| allowed | flag);
    let lme_changes = (value ^ cpu.efer) & cr::EFER_LME != 0;
    if value & !allowed != 0 || lme_changes && cpu.cr0 & cr::CR0_PG != 0 {
        return MsrWrite::Refused;
    }
    cpu.efer = value & !cr::EFER_LMA | cpu.efer & cr::EFER_LMA;
    cpu.mode_changed();
    MsrWrite::Done
}

pub fn read_base(cpu: &Cpu, index: u32, _when: When) -> Option<u64> {
    Some(cpu.seg(base_register(index)).base)
}

pub fn write_base(cpu: &mut Cpu, index: u32, value: u64, _when: When) -> MsrWrite {
    let canonical = cpu.is_canonical_base(value);
    if canonical {
        cpu.segs[usize::from(base_register(index))].base = value;
    }
    allow(canonical)
}

fn base_register(index: u32) -> u8 {
    if index == msr::FS_BASE { FS } else { GS }
}

pub fn read_sysenter(cpu: &Cpu, index: u32, _when: When) -> Option<u64> {
    Some(if index == msr::SYSENTER_ESP { cpu.msrs.sysenter_esp } else { cpu.msrs.sysenter_eip })
}

/// AMD's silicon keeps the low halves only, and that shows to a guest that knows it runs on AMD. The upper halves of a
/// guest that was promised an Intel CPU are kept by the hypervisor.
pub fn write_sysenter(cpu: &mut Cpu, index: u32, value: u64, _when: When) -> MsrWrite {
    let value = if cpu.host == HostVendor::Amd && cpu.features.amd {
        value & 0xFFFF_FFFF
    } else if cpu.is_canonical_base(value) {
        value
    } else {
        return MsrWrite::Refused;
    };
    if index == msr::SYSENTER_ESP {
        cpu.msrs.sysenter_esp = value;
    } else {
        cpu.msrs.sysenter_eip = value;
    }
    MsrWrite::Done
}

pub fn read_debugctl(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(if cpu.debug.branch_stepping { DEBUGCTL_BTF } else { 0 })
}

pub fn write_debugctl(cpu: &mut Cpu, _index: u32, value: u64, _when: When) -> MsrWrite {
    let allowed = value & !(DEBUGCTL_LBR | DEBUGCTL_BTF) == 0;
    if allowed {
        cpu.debug.branch_stepping = value & DEBUGCTL_BTF != 0;
    }
    allow(allowed)
}

pub fn read_pkrs(cpu: &Cpu, _index: u32, _when: When) -> Option<u64> {
    Some(cpu.msrs.get(Kept::Pkrs))
}

/// The upper half is reserved. Entries of the TLB stand for rights that the keys gave.
pub fn write_pkrs(cpu: &mut Cpu, _index: u32, value: u64, _when: When) -> MsrWrite {
    let allowed = value >> 32 == 0;
    if allowed {
        cpu.msrs.set(Kept::Pkrs, value);
        cpu.tlb.flush();
    }
    allow(allowed)
}
