//! The elementwise functions: name, arity, typing rule, meaning, and what passes ask about them.
//!
//! `scalar_functions!` is the one list of them. The graph holds them under `Op::Map`, kernels hold the same value, so
//! fusing operators is joining their bodies. A line of the list names the formulas that define the function over the
//! abstract arithmetics of [`crate::math`], which every engine instantiates, and says what the function is like
//! ([`Properties`]): passes ask for properties and do not list functions.

use std::f64::consts::FRAC_PI_2;
use std::fmt;

use crate::dtype::{DType, Literal};
use crate::math::{self, Arith, Checked, Doubles, Floats, Integers, Masks, Plain, PlainDouble, PlainInteger};

/// Calls a macro with the list of all functions. A line is
///
/// `Variant "name" arity Domain(formulas) { properties } as method;`
///
/// Formulas by domain: `Number(floats, integers)`, or `Number(singles, doubles, integers)` where the precisions differ;
/// `Float(floats)` or `Float(singles, doubles)`; `Bits(integers, truths)`; `Compare(floats, integers, truths)`;
/// `Test(floats)`; `Select()`. Properties that are left out are those of [`Properties::PLAIN`]. A function with a
/// `method` is one of `Tensor`, with the same documentation.
macro_rules! scalar_functions {
    ($callback:ident) => {
        $callback! {
            /// `x + y`; integers wrap.
            Add "add" 2 Number(Floats::add, Integers::add)
                { commutative: true, risk: Risk::Sum, zeros: Zeros::OfOperands };
            /// `x - y`; integers wrap.
            Sub "sub" 2 Number(Floats::sub, Integers::sub) { risk: Risk::Difference };
            /// `x * y`; integers wrap.
            Mul "mul" 2 Number(Floats::mul, Integers::mul)
                { commutative: true, risk: Risk::Product, zeros: Zeros::OfOperands };
            /// True division `x / y` of floats.
            Div "div" 2 Float(Floats::div)
                { work: 5, risk: Risk::Quotient, is_sensitive: true, zeros: Zeros::OfOperands, edge: Edge::End };
            /// `floor(x / y)`, Python's `//`, for floats found from the exact remainder (`1.0 // 0.1` is 9); an integer
            /// divided by zero gives 0. Its gradient is zero.
            FloorDiv "floordiv" 2
                Number(math::floor_quotient, math::floor_quotient_double, Integers::floor_quotient)
                { work: 20, takes_steps: true, is_flat: true, edge: Edge::Jump } as floordiv;
            /// `x - floor(x / y) * y`: the sign of the divisor, Python's `%`; exact for floats but for the one sum that
            /// brings the sign of `x` to that of `y`. An integer modulo zero gives 0.
            Mod "mod" 2
                Number(math::floor_remainder, math::floor_remainder_double, Integers::floor_remainder)
                { work: 20, takes_steps: true, edge: Edge::Jump };
            /// `x` to the power `y`, as IEEE `pow`; integer powers wrap, a negative exponent truncates `1 / x^|y|`.
            Pow "pow" 2 Number(math::pow, math::double::pow, Integers::power)
                {
                    work: 50, ulps: 2.0, takes_steps: true, risk: Risk::Power, is_sensitive: true,
                    edge: Edge::End,
                } as pow;
            /// The larger; a NaN operand gives NaN, 0 is larger than -0. On a tie the gradient goes to the first operand.
            Max "maximum" 2 Number(Floats::maximum, Integers::maximum)
                { commutative: true, rounds: false, zeros: Zeros::OfOperands } as maximum;
            /// The smaller; a NaN operand gives NaN, -0 is smaller than 0. On a tie the gradient goes to the first
            /// operand.
            Min "minimum" 2 Number(Floats::minimum, Integers::minimum)
                { commutative: true, rounds: false, zeros: Zeros::OfOperands } as minimum;
            /// `-x`; integers wrap.
            Neg "neg" 1 Number(Floats::neg, Integers::neg) { rounds: false };
            /// `|x|`; the gradient at 0 is 0.
            Abs "abs" 1 Number(Floats::abs, Integers::abs) { rounds: false } as abs;
            /// -1, 0 or 1, 0 of -0; NaN stays NaN. Its gradient is zero.
            Sign "sign" 1 Number(Floats::sign, Integers::sign)
                { work: 2, rounds: false, is_flat: true, edge: Edge::Jump } as sign;
            /// `x * x`.
            Sqr "sqr" 1 Number(Floats::sqr, Integers::sqr) { zeros: Zeros::Flat } as sqr;
            /// Square root. Its slope at 0 is infinite; of a sum of squares (`x.sqr().sum(All)`, a variance) the gradient
            /// at 0 is 0, as that of `abs` is.
            Sqrt "sqrt" 1 Float(Floats::sqrt)
                { work: 5, risk: Risk::Root, is_sensitive: true, edge: Edge::End, smooth: POSITIVE } as sqrt;
            /// `1 / x`.
            Recip "reciprocal" 1 Float(Floats::reciprocal)
                {
                    work: 5, risk: Risk::Reciprocal, is_sensitive: true, zeros: Zeros::OfOperands,
                    edge: Edge::End, smooth: POSITIVE,
                } as reciprocal;
            /// `e^x`.
            Exp "exp" 1 Float(math::exp, math::double::exp)
                { work: 20, ulps: 1.5, risk: Risk::Overflow, is_sensitive: true, zeros: Zeros::Flat } as exp;
            /// `2^x`.
            Exp2 "exp2" 1 Float(math::exp2, math::double::exp2)
                { work: 20, ulps: 1.5, risk: Risk::Overflow, is_sensitive: true, zeros: Zeros::Flat } as exp2;
            /// `e^x - 1`, accurate near 0.
            Expm1 "expm1" 1 Float(math::expm1, math::double::expm1)
                { work: 20, ulps: 1.5, risk: Risk::Overflow, is_sensitive: true, zeros: Zeros::OfOperands } as expm1;
            /// Natural logarithm.
            Log "log" 1 Float(math::log, math::double::log)
                {
                    work: 20, ulps: 1.5, risk: Risk::Logarithm, is_sensitive: true, edge: Edge::End,
                    smooth: POSITIVE,
                } as log;
            /// Logarithm to base 2.
            Log2 "log2" 1 Float(math::log2, math::double::log2)
                {
                    work: 20, ulps: 2.5, risk: Risk::Logarithm, is_sensitive: true, edge: Edge::End,
                    smooth: POSITIVE,
                } as log2;
            /// Logarithm to base 10.
            Log10 "log10" 1 Float(math::log10, math::double::log10)
                {
                    work: 20, ulps: 2.5, risk: Risk::Logarithm, is_sensitive: true, edge: Edge::End,
                    smooth: POSITIVE,
                } as log10;
            /// `log(1 + x)`, accurate near 0.
            Log1p "log1p" 1 Float(math::log1p, math::double::log1p)
                {
                    work: 20, ulps: 1.5, risk: Risk::LogOfOnePlus, is_sensitive: true, zeros: Zeros::OfOperands,
                    edge: Edge::End, smooth: (-1.0, f64::INFINITY),
                } as log1p;
            /// `x * log(y)`, and 0 for `x = 0` whatever number `y` is, as the limit of `x log(x)`. Where `x` is 0 the slope
            /// in `y` is 0, and that in `x` is 0 for a `y` that has no logarithm.
            XLogY "xlogy" 2 Float(math::xlogy, math::xlogy_double)
                {
                    work: 25, ulps: 3.0, risk: Risk::Logarithm, is_sensitive: true, edge: Edge::End,
                    smooth: POSITIVE,
                } as xlogy;
            /// `log(1 - e^x)` of `x <= 0`, accurate at both ends (Maechler 2012).
            Log1mexp "log1mexp" 1 Float(math::log1mexp, math::log1mexp_double)
                { work: 35, ulps: 2.5, is_sensitive: true, edge: Edge::End, smooth: (f64::NEG_INFINITY, 0.0) }
                as log1mexp;
            /// Sine of radians.
            Sin "sin" 1 Float(math::sin, math::double::sin) { work: 25, ulps: 2.5 } as sin;
            /// Cosine of radians.
            Cos "cos" 1 Float(math::cos, math::double::cos) { work: 25, ulps: 2.5 } as cos;
            /// Tangent of radians.
            Tan "tan" 1 Float(math::tan, math::double::tan)
                { work: 25, ulps: 3.0, edge: Edge::Pole, smooth: (-FRAC_PI_2, FRAC_PI_2) } as tan;
            /// Inverse sine, radians in [-pi/2, pi/2].
            Asin "arcsin" 1 Float(math::asin, math::double::asin)
                { work: 25, ulps: 3.0, edge: Edge::End, smooth: BETWEEN_ONES } as arcsin;
            /// Inverse cosine, radians in [0, pi].
            Acos "arccos" 1 Float(math::acos, math::double::acos)
                { work: 25, ulps: 3.0, edge: Edge::End, smooth: BETWEEN_ONES } as arccos;
            /// Inverse tangent, radians in (-pi/2, pi/2).
            Atan "arctan" 1 Float(math::atan, math::double::atan)
                { work: 25, ulps: 2.5, zeros: Zeros::OfOperands } as arctan;
            /// Angle of the point `(x = other, y = self)`, radians in [-pi, pi].
            Atan2 "arctan2" 2 Float(math::atan2, math::double::atan2)
                { work: 30, ulps: 2.5, edge: Edge::Jump } as arctan2;
            /// Hyperbolic sine.
            Sinh "sinh" 1 Float(math::sinh, math::double::sinh)
                { work: 30, ulps: 2.5, risk: Risk::OverflowEitherWay, zeros: Zeros::OfOperands } as sinh;
            /// Hyperbolic cosine.
            Cosh "cosh" 1 Float(math::cosh, math::double::cosh)
                { work: 30, ulps: 2.5, risk: Risk::OverflowEitherWay, zeros: Zeros::Flat } as cosh;
            /// Hyperbolic tangent.
            Tanh "tanh" 1 Float(math::tanh, math::double::tanh)
                { work: 20, ulps: 1.5, saturates: true, zeros: Zeros::OfOperands } as tanh;
            /// Inverse hyperbolic sine.
            Asinh "arcsinh" 1 Float(math::asinh, math::double::asinh)
                { work: 30, ulps: 2.5, zeros: Zeros::OfOperands } as arcsinh;
            /// Inverse hyperbolic cosine.
            Acosh "arccosh" 1 Float(math::acosh, math::acosh_double)
                { work: 30, ulps: 2.5, is_sensitive: true, edge: Edge::End, smooth: (1.0, f64::INFINITY) }
                as arccosh;
            /// Inverse hyperbolic tangent.
            Atanh "arctanh" 1 Float(math::atanh, math::double::atanh)
                { work: 30, ulps: 2.5, is_sensitive: true, edge: Edge::End, smooth: BETWEEN_ONES } as arctanh;
            /// `1 / (1 + e^-x)`, accurate in both tails.
            Sigmoid "sigmoid" 1 Float(math::sigmoid, math::sigmoid_double)
                { work: 20, ulps: 1.5, saturates: true, zeros: Zeros::Flat } as sigmoid;
            /// `log(1 + e^x)`, finite for all finite `x`.
            Softplus "softplus" 1 Float(math::softplus, math::softplus_double)
                { work: 35, ulps: 1.53, is_sensitive: true, zeros: Zeros::Flat } as softplus;
            /// Error function.
            Erf "erf" 1 Float(math::erf, math::double::erf) { work: 35, ulps: 2.5, saturates: true } as erf;
            /// `1 - erf(x)`, accurate in the right tail.
            Erfc "erfc" 1 Float(math::erfc, math::double::erfc) { work: 35, ulps: 2.5, saturates: true } as erfc;
            /// The inverse of the error function, infinite at 1 and -1.
            Erfinv "erfinv" 1 Float(math::erfinv, math::erfinv_double)
                { work: 40, ulps: 2.5, zeros: Zeros::OfOperands, edge: Edge::End, smooth: BETWEEN_ONES } as erfinv;
            /// Largest integer not above; integers, here and in the next three, stay what they are. Its gradient is zero,
            /// as that of the other roundings.
            Floor "floor" 1 Float(Floats::floor)
                { work: 2, rounds: false, is_flat: true, edge: Edge::Jump } as floor;
            /// Smallest integer not below.
            Ceil "ceil" 1 Float(Floats::ceil)
                { work: 2, rounds: false, is_flat: true, edge: Edge::Jump } as ceil;
            /// Towards zero.
            Trunc "trunc" 1 Float(Floats::trunc)
                { work: 2, rounds: false, is_flat: true, edge: Edge::Jump } as trunc;
            /// To the nearest integer, halves to the even one.
            Round "round" 1 Float(Floats::nearest)
                { work: 2, rounds: false, is_flat: true, edge: Edge::Jump } as round;
            /// `x < y`; false where either is NaN, as are the next five but `neq`.
            Lt "lt" 2 Compare(Floats::lt, Integers::lt, Masks::truth_lt) { edge: Edge::Jump } as lt;
            /// `x <= y`.
            Le "le" 2 Compare(Floats::le, Integers::le, Masks::truth_le) { edge: Edge::Jump } as le;
            /// `x > y`.
            Gt "gt" 2 Compare(Floats::gt, Integers::gt, Masks::truth_gt) { edge: Edge::Jump } as gt;
            /// `x >= y`.
            Ge "ge" 2 Compare(Floats::ge, Integers::ge, Masks::truth_ge) { edge: Edge::Jump } as ge;
            /// `x == y`.
            Eq "eq" 2 Compare(Floats::eq, Integers::eq, Masks::truth_eq)
                { commutative: true, edge: Edge::Jump } as eq;
            /// `x != y`; true where either is NaN.
            Ne "ne" 2 Compare(Floats::ne, Integers::ne, Masks::xor) { commutative: true, edge: Edge::Jump } as neq;
            /// Both, bit by bit.
            And "and" 2 Bits(Integers::bit_and, Masks::and) { commutative: true };
            /// Either, bit by bit.
            Or "or" 2 Bits(Integers::bit_or, Masks::or) { commutative: true };
            /// One but not both, bit by bit.
            Xor "xor" 2 Bits(Integers::bit_xor, Masks::xor) { commutative: true };
            /// Complement: of a truth value, of every bit of an integer.
            Not "not" 1 Bits(Integers::bit_not, Masks::not) {};
            /// Whether NaN.
            IsNan "isnan" 1 Test(Floats::is_nan) {} as isnan;
            /// Whether infinite.
            IsInf "isinf" 1 Test(Floats::is_infinite) {} as isinf;
            /// The second operand where the first is true, else the third.
            Select "switch" 3 Select() { rounds: false, zeros: Zeros::OfOperands };
        }
    };
}
pub(crate) use scalar_functions;

