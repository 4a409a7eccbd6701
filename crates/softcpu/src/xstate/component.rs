//! The components of the state, and where those behind the header lie: SDM vol. 1 sections 13.1, 13.4 and 13.6.

use crate::cpu::Cpu;
use crate::features::Features;
use crate::vector::state::MXCSR_INIT;

/// x87 state, which MMX registers are part of.
pub const X87: u64 = 1 << 0;
/// XMM registers. MXCSR goes with them, or with AVX: it has rules of its own.
pub const SSE: u64 = 1 << 1;
/// Upper halves of the YMM registers.
pub const AVX: u64 = 1 << 2;
/// PKRU.
pub const PKRU: u64 = 1 << 9;
/// All that there is.
pub const IMPLEMENTED: u64 = X87 | SSE | AVX | PKRU;

/// Bytes of the legacy region.
pub const LEGACY: usize = 512;
/// Bytes of the header.
pub const HEADER: usize = 64;
/// Where the other components begin.
pub const EXTENDED: u64 = (LEGACY + HEADER) as u64;
/// No standard place is further up: an area is at most a page.
const FURTHEST: u64 = 4096 - 256;

/// A component behind the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Component {
    /// Its number: its bit in XCR0, and its subleaf of CPUID leaf 0xD.
    pub number: u32,
    /// Bytes.
    pub size: u64,
    /// Where Intel's CPUs have it in the standard format.
    usual: u64,
}

/// How many there are.
pub const NUM_BEHIND: usize = 2;
/// They, by number. None of them wants to be aligned in the compacted format.
pub const BEHIND: [Component; NUM_BEHIND] =
    [Component { number: 2, size: 256, usual: 576 }, Component { number: 9, size: 8, usual: 2688 }];
/// The place of AVX among them.
pub const AT_AVX: usize = 0;
/// The place of PKRU among them.
pub const AT_PKRU: usize = 1;

/// Where the components behind the header lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout([u64; NUM_BEHIND]);

impl Layout {
    /// The standard format: places are those that CPUID leaf 0xD tells.
    pub fn standard(features: &Features) -> Self {
        Self(std::array::from_fn(|i| match u64::from(features.xsave_offsets[i]) {
            told @ EXTENDED..=FURTHEST => told,
            _ => BEHIND[i].usual,
        }))
    }

    /// The compacted format: those that XCOMP_BV names, one behind the other.
    pub fn compacted(components: u64) -> Self {
        let mut next = EXTENDED;
        Self(BEHIND.map(|component| {
            let place = next;
            next += if components >> component.number & 1 != 0 { component.size } else { 0 };
            place
        }))
    }

    /// Where component `i` of [`BEHIND`] begins.
    pub fn place(&self, i: usize) -> u64 {
        self.0[i]
    }

    /// Bytes of an area with these components.
    pub fn size(&self, components: u64) -> u64 {
        let ends = BEHIND.iter().zip(self.0).filter(|(component, _)| components >> component.number & 1 != 0);
        ends.map(|(component, place)| place + component.size).fold(EXTENDED, u64::max)
    }
}

impl Cpu {
    /// XINUSE: the components that are not in their initial configuration, with only the first `registers` vector registers
    /// looked at. MXCSR does not count.
    pub(super) fn in_use(&self, registers: u8) -> u64 {
        let any = |half: usize| (0..registers).any(|i| self.vector.ymm(i)[half] != [0; 2]);
        let state = [(X87, !self.fpu.is_initial()), (SSE, any(0)), (AVX, any(1)), (PKRU, self.pkru != 0)];
        state.iter().filter(|(_, used)| *used).fold(0, |all, (component, _)| all | component)
    }

    /// [`Cpu::in_use`], where MXCSR makes SSE count: XGETBV with ECX = 1, and the compacted format.
    pub(super) fn in_use_with_mxcsr(&self, registers: u8) -> u64 {
        self.in_use(registers) | if self.vector.mxcsr == MXCSR_INIT { 0 } else { SSE }
    }

    /// The components that XCR0 may enable.
    pub(super) fn supported(&self) -> u64 {
        u64::from(self.features.xcr0) & IMPLEMENTED | X87
    }

    /// CPUID leaf 0xD EBX: bytes of an area for what is enabled now, in the standard format (subleaf 0) or compacted
    /// with the supervisor's components (subleaf 1).
    pub fn area_size(&self, compacted: bool) -> u32 {
        let size = if compacted {
            let components = self.xcr0 | self.xss();
            Layout::compacted(components).size(components)
        } else {
            Layout::standard(&self.features).size(self.xcr0)
        };
        size as u32
    }

    /// IA32_XSS: the supervisor's components. None is supported yet.
    pub(super) fn xss(&self) -> u64 {
        self.msrs.get(crate::msr::Kept::Xss) & IMPLEMENTED
    }
}
