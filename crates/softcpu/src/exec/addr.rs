//! Effective addresses and segmentation: from the memory operand of an op to a linear address.
//!
//! Handlers that are hot are compiled once for each [`Address`] kind, so that flat code pays for nothing but the
//! addition. Everything else calls the functions, which work in every mode.

use x86defs::segment as attr;
use x86defs::vector;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::flags::Flags;
use crate::op::{Op, Stop, Width, slot};
use crate::segment::{CS, FS, SS};

/// How the linear address of an op's memory operand is computed. The decoder picks the kind.
///
/// A handler that is generic over it asks for the place in RAM first ([`ram_to_load`], [`ram_to_store`]): that is all there is
/// to do when address and page are ordinary. If there is no answer it goes to its slow twin, which works in any mode, as a
/// tail call, so that the handler itself needs no stack frame.
pub trait Address {
    /// The linear address, if it needs no check.
    fn unchecked(cpu: &Cpu, op: &Op) -> Option<u64>;
}

/// 64-bit code with 64-bit addresses in a segment other than FS and GS.
pub struct Flat64;
/// 64-bit code with 64-bit addresses in FS or GS.
pub struct Based64;
/// 32-bit addresses in a segment that is flat.
pub struct Flat32;
/// Everything else: address size, base, limit and type are looked at.
pub struct Segmented;

impl Address for Flat64 {
    #[inline(always)]
    fn unchecked(cpu: &Cpu, op: &Op) -> Option<u64> {
        Some(sum(cpu, op))
    }
}

impl Address for Based64 {
    #[inline(always)]
    fn unchecked(cpu: &Cpu, op: &Op) -> Option<u64> {
        Some(cpu.seg(op.seg).base.wrapping_add(sum(cpu, op)))
    }
}

impl Address for Flat32 {
    #[inline(always)]
    fn unchecked(cpu: &Cpu, op: &Op) -> Option<u64> {
        Some(sum(cpu, op) & 0xFFFF_FFFF)
    }
}

impl Address for Segmented {
    #[inline(always)]
    fn unchecked(_cpu: &Cpu, _op: &Op) -> Option<u64> {
        None
    }
}

/// Where the memory operand lies in RAM, if it can be loaded from there without further checks.
#[inline(always)]
pub fn ram_to_load<T: Width, A: Address>(cpu: &Cpu, op: &Op) -> Option<u64> {
    cpu.tlb.read(cpu.mmu_index, A::unchecked(cpu, op)?, T::BYTES)
}

/// Where the memory operand lies in RAM, if it can be loaded and stored there without further checks. There is no decoded code
/// in its page.
#[inline(always)]
pub fn ram_to_store<T: Width, A: Address>(cpu: &Cpu, op: &Op) -> Option<u64> {
    cpu.tlb.write(cpu.mmu_index, A::unchecked(cpu, op)?, T::BYTES)
}

/// The linear address of `bytes` bytes of the memory operand in any mode, checked for reading, or for writing too.
pub fn operand(cpu: &mut Cpu, op: &Op, bytes: u64, write: bool) -> Result<u64, Stop> {
    linear(cpu, op.seg, effective(cpu, op), bytes, write)
}

/// Base, index and displacement added up, before the address size is applied.
#[inline(always)]
pub fn sum(cpu: &Cpu, op: &Op) -> u64 {
    cpu.regs[slot(op.base)]
        .wrapping_add(cpu.regs[slot(op.index)].wrapping_shl(u32::from(op.scale)))
        .wrapping_add(op.disp as u64)
}

/// All ones in as many bytes.
#[inline(always)]
pub fn size_mask(bytes: u8) -> u64 {
    match bytes {
        1 => 0xFF,
        2 => 0xFFFF,
        4 => 0xFFFF_FFFF,
        _ => u64::MAX,
    }
}

/// The memory operand's offset in its segment.
#[inline]
pub fn effective(cpu: &Cpu, op: &Op) -> u64 {
    sum(cpu, op) & size_mask(op.address)
}

