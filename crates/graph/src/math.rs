//! Every float32 scalar function, written once over an abstract straight-line arithmetic.
//!
//! [`Arith`] lists the lane operations; the interpreter instantiates them with [`Plain`] numbers, the
//! code generators with vector values or text. The same operations in the same order, with fused
//! multiply-add, give the same bits on every engine.
//!
//! Always true: no tables, no scans over data, and no branch but [`Arith::rarely`]. NaN in gives NaN out (except where IEEE 754
//! says otherwise for [`pow`]), the sign of zero is kept by odd functions, subnormal numbers are exact
//! inputs and correctly scaled results. An engine that flushes subnormals to zero, or replaces `fma` by
//! multiply and add, keeps all of this but loses accuracy (subnormal results; the extended products of
//! [`pow`] and the trigonometric reductions).
//!
//! The maximum errors, in units in the last place of the exact result, are measured against float64
//! references by the tests of this module, on 70 million numbers or more (`HYPATIA_EXHAUSTIVE=61`; 1 takes
//! all 2^32), those of two arguments on 7 million pairs. Coefficients come from
//! `tests/reference/minimax_coefficients.py`.

mod division;
pub mod double;
mod error_function;
mod exponential;
mod hyperbolic;
mod integer;
mod logarithm;
mod plain;
mod power;
mod trigonometric;

#[cfg(test)]
mod tests;

pub use division::*;
pub use double::{Doubles, Library};
pub use error_function::*;
pub use exponential::*;
pub use hyperbolic::*;
pub use integer::Integers;
pub use logarithm::*;
pub use plain::{Checked, Plain, PlainDouble, PlainInteger};
pub use power::*;
pub use trigonometric::*;

/// Truth values in lanes. `false` comes before `true`.
///
/// A value of this and the following traits is a handle: the number itself, a value of a code generator, the name of a
/// variable. The methods with a body define functions by the others; an engine with a shorter way to the same value has
/// its own.
pub trait Masks {
    /// A truth value in each lane.
    type M: Copy;

    /// Both.
    fn and(&mut self, x: Self::M, y: Self::M) -> Self::M;
    /// Either or both.
    fn or(&mut self, x: Self::M, y: Self::M) -> Self::M;
    /// One but not both.
    fn xor(&mut self, x: Self::M, y: Self::M) -> Self::M;
    /// The opposite.
    fn not(&mut self, x: Self::M) -> Self::M;

    /// `x == y`.
    fn truth_eq(&mut self, x: Self::M, y: Self::M) -> Self::M {
        let differ = self.xor(x, y);
        self.not(differ)
    }
    /// `x < y`.
    fn truth_lt(&mut self, x: Self::M, y: Self::M) -> Self::M {
        let not_x = self.not(x);
        self.and(not_x, y)
    }
    /// `x <= y`.
    fn truth_le(&mut self, x: Self::M, y: Self::M) -> Self::M {
        let not_x = self.not(x);
        self.or(not_x, y)
    }
    /// `x > y`.
    fn truth_gt(&mut self, x: Self::M, y: Self::M) -> Self::M {
        self.truth_lt(y, x)
    }
    /// `x >= y`.
    fn truth_ge(&mut self, x: Self::M, y: Self::M) -> Self::M {
        self.truth_le(y, x)
    }
}

/// Arithmetic on lanes of floats of either precision. All operations round to nearest even.
pub trait Floats: Masks {
    /// A lane (or vector of lanes) of floats.
    type F: Copy;

