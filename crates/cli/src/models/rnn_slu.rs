//! `rnn-slu`: the tutorial's training on ATIS, a sentence a step.
//!
//! An epoch goes through all sentences in an order that is a function of the seed and the number of the epoch, so a
//! checkpoint need not hold it. A sentence is padded to one of few lengths, for each of which the functions are compiled
//! when it is first met. After an epoch without a gain for ten epochs the rate is halved, and the best parameters return.

use clap::Args;
use hypatia::{Array, Function, grad, matrix, scalar, vector};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::text::{Agreement, Sentence, SlotData, padded_length};
use hypatia_models::descent::Descent;
use hypatia_models::rnn_slu::{RnnSlu, Sizes, windows};
use serde_json::json;

use super::best::Best;
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::log::{Done, Epoch};
use crate::model::{Defaults, Examples, Model, Setting, Settings, Source, Trainer, TrainingOptions};
use crate::resident::borrowed;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "rnn-slu",
    about: "Recurrent network that fills slots: which word of a question about flights says what",
    defaults: Defaults { epochs: 60, batch_size: 1, learning_rate: 0.097_080_664_681_275_4, seed: 345 },
    examples: Examples {
        data: "a fold of ATIS as the tutorial has it (atis.fold3.pkl.gz), or a directory with it",
        generated: "questions",
        generated_help: "Without --data: simple questions to generate for training, and a fifth of that for validation \
                         and for the test each",
        generated_default: 1_000,
        generated_range: (1, 100_000),
    },
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// The fold of ATIS that is read from a directory
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(0..=4))]
    fold: u32,
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Numbers that stand for a word
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    embedding: u32,
    /// Words that are seen at a time, an odd number
    #[arg(long, value_name = "N", default_value_t = 7, value_parser = parse_window)]
    window: usize,
}

fn parse_window(text: &str) -> Result<usize, String> {
    let window = text.parse().ok().filter(|window: &usize| window % 2 == 1 && *window < 100);
    window.ok_or_else(|| "expected an odd number from 1 to 99".to_owned())
}

/// Epochs without a gain after which the rate is halved.
const PATIENCE: u64 = 10;
/// The rate below which learning is over.
const LEAST_RATE: f64 = 1e-5;
/// Words of the sentence that blank functions are compiled for.
const BLANK_WORDS: usize = 12;

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        if settings.batch_size != 1 {
            let found = settings.batch_size;
            return Err(TrainError::Usage(format!("--batch-size: expected 1, a sentence, found {found}")));
        }
        let data = match &settings.source {
            Source::Path(path) => SlotData::read(path, self.fold)?,
            Source::Generated(questions) => SlotData::generate(settings.seed, *questions as usize),
            Source::Blank => SlotData::blank(BLANK_WORDS),
        };
        let listed = vec![
            Setting::free("data", data.origin.as_str()),
            Setting::decisive("train_sentences", data.train.len()),
            Setting::decisive("valid_sentences", data.valid.len()),
            Setting::decisive("test_sentences", data.test.len()),
            Setting::decisive("data_crc32", format!("{:08x}", data.checksum())),
        ];
        let own = vec![
            ("hidden", json!(self.hidden)),
            ("embedding", json!(self.embedding)),
            ("window", json!(self.window)),
        ];
        let is_blank = settings.source == Source::Blank;
        let stage = self.stage(settings, data)?;
        let mut training = Training::new(Setting::list(listed, settings, own), stage);
        if is_blank {
            // Functions are compiled when the length of a sentence is known.
            training.step()?;
        }
        Ok(training)
    }
}

impl Options {
    fn stage(&self, settings: &Settings, data: SlotData) -> Result<Stage, TrainError> {
        let sizes = Sizes {
            words: data.words,
            embedding: self.embedding as usize,
            window: self.window,
            hidden: self.hidden as usize,
            classes: data.labels.len(),
        };
        let model = RnnSlu::new(&mut RandomState::new(settings.seed), sizes);
        let parameters = model.parameters();
        let (words, labels) = (matrix::<i32>("windows"), vector::<i32>("labels"));
        let (weights, rate) = (vector::<f32>("weights"), scalar::<f32>("rate"));
        let cost = model.negative_log_likelihood(&words, &labels, &weights);
        let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
        let (mut updates, _) = Descent::sgd(&rate).updates(&parameters, gradients);
        for (shared, next) in &mut updates {
            if shared.leaf().id == model.embeddings.leaf().id {
                *next = RnnSlu::normalised(next);
            }
        }
        let predicted = model.p_y_given_x(&words).argmax(1);
        let learner = RnnSluLearner {
            train: settings
                .builder()
                .inputs(&[&words, &labels, &weights, &rate])
                .outputs(&[&cost])
                .updates(&borrowed(&updates))
                .compile()?,
            classify: settings.builder().inputs(&[&words]).outputs(&[&predicted]).compile()?,
            order: Order::new(settings.seed, data.train.len()),
            data,
            window: self.window,
            rate: settings.learning_rate,
            best: Best::new(&parameters),
            best_f1: [0.0; 2],
            best_epoch: 0,
        };
        Ok(Stage::new(learner, Measure::Cost, settings.epochs, settings.learning_rate, parameters))
    }
}

