//! `lstm`: the tutorial's `train_lstm` on reviews of films.
//!
//! An epoch goes through the reviews in a new random order, a function of the seed and the number of the epoch, so a
//! checkpoint need not hold it. Minibatches are padded to one of few lengths, for each of which the functions are
//! compiled when it is first met.

use clap::Args;
use hypatia::{Array, Function, Tensor, grad, matrix, vector};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::text::{Review, Reviews, padded_length};
use hypatia_models::descent::{Descent, Rule};
use hypatia_models::lstm::Lstm;
use serde_json::json;

use super::best::Best;
use super::{STREAMS, next_streams};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::log::{Done, Epoch};
use crate::model::{Defaults, Examples, Model, Setting, Settings, Source, Trainer, TrainingOptions};
use crate::resident::borrowed;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "lstm",
    about: "Long short-term memory that tells praise from blame in reviews of films",
    defaults: Defaults { epochs: 100, batch_size: 16, learning_rate: 1.0, seed: 123 },
    examples: Examples {
        data: "imdb.pkl.gz of the tutorial, or a directory with it",
        generated: "reviews",
        generated_help: "Without --data: reviews to generate for training, and a fifth of that for the test",
        generated_default: 2_000,
        generated_range: (20, 100_000),
    },
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Numbers that stand for a word, and units of the layer
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    units: u32,
    /// The most frequent words that are known
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    words: u32,
    /// Reviews to learn from have fewer words
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    max_length: u32,
    /// Reviews that the test error is measured on, drawn at random; 0 for all
    #[arg(long, value_name = "N", default_value_t = 500)]
    test_reviews: u32,
    /// The rule of learning; the rate of AdaDelta is 1, of RMSprop and plain descent the tutorial's is 0.0001
    #[arg(long, value_name = "RULE", default_value = "adadelta", value_parser = ["adadelta", "rmsprop", "sgd"])]
    rule: String,
    /// Minibatches between two validations
    #[arg(long, value_name = "N", default_value_t = 370, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    valid_every: u64,
    /// Validations that a gain is looked for in, and that it may fail to appear in
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    patience: u32,
}

/// The share of the reviews to learn from that is kept for validation.
const VALID_SHARE: f64 = 0.05;
/// Reviews that are classified at a time.
const CLASSIFIED: usize = 64;
const CLASSES: usize = 2;

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let data = match &settings.source {
            Source::Path(path) => Reviews::read(path)?,
            Source::Generated(reviews) => Reviews::generate(settings.seed, *reviews as usize),
            Source::Blank => Reviews::blank(20 * settings.batch_size.max(1), self.max_length as usize - 1),
        };
        let checksum = data.checksum();
        let data = data.with_vocabulary(self.words as usize);
        let mut rng = RandomState::new(settings.seed);
        let sets = self.sets(&mut rng, &data)?;
        let size = settings.batch_size;
        if size == 0 || size > sets.train.len() {
            let most = sets.train.len();
            return Err(TrainError::Usage(format!(
                "--batch-size: expected 1 to {most}, the number of reviews to learn from, found {size}"
            )));
        }
        let listed = vec![
            Setting::free("data", data.origin.as_str()),
            Setting::decisive("train_reviews", sets.train.len()),
            Setting::decisive("valid_reviews", sets.valid.len()),
            Setting::decisive("test_reviews", sets.test.len()),
            Setting::decisive("data_crc32", format!("{checksum:08x}")),
        ];
        let own = vec![
            ("units", json!(self.units)),
            ("words", json!(self.words)),
            ("max_length", json!(self.max_length)),
            ("rule", json!(self.rule)),
            ("valid_every", json!(self.valid_every)),
            ("patience", json!(self.patience)),
        ];
        let is_blank = settings.source == Source::Blank;
        let stage = self.stage(settings, rng, sets)?;
        let mut training = Training::new(Setting::list(listed, settings, own), stage);
        if is_blank {
            // Functions are compiled when the length of a minibatch is known.
            training.step()?;
        }
        Ok(training)
    }
}

