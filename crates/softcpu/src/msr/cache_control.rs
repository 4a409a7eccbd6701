//! PAT and MTRRs: SDM vol. 3 chapter 12. Memory here has one type; the registers are kept for guests that look at them.

use x86defs::msr;

use super::{MsrWrite, When, allow};
use crate::cpu::Cpu;

/// Uncacheable, write-combining, write-through, write-protected, write-back.
const MTRR_TYPES: [u8; 5] = [0, 1, 4, 5, 6];
/// The same and UC-, which only the PAT has.
const PAT_TYPES: [u8; 6] = [0, 1, 4, 5, 6, 7];
const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// Variable ranges.
const VARIABLE: usize = 8;
/// Fixed ranges: one register of 64 KiB pieces, two of 16 KiB, eight of 4 KiB.
const FIXED: usize = 11;
/// IA32_MTRRCAP: fixed ranges and write-combining are supported.
const CAPABILITIES: u64 = VARIABLE as u64 | 1 << 8 | 1 << 10;
/// IA32_MTRR_DEF_TYPE: type, FE, E.
const DEF_TYPE_DEFINED: u64 = 0xFF | 3 << 10;
/// IA32_MTRR_PHYSMASK: bits below V are reserved.
const MASK_RESERVED: u64 = 0x7FF;
/// IA32_MTRR_PHYSBASE: bits between type and address are reserved.
const BASE_RESERVED: u64 = 0xF00;

/// The registers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CacheControl {
    /// IA32_PAT.
    pub pat: u64,
    def_type: u64,
    fixed: [u64; FIXED],
    /// Base and mask in turn.
    variable: [u64; 2 * VARIABLE],
}

impl Default for CacheControl {
    fn default() -> Self {
        Self { pat: PAT_RESET, def_type: 0, fixed: [0; FIXED], variable: [0; 2 * VARIABLE] }
    }
}

/// Which register an index is.
#[derive(Clone, Copy)]
enum Mtrr {
    Cap,
    DefType,
    Fixed(usize),
    Variable(usize),
}

fn mtrr(index: u32) -> Option<Mtrr> {
    Some(match index {
        msr::MTRR_CAP => Mtrr::Cap,
        msr::MTRR_DEF_TYPE => Mtrr::DefType,
        msr::MTRR_FIX64K => Mtrr::Fixed(0),
        0x258..=0x259 => Mtrr::Fixed((index - msr::MTRR_FIX16K) as usize + 1),
        0x268..=0x26F => Mtrr::Fixed((index - msr::MTRR_FIX4K) as usize + 3),
        msr::MTRR_PHYS_BASE0..=msr::MTRR_PHYS_MASK_LAST => Mtrr::Variable((index - msr::MTRR_PHYS_BASE0) as usize),
        _ => return None,
    })
}

/// Read an MTRR or IA32_PAT.
pub fn read(cpu: &Cpu, index: u32, _when: When) -> Option<u64> {
    if index == msr::PAT { Some(cpu.msrs.cache.pat) } else { cpu.msrs.cache.read(index) }
}

/// Write an MTRR or IA32_PAT.
pub fn write(cpu: &mut Cpu, index: u32, value: u64, _when: When) -> MsrWrite {
    let physical_bits = cpu.features.physical_bits();
    let cache = &mut cpu.msrs.cache;
    allow(if index == msr::PAT { cache.write_pat(value) } else { cache.write(index, value, physical_bits) })
}

impl CacheControl {
    /// Write IA32_PAT; false if an entry has no type.
    pub fn write_pat(&mut self, value: u64) -> bool {
        let valid = value.to_le_bytes().iter().all(|kind| PAT_TYPES.contains(kind));
        if valid {
            self.pat = value;
        }
        valid
    }

    /// Read an MTRR.
    pub fn read(&self, index: u32) -> Option<u64> {
        Some(match mtrr(index)? {
            Mtrr::Cap => CAPABILITIES,
            Mtrr::DefType => self.def_type,
            Mtrr::Fixed(i) => *self.fixed.get(i)?,
            Mtrr::Variable(i) => *self.variable.get(i)?,
        })
    }

    /// Write an MTRR; false if the value is not allowed.
    pub fn write(&mut self, index: u32, value: u64, physical_bits: u32) -> bool {
        let typed = |value: u64| MTRR_TYPES.contains(&(value as u8));
        let (valid, register) = match mtrr(index) {
            None | Some(Mtrr::Cap) => return false,
            Some(Mtrr::DefType) => (value & !DEF_TYPE_DEFINED == 0 && typed(value), Some(&mut self.def_type)),
            Some(Mtrr::Fixed(i)) => {
                (value.to_le_bytes().iter().all(|kind| MTRR_TYPES.contains(kind)), self.fixed.get_mut(i))
            }
            Some(Mtrr::Variable(i)) => {
                let valid = value >> physical_bits == 0
                    && if i % 2 == 0 { value & BASE_RESERVED == 0 && typed(value) } else { value & MASK_RESERVED == 0 };
                (valid, self.variable.get_mut(i))
            }
        };
        match register {
            Some(register) if valid => {
                *register = value;
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_reserved_bits_are_checked() {
        let mut control = CacheControl::default();
        for (index, value, valid) in [
            (msr::MTRR_CAP, 0, false),
            (msr::MTRR_DEF_TYPE, 0xC06, true),
            (msr::MTRR_DEF_TYPE, 0xC02, false),
            (msr::MTRR_DEF_TYPE, 0x1006, false),
            (msr::MTRR_FIX64K, 0x0606_0606_0606_0606, true),
            (msr::MTRR_FIX4K + 7, 0x0600_0000_0000_0007, false),
            (msr::MTRR_PHYS_BASE0, 0xC000_0006, true),
            (msr::MTRR_PHYS_BASE0, 0xC000_0106, false),
            (msr::MTRR_PHYS_BASE0 + 15, 1 << 40 | 0x800, false),
            (msr::MTRR_PHYS_BASE0 + 15, 0xF_C000_0800, true),
        ] {
            assert_eq!(control.write(index, value, 40), valid, "{index:#x} {value:#x}");
            if valid {
                assert_eq!(control.read(index), Some(value));
            }
        }
        assert!(!control.write_pat(2) && control.write_pat(0x0007_0406_0007_0107));
        assert!(mtrr(msr::MTRR_PHYS_BASE0 + 2 * VARIABLE as u32).is_none() && mtrr(msr::PAT).is_none());
    }
}
