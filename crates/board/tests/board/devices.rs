//! Virtio devices through the board: where interrupts and console bytes go.

use board::Board;
use virtio::{Block, BlockConfig, Entropy, Storage};

use super::*;

const REGISTERS: u64 = 0xFE00_0000;
const QUEUE: u64 = 0x4_0000;
const AVAILABLE: u64 = 0x4_1000;
const USED: u64 = 0x4_2000;
const BUFFER: u64 = 0x4_3000;

fn poke(board: &mut Board, offset: u64, size: usize, value: u64) {
    assert_eq!(board.mmio_write(0, REGISTERS + offset, size, value), Reply::Done(()));
}

fn set_config(board: &mut Board, offset: u32, size: usize, value: u32) {
    let _ = board.port_write(0, 0xCF8, 4, 0x8000_1000 | offset & 0xFC);
    let _ = board.port_write(0, 0xCFC + (offset & 3) as u16, size, value);
}

/// Set up one queue of the device in slot 2, with one buffer in it.
fn start(board: &mut Board, memory: &GuestMemory, queue: u64, len: u32, device_writes: bool) {
    set_config(board, 4, 2, 7);
    poke(board, 0x14, 1, 3);
    poke(board, 0x08, 4, 1);
    poke(board, 0x0C, 4, 1);
    poke(board, 0x14, 1, 11);
    poke(board, 0x16, 2, queue);
    poke(board, 0x18, 2, 8);
    for (offset, address) in [(0x20, QUEUE), (0x28, AVAILABLE), (0x30, USED)] {
        poke(board, offset, 8, address);
    }
    poke(board, 0x1C, 2, 1);
    poke(board, 0x14, 1, 15);
    let descriptor = u128::from(BUFFER) | u128::from(len) << 64 | u128::from(device_writes) << 97;
    memory.write_bytes(QUEUE, &descriptor.to_le_bytes()).unwrap();
    memory.write_bytes(AVAILABLE + 2, &[1, 0]).unwrap();
    poke(board, 0x3000 + 4 * queue, 2, queue);
}

/// Let time pass: what a device needs for a request, and what a console gives its driver before the first input.
const SHORT_NS: u64 = 1_000_000;
const LONG_NS: u64 = 200_000_000;

fn bytes<const N: usize>(memory: &GuestMemory, gpa: u64) -> [u8; N] {
    let mut bytes = [0; N];
    memory.read_bytes(gpa, &mut bytes).unwrap();
    bytes
}

#[test]
fn a_request_ends_with_a_message_to_a_vcpu() {
    let memory = GuestMemory::new(0x10_0000).unwrap();
    let mut board = board_with_memory(2, &memory);
    assert_eq!(board.plug_virtio(Box::new(Entropy::new([1; 32]))), Some(2));
    board.firmware_handoff();
    // MSI-X on, queue 0 has message 1: vector 0x55 to the second vCPU.
    set_config(&mut board, 0x42, 2, 0x8000);
    poke(&mut board, 0x4010, 8, 0xFEE0_1000);
    poke(&mut board, 0x4018, 8, 0x55);
    poke(&mut board, 0x1A, 2, 1);
    start(&mut board, &memory, 0, 16, true);
    assert_eq!(bytes(&memory, BUFFER), [0; 16]);
    assert!(board.next_event_ns().is_some_and(|event| event <= virtio::LATENCY_NS));
    let before = state_hash(&board);
    board.advance(SHORT_NS);
    assert_ne!(state_hash(&board), before);
    assert_ne!(bytes(&memory, BUFFER), [0; 16]);
    assert_eq!((board.take_interrupt(0), board.take_interrupt(1)), (None, Some(0x55)));
}

#[test]
fn without_messages_the_line_goes_to_the_8259() {
    let memory = GuestMemory::new(0x10_0000).unwrap();
    let mut board = board_with_memory(1, &memory);
    board.plug_virtio(Box::new(Entropy::new([1; 32])));
    board.firmware_handoff();
    let waits = |board: &mut Board| {
        outb(board, 0xA0, 0x0A);
        inb(board, 0xA0)
    };
    start(&mut board, &memory, 0, 16, true);
    assert_eq!(waits(&mut board), 0);
    board.advance(SHORT_NS);
    assert_eq!(waits(&mut board), 1 << 2, "IRQ 10");
}

#[test]
fn the_virtio_console_shares_the_serial_ports_other_end() {
    let memory = GuestMemory::new(0x10_0000).unwrap();
    let mut board = board_with_memory(1, &memory);
    assert!(board.plug_virtio_console().is_some());
    board.firmware_handoff();
    assert_eq!(board.console_room(), 0, "no driver");
    board.console_input(b"early ");
    memory.write_bytes(BUFFER, b"printed").unwrap();
    start(&mut board, &memory, 1, 7, false);
    outb(&mut board, 0x3F8, b'>');
    board.advance(SHORT_NS);
    assert_eq!(board.take_console(), b">printed");
    poke(&mut board, 0x14, 1, 0);
    memory.write_bytes(USED, &[0; 64]).unwrap();
    start(&mut board, &memory, 0, 64, true);
    board.console_input(b"bird");
    board.advance(LONG_NS);
    assert_eq!(bytes(&memory, BUFFER), *b"early bird");
    assert_eq!(inb(&mut board, 0x3FD) & 1, 0, "the serial port has got nothing");
    assert!(board.console_room() > 0);
}

/// Storage that always fails.
struct Broken;

impl Storage for Broken {
    fn len(&self) -> u64 {
        4096
    }
    fn is_read_only(&self) -> bool {
        false
    }
    fn read_at(&mut self, _: u64, _: &mut [u8]) -> std::io::Result<()> {
        Err(std::io::ErrorKind::PermissionDenied.into())
    }
    fn write_at(&mut self, _: u64, _: &[u8]) -> std::io::Result<()> {
        Ok(())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
    fn hash_state(&self, _: &mut dyn Hasher) {}
}

#[test]
fn a_device_is_found_by_slot_and_kind() {
    let mut board = board(1);
    let slot = board.plug_virtio(Box::new(Block::new(Box::new(Broken), &BlockConfig::default()))).unwrap();
    assert!(board.virtio_device_mut::<Block>(slot).is_some());
    assert!(board.virtio_device_mut::<Entropy>(slot).is_none());
    assert!(board.virtio_device_mut::<Block>(slot + 1).is_none());
    assert!(board.virtio_device_mut::<Block>(31).is_none());
}
