//! Checks that a graph keeps its promises; passes are followed by it in tests and debug builds.
//!
//! The invariants, in the order in which they are checked:
//! 1. Operands stand before the node that uses them, and all exist.
//! 2. Adding nodes left no fault.
//! 3. Every leaf of a node is listed among the graph's leaves, and its node has a type that its declaration accepts.
//! 4. Every other node has the type that [`crate::infer`] gives it.
//! 5. Inputs are listed leaves of their kind, each once, and every input that a node uses is among them. A function
//!    reads no carry, a scan's body only its own carries and no shared variable.
//! 6. Outputs and updates name nodes of the graph. In a body, those that name sequences and the condition to end at
//!    exist, and the condition is `bool[]`.
//! 7. Updates write shared variables (in a body carries), each once, with values of the variable's type; a shared
//!    variable's or constant's value has its declared type.
//! 8. After specialisation: every type is known, and there are no `Extent`, `Slice`, `SetSlice` and no extents given by
//!    operands.
//! 9. After differentiation: there is no `Grad`.
//! 10. All of this holds for the bodies of scans, at the same stage; each is checked once.
//!
//! Types are only compared in a graph of which the first invariant holds. Nothing is changed or mended.

use std::collections::BTreeSet;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::body::Body;
use crate::diagnostic::{Diagnostic, Diagnostics, Site};
use crate::dtype::DType;
use crate::graph::{Graph, Node, NodeId};
use crate::infer::infer;
use crate::leaf::LeafKind;
use crate::op::{LeafId, Op};
use crate::shape::TensorType;

/// How far a graph has come.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Stage {
    /// Gathered from expressions, or read from text.
    Collected,
    /// Every extent is known.
    Specialised,
    /// Every extent is known and every gradient is taken.
    Differentiated,
}

/// Checks all invariants of a graph at a stage. The error holds everything that is wrong, in the order of this
/// module's list, each with the node and the user's line that built it; what is wrong with a body follows what is wrong
/// with the graph that holds the scan.
pub fn verify(graph: &Graph, stage: Stage) -> Result<(), Diagnostics> {
    let mut problems = Vec::new();
    let mut seen = BTreeSet::new();
    let mut pending: Vec<(Arc<Body>, Option<Site>)> = Vec::new();
    check(graph, Place::Function, stage, &mut problems);
    let held = |graph: &Graph| -> Vec<(Arc<Body>, Option<Site>)> {
        graph.scan_nodes().map(|(key, (id, _))| (key.body.clone(), graph.node(id).site)).collect()
    };
    pending.extend(held(graph).into_iter().rev());
    while let Some((body, site)) = pending.pop() {
        if !seen.insert(body.clone()) {
            continue;
        }
        let mut found = Vec::new();
        check(&body.graph, Place::Body(&body), stage, &mut found);
        problems.extend(found.into_iter().map(|problem| problem.with("in the body of", "a scan", site)));
        pending.extend(held(&body.graph).into_iter().rev());
    }
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics(problems)) }
}

/// Where a graph stands.
#[derive(Copy, Clone)]
enum Place<'a> {
    Function,
    Body(&'a Body),
}

/// Checks a graph without the bodies of its scans.
fn check(graph: &Graph, place: Place<'_>, stage: Stage, problems: &mut Vec<Diagnostic>) {
    check_order(graph, problems);
    if !problems.is_empty() {
        return;
    }
    problems.extend(graph.faults().iter().cloned());
    check_leaves(graph, problems);
    check_types(graph, problems);
    check_inputs(graph, place, problems);
    check_roots(graph, place, problems);
    check_stage(graph, stage, problems);
}

/// A message about a node.
fn at_node(id: NodeId, node: &Node, title: &str) -> Diagnostic {
    Diagnostic::new(format!("node {} (`{}`) {title}", id.0, node.op.name())).at(node.site)
}

fn check_order(graph: &Graph, problems: &mut Vec<Diagnostic>) {
    for (id, node) in graph.nodes() {
        for operand in node.operands.iter().filter(|operand| **operand >= id) {
            problems.push(at_node(
                id,
                node,
                &format!("uses node {}, which does not stand before it", operand.0),
            ));
        }
    }
}

