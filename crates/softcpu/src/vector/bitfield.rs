//! EXTRQ and INSERTQ, SSE4A's bit fields: APM vol. 4.
//!
//! A field is up to 64 bits of the low quadword, given by length (0: 64) and index in two bytes, of which 6 bits each count. Of a
//! field that goes beyond the quadword, and of the upper quadword, the manual says that they are undefined; silicon leaves out
//! what lies beyond, and zeroes the upper quadword.

use super::compute::Compute;
use super::state::{VectorState, Ymm};
use crate::op::Op;

/// Marks, in the op's immediate, that the bits below are the field.
pub const IMMEDIATE: u64 = 1 << 16;

/// A field of a quadword.
struct Field {
    mask: u64,
    index: u64,
}

impl Field {
    /// The field that the instruction names, or else the register.
    fn new(op: &Op, register: u64) -> Self {
        let control = if op.imm & IMMEDIATE != 0 { op.imm } else { register };
        let length = control & 0x3F;
        Self { mask: if length == 0 { u64::MAX } else { (1 << length) - 1 }, index: control >> 8 & 0x3F }
    }
}

/// EXTRQ: the field of the destination, moved to the low end.
pub struct Extrq;

impl Compute for Extrq {
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        let field = Field::new(op, b[0][0]);
        [[vectors.xmm(op.extra)[0] >> field.index & field.mask, 0], [0; 2]]
    }
}

/// INSERTQ: the low bits of the source, moved to the field of the destination.
pub struct Insertq;

impl Compute for Insertq {
    #[inline(always)]
    fn compute(vectors: &VectorState, op: &Op, b: Ymm) -> Ymm {
        let field = Field::new(op, b[0][1]);
        let kept = vectors.xmm(op.extra)[0] & !(field.mask << field.index);
        [[kept | (b[0][0] & field.mask) << field.index, 0], [0; 2]]
    }
}

#[cfg(test)]
mod tests {
    use x86defs::cr;

    use crate::exec::testing::{Machine, Mode};

    const VALUE: u64 = 0x0123_4567_89AB_CDEF;

    fn run(code: &[u8], source: [u64; 2]) -> [u64; 2] {
        let mut machine = Machine::new(Mode::Long64);
        machine.cpu().cr4 |= cr::CR4_OSFXSR;
        machine.cpu().mode_changed();
        machine.cpu().vector.set_xmm(1, [VALUE, 5]);
        machine.cpu().vector.set_xmm(2, source);
        machine.run(code).expect("no exception");
        machine.cpu().vector.xmm(1)
    }

    #[test]
    fn fields_are_named_by_immediates_or_by_a_register() {
        assert_eq!(run(&[0x66, 0x0F, 0x78, 0xC1, 12, 8], [0; 2]), [0xBCD, 0]); // extrq $8, $12, %xmm1
        assert_eq!(run(&[0x66, 0x0F, 0x79, 0xCA], [0xFFFF_C8CC, 0]), [0xBCD, 0]); // extrq %xmm2, %xmm1
        assert_eq!(run(&[0xF2, 0x0F, 0x78, 0xCA, 12, 8], [0x3FFF, 0]), [0x0123_4567_89AF_FFEF, 0]); // insertq $8, $12, ...
        assert_eq!(run(&[0xF2, 0x0F, 0x79, 0xCA], [0x3FFF, 0x80C]), [0x0123_4567_89AF_FFEF, 0]); // insertq %xmm2, %xmm1
    }

    #[test]
    fn length_zero_is_all_and_what_lies_beyond_is_left_out() {
        assert_eq!(run(&[0x66, 0x0F, 0x78, 0xC1, 0, 0], [0; 2]), [VALUE, 0]);
        assert_eq!(run(&[0x66, 0x0F, 0x78, 0xC1, 0, 60], [0; 2]), [0, 0]);
        assert_eq!(run(&[0xF2, 0x0F, 0x78, 0xCA, 8, 60], [0xFF, 0]), [VALUE | 0xF << 60, 0]);
    }
}
