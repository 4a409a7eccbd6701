//! Descriptors in the GDT and LDT.

use x86defs::segment as attr;

use super::{LDTR, Segment};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;

/// A descriptor, as it lies in its table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// The first eight bytes.
    pub low: u64,
    /// The second eight bytes of what is twice as long in long mode (TSS, LDT, gates); otherwise 0.
    pub high: u64,
    /// Its linear address.
    pub address: u64,
}

/// Error code that names a selector: its index and table, with EXT if `ext`.
pub fn fault_code(selector: u16, ext: bool) -> u32 {
    u32::from(selector & !attr::RPL) | u32::from(ext)
}

impl Descriptor {
    /// Attributes as [`x86defs::segment`] counts them.
    pub fn attributes(&self) -> u16 {
        (self.low >> 40) as u16 & !0x0F00
    }
    /// Whether all of these attributes are set.
    pub fn has(&self, attributes: u16) -> bool {
        self.attributes() & attributes == attributes
    }
    /// Present.
    pub fn is_present(&self) -> bool {
        self.has(attr::P)
    }
    /// DPL.
    pub fn dpl(&self) -> u8 {
        (self.low >> 45 & 3) as u8
    }
    /// Type of a system descriptor, 0..=15; `None`: it is code or data.
    pub fn system_type(&self) -> Option<u16> {
        (!self.has(attr::S)).then_some(self.attributes() & 15)
    }
    /// Code.
    pub fn is_code(&self) -> bool {
        self.has(attr::S | attr::CODE)
    }
    /// Code that less privileged code may jump to without a gate.
    pub fn is_conforming(&self) -> bool {
        self.has(attr::S | attr::CODE | attr::DC)
    }
    /// Data that can be written.
    pub fn is_writable_data(&self) -> bool {
        self.has(attr::S | attr::RW) && !self.has(attr::CODE)
    }
    /// Data, or code that can be read.
    pub fn is_readable(&self) -> bool {
        self.has(attr::S) && (!self.has(attr::CODE) || self.has(attr::RW))
    }
    /// Last valid offset, granularity applied.
    pub fn limit(&self) -> u32 {
        let limit = (self.low & 0xFFFF | self.low >> 32 & 0xF_0000) as u32;
        if self.has(attr::G) { limit << 12 | 0xFFF } else { limit }
    }
    /// Base address.
    pub fn base(&self) -> u64 {
        self.low >> 16 & 0xFF_FFFF | self.low >> 32 & 0xFF00_0000 | self.high << 32
    }
    /// The segment register that a load of this descriptor leaves.
    pub fn segment(&self, selector: u16) -> Segment {
        Segment { selector, attributes: self.attributes(), limit: self.limit(), base: self.base() }
    }

    /// Of a gate: the selector of its target.
    pub fn gate_selector(&self) -> u16 {
        (self.low >> 16) as u16
    }
    /// Of a gate: the offset of its target, `wide` if it has more than 16 bits.
    pub fn gate_offset(&self, wide: bool) -> u64 {
        let low = self.low & 0xFFFF;
        if wide { low | self.low >> 32 & 0xFFFF_0000 | self.high << 32 } else { low }
    }
    /// Of a call gate outside long mode: the number of parameters to copy.
    pub fn gate_parameters(&self) -> u64 {
        self.low >> 32 & 31
    }
    /// Of a gate in the IDT in long mode: the number of its stack in the TSS, or 0.
    pub fn gate_ist(&self) -> u64 {
        self.low >> 32 & 7
    }
}

impl Cpu {
    /// A fault whose error code is a selector.
    pub fn selector_fault(&mut self, vector: u8, selector: u16, ext: bool) -> Stop {
        self.raise_with(vector, fault_code(selector, ext))
    }

    /// Linear address of `bytes` of a descriptor; `None` if they are not within its table.
    fn descriptor_address(&self, selector: u16, bytes: u64) -> Option<u64> {
        let offset = u64::from(selector & !7);
        let (base, limit) = if selector & attr::TI == 0 {
            (self.gdtr.base, u64::from(self.gdtr.limit))
        } else {
            let ldt = self.seg(LDTR);
            if !ldt.has(attr::P) {
                return None;
            }
            (ldt.base, u64::from(ldt.limit))
        };
        (offset + bytes - 1 <= limit).then(|| base.wrapping_add(offset))
    }

    /// Read the descriptor of a selector that is not null; if it is outside its table a fault of `vector` names the selector.
    pub fn read_descriptor(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        vector: u8,
        ext: bool,
    ) -> Result<Descriptor, Stop> {
        let Some(address) = self.descriptor_address(selector, 8) else {
            return Err(self.selector_fault(vector, selector, ext));
        };
        let low = self.read_system(env, address)?;
        Ok(Descriptor { low, high: 0, address })
    }

    /// As [`Cpu::read_descriptor`]; in long mode, where system descriptors are twice as long, all of it if it is one. Bits that
    /// would give the second half a type must be zero.
    pub fn read_system_descriptor(
        &mut self,
        env: &mut Env<'_>,
        selector: u16,
        vector: u8,
        ext: bool,
    ) -> Result<Descriptor, Stop> {
        let mut descriptor = self.read_descriptor(env, selector, vector, ext)?;
        if self.long_mode() && descriptor.system_type().is_some() {
            if self.descriptor_address(selector, 16).is_none() {
                return Err(self.selector_fault(vector, selector, ext));
            }
            descriptor.high = self.read_system(env, descriptor.address.wrapping_add(8))?;
            if descriptor.high >> 40 & 0x1F != 0 {
                return Err(self.selector_fault(vector, selector, ext));
            }
        }
        Ok(descriptor)
    }

    /// Set the accessed bit of a code or data descriptor, as loading it does.
    pub fn mark_accessed(&mut self, env: &mut Env<'_>, descriptor: &mut Descriptor) -> Result<(), Stop> {
        if descriptor.has(attr::ACCESSED) {
            return Ok(());
        }
        descriptor.low |= u64::from(attr::ACCESSED) << 40;
        self.write_system(env, descriptor.address.wrapping_add(5), (descriptor.low >> 40) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_manual_has_them() {
        // Base 0x12345678, limit 0xABCDE, G, D, DPL 3, present, code, readable.
        let code = Descriptor { low: 0x12CA_FA34_5678_BCDE, high: 0, address: 0 };
        assert_eq!((code.base(), code.limit(), code.dpl()), (0x1234_5678, 0xABCD_EFFF, 3));
        assert!(code.is_code() && code.is_readable() && code.is_present() && code.has(attr::DB | attr::G));
        assert_eq!(code.attributes(), 0xC0FA);
        let gate = Descriptor { low: 0x1234_8E02_0008_5678, high: 0xFFFF_8000, address: 0 };
        assert_eq!((gate.gate_selector(), gate.gate_offset(true), gate.gate_ist()), (8, 0xFFFF_8000_1234_5678, 2));
        assert_eq!((gate.system_type(), gate.gate_offset(false)), (Some(14), 0x5678));
        assert_eq!(fault_code(0x2B, true), 0x29);
    }
}
