//! What the program knows of a model: its name, defaults and options, and how it is trained and drawn from.
//!
//! A [`Model`] is data, a line of the table [`crate::models::MODELS`]. Its options are a struct of the command line that
//! implements [`TrainingOptions`]: from them and the [`Settings`] it makes a [`Training`], with compiled functions and
//! parameters at their start. A model that can be drawn from has a [`Sampler`] as well.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command};
use hypatia::{Builder, Device};
use hypatia_datasets::{Dataset, LabelledImages, SetSizes};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::training::Training;

/// A model of the tutorials, as the program knows it.
pub struct Model {
    /// The name on the command line.
    pub name: &'static str,
    /// One line for the help.
    pub about: &'static str,
    /// The settings of the tutorial's main program.
    pub defaults: Defaults,
    /// What it learns from, for the help of its options.
    pub examples: Examples,
    /// How it is trained.
    pub trainer: Trainer,
    /// How it is drawn from once it is trained, where that can be done.
    pub sampler: Option<Sampler>,
}

impl Model {
    /// How it is trained by default on examples of that source.
    #[must_use]
    pub fn settings(&self, source: Source) -> Settings {
        let Defaults { epochs, batch_size, learning_rate, seed } = self.defaults;
        let (batch_size, threads, device) = (batch_size as usize, None, Device::Cpu);
        Settings { source, epochs, batch_size, learning_rate, seed, threads, device }
    }
}

/// The options that a model alone has, and the training that they make.
pub trait TrainingOptions: Args {
    /// Gets the data, builds the graphs and compiles the functions; parameters are at their start.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, or settings that do not fit them.
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError>;
}

/// How a model is trained.
pub struct Trainer {
    add_options: fn(Command) -> Command,
    prepare: fn(&Settings, &ArgMatches) -> Result<Training, TrainError>,
}

impl Trainer {
    /// By these options.
    pub(crate) const fn of<O: TrainingOptions>() -> Self {
        Self {
            add_options: O::augment_args,
            prepare: |settings, matches| parsed::<O>(matches)?.prepare(settings),
        }
    }

    /// Adds the options that the model alone has.
    #[must_use]
    pub fn add_options(&self, command: Command) -> Command {
        (self.add_options)(command)
    }

    /// See [`TrainingOptions::prepare`]; `matches` are the values of what [`Trainer::add_options`] added.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, or settings that do not fit them.
    pub fn prepare(&self, settings: &Settings, matches: &ArgMatches) -> Result<Training, TrainError> {
        (self.prepare)(settings, matches)
    }

    /// The options that the model alone has, read from words as they stand on the command line.
    ///
    /// # Errors
    ///
    /// Words that are no options of the model, or have no value that it takes.
    pub fn parse_options(&self, words: &[&str]) -> Result<ArgMatches, clap::Error> {
        self.add_options(Command::new("options").no_binary_name(true)).try_get_matches_from(words)
    }
}

/// The options of drawing from a model beside those for examples, seed, threads and device, and the drawing.
pub trait SamplingOptions: Args {
    /// Draws from the model of a checkpoint, writes the results into the directory and says which files they are.
    ///
    /// The settings of the training are in the checkpoint: see [`Checkpoint::setting`]. Of `settings`, the number of
    /// epochs, the size of a minibatch and the learning rate are the model's defaults and mean nothing, nor does the
    /// source of examples unless [`Sampler::begins_at_examples`].
    ///
    /// # Errors
    ///
    /// A checkpoint that lacks something, data that cannot be read, a failed call, files that cannot be written.
    fn sample(
        self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError>;
}

/// How samples are drawn from a trained model.
pub struct Sampler {
    /// One line for the help.
    pub about: &'static str,
    /// Whether samples begin at examples such as the model learns from, so that there are options for these.
    pub begins_at_examples: bool,
    add_options: fn(Command) -> Command,
    sample: SampleFn,
}

type SampleFn = fn(&Checkpoint, &Settings, &ArgMatches, &Path) -> Result<Vec<PathBuf>, TrainError>;

impl Sampler {
    /// By these options.
    pub(crate) const fn of<O: SamplingOptions>(about: &'static str, begins_at_examples: bool) -> Self {
        Self {
            about,
            begins_at_examples,
            add_options: O::augment_args,
            sample: |checkpoint, settings, matches, directory| {
                parsed::<O>(matches)?.sample(checkpoint, settings, directory)
            },
        }
    }

