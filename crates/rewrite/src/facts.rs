//! What is known of the elements of a value: range, zero and its sign, integer, finite, NaN.
//!
//! Under `Strict` every fact holds for the floating-point value whatever the inputs are: both zeros, infinities, NaN and
//! subnormal numbers, rounding and overflow included. Under `Real` leaves are finite numbers (either zero among them),
//! ranges and `nonzero` are those of real arithmetic (`exp` is never 0), while `finite` still says that no overflow is
//! to be expected: it holds for sums and products of leaves, not for `exp` of an unbounded one. An infinity or NaN that
//! is written in the formula is no real number: what is computed from one keeps only the facts of `Strict`
//! ([`Facts::real`]).
//!
//! [`floats`] and [`integers`] have the facts of the elementwise functions. A test evaluates all of them on a grid of
//! special values.

mod floats;
mod integers;
#[cfg(test)]
mod tests;

use hypatia_graph::op::{Along, Class, Op, Write};
use hypatia_graph::{Axes, DType, Fold, Literal, ScalarFn, TensorType};
use smallvec::SmallVec;

use crate::term::Data;

/// Facts that hold for every element that is not NaN.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Facts {
    /// No element is smaller. Of integers, `least` rounded down.
    pub(crate) low: f64,
    /// No element is larger. Of integers, `most` rounded up.
    pub(crate) high: f64,
    /// No integer is smaller; says nothing of floats.
    pub(crate) least: i64,
    /// No integer is larger; says nothing of floats.
    pub(crate) most: i64,
    /// No element is 0.
    pub(crate) nonzero: bool,
    /// No element is the float +0.
    pub(crate) no_plus_zero: bool,
    /// No element is the float -0.
    pub(crate) no_minus_zero: bool,
    /// Every element that is finite is an integer.
    pub(crate) integer: bool,
    /// No element is infinite or NaN.
    pub(crate) finite: bool,
    /// No element is NaN.
    pub(crate) number: bool,
    /// The policy is `Real`, and no infinite or NaN constant went in.
    pub(crate) real: bool,
}

/// What is true of any float.
const ANYTHING: Facts = Facts {
    low: f64::NEG_INFINITY,
    high: f64::INFINITY,
    least: i64::MIN,
    most: i64::MAX,
    nonzero: false,
    no_plus_zero: false,
    no_minus_zero: false,
    integer: false,
    finite: false,
    number: false,
    real: false,
};

/// The smallest and largest value of a type that is no float.
fn span(dtype: DType) -> (i128, i128) {
    match dtype {
        DType::Bool => (0, 1),
        DType::U8 => (0, i128::from(u8::MAX)),
        DType::I32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
        DType::I64 | DType::F32 | DType::F64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
    }
}

/// The smallest positive normal number of a float type.
pub(crate) fn tiny(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) }
}

/// The largest number of a float type.
fn largest(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MAX } else { f64::from(f32::MAX) }
}

/// The largest argument of `exp` that surely does not overflow.
pub(crate) fn exp_limit(dtype: DType) -> f64 {
    if dtype == DType::F64 { 700.0 } else { 80.0 }
}

/// Half of the distance between 1 and the next number.
fn unit_roundoff(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::EPSILON / 2.0 } else { f64::from(f32::EPSILON) / 2.0 }
}

/// The largest number of the type that is not above, infinities included.
fn rounded_down(x: f64, dtype: DType) -> f64 {
    if dtype != DType::F32 {
        return x;
    }
    let single = x as f32;
    f64::from(if f64::from(single) > x { single.next_down() } else { single })
}

/// The smallest number of the type that is not below, infinities included.
fn rounded_up(x: f64, dtype: DType) -> f64 {
    -rounded_down(-x, dtype)
}

impl Facts {
    /// What holds for every value of the type.
    pub(crate) fn unknown(dtype: DType, strict: bool) -> Facts {
        if dtype.is_float() {
            Facts { finite: !strict, number: !strict, real: !strict, ..ANYTHING }
        } else {
            let (least, most) = span(dtype);
            Facts::whole(least, most, dtype)
        }
    }

    pub(crate) fn of_literal(value: Literal) -> Facts {
        if let Some(n) = value.to_i64() {
            return Facts::whole(i128::from(n), i128::from(n), value.dtype());
        }
        let x = value.to_f64();
        let (low, high) = if x.is_nan() { (f64::NEG_INFINITY, f64::INFINITY) } else { (x, x) };
        Facts {
            low,
            high,
            nonzero: x != 0.0,
            no_plus_zero: x != 0.0 || x.is_sign_negative(),
            no_minus_zero: x != 0.0 || x.is_sign_positive(),
            integer: !x.is_finite() || x.fract() == 0.0,
            finite: x.is_finite(),
            number: !x.is_nan(),
            real: x.is_finite(),
            ..ANYTHING
        }
    }

