//! Which handler carries out which instruction.

use iced_x86::{Code, Instruction, Mnemonic as M, OpKind};

use super::operands::{Operands, memory_segment};
use super::vector_operands::VectorOperands;
use super::{vector_float, vector_integer, vector_moves, x87};
use crate::cpu::CodeMode;
use crate::exec::form::Place;
use crate::exec::stack::Pushed;
use crate::exec::string::{self, repeat};
use crate::exec::{alu, atomic, bcd, bits, bmi, branch, flagops, fused, misc, mov, muldiv, shift, stack};
use crate::mmx;
use crate::op::{Handler, Op, Thread};
use crate::vector::encoding::Encoded;

/// What comes behind an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    /// The next instruction.
    Next,
    /// The block ends.
    End,
    /// The instruction is a block of its own.
    Alone,
    /// Likewise, and it neither touches the bus nor needs an answer from above.
    Private,
}

/// The op of a valid instruction; one that is not implemented raises #UD.
pub fn select(instr: &Instruction, bytes: &[u8], at: u16, mode: CodeMode) -> (Op, Behind) {
    let mut operands = Operands::new(instr, bytes, at, mode);
    let o = &mut operands;
    let (run, behind) = if let Some(run) = vector(o) {
        (run, Behind::Next)
    } else if let Some(run) = arithmetic(o).or_else(|| data(o)).or_else(|| other(o)) {
        (run, Behind::Next)
    } else if let Some(run) = x87::select(o, bytes) {
        (run, Behind::Next)
    } else if let Some(run) = transfer(o) {
        (run, Behind::End)
    } else {
        let behind = if super::system_table::is_private(instr) { Behind::Private } else { Behind::Alone };
        (alone(o).or_else(|| super::system_table::select(o)).unwrap_or(misc::ud), behind)
    };
    operands.op.run = run;
    (operands.op, behind)
}

/// The condition of Jcc, SETcc and CMOVcc as the low four bits of the opcode.
fn condition(instr: &Instruction) -> u8 {
    (instr.condition_code() as u8).wrapping_sub(1) & 15
}

/// The thread of a comparison in 64-bit code that is compiled together with the conditional branch behind it.
pub fn fuse(comparison: &Instruction, bytes: &[u8], branch: &Instruction, mode: CodeMode) -> Option<Thread> {
    if !mode.is_64() || branch.op_kind(0) != OpKind::NearBranch64 || !branch.is_jcc_short_or_near() {
        return None;
    }
    let mut o = Operands::new(comparison, bytes, 0, mode);
    let condition = condition(branch);
    match comparison.mnemonic() {
        M::Cmp => fused::compare_and_branch::<alu::Cmp>(o.two(), o.op.size, condition),
        M::Test => fused::compare_and_branch::<alu::Test>(o.two(), o.op.size, condition),
        _ => None,
    }
}

fn binary<O: alu::Binary>(o: &mut Operands<'_>) -> Handler {
    let form = o.two();
    o.threaded(alu::binary::<O>(form, o.op.size))
}

fn unary<O: alu::Unary>(o: &mut Operands<'_>) -> Handler {
    let place = o.target();
    o.threaded(alu::unary::<O>(place, o.op.size))
}

fn accumulate<O: muldiv::Accumulate>(o: &mut Operands<'_>) -> Handler {
    let place = o.target();
    o.threaded(muldiv::accumulate::<O>(place, o.op.size))
}

fn shift_of<S: shift::Shift>(o: &mut Operands<'_>) -> Handler {
    let place = o.target();
    let by_cl = count(o, 1);
    o.threaded(shift::shift::<S>(place, o.op.size, by_cl))
}

fn double_shift<S: shift::DoubleShift>(o: &mut Operands<'_>) -> Handler {
    let place = o.target();
    o.op.src = o.register(1);
    let by_cl = count(o, 2);
    o.threaded(shift::double_shift::<S>(place, o.op.size, by_cl))
}

/// A shift's count in operand `i`: an immediate, or CL (true).
fn count(o: &mut Operands<'_>, i: u32) -> bool {
    let by_cl = o.is_register(i);
    if !by_cl {
        o.op.imm = o.instr.immediate(i);
    }
    by_cl
}

