//! What a single drawn instruction cannot do: branches, which must come back, and registers set up for what comes next.

use iced_x86::RflagsBits;

use super::{Sequence, inputs, memory};
use crate::case::Mode;
use crate::catalogue::Family;
use crate::random::Random;

/// Append one.
pub fn append(sequence: &mut Sequence, random: &mut Random, family: Family) {
    match family {
        Family::String => return string(sequence, random),
        Family::X87 if random.percent(50) => return control_word(sequence, random),
        Family::SseFloat | Family::AvxFloat if random.percent(50) => return mxcsr(sequence, random, family),
        Family::Integer => {}
        _ => return set_pointer(sequence, random),
    }
    match random.below(7) {
        0 => branch(sequence, random),
        1 => count(sequence, random),
        2 => call(sequence),
        3 => flags(sequence, random),
        4 => ret(sequence),
        5 => single_step(sequence, random),
        _ => set_pointer(sequence, random),
    }
}

/// `MOV r, imm`, for a value that is an address of ours or any.
fn set_register(sequence: &mut Sequence, number: usize, value: u64) {
    let before = sequence.tracker.clone();
    let mut bytes = Vec::new();
    if sequence.mode == Mode::Long64 {
        bytes.push(0x48 | (number >> 3) as u8);
        bytes.push(0xB8 | (number & 7) as u8);
        bytes.extend(value.to_le_bytes());
    } else {
        bytes.push(0xB8 | (number & 7) as u8);
        bytes.extend((value as u32).to_le_bytes());
    }
    sequence.tracker.set(number, if sequence.mode == Mode::Long64 { value } else { value & 0xFFFF_FFFF });
    sequence.add(&bytes, &before);
}

fn set_pointer(sequence: &mut Sequence, random: &mut Random) {
    let registers = if sequence.mode == Mode::Long64 { 16 } else { 8 };
    let number = random.below(registers) as usize;
    let value = if number == 4 || random.percent(80) { inputs::place(random) } else { random.integer() };
    set_register(sequence, number, value);
}

/// Set up RSI, RDI and RCX again, and sometimes the direction.
fn string(sequence: &mut Sequence, random: &mut Random) {
    for number in [6, 7] {
        if sequence.tracker.value(number).is_none() || random.percent(20) {
            let size = 8;
            let place = if random.percent(50) { inputs::place(random) } else { memory::target(random, size, false) };
            set_register(sequence, number, place);
        }
    }
    let count = if random.percent(90) { random.below(70) } else { random.integer() };
    set_register(sequence, 1, count);
    if random.percent(20) {
        let direction = if random.percent(50) { 0xFC } else { 0xFD };
        sequence.push(&[direction]);
    }
}

/// LEA r32, [r32 + 1], for a branch to skip.
fn skippable(sequence: &mut Sequence, random: &mut Random) -> [u8; 3] {
    let number = random.pick(&[0, 2, 3, 5]);
    sequence.tracker.forget(number);
    [0x8D, 0x40 | (number as u8) << 3 | number as u8, 1]
}

/// Jcc over an instruction, short or near.
fn branch(sequence: &mut Sequence, random: &mut Random) {
    const READ: [u32; 8] = [
        RflagsBits::OF,
        RflagsBits::CF,
        RflagsBits::ZF,
        RflagsBits::CF | RflagsBits::ZF,
        RflagsBits::SF,
        RflagsBits::PF,
        RflagsBits::SF | RflagsBits::OF,
        RflagsBits::ZF | RflagsBits::SF | RflagsBits::OF,
    ];
    let condition = random.below(17) as u8;
    let before = sequence.tracker.clone();
    if condition < 16 && !before.are_defined(READ[usize::from(condition / 2)]) {
        return;
    }
    let skipped = skippable(sequence, random);
    let length = skipped.len() as u8;
    let mut bytes = match (condition, random.percent(50)) {
        (16, true) => vec![0xEB, length],
        (16, false) => vec![0xE9, length, 0, 0, 0],
        (_, true) => vec![0x70 | condition, length],
        (_, false) => vec![0x0F, 0x80 | condition, length, 0, 0, 0],
    };
    bytes.extend(skipped);
    sequence.add(&bytes, &before);
}

