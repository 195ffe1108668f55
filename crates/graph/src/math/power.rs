//! Powers: the base-2 logarithm in two float32 parts, times the exponent, then the exponential.

use super::exponential::exp2_of_remainder;
use super::logarithm::parts;
use super::{Arith, ROUND, SIGN, at_least, at_most, polynomial};

const TWO_LOG2_E_HIGH: f32 = 2.0 * std::f32::consts::LOG2_E;
const TWO_LOG2_E_LOW: f32 = 2.0 * 1.925_963e-8;
/// `(log2((1+q)/(1-q)) - 2 q / ln 2) / q^3` in `q^2`.
const LOG2: [f32; 4] = [3.3648723e-1, 4.1192734e-1, 5.770788e-1, 9.617967e-1];

/// The base-2 logarithm of a positive number, as a float32 number and a far smaller rest.
fn log2_in_two_parts<A: Arith>(a: &mut A, x: A::F) -> (A::F, A::F) {
    let parts = parts(a, x);
    let (e, f) = (parts.exponent, parts.fraction);
    // q = f / (2 + f), with its rest: the remainder of the division times 1 / (2 + f) = (1 - q) / 2.
    let two = a.f(2.0);
    let half = a.f(0.5);
    let minus_half = a.f(-0.5);
    let denominator = a.add(f, two);
    let back = a.sub(denominator, two);
    let lost = a.sub(f, back);
    let q = a.div(f, denominator);
    let minus = a.neg(q);
    let remainder = a.fma(minus, denominator, f);
    let remainder = a.fma(minus, lost, remainder);
    let inverse = a.fma(q, minus_half, half);
    let q_rest = a.mul(remainder, inverse);
    // log2(1 + f) = 2 log2(e) q + q^3 P(q^2), square and cube with their rests.
    let square = a.mul(q, q);
    let p = polynomial(a, square, &LOG2);
    let exact = a.neg(square);
    let square_rest = a.fma(q, q, exact);
    let double = a.add(q, q);
    let square_rest = a.fma(double, q_rest, square_rest);
    let cube = a.mul(square, q);
    let exact = a.neg(cube);
    let cube_rest = a.fma(square, q, exact);
    let cube_rest = a.fma(square_rest, q, cube_rest);
    let cube_rest = a.fma(square, q_rest, cube_rest);
    let high = a.f(TWO_LOG2_E_HIGH);
    let low = a.f(TWO_LOG2_E_LOW);
    let y = a.mul(q, high);
    let exact = a.neg(y);
    let rest = a.fma(q, high, exact);
    let rest = a.fma(q, low, rest);
    let rest = a.fma(q_rest, high, rest);
    let rest = a.fma(p, cube_rest, rest);
    let rest = a.fma(p, cube, rest);
    // The exponent is zero or at least as large as y.
    let sum = a.add(e, y);
    let back = a.sub(e, sum);
    let lost = a.add(back, y);
    let rest = a.add(lost, rest);
    let high = a.add(sum, rest);
    let back = a.sub(sum, high);
    (high, a.add(back, rest))
}

/// `x` to the power `y`, with the special cases of IEEE 754: `pow(x, 0) = pow(1, y) = 1` even for NaN, NaN for a
/// negative finite base and an exponent that is no integer, signed zeros and infinities for odd exponents.
///
/// Measured maximum error: 1.5 ULP.
pub fn pow<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let zero = a.f(0.0);
    let one = a.f(1.0);
    let infinity = a.f(f32::INFINITY);
    let negative_infinity = a.f(f32::NEG_INFINITY);
    let t = a.abs(x);
    let (high, low) = log2_in_two_parts(a, t);
    let is_finite = a.lt(t, infinity);
    let high = a.select(is_finite, high, t);
    let is_zero = a.eq(t, zero);
    let high = a.select(is_zero, negative_infinity, high);

    // y log2 |x|; beyond 160 the result is zero or infinite.
    let product = a.mul(y, high);
    let exact = a.neg(product);
    let rest = a.fma(y, high, exact);
    let rest = a.fma(y, low, rest);
    let limit = a.f(160.0);
    let size = a.abs(product);
    let is_inside = a.lt(size, limit);
    let rest = a.select(is_inside, rest, zero);
    let clamped = at_least(a, product, -160.0);
    let clamped = at_most(a, clamped, 160.0);
    let round = a.f(ROUND);
    let shifted = a.add(clamped, round);
    let n = a.sub(shifted, round);
    let r = a.sub(clamped, n);
    let r = a.add(r, rest);
    let p = exp2_of_remainder(a, r);

    // Half of the way in the exponent bits, half by a multiplication that rounds or overflows once.
    let is_small = a.lt(clamped, zero);
    let up = a.i(64 << 23);
    let down = a.i(-64 << 23);
    let detour = a.select_i(is_small, up, down);
    let back_up = a.f(f32::from_bits((127 + 64) << 23));
    let back_down = a.f(f32::from_bits((127 - 64) << 23));
    let back = a.select(is_small, back_down, back_up);
    let exponent = a.bits(shifted);
    let exponent = a.shl(exponent, 23);
    let bits = a.bits(p);
    let bits = a.i_add(bits, exponent);
    let bits = a.i_add(bits, detour);
    let power = a.from_bits(bits);
    let power = a.mul(power, back);
    let is_number = a.eq(product, product);
    let power = a.select(is_number, power, product);
    let is_one = a.eq(t, one);
    let power = a.select(is_one, one, power);

    // Negative bases.
    let truncated = a.trunc(y);
    let is_integer = a.eq(truncated, y);
    let half = a.f(0.5);
    let half = a.mul(y, half);
    let truncated = a.trunc(half);
    let is_even = a.eq(truncated, half);
    let not_even = a.not(is_even);
    let is_odd = a.and(is_integer, not_even);
    let sign = a.i(SIGN);
    let bits = a.bits(x);
    let sign = a.i_and(bits, sign);
    let none = a.i(0);
    let sign = a.select_i(is_odd, sign, none);
    let bits = a.bits(power);
    let bits = a.i_or(bits, sign);
    let power = a.from_bits(bits);
    let is_negative = a.lt(x, zero);
    let is_negative = a.and(is_negative, is_finite);
    let not_integer = a.not(is_integer);
    let is_undefined = a.and(is_negative, not_integer);
    let nan = a.f(f32::NAN);
    let power = a.select(is_undefined, nan, power);

    let no_exponent = a.eq(y, zero);
    let base_one = a.eq(x, one);
    let is_one = a.or(no_exponent, base_one);
    a.select(is_one, one, power)
}
