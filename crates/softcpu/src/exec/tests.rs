//! Instructions, run as a guest runs them. Expected values are those of the SDM's operation sections, or arithmetic of Rust.

use x86defs::{cr, rflags, segment as attr, vector};

use super::testing::{CODE, DATA, Machine, Mode, RAM, STACK};
use crate::segment::{CS, DS, ES, FS, SS};

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RBX: usize = 3;
const RSP: usize = 4;
const RBP: usize = 5;
const RSI: usize = 6;
const RDI: usize = 7;

/// Run code with some registers set, in one mode; the machine afterwards.
fn ran(mode: Mode, registers: &[(usize, u64)], code: &[u8]) -> Machine {
    let mut machine = prepared(mode, registers);
    assert_eq!(machine.run(code), Ok(()), "{code:02x?}");
    machine
}

fn prepared(mode: Mode, registers: &[(usize, u64)]) -> Machine {
    let mut machine = Machine::new(mode);
    for &(register, value) in registers {
        machine.cpu().regs[register] = value;
    }
    machine
}

fn reg(machine: &mut Machine, register: usize) -> u64 {
    machine.cpu().regs[register]
}

#[test]
fn a_loop_runs_to_its_end() {
    for mode in [Mode::Real, Mode::Protected32, Mode::Long64] {
        // add eax, ecx; dec ecx; jnz
        let mut machine = ran(mode, &[(RCX, 10)], &[0x01, 0xC8, 0xFF, 0xC9, 0x75, 0xFA]);
        assert_eq!(reg(&mut machine, RAX), 55, "{mode:?}");
        assert_eq!(machine.instructions(), 30);
    }
}

#[test]
fn narrow_writes_keep_the_rest_of_a_register_and_32_bit_writes_clear_it() {
    const OLD: u64 = 0x1111_2222_3333_4444;
    for (code, value) in [
        (&[0xB0, 0xAA][..], 0x1111_2222_3333_44AA),                  // mov al
        (&[0xB4, 0xAA], 0x1111_2222_3333_AA44),                      // mov ah
        (&[0x66, 0xB8, 0xAA, 0xBB], 0x1111_2222_3333_BBAA),          // mov ax
        (&[0xB8, 0xAA, 0xBB, 0xCC, 0xDD], 0xDDCC_BBAA),              // mov eax
        (&[0x48, 0xC7, 0xC0, 0, 0, 0, 0x80], 0xFFFF_FFFF_8000_0000), // mov rax, sign-extended
        (&[0x31, 0xC0], 0),                                          // xor eax, eax
        (&[0xC1, 0xE0, 0x20], 0x3333_4444),                          // shl eax, 32: count 0 writes too
        (&[0x39, 0xC0, 0x0F, 0x45, 0xC3], 0x3333_4444),              // cmp; cmovne eax, ebx, not taken, writes too
        (&[0x87, 0xC0], 0x3333_4444),                                // xchg eax, eax by ModRM
        (&[0x90], OLD),                                              // nop, which is not that
        (&[0x0F, 0xBC, 0xC3], OLD),                                  // bsf eax, ebx (zero) writes nothing
    ] {
        let mut machine = ran(Mode::Long64, &[(RAX, OLD)], code);
        assert_eq!(reg(&mut machine, RAX), value, "{code:02x?}");
    }
}

#[test]
fn addresses_wrap_at_their_size() {
    // mov al, [bx + si]: 0xFFFF + 2 is 1
    let mut machine = prepared(Mode::Real, &[(RBX, 0xFFFF), (RSI, 2)]);
    machine.poke(1, &[0x5A]);
    assert_eq!(machine.run(&[0x8A, 0x00]), Ok(()));
    assert_eq!(reg(&mut machine, RAX) as u8, 0x5A);
    // mov al, [ebx + 0x10] in 32-bit code: wraps at 4 GiB
    let mut machine = prepared(Mode::Protected32, &[(RBX, 0xFFFF_FFF1)]);
    machine.poke(1, &[0x5A]);
    assert_eq!(machine.run(&[0x8A, 0x43, 0x10]), Ok(()));
    assert_eq!(reg(&mut machine, RAX) as u8, 0x5A);
    // mov al, [ebx + 0x10] in 64-bit code ignores the upper half
    let mut machine = prepared(Mode::Long64, &[(RBX, 0xABCD_0000_0020_0000)]);
    machine.poke(DATA + 0x10, &[0x5A]);
    assert_eq!(machine.run(&[0x67, 0x8A, 0x43, 0x10]), Ok(()));
    assert_eq!(reg(&mut machine, RAX) as u8, 0x5A);
}

#[test]
fn rip_relative_addresses_count_from_the_next_instruction() {
    // nop; mov eax, [rip + 0x100]
    let mut machine = prepared(Mode::Long64, &[]);
    machine.poke(CODE + 7 + 0x100, &[1, 2, 3, 4]);
    assert_eq!(machine.run(&[0x90, 0x8B, 0x05, 0, 1, 0, 0]), Ok(()));
    assert_eq!(reg(&mut machine, RAX), 0x0403_0201);
    // lea rax, [rip - 0x2000] reaches below the block's start
    let mut machine = ran(Mode::Long64, &[], &[0x48, 0x8D, 0x05, 0, 0xE0, 0xFF, 0xFF]);
    assert_eq!(reg(&mut machine, RAX), (CODE + 7).wrapping_sub(0x2000));
}

