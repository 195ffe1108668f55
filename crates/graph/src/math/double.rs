//! The double-precision functions that are no instructions: routines of the C library ([`Library`]), which
//! every engine has, and formulas of them.

use super::Floats;
use super::division::{floor_quotient_of, floor_remainder_of};

/// A routine of the C library.
#[derive(Debug)]
pub struct Library {
    /// Its name in C and in OpenCL.
    pub name: &'static str,
    /// How many operands it takes; with one, the second is not looked at.
    pub arity: usize,
    /// Its value, the same on every platform.
    pub value: fn(f64, f64) -> f64,
}

/// Arithmetic on lanes of float64 numbers that can call routines.
pub trait Doubles: Floats {
    /// The constant `value` in every lane.
    fn d(&mut self, value: f64) -> Self::F;
    /// The value of a routine.
    fn call(&mut self, routine: &'static Library, operands: [Self::F; 2]) -> Self::F;
}

macro_rules! library {
    ($($unary:ident)*; $($binary:ident)*) => {
        $(
            #[doc = concat!("`", stringify!($unary), "` of the C library.")]
            pub fn $unary<A: Doubles>(a: &mut A, x: A::F) -> A::F {
                const ROUTINE: Library =
                    Library { name: stringify!($unary), arity: 1, value: |x, _| libm::$unary(x) };
                a.call(&ROUTINE, [x, x])
            }
        )*
        $(
            #[doc = concat!("`", stringify!($binary), "` of the C library.")]
            pub fn $binary<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
                const ROUTINE: Library =
                    Library { name: stringify!($binary), arity: 2, value: libm::$binary };
                a.call(&ROUTINE, [x, y])
            }
        )*
    };
}

library! {
    exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh atanh erf erfc;
    pow atan2 fmod
}

/// Inverse hyperbolic cosine; the library's own may give a number below 1.
pub fn acosh<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    const ROUTINE: Library = Library { name: "acosh", arity: 1, value: |x, _| libm::acosh(x) };
    let found = a.call(&ROUTINE, [x, x]);
    let (one, nan) = (a.f(1.0), a.f(f32::NAN));
    let outside = a.lt(x, one);
    a.select(outside, nan, found)
}

/// `log(1 - e^x)` of `x <= 0`, accurate at both ends (Maechler 2012).
pub fn log1mexp<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let middle = a.d(-std::f64::consts::LN_2);
    let near = expm1(a, x);
    let near = a.neg(near);
    let near = log(a, near);
    let far = exp(a, x);
    let far = a.neg(far);
    let far = log1p(a, far);
    let is_near = a.lt(middle, x);
    a.select(is_near, near, far)
}

/// `e^-|x|`.
fn decay<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let size = a.abs(x);
    let minus = a.neg(size);
    exp(a, minus)
}

/// `1 / (1 + e^-x)`, accurate in both tails.
pub fn sigmoid<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let e = decay(a, x);
    let (zero, one) = (a.f(0.0), a.f(1.0));
    let is_right = a.le(zero, x);
    let above = a.select(is_right, one, e);
    let below = a.add(one, e);
    a.div(above, below)
}

/// `log(1 + e^x)`, finite for all finite `x`.
pub fn softplus<A: Doubles>(a: &mut A, x: A::F) -> A::F {
    let e = decay(a, x);
    let rest = log1p(a, e);
    let zero = a.f(0.0);
    let positive = a.maximum(x, zero);
    a.add(positive, rest)
}

/// The largest integer not above `x / y`, Python's `//`, as [`super::floor_quotient`].
pub fn floor_quotient<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = fmod(a, x, y);
    floor_quotient_of(a, x, y, truncated)
}

/// Python's `%`, as [`super::floor_remainder`].
pub fn floor_remainder<A: Doubles>(a: &mut A, x: A::F, y: A::F) -> A::F {
    let truncated = fmod(a, x, y);
    floor_remainder_of(a, y, truncated)
}