fn imul(o: &mut Operands<'_>) -> Handler {
    match o.instr.op_count() {
        1 => accumulate::<muldiv::Imul>(o),
        operands => {
            let source = o.load();
            if operands == 3 {
                o.op.imm = o.instr.immediate(2);
            }
            o.threaded(muldiv::imul_two(source, o.op.size, operands == 3))
        }
    }
}

fn bit<O: bits::BitOp>(o: &mut Operands<'_>) -> Handler {
    let form = o.two();
    o.threaded(bits::bit::<O>(form, o.op.size))
}

fn scan<S: bits::Scan>(o: &mut Operands<'_>) -> Handler {
    let source = o.load();
    o.threaded(bits::scan::<S>(source, o.op.size))
}

/// Three operands, the VEX.vvvv one in the middle: ANDN, PDEP, PEXT.
fn vex_middle<O: bmi::Bmi>(o: &mut Operands<'_>) -> Option<Handler> {
    o.target();
    o.op.extra = o.register(1);
    let source = o.source(2);
    vex(o, bmi::bmi::<O>(source, o.op.size))
}

/// Three operands, the VEX.vvvv one last: BEXTR, BZHI, SARX, SHLX, SHRX.
fn vex_last<O: bmi::Bmi>(o: &mut Operands<'_>) -> Option<Handler> {
    let source = o.load();
    o.op.extra = o.register(2);
    vex(o, bmi::bmi::<O>(source, o.op.size))
}

/// Two operands: BLSI, BLSMSK, BLSR.
fn vex_two<O: bmi::Bmi>(o: &mut Operands<'_>) -> Option<Handler> {
    let source = o.load();
    vex(o, bmi::bmi::<O>(source, o.op.size))
}

fn adx<O: bmi::Bmi>(o: &mut Operands<'_>) -> Handler {
    let source = o.load();
    o.op.extra = o.op.dst;
    bmi::bmi::<O>(source, o.op.size)
}

/// VEX prefixes are #UD in real and virtual-8086 mode (SDM vol. 2 section 2.3.12).
fn vex(o: &Operands<'_>, handler: Handler) -> Option<Handler> {
    Some(if o.mode.is_real() { misc::ud } else { handler })
}

/// Instructions with a vector or MMX register, or with VEX.
fn vector(o: &mut Operands<'_>) -> Option<Handler> {
    if o.instr.mnemonic() == M::Emms {
        return Some(mmx::emms);
    }
    let v = &mut VectorOperands::new(o)?;
    let handler = vector_moves::select(v).or_else(|| vector_integer::select(v)).or_else(|| vector_float::select(v))?;
    if v.encoded == Encoded::Legacy { Some(handler) } else { vex(o, handler) }
}

