//! Reset and power-off.

use board::ResetKind;
use vcpu::{Bus, StopReason};

use super::*;

#[test]
fn every_way_to_reset_or_switch_off() {
    for (writes, reason) in [
        (&[(0x92, 1)][..], StopReason::SoftReset),
        (&[(0x64, 0xFE)], StopReason::SoftReset),
        (&[(0x64, 0xD1), (0x60, 0xDE)], StopReason::SoftReset),
        (&[(0xCF9, 0), (0xCF9, 4)], StopReason::SoftReset),
        (&[(0xCF9, 2), (0xCF9, 6)], StopReason::Reset),
        (&[(0x604, 0), (0x605, 0x20)], StopReason::PowerOff),
    ] {
        let mut board = board(1);
        for &(port, value) in writes {
            assert_eq!(board.take_stop(), None);
            outb(&mut board, port, value);
        }
        assert_eq!(board.take_stop(), Some(reason), "{writes:x?}");
    }
}

#[test]
fn the_text_to_bochs_port_switches_off() {
    let mut board = board(1);
    for &byte in b"Shutdown" {
        assert_eq!(board.take_stop(), None);
        outb(&mut board, 0x8900, byte);
    }
    assert_eq!(board.take_stop(), Some(StopReason::PowerOff));
}

#[test]
fn a_hard_reset_equals_power_on_but_for_time_and_battery() {
    let mut used = board(2);
    used.firmware_handoff();
    outb(&mut used, 0x92, 1);
    outb(&mut used, 0x4D0, 0xF8);
    set_apic(&mut used, 1, apic::LVT_TIMER, 0x40);
    set_apic(&mut used, 1, apic::INITIAL_COUNT, 5);
    program_ioapic(&mut used, 3, 0x55);
    used.reset(ResetKind::Hard);
    let mut fresh = board(2);
    fresh.firmware_handoff();
    fresh.reset(ResetKind::Hard);
    assert_eq!(state_hash(&used), state_hash(&fresh));
    assert_eq!(used.next_event_ns(), None);
    assert_eq!(inb(&mut used, 0x92) & 1, 0);
}

#[test]
fn a_soft_reset_keeps_devices() {
    let mut board = board(1);
    outb(&mut board, 0x92, 1);
    outb(&mut board, 0x4D0, 0xF8);
    set_apic(&mut board, 0, apic::TPR, 0x50);
    board.reset(ResetKind::Soft);
    assert_eq!(inb(&mut board, 0x92) & 1, 1);
    assert_eq!(inb(&mut board, 0x4D0), 0xF8);
    assert_eq!(get_apic(&mut board, 0, apic::TPR), 0);
    assert_eq!(board.take_stop(), None);
}
