//! SIMD floating-point exceptions: SDM vol. 1 section 11.5.

use softfloat::{Context, flag};
use x86defs::{cr, vector};

use crate::cpu::Cpu;
use crate::op::Stop;

impl Cpu {
    /// What MXCSR tells arithmetic.
    #[inline(always)]
    pub fn simd_context(&self) -> Context {
        Context::from_mxcsr(self.vector.mxcsr)
    }

    /// The instruction has been computed. If an exception is not masked, its flags are set and it is raised; nothing must have
    /// been stored yet.
    #[inline(always)]
    pub fn simd_check(&mut self, cx: &Context) -> Result<(), Stop> {
        if cx.unmasked() == 0 { Ok(()) } else { Err(self.raise_simd(cx)) }
    }

    /// The instruction retires: set the flags of masked exceptions.
    #[inline(always)]
    pub fn simd_retire(&mut self, cx: &Context) {
        self.vector.mxcsr |= u32::from(cx.flags);
    }

    /// What is found before anything is computed, in any element, keeps all elements from being computed. #XM is #UD if the
    /// operating system does not know it.
    #[cold]
    #[inline(never)]
    fn raise_simd(&mut self, cx: &Context) -> Stop {
        let found_before = cx.unmasked() & flag::BEFORE != 0;
        let flags = if found_before { cx.flags & flag::BEFORE | cx.settled } else { cx.flags };
        self.vector.mxcsr |= u32::from(flags);
        self.raise(if self.cr4 & cr::CR4_OSXMMEXCPT != 0 { vector::XM } else { vector::UD })
    }
}