/// The element types that a function takes.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Domain {
    /// `f32`, `f64`; the result has the same type.
    Float,
    /// All but `bool`; the result has the same type.
    Number,
    /// `bool` and integers, bit by bit; the result has the same type.
    Bits,
    /// Any type; the result is `bool`.
    Compare,
    /// Floats; the result is `bool`.
    Test,
    /// `(bool, T, T)` for any `T`; the result is `T`.
    Select,
}

/// How a value may be worse than it had to be, by which formulas of equal meaning are compared.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Risk {
    /// Not at all.
    None,
    /// It overflows for large operands.
    Overflow,
    /// It overflows for large operands of either sign.
    OverflowEitherWay,
    /// It is infinite at 0, and loses digits near 1.
    Logarithm,
    /// It is infinite at -1.
    LogOfOnePlus,
    /// The root of a sum that overflows before the root would.
    Root,
    /// A power of what overflows before it.
    Power,
    /// Of what is infinite it is 0.
    Reciprocal,
    /// Of two infinite operands, or of zeros.
    Quotient,
    /// Of what is 0 and what is infinite.
    Product,
    /// Of opposite operands that cancel.
    Sum,
    /// Of operands that cancel.
    Difference,
}

/// Where a function is 0, for roots of it: the infinite slope of a root meets the function's own slope there.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Zeros {
    /// Nowhere, or where its slope is 0 too.
    Flat,
    /// Only where operands are, and flat there if they are.
    OfOperands,
    /// Nothing is known.
    Anywhere,
}

