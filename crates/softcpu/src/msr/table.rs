//! Every MSR that the core owns: one row says for whom it exists, what it reads after reset, and what may be written.
//!
//! Sources: SDM vol. 4 chapter 2, APM vol. 2 appendix A, and for MSRs that belong to models of a CPU rather than to the
//! architecture what KVM gives its guests, since guests that run there must run here.

use x86defs::msr;

use super::announced::{self as if_, Condition};
use super::{MsrWrite, When, cache_control, computed, machine_check};
use crate::cpu::Cpu;
use crate::features::Features;
use crate::pmu;

/// MSRs with consecutive indices and the same rules.
pub struct Row {
    /// The first index.
    pub first: u32,
    /// The last index, inclusive.
    pub last: u32,
    /// To whom it is there; for everybody else it is as any index without a row.
    pub exists: Condition,
    /// What it does.
    pub rule: Rule,
}

/// What an MSR does.
#[derive(Clone, Copy)]
pub enum Rule {
    /// Reads as this. Writing is #GP.
    Constant(u64),
    /// Reads as what is announced. Writing is #GP.
    Announced(fn(&Features) -> u64),
    /// Reads as this. What is written is ignored.
    Ignored(u64),
    /// Holds what was written; its value after RESET.
    Kept(Kept, u64, Bits),
    /// Reading is #GP. These bits can be written, and nothing follows; others are #GP.
    Command(fn(&Features) -> u64),
    /// Whatever the two functions do.
    Computed(Read, Write),
}

/// Reads an MSR; `None` if this index does not exist after all.
pub type Read = fn(&Cpu, u32, When) -> Option<u64>;
/// Writes an MSR that can be read.
pub type Write = fn(&mut Cpu, u32, u64, When) -> MsrWrite;

/// What may be written to an MSR that is kept.
#[derive(Clone, Copy)]
pub enum Bits {
    /// Anything.
    Any,
    /// These bits; any other one is #GP.
    Only(u64),
    /// As `Only`, with bits that depend on what is announced.
    OnlyAnnounced(fn(&Features) -> u64),
    /// These bits; others are dropped.
    Dropping(u64),
    /// `writable` bits; `ignored` ones may be written and stay as they are; any other one is #GP if it would change.
    Ignoring { writable: u64, ignored: u64 },
    /// An address; one that is not canonical is #GP.
    Canonical,
}

macro_rules! kept {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// An MSR whose value is nothing but what was written.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Kept { $($(#[$doc])* $name),* }

        /// How many there are.
        pub const NUM_KEPT: usize = [$(Kept::$name),*].len();
    };
}

kept! {
    /// STAR.
    Star,
    /// LSTAR.
    Lstar,
    /// CSTAR.
    Cstar,
    /// SFMASK.
    Sfmask,
    /// KERNEL_GS_BASE.
    KernelGsBase,
    /// IA32_SYSENTER_CS.
    SysenterCs,
    /// IA32_TSC_AUX.
    TscAux,
    /// IA32_MISC_ENABLE.
    MiscEnable,
    /// IA32_SPEC_CTRL.
    SpecCtrl,
    /// AMD's VIRT_SPEC_CTRL.
    VirtSpecCtrl,
    /// MISC_FEATURES_ENABLES.
    MiscFeatures,
    /// IA32_PKRS.
    Pkrs,
    /// POWER_CTL.
    PowerCtl,
    /// IA32_XSS.
    Xss,
    /// AMD's HWCR.
    Hwcr,
    /// AMD's DE_CFG.
    DeCfg,
}

/// A row with one MSR.
const fn one(index: u32, exists: Condition, rule: Rule) -> Row {
    Row { first: index, last: index, exists, rule }
}

/// A row with several.
const fn many(first: u32, last: u32, exists: Condition, rule: Rule) -> Row {
    Row { first, last, exists, rule }
}

