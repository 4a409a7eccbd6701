//! Instructions as the decoder finds them, in the modes that they differ in.

use softfloat::X80;
use x86defs::{cr, vector};

use super::state::{C0, C1, C2, C3, SUMMARY};
use crate::exec::testing::{CODE, DATA, Machine, Mode};

const ONE: X80 = X80::new(0x3FFF, 1 << 63);
const TWO: X80 = X80::new(0x4000, 1 << 63);

/// A vCPU after FNINIT, EAX pointing to `data`.
fn machine(mode: Mode, data: &[u8]) -> Machine {
    let mut machine = Machine::new(mode);
    let place = if mode == Mode::Real { 0x2000 } else { DATA };
    machine.poke(place, data);
    let cpu = machine.cpu();
    cpu.fpu.initialise();
    cpu.cr0 |= cr::CR0_NE;
    // Both BX, the base that 16-bit addresses have, and RAX.
    cpu.regs[0] = place;
    cpu.regs[3] = place;
    machine
}

/// Run code in 64-bit mode; ST(0) and FSW.
fn result(code: &[u8], data: &[u8]) -> (X80, u16) {
    let mut machine = machine(Mode::Long64, data);
    assert_eq!(machine.run(code), Ok(()), "{code:x?}");
    (machine.cpu().fpu.st(0), machine.cpu().fpu.status())
}

#[test]
fn arithmetic_with_memory_operands() {
    let one = 1f32.to_le_bytes();
    // fld1; then dword ptr [rax]
    for (reg, expected) in [(0, TWO), (1, ONE), (4, X80::new(0, 0)), (6, ONE)] {
        assert_eq!(result(&[0xD9, 0xE8, 0xD8, reg << 3], &one), (expected, 0x3800), "{reg}");
    }
    // fild word; fiadd dword; fmul qword: (2 + 65534) * 0.25
    let data = [&[2, 0, 0, 0], &65534u32.to_le_bytes()[..], &0.25f64.to_le_bytes()].concat();
    let code = [0xDF, 0x00, 0xDA, 0x40, 0x04, 0xDC, 0x48, 0x08];
    assert_eq!(result(&code, &data), (X80::new(0x400D, 1 << 63), 0x3800));
}

#[test]
fn reversed_operations_with_a_register_as_destination() {
    // fld1; fld1; faddp (2); fld1; then with ST(1) = 2, ST(0) = 1
    let two_and_one = [0xD9, 0xE8, 0xD9, 0xE8, 0xDE, 0xC1, 0xD9, 0xE8];
    let half = X80::new(0x3FFE, 1 << 63);
    let minus_one = X80::new(0xBFFF, 1 << 63);
    for (code, expected) in [
        ([0xDE, 0xE9], ONE),
        ([0xDE, 0xE1], minus_one),
        ([0xDE, 0xF9], TWO),
        ([0xDE, 0xF1], half),
        ([0xD8, 0xE1], minus_one),
        ([0xD8, 0xE9], ONE),
        ([0xD8, 0xF1], half),
        ([0xD8, 0xF9], TWO),
    ] {
        assert_eq!(result(&[&two_and_one[..], &code].concat(), &[]).0, expected, "{code:x?}");
    }
}

#[test]
fn masked_stack_faults_give_the_indefinite_value() {
    // fchs with nothing there
    assert_eq!(result(&[0xD9, 0xE0], &[]), (X80::new(0xFFFF, 3 << 62), 0x41));
    // Nine times fld1.
    let (top, status) = result(&[0xD9, 0xE8].repeat(9), &[]);
    assert_eq!((top, status), (X80::new(0xFFFF, 3 << 62), 0x3A41));
}

#[test]
fn an_unmasked_error_waits_for_the_next_waiting_instruction() {
    let control = 0x37Bu16.to_le_bytes();
    // fldcw; fld1; fldz; fdivp; fnstsw ax; fld1
    let code = [0xD9, 0x28, 0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9, 0xDF, 0xE0, 0xD9, 0xE8];
    let mut machine = machine(Mode::Long64, &control);
    let start = machine.cpu().rip;
    assert_eq!(machine.run(&code), Err(vector::MF));
    let cpu = machine.cpu();
    assert_eq!(cpu.rip - start, 10);
    assert_eq!(cpu.regs[0] as u16, 0xB084);
    assert_eq!((cpu.fpu.st(0), cpu.fpu.st(1)), (X80::new(0, 0), ONE), "nothing was computed or popped");
    assert_eq!((cpu.fpu.instruction.offset - start, cpu.fpu.opcode()), (6, 0x6F9));
}