/// Arithmetic, logic, shifts and bits.
fn arithmetic(o: &mut Operands<'_>) -> Option<Handler> {
    Some(match o.instr.mnemonic() {
        M::Add => binary::<alu::Add>(o),
        M::Or => binary::<alu::Or>(o),
        M::Adc => binary::<alu::Adc>(o),
        M::Sbb => binary::<alu::Sbb>(o),
        M::And => binary::<alu::And>(o),
        M::Sub => binary::<alu::Sub>(o),
        M::Xor => binary::<alu::Xor>(o),
        M::Cmp => binary::<alu::Cmp>(o),
        M::Test => binary::<alu::Test>(o),
        M::Inc => unary::<alu::Inc>(o),
        M::Dec => unary::<alu::Dec>(o),
        M::Neg => unary::<alu::Neg>(o),
        M::Not => unary::<alu::Not>(o),
        M::Mul => accumulate::<muldiv::Mul>(o),
        M::Div => accumulate::<muldiv::Div>(o),
        M::Idiv => accumulate::<muldiv::Idiv>(o),
        M::Imul => imul(o),
        M::Rol => shift_of::<shift::Rol>(o),
        M::Ror => shift_of::<shift::Ror>(o),
        M::Rcl => shift_of::<shift::Rcl>(o),
        M::Rcr => shift_of::<shift::Rcr>(o),
        M::Shl | M::Sal => shift_of::<shift::Shl>(o),
        M::Shr => shift_of::<shift::Shr>(o),
        M::Sar => shift_of::<shift::Sar>(o),
        M::Shld => double_shift::<shift::Shld>(o),
        M::Shrd => double_shift::<shift::Shrd>(o),
        M::Bt => bit::<bits::Bt>(o),
        M::Bts => bit::<bits::Bts>(o),
        M::Btr => bit::<bits::Btr>(o),
        M::Btc => bit::<bits::Btc>(o),
        M::Bsf => scan::<bits::Bsf>(o),
        M::Bsr => scan::<bits::Bsr>(o),
        M::Tzcnt => scan::<bits::Tzcnt>(o),
        M::Lzcnt => scan::<bits::Lzcnt>(o),
        M::Popcnt => scan::<bits::Popcnt>(o),
        M::Andn => return vex_middle::<bmi::Andn>(o),
        M::Pdep => return vex_middle::<bmi::Pdep>(o),
        M::Pext => return vex_middle::<bmi::Pext>(o),
        M::Bextr if o.is_register(2) => return vex_last::<bmi::Bextr>(o),
        M::Bzhi => return vex_last::<bmi::Bzhi>(o),
        M::Sarx => return vex_last::<bmi::Sarx>(o),
        M::Shlx => return vex_last::<bmi::Shlx>(o),
        M::Shrx => return vex_last::<bmi::Shrx>(o),
        M::Blsi => return vex_two::<bmi::Blsi>(o),
        M::Blsmsk => return vex_two::<bmi::Blsmsk>(o),
        M::Blsr => return vex_two::<bmi::Blsr>(o),
        M::Rorx => {
            let source = o.load();
            o.op.imm = o.instr.immediate(2);
            return vex(o, bmi::rorx(source, o.op.size));
        }
        M::Mulx => {
            o.target();
            o.op.extra = o.register(1);
            let source = o.source(2);
            return vex(o, muldiv::mulx_of(source, o.op.size));
        }
        M::Adcx => adx::<bmi::Adcx>(o),
        M::Adox => adx::<bmi::Adox>(o),
        M::Crc32 => {
            let source = o.load();
            o.op.size = o.size_of(1);
            bmi::crc32(source, o.op.size)
        }
        M::Xadd => {
            let place = o.target();
            o.op.src = o.register(1);
            atomic::xadd(place, o.op.size)
        }
        M::Cmpxchg => {
            let place = o.target();
            o.op.src = o.register(1);
            atomic::cmpxchg(place, o.op.size)
        }
        M::Cmpxchg8b => atomic::cmpxchg8b,
        M::Cmpxchg16b => atomic::cmpxchg16b,
        M::Aaa => bcd::aaa,
        M::Aas => bcd::aas,
        M::Daa => bcd::daa,
        M::Das => bcd::das,
        M::Aam | M::Aad => {
            o.op.imm = o.instr.immediate(0);
            if o.instr.mnemonic() == M::Aam { bcd::aam } else { bcd::aad }
        }
        _ => return None,
    })
}

fn extend<const SIGNED: bool>(o: &mut Operands<'_>) -> Handler {
    let source = o.load();
    o.threaded(mov::extend::<SIGNED>(source, o.size_of(1), o.op.size))
}

/// MOV, unless it concerns a register that is not a general one.
fn mov_general(o: &mut Operands<'_>) -> Option<Handler> {
    let special = (0..2).any(|i| o.is_register(i) && !o.instr.op_register(i).is_gpr());
    (!special).then(|| {
        let form = o.two();
        o.threaded(mov::mov(form, o.op.size))
    })
}

fn push(o: &mut Operands<'_>) -> Option<Handler> {
    let what = match o.instr.op_kind(0) {
        OpKind::Register if o.instr.op_register(0).is_gpr() => Pushed::Register,
        OpKind::Register => return None,
        OpKind::Memory => Pushed::Memory,
        _ => {
            o.op.imm = o.instr.immediate(0);
            Pushed::Immediate
        }
    };
    o.op.size = o.instr.stack_pointer_increment().unsigned_abs() as u8;
    if what == Pushed::Register {
        o.op.src = o.register(0);
    }
    let handler = stack::push_of(what, o.op.size, o.stack());
    Some(o.threaded(handler))
}

fn pop(o: &mut Operands<'_>) -> Option<Handler> {
    if o.is_register(0) && !o.instr.op_register(0).is_gpr() {
        return None;
    }
    let place = o.target();
    o.op.size = o.instr.stack_pointer_increment().unsigned_abs() as u8;
    let handler = stack::pop_to(place, o.op.size, o.stack());
    Some(o.threaded(handler))
}