    /// The constant `value` in every lane.
    fn f(&mut self, value: f32) -> Self::F;
    /// `x + y`.
    fn add(&mut self, x: Self::F, y: Self::F) -> Self::F;
    /// `x - y`.
    fn sub(&mut self, x: Self::F, y: Self::F) -> Self::F;
    /// `x * y`.
    fn mul(&mut self, x: Self::F, y: Self::F) -> Self::F;
    /// `x / y`.
    fn div(&mut self, x: Self::F, y: Self::F) -> Self::F;
    /// The square root, correctly rounded; NaN below zero, -0 of -0.
    fn sqrt(&mut self, x: Self::F) -> Self::F;
    /// `x` with its sign bit flipped.
    fn neg(&mut self, x: Self::F) -> Self::F;
    /// `x` with its sign bit cleared.
    fn abs(&mut self, x: Self::F) -> Self::F;
    /// The largest integer not above `x`.
    fn floor(&mut self, x: Self::F) -> Self::F;
    /// The smallest integer not below `x`.
    fn ceil(&mut self, x: Self::F) -> Self::F;
    /// The integer part of `x`.
    fn trunc(&mut self, x: Self::F) -> Self::F;
    /// The nearest integer, halves to even.
    fn nearest(&mut self, x: Self::F) -> Self::F;
    /// `x < y`; false if either is NaN.
    fn lt(&mut self, x: Self::F, y: Self::F) -> Self::M;
    /// `x <= y`; false if either is NaN.
    fn le(&mut self, x: Self::F, y: Self::F) -> Self::M;
    /// `x == y`; false if either is NaN, true for zeros of either sign.
    fn eq(&mut self, x: Self::F, y: Self::F) -> Self::M;
    /// `x` where `mask`, elsewhere `y`; bits unchanged.
    fn select(&mut self, mask: Self::M, x: Self::F, y: Self::F) -> Self::F;
    /// The bits that both have.
    fn common_bits(&mut self, x: Self::F, y: Self::F) -> Self::F;
    /// The bits that either has.
    fn joined_bits(&mut self, x: Self::F, y: Self::F) -> Self::F;

    /// `x != y`; true if either is NaN.
    fn ne(&mut self, x: Self::F, y: Self::F) -> Self::M {
        let equal = self.eq(x, y);
        self.not(equal)
    }
    /// `x > y`; false if either is NaN.
    fn gt(&mut self, x: Self::F, y: Self::F) -> Self::M {
        self.lt(y, x)
    }
    /// `x >= y`; false if either is NaN.
    fn ge(&mut self, x: Self::F, y: Self::F) -> Self::M {
        self.le(y, x)
    }
    /// Whether NaN.
    fn is_nan(&mut self, x: Self::F) -> Self::M {
        self.ne(x, x)
    }
    /// Whether infinite.
    fn is_infinite(&mut self, x: Self::F) -> Self::M {
        let size = self.abs(x);
        let infinity = self.f(f32::INFINITY);
        self.eq(size, infinity)
    }
    /// The larger; a NaN operand gives NaN, 0 is larger than -0.
    fn maximum(&mut self, x: Self::F, y: Self::F) -> Self::F {
        let is_second = self.lt(x, y);
        let beyond = self.select(is_second, y, x);
        // Equal numbers have equal bits, but for zeros.
        let common = self.common_bits(x, y);
        let are_equal = self.eq(x, y);
        let found = self.select(are_equal, common, beyond);
        let is_number = self.eq(y, y);
        self.select(is_number, found, y)
    }
    /// The smaller; a NaN operand gives NaN, -0 is smaller than 0.
    fn minimum(&mut self, x: Self::F, y: Self::F) -> Self::F {
        let is_second = self.lt(y, x);
        let beyond = self.select(is_second, y, x);
        let joined = self.joined_bits(x, y);
        let are_equal = self.eq(x, y);
        let found = self.select(are_equal, joined, beyond);
        let is_number = self.eq(y, y);
        self.select(is_number, found, y)
    }
    /// -1, 0 or 1, 0 of -0; NaN stays NaN.
    fn sign(&mut self, x: Self::F) -> Self::F {
        let (zero, one, minus) = (self.f(0.0), self.f(1.0), self.f(-1.0));
        let positive = self.lt(zero, x);
        let negative = self.lt(x, zero);
        let zero_or_nan = self.add(x, zero);
        let otherwise = self.select(negative, minus, zero_or_nan);
        self.select(positive, one, otherwise)
    }
    /// `x * x`.
    fn sqr(&mut self, x: Self::F) -> Self::F {
        self.mul(x, x)
    }
    /// `1 / x`.
    fn reciprocal(&mut self, x: Self::F) -> Self::F {
        let one = self.f(1.0);
        self.div(one, x)
    }
    /// A non-negative (or NaN) `magnitude` with the sign of `x`.
    fn with_sign_of(&mut self, magnitude: Self::F, x: Self::F) -> Self::F {
        let sign = self.f(-0.0);
        let sign = self.common_bits(x, sign);
        self.joined_bits(magnitude, sign)
    }
}

/// Straight-line arithmetic on lanes of float32 and int32 numbers, of which the float32 functions are made.
///
/// Each operation is one or two instructions of SSE4.1, AVX-512 or OpenCL. Integer operations wrap.
pub trait Arith: Floats {
    /// A lane (or vector of lanes) of int32 numbers.
    type I: Copy;