#[test]
fn comparisons() {
    let three = C0 | C2 | C3;
    for (other, codes, flags) in [(0f64, 0, 0), (1., C3, 0x40), (2., C0, 1), (f64::NAN, three, 0x45)] {
        let data = other.to_le_bytes();
        // fld1; fcom qword ptr [rax]
        let (_, status) = result(&[0xD9, 0xE8, 0xDC, 0x10], &data);
        assert_eq!(status & three, codes, "{other}");
        // fld qword ptr [rax]; fld1; fucomip st1; pushf; pop rax
        let mut machine = machine(Mode::Long64, &data);
        assert_eq!(machine.run(&[0xDD, 0x00, 0xD9, 0xE8, 0xDF, 0xE9, 0x9C, 0x58]), Ok(()));
        assert_eq!((machine.cpu().regs[0] & 0x8D5, machine.cpu().fpu.top()), (flags, 7), "{other}");
    }
}

#[test]
fn fxam_tells_classes_apart() {
    for (value, class) in [
        (X80::new(0x3FFF, 5), 0),
        (X80::new(0x7FFF, 5 << 61), C0),
        (ONE, C2),
        (X80::new(0x7FFF, 1 << 63), C2 | C0),
        (X80::new(0, 0), C3),
        (X80::new(0, 5), C3 | C2),
        (X80::new(0, 5 | 1 << 63), C3 | C2),
    ] {
        // fld tbyte ptr [rax]; fchs; fxam; fstp st0; fxam
        assert_eq!(result(&[0xDB, 0x28, 0xD9, 0xE0, 0xD9, 0xE5], &value.to_bytes()).1, 0x3800 | class | C1);
    }
    assert_eq!(result(&[0xD9, 0xE5], &[]).1, C3 | C0, "empty");
}

#[test]
fn the_environment_in_its_four_layouts() {
    for (mode, prefix, words) in [
        (Mode::Protected32, false, [0xFFFF_037F, 0xFFFF_3800, 0xFFFF_3FFF, 0x1000, 0x01E8_0008, 0, 0xFFFF_0000]),
        (Mode::Protected32, true, [0x037F, 0x3800, 0x3FFF, 0x1000, 8, 0, 0]),
        (Mode::Real, false, [0x037F, 0x3800, 0x3FFF, 0x1100, 0x01E8, 0, 0]),
        (Mode::Real, true, [0xFFFF_037F, 0xFFFF_3800, 0xFFFF_3FFF, 0xFFFF_1100, 0x01E8, 0xFFFF_0000, 0]),
    ] {
        let mut machine = machine(mode, &[]);
        machine.cpu().features.l7_ebx = 0;
        machine.cpu().features.amd = true;
        if mode == Mode::Real {
            // As 10h:1000h.
            machine.cpu().segs[1].selector = 0x10;
        }
        let (place, modrm) = if mode == Mode::Real { (0x2000, 0x37) } else { (DATA, 0x30) };
        // fld1; fnstenv
        let code = [&[0xD9, 0xE8][..], if prefix { &[0x66] } else { &[] }, &[0xD9, modrm]].concat();
        assert_eq!(machine.run(&code), Ok(()), "{mode:?}");
        let short = (mode == Mode::Real) != prefix;
        let stored: [u32; 7] = if short {
            let bytes: [u8; 14] = machine.peek(place);
            std::array::from_fn(|i| u32::from(u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]])))
        } else {
            std::array::from_fn(|i| u32::from_le_bytes(machine.peek(place + 4 * i as u64)))
        };
        assert_eq!(stored, words, "{mode:?} {prefix}");
        assert_eq!(machine.cpu().fpu.control(), 0x37F);
    }
}

