//! Interrupts between local APICs, I/O APIC and 8259s.

use board::DeliveryMode;
use vcpu::Bus;

use super::*;

const FIXED: u32 = 0x4000;
const LOGICAL: u32 = 0x800;
const LOWEST_PRIORITY: u32 = 0x100;
const NMI: u32 = 0x400;
const INIT: u32 = 0x500;
const SIPI: u32 = 0x600;
const ALL_BUT_SELF: u32 = 0xC_0000;
const LEVEL: u64 = 0x8000;
const MASKED: u64 = 0x1_0000;

/// Take and end what each vCPU has; the vectors.
fn taken(board: &mut Board) -> Vec<Option<u8>> {
    (0..board.vcpus())
        .map(|vcpu| {
            let waits = board.pending(vcpu).interrupt;
            let vector = board.take_interrupt(vcpu);
            assert_eq!(waits, vector.is_some(), "what is pending is what can be taken");
            set_apic(board, vcpu, apic::EOI, 0);
            vector
        })
        .collect()
}

#[test]
fn an_ipi_reaches_its_destination_only() {
    let mut board = board(3);
    ipi(&mut board, 0, FIXED | 0x40, 1);
    assert_eq!(taken(&mut board), [None, Some(0x40), None]);
    ipi(&mut board, 0, FIXED | 0x41, 0xFF);
    assert_eq!(taken(&mut board), [Some(0x41); 3]);
    ipi(&mut board, 1, FIXED | ALL_BUT_SELF | 0x42, 0);
    assert_eq!(taken(&mut board), [Some(0x42), None, Some(0x42)]);
    ipi(&mut board, 1, FIXED | 0x43, 7);
    assert_eq!(taken(&mut board), [None; 3]);
}

#[test]
fn logical_destinations_select_by_bit() {
    let mut board = board(3);
    for vcpu in 0..3 {
        set_apic(&mut board, vcpu, apic::LDR, 1 << (24 + vcpu));
    }
    ipi(&mut board, 0, FIXED | LOGICAL | 0x40, 0b101);
    assert_eq!(taken(&mut board), [Some(0x40), None, Some(0x40)]);
}

#[test]
fn lowest_priority_goes_to_the_least_busy() {
    let mut board = board(3);
    set_apic(&mut board, 0, apic::TPR, 0x50);
    set_apic(&mut board, 1, apic::TPR, 0x20);
    set_apic(&mut board, 2, apic::TPR, 0x30);
    ipi(&mut board, 0, LOWEST_PRIORITY | FIXED | 0x60, 0xFF);
    assert_eq!(taken(&mut board), [None, Some(0x60), None]);
}

#[test]
fn x2apic_ipis_have_32_bit_destinations() {
    let mut board = board(2);
    for vcpu in 0..2 {
        let base = board.apic_base(vcpu);
        assert_eq!(board.msr_write(vcpu, 0x1B, base | 0x400), Reply::Done(()));
    }
    assert_eq!(board.msr_write(0, 0x830, 1 << 32 | 0x40), Reply::Done(()));
    assert!(!board.pending(0).interrupt && board.pending(1).interrupt);
    assert_eq!(board.msr_write(0, 0x830, 0xFFFF_FFFF << 32 | 0x41), Reply::Done(()));
    assert_eq!(board.take_interrupt(0), Some(0x41));
    assert_eq!(board.msr_write(0, 0x83F, 0x55), Reply::Done(()));
    assert_eq!(board.take_interrupt(0), Some(0x55));
}

#[test]
fn init_then_sipi_starts_an_application_processor_at_its_vector() {
    let mut board = board(2);
    ipi(&mut board, 0, INIT | FIXED | ALL_BUT_SELF, 0);
    ipi(&mut board, 0, SIPI | ALL_BUT_SELF | 0x9A, 0);
    assert!(board.pending(1).init && board.pending(1).sipi && !board.pending(0).any());
    assert!(!board.take_init(1));
    board.set_wait_for_sipi(1, true);
    assert_eq!(board.take_sipi(1), 0x9A);
    board.set_wait_for_sipi(1, false);
    assert!(!board.pending(1).any());
    ipi(&mut board, 0, SIPI | ALL_BUT_SELF | 0x10, 0);
    assert!(!board.pending(1).sipi, "a running processor ignores it");
}

