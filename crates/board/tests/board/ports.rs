//! Ports and device memory.

use board::OptionalDevice;
use vcpu::{Bus, StopReason};

use super::*;

#[test]
fn what_nobody_answers_reads_as_ones() {
    let mut board = board(1);
    for (size, ones) in [(1, 0xFF), (2, 0xFFFF), (4, 0xFFFF_FFFF)] {
        assert_eq!(board.port_read(0, 0x1234, size), Reply::Done(ones));
        assert_eq!(board.mmio_read(0, 0xD000_0000, size), Reply::Done(ones.into()));
    }
    assert_eq!(board.mmio_read(0, u64::MAX - 7, 8), Reply::Done(u64::MAX));
    assert_eq!(board.port_write(0, 0xFFFF, 4, 0), Reply::Done(()));
    assert_eq!(board.msr_read(0, 0x1234), Reply::Fault);
    assert_eq!(board.msr_write(0, 0xC000_1234, 0), Reply::Fault);
}

#[test]
fn debug_exit_takes_any_width() {
    for (port, size, value) in [(0xF4, 4, 0x1234_5678), (0xF4, 1, 0x78), (0xF5, 2, 0x5678)] {
        let mut board = board(1);
        let _ = board.port_write(0, port, size, 0x1234_5678);
        assert_eq!(board.take_stop(), Some(StopReason::DebugExit(value)));
        assert_eq!(board.take_stop(), None);
    }
}

#[test]
fn optional_devices_can_be_absent() {
    let mut board = board(1);
    board.firmware_handoff();
    for device in [
        OptionalDevice::TestDevice,
        OptionalDevice::DebugExit,
        OptionalDevice::DebugConsole,
        OptionalDevice::PciTestDevice,
    ] {
        board.set_optional(device, false);
    }
    outb(&mut board, 0xF4, 0);
    outb(&mut board, 0xE0, 0);
    outb(&mut board, 0xE9, b'x');
    assert_eq!(board.take_stop(), None);
    assert_eq!([0xE0, 0xE9, 0xF4, 0x2000, 0xC000].map(|port| inb(&mut board, port)), [0xFF; 5]);
    assert_eq!(board.mmio_read(0, 0xFF00_0000, 4), Reply::Done(0xFFFF_FFFF));
    assert_eq!(board.mmio_read(0, 0xFE00_0000, 4), Reply::Done(0xFFFF_FFFF));
    assert!(board.take_debug_console().is_empty());
}

#[test]
fn the_latch_keeps_what_is_written_in_any_width() {
    let mut board = board(1);
    let _ = board.port_write(0, 0xE0, 4, 0x1234_5678);
    assert_eq!(board.port_read(0, 0xE0, 4), Reply::Done(0x1234_5678));
    let _ = board.port_write(0, 0xE0, 2, 0xAAAA);
    assert_eq!(board.port_read(0, 0xE0, 4), Reply::Done(0x1234_AAAA));
    assert_eq!(board.port_read(0, 0xE0, 1), Reply::Done(0xAA));
}

#[test]
fn a_wide_write_to_a_line_port_moves_one_line() {
    let mut board = board(1);
    program_ioapic(&mut board, 11, 0x51);
    program_ioapic(&mut board, 12, 0x52);
    let _ = board.port_write(0, 0x200B, 4, 0x0101_0101);
    assert_eq!(board.take_interrupt(0), Some(0x51));
    assert_eq!(board.take_interrupt(0), None);
}

#[test]
fn both_consoles_are_separate() {
    let mut board = board(1);
    outb(&mut board, 0x3F8, b's');
    outb(&mut board, 0xE9, b'd');
    outb(&mut board, 0x402, b'f');
    assert_eq!(board.take_console(), b"s");
    assert_eq!(board.take_debug_console(), b"df");
    assert_eq!([inb(&mut board, 0xE9), inb(&mut board, 0x402)], [0xE9; 2]);
}

#[test]
fn a_closed_console_stops_the_machine_and_says_why() {
    struct Closed;
    impl std::io::Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    for port in [0x3F8, 0xE9] {
        let mut board = board(1);
        board.set_console(Some(Box::new(Closed)));
        board.set_debug_console(Some(Box::new(Closed)));
        outb(&mut board, port, b'x');
        assert_eq!(board.take_stop(), Some(StopReason::HostError));
        assert_eq!(board.take_host_error().map(|error| error.kind()), Some(std::io::ErrorKind::BrokenPipe));
    }
}