/// The linear address of `bytes` bytes at `offset` in segment `seg`, checked for reading, or for writing if `write`:
/// SDM vol. 3 sections 5.3 and 5.5. Paging, and whether the address is canonical, are checked by the access itself.
#[inline]
pub fn linear(cpu: &mut Cpu, seg: u8, offset: u64, bytes: u64, write: bool) -> Result<u64, Stop> {
    if cpu.mode.is_64() {
        return Ok(if seg >= FS { cpu.seg(seg).base.wrapping_add(offset) } else { offset });
    }
    let segment = *cpu.seg(seg);
    let last = offset.wrapping_add(bytes.wrapping_sub(1));
    if last > u64::from(segment.limit)
        || segment.attributes & (attr::P | attr::CODE | attr::DC | attr::RW) != attr::P | attr::RW
    {
        check(cpu, seg, offset, last, write)?;
    }
    Ok(segment.base.wrapping_add(offset) & 0xFFFF_FFFF)
}

/// What [`linear`] does for anything but an access within an ordinary data segment.
#[cold]
fn check(cpu: &mut Cpu, seg: u8, offset: u64, last: u64, write: bool) -> Result<(), Stop> {
    let segment = cpu.seg(seg);
    let has = |bit: u16| segment.attributes & bit != 0;
    let within = if has(attr::CODE) || !has(attr::DC) {
        // Whether an access wraps at the end of 4 GiB is up to the model (SDM vol. 3 section 5.3.1): it does, as in flat code.
        last <= u64::from(segment.limit) || segment.limit == u32::MAX
    } else {
        let top = if has(attr::DB) { 0xFFFF_FFFF } else { 0xFFFF };
        offset > u64::from(segment.limit) && last <= top
    };
    // Real-mode segments have limits but no types: one writes through CS.
    let allowed = cpu.mode.is_real()
        || has(attr::P)
            && match (has(attr::CODE), write) {
                (false, false) => true,
                (true, true) => false,
                (true, false) | (false, true) => has(attr::RW),
            };
    if within && allowed {
        return Ok(());
    }
    let vector = if seg == SS { vector::SS } else { vector::GP };
    Err(cpu.raise_with(vector, 0))
}

/// Load the memory operand, in any mode.
pub fn read_operand<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<T, Stop> {
    let linear = operand(cpu, op, T::BYTES, false)?;
    cpu.read(env, linear, op.seg)
}

/// Load a part of the memory operand, `displacement` bytes from its beginning, as an access of its own: its offset wraps at the
/// address size, and its limit is checked alone. So do processors with the second halves of far pointers and of BOUND's limits.
pub fn read_part<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, displacement: u64) -> Result<T, Stop> {
    let offset = sum(cpu, op).wrapping_add(displacement) & size_mask(op.address);
    let linear = linear(cpu, op.seg, offset, T::BYTES, false)?;
    cpu.read(env, linear, op.seg)
}

/// Replace the memory operand by what `f` makes of it and the flags, in any mode. Gives the old value; nothing has changed if
/// it fails. End the handler as [`Cpu::write`] says.
pub fn update_operand<T: Width>(
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    f: impl FnOnce(&mut Flags, T) -> T,
) -> Result<T, Stop> {
    let linear = operand(cpu, op, T::BYTES, true)?;
    let old = cpu.read_for_write::<T>(env, linear, op.seg)?;
    let mut flags = cpu.flags;
    let new = f(&mut flags, old);
    cpu.write(env, linear, op.seg, new)?;
    cpu.flags = flags;
    Ok(old)
}

/// Store the memory operand, in any mode. End the handler as [`Cpu::write`] says.
pub fn write_operand<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, value: T) -> Result<(), Stop> {
    let linear = operand(cpu, op, T::BYTES, true)?;
    cpu.write(env, linear, op.seg, value)
}

/// Whether a near transfer to `offset` stays in the code segment; #GP(0) if not (SDM vol. 2 JMP, CALL, RET).
#[inline]
pub fn check_code_offset(cpu: &mut Cpu, offset: u64) -> Result<(), Stop> {
    let inside = if cpu.mode.is_64() { cpu.is_canonical(offset) } else { offset <= u64::from(cpu.seg(CS).limit) };
    if inside { Ok(()) } else { Err(cpu.gp0()) }
}
