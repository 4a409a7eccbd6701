//! What an instruction leaves behind: pointers, exception flags, and whether it has a result. SDM vol. 1 sections 8.4, 8.5.

use softfloat::{Context, X80, flag};
use x86defs::cpuid;

use super::state::{Pointer, STACK_FAULT};
use crate::cpu::Cpu;
use crate::exec::addr;
use crate::op::{BLOCK_RIP, Op, slot};
use crate::segment::CS;

/// The answer to a masked invalid operation.
pub const INDEFINITE: X80 = X80::new(0xFFFF, 0xC000_0000_0000_0000);
/// Exceptions that leave the destination alone if it is in memory and they are not masked: SDM vol. 1 sections 8.5.4 and 8.5.5.
const NO_STORE: u8 = flag::BEFORE | flag::OE | flag::UE;

/// What goes wrong with the register stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StackFault {
    /// A push onto a register that is not empty.
    Overflow,
    /// A register is needed that is empty.
    Underflow,
}

impl Cpu {
    /// What operations are told by FCW.
    #[inline]
    pub(super) fn x87_context(&self) -> Context {
        Context::from_fcw(self.fpu.control())
    }

    /// Remember where this instruction is. All but control instructions do, once nothing can fault any more.
    #[inline]
    pub(super) fn note_x87(&mut self, op: &Op) {
        let offset = self.wrap(self.regs[slot(BLOCK_RIP)].wrapping_add(op.at.into()));
        self.fpu.instruction = Pointer { offset, selector: self.seg(CS).selector };
        if self.features.amd {
            self.fpu.set_opcode(op.imm as u16);
        }
    }

    /// Remember where its memory operand is.
    #[inline]
    pub(super) fn note_x87_operand(&mut self, op: &Op) {
        if self.features.l7_ebx & cpuid::L7_EBX_FDP_EXCPTN_ONLY == 0 {
            self.fpu.data = operand_pointer(self, op);
        }
    }

    /// Raise flags of FSW, and remember what Intel's CPUs remember of the instruction only if an exception is not masked: FOP (SDM
    /// vol. 1 section 8.1.9.1), and FDP if CPUID says so (section 8.1.8).
    #[inline]
    fn raise_x87(&mut self, op: &Op, flags: u16) {
        if flags != 0 {
            self.fpu.raise(flags);
            if self.fpu.pending() {
                self.note_x87_error(op);
            }
        }
    }

    #[cold]
    fn note_x87_error(&mut self, op: &Op) {
        self.fpu.set_opcode(op.imm as u16);
        if op.extra & super::memory::OPERAND != 0 {
            self.fpu.data = operand_pointer(self, op);
        }
    }

    /// An operation on registers is done: raise what it raised. False: an exception that is not masked was found before
    /// anything was computed, so that there is no result.
    #[inline]
    pub(super) fn settle_x87(&mut self, op: &Op, cx: &Context) -> bool {
        self.note_x87(op);
        self.settle_flags(op, cx, flag::BEFORE)
    }

    /// As [`Cpu::settle_x87`], for a result that goes to memory.
    #[inline]
    pub(super) fn settle_x87_store(&mut self, op: &Op, cx: &Context) {
        self.note_x87(op);
        self.note_x87_operand(op);
        self.settle_flags(op, cx, NO_STORE);
    }

    #[inline]
    fn settle_flags(&mut self, op: &Op, cx: &Context, preventing: u8) -> bool {
        let result = cx.unmasked() & preventing == 0;
        // What prevents a result is found before it is known whether it is exact.
        let flags = match cx.unmasked() & preventing {
            0 => cx.flags,
            prevented if prevented & flag::BEFORE != 0 => cx.flags & flag::BEFORE,
            _ => cx.flags & !flag::PE,
        };
        self.fpu.set_c1(cx.rounded_up && result);
        self.raise_x87(op, flags.into());
        result
    }

    /// The stack overflows or underflows. True: that is masked, and the result is [`INDEFINITE`].
    #[cold]
    pub(super) fn x87_stack_fault(&mut self, op: &Op, fault: StackFault) -> bool {
        self.note_x87(op);
        self.fpu.set_c1(fault == StackFault::Overflow);
        self.raise_x87(op, u16::from(flag::IE) | STACK_FAULT);
        self.fpu.control() & u16::from(flag::IE) != 0
    }
}

/// Whether a result may be stored in memory.
pub fn is_stored(cx: &Context) -> bool {
    cx.unmasked() & NO_STORE == 0
}

fn operand_pointer(cpu: &Cpu, op: &Op) -> Pointer {
    Pointer { offset: addr::effective(cpu, op), selector: cpu.seg(op.seg).selector }
}
