//! Interrupt messages: what travels between local APICs, I/O APIC and devices, and who is meant.

use super::{LocalApic, Mode};

/// Delivery mode of a message, bits 10:8 of the ICR and of redirection entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DeliveryMode {
    /// The vector, to every destination.
    Fixed = 0,
    /// The vector, to the destination with the lowest processor priority.
    LowestPriority = 1,
    /// System management interrupt: there is no SMM here, so it goes nowhere.
    Smi = 2,
    /// Reserved (once remote read).
    Reserved = 3,
    /// NMI; the vector is ignored.
    Nmi = 4,
    /// INIT.
    Init = 5,
    /// Start-up IPI; the vector is a page number.
    StartUp = 6,
    /// The vector comes from the 8259.
    ExtInt = 7,
}

impl DeliveryMode {
    /// From the three bits of a register; higher bits are ignored.
    pub fn from_bits(bits: u32) -> Self {
        match bits & 7 {
            0 => Self::Fixed,
            1 => Self::LowestPriority,
            2 => Self::Smi,
            3 => Self::Reserved,
            4 => Self::Nmi,
            5 => Self::Init,
            6 => Self::StartUp,
            _ => Self::ExtInt,
        }
    }

    /// Whether the message carries a vector that goes through the IRR.
    pub fn has_vector(self) -> bool {
        matches!(self, Self::Fixed | Self::LowestPriority)
    }
}

/// Who is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// The local APIC with this id.
    Physical(u32),
    /// Every local APIC whose logical id matches.
    Logical(u32),
    /// Everybody.
    All,
    /// Everybody but this vCPU.
    AllBut(usize),
    /// This vCPU.
    Only(usize),
}

impl Destination {
    /// An 8-bit destination, as xAPIC ICRs, redirection entries and MSIs have.
    pub fn narrow(id: u8, logical: bool) -> Self {
        match id {
            0xFF => Self::All,
            _ if logical => Self::Logical(u32::from(id)),
            _ => Self::Physical(u32::from(id)),
        }
    }

    /// A 32-bit destination, as the x2APIC's ICR has.
    pub fn wide(id: u32, logical: bool) -> Self {
        match id {
            0xFFFF_FFFF => Self::All,
            _ if logical => Self::Logical(id),
            _ => Self::Physical(id),
        }
    }

    /// Whether vCPU `index` with its local APIC is meant.
    pub fn includes(self, index: usize, apic: &LocalApic) -> bool {
        match self {
            Self::Physical(id) => apic.id() == id,
            Self::Logical(id) => matches_logical(apic, id),
            Self::All => true,
            Self::AllBut(other) => index != other,
            Self::Only(only) => index == only,
        }
    }
}

/// SDM vol. 3 sections 12.6.2.2 and 12.12.10.1.
fn matches_logical(apic: &LocalApic, destination: u32) -> bool {
    let own = apic.logical_id();
    if apic.mode() == Mode::X2Apic {
        return own >> 16 == destination >> 16 && own & destination & 0xFFFF != 0;
    }
    if apic.is_flat() {
        own & destination & 0xFF != 0
    } else {
        own >> 4 == destination >> 4 && own & destination & 0xF != 0
    }
}

/// An interrupt message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub destination: Destination,
    pub mode: DeliveryMode,
    pub vector: u8,
    pub level_triggered: bool,
}

/// What a write to the ICR asks for. `vcpu` is the sender.
///
/// `None` for an INIT level de-assert, which only ancient processors had (SDM vol. 3 section 12.6.1).
pub fn decode_icr(low: u32, destination: Destination, vcpu: usize) -> Option<Message> {
    const LEVEL_ASSERT: u32 = 1 << 14;
    const TRIGGER_LEVEL: u32 = 1 << 15;
    let mode = DeliveryMode::from_bits(low >> 8);
    if mode == DeliveryMode::Init && low & TRIGGER_LEVEL != 0 && low & LEVEL_ASSERT == 0 {
        return None;
    }
    let destination = match low >> 18 & 3 {
        0 => destination,
        1 => Destination::Only(vcpu),
        2 => Destination::All,
        _ => Destination::AllBut(vcpu),
    };
    // IPIs are edge-triggered whatever the trigger mode bit says, but for INIT de-assert.
    Some(Message { destination, mode, vector: low as u8, level_triggered: false })
}
