//! MSR indices, SDM vol. 4 and APM vol. 2 appendix A.

/// Time-stamp counter.
pub const TSC: u32 = 0x10;
/// Local APIC base.
pub const APIC_BASE: u32 = 0x1B;
/// IA32_FEATURE_CONTROL.
pub const FEATURE_CONTROL: u32 = 0x3A;
/// TSC adjustment.
pub const TSC_ADJUST: u32 = 0x3B;
/// Microcode revision.
pub const BIOS_SIGN_ID: u32 = 0x8B;
/// MTRR capabilities.
pub const MTRR_CAP: u32 = 0xFE;
/// SYSENTER code segment.
pub const SYSENTER_CS: u32 = 0x174;
/// SYSENTER stack pointer.
pub const SYSENTER_ESP: u32 = 0x175;
/// SYSENTER entry point.
pub const SYSENTER_EIP: u32 = 0x176;
/// IA32_MISC_ENABLE.
pub const MISC_ENABLE: u32 = 0x1A0;
/// Debug control.
pub const DEBUGCTL: u32 = 0x1D9;
/// First variable-range MTRR (base 0).
pub const MTRR_PHYS_BASE0: u32 = 0x200;
/// Last variable-range MTRR (mask 7).
pub const MTRR_PHYS_MASK_LAST: u32 = 0x20F;
/// Page attribute table.
pub const PAT: u32 = 0x277;
/// MTRR default type.
pub const MTRR_DEF_TYPE: u32 = 0x2FF;
/// TSC deadline of the local APIC timer.
pub const TSC_DEADLINE: u32 = 0x6E0;
/// IA32_PKRS.
pub const PKRS: u32 = 0x6E1;
/// First x2APIC register.
pub const X2APIC_BASE: u32 = 0x800;
/// Last x2APIC register.
pub const X2APIC_LAST: u32 = 0x8FF;
/// Extended features.
pub const EFER: u32 = 0xC000_0080;
/// SYSCALL selectors.
pub const STAR: u32 = 0xC000_0081;
/// SYSCALL entry, 64-bit.
pub const LSTAR: u32 = 0xC000_0082;
/// SYSCALL entry, compatibility mode.
pub const CSTAR: u32 = 0xC000_0083;
/// SYSCALL flag mask.
pub const SFMASK: u32 = 0xC000_0084;
/// FS.base.
pub const FS_BASE: u32 = 0xC000_0100;
/// GS.base.
pub const GS_BASE: u32 = 0xC000_0101;
/// The other GS.base, swapped in by SWAPGS.
pub const KERNEL_GS_BASE: u32 = 0xC000_0102;
/// RDTSCP's auxiliary value.
pub const TSC_AUX: u32 = 0xC000_0103;

/// APIC_BASE: this is the boot processor.
pub const APIC_BASE_BSP: u64 = 1 << 8;
/// APIC_BASE: x2APIC mode.
pub const APIC_BASE_EXTD: u64 = 1 << 10;
/// APIC_BASE: APIC enabled.
pub const APIC_BASE_ENABLE: u64 = 1 << 11;

