//! Minibatch gradient descent with early stopping, for every classifier of images.
//!
//! The data are resident ([`crate::resident`]). Errors are counted, not averaged, so that they are exact. A model that
//! was trained in other ways before is fine-tuned by the same steps: it makes its sets and shares them.

use std::path::{Path, PathBuf};

use hypatia::{Array, CallError, Function, Tensor, grad, matrix, scalar, vector};
use hypatia_datasets::Dataset;
use hypatia_models::descent::Descent;
use hypatia_models::early_stopping::{EarlyStopping, Patience, Verdict};
use hypatia_models::parameter::Parameter;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::filters::write_filters;
use crate::log::{Done, Epoch};
use crate::model::{Setting, Settings};
use crate::resident::{Resident, borrowed, index_of};
use crate::training::{Learner, Measure, Position, Stage};

/// The images `f32[n, 784]` and the labels `i32[n]` of a minibatch, to build a classifier on.
#[must_use]
#[track_caller]
pub fn minibatch_inputs() -> (Tensor, Tensor) {
    (matrix::<f32>("x"), vector::<i32>("y"))
}

/// A classifier as formulas of a minibatch.
#[derive(Clone, Debug)]
pub struct Classifier {
    /// The images: see [`minibatch_inputs`].
    pub x: Tensor,
    /// The labels.
    pub y: Tensor,
    /// What is made small, a scalar.
    pub cost: Tensor,
    /// How many of the minibatch are classified wrongly, an `i64` scalar.
    pub misclassified: Tensor,
    /// What is learnt; the first one holds the weights of the pixels, `f32[784, units]`, or filters, `f32[units, 1, ..]`.
    pub parameters: Vec<Parameter>,
    /// When to stop.
    pub patience: Patience,
}

impl Classifier {
    /// The stage that trains it on such sets.
    ///
    /// # Errors
    ///
    /// An expression that makes no function.
    pub fn stage(self, settings: &Settings, sets: &Sets) -> Result<Stage, TrainError> {
        let index = scalar::<i64>("index");
        let builder = |set: &Resident| {
            let (x, y) = set.minibatch(&index);
            settings.builder().inputs(&[&index]).given(&self.x, x).given(&self.y, y)
        };
        let gradients = grad(&self.cost, self.parameters.iter().map(|parameter| &parameter.shared));
        let (updates, _) = Descent::sgd(settings.learning_rate).updates(&self.parameters, gradients);
        let counter = |set| ErrorCounter::new(settings, set, [&self.x, &self.y], &self.misclassified);
        let learner = ClassifierLearner {
            train: builder(&sets.train).outputs(&[&self.cost]).updates(&borrowed(&updates)).compile()?,
            valid: counter(&sets.valid)?,
            test: counter(&sets.test)?,
            batches: sets.train.batches,
            parameters: self.parameters.clone(),
            best: None,
            stopping: EarlyStopping::new(self.patience, sets.train.batches),
            valid_error: None,
            test_error: None,
        };
        let rate = settings.learning_rate;
        Ok(Stage::new(learner, Measure::Cost, settings.epochs, rate, self.parameters))
    }
}

/// The three sets of a training run, resident.
#[derive(Clone, Debug)]
pub struct Sets {
    /// Images to learn from.
    pub train: Resident,
    /// Images that decide when to stop.
    pub valid: Resident,
    /// Images that tell how good the result is.
    pub test: Resident,
    /// What is known of them, for the log.
    pub settings: Vec<Setting>,
}

impl Sets {
    /// The sets of a run, in minibatches of its size.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a minibatch larger than a set.
    pub fn new(settings: &Settings) -> Result<Self, TrainError> {
        let data = settings.labelled_images()?;
        let listed = vec![
            Setting::free("data", data.origin.as_str()),
            Setting::decisive("train_images", data.train.len()),
            Setting::decisive("valid_images", data.valid.len()),
            Setting::decisive("test_images", data.test.len()),
            Setting::decisive("data_crc32", format!("{:08x}", data.checksum())),
        ];
        let Dataset { train, valid, test, .. } = data;
        let size = settings.batch_size;
        Ok(Self {
            train: Resident::new("training", train, size)?,
            valid: Resident::new("validation", valid, size)?,
            test: Resident::new("test", test, size)?,
            settings: listed,
        })
    }
}

/// Counts errors on a set.
pub(super) struct ErrorCounter {
    function: Function,
    batches: u64,
    batch_size: usize,
}

