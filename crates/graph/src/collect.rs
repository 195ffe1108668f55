//! From free-standing expressions to a [`Graph`]: gathers what a function reaches and checks the request.
//!
//! All that is wrong is reported at once: ill-typed nodes, missing and unused inputs, updates of a wrong type or given
//! twice. Walks iteratively.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::graph::{Graph, NodeId, Operands};
use crate::leaf::LeafKind;
use crate::made;
use crate::op::{LeafId, Op};
use crate::tensor::{Shared, Tensor};
use crate::text::shown::Few;

/// What to do about an input that no output or update depends on.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Unused {
    /// An error that names it.
    #[default]
    Raise,
    /// Nothing.
    Ignore,
}

/// What a function is asked to be.
#[derive(Clone, Default)]
pub struct Request {
    /// The inputs, in the order of the call.
    pub inputs: Vec<Tensor>,
    /// What a call returns.
    pub outputs: Vec<Tensor>,
    /// New values of shared variables.
    pub updates: Vec<(Shared, Tensor)>,
    /// Expressions and what stands in their place.
    pub givens: Vec<(Tensor, Tensor)>,
    /// What to do about unused inputs.
    pub unused: Unused,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("inputs", &Few(&self.inputs))
            .field("outputs", &Few(&self.outputs))
            .field("updates", &Few(&self.updates))
            .field("givens", &Few(&self.givens))
            .field("unused", &self.unused)
            .finish()
    }
}

/// The graph of a request, with the default updates of the shared variables it reads.
pub fn collect(request: &Request) -> Result<Graph, Diagnostics> {
    // Expressions are known by their addresses, so these stay as long as the collector.
    let settled: Vec<Tensor> = request.outputs.iter().map(Tensor::settled).collect();
    let mut collector = Collector::new(request);
    collector.check_inputs(request);
    let outputs: Vec<NodeId> = settled.iter().map(|t| collector.gather(t)).collect();
    let mut updates: Vec<(LeafId, NodeId)> = Vec::new();
    for (shared, value) in &request.updates {
        collector.add_update(shared, value, &mut updates);
    }
    collector.add_default_updates(&mut updates);
    collector.graph.outputs = outputs;
    collector.graph.updates = updates;
    collector.check_scans();
    collector.check_reached(request);
    if collector.problems.is_empty() { Ok(collector.graph) } else { Err(Diagnostics(collector.problems)) }
}

struct Collector {
    graph: Graph,
    /// Where each expression stands, by address; expressions outlive the collector.
    placed: HashMap<usize, NodeId>,
    /// Where each expression stands in what replaces others. Nothing is replaced there: all givens hold at once.
    plain: HashMap<usize, NodeId>,
    /// Default updates, which nobody else need keep.
    kept: Vec<Tensor>,
    givens: HashMap<usize, Tensor>,
    problems: Vec<Diagnostic>,
}

impl Collector {
    fn new(request: &Request) -> Collector {
        let mut collector = Collector {
            graph: Graph::new(),
            placed: HashMap::new(),
            plain: HashMap::new(),
            kept: Vec::new(),
            givens: HashMap::new(),
            problems: Vec::new(),
        };
        for (from, to) in &request.givens {
            let agrees = match (from.made(), to.made()) {
                (Some(from), Some(to)) => from.agrees(to),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            };
            if !agrees {
                let rows = if from.made().is_some() { from } else { to };
                collector.problems.push(
                    made::fault("in a given that they are not on both sides of", rows).at(Some(to.site())),
                );
            }
            if !from.ty().accepts(to.ty()) {
                collector.problems.push(
                    Diagnostic::new("a given replaces an expression by one of another type")
                        .at(Some(to.site()))
                        .with("expected", describe(from), Some(from.site()))
                        .with("found", describe(to), Some(to.site())),
                );
            }
            if collector.givens.insert(key_of(from), to.clone()).is_some() {
                collector.problems.push(Diagnostic::new("an expression is given twice").with(
                    "given",
                    describe(from),
                    Some(from.site()),
                ));
            }
        }
        collector
    }

