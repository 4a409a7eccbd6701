//! Control registers: SDM vol. 3 section 2.5, vol. 2 MOV–Move to/from Control Registers.

use x86defs::segment::{self as attr, system};
use x86defs::{cpuid as bit, cr};

use super::{cost, require_cpl0};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::features::{FeatureWord, Features};
use crate::op::{Flow, Op, Step, Stop, Width, slot};
use crate::segment::{CS, TR};

/// Bits of CR4, each with the feature it belongs to: it can be set if that is announced.
const CR4_FEATURES: [(u64, FeatureWord, u32); 20] = [
    (cr::CR4_VME, |f| f.l1_edx, bit::L1_EDX_VME),
    (cr::CR4_PVI, |f| f.l1_edx, bit::L1_EDX_VME),
    (cr::CR4_TSD, |f| f.l1_edx, bit::L1_EDX_TSC),
    (cr::CR4_DE, |f| f.l1_edx, bit::L1_EDX_DE),
    (cr::CR4_PSE, |f| f.l1_edx, bit::L1_EDX_PSE),
    (cr::CR4_PAE, |f| f.l1_edx, bit::L1_EDX_PAE),
    (cr::CR4_MCE, |f| f.l1_edx, bit::L1_EDX_MCE),
    (cr::CR4_PGE, |f| f.l1_edx, bit::L1_EDX_PGE),
    (cr::CR4_OSFXSR, |f| f.l1_edx, bit::L1_EDX_FXSR),
    (cr::CR4_OSXMMEXCPT, |f| f.l1_edx, bit::L1_EDX_SSE),
    (cr::CR4_UMIP, |f| f.l7_ecx, bit::L7_ECX_UMIP),
    (cr::CR4_LA57, |f| f.l7_ecx, bit::L7_ECX_LA57),
    (cr::CR4_FSGSBASE, |f| f.l7_ebx, bit::L7_EBX_FSGSBASE),
    (cr::CR4_PCIDE, |f| f.l1_ecx, bit::L1_ECX_PCID),
    (cr::CR4_OSXSAVE, |f| f.l1_ecx, bit::L1_ECX_XSAVE),
    (cr::CR4_SMEP, |f| f.l7_ebx, bit::L7_EBX_SMEP),
    (cr::CR4_SMAP, |f| f.l7_ebx, bit::L7_EBX_SMAP),
    (cr::CR4_PKE, |f| f.l7_ecx, bit::L7_ECX_PKU),
    (cr::CR4_PKS, |f| f.l7_ecx, bit::L7_ECX_PKS),
    (cr::CR4_LAM_SUP, |f| f.l7_1_eax, bit::L7_1_EAX_LAM),
];

/// Bits of CR4 that can be set.
fn cr4_allowed(features: &Features) -> u64 {
    let announced = CR4_FEATURES.iter().filter(|(_, word, mask)| word(features) & mask != 0);
    // PCE comes with no feature bit.
    announced.fold(cr::CR4_PCE, |allowed, (flag, ..)| allowed | flag)
}

/// Bits of CR3 above the address that can be set.
fn cr3_flags(features: &Features) -> u64 {
    if features.l7_1_eax & bit::L7_1_EAX_LAM != 0 { cr::CR3_LAM_U48 | cr::CR3_LAM_U57 } else { 0 }
}

/// Bits of CR4 whose change makes PAE paging load its PDPTEs again (SDM vol. 3 section 4.4.1).
const CR4_PDPTE_BITS: u64 = cr::CR4_PAE | cr::CR4_PSE | cr::CR4_PGE | cr::CR4_SMEP;

/// Bits of CR0 on which translations or their rights depend.
const CR0_TRANSLATION: u64 = cr::CR0_PE | cr::CR0_WP | cr::CR0_PG;
/// Bits of CR4, likewise.
const CR4_TRANSLATION: u64 = cr::CR4_PSE
    | cr::CR4_PAE
    | cr::CR4_PGE
    | cr::CR4_PCIDE
    | cr::CR4_SMEP
    | cr::CR4_SMAP
    | cr::CR4_PKE
    | cr::CR4_PKS
    | cr::CR4_LA57;