#[test]
fn fs_and_gs_have_bases_in_64_bit_code_and_others_do_not() {
    for (prefix, value) in [(0x64, 0x22), (0x3E, 0x11)] {
        let mut machine = prepared(Mode::Long64, &[(RBX, DATA)]);
        for number in [FS, DS] {
            machine.cpu().segs[usize::from(number)].base = 0x100;
        }
        machine.poke(DATA, &[0x11]);
        machine.poke(DATA + 0x100, &[0x22]);
        assert_eq!(machine.run(&[prefix, 0x8A, 0x03]), Ok(()));
        assert_eq!(reg(&mut machine, RAX) as u8, value);
    }
}

#[test]
fn segments_check_limit_and_type() {
    let write = &[0x88, 0x03][..]; // mov [ebx], al
    let read = &[0x8A, 0x03][..]; // mov al, [ebx]
    let data = attr::P | attr::S | attr::DB;
    for (attributes, limit, address, code, outcome) in [
        (data | attr::RW, 0xFFF, 0xFFF, write, Ok(())),
        (data | attr::RW, 0xFFF, 0x1000, write, Err(vector::GP)),
        (data, 0xF_FFFF, 0, write, Err(vector::GP)),
        (data, 0xF_FFFF, 0x4000, read, Ok(())),
        (data | attr::RW | attr::DC, 0xFFF, 0xFFF, read, Err(vector::GP)),
        (data | attr::RW | attr::DC, 0xFFF, 0x4000, write, Ok(())),
        (data | attr::CODE, 0xF_FFFF, 0x4000, read, Err(vector::GP)),
        (data | attr::CODE | attr::RW, 0xF_FFFF, 0x4000, read, Ok(())),
        (0, 0, 0, read, Err(vector::GP)),
    ] {
        let mut machine = prepared(Mode::Protected32, &[(RBX, address)]);
        let segment = &mut machine.cpu().segs[usize::from(DS)];
        (segment.attributes, segment.limit) = (attributes, limit);
        machine.cpu().segments_changed();
        assert_eq!(machine.run(code), outcome, "{attributes:#x} {limit:#x} {address:#x} {code:02x?}");
    }
    // The stack's faults are #SS: push beyond the limit.
    let mut machine = prepared(Mode::Protected32, &[]);
    machine.cpu().segs[usize::from(SS)].limit = 0xFFF;
    machine.cpu().segments_changed();
    assert_eq!(machine.run(&[0x50]), Err(vector::SS));
    assert_eq!(reg(&mut machine, RSP), STACK);
    // An address that is not canonical: #GP by DS, #SS by RBP.
    for (code, outcome) in [(&[0x8A, 0x03][..], vector::GP), (&[0x8A, 0x45, 0x00], vector::SS)] {
        let mut machine = prepared(Mode::Long64, &[(RBX, 1 << 47), (RBP, 1 << 47)]);
        assert_eq!(machine.run(code), Err(outcome));
    }
}

#[test]
fn a_faulting_instruction_changes_nothing() {
    // add [ebx], eax; pop [ebx]; xadd [ebx], eax; call [ebx]; rep movsb: DS ends before the operand
    for code in [
        &[0x01, 0x03][..],
        &[0x8F, 0x03],
        &[0x0F, 0xC1, 0x03],
        &[0xFF, 0x13],
        &[0xF3, 0xA4],
        &[0x0F, 0xC7, 0x0B],
        &[0xD1, 0x03],
    ] {
        let mut machine = prepared(Mode::Protected32, &[(RBX, 0x9000), (RSI, 0x9000), (RCX, 2), (RAX, 7)]);
        machine.cpu().segs[usize::from(DS)].limit = 0x8FFF;
        machine.cpu().segments_changed();
        let before = (machine.cpu().regs[..8].to_vec(), machine.cpu().rflags());
        assert_eq!(machine.run(code), Err(vector::GP), "{code:02x?}");
        assert_eq!((machine.cpu().regs[..8].to_vec(), machine.cpu().rflags()), before, "{code:02x?}");
        assert_eq!(machine.cpu().rip, CODE);
    }
}

#[test]
fn divisions_that_do_not_fit_raise_de() {
    let min = i64::MIN as u64;
    for (registers, code, outcome) in [
        (&[(RAX, 7), (RCX, 0)][..], &[0xF7, 0xF1][..], Err(vector::DE)),
        (&[(RDX, 1), (RAX, 0), (RCX, 1)], &[0xF7, 0xF1], Err(vector::DE)),
        (&[(RDX, u64::MAX), (RAX, min), (RCX, u64::MAX)], &[0x48, 0xF7, 0xF9], Err(vector::DE)),
        (&[(RDX, min), (RAX, 0), (RCX, u64::MAX)], &[0x48, 0xF7, 0xF9], Err(vector::DE)),
        (&[(RDX, u64::MAX), (RAX, 0x8000_0000), (RCX, u64::MAX)], &[0xF7, 0xF9], Err(vector::DE)),
        (&[(RAX, 0x8000), (RCX, 0xFF)], &[0xF6, 0xF9], Err(vector::DE)),
        (&[(RDX, u64::MAX), (RAX, min), (RCX, 1)], &[0x48, 0xF7, 0xF9], Ok(())),
    ] {
        let mut machine = prepared(Mode::Long64, registers);
        assert_eq!(machine.run(code), outcome, "{registers:x?} {code:02x?}");
    }
    // aam 0
    assert_eq!(Machine::new(Mode::Protected32).run(&[0xD4, 0]), Err(vector::DE));
}

