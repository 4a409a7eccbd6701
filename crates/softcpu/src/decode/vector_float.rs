//! Handlers of the vector instructions that depend on MXCSR, and of the approximations.

use iced_x86::Mnemonic as M;
use softfloat::{F32, F64};

use super::vector_operands::VectorOperands;
use crate::exec::form::Place;
use crate::op::Handler;
use crate::vector::encoding::Encoded;
use crate::vector::float::approximate::{Rcp, Rsqrt};
use crate::vector::float::arithmetic::{Add, AddSub, Div, DotProduct, Max, Min, Mul, Round, Sqrt, Sub};
use crate::vector::float::compare::{self, Cmp};
use crate::vector::float::convert::{Convert, Elements, FromHalf, FromInteger, Lowest, Narrow, ToInteger, Widen};
use crate::vector::float::elementwise::{Elementwise, Lanes, Packed, Scalar};
use crate::vector::float::fma::{Alternating, AlternatingMinus, Fma, Minus, Plus};
use crate::vector::float::horizontal::Horizontal;
use crate::vector::float::part::Element;
use crate::vector::float::{control, general, half, kernel, mmx};

type V<'o, 'i> = VectorOperands<'o, 'i>;

/// The handler, if it is one of these.
pub fn select(v: &mut V<'_, '_>) -> Option<Handler> {
    arithmetic(v)
        .or_else(|| compare(v))
        .or_else(|| convert(v))
        .or_else(|| general(v))
        .or_else(|| mmx(v))
        .or_else(|| fma(v))
        .or_else(|| control(v))
}

fn kernel<K: kernel::Kernel>(v: &mut V<'_, '_>) -> Handler {
    let source = v.sources();
    kernel::handler::<K>(v.encoded, source)
}

fn packed<O: Elementwise, F: Element>(v: &mut V<'_, '_>) -> Handler {
    kernel::<Lanes<Packed<O, F>>>(v)
}

fn scalar<O: Elementwise, F: Element>(v: &mut V<'_, '_>) -> Handler {
    kernel::<Scalar<O, F>>(v)
}

fn arithmetic(v: &mut V<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Addps | M::Vaddps => packed::<Add, F32>(v),
        M::Addpd | M::Vaddpd => packed::<Add, F64>(v),
        M::Addss | M::Vaddss => scalar::<Add, F32>(v),
        M::Addsd | M::Vaddsd => scalar::<Add, F64>(v),
        M::Subps | M::Vsubps => packed::<Sub, F32>(v),
        M::Subpd | M::Vsubpd => packed::<Sub, F64>(v),
        M::Subss | M::Vsubss => scalar::<Sub, F32>(v),
        M::Subsd | M::Vsubsd => scalar::<Sub, F64>(v),
        M::Mulps | M::Vmulps => packed::<Mul, F32>(v),
        M::Mulpd | M::Vmulpd => packed::<Mul, F64>(v),
        M::Mulss | M::Vmulss => scalar::<Mul, F32>(v),
        M::Mulsd | M::Vmulsd => scalar::<Mul, F64>(v),
        M::Divps | M::Vdivps => packed::<Div, F32>(v),
        M::Divpd | M::Vdivpd => packed::<Div, F64>(v),
        M::Divss | M::Vdivss => scalar::<Div, F32>(v),
        M::Divsd | M::Vdivsd => scalar::<Div, F64>(v),
        M::Sqrtps | M::Vsqrtps => packed::<Sqrt, F32>(v),
        M::Sqrtpd | M::Vsqrtpd => packed::<Sqrt, F64>(v),
        M::Sqrtss | M::Vsqrtss => scalar::<Sqrt, F32>(v),
        M::Sqrtsd | M::Vsqrtsd => scalar::<Sqrt, F64>(v),
        M::Minps | M::Vminps => packed::<Min, F32>(v),
        M::Minpd | M::Vminpd => packed::<Min, F64>(v),
        M::Minss | M::Vminss => scalar::<Min, F32>(v),
        M::Minsd | M::Vminsd => scalar::<Min, F64>(v),
        M::Maxps | M::Vmaxps => packed::<Max, F32>(v),
        M::Maxpd | M::Vmaxpd => packed::<Max, F64>(v),
        M::Maxss | M::Vmaxss => scalar::<Max, F32>(v),
        M::Maxsd | M::Vmaxsd => scalar::<Max, F64>(v),
        M::Roundps | M::Vroundps => packed::<Round, F32>(v),
        M::Roundpd | M::Vroundpd => packed::<Round, F64>(v),
        M::Roundss | M::Vroundss => scalar::<Round, F32>(v),
        M::Roundsd | M::Vroundsd => scalar::<Round, F64>(v),
        M::Rcpps | M::Vrcpps => packed::<Rcp, F32>(v),
        M::Rcpss | M::Vrcpss => scalar::<Rcp, F32>(v),
        M::Rsqrtps | M::Vrsqrtps => packed::<Rsqrt, F32>(v),
        M::Rsqrtss | M::Vrsqrtss => scalar::<Rsqrt, F32>(v),
        M::Addsubps | M::Vaddsubps => packed::<AddSub, F32>(v),
        M::Addsubpd | M::Vaddsubpd => packed::<AddSub, F64>(v),
        M::Haddps | M::Vhaddps => kernel::<Lanes<Horizontal<F32, false>>>(v),
        M::Haddpd | M::Vhaddpd => kernel::<Lanes<Horizontal<F64, false>>>(v),
        M::Hsubps | M::Vhsubps => kernel::<Lanes<Horizontal<F32, true>>>(v),
        M::Hsubpd | M::Vhsubpd => kernel::<Lanes<Horizontal<F64, true>>>(v),
        M::Dpps | M::Vdpps => kernel::<DotProduct<F32>>(v),
        M::Dppd | M::Vdppd => kernel::<DotProduct<F64>>(v),
        _ => return None,
    })
}

