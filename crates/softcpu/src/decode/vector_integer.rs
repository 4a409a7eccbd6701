//! Handlers of the vector instructions that do not depend on MXCSR: moves, logic, integers.

use iced_x86::Mnemonic as M;

use super::vector_operands::VectorOperands;
use crate::op::Handler;
use crate::vector::{arithmetic, lanewise, logic, moves};

/// Two sources, lane by lane.
fn lanewise<K: lanewise::Kernel>(v: &mut VectorOperands<'_, '_>) -> Handler {
    let source = v.sources();
    lanewise::handler::<K>(v.encoded, source)
}

fn whole_move(v: &mut VectorOperands<'_, '_>, aligned: bool) -> Handler {
    let direction = v.direction();
    moves::handler(v.encoded, direction, aligned)
}

/// The handler, if it is one of these.
pub fn select(v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    if v.is_mmx() {
        return None;
    }
    Some(match v.mnemonic() {
        M::Movaps | M::Vmovaps | M::Movapd | M::Vmovapd | M::Movdqa | M::Vmovdqa => whole_move(v, true),
        M::Movups | M::Vmovups | M::Movupd | M::Vmovupd | M::Movdqu | M::Vmovdqu => whole_move(v, false),
        M::Andps | M::Vandps | M::Andpd | M::Vandpd | M::Pand | M::Vpand => lanewise::<logic::And>(v),
        M::Andnps | M::Vandnps | M::Andnpd | M::Vandnpd | M::Pandn | M::Vpandn => lanewise::<logic::Andn>(v),
        M::Orps | M::Vorps | M::Orpd | M::Vorpd | M::Por | M::Vpor => lanewise::<logic::Or>(v),
        M::Xorps | M::Vxorps | M::Xorpd | M::Vxorpd | M::Pxor | M::Vpxor => lanewise::<logic::Xor>(v),
        M::Paddb | M::Vpaddb => lanewise::<arithmetic::AddBytes>(v),
        M::Paddw | M::Vpaddw => lanewise::<arithmetic::AddWords>(v),
        M::Paddd | M::Vpaddd => lanewise::<arithmetic::AddDwords>(v),
        M::Paddq | M::Vpaddq => lanewise::<arithmetic::AddQwords>(v),
        _ => return None,
    })
}
