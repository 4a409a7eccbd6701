//! SYSCALL, SYSRET, SYSENTER, SYSEXIT, as the silicon of each vendor has them.
//!
//! | | Intel: 64-bit, compatibility, legacy | AMD: 64-bit, compatibility, legacy |
//! |---|---|---|
//! | SYSCALL, SYSRET | yes, #UD, #UD | yes, yes, yes |
//! | SYSENTER, SYSEXIT | yes, yes, yes | #UD, #UD, yes |
//!
//! SDM vol. 2 and APM vol. 3. Where the silicon has no such instruction but the guest was told of a CPU by the vendor that does
//! (it has come here from another host), the hypervisor carries it out on the #UD, as KVM does; this needs no policy, so it
//! is done here.

use x86defs::{cr, rflags, segment as attr};

use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::msr::Kept;
use crate::op::{Flow, Op, Step, Stop};
use crate::segment::{CS, SS, Segment};

const RCX: usize = 1;
const RDX: usize = 2;
const RSP: usize = 4;
const R11: usize = 11;
/// Flags that SYSRET takes from R11: all but RF and VM.
const SYSRET_FLAGS: u64 = 0x3C_7FD7;

/// A code width to go to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Code {
    Bits32,
    Bits64,
}

/// Load CS and SS as all four do, without a look at descriptors.
fn load_flat(cpu: &mut Cpu, code: u16, stack: u16, width: Code, cpl: u8) {
    let dpl = u16::from(cpl) << attr::DPL_SHIFT;
    let size = if width == Code::Bits64 { attr::L } else { attr::DB };
    let rpl = u16::from(cpl);
    cpu.segs[usize::from(CS)] = Segment::flat(code & !attr::RPL | rpl, attr::CODE | size | dpl);
    cpu.segs[usize::from(SS)] = Segment::flat(stack & !attr::RPL | rpl, attr::DB | dpl);
    cpu.cpl = cpl;
}

/// Take over flags, and step on if they say so: TF counts as it is after the instruction.
fn load_flags(cpu: &mut Cpu, flags: u64) {
    cpu.set_rflags(flags);
    cpu.debug.stepping = flags & rflags::TF != 0;
    cpu.segments_changed();
}

/// #UD where SYSCALL and SYSRET do not exist or are not enabled.
fn check_syscall(cpu: &mut Cpu) -> Result<(), Stop> {
    let amd = cpu.host == HostVendor::Amd || cpu.features.amd;
    let exists = cpu.protected() && (cpu.mode.is_64() || amd);
    if exists && cpu.efer & cr::EFER_SCE != 0 { Ok(()) } else { Err(cpu.ud()) }
}

/// #UD where SYSENTER and SYSEXIT do not exist.
fn check_sysenter(cpu: &mut Cpu) -> Result<(), Stop> {
    let amd = cpu.host == HostVendor::Amd && cpu.features.amd;
    if amd && cpu.long_mode() { Err(cpu.ud()) } else { Ok(()) }
}

/// SYSCALL.
pub fn syscall(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    check_syscall(cpu)?;
    let selector = (cpu.msrs.get(Kept::Star) >> 32) as u16;
    let next = cpu.wrap(cpu.rip.wrapping_add(u64::from(op.len)));
    let flags = cpu.rflags() & !rflags::RF;
    cpu.regs[RCX] = next;
    let (width, kept) = if cpu.long_mode() {
        cpu.regs[R11] = flags;
        cpu.rip = if cpu.mode.is_64() { cpu.msrs.get(Kept::Lstar) } else { cpu.msrs.get(Kept::Cstar) };
        (Code::Bits64, !cpu.msrs.get(Kept::Sfmask))
    } else {
        cpu.rip = cpu.msrs.get(Kept::Star) & 0xFFFF_FFFF;
        (Code::Bits32, !(rflags::IF | rflags::VM))
    };
    load_flat(cpu, selector, selector.wrapping_add(8), width, 0);
    load_flags(cpu, flags & kept);
    Ok(Flow::Indirect)
}

/// SYSRET.
pub fn sysret(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    check_syscall(cpu)?;
    if cpu.cpl != 0 {
        return Err(cpu.gp0());
    }
    let selector = (cpu.msrs.get(Kept::Star) >> 48) as u16;
    let target = cpu.regs[RCX];
    let to_64 = cpu.mode.is_64() && op.size == 8;
    // Intel faults here, still at CPL 0; on AMD the fetch will, at CPL 3.
    if to_64 && cpu.host != HostVendor::Amd && !cpu.is_canonical(target) {
        return Err(cpu.gp0());
    }
    let flags = if cpu.long_mode() { cpu.regs[R11] & SYSRET_FLAGS } else { cpu.rflags() | rflags::IF };
    let (code, width) = if to_64 { (selector.wrapping_add(16), Code::Bits64) } else { (selector, Code::Bits32) };
    cpu.rip = if to_64 { target } else { target & 0xFFFF_FFFF };
    load_flat(cpu, code, selector.wrapping_add(8), width, 3);
    load_flags(cpu, flags);
    Ok(Flow::Indirect)
}