/// Where a small change of an operand may change the value much.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Edge {
    /// Nowhere.
    None,
    /// It jumps where its operands are equal, or at multiples of a half.
    Jump,
    /// It has no value, or an infinite one, at 0 or 1 or beyond.
    End,
    /// It has a pole in each period, which the roundings of a large operand step over.
    Pole,
}

/// What passes ask about a function.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Properties {
    /// What computing an element takes, in additions: 1 for a single fast instruction, up to 2 for a few of them, up to 8
    /// for what a division or a root is part of, 20 and more for series. This is the one grading of functions by cost:
    /// what is cheaper to compute again than to keep or to load is decided by it, and what a formula costs.
    pub work: u32,
    /// The largest error on `f32`, in units in the last place of the exact result.
    pub ulps: f64,
    /// Whether swapping the two operands never changes the value.
    pub commutative: bool,
    /// Whether the value of floats is rounded, rather than one of a few numbers or an operand.
    pub rounds: bool,
    /// Whether a value of integers takes a division or a scan, which no vector instruction does.
    pub takes_steps: bool,
    /// Whether it tends to a number on both sides.
    pub saturates: bool,
    /// Whether a value of floats moves by jumps only, so that its derivative is 0 wherever there is one.
    pub is_flat: bool,
    /// Whether it overflows or loses digits, so that rules can do something once they see what its operand is.
    pub is_sensitive: bool,
    /// How it compares with other formulas of the same meaning.
    pub risk: Risk,
    /// Where it is 0.
    pub zeros: Zeros,
    /// Where it is not continuous.
    pub edge: Edge,
    /// An interval of operands in which it is smooth.
    pub smooth: (f64, f64),
}

