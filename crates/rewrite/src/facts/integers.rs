//! Facts of elementwise functions of integers and of truth values.
//!
//! Ranges are computed exactly; [`Facts::whole`] says nothing where the result may wrap.

use hypatia_graph::math::{Integers, Masks};
use hypatia_graph::scalar::AppliedInteger;
use hypatia_graph::{DType, ScalarFn};

use super::{Facts, span};

type Range = (i128, i128);

/// The facts of `f(x)` or `f(x, y)`.
pub(super) fn map(f: ScalarFn, result: DType, x: &Facts, y: &Facts) -> Facts {
    let mut ranges = Ranges(result);
    let (least, most) = match f.on_integers(&mut ranges, range(x), range(y)) {
        Some(AppliedInteger::Integer(range)) => range,
        Some(AppliedInteger::Truth(())) | None => ranges.anything(),
    };
    Facts::whole(least, most, result)
}

/// The arithmetic of ranges, of which the definitions of functions make the ranges of their values. Nothing is known of
/// truth values.
struct Ranges(DType);

impl Ranges {
    fn anything(&self) -> Range {
        span(self.0)
    }

    /// The range of a result that may wrap.
    fn wrapped(&self, range: Range) -> Range {
        let all = self.anything();
        if all.0 <= range.0 && range.1 <= all.1 { range } else { all }
    }
}

impl Masks for Ranges {
    type M = ();

    fn and(&mut self, (): (), (): ()) {}
    fn or(&mut self, (): (), (): ()) {}
    fn xor(&mut self, (): (), (): ()) {}
    fn not(&mut self, (): ()) {}
}

impl Integers for Ranges {
    type N = Range;

    fn is_signed(&self) -> bool {
        self.0 != DType::U8
    }
    fn n(&mut self, value: i64) -> Range {
        (value.into(), value.into())
    }
    fn add(&mut self, a: Range, b: Range) -> Range {
        self.wrapped((a.0 + b.0, a.1 + b.1))
    }
    fn sub(&mut self, a: Range, b: Range) -> Range {
        self.wrapped((a.0 - b.1, a.1 - b.0))
    }
    fn mul(&mut self, a: Range, b: Range) -> Range {
        self.wrapped(corners(a, b, |x, y| x * y))
    }
    fn truncated_quotient(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn truncated_remainder(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn natural_power(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn maximum(&mut self, a: Range, b: Range) -> Range {
        (a.0.max(b.0), a.1.max(b.1))
    }
    fn minimum(&mut self, a: Range, b: Range) -> Range {
        (a.0.min(b.0), a.1.min(b.1))
    }
    fn bit_and(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn bit_or(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn bit_xor(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
    fn bit_not(&mut self, _: Range) -> Range {
        self.anything()
    }
    fn lt(&mut self, _: Range, _: Range) {}
    fn le(&mut self, _: Range, _: Range) {}
    fn eq(&mut self, _: Range, _: Range) {}
    fn select(&mut self, (): (), a: Range, b: Range) -> Range {
        hull(a, b)
    }
    fn abs(&mut self, a: Range) -> Range {
        self.wrapped(sizes(a))
    }
    fn sqr(&mut self, a: Range) -> Range {
        let (least, most) = sizes(a);
        self.wrapped((least * least, most * most))
    }
    fn floor_quotient(&mut self, a: Range, b: Range) -> Range {
        self.wrapped(quotients(a, b))
    }
    fn floor_remainder(&mut self, a: Range, b: Range) -> Range {
        remainders(a, b)
    }
    /// A power may wrap however small it is by itself.
    fn power(&mut self, _: Range, _: Range) -> Range {
        self.anything()
    }
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
