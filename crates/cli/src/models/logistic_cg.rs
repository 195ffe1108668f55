//! `logistic-cg`: the tutorial's `cg_optimization_mnist`, logistic regression by conjugate gradients.
//!
//! An epoch is an iteration: a line search on the mean cost of all images, one compiled function for cost and gradient.

use clap::Args;
use hypatia::{Array, DType, Function, Shared, Tensor, grad, ix};
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::conjugate_gradients::{ConjugateGradients, Evaluation};
use hypatia_models::logistic_regression::LogisticRegression;
use hypatia_models::parameter::Parameter;

use super::best::Best;
use super::classifier::{ErrorCounter, Sets, minibatch_inputs};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::log::{Done, Epoch};
use crate::model::{Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions};
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "logistic-cg",
    about: "Logistic regression by conjugate gradients on all images at once; the rate bounds the first trial of a step",
    defaults: Defaults { epochs: 50, batch_size: 600, learning_rate: 1.0, seed: 1234 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let model = LogisticRegression::new(&x, IMAGE_PIXELS, CLASSES);
        let parameters = Parameter::list(&["W", "b"], model.params());
        let cost = model.negative_log_likelihood(&y);
        let gradients = grad(&cost, model.params());
        // Whole minibatches, as for validation and test.
        let images = sets.train.batches as i64 * settings.batch_size as i64;
        let all = |set: &Shared| set.index(ix![0..images]);
        let outputs: Vec<&Tensor> = [&cost].into_iter().chain(&gradients).collect();
        let function = settings
            .builder()
            .given(&x, all(&sets.train.images))
            .given(&y, all(&sets.train.labels))
            .outputs(&outputs)
            .compile()?;
        let counter = |set| ErrorCounter::new(settings, set, [&x, &y], &model.misclassified(&y));
        let mut objective = Objective { function, parameters: parameters.clone() };
        let start = vec![0.0; parameters.iter().map(|p| size(&p.shared)).sum()];
        let evaluation = objective.at(&start)?;
        let learner = LogisticCgLearner {
            minimiser: ConjugateGradients::new(start, evaluation),
            objective,
            longest_trial: settings.learning_rate,
            valid: counter(&sets.valid)?,
            test: counter(&sets.test)?,
            best: Best::new(&parameters),
            best_errors: [f64::INFINITY; 2],
            best_epoch: 0,
            measured: [None; 2],
            is_over: false,
        };
        let stage = Stage::new(learner, Measure::Cost, settings.epochs, settings.learning_rate, parameters);
        Ok(Training::new(Setting::list(sets.settings, settings, Vec::new()), stage))
    }
}

fn size(variable: &Shared) -> usize {
    hypatia_models::parameter::extents(variable).iter().product()
}

/// The cost as a function of all parameters one after another.
struct Objective {
    function: Function,
    parameters: Vec<Parameter>,
}

impl Objective {
    fn set(&self, point: &[f64]) -> Result<(), TrainError> {
        let mut rest = point;
        for parameter in &self.parameters {
            let (own, others) = rest.split_at(size(&parameter.shared));
            let values: Vec<f32> = own.iter().map(|x| *x as f32).collect();
            let extents = hypatia_models::parameter::extents(&parameter.shared);
            parameter.shared.set_value(Array::new(&extents, &values))?;
            rest = others;
        }
        Ok(())
    }

    fn at(&mut self, point: &[f64]) -> Result<Evaluation, TrainError> {
        self.set(point)?;
        let found = self.function.call(&[])?;
        let mut gradient = Vec::with_capacity(point.len());
        for number in 1..=self.parameters.len() {
            gradient.extend(floats(found.array(number))?.iter().map(|g| f64::from(*g)));
        }
        Ok(Evaluation { cost: found.scalar(0)?, gradient })
    }
}

/// A [`LogisticRegression`] being trained on all images at once.
struct LogisticCgLearner {
    objective: Objective,
    minimiser: ConjugateGradients,
    /// The longest first trial of a line search.
    longest_trial: f64,
    valid: ErrorCounter,
    test: ErrorCounter,
    best: Best,
    /// Validation and test error at the best validation.
    best_errors: [f64; 2],
    /// The best epoch so far, from 1; 0 before there is one.
    best_epoch: u64,
    /// Validation and test error measured in the present epoch.
    measured: [Option<f64>; 2],
    /// No better point was found.
    is_over: bool,
}

impl Learner for LogisticCgLearner {
    fn batches(&self) -> u64 {
        1
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        self.is_over = !self.minimiser.step(self.longest_trial, |point| self.objective.at(point))?;
        self.objective.set(&self.minimiser.point)?;
        let valid = self.valid.error()?;
        self.measured = [Some(valid), None];
        if valid < self.best_errors[0] {
            let test = self.test.error()?;
            (self.best_errors, self.measured[1], self.best_epoch) =
                ([valid, test], Some(test), at.epochs + 1);
            self.best.take()?;
        }
        Ok(self.minimiser.evaluation.cost)
    }

    fn report(&mut self, _epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        [results.valid_error, results.test_error] = std::mem::take(&mut self.measured);
        Ok(())
    }

    fn has_enough(&self, _at: Position) -> bool {
        self.is_over
    }

    fn finish(&self, results: &mut Done) -> Result<(), TrainError> {
        if self.best.exists() {
            [results.best_valid_error, results.test_error] = self.best_errors.map(Some);
        }
        Ok(())
    }

    fn best_epoch(&self) -> Option<u64> {
        self.best.exists().then_some(self.best_epoch)
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        let ConjugateGradients { point, evaluation, direction, cost_before } = &self.minimiser;
        for (name, values) in VECTORS.iter().zip([point, &evaluation.gradient, direction]) {
            checkpoint.save_array(name, &Array::vector(values));
        }
        checkpoint.save_number("minimiser.cost", evaluation.cost);
        checkpoint.save_number("minimiser.cost_before", cost_before);
        checkpoint.save_number("minimiser.is_over", self.is_over);
        self.best.save(checkpoint);
        checkpoint.save_number("best.epoch", self.best_epoch);
        if self.best.exists() {
            checkpoint.save_number("best.valid_error", self.best_errors[0]);
            checkpoint.save_number("best.test_error", self.best_errors[1]);
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let length = self.minimiser.point.len();
        let vector = |name: &str| -> Result<Vec<f64>, TrainError> {
            let array = checkpoint.typed_array(name, DType::F64, &[length])?;
            Ok((0..length).map(|i| array.get(i).to_f64()).collect())
        };
        self.minimiser = ConjugateGradients {
            point: vector(VECTORS[0])?,
            evaluation: Evaluation {
                cost: checkpoint.float("minimiser.cost")?,
                gradient: vector(VECTORS[1])?,
            },
            direction: vector(VECTORS[2])?,
            cost_before: checkpoint.float("minimiser.cost_before")?,
        };
        self.is_over = checkpoint.number("minimiser.is_over")?;
        self.best_epoch = checkpoint.number("best.epoch")?;
        let exists = self.best_epoch > 0;
        if exists {
            self.best_errors = [checkpoint.float("best.valid_error")?, checkpoint.float("best.test_error")?];
        }
        self.best.restore(checkpoint, exists)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![
            ("train", &self.objective.function),
            ("validate", self.valid.function()),
            ("test", self.test.function()),
        ]
    }
}

/// Names in checkpoints of point, gradient and direction.
const VECTORS: [&str; 3] = ["minimiser.point", "minimiser.gradient", "minimiser.direction"];