    fn check_inputs(&mut self, request: &Request) {
        let mut seen = HashSet::new();
        for input in &request.inputs {
            match input.leaf() {
                Some(leaf) if matches!(leaf.kind, LeafKind::Input) => {
                    if !seen.insert(leaf.id) {
                        self.problems.push(Diagnostic::new(format!("{} is an input twice", leaf.label())).at(leaf.site));
                    }
                    self.graph.add_leaf(leaf);
                    self.graph.inputs.push(leaf.id);
                }
                Some(leaf) => self.problems.push(
                    Diagnostic::new(format!("{} is not an input", leaf.label()))
                        .at(leaf.site)
                        .hint("shared variables and constants are found by themselves; leave them out of the inputs"),
                ),
                None if input.fault().is_some() => self.problems.extend(input.fault().cloned()),
                None => self.problems.push(
                    Diagnostic::new("an input is a computed expression")
                        .at(Some(input.site()))
                        .with("found", describe(input), None)
                        .hint("inputs are made by `scalar`, `vector`, `matrix`, ...; to replace an expression use `givens`"),
                ),
            }
        }
    }

    /// The node of an expression, with givens in their places.
    fn gather(&mut self, root: &Tensor) -> NodeId {
        self.walk(root, true)
    }

    fn walk(&mut self, root: &Tensor, replacing: bool) -> NodeId {
        let mut pending: Vec<(Tensor, bool)> = vec![(root.clone(), false)];
        while let Some((tensor, operands_done)) = pending.pop() {
            let key = key_of(&tensor);
            if self.places(replacing).contains_key(&key) {
                continue;
            }
            if replacing && let Some(replacement) = self.givens.get(&key).cloned() {
                let id = self.walk(&replacement, false);
                self.placed.insert(key, id);
                continue;
            }
            if !operands_done && !tensor.0.operands.is_empty() {
                pending.push((tensor.clone(), true));
                pending.extend(tensor.0.operands.iter().rev().map(|t| (t.clone(), false)));
                continue;
            }
            let id = self.place(&tensor, replacing);
            self.places(replacing).insert(key, id);
        }
        self.places(replacing)[&key_of(root)]
    }

    fn places(&mut self, replacing: bool) -> &mut HashMap<usize, NodeId> {
        if replacing { &mut self.placed } else { &mut self.plain }
    }

    fn place(&mut self, tensor: &Tensor, replacing: bool) -> NodeId {
        if let Some(fault) = tensor.fault()
            && !self.problems.contains(fault)
        {
            self.problems.push(fault.clone());
        }
        let id = match tensor.leaf() {
            Some(leaf) => self.graph.add_leaf(leaf),
            None => {
                let places = self.places(replacing);
                let operands: Operands = tensor.0.operands.iter().map(|t| places[&key_of(t)]).collect();
                self.graph.add(tensor.0.op.clone(), &operands, Some(tensor.site()))
            }
        };
        if let (Some(name), None) = (tensor.0.name.get(), tensor.leaf()) {
            self.graph.set_name(id, name.clone());
        }
        id
    }

    fn add_update(&mut self, shared: &Shared, value: &Tensor, updates: &mut Vec<(LeafId, NodeId)>) {
        let leaf = shared.leaf();
        if let Some(fault) = shared.fault() {
            if !self.problems.contains(fault) {
                self.problems.push(fault.clone());
            }
            return;
        }
        if updates.iter().any(|(id, _)| *id == leaf.id) {
            self.problems.push(
                Diagnostic::new(format!("{} is updated twice", leaf.label())).at(Some(value.site())).with(
                    "variable",
                    leaf.ty.to_string(),
                    leaf.site,
                ),
            );
            return;
        }
        if let Op::Literal(number) = value.0.op
            && number.to_f64().is_finite()
            && !number.cast(leaf.ty.dtype).to_f64().is_finite()
        {
            let fault = Diagnostic::new(format!(
                "the update of {} is a number that its type does not hold",
                leaf.label()
            ))
            .at(Some(value.site()))
            .with("expected", leaf.ty.to_string(), leaf.site)
            .with("found", number.to_string(), Some(value.site()));
            self.problems.push(fault);
        }
        if value.made().is_some() {
            let what = format!("as an update of {}", leaf.label());
            self.problems.push(made::fault(&what, value).at(Some(value.site())));
        }
        // Between floats the intention is plain; anything else is more likely a mistake.
        let value = if value.dtype().is_float() && leaf.ty.dtype.is_float() {
            value.cast(leaf.ty.dtype)
        } else {
            value.clone()
        };
        if !leaf.ty.accepts(value.ty()) && !value.0.poisoned {
            let fault =
                Diagnostic::new(format!("the update of {} has another type than the variable", leaf.label()))
                    .at(Some(value.site()))
                    .with("expected", leaf.ty.to_string(), leaf.site)
                    .with("found", describe(&value), Some(value.site()));
            let fault = if leaf.ty.dtype != value.dtype() && leaf.ty.rank() == value.rank() {
                fault.hint(format!("convert it where you mean to: `.cast(DType::{:?})`", leaf.ty.dtype))
            } else {
                fault
            };
            self.problems.push(fault);
        }
        self.graph.add_leaf(leaf);
        let id = self.gather(&value);
        updates.push((leaf.id, id));
    }

