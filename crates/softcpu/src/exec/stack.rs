//! The stack: PUSH, POP, PUSHA, POPA, PUSHF, POPF, ENTER, LEAVE, and pushing and popping for near calls.

use x86defs::{cr, rflags};

use super::addr;
use super::form::{Kind, Place};
use crate::cpu::Cpu;
use crate::engine::Env;
use crate::op::{Flow, Handler, Op, Step, Stop, Threaded, Width, threaded};
use crate::segment::SS;

/// RSP.
pub const RSP: u8 = 4;
const RBP: u8 = 5;

/// How stack addresses are computed. The decoder picks the kind.
pub trait Stack {
    /// The stack pointer, `bytes` further.
    fn moved(cpu: &Cpu, pointer: u64, bytes: u64) -> u64;
    /// The linear address of `bytes` bytes at `pointer`.
    fn linear(cpu: &mut Cpu, pointer: u64, bytes: u64, write: bool) -> Result<u64, Stop>;
    /// The same, if it needs no check.
    fn unchecked(pointer: u64) -> Option<u64>;
    /// Write the stack pointer at its width.
    fn set(cpu: &mut Cpu, pointer: u64);
}

/// 64-bit mode.
pub struct Stack64;
/// 32-bit, flat.
pub struct Stack32;
/// Whatever SS says.
pub struct AnyStack;

impl Stack for Stack64 {
    #[inline(always)]
    fn moved(_cpu: &Cpu, pointer: u64, bytes: u64) -> u64 {
        pointer.wrapping_add(bytes)
    }
    #[inline(always)]
    fn linear(_cpu: &mut Cpu, pointer: u64, _bytes: u64, _write: bool) -> Result<u64, Stop> {
        Ok(pointer)
    }
    #[inline(always)]
    fn unchecked(pointer: u64) -> Option<u64> {
        Some(pointer)
    }
    #[inline(always)]
    fn set(cpu: &mut Cpu, pointer: u64) {
        cpu.regs[usize::from(RSP)] = pointer;
    }
}

impl Stack for Stack32 {
    #[inline(always)]
    fn moved(_cpu: &Cpu, pointer: u64, bytes: u64) -> u64 {
        pointer.wrapping_add(bytes) & 0xFFFF_FFFF
    }
    #[inline(always)]
    fn linear(_cpu: &mut Cpu, pointer: u64, _bytes: u64, _write: bool) -> Result<u64, Stop> {
        Ok(pointer & 0xFFFF_FFFF)
    }
    #[inline(always)]
    fn unchecked(pointer: u64) -> Option<u64> {
        Some(pointer & 0xFFFF_FFFF)
    }
    #[inline(always)]
    fn set(cpu: &mut Cpu, pointer: u64) {
        cpu.regs[usize::from(RSP)] = pointer & 0xFFFF_FFFF;
    }
}

impl Stack for AnyStack {
    fn moved(cpu: &Cpu, pointer: u64, bytes: u64) -> u64 {
        pointer.wrapping_add(bytes) & addr::size_mask((cpu.mode.stack_bits() / 8) as u8)
    }
    fn linear(cpu: &mut Cpu, pointer: u64, bytes: u64, write: bool) -> Result<u64, Stop> {
        let offset = Self::moved(cpu, pointer, 0);
        addr::linear(cpu, SS, offset, bytes, write)
    }
    fn unchecked(_pointer: u64) -> Option<u64> {
        None
    }
    fn set(cpu: &mut Cpu, pointer: u64) {
        match cpu.mode.stack_bits() {
            16 => u16::set(&mut cpu.regs, RSP, pointer as u16),
            32 => u32::set(&mut cpu.regs, RSP, pointer as u32),
            _ => cpu.regs[usize::from(RSP)] = pointer,
        }
    }
}

#[inline(always)]
fn pointer(cpu: &Cpu) -> u64 {
    cpu.regs[usize::from(RSP)]
}

/// Push where nothing needs a check, see [`addr::Address`]; false if it does, and nothing has happened.
#[inline(always)]
pub fn push_to_ram<T: Width, S: Stack>(cpu: &mut Cpu, value: T) -> bool {
    let top = S::moved(cpu, pointer(cpu), 0u64.wrapping_sub(T::BYTES));
    let offset = S::unchecked(top).and_then(|linear| cpu.tlb.write(cpu.mmu_index, linear, T::BYTES));
    let Some(offset) = offset else { return false };
    cpu.mem.store(offset, value);
    S::set(cpu, top);
    true
}