#[test]
fn decimal_adjustment() {
    for (ax, flags, code, result, cf, af) in [
        (0x000A, 0, 0x37, 0x0100, true, true),          // aaa
        (0x0009, rflags::AF, 0x37, 0x010F, true, true), // aaa with AF
        (0x00FA, 0, 0x37, 0x0200, true, true),          // AX + 0x106 carries from AL to AH
        (0x0205, rflags::AF, 0x3F, 0x000F, true, true), // aas borrows from AH
        (0x0079, 0, 0x27, 0x0079, false, false),        // daa
        (0x007A, 0, 0x27, 0x0080, false, true),         // daa
        (0x009A, 0, 0x27, 0x0000, true, true),          // daa
        (0x0003, rflags::AF, 0x2F, 0x00FD, true, true), // das: 3 - 6 borrows
        (0x00AA, 0, 0x2F, 0x0044, true, true),          // das
    ] {
        let mut machine = prepared(Mode::Protected32, &[(RAX, ax)]);
        machine.cpu().set_rflags(flags);
        assert_eq!(machine.run(&[code]), Ok(()));
        let got = machine.cpu();
        assert_eq!((got.regs[RAX], got.flags.cf(), got.flags.af()), (result, cf, af), "{ax:x} {code:x}");
    }
    let mut machine = ran(Mode::Protected32, &[(RAX, 47)], &[0xD4, 10]);
    assert_eq!(reg(&mut machine, RAX), 0x0407);
    let mut machine = ran(Mode::Protected32, &[(RAX, 0x0407)], &[0xD5, 10]);
    assert_eq!(reg(&mut machine, RAX), 47);
    assert_eq!(Machine::new(Mode::Long64).run(&[0x37]), Err(vector::UD));
}

#[test]
fn bit_offsets_in_registers_reach_beyond_the_operand() {
    for (number, address) in [(9u64, DATA + 1), (-1i64 as u64, DATA - 1), (64 * 8 + 3, DATA + 64)] {
        // bts [rbx], rcx
        let machine = ran(Mode::Long64, &[(RBX, DATA), (RCX, number)], &[0x48, 0x0F, 0xAB, 0x0B]);
        assert_eq!(machine.peek::<1>(address), [1 << (number % 8)]);
    }
    // An immediate does not: bts dword [rbx], 33
    let mut machine = ran(Mode::Long64, &[(RBX, DATA)], &[0x0F, 0xBA, 0x2B, 33]);
    assert_eq!(machine.peek64(DATA), 2);
    assert!(!machine.cpu().flags.cf());
}

#[test]
fn push_and_pop_of_the_stack_pointer() {
    // push rsp pushes the old value
    let mut machine = ran(Mode::Long64, &[], &[0x54]);
    assert_eq!((machine.peek64(STACK - 8), reg(&mut machine, RSP)), (STACK, STACK - 8));
    // pop rsp leaves what was popped
    let mut machine = prepared(Mode::Long64, &[]);
    machine.poke(STACK, &0x1234u64.to_le_bytes());
    machine.run(&[0x5C]).unwrap();
    assert_eq!(reg(&mut machine, RSP), 0x1234);
    // pop [rsp]: the address uses the incremented pointer
    let mut machine = prepared(Mode::Long64, &[]);
    machine.poke(STACK, &0x1234u64.to_le_bytes());
    machine.run(&[0x8F, 0x04, 0x24]).unwrap();
    assert_eq!(machine.peek64(STACK + 8), 0x1234);
    // push imm8 is sign-extended; 66 makes it 16 bits
    let mut machine = ran(Mode::Long64, &[], &[0x6A, 0xFF, 0x66, 0x6A, 0xFE]);
    assert_eq!((machine.peek64(STACK - 8), machine.peek(STACK - 10)), (u64::MAX, [0xFE, 0xFF]));
    assert_eq!(reg(&mut machine, RSP), STACK - 10);
}

#[test]
fn a_16_bit_stack_wraps_and_keeps_the_upper_half_of_esp() {
    let mut machine = ran(Mode::Real, &[(RSP, 0xABCD_0000), (RAX, 0x1234)], &[0x50]);
    assert_eq!(reg(&mut machine, RSP), 0xABCD_FFFE);
    assert_eq!(machine.peek(0xFFFE), 0x1234u16.to_le_bytes());
}

#[test]
fn pusha_and_popa() {
    let values = [10, 11, 12, 13, STACK, 15, 16, 17];
    let mut machine = prepared(Mode::Protected32, &[]);
    machine.cpu().regs[..8].copy_from_slice(&values);
    machine.run(&[0x60]).unwrap();
    for (i, value) in values.iter().enumerate() {
        assert_eq!(u64::from(u32::from_le_bytes(machine.peek(STACK - 4 - 4 * i as u64))), *value);
    }
    machine.cpu().regs[..4].fill(0);
    machine.run(&[0x61]).unwrap();
    assert_eq!(machine.cpu().regs[..8], values);
}