    /// Default updates may read further variables that have some of their own.
    fn add_default_updates(&mut self, updates: &mut Vec<(LeafId, NodeId)>) {
        loop {
            let due = self.graph.leaves().find_map(|leaf| {
                let shared = Shared::of_leaf(leaf)?;
                if updates.iter().any(|(id, _)| *id == leaf.id) {
                    return None;
                }
                let update = shared.default_update()?;
                Some((shared, update))
            });
            let Some((shared, update)) = due else { return };
            self.add_update(&shared, &update, updates);
            self.kept.push(update);
        }
    }

    /// Scans that update a shared variable of which the function has no update.
    fn check_scans(&mut self) {
        let live = self.graph.reachable();
        let mut named = HashSet::new();
        for (_, node) in self.graph.nodes().filter(|(id, _)| live[id.index()]) {
            let Op::Scan(scan) = &node.op else { continue };
            for leaf in &scan.body.updated {
                let made = self.graph.updates.iter().any(|(id, _)| *id == leaf.id);
                if !made && named.insert(leaf.id) {
                    self.problems.push(
                        Diagnostic::new(format!(
                            "a scan updates {} at every step, and the function does not",
                            leaf.label()
                        ))
                        .at(node.site)
                        .with("variable", leaf.ty.to_string(), leaf.site)
                        .hint("give the scan's `updates` to the function"),
                    );
                }
            }
        }
    }

    /// Inputs reached but not listed, and listed but not reached.
    fn check_reached(&mut self, request: &Request) {
        let live = self.graph.reachable();
        let reached: HashSet<LeafId> = self
            .graph
            .nodes()
            .filter(|(id, _)| live[id.index()])
            .filter_map(|(_, node)| if let Op::Leaf(leaf) = node.op { Some(leaf) } else { None })
            .collect();
        let given: HashSet<LeafId> =
            request.givens.iter().filter_map(|(from, _)| Some(from.leaf()?.id)).collect();
        for leaf in self.graph.leaves() {
            if let LeafKind::Carry = leaf.kind {
                self.problems.push(
                    Diagnostic::new("a value of a scan's step is used outside of the scan")
                        .at(leaf.site)
                        .with("value", leaf.ty.to_string(), leaf.site)
                        .hint("give it out of the step with `Next::output`"),
                );
            }
            let listed = self.graph.inputs.contains(&leaf.id);
            if !matches!(leaf.kind, LeafKind::Input) || listed == reached.contains(&leaf.id) {
                continue;
            }
            if !listed {
                self.problems.push(
                    Diagnostic::new(format!("{} is needed but is not among the inputs", leaf.label()))
                        .at(leaf.site)
                        .with("input", leaf.ty.to_string(), leaf.site)
                        .hint(if given.contains(&leaf.id) {
                            "it is given, but what is given for something else speaks of it: all givens hold at once"
                        } else {
                            "list it in the inputs, or replace it with `givens`"
                        }),
                );
            } else if request.unused == Unused::Raise {
                self.problems.push(
                    Diagnostic::new(format!("no output or update depends on the input {}", leaf.label()))
                        .at(leaf.site)
                        .with("input", leaf.ty.to_string(), leaf.site)
                        .hint("leave it out, or allow it with `on_unused_input(Unused::Ignore)`"),
                );
            }
        }
    }
}

/// Leaves are found again by their identity, other expressions by their address.
pub(crate) fn key_of(tensor: &Tensor) -> usize {
    match tensor.leaf() {
        Some(leaf) => std::sync::Arc::as_ptr(leaf) as usize,
        None => tensor.key(),
    }
}

fn describe(tensor: &Tensor) -> String {
    match tensor.name() {
        Some(name) => format!("{} `{name}`", tensor.ty()),
        None => tensor.ty().to_string(),
    }
}
