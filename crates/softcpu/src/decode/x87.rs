//! x87 instructions: the eight escape opcodes D8–DF. SDM vol. 2 appendix A.5, with the aliases that CPUs execute although the
//! tables leave their places empty.

use softfloat::{F32, F64, X80};

use super::operands::{Operands, behind_prefixes};
use crate::op::Handler;
use crate::x87::{self, Abs, Bcd, Chs, Memory, OPERAND, RoundInteger, Sqrt, Truncated};

const WAIT: u8 = 0x9B;

/// The handler, if it is one of these.
pub fn select(o: &mut Operands<'_>, bytes: &[u8]) -> Option<Handler> {
    match *behind_prefixes(bytes, o.mode) {
        [WAIT] => Some(x87::wait),
        [escape @ 0xD8..=0xDF, modrm, ..] => {
            o.op.imm = u64::from(escape & 7) << 8 | u64::from(modrm);
            let reg = modrm >> 3 & 7;
            if modrm < 0xC0 {
                o.op.extra = OPERAND;
                in_memory(o, escape, reg)
            } else {
                o.op.src = modrm & 7;
                in_register(o, escape, reg)
            }
        }
        _ => None,
    }
}

/// The eight operations of D8, DA, DC and DE with memory.
fn arithmetic<M: Memory>(reg: u8) -> Handler {
    match reg {
        0 => x87::with_memory::<x87::Add, M>,
        1 => x87::with_memory::<x87::Mul, M>,
        2 => x87::compare_memory::<M, 0>,
        3 => x87::compare_memory::<M, 1>,
        4 => x87::with_memory::<x87::Sub, M>,
        5 => x87::with_memory::<x87::SubReversed, M>,
        6 => x87::with_memory::<x87::Div, M>,
        _ => x87::with_memory::<x87::DivReversed, M>,
    }
}

fn store<M: Memory>(pop: bool) -> Handler {
    if pop { x87::store_memory::<M, true> } else { x87::store_memory::<M, false> }
}

fn in_memory(o: &mut Operands<'_>, escape: u8, reg: u8) -> Option<Handler> {
    // Of the environment this matters: whether its words have 2 or 4 bytes.
    let words = |o: &mut Operands<'_>| o.op.size = if matches!(o.size_of(0), 14 | 94) { 2 } else { 4 };
    Some(match (escape, reg) {
        (0xD8, _) => arithmetic::<F32>(reg),
        (0xDA, _) => arithmetic::<i32>(reg),
        (0xDC, _) => arithmetic::<F64>(reg),
        (0xDE, _) => arithmetic::<i16>(reg),
        (0xD9, 0) => x87::load_memory::<F32>,
        (0xD9, 2 | 3) => store::<F32>(reg == 3),
        (0xD9, 4) => {
            words(o);
            x87::fldenv
        }
        (0xD9, 5) => x87::fldcw,
        (0xD9, 6) => {
            words(o);
            x87::fnstenv
        }
        (0xD9, 7) => x87::fnstcw,
        (0xDB, 0) => x87::load_memory::<i32>,
        (0xDB, 1) => store::<Truncated<i32>>(true),
        (0xDB, 2 | 3) => store::<i32>(reg == 3),
        (0xDB, 5) => x87::load_memory::<X80>,
        (0xDB, 7) => store::<X80>(true),
        (0xDD, 0) => x87::load_memory::<F64>,
        (0xDD, 1) => store::<Truncated<i64>>(true),
        (0xDD, 2 | 3) => store::<F64>(reg == 3),
        (0xDD, 4) => {
            words(o);
            x87::frstor
        }
        (0xDD, 6) => {
            words(o);
            x87::fnsave
        }
        (0xDD, 7) => x87::fnstsw_mem,
        (0xDF, 0) => x87::load_memory::<i16>,
        (0xDF, 1) => store::<Truncated<i16>>(true),
        (0xDF, 2 | 3) => store::<i16>(reg == 3),
        (0xDF, 4) => x87::load_memory::<Bcd>,
        (0xDF, 5) => x87::load_memory::<i64>,
        (0xDF, 6) => store::<Bcd>(true),
        (0xDF, 7) => store::<i64>(true),
        _ => return None,
    })
}

