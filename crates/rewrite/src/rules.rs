//! Rules: a left side to match, a right side to build, and what the step costs in truth.
//!
//! The tables stand in [`algebra`], [`stability`], [`reduce`] and [`shape`], one line a rule. Every rule makes a term
//! simpler, more accurate or cheaper, or brings two terms together so that another rule sees them; none says that a
//! function commutes or associates.

pub(crate) mod algebra;
pub(crate) mod reduce;
pub(crate) mod shape;
#[cfg(test)]
mod shared;
pub(crate) mod stability;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::LazyLock;

use egg::Id;
use hypatia_graph::Op;

use crate::facts::{Facts, tiny};
use crate::pattern::{Bindings, Built, Names, Pattern, instantiate, match_term, parse};
use crate::term::{Data, Egraph, Term};

/// What is lost in a step from the left side of a rule to the right one.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Exactness {
    /// Nothing: the same bits for all inputs, NaN and infinities included (one NaN counts as another).
    Exact,
    /// The two differ by rounding, and are NaN or infinite, with the same sign, for the same inputs; where both are 0
    /// the zeros have the same sign.
    Rounding,
    /// The two are equal in real arithmetic; a NaN or infinity of the left side may become a number.
    Real,
}

/// A condition on what a variable stands for.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Guard {
    /// Everywhere the same constant.
    Constant(usize),
    /// No constant.
    Variable(usize),
    Positive(usize),
    Negative(usize),
    Nonnegative(usize),
    Nonpositive(usize),
    Nonzero(usize),
    /// No element is the float +0.
    NoPlusZero(usize),
    /// No element is the float -0.
    NoMinusZero(usize),
    /// Neither NaN nor infinite.
    Finite(usize),
    /// Not NaN.
    Number(usize),
    Integer(usize),
    /// A float type.
    Float(usize),
    /// No float type: neither NaN nor infinities exist.
    Discrete(usize),
    /// Between two numbers, or NaN.
    Bounded(usize),
    /// A constant that divides exactly: a power of two.
    PowerOfTwo(usize),
    /// A constant whose reciprocal is a normal number.
    Invertible(usize),
    /// A constant such that no quotient by it is larger than what is divided.
    AtLeastOne(usize),
    /// Where both are 0 the zeros have the same sign.
    ZerosAgree(usize, usize),
    /// The first is below the second, element by element.
    Below(usize, usize),
    /// The first is not above the second, element by element.
    AtMost(usize, usize),
    /// The first is the largest element of the second along some axes, spread again.
    Peak(usize, usize),
}

impl Guard {
    fn parse(text: &str, names: &Names) -> Result<Guard, String> {
        let mut words = text.split_whitespace();
        let name = words.next().unwrap_or_default();
        let variables: Result<Vec<usize>, String> = words
            .map(|word| {
                let name = word.trim_start_matches('?');
                names.variables.iter().position(|n| n == name).ok_or_else(|| format!("no variable `{word}`"))
            })
            .collect();
        Ok(match (name, variables?.as_slice()) {
            ("constant", &[x]) => Guard::Constant(x),
            ("variable", &[x]) => Guard::Variable(x),
            ("positive", &[x]) => Guard::Positive(x),
            ("negative", &[x]) => Guard::Negative(x),
            ("nonnegative", &[x]) => Guard::Nonnegative(x),
            ("nonpositive", &[x]) => Guard::Nonpositive(x),
            ("nonzero", &[x]) => Guard::Nonzero(x),
            ("no_plus_zero", &[x]) => Guard::NoPlusZero(x),
            ("no_minus_zero", &[x]) => Guard::NoMinusZero(x),
            ("at_least_one", &[x]) => Guard::AtLeastOne(x),
            ("zeros_agree", &[x, y]) => Guard::ZerosAgree(x, y),
            ("finite", &[x]) => Guard::Finite(x),
            ("number", &[x]) => Guard::Number(x),
            ("integer", &[x]) => Guard::Integer(x),
            ("float", &[x]) => Guard::Float(x),
            ("discrete", &[x]) => Guard::Discrete(x),
            ("bounded", &[x]) => Guard::Bounded(x),
            ("power_of_two", &[x]) => Guard::PowerOfTwo(x),
            ("invertible", &[x]) => Guard::Invertible(x),
            ("below", &[x, y]) => Guard::Below(x, y),
            ("at_most", &[x, y]) => Guard::AtMost(x, y),
            ("peak", &[x, y]) => Guard::Peak(x, y),
            _ => return Err(format!("no guard `{text}`")),
        })
    }