    /// Adds the options that it has.
    #[must_use]
    pub fn add_options(&self, command: Command) -> Command {
        (self.add_options)(command)
    }

    /// See [`SamplingOptions::sample`]; `matches` are the values of what [`Sampler::add_options`] added.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn sample(
        &self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        matches: &ArgMatches,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError> {
        (self.sample)(checkpoint, settings, matches, directory)
    }
}

fn parsed<O: Args>(matches: &ArgMatches) -> Result<O, TrainError> {
    O::from_arg_matches(matches).map_err(|error| TrainError::Usage(error.to_string()))
}

/// What a model learns from, in words for the command line.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Examples {
    /// What `--data` takes.
    pub data: &'static str,
    /// The option for how many to generate instead, without its dashes: what they are, in the plural.
    pub generated: &'static str,
    /// What a number of them means.
    pub generated_help: &'static str,
    /// How many are generated by default.
    pub generated_default: u32,
    /// The fewest and the most that can be generated.
    pub generated_range: (u32, u32),
}

impl Examples {
    /// Images of digits with labels; a fifth as many as for training are made for validation and for the test each.
    pub const DIGITS: Examples = Examples {
        data: "mnist.pkl.gz, or a directory with it or with the four MNIST idx files",
        generated: "digits",
        generated_help: "Without --data: digits to generate for training, and a fifth of that for validation and for \
                         the test each; 50000 gives the sizes of MNIST",
        generated_default: 10_000,
        // More would fill the memory of a small machine.
        generated_range: (5, 200_000),
    };
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

/// Where examples come from. What kind of examples they are is the model's affair: see [`Model::examples`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Source {
    /// A file or directory of real data, as it was given.
    Path(PathBuf),
    /// Generated ones, so many to learn from.
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
    /// A function with the threads and the device of the run.
    #[must_use]
    pub fn builder(&self) -> Builder {
        let builder = Builder::new().device(self.device);
        match self.threads {
            Some(threads) => builder.threads(threads),
            None => builder,
        }
    }

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
    /// All settings of a run in the order in which they are shown: of the data, those that every run has, and the
    /// model's own, all of which decide about the numbers.
    #[must_use]
    pub fn list(data: Vec<Setting>, settings: &Settings, own: Vec<(&'static str, Value)>) -> Vec<Setting> {
        let common = [
            Setting::free("epochs", settings.epochs),
            Setting::decisive("batch_size", settings.batch_size),
            Setting::decisive("learning_rate", settings.learning_rate),
            Setting::decisive("seed", settings.seed),
        ];
        let own = own.into_iter().map(|(name, value)| Setting::decisive(name, value));
        data.into_iter().chain(common).chain(own).collect()
    }

    /// A setting on which the numbers depend.
    pub fn decisive(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into(), decisive: true }
    }

    /// A setting that leaves the numbers as they are.
    pub fn free(name: &'static str, value: impl Into<Value>) -> Self {
        Self { name, value: value.into(), decisive: false }
    }
}

/// Reads a weight of a penalty from the command line.
pub(crate) fn parse_penalty(text: &str) -> Result<f64, String> {
    number_in(text, "a finite number from 0", |x| x >= 0.0)
}

/// Reads a learning rate from the command line.
pub(crate) fn parse_learning_rate(text: &str) -> Result<f64, String> {
    number_in(text, "a finite number above 0", |x| x > 0.0)
}

/// Reads a number that is accepted; the message says what was expected.
pub(crate) fn number_in(text: &str, expected: &str, accepts: impl Fn(f64) -> bool) -> Result<f64, String> {
    let number = text.parse().ok().filter(|x: &f64| x.is_finite() && accepts(*x));
    number.ok_or_else(|| format!("expected {expected}"))
}