#[test]
fn init_makes_a_running_processor_accept_the_sipi_after_it() {
    let mut board = board(2);
    board.set_wait_for_sipi(1, false);
    ipi(&mut board, 0, SIPI | ALL_BUT_SELF | 0x10, 0);
    ipi(&mut board, 0, INIT | FIXED | ALL_BUT_SELF, 0);
    ipi(&mut board, 0, SIPI | ALL_BUT_SELF | 0x11, 0);
    assert!(!board.take_init(1));
    assert!(board.pending(1).sipi);
    assert_eq!(board.take_sipi(1), 0x11);
}

#[test]
fn the_boot_processor_restarts_on_init() {
    let mut board = board(2);
    ipi(&mut board, 0, INIT | 0x4_0000, 0);
    ipi(&mut board, 0, SIPI | 0x4_0000 | 1, 0);
    assert!(board.take_init(0));
    assert!(!board.pending(0).any());
}

#[test]
fn nmi_is_latched_until_taken() {
    let mut board = board(2);
    ipi(&mut board, 0, NMI, 1);
    ipi(&mut board, 0, NMI, 1);
    assert!(board.pending(1).nmi);
    board.take_nmi(1);
    assert!(!board.pending(1).nmi);
}

#[test]
fn the_host_delivers_by_apic_id() {
    let mut board = board(2);
    assert!(board.deliver(1, 0x44, DeliveryMode::Fixed));
    assert!(board.deliver(0, 0, DeliveryMode::Nmi));
    assert!(!board.deliver(2, 0x44, DeliveryMode::Fixed));
    assert!(board.pending(0).nmi && board.pending(1).interrupt);
    set_apic(&mut board, 1, apic::ID, 9 << 24);
    assert_eq!(board.apic_ids(), [0, 9]);
    assert!(board.deliver(9, 0x45, DeliveryMode::Fixed));
}

#[test]
fn a_level_interrupt_comes_again_until_its_line_falls() {
    let mut board = board(1);
    program_ioapic(&mut board, 14, LEVEL | 0x77);
    board.set_irq(14, true);
    assert_eq!(board.take_interrupt(0), Some(0x77));
    board.set_irq(14, true);
    assert!(!board.pending(0).interrupt, "remote IRR holds it");
    set_apic(&mut board, 0, apic::EOI, 0);
    assert_eq!(board.take_interrupt(0), Some(0x77));
    board.set_irq(14, false);
    set_apic(&mut board, 0, apic::EOI, 0);
    assert_eq!(board.take_interrupt(0), None);
}

#[test]
fn a_level_interrupt_that_nobody_takes_is_not_awaited() {
    let mut board = board(1);
    program_ioapic(&mut board, 14, 5 << 56 | LEVEL | 0x77);
    board.set_irq(14, true);
    program_ioapic(&mut board, 14, LEVEL | 0x77);
    assert!(board.pending(0).interrupt);
}

#[test]
fn suppressed_broadcasts_leave_the_end_to_the_ioapics_register() {
    let mut board = board(1);
    set_apic(&mut board, 0, apic::SVR, 0x11FF);
    program_ioapic(&mut board, 14, LEVEL | 0x77);
    board.set_irq(14, true);
    board.take_interrupt(0);
    set_apic(&mut board, 0, apic::EOI, 0);
    assert!(!board.pending(0).interrupt);
    let _ = board.mmio_write(0, IOAPIC + 0x40, 4, 0x77);
    assert!(board.pending(0).interrupt);
}

#[test]
fn the_timers_line_is_pin_2() {
    let mut board = board(1);
    program_ioapic(&mut board, 0, 0x50);
    program_ioapic(&mut board, 2, 0x52);
    board.set_irq(0, true);
    assert_eq!(board.take_interrupt(0), Some(0x52));
}

#[test]
fn lines_that_do_not_exist_are_ignored() {
    let mut board = board(1);
    for gsi in [24, 31, 32, 64, u32::MAX] {
        board.set_irq(gsi, true);
    }
    assert!(!board.pending(0).any());
}

