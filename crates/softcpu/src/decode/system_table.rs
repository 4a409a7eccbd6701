//! Instructions whose handlers live outside [`crate::exec`]: the system's, far transfers, system calls. All stand alone.
//!
//! What their ops hold, besides `size` (operand size in bytes) and `address` (address size in bytes):
//!
//! | instructions | operands |
//! |---|---|
//! | with a memory operand only (LGDT, INVLPG, JMP FAR m, CMPXCHG ...) | `base`, `index`, `scale`, `disp`, `seg`: see [`crate::exec::addr`] |
//! | with an r/m operand (SLDT, LTR, VERR, LAR's source, MOV Sreg ...) | `extra` & 1 (MOV Sreg: `imm`) is 1: register in `src`; 0: memory operand |
//! | SLDT, STR, SMSW, MOV from Sreg | the r/m operand is written; a register is in `dst` |
//! | LAR, LSL | destination register in `dst`, r/m source |
//! | LMSW, SMSW | `*_reg`, `*_mem` |
//! | MOV CR, MOV DR | general register in `dst` (read from CR) or `src` (written to CR), number of the CR or DR in `extra` |
//! | INVPCID | type register in `dst`, descriptor in memory |
//! | ARPL | r/m destination (register in `dst`), source register in `src` |
//! | IN, OUT | port in `imm` if `src` is [`crate::op::ZERO`], otherwise in DX; `extra` and `size`: bytes |
//! | INS, OUTS | `extra`: 1 with a repeat prefix; `size`: bytes; `seg`: source segment of OUTS |
//! | INT n | vector in `imm` |
//! | JMP FAR ptr, CALL FAR ptr | offset in `imm`, selector in `disp` |
//! | RET FAR | bytes to release in `imm` |
//! | LDS, LES, LSS, LFS, LGS | segment register in `extra`, general register in `dst`, pointer in memory |
//! | MOV Sreg, PUSH Sreg, POP Sreg | segment register in `extra` |
//! | RDFSBASE ... WRGSBASE | register in `dst` (read) or `src` (written); `extra` bit 0: GS, bit 1: write |
//! | RDPID | `dst` |
//!
//! Registers are slots of [`crate::Cpu::regs`], read and written through [`crate::op::Width`].

use super::operands::Operands;
use crate::op::Handler;

/// The handler, with the operands that it expects filled in.
pub fn select(_o: &mut Operands<'_>) -> Option<Handler> {
    None
}