const LOW: u64 = 0xFFFF_FFFF;
/// IA32_MISC_ENABLE: no branch trace store, no precise event sampling; changing them is #GP.
const MISC_ENABLE_FIXED: u64 = 1 << 11 | 1 << 12;
/// IA32_MISC_ENABLE: performance monitoring is available, read-only.
const MISC_ENABLE_EMON: u64 = 1 << 7;
/// HWCR: status registers of machine checks can be written (18).
const HWCR_WRITABLE: u64 = 1 << 18 | HWCR_TSC_FREQUENCY_SELECT;
/// HWCR: the TSC counts with the frequency of P0, as ours does from the start; guests call a BIOS broken that leaves it clear.
const HWCR_TSC_FREQUENCY_SELECT: u64 = 1 << 24;
/// HWCR: TLB cache disable, flush filter disable, IGNNE emulation.
const HWCR_IGNORED: u64 = 1 << 3 | 1 << 6 | 1 << 8;
/// DE_CFG: LFENCE serialises.
const DE_CFG_LFENCE: u64 = 1 << 1;
/// IA32_PERF_STATUS: a current ratio, and in bits 44:40 that of the bus: what they are matters to nobody.
const PERF_STATUS: u64 = 1000 | 4 << 40;
/// A microcode revision that no guest takes for an old one, which makes Linux switch features off, whatever CPU it is told
/// of. It is in the upper half on Intel's.
const MICROCODE_INTEL: u64 = 0x0FFF_FFFF << 32;
const MICROCODE_AMD: u64 = 0x0FFF_FFFF;

use Bits::*;
use Rule::*;

const APERTURE: Rule = Computed(cache_control::read, cache_control::write);
const COUNTER: Rule = Computed(pmu::read_counter, pmu::write_counter);
const EVENT_SELECT: Rule = Computed(pmu::read_select, pmu::write_select);
const BANK: Rule = Computed(machine_check::read, machine_check::write);

