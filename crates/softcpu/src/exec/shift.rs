//! Shifts and rotates: SHL, SHR, SAR, ROL, ROR, RCL, RCR, SHLD, SHRD.
//!
//! Where the manual leaves a flag undefined (OF for counts above one, AF), it is what the last single step would have given,
//! and AF is cleared: that is what most silicon does.

use super::addr;
use super::form::{Place, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Flow, Op, Step, Threaded, Width, threaded};

const RCX: u8 = 1;

/// A shift by a count that is not zero and below 32, or 64 for 64-bit operands.
pub trait Shift {
    /// Compute result and flags.
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T;
}

#[inline(always)]
fn bit(value: u64, position: u32) -> bool {
    value >> position & 1 != 0
}

/// SHL, also called SAL.
pub struct Shl;
impl Shift for Shl {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let a = a.to_u64();
        let r = T::from_u64(a << count);
        let cf = bit(a << (count - 1), T::BITS - 1);
        flags.set_all(r, cf, cf != bit(r.to_u64(), T::BITS - 1), false);
        r
    }
}

/// SHR.
pub struct Shr;
impl Shift for Shr {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let a = a.to_u64();
        let r = a >> count;
        let of = bit(r ^ r << 1, T::BITS - 1);
        let r = T::from_u64(r);
        flags.set_all(r, bit(a >> (count - 1), 0), of, false);
        r
    }
}

/// SAR.
pub struct Sar;
impl Shift for Sar {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let a = a.sign_extend() as i64;
        let r = T::from_u64((a >> count) as u64);
        flags.set_all(r, a >> (count - 1) & 1 != 0, false, false);
        r
    }
}

/// ROL. A count that is a multiple of the width changes no bit, but CF.
pub struct Rol;
impl Shift for Rol {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let (a, count) = (a.to_u64(), count % T::BITS);
        let r = T::from_u64(if count == 0 { a } else { a << count | a >> (T::BITS - count) });
        let cf = bit(r.to_u64(), 0);
        flags.set_cf(cf);
        flags.set_of(cf != bit(r.to_u64(), T::BITS - 1));
        r
    }
}

/// ROR.
pub struct Ror;
impl Shift for Ror {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let (a, count) = (a.to_u64(), count % T::BITS);
        let r = T::from_u64(if count == 0 { a } else { a >> count | a << (T::BITS - count) });
        let top = bit(r.to_u64(), T::BITS - 1);
        flags.set_cf(top);
        flags.set_of(top != bit(r.to_u64(), T::BITS - 2));
        r
    }
}

/// RCL: a rotation of one bit more than the operand has.
pub struct Rcl;
impl Shift for Rcl {
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let count = count % (T::BITS + 1);
        if count == 0 {
            return a;
        }
        let wide = u128::from(a.to_u64()) | u128::from(flags.cf()) << T::BITS;
        let turned = wide << count | wide >> (T::BITS + 1 - count);
        let r = T::from_u64(turned as u64);
        let cf = turned >> T::BITS & 1 != 0;
        flags.set_cf(cf);
        flags.set_of(cf != bit(r.to_u64(), T::BITS - 1));
        r
    }
}

/// RCR.
pub struct Rcr;
impl Shift for Rcr {
    fn apply<T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
        let count = count % (T::BITS + 1);
        if count == 0 {
            return a;
        }
        let wide = u128::from(a.to_u64()) | u128::from(flags.cf()) << T::BITS;
        let turned = wide >> count | wide << (T::BITS + 1 - count);
        let r = T::from_u64(turned as u64);
        flags.set_cf(turned >> T::BITS & 1 != 0);
        flags.set_of(bit(r.to_u64(), T::BITS - 1) != bit(r.to_u64(), T::BITS - 2));
        r
    }
}

#[inline(always)]
fn masked<T: Width>(count: u64) -> u32 {
    count as u32 & if T::BITS == 64 { 63 } else { 31 }
}

#[inline(always)]
fn shifted<S: Shift, T: Width>(flags: &mut Flags, a: T, count: u32) -> T {
    if count == 0 { a } else { S::apply(flags, a, count) }
}

