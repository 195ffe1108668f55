//! How a formula became another one, step by step.
//!
//! The e-graph remembers why any two of its terms are equal; the shortest such proof between what was given and what
//! was chosen is the explanation. Remembering costs time, so this is a run of its own, for formulas that people read.
//! Rewritings of scans, before and after the rules, are steps as well: each with the formula after it. What rules do
//! inside of bodies is not told.

use std::fmt;

use egg::{EGraph, FlatTerm, Id};
use hypatia_graph::differentiate::lost_gradients;
use hypatia_graph::text::{Few, abridged, formula};
use hypatia_graph::{Diagnostic, Graph, NodeId, Op};
use smallvec::SmallVec;

use crate::extract::extract;
use crate::report::Stage;
use crate::rules::{Exactness, RuleSet};
use crate::saturate::{Limits, Stop, saturate};
use crate::simplify::{load, simplify_in_stages};
use crate::term::{Egraph, Knowledge, Term};
use crate::{Numerics, Options, rules_for};

/// Formulas that are larger than this when nothing is shared are not explained step by step.
const LARGEST: usize = 2_000;

/// How the outputs of a graph were simplified.
#[derive(Clone)]
pub struct Explanation {
    /// One derivation an output.
    pub derivations: Vec<Derivation>,
    /// Why saturation stopped.
    pub stop: Stop,
    /// Gradients that are lost, and risky terms that stayed because the rules did not see everything.
    pub warnings: Vec<Diagnostic>,
}

/// How one formula became another.
#[derive(Clone, PartialEq)]
pub struct Derivation {
    /// The formula as it was given.
    pub given: String,
    /// What it became at each step.
    pub steps: Vec<Derived>,
    /// The formula as it is computed.
    pub result: String,
    /// Whether the steps were left out because there is too much to print.
    pub too_large: bool,
}

/// One step of a derivation.
#[derive(Clone, PartialEq)]
pub struct Derived {
    /// The name of the rule.
    pub rule: String,
    /// What the step costs in truth.
    pub exactness: Exactness,
    /// The rule as its table has it, or what a rewriting of scans does in words.
    pub text: String,
    /// Whether the rule was used from right to left.
    pub reversed: bool,
    /// The formula after the step.
    pub formula: String,
}

impl fmt::Debug for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explanation")
            .field("derivations", &Few(&self.derivations))
            .field("stop", &self.stop)
            .field("warnings", &Few(&self.warnings))
            .finish()
    }
}

impl fmt::Debug for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Derivation")
            .field("given", &abridged(&self.given, 200))
            .field("steps", &self.steps.len())
            .field("result", &abridged(&self.result, 200))
            .finish()
    }
}

impl fmt::Debug for Derived {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Derived({}: {})", self.rule, abridged(&self.formula, 200))
    }
}

/// The simplified outputs of a graph, and every step with its rule.
pub fn explain(graph: &Graph, numerics: Numerics) -> Explanation {
    let options = Options::from(numerics);
    let (simplified, stages, report) = simplify_in_stages(graph, options);
    let unexplained = |given: &NodeId, result: &NodeId| Derivation {
        given: formula(graph, *given),
        steps: Vec::new(),
        result: formula(&simplified, *result),
        too_large: graph.check().is_err(),
    };
    let mut derivations: Vec<Derivation> = graph
        .outputs
        .iter()
        .zip(&simplified.outputs)
        .map(|(given, result)| unexplained(given, result))
        .collect();
    for stage in &stages {
        match stage {
            Stage::Scans(rewriting, after) => {
                for (derivation, output) in derivations.iter_mut().zip(&after.outputs) {
                    let formula = formula(after, *output);
                    let last = derivation.steps.last().map_or(&derivation.given, |step| &step.formula);
                    if formula != *last {
                        derivation.steps.push(Derived {
                            rule: rewriting.name.to_string(),
                            exactness: rewriting.exactness,
                            text: rewriting.text.to_string(),
                            reversed: false,
                            formula,
                        });
                    }
                }
            }
            Stage::Formulas(before) => {
                for (derivation, steps) in derivations.iter_mut().zip(derive(before, options)) {
                    derivation.too_large |= steps.is_none();
                    derivation.steps.extend(steps.into_iter().flatten());
                }
            }
        }
    }
    let mut warnings = lost_gradients(graph);
    warnings.extend(report.warnings());
    Explanation { derivations, stop: report.stop, warnings }
}

