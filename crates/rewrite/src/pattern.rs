//! The text of rules: parsing, matching against e-classes, building the other side.
//!
//! `(log (mul ?a ?b))` names operators as the text form of graphs does. A number stands for a constant that is
//! everywhere that number, of any shape and type. `head:name` keeps the operator with its attributes, so that the right
//! side can use it again or a Rust function can look at it; `?x ...` ignores further operands (bounds of windows).
//! `+0` and `-0` are the float zero of that sign, or the one integer zero, where `0` is either. `(stop? p)` is `p` with or without a `stop_gradient` around it. On the right side `(! mul ?a ?b)` is the constant
//! `a * b`, computed in double precision. Functions that commute match in both orders, so no rule says it.

use egg::Id;
use hypatia_graph::op::{Op, Write, known_dims};
use hypatia_graph::{DType, Fold, Literal, ScalarFn, TensorType};
use smallvec::{SmallVec, smallvec};

use crate::facts::tiny;
use crate::term::{Egraph, Term, insert_term};

/// What stands at the head of a pattern.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Head {
    Map(ScalarFn),
    /// Any elementwise function of one operand.
    Unary,
    /// Any elementwise function of two operands.
    Binary,
    Cast,
    /// A reduction; any where `None`.
    Reduce(Option<Fold>),
    Mean,
    ArgMax,
    Dot,
    Broadcast,
    Reshape,
    Permute,
    /// `broadcast`, `reshape` or `permute`: every element of the operand appears, and nothing else.
    View,
    Window,
    SetWindow(Write),
    Concat,
    Gather,
    Scatter(Write),
    StopGradient,
}

impl Head {
    fn parse(name: &str) -> Option<Head> {
        Some(match name {
            "unary" => Head::Unary,
            "binary" => Head::Binary,
            "cast" => Head::Cast,
            "reduce" => Head::Reduce(None),
            "mean" => Head::Mean,
            "argmax" => Head::ArgMax,
            "dot" => Head::Dot,
            "broadcast" => Head::Broadcast,
            "reshape" => Head::Reshape,
            "permute" => Head::Permute,
            "view" => Head::View,
            "window" => Head::Window,
            "set_window" => Head::SetWindow(Write::Set),
            "inc_window" => Head::SetWindow(Write::Add),
            "concat" => Head::Concat,
            "gather" => Head::Gather,
            "scatter" => Head::Scatter(Write::Set),
            "scatter_add" => Head::Scatter(Write::Add),
            "stop_gradient" => Head::StopGradient,
            _ => match Fold::ALL.iter().find(|fold| fold.name() == name) {
                Some(fold) => Head::Reduce(Some(*fold)),
                None => Head::Map(ScalarFn::from_name(name)?),
            },
        })
    }

    pub(crate) fn matches(&self, op: &Op) -> bool {
        match (self, op) {
            (Head::Map(f), Op::Map(g)) => f == g,
            (Head::Unary, Op::Map(g)) => g.arity() == 1,
            (Head::Binary, Op::Map(g)) => g.arity() == 2,
            (Head::Reduce(None), Op::Reduce(..))
            | (Head::Cast, Op::Cast(_))
            | (Head::Mean, Op::Mean(_))
            | (Head::ArgMax, Op::ArgMax(_))
            | (Head::Dot, Op::Dot)
            | (Head::Broadcast | Head::View, Op::Broadcast { .. })
            | (Head::Reshape | Head::View, Op::Reshape(_))
            | (Head::Permute | Head::View, Op::Permute(_))
            | (Head::Window, Op::Window(_))
            | (Head::Concat, Op::Concat(_))
            | (Head::Gather, Op::Gather { .. })
            | (Head::StopGradient, Op::StopGradient) => true,
            (Head::Reduce(Some(fold)), Op::Reduce(other, _)) => fold == other,
            (Head::SetWindow(write), Op::SetWindow(_, other)) => write == other,
            (Head::Scatter(write), Op::Scatter { write: other, .. }) => write == other,
            _ => false,
        }
    }