/// In which order an epoch goes through the sentences.
struct Order {
    seed: u32,
    sentences: Vec<usize>,
    /// Epochs whose order was drawn.
    begun: u64,
}

impl Order {
    fn new(seed: u32, sentences: usize) -> Self {
        Self { seed, sentences: (0..sentences).collect(), begun: 0 }
    }

    /// Shuffles what the last epoch left, every time as Python's `random.shuffle` after `random.seed(seed)`.
    fn draw(&mut self) {
        let mut rng = RandomState::from_key(&[self.seed]);
        let draws = rng.random_sample(self.sentences.len().saturating_sub(1));
        for (place, draw) in (1..self.sentences.len()).rev().zip(draws) {
            self.sentences.swap(place, (draw * (place + 1) as f64) as usize);
        }
        self.begun += 1;
    }
}

/// An [`RnnSlu`] being trained.
struct RnnSluLearner {
    train: Function,
    classify: Function,
    data: SlotData,
    order: Order,
    window: usize,
    rate: f64,
    best: Best,
    /// F1 on the validation and the test set at the best epoch.
    best_f1: [f64; 2],
    /// The best epoch so far, from 1; 0 before there is one.
    best_epoch: u64,
}

/// The windows of a sentence as they are given to the functions.
fn windows_of(sentence: &Sentence, window: usize) -> Result<Array, TrainError> {
    let length = padded_length(sentence.words.len());
    Ok(Array::new(&[length, window], &windows(&sentence.words, window, length))?)
}

impl RnnSluLearner {
    /// F1 of the chunks that are found in a set.
    fn f1(
        classify: &mut Function,
        window: usize,
        names: &[String],
        set: &[Sentence],
    ) -> Result<f64, TrainError> {
        let mut agreement = Agreement::default();
        for sentence in set {
            let found = classify.call(&[&windows_of(sentence, window)?])?;
            let found = found.array(0);
            let name = |label: i64| names.get(label as usize).map_or("", String::as_str);
            agreement.add(
                sentence.labels.iter().map(|label| name(i64::from(*label))),
                (0..sentence.labels.len()).map(|word| name(found.get(word).to_f64() as i64)),
            );
        }
        Ok(agreement.f1())
    }
}

impl Learner for RnnSluLearner {
    fn batches(&self) -> u64 {
        self.data.train.len() as u64
    }

    fn begin_epoch(&mut self, epoch: u64) {
        while self.order.begun <= epoch {
            self.order.draw();
        }
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let sentence = &self.data.train[self.order.sentences[at.batches as usize]];
        let words = windows_of(sentence, self.window)?;
        let length = words.shape()[0];
        let mut labels = sentence.labels.clone();
        labels.resize(length, 0);
        let mut weights = vec![1f32; sentence.words.len()];
        weights.resize(length, 0.0);
        let (labels, weights) = (Array::vector(&labels), Array::vector(&weights));
        let rate = Array::scalar(self.rate as f32);
        Ok(self.train.call(&[&words, &labels, &weights, &rate])?.scalar(0)?)
    }

    fn report(&mut self, epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        let mut f1 = [0.0; 2];
        for (f1, set) in f1.iter_mut().zip([&self.data.valid, &self.data.test]) {
            *f1 = Self::f1(&mut self.classify, self.window, &self.data.labels, set)?;
        }
        for (name, f1) in F1.iter().zip(f1) {
            results.measures.insert((*name).to_owned(), f1);
        }
        results.measures.insert("rate".to_owned(), self.rate);
        if f1[0] > self.best_f1[0] || !self.best.exists() {
            (self.best_f1, self.best_epoch) = (f1, epoch);
            self.best.take()?;
        } else if epoch - self.best_epoch >= PATIENCE {
            self.rate *= 0.5;
            self.best.put_back()?;
        }
        Ok(())
    }

    fn has_enough(&self, _at: Position) -> bool {
        self.rate < LEAST_RATE
    }

    fn finish(&self, results: &mut Done) -> Result<(), TrainError> {
        for (name, f1) in F1.iter().zip(self.best_f1) {
            results.measures.insert((*name).to_owned(), f1);
        }
        Ok(())
    }

    fn best_epoch(&self) -> Option<u64> {
        self.best.exists().then_some(self.best_epoch)
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        self.best.save(checkpoint);
        checkpoint.save_number("rate", self.rate);
        checkpoint.save_number("best.epoch", self.best_epoch);
        for (name, f1) in F1.iter().zip(self.best_f1) {
            checkpoint.save_number(&format!("best.{name}"), f1);
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.rate = checkpoint.float("rate")?;
        self.best_epoch = checkpoint.number("best.epoch")?;
        for (name, f1) in F1.iter().zip(&mut self.best_f1) {
            *f1 = checkpoint.float(&format!("best.{name}"))?;
        }
        self.best.restore(checkpoint, self.best_epoch > 0)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train), ("classify", &self.classify)]
    }
}

/// Names of the results in reports.
const F1: [&str; 2] = ["valid_f1", "test_f1"];
