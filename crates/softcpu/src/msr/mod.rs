//! MSRs that the core owns, by one table. Others (local APIC, TSC deadline, hypervisors) are the bus's.

mod announced;
mod cache_control;
mod computed;
mod machine_check;
mod table;

use vcpu::{Clock, Exit, Reply};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Width};
use crate::pmu::Work;
use crate::system::cost;
use cache_control::CacheControl;
use machine_check::MachineCheck;
pub use table::Kept;
use table::{Bits, NUM_KEPT, Rule, TABLE};

/// Their values, as far as they are not kept elsewhere in [`Cpu`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Msrs {
    /// By [`Kept`].
    values: [u64; NUM_KEPT],
    /// IA32_SYSENTER_ESP.
    pub sysenter_esp: u64,
    /// IA32_SYSENTER_EIP.
    pub sysenter_eip: u64,
    /// IA32_TSC_ADJUST.
    pub tsc_adjust: u64,
    cache: CacheControl,
    machine_check: MachineCheck,
}

impl Default for Msrs {
    /// As after RESET.
    fn default() -> Self {
        let mut msrs = Self {
            values: [0; NUM_KEPT],
            sysenter_esp: 0,
            sysenter_eip: 0,
            tsc_adjust: 0,
            cache: CacheControl::default(),
            machine_check: MachineCheck::default(),
        };
        for row in TABLE {
            if let Rule::Kept(which, reset, _) = row.rule {
                msrs.set(which, reset);
            }
        }
        msrs
    }
}

impl Msrs {
    /// The value of an MSR that is kept.
    #[inline]
    pub fn get(&self, which: Kept) -> u64 {
        self.values[which as usize]
    }

    /// Replace the value of an MSR that is kept, with no check.
    #[inline]
    pub fn set(&mut self, which: Kept, value: u64) {
        self.values[which as usize] = value;
    }
}

/// What writing an MSR of the core leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsrWrite {
    /// It has its new value.
    Done,
    /// As `Done`, and [`Cpu::tsc_offset`] has changed: the bus must hear of it.
    TscOffset,
    /// #GP(0): the value is not allowed.
    Refused,
    /// The core has no such MSR.
    Unknown,
}

/// When an MSR is read or written.
#[derive(Clone, Copy, Debug)]
pub struct When {
    /// The reference TSC.
    pub tsc: u64,
    /// What all vCPUs have done.
    pub work: Work,
    /// Converts time.
    pub clock: Clock,
}

impl When {
    /// Now, exactly if the instruction runs carefully.
    pub fn now(env: &Env<'_>) -> Self {
        Self::new(env.work(), env.clock)
    }

    /// By the engine's counts.
    pub fn new(work: Work, clock: Clock) -> Self {
        Self { tsc: clock.ns_to_tsc(work.ns), work, clock }
    }
}

fn allow(condition: bool) -> MsrWrite {
    if condition { MsrWrite::Done } else { MsrWrite::Refused }
}

impl Bits {
    /// What an MSR that holds `old` holds once `value` is written; `None` if that is #GP.
    fn accept(self, old: u64, value: u64, cpu: &Cpu) -> Option<u64> {
        match self {
            Bits::Any => Some(value),
            Bits::Only(bits) => (value & !bits == 0).then_some(value),
            Bits::OnlyAnnounced(bits) => (value & !bits(&cpu.features) == 0).then_some(value),
            Bits::Dropping(bits) => Some(value & bits),
            Bits::Ignoring { writable, ignored } => {
                let fixed = !(writable | ignored);
                ((value ^ old) & fixed == 0).then_some(value & writable | old & !writable)
            }
            Bits::Canonical => cpu.is_canonical_base(value).then_some(value),
        }
    }
}

impl Cpu {
    /// An MSR of the core; `None` if it has no such MSR that can be read.
    pub fn read_msr(&self, index: u32, when: When) -> Option<u64> {
        match table::find(index, &self.features)?.rule {
            Rule::Constant(value) | Rule::Ignored(value) => Some(value),
            Rule::Announced(value) => Some(value(&self.features)),
            Rule::Kept(which, ..) => Some(self.msrs.get(which)),
            Rule::Command(_) => None,
            Rule::Computed(read, _) => read(self, index, when),
        }
    }