impl Cpu {
    /// Whether PAE paging (not that of long mode) is in force under these values.
    fn is_pae_paging(cr0: u64, cr4: u64, efer: u64) -> bool {
        cr0 & cr::CR0_PG != 0 && cr4 & cr::CR4_PAE != 0 && efer & cr::EFER_LMA == 0
    }

    /// Write CR0 with all its rules.
    pub fn write_cr0(&mut self, env: &mut Env<'_>, value: u64) -> Result<(), Stop> {
        let set = |flag: u64| value & flag != 0;
        if value >> 32 != 0 || set(cr::CR0_PG) && !set(cr::CR0_PE) || set(cr::CR0_NW) && !set(cr::CR0_CD) {
            return Err(self.gp0());
        }
        let value = value & cr::CR0_DEFINED | cr::CR0_ET;
        let changed = self.cr0 ^ value;
        let mut efer = self.efer;
        if changed & cr::CR0_PG != 0 {
            if set(cr::CR0_PG) {
                if efer & cr::EFER_LME != 0 {
                    self.check_long_mode_entry()?;
                    efer |= cr::EFER_LMA;
                }
            } else if self.mode.is_64() || self.cr4 & cr::CR4_PCIDE != 0 {
                return Err(self.gp0());
            } else {
                efer &= !cr::EFER_LMA;
            }
        }
        if changed & (cr::CR0_PG | cr::CR0_CD | cr::CR0_NW) != 0 && Self::is_pae_paging(value, self.cr4, efer) {
            self.load_pdptes(env, self.cr3)?;
        }
        self.cr0 = value;
        self.efer = efer;
        if changed & CR0_TRANSLATION != 0 {
            self.tlb.flush();
        }
        self.availability_changed();
        self.segments_changed();
        Ok(())
    }

    /// What must hold when paging is turned on with EFER.LME: SDM vol. 3 section 9.8.5.
    fn check_long_mode_entry(&mut self) -> Result<(), Stop> {
        let cs_is_64 = self.seg(CS).has(attr::L);
        let short_tss = matches!(self.seg(TR).kind(), system::TSS16 | system::TSS16_BUSY);
        if self.cr4 & cr::CR4_PAE == 0 || cs_is_64 || short_tss {
            return Err(self.gp0());
        }
        Ok(())
    }

    /// Write CR3 with all its rules.
    pub fn write_cr3(&mut self, env: &mut Env<'_>, value: u64) -> Result<(), Stop> {
        let mut value = value;
        if self.long_mode() {
            if self.cr4 & cr::CR4_PCIDE != 0 {
                value &= !cr::CR3_NOFLUSH;
            }
            if (value & !cr3_flags(&self.features)) >> self.features.physical_bits() != 0 {
                return Err(self.gp0());
            }
        } else if Self::is_pae_paging(self.cr0, self.cr4, self.efer) {
            self.load_pdptes(env, value)?;
        }
        self.cr3 = value;
        // Forgetting more than was asked for (NOFLUSH) is always allowed.
        self.tlb.flush();
        Ok(())
    }

    /// Write CR4 with all its rules.
    pub fn write_cr4(&mut self, env: &mut Env<'_>, value: u64) -> Result<(), Stop> {
        let set = |flag: u64| value & flag != 0;
        let changed = self.cr4 ^ value;
        let long = self.long_mode();
        let bad = value & !cr4_allowed(&self.features) != 0
            || long && (!set(cr::CR4_PAE) || changed & cr::CR4_LA57 != 0)
            || changed & value & cr::CR4_PCIDE != 0 && (!long || self.cr3 & cr::CR3_PCID != 0);
        if bad {
            return Err(self.gp0());
        }
        if changed & CR4_PDPTE_BITS != 0 && Self::is_pae_paging(self.cr0, value, self.efer) {
            self.load_pdptes(env, self.cr3)?;
        }
        self.cr4 = value;
        if changed & CR4_TRANSLATION != 0 {
            self.tlb.flush();
        }
        self.availability_changed();
        self.segments_changed();
        Ok(())
    }
}

