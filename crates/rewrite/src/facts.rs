//! What is known of the elements of a value: range, zero, integer, finite, NaN.
//!
//! Under `Strict` every fact holds for the floating-point value whatever the inputs are. Under `Real` leaves are
//! finite numbers, ranges and `nonzero` are those of real arithmetic (`exp` is never 0), while `finite` still says that
//! no overflow is to be expected: it holds for sums and products of leaves, not for `exp` of an unbounded one.

use hypatia_graph::op::Op;
use hypatia_graph::{DType, Fold, Literal, ScalarFn, TensorType};

use crate::term::Data;

/// Facts that hold for every element that is not NaN.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(crate) struct Facts {
    /// No element is smaller.
    pub(crate) low: f64,
    /// No element is larger.
    pub(crate) high: f64,
    /// No element is 0.
    pub(crate) nonzero: bool,
    /// Every element is an integer.
    pub(crate) integer: bool,
    /// No element is infinite or NaN.
    pub(crate) finite: bool,
    /// No element is NaN.
    pub(crate) number: bool,
}

/// The smallest and largest value of an integer type; all numbers for floats.
fn span(dtype: DType) -> (f64, f64) {
    match dtype {
        DType::Bool => (0.0, 1.0),
        DType::U8 => (0.0, 255.0),
        DType::I32 => (f64::from(i32::MIN), f64::from(i32::MAX)),
        DType::I64 => (i64::MIN as f64, i64::MAX as f64),
        DType::F32 | DType::F64 => (f64::NEG_INFINITY, f64::INFINITY),
    }
}

/// The smallest positive normal number of a float type.
pub(crate) fn tiny(dtype: DType) -> f64 {
    if dtype == DType::F64 { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) }
}

/// The largest argument of `exp` that surely does not overflow.
pub(crate) fn exp_limit(dtype: DType) -> f64 {
    if dtype == DType::F64 { 700.0 } else { 80.0 }
}

impl Facts {
    /// What holds for every value of the type.
    pub(crate) fn unknown(dtype: DType, strict: bool) -> Facts {
        let (low, high) = span(dtype);
        let sure = !dtype.is_float() || !strict;
        Facts { low, high, nonzero: false, integer: !dtype.is_float(), finite: sure, number: sure }
    }

    pub(crate) fn of_literal(value: Literal) -> Facts {
        let x = value.to_f64();
        let (low, high) = if x.is_nan() { (f64::NEG_INFINITY, f64::INFINITY) } else { (x, x) };
        Facts {
            low,
            high,
            nonzero: x != 0.0,
            integer: x.fract() == 0.0,
            finite: x.is_finite(),
            number: !x.is_nan(),
        }
    }

