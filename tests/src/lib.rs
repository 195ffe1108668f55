//! One corpus, many engines: every operator, random graphs and whole models, through whatever can run them.
//!
//! The library holds what the tests share: [`engines`] run a graph, [`compare`] says how far a result may lie from the
//! interpreter's, [`forward`] takes derivatives without the differentiator, [`samples`] lists one-operator graphs and
//! [`generate`] makes random ones. The tests are modules of this crate, so that they are one program to link.
//! Nothing here knows an operator's derivative from the code under test, or its value from an engine.
#![forbid(unsafe_code)]

pub mod compare;
pub mod engines;
pub mod forward;
pub mod generate;
pub mod samples;
pub mod scans;
pub mod values;

#[cfg(test)]
mod chain;
#[cfg(test)]
mod composites;
#[cfg(test)]
mod convolution;
#[cfg(test)]
mod functions;
#[cfg(test)]
mod golden;
#[cfg(test)]
mod gradients;
#[cfg(test)]
mod indexes;
#[cfg(test)]
mod messages;
#[cfg(test)]
mod numbers;
#[cfg(test)]
mod operators;
#[cfg(test)]
mod random_graphs;
#[cfg(test)]
mod snapshot;
#[cfg(test)]
mod special_values;
#[cfg(test)]
mod threads;
#[cfg(test)]
mod traps;