#[test]
fn the_8259_comes_through_the_virtual_wire_before_the_apic() {
    let mut board = board(2);
    board.firmware_handoff();
    outb(&mut board, 0xA1, 0xF7);
    board.set_irq(11, true);
    assert!(board.pending(0).interrupt && !board.pending(1).interrupt);
    ipi(&mut board, 1, FIXED | 0xF0, 0);
    assert_eq!(board.take_interrupt(0), Some(0x73));
    assert_eq!(board.take_interrupt(0), Some(0xF0));
    set_apic(&mut board, 0, apic::LVT_LINT0, 0x1_0700);
    outb(&mut board, 0xA0, 0x20);
    outb(&mut board, 0x20, 0x20);
    board.set_irq(11, false);
    board.set_irq(11, true);
    assert!(!board.pending(0).interrupt);
}

#[test]
fn lint0_can_be_an_ordinary_interrupt() {
    let mut board = board(1);
    board.firmware_handoff();
    outb(&mut board, 0x21, 0);
    set_apic(&mut board, 0, apic::LVT_LINT0, 0x66);
    board.set_irq(5, true);
    assert_eq!(board.take_interrupt(0), Some(0x66));
}

#[test]
fn masked_pins_lose_edges_but_not_levels() {
    let mut board = board(1);
    for (trigger, expected) in [(0, None), (LEVEL, Some(0x81))] {
        program_ioapic(&mut board, 15, MASKED | trigger | 0x81);
        board.set_irq(15, true);
        program_ioapic(&mut board, 15, trigger | 0x81);
        assert_eq!(board.take_interrupt(0), expected);
        board.set_irq(15, false);
    }
}

#[test]
fn task_priority_and_cr8_are_one() {
    let mut board = board(1);
    board.set_cr8(0, 0xB);
    assert_eq!(get_apic(&mut board, 0, apic::TPR), 0xB0);
    ipi(&mut board, 0, FIXED | 0xB5, 0);
    assert!(!board.pending(0).interrupt);
    board.set_cr8(0, 0xA);
    assert!(board.pending(0).interrupt);
    set_apic(&mut board, 0, apic::TPR, 0x37);
    assert_eq!(board.cr8(0), 3);
}

#[test]
fn the_page_moves_for_one_vcpu_alone() {
    let mut board = board(2);
    assert_eq!(board.msr_write(1, 0x1B, 0xFED4_0800), Reply::Done(()));
    assert_eq!(board.mmio_read(1, 0xFED4_0030, 4), Reply::Done(0x0105_0014));
    assert_eq!(board.mmio_read(1, APIC + 0x30, 4), Reply::Done(0xFFFF_FFFF));
    assert_eq!(board.mmio_read(0, APIC + 0x30, 4), Reply::Done(0x0105_0014));
    assert_eq!(board.mmio_read(0, 0xFED4_0030, 4), Reply::Done(0xFFFF_FFFF));
}

#[test]
fn switched_off_the_apic_hears_nothing_and_cr8_still_works() {
    let mut board = board(2);
    assert_eq!(board.msr_write(1, 0x1B, 0xFEE0_0000), Reply::Done(()));
    ipi(&mut board, 0, FIXED | 0x40, 0xFF);
    ipi(&mut board, 0, NMI, 1);
    assert!(!board.pending(1).any());
    board.set_cr8(1, 5);
    assert_eq!(board.cr8(1), 5);
    assert_eq!(board.mmio_read(1, APIC + apic::TPR, 4), Reply::Done(0xFFFF_FFFF));
}

#[test]
fn an_x87_error_is_irq_13_until_a_write_to_f0h() {
    let mut board = board(1);
    // The second 8259: what it is asked.
    outb(&mut board, 0xA0, 0x0A);
    assert_eq!(inb(&mut board, 0xA0) & 1 << 5, 0);
    assert!(!board.x87_error(0, true), "IGNNE# is off");
    assert_eq!(inb(&mut board, 0xA0) & 1 << 5, 1 << 5);
    outb(&mut board, 0xF0, 0);
    assert!(board.x87_error(0, false), "the handler has seen it");
    assert!(!board.x87_error(0, true), "a new one");
}