#[test]
fn enter_and_leave() {
    // enter 16, 2: push rbp; push [rbp - 8]; push the frame; allocate
    let mut machine = prepared(Mode::Long64, &[(RBP, 0x6000)]);
    machine.poke(0x6000 - 8, &0x77u64.to_le_bytes());
    machine.run(&[0xC8, 16, 0, 2]).unwrap();
    let frame = STACK - 8;
    assert_eq!((reg(&mut machine, RBP), reg(&mut machine, RSP)), (frame, STACK - 24 - 16));
    assert_eq!([frame, frame - 8, frame - 16].map(|at| machine.peek64(at)), [0x6000, 0x77, frame]);
    machine.run(&[0xC9]).unwrap();
    assert_eq!((reg(&mut machine, RBP), reg(&mut machine, RSP)), (0x6000, STACK));
}

#[test]
fn popf_changes_what_the_privilege_allows() {
    let all = rflags::IMPLEMENTED;
    let always = rflags::ARITHMETIC | rflags::DF | rflags::NT | rflags::AC | rflags::ID | rflags::FIXED;
    for (cpl, iopl, changed) in
        [(0, 0, always | rflags::IF | rflags::IOPL), (3, 0, always), (3, 3, always | rflags::IF)]
    {
        let mut machine = prepared(Mode::Protected32, &[]);
        machine.poke(STACK, &((all & !rflags::TF) as u32).to_le_bytes());
        machine.cpu().cpl = cpl;
        machine.cpu().set_rflags(iopl << rflags::IOPL_SHIFT);
        machine.run(&[0x9D]).unwrap();
        let expected = changed | iopl << rflags::IOPL_SHIFT;
        assert_eq!(machine.cpu().rflags(), expected, "CPL {cpl} IOPL {iopl}");
    }
    // 16 bits leave the upper half alone
    let mut machine = prepared(Mode::Protected32, &[]);
    machine.poke(STACK, &[0xD5, 0x08]);
    machine.cpu().set_rflags(rflags::ID);
    machine.run(&[0x66, 0x9D]).unwrap();
    assert_eq!(machine.cpu().rflags(), rflags::ID | rflags::FIXED | 0x8D5);
}

#[test]
fn calls_return_behind_themselves() {
    for (mode, bytes) in [(Mode::Long64, 8), (Mode::Protected32, 4), (Mode::Real, 2)] {
        // call f; jmp end; f: inc ecx; ret 0; end:
        let offset = [2, 0, 0, 0];
        let code: Vec<u8> = match bytes {
            2 => [&[0xE8][..], &offset[..2], &[0xEB, 5, 0x41, 0x90, 0xC2, 0, 0]].concat(),
            _ => [&[0xE8][..], &offset, &[0xEB, 5, 0xFF, 0xC1, 0xC2, 0, 0]].concat(),
        };
        let mut machine = ran(mode, &[], &code);
        assert_eq!((reg(&mut machine, RCX), reg(&mut machine, RSP)), (1, STACK), "{mode:?}");
        let back = CODE + if bytes == 2 { 3 } else { 5 };
        assert_eq!(machine.peek64(STACK - bytes) & (u64::MAX >> (64 - 8 * bytes)), back);
    }
}

#[test]
fn a_near_transfer_out_of_the_code_segment_faults_at_the_branch() {
    // jmp to IP 0x3000 with a limit of 0x1FFF
    for (code, limit) in [(&[0xE9, 0xFD, 0x1F][..], 0x1FFF), (&[0xFF, 0xE0], 0x1FFF), (&[0xE2, 0x7F], 0x1080)] {
        let mut machine = prepared(Mode::Real, &[(RAX, 0x3000), (RCX, 5)]);
        machine.cpu().segs[usize::from(CS)].limit = limit;
        machine.cpu().segments_changed();
        assert_eq!(machine.run(code), Err(vector::GP));
        assert_eq!((machine.cpu().rip, reg(&mut machine, RCX)), (CODE, 5));
    }
    // jmp rax, ret, call [rbx] to an address that is not canonical
    for code in [&[0xFF, 0xE0][..], &[0x50, 0xC3], &[0xFF, 0x13]] {
        let mut machine = prepared(Mode::Long64, &[(RAX, 1 << 47), (RBX, DATA)]);
        machine.poke(DATA, &(1u64 << 47).to_le_bytes());
        assert_eq!(machine.run(code), Err(vector::GP), "{code:02x?}");
    }
}

#[test]
fn a_16_bit_branch_wraps_ip() {
    // jmp -0x1002 from 0x1000 leads to 0x1000 + 3 - 0x1003 = 0
    let mut machine = prepared(Mode::Real, &[]);
    machine.poke(0, &[0x40, 0x0F, 0x0B]);
    machine.poke(CODE, &[0xE9, 0xFD, 0xEF]);
    assert_eq!(machine.go(1), Ok(()));
    assert_eq!(reg(&mut machine, RAX), 1);
    // Near the end: jmp +0x10 from 0xFFF0 leads to 2
    let mut machine = prepared(Mode::Real, &[]);
    machine.poke(2, &[0x40, 0x0F, 0x0B]);
    machine.poke(0xFFF0, &[0xEB, 0x10]);
    machine.cpu().rip = 0xFFF0;
    assert_eq!(machine.go(3), Ok(()));
}

