//! What is served above the engine.

use vcpu::Bus;

use super::*;

#[test]
fn claims_come_before_devices_and_end() {
    let mut board = board(1);
    board.claim_ports(0x3F8, 0x3F8);
    board.claim_mmio(APIC, APIC + 0xFFF);
    board.claim_msrs(0x800, 0x8FF);
    board.claim_msrs(0x4B56_4D00, 0x4B56_4DFF);
    assert_eq!(board.port_write(0, 0x3F8, 1, 0), Reply::Exit);
    assert_eq!(board.port_read(0, 0x3F9, 1), Reply::Done(0));
    assert_eq!(board.mmio_read(0, APIC + 0x30, 4), Reply::Exit);
    assert_eq!(board.msr_read(0, 0x802), Reply::Exit);
    assert_eq!(board.msr_write(0, 0x4B56_4DFF, 0), Reply::Exit);
    assert_eq!(board.msr_read(0, 0x4B56_4E00), Reply::Fault);
    assert_eq!(board.without_claims(|board| board.mmio_read(0, APIC + 0x30, 4)), Reply::Done(0x0105_0014));
    assert_eq!(board.port_write(0, 0x3F8, 1, 0), Reply::Exit);
    board.release_ports(0, 0xFFFF);
    board.release_mmio(0, u64::MAX);
    board.release_msrs(0, u32::MAX);
    assert_eq!(board.port_write(0, 0x3F8, 1, 0), Reply::Done(()));
    assert_eq!(board.mmio_read(0, APIC + 0x30, 4), Reply::Done(0x0105_0014));
    assert_eq!(board.msr_read(0, 0x4B56_4D00), Reply::Fault);
}