#[test]
fn console_input_interrupts() {
    let mut board = board(1);
    program_ioapic(&mut board, 4, 0x44);
    outb(&mut board, 0x3F9, 1);
    board.console_input(b"hi");
    assert_eq!(board.take_interrupt(0), Some(0x44));
    assert_eq!(inb(&mut board, 0x3FA) & 0x0F, 0x04);
    assert_eq!([inb(&mut board, 0x3F8), inb(&mut board, 0x3F8)], *b"hi");
}

#[test]
fn fw_cfg_through_its_ports() {
    let mut board = board(1);
    board.set_fw_cfg(5, vec![4, 0]).unwrap();
    let _ = board.port_write(0, 0x510, 2, 5);
    assert_eq!([inb(&mut board, 0x511), inb(&mut board, 0x511), inb(&mut board, 0x511)], [4, 0, 0]);
}

#[test]
fn configuration_space_by_every_width() {
    let mut board = board(1);
    let _ = board.port_write(0, 0xCF8, 4, 0x8000_F800);
    assert_eq!(board.port_read(0, 0xCF8, 4), Reply::Done(0x8000_F800));
    assert_eq!(board.port_read(0, 0xCFC, 4), Reply::Done(0x0005_1B36));
    assert_eq!(board.port_read(0, 0xCFC, 2), Reply::Done(0x1B36));
    assert_eq!(board.port_read(0, 0xCFE, 2), Reply::Done(0x0005));
    assert_eq!(board.port_read(0, 0xCFD, 1), Reply::Done(0x1B));
    // Behind the last byte there is no register.
    assert_eq!(board.port_read(0, 0xCFE, 4), Reply::Done(0xFFFF_0005));
}

#[test]
fn the_pci_test_device_answers_in_both_spaces() {
    let mut board = board(1);
    assert_eq!(board.mmio_read(0, 0xFE00_0008, 4), Reply::Done(0xFFFF_FFFF), "nobody has given it an address");
    board.firmware_handoff();
    assert_eq!(board.mmio_read(0, 0xFE00_0008, 4), Reply::Done(0xFA));
    assert_eq!(board.port_read(0, 0xC008, 4), Reply::Done(0xFA));
    let _ = board.port_write(0, 0xC080, 1, 0xFA);
    assert_eq!(board.port_read(0, 0xC00C, 4), Reply::Done(1));
    assert_eq!(board.mmio_read(0, 0xFE00_000C, 4), Reply::Done(0));
}

#[test]
fn handoff_leaves_the_size_of_ram_in_the_cmos() {
    let memory = GuestMemory::new(256 << 20).unwrap();
    let mut board = board_with_memory(1, &memory);
    board.firmware_handoff();
    let mut cmos = |index| {
        outb(&mut board, 0x70, index);
        inb(&mut board, 0x71)
    };
    assert_eq!([cmos(0x15), cmos(0x16)], 640u16.to_le_bytes());
    assert_eq!([cmos(0x30), cmos(0x31)], (63u16 * 1024).to_le_bytes());
    assert_eq!([cmos(0x34), cmos(0x35)], (240u16 * 16).to_le_bytes());
    assert_eq!(cmos(0x5B), 0);
}

/// Every port and every device address takes every width without a panic, in any order.
#[test]
fn no_access_panics() {
    let mut board = board(2);
    let mut state = 1u32;
    let mut random = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    for step in 0..300_000u64 {
        let size = [1, 2, 4, 8][random() as usize & 3];
        let (port, value) = (random() as u16 & 0x0FFF, random() << 16 ^ random());
        let gpa =
            [0xFEC0_0000, 0xFEE0_0000, 0xFF00_0000, 0xFEB0_0000][random() as usize & 3] + u64::from(random() & 0x1FFF);
        let vcpu = random() as usize & 1;
        match random() & 7 {
            0 => drop(board.port_read(vcpu, port, size.min(4))),
            1 => drop(board.port_write(vcpu, port, size.min(4), value)),
            2 => drop(board.mmio_read(vcpu, gpa, size)),
            3 => drop(board.mmio_write(vcpu, gpa, size, value.into())),
            4 => drop(board.msr_write(vcpu, 0x800 + (random() & 0xFF), value.into())),
            5 => drop(board.msr_write(vcpu, 0x1B, 0xFEE0_0000 | u64::from(value & 0xD00))),
            6 => drop(board.take_interrupt(vcpu)),
            _ => board.advance(step * 10_000),
        }
        board.take_stop();
    }
}
