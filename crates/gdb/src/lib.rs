//! A stub for gdb: its remote protocol on one side, a machine of vCPUs on the other.
//!
//! The protocol is the crate `gdbstub`'s. Here is what it cannot know: the registers of an x86 with their target description, and
//! what resuming means when vCPUs run in turn. [`Session`] takes and gives bytes and says what gdb wants next; it neither owns
//! a connection nor runs anything, because both, and the loop around them, belong to whoever runs the machine.
//!
//! May depend on `vcpu` and `x86defs`.

#![forbid(unsafe_code)]

mod registers;
mod session;
mod target;

pub use session::{Ended, ProtocolError, Session, State, Stop};
pub use target::{Debuggee, Resume};
