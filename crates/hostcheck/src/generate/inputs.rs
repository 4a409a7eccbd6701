//! The state that cases begin with.

use x86defs::rflags;

use super::values;
use crate::case::{Mode, State};
use crate::catalogue::Family;
use crate::host;
use crate::layout::{SCRATCH, WRITABLE};
use crate::random::Random;
use crate::xsave::Xsave;

/// Registers that keep addresses: RSP, RSI, RDI always.
const POINTERS: [usize; 3] = [4, 6, 7];

/// All registers.
pub fn state(random: &mut Random, family: Family, mode: Mode, rip: u64) -> State {
    let mut regs = [0; 16];
    for value in &mut regs {
        *value = random.integer();
    }
    for number in POINTERS {
        regs[number] = place(random);
    }
    // The count of repeated instructions, more often than not one that ends.
    if family == Family::String && random.percent(80) {
        regs[1] = random.below(70);
    }
    if mode == Mode::Compat32 {
        for (number, value) in regs.iter_mut().enumerate() {
            *value = if number < 8 { *value & 0xFFFF_FFFF } else { 0 };
        }
    }
    State { regs, rip, rflags: flags(random, family), xsave: extended(random, family) }
}

fn flags(random: &mut Random, family: Family) -> u64 {
    let mut flags = rflags::FIXED | rflags::IF | random.next() & rflags::ARITHMETIC;
    if random.percent(if family == Family::String { 40 } else { 10 }) {
        flags |= rflags::DF;
    }
    for (flag, share) in [(rflags::AC, 3), (rflags::ID, 3)] {
        if random.percent(share) {
            flags |= flag;
        }
    }
    flags
}

/// An address in the scratch area, mostly in its middle and aligned.
pub fn place(random: &mut Random) -> u64 {
    let middle = SCRATCH + 0x400 + random.below(WRITABLE as u64 - 0x800);
    match random.below(10) {
        0..6 => middle & !63,
        6..8 => middle & !7,
        _ => middle,
    }
}

/// x87, SSE and AVX state.
fn extended(random: &mut Random, family: Family) -> Xsave {
    let mut image = Xsave::default();
    if matches!(family, Family::Integer | Family::String | Family::Bmi) {
        return image;
    }
    for i in 0..16 {
        image.set_xmm(i, vector(random, family));
        image.set_ymm_high(i, vector(random, family));
    }
    match family {
        Family::SseFloat | Family::AvxFloat => image.set_mxcsr(mxcsr(random)),
        Family::Sse | Family::Crypto => image.set_mxcsr(image.mxcsr() | misaligned(random)),
        _ => {}
    }
    if matches!(family, Family::X87 | Family::Mmx | Family::SseFloat | Family::Encoding) {
        x87(random, family, &mut image);
    }
    image
}

/// Exceptions mostly masked; everything else as it comes.
pub fn mxcsr(random: &mut Random) -> u32 {
    const MASKS: u32 = 0x1F80;
    let value = random.next() as u32 & 0xFFFF;
    let value = if random.percent(70) { value | MASKS } else { value };
    // Not that every result is flushed.
    let value = if random.percent(50) { value & !0x8040 } else { value };
    value | misaligned(random)
}

/// MXCSR.MM at times, on hosts that have it.
fn misaligned(random: &mut Random) -> u32 {
    const MM: u32 = 1 << 17;
    if random.percent(20) && host::has_misaligned_sse() { MM } else { 0 }
}

const EXCEPTIONS: u16 = 0x3F;

/// x87's control word: exceptions mostly masked, precision mostly full.
pub fn control_word(random: &mut Random) -> u16 {
    let mut control = 0x40 | random.next() as u16 & 0x1F3F;
    if random.percent(75) {
        control |= EXCEPTIONS;
    }
    if random.percent(60) {
        control |= 0x300;
    }
    control
}

/// Control and status words that go together: no exception waits, but in a few cases.
fn x87(random: &mut Random, family: Family, image: &mut Xsave) {
    let control = control_word(random);
    let mut status = random.next() as u16 & 0x7F7F;
    if random.percent(95) || family != Family::X87 {
        status &= control | !EXCEPTIONS;
    }
    if status & !control & EXCEPTIONS != 0 {
        status |= 0x8080;
    }
    image.set_fcw(control);
    image.set_fsw(status);
    image.set_ftw(match random.below(10) {
        0..5 => 0xFF,
        5 => 0,
        _ => random.next() as u8,
    });
    for i in 0..8 {
        image.set_st(i, values::extended(random));
    }
}

/// 128 bits for a vector register.
fn vector(random: &mut Random, family: Family) -> u128 {
    // Small numbers are what gathers want for an index, and shuffles and shifts for a count.
    if !family.is_float() && random.percent(25) {
        let masks = [0x0000_00FF_0000_00FF, 0x1F, 0x0F0F_0F0F_0F0F_0F0F];
        // By the last one a gather may reach the code, behind which the two sides differ.
        let gathers = matches!(family, Family::Avx | Family::Encoding);
        let mask = random.pick(if gathers { &masks[..2] } else { &masks });
        return u128::from(random.next() & mask) << 64 | u128::from(random.next() & mask);
    }
    let kind = values::Kind::draw(random, family);
    u128::from(kind.word(random)) << 64 | u128::from(kind.word(random))
}

/// Contents of memory.
pub fn memory(random: &mut Random, family: Family, size: usize) -> Vec<u8> {
    // Strings are the more interesting the more they repeat.
    if family == Family::String {
        return (0..size).map(|_| random.pick(&[0, 0, 0, 0x11, 0xFF])).collect();
    }
    let mut bytes = Vec::with_capacity(size);
    // Lines of one kind each, so that whole vectors make sense.
    while bytes.len() < size {
        let kind = values::Kind::draw(random, family);
        for _ in 0..4 {
            bytes.extend(kind.pair(random).to_le_bytes());
        }
    }
    bytes.truncate(size);
    bytes
}
