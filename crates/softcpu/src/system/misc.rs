//! HLT, PAUSE, MONITOR, time, and registers with instructions of their own.

use x86defs::cr;

use super::require_cpl0;
use crate::cpu::{Activity, Cpu};
use crate::engine::Env;
use crate::exec::addr;
use crate::msr::Kept;
use crate::op::{Flow, Op, Step, Stop, Width, slot};
use crate::segment::{FS, GS};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;

/// HLT.
pub fn hlt(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    require_cpl0(cpu)?;
    cpu.activity = Activity::Halted;
    Ok(Flow::Sync)
}

/// PAUSE: others may run.
pub fn pause(_cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    Ok(Flow::Yield)
}

/// MONITOR: the address is checked as a load.
pub fn monitor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.ud());
    }
    if cpu.regs[slot(RCX)] as u32 != 0 {
        return Err(cpu.gp0());
    }
    let offset = cpu.regs[slot(RAX)] & addr::size_mask(op.address);
    let linear = addr::linear(cpu, op.seg, offset, 1, false)?;
    cpu.read::<u8>(env, linear, op.seg)?;
    Ok(Flow::Sync)
}

/// MWAIT: a wait may end for any reason, and ours does when the others have had their turn.
pub fn mwait(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    if cpu.cpl != 0 {
        return Err(cpu.ud());
    }
    // Bit 0: interrupts end the wait even if they are disabled.
    if cpu.regs[slot(RCX)] as u32 & !1 != 0 {
        return Err(cpu.gp0());
    }
    Ok(Flow::Yield)
}

impl Cpu {
    /// The guest's time-stamp counter.
    pub fn tsc(&self, env: &Env<'_>) -> u64 {
        env.clock.ns_to_tsc(env.now_ns()).wrapping_add(self.tsc_offset)
    }
}

fn store_edx_eax(cpu: &mut Cpu, value: u64) {
    u32::set(&mut cpu.regs, RAX, value as u32);
    u32::set(&mut cpu.regs, RDX, (value >> 32) as u32);
}

fn check_tsc_allowed(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr4 & cr::CR4_TSD != 0 && cpu.cpl != 0 { Err(cpu.gp0()) } else { Ok(()) }
}

/// RDTSC.
pub fn rdtsc(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    check_tsc_allowed(cpu)?;
    let tsc = cpu.tsc(env);
    store_edx_eax(cpu, tsc);
    Ok(Flow::Sync)
}

/// RDTSCP.
pub fn rdtscp(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    rdtsc(cpu, env, op)?;
    let aux = cpu.msrs.get(Kept::TscAux) as u32;
    u32::set(&mut cpu.regs, RCX, aux);
    Ok(Flow::Sync)
}

/// RDPID.
pub fn rdpid(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.regs[slot(op.dst)] = cpu.msrs.get(Kept::TscAux);
    Ok(Flow::Sync)
}

/// SWAPGS.
pub fn swapgs(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    require_cpl0(cpu)?;
    let base = cpu.seg(GS).base;
    cpu.segs[usize::from(GS)].base = cpu.msrs.get(Kept::KernelGsBase);
    cpu.msrs.set(Kept::KernelGsBase, base);
    Ok(Flow::Sync)
}

/// RDFSBASE, RDGSBASE, WRFSBASE, WRGSBASE.
pub fn rdfsbase(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    if cpu.cr4 & cr::CR4_FSGSBASE == 0 || !cpu.mode.is_64() {
        return Err(cpu.ud());
    }
    let number = usize::from(if op.extra & 1 != 0 { GS } else { FS });
    let mask = addr::size_mask(op.size);
    if op.extra & 2 == 0 {
        cpu.regs[slot(op.dst)] = cpu.segs[number].base & mask;
    } else {
        let base = cpu.regs[slot(op.src)] & mask;
        if !cpu.is_canonical_base(base) {
            return Err(cpu.gp0());
        }
        cpu.segs[number].base = base;
    }
    Ok(Flow::Sync)
}

fn check_pkru(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cr4 & cr::CR4_PKE == 0 {
        return Err(cpu.ud());
    }
    if cpu.regs[slot(RCX)] as u32 != 0 { Err(cpu.gp0()) } else { Ok(()) }
}

/// RDPKRU.
pub fn rdpkru(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_pkru(cpu)?;
    let pkru = cpu.pkru.into();
    store_edx_eax(cpu, pkru);
    Ok(Flow::Sync)
}

/// WRPKRU.
pub fn wrpkru(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_pkru(cpu)?;
    if cpu.regs[slot(RDX)] as u32 != 0 {
        return Err(cpu.gp0());
    }
    cpu.pkru = cpu.regs[slot(RAX)] as u32;
    // Entries of the TLB stand for rights that the keys gave.
    cpu.tlb.flush();
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use x86defs::vector;

    #[test]
    fn the_tsc_is_time_plus_offset() {
        let mut machine = Machine::long64();
        machine.now = 1_000;
        machine.cpu.tsc_offset = 1 << 32;
        machine.cpu.msrs.set(Kept::TscAux, 7);
        let op = Op::new(rdtscp);
        machine.with(|cpu, env| rdtscp(cpu, env, &op)).expect("allowed");
        assert_eq!(machine.cpu.regs[..3], [1_000, 7, 1]);
        machine.cpu.cr4 |= cr::CR4_TSD;
        machine.with(|cpu, env| rdtsc(cpu, env, &op)).expect("CPL 0");
        machine.set_cpl(3);
        let result = machine.with(|cpu, env| rdtsc(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
    }

    #[test]
    fn bases_must_be_canonical() {
        let mut machine = Machine::long64();
        let write = Op { src: 0, extra: 3, size: 8, ..Op::new(rdfsbase) };
        let result = machine.with(|cpu, env| rdfsbase(cpu, env, &write));
        assert_eq!(machine.outcome(result), Err((vector::UD, None)), "CR4.FSGSBASE is clear");
        machine.cpu.cr4 |= cr::CR4_FSGSBASE;
        machine.cpu.regs[0] = 0xFFFF_8000_0000_1234;
        machine.with(|cpu, env| rdfsbase(cpu, env, &write)).expect("canonical");
        assert_eq!(machine.cpu.seg(GS).base, 0xFFFF_8000_0000_1234);
        machine.cpu.regs[0] = 0x0200_0000_0000_0000;
        let result = machine.with(|cpu, env| rdfsbase(cpu, env, &write));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
    }
}
