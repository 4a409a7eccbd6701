//! The x87 registers, SDM vol. 1 section 8.1. MMX registers are the significands of R0–R7 (SDM vol. 1 section 9.2).

use softfloat::X80;

/// Exception flags in FSW, and masks in FCW: IE, DE, ZE, OE, UE, PE.
pub const EXCEPTIONS: u16 = 0x3F;
/// FSW.SF: the invalid operation was a stack overflow (C1 = 1) or underflow (C1 = 0).
pub const STACK_FAULT: u16 = 1 << 6;
/// FSW.ES: an unmasked exception waits for the next waiting instruction.
pub const SUMMARY: u16 = 1 << 7;
/// FSW.C0.
pub const C0: u16 = 1 << 8;
/// FSW.C1.
pub const C1: u16 = 1 << 9;
/// FSW.C2.
pub const C2: u16 = 1 << 10;
/// FSW.C3.
pub const C3: u16 = 1 << 14;
/// FSW.B, which mirrors ES.
pub const BUSY: u16 = 1 << 15;
const TOP_SHIFT: u32 = 11;
/// What of FSW is stored: the exception flags, SF and the condition codes. The rest follows.
const STATUS_STORED: u16 = EXCEPTIONS | STACK_FAULT | C0 | C1 | C2 | C3;
/// FCW: masks, precision, rounding and the 8087's infinity control, which has no effect.
const CONTROL_STORED: u16 = 0x1F3F;
/// FCW bit 6 is always one.
const CONTROL_FIXED: u16 = 0x40;
/// FCW after FNINIT: everything masked, 64-bit precision, round to nearest.
pub const CONTROL_INIT: u16 = 0x37F;
/// Sign and exponent that an MMX instruction gives to the register it writes.
const MMX_EXPONENT: u16 = 0xFFFF;
/// The eleven bits of FOP.
const OPCODE: u16 = 0x7FF;

/// Where the last instruction, or its operand, was: offset and selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pointer {
    /// FIP or FDP.
    pub offset: u64,
    /// FCS or FDS.
    pub selector: u16,
}

/// What a tag of the full tag word says of a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag {
    /// A normal number.
    Valid = 0,
    /// Zero.
    Zero = 1,
    /// Infinity, NaN, denormal, or nothing of all this.
    Special = 2,
    /// Nothing.
    Empty = 3,
}

/// x87 state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fpu {
    /// R0–R7.
    registers: [X80; 8],
    /// One bit for each of R0–R7: it holds something.
    valid: u8,
    /// Which of R0–R7 is ST(0).
    top: u8,
    control: u16,
    status: u16,
    /// FOP.
    opcode: u16,
    /// FIP and FCS.
    pub instruction: Pointer,
    /// FDP and FDS.
    pub data: Pointer,
    /// FERR# has been signalled for the exception that waits (CR0.NE = 0).
    pub signalled: bool,
}

impl Default for Fpu {
    /// As RESET leaves it: SDM vol. 3 table 9-1. Registers are zero and tagged so.
    fn default() -> Self {
        Self { control: CONTROL_FIXED, valid: 0xFF, ..Self::INITIAL }
    }
}

impl Fpu {
    /// The initial configuration of XSAVE's x87 component: as FNINIT leaves it, with empty registers zero.
    pub const INITIAL: Self = Self {
        registers: [X80::new(0, 0); 8],
        valid: 0,
        top: 0,
        control: CONTROL_INIT,
        status: 0,
        opcode: 0,
        instruction: Pointer { offset: 0, selector: 0 },
        data: Pointer { offset: 0, selector: 0 },
        signalled: false,
    };

    /// Whether nothing is in use, as XSAVE sees it.
    pub fn is_initial(&self) -> bool {
        Self { signalled: false, ..*self } == Self::INITIAL
    }

    /// FNINIT: everything but the registers' contents.
    pub fn initialise(&mut self) {
        *self = Self { registers: self.registers, ..Self::INITIAL };
    }

    // -- control and status