/// Reviews in the three sets of a training run.
struct Sets {
    train: Vec<Review>,
    valid: Vec<Review>,
    test: Vec<Review>,
}

impl Options {
    /// Short reviews, of which some are for validation, and some of those for the test, drawn in the order of the
    /// tutorial; all sets but that to learn from are sorted by length, so that minibatches need little padding.
    fn sets(&self, rng: &mut RandomState, data: &Reviews) -> Result<Sets, TrainError> {
        let short: Vec<&Review> =
            data.train.iter().filter(|review| review.words.len() < self.max_length as usize).collect();
        let order = rng.permutation(short.len());
        let learnt = (short.len() as f64 * (1.0 - VALID_SHARE)).round_ties_even() as usize;
        if learnt == 0 || learnt == short.len() {
            return Err(TrainError::Usage(format!(
                "expected 11 or more reviews of fewer than --max-length {} words, found {}",
                self.max_length,
                short.len()
            )));
        }
        let sorted = |mut reviews: Vec<Review>| {
            reviews.sort_by_key(|review| review.words.len());
            reviews
        };
        let pick = |numbers: &[usize]| numbers.iter().map(|number| short[*number].clone()).collect();
        let (train, valid) = (sorted(pick(&order[..learnt])), sorted(pick(&order[learnt..])));
        let test = sorted(data.test.clone());
        let drawn = rng.permutation(test.len());
        let count =
            if self.test_reviews == 0 { test.len() } else { test.len().min(self.test_reviews as usize) };
        let test = sorted(drawn[..count].iter().map(|number| test[*number].clone()).collect());
        Ok(Sets { train, valid, test })
    }

    fn stage(&self, settings: &Settings, mut rng: RandomState, sets: Sets) -> Result<Stage, TrainError> {
        let model = Lstm::new(&mut rng, self.words as usize, self.units as usize, CLASSES);
        let streams = next_streams(&mut rng)?;
        let mut parameters = model.parameters();
        let (words, mask, labels) = (matrix::<i32>("words"), matrix::<f32>("mask"), vector::<i32>("labels"));
        let averages = model.averages(&words, &mask);
        let learnt = model.p_y_given_x(&Lstm::dropped(&streams, &averages));
        let cost = Lstm::negative_log_likelihood(&learnt, &labels);
        let rule = match self.rule.as_str() {
            "rmsprop" => Rule::CENTRED_RMSPROP,
            "sgd" => Rule::Sgd,
            _ => Rule::ADADELTA,
        };
        let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
        let (updates, memory) = Descent::new(rule, settings.learning_rate).updates(&parameters, gradients);
        let predicted = model.p_y_given_x(&Lstm::scaled(&averages)).argmax(1);
        let misclassified = predicted.neq(&labels).sum(hypatia::All);
        let inputs: [&Tensor; 3] = [&words, &mask, &labels];
        let learner = LstmLearner {
            train: settings
                .builder()
                .inputs(&inputs)
                .outputs(&[&cost])
                .updates(&borrowed(&updates))
                .compile()?,
            classify: settings.builder().inputs(&inputs).outputs(&[&misclassified]).compile()?,
            order: Order { rng, reviews: Vec::new(), begun: 0 },
            sets,
            batch_size: settings.batch_size,
            valid_every: self.valid_every,
            best: Best::new(&parameters),
            stopping: Stopping { patience: self.patience as usize, errors: Vec::new(), failures: 0 },
            results: None,
            measured: None,
        };
        parameters.extend(memory);
        let stage = Stage::new(learner, Measure::Cost, settings.epochs, settings.learning_rate, parameters);
        Ok(stage.drawing_from(STREAMS, &streams))
    }
}

/// In which order an epoch goes through the reviews.
struct Order {
    rng: RandomState,
    reviews: Vec<usize>,
    /// Epochs whose order was drawn.
    begun: u64,
}

