//! Scalar functions, casts and constants as OpenCL C.
//!
//! Float32 functions are the definitions of [`hypatia_graph::math`] instantiated with text, so they give the bits of
//! the other engines wherever the device rounds as IEEE 754 says. Float64 functions are OpenCL's own. Integer
//! arithmetic wraps: it goes through unsigned types, since overflow of signed ones is undefined in C.
//!
//! A truth value is a `bool` in a register and a `uchar` in memory.

use std::fmt::Write;

use hypatia_graph::math::{Arith, Rare};
use hypatia_graph::scalar::Applied;
use hypatia_graph::{DType, Literal, ScalarFn};

/// A function that kernels call, defined once before them.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Helper {
    /// A scalar function on elements of a type.
    Function(ScalarFn, DType),
    /// A saturating conversion of floats to integers.
    Cast {
        /// The type of the operand.
        from: DType,
        /// The type of the result.
        to: DType,
    },
}

/// The type of a value in a register.
pub(super) fn register_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "bool",
        DType::U8 => "uchar",
        DType::I32 => "int",
        DType::I64 => "long",
        DType::F32 => "float",
        DType::F64 => "double",
    }
}

/// The type of an element in memory.
pub(super) fn memory_type(dtype: DType) -> &'static str {
    match dtype {
        DType::Bool => "uchar",
        DType::U8 | DType::I32 | DType::I64 | DType::F32 | DType::F64 => register_type(dtype),
    }
}

/// A constant.
pub(super) fn literal(value: Literal) -> String {
    match value {
        Literal::Bool(x) => x.to_string(),
        Literal::U8(x) => format!("(uchar){x}"),
        Literal::I32(i32::MIN) => "(-2147483647 - 1)".to_string(),
        Literal::I32(x) if x < 0 => format!("({x})"),
        Literal::I32(x) => x.to_string(),
        Literal::I64(i64::MIN) => "(-9223372036854775807L - 1L)".to_string(),
        Literal::I64(x) if x < 0 => format!("({x}L)"),
        Literal::I64(x) => format!("{x}L"),
        Literal::F32(bits) => float(bits),
        Literal::F64(bits) => {
            let fraction = bits & ((1 << 52) - 1);
            let sign = if bits >> 63 == 1 { "-" } else { "" };
            let exponent = (bits >> 52 & 0x7ff) as i64;
            let number = match exponent {
                0x7ff => return format!("as_double(0x{bits:016x}UL)"),
                0 if fraction == 0 => format!("{sign}0.0"),
                0 => format!("{sign}0x0.{fraction:013x}p-1022"),
                _ => format!("{sign}0x1.{fraction:013x}p{:+}", exponent - 1023),
            };
            if sign.is_empty() { number } else { format!("({number})") }
        }
    }
}

/// A float32 constant: decimal where that is short and exact, hexadecimal otherwise.
fn float(bits: u32) -> String {
    let value = f32::from_bits(bits);
    if !value.is_finite() {
        return format!("as_float(0x{bits:08x}u)");
    }
    let number = if value.fract() == 0.0 && value.abs() < 1e6 {
        format!("{value:?}f")
    } else {
        let sign = if value < 0.0 { "-" } else { "" };
        let fraction = (bits & 0x7f_ffff) << 1;
        match bits >> 23 & 0xff {
            0 => format!("{sign}0x0.{fraction:06x}p-126f"),
            exponent => format!("{sign}0x1.{fraction:06x}p{:+}f", i64::from(exponent) - 127),
        }
    };
    if number.starts_with('-') { format!("({number})") } else { number }
}

/// The value of a function on operands of a type, `None` where it is not defined on them; `helpers` takes what the
/// expression calls. The type of `Select` is that of its second operand.
pub(super) fn call(
    function: ScalarFn,
    dtype: DType,
    operands: &[&str],
    helpers: &mut impl Extend<Helper>,
) -> Option<String> {
    if operands.len() != function.arity() {
        return None;
    }
    let x = operands[0];
    let y = operands.get(1).copied().unwrap_or("");
    if function == ScalarFn::Select {
        return Some(format!("{x} ? {y} : {}", operands[2]));
    }
    function.result_dtype(&vec![dtype; operands.len()])?;
    if let Some(operator) = comparison(function) {
        return Some(format!("{x} {operator} {y}"));
    }
    let text = match dtype {
        DType::F32 | DType::F64 => float_expression(function, dtype, x, y),
        DType::Bool | DType::U8 | DType::I32 | DType::I64 => integer_expression(function, dtype, x, y),
    };
    text.or_else(|| {
        helpers.extend([Helper::Function(function, dtype)]);
        Some(format!("{}({})", helper_name(function, dtype), operands.join(", ")))
    })
}