/// Push: the stack pointer changes only once the store is done.
pub fn push<T: Width, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, value: T) -> Result<(), Stop> {
    let top = S::moved(cpu, pointer(cpu), 0u64.wrapping_sub(T::BYTES));
    let linear = S::linear(cpu, top, T::BYTES, true)?;
    cpu.write(env, linear, SS, value)?;
    S::set(cpu, top);
    Ok(())
}

/// The top of the stack, which stays, where nothing needs a check.
#[inline(always)]
pub fn peek_in_ram<T: Width, S: Stack>(cpu: &Cpu) -> Option<T> {
    let linear = S::unchecked(pointer(cpu))?;
    cpu.tlb.read(cpu.mmu_index, linear, T::BYTES).map(|offset| cpu.mem.load(offset))
}

/// The top of the stack, which stays.
pub fn peek<T: Width, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>) -> Result<T, Stop> {
    let linear = S::linear(cpu, pointer(cpu), T::BYTES, false)?;
    cpu.read(env, linear, SS)
}

/// Drop `bytes` from the stack.
#[inline(always)]
pub fn release<S: Stack>(cpu: &mut Cpu, bytes: u64) {
    let top = S::moved(cpu, pointer(cpu), bytes);
    S::set(cpu, top);
}

#[inline(always)]
fn pushed<T: Width, const IMMEDIATE: bool>(cpu: &Cpu, op: &Op) -> T {
    if IMMEDIATE { T::from_u64(op.imm) } else { T::get(&cpu.regs, op.src) }
}

#[inline(always)]
fn push_value_fast<T: Width, S: Stack, const IMMEDIATE: bool>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let value = pushed::<T, IMMEDIATE>(cpu, op);
    push_to_ram::<T, S>(cpu, value).then_some(Flow::Next)
}

fn push_value<T: Width, const IMMEDIATE: bool>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = pushed::<T, IMMEDIATE>(cpu, op);
    push::<T, AnyStack>(cpu, env, value)?;
    cpu.after_store()
}

fn push_mem<T: Width, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = addr::read_operand::<T>(cpu, env, op)?;
    push::<T, S>(cpu, env, value)?;
    cpu.after_store()
}

#[inline(always)]
fn popped<T: Width, S: Stack>(cpu: &mut Cpu, op: &Op, value: T) -> Flow {
    // In this order: POP RSP leaves what was popped.
    release::<S>(cpu, T::BYTES);
    T::set(&mut cpu.regs, op.dst, value);
    Flow::Next
}

#[inline(always)]
fn pop_reg_fast<T: Width, S: Stack>(cpu: &mut Cpu, op: &Op) -> Option<Flow> {
    let value = peek_in_ram::<T, S>(cpu)?;
    Some(popped::<T, S>(cpu, op, value))
}

fn pop_reg<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = peek::<T, AnyStack>(cpu, env)?;
    Ok(popped::<T, AnyStack>(cpu, op, value))
}

fn pop_mem<T: Width, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let value = peek::<T, S>(cpu, env)?;
    // An address that uses RSP uses the incremented one (SDM vol. 2 POP).
    let before = pointer(cpu);
    release::<S>(cpu, T::BYTES);
    let result = addr::write_operand(cpu, env, op, value);
    if let Err(stop) = result {
        cpu.regs[usize::from(RSP)] = before;
        return Err(stop);
    }
    cpu.after_store()
}

/// Compile an expression for an operand size that can be pushed, and a stack: in 64-bit mode, flat, or any.
macro_rules! with_stack {
    ($size:expr, $kind:expr, $T:ident, $S:ident => $e:expr) => {{
        macro_rules! sized {
            ($stack:ident) => {{
                type $S = $stack;
                match $size {
                    2 => {
                        type $T = u16;
                        $e
                    }
                    4 => {
                        type $T = u32;
                        $e
                    }
                    _ => {
                        type $T = u64;
                        $e
                    }
                }
            }};
        }
        match $kind {
            Kind::Flat64 => sized!(Stack64),
            Kind::Flat32 => sized!(Stack32),
            Kind::Based64 | Kind::Segmented => sized!(AnyStack),
        }
    }};
}
pub(super) use with_stack;

/// What is pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// `src`.
    Register,
    /// `imm`.
    Immediate,
    /// The memory operand.
    Memory,
}

