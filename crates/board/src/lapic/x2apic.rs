//! The registers as MSRs in x2APIC mode, SDM vol. 3 section 12.12.1: reserved bits fault here, where xAPIC mode ignores them.

use x86defs::msr::X2APIC_BASE;

use super::registers::*;
use super::{DIVIDE_BITS, Destination, Effect, ICR_DELIVERY_STATUS, ICR_LOGICAL, LocalApic, Mode, Refused};

/// ICR bits 31:20, 17:16 and 13. Bit 12, the delivery status of xAPIC mode, is ignored as processors of both vendors do.
const ICR_RESERVED: u64 = 0xFFF3_2000;

/// The xAPIC offset of an x2APIC MSR.
fn offset_of(index: u32) -> u32 {
    index.wrapping_sub(X2APIC_BASE).wrapping_mul(0x10)
}

/// Registers that cannot be read: what x2APIC mode does not have, and what is write-only.
fn is_readable(offset: u32) -> bool {
    !matches!(offset, APR | EOI | RRD | DFR | ICR_HIGH | SELF_IPI)
}

/// The bits that WRMSR accepts. `None`: the register cannot be written.
fn writable_bits(offset: u32, tsc_deadline: bool) -> Option<u64> {
    Some(match offset {
        TPR => 0xFF,
        EOI | ESR => 0,
        SVR => u64::from(SVR_BITS),
        ICR => !ICR_RESERVED,
        LVT_TIMER..=LVT_ERROR => u64::from(lvt_writable(offset, tsc_deadline) | LVT_READ_ONLY),
        INITIAL_COUNT => 0xFFFF_FFFF,
        DIVIDE => u64::from(DIVIDE_BITS),
        SELF_IPI => 0xFF,
        _ => return None,
    })
}

impl LocalApic {
    /// RDMSR of 0x800..=0x8FF.
    ///
    /// # Errors
    /// Refused outside x2APIC mode and for registers that do not exist or cannot be read.
    pub fn x2apic_read(&mut self, index: u32, now_ns: u64) -> Result<u64, Refused> {
        let offset = offset_of(index);
        if self.mode() != Mode::X2Apic || !is_readable(offset) {
            return Err(Refused);
        }
        if offset == ICR {
            return Ok(self.icr);
        }
        self.read(offset, now_ns).map(u64::from)
    }

    /// WRMSR of 0x800..=0x8FF.
    ///
    /// # Errors
    /// Refused outside x2APIC mode, for registers that do not exist or cannot be written, and for reserved bits.
    pub fn x2apic_write(&mut self, index: u32, value: u64, now_ns: u64) -> Result<Effect, Refused> {
        let offset = offset_of(index);
        let writable = writable_bits(offset, self.features.tsc_deadline).ok_or(Refused)?;
        if self.mode() != Mode::X2Apic || value & !writable != 0 {
            return Err(Refused);
        }
        match offset {
            ICR => {
                self.icr = value & !u64::from(ICR_DELIVERY_STATUS);
                let logical = value & u64::from(ICR_LOGICAL) != 0;
                Ok(self.send_ipi(Destination::wide((value >> 32) as u32, logical)))
            }
            SELF_IPI => Ok(self.send_self_ipi(value as u8)),
            _ => self.write(offset, value as u32, now_ns),
        }
    }

    /// SDM vol. 3 section 12.12.11: a fixed, edge-triggered IPI to oneself; the ICR is not involved.
    fn send_self_ipi(&mut self, vector: u8) -> Effect {
        if vector < super::FIRST_LEGAL_VECTOR {
            self.raise_error(ESR_SEND_ILLEGAL_VECTOR);
        } else {
            self.accept(vector, false);
        }
        Effect::None
    }
}
