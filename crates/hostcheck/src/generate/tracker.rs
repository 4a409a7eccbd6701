//! What is known of the state while a sequence is made.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic as M, OpAccess, OpKind, Register, RflagsBits, UsedMemory,
};
use x86defs::rflags;

use crate::case::{Item, Mode, State};
use crate::layout::{GS_BASE, GUARD, READABLE, SCRATCH};

/// Known values, and what is undefined.
#[derive(Clone, Debug)]
pub struct Tracker {
    mode: Mode,
    regs: [Option<u64>; 16],
    /// [`RflagsBits`] that the manual leaves undefined by now.
    undefined: u32,
    /// A result is known to within an ulp only: nothing may come behind it.
    approximate: bool,
}

impl Tracker {
    /// Everything is known.
    pub fn new(mode: Mode, state: &State) -> Self {
        Self { mode, regs: state.regs.map(Some), undefined: 0, approximate: false }
    }

    /// The value of a general register, if it is known.
    pub fn value(&self, number: usize) -> Option<u64> {
        self.regs[number]
    }

    /// A register has that value now.
    pub fn set(&mut self, number: usize, value: u64) {
        self.regs[number] = Some(value);
    }

    /// A register may have any value now.
    pub fn forget(&mut self, number: usize) {
        self.regs[number] = None;
    }

    /// Whether code may read these flags ([`RflagsBits`]).
    pub fn are_defined(&self, flags: u32) -> bool {
        self.undefined & flags == 0
    }

    /// All flags have known rules from here on.
    pub fn define_flags(&mut self, flags: u32) {
        self.undefined &= !flags;
    }

    /// An item that begins with what is known now.
    pub fn item(&self, start: usize, end: usize) -> Item {
        const FLAGS: [(u32, u64); 6] = [
            (RflagsBits::CF, rflags::CF),
            (RflagsBits::PF, rflags::PF),
            (RflagsBits::AF, rflags::AF),
            (RflagsBits::ZF, rflags::ZF),
            (RflagsBits::SF, rflags::SF),
            (RflagsBits::OF, rflags::OF),
        ];
        const CONDITIONS: [(u32, u16); 4] =
            [(RflagsBits::C0, 1 << 8), (RflagsBits::C1, 1 << 9), (RflagsBits::C2, 1 << 10), (RflagsBits::C3, 1 << 14)];
        let undefined_flags = FLAGS.iter().filter(|flag| self.undefined & flag.0 != 0).map(|flag| flag.1).sum();
        let undefined_conditions =
            CONDITIONS.iter().filter(|flag| self.undefined & flag.0 != 0).map(|flag| flag.1).sum();
        Item {
            start,
            end,
            undefined_flags,
            undefined_conditions,
            approximate: self.approximate,
            large_operand: false,
            unordered: false,
        }
    }

    /// Whether `bytes` of memory at an address are ours, reserved, or not addressable at all.
    pub fn is_harmless(address: u64, bytes: u64) -> bool {
        let slack = GUARD - 0x1_0000;
        let ours = SCRATCH - slack..SCRATCH + READABLE as u64 + slack;
        let non_canonical = 0x8000_0000_0000..0xFFFF_7FFF_FFFF_0000;
        [ours, non_canonical]
            .iter()
            .any(|range| range.contains(&address) && range.contains(&address.saturating_add(bytes)))
    }

    /// Whether nothing may come behind what there is.
    pub fn is_over(&self) -> bool {
        self.approximate
    }

    /// Take note of what an instruction does; false if it must not be there.
    pub fn execute(&mut self, instr: &Instruction) -> bool {
        if instr.flow_control() != FlowControl::Next || !self.are_defined(instr.rflags_read()) {
            return false;
        }
        if has_undefined_result(instr) {
            return false;
        }
        let mut factory = InstructionInfoFactory::new();
        let info = factory.info(instr);
        if !info.used_memory().iter().all(|memory| self.is_known(memory)) || !self.bit_offset_fits(instr) {
            return false;
        }
        let stack = self.regs[4];
        let increment = instr.stack_pointer_increment();
        for used in info.used_registers() {
            let register = used.register();
            let written = !matches!(used.access(), OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess);
            if register.is_gpr() && written {
                self.regs[register.full_register().number()] = None;
            }
        }
        if instr.is_stack_instruction() {
            if matches!(instr.mnemonic(), M::Enter | M::Leave) || instr.op0_register().full_register() == Register::RSP
            {
                self.regs[4] = None;
            } else {
                let Some(stack) = stack else { return false };
                self.regs[4] = Some(self.wrap(stack.wrapping_add(i64::from(increment) as u64)));
            }
        }
        if !keeps_flags_at_times(instr) {
            self.undefined &= !instr.rflags_modified();
        }
        self.undefined |= instr.rflags_undefined() | rotated_overflow(instr);
        self.approximate = is_approximate(instr.mnemonic());
        true
    }

