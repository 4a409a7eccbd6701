//! Random programs: what runs in cached and chained blocks must end as what runs one instruction at a time.
//!
//! The programs jump about, write to themselves, fault and run into data; nothing is expected of them but that both ways agree.

use super::testing::{CODE, DATA, Machine, Mode};

/// Programs tried; each runs twice.
const PROGRAMS: u64 = 300;
/// Instructions of each, at most.
const BUDGET: u64 = 2000;

/// Xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    fn byte(&mut self) -> u8 {
        (self.next() >> 32) as u8
    }
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.byte() as usize % from.len()]
    }
}

/// One instruction, or something near it.
fn instruction(random: &mut Random) -> Vec<u8> {
    const ALU: &[u8] = &[0x00, 0x01, 0x02, 0x03, 0x11, 0x19, 0x29, 0x31, 0x39, 0x85, 0x88, 0x89, 0x8A, 0x8B];
    let (op, modrm) = (random.pick(ALU), random.byte());
    match random.byte() % 12 {
        0 => vec![0x0F, random.byte(), modrm],
        1 => vec![0x66, op, modrm],
        2 => vec![0x70 | (random.byte() % 16), random.byte() % 32],
        3 => vec![0xC1, modrm, random.byte()],
        4 => vec![0x50 | (random.byte() % 16)],
        5 => vec![0xE2, 0xF0 | random.byte()],
        6 => vec![0xF7, modrm | 0x10],
        7 => vec![0xFF, modrm & 0xCF],
        // Registers more often than memory.
        _ => vec![op, modrm | random.pick(&[0, 0xC0, 0xC0])],
    }
}

fn program(seed: u64) -> Machine {
    let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
    let mut machine = Machine::new([Mode::Real, Mode::Protected32, Mode::Long64][seed as usize % 3]);
    let mut code: Vec<u8> = (0..200).flat_map(|_| instruction(&mut random)).collect();
    // Repetitions count elements one by one only when they are stepped; ENTER that faults has stored below the stack pointer.
    code.retain(|byte| !matches!(byte, 0xF2 | 0xF3 | 0xC8));
    machine.poke(CODE, &code);
    for register in 0..16 {
        let values = [random.next(), DATA + random.next() % 0x1000, 0x3000 + random.next() % 0x4000];
        machine.cpu().regs[register] = random.pick(&values);
    }
    machine
}

/// Everything that a program can change.
fn state(machine: &mut Machine) -> (Vec<u64>, u64, u64, [u8; 0x8000], [u8; 0x2000]) {
    let (low, data) = (machine.peek(0), machine.peek(DATA - 0x800));
    let cpu = machine.cpu();
    (cpu.regs[..16].to_vec(), cpu.rip, cpu.rflags(), low, data)
}

#[test]
fn blocks_do_what_single_steps_do() {
    let mut executed = 0;
    for seed in 1..=PROGRAMS {
        let (mut fast, mut slow) = (program(seed), program(seed));
        fast.run_budget(BUDGET);
        while slow.instructions() < fast.instructions() {
            slow.step();
        }
        assert!(state(&mut fast) == state(&mut slow), "program {seed} after {} instructions", fast.instructions());
        executed += fast.instructions();
    }
    assert!(executed > PROGRAMS * 100, "the programs end too early to mean much");
}
