//! MUL, IMUL, DIV, IDIV, MULX.
//!
//! SF, ZF, AF and PF after a multiplication are undefined; they are those of the low half, AF cleared. Division leaves all flags.

use x86defs::vector;

use super::addr;
use super::form::{Place, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, HIGH_BYTES, Handler, Op, Step, Stop, Threaded, Width, threaded};

const RAX: u8 = 0;
const RDX: u8 = 2;

/// Where the high half of a double-width operand is: RDX, but AH for bytes.
#[inline(always)]
fn high_slot<T: Width>() -> u8 {
    if T::BITS == 8 { HIGH_BYTES + RAX } else { RDX }
}

/// An operation between the accumulator and one operand.
pub trait Accumulate {
    /// Carry it out.
    fn apply<T: Width>(cpu: &mut Cpu, operand: T) -> Result<(), Stop>;
}

#[inline(always)]
fn set_product<T: Width>(cpu: &mut Cpu, low: T, high: T, overflow: bool) {
    T::set(&mut cpu.regs, RAX, low);
    T::set(&mut cpu.regs, high_slot::<T>(), high);
    cpu.flags.set_all(low, overflow, overflow, false);
}

/// MUL.
pub struct Mul;
impl Accumulate for Mul {
    #[inline(always)]
    fn apply<T: Width>(cpu: &mut Cpu, operand: T) -> Result<(), Stop> {
        let product = u128::from(T::get(&cpu.regs, RAX).to_u64()) * u128::from(operand.to_u64());
        let (low, high) = (T::from_u64(product as u64), T::from_u64((product >> T::BITS) as u64));
        set_product(cpu, low, high, high.to_u64() != 0);
        Ok(())
    }
}

#[inline(always)]
fn signed_product<T: Width>(a: T, b: T) -> (i128, T, bool) {
    let product = i128::from(a.sign_extend() as i64) * i128::from(b.sign_extend() as i64);
    let low = T::from_u64(product as u64);
    (product, low, i128::from(low.sign_extend() as i64) != product)
}

/// IMUL with one operand.
pub struct Imul;
impl Accumulate for Imul {
    #[inline(always)]
    fn apply<T: Width>(cpu: &mut Cpu, operand: T) -> Result<(), Stop> {
        let (product, low, overflow) = signed_product(T::get(&cpu.regs, RAX), operand);
        set_product(cpu, low, T::from_u64((product >> T::BITS) as u64), overflow);
        Ok(())
    }
}

#[inline(always)]
fn dividend<T: Width>(cpu: &Cpu) -> u128 {
    let high = u128::from(T::get(&cpu.regs, high_slot::<T>()).to_u64());
    high << T::BITS | u128::from(T::get(&cpu.regs, RAX).to_u64())
}

#[inline(always)]
fn set_quotient<T: Width>(cpu: &mut Cpu, quotient: T, remainder: T) {
    T::set(&mut cpu.regs, RAX, quotient);
    T::set(&mut cpu.regs, high_slot::<T>(), remainder);
}

/// DIV.
pub struct Div;
impl Accumulate for Div {
    #[inline(always)]
    fn apply<T: Width>(cpu: &mut Cpu, operand: T) -> Result<(), Stop> {
        let (dividend, divisor) = (dividend::<T>(cpu), operand.to_u64());
        // The quotient fits iff the high half is below the divisor; that also catches zero.
        if (dividend >> T::BITS) as u64 >= divisor {
            return Err(cpu.raise(vector::DE));
        }
        let (quotient, remainder) = match u64::try_from(dividend) {
            Ok(small) => (small / divisor, small % divisor),
            Err(_) => ((dividend / u128::from(divisor)) as u64, (dividend % u128::from(divisor)) as u64),
        };
        set_quotient(cpu, T::from_u64(quotient), T::from_u64(remainder));
        Ok(())
    }
}

