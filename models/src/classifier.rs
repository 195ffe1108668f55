//! Minibatch gradient descent with early stopping, for every classifier of images.
//!
//! The data are resident in shared variables, and a minibatch is chosen by its index, so a step moves nothing but that
//! number. Errors are counted, not averaged, so that they are exact. A set is cut into whole minibatches and the rest of
//! it is left out, as in the tutorials: 10,000 validation images in minibatches of 600 are 9,600.

use std::path::{Path, PathBuf};

use hypatia::{Array, Builder, DType, Function, Shared, Tensor, grad, ix, matrix, scalar, shared, vector};
use serde_json::Value;

use crate::checkpoint::{Checkpoint, Dtype, SavedTensor};
use crate::data::{Dataset, IMAGE_PIXELS, IMAGE_SIDE, LabelledImages};
use crate::early_stopping::{EarlyStopping, Patience, Verdict};
use crate::log::{Done, Epoch};
use crate::model::{Position, Setting, Settings, Step, TrainError, Training, saved_number};
use crate::picture::{Tiling, tile_raster_images};

/// The images `f32[n, IMAGE_PIXELS]` and the labels `i32[n]` of a minibatch, to build a classifier on.
#[must_use]
#[track_caller]
pub fn minibatch_inputs() -> (Tensor, Tensor) {
    (matrix::<f32>("x"), vector::<i32>("y"))
}

/// A parameter of a model and its name in checkpoints.
#[derive(Clone, Debug)]
pub struct Parameter {
    name: &'static str,
    shared: Shared,
}

impl Parameter {
    /// A parameter.
    #[must_use]
    pub fn new(name: &'static str, shared: &Shared) -> Self {
        Self { name, shared: shared.clone() }
    }
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
    /// What is learnt; the first one holds the weights of the pixels, `f32[IMAGE_PIXELS, units]`.
    pub parameters: Vec<Parameter>,
    /// When to stop.
    pub patience: Patience,
    /// The model's own settings, all of which decide about the numbers.
    pub options: Vec<(&'static str, Value)>,
}

/// Images and labels where functions find them.
struct Resident {
    images: Shared,
    labels: Shared,
    batches: u64,
    batch_size: usize,
}

impl Resident {
    /// The data are dropped once they are copied.
    fn new(name: &str, set: LabelledImages, batch_size: usize) -> Result<Self, TrainError> {
        let (count, (pixels, labels)) = (set.len(), set.into_parts());
        if batch_size == 0 || batch_size > count {
            return Err(TrainError::Usage(format!(
                "--batch-size: expected 1 to {count}, the number of {name} images, found {batch_size}"
            )));
        }
        Ok(Self {
            images: shared(&format!("{name}_x"), Array::new(&[count, IMAGE_PIXELS], &pixels)),
            labels: shared(&format!("{name}_y"), Array::vector(&labels)),
            batches: (count / batch_size) as u64,
            batch_size,
        })
    }

