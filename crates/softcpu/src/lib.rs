//! The software CPU.
#![forbid(unsafe_code)]