#[test]
fn fnsave_initialises_and_frstor_brings_it_all_back() {
    for mode in [Mode::Real, Mode::Protected32, Mode::Long64] {
        let mut machine = machine(mode, &[]);
        let modrm = if mode == Mode::Real { 0x37 } else { 0x30 };
        // fld1; fldpi; fnsave
        assert_eq!(machine.run(&[0xD9, 0xE8, 0xD9, 0xEB, 0xDD, modrm]), Ok(()));
        assert_eq!((machine.cpu().fpu.tag_word(), machine.cpu().fpu.top()), (0xFFFF, 0));
        // frstor; fnop
        assert_eq!(machine.run(&[0xDD, modrm - 0x10]), Ok(()), "{mode:?}");
        let fpu = &machine.cpu().fpu;
        assert_eq!((fpu.tag_word(), fpu.top()), (0x0FFF, 6));
        assert_eq!((fpu.st(0), fpu.st(1)), (X80::new(0x4000, 0xC90F_DAA2_2168_C235), ONE));
    }
}

#[test]
fn availability() {
    // fld1 is #NM with EM or TS; WAIT only with both MP and TS.
    for (bits, fld1, wait) in [
        (cr::CR0_EM, Err(vector::NM), Ok(())),
        (cr::CR0_TS, Err(vector::NM), Ok(())),
        (cr::CR0_MP, Ok(()), Ok(())),
        (cr::CR0_MP | cr::CR0_TS, Err(vector::NM), Err(vector::NM)),
    ] {
        for (code, expected) in [(&[0xD9, 0xE8][..], fld1), (&[0x9B], wait)] {
            let mut machine = machine(Mode::Long64, &[]);
            machine.cpu().cr0 |= bits;
            assert_eq!(machine.run(code), expected, "{bits:#x} {code:x?}");
        }
    }
}

#[test]
fn a_store_that_faults_changes_nothing() {
    // fld1; fstp dword ptr [address that is not mapped]
    let mut machine = machine(Mode::Long64, &[]);
    machine.cpu().regs[0] = 0x1_0000_0000;
    assert_eq!(machine.run(&[0xD9, 0xE8, 0xD9, 0x18]), Err(vector::PF));
    assert_eq!((machine.cpu().fpu.top(), machine.cpu().fpu.st(0)), (7, ONE));
}

#[test]
fn aliases_execute_and_holes_do_not() {
    for code in
        [[0xD9, 0xD9], [0xDC, 0xD1], [0xDC, 0xD9], [0xDD, 0xC9], [0xDE, 0xD1], [0xDF, 0xC1], [0xDF, 0xC9], [0xDF, 0xD1]]
    {
        assert_eq!(machine(Mode::Long64, &[]).run(&code), Ok(()), "{code:x?}");
    }
    for code in
        [[0xD9, 0xD1], [0xD9, 0xE2], [0xD9, 0xEF], [0xDA, 0xE8], [0xDB, 0xE5], [0xDD, 0xF0], [0xDE, 0xD8], [0xDF, 0xE1]]
    {
        assert_eq!(machine(Mode::Long64, &[]).run(&code), Err(vector::UD), "{code:x?}");
    }
}

#[test]
fn integers_and_decimals_are_stored_rounded() {
    // fld qword; fist dword [rax+8]; fisttp word [rax+12]
    let data = [&(-2.5f64).to_le_bytes()[..], &[0; 16]].concat();
    let mut machine = machine(Mode::Long64, &data);
    assert_eq!(machine.run(&[0xDD, 0x00, 0xDB, 0x50, 0x08, 0xDF, 0x48, 0x0C]), Ok(()));
    assert_eq!(machine.peek(DATA + 8), (-2i32).to_le_bytes());
    assert_eq!(machine.peek(DATA + 12), (-2i16).to_le_bytes());
    assert_eq!(machine.cpu().fpu.tag_word(), 0xFFFF);
    // fbld; fbstp elsewhere
    let decimal = [0x21, 0x43, 0x65, 0x87, 0x09, 0, 0, 0, 0, 0x80];
    machine.poke(DATA, &decimal);
    assert_eq!(machine.run(&[0xDF, 0x20, 0xDF, 0x70, 0x20]), Ok(()));
    assert_eq!(machine.peek(DATA + 0x20), decimal);
    assert_eq!(machine.cpu().fpu.status() & SUMMARY, 0);
}

