//! Address translation.

use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::Stop;

/// Rights and kind of an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// It writes.
    pub write: bool,
    /// It fetches instructions.
    pub fetch: bool,
    /// It has user rights (CPL 3, not a system access).
    pub user: bool,
    /// SMAP keeps it from user pages.
    pub smap: bool,
}

/// Where a linear address leads.
#[derive(Clone, Copy, Debug)]
pub struct Mapping {
    /// Guest-physical address.
    pub gpa: u64,
    /// This kind of access may also write, and the dirty bit is set: stores need no further walk.
    pub storable: bool,
}

impl Cpu {
    /// Translate, setting accessed and dirty bits as the access does; #PF if it may not.
    pub fn walk(&mut self, _env: &mut Env<'_>, linear: u64, _access: Access) -> Result<Mapping, Stop> {
        Ok(Mapping { gpa: linear, storable: true })
    }
}
