//! Segment descriptors, SDM vol. 3 section 3.4.5 and 3.5.
//!
//! A segment's *attributes* are bits 40–55 of its descriptor shifted down by 40, as in the VMCS and VMCB:
//! bits 3:0 type, 4 S, 6:5 DPL, 7 P, 11:8 limit 19:16 (not kept), 12 AVL, 13 L, 14 D/B, 15 G.

/// Type: accessed (code or data).
pub const ACCESSED: u16 = 1 << 0;
/// Type: writable (data) or readable (code).
pub const RW: u16 = 1 << 1;
/// Type: expand-down (data) or conforming (code).
pub const DC: u16 = 1 << 2;
/// Type: code.
pub const CODE: u16 = 1 << 3;
/// S: code or data, not system.
pub const S: u16 = 1 << 4;
/// Position of DPL.
pub const DPL_SHIFT: u32 = 5;
/// P: present.
pub const P: u16 = 1 << 7;
/// AVL.
pub const AVL: u16 = 1 << 12;
/// L: 64-bit code.
pub const L: u16 = 1 << 13;
/// D/B: 32-bit.
pub const DB: u16 = 1 << 14;
/// G: limit counted in pages.
pub const G: u16 = 1 << 15;

/// System types.
pub mod system {
    /// 16-bit TSS, available.
    pub const TSS16: u16 = 1;
    /// LDT.
    pub const LDT: u16 = 2;
    /// 16-bit TSS, busy.
    pub const TSS16_BUSY: u16 = 3;
    /// 16-bit call gate.
    pub const CALL_GATE16: u16 = 4;
    /// Task gate.
    pub const TASK_GATE: u16 = 5;
    /// 16-bit interrupt gate.
    pub const INT_GATE16: u16 = 6;
    /// 16-bit trap gate.
    pub const TRAP_GATE16: u16 = 7;
    /// 32/64-bit TSS, available.
    pub const TSS: u16 = 9;
    /// 32/64-bit TSS, busy.
    pub const TSS_BUSY: u16 = 11;
    /// 32/64-bit call gate.
    pub const CALL_GATE: u16 = 12;
    /// 32/64-bit interrupt gate.
    pub const INT_GATE: u16 = 14;
    /// 32/64-bit trap gate.
    pub const TRAP_GATE: u16 = 15;
}

/// Selector: table indicator (LDT).
pub const TI: u16 = 1 << 2;
/// Selector: requested privilege level.
pub const RPL: u16 = 3;
