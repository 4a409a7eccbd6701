//! From bytes to ops.
//!
//! A block is cached by where its bytes are, not by the address that it runs at. So everything that depends on that address is
//! kept relative to the start of the block: instructions are decoded as if it were 0.

mod features;
mod operands;
mod select;
mod system_table;
mod vector_float;
mod vector_integer;
mod vector_moves;
mod vector_operands;
mod x87;
mod xstate;

use iced_x86::{Decoder, DecoderError, Instruction};

use crate::cpu::CodeMode;
use crate::exec::misc;
use crate::features::Features;
use crate::op::Op;
use select::Behind;

/// Why decoding of a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last op ends the block (branch), or the most ops are decoded.
    Complete,
    /// The last op must run by itself; it is the only one.
    Alone,
    /// Likewise, but it concerns the vCPU alone.
    Private,
    /// The bytes end within the next instruction; ops before it are complete. No op at all: the first one does not fit.
    Short,
}

/// The most ops of a block.
pub const MAX_BLOCK_OPS: usize = 64;
/// The most bytes of an instruction.
const MAX_LENGTH: usize = 15;

/// Decode the block that starts with `bytes` (which end where the page does) into `ops`, which is empty.
pub fn decode_block(bytes: &[u8], mode: CodeMode, features: &Features, ops: &mut Vec<Op>) -> End {
    let options = features::decoder_options(features);
    let mut decoder = Decoder::with_ip(mode.bits(), bytes, 0, options);
    let (mut instr, mut previous) = (Instruction::default(), Instruction::default());
    while ops.len() < MAX_BLOCK_OPS {
        let at = decoder.position();
        decoder.decode_out(&mut instr);
        let end = (at + instr.len()).min(bytes.len());
        let (op, behind) = if !instr.is_invalid() && features::is_announced(&instr, features) {
            select::select(&instr, &bytes[at..end], at as u16, mode)
        } else if let Some(op) = system_table::prefixed_hypercall(&bytes[at..], mode) {
            (Op { at: at as u16, ..op }, Behind::Alone)
        } else if instr.is_invalid() && is_cut_off(&decoder, &instr, &bytes[at..], mode, options) {
            return End::Short;
        } else {
            (Op { at: at as u16, len: instr.len() as u8, ..Op::new(misc::ud) }, Behind::Alone)
        };
        if matches!(behind, Behind::Alone | Behind::Private) && !ops.is_empty() {
            return End::Complete;
        }
        if behind == Behind::End
            && let Some(comparison) = ops.last_mut()
            && let Some(thread) = select::fuse(&previous, &bytes[usize::from(comparison.at)..at], &instr, mode)
        {
            comparison.thread = thread;
        }
        std::mem::swap(&mut previous, &mut instr);
        ops.push(op);
        match behind {
            Behind::Next => {}
            Behind::End => return End::Complete,
            Behind::Alone => return End::Alone,
            Behind::Private => return End::Private,
        }
    }
    End::Complete
}

/// Whether the bytes end before the instruction does, or it is too long to be one. `bytes` begin with the instruction.
fn is_cut_off(decoder: &Decoder<'_>, instr: &Instruction, bytes: &[u8], mode: CodeMode, options: u32) -> bool {
    if decoder.last_error() == DecoderError::NoMoreBytes {
        return true;
    }
    // Too long, or an undefined instruction of just 15 bytes? That long it begins with prefixes; without the first of them
    // only a too long one still reaches the limit. (An undefined opcode is taken to have a ModRM byte.)
    if instr.len() < MAX_LENGTH || bytes.len() < MAX_LENGTH {
        return false;
    }
    let rest = &bytes[1..bytes.len().min(MAX_LENGTH + 1)];
    let mut shorter = Decoder::with_ip(mode.bits(), rest, 0, options);
    let instr = shorter.decode();
    shorter.last_error() == DecoderError::NoMoreBytes || instr.len() >= MAX_LENGTH
}
