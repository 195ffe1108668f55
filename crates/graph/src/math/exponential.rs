//! Exponentials: a power of two times a polynomial on half an octave around one.
//!
//! `exp(x) = 2^n exp(r)` with `|r| <= ln(2)/2`. The power of two is added to the exponent bits; results
//! below the normal range take a detour 2^64 times larger, so that they round once.

use super::{Arith, Doubles, ONE, ROUND, at_least, at_most, double, polynomial};

const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LN_2_HIGH: f32 = std::f32::consts::LN_2;
const LN_2_LOW: f32 = -1.904_654_3e-9;
/// The least float32 number whose exponential rounds to infinity.
pub(super) const EXP_OVERFLOW: f32 = 88.722_84;
/// Below it the exponential rounds to zero.
pub(super) const EXP_ZERO: f32 = -104.0;
/// From it upward the exponential, reduced polynomial times power of two, is a normal number.
const EXP_NORMAL: f32 = -86.9;
/// `(e^r - 1 - r) / r^2`.
const EXP: [f32; 5] = [1.3819793e-3, 8.368687e-3, 4.1668277e-2, 1.6666521e-1, 4.9999994e-1];
/// `(e^r - 1 - r) / r^2`, weighted for the relative error of `e^r - 1`.
const EXPM1: [f32; 5] = [1.3870703e-3, 8.366272e-3, 4.1667435e-2, 1.6666546e-1, 4.9999997e-1];
/// `(2^r - 1) / r`, then 1.
const EXP2: [f32; 7] =
    [1.5327819e-4, 1.3390997e-3, 9.618503e-3, 5.5503596e-2, 2.4022648e-1, 6.931472e-1, 1.0];

/// `n`, `x - n ln 2` and the bits `n << 23`, where `n` is `x / ln 2` rounded. For `|x| < 150`.
fn reduce<A: Arith>(a: &mut A, x: A::F) -> (A::F, A::I) {
    let log2_e = a.f(LOG2_E);
    let round = a.f(ROUND);
    let shifted = a.fma(x, log2_e, round);
    let n = a.sub(shifted, round);
    let high = a.f(-LN_2_HIGH);
    let low = a.f(-LN_2_LOW);
    let r = a.fma(n, high, x);
    let r = a.fma(n, low, r);
    let bits = a.bits(shifted);
    (r, a.shl(bits, 23))
}

/// `e^r` for `|r| <= ln(2)/2`.
fn exp_of_remainder<A: Arith>(a: &mut A, r: A::F) -> A::F {
    let one = a.f(1.0);
    let p = polynomial(a, r, &EXP);
    let p = a.fma(p, r, one);
    a.fma(p, r, one)
}

/// `2^r` for `|r| <= 1/2`.
pub(super) fn exp2_of_remainder<A: Arith>(a: &mut A, r: A::F) -> A::F {
    polynomial(a, r, &EXP2)
}

/// `p` and the bits `n << 23` with `e^x = 2^n (1 + p)`, the sum left to the caller: `p` is more accurate than
/// its sum with one. For `|x| < 150`.
pub(super) fn exp_in_two_parts<A: Arith>(a: &mut A, x: A::F) -> (A::F, A::I) {
    let (r, exponent) = reduce(a, x);
    let p = polynomial(a, r, &EXP);
    let square = a.mul(r, r);
    (a.fma(p, square, r), exponent)
}

/// `p 2^n` for normal `p` and results, `exponent = n << 23`.
pub(super) fn scale<A: Arith>(a: &mut A, p: A::F, exponent: A::I) -> A::F {
    let bits = a.bits(p);
    let bits = a.i_add(bits, exponent);
    a.from_bits(bits)
}

/// `p 2^n` for normal `p`; where `small`, the result may be subnormal.
fn scale_gradually<A: Arith>(a: &mut A, p: A::F, exponent: A::I, small: A::M) -> A::F {
    let bits = a.bits(p);
    let bits = a.i_add(bits, exponent);
    let normal = a.from_bits(bits);
    let detour = a.i(64 << 23);
    let bits = a.i_add(bits, detour);
    let larger = a.from_bits(bits);
    let back = a.f(f32::from_bits((127 - 64) << 23));
    let gradual = a.mul(larger, back);
    a.select(small, gradual, normal)
}

/// `y` where `x < limit`, elsewhere infinity, or NaN if `x` is.
pub(super) fn overflow_from<A: Arith>(a: &mut A, y: A::F, x: A::F, limit: f32) -> A::F {
    let limit = a.f(limit);
    let finite = a.lt(x, limit);
    let huge = a.f(f32::MAX);
    let beyond = a.mul(x, huge);
    a.select(finite, y, beyond)
}

/// `e^x` for `x <= 0`; any bits for NaN.
pub(super) fn exp_of_negative<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let x = at_least(a, x, EXP_ZERO);
    let (r, exponent) = reduce(a, x);
    let p = exp_of_remainder(a, r);
    let normal = a.f(EXP_NORMAL);
    let small = a.lt(x, normal);
    scale_gradually(a, p, exponent, small)
}

