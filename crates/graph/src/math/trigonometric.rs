//! Circular functions and their inverses.
//!
//! Arguments up to 10^5 are reduced by multiples of pi/2 in three parts (Cody and Waite), exact to the last bits.
//! Larger ones are multiplied in integers with those bits of 2/pi that their exponent does not make multiples of 4
//! (Payne and Hanek 1983), exact to the last bits for every number.

use super::{Arith, ROUND, SIGN, odd_polynomial, polynomial};

const TWO_OVER_PI: f32 = std::f32::consts::FRAC_2_PI;
/// pi/2 in three parts. The first two are rounded toward zero, so that all are positive: then the reduction
/// keeps the sign of zero.
const HALF_PI: [f32; 3] = [f32::from_bits(0x3fc9_0fda), 7.549_789_4e-8, 5.390_303e-15];
/// pi/2 and the remainder of its float32 value.
const HALF_PI_HIGH: f32 = std::f32::consts::FRAC_PI_2;
const HALF_PI_LOW: f32 = -4.371_139e-8;
/// `(sin r - r) / r^3` in `r^2`.
const SIN: [f32; 3] = [-1.9507896e-4, 8.332106e-3, -1.6666654e-1];
/// `(cos r - 1) / r^2` in `r^2`.
const COS: [f32; 4] = [2.4432107e-5, -1.3887308e-3, 4.1666646e-2, -0.5];
/// `(tan r - r) / r^3` in `r^2`.
const TAN: [f32; 6] = [9.424244e-3, 3.0558307e-3, 2.4468992e-2, 5.3400766e-2, 1.333892e-1, 3.3333153e-1];
/// `(atan x - x) / x^3` in `x^2` on [0, 1].
const ATAN: [f32; 9] = [
    -1.7875299e-3,
    1.0887304e-2,
    -3.1126933e-2,
    5.790651e-2,
    -8.4004745e-2,
    1.0951175e-1,
    -1.4264052e-1,
    1.9998531e-1,
    -3.33333e-1,
];
/// `(asin x - x) / x^3` in `x^2` on [0, 1/2].
const ASIN: [f32; 5] = [4.2158306e-2, 2.4184778e-2, 4.546915e-2, 7.4953094e-2, 1.6666752e-1];

/// Up to here `reduce` is exact to the last bits.
const REDUCIBLE: f32 = 1e5;
/// 2/pi in binary after nine zeros: 32 bits from every 16th bit on.
const TWO_OVER_PI_BITS: [u32; 13] = [
    0x0051_7cc1,
    0x7cc1_b727,
    0xb727_220a,
    0x220a_94fe,
    0x94fe_13ab,
    0x13ab_e8fa,
    0xe8fa_9a6e,
    0x9a6e_e06d,
    0xe06d_b14a,
    0xb14a_cc9e,
    0xcc9e_21c8,
    0x21c8_20ff,
    0x20ff_28b1,
];

/// Digits of 16 bits of 2/pi that a product takes.
const DIGITS: usize = 6;

/// `x` less the nearest multiple of pi/2, and that multiple in the two lowest bits, for `x` up to `REDUCIBLE`.
fn reduce<A: Arith>(a: &mut A, x: A::F) -> (A::F, A::I) {
    let two_over_pi = a.f(TWO_OVER_PI);
    let round = a.f(ROUND);
    let shifted = a.fma(x, two_over_pi, round);
    let n = a.sub(shifted, round);
    let mut r = x;
    for part in HALF_PI {
        let part = a.f(-part);
        r = a.fma(n, part, r);
    }
    (r, a.bits(shifted))
}

