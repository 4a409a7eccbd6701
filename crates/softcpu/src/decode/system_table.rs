//! Instructions whose handlers live outside [`crate::exec`]: the system's, far transfers, system calls. All stand alone.
//!
//! What their ops hold, besides `size` (operand size in bytes) and `address` (address size in bytes):
//!
//! | instructions | operands |
//! |---|---|
//! | with a memory operand only (LGDT, INVLPG, JMP FAR m, CMPXCHG ...) | `base`, `index`, `scale`, `disp`, `seg`: see [`crate::exec::addr`] |
//! | with an r/m operand (SLDT, LTR, VERR, LAR's source, MOV Sreg ...) | `extra` & 1 (MOV Sreg: `imm`) is 1: register in `src`; 0: memory operand |
//! | SLDT, STR, SMSW, MOV from Sreg | the r/m operand is written; a register is in `dst` |
//! | LAR, LSL | destination register in `dst`, r/m source |
//! | LMSW, SMSW | `*_reg`, `*_mem` |
//! | MOV CR, MOV DR | general register in `dst` (read from CR) or `src` (written to CR), number of the CR or DR in `extra` |
//! | INVPCID | type register in `dst`, descriptor in memory |
//! | ARPL | r/m destination (register in `dst`), source register in `src` |
//! | IN, OUT | port in `imm` if `src` is [`crate::op::ZERO`], otherwise in DX; `extra` and `size`: bytes |
//! | INS, OUTS | as other string instructions: see [`crate::exec::string`] |
//! | MONITOR | `seg` |
//! | INT n | vector in `imm` |
//! | JMP FAR ptr, CALL FAR ptr | offset in `imm`, selector in `disp` |
//! | RET FAR | bytes to release in `imm` |
//! | JMP FAR m, CALL FAR m | pointer in memory, `imm` [`far::REX_W_IGNORED`] or 0 |
//! | LDS, LES, LSS, LFS, LGS | segment register in `extra`, general register in `dst`, pointer in memory |
//! | MOV Sreg, PUSH Sreg, POP Sreg | segment register in `extra` |
//! | RDFSBASE ... WRGSBASE | register in `dst` (read) or `src` (written); `extra` bit 0: GS, bit 1: write |
//! | RDPID | `dst` |
//!
//! Registers are slots of [`crate::Cpu::regs`], read and written through [`crate::op::Width`].

use iced_x86::{Code, Instruction, Mnemonic as M, OpKind, Register};

use super::operands::{Operands, segment};
use super::select::string_operands;
use crate::cpu::CodeMode;
use crate::op::{Handler, Op, ZERO};
use crate::segment::{self as seg, DS};
use crate::{far, syscall, system};

/// The handler, with the operands that it expects filled in.
pub fn select(o: &mut Operands<'_>) -> Option<Handler> {
    plain(o)
        .or_else(|| tables(o))
        .or_else(|| selectors(o))
        .or_else(|| registers(o))
        .or_else(|| ports(o))
        .or_else(|| far_transfers(o))
        .or_else(|| returns(o))
        .or_else(|| segment_registers(o))
        .or_else(|| super::xstate::select(o))
}

/// Whether an instruction that stands alone concerns the vCPU alone: what it does depends on nothing but the vCPU's state,
/// memory and time, and it changes nothing else. Those that guests execute often.
pub fn is_private(instr: &Instruction) -> bool {
    matches!(
        instr.mnemonic(),
        M::Cli
            | M::Sti
            | M::Popf
            | M::Popfd
            | M::Popfq
            | M::Clac
            | M::Stac
            | M::Pause
            | M::Rdtsc
            | M::Rdtscp
            | M::Rdrand
            | M::Rdseed
            | M::Swapgs
            | M::Rdfsbase
            | M::Rdgsbase
            | M::Wrfsbase
            | M::Wrgsbase
            | M::Invlpg
            | M::Syscall
            | M::Sysret
            | M::Sysretq
            | M::Iretq
    )
}

