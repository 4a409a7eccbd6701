//! MSRs that belong to the board: those of the local APIC.

use x86defs::msr::{APIC_BASE, TSC_DEADLINE, X2APIC_BASE, X2APIC_LAST};

use crate::board::Board;
use crate::lapic::{Effect, ICR, ICR_HIGH, Mode, Refused};

impl Board {
    pub(crate) fn read_msr(&mut self, vcpu: usize, index: u32) -> Result<u64, Refused> {
        match index {
            APIC_BASE => Ok(self.apics[vcpu].base()),
            TSC_DEADLINE => {
                let value = self.apics[vcpu].tsc_deadline(self.now_ns)?;
                self.sync(vcpu);
                Ok(value)
            }
            X2APIC_BASE..=X2APIC_LAST => {
                self.pv_eoi_before_access(vcpu);
                let value = self.apics[vcpu].x2apic_read(index, self.now_ns);
                self.sync(vcpu);
                value
            }
            _ => Err(Refused),
        }
    }

    pub(crate) fn write_msr(&mut self, vcpu: usize, index: u32, value: u64) -> Result<(), Refused> {
        let effect = match index {
            APIC_BASE => {
                self.pv_eoi_before_access(vcpu);
                self.apics[vcpu].set_base(value)?;
                Effect::None
            }
            TSC_DEADLINE => {
                self.apics[vcpu].set_tsc_deadline(value, self.now_ns)?;
                Effect::None
            }
            X2APIC_BASE..=X2APIC_LAST => {
                self.pv_eoi_withdraw(vcpu);
                self.apics[vcpu].x2apic_write(index, value, self.now_ns)?
            }
            _ => return Err(Refused),
        };
        self.after_write(vcpu, effect);
        Ok(())
    }

    /// Read a register of a vCPU's local APIC by its offset in the xAPIC page, in either mode; ICR as one of 64 bits, laid
    /// out as the mode has it. `None` while the APIC is switched off, or if there is no such register.
    pub fn read_apic(&mut self, vcpu: usize, offset: u32) -> Option<u64> {
        match self.apics[vcpu].mode() {
            Mode::Disabled => None,
            Mode::X2Apic => self.read_msr(vcpu, x2apic_index(offset)?).ok(),
            Mode::XApic => {
                self.pv_eoi_before_access(vcpu);
                let mut read = |offset| self.apics[vcpu].mmio_read(offset, 4, self.now_ns);
                let high = if offset == ICR { read(ICR_HIGH) << 32 } else { 0 };
                let value = high | read(offset);
                self.sync(vcpu);
                Some(value)
            }
        }
    }

    /// Write a register of a vCPU's local APIC, as [`Board::read_apic`]. False if it does not take the value.
    pub fn write_apic(&mut self, vcpu: usize, offset: u32, value: u64) -> bool {
        match self.apics[vcpu].mode() {
            Mode::Disabled => false,
            Mode::X2Apic => x2apic_index(offset).is_some_and(|index| self.write_msr(vcpu, index, value).is_ok()),
            Mode::XApic => {
                self.pv_eoi_withdraw(vcpu);
                if offset == ICR {
                    self.apics[vcpu].mmio_write(ICR_HIGH, 4, value >> 32, self.now_ns);
                }
                let effect = self.apics[vcpu].mmio_write(offset, 4, value & 0xFFFF_FFFF, self.now_ns);
                self.after_write(vcpu, effect);
                true
            }
        }
    }
}

fn x2apic_index(offset: u32) -> Option<u32> {
    let index = X2APIC_BASE.checked_add(offset >> 4)?;
    (offset & 0xF == 0 && index <= X2APIC_LAST).then_some(index)
}
