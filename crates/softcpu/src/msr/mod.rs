//! MSRs that the core owns. Others (local APIC, TSC deadline, hypervisors) are the bus's.

mod cache_control;
mod machine_check;

use vcpu::{Exit, Reply};
use x86defs::{cpuid as bit, cr, msr};

use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Width};
use crate::segment::{FS, GS};
use crate::system::cost;
use cache_control::CacheControl;
use machine_check::MachineCheck;

/// Bits of EFER, each with the extended feature bit it belongs to.
const EFER_FEATURES: [(u64, u32); 4] = [
    (cr::EFER_SCE, bit::X1_EDX_SYSCALL),
    (cr::EFER_LME, bit::X1_EDX_LM),
    (cr::EFER_NXE, bit::X1_EDX_NX),
    (cr::EFER_FFXSR, bit::X1_EDX_FFXSR),
];
/// IA32_MISC_ENABLE at reset: fast strings; no branch trace store, no precise event sampling.
const MISC_ENABLE_RESET: u64 = 1 | 1 << 11 | 1 << 12;
/// Bits of IA32_MISC_ENABLE that can be changed (SDM vol. 4 table 2-2): fast strings, thermal control, SpeedStep, MONITOR, limit
/// CPUID, xTPR, XD disable. They are kept, and nothing follows, as with other hypervisors.
const MISC_ENABLE_WRITABLE: u64 = 1 | 1 << 3 | 1 << 16 | 1 << 18 | 1 << 22 | 1 << 23 | 1 << 34;
/// IA32_FEATURE_CONTROL: locked, with nothing enabled.
const FEATURE_CONTROL_LOCKED: u64 = 1;
/// A microcode revision that no guest takes for an old one.
const MICROCODE_REVISION_INTEL: u64 = 0x1_0000_0000;
const MICROCODE_REVISION_AMD: u64 = 0x0100_0065;
/// IA32_DEBUGCTL.BTF: single-step on branches. A debug exception clears it.
const DEBUGCTL_BTF: u64 = 1 << 1;
/// BTF, and LBR: there is no record of branches that it could turn on, so it stays clear, as with hypervisors without one.
const DEBUGCTL_WRITABLE: u64 = 1 | DEBUGCTL_BTF;
/// IA32_SPEC_CTRL: IBRS, STIBP, SSBD.
const SPEC_CTRL_DEFINED: u64 = 7;
/// AMD's HWCR: bits that matter to nobody else and can be set (FFDIS, MONITOR/MWAIT from user, McStatusWrEn, TscFreqSel).
const HWCR_WRITABLE: u64 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 18 | 1 << 24;
const HWCR_MC_STATUS_WRITABLE: u64 = 1 << 18;

/// Their values, as far as they are not kept elsewhere in [`Cpu`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Msrs {
    /// STAR.
    pub star: u64,
    /// LSTAR.
    pub lstar: u64,
    /// CSTAR.
    pub cstar: u64,
    /// SFMASK.
    pub sfmask: u64,
    /// KERNEL_GS_BASE.
    pub kernel_gs_base: u64,
    /// IA32_SYSENTER_CS.
    pub sysenter_cs: u64,
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_AUX.
    pub tsc_aux: u64,
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    misc_enable: u64,
    spec_ctrl: u64,
    hwcr: u64,
    /// DE_CFG, of which only the serialising-LFENCE bit is kept.
    de_cfg: u64,
    cache: CacheControl,
    machine_check: MachineCheck,
}

impl Default for Msrs {
    fn default() -> Self {
        Self {
            star: 0,
            lstar: 0,
            cstar: 0,
            sfmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_aux: 0,
            tsc_adjust: 0,
            misc_enable: MISC_ENABLE_RESET,
            spec_ctrl: 0,
            hwcr: 0,
            de_cfg: 2,
            cache: CacheControl::default(),
            machine_check: MachineCheck::default(),
        }
    }
}

/// What writing an MSR of the core leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrWrite {
    /// It has its new value.
    Done,
    /// As `Done`, and [`Cpu::tsc_offset`] has changed: the bus must hear of it.
    TscOffset,
    /// #GP(0): the value is not allowed.
    Refused,
    /// The core has no such MSR.
    Unknown,
}

fn allow(condition: bool) -> MsrWrite {
    if condition { MsrWrite::Done } else { MsrWrite::Refused }
}

impl Cpu {
    fn has_tsc_aux(&self) -> bool {
        self.features.x1_edx & bit::X1_EDX_RDTSCP != 0 || self.features.l7_ecx & bit::L7_ECX_RDPID != 0
    }
    fn has_spec_ctrl(&self) -> bool {
        self.features.l7_edx & (bit::L7_EDX_SPEC_CTRL | bit::L7_EDX_SSBD) != 0
    }
    fn has_long_mode(&self) -> bool {
        self.features.x1_edx & bit::X1_EDX_LM != 0
    }

