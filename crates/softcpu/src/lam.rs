//! Linear-address masking: pointers to data with metadata in their upper bits. SDM vol. 1 section 3.3.7.2, vol. 3 section 4.1.5.
//!
//! Masking comes first of all that happens to the address of a data access in 64-bit mode, so it is enough to do it wherever the
//! TLB does not know the address as it was written: no translation is kept under an address that is not canonical.

use x86defs::cr;

use crate::cpu::Cpu;

impl Cpu {
    /// The linear address that a data access to `linear` means: metadata replaced by copies of the highest bit of the address.
    /// Bit 63 stays, since it must be as that bit is: otherwise the result is not canonical, and the access faults.
    #[inline]
    pub fn untagged(&self, linear: u64) -> u64 {
        let masked = self.cr3 & (cr::CR3_LAM_U48 | cr::CR3_LAM_U57) != 0 || self.cr4 & cr::CR4_LAM_SUP != 0;
        if masked && self.mode.is_64() { self.untag(linear) } else { linear }
    }

    #[cold]
    fn untag(&self, linear: u64) -> u64 {
        const SUPERVISOR: u64 = 1 << 63;
        // Whose pointer it is follows from the pointer, not from CPL.
        let width = match linear & SUPERVISOR {
            0 if self.cr3 & cr::CR3_LAM_U57 != 0 => 57,
            0 if self.cr3 & cr::CR3_LAM_U48 != 0 => 48,
            SUPERVISOR if self.cr4 & cr::CR4_LAM_SUP != 0 => {
                if self.cr4 & cr::CR4_LA57 != 0 {
                    57
                } else {
                    48
                }
            }
            _ => return linear,
        };
        let address = ((linear << (64 - width)) as i64 >> (64 - width)) as u64;
        address & !SUPERVISOR | linear & SUPERVISOR
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use x86defs::vector;

    const GP: Result<u64, (u8, Option<u32>)> = Err((vector::GP, Some(0)));

    #[test]
    fn metadata_is_replaced_by_the_sign() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        let (u48, u57, sup, la57) = (cr::CR3_LAM_U48, cr::CR3_LAM_U57, cr::CR4_LAM_SUP, cr::CR4_LA57);
        for (cr3, cr4, linear, expected) in [
            (0, 0, 0x1234_0000_0000_1000, 0x1234_0000_0000_1000),
            (u48, 0, 0x1234_0000_0000_1000, 0x1000),
            (u48, 0, 0xFFFF_8000_0000_1000, 0xFFFF_8000_0000_1000),
            (u57, 0, 0x1234_0000_0000_1000, 0x0034_0000_0000_1000),
            (u48 | u57, 0, 0x7E00_0000_0000_1000, 0x1000),
            // The highest bit of the address and bit 63 differ.
            (u48, 0, 0x1234_8000_0000_1000, 0x7FFF_8000_0000_1000),
            (0, sup, 0x9234_8000_0000_1000, 0xFFFF_8000_0000_1000),
            (0, sup, 0x9234_0000_0000_1000, 0x8000_0000_0000_1000),
            (0, sup | la57, 0x9334_8000_0000_1000, 0xFF34_8000_0000_1000),
            (0, sup, 0x1234_0000_0000_1000, 0x1234_0000_0000_1000),
        ] {
            (cpu.cr3, cpu.cr4) = (cpu.cr3 & 0xF_FFFF_F000 | cr3, cr::CR4_PAE | cr4);
            assert_eq!(cpu.untagged(linear), expected, "{cr3:#x} {cr4:#x} {linear:#x}");
        }
    }

    #[test]
    fn data_is_reached_and_page_faults_tell_the_address_without_metadata() {
        let mut machine = Machine::long64();
        machine.cpu.cr3 |= cr::CR3_LAM_U48;
        machine.cpu.cr4 |= cr::CR4_LAM_SUP;
        machine.store64(0x6000, 0x1234_5678);
        for (linear, expected) in [
            (0x6000, Ok(0x1234_5678)),
            (0x7F55_0000_0000_6000, Ok(0x1234_5678)),
            (0x8055_8000_0000_6000, Ok(0x1234_5678)),
            (0x7F55_8000_0000_6000, GP),
            (0x8055_0000_0000_6000, GP),
            (0x7F55_0000_4000_0000, Err((vector::PF, Some(0)))),
        ] {
            let result = machine.with(|cpu, env| cpu.read::<u64>(env, linear, crate::segment::DS));
            assert_eq!(machine.outcome(result), expected, "{linear:#x}");
        }
        assert_eq!(machine.cpu.fault.payload, 0x4000_0000);
        let write = machine.with(|cpu, env| cpu.write::<u32>(env, 0x7F55_0000_0000_6000, crate::segment::DS, 9));
        assert_eq!((machine.outcome(write), machine.load32(0x6000)), (Ok(()), 9));
        // Tables of the CPU are not reached by pointers.
        let result = machine.with(|cpu, env| cpu.read_system::<u64>(env, 0x7F55_0000_0000_6000));
        assert_eq!(machine.outcome(result), GP);
    }

    #[test]
    fn the_bits_belong_to_the_feature() {
        let mut machine = Machine::long64();
        let root = machine.cpu.cr3;
        let value = root | cr::CR3_LAM_U48 | cr::CR3_LAM_U57;
        machine.with(|cpu, env| cpu.write_cr3(env, value)).expect("announced");
        let cr4 = machine.cpu.cr4 | cr::CR4_LAM_SUP;
        machine.with(|cpu, env| cpu.write_cr4(env, cr4)).expect("announced");
        machine.cpu.features.l7_1_eax = 0;
        for bit in [cr::CR3_LAM_U48, cr::CR3_LAM_U57] {
            let result = machine.with(|cpu, env| cpu.write_cr3(env, root | bit));
            assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
        }
        let result = machine.with(|cpu, env| cpu.write_cr4(env, cr4));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
    }
}
