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
use crate::segment::FS;

/// In `imm` of a far transfer through memory: there is a REX.W that silicon ignores.
pub const REX_W_IGNORED: u64 = 1;

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

/// The op of a far transfer through memory as it is carried out. AMD's silicon ignores REX.W there (APM vol. 3 JMP (Far)); but
/// what touches device memory is carried out by the hypervisor, and KVM's decoder takes the prefix as Intel's silicon does.
fn carried_out(cpu: &Cpu, op: &Op) -> Op {
    let emulated = op.imm == REX_W_IGNORED && {
        let base = if op.seg >= FS { cpu.seg(op.seg).base } else { 0 };
        let linear = cpu.untagged(base.wrapping_add(addr::effective(cpu, op)));
        cpu.translate(linear, false, None).is_some_and(|gpa| cpu.mem.offset(gpa).is_none())
    };
    Op { size: if emulated { 8 } else { op.size }, ..*op }
}

/// Offset (at the operand size) and selector of a far pointer in the instruction.
fn immediate_pointer(op: &Op) -> (u64, u16) {
    (truncate(op.imm, op.size), op.disp as u16)
}

/// The low bytes of an offset.
fn truncate(offset: u64, bytes: u8) -> u64 {
    offset & addr::size_mask(bytes)
}

/// RIP behind an instruction that stands alone. In 16-bit code too it has 32 bits: a segment may be larger than 64 KiB, and
/// only what is pushed with 16 bits is cut to them.
fn next_rip(cpu: &Cpu, op: &Op) -> u64 {
    let next = cpu.rip.wrapping_add(u64::from(op.len));
    if cpu.mode.is_64() { next } else { next & 0xFFFF_FFFF }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::ZERO;
    use crate::testing::Machine;

    #[test]
    fn a_rex_w_that_silicon_ignores_counts_in_device_memory() {
        let mut machine = Machine::long64();
        // 0x400000 is device memory.
        machine.store64(Machine::TABLES + 0x2010, 0xFEC0_0087);
        for (imm, address, size) in
            [(REX_W_IGNORED, 0x40_0000, 8), (REX_W_IGNORED, 0x6000, 4), (0, 0x40_0000, 4), (REX_W_IGNORED, 1 << 30, 4)]
        {
            let op = Op {
                imm,
                disp: address,
                base: ZERO,
                size: 4,
                address: 8,
                seg: crate::segment::DS,
                ..Op::new(jmp_far_mem)
            };
            assert_eq!(carried_out(&machine.cpu, &op).size, size, "{imm} {address:#x}");
        }
    }

    #[test]
    fn code_of_16_bits_may_be_above_64_kib() {
        let mut machine = Machine::real();
        machine.cpu.rip = 0x1_FFFF;
        let op = Op { len: 2, ..Op::new(interrupt::int3) };
        assert_eq!(next_rip(&machine.cpu, &op), 0x2_0001);
    }
}