#[test]
fn the_same_ip_in_another_segment_is_other_code() {
    // 0:1000 increments AX and goes on at 1000:1000, which increments CX and ends.
    let mut machine = prepared(Mode::Real, &[]);
    machine.poke(0x1_1000, &[0x41, 0x0F, 0x0B]);
    machine.poke(CODE, &[0x40, 0xEA, 0x00, 0x10, 0x00, 0x10]);
    assert_eq!(machine.go(CODE + 1), Ok(()));
    assert_eq!((reg(&mut machine, RAX), reg(&mut machine, RCX)), (1, 1));
}

#[test]
fn loops_count_at_the_address_size() {
    // a: inc eax; loop a
    for (mode, prefix, start, rounds, end) in [
        (Mode::Long64, &[][..], 3, 3, 0),
        (Mode::Long64, &[0x67], 0xFFFF_FFFF_0000_0002, 2, 0),
        (Mode::Protected32, &[], 3, 3, 0),
        (Mode::Protected32, &[0x67], 0x5_0002, 2, 0x5_0000),
        (Mode::Real, &[], 0x7000_0002, 2, 0x7000_0000),
    ] {
        let back = -(4 + prefix.len() as i8) as u8;
        let code = [&[0xFF, 0xC0][..], prefix, &[0xE2, back]].concat();
        let mut machine = ran(mode, &[(RCX, start)], &code);
        assert_eq!((reg(&mut machine, RAX), reg(&mut machine, RCX)), (rounds, end), "{mode:?} {prefix:?}");
    }
    // loopne stops at ZF; jrcxz looks at all of RCX, jecxz at half
    let mut machine = ran(Mode::Long64, &[(RCX, 9), (RAX, 3)], &[0xFF, 0xC8, 0xE0, 0xFC]);
    assert_eq!((reg(&mut machine, RAX), reg(&mut machine, RCX)), (0, 6));
    for (code, taken) in [(&[0xE3, 2, 0xFF, 0xC0][..], false), (&[0x67, 0xE3, 2, 0xFF, 0xC0], true)] {
        let mut machine = ran(Mode::Long64, &[(RCX, 1 << 32)], code);
        assert_eq!(reg(&mut machine, RAX) == 0, taken);
    }
}

#[test]
fn undefined_unannounced_and_overlong() {
    let ud = Err(vector::UD);
    for (mode, code, outcome) in [
        (Mode::Long64, &[0xF0, 0x01, 0x03][..], Ok(())),   // lock add [rbx], eax
        (Mode::Long64, &[0xF0, 0x01, 0xC3], ud),           // lock add ebx, eax
        (Mode::Long64, &[0xF0, 0x8B, 0x03], ud),           // lock mov
        (Mode::Long64, &[0x0F, 0xFF, 0xC0], ud),           // ud0
        (Mode::Long64, &[0x06], ud),                       // push es
        (Mode::Protected32, &[0xC5, 0xF8, 0x77], ud),      // vzeroupper: not implemented
        (Mode::Long64, &[0x66, 0x0F, 0x6F, 0xC0], ud),     // movdqa: not implemented
        (Mode::Long64, &[0xF3, 0x0F, 0x1E, 0xFA], Ok(())), // endbr64
        (Mode::Long64, &[0x0F, 0xAE, 0xF0], Ok(())),       // mfence
        (Mode::Long64, &[0x0F, 0x18, 0x0C, 0x25, 0, 0, 0, 0x80], Ok(())), // prefetch never faults
        (Mode::Real, &[0xC4, 0xE2, 0x70, 0xF2, 0xC0], ud), // andn in real mode
        (Mode::Protected32, &[0xC4, 0xE2, 0x70, 0xF2, 0xC0], Ok(())),
    ] {
        let mut machine = prepared(mode, &[(RBX, DATA)]);
        assert_eq!(machine.run(code), outcome, "{mode:?} {code:02x?}");
    }
    // 15 bytes are an instruction, 16 are not, even if they would be undefined.
    let long = |prefixes: usize, rest: &[u8]| [vec![0x2E; prefixes], rest.to_vec()].concat();
    for (code, outcome) in [
        (long(14, &[0x90]), Ok(())),
        (long(15, &[0x90]), Err(vector::GP)),
        (long(13, &[0x06]), ud),
        (long(15, &[0x06]), Err(vector::GP)),
        (long(12, &[0x0F, 0x04]), ud),
        (long(14, &[0x0F, 0x04]), Err(vector::GP)),
    ] {
        assert_eq!(Machine::new(Mode::Long64).run(&code), outcome, "{} bytes", code.len());
    }
    // Without BMI1 the prefix of TZCNT is ignored; POPCNT is #UD.
    let mut machine = prepared(Mode::Long64, &[(RAX, 5)]);
    machine.cpu().features = crate::features::Features::default();
    assert_eq!(machine.run(&[0xF3, 0x0F, 0xBC, 0xC3]), Ok(()));
    assert_eq!(reg(&mut machine, RAX), 5);
    assert_eq!(machine.run(&[0xF3, 0x0F, 0xB8, 0xC3]), ud);
}

