//! A symbolic tensor compiler: write formulas over symbolic tensors, take gradients, and compile inputs, outputs and
//! updates of state into native code.
#![forbid(unsafe_code)]

mod arguments;
mod builder;
mod cache;
mod engine;
mod executable;
mod function;
pub mod pipeline;
mod profile;

pub use builder::{Builder, Device, function};
pub use cache::Counts;
pub use function::{CallError, Function, Outputs};
pub use hypatia_codegen as codegen;
pub use hypatia_graph as graph;
pub use hypatia_graph::array::{self, Array, Element};
pub use hypatia_graph::collect::Unused;
pub use hypatia_graph::compose::arrange::Padding;
pub use hypatia_graph::compose::layers::Normalised;
pub use hypatia_graph::compose::{All, AxisSet, Size, arange, concatenate, full, ones, stack, switch, zeros};
pub use hypatia_graph::convolution::{Conv, Pool, PoolMode};
pub use hypatia_graph::gradient::{Gradient, grad};
pub use hypatia_graph::index::{Index, step};
pub use hypatia_graph::op::Disconnected;
pub use hypatia_graph::scan::{self, Next, Scan, ScanStep, Scanned};
pub use hypatia_graph::streams::RandomStreams;
pub use hypatia_graph::tensor::{
    col, constant, input, input_of_type, matrix, row, scalar, shared, tensor3, tensor4, vector,
};
pub use hypatia_graph::{
    Axes, Broken, DType, Diagnostic, Diagnostics, Extent, Fold, Graph, Literal, ScalarFn, Shared, Tensor,
    TensorType, ix,
};
pub use hypatia_kernels as kernels;
pub use hypatia_rewrite as rewrite;
pub use hypatia_rewrite::Numerics;
pub use pipeline::Stages;
pub use profile::{Profile, ProfileRow};

/// The examples of the project's front page.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct FrontPage;