/// `factor e^(x + correction)` for `-108 <= x <= 0`, a tiny `correction` and a `factor` in [1/32, 2].
pub(super) fn exp_times<A: Arith>(a: &mut A, x: A::F, correction: A::F, factor: A::F) -> A::F {
    let (r, exponent) = reduce(a, x);
    let r = a.add(r, correction);
    let p = exp_of_remainder(a, r);
    let p = a.mul(p, factor);
    let normal = a.f(-80.0);
    let small = a.lt(x, normal);
    scale_gradually(a, p, exponent, small)
}

/// `e^x / 2^halvings` for `0 <= x` and a finite result; any bits otherwise and for NaN.
pub(super) fn exp_of_positive<A: Arith>(a: &mut A, x: A::F, halvings: i32) -> A::F {
    let (r, exponent) = reduce(a, x);
    let p = exp_of_remainder(a, r);
    let y = scale(a, p, exponent);
    if halvings == 0 {
        return y;
    }
    let less = a.i(halvings << 23);
    let bits = a.bits(y);
    let bits = a.i_sub(bits, less);
    a.from_bits(bits)
}

/// `e^x`.
///
/// Measured maximum error: 0.9 ULP.
pub fn exp<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let y = exp_of_negative(a, x);
    overflow_from(a, y, x, EXP_OVERFLOW)
}

/// `2^x`.
///
/// Measured maximum error: 0.88 ULP.
pub fn exp2<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let clamped = at_least(a, x, -151.0);
    let round = a.f(ROUND);
    let shifted = a.add(clamped, round);
    let n = a.sub(shifted, round);
    let r = a.sub(clamped, n);
    let p = exp2_of_remainder(a, r);
    let bits = a.bits(shifted);
    let exponent = a.shl(bits, 23);
    let normal = a.f(-125.4);
    let small = a.lt(clamped, normal);
    let y = scale_gradually(a, p, exponent, small);
    overflow_from(a, y, x, 128.0)
}

/// `e^x - 1`, accurate near zero.
///
/// Measured maximum error: 1.31 ULP.
pub fn expm1<A: Arith>(a: &mut A, x: A::F) -> A::F {
    // Below -25 the result is -1 to the last bit.
    let clamped = at_least(a, x, -25.0);
    let (r, exponent) = reduce(a, clamped);
    let square = a.mul(r, r);
    let q = polynomial(a, r, &EXPM1);
    let curve = a.mul(q, square);
    // Half of 2^n is still a number where 2^n no longer is.
    let half = a.i(ONE - (1 << 23));
    let power = a.i_add(exponent, half);
    let power = a.from_bits(power);
    let half = a.f(0.5);
    let less = a.sub(power, half);
    // In this order nothing is lost where the two first terms cancel.
    let line = a.fma(power, r, less);
    let y = a.fma(power, curve, line);
    let y = a.add(y, y);
    // Tiny numbers are their own image: this keeps the last bit of subnormal numbers and the sign of zero.
    let tiny = a.f(f32::from_bits((127 - 26) << 23));
    let magnitude = a.abs(x);
    let is_tiny = a.lt(magnitude, tiny);
    let y = a.select(is_tiny, x, y);
    overflow_from(a, y, x, EXP_OVERFLOW)
}

/// The logistic function `1 / (1 + e^-x)`, down to subnormal results.
///
/// Measured maximum error: 1.44 ULP.
pub fn sigmoid<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let x = a.neg(x);
    let x = at_least(a, x, -60.0);
    let x = at_most(a, x, -EXP_ZERO);
    let (p, exponent) = exp_in_two_parts(a, x);
    let one = a.f(1.0);
    // The fraction is unit / (unit + unit 2^n + unit 2^n p), with a unit that keeps the denominator finite: the
    // division alone rounds to a subnormal result.
    let large = a.f(87.5);
    let is_large = a.lt(large, x);
    let small_unit = a.f(f32::from_bits((127 - 64) << 23));
    let unit = a.select(is_large, small_unit, one);
    let power = scale(a, unit, exponent);
    let sum = a.add(power, unit);
    // Where the two differ by 2^24, the sum loses the smaller one and with it half of the last place.
    let back = a.sub(sum, power);
    let lost = a.sub(unit, back);
    let rest = a.fma(power, p, lost);
    let denominator = a.add(sum, rest);
    let y = a.div(unit, denominator);
    // One Newton step takes back the rounding of the denominator.
    let back = a.sub(denominator, sum);
    let excess = a.sub(back, rest);
    let excess = a.mul(excess, y);
    a.fma(excess, y, y)
}

/// `e^-|x|`.
pub(super) fn decay<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let size = a.abs(x);
    let minus = a.neg(size);
    double::exp(a, minus)
}

/// `1 / (1 + e^-x)`, accurate in both tails.
pub fn sigmoid_double<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let e = decay(a, x);
    let (zero, one) = (a.f(0.0), a.f(1.0));
    let is_right = a.le(zero, x);
    let above = a.select(is_right, one, e);
    let below = a.add(one, e);
    a.div(above, below)
}