/// Code after `fldcw [rax]` with everything unmasked, as AMD's or Intel's CPUs have it: ST(0), FSW.
fn unmasked(amd: bool, code: &[u8], data: &[u8]) -> (X80, u16) {
    let mut machine = machine(Mode::Long64, &[&0x340u16.to_le_bytes()[..], &[0; 6], data].concat());
    machine.cpu().features.amd = amd;
    assert_eq!(machine.run(&[&[0xD9, 0x28], code].concat()), Ok(()), "{code:x?}");
    (machine.cpu().fpu.st(0), machine.cpu().fpu.status())
}

#[test]
fn vendors_differ_in_what_an_unmasked_exception_prevents() {
    // fld dword ptr [rax+8], a denormal
    let load = [0xD9, 0x40, 0x08];
    assert_eq!(unmasked(true, &load, &[1, 0, 0, 0]), (X80::new(0x3F6A, 1 << 63), 0xB882));
    assert_eq!(unmasked(false, &load, &[1, 0, 0, 0]), (X80::new(0, 0), 0x8082));
    // fld1; fcomp dword ptr [rax+8], a NaN: nobody pops
    let compare = [0xD9, 0xE8, 0xD8, 0x58, 0x08];
    let nan = f32::NAN.to_le_bytes();
    assert_eq!(unmasked(true, &compare, &nan), (ONE, 0xB881 | C0 | C2 | C3));
    assert_eq!(unmasked(false, &compare, &nan), (ONE, 0xB881));
}

#[test]
fn overflow_in_memory_prevents_the_store_and_in_a_register_scales() {
    // fld tbyte [rax+8]; fstp dword [rax+32]
    let huge = X80::new(0x7FFE, u64::MAX).to_bytes();
    let (top, status) = unmasked(true, &[0xDB, 0x68, 0x08, 0xD9, 0x58, 0x20], &huge);
    assert_eq!((top, status), (X80::new(0x7FFE, u64::MAX), 0xB888));
    // fld tbyte [rax+8]; fadd st0, st0
    let (top, status) = unmasked(true, &[0xDB, 0x68, 0x08, 0xD8, 0xC0], &huge);
    assert_eq!((top, status), (X80::new(0x1FFF, u64::MAX), 0xB888));
}

#[test]
fn fstpnce_only_pops_what_is_empty() {
    // fld1; ffree st0; fstpnce st1
    assert_eq!(result(&[0xD9, 0xE8, 0xDD, 0xC0, 0xD9, 0xD9], &[]).1, 0);
}

#[test]
fn large_arguments_are_refused_but_an_empty_register_comes_first() {
    // fld tbyte [rax]; fsin
    let large = X80::new(0x403E, 1 << 63);
    assert_eq!(result(&[0xDB, 0x28, 0xD9, 0xFE], &large.to_bytes()), (large, 0x3800 | C2));
    // fsin
    assert_eq!(result(&[0xD9, 0xFE], &[]).1, 0x41);
}

#[test]
fn without_ne_an_error_goes_to_the_board() {
    // fldcw [rax]; fld1; fldz; fdivp; fld1
    let code = [0xD9, 0x28, 0xD9, 0xE8, 0xD9, 0xEE, 0xDE, 0xF9, 0xD9, 0xE8];
    let mut machine = machine(Mode::Long64, &0x37Bu16.to_le_bytes());
    machine.cpu().cr0 &= !cr::CR0_NE;
    machine.poke(CODE, &code);
    machine.poke(CODE + 10, &[0x0F, 0x0B]);
    machine.run_budget(100);
    assert_eq!(machine.cpu().rip, CODE + 8, "it waits for an interrupt");
    assert_eq!(machine.bus.x87_errors, 1);
    machine.bus.ignore_x87_errors = true;
    assert_eq!(machine.go(CODE + 10), Ok(()));
    assert_eq!((machine.cpu().fpu.st(0), machine.bus.x87_errors), (ONE, 1));
    // fnclex; fldz; fdivp; fnop: another error
    assert_eq!(machine.run(&[0xDB, 0xE2, 0xD9, 0xEE, 0xDE, 0xF9, 0xD9, 0xD0]), Ok(()));
    assert_eq!(machine.bus.x87_errors, 2);
}
