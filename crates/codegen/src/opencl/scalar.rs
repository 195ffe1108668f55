//! Scalar functions, casts and constants as OpenCL C.
//!
//! Functions are the definitions of [`hypatia_graph::math`] instantiated with [`Text`], so they give the bits of the
//! other engines wherever the device rounds as IEEE 754 says; routines of double precision are OpenCL's own. A definition
//! of one statement is an expression where it is used, a longer one is a function before the kernels. Integer arithmetic
//! goes through unsigned types, since overflow of signed ones is undefined in C.
//!
//! A truth value is a `bool` in a register and a `uchar` in memory.

use hypatia_graph::math::{Arith, Doubles, Floats, Integers, Library, Masks, Rare};
use hypatia_graph::scalar::{Applied, AppliedInteger, Domain};
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
    if function.domain() == Domain::Select {
        return Some(format!("{} ? {} : {}", operands[0], operands[1], operands[2]));
    }
    function.result_dtype(&vec![dtype; operands.len()])?;
    let mut text = Text::new(dtype, operands);
    let result = text.value_of(function)?;
    if let Some(expression) = text.expression(result) {
        return Some(expression);
    }
    helpers.extend([Helper::Function(function, dtype)]);
    Some(format!("{function}_{dtype}({})", operands.join(", ")))
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
    let (function, dtype) = match helper {
        Helper::Function(function, dtype) => (function, dtype),
        Helper::Cast { from, to } => return Some(saturating_cast(from, to)),
    };
    let names = &["x", "y"][..function.arity().min(2)];
    let mut text = Text::new(dtype, names);
    let result = text.value_of(function)?;
    let of = register_type(dtype);
    let to = register_type(function.result_dtype(&vec![dtype; names.len()])?);
    let parameters: Vec<String> = names.iter().map(|name| format!("{of} {name}")).collect();
    let lines: String = text.lines.iter().map(|line| format!("    {line}\n")).collect();
    Some(format!(
        "static {to} {function}_{dtype}({})\n{{\n{lines}    return {};\n}}\n",
        parameters.join(", "),
        text.of(result)
    ))
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

/// Straight-line arithmetic on elements of a type, written as statements.
struct Text {
    dtype: DType,
    lines: Vec<String>,
    /// What stands for each operand: an operand given, a constant or a variable.
    operands: Vec<String>,
    /// The expression of the variable last defined.
    last: String,
}

/// The number of an operand.
#[derive(Copy, Clone, PartialEq)]
struct Operand(usize);

impl Text {
    fn new(dtype: DType, operands: &[&str]) -> Text {
        let operands = operands.iter().map(|x| (*x).to_owned()).collect();
        Text { dtype, lines: Vec::new(), operands, last: String::new() }
    }

    /// The value of a function of the operands given, by its definition.
    fn value_of(&mut self, function: ScalarFn) -> Option<Operand> {
        let (x, y) = (Operand(0), Operand(function.arity() - 1));
        match self.dtype {
            DType::F32 => match function.on_singles(self, x, y)? {
                Applied::Float(value) | Applied::Truth(value) => Some(value),
            },
            DType::F64 => match function.on_doubles(self, x, y)? {
                Applied::Float(value) | Applied::Truth(value) => Some(value),
            },
            DType::Bool => function.on_truths(self, x, y),
            DType::U8 | DType::I32 | DType::I64 => match function.on_integers(&mut Whole(self), x, y)? {
                AppliedInteger::Integer(value) | AppliedInteger::Truth(value) => Some(value),
            },
        }
    }

    fn of(&self, operand: Operand) -> &str {
        &self.operands[operand.0]
    }

    /// A result as one expression, unless it takes more than one statement.
    fn expression(&self, result: Operand) -> Option<String> {
        match self.lines.len() {
            0 => Some(self.of(result).to_owned()),
            1 if result.0 + 1 == self.operands.len() => Some(self.last.clone()),
            _ => None,
        }
    }

    fn operand(&mut self, text: String) -> Operand {
        self.operands.push(text);
        Operand(self.operands.len() - 1)
    }

    fn constant(&mut self, value: Literal) -> Operand {
        self.operand(literal(value))
    }

    /// A new variable. Its number is that of the operand, so it is new.
    fn define(&mut self, ty: &str, expression: String) -> Operand {
        let name = format!("{}{}", ty.chars().next().unwrap_or('v'), self.operands.len());
        self.lines.push(format!("{ty} {name} = {expression};"));
        self.last = expression;
        self.operand(name)
    }

    fn element(&mut self, expression: String) -> Operand {
        self.define(register_type(self.dtype), expression)
    }

    fn int(&mut self, expression: String) -> Operand {
        self.define("int", expression)
    }

    fn mask(&mut self, expression: String) -> Operand {
        self.define("bool", expression)
    }

    fn infix(&self, x: Operand, operator: &str, y: Operand) -> String {
        format!("{} {operator} {}", self.of(x), self.of(y))
    }

