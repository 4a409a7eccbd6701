//! INVLPG, INVPCID, and the caches' instructions.

use x86defs::cr;

use super::{cost, require_cpl0};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Op, Step, slot};
use crate::segment::FS;

/// INVLPG: no segment checks, and an address that is not canonical does nothing.
pub fn invlpg(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    require_cpl0(cpu)?;
    let offset = addr::effective(cpu, op);
    let linear =
        if cpu.mode.is_64() && op.seg < FS { offset } else { cpu.wrap(cpu.seg(op.seg).base.wrapping_add(offset)) };
    if cpu.is_canonical(linear) || !cpu.mode.is_64() {
        cpu.tlb.flush_page(linear);
    }
    env.charge(cost::SERIALIZING);
    Ok(Flow::Sync)
}

/// INVPCID. Translations are not kept by PCID, so every type forgets them all, which is always allowed (SDM vol. 3 section
/// 4.10.4.1).
pub fn invpcid(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    const ADDRESS: u64 = 0;
    const CONTEXT: u64 = 1;
    const LAST_TYPE: u64 = 3;
    require_cpl0(cpu)?;
    let mask = if cpu.mode.is_64() { u64::MAX } else { 0xFFFF_FFFF };
    let kind = cpu.regs[slot(op.dst)] & mask;
    let linear = addr::linear(cpu, op.seg, addr::effective(cpu, op), 16, false)?;
    let pcid: u64 = cpu.read(env, linear, op.seg)?;
    let second = cpu.wrap(linear.wrapping_add(8));
    let address: u64 = cpu.read(env, second, op.seg)?;
    let without_pcids = cpu.cr4 & cr::CR4_PCIDE == 0 && pcid & cr::CR3_PCID != 0;
    let bad = kind > LAST_TYPE
        || pcid & !cr::CR3_PCID != 0
        || matches!(kind, ADDRESS | CONTEXT) && without_pcids
        || kind == ADDRESS && !cpu.is_canonical_base(address);
    if bad {
        return Err(cpu.gp0());
    }
    cpu.tlb.flush();
    env.charge(cost::SERIALIZING);
    Ok(Flow::Sync)
}

/// INVD: there is no cache to lose.
pub fn invd(cpu: &mut Cpu, _env: &mut Env<'_>, _op: &Op) -> Step {
    require_cpl0(cpu)?;
    Ok(Flow::Sync)
}

/// WBINVD, WBNOINVD.
pub fn wbinvd(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    require_cpl0(cpu)?;
    env.charge(cost::WRITE_BACK);
    Ok(Flow::Sync)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;
    use x86defs::vector;

    #[test]
    fn descriptors_of_invpcid() {
        let mut machine = Machine::long64();
        let op = Op { dst: 0, disp: 0x3000, size: 8, address: 8, seg: crate::segment::DS, ..Op::new(invpcid) };
        for (kind, pcid, address, pcide, valid) in [
            (0, 0, 0x1000, false, true),
            (0, 1, 0x1000, false, false),
            (0, 1, 0x1000, true, true),
            (0, 0, 1 << 60, true, false),
            (1, 0, 1 << 60, true, true),
            (1, 0x1000, 0, true, false),
            (2, 0, 0, false, true),
            (3, 5, 0, false, true),
            (4, 0, 0, true, false),
        ] {
            machine.cpu.cr4 = if pcide { cr::CR4_PAE | cr::CR4_PCIDE } else { cr::CR4_PAE };
            machine.store64(0x3000, pcid);
            machine.store64(0x3008, address);
            machine.cpu.regs[0] = kind;
            let result = machine.with(|cpu, env| invpcid(cpu, env, &op));
            let expected = if valid { Ok(Flow::Sync) } else { Err((vector::GP, Some(0))) };
            assert_eq!(machine.outcome(result), expected, "{kind} {pcid:#x} {address:#x} {pcide}");
        }
    }
}
