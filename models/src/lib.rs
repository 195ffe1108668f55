//! Under construction.
pub mod checkpoint;
pub mod data;
pub mod digits;
pub mod early_stopping;
pub mod interrupt;
pub mod picture;
pub mod random_state;
