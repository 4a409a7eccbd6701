//! Conversions between the integers of MMX registers and vector registers.

use softfloat::{F32, F64};

use super::convert::{Convert, FromInteger, ToInteger, elements};
use super::kernel;
use super::part::{Element, Part};
use crate::cpu::{Cpu, HostVendor};
use crate::engine::Env;
use crate::exec::addr;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step, Stop};
use crate::vector::available::Available;
use crate::vector::encoding::Legacy;
use crate::vector::state::Ymm;

/// All of these convert two elements.
const COUNT: usize = 2;

/// Such an instruction is one of SSE and of MMX.
fn ready(cpu: &mut Cpu, env: &mut Env<'_>) -> Result<(), Stop> {
    cpu.check_available(Available::SSE)?;
    cpu.x87_settled(env)
}

/// Results of single precision take the lower half only. The x87 registers become MMX registers even if #XM is raised, as AMD's
/// silicon has it.
fn from_finish<F: Element>(cpu: &mut Cpu, op: &Op, integers: u64, mmx: bool) -> Step {
    let mut cx = cpu.simd_context();
    let mut low = elements::<FromInteger<i32, F>>(&mut cx, &[[integers, 0], [0; 2]], COUNT)[0];
    if mmx {
        cpu.fpu.enter_mmx();
    }
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    if F::BYTES == 4 {
        low[1] = cpu.vector.xmm(op.dst)[1];
    }
    cpu.vector.set_xmm(op.dst, low);
    Ok(Flow::Next)
}

fn from_register<F: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    ready(cpu, env)?;
    let integers = cpu.fpu.mmx(op.src);
    from_finish::<F>(cpu, op, integers, true)
}

/// From memory CVTPI2PD has nothing to do with MMX (SDM vol. 2, CVTPI2PD), and on AMD's silicon CVTPI2PS has not either.
fn from_memory<F: Element>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let mmx = F::BYTES == 4 && cpu.host != HostVendor::Amd;
    if mmx {
        ready(cpu, env)?
    } else {
        cpu.check_available(Available::SSE)?
    }
    let integers = addr::read_operand::<u64>(cpu, env, op)?;
    from_finish::<F>(cpu, op, integers, mmx)
}

/// CVTPI2PS or CVTPI2PD.
pub fn from_integers<F: Element>(source: Place) -> Handler {
    match source {
        Place::Register => from_register::<F>,
        Place::Memory(_) => from_memory::<F>,
    }
}

fn to_finish<C: Convert>(cpu: &mut Cpu, op: &Op, source: Ymm) -> Step {
    let mut cx = cpu.simd_context();
    let integers = elements::<C>(&mut cx, &source, COUNT)[0][0];
    cpu.fpu.enter_mmx();
    cpu.simd_check(&cx)?;
    cpu.simd_retire(&cx);
    cpu.fpu.set_mmx(op.dst, integers);
    Ok(Flow::Next)
}

fn to_from_register<C: Convert>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    ready(cpu, env)?;
    let source = cpu.vector.ymm(op.src);
    to_finish::<C>(cpu, op, source)
}

fn to_from_memory<C: Convert>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    ready(cpu, env)?;
    let source = kernel::load::<Legacy>(cpu, env, op, (COUNT * C::From::BYTES) as u64)?;
    to_finish::<C>(cpu, op, source)
}

fn to<C: Convert>(source: Place) -> Handler {
    match source {
        Place::Register => to_from_register::<C>,
        Place::Memory(_) => to_from_memory::<C>,
    }
}

/// CVTPS2PI, or CVTTPS2PI if `TRUNCATE`.
pub fn to_integers_single<const TRUNCATE: bool>(source: Place) -> Handler {
    to::<ToInteger<F32, i32, TRUNCATE>>(source)
}

/// CVTPD2PI, or CVTTPD2PI if `TRUNCATE`.
pub fn to_integers_double<const TRUNCATE: bool>(source: Place) -> Handler {
    to::<ToInteger<F64, i32, TRUNCATE>>(source)
}
