//! From a differentiated, simplified graph to code that runs: schedule, kernels, memory plan, and two back ends.
//!
//! Read the modules in this order. [`kernel`] is the form that back ends see; neither knows the other, nor the graph.

pub mod accumulate;
pub mod cpu;
pub mod kernel;
pub mod lower;
pub mod plan;
pub mod schedule;

use hypatia_graph::Graph;

use crate::kernel::Program;

/// The program of a specialised graph without gradients to be taken.
pub fn compile(graph: &Graph) -> Program {
    let graph = accumulate::split_reductions(&accumulate::accumulate(graph));
    let stored = schedule::stored_nodes(&graph);
    let drafts = lower::lower(&graph, &stored);
    plan::plan(&graph, drafts)
}