/// The same for `x` above `REDUCIBLE`; anything for infinity.
fn reduce_large<A: Arith>(a: &mut A, x: A::F) -> (A::F, A::I) {
    // x = M 2^(e - 23) with 2^23 <= M < 2^24 and 16 <= e <= 127. Bits of 2/pi that stand for 4 2^(23 - e) and more
    // make multiples of 4: the others begin e - 16 bits after the beginning of the table.
    let bits = a.bits(x);
    let fraction = a.i(0x7f_ffff);
    let fraction = a.i_and(bits, fraction);
    let first = a.i(0x80_0000);
    let mantissa = a.i_or(fraction, first);
    let begin = a.shr(bits, 23);
    let bias = a.i(127 + 16);
    let begin = a.i_sub(begin, bias);
    let mut window = TWO_OVER_PI_BITS.map(|bits| a.i(bits.cast_signed()));
    for by in [4, 2, 1] {
        let mask = a.i(16 * by as i32);
        let found = a.i_and(begin, mask);
        let is_later = a.i_eq(found, mask);
        // Those that later choices and the six digits look at.
        for i in 0..DIGITS + by - 1 {
            window[i] = a.select_i(is_later, window[i + by], window[i]);
        }
    }
    let low = a.i(15);
    let shift = a.i_and(begin, low);
    let bias = a.i(127);
    let power = a.i_add(shift, bias);
    let power = a.shl(power, 23);
    let power = a.from_bits(power);
    let power = a.to_int(power);
    // M times 96 bits from there, modulo 2^96, in digits of 16 bits, the last one first.
    let low_mask = a.i(0xfff);
    let mantissa_low = a.i_and(mantissa, low_mask);
    let mantissa_high = a.shr(mantissa, 12);
    let four_bits = a.i(15);
    let digit_mask = a.i(0xffff);
    let mut carry = a.i(0);
    let mut digits = [carry; DIGITS];
    for i in (0..DIGITS).rev() {
        let bits = a.i_mul(window[i], power);
        let bits = a.shr(bits, 16);
        let low = a.i_mul(bits, mantissa_low);
        let high = a.i_mul(bits, mantissa_high);
        let sum = a.i_add(low, carry);
        let part = a.i_and(high, four_bits);
        let part = a.shl(part, 12);
        let sum = a.i_add(sum, part);
        digits[i] = a.i_and(sum, digit_mask);
        let upper = a.shr(sum, 16);
        let rest = a.shr(high, 4);
        carry = a.i_add(upper, rest);
    }
    let word = |a: &mut A, high: A::I, low: A::I| {
        let high = a.shl(high, 16);
        a.i_or(high, low)
    };
    let high = word(a, digits[0], digits[1]);
    let low = word(a, digits[2], digits[3]);
    // Two bits before the point; the rest as a number from -1/2 to 1/2, its sign apart.
    let half = a.i(1 << 29);
    let quadrant = a.i_add(high, half);
    let quadrant = a.shr(quadrant, 30);
    let rest = a.shl(high, 2);
    let upper = a.shr(low, 30);
    let rest = a.i_or(rest, upper);
    let low = a.shl(low, 2);
    let sign = a.sar(rest, 31);
    let rest = a.i_xor(rest, sign);
    let low = a.i_xor(low, sign);
    let top = a.i(!0xff);
    let coarse = a.i_and(rest, top);
    let fine = a.shl(rest, 23);
    let all_but_sign = a.i(i32::MAX);
    let fine = a.i_and(fine, all_but_sign);
    let low = a.shr(low, 9);
    let fine = a.i_or(fine, low);
    let coarse = a.to_float(coarse);
    let fine = a.to_float(fine);
    let unit = a.f(f32::from_bits((127 - 32) << 23));
    let coarse = a.mul(coarse, unit);
    let unit = a.f(f32::from_bits((127 - 55) << 23));
    let fine = a.mul(fine, unit);
    let half_pi = a.f(HALF_PI_HIGH);
    let half_pi_low = a.f(HALF_PI_LOW);
    let r = a.mul(coarse, half_pi_low);
    let r = a.fma(fine, half_pi, r);
    let r = a.fma(coarse, half_pi, r);
    let mask = a.i(SIGN);
    let sign = a.i_and(sign, mask);
    let r = a.bits(r);
    let r = a.i_xor(r, sign);
    (a.from_bits(r), quadrant)
}

/// Which numbers `reduce` is not for.
fn is_large<A: Arith>(a: &mut A, x: A::F) -> A::M {
    let magnitude = a.abs(x);
    let limit = a.f(REDUCIBLE);
    a.lt(limit, magnitude)
}

/// `y`, NaN where `x` is infinite.
fn nan_of_infinity<A: Arith>(a: &mut A, y: A::F, x: A::F) -> A::F {
    let nothing = a.sub(x, x);
    a.add(y, nothing)
}