#[test]
fn hints_and_reserved_nops_do_nothing() {
    for code in [
        &[0x0F, 0x1F, 0x00][..],
        &[0x66, 0x2E, 0x0F, 0x1F, 0x84, 0, 0, 0, 0, 0],
        &[0x0F, 0x0D, 0x08], // prefetchw
        &[0x0F, 0x18, 0x20], // reserved
        &[0x0F, 0x19, 0xC0], // reserved
        &[0x0F, 0x1A, 0xC0], // MPX, which is not there
        &[0x0F, 0x1B, 0xC0],
        &[0x0F, 0x1C, 0xC0],
        &[0x0F, 0x1D, 0xC0],
        &[0x0F, 0x1E, 0xC0],
        &[0xF3, 0x0F, 0x1E, 0xC8], // rdsspd eax, without CET
    ] {
        let mut machine = prepared(Mode::Long64, &[(RAX, 1 << 63)]);
        assert_eq!(machine.run(code), Ok(()), "{code:02x?}");
        assert_eq!(reg(&mut machine, RAX), 1 << 63);
    }
}

#[test]
fn the_operand_size_prefix_shortens_near_branches_on_amd_only() {
    // 66 E9: Intel takes 32 bits of displacement, AMD 16 and truncates RIP (APM vol. 3 JMP near).
    let code = [0x66, 0xE9, 0x02, 0x00, 0x00, 0x00, 0x0F, 0x0B, 0x0F, 0x0B];
    for (amd, end) in [(false, CODE + 8), (true, CODE + 6)] {
        let mut machine = prepared(Mode::Long64, &[]);
        machine.cpu().features.amd = amd;
        machine.poke(CODE, &code);
        assert_eq!(machine.go(end), Ok(()));
    }
}

#[test]
fn an_instruction_across_two_pages() {
    let mut machine = prepared(Mode::Long64, &[]);
    // add eax, imm32 with its last two bytes in the next page
    machine.cpu().rip = 0x2000 - 3;
    machine.run(&[0x05, 1, 2, 3, 4]).unwrap();
    assert_eq!(reg(&mut machine, RAX), 0x0403_0201);
}

#[test]
fn repetitions_of_nothing_do_nothing() {
    for code in [&[0xF3, 0xA4][..], &[0xF3, 0xAA], &[0xF3, 0xA6], &[0xF2, 0xAE]] {
        let mut machine = prepared(Mode::Long64, &[(RSI, 1 << 63), (RDI, 1 << 63)]);
        let flags = machine.cpu().rflags();
        machine.run(code).unwrap();
        assert_eq!((reg(&mut machine, RSI), machine.cpu().rflags()), (1 << 63, flags));
    }
}

