//! Logarithms: the exponent, and a polynomial on half an octave around one.
//!
//! `x = 2^e (1 + f)` with `1 + f` between the square roots of 1/2 and 2, and
//! `log(1 + f) = f + f^2 (-1/2 + f P(f))`.

use super::exponential::{EXP_ZERO, decay, exp_in_two_parts, exp_of_negative, scale};
use super::{Arith, Doubles, Floats, ONE, at_least, double, polynomial};

const LN_2: f32 = std::f32::consts::LN_2;
const LOG10_2_HIGH: f32 = std::f32::consts::LOG10_2;
const LOG10_2_LOW: f32 = -1.432_098_9e-8;
const LOG2_E_HIGH: f32 = std::f32::consts::LOG2_E;
const LOG2_E_LOW: f32 = 1.925_963e-8;
const LOG10_E_HIGH: f32 = std::f32::consts::LOG10_E;
const LOG10_E_LOW: f32 = -1.010_305e-8;
/// The bits of the square root of 1/2.
const ROOT_HALF: i32 = 0x3f35_04f3;
/// `(log(1+f) - f) / f^2`.
const LOG: [f32; 9] = [
    -7.6357156e-2,
    1.2761845e-1,
    -1.3159686e-1,
    1.4201629e-1,
    -1.6623408e-1,
    2.000124e-1,
    -2.500082e-1,
    3.333333e-1,
    -0.5,
];
/// `(log(1+e) - e + e^2/2) / e^3` on [0, 1].
const LOG1P: [f32; 9] = [
    2.2753903e-03,
    -1.4677777e-02,
    4.429023e-02,
    -8.591071e-02,
    1.2679179e-01,
    -1.6228282e-01,
    1.9926327e-01,
    -2.4993312e-01,
    3.3333093e-01,
];

/// A positive number as `2^exponent (1 + fraction)`; `power` is `exponent << 23`.
pub(super) struct Parts<A: Arith> {
    pub(super) exponent: A::F,
    pub(super) fraction: A::F,
    power: A::I,
}

/// Takes apart a positive normal number.
fn parts_of_normal<A: Arith>(a: &mut A, x: A::F) -> Parts<A> {
    let bits = a.bits(x);
    let root_half = a.i(ROOT_HALF);
    let offset = a.i_sub(bits, root_half);
    let exponent = a.sar(offset, 23);
    let exponent = a.to_float(exponent);
    let mask = a.i(-1 << 23);
    let power = a.i_and(offset, mask);
    let bits = a.i_sub(bits, power);
    let mantissa = a.from_bits(bits);
    let one = a.f(1.0);
    let fraction = a.sub(mantissa, one);
    Parts { exponent, fraction, power }
}

/// Takes apart a positive number; zero, infinity and NaN give arbitrary finite parts.
pub(super) fn parts<A: Arith>(a: &mut A, x: A::F) -> Parts<A> {
    let least_normal = a.f(f32::MIN_POSITIVE);
    let is_subnormal = a.lt(x, least_normal);
    let up = a.f(8_388_608.0);
    let scaled = a.mul(x, up);
    let x = a.select(is_subnormal, scaled, x);
    let parts = parts_of_normal(a, x);
    let less = a.f(-23.0);
    let zero = a.f(0.0);
    let less = a.select(is_subnormal, less, zero);
    let exponent = a.add(parts.exponent, less);
    Parts { exponent, ..parts }
}

/// `exponent ln 2 + log(1 + fraction)`.
fn log_of_parts<A: Arith>(a: &mut A, exponent: A::F, fraction: A::F) -> A::F {
    let p = polynomial(a, fraction, &LOG);
    let square = a.mul(fraction, fraction);
    let y = a.fma(p, square, fraction);
    let ln_2 = a.f(LN_2);
    a.fma(exponent, ln_2, y)
}

/// `(exponent + log2(1 + fraction)) log(2)` in another base, from the logarithms of 2 and e in that base.
fn log_in_base<A: Arith>(a: &mut A, parts: &Parts<A>, two: (f32, f32), e: (f32, f32)) -> A::F {
    let p = polynomial(a, parts.fraction, &LOG);
    let square = a.mul(parts.fraction, parts.fraction);
    let rest = a.mul(p, square);
    let high = a.f(e.0);
    let low = a.f(e.1);
    let y = a.mul(parts.fraction, low);
    let y = if two.1 == 0.0 {
        y
    } else {
        let low = a.f(two.1);
        a.fma(parts.exponent, low, y)
    };
    let y = a.fma(rest, high, y);
    let y = a.fma(parts.fraction, high, y);
    let two = a.f(two.0);
    a.fma(parts.exponent, two, y)
}

