//! An area in guest memory.

use super::component::{EXTENDED, HEADER, LEGACY};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Op, Step, Stop};

/// Bytes that go to some place in the area; none at all: nothing goes there.
pub type Piece<'a> = (u64, &'a [u8]);

/// Where it is.
pub struct Area {
    seg: u8,
    offset: u64,
    mask: u64,
}

impl Area {
    /// The memory operand; #GP(0) if it is not a multiple of `alignment`.
    pub fn new(cpu: &mut Cpu, op: &Op, alignment: u64, write: bool) -> Result<Self, Stop> {
        Self::checked(cpu, op, 1, alignment, write)
    }

    /// As `new`, but #AC(0) first, where alignment is checked, if it is not a multiple of `checked`.
    pub fn checked(cpu: &mut Cpu, op: &Op, checked: u64, alignment: u64, write: bool) -> Result<Self, Stop> {
        let area = Self { seg: op.seg, offset: addr::effective(cpu, op), mask: addr::size_mask(op.address) };
        let start = area.linear(cpu, 0, 1, write)?;
        cpu.check_alignment(start, checked)?;
        if start & (alignment - 1) != 0 { Err(cpu.gp0()) } else { Ok(area) }
    }

    fn linear(&self, cpu: &mut Cpu, at: u64, bytes: u64, write: bool) -> Result<u64, Stop> {
        addr::linear(cpu, self.seg, self.offset.wrapping_add(at) & self.mask, bytes, write)
    }

    /// Load bytes at a place.
    pub fn load<const N: usize>(&self, cpu: &mut Cpu, env: &mut Env<'_>, at: u64) -> Result<[u8; N], Stop> {
        let linear = self.linear(cpu, at, N as u64, false)?;
        cpu.read_bytes::<N>(env, linear, self.seg)
    }

    /// Load what every area has: the legacy region and the header.
    pub fn load_fixed(&self, cpu: &mut Cpu, env: &mut Env<'_>) -> Result<([u8; LEGACY], [u8; HEADER]), Stop> {
        let bytes = self.load::<{ EXTENDED as usize }>(cpu, env, 0)?;
        let (mut legacy, mut header) = ([0; LEGACY], [0; HEADER]);
        legacy.copy_from_slice(&bytes[..LEGACY]);
        header.copy_from_slice(&bytes[LEGACY..]);
        Ok((legacy, header))
    }

    /// Store all pieces or none, and end the handler. `checked` are the places, with their sizes, that must be writable,
    /// whether all of their bytes are stored to or not: silicon looks at whole components.
    pub fn store(&self, cpu: &mut Cpu, env: &mut Env<'_>, checked: &[(u64, u64)], pieces: &[Piece<'_>]) -> Step {
        let pieces = || pieces.iter().filter(|(_, bytes)| !bytes.is_empty());
        for &(at, length) in checked.iter().filter(|(_, length)| *length != 0) {
            let linear = self.linear(cpu, at, length, true)?;
            cpu.probe_write(env, linear, length, self.seg)?;
        }
        for &(at, bytes) in pieces() {
            let linear = self.linear(cpu, at, bytes.len() as u64, true)?;
            cpu.write_bytes(env, linear, self.seg, bytes)?;
        }
        cpu.after_store()
    }
}