impl Properties {
    /// A fast function that is smooth everywhere.
    const PLAIN: Properties = Properties {
        work: 1,
        ulps: 0.5,
        commutative: false,
        rounds: true,
        takes_steps: false,
        saturates: false,
        is_flat: false,
        is_sensitive: false,
        risk: Risk::None,
        zeros: Zeros::Anywhere,
        edge: Edge::None,
        smooth: (f64::NEG_INFINITY, f64::INFINITY),
    };
}

/// What a function of floats gives.
pub enum Applied<A: Floats> {
    /// A float.
    Float(A::F),
    /// A truth value.
    Truth(A::M),
}

/// What a function of integers gives.
pub enum AppliedInteger<A: Integers> {
    /// An integer.
    Integer(A::N),
    /// A truth value.
    Truth(A::M),
}

/// A formula of one or two operands, by the arity.
macro_rules! call {
    (1 $formula:path, $a:ident $x:ident $y:ident) => {
        $formula($a, $x)
    };
    (2 $formula:path, $a:ident $x:ident $y:ident) => {
        $formula($a, $x, $y)
    };
}

/// The value that both precisions define alike.
macro_rules! of_floats {
    ($n:tt Number($f:path, $i:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $f, $($operands)*))) };
    ($n:tt Float($f:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $f, $($operands)*))) };
    ($n:tt Compare($f:path, $i:path, $m:path), $($operands:tt)*) => { Some(Applied::Truth(call!($n $f, $($operands)*))) };
    ($n:tt Test($f:path), $($operands:tt)*) => { Some(Applied::Truth(call!($n $f, $($operands)*))) };
    ($n:tt $other:ident($($formulas:path),*), $($operands:tt)*) => { None };
}

