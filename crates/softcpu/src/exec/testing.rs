//! What tests of instructions run on: a vCPU in a chosen mode that executes hand-assembled bytes until they end.

use std::hash::{DefaultHasher, Hasher};

use guestmem::GuestMemory;
use vcpu::{Bus, Clock, Exit, Reply};
use x86defs::{cr, segment as attr};

use crate::cpu::{Cpu, HostVendor};
use crate::engine::{Engine, EngineConfig};
use crate::features::Features;
use crate::msr::When;
use crate::pmu::Work;
use crate::segment::CS;

/// Where the code is.
pub const CODE: u64 = 0x1000;
/// The stack grows down from here.
pub const STACK: u64 = 0x8000;
/// Memory for operands.
pub const DATA: u64 = 0x20_0000;
/// Bytes of RAM; addresses behind it are those of a device that reads as all ones.
pub const RAM: u64 = 4 << 20;
const TABLES: u64 = 0x10_0000;
/// UD2, which ends each run.
const END: [u8; 2] = [0x0F, 0x0B];

/// How bytes are executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Real mode; operands are below 64 KiB.
    Real,
    /// Flat 32-bit protected mode without paging.
    Protected32,
    /// 64-bit mode, identity mapping.
    Long64,
}

/// Nothing but device memory that reads as all ones and counts accesses.
#[derive(Default)]
pub struct EmptyBus {
    /// Device memory reads.
    pub reads: Vec<u64>,
    /// Device memory writes.
    pub writes: Vec<(u64, u64)>,
    /// FERR#, as often as it was signalled anew.
    pub x87_errors: usize,
    /// IGNNE#.
    pub ignore_x87_errors: bool,
    /// Overflows of performance counters.
    pub performance_interrupts: u32,
}

impl Bus for EmptyBus {
    fn mmio_read(&mut self, _vcpu: usize, gpa: u64, size: usize) -> Reply<u64> {
        self.reads.push(gpa);
        Reply::Done(u64::MAX >> (64 - 8 * size))
    }
    fn mmio_write(&mut self, _vcpu: usize, gpa: u64, _size: usize, value: u64) -> Reply<()> {
        self.writes.push((gpa, value));
        Reply::Done(())
    }
    fn port_write(&mut self, _vcpu: usize, port: u16, _size: usize, value: u32) -> Reply<()> {
        self.writes.push((port.into(), value.into()));
        Reply::Done(())
    }
    fn x87_error(&mut self, _vcpu: usize, first: bool) -> bool {
        self.x87_errors += usize::from(first);
        self.ignore_x87_errors
    }
    fn performance_interrupt(&mut self, _vcpu: usize) {
        self.performance_interrupts += 1;
    }
}

/// A vCPU with RAM.
pub struct Machine {
    engine: Engine,
    /// Memory.
    pub mem: GuestMemory,
    /// The bus.
    pub bus: EmptyBus,
}

impl Machine {
    /// A vCPU in `mode`, about to execute at [`CODE`], with everything announced.
    pub fn new(mode: Mode) -> Self {
        let mem = GuestMemory::new(RAM).expect("memory for a test");
        let config = EngineConfig {
            cpus: 1,
            host: HostVendor::Intel,
            seed: 0,
            slice: (1000, 1000),
            clock: Clock::new(1_000_000),
        };
        let mut machine = Self { engine: Engine::new(&config, mem.clone()), mem, bus: EmptyBus::default() };
        for vector in 0..32 {
            machine.engine.intercept_exception(vector, true);
        }
        machine.set_mode(mode);
        let cpu = machine.cpu();
        cpu.features = Features {
            l1_ecx: u32::MAX,
            l1_edx: u32::MAX,
            l7_ebx: u32::MAX,
            l7_ecx: u32::MAX,
            x1_ecx: u32::MAX,
            x1_edx: u32::MAX,
            ..cpu.features
        };
        cpu.regs[4] = STACK;
        machine
    }

