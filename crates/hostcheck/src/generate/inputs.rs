//! The state that cases begin with.

use x86defs::rflags;

use crate::case::{Mode, State};
use crate::catalogue::Family;
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
    image
}

/// 128 bits for a vector register or memory.
fn vector(random: &mut Random, family: Family) -> u128 {
    let mut word = || word(random, family);
    u128::from(word()) << 64 | u128::from(word())
}

fn word(random: &mut Random, _family: Family) -> u64 {
    random.integer()
}

/// Contents of memory.
pub fn memory(random: &mut Random, family: Family, size: usize) -> Vec<u8> {
    // Strings are the more interesting the more they repeat.
    if family == Family::String {
        return (0..size).map(|_| random.pick(&[0, 0, 0, 0x11, 0xFF])).collect();
    }
    let words = std::iter::repeat_with(|| word(random, family).to_le_bytes());
    words.take(size / 8).flatten().collect()
}
