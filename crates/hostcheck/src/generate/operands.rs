//! An instance of an encoding: registers, immediates and memory drawn for each of its operands.

use iced_x86::{Code, Instruction, MemorySize, OpCodeInfo, OpCodeOperandKind as K, OpKind, Register};

use super::memory;
use super::tracker::Tracker;
use crate::case::Mode;
use crate::random::Random;

/// What operands are drawn with.
struct Draw<'a> {
    random: &'a mut Random,
    mode: Mode,
    tracker: &'a Tracker,
    op: &'static OpCodeInfo,
    plain: bool,
}

/// An instruction; none if what was drawn does not go together.
pub fn instruction(random: &mut Random, code: Code, mode: Mode, tracker: &Tracker, plain: bool) -> Option<Instruction> {
    let mut draw = Draw { random, mode, tracker, op: code.op_code(), plain };
    let mut instr = Instruction::default();
    instr.set_code(code);
    for (i, &kind) in draw.op.op_kinds().iter().enumerate() {
        draw.operand(&mut instr, i as u32, kind)?;
    }
    draw.prefixes(&mut instr);
    Some(instr)
}

impl Draw<'_> {
    fn operand(&mut self, instr: &mut Instruction, i: u32, kind: K) -> Option<()> {
        if let Some(register) = self.register(kind) {
            instr.set_op_kind(i, OpKind::Register);
            instr.set_op_register(i, register);
            return Some(());
        }
        match kind {
            K::mem
            | K::mem_mib
            | K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem => self.memory(instr, i),
            K::mem_vsib32x | K::mem_vsib64x => self.vsib(instr, i, Register::XMM0),
            K::mem_vsib32y | K::mem_vsib64y => self.vsib(instr, i, Register::YMM0),
            K::mem_offs => {
                let target = memory::target(self.random, self.size(), self.plain);
                let (size, mask) = if self.mode == Mode::Long64 { (8, u64::MAX) } else { (4, 0xFFFF_FFFF) };
                instr.set_op_kind(i, OpKind::Memory);
                instr.set_memory_displacement64(target & mask);
                instr.set_memory_displ_size(size);
                Some(())
            }
            K::seg_rSI | K::es_rDI | K::seg_rDI => {
                instr.set_op_kind(i, self.string_operand(kind));
                Some(())
            }
            K::seg_rBX_al => {
                let (base, index) = if self.mode == Mode::Long64 {
                    (Register::RBX, Register::AL)
                } else {
                    (Register::EBX, Register::AL)
                };
                instr.set_op_kind(i, OpKind::Memory);
                instr.set_memory_base(base);
                instr.set_memory_index(index);
                Some(())
            }
            _ => self.immediate(instr, i, kind),
        }
    }

    /// Bytes of the memory operand.
    fn size(&self) -> u64 {
        match self.op.memory_size() {
            MemorySize::Unknown => 8,
            size => size.size() as u64,
        }
    }

    fn memory(&mut self, instr: &mut Instruction, i: u32) -> Option<()> {
        let target = memory::target(self.random, self.size(), self.plain);
        instr.set_op_kind(i, OpKind::Memory);
        memory::address(self.random, instr, target, self.mode, self.tracker).then_some(())
    }

    /// Gathers: the base is what must be known.
    fn vsib(&mut self, instr: &mut Instruction, i: u32, first: Register) -> Option<()> {
        let count = self.count();
        let base = self.random.below(count) as usize;
        let target = memory::target(self.random, 8, self.plain);
        let displacement = target.wrapping_sub(self.tracker.value(base)?);
        let long = self.mode == Mode::Long64;
        if long && displacement as i64 != i64::from(displacement as i32) {
            return None;
        }
        instr.set_op_kind(i, OpKind::Memory);
        instr.set_memory_base(memory::general(base, if long { 8 } else { 4 }));
        instr.set_memory_index(first + self.random.below(count) as u32);
        instr.set_memory_index_scale(1 << self.random.below(4));
        instr.set_memory_displacement64(if long { displacement } else { displacement & 0xFFFF_FFFF });
        instr.set_memory_displ_size(1);
        Some(())
    }

    fn string_operand(&mut self, kind: K) -> OpKind {
        // The other address size comes by recipe, for both operands of an instruction alike.
        let long = self.mode == Mode::Long64;
        match (kind, long) {
            (K::seg_rSI, true) => OpKind::MemorySegRSI,
            (K::seg_rSI, false) => OpKind::MemorySegESI,
            (K::es_rDI, true) => OpKind::MemoryESRDI,
            (K::es_rDI, false) => OpKind::MemoryESEDI,
            (_, true) => OpKind::MemorySegRDI,
            (_, false) => OpKind::MemorySegEDI,
        }
    }

    /// Registers of a file that the mode can name.
    fn count(&self) -> u64 {
        if self.mode == Mode::Long64 { 16 } else { 8 }
    }

    fn general(&mut self, size: u32) -> Register {
        let count = self.count();
        // RSP is left alone: the stack must stay where it is known to be.
        loop {
            let number = self.random.below(count) as usize;
            if number != 4 {
                return memory::general(number, size);
            }
        }
    }

    fn byte(&mut self) -> Register {
        let long = self.mode == Mode::Long64;
        let names = if long { 19 } else { 8 };
        loop {
            // AL…BH, then SPL…R15L.
            let register = Register::AL + self.random.below(names) as u32;
            if register != Register::SPL {
                return register;
            }
        }
    }

    fn file(&mut self, first: Register, count: u64) -> Register {
        first + self.random.below(count) as u32
    }

    /// The register of an operand that is one, or that is drawn to be one.
    fn register(&mut self, kind: K) -> Option<Register> {
        let vectors = self.count();
        let on_register = self.plain || self.random.percent(55);
        Some(match kind {
            K::r8_or_mem
            | K::r16_or_mem
            | K::r32_or_mem
            | K::r64_or_mem
            | K::mm_or_mem
            | K::xmm_or_mem
            | K::ymm_or_mem
                if !on_register =>
            {
                return None;
            }
            K::r8_or_mem | K::r8_reg | K::r8_opcode => self.byte(),
            K::r16_or_mem | K::r16_reg | K::r16_rm | K::r16_opcode => self.general(2),
            K::r32_or_mem | K::r32_reg | K::r32_rm | K::r32_opcode | K::r32_vvvv => self.general(4),
            K::r64_or_mem | K::r64_reg | K::r64_rm | K::r64_opcode | K::r64_vvvv => self.general(8),
            K::mm_or_mem | K::mm_reg | K::mm_rm => self.file(Register::MM0, 8),
            K::xmm_or_mem | K::xmm_reg | K::xmm_rm | K::xmm_vvvv | K::xmm_is4 | K::xmm_is5 => {
                self.file(Register::XMM0, vectors)
            }
            K::ymm_or_mem | K::ymm_reg | K::ymm_rm | K::ymm_vvvv | K::ymm_is4 | K::ymm_is5 => {
                self.file(Register::YMM0, vectors)
            }
            K::seg_reg => self.file(Register::ES, 6),
            K::es => Register::ES,
            K::cs => Register::CS,
            K::ss => Register::SS,
            K::ds => Register::DS,
            K::fs => Register::FS,
            K::gs => Register::GS,
            K::al => Register::AL,
            K::cl => Register::CL,
            K::ax => Register::AX,
            K::dx => Register::DX,
            K::eax => Register::EAX,
            K::rax => Register::RAX,
            K::st0 => Register::ST0,
            K::sti_opcode => self.file(Register::ST0, 8),
            _ => return None,
        })
    }

    fn immediate(&mut self, instr: &mut Instruction, i: u32, kind: K) -> Option<()> {
        let value = self.random.integer();
        let small = if self.random.percent(50) { self.random.below(72) } else { value } as u8;
        match kind {
            K::imm8 => {
                // ENTER and EXTRQ have two.
                let first = [OpKind::Immediate16, OpKind::Immediate8];
                if instr.op_kinds().take(i as usize).any(|kind| first.contains(&kind)) {
                    instr.set_op_kind(i, OpKind::Immediate8_2nd);
                    instr.set_immediate8_2nd(small);
                } else {
                    instr.set_op_kind(i, OpKind::Immediate8);
                    instr.set_immediate8(small);
                }
            }
            K::imm4_m2z => {
                instr.set_op_kind(i, OpKind::Immediate8);
                instr.set_immediate8(small & 3);
            }
            K::imm8_const_1 => {
                instr.set_op_kind(i, OpKind::Immediate8);
                instr.set_immediate8(1);
            }
            K::imm8sex16 => {
                instr.set_op_kind(i, OpKind::Immediate8to16);
                instr.set_immediate8to16((value as i8).into());
            }
            K::imm8sex32 => {
                instr.set_op_kind(i, OpKind::Immediate8to32);
                instr.set_immediate8to32((value as i8).into());
            }
            K::imm8sex64 => {
                instr.set_op_kind(i, OpKind::Immediate8to64);
                instr.set_immediate8to64((value as i8).into());
            }
            K::imm16 => {
                instr.set_op_kind(i, OpKind::Immediate16);
                instr.set_immediate16(value as u16);
            }
            K::imm32 => {
                instr.set_op_kind(i, OpKind::Immediate32);
                instr.set_immediate32(value as u32);
            }
            K::imm32sex64 => {
                instr.set_op_kind(i, OpKind::Immediate32to64);
                instr.set_immediate32to64((value as i32).into());
            }
            K::imm64 => {
                instr.set_op_kind(i, OpKind::Immediate64);
                instr.set_immediate64(value);
            }
            _ => return None,
        }
        Some(())
    }

    fn prefixes(&mut self, instr: &mut Instruction) {
        if self.plain {
            return;
        }
        if self.op.can_use_lock_prefix() && instr.op0_kind() == OpKind::Memory && self.random.percent(15) {
            instr.set_has_lock_prefix(true);
        }
        if self.op.can_use_rep_prefix() && self.random.percent(40) {
            instr.set_has_rep_prefix(true);
        } else if self.op.can_use_repne_prefix() && self.random.percent(40) {
            instr.set_has_repne_prefix(true);
        }
    }
}