    /// The operator, where the head has no attributes.
    fn op(&self) -> Option<Op> {
        match self {
            Head::Map(f) => Some(Op::Map(*f)),
            Head::Dot => Some(Op::Dot),
            Head::StopGradient => Some(Op::StopGradient),
            Head::Unary
            | Head::Binary
            | Head::Cast
            | Head::Reduce(_)
            | Head::Mean
            | Head::ArgMax
            | Head::Broadcast
            | Head::Reshape
            | Head::Permute
            | Head::View
            | Head::Window
            | Head::SetWindow(_)
            | Head::Concat
            | Head::Gather
            | Head::Scatter(_) => None,
        }
    }

    fn commutes(&self) -> bool {
        matches!(self, Head::Map(f) if f.is_commutative())
    }

    /// The names of the operators that a pattern with this head may match.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        let functions =
            |arity: usize| ScalarFn::ALL.iter().filter(|f| f.arity() == arity).map(|f| f.name()).collect();
        match self {
            Head::Unary => functions(1),
            Head::Binary => functions(2),
            Head::View => vec!["broadcast", "reshape", "permute"],
            Head::Map(f) => vec![f.name()],
            Head::Reduce(None) => Fold::ALL.iter().map(|fold| fold.name()).collect(),
            Head::Reduce(Some(fold)) => vec![fold.name()],
            Head::Cast => vec!["cast"],
            Head::Mean => vec!["mean"],
            Head::ArgMax => vec!["argmax"],
            Head::Dot => vec!["dot"],
            Head::Broadcast => vec!["broadcast"],
            Head::Reshape => vec!["reshape"],
            Head::Permute => vec!["permute"],
            Head::Window => vec!["window"],
            Head::SetWindow(Write::Set) => vec!["set_window"],
            Head::SetWindow(Write::Add) => vec!["inc_window"],
            Head::Concat => vec!["concat"],
            Head::Gather => vec!["gather"],
            Head::Scatter(Write::Set) => vec!["scatter"],
            Head::Scatter(Write::Add) => vec!["scatter_add"],
            Head::StopGradient => vec!["stop_gradient"],
        }
    }
}

/// One side of a rule.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Pattern {
    /// Any value; the same one wherever the variable stands.
    Variable(usize),
    /// A constant of that value.
    Number(f64),
    /// A constant zero of that sign; integers have one zero only.
    Zero(f64),
    /// An operator on operands; `name` keeps it.
    Node { head: Head, name: Option<usize>, operands: Vec<Pattern>, more: bool },
    /// On the right side: the operator kept on the left, again.
    Again { name: usize, operands: Vec<Pattern> },
    /// With or without `stop_gradient`.
    Stopped(Box<Pattern>),
    /// On the right side: a function of constants, computed.
    Computed(ScalarFn, Vec<Pattern>),
}

/// What the parts of a match are called: variables and kept operators.
#[derive(Clone, Default, Debug)]
pub(crate) struct Names {
    pub(crate) variables: Vec<String>,
    pub(crate) terms: Vec<String>,
}

/// The position of a name, added if it is new.
pub(crate) fn slot(names: &mut Vec<String>, name: &str) -> usize {
    names.iter().position(|n| n == name).unwrap_or_else(|| {
        names.push(name.to_string());
        names.len() - 1
    })
}

/// Reads one pattern from the front of the text.
pub(crate) fn parse(text: &str, names: &mut Names) -> Result<Pattern, String> {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut tokens = spaced.split_whitespace().peekable();
    let pattern = parse_tokens(&mut tokens, names)?;
    match tokens.next() {
        None => Ok(pattern),
        Some(token) => Err(format!("`{token}` after the end of `{text}`")),
    }
}