impl ErrorCounter {
    /// Of a set in minibatches, of which `inputs` are images and labels and `misclassified` says how many are wrong.
    pub(super) fn new(
        settings: &Settings,
        set: &Resident,
        inputs: [&Tensor; 2],
        misclassified: &Tensor,
    ) -> Result<Self, TrainError> {
        let index = scalar::<i64>("index");
        let (x, y) = set.minibatch(&index);
        let builder = settings.builder().inputs(&[&index]).given(inputs[0], x).given(inputs[1], y);
        let function = builder.outputs(&[misclassified]).compile()?;
        Ok(Self { function, batches: set.batches, batch_size: set.batch_size() })
    }

    /// The compiled count.
    pub(super) fn function(&self) -> &Function {
        &self.function
    }

    /// The fraction of the set that is classified wrongly.
    pub(super) fn error(&mut self) -> Result<f64, CallError> {
        let mut wrong = 0.0;
        for batch in 0..self.batches {
            wrong += self.function.call(&[&index_of(batch)])?.scalar(0)?;
        }
        Ok(wrong / (self.batches as f64 * self.batch_size as f64))
    }
}

/// A [`Classifier`] being trained.
struct ClassifierLearner {
    train: Function,
    valid: ErrorCounter,
    test: ErrorCounter,
    batches: u64,
    parameters: Vec<Parameter>,
    /// Values of the parameters at the best validation error.
    best: Option<Vec<Array>>,
    stopping: EarlyStopping,
    /// Errors measured in the present epoch.
    valid_error: Option<f64>,
    test_error: Option<f64>,
}

impl ClassifierLearner {
    /// Minibatches learnt from before a position.
    fn iterations(&self, at: Position) -> u64 {
        at.epochs * self.batches + at.batches
    }

    /// Measures the errors that are due after the minibatch of that number.
    fn validate(&mut self, iteration: u64) -> Result<(), TrainError> {
        let valid_error = self.valid.error()?;
        self.valid_error = Some(valid_error);
        if self.stopping.record_validation(iteration, valid_error) == Verdict::Best {
            let test_error = self.test.error()?;
            self.stopping.record_test(test_error);
            self.test_error = Some(test_error);
            let values: Result<_, _> = self.parameters.iter().map(|p| p.shared.get_value()).collect();
            self.best = Some(values?);
        }
        Ok(())
    }
}

impl Learner for ClassifierLearner {
    fn batches(&self) -> u64 {
        self.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let cost = self.train.call(&[&index_of(at.batches)])?.scalar(0)?;
        let iteration = self.iterations(at);
        if self.stopping.validation_is_due(iteration) {
            self.validate(iteration)?;
        }
        Ok(cost)
    }

    fn report(&mut self, _epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        (results.valid_error, results.test_error) = (self.valid_error.take(), self.test_error.take());
        Ok(())
    }

    fn has_enough(&self, at: Position) -> bool {
        self.iterations(at).checked_sub(1).is_some_and(|last| self.stopping.is_exhausted(last))
    }

    fn finish(&self, results: &mut Done) -> Result<(), TrainError> {
        results.best_valid_error = Some(self.stopping.best_valid_error()).filter(|error| error.is_finite());
        results.test_error = self.stopping.test_error();
        Ok(())
    }

    fn best_epoch(&self) -> Option<u64> {
        self.best.as_ref().map(|_| self.stopping.best_iteration() / self.batches + 1)
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        for (parameter, best) in self.parameters.iter().zip(self.best.iter().flatten()) {
            checkpoint.save_array(&best_name(parameter), best);
        }
        checkpoint.metadata.append(&mut self.stopping.to_metadata());
        for (name, error) in [(VALID_ERROR, self.valid_error), (TEST_ERROR, self.test_error)] {
            if let Some(error) = error {
                checkpoint.save_number(name, error);
            }
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.stopping.restore(&checkpoint.metadata).map_err(|error| checkpoint.fault(error.to_string()))?;
        self.valid_error = checkpoint.optional_float(VALID_ERROR)?;
        self.test_error = checkpoint.optional_float(TEST_ERROR)?;
        // A best model is there from the first validation on.
        let has_best = self.stopping.best_valid_error().is_finite();
        let best = self.parameters.iter().map(|p| checkpoint.array(&best_name(p), &p.shared));
        self.best = has_best.then(|| best.collect::<Result<_, _>>()).transpose()?;
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let Some(first) = self.parameters.first() else { return Ok(Vec::new()) };
        let weights = match self.best.as_ref().and_then(|best| best.first()) {
            Some(best) => best.clone(),
            None => first.shared.get_value()?,
        };
        let path = directory.join("filters.png");
        write_filters(&path, &weights)?;
        Ok(vec![path])
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train), ("validate", &self.valid.function), ("test", &self.test.function)]
    }
}

const VALID_ERROR: &str = "epoch.valid_error";
const TEST_ERROR: &str = "epoch.test_error";

fn best_name(parameter: &Parameter) -> String {
    format!("best.{}", parameter.name)
}
