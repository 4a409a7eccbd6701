//! Paravirtual end of interrupt: a word in guest memory by which a guest ends an interrupt without reaching its local APIC.
//!
//! When an interrupt goes into service whose end would change nothing visible but its own bit (edge-triggered, alone in
//! service, nothing else requested) bit 0 of the word is set. A guest that finds it set clears it, and that was its EOI; a
//! guest that finds it clear writes EOI as ever. Before anybody looks at the local APIC the board looks at the word, and if
//! something comes in that makes the end matter, it takes the offer back.

use crate::board::Board;

/// Bit 0 of the word: no EOI is needed.
const NO_EOI_NEEDED: u32 = 1;

/// The area of one vCPU.
#[derive(Clone, Debug, Default, Hash)]
pub struct PvEoi {
    gpa: Option<u64>,
    /// The bit has been set by us and not been seen cleared.
    offered: bool,
}

impl Board {
    /// Give a vCPU its word (4 bytes of RAM, 4-byte aligned), or take it away.
    pub fn set_pv_eoi(&mut self, vcpu: usize, gpa: Option<u64>) {
        self.pv_eoi_withdraw(vcpu);
        self.pv_eoi[vcpu].gpa = gpa;
        self.sync(vcpu);
    }

    /// (number of interrupts in service, whether none is requested) of a vCPU's local APIC.
    pub fn apic_eoi_state(&mut self, vcpu: usize) -> (u32, bool) {
        self.pv_eoi_before_access(vcpu);
        self.sync(vcpu);
        self.apics[vcpu].eoi_state()
    }

    /// An interrupt has gone into service: offer, if its end may go unnoticed.
    pub(crate) fn pv_eoi_after_acknowledge(&mut self, vcpu: usize, vector: u8) {
        let Some(gpa) = self.pv_eoi[vcpu].gpa else { return };
        let apic = &self.apics[vcpu];
        let unnoticed =
            apic.eoi_state() == (1, true) && !apic.is_level(vector) && !self.ioapic.has_level_vector(vector);
        if unnoticed && self.set_no_eoi_needed(gpa, true) {
            self.pv_eoi[vcpu].offered = true;
        }
    }

    /// Somebody is about to look at the local APIC: if the guest has accepted the offer, that was an EOI.
    #[inline]
    pub(crate) fn pv_eoi_before_access(&mut self, vcpu: usize) {
        if self.pv_eoi[vcpu].offered && !self.is_no_eoi_needed(vcpu) {
            self.pv_eoi[vcpu].offered = false;
            self.apics[vcpu].end_of_interrupt();
        }
    }

    /// Something has happened at the local APIC: an offer stands only while nothing is requested.
    #[inline]
    pub(crate) fn pv_eoi_after_change(&mut self, vcpu: usize) {
        if self.pv_eoi[vcpu].offered && self.apics[vcpu].eoi_state() != (1, true) {
            self.pv_eoi_withdraw(vcpu);
        }
    }

    /// Take the offer back. If the guest has accepted it already, the interrupt has ended.
    pub(crate) fn pv_eoi_withdraw(&mut self, vcpu: usize) {
        self.pv_eoi_before_access(vcpu);
        self.pv_eoi_forget(vcpu);
    }

    /// Take the offer back because the local APIC itself starts anew, or its EOI register is written.
    pub(crate) fn pv_eoi_forget(&mut self, vcpu: usize) {
        if std::mem::take(&mut self.pv_eoi[vcpu].offered)
            && let Some(gpa) = self.pv_eoi[vcpu].gpa
        {
            self.set_no_eoi_needed(gpa, false);
        }
    }

    /// RESET: no vCPU has a word.
    pub(crate) fn pv_eoi_reset(&mut self) {
        self.pv_eoi.fill(PvEoi::default());
    }

    fn is_no_eoi_needed(&self, vcpu: usize) -> bool {
        self.pv_eoi[vcpu].gpa.and_then(|gpa| self.read_word(gpa)).is_some_and(|word| word & NO_EOI_NEEDED != 0)
    }

    /// Returns false if the word is not RAM.
    fn set_no_eoi_needed(&self, gpa: u64, value: bool) -> bool {
        let Some(word) = self.read_word(gpa) else { return false };
        let word = if value { word | NO_EOI_NEEDED } else { word & !NO_EOI_NEEDED };
        self.memory.write_bytes(gpa, &word.to_le_bytes()).is_ok()
    }

    fn read_word(&self, gpa: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.memory.read_bytes(gpa, &mut bytes).ok()?;
        Some(u32::from_le_bytes(bytes))
    }
}
