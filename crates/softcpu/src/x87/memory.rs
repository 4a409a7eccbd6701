//! Operands in memory.

use softfloat::{Class, Rounding};
use softfloat::{Context, F32, F64, Format, Unpacked, X80, convert, flag, from_i64, round_to_integral, to_integer};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Op, Stop, Width};

/// In `extra`: the instruction has a memory operand that FDP points to.
pub const OPERAND: u8 = 1;

/// A format that operands in memory have.
pub trait Memory: Sized {
    /// Load the memory operand.
    fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop>;
    /// Store it.
    fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop>;
    /// Fault as storing it would.
    fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop>;
    /// Its value, as an operand of arithmetic.
    fn unpack(&self) -> Unpacked;
    /// What the register gets that it is loaded to.
    fn load(self, cx: &mut Context) -> X80 {
        convert(cx, self.unpack())
    }
    /// What is stored of a register.
    fn store(cx: &mut Context, value: X80) -> Self;
}

fn probe<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
    let linear = addr::operand(cpu, op, T::BYTES, true)?;
    cpu.check_alignment(linear, T::BYTES)?;
    cpu.probe_write(env, linear, T::BYTES, op.seg)
}

/// The value of a register that is stored: that a number is denormal does not matter to a store.
fn source(value: X80) -> Unpacked {
    Unpacked { denormal: false, ..value.unpack() }
}

macro_rules! real {
    ($($format:ident: $bits:ty),*) => {$(
        impl Memory for $format {
            #[inline]
            fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
                addr::read_operand::<$bits>(cpu, env, op).map(Self)
            }
            #[inline]
            fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                addr::write_operand(cpu, env, op, self.0)
            }
            fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                probe::<$bits>(cpu, env, op)
            }
            #[inline]
            fn unpack(&self) -> Unpacked {
                Format::unpack(*self)
            }
            #[inline]
            fn store(cx: &mut Context, value: X80) -> Self {
                convert(cx, source(value))
            }
        }
    )*};
}

real!(F32: u32, F64: u64);

macro_rules! integer {
    ($($signed:ty: $bits:ty),*) => {$(
        impl Memory for $signed {
            #[inline]
            fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
                addr::read_operand::<$bits>(cpu, env, op).map(|bits| bits as $signed)
            }
            #[inline]
            fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                addr::write_operand(cpu, env, op, self as $bits)
            }
            fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                probe::<$bits>(cpu, env, op)
            }
            #[inline]
            fn unpack(&self) -> Unpacked {
                from_i64((*self).into())
            }
            #[inline]
            fn store(cx: &mut Context, value: X80) -> Self {
                let rounding = cx.rounding;
                to_integer(cx, value.unpack(), rounding)
            }
        }

        impl Memory for Truncated<$signed> {
            fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
                <$signed>::read(cpu, env, op).map(Self)
            }
            fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                self.0.write(cpu, env, op)
            }
            fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
                <$signed>::probe(cpu, env, op)
            }
            fn unpack(&self) -> Unpacked {
                self.0.unpack()
            }
            fn store(cx: &mut Context, value: X80) -> Self {
                Self(to_integer(cx, value.unpack(), Rounding::Zero))
            }
        }
    )*};
}

/// An integer that is stored truncated: FISTTP.
pub struct Truncated<I>(I);

integer!(i16: u16, i32: u32, i64: u64);

impl Memory for X80 {
    fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
        let linear = addr::operand(cpu, op, 10, false)?;
        let significand = cpu.read::<u64>(env, linear, op.seg)?;
        let sign_exponent = cpu.read::<u16>(env, cpu.wrap(linear.wrapping_add(8)), op.seg)?;
        Ok(Self { significand, sign_exponent })
    }
    fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let linear = addr::operand(cpu, op, 10, true)?;
        cpu.check_alignment(linear, 8)?;
        cpu.probe_write(env, linear, 10, op.seg)?;
        cpu.write(env, linear, op.seg, self.significand)?;
        cpu.write(env, cpu.wrap(linear.wrapping_add(8)), op.seg, self.sign_exponent)
    }
    fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let linear = addr::operand(cpu, op, 10, true)?;
        cpu.check_alignment(linear, 8)?;
        cpu.probe_write(env, linear, 10, op.seg)
    }
    fn unpack(&self) -> Unpacked {
        Format::unpack(*self)
    }
    /// A move: not even signalling NaNs raise anything.
    fn load(self, _cx: &mut Context) -> X80 {
        self
    }
    fn store(_cx: &mut Context, value: X80) -> Self {
        value
    }
}

/// Eighteen decimal digits, two to a byte, and a sign: SDM vol. 1 section 4.7. It is laid out as an [`X80`] is.
pub struct Bcd(X80);

impl Bcd {
    /// Bytes of digits.
    const BYTES: u32 = 9;
    /// The first magnitude that does not fit.
    const LIMIT: u64 = 10u64.pow(18);
    /// The answer to a masked invalid operation.
    const INDEFINITE: Self = Self(X80::new(0xFFFF, 0xC000_0000_0000_0000));

    fn new(negative: bool, magnitude: u64) -> Self {
        let digit = |i: u32| u128::from(magnitude / 10u64.pow(i) % 10);
        let digits = (0..2 * Self::BYTES).fold(0, |digits, i| digits | digit(i) << (4 * i));
        Self(X80::new(u16::from(negative) << 15 | (digits >> 64) as u16, digits as u64))
    }
}

impl Memory for Bcd {
    fn read(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Self, Stop> {
        X80::read(cpu, env, op).map(Self)
    }
    fn write(self, cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        self.0.write(cpu, env, op)
    }
    fn probe(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        X80::probe(cpu, env, op)
    }
    fn unpack(&self) -> Unpacked {
        let digits = u128::from(self.0.sign_exponent) << 64 | u128::from(self.0.significand);
        // Digits above nine count as what they are.
        let magnitude = (0..2 * Self::BYTES).rev().fold(0u64, |sum, i| sum * 10 + (digits >> (4 * i) & 15) as u64);
        Unpacked::finite(self.0.sign_exponent >> 15 != 0, 63, magnitude)
    }
    fn store(cx: &mut Context, value: X80) -> Self {
        let rounding = cx.rounding;
        let integral: X80 = round_to_integral(cx, source(value), rounding);
        let Unpacked { class, sign, exponent, significand, .. } = integral.unpack();
        let magnitude = match class {
            Class::Zero => 0,
            Class::Finite if exponent < 63 => significand >> (63 - exponent.max(0)),
            _ => Self::LIMIT,
        };
        if magnitude >= Self::LIMIT {
            (cx.flags, cx.rounded_up) = (flag::IE, false);
            return Self::INDEFINITE;
        }
        Self::new(sign, magnitude)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_there_and_back() {
        for value in [0, 1, -1, 42, -123_456_789_012_345_678, 999_999_999_999_999_999] {
            let mut cx = Context::from_fcw(0x37F);
            let bcd = Bcd::store(&mut cx, convert(&mut Context::from_fcw(0x37F), from_i64(value)));
            assert_eq!((bcd.unpack(), cx.flags), (from_i64(value), 0), "{value}");
        }
        assert_eq!(Bcd::new(true, 1234).0, X80::new(0x8000, 0x1234));
    }

    #[test]
    fn decimals_have_eighteen_digits() {
        let mut cx = Context::from_fcw(0x37F);
        let bcd = Bcd::store(&mut cx, convert(&mut Context::from_fcw(0x37F), from_i64(10i64.pow(18))));
        assert_eq!((bcd.0, cx.flags), (Bcd::INDEFINITE.0, flag::IE));
    }
}