    fn wrap(&self, value: u64) -> u64 {
        if self.mode == Mode::Compat32 { value & 0xFFFF_FFFF } else { value }
    }

    fn is_known(&self, memory: &UsedMemory) -> bool {
        if memory.access() == OpAccess::NoMemAccess {
            return true;
        }
        let gather = memory.index().is_xmm() || memory.index().is_ymm();
        let address = memory.virtual_address(0, |register, _, _| match register {
            Register::FS => None,
            Register::GS => (self.mode == Mode::Long64).then_some(GS_BASE),
            _ if register.is_segment_register() => Some(0),
            _ if gather && register == memory.index() => Some(0),
            _ => {
                let value = self.regs[register.full_register().number()]?;
                Some(value & u64::MAX >> (64 - 8 * register.size()))
            }
        });
        let bytes = memory.memory_size().size().max(64) as u64;
        address.is_some_and(|address| Self::is_harmless(address, bytes))
    }

    /// BT and its kin on memory with the offset in a register reach far.
    fn bit_offset_fits(&self, instr: &Instruction) -> bool {
        let far = matches!(instr.mnemonic(), M::Bt | M::Bts | M::Btr | M::Btc)
            && instr.op0_kind() == OpKind::Memory
            && instr.op1_kind() == OpKind::Register;
        if !far {
            return true;
        }
        let register = instr.op1_register();
        let Some(value) = self.regs[register.full_register().number()] else { return false };
        let shift = 64 - 8 * register.size() as u32;
        let offset = (value << shift) as i64 >> shift;
        offset.unsigned_abs() < 8 * (GUARD / 2)
    }
}

/// Whether the flags may stay as they are: the count in CL may be zero, and so may that in RCX.
fn keeps_flags_at_times(instr: &Instruction) -> bool {
    let by_cl = (0..instr.op_count())
        .any(|i| instr.op_kind(i) == OpKind::Register && instr.op_register(i) == Register::CL)
        && matches!(
            instr.mnemonic(),
            M::Rol | M::Ror | M::Rcl | M::Rcr | M::Shl | M::Sal | M::Shr | M::Sar | M::Shld | M::Shrd
        );
    by_cl || instr.has_rep_prefix() || instr.has_repne_prefix()
}

/// Whether the manual leaves the destination undefined.
fn has_undefined_result(instr: &Instruction) -> bool {
    match instr.mnemonic() {
        // A count above the operand size (SDM vol. 2, SHLD).
        M::Shld | M::Shrd => instr.op1_register().size() == 2,
        // Discouraged (SDM vol. 2, MOVSXD), and AMD loads 32 bits of memory, as alignment checks show.
        M::Movsxd => instr.op0_register().size() == 2 && instr.op1_kind() == OpKind::Memory,
        // SDM vol. 2, BSWAP: of 16-bit registers it is undefined.
        M::Bswap => instr.op0_register().size() == 2,
        _ => false,
    }
}

/// OF where a rotation through CF is by an immediate of more than one: undefined (SDM vol. 2, RCL), also where the count comes
/// down to zero or one modulo 9 or 17, which is what `iced-x86` goes by.
fn rotated_overflow(instr: &Instruction) -> u32 {
    let rotates = matches!(instr.mnemonic(), M::Rcl | M::Rcr) && instr.op1_kind() == OpKind::Immediate8;
    if rotates && instr.immediate8() & 0x1F > 1 { RflagsBits::OF } else { RflagsBits::NONE }
}

/// x87's transcendental functions, of which the manual promises an error below one ulp (SDM vol. 1 section 8.3.10).
fn is_approximate(mnemonic: M) -> bool {
    matches!(mnemonic, M::Fsin | M::Fcos | M::Fsincos | M::Fptan | M::Fpatan | M::F2xm1 | M::Fyl2x | M::Fyl2xp1)
}
