//! Cases from seeds.
//!
//! The generator draws encodings from the [`crate::catalogue`], gives them operands ([`operands`]), and keeps what it knows of
//! the state so far ([`tracker`]): which registers still have known values, so that memory operands go where they should,
//! and which flags are undefined, so that nothing depends on them.

mod inputs;
mod memory;
mod operands;
mod recipes;
mod tracker;
mod values;

use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, Mnemonic as M};

use crate::case::{Case, Item, Mode};
use crate::catalogue::{self, Family};
use crate::layout::{CODE, PAGE};
use crate::random::Random;
use tracker::Tracker;

/// Most instructions of a sequence.
const LONGEST: u64 = 16;
/// Room for a sequence: that many bytes before a page's end it may begin in order to cross it.
const CROSSING: u64 = 40;
/// Cases that share their memory's first contents.
const PER_MEMORY: u64 = 64;

/// Makes the cases of a family.
pub struct Generator {
    family: Family,
    seed: u64,
    long: Vec<Code>,
    compat: Vec<Code>,
    memory: (u64, Vec<u8>),
}

impl Generator {
    /// Cases of a family from those of its encodings that `wanted` lets through.
    pub fn new(family: Family, seed: u64, wanted: impl Fn(Code) -> bool) -> Self {
        let encodings = |mode| catalogue::encodings(family, mode).into_iter().filter(|&code| wanted(code)).collect();
        let (long, compat) = (encodings(Mode::Long64), encodings(Mode::Compat32));
        Self { family, seed, long, compat, memory: (u64::MAX, Vec::new()) }
    }

    /// Whether nothing is left to draw from.
    pub fn is_empty(&self) -> bool {
        self.long.is_empty() || self.compat.is_empty()
    }

    /// The contents of the page that cannot be written, the same for all cases of all seeds.
    pub fn read_only() -> Vec<u8> {
        inputs::memory(&mut Random::new(0, 0), Family::Integer, PAGE as usize)
    }

    /// The case of that number. It depends on family, seed and number alone, as long as the table of encodings is the same.
    pub fn case(&mut self, number: u64) -> Case {
        let mut random = Random::new(self.seed, number << 8 | self.family as u64);
        let mode = if random.percent(75) { Mode::Long64 } else { Mode::Compat32 };
        let rip = start(&mut random);
        let state = inputs::state(&mut random, self.family, mode, rip);
        let memory = self.memory(number);
        let length = if random.percent(30) { 1 } else { 1 + random.below(LONGEST) };
        let stepped = random.percent(10);
        let mut sequence = Sequence::new(mode, Tracker::new(mode, &state), state.rip);
        let codes = if mode == Mode::Long64 { &self.long } else { &self.compat };
        while (sequence.items.len() as u64) < length && !sequence.is_over() {
            sequence.append(&mut random, self.family, codes);
        }
        let (code, items) = sequence.finish();
        Case { mode, state, memory, code, items, stepped }
    }

    /// One plain instance of an encoding, to see whether it is implemented: on registers where it can be, else on aligned memory.
    pub fn probe(code: Code, mode: Mode) -> Option<Case> {
        let family = catalogue::family_of(code)?;
        let mut random = Random::new(0, code as u64);
        let mut state = inputs::state(&mut random, Family::Integer, mode, CODE);
        state.rflags = 0x202;
        let mut sequence = Sequence::new(mode, Tracker::new(mode, &state), state.rip);
        for _ in 0..100 {
            if sequence.try_encoding(&mut random, code, &[], true) {
                let memory = inputs::memory(&mut random, family, crate::layout::WRITABLE);
                let (code, items) = sequence.finish();
                return Some(Case { mode, state, memory, code, items, stepped: false });
            }
        }
        None
    }

    fn memory(&mut self, number: u64) -> Vec<u8> {
        let group = number / PER_MEMORY;
        if self.memory.0 != group {
            let mut random = Random::new(!self.seed, group);
            self.memory = (group, inputs::memory(&mut random, self.family, crate::layout::WRITABLE));
        }
        self.memory.1.clone()
    }
}

