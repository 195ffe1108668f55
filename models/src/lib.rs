//! The models of the Deep Learning Tutorials as graphs, and how they are optimised.
//!
//! The classes of the tutorials hold formulas ([`logistic_regression`], [`mlp`], [`rbm`], [`dbn`], [`rnn_rbm`],
//! [`mcrbm`]); [`hmc`] samples from any density, [`descent`] makes updates of gradients, [`early_stopping`] says when to
//! stop. Data, files, training runs and the command line are deliberately absent: see `crates/datasets` and `crates/cli`.

pub mod dbn;
pub mod descent;
pub mod early_stopping;
pub mod hmc;
pub mod logistic_regression;
pub mod mcrbm;
pub mod mlp;
pub mod parameter;
pub mod rbm;
pub mod rnn_rbm;