/// Legacy predicates have three bits, the others five; the rest of the immediate byte is ignored.
fn predicate(v: &mut V<'_, '_>, handler: Handler) -> Handler {
    v.operands.op.imm &= if v.encoded == Encoded::Legacy { 7 } else { 31 };
    handler
}

fn flags<F: Element, const SIGNALLING: bool>(v: &mut V<'_, '_>) -> Handler {
    let source = v.sources();
    compare::flags::<F, SIGNALLING>(v.encoded, source)
}

fn compare(v: &mut V<'_, '_>) -> Option<Handler> {
    let handler = match v.mnemonic() {
        M::Comiss | M::Vcomiss => flags::<F32, true>(v),
        M::Comisd | M::Vcomisd => flags::<F64, true>(v),
        M::Ucomiss | M::Vucomiss => flags::<F32, false>(v),
        M::Ucomisd | M::Vucomisd => flags::<F64, false>(v),
        M::Cmpps | M::Vcmpps => packed::<Cmp, F32>(v),
        M::Cmppd | M::Vcmppd => packed::<Cmp, F64>(v),
        M::Cmpss | M::Vcmpss => scalar::<Cmp, F32>(v),
        M::Cmpsd | M::Vcmpsd if v.operands.instr.op_count() > 2 => scalar::<Cmp, F64>(v),
        _ => return None,
    };
    Some(predicate(v, handler))
}

fn elements<C: Convert>(v: &mut V<'_, '_>) -> Handler {
    kernel::<Elements<C>>(v)
}

fn convert(v: &mut V<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Cvtps2pd | M::Vcvtps2pd => elements::<Widen>(v),
        M::Cvtpd2ps | M::Vcvtpd2ps => elements::<Narrow>(v),
        M::Cvtss2sd | M::Vcvtss2sd => kernel::<Lowest<Widen>>(v),
        M::Cvtsd2ss | M::Vcvtsd2ss => kernel::<Lowest<Narrow>>(v),
        M::Cvtdq2ps | M::Vcvtdq2ps => elements::<FromInteger<i32, F32>>(v),
        M::Cvtdq2pd | M::Vcvtdq2pd => elements::<FromInteger<i32, F64>>(v),
        M::Cvtps2dq | M::Vcvtps2dq => elements::<ToInteger<F32, i32, false>>(v),
        M::Cvttps2dq | M::Vcvttps2dq => elements::<ToInteger<F32, i32, true>>(v),
        M::Cvtpd2dq | M::Vcvtpd2dq => elements::<ToInteger<F64, i32, false>>(v),
        M::Cvttpd2dq | M::Vcvttpd2dq => elements::<ToInteger<F64, i32, true>>(v),
        M::Vcvtph2ps => elements::<FromHalf>(v),
        M::Vcvtps2ph => to_half(v),
        _ => return None,
    })
}

fn to_half(v: &mut V<'_, '_>) -> Handler {
    v.operands.op.src = v.register(1);
    v.immediate();
    let target = if v.is_memory(0) {
        Place::Memory(v.operands.kind())
    } else {
        v.operands.op.dst = v.register(0);
        Place::Register
    };
    half::handler(v.encoded, target)
}

fn to_general<F: Element, const TRUNCATE: bool>(v: &mut V<'_, '_>) -> Handler {
    v.operands.op.dst = v.register(0);
    let source = v.source(1);
    general::to_general::<F, TRUNCATE>(v.encoded, source, v.operands.size_of(0))
}

fn from_general<F: Element>(v: &mut V<'_, '_>) -> Handler {
    let source = v.sources();
    let size = v.operands.size_of(v.operands.instr.op_count() - 1);
    general::from_general::<F>(v.encoded, source, size)
}

/// Conversions between vector and general registers.
fn general(v: &mut V<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Cvtss2si | M::Vcvtss2si => to_general::<F32, false>(v),
        M::Cvtsd2si | M::Vcvtsd2si => to_general::<F64, false>(v),
        M::Cvttss2si | M::Vcvttss2si => to_general::<F32, true>(v),
        M::Cvttsd2si | M::Vcvttsd2si => to_general::<F64, true>(v),
        M::Cvtsi2ss | M::Vcvtsi2ss => from_general::<F32>(v),
        M::Cvtsi2sd | M::Vcvtsi2sd => from_general::<F64>(v),
        _ => return None,
    })
}

