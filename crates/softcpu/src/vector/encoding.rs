//! The three encodings of a vector instruction, and what they differ in.

use super::available::Available;
use super::state::Ymm;
use crate::cpu::Cpu;

/// An encoding, as a type, so that handlers are compiled for each.
pub trait Encoding {
    /// What must be enabled.
    const NEEDS: Available;
    /// Vectors have two lanes.
    const WIDE: bool;
    /// Bytes of a vector.
    const BYTES: u64 = if Self::WIDE { 32 } else { 16 };
    /// Memory operands must be aligned, unless the instruction says otherwise.
    const ALIGNED: bool;
    /// Write a result; only the low lane counts if it is not wide.
    fn set(cpu: &mut Cpu, register: u8, value: Ymm);
}

/// Without VEX: the rest of the register stays.
pub struct Legacy;
/// VEX.128: the rest of the register becomes zero.
pub struct Vex128;
/// VEX.256.
pub struct Vex256;

impl Encoding for Legacy {
    const NEEDS: Available = Available::SSE;
    const WIDE: bool = false;
    const ALIGNED: bool = true;
    #[inline(always)]
    fn set(cpu: &mut Cpu, register: u8, value: Ymm) {
        cpu.vector.set_xmm(register, value[0]);
    }
}

impl Encoding for Vex128 {
    const NEEDS: Available = Available::AVX;
    const WIDE: bool = false;
    const ALIGNED: bool = false;
    #[inline(always)]
    fn set(cpu: &mut Cpu, register: u8, value: Ymm) {
        cpu.vector.set_ymm(register, [value[0], [0; 2]]);
    }
}

impl Encoding for Vex256 {
    const NEEDS: Available = Available::AVX;
    const WIDE: bool = true;
    const ALIGNED: bool = false;
    #[inline(always)]
    fn set(cpu: &mut Cpu, register: u8, value: Ymm) {
        cpu.vector.set_ymm(register, value);
    }
}

/// An encoding found at decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoded {
    /// [`Legacy`].
    Legacy,
    /// [`Vex128`].
    Vex128,
    /// [`Vex256`].
    Vex256,
}

/// Compile an expression for an encoding, as type `$E`.
macro_rules! with_encoding {
    ($encoded:expr, $E:ident => $e:expr) => {
        match $encoded {
            $crate::vector::encoding::Encoded::Legacy => {
                type $E = $crate::vector::encoding::Legacy;
                $e
            }
            $crate::vector::encoding::Encoded::Vex128 => {
                type $E = $crate::vector::encoding::Vex128;
                $e
            }
            $crate::vector::encoding::Encoded::Vex256 => {
                type $E = $crate::vector::encoding::Vex256;
                $e
            }
        }
    };
}

pub(crate) use with_encoding;