/// MOV r, CR.
pub fn mov_from_cr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_number(cpu, op)?;
    let value = match op.extra {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        _ => {
            let now = env.now_ns();
            env.bus.advance(now);
            env.bus.cr8(cpu.index)
        }
    };
    cpu.regs[slot(op.dst)] = if cpu.mode.is_64() { value } else { value & 0xFFFF_FFFF };
    Ok(Flow::Sync)
}

/// MOV CR, r.
pub fn mov_to_cr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    check_number(cpu, op)?;
    let value = cpu.regs[slot(op.src)];
    let value = if cpu.mode.is_64() { value } else { value & 0xFFFF_FFFF };
    match op.extra {
        0 | 3 | 4 => {
            match op.extra {
                0 => cpu.write_cr0(env, value)?,
                3 => cpu.write_cr3(env, value)?,
                _ => cpu.write_cr4(env, value)?,
            }
            env.charge(cost::WRITE_CONTROL);
        }
        2 => cpu.cr2 = value,
        _ => {
            if value > 15 {
                return Err(cpu.gp0());
            }
            let now = env.now_ns();
            env.bus.advance(now);
            env.bus.set_cr8(cpu.index, value);
        }
    }
    Ok(Flow::Sync)
}

/// #UD for registers that do not exist, #GP(0) above CPL 0.
fn check_number(cpu: &mut Cpu, op: &Op) -> Result<(), Stop> {
    let exists = matches!(op.extra, 0 | 2 | 3 | 4) || op.extra == 8 && cpu.mode.is_64();
    if !exists {
        return Err(cpu.ud());
    }
    require_cpl0(cpu)
}

/// CLTS.
pub fn clts(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    require_cpl0(cpu)?;
    cpu.cr0 &= !cr::CR0_TS;
    cpu.availability_changed();
    Ok(Flow::Sync)
}

/// LMSW r16.
pub fn lmsw_reg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = u16::get(&cpu.regs, op.src);
    lmsw(cpu, env, value)
}

/// LMSW m16.
pub fn lmsw_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    require_cpl0(cpu)?;
    let value = addr::read_operand::<u16>(cpu, env, op)?;
    lmsw(cpu, env, value)
}

/// PE, MP, EM and TS; PE cannot be cleared.
fn lmsw(cpu: &mut Cpu, env: &mut Env<'_>, value: u16) -> Step {
    const LOADED: u64 = cr::CR0_PE | cr::CR0_MP | cr::CR0_EM | cr::CR0_TS;
    require_cpl0(cpu)?;
    let value = cpu.cr0 & !LOADED | u64::from(value) & LOADED | cpu.cr0 & cr::CR0_PE;
    cpu.write_cr0(env, value)?;
    Ok(Flow::Sync)
}

/// SMSW r.
pub fn smsw_reg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    smsw(cpu, env, &Op { extra: 1, ..*op })
}

/// SMSW m16.
pub fn smsw_mem(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    smsw(cpu, env, &Op { extra: 0, ..*op })
}

