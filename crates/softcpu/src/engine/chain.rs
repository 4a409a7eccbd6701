//! Blocks one after the other: the loop in which almost all time is spent.
//!
//! Inside it nothing can happen to the vCPU from outside. It ends where the engine must look: at a limit, at an instruction that
//! may touch the bus, at a fault, at code that is not known yet, after a change that events may have waited for.

use vcpu::Bus;
use x86defs::{dr, rflags};

use super::{Engine, Env, SYSTEM_NS};
use crate::cache::{Block, BlockId, Kind, NO_BLOCK};
use crate::cpu::{Activity, Cpu};
use crate::op::{BLOCK_RIP, Ended, Flow, Op};

/// Blocks remembered for [`Engine::recent_blocks`].
const RECENT: usize = 16;

/// The last blocks a vCPU executed: RIP, bytes, instructions.
#[derive(Default)]
pub struct Recent {
    ring: [(u64, u32, u32); RECENT],
    next: usize,
}

impl Recent {
    /// Remember one.
    #[inline(always)]
    pub fn push(&mut self, rip: u64, bytes: u32, instructions: u32) {
        self.ring[self.next % RECENT] = (rip, bytes, instructions);
        self.next += 1;
    }

    /// Oldest first.
    pub fn all(&self) -> Vec<(u64, u32, u32)> {
        (0..RECENT).map(|i| self.ring[(self.next + i) % RECENT]).filter(|&(_, bytes, _)| bytes != 0).collect()
    }
}

/// What a vCPU's jump table was filled under, and the number that stands for it.
#[derive(Clone, Copy, Default)]
pub struct JumpStamp {
    /// Epochs of translations and of the code cache; base and limit of CS where code is not flat, since entries go by RIP.
    under: (u64, u64, u64, u32),
    number: u64,
}

impl JumpStamp {
    /// The key of the entries that hold now, in a code cache of this epoch.
    pub fn key(&mut self, cpu: &Cpu, code_epoch: u64) -> u64 {
        let cs = cpu.seg(crate::segment::CS);
        let (base, limit) = if cpu.mode.flat_code() { (0, 0) } else { (cs.base, cs.limit) };
        let under = (cpu.tlb.epoch, code_epoch, base, limit);
        if self.under != under {
            *self = Self { under, number: self.number + 1 };
        }
        self.number << 16 | u64::from(cpu.mode.0) << 8 | u64::from(cpu.cpl == 3)
    }
}

/// Where a chain must end at the latest.
#[derive(Clone, Copy)]
pub struct Limit {
    /// At this count of instructions.
    pub instructions: u64,
    /// At this time, when the next event is due.
    pub event_ns: Option<u64>,
}

impl Limit {
    /// The count of instructions at which to end, if from now on each takes a nanosecond.
    fn of(&self, env: &Env<'_>) -> u64 {
        let until_event = self.event_ns.map_or(u64::MAX, |event| event.saturating_sub(env.now_ns()));
        self.instructions.min(env.instructions.saturating_add(until_event))
    }
}

/// How a chain of blocks ended.
pub enum ChainEnd {
    /// The limit is reached.
    Limit,
    /// The next block is not known; it may be linked as `slot` of `from`.
    Miss { from: BlockId, slot: Option<usize> },
    /// The next instruction must run carefully.
    Careful,
    /// The next block is one instruction that must run carefully.
    Alone(BlockId),
    /// Something changed that must be looked at.
    Attention,
    /// As `Attention`, and the turn is over.
    Yield,
    /// An exception at RIP.
    Fault,
    /// An exit.
    Exit,
}

