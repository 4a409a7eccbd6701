//! CPUID feature bits that the CPU's own behaviour depends on, SDM vol. 2 CPUID.
//!
//! A feature is named `LEAF_REGISTER_NAME`; the value is the bit's mask.

/// Leaf 1 ECX: PCID.
pub const L1_ECX_PCID: u32 = 1 << 17;
/// Leaf 1 ECX: MOVBE.
pub const L1_ECX_MOVBE: u32 = 1 << 22;
/// Leaf 1 ECX: POPCNT.
pub const L1_ECX_POPCNT: u32 = 1 << 23;
/// Leaf 1 ECX: x2APIC.
pub const L1_ECX_X2APIC: u32 = 1 << 21;
/// Leaf 1 ECX: MONITOR/MWAIT.
pub const L1_ECX_MONITOR: u32 = 1 << 3;
/// Leaf 1 ECX: CMPXCHG16B.
pub const L1_ECX_CX16: u32 = 1 << 13;
/// Leaf 1 ECX: TSC deadline timer.
pub const L1_ECX_TSC_DEADLINE: u32 = 1 << 24;
/// Leaf 1 ECX: XSAVE.
pub const L1_ECX_XSAVE: u32 = 1 << 26;
/// Leaf 1 ECX: CR4.OSXSAVE is set.
pub const L1_ECX_OSXSAVE: u32 = 1 << 27;
/// Leaf 1 ECX: a hypervisor is present.
pub const L1_ECX_HYPERVISOR: u32 = 1 << 31;
