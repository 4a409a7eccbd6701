//! PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM: SDM vol. 2 section 4.1.

use super::encoding::{Encoded, Encoding, with_encoding};
use super::lane::{Lane, elements, lane};
use super::memory;
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::exec::form::Place;
use crate::op::{Flow, Handler, Op, Step, Width};

const RAX: u8 = 0;
const RCX: u8 = 1;
const RDX: u8 = 2;
const XMM0: u8 = 0;

/// The fields of the immediate byte.
#[derive(Clone, Copy)]
struct Control(u8);

impl Control {
    fn words(self) -> bool {
        self.0 & 1 != 0
    }
    fn signed(self) -> bool {
        self.0 & 2 != 0
    }
    fn aggregation(self) -> u8 {
        self.0 >> 2 & 3
    }
    fn negative(self) -> bool {
        self.0 & 0x10 != 0
    }
    /// Negation leaves out the elements behind the end of the second string.
    fn masked(self) -> bool {
        self.0 & 0x20 != 0
    }
    /// The highest index, or a mask of elements rather than of bits.
    fn output(self) -> bool {
        self.0 & 0x40 != 0
    }
    /// Elements of a lane.
    fn count(self) -> usize {
        if self.words() { 8 } else { 16 }
    }
}

/// A string: its elements as numbers, and how many of them are valid.
struct Text {
    elements: [i32; 16],
    length: usize,
}

impl Text {
    fn new(value: Lane, control: Control, length: Option<u64>) -> Self {
        let mut text = Self { elements: [0; 16], length: 0 };
        let bytes: [u8; 16] = elements(value);
        let words: [u16; 8] = elements(value);
        for (i, element) in text.elements.iter_mut().enumerate().take(control.count()) {
            *element = match (control.words(), control.signed()) {
                (false, false) => bytes[i].into(),
                (false, true) => (bytes[i] as i8).into(),
                (true, false) => words[i].into(),
                (true, true) => (words[i] as i16).into(),
            };
        }
        let valid = &text.elements[..control.count()];
        text.length = match length {
            Some(length) => length.min(control.count() as u64) as usize,
            None => valid.iter().position(|&x| x == 0).unwrap_or(control.count()),
        };
        text
    }

    fn valid(&self) -> &[i32] {
        &self.elements[..self.length]
    }
}

/// IntRes1: one bit for each element of the second string.
fn compare(a: &Text, b: &Text, control: Control) -> u32 {
    let in_set = |x: i32| a.valid().contains(&x);
    let in_ranges = |x: i32| a.valid().as_chunks::<2>().0.iter().any(|&[low, high]| low <= x && x <= high);
    let begins_at = |j: usize| (j..control.count()).zip(a.valid()).all(|(k, x)| b.valid().get(k) == Some(x));
    (0..control.count()).fold(0, |bits, j| {
        let (x, y) = (a.valid().get(j), b.valid().get(j));
        let holds = match control.aggregation() {
            0 => y.is_some_and(|&y| in_set(y)),
            1 => y.is_some_and(|&y| in_ranges(y)),
            // Behind the ends of both, elements are equal.
            2 => x == y,
            _ => begins_at(j),
        };
        bits | u32::from(holds) << j
    })
}

/// IntRes2.
fn polarized(bits: u32, b: &Text, control: Control) -> u32 {
    let all = (1 << control.count()) - 1;
    match (control.negative(), control.masked()) {
        (false, _) => bits,
        (true, false) => bits ^ all,
        (true, true) => bits ^ ((1 << b.length) - 1),
    }
}

fn mask(bits: u32, control: Control) -> Lane {
    match (control.output(), control.words()) {
        (false, _) => [bits.into(), 0],
        (true, false) => lane::<u8, 16>(std::array::from_fn(|i| if bits >> i & 1 != 0 { 0xFF } else { 0 })),
        (true, true) => lane::<u16, 8>(std::array::from_fn(|i| if bits >> i & 1 != 0 { 0xFFFF } else { 0 })),
    }
}

fn index(bits: u32, control: Control) -> u32 {
    match (bits, control.output()) {
        (0, _) => control.count() as u32,
        (bits, false) => bits.trailing_zeros(),
        (bits, true) => 31 - bits.leading_zeros(),
    }
}

