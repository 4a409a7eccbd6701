//! The engine: vCPUs in turn in one thread, virtual time, events, and the loop that runs blocks.
//!
//! # Time
//!
//! Virtual time advances by one nanosecond for each instruction that any vCPU retires, plus a fixed price for each exit to
//! the bus, plus the idle time that is skipped when every vCPU sleeps. It is the same for all vCPUs, so their TSCs agree, and nothing
//! but the guest, the options and the seed decides it.
//!
//! # Turns
//!
//! Each vCPU runs for a number of instructions that the seed draws, then the next one that is awake. Timers end a turn's
//! stretch exactly at the instruction where they are due. Between stretches the engine looks at everything that can happen to a vCPU
//! from outside; inside a stretch nothing can.

mod chain;

use std::collections::BTreeSet;
use std::hash::{Hash, Hasher};

use guestmem::GuestMemory;
use vcpu::{Bus, Clock, Exit, Reply};
use x86defs::{rflags, vector};

use chain::{ChainEnd, JumpStamp, Limit, Recent, offset_rip};

use crate::cache::{Block, BlockId, CodeCache, JumpTable, Kind, NO_BLOCK};
use crate::cpu::{Activity, Cpu, Doze, HostVendor};
use crate::decode::{self, End};
use crate::exception::{Event, Shutdown};
use crate::msr::{MsrWrite, When};
use crate::op::{Answer, BLOCK_RIP, Flow, Op, Stop};
use crate::pmu::{Now, Work};
use crate::segment::{CS, Segment};

/// Price of an access to the bus in virtual nanoseconds: about what an exit to a hypervisor takes on hardware.
const EXIT_NS: u64 = 1000;
/// Price of an instruction that runs alone: system instructions serialise, and take tens of cycles on silicon.
const SYSTEM_NS: u64 = 50;
/// Times that idle time may be skipped in one call of [`Engine::run`] before it returns to look for signals.
const MAX_IDLE_SKIPS: u32 = 1000;
/// Virtual time without any vCPU awake, or able to take an interrupt, after which the machine counts as dead.
const DEADLOCK_NS: u64 = 10_000_000_000;

/// What handlers reach besides the vCPU.
pub struct Env<'a> {
    /// Devices and interrupts.
    pub bus: &'a mut dyn Bus,
    /// All decoded code.
    pub code: &'a CodeCache,
    /// RAM offsets in pages whose decoded code was written.
    pub code_writes: &'a mut Vec<u64>,
    /// Instructions retired by all vCPUs before the current block (exactly before the instruction, if it runs carefully).
    pub instructions: u64,
    /// Virtual time that was not spent executing instructions.
    pub skipped_ns: u64,
    /// Converts time.
    pub clock: Clock,
    /// Ops of the block behind the one that ended it early.
    pub not_reached: usize,
}

impl Env<'_> {
    /// Virtual time. Exact in careful execution.
    pub fn now_ns(&self) -> u64 {
        self.instructions + self.skipped_ns
    }
    /// What all vCPUs have done. Exact in careful execution.
    pub fn work(&self) -> Work {
        Work { instructions: self.instructions, ns: self.now_ns() }
    }
    /// An exit takes time.
    pub fn charge_exit(&mut self) {
        self.skipped_ns += EXIT_NS;
    }
    /// A slow instruction takes time.
    pub fn charge(&mut self, ns: u64) {
        self.skipped_ns += ns;
    }
}

/// What a machine is made of.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Number of vCPUs.
    pub cpus: usize,
    /// The silicon.
    pub host: HostVendor,
    /// Seed of the turns' lengths.
    pub seed: u64,
    /// Least and most instructions of a turn, inclusive.
    pub slice: (u64, u64),
    /// TSC frequency.
    pub clock: Clock,
}

/// Counters.
#[derive(Clone, Copy, Debug, Default)]
pub struct Statistics {
    /// Blocks decoded.
    pub blocks_decoded: u64,
    /// Blocks dropped because their bytes were written.
    pub blocks_invalidated: u64,
    /// Interrupts and NMIs delivered.
    pub interrupts: u64,
    /// Exceptions delivered.
    pub exceptions: u64,
    /// Turns taken.
    pub turns: u64,
}

/// The software engine.
pub struct Engine {
    cpus: Vec<Cpu>,
    memory: GuestMemory,
    cache: CodeCache,
    jumps: Vec<JumpTable>,
    stamps: Vec<JumpStamp>,
    recent: Vec<Recent>,
    /// Code that is not cached: it straddles pages, lies in device memory or at the segment limit.
    scratch: Vec<Op>,
    decode_buffer: Vec<Op>,
    code_writes: Vec<u64>,
    clock: Clock,
    slice: (u64, u64),
    random: u64,
    current: usize,
    slice_end: u64,
    instructions: u64,
    skipped_ns: u64,
    asleep_since_ns: Option<u64>,
    intercepts: [bool; 32],
    injected: Vec<Option<(u8, Option<u32>, u64)>>,
    breakpoints: BTreeSet<u64>,
    /// One of 64 bits for the page of each breakpoint.
    breakpoint_pages: u64,
    /// The breakpoint at which the vCPU stopped last: it goes on past it.
    passed_breakpoint: Option<(usize, u64)>,
    intercept_halt: bool,
    intercept_idle: bool,
    statistics: Statistics,
}