    /// Floats between two numbers, or NaN.
    pub(crate) fn within(low: f64, high: f64) -> Facts {
        Facts { low, high, ..ANYTHING }
    }

    /// Integers between two, ends included. Integers wrap: a range that leaves the type says nothing.
    fn whole(least: i128, most: i128, dtype: DType) -> Facts {
        let (first, last) = span(dtype);
        let (least, most) = if first <= least && most <= last { (least, most) } else { (first, last) };
        let nonzero = least > 0 || most < 0;
        let below = |n: i128| if n as f64 as i128 > n { (n as f64).next_down() } else { n as f64 };
        Facts {
            low: below(least),
            high: -below(-most),
            least: least as i64,
            most: most as i64,
            nonzero,
            // There is one zero only, which becomes +0 as a float.
            no_plus_zero: nonzero,
            no_minus_zero: true,
            integer: true,
            finite: true,
            number: true,
            real: true,
        }
    }

    pub(crate) fn positive(&self) -> bool {
        self.low > 0.0 || (self.low >= 0.0 && self.nonzero)
    }

    pub(crate) fn negative(&self) -> bool {
        self.high < 0.0 || (self.high <= 0.0 && self.nonzero)
    }

    pub(crate) fn nonzero(&self) -> bool {
        self.nonzero || self.low > 0.0 || self.high < 0.0
    }

    pub(crate) fn no_plus_zero(&self) -> bool {
        self.no_plus_zero || self.nonzero()
    }

    pub(crate) fn no_minus_zero(&self) -> bool {
        self.no_minus_zero || self.nonzero()
    }

    /// No element has a minus sign, -0 included: what its reciprocal is positive of.
    pub(crate) fn signed_plus(&self) -> bool {
        self.low >= 0.0 && self.no_minus_zero()
    }

    /// Every element has a minus sign, -0 included.
    pub(crate) fn signed_minus(&self) -> bool {
        self.high <= 0.0 && self.no_plus_zero()
    }

    /// Each element of the first is smaller than each of the second.
    pub(crate) fn below(&self, other: &Facts) -> bool {
        self.high < other.low || self.most < other.least
    }

    /// No element of the first is larger than one of the second.
    pub(crate) fn at_most(&self, other: &Facts) -> bool {
        self.high <= other.low || self.most <= other.least
    }

    /// No element of the one is 0 where one of the other is 0 with the other sign.
    pub(crate) fn zeros_agree(&self, other: &Facts) -> bool {
        (self.no_plus_zero() || other.no_minus_zero()) && (self.no_minus_zero() || other.no_plus_zero())
    }

    /// Both hold. Ranges that contradict each other (rounding at the edge of a range) leave the first.
    pub(crate) fn and(&self, other: &Facts) -> Facts {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        let (low, high) = if low <= high { (low, high) } else { (self.low, self.high) };
        let (least, most) = (self.least.max(other.least), self.most.min(other.most));
        let (least, most) = if least <= most { (least, most) } else { (self.least, self.most) };
        Facts {
            low,
            high,
            least,
            most,
            nonzero: self.nonzero || other.nonzero,
            no_plus_zero: self.no_plus_zero || other.no_plus_zero,
            no_minus_zero: self.no_minus_zero || other.no_minus_zero,
            integer: self.integer || other.integer,
            finite: self.finite || other.finite,
            number: self.number || other.number,
            real: self.real || other.real,
        }
    }

    /// Elements of either.
    pub(crate) fn or(&self, other: &Facts) -> Facts {
        Facts {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            least: self.least.min(other.least),
            most: self.most.max(other.most),
            nonzero: self.nonzero() && other.nonzero(),
            no_plus_zero: self.no_plus_zero() && other.no_plus_zero(),
            no_minus_zero: self.no_minus_zero() && other.no_minus_zero(),
            integer: self.integer && other.integer,
            finite: self.finite && other.finite,
            number: self.number && other.number,
            real: self.real && other.real,
        }
    }