    fn holds(&self, found: &Found<'_, '_>) -> bool {
        let data = |index: usize| found.bindings.classes[index].map(|id| &found.egraph[id].data);
        let is = |index: usize, test: &dyn Fn(&Data) -> bool| data(index).is_some_and(test);
        let both = |x: usize, y: usize, test: &dyn Fn(&Facts, &Facts) -> bool| {
            data(x).zip(data(y)).is_some_and(|(x, y)| test(&x.facts, &y.facts))
        };
        match *self {
            Guard::Constant(x) => is(x, &|d| d.constant.is_some()),
            Guard::Variable(x) => is(x, &|d| d.constant.is_none()),
            Guard::Positive(x) => is(x, &|d| d.facts.positive()),
            Guard::Negative(x) => is(x, &|d| d.facts.negative()),
            Guard::Nonnegative(x) => is(x, &|d| d.facts.low >= 0.0),
            Guard::Nonpositive(x) => is(x, &|d| d.facts.high <= 0.0),
            Guard::Nonzero(x) => is(x, &|d| d.facts.nonzero()),
            Guard::NoPlusZero(x) => is(x, &|d| d.facts.no_plus_zero()),
            Guard::NoMinusZero(x) => is(x, &|d| d.facts.no_minus_zero()),
            Guard::AtLeastOne(x) => is(x, &|d| d.constant.is_some_and(|c| c.to_f64().abs() >= 1.0)),
            Guard::ZerosAgree(x, y) => both(x, y, &Facts::zeros_agree),
            Guard::Finite(x) => is(x, &|d| d.facts.finite),
            Guard::Number(x) => is(x, &|d| d.facts.number),
            Guard::Integer(x) => is(x, &|d| d.facts.integer),
            Guard::Float(x) => is(x, &|d| d.ty.dtype.is_float()),
            Guard::Discrete(x) => is(x, &|d| !d.ty.dtype.is_float()),
            Guard::Bounded(x) => is(x, &|d| d.facts.low.is_finite() && d.facts.high.is_finite()),
            Guard::PowerOfTwo(x) => is(x, &|d| {
                d.constant.is_some_and(|c| {
                    let c = c.to_f64().abs();
                    c.is_normal()
                        && c.to_bits().trailing_zeros() >= 52
                        && (2f64.powi(-100)..=2f64.powi(100)).contains(&c)
                })
            }),
            Guard::Invertible(x) => is(x, &|d| {
                d.constant.is_some_and(|c| {
                    let c = c.to_f64().abs();
                    c.is_finite() && c > tiny(d.ty.dtype) * 8.0 && 1.0 / c > tiny(d.ty.dtype) * 8.0
                })
            }),
            Guard::Below(x, y) => both(x, y, &Facts::below),
            Guard::AtMost(x, y) => both(x, y, &Facts::at_most),
            Guard::Peak(x, y) => match (found.bindings.classes[x], found.bindings.classes[y]) {
                (Some(x), Some(y)) => stability::peak(found.egraph, x, y).is_some(),
                _ => false,
            },
        }
    }
}

/// A match, as functions of rules see it.
pub(crate) struct Found<'e, 'g> {
    pub(crate) egraph: &'e Egraph<'g>,
    names: &'e Names,
    pub(crate) bindings: Bindings<'e>,
    /// The class whose term matched.
    pub(crate) class: Id,
}

impl<'e> Found<'e, '_> {
    /// The class of a variable of the left side.
    ///
    /// # Panics
    /// Where the left side has no such variable: a mistake in a table, which the tests of the tables find.
    pub(crate) fn class(&self, name: &str) -> Id {
        let index = self.names.variables.iter().position(|n| n == name);
        index.and_then(|index| self.bindings.classes[index]).unwrap_or_else(|| panic!("no variable ?{name}"))
    }

    /// What is known of a variable.
    pub(crate) fn data(&self, name: &str) -> &'e Data {
        &self.egraph[self.class(name)].data
    }

    /// The extents of a variable.
    pub(crate) fn extents(&self, name: &str) -> smallvec::SmallVec<[usize; 4]> {
        self.data(name).extents()
    }

    /// A term kept by the left side.
    ///
    /// # Panics
    /// As [`Found::class`].
    pub(crate) fn term(&self, name: &str) -> &'e Term {
        let index = self.names.terms.iter().position(|n| n == name);
        index.and_then(|index| self.bindings.terms[index]).unwrap_or_else(|| panic!("no operator :{name}"))
    }

    /// The operator of a kept term.
    pub(crate) fn op(&self, name: &str) -> &'e Op {
        &self.term(name).op
    }

    /// What is known of the matched class.
    pub(crate) fn result(&self) -> &'e Data {
        &self.egraph[self.class].data
    }
}

