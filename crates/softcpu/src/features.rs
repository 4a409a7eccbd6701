//! Which instructions and modes the guest was told of.

use x86defs::cpuid;

use crate::xstate::component::NUM_BEHIND;

/// Feature words of CPUID, as the CPU's behaviour depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// Leaf 1 ECX.
    pub l1_ecx: u32,
    /// Leaf 1 EDX.
    pub l1_edx: u32,
    /// Leaf 7.0 EBX.
    pub l7_ebx: u32,
    /// Leaf 7.0 ECX.
    pub l7_ecx: u32,
    /// Leaf 7.0 EDX.
    pub l7_edx: u32,
    /// Leaf 7.1 EAX.
    pub l7_1_eax: u32,
    /// Leaf 7.2 EDX.
    pub l7_2_edx: u32,
    /// Leaf 0xA EAX.
    pub pmu_eax: u32,
    /// Leaf 0xA EDX.
    pub pmu_edx: u32,
    /// Leaf 0x80000001 ECX.
    pub x1_ecx: u32,
    /// Leaf 0x80000001 EDX.
    pub x1_edx: u32,
    /// Leaf 0xD.1 EAX.
    pub xsave_eax: u32,
    /// Leaf 0xD.0 EAX: the components that XCR0 may enable.
    pub xcr0: u32,
    /// Leaf 0xD.1 ECX: the components that IA32_XSS may enable.
    pub xss: u32,
    /// Leaf 0xD EBX of the components behind the header, [`crate::xstate::component::BEHIND`]: where they lie.
    pub xsave_offsets: [u32; NUM_BEHIND],
    /// Leaf 0x80000008 EBX.
    pub x8_ebx: u32,
    /// Leaf 0x80000021 EAX.
    pub x21_eax: u32,
    /// IA32_ARCH_CAPABILITIES, which enumerates as CPUID does.
    pub arch_capabilities: u64,
    /// Width of physical addresses as leaf 0x80000008 says; 0 if it does not.
    pub physical_bits: u32,
    /// The guest's CPU calls itself AMD (or Hygon).
    pub amd: bool,
}

/// Takes a word out of the features.
pub type FeatureWord = fn(&Features) -> u32;

impl Features {
    /// Performance counters are announced, Intel's or AMD's.
    #[inline]
    pub fn has_counters(&self) -> bool {
        self.pmu_eax != 0 || self.x1_ecx & cpuid::X1_ECX_PERFCTR_CORE != 0
    }

    /// Width of physical addresses, 32..=52: without leaf 0x80000008 it is 36 (SDM vol. 3 section 4.1.4).
    pub fn physical_bits(&self) -> u32 {
        if self.physical_bits == 0 { 36 } else { self.physical_bits.clamp(32, 52) }
    }
}