/// IDIV.
pub struct Idiv;
impl Accumulate for Idiv {
    #[inline(always)]
    fn apply<T: Width>(cpu: &mut Cpu, operand: T) -> Result<(), Stop> {
        let unused = 128 - 2 * T::BITS;
        let dividend = (dividend::<T>(cpu) << unused) as i128 >> unused;
        let divisor = i128::from(operand.sign_extend() as i64);
        let (quotient, remainder) = match (i64::try_from(dividend), divisor as i64) {
            // The common case, without the division of 128 bits; the quotient of MIN by -1 does not fit.
            (Ok(small), divisor) if divisor != 0 && divisor != -1 => {
                (i128::from(small / divisor), i128::from(small % divisor))
            }
            _ => match (dividend.checked_div(divisor), dividend.checked_rem(divisor)) {
                (Some(quotient), Some(remainder)) => (quotient, remainder),
                _ => return Err(cpu.raise(vector::DE)),
            },
        };
        let truncated = T::from_u64(quotient as u64);
        if i128::from(truncated.sign_extend() as i64) != quotient {
            return Err(cpu.raise(vector::DE));
        }
        set_quotient(cpu, truncated, T::from_u64(remainder as u64));
        Ok(())
    }
}

fn accumulate_reg<O: Accumulate, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let operand = T::get(&cpu.regs, op.dst);
    O::apply(cpu, operand)?;
    Ok(Flow::Next)
}

fn accumulate_mem<O: Accumulate, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let operand = addr::read_operand::<T>(cpu, env, op)?;
    O::apply(cpu, operand)?;
    Ok(Flow::Next)
}

/// MUL, IMUL, DIV, IDIV with one operand.
pub fn accumulate<O: Accumulate>(place: Place, size: u8) -> Threaded {
    with_width!(size, T => match place {
        Place::Register => threaded!(accumulate_reg::<O, T>),
        Place::Memory(_) => threaded!(accumulate_mem::<O, T>),
    })
}

#[inline(always)]
fn imul<T: Width>(cpu: &mut Cpu, op: &Op, a: T, b: T) -> Step {
    let (_, low, overflow) = signed_product(a, b);
    T::set(&mut cpu.regs, op.dst, low);
    cpu.flags.set_all(low, overflow, overflow, false);
    Ok(Flow::Next)
}

#[inline(always)]
fn imul_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let (a, b) = (T::get(&cpu.regs, op.dst), T::get(&cpu.regs, op.src));
    imul(cpu, op, a, b)
}

fn imul_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = addr::read_operand::<T>(cpu, env, op)?;
    let a = T::get(&cpu.regs, op.dst);
    imul(cpu, op, a, b)
}

fn imul_reg_imm<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let a = T::get(&cpu.regs, op.src);
    imul(cpu, op, a, T::from_u64(op.imm))
}

fn imul_mem_imm<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let a = addr::read_operand::<T>(cpu, env, op)?;
    imul(cpu, op, a, T::from_u64(op.imm))
}

/// IMUL with two operands; with three (`by_imm`): `source` times `imm`.
pub fn imul_two(source: Place, size: u8, by_imm: bool) -> Threaded {
    with_width!(size, T => match (source, by_imm) {
        (Place::Register, false) => threaded!(imul_reg::<T>),
        (Place::Register, true) => threaded!(imul_reg_imm::<T>),
        (Place::Memory(_), false) => threaded!(imul_mem::<T>),
        (Place::Memory(_), true) => threaded!(imul_mem_imm::<T>),
    })
}

#[inline(always)]
fn mulx<T: Width>(cpu: &mut Cpu, op: &Op, b: T) -> Step {
    let product = u128::from(T::get(&cpu.regs, RDX).to_u64()) * u128::from(b.to_u64());
    // If both destinations are the same register it gets the high half.
    T::set(&mut cpu.regs, op.extra, T::from_u64(product as u64));
    T::set(&mut cpu.regs, op.dst, T::from_u64((product >> T::BITS) as u64));
    Ok(Flow::Next)
}

fn mulx_reg<T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let b = T::get(&cpu.regs, op.src);
    mulx(cpu, op, b)
}

fn mulx_mem<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let b = addr::read_operand::<T>(cpu, env, op)?;
    mulx(cpu, op, b)
}

/// MULX: high half to `dst`, low half to `extra`.
pub fn mulx_of(source: Place, size: u8) -> Handler {
    with_width!(size, T => match source {
        Place::Register => mulx_reg::<T> as Handler,
        Place::Memory(_) => mulx_mem::<T>,
    })
}