/// IA32_P5_MC_ADDR.
pub const P5_MC_ADDR: u32 = 0;
/// IA32_P5_MC_TYPE.
pub const P5_MC_TYPE: u32 = 1;
/// IA32_PLATFORM_ID.
pub const PLATFORM_ID: u32 = 0x17;
/// IA32_SPEC_CTRL.
pub const SPEC_CTRL: u32 = 0x48;
/// IA32_PRED_CMD.
pub const PRED_CMD: u32 = 0x49;
/// IA32_ARCH_CAPABILITIES.
pub const ARCH_CAPABILITIES: u32 = 0x10A;
/// IA32_MCG_CAP.
pub const MCG_CAP: u32 = 0x179;
/// IA32_MCG_STATUS.
pub const MCG_STATUS: u32 = 0x17A;
/// IA32_MCG_CTL.
pub const MCG_CTL: u32 = 0x17B;
/// IA32_PERF_STATUS.
pub const PERF_STATUS: u32 = 0x198;
/// First fixed-range MTRR: 64 KiB pieces from 0.
pub const MTRR_FIX64K: u32 = 0x250;
/// The two fixed-range MTRRs of 16 KiB pieces.
pub const MTRR_FIX16K: u32 = 0x258;
/// The first of eight fixed-range MTRRs of 4 KiB pieces.
pub const MTRR_FIX4K: u32 = 0x268;
/// CTL of the first machine-check bank; STATUS, ADDR, MISC and the other banks follow.
pub const MC0_CTL: u32 = 0x400;
/// AMD: SYSCFG.
pub const AMD_SYSCFG: u32 = 0xC001_0010;
/// AMD: HWCR.
pub const AMD_HWCR: u32 = 0xC001_0015;
/// AMD: NB_CFG.
pub const AMD_NB_CFG: u32 = 0xC001_001F;
/// AMD: interrupt pending and CMP-halt.
pub const AMD_INT_PENDING: u32 = 0xC001_0055;
/// AMD: TSEG base.
pub const AMD_TSEG_BASE: u32 = 0xC001_0112;
/// AMD: TSEG mask.
pub const AMD_TSEG_MASK: u32 = 0xC001_0113;
/// AMD: VM_CR.
pub const AMD_VM_CR: u32 = 0xC001_0114;
/// AMD: LS_CFG.
pub const AMD_LS_CFG: u32 = 0xC001_1020;
/// AMD: DC_CFG.
pub const AMD_DC_CFG: u32 = 0xC001_1022;
/// AMD: DE_CFG.
pub const AMD_DE_CFG: u32 = 0xC001_1029;
/// AMD: BU_CFG2.
pub const AMD_BU_CFG2: u32 = 0xC001_102A;
/// AMD: first of the four performance event selects.
pub const AMD_PERF_EVENT_SELECT0: u32 = 0xC001_0000;
/// AMD: last of the four performance event selects.
pub const AMD_PERF_EVENT_SELECT3: u32 = 0xC001_0003;
/// AMD: first of the four performance counters.
pub const AMD_PERF_COUNTER0: u32 = 0xC001_0004;
/// AMD: last of the four performance counters, which follow the selects.
pub const AMD_PERF_COUNTER3: u32 = 0xC001_0007;
/// AMD: CLK_CTL of the K7.
pub const AMD_CLK_CTL: u32 = 0xC001_001B;
/// AMD: microcode patch loader.
pub const AMD_PATCH_LOADER: u32 = 0xC001_0020;
/// AMD: base of the configuration space in memory.
pub const AMD_MMIO_CONF_BASE: u32 = 0xC001_0058;
/// AMD: VIRT_SPEC_CTRL, which hypervisors provide.
pub const AMD_VIRT_SPEC_CTRL: u32 = 0xC001_011F;
/// AMD: TW_CFG.
pub const AMD_TW_CFG: u32 = 0xC001_1023;
/// AMD: EX_CFG of family 15h.
pub const AMD_EX_CFG: u32 = 0xC001_102C;

/// EBL_CR_POWERON.
pub const EBL_CR_POWERON: u32 = 0x2A;
/// EBC_FREQUENCY_ID of the Pentium 4.
pub const EBC_FREQUENCY_ID: u32 = 0x2C;
/// SMI_COUNT.
pub const SMI_COUNT: u32 = 0x34;
/// IA32_BIOS_UPDT_TRIG.
pub const BIOS_UPDT_TRIG: u32 = 0x79;
/// FSB_FREQ of the Core.
pub const FSB_FREQ: u32 = 0xCD;
/// PLATFORM_INFO.
pub const PLATFORM_INFO: u32 = 0xCE;
/// IA32_FLUSH_CMD.
pub const FLUSH_CMD: u32 = 0x10B;
/// BBL_CR_CTL3.
pub const BBL_CR_CTL3: u32 = 0x11E;
/// MISC_FEATURES_ENABLES.
pub const MISC_FEATURES_ENABLES: u32 = 0x140;
/// IA32_PERF_CTL.
pub const PERF_CTL: u32 = 0x199;
/// LASTBRANCHFROMIP, the first of four of the P6: then LASTBRANCHTOIP, LASTINTFROMIP, LASTINTTOIP.
pub const LAST_BRANCH_FROM_IP: u32 = 0x1DB;
/// LASTINTTOIP.
pub const LAST_INT_TO_IP: u32 = 0x1DE;
/// POWER_CTL.
pub const POWER_CTL: u32 = 0x1FC;
/// RAPL_POWER_UNIT.
pub const RAPL_POWER_UNIT: u32 = 0x606;
/// PKG_ENERGY_STATUS.
pub const PKG_ENERGY_STATUS: u32 = 0x611;
/// DRAM_ENERGY_STATUS.
pub const DRAM_ENERGY_STATUS: u32 = 0x619;
/// PP0_ENERGY_STATUS.
pub const PP0_ENERGY_STATUS: u32 = 0x639;
/// PP1_ENERGY_STATUS.
pub const PP1_ENERGY_STATUS: u32 = 0x641;

