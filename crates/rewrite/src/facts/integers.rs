//! Facts of elementwise functions of integers and of truth values.
//!
//! Ranges are computed exactly; [`Facts::whole`] says nothing where the result may wrap.
#![warn(clippy::wildcard_enum_match_arm)]

use hypatia_graph::{DType, ScalarFn};

use super::{Facts, span};

type Range = (i128, i128);

/// The facts of `f(x)` or `f(x, y)`.
pub(super) fn map(f: ScalarFn, result: DType, x: &Facts, y: &Facts) -> Facts {
    let (a, b) = (range(x), range(y));
    let all = span(result);
    let (least, most) = match f {
        ScalarFn::Add => (a.0 + b.0, a.1 + b.1),
        ScalarFn::Sub => (a.0 - b.1, a.1 - b.0),
        ScalarFn::Mul => corners(a, b, |x, y| x * y),
        ScalarFn::FloorDiv => quotients(a, b),
        ScalarFn::Mod => remainders(a, b),
        ScalarFn::Max => (a.0.max(b.0), a.1.max(b.1)),
        ScalarFn::Min => (a.0.min(b.0), a.1.min(b.1)),
        ScalarFn::Neg => (-a.1, -a.0),
        ScalarFn::Abs => sizes(a),
        ScalarFn::Sign => (a.0.signum(), a.1.signum()),
        ScalarFn::Sqr => {
            let (least, most) = sizes(a);
            (least * least, most * most)
        }
        // A power may wrap however small it is by itself.
        ScalarFn::Pow => all,
        ScalarFn::Lt | ScalarFn::Le | ScalarFn::Gt | ScalarFn::Ge | ScalarFn::Eq | ScalarFn::Ne => all,
        ScalarFn::And | ScalarFn::Or | ScalarFn::Xor | ScalarFn::Not => all,
        // Not defined on integers.
        ScalarFn::IsNan
        | ScalarFn::IsInf
        | ScalarFn::Div
        | ScalarFn::Sqrt
        | ScalarFn::Recip
        | ScalarFn::Exp
        | ScalarFn::Exp2
        | ScalarFn::Expm1
        | ScalarFn::Log
        | ScalarFn::Log2
        | ScalarFn::Log10
        | ScalarFn::Log1p
        | ScalarFn::Log1mexp
        | ScalarFn::Sin
        | ScalarFn::Cos
        | ScalarFn::Tan
        | ScalarFn::Asin
        | ScalarFn::Acos
        | ScalarFn::Atan
        | ScalarFn::Atan2
        | ScalarFn::Sinh
        | ScalarFn::Cosh
        | ScalarFn::Tanh
        | ScalarFn::Asinh
        | ScalarFn::Acosh
        | ScalarFn::Atanh
        | ScalarFn::Sigmoid
        | ScalarFn::Softplus
        | ScalarFn::Erf
        | ScalarFn::Erfc
        | ScalarFn::Floor
        | ScalarFn::Ceil
        | ScalarFn::Trunc
        | ScalarFn::Round
        | ScalarFn::Select => all,
    };
    Facts::whole(least, most, result)
}

fn range(x: &Facts) -> Range {
    (i128::from(x.least), i128::from(x.most))
}

fn sizes((least, most): Range) -> Range {
    (least.max(-most).max(0), most.max(-least))
}

/// The smallest and the largest of a function that, with the other operand fixed, rises or falls.
fn corners(a: Range, b: Range, f: fn(i128, i128) -> i128) -> Range {
    let joined = |one: i128, other: i128| (one.min(other), one.max(other));
    hull(joined(f(a.0, b.0), f(a.0, b.1)), joined(f(a.1, b.0), f(a.1, b.1)))
}

/// Of `x // y`; an integer divided by 0 gives 0.
fn quotients(a: Range, b: Range) -> Range {
    let floor = |x: i128, y: i128| x.div_euclid(y) - i128::from(y < 0 && x.rem_euclid(y) != 0);
    let by = |low: i128, high: i128| if low <= high { corners(a, (low, high), floor) } else { (0, 0) };
    if b.0 > 0 || b.1 < 0 {
        by(b.0, b.1)
    } else {
        hull((0, 0), hull(by(b.0, b.1.min(-1)), by(b.0.max(1), b.1)))
    }
}

/// What holds both ranges.
fn hull(a: Range, b: Range) -> Range {
    (a.0.min(b.0), a.1.max(b.1))
}

/// Of `x % y`: 0 or of the sign of `y`, and smaller; 0 for a `y` of 0.
fn remainders(a: Range, b: Range) -> Range {
    let (mut least, mut most) = ((b.0 + 1).min(0), (b.1 - 1).max(0));
    if a.0 >= 0 && b.0 >= 0 {
        most = most.min(a.1);
    }
    if a.1 <= 0 && b.1 <= 0 {
        least = least.max(a.0);
    }
    (least, most)
}
