//! The arithmetic flags, kept as what they are computed from.
//!
//! Most flags are overwritten before anybody looks. So an operation stores its result and its vector of carries, two words,
//! and each flag is derived when it is asked for, without a branch on the kind of operation:
//!
//! * ZF, SF, PF come from `result`, the result sign-extended to 64 bits;
//! * CF is the carry out of the top bit, OF is that XOR the carry into the top bit, AF is the carry out of bit 3: `aux`
//!   holds the three at fixed positions whatever the operand size.
//!
//! POPF and the like can ask for combinations that no result has (ZF with SF), so `aux` has a bit that inverts SF and one
//! that inverts PF.

use x86defs::rflags;

use crate::op::Width;

/// Carry out of the top bit.
const CARRY: u64 = 1 << 63;
/// Carry into the top bit.
const PARTIAL: u64 = 1 << 62;
/// Carry out of bit 3.
const AUXILIARY: u64 = 1 << 3;
/// SF is the opposite of the result's sign.
const SIGN_INVERTED: u64 = 1 << 7;
/// PF is the opposite of the result's parity.
const PARITY_INVERTED: u64 = 1 << 2;

/// CF, PF, AF, ZF, SF and OF.
#[derive(Clone, Copy, Debug, Default)]
pub struct Flags {
    result: u64,
    aux: u64,
}

impl Flags {
    /// Store the flags of `r = a + b (+ carry in)`.
    #[inline(always)]
    pub fn add<T: Width>(&mut self, a: T, b: T, r: T) {
        let (a, b, r64) = (a.to_u64(), b.to_u64(), r.to_u64());
        self.store::<T>(r, (a & b) | ((a | b) & !r64));
    }

    /// Store the flags of `r = a - b (- borrow in)`.
    #[inline(always)]
    pub fn sub<T: Width>(&mut self, a: T, b: T, r: T) {
        let (a, b, r64) = (a.to_u64(), b.to_u64(), r.to_u64());
        self.store::<T>(r, (!a & b) | ((!a | b) & r64));
    }

    /// Store the flags of a bitwise operation: CF, OF and AF are cleared (AF is undefined by the manual).
    #[inline(always)]
    pub fn logic<T: Width>(&mut self, r: T) {
        self.result = r.sign_extend();
        self.aux = 0;
    }

    #[inline(always)]
    fn store<T: Width>(&mut self, r: T, carries: u64) {
        self.result = r.sign_extend();
        self.aux = ((carries << (64 - T::BITS)) & (CARRY | PARTIAL)) | (carries & AUXILIARY);
    }

    /// Store the flags of `r = a + 1`, all but CF, which stays.
    #[inline(always)]
    pub fn increment<T: Width>(&mut self, a: T, r: T) {
        // It overflows where a sign bit comes up that was not there.
        self.step(a, r, !a & r);
    }

    /// Store the flags of `r = a - 1`, all but CF, which stays.
    #[inline(always)]
    pub fn decrement<T: Width>(&mut self, a: T, r: T) {
        self.step(a, r, a & !r);
    }

    /// `overflow`: its top bit is OF.
    #[inline(always)]
    fn step<T: Width>(&mut self, a: T, r: T, overflow: T) {
        let carry = self.aux & CARRY;
        let of = overflow.sign_extend() & CARRY;
        let auxiliary = ((a ^ r).to_u64() >> 1) & AUXILIARY;
        self.result = r.sign_extend();
        self.aux = carry | (carry ^ of) >> 1 | auxiliary;
    }

    /// ZF, SF and PF from `r`; CF, OF and AF as given.
    #[inline]
    pub fn set_all<T: Width>(&mut self, r: T, cf: bool, of: bool, af: bool) {
        self.result = r.sign_extend();
        self.aux = if cf { CARRY } else { 0 } | if cf != of { PARTIAL } else { 0 } | if af { AUXILIARY } else { 0 };
    }

    /// Carry.
    #[inline(always)]
    pub fn cf(&self) -> bool {
        self.aux & CARRY != 0
    }
    /// Overflow.
    #[inline(always)]
    pub fn of(&self) -> bool {
        (self.aux ^ (self.aux << 1)) & CARRY != 0
    }
    /// Auxiliary carry.
    #[inline(always)]
    pub fn af(&self) -> bool {
        self.aux & AUXILIARY != 0
    }
    /// Zero.
    #[inline(always)]
    pub fn zf(&self) -> bool {
        self.result == 0
    }
    /// Sign.
    #[inline(always)]
    pub fn sf(&self) -> bool {
        ((self.result >> 63) ^ (self.aux >> 7)) & 1 != 0
    }
    /// Parity: set if the low byte of the result has an even number of ones.
    #[inline(always)]
    pub fn pf(&self) -> bool {
        (u32::from(self.result as u8).count_ones() ^ ((self.aux >> 2) as u32)) & 1 == 0
    }