    /// Write an MSR of the core with the rules of WRMSR.
    pub fn write_msr(&mut self, index: u32, value: u64, when: When) -> MsrWrite {
        let Some(row) = table::find(index, &self.features) else { return MsrWrite::Unknown };
        match row.rule {
            Rule::Constant(_) | Rule::Announced(_) => MsrWrite::Refused,
            Rule::Ignored(_) => MsrWrite::Done,
            Rule::Kept(which, _, bits) => {
                let new = bits.accept(self.msrs.get(which), value, self);
                self.msrs.set(which, new.unwrap_or(self.msrs.get(which)));
                allow(new.is_some())
            }
            Rule::Command(bits) => allow(value & !bits(&self.features) == 0),
            Rule::Computed(_, write) => write(self, index, value, when),
        }
    }
}

/// RDMSR.
pub fn rdmsr(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let index = cpu.regs[1] as u32;
    let claimed = env.bus.claims_msr(index);
    let own = if claimed { None } else { cpu.read_msr(index, When::now(env)) };
    let value = match own {
        Some(value) => value,
        None => cpu.ask_bus(env, |vcpu, env| env.bus.msr_read(vcpu, index), |vcpu| Exit::MsrRead { vcpu, index })?,
    };
    u32::set(&mut cpu.regs, 0, value as u32);
    u32::set(&mut cpu.regs, 2, (value >> 32) as u32);
    Ok(Flow::Sync)
}

/// WRMSR.
pub fn wrmsr(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let index = cpu.regs[1] as u32;
    let value = cpu.regs[0] & 0xFFFF_FFFF | cpu.regs[2] << 32;
    let claimed = env.bus.claims_msr(index);
    let own = if claimed { MsrWrite::Unknown } else { cpu.write_msr(index, value, When::now(env)) };
    match own {
        MsrWrite::Done => {}
        MsrWrite::TscOffset => {
            let now = env.now_ns();
            env.bus.advance(now);
            env.bus.set_tsc_offset(cpu.index, cpu.tsc_offset);
        }
        MsrWrite::Refused => return Err(cpu.gp0()),
        MsrWrite::Unknown => {
            let question = |vcpu: usize, env: &mut Env<'_>| match env.bus.msr_write(vcpu, index, value) {
                Reply::Done(()) => Reply::Done(0),
                Reply::Fault => Reply::Fault,
                Reply::Exit => Reply::Exit,
            };
            cpu.ask_bus(env, question, |vcpu| Exit::MsrWrite { vcpu, index, value })?;
        }
    }
    env.charge(cost::SERIALIZING);
    Ok(Flow::Sync)
}

