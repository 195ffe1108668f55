//! Facts of elementwise functions of floats.
//!
//! Ends of ranges are computed in double precision; [`Facts::fitted`] makes numbers of the type of them, outwards. Of
//! arithmetic that is enough, since rounding keeps the order of numbers. Routines for other functions may be off by
//! some units in the last place, so their ends are moved outwards too.
//! That nothing is known is right for every function, so only those stand here of which something is.

use hypatia_graph::{DType, Literal, ScalarFn};

use super::{ANYTHING, Facts, exp_limit, tiny};

/// The facts of `f(x)` or `f(x, y)`, the result a float too.
#[cfg_attr(
    not(test),
    expect(clippy::wildcard_enum_match_arm, reason = "nothing known is right for every function")
)]
pub(super) fn map(f: ScalarFn, dtype: DType, x: &Facts, y: &Facts, strict: bool) -> Facts {
    // Sums and products of finite numbers: no overflow under `Real`; nothing is sure under `Strict`.
    let joined = Facts {
        integer: x.integer && y.integer,
        finite: x.finite && y.finite && !strict,
        number: x.finite && y.finite,
        ..ANYTHING
    };
    let of_x = Facts { finite: x.finite, number: x.number, ..ANYTHING };
    // The result of an odd function that rises has the sign of its operand.
    let signed = Facts { no_plus_zero: x.signed_minus(), no_minus_zero: x.signed_plus(), ..of_x };
    let unsigned = Facts { no_minus_zero: true, ..of_x };
    let not_zero = x.nonzero() && !strict;
    match f {
        ScalarFn::Add => sum(x, y, joined),
        ScalarFn::Sub => sum(x, &negative(y), joined),
        ScalarFn::Mul => {
            let (low, high) = corners(x, y, product);
            Facts { low, high, nonzero: not_zero && y.nonzero(), ..with_sign_of_product(x, y, joined) }
        }
        ScalarFn::Div => {
            let away = y.low >= tiny(dtype) || y.high <= -tiny(dtype);
            let (low, high) = if y.low > 0.0 || y.high < 0.0 {
                corners(x, y, quotient)
            } else {
                // A quotient by -0 has the sign of one by a negative number.
                match (x.low >= 0.0, x.high <= 0.0, y.signed_plus(), y.signed_minus()) {
                    (true, _, true, _) | (_, true, _, true) => (0.0, f64::INFINITY),
                    (true, _, _, true) | (_, true, true, _) => (f64::NEG_INFINITY, 0.0),
                    _ => (f64::NEG_INFINITY, f64::INFINITY),
                }
            };
            // `x / -0` is infinite of the other sign where `x` is 0 for no sign of its own.
            let number = joined.number && away;
            let joined = Facts { integer: false, finite: joined.finite && away, number, ..joined };
            Facts { low, high, nonzero: not_zero, ..with_sign_of_product(x, y, joined) }
        }
        ScalarFn::FloorDiv => Facts { integer: true, ..ANYTHING },
        // The remainder of a rounded quotient may leave the range of a remainder.
        ScalarFn::Mod => Facts { integer: joined.integer, ..ANYTHING },
        // An odd negative power of -0 is -inf.
        ScalarFn::Pow if x.signed_plus() => Facts {
            low: 0.0,
            integer: joined.integer && y.low >= 0.0,
            nonzero: x.positive() && !strict,
            no_minus_zero: true,
            number: x.number && y.number,
            ..ANYTHING
        },
        ScalarFn::Pow => Facts { integer: joined.integer && y.low >= 0.0, ..ANYTHING },
        ScalarFn::Max => Facts {
            low: x.low.max(y.low),
            high: x.high.max(y.high),
            nonzero: x.positive() || y.positive() || x.nonzero() && y.nonzero(),
            ..either(x, y)
        },
        ScalarFn::Min => Facts {
            low: x.low.min(y.low),
            high: x.high.min(y.high),
            nonzero: x.negative() || y.negative() || x.nonzero() && y.nonzero(),
            ..either(x, y)
        },
        ScalarFn::Neg => negative(x),
        ScalarFn::Abs => {
            let (low, high) = sizes(x);
            Facts { low, high, no_plus_zero: x.nonzero(), no_minus_zero: true, ..*x }
        }
        ScalarFn::Sign => Facts {
            low: sign(x.low),
            high: sign(x.high),
            nonzero: x.nonzero(),
            no_minus_zero: x.no_minus_zero(),
            integer: true,
            ..of_x
        },
        ScalarFn::Sqr => {
            let (least, most) = sizes(x);
            Facts {
                low: product(least, least),
                high: product(most, most),
                nonzero: not_zero,
                no_minus_zero: true,
                integer: x.integer,
                finite: x.finite && !strict,
                number: x.number,
                ..ANYTHING
            }
        }
        ScalarFn::Sqrt => Facts {
            low: x.low.max(0.0).sqrt(),
            high: x.high.max(0.0).sqrt(),
            nonzero: x.positive(),
            no_plus_zero: x.no_plus_zero(),
            no_minus_zero: x.no_minus_zero(),
            finite: x.finite && (x.low >= 0.0 || !strict),
            number: x.number && x.low >= 0.0,
            ..ANYTHING
        },
        ScalarFn::Recip => {
            let away = x.low >= tiny(dtype) || x.high <= -tiny(dtype);
            let (low, high) = if x.low > 0.0 || x.high < 0.0 {
                (quotient(1.0, x.high), quotient(1.0, x.low))
            } else if x.signed_plus() {
                (0.0, f64::INFINITY)
            } else if x.signed_minus() {
                (f64::NEG_INFINITY, 0.0)
            } else {
                (f64::NEG_INFINITY, f64::INFINITY)
            };
            Facts { low, high, nonzero: x.finite || !strict, finite: x.finite && away, ..signed }
        }
        ScalarFn::Exp | ScalarFn::Exp2 => Facts {
            nonzero: !strict,
            finite: x.finite && x.high <= exp_limit(dtype),
            ..rising(f, dtype, x, unsigned).clamped(0.0, f64::INFINITY)
        },
        ScalarFn::Expm1 => Facts {
            nonzero: not_zero,
            finite: x.finite && x.high <= exp_limit(dtype),
            ..rising(f, dtype, x, signed).clamped(-1.0, f64::INFINITY)
        },
        ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10 => {
            let logarithm = rising(f, dtype, &x.clamped(0.0, f64::INFINITY), of_x);
            Facts { finite: x.finite && x.low >= tiny(dtype), number: x.number && x.low >= 0.0, ..logarithm }
        }
        ScalarFn::Log1p => Facts {
            nonzero: not_zero,
            finite: x.finite && x.low > -0.999,
            number: x.number && x.low >= -1.0,
            ..rising(f, dtype, &x.clamped(-1.0, f64::INFINITY), signed)
        },
        ScalarFn::Log1mexp => Facts { high: 0.0, finite: x.finite && x.high < -1e-30, ..ANYTHING },
        ScalarFn::Sin | ScalarFn::Cos => Facts { number: x.finite, ..of_x }.clamped(-1.0, 1.0),
        ScalarFn::Tan => Facts { number: x.finite, finite: x.finite && !strict, ..ANYTHING },
        ScalarFn::Asin => {
            let inside = x.number && x.low >= -1.0 && x.high <= 1.0;
            Facts { number: inside, finite: inside, ..signed }.clamped(-1.6, 1.6)
        }
        ScalarFn::Atan => signed.clamped(-1.6, 1.6),
        ScalarFn::Acos => Facts { no_minus_zero: true, ..ANYTHING }.clamped(0.0, 3.2),
        ScalarFn::Atan2 => Facts { number: x.number && y.number, ..ANYTHING }.clamped(-3.2, 3.2),
        ScalarFn::Sinh => Facts {
            finite: x.finite && x.high <= exp_limit(dtype) && x.low >= -exp_limit(dtype),
            ..rising(f, dtype, x, signed)
        },
        ScalarFn::Cosh => Facts {
            low: 1.0,
            high: about(f, dtype, x.high.max(-x.low)).1,
            finite: x.finite && x.high <= exp_limit(dtype) && x.low >= -exp_limit(dtype),
            ..of_x
        },
        ScalarFn::Tanh => rising(f, dtype, x, signed).clamped(-1.0, 1.0),
        ScalarFn::Asinh => rising(f, dtype, x, signed),
        ScalarFn::Acosh => Facts { low: 0.0, ..ANYTHING },
        ScalarFn::Sigmoid => Facts { nonzero: !strict, ..rising(f, dtype, x, unsigned).clamped(0.0, 1.0) },
        ScalarFn::Softplus => {
            Facts { nonzero: !strict, ..rising(f, dtype, x, unsigned).clamped(0.0, f64::INFINITY) }
        }
        ScalarFn::Erf => signed.clamped(-1.0, 1.0),
        ScalarFn::Erfc => Facts { nonzero: !strict, ..unsigned.clamped(0.0, 2.0) },
        ScalarFn::Floor => Facts {
            low: x.low.floor(),
            high: x.high.floor(),
            ..whole(Facts { no_minus_zero: x.no_minus_zero(), ..of_x })
        },
        ScalarFn::Ceil => Facts { low: x.low.ceil(), high: x.high.ceil(), ..whole(signed) },
        ScalarFn::Trunc => Facts { low: x.low.trunc(), high: x.high.trunc(), ..whole(signed) },
        ScalarFn::Round => {
            Facts { low: x.low.round_ties_even(), high: x.high.round_ties_even(), ..whole(signed) }
        }
        _ => ANYTHING,
    }
}