/// The value that single precision has by itself.
macro_rules! of_singles {
    ($n:tt Number($f:path, $d:path, $i:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $f, $($operands)*))) };
    ($n:tt Float($f:path, $d:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $f, $($operands)*))) };
    ($n:tt $other:ident($($formulas:path),*), $a:ident $x:ident $y:ident) => { None };
}

/// The value that double precision has by itself.
macro_rules! of_doubles {
    ($n:tt Number($f:path, $d:path, $i:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $d, $($operands)*))) };
    ($n:tt Float($f:path, $d:path), $($operands:tt)*) => { Some(Applied::Float(call!($n $d, $($operands)*))) };
    ($n:tt $other:ident($($formulas:path),*), $a:ident $x:ident $y:ident) => { None };
}

macro_rules! of_integers {
    ($n:tt Number($f:path, $i:path), $($operands:tt)*) => { Some(AppliedInteger::Integer(call!($n $i, $($operands)*))) };
    ($n:tt Number($f:path, $d:path, $i:path), $($operands:tt)*) => { Some(AppliedInteger::Integer(call!($n $i, $($operands)*))) };
    ($n:tt Bits($i:path, $m:path), $($operands:tt)*) => { Some(AppliedInteger::Integer(call!($n $i, $($operands)*))) };
    ($n:tt Compare($f:path, $i:path, $m:path), $($operands:tt)*) => { Some(AppliedInteger::Truth(call!($n $i, $($operands)*))) };
    ($n:tt $other:ident($($formulas:path),*), $($operands:tt)*) => { None };
}

