//! Operations for operands and results of one format, on the host's own arithmetic where that gives the same.
//!
//! It does where rounding is to nearest, as the host has it in Rust, and operands and result are ordinary: zeros, or numbers so
//! far from the limits of the format that neither overflow nor underflow comes near. Then only PE can be raised; whether it must
//! be follows from the result at little cost, and need not even be asked if [`Context::host_will_do`] says that nobody waits for
//! it.

use std::cmp::Ordering;

use crate::arith::Negate;
use crate::compare::Compare;
use crate::context::{Context, Rounding, flag};
use crate::format::{F32, F64, Format};

/// A format that the host may know. What gives `None` is done without it.
pub trait Fast: Format {
    /// a + b.
    fn host_add(self, other: Self) -> Option<Self>;
    /// a · b.
    fn host_mul(self, other: Self) -> Option<Self>;
    /// a / b.
    fn host_div(self, other: Self) -> Option<Self>;
    /// √a.
    fn host_sqrt(self) -> Option<Self>;
    /// a · b + c, and whether that is exact.
    fn host_fused_multiply_add(self, factor: Self, addend: Self) -> Option<(Self, bool)>;
    /// Comparison of two numbers that raises nothing.
    fn host_compare(self, other: Self) -> Option<Ordering>;
    /// Whether [`Fast::host_add`] gave a sum without rounding.
    fn sum_is_exact(self, other: Self) -> bool;
    /// Whether [`Fast::host_mul`] gave a product without rounding.
    fn product_is_exact(self, other: Self) -> bool;
    /// Whether [`Fast::host_div`] gave a quotient without rounding.
    fn quotient_is_exact(self, divisor: Self, quotient: Self) -> bool;
    /// With the other sign if `negate`.
    fn signed(self, negate: bool) -> Self;
    /// Zero, or normal: neither DE nor IE.
    fn is_ordinary(self) -> bool;
}

/// a + b, and by how much that is too small: exactly, if nothing overflows (Knuth's TwoSum).
macro_rules! two_sum {
    ($name:ident, $host:ident) => {
        #[inline(always)]
        fn $name(a: $host, b: $host) -> ($host, $host) {
            let sum = a + b;
            let rest = sum - a;
            (sum, (a - (sum - rest)) + (b - rest))
        }
    };
}

two_sum!(two_sum32, f32);
two_sum!(two_sum64, f64);

/// a · b, and by how much that is too small: exactly, if nothing overflows or underflows (Dekker's product with Veltkamp's
/// splitting).
#[inline(always)]
fn two_product(a: f64, b: f64) -> (f64, f64) {
    const SPLITTER: f64 = ((1u64 << 27) + 1) as f64;
    let split = |value: f64| {
        let scaled = SPLITTER * value;
        let high = scaled - (scaled - value);
        (high, value - high)
    };
    let product = a * b;
    let ((ah, al), (bh, bl)) = (split(a), split(b));
    (product, ((ah * bh - product) + ah * bl + al * bh) + al * bl)
}

/// A sum that was `rest` too small, rounded to odd instead: the last bit tells that there is more, and a second rounding to fewer
/// bits cannot go wrong.
#[inline(always)]
fn to_odd(sum: f64, rest: f64) -> f64 {
    let bits = sum.to_bits();
    if rest == 0.0 || bits & 1 != 0 {
        sum
    } else if (rest > 0.0) == (sum > 0.0) {
        f64::from_bits(bits + 1)
    } else {
        f64::from_bits(bits.wrapping_sub(1))
    }
}

impl F32 {
    /// The product is exact in double precision; so is the sum, but for what rounding to odd keeps.
    #[inline(always)]
    fn fused(self, factor: Self, addend: Self) -> Option<(Self, bool)> {
        let (sum, rest) = two_sum64(f64::from(self.host()) * f64::from(factor.host()), f64::from(addend.host()));
        let single = to_odd(sum, rest) as f32;
        let result = Self(single.to_bits());
        let fine = result.is_far_from_limits() || sum == 0.0;
        fine.then_some((result, rest == 0.0 && f64::from(single) == sum))
    }
}

impl F64 {
    /// Boldo and Melquiond, "Emulation of FMA and Correctly Rounded Sums: Proved Algorithms Using Rounding to Odd", IEEE
    /// Transactions on Computers 57(4), 2008.
    #[inline(always)]
    fn fused(self, factor: Self, addend: Self) -> Option<(Self, bool)> {
        // So that nothing on the way overflows or underflows; the factors are not zero.
        let moderate = |value: Self| value.exponent().abs_diff(Self::BIAS as u32) < 400;
        if !(moderate(self) && moderate(factor) && addend.exponent() < 2000) {
            return None;
        }
        let (product, product_rest) = two_product(self.host(), factor.host());
        let (low, low_rest) = two_sum64(addend.host(), product_rest);
        let (high, high_rest) = two_sum64(product, low);
        let (rest, rest_rest) = two_sum64(low_rest, high_rest);
        let (result, lost) = two_sum64(high, to_odd(rest, rest_rest));
        let bits = Self(result.to_bits());
        (bits.is_far_from_limits() || result == 0.0).then_some((bits, lost == 0.0 && rest_rest == 0.0))
    }
}

