//! Cases of the instructions that save and restore the whole state: one instruction on an image that is sound, or nearly so.

use super::inputs;
use crate::case::{Case, Item, Mode};
use crate::catalogue::Family;
use crate::layout::{CODE, PAGE, SCRATCH, WRITABLE};
use crate::random::Random;
use crate::xsave::COMPONENTS;

/// An instruction on an image at `[rdi]`: its name, bytes before ModRM, ModRM, and whether it saves.
const INSTRUCTIONS: [(&str, u8, u8, bool); 6] = [
    ("fxsave", 0xAE, 0x07, true),
    ("fxrstor", 0xAE, 0x0F, false),
    ("xsave", 0xAE, 0x27, true),
    ("xrstor", 0xAE, 0x2F, false),
    ("xsaveopt", 0xAE, 0x37, true),
    ("xsavec", 0xC7, 0x27, true),
];
/// FCW of an x87 that is not in use: some processors say that it is, so it always is.
const FCW_INIT: u16 = 0x37F;
const COMPACTED: u64 = 1 << 63;
/// FIP and FDP.
const POINTERS: [usize; 2] = [8, 16];
const MXCSR: usize = 24;
const HEADER: usize = 512;
/// XSTATE_BV, XCOMP_BV, and what is reserved.
const WORDS: usize = 8;
/// Bytes that any of the instructions may touch.
const LARGEST: u64 = 832;

/// What a case does.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// The instruction.
    pub name: &'static str,
    /// Offset of the image in the scratch area.
    pub offset: usize,
    /// Whether the image is written.
    pub saves: bool,
}

/// The case of a number, and what it does. None if the host has no such instruction.
pub fn case(seed: u64, number: u64, has: impl Fn(&str) -> bool) -> Option<(Case, Image)> {
    let mut random = Random::new(seed, number);
    let (name, opcode, modrm, saves) = random.pick(&INSTRUCTIONS);
    if !has(name) {
        return None;
    }
    let mode = if random.percent(70) { Mode::Long64 } else { Mode::Compat32 };
    let mut state = inputs::state(&mut random, Family::AvxFloat, mode, CODE);
    if state.xsave.fcw() == FCW_INIT {
        state.xsave.set_fcw(FCW_INIT ^ 1);
    }
    for i in 0..16 {
        if random.percent(50) {
            state.xsave.set_ymm_high(i, 0);
        }
    }
    if mode == Mode::Compat32 {
        // Whether registers that only 64-bit mode has count as in use is up to the processor, if no other one does.
        state.xsave.set_xmm(0, state.xsave.xmm(0) | 1);
        state.xsave.set_ymm_high(0, state.xsave.ymm_high(0) | 1);
    }
    let offset = place(&mut random);
    (state.regs[0], state.regs[2]) = (random.below(COMPONENTS + 1), 0);
    state.regs[7] = SCRATCH + offset;
    let mut memory = inputs::memory(&mut random, Family::AvxFloat, WRITABLE);
    prepare(&mut random, &mut memory, offset as usize);

    let mut code = if mode == Mode::Long64 && random.percent(50) { vec![0x48] } else { vec![] };
    code.extend([0x0F, opcode, modrm]);
    let item = |start, end| Item {
        start,
        end,
        undefined_flags: 0,
        undefined_conditions: 0,
        approximate: false,
        large_operand: true,
        unordered: false,
    };
    let items = vec![item(0, code.len()), item(code.len(), code.len())];
    let case = Case { mode, state, memory, code, items, stepped: random.percent(10) };
    Some((case, Image { name, offset: offset as usize, saves }))
}

/// Where the image is: mostly in place, sometimes across pages that can be written, into the read-only one, or not aligned.
fn place(random: &mut Random) -> u64 {
    let aligned = match random.below(10) {
        0 => 2 * PAGE - LARGEST + random.below(LARGEST),
        1 | 2 => PAGE - random.below(LARGEST),
        _ => random.below(PAGE),
    };
    if random.percent(93) { aligned & !63 } else { aligned }
}

/// Make an image of what is in memory, one that can be restored most of the time.
fn prepare(random: &mut Random, memory: &mut [u8], offset: usize) {
    let mut put = |at: usize, bytes: &[u8]| {
        for (place, byte) in memory.iter_mut().skip(offset + at).zip(bytes) {
            *place = *byte;
        }
    };
    let mxcsr = if random.percent(95) { random.next() as u32 & 0xFFFF } else { 1 << (16 + random.below(16)) };
    put(MXCSR, &mxcsr.to_le_bytes());
    // How much of an address that is not canonical FIP and FDP keep is up to the processor.
    for at in POINTERS {
        put(at + 6, &[0; 2]);
    }
    let mut header = [0; WORDS];
    header[0] = random.below(COMPONENTS + 1);
    if random.percent(40) {
        let named = if random.percent(90) { header[0] | random.below(8) } else { random.below(8) };
        header[1] = COMPACTED | named;
    }
    if random.percent(10) {
        let word = random.below(WORDS as u64) as usize;
        // Nobody's components, and the bit of the compacted format.
        header[word] |= random.pick(&[1 << 62, 1 << 63, 1 << 48]);
    }
    put(HEADER, header.map(u64::to_le_bytes).as_flattened());
}
