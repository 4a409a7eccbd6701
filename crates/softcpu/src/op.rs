//! The internal form of an instruction, and what executing one can lead to.

use crate::cpu::Cpu;
use crate::engine::Env;

/// Carries out one instruction.
pub type Handler = fn(&mut Cpu, &mut Env<'_>, &Op) -> Step;

/// Carries out one instruction, and those behind it as long as each just goes on: [`go_on`] is its last call, which compilers
/// make a jump, so that one handler leads straight to the next. Where they do not, a block is short enough for the stack.
pub type Thread = fn(&mut Cpu, &mut Env<'_>, &Op, &[Op]) -> Ended;

/// How a run of ops ended. One scalar, or the last call would not become a jump.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Behind the last op.
    Through,
    /// As [`Flow::NotTaken`].
    NotTaken,
    /// As [`Flow::Taken`].
    Taken,
    /// As [`Flow::Indirect`].
    Indirect,
    /// As [`Flow::Sync`], before the end. [`Env::not_reached`] says where, here and below.
    Sync,
    /// As [`Flow::Yield`].
    Yield,
    /// As [`Stop::Fault`].
    Fault,
    /// As [`Stop::Careful`].
    Careful,
    /// As [`Stop::Exit`].
    Exit,
    /// As [`Stop::Again`].
    Again,
}

impl From<Step> for Ended {
    #[inline(always)]
    fn from(step: Step) -> Self {
        match step {
            Ok(Flow::Next) => Self::Through,
            Ok(Flow::NotTaken) => Self::NotTaken,
            Ok(Flow::Taken) => Self::Taken,
            Ok(Flow::Indirect) => Self::Indirect,
            Ok(Flow::Sync) => Self::Sync,
            Ok(Flow::Yield) => Self::Yield,
            Err(Stop::Fault) => Self::Fault,
            Err(Stop::Careful) => Self::Careful,
            Err(Stop::Exit) => Self::Exit,
            Err(Stop::Again) => Self::Again,
        }
    }
}

/// A handler that is worth having as a thread of its own. [`threaded`] makes it.
#[derive(Clone, Copy)]
pub struct Threaded {
    /// One instruction, in any case.
    pub run: Handler,
    /// And what follows.
    pub thread: Thread,
}

/// Compile a handler into a thread: `threaded!(handler)`. Or compile the ordinary case only, a function that gives `None`
/// before it has changed anything if there is more to look at: `threaded!(fast, handler)`.
macro_rules! threaded {
    ($handler:expr) => {
        $crate::op::Threaded {
            run: $handler,
            thread: |cpu: &mut $crate::cpu::Cpu,
                     env: &mut $crate::engine::Env<'_>,
                     op: &$crate::op::Op,
                     rest: &[$crate::op::Op]| {
                let step = $handler(cpu, env, op);
                $crate::op::go_on(cpu, env, step, rest)
            },
        }
    };
    ($fast:expr, $handler:expr) => {
        $crate::op::Threaded {
            run: $handler,
            thread: |cpu: &mut $crate::cpu::Cpu,
                     env: &mut $crate::engine::Env<'_>,
                     op: &$crate::op::Op,
                     rest: &[$crate::op::Op]| match $fast(cpu, op) {
                Some(flow) => $crate::op::go_on(cpu, env, Ok(flow), rest),
                None => $crate::op::call_handler(cpu, env, op, rest),
            },
        }
    };
}
pub(crate) use threaded;

/// After an instruction that ended with `step`: carry out `rest`, or say how many ops were not reached.
#[inline(always)]
pub fn go_on(cpu: &mut Cpu, env: &mut Env<'_>, step: Step, rest: &[Op]) -> Ended {
    if step == Ok(Flow::Next)
        && let [next, rest @ ..] = rest
    {
        return (next.thread)(cpu, env, next, rest);
    }
    if !matches!(step, Ok(Flow::Next | Flow::NotTaken | Flow::Taken | Flow::Indirect)) {
        env.not_reached = rest.len();
    }
    step.into()
}

/// The thread of any handler.
#[inline(never)]
pub fn call_handler(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op, rest: &[Op]) -> Ended {
    let step = (op.run)(cpu, env, op);
    go_on(cpu, env, step, rest)
}

/// How a handler ended.
pub type Step = Result<Flow, Stop>;

/// The instruction has retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// Go on with the next op.
    Next,
    /// End of block; the handler has set RIP to the target of a direct branch that was taken.
    Taken,
    /// End of block; the handler has set RIP to the instruction behind a direct branch that was not taken.
    NotTaken,
    /// End of block; the handler has set RIP, anywhere.
    Indirect,
    /// End of block although it was no branch: something changed that the engine must look at. RIP is behind the
    /// instruction (the engine sets it).
    Sync,
    /// As `Sync`, and this vCPU's turn is over (PAUSE, MWAIT).
    Yield,
}

/// The instruction has not retired, and nothing that the guest can see has changed, except as noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A fault: [`Cpu::fault`] says which.
    Fault,
    /// The instruction wants to touch the bus. The engine runs it again by itself, with RIP, the instruction count and the
    /// clock exact and [`Cpu::careful`] set.
    Careful,
    /// Somebody above the engine must act: [`Cpu::exit`] says on what.
    Exit,
    /// A repeated string instruction has done part of its work (registers say how far) and gives others a chance; RIP stays.
    Again,
}

/// What completes an exit when its instruction is restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A read's value, or a hypercall's result; of a write, that it was done.
    Value(u64),
    /// CPUID's EAX, EBX, ECX, EDX.
    Cpuid([u32; 4]),
    /// #GP(0).
    Fault,
    /// Done, and no register changes.
    Done,
}