macro_rules! fast {
    ($format:ident($bits:ident), $host:ident, $two_sum:ident) => {
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
            /// A result that is this was not tiny before it was rounded, nor too large.
            #[inline(always)]
            fn is_far_from_limits(self) -> bool {
                self.exponent().wrapping_sub(2) < Self::EXPONENT_SPECIAL - 2
            }
            /// The significand of a normal number without the zeros behind it, and its width in bits.
            #[inline(always)]
            fn odd_significand(self) -> (u64, u32) {
                let significand = self.0 as u64 & ((1 << (Self::PRECISION - 1)) - 1) | 1 << (Self::PRECISION - 1);
                let zeros = significand.trailing_zeros();
                (significand >> zeros, Self::PRECISION - zeros)
            }
        }

        impl Fast for $format {
            #[inline(always)]
            fn host_add(self, other: Self) -> Option<Self> {
                let result = Self((self.host() + other.host()).to_bits());
                // Sums do not underflow to zero.
                let fine = result.is_far_from_limits() || result.is_zero();
                (fine && self.is_ordinary() && other.is_ordinary()).then_some(result)
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
            #[inline(always)]
            fn host_fused_multiply_add(self, factor: Self, addend: Self) -> Option<(Self, bool)> {
                let ordinary = self.is_ordinary() && factor.is_ordinary() && addend.is_ordinary();
                if ordinary { self.fused(factor, addend) } else { None }
            }
            #[inline(always)]
            fn sum_is_exact(self, other: Self) -> bool {
                $two_sum(self.host(), other.host()).1 == 0.0
            }
            #[inline(always)]
            fn product_is_exact(self, other: Self) -> bool {
                if self.is_zero() || other.is_zero() {
                    return true;
                }
                let ((a, a_width), (b, b_width)) = (self.odd_significand(), other.odd_significand());
                // The product of odd numbers is odd, and as wide as both together, or one bit less.
                match (a_width + b_width).cmp(&(Self::PRECISION + 1)) {
                    Ordering::Less => true,
                    Ordering::Equal => a * b < 1 << Self::PRECISION,
                    Ordering::Greater => false,
                }
            }
            #[inline(always)]
            fn quotient_is_exact(self, divisor: Self, quotient: Self) -> bool {
                quotient.product_is_exact(divisor) && quotient.host() * divisor.host() == self.host()
            }
            #[inline(always)]
            fn signed(self, negate: bool) -> Self {
                Self(self.0 ^ (negate as $bits) << (<$bits>::BITS - 1))
            }
            #[inline(always)]
            fn is_ordinary(self) -> bool {
                self.is_normal() || self.is_zero()
            }
        }
    };
}

fast!(F32(u32), f32, two_sum32);
fast!(F64(u64), f64, two_sum64);

impl Context {
    /// A result of the host's, which is exact or not.
    #[inline(always)]
    fn of_host<F>(&mut self, result: F, is_exact: impl FnOnce() -> bool) -> F {
        if !self.host_will_do && !is_exact() {
            self.raise(flag::PE);
        }
        result
    }
}

macro_rules! two_operands {
    ($($(#[$doc:meta])* $name:ident |$a:ident, $b:ident| $host:expr, |$result:ident| $exact:expr;)*) => {$(
        $(#[$doc])*
        #[inline(always)]
        pub fn $name<F: Fast>(cx: &mut Context, $a: F, $b: F) -> F {
            #[cold]
            #[inline(never)]
            fn slow<F: Format>(cx: &mut Context, a: F, b: F) -> F {
                crate::$name(cx, a.unpack(), b.unpack())
            }
            if cx.rounding == Rounding::Nearest && let Some($result) = $host {
                return cx.of_host($result, || $exact);
            }
            slow(cx, $a, $b)
        }
    )*};
}

two_operands! {
    /// a + b.
    add |a, b| a.host_add(b), |_sum| a.sum_is_exact(b);
    /// a − b.
    sub |a, b| a.host_add(b.signed(true)), |_sum| a.sum_is_exact(b.signed(true));
    /// a · b.
    mul |a, b| a.host_mul(b), |_product| a.product_is_exact(b);
    /// a / b.
    div |a, b| a.host_div(b), |quotient| a.quotient_is_exact(b, quotient);
}

/// √a.
#[inline(always)]
pub fn sqrt<F: Fast>(cx: &mut Context, a: F) -> F {
    if cx.rounding == Rounding::Nearest
        && let Some(root) = a.host_sqrt()
    {
        return cx.of_host(root, || a.quotient_is_exact(root, root));
    }
    crate::sqrt(cx, a.unpack())
}

/// ±a · b ± c: see [`crate::fused_multiply_add`].
#[inline(always)]
pub fn fused_multiply_add<F: Fast>(cx: &mut Context, a: F, b: F, c: F, negate: Negate) -> F {
    #[cold]
    #[inline(never)]
    fn slow<F: Format>(cx: &mut Context, a: F, b: F, c: F, negate: Negate) -> F {
        crate::fused_multiply_add(cx, a.unpack(), b.unpack(), c.unpack(), negate)
    }
    if cx.rounding == Rounding::Nearest
        && let Some((result, exact)) = a.signed(negate.product).host_fused_multiply_add(b, c.signed(negate.addend))
    {
        return cx.of_host(result, || exact);
    }
    slow(cx, a, b, c, negate)
}

/// How `a` stands to `b`; `None`: unordered.
#[inline(always)]
pub fn compare<F: Fast>(cx: &mut Context, a: F, b: F, kind: Compare) -> Option<Ordering> {
    match a.host_compare(b) {
        None => crate::compare(cx, a.unpack(), b.unpack(), kind),
        order => order,
    }
}