    fn called(&self, name: &str, x: Operand) -> String {
        format!("{name}({})", self.of(x))
    }

    fn choice(&self, mask: Operand, x: Operand, y: Operand) -> String {
        format!("{} ? {} : {}", self.of(mask), self.of(x), self.of(y))
    }

    /// The float whose bits are those of two floats joined by an operator.
    fn on_bits(&self, x: Operand, operator: &str, y: Operand) -> String {
        let (ty, bits) = if self.dtype == DType::F64 { ("double", "long") } else { ("float", "int") };
        format!("as_{ty}(as_{bits}({}) {operator} as_{bits}({}))", self.of(x), self.of(y))
    }

    /// An operation of integers that wraps, on ints where elements are floats.
    fn wrapping(&self, x: Operand, operator: &str, y: Operand) -> String {
        let (x, y) = (self.of(x), self.of(y));
        match self.dtype {
            DType::I32 | DType::F32 => format!("as_int(as_uint({x}) {operator} as_uint({y}))"),
            DType::I64 | DType::F64 => format!("as_long(as_ulong({x}) {operator} as_ulong({y}))"),
            DType::Bool | DType::U8 => format!("(uchar)({x} {operator} {y})"),
        }
    }

    /// An operation whose operands C promotes to larger integers.
    fn narrowed(&self, x: Operand, operator: &str, y: Operand) -> String {
        format!("({})({})", register_type(self.dtype), self.infix(x, operator, y))
    }

    fn text(&mut self) -> &mut Text {
        self
    }
}

/// Methods that are a statement each: a variable of an element, an int or a mask, of an operator between two operands
/// (`infix`, `wrapping`, `on_bits`, `narrowed`) or of a function of one (`called`).
macro_rules! statements {
    ($kind:ident infix $($more:tt)*) => { statements! { @two $kind infix $($more)* } };
    ($kind:ident wrapping $($more:tt)*) => { statements! { @two $kind wrapping $($more)* } };
    ($kind:ident on_bits $($more:tt)*) => { statements! { @two $kind on_bits $($more)* } };
    ($kind:ident narrowed $($more:tt)*) => { statements! { @two $kind narrowed $($more)* } };
    ($kind:ident called: $($method:ident $name:literal),*) => {$(
        fn $method(&mut self, x: Operand) -> Operand {
            let expression = self.text().called($name, x);
            self.text().$kind(expression)
        }
    )*};
    (@two $kind:ident $form:ident: $($method:ident $operator:literal),*) => {$(
        fn $method(&mut self, x: Operand, y: Operand) -> Operand {
            let expression = self.text().$form(x, $operator, y);
            self.text().$kind(expression)
        }
    )*};
}

impl Masks for Text {
    type M = Operand;

    statements! { mask infix: and "&&", or "||", xor "!=", truth_eq "==", truth_lt "<", truth_le "<=" }

    fn not(&mut self, x: Operand) -> Operand {
        let expression = format!("!{}", self.of(x));
        self.mask(expression)
    }
}

impl Floats for Text {
    type F = Operand;

    statements! { element infix: add "+", sub "-", mul "*", div "/" }
    statements! {
        element called: sqrt "sqrt", abs "fabs", floor "floor", ceil "ceil", trunc "trunc", nearest "rint"
    }
    statements! { mask infix: lt "<", le "<=", eq "==", ne "!=" }
    statements! { element on_bits: common_bits "&", joined_bits "|" }

    fn f(&mut self, value: f32) -> Operand {
        self.constant(Literal::from_f64(value.into(), self.dtype))
    }
    fn neg(&mut self, x: Operand) -> Operand {
        let expression = format!("-{}", self.of(x));
        self.element(expression)
    }
    fn select(&mut self, mask: Operand, x: Operand, y: Operand) -> Operand {
        let expression = self.choice(mask, x, y);
        self.element(expression)
    }
    fn maximum(&mut self, x: Operand, y: Operand) -> Operand {
        let (common, x, y) = (self.on_bits(x, "&", y), self.of(x), self.of(y));
        self.element(format!("{x} == {y} ? {common} : (({x} > {y} || {x} != {x}) ? {x} : {y})"))
    }
    fn minimum(&mut self, x: Operand, y: Operand) -> Operand {
        let (joined, x, y) = (self.on_bits(x, "|", y), self.of(x), self.of(y));
        self.element(format!("{x} == {y} ? {joined} : (({x} < {y} || {x} != {x}) ? {x} : {y})"))
    }
}

impl Doubles for Text {
    fn d(&mut self, value: f64) -> Operand {
        self.constant(Literal::from(value))
    }
    fn call(&mut self, routine: &'static Library, operands: [Operand; 2]) -> Operand {
        let operands: Vec<&str> = operands[..routine.arity].iter().map(|x| self.of(*x)).collect();
        let expression = format!("{}({})", routine.name, operands.join(", "));
        self.element(expression)
    }
}

