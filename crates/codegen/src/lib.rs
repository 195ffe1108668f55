//! From a differentiated, simplified graph to code that runs: schedule, kernels, memory plan, and two back ends.
//!
//! Read the modules in this order. [`kernel`] is the form that back ends see; neither knows the other, nor the graph.

pub mod accumulate;
pub mod cpu;
pub mod kernel;
pub mod loops;
pub mod lower;
pub mod merge;
pub mod opencl;
pub mod plan;
pub mod schedule;

use hypatia_graph::Graph;

use crate::kernel::Program;

/// A program that breaks an invariant of its form: a fault of this crate, which names the step.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the compiler made an invalid program, which is a fault of Hypatia's: {0}")]
pub struct InvalidProgram(String);

/// The program of a specialised graph without gradients to be taken. It is verified: generated code relies on it.
pub fn compile(graph: &Graph) -> Result<Program, InvalidProgram> {
    let program = unverified(graph);
    kernel::verify::verify(&program).map_err(InvalidProgram)?;
    Ok(program)
}

/// The program of a graph or of the body of a loop.
fn unverified(graph: &Graph) -> Program {
    let graph =
        loops::with_carries(loops::sink(&accumulate::split_reductions(&accumulate::accumulate(graph))));
    let stored = schedule::stored_nodes(&graph);
    let drafts = merge::merge(lower::lower(&graph, &stored));
    plan::plan(&graph, drafts)
}