/// What is to be executed.
enum Code {
    Block(BlockId),
    /// The only op of `scratch`.
    Scratch,
}

impl Engine {
    /// A machine with all vCPUs in their reset state.
    pub fn new(config: &EngineConfig, memory: GuestMemory) -> Self {
        let cpus = (0..config.cpus).map(|index| Cpu::new(index, memory.clone(), config.host)).collect();
        let mut engine = Self {
            cpus,
            memory,
            cache: CodeCache::default(),
            jumps: (0..config.cpus).map(|_| JumpTable::default()).collect(),
            stamps: vec![JumpStamp::default(); config.cpus],
            recent: (0..config.cpus).map(|_| Recent::default()).collect(),
            scratch: Vec::with_capacity(1),
            decode_buffer: Vec::with_capacity(decode::MAX_BLOCK_OPS),
            code_writes: Vec::new(),
            clock: config.clock,
            slice: (config.slice.0.max(1), config.slice.1.max(config.slice.0).max(1)),
            random: config.seed,
            current: 0,
            slice_end: 0,
            instructions: 0,
            skipped_ns: 0,
            asleep_since_ns: None,
            intercepts: [false; 32],
            injected: vec![None; config.cpus],
            breakpoints: BTreeSet::new(),
            breakpoint_pages: 0,
            passed_breakpoint: None,
            intercept_halt: false,
            intercept_idle: false,
            statistics: Statistics::default(),
        };
        engine.slice_end = engine.draw_slice();
        engine
    }

    // -- what the machine around it asks and sets

    /// A vCPU.
    pub fn cpu(&self, index: usize) -> &Cpu {
        &self.cpus[index]
    }
    /// A vCPU, to change. Call [`Cpu::mode_changed`] after changing what it names.
    pub fn cpu_mut(&mut self, index: usize) -> &mut Cpu {
        &mut self.cpus[index]
    }
    /// Number of vCPUs.
    pub fn num_cpus(&self) -> usize {
        self.cpus.len()
    }
    /// Instructions retired by all vCPUs.
    pub fn instructions(&self) -> u64 {
        self.instructions
    }
    /// Virtual time since power-on.
    pub fn now_ns(&self) -> u64 {
        self.instructions + self.skipped_ns
    }
    /// Let time pass until `ns` without anybody running: the machine has been asleep.
    pub fn sleep_until(&mut self, ns: u64) {
        self.skipped_ns += ns.saturating_sub(self.now_ns());
    }
    /// The vCPU whose turn it is.
    pub fn current(&self) -> usize {
        self.current
    }
    /// The converter of time.
    pub fn clock(&self) -> Clock {
        self.clock
    }
    /// Counters so far.
    pub fn statistics(&self) -> Statistics {
        Statistics { blocks_decoded: self.cache.decoded, blocks_invalidated: self.cache.invalidated, ..self.statistics }
    }
    /// Make an exception exit instead of being delivered. Vectors above 31 are ignored.
    pub fn intercept_exception(&mut self, vector: u8, enabled: bool) {
        if let Some(flag) = self.intercepts.get_mut(usize::from(vector)) {
            *flag = enabled;
        }
    }
    /// Make CPUID exit.
    pub fn intercept_cpuid(&mut self, enabled: bool) {
        for cpu in &mut self.cpus {
            cpu.intercept_cpuid = enabled;
        }
    }
    /// Make HLT exit.
    pub fn intercept_halt(&mut self, enabled: bool) {
        self.intercept_halt = enabled;
    }
    /// Make idle time exit, for somebody above who waits for input or for the wall clock, instead of being skipped.
    pub fn intercept_idle(&mut self, enabled: bool) {
        self.intercept_idle = enabled;
    }
    /// Change the silicon beneath all vCPUs.
    pub fn set_host(&mut self, host: HostVendor) {
        for cpu in &mut self.cpus {
            cpu.host = host;
        }
        self.drop_all_code();
    }
    /// Tell all vCPUs what CPUID says.
    pub fn set_cpuid(&mut self, table: &crate::cpuid::CpuidTable) {
        for cpu in &mut self.cpus {
            cpu.cpuid = table.clone();
            cpu.features = table.features();
        }
        self.drop_all_code();
    }
    /// Stop before the instruction at a linear address.
    pub fn add_breakpoint(&mut self, linear: u64) {
        self.breakpoints.insert(linear);
        self.breakpoint_pages |= page_bit(linear);
        self.jumps.fill_with(JumpTable::default);
    }
    /// Forget a breakpoint.
    pub fn remove_breakpoint(&mut self, linear: u64) {
        self.breakpoints.remove(&linear);
        self.breakpoint_pages = self.breakpoints.iter().fold(0, |bits, &linear| bits | page_bit(linear));
    }
    /// Deliver an exception to a vCPU before it executes anything else; it is not intercepted. `payload` is CR2 of #PF, or
    /// the DR6 bits of #DB.
    pub fn inject(&mut self, cpu: usize, vector: u8, error_code: Option<u32>, payload: u64) {
        self.injected[cpu] = Some((vector, error_code, payload));
        self.cpus[cpu].replay.clear();
    }
    /// Deliver the exception that a vCPU exited with last, with what the exit does not tell: CR2, DR6.
    pub fn inject_intercepted(&mut self, cpu: usize) {
        let fault = self.cpus[cpu].fault;
        self.inject(cpu, fault.vector, fault.error_code, fault.payload);
    }
    /// Complete the last exit of a vCPU.
    pub fn answer(&mut self, cpu: usize, answer: Answer) {
        let replay = &mut self.cpus[cpu].replay;
        if replay.pending {
            replay.answer(answer);
        }
    }
    /// The last blocks executed by a vCPU, oldest first: RIP, bytes, instructions.
    pub fn recent_blocks(&self, cpu: usize) -> Vec<(u64, u32, u32)> {
        self.recent[cpu].all()
    }
    /// Forget all decoded code: what decoding depends on has changed.
    pub fn drop_all_code(&mut self) {
        for page in self.cache.clear() {
            self.memory.set_code(page, false);
        }
    }