fn helper_name(function: ScalarFn, dtype: DType) -> String {
    format!("{function}_{dtype}")
}

fn comparison(function: ScalarFn) -> Option<&'static str> {
    const OPERATORS: [(ScalarFn, &str); 6] = [
        (ScalarFn::Lt, "<"),
        (ScalarFn::Le, "<="),
        (ScalarFn::Gt, ">"),
        (ScalarFn::Ge, ">="),
        (ScalarFn::Eq, "=="),
        (ScalarFn::Ne, "!="),
    ];
    OPERATORS.iter().find(|(f, _)| *f == function).map(|(_, text)| *text)
}

/// The arithmetic that is an expression by itself; `None` of what needs a helper.
fn float_expression(function: ScalarFn, dtype: DType, x: &str, y: &str) -> Option<String> {
    let one = literal(Literal::from_i64(1, dtype));
    let zero = literal(Literal::from_i64(0, dtype));
    Some(match function {
        ScalarFn::Add => format!("{x} + {y}"),
        ScalarFn::Sub => format!("{x} - {y}"),
        ScalarFn::Mul => format!("{x} * {y}"),
        ScalarFn::Div => format!("{x} / {y}"),
        // Equal numbers have equal bits, but for zeros.
        ScalarFn::Max => {
            format!(
                "{x} == {y} ? {} : (({x} > {y} || {x} != {x}) ? {x} : {y})",
                joined_bits(dtype, x, "&", y)
            )
        }
        ScalarFn::Min => {
            format!(
                "{x} == {y} ? {} : (({x} < {y} || {x} != {x}) ? {x} : {y})",
                joined_bits(dtype, x, "|", y)
            )
        }
        ScalarFn::Neg => format!("-{x}"),
        ScalarFn::Abs => format!("fabs({x})"),
        ScalarFn::Sign => format!("{x} > {zero} ? {one} : ({x} < {zero} ? -{one} : {x} + {zero})"),
        ScalarFn::Sqr => format!("{x} * {x}"),
        ScalarFn::Sqrt => format!("sqrt({x})"),
        ScalarFn::Recip => format!("{one} / {x}"),
        ScalarFn::Floor => format!("floor({x})"),
        ScalarFn::Ceil => format!("ceil({x})"),
        ScalarFn::Trunc => format!("trunc({x})"),
        ScalarFn::Round => format!("rint({x})"),
        ScalarFn::IsNan => format!("{x} != {x}"),
        ScalarFn::IsInf => format!("fabs({x}) == ({})INFINITY", register_type(dtype)),
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
        | ScalarFn::FloorDiv
        | ScalarFn::Mod
        | ScalarFn::Pow => return None,
        // Not defined on floats, or written already: `call` has dealt with them.
        ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::And
        | ScalarFn::Or
        | ScalarFn::Xor
        | ScalarFn::Not
        | ScalarFn::Select => return None,
    })
}

/// The number whose bits are those of two numbers joined by an operator.
fn joined_bits(dtype: DType, x: &str, operator: &str, y: &str) -> String {
    let (ty, bits) = if dtype == DType::F64 { ("double", "long") } else { ("float", "int") };
    format!("as_{ty}(as_{bits}({x}) {operator} as_{bits}({y}))")
}

