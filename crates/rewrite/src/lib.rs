//! The e-graph of Hypatia: a formula becomes the number that was meant, at the least cost.
//!
//! `log(1 + exp(x))` overflows for `x = 800`, `log(softmax(x))` is minus infinity where the softmax underflows, and
//! both have forms that do neither. Which form is best depends on what stands around it, so nothing is replaced here:
//! rules add equal terms to an e-graph until none has anything new to say (`saturate`), and then one term is chosen
//! for each value that is needed (`extract`): least numerical risk first, then least work, every shared value charged
//! once. The order of the rules therefore never hides one from another, and a formula meets its rule through
//! reshapes, broadcasts and picked elements.
//!
//! ```
//! use hypatia_graph::text::{formula, parse_formula};
//! use hypatia_rewrite::{Numerics, explain, simplify};
//!
//! let graph = parse_formula("x: f32[3, 4]; log(exp(x) / sum(exp(x))) - log(1 + exp(x))")?.graph()?;
//! let (simplified, report) = simplify(&graph, Numerics::Real);
//! assert_eq!(
//!     formula(&simplified, simplified.outputs[0]),
//!     "t2 - log(sum(exp(t2))) - softplus(x) where t1 = max(x); t2 = x - switch(isinf(t1), 0, t1)"
//! );
//! assert_eq!(report.rules["softmax"], 1);
//! println!("{}", explain(&graph, Numerics::Real));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Read the modules in this order: `rules` and its four tables; `pattern`, the text they are written in; `facts`, what
//! guards may ask; `term`, the e-graph's language, which is the graph's own list of operators; `saturate`; `cost` and
//! `extract`; `simplify`, which goes from graph to graph and cuts large ones; `fold`, which computes constants after
//! everything else; `scans`, which rewrites scans and goes into their bodies; `explain`.
//!
//! Always true: the result has the same inputs, outputs and updates; it is never dearer than what was given; equal
//! graphs give equal results. Deliberately absent: rules that only rearrange (commutativity, associativity), clocks,
//! fusion and layout, which belong to the schedule.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

mod cost;
mod explain;
mod extract;
mod facts;
mod fold;
mod pattern;
mod report;
mod rules;
mod saturate;
mod scans;
mod simplify;
mod term;

use std::sync::LazyLock;

use hypatia_graph::Graph;

pub use explain::{Derivation, Derived, Explanation, explain};
pub use report::{Report, RiskyForm, Unseen};
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
    /// Nothing is rewritten: every operator is computed as it was written, and gradients are those of the formula as it
    /// stands, with whatever overflows or cancels in it. For comparisons and tests.
    AsWritten,
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
///
/// For graphs whose extents are all known; a node with an unknown one stays as it is. A gradient not yet taken stays
/// too, with the expressions that it is asked for, so forward formulas can be simplified before they are
/// differentiated. `stop_gradient` means nothing after that: say so with [`Options::gradients_taken`].
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
    let strict = match options.numerics {
        Numerics::Real => 0,
        // Asked for by nobody: what stays as it was written meets no rule.
        Numerics::Strict | Numerics::AsWritten => 1,
    };
    &SETS[2 * strict + usize::from(options.gradients_taken)]
}