/// All of them, by their last index. Where vendors differ an index has several rows, of which the first one that exists counts.
#[rustfmt::skip]
pub static TABLE: &[Row] = &[
    many(msr::P5_MC_ADDR, msr::P5_MC_TYPE, if_::always, Constant(0)),
    one(msr::TSC, if_::tsc, Computed(computed::read_tsc, computed::write_tsc)),
    one(msr::PLATFORM_ID, if_::always, Constant(0)),
    one(msr::EBL_CR_POWERON, if_::always, Constant(0)),
    one(msr::EBC_FREQUENCY_ID, if_::intel, Constant(1 << 24)),
    one(msr::SMI_COUNT, if_::intel, Constant(0)),
    // Locked, with nothing enabled.
    one(msr::FEATURE_CONTROL, if_::intel, Constant(1)),
    one(msr::TSC_ADJUST, if_::tsc_adjust, Computed(computed::read_tsc_adjust, computed::write_tsc_adjust)),
    one(msr::SPEC_CTRL, if_::spec_ctrl, Kept(Kept::SpecCtrl, 0, OnlyAnnounced(if_::spec_ctrl_bits))),
    one(msr::PRED_CMD, if_::pred_cmd, Command(if_::pred_cmd_bits)),
    // Loading microcode succeeds, and the revision stays (SDM vol. 3 section 10.11.7).
    one(msr::BIOS_UPDT_TRIG, if_::intel, Command(if_::all_bits)),
    one(msr::BIOS_SIGN_ID, if_::intel, Ignored(MICROCODE_INTEL)),
    one(msr::BIOS_SIGN_ID, if_::amd, Ignored(MICROCODE_AMD)),
    // Counters and selects that every CPU since the P6 has count nothing unless counters are announced.
    many(msr::PERF_COUNTER0, msr::PERF_COUNTER1, if_::no_intel_counters, Ignored(0)),
    many(msr::PERF_COUNTER0, msr::PERF_COUNTER3, if_::intel_counters, COUNTER),
    one(msr::FSB_FREQ, if_::intel, Constant(3)),
    // CPUID can be made to fault.
    one(msr::PLATFORM_INFO, if_::always, Constant(1 << 31)),
    one(msr::MTRR_CAP, if_::mtrr, APERTURE),
    one(msr::ARCH_CAPABILITIES, if_::arch_capabilities, Announced(|f| f.arch_capabilities)),
    one(msr::FLUSH_CMD, if_::flush_cmd, Command(if_::flush_cmd_bits)),
    one(msr::BBL_CR_CTL3, if_::intel, Ignored(0xBE70_2111)),
    one(msr::MISC_FEATURES_ENABLES, if_::always, Kept(Kept::MiscFeatures, 0, Only(msr::MISC_FEATURES_CPUID_FAULT))),
    one(msr::SYSENTER_CS, if_::sysenter, Kept(Kept::SysenterCs, 0, Dropping(LOW))),
    many(msr::SYSENTER_ESP, msr::SYSENTER_EIP, if_::sysenter, Computed(computed::read_sysenter, computed::write_sysenter)),
    many(msr::MCG_CAP, msr::MCG_CTL, if_::machine_check, BANK),
    many(msr::PERF_EVENT_SELECT0, msr::PERF_EVENT_SELECT1, if_::no_intel_counters, Ignored(0)),
    many(msr::PERF_EVENT_SELECT0, msr::PERF_EVENT_SELECT3, if_::intel_counters, EVENT_SELECT),
    one(msr::PERF_STATUS, if_::intel, Constant(PERF_STATUS)),
    one(msr::PERF_CTL, if_::intel, Constant(0)),
    // Bits that nobody knows are kept as well, as KVM does.
    one(msr::MISC_ENABLE, if_::always, Kept(Kept::MiscEnable, 1 | MISC_ENABLE_FIXED,
        Ignoring { writable: !(MISC_ENABLE_FIXED | MISC_ENABLE_EMON), ignored: MISC_ENABLE_EMON })),
    one(msr::DEBUGCTL, if_::always, Computed(computed::read_debugctl, computed::write_debugctl)),
    // There is no record of branches and exceptions.
    many(msr::LAST_BRANCH_FROM_IP, msr::LAST_INT_TO_IP, if_::always, Constant(0)),
    one(msr::POWER_CTL, if_::intel, Kept(Kept::PowerCtl, 0, Any)),
    many(msr::MTRR_PHYS_BASE0, msr::MTRR_PHYS_MASK_LAST, if_::mtrr, APERTURE),
    one(msr::MTRR_FIX64K, if_::mtrr, APERTURE),
    many(msr::MTRR_FIX16K, msr::MTRR_FIX16K + 1, if_::mtrr, APERTURE),
    many(msr::MTRR_FIX4K, msr::MTRR_FIX4K + 7, if_::mtrr, APERTURE),
    one(msr::PAT, if_::pat, APERTURE),
    one(msr::MTRR_DEF_TYPE, if_::mtrr, APERTURE),
    many(msr::FIXED_CTR0, msr::FIXED_CTR2, if_::intel_counters, Computed(pmu::read_fixed, pmu::write_fixed)),
    one(msr::FIXED_CTR_CTRL, if_::intel_counters, Computed(pmu::read_fixed_ctrl, pmu::write_fixed_ctrl)),
    one(msr::PERF_GLOBAL_STATUS, if_::intel_counters, Computed(pmu::read_global_status, pmu::write_global_status)),
    one(msr::PERF_GLOBAL_CTRL, if_::intel_counters, Computed(pmu::read_global_ctrl, pmu::write_global_ctrl)),
    one(msr::PERF_GLOBAL_OVF_CTRL, if_::intel_counters, Computed(pmu::read_ovf_ctrl, pmu::write_ovf_ctrl)),
    many(msr::MC0_CTL, machine_check::LAST, if_::machine_check, BANK),
    one(msr::RAPL_POWER_UNIT, if_::intel, Constant(0)),
    one(msr::PKG_ENERGY_STATUS, if_::intel, Constant(0)),
    one(msr::DRAM_ENERGY_STATUS, if_::intel, Constant(0)),
    one(msr::PP0_ENERGY_STATUS, if_::intel, Constant(0)),
    one(msr::PP1_ENERGY_STATUS, if_::intel, Constant(0)),
    one(msr::PKRS, if_::pks, Computed(computed::read_pkrs, computed::write_pkrs)),

    one(msr::XSS, if_::xsaves, Kept(Kept::Xss, 0, OnlyAnnounced(|f| f.xss.into()))),
    one(msr::EFER, if_::always, Computed(computed::read_efer, computed::write_efer)),
    one(msr::STAR, if_::syscall, Kept(Kept::Star, 0, Any)),
    one(msr::LSTAR, if_::long_mode, Kept(Kept::Lstar, 0, Canonical)),
    one(msr::CSTAR, if_::long_mode, Kept(Kept::Cstar, 0, Canonical)),
    one(msr::SFMASK, if_::long_mode, Kept(Kept::Sfmask, 0, Dropping(LOW))),
    many(msr::FS_BASE, msr::GS_BASE, if_::long_mode, Computed(computed::read_base, computed::write_base)),
    one(msr::KERNEL_GS_BASE, if_::long_mode, Kept(Kept::KernelGsBase, 0, Canonical)),
    // AMD's silicon has no upper half; Intel's calls it reserved.
    one(msr::TSC_AUX, if_::tsc_aux_amd, Kept(Kept::TscAux, 0, Dropping(LOW))),
    one(msr::TSC_AUX, if_::tsc_aux_intel, Kept(Kept::TscAux, 0, Only(LOW))),

    // So do those that AMD's CPUs have since the K7.
    many(msr::AMD_PERF_EVENT_SELECT0, msr::AMD_PERF_EVENT_SELECT3, if_::amd_counters, EVENT_SELECT),
    many(msr::AMD_PERF_EVENT_SELECT0, msr::AMD_PERF_EVENT_SELECT3, if_::amd, Ignored(0)),
    many(msr::AMD_PERF_COUNTER0, msr::AMD_PERF_COUNTER3, if_::amd_counters, COUNTER),
    many(msr::AMD_PERF_COUNTER0, msr::AMD_PERF_COUNTER3, if_::amd, Ignored(0)),
    one(msr::AMD_SYSCFG, if_::amd, Ignored(0)),
    one(msr::AMD_HWCR, if_::amd, Kept(Kept::Hwcr, HWCR_TSC_FREQUENCY_SELECT, Ignoring { writable: HWCR_WRITABLE, ignored: HWCR_IGNORED })),
    one(msr::AMD_CLK_CTL, if_::amd, Ignored(0x2000_0000)),
    one(msr::AMD_NB_CFG, if_::amd, Ignored(0)),
    one(msr::AMD_PATCH_LOADER, if_::amd, Command(if_::all_bits)),
    one(msr::AMD_INT_PENDING, if_::amd, Ignored(0)),
    // No configuration space in memory: it reads as off, and cannot be turned on.
    one(msr::AMD_MMIO_CONF_BASE, if_::amd, Constant(0)),
    many(msr::AMD_TSEG_BASE, msr::AMD_TSEG_MASK, if_::amd, Constant(0)),
    // SVM is not offered (bit 4), and cannot be turned on (bit 3).
    one(msr::AMD_VM_CR, if_::amd, Constant(1 << 3 | 1 << 4)),
    one(msr::AMD_VIRT_SPEC_CTRL, if_::virt_ssbd, Kept(Kept::VirtSpecCtrl, 0, Only(msr::SPEC_CTRL_SSBD))),
    many(msr::AMD_PERF_CTL0, msr::AMD_PERF_CTR5, if_::amd_counters, COUNTER),
    // Work-arounds for silicon, which guests set without asking: nothing follows from them.
    many(msr::AMD_LS_CFG, msr::AMD_TW_CFG, if_::amd, Ignored(0)),
    one(msr::AMD_DE_CFG, if_::amd, Kept(Kept::DeCfg, DE_CFG_LFENCE, Only(DE_CFG_LFENCE))),
    one(msr::AMD_BU_CFG2, if_::amd, Ignored(0)),
    one(msr::AMD_EX_CFG, if_::amd, Ignored(0)),
];