    /// The facts of an operator's value from those of its operands.
    pub(crate) fn derive(op: &Op, ty: &TensorType, operands: &[&Data], strict: bool) -> Facts {
        let dtype = ty.dtype;
        let strict = strict || operands.iter().any(|data| !data.facts.real);
        let unknown = Facts::unknown(dtype, strict);
        let first = operands.first().map_or(unknown, |data| data.facts);
        match op.class() {
            Class::Map(f) => {
                let facts: SmallVec<[Facts; 3]> = operands.iter().map(|data| data.facts).collect();
                let operand = operands.last().map_or(dtype, |data| data.ty.dtype);
                Facts::of_map(f, operand, dtype, &facts, strict)
            }
            Class::Literal(value) => Facts::of_literal(value),
            Class::Index => indices(ty.element_count().filter(|_| ty.rank() > 0), dtype),
            Class::Cast(to) => cast(&first, operands.first().map_or(to, |data| data.ty.dtype), to, strict),
            Class::Fold(along) => {
                let count = |axes: Axes| {
                    let shape = &operands.first()?.ty.shape;
                    axes.iter().map(|axis| shape.get(axis)?.known()).product()
                };
                match along {
                    Along::Reduce(fold, axes) => reduce(fold, count(axes), &first, dtype, strict),
                    Along::Mean(axes) => mean(count(axes), &first),
                    Along::ArgMax(axis) => indices(count(Axes::one(axis)), dtype),
                    // Sums of one element up to all.
                    Along::Cumsum(axis) => {
                        let of = |count| reduce(Fold::Sum, count, &first, dtype, strict);
                        of(Some(1)).or(&of(count(Axes::one(axis))))
                    }
                }
            }
            Class::View(_) => first,
            Class::Assembly | Class::Indexed(_) if op.write() != Some(Write::Add) => {
                let parts = operands.iter().enumerate().filter(|(position, _)| op.carries(*position));
                parts.map(|(_, data)| data.facts).reduce(|all, part| all.or(&part)).unwrap_or(unknown)
            }
            Class::Assembly | Class::Indexed(_) | Class::Product | Class::Convolution(_) => {
                let all = operands.iter().all(|data| data.facts.finite);
                Facts { finite: unknown.finite && all, number: unknown.number && all, ..unknown }
            }
            Class::Random(_) => {
                // The largest is the number before 1 in steps of 2^-24.
                let high = 1.0 - 1.0 / f64::from(1 << 24);
                let uniform = Facts { number: true, no_minus_zero: true, ..Facts::within(0.0, high) };
                uniform.fitted(dtype, strict)
            }
            Class::Leaf(_) | Class::Scan(_) | Class::Gradient(_) => unknown,
        }
    }

    /// The facts of a function's value from those of its operands. The type of the last operand is `operand`.
    fn of_map(f: ScalarFn, operand: DType, result: DType, operands: &[Facts], strict: bool) -> Facts {
        let x = operands.first().copied().unwrap_or(ANYTHING);
        let y = operands.get(1).copied().unwrap_or(x);
        if f == ScalarFn::Select {
            return operands.get(2).map_or(ANYTHING, |z| y.or(z));
        }
        match (operand.is_float(), result.is_float()) {
            (true, true) => floats::map(f, result, &x, &y, strict).fitted(result, strict),
            (false, false) => integers::map(f, result, &x, &y),
            // A question about floats; its answer may be either.
            (true, false) | (false, true) => Facts::unknown(result, strict),
        }
    }

    /// Consequences of what is there for a value of a float type, with the range in numbers of the type.
    fn fitted(mut self, dtype: DType, strict: bool) -> Facts {
        self.low = if self.low.is_nan() { f64::NEG_INFINITY } else { rounded_down(self.low, dtype) };
        self.high = if self.high.is_nan() { f64::INFINITY } else { rounded_up(self.high, dtype) };
        if strict {
            // A device may take subnormal numbers for 0.
            let tiny = tiny(dtype);
            self.low = if 0.0 < self.low && self.low < tiny { 0.0 } else { self.low };
            self.high = if -tiny < self.high && self.high < 0.0 { 0.0 } else { self.high };
        }
        let bound = largest(dtype);
        self.finite |= self.number && self.low >= -bound && self.high <= bound;
        self.number |= self.finite;
        self.real = !strict;
        self
    }
}

/// Positions along something of that extent.
fn indices(extent: Option<usize>, dtype: DType) -> Facts {
    let last = extent.map_or(i128::from(i64::MAX), |n| n.saturating_sub(1) as i128);
    Facts::whole(0, last, dtype)
}