/// IA32_SPEC_CTRL: indirect branch restricted speculation.
pub const SPEC_CTRL_IBRS: u64 = 1 << 0;
/// IA32_SPEC_CTRL: single thread indirect branch predictors.
pub const SPEC_CTRL_STIBP: u64 = 1 << 1;
/// IA32_SPEC_CTRL, and VIRT_SPEC_CTRL: speculative store bypass disable.
pub const SPEC_CTRL_SSBD: u64 = 1 << 2;
/// IA32_SPEC_CTRL: indirect predictor disable, for user and for supervisor code.
pub const SPEC_CTRL_IPRED_DIS: u64 = 3 << 3;
/// IA32_SPEC_CTRL: restricted alternate return predictions disable, for user and for supervisor code.
pub const SPEC_CTRL_RRSBA_DIS: u64 = 3 << 5;
/// IA32_SPEC_CTRL: predictive store forwarding disable.
pub const SPEC_CTRL_PSFD: u64 = 1 << 7;
/// IA32_SPEC_CTRL: data-dependent prefetcher disable, for user code.
pub const SPEC_CTRL_DDPD_U: u64 = 1 << 8;
/// IA32_SPEC_CTRL: branch history injection disable, for supervisor code.
pub const SPEC_CTRL_BHI_DIS_S: u64 = 1 << 10;
/// IA32_PRED_CMD: indirect branch prediction barrier.
pub const PRED_CMD_IBPB: u64 = 1 << 0;
/// IA32_PRED_CMD (AMD): selective branch prediction barrier.
pub const PRED_CMD_SBPB: u64 = 1 << 7;
/// IA32_FLUSH_CMD: write back and invalidate the L1 data cache.
pub const FLUSH_CMD_L1D: u64 = 1 << 0;
/// MISC_FEATURES_ENABLES: CPUID above CPL 0 is #GP.
pub const MISC_FEATURES_CPUID_FAULT: u64 = 1 << 0;
/// IA32_XSS.
pub const XSS: u32 = 0xDA0;

/// IA32_PMC0, the first general performance counter.
pub const PERF_COUNTER0: u32 = 0xC1;
/// The second one, the last that every CPU since the P6 has.
pub const PERF_COUNTER1: u32 = 0xC2;
/// IA32_PMC3.
pub const PERF_COUNTER3: u32 = 0xC4;
/// IA32_PERFEVTSEL0.
pub const PERF_EVENT_SELECT0: u32 = 0x186;
/// IA32_PERFEVTSEL1.
pub const PERF_EVENT_SELECT1: u32 = 0x187;
/// IA32_PERFEVTSEL3.
pub const PERF_EVENT_SELECT3: u32 = 0x189;
/// IA32_FIXED_CTR0, instructions; cycles and cycles of reference follow.
pub const FIXED_CTR0: u32 = 0x309;
/// IA32_FIXED_CTR2.
pub const FIXED_CTR2: u32 = 0x30B;
/// IA32_FIXED_CTR_CTRL.
pub const FIXED_CTR_CTRL: u32 = 0x38D;
/// IA32_PERF_GLOBAL_STATUS.
pub const PERF_GLOBAL_STATUS: u32 = 0x38E;
/// IA32_PERF_GLOBAL_CTRL.
pub const PERF_GLOBAL_CTRL: u32 = 0x38F;
/// IA32_PERF_GLOBAL_OVF_CTRL.
pub const PERF_GLOBAL_OVF_CTRL: u32 = 0x390;
/// AMD: PERF_CTL0; PERF_CTR0 and five more pairs follow.
pub const AMD_PERF_CTL0: u32 = 0xC001_0200;
/// AMD: PERF_CTR0.
pub const AMD_PERF_CTR0: u32 = 0xC001_0201;
/// AMD: PERF_CTR5.
pub const AMD_PERF_CTR5: u32 = 0xC001_020B;
