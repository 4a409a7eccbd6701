//! MMX: what is different from SSE.

use x86defs::{cr, vector};

use crate::exec::testing::{DATA, Machine, Mode};

const A: u64 = 0x0807_0605_0403_0201;
const B: u64 = 0xF8F7_F6F5_7473_7271;

fn machine() -> Machine {
    let mut machine = Machine::new(Mode::Long64);
    let cpu = machine.cpu();
    cpu.cr4 |= cr::CR4_OSFXSR;
    cpu.regs[0] = DATA;
    cpu.fpu.set_mmx(1, A);
    cpu.fpu.set_top(5);
    cpu.fpu.set_abridged_tags(0);
    cpu.mode_changed();
    machine.poke(DATA, &B.to_le_bytes());
    machine
}

#[test]
fn sources_are_halves_of_lanes() {
    for (code, expected) in [
        (&[0x0F, 0xFC, 0x08][..], A.wrapping_add(B) & !0xFF00_0000_0000 | 0xFC00_0000_0000), // paddb
        (&[0x0F, 0x60, 0x08], 0x7404_7303_7202_7101),                                        // punpcklbw
        (&[0x0F, 0x68, 0x08], 0xF808_F707_F606_F505),                                        // punpckhbw
        (&[0x0F, 0x63, 0x08], 0x8080_7F7F_7F7F_7F7F),                                        // packsswb
        (&[0x0F, 0x38, 0x00, 0x08], 0x0000_0000_0504_0302 & 0xFFFF_FFFF),                    // pshufb
        (&[0x0F, 0x3A, 0x0F, 0x08, 0x0B], 0x0000_0008_0706_0504),                            // palignr $11
        (&[0x0F, 0x70, 0x08, 0x1B], 0x7271_7473_F6F5_F8F7),                                  // pshufw
        (&[0x0F, 0xC4, 0x08, 0x06], 0x0807_7271_0403_0201),                                  // pinsrw $6
        (&[0x0F, 0x73, 0xD1, 0x08], A >> 8),                                                 // psrlq $8, %mm1
    ] {
        let mut machine = machine();
        machine.run(code).expect("no exception");
        assert_eq!(machine.cpu().fpu.mmx(1), expected, "{code:02x?}");
    }
}

#[test]
fn every_instruction_but_emms_makes_all_registers_valid() {
    for code in [
        &[0x0F, 0x7E, 0xCA][..],   // movd %mm1, %edx
        &[0x0F, 0xFC, 0xC1],       // paddb %mm1, %mm0
        &[0x0F, 0x7F, 0x08],       // movq %mm1, (%rax)
        &[0x0F, 0xD7, 0xD1],       // pmovmskb %mm1, %edx
        &[0xF3, 0x0F, 0xD6, 0xC1], // movq2dq %mm1, %xmm0
    ] {
        let mut machine = machine();
        machine.run(code).expect("no exception");
        let fpu = &machine.cpu().fpu;
        assert_eq!((fpu.top(), fpu.abridged_tags()), (0, 0xFF), "{code:02x?}");
    }
    let mut machine = machine();
    machine.run(&[0x0F, 0xFC, 0xC1, 0x0F, 0x77]).expect("emms");
    assert_eq!(machine.cpu().fpu.abridged_tags(), 0);
}

#[test]
fn availability_is_that_of_the_fpu() {
    let paddb = [0x0F, 0xFC, 0xC1];
    for (cr0, expected) in [(cr::CR0_EM, vector::UD), (cr::CR0_TS, vector::NM)] {
        let mut machine = machine();
        machine.cpu().cr0 |= cr0;
        machine.cpu().mode_changed();
        assert_eq!(machine.run(&paddb), Err(expected));
    }
    let mut pending = machine();
    pending.cpu().cr0 |= cr::CR0_NE;
    pending.cpu().fpu.set_control(0x37E);
    pending.cpu().fpu.set_status(1);
    assert_eq!(pending.run(&paddb), Err(vector::MF));
}

#[test]
fn masked_bytes_are_stored() {
    let mut machine = machine();
    machine.cpu().regs[7] = DATA + 0x100;
    machine.cpu().fpu.set_mmx(2, 0x8000_0000_8000_80FF);
    machine.run(&[0x0F, 0xF7, 0xCA]).expect("maskmovq %mm2, %mm1");
    assert_eq!(machine.peek64(DATA + 0x100), A & 0xFF00_0000_FF00_FFFF);
}
