//! Reads formulas in the notation of Python and NumPy, for the command line: `x: f32[8, 10]; log(softmax(x))`.
//!
//! Names are inputs: `f32` scalars unless they are declared. A formula may end in definitions, as [`super::formula`]
//! prints them: `t / sum(t) where t = exp(x)`. Everything is built through the methods that users call, and what those
//! find ill typed is an error at the operator.

use std::collections::BTreeMap;
use std::fmt;

use super::ParseError;
use super::lexer::{Place, Reader, Token};
use super::shown::Few;
use crate::array::fits_in_memory;
use crate::collect::{Request, Unused, collect};
use crate::compose::{AxisSet, switch};
use crate::diagnostic::Diagnostics;
use crate::dtype::DType;
use crate::gradient::grad;
use crate::graph::Graph;
use crate::scalar::ScalarFn;
use crate::shape::{Axes, Extent, MAX_RANK, TensorType};
use crate::tensor::{Tensor, input_of_type, map};

/// A formula and the inputs that it speaks of.
#[derive(Clone)]
pub struct Formula {
    /// The value of the formula.
    pub tensor: Tensor,
    /// The inputs in the order in which they are declared or first named.
    pub inputs: Vec<Tensor>,
}

impl fmt::Debug for Formula {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Formula").field("tensor", &self.tensor).field("inputs", &Few(&self.inputs)).finish()
    }
}

impl Formula {
    /// The graph of a function from the inputs to the formula's value.
    pub fn graph(&self) -> Result<Graph, Diagnostics> {
        let inputs = self.inputs.clone();
        let outputs = vec![self.tensor.clone()];
        collect(&Request { inputs, outputs, unused: Unused::Ignore, ..Request::default() })
    }
}

/// Reads a formula.
///
/// It may begin with declarations such as `x: f32[3, ?];`. There are `+ - * / // % ** @`, one comparison, `.T`, numbers,
/// every elementwise function by name, `sum`, `prod`, `mean`, `max`, `min`, `all`, `any`, `var` and `std` over all axes
/// or those of `axis=1` or `axis=[0, 1]` (with `keepdims=true` as extents of 1), `argmax` and `argmin` along `axis=1`,
/// `softmax`, `log_softmax` and `logsumexp` along the last axis or `axis=0`, `dot`, `relu`, `logaddexp`,
/// `stop_gradient`, and `grad(cost, x)`.
pub fn parse_formula(text: &str) -> Result<Formula, ParseError> {
    let mut parser =
        Parser { reader: Reader::of_formula(text)?, inputs: Vec::new(), named: BTreeMap::new(), depth: 0 };
    parser.declarations()?;
    let beginning = parser.reader.position();
    let defined = parser.reader.seek_word("where");
    if defined {
        parser.definitions()?;
        parser.reader.return_to(beginning);
    }
    let tensor = parser.comparison()?;
    let ended = match parser.reader.peek() {
        Token::End => true,
        Token::Word(word) => defined && word == "where",
        Token::Name(_) | Token::Unnamed(_) | Token::Number(..) | Token::Sign(_) | Token::Newline => false,
    };
    if !ended {
        return Err(parser.reader.unexpected("an operator or the end"));
    }
    Ok(Formula { tensor, inputs: parser.inputs })
}

type Parsed<T> = Result<T, ParseError>;

/// How deep parentheses and functions may be nested: reading goes down the stack.
const MAX_DEPTH: usize = 128;

struct Parser<'a> {
    reader: Reader<'a>,
    inputs: Vec<Tensor>,
    /// Inputs and definitions.
    named: BTreeMap<String, Tensor>,
    depth: usize,
}

/// What follows the operands of a function.
#[derive(Default)]
struct Options {
    axes: Option<Vec<i64>>,
    keepdims: bool,
}

impl AxisSet for &Options {
    fn axes(&self, rank: usize) -> Result<Axes, String> {
        let Some(axes) = &self.axes else { return Ok(Axes::all(rank)) };
        axes.iter().try_fold(Axes::NONE, |set, axis| Ok(set.iter().chain(axis.axes(rank)?.iter()).collect()))
    }
}

