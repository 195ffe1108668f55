//! Division that rounds down and its remainder, as Python and NumPy define them.
//!
//! The remainder is exact: that of the truncated division, as C's `fmod`, brought to the sign of the divisor, which is
//! the only rounding. The quotient is `(x - remainder) / y`, rounded to the integer that it is next to.

use super::{Arith, Doubles, Floats, double};

/// Below it every integer is a float32 number.
const INTEGERS: f32 = 16_777_216.0;
/// Bits of the quotient that one step of [`far_remainder`] finds.
const STEP: i32 = 23;
/// Steps for the largest number over the smallest: their exponents differ by 276.
const STEPS: usize = 12;

/// `|x| - n |y|` in `[0, |y|)` for the integer `n`, exact; NaN for infinite `x` and for `y = 0`.
fn magnitude_of_remainder<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let (x, y) = (a.abs(x), a.abs(y));
    let quotient = a.div(x, y);
    // The quotient is never rounded below an integer that it reaches, so the rest may be negative, but is below y, and
    // is a number without rounding.
    let whole = a.trunc(quotient);
    let minus = a.neg(whole);
    let rest = a.fma(minus, y, x);
    let zero = a.f(0.0);
    let is_negative = a.lt(rest, zero);
    let more = a.add(rest, y);
    let rest = a.select(is_negative, more, rest);
    let is_less = a.lt(x, y);
    let rest = a.select(is_less, x, rest);
    let limit = if a.is_fused() { INTEGERS } else { 1.0 };
    let limit = a.f(limit);
    let is_far = a.le(limit, quotient);
    a.rarely(is_far, [x, y], rest, far_remainder)
}

/// The mantissa as an integer from 2^23 to 2^24, and the exponent of its last bit plus 150, of a positive number.
fn integer_parts<A: Arith>(a: &mut A, x: A::F) -> (A::I, A::I) {
    let least_normal = a.f(f32::MIN_POSITIVE);
    let is_subnormal = a.lt(x, least_normal);
    let up = a.f(8_388_608.0);
    let scaled = a.mul(x, up);
    let x = a.select(is_subnormal, scaled, x);
    let bits = a.bits(x);
    let exponent = a.shr(bits, 23);
    let (less, none) = (a.i(23), a.i(0));
    let less = a.select_i(is_subnormal, less, none);
    let exponent = a.i_sub(exponent, less);
    let fraction = a.i(0x7f_ffff);
    let fraction = a.i_and(bits, fraction);
    let first = a.i(0x80_0000);
    (a.i_or(fraction, first), exponent)
}

/// `2^exponent` for an exponent of a normal number.
fn power_of_two<A: Arith>(a: &mut A, exponent: A::I) -> A::F {
    let bias = a.i(127);
    let bits = a.i_add(exponent, bias);
    let bits = a.shl(bits, 23);
    a.from_bits(bits)
}

/// The remainder of `x >= y >= 0` by long division in integers, `STEP` bits of the quotient at once.
fn far_remainder<A: Arith>(a: &mut A, [x, y]: [A::F; 2]) -> A::F {
    let (mantissa, x_exponent) = integer_parts(a, x);
    let (divisor, y_exponent) = integer_parts(a, y);
    let is_less = a.i_lt(mantissa, divisor);
    let less = a.i_sub(mantissa, divisor);
    let mut rest = a.select_i(is_less, mantissa, less);
    let float_divisor = a.to_float(divisor);
    let mut left = a.i_sub(x_exponent, y_exponent);
    let (step, none) = (a.i(STEP), a.i(0));
    for _ in 0..STEPS {
        let is_last = a.i_lt(left, step);
        let count = a.select_i(is_last, left, step);
        left = a.i_sub(left, count);
        let power = power_of_two(a, count);
        // As above: the integer found is the quotient or the one after it. The products leave 32 bits, their difference
        // does not.
        let float_rest = a.to_float(rest);
        let quotient = a.div(float_rest, float_divisor);
        let quotient = a.mul(quotient, power);
        let whole = a.to_int(quotient);
        let power = a.to_int(power);
        let shifted = a.i_mul(rest, power);
        let taken = a.i_mul(whole, divisor);
        let found = a.i_sub(shifted, taken);
        let is_negative = a.i_lt(found, none);
        let more = a.i_add(found, divisor);
        rest = a.select_i(is_negative, more, found);
    }
    // Two powers, as the unit of subnormal numbers' mantissas lies below the smallest number.
    let bias = a.i(150);
    let exponent = a.i_sub(y_exponent, bias);
    let half = a.sar(exponent, 1);
    let other = a.i_sub(exponent, half);
    let rest = a.to_float(rest);
    let power = power_of_two(a, half);
    let rest = a.mul(rest, power);
    let power = power_of_two(a, other);
    let rest = a.mul(rest, power);
    let (infinity, zero, nan) = (a.f(f32::INFINITY), a.f(0.0), a.f(f32::NAN));
    let is_finite = a.lt(x, infinity);
    let is_divisor = a.lt(zero, y);
    let is_number = a.and(is_finite, is_divisor);
    a.select(is_number, rest, nan)
}