#[inline(always)]
fn count_of<T: Width, const BY_CL: bool>(cpu: &Cpu, op: &Op) -> u32 {
    masked::<T>(if BY_CL { cpu.regs[usize::from(RCX)] } else { op.imm })
}

#[inline(always)]
fn shift_reg<S: Shift, T: Width, const BY_CL: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let count = count_of::<T, BY_CL>(cpu, op);
    let a = T::get(&cpu.regs, op.dst);
    let r = shifted::<S, T>(&mut cpu.flags, a, count);
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

fn shift_mem<S: Shift, T: Width, const BY_CL: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let count = count_of::<T, BY_CL>(cpu, op);
    addr::update_operand::<T>(cpu, env, op, |flags, a| shifted::<S, T>(flags, a, count))?;
    cpu.after_store()
}

/// A shift by `imm`, or by CL.
pub fn shift<S: Shift>(place: Place, size: u8, by_cl: bool) -> Threaded {
    with_width!(size, T => match (place, by_cl) {
        (Place::Register, false) => threaded!(shift_reg::<S, T, false>),
        (Place::Register, true) => threaded!(shift_reg::<S, T, true>),
        (Place::Memory(_), false) => threaded!(shift_mem::<S, T, false>),
        (Place::Memory(_), true) => threaded!(shift_mem::<S, T, true>),
    })
}

/// SHLD and SHRD on two operands.
pub trait DoubleShift {
    /// Compute result and flags; the count is as for [`Shift`].
    fn apply<T: Width>(flags: &mut Flags, a: T, b: T, count: u32) -> T;
}

/// SHLD. With 16-bit operands and counts above 16 the result is undefined; it is shifted through `a:b:a`, as silicon does.
pub struct Shld;
impl DoubleShift for Shld {
    fn apply<T: Width>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
        let (a, b) = (u128::from(a.to_u64()), u128::from(b.to_u64()));
        // The wide value, its width, and the width of what lies below the result.
        let (wide, width, below) = match T::BITS {
            16 => (a << 32 | b << 16 | a, 48, 32),
            bits => (a << bits | b, 2 * bits, bits),
        };
        let r = T::from_u64((wide << count >> below) as u64);
        let cf = wide >> (width - count) & 1 != 0;
        flags.set_all(r, cf, cf != bit(r.to_u64(), T::BITS - 1), false);
        r
    }
}

/// SHRD.
pub struct Shrd;
impl DoubleShift for Shrd {
    fn apply<T: Width>(flags: &mut Flags, a: T, b: T, count: u32) -> T {
        let (a, b) = (u128::from(a.to_u64()), u128::from(b.to_u64()));
        let wide = b << T::BITS | a;
        let wide = if T::BITS == 16 { a << 32 | wide } else { wide };
        let r = T::from_u64((wide >> count) as u64);
        let of = bit(r.to_u64(), T::BITS - 1) != bit(r.to_u64(), T::BITS - 2);
        flags.set_all(r, wide >> (count - 1) & 1 != 0, of, false);
        r
    }
}

fn double_reg<S: DoubleShift, T: Width, const BY_CL: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let count = count_of::<T, BY_CL>(cpu, op);
    let (a, b) = (T::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src));
    let r = if count == 0 { a } else { S::apply(&mut cpu.flags, a, b, count) };
    T::set(&mut cpu.regs, op.dst, r);
    Ok(Flow::Next)
}

fn double_mem<S: DoubleShift, T: Width, const BY_CL: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let count = count_of::<T, BY_CL>(cpu, op);
    let b = T::get(&cpu.regs, op.src);
    addr::update_operand::<T>(cpu, env, op, |flags, a| if count == 0 { a } else { S::apply(flags, a, b, count) })?;
    cpu.after_store()
}

/// SHLD or SHRD by `imm`, or by CL.
pub fn double_shift<S: DoubleShift>(place: Place, size: u8, by_cl: bool) -> Threaded {
    with_width!(size, T => match (place, by_cl) {
        (Place::Register, false) => threaded!(double_reg::<S, T, false>),
        (Place::Register, true) => threaded!(double_reg::<S, T, true>),
        (Place::Memory(_), false) => threaded!(double_mem::<S, T, false>),
        (Place::Memory(_), true) => threaded!(double_mem::<S, T, true>),
    })
}