/// Conversions between vector and MMX registers.
fn mmx(v: &mut V<'_, '_>) -> Option<Handler> {
    let of: fn(Place) -> Handler = match v.mnemonic() {
        M::Cvtpi2ps => mmx::from_integers::<F32>,
        M::Cvtpi2pd => mmx::from_integers::<F64>,
        M::Cvtps2pi => mmx::to_integers_single::<false>,
        M::Cvttps2pi => mmx::to_integers_single::<true>,
        M::Cvtpd2pi => mmx::to_integers_double::<false>,
        M::Cvttpd2pi => mmx::to_integers_double::<true>,
        _ => return None,
    };
    Some(of(v.sources()))
}

/// Name the twelve instructions of one kind: three orders of the operands, packed and scalar, single and double.
macro_rules! fma_orders {
    ($v:ident, $addend:ty, $negated:literal,
     $p132:ident $p213:ident $p231:ident / $d132:ident $d213:ident $d231:ident
     $(/ $s132:ident $s213:ident $s231:ident / $t132:ident $t213:ident $t231:ident)?) => {
        match $v.mnemonic() {
            M::$p132 => return Some(packed::<Fma<$addend, 132, $negated>, F32>($v)),
            M::$p213 => return Some(packed::<Fma<$addend, 213, $negated>, F32>($v)),
            M::$p231 => return Some(packed::<Fma<$addend, 231, $negated>, F32>($v)),
            M::$d132 => return Some(packed::<Fma<$addend, 132, $negated>, F64>($v)),
            M::$d213 => return Some(packed::<Fma<$addend, 213, $negated>, F64>($v)),
            M::$d231 => return Some(packed::<Fma<$addend, 231, $negated>, F64>($v)),
            $(
                M::$s132 => return Some(scalar::<Fma<$addend, 132, $negated>, F32>($v)),
                M::$s213 => return Some(scalar::<Fma<$addend, 213, $negated>, F32>($v)),
                M::$s231 => return Some(scalar::<Fma<$addend, 231, $negated>, F32>($v)),
                M::$t132 => return Some(scalar::<Fma<$addend, 132, $negated>, F64>($v)),
                M::$t213 => return Some(scalar::<Fma<$addend, 213, $negated>, F64>($v)),
                M::$t231 => return Some(scalar::<Fma<$addend, 231, $negated>, F64>($v)),
            )?
            _ => {}
        }
    };
}

fn fma(v: &mut V<'_, '_>) -> Option<Handler> {
    fma_orders!(v, Plus, false,
        Vfmadd132ps Vfmadd213ps Vfmadd231ps / Vfmadd132pd Vfmadd213pd Vfmadd231pd /
        Vfmadd132ss Vfmadd213ss Vfmadd231ss / Vfmadd132sd Vfmadd213sd Vfmadd231sd);
    fma_orders!(v, Minus, false,
        Vfmsub132ps Vfmsub213ps Vfmsub231ps / Vfmsub132pd Vfmsub213pd Vfmsub231pd /
        Vfmsub132ss Vfmsub213ss Vfmsub231ss / Vfmsub132sd Vfmsub213sd Vfmsub231sd);
    fma_orders!(v, Plus, true,
        Vfnmadd132ps Vfnmadd213ps Vfnmadd231ps / Vfnmadd132pd Vfnmadd213pd Vfnmadd231pd /
        Vfnmadd132ss Vfnmadd213ss Vfnmadd231ss / Vfnmadd132sd Vfnmadd213sd Vfnmadd231sd);
    fma_orders!(v, Minus, true,
        Vfnmsub132ps Vfnmsub213ps Vfnmsub231ps / Vfnmsub132pd Vfnmsub213pd Vfnmsub231pd /
        Vfnmsub132ss Vfnmsub213ss Vfnmsub231ss / Vfnmsub132sd Vfnmsub213sd Vfnmsub231sd);
    fma_orders!(v, Alternating, false,
        Vfmaddsub132ps Vfmaddsub213ps Vfmaddsub231ps / Vfmaddsub132pd Vfmaddsub213pd Vfmaddsub231pd);
    fma_orders!(v, AlternatingMinus, false,
        Vfmsubadd132ps Vfmsubadd213ps Vfmsubadd231ps / Vfmsubadd132pd Vfmsubadd213pd Vfmsubadd231pd);
    None
}

fn control(v: &mut V<'_, '_>) -> Option<Handler> {
    Some(match v.mnemonic() {
        M::Ldmxcsr | M::Vldmxcsr => control::handler(v.encoded, true),
        M::Stmxcsr | M::Vstmxcsr => control::handler(v.encoded, false),
        _ => return None,
    })
}
