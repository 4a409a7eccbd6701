//! To whom an MSR is there: by vendor, and by what CPUID announces.

use x86defs::{cpuid as bit, msr};

use crate::features::Features;

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

/// Those of `bits` whose mask is set in their word: Intel's enumeration, in leaf 7 EDX, or AMD's, in leaf 0x80000008 EBX.
fn bits_by(f: &Features, bits: &[(u64, u32, u32)]) -> u64 {
    let announced = bits.iter().filter(|(_, intel, amd)| f.l7_edx & intel != 0 || f.x8_ebx & amd != 0);
    announced.fold(0, |all, (flag, ..)| all | flag)
}

/// Bits of IA32_SPEC_CTRL. A CPU with IBRS takes STIBP, too, whether or not anything follows from it.
pub fn spec_ctrl_bits(f: &Features) -> u64 {
    const STIBP_INTEL: u32 = bit::L7_EDX_SPEC_CTRL | bit::L7_EDX_STIBP;
    const STIBP_AMD: u32 = bit::X8_EBX_IBRS | bit::X8_EBX_STIBP;
    let bits = [
        (msr::SPEC_CTRL_IBRS, bit::L7_EDX_SPEC_CTRL, bit::X8_EBX_IBRS),
        (msr::SPEC_CTRL_STIBP, STIBP_INTEL, STIBP_AMD),
        (msr::SPEC_CTRL_SSBD, bit::L7_EDX_SSBD, bit::X8_EBX_SSBD),
        (msr::SPEC_CTRL_PSFD, 0, bit::X8_EBX_PSFD),
    ];
    bits_by(f, &bits)
}

/// Bits of IA32_PRED_CMD.
pub fn pred_cmd_bits(f: &Features) -> u64 {
    bits_by(f, &[(msr::PRED_CMD_IBPB, bit::L7_EDX_SPEC_CTRL, bit::X8_EBX_IBPB)])
}

/// Bits of IA32_FLUSH_CMD.
pub fn flush_cmd_bits(f: &Features) -> u64 {
    bits_by(f, &[(msr::FLUSH_CMD_L1D, bit::L7_EDX_FLUSH_L1D, 0)])
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
        let amd = Features { x8_ebx: bit::X8_EBX_IBPB | bit::X8_EBX_SSBD, amd: true, ..none };
        assert_eq!((spec_ctrl_bits(&amd), pred_cmd_bits(&amd)), (4, 1));
    }
}
