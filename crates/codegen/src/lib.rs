//! Under construction.

pub mod cpu;
