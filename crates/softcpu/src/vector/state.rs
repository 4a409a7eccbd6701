//! The registers.

use x86defs::cpuid;

use super::lane::Lane;
use crate::features::Features;

/// MXCSR after RESET and after FNINIT-like initialisation: all exceptions masked (SDM vol. 1 section 10.2.3).
pub const MXCSR_INIT: u32 = 0x1F80;

/// The bits of MXCSR that every CPU with SSE2 has: all of the low half.
const MXCSR_LOW: u32 = 0xFFFF;
/// MXCSR.MM: legacy encodings that compute do without alignment (APM vol. 1 section 4.2.2). AMD's CPUs have it.
const MXCSR_MM: u32 = 1 << 17;

/// The bits of MXCSR that exist. Others are #GP(0).
pub fn mxcsr_mask(features: &Features) -> u32 {
    MXCSR_LOW | if features.x1_ecx & cpuid::X1_ECX_MISALIGNSSE != 0 { MXCSR_MM } else { 0 }
}

/// A YMM register; its low lane is the XMM register.
pub type Ymm = [Lane; 2];

/// XMM and YMM registers, and MXCSR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct VectorState {
    ymm: [Ymm; 16],
    /// MXCSR.
    pub mxcsr: u32,
}

impl Default for VectorState {
    fn default() -> Self {
        Self { ymm: [[[0; 2]; 2]; 16], mxcsr: MXCSR_INIT }
    }
}

impl VectorState {
    /// MXCSR.MM is set.
    #[inline]
    pub fn misaligned(&self) -> bool {
        self.mxcsr & MXCSR_MM != 0
    }

    /// A whole register.
    #[inline(always)]
    pub fn ymm(&self, number: u8) -> Ymm {
        self.ymm[usize::from(number & 15)]
    }

    /// The low lane of a register.
    #[inline(always)]
    pub fn xmm(&self, number: u8) -> Lane {
        self.ymm[usize::from(number & 15)][0]
    }

    /// Replace a whole register.
    #[inline(always)]
    pub fn set_ymm(&mut self, number: u8, value: Ymm) {
        self.ymm[usize::from(number & 15)] = value;
    }

    /// Replace the low lane of a register; the rest stays.
    #[inline(always)]
    pub fn set_xmm(&mut self, number: u8, value: Lane) {
        self.ymm[usize::from(number & 15)][0] = value;
    }
}