    /// FCW.
    #[inline]
    pub fn control(&self) -> u16 {
        self.control
    }
    /// Change FCW; an exception may come to wait, or stop waiting.
    pub fn set_control(&mut self, value: u16) {
        self.control = value & CONTROL_STORED | CONTROL_FIXED;
        self.settle();
    }
    /// FSW, TOP and all.
    pub fn status(&self) -> u16 {
        let summary = if self.pending() { SUMMARY | BUSY } else { 0 };
        self.status | u16::from(self.top) << TOP_SHIFT | summary
    }
    /// Change FSW. ES and B follow from flags and masks, whatever `value` says.
    pub fn set_status(&mut self, value: u16) {
        self.top = (value >> TOP_SHIFT & 7) as u8;
        self.status = value & STATUS_STORED;
        self.settle();
    }
    /// Whether an unmasked exception waits.
    #[inline]
    pub fn pending(&self) -> bool {
        self.status & !self.control & EXCEPTIONS != 0
    }
    /// FNCLEX.
    pub fn clear_exceptions(&mut self) {
        self.status &= !(EXCEPTIONS | STACK_FAULT);
        self.settle();
    }
    /// Raise flags of FSW: exceptions, SF.
    #[inline]
    pub fn raise(&mut self, flags: u16) {
        self.status |= flags & (EXCEPTIONS | STACK_FAULT);
    }
    /// The condition codes in `mask` become what `value` has.
    #[inline]
    pub fn set_conditions(&mut self, mask: u16, value: u16) {
        self.status = self.status & !mask | value & mask;
    }
    /// Set or clear C1.
    #[inline]
    pub fn set_c1(&mut self, value: bool) {
        self.set_conditions(C1, if value { C1 } else { 0 });
    }
    fn settle(&mut self) {
        self.signalled &= self.pending();
    }

    // -- the stack

    /// TOP, 0..=7.
    #[inline]
    pub fn top(&self) -> u8 {
        self.top
    }
    /// Change TOP (modulo 8).
    #[inline]
    pub fn set_top(&mut self, top: u8) {
        self.top = top & 7;
    }
    /// Which of R0–R7 is ST(`i`).
    #[inline]
    fn physical(&self, i: u8) -> usize {
        usize::from(self.top.wrapping_add(i) & 7)
    }
    /// The contents of ST(`i`), even if it is empty.
    #[inline]
    pub fn st(&self, i: u8) -> X80 {
        self.registers[self.physical(i)]
    }
    /// Change the contents of ST(`i`), but not its tag.
    #[inline]
    pub fn set_st(&mut self, i: u8, value: X80) {
        self.registers[self.physical(i)] = value;
    }
    /// Whether ST(`i`) is empty.
    #[inline]
    pub fn is_empty(&self, i: u8) -> bool {
        self.valid >> self.physical(i) & 1 == 0
    }
    /// Tag ST(`i`) as empty or not.
    #[inline]
    pub fn set_empty(&mut self, i: u8, empty: bool) {
        let bit = 1 << self.physical(i);
        self.valid = if empty { self.valid & !bit } else { self.valid | bit };
    }

    // -- tags

    /// The abridged tags of FXSAVE: a bit for each of R0–R7, set if it holds something.
    pub fn abridged_tags(&self) -> u8 {
        self.valid
    }
    /// Change the abridged tags.
    pub fn set_abridged_tags(&mut self, tags: u8) {
        self.valid = tags;
    }
    /// The full tag word, computed from the contents (SDM vol. 1 section 8.1.7).
    pub fn tag_word(&self) -> u16 {
        (0..8).fold(0, |word, i| word | (self.tag(i) as u16) << (2 * i))
    }
    /// Change the tags by a full tag word: only whether a register is empty matters, the rest follows from the contents.
    pub fn set_tag_word(&mut self, word: u16) {
        self.valid = (0..8).filter(|i| word >> (2 * i) & 3 != Tag::Empty as u16).fold(0, |tags, i| tags | 1 << i);
    }
    fn tag(&self, physical: usize) -> Tag {
        let X80 { significand, sign_exponent } = self.registers[physical];
        if self.valid >> physical & 1 == 0 {
            return Tag::Empty;
        }
        match (sign_exponent & 0x7FFF, significand) {
            (0, 0) => Tag::Zero,
            (0 | 0x7FFF, _) => Tag::Special,
            (_, significand) if significand >> 63 == 0 => Tag::Special,
            _ => Tag::Valid,
        }
    }

