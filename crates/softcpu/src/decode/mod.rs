//! From bytes to ops.

mod system_table;

use crate::cpu::CodeMode;
use crate::features::Features;
use crate::op::Op;

/// Why decoding of a block ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The last op ends the block (branch), or the most ops are decoded.
    Complete,
    /// The last op must run by itself; it is the only one.
    Alone,
    /// The bytes end within the next instruction; ops before it are complete. No op at all: the first one does not fit.
    Short,
}

/// The most ops of a block.
pub const MAX_BLOCK_OPS: usize = 64;

/// Decode the block that starts with `bytes` (which end where the page does) into `ops`, which is empty.
pub fn decode_block(_bytes: &[u8], _rip: u64, _mode: CodeMode, _features: &Features, _ops: &mut Vec<Op>) -> End {
    End::Short
}
