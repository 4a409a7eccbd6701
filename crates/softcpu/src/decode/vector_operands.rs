//! From a vector instruction's operands to the fields of an op.

use iced_x86::{EncodingKind, Mnemonic, OpKind, Register};

use super::operands::{Operands, slot};
use crate::exec::form::Place;
use crate::vector::encoding::Encoded;
use crate::vector::moves::Direction;

/// A vector instruction on its way to an op.
pub struct VectorOperands<'o, 'i> {
    /// The instruction and its op.
    pub operands: &'o mut Operands<'i>,
    /// How it is encoded.
    pub encoded: Encoded,
}

impl<'o, 'i> VectorOperands<'o, 'i> {
    /// Look at an instruction; `None` if it has neither a vector or MMX register as operand nor a VEX prefix, nor
    /// does without in spite of being a vector instruction.
    pub fn new(operands: &'o mut Operands<'i>) -> Option<Self> {
        let instr = operands.instr;
        let vex = instr.encoding() == EncodingKind::VEX;
        let registers = || (0..instr.op_count()).filter_map(|i| register(operands, i));
        let wide = registers().any(Register::is_ymm) || instr.memory_size().size() == 32;
        if !vex
            && !names_no_vector(instr.mnemonic())
            && !registers().any(|register| register.is_xmm() || register.is_mm())
        {
            return None;
        }
        let encoded = match (vex, wide) {
            (false, _) => Encoded::Legacy,
            (true, false) => Encoded::Vex128,
            (true, true) => Encoded::Vex256,
        };
        Some(Self { operands, encoded })
    }

    /// The instruction's name; with VEX it begins with V.
    pub fn mnemonic(&self) -> Mnemonic {
        self.operands.instr.mnemonic()
    }

    /// Whether it works on MMX registers only.
    pub fn is_mmx(&self) -> bool {
        let registers = || (0..self.operands.instr.op_count()).filter_map(|i| register(self.operands, i));
        registers().any(Register::is_mm) && !registers().any(Register::is_xmm)
    }

    /// The number of register operand `i`, a vector register, an MMX register or a general one.
    pub fn register(&self, i: u32) -> u8 {
        match register(self.operands, i) {
            Some(register) if register.is_vector_register() || register.is_mm() => register.number() as u8,
            Some(register) => slot(register),
            None => 0,
        }
    }

    /// Whether operand `i` is in memory.
    pub fn is_memory(&self, i: u32) -> bool {
        self.operands.instr.op_kind(i) == OpKind::Memory
    }

    /// Operand `i`, which is the r/m operand and only read: a register goes to `src`.
    pub fn source(&mut self, i: u32) -> Place {
        if self.is_memory(i) {
            return Place::Memory(self.operands.kind());
        }
        self.operands.op.src = self.register(i);
        Place::Register
    }

    /// A destination and two sources (with VEX the first source may be another register than the destination), and an
    /// immediate byte if there is one behind them. With two operands only, the destination is the first source.
    pub fn sources(&mut self) -> Place {
        let instr = self.operands.instr;
        let registers = (0..instr.op_count()).take_while(|&i| !is_immediate(instr.op_kind(i))).count() as u32;
        self.operands.op.dst = self.register(0);
        self.operands.op.extra = self.register(if registers == 3 { 1 } else { 0 });
        self.operands.op.size = self.size();
        self.immediate();
        self.source(registers - 1)
    }

    /// A destination and two sources as [`VectorOperands::sources`], and the number of the third source as immediate: a register
    /// named by VEX.is4, or XMM0.
    pub fn three_sources(&mut self) -> Place {
        let four = self.operands.instr.op_count() == 4;
        self.operands.op.dst = self.register(0);
        self.operands.op.extra = self.register(if four { 1 } else { 0 });
        self.operands.op.size = self.size();
        self.operands.op.imm = if four { self.register(3).into() } else { 0 };
        self.source(if four { 2 } else { 1 })
    }

    /// Operand 0, which is the r/m operand and only written, and operand 1, a register that is read; an immediate byte if there
    /// is one.
    pub fn target(&mut self) -> Place {
        self.operands.op.src = self.register(1);
        self.immediate();
        if self.is_memory(0) {
            return Place::Memory(self.operands.kind());
        }
        self.operands.op.dst = self.register(0);
        Place::Register
    }

    /// Bytes of the memory operand; 0 if there is none.
    pub fn size(&self) -> u8 {
        self.operands.instr.memory_size().size() as u8
    }

    /// Whether the last operand is an immediate byte.
    pub fn has_immediate(&self) -> bool {
        self.operands
            .instr
            .op_count()
            .checked_sub(1)
            .is_some_and(|last| is_immediate(self.operands.instr.op_kind(last)))
    }

    /// Whether operand `i` is a general register.
    pub fn is_general(&self, i: u32) -> bool {
        register(self.operands, i).is_some_and(Register::is_gpr)
    }

    /// The immediate byte, if the last operand is one.
    pub fn immediate(&mut self) {
        if self.has_immediate() {
            self.operands.op.imm = self.operands.instr.immediate(self.operands.instr.op_count() - 1) & 0xFF;
        }
    }

    /// The operands of a move between a vector register and another or memory.
    pub fn direction(&mut self) -> Direction {
        if self.is_memory(0) {
            self.operands.op.src = self.register(1);
            return Direction::Store(self.operands.kind());
        }
        self.operands.op.dst = self.register(0);
        match self.source(1) {
            Place::Register => Direction::Between,
            Place::Memory(kind) => Direction::Load(kind),
        }
    }
}

/// Vector instructions that may have no vector register as operand.
fn names_no_vector(mnemonic: Mnemonic) -> bool {
    use Mnemonic as M;
    matches!(mnemonic, M::Ldmxcsr | M::Stmxcsr | M::Cvtss2si | M::Cvtsd2si | M::Cvttss2si | M::Cvttsd2si)
}

fn register(operands: &Operands<'_>, i: u32) -> Option<Register> {
    operands.is_register(i).then(|| operands.instr.op_register(i))
}

fn is_immediate(kind: OpKind) -> bool {
    matches!(kind, OpKind::Immediate8 | OpKind::Immediate8_2nd)
}
