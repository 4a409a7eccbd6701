//! Transfers that load CS: far JMP, CALL, RET, IRET, and interrupts that software makes.
//!
//! Every one of them computes all that it will change before it changes anything, so that a fault in the middle leaves the
//! registers as they were.

mod call;
mod code;
mod interrupt;
mod iret;
mod jump;
mod ret;
mod stack;
mod task;

pub use crate::segment::{load_far_pointer, mov_from_seg, mov_to_seg, pop_seg, push_seg};
pub use call::{call_far_mem, call_far_ptr};
pub use interrupt::{int_n, int1, int3, into};
pub use iret::iret;
pub use jump::{jmp_far_mem, jmp_far_ptr};
pub use ret::ret_far;
pub use stack::Stack;
pub use task::TaskSource;

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Op, Stop};

/// Offset and selector of a far pointer in memory.
pub fn read_pointer(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Result<(u64, u16), Stop> {
    let bytes = u64::from(op.size);
    let offset = match bytes {
        2 => addr::read_operand::<u16>(cpu, env, op)?.into(),
        4 => addr::read_operand::<u32>(cpu, env, op)?.into(),
        _ => addr::read_operand::<u64>(cpu, env, op)?,
    };
    let selector = addr::read_part::<u16>(cpu, env, op, bytes)?;
    Ok((offset, selector))
}

/// Offset (at the operand size) and selector of a far pointer in the instruction.
fn immediate_pointer(op: &Op) -> (u64, u16) {
    (truncate(op.imm, op.size), op.disp as u16)
}

/// The low bytes of an offset.
fn truncate(offset: u64, bytes: u8) -> u64 {
    offset & addr::size_mask(bytes)
}

/// RIP behind an instruction that stands alone.
fn next_rip(cpu: &Cpu, op: &Op) -> u64 {
    let next = cpu.rip.wrapping_add(u64::from(op.len));
    match cpu.mode.bits() {
        64 => next,
        32 => next & 0xFFFF_FFFF,
        _ => next & 0xFFFF,
    }
}
