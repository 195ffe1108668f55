//! Checks that a graph keeps its promises; passes are followed by it in tests and debug builds.
//!
//! The invariants, in the order in which they are checked:
//! 1. Operands stand before the node that uses them, and all exist.
//! 2. Adding nodes left no fault.
//! 3. Every leaf of a node is listed among the graph's leaves, and its node has a type that its declaration accepts.
//! 4. Every other node has the type that [`crate::infer`] gives it.
//! 5. Inputs are listed leaves of their kind, each once, and every input that a node uses is among them.
//! 6. Outputs and updates name nodes of the graph.
//! 7. Updates write shared variables, each once, with values of the variable's type; a shared variable's or constant's
//!    value has its declared type.
//! 8. After specialisation: every type is known, and there are no `Extent`, `Slice`, `SetSlice` and no extents given by
//!    operands.
//! 9. After differentiation: there is no `Grad`.
//!
//! Types are only compared in a graph of which the first invariant holds. Nothing is changed or mended.

use std::collections::BTreeSet;

use smallvec::SmallVec;

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::graph::{Graph, Node, NodeId};
use crate::infer::infer;
use crate::leaf::LeafKind;
use crate::op::{Dim, LeafId, Op};
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
/// module's list, each with the node and the user's line that built it.
pub fn verify(graph: &Graph, stage: Stage) -> Result<(), Diagnostics> {
    let mut problems = Vec::new();
    check_order(graph, &mut problems);
    if !problems.is_empty() {
        return Err(Diagnostics(problems));
    }
    problems.extend(graph.faults().iter().cloned());
    check_leaves(graph, &mut problems);
    check_types(graph, &mut problems);
    check_inputs(graph, &mut problems);
    check_roots(graph, &mut problems);
    check_stage(graph, stage, &mut problems);
    if problems.is_empty() { Ok(()) } else { Err(Diagnostics(problems)) }
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

fn check_inputs(graph: &Graph, problems: &mut Vec<Diagnostic>) {
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
        let is_input = graph.leaf(leaf).is_some_and(|leaf| matches!(leaf.kind, LeafKind::Input));
        if is_input && !seen.contains(&leaf) {
            problems.push(at_node(id, node, "is an input that is not among the inputs"));
        }
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

fn check_roots(graph: &Graph, problems: &mut Vec<Diagnostic>) {
    for (position, id) in graph.outputs.iter().enumerate().filter(|(_, id)| id.index() >= graph.len()) {
        problems.push(Diagnostic::new(format!("output {position} is node {}, which does not exist", id.0)));
    }
    let mut written: BTreeSet<LeafId> = BTreeSet::new();
    for (leaf, id) in &graph.updates {
        check_update(graph, *leaf, *id, problems);
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

fn check_update(graph: &Graph, leaf: LeafId, id: NodeId, problems: &mut Vec<Diagnostic>) {
    let Some(leaf) = graph.leaf(leaf) else {
        problems.push(Diagnostic::new(format!("an update writes leaf {}, which is not listed", leaf.0)));
        return;
    };
    let fault =
        |title: &str| Diagnostic::new(format!("the update of {} {title}", leaf.label())).at(leaf.site);
    if !matches!(leaf.kind, LeafKind::Shared(_) | LeafKind::Carry) {
        problems.push(fault("writes what is not a shared variable"));
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
            if is_unspecialised(&node.op) {
                problems.push(at_node(id, node, "is of a kind that specialisation replaces"));
            }
        }
        if let Op::Scan(scan) = &node.op
            && let Err(faults) = verify(&scan.body.graph, stage)
        {
            problems.extend(faults.0);
        }
        if stage >= Stage::Differentiated && matches!(node.op, Op::Grad(_)) {
            problems.push(at_node(id, node, "is a gradient not taken after differentiation"));
        }
    }
}

/// Whether the operator is gone after specialisation.
fn is_unspecialised(op: &Op) -> bool {
    match op {
        Op::Extent(_) | Op::Slice(_) | Op::SetSlice(..) => true,
        Op::Iota(dims) | Op::Reshape(dims) | Op::Broadcast { dims, .. } | Op::Random { dims, .. } => {
            dims.contains(&Dim::Operand)
        }
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Map(_)
        | Op::Cast(_)
        | Op::Reduce(..)
        | Op::ArgMax(_)
        | Op::Dot
        | Op::Permute(_)
        | Op::Window(_)
        | Op::SetWindow(..)
        | Op::Concat(_)
        | Op::Gather { .. }
        | Op::Scatter { .. }
        | Op::StopGradient
        | Op::Grad(_) => false,
        Op::Scan(scan) => scan.steps == Dim::Operand,
    }
}

#[cfg(test)]
mod tests;