/// When to stop: the tutorial's rule.
struct Stopping {
    patience: usize,
    /// Validation errors, in order.
    errors: Vec<f64>,
    /// Validations without a gain since the best one.
    failures: u64,
}

impl Stopping {
    /// Takes in a validation error; whether it is the best so far.
    fn record(&mut self, error: f64) -> bool {
        let least = |errors: &[f64]| errors.iter().copied().fold(f64::INFINITY, f64::min);
        let is_best = error <= least(&self.errors);
        if is_best {
            self.failures = 0;
        }
        self.errors.push(error);
        // No gain over what was known so many validations ago.
        let before = self.errors.len().saturating_sub(self.patience);
        if before > 0 && error >= least(&self.errors[..before]) {
            self.failures += 1;
        }
        is_best
    }

    fn is_exhausted(&self) -> bool {
        self.failures > self.patience as u64
    }

    /// The place of the best validation.
    fn best(&self) -> Option<usize> {
        (0..self.errors.len()).rev().min_by(|a, b| self.errors[*a].total_cmp(&self.errors[*b]))
    }
}

/// Errors as fractions.
#[derive(Clone, Copy, Debug)]
struct Errors {
    train: f64,
    valid: f64,
    test: f64,
}

/// An [`Lstm`] being trained.
struct LstmLearner {
    train: Function,
    classify: Function,
    order: Order,
    sets: Sets,
    batch_size: usize,
    valid_every: u64,
    best: Best,
    stopping: Stopping,
    /// Errors at the best validation.
    results: Option<Errors>,
    /// Errors measured in the present epoch.
    measured: Option<Errors>,
}

/// A minibatch as the functions take it: words and mask, `[steps, batch]`, and labels.
fn minibatch(reviews: &[&Review]) -> Result<[Array; 3], TrainError> {
    let longest = reviews.iter().map(|review| review.words.len()).max().unwrap_or(0);
    let (steps, batch) = (padded_length(longest), reviews.len());
    let (mut words, mut mask) = (vec![0i32; steps * batch], vec![0f32; steps * batch]);
    for (column, review) in reviews.iter().enumerate() {
        for (step, word) in review.words.iter().enumerate() {
            words[step * batch + column] = *word;
            mask[step * batch + column] = 1.0;
        }
    }
    let labels: Vec<i32> = reviews.iter().map(|review| review.label).collect();
    Ok([Array::new(&[steps, batch], &words)?, Array::new(&[steps, batch], &mask)?, Array::vector(&labels)])
}

/// The fraction of a set that is classified wrongly.
fn error_on(classify: &mut Function, set: &[Review]) -> Result<f64, TrainError> {
    let mut wrong = 0.0;
    for reviews in set.chunks(CLASSIFIED) {
        let [words, mask, labels] = minibatch(&reviews.iter().collect::<Vec<_>>())?;
        wrong += classify.call(&[&words, &mask, &labels])?.scalar(0)?;
    }
    Ok(wrong / set.len() as f64)
}

impl LstmLearner {
    fn validate(&mut self) -> Result<(), TrainError> {
        let mut error = |set: &[Review]| error_on(&mut self.classify, set);
        let (train, valid) = (error(&self.sets.train)?, error(&self.sets.valid)?);
        let errors = Errors { train, valid, test: error(&self.sets.test)? };
        self.measured = Some(errors);
        if self.stopping.record(errors.valid) {
            self.best.take()?;
            self.results = Some(errors);
        }
        Ok(())
    }
}

impl Learner for LstmLearner {
    fn batches(&self) -> u64 {
        self.sets.train.len().div_ceil(self.batch_size) as u64
    }

    fn begin_epoch(&mut self, epoch: u64) {
        while self.order.begun <= epoch {
            self.order.reviews = self.order.rng.permutation(self.sets.train.len());
            self.order.begun += 1;
        }
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let begin = at.batches as usize * self.batch_size;
        let end = (begin + self.batch_size).min(self.sets.train.len());
        let reviews: Vec<&Review> =
            self.order.reviews[begin..end].iter().map(|review| &self.sets.train[*review]).collect();
        let [words, mask, labels] = minibatch(&reviews)?;
        let cost = self.train.call(&[&words, &mask, &labels])?.scalar(0)?;
        let learnt = at.epochs * self.batches() + at.batches + 1;
        if learnt.is_multiple_of(self.valid_every) {
            self.validate()?;
        }
        Ok(cost)
    }