fn check_leaves(graph: &Graph, problems: &mut Vec<Diagnostic>) {
    for (id, node) in graph.nodes() {
        let Op::Leaf(leaf) = node.op else { continue };
        match graph.leaf(leaf) {
            None => problems.push(at_node(id, node, &format!("is leaf {}, which is not listed", leaf.0))),
            Some(leaf) if !leaf.ty.accepts(&node.ty) => problems.push(
                at_node(id, node, &format!("has another type than {}", leaf.label()))
                    .with("expected", leaf.ty.to_string(), leaf.site)
                    .with("found", node.ty.to_string(), None),
            ),
            Some(_) => {}
        }
    }
}

fn check_types(graph: &Graph, problems: &mut Vec<Diagnostic>) {
    for (id, node) in graph.nodes().filter(|(_, node)| !matches!(node.op, Op::Leaf(_))) {
        let operands: SmallVec<[&TensorType; 4]> = node.operands.iter().map(|o| graph.ty(*o)).collect();
        match infer(&node.op, &operands) {
            Ok(ty) if ty == node.ty => {}
            Ok(ty) => problems.push(
                at_node(id, node, "has another type than its rule gives")
                    .with("expected", ty.to_string(), None)
                    .with("found", node.ty.to_string(), None),
            ),
            // Adding it has left the same fault, which is reported already.
            Err(_) if !graph.faults().is_empty() => {}
            Err(fault) => problems.push(fault.at(node.site)),
        }
    }
}

fn check_inputs(graph: &Graph, place: Place<'_>, problems: &mut Vec<Diagnostic>) {
    let mut seen: BTreeSet<LeafId> = BTreeSet::new();
    for (position, id) in graph.inputs.iter().enumerate() {
        let Some(leaf) = graph.leaf(*id) else {
            problems.push(Diagnostic::new(format!("input {position} is leaf {}, which is not listed", id.0)));
            continue;
        };
        if !matches!(leaf.kind, LeafKind::Input) {
            problems.push(
                Diagnostic::new(format!("input {position} is {}, which is no input", leaf.label()))
                    .at(leaf.site),
            );
        }
        if !seen.insert(*id) {
            problems.push(
                Diagnostic::new(format!("input {position} is {}, which is an input twice", leaf.label()))
                    .at(leaf.site),
            );
        }
    }
    let live = live_nodes(graph);
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        let Op::Leaf(leaf) = node.op else { continue };
        let title = match (graph.leaf(leaf).map(|leaf| &leaf.kind), place) {
            (Some(LeafKind::Input), _) if !seen.contains(&leaf) => "is an input that is not among the inputs",
            (Some(LeafKind::Carry), Place::Function) => "is a carry outside of its scan",
            (Some(LeafKind::Carry), Place::Body(_))
                if graph.updates.iter().all(|(carry, _)| *carry != leaf) =>
            {
                "is a carry without a next value"
            }
            (Some(LeafKind::Shared(_)), Place::Body(_)) => "is a shared variable in the body of a scan",
            (
                Some(LeafKind::Input | LeafKind::Carry | LeafKind::Shared(_) | LeafKind::Constant(_)) | None,
                _,
            ) => {
                continue;
            }
        };
        problems.push(at_node(id, node, title));
    }
}

/// For every node, whether it is reached from those roots that exist.
fn live_nodes(graph: &Graph) -> Vec<bool> {
    let mut live = vec![false; graph.len()];
    for root in graph.roots().filter(|root| root.index() < graph.len()) {
        live[root.index()] = true;
    }
    for (id, node) in graph.nodes().rev() {
        if live[id.index()] {
            for operand in &node.operands {
                live[operand.index()] = true;
            }
        }
    }
    live
}

