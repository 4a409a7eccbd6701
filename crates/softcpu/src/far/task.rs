//! Task switching by hardware: SDM vol. 3 chapter 7. Not in long mode.

use x86defs::segment::{self as attr, system};
use x86defs::{cr, dr, rflags, vector};

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;
use crate::segment::{CS, DS, Descriptor, ES, FS, GS, LDTR, SS, Segment, TR};

/// What switches tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskSource {
    /// JMP.
    Jump,
    /// CALL: the new task can return.
    Call,
    /// IRET with NT.
    Return,
    /// An interrupt or exception through a task gate, with EXT for its faults: the new task can return.
    Event {
        /// EXT of error codes.
        ext: bool,
    },
}

impl TaskSource {
    fn nests(self) -> bool {
        matches!(self, Self::Call | Self::Event { .. })
    }
    fn ext(self) -> bool {
        self == Self::Event { ext: true }
    }
}

/// Where a TSS has its fields.
struct Layout {
    /// Bytes of a register.
    bytes: u64,
    /// The lowest limit that is enough.
    limit: u32,
    /// CR3, in 32-bit ones.
    cr3: Option<u64>,
    ip: u64,
    /// EIP, EFLAGS and the eight registers follow each other, then the selectors, then that of the LDT.
    flags: u64,
    registers: u64,
    selectors: u64,
    selector_stride: u64,
    num_selectors: u64,
    ldt: u64,
    /// The word with the debug trap flag.
    trap: Option<u64>,
}

const LAYOUT32: Layout = Layout {
    bytes: 4,
    limit: 0x67,
    cr3: Some(0x1C),
    ip: 0x20,
    flags: 0x24,
    registers: 0x28,
    selectors: 0x48,
    selector_stride: 4,
    num_selectors: 6,
    ldt: 0x60,
    trap: Some(0x64),
};
const LAYOUT16: Layout = Layout {
    bytes: 2,
    limit: 0x2B,
    cr3: None,
    ip: 0x0E,
    flags: 0x10,
    registers: 0x12,
    selectors: 0x22,
    selector_stride: 2,
    num_selectors: 4,
    ldt: 0x2A,
    trap: None,
};

/// The order of selectors in a TSS is that of the segment registers' numbers.
const SELECTORS: [u8; 6] = [ES, CS, SS, DS, FS, GS];

/// The state that a TSS holds.
struct TaskState {
    cr3: u64,
    ip: u64,
    flags: u64,
    registers: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

impl Cpu {
    /// JMP or CALL to a TSS or a task gate.
    pub fn transfer_to_task(
        &mut self,
        env: &mut Env<'_>,
        descriptor: Descriptor,
        selector: u16,
        source: TaskSource,
        next: u64,
    ) -> Result<(), Stop> {
        if descriptor.dpl() < self.cpl || descriptor.dpl() < (selector & attr::RPL) as u8 {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        if descriptor.system_type() == Some(system::TASK_GATE) {
            if !descriptor.is_present() {
                return Err(self.selector_fault(vector::NP, selector, false));
            }
            return self.switch_through_gate(env, &descriptor, source, next);
        }
        if selector & attr::TI != 0 {
            return Err(self.selector_fault(vector::GP, selector, false));
        }
        self.switch_task(env, descriptor, selector, source, next)
    }

    /// Switch to the task that a task gate names; the gate itself has been checked.
    pub fn switch_through_gate(
        &mut self,
        env: &mut Env<'_>,
        gate: &Descriptor,
        source: TaskSource,
        next: u64,
    ) -> Result<(), Stop> {
        let selector = gate.gate_selector();
        if selector & attr::TI != 0 || selector & !attr::RPL == 0 {
            return Err(self.selector_fault(vector::GP, selector, source.ext()));
        }
        let descriptor = self.read_descriptor(env, selector, vector::GP, source.ext())?;
        self.switch_task(env, descriptor, selector, source, next)
    }

    /// Switch to the task of a TSS. `next` is where the current task goes on. A fault before the switch leaves everything as it
    /// is; one after it happens in the new task.
    pub fn switch_task(
        &mut self,
        env: &mut Env<'_>,
        mut descriptor: Descriptor,
        selector: u16,
        source: TaskSource,
        next: u64,
    ) -> Result<(), Stop> {
        let layout = self.check_task(&descriptor, selector, source)?;
        let state = self.read_task(env, layout, descriptor.base())?;
        self.save_task(env, next, source)?;
        if source != TaskSource::Return {
            self.set_busy(env, &mut descriptor, true)?;
        }
        if source.nests() {
            let link = self.seg(TR).selector;
            self.write_system(env, descriptor.base(), link)?;
        }
        descriptor.low |= 1 << 41;
        self.segs[usize::from(TR)] = descriptor.segment(selector);
        self.load_task(env, layout, &state, source)
    }

    fn check_task(
        &mut self,
        descriptor: &Descriptor,
        selector: u16,
        source: TaskSource,
    ) -> Result<&'static Layout, Stop> {
        let busy = source == TaskSource::Return;
        let unfit = if busy { vector::TS } else { vector::GP };
        let layout = match (descriptor.system_type(), busy) {
            (Some(system::TSS), false) | (Some(system::TSS_BUSY), true) => &LAYOUT32,
            (Some(system::TSS16), false) | (Some(system::TSS16_BUSY), true) => &LAYOUT16,
            _ => return Err(self.selector_fault(unfit, selector, source.ext())),
        };
        if !descriptor.is_present() {
            return Err(self.selector_fault(vector::NP, selector, source.ext()));
        }
        if descriptor.limit() < layout.limit {
            return Err(self.selector_fault(vector::TS, selector, source.ext()));
        }
        Ok(layout)
    }