fn integer_expression(function: ScalarFn, dtype: DType, x: &str, y: &str) -> Option<String> {
    let ty = register_type(dtype);
    let wrapping = |operator: &str, x: &str, y: &str| match dtype {
        DType::I32 => format!("as_int(as_uint({x}) {operator} as_uint({y}))"),
        DType::I64 => format!("as_long(as_ulong({x}) {operator} as_ulong({y}))"),
        DType::Bool | DType::U8 | DType::F32 | DType::F64 => format!("({ty})({x} {operator} {y})"),
    };
    let zero = literal(Literal::from_i64(0, dtype));
    if function == ScalarFn::Add {
        Some(wrapping("+", x, y))
    } else if function == ScalarFn::Sub {
        Some(wrapping("-", x, y))
    } else if function == ScalarFn::Mul {
        Some(wrapping("*", x, y))
    } else if function == ScalarFn::Max {
        Some(format!("{x} >= {y} ? {x} : {y}"))
    } else if function == ScalarFn::Min {
        Some(format!("{x} <= {y} ? {x} : {y}"))
    } else if function == ScalarFn::Neg {
        Some(wrapping("-", &zero, x))
    } else if function == ScalarFn::Abs {
        Some(if dtype == DType::U8 {
            x.to_string()
        } else {
            format!("{x} < {zero} ? {} : {x}", wrapping("-", &zero, x))
        })
    } else if function == ScalarFn::Sign {
        Some(format!("({ty})(({x} > {zero}) - ({x} < {zero}))"))
    } else if function == ScalarFn::Sqr {
        Some(wrapping("*", x, x))
    } else if function == ScalarFn::And {
        Some(format!("({ty})({x} & {y})"))
    } else if function == ScalarFn::Or {
        Some(format!("({ty})({x} | {y})"))
    } else if function == ScalarFn::Xor {
        Some(format!("({ty})({x} ^ {y})"))
    } else if function == ScalarFn::Not && dtype == DType::Bool {
        Some(format!("!{x}"))
    } else if function == ScalarFn::Not {
        Some(format!("({ty})~{x}"))
    } else {
        None
    }
}

/// An operand converted to another type, as `Literal::cast` does.
pub(super) fn cast(from: DType, to: DType, x: &str, helpers: &mut impl Extend<Helper>) -> String {
    if from == to {
        x.to_string()
    } else if to == DType::Bool {
        format!("{x} != {}", literal(Literal::from_i64(0, from)))
    } else if from.is_float() && to.is_int() {
        helpers.extend([Helper::Cast { from, to }]);
        format!("{to}_of_{from}({x})")
    } else {
        format!("({}){x}", register_type(to))
    }
}

/// The definition of a helper; `None` where the function is not defined on the type.
pub(super) fn define(helper: Helper) -> Option<String> {
    match helper {
        Helper::Function(function, DType::F32) => float32_function(function),
        Helper::Function(function, DType::F64) => float64_function(function),
        Helper::Function(function, dtype @ (DType::U8 | DType::I32 | DType::I64)) => {
            integer_function(function, dtype)
        }
        Helper::Function(_, DType::Bool) => None,
        Helper::Cast { from, to } => Some(saturating_cast(from, to)),
    }
}

fn saturating_cast(from: DType, to: DType) -> String {
    let (from_type, to_type) = (register_type(from), register_type(to));
    // The comparisons are false of a NaN, which so becomes the smallest integer.
    let (beyond, lowest) = match to {
        DType::U8 => (256.0, 0.0),
        DType::I32 => (2f64.powi(31), -2f64.powi(31)),
        DType::I64 | DType::Bool | DType::F32 | DType::F64 => (2f64.powi(63), -2f64.powi(63)),
    };
    let bound = |value: f64| literal(Literal::from_f64(value, from));
    let [largest, smallest] = [f64::INFINITY, f64::NEG_INFINITY].map(|x| literal(Literal::from_f64(x, to)));
    format!(
        "static {to_type} {to}_of_{from}({from_type} x)\n{{\n    return x >= {} ? {largest} : (x >= {} ? \
         ({to_type})x : {smallest});\n}}\n",
        bound(beyond),
        bound(lowest),
    )
}

fn float32_function(function: ScalarFn) -> Option<String> {
    let mut text = Text { lines: String::new(), count: 0 };
    let a = &mut text;
    let (x, y) = (Operand::Named("x"), Operand::Named("y"));
    let result = match function.apply(a, x, y)? {
        Applied::Float(result) => result.text("f", float),
        Applied::Truth(_) => return None,
    };
    let parameters = if function.arity() == 2 { "float x, float y" } else { "float x" };
    let (name, lines) = (helper_name(function, DType::F32), text.lines);
    Some(format!("static float {name}({parameters})\n{{\n{lines}    return {result};\n}}\n"))
}

