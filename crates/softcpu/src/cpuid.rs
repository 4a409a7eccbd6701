//! The guest's CPUID table, and the instruction.

use vcpu::{Exit, Reply};
use x86defs::{cpuid as bit, cr, msr};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::features::Features;
use crate::msr::Kept;
use crate::op::{Answer, Flow, Op, Step, Width};
use crate::xstate::component;

/// Leaves whose EDX is the x2APIC id.
const TOPOLOGY_LEAVES: [u32; 2] = [0xB, 0x1F];
/// Leaf of the state that XSAVE manages.
const XSTATE: u32 = 0xD;
/// Leaf whose EAX is the APIC id on AMD.
const AMD_TOPOLOGY: u32 = 0x8000_001E;
/// First leaf of hypervisors, and its range.
const HYPERVISOR: u32 = 0x4000_0000;
/// First extended leaf.
const EXTENDED: u32 = 0x8000_0000;

/// One leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuidEntry {
    /// EAX of the question.
    pub leaf: u32,
    /// ECX of the question; `None`: whatever it is.
    pub subleaf: Option<u32>,
    /// EAX, EBX, ECX, EDX of the answer.
    pub registers: [u32; 4],
}

/// All leaves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CpuidTable {
    entries: Vec<CpuidEntry>,
    arch_capabilities: u64,
}

impl CpuidTable {
    /// A table of these leaves. Of two entries that fit a question the first one answers.
    pub fn new(entries: Vec<CpuidEntry>) -> Self {
        Self { entries, arch_capabilities: 0 }
    }

    /// The same with a value for IA32_ARCH_CAPABILITIES, for CPUs that are told that it exists.
    pub fn with_arch_capabilities(self, bits: u64) -> Self {
        Self { arch_capabilities: bits, ..self }
    }

    /// The leaves.
    pub fn entries(&self) -> &[CpuidEntry] {
        &self.entries
    }

    fn find(&self, leaf: u32, subleaf: u32) -> Option<[u32; 4]> {
        let fits = |entry: &&CpuidEntry| entry.leaf == leaf && entry.subleaf.is_none_or(|own| own == subleaf);
        self.entries.iter().find(fits).map(|entry| entry.registers)
    }

    fn contains(&self, leaf: u32) -> bool {
        self.entries.iter().any(|entry| entry.leaf == leaf)
    }

    fn word(&self, leaf: u32, subleaf: u32, register: usize) -> u32 {
        self.find(leaf, subleaf).map_or(0, |registers| registers[register])
    }

    /// What CPUID answers, apart from what changes while running.
    ///
    /// A leaf that is not in the table reads as zeros within the maximum of its range; beyond it AMD gives zeros and Intel
    /// the data of the highest basic leaf (SDM vol. 2 CPUID). The hypervisor's range, if one is announced, has no such rule.
    pub fn lookup(&self, leaf: u32, subleaf: u32) -> [u32; 4] {
        if let Some(registers) = self.find(leaf, subleaf) {
            return registers;
        }
        let hypervisor = leaf >> 28 == HYPERVISOR >> 28 && self.word(1, 0, 2) & bit::L1_ECX_HYPERVISOR != 0;
        if self.contains(leaf) || hypervisor || self.is_amd() {
            return [0; 4];
        }
        let highest_basic = self.word(0, 0, 0);
        let within = match leaf {
            ..HYPERVISOR => leaf <= highest_basic,
            EXTENDED.. => leaf <= self.word(EXTENDED, 0, 0),
            _ => false,
        };
        if within { [0; 4] } else { self.find(highest_basic, subleaf).unwrap_or_default() }
    }

    fn is_amd(&self) -> bool {
        let Some([_, b, c, d]) = self.find(0, 0) else { return false };
        let mut name = [0; 12];
        for (bytes, word) in name.chunks_exact_mut(4).zip([b, d, c]) {
            bytes.copy_from_slice(&word.to_le_bytes());
        }
        name == *b"AuthenticAMD" || name == *b"HygonGenuine"
    }

    /// What the CPU's behaviour depends on.
    pub fn features(&self) -> Features {
        Features {
            l1_ecx: self.word(1, 0, 2),
            l1_edx: self.word(1, 0, 3),
            l7_ebx: self.word(7, 0, 1),
            l7_ecx: self.word(7, 0, 2),
            l7_edx: self.word(7, 0, 3),
            l7_1_eax: self.word(7, 1, 0),
            l7_2_edx: self.word(7, 2, 3),
            pmu_eax: self.word(0xA, 0, 0),
            pmu_edx: self.word(0xA, 0, 3),
            x1_ecx: self.word(0x8000_0001, 0, 2),
            x1_edx: self.word(0x8000_0001, 0, 3),
            xsave_eax: self.word(XSTATE, 1, 0),
            xcr0: self.word(XSTATE, 0, 0),
            xss: self.word(XSTATE, 1, 2),
            xsave_offsets: component::BEHIND.map(|component| self.word(XSTATE, component.number, 1)),
            x8_ebx: self.word(0x8000_0008, 0, 1),
            x21_eax: self.word(0x8000_0021, 0, 0),
            arch_capabilities: self.arch_capabilities,
            physical_bits: self.word(0x8000_0008, 0, 0) & 0xFF,
            amd: self.is_amd(),
        }
    }

