//! Memory operands: first where they should go, then how they say so.

use iced_x86::{Instruction, Register};

use super::tracker::Tracker;
use crate::case::Mode;
use crate::layout::{GS_BASE, PAGE, SCRATCH, WRITABLE};
use crate::random::Random;

/// Where an access of `size` bytes should go.
pub fn target(random: &mut Random, size: u64, plain: bool) -> u64 {
    let boundary = SCRATCH + PAGE;
    let end = SCRATCH + WRITABLE as u64;
    let within = SCRATCH + 64 + random.below(WRITABLE as u64 - 256);
    let across = |random: &mut Random, edge: u64| edge - random.below(size.clamp(1, 64) + 1);
    let alignment = size.next_power_of_two().clamp(1, 64);
    if plain {
        return within & !63;
    }
    match random.below(1000) {
        0..650 => within & !(alignment - 1),
        650..870 => within,
        870..950 => across(random, boundary),
        950..970 => across(random, end),
        970..980 => end + random.below(PAGE - 64),
        980..985 => across(random, end + PAGE),
        985..990 => across(random, SCRATCH) & 0xFFFF_FFFF,
        990..995 => SCRATCH - random.below(0x8000),
        _ => 0x8000_0000_0000 + random.below(0x1000),
    }
}

/// Make the memory operand of `instr` go to `target`; false if no way was found. `absolute` forms of MOV have an address only.
pub fn address(random: &mut Random, instr: &mut Instruction, target: u64, mode: Mode, tracker: &Tracker) -> bool {
    let long = mode == Mode::Long64;
    let gs = long && random.percent(4);
    let target = if gs { target.wrapping_sub(GS_BASE) } else { target };
    if gs {
        instr.set_segment_prefix(Register::GS);
    } else if random.percent(2) {
        // Ignored in 64-bit mode, and equal in 32-bit mode; CS cannot be written through there.
        let same =
            if long { [Register::CS, Register::DS, Register::SS] } else { [Register::ES, Register::DS, Register::SS] };
        instr.set_segment_prefix(random.pick(&same));
    }
    if long && random.percent(10) {
        instr.set_memory_base(Register::RIP);
        instr.set_memory_displacement64(target);
        instr.set_memory_displ_size(8);
        return true;
    }
    let narrow = !long || random.percent(8);
    if narrow && target >> 32 != 0 {
        return false;
    }
    for _ in 0..4 {
        if random.percent(80) && based(random, instr, target, mode, narrow, tracker) {
            return true;
        }
    }
    absolute(instr, target, narrow)
}

/// Base, perhaps index, displacement.
fn based(
    random: &mut Random,
    instr: &mut Instruction,
    target: u64,
    mode: Mode,
    narrow: bool,
    tracker: &Tracker,
) -> bool {
    let count = if mode == Mode::Long64 { 16 } else { 8 };
    let base = random.below(count) as usize;
    let index = random.below(count) as usize;
    let Some(base_value) = tracker.value(base) else { return false };
    let mut sum = base_value;
    let mut scale = 1;
    let indexed = index != 4 && random.percent(40);
    if indexed {
        let Some(value) = tracker.value(index) else { return false };
        scale = 1 << random.below(4);
        sum = sum.wrapping_add(value.wrapping_mul(scale));
    }
    let mut displacement = target.wrapping_sub(sum);
    if narrow {
        displacement = displacement as u32 as i32 as u64;
    } else if displacement as i64 != i64::from(displacement as i32) {
        return false;
    }
    let name = |number: usize| general(number, if narrow { 4 } else { 8 });
    instr.set_memory_base(name(base));
    instr.set_memory_index(if indexed { name(index) } else { Register::None });
    instr.set_memory_index_scale(scale as u32);
    set_displacement(instr, displacement, narrow, 1);
    true
}

/// A displacement alone.
fn absolute(instr: &mut Instruction, target: u64, narrow: bool) -> bool {
    if !narrow && target as i64 != i64::from(target as i32) {
        return false;
    }
    instr.set_memory_base(Register::None);
    instr.set_memory_index(Register::None);
    set_displacement(instr, target, narrow, if narrow { 4 } else { 8 });
    true
}

fn set_displacement(instr: &mut Instruction, displacement: u64, narrow: bool, size: u32) {
    instr.set_memory_displacement64(if narrow { displacement & 0xFFFF_FFFF } else { displacement });
    instr.set_memory_displ_size(size);
}

/// The general register of a number, `size` bytes wide.
pub fn general(number: usize, size: u32) -> Register {
    let first = match size {
        2 => Register::AX,
        4 => Register::EAX,
        _ => Register::RAX,
    };
    first + number as u32
}
