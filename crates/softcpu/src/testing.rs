//! What unit tests of the system side run on: one vCPU in a chosen mode, RAM with a GDT, and a bus with nothing on it.

use std::collections::BTreeMap;

use guestmem::GuestMemory;
use vcpu::{Bus, Clock, Reply};
use x86defs::{cr, msr, segment as attr};

use crate::cache::CodeCache;
use crate::cpu::{Cpu, HostVendor};
use crate::cpuid::{CpuidEntry, CpuidTable};
use crate::engine::Env;
use crate::op::Stop;
use crate::segment::{CS, DS, ES, SS, Segment, Table};

/// A bus that remembers the ports it was asked for.
#[derive(Default)]
pub struct QuietBus {
    /// Ports written, with what was written last.
    pub ports: BTreeMap<u16, u32>,
    pub tsc_offset: u64,
    pub cr8: u64,
}

impl Bus for QuietBus {
    fn port_read(&mut self, _vcpu: usize, port: u16, size: usize) -> Reply<u32> {
        Reply::Done(self.ports.get(&port).copied().unwrap_or(u32::MAX >> (32 - 8 * size)))
    }
    fn port_write(&mut self, _vcpu: usize, port: u16, _size: usize, value: u32) -> Reply<()> {
        self.ports.insert(port, value);
        Reply::Done(())
    }
    fn msr_read(&mut self, _vcpu: usize, index: u32) -> Reply<u64> {
        if index == msr::APIC_BASE { Reply::Done(0xFEE0_0900) } else { Reply::Fault }
    }
    fn cr8(&self, _vcpu: usize) -> u64 {
        self.cr8
    }
    fn set_cr8(&mut self, _vcpu: usize, value: u64) {
        self.cr8 = value;
    }
    fn set_tsc_offset(&mut self, _vcpu: usize, offset: u64) {
        self.tsc_offset = offset;
    }
}

/// One vCPU and what it needs.
pub struct Machine {
    pub cpu: Cpu,
    pub bus: QuietBus,
    pub mem: GuestMemory,
    pub now: u64,
    cache: CodeCache,
    code_writes: Vec<u64>,
}

impl Machine {
    /// Where the GDT is; the IDT, the TSS and the page tables that tests make lie behind it.
    pub const GDT: u64 = 0x1000;
    pub const IDT: u64 = 0x2000;
    pub const TSS: u64 = 0x4000;
    pub const TABLES: u64 = 0x10_0000;
    /// Bytes of RAM.
    const RAM: u64 = 4 << 20;

    /// Real mode, everything zero.
    pub fn real() -> Self {
        let mem = GuestMemory::new(Self::RAM).expect("memory for a test");
        let mut cpu = Cpu::new(0, mem.clone(), HostVendor::Intel);
        cpu.cpuid = everything();
        cpu.features = cpu.cpuid.features();
        cpu.segs[usize::from(CS)] = Segment { attributes: cpu.seg(CS).attributes, ..Segment::real(0) };
        cpu.idtr = Table { base: 0, limit: 0x3FF };
        cpu.rip = 0x100;
        cpu.regs[4] = 0x8000;
        cpu.segments_changed();
        Self { cpu, bus: QuietBus::default(), mem, now: 0, cache: CodeCache::default(), code_writes: Vec::new() }
    }

    /// Flat 32-bit protected mode at CPL 0: code 8, data 0x10. Further descriptors come by [`Machine::gdt`].
    pub fn protected32() -> Self {
        let mut machine = Self::real();
        machine.cpu.set_flat_protected32(0x100);
        machine.gdt(&[(8, 0x00CF_9B00_0000_FFFF), (0x10, 0x00CF_9300_0000_FFFF)]);
        machine.cpu.gdtr = Table { base: Self::GDT, limit: 0xFF };
        machine.cpu.idtr = Table { base: Self::IDT, limit: 0xFFF };
        machine
    }