    fn when(&self) -> When {
        When::new(self.work(), self.clock)
    }
    /// Read an MSR as RDMSR at CPL 0 would; `None` if that would fault or needs an answer from above.
    pub fn read_msr(&mut self, bus: &mut dyn Bus, cpu: usize, index: u32) -> Option<u64> {
        let when = self.when();
        self.cpus[cpu].read_msr(index, when).or_else(|| match bus.msr_read(cpu, index) {
            Reply::Done(value) => Some(value),
            Reply::Fault | Reply::Exit => None,
        })
    }
    /// Write an MSR as WRMSR at CPL 0 would; false if that would fault or needs an answer from above.
    pub fn write_msr(&mut self, bus: &mut dyn Bus, cpu: usize, index: u32, value: u64) -> bool {
        let when = self.when();
        match self.cpus[cpu].write_msr(index, value, when) {
            MsrWrite::Done => true,
            MsrWrite::TscOffset => {
                bus.set_tsc_offset(cpu, self.cpus[cpu].tsc_offset);
                true
            }
            MsrWrite::Refused => false,
            MsrWrite::Unknown => bus.msr_write(cpu, index, value) == Reply::Done(()),
        }
    }
    /// Feed everything that decides the future of the vCPUs to a hasher.
    pub fn hash_state(&self, hasher: &mut impl Hasher) {
        for cpu in &self.cpus {
            cpu.hash_state(hasher);
        }
        (self.current, self.slice_end, self.instructions, self.skipped_ns, self.random).hash(hasher);
    }
    // -- running

    /// Run until an exit, or until `budget` more instructions have retired.
    pub fn run(&mut self, bus: &mut dyn Bus, budget: u64) -> Exit {
        let end = self.instructions.saturating_add(budget);
        let mut idle_skips = 0;
        loop {
            bus.advance(self.now_ns());
            self.take_outside_writes();
            if let Some(reason) = bus.take_stop() {
                return Exit::Stop(reason);
            }
            if self.instructions >= end {
                return Exit::Budget;
            }
            if !self.settle_turn(bus) {
                if idle_skips == MAX_IDLE_SKIPS {
                    return Exit::Budget;
                }
                idle_skips += 1;
                match self.skip_idle_time(bus) {
                    Some(exit) => return exit,
                    None => continue,
                }
            }
            self.asleep_since_ns = None;
            let limit = self.stretch_limit(bus, end);
            if let Some(exit) = self.metered(bus, |engine, bus| engine.stretch(bus, limit)) {
                return exit;
            }
        }
    }

    /// Execute one instruction of one vCPU, whoever's turn it is: [`Exit::Step`], or what it led to.
    pub fn step(&mut self, bus: &mut dyn Bus, cpu: usize) -> Exit {
        self.take_outside_writes();
        bus.advance(self.now_ns());
        if self.current != cpu {
            self.current = cpu;
            self.slice_end = self.instructions + self.draw_slice();
        }
        if !self.is_awake(cpu, bus) {
            return Exit::Step { vcpu: cpu };
        }
        self.passed_breakpoint = Some((cpu, self.cpus[cpu].linear_rip()));
        if let Some(exit) = self.metered(bus, Self::careful_step) {
            return exit;
        }
        match bus.take_stop() {
            Some(reason) => Exit::Stop(reason),
            None => Exit::Step { vcpu: cpu },
        }
    }