#[cfg(test)]
impl When {
    /// Power-on.
    pub fn zero() -> Self {
        Self::new(Work::default(), Clock::new(1_000_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::HostVendor;
    use crate::features::Features;
    use crate::testing::Machine;
    use x86defs::{cpuid as bit, cr, msr};

    /// An Intel guest, or an AMD one, to which everything is announced that the machine of tests announces.
    fn guest(amd: bool) -> Cpu {
        let mut cpu = Machine::long64().cpu;
        cpu.features.amd = amd;
        cpu
    }

    const NONCANONICAL: u64 = 0xAA00_8000_0000_0000;
    const HIGH_HALF: u64 = 0xFFFF_8000_0000_0000;
    const BOTH: [bool; 2] = [false, true];
    const INTEL: [bool; 1] = [false];
    const AMD: [bool; 1] = [true];

    #[test]
    fn values_that_are_refused() {
        use MsrWrite::*;
        for (vendors, index, value, expected) in [
            (&BOTH[..], msr::LSTAR, NONCANONICAL, Refused),
            (&BOTH, msr::LSTAR, HIGH_HALF, Done),
            (&BOTH, msr::FS_BASE, NONCANONICAL, Refused),
            (&BOTH, msr::KERNEL_GS_BASE, NONCANONICAL, Refused),
            (&BOTH, msr::SYSENTER_EIP, NONCANONICAL, Refused),
            (&BOTH, msr::EFER, cr::EFER_LME | cr::EFER_SVME, Refused),
            (&BOTH, msr::EFER, cr::EFER_SCE, Refused),
            (&BOTH, msr::EFER, cr::EFER_LME | cr::EFER_SCE, Done),
            (&INTEL, msr::TSC_AUX, 1 << 32, Refused),
            (&AMD, msr::TSC_AUX, 1 << 32, Done),
            (&BOTH, msr::MTRR_CAP, 0, Refused),
            (&INTEL, msr::FEATURE_CONTROL, 5, Refused),
            (&AMD, msr::FEATURE_CONTROL, 5, Unknown),
            (&BOTH, msr::PRED_CMD, 2, Refused),
            (&BOTH, msr::PRED_CMD, 1, Done),
            (&BOTH, msr::FLUSH_CMD, 1, Done),
            (&BOTH, msr::FLUSH_CMD, 2, Refused),
            (&BOTH, msr::SPEC_CTRL, 7, Done),
            (&BOTH, msr::SPEC_CTRL, 1 << 9, Refused),
            (&BOTH, msr::EFER, cr::EFER_LME | cr::EFER_AIBRSE, Refused),
            (&BOTH, msr::ARCH_CAPABILITIES, 0, Refused),
            (&BOTH, msr::MISC_FEATURES_ENABLES, 2, Refused),
            (&BOTH, msr::DEBUGCTL, 1 << 6, Refused),
            (&BOTH, msr::MCG_CAP, 0, Refused),
            (&INTEL, msr::AMD_HWCR, 0, Unknown),
            (&AMD, msr::AMD_HWCR, 1 << 24, Done),
            (&AMD, msr::AMD_HWCR, 1 << 4, Refused),
            (&AMD, msr::AMD_DE_CFG, 1 << 9, Refused),
            (&AMD, msr::AMD_VM_CR, 0, Refused),
            (&AMD, msr::AMD_MMIO_CONF_BASE, 1, Refused),
            (&AMD, msr::AMD_PATCH_LOADER, 0x1234, Done),
            (&BOTH, 0x1234, 0, Unknown),
        ] {
            for &amd in vendors {
                let actual = guest(amd).write_msr(index, value, When::zero());
                assert_eq!(actual, expected, "{index:#x} {value:#x} amd {amd}");
            }
        }
    }

    /// What is kept of what was written, where that is not all of it.
    #[test]
    fn bits_that_do_not_change() {
        let fixed = 1 << 11 | 1 << 12;
        for (amd, index, value, expected) in [
            (false, msr::MISC_ENABLE, 0x4_00C5_0809 | fixed, Some(0x4_00C5_0809 | fixed)),
            (false, msr::MISC_ENABLE, 1 << 7 | fixed, Some(fixed)),
            (false, msr::MISC_ENABLE, 0, None),
            (true, msr::AMD_HWCR, 1 << 24 | 1 << 3 | 1 << 6 | 1 << 8, Some(1 << 24)),
            (true, msr::TSC_AUX, 0x5_0000_0007, Some(7)),
            (false, msr::SFMASK, 0x5_0000_0300, Some(0x300)),
            (false, msr::SYSENTER_CS, 0x5_0000_0010, Some(0x10)),
            (true, msr::AMD_SYSCFG, 1 << 20, Some(0)),
            (true, msr::BIOS_SIGN_ID, 0, Some(0x0FFF_FFFF)),
        ] {
            let mut cpu = guest(amd);
            let write = cpu.write_msr(index, value, When::zero());
            assert_eq!(write == MsrWrite::Done, expected.is_some(), "{index:#x} {value:#x}");
            if expected.is_some() {
                assert_eq!(cpu.read_msr(index, When::zero()), expected, "{index:#x} {value:#x}");
            }
        }
    }

    /// Each one can be read or is a command, holds what it resets to, and is gone when nothing is announced that it needs.
    #[test]
    fn every_row_can_be_used() {
        for row in TABLE {
            for amd in BOTH {
                let mut cpu = guest(amd);
                cpu.features.x8_ebx = bit::X8_EBX_VIRT_SSBD;
                if !(row.exists)(&cpu.features) {
                    continue;
                }
                for index in row.first..=row.last {
                    let read = cpu.read_msr(index, When::zero());
                    match row.rule {
                        Rule::Command(_) => assert_eq!(read, None, "{index:#x}"),
                        Rule::Kept(_, reset, _) => assert_eq!(read, Some(reset), "{index:#x}"),
                        _ => assert!(read.is_some(), "{index:#x}"),
                    }
                    // What was read can be written back, unless nothing can.
                    let written = read.map(|value| cpu.write_msr(index, value, When::zero()));
                    assert_ne!(written, Some(MsrWrite::Unknown), "{index:#x}");
                }
            }
        }
        let bare = Features::default();
        for index in [msr::TSC, msr::PAT, msr::MTRR_CAP, msr::MCG_CAP, msr::LSTAR, msr::SPEC_CTRL, msr::TSC_AUX] {
            assert!(table::find(index, &bare).is_none(), "{index:#x}");
        }
    }

    #[test]
    fn automatic_ibrs_is_a_bit_of_efer_where_it_is_announced() {
        let mut cpu = guest(true);
        cpu.features.x21_eax = bit::X21_EAX_AUTO_IBRS;
        let value = cpu.efer | cr::EFER_AIBRSE;
        assert_eq!(cpu.write_msr(msr::EFER, value, When::zero()), MsrWrite::Done);
        assert_eq!(cpu.read_msr(msr::EFER, When::zero()), Some(value));
    }

    #[test]
    fn capabilities_are_those_that_are_announced() {
        let mut cpu = guest(false);
        cpu.features.arch_capabilities = 1 << 62 | 1;
        assert_eq!(cpu.read_msr(msr::ARCH_CAPABILITIES, When::zero()), Some(1 << 62 | 1));
        assert_eq!(cpu.write_msr(msr::ARCH_CAPABILITIES, 1 << 62 | 1, When::zero()), MsrWrite::Refused);
        cpu.features.l7_edx = 0;
        assert_eq!(cpu.read_msr(msr::ARCH_CAPABILITIES, When::zero()), None);
    }

    #[test]
    fn the_tsc_and_its_adjustment_move_together() {
        let mut cpu = guest(false);
        assert_eq!(cpu.write_msr(msr::TSC, 5_000, When { tsc: 1_000, ..When::zero() }), MsrWrite::TscOffset);
        assert_eq!(cpu.read_msr(msr::TSC_ADJUST, When::zero()), Some(4_000));
        assert_eq!(cpu.write_msr(msr::TSC_ADJUST, 0, When { tsc: 2_000, ..When::zero() }), MsrWrite::TscOffset);
        assert_eq!(cpu.read_msr(msr::TSC, When { tsc: 2_000, ..When::zero() }), Some(2_000));
    }

    #[test]
    fn unknown_and_forbidden_ones_are_general_protection() {
        let mut machine = Machine::long64();
        machine.cpu.regs[1] = 0x1234;
        let op = Op::new(rdmsr);
        let result = machine.with(|cpu, env| rdmsr(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
        machine.cpu.regs[1] = msr::APIC_BASE.into();
        machine.with(|cpu, env| rdmsr(cpu, env, &op)).expect("the bus has it");
        assert_eq!(machine.cpu.regs[0], 0xFEE0_0900);
        machine.set_cpl(3);
        let result = machine.with(|cpu, env| rdmsr(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
    }

    #[test]
    fn amd_silicon_drops_the_upper_halves_of_sysenter() {
        let mut cpu = guest(false);
        cpu.host = HostVendor::Amd;
        let value = 0xFFFF_8000_1234_5678;
        cpu.write_msr(msr::SYSENTER_EIP, value, When::zero());
        assert_eq!(cpu.msrs.sysenter_eip, value, "an Intel guest");
        cpu.features.amd = true;
        cpu.write_msr(msr::SYSENTER_EIP, value, When::zero());
        assert_eq!(cpu.msrs.sysenter_eip, 0x1234_5678);
    }

    #[test]
    fn cpuid_can_be_made_to_fault() {
        let mut machine = Machine::long64();
        let fault = msr::MISC_FEATURES_CPUID_FAULT;
        assert_eq!(machine.cpu.write_msr(msr::MISC_FEATURES_ENABLES, fault, When::zero()), MsrWrite::Done);
        let op = Op::new(crate::cpuid::cpuid);
        machine.with(|cpu, env| crate::cpuid::cpuid(cpu, env, &op)).expect("CPL 0");
        machine.set_cpl(3);
        let result = machine.with(|cpu, env| crate::cpuid::cpuid(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
    }
}
