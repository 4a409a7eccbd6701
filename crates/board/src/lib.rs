//! A small PC.
#![forbid(unsafe_code)]