fn xchg(o: &mut Operands<'_>) -> Handler {
    // One of the two may be in memory, on either side.
    let (memory, register) = if o.instr.op_kind(1) == OpKind::Memory { (1, 0) } else { (0, 1) };
    o.op.size = o.size_of(register);
    o.op.src = o.register(register);
    let place = if o.is_register(memory) {
        o.op.dst = o.register(memory);
        Place::Register
    } else {
        Place::Memory(o.kind())
    };
    mov::xchg(place, o.op.size)
}

/// Moves, conversions, the stack.
fn data(o: &mut Operands<'_>) -> Option<Handler> {
    Some(match o.instr.mnemonic() {
        // MOVNTI too is a store of a general register: there is no cache to go around.
        M::Mov | M::Movnti => return mov_general(o),
        M::Movzx => extend::<false>(o),
        M::Movsx | M::Movsxd => extend::<true>(o),
        M::Lea => {
            o.op.size = o.size_of(0);
            o.op.dst = o.register(0);
            o.threaded(mov::lea(o.op.size, o.op.address))
        }
        M::Xchg => xchg(o),
        M::Bswap => {
            o.target();
            mov::bswap(o.op.size)
        }
        M::Movbe => {
            let loads = o.is_register(0);
            o.op.size = o.size_of(u32::from(!loads));
            match loads {
                true => o.op.dst = o.register(0),
                false => o.op.src = o.register(1),
            }
            mov::movbe(loads, o.op.size)
        }
        M::Xlatb => mov::xlat,
        M::Cbw => o.threaded(mov::cbw(2)),
        M::Cwde => o.threaded(mov::cbw(4)),
        M::Cdqe => o.threaded(mov::cbw(8)),
        M::Cwd => o.threaded(mov::cwd(2)),
        M::Cdq => o.threaded(mov::cwd(4)),
        M::Cqo => o.threaded(mov::cwd(8)),
        M::Push => return push(o),
        M::Pop => return pop(o),
        M::Pusha => stack::pusha(2),
        M::Pushad => stack::pusha(4),
        M::Popa => stack::popa(2),
        M::Popad => stack::popa(4),
        M::Pushf => stack::pushf(2),
        M::Pushfd => stack::pushf(4),
        M::Pushfq => stack::pushf(8),
        M::Enter => {
            o.op.imm = o.instr.immediate(0);
            o.op.extra = o.instr.immediate(1) as u8;
            stack::enter(match o.instr.code() {
                Code::Enterw_imm16_imm8 => 2,
                Code::Enterd_imm16_imm8 => 4,
                _ => 8,
            })
        }
        M::Leave => {
            let size = match o.instr.code() {
                Code::Leavew => 2,
                Code::Leaved => 4,
                _ => 8,
            };
            stack::leave(size, o.stack())
        }
        _ => return conditional(o),
    })
}

/// SETcc and CMOVcc.
fn conditional(o: &mut Operands<'_>) -> Option<Handler> {
    let condition = condition(o.instr);
    match o.instr.mnemonic() {
        M::Seto
        | M::Setno
        | M::Setb
        | M::Setae
        | M::Sete
        | M::Setne
        | M::Setbe
        | M::Seta
        | M::Sets
        | M::Setns
        | M::Setp
        | M::Setnp
        | M::Setl
        | M::Setge
        | M::Setle
        | M::Setg => {
            o.op.extra = condition;
            let place = o.target();
            Some(o.threaded(mov::set(place, condition)))
        }
        M::Cmovo
        | M::Cmovno
        | M::Cmovb
        | M::Cmovae
        | M::Cmove
        | M::Cmovne
        | M::Cmovbe
        | M::Cmova
        | M::Cmovs
        | M::Cmovns
        | M::Cmovp
        | M::Cmovnp
        | M::Cmovl
        | M::Cmovge
        | M::Cmovle
        | M::Cmovg => {
            o.op.extra = condition;
            let source = o.load();
            Some(o.threaded(mov::cmov(source, o.op.size, condition)))
        }
        _ => None,
    }
}