fn parse_tokens<'t>(
    tokens: &mut std::iter::Peekable<impl Iterator<Item = &'t str>>,
    names: &mut Names,
) -> Result<Pattern, String> {
    let token = tokens.next().ok_or("a pattern ends too early")?;
    if token != "(" {
        return match (token.strip_prefix('?'), token) {
            (Some(name), _) => Ok(Pattern::Variable(slot(&mut names.variables, name))),
            (None, "true") => Ok(Pattern::Number(1.0)),
            (None, "false") => Ok(Pattern::Number(0.0)),
            (None, "+0") => Ok(Pattern::Zero(0.0)),
            (None, "-0") => Ok(Pattern::Zero(-0.0)),
            (None, number) => {
                number.parse().map(Pattern::Number).map_err(|_| format!("`{token}` is no number"))
            }
        };
    }
    let head = tokens.next().ok_or("a pattern ends too early")?;
    let computed = if head == "!" { tokens.next() } else { None };
    let mut operands = Vec::new();
    let mut more = false;
    loop {
        match tokens.peek() {
            None => return Err("a pattern ends too early".into()),
            Some(&")") => break,
            Some(&"...") => {
                more = true;
                tokens.next();
            }
            Some(_) => operands.push(parse_tokens(tokens, names)?),
        }
    }
    tokens.next();
    if let Some(name) = computed {
        let f = ScalarFn::from_name(name).ok_or_else(|| format!("no function `{name}`"))?;
        return Ok(Pattern::Computed(f, operands));
    }
    if head == "stop?" {
        let inner = operands.pop().ok_or("`stop?` takes a pattern")?;
        return Ok(Pattern::Stopped(Box::new(inner)));
    }
    let (kind, name) = match head.split_once(':') {
        Some((kind, name)) => (kind, Some(name)),
        None => (head, None),
    };
    if kind.is_empty() {
        let name = name.unwrap_or_default();
        let known = names.terms.iter().position(|n| n == name);
        let name = known.ok_or_else(|| format!("the left side keeps no operator `{name}`"))?;
        return Ok(Pattern::Again { name, operands });
    }
    let head = Head::parse(kind).ok_or_else(|| format!("no operator `{kind}`"))?;
    let name = name.map(|name| slot(&mut names.terms, name));
    Ok(Pattern::Node { head, name, operands, more })
}

impl Pattern {
    /// The head of a left side.
    pub(crate) fn head(&self) -> Option<&Head> {
        match self {
            Pattern::Node { head, .. } => Some(head),
            Pattern::Variable(_)
            | Pattern::Number(_)
            | Pattern::Zero(_)
            | Pattern::Again { .. }
            | Pattern::Stopped(_)
            | Pattern::Computed(..) => None,
        }
    }

    /// Whether it stands for that constant.
    pub(crate) fn is_number(&self, constant: Literal) -> bool {
        match self {
            Pattern::Number(wanted) => is_number(constant, *wanted),
            Pattern::Zero(zero) => {
                let alike = constant.to_f64().is_sign_negative() == zero.is_sign_negative();
                is_number(constant, 0.0) && (alike || !constant.dtype().is_float())
            }
            Pattern::Variable(_)
            | Pattern::Node { .. }
            | Pattern::Again { .. }
            | Pattern::Stopped(_)
            | Pattern::Computed(..) => false,
        }
    }

    /// How many levels of operators it spans.
    pub(crate) fn depth(&self) -> usize {
        match self {
            Pattern::Variable(_) | Pattern::Number(_) | Pattern::Zero(_) => 0,
            Pattern::Stopped(inner) => 1 + inner.depth(),
            Pattern::Node { operands, .. }
            | Pattern::Again { operands, .. }
            | Pattern::Computed(_, operands) => 1 + operands.iter().map(Pattern::depth).max().unwrap_or(0),
        }
    }
}

/// What the variables and kept operators of a pattern stand for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bindings<'e> {
    pub(crate) classes: SmallVec<[Option<Id>; 6]>,
    pub(crate) terms: SmallVec<[Option<&'e Term>; 4]>,
}

/// Stops the product of alternatives in a class with many terms from growing without bound.
const MOST_MATCHES: usize = 24;

/// All ways in which a term of a class matches a pattern that begins with an operator.
pub(crate) fn match_term<'e>(
    egraph: &'e Egraph<'_>,
    pattern: &Pattern,
    names: &Names,
    term: &'e Term,
) -> Vec<Bindings<'e>> {
    let mut matcher = Matcher { egraph, goals: Vec::new(), found: Vec::new() };
    let mut bindings = Bindings {
        classes: smallvec![None; names.variables.len()],
        terms: smallvec![None; names.terms.len()],
    };
    matcher.match_node(pattern, term, &mut bindings);
    matcher.found
}

struct Matcher<'e, 'p, 'g> {
    egraph: &'e Egraph<'g>,
    goals: Vec<(&'p Pattern, Id)>,
    found: Vec<Bindings<'e>>,
}