    /// An MSR of the core; `None` if it has no such MSR. `reference_tsc` is the time.
    pub fn read_msr(&self, index: u32, reference_tsc: u64) -> Option<u64> {
        let msrs = &self.msrs;
        let (edx, amd) = (self.features.l1_edx, self.features.amd);
        let value = match index {
            msr::TSC => reference_tsc.wrapping_add(self.tsc_offset),
            msr::TSC_ADJUST if self.features.l7_ebx & bit::L7_EBX_TSC_ADJUST != 0 => msrs.tsc_adjust,
            msr::EFER => self.efer,
            msr::STAR => msrs.star,
            msr::LSTAR if self.has_long_mode() => msrs.lstar,
            msr::CSTAR if self.has_long_mode() => msrs.cstar,
            msr::SFMASK if self.has_long_mode() => msrs.sfmask,
            msr::FS_BASE if self.has_long_mode() => self.seg(FS).base,
            msr::GS_BASE if self.has_long_mode() => self.seg(GS).base,
            msr::KERNEL_GS_BASE if self.has_long_mode() => msrs.kernel_gs_base,
            msr::TSC_AUX if self.has_tsc_aux() => msrs.tsc_aux,
            msr::SYSENTER_CS => msrs.sysenter_cs,
            msr::SYSENTER_ESP => msrs.sysenter_esp,
            msr::SYSENTER_EIP => msrs.sysenter_eip,
            msr::DEBUGCTL => {
                if self.debug.branch_stepping {
                    DEBUGCTL_BTF
                } else {
                    0
                }
            }
            msr::BIOS_SIGN_ID => {
                if amd {
                    MICROCODE_REVISION_AMD
                } else {
                    MICROCODE_REVISION_INTEL
                }
            }
            msr::P5_MC_ADDR | msr::P5_MC_TYPE => 0,
            msr::MISC_ENABLE => msrs.misc_enable,
            msr::SPEC_CTRL if self.has_spec_ctrl() => msrs.spec_ctrl,
            msr::ARCH_CAPABILITIES if self.features.l7_edx & bit::L7_EDX_ARCH_CAPABILITIES != 0 => 0,
            msr::PAT if edx & bit::L1_EDX_PAT != 0 => msrs.cache.pat,
            _ if cache_control::is_mtrr(index) && edx & bit::L1_EDX_MTRR != 0 => msrs.cache.read(index)?,
            _ if machine_check::is_machine_check(index) && edx & bit::L1_EDX_MCA != 0 => {
                msrs.machine_check.read(index)?
            }
            _ if amd => self.read_amd_msr(index)?,
            _ => self.read_intel_msr(index)?,
        };
        Some(value)
    }

    fn read_intel_msr(&self, index: u32) -> Option<u64> {
        Some(match index {
            msr::FEATURE_CONTROL => FEATURE_CONTROL_LOCKED,
            msr::PLATFORM_ID | msr::PERF_STATUS => 0,
            _ => return None,
        })
    }

    fn read_amd_msr(&self, index: u32) -> Option<u64> {
        Some(match index {
            msr::AMD_HWCR => self.msrs.hwcr,
            msr::AMD_DE_CFG => self.msrs.de_cfg,
            // SVM is not offered, and cannot be turned on.
            msr::AMD_VM_CR => 1 << 3 | 1 << 4,
            // The counters that every AMD CPU has count nothing, as with hypervisors that do not virtualise them.
            msr::AMD_PERF_EVENT_SELECT0..=msr::AMD_PERF_COUNTER3
            | msr::AMD_SYSCFG
            | msr::AMD_NB_CFG
            | msr::AMD_INT_PENDING
            | msr::AMD_TSEG_BASE
            | msr::AMD_TSEG_MASK
            | msr::AMD_LS_CFG
            | msr::AMD_DC_CFG
            | msr::AMD_BU_CFG2 => 0,
            _ => return None,
        })
    }