fn smsw(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    crate::segment::check_umip(cpu)?;
    let value = cpu.cr0;
    crate::segment::store_rm16(cpu, env, op, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use x86defs::vector;

    const GP0: Result<(), (u8, Option<u32>)> = Err((vector::GP, Some(0)));

    #[test]
    fn rules_of_cr0() {
        use cr::*;
        for (value, expected) in [
            (CR0_PE, Ok(())),
            (CR0_PG, GP0),
            (CR0_PE | CR0_NW, GP0),
            (CR0_PE | CR0_NW | CR0_CD, Ok(())),
            (CR0_PE | 1 << 32, GP0),
            (CR0_PE | 1 << 10, Ok(())),
        ] {
            let mut machine = Machine::protected32();
            let result = machine.with(|cpu, env| cpu.write_cr0(env, value));
            assert_eq!(machine.outcome(result), expected, "{value:#x}");
            if expected.is_ok() {
                assert_eq!(machine.cpu.cr0, value & CR0_DEFINED | CR0_ET);
            }
        }
    }

    #[test]
    fn long_mode_is_entered_and_left_by_paging() {
        let mut machine = Machine::protected32();
        machine.cpu.efer = cr::EFER_LME;
        let pg = machine.cpu.cr0 | cr::CR0_PG;
        let result = machine.with(|cpu, env| cpu.write_cr0(env, pg));
        assert_eq!(machine.outcome(result), GP0, "PAE is off");
        machine.cpu.cr4 = cr::CR4_PAE;
        machine.with(|cpu, env| cpu.write_cr0(env, pg)).expect("long mode");
        assert!(machine.cpu.long_mode() && machine.cpu.mode.bits() == 32);
        let result = machine.with(|cpu, env| cpu.write_cr4(env, 0));
        assert_eq!(machine.outcome(result), GP0, "PAE stays");
        machine.with(|cpu, env| cpu.write_cr0(env, cr::CR0_PE)).expect("from compatibility mode");
        assert!(!machine.cpu.long_mode());

        let mut machine = Machine::long64();
        let result = machine.with(|cpu, env| cpu.write_cr0(env, cr::CR0_PE));
        assert_eq!(machine.outcome(result), GP0, "not from 64-bit mode");
    }

    #[test]
    fn rules_of_cr3_and_cr4() {
        let mut machine = Machine::long64();
        machine.cpu.features.physical_bits = 40;
        for (value, expected) in [(0x1000, Ok(())), (1 << 39, Ok(())), (1 << 40, GP0), (1 << 63, GP0)] {
            let result = machine.with(|cpu, env| cpu.write_cr3(env, value));
            assert_eq!(machine.outcome(result), expected, "{value:#x}");
        }
        let pae = cr::CR4_PAE;
        machine.cpu.cr3 = 0x1001;
        for (value, expected) in [
            (pae | cr::CR4_LA57, GP0),
            (pae | cr::CR4_PCIDE, GP0),
            (pae | cr::CR4_VMXE, GP0),
            (pae | 1 << 40, GP0),
            (pae | cr::CR4_SMEP | cr::CR4_SMAP | cr::CR4_PKE | cr::CR4_UMIP, Ok(())),
        ] {
            let result = machine.with(|cpu, env| cpu.write_cr4(env, value));
            assert_eq!(machine.outcome(result), expected, "{value:#x}");
        }
        machine.cpu.cr3 = 0x1000;
        machine.with(|cpu, env| cpu.write_cr4(env, pae | cr::CR4_PCIDE)).expect("PCIDs");
        machine.with(|cpu, env| cpu.write_cr3(env, 1 << 63 | 0x2003)).expect("NOFLUSH");
        assert_eq!(machine.cpu.cr3, 0x2003);
        machine.cpu.features.l7_ebx = 0;
        let result = machine.with(|cpu, env| cpu.write_cr4(env, pae | cr::CR4_SMEP));
        assert_eq!(machine.outcome(result), GP0, "not announced");
    }

    #[test]
    fn vectors_become_available_and_unavailable() {
        use crate::vector::available::Available;
        let mut machine = Machine::protected32();
        machine.with(|cpu, env| cpu.write_cr4(env, cr::CR4_OSFXSR)).expect("announced");
        assert!(machine.cpu.available.has(Available::SSE));
        let cr0 = machine.cpu.cr0 | cr::CR0_TS;
        machine.with(|cpu, env| cpu.write_cr0(env, cr0)).expect("allowed");
        assert!(!machine.cpu.available.has(Available::SSE));
        machine.with(|cpu, env| clts(cpu, env, &Op::new(clts))).expect("CPL 0");
        assert!(machine.cpu.available.has(Available::SSE));
    }

    #[test]
    fn lmsw_cannot_leave_protected_mode() {
        let mut machine = Machine::protected32();
        machine.cpu.regs[1] = 0xFFFE;
        machine.with(|cpu, env| lmsw_reg(cpu, env, &Op { src: 1, ..Op::new(lmsw_reg) })).expect("CPL 0");
        assert_eq!(machine.cpu.cr0 & 0xF, 0xF);
    }
}
