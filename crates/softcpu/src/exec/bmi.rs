//! BMI1, BMI2, ADX and CRC32: general registers only, most with three operands.
//!
//! Operands: destination in `dst`; the r/m operand in `src` or memory; the VEX.vvvv register in `extra`.

use super::addr;
use super::form::{Place, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Flow, Handler, Op, Step, Width};

/// A function of the r/m operand and a second one.
pub trait Bmi {
    /// Compute result and flags. `rm` is the r/m operand, `other` the VEX.vvvv register (or the destination of ADCX and
    /// ADOX, or the immediate of RORX).
    fn apply<T: Width>(flags: &mut Flags, rm: T, other: T) -> T;
}

macro_rules! bmi {
    ($($name:ident |$flags:ident, $rm:ident, $other:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl Bmi for $name {
            #[inline(always)]
            fn apply<T: Width>($flags: &mut Flags, $rm: T, $other: T) -> T {
                $body
            }
        }
    )*};
}

fn count_of<T: Width>(value: T) -> u32 {
    value.to_u64() as u32 % T::BITS
}

bmi! {
    // The VEX.vvvv operand is the inverted one.
    Andn |flags, rm, other| {
        let r = rm & !other;
        flags.logic(r);
        r
    };
    Blsi |flags, rm, _other| {
        let r = rm & T::from_u64(0).wrapping_sub(rm);
        flags.set_all(r, rm.to_u64() != 0, false, false);
        r
    };
    Blsmsk |flags, rm, _other| {
        let r = rm ^ rm.wrapping_sub(T::from_u64(1));
        flags.set_all(r, rm.to_u64() == 0, false, false);
        r
    };
    Blsr |flags, rm, _other| {
        let r = rm & rm.wrapping_sub(T::from_u64(1));
        flags.set_all(r, rm.to_u64() == 0, false, false);
        r
    };
    Bextr |flags, rm, other| {
        let (start, length) = (other.to_u64() & 0xFF, other.to_u64() >> 8 & 0xFF);
        let shifted = if start < 64 { rm.to_u64() >> start } else { 0 };
        let r = T::from_u64(if length < 64 { shifted & ((1 << length) - 1) } else { shifted });
        flags.logic(r);
        r
    };
    Bzhi |flags, rm, other| {
        let index = other.to_u64() & 0xFF;
        let beyond = index >= u64::from(T::BITS);
        let r = if beyond { rm } else { rm & T::from_u64((1 << index) - 1) };
        flags.set_all(r, beyond, false, false);
        r
    };
    Rorx |_flags, rm, other| {
        let count = count_of(other);
        let value = rm.to_u64();
        T::from_u64(if count == 0 { value } else { value >> count | value << (T::BITS - count) })
    };
    Sarx |_flags, rm, other| T::from_u64((rm.sign_extend() as i64 >> count_of(other)) as u64);
    Shlx |_flags, rm, other| T::from_u64(rm.to_u64() << count_of(other));
    Shrx |_flags, rm, other| T::from_u64(rm.to_u64() >> count_of(other));
    // PDEP and PEXT: the r/m operand is the mask.
    Pdep |_flags, rm, other| {
        let (mut mask, mut r, mut source) = (rm.to_u64(), 0, other.to_u64());
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            if source & 1 != 0 {
                r |= lowest;
            }
            source >>= 1;
            mask ^= lowest;
        }
        T::from_u64(r)
    };
    Pext |_flags, rm, other| {
        let (mut mask, mut r, mut at) = (rm.to_u64(), 0, 0);
        while mask != 0 {
            let lowest = mask & mask.wrapping_neg();
            r |= u64::from(other.to_u64() & lowest != 0) << at;
            at += 1;
            mask ^= lowest;
        }
        T::from_u64(r)
    };
    Adcx |flags, rm, other| {
        let sum = u128::from(rm.to_u64()) + u128::from(other.to_u64()) + u128::from(flags.cf());
        flags.set_cf(sum >> T::BITS != 0);
        T::from_u64(sum as u64)
    };
    Adox |flags, rm, other| {
        let sum = u128::from(rm.to_u64()) + u128::from(other.to_u64()) + u128::from(flags.of());
        flags.set_of(sum >> T::BITS != 0);
        T::from_u64(sum as u64)
    };
}