    /// Write an MSR of the core with the rules of WRMSR.
    pub fn write_msr(&mut self, index: u32, value: u64, reference_tsc: u64) -> MsrWrite {
        if self.read_msr(index, reference_tsc).is_none() {
            return self.write_command_msr(index, value);
        }
        let canonical = self.is_canonical_base(value);
        match index {
            msr::TSC => {
                let offset = value.wrapping_sub(reference_tsc);
                self.msrs.tsc_adjust = self.msrs.tsc_adjust.wrapping_add(offset.wrapping_sub(self.tsc_offset));
                self.tsc_offset = offset;
                return MsrWrite::TscOffset;
            }
            msr::TSC_ADJUST => {
                self.tsc_offset = self.tsc_offset.wrapping_add(value.wrapping_sub(self.msrs.tsc_adjust));
                self.msrs.tsc_adjust = value;
                return MsrWrite::TscOffset;
            }
            msr::EFER => return self.write_efer(value),
            msr::STAR => self.msrs.star = value,
            msr::SFMASK => self.msrs.sfmask = value & 0xFFFF_FFFF,
            msr::SYSENTER_CS => self.msrs.sysenter_cs = value & 0xFFFF_FFFF,
            msr::SYSENTER_ESP | msr::SYSENTER_EIP => return self.write_sysenter(index, value),
            msr::LSTAR | msr::CSTAR | msr::FS_BASE | msr::GS_BASE | msr::KERNEL_GS_BASE if !canonical => {
                return MsrWrite::Refused;
            }
            msr::LSTAR => self.msrs.lstar = value,
            msr::CSTAR => self.msrs.cstar = value,
            msr::FS_BASE => self.segs[usize::from(FS)].base = value,
            msr::GS_BASE => self.segs[usize::from(GS)].base = value,
            msr::KERNEL_GS_BASE => self.msrs.kernel_gs_base = value,
            msr::TSC_AUX if value >> 32 == 0 => self.msrs.tsc_aux = value,
            msr::DEBUGCTL if value & !DEBUGCTL_WRITABLE == 0 => {
                self.debug.branch_stepping = value & DEBUGCTL_BTF != 0;
            }
            // Loading microcode starts with a zero here (SDM vol. 3 section 10.11.7).
            msr::BIOS_SIGN_ID => {}
            msr::SPEC_CTRL if value & !SPEC_CTRL_DEFINED == 0 => self.msrs.spec_ctrl = value,
            msr::PAT => return allow(self.msrs.cache.write_pat(value)),
            msr::MISC_ENABLE => {
                self.msrs.misc_enable = self.msrs.misc_enable & !MISC_ENABLE_WRITABLE | value & MISC_ENABLE_WRITABLE;
            }
            _ if cache_control::is_mtrr(index) => {
                let physical_bits = self.features.physical_bits();
                return allow(self.msrs.cache.write(index, value, physical_bits));
            }
            _ if machine_check::is_machine_check(index) => {
                let status_writable = self.msrs.hwcr & HWCR_MC_STATUS_WRITABLE != 0;
                return allow(self.msrs.machine_check.write(index, value, status_writable));
            }
            msr::AMD_HWCR if value & !HWCR_WRITABLE == 0 => self.msrs.hwcr = value,
            msr::AMD_DE_CFG if value & !2 == 0 => self.msrs.de_cfg = value,
            // Work-arounds for silicon, which guests set without asking: nothing follows from them.
            msr::AMD_PERF_EVENT_SELECT0..=msr::AMD_PERF_COUNTER3
            | msr::AMD_SYSCFG
            | msr::AMD_NB_CFG
            | msr::AMD_INT_PENDING
            | msr::AMD_LS_CFG
            | msr::AMD_DC_CFG
            | msr::AMD_BU_CFG2 => {}
            _ => return MsrWrite::Refused,
        }
        MsrWrite::Done
    }

    /// MSRs that can only be written.
    fn write_command_msr(&mut self, index: u32, value: u64) -> MsrWrite {
        match index {
            msr::PRED_CMD if self.features.l7_edx & bit::L7_EDX_SPEC_CTRL != 0 => allow(value & !1 == 0),
            _ => MsrWrite::Unknown,
        }
    }

    fn write_efer(&mut self, value: u64) -> MsrWrite {
        let features = EFER_FEATURES.iter().filter(|(_, mask)| self.features.x1_edx & mask != 0);
        // LMA follows paging and ignores what is written.
        let allowed = features.fold(cr::EFER_LMA, |allowed, (flag, _)| allowed | flag);
        let lme_changes = (value ^ self.efer) & cr::EFER_LME != 0;
        if value & !allowed != 0 || lme_changes && self.cr0 & cr::CR0_PG != 0 {
            return MsrWrite::Refused;
        }
        self.efer = value & !cr::EFER_LMA | self.efer & cr::EFER_LMA;
        self.mode_changed();
        MsrWrite::Done
    }

    /// AMD's silicon keeps the low halves only, and that shows to a guest that knows it runs on AMD. The upper halves of a
    /// guest that was promised an Intel CPU are kept by the hypervisor.
    fn write_sysenter(&mut self, index: u32, value: u64) -> MsrWrite {
        let value = if self.host == HostVendor::Amd && self.features.amd {
            value & 0xFFFF_FFFF
        } else if self.is_canonical_base(value) {
            value
        } else {
            return MsrWrite::Refused;
        };
        if index == msr::SYSENTER_ESP {
            self.msrs.sysenter_esp = value;
        } else {
            self.msrs.sysenter_eip = value;
        }
        MsrWrite::Done
    }
}