macro_rules! of_truths {
    ($n:tt Bits($i:path, $m:path), $($operands:tt)*) => { Some(call!($n $m, $($operands)*)) };
    ($n:tt Compare($f:path, $i:path, $m:path), $($operands:tt)*) => { Some(call!($n $m, $($operands)*)) };
    ($n:tt $other:ident($($formulas:path),*), $($operands:tt)*) => { None };
}

macro_rules! define {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $arity:tt
        $domain:ident($($formula:path),*) { $($property:ident: $value:expr),* $(,)? } $(as $method:ident)?;)*) => {
        /// A function of one, two or three elements. Operands of one call have equal shapes and, but for the condition
        /// of `Select`, equal types.
        #[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub enum ScalarFn { $($(#[doc = $doc])+ $variant,)* }

        impl ScalarFn {
            /// Every function, for tables and tests.
            pub const ALL: &'static [ScalarFn] = &[$(ScalarFn::$variant,)*];

            /// The name in text, messages and rules.
            pub fn name(self) -> &'static str {
                match self { $(ScalarFn::$variant => $name,)* }
            }

            /// How many operands it takes.
            pub fn arity(self) -> usize {
                match self { $(ScalarFn::$variant => $arity,)* }
            }

            /// On which element types it is defined.
            pub fn domain(self) -> Domain {
                match self { $(ScalarFn::$variant => Domain::$domain,)* }
            }

            /// What it is like.
            pub fn properties(self) -> Properties {
                match self {
                    $(ScalarFn::$variant => {
                        #[allow(clippy::needless_update, reason = "a line may state all properties")]
                        Properties { $($property: $value,)* ..Properties::PLAIN }
                    })*
                }
            }

            /// The function where single and double precision are defined alike, by basic operations; `None` elsewhere.
            /// `y` is looked at by binary functions only, here and in the next four.
            pub fn on_floats<A: Floats>(self, a: &mut A, x: A::F, y: A::F) -> Option<Applied<A>> {
                match self { $(ScalarFn::$variant => of_floats!($arity $domain($($formula),*), a x y),)* }
            }

            /// The function on `f32` lanes; `None` for those that are not functions of floats alone.
            pub fn on_singles<A: Arith>(self, a: &mut A, x: A::F, y: A::F) -> Option<Applied<A>> {
                let own = match self { $(ScalarFn::$variant => of_singles!($arity $domain($($formula),*), a x y),)* };
                own.or_else(|| self.on_floats(a, x, y))
            }

            /// As [`ScalarFn::on_singles`], on `f64` lanes.
            pub fn on_doubles<A: Doubles>(self, a: &mut A, x: A::F, y: A::F) -> Option<Applied<A>> {
                let own = match self { $(ScalarFn::$variant => of_doubles!($arity $domain($($formula),*), a x y),)* };
                own.or_else(|| self.on_floats(a, x, y))
            }

            /// The function on lanes of integers; `None` for those that are not functions of integers alone.
            pub fn on_integers<A: Integers>(self, a: &mut A, x: A::N, y: A::N) -> Option<AppliedInteger<A>> {
                match self { $(ScalarFn::$variant => of_integers!($arity $domain($($formula),*), a x y),)* }
            }

            /// The function on truth values; `None` for those that are not functions of truth values alone.
            pub fn on_truths<A: Masks>(self, a: &mut A, x: A::M, y: A::M) -> Option<A::M> {
                match self { $(ScalarFn::$variant => of_truths!($arity $domain($($formula),*), a x y),)* }
            }
        }
    };
}