fn check_roots(graph: &Graph, place: Place<'_>, problems: &mut Vec<Diagnostic>) {
    for (position, id) in graph.outputs.iter().enumerate().filter(|(_, id)| id.index() >= graph.len()) {
        problems.push(Diagnostic::new(format!("output {position} is node {}, which does not exist", id.0)));
    }
    if let Place::Body(body) = place {
        check_body(body, problems);
    }
    let mut written: BTreeSet<LeafId> = BTreeSet::new();
    for (leaf, id) in &graph.updates {
        check_update(graph, place, *leaf, *id, problems);
        if !written.insert(*leaf) {
            let label = graph.leaf(*leaf).map_or_else(|| format!("leaf {}", leaf.0), |leaf| leaf.label());
            problems.push(Diagnostic::new(format!("{label} is updated twice")));
        }
    }
    for leaf in graph.leaves() {
        let value = match &leaf.kind {
            LeafKind::Input | LeafKind::Carry => continue,
            LeafKind::Shared(cell) => {
                let state = cell.lock();
                TensorType::known(state.host.dtype(), state.host.shape())
            }
            LeafKind::Constant(value) => TensorType::known(value.dtype(), value.shape()),
        };
        if !leaf.ty.accepts(&value) {
            problems.push(
                Diagnostic::new(format!("the value of {} has another type than declared", leaf.label()))
                    .at(leaf.site)
                    .with("expected", leaf.ty.to_string(), None)
                    .with("found", value.to_string(), None),
            );
        }
    }
}

/// What a body promises beside what every graph does.
fn check_body(body: &Body, problems: &mut Vec<Diagnostic>) {
    if body.sequences > body.inputs() {
        problems.push(Diagnostic::new(format!(
            "a body reads {} sequences and has {} inputs",
            body.sequences,
            body.inputs()
        )));
    }
    if !body.until {
        return;
    }
    match body.condition() {
        None => problems
            .push(Diagnostic::new("the body of a scan with a condition to end at has no output for it")),
        Some(id) if id.index() >= body.graph.len() => {}
        Some(id) => {
            let (node, expected) = (body.graph.node(id), TensorType::scalar(DType::Bool));
            if node.ty != expected {
                problems.push(
                    at_node(id, node, "is the condition to end a scan at and has another type")
                        .with("expected", expected.to_string(), None)
                        .with("found", node.ty.to_string(), None),
                );
            }
        }
    }
}

fn check_update(graph: &Graph, place: Place<'_>, leaf: LeafId, id: NodeId, problems: &mut Vec<Diagnostic>) {
    let Some(leaf) = graph.leaf(leaf) else {
        problems.push(Diagnostic::new(format!("an update writes leaf {}, which is not listed", leaf.0)));
        return;
    };
    let fault =
        |title: &str| Diagnostic::new(format!("the update of {} {title}", leaf.label())).at(leaf.site);
    match (&leaf.kind, place) {
        (LeafKind::Shared(_), Place::Function) | (LeafKind::Carry, Place::Body(_)) => {}
        (_, Place::Function) => problems.push(fault("writes what is not a shared variable")),
        (_, Place::Body(_)) => problems.push(fault("writes what is not a carry")),
    }
    if id.index() >= graph.len() {
        problems.push(fault(&format!("is node {}, which does not exist", id.0)));
    } else if !leaf.ty.accepts(graph.ty(id)) {
        let node = graph.node(id);
        problems.push(
            fault("has another type than the variable")
                .with("expected", leaf.ty.to_string(), leaf.site)
                .with("found", node.ty.to_string(), node.site),
        );
    }
}

fn check_stage(graph: &Graph, stage: Stage, problems: &mut Vec<Diagnostic>) {
    for (id, node) in graph.nodes() {
        if stage >= Stage::Specialised {
            if !node.ty.is_known() {
                let fault = at_node(id, node, "has an unknown extent after specialisation");
                problems.push(fault.with("found", node.ty.to_string(), None));
            }
            if node.op.is_symbolic() {
                problems.push(at_node(id, node, "is of a kind that specialisation replaces"));
            }
        }
        if stage >= Stage::Differentiated && matches!(node.op, Op::Grad(_)) {
            problems.push(at_node(id, node, "is a gradient not taken after differentiation"));
        }
    }
}

#[cfg(test)]
mod tests;