#[test]
fn long_moves_cross_pages_and_keep_their_order() {
    let source: Vec<u8> = (0..10_000u32).map(|i| (i * 7 % 251) as u8).collect();
    for (mode, code) in [(Mode::Long64, &[0xF3, 0xA4][..]), (Mode::Protected32, &[0xF3, 0xA4])] {
        let mut machine = prepared(mode, &[(RSI, DATA + 5), (RDI, DATA + 0x8003), (RCX, 10_000)]);
        machine.poke(DATA + 5, &source);
        machine.run(code).unwrap();
        assert_eq!(machine.peek::<10_000>(DATA + 0x8003).to_vec(), source);
        assert_eq!((reg(&mut machine, RSI), reg(&mut machine, RCX)), (DATA + 5 + 10_000, 0));
    }
    // One byte ahead of itself: the first byte spreads.
    let mut machine = prepared(Mode::Long64, &[(RSI, DATA), (RDI, DATA + 1), (RCX, 5000)]);
    machine.poke(DATA, &[0x5A, 1, 2, 3]);
    machine.run(&[0xF3, 0xA4]).unwrap();
    assert_eq!(machine.peek::<5001>(DATA), [0x5A; 5001]);
    // Downwards, words.
    let mut machine = prepared(Mode::Long64, &[(RSI, DATA + 6), (RDI, DATA + 8), (RCX, 4)]);
    machine.poke(DATA, &[1, 2, 3, 4, 5, 6, 7, 8]);
    machine.run(&[0xFD, 0xF3, 0x66, 0xA5]).unwrap();
    assert_eq!(machine.peek(DATA), [1, 2, 1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(reg(&mut machine, RSI), DATA - 2);
}

#[test]
fn a_repetition_that_faults_says_how_far_it_is() {
    let mut machine = prepared(Mode::Protected32, &[(RDI, DATA), (RCX, 0x3000), (RAX, 0x77)]);
    let limit = DATA as u32 + 0x17FF;
    machine.cpu().segs[usize::from(ES)].limit = limit;
    machine.cpu().segments_changed();
    assert_eq!(machine.run(&[0xF3, 0xAA]), Err(vector::GP));
    assert_eq!((reg(&mut machine, RDI), reg(&mut machine, RCX)), (u64::from(limit) + 1, 0x1800));
    assert_eq!(machine.peek(u64::from(limit) - 1), [0x77, 0x77, 0]);
}

#[test]
fn string_indices_wrap_at_the_address_size() {
    // rep stosb with 16-bit addresses
    let mut machine = ran(Mode::Real, &[(RDI, 0x7777_FFFE), (RCX, 4), (RAX, 0xAB)], &[0xF3, 0xAA]);
    assert_eq!(machine.peek(0xFFFE), [0xAB, 0xAB, 0]);
    assert_eq!((machine.peek(0), reg(&mut machine, RDI)), ([0xAB, 0xAB, 0], 0x7777_0002));
}

#[test]
fn comparisons_stop_where_their_prefix_says() {
    let mut machine = prepared(Mode::Long64, &[(RSI, DATA), (RDI, DATA + 0x100), (RCX, 8)]);
    machine.poke(DATA, b"abcdefgh");
    machine.poke(DATA + 0x100, b"abcxefgh");
    machine.run(&[0xF3, 0xA6]).unwrap();
    assert_eq!((reg(&mut machine, RCX), reg(&mut machine, RSI)), (4, DATA + 4));
    assert!(!machine.cpu().flags.zf());
    // scasb finds 'e'
    let mut machine = prepared(Mode::Long64, &[(RDI, DATA), (RCX, 8), (RAX, b'e'.into())]);
    machine.poke(DATA, b"abcdefgh");
    machine.run(&[0xF2, 0xAE]).unwrap();
    assert_eq!((reg(&mut machine, RCX), reg(&mut machine, RDI)), (3, DATA + 5));
    assert!(machine.cpu().flags.zf());
}

#[test]
fn device_memory_is_asked_once_for_each_element() {
    let mut machine = prepared(Mode::Protected32, &[(RSI, RAM), (RDI, DATA), (RCX, 5)]);
    machine.run(&[0xF3, 0xA5]).unwrap();
    assert_eq!(machine.bus.reads, [0, 4, 8, 12, 16].map(|i| RAM + i));
    assert_eq!(machine.peek::<21>(DATA)[19..], [0xFF, 0]);
    // add [device], 1: one read, one write
    let mut machine = prepared(Mode::Protected32, &[(RBX, RAM)]);
    machine.run(&[0x83, 0x03, 1]).unwrap();
    assert_eq!((&machine.bus.reads[..], &machine.bus.writes[..]), (&[RAM][..], &[(RAM, 0)][..]));
}

#[test]
fn code_that_writes_to_itself_runs_what_it_wrote() {
    // mov byte [rip + 1], 0xC0 turns the next instruction, inc ecx (FF C1), into inc eax (FF C0)
    let code = [0xC6, 0x05, 1, 0, 0, 0, 0xC0, 0xFF, 0xC1];
    for round in 0..2 {
        let mut machine = prepared(Mode::Long64, &[]);
        // Once as decoded for the first time, once with the page known as code.
        for _ in 0..=round {
            machine.cpu().rip = CODE;
            machine.cpu().regs[RAX] = 0;
            machine.run(&code).unwrap();
        }
        assert_eq!((reg(&mut machine, RAX), reg(&mut machine, RCX)), (1, 0), "{round}");
    }
    // rep stosb over the instruction behind itself
    let mut machine = prepared(Mode::Long64, &[(RDI, CODE + 2), (RCX, 2), (RAX, 0x90)]);
    machine.run(&[0xF3, 0xAA, 0xFF, 0xC2]).unwrap();
    assert_eq!(reg(&mut machine, RDX), 0);
}

#[test]
fn compare_and_exchange() {
    // cmpxchg [rbx], ecx
    for (rax, stored, result, zf) in [(5, 9, 5, true), (6, 5, 5, false)] {
        let mut machine = prepared(Mode::Long64, &[(RBX, DATA), (RCX, 9), (RAX, rax)]);
        machine.poke(DATA, &[5]);
        machine.run(&[0x0F, 0xB1, 0x0B]).unwrap();
        assert_eq!((machine.peek64(DATA), reg(&mut machine, RAX)), (stored, result));
        assert_eq!(machine.cpu().flags.zf(), zf);
    }
    // cmpxchg16b, aligned and not
    let mut machine = prepared(Mode::Long64, &[(RSI, DATA), (RBX, 1), (RCX, 2)]);
    machine.run(&[0x48, 0x0F, 0xC7, 0x0E]).unwrap();
    assert_eq!([machine.peek64(DATA), machine.peek64(DATA + 8)], [1, 2]);
    let mut machine = prepared(Mode::Long64, &[(RSI, DATA + 8)]);
    assert_eq!(machine.run(&[0x48, 0x0F, 0xC7, 0x0E]), Err(vector::GP));
}

#[test]
fn bounds_are_signed_and_inclusive() {
    for (index, outcome) in [(-5i32, Ok(())), (7, Ok(())), (8, Err(vector::BR)), (-6, Err(vector::BR))] {
        let mut machine = prepared(Mode::Protected32, &[(RBX, DATA), (RAX, index as u32 as u64)]);
        machine.poke(DATA, &(-5i32).to_le_bytes());
        machine.poke(DATA + 4, &7i32.to_le_bytes());
        assert_eq!(machine.run(&[0x62, 0x03]), outcome, "{index}");
    }
}

#[test]
fn enter_on_a_16_bit_stack_keeps_the_upper_half_of_the_stack_pointer() {
    let registers = &[(RSP, 0xABCD_0000 | STACK & 0xFFFF), (RBP, 0x1234_0008)];
    let mut machine = prepared(Mode::Real, registers);
    machine.run(&[0x66, 0xC8, 4, 0, 1]).unwrap();
    let top = 0xABCD_0000 | STACK & 0xFFFF;
    assert_eq!((reg(&mut machine, RBP), reg(&mut machine, RSP)), (top - 4, top - 12));
}

/// As a processor does it: the parts of a far pointer, and of BOUND's limits, are accesses of their own.
#[test]
fn second_parts_of_operands_wrap_at_the_address_size() {
    for (offset, outcome) in
        [(0xFFFC_u64, Ok(())), (0xFFFD, Err(vector::GP)), (0xFFFE, Ok(())), (0xFFFF, Err(vector::GP))]
    {
        for (code, ax) in [(&[0xC4, 0x07][..], 0x0201), (&[0x62, 0x07], 7)] {
            let mut machine = prepared(Mode::Real, &[(RAX, 7), (RBX, offset)]);
            let base = machine.cpu().seg(DS).base;
            for (i, byte) in (0..).zip([1, 2, 0, 0x7F]) {
                machine.poke(base + ((offset + i) & 0xFFFF), &[byte]);
            }
            // BOUND: 0x0201 is more than 7.
            let expected = if code[0] == 0x62 && outcome.is_ok() { Err(vector::BR) } else { outcome };
            assert_eq!(machine.run(code), expected, "{code:x?} {offset:x}");
            if expected.is_ok() {
                assert_eq!((reg(&mut machine, RAX), machine.cpu().seg(ES).selector), (ax, 0x7F00));
            }
        }
    }
}

#[test]
fn prefetch_of_a_register_is_a_nop_on_intel_only() {
    // prefetchw with a register operand (APM vol. 3 PREFETCH)
    for (amd, outcome) in [(false, Ok(())), (true, Err(vector::UD))] {
        let mut machine = prepared(Mode::Long64, &[]);
        machine.cpu().features.amd = amd;
        assert_eq!(machine.run(&[0x0F, 0x0D, 0xC8]), outcome);
    }
}

#[test]
fn movnti_stores() {
    // movnti [rbx], ecx; movnti [rbx + 8], rcx
    let mut machine = prepared(Mode::Long64, &[(RBX, DATA), (RCX, 0x1122_3344_5566_7788)]);
    machine.run(&[0x0F, 0xC3, 0x0B, 0x48, 0x0F, 0xC3, 0x4B, 0x08]).unwrap();
    assert_eq!([machine.peek64(DATA), machine.peek64(DATA + 8)], [0x5566_7788, 0x1122_3344_5566_7788]);
}

/// 64-bit code at CPL 3 with alignment checks.
fn alignment_checked(regs: &[(usize, u64)]) -> Machine {
    let mut machine = prepared(Mode::Long64, regs);
    let cpu = machine.cpu();
    cpu.cpl = 3;
    cpu.cr0 |= cr::CR0_AM;
    cpu.mode_changed();
    cpu.set_rflags(rflags::AC);
    machine
}

#[test]
fn addresses_are_canonical_before_they_are_aligned() {
    // mov rax, [rbx]
    for (address, outcome) in [(DATA, Ok(())), (DATA + 1, Err(vector::AC)), ((1 << 47) + 1, Err(vector::GP))] {
        assert_eq!(alignment_checked(&[(RBX, address)]).run(&[0x48, 0x8B, 0x03]), outcome, "{address:#x}");
    }
}

#[test]
fn prefixes_of_flat_segments_are_ignored_in_64_bit_mode() {
    // mov al, [rbx]; the same in SS; mov al, [rbp + 0]; the same in DS; xlatb in SS
    let cases: [(&[u8], u8); 5] = [
        (&[0x8A, 0x03], vector::GP),
        (&[0x36, 0x8A, 0x03], vector::GP),
        (&[0x8A, 0x45, 0], vector::SS),
        (&[0x3E, 0x8A, 0x45, 0], vector::SS),
        (&[0x36, 0xD7], vector::GP),
    ];
    for (code, fault) in cases {
        let mut machine = prepared(Mode::Long64, &[(RBX, 1 << 47), (RBP, 1 << 47)]);
        assert_eq!(machine.run(code), Err(fault), "{code:02x?}");
    }
}

#[test]
fn enter_checks_the_alignment_of_where_it_ends() {
    // enter imm16, 0: the AMD CPU that this was compared with touches the new top of the stack.
    for (bytes, outcome) in [(8, Ok(())), (4, Err(vector::AC))] {
        let mut machine = alignment_checked(&[]);
        assert_eq!(machine.run(&[0xC8, bytes, 0, 0]), outcome, "{bytes}");
    }
}

#[test]
fn x87_is_probed_as_kernels_do() {
    // fninit; fnstsw ax; fnstcw [ebx]
    let code = [0xDB, 0xE3, 0xDF, 0xE0, 0xD9, 0x3B];
    let mut machine = ran(Mode::Protected32, &[(RAX, 0xFFFF), (RBX, DATA)], &code);
    assert_eq!((reg(&mut machine, RAX), machine.peek(DATA)), (0, [0x7F, 0x03]));
    for bit in [cr::CR0_EM, cr::CR0_TS] {
        let mut machine = prepared(Mode::Protected32, &[(RBX, DATA)]);
        machine.cpu().cr0 |= bit;
        assert_eq!(machine.run(&code), Err(vector::NM));
    }
}
