//! The register map of the local APIC, SDM vol. 3 tables 12-1 and 12-6.
//!
//! Offsets are those of the xAPIC page; the x2APIC MSR of a register is `0x800 + offset / 16`.

pub const ID: u32 = 0x020;
pub const VERSION: u32 = 0x030;
/// Task priority.
pub const TPR: u32 = 0x080;
/// Arbitration priority.
pub const APR: u32 = 0x090;
/// Processor priority.
pub const PPR: u32 = 0x0A0;
pub const EOI: u32 = 0x0B0;
/// Remote read.
pub const RRD: u32 = 0x0C0;
/// Logical destination.
pub const LDR: u32 = 0x0D0;
/// Destination format.
pub const DFR: u32 = 0x0E0;
/// Spurious-interrupt vector.
pub const SVR: u32 = 0x0F0;
/// In-service, eight registers.
pub const ISR: u32 = 0x100;
pub const ISR_LAST: u32 = 0x170;
/// Trigger mode, eight registers.
pub const TMR: u32 = 0x180;
pub const TMR_LAST: u32 = 0x1F0;
/// Interrupt request, eight registers.
pub const IRR: u32 = 0x200;
pub const IRR_LAST: u32 = 0x270;
/// Error status.
pub const ESR: u32 = 0x280;
/// Interrupt command, bits 31:0 (in x2APIC mode all 64 bits).
pub const ICR: u32 = 0x300;
/// Interrupt command, bits 63:32.
pub const ICR_HIGH: u32 = 0x310;
pub const LVT_TIMER: u32 = 0x320;
pub const LVT_THERMAL: u32 = 0x330;
pub const LVT_PERFORMANCE: u32 = 0x340;
pub const LVT_LINT0: u32 = 0x350;
pub const LVT_LINT1: u32 = 0x360;
pub const LVT_ERROR: u32 = 0x370;
pub const INITIAL_COUNT: u32 = 0x380;
pub const CURRENT_COUNT: u32 = 0x390;
pub const DIVIDE: u32 = 0x3E0;
/// x2APIC only.
pub const SELF_IPI: u32 = 0x3F0;

/// Version 0x14 (integrated APIC, xAPIC), six LVT entries, EOI broadcasts can be suppressed.
pub const VERSION_VALUE: u32 = 1 << 24 | 5 << 16 | 0x14;

/// SVR: the APIC is enabled by software.
pub const SVR_ENABLE: u32 = 1 << 8;
/// SVR: an EOI is not broadcast to the I/O APICs.
pub const SVR_SUPPRESS_EOI_BROADCAST: u32 = 1 << 12;
/// SVR bits that exist: vector, enable, focus checking, EOI suppression.
pub const SVR_BITS: u32 = 0x13FF;

/// ESR: an IPI with a vector below 16 was sent.
pub const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
/// ESR: an interrupt with a vector below 16 was received.
pub const ESR_RECEIVE_ILLEGAL_VECTOR: u32 = 1 << 6;
/// ESR: a register that does not exist was accessed.
pub const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;

/// LVT: level-triggered (LINT0 and LINT1).
pub const LVT_LEVEL: u32 = 1 << 15;
/// LVT: masked.
pub const LVT_MASKED: u32 = 1 << 16;
/// LVT timer: mode field.
pub const LVT_TIMER_MODE: u32 = 3 << 17;
pub const LVT_TIMER_PERIODIC: u32 = 1 << 17;
pub const LVT_TIMER_TSC_DEADLINE: u32 = 2 << 17;
/// LVT: delivery status and remote IRR, which software cannot write.
pub const LVT_READ_ONLY: u32 = 1 << 12 | 1 << 14;

/// Entries of the local vector table, in the order of their registers.
pub const LVT_COUNT: usize = 6;

/// Index of an LVT register in the table.
pub fn lvt_index(offset: u32) -> usize {
    ((offset - LVT_TIMER) / 0x10) as usize
}

/// Bits of an LVT register that software may write.
pub fn lvt_writable(offset: u32, tsc_deadline: bool) -> u32 {
    const VECTOR: u32 = 0xFF;
    const DELIVERY_MODE: u32 = 7 << 8;
    const POLARITY: u32 = 1 << 13;
    match offset {
        LVT_TIMER => VECTOR | LVT_MASKED | LVT_TIMER_PERIODIC | if tsc_deadline { LVT_TIMER_TSC_DEADLINE } else { 0 },
        LVT_LINT0 | LVT_LINT1 => VECTOR | DELIVERY_MODE | POLARITY | LVT_LEVEL | LVT_MASKED,
        LVT_ERROR => VECTOR | LVT_MASKED,
        LVT_THERMAL | LVT_PERFORMANCE => VECTOR | DELIVERY_MODE | LVT_MASKED,
        _ => 0,
    }
}