/// `hypatia_graph::math::floor_quotient_f64`; `fmod` is exact.
const FLOOR_QUOTIENT_F64: &str = "static double floordiv_f64(double x, double y)
{
    if (y == 0.0)
        return x / y;
    double remainder = fmod(x, y);
    bool differ = remainder != 0.0 && (remainder < 0.0) != (y < 0.0);
    double quotient = (x - remainder) / y;
    quotient = differ ? quotient - 1.0 : quotient;
    if (quotient == 0.0)
        return copysign(0.0, x / y);
    double whole = floor(quotient);
    return quotient - whole > 0.5 ? whole + 1.0 : whole;
}";

/// `hypatia_graph::math::floor_remainder_f64`.
const FLOOR_REMAINDER_F64: &str = "static double mod_f64(double x, double y)
{
    double remainder = fmod(x, y);
    if (remainder == 0.0)
        return copysign(0.0, y);
    return (remainder < 0.0) != (y < 0.0) ? remainder + y : remainder;
}";

fn float64_function(function: ScalarFn) -> Option<String> {
    let body = match function {
        ScalarFn::FloorDiv => return Some(format!("{FLOOR_QUOTIENT_F64}\n")),
        ScalarFn::Mod => return Some(format!("{FLOOR_REMAINDER_F64}\n")),
        ScalarFn::Log1mexp => "x > -0x1.62e42fefa39efp-1 ? log(-expm1(x)) : log1p(-exp(x))",
        ScalarFn::Sigmoid => "(x >= 0.0 ? 1.0 : exp(-fabs(x))) / (1.0 + exp(-fabs(x)))",
        ScalarFn::Softplus => "x != x ? x : fmax(x, 0.0) + log1p(exp(-fabs(x)))",
        ScalarFn::Pow => "pow(x, y)",
        ScalarFn::Atan2 => "atan2(x, y)",
        ScalarFn::Exp => "exp(x)",
        ScalarFn::Exp2 => "exp2(x)",
        ScalarFn::Expm1 => "expm1(x)",
        ScalarFn::Log => "log(x)",
        ScalarFn::Log2 => "log2(x)",
        ScalarFn::Log10 => "log10(x)",
        ScalarFn::Log1p => "log1p(x)",
        ScalarFn::Sin => "sin(x)",
        ScalarFn::Cos => "cos(x)",
        ScalarFn::Tan => "tan(x)",
        ScalarFn::Asin => "asin(x)",
        ScalarFn::Acos => "acos(x)",
        ScalarFn::Atan => "atan(x)",
        ScalarFn::Sinh => "sinh(x)",
        ScalarFn::Cosh => "cosh(x)",
        ScalarFn::Tanh => "tanh(x)",
        ScalarFn::Asinh => "asinh(x)",
        ScalarFn::Acosh => "acosh(x)",
        ScalarFn::Atanh => "atanh(x)",
        ScalarFn::Erf => "erf(x)",
        ScalarFn::Erfc => "erfc(x)",
        // These are expressions, see `float_expression`, or not defined on floats.
        ScalarFn::Add
        | ScalarFn::Sub
        | ScalarFn::Mul
        | ScalarFn::Div
        | ScalarFn::Max
        | ScalarFn::Min
        | ScalarFn::Neg
        | ScalarFn::Abs
        | ScalarFn::Sign
        | ScalarFn::Sqr
        | ScalarFn::Sqrt
        | ScalarFn::Recip
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
    };
    let parameters = if function.arity() == 2 { "double x, double y" } else { "double x" };
    let name = helper_name(function, DType::F64);
    Some(format!("static double {name}({parameters})\n{{\n    return {body};\n}}\n"))
}

