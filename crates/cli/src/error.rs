//! Why a command failed: every error of a run, with the message that the user reads.

use std::path::PathBuf;

use hypatia::{CallError, Diagnostic, Diagnostics};
use hypatia_datasets::DataError;
use hypatia_datasets::numpy::RandomStateError;
use hypatia_models::hmc::{HmcError, NanEnergy};
use thiserror::Error;

use crate::checkpoint::CheckpointError;
use crate::log::LogError;
use crate::picture::PictureError;
use crate::training::Position;

/// Why a training ended before its time.
#[derive(Debug, Error)]
pub enum TrainError {
    /// Settings that make no sense, alone or for these data.
    #[error("{0}")]
    Usage(String),
    /// Data that cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
    /// Expressions that make no function.
    #[error("{0}")]
    Graph(#[from] Diagnostics),
    /// A call that failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// A shared variable that cannot be read or written.
    #[error("{0}")]
    Shared(#[from] Diagnostic),
    /// A checkpoint that cannot be written or used.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A checkpoint whose state is not valid.
    #[error("checkpoint {}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory without a checkpoint, where a trained model is needed.
    #[error(
        "no trained model in {}: there is no {}\nhint: `hypatia train {model}` makes one",
        path.parent().unwrap_or(path).display(), path.display()
    )]
    Untrained {
        /// The checkpoint expected.
        path: PathBuf,
        /// The model.
        model: &'static str,
    },
    /// A checkpoint of a run with other settings.
    #[error("cannot resume from {}: it belongs to another run\n{}", path.display(), differences.join("\n"))]
    Differs {
        /// The file.
        path: PathBuf,
        /// One line for each difference.
        differences: Vec<String>,
    },
    /// The directory of the run cannot be made.
    #[error("cannot create the directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A result cannot be stored.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The log cannot be kept.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A picture cannot be stored.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// An energy is NaN.
    #[error(
        "epoch {epoch}, minibatch {batch}: {energy}\nhint: try a smaller --learning-rate (now {learning_rate}); the checkpoint of the epoch before is kept"
    )]
    Energy {
        /// The epoch, from 1.
        epoch: u64,
        /// The minibatch, from 1.
        batch: u64,
        /// Where in the motion of which particle it happened.
        energy: NanEnergy,
        /// The learning rate of the run.
        learning_rate: f64,
    },
    /// A sampler that cannot be made or run.
    #[error(transparent)]
    Sampler(#[from] HmcError),
    /// The measure of a step is NaN or too large to mean anything.
    #[error(
        "training diverged in epoch {epoch}, minibatch {batch}: the {what} became {found}\nhint: try a smaller --learning-rate (now {learning_rate}); the checkpoint of the epoch before is kept"
    )]
    Diverged {
        /// The measure.
        what: &'static str,
        /// Its value.
        found: f64,
        /// The epoch, from 1.
        epoch: u64,
        /// The minibatch, from 1.
        batch: u64,
        /// The learning rate of the run.
        learning_rate: f64,
    },
    /// A parameter or the mean of an epoch is out of range.
    #[error(
        "training diverged after epoch {}, minibatch {}: {reason}\nhint: try a smaller --learning-rate; the checkpoint of the epoch before is kept",
        position.epochs, position.batches
    )]
    Useless {
        /// The epoch, from 1, and how many of its minibatches were learnt from.
        position: Position,
        /// What was expected and found.
        reason: String,
    },
    /// Numbers that cannot be drawn.
    #[error(transparent)]
    Random(#[from] RandomStateError),
    /// A broken invariant: a bug of the program.
    #[error("internal error, please report it: {0}")]
    Internal(String),
    /// The directory holds another run, which would be lost.
    #[error(
        "{} exists: --resume continues that run, --overwrite replaces it, --out DIR trains elsewhere",
        path.display()
    )]
    Present {
        /// The checkpoint or log.
        path: PathBuf,
    },
    /// Another process trains in the directory.
    #[error(
        "another process trains in {}\nhint: wait for it to end, or train elsewhere with --out DIR",
        path.display()
    )]
    Locked {
        /// The directory.
        path: PathBuf,
    },
}
