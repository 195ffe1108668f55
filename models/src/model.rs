//! What a model must offer so that the program can train, show and resume it, and the register of all there are.
//!
//! A model turns [`Settings`] into a [`Training`]: compiled functions and a position, which goes on by one minibatch at a
//! time. Between two steps everything about it can be saved, so interrupting and resuming is written once, in
//! [`crate::train`], for all models. What the steps do is the model's own affair.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command};
use hypatia::{CallError, Device, Diagnostic, Diagnostics, Function};
use serde_json::Value;
use thiserror::Error;

use crate::checkpoint::{Checkpoint, CheckpointError};
use crate::data::{DataError, Dataset, LabelledImages, SetSizes};
use crate::log::{Done, Epoch, LogError};
use crate::picture::PictureError;
use crate::plot::PlotError;

/// Every model, in the order of the tutorials.
pub const MODELS: [&dyn Model; 2] = [&crate::logistic_regression::Logreg, &crate::mlp::Perceptron];

/// The model of that name.
#[must_use]
pub fn find_model(name: &str) -> Option<&'static dyn Model> {
    MODELS.into_iter().find(|model| model.name() == name)
}

/// A model of the tutorials, as the program knows it.
pub trait Model: Sync {
    /// The name on the command line.
    fn name(&self) -> &'static str;

    /// One line for the help.
    fn about(&self) -> &'static str;

    /// The settings of the tutorial's main program.
    fn defaults(&self) -> Defaults;

    /// Adds the options that this model alone has.
    fn add_options(&self, command: Command) -> Command {
        command
    }

    /// Gets the data, builds the graphs and compiles the functions; parameters are at their start.
    ///
    /// `options` are the values of what [`Model::add_options`] added.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, or settings that do not fit them.
    fn prepare(&self, settings: &Settings, options: &ArgMatches) -> Result<Box<dyn Training>, TrainError>;
}

/// Settings that every model has a value of its own for.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Defaults {
    /// The largest number of epochs.
    pub epochs: u64,
    /// Examples in a minibatch.
    pub batch_size: u32,
    /// Step of the gradient descent.
    pub learning_rate: f64,
    /// Seed of initialisation, and of generated data.
    pub seed: u32,
}

/// Where examples come from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file or directory of real data.
    Path(PathBuf),
    /// Generated ones: so many to learn from, a fifth of that for validation and for the test.
    Generated(u32),
    /// Zeros in the extents of the tutorial, to look at compiled functions.
    Blank,
}

/// How to train, whatever the model.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// The examples.
    pub source: Source,
    /// The largest number of epochs.
    pub epochs: u64,
    /// Examples in a minibatch.
    pub batch_size: usize,
    /// Step of the gradient descent.
    pub learning_rate: f64,
    /// Seed of initialisation, and of generated data.
    pub seed: u32,
    /// Threads that a call uses; as many as there are cores where it is `None`.
    pub threads: Option<usize>,
    /// Where the functions run.
    pub device: Device,
}

impl Settings {
    /// The labelled images of the source.
    ///
    /// # Errors
    ///
    /// [`TrainError::Data`].
    pub fn labelled_images(&self) -> Result<Dataset, TrainError> {
        Ok(match &self.source {
            Source::Path(path) => Dataset::read(path)?,
            Source::Generated(train) => {
                let train = *train as usize;
                let sizes = SetSizes { train, valid: train / 5, test: train / 5 };
                Dataset::generate(u64::from(self.seed), sizes)
            }
            Source::Blank => {
                let SetSizes { train, valid, test } = SetSizes::default();
                let [train, valid, test] = [train, valid, test].map(LabelledImages::blank);
                Dataset { train, valid, test, origin: "blank".to_owned() }
            }
        })
    }
}

/// A setting of a run, for its log and its checkpoint.
#[derive(Clone, PartialEq, Debug)]
pub struct Setting {
    /// Its name: that of the option, with underscores.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
    /// Whether the numbers of the run depend on it, so that a run cannot go on with another value.
    pub decisive: bool,
}

impl Setting {
    /// A setting on which the numbers depend.
    pub fn decisive(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into(), decisive: true }
    }

    /// A setting that leaves the numbers as they are.
    pub fn free(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into(), decisive: false }
    }
}

