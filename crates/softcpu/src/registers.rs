//! Registers by name, for debuggers and whoever builds a vCPU's state from outside.

use vcpu::Register;
use x86defs::{cr, rflags, segment as attr};

use crate::cpu::Cpu;
use crate::mmu::PDPT_MASK;
use crate::op::REGISTER_SLOTS;
use crate::segment::{SS, Segment};
use crate::vector::state::mxcsr_mask;

/// A register cannot hold a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisterValueError {
    /// The register.
    pub register: Register,
    /// The value.
    pub value: u64,
}

/// What a register is a part of.
enum Place {
    General(usize),
    Selector(usize),
    Base(usize),
    Limit(usize),
    Attributes(usize),
    Other,
}

fn place(register: Register) -> Place {
    use Register::*;
    let number = register as u8;
    let at = |first: Register| usize::from(number - first as u8);
    match number {
        n if n <= R15 as u8 => Place::General(at(Rax) % REGISTER_SLOTS),
        n if (Es as u8..=Tr as u8).contains(&n) => Place::Selector(at(Es)),
        n if (EsBase as u8..=TrBase as u8).contains(&n) => Place::Base(at(EsBase)),
        n if (EsLimit as u8..=TrLimit as u8).contains(&n) => Place::Limit(at(EsLimit)),
        n if (EsAttributes as u8..=TrAttributes as u8).contains(&n) => Place::Attributes(at(EsAttributes)),
        _ => Place::Other,
    }
}

impl Cpu {
    /// A register. CR8 is the local APIC's: it reads as 0 here, [`vcpu::Bus::cr8`] has it.
    pub fn register(&self, register: Register) -> u64 {
        use Register::*;
        match place(register) {
            Place::General(i) => self.regs[i],
            Place::Selector(i) => self.segs[i].selector.into(),
            Place::Base(i) => self.segs[i].base,
            Place::Limit(i) => self.segs[i].limit.into(),
            Place::Attributes(i) => self.segs[i].attributes.into(),
            Place::Other => match register {
                Rip => self.rip,
                Rflags => self.rflags(),
                GdtrBase => self.gdtr.base,
                GdtrLimit => self.gdtr.limit.into(),
                IdtrBase => self.idtr.base,
                IdtrLimit => self.idtr.limit.into(),
                Cr0 => self.cr0,
                Cr2 => self.cr2,
                Cr3 => self.cr3,
                Cr4 => self.cr4,
                Efer => self.efer,
                Xcr0 => self.xcr0,
                Pkru => self.pkru.into(),
                Fcw => self.fpu.control().into(),
                Fsw => self.fpu.status().into(),
                Ftw => self.fpu.tag_word().into(),
                Mxcsr => self.vector.mxcsr.into(),
                Dr0 => self.debug.addresses[0],
                Dr1 => self.debug.addresses[1],
                Dr2 => self.debug.addresses[2],
                Dr3 => self.debug.addresses[3],
                Dr6 => self.debug.dr6(),
                Dr7 => self.debug.dr7(),
                _ => 0,
            },
        }
    }

    /// Change a register without the checks that the guest's instructions make, and what follows from it. Setting RIP abandons
    /// an unanswered exit and ends an interrupt shadow. The privilege level is SS's DPL (3 in virtual-8086 mode, 0 in real mode).
    pub fn set_register(&mut self, register: Register, value: u64) -> Result<(), RegisterValueError> {
        use Register::*;
        let unfit = RegisterValueError { register, value };
        let narrow = |value: u64| u16::try_from(value).map_err(|_| unfit);
        let word = |value: u64| u32::try_from(value).map_err(|_| unfit);
        match place(register) {
            Place::General(i) => self.regs[i] = value,
            Place::Selector(i) => self.segs[i].selector = narrow(value)?,
            Place::Base(i) => self.segs[i].base = value,
            Place::Limit(i) => self.segs[i].limit = word(value)?,
            Place::Attributes(i) => self.segs[i].attributes = narrow(value)?,
            Place::Other => match register {
                Rip => {
                    self.rip = value;
                    self.interrupt_shadow = false;
                    self.shadow_is_mov_ss = false;
                    self.replay.clear();
                }
                Rflags => self.set_rflags(value),
                GdtrBase => self.gdtr.base = value,
                GdtrLimit => self.gdtr.limit = narrow(value)?,
                IdtrBase => self.idtr.base = value,
                IdtrLimit => self.idtr.limit = narrow(value)?,
                Cr0 => self.cr0 = u64::from(word(value)?) & cr::CR0_DEFINED | cr::CR0_ET,
                Cr2 => self.cr2 = value,
                Cr3 => self.cr3 = value,
                Cr4 => self.cr4 = value,
                Efer => self.efer = value,
                Xcr0 => self.xcr0 = value,
                Pkru => self.pkru = word(value)?,
                Fcw => self.fpu.set_control(narrow(value)?),
                Fsw => self.fpu.set_status(narrow(value)?),
                Ftw => self.fpu.set_tag_word(narrow(value)?),
                Mxcsr if value & !u64::from(mxcsr_mask(&self.features)) == 0 => self.vector.mxcsr = value as u32,
                Dr0 => self.debug.addresses[0] = value,
                Dr1 => self.debug.addresses[1] = value,
                Dr2 => self.debug.addresses[2] = value,
                Dr3 => self.debug.addresses[3] = value,
                Dr6 => self.debug.set_dr6(word(value)?.into()),
                Dr7 => self.debug.set_dr7(word(value)?.into()),
                _ => return Err(unfit),
            },
        }
        if !matches!(place(register), Place::General(_)) && register != Rip {
            if matches!(register, Cr0 | Cr3 | Cr4 | Efer) {
                self.reload_pdptes();
            }
            self.settle_outside_change();
        }
        Ok(())
    }

