//! The handlers of ops, by family.
