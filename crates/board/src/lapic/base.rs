//! IA32_APIC_BASE: where the APIC is, and in which mode, SDM vol. 3 sections 12.4.3, 12.4.4 and 12.12.5.

use x86defs::msr::{APIC_BASE_BSP, APIC_BASE_ENABLE, APIC_BASE_EXTD};

use super::{LocalApic, Mode, Refused};

/// Where the xAPIC page is after RESET.
const DEFAULT_ADDRESS: u64 = 0xFEE0_0000;
/// Bits 7:0 and 9.
const RESERVED: u64 = 0x2FF;

fn mode_of(base: u64) -> Option<Mode> {
    match (base & APIC_BASE_ENABLE != 0, base & APIC_BASE_EXTD != 0) {
        (false, false) => Some(Mode::Disabled),
        (true, false) => Some(Mode::XApic),
        (true, true) => Some(Mode::X2Apic),
        (false, true) => None,
    }
}

impl LocalApic {
    pub(super) fn reset_base(&mut self) {
        let bsp = if self.vcpu == 0 { APIC_BASE_BSP } else { 0 };
        self.base = DEFAULT_ADDRESS | APIC_BASE_ENABLE | bsp;
    }

    #[inline]
    pub fn mode(&self) -> Mode {
        // `set_base` lets no invalid combination in.
        mode_of(self.base).unwrap_or(Mode::Disabled)
    }

    /// Whether this is the boot processor.
    pub fn is_bsp(&self) -> bool {
        self.base & APIC_BASE_BSP != 0
    }

    /// The value of the MSR.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Guest-physical address of the xAPIC page, in xAPIC mode.
    #[inline]
    pub fn page(&self) -> Option<u64> {
        (self.base & (APIC_BASE_ENABLE | APIC_BASE_EXTD) == APIC_BASE_ENABLE).then_some(self.base & !0xFFF)
    }

    /// WRMSR.
    ///
    /// # Errors
    /// Refused for reserved bits and for the transitions that SDM vol. 3 figure 12-27 does not show: out of x2APIC mode
    /// there is only the way to the disabled state, and into it only the way from xAPIC mode.
    pub fn set_base(&mut self, value: u64) -> Result<(), Refused> {
        let unsupported = if self.features.x2apic { 0 } else { APIC_BASE_EXTD };
        let beyond_address = u64::MAX.checked_shl(u32::from(self.features.physical_address_bits)).unwrap_or(0);
        if value & (RESERVED | unsupported | beyond_address) != 0 {
            return Err(Refused);
        }
        let (old, new) = (self.mode(), mode_of(value).ok_or(Refused)?);
        match (old, new) {
            (Mode::X2Apic, Mode::XApic) | (Mode::Disabled, Mode::X2Apic) => return Err(Refused),
            // Switching off loses the registers: it comes back as after power-on.
            (Mode::XApic | Mode::X2Apic, Mode::Disabled) => {
                self.init();
                self.xapic_id = self.vcpu as u8;
            }
            _ => {}
        }
        self.base = value;
        Ok(())
    }
}