const POSITIVE: (f64, f64) = (0.0, f64::INFINITY);
const BETWEEN_ONES: (f64, f64) = (-1.0, 1.0);

scalar_functions!(define);

impl ScalarFn {
    /// The function of that name.
    pub fn from_name(name: &str) -> Option<ScalarFn> {
        ScalarFn::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Whether swapping the two operands never changes the value.
    pub fn is_commutative(self) -> bool {
        self.properties().commutative
    }

    /// What computing an element takes ([`Properties::work`]).
    pub fn work(self) -> u32 {
        self.properties().work
    }

    /// The comparison that holds for `(y, x)` where this one holds for `(x, y)`; other functions as they are.
    pub(crate) fn swapped(self) -> ScalarFn {
        const SWAPPED: [(ScalarFn, ScalarFn); 4] = [
            (ScalarFn::Lt, ScalarFn::Gt),
            (ScalarFn::Gt, ScalarFn::Lt),
            (ScalarFn::Le, ScalarFn::Ge),
            (ScalarFn::Ge, ScalarFn::Le),
        ];
        SWAPPED.iter().find(|(f, _)| *f == self).map_or(self, |(_, swapped)| *swapped)
    }

    /// Whether arithmetic on `i64` wraps; `y` is looked at by binary functions only.
    pub(crate) fn overflows(self, x: i64, y: i64) -> bool {
        matches!(self.on_integers(&mut Checked, Some(x), Some(y)), Some(AppliedInteger::Integer(None)))
    }

    /// The result's type where the operands have these types; `None` where the function is not defined on them.
    pub fn result_dtype(self, operands: &[DType]) -> Option<DType> {
        if operands.len() != self.arity() {
            return None;
        }
        let last = *operands.last()?;
        let uniform = operands.iter().all(|&d| d == last);
        match self.domain() {
            Domain::Float => (uniform && last.is_float()).then_some(last),
            Domain::Number => (uniform && last != DType::Bool).then_some(last),
            Domain::Bits => (uniform && !last.is_float()).then_some(last),
            Domain::Compare => uniform.then_some(DType::Bool),
            Domain::Test => last.is_float().then_some(DType::Bool),
            Domain::Select => (operands[0] == DType::Bool && operands[1] == last).then_some(last),
        }
    }

    /// The value on elements of fitting types (see [`ScalarFn::result_dtype`]); `None` where they do not fit.
    pub fn eval(self, operands: &[Literal]) -> Option<Literal> {
        let dtypes: smallvec::SmallVec<[DType; 3]> = operands.iter().map(|x| x.dtype()).collect();
        let dtype = self.result_dtype(&dtypes)?;
        if self.domain() == Domain::Select {
            return Some(if operands[0] == Literal::Bool(true) { operands[1] } else { operands[2] });
        }
        let x = operands[0];
        let y = operands.get(1).copied().unwrap_or(x);
        Some(match (x, y) {
            (Literal::F32(x), Literal::F32(y)) => {
                match self.on_singles(&mut Plain, f32::from_bits(x), f32::from_bits(y))? {
                    Applied::Float(value) => Literal::F32(value.to_bits()),
                    Applied::Truth(value) => Literal::Bool(value),
                }
            }
            (Literal::F64(x), Literal::F64(y)) => {
                match self.on_doubles(&mut PlainDouble, f64::from_bits(x), f64::from_bits(y))? {
                    Applied::Float(value) => Literal::F64(value.to_bits()),
                    Applied::Truth(value) => Literal::Bool(value),
                }
            }
            (Literal::Bool(x), Literal::Bool(y)) => Literal::Bool(self.on_truths(&mut Plain, x, y)?),
            (x, y) => match self.on_integers(&mut PlainInteger(x.dtype()), x.to_i64()?, y.to_i64()?)? {
                AppliedInteger::Integer(value) => Literal::from_i64(value, dtype),
                AppliedInteger::Truth(value) => Literal::Bool(value),
            },
        })
    }
}

impl fmt::Display for ScalarFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(f: ScalarFn, x: i64, y: i64) -> i64 {
        let operands = [Literal::I64(x), Literal::I64(y)];
        f.eval(&operands[..f.arity()]).unwrap().to_i64().unwrap()
    }

