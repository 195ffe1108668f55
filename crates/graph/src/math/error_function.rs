//! The error function, its complement and its inverse.
//!
//! Near zero a polynomial; further out `erf(t) = 1 - exp(t R(t))`. The complement is
//! `exp(-t^2) g(t) / (1 + 2 t)` with a polynomial for `g` in `(t - 2) / (t + 2)` (Shepherd and Laframboise,
//! Mathematics of Computation 36, 1981). The inverse is polynomials in `log(1 - x^2)` (Giles, GPU Computing Gems 2, 2011).

use super::exponential::{exp_of_negative, exp_times};
use super::logarithm::log;
use super::{Arith, Doubles, Floats, at_most, double, polynomial};

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

/// `erfinv(x) / x` in `w - 2.5`, for `w = -log(1 - x^2)` below 5.
const ERFINV: [f32; 10] = [
    -8.245795e-9,
    2.8084248e-8,
    4.6007406e-7,
    -3.5226183e-6,
    -4.943974e-6,
    2.1857442e-4,
    -1.2527553e-3,
    -4.1776667e-3,
    2.4664028e-1,
    1.5014094,
];

/// `erfinv(x) / x` in `sqrt(w) - 3`, from there on.
const ERFINV_TAIL: [f32; 9] = [
    -1.4890659e-4,
    7.143423e-5,
    1.2796398e-3,
    -3.6437951e-3,
    5.7701226e-3,
    -7.6308334e-3,
    9.434448e-3,
    1.0016748,
    2.832977,
];

/// `erfinv(x) / x` in `w - 3.125`, for `w` below 6.25.
const ERFINV_DOUBLE: [f64; 23] = [
    -3.64441206401782e-21,
    -1.6850591381820166e-19,
    1.28584807152564e-18,
    1.1157877678025181e-17,
    -1.333171662854621e-16,
    2.0972767875968562e-17,
    6.637638134358324e-15,
    -4.054566272975207e-14,
    -8.151934197605472e-14,
    2.6335093153082323e-12,
    -1.2975133253453532e-11,
    -5.415412054294628e-11,
    1.0512122733215323e-09,
    -4.112633980346984e-09,
    -2.9070369957882005e-08,
    4.2347877827932404e-07,
    -1.3654692000834679e-06,
    -1.3882523362786469e-05,
    0.00018673420803405714,
    -0.000740702534166267,
    -0.006033670871430149,
    0.24015818242558962,
    1.6536545626831027,
];

/// `erfinv(x) / x` in `sqrt(w) - 3.25`, for `w` from there to 16.
const ERFINV_DOUBLE_TAIL: [f64; 19] = [
    2.2137376921775787e-09,
    9.075656193888539e-08,
    -2.7517406297064545e-07,
    1.8239629214389228e-08,
    1.5027403968909828e-06,
    -4.013867526981546e-06,
    2.9234449089955446e-06,
    1.2475304481671779e-05,
    -4.7318229009055734e-05,
    6.828485145957318e-05,
    2.4031110387097894e-05,
    -0.0003550375203628475,
    0.0009532893797373805,
    -0.0016882755560235047,
    0.002491442096107851,
    -0.003751208507569241,
    0.005370914553590064,
    1.0052589676941592,
    3.0838856104922208,
];

/// `erfinv(x) / x` in `sqrt(w) - 5`, from there on.
const ERFINV_DOUBLE_END: [f64; 17] = [
    -2.7109920616438573e-11,
    -2.555641816996525e-10,
    1.5076572693500548e-09,
    -3.789465440126737e-09,
    7.61570120807834e-09,
    -1.496002662714924e-08,
    2.914795345090108e-08,
    -6.771199775845234e-08,
    2.2900482228026655e-07,
    -9.9298272942317e-07,
    4.526062597223154e-06,
    -1.968177810553167e-05,
    7.599527703001776e-05,
    -0.00021503011930044477,
    -0.00013871931833623122,
    1.0103004648645344,
    4.849906401408584,
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

/// The inverse of [`erf`], infinite at 1 and -1 and NaN beyond.
pub fn erfinv<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let product = one_minus_square(a, x);
    let logarithm = log(a, product);
    let w = a.neg(logarithm);
    let near = shifted_polynomial(a, w, 2.5, &ERFINV);
    let root = a.sqrt(w);
    let far = shifted_polynomial(a, root, 3.0, &ERFINV_TAIL);
    let limit = a.f(5.0);
    let is_near = a.lt(w, limit);
    let p = a.select(is_near, near, far);
    odd_product(a, x, p)
}

/// `polynomial` of `x` less a constant.
fn shifted_polynomial<A: Arith>(a: &mut A, x: A::F, shift: f32, coefficients: &[f32]) -> A::F {
    let shift = a.f(shift);
    let shifted = a.sub(x, shift);
    polynomial(a, shifted, coefficients)
}

/// As [`erfinv`].
pub fn erfinv_double<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let product = one_minus_square(a, x);
    let logarithm = double::log(a, product);
    let w = a.neg(logarithm);
    let root = a.sqrt(w);
    let mut polynomial = |x: A::F, shift: f32, coefficients: &[f64]| {
        let shift = a.f(shift);
        let shifted = a.sub(x, shift);
        let mut sum = a.f(0.0);
        for &coefficient in coefficients {
            let product = a.mul(sum, shifted);
            let coefficient = a.d(coefficient);
            sum = a.add(product, coefficient);
        }
        sum
    };
    let near = polynomial(w, 3.125, &ERFINV_DOUBLE);
    let far = polynomial(root, 3.25, &ERFINV_DOUBLE_TAIL);
    let end = polynomial(root, 5.0, &ERFINV_DOUBLE_END);
    let (first, second) = (a.f(6.25), a.f(16.0));
    let (is_near, is_far) = (a.lt(w, first), a.lt(w, second));
    let p = a.select(is_far, far, end);
    let p = a.select(is_near, near, p);
    odd_product(a, x, p)
}

/// `1 - x^2` as `(1 - x) (1 + x)`, which keeps its digits where `x` is nearly 1 or -1.
fn one_minus_square<A: Floats>(a: &mut A, x: A::F) -> A::F {
    let one = a.f(1.0);
    let (below, above) = (a.sub(one, x), a.add(one, x));
    a.mul(below, above)
}

/// `x p`, but infinite at 1 and -1.
fn odd_product<A: Floats>(a: &mut A, x: A::F, p: A::F) -> A::F {
    let size = a.abs(x);
    let (one, infinity) = (a.f(1.0), a.f(f32::INFINITY));
    let is_end = a.eq(size, one);
    let p = a.select(is_end, infinity, p);
    a.mul(x, p)
}