/// `sin(r + quadrant pi/2)` for `|r| <= pi/4`, negated where `sign` has its top bit set.
fn sine_of_reduced<A: Arith>(a: &mut A, r: A::F, quadrant: A::I, sign: A::I) -> A::F {
    let square = a.mul(r, r);
    let sine = odd_polynomial(a, r, square, &SIN);
    let one = a.f(1.0);
    let cosine = polynomial(a, square, &COS);
    let cosine = a.fma(cosine, square, one);
    let low = a.i(1);
    let low = a.i_and(quadrant, low);
    let zero = a.i(0);
    let is_even = a.i_eq(low, zero);
    let y = a.select(is_even, sine, cosine);
    let half_turn = a.shl(quadrant, 30);
    let sign = a.i_xor(half_turn, sign);
    let mask = a.i(SIGN);
    let sign = a.i_and(sign, mask);
    let bits = a.bits(y);
    let bits = a.i_xor(bits, sign);
    a.from_bits(bits)
}

/// The sine of an angle in radians.
///
/// Measured maximum error: 1.6 ULP.
pub fn sin<A: Arith>(a: &mut A, x: A::F) -> A::F {
    // Odd by construction, which keeps the sign of zero.
    let magnitude = a.abs(x);
    let (r, quadrant) = reduce(a, magnitude);
    let sign = a.bits(x);
    let y = sine_of_reduced(a, r, quadrant, sign);
    let is_large = is_large(a, x);
    a.rarely(is_large, [x, x], y, |a, [x, _]| {
        let magnitude = a.abs(x);
        let (r, quadrant) = reduce_large(a, magnitude);
        let sign = a.bits(x);
        let y = sine_of_reduced(a, r, quadrant, sign);
        nan_of_infinity(a, y, x)
    })
}

/// The sine a quarter turn further.
fn cosine_of_reduced<A: Arith>(a: &mut A, r: A::F, quadrant: A::I) -> A::F {
    let one = a.i(1);
    let quadrant = a.i_add(quadrant, one);
    let none = a.i(0);
    sine_of_reduced(a, r, quadrant, none)
}

/// The cosine of an angle in radians.
///
/// Measured maximum error: 1.6 ULP.
pub fn cos<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let (r, quadrant) = reduce(a, x);
    let y = cosine_of_reduced(a, r, quadrant);
    let is_large = is_large(a, x);
    a.rarely(is_large, [x, x], y, |a, [x, _]| {
        let magnitude = a.abs(x);
        let (r, quadrant) = reduce_large(a, magnitude);
        let y = cosine_of_reduced(a, r, quadrant);
        nan_of_infinity(a, y, x)
    })
}

/// `tan(r + quadrant pi/2)` for `|r| <= pi/4`.
fn tangent_of_reduced<A: Arith>(a: &mut A, r: A::F, quadrant: A::I) -> A::F {
    let square = a.mul(r, r);
    let tangent = odd_polynomial(a, r, square, &TAN);
    let minus_one = a.f(-1.0);
    let inverse = a.div(minus_one, tangent);
    let one = a.i(1);
    let low = a.i_and(quadrant, one);
    let is_odd = a.i_eq(low, one);
    a.select(is_odd, inverse, tangent)
}

/// The tangent of an angle in radians.
///
/// Measured maximum error: 2.8 ULP.
pub fn tan<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let (r, quadrant) = reduce(a, x);
    let y = tangent_of_reduced(a, r, quadrant);
    let is_large = is_large(a, x);
    a.rarely(is_large, [x, x], y, |a, [x, _]| {
        let magnitude = a.abs(x);
        let (r, quadrant) = reduce_large(a, magnitude);
        let y = tangent_of_reduced(a, r, quadrant);
        // Odd.
        let mask = a.i(SIGN);
        let sign = a.bits(x);
        let sign = a.i_and(sign, mask);
        let y = a.bits(y);
        let y = a.i_xor(y, sign);
        let y = a.from_bits(y);
        nan_of_infinity(a, y, x)
    })
}

/// `z` and the square from which `asin |x|` is `p = z + z^3 P(z^2)`, or `pi/2 - 2 p` where the mask.
fn arcsine<A: Arith>(a: &mut A, magnitude: A::F) -> (A::F, A::M) {
    let half = a.f(0.5);
    let minus_half = a.f(-0.5);
    let is_large = a.lt(half, magnitude);
    let square = a.mul(magnitude, magnitude);
    let complement = a.fma(magnitude, minus_half, half);
    let square = a.select(is_large, complement, square);
    let root = a.sqrt(complement);
    let z = a.select(is_large, root, magnitude);
    (odd_polynomial(a, z, square, &ASIN), is_large)
}