impl Engine {
    /// Run blocks one after the other.
    pub(super) fn chain(&mut self, bus: &mut dyn Bus, mut id: BlockId, limits: Limit) -> ChainEnd {
        let alone = self.cpus.len() == 1;
        let cpu = &mut self.cpus[self.current];
        let jumps = &self.jumps[self.current];
        let stamp = &mut self.stamps[self.current];
        let recent = &mut self.recent[self.current];
        let cache = &self.cache;
        let mut key = stamp.key(cpu, cache.epoch);
        cpu.careful = false;
        let mut env = Env {
            bus,
            code: cache,
            code_writes: &mut self.code_writes,
            instructions: self.instructions,
            skipped_ns: self.skipped_ns,
            clock: self.clock,
            not_reached: 0,
        };
        let mut limit = limits.of(&env);
        // The instruction count behind the STI whose shadow lies on the next instruction.
        let mut shadow_from = u64::MAX;
        let end = loop {
            let block = cache.get(id);
            let start = cpu.rip;
            let slot = if block.kind == Kind::Plain {
                recent.push(start, block.bytes, block.ops.len() as u32);
                cpu.regs[usize::from(BLOCK_RIP)] = start;
                let count = block.ops.len() as u64;
                if env.instructions + count > limit {
                    let part = (limit - env.instructions) as usize;
                    break run_part(cpu, &mut env, block, part);
                }
                let slot = match run_ops(cpu, &mut env, &block.ops) {
                    Ended::Taken => Some(1),
                    Ended::NotTaken => Some(0),
                    Ended::Indirect => None,
                    Ended::Through => {
                        cpu.rip = offset_rip(cpu, start, u64::from(block.bytes));
                        Some(0)
                    }
                    ended => break settle(cpu, &mut env, start, ended, &block.ops),
                };
                env.instructions += count;
                if cpu.code_written {
                    break ChainEnd::Attention;
                }
                slot
            } else if env.instructions >= limit {
                break ChainEnd::Limit;
            } else if block.kind == Kind::Careful || cpu.pmu.interrupts() || shadow_from == env.instructions {
                break ChainEnd::Alone(id);
            } else {
                if env.instructions > shadow_from {
                    cpu.interrupt_shadow = false;
                }
                recent.push(start, block.bytes, 1);
                match run_private(cpu, &mut env, block) {
                    Private::Done => {}
                    Private::Shadow => shadow_from = env.instructions,
                    Private::Yield if alone => self.slice_end = env.instructions,
                    Private::Yield => break ChainEnd::Yield,
                    Private::Attention => break ChainEnd::Attention,
                    Private::Stopped(end) => break end,
                }
                limit = limits.of(&env);
                key = stamp.key(cpu, cache.epoch);
                None
            };
            let next = slot.map_or(NO_BLOCK, |slot| block.links[slot]);
            if next != NO_BLOCK {
                id = next;
            } else if let Some(found) = jumps.find(cpu.rip, key) {
                id = found;
            } else {
                break ChainEnd::Miss { from: id, slot };
            }
        };
        if env.instructions > shadow_from {
            cpu.interrupt_shadow = false;
        }
        cpu.code_written = false;
        self.instructions = env.instructions;
        self.skipped_ns = env.skipped_ns;
        if matches!(end, ChainEnd::Miss { .. }) && self.instructions >= limit {
            return ChainEnd::Limit;
        }
        end
    }
}

/// Run ops until one does not simply go on.
#[inline(always)]
fn run_ops(cpu: &mut Cpu, env: &mut Env<'_>, ops: &[Op]) -> Ended {
    match ops {
        [first, rest @ ..] => (first.thread)(cpu, env, first, rest),
        [] => Ended::Through,
    }
}

/// Run the first ops of a block, fewer than it has: the limit lies within it.
#[cold]
fn run_part(cpu: &mut Cpu, env: &mut Env<'_>, block: &Block, count: usize) -> ChainEnd {
    let start = cpu.rip;
    let part = &block.ops[..count];
    match run_ops(cpu, env, part) {
        Ended::Through => {
            env.instructions += count as u64;
            cpu.rip = offset_rip(cpu, start, u64::from(block.ops[count].at));
            ChainEnd::Limit
        }
        ended => settle(cpu, env, start, ended, part),
    }
}

/// What a private instruction has led to.
enum Private {
    /// Go on.
    Done,
    /// Go on; events are held off for one more instruction.
    Shadow,
    /// Others may run.
    Yield,
    /// Events may have waited for this.
    Attention,
    /// It did not retire.
    Stopped(ChainEnd),
}