/// SYSENTER.
pub fn sysenter(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    check_sysenter(cpu)?;
    let selector = cpu.msrs.get(Kept::SysenterCs) as u16 & !attr::RPL;
    if cpu.cr0 & cr::CR0_PE == 0 || selector == 0 {
        return Err(cpu.gp0());
    }
    let (width, mask) = if cpu.long_mode() { (Code::Bits64, u64::MAX) } else { (Code::Bits32, 0xFFFF_FFFF) };
    cpu.rip = cpu.msrs.sysenter_eip & mask;
    cpu.regs[RSP] = cpu.msrs.sysenter_esp & mask;
    load_flat(cpu, selector, selector.wrapping_add(8), width, 0);
    let flags = cpu.rflags() & !(rflags::VM | rflags::IF);
    load_flags(cpu, flags);
    Ok(Flow::Indirect)
}

/// SYSEXIT.
pub fn sysexit(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    check_sysenter(cpu)?;
    let selector = cpu.msrs.get(Kept::SysenterCs) as u16 & !attr::RPL;
    if !cpu.protected() || cpu.cpl != 0 || selector == 0 {
        return Err(cpu.gp0());
    }
    let to_64 = cpu.mode.is_64() && op.size == 8;
    let (rip, rsp) = (cpu.regs[RDX], cpu.regs[RCX]);
    if to_64 && !(cpu.is_canonical(rip) && cpu.is_canonical(rsp)) {
        return Err(cpu.gp0());
    }
    let (distance, width, mask) = if to_64 { (32, Code::Bits64, u64::MAX) } else { (16, Code::Bits32, 0xFFFF_FFFF) };
    cpu.rip = rip & mask;
    cpu.regs[RSP] = rsp & mask;
    let code = selector.wrapping_add(distance);
    load_flat(cpu, code, code.wrapping_add(8), width, 3);
    cpu.segments_changed();
    Ok(Flow::Indirect)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Handler;
    use crate::testing::Machine;
    use x86defs::vector;

    fn machine(host: HostVendor, mode: &str) -> Machine {
        let mut machine = if mode == "legacy" { Machine::protected32() } else { Machine::long64() };
        if mode == "compatibility" {
            let cs = &mut machine.cpu.segs[usize::from(CS)];
            cs.attributes = cs.attributes & !attr::L | attr::DB;
            machine.cpu.segments_changed();
        }
        let cpu = &mut machine.cpu;
        cpu.host = host;
        cpu.features.amd = host == HostVendor::Amd;
        cpu.efer |= cr::EFER_SCE;
        cpu.msrs.set(Kept::Star, 0x23 << 48 | 0x10 << 32 | 0x5555);
        cpu.msrs.set(Kept::Lstar, 0xFFFF_8000_0000_1000);
        cpu.msrs.set(Kept::Cstar, 0xFFFF_8000_0000_2000);
        cpu.msrs.set(Kept::Sfmask, rflags::TF | rflags::IF);
        cpu.msrs.set(Kept::SysenterCs, 0x10);
        cpu.msrs.sysenter_eip = 0x3000;
        machine
    }

    /// The table at the head of this file.
    #[test]
    fn vendors_differ_by_mode() {
        for (host, mode, [call, enter]) in [
            (HostVendor::Intel, "64", [true, true]),
            (HostVendor::Intel, "compatibility", [false, true]),
            (HostVendor::Intel, "legacy", [false, true]),
            (HostVendor::Amd, "64", [true, false]),
            (HostVendor::Amd, "compatibility", [true, false]),
            (HostVendor::Amd, "legacy", [true, true]),
        ] {
            for (handler, exists) in [(syscall as Handler, call), (sysret, call), (sysenter, enter), (sysexit, enter)] {
                let mut machine = machine(host, mode);
                let op = Op { len: 2, size: 4, ..Op::new(handler) };
                let result = machine.with(|cpu, env| handler(cpu, env, &op));
                let expected = if exists { Ok(Flow::Indirect) } else { Err((vector::UD, None)) };
                assert_eq!(machine.outcome(result), expected, "{host:?} {mode}");
            }
        }
    }

    #[test]
    fn syscall_saves_where_it_was_and_masks_flags() {
        let mut machine = machine(HostVendor::Intel, "64");
        machine.set_cpl(3);
        machine.cpu.set_rflags(rflags::TF | rflags::IF | rflags::RF | rflags::CF);
        machine.cpu.debug.stepping = true;
        let op = Op { len: 2, ..Op::new(syscall) };
        machine.with(|cpu, env| syscall(cpu, env, &op)).expect("enabled");
        let cpu = &machine.cpu;
        assert_eq!((cpu.rip, cpu.regs[RCX], cpu.regs[R11]), (0xFFFF_8000_0000_1000, 0x102, 0x303));
        assert_eq!((cpu.cpl, cpu.seg(CS).selector, cpu.seg(SS).selector, cpu.rflags()), (0, 0x10, 0x18, 3));
        assert!(!cpu.debug.stepping, "SFMASK took TF away");
    }

    #[test]
    fn sysret_to_a_bad_address_faults_at_the_vendors_level() {
        for (host, cpl) in [(HostVendor::Intel, 0), (HostVendor::Amd, 3)] {
            let mut machine = machine(host, "64");
            machine.cpu.regs[RCX] = 0x8000_0000_0000;
            let op = Op { len: 3, size: 8, ..Op::new(sysret) };
            let result = machine.with(|cpu, env| sysret(cpu, env, &op));
            assert_eq!((result.is_ok(), machine.cpu.cpl), (cpl == 3, cpl), "{host:?}");
        }
    }
}
