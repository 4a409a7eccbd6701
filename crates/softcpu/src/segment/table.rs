//! GDTR, IDTR, LDTR and TR.

use x86defs::segment::{self as attr, system};
use x86defs::{cr, vector};

use super::query::{require_protected, selector_operand};
use super::{LDTR, Segment, TR, Table};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Op, Step, Stop, Width, slot};

/// #GP(0) above CPL 0.
fn require_cpl0(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cpl == 0 { Ok(()) } else { Err(cpu.gp0()) }
}

/// #GP(0) above CPL 0 if CR4.UMIP is set.
pub(crate) fn check_umip(cpu: &mut Cpu) -> Result<(), Stop> {
    if cpu.cpl > 0 && cpu.cr4 & cr::CR4_UMIP != 0 { Err(cpu.gp0()) } else { Ok(()) }
}

/// Limit and base, as LGDT and LIDT read them.
fn read_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<Table, Stop> {
    require_cpl0(cpu)?;
    let wide = cpu.mode.is_64();
    let offset = addr::effective(cpu, op);
    let bytes = if wide { 8 } else { 4 };
    let linear = addr::linear(cpu, op.seg, offset, 2 + bytes, false)?;
    let limit = cpu.read::<u16>(env, linear, op.seg)?;
    let linear = cpu.wrap(linear.wrapping_add(2));
    let base = if wide {
        cpu.read::<u64>(env, linear, op.seg)?
    } else {
        let base = u64::from(cpu.read::<u32>(env, linear, op.seg)?);
        // Only 24 bits with a 16-bit operand.
        if op.size == 2 { base & 0xFF_FFFF } else { base }
    };
    if wide && !cpu.is_canonical_base(base) {
        return Err(cpu.gp0());
    }
    Ok(Table { base, limit })
}

fn write_table(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, table: Table) -> Step {
    check_umip(cpu)?;
    let wide = cpu.mode.is_64();
    let offset = addr::effective(cpu, op);
    let bytes = if wide { 8 } else { 4 };
    let linear = addr::linear(cpu, op.seg, offset, 2 + bytes, true)?;
    cpu.probe_write(env, linear, 2 + bytes, op.seg)?;
    cpu.write(env, linear, op.seg, table.limit)?;
    let linear = cpu.wrap(linear.wrapping_add(2));
    if wide {
        cpu.write(env, linear, op.seg, table.base)?;
    } else {
        cpu.write(env, linear, op.seg, table.base as u32)?;
    }
    Ok(Flow::Sync)
}

/// LGDT.
pub fn lgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.gdtr = read_table(cpu, env, op)?;
    Ok(Flow::Sync)
}

/// LIDT.
pub fn lidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.idtr = read_table(cpu, env, op)?;
    Ok(Flow::Sync)
}

/// SGDT.
pub fn sgdt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let table = cpu.gdtr;
    write_table(cpu, env, op, table)
}

/// SIDT.
pub fn sidt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let table = cpu.idtr;
    write_table(cpu, env, op, table)
}

/// LLDT.
pub fn lldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    require_protected(cpu)?;
    require_cpl0(cpu)?;
    let selector = selector_operand(cpu, env, op)?;
    let segment = cpu.ldt_segment(env, selector, [vector::GP, vector::NP])?;
    cpu.segs[usize::from(LDTR)] = segment;
    Ok(Flow::Sync)
}

/// LTR.
pub fn ltr(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    require_protected(cpu)?;
    require_cpl0(cpu)?;
    let selector = selector_operand(cpu, env, op)?;
    if selector & !attr::RPL == 0 {
        return Err(cpu.gp0());
    }
    if selector & attr::TI != 0 {
        return Err(cpu.selector_fault(vector::GP, selector, false));
    }
    let mut descriptor = cpu.read_system_descriptor(env, selector, vector::GP, false)?;
    match descriptor.system_type() {
        Some(system::TSS) => {}
        Some(system::TSS16) if !cpu.long_mode() => {}
        _ => return Err(cpu.selector_fault(vector::GP, selector, false)),
    }
    if !descriptor.is_present() {
        return Err(cpu.selector_fault(vector::NP, selector, false));
    }
    if cpu.long_mode() && !cpu.is_canonical_base(descriptor.base()) {
        return Err(cpu.gp0());
    }
    cpu.set_busy(env, &mut descriptor, true)?;
    cpu.segs[usize::from(TR)] = descriptor.segment(selector);
    Ok(Flow::Sync)
}

/// SLDT.
pub fn sldt(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_selector(cpu, env, op, LDTR)
}

/// STR.
pub fn str_(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    store_selector(cpu, env, op, TR)
}