    fn read_field(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64) -> Result<u64, Stop> {
        let linear = linear & 0xFFFF_FFFF;
        if bytes == 2 {
            self.read_system::<u16>(env, linear).map(u64::from)
        } else {
            self.read_system::<u32>(env, linear).map(u64::from)
        }
    }

    fn write_field(&mut self, env: &mut Env<'_>, linear: u64, bytes: u64, value: u64) -> Result<(), Stop> {
        let linear = linear & 0xFFFF_FFFF;
        if bytes == 2 {
            self.write_system(env, linear, value as u16)
        } else {
            self.write_system(env, linear, value as u32)
        }
    }

    fn read_task(&mut self, env: &mut Env<'_>, layout: &Layout, base: u64) -> Result<TaskState, Stop> {
        let bytes = layout.bytes;
        let mut state = TaskState {
            cr3: match layout.cr3 {
                Some(offset) => self.read_field(env, base.wrapping_add(offset), 4)?,
                None => self.cr3,
            },
            ip: self.read_field(env, base.wrapping_add(layout.ip), bytes)?,
            flags: self.read_field(env, base.wrapping_add(layout.flags), bytes)?,
            registers: [0; 8],
            selectors: [0; 6],
            ldt: self.read_field(env, base.wrapping_add(layout.ldt), 2)? as u16,
            trap: match layout.trap {
                Some(offset) => self.read_field(env, base.wrapping_add(offset), 2)? & 1 != 0,
                None => false,
            },
        };
        for (i, register) in (0..).zip(&mut state.registers) {
            *register = self.read_field(env, base.wrapping_add(layout.registers + bytes * i), bytes)?;
        }
        for (i, selector) in (0..layout.num_selectors).zip(&mut state.selectors) {
            *selector =
                self.read_field(env, base.wrapping_add(layout.selectors + layout.selector_stride * i), 2)? as u16;
        }
        Ok(state)
    }

    /// Save the current task in its TSS.
    fn save_task(&mut self, env: &mut Env<'_>, next: u64, source: TaskSource) -> Result<(), Stop> {
        let tr = *self.seg(TR);
        let layout = if self.tss_is_32() { &LAYOUT32 } else { &LAYOUT16 };
        if tr.limit < layout.limit {
            return Err(self.selector_fault(vector::TS, tr.selector, source.ext()));
        }
        let (base, bytes) = (tr.base, layout.bytes);
        let mut flags = self.rflags();
        if source == TaskSource::Return {
            flags &= !rflags::NT;
        }
        self.write_field(env, base.wrapping_add(layout.ip), bytes, next)?;
        self.write_field(env, base.wrapping_add(layout.flags), bytes, flags)?;
        for i in 0..8 {
            self.write_field(env, base.wrapping_add(layout.registers + bytes * i), bytes, self.regs[i as usize])?;
        }
        for (i, number) in (0..layout.num_selectors).zip(SELECTORS) {
            let selector = self.seg(number).selector.into();
            self.write_field(env, base.wrapping_add(layout.selectors + layout.selector_stride * i), 2, selector)?;
        }
        if !source.nests() {
            let mut own = self.read_descriptor(env, tr.selector, vector::TS, source.ext())?;
            self.set_busy(env, &mut own, false)?;
        }
        Ok(())
    }

