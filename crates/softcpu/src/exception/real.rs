//! Delivery through the interrupt vector table, in real mode and by virtual-8086 extensions.

use x86defs::{rflags, vector};

use super::Delivery;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::far::Stack;
use crate::op::Stop;

/// Bytes of an entry: offset and segment.
const ENTRY: u64 = 4;

impl Cpu {
    /// SDM vol. 3 section 20.1.4. Error codes are not pushed.
    pub(super) fn deliver_real(&mut self, env: &mut Env<'_>, delivery: &Delivery) -> Result<(), Stop> {
        let entry = ENTRY * u64::from(delivery.vector);
        if entry + ENTRY - 1 > u64::from(self.idtr.limit) {
            return Err(self.raise_with(vector::GP, delivery.idt_error()));
        }
        let pointer: u32 = self.read_system(env, self.idtr.base.wrapping_add(entry))?;
        let flags = self.pushed_flags(delivery);
        let cleared = rflags::IF | rflags::TF | rflags::AC | rflags::RF;
        self.enter_real_handler(env, pointer, flags, self.rflags() & !cleared, delivery.return_rip)
    }

    /// INT n that virtual-8086 mode extensions leave to the program's own vectors: SDM vol. 3 section 20.3.3.
    pub fn deliver_within_virtual_8086(&mut self, env: &mut Env<'_>, number: u8, return_rip: u64) -> Result<(), Stop> {
        let access = self.data_access(false);
        let pointer = self.load_with(env, ENTRY * u64::from(number), ENTRY, crate::segment::DS, access)? as u32;
        let flags = self.rflags();
        let (pushed, cleared) = if flags & rflags::IOPL == rflags::IOPL {
            (flags, rflags::IF)
        } else {
            let interrupts = if flags & rflags::VIF != 0 { rflags::IF } else { 0 };
            (flags & !rflags::IF | interrupts | rflags::IOPL, rflags::VIF)
        };
        self.enter_real_handler(env, pointer, pushed, flags & !(cleared | rflags::TF | rflags::NT), return_rip)
    }

    fn enter_real_handler(
        &mut self,
        env: &mut Env<'_>,
        pointer: u32,
        pushed: u64,
        flags: u64,
        return_rip: u64,
    ) -> Result<(), Stop> {
        let target = self.real_target((pointer >> 16) as u16, u64::from(pointer & 0xFFFF))?;
        let mut stack = Stack::current(self);
        let selector = self.seg(crate::segment::CS).selector;
        for value in [pushed, selector.into(), return_rip] {
            stack.push(self, env, 2, value)?;
        }
        stack.commit(self);
        target.enter(self);
        self.set_rflags(flags);
        self.segments_changed();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Event, Shutdown};
    use crate::testing::Machine;
    use x86defs::{rflags, vector};

    #[test]
    fn an_interrupt_pushes_three_words() {
        let mut machine = Machine::real();
        machine.store32(4 * 0x21, 0x2000_0030);
        machine.cpu.set_rflags(rflags::IF | rflags::CF);
        machine.with(|cpu, env| cpu.deliver(env, Event::External { vector: 0x21 })).expect("delivered");
        assert_eq!((machine.cpu.linear_rip(), machine.cpu.regs[4]), (0x2_0030, 0x7FFA));
        assert_eq!(machine.cpu.rflags(), rflags::FIXED | rflags::CF);
        let frame = [0x7FFA, 0x7FFC, 0x7FFE].map(|at| machine.load16(at));
        assert_eq!(frame, [0x100, 0, 0x203]);
    }

    #[test]
    fn a_short_table_ends_in_shutdown() {
        let mut machine = Machine::real();
        machine.cpu.idtr.limit = 0;
        let event = Event::Exception { vector: vector::UD, error_code: None, payload: 0 };
        assert_eq!(machine.with(|cpu, env| cpu.deliver(env, event)), Err(Err(Shutdown)));
    }
}
