//! From a differentiated, simplified graph to code that runs: schedule, kernels, their order and memory, and two back ends.
//!
//! Read the modules in this order. [`kernel`] is the form that back ends see; neither knows the other, nor the graph.

pub mod cpu;
pub mod expand;
pub mod folds;
pub mod fuse_update;
pub mod kernel;
pub mod lower;
pub mod merge;
#[cfg(feature = "opencl")]
pub mod opencl;
pub mod place;
pub mod safety;
pub mod scan;
pub mod schedule;

use std::collections::BTreeSet;
use std::sync::Arc;

use hypatia_graph::body::Body;
use hypatia_graph::{Broken, Diagnostic, Diagnostics, Graph, Op};

use crate::kernel::Program;

/// Why a graph has no program.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CompileError {
    /// Nodes whose operands do not fit, in the graph or in the body of a scan: such a graph means nothing.
    #[error("expected a graph without faults\n{0}")]
    Faults(Diagnostics),
    /// A pass broke an invariant of the compiler.
    #[error(transparent)]
    Broken(#[from] Broken),
}

/// The program of a specialised graph without gradients to be taken. It is verified: generated code relies on it.
///
/// # Errors
///
/// The faults of the graph, or what is wrong with the program made of it.
pub fn compile(graph: &Graph) -> Result<Program, CompileError> {
    let faults = faults(graph);
    if !faults.is_empty() {
        return Err(CompileError::Faults(Diagnostics(faults)));
    }
    let program = unverified(graph).map_err(|broken| broken.with_input(graph))?;
    kernel::verify::verify(&program)?;
    Ok(program)
}

/// The faults of a graph and of the bodies of its scans.
fn faults(graph: &Graph) -> Vec<Diagnostic> {
    let mut faults = Vec::new();
    let mut seen: BTreeSet<&Arc<Body>> = BTreeSet::new();
    let mut pending = vec![graph];
    while let Some(graph) = pending.pop() {
        faults.extend(graph.faults().iter().cloned());
        for (_, node) in graph.nodes() {
            if let Op::Scan(scan) = &node.op
                && seen.insert(&scan.body)
            {
                pending.push(&scan.body.graph);
            }
        }
    }
    faults
}

/// The program of a graph or of the body of a scan.
fn unverified(graph: &Graph) -> Result<Program, Broken> {
    let graph = expand::expand(&fuse_update::fuse_updates(graph));
    let graph = scan::with_carries(&scan::sink(&graph));
    let schedule = schedule::Schedule::new(&graph)?;
    let unplaced = folds::in_stages(merge::merge(lower::lower(&schedule)?));
    place::place(&graph, unplaced)
}

#[cfg(test)]
mod tests {
    use hypatia_graph::op::{Backward, Dim, Scan, ScanResult};
    use hypatia_graph::text::parse;
    use hypatia_graph::{NodeId, ScalarFn};

    use super::*;

    /// A graph in which operands of unlike shapes are added.
    fn faulty() -> Graph {
        let text = "input %x: f32[2, 3]\ninput %y: f32[3, 2]\n%0 = exp(%x)\n%1 = exp(%y)\noutput %0\n";
        let mut graph = parse(text).unwrap();
        let sum = graph.add(Op::Map(ScalarFn::Add), &[NodeId(2), NodeId(3)], None);
        graph.outputs = vec![sum];
        graph
    }

    #[test]
    fn a_graph_with_faults_is_refused() {
        let Err(CompileError::Faults(faults)) = compile(&faulty()) else { panic!("compiled") };
        assert_eq!(faults.0.len(), 1);
        assert!(faults.to_string().contains("operands of `add` differ in shape"), "{faults}");
    }

    #[test]
    fn a_scan_with_faults_is_refused() {
        let body = Arc::new(Body::new(faulty(), 0, false));
        let mut graph = parse("input %x: f32[2, 3]\ninput %y: f32[3, 2]\n").unwrap();
        let scan =
            Scan { body, steps: Dim::Known(2), result: ScanResult::Rows(0), backward: Backward::default() };
        let rows = graph.add(Op::Scan(Box::new(scan)), &[NodeId(0), NodeId(1)], None);
        graph.outputs = vec![rows];
        let Err(CompileError::Faults(faults)) = compile(&graph) else { panic!("compiled") };
        assert!(faults.to_string().contains("operands of `add` differ in shape"), "{faults}");
    }
}
