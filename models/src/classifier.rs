//! Minibatch gradient descent with early stopping, for every classifier of images.
//!
//! The data are resident ([`crate::resident`]). Errors are counted, not averaged, so that they are exact. A model that
//! was trained in other ways before is fine-tuned by the same steps: it makes its sets and shares them.

use std::path::{Path, PathBuf};

use hypatia::{Array, Function, Shared, Tensor, grad, matrix, scalar, vector};
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::data::Dataset;
use crate::early_stopping::{EarlyStopping, Patience, Verdict};
use crate::filters::write_filters;
use crate::log::{Done, Epoch};
use crate::model::{POSITION, Position, Setting, Settings, Step, TrainError, Training, saved_float};
use crate::resident::{Resident, set_index};
use crate::state::{Parameter, to_saved};

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
    /// What is learnt; the first one holds the weights of the pixels, `f32[784, units]`.
    pub parameters: Vec<Parameter>,
    /// When to stop.
    pub patience: Patience,
    /// The model's own settings, all of which decide about the numbers.
    pub options: Vec<(&'static str, Value)>,
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

/// A [`Classifier`] being trained.
pub struct ClassifierTraining {
    train: Function,
    valid: Function,
    test: Function,
    batches: [u64; 3],
    /// The argument of the functions, written in place.
    index: Array,
    parameters: Vec<Parameter>,
    /// Values of the parameters at the best validation error.
    best: Option<Vec<Array>>,
    stopping: EarlyStopping,
    position: Position,
    /// Results of the present epoch.
    current: Current,
    settings: Vec<Setting>,
    epochs: u64,
    batch_size: usize,
    learning_rate: f64,
}

#[derive(Clone, Copy, Default)]
struct Current {
    cost_sum: f64,
    valid_error: Option<f64>,
    test_error: Option<f64>,
}

impl ClassifierTraining {
    /// Compiles the functions of a classifier on the data of a run.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a minibatch larger than a set, an expression that makes no function.
    pub fn new(classifier: Classifier, settings: &Settings) -> Result<Self, TrainError> {
        let sets = Sets::new(settings)?;
        Self::on_sets(classifier, settings, &sets)
    }

    /// Compiles the functions of a classifier on sets that are there already.
    ///
    /// # Errors
    ///
    /// An expression that makes no function.
    pub fn on_sets(classifier: Classifier, settings: &Settings, sets: &Sets) -> Result<Self, TrainError> {
        let listed = list_settings(&classifier, settings, sets);
        let Sets { train, valid, test, .. } = sets;
        let index = scalar::<i64>("index");
        let builder = |set: &Resident| {
            let (x, y) = set.minibatch(&index);
            settings.builder().inputs(&[&index]).given(&classifier.x, x).given(&classifier.y, y)
        };
        let gradients = grad(&classifier.cost, classifier.parameters.iter().map(|p| &p.shared));
        let updates: Vec<(&Shared, Tensor)> = classifier
            .parameters
            .iter()
            .zip(gradients)
            .map(|(p, gradient)| (&p.shared, &p.shared - gradient * settings.learning_rate))
            .collect();
        let count_errors = |set: &Resident| builder(set).outputs(&[&classifier.misclassified]).compile();
        Ok(Self {
            train: builder(train).outputs(&[&classifier.cost]).updates(&updates).compile()?,
            valid: count_errors(valid)?,
            test: count_errors(test)?,
            batches: [train.batches, valid.batches, test.batches],
            index: Array::scalar(0_i64),
            parameters: classifier.parameters,
            best: None,
            stopping: EarlyStopping::new(classifier.patience, train.batches),
            position: Position::default(),
            current: Current::default(),
            settings: listed,
            epochs: settings.epochs,
            batch_size: settings.batch_size,
            learning_rate: settings.learning_rate,
        })
    }

    /// As [`Training::restore`], from a checkpoint that has these other tensors as well.
    pub(crate) fn restore_beside(
        &mut self,
        checkpoint: &Checkpoint,
        others: &[&str],
    ) -> Result<(), TrainError> {
        let optional = |name: &str| {
            checkpoint.metadata.contains_key(name).then(|| saved_float(checkpoint, name)).transpose()
        };
        let current = Current {
            cost_sum: saved_float(checkpoint, COST_SUM)?,
            valid_error: optional(VALID_ERROR)?,
            test_error: optional(TEST_ERROR)?,
        };
        let position = Position::saved(POSITION, checkpoint, self.batches[0])?;
        let mut stopping = self.stopping.clone();
        stopping.restore(&checkpoint.metadata).map_err(|error| TrainError::State {
            path: checkpoint.path().to_owned(),
            reason: error.to_string(),
        })?;
        // A best model is there from the first validation on.
        let has_best = stopping.best_valid_error().is_finite();
        let mut names: Vec<String> = self.parameters.iter().map(|p| p.name.clone()).collect();
        if has_best {
            names.extend(self.parameters.iter().map(best_name));
        }
        let names = names.iter().map(String::as_str);
        checkpoint.expect_only(names.chain(others.iter().copied()))?;
        let present: Vec<Array> =
            self.parameters.iter().map(|p| p.saved(checkpoint)).collect::<Result<_, _>>()?;
        let best = self.parameters.iter().map(|p| p.saved_as(&best_name(p), checkpoint));
        let best: Option<Vec<Array>> = has_best.then(|| best.collect::<Result<_, _>>()).transpose()?;
        for (parameter, value) in self.parameters.iter().zip(present) {
            parameter.shared.set_value(value)?;
        }
        self.best = best;
        self.stopping = stopping;
        self.position = position;
        self.current = current;
        Ok(())
    }

    /// Minibatches learnt from since the beginning.
    fn iterations(&self) -> u64 {
        self.position.epochs * self.batches[0] + self.position.batches
    }

    fn is_finished(&self) -> bool {
        let exhausted = |last| self.stopping.is_exhausted(last);
        self.position.epochs >= self.epochs || self.iterations().checked_sub(1).is_some_and(exhausted)
    }

    /// Measures the errors that are due after the minibatch of that number.
    fn validate(&mut self, iteration: u64) -> Result<(), TrainError> {
        let [_, valid, test] = self.batches;
        let valid_error = error(&mut self.valid, &mut self.index, valid, self.batch_size)?;
        self.current.valid_error = Some(valid_error);
        if self.stopping.record_validation(iteration, valid_error) == Verdict::Best {
            let test_error = error(&mut self.test, &mut self.index, test, self.batch_size)?;
            self.stopping.record_test(test_error);
            self.current.test_error = Some(test_error);
            let values: Result<_, _> = self.parameters.iter().map(|p| p.shared.get_value()).collect();
            self.best = Some(values?);
        }
        Ok(())
    }
}

/// The fraction that a function which counts errors finds in so many minibatches.
fn error(
    count: &mut Function,
    index: &mut Array,
    batches: u64,
    batch_size: usize,
) -> Result<f64, TrainError> {
    let mut wrong = 0.0;
    for batch in 0..batches {
        set_index(index, batch);
        wrong += count.call(&[index])?.scalar(0)?;
    }
    Ok(wrong / (batches as f64 * batch_size as f64))
}

fn list_settings(classifier: &Classifier, settings: &Settings, sets: &Sets) -> Vec<Setting> {
    let mut listed = sets.settings.clone();
    listed.extend([
        Setting::free("epochs", settings.epochs),
        Setting::decisive("batch_size", settings.batch_size),
        Setting::decisive("learning_rate", settings.learning_rate),
        Setting::decisive("seed", settings.seed),
    ]);
    listed.extend(classifier.options.iter().map(|(name, value)| Setting::decisive(name, value.clone())));
    listed
}

impl Training for ClassifierTraining {
    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn epochs(&self) -> u64 {
        self.epochs
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches[0]
    }

    fn position(&self) -> Position {
        self.position
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        if self.is_finished() {
            let best = Some(self.stopping.best_valid_error()).filter(|error| error.is_finite());
            let test_error = self.stopping.test_error();
            return Ok(Step::Done(Done { best_valid_error: best, test_error, ..Done::default() }));
        }
        let iteration = self.iterations();
        set_index(&mut self.index, self.position.batches);
        let cost = self.train.call(&[&self.index])?.scalar(0)?;
        self.position.expect_number("training cost", cost, self.learning_rate)?;
        self.current.cost_sum += cost;
        self.position.batches += 1;
        if self.stopping.validation_is_due(iteration) {
            self.validate(iteration)?;
        }
        if self.position.batches < self.batches[0] {
            return Ok(Step::Batch);
        }
        self.position = Position { epochs: self.position.epochs + 1, batches: 0 };
        let current = std::mem::take(&mut self.current);
        Ok(Step::Epoch(Epoch {
            epoch: self.position.epochs,
            train_cost: Some(current.cost_sum / self.batches[0] as f64),
            valid_error: current.valid_error,
            test_error: current.test_error,
            ..Epoch::default()
        }))
    }

    fn best_epoch(&self) -> Option<u64> {
        self.best.as_ref().map(|_| self.stopping.best_iteration() / self.batches[0] + 1)
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        for (number, parameter) in self.parameters.iter().enumerate() {
            parameter.save(checkpoint)?;
            if let Some(best) = self.best.as_ref().and_then(|best| best.get(number)) {
                checkpoint.tensors.insert(best_name(parameter), to_saved(best));
            }
        }
        let metadata = &mut checkpoint.metadata;
        metadata.append(&mut self.stopping.to_metadata());
        metadata.insert(COST_SUM.to_owned(), self.current.cost_sum.to_string());
        let errors = [(VALID_ERROR, self.current.valid_error), (TEST_ERROR, self.current.test_error)];
        for (name, value) in errors {
            metadata.extend(value.map(|value| (name.to_owned(), value.to_string())));
        }
        self.position.save(POSITION, checkpoint);
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.restore_beside(checkpoint, &[])
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
        vec![("train", &self.train), ("validate", &self.valid), ("test", &self.test)]
    }
}

const COST_SUM: &str = "epoch.cost_sum";
const VALID_ERROR: &str = "epoch.valid_error";
const TEST_ERROR: &str = "epoch.test_error";

fn best_name(parameter: &Parameter) -> String {
    format!("best.{}", parameter.name)
}
