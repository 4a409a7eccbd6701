//! From an instruction's operands to the fields of an op.

use iced_x86::{Instruction, OpKind, Register};

use crate::cpu::CodeMode;
use crate::exec::form::{Form, Kind, Place};
use crate::exec::misc;
use crate::op::{BLOCK_RIP, HIGH_BYTES, Handler, Op, Threaded, ZERO};
use crate::segment::{CS, DS, ES, FS, GS, SS};

/// An instruction on its way to an op.
pub struct Operands<'a> {
    /// The instruction; its addresses are counted from the start of the block.
    pub instr: &'a Instruction,
    /// The mode it is decoded in.
    pub mode: CodeMode,
    /// The instruction has a REX prefix with W set, whether or not it takes it.
    pub rex_w: bool,
    /// What has been found so far.
    pub op: Op,
}

impl<'a> Operands<'a> {
    /// Begin an op. `bytes` are those of the instruction, `at` is its place in the block.
    pub fn new(instr: &'a Instruction, bytes: &[u8], at: u16, mode: CodeMode) -> Self {
        let mut op = Op::new(misc::ud);
        op.at = at;
        op.len = instr.len() as u8;
        op.address = address_size(bytes, mode);
        let mut operands = Self { instr, mode, rex_w: has_rex_w(bytes, mode), op };
        if (0..instr.op_count()).any(|i| instr.op_kind(i) == OpKind::Memory) {
            operands.memory();
        }
        operands
    }

    /// Take a handler that has a thread of its own.
    pub fn threaded(&mut self, handler: Threaded) -> Handler {
        self.op.thread = handler.thread;
        handler.run
    }

    /// Fill in the memory operand.
    fn memory(&mut self) {
        let instr = self.instr;
        self.op.disp = instr.memory_displacement64() as i64;
        self.op.base = match instr.memory_base() {
            Register::None => ZERO,
            // The displacement already counts from the start of the block.
            Register::RIP | Register::EIP => BLOCK_RIP,
            register => slot(register),
        };
        if instr.memory_index() != Register::None {
            self.op.index = slot(instr.memory_index());
        }
        self.op.scale = instr.memory_index_scale().trailing_zeros() as u8;
        self.op.seg = memory_segment(instr, self.mode);
    }

    /// The address kind of the memory operand.
    pub fn kind(&self) -> Kind {
        let seg = self.op.seg;
        if self.mode.is_64() {
            match (self.op.address, seg < FS) {
                (8, true) => Kind::Flat64,
                (8, false) => Kind::Based64,
                _ => Kind::Segmented,
            }
        } else if self.op.address == 4 && self.mode.flat_data() && matches!(seg, ES | SS | DS) {
            Kind::Flat32
        } else {
            Kind::Segmented
        }
    }

    /// Whether operand `i` is a register.
    pub fn is_register(&self, i: u32) -> bool {
        self.instr.op_kind(i) == OpKind::Register
    }

    /// The slot of register operand `i`.
    pub fn register(&self, i: u32) -> u8 {
        slot(self.instr.op_register(i))
    }

    /// Size in bytes of operand `i`, a register or the memory operand.
    pub fn size_of(&self, i: u32) -> u8 {
        let bytes = match self.instr.op_kind(i) {
            OpKind::Register => self.instr.op_register(i).size(),
            _ => self.instr.memory_size().size(),
        };
        bytes as u8
    }

    /// An operand that is written, or read and written: a register goes to `dst`. Its size becomes the operand size.
    pub fn target(&mut self) -> Place {
        self.op.size = self.size_of(0);
        if self.is_register(0) {
            self.op.dst = self.register(0);
            Place::Register
        } else {
            Place::Memory(self.kind())
        }
    }

    /// Operand `i`, which is only read: a register goes to `src`.
    pub fn source(&mut self, i: u32) -> Place {
        if self.is_register(i) {
            self.op.src = self.register(i);
            Place::Register
        } else {
            Place::Memory(self.kind())
        }
    }

    /// Operand 1 as source of a register destination in operand 0, whose size becomes the operand size.
    pub fn load(&mut self) -> Place {
        self.target();
        self.source(1)
    }