    /// Values from Python's own `//`, `%` and `**`.
    #[test]
    fn integers_follow_python() {
        assert_eq!([int(ScalarFn::FloorDiv, -7, 2), int(ScalarFn::FloorDiv, 7, -2)], [-4, -4]);
        assert_eq!([int(ScalarFn::Mod, -7, 3), int(ScalarFn::Mod, 7, -3)], [2, -2]);
        assert_eq!([int(ScalarFn::FloorDiv, 5, 0), int(ScalarFn::Mod, 5, 0)], [0, 0]);
        assert_eq!(int(ScalarFn::FloorDiv, i64::MIN, -1), i64::MIN);
        assert_eq!([int(ScalarFn::Pow, 3, 5), int(ScalarFn::Pow, -1, -3)], [243, -1]);
    }

    #[test]
    fn maximum_keeps_nan_on_either_side() {
        for dtype in [DType::F32, DType::F64] {
            let nan = Literal::from_f64(f64::NAN, dtype);
            let one = Literal::from_f64(1.0, dtype);
            for f in [ScalarFn::Max, ScalarFn::Min] {
                assert!(f.eval(&[nan, one]).unwrap().to_f64().is_nan());
                assert!(f.eval(&[one, nan]).unwrap().to_f64().is_nan());
            }
        }
    }

    /// Values from mpmath.
    #[test]
    fn large_angles_of_doubles_are_reduced_in_full() {
        for (x, sine, cosine, tangent) in [
            (1e22, -0.8522008497671888, 0.523214785395139, -1.6287782256068988),
            (6.1e11, 0.34555591951299136, 0.9383981598924472, 0.36824019300357175),
            (f64::MAX, 0.004961954789184062, -0.9999876894265599, -0.004962015874444895),
            (5.319372648326541e255, 1.0, -4.687165924254628e-19, -2.133485385753704e18),
        ] {
            for (f, exact) in [(ScalarFn::Sin, sine), (ScalarFn::Cos, cosine), (ScalarFn::Tan, tangent)] {
                let found = f.eval(&[Literal::from(x)]).unwrap().to_f64();
                assert!((found - exact).abs() <= 2.0 * f64::EPSILON * f64::abs(exact), "{f}({x}) = {found}");
            }
        }
    }

    #[test]
    fn every_function_evaluates_exactly_where_it_is_typed() {
        for &f in ScalarFn::ALL {
            assert_eq!(ScalarFn::from_name(f.name()), Some(f));
            for dtype in DType::ALL {
                let mut operands = vec![Literal::from_i64(1, dtype); f.arity()];
                if f == ScalarFn::Select {
                    operands[0] = Literal::Bool(true);
                }
                let dtypes: Vec<DType> = operands.iter().map(|x| x.dtype()).collect();
                let value = f.eval(&operands);
                assert_eq!(value.map(Literal::dtype), f.result_dtype(&dtypes), "{f} on {dtype}");
            }
        }
    }
}