impl Facts {
    /// With ends between two numbers.
    fn clamped(&self, low: f64, high: f64) -> Facts {
        Facts { low: self.low.clamp(low, high), high: self.high.clamp(low, high), ..*self }
    }
}

fn whole(facts: Facts) -> Facts {
    Facts { integer: true, ..facts }
}

/// Of each element with the other sign.
fn negative(x: &Facts) -> Facts {
    Facts { low: -x.high, high: -x.low, no_plus_zero: x.no_minus_zero, no_minus_zero: x.no_plus_zero, ..*x }
}

/// The smallest and the largest size of an element.
fn sizes(x: &Facts) -> (f64, f64) {
    (x.low.max(-x.high).max(0.0), x.high.max(-x.low))
}

fn sum(x: &Facts, y: &Facts, joined: Facts) -> Facts {
    let one_sign = x.low >= 0.0 && y.low >= 0.0 || x.high <= 0.0 && y.high <= 0.0;
    Facts {
        low: x.low + y.low,
        high: x.high + y.high,
        // A sum that is not 0 does not underflow to it.
        nonzero: one_sign && (x.nonzero() || y.nonzero()),
        // What cancels is +0, and -0 is the sum of -0 and -0 alone.
        no_plus_zero: x.signed_minus() && y.signed_minus(),
        no_minus_zero: x.no_minus_zero() || y.no_minus_zero(),
        ..joined
    }
}

