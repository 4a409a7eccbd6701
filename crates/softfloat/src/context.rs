//! What an operation is told besides its operands, and what it tells besides its result.

use crate::format::{Class, Unpacked};

/// Exception flags, at the places that MXCSR, x87's control word (as masks) and its status word have in common.
pub mod flag {
    /// Invalid operation.
    pub const IE: u8 = 1 << 0;
    /// Denormal operand.
    pub const DE: u8 = 1 << 1;
    /// Division by zero.
    pub const ZE: u8 = 1 << 2;
    /// Overflow.
    pub const OE: u8 = 1 << 3;
    /// Underflow.
    pub const UE: u8 = 1 << 4;
    /// Precision: the result is not exact.
    pub const PE: u8 = 1 << 5;
    /// All of them.
    pub const ALL: u8 = 0x3F;
    /// Those found before anything is computed. If one of them is not masked, there is no result (SDM vol. 1 section 11.5.2).
    pub const BEFORE: u8 = IE | DE | ZE;
}

/// Where results that are not exact go. The order is that of the RC fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// To the nearest, and of two as near to the even one.
    Nearest,
    /// Towards −∞.
    Down,
    /// Towards +∞.
    Up,
    /// Towards zero.
    Zero,
}

impl Rounding {
    /// From the low two bits of an RC field.
    #[inline(always)]
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Nearest,
            1 => Self::Down,
            2 => Self::Up,
            _ => Self::Zero,
        }
    }
}

/// How many bits of its significand an [`X80`](crate::X80) result has: x87's precision control. The exponent has its full range
/// in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// 24 bits.
    Single,
    /// 53 bits.
    Double,
    /// 64 bits.
    Extended,
}

impl Precision {
    /// From the low two bits of a PC field; the reserved value means extended precision.
    pub fn from_bits(bits: u8) -> Self {
        match bits & 3 {
            0 => Self::Single,
            2 => Self::Double,
            _ => Self::Extended,
        }
    }

    /// Number of bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Single => 24,
            Self::Double => 53,
            Self::Extended => 64,
        }
    }
}

/// Where SSE and x87 differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// Of several NaNs the first one is the result. An unmasked exception leaves no result.
    Sse,
    /// Of several NaNs the one with the largest significand is the result. Unmasked overflow and underflow of an extended result
    /// give a result with a scaled exponent.
    X87,
}

/// MXCSR.RC, PM and PE ...
const HOST_WILL_DO_MASK: u32 = 3 << 13 | 1 << 12 | 1 << 5;
/// ... as [`Context::host_will_do`] wants them.
const HOST_WILL_DO: u32 = 1 << 12 | 1 << 5;

/// What an operation is told besides its operands, and what it tells besides its result.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// Rounding mode.
    pub rounding: Rounding,
    /// Precision of [`X80`](crate::X80) results.
    pub precision: Precision,
    /// Whose rules.
    pub rules: Rules,
    /// Exceptions that are masked: bits of [`flag`].
    pub masks: u8,
    /// Denormal operands count as zeros, and raise nothing.
    pub daz: bool,
    /// Tiny results become zeros, if underflow is masked.
    pub ftz: bool,
    /// Nobody cares whether results are exact, since PE is set already and masked, and rounding is to nearest: whether the host's
    /// own arithmetic was exact need not be found out. See [`crate::fast`].
    pub host_will_do: bool,
    /// Exceptions so far: operations add to them. They are added whether they are masked or not.
    pub flags: u8,
    /// Those of the steps that are complete, where an instruction has several: an exception found before the next step is computed
    /// leaves them.
    pub settled: u8,
    /// The last rounding increased the magnitude: x87's C1.
    pub rounded_up: bool,
}

impl Context {
    /// As MXCSR says; no flag is set yet.
    #[inline(always)]
    pub fn from_mxcsr(mxcsr: u32) -> Self {
        Self {
            rounding: Rounding::from_bits((mxcsr >> 13) as u8),
            precision: Precision::Extended,
            rules: Rules::Sse,
            masks: (mxcsr >> 7) as u8 & flag::ALL,
            daz: mxcsr & 1 << 6 != 0,
            ftz: mxcsr & 1 << 15 != 0,
            host_will_do: mxcsr & HOST_WILL_DO_MASK == HOST_WILL_DO,
            flags: 0,
            settled: 0,
            rounded_up: false,
        }
    }

    /// As x87's control word says; no flag is set yet.
    pub fn from_fcw(fcw: u16) -> Self {
        Self {
            rounding: Rounding::from_bits((fcw >> 10) as u8),
            precision: Precision::from_bits((fcw >> 8) as u8),
            rules: Rules::X87,
            masks: fcw as u8 & flag::ALL,
            daz: false,
            ftz: false,
            host_will_do: false,
            flags: 0,
            settled: 0,
            rounded_up: false,
        }
    }

    /// Whether an exception is masked.
    #[inline(always)]
    pub fn is_masked(&self, flag: u8) -> bool {
        self.masks & flag != 0
    }

    /// The exceptions so far that are not masked.
    #[inline(always)]
    pub fn unmasked(&self) -> u8 {
        self.flags & !self.masks
    }

    /// A step of an instruction that has several has been computed: whether the next one comes, or an exception is not masked.
    #[inline]
    pub fn settle(&mut self) -> bool {
        let goes_on = self.unmasked() == 0;
        if goes_on {
            self.settled = self.flags;
        }
        goes_on
    }

    /// Raise exceptions.
    #[inline(always)]
    pub fn raise(&mut self, flags: u8) {
        self.flags |= flags;
    }

    /// The answer to an invalid operation: the default NaN, with IE.
    #[cold]
    pub fn invalid(&mut self) -> Unpacked {
        self.raise(flag::IE);
        Unpacked::DEFAULT_NAN
    }

    /// Raise DE if an operand is denormal.
    #[inline]
    pub fn note_denormals(&mut self, operands: &[Unpacked]) {
        if operands.iter().any(|operand| operand.denormal) {
            self.raise(flag::DE);
        }
    }

    /// The operand as DAZ has it.
    #[inline]
    pub(crate) fn operand(&self, operand: Unpacked) -> Unpacked {
        if self.daz && operand.denormal { Unpacked::zero(operand.sign) } else { operand }
    }

    /// The result, if an operand is a NaN or no number at all: SDM vol. 1 table 4-7.
    #[inline]
    pub(crate) fn nan(&mut self, operands: &[Unpacked]) -> Option<Unpacked> {
        if operands.iter().any(|operand| operand.class >= Class::QuietNan) {
            Some(self.choose_nan(operands))
        } else {
            None
        }
    }

    #[cold]
    fn choose_nan(&mut self, operands: &[Unpacked]) -> Unpacked {
        if operands.iter().any(|operand| operand.class == Class::Unsupported) {
            return self.invalid();
        }
        if operands.iter().any(|operand| operand.class == Class::SignallingNan) {
            self.raise(flag::IE);
        }
        let mut nans = operands.iter().copied().filter(|operand| operand.class >= Class::QuietNan);
        let first = nans.next().unwrap_or(Unpacked::DEFAULT_NAN);
        let chosen = match self.rules {
            Rules::Sse => first,
            Rules::X87 => nans.fold(first, larger_nan),
        };
        chosen.quieted()
    }
}

/// x87's choice: a quiet one before a signalling one, else the larger significand, else the positive one.
fn larger_nan(a: Unpacked, b: Unpacked) -> Unpacked {
    let rank = |nan: Unpacked| (nan.class == Class::QuietNan, nan.significand, !nan.sign);
    if rank(b) > rank(a) { b } else { a }
}