/// `y` for finite `x` above `pole`; elsewhere the limit of the logarithm: negative infinity at the pole, NaN
/// below it, infinity at infinity.
fn log_limits<A: Arith>(a: &mut A, y: A::F, x: A::F, pole: f32) -> A::F {
    let pole = a.f(pole);
    let infinity = a.f(f32::INFINITY);
    let nan = a.f(f32::NAN);
    let negative_infinity = a.f(f32::NEG_INFINITY);
    let at_pole = a.eq(x, pole);
    let limit = a.select(at_pole, negative_infinity, nan);
    let above = a.lt(pole, x);
    let y = a.select(above, y, limit);
    let is_infinite = a.eq(x, infinity);
    a.select(is_infinite, infinity, y)
}

/// The natural logarithm.
///
/// Measured maximum error: 0.94 ULP.
pub fn log<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let parts = parts(a, x);
    let y = log_of_parts(a, parts.exponent, parts.fraction);
    log_limits(a, y, x, 0.0)
}

/// The logarithm in base 2.
///
/// Measured maximum error: 1.1 ULP.
pub fn log2<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let parts = parts(a, x);
    let y = log_in_base(a, &parts, (1.0, 0.0), (LOG2_E_HIGH, LOG2_E_LOW));
    log_limits(a, y, x, 0.0)
}

/// The logarithm in base 10.
///
/// Measured maximum error: 1.0 ULP.
pub fn log10<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let parts = parts(a, x);
    let y = log_in_base(a, &parts, (LOG10_2_HIGH, LOG10_2_LOW), (LOG10_E_HIGH, LOG10_E_LOW));
    log_limits(a, y, x, 0.0)
}

/// `log(whole + rest)` for a `rest` far smaller than a normal `whole`, below 2^127.
fn log_of_sum<A: Arith>(a: &mut A, whole: A::F, rest: A::F) -> A::F {
    let parts = parts_of_normal(a, whole);
    let one = a.i(ONE);
    let inverse = a.i_sub(one, parts.power);
    let inverse = a.from_bits(inverse);
    let fraction = a.fma(rest, inverse, parts.fraction);
    log_of_parts(a, parts.exponent, fraction)
}

/// `log(1 + x)` for `-1 < x < 2^127`; `+0` for `-0`.
pub(super) fn log1p_inside<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let one = a.f(1.0);
    let whole = a.add(one, x);
    let back = a.sub(whole, one);
    let rest = a.sub(x, back);
    log_of_sum(a, whole, rest)
}

/// `log(1 + x)`, accurate near zero.
///
/// Measured maximum error: 1.48 ULP.
pub fn log1p<A: Arith>(a: &mut A, x: A::F) -> A::F {
    // From 2^126 on, the inverse power of two of the reduction would leave the normal range: the result there
    // is that of x / 4 and the logarithm of 4.
    let large = a.f(f32::from_bits((127 + 126) << 23));
    let is_large = a.le(large, x);
    let quarter = a.f(0.25);
    let quarter = a.mul(x, quarter);
    let inside = a.select(is_large, quarter, x);
    let y = log1p_inside(a, inside);
    let ln_4 = a.f(2.0 * LN_2);
    let more = a.add(y, ln_4);
    let y = a.select(is_large, more, y);
    let y = a.with_sign_of(y, x);
    log_limits(a, y, x, -1.0)
}