/// A product or quotient that is 0 has a sign all the same.
fn with_sign_of_product(x: &Facts, y: &Facts, joined: Facts) -> Facts {
    let alike = x.signed_plus() && y.signed_plus() || x.signed_minus() && y.signed_minus();
    let unlike = x.signed_plus() && y.signed_minus() || x.signed_minus() && y.signed_plus();
    Facts { no_plus_zero: unlike, no_minus_zero: alike, ..joined }
}

/// What `maximum` and `minimum` share: the result is one of the two.
fn either(x: &Facts, y: &Facts) -> Facts {
    x.or(y)
}

/// The smallest and the largest of a function that, with the other operand fixed, rises or falls.
fn corners(x: &Facts, y: &Facts, f: fn(f64, f64) -> f64) -> (f64, f64) {
    let all = [f(x.low, y.low), f(x.low, y.high), f(x.high, y.low), f(x.high, y.high)];
    if all.iter().any(|corner| corner.is_nan()) {
        return (f64::NEG_INFINITY, f64::INFINITY);
    }
    (all.iter().copied().fold(f64::INFINITY, f64::min), all.iter().copied().fold(f64::NEG_INFINITY, f64::max))
}

/// The product as an end of a range: an end that is infinite stands for numbers without a bound, and what underflows
/// is not 0.
fn product(x: f64, y: f64) -> f64 {
    if x == 0.0 || y == 0.0 { 0.0 } else { not_underflown(x * y, x.signum() * y.signum()) }
}

/// As [`product`]; NaN where both are infinite.
fn quotient(x: f64, y: f64) -> f64 {
    if x == 0.0 || y.is_infinite() { x / y } else { not_underflown(x / y, x.signum() * y.signum()) }
}

fn not_underflown(x: f64, sign: f64) -> f64 {
    if x == 0.0 { sign * f64::from_bits(1) } else { x }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// The range of a function that rises.
fn rising(f: ScalarFn, dtype: DType, x: &Facts, facts: Facts) -> Facts {
    Facts { low: about(f, dtype, x.low).0, high: about(f, dtype, x.high).1, ..facts }
}

/// How far a routine may be off, relative to its value.
fn slack(dtype: DType) -> f64 {
    if dtype == DType::F64 { 8.0 * f64::EPSILON } else { 8.0 * f64::from(f32::EPSILON) }
}

/// Bounds of the value of a function as any routine may compute it; the values at 0 and at infinities are exact.
fn about(f: ScalarFn, dtype: DType, x: f64) -> (f64, f64) {
    let Some(value) = f.eval(&[Literal::from_f64(x, DType::F64)]).map(Literal::to_f64) else {
        return (f64::NEG_INFINITY, f64::INFINITY);
    };
    let logarithm = matches!(f, ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10);
    let exact = x == 0.0 && f != ScalarFn::Softplus || x == 1.0 && logarithm;
    if exact || x.is_infinite() || value.is_nan() {
        return (value, value);
    }
    let error = value.abs() * slack(dtype);
    // Beyond the largest number a routine may or may not have overflowed.
    let least = if value == f64::INFINITY { f64::MAX } else { value - error };
    let most = if value == f64::NEG_INFINITY { f64::MIN } else { value + error };
    (least.next_down(), most.next_up())
}
