//! Symbolic tensors and all that is true of them whatever executes them: types, operators, gradients, the reference
//! interpreter, the text form.
//!
//! Read the modules in this order. Expressions ([`tensor`], [`compose`], [`convolution`], [`index`]) are what users write;
//! [`collect`] gathers them into a [`Graph`]; [`specialise`] makes every extent known; [`differentiate`] takes the
//! gradients. Nothing here generates code, and nothing here knows the rewriter or a device.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

pub mod array;
pub mod body;
pub mod broken;
pub mod collect;
pub mod compose;
pub mod convolution;
pub mod diagnostic;
pub mod differentiate;
pub mod dtype;
pub mod gradient;
pub mod graph;
pub mod index;
pub mod infer;
pub mod interp;
pub mod leaf;
pub mod made;
pub mod math;
pub mod op;
pub mod random;
pub mod scalar;
pub mod scan;
pub mod scan_nodes;
pub mod shape;
pub mod specialise;
pub mod streams;
pub mod tensor;
pub mod text;
pub mod verify;

pub use array::{Array, Element};
pub use broken::Broken;
pub use diagnostic::{Diagnostic, Diagnostics, Site};
pub use dtype::{DType, Literal};
pub use graph::{Graph, Node, NodeId};
pub use op::{Fold, LeafId, Op};
pub use scalar::ScalarFn;
pub use shape::{Axes, Extent, TensorType};
pub use tensor::{Shared, Tensor};
