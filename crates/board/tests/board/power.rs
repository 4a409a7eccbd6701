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
        (&[(0x604, 0), (0x605, 0x24)], StopReason::Suspend),
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

#[test]
fn the_clock_wakes_the_machine_from_suspend() {
    let mut board = board(1);
    assert_eq!(board.wake_ns(), None, "nothing is enabled");
    outb(&mut board, 0x603, 4);
    assert_eq!(board.wake_ns(), None, "the clock does not interrupt");
    // An interrupt at each end of an update, once a second.
    for (port, value) in [(0x70, 0x0B), (0x71, 0x12), (0x92, 1)] {
        outb(&mut board, port, value);
    }
    let wake = board.wake_ns().unwrap();
    board.wake(wake);
    assert_eq!(inb(&mut board, 0x601), 0x84, "WAK_STS and RTC_STS");
    assert_eq!(inb(&mut board, 0x92) & 1, 0, "devices are reset");
    assert_eq!(board.wake_ns(), Some(wake), "the clock still interrupts");
}