/// The arc sine, in [-pi/2, pi/2]; NaN outside [-1, 1].
///
/// Measured maximum error: 2.4 ULP.
pub fn asin<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let (p, is_large) = arcsine(a, t);
    let minus_two = a.f(-2.0);
    let low = a.f(HALF_PI_LOW);
    let high = a.f(HALF_PI_HIGH);
    let y = a.fma(p, minus_two, low);
    let y = a.add(y, high);
    let y = a.select(is_large, y, p);
    a.with_sign_of(y, x)
}

/// The arc cosine, in [0, pi]; NaN outside [-1, 1].
///
/// Measured maximum error: 1.2 ULP.
pub fn acos<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let (p, is_large) = arcsine(a, t);
    let zero = a.f(0.0);
    let is_negative = a.lt(x, zero);
    // Small: pi/2 - asin x. Large: 2 p, or pi - 2 p for negative x.
    let minus = a.neg(p);
    let signed = a.select(is_negative, p, minus);
    let low = a.f(HALF_PI_LOW);
    let high = a.f(HALF_PI_HIGH);
    let small = a.add(signed, low);
    let small = a.add(small, high);
    let double = a.add(p, p);
    let pi_low = a.f(2.0 * HALF_PI_LOW);
    let pi_high = a.f(2.0 * HALF_PI_HIGH);
    let far = a.sub(pi_low, double);
    let far = a.add(far, pi_high);
    let large = a.select(is_negative, far, double);
    a.select(is_large, large, small)
}

/// The arc tangent, in [-pi/2, pi/2].
///
/// Measured maximum error: 1.4 ULP.
pub fn atan<A: Arith>(a: &mut A, x: A::F) -> A::F {
    let t = a.abs(x);
    let one = a.f(1.0);
    let is_large = a.lt(one, t);
    let inverse = a.div(one, t);
    let z = a.select(is_large, inverse, t);
    let square = a.mul(z, z);
    let p = odd_polynomial(a, z, square, &ATAN);
    let low = a.f(HALF_PI_LOW);
    let high = a.f(HALF_PI_HIGH);
    let y = a.sub(low, p);
    let y = a.add(y, high);
    let y = a.select(is_large, y, p);
    a.with_sign_of(y, x)
}

/// The angle of the point (`x`, `y`), in [-pi, pi], with the conventions of IEEE 754 for signed zeros and
/// infinities.
///
/// Measured maximum error: 1.6 ULP.
pub fn atan2<A: Arith>(a: &mut A, y: A::F, x: A::F) -> A::F {
    let t = a.abs(x);
    let u = a.abs(y);
    let zero = a.f(0.0);
    let one = a.f(1.0);
    let is_steep = a.lt(t, u);
    let numerator = a.select(is_steep, t, u);
    let denominator = a.select(is_steep, u, t);
    let quotient = a.div(numerator, denominator);
    // Neither 0 / 0 nor infinity / infinity is a NaN here.
    let is_zero = a.eq(numerator, zero);
    let equal = a.select(is_zero, zero, one);
    let is_equal = a.eq(t, u);
    let z = a.select(is_equal, equal, quotient);
    let square = a.mul(z, z);
    let p = odd_polynomial(a, z, square, &ATAN);
    // From the axis nearest the point: 0, pi/2 or pi, plus or minus p.
    let x_bits = a.bits(x);
    let no_bits = a.i(0);
    let is_left = a.i_lt(x_bits, no_bits);
    let half_pi = a.f(HALF_PI_HIGH);
    let pi = a.f(2.0 * HALF_PI_HIGH);
    let minus = a.neg(p);
    let steep = a.select(is_left, p, minus);
    let flat = a.select(is_left, minus, p);
    let signed = a.select(is_steep, steep, flat);
    let axis = a.select(is_left, pi, zero);
    let axis = a.select(is_steep, half_pi, axis);
    let low = a.f(HALF_PI_LOW / HALF_PI_HIGH);
    let angle = a.fma(axis, low, signed);
    let angle = a.add(angle, axis);
    a.with_sign_of(angle, y)
}
