//! The x87 floating-point unit.

mod check;
mod control;
pub mod state;

pub use control::{fldcw, fnclex, fninit, fnstcw, fnstsw_ax, fnstsw_mem, wait};