/// How a rule makes its right side.
pub(crate) enum Right {
    /// From text.
    Pattern(Pattern),
    /// By a function; `None` where the rule does not apply.
    Function(fn(&Found<'_, '_>) -> Option<Built>),
    /// Nothing is built: the function says what else is known of the matched class.
    Facts(fn(&Found<'_, '_>) -> Option<Facts>),
}

/// A row of the tables.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    pub(crate) exactness: Exactness,
    /// The row as it is written.
    pub(crate) text: &'static str,
    pub(crate) left: Pattern,
    pub(crate) right: Right,
    pub(crate) guards: Vec<Guard>,
    pub(crate) names: Names,
    /// Whether it is for `Strict` alone.
    pub(crate) strict_only: bool,
}

/// A rule in text: `left => right if guard ?x, guard ?y`.
///
/// # Panics
/// Where the text is wrong: the tables are part of the program, and its tests read them.
pub(crate) fn rule(name: &'static str, exactness: Exactness, text: &'static str) -> Rule {
    let (left, rest) = text.split_once("=>").unwrap_or_else(|| panic!("rule `{name}` has no =>"));
    let (right, guards) = rest.split_once(" if ").unwrap_or((rest, ""));
    let mut names = Names::default();
    let left = parse(left, &mut names).unwrap_or_else(|e| panic!("rule `{name}`: {e}"));
    let bound = names.variables.len();
    let right = parse(right, &mut names).unwrap_or_else(|e| panic!("rule `{name}`: {e}"));
    assert_eq!(bound, names.variables.len(), "rule `{name}` builds from a variable that it does not match");
    assemble(name, exactness, text, left, Right::Pattern(right), guards, names)
}

/// A rule whose right side a function makes: `left if guard ?x`.
///
/// # Panics
/// As [`rule`].
pub(crate) fn function(
    name: &'static str,
    exactness: Exactness,
    text: &'static str,
    right: fn(&Found<'_, '_>) -> Option<Built>,
) -> Rule {
    let (left, guards) = text.split_once(" if ").unwrap_or((text, ""));
    let mut names = Names::default();
    let left = parse(left, &mut names).unwrap_or_else(|e| panic!("rule `{name}`: {e}"));
    assemble(name, exactness, text, left, Right::Function(right), guards, names)
}

/// A rule that adds facts about what matches.
///
/// # Panics
/// As [`rule`].
pub(crate) fn fact(
    name: &'static str,
    exactness: Exactness,
    text: &'static str,
    right: fn(&Found<'_, '_>) -> Option<Facts>,
) -> Rule {
    let (left, guards) = text.split_once(" if ").unwrap_or((text, ""));
    let mut names = Names::default();
    let left = parse(left, &mut names).unwrap_or_else(|e| panic!("rule `{name}`: {e}"));
    assemble(name, exactness, text, left, Right::Facts(right), guards, names)
}

fn assemble(
    name: &'static str,
    exactness: Exactness,
    text: &'static str,
    left: Pattern,
    right: Right,
    guards: &str,
    names: Names,
) -> Rule {
    let guards = guards
        .split(',')
        .filter(|text| !text.trim().is_empty())
        .map(|text| Guard::parse(text, &names).unwrap_or_else(|e| panic!("rule `{name}`: {e}")))
        .collect();
    assert!(left.head().is_some(), "rule `{name}` matches anything");
    Rule { name, exactness, text, left, right, guards, names, strict_only: false }
}

/// What a rule wants to do at a class.
pub(crate) enum Step {
    Replace(Built),
    Learn(Facts),
}

impl Rule {
    /// The rule for `Strict` alone: under `Real` another one does the same and asks less, for it does not keep the sign
    /// of zero or what overflows.
    pub(crate) fn under_strict(self) -> Rule {
        Rule { strict_only: true, ..self }
    }

    /// What the rule does with a term of a class: the bindings of each match, and the step.
    pub(crate) fn apply<'e>(
        &'e self,
        egraph: &'e Egraph<'_>,
        class: Id,
        term: &'e Term,
    ) -> Vec<(Bindings<'e>, Step)> {
        let mut steps = Vec::new();
        for bindings in match_term(egraph, &self.left, &self.names, term) {
            let found = Found { egraph, names: &self.names, bindings, class };
            if !self.guards.iter().all(|guard| guard.holds(&found)) {
                continue;
            }
            let step = match &self.right {
                Right::Pattern(pattern) => instantiate(egraph, pattern, &found.bindings).map(Step::Replace),
                Right::Function(build) => build(&found).map(Step::Replace),
                Right::Facts(facts) => facts(&found).map(Step::Learn),
            };
            steps.extend(step.map(|step| (found.bindings, step)));
        }
        steps
    }
}

