//! Alarms, ends of interrupts, upcalls.

use board::{Board, DeliveryMode};
use guestmem::GuestMemory;
use vcpu::{Bus, Reply, StopReason};

use crate::{apic, board, board_with_memory, get_apic, set_apic};

fn taken(board: &mut Board, vector: u8) {
    assert!(board.deliver(0, vector, DeliveryMode::Fixed));
    assert_eq!(board.take_interrupt(0), Some(vector));
}

#[test]
fn an_alarm_stops_once() {
    let mut board = board(1);
    board.set_alarm(Some(100));
    board.advance(99);
    assert_eq!(board.take_stop(), None);
    assert_eq!(board.next_event_ns(), Some(100));
    board.advance(100);
    assert_eq!(board.take_stop(), Some(StopReason::Alarm));
    board.advance(1000);
    assert_eq!(board.take_stop(), None);
}

#[test]
fn watched_ends_are_told_one_by_one() {
    let mut board = board(1);
    board.watch_end_of_interrupt(0, 0x50, true);
    for (vector, expected) in [(0x50, true), (0x51, false)] {
        taken(&mut board, vector);
        assert_eq!(board.take_stop(), None);
        set_apic(&mut board, 0, apic::EOI, 0);
        let told = board.take_stop();
        assert_eq!(told, expected.then_some(StopReason::EndOfInterrupt { vcpu: 0, vector }));
    }
}

#[test]
fn automatic_ends_leave_nothing_in_service() {
    let mut board = board(1);
    board.set_auto_eoi(0, 0x60, true);
    board.watch_end_of_interrupt(0, 0x60, true);
    taken(&mut board, 0x60);
    assert_eq!(board.apic_eoi_state(0), (0, true));
    assert_eq!(board.take_stop(), Some(StopReason::EndOfInterrupt { vcpu: 0, vector: 0x60 }));
    taken(&mut board, 0x60);
}

#[test]
fn an_upcall_passes_the_local_apic_and_needs_its_byte() {
    let memory = GuestMemory::new(0x10_0000).unwrap();
    let mut board = board_with_memory(1, &memory);
    board.set_cr8(0, 15);
    board.set_upcall(0, Some((0x70, 0x1000)));
    assert!(!board.pending(0).interrupt);
    memory.write_bytes(0x1000, &[1]).unwrap();
    board.raise_upcall(0);
    assert!(board.pending(0).interrupt);
    assert_eq!(board.take_interrupt(0), Some(0x70));
    assert!(!board.pending(0).interrupt);

    board.raise_upcall(0);
    memory.write_bytes(0x1000, &[0]).unwrap();
    assert_eq!(board.take_interrupt(0), None);
    assert!(!board.pending(0).interrupt);
    board.set_upcall(0, Some((0x70, u64::MAX)));
    assert!(!board.pending(0).interrupt);
}

#[test]
fn registers_are_reached_in_either_mode_and_not_without() {
    const APIC_BASE: u32 = 0x1B;
    const X2APIC: u64 = 1 << 10;
    const ENABLE: u64 = 1 << 11;
    const SELF_IPI: u64 = 1 << 18;
    let mut board = board(1);
    assert!(board.write_apic(0, apic::TPR as u32, 0x35));
    assert_eq!(board.read_apic(0, apic::TPR as u32), Some(0x35));
    assert!(board.write_apic(0, apic::ICR as u32, 7 << 56 | SELF_IPI | 0x50));
    assert_eq!(board.read_apic(0, apic::ICR as u32), Some(7 << 56 | SELF_IPI | 0x50));
    assert_eq!(get_apic(&mut board, 0, apic::ICR_HIGH), 7 << 24);
    assert_eq!(board.take_interrupt(0), Some(0x50));
    assert!(board.write_apic(0, apic::EOI as u32, 0));
    assert_eq!(board.apic_eoi_state(0), (0, true));

    let base = board.apic_base(0);
    assert_eq!(board.msr_write(0, APIC_BASE, base | X2APIC), Reply::Done(()));
    assert!(board.write_apic(0, apic::ICR as u32, SELF_IPI | 0x60));
    assert_eq!(board.take_interrupt(0), Some(0x60));
    assert!(!board.write_apic(0, apic::ICR_HIGH as u32, 0), "x2APIC has no such register");
    assert!(!board.write_apic(0, apic::TPR as u32 + 4, 0));
    assert_eq!(board.read_apic(0, u32::MAX), None);

    assert_eq!(board.msr_write(0, APIC_BASE, base & !ENABLE), Reply::Done(()));
    assert_eq!(board.read_apic(0, apic::TPR as u32), None);
    assert!(!board.write_apic(0, apic::TPR as u32, 0));
}