/// The steps for each output; none where they would be too long to read.
fn derive(graph: &Graph, options: Options) -> Vec<Option<Vec<Derived>>> {
    let live = graph.reachable();
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).filter(|id| live[id.index()]).collect();
    let sizes = tree_sizes(graph);
    let readable = |id: &NodeId| sizes[id.index()] <= LARGEST;
    if graph.check().is_err() || nodes.len() > LARGEST || !graph.outputs.iter().any(readable) {
        return vec![None; graph.outputs.len()];
    }
    let strict = options.numerics == Numerics::Strict;
    let mut egraph: Egraph<'_> = EGraph::new(Knowledge::new(graph, &[], strict)).with_explanations_enabled();
    let loaded = load(&mut egraph, graph, &nodes, &vec![false; graph.len()]);
    let rules = rules_for(options);
    saturate(&mut egraph, rules, Limits::for_nodes(nodes.len()));
    graph
        .outputs
        .iter()
        .map(|output| {
            let from = loaded.classes[output];
            let chosen = chosen_terms(&egraph, from, &loaded.built);
            if !readable(output) || tree_size(&chosen) > LARGEST {
                return None;
            }
            let mut ids: Vec<Id> = Vec::new();
            for (op, operands) in chosen {
                let operands = operands.iter().map(|&position| ids[position]).collect();
                ids.push(egraph.add_uncanonical(Term { op, operands }));
            }
            let to = *ids.last()?;
            let mut proof = egraph.explain_id_equivalence(from, to);
            Some(steps_of(graph, proof.make_flat_explanation(), rules))
        })
        .collect()
}

/// The number of nodes of each formula were nothing shared.
fn tree_sizes(graph: &Graph) -> Vec<usize> {
    let mut sizes: Vec<usize> = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let below = node.operands.iter().fold(1usize, |sum, id| sum.saturating_add(sizes[id.index()]));
        sizes.push(below);
    }
    sizes
}

type Chosen = Vec<(Op, SmallVec<[usize; 4]>)>;

fn tree_size(chosen: &Chosen) -> usize {
    let mut sizes: Vec<usize> = Vec::with_capacity(chosen.len());
    for (_, operands) in chosen {
        sizes.push(operands.iter().fold(1usize, |sum, &position| sum.saturating_add(sizes[position])));
    }
    sizes.last().copied().unwrap_or(0)
}

/// The terms chosen for a class, the class itself last.
fn chosen_terms(egraph: &Egraph<'_>, root: Id, built: &[(Id, Term)]) -> Chosen {
    let extraction = extract(egraph, &[root], built);
    extraction.nodes.into_iter().map(|(_, term, operands)| (term.op.clone(), operands)).collect()
}

/// The steps of a proof that change the formula as it is printed.
fn steps_of(graph: &Graph, proof: &[FlatTerm<Term>], rules: &RuleSet) -> Vec<Derived> {
    let mut steps: Vec<Derived> = Vec::new();
    let mut last = String::new();
    for (index, term) in proof.iter().enumerate() {
        let mut present = graph.emptied();
        let root = rebuild(&mut present, graph, term);
        let text = formula(&present, root);
        let used = rule_in(term);
        if let (Some((name, reversed)), true) = (used, index > 0 && text != last)
            && let Some(rule) = rules.rules.iter().find(|rule| rule.name == name)
        {
            steps.push(Derived {
                rule: name,
                exactness: rule.exactness,
                text: rule.text.to_string(),
                reversed,
                formula: text.clone(),
            });
        }
        last = text;
    }
    steps
}

/// The rule that led to a term, and whether from right to left.
fn rule_in(term: &FlatTerm<Term>) -> Option<(String, bool)> {
    let own = |rule: &Option<egg::Symbol>, reversed| rule.map(|rule| (rule.to_string(), reversed));
    own(&term.forward_rule, false)
        .or_else(|| own(&term.backward_rule, true))
        .or_else(|| term.children.iter().find_map(rule_in))
}

/// A term of a proof as a node. As deep as the formula, which is readable.
fn rebuild(new: &mut Graph, graph: &Graph, term: &FlatTerm<Term>) -> NodeId {
    let operands: SmallVec<[NodeId; 4]> =
        term.children.iter().map(|child| rebuild(new, graph, child)).collect();
    if let Op::Leaf(leaf) = term.node.op {
        return new.add_like(graph, Knowledge::node_of(leaf), &operands);
    }
    new.add(term.node.op.clone(), &operands, None)
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, derivation) in self.derivations.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{derivation}")?;
        }
        if self.stop != Stop::Saturated {
            writeln!(f, "\nsimplification stopped early ({}): there may be a better form", self.stop)?;
        }
        for warning in &self.warnings {
            writeln!(f, "{warning}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Derivation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.given)?;
        if self.too_large {
            writeln!(f, "  ... too large to explain step by step")?;
        }
        for step in &self.steps {
            writeln!(f, "  = {}", step.formula)?;
            let exactness = match step.exactness {
                Exactness::Exact => "exact",
                Exactness::Rounding => "up to rounding",
                Exactness::Real => "in real arithmetic",
            };
            let direction = if step.reversed { ", from right to left" } else { "" };
            writeln!(f, "      {} {exactness}{direction}: {}", step.rule, tidy(&step.text))?;
        }
        if self.steps.last().is_none_or(|step| step.formula != self.result) && self.result != self.given {
            writeln!(f, "  = {}", self.result)?;
            writeln!(f, "      constants computed, shared parts computed once")?;
        }
        Ok(())
    }
}

/// A row of a table on one line.
fn tidy(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
