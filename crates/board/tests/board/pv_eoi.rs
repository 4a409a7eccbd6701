//! End of interrupt through a word in memory: offered when nobody could tell, taken back when somebody could.

use board::DeliveryMode;
use vcpu::Bus;

use super::*;

const WORD: u64 = 0x2004;

struct Machine {
    memory: GuestMemory,
    board: Board,
}

impl Machine {
    fn new() -> Self {
        let memory = GuestMemory::new(0x10_0000).unwrap();
        let mut board = board_with_memory(1, &memory);
        board.set_pv_eoi(0, Some(WORD));
        Self { memory, board }
    }

    fn interrupt(&mut self, vector: u8) {
        assert!(self.board.deliver(0, vector, DeliveryMode::Fixed));
    }

    fn word(&self) -> u32 {
        let mut bytes = [0; 4];
        self.memory.read_bytes(WORD, &mut bytes).unwrap();
        u32::from_le_bytes(bytes)
    }

    /// What a guest does at the end of its handler: test and clear the bit, and write EOI if it was clear.
    fn guest_eoi(&mut self) {
        if self.word() & 1 != 0 {
            self.memory.write_bytes(WORD, &(self.word() & !1).to_le_bytes()).unwrap();
        } else {
            set_apic(&mut self.board, 0, apic::EOI, 0);
        }
    }

    fn eoi_state(&mut self) -> (u32, bool) {
        self.board.apic_eoi_state(0)
    }
}

#[test]
fn a_lone_edge_needs_no_eoi() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    assert_eq!(machine.board.take_interrupt(0), Some(0x40));
    assert_eq!(machine.word(), 1);
    assert_eq!(machine.eoi_state(), (1, true));
    machine.guest_eoi();
    assert_eq!(machine.eoi_state(), (0, true));
}

#[test]
fn the_next_interrupt_finds_the_last_one_ended() {
    let mut machine = Machine::new();
    for vector in [0x40, 0x40, 0x30, 0x50] {
        machine.interrupt(vector);
        assert_eq!(machine.board.take_interrupt(0), Some(vector));
        assert_eq!(machine.word(), 1);
        machine.guest_eoi();
    }
}

#[test]
fn an_interrupt_that_waits_for_the_eoi_takes_the_offer_back() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    machine.interrupt(0x41);
    assert_eq!(machine.word(), 0);
    assert!(!machine.board.pending(0).interrupt);
    machine.guest_eoi();
    assert!(machine.board.pending(0).interrupt, "it was a real EOI");
}

#[test]
fn an_accepted_offer_lets_the_next_interrupt_through() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    machine.guest_eoi();
    machine.interrupt(0x41);
    assert!(machine.board.pending(0).interrupt);
    assert_eq!(machine.board.take_interrupt(0), Some(0x41));
    assert_eq!(machine.eoi_state(), (1, true));
}

#[test]
fn a_second_request_means_no_offer() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.interrupt(0x30);
    assert_eq!(machine.board.take_interrupt(0), Some(0x40));
    assert_eq!(machine.word(), 0);
}

#[test]
fn a_nested_interrupt_means_no_offer() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    machine.interrupt(0x60);
    assert_eq!(machine.board.take_interrupt(0), Some(0x60));
    assert_eq!(machine.word(), 0);
    assert_eq!(machine.eoi_state(), (2, true));
}

#[test]
fn a_level_interrupt_needs_its_eoi() {
    let mut machine = Machine::new();
    program_ioapic(&mut machine.board, 5, 0x8000 | 0x45);
    machine.board.set_irq(5, true);
    machine.board.take_interrupt(0);
    assert_eq!(machine.word(), 0);
}

#[test]
fn a_guest_that_writes_eoi_all_the_same_ends_one_interrupt_once() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    set_apic(&mut machine.board, 0, apic::EOI, 0);
    assert_eq!(machine.word(), 0);
    assert_eq!(machine.eoi_state(), (0, true));
}

#[test]
fn other_bits_of_the_word_are_the_guests() {
    let mut machine = Machine::new();
    machine.memory.write_bytes(WORD, &0xABCD_EF00u32.to_le_bytes()).unwrap();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    assert_eq!(machine.word(), 0xABCD_EF01);
    machine.board.set_pv_eoi(0, None);
    assert_eq!(machine.word(), 0xABCD_EF00);
    assert_eq!(machine.eoi_state(), (1, true));
}

#[test]
fn a_word_outside_of_ram_is_never_offered() {
    let mut machine = Machine::new();
    machine.board.set_pv_eoi(0, Some(!3));
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    assert_eq!(machine.eoi_state(), (1, true));
    set_apic(&mut machine.board, 0, apic::EOI, 0);
    assert_eq!(machine.eoi_state(), (0, true));
}

#[test]
fn init_takes_the_offer_back() {
    let mut machine = Machine::new();
    machine.interrupt(0x40);
    machine.board.take_interrupt(0);
    machine.board.take_init(0);
    assert_eq!(machine.word(), 0);
    assert_eq!(machine.eoi_state(), (0, true));
}
