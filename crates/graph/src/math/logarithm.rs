//! Logarithms: the exponent, and a polynomial on half an octave around one.
//!
//! `x = 2^e (1 + f)` with `1 + f` between the square roots of 1/2 and 2, and
//! `log(1 + f) = f + f^2 (-1/2 + f P(f))`.

use super::exponential::exp_of_negative;
use super::{Arith, ONE, polynomial, with_sign_of};

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
/// `(log(1+e) - e) / e^2` on [0, 1].
const LOG1P: [f32; 10] = [
    2.08444e-3,
    -1.3691187e-2,
    4.2113908e-2,
    -8.323805e-2,
    1.2479481e-1,
    -1.6135158e-1,
    1.9899622e-1,
    -2.4988864e-1,
    3.3332714e-1,
    -4.9999988e-1,
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
pub fn log<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let parts = parts(a, x);
    let y = log_of_parts(a, parts.exponent, parts.fraction);
    log_limits(a, y, x, 0.0)
}

/// The logarithm in base 2.
pub fn log2<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let parts = parts(a, x);
    let y = log_in_base(a, &parts, (1.0, 0.0), (LOG2_E_HIGH, LOG2_E_LOW));
    log_limits(a, y, x, 0.0)
}

/// The logarithm in base 10.
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
    let y = with_sign_of(a, y, x);
    log_limits(a, y, x, -1.0)
}

/// `log(1 - e^x)` for `x < 0`: negative infinity at zero, NaN above.
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
    let below = a.lt(x, zero);
    let nan = a.f(f32::NAN);
    let infinity = a.f(f32::NEG_INFINITY);
    let at_zero = a.eq(x, zero);
    let outside = a.select(at_zero, infinity, nan);
    a.select(below, y, outside)
}

/// `log(1 + e^x)`.
pub fn softplus<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let magnitude = a.abs(x);
    let negative = a.neg(magnitude);
    let e = exp_of_negative(a, negative);
    let p = polynomial(a, e, &LOG1P);
    let square = a.mul(e, e);
    let y = a.fma(p, square, e);
    let zero = a.f(0.0);
    let is_negative = a.lt(x, zero);
    let positive = a.select(is_negative, zero, x);
    a.add(positive, y)
}
