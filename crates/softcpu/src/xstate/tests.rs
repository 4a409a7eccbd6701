//! What lies where, which rules headers obey, and who may do what. Expected areas are those that an AMD EPYC (Zen 4) and the
//! manuals give; where silicon may choose (it may call x87 in use although it is not), ours is exact.

use x86defs::{cpuid, cr, vector};

use super::component::{AVX, PKRU, SSE, X87};
use super::save::COMPACTED;
use crate::exec::testing::{DATA, Machine, Mode};
use crate::testing::everything;

const LOW: [u64; 2] = [0x1111_1111_1111_1111, 0x2222_2222_2222_2222];
const HIGH: [u64; 2] = [0x3333_3333_3333_3333, 0x4444_4444_4444_4444];
const FILL: u8 = 0xCC;
const FILL64: u64 = u64::from_ne_bytes([FILL; 8]);
const ALL: u64 = X87 | SSE | AVX | PKRU;

// All address (%rax) = DATA.
const FXSAVE: &[u8] = &[0x0F, 0xAE, 0x00];
const FXSAVE64: &[u8] = &[0x48, 0x0F, 0xAE, 0x00];
const FXRSTOR: &[u8] = &[0x0F, 0xAE, 0x08];
const FXRSTOR64: &[u8] = &[0x48, 0x0F, 0xAE, 0x08];
// These address (%rbx): RAX is the mask.
const XSAVE: &[u8] = &[0x0F, 0xAE, 0x23];
const XSAVE64: &[u8] = &[0x48, 0x0F, 0xAE, 0x23];
const XSAVEOPT: &[u8] = &[0x0F, 0xAE, 0x33];
const XSAVEC: &[u8] = &[0x0F, 0xC7, 0x23];
const XSAVES: &[u8] = &[0x0F, 0xC7, 0x2B];
const XRSTOR: &[u8] = &[0x0F, 0xAE, 0x2B];
const XRSTOR64: &[u8] = &[0x48, 0x0F, 0xAE, 0x2B];
const XRSTORS: &[u8] = &[0x0F, 0xC7, 0x1B];
const XGETBV: &[u8] = &[0x0F, 0x01, 0xD0];
const XSETBV: &[u8] = &[0x0F, 0x01, 0xD1];
const FNINIT: &[u8] = &[0xDB, 0xE3];

/// Everything is enabled, nothing in use, RAX and RBX are DATA, and DATA is full of [`FILL`] but for an empty header.
fn machine(mode: Mode) -> Machine {
    let mut machine = Machine::new(mode);
    machine.poke(DATA, &[FILL; 4096]);
    machine.poke(DATA + 512, &[0; 64]);
    let cpu = machine.cpu();
    cpu.cpuid = everything();
    cpu.features = cpu.cpuid.features();
    cpu.features.x1_ecx &= !cpuid::X1_ECX_MISALIGNSSE;
    cpu.cr4 |= cr::CR4_OSFXSR | cr::CR4_OSXSAVE;
    cpu.xcr0 = ALL;
    cpu.fpu = crate::x87::state::Fpu::INITIAL;
    cpu.regs[0] = DATA;
    cpu.regs[3] = DATA;
    cpu.mode_changed();
    machine
}

fn masked(mode: Mode, mask: u64) -> Machine {
    let mut machine = machine(mode);
    machine.cpu().regs[0] = mask & 0xFFFF_FFFF;
    machine.cpu().regs[2] = mask >> 32;
    machine
}

/// XSTATE_BV and XCOMP_BV.
fn header(machine: &Machine) -> (u64, u64) {
    (machine.peek64(DATA + 512), machine.peek64(DATA + 520))
}

fn set_header(machine: &mut Machine, words: &[u64]) {
    for (at, word) in (DATA + 512..).step_by(8).zip(words) {
        machine.poke(at, &word.to_le_bytes());
    }
}