/// Where the strings' lengths come from.
pub trait Lengths {
    /// Of the first and of the second string; `None` if a zero element ends them.
    fn lengths(cpu: &Cpu) -> (Option<u64>, Option<u64>);
}

/// A zero element ends a string.
pub struct Implicit;
/// EAX and EDX hold the lengths.
pub struct Explicit32;
/// RAX and RDX hold the lengths.
pub struct Explicit64;

impl Lengths for Implicit {
    fn lengths(_cpu: &Cpu) -> (Option<u64>, Option<u64>) {
        (None, None)
    }
}

impl Lengths for Explicit32 {
    fn lengths(cpu: &Cpu) -> (Option<u64>, Option<u64>) {
        let length = |register| u64::from((u32::get(&cpu.regs, register) as i32).unsigned_abs());
        (Some(length(RAX)), Some(length(RDX)))
    }
}

impl Lengths for Explicit64 {
    fn lengths(cpu: &Cpu) -> (Option<u64>, Option<u64>) {
        let length = |register| (u64::get(&cpu.regs, register) as i64).unsigned_abs();
        (Some(length(RAX)), Some(length(RDX)))
    }
}

fn finish<E: Encoding, L: Lengths, const INDEX: bool>(cpu: &mut Cpu, op: &Op, second: Lane) -> Step {
    let control = Control(op.imm as u8);
    let (first_length, second_length) = L::lengths(cpu);
    let a = Text::new(cpu.vector.xmm(op.dst), control, first_length);
    let b = Text::new(second, control, second_length);
    let bits = polarized(compare(&a, &b, control), &b, control);
    if INDEX {
        u32::set(&mut cpu.regs, RCX, index(bits, control));
    } else {
        E::set(cpu, XMM0, [mask(bits, control), [0; 2]]);
    }
    let flag = |on: bool, bit: u32| u64::from(on) << bit;
    let (zf, sf) = (b.length < control.count(), a.length < control.count());
    cpu.flags.set_bits(flag(bits != 0, 0) | flag(zf, 6) | flag(sf, 7) | flag(bits & 1 != 0, 11));
    Ok(Flow::Next)
}

fn from_register<E: Encoding, L: Lengths, const INDEX: bool>(cpu: &mut Cpu, _env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let second = cpu.vector.xmm(op.src);
    finish::<E, L, INDEX>(cpu, op, second)
}

/// The operand needs no alignment, with either encoding.
fn from_memory<E: Encoding, L: Lengths, const INDEX: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    cpu.check_available(E::NEEDS)?;
    let second = memory::load_sized::<E>(cpu, env, op, false)?;
    finish::<E, L, INDEX>(cpu, op, second[0])
}

/// The handler of one of them: the first string is in `dst`.
pub fn handler<L: Lengths, const INDEX: bool>(encoded: Encoded, source: Place) -> Handler {
    with_encoding!(encoded, E => match source {
        Place::Register => from_register::<E, L, INDEX> as Handler,
        Place::Memory(_) => from_memory::<E, L, INDEX>,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], control: Control) -> Text {
        let mut padded = [0; 16];
        padded[..bytes.len()].copy_from_slice(bytes);
        Text::new(lane(padded), control, None)
    }

    fn result(a: &[u8], b: &[u8], control: u8) -> u32 {
        let control = Control(control);
        let (a, b) = (text(a, control), text(b, control));
        polarized(compare(&a, &b, control), &b, control)
    }

    #[test]
    fn the_four_aggregations() {
        assert_eq!(result(b"aeiou", b"examples", 0), 0b0100_0101);
        assert_eq!(result(b"azAZ", b"x1Y-z", 4), 0b10101);
        assert_eq!(result(b"abcd", b"abxd", 8), 0b1111_1111_1111_1011);
        assert_eq!(result(b"we", b"When we went", 12), 1 << 5 | 1 << 8);
    }

    #[test]
    fn polarity_and_output() {
        assert_eq!(result(b"aeiou", b"examples", 0x10), 0xFFFF & !0b0100_0101);
        assert_eq!(result(b"aeiou", b"examples", 0x30), 0xFF & !0b0100_0101);
        assert_eq!((index(0b1010, Control(0)), index(0b1010, Control(0x40)), index(0, Control(1))), (1, 3, 8));
        assert_eq!(mask(0b10, Control(0x41)), [0xFFFF_0000, 0]);
    }
}
