//! What is run, and what came of it.

use crate::layout::CODE;
use crate::xsave::Xsave;

/// How wide code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 64-bit mode.
    Long64,
    /// 32-bit code in long mode.
    Compat32,
}

impl Mode {
    /// Bits of code and addresses.
    pub fn bits(self) -> u32 {
        match self {
            Self::Long64 => 64,
            Self::Compat32 => 32,
        }
    }
}

/// Registers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// General registers, in the order of their numbers.
    pub regs: [u64; 16],
    /// RIP.
    pub rip: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// x87, SSE and AVX.
    pub xsave: Xsave,
}

/// One instruction of a sequence, or a few that belong together.
#[derive(Clone, Debug)]
pub struct Item {
    /// Offset of its first byte in the code.
    pub start: usize,
    /// Offset behind it.
    pub end: usize,
    /// Arithmetic flags of RFLAGS that the manual leaves undefined before it.
    pub undefined_flags: u64,
    /// C0–C3 of the x87 status word, likewise.
    pub undefined_conditions: u16,
    /// An instruction before it computes something that CPUs need not agree on to the last bit.
    pub approximate: bool,
    /// It loads or stores more than a vector.
    pub large_operand: bool,
    /// It loads two operands in an order of the CPU's choice, so that either may fault first.
    pub unordered: bool,
}

/// One generated sequence with its inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// Width of code.
    pub mode: Mode,
    /// State at the first instruction.
    pub state: State,
    /// Contents of the writable scratch pages.
    pub memory: Vec<u8>,
    /// Machine code.
    pub code: Vec<u8>,
    /// Its instructions, and one of length zero at its end.
    pub items: Vec<Item>,
    /// The guest executes one instruction at a time instead of blocks.
    pub stepped: bool,
}

impl Case {
    /// The case cut off behind `count` instructions.
    pub fn prefix(&self, count: usize) -> Self {
        let end = self.items[count].start;
        let mut items = self.items[..=count].to_vec();
        items[count].end = end;
        Self { code: self.code[..end].to_vec(), items, ..self.clone() }
    }

    /// Number of instructions.
    pub fn len(&self) -> usize {
        self.items.len() - 1
    }

    /// Whether there is no instruction.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The item that RIP is at or in; the empty one at the end for whatever is behind.
    pub fn item_at(&self, rip: u64) -> &Item {
        let offset = rip.wrapping_sub(self.state.rip) as usize;
        let found = self.items.iter().find(|item| (item.start..item.end).contains(&offset));
        found.unwrap_or(&self.items[self.len()])
    }

    /// Offset of the code in its pages.
    pub fn code_offset(&self) -> usize {
        (self.state.rip - CODE) as usize
    }

    /// RIP behind the last instruction.
    pub fn end(&self) -> u64 {
        self.state.rip + self.code.len() as u64
    }
}

/// An exception that ended a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector.
    pub vector: u8,
    /// Error code, if the vector has one.
    pub error_code: Option<u32>,
    /// CR2 of a page fault.
    pub address: Option<u64>,
}

impl Exception {
    /// With what does not belong to the vector left out.
    pub fn new(vector: u8, error_code: u32, address: u64) -> Self {
        const WITH_ERROR_CODE: [u8; 8] = [8, 10, 11, 12, 13, 14, 17, 21];
        Self {
            vector,
            error_code: WITH_ERROR_CODE.contains(&vector).then_some(error_code),
            address: (vector == x86defs::vector::PF).then_some(address),
        }
    }
}

/// What came of a case.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The exception that ended it; none if it ran to its end.
    pub exception: Option<Exception>,
    /// State at the end.
    pub state: State,
    /// Writable memory at the end.
    pub memory: Vec<u8>,
}