    /// SplitMix64.
    fn draw(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn draw_slice(&mut self) -> u64 {
        let (least, most) = self.slice;
        least + self.draw() % (most - least + 1)
    }

    /// Take note of what was done to memory by others than vCPUs: devices, and the host between calls.
    fn take_outside_writes(&mut self) {
        for (offset, len) in self.memory.take_code_writes() {
            if self.cache.overlaps(offset, len) {
                self.code_writes.push(offset);
            }
        }
        self.drop_written_code();
        if self.memory.take_dirty_cleared() {
            for cpu in &mut self.cpus {
                cpu.tlb.close_for_stores();
            }
        }
        if self.memory.take_moved() {
            for cpu in &mut self.cpus {
                cpu.tlb.flush();
            }
        }
    }

    fn drop_written_code(&mut self) {
        while let Some(offset) = self.code_writes.pop() {
            if self.cache.drop_page(offset) {
                self.memory.set_code(offset, false);
            }
        }
    }

    /// Make `current` a vCPU that can execute; false if there is none.
    fn settle_turn(&mut self, bus: &mut dyn Bus) -> bool {
        // An instruction that waits for its answer is restarted first: nothing may come between.
        let cpu = &mut self.cpus[self.current];
        if cpu.replay.pending {
            if cpu.replay.rip == cpu.rip && cpu.activity == Activity::Running {
                return true;
            }
            cpu.replay.clear();
        }
        // An NMI that has arrived is taken before the turn ends: a second one, from a vCPU whose turn is next, would merge
        // with it in the latch where on hardware the first has long been taken.
        let nmi = bus.pending(self.current).nmi && !cpu.nmi_blocked && cpu.activity == Activity::Running;
        let count = self.cpus.len();
        let over = count > 1 && self.instructions >= self.slice_end && !nmi;
        let first = if over { 1 } else { 0 };
        for i in first..first + count {
            let candidate = (self.current + i) % count;
            if self.is_awake(candidate, bus) {
                if candidate != self.current || over {
                    self.current = candidate;
                    self.slice_end = self.instructions + self.draw_slice();
                    self.statistics.turns += 1;
                }
                return true;
            }
        }
        false
    }

    /// Whether a vCPU can execute, after INIT, SIPI and wake-ups that have come for it.
    fn is_awake(&mut self, index: usize, bus: &mut dyn Bus) -> bool {
        let pending = bus.pending(index);
        let cpu = &mut self.cpus[index];
        if pending.init {
            let boot_processor = bus.take_init(index);
            cpu.init();
            cpu.activity = if boot_processor { Activity::Running } else { Activity::WaitForSipi };
            bus.set_wait_for_sipi(index, !boot_processor);
        }
        match cpu.activity {
            Activity::Running => true,
            Activity::Shutdown => false,
            Activity::WaitForSipi => {
                if !bus.pending(index).sipi {
                    return false;
                }
                let start = u16::from(bus.take_sipi(index)) << 8;
                bus.set_wait_for_sipi(index, false);
                cpu.segs[usize::from(CS)] = Segment { attributes: cpu.seg(CS).attributes, ..Segment::real(start) };
                cpu.rip = 0;
                cpu.activity = Activity::Running;
                cpu.segments_changed();
                true
            }
            Activity::Halted => {
                let listens = cpu.system_flags & rflags::IF != 0 || cpu.doze == Doze::Asleep;
                let wake = (pending.interrupt && listens) || (pending.nmi && !cpu.nmi_blocked) || cpu.kicked;
                if wake || self.injected[index].is_some() {
                    cpu.activity = Activity::Running;
                    cpu.kicked = false;
                    cpu.doze = Doze::No;
                    return true;
                }
                false
            }
        }
    }

    /// Every vCPU sleeps: let time pass until the next timer.
    fn skip_idle_time(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        if let Some(dead) = self.cpus.iter().position(|cpu| cpu.activity == Activity::Shutdown) {
            return Some(Exit::Shutdown { vcpu: dead });
        }
        let now = self.now_ns();
        let since = *self.asleep_since_ns.get_or_insert(now);
        let deaf = self.cpus.iter().all(|cpu| cpu.system_flags & rflags::IF == 0 && cpu.doze != Doze::Asleep);
        match bus.next_event_ns() {
            _ if deaf && now - since > DEADLOCK_NS => Some(Exit::Deadlock),
            None if deaf => Some(Exit::Deadlock),
            until_ns if self.intercept_idle => Some(Exit::Idle { until_ns }),
            Some(event) => {
                self.skipped_ns += event.saturating_sub(now).max(1);
                None
            }
            None => Some(Exit::Deadlock),
        }
    }

    /// Where the current stretch must end.
    fn stretch_limit(&self, bus: &dyn Bus, end: u64) -> Limit {
        let mut instructions = end;
        if self.cpus.len() > 1 {
            instructions = instructions.min(self.slice_end);
        }
        let cpu = &self.cpus[self.current];
        if cpu.pmu.interrupts() {
            let now = Now { done: cpu.meter.done(self.work()), clock: self.clock };
            instructions = instructions.min(self.instructions.saturating_add(cpu.pmu.until_overflow(&now)));
        }
        // A timer that is due fires at once in `advance`; at least one instruction runs in any case.
        let instructions = instructions.max(self.instructions + 1);
        let event_ns = bus.next_event_ns().map(|event| event.max(self.now_ns() + 1));
        Limit { instructions, event_ns }
    }

    fn work(&self) -> Work {
        Work { instructions: self.instructions, ns: self.now_ns() }
    }

    /// Run the current vCPU, and note what it does if there are counters to show it.
    fn metered(
        &mut self,
        bus: &mut dyn Bus,
        run: impl FnOnce(&mut Self, &mut dyn Bus) -> Option<Exit>,
    ) -> Option<Exit> {
        let (index, before) = (self.current, self.work());
        let cpu = &mut self.cpus[index];
        let has_counters = cpu.features.has_counters();
        if has_counters {
            cpu.meter.start(before, cpu.cpl == 3);
        }
        let exit = run(self, bus);
        let after = self.work();
        let cpu = &mut self.cpus[index];
        cpu.run_ns += after.ns - before.ns;
        if !has_counters {
            return exit;
        }
        cpu.meter.stop(after);
        if cpu.pmu.interrupts() {
            let now = Now { done: cpu.meter.done(after), clock: self.clock };
            if cpu.pmu.take_overflows(&now) {
                bus.performance_interrupt(index);
            }
        }
        exit
    }

    /// Run the current vCPU until something must be looked at.
    fn stretch(&mut self, bus: &mut dyn Bus, limit: Limit) -> Option<Exit> {
        if self.needs_care() {
            return self.careful_step(bus);
        }
        if let Some(exit) = self.deliver_events(bus) {
            return exit.into_exit();
        }
        let mut id = match self.find_code(bus) {
            Ok(Code::Block(id)) => id,
            Ok(Code::Scratch) => return self.careful_step(bus),
            Err(stop) => return self.stopped(bus, stop),
        };
        loop {
            match self.chain(bus, id, limit) {
                ChainEnd::Limit => return None,
                ChainEnd::Careful => return self.careful_step(bus),
                ChainEnd::Alone(id) => {
                    // Nothing has touched the bus since the stretch began, so nothing is due before it.
                    let op = self.cache.get(id).ops[0];
                    return self.execute_carefully(bus, &op, true, false);
                }
                ChainEnd::Attention => {
                    self.drop_written_code();
                    return None;
                }
                ChainEnd::Yield => {
                    self.slice_end = self.instructions;
                    return None;
                }
                ChainEnd::Fault => return self.stopped(bus, Stop::Fault),
                ChainEnd::Exit => return self.stopped(bus, Stop::Exit),
                ChainEnd::Miss { .. } if self.page_has_breakpoint() => return None,
                ChainEnd::Miss { from, slot } => {
                    let epoch = self.cache.epoch;
                    match self.find_code(bus) {
                        Ok(Code::Block(next)) => {
                            let cpu = &self.cpus[self.current];
                            // The same linear page as well: another one may be an alias of it only now.
                            let same_page = (cpu.regs[usize::from(BLOCK_RIP)] ^ cpu.rip) >> 12 == 0;
                            if let Some(slot) = slot
                                && epoch == self.cache.epoch
                                && same_page
                                && self.cache.same_page(from, next)
                                && cpu.mode.flat_code()
                            {
                                self.cache.link(from, slot, next);
                            }
                            id = next;
                        }
                        Ok(Code::Scratch) => return self.careful_step(bus),
                        Err(stop) => return self.stopped(bus, stop),
                    }
                }
            }
        }
    }

    /// Whether the next instruction must run by itself.
    fn needs_care(&self) -> bool {
        let cpu = &self.cpus[self.current];
        cpu.replay.pending
            || cpu.interrupt_shadow
            || cpu.system_flags & (rflags::TF | rflags::RF) != 0
            || cpu.debug.watches_code()
            || cpu.debug.watches_data()
            || cpu.debug.pending != 0
            || self.page_has_breakpoint()
            || self.injected[self.current].is_some()
    }

    /// Whether the page of RIP has a breakpoint: everything in it runs carefully, and nothing leads into it unseen, as its blocks
    /// are not in the jump tables and links stay within a page.
    fn page_has_breakpoint(&self) -> bool {
        let linear = self.cpus[self.current].linear_rip();
        if self.breakpoint_pages & page_bit(linear) == 0 {
            return false;
        }
        let page = linear & !0xFFF;
        self.breakpoints.range(page..=page | 0xFFF).next().is_some()
    }

    fn jump_key(&mut self) -> u64 {
        self.stamps[self.current].key(&self.cpus[self.current], self.cache.epoch)
    }

    /// The block or single op at RIP; a fault if it cannot be fetched.
    fn find_code(&mut self, bus: &mut dyn Bus) -> Result<Code, Stop> {
        let key = self.jump_key();
        let cpu = &mut self.cpus[self.current];
        if let Some(id) = self.jumps[self.current].find(cpu.rip, key) {
            return Ok(Code::Block(id));
        }
        let limit = u64::from(cpu.seg(CS).limit);
        if !cpu.mode.is_64() && cpu.rip > limit || cpu.mode.is_64() && !cpu.is_canonical(cpu.rip) {
            return Err(cpu.gp0());
        }
        let linear = cpu.linear_rip();
        let gpa = self.fetch_gpa(bus, linear)?;
        let cpu = &self.cpus[self.current];
        let room = if cpu.mode.flat_code() { u64::MAX } else { limit - cpu.rip + 1 };
        let (mode, rip) = (cpu.mode, cpu.rip);
        let Some(offset) = self.memory.offset(gpa) else { return self.find_scratch(bus, linear, gpa, room) };
        let id = match self.cache.find(offset, mode) {
            Some(id) => id,
            None => match self.decode(offset, mode) {
                Some(id) => id,
                None => return self.find_scratch(bus, linear, gpa, room),
            },
        };
        if u64::from(self.cache.get(id).bytes) > room {
            return self.find_scratch(bus, linear, gpa, room);
        }
        if !self.page_has_breakpoint() {
            let key = self.jump_key();
            self.jumps[self.current].insert(rip, key, id);
        }
        Ok(Code::Block(id))
    }

    /// GPA of the instruction byte at `linear`.
    fn fetch_gpa(&mut self, bus: &mut dyn Bus, linear: u64) -> Result<u64, Stop> {
        let user = self.cpus[self.current].cpl == 3;
        if let Some(page) = self.cpus[self.current].tlb.fetch(user, linear) {
            return Ok(page | linear & 0xFFF);
        }
        let gpa = self.with_env(bus, |cpu, env| {
            let access = cpu.fetch_access();
            cpu.walk(env, linear, access).map(|mapping| mapping.gpa)
        })?;
        self.cpus[self.current].tlb.insert_fetch(user, linear, gpa);
        Ok(gpa)
    }

    /// Decode and cache the block at a RAM offset; `None` if its first instruction does not end in this page.
    fn decode(&mut self, offset: u64, mode: crate::cpu::CodeMode) -> Option<BlockId> {
        if self.cache.is_full() {
            self.drop_all_code();
        }
        // As much as the most ops of a block can take, up to the end of the page.
        let mut bytes = [0; decode::MAX_BLOCK_OPS * 15];
        let len = bytes.len().min((4096 - (offset & 0xFFF)) as usize);
        let bytes = &mut bytes[..len];
        self.memory.read_at(offset, bytes);
        self.decode_buffer.clear();
        let cpu = &self.cpus[self.current];
        let end = decode::decode_block(bytes, mode, &cpu.features, &mut self.decode_buffer);
        let last = self.decode_buffer.last()?;
        let block = Block {
            bytes: u32::from(last.at) + u32::from(last.len),
            ops: self.decode_buffer.as_slice().into(),
            links: [NO_BLOCK; 2],
            offset,
            kind: match end {
                End::Complete | End::Short => Kind::Plain,
                End::Private => Kind::Private,
                End::Alone => Kind::Careful,
            },
        };
        if !self.memory.is_code(offset) {
            self.memory.set_code(offset, true);
            for cpu in &mut self.cpus {
                cpu.tlb.close_for_stores();
            }
        }
        Some(self.cache.insert(block, mode))
    }

    /// Decode one instruction into `scratch`: it straddles two pages, lies outside RAM, or reaches the segment limit.
    fn find_scratch(&mut self, bus: &mut dyn Bus, linear: u64, gpa: u64, room: u64) -> Result<Code, Stop> {
        let mut bytes = [0; 15];
        let mut len = 0;
        let in_page = 4096 - (linear & 0xFFF);
        let wanted = room.min(15);
        let mode = self.cpus[self.current].mode;
        loop {
            // First the bytes in this page only: an instruction that ends in it must not fault on the next.
            let part = if len == 0 { in_page.min(wanted) } else { wanted } as usize;
            let base = if len == 0 { gpa } else { 0 };
            if len == 0 {
                self.fetch_bytes(bus, base, &mut bytes[..part]);
            } else {
                let next = linear.wrapping_add(in_page);
                let next = if mode.is_64() { next } else { next & 0xFFFF_FFFF };
                let cpu = &mut self.cpus[self.current];
                if mode.is_64() && !cpu.is_canonical(next) {
                    return Err(cpu.gp0());
                }
                let second = self.fetch_gpa(bus, next)?;
                self.fetch_bytes(bus, second, &mut bytes[len..part]);
            }
            len = part;
            self.scratch.clear();
            let cpu = &mut self.cpus[self.current];
            decode::decode_block(&bytes[..len], mode, &cpu.features, &mut self.scratch);
            self.scratch.truncate(1);
            if !self.scratch.is_empty() {
                return Ok(Code::Scratch);
            }
            if len as u64 >= wanted {
                // Longer than 15 bytes, or beyond the segment limit.
                return Err(cpu.gp0());
            }
        }
    }

    fn fetch_bytes(&mut self, bus: &mut dyn Bus, gpa: u64, bytes: &mut [u8]) {
        if self.memory.read_bytes(gpa, bytes).is_ok() {
            return;
        }
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = match bus.mmio_read(self.current, gpa + i as u64, 1) {
                vcpu::Reply::Done(value) => value as u8,
                // Devices served above the engine hold no code.
                vcpu::Reply::Fault | vcpu::Reply::Exit => 0xFF,
            };
        }
    }