fn store_selector(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, number: u8) -> Step {
    require_protected(cpu)?;
    check_umip(cpu)?;
    let selector = cpu.seg(number).selector;
    store_rm16(cpu, env, op, selector.into())
}

/// Write an r/m operand as SLDT, STR and SMSW do: a register at the operand size, or 16 bits of memory.
pub(crate) fn store_rm16(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, value: u64) -> Step {
    match (op.extra & 1, op.size) {
        (0, _) => addr::write_operand(cpu, env, op, value as u16)?,
        (_, 2) => u16::set(&mut cpu.regs, op.dst, value as u16),
        (_, 4) => u32::set(&mut cpu.regs, op.dst, value as u32),
        _ => cpu.regs[slot(op.dst)] = value,
    }
    Ok(Flow::Sync)
}

impl Cpu {
    /// What loading LDTR leaves; `vectors` are raised if the descriptor does not fit, and if it is not present.
    pub fn ldt_segment(&mut self, env: &mut Env<'_>, selector: u16, vectors: [u8; 2]) -> Result<Segment, Stop> {
        let [unfit, absent] = vectors;
        if selector & !attr::RPL == 0 {
            return Ok(Segment::null(selector));
        }
        if selector & attr::TI != 0 {
            return Err(self.selector_fault(unfit, selector, false));
        }
        let descriptor = self.read_system_descriptor(env, selector, unfit, false)?;
        if descriptor.system_type() != Some(system::LDT) {
            return Err(self.selector_fault(unfit, selector, false));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(absent, selector, false));
        }
        if self.long_mode() && !self.is_canonical_base(descriptor.base()) {
            return Err(self.gp0());
        }
        Ok(descriptor.segment(selector))
    }

    /// Mark a TSS descriptor as busy or available, in its table.
    pub fn set_busy(&mut self, env: &mut Env<'_>, descriptor: &mut super::Descriptor, busy: bool) -> Result<(), Stop> {
        const BUSY: u64 = 1 << 41;
        descriptor.low = if busy { descriptor.low | BUSY } else { descriptor.low & !BUSY };
        self.write_system(env, descriptor.address.wrapping_add(5), (descriptor.low >> 40) as u8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Machine;

    fn selector_op() -> Op {
        Op { dst: 0, src: 0, extra: 1, size: 2, ..Op::new(ltr) }
    }

    #[test]
    fn ltr_marks_the_tss_busy_and_refuses_a_busy_one() {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x0000_8900_5000_0067)]);
        machine.cpu.regs[0] = 0x18;
        machine.with(|cpu, env| ltr(cpu, env, &selector_op())).expect("a TSS");
        assert_eq!((machine.cpu.seg(TR).base, machine.cpu.seg(TR).limit), (0x5000, 0x67));
        assert_eq!(machine.load64(Machine::GDT + 0x18), 0x0000_8B00_5000_0067);
        let again = machine.with(|cpu, env| ltr(cpu, env, &selector_op()));
        assert_eq!(machine.outcome(again), Err((vector::GP, Some(0x18))));
    }

    #[test]
    fn a_tss_takes_sixteen_bytes_in_long_mode() {
        let mut machine = Machine::long64();
        machine.gdt(&[(0x18, 0x0000_8900_5000_0067), (0x20, 0xFFFF_8000)]);
        machine.cpu.regs[0] = 0x18;
        machine.with(|cpu, env| ltr(cpu, env, &selector_op())).expect("a TSS");
        assert_eq!(machine.cpu.seg(TR).base, 0xFFFF_8000_0000_5000);
        // The second half must not look like a descriptor.
        machine.gdt(&[(0x18, 0x0000_8900_5000_0067), (0x20, 0x0000_0900_0000_0000)]);
        let result = machine.with(|cpu, env| ltr(cpu, env, &selector_op()));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0x18))));
    }

    #[test]
    fn tables_are_loaded_at_the_operand_size() {
        let mut machine = Machine::protected32();
        machine.store64(0x3000, 0x8765_4321_1234);
        let mut op = Op { disp: 0x3000, seg: crate::segment::DS, size: 4, address: 4, ..Op::new(lgdt) };
        machine.with(|cpu, env| lidt(cpu, env, &op)).expect("loaded");
        assert_eq!(machine.cpu.idtr, Table { base: 0x8765_4321, limit: 0x1234 });
        op.size = 2;
        machine.with(|cpu, env| lidt(cpu, env, &op)).expect("loaded");
        assert_eq!(machine.cpu.idtr, Table { base: 0x65_4321, limit: 0x1234 });
        machine.cpu.cpl = 3;
        let result = machine.with(|cpu, env| lidt(cpu, env, &op));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0))));
    }
}