    /// The rows of minibatch `index` of images and labels.
    fn minibatch(&self, index: &Tensor) -> (Tensor, Tensor) {
        let size = self.batch_size as i64;
        let rows = |set: &Shared| set.index(ix![index * size..(index + 1) * size]);
        (rows(&self.images), rows(&self.labels))
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
    /// Compiles the functions of a classifier.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a minibatch larger than a set, an expression that makes no function.
    pub fn new(classifier: Classifier, settings: &Settings) -> Result<Self, TrainError> {
        let data = settings.labelled_images()?;
        let listed = list_settings(&classifier, settings, &data);
        let Dataset { train, valid, test, .. } = data;
        let size = settings.batch_size;
        let train = Resident::new("training", train, size)?;
        let valid = Resident::new("validation", valid, size)?;
        let test = Resident::new("test", test, size)?;
        let index = scalar::<i64>("index");
        let builder = |set: &Resident| {
            let (x, y) = set.minibatch(&index);
            let builder = Builder::new().inputs(&[&index]).given(&classifier.x, x).given(&classifier.y, y);
            let builder = builder.device(settings.device);
            match settings.threads {
                Some(threads) => builder.threads(threads),
                None => builder,
            }
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
            train: builder(&train).outputs(&[&classifier.cost]).updates(&updates).compile()?,
            valid: count_errors(&valid)?,
            test: count_errors(&test)?,
            batches: [train.batches, valid.batches, test.batches],
            index: Array::scalar(0_i64),
            parameters: classifier.parameters,
            best: None,
            stopping: EarlyStopping::new(classifier.patience, train.batches),
            position: Position::default(),
            current: Current::default(),
            settings: listed,
            epochs: settings.epochs,
            batch_size: size,
            learning_rate: settings.learning_rate,
        })
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
        wrong += count.call(&[index])?.scalar(0);
    }
    Ok(wrong / (batches as f64 * batch_size as f64))
}

fn set_index(index: &mut Array, batch: u64) {
    if let Some([value]) = index.as_mut_slice::<i64>() {
        *value = batch as i64;
    }
}

fn list_settings(classifier: &Classifier, settings: &Settings, data: &Dataset) -> Vec<Setting> {
    let sizes = data.sizes();
    let mut listed = vec![
        Setting::free("data", data.origin.as_str()),
        Setting::decisive("train_images", sizes.train),
        Setting::decisive("valid_images", sizes.valid),
        Setting::decisive("test_images", sizes.test),
        Setting::decisive("data_crc32", format!("{:08x}", data.checksum())),
        Setting::free("epochs", settings.epochs),
        Setting::decisive("batch_size", settings.batch_size),
        Setting::decisive("learning_rate", settings.learning_rate),
        Setting::decisive("seed", settings.seed),
    ];
    listed.extend(classifier.options.iter().map(|(name, value)| Setting::decisive(name, value.clone())));
    listed
}

impl Training for ClassifierTraining {
    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
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
            return Ok(Step::Done(Done { best_valid_error: best, test_error, seconds: 0.0 }));
        }
        let iteration = self.iterations();
        set_index(&mut self.index, self.position.batches);
        let cost = self.train.call(&[&self.index])?.scalar(0);
        if cost.is_nan() {
            return Err(TrainError::Diverged {
                epoch: self.position.epochs + 1,
                batch: self.position.batches + 1,
                learning_rate: self.learning_rate,
            });
        }
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
            seconds: 0.0,
        }))
    }

    fn best_epoch(&self) -> Option<u64> {
        self.best.as_ref().map(|_| self.stopping.best_iteration() / self.batches[0] + 1)
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        for (number, parameter) in self.parameters.iter().enumerate() {
            let value = parameter.shared.get_value()?;
            checkpoint.tensors.insert(parameter.name.to_owned(), to_saved(&value));
            if let Some(best) = self.best.as_ref().and_then(|best| best.get(number)) {
                checkpoint.tensors.insert(best_name(parameter), to_saved(best));
            }
        }
        let metadata = &mut checkpoint.metadata;
        metadata.append(&mut self.stopping.to_metadata());
        metadata.insert(EPOCHS.to_owned(), self.position.epochs.to_string());
        metadata.insert(BATCHES.to_owned(), self.position.batches.to_string());
        metadata.insert(COST_SUM.to_owned(), self.current.cost_sum.to_string());
        let errors = [(VALID_ERROR, self.current.valid_error), (TEST_ERROR, self.current.test_error)];
        for (name, value) in errors {
            metadata.extend(value.map(|value| (name.to_owned(), value.to_string())));
        }
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let optional = |name: &str| {
            checkpoint.metadata.contains_key(name).then(|| saved_number(checkpoint, name)).transpose()
        };
        let current = Current {
            cost_sum: saved_number(checkpoint, COST_SUM)?,
            valid_error: optional(VALID_ERROR)?,
            test_error: optional(TEST_ERROR)?,
        };
        let position = Position {
            epochs: saved_number(checkpoint, EPOCHS)?,
            batches: saved_number(checkpoint, BATCHES)?,
        };
        let iterations = position.epochs.checked_mul(self.batches[0]);
        if position.batches >= self.batches[0] || iterations.is_none_or(|n| n > u64::MAX / 4) {
            return Err(TrainError::State {
                path: checkpoint.path().to_owned(),
                reason: format!(
                    "expected a position within epochs of {} minibatches, found epoch {}, minibatch {}",
                    self.batches[0], position.epochs, position.batches
                ),
            });
        }
        let mut stopping = self.stopping.clone();
        stopping.restore(&checkpoint.metadata).map_err(|error| TrainError::State {
            path: checkpoint.path().to_owned(),
            reason: error.to_string(),
        })?;
        // A best model is there from the first validation on.
        let has_best = stopping.best_valid_error().is_finite();
        let mut names: Vec<String> = self.parameters.iter().map(|p| p.name.to_owned()).collect();
        if has_best {
            names.extend(self.parameters.iter().map(best_name));
        }
        checkpoint.expect_only(names.iter().map(String::as_str))?;
        let mut values = names.iter().enumerate().map(|(number, name)| {
            let parameter = &self.parameters[number % self.parameters.len()];
            let shape: Vec<usize> = parameter.shared.ty().shape.iter().filter_map(|e| e.known()).collect();
            Ok(from_saved(checkpoint.tensor(name, Dtype::F32, &shape)?))
        });
        let present: Vec<Array> =
            values.by_ref().take(self.parameters.len()).collect::<Result<_, TrainError>>()?;
        let best: Vec<Array> = values.collect::<Result<_, TrainError>>()?;
        for (parameter, value) in self.parameters.iter().zip(present) {
            parameter.shared.set_value(value)?;
        }
        self.best = has_best.then_some(best);
        self.stopping = stopping;
        self.position = position;
        self.current = current;
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
        vec![("train", &self.train), ("validate", &self.valid), ("test", &self.test)]
    }
}

