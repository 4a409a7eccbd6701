//! Whether the operating system has enabled vectors: SDM vol. 2 section 2.4, vol. 3 section 13.1, APM vol. 1 section 4.

use x86defs::{cr, vector};

use crate::cpu::Cpu;
use crate::op::Stop;

/// XCR0: SSE and AVX state.
const XCR0_AVX: u64 = 0b110;

/// What can be executed now, so that a handler tests one bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Available(u8);

impl Available {
    /// Legacy SSE instructions.
    pub const SSE: Available = Available(1);
    /// VEX-encoded vector instructions. (That they do not exist in real and virtual-8086 mode is known when they are decoded.)
    pub const AVX: Available = Available(2);
    /// MMX instructions.
    pub const MMX: Available = Available(4);

    /// What the control registers allow.
    pub fn by(cr0: u64, cr4: u64, xcr0: u64) -> Self {
        let switched = cr0 & cr::CR0_TS != 0;
        let emulated = cr0 & cr::CR0_EM != 0;
        let sse = !switched && !emulated && cr4 & cr::CR4_OSFXSR != 0;
        let avx = !switched && cr4 & cr::CR4_OSXSAVE != 0 && xcr0 & XCR0_AVX == XCR0_AVX;
        let mmx = !switched && !emulated;
        let bits = [(sse, Self::SSE), (avx, Self::AVX), (mmx, Self::MMX)];
        Self(bits.into_iter().filter(|(on, _)| *on).map(|(_, bit)| bit.0).sum())
    }

    /// Whether these are among it.
    #[inline(always)]
    pub fn has(self, what: Available) -> bool {
        self.0 & what.0 == what.0
    }
}

impl Cpu {
    /// Bring [`Cpu::available`] up to date after a change of CR0, CR4 or XCR0.
    #[inline]
    pub fn availability_changed(&mut self) {
        self.available = Available::by(self.cr0, self.cr4, self.xcr0);
    }

    /// #UD or #NM if instructions of a kind cannot be executed now.
    #[inline(always)]
    pub fn check_available(&mut self, what: Available) -> Result<(), Stop> {
        if self.available.has(what) { Ok(()) } else { Err(self.refuse_unavailable(what)) }
    }

    /// #UD comes before #NM, since it holds whatever task runs: what remains without CR0.TS is #UD.
    #[cold]
    fn refuse_unavailable(&mut self, what: Available) -> Stop {
        let but_for_ts = Available::by(self.cr0 & !cr::CR0_TS, self.cr4, self.xcr0);
        self.raise(if but_for_ts.has(what) { vector::NM } else { vector::UD })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bit_counts() {
        let (on, fxsr, xsave) = (0, cr::CR4_OSFXSR, cr::CR4_OSXSAVE);
        for (cr0, cr4, xcr0, sse, avx, mmx) in [
            (on, 0, 7, false, false, true),
            (on, fxsr, 1, true, false, true),
            (on, fxsr | xsave, 3, true, false, true),
            (on, fxsr | xsave, 7, true, true, true),
            (on, xsave, 7, false, true, true),
            (cr::CR0_EM, fxsr | xsave, 7, false, true, false),
            (cr::CR0_TS, fxsr | xsave, 7, false, false, false),
        ] {
            let available = Available::by(cr0, cr4, xcr0);
            let found = [Available::SSE, Available::AVX, Available::MMX].map(|what| available.has(what));
            assert_eq!(found, [sse, avx, mmx], "{cr0:#x} {cr4:#x} {xcr0}");
        }
    }
}
