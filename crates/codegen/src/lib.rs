//! From a differentiated, simplified graph to code that runs: schedule, kernels, memory plan, and two back ends.
//!
//! Read the modules in this order. [`kernel`] is the form that back ends see; neither knows the other, nor the graph.

pub mod cpu;
pub mod kernel;
