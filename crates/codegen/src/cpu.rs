//! The CPU back end: loop kernels as machine code.

pub mod avx512;
