//! The registers.

use super::lane::Lane;

/// MXCSR after RESET and after FNINIT-like initialisation: all exceptions masked (SDM vol. 1 section 10.2.3).
pub const MXCSR_INIT: u32 = 0x1F80;

/// The bits of MXCSR that exist: all of the low half. Others are #GP(0).
pub const MXCSR_MASK: u32 = 0xFFFF;

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