/// What a step of a training brought.
#[derive(Clone, PartialEq, Debug)]
pub enum Step {
    /// A minibatch was learnt from.
    Batch,
    /// A minibatch was learnt from, and with it an epoch is over. Whoever takes it fills in the seconds.
    Epoch(Epoch),
    /// There is nothing more to do. Whoever takes it fills in the seconds.
    Done(Done),
}

/// How far a training has come.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// Epochs that are over.
    pub epochs: u64,
    /// Minibatches of the present epoch that are over.
    pub batches: u64,
}

/// A model being trained.
pub trait Training {
    /// What decides about the run, in the order in which it is shown, beyond the name of the model.
    fn settings(&self) -> Vec<Setting>;

    /// Minibatches in an epoch.
    fn batches_per_epoch(&self) -> u64;

    /// How far it has come.
    fn position(&self) -> Position;

    /// Goes on by one minibatch.
    ///
    /// # Errors
    ///
    /// A failed call, or numbers that have become useless.
    fn step(&mut self) -> Result<Step, TrainError>;

    /// The epoch with the best result so far, for models that have one.
    fn best_epoch(&self) -> Option<u64>;

    /// Adds the whole state: parameters, counters, generators.
    ///
    /// # Errors
    ///
    /// A device that does not give its values.
    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError>;

    /// Takes over a state that [`Training::save`] added.
    ///
    /// # Errors
    ///
    /// A checkpoint that lacks something, or has it in another type or shape.
    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError>;

    /// Writes the pictures of what was learnt into a directory and says which files they are.
    ///
    /// # Errors
    ///
    /// Files that cannot be written.
    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError>;

    /// The compiled functions by name, that of the training step first.
    fn functions(&self) -> Vec<(&'static str, &Function)>;
}

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
    /// A counter in a checkpoint that is no number.
    #[error("checkpoint {}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint of a run with other settings.
    #[error("cannot resume from {}: it is of another run\n{}", path.display(), differences.join("\n"))]
    Differs {
        /// The file.
        path: PathBuf,
        /// One line for each difference.
        differences: Vec<String>,
    },
    /// The directory of the run cannot be made.
    #[error("cannot make the directory {}: {source}", path.display())]
    Directory {
        /// The directory.
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
    /// The learning curve cannot be stored.
    #[error(transparent)]
    Plot(#[from] PlotError),
    /// The cost is not a number any more.
    #[error(
        "the training cost became NaN: expected a number in epoch {epoch}, minibatch {batch}, found NaN\nhint: a smaller --learning-rate (now {learning_rate}) may help; the checkpoint of the epoch before is whole"
    )]
    Diverged {
        /// The epoch, from 1.
        epoch: u64,
        /// The minibatch, from 1.
        batch: u64,
        /// The learning rate of the run.
        learning_rate: f64,
    },
}

/// A counter or number in the metadata of a checkpoint.
///
/// # Errors
///
/// [`CheckpointError::Missing`] or [`TrainError::State`].
pub fn saved_number<T: std::str::FromStr>(checkpoint: &Checkpoint, name: &str) -> Result<T, TrainError> {
    let text = checkpoint.entry(name)?;
    text.parse().map_err(|_| TrainError::State {
        path: checkpoint.path().to_owned(),
        reason: format!("expected {name} to be a number, found {text:?}"),
    })
}

/// Reads a weight of a penalty from the command line.
pub(crate) fn parse_penalty(text: &str) -> Result<f64, String> {
    number_in(text, "a finite number from 0", |x| x >= 0.0)
}

/// Reads a learning rate from the command line.
pub(crate) fn parse_learning_rate(text: &str) -> Result<f64, String> {
    number_in(text, "a finite number above 0", |x| x > 0.0)
}

fn number_in(text: &str, expected: &str, accepts: impl Fn(f64) -> bool) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && accepts(*x));
    number.ok_or_else(|| format!("expected {expected}"))
}

/// The options that a model alone has, read from words as they stand on the command line.
///
/// # Errors
///
/// Words that are no options of the model, or have no value that it takes.
pub fn parse_options(model: &dyn Model, words: &[&str]) -> Result<ArgMatches, clap::Error> {
    model.add_options(Command::new(model.name()).no_binary_name(true)).try_get_matches_from(words)
}