    fn set_mode(&mut self, mode: Mode) {
        if mode == Mode::Long64 {
            for (address, entry) in [(0, TABLES + 0x1007), (0x1000, TABLES + 0x2007)] {
                self.poke(TABLES + address, &u64::to_le_bytes(entry));
            }
            for page in 0..4 {
                self.poke(TABLES + 0x2000 + 8 * page, &u64::to_le_bytes(page << 21 | 0x87));
            }
        }
        let cpu = self.cpu();
        match mode {
            Mode::Real => {
                let cs = &mut cpu.segs[usize::from(CS)];
                (cs.base, cs.selector) = (0, 0);
                cpu.rip = CODE;
                cpu.segments_changed();
            }
            Mode::Protected32 => cpu.set_flat_protected32(CODE as u32),
            Mode::Long64 => {
                cpu.set_flat_protected32(CODE as u32);
                cpu.cr3 = TABLES;
                cpu.cr4 = cr::CR4_PAE;
                cpu.efer = cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE;
                cpu.cr0 |= cr::CR0_PG | cr::CR0_WP;
                let cs = &mut cpu.segs[usize::from(CS)];
                cs.attributes = cs.attributes & !attr::DB | attr::L;
                cpu.mode_changed();
            }
        }
    }

    /// The vCPU.
    pub fn cpu(&mut self) -> &mut Cpu {
        self.engine.cpu_mut(0)
    }

    /// Store bytes.
    pub fn poke(&mut self, gpa: u64, bytes: &[u8]) {
        self.mem.write_bytes(gpa, bytes).expect("RAM");
    }

    /// Load bytes.
    pub fn peek<const N: usize>(&self, gpa: u64) -> [u8; N] {
        let mut bytes = [0; N];
        self.mem.read_bytes(gpa, &mut bytes).expect("RAM");
        bytes
    }

    /// Load a number.
    pub fn peek64(&self, gpa: u64) -> u64 {
        u64::from_le_bytes(self.peek(gpa))
    }

    /// Execute code at RIP until it is through (`Ok`) or raises an exception (vector).
    pub fn run(&mut self, code: &[u8]) -> Result<(), u8> {
        let start = self.cpu().rip;
        self.poke(start, code);
        self.poke(start + code.len() as u64, &END);
        self.go(start + code.len() as u64)
    }

    /// Execute what is in memory until UD2 at `end`, or an exception (vector).
    pub fn go(&mut self, end: u64) -> Result<(), u8> {
        match self.engine.run(&mut self.bus, 1_000_000) {
            Exit::Exception { vector: x86defs::vector::UD, .. } if self.cpu().rip == end => Ok(()),
            Exit::Exception { vector, .. } => Err(vector),
            other => panic!("{other:?} at {:#x}", self.cpu().rip),
        }
    }

    /// Deliver an exception before the next instruction.
    pub fn inject(&mut self, vector: u8) {
        self.engine.inject(0, vector, None, 0);
    }

    /// Execute until some exit, at most so many instructions.
    pub fn run_budget(&mut self, budget: u64) {
        self.engine.run(&mut self.bus, budget);
    }

    /// Execute with other devices around, until some exit, at most so many instructions.
    pub fn run_with(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        self.engine.run(bus, budget)
    }

    /// A hash of everything that decides the future, but for memory.
    pub fn state(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.engine.hash_state(&mut hasher);
        hasher.finish()
    }

    /// Execute one instruction.
    pub fn step(&mut self) {
        self.engine.step(&mut self.bus, 0);
    }

    /// Now, as MSRs see it.
    pub fn when(&self) -> When {
        When::new(Work { instructions: self.engine.instructions(), ns: self.engine.now_ns() }, self.engine.clock())
    }

    /// Instructions executed.
    pub fn instructions(&self) -> u64 {
        self.engine.instructions()
    }
}
