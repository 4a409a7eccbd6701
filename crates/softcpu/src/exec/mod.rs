//! The handlers of ops, by family.

pub mod addr;