    /// The constant `value` in every lane.
    fn i(&mut self, value: i32) -> Self::I;
    /// `x * y + z`, rounded once.
    fn fma(&mut self, x: Self::F, y: Self::F, z: Self::F) -> Self::F;
    /// `x < y`, signed.
    fn i_lt(&mut self, x: Self::I, y: Self::I) -> Self::M;
    /// `x == y`.
    fn i_eq(&mut self, x: Self::I, y: Self::I) -> Self::M;
    /// `x` where `mask`, elsewhere `y`.
    fn select_i(&mut self, mask: Self::M, x: Self::I, y: Self::I) -> Self::I;
    /// The bits of a float32 number.
    fn bits(&mut self, x: Self::F) -> Self::I;
    /// The float32 number that has these bits.
    #[expect(clippy::wrong_self_convention, reason = "the receiver is the arithmetic, not the number")]
    fn from_bits(&mut self, x: Self::I) -> Self::F;
    /// `rare(operands)` in the lanes where `mask` holds, elsewhere `usual`. Long formulas that few lanes need go through
    /// here: engines pass over them where no lane does.
    fn rarely(&mut self, mask: Self::M, operands: [Self::F; 2], usual: Self::F, rare: Rare<Self>) -> Self::F;
    /// Whether [`Arith::fma`] rounds once.
    fn is_fused(&self) -> bool;
    /// `x + y`, wrapping.
    fn i_add(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// `x - y`, wrapping.
    fn i_sub(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// The low 32 bits of `x * y`.
    fn i_mul(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// Bitwise and.
    fn i_and(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// Bitwise or.
    fn i_or(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// Bitwise exclusive or.
    fn i_xor(&mut self, x: Self::I, y: Self::I) -> Self::I;
    /// `x` shifted left by `count` in 0..32.
    fn shl(&mut self, x: Self::I, count: u32) -> Self::I;
    /// `x` shifted right by `count` in 0..32, zeros moving in.
    fn shr(&mut self, x: Self::I, count: u32) -> Self::I;
    /// `x` shifted right by `count` in 0..32, copies of the sign moving in.
    fn sar(&mut self, x: Self::I, count: u32) -> Self::I;
    /// The nearest float32 number.
    fn to_float(&mut self, x: Self::I) -> Self::F;
    /// The integer part of `x`. Outside the int32 range, and for NaN, engines differ: callers stay inside.
    fn to_int(&mut self, x: Self::F) -> Self::I;
}

/// A formula of two numbers that [`Arith::rarely`] takes.
pub type Rare<A> = fn(&mut A, [<A as Floats>::F; 2]) -> <A as Floats>::F;

/// The sign bit of a float32 number.
const SIGN: i32 = i32::MIN;
/// The bits of 1.0.
const ONE: i32 = 0x3f80_0000;
/// Adding it rounds a number below 2^22 to an integer, which then stands in the low bits of the sum.
const ROUND: f32 = 12_582_912.0;

/// `coefficients[0] x^n + ... + coefficients[n]` by Horner's rule.
fn polynomial<A: Arith>(a: &mut A, x: A::F, coefficients: &[f32]) -> A::F {
    let mut terms = coefficients.iter();
    let mut sum = a.f(terms.next().copied().unwrap_or(0.0));
    for &coefficient in terms {
        let coefficient = a.f(coefficient);
        sum = a.fma(sum, x, coefficient);
    }
    sum
}

/// `x + x^3 P(x^2)`, the form of the odd functions, given `square = x^2`.
fn odd_polynomial<A: Arith>(a: &mut A, x: A::F, square: A::F, coefficients: &[f32]) -> A::F {
    let p = polynomial(a, square, coefficients);
    let cube = a.mul(square, x);
    a.fma(p, cube, x)
}

/// `max(x, low)`, keeping NaN.
fn at_least<A: Arith>(a: &mut A, x: A::F, low: f32) -> A::F {
    let low = a.f(low);
    let below = a.lt(x, low);
    a.select(below, low, x)
}

/// `min(x, high)`, keeping NaN.
fn at_most<A: Arith>(a: &mut A, x: A::F, high: f32) -> A::F {
    let high = a.f(high);
    let above = a.lt(high, x);
    a.select(above, high, x)
}
