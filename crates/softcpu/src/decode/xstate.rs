//! Handlers of the instructions that save and restore extended state.

use iced_x86::Mnemonic as M;

use super::operands::Operands;
use crate::op::Handler;
use crate::xstate;

/// The handler, if it is one of these. `size` is 8 with REX.W, which makes x87's pointers 64 bits wide.
pub fn select(o: &mut Operands<'_>) -> Option<Handler> {
    let (handler, size): (Handler, u8) = match o.instr.mnemonic() {
        M::Xgetbv => (xstate::xgetbv, 0),
        M::Xsetbv => (xstate::xsetbv, 0),
        M::Fxsave => (xstate::fxsave, 4),
        M::Fxsave64 => (xstate::fxsave, 8),
        M::Fxrstor => (xstate::fxrstor, 4),
        M::Fxrstor64 => (xstate::fxrstor, 8),
        M::Xsave => (xstate::xsave, 4),
        M::Xsave64 => (xstate::xsave, 8),
        M::Xsaveopt => (xstate::xsaveopt, 4),
        M::Xsaveopt64 => (xstate::xsaveopt, 8),
        M::Xsavec => (xstate::xsavec, 4),
        M::Xsavec64 => (xstate::xsavec, 8),
        M::Xsaves => (xstate::xsaves, 4),
        M::Xsaves64 => (xstate::xsaves, 8),
        M::Xrstor => (xstate::xrstor, 4),
        M::Xrstor64 => (xstate::xrstor, 8),
        M::Xrstors => (xstate::xrstors, 4),
        M::Xrstors64 => (xstate::xrstors, 8),
        _ => return None,
    };
    o.op.size = size;
    Some(handler)
}