/// PUSH.
pub fn push_of(what: Pushed, size: u8, stack: Kind) -> Threaded {
    with_stack!(size, stack, T, S => match what {
        Pushed::Register => threaded!(push_value_fast::<T, S, false>, push_value::<T, false>),
        Pushed::Immediate => threaded!(push_value_fast::<T, S, true>, push_value::<T, true>),
        Pushed::Memory => threaded!(push_mem::<T, S>),
    })
}

/// POP.
pub fn pop_to(place: Place, size: u8, stack: Kind) -> Threaded {
    with_stack!(size, stack, T, S => match place {
        Place::Register => threaded!(pop_reg_fast::<T, S>, pop_reg::<T>),
        Place::Memory(_) => threaded!(pop_mem::<T, S>),
    })
}

fn leave_sized<T: Width, S: Stack>(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let frame = cpu.regs[usize::from(RBP)];
    let linear = S::linear(cpu, frame, T::BYTES, false)?;
    let value = cpu.read::<T>(env, linear, SS)?;
    let top = S::moved(cpu, frame, T::BYTES);
    S::set(cpu, top);
    T::set(&mut cpu.regs, RBP, value);
    Ok(Flow::Next)
}

/// LEAVE.
pub fn leave(size: u8, stack: Kind) -> Handler {
    with_stack!(size, stack, T, S => leave_sized::<T, S>)
}

fn enter_sized<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, op: &Op) -> Step {
    let level = op.extra % 32;
    let mut frame_link = cpu.regs[usize::from(RBP)];
    let mut top = AnyStack::moved(cpu, pointer(cpu), 0);
    let store = |cpu: &mut Cpu, env: &mut Env<'_>, top: &mut u64, value: T| {
        *top = AnyStack::moved(cpu, *top, 0u64.wrapping_sub(T::BYTES));
        let linear = AnyStack::linear(cpu, *top, T::BYTES, true)?;
        cpu.write(env, linear, SS, value)
    };
    store(cpu, env, &mut top, T::get(&cpu.regs, RBP))?;
    // A 16-bit stack keeps the upper half of ESP, which a 32-bit frame pointer gets too.
    let frame = pointer(cpu) & !addr::size_mask((cpu.mode.stack_bits() / 8) as u8) | top;
    for _ in 1..level {
        frame_link = AnyStack::moved(cpu, frame_link, 0u64.wrapping_sub(T::BYTES));
        let linear = AnyStack::linear(cpu, frame_link, T::BYTES, false)?;
        let link = cpu.read::<T>(env, linear, SS)?;
        store(cpu, env, &mut top, link)?;
    }
    if level > 0 {
        store(cpu, env, &mut top, T::from_u64(frame))?;
    }
    let top = AnyStack::moved(cpu, top, 0u64.wrapping_sub(op.imm));
    // The final stack pointer must be good for a store (SDM vol. 2 ENTER).
    let linear = AnyStack::linear(cpu, top, T::BYTES, true)?;
    cpu.check_alignment(linear, T::BYTES)?;
    cpu.probe_write(env, linear, T::BYTES, SS)?;
    AnyStack::set(cpu, top);
    T::set(&mut cpu.regs, RBP, T::from_u64(frame));
    cpu.after_store()
}

/// ENTER: bytes to allocate in `imm`, nesting level in `extra`. What it stores lies below the stack pointer until the
/// end, where a fault half way may leave it.
pub fn enter(size: u8) -> Handler {
    match size {
        2 => enter_sized::<u16>,
        4 => enter_sized::<u32>,
        _ => enter_sized::<u64>,
    }
}

fn pusha_sized<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let mut addresses = [0; 8];
    for (i, address) in addresses.iter_mut().enumerate() {
        let top = AnyStack::moved(cpu, pointer(cpu), 0u64.wrapping_sub(T::BYTES * (i as u64 + 1)));
        *address = AnyStack::linear(cpu, top, T::BYTES, true)?;
        cpu.probe_write(env, *address, T::BYTES, SS)?;
    }
    for (i, &address) in addresses.iter().enumerate() {
        let value = T::get(&cpu.regs, i as u8);
        cpu.write(env, address, SS, value)?;
    }
    release::<AnyStack>(cpu, 0u64.wrapping_sub(8 * T::BYTES));
    cpu.after_store()
}

/// PUSHA, PUSHAD.
pub fn pusha(size: u8) -> Handler {
    if size == 2 { pusha_sized::<u16> } else { pusha_sized::<u32> }
}

