//! Hyperbolic functions and their inverses: from exponentials and logarithms where these are well
//! conditioned, from polynomials near zero.

use super::exponential::{exp_of_positive, overflow_from};
use super::logarithm::log1p_inside;
use super::{Arith, Doubles, at_most, double, odd_polynomial};

/// `(tanh x - x) / x^3` in `x^2` on [0, 0.6].
const TANH: [f32; 5] = [-5.8979667e-3, 2.0798625e-2, -5.3784717e-2, 1.3331936e-1, -3.33333e-1];
/// `(sinh x - x) / x^3` in `x^2` on [0, 1].
const SINH: [f32; 4] = [2.7822298e-6, 1.9842894e-4, 8.3333105e-3, 1.6666667e-1];
/// The least float32 number whose hyperbolic cosine rounds to infinity.
const COSH_OVERFLOW: f32 = 89.415_99;
/// From here on `sqrt(x^2 + 1)` is `x`, and `2 x` would soon overflow when squared.
const LARGE: f32 = 1_073_741_824.0;

/// The hyperbolic tangent.
///
/// Measured maximum error: 1.41 ULP.
pub fn tanh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let square = a.mul(t, t);
    let near = odd_polynomial(a, t, square, &TANH);
    // 1 - 2 / (e^2t + 1); from 10 on it is 1.
    let clamped = at_most(a, t, 10.0);
    let double = a.add(clamped, clamped);
    let e = exp_of_positive(a, double, 0);
    let one = a.f(1.0);
    let two = a.f(2.0);
    let denominator = a.add(e, one);
    let quotient = a.div(two, denominator);
    let far = a.sub(one, quotient);
    // NaN takes the polynomial.
    let limit = a.f(0.6);
    let is_far = a.lt(limit, t);
    let y = a.select(is_far, far, near);
    a.with_sign_of(y, x)
}

/// The hyperbolic sine.
///
/// Measured maximum error: 1.7 ULP.
pub fn sinh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let square = a.mul(t, t);
    let near = odd_polynomial(a, t, square, &SINH);
    let half = exp_of_positive(a, t, 1);
    let quarter = a.f(0.25);
    let rest = a.div(quarter, half);
    let far = a.sub(half, rest);
    let far = overflow_from(a, far, t, COSH_OVERFLOW);
    let one = a.f(1.0);
    let is_far = a.lt(one, t);
    let y = a.select(is_far, far, near);
    a.with_sign_of(y, x)
}

/// The hyperbolic cosine.
///
/// Measured maximum error: 1.4 ULP.
pub fn cosh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let half = exp_of_positive(a, t, 1);
    let quarter = a.f(0.25);
    let rest = a.div(quarter, half);
    let y = a.add(half, rest);
    overflow_from(a, y, t, COSH_OVERFLOW)
}

/// `log(1 + w)`, or `log(1 + x) + log 2` for large `x`; infinity and NaN as `x`.
fn log1p_or_double<A: Arith>(a: &mut A, w: A::F, x: A::F) -> A::F {
    let large = a.f(LARGE);
    let is_large = a.lt(large, x);
    // Half of a large number stays inside the range of the reduction; its logarithm lacks another log 2.
    let half = a.f(0.5);
    let half = a.mul(x, half);
    let w = a.select(is_large, half, w);
    let y = log1p_inside(a, w);
    let ln_4 = a.f(2.0 * std::f32::consts::LN_2);
    let more = a.add(y, ln_4);
    let y = a.select(is_large, more, y);
    let infinity = a.f(f32::INFINITY);
    let is_finite = a.lt(x, infinity);
    a.select(is_finite, y, x)
}

/// The inverse hyperbolic sine.
///
/// Measured maximum error: 1.8 ULP.
pub fn asinh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let one = a.f(1.0);
    let square = a.mul(t, t);
    let root = a.fma(t, t, one);
    let root = a.sqrt(root);
    let denominator = a.add(root, one);
    let rest = a.div(square, denominator);
    let w = a.add(t, rest);
    let y = log1p_or_double(a, w, t);
    a.with_sign_of(y, x)
}

/// The inverse hyperbolic cosine; NaN below 1.
///
/// Measured maximum error: 1.9 ULP.
pub fn acosh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let one = a.f(1.0);
    let t = a.sub(x, one);
    let double = a.add(t, t);
    let root = a.fma(t, t, double);
    let root = a.sqrt(root);
    let w = a.add(t, root);
    let y = log1p_or_double(a, w, x);
    let is_below = a.lt(x, one);
    let nan = a.f(f32::NAN);
    a.select(is_below, nan, y)
}

/// The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond.
///
/// Measured maximum error: 2.0 ULP.
pub fn atanh<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let one = a.f(1.0);
    let double = a.add(t, t);
    let denominator = a.sub(one, t);
    let w = a.div(double, denominator);
    let y = log1p_inside(a, w);
    let half = a.f(0.5);
    let y = a.mul(y, half);
    let infinity = a.f(f32::INFINITY);
    let nan = a.f(f32::NAN);
    let at_one = a.eq(t, one);
    let outside = a.select(at_one, infinity, nan);
    let inside = a.lt(t, one);
    let y = a.select(inside, y, outside);
    // Subnormal numbers would lose their last bit in the halving.
    let tiny = a.f(f32::from_bits((127 - 26) << 23));
    let is_tiny = a.lt(t, tiny);
    let y = a.select(is_tiny, t, y);
    a.with_sign_of(y, x)
}

/// Inverse hyperbolic cosine; the library's own may give a number below 1.
pub fn acosh_double<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let found = double::acosh(a, x);
    let (one, nan) = (a.f(1.0), a.f(f32::NAN));
    let outside = a.lt(x, one);
    a.select(outside, nan, found)
}