impl<'e, 'p, 'g> Matcher<'e, 'p, 'g> {
    /// Matches the last goal, then the others; with none left the bindings are a match.
    fn solve(&mut self, bindings: &mut Bindings<'e>) {
        if self.found.len() >= MOST_MATCHES {
            return;
        }
        let Some((pattern, class)) = self.goals.pop() else {
            self.found.push(bindings.clone());
            return;
        };
        match pattern {
            Pattern::Variable(index) => {
                let class = self.egraph.find(class);
                match bindings.classes[*index] {
                    Some(bound) if bound == class => self.solve(bindings),
                    Some(_) => {}
                    None => {
                        bindings.classes[*index] = Some(class);
                        self.solve(bindings);
                        bindings.classes[*index] = None;
                    }
                }
            }
            Pattern::Number(_) | Pattern::Zero(_) => {
                if self.egraph[class].data.constant.is_some_and(|value| pattern.is_number(value)) {
                    self.solve(bindings);
                }
            }
            Pattern::Stopped(inner) => {
                self.goals.push((inner, class));
                self.solve(bindings);
                self.goals.pop();
                for term in &self.egraph[class].nodes {
                    if term.op == Op::StopGradient {
                        self.goals.push((inner, term.operands[0]));
                        self.solve(bindings);
                        self.goals.pop();
                    }
                }
            }
            Pattern::Node { .. } => {
                for term in &self.egraph[class].nodes {
                    self.match_node(pattern, term, bindings);
                }
            }
            Pattern::Again { .. } | Pattern::Computed(..) => {}
        }
        self.goals.push((pattern, class));
    }

    fn match_node(&mut self, pattern: &'p Pattern, term: &'e Term, bindings: &mut Bindings<'e>) {
        let Pattern::Node { head, name, operands, more } = pattern else { return };
        let fits =
            if *more { term.operands.len() >= operands.len() } else { term.operands.len() == operands.len() };
        if !fits || !head.matches(&term.op) {
            return;
        }
        let saved = name.map(|name| bindings.terms[name]);
        if let Some(name) = *name {
            match bindings.terms[name] {
                Some(kept) if kept.op != term.op => return,
                Some(_) | None => bindings.terms[name] = Some(term),
            }
        }
        let depth = self.goals.len();
        // The last goal is taken first: operands are matched from the left.
        self.goals.extend(operands.iter().zip(term.operands.iter().copied()).rev());
        self.solve(bindings);
        self.goals.truncate(depth);
        if head.commutes() && term.operands[0] != term.operands[1] {
            self.goals.extend(operands.iter().rev().zip(term.operands.iter().copied()));
            self.solve(bindings);
            self.goals.truncate(depth);
        }
        if let (Some(name), Some(saved)) = (*name, saved) {
            bindings.terms[name] = saved;
        }
    }
}

/// A value for the right side of a rule to build.
#[derive(Clone, Debug)]
pub(crate) enum Built {
    /// A class that is there.
    Class(Id),
    /// A constant of the type of its place.
    Number(f64),
    /// A constant in the shape of its place.
    Uniform(Literal),
    /// A constant of a given type.
    Constant(f64, TensorType),
    /// An operator on built values.
    Node(Op, Vec<Built>),
}

impl Built {
    pub(crate) fn map(f: ScalarFn, operands: impl Into<Vec<Built>>) -> Built {
        Built::Node(Op::Map(f), operands.into())
    }

    pub(crate) fn node(op: Op, operand: Built) -> Built {
        Built::Node(op, vec![operand])
    }

    /// Adds it to the e-graph. A number takes the type of its siblings under an elementwise function, at the root the
    /// type of what is replaced. `None` where the rule built what has no type.
    pub(crate) fn insert(&self, egraph: &mut Egraph<'_>, expected: &TensorType) -> Option<Id> {
        match self {
            Built::Class(id) => Some(*id),
            Built::Number(value) => insert_constant(egraph, *value, expected),
            Built::Uniform(value) => insert_uniform(egraph, *value, expected),
            Built::Constant(value, ty) => insert_constant(egraph, *value, ty),
            Built::Node(op, operands) => {
                let mut ids: SmallVec<[Option<Id>; 4]> = smallvec![None; operands.len()];
                for (slot, operand) in ids.iter_mut().zip(operands) {
                    if !matches!(operand, Built::Number(_) | Built::Uniform(_)) {
                        *slot = Some(operand.insert(egraph, expected)?);
                    }
                }
                // The condition of a choice says nothing about the type of the chosen, but for the shape.
                let values = if *op == Op::Map(ScalarFn::Select) { &ids[1..] } else { &ids[..] };
                let sibling = match (values.iter().flatten().next(), &ids[..]) {
                    (Some(id), _) => egraph[*id].data.ty.clone(),
                    (None, [Some(condition), ..]) => egraph[*condition].data.ty.with_dtype(expected.dtype),
                    (None, _) => expected.clone(),
                };
                for (slot, operand) in ids.iter_mut().zip(operands) {
                    if slot.is_none() {
                        *slot = Some(operand.insert(egraph, &sibling)?);
                    }
                }
                let ids: SmallVec<[Id; 4]> = ids.into_iter().flatten().collect();
                insert_term(egraph, op.clone(), &ids)
            }
        }
    }
}