    /// Take over the state of a task: from here on faults are the new task's.
    fn load_task(
        &mut self,
        env: &mut Env<'_>,
        layout: &Layout,
        state: &TaskState,
        source: TaskSource,
    ) -> Result<(), Stop> {
        let ext = source.ext();
        self.rip = state.ip;
        for (register, &value) in self.regs.iter_mut().zip(&state.registers) {
            // A 16-bit TSS has no upper halves. The manual leaves them undefined; a 386 fills them with ones.
            *register = if layout.bytes == 2 { 0xFFFF_0000 | value } else { value };
        }
        self.cr0 |= cr::CR0_TS;
        self.availability_changed();
        // Breakpoints that are local to a task (SDM vol. 3 section 18.2.4).
        let dr7 = self.debug.dr7() & !0x155;
        self.debug.set_dr7(dr7);
        if state.trap {
            self.debug.pending |= dr::DR6_BT;
        }
        if self.cr0 & cr::CR0_PG != 0 && layout.cr3.is_some() {
            if self.cr4 & cr::CR4_PAE != 0 {
                self.load_pdptes(env, state.cr3)?;
            }
            self.cr3 = state.cr3;
        }
        let nested = if source.nests() { rflags::NT } else { 0 };
        self.set_rflags(state.flags | nested);
        // Nothing is loaded yet: what a fault in the middle leaves cannot be used, with the selectors in place.
        for (number, &selector) in SELECTORS.into_iter().zip(&state.selectors) {
            self.segs[usize::from(number)] = Segment::null(selector);
        }
        self.segs[usize::from(LDTR)] = Segment::null(state.ldt);
        self.cpl = if state.flags & rflags::VM != 0 { 3 } else { (state.selectors[usize::from(CS)] & attr::RPL) as u8 };
        self.mode_changed();
        let ldt = self.ldt_segment(env, state.ldt, [vector::TS, vector::TS])?;
        self.segs[usize::from(LDTR)] = ldt;
        self.load_task_segments(env, &state.selectors, ext)?;
        self.mode_changed();
        if !self.seg(CS).contains(self.rip, 1) {
            return Err(self.raise_with(vector::GP, u32::from(ext)));
        }
        Ok(())
    }

