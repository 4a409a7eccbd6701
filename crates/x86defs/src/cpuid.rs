//! CPUID feature bits that the CPU's own behaviour depends on, SDM vol. 2 CPUID.
//!
//! A feature is named `LEAF_REGISTER_NAME`; the value is the bit's mask.

/// Leaf 1 ECX: PCID.
pub const L1_ECX_PCID: u32 = 1 << 17;
/// Leaf 1 ECX: MOVBE.
pub const L1_ECX_MOVBE: u32 = 1 << 22;
/// Leaf 1 ECX: POPCNT.
pub const L1_ECX_POPCNT: u32 = 1 << 23;
/// Leaf 1 ECX: x2APIC.
pub const L1_ECX_X2APIC: u32 = 1 << 21;
/// Leaf 1 ECX: MONITOR/MWAIT.
pub const L1_ECX_MONITOR: u32 = 1 << 3;
/// Leaf 1 ECX: CMPXCHG16B.
pub const L1_ECX_CX16: u32 = 1 << 13;
/// Leaf 1 ECX: TSC deadline timer.
pub const L1_ECX_TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: XSAVE.
pub const L1_ECX_XSAVE: u32 = 1 << 26;
/// Leaf 1 ECX: CR4.OSXSAVE is set.
pub const L1_ECX_OSXSAVE: u32 = 1 << 27;
/// Leaf 1 ECX: a hypervisor is present.
pub const L1_ECX_HYPERVISOR: u32 = 1 << 31;
/// Leaf 1 ECX: RDRAND.
pub const L1_ECX_RDRAND: u32 = 1 << 30;

/// Leaf 1 EDX: virtual-8086 mode extensions.
pub const L1_EDX_VME: u32 = 1 << 1;
/// Leaf 1 EDX: debugging extensions.
pub const L1_EDX_DE: u32 = 1 << 2;
/// Leaf 1 EDX: 4 MiB pages.
pub const L1_EDX_PSE: u32 = 1 << 3;
/// Leaf 1 EDX: time-stamp counter.
pub const L1_EDX_TSC: u32 = 1 << 4;
/// Leaf 1 EDX: RDMSR and WRMSR.
pub const L1_EDX_MSR: u32 = 1 << 5;
/// Leaf 1 EDX: physical address extension.
pub const L1_EDX_PAE: u32 = 1 << 6;
/// Leaf 1 EDX: machine-check exception.
pub const L1_EDX_MCE: u32 = 1 << 7;
/// Leaf 1 EDX: local APIC present and enabled.
pub const L1_EDX_APIC: u32 = 1 << 9;
/// Leaf 1 EDX: SYSENTER and SYSEXIT.
pub const L1_EDX_SEP: u32 = 1 << 11;
/// Leaf 1 EDX: memory type range registers.
pub const L1_EDX_MTRR: u32 = 1 << 12;
/// Leaf 1 EDX: global pages.
pub const L1_EDX_PGE: u32 = 1 << 13;
/// Leaf 1 EDX: machine-check architecture.
pub const L1_EDX_MCA: u32 = 1 << 14;
/// Leaf 1 EDX: page attribute table.
pub const L1_EDX_PAT: u32 = 1 << 16;
/// Leaf 1 EDX: 36-bit addresses of 4 MiB pages.
pub const L1_EDX_PSE36: u32 = 1 << 17;
/// Leaf 1 EDX: FXSAVE and FXRSTOR.
pub const L1_EDX_FXSR: u32 = 1 << 24;
/// Leaf 1 EDX: SSE.
pub const L1_EDX_SSE: u32 = 1 << 25;
/// Leaf 1 EDX: SSE2.
pub const L1_EDX_SSE2: u32 = 1 << 26;

