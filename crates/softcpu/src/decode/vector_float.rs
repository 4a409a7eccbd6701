//! Handlers of the vector instructions that depend on MXCSR.

use super::vector_operands::VectorOperands;
use crate::op::Handler;

/// The handler, if it is one of these.
pub fn select(_v: &mut VectorOperands<'_, '_>) -> Option<Handler> {
    None
}
