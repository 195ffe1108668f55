//! Under construction.
pub mod data;
pub mod digits;
pub mod picture;
pub mod random_state;