/// String instructions, single flags and hints.
fn other(o: &mut Operands<'_>) -> Option<Handler> {
    if o.instr.is_string_instruction() {
        return string_op(o);
    }
    Some(match o.instr.mnemonic() {
        M::Lahf => flagops::lahf,
        M::Sahf => flagops::sahf,
        M::Clc => flagops::clc,
        M::Stc => flagops::stc,
        M::Cmc => flagops::cmc,
        M::Cld => flagops::cld,
        M::Std => flagops::std,
        M::Salc => flagops::salc,
        M::Nop
        | M::Reservednop
        | M::Lfence
        | M::Mfence
        | M::Sfence
        | M::Prefetch
        | M::Prefetchw
        | M::Prefetchwt1
        | M::Prefetchnta
        | M::Prefetcht0
        | M::Prefetcht1
        | M::Prefetcht2
        | M::Endbr32
        | M::Endbr64
        | M::Rdsspd
        | M::Rdsspq
        | M::Cldemote => misc::nop,
        M::Clflush | M::Clflushopt | M::Clwb => misc::clflush,
        M::Bound => {
            o.target();
            branch::bound
        }
        _ => return None,
    })
}

/// Fill in a string instruction's repeat prefix, source segment and size.
pub fn string_operands(o: &mut Operands<'_>) {
    o.op.size = o.instr.memory_size().size() as u8;
    o.op.seg = memory_segment(o.instr, o.mode);
    o.op.extra = match (o.instr.has_repne_prefix(), o.instr.has_rep_prefix()) {
        (true, _) => repeat::REPNE,
        (false, true) => repeat::REPE,
        (false, false) => repeat::NONE,
    };
}

fn string_op(o: &mut Operands<'_>) -> Option<Handler> {
    let kind = match o.instr.mnemonic() {
        M::Movsb | M::Movsw | M::Movsd | M::Movsq => string::Kind::Movs,
        M::Stosb | M::Stosw | M::Stosd | M::Stosq => string::Kind::Stos,
        M::Lodsb | M::Lodsw | M::Lodsd | M::Lodsq => string::Kind::Lods,
        M::Scasb | M::Scasw | M::Scasd | M::Scasq => string::Kind::Scas,
        M::Cmpsb | M::Cmpsw | M::Cmpsd | M::Cmpsq => string::Kind::Cmps,
        _ => return None,
    };
    string_operands(o);
    Some(string::handler(kind, o.op.size))
}

/// The operand of an indirect near JMP or CALL.
fn indirect(o: &mut Operands<'_>) -> Place {
    o.op.size = o.size_of(0);
    o.source(0)
}

fn loop_while(o: &mut Operands<'_>, what: branch::Loop) -> Handler {
    o.branch();
    branch::loop_while(what)
}

/// Near transfers.
fn transfer(o: &mut Operands<'_>) -> Option<Handler> {
    let instr = o.instr;
    if instr.is_jcc_short_or_near() {
        o.branch();
        return Some(o.threaded(branch::jcc(o.near(), condition(instr))));
    }
    if instr.is_jmp_short_or_near() {
        o.branch();
        return Some(o.threaded(branch::jmp(o.near())));
    }
    if instr.is_call_near() {
        o.branch();
        return Some(o.threaded(branch::call(o.op.size, o.call())));
    }
    if instr.is_jmp_near_indirect() {
        let place = indirect(o);
        return Some(o.threaded(branch::jmp_indirect(place, o.op.size)));
    }
    if instr.is_call_near_indirect() {
        let place = indirect(o);
        return Some(o.threaded(branch::call_indirect(place, o.op.size, o.call())));
    }
    Some(match instr.mnemonic() {
        M::Loop => loop_while(o, branch::Loop::Always),
        M::Loope => loop_while(o, branch::Loop::WhileZero),
        M::Loopne => loop_while(o, branch::Loop::WhileNotZero),
        M::Jcxz | M::Jecxz | M::Jrcxz => loop_while(o, branch::Loop::CounterZero),
        M::Ret => {
            o.op.size = match instr.code() {
                Code::Retnw | Code::Retnw_imm16 => 2,
                Code::Retnd | Code::Retnd_imm16 => 4,
                _ => 8,
            };
            if instr.op_count() == 1 {
                o.op.imm = instr.immediate(0);
            }
            o.threaded(branch::ret(o.op.size, o.call()))
        }
        _ => return None,
    })
}

/// What must be alone but is no system instruction.
fn alone(o: &mut Operands<'_>) -> Option<Handler> {
    Some(match o.instr.mnemonic() {
        M::Popf => stack::popf(2),
        M::Popfd => stack::popf(4),
        M::Popfq => stack::popf(8),
        M::Rdrand | M::Rdseed => {
            o.target();
            misc::rdrand
        }
        _ => return None,
    })
}