/// Division that rounds down, its remainder, and powers, as `ScalarFn::eval` defines them.
fn integer_function(function: ScalarFn, dtype: DType) -> Option<String> {
    let ty = register_type(dtype);
    let unsigned = match dtype {
        DType::I64 => "ulong",
        DType::Bool | DType::U8 | DType::I32 | DType::F32 | DType::F64 => "uint",
    };
    // Dividing the smallest integer by -1 overflows, so -1 is apart; unsigned bytes never meet it.
    let by_minus_one = |value: &str| match dtype {
        DType::U8 => String::new(),
        DType::Bool | DType::I32 | DType::I64 | DType::F32 | DType::F64 => {
            format!("    if (y == -1)\n        return {value};\n")
        }
    };
    let body = if function == ScalarFn::FloorDiv {
        format!(
            "    if (y == 0)\n        return 0;\n{}    {ty} quotient = ({ty})(x / y);\n    return x % y != 0 && \
             (x < 0) != (y < 0) ? ({ty})(quotient - 1) : quotient;\n",
            by_minus_one(&format!("({ty})(({unsigned})0 - ({unsigned})x)"))
        )
    } else if function == ScalarFn::Mod {
        format!(
            "    if (y == 0)\n        return 0;\n{}    {ty} remainder = ({ty})(x % y);\n    return remainder != 0 \
             && (remainder < 0) != (y < 0) ? ({ty})(remainder + y) : remainder;\n",
            by_minus_one("0")
        )
    } else if function == ScalarFn::Pow {
        format!(
            "    if (y < 0)\n        return x == 1 ? 1 : (x == ({ty})-1 ? ((y & 1) == 0 ? 1 : ({ty})-1) : 0);\n    \
             {unsigned} base = ({unsigned})x, power = 1;\n    for ({unsigned} rest = ({unsigned})y; rest != 0; rest \
             >>= 1) {{\n        if (rest & 1)\n            power *= base;\n        base *= base;\n    }}\n    \
             return ({ty})power;\n"
        )
    } else {
        return None;
    };
    let name = helper_name(function, dtype);
    Some(format!("static {ty} {name}({ty} x, {ty} y)\n{{\n{body}}}\n"))
}

/// Straight-line arithmetic written as statements.
struct Text {
    lines: String,
    count: u32,
}

/// A constant (as bits), a parameter, or the variable with that number.
#[derive(Copy, Clone)]
enum Operand {
    Constant(u32),
    Named(&'static str),
    Variable(u32),
}

impl Operand {
    fn text(self, prefix: &str, constant: impl Fn(u32) -> String) -> String {
        match self {
            Operand::Constant(bits) => constant(bits),
            Operand::Named(name) => name.to_string(),
            Operand::Variable(number) => format!("{prefix}{number}"),
        }
    }
}

/// A float32 operand as text.
fn f(x: Operand) -> String {
    x.text("f", float)
}

/// An int32 operand as text.
fn i(x: Operand) -> String {
    x.text("n", |bits| literal(Literal::I32(bits.cast_signed())))
}

/// A mask as text.
fn m(x: Operand) -> String {
    x.text("m", |bits| (bits != 0).to_string())
}

impl Text {
    fn define(&mut self, ty: &str, prefix: &str, expression: &str) -> Operand {
        let number = self.count;
        self.count += 1;
        // Writing to a string cannot fail.
        let _ = writeln!(self.lines, "    {ty} {prefix}{number} = {expression};");
        Operand::Variable(number)
    }

    fn float(&mut self, expression: &str) -> Operand {
        self.define("float", "f", expression)
    }

    fn int(&mut self, expression: &str) -> Operand {
        self.define("int", "n", expression)
    }

    fn mask(&mut self, expression: &str) -> Operand {
        self.define("bool", "m", expression)
    }
}

impl Arith for Text {
    type F = Operand;
    type I = Operand;
    type M = Operand;

