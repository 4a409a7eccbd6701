//! VGATHER* and VPGATHER*: loads from as many addresses as there are elements.
//!
//! Elements are loaded one after the other, each clears its mask, so that a fault in the middle loses nothing (SDM vol. 2
//! VGATHERDPS). What stops for a reason that the guest must not see starts again from the first element.

use super::available::Available;
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Handler, Op, Step, Stop, Width};

/// Element `i` of width `T`.
#[inline(always)]
fn get<T: Width>(value: &Ymm, i: u32) -> T {
    let bit = i * T::BITS;
    T::from_u64(value.as_flattened()[(bit / 64) as usize & 3] >> (bit % 64))
}

#[inline(always)]
fn set<T: Width>(value: &mut Ymm, i: u32, element: T) {
    let bit = i * T::BITS;
    let word = &mut value.as_flattened_mut()[(bit / 64) as usize & 3];
    let mask = u64::MAX >> (64 - T::BITS) << (bit % 64);
    *word = *word & !mask | element.to_u64() << (bit % 64);
}

/// The elements of width `T` below `count`; those above are zero.
fn low<T: Width>(value: Ymm, count: u32) -> Ymm {
    let mut low = [[0; 2]; 2];
    (0..count).for_each(|i| set::<T>(&mut low, i, get(&value, i)));
    low
}

/// Alignment is not checked (SDM vol. 2 table 2-30, exceptions of type 12).
fn fetch<T: Width, I: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, index: I) -> Result<T, Stop> {
    let offset = addr::sum(cpu, op).wrapping_add(index.sign_extend() << op.scale) & addr::size_mask(op.address);
    let linear = addr::linear(cpu, op.seg, offset, T::BYTES, false)?;
    cpu.read_element(env, linear, op.seg)
}

/// `imm` elements of width `T`, at most 8, by indices of width `I` in `src`; the mask is in `extra`.
fn gather<T: Width, I: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(Available::AVX)?;
    let count = op.imm as u32;
    let indices = cpu.vector.ymm(op.src);
    let (mut mask, mut value) = (cpu.vector.ymm(op.extra), cpu.vector.ymm(op.dst));
    for i in 0..count {
        if get::<T>(&mask, i).to_u64() >> (T::BITS - 1) != 0 {
            match fetch::<T, I>(cpu, env, op, get(&indices, i)) {
                Ok(element) => set(&mut value, i, element),
                Err(stop) => {
                    if stop == Stop::Fault {
                        cpu.vector.set_ymm(op.dst, value);
                        cpu.vector.set_ymm(op.extra, mask);
                    }
                    return Err(stop);
                }
            }
        }
        set::<T>(&mut mask, i, T::from_u64(0));
    }
    cpu.vector.set_ymm(op.dst, low::<T>(value, count));
    cpu.vector.set_ymm(op.extra, [[0; 2]; 2]);
    Ok(Flow::Next)
}

/// The handler for elements and indices of 4 or 8 bytes.
pub fn handler(size: u8, index_size: u8) -> Handler {
    match (size, index_size) {
        (4, 4) => gather::<u32, u32>,
        (4, _) => gather::<u32, u64>,
        (_, 4) => gather::<u64, u32>,
        _ => gather::<u64, u64>,
    }
}
