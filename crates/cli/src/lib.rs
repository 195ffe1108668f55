//! The program `hypatia`: training runs of the models, and everything around them that is no formula and no data.
//!
//! [`models`] is the table of what can be trained, with a module for each; [`model`] says what such a line holds and
//! [`training`] what all trainings share. [`run`] trains into a directory ([`log`], [`checkpoint`], pictures),
//! [`mod@sample`] draws from what was trained, [`benchmark`] times steps, [`commands`] is the command line.

pub mod benchmark;
pub mod checkpoint;
pub mod commands;
pub mod dot;
pub mod error;
mod files;
pub mod filters;
pub mod interrupt;
pub mod log;
pub mod model;
pub mod models;
pub mod picture;
pub mod plot;
pub mod progress;
pub mod resident;
pub mod run;
pub mod sample;
pub mod state;
pub mod training;
