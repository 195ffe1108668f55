//! The error function and its complement.
//!
//! Near zero a polynomial; further out `erf(t) = 1 - exp(t R(t))`. The complement is
//! `exp(-t^2) g(t) / (1 + 2 t)` with a polynomial for `g` in `(t - 2) / (t + 2)` (Shepherd and Laframboise,
//! Mathematics of Computation 36, 1981).

use super::exponential::{exp_of_negative, exp_times};
use super::{Arith, at_most, polynomial};

/// `erf(x) / x - 1` in `x^2` on [0, 0.95].
const ERF: [f32; 7] =
    [8.002775e-5, -8.050804e-4, 5.1924605e-3, -2.685574e-2, 1.1283626e-1, -3.761263e-1, 1.2837917e-1];
/// `-log(erfc t) / t - 1` on [0.9, 4.2].
const ERF_TAIL: [f32; 7] =
    [1.0429695e-5, -3.1483083e-4, 3.6102587e-3, -2.3694444e-2, 1.06158964e-1, 6.3519806e-1, 1.2863708e-1];
/// `(1 + 2 t) exp(t^2) erfc(t) - 1` in `(t - 2) / (t + 2)` for t in [0, 10.1].
const ERFC: [f32; 10] = [
    -4.0229628e-4,
    -1.2365433e-3,
    1.3089501e-3,
    8.636894e-3,
    -8.054567e-3,
    -5.420538e-2,
    1.6405372e-1,
    -1.6603142e-1,
    -9.276384e-2,
    2.769784e-1,
];

/// `erf(t)` for `0 <= t <= 0.95`, NaN for NaN.
fn erf_near_zero<A: Arith>(a: &mut A, t: A::F) -> A::F {
    let square = a.mul(t, t);
    let p = polynomial(a, square, &ERF);
    a.fma(p, t, t)
}

/// The error function `2/sqrt(pi)` times the integral of `exp(-t^2)` from 0 to `x`.
///
/// Measured maximum error: 1.0 ULP.
pub fn erf<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let near = erf_near_zero(a, t);
    // From 4.2 on the result is 1.
    let clamped = at_most(a, t, 4.2);
    let minus = a.neg(clamped);
    let q = polynomial(a, clamped, &ERF_TAIL);
    let exponent = a.fma(q, minus, minus);
    let tail = exp_of_negative(a, exponent);
    let one = a.f(1.0);
    let far = a.sub(one, tail);
    let limit = a.f(0.93);
    let is_far = a.lt(limit, t);
    let y = a.select(is_far, far, near);
    a.with_sign_of(y, x)
}

/// `(1 + p) / (1 + 2 t)` for `|p| < 1` and `t >= 0`, rounded about once.
fn quotient_of_sums<A: Arith>(a: &mut A, p: A::F, t: A::F) -> A::F {
    let one = a.f(1.0);
    let double = a.add(t, t);
    let numerator = a.add(one, p);
    let back = a.sub(numerator, one);
    let numerator_lost = a.sub(p, back);
    let denominator = a.add(one, double);
    let back = a.sub(denominator, one);
    let denominator_lost = a.sub(double, back);
    let inverse = a.div(one, denominator);
    let quotient = a.mul(numerator, inverse);
    let minus = a.neg(quotient);
    let remainder = a.fma(minus, denominator, numerator);
    let remainder = a.add(remainder, numerator_lost);
    let remainder = a.fma(minus, denominator_lost, remainder);
    a.fma(remainder, inverse, quotient)
}

/// The complementary error function `1 - erf(x)`, down to subnormal results.
///
/// Measured maximum error: 2.5 ULP.
pub fn erfc<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    // From 10.1 on the result is 0.
    let t = at_most(a, t, 10.1);
    let one = a.f(1.0);
    let two = a.f(2.0);
    let near = erf_near_zero(a, t);
    let near = a.sub(one, near);
    let numerator = a.sub(t, two);
    let denominator = a.add(t, two);
    let q = a.div(numerator, denominator);
    let g = polynomial(a, q, &ERFC);
    let g = quotient_of_sums(a, g, t);
    let minus = a.neg(t);
    let square = a.mul(minus, t);
    // What the rounding of -t^2 lost.
    let exact = a.neg(square);
    let correction = a.fma(minus, t, exact);
    let far = exp_times(a, square, correction, g);
    // NaN takes the polynomial.
    let limit = a.f(0.45);
    let is_far = a.lt(limit, t);
    let y = a.select(is_far, far, near);
    let reflected = a.sub(two, y);
    let zero = a.f(0.0);
    let is_negative = a.lt(x, zero);
    a.select(is_negative, reflected, y)
}