/// ST(i) := ST(i) with ST(0): where it is the destination, the codes of reversed operations and others are the other way round.
fn to_register<const POP: bool>(reg: u8) -> Option<Handler> {
    Some(match reg {
        0 => x87::with_st0::<x87::Add, POP>,
        1 => x87::with_st0::<x87::Mul, POP>,
        4 => x87::with_st0::<x87::SubReversed, POP>,
        5 => x87::with_st0::<x87::Sub, POP>,
        6 => x87::with_st0::<x87::DivReversed, POP>,
        7 => x87::with_st0::<x87::Div, POP>,
        _ => return None,
    })
}

fn in_register(o: &mut Operands<'_>, escape: u8, reg: u8) -> Option<Handler> {
    Some(match (escape, reg) {
        (0xD8, 0) => x87::with_register::<x87::Add>,
        (0xD8, 1) => x87::with_register::<x87::Mul>,
        (0xD8, 4) => x87::with_register::<x87::Sub>,
        (0xD8, 5) => x87::with_register::<x87::SubReversed>,
        (0xD8, 6) => x87::with_register::<x87::Div>,
        (0xD8, 7) => x87::with_register::<x87::DivReversed>,
        // DCD0 and DCD8, DED0 are aliases, as are DDC8 and DFC8, DFD0 and DFD8.
        (0xD8 | 0xDC, 2) => x87::compare_register::<false, 0>,
        (0xD8 | 0xDC, 3) | (0xDE, 2) => x87::compare_register::<false, 1>,
        (0xD9 | 0xDD | 0xDF, 1) => x87::fxch,
        (0xDD, 3) | (0xDF, 2 | 3) => x87::store_register(true),
        (0xD9, 3) => x87::fstpnce,
        (0xD9, 0) => x87::load_register,
        (0xD9, _) => return without_operand(reg << 3 & 0x38 | o.op.src),
        (0xDA | 0xDB, 0..=3) => {
            // B, E, BE, U, or their negations.
            const CONDITIONS: [u8; 4] = [2, 4, 6, 10];
            o.op.dst = CONDITIONS[usize::from(reg)] | escape & 1;
            x87::fcmov
        }
        (0xDA, 5) if o.op.src == 1 => x87::compare_register::<true, 2>,
        (0xDB, 4) => match o.op.src {
            0 | 1 | 4 => x87::nothing,
            2 => x87::fnclex,
            3 => x87::fninit,
            _ => return None,
        },
        (0xDB, 5) => x87::compare_eflags::<true, false>,
        (0xDB, 6) => x87::compare_eflags::<false, false>,
        (0xDF, 5) => x87::compare_eflags::<true, true>,
        (0xDF, 6) => x87::compare_eflags::<false, true>,
        (0xDC, _) => return to_register::<false>(reg),
        (0xDD, 0) => x87::ffree::<false>,
        (0xDF, 0) => x87::ffree::<true>,
        (0xDD, 2) => x87::store_register(false),
        (0xDD, 4) => x87::compare_register::<true, 0>,
        (0xDD, 5) => x87::compare_register::<true, 1>,
        (0xDE, 3) if o.op.src == 1 => x87::compare_register::<false, 2>,
        (0xDE, _) => return to_register::<true>(reg),
        (0xDF, 4) if o.op.src == 0 => x87::fnstsw_ax,
        _ => return None,
    })
}

/// D9D0 to D9FF, by the low six bits.
fn without_operand(code: u8) -> Option<Handler> {
    Some(match code {
        0x10 => x87::fnop,
        0x20 => x87::unary::<Chs>,
        0x21 => x87::unary::<Abs>,
        0x24 => x87::ftst,
        0x25 => x87::fxam,
        // `src` is the number of the constant.
        0x28..=0x2E => x87::load_constant,
        0x30 => x87::function::<x87::Exponential>,
        0x31 => x87::function2::<x87::Logarithm>,
        0x32 => x87::fptan,
        0x33 => x87::function2::<x87::ArcTangent>,
        0x34 => x87::fxtract,
        0x35 => x87::fprem::<true>,
        0x36 => x87::fdecstp,
        0x37 => x87::fincstp,
        0x38 => x87::fprem::<false>,
        0x39 => x87::function2::<x87::LogarithmPlusOne>,
        0x3A => x87::unary::<Sqrt>,
        0x3B => x87::fsincos,
        0x3C => x87::unary::<RoundInteger>,
        0x3D => x87::fscale,
        0x3E => x87::function::<x87::Sine>,
        0x3F => x87::function::<x87::Cosine>,
        _ => return None,
    })
}
