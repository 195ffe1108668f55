//! The e-graph of Hypatia: formulas become the number that was meant.
#![forbid(unsafe_code)]

mod cost;
mod explain;
mod extract;
mod facts;
mod fold;
mod pattern;
mod report;
mod rules;
mod saturate;
mod simplify;
mod term;

use std::sync::LazyLock;

use hypatia_graph::Graph;

pub use explain::{Derivation, Derived, Explanation, explain};
pub use report::Report;
pub use rules::Exactness;
use rules::{RuleSet, rule_set};
pub use saturate::Stop;

/// What a rewriting may assume.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default, Debug)]
pub enum Numerics {
    /// Floats are floats: no NaN and no infinity is ever hidden. Rules that are [`Exactness::Exact`] or
    /// [`Exactness::Rounding`] only.
    Strict,
    /// Floats stand for real numbers: formulas may become what they are in real arithmetic, so that a NaN or infinity
    /// which only rounding or overflow brought goes away.
    #[default]
    Real,
}

/// How to simplify.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct Options {
    /// The policy.
    pub numerics: Numerics,
    /// Whether all gradients have been taken, so that `stop_gradient` means nothing any more and goes away.
    pub gradients_taken: bool,
}

impl From<Numerics> for Options {
    fn from(numerics: Numerics) -> Options {
        Options { numerics, gradients_taken: false }
    }
}

/// An equal graph that is safer and cheaper to compute, and what was done.
pub fn simplify(graph: &Graph, options: impl Into<Options>) -> (Graph, Report) {
    simplify::simplify_graph(graph, options.into())
}

/// The rules for a policy, read from the tables once.
pub(crate) fn rules_for(options: Options) -> &'static RuleSet {
    static SETS: [LazyLock<RuleSet>; 4] = [
        LazyLock::new(|| rule_set(false, false)),
        LazyLock::new(|| rule_set(false, true)),
        LazyLock::new(|| rule_set(true, false)),
        LazyLock::new(|| rule_set(true, true)),
    ];
    let strict = usize::from(options.numerics == Numerics::Strict);
    &SETS[2 * strict + usize::from(options.gradients_taken)]
}