/// VMCALL or VMMCALL behind redundant prefixes, which the decoder's tables do not have: silicon ignores operand size, address size,
/// segment and REX there. Bytes that it takes for something else do not come here.
pub fn prefixed_hypercall(bytes: &[u8], mode: CodeMode) -> Option<Op> {
    let redundant = |byte: &u8| {
        matches!(byte, 0x26 | 0x2E | 0x36 | 0x3E | 0x64..=0x67) || mode.is_64() && matches!(byte, 0x40..=0x4F)
    };
    let prefixes = bytes.iter().take_while(|byte| redundant(byte)).count();
    let run: Handler = match bytes.get(prefixes..prefixes + 3)? {
        [0x0F, 0x01, 0xC1] => system::vmcall,
        [0x0F, 0x01, 0xD9] => system::vmmcall,
        _ => return None,
    };
    let len = prefixes + 3;
    (len <= super::MAX_LENGTH).then(|| Op { len: len as u8, ..Op::new(run) })
}

/// Without operands.
fn plain(o: &mut Operands<'_>) -> Option<Handler> {
    Some(match o.instr.mnemonic() {
        M::Cpuid => system::cpuid,
        M::Rdmsr => system::rdmsr,
        M::Wrmsr => system::wrmsr,
        M::Rdtsc => system::rdtsc,
        M::Rdtscp => system::rdtscp,
        M::Rdpmc => system::rdpmc,
        M::Clts => system::clts,
        M::Invd => system::invd,
        M::Wbinvd | M::Wbnoinvd => system::wbinvd,
        M::Hlt => system::hlt,
        M::Pause => system::pause,
        M::Mwait => system::mwait,
        M::Monitor => {
            o.op.seg = match o.instr.segment_prefix() {
                Register::None => DS,
                register => segment(register),
            };
            system::monitor
        }
        M::Cli => system::cli,
        M::Sti => system::sti,
        M::Clac => system::clac,
        M::Stac => system::stac,
        M::Swapgs => system::swapgs,
        M::Rdpkru => system::rdpkru,
        M::Wrpkru => system::wrpkru,
        M::Vmcall => system::vmcall,
        M::Vmmcall => system::vmmcall,
        M::Int3 => far::int3,
        M::Int1 => far::int1,
        M::Into => far::into,
        M::Int => {
            o.op.imm = o.instr.immediate(0);
            far::int_n
        }
        M::Syscall => syscall::syscall,
        M::Sysenter => syscall::sysenter,
        _ => return None,
    })
}

/// With a memory operand.
fn tables(o: &mut Operands<'_>) -> Option<Handler> {
    let handler: Handler = match o.instr.mnemonic() {
        M::Lgdt => system::lgdt,
        M::Lidt => system::lidt,
        M::Sgdt => system::sgdt,
        M::Sidt => system::sidt,
        M::Invlpg => system::invlpg,
        M::Invpcid => {
            o.op.dst = o.register(0);
            system::invpcid
        }
        _ => return None,
    };
    o.op.size = match o.instr.code() {
        Code::Lgdt_m1632_16 | Code::Lidt_m1632_16 | Code::Sgdt_m1632_16 | Code::Sidt_m1632_16 => 2,
        _ if o.mode.is_64() => 8,
        _ => 4,
    };
    Some(handler)
}

/// An r/m operand that is read.
fn read_rm(o: &mut Operands<'_>, i: u32) {
    if o.is_register(i) {
        o.op.src = o.register(i);
        o.op.extra = 1;
    }
}

/// An r/m operand that is written: a register at its own size.
fn written_rm(o: &mut Operands<'_>) {
    o.op.size = 2;
    if o.is_register(0) {
        o.op.dst = o.register(0);
        o.op.size = o.size_of(0);
        o.op.extra = 1;
    }
}

/// With a selector or the machine status word as an r/m operand.
fn selectors(o: &mut Operands<'_>) -> Option<Handler> {
    Some(match o.instr.mnemonic() {
        M::Lldt => {
            read_rm(o, 0);
            system::lldt
        }
        M::Ltr => {
            read_rm(o, 0);
            system::ltr
        }
        M::Verr => {
            read_rm(o, 0);
            system::verr
        }
        M::Verw => {
            read_rm(o, 0);
            system::verw
        }
        M::Lmsw => {
            read_rm(o, 0);
            if o.is_register(0) { system::lmsw_reg } else { system::lmsw_mem }
        }
        M::Lar | M::Lsl => {
            o.op.dst = o.register(0);
            o.op.size = o.size_of(0);
            read_rm(o, 1);
            if o.instr.mnemonic() == M::Lar { system::lar } else { system::lsl }
        }
        M::Arpl => {
            written_rm(o);
            o.op.src = o.register(1);
            system::arpl
        }
        M::Sldt => {
            written_rm(o);
            system::sldt
        }
        M::Str => {
            written_rm(o);
            system::str_
        }
        M::Smsw => {
            written_rm(o);
            if o.is_register(0) { system::smsw_reg } else { system::smsw_mem }
        }
        _ => return None,
    })
}