    /// What a load of CR3 would have left under PAE paging. What is not RAM or has reserved bits is not present: nobody is
    /// there to take an exception.
    fn reload_pdptes(&mut self) {
        if self.cr0 & cr::CR0_PG == 0 || self.cr4 & cr::CR4_PAE == 0 || self.long_mode() {
            return;
        }
        let reserved = self.reserved_in_pdptes();
        self.pdptes = std::array::from_fn(|i| {
            let offset = self.mem.offset((self.cr3 & PDPT_MASK) + 8 * i as u64);
            let pdpte = offset.map_or(0, |offset| self.mem.load::<u64>(offset));
            if pdpte & reserved == 0 { pdpte } else { 0 }
        });
    }

    fn settle_outside_change(&mut self) {
        let stack: Segment = *self.seg(SS);
        self.cpl = if self.cr0 & cr::CR0_PE == 0 {
            0
        } else if self.system_flags & rflags::VM != 0 {
            3
        } else {
            (stack.attributes >> attr::DPL_SHIFT & 3) as u8
        };
        self.mode_changed();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn every_register_reads_what_was_written() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        for &register in Register::ALL {
            let old = cpu.register(register);
            assert_eq!(cpu.set_register(register, old).is_ok(), register != Register::Cr8, "{}", register.name());
            assert_eq!(cpu.register(register), old, "{}", register.name());
        }
        for (i, &register) in Register::ALL.iter().take(16).enumerate() {
            cpu.set_register(register, i as u64 + 1).expect("general registers hold anything");
            assert_eq!(cpu.regs[i], i as u64 + 1);
        }
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        let mut machine = Machine::long64();
        let cpu = &mut machine.cpu;
        for (register, value) in [
            (Register::Ds, 0x1_0000),
            (Register::GdtrLimit, 1 << 16),
            (Register::Pkru, 1 << 32),
            (Register::Fcw, 1 << 16),
            (Register::Mxcsr, 1 << 16),
            (Register::Dr7, 1 << 32),
        ] {
            assert_eq!(cpu.set_register(register, value), Err(RegisterValueError { register, value }));
        }
    }

    #[test]
    fn pae_directories_follow_cr3() {
        let mut machine = Machine::protected32();
        machine.mem.write_bytes(0x5000, &[0x6001u64, 0x7003, 0, 0x8001].map(u64::to_le_bytes).concat()).expect("RAM");
        let cpu = &mut machine.cpu;
        for (register, value) in [(Register::Cr3, 0x5000), (Register::Cr4, cr::CR4_PAE)] {
            cpu.set_register(register, value).expect("any value");
        }
        assert_eq!(cpu.pdptes, [0; 4], "no paging yet");
        cpu.set_register(Register::Cr0, cr::CR0_PE | cr::CR0_PG).expect("paging");
        assert_eq!(cpu.pdptes, [0x6001, 0, 0, 0x8001], "bit 1 is reserved");
    }

    #[test]
    fn the_mode_follows() {
        let mut machine = Machine::protected32();
        let cpu = &mut machine.cpu;
        cpu.set_register(Register::SsAttributes, 0xC0F3).expect("16 bits");
        assert_eq!(cpu.cpl, 3);
        cpu.interrupt_shadow = true;
        cpu.set_register(Register::Rip, u64::MAX).expect("any value");
        assert!(!cpu.interrupt_shadow);
        cpu.set_register(Register::Cr0, 0).expect("real mode");
        assert!(cpu.mode.is_real() && cpu.cpl == 0);
    }
}
