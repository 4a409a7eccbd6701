//! A comparison compiled together with the conditional branch behind it: most blocks of compiled code end so, and the branch
//! need not wait for flags to be stored and loaded. 64-bit code only.
//!
//! Nothing else knows: both ops are where they would be, and the comparison's thread carries out both if it finds the branch
//! behind it.

use super::addr::Flat64;
use super::alu::{self, Binary};
use super::branch::{self, Near64};
use super::form::{Form, Kind, with_condition};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{self, Ended, Flow, Op, Thread, Width};

#[inline(always)]
fn fuse<const CC: u8>(
    compare: impl FnOnce(&mut Cpu, &Op) -> Option<Flow>,
    cpu: &mut Cpu,
    env: &mut Env<'_>,
    op: &Op,
    rest: &[Op],
) -> Ended {
    match (compare(cpu, op), rest) {
        (Some(_), [branch]) => match branch::jcc_fast::<Near64, CC>(cpu, branch) {
            Some(flow) => Ok(flow).into(),
            None => op::call_handler(cpu, env, branch, &[]),
        },
        (Some(flow), _) => op::go_on(cpu, env, Ok(flow), rest),
        (None, _) => op::call_handler(cpu, env, op, rest),
    }
}

fn sized<O: Binary, T: Width>(form: Form, condition: u8) -> Option<Thread> {
    macro_rules! fused {
        ($compare:expr) => {
            with_condition!(condition, CC => {
                let thread: Thread = |cpu, env, op, rest| fuse::<CC>($compare, cpu, env, op, rest);
                thread
            })
        };
    }
    Some(match form {
        Form::RegReg => fused!(alu::reg_reg_fast::<O, T>),
        Form::RegImm => fused!(alu::reg_imm_fast::<O, T>),
        Form::RegMem(Kind::Flat64) => fused!(alu::reg_mem_fast::<O, T, Flat64>),
        Form::MemReg(Kind::Flat64) => fused!(alu::mem_fast::<O, T, Flat64, false>),
        Form::MemImm(Kind::Flat64) => fused!(alu::mem_fast::<O, T, Flat64, true>),
        _ => return None,
    })
}

/// The thread of comparison `O`, if Jcc with `condition` is the last op behind it.
pub fn compare_and_branch<O: Binary>(form: Form, size: u8, condition: u8) -> Option<Thread> {
    match size {
        1 => sized::<O, u8>(form, condition),
        4 => sized::<O, u32>(form, condition),
        8 => sized::<O, u64>(form, condition),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::exec::testing::{CODE, DATA, Machine, Mode};

    /// Comparisons of RAX, with RBX or memory at RSI.
    const COMPARISONS: [&[u8]; 8] = [
        &[0x39, 0xD8],             // cmp eax, ebx
        &[0x48, 0x39, 0xD8],       // cmp rax, rbx
        &[0x38, 0xD8],             // cmp al, bl
        &[0x48, 0x83, 0xF8, 0xFF], // cmp rax, -1
        &[0x3B, 0x06],             // cmp eax, [rsi]
        &[0x48, 0x39, 0x06],       // cmp [rsi], rax
        &[0x80, 0x3E, 0x7F],       // cmp byte ptr [rsi], 0x7f
        &[0x48, 0x85, 0xD8],       // test rax, rbx
    ];
    const VALUES: [u64; 6] = [0, 1, 0x7F, 0x8000_0000, u64::MAX, 1 << 63];

    fn prepare(machine: &mut Machine, a: u64, b: u64) -> u64 {
        machine.poke(DATA, &b.to_le_bytes());
        let cpu = machine.cpu();
        (cpu.regs[0], cpu.regs[1], cpu.regs[3], cpu.regs[6], cpu.rip) = (a, 0, b, DATA, CODE);
        cpu.rip
    }

    #[test]
    fn a_branch_goes_where_it_goes_alone() {
        let (mut fused, mut alone) = (Machine::new(Mode::Long64), Machine::new(Mode::Long64));
        for (comparison, condition) in COMPARISONS.iter().flat_map(|code| (0..16).map(move |cc| (*code, cc))) {
            // Over INC ECX, or not.
            let code = [comparison, &[0x70 | condition, 0x02, 0xFF, 0xC1]].concat();
            for (a, b) in VALUES.iter().flat_map(|&a| VALUES.map(|b| (a, b))) {
                prepare(&mut fused, a, b);
                fused.run(&code).expect("no fault");
                let end = prepare(&mut alone, a, b) + code.len() as u64;
                alone.poke(CODE, &code);
                while alone.cpu().rip != end {
                    alone.step();
                }
                assert_eq!(fused.cpu().regs[1], alone.cpu().regs[1], "{code:02x?} {a:#x} {b:#x}");
                assert_eq!(fused.cpu().rflags(), alone.cpu().rflags(), "{code:02x?} {a:#x} {b:#x}");
            }
        }
    }
}