/// Run a block of [`Kind::Private`].
#[inline(never)]
fn run_private(cpu: &mut Cpu, env: &mut Env<'_>, block: &Block) -> Private {
    let (start, op) = (cpu.rip, &block.ops[0]);
    cpu.regs[usize::from(BLOCK_RIP)] = start;
    let (deaf, nmi_blocked) = (cpu.system_flags & rflags::IF == 0, cpu.nmi_blocked);
    let skipped_ns = env.skipped_ns;
    // Nothing that runs here starts with TF set. SYSRET that sets it traps at once.
    cpu.debug.stepping = false;
    let flow = match (op.run)(cpu, env, op) {
        Ok(flow) => flow,
        Err(stop) => {
            env.skipped_ns = skipped_ns;
            return Private::Stopped(chain_end(Err(stop).into()));
        }
    };
    env.instructions += 1;
    env.charge(SYSTEM_NS);
    cpu.meter.set_level(env.work(), cpu.cpl == 3);
    if matches!(flow, Flow::Next | Flow::Sync | Flow::Yield) {
        cpu.rip = offset_rip(cpu, start, u64::from(op.len));
    }
    if cpu.debug.stepping {
        cpu.debug.pending |= dr::DR6_BS;
    }
    let heard = deaf && cpu.system_flags & rflags::IF != 0 || nmi_blocked && !cpu.nmi_blocked;
    if cpu.code_written
        || cpu.system_flags & (rflags::TF | rflags::RF) != 0
        || cpu.debug.pending != 0
        || cpu.activity != Activity::Running
        || heard && has_event(cpu, env)
    {
        Private::Attention
    } else if flow == Flow::Yield {
        Private::Yield
    } else if cpu.interrupt_shadow {
        Private::Shadow
    } else {
        Private::Done
    }
}

/// Whether an interrupt or NMI can be delivered, were it not for a shadow.
fn has_event(cpu: &Cpu, env: &Env<'_>) -> bool {
    let pending = env.bus.pending(cpu.index);
    pending.nmi && !cpu.nmi_blocked || pending.interrupt && cpu.system_flags & rflags::IF != 0
}

/// Account for an op that ended its block early, or did not retire.
#[cold]
fn settle(cpu: &mut Cpu, env: &mut Env<'_>, start: u64, ended: Ended, ops: &[Op]) -> ChainEnd {
    let nth = ops.len() - 1 - env.not_reached;
    let op = &ops[nth];
    cpu.rip = offset_rip(cpu, start, u64::from(op.at));
    env.instructions += nth as u64;
    let end = chain_end(ended);
    match ended {
        Ended::Fault | Ended::Careful | Ended::Exit => {}
        Ended::Again => {
            cpu.meter.discount();
            env.instructions += 1;
        }
        _ => {
            cpu.rip = offset_rip(cpu, cpu.rip, u64::from(op.len));
            env.instructions += 1;
        }
    }
    end
}

/// What it means for the chain that ops did not run through.
fn chain_end(ended: Ended) -> ChainEnd {
    match ended {
        Ended::Fault => ChainEnd::Fault,
        Ended::Careful => ChainEnd::Careful,
        Ended::Exit => ChainEnd::Exit,
        Ended::Yield => ChainEnd::Yield,
        _ => ChainEnd::Attention,
    }
}

/// RIP moved on, wrapped to what the mode has.
#[inline(always)]
pub fn offset_rip(cpu: &Cpu, rip: u64, offset: u64) -> u64 {
    let next = rip.wrapping_add(offset);
    if cpu.mode.is_64() { next } else { next & 0xFFFF_FFFF }
}

#[cfg(test)]
mod tests {
    use vcpu::{Exit, Pending};

    use super::*;
    use crate::exec::testing::{Machine, Mode};
    use crate::segment::Table;

    const GDT: u64 = 0x4000;
    const IDT: u64 = 0x3000;
    const HANDLER: u64 = 0x2000;
    const COUNTER: u64 = 0x5000;
    const VECTOR: u8 = 0x40;

    /// Interrupts at regular times.
    struct Ticker {
        due_ns: u64,
        raised: bool,
    }

