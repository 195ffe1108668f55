//! The models of the Deep Learning Tutorials as graphs, and all that surrounds them: data, random initialisation,
//! training runs, logs, pictures, checkpoints, the program.
//!
//! The classes of the tutorials hold formulas ([`logistic_regression`], [`mlp`], [`rbm`], [`dbn`], [`rnn_rbm`],
//! [`mcrbm`]; [`hmc`] samples from any of them). [`model`] says what makes a model trainable and which ones there are,
//! [`train`] runs one, [`program`] is the command line. The modules of data and of results know of no graph; they turn
//! files into arrays and results into files.

pub mod benchmark;
pub mod checkpoint;
pub mod classifier;
mod count;
pub mod data;
pub mod dbn;
pub mod digits;
pub mod dot;
pub mod early_stopping;
mod files;
pub mod filters;
pub mod generator;
pub mod hmc;
pub mod interrupt;
pub mod log;
pub mod logistic_regression;
pub mod mcrbm;
pub mod mlp;
pub mod model;
pub mod monitor;
pub mod music;
pub mod picture;
pub mod plot;
pub mod program;
pub mod progress;
pub mod random_state;
pub mod rbm;
pub mod resident;
pub mod rnn_rbm;
pub mod sample;
pub mod state;
pub mod train;
pub mod whitening;