/// A constant of that type; `None` where the type has no normal number, or not that integer, for it.
pub(crate) fn insert_constant(egraph: &mut Egraph<'_>, value: f64, ty: &TensorType) -> Option<Id> {
    let literal = Literal::from_f64(value, ty.dtype);
    if !is_number(literal, value) && !value.is_nan() {
        return None;
    }
    if ty.dtype.is_float() && value != 0.0 {
        let held = literal.to_f64().abs();
        if held < tiny(ty.dtype) || (held.is_infinite() && value.is_finite()) {
            return None;
        }
    }
    insert_uniform(egraph, literal, ty)
}

fn insert_uniform(egraph: &mut Egraph<'_>, value: Literal, ty: &TensorType) -> Option<Id> {
    let scalar = insert_term(egraph, Op::Literal(value), &[])?;
    if ty.rank() == 0 {
        return Some(scalar);
    }
    let op = Op::Broadcast { axes: smallvec![], dims: known_dims(&ty.extents()?) };
    insert_term(egraph, op, &[scalar])
}

/// A right side with the bindings put in; `None` where a computed constant has no value.
pub(crate) fn instantiate(egraph: &Egraph<'_>, pattern: &Pattern, bindings: &Bindings<'_>) -> Option<Built> {
    let all = |operands: &[Pattern]| -> Option<Vec<Built>> {
        operands.iter().map(|operand| instantiate(egraph, operand, bindings)).collect()
    };
    Some(match pattern {
        Pattern::Variable(index) => Built::Class(bindings.classes[*index]?),
        Pattern::Number(value) | Pattern::Zero(value) => Built::Number(*value),
        Pattern::Node { head, operands, .. } => Built::Node(head.op()?, all(operands)?),
        Pattern::Again { name, operands } => {
            let term = bindings.terms[*name]?;
            let mut built = all(operands)?;
            built.extend(term.operands.iter().skip(built.len()).map(|id| Built::Class(*id)));
            Built::Node(term.op.clone(), built)
        }
        Pattern::Stopped(inner) => Built::Node(Op::StopGradient, vec![instantiate(egraph, inner, bindings)?]),
        Pattern::Computed(..) => {
            let value = compute(egraph, pattern, bindings)?;
            value.is_finite().then_some(Built::Number(value))?
        }
    })
}

/// The value of a right side made of constants, in double precision.
fn compute(egraph: &Egraph<'_>, pattern: &Pattern, bindings: &Bindings<'_>) -> Option<f64> {
    match pattern {
        Pattern::Number(value) | Pattern::Zero(value) => Some(*value),
        Pattern::Variable(index) => exact_number(egraph[bindings.classes[*index]?].data.constant?),
        Pattern::Computed(f, operands) => {
            let values: Option<Vec<Literal>> = operands
                .iter()
                .map(|operand| {
                    compute(egraph, operand, bindings).map(|value| Literal::from_f64(value, DType::F64))
                })
                .collect();
            Some(f.eval(&values?)?.to_f64())
        }
        Pattern::Node { .. } | Pattern::Again { .. } | Pattern::Stopped(_) => None,
    }
}

/// A constant as a double; `None` of integers that are none.
pub(crate) fn exact_number(constant: Literal) -> Option<f64> {
    constant.to_i64().is_none_or(|n| n.unsigned_abs() <= 1 << 53).then(|| constant.to_f64())
}

/// Whether a constant is the number of a pattern: of floats, that number in their precision.
pub(crate) fn is_number(constant: Literal, wanted: f64) -> bool {
    if constant.dtype().is_float() {
        constant.to_f64() == Literal::from_f64(wanted, constant.dtype()).to_f64()
    } else {
        constant.to_f64() == wanted
    }
}
