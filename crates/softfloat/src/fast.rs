//! Operations for operands and results of one format, on the host's own arithmetic where that gives the same.
//!
//! It does where operands and result are ordinary: zeros, or numbers so far from the limits of the format that neither
//! overflow nor underflow comes near. Then only PE can be raised; [`Context::host_will_do`] says that nobody waits for it. The
//! host rounds to nearest, as Rust has it everywhere.

use std::cmp::Ordering;

use crate::compare::Compare;
use crate::context::Context;
use crate::format::{F32, F64, Format};

/// A format that the host may know. What gives `None` is done without it.
pub trait Fast: Format {
    /// a + b.
    fn host_add(self, other: Self) -> Option<Self>;
    /// a − b.
    fn host_sub(self, other: Self) -> Option<Self>;
    /// a · b.
    fn host_mul(self, other: Self) -> Option<Self>;
    /// a / b.
    fn host_div(self, other: Self) -> Option<Self>;
    /// √a.
    fn host_sqrt(self) -> Option<Self>;
    /// Comparison of two numbers that raises nothing.
    fn host_compare(self, other: Self) -> Option<Ordering>;
}

macro_rules! fast {
    ($format:ident, $host:ident) => {
        impl $format {
            #[inline(always)]
            fn host(self) -> $host {
                $host::from_bits(self.0)
            }
            /// The stored exponent.
            #[inline(always)]
            fn exponent(self) -> u32 {
                (self.0 >> (Self::PRECISION - 1)) as u32 & Self::EXPONENT_SPECIAL
            }
            #[inline(always)]
            fn is_zero(self) -> bool {
                self.0 << 1 == 0
            }
            #[inline(always)]
            fn is_normal(self) -> bool {
                self.exponent().wrapping_sub(1) < Self::EXPONENT_SPECIAL - 1
            }
            /// Zero, or normal: neither DE nor IE.
            #[inline(always)]
            fn is_ordinary(self) -> bool {
                self.is_normal() || self.is_zero()
            }
            /// A result that is this was not tiny before it was rounded, nor too large.
            #[inline(always)]
            fn is_far_from_limits(self) -> bool {
                self.exponent().wrapping_sub(2) < Self::EXPONENT_SPECIAL - 2
            }
            #[inline(always)]
            fn sum(result: $host) -> Option<Self> {
                let result = Self(result.to_bits());
                // Sums do not underflow to zero.
                (result.is_far_from_limits() || result.is_zero()).then_some(result)
            }
        }

        impl Fast for $format {
            #[inline(always)]
            fn host_add(self, other: Self) -> Option<Self> {
                if self.is_ordinary() && other.is_ordinary() { Self::sum(self.host() + other.host()) } else { None }
            }
            #[inline(always)]
            fn host_sub(self, other: Self) -> Option<Self> {
                if self.is_ordinary() && other.is_ordinary() { Self::sum(self.host() - other.host()) } else { None }
            }
            #[inline(always)]
            fn host_mul(self, other: Self) -> Option<Self> {
                let result = Self((self.host() * other.host()).to_bits());
                let fine = result.is_far_from_limits() || self.is_zero() || other.is_zero();
                (fine && self.is_ordinary() && other.is_ordinary()).then_some(result)
            }
            #[inline(always)]
            fn host_div(self, other: Self) -> Option<Self> {
                let result = Self((self.host() / other.host()).to_bits());
                let fine = result.is_far_from_limits() || self.is_zero();
                (fine && self.is_ordinary() && other.is_normal()).then_some(result)
            }
            #[inline(always)]
            fn host_sqrt(self) -> Option<Self> {
                (self.is_normal() && self.host() > 0.0 || self.is_zero()).then(|| Self(self.host().sqrt().to_bits()))
            }
            #[inline(always)]
            fn host_compare(self, other: Self) -> Option<Ordering> {
                if self.is_ordinary() && other.is_ordinary() { self.host().partial_cmp(&other.host()) } else { None }
            }
        }
    };
}

fast!(F32, f32);
fast!(F64, f64);

macro_rules! two_operands {
    ($($(#[$doc:meta])* $name:ident, $host:ident;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<F: Fast>(cx: &mut Context, a: F, b: F) -> F {
            #[cold]
            #[inline(never)]
            fn slow<F: Format>(cx: &mut Context, a: F, b: F) -> F {
                crate::$name(cx, a.unpack(), b.unpack())
            }
            if cx.host_will_do && let Some(result) = a.$host(b) {
                return result;
            }
            slow(cx, a, b)
        }
    )*};
}

two_operands! {
    /// a + b.
    add, host_add;
    /// a − b.
    sub, host_sub;
    /// a · b.
    mul, host_mul;
    /// a / b.
    div, host_div;
}

/// √a.
#[inline(always)]
pub fn sqrt<F: Fast>(cx: &mut Context, a: F) -> F {
    if cx.host_will_do
        && let Some(result) = a.host_sqrt()
    {
        return result;
    }
    crate::sqrt(cx, a.unpack())
}

/// How `a` stands to `b`; `None`: unordered.
#[inline(always)]
pub fn compare<F: Fast>(cx: &mut Context, a: F, b: F, kind: Compare) -> Option<Ordering> {
    match a.host_compare(b) {
        None => crate::compare(cx, a.unpack(), b.unpack(), kind),
        order => order,
    }
}