/// `log(1 - e^x)` for `x < 0`: negative infinity at zero, NaN above.
///
/// Measured maximum error: 2.3 ULP.
pub fn log1mexp<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let zero = a.f(0.0);
    let one = a.f(1.0);
    // Near zero 1 - e^x = -expm1(x), a number to be taken the logarithm of; further down e^x is small and
    // carries its own relative accuracy.
    let m = super::expm1(a, x);
    let m = a.neg(m);
    let e = exp_of_negative(a, x);
    let whole = a.sub(one, e);
    let back = a.sub(one, whole);
    let rest = a.sub(back, e);
    let limit = a.f(-LN_2);
    let near = a.lt(limit, x);
    let whole = a.select(near, m, whole);
    let rest = a.select(near, zero, rest);
    let parts = parts(a, whole);
    let scale = a.i(ONE);
    let inverse = a.i_sub(scale, parts.power);
    let inverse = a.from_bits(inverse);
    let fraction = a.fma(rest, inverse, parts.fraction);
    let y = log_of_parts(a, parts.exponent, fraction);
    // Negative even where it rounds to zero.
    let y = a.abs(y);
    let y = a.neg(y);
    let below = a.lt(x, zero);
    let nan = a.f(f32::NAN);
    let infinity = a.f(f32::NEG_INFINITY);
    let at_zero = a.eq(x, zero);
    let outside = a.select(at_zero, infinity, nan);
    a.select(below, y, outside)
}

/// `log(1 + e^x)`.
///
/// Measured maximum error: 1.53 ULP.
pub fn softplus<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let magnitude = a.abs(x);
    let negative = a.neg(magnitude);
    let negative = at_least(a, negative, EXP_ZERO);
    let (p, exponent) = exp_in_two_parts(a, negative);
    // e = 2^n (1 + p); for the least results in units of 2^-64, which one multiplication at the end takes back.
    let limit = a.f(-80.0);
    let is_small = a.lt(negative, limit);
    let one = a.f(1.0);
    let large_unit = a.f(f32::from_bits((127 + 64) << 23));
    let small_unit = a.f(f32::from_bits((127 - 64) << 23));
    let up = a.select(is_small, large_unit, one);
    let down = a.select(is_small, small_unit, one);
    let power = scale(a, up, exponent);
    let e = a.fma(power, p, power);
    // log(1 + e^x) = max(x, 0) + 2^n + (2^n p - e^2/2 + e^3 P(e)), the first sum in two parts.
    let zero = a.f(0.0);
    let is_negative = a.lt(x, zero);
    let positive = a.select(is_negative, zero, x);
    let sum = a.add(power, positive);
    let back = a.sub(sum, power);
    let lost = a.sub(positive, back);
    let square = a.mul(e, e);
    let curve = polynomial(a, e, &LOG1P);
    let rest = a.fma(power, p, lost);
    let curve = a.mul(curve, e);
    let rest = a.fma(curve, square, rest);
    let minus_half = a.f(-0.5);
    let half = a.mul(e, minus_half);
    let rest = a.fma(half, e, rest);
    let y = a.add(sum, rest);
    let y = a.mul(y, down);
    // From 20 on the result is x. Infinity and NaN are theirs as well.
    let limit = a.f(20.0);
    let is_curved = a.lt(x, limit);
    a.select(is_curved, y, x)
}

/// `log(1 - e^x)` of `x <= 0`, accurate at both ends (Maechler 2012).
pub fn log1mexp_double<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let middle = a.d(-std::f64::consts::LN_2);
    let near = double::expm1(a, x);
    let near = a.neg(near);
    let near = double::log(a, near);
    let far = double::exp(a, x);
    let far = a.neg(far);
    let far = double::log1p(a, far);
    let is_near = a.lt(middle, x);
    a.select(is_near, near, far)
}

/// `log(1 + e^x)`, finite for all finite `x`.
pub fn softplus_double<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let e = decay(a, x);
    let rest = double::log1p(a, e);
    let zero = a.f(0.0);
    let positive = a.maximum(x, zero);
    a.add(positive, rest)
}

/// `x log(y)`, and 0 for `x = 0` whatever number `y` is.
pub fn xlogy<A: Arith>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let logarithm = log(a, y);
    xlogy_of(a, x, y, logarithm)
}

/// As [`xlogy`].
pub fn xlogy_double<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let logarithm = double::log(a, y);
    xlogy_of(a, x, y, logarithm)
}

/// [`xlogy`] given the logarithm.
fn xlogy_of<A: Floats>(a: &mut A, x: A::F, y: A::F, logarithm: A::F) -> A::F {
    let product = a.mul(x, logarithm);
    let zero = a.f(0.0);
    let (is_zero, is_number) = (a.eq(x, zero), a.eq(y, y));
    let vanishes = a.and(is_zero, is_number);
    a.select(vanishes, zero, product)
}