    pub(crate) fn within(low: f64, high: f64) -> Facts {
        Facts { low, high, nonzero: false, integer: false, finite: false, number: false }
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

    /// Both hold. Ranges that contradict each other (rounding at the edge of a range) leave the first.
    pub(crate) fn and(&self, other: &Facts) -> Facts {
        let (low, high) = (self.low.max(other.low), self.high.min(other.high));
        let (low, high) = if low <= high { (low, high) } else { (self.low, self.high) };
        Facts {
            low,
            high,
            nonzero: self.nonzero || other.nonzero,
            integer: self.integer || other.integer,
            finite: self.finite || other.finite,
            number: self.number || other.number,
        }
    }

    /// Elements of either.
    fn or(&self, other: &Facts) -> Facts {
        Facts {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
            nonzero: self.nonzero() && other.nonzero(),
            integer: self.integer && other.integer,
            finite: self.finite && other.finite,
            number: self.number && other.number,
        }
    }

    /// The facts of an operator's value from those of its operands.
    pub(crate) fn derive(op: &Op, ty: &TensorType, operands: &[&Data], strict: bool) -> Facts {
        let unknown = Facts::unknown(ty.dtype, strict);
        let first = operands.first().map_or(unknown, |data| data.facts);
        let facts = match op {
            Op::Map(f) => {
                let second = operands.get(1).map_or(first, |data| data.facts);
                let third = operands.get(2).map_or(second, |data| data.facts);
                map(*f, ty.dtype, &first, &second, &third, strict)
            }
            Op::Literal(value) => Facts::of_literal(*value),
            Op::Iota(_) => Facts {
                low: 0.0,
                high: ty.element_count().map_or(f64::INFINITY, |n| n.saturating_sub(1) as f64),
                ..unknown
            },
            Op::Extent(_) => Facts { low: 0.0, ..unknown },
            Op::ArgMax(axis) => {
                let extent = operands.first().and_then(|data| data.ty.shape.get(usize::from(*axis))?.known());
                Facts { low: 0.0, high: extent.map_or(f64::INFINITY, |n| n as f64 - 1.0), ..unknown }
            }
            Op::Cast(dtype) => cast(&first, operands.first().map_or(*dtype, |d| d.ty.dtype), *dtype, strict),
            Op::Reduce(fold, axes) => {
                let count = operands
                    .first()
                    .and_then(|data| axes.iter().map(|axis| data.ty.shape[axis].known()).product());
                reduce(*fold, count, &first, strict)
            }
            Op::Broadcast { .. }
            | Op::Reshape(_)
            | Op::Permute(_)
            | Op::Slice(_)
            | Op::Window(_)
            | Op::Gather { .. }
            | Op::StopGradient => first,
            Op::Concat(_) => operands.iter().fold(first, |all, data| all.or(&data.facts)),
            Op::SetWindow(_, hypatia_graph::op::Write::Set)
            | Op::SetSlice(_, hypatia_graph::op::Write::Set) => {
                first.or(&operands.get(1).map_or(unknown, |data| data.facts))
            }
            Op::Scatter { write: hypatia_graph::op::Write::Set, .. } => {
                first.or(&operands.get(2).map_or(unknown, |data| data.facts))
            }
            Op::Dot | Op::SetWindow(..) | Op::SetSlice(..) | Op::Scatter { .. } => {
                let all = operands.iter().all(|data| data.facts.finite) && !strict;
                Facts { finite: unknown.finite && all, number: unknown.number && all, ..unknown }
            }
            Op::Random { .. } => {
                // The largest is the number before 1 in steps of 2^-24.
                let high = 1.0 - 1.0 / f64::from(1 << 24);
                Facts { finite: true, number: true, ..Facts::within(0.0, high) }
            }
            Op::Leaf(_) | Op::Scan(_) | Op::Grad(_) => unknown,
        };
        facts.fitted(ty.dtype, strict)
    }

    /// Consequences of what is there, and nothing that the type does not allow.
    fn fitted(mut self, dtype: DType, strict: bool) -> Facts {
        let (least, most) = span(dtype);
        if self.low.is_nan() {
            self.low = f64::NEG_INFINITY;
        }
        if self.high.is_nan() {
            self.high = f64::INFINITY;
        }
        if !dtype.is_float() {
            // Integers wrap: a range that leaves the type says nothing.
            if self.low < least || self.high > most {
                (self.low, self.high) = (least, most);
                self.nonzero = false;
            }
            (self.integer, self.finite, self.number) = (true, true, true);
            return self;
        }
        if strict && self.low > 0.0 && self.low < tiny(dtype) {
            self.low = 0.0;
        }
        let bound = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
        if self.number && self.low >= -bound && self.high <= bound {
            self.finite = true;
        }
        self.number |= self.finite;
        self
    }
}

fn cast(x: &Facts, from: DType, to: DType, strict: bool) -> Facts {
    if to == DType::Bool {
        return Facts::unknown(to, strict);
    }
    if to.is_float() {
        return Facts { nonzero: x.nonzero() && (to >= from || !strict), ..*x };
    }
    let (least, most) = span(to);
    if from.is_float() {
        if !x.number {
            return Facts::unknown(to, strict);
        }
        return Facts {
            low: x.low.trunc().max(least),
            high: x.high.trunc().min(most),
            ..Facts::unknown(to, strict)
        };
    }
    Facts { nonzero: x.nonzero() && x.low >= least && x.high <= most, ..*x }
}

fn reduce(fold: Fold, count: Option<usize>, x: &Facts, strict: bool) -> Facts {
    let n = count.map(|n| n as f64);
    let some = count.is_some_and(|n| n > 0);
    match fold {
        Fold::Sum => {
            let times = |bound: f64, towards: f64| match n {
                Some(0.0) => 0.0,
                Some(n) => bound * n,
                None if bound == 0.0 => 0.0,
                None => towards,
            };
            let low = if x.low >= 0.0 && n.is_none() { 0.0 } else { times(x.low, f64::NEG_INFINITY) };
            let high = if x.high <= 0.0 && n.is_none() { 0.0 } else { times(x.high, f64::INFINITY) };
            Facts {
                low,
                high,
                nonzero: some && (x.positive() || x.negative()),
                integer: x.integer,
                finite: x.finite && !strict,
                number: x.number
                    && (x.finite || x.low >= 0.0 || x.high <= 0.0)
                    && (!strict || x.low >= 0.0 || x.high <= 0.0),
            }
        }
        Fold::Prod => Facts {
            low: if x.low >= 0.0 { 0.0 } else { f64::NEG_INFINITY },
            high: if x.low >= 0.0 && x.high <= 1.0 { 1.0 } else { f64::INFINITY },
            nonzero: x.nonzero() && !strict,
            integer: x.integer,
            finite: x.finite && !strict,
            number: x.finite && !strict,
        },
        Fold::Max | Fold::Min if some => *x,
        Fold::Max | Fold::Min => Facts::within(f64::NEG_INFINITY, f64::INFINITY),
        Fold::All | Fold::Any => Facts::unknown(DType::Bool, strict),
    }
}

fn map(f: ScalarFn, dtype: DType, x: &Facts, y: &Facts, z: &Facts, strict: bool) -> Facts {
    // Sums and products of finite numbers: no overflow under `Real`; nothing is sure under `Strict`.
    let joined = Facts {
        integer: x.integer && y.integer,
        finite: x.finite && y.finite && !strict,
        number: x.finite && y.finite,
        ..Facts::within(f64::NEG_INFINITY, f64::INFINITY)
    };
    let of_x =
        Facts { finite: x.finite, number: x.number, ..Facts::within(f64::NEG_INFINITY, f64::INFINITY) };
    // An increasing function that keeps numbers numbers.
    let rising = |g: fn(f64) -> f64| Facts { low: g(x.low), high: g(x.high), ..of_x };
    let corners = |g: fn(f64, f64) -> f64| {
        let product = |a: f64, b: f64| if a == 0.0 || b == 0.0 { 0.0 } else { g(a, b) };
        let all =
            [product(x.low, y.low), product(x.low, y.high), product(x.high, y.low), product(x.high, y.high)];
        (
            all.iter().copied().fold(f64::INFINITY, f64::min),
            all.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        )
    };
    let truth = Facts::unknown(DType::Bool, strict);
    match f {
        ScalarFn::Add => Facts {
            low: x.low + y.low,
            high: x.high + y.high,
            nonzero: (x.low >= 0.0 && y.low >= 0.0 || x.high <= 0.0 && y.high <= 0.0)
                && (x.nonzero() || y.nonzero()),
            ..joined
        },
        ScalarFn::Sub => Facts {
            low: x.low - y.high,
            high: x.high - y.low,
            nonzero: (x.low >= 0.0 && y.high <= 0.0 || x.high <= 0.0 && y.low >= 0.0)
                && (x.nonzero() || y.nonzero()),
            ..joined
        },
        ScalarFn::Mul => {
            let (low, high) = corners(|a, b| a * b);
            Facts { low, high, nonzero: x.nonzero() && y.nonzero() && !strict && dtype.is_float(), ..joined }
        }
        ScalarFn::Div => {
            let away = y.low >= tiny(dtype) || y.high <= -tiny(dtype);
            let (low, high) = match (x.low >= 0.0, x.high <= 0.0, y.low >= 0.0, y.high <= 0.0) {
                (true, _, true, _) | (_, true, _, true) => (0.0, f64::INFINITY),
                (true, _, _, true) | (_, true, true, _) => (f64::NEG_INFINITY, 0.0),
                _ => (f64::NEG_INFINITY, f64::INFINITY),
            };
            let (low, high) = if away && y.low == y.high { corners(|a, b| a / b) } else { (low, high) };
            Facts {
                low,
                high,
                nonzero: x.nonzero() && !strict,
                integer: false,
                finite: joined.finite && away,
                number: joined.number && away,
            }
        }
        ScalarFn::FloorDiv => Facts { integer: true, finite: false, number: false, ..joined },
        ScalarFn::Mod => {
            let positive = y.low >= 0.0;
            Facts {
                low: if positive { 0.0 } else { f64::NEG_INFINITY },
                high: if positive { y.high.max(0.0) } else { f64::INFINITY },
                finite: false,
                number: false,
                ..joined
            }
        }
        ScalarFn::Pow if x.low >= 0.0 => Facts {
            low: 0.0,
            integer: joined.integer && (y.low >= 0.0 || !dtype.is_float()),
            nonzero: x.positive() && !strict,
            finite: false,
            number: x.number && y.number,
            ..joined
        },
        ScalarFn::Pow => Facts {
            integer: joined.integer && (y.low >= 0.0 || !dtype.is_float()),
            finite: false,
            number: false,
            ..joined
        },
        ScalarFn::Max => Facts {
            low: x.low.max(y.low),
            high: x.high.max(y.high),
            nonzero: x.positive() || y.positive(),
            integer: x.integer && y.integer,
            finite: x.finite && y.finite,
            number: x.number && y.number,
        },
        ScalarFn::Min => Facts {
            low: x.low.min(y.low),
            high: x.high.min(y.high),
            nonzero: x.positive() && y.positive(),
            integer: x.integer && y.integer,
            finite: x.finite && y.finite,
            number: x.number && y.number,
        },
        ScalarFn::Neg => Facts { low: -x.high, high: -x.low, ..*x },
        ScalarFn::Abs => {
            let low = if x.low >= 0.0 { x.low } else { (-x.high).max(0.0) };
            Facts { low, high: x.high.max(-x.low), nonzero: x.nonzero(), ..*x }
        }
        ScalarFn::Sign => {
            Facts { low: sign(x.low), high: sign(x.high), nonzero: x.nonzero(), integer: true, ..of_x }
        }
        ScalarFn::Sqr => {
            let least = if x.low >= 0.0 { x.low } else { (-x.high).max(0.0) };
            let most = x.high.max(-x.low);
            Facts {
                low: least * least,
                high: most * most,
                nonzero: x.nonzero() && !strict && dtype.is_float(),
                integer: x.integer,
                finite: x.finite && !strict,
                number: x.number,
            }
        }
        ScalarFn::Sqrt => Facts {
            low: x.low.max(0.0).sqrt(),
            high: x.high.max(0.0).sqrt(),
            nonzero: x.positive(),
            integer: false,
            finite: x.finite && (x.low >= 0.0 || !strict),
            number: x.number && x.low >= 0.0,
        },
        ScalarFn::Recip => {
            let away = x.low >= tiny(dtype) || x.high <= -tiny(dtype);
            let (low, high) = if x.low > 0.0 || x.high < 0.0 {
                (1.0 / x.high, 1.0 / x.low)
            } else if x.low >= 0.0 {
                (0.0, f64::INFINITY)
            } else {
                (f64::NEG_INFINITY, f64::INFINITY)
            };
            Facts { low, high, nonzero: x.finite || !strict, finite: x.finite && away, ..of_x }
        }
        ScalarFn::Exp | ScalarFn::Exp2 => {
            let g: fn(f64) -> f64 = if f == ScalarFn::Exp { libm_exp } else { f64::exp2 };
            Facts { nonzero: !strict, finite: x.finite && x.high <= exp_limit(dtype), ..rising(g) }
        }
        ScalarFn::Expm1 => Facts {
            nonzero: x.nonzero() && !strict,
            finite: x.finite && x.high <= exp_limit(dtype),
            ..rising(f64::exp_m1)
        },
        ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10 => {
            let g: fn(f64) -> f64 = if f == ScalarFn::Log {
                f64::ln
            } else if f == ScalarFn::Log2 {
                f64::log2
            } else {
                f64::log10
            };
            Facts {
                low: if x.low > 0.0 { g(x.low) } else { f64::NEG_INFINITY },
                high: g(x.high.max(0.0)),
                finite: x.finite && x.low >= tiny(dtype),
                number: x.number && x.low >= 0.0,
                ..of_x
            }
        }
        ScalarFn::Log1p => Facts {
            low: x.low.max(-1.0).ln_1p(),
            high: x.high.max(-1.0).ln_1p(),
            nonzero: x.nonzero() && !strict,
            integer: false,
            finite: x.finite && x.low > -0.999,
            number: x.number && x.low >= -1.0,
        },
        ScalarFn::Log1mexp => Facts {
            low: f64::NEG_INFINITY,
            high: 0.0,
            finite: x.finite && x.high < -1e-30,
            number: false,
            ..of_x
        },
        ScalarFn::Sin | ScalarFn::Cos => Facts { low: -1.0, high: 1.0, number: x.finite, ..of_x },
        ScalarFn::Tan => Facts { number: x.finite, finite: x.finite && !strict, ..of_x },
        ScalarFn::Asin | ScalarFn::Atan => {
            Facts { low: -1.6, high: 1.6, number: x.number && f == ScalarFn::Atan, ..of_x }
        }
        ScalarFn::Acos => Facts { low: 0.0, high: 3.2, number: false, finite: false, ..of_x },
        ScalarFn::Atan2 => {
            Facts { low: -3.2, high: 3.2, integer: false, number: x.number && y.number, ..joined }
        }
        ScalarFn::Sinh => Facts {
            finite: x.finite && x.high <= exp_limit(dtype) && x.low >= -exp_limit(dtype),
            ..rising(f64::sinh)
        },
        ScalarFn::Cosh => Facts {
            low: 1.0,
            high: x.high.max(-x.low).cosh(),
            finite: x.finite && x.high <= exp_limit(dtype) && x.low >= -exp_limit(dtype),
            ..of_x
        },
        ScalarFn::Tanh => rising(f64::tanh),
        ScalarFn::Asinh => rising(f64::asinh),
        ScalarFn::Acosh => Facts { low: 0.0, high: f64::INFINITY, number: false, finite: false, ..of_x },
        ScalarFn::Atanh => Facts { number: false, finite: false, ..of_x },
        ScalarFn::Sigmoid => Facts { nonzero: !strict, ..rising(|x| 1.0 / (1.0 + (-x).exp())) },
        ScalarFn::Softplus => Facts { nonzero: !strict, ..rising(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()) },
        ScalarFn::Erf => Facts { low: -1.0, high: 1.0, ..of_x },
        ScalarFn::Erfc => Facts { low: 0.0, high: 2.0, nonzero: !strict, ..of_x },
        ScalarFn::Floor => Facts { integer: true, ..rising(f64::floor) },
        ScalarFn::Ceil => Facts { integer: true, ..rising(f64::ceil) },
        ScalarFn::Trunc => Facts { integer: true, ..rising(f64::trunc) },
        ScalarFn::Round => Facts { integer: true, ..rising(f64::round_ties_even) },
        ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::IsNan
        | ScalarFn::IsInf => truth,
        ScalarFn::And | ScalarFn::Or | ScalarFn::Xor | ScalarFn::Not => Facts::unknown(dtype, strict),
        ScalarFn::Select => y.or(z),
    }
}

fn sign(x: f64) -> f64 {
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        0.0
    }
}

fn libm_exp(x: f64) -> f64 {
    x.exp()
}