/// Leaf 7 EBX: RDFSBASE and its like.
pub const L7_EBX_FSGSBASE: u32 = 1 << 0;
/// Leaf 7 EBX: IA32_TSC_ADJUST.
pub const L7_EBX_TSC_ADJUST: u32 = 1 << 1;
/// Leaf 7 EBX: FDP is updated by exceptions that are not masked only.
pub const L7_EBX_FDP_EXCPTN_ONLY: u32 = 1 << 6;
/// Leaf 7 EBX: SMEP.
pub const L7_EBX_SMEP: u32 = 1 << 7;
/// Leaf 7 EBX: INVPCID.
pub const L7_EBX_INVPCID: u32 = 1 << 10;
/// Leaf 7 EBX: FCS and FDS are deprecated, and saved as zero.
pub const L7_EBX_NO_FCS_FDS: u32 = 1 << 13;
/// Leaf 7 EBX: SMAP.
pub const L7_EBX_SMAP: u32 = 1 << 20;
/// Leaf 7 ECX: UMIP.
pub const L7_ECX_UMIP: u32 = 1 << 2;
/// Leaf 7 ECX: protection keys for user pages.
pub const L7_ECX_PKU: u32 = 1 << 3;
/// Leaf 7 ECX: CR4.PKE is set.
pub const L7_ECX_OSPKE: u32 = 1 << 4;
/// Leaf 7 ECX: five-level paging.
pub const L7_ECX_LA57: u32 = 1 << 16;
/// Leaf 7 ECX: RDPID.
pub const L7_ECX_RDPID: u32 = 1 << 22;
/// Leaf 7 ECX: protection keys for supervisor pages.
pub const L7_ECX_PKS: u32 = 1 << 31;
/// Leaf 7.1 EAX: linear-address masking.
pub const L7_1_EAX_LAM: u32 = 1 << 26;
/// Leaf 7 EDX: IBRS and IBPB (Intel's enumeration).
pub const L7_EDX_SPEC_CTRL: u32 = 1 << 26;
/// Leaf 7 EDX: STIBP (Intel's enumeration).
pub const L7_EDX_STIBP: u32 = 1 << 27;
/// Leaf 7 EDX: IA32_FLUSH_CMD.
pub const L7_EDX_FLUSH_L1D: u32 = 1 << 28;
/// Leaf 7 EDX: IA32_ARCH_CAPABILITIES.
pub const L7_EDX_ARCH_CAPABILITIES: u32 = 1 << 29;
/// Leaf 7 EDX: SSBD.
pub const L7_EDX_SSBD: u32 = 1 << 31;

/// Leaf 7.2 EDX: SPEC_CTRL.PSFD.
pub const L7_2_EDX_PSFD: u32 = 1 << 0;
/// Leaf 7.2 EDX: SPEC_CTRL.IPRED_DIS_U and IPRED_DIS_S.
pub const L7_2_EDX_IPRED_CTRL: u32 = 1 << 1;
/// Leaf 7.2 EDX: SPEC_CTRL.RRSBA_DIS_U and RRSBA_DIS_S.
pub const L7_2_EDX_RRSBA_CTRL: u32 = 1 << 2;
/// Leaf 7.2 EDX: SPEC_CTRL.DDPD_U.
pub const L7_2_EDX_DDPD_U: u32 = 1 << 3;
/// Leaf 7.2 EDX: SPEC_CTRL.BHI_DIS_S.
pub const L7_2_EDX_BHI_CTRL: u32 = 1 << 4;

/// Leaf 0xD.1 EAX: XSAVES, XRSTORS and IA32_XSS.
pub const XSAVE_EAX_XSAVES: u32 = 1 << 3;

/// Leaf 0x80000001 ECX: MXCSR.MM (AMD).
pub const X1_ECX_MISALIGNSSE: u32 = 1 << 7;
/// Leaf 0x80000001 ECX: six performance counters with pairs of MSRs (AMD).
pub const X1_ECX_PERFCTR_CORE: u32 = 1 << 23;
/// Leaf 0x80000001 EDX: SYSCALL and SYSRET.
pub const X1_EDX_SYSCALL: u32 = 1 << 11;
/// Leaf 0x80000001 EDX: no-execute.
pub const X1_EDX_NX: u32 = 1 << 20;
/// Leaf 0x80000001 EDX: fast FXSAVE (AMD).
pub const X1_EDX_FFXSR: u32 = 1 << 25;
/// Leaf 0x80000001 EDX: 1 GiB pages.
pub const X1_EDX_PAGE1GB: u32 = 1 << 26;
/// Leaf 0x80000001 EDX: RDTSCP and IA32_TSC_AUX.
pub const X1_EDX_RDTSCP: u32 = 1 << 27;
/// Leaf 0x80000001 EDX: long mode.
pub const X1_EDX_LM: u32 = 1 << 29;

/// Leaf 0x80000008 EBX: IBPB (AMD's enumeration, as the next ones).
pub const X8_EBX_IBPB: u32 = 1 << 12;
/// Leaf 0x80000008 EBX: IBRS.
pub const X8_EBX_IBRS: u32 = 1 << 14;
/// Leaf 0x80000008 EBX: STIBP.
pub const X8_EBX_STIBP: u32 = 1 << 15;
/// Leaf 0x80000008 EBX: SSBD.
pub const X8_EBX_SSBD: u32 = 1 << 24;
/// Leaf 0x80000008 EBX: VIRT_SPEC_CTRL has SSBD.
pub const X8_EBX_VIRT_SSBD: u32 = 1 << 25;
/// Leaf 0x80000008 EBX: PSFD.
pub const X8_EBX_PSFD: u32 = 1 << 28;

/// Leaf 0x80000021 EAX: a null selector clears the base (AMD).
pub const X21_EAX_NULL_SEL_CLR_BASE: u32 = 1 << 6;
/// Leaf 0x80000021 EAX: EFER.AIBRSE (AMD).
pub const X21_EAX_AUTO_IBRS: u32 = 1 << 8;
/// Leaf 0x80000021 EAX: PRED_CMD.SBPB (AMD).
pub const X21_EAX_SBPB: u32 = 1 << 27;
