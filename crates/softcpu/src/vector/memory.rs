//! Memory operands that are wider than a general register.

use super::encoding::Encoding;
use super::lane::{Lane, from_u128, to_u128};
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Op, Stop, Width};
use crate::tlb::MmuIndex;

/// Number of bytes of a lane.
const LANE: u64 = 16;

impl Cpu {
    /// Load 16 bytes, wherever they lie.
    #[inline(always)]
    pub fn read_lane(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<Lane, Stop> {
        match self.tlb.read(self.mmu_index, linear, LANE) {
            Some(offset) => Ok(from_u128(self.mem.load(offset))),
            None => {
                self.check_alignment(linear, LANE)?;
                self.read_bytes::<16>(env, linear, seg).map(bytemuck::cast)
            }
        }
    }

    /// Load 32 bytes, wherever they lie. Alignment checks are for halves of them: 16 bytes are enough, as AMD's CPUs have it.
    #[inline(always)]
    pub fn read_lanes(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<Ymm, Stop> {
        match self.tlb.read(self.mmu_index, linear, 2 * LANE) {
            Some(offset) => Ok([from_u128(self.mem.load(offset)), from_u128(self.mem.load(offset + LANE))]),
            None => {
                self.check_alignment(linear, LANE)?;
                self.read_bytes::<32>(env, linear, seg).map(bytemuck::cast)
            }
        }
    }

    /// Store 16 bytes, all or nothing. End the handler as [`Cpu::write`] says.
    #[inline(always)]
    pub fn write_lane(&mut self, env: &mut Env<'_>, linear: u64, seg: u8, value: Lane) -> Result<(), Stop> {
        match self.tlb.write(self.mmu_index, linear, LANE) {
            Some(offset) => {
                self.mem.store(offset, to_u128(value));
                Ok(())
            }
            None => {
                self.check_alignment(linear, LANE)?;
                self.write_bytes(env, linear, seg, bytemuck::bytes_of(&value))
            }
        }
    }

    /// Store 32 bytes, all or nothing. End the handler as [`Cpu::write`] says.
    #[inline(always)]
    pub fn write_lanes(&mut self, env: &mut Env<'_>, linear: u64, seg: u8, value: Ymm) -> Result<(), Stop> {
        match self.tlb.write(self.mmu_index, linear, 2 * LANE) {
            Some(offset) => {
                self.mem.store(offset, to_u128(value[0]));
                self.mem.store(offset + LANE, to_u128(value[1]));
                Ok(())
            }
            None => {
                self.check_alignment(linear, LANE)?;
                self.write_bytes(env, linear, seg, bytemuck::bytes_of(&value))
            }
        }
    }
}

impl Cpu {
    /// Load an element whose alignment is not checked.
    #[inline]
    pub fn read_element<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<T, Stop> {
        if self.mmu_index != MmuIndex::Checked {
            return self.read(env, linear, seg);
        }
        let value = match T::BYTES {
            4 => u32::from_le_bytes(self.read_bytes(env, linear, seg)?).into(),
            _ => u64::from_le_bytes(self.read_bytes(env, linear, seg)?),
        };
        Ok(T::from_u64(value))
    }

    /// Store an element whose alignment is not checked. End the handler as [`Cpu::write`] says.
    #[inline]
    pub fn write_element<T: Width>(&mut self, env: &mut Env<'_>, linear: u64, seg: u8, value: T) -> Result<(), Stop> {
        if self.mmu_index != MmuIndex::Checked {
            return self.write(env, linear, seg, value);
        }
        self.write_bytes(env, linear, seg, &value.to_u64().to_le_bytes()[..T::BYTES as usize])
    }
}

/// The linear address of the memory operand of `bytes` bytes; #GP(0) if it must be a multiple of `bytes` and is not.
#[inline(always)]
pub fn locate(cpu: &mut Cpu, op: &Op, bytes: u64, write: bool, aligned: bool) -> Result<u64, Stop> {
    let linear = addr::operand(cpu, op, bytes, write)?;
    if aligned && linear & (bytes - 1) != 0 { Err(cpu.gp0()) } else { Ok(linear) }
}

/// Load the low quadword of a memory operand of 16 bytes, as which its alignment is checked.
pub fn load_half(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<u64, Stop> {
    let linear = locate(cpu, op, LANE / 2, false, false)?;
    cpu.check_alignment(linear, LANE)?;
    cpu.read_element(env, linear, op.seg)
}

/// Load the memory operand, as wide as the encoding's vectors.
#[inline(always)]
pub fn load<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, aligned: bool) -> Result<Ymm, Stop> {
    let linear = locate(cpu, op, E::BYTES, false, aligned)?;
    if E::WIDE { cpu.read_lanes(env, linear, op.seg) } else { Ok([cpu.read_lane(env, linear, op.seg)?, [0; 2]]) }
}

/// Store to the memory operand, as wide as the encoding's vectors. End the handler as [`Cpu::write`] says.
#[inline(always)]
pub fn store<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, aligned: bool, value: Ymm) -> Result<(), Stop> {
    let linear = locate(cpu, op, E::BYTES, true, aligned)?;
    if E::WIDE { cpu.write_lanes(env, linear, op.seg, value) } else { cpu.write_lane(env, linear, op.seg, value[0]) }
}

/// Where an operand as wide as the encoding's vectors lies in RAM if the segment is flat, the page is an ordinary one, and the
/// operand is aligned if it must be.
#[inline(always)]
fn flat<E: Encoding>(cpu: &Cpu, op: &Op, aligned: bool, find: impl Fn(u64) -> Option<u64>) -> Option<u64> {
    let offset = find(addr::sum(cpu, op) & addr::size_mask(op.address))?;
    (!aligned || offset & (E::BYTES - 1) == 0).then_some(offset)
}

/// Load the memory operand in a flat segment, if nothing is in the way.
#[inline(always)]
pub fn load_flat<E: Encoding>(cpu: &Cpu, op: &Op, aligned: bool) -> Option<Ymm> {
    let offset = flat::<E>(cpu, op, aligned, |linear| cpu.tlb.read(cpu.mmu_index, linear, E::BYTES))?;
    let high = if E::WIDE { from_u128(cpu.mem.load(offset + LANE)) } else { [0; 2] };
    Some([from_u128(cpu.mem.load(offset)), high])
}

/// Store to the memory operand in a flat segment, if nothing is in the way.
#[inline(always)]
pub fn store_flat<E: Encoding>(cpu: &Cpu, op: &Op, aligned: bool, value: Ymm) -> Option<()> {
    let offset = flat::<E>(cpu, op, aligned, |linear| cpu.tlb.write(cpu.mmu_index, linear, E::BYTES))?;
    cpu.mem.store(offset, to_u128(value[0]));
    if E::WIDE {
        cpu.mem.store(offset + LANE, to_u128(value[1]));
    }
    Some(())
}

/// Load the `size` bytes of the memory operand, in any mode; what they do not fill is zero. `aligned`: a whole lane must be.
pub fn load_sized<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, aligned: bool) -> Result<Ymm, Stop> {
    let low = match op.size {
        1 => addr::read_operand::<u8>(cpu, env, op)?.into(),
        2 => addr::read_operand::<u16>(cpu, env, op)?.into(),
        4 => addr::read_operand::<u32>(cpu, env, op)?.into(),
        8 => addr::read_operand::<u64>(cpu, env, op)?,
        16 => {
            let linear = locate(cpu, op, LANE, false, aligned)?;
            return Ok([cpu.read_lane(env, linear, op.seg)?, [0; 2]]);
        }
        _ => return load::<E>(cpu, env, op, false),
    };
    Ok([[low, 0], [0; 2]])
}