/// LOOP and JRCXZ over an instruction, with either address size.
fn count(sequence: &mut Sequence, random: &mut Random) {
    let opcode = 0xE0 + random.below(4) as u8;
    let before = sequence.tracker.clone();
    if opcode < 0xE2 && !before.are_defined(RflagsBits::ZF) {
        return;
    }
    let skipped = skippable(sequence, random);
    let mut bytes = if random.percent(30) { vec![0x67] } else { vec![] };
    bytes.extend([opcode, skipped.len() as u8]);
    bytes.extend(skipped);
    sequence.tracker.forget(1);
    sequence.add(&bytes, &before);
}

/// The stack pointer moved by so many words, if that leaves it ours.
fn moved_stack(sequence: &Sequence, words: i64) -> Option<u64> {
    let word = if sequence.mode == Mode::Long64 { 8 } else { 4 };
    let moved = sequence.tracker.value(4)?.wrapping_add((words * word) as u64);
    super::Tracker::is_harmless(moved, 64).then_some(moved)
}

/// CALL of the next instruction.
fn call(sequence: &mut Sequence) {
    let before = sequence.tracker.clone();
    let Some(stack) = moved_stack(sequence, -1) else { return };
    sequence.tracker.set(4, stack);
    sequence.add(&[0xE8, 0, 0, 0, 0], &before);
}

/// PUSH of the address behind the RET that follows.
fn ret(sequence: &mut Sequence) {
    let before = sequence.tracker.clone();
    if moved_stack(sequence, -1).is_none() {
        return;
    }
    let target = sequence.ip() as u32 + 6;
    let mut bytes = vec![0x68];
    bytes.extend(target.to_le_bytes());
    bytes.push(0xC3);
    sequence.add(&bytes, &before);
}

/// PUSH of flags, POPF.
fn flags(sequence: &mut Sequence, random: &mut Random) {
    // CF, PF, AF, ZF, SF, DF, OF, NT, AC, ID; also IF and IOPL, which must not change.
    let value = random.next() as u32 & 0x0024_7ED5;
    let value = if random.percent(80) { value & !0x0004_0000 } else { value };
    let before = sequence.tracker.clone();
    if moved_stack(sequence, -1).is_none() {
        return;
    }
    let mut bytes = vec![0x68];
    bytes.extend(value.to_le_bytes());
    bytes.push(0x9D);
    let all = RflagsBits::OF | RflagsBits::SF | RflagsBits::ZF | RflagsBits::AF | RflagsBits::CF | RflagsBits::PF;
    sequence.tracker.define_flags(all);
    sequence.add(&bytes, &before);
}

/// PUSH of flags with TF, POPF, NOP, behind which comes the trap.
fn single_step(sequence: &mut Sequence, random: &mut Random) {
    let before = sequence.tracker.clone();
    if random.percent(50) || moved_stack(sequence, -1).is_none() {
        return;
    }
    // PUSH 0x302; POPF; NOP
    sequence.tracker.define_flags(u32::MAX);
    sequence.add(&[0x68, 0x02, 0x03, 0, 0, 0x9D, 0x90], &before);
}

/// MOV of `value` to memory at an absolute address, then an instruction that ends with such an address loads it.
fn load_control(sequence: &mut Sequence, random: &mut Random, value: u32, load: &[u8]) {
    let before = sequence.tracker.clone();
    let place = (inputs::place(random) & !3) as u32;
    // ModRM with an absolute address: in 64-bit mode by a SIB byte, in 32-bit mode too.
    let mut bytes = vec![0xC7, 0x04, 0x25];
    bytes.extend(place.to_le_bytes());
    bytes.extend(value.to_le_bytes());
    bytes.extend(load);
    bytes.extend(place.to_le_bytes());
    sequence.add(&bytes, &before);
}

/// FLDCW of something that has meaning.
fn control_word(sequence: &mut Sequence, random: &mut Random) {
    let value = inputs::control_word(random);
    load_control(sequence, random, value.into(), &[0xD9, 0x2C, 0x25]);
}

/// LDMXCSR, likewise.
fn mxcsr(sequence: &mut Sequence, random: &mut Random, family: Family) {
    let value = inputs::mxcsr(random);
    let legacy: &[u8] = &[0x0F, 0xAE, 0x14, 0x25];
    let vex: &[u8] = &[0xC5, 0xF8, 0xAE, 0x14, 0x25];
    load_control(sequence, random, value, if family == Family::AvxFloat { vex } else { legacy });
}