impl Arith for Text {
    type I = Operand;

    statements! { mask infix: i_lt "<", i_eq "==" }
    statements! { int called: bits "as_int" }
    statements! { element called: from_bits "as_float" }
    statements! { int wrapping: i_add "+", i_sub "-", i_mul "*" }
    statements! { int infix: i_and "&", i_or "|", i_xor "^" }

    fn i(&mut self, value: i32) -> Operand {
        self.constant(Literal::I32(value))
    }
    fn fma(&mut self, x: Operand, y: Operand, z: Operand) -> Operand {
        let expression = format!("fma({}, {}, {})", self.of(x), self.of(y), self.of(z));
        self.element(expression)
    }
    fn select_i(&mut self, mask: Operand, x: Operand, y: Operand) -> Operand {
        let expression = self.choice(mask, x, y);
        self.int(expression)
    }
    fn rarely(&mut self, mask: Operand, operands: [Operand; 2], usual: Operand, rare: Rare<Text>) -> Operand {
        let expression = self.of(usual).to_owned();
        let result = self.element(expression);
        self.lines.push(format!("if ({}) {{", self.of(mask)));
        let found = rare(self, operands);
        self.lines.push(format!("{} = {};", self.of(result), self.of(found)));
        self.lines.push("}".to_owned());
        result
    }
    fn is_fused(&self) -> bool {
        true
    }
    fn shl(&mut self, x: Operand, count: u32) -> Operand {
        let expression = format!("as_int(as_uint({}) << {count})", self.of(x));
        self.int(expression)
    }
    fn shr(&mut self, x: Operand, count: u32) -> Operand {
        let expression = format!("as_int(as_uint({}) >> {count})", self.of(x));
        self.int(expression)
    }
    fn sar(&mut self, x: Operand, count: u32) -> Operand {
        let expression = format!("{} >> {count}", self.of(x));
        self.int(expression)
    }
    fn to_float(&mut self, x: Operand) -> Operand {
        let expression = format!("(float){}", self.of(x));
        self.element(expression)
    }
    fn to_int(&mut self, x: Operand) -> Operand {
        let expression = format!("(int){}", self.of(x));
        self.int(expression)
    }
}

/// Arithmetic of integers of the type of a text.
struct Whole<'t>(&'t mut Text);

impl Whole<'_> {
    fn text(&mut self) -> &mut Text {
        self.0
    }
}

impl Masks for Whole<'_> {
    type M = Operand;

    fn and(&mut self, x: Operand, y: Operand) -> Operand {
        self.0.and(x, y)
    }
    fn or(&mut self, x: Operand, y: Operand) -> Operand {
        self.0.or(x, y)
    }
    fn xor(&mut self, x: Operand, y: Operand) -> Operand {
        self.0.xor(x, y)
    }
    fn not(&mut self, x: Operand) -> Operand {
        self.0.not(x)
    }
}

impl Integers for Whole<'_> {
    type N = Operand;

    statements! { element wrapping: add "+", sub "-", mul "*" }
    statements! {
        element narrowed: truncated_quotient "/", truncated_remainder "%", bit_and "&", bit_or "|", bit_xor "^"
    }
    statements! { mask infix: lt "<", le "<=", eq "==", ne "!=" }

    fn is_signed(&self) -> bool {
        self.0.dtype != DType::U8
    }
    fn n(&mut self, value: i64) -> Operand {
        self.0.constant(Literal::from_i64(value, self.0.dtype))
    }
    fn natural_power(&mut self, x: Operand, y: Operand) -> Operand {
        let (ty, unsigned) =
            (register_type(self.0.dtype), if self.0.dtype == DType::I64 { "ulong" } else { "uint" });
        let start = format!("{unsigned} base = ({unsigned}){}, power = 1;", self.0.of(x));
        let rest = format!("for ({unsigned} rest = ({unsigned}){}; rest != 0; rest >>= 1) {{", self.0.of(y));
        let step = "    if (rest & 1)\n            power *= base;\n        base *= base;".to_owned();
        self.0.lines.extend([start, rest, step, "}".to_owned()]);
        self.0.element(format!("({ty})power"))
    }
    fn maximum(&mut self, x: Operand, y: Operand) -> Operand {
        let (x, y) = (self.0.of(x), self.0.of(y));
        self.0.element(format!("{x} >= {y} ? {x} : {y}"))
    }
    fn minimum(&mut self, x: Operand, y: Operand) -> Operand {
        let (x, y) = (self.0.of(x), self.0.of(y));
        self.0.element(format!("{x} <= {y} ? {x} : {y}"))
    }
    fn bit_not(&mut self, x: Operand) -> Operand {
        let expression = format!("({})~{}", register_type(self.0.dtype), self.0.of(x));
        self.0.element(expression)
    }
    fn select(&mut self, mask: Operand, x: Operand, y: Operand) -> Operand {
        let expression = self.0.choice(mask, x, y);
        self.0.element(expression)
    }
}