    // -- FOP

    /// FOP: the low three bits of the first opcode byte, and the second.
    pub fn opcode(&self) -> u16 {
        self.opcode
    }
    /// Change FOP.
    pub fn set_opcode(&mut self, opcode: u16) {
        self.opcode = opcode & OPCODE;
    }

    // -- MMX

    /// MM0–MM7 (`number` modulo 8).
    #[inline]
    pub fn mmx(&self, number: u8) -> u64 {
        self.registers[usize::from(number & 7)].significand
    }
    /// Change an MMX register. The instruction calls [`Fpu::enter_mmx`] as well.
    #[inline]
    pub fn set_mmx(&mut self, number: u8, value: u64) {
        self.registers[usize::from(number & 7)] = X80::new(MMX_EXPONENT, value);
    }
    /// What every MMX instruction but EMMS does (SDM vol. 1 section 9.5.1): TOP is 0 and all registers are tagged valid.
    #[inline]
    pub fn enter_mmx(&mut self) {
        self.top = 0;
        self.valid = 0xFF;
    }
    /// EMMS: all registers are empty; TOP is 0, as after every MMX instruction.
    #[inline]
    pub fn leave_mmx(&mut self) {
        self.top = 0;
        self.valid = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reset_and_initial_state() {
        let reset = Fpu::default();
        assert_eq!((reset.control(), reset.status(), reset.tag_word()), (0x40, 0, 0x5555));
        let mut fpu = reset;
        fpu.set_st(0, X80::new(0x3FFF, 1 << 63));
        fpu.initialise();
        assert_eq!((fpu.control(), fpu.status(), fpu.tag_word()), (0x37F, 0, 0xFFFF));
        assert_eq!(fpu.st(0), X80::new(0x3FFF, 1 << 63), "FNINIT keeps contents");
    }

    #[test]
    fn summary_follows_flags_and_masks() {
        let mut fpu = Fpu::INITIAL;
        fpu.set_status(0xFFFF);
        assert_eq!(fpu.status(), 0x7F7F, "everything is masked");
        assert_eq!(fpu.top(), 7);
        fpu.set_control(!4);
        assert_eq!(fpu.control(), 0x1F7B);
        assert_eq!(fpu.status(), 0xFFFF);
        fpu.signalled = true;
        fpu.clear_exceptions();
        assert_eq!(fpu.status(), 0x7F00);
        assert!(!fpu.signalled);
    }

    #[test]
    fn tags_follow_contents() {
        let mut fpu = Fpu::INITIAL;
        fpu.set_tag_word(0xFC00);
        assert_eq!(fpu.abridged_tags(), 0x1F);
        for (i, (sign_exponent, significand)) in
            [(0, 0), (0xBFFF, 1 << 63), (0x3FFF, 1), (0x7FFF, 1 << 63), (0, 1 << 63)].into_iter().enumerate()
        {
            fpu.set_st(i as u8, X80::new(sign_exponent, significand));
        }
        assert_eq!(fpu.tag_word(), 0xFC00 | 0b10_10_10_00_01);
    }

    #[test]
    fn mmx_registers_are_significands_whatever_top_is() {
        let mut fpu = Fpu::INITIAL;
        fpu.set_top(3);
        fpu.set_mmx(1, 42);
        assert_eq!(fpu.st(6), X80::new(0xFFFF, 42));
        fpu.enter_mmx();
        assert_eq!((fpu.top(), fpu.tag_word(), fpu.mmx(1)), (0, 0x5555 & !0xC | 8, 42));
        fpu.leave_mmx();
        assert_eq!(fpu.tag_word(), 0xFFFF);
    }
}
