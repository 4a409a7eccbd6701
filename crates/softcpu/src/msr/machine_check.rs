//! Machine-check registers: SDM vol. 3 chapter 16. No machine check ever happens; guests still set the banks up.

use x86defs::msr;

use super::{Kept, MsrWrite, When, allow};
use crate::cpu::Cpu;

/// Banks.
const BANKS: usize = 10;
/// Registers of a bank: CTL, STATUS, ADDR, MISC.
const STRIDE: u32 = 4;
/// IA32_MCG_CAP: banks, and MCG_CTL exists.
const CAPABILITIES: u64 = BANKS as u64 | 1 << 8;
/// The last register of the last bank.
pub const LAST: u32 = msr::MC0_CTL + STRIDE * BANKS as u32 - 1;

/// The registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct MachineCheck {
    status: u64,
    control: u64,
    banks: [[u64; STRIDE as usize]; BANKS],
}

/// CTL bits that guests leave out where silicon had trouble with them (the first one and bit 10 of a bank): a write may lack
/// them and otherwise sets all, or none.
const CTL_OPTIONAL: u64 = 1 << 10 | 1;
/// HWCR: STATUS registers can be written.
const HWCR_MC_STATUS_WRITE: u64 = 1 << 18;

/// Read a machine-check register.
pub fn read(cpu: &Cpu, index: u32, _when: When) -> Option<u64> {
    cpu.msrs.machine_check.read(index)
}

/// Write a machine-check register.
pub fn write(cpu: &mut Cpu, index: u32, value: u64, _when: When) -> MsrWrite {
    let status_writable = cpu.features.amd && cpu.msrs.get(Kept::Hwcr) & HWCR_MC_STATUS_WRITE != 0;
    allow(cpu.msrs.machine_check.write(index, value, status_writable))
}

impl MachineCheck {
    /// Read a register.
    pub fn read(&self, index: u32) -> Option<u64> {
        Some(match index {
            msr::MCG_CAP => CAPABILITIES,
            msr::MCG_STATUS => self.status,
            msr::MCG_CTL => self.control,
            _ => *self.banks.as_flattened().get(index.checked_sub(msr::MC0_CTL)? as usize)?,
        })
    }

    /// Write a register; false if the value is not allowed: CTL takes all ones or zeros, STATUS can only be cleared unless
    /// `status_writable`.
    pub fn write(&mut self, index: u32, value: u64, status_writable: bool) -> bool {
        let all_or_nothing = value == 0 || value == u64::MAX;
        match index {
            msr::MCG_STATUS => {
                self.status = value;
                true
            }
            msr::MCG_CTL if all_or_nothing => {
                self.control = value;
                true
            }
            msr::MC0_CTL..=LAST => {
                let number = index - msr::MC0_CTL;
                let valid = match number % STRIDE {
                    0 => value == 0 || value | CTL_OPTIONAL == u64::MAX,
                    1 => value == 0 || status_writable,
                    _ => true,
                };
                match self.banks.as_flattened_mut().get_mut(number as usize) {
                    Some(register) if valid => {
                        *register = value;
                        true
                    }
                    _ => false,
                }
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_can_be_cleared_only() {
        let mut registers = MachineCheck::default();
        for (index, value, status_writable, valid) in [
            (msr::MCG_CAP, 0, false, false),
            (msr::MCG_CTL, u64::MAX, false, true),
            (msr::MCG_CTL, 1, false, false),
            (msr::MC0_CTL, u64::MAX, false, true),
            (msr::MC0_CTL, !(1 << 10), false, true),
            (msr::MC0_CTL, 0xFF, false, false),
            (msr::MC0_CTL + 2, 0xFF, false, true),
            (msr::MC0_CTL + 1, 0, false, true),
            (msr::MC0_CTL + 1, 1, false, false),
            (msr::MC0_CTL + 1, 1, true, true),
            (LAST, 0, false, true),
        ] {
            assert_eq!(registers.write(index, value, status_writable), valid, "{index:#x} {value:#x}");
        }
        assert_eq!(registers.read(LAST + 1), None);
    }
}
