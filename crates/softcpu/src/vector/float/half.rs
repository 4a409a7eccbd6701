//! VCVTPS2PH, whose destination may be in memory. (VCVTPH2PS is an ordinary conversion.)

use softfloat::{Context, F16, F32, Rounding};

use super::convert::{self, Float};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step, Stop};
use crate::vector::encoding::{Encoded, Encoding, with_encoding};
use crate::vector::state::Ymm;

/// The rounding mode is in the immediate, unless bit 2 says MXCSR's. FTZ has no effect (SDM vol. 1 section 14.4.1).
fn compute<E: Encoding>(cpu: &mut Cpu, op: &Op) -> Result<(Context, Ymm), Stop> {
    let mut cx = Context { ftz: false, ..cpu.simd_context() };
    if op.imm & 4 == 0 {
        cx.rounding = Rounding::from_bits(op.imm as u8);
    }
    let count = convert::count::<Float<F32, F16>>(E::BYTES);
    let result = convert::elements::<Float<F32, F16>>(&mut cx, &cpu.vector.ymm(op.src), count);
    cpu.simd_check(&cx)?;
    Ok((cx, result))
}

fn to_register<E: Encoding>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let (cx, result) = compute::<E>(cpu, op)?;
    cpu.simd_retire(&cx);
    E::set(cpu, op.dst, result);
    Ok(Flow::Next)
}

fn to_memory<E: Encoding>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    // Page faults come before #XM.
    let linear = addr::operand(cpu, op, E::BYTES / 2, true)?;
    cpu.check_alignment(linear, E::BYTES / 2)?;
    cpu.probe_write(env, linear, E::BYTES / 2, op.seg)?;
    let (cx, result) = compute::<E>(cpu, op)?;
    if E::WIDE {
        cpu.write_lane(env, linear, op.seg, result[0])?;
    } else {
        cpu.write(env, linear, op.seg, result[0][0])?;
    }
    cpu.simd_retire(&cx);
    cpu.after_store()
}

/// VCVTPS2PH.
pub fn handler(encoded: Encoded, target: Place) -> Handler {
    with_encoding!(encoded, E => match target {
        Place::Register => to_register::<E> as Handler,
        Place::Memory(_) => to_memory::<E>,
    })
}
