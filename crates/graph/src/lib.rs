//! Under construction.

pub mod math;
pub mod random;
