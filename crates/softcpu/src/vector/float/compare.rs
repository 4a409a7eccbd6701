//! Comparison: CMPPS and its kin, COMIS and UCOMIS.

use std::cmp::Ordering;

use softfloat::{Compare, Context, fast};
use x86defs::rflags;

use super::elementwise::Elementwise;
use super::kernel;
use super::part::Element;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step};
use crate::vector::encoding::{Encoded, Encoding, with_encoding};
use crate::vector::state::Ymm;

const LT: u8 = 1;
const EQ: u8 = 2;
const GT: u8 = 4;
const UN: u8 = 8;
/// Quiet NaNs raise IE. Predicates from 16 on are those below with this turned round.
const S: u8 = 16;

/// For which outcomes a predicate is true: SDM vol. 2, CMPPD, table "Comparison Predicate for CMPPD and CMPPS Instructions".
const PREDICATES: [u8; 16] = [
    EQ,
    LT | S,
    LT | EQ | S,
    UN,
    LT | GT | UN,
    EQ | GT | UN | S,
    GT | UN | S,
    LT | EQ | GT,
    EQ | UN,
    LT | UN | S,
    LT | EQ | UN | S,
    0,
    LT | GT,
    EQ | GT | S,
    GT | S,
    LT | EQ | GT | UN,
];

/// CMPcc with the predicate in the immediate: bits 2:0, with VEX bits 4:0 (the decoder clears the rest).
pub struct Cmp;

impl Elementwise for Cmp {
    #[inline(always)]
    fn element<F: Element>(cx: &mut Context, _i: usize, _d: F, a: F, b: F, imm: u8) -> F {
        let predicate = PREDICATES[usize::from(imm & 15)] ^ imm & S;
        let kind = if predicate & S != 0 { Compare::Signalling } else { Compare::Quiet };
        let outcome = match fast::compare(cx, a, b, kind) {
            Some(Ordering::Less) => LT,
            Some(Ordering::Equal) => EQ,
            Some(Ordering::Greater) => GT,
            None => UN,
        };
        F::mask(predicate & outcome != 0)
    }
}

#[inline(always)]
fn finish<F: Element, const SIGNALLING: bool>(cpu: &mut Cpu, op: &Op, b: Ymm) -> Step {
    let a = F::of_lane(cpu.vector.xmm(op.dst), 0);
    let kind = if SIGNALLING { Compare::Signalling } else { Compare::Quiet };
    let mut cx = cpu.simd_context();
    let order = fast::compare(&mut cx, a, F::of_lane(b[0], 0), kind);
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    cpu.flags.set_bits(match order {
        Some(Ordering::Less) => rflags::CF,
        Some(Ordering::Equal) => rflags::ZF,
        Some(Ordering::Greater) => 0,
        None => rflags::CF | rflags::PF | rflags::ZF,
    });
    Ok(Flow::Next)
}

fn from_register<F: Element, E: Encoding, const SIGNALLING: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = cpu.vector.ymm(op.src);
    finish::<F, SIGNALLING>(cpu, op, b)
}

fn from_memory<F: Element, E: Encoding, const SIGNALLING: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let b = kernel::load::<E>(cpu, env, op, F::BYTES as u64)?;
    finish::<F, SIGNALLING>(cpu, op, b)
}

/// COMISS and COMISD, or UCOMISS and UCOMISD, for which quiet NaNs are nothing special.
pub fn flags<F: Element, const SIGNALLING: bool>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_register::<F, E, SIGNALLING> as Handler,
        Place::Memory(_) => from_memory::<F, E, SIGNALLING>,
    })
}