    /// Two operands of the same size.
    pub fn two(&mut self) -> Form {
        let target = self.target();
        match (target, self.instr.op_kind(1)) {
            (Place::Register, OpKind::Register) => {
                self.op.src = self.register(1);
                Form::RegReg
            }
            (Place::Memory(kind), OpKind::Register) => {
                self.op.src = self.register(1);
                Form::MemReg(kind)
            }
            (Place::Register, OpKind::Memory) => Form::RegMem(self.kind()),
            (Place::Register, _) => {
                self.op.imm = self.instr.immediate(1);
                Form::RegImm
            }
            (Place::Memory(kind), _) => {
                self.op.imm = self.instr.immediate(1);
                Form::MemImm(kind)
            }
        }
    }

    /// How the stack is reached.
    pub fn stack(&self) -> Kind {
        if self.mode.is_64() {
            Kind::Flat64
        } else if self.mode.flat_data() && self.mode.stack_bits() == 32 {
            Kind::Flat32
        } else {
            Kind::Segmented
        }
    }

    /// How RIP moves in a near transfer of the current operand size.
    pub fn near(&self) -> Kind {
        match (self.mode.bits(), self.op.size) {
            (64, 8) => Kind::Flat64,
            (32, 4) if self.mode.flat_code() => Kind::Flat32,
            _ => Kind::Segmented,
        }
    }

    /// Both: flat only if both are.
    pub fn call(&self) -> Kind {
        if self.near() == self.stack() { self.near() } else { Kind::Segmented }
    }

    /// A direct branch: operand size, and the distances to its target and to the next instruction.
    pub fn branch(&mut self) {
        self.op.size = match self.instr.op_kind(0) {
            OpKind::NearBranch16 => 2,
            OpKind::NearBranch32 => 4,
            _ => 8,
        };
        self.op.imm = self.instr.near_branch_target();
        self.op.disp = i64::from(self.op.at) + i64::from(self.op.len);
    }
}

/// Whether the last prefix is a REX with W set.
fn has_rex_w(bytes: &[u8], mode: CodeMode) -> bool {
    let last = bytes.iter().take_while(|&&byte| is_prefix(byte, mode)).last();
    mode.is_64() && last.is_some_and(|byte| matches!(byte, 0x48..=0x4F))
}

/// The address size in bytes: the mode's own, or the other one with the prefix 67.
fn address_size(bytes: &[u8], mode: CodeMode) -> u8 {
    let overridden = bytes.iter().take_while(|&&byte| is_prefix(byte, mode)).any(|&byte| byte == 0x67);
    match (mode.bits(), overridden) {
        (64, false) => 8,
        (64, true) | (32, false) | (16, true) => 4,
        _ => 2,
    }
}

/// An instruction's bytes from its opcode on.
pub fn behind_prefixes(bytes: &[u8], mode: CodeMode) -> &[u8] {
    &bytes[bytes.iter().take_while(|&&byte| is_prefix(byte, mode)).count()..]
}

fn is_prefix(byte: u8, mode: CodeMode) -> bool {
    matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67 | 0xF0 | 0xF2 | 0xF3)
        || (mode.is_64() && matches!(byte, 0x40..=0x4F))
}

/// The slot of a general register of any width.
pub fn slot(register: Register) -> u8 {
    match register {
        Register::AH => HIGH_BYTES,
        Register::CH => HIGH_BYTES + 1,
        Register::DH => HIGH_BYTES + 2,
        Register::BH => HIGH_BYTES + 3,
        register if register.is_gpr() => register.full_register().number() as u8,
        _ => ZERO,
    }
}

/// The segment of a memory operand. In 64-bit mode prefixes other than FS and GS are ignored (SDM vol. 1 section 3.3.7), also where
/// they would make #SS of #GP.
pub fn memory_segment(instr: &Instruction, mode: CodeMode) -> u8 {
    match instr.memory_segment() {
        register @ (Register::FS | Register::GS) => segment(register),
        register if !mode.is_64() => segment(register),
        _ => match instr.memory_base() {
            Register::RSP | Register::ESP | Register::RBP | Register::EBP => SS,
            _ => DS,
        },
    }
}

/// The number of a segment register.
pub fn segment(register: Register) -> u8 {
    match register {
        Register::ES => ES,
        Register::CS => CS,
        Register::SS => SS,
        Register::FS => FS,
        Register::GS => GS,
        _ => DS,
    }
}
