//! Single bits and counts of bits: BT, BTS, BTR, BTC, BSF, BSR, TZCNT, LZCNT, POPCNT.

use x86defs::rflags;

use super::addr;
use super::form::{Form, Place, with_width};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Flow, Op, Step, Threaded, Width, threaded};

/// What happens to the bit that was tested.
pub trait BitOp {
    /// Whether the operand is written.
    const STORES: bool;
    /// The operand with its bit changed.
    fn apply<T: Width>(value: T, mask: T) -> T;
}

macro_rules! bit_op {
    ($($name:ident $stores:literal |$value:ident, $mask:ident| $body:expr;)*) => {$(
        #[doc = concat!("`", stringify!($name), "`")]
        pub struct $name;
        impl BitOp for $name {
            const STORES: bool = $stores;
            #[inline(always)]
            fn apply<T: Width>($value: T, $mask: T) -> T {
                $body
            }
        }
    )*};
}

bit_op! {
    Bt false |value, _mask| value;
    Bts true |value, mask| value | mask;
    Btr true |value, mask| value & !mask;
    Btc true |value, mask| value ^ mask;
}

/// The bit `number` names, modulo the width.
#[inline(always)]
fn mask_of<T: Width>(number: u64) -> T {
    T::from_u64(1 << (number % u64::from(T::BITS)))
}

#[inline(always)]
fn bit_reg<O: BitOp, T: Width>(cpu: &mut Cpu, op: &Op, number: u64) -> Step {
    let (value, mask) = (T::get(&cpu.regs, op.dst), mask_of::<T>(number));
    cpu.flags.set_cf((value & mask).to_u64() != 0);
    if O::STORES {
        T::set(&mut cpu.regs, op.dst, O::apply(value, mask));
    }
    Ok(Flow::Next)
}

fn bit_reg_reg<O: BitOp, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let number = T::get(&cpu.regs, op.src).to_u64();
    bit_reg::<O, T>(cpu, op, number)
}

#[inline(always)]
fn bit_reg_imm<O: BitOp, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    bit_reg::<O, T>(cpu, op, op.imm)
}

fn bit_mem<O: BitOp, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, number: u64) -> Step {
    let mask = mask_of::<T>(number);
    let value = if O::STORES {
        addr::update_operand::<T>(cpu, env, op, |_, value| O::apply(value, mask))?
    } else {
        addr::read_operand::<T>(cpu, env, op)?
    };
    cpu.flags.set_cf((value & mask).to_u64() != 0);
    cpu.after_store()
}

fn bit_mem_imm<O: BitOp, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    bit_mem::<O, T>(cpu, env, op, op.imm)
}

/// A bit number in a register is signed and reaches beyond the operand (SDM vol. 2 BT).
fn bit_mem_reg<O: BitOp, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let number = T::get(&cpu.regs, op.src).sign_extend();
    let words = number as i64 >> T::BITS.ilog2();
    let there = Op { disp: op.disp.wrapping_add(words * T::BYTES as i64), ..*op };
    bit_mem::<O, T>(cpu, env, &there, number)
}

/// BT, BTS, BTR, BTC. There are no byte operands.
pub fn bit<O: BitOp>(form: Form, size: u8) -> Threaded {
    with_width!(size, T => match form {
        Form::RegReg => threaded!(bit_reg_reg::<O, T>),
        Form::RegImm | Form::RegMem(_) => threaded!(bit_reg_imm::<O, T>),
        Form::MemReg(_) => threaded!(bit_mem_reg::<O, T>),
        Form::MemImm(_) => threaded!(bit_mem_imm::<O, T>),
    })
}

/// A function from a source to a destination.
pub trait Scan {
    /// The result, if the destination changes, and the flags.
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T>;
}

/// BSF. ZF is what the manual defines; the destination keeps its value on a zero source, as on all silicon.
pub struct Bsf;
impl Scan for Bsf {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T> {
        flags.logic(value);
        let value = value.to_u64();
        (value != 0).then(|| T::from_u64(value.trailing_zeros().into()))
    }
}

/// BSR.
pub struct Bsr;
impl Scan for Bsr {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T> {
        flags.logic(value);
        value.to_u64().checked_ilog2().map(|bit| T::from_u64(bit.into()))
    }
}

/// TZCNT and LZCNT: CF for a zero source, ZF for a zero result.
fn count_flags(flags: &mut Flags, source: u64, count: u32) {
    let cf = if source == 0 { rflags::CF } else { 0 };
    let zf = if count == 0 { rflags::ZF } else { 0 };
    flags.set_bits(cf | zf);
}

/// TZCNT.
pub struct Tzcnt;
impl Scan for Tzcnt {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T> {
        let count = value.to_u64().trailing_zeros().min(T::BITS);
        count_flags(flags, value.to_u64(), count);
        Some(T::from_u64(count.into()))
    }
}

/// LZCNT.
pub struct Lzcnt;
impl Scan for Lzcnt {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T> {
        let count = value.to_u64().leading_zeros() - (64 - T::BITS);
        count_flags(flags, value.to_u64(), count);
        Some(T::from_u64(count.into()))
    }
}

/// POPCNT: all flags cleared but ZF.
pub struct Popcnt;
impl Scan for Popcnt {
    #[inline(always)]
    fn apply<T: Width>(flags: &mut Flags, value: T) -> Option<T> {
        flags.set_bits(if value.to_u64() == 0 { rflags::ZF } else { 0 });
        Some(T::from_u64(value.to_u64().count_ones().into()))
    }
}

#[inline(always)]
fn store<S: Scan, T: Width>(cpu: &mut Cpu, op: &Op, value: T) -> Step {
    if let Some(result) = S::apply(&mut cpu.flags, value) {
        T::set(&mut cpu.regs, op.dst, result);
    }
    Ok(Flow::Next)
}

fn scan_reg<S: Scan, T: Width>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    let value = T::get(&cpu.regs, op.src);
    store::<S, T>(cpu, op, value)
}

fn scan_mem<S: Scan, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = addr::read_operand::<T>(cpu, env, op)?;
    store::<S, T>(cpu, op, value)
}

/// BSF, BSR, TZCNT, LZCNT, POPCNT.
pub fn scan<S: Scan>(source: Place, size: u8) -> Threaded {
    with_width!(size, T => match source {
        Place::Register => threaded!(scan_reg::<S, T>),
        Place::Memory(_) => threaded!(scan_mem::<S, T>),
    })
}