fn popa_sized<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let mut values = [0; 8];
    for (i, value) in values.iter_mut().enumerate() {
        let top = AnyStack::moved(cpu, pointer(cpu), T::BYTES * i as u64);
        let linear = AnyStack::linear(cpu, top, T::BYTES, false)?;
        *value = cpu.read::<T>(env, linear, SS)?.to_u64();
    }
    release::<AnyStack>(cpu, 8 * T::BYTES);
    for (i, &value) in values.iter().enumerate() {
        let register = 7 - i as u8;
        // What was pushed for the stack pointer is skipped.
        if register != RSP {
            T::set(&mut cpu.regs, register, T::from_u64(value));
        }
    }
    Ok(Flow::Next)
}

/// POPA, POPAD.
pub fn popa(size: u8) -> Handler {
    if size == 2 { popa_sized::<u16> } else { popa_sized::<u32> }
}

/// In virtual-8086 mode with IOPL below 3, where PUSHF and POPF trap or, with CR4.VME, use VIF (SDM vol. 3 section 22.3).
fn is_guarded(cpu: &Cpu) -> bool {
    cpu.system_flags & rflags::VM != 0 && cpu.system_flags & rflags::IOPL != rflags::IOPL
}

fn pushf_sized<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    let mut flags = cpu.rflags() & !(rflags::VM | rflags::RF);
    if is_guarded(cpu) {
        if T::BITS != 16 || cpu.cr4 & cr::CR4_VME == 0 {
            return Err(cpu.gp0());
        }
        let vif = flags & rflags::VIF != 0;
        flags = flags & !rflags::IF | rflags::IOPL | if vif { rflags::IF } else { 0 };
    }
    push::<T, AnyStack>(cpu, env, T::from_u64(flags))?;
    cpu.after_store()
}

/// PUSHF, PUSHFD, PUSHFQ.
pub fn pushf(size: u8) -> Handler {
    match size {
        2 => pushf_sized::<u16>,
        4 => pushf_sized::<u32>,
        _ => pushf_sized::<u64>,
    }
}

/// The bits of RFLAGS that POPF may change at the current privilege (SDM vol. 2 POPF).
fn popf_mask(cpu: &Cpu) -> u64 {
    let mut mask = rflags::ARITHMETIC | rflags::TF | rflags::DF | rflags::NT | rflags::AC | rflags::ID;
    let iopl = (cpu.system_flags & rflags::IOPL) >> rflags::IOPL_SHIFT;
    // In real mode CPL is 0.
    if cpu.cpl == 0 {
        mask |= rflags::IOPL;
    }
    if u64::from(cpu.cpl) <= iopl {
        mask |= rflags::IF;
    }
    mask
}

fn popf_sized<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>, _op: &Op) -> Step {
    if is_guarded(cpu) {
        return popf_virtual::<T>(cpu, env);
    }
    let value = peek::<T, AnyStack>(cpu, env)?.to_u64();
    let mask = popf_mask(cpu) & if T::BITS == 16 { 0xFFFF } else { u64::MAX };
    release::<AnyStack>(cpu, T::BYTES);
    cpu.set_rflags(cpu.rflags() & !(mask | rflags::RF) | value & mask);
    Ok(Flow::Sync)
}

/// POPF in virtual-8086 mode with IOPL below 3: IF stands for VIF.
fn popf_virtual<T: Width>(cpu: &mut Cpu, env: &mut Env<'_>) -> Step {
    if T::BITS != 16 || cpu.cr4 & cr::CR4_VME == 0 {
        return Err(cpu.gp0());
    }
    let value = peek::<T, AnyStack>(cpu, env)?.to_u64();
    let pending = cpu.system_flags & rflags::VIP != 0;
    if value & rflags::TF != 0 || (pending && value & rflags::IF != 0) {
        return Err(cpu.gp0());
    }
    release::<AnyStack>(cpu, T::BYTES);
    let mask = (rflags::ARITHMETIC | rflags::TF | rflags::DF | rflags::NT) & 0xFFFF;
    let vif = if value & rflags::IF != 0 { rflags::VIF } else { 0 };
    cpu.set_rflags(cpu.rflags() & !(mask | rflags::RF | rflags::VIF) | value & mask | vif);
    Ok(Flow::Sync)
}

/// POPF, POPFD, POPFQ. Stands alone.
pub fn popf(size: u8) -> Handler {
    match size {
        2 => popf_sized::<u16>,
        4 => popf_sized::<u32>,
        _ => popf_sized::<u64>,
    }
}