    impl Bus for Ticker {
        fn advance(&mut self, now_ns: u64) {
            while self.due_ns <= now_ns {
                self.raised = true;
                self.due_ns += 137;
            }
        }
        fn next_event_ns(&self) -> Option<u64> {
            Some(self.due_ns)
        }
        fn pending(&self, _vcpu: usize) -> Pending {
            Pending { interrupt: self.raised, ..Pending::default() }
        }
        fn take_interrupt(&mut self, _vcpu: usize) -> Option<u8> {
            std::mem::take(&mut self.raised).then_some(VECTOR)
        }
    }

    /// A loop full of what is done without leaving the chain.
    const CODE: &[u8] = &[
        0xFA, // cli
        0x0F, 0x31, // rdtsc
        0x01, 0xC3, // add ebx, eax
        0x9C, // pushfq
        0xFB, // sti
        0xFF, 0xC1, // inc ecx, in the shadow
        0xF3, 0x90, // pause
        0x9D, // popfq, which closes
        0x48, 0x81, 0xF9, 0x40, 0x01, 0x00, 0x00, // cmp rcx, 0x140
        0x72, 0x02, // jb, over
        0xFF, 0xC2, // inc edx
        0xFB, // sti
        0xFA, // cli, in the shadow
        0x48, 0x85, 0xC9, // test rcx, rcx
        0x79, 0xE2, // jns, to the cli
    ];

    fn machine() -> Machine {
        let mut machine = Machine::new(Mode::Long64);
        machine.poke(crate::exec::testing::CODE, CODE);
        // inc dword ptr [COUNTER]; iretq
        machine.poke(HANDLER, &[0xFF, 0x04, 0x25, 0x00, 0x50, 0x00, 0x00, 0x48, 0xCF]);
        for (i, descriptor) in [0, 0x00AF_9B00_0000_FFFF, 0x00CF_9300_0000_FFFF_u64].into_iter().enumerate() {
            machine.poke(GDT + 8 * i as u64, &descriptor.to_le_bytes());
        }
        let gate = HANDLER | 8 << 16 | 0x8E00 << 32;
        machine.poke(IDT + 16 * u64::from(VECTOR), &gate.to_le_bytes());
        let cpu = machine.cpu();
        cpu.gdtr = Table { base: GDT, limit: 0xFF };
        cpu.idtr = Table { base: IDT, limit: 0xFFF };
        machine
    }

    #[test]
    fn a_run_is_the_same_in_whatever_pieces() {
        let mut outcomes = Vec::new();
        for piece in [6000, 1, 2, 7, 100] {
            let (mut machine, mut bus) = (machine(), Ticker { due_ns: 137, raised: false });
            while machine.instructions() < 6000 {
                let budget = piece.min(6000 - machine.instructions());
                assert_eq!(machine.run_with(&mut bus, budget), Exit::Budget, "in pieces of {piece}");
            }
            outcomes.push((machine.state(), machine.peek64(COUNTER)));
        }
        assert!(outcomes[0].1 > 100, "{} interrupts", outcomes[0].1);
        for outcome in &outcomes {
            assert_eq!(*outcome, outcomes[0]);
        }
    }

    /// SYSRET that sets TF traps before the first instruction there; SYSCALL's flags are those behind SFMASK.
    #[test]
    fn sysret_traps_by_the_flags_that_it_loads() {
        const R11: usize = 11;
        for (flags, pending) in [(rflags::TF, dr::DR6_BS), (0, 0)] {
            let mut machine = crate::testing::Machine::long64();
            let cpu = &mut machine.cpu;
            cpu.efer |= x86defs::cr::EFER_SCE;
            cpu.regs[R11] = flags | rflags::FIXED;
            cpu.debug.stepping = true;
            let op = Op { len: 2, size: 8, ..Op::new(crate::syscall::sysret) };
            let kind = Kind::Private;
            let block = Block { bytes: 2, ops: [op].as_slice().into(), links: [NO_BLOCK; 2], offset: 0, kind };
            let end = machine.with(|cpu, env| run_private(cpu, env, &block));
            assert_eq!(machine.cpu.debug.pending, pending);
            assert_eq!(matches!(end, Private::Attention), flags != 0);
        }
    }
}