/// Where code starts: mostly at the beginning of its page, sometimes so that it crosses into the next.
fn start(random: &mut Random) -> u64 {
    if random.percent(85) { CODE + random.below(64) } else { CODE + PAGE - 1 - random.below(CROSSING) }
}

/// Code so far.
struct Sequence {
    mode: Mode,
    base: u64,
    code: Vec<u8>,
    items: Vec<Item>,
    tracker: Tracker,
    encoder: Encoder,
}

impl Sequence {
    fn new(mode: Mode, tracker: Tracker, base: u64) -> Self {
        let encoder = Encoder::new(mode.bits());
        Self { mode, base, code: Vec::new(), items: Vec::new(), tracker, encoder }
    }

    fn is_over(&self) -> bool {
        self.tracker.is_over()
    }

    /// Address of the next instruction.
    fn ip(&self) -> u64 {
        self.base + self.code.len() as u64
    }

    fn append(&mut self, random: &mut Random, family: Family, codes: &[Code]) {
        let recipes = match family {
            Family::Integer => 10,
            Family::String => 45,
            _ => 3,
        };
        if random.percent(recipes) {
            recipes::append(self, random, family);
        } else {
            let code = random.pick(codes);
            self.try_encoding(random, code, codes, false);
        }
    }

    /// Append an instance of an encoding, unless the operands drawn do not fit what is known.
    fn try_encoding(&mut self, random: &mut Random, code: Code, codes: &[Code], plain: bool) -> bool {
        let Some(instr) = operands::instruction(random, code, self.mode, &self.tracker, plain) else { return false };
        if self.encoder.encode(&instr, self.ip()).is_err() {
            return false;
        }
        let mut bytes = self.encoder.take_buffer();
        if !plain && random.percent(3) {
            mutate(random, &mut bytes);
        }
        let decoded = self.decode(&bytes).code();
        if decoded != code && !codes.contains(&decoded) {
            return false;
        }
        self.push(&bytes)
    }

    fn decode(&self, bytes: &[u8]) -> Instruction {
        Decoder::with_ip(self.mode.bits(), bytes, self.ip(), decoder_options()).decode()
    }

    /// Append machine code of one instruction, if it may be there.
    fn push(&mut self, bytes: &[u8]) -> bool {
        let instr = self.decode(bytes);
        if instr.is_invalid() || instr.len() != bytes.len() {
            return false;
        }
        let before = self.tracker.clone();
        if !self.tracker.execute(&instr) {
            self.tracker = before;
            return false;
        }
        self.add(bytes, &before);
        if let Some(item) = self.items.last_mut() {
            item.large_operand = has_large_operand(&instr);
        }
        true
    }

    /// Append machine code whose effect the tracker has seen already; `before` is what was known before it.
    fn add(&mut self, bytes: &[u8], before: &Tracker) {
        let start = self.code.len();
        self.code.extend_from_slice(bytes);
        self.items.push(before.item(start, self.code.len()));
    }

    fn finish(mut self) -> (Vec<u8>, Vec<Item>) {
        let end = self.code.len();
        self.items.push(self.tracker.item(end, end));
        (self.code, self.items)
    }
}

/// How the host reads bytes.
pub fn decoder_options() -> u32 {
    match crate::host::vendor() {
        softcpu::HostVendor::Amd => DecoderOptions::AMD,
        _ => DecoderOptions::NONE,
    }
}

/// Put a prefix in front, which may mean nothing, or another instruction.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    const PREFIXES: [u8; 13] = [0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x65, 0x40, 0x44, 0x48, 0x4F];
    bytes.insert(0, random.pick(&PREFIXES));
}

/// x87 environments and states.
fn has_large_operand(instr: &Instruction) -> bool {
    matches!(instr.mnemonic(), M::Fnstenv | M::Fldenv | M::Fnsave | M::Frstor)
}
