//! MSRs that the core owns.

/// Their values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Msrs {}
