//! `da` and `ca`: the tutorials' `test_dA` and `test_cA`.

use std::path::{Path, PathBuf};

use clap::Args;
use hypatia::{Function, Shared, grad, matrix, scalar};
use hypatia_datasets::IMAGE_PIXELS;
use hypatia_datasets::numpy::RandomState;
use hypatia_models::autoencoder::Autoencoder;
use hypatia_models::descent::Descent;
use hypatia_models::parameter::Parameter;
use serde_json::json;

use super::classifier::Sets;
use super::{STREAMS, next_streams};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::filters::write_filters;
use crate::log::Epoch;
use crate::model::{
    Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions, number_in, parse_penalty,
};
use crate::resident::{borrowed, index_of};
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const DENOISING: Model = Model {
    name: "da",
    about: "Denoising autoencoder: 784-500 with tied weights, which restores corrupted images",
    defaults: Defaults { epochs: 15, batch_size: 20, learning_rate: 0.1, seed: 123 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<DenoisingOptions>(),
    sampler: None,
};

pub(super) const CONTRACTIVE: Model = Model {
    name: "ca",
    about: "Contractive autoencoder: 784-500 with tied weights, whose hidden units change little with the image",
    defaults: Defaults { epochs: 20, batch_size: 10, learning_rate: 0.01, seed: 123 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<ContractiveOptions>(),
    sampler: None,
};

/// Reads a share of inputs to set to 0 from the command line.
pub(super) fn parse_corruption(text: &str) -> Result<f64, String> {
    number_in(text, "a number from 0 to 1", |x| (0.0..=1.0).contains(&x))
}

/// Names of the parameters in checkpoints.
pub(super) const PARAMETERS: [&str; 3] = ["W", "bhid", "bvis"];

#[derive(Args)]
struct DenoisingOptions {
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Share of the pixels that are set to 0
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = parse_corruption)]
    corruption: f64,
}

impl TrainingOptions for DenoisingOptions {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let x = matrix::<f32>("x");
        let da = Autoencoder::new(&mut rng, &x, IMAGE_PIXELS, self.hidden as usize);
        let cost = da.denoising_cost(&streams, self.corruption);
        let parameters = Parameter::list(&PARAMETERS, da.params());
        let (updates, _) =
            Descent::sgd(settings.learning_rate).updates(&parameters, grad(&cost, da.params()));
        let index = scalar::<i64>("index");
        let train = settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&cost])
            .updates(&borrowed(&updates))
            .given(&x, sets.train.minibatch(&index).0)
            .compile()?;
        let learner = DenoisingLearner { train, batches: sets.train.batches, weights: da.w };
        let measure = Measure::monitor("reconstruction_cost");
        let stage = Stage::new(learner, measure, settings.epochs, settings.learning_rate, parameters)
            .drawing_from(STREAMS, &streams);
        let own = vec![("hidden", json!(self.hidden)), ("corruption", json!(self.corruption))];
        Ok(Training::new(Setting::list(sets.settings, settings, own), stage))
    }
}

/// A denoising autoencoder being trained.
struct DenoisingLearner {
    train: Function,
    batches: u64,
    weights: Shared,
}

impl Learner for DenoisingLearner {
    fn batches(&self) -> u64 {
        self.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        Ok(self.train.call(&[&index_of(at.batches)])?.scalar(0)?)
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        write_weights(directory, &self.weights)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train)]
    }
}

/// Writes what the hidden units look for.
fn write_weights(directory: &Path, weights: &Shared) -> Result<Vec<PathBuf>, TrainError> {
    let path = directory.join("filters.png");
    write_filters(&path, &weights.get_value()?)?;
    Ok(vec![path])
}

#[derive(Args)]
struct ContractiveOptions {
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Weight of the squared norm of the hidden units' derivatives in the cost
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = parse_penalty)]
    contraction: f64,
}

impl TrainingOptions for ContractiveOptions {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let mut rng = RandomState::new(settings.seed);
        let x = matrix::<f32>("x");
        let ca = Autoencoder::new(&mut rng, &x, IMAGE_PIXELS, self.hidden as usize);
        let costs = ca.contractive_cost(self.contraction);
        let parameters = Parameter::list(&PARAMETERS, ca.params());
        let (updates, _) =
            Descent::sgd(settings.learning_rate).updates(&parameters, grad(&costs.cost, ca.params()));
        let index = scalar::<i64>("index");
        let train = settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&costs.reconstruction, &costs.jacobian])
            .updates(&borrowed(&updates))
            .given(&x, sets.train.minibatch(&index).0)
            .compile()?;
        let learner = ContractiveLearner {
            train,
            batches: sets.train.batches,
            weights: ca.w,
            jacobian_sum: 0.0,
            printed: [0.0; 2],
        };
        let measure = Measure::monitor("reconstruction_cost");
        let stage = Stage::new(learner, measure, settings.epochs, settings.learning_rate, parameters);
        let own = vec![("hidden", json!(self.hidden)), ("contraction", json!(self.contraction))];
        Ok(Training::new(Setting::list(sets.settings, settings, own), stage))
    }
}

/// A contractive autoencoder being trained.
struct ContractiveLearner {
    train: Function,
    batches: u64,
    weights: Shared,
    /// Sum over the present epoch of the squared norms of the Jacobian.
    jacobian_sum: f64,
    /// What the tutorial prints after an epoch. It means to print means over the epoch, and prints that of both costs of
    /// the first minibatch, and that of the roots of both costs of the second.
    printed: [f64; 2],
}

/// Names in checkpoints.
const JACOBIAN_SUM: &str = "epoch.jacobian_sum";
const PRINTED: [&str; 2] = ["epoch.printed_cost", "epoch.printed_norm"];

impl Learner for ContractiveLearner {
    fn batches(&self) -> u64 {
        self.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let costs = self.train.call(&[&index_of(at.batches)])?;
        let (reconstruction, jacobian) = (costs.scalar(0)?, costs.scalar(1)?);
        self.jacobian_sum += jacobian;
        match at.batches {
            0 => self.printed[0] = f64::midpoint(reconstruction, jacobian),
            1 => self.printed[1] = f64::midpoint(reconstruction.sqrt(), jacobian.sqrt()),
            _ => {}
        }
        Ok(reconstruction)
    }

    fn report(&mut self, _epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        let jacobian = std::mem::take(&mut self.jacobian_sum) / self.batches as f64;
        let [cost, norm] = self.printed;
        for (name, value) in [
            ("squared_jacobian_norm", jacobian),
            ("tutorial_prints_cost", cost),
            ("tutorial_prints_norm", norm),
        ] {
            results.measures.insert(name.to_owned(), value);
        }
        Ok(())
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.save_number(JACOBIAN_SUM, self.jacobian_sum);
        for (name, value) in PRINTED.into_iter().zip(self.printed) {
            checkpoint.save_number(name, value);
        }
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.jacobian_sum = checkpoint.float(JACOBIAN_SUM)?;
        for (name, value) in PRINTED.into_iter().zip(&mut self.printed) {
            *value = checkpoint.float(name)?;
        }
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        write_weights(directory, &self.weights)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train)]
    }
}
