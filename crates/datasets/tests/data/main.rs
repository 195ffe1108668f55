//! Tests of everything that is read from files: pickles, idx files, MNIST in both forms, music, generated digits.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod generated;
mod mnist;
mod music;
mod pickles;
mod real;
