//! MSRs that belong to the board: those of the local APIC.

use x86defs::msr::{APIC_BASE, TSC_DEADLINE, X2APIC_BASE, X2APIC_LAST};

use crate::board::Board;
use crate::lapic::{Effect, Refused};

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
}
