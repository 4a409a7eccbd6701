//! The board through its bus, as vCPUs and the host use it.

mod claims;
mod devices;
mod interrupts;
mod ports;
mod power;
mod pv_eoi;
mod timers;
mod upcall;

use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher;

use board::{ApicFeatures, Board, BoardConfig, OptionalDevices};
use guestmem::GuestMemory;
use vcpu::{Bus, Clock, Reply};

const APIC: u64 = 0xFEE0_0000;
const IOAPIC: u64 = 0xFEC0_0000;

/// Registers of the local APIC, as offsets in its page.
mod apic {
    pub const ID: u64 = 0x20;
    pub const TPR: u64 = 0x80;
    pub const EOI: u64 = 0xB0;
    pub const LDR: u64 = 0xD0;
    pub const SVR: u64 = 0xF0;
    pub const ICR: u64 = 0x300;
    pub const ICR_HIGH: u64 = 0x310;
    pub const LVT_TIMER: u64 = 0x320;
    pub const LVT_LINT0: u64 = 0x350;
    pub const INITIAL_COUNT: u64 = 0x380;
    pub const DIVIDE: u64 = 0x3E0;
}

/// A board whose local APICs are enabled by software, in xAPIC mode.
fn board(vcpus: usize) -> Board {
    board_with_memory(vcpus, &GuestMemory::new(0x10_0000).unwrap())
}

fn board_with_memory(vcpus: usize, memory: &GuestMemory) -> Board {
    let mut board = Board::new(BoardConfig {
        vcpus,
        memory: memory.clone(),
        clock: Clock::new(1_000_000),
        start_unix_ns: 1_234_567_890_000_000_000,
        apic: ApicFeatures::default(),
        devices: OptionalDevices::default(),
    });
    for vcpu in 0..vcpus {
        set_apic(&mut board, vcpu, apic::SVR, 0x1FF);
    }
    board
}

fn set_apic(board: &mut Board, vcpu: usize, offset: u64, value: u32) {
    assert_eq!(board.mmio_write(vcpu, APIC + offset, 4, value.into()), Reply::Done(()));
}

fn get_apic(board: &mut Board, vcpu: usize, offset: u64) -> u32 {
    match board.mmio_read(vcpu, APIC + offset, 4) {
        Reply::Done(value) => value as u32,
        reply => panic!("{reply:?}"),
    }
}

/// Send an IPI from the xAPIC of a vCPU.
fn ipi(board: &mut Board, vcpu: usize, low: u32, destination: u32) {
    set_apic(board, vcpu, apic::ICR_HIGH, destination << 24);
    set_apic(board, vcpu, apic::ICR, low);
}

fn program_ioapic(board: &mut Board, pin: u32, entry: u64) {
    for (index, value) in [(0x11, entry >> 32), (0x10, entry & 0xFFFF_FFFF)] {
        let _ = board.mmio_write(0, IOAPIC, 4, u64::from(index + 2 * pin));
        let _ = board.mmio_write(0, IOAPIC + 0x10, 4, value);
    }
}

fn outb(board: &mut Board, port: u16, value: u8) {
    assert_eq!(board.port_write(0, port, 1, value.into()), Reply::Done(()));
}

fn inb(board: &mut Board, port: u16) -> u8 {
    match board.port_read(0, port, 1) {
        Reply::Done(value) => value as u8,
        reply => panic!("{reply:?}"),
    }
}

fn state_hash(board: &Board) -> u64 {
    let mut hasher = DefaultHasher::new();
    board.hash_state(&mut hasher);
    hasher.finish()
}
