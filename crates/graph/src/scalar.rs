//! The elementwise functions: name, arity, typing rule, meaning.
//!
//! [`ScalarFn`] is the one list of them. The graph holds them under `Op::Map`, kernels hold the same value, so fusing
//! operators is joining their bodies. What a function is on `f32` is defined once in [`crate::math`]; on `f64` it is the
//! platform-independent `libm`; on integers it is written out here.
#![warn(clippy::wildcard_enum_match_arm)]

use std::fmt;

use crate::dtype::{DType, Literal};
use crate::math::{self, Arith, Plain};

macro_rules! scalar_functions {
    ($($(#[doc = $doc:literal])+ $variant:ident $name:literal $arity:literal $domain:ident;)*) => {
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
        }
    };
}

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

scalar_functions! {
    /// `x + y`; integers wrap.
    Add "add" 2 Number;
    /// `x - y`; integers wrap.
    Sub "sub" 2 Number;
    /// `x * y`; integers wrap.
    Mul "mul" 2 Number;
    /// True division `x / y` of floats.
    Div "div" 2 Float;
    /// `floor(x / y)`, Python's `//`, for floats found from the exact remainder (`1 // 0.1` is 9); an integer divided by
    /// zero gives 0. Its gradient is zero.
    FloorDiv "floordiv" 2 Number;
    /// `x - floor(x / y) * y`: the sign of the divisor, Python's `%`; exact for floats but for the one sum that brings the
    /// sign of `x` to that of `y`. An integer modulo zero gives 0.
    Mod "mod" 2 Number;
    /// `x` to the power `y`, as IEEE `pow`; integer powers wrap, a negative exponent truncates `1 / x^|y|`.
    Pow "pow" 2 Number;
    /// The larger; a NaN operand gives NaN, 0 is larger than -0. On a tie the gradient goes to the first operand.
    Max "maximum" 2 Number;
    /// The smaller; a NaN operand gives NaN, -0 is smaller than 0. On a tie the gradient goes to the first operand.
    Min "minimum" 2 Number;
    /// `-x`; integers wrap.
    Neg "neg" 1 Number;
    /// `|x|`; the gradient at 0 is 0.
    Abs "abs" 1 Number;
    /// -1, 0 or 1, 0 of -0; NaN stays NaN. Its gradient is zero.
    Sign "sign" 1 Number;
    /// `x * x`.
    Sqr "sqr" 1 Number;
    /// Square root.
    Sqrt "sqrt" 1 Float;
    /// `1 / x`.
    Recip "reciprocal" 1 Float;
    /// `e^x`.
    Exp "exp" 1 Float;
    /// `2^x`.
    Exp2 "exp2" 1 Float;
    /// `e^x - 1`, accurate near 0.
    Expm1 "expm1" 1 Float;
    /// Natural logarithm.
    Log "log" 1 Float;
    /// Logarithm to base 2.
    Log2 "log2" 1 Float;
    /// Logarithm to base 10.
    Log10 "log10" 1 Float;
    /// `log(1 + x)`, accurate near 0.
    Log1p "log1p" 1 Float;
    /// `log(1 - e^x)` for `x <= 0`, accurate at both ends (Maechler 2012).
    Log1mexp "log1mexp" 1 Float;
    /// Sine of radians.
    Sin "sin" 1 Float;
    /// Cosine of radians.
    Cos "cos" 1 Float;
    /// Tangent of radians.
    Tan "tan" 1 Float;
    /// Inverse sine, radians in [-pi/2, pi/2].
    Asin "arcsin" 1 Float;
    /// Inverse cosine, radians in [0, pi].
    Acos "arccos" 1 Float;
    /// Inverse tangent, radians in (-pi/2, pi/2).
    Atan "arctan" 1 Float;
    /// Angle of the point `(y, x)`, radians in [-pi, pi]; the first operand is `y`.
    Atan2 "arctan2" 2 Float;
    /// Hyperbolic sine.
    Sinh "sinh" 1 Float;
    /// Hyperbolic cosine.
    Cosh "cosh" 1 Float;
    /// Hyperbolic tangent.
    Tanh "tanh" 1 Float;
    /// Inverse hyperbolic sine.
    Asinh "arcsinh" 1 Float;
    /// Inverse hyperbolic cosine.
    Acosh "arccosh" 1 Float;
    /// Inverse hyperbolic tangent.
    Atanh "arctanh" 1 Float;
    /// `1 / (1 + e^-x)`, accurate in both tails.
    Sigmoid "sigmoid" 1 Float;
    /// `log(1 + e^x)`, finite for all finite `x`.
    Softplus "softplus" 1 Float;
    /// Error function.
    Erf "erf" 1 Float;
    /// `1 - erf(x)`, accurate in the right tail.
    Erfc "erfc" 1 Float;
    /// Largest integer not above. Its gradient is zero, as that of the other roundings.
    Floor "floor" 1 Float;
    /// Smallest integer not below.
    Ceil "ceil" 1 Float;
    /// Towards zero.
    Trunc "trunc" 1 Float;
    /// To the nearest integer, halves to the even one.
    Round "round" 1 Float;
    /// `x < y`; false where either is NaN, as are the next five but `ne`.
    Lt "lt" 2 Compare;
    /// `x <= y`.
    Le "le" 2 Compare;
    /// `x > y`.
    Gt "gt" 2 Compare;
    /// `x >= y`.
    Ge "ge" 2 Compare;
    /// `x == y`.
    Eq "eq" 2 Compare;
    /// `x != y`; true where either is NaN.
    Ne "ne" 2 Compare;
    /// Both, bit by bit.
    And "and" 2 Bits;
    /// Either, bit by bit.
    Or "or" 2 Bits;
    /// One but not both, bit by bit.
    Xor "xor" 2 Bits;
    /// Complement: of a truth value, of every bit of an integer.
    Not "not" 1 Bits;
    /// Whether NaN.
    IsNan "isnan" 1 Test;
    /// Whether infinite.
    IsInf "isinf" 1 Test;
    /// The second operand where the first is true, else the third.
    Select "switch" 3 Select;
}

/// What [`ScalarFn::apply`] gives.
pub enum Applied<A: Arith> {
    /// A float.
    Float(A::F),
    /// A truth value.
    Truth(A::M),
}

impl ScalarFn {
    /// The function of that name.
    pub fn from_name(name: &str) -> Option<ScalarFn> {
        ScalarFn::ALL.iter().copied().find(|f| f.name() == name)
    }

    /// Whether swapping the two operands never changes the value.
    pub fn is_commutative(self) -> bool {
        matches!(
            self,
            ScalarFn::Add
                | ScalarFn::Mul
                | ScalarFn::Max
                | ScalarFn::Min
                | ScalarFn::Eq
                | ScalarFn::Ne
                | ScalarFn::And
                | ScalarFn::Or
                | ScalarFn::Xor
        )
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
        type Wraps = fn(i64, i64) -> bool;
        const CHECKED: [(ScalarFn, Wraps); 8] = [
            (ScalarFn::Add, |x, y| x.checked_add(y).is_none()),
            (ScalarFn::Sub, |x, y| x.checked_sub(y).is_none()),
            (ScalarFn::Mul, |x, y| x.checked_mul(y).is_none()),
            (ScalarFn::FloorDiv, |x, y| x == i64::MIN && y == -1),
            (ScalarFn::Neg, |x, _| x == i64::MIN),
            (ScalarFn::Abs, |x, _| x == i64::MIN),
            (ScalarFn::Sqr, |x, _| x.checked_mul(x).is_none()),
            (ScalarFn::Pow, |x, y| {
                let exponent = u32::try_from(y).unwrap_or(u32::MAX);
                y > 0 && !(-1..=1).contains(&x) && x.checked_pow(exponent).is_none()
            }),
        ];
        CHECKED.iter().any(|(f, wraps)| *f == self && wraps(x, y))
    }

    /// What computing an element takes, in additions: 1 for a single fast instruction, up to 2 for a few of them, up to 8
    /// for what a division or a root is part of, 20 and more for series. This is the one grading of functions by cost:
    /// what is cheaper to compute again than to keep or to load is decided by it, and what a formula costs.
    pub fn work(self) -> u32 {
        match self {
            ScalarFn::Add
            | ScalarFn::Sub
            | ScalarFn::Mul
            | ScalarFn::Max
            | ScalarFn::Min
            | ScalarFn::Neg
            | ScalarFn::Abs
            | ScalarFn::Sqr
            | ScalarFn::Lt
            | ScalarFn::Le
            | ScalarFn::Gt
            | ScalarFn::Ge
            | ScalarFn::Eq
            | ScalarFn::Ne
            | ScalarFn::And
            | ScalarFn::Or
            | ScalarFn::Xor
            | ScalarFn::Not
            | ScalarFn::IsNan
            | ScalarFn::IsInf
            | ScalarFn::Select => 1,
            ScalarFn::Floor | ScalarFn::Ceil | ScalarFn::Trunc | ScalarFn::Round | ScalarFn::Sign => 2,
            ScalarFn::Div | ScalarFn::Recip | ScalarFn::Sqrt => 5,
            ScalarFn::FloorDiv | ScalarFn::Mod => 20,
            ScalarFn::Exp | ScalarFn::Exp2 | ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10 => 20,
            ScalarFn::Expm1 | ScalarFn::Log1p | ScalarFn::Sigmoid | ScalarFn::Tanh => 20,
            ScalarFn::Sin | ScalarFn::Cos | ScalarFn::Tan => 25,
            ScalarFn::Asin | ScalarFn::Acos | ScalarFn::Atan => 25,
            ScalarFn::Atan2 | ScalarFn::Sinh | ScalarFn::Cosh => 30,
            ScalarFn::Asinh | ScalarFn::Acosh | ScalarFn::Atanh => 30,
            ScalarFn::Softplus | ScalarFn::Log1mexp | ScalarFn::Erf | ScalarFn::Erfc => 35,
            ScalarFn::Pow => 50,
        }
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
    /// This defines the function.
    pub fn eval(self, operands: &[Literal]) -> Option<Literal> {
        let dtypes: smallvec::SmallVec<[DType; 3]> = operands.iter().map(|x| x.dtype()).collect();
        self.result_dtype(&dtypes)?;
        if self == ScalarFn::Select {
            return Some(if operands[0] == Literal::Bool(true) { operands[1] } else { operands[2] });
        }
        let x = operands[0];
        let y = operands.get(1).copied().unwrap_or(x);
        Some(match (x, y) {
            (Literal::F32(x), Literal::F32(y)) => self.eval_f32(f32::from_bits(x), f32::from_bits(y)),
            (Literal::F64(x), Literal::F64(y)) => self.eval_f64(f64::from_bits(x), f64::from_bits(y)),
            _ => {
                let value = self.eval_integer(x.to_i64()?, y.to_i64()?, x.dtype())?;
                Literal::from_i64(value, self.result_dtype(&dtypes)?)
            }
        })
    }

    fn eval_f32(self, x: f32, y: f32) -> Literal {
        match self.apply(&mut Plain, x, y) {
            Some(Applied::Float(value)) => Literal::F32(value.to_bits()),
            Some(Applied::Truth(value)) => Literal::Bool(value),
            // Not defined on floats; `eval` has refused them.
            None => Literal::F32(f32::NAN.to_bits()),
        }
    }

    /// The function on `f32` lanes of any engine; `y` is looked at by binary functions only. `None` for those that are
    /// not functions of floats alone (logic, `switch`).
    pub fn apply<A: Arith>(self, a: &mut A, x: A::F, y: A::F) -> Option<Applied<A>> {
        let value = match self {
            ScalarFn::Add => a.add(x, y),
            ScalarFn::Sub => a.sub(x, y),
            ScalarFn::Mul => a.mul(x, y),
            ScalarFn::Div => a.div(x, y),
            ScalarFn::FloorDiv => math::floor_quotient(a, x, y),
            ScalarFn::Mod => math::floor_remainder(a, x, y),
            ScalarFn::Pow => math::pow(a, x, y),
            ScalarFn::Max | ScalarFn::Min => {
                let is_max = self == ScalarFn::Max;
                let is_second = if is_max { a.lt(x, y) } else { a.lt(y, x) };
                let beyond = a.select(is_second, y, x);
                // Equal numbers have equal bits, but for zeros.
                let (x_bits, y_bits) = (a.bits(x), a.bits(y));
                let both = if is_max { a.i_and(x_bits, y_bits) } else { a.i_or(x_bits, y_bits) };
                let both = a.from_bits(both);
                let are_equal = a.eq(x, y);
                let found = a.select(are_equal, both, beyond);
                let is_number = a.eq(y, y);
                a.select(is_number, found, y)
            }
            ScalarFn::Neg => a.neg(x),
            ScalarFn::Abs => a.abs(x),
            ScalarFn::Sign => {
                let (zero, one, minus) = (a.f(0.0), a.f(1.0), a.f(-1.0));
                let positive = a.lt(zero, x);
                let negative = a.lt(x, zero);
                let zero_or_nan = a.add(x, zero);
                let otherwise = a.select(negative, minus, zero_or_nan);
                a.select(positive, one, otherwise)
            }
            ScalarFn::Sqr => a.mul(x, x),
            ScalarFn::Sqrt => a.sqrt(x),
            ScalarFn::Recip => {
                let one = a.f(1.0);
                a.div(one, x)
            }
            ScalarFn::Exp => math::exp(a, x),
            ScalarFn::Exp2 => math::exp2(a, x),
            ScalarFn::Expm1 => math::expm1(a, x),
            ScalarFn::Log => math::log(a, x),
            ScalarFn::Log2 => math::log2(a, x),
            ScalarFn::Log10 => math::log10(a, x),
            ScalarFn::Log1p => math::log1p(a, x),
            ScalarFn::Log1mexp => math::log1mexp(a, x),
            ScalarFn::Sin => math::sin(a, x),
            ScalarFn::Cos => math::cos(a, x),
            ScalarFn::Tan => math::tan(a, x),
            ScalarFn::Asin => math::asin(a, x),
            ScalarFn::Acos => math::acos(a, x),
            ScalarFn::Atan => math::atan(a, x),
            ScalarFn::Atan2 => math::atan2(a, x, y),
            ScalarFn::Sinh => math::sinh(a, x),
            ScalarFn::Cosh => math::cosh(a, x),
            ScalarFn::Tanh => math::tanh(a, x),
            ScalarFn::Asinh => math::asinh(a, x),
            ScalarFn::Acosh => math::acosh(a, x),
            ScalarFn::Atanh => math::atanh(a, x),
            ScalarFn::Sigmoid => math::sigmoid(a, x),
            ScalarFn::Softplus => math::softplus(a, x),
            ScalarFn::Erf => math::erf(a, x),
            ScalarFn::Erfc => math::erfc(a, x),
            ScalarFn::Floor => a.floor(x),
            ScalarFn::Ceil => a.ceil(x),
            ScalarFn::Trunc => a.trunc(x),
            ScalarFn::Round => a.nearest(x),
            ScalarFn::Lt => return Some(Applied::Truth(a.lt(x, y))),
            ScalarFn::Le => return Some(Applied::Truth(a.le(x, y))),
            ScalarFn::Gt => return Some(Applied::Truth(a.lt(y, x))),
            ScalarFn::Ge => return Some(Applied::Truth(a.le(y, x))),
            ScalarFn::Eq => return Some(Applied::Truth(a.eq(x, y))),
            ScalarFn::Ne => {
                let equal = a.eq(x, y);
                return Some(Applied::Truth(a.not(equal)));
            }
            ScalarFn::IsNan => {
                let number = a.eq(x, x);
                return Some(Applied::Truth(a.not(number)));
            }
            ScalarFn::IsInf => {
                let size = a.abs(x);
                let infinity = a.f(f32::INFINITY);
                return Some(Applied::Truth(a.eq(size, infinity)));
            }
            ScalarFn::And | ScalarFn::Or | ScalarFn::Xor | ScalarFn::Not | ScalarFn::Select => return None,
        };
        Some(Applied::Float(value))
    }

    fn eval_f64(self, x: f64, y: f64) -> Literal {
        let float = |value: f64| Literal::F64(value.to_bits());
        match self {
            ScalarFn::Add => float(x + y),
            ScalarFn::Sub => float(x - y),
            ScalarFn::Mul => float(x * y),
            ScalarFn::Div => float(x / y),
            ScalarFn::FloorDiv => float(math::floor_quotient_f64(x, y)),
            ScalarFn::Mod => float(math::floor_remainder_f64(x, y)),
            // Equal numbers have equal bits, but for zeros.
            ScalarFn::Max if x == y => Literal::F64(x.to_bits() & y.to_bits()),
            ScalarFn::Min if x == y => Literal::F64(x.to_bits() | y.to_bits()),
            ScalarFn::Max => float(if x > y || x.is_nan() { x } else { y }),
            ScalarFn::Min => float(if x < y || x.is_nan() { x } else { y }),
            ScalarFn::Neg => float(-x),
            ScalarFn::Abs => float(x.abs()),
            ScalarFn::Sign => float(if x > 0.0 {
                1.0
            } else if x < 0.0 {
                -1.0
            } else {
                x + 0.0
            }),
            ScalarFn::Sqr => float(x * x),
            ScalarFn::Sqrt => float(x.sqrt()),
            ScalarFn::Recip => float(1.0 / x),
            ScalarFn::Floor => float(x.floor()),
            ScalarFn::Ceil => float(x.ceil()),
            ScalarFn::Trunc => float(x.trunc()),
            ScalarFn::Round => float(x.round_ties_even()),
            ScalarFn::IsNan => Literal::Bool(x.is_nan()),
            ScalarFn::IsInf => Literal::Bool(x.is_infinite()),
            ScalarFn::Lt | ScalarFn::Le | ScalarFn::Gt | ScalarFn::Ge | ScalarFn::Eq | ScalarFn::Ne => {
                Literal::Bool(self.compare(&x, &y))
            }
            ScalarFn::Atan2 | ScalarFn::Pow => float(self.binary_f64().map_or(f64::NAN, |f| f(x, y))),
            ScalarFn::Exp
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
            | ScalarFn::Sinh
            | ScalarFn::Cosh
            | ScalarFn::Tanh
            | ScalarFn::Asinh
            | ScalarFn::Acosh
            | ScalarFn::Atanh
            | ScalarFn::Sigmoid
            | ScalarFn::Softplus
            | ScalarFn::Erf
            | ScalarFn::Erfc => float(self.unary_f64().map_or(f64::NAN, |f| f(x))),
            // Not defined on floats; `eval` has refused them.
            ScalarFn::And | ScalarFn::Or | ScalarFn::Xor | ScalarFn::Not | ScalarFn::Select => {
                float(f64::NAN)
            }
        }
    }

    /// The double-precision routine of a unary transcendental function; `None` for the functions that the processor
    /// computes by itself. Compiled code calls the very same routines.
    pub fn unary_f64(self) -> Option<fn(f64) -> f64> {
        Some(match self {
            ScalarFn::Exp => libm::exp,
            ScalarFn::Exp2 => libm::exp2,
            ScalarFn::Expm1 => libm::expm1,
            ScalarFn::Log => libm::log,
            ScalarFn::Log2 => libm::log2,
            ScalarFn::Log10 => libm::log10,
            ScalarFn::Log1p => libm::log1p,
            ScalarFn::Log1mexp => |x| {
                if x > -std::f64::consts::LN_2 {
                    libm::log(-libm::expm1(x))
                } else {
                    libm::log1p(-libm::exp(x))
                }
            },
            ScalarFn::Sin => libm::sin,
            ScalarFn::Cos => libm::cos,
            ScalarFn::Tan => libm::tan,
            ScalarFn::Asin => libm::asin,
            ScalarFn::Acos => libm::acos,
            ScalarFn::Atan => libm::atan,
            ScalarFn::Sinh => libm::sinh,
            ScalarFn::Cosh => libm::cosh,
            ScalarFn::Tanh => libm::tanh,
            ScalarFn::Asinh => libm::asinh,
            // libm's own gives a number for large negative arguments.
            ScalarFn::Acosh => |x| if x < 1.0 { f64::NAN } else { libm::acosh(x) },
            ScalarFn::Atanh => libm::atanh,
            ScalarFn::Sigmoid => |x| {
                let e = libm::exp(-x.abs());
                if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
            },
            ScalarFn::Softplus => |x| {
                if x.is_nan() { x } else { x.max(0.0) + libm::log1p(libm::exp(-x.abs())) }
            },
            ScalarFn::Erf => libm::erf,
            ScalarFn::Erfc => libm::erfc,
            ScalarFn::Add
            | ScalarFn::Sub
            | ScalarFn::Mul
            | ScalarFn::Div
            | ScalarFn::FloorDiv
            | ScalarFn::Mod
            | ScalarFn::Pow
            | ScalarFn::Max
            | ScalarFn::Min
            | ScalarFn::Neg
            | ScalarFn::Abs
            | ScalarFn::Sign
            | ScalarFn::Sqr
            | ScalarFn::Sqrt
            | ScalarFn::Recip
            | ScalarFn::Atan2
            | ScalarFn::Floor
            | ScalarFn::Ceil
            | ScalarFn::Trunc
            | ScalarFn::Round
            | ScalarFn::Lt
            | ScalarFn::Le
            | ScalarFn::Gt
            | ScalarFn::Ge
            | ScalarFn::Eq
            | ScalarFn::Ne
            | ScalarFn::And
            | ScalarFn::Or
            | ScalarFn::Xor
            | ScalarFn::Not
            | ScalarFn::IsNan
            | ScalarFn::IsInf
            | ScalarFn::Select => return None,
        })
    }

    /// As [`ScalarFn::unary_f64`], of the two binary ones.
    pub fn binary_f64(self) -> Option<fn(f64, f64) -> f64> {
        if self == ScalarFn::Pow {
            Some(libm::pow)
        } else if self == ScalarFn::Atan2 {
            Some(libm::atan2)
        } else {
            None
        }
    }

    fn compare<T: PartialOrd>(self, x: &T, y: &T) -> bool {
        if self == ScalarFn::Lt {
            x < y
        } else if self == ScalarFn::Le {
            x <= y
        } else if self == ScalarFn::Gt {
            x > y
        } else if self == ScalarFn::Ge {
            x >= y
        } else if self == ScalarFn::Eq {
            x == y
        } else {
            x != y
        }
    }

    /// The value on integers and truth values, before wrapping to `dtype`; `None` where not defined on them.
    fn eval_integer(self, x: i64, y: i64, dtype: DType) -> Option<i64> {
        Some(match self {
            ScalarFn::Add => x.wrapping_add(y),
            ScalarFn::Sub => x.wrapping_sub(y),
            ScalarFn::Mul => x.wrapping_mul(y),
            ScalarFn::FloorDiv if y == 0 => 0,
            ScalarFn::FloorDiv => {
                let quotient = x.wrapping_div(y);
                if x.wrapping_rem(y) != 0 && (x < 0) != (y < 0) { quotient - 1 } else { quotient }
            }
            ScalarFn::Mod if y == 0 => 0,
            ScalarFn::Mod => {
                let remainder = x.wrapping_rem(y);
                if remainder != 0 && (remainder < 0) != (y < 0) { remainder + y } else { remainder }
            }
            ScalarFn::Pow if y < 0 => match x {
                1 => 1,
                -1 => {
                    if y % 2 == 0 {
                        1
                    } else {
                        -1
                    }
                }
                _ => 0,
            },
            ScalarFn::Pow => {
                let (mut base, mut exponent, mut power) = (x, y, 1i64);
                while exponent > 0 {
                    if exponent & 1 == 1 {
                        power = power.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    exponent >>= 1;
                }
                power
            }
            ScalarFn::Max => x.max(y),
            ScalarFn::Min => x.min(y),
            ScalarFn::Neg => x.wrapping_neg(),
            ScalarFn::Abs => x.wrapping_abs(),
            ScalarFn::Sign => x.signum(),
            ScalarFn::Sqr => x.wrapping_mul(x),
            ScalarFn::Lt | ScalarFn::Le | ScalarFn::Gt | ScalarFn::Ge | ScalarFn::Eq | ScalarFn::Ne => {
                i64::from(self.compare(&x, &y))
            }
            ScalarFn::And => x & y,
            ScalarFn::Or => x | y,
            ScalarFn::Xor => x ^ y,
            ScalarFn::Not if dtype == DType::Bool => 1 - x,
            ScalarFn::Not => !x,
            ScalarFn::Div
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
            | ScalarFn::IsNan
            | ScalarFn::IsInf
            | ScalarFn::Select => return None,
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