    fn f(&mut self, value: f32) -> Operand {
        Operand::Constant(value.to_bits())
    }
    fn i(&mut self, value: i32) -> Operand {
        Operand::Constant(value.cast_unsigned())
    }
    fn add(&mut self, x: Operand, y: Operand) -> Operand {
        self.float(&format!("{} + {}", f(x), f(y)))
    }
    fn sub(&mut self, x: Operand, y: Operand) -> Operand {
        self.float(&format!("{} - {}", f(x), f(y)))
    }
    fn mul(&mut self, x: Operand, y: Operand) -> Operand {
        self.float(&format!("{} * {}", f(x), f(y)))
    }
    fn div(&mut self, x: Operand, y: Operand) -> Operand {
        self.float(&format!("{} / {}", f(x), f(y)))
    }
    fn fma(&mut self, x: Operand, y: Operand, z: Operand) -> Operand {
        self.float(&format!("fma({}, {}, {})", f(x), f(y), f(z)))
    }
    fn sqrt(&mut self, x: Operand) -> Operand {
        self.float(&format!("sqrt({})", f(x)))
    }
    fn neg(&mut self, x: Operand) -> Operand {
        self.float(&format!("-{}", f(x)))
    }
    fn abs(&mut self, x: Operand) -> Operand {
        self.float(&format!("fabs({})", f(x)))
    }
    fn floor(&mut self, x: Operand) -> Operand {
        self.float(&format!("floor({})", f(x)))
    }
    fn ceil(&mut self, x: Operand) -> Operand {
        self.float(&format!("ceil({})", f(x)))
    }
    fn trunc(&mut self, x: Operand) -> Operand {
        self.float(&format!("trunc({})", f(x)))
    }
    fn nearest(&mut self, x: Operand) -> Operand {
        self.float(&format!("rint({})", f(x)))
    }
    fn lt(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} < {}", f(x), f(y)))
    }
    fn le(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} <= {}", f(x), f(y)))
    }
    fn eq(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} == {}", f(x), f(y)))
    }
    fn i_lt(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} < {}", i(x), i(y)))
    }
    fn i_eq(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} == {}", i(x), i(y)))
    }
    fn and(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} && {}", m(x), m(y)))
    }
    fn or(&mut self, x: Operand, y: Operand) -> Operand {
        self.mask(&format!("{} || {}", m(x), m(y)))
    }
    fn not(&mut self, x: Operand) -> Operand {
        self.mask(&format!("!{}", m(x)))
    }
    fn select(&mut self, mask: Operand, x: Operand, y: Operand) -> Operand {
        self.float(&format!("{} ? {} : {}", m(mask), f(x), f(y)))
    }
    fn select_i(&mut self, mask: Operand, x: Operand, y: Operand) -> Operand {
        self.int(&format!("{} ? {} : {}", m(mask), i(x), i(y)))
    }
    fn bits(&mut self, x: Operand) -> Operand {
        self.int(&format!("as_int({})", f(x)))
    }
    fn from_bits(&mut self, x: Operand) -> Operand {
        self.float(&format!("as_float({})", i(x)))
    }
    fn rarely(&mut self, mask: Operand, operands: [Operand; 2], usual: Operand, rare: Rare<Text>) -> Operand {
        let result = self.float(&f(usual));
        let _ = writeln!(self.lines, "    if ({}) {{", m(mask));
        let found = rare(self, operands);
        let _ = writeln!(self.lines, "    {} = {};\n    }}", f(result), f(found));
        result
    }
    fn is_fused(&self) -> bool {
        true
    }
    fn i_add(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("as_int(as_uint({}) + as_uint({}))", i(x), i(y)))
    }
    fn i_sub(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("as_int(as_uint({}) - as_uint({}))", i(x), i(y)))
    }
    fn i_mul(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("as_int(as_uint({}) * as_uint({}))", i(x), i(y)))
    }
    fn i_and(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("{} & {}", i(x), i(y)))
    }
    fn i_or(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("{} | {}", i(x), i(y)))
    }
    fn i_xor(&mut self, x: Operand, y: Operand) -> Operand {
        self.int(&format!("{} ^ {}", i(x), i(y)))
    }
    fn shl(&mut self, x: Operand, count: u32) -> Operand {
        self.int(&format!("as_int(as_uint({}) << {count})", i(x)))
    }
    fn shr(&mut self, x: Operand, count: u32) -> Operand {
        self.int(&format!("as_int(as_uint({}) >> {count})", i(x)))
    }
    fn sar(&mut self, x: Operand, count: u32) -> Operand {
        self.int(&format!("{} >> {count}", i(x)))
    }
    fn to_float(&mut self, x: Operand) -> Operand {
        self.float(&format!("(float){}", i(x)))
    }
    fn to_int(&mut self, x: Operand) -> Operand {
        self.int(&format!("(int){}", f(x)))
    }
}
