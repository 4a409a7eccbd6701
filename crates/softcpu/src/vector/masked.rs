//! Loads and stores of those elements that a mask names, and the stores of a lane of a wide register.
//!
//! Elements that the mask leaves out are not accessed, so that they cannot fault; and their alignment is not checked (SDM vol. 2
//! VMASKMOV: no #AC for any mask). MASKMOVDQU and MASKMOVQ check the place of the whole operand.

use x86defs::vector;

use super::available::Available;
use super::encoding::{Encoded, Encoding, Legacy, with_encoding};
use super::memory;
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::with_width;
use crate::op::{Flow, Handler, Op, Step, Stop, Width};
use crate::segment::SS;

/// Top bits of the elements of width `T`, the lowest first; those of the high lane only if the encoding is wide.
#[inline(always)]
fn selected<E: Encoding, T: Width>(mask: Ymm) -> u32 {
    let bytes: [u8; 32] = bytemuck::cast(mask);
    let size = T::BYTES as usize;
    let count = (E::BYTES / T::BYTES) as usize;
    (0..count).fold(0, |set, i| set | u32::from(bytes[(i + 1) * size - 1] >> 7) << i)
}

/// Element `i` of width `T`.
#[inline(always)]
fn element<T: Width>(value: Ymm, i: u32) -> T {
    let bit = i * T::BITS;
    T::from_u64(value.as_flattened()[(bit / 64) as usize & 3] >> (bit % 64))
}

/// Numbers of the bits that are set.
fn numbers(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let number = set.trailing_zeros();
        set &= set.wrapping_sub(1);
        (number < 32).then_some(number)
    })
}

/// The linear address of element `i` of the memory operand.
fn locate<T: Width>(cpu: &mut Cpu, op: &Op, i: u32, write: bool) -> Result<u64, Stop> {
    let offset = addr::effective(cpu, op).wrapping_add(u64::from(i) * T::BYTES) & addr::size_mask(op.address);
    addr::linear(cpu, op.seg, offset, T::BYTES, write)
}

fn load<E: Encoding, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let mut value: Ymm = [[0; 2]; 2];
    for i in numbers(selected::<E, T>(cpu.vector.ymm(op.extra))) {
        let linear = locate::<T>(cpu, op, i, false)?;
        let element: T = cpu.read_element(env, linear, op.seg)?;
        let bit = i * T::BITS;
        value.as_flattened_mut()[(bit / 64) as usize & 3] |= element.to_u64() << (bit % 64);
    }
    E::set(cpu, op.dst, value);
    Ok(Flow::Next)
}

/// Store the elements of width `T` that are `set`: all of them can be written, or none is.
fn store_selected<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, set: u32, value: Ymm) -> Step {
    for i in numbers(set) {
        let linear = locate::<T>(cpu, op, i, true)?;
        cpu.probe_write(env, linear, T::BYTES, op.seg)?;
    }
    for i in numbers(set) {
        let linear = locate::<T>(cpu, op, i, true)?;
        cpu.write_element::<T>(env, linear, op.seg, element(value, i))?;
    }
    cpu.after_store()
}

fn store<E: Encoding, T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let set = selected::<E, T>(cpu.vector.ymm(op.extra));
    let value = cpu.vector.ymm(op.src);
    store_selected::<T>(cpu, env, op, set, value)
}

/// VMASKMOVPS, VMASKMOVPD, VPMASKMOVD, VPMASKMOVQ: the mask is in `extra`.
pub fn handler(encoded: Encoded, size: u8, stores: bool) -> Handler {
    with_encoding!(encoded, E => with_width!(size, T => if stores { store::<E, T> as Handler } else { load::<E, T> }))
}

/// What is checked whatever the mask is: that the address is canonical, and its alignment, in both cases to 8 bytes.
fn check_place(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let linear = addr::operand(cpu, op, 1, true)?;
    if cpu.mode.is_64() && !cpu.is_canonical(linear) {
        let vector = if op.seg == SS { vector::SS } else { vector::GP };
        return Err(cpu.raise_with(vector, 0));
    }
    cpu.check_alignment(linear, 8)
}

fn store_bytes<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    check_place(cpu, op)?;
    let set = selected::<E, u8>(cpu.vector.ymm(op.extra)) & 0xFFFF;
    let value = cpu.vector.ymm(op.src);
    store_selected::<u8>(cpu, env, op, set, value)
}

/// MASKMOVDQU: bytes of `src` to the memory at (E/R)DI, the mask is in `extra`.
pub fn maskmovdqu(encoded: Encoded) -> Handler {
    with_encoding!(encoded, E => store_bytes::<E> as Handler)
}

/// MASKMOVQ. Also when it faults the registers have become MMX registers, as on AMD's silicon.
pub fn maskmovq(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.mmx_ready(env)?;
    let step = store_quadword(cpu, env, op);
    if matches!(step, Ok(_) | Err(Stop::Fault)) {
        cpu.fpu.enter_mmx();
    }
    step
}

fn store_quadword(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_place(cpu, op)?;
    let set = selected::<Legacy, u8>([[cpu.fpu.mmx(op.extra), 0], [0; 2]]);
    let value = [[cpu.fpu.mmx(op.src), 0], [0; 2]];
    store_selected::<u8>(cpu, env, op, set, value)
}

fn extract_lane(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(Available::AVX)?;
    let value = cpu.vector.ymm(op.src)[(op.imm & 1) as usize];
    cpu.vector.set_ymm(op.dst, [value, [0; 2]]);
    Ok(Flow::Next)
}

fn store_lane(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(Available::AVX)?;
    let value = cpu.vector.ymm(op.src)[(op.imm & 1) as usize];
    let linear = memory::locate(cpu, op, 16, true, false)?;
    cpu.write_lane(env, linear, op.seg, value)?;
    cpu.after_store()
}

/// VEXTRACTF128, VEXTRACTI128: lane `imm` of `src` to a register or memory.
pub fn extract_lane_to(memory: bool) -> Handler {
    if memory { store_lane } else { extract_lane }
}

/// VZEROUPPER, and VZEROALL if `ALL`: outside 64-bit mode the upper eight registers stay.
pub fn vzero<const ALL: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    cpu.check_available(Available::AVX)?;
    for number in 0..if cpu.mode.is_64() { 16 } else { 8 } {
        let low = if ALL { [0; 2] } else { cpu.vector.xmm(number) };
        cpu.vector.set_ymm(number, [low, [0; 2]]);
    }
    Ok(Flow::Next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::encoding::Vex256;

    #[test]
    fn masks_name_elements() {
        let mask = [[0x8000_0000, 1 << 63], [u64::MAX >> 1, u64::MAX]];
        assert_eq!(selected::<Vex256, u32>(mask), 0b1101_1001);
        assert_eq!(selected::<Vex256, u64>(mask), 0b1010);
        assert_eq!(selected::<Legacy, u64>(mask), 0b10);
        assert_eq!(numbers(0x8000_0021).collect::<Vec<_>>(), [0, 5, 31]);
        assert_eq!(element::<u32>([[0, 7 << 32], [0; 2]], 3), 7);
    }
}
