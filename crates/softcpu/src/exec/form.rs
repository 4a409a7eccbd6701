//! Operand forms, and how a form known at decoding becomes a handler compiled for it.

/// The kinds of [`super::addr::Address`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`super::addr::Flat64`].
    Flat64,
    /// [`super::addr::Based64`].
    Based64,
    /// [`super::addr::Flat32`].
    Flat32,
    /// [`super::addr::Segmented`].
    Segmented,
}

/// Where a single operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a register: `dst`, or `src` if it is only read.
    Register,
    /// In memory.
    Memory(Kind),
}

/// Two operands, destination first: registers are in `dst` and `src`, immediates in `imm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Register, register.
    RegReg,
    /// Register, immediate.
    RegImm,
    /// Register, memory.
    RegMem(Kind),
    /// Memory, register.
    MemReg(Kind),
    /// Memory, immediate.
    MemImm(Kind),
}

/// Compile an expression for an operand size in bytes, as type `$T`.
macro_rules! with_width {
    ($size:expr, $T:ident => $e:expr) => {
        match $size {
            1 => {
                type $T = u8;
                $e
            }
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
    };
}

/// Compile an expression for an address kind, as type `$A`.
macro_rules! with_address {
    ($kind:expr, $A:ident => $e:expr) => {
        match $kind {
            $crate::exec::form::Kind::Flat64 => {
                type $A = $crate::exec::addr::Flat64;
                $e
            }
            $crate::exec::form::Kind::Based64 => {
                type $A = $crate::exec::addr::Based64;
                $e
            }
            $crate::exec::form::Kind::Flat32 => {
                type $A = $crate::exec::addr::Flat32;
                $e
            }
            $crate::exec::form::Kind::Segmented => {
                type $A = $crate::exec::addr::Segmented;
                $e
            }
        }
    };
}

/// Compile an expression for a condition code, as constant `$CC`.
macro_rules! with_condition {
    ($cc:expr, $CC:ident => $e:expr) => {
        with_condition!(@ $cc, $CC, $e, 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14)
    };
    (@ $cc:expr, $CC:ident, $e:expr, $($n:literal)*) => {
        match $cc {
            $($n => {
                const $CC: u8 = $n;
                $e
            })*
            _ => {
                const $CC: u8 = 15;
                $e
            }
        }
    };
}

pub(crate) use {with_address, with_condition, with_width};