fn cast(x: &Facts, from: DType, to: DType, strict: bool) -> Facts {
    if from == to {
        return *x;
    }
    if to == DType::Bool {
        return if x.nonzero() { Facts::whole(1, 1, to) } else { Facts::unknown(to, strict) };
    }
    if !to.is_float() {
        let (first, last) = span(to);
        return match from.is_float() {
            false => Facts::whole(i128::from(x.least), i128::from(x.most), to),
            // What is too large becomes the largest, a NaN the smallest.
            true if x.number => {
                Facts::whole((x.low as i128).clamp(first, last), (x.high as i128).clamp(first, last), to)
            }
            true => Facts::unknown(to, strict),
        };
    }
    // Only conversions to a wider float keep every value; a narrower one may round to 0 or to infinity.
    let keeps = to > from || !strict;
    let converted = Facts {
        nonzero: x.nonzero() && keeps,
        no_plus_zero: x.no_plus_zero() && keeps || x.signed_minus(),
        no_minus_zero: x.no_minus_zero() && keeps || x.signed_plus(),
        finite: x.finite && keeps,
        ..*x
    };
    Facts { least: i64::MIN, most: i64::MAX, ..converted }.fitted(to, strict)
}

fn reduce(fold: Fold, count: Option<usize>, x: &Facts, dtype: DType, strict: bool) -> Facts {
    let some = count.is_some_and(|n| n > 0);
    match fold {
        Fold::Max | Fold::Min if some => *x,
        Fold::All | Fold::Any if some => *x,
        Fold::Max | Fold::Min | Fold::All | Fold::Any => Facts::unknown(dtype, true),
        Fold::Sum if dtype.is_float() => sum(count, x, dtype, strict),
        Fold::Prod if dtype.is_float() => Facts {
            low: if x.low >= 0.0 { 0.0 } else { f64::NEG_INFINITY },
            high: if x.low >= 0.0 && x.high <= 1.0 { 1.0 } else { f64::INFINITY },
            nonzero: x.nonzero() && !strict,
            no_minus_zero: x.signed_plus(),
            integer: x.integer,
            finite: x.finite && !strict,
            number: x.number && x.low >= -1.0 && x.high <= 1.0 || x.finite && !strict,
            ..ANYTHING
        }
        .fitted(dtype, strict),
        Fold::Sum => match count {
            Some(n) => Facts::whole(i128::from(x.least) * n as i128, i128::from(x.most) * n as i128, dtype),
            None => Facts::unknown(dtype, strict),
        },
        Fold::Prod if x.least >= 0 && x.most <= 1 => Facts::whole(0, 1, dtype),
        Fold::Prod => Facts::unknown(dtype, strict),
    }
}

/// A mean of `count` floats, which lies between the least and the largest.
fn mean(count: Option<usize>, x: &Facts) -> Facts {
    let some = count.is_some_and(|n| n > 0);
    Facts {
        low: x.low,
        high: x.high,
        nonzero: x.positive() || x.negative(),
        finite: x.finite && some,
        // Infinities of both signs have no mean.
        number: some && (x.finite || x.number && (x.low >= 0.0 || x.high <= 0.0)),
        ..ANYTHING
    }
}

/// A sum of `count` floats, in whatever order it is taken.
fn sum(count: Option<usize>, x: &Facts, dtype: DType, strict: bool) -> Facts {
    let (low, high, overflows) = match count {
        Some(0) => (0.0, 0.0, false),
        Some(n) => {
            let n = n as f64;
            // Each step rounds.
            let lost = n * unit_roundoff(dtype);
            let size = n * x.high.max(-x.low);
            let error = match (strict, lost < 0.01) {
                (false, _) => 0.0,
                (true, true) => 2.0 * lost * size,
                (true, false) => f64::INFINITY,
            };
            let fits = size + error <= largest(dtype);
            (x.low * n - error, x.high * n + error, !fits)
        }
        None => (f64::NEG_INFINITY, f64::INFINITY, true),
    };
    let one_sign = x.low >= 0.0 || x.high <= 0.0;
    Facts {
        low: if x.low >= 0.0 { low.max(0.0) } else { low },
        high: if x.high <= 0.0 { high.min(0.0) } else { high },
        nonzero: count.is_some_and(|n| n > 0) && (x.positive() || x.negative()),
        no_minus_zero: x.no_minus_zero(),
        integer: x.integer,
        finite: x.finite && (!strict || !overflows),
        // Infinities of both signs have no sum, and both may come from overflow.
        number: x.number && (one_sign || x.finite && (!strict || !overflows)),
        ..ANYTHING
    }
    .fitted(dtype, strict)
}
