//! String instructions: MOVS, STOS, LODS, SCAS, CMPS, each alone or repeated. (INS and OUTS: [`super::port_string`].)
//!
//! A repetition is interruptible: registers say after each element how far it is, so that a fault in the middle is precise, and
//! after a bounded number of elements the engine gets its chance ([`Stop::Again`]). Whole runs within a page of plain RAM are
//! moved at once.

use x86defs::rflags;

use super::addr::{self, size_mask};
use super::form::with_width;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Handler, Op, Step, Stop, Width};
use crate::segment::{ES, FS};
use crate::tlb::MmuIndex;

const RAX: u8 = 0;
const RCX: u8 = 1;
/// Source index.
pub const RSI: u8 = 6;
/// Destination index.
pub const RDI: u8 = 7;

/// Most elements done before the engine looks at events.
const MAX_ELEMENTS: u64 = 4096;

/// Values of `extra`.
pub mod repeat {
    /// No repetition.
    pub const NONE: u8 = 0;
    /// REP, REPE.
    pub const REPE: u8 = 1;
    /// REPNE.
    pub const REPNE: u8 = 2;
}

/// An index register, truncated to the address size.
#[inline(always)]
pub fn index(cpu: &Cpu, op: &Op, register: u8) -> u64 {
    cpu.regs[usize::from(register)] & size_mask(op.address)
}

/// Write an index or count register at the address size.
#[inline(always)]
pub fn set_index(cpu: &mut Cpu, op: &Op, register: u8, value: u64) {
    match op.address {
        2 => u16::set(&mut cpu.regs, register, value as u16),
        4 => u32::set(&mut cpu.regs, register, value as u32),
        _ => cpu.regs[usize::from(register)] = value,
    }
}

/// Move an index register on by `elements`, in the direction that DF says.
#[inline(always)]
pub fn advance<T: Width>(cpu: &mut Cpu, op: &Op, register: u8, elements: u64) {
    let bytes = T::BYTES * elements;
    let delta = if cpu.system_flags & rflags::DF == 0 { bytes } else { bytes.wrapping_neg() };
    let value = cpu.regs[usize::from(register)].wrapping_add(delta);
    set_index(cpu, op, register, value);
}

/// One string instruction.
trait Element {
    /// Whether the repetition ends when ZF is not as the prefix says.
    const COMPARES: bool;
    /// Do one element and move the index registers on.
    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop>;
    /// Do many at once, at most `count`, if it is as good as doing them one by one; how many were done.
    fn bulk<T: Width>(_cpu: &mut Cpu, _op: &Op, _count: u64) -> u64 {
        0
    }
}

#[inline(always)]
fn load_source<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<T, Stop> {
    let offset = index(cpu, op, RSI);
    let linear = addr::linear(cpu, op.seg, offset, T::BYTES, false)?;
    cpu.read(env, linear, op.seg)
}

#[inline(always)]
fn destination<T: Width>(cpu: &mut Cpu, op: &Op, write: bool) -> Result<u64, Stop> {
    let offset = index(cpu, op, RDI);
    addr::linear(cpu, ES, offset, T::BYTES, write)
}

struct Movs;
impl Element for Movs {
    const COMPARES: bool = false;

    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let value = load_source::<T>(cpu, env, op)?;
        let linear = destination::<T>(cpu, op, true)?;
        cpu.write(env, linear, ES, value)?;
        advance::<T>(cpu, op, RSI, 1);
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }

    fn bulk<T: Width>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        if !runs_flat(cpu, op, op.seg) {
            return 0;
        }
        let (source, target) = (index(cpu, op, RSI), index(cpu, op, RDI));
        let elements = count.min(in_page::<T>(source)).min(in_page::<T>(target));
        let bytes = elements * T::BYTES;
        let (Some(from), Some(to)) = (
            page_run(bytes, |bytes| cpu.tlb.read(cpu.mmu_index, source, bytes)),
            page_run(bytes, |bytes| cpu.tlb.write(cpu.mmu_index, target, bytes)),
        ) else {
            return 0;
        };
        // Where the target begins inside the source, elements that were just stored are read again.
        if to > from && to - from < bytes {
            return 0;
        }
        cpu.mem.copy_run(from, to, bytes);
        advance::<T>(cpu, op, RSI, elements);
        advance::<T>(cpu, op, RDI, elements);
        elements
    }
}