/// RDMSR.
pub fn rdmsr(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let index = cpu.regs[1] as u32;
    let reference = env.clock.ns_to_tsc(env.now_ns());
    let value = match cpu.read_msr(index, reference) {
        Some(value) => value,
        None => cpu.ask_bus(env, |vcpu, env| env.bus.msr_read(vcpu, index), |vcpu| Exit::MsrRead { vcpu, index })?,
    };
    u32::set(&mut cpu.regs, 0, value as u32);
    u32::set(&mut cpu.regs, 2, (value >> 32) as u32);
    Ok(Flow::Sync)
}

/// WRMSR.
pub fn wrmsr(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let index = cpu.regs[1] as u32;
    let value = cpu.regs[0] & 0xFFFF_FFFF | cpu.regs[2] << 32;
    let reference = env.clock.ns_to_tsc(env.now_ns());
    match cpu.write_msr(index, value, reference) {
        MsrWrite::Done => {}
        MsrWrite::TscOffset => {
            let now = env.now_ns();
            env.bus.advance(now);
            env.bus.set_tsc_offset(cpu.index, cpu.tsc_offset);
        }
        MsrWrite::Refused => return Err(cpu.gp0()),
        MsrWrite::Unknown => {
            let question = |vcpu: usize, env: &mut Env<'_>| match env.bus.msr_write(vcpu, index, value) {
                Reply::Done(()) => Reply::Done(0),
                Reply::Fault => Reply::Fault,
                Reply::Exit => Reply::Exit,
            };
            cpu.ask_bus(env, question, |vcpu| Exit::MsrWrite { vcpu, index, value })?;
        }
    }
    env.charge(cost::SERIALIZING);
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn values_that_are_refused() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        let noncanonical = 0xAA00_8000_0000_0000;
        for (index, value, expected) in [
            (msr::LSTAR, noncanonical, MsrWrite::Refused),
            (msr::LSTAR, 0xFFFF_8000_0000_0000, MsrWrite::Done),
            (msr::FS_BASE, noncanonical, MsrWrite::Refused),
            (msr::KERNEL_GS_BASE, noncanonical, MsrWrite::Refused),
            (msr::SYSENTER_EIP, noncanonical, MsrWrite::Refused),
            (msr::EFER, cr::EFER_LME | cr::EFER_SVME, MsrWrite::Refused),
            (msr::EFER, cr::EFER_SCE, MsrWrite::Refused),
            (msr::EFER, cr::EFER_LME | cr::EFER_SCE, MsrWrite::Done),
            (msr::TSC_AUX, 1 << 32, MsrWrite::Refused),
            (msr::MTRR_CAP, 0, MsrWrite::Refused),
            (msr::FEATURE_CONTROL, 5, MsrWrite::Refused),
            (msr::PRED_CMD, 2, MsrWrite::Refused),
            (msr::AMD_HWCR, 0, MsrWrite::Unknown),
            (0x1234, 0, MsrWrite::Unknown),
        ] {
            assert_eq!(cpu.write_msr(index, value, 0), expected, "{index:#x} {value:#x}");
        }
        assert_eq!(cpu.efer, cr::EFER_LME | cr::EFER_SCE | cr::EFER_LMA);
    }

    #[test]
    fn the_tsc_and_its_adjustment_move_together() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        assert_eq!(cpu.write_msr(msr::TSC, 5_000, 1_000), MsrWrite::TscOffset);
        assert_eq!(cpu.read_msr(msr::TSC_ADJUST, 0), Some(4_000));
        assert_eq!(cpu.write_msr(msr::TSC_ADJUST, 0, 2_000), MsrWrite::TscOffset);
        assert_eq!(cpu.read_msr(msr::TSC, 2_000), Some(2_000));
    }

    #[test]
    fn unknown_and_forbidden_ones_are_general_protection() {
        let mut machine = Machine::long64();
        machine.cpu.regs[1] = 0x1234;
        let op = Op::new(rdmsr);
        let result = machine.with(|cpu, env| rdmsr(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
        machine.cpu.regs[1] = msr::APIC_BASE.into();
        machine.with(|cpu, env| rdmsr(cpu, env, &op)).expect("the bus has it");
        assert_eq!(machine.cpu.regs[0], 0xFEE0_0900);
        machine.set_cpl(3);
        let result = machine.with(|cpu, env| rdmsr(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
    }

    #[test]
    fn amd_silicon_drops_the_upper_halves_of_sysenter() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        cpu.host = HostVendor::Amd;
        let value = 0xFFFF_8000_1234_5678;
        cpu.write_msr(msr::SYSENTER_EIP, value, 0);
        assert_eq!(cpu.msrs.sysenter_eip, value, "an Intel guest");
        cpu.features.amd = true;
        cpu.write_msr(msr::SYSENTER_EIP, value, 0);
        assert_eq!(cpu.msrs.sysenter_eip, 0x1234_5678);
    }
}
