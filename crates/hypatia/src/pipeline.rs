//! The stages of compilation, in order: what `function()` runs, and whoever wants to look between them.
//!
//! A graph is collected and checked, every extent becomes known ([`specialise`]), gradients are taken and formulas
//! simplified ([`prepare`]), and kernels made (`hypatia_codegen::compile`). Each stage is a function of values.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use hypatia_codegen::kernel::Program;
use hypatia_graph::differentiate::differentiate;
pub use hypatia_graph::specialise::{Arguments, Unspecialised, specialise};
use hypatia_graph::{Diagnostics, Graph, LeafId};
use hypatia_rewrite::{Numerics, Options, Report, simplify};

/// The graph with gradients taken and formulas simplified, before and after, of one with every extent known. `look` sees
/// the graph after each pass, with the pass's name.
///
/// # Errors
/// Gradients that cannot be taken.
pub fn prepare(
    concrete: &Graph,
    numerics: Numerics,
    look: &mut dyn FnMut(&'static str, &Graph),
) -> Result<(Graph, Report), Diagnostics> {
    let options = |gradients_taken| Options { numerics, gradients_taken };
    let mut forward_reports = Vec::new();
    let differentiated = differentiate(concrete, &mut |forward| {
        let (simplified, report) = simplify(forward, options(false));
        forward_reports.push(report);
        simplified
    })?;
    look("differentiate", &differentiated);
    let (simplified, mut report) = simplify(&differentiated, options(true));
    look("simplify", &simplified);
    forward_reports.iter().for_each(|forward| report.include(forward));
    Ok((simplified, report))
}

/// What a function is at each stage of its compilation, and how long that took.
#[derive(Clone)]
pub struct Stages {
    /// With every extent known.
    pub graph: Graph,
    /// With gradients taken, and simplified.
    pub simplified: Graph,
    /// What simplification did, before gradients were taken and after.
    pub report: Report,
    /// Kernels and memory.
    pub program: Arc<Program>,
    /// Time of taking gradients and simplifying, of making kernels, and of making machine code.
    pub times: [Duration; 3],
}

impl Stages {
    /// Bytes that the description holds, about.
    pub(crate) fn bytes(&self) -> usize {
        self.graph.bytes() + self.simplified.bytes() + self.program.bytes()
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages")
            .field("graph", &self.graph)
            .field("simplified", &self.simplified)
            .field("kernels", &self.program.steps.len())
            .field("times", &self.times)
            .finish()
    }
}

/// Why there is no executable for some arguments.
pub(crate) enum Failure {
    /// What is wrong with the program.
    Faults(Diagnostics),
    /// Inputs whose values must be known first.
    Needs(Vec<LeafId>),
}

impl From<Diagnostics> for Failure {
    fn from(faults: Diagnostics) -> Failure {
        Failure::Faults(faults)
    }
}