struct Stos;
impl Element for Stos {
    const COMPARES: bool = false;

    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let linear = destination::<T>(cpu, op, true)?;
        let value = T::get(&cpu.regs, RAX);
        cpu.write(env, linear, ES, value)?;
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }

    fn bulk<T: Width>(cpu: &mut Cpu, op: &Op, count: u64) -> u64 {
        if !runs_flat(cpu, op, ES) {
            return 0;
        }
        let target = index(cpu, op, RDI);
        let elements = count.min(in_page::<T>(target));
        let Some(to) = page_run(elements * T::BYTES, |bytes| cpu.tlb.write(cpu.mmu_index, target, bytes)) else {
            return 0;
        };
        let value = T::get(&cpu.regs, RAX);
        for i in 0..elements {
            cpu.mem.store(to + i * T::BYTES, value);
        }
        advance::<T>(cpu, op, RDI, elements);
        elements
    }
}

struct Lods;
impl Element for Lods {
    const COMPARES: bool = false;

    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let value = load_source::<T>(cpu, env, op)?;
        T::set(&mut cpu.regs, RAX, value);
        advance::<T>(cpu, op, RSI, 1);
        Ok(())
    }
}

struct Scas;
impl Element for Scas {
    const COMPARES: bool = true;

    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        let linear = destination::<T>(cpu, op, false)?;
        let (a, b) = (T::get(&cpu.regs, RAX), cpu.read::<T>(env, linear, ES)?);
        cpu.flags.sub(a, b, a.wrapping_sub(b));
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }
}

struct Cmps;
impl Element for Cmps {
    const COMPARES: bool = true;

    fn step<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(), Stop> {
        // Of two faults AMD's CPUs mostly report that of the second operand; the manuals do not say.
        let linear = destination::<T>(cpu, op, false)?;
        let b = cpu.read::<T>(env, linear, ES)?;
        let a = load_source::<T>(cpu, env, op)?;
        cpu.flags.sub(a, b, a.wrapping_sub(b));
        advance::<T>(cpu, op, RSI, 1);
        advance::<T>(cpu, op, RDI, 1);
        Ok(())
    }
}

/// Whether an index in `seg` is a linear address and counts upwards.
fn runs_flat(cpu: &Cpu, op: &Op, seg: u8) -> bool {
    let flat = if cpu.mode.is_64() { true } else { cpu.mode.flat_data() && op.address == 4 };
    flat && seg < FS && seg != crate::segment::CS && cpu.system_flags & rflags::DF == 0
}

/// Elements from `linear` to the end of its page.
fn in_page<T: Width>(linear: u64) -> u64 {
    (4096 - (linear & 0xFFF)) / T::BYTES
}

fn page_run(bytes: u64, lookup: impl FnOnce(u64) -> Option<u64>) -> Option<u64> {
    if bytes == 0 { None } else { lookup(bytes) }
}

/// How many elements may be done in one go. One at a time where each must be seen: single-stepping traps after each (SDM vol. 2
/// REP), data breakpoints likewise, and the answers of the bus are kept for one element only.
pub fn allowance(cpu: &Cpu) -> u64 {
    let single = cpu.careful || cpu.mmu_index == MmuIndex::Checked || cpu.system_flags & rflags::TF != 0;
    if single { 1 } else { MAX_ELEMENTS }
}

fn string<E: Element, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if op.extra == repeat::NONE {
        E::step::<T>(cpu, env, op)?;
        return cpu.after_store();
    }
    let mut allowance = allowance(cpu);
    loop {
        let count = index(cpu, op, RCX);
        if count == 0 {
            return cpu.after_store();
        }
        let done = match E::bulk::<T>(cpu, op, count.min(allowance)) {
            0 => {
                E::step::<T>(cpu, env, op)?;
                1
            }
            done => done,
        };
        set_index(cpu, op, RCX, count - done);
        if count == done || (E::COMPARES && cpu.flags.zf() != (op.extra == repeat::REPE)) {
            return cpu.after_store();
        }
        allowance -= done;
        if allowance == 0 || cpu.code_written {
            return Err(Stop::Again);
        }
    }
}

/// The string instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MOVS.
    Movs,
    /// STOS.
    Stos,
    /// LODS.
    Lods,
    /// SCAS.
    Scas,
    /// CMPS.
    Cmps,
}

/// The handler of a string instruction; the repeat prefix is in `extra`, the source segment in `seg`.
pub fn handler(kind: Kind, size: u8) -> Handler {
    with_width!(size, T => match kind {
        Kind::Movs => string::<Movs, T> as Handler,
        Kind::Stos => string::<Stos, T>,
        Kind::Lods => string::<Lods, T>,
        Kind::Scas => string::<Scas, T>,
        Kind::Cmps => string::<Cmps, T>,
    })
}