    fn load_task_segments(&mut self, env: &mut Env<'_>, selectors: &[u16; 6], ext: bool) -> Result<(), Stop> {
        if self.system_flags & rflags::VM != 0 {
            for (number, &selector) in SELECTORS.into_iter().zip(selectors) {
                self.segs[usize::from(number)] = Segment::virtual_8086(selector);
            }
            return Ok(());
        }
        let code = selectors[usize::from(CS)];
        let rpl = (code & attr::RPL) as u8;
        if code & !attr::RPL == 0 {
            return Err(self.selector_fault(vector::TS, code, ext));
        }
        let mut descriptor = self.read_descriptor(env, code, vector::TS, ext)?;
        let level = if descriptor.is_conforming() { descriptor.dpl() <= rpl } else { descriptor.dpl() == rpl };
        if !descriptor.is_code() || !level {
            return Err(self.selector_fault(vector::TS, code, ext));
        }
        if !descriptor.is_present() {
            return Err(self.selector_fault(vector::NP, code, ext));
        }
        self.mark_accessed(env, &mut descriptor)?;
        self.segs[usize::from(CS)] = descriptor.segment(code);
        self.segments_changed();
        let stack = selectors[usize::from(SS)];
        if stack & !attr::RPL == 0 {
            return Err(self.selector_fault(vector::TS, stack, ext));
        }
        let segment = self.checked_stack(env, stack, rpl, [vector::TS, vector::SS], ext)?;
        self.segs[usize::from(SS)] = segment;
        for number in [ES, DS, FS, GS] {
            let selector = selectors[usize::from(number)];
            let segment = match self.data_segment(env, number, selector) {
                // What is #GP for an instruction is #TS here.
                Err(Stop::Fault) if self.fault.vector == vector::GP => {
                    return Err(self.selector_fault(vector::TS, selector, ext));
                }
                other => other?,
            };
            self.segs[usize::from(number)] = segment;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::far::{iret, jmp_far_ptr};
    use crate::op::Op;
    use crate::testing::Machine;

    const OTHER: u64 = 0x5000;

    fn machine() -> Machine {
        let mut machine = Machine::protected32();
        machine.gdt(&[(0x18, 0x0000_8B00_4000_0067), (0x20, 0x0000_8900_5000_0067), (0x28, 0x0000_8500_0020_0000)]);
        machine.cpu.segs[usize::from(TR)] =
            Segment { base: Machine::TSS, limit: 0x67, attributes: 0x8B, ..Segment::null(0x18) };
        for (offset, value) in [(0x20, 0x777), (0x24, 0x202), (0x38, 0x6000), (0x28, 0xABCD)] {
            machine.store32(OTHER + offset, value);
        }
        for (offset, selector) in [(0x48, 0x10), (0x4C, 8), (0x50, 0x10), (0x54, 0x10)] {
            machine.store32(OTHER + offset, selector);
        }
        machine
    }

    fn jump(selector: u16) -> Op {
        Op { disp: selector.into(), size: 4, len: 7, ..Op::new(jmp_far_ptr) }
    }

    #[test]
    fn a_jump_to_a_tss_swaps_the_whole_state() {
        let mut machine = machine();
        machine.cpu.regs[0] = 0x1111;
        machine.with(|cpu, env| jmp_far_ptr(cpu, env, &jump(0x20))).expect("switched");
        let cpu = &machine.cpu;
        assert_eq!((cpu.rip, cpu.regs[0], cpu.regs[4], cpu.seg(TR).selector), (0x777, 0xABCD, 0x6000, 0x20));
        assert_ne!(cpu.cr0 & cr::CR0_TS, 0);
        assert_eq!((machine.load32(Machine::TSS + 0x20), machine.load32(Machine::TSS + 0x28)), (0x107, 0x1111));
        let kinds = [0x18, 0x20].map(|at| machine.load64(Machine::GDT + at) >> 40 & 15);
        assert_eq!(kinds, [9, 11], "the old task is available again");
    }

    #[test]
    fn a_nested_task_returns() {
        let mut machine = machine();
        machine
            .with(|cpu, env| crate::far::call_far_ptr(cpu, env, &jump(0x28)))
            .expect("switched through the task gate");
        assert_ne!(machine.cpu.system_flags & rflags::NT, 0);
        assert_eq!(machine.load32(OTHER), 0x18);
        machine.with(|cpu, env| iret(cpu, env, &Op { size: 4, len: 1, ..Op::new(iret) })).expect("back");
        assert_eq!((machine.cpu.rip, machine.cpu.seg(TR).selector), (0x107, 0x18));
        assert_eq!(machine.cpu.system_flags & rflags::NT, 0);
    }

    #[test]
    fn a_16_bit_task_has_ones_in_the_upper_halves() {
        let mut machine = machine();
        machine.gdt(&[(0x20, 0x0000_8100_5000_002B)]);
        for (offset, value) in [(0x0E, 0x0777_u32), (0x10, 0x1234_0002), (0x22, 0x0008_0010), (0x26, 0x0010_0010)] {
            machine.store32(OTHER + offset, value);
        }
        machine.cpu.regs[0] = 0x1111_1111;
        machine.with(|cpu, env| jmp_far_ptr(cpu, env, &jump(0x20))).expect("switched");
        let cpu = &machine.cpu;
        assert_eq!((cpu.rip, cpu.regs[0], cpu.regs[1]), (0x777, 0xFFFF_1234, 0xFFFF_0000));
    }

    #[test]
    fn a_task_of_the_ldt_cannot_be_entered() {
        let mut machine = machine();
        machine.cpu.segs[usize::from(LDTR)] =
            Segment { base: Machine::GDT, limit: 0xFF, attributes: 0x82, ..Segment::null(0x30) };
        let result = machine.with(|cpu, env| jmp_far_ptr(cpu, env, &jump(0x24)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0x24))));
    }

    #[test]
    fn a_busy_task_cannot_be_entered() {
        let mut machine = machine();
        let result = machine.with(|cpu, env| jmp_far_ptr(cpu, env, &jump(0x18)));
        assert_eq!(machine.outcome(result), Err((vector::GP, Some(0x18))));
    }
}