#[inline(always)]
fn store<O: Bmi, T: Width>(cpu: &mut Cpu, op: &Op, rm: T, other: T) -> Step {
    let r = O::apply(&mut cpu.flags, rm, other);
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

fn bmi_reg<O: Bmi, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (rm, other) = (T::get(&cpu.regs, op.src), T::get(&cpu.regs, op.extra));
    store::<O, T>(cpu, op, rm, other)
}

fn bmi_mem<O: Bmi, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let rm = addr::read_operand::<T>(cpu, env, op)?;
    let other = T::get(&cpu.regs, op.extra);
    store::<O, T>(cpu, op, rm, other)
}

/// The handler of one of them.
pub fn bmi<O: Bmi>(source: Place, size: u8) -> Handler {
    with_width!(size, T => match source {
        Place::Register => bmi_reg::<O, T> as Handler,
        Place::Memory(_) => bmi_mem::<O, T>,
    })
}

fn rorx_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let rm = T::get(&cpu.regs, op.src);
    store::<Rorx, T>(cpu, op, rm, T::from_u64(op.imm))
}

fn rorx_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let rm = addr::read_operand::<T>(cpu, env, op)?;
    store::<Rorx, T>(cpu, op, rm, T::from_u64(op.imm))
}

/// RORX, whose count is `imm`.
pub fn rorx(source: Place, size: u8) -> Handler {
    with_width!(size, T => match source {
        Place::Register => rorx_reg::<T> as Handler,
        Place::Memory(_) => rorx_mem::<T>,
    })
}

/// CRC-32C (Castagnoli), bit-reflected, as SDM vol. 2 CRC32 has it.
fn crc32c(crc: u32, value: u64, bytes: u64) -> u32 {
    const POLYNOMIAL: u32 = 0x82F6_3B78;
    (0..bytes).fold(crc, |crc, i| {
        (0..8).fold(crc ^ u32::from((value >> (8 * i)) as u8), |crc, _| {
            if crc & 1 != 0 { crc >> 1 ^ POLYNOMIAL } else { crc >> 1 }
        })
    })
}

fn crc32_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let crc = crc32c(u32::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src).to_u64(), T::BYTES);
    u32::set(&mut cpu.regs, op.dst, crc);
    Ok(Flow::Next)
}

fn crc32_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = addr::read_operand::<T>(cpu, env, op)?;
    let crc = crc32c(u32::get(&cpu.regs, op.dst), value.to_u64(), T::BYTES);
    u32::set(&mut cpu.regs, op.dst, crc);
    Ok(Flow::Next)
}

/// CRC32 of a source of `size` bytes.
pub fn crc32(source: Place, size: u8) -> Handler {
    with_width!(size, T => match source {
        Place::Register => crc32_reg::<T> as Handler,
        Place::Memory(_) => crc32_mem::<T>,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_of_the_check_string_is_the_published_one() {
        let crc = b"123456789".iter().fold(!0, |crc, &byte| crc32c(crc, byte.into(), 1));
        assert_eq!(!crc, 0xE306_9283);
    }

    #[test]
    fn deposit_undoes_extract() {
        let mut flags = Flags::default();
        for mask in [0u64, 1, 0xF0F0, u64::MAX, 0x8000_0000_0000_0001] {
            let value = 0x1234_5678_9ABC_DEF0;
            let packed = Pext::apply(&mut flags, mask, value);
            assert_eq!(Pdep::apply(&mut flags, mask, packed), value & mask);
        }
    }
}
