//! To whom an MSR is there: by vendor, and by what CPUID announces.

use x86defs::{cpuid as bit, msr};

use crate::features::{FeatureWord, Features};

/// Whether an MSR exists.
pub type Condition = fn(&Features) -> bool;

macro_rules! conditions {
    ($($name:ident: |$f:ident| $test:expr;)*) => {
        $(pub fn $name($f: &Features) -> bool { $test })*
    };
}

conditions! {
    always: |_f| true;
    amd: |f| f.amd;
    intel: |f| !f.amd;
    tsc: |f| f.l1_edx & bit::L1_EDX_TSC != 0;
    tsc_adjust: |f| f.l7_ebx & bit::L7_EBX_TSC_ADJUST != 0;
    sysenter: |f| f.l1_edx & bit::L1_EDX_SEP != 0;
    mtrr: |f| f.l1_edx & bit::L1_EDX_MTRR != 0;
    pat: |f| f.l1_edx & bit::L1_EDX_PAT != 0;
    machine_check: |f| f.l1_edx & bit::L1_EDX_MCA != 0;
    syscall: |f| f.x1_edx & (bit::X1_EDX_SYSCALL | bit::X1_EDX_LM) != 0;
    long_mode: |f| f.x1_edx & bit::X1_EDX_LM != 0;
    tsc_aux_amd: |f| f.amd && tsc_aux(f);
    tsc_aux_intel: |f| !f.amd && tsc_aux(f);
    arch_capabilities: |f| f.l7_edx & bit::L7_EDX_ARCH_CAPABILITIES != 0;
    no_intel_counters: |f| !f.amd && !intel_counters(f);
    intel_counters: |f| !f.amd && f.pmu_eax & 0xFF >= 2;
    amd_counters: |f| f.amd && f.x1_ecx & bit::X1_ECX_PERFCTR_CORE != 0;
    pks: |f| f.l7_ecx & bit::L7_ECX_PKS != 0;
    spec_ctrl: |f| spec_ctrl_bits(f) != 0;
    pred_cmd: |f| pred_cmd_bits(f) != 0;
    flush_cmd: |f| flush_cmd_bits(f) != 0;
    xsaves: |f| f.xsave_eax & bit::XSAVE_EAX_XSAVES != 0;
    virt_ssbd: |f| f.x8_ebx & bit::X8_EBX_VIRT_SSBD != 0;
}

fn tsc_aux(f: &Features) -> bool {
    f.x1_edx & bit::X1_EDX_RDTSCP != 0 || f.l7_ecx & bit::L7_ECX_RDPID != 0
}

/// Every bit of a command whose value nobody looks at.
pub fn all_bits(_f: &Features) -> u64 {
    u64::MAX
}

/// A bit of an MSR, and what enumerates it: a word of CPUID and a mask.
type Enumerated = (u64, FeatureWord, u32);

/// Bits of IA32_SPEC_CTRL, by Intel's enumeration and by AMD's. A CPU with IBRS takes STIBP, too, whether or not anything
/// follows from it.
const SPEC_CTRL: [Enumerated; 12] = [
    (msr::SPEC_CTRL_IBRS | msr::SPEC_CTRL_STIBP, |f| f.l7_edx, bit::L7_EDX_SPEC_CTRL),
    (msr::SPEC_CTRL_STIBP, |f| f.l7_edx, bit::L7_EDX_STIBP),
    (msr::SPEC_CTRL_SSBD, |f| f.l7_edx, bit::L7_EDX_SSBD),
    (msr::SPEC_CTRL_PSFD, |f| f.l7_2_edx, bit::L7_2_EDX_PSFD),
    (msr::SPEC_CTRL_IPRED_DIS, |f| f.l7_2_edx, bit::L7_2_EDX_IPRED_CTRL),
    (msr::SPEC_CTRL_RRSBA_DIS, |f| f.l7_2_edx, bit::L7_2_EDX_RRSBA_CTRL),
    (msr::SPEC_CTRL_DDPD_U, |f| f.l7_2_edx, bit::L7_2_EDX_DDPD_U),
    (msr::SPEC_CTRL_BHI_DIS_S, |f| f.l7_2_edx, bit::L7_2_EDX_BHI_CTRL),
    (msr::SPEC_CTRL_IBRS | msr::SPEC_CTRL_STIBP, |f| f.x8_ebx, bit::X8_EBX_IBRS),
    (msr::SPEC_CTRL_STIBP, |f| f.x8_ebx, bit::X8_EBX_STIBP),
    (msr::SPEC_CTRL_SSBD, |f| f.x8_ebx, bit::X8_EBX_SSBD),
    (msr::SPEC_CTRL_PSFD, |f| f.x8_ebx, bit::X8_EBX_PSFD),
];
/// Bits of IA32_PRED_CMD.
const PRED_CMD: [Enumerated; 3] = [
    (msr::PRED_CMD_IBPB, |f| f.l7_edx, bit::L7_EDX_SPEC_CTRL),
    (msr::PRED_CMD_IBPB, |f| f.x8_ebx, bit::X8_EBX_IBPB),
    (msr::PRED_CMD_SBPB, |f| f.x21_eax, bit::X21_EAX_SBPB),
];
/// Bits of IA32_FLUSH_CMD.
const FLUSH_CMD: [Enumerated; 1] = [(msr::FLUSH_CMD_L1D, |f| f.l7_edx, bit::L7_EDX_FLUSH_L1D)];

/// Those that are announced.
fn bits_by(f: &Features, bits: &[Enumerated]) -> u64 {
    let announced = bits.iter().filter(|(_, word, mask)| word(f) & mask != 0);
    announced.fold(0, |all, (flag, ..)| all | flag)
}

/// Bits of IA32_SPEC_CTRL.
pub fn spec_ctrl_bits(f: &Features) -> u64 {
    bits_by(f, &SPEC_CTRL)
}

/// Bits of IA32_PRED_CMD.
pub fn pred_cmd_bits(f: &Features) -> u64 {
    bits_by(f, &PRED_CMD)
}

/// Bits of IA32_FLUSH_CMD.
pub fn flush_cmd_bits(f: &Features) -> u64 {
    bits_by(f, &FLUSH_CMD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendors_enumerate_speculation_control_in_words_of_their_own() {
        let none = Features::default();
        assert!(!spec_ctrl(&none) && !pred_cmd(&none) && !flush_cmd(&none));
        let intel = Features { l7_edx: bit::L7_EDX_SPEC_CTRL, ..none };
        assert_eq!((spec_ctrl_bits(&intel), pred_cmd_bits(&intel)), (3, 1));
        let newer = Features { l7_2_edx: 0x1F, ..intel };
        assert_eq!(spec_ctrl_bits(&newer), 0x5FB);
        let amd = Features { x8_ebx: bit::X8_EBX_IBPB | bit::X8_EBX_SSBD, amd: true, ..none };
        assert_eq!((spec_ctrl_bits(&amd), pred_cmd_bits(&amd)), (4, 1));
        let amd = Features { x21_eax: bit::X21_EAX_SBPB, ..amd };
        assert_eq!(pred_cmd_bits(&amd), 0x81);
    }
}