    /// Leaf 1 EAX: family, model, stepping.
    pub fn signature(&self) -> u32 {
        self.word(1, 0, 0)
    }
}

impl Cpu {
    /// What CPUID says now: the table, with the bits that depend on the vCPU and its state.
    pub fn cpuid_now(&self, leaf: u32, subleaf: u32, apic_enabled: bool) -> [u32; 4] {
        let mut registers = self.cpuid.lookup(leaf, subleaf);
        let [eax, ebx, ecx, edx] = &mut registers;
        let apic_id = self.index as u32;
        match leaf {
            1 => {
                *ebx = *ebx & 0x00FF_FFFF | apic_id << 24;
                *ecx = replace(*ecx, bit::L1_ECX_OSXSAVE, self.cr4 & cr::CR4_OSXSAVE != 0);
                *edx = replace(*edx, bit::L1_EDX_APIC, *edx & bit::L1_EDX_APIC != 0 && apic_enabled);
            }
            7 if subleaf == 0 => *ecx = replace(*ecx, bit::L7_ECX_OSPKE, self.cr4 & cr::CR4_PKE != 0),
            XSTATE if subleaf < 2 && self.cpuid.word(1, 0, 2) & bit::L1_ECX_XSAVE != 0 => {
                *ebx = self.area_size(subleaf == 1);
            }
            leaf if TOPOLOGY_LEAVES.contains(&leaf) && self.cpuid.contains(leaf) => {
                *ecx = *ecx & !0xFF | subleaf & 0xFF;
                *edx = apic_id;
            }
            AMD_TOPOLOGY if self.cpuid.contains(leaf) => {
                // One thread a core: the core's id is the vCPU's number within the only package.
                *eax = apic_id;
                *ebx = *ebx & !0xFF | apic_id & 0xFF;
            }
            _ => {}
        }
        registers
    }
}

fn replace(word: u32, bit: u32, value: bool) -> u32 {
    if value { word | bit } else { word & !bit }
}

/// CPUID.
pub fn cpuid(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let (leaf, subleaf) = (cpu.regs[0] as u32, cpu.regs[1] as u32);
    if cpu.cpl != 0 && cpu.msrs.get(Kept::MiscFeatures) & msr::MISC_FEATURES_CPUID_FAULT != 0 {
        return Err(cpu.gp0());
    }
    let registers = match cpu.replay.take() {
        Some(Answer::Cpuid(registers)) => registers,
        None if cpu.intercept_cpuid => {
            return Err(cpu.ask(Exit::Cpuid { vcpu: cpu.index, leaf, subleaf }));
        }
        _ => {
            let base = env.bus.msr_read(cpu.index, msr::APIC_BASE);
            let apic_enabled = !matches!(base, Reply::Done(value) if value & msr::APIC_BASE_ENABLE == 0);
            cpu.cpuid_now(leaf, subleaf, apic_enabled)
        }
    };
    let [eax, ebx, ecx, edx] = registers;
    for (number, value) in [(0, eax), (3, ebx), (1, ecx), (2, edx)] {
        u32::set(&mut cpu.regs, number, value);
    }
    env.charge_exit();
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(vendor: &[u8; 12], hypervisor: bool) -> CpuidTable {
        let word = |i: usize| u32::from_le_bytes([vendor[i], vendor[i + 1], vendor[i + 2], vendor[i + 3]]);
        let entry = |leaf, subleaf, registers| CpuidEntry { leaf, subleaf, registers };
        CpuidTable::new(vec![
            entry(0, None, [0xB, word(0), word(8), word(4)]),
            entry(1, None, [0x600, 0, if hypervisor { bit::L1_ECX_HYPERVISOR } else { 0 }, 0]),
            entry(7, Some(0), [0, 1, 2, 3]),
            entry(0xB, Some(0), [1, 2, 0x100, 0]),
            entry(0x8000_0000, None, [0x8000_0008, 0, 0, 0]),
            entry(0x8000_0008, None, [0x3028, 0, 0, 0]),
        ])
    }

    #[test]
    fn unknown_leaves_follow_the_vendor() {
        let intel = table(b"GenuineIntel", true);
        let highest = intel.lookup(0xB, 0);
        for (leaf, answer) in
            [(3, [0; 4]), (0xC, highest), (0x8000_0007, [0; 4]), (0x8000_0009, highest), (0x4000_0000, [0; 4])]
        {
            assert_eq!(intel.lookup(leaf, 0), answer, "{leaf:#x}");
        }
        assert_eq!(intel.lookup(7, 1), [0; 4], "no subleaf fits");
        assert_eq!(table(b"GenuineIntel", false).lookup(0x4000_0000, 0), highest);
        assert_eq!(table(b"AuthenticAMD", true).lookup(0xC, 0), [0; 4]);
        assert_eq!(table(b"AuthenticAMD", false).lookup(0x4000_0000, 0), [0; 4]);
    }

    #[test]
    fn features_come_from_the_table() {
        let features = table(b"AuthenticAMD", false).features();
        assert!(features.amd);
        assert_eq!((features.l7_ebx, features.l7_ecx, features.physical_bits()), (1, 2, 40));
        assert_eq!(CpuidTable::default().features().physical_bits(), 36);
    }
}