impl Parser<'_> {
    /// Refuses what is ill typed.
    fn checked(&self, place: Place, tensor: Tensor) -> Parsed<Tensor> {
        let known: Vec<usize> = tensor.ty().shape.iter().filter_map(|extent| extent.known()).collect();
        if !fits_in_memory(&known) {
            let found = format!("`{}`", tensor.ty());
            return Err(self.reader.error(place, "a value that fits in memory", found));
        }
        let Some(fault) = tensor.fault() else { return Ok(tensor) };
        let related: Vec<String> = fault.related.iter().map(|r| format!("{} {}", r.label, r.text)).collect();
        let found = format!("that {} ({})", fault.title, related.join(", "));
        Err(self.reader.error(place, "a well-typed formula", found))
    }

    /// `x: f32[3, 4];` for any number of inputs.
    fn declarations(&mut self) -> Parsed<()> {
        loop {
            let beginning = self.reader.position();
            let place = self.reader.place();
            let Token::Word(name) = self.reader.take() else {
                self.reader.return_to(beginning);
                return Ok(());
            };
            if !self.reader.takes(":") {
                self.reader.return_to(beginning);
                return Ok(());
            }
            if self.named.contains_key(&name) {
                return Err(self.reader.error(place, "a new name", format!("`{name}`, declared before")));
            }
            let ty = self.ty()?;
            let input = input_of_type(&name, ty);
            self.inputs.push(input.clone());
            self.named.insert(name, input);
            self.reader.expect(";")?;
        }
    }

    fn ty(&mut self) -> Parsed<TensorType> {
        let place = self.reader.place();
        let token = self.reader.take();
        let dtype = if let Token::Word(word) = &token { DType::from_name(word) } else { None };
        let Some(dtype) = dtype else {
            let names = DType::ALL.map(|dtype| format!("`{dtype}`")).join(", ");
            return Err(self.reader.error(place, format!("an element type ({names})"), token.to_string()));
        };
        let mut shape: Vec<Extent> = Vec::new();
        self.reader.expect("[")?;
        while !self.reader.takes("]") {
            if !shape.is_empty() {
                self.reader.expect(",")?;
            }
            if self.reader.takes("?") {
                shape.push(Extent::Unknown);
            } else {
                let n = self.integer("an extent or `?`")?;
                shape.push(usize::try_from(n).map_or(Extent::Unknown, Extent::Known));
            }
        }
        let known: Vec<usize> = shape.iter().filter_map(|extent| extent.known()).collect();
        if shape.len() > MAX_RANK || !fits_in_memory(&known) {
            let expected = format!("at most {MAX_RANK} extents of a tensor that fits in memory");
            return Err(self.reader.error(place, expected, format!("{}", TensorType::new(dtype, &shape))));
        }
        Ok(TensorType::new(dtype, &shape))
    }

    /// A number without sign, fraction or exponent.
    fn integer(&mut self, expected: &str) -> Parsed<i64> {
        let place = self.reader.place();
        let token = self.reader.take();
        let value = match &token {
            Token::Number(digits, suffix) if suffix.is_empty() => digits.parse().ok(),
            Token::Number(..)
            | Token::Name(_)
            | Token::Unnamed(_)
            | Token::Word(_)
            | Token::Sign(_)
            | Token::Newline
            | Token::End => None,
        };
        value.ok_or_else(|| self.reader.error(place, expected, token.to_string()))
    }

    /// `t1 = ...; t2 = ...`, each in terms of those before.
    fn definitions(&mut self) -> Parsed<()> {
        loop {
            let place = self.reader.place();
            let token = self.reader.take();
            let Token::Word(name) = &token else {
                return Err(self.reader.error(place, "a name to define", token.to_string()));
            };
            self.reader.expect("=")?;
            let value = self.comparison()?;
            if self.named.insert(name.clone(), value).is_some() {
                let found = format!("`{name}`, which has a meaning already");
                return Err(self.reader.error(place, "a new name", found));
            }
            if !self.reader.takes(";") {
                return match self.reader.peek() {
                    Token::End => Ok(()),
                    Token::Name(_)
                    | Token::Unnamed(_)
                    | Token::Word(_)
                    | Token::Number(..)
                    | Token::Sign(_)
                    | Token::Newline => Err(self.reader.unexpected("an operator, `;` or the end")),
                };
            }
        }
    }

    /// The operator that stands here, if it is one of these.
    fn operator(&mut self, operators: &[(&str, ScalarFn)]) -> Option<(Place, ScalarFn)> {
        let place = self.reader.place();
        let (_, f) = operators.iter().find(|(sign, _)| self.reader.takes(sign))?;
        Some((place, *f))
    }

    fn comparison(&mut self) -> Parsed<Tensor> {
        const COMPARISONS: [(&str, ScalarFn); 6] = [
            ("<=", ScalarFn::Le),
            (">=", ScalarFn::Ge),
            ("==", ScalarFn::Eq),
            ("!=", ScalarFn::Ne),
            ("<", ScalarFn::Lt),
            (">", ScalarFn::Gt),
        ];
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.reader.unexpected(format!("a formula nested at most {MAX_DEPTH} deep")));
        }
        let left = self.sum()?;
        let compared = match self.operator(&COMPARISONS) {
            Some((place, f)) => {
                let right = self.sum()?;
                self.checked(place, map(f, &[&left, &right]))
            }
            None => Ok(left),
        };
        self.depth -= 1;
        compared
    }

    fn sum(&mut self) -> Parsed<Tensor> {
        let mut left = self.product()?;
        while let Some((place, f)) = self.operator(&[("+", ScalarFn::Add), ("-", ScalarFn::Sub)]) {
            let right = self.product()?;
            left = self.checked(place, map(f, &[&left, &right]))?;
        }
        Ok(left)
    }

    fn product(&mut self) -> Parsed<Tensor> {
        const PRODUCTS: [(&str, ScalarFn); 4] =
            [("*", ScalarFn::Mul), ("/", ScalarFn::Div), ("//", ScalarFn::FloorDiv), ("%", ScalarFn::Mod)];
        let mut left = self.signed()?;
        loop {
            let place = self.reader.place();
            if self.reader.takes("@") {
                let right = self.signed()?;
                left = self.checked(place, left.dot(right))?;
            } else if let Some((place, f)) = self.operator(&PRODUCTS) {
                let right = self.signed()?;
                left = self.checked(place, map(f, &[&left, &right]))?;
            } else {
                return Ok(left);
            }
        }
    }

    /// Minus signs and a power; the power binds more tightly.
    fn signed(&mut self) -> Parsed<Tensor> {
        let mut signs = Vec::new();
        let mut place = self.reader.place();
        while self.reader.takes("-") {
            signs.push(place);
            place = self.reader.place();
        }
        let number = self.number()?;
        let mut value = match number {
            // `-2` is a number: it takes the type of what it meets. `-2 ** x` is not.
            Some(number) if !matches!(self.reader.peek(), Token::Sign("**")) => {
                number.tensor(signs.pop().is_some())
            }
            Some(number) => self.power(number.tensor(false))?,
            None => {
                let base = self.postfix()?;
                self.power(base)?
            }
        };
        for place in signs.into_iter().rev() {
            value = self.checked(place, map(ScalarFn::Neg, &[&value]))?;
        }
        Ok(value)
    }

    fn power(&mut self, base: Tensor) -> Parsed<Tensor> {
        let place = self.reader.place();
        if !self.reader.takes("**") {
            return Ok(base);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.reader.unexpected(format!("a formula nested at most {MAX_DEPTH} deep")));
        }
        let exponent = self.signed()?;
        self.depth -= 1;
        self.checked(place, map(ScalarFn::Pow, &[&base, &exponent]))
    }

    /// A number or `inf`, if one stands here.
    fn number(&mut self) -> Parsed<Option<Number>> {
        let number = match self.reader.peek() {
            Token::Number(digits, suffix) if suffix.is_empty() => match digits.parse::<i64>() {
                Ok(n) => Some(Number::Integer(n)),
                Err(_) => digits.parse::<f64>().ok().map(Number::Float),
            },
            Token::Word(word) => match word.as_str() {
                "inf" => Some(Number::Float(f64::INFINITY)),
                "nan" => Some(Number::Float(f64::NAN)),
                _ => return Ok(None),
            },
            Token::Number(..) => None,
            Token::Name(_) | Token::Unnamed(_) | Token::Sign(_) | Token::Newline | Token::End => {
                return Ok(None);
            }
        };
        if number.is_none() {
            return Err(self.reader.unexpected("a number without suffix"));
        }
        self.reader.take();
        Ok(number)
    }

    /// An operand and `.T` any number of times.
    fn postfix(&mut self) -> Parsed<Tensor> {
        let mut value = self.operand()?;
        while self.reader.takes(".") {
            if !matches!(self.reader.peek(), Token::Word(word) if word == "T") {
                return Err(self.reader.unexpected("`T`, the transpose"));
            }
            let place = self.reader.place();
            self.reader.take();
            value = self.checked(place, value.t())?;
        }
        Ok(value)
    }

    fn operand(&mut self) -> Parsed<Tensor> {
        if self.reader.takes("(") {
            let value = self.comparison()?;
            self.reader.expect(")")?;
            return Ok(value);
        }
        let place = self.reader.place();
        let token = self.reader.take();
        let Token::Word(name) = token else {
            return Err(self.reader.error(place, "a number, a name or `(`", token.to_string()));
        };
        if self.reader.takes("(") {
            let value = self.function(place, &name)?;
            return self.checked(place, value);
        }
        if let Some(known) = self.named.get(&name) {
            return Ok(known.clone());
        }
        if let "true" | "false" = name.as_str() {
            return Ok(Tensor::from(name == "true"));
        }
        let input = input_of_type(&name, TensorType::scalar(DType::F32));
        self.inputs.push(input.clone());
        self.named.insert(name, input.clone());
        Ok(input)
    }

    /// A function whose name and parenthesis have been read.
    fn function(&mut self, place: Place, name: &str) -> Parsed<Tensor> {
        let mut operands = Vec::new();
        let mut options = Options::default();
        while !self.reader.takes(")") {
            if !operands.is_empty() {
                if !self.reader.takes(",") {
                    return Err(self.reader.unexpected("`,` or `)`"));
                }
                if self.option(&mut options)? {
                    continue;
                }
            }
            operands.push(self.comparison()?);
        }
        let wrong = |expected: String| {
            let found = format!("`{name}` of {} operands", operands.len());
            Err(self.reader.error(place, expected, found))
        };
        let axis = options.axes.as_ref().and_then(|axes| axes.first()).copied();
        let (set, keep) = (&options, options.keepdims);
        Ok(match (name, operands.as_slice()) {
            ("sum", [x]) if keep => x.sum_keepdims(set),
            ("sum", [x]) => x.sum(set),
            ("prod", [x]) if keep => x.prod_keepdims(set),
            ("prod", [x]) => x.prod(set),
            ("max", [x]) if keep => x.max_keepdims(set),
            ("max", [x]) => x.max(set),
            ("min", [x]) if keep => x.min_keepdims(set),
            ("min", [x]) => x.min(set),
            ("mean", [x]) if keep => x.mean_keepdims(set),
            ("mean", [x]) => x.mean(set),
            ("var", [x]) => x.var(set),
            ("std", [x]) => x.std(set),
            ("all", [x]) => x.all(set),
            ("any", [x]) => x.any(set),
            ("argmax", [x]) => x.argmax(axis.unwrap_or(-1)),
            ("argmin", [x]) => x.argmin(axis.unwrap_or(-1)),
            ("softmax", [x]) => x.softmax(axis.unwrap_or(-1)),
            ("log_softmax", [x]) => x.log_softmax(axis.unwrap_or(-1)),
            ("logsumexp", [x]) => x.logsumexp(axis.unwrap_or(-1)),
            ("relu", [x]) => x.relu(),
            ("stop_gradient", [x]) => x.stop_gradient(),
            ("grad", [cost, x]) => grad(cost, [x]).remove(0),
            ("logaddexp", [x, y]) => x.logaddexp(y),
            ("dot", [x, y]) => x.dot(y),
            ("switch", [condition, then, otherwise]) => switch(condition, then, otherwise),
            _ => match ScalarFn::from_name(name) {
                Some(f) if operands.len() == f.arity() => {
                    let operands: Vec<&Tensor> = operands.iter().collect();
                    map(f, &operands)
                }
                Some(f) => return wrong(format!("{} operands of `{f}`", f.arity())),
                None => return wrong("a function such as `exp`, `sum` or `softmax`".to_string()),
            },
        })
    }

    /// `axis=1`, `axis=[0, 1]` or `keepdims=true`, if one stands here.
    fn option(&mut self, options: &mut Options) -> Parsed<bool> {
        let beginning = self.reader.position();
        let Token::Word(word) = self.reader.take() else {
            self.reader.return_to(beginning);
            return Ok(false);
        };
        if !self.reader.takes("=") {
            self.reader.return_to(beginning);
            return Ok(false);
        }
        match word.as_str() {
            "axis" if self.reader.takes("[") => {
                let mut axes = vec![self.axis()?];
                while self.reader.takes(",") {
                    axes.push(self.axis()?);
                }
                self.reader.expect("]")?;
                options.axes = Some(axes);
            }
            "axis" => options.axes = Some(vec![self.axis()?]),
            "keepdims" => {
                let keep = matches!(self.reader.peek(), Token::Word(word) if word == "true");
                if !keep && !matches!(self.reader.peek(), Token::Word(word) if word == "false") {
                    return Err(self.reader.unexpected("`true` or `false`"));
                }
                self.reader.take();
                options.keepdims = keep;
            }
            _ => {
                self.reader.return_to(beginning);
                return Err(self.reader.unexpected("`axis=` or `keepdims=`"));
            }
        }
        Ok(true)
    }

    fn axis(&mut self) -> Parsed<i64> {
        let negative = self.reader.takes("-");
        let axis = self.integer("an axis")?;
        Ok(if negative { -axis } else { axis })
    }
}

/// A number as it is written; it takes the element type of what it meets.
#[derive(Copy, Clone)]
enum Number {
    Integer(i64),
    Float(f64),
}

impl Number {
    fn tensor(self, negative: bool) -> Tensor {
        match self {
            Number::Integer(n) => Tensor::from(if negative { -n } else { n }),
            Number::Float(x) => Tensor::from(if negative { -x } else { x }),
        }
    }
}

#[cfg(test)]
mod tests;
