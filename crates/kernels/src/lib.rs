//! The loops that are written and not generated: matrix products and the packing of their factors, convolutions, the random fill, and the
//! threads that share them.
//!
//! Always true: a plan is made from extents, strides and the processor's [`features`] alone, and says everything that
//! running it does; results depend on the plan and never on the number of threads; a function that is safe checks the
//! slices it is given, an unsafe one says what memory it needs. Nothing here knows of graphs or programs. Deliberately
//! absent: generated code, which the code generator makes for everything else.
//!
//! This crate is optimised in the development profile as well: with checks, generic code around intrinsics would be
//! several times slower.

pub mod convolution;
pub mod features;
pub mod pool;
pub mod product;
pub mod random;
