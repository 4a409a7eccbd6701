//! Virtual time: when what fires.

use vcpu::Bus;

use super::*;

const PERIODIC: u32 = 1 << 17;
const DEADLINE: u32 = 2 << 17;

fn start_apic_timer(board: &mut Board, vcpu: usize, lvt: u32, count: u32) {
    set_apic(board, vcpu, apic::DIVIDE, 0xB);
    set_apic(board, vcpu, apic::LVT_TIMER, lvt);
    set_apic(board, vcpu, apic::INITIAL_COUNT, count);
}

#[test]
fn the_earliest_timer_is_the_next_event() {
    let mut board = board(2);
    assert_eq!(board.next_event_ns(), None);
    start_apic_timer(&mut board, 0, 0x40, 500);
    start_apic_timer(&mut board, 1, 0x41, 300);
    assert_eq!(board.next_event_ns(), Some(300));
    board.advance(300);
    assert!(board.pending(1).interrupt && !board.pending(0).interrupt);
    assert_eq!(board.next_event_ns(), Some(500));
    board.advance(10_000);
    assert!(board.pending(0).interrupt);
    assert_eq!(board.next_event_ns(), None);
}

#[test]
fn time_does_not_go_back() {
    let mut board = board(1);
    board.advance(1000);
    board.advance(10);
    start_apic_timer(&mut board, 0, 0x40, 100);
    assert_eq!(board.next_event_ns(), Some(1100));
}

#[test]
fn the_fastest_periodic_timer_does_not_hang_a_long_idle_time() {
    let mut board = board(1);
    start_apic_timer(&mut board, 0, PERIODIC | 0x40, 1);
    board.advance(u64::MAX / 2);
    assert_eq!(board.take_interrupt(0), Some(0x40));
    assert_eq!(board.next_event_ns(), Some(u64::MAX / 2 + 1));
}

#[test]
fn a_deadline_follows_the_vcpus_tsc() {
    let mut board = board(1);
    board.set_tsc_offset(0, 1000);
    set_apic(&mut board, 0, apic::LVT_TIMER, DEADLINE | 0x40);
    assert_eq!(board.msr_write(0, 0x6E0, 1500), Reply::Done(()));
    assert_eq!(board.next_event_ns(), Some(500));
    board.set_tsc_offset(0, 1200);
    assert_eq!(board.next_event_ns(), Some(300));
    board.advance(300);
    assert_eq!(board.msr_read(0, 0x6E0), Reply::Done(0));
    assert!(board.pending(0).interrupt);
}

#[test]
fn the_interval_timer_ticks_18_times_a_second_after_handoff() {
    let mut board = board(1);
    board.firmware_handoff();
    let mut ticks = 0;
    while let Some(next) = board.next_event_ns().filter(|&next| next <= 1_000_000_000) {
        board.advance(next);
        assert_eq!(board.take_interrupt(0), Some(8));
        outb(&mut board, 0x20, 0x20);
        ticks += 1;
    }
    assert_eq!(ticks, 18);
}

#[test]
fn a_tick_that_nobody_can_hear_wakes_nobody() {
    let mut board = board(1);
    board.firmware_handoff();
    outb(&mut board, 0x21, 0xFF);
    let first = board.next_event_ns().unwrap();
    board.advance(first);
    assert_eq!(board.next_event_ns(), None, "latched and masked");
    program_ioapic(&mut board, 2, 0x30);
    assert!(board.next_event_ns().is_some());
}

#[test]
fn the_clock_interrupts_through_line_8() {
    let mut board = board(1);
    program_ioapic(&mut board, 8, 0x48);
    outb(&mut board, 0x70, 0x0B);
    outb(&mut board, 0x71, 0x12);
    assert_eq!(board.next_event_ns(), Some(1_000_000_000));
    board.advance(1_000_000_000);
    assert_eq!(board.take_interrupt(0), Some(0x48));
    assert_eq!(board.next_event_ns(), None);
    outb(&mut board, 0x70, 0x0C);
    assert_eq!(inb(&mut board, 0x71) & 0x90, 0x90);
    assert_eq!(board.next_event_ns(), Some(2_000_000_000));
}

#[test]
fn equal_histories_hash_equal_and_others_do_not() {
    let run = |steps: u64| {
        let mut board = board(2);
        board.firmware_handoff();
        start_apic_timer(&mut board, 1, PERIODIC | 0x40, 777);
        for step in 1..=steps {
            board.advance(step * 1000);
            board.take_interrupt(1);
            set_apic(&mut board, 1, apic::EOI, 0);
        }
        state_hash(&board)
    };
    assert_eq!(run(50), run(50));
    assert_ne!(run(50), run(51));
}

#[test]
fn the_end_of_time_is_reached() {
    let mut board = board(1);
    board.firmware_handoff();
    start_apic_timer(&mut board, 0, PERIODIC | 0x40, 3);
    for (index, value) in [(0x0A, 0x23), (0x0B, 0x72)] {
        outb(&mut board, 0x70, index);
        outb(&mut board, 0x71, value);
    }
    outb(&mut board, 0x602, 1);
    for now in [u64::MAX / 3, u64::MAX - 1, u64::MAX] {
        board.advance(now);
        board.take_interrupt(0);
        outb(&mut board, 0x70, 0x0C);
        inb(&mut board, 0x71);
        assert!(board.next_event_ns().is_none_or(|next| next > now));
    }
}

/// Where the HPET is, and its registers.
const HPET: u64 = 0xFED0_0000;

#[test]
fn the_hpet_takes_the_timer_interrupt_over() {
    let mut board = board(1);
    board.firmware_handoff();
    outb(&mut board, 0x21, 0xFE);
    board.advance(100_000_000);
    assert_eq!(board.take_interrupt(0), Some(8), "the 8254's");
    outb(&mut board, 0x20, 0x20);
    for (register, value) in [(0x100, 4), (0x108, 20_000_000), (0x10, 3)] {
        let _ = board.mmio_write(0, HPET + register, 8, value);
    }
    board.advance(299_999_999);
    assert!(!board.pending(0).interrupt, "the 8254 is cut off");
    board.advance(300_000_000);
    assert_eq!(board.take_interrupt(0), Some(8), "the HPET's");
}
