//! Message-signalled interrupts: a write to the local APICs' addresses, SDM vol. 3 section 11.11.

use crate::lapic::{DeliveryMode, Destination, Message};

/// Bits 31:20 of the address.
const ADDRESS_BASE: u64 = 0xFEE;
const LOGICAL: u64 = 1 << 2;
const LEVEL: u32 = 1 << 15;

/// The interrupt that a write means; `None`: it goes to no local APIC.
///
/// The redirection hint (bit 3) asks for one of several destinations; the delivery mode says that too, and is what counts here
/// as on most chipsets.
pub fn decode(address: u64, data: u32) -> Option<Message> {
    if address >> 20 != ADDRESS_BASE {
        return None;
    }
    let mode = DeliveryMode::from_bits(data >> 8);
    Some(Message {
        destination: Destination::narrow((address >> 12) as u8, address & LOGICAL != 0),
        mode,
        vector: data as u8,
        level_triggered: data & LEVEL != 0 && mode.has_vector(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_destination_and_vector() {
        let message = decode(0xFEE0_3000, 0x0031).unwrap();
        assert_eq!(message.destination, Destination::Physical(3));
        assert_eq!((message.mode, message.vector, message.level_triggered), (DeliveryMode::Fixed, 0x31, false));
        let message = decode(0xFEE0_100C, 0x8141).unwrap();
        assert_eq!(message.destination, Destination::Logical(1));
        assert_eq!((message.mode, message.level_triggered), (DeliveryMode::LowestPriority, true));
        assert_eq!(decode(0xFEE0_0000, 0x400).unwrap().mode, DeliveryMode::Nmi);
    }

    #[test]
    fn elsewhere_there_is_no_interrupt() {
        for address in [0, 0xFEC0_0000, 0xFEF0_0000, 0x1_FEE0_0000, u64::MAX] {
            assert_eq!(decode(address, 0x31), None);
        }
    }
}
