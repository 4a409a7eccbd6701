//! Memory operands that are wider than a general register.

use super::encoding::Encoding;
use super::lane::Lane;
use super::state::Ymm;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Op, Stop};

/// Number of bytes of a lane.
const LANE: u64 = 16;

fn split(lane: u128) -> Lane {
    [lane as u64, (lane >> 64) as u64]
}

fn join(lane: Lane) -> u128 {
    u128::from(lane[0]) | u128::from(lane[1]) << 64
}

impl Cpu {
    /// Load 16 bytes, wherever they lie.
    #[inline(always)]
    pub fn read_lane(&mut self, env: &mut Env<'_>, linear: u64, seg: u8) -> Result<Lane, Stop> {
        match self.tlb.read(self.mmu_index, linear, LANE) {
            Some(offset) => Ok(split(self.mem.load(offset))),
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
            Some(offset) => Ok([split(self.mem.load(offset)), split(self.mem.load(offset + LANE))]),
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
                self.mem.store(offset, join(value));
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
                self.mem.store(offset, join(value[0]));
                self.mem.store(offset + LANE, join(value[1]));
                Ok(())
            }
            None => {
                self.check_alignment(linear, LANE)?;
                self.write_bytes(env, linear, seg, bytemuck::bytes_of(&value))
            }
        }
    }
}

/// The linear address of the memory operand of `bytes` bytes; #GP(0) if it must be a multiple of `bytes` and is not.
#[inline(always)]
pub fn locate(cpu: &mut Cpu, op: &Op, bytes: u64, write: bool, aligned: bool) -> Result<u64, Stop> {
    let linear = addr::operand(cpu, op, bytes, write)?;
    if aligned && linear & (bytes - 1) != 0 { Err(cpu.gp0()) } else { Ok(linear) }
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
