//! Training runs, from the library and from the command line.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod mcrbm;
mod published;
mod resumption;
mod rnn_rbm;
