//! What surrounds the models of the Deep Learning Tutorials: data, random initialisation, logs, pictures, checkpoints.
//!
//! Nothing in these modules knows of graphs; they turn files into arrays and results into files.

pub mod checkpoint;
pub mod data;
pub mod digits;
pub mod early_stopping;
pub mod interrupt;
pub mod log;
pub mod picture;
pub mod plot;
pub mod progress;
pub mod random_state;
