//! Debug registers, SDM vol. 3 chapter 18.

/// DR6 after reset; these bits always read as one.
pub const DR6_INIT: u64 = 0xFFFF_0FF0;
/// DR6.BD: a debug register was accessed with DR7.GD set.
pub const DR6_BD: u64 = 1 << 13;
/// DR6.BS: single-step.
pub const DR6_BS: u64 = 1 << 14;
/// DR6.BT: task switch with T set.
pub const DR6_BT: u64 = 1 << 15;
/// DR7 after reset; bit 10 always reads as one.
pub const DR7_INIT: u64 = 0x400;
/// DR7.GD: general detect.
pub const DR7_GD: u64 = 1 << 13;