    /// 64-bit mode at CPL 0, the first 4 MiB mapped at 0 and again at the start of the upper half, for user and supervisor.
    pub fn long64() -> Self {
        let mut machine = Self::protected32();
        machine.gdt(&[(8, 0x00AF_9B00_0000_FFFF)]);
        let tables = Self::TABLES;
        for slot in [0, 256] {
            machine.store64(tables + 8 * slot, (tables + 0x1000) | 7);
        }
        machine.store64(tables + 0x1000, (tables + 0x2000) | 7);
        machine.store64(tables + 0x2000, 0x87);
        machine.store64(tables + 0x2008, 0x20_0087);
        let cpu = &mut machine.cpu;
        cpu.cr3 = tables;
        cpu.cr4 = cr::CR4_PAE;
        cpu.efer = cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE | cr::EFER_SCE;
        cpu.cr0 |= cr::CR0_PG | cr::CR0_WP;
        let cs = &mut cpu.segs[usize::from(CS)];
        cs.attributes = cs.attributes & !attr::DB | attr::L;
        cpu.mode_changed();
        machine
    }

    /// Change the privilege level as if a transfer had.
    pub fn set_cpl(&mut self, cpl: u8) {
        self.cpu.cpl = cpl;
        for number in [CS, SS, DS, ES] {
            let segment = &mut self.cpu.segs[usize::from(number)];
            segment.attributes = segment.attributes & !0x60 | u16::from(cpl) << attr::DPL_SHIFT;
            segment.selector = segment.selector & !3 | u16::from(cpl);
        }
        self.cpu.segments_changed();
    }

    /// Put descriptors at byte offsets in the GDT.
    pub fn gdt(&mut self, descriptors: &[(u64, u64)]) {
        for &(offset, value) in descriptors {
            self.store64(Self::GDT + offset, value);
        }
    }

    pub fn load64(&self, gpa: u64) -> u64 {
        self.mem.load(self.mem.offset(gpa).expect("RAM"))
    }

    pub fn store64(&mut self, gpa: u64, value: u64) {
        self.mem.store(self.mem.offset(gpa).expect("RAM"), value);
    }

    pub fn store32(&mut self, gpa: u64, value: u32) {
        self.mem.store(self.mem.offset(gpa).expect("RAM"), value);
    }

    pub fn load32(&self, gpa: u64) -> u32 {
        self.mem.load(self.mem.offset(gpa).expect("RAM"))
    }

    pub fn load16(&self, gpa: u64) -> u16 {
        self.mem.load(self.mem.offset(gpa).expect("RAM"))
    }

    /// Do something with the vCPU, carefully as the engine does what stands alone.
    pub fn with<R>(&mut self, f: impl FnOnce(&mut Cpu, &mut Env<'_>) -> R) -> R {
        self.cpu.careful = true;
        self.cpu.replay.clear();
        let mut env = Env {
            not_reached: 0,
            bus: &mut self.bus,
            code: &self.cache,
            code_writes: &mut self.code_writes,
            instructions: self.now,
            skipped_ns: 0,
            clock: Clock::new(1_000_000),
        };
        f(&mut self.cpu, &mut env)
    }

    /// A result, or vector and error code of the fault.
    pub fn outcome<T>(&self, result: Result<T, Stop>) -> Result<T, (u8, Option<u32>)> {
        result.map_err(|stop| {
            assert_eq!(stop, Stop::Fault);
            (self.cpu.fault.vector, self.cpu.fault.error_code)
        })
    }
}

/// A CPUID table that announces everything.
pub fn everything() -> CpuidTable {
    let entry = |leaf, registers| CpuidEntry { leaf, subleaf: None, registers };
    let xstate = |subleaf, registers| CpuidEntry { leaf: 0xD, subleaf: Some(subleaf), registers };
    CpuidTable::new(vec![
        entry(0, [0x1F, 0x756E_6547, 0x6C65_746E, 0x4965_6E69]),
        entry(1, [0x806E9, 0, u32::MAX, u32::MAX]),
        entry(7, [u32::MAX, u32::MAX, u32::MAX, u32::MAX]),
        xstate(0, [0x207, 576, 2696, 0]),
        xstate(1, [15, 0, 0, 0]),
        xstate(2, [256, 576, 0, 0]),
        xstate(9, [8, 2688, 0, 0]),
        entry(0x8000_0000, [0x8000_0008, 0, 0, 0]),
        entry(0x8000_0001, [0, 0, u32::MAX, u32::MAX]),
        entry(0x8000_0008, [0x3930, 0, 0, 0]),
    ])
}