#[test]
fn fxsave_writes_registers_and_leaves_the_rest() {
    for (mode, code, last) in [(Mode::Long64, FXSAVE64, 15), (Mode::Protected32, FXSAVE, 7)] {
        let mut machine = machine(mode);
        let cpu = machine.cpu();
        cpu.vector.set_ymm(last, [LOW, HIGH]);
        cpu.vector.mxcsr = 0x1FBF;
        machine.run(&[FNINIT, code].concat()).expect("no exception");
        let bytes: [u8; 512] = machine.peek(DATA);
        assert_eq!(bytes[..8], [0x7F, 3, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[24..32], [0xBF, 0x1F, 0, 0, 0xFF, 0xFF, 0, 0]);
        assert_eq!(bytes[32..160], [0; 128], "empty, and zero");
        let at = 160 + 16 * usize::from(last);
        assert_eq!(bytes[at..at + 16], [[0x11; 8], [0x22; 8]].concat());
        assert!(bytes[at + 16..].iter().all(|&byte| byte == FILL || mode == Mode::Protected32));
        assert_eq!(bytes[at + 16], FILL);
    }
}

#[test]
fn fxrstor_brings_back_what_fxsave_saved() {
    for (save, restore) in [(FXSAVE64, FXRSTOR64), (FXSAVE, FXRSTOR)] {
        let mut machine = machine(Mode::Long64);
        machine.cpu().vector.set_xmm(9, LOW);
        machine.cpu().vector.set_ymm(2, [LOW, HIGH]);
        machine.cpu().vector.mxcsr = 0x7FBF;
        machine.cpu().fpu.set_status(0x3800);
        machine.cpu().fpu.set_empty(0, false);
        machine.cpu().fpu.set_control(0x27E);
        machine.cpu().fpu.set_opcode(0x123);
        machine.cpu().fpu.instruction.offset = 0xABCD_1234;
        machine.run(save).expect("no exception");
        let (vector, fpu) = (machine.cpu().vector, machine.cpu().fpu);
        machine.cpu().vector = Default::default();
        machine.cpu().vector.set_ymm(2, [[0; 2], HIGH]);
        machine.cpu().fpu = Default::default();
        machine.run(restore).expect("no exception");
        assert_eq!((machine.cpu().vector, machine.cpu().fpu), (vector, fpu), "the upper halves stay");
    }
}

#[test]
fn pointers_have_two_forms() {
    let mut machine = machine(Mode::Long64);
    machine.cpu().features.l7_ebx = 0;
    let cpu = machine.cpu();
    cpu.fpu.instruction.offset = 0x1122_3344_5566_7788;
    cpu.fpu.instruction.selector = 0x33;
    cpu.fpu.data.offset = 0x8877_6655_4433_2211;
    cpu.fpu.data.selector = 0x2B;
    machine.run(FXSAVE64).expect("no exception");
    assert_eq!((machine.peek64(DATA + 8), machine.peek64(DATA + 16)), (0x1122_3344_5566_7788, 0x8877_6655_4433_2211));
    machine.run(FXSAVE).expect("no exception");
    assert_eq!((machine.peek64(DATA + 8), machine.peek64(DATA + 16)), (0x33_5566_7788, 0x2B_4433_2211));
    machine.cpu().features.l7_ebx = u32::MAX;
    machine.run(FXSAVE).expect("no exception");
    assert_eq!(machine.peek64(DATA + 8), 0x5566_7788, "a CPU that deprecates selectors");
}

/// AMD's CPUs give pointers away only with an error that waits.
#[test]
fn amd_keeps_pointers_to_itself() {
    for (status, control, expected) in [(0, 0x37F, (0, 0)), (1, 0x37F, (0, 0)), (1, 0x37E, (0x123, 0x4567))] {
        let mut machine = machine(Mode::Long64);
        let cpu = machine.cpu();
        cpu.features.amd = true;
        cpu.fpu.set_control(control);
        cpu.fpu.set_status(status);
        cpu.fpu.set_opcode(0x123);
        cpu.fpu.instruction.offset = 0x4567;
        machine.run(FXSAVE64).expect("no exception");
        let opcode = u16::from_le_bytes(machine.peek(DATA + 6));
        assert_eq!((opcode, machine.peek64(DATA + 8)), expected, "{status:#x} {control:#x}");
    }
}

/// Reserved bits of FCW are dropped, ES follows, MXCSR is checked.
#[test]
fn fxrstor_of_odd_values() {
    for (control, status, expected) in
        [(0xFFBE_u16, 0x3F01_u16, (0x1F7E, 0xBF81)), (0x37F, 0x8080, (0x37F, 0)), (0, 0, (0x40, 0))]
    {
        let mut machine = machine(Mode::Long64);
        machine.poke(DATA, &[0; 512]);
        machine.poke(DATA, &control.to_le_bytes());
        machine.poke(DATA + 2, &status.to_le_bytes());
        machine.run(FXRSTOR64).expect("no exception");
        assert_eq!((machine.cpu().fpu.control(), machine.cpu().fpu.status()), expected);
    }
    for (mxcsr, expected) in [(0xFFFF_u32, Ok(())), (0x1_0000, Err(vector::GP)), (0x2_0000, Err(vector::GP))] {
        let mut machine = machine(Mode::Long64);
        let before = machine.cpu().fpu;
        machine.poke(DATA, &[0; 512]);
        machine.poke(DATA + 24, &mxcsr.to_le_bytes());
        assert_eq!(machine.run(FXRSTOR64), expected);
        assert_eq!(machine.cpu().fpu != before, expected.is_ok());
    }
}

#[test]
fn amds_cpus_have_a_bit_of_mxcsr_more() {
    let mut machine = machine(Mode::Long64);
    machine.cpu().features.x1_ecx |= cpuid::X1_ECX_MISALIGNSSE;
    machine.poke(DATA, &[0; 512]);
    machine.poke(DATA + 24, &0x2_1F80_u32.to_le_bytes());
    machine.run(FXRSTOR64).expect("no exception");
    assert_eq!(machine.cpu().vector.mxcsr, 0x2_1F80);
    machine.run(FXSAVE).expect("no exception");
    assert_eq!(machine.peek64(DATA + 24), 0x2_FFFF_0002_1F80);
}

#[test]
fn fxsave_follows_control_registers() {
    for (name, change, with_mxcsr, with_xmm) in [
        ("as usual", (|_| {}) as fn(&mut crate::Cpu), true, true),
        ("not OSFXSR", |cpu| cpu.cr4 &= !cr::CR4_OSFXSR, false, false),
        ("FFXSR", |cpu| cpu.efer |= cr::EFER_FFXSR, true, false),
    ] {
        let mut machine = machine(Mode::Long64);
        change(machine.cpu());
        machine.cpu().vector.set_xmm(0, LOW);
        machine.run(FXSAVE64).expect("no exception");
        assert_eq!(machine.peek64(DATA + 24) == 0xFFFF_0000_1F80, with_mxcsr, "{name}");
        assert_eq!(machine.peek64(DATA + 160) == LOW[0], with_xmm, "{name}");
        assert_eq!(machine.peek64(DATA + 160) == FILL64, !with_xmm, "{name}");
    }
}

#[test]
fn who_may_and_where() {
    type Change = fn(&mut Machine);
    let fx = [FXSAVE, FXRSTOR];
    let plain = [XSAVE, XSAVEOPT, XSAVEC, XRSTOR];
    let supervisor = [XSAVES, XRSTORS];
    let misplaced: Change = |machine| {
        machine.cpu().regs[0] += 8;
        machine.cpu().regs[3] += 16;
    };
    let cases: [(&str, Change, _, _, _); 6] = [
        ("as usual", |_| {}, Ok(()), Ok(()), Ok(())),
        ("misplaced", misplaced, Err(vector::GP), Err(vector::GP), Err(vector::GP)),
        ("TS", |m| m.cpu().cr0 |= cr::CR0_TS, Err(vector::NM), Err(vector::NM), Err(vector::NM)),
        ("EM", |m| m.cpu().cr0 |= cr::CR0_EM, Err(vector::NM), Ok(()), Ok(())),
        ("not OSXSAVE", |m| m.cpu().cr4 &= !cr::CR4_OSXSAVE, Ok(()), Err(vector::UD), Err(vector::UD)),
        ("CPL 3", |m| m.cpu().cpl = 3, Ok(()), Ok(()), Err(vector::GP)),
    ];
    for (name, change, of_fx, of_plain, of_supervisor) in cases {
        for (codes, expected) in [(&fx[..], of_fx), (&plain[..], of_plain), (&supervisor[..], of_supervisor)] {
            for code in codes {
                let mut machine = machine(Mode::Long64);
                machine.poke(DATA + 24, &0x1F80_u64.to_le_bytes());
                if code == &XRSTORS {
                    set_header(&mut machine, &[0, COMPACTED]);
                }
                change(&mut machine);
                assert_eq!(machine.run(code), expected, "{name}: {code:02x?}");
            }
        }
    }
}

/// Without the feature the bytes are undefined.
#[test]
fn what_is_not_announced_is_undefined() {
    for (code, change) in [
        (FXSAVE, (|f| f.l1_edx &= !(1 << 24)) as fn(&mut crate::features::Features)),
        (XSAVE, |f| f.l1_ecx &= !(1 << 26)),
        (XGETBV, |f| f.l1_ecx &= !(1 << 26)),
        (XSAVEOPT, |f| f.xsave_eax &= !1),
        (XSAVEC, |f| f.xsave_eax &= !2),
        (XSAVES, |f| f.xsave_eax &= !8),
        (XRSTORS, |f| f.xsave_eax &= !8),
    ] {
        let mut machine = machine(Mode::Long64);
        change(&mut machine.cpu().features);
        assert_eq!(machine.run(code), Err(vector::UD), "{code:02x?}");
    }
}

#[test]
fn plain_xsave_writes_all_that_is_asked_for() {
    let mut machine = masked(Mode::Long64, u64::MAX);
    machine.cpu().vector.set_ymm(1, [LOW, [0; 2]]);
    set_header(&mut machine, &[1 << 40 | AVX, FILL64]);
    machine.run(XSAVE64).expect("no exception");
    assert_eq!(header(&machine), (1 << 40 | SSE, FILL64), "bits that are not asked for stay, and so does the rest");
    assert_eq!(machine.peek64(DATA) & 0xFFFF, 0x37F, "x87 is not in use, but saved");
    assert_eq!((machine.peek64(DATA + 176), machine.peek64(DATA + 576)), (LOW[0], 0));
    assert_eq!((machine.peek64(DATA + 416), machine.peek64(DATA + 832)), (FILL64, FILL64));
    assert_eq!(machine.peek64(DATA + 2688), 0);
}

#[test]
fn other_saves_leave_out_what_is_not_in_use() {
    let run = |code: &[u8], mask, mxcsr| {
        let mut machine = masked(Mode::Long64, mask);
        machine.cpu().vector.set_ymm(1, [[0; 2], HIGH]);
        machine.cpu().vector.mxcsr = mxcsr;
        machine.cpu().pkru = 0xC;
        machine.run(code).expect("no exception");
        machine
    };
    let optimized = run(XSAVEOPT, ALL, 0x1F80);
    assert_eq!(header(&optimized), (AVX | PKRU, 0));
    assert_eq!((optimized.peek64(DATA), optimized.peek64(DATA + 160)), (FILL64, FILL64));
    assert_eq!(optimized.peek64(DATA + 24), 0xFFFF_0000_1F80, "MXCSR goes with SSE and AVX in the standard format");
    assert_eq!((optimized.peek64(DATA + 592), optimized.peek64(DATA + 2688)), (HIGH[0], 0xC));

    for code in [XSAVEC, XSAVES] {
        let compacted = run(code, ALL, 0x1F80);
        assert_eq!(header(&compacted), (AVX | PKRU, COMPACTED | ALL));
        assert_eq!(compacted.peek64(DATA + 24), FILL64);
        assert_eq!((compacted.peek64(DATA + 592), compacted.peek64(DATA + 832)), (HIGH[0], 0xC));
        let with_mxcsr = run(code, ALL, 0x1F81);
        assert_eq!(header(&with_mxcsr), (SSE | AVX | PKRU, COMPACTED | ALL));
        assert_eq!((with_mxcsr.peek64(DATA + 24), with_mxcsr.peek64(DATA + 160)), (0xFFFF_0000_1F81, 0));
        let without_avx = run(code, X87 | PKRU, 0x1F81);
        assert_eq!(header(&without_avx), (PKRU, COMPACTED | X87 | PKRU));
        assert_eq!(without_avx.peek64(DATA + 576), 0xC, "one behind the other");
    }
}

#[test]
fn mxcsr_goes_with_avx_too() {
    for (mask, expected) in [(X87, FILL64), (SSE, 0xFFFF_0000_1F80), (AVX, 0xFFFF_0000_1F80), (PKRU, FILL64)] {
        let mut machine = masked(Mode::Long64, mask);
        machine.run(XSAVE).expect("no exception");
        assert_eq!(machine.peek64(DATA + 24), expected, "{mask}");
        assert_eq!(header(&machine), (0, 0));
    }
}

#[test]
fn every_save_can_be_restored() {
    for (save, restore) in
        [(XSAVE, XRSTOR), (XSAVE64, XRSTOR64), (XSAVEOPT, XRSTOR), (XSAVEC, XRSTOR), (XSAVES, XRSTORS)]
    {
        let mut machine = masked(Mode::Long64, ALL);
        let cpu = machine.cpu();
        cpu.vector.set_ymm(1, [LOW, HIGH]);
        cpu.vector.set_ymm(15, [HIGH, LOW]);
        cpu.vector.mxcsr = 0x3F80;
        cpu.pkru = 0xC;
        cpu.fpu.set_control(0x27F);
        machine.run(save).expect("no exception");
        let cpu = machine.cpu();
        let state = (cpu.vector, cpu.fpu, cpu.pkru);
        cpu.vector.set_ymm(1, [[7; 2]; 2]);
        cpu.vector.set_ymm(3, [[7; 2]; 2]);
        cpu.vector.mxcsr = 0x1F80;
        (cpu.fpu, cpu.pkru) = (Default::default(), 0x30);
        machine.run(restore).expect("no exception");
        let cpu = machine.cpu();
        assert_eq!((cpu.vector, cpu.fpu, cpu.pkru), state, "{save:02x?}");
    }
}

/// Components that the header does not name get their initial configuration; those that are not asked for stay.
#[test]
fn restoring_what_is_not_there() {
    for (compacted, mask, mxcsr) in
        [(0, ALL, 0x1FBF), (COMPACTED | ALL, ALL, 0x1F80), (0, X87, 0x7F80), (0, PKRU, 0x7F80)]
    {
        let mut machine = masked(Mode::Long64, mask);
        machine.poke(DATA + 24, &0x1FBF_u32.to_le_bytes());
        set_header(&mut machine, &[0, compacted]);
        let cpu = machine.cpu();
        cpu.vector.set_ymm(1, [LOW, HIGH]);
        cpu.vector.mxcsr = 0x7F80;
        cpu.fpu.set_control(0);
        cpu.pkru = 0xC;
        machine.run(XRSTOR).expect("no exception");
        let cpu = machine.cpu();
        assert_eq!(cpu.vector.ymm(1), if mask & SSE != 0 { [[0; 2]; 2] } else { [LOW, HIGH] });
        assert_eq!(cpu.vector.mxcsr, mxcsr, "{compacted:#x} {mask:#x}");
        assert_eq!(cpu.fpu.control(), if mask & X87 != 0 { 0x37F } else { 0x40 });
        assert_eq!(cpu.pkru, if mask & PKRU != 0 { 0 } else { 0xC });
    }
}

#[test]
fn outside_64_bit_mode_there_are_eight_registers() {
    let mut machine = masked(Mode::Protected32, ALL);
    for i in [7, 8] {
        machine.cpu().vector.set_ymm(i, [LOW, HIGH]);
    }
    machine.run(XSAVE).expect("no exception");
    assert_eq!((machine.peek64(DATA + 272), machine.peek64(DATA + 288)), (LOW[0], FILL64));
    assert_eq!((machine.peek64(DATA + 688), machine.peek64(DATA + 704)), (HIGH[0], FILL64));
    machine.poke(DATA + 512, &[0]);
    machine.run(XRSTOR).expect("no exception");
    assert_eq!(machine.cpu().vector.ymm(7), [[0; 2]; 2]);
    assert_eq!(machine.cpu().vector.ymm(8), [LOW, HIGH]);
}

#[test]
fn headers_that_are_refused() {
    const BAD: Result<(), u8> = Err(vector::GP);
    for (code, words, expected) in [
        (XRSTOR, &[ALL, 0, 0, 0, 0, 0, 0, 0][..], Ok(())),
        (XRSTOR, &[1 << 3, 0], BAD),
        (XRSTOR, &[1 << 63, 0], BAD),
        (XRSTOR, &[0, 1], BAD),
        (XRSTOR, &[0, 0, 1], BAD),
        (XRSTOR, &[0, 0, 0, 1], Ok(())),
        (XRSTOR, &[ALL, COMPACTED | ALL], Ok(())),
        (XRSTOR, &[ALL, COMPACTED | ALL, 0, 0, 0, 0, 0, 1], BAD),
        (XRSTOR, &[ALL, COMPACTED | X87], BAD),
        (XRSTOR, &[0, COMPACTED | 1 << 8], BAD),
        (XRSTOR, &[1 << 63 | ALL, COMPACTED | ALL], BAD),
        (XRSTORS, &[ALL, COMPACTED | ALL], Ok(())),
        (XRSTORS, &[ALL, 0], BAD),
    ] {
        let mut machine = masked(Mode::Long64, ALL);
        machine.poke(DATA, &[0; 512]);
        set_header(&mut machine, words);
        assert_eq!(machine.run(code), expected, "{code:02x?} {words:x?}");
    }
    let mut older = masked(Mode::Long64, ALL);
    older.poke(DATA, &[0; 512]);
    older.cpu().features.xsave_eax = 0;
    set_header(&mut older, &[0, COMPACTED]);
    assert_eq!(older.run(XRSTOR), BAD, "a CPU without XSAVEC");
    let mut disabled = masked(Mode::Long64, 0);
    disabled.cpu().xcr0 = X87 | SSE;
    disabled.poke(DATA, &[0; 512]);
    set_header(&mut disabled, &[AVX]);
    assert_eq!(disabled.run(XRSTOR), BAD, "the header counts, asked for or not");
}

#[test]
fn reserved_bits_of_mxcsr_matter_where_it_is_loaded() {
    for (mask, words, expected) in [
        (SSE, [SSE, 0], Err(vector::GP)),
        (AVX, [0, 0], Err(vector::GP)),
        (X87 | PKRU, [SSE, 0], Ok(())),
        (SSE, [SSE, COMPACTED | SSE], Err(vector::GP)),
        (SSE | AVX, [AVX, COMPACTED | SSE | AVX], Ok(())),
    ] {
        let mut machine = masked(Mode::Long64, mask);
        machine.poke(DATA + 24, &u32::MAX.to_le_bytes());
        set_header(&mut machine, &words);
        assert_eq!(machine.run(XRSTOR), expected, "{mask:#x} {words:x?}");
    }
}

/// A page behind the legacy region that is not there: nothing has been written, nothing restored.
#[test]
fn faults_change_nothing() {
    let end = 4 << 20;
    for (code, offset) in [(FXSAVE, 160), (XSAVE, 512), (XSAVE, 576), (XRSTOR, 576), (FXRSTOR, 160)] {
        let mut machine = masked(Mode::Long64, ALL);
        // The directory's entry of the 2 MiB behind RAM.
        machine.poke(0x10_2010, &[0; 8]);
        let at = (end - offset) & !63;
        machine.poke(at, &[FILL; 64]);
        if code == XRSTOR {
            machine.poke(at, &[0; 576]);
            machine.poke(at + 512, &[ALL as u8]);
        }
        let cpu = machine.cpu();
        cpu.regs[3] = at;
        if code == FXSAVE || code == FXRSTOR {
            cpu.regs[0] = at;
        }
        cpu.vector.set_ymm(1, [LOW, HIGH]);
        let before = (cpu.vector, cpu.fpu, cpu.pkru);
        let first = machine.peek64(at);
        assert_eq!(machine.run(code), Err(vector::PF), "{code:02x?}");
        assert_eq!(machine.peek64(at), first);
        let cpu = machine.cpu();
        assert_eq!((cpu.vector, cpu.fpu, cpu.pkru), before);
    }
}

#[test]
fn xgetbv_reads_what_is_enabled_and_in_use() {
    for (index, mxcsr, expected) in [
        (0, 0x1F80, Ok(ALL)),
        (1, 0x1F80, Ok(AVX)),
        (1, 0x1F81, Ok(AVX | SSE)),
        (2, 0x1F80, Err(vector::GP)),
        (u32::MAX, 0x1F80, Err(vector::GP)),
    ] {
        let mut machine = machine(Mode::Long64);
        machine.cpu().vector.set_ymm(1, [[0; 2], HIGH]);
        machine.cpu().vector.mxcsr = mxcsr;
        machine.cpu().regs[1] = 0xFFFF_FFFF_0000_0000 | u64::from(index);
        let result = machine.run(XGETBV).map(|()| machine.cpu().regs[0] | machine.cpu().regs[2] << 32);
        assert_eq!(result, expected, "{index}");
    }
    let mut older = machine(Mode::Long64);
    older.cpu().features.xsave_eax = 0;
    older.cpu().regs[1] = 1;
    assert_eq!(older.run(XGETBV), Err(vector::GP));
}

#[test]
fn rules_of_xcr0() {
    const BAD: Result<(), u8> = Err(vector::GP);
    for (value, index, cpl, expected) in [
        (1, 0, 0, Ok(())),
        (3, 0, 0, Ok(())),
        (7, 0, 0, Ok(())),
        (ALL, 0, 0, Ok(())),
        (1 | PKRU, 0, 0, Ok(())),
        (0, 0, 0, BAD),
        (2, 0, 0, BAD),
        (5, 0, 0, BAD),
        (0xB, 0, 0, BAD),
        (0xE7, 0, 0, BAD),
        (1 << 32 | 7, 0, 0, BAD),
        (1 << 63 | 7, 0, 0, BAD),
        (7, 1, 0, BAD),
        (7, 0, 3, BAD),
    ] {
        let mut machine = masked(Mode::Long64, value);
        machine.cpu().xcr0 = 1;
        machine.cpu().regs[1] = index;
        machine.cpu().cpl = cpl;
        assert_eq!(machine.run(XSETBV), expected, "{value:#x}");
        assert_eq!(machine.cpu().xcr0, if expected.is_ok() { value } else { 1 });
    }
    let mut off = masked(Mode::Long64, 0);
    off.cpu().cr4 &= !cr::CR4_OSXSAVE;
    off.cpu().cpl = 3;
    assert_eq!((off.run(XSETBV), off.run(XGETBV)), (Err(vector::UD), Err(vector::UD)));
}

/// AVX instructions follow XSETBV at once, in the same block of code.
#[test]
fn xsetbv_enables_avx() {
    let vxorps: &[u8] = &[0xC5, 0xF0, 0x57, 0xC9];
    for (value, expected) in [(3, Err(vector::UD)), (7, Ok(()))] {
        let mut machine = masked(Mode::Long64, value);
        machine.cpu().xcr0 = 1;
        machine.cpu().regs[1] = 0;
        assert_eq!(machine.run(&[XSETBV, vxorps].concat()), expected);
    }
}

#[test]
fn cpuid_tells_sizes_of_what_is_enabled() {
    let mut machine = machine(Mode::Long64);
    let cpu = machine.cpu();
    for (xcr0, standard, compacted) in
        [(1, 576, 576), (3, 576, 576), (7, 832, 832), (3 | PKRU, 2696, 584), (ALL, 2696, 840)]
    {
        cpu.xcr0 = xcr0;
        assert_eq!(cpu.cpuid_now(0xD, 0, true), [0x207, standard, 2696, 0], "{xcr0:#x}");
        assert_eq!(cpu.cpuid_now(0xD, 1, true)[..3], [15, compacted, 0], "{xcr0:#x}");
    }
    assert_eq!(cpu.cpuid_now(0xD, 2, true), [256, 576, 0, 0]);
}

#[test]
fn the_image_is_everything() {
    let mut machine = machine(Mode::Protected32);
    let cpu = machine.cpu();
    cpu.xcr0 = 1;
    cpu.vector.set_ymm(15, [LOW, HIGH]);
    cpu.vector.mxcsr = 0x1FA0;
    cpu.pkru = 0x55;
    cpu.fpu.set_status(0x3800);
    cpu.fpu.set_empty(0, false);
    let (image, state) = (cpu.xsave_image(), (cpu.vector, cpu.fpu, cpu.pkru));
    assert_eq!(image.len(), 2696);
    assert_eq!(image[512..514], [0x07, 0x02]);
    cpu.reset();
    cpu.set_xsave_image(&image).expect("its own");
    assert_eq!((cpu.vector, cpu.fpu, cpu.pkru), state);
    for (at, byte, error) in
        [(515, 1, super::ImageError::Header), (520, 1, super::ImageError::Header), (27, 1, super::ImageError::Mxcsr)]
    {
        let mut bad = image.clone();
        bad[at] = byte;
        assert_eq!(cpu.set_xsave_image(&bad), Err(error));
    }
    assert_eq!(cpu.set_xsave_image(&image[1..]), Err(super::ImageError::Length));
    assert_eq!((cpu.vector, cpu.fpu, cpu.pkru), state);
}

/// The operating system's way to switch x87 and vectors lazily: CR0.TS, #NM, CLTS.
#[test]
fn task_switched_state_is_asked_for_first() {
    let mut machine = machine(Mode::Long64);
    machine.cpu().cr0 |= cr::CR0_TS;
    machine.cpu().mode_changed();
    assert_eq!(machine.run(FNINIT), Err(vector::NM));
    assert_eq!(machine.run(&[0x0F, 0x57, 0xC9]), Err(vector::NM));
    machine.run(&[0x0F, 0x06]).expect("CLTS");
    machine.run(FNINIT).expect("available");
    machine.run(&[0x0F, 0x57, 0xC9]).expect("available");
}
