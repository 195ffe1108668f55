//! The functions of integers, over an abstract arithmetic: the interpreter, Cranelift, the AVX-512 emitter and OpenCL
//! instantiate it for each integer type.

use super::Masks;

/// Arithmetic on lanes of one integer type, which wraps. The methods with a body define functions by the others.
pub trait Integers: Masks {
    /// A lane (or vector of lanes) of integers.
    type N: Copy;

    /// Whether the type has numbers below 0.
    fn is_signed(&self) -> bool;
    /// The constant `value`, a number of the type, in every lane.
    fn n(&mut self, value: i64) -> Self::N;
    /// `x + y`.
    fn add(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// `x - y`.
    fn sub(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// `x * y`.
    fn mul(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// `x / y` towards zero; `y` is not 0, nor -1 where `x` is the smallest number.
    fn truncated_quotient(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// What [`Integers::truncated_quotient`] leaves; the same operands.
    fn truncated_remainder(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// `x` to the power of a `y` that is not negative.
    fn natural_power(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// The larger.
    fn maximum(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// The smaller.
    fn minimum(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// Both, bit by bit.
    fn bit_and(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// Either, bit by bit.
    fn bit_or(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// One but not both, bit by bit.
    fn bit_xor(&mut self, x: Self::N, y: Self::N) -> Self::N;
    /// Each bit flipped.
    fn bit_not(&mut self, x: Self::N) -> Self::N;
    /// `x < y`.
    fn lt(&mut self, x: Self::N, y: Self::N) -> Self::M;
    /// `x <= y`.
    fn le(&mut self, x: Self::N, y: Self::N) -> Self::M;
    /// `x == y`.
    fn eq(&mut self, x: Self::N, y: Self::N) -> Self::M;
    /// `x` where `mask`, elsewhere `y`.
    fn select(&mut self, mask: Self::M, x: Self::N, y: Self::N) -> Self::N;

    /// `-x`.
    fn neg(&mut self, x: Self::N) -> Self::N {
        let zero = self.n(0);
        self.sub(zero, x)
    }
    /// `|x|`; the smallest number stays what it is.
    fn abs(&mut self, x: Self::N) -> Self::N {
        if !self.is_signed() {
            return x;
        }
        let zero = self.n(0);
        let (negative, opposite) = (self.lt(x, zero), self.sub(zero, x));
        self.select(negative, opposite, x)
    }
    /// -1, 0 or 1.
    fn sign(&mut self, x: Self::N) -> Self::N {
        let one = self.n(1);
        let low = self.minimum(x, one);
        if !self.is_signed() {
            return low;
        }
        let minus = self.n(-1);
        self.maximum(low, minus)
    }
    /// `x * x`.
    fn sqr(&mut self, x: Self::N) -> Self::N {
        self.mul(x, x)
    }
    /// `floor(x / y)`; 0 for `y = 0`.
    fn floor_quotient(&mut self, x: Self::N, y: Self::N) -> Self::N {
        let (zero, one) = (self.n(0), self.n(1));
        let by_zero = self.eq(y, zero);
        let (by_minus, divisor) = self.divisor(y, by_zero);
        let quotient = self.truncated_quotient(x, divisor);
        let remainder = self.truncated_remainder(x, divisor);
        let differ = self.has_other_sign(remainder, divisor);
        let below = self.sub(quotient, one);
        let quotient = self.select(differ, below, quotient);
        let quotient = match by_minus {
            Some(by_minus) => {
                let opposite = self.sub(zero, x);
                self.select(by_minus, opposite, quotient)
            }
            None => quotient,
        };
        self.select(by_zero, zero, quotient)
    }
    /// `x - floor(x / y) y`, which has the sign of `y`; 0 for `y = 0`.
    fn floor_remainder(&mut self, x: Self::N, y: Self::N) -> Self::N {
        let zero = self.n(0);
        let by_zero = self.eq(y, zero);
        // By 1, which stands for 0 and -1, nothing is left.
        let (_, divisor) = self.divisor(y, by_zero);
        let remainder = self.truncated_remainder(x, divisor);
        let differ = self.has_other_sign(remainder, divisor);
        let more = self.add(remainder, divisor);
        self.select(differ, more, remainder)
    }
    /// `x` to the power `y`; for a negative `y`, `1 / x^|y|` towards zero, and 0 for `x = 0`.
    fn power(&mut self, x: Self::N, y: Self::N) -> Self::N {
        if !self.is_signed() {
            return self.natural_power(x, y);
        }
        let (zero, one, minus) = (self.n(0), self.n(1), self.n(-1));
        let is_negative = self.lt(y, zero);
        let exponent = self.select(is_negative, zero, y);
        let power = self.natural_power(x, exponent);
        let (is_one, is_minus) = (self.eq(x, one), self.eq(x, minus));
        let odd = self.bit_and(y, one);
        let is_odd = self.eq(odd, one);
        let of_minus = self.select(is_odd, minus, one);
        let fraction = self.select(is_minus, of_minus, zero);
        let fraction = self.select(is_one, one, fraction);
        self.select(is_negative, fraction, power)
    }

    /// Where `y` is -1, which the smallest number cannot be divided by, and `y` with 1 instead of -1 and of 0.
    fn divisor(&mut self, y: Self::N, by_zero: Self::M) -> (Option<Self::M>, Self::N) {
        let one = self.n(1);
        if !self.is_signed() {
            return (None, self.select(by_zero, one, y));
        }
        let minus = self.n(-1);
        let by_minus = self.eq(y, minus);
        let either = self.or(by_zero, by_minus);
        (Some(by_minus), self.select(either, one, y))
    }
    /// Whether a remainder that is not 0 has another sign than its divisor.
    fn has_other_sign(&mut self, remainder: Self::N, divisor: Self::N) -> Self::M {
        let zero = self.n(0);
        let (r_negative, d_negative) = (self.lt(remainder, zero), self.lt(divisor, zero));
        let differ = self.xor(r_negative, d_negative);
        let none = self.eq(remainder, zero);
        let some = self.not(none);
        self.and(some, differ)
    }
    /// `x > y`.
    fn gt(&mut self, x: Self::N, y: Self::N) -> Self::M {
        self.lt(y, x)
    }
    /// `x >= y`.
    fn ge(&mut self, x: Self::N, y: Self::N) -> Self::M {
        self.le(y, x)
    }
    /// `x != y`.
    fn ne(&mut self, x: Self::N, y: Self::N) -> Self::M {
        let equal = self.eq(x, y);
        self.not(equal)
    }
}
