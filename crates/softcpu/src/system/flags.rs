//! CLI, STI, CLAC, STAC.

use x86defs::{cpuid as bit, cr, rflags};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Op, Step, Stop};

/// Which flag CLI and STI change: SDM vol. 2 CLI, tables 3-6 and 4-22.
fn interrupt_flag(cpu: &mut Cpu) -> Result<u64, Stop> {
    if cpu.cr0 & cr::CR0_PE == 0 {
        return Ok(rflags::IF);
    }
    let iopl = (cpu.system_flags >> rflags::IOPL_SHIFT & 3) as u8;
    if cpu.cpl <= iopl {
        return Ok(rflags::IF);
    }
    let extension = if cpu.system_flags & rflags::VM != 0 { cr::CR4_VME } else { cr::CR4_PVI };
    if cpu.cpl == 3 && cpu.cr4 & extension != 0 { Ok(rflags::VIF) } else { Err(cpu.gp0()) }
}

/// CLI.
pub fn cli(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let flag = interrupt_flag(cpu)?;
    cpu.system_flags &= !flag;
    Ok(Flow::Sync)
}

/// STI: interrupts are held off until the next instruction is done.
pub fn sti(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    let flag = interrupt_flag(cpu)?;
    if flag == rflags::VIF && cpu.system_flags & rflags::VIP != 0 {
        return Err(cpu.gp0());
    }
    if flag == rflags::IF && cpu.system_flags & rflags::IF == 0 {
        cpu.interrupt_shadow = true;
        cpu.shadow_is_mov_ss = false;
    }
    cpu.system_flags |= flag;
    Ok(Flow::Sync)
}

fn change_ac(cpu: &mut Cpu, set: bool) -> Step {
    if cpu.cpl != 0 || cpu.features.l7_ebx & bit::L7_EBX_SMAP == 0 {
        return Err(cpu.ud());
    }
    cpu.system_flags = if set { cpu.system_flags | rflags::AC } else { cpu.system_flags & !rflags::AC };
    cpu.rights_changed();
    Ok(Flow::Sync)
}

/// CLAC.
pub fn clac(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    change_ac(cpu, false)
}

/// STAC.
pub fn stac(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    change_ac(cpu, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    #[test]
    fn only_a_change_of_if_casts_a_shadow() {
        let mut machine = Machine::protected32();
        let op = Op::new(sti);
        machine.with(|cpu, env| sti(cpu, env, &op)).expect("CPL 0");
        assert!(machine.cpu.interrupt_shadow);
        machine.cpu.interrupt_shadow = false;
        machine.with(|cpu, env| sti(cpu, env, &op)).expect("CPL 0");
        assert!(!machine.cpu.interrupt_shadow);
    }

    #[test]
    fn the_flag_depends_on_iopl_and_extensions() {
        let mut machine = Machine::protected32();
        machine.set_cpl(3);
        let op = Op::new(sti);
        let result = machine.with(|cpu, env| sti(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((x86defs::vector::GP, Some(0))));
        machine.cpu.cr4 = cr::CR4_PVI;
        machine.with(|cpu, env| sti(cpu, env, &op)).expect("PVI");
        assert_eq!(machine.cpu.rflags(), rflags::FIXED | rflags::VIF);
        machine.cpu.set_rflags(rflags::IOPL);
        machine.with(|cpu, env| sti(cpu, env, &op)).expect("IOPL 3");
        assert_eq!(machine.cpu.rflags(), rflags::FIXED | rflags::IOPL | rflags::IF);
    }
}