/// MOV with control and debug registers; the bases of FS and GS; RDPID.
fn registers(o: &mut Operands<'_>) -> Option<Handler> {
    let (write, gs) = match o.instr.mnemonic() {
        M::Mov => return special_mov(o),
        M::Rdpid => {
            o.op.dst = o.register(0);
            return Some(system::rdpid);
        }
        M::Rdfsbase => (false, false),
        M::Rdgsbase => (false, true),
        M::Wrfsbase => (true, false),
        M::Wrgsbase => (true, true),
        _ => return None,
    };
    o.op.size = o.size_of(0);
    o.op.extra = u8::from(gs) | u8::from(write) << 1;
    match write {
        true => o.op.src = o.register(0),
        false => o.op.dst = o.register(0),
    }
    Some(system::rdfsbase)
}

fn special_mov(o: &mut Operands<'_>) -> Option<Handler> {
    let special = |i: u32| {
        let register = if o.is_register(i) { o.instr.op_register(i) } else { Register::None };
        (register.is_cr() || register.is_dr()).then_some(register)
    };
    if let Some(register) = special(1) {
        o.op.dst = o.register(0);
        o.op.extra = register.number() as u8;
        return Some(if register.is_cr() { system::mov_from_cr } else { system::mov_from_dr });
    }
    let register = special(0)?;
    o.op.src = o.register(1);
    o.op.extra = register.number() as u8;
    Some(if register.is_cr() { system::mov_to_cr } else { system::mov_to_dr })
}

/// IN, OUT, INS, OUTS.
fn ports(o: &mut Operands<'_>) -> Option<Handler> {
    let (handler, data): (Handler, u32) = match o.instr.mnemonic() {
        M::In => (system::in_, 0),
        M::Out => (system::out_, 1),
        M::Insb | M::Insw | M::Insd => {
            string_operands(o);
            return Some(system::ins);
        }
        M::Outsb | M::Outsw | M::Outsd => {
            string_operands(o);
            return Some(system::outs);
        }
        _ => return None,
    };
    o.op.size = o.size_of(data);
    o.op.extra = o.op.size;
    let port = 1 - data;
    if o.is_register(port) {
        o.op.src = o.register(port);
    } else {
        o.op.src = ZERO;
        o.op.imm = o.instr.immediate(port) & 0xFF;
    }
    Some(handler)
}

/// Far JMP and CALL.
fn far_transfers(o: &mut Operands<'_>) -> Option<Handler> {
    let handler: Handler = match (o.instr.mnemonic(), o.instr.op_kind(0)) {
        (M::Jmp, OpKind::FarBranch16 | OpKind::FarBranch32) => far::jmp_far_ptr,
        (M::Call, OpKind::FarBranch16 | OpKind::FarBranch32) => far::call_far_ptr,
        (M::Jmp, OpKind::Memory) => far::jmp_far_mem,
        (M::Call, OpKind::Memory) => far::call_far_mem,
        _ => return None,
    };
    o.op.size = match o.instr.code() {
        Code::Jmp_ptr1616 | Code::Call_ptr1616 | Code::Jmp_m1616 | Code::Call_m1616 => 2,
        Code::Jmp_m1664 | Code::Call_m1664 => 8,
        Code::Jmp_m1632 | Code::Call_m1632 => {
            o.op.imm = if o.rex_w { far::REX_W_IGNORED } else { 0 };
            4
        }
        _ => 4,
    };
    if o.instr.op_kind(0) != OpKind::Memory {
        o.op.disp = o.instr.far_branch_selector().into();
        o.op.imm = match o.instr.op_kind(0) {
            OpKind::FarBranch16 => o.instr.far_branch16().into(),
            _ => o.instr.far_branch32().into(),
        };
    }
    Some(handler)
}

