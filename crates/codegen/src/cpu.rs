//! The processor's part of the back end: what the processor can do, the threads, and the matrix products.
//!
//! Nothing here knows of graphs or kernels; it offers compiled building blocks that work on raw memory.
//! Results depend on the plan and on the instruction set, never on the number of threads.

pub mod call;
mod code;
mod emit;
pub mod features;
mod lanes;
pub mod pool;
pub mod product;
pub mod random;

pub use code::CodeError;