    fn with_env<R>(&mut self, bus: &mut dyn Bus, f: impl FnOnce(&mut Cpu, &mut Env<'_>) -> R) -> R {
        let mut env = Env {
            not_reached: 0,
            bus,
            code: &self.cache,
            code_writes: &mut self.code_writes,
            instructions: self.instructions,
            skipped_ns: self.skipped_ns,
            clock: self.clock,
        };
        let cpu = &mut self.cpus[self.current];
        // Whatever the CPU does by itself (walks, deliveries) may touch the bus: state is exact here.
        cpu.careful = true;
        let result = f(cpu, &mut env);
        self.skipped_ns = env.skipped_ns;
        result
    }

    /// Execute the instruction at RIP by itself, with everything that is due before and after it.
    fn careful_step(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        let index = self.current;
        let restarted = self.cpus[index].replay.pending;
        if !restarted {
            if let Some(outcome) = self.deliver_events(bus) {
                return outcome.into_exit();
            }
            if let Some(exit) = self.check_breakpoints() {
                return exit.or_else(|| self.stopped(bus, Stop::Fault));
            }
        }
        self.passed_breakpoint = None;
        let code = match self.find_code(bus) {
            Ok(code) => code,
            Err(stop) => {
                self.cpus[index].replay.clear();
                return self.stopped(bus, stop);
            }
        };
        let (op, alone) = match code {
            Code::Block(id) => {
                let block = self.cache.get(id);
                (block.ops[0], block.kind != Kind::Plain)
            }
            Code::Scratch => (self.scratch[0], false),
        };
        self.execute_carefully(bus, &op, alone, restarted)
    }

    /// Run the op at RIP by itself, and what is due behind it. `alone`: it always runs so; `restarted`: with answers.
    fn execute_carefully(&mut self, bus: &mut dyn Bus, op: &Op, alone: bool, restarted: bool) -> Option<Exit> {
        let index = self.current;
        let cpu = &mut self.cpus[index];
        let start = cpu.rip;
        self.recent[index].push(start, u32::from(op.len), 1);
        cpu.regs[usize::from(BLOCK_RIP)] = start;
        if restarted {
            cpu.replay.rewind()
        } else {
            cpu.replay.clear()
        }
        let shadow_before = cpu.interrupt_shadow;
        cpu.debug.stepping = cpu.system_flags & rflags::TF != 0;
        let held_traps = cpu.debug.pending;
        // RF is for one instruction: it is off when the instruction loads flags, and on again if it must be restarted.
        let resume = cpu.system_flags & rflags::RF;
        cpu.system_flags &= !resume;
        let step = self.with_env(bus, |cpu, env| (op.run)(cpu, env, op));
        let cpu = &mut self.cpus[index];
        match step {
            Err(Stop::Exit) => {
                cpu.replay.pending = true;
                cpu.replay.rip = start;
            }
            _ => cpu.replay.clear(),
        }
        if step.is_err() {
            cpu.system_flags |= resume;
        }
        self.drop_written_code();
        self.cpus[index].code_written = false;
        match step {
            Ok(flow) => {
                if alone {
                    self.skipped_ns += SYSTEM_NS;
                }
                self.retired(bus, op, flow, start, shadow_before)
            }
            Err(Stop::Again) => {
                // One iteration counts as an instruction, so that a long repetition takes time.
                self.cpus[index].meter.discount();
                self.instructions += 1;
                self.cpus[index].interrupt_shadow = false;
                self.single_step_trap(bus)
            }
            Err(stop) => {
                // Breakpoints that it hit before it failed are hit again when it is restarted.
                self.cpus[index].debug.pending = held_traps;
                self.stopped(bus, stop)
            }
        }
    }

    /// Breakpoints before the instruction at RIP. `Some(None)`: a #DB fault is recorded.
    fn check_breakpoints(&mut self) -> Option<Option<Exit>> {
        let cpu = &mut self.cpus[self.current];
        let linear = cpu.linear_rip();
        if self.breakpoints.contains(&linear) && self.passed_breakpoint != Some((self.current, linear)) {
            self.passed_breakpoint = Some((self.current, linear));
            return Some(Some(Exit::Breakpoint { vcpu: self.current }));
        }
        // Intel's silicon holds off even these behind MOV SS and POP SS (SDM vol. 3 section 6.8.3); AMD's does not.
        let held_off = cpu.interrupt_shadow && cpu.shadow_is_mov_ss && cpu.host != HostVendor::Amd;
        if cpu.debug.watches_code() && cpu.system_flags & rflags::RF == 0 && !held_off {
            let hit = cpu.debug.code_hit(linear);
            if hit != 0 {
                cpu.fault = crate::cpu::Fault { vector: vector::DB, error_code: None, payload: hit };
                return Some(None);
            }
        }
        None
    }

    /// After an instruction that ran carefully has retired.
    fn retired(&mut self, bus: &mut dyn Bus, op: &Op, flow: Flow, start: u64, shadow_before: bool) -> Option<Exit> {
        self.instructions += 1;
        let now = self.work();
        let cpu = &mut self.cpus[self.current];
        cpu.meter.set_level(now, cpu.cpl == 3);
        if matches!(flow, Flow::Next | Flow::Sync | Flow::Yield) {
            cpu.rip = offset_rip(cpu, start, u64::from(op.len));
        }
        if flow == Flow::Yield {
            self.slice_end = self.instructions;
        }
        // The shadow lasts for one instruction; one that sets it again while it lasts does not prolong it.
        if shadow_before {
            cpu.interrupt_shadow = false;
        }
        if cpu.debug.branch_stepping && !matches!(flow, Flow::Taken | Flow::Indirect) {
            cpu.debug.stepping = false;
        }
        if cpu.activity == Activity::Halted && self.intercept_halt {
            cpu.activity = Activity::Running;
            return Some(Exit::Halt { vcpu: self.current });
        }
        if cpu.doze == Doze::Asked {
            cpu.doze = Doze::Asleep;
            cpu.activity = Activity::Halted;
        }
        self.single_step_trap(bus)
    }

    /// Deliver the debug traps that are due behind an instruction.
    fn single_step_trap(&mut self, bus: &mut dyn Bus) -> Option<Exit> {
        let cpu = &mut self.cpus[self.current];
        // MOV SS holds breakpoints' traps off until behind the next instruction, and its own single-step trap never comes
        // (SDM vol. 3 section 6.8.3).
        if cpu.interrupt_shadow && cpu.shadow_is_mov_ss {
            return None;
        }
        if cpu.debug.stepping {
            cpu.debug.pending |= x86defs::dr::DR6_BS;
        }
        if cpu.debug.pending == 0 { None } else { self.debug_trap(bus).into_exit() }
    }

    /// #DB with what is pending.
    fn debug_trap(&mut self, bus: &mut dyn Bus) -> Outcome {
        let cpu = &mut self.cpus[self.current];
        let payload = std::mem::take(&mut cpu.debug.pending);
        cpu.fault = crate::cpu::Fault { vector: vector::DB, error_code: None, payload };
        match self.stopped(bus, Stop::Fault) {
            Some(exit) => Outcome::Exit(exit),
            None => Outcome::Delivered,
        }
    }

    /// An instruction did not retire.
    fn stopped(&mut self, bus: &mut dyn Bus, stop: Stop) -> Option<Exit> {
        let vcpu = self.current;
        match stop {
            Stop::Exit => {
                let cpu = &mut self.cpus[vcpu];
                cpu.replay.pending = true;
                cpu.replay.rip = cpu.rip;
                Some(cpu.exit)
            }
            Stop::Careful | Stop::Again => None,
            Stop::Fault => {
                let fault = self.cpus[vcpu].fault;
                if self.intercepts.get(usize::from(fault.vector)).copied().unwrap_or(false) {
                    return Some(Exit::Exception { vcpu, vector: fault.vector, error_code: fault.error_code });
                }
                let event =
                    Event::Exception { vector: fault.vector, error_code: fault.error_code, payload: fault.payload };
                self.deliver(bus, event).into_exit()
            }
        }
    }

    fn deliver(&mut self, bus: &mut dyn Bus, event: Event) -> Outcome {
        let vcpu = self.current;
        match event {
            Event::External { .. } => self.statistics.interrupts += 1,
            _ => self.statistics.exceptions += 1,
        }
        // Counts as an instruction: a handler whose first instruction faults would otherwise take no time, and never come to the
        // end of a budget.
        self.cpus[vcpu].meter.discount();
        self.instructions += 1;
        let result = self.with_env(bus, |cpu, env| cpu.deliver(env, event));
        self.drop_written_code();
        let now = self.work();
        let cpu = &mut self.cpus[vcpu];
        cpu.meter.set_level(now, cpu.cpl == 3);
        cpu.code_written = false;
        cpu.interrupt_shadow = false;
        match result {
            Ok(()) => {
                // A debug trap behind HLT ends it.
                cpu.activity = Activity::Running;
                Outcome::Delivered
            }
            Err(Err(Shutdown)) => {
                cpu.activity = Activity::Shutdown;
                Outcome::Exit(Exit::Shutdown { vcpu })
            }
            // Tables in device memory that is served above the engine: nobody does that, and it cannot be restarted.
            Err(Ok(_)) => {
                cpu.activity = Activity::Shutdown;
                Outcome::Exit(Exit::Shutdown { vcpu })
            }
        }
    }

    /// Deliver what waits for the current vCPU. `None`: nothing did.
    fn deliver_events(&mut self, bus: &mut dyn Bus) -> Option<Outcome> {
        let index = self.current;
        if let Some((vector, error_code, payload)) = self.injected[index].take() {
            return Some(self.deliver(bus, Event::Exception { vector, error_code, payload }));
        }
        let cpu = &mut self.cpus[index];
        if cpu.interrupt_shadow {
            return None;
        }
        // What an instruction's end has not reported: breakpoints on the stack of the last delivery.
        if cpu.debug.pending != 0 {
            return Some(self.debug_trap(bus));
        }
        let pending = bus.pending(index);
        if pending.nmi && !cpu.nmi_blocked {
            bus.take_nmi(index);
            let outcome = self.deliver(bus, Event::External { vector: vector::NMI });
            self.cpus[index].nmi_blocked = true;
            return Some(outcome);
        }
        if pending.interrupt && cpu.system_flags & rflags::IF != 0 {
            let vector = bus.take_interrupt(index)?;
            return Some(self.deliver(bus, Event::External { vector }));
        }
        None
    }
}

/// One of 64 bits for the page of an address.
fn page_bit(linear: u64) -> u64 {
    1 << (linear >> 12 & 63)
}

/// What delivering led to.
enum Outcome {
    Delivered,
    Exit(Exit),
}

impl Outcome {
    fn into_exit(self) -> Option<Exit> {
        match self {
            Outcome::Delivered => None,
            Outcome::Exit(exit) => Some(exit),
        }
    }
}
