//! The double-precision functions that are no instructions: routines of the C library, which every engine has. Formulas
//! of them stand beside those of single precision.

use super::Floats;

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
    exp exp2 expm1 log log2 log10 log1p sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh erf erfc;
    pow atan2 fmod
}
