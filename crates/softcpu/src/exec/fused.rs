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