    /// Change CF alone.
    #[inline]
    pub fn set_cf(&mut self, cf: bool) {
        // OF is CF XOR PARTIAL, so flipping CF flips PARTIAL too.
        if cf != self.cf() {
            self.aux ^= CARRY | PARTIAL;
        }
    }
    /// Change OF alone.
    #[inline]
    pub fn set_of(&mut self, of: bool) {
        if of != self.of() {
            self.aux ^= PARTIAL;
        }
    }
    /// Change ZF alone.
    pub fn set_zf(&mut self, zf: bool) {
        let bits = self.bits();
        self.set_bits(if zf { bits | rflags::ZF } else { bits & !rflags::ZF });
    }

    /// The six flags at their places in RFLAGS.
    pub fn bits(&self) -> u64 {
        u64::from(self.cf())
            | u64::from(self.pf()) << 2
            | u64::from(self.af()) << 4
            | u64::from(self.zf()) << 6
            | u64::from(self.sf()) << 7
            | u64::from(self.of()) << 11
    }

    /// Take the six flags from their places in RFLAGS; other bits are ignored.
    pub fn set_bits(&mut self, bits: u64) {
        let set = |mask: u64| bits & mask != 0;
        // 0 has even parity and 1 odd; neither is negative.
        self.result = u64::from(!set(rflags::ZF));
        self.aux = if set(rflags::CF) { CARRY } else { 0 }
            | if set(rflags::CF) != set(rflags::OF) { PARTIAL } else { 0 }
            | if set(rflags::AF) { AUXILIARY } else { 0 }
            | if set(rflags::SF) { SIGN_INVERTED } else { 0 }
            | if set(rflags::PF) != set(rflags::ZF) { PARITY_INVERTED } else { 0 };
    }

    /// Whether condition `cc` (the low four bits of Jcc, SETcc, CMOVcc) holds.
    #[inline(always)]
    pub fn condition(&self, cc: u8) -> bool {
        let holds = match (cc >> 1) & 7 {
            0 => self.of(),
            1 => self.cf(),
            2 => self.zf(),
            3 => self.cf() || self.zf(),
            4 => self.sf(),
            5 => self.pf(),
            6 => self.sf() != self.of(),
            _ => self.zf() || self.sf() != self.of(),
        };
        holds != (cc & 1 != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every pair of bytes, against the definitions in SDM vol. 1 appendix A.
    #[test]
    fn byte_addition_and_subtraction_match_the_definitions() {
        let mut flags = Flags::default();
        for a in 0..=255u8 {
            for b in 0..=255u8 {
                let (sum, carry) = a.overflowing_add(b);
                flags.add(a, b, sum);
                check(&flags, sum, carry, (a as i8).checked_add(b as i8).is_none(), (a & 15) + (b & 15) > 15);
                let (difference, borrow) = a.overflowing_sub(b);
                flags.sub(a, b, difference);
                check(&flags, difference, borrow, (a as i8).checked_sub(b as i8).is_none(), (a & 15) < (b & 15));
            }
        }
    }

    #[test]
    fn steps_keep_the_carry() {
        let mut flags = Flags::default();
        for a in 0..=255u8 {
            for cf in [false, true] {
                flags.set_bits(u64::from(cf));
                flags.increment(a, a.wrapping_add(1));
                check(&flags, a.wrapping_add(1), cf, a == 0x7F, a & 15 == 15);
                flags.set_bits(u64::from(cf));
                flags.decrement(a, a.wrapping_sub(1));
                check(&flags, a.wrapping_sub(1), cf, a == 0x80, a & 15 == 0);
            }
        }
    }

    fn check(flags: &Flags, r: u8, cf: bool, of: bool, af: bool) {
        assert_eq!(
            (flags.cf(), flags.of(), flags.af(), flags.zf(), flags.sf(), flags.pf()),
            (cf, of, af, r == 0, r >= 0x80, r.count_ones().is_multiple_of(2))
        );
    }

    #[test]
    fn every_combination_survives_a_round_trip() {
        let mut flags = Flags::default();
        for combination in 0..64u64 {
            let bits = (combination & 1)
                | (combination & 2) << 1
                | (combination & 4) << 2
                | (combination & 8) << 3
                | (combination & 16) << 3
                | (combination & 32) << 6;
            flags.set_bits(bits);
            assert_eq!(flags.bits(), bits);
            for cf in [false, true] {
                flags.set_cf(cf);
                assert_eq!(flags.bits(), bits & !1 | u64::from(cf));
            }
        }
    }

    #[test]
    fn wide_additions_carry_at_their_own_width() {
        let mut flags = Flags::default();
        flags.add(u64::MAX, 1, 0);
        assert!(flags.cf() && flags.zf() && flags.af() && !flags.of());
        flags.add(0x7fff_ffffu32, 1, 0x8000_0000);
        assert!(!flags.cf() && flags.of() && flags.sf());
        flags.sub(0u16, 1, 0xffff);
        assert!(flags.cf() && flags.sf() && !flags.of());
    }
}
