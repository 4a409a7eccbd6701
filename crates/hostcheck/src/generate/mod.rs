//! Cases from seeds.
//!
//! The generator draws encodings from the [`crate::catalogue`], gives them operands ([`operands`]), and keeps what it knows of
//! the state so far ([`tracker`]): which registers still have known values, so that memory operands go where they should,
//! and which flags are undefined, so that nothing depends on them.

pub mod images;
mod inputs;
mod memory;
mod mutate;
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
    /// The last instruction is invalid: nothing comes behind it.
    over: bool,
}

impl Sequence {
    fn new(mode: Mode, tracker: Tracker, base: u64) -> Self {
        let encoder = Encoder::new(mode.bits());
        Self { mode, base, code: Vec::new(), items: Vec::new(), tracker, encoder, over: false }
    }

    fn is_over(&self) -> bool {
        self.over || self.tracker.is_over()
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
            if family == Family::Encoding && random.percent(60) {
                self.try_damaged(random, code, codes);
            } else {
                self.try_encoding(random, code, codes, false);
            }
        }
    }

    /// Append an instance of an encoding, unless the operands drawn do not fit what is known.
    fn try_encoding(&mut self, random: &mut Random, code: Code, codes: &[Code], plain: bool) -> bool {
        let Some(mut bytes) = self.encode(random, code, plain) else { return false };
        if !plain && random.percent(3) {
            mutate::add_prefix(random, &mut bytes);
        }
        let decoded = self.decode(&bytes).code();
        (decoded == code || codes.contains(&decoded)) && self.push(&bytes)
    }

    /// Append what is left of an instance of an encoding after some damage, if it is invalid, or has become another instruction.
    fn try_damaged(&mut self, random: &mut Random, code: Code, codes: &[Code]) -> bool {
        let Some(mut bytes) = self.encode(random, code, false) else { return false };
        mutate::damage(random, &mut bytes);
        // Whatever it has become may be longer.
        bytes.extend([0x90; 15]);
        let decoded = self.decode(&bytes);
        if decoded.is_invalid() {
            if mutate::may_be_executed(&bytes) {
                return false;
            }
            let before = self.tracker.clone();
            self.add(&bytes, &before);
            self.over = true;
            return true;
        }
        bytes.truncate(decoded.len());
        if self.mode == Mode::Compat32 && mutate::is_wide_element(decoded.mnemonic(), &bytes) {
            return false;
        }
        codes.contains(&decoded.code()) && self.push(&bytes)
    }

    /// Machine code of an encoding with operands.
    fn encode(&mut self, random: &mut Random, code: Code, plain: bool) -> Option<Vec<u8>> {
        let instr = operands::instruction(random, code, self.mode, &self.tracker, plain)?;
        let encoded = self.encoder.encode(&instr, self.ip());
        let bytes = self.encoder.take_buffer();
        encoded.is_ok().then_some(bytes)
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
            item.unordered = is_repeated_compare(&instr);
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

/// Which operand a repeated CMPS loads first differs with length and direction.
fn is_repeated_compare(instr: &Instruction) -> bool {
    (instr.has_rep_prefix() || instr.has_repne_prefix())
        && matches!(instr.mnemonic(), M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq)
}

/// x87 environments and states.
fn has_large_operand(instr: &Instruction) -> bool {
    matches!(instr.mnemonic(), M::Fnstenv | M::Fldenv | M::Fnsave | M::Frstor)
}