/// The remainder of the truncated division, as C's `fmod`.
fn truncated_remainder<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let magnitude = magnitude_of_remainder(a, x, y);
    a.with_sign_of(magnitude, x)
}

/// Whether the signs of two numbers differ, neither being 0.
fn differ_in_sign<A: Floats>(a: &mut A, x: A::F, y: A::F) -> A::M {
    let zero = a.f(0.0);
    let x_negative = a.lt(x, zero);
    let x_positive = a.lt(zero, x);
    let y_negative = a.lt(y, zero);
    let y_positive = a.lt(zero, y);
    let first = a.and(x_negative, y_positive);
    let second = a.and(x_positive, y_negative);
    a.or(first, second)
}

/// `x - floor(x / y) y` with the sign of `y`, Python's `%`: exact, or the sum of an exact remainder and `y`. NaN for
/// infinite `x` and for `y = 0`.
pub fn floor_remainder<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = truncated_remainder(a, x, y);
    floor_remainder_of(a, y, truncated)
}

/// The largest integer not above `x / y`, Python's `//`, found from the exact remainder. `x / y` for `y = 0`, NaN for
/// infinite `x`.
pub fn floor_quotient<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = truncated_remainder(a, x, y);
    floor_quotient_of(a, x, y, truncated)
}

/// [`floor_remainder`] given the remainder of the truncated division, in either precision.
fn floor_remainder_of<A: Floats>(a: &mut A, y: A::F, truncated: A::F) -> A::F {
    let differ = differ_in_sign(a, truncated, y);
    let raised = a.add(truncated, y);
    let found = a.select(differ, raised, truncated);
    let zero = a.f(0.0);
    let is_zero = a.eq(truncated, zero);
    let zero = a.with_sign_of(zero, y);
    a.select(is_zero, zero, found)
}

/// [`floor_quotient`] given the remainder of the truncated division, in either precision.
fn floor_quotient_of<A: Floats>(a: &mut A, x: A::F, y: A::F, truncated: A::F) -> A::F {
    let differ = differ_in_sign(a, truncated, y);
    let multiple = a.sub(x, truncated);
    let quotient = a.div(multiple, y);
    let one = a.f(1.0);
    let less = a.sub(quotient, one);
    let quotient = a.select(differ, less, quotient);
    let floor = a.floor(quotient);
    let beyond = a.sub(quotient, floor);
    let half = a.f(0.5);
    let is_next = a.lt(half, beyond);
    let next = a.add(floor, one);
    let found = a.select(is_next, next, floor);
    let zero = a.f(0.0);
    let plain = a.div(x, y);
    let is_zero = a.eq(quotient, zero);
    let signed = a.with_sign_of(zero, plain);
    let found = a.select(is_zero, signed, found);
    let by_zero = a.eq(y, zero);
    a.select(by_zero, plain, found)
}

/// The largest integer not above `x / y`, Python's `//`, as [`floor_quotient`].
pub fn floor_quotient_double<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = double::fmod(a, x, y);
    floor_quotient_of(a, x, y, truncated)
}

/// Python's `%`, as [`floor_remainder`].
pub fn floor_remainder_double<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = double::fmod(a, x, y);
    floor_remainder_of(a, y, truncated)
}