/// All rows of an index: they lie together, as rows that share indices begin together or end together.
fn rows(index: u32) -> impl Iterator<Item = &'static Row> {
    let first = TABLE.partition_point(|row| row.last < index);
    TABLE[first..].iter().take_while(move |row| row.first <= index)
}

/// The row of an MSR, if it exists for a guest of these features.
pub fn find(index: u32, features: &Features) -> Option<&'static Row> {
    rows(index).find(|row| (row.exists)(features))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_index_of_every_row_is_found() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].last <= pair[1].last, "{:#x} {:#x}", pair[0].last, pair[1].last);
        }
        for row in TABLE {
            for index in row.first..=row.last {
                assert!(rows(index).any(|other| std::ptr::eq(other, row)), "{index:#x}");
            }
        }
    }

    #[test]
    fn a_row_is_found_by_index_and_vendor() {
        let amd = Features { amd: true, ..Features::default() };
        let reads = |index, features: &Features| match find(index, features).map(|row| row.rule) {
            Some(Constant(value) | Ignored(value)) => Some(value),
            _ => None,
        };
        assert_eq!(reads(msr::BIOS_SIGN_ID, &amd), Some(MICROCODE_AMD));
        assert_eq!(reads(msr::BIOS_SIGN_ID, &Features::default()), Some(MICROCODE_INTEL));
        assert_eq!(reads(msr::AMD_SYSCFG, &Features::default()), None);
        assert_eq!(reads(msr::AMD_PERF_COUNTER3, &amd), Some(0));
        assert!(find(msr::TSC_AUX, &amd).is_none(), "neither RDTSCP nor RDPID");
        assert!(find(u32::MAX, &amd).is_none());
    }
}
