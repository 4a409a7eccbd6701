//! FNSTENV, FLDENV, FNSAVE, FRSTOR. SDM vol. 1 section 8.1.10.
//!
//! The environment has four layouts: of 14 bytes with 16-bit operands and of 28 with 32-bit ones; in protected mode with pointers
//! as selector and offset, in real mode with linear addresses.

use softfloat::X80;
use x86defs::cpuid;

use super::state::{CONTROL_INIT, Fpu, Pointer};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::addr;
use crate::op::{Flow, Op, Step, Stop};

/// Bytes of the eight registers behind the environment.
const REGISTERS: usize = 80;
/// Bytes of the longer environment, and with registers.
const LONG: usize = 28;
const LONGEST: usize = LONG + REGISTERS;
const WORDS: usize = 7;
/// Bits of FOP in a word that has other bits on top.
const OPCODE: u32 = 0x7FF;

/// A layout.
#[derive(Clone, Copy)]
struct Layout {
    /// Bytes of each of the seven words: 2 or 4.
    word: usize,
    /// Pointers are linear addresses.
    real: bool,
}

impl Layout {
    fn of(cpu: &Cpu, op: &Op) -> Self {
        Self { word: if op.size == 2 { 2 } else { 4 }, real: cpu.mode.is_real() }
    }

    fn bytes(self) -> usize {
        WORDS * self.word
    }

    /// The seven words. Upper halves that hold nothing are all ones.
    fn words(self, fpu: &Fpu) -> [u32; WORDS] {
        const NOTHING: u32 = 0xFFFF_0000;
        let (instruction, data) = (fpu.instruction, fpu.data);
        let opcode = u32::from(fpu.opcode());
        let pointers = if self.real {
            let [instruction, data] = [instruction, data].map(linear);
            // Above bits 15:0, bits 31:16 lie twelve bits up in the next word (of a short environment, as many as fit).
            let upper = |linear: u32| (linear & NOTHING) >> 4;
            [NOTHING | instruction & 0xFFFF, upper(instruction) | opcode, NOTHING | data & 0xFFFF, upper(data)]
        } else {
            let selector = |pointer: Pointer| u32::from(pointer.selector);
            [
                instruction.offset as u32,
                opcode << 16 | selector(instruction),
                data.offset as u32,
                NOTHING | selector(data),
            ]
        };
        let [a, b, c, d] = pointers;
        let word = |value: u16| NOTHING | u32::from(value);
        [word(fpu.control()), word(fpu.status()), word(fpu.tag_word()), a, b, c, d]
    }

    /// The inverse.
    fn load(self, words: [u32; WORDS], fpu: &mut Fpu) {
        let [control, status, tags, a, b, c, d] = words;
        fpu.set_control(control as u16);
        fpu.set_status(status as u16);
        fpu.set_tag_word(tags as u16);
        let pointer = |low: u32, high: u32| match (self.real, self.word) {
            (true, 2) => Pointer { offset: u64::from(low & 0xFFFF | high << 4 & 0xF_0000), selector: 0 },
            (true, _) => Pointer { offset: u64::from(low & 0xFFFF | high << 4 & 0xFFFF_0000), selector: 0 },
            (false, _) => Pointer { offset: low.into(), selector: high as u16 },
        };
        fpu.instruction = pointer(a, b);
        fpu.data = pointer(c, d);
        fpu.set_opcode(match (self.real, self.word) {
            (true, _) => (b & OPCODE) as u16,
            (false, 2) => 0,
            (false, _) => (b >> 16 & OPCODE) as u16,
        });
    }

    fn encode(self, words: [u32; WORDS], bytes: &mut [u8]) {
        for (word, place) in words.into_iter().zip(bytes.chunks_exact_mut(self.word)) {
            place.copy_from_slice(&word.to_le_bytes()[..self.word]);
        }
    }

    fn decode(self, bytes: &[u8]) -> [u32; WORDS] {
        let mut words = bytes
            .chunks_exact(self.word)
            .map(|place| place.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)));
        std::array::from_fn(|_| words.next().unwrap_or(0))
    }
}

/// A pointer as real mode saves it.
fn linear(pointer: Pointer) -> u32 {
    (u32::from(pointer.selector) << 4).wrapping_add(pointer.offset as u32)
}

/// The state as it is saved: without selectors, if CPUID says so (SDM vol. 1 section 8.1.8).
fn saved(cpu: &Cpu) -> Fpu {
    let mut fpu = cpu.fpu;
    if cpu.features.l7_ebx & cpuid::L7_EBX_NO_FCS_FDS != 0 && !cpu.mode.is_real() {
        fpu.instruction.selector = 0;
        fpu.data.selector = 0;
    }
    fpu
}

fn load_bytes(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: &mut [u8]) -> Result<(), Stop> {
    let linear = addr::operand(cpu, op, bytes.len() as u64, false)?;
    cpu.check_alignment(linear, op.size.into())?;
    for (place, at) in bytes.chunks_exact_mut(2).zip((0..).step_by(2)) {
        let word = cpu.read::<u16>(env, cpu.wrap(linear.wrapping_add(at)), op.seg)?;
        place.copy_from_slice(&word.to_le_bytes());
    }
    Ok(())
}

fn store_bytes(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, bytes: &[u8]) -> Result<(), Stop> {
    let linear = addr::operand(cpu, op, bytes.len() as u64, true)?;
    cpu.check_alignment(linear, op.size.into())?;
    cpu.write_bytes(env, linear, op.seg, bytes)
}

/// FNSTENV.
pub fn fnstenv(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_available()?;
    let layout = Layout::of(cpu, op);
    let mut bytes = [0; LONG];
    layout.encode(layout.words(&saved(cpu)), &mut bytes);
    store_bytes(cpu, env, op, &bytes[..layout.bytes()])?;
    // All exceptions are masked then, so that the code which looks at the environment can compute.
    cpu.fpu.set_control(cpu.fpu.control() | CONTROL_INIT & 0x3F);
    cpu.after_store()
}

/// FLDENV.
pub fn fldenv(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let layout = Layout::of(cpu, op);
    let mut bytes = [0; LONG];
    let bytes = &mut bytes[..layout.bytes()];
    load_bytes(cpu, env, op, bytes)?;
    layout.load(layout.decode(bytes), &mut cpu.fpu);
    Ok(Flow::Next)
}

/// FNSAVE.
pub fn fnsave(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_available()?;
    let layout = Layout::of(cpu, op);
    let mut bytes = [0; LONGEST];
    layout.encode(layout.words(&saved(cpu)), &mut bytes);
    let (_, registers) = bytes.split_at_mut(layout.bytes());
    for (i, place) in (0..8).zip(registers.chunks_exact_mut(10)) {
        place.copy_from_slice(&cpu.fpu.st(i).to_bytes());
    }
    store_bytes(cpu, env, op, &bytes[..layout.bytes() + REGISTERS])?;
    cpu.fpu.initialise();
    cpu.after_store()
}

/// FRSTOR.
pub fn frstor(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.x87_ready(env)?;
    let layout = Layout::of(cpu, op);
    let mut bytes = [0; LONGEST];
    let bytes = &mut bytes[..layout.bytes() + REGISTERS];
    load_bytes(cpu, env, op, bytes)?;
    let (environment, registers) = bytes.split_at(layout.bytes());
    layout.load(layout.decode(environment), &mut cpu.fpu);
    for (i, &register) in (0..8).zip(registers.as_chunks::<10>().0) {
        cpu.fpu.set_st(i, X80::from_bytes(register));
    }
    Ok(Flow::Next)
}