/// Number of general registers' slots that an op can name: as many as a byte has values, so that none is out of bounds and
/// nothing is checked. Those above [`HIGH_BYTES`] and its kin are never used.
pub const REGISTER_SLOTS: usize = 256;
/// Slot that always reads as zero: an absent base or index.
pub const ZERO: u8 = 16;
/// Slot that holds the RIP of the first instruction of the block: the base of RIP-relative addresses, with the
/// distance from there folded into `disp`.
pub const BLOCK_RIP: u8 = 17;
/// First of the four byte registers AH, CH, DH, BH (as operands of byte width only).
pub const HIGH_BYTES: u8 = 20;

/// One decoded instruction.
#[derive(Clone, Copy, Debug)]
pub struct Op {
    /// What carries it out.
    pub run: Handler,
    /// What carries it out, and goes on.
    pub thread: Thread,
    /// Immediate, sign- or zero-extended as the instruction says; of a direct branch the distance of its target from the
    /// first byte of the block.
    pub imm: u64,
    /// Displacement of the memory operand, sign-extended; an absolute 64-bit address for MOV moffs.
    pub disp: i64,
    /// Register operand: the destination if there are two.
    pub dst: u8,
    /// Second register operand.
    pub src: u8,
    /// Base register of the memory operand, or [`ZERO`], or [`BLOCK_RIP`].
    pub base: u8,
    /// Index register, or [`ZERO`].
    pub index: u8,
    /// log2 of the scale.
    pub scale: u8,
    /// Segment register of the memory operand ([`crate::segment`] numbers).
    pub seg: u8,
    /// Whatever else the handler needs: condition code, repeat prefix, third register ...
    pub extra: u8,
    /// Operand size in bytes: 1, 2, 4 or 8.
    pub size: u8,
    /// Address size in bytes: 2, 4 or 8.
    pub address: u8,
    /// Bytes of the instruction, 1..=15.
    pub len: u8,
    /// Its first byte, counted from the first byte of the block.
    pub at: u16,
}

impl Op {
    /// An op with no operands.
    pub fn new(run: Handler) -> Self {
        Self {
            run,
            thread: call_handler,
            imm: 0,
            disp: 0,
            dst: ZERO,
            src: ZERO,
            base: ZERO,
            index: ZERO,
            scale: 0,
            seg: 0,
            extra: 0,
            size: 0,
            address: 0,
            len: 0,
            at: 0,
        }
    }
}

/// An operand width: `u8`, `u16`, `u32` or `u64`.
pub trait Width:
    guestmem::Scalar
    + Eq
    + Ord
    + std::fmt::Debug
    + std::ops::BitAnd<Output = Self>
    + std::ops::BitOr<Output = Self>
    + std::ops::BitXor<Output = Self>
    + std::ops::Not<Output = Self>
{
    /// Width in bits.
    const BITS: u32;
    /// Width in bytes.
    const BYTES: u64;
    /// Zero-extend.
    fn to_u64(self) -> u64;
    /// Truncate.
    fn from_u64(value: u64) -> Self;
    /// Sign-extend to 64 bits.
    fn sign_extend(self) -> u64;
    /// Sum modulo 2^BITS.
    fn wrapping_add(self, other: Self) -> Self;
    /// Difference modulo 2^BITS.
    fn wrapping_sub(self, other: Self) -> Self;
    /// Read a register slot at this width.
    fn get(regs: &[u64; REGISTER_SLOTS], slot: u8) -> Self;
    /// Write a register slot at this width: 32-bit writes clear the upper half, narrower ones keep the rest.
    fn set(regs: &mut [u64; REGISTER_SLOTS], slot: u8, value: Self);
}

macro_rules! width {
    ($t:ty, $signed:ty, $regs:ident, $slot:ident, $value:ident, get $get:expr, set $set:expr) => {
        impl Width for $t {
            const BITS: u32 = <$t>::BITS;
            const BYTES: u64 = size_of::<$t>() as u64;
            #[inline(always)]
            fn to_u64(self) -> u64 {
                u64::from(self)
            }
            #[inline(always)]
            fn from_u64(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn sign_extend(self) -> u64 {
                self as $signed as i64 as u64
            }
            #[inline(always)]
            fn wrapping_add(self, other: Self) -> Self {
                <$t>::wrapping_add(self, other)
            }
            #[inline(always)]
            fn wrapping_sub(self, other: Self) -> Self {
                <$t>::wrapping_sub(self, other)
            }
            #[inline(always)]
            fn get($regs: &[u64; REGISTER_SLOTS], $slot: u8) -> Self {
                $get
            }
            #[inline(always)]
            fn set($regs: &mut [u64; REGISTER_SLOTS], $slot: u8, $value: Self) {
                $set
            }
        }
    };
}

/// The index of a slot.
#[inline(always)]
pub fn slot(number: u8) -> usize {
    usize::from(number)
}

width!(u64, i64, regs, s, value, get regs[slot(s)], set regs[slot(s)] = value);
width!(u32, i32, regs, s, value, get regs[slot(s)] as u32, set regs[slot(s)] = u64::from(value));
width!(u16, i16, regs, s, value, get regs[slot(s)] as u16, set {
    let register = &mut regs[slot(s)];
    *register = *register & !0xFFFF | u64::from(value);
});
width!(u8, i8, regs, s, value, get {
    if s < HIGH_BYTES { regs[slot(s)] as u8 } else { (regs[slot(s - HIGH_BYTES)] >> 8) as u8 }
}, set {
    if s < HIGH_BYTES {
        let register = &mut regs[slot(s)];
        *register = *register & !0xFF | u64::from(value);
    } else {
        let register = &mut regs[slot(s - HIGH_BYTES)];
        *register = *register & !0xFF00 | u64::from(value) << 8;
    }
});