/// Far RET, IRET, SYSRET, SYSEXIT.
fn returns(o: &mut Operands<'_>) -> Option<Handler> {
    let (handler, size): (Handler, u8) = match o.instr.code() {
        Code::Iretw => (far::iret, 2),
        Code::Iretd => (far::iret, 4),
        Code::Iretq => (far::iret, 8),
        Code::Retfw | Code::Retfw_imm16 => (far::ret_far, 2),
        Code::Retfd | Code::Retfd_imm16 => (far::ret_far, 4),
        Code::Retfq | Code::Retfq_imm16 => (far::ret_far, 8),
        Code::Sysretd => (syscall::sysret, 4),
        Code::Sysretq => (syscall::sysret, 8),
        Code::Sysexitd => (syscall::sysexit, 4),
        Code::Sysexitq => (syscall::sysexit, 8),
        _ => return None,
    };
    o.op.size = size;
    if o.instr.op_count() == 1 {
        o.op.imm = o.instr.immediate(0);
    }
    Some(handler)
}

/// MOV, PUSH and POP with segment registers; loads of far pointers.
fn segment_registers(o: &mut Operands<'_>) -> Option<Handler> {
    let is_segment = |i: u32| o.is_register(i) && o.instr.op_register(i).is_segment_register();
    let handler: Handler = match o.instr.mnemonic() {
        M::Mov if is_segment(0) => {
            o.op.extra = segment(o.instr.op_register(0));
            if o.is_register(1) {
                o.op.src = o.register(1);
                o.op.imm = 1;
            }
            far::mov_to_seg
        }
        M::Mov if is_segment(1) => {
            o.op.extra = segment(o.instr.op_register(1));
            if o.is_register(0) {
                o.op.dst = o.register(0);
                o.op.size = o.size_of(0);
                o.op.imm = 1;
            }
            far::mov_from_seg
        }
        M::Push | M::Pop if is_segment(0) => {
            o.op.extra = segment(o.instr.op_register(0));
            o.op.size = o.instr.stack_pointer_increment().unsigned_abs() as u8;
            if o.instr.mnemonic() == M::Push { far::push_seg } else { far::pop_seg }
        }
        M::Les => far_pointer(o, seg::ES),
        M::Lds => far_pointer(o, seg::DS),
        M::Lss => far_pointer(o, seg::SS),
        M::Lfs => far_pointer(o, seg::FS),
        M::Lgs => far_pointer(o, seg::GS),
        _ => return None,
    };
    Some(handler)
}

fn far_pointer(o: &mut Operands<'_>, number: u8) -> Handler {
    o.op.extra = number;
    o.op.dst = o.register(0);
    o.op.size = o.size_of(0);
    far::load_far_pointer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::decode_block;
    use crate::exec::misc;

    /// The handler of the first instruction, in 16-bit (0), 32-bit (1) or 64-bit (2) code.
    fn handler(width: u8, bytes: &[u8]) -> Handler {
        let mut ops = Vec::new();
        let features = crate::testing::everything().features();
        decode_block(bytes, CodeMode(width), &features, &mut ops);
        ops[0].run
    }

    /// Redundant prefixes do not matter to a hypercall; LOCK is #UD, and a repeat prefix makes another instruction of it.
    #[test]
    fn prefixes_of_hypercalls() {
        for (last, native) in [(0xC1, system::vmcall as Handler), (0xD9, system::vmmcall)] {
            for prefix in [&[][..], &[0x66], &[0x67], &[0x2E], &[0x65], &[0x66, 0x67], &[0x48], &[0x66, 0x4F]] {
                let code = [prefix, &[0x0F, 0x01, last]].concat();
                assert!(std::ptr::fn_addr_eq(handler(2, &code), native), "{code:x?}");
            }
            for prefix in [0xF0, 0xF2, 0xF3] {
                let code = [prefix, 0x0F, 0x01, last];
                assert!(std::ptr::fn_addr_eq(handler(2, &code), misc::ud as Handler), "{code:x?}");
            }
            for width in [0, 1] {
                assert!(std::ptr::fn_addr_eq(handler(width, &[0x0F, 0x01, last]), native));
            }
        }
    }
}
