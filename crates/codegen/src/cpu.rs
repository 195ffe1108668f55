//! The processor's back end: machine code for loop kernels, matrix products, threads, calls.
//!
//! A program becomes a [`Plan`], its functions code (`code`), and the plan is run with their addresses (`steps`, [`call`]).
//! Loop kernels are compiled by Cranelift (`emit`), which covers all of them, and on processors with AVX-512 by an
//! emitter of our own ([`avx512`]) where it can; a scan with a small body is one function (`native`). Nothing
//! here knows of graphs.
//! Results depend on the program and, in products, on the instruction set, never on the number of threads.

pub mod avx512;
pub mod call;
mod code;
mod emit;
mod lanes;
mod native;
mod plan;
mod register_cache;
mod steps;

pub use code::CodeError;
pub use plan::Plan;