    fn report(&mut self, _epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        if let Some(Errors { train, valid, test }) = self.measured.take() {
            (results.valid_error, results.test_error) = (Some(valid), Some(test));
            results.measures.insert(TRAIN_ERROR.to_owned(), train);
        }
        Ok(())
    }

    fn has_enough(&self, _at: Position) -> bool {
        self.stopping.is_exhausted()
    }

    fn finish(&self, results: &mut Done) -> Result<(), TrainError> {
        if let Some(Errors { train, valid, test }) = self.results {
            (results.best_valid_error, results.test_error) = (Some(valid), Some(test));
            results.measures.insert(TRAIN_ERROR.to_owned(), train);
        }
        Ok(())
    }

    fn best_epoch(&self) -> Option<u64> {
        let learnt = (self.stopping.best()? as u64 + 1) * self.valid_every;
        Some(learnt.div_ceil(self.batches()))
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        self.best.save(checkpoint);
        let errors: Vec<String> = self.stopping.errors.iter().map(f64::to_string).collect();
        checkpoint.metadata.insert(VALID_ERRORS.to_owned(), errors.join(" "));
        checkpoint.save_number("stopping.failures", self.stopping.failures);
        for (when, errors) in [("best", self.results), ("epoch", self.measured)] {
            if let Some(Errors { train, valid, test }) = errors {
                for (set, error) in [("train", train), ("valid", valid), ("test", test)] {
                    checkpoint.save_number(&format!("{when}.{set}_error"), error);
                }
            }
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let text = checkpoint.entry(VALID_ERRORS)?;
        let errors: Result<Vec<f64>, _> = text.split_whitespace().map(str::parse).collect();
        self.stopping.errors = errors.map_err(|_| {
            checkpoint.fault(format!("expected {VALID_ERRORS} to be numbers, found {text:?}"))
        })?;
        self.stopping.failures = checkpoint.number("stopping.failures")?;
        let errors = |when: &str| {
            let error = |set: &str| checkpoint.optional_float(&format!("{when}.{set}_error"));
            let all = (error("train")?, error("valid")?, error("test")?);
            Ok::<_, TrainError>(match all {
                (Some(train), Some(valid), Some(test)) => Some(Errors { train, valid, test }),
                _ => None,
            })
        };
        (self.results, self.measured) = (errors("best")?, errors("epoch")?);
        self.best.restore(checkpoint, self.results.is_some())
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train), ("classify", &self.classify)]
    }
}

const TRAIN_ERROR: &str = "train_error";
const VALID_ERRORS: &str = "stopping.valid_errors";

#[cfg(test)]
mod tests {
    use super::*;

    // By hand from the loop of the tutorial with a patience of 2: a failure is counted where the error is not below the
    // least of all but the last two, from the third validation on; a tie with the best is a gain.
    #[test]
    fn patience_follows_the_tutorial() {
        let mut stopping = Stopping { patience: 2, errors: Vec::new(), failures: 0 };
        let mut record = |error: f64| (stopping.record(error), stopping.failures, stopping.is_exhausted());
        assert_eq!(record(0.5), (true, 0, false));
        assert_eq!(record(0.6), (false, 0, false));
        assert_eq!(record(0.55), (false, 1, false));
        assert_eq!(record(0.5), (true, 1, false));
        assert_eq!(record(0.4), (true, 0, false));
        assert_eq!(record(0.45), (false, 0, false));
        assert_eq!(record(0.45), (false, 1, false));
        assert_eq!(record(0.45), (false, 2, false));
        assert_eq!(record(0.45), (false, 3, true));
        assert_eq!(stopping.best(), Some(4));
    }
}
