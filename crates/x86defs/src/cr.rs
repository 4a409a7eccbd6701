//! Control register bits, SDM vol. 3 section 2.5.

/// CR0.PE, protected mode.
pub const CR0_PE: u64 = 1 << 0;
/// CR0.MP, WAIT honours TS.
pub const CR0_MP: u64 = 1 << 1;
/// CR0.EM, no x87.
pub const CR0_EM: u64 = 1 << 2;
/// CR0.TS, task switched.
pub const CR0_TS: u64 = 1 << 3;
/// CR0.ET, always one.
pub const CR0_ET: u64 = 1 << 4;
/// CR0.NE, x87 errors as #MF.
pub const CR0_NE: u64 = 1 << 5;
/// CR0.WP, supervisor writes honour read-only pages.
pub const CR0_WP: u64 = 1 << 16;
/// CR0.AM, alignment checks allowed.
pub const CR0_AM: u64 = 1 << 18;
/// CR0.NW.
pub const CR0_NW: u64 = 1 << 29;
/// CR0.CD.
pub const CR0_CD: u64 = 1 << 30;
/// CR0.PG, paging.
pub const CR0_PG: u64 = 1 << 31;
/// Every defined bit of CR0; others in the low half are ignored, the high half must be zero.
pub const CR0_DEFINED: u64 =
    CR0_PE | CR0_MP | CR0_EM | CR0_TS | CR0_ET | CR0_NE | CR0_WP | CR0_AM | CR0_NW | CR0_CD | CR0_PG;

/// CR4.VME.
pub const CR4_VME: u64 = 1 << 0;
/// CR4.PVI.
pub const CR4_PVI: u64 = 1 << 1;
/// CR4.TSD, RDTSC only at CPL 0.
pub const CR4_TSD: u64 = 1 << 2;
/// CR4.DE, debugging extensions.
pub const CR4_DE: u64 = 1 << 3;
/// CR4.PSE, 4 MiB pages in 32-bit paging.
pub const CR4_PSE: u64 = 1 << 4;
/// CR4.PAE.
pub const CR4_PAE: u64 = 1 << 5;
/// CR4.MCE.
pub const CR4_MCE: u64 = 1 << 6;
/// CR4.PGE, global pages.
pub const CR4_PGE: u64 = 1 << 7;
/// CR4.PCE, RDPMC at CPL > 0.
pub const CR4_PCE: u64 = 1 << 8;
/// CR4.OSFXSR.
pub const CR4_OSFXSR: u64 = 1 << 9;
/// CR4.OSXMMEXCPT.
pub const CR4_OSXMMEXCPT: u64 = 1 << 10;
/// CR4.UMIP.
pub const CR4_UMIP: u64 = 1 << 11;
/// CR4.LA57, five-level paging.
pub const CR4_LA57: u64 = 1 << 12;
/// CR4.VMXE.
pub const CR4_VMXE: u64 = 1 << 13;
/// CR4.SMXE.
pub const CR4_SMXE: u64 = 1 << 14;
/// CR4.FSGSBASE.
pub const CR4_FSGSBASE: u64 = 1 << 16;
/// CR4.PCIDE.
pub const CR4_PCIDE: u64 = 1 << 17;
/// CR4.OSXSAVE.
pub const CR4_OSXSAVE: u64 = 1 << 18;
/// CR4.SMEP.
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP.
pub const CR4_SMAP: u64 = 1 << 21;
/// CR4.PKE, protection keys for user pages.
pub const CR4_PKE: u64 = 1 << 22;
/// CR4.CET.
pub const CR4_CET: u64 = 1 << 23;
/// CR4.PKS, protection keys for supervisor pages.
pub const CR4_PKS: u64 = 1 << 24;
/// CR4.LAM_SUP, linear-address masking of supervisor pointers.
pub const CR4_LAM_SUP: u64 = 1 << 28;

/// CR3: the page table is not to be flushed (MOV to CR3 with PCIDs).
pub const CR3_NOFLUSH: u64 = 1 << 63;
/// CR3: linear-address masking of user pointers with metadata in bits 62:57.
pub const CR3_LAM_U57: u64 = 1 << 61;
/// CR3: linear-address masking of user pointers with metadata in bits 62:48.
pub const CR3_LAM_U48: u64 = 1 << 62;
/// CR3: process-context identifier.
pub const CR3_PCID: u64 = 0xFFF;

/// EFER.SCE, SYSCALL enabled.
pub const EFER_SCE: u64 = 1 << 0;
/// EFER.LME, long mode enabled.
pub const EFER_LME: u64 = 1 << 8;
/// EFER.LMA, long mode active.
pub const EFER_LMA: u64 = 1 << 10;
/// EFER.NXE.
pub const EFER_NXE: u64 = 1 << 11;
/// EFER.SVME (AMD).
pub const EFER_SVME: u64 = 1 << 12;
/// EFER.LMSLE (AMD).
pub const EFER_LMSLE: u64 = 1 << 13;
/// EFER.FFXSR (AMD).
pub const EFER_FFXSR: u64 = 1 << 14;
/// EFER.AIBRSE, automatic IBRS (AMD).
pub const EFER_AIBRSE: u64 = 1 << 21;