impl Rule {
    /// The left side with the bindings put in: the very term that matched, for explanations.
    pub(crate) fn witness(&self, egraph: &Egraph<'_>, bindings: &Bindings<'_>, term: &Term) -> Option<Built> {
        witness(egraph, &self.left, bindings, term)
    }
}

/// The part of a match that a pattern beginning with an operator covers. Where a class holds several terms that would
/// do, the first is as true as the one that was matched.
fn witness(egraph: &Egraph<'_>, pattern: &Pattern, bindings: &Bindings<'_>, term: &Term) -> Option<Built> {
    let Pattern::Node { operands, .. } = pattern else { return None };
    let attempt = |order: &[Id]| -> Option<Vec<Built>> {
        operands.iter().zip(order).map(|(operand, id)| covered(egraph, operand, bindings, *id)).collect()
    };
    let mut given: Vec<Built> = match attempt(&term.operands) {
        Some(given) => given,
        None => {
            let swapped: Vec<Id> = term.operands.iter().rev().copied().collect();
            let mut given = attempt(&swapped)?;
            given.reverse();
            given
        }
    };
    given.extend(term.operands.iter().skip(given.len()).map(|id| Built::Class(*id)));
    Some(Built::Node(term.op.clone(), given))
}

fn covered(egraph: &Egraph<'_>, pattern: &Pattern, bindings: &Bindings<'_>, class: Id) -> Option<Built> {
    match pattern {
        Pattern::Variable(index) => {
            (bindings.classes[*index] == Some(egraph.find(class))).then_some(Built::Class(class))
        }
        Pattern::Number(_) | Pattern::Zero(_) => {
            pattern.is_number(egraph[class].data.constant?).then_some(Built::Class(class))
        }
        Pattern::Stopped(inner) => covered(egraph, inner, bindings, class).or_else(|| {
            let stops = egraph[class].nodes.iter().filter(|term| term.op == Op::StopGradient);
            stops
                .map(|term| covered(egraph, inner, bindings, term.operands[0]))
                .find_map(|built| built.map(|built| Built::Node(Op::StopGradient, vec![built])))
        }),
        Pattern::Node { head, name, .. } => egraph[class]
            .nodes
            .iter()
            .filter(|term| head.matches(&term.op))
            .filter(|term| name.is_none_or(|name| bindings.terms[name].is_none_or(|kept| kept.op == term.op)))
            .find_map(|term| witness(egraph, pattern, bindings, term)),
        Pattern::Again { .. } | Pattern::Computed(..) => None,
    }
}

/// Rules sorted by the operator that they begin with.
pub(crate) struct RuleSet {
    pub(crate) rules: Vec<&'static Rule>,
    by_name: HashMap<&'static str, Vec<u16>>,
    /// The deepest left side.
    pub(crate) depth: usize,
}

impl RuleSet {
    fn new(rules: Vec<&'static Rule>) -> RuleSet {
        let mut by_name: HashMap<&'static str, Vec<u16>> = HashMap::new();
        for (index, rule) in rules.iter().enumerate() {
            for name in rule.left.head().into_iter().flat_map(|head| head.names()) {
                by_name.entry(name).or_default().push(index as u16);
            }
        }
        let depth = rules.iter().map(|rule| rule.left.depth()).max().unwrap_or(0);
        RuleSet { rules, by_name, depth }
    }

    /// The rules that may match a term with this operator.
    pub(crate) fn beginning_with(&self, op: &Op) -> &[u16] {
        self.by_name.get(op.name()).map_or(&[], Vec::as_slice)
    }
}

/// All rules, in the order of the tables.
pub(crate) fn tables(gradients_taken: bool) -> Vec<Rule> {
    let mut rules = algebra::rules();
    rules.extend(stability::rules());
    rules.extend(reduce::rules());
    rules.extend(shape::rules());
    if gradients_taken {
        rules.extend(shape::rules_after_gradients());
    }
    rules
}

/// The rules that a policy allows. The text of the tables is read once.
pub(crate) fn rule_set(strict: bool, gradients_taken: bool) -> RuleSet {
    static TABLES: LazyLock<(Vec<Rule>, Vec<Rule>)> =
        LazyLock::new(|| (tables(false), shape::rules_after_gradients()));
    let (always, after) = &*TABLES;
    let after = after.iter().filter(|_| gradients_taken);
    let allowed = |rule: &&Rule| match strict {
        true => rule.exactness <= Exactness::Rounding,
        false => !rule.strict_only,
    };
    RuleSet::new(always.iter().chain(after).filter(allowed).collect())
}
