//! What the encodings differ in, shown by moves and logic.

use x86defs::{cpuid, cr, vector};

use crate::exec::testing::{DATA, Machine, Mode};

const LOW: u128 = 0x0F0E_0D0C_0B0A_0908_0706_0504_0302_0100;
const ONES: [[u64; 2]; 2] = [[u64::MAX; 2]; 2];

fn machine() -> Machine {
    let mut machine = Machine::new(Mode::Long64);
    let cpu = machine.cpu();
    cpu.cr4 |= cr::CR4_OSFXSR | cr::CR4_OSXSAVE;
    cpu.xcr0 = 7;
    cpu.regs[0] = DATA;
    cpu.vector.set_ymm(1, ONES);
    cpu.mode_changed();
    machine.poke(DATA, &LOW.to_le_bytes());
    machine.poke(DATA + 16, &(!LOW).to_le_bytes());
    machine
}

fn halves(value: u128) -> [u64; 2] {
    [value as u64, (value >> 64) as u64]
}

#[test]
fn legacy_keeps_and_vex_clears_the_rest() {
    for (code, high) in [
        (&[0x66, 0x0F, 0x6F, 0x08][..], ONES[1]),  // movdqa (%rax), %xmm1
        (&[0xC5, 0xF9, 0x6F, 0x08], [0; 2]),       // vmovdqa (%rax), %xmm1
        (&[0xC5, 0xFD, 0x6F, 0x08], halves(!LOW)), // vmovdqa (%rax), %ymm1
        (&[0x66, 0x0F, 0xDB, 0x08], ONES[1]),      // pand (%rax), %xmm1
        (&[0xC5, 0xF1, 0xDB, 0x08], [0; 2]),       // vpand (%rax), %xmm1, %xmm1
        (&[0xC5, 0xF5, 0xDB, 0x08], halves(!LOW)), // vpand (%rax), %ymm1, %ymm1
    ] {
        let mut machine = machine();
        machine.run(code).expect("no exception");
        assert_eq!(machine.cpu().vector.ymm(1), [halves(LOW), high], "{code:02x?}");
    }
}

#[test]
fn only_legacy_and_aligned_moves_want_alignment() {
    for (code, faults) in [
        (&[0x66, 0x0F, 0x6F, 0x48, 0x01][..], true), // movdqa 1(%rax), %xmm1
        (&[0xF3, 0x0F, 0x6F, 0x48, 0x01], false),    // movdqu 1(%rax), %xmm1
        (&[0x66, 0x0F, 0xDB, 0x48, 0x01], true),     // pand 1(%rax), %xmm1
        (&[0xC5, 0xF1, 0xDB, 0x48, 0x01], false),    // vpand 1(%rax), %xmm1, %xmm1
        (&[0xC5, 0xFD, 0x6F, 0x48, 0x10], true),     // vmovdqa 16(%rax), %ymm1
        (&[0xC5, 0xFD, 0x7F, 0x48, 0x10], true),     // vmovdqa %ymm1, 16(%rax)
    ] {
        let expected = if faults { Err(vector::GP) } else { Ok(()) };
        assert_eq!(machine().run(code), expected, "{code:02x?}");
    }
}

#[test]
fn a_store_across_pages_is_whole() {
    let mut machine = machine();
    machine.cpu().regs[0] = DATA + 0xFF5;
    machine.run(&[0xC5, 0xFE, 0x7F, 0x08]).expect("vmovdqu %ymm1, (%rax)");
    let bytes: [u8; 34] = machine.peek(DATA + 0xFF4);
    assert_eq!((bytes[0], bytes[33]), (0, 0));
    assert!(bytes[1..33].iter().all(|&byte| byte == 0xFF));
    machine.cpu().vector = Default::default();
    machine.run(&[0xC5, 0xFE, 0x6F, 0x08]).expect("vmovdqu (%rax), %ymm1");
    assert_eq!(machine.cpu().vector.ymm(1), ONES);
}

#[test]
fn control_registers_decide() {
    let (legacy, vex) = ([0x0F, 0x57, 0xC9], [0xC5, 0xF0, 0x57, 0xC9]); // xorps, vxorps
    let mut off = machine();
    off.cpu().cr4 = cr::CR4_PAE;
    off.cpu().mode_changed();
    assert_eq!((off.run(&legacy), off.run(&vex)), (Err(vector::UD), Err(vector::UD)));
    let mut switched = machine();
    switched.cpu().cr0 |= cr::CR0_TS;
    switched.cpu().mode_changed();
    assert_eq!((switched.run(&legacy), switched.run(&vex)), (Err(vector::NM), Err(vector::NM)));
    let mut real = Machine::new(Mode::Real);
    real.cpu().cr4 |= cr::CR4_OSFXSR | cr::CR4_OSXSAVE;
    real.cpu().xcr0 = 7;
    real.cpu().mode_changed();
    assert_eq!((real.run(&legacy), real.run(&vex)), (Ok(()), Err(vector::UD)));
}

#[test]
fn what_is_not_announced_does_not_exist() {
    let (fence, hint, add) = ([0x0F, 0xAE, 0xE8], [0x0F, 0x18, 0x00], [0x66, 0x0F, 0xFC, 0xC9]);
    assert_eq!([machine().run(&fence), machine().run(&hint), machine().run(&add)], [Ok(()); 3]);
    let without = || {
        let mut machine = machine();
        machine.cpu().features.l1_edx &= !(cpuid::L1_EDX_SSE | cpuid::L1_EDX_SSE2);
        machine
    };
    let found = [without().run(&fence), without().run(&hint), without().run(&add)];
    assert_eq!(found, [Err(vector::UD), Ok(()), Err(vector::UD)], "a prefetch is a hint to every CPU");
}

/// MXCSR.MM: computations do without alignment, moves that want it do not.
#[test]
fn misaligned_mode_is_for_computations() {
    for (code, mode, faults) in [
        (&[0x66, 0x0F, 0xDB, 0x08][..], 0, true),          // pand (%rax), %xmm1
        (&[0x66, 0x0F, 0xDB, 0x08], 1 << 17, false),       // pand (%rax), %xmm1
        (&[0x0F, 0x58, 0x08], 1 << 17, false),             // addps (%rax), %xmm1
        (&[0x66, 0x0F, 0x38, 0x17, 0x08], 1 << 17, false), // ptest (%rax), %xmm1
        (&[0x66, 0x0F, 0x6F, 0x08], 1 << 17, true),        // movdqa (%rax), %xmm1
    ] {
        let mut machine = machine();
        machine.cpu().vector.mxcsr |= mode;
        machine.cpu().regs[0] = DATA + 1;
        assert_eq!(machine.run(code), if faults { Err(vector::GP) } else { Ok(()) }, "{code:02x?}");
    }
}