const EPOCHS: &str = "position.epochs";
const BATCHES: &str = "position.batches";
const COST_SUM: &str = "epoch.cost_sum";
const VALID_ERROR: &str = "epoch.valid_error";
const TEST_ERROR: &str = "epoch.test_error";

fn best_name(parameter: &Parameter) -> String {
    format!("best.{}", parameter.name)
}

fn to_saved(value: &Array) -> SavedTensor {
    SavedTensor::from_f32(value.shape(), value.as_slice::<f32>().unwrap_or(&[]))
}

fn from_saved(tensor: &SavedTensor) -> Array {
    Array::new(&tensor.shape, &tensor.to_f32().unwrap_or_default())
}

/// Writes the weights `f32[IMAGE_PIXELS, units]` of each unit as a tile of one picture.
fn write_filters(path: &Path, weights: &Array) -> Result<(), TrainError> {
    let values = weights.cast(DType::F32).to_vec::<f32>().unwrap_or_default();
    let units = values.len() / IMAGE_PIXELS;
    let transposed: Vec<f32> =
        (0..values.len()).map(|i| values[i % IMAGE_PIXELS * units + i / IMAGE_PIXELS]).collect();
    let tiling = Tiling {
        image_shape: (IMAGE_SIDE, IMAGE_SIDE),
        tile_shape: tile_shape(units),
        tile_spacing: (1, 1),
        scale_rows_to_unit_interval: true,
    };
    Ok(tile_raster_images(&transposed, &tiling)?.write_png(path)?)
}

/// Rows and columns for so many tiles: a full rectangle where there is one that is not too long.
fn tile_shape(count: usize) -> (usize, usize) {
    let side = count.isqrt().max(1);
    let rows = (side / 2 + 1..=side).rev().find(|rows| count.is_multiple_of(*rows)).unwrap_or(side);
    (rows, count.div_ceil(rows).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_fill_a_rectangle_where_they_can() {
        let shapes = [1, 2, 7, 10, 100, 500, 1000].map(tile_shape);
        assert_eq!(shapes, [(1, 1), (1, 2), (2, 4), (2, 5), (10, 10), (20, 25), (25, 40)]);
    }
}
