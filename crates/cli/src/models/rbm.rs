//! `rbm`: the tutorial's `test_rbm`, and pictures of what Gibbs chains of a trained machine become.

use std::path::{Path, PathBuf};

use clap::Args;
use hypatia::{Array, DType, Function, Next, Scan, Shared, ix, matrix, scalar, shared};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{IMAGE_PIXELS, IMAGE_SIDE};
use hypatia_models::parameter::Parameter;
use hypatia_models::rbm::{Divergence, Rbm};
use serde_json::json;

use super::classifier::Sets;
use super::{STREAMS, next_streams};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::filters::write_filters;
use crate::log::Epoch;
use crate::model::{
    Defaults, Examples, Model, Sampler, SamplingOptions, Setting, Settings, Trainer, TrainingOptions,
};
use crate::picture::{Tiling, tile_raster_images};
use crate::resident::{borrowed, index_of};
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "rbm",
    about: "Restricted Boltzmann machine: 784-500, persistent contrastive divergence with 15 Gibbs steps",
    defaults: Defaults { epochs: 15, batch_size: 20, learning_rate: 0.1, seed: 123 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: Some(Sampler::of::<Draw>(
        "Runs Gibbs chains from test images of the data and draws what they have become",
        true,
    )),
};

#[derive(Args)]
struct Options {
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Steps of Gibbs sampling for each minibatch
    #[arg(short = 'k', long, value_name = "K", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gibbs_steps: u32,
    /// Begin each chain at the data (CD-k) instead of where the last one ended (PCD-k)
    #[arg(long)]
    cd: bool,
}

/// The monitor of chains that begin at the data.
pub(super) const RECONSTRUCTION: &str = "reconstruction_cross_entropy";
const PSEUDO_LIKELIHOOD: &str = "pseudo_likelihood";
/// Names of the parameters in checkpoints.
const PARAMETERS: [&str; 3] = ["W", "hbias", "vbias"];
const CHAIN: &str = "persistent_chain";
const BIT: &str = "bit_i_idx";

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let x = matrix::<f32>("x");
        let hidden = self.hidden as usize;
        let rbm = Rbm::new(&mut rng, &streams, &x, IMAGE_PIXELS, hidden);
        let chain = shared(CHAIN, Array::zeros(DType::F32, &[settings.batch_size, hidden]));
        let persistent = (!self.cd).then_some(&chain);
        let k = self.gibbs_steps as usize;
        let learning = rbm.get_cost_updates(settings.learning_rate, Divergence { persistent, k });
        let index = scalar::<i64>("index");
        let train = settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&learning.monitoring_cost])
            .updates(&borrowed(&learning.updates))
            .given(&x, sets.train.minibatch(&index).0)
            .compile()?;
        let mut parameters = Parameter::list(&PARAMETERS, rbm.params());
        if !self.cd {
            parameters.extend(Parameter::list(&[CHAIN, BIT], [&chain, &rbm.bit_i_idx]));
        }
        let name = if self.cd { RECONSTRUCTION } else { PSEUDO_LIKELIHOOD };
        let learner = RbmLearner { train, batches: sets.train.batches, weights: rbm.w, persistent: !self.cd };
        let stage =
            Stage::new(learner, Measure::monitor(name), settings.epochs, settings.learning_rate, parameters)
                .drawing_from(STREAMS, &streams);
        let own = vec![
            ("hidden", json!(self.hidden)),
            ("gibbs_steps", json!(self.gibbs_steps)),
            ("persistent", json!(!self.cd)),
        ];
        Ok(Training::new(Setting::list(sets.settings, settings, own), stage))
    }
}

/// A machine being trained.
struct RbmLearner {
    train: Function,
    batches: u64,
    weights: Shared,
    /// Whether its monitor is the pseudo-likelihood.
    persistent: bool,
}

impl Learner for RbmLearner {
    fn batches(&self) -> u64 {
        self.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        Ok(self.train.call(&[&index_of(at.batches)])?.scalar(0)?)
    }

    fn report(&mut self, epoch: u64, mean: f64, _results: &mut Epoch) -> Result<(), TrainError> {
        if self.persistent && mean >= 0.0 {
            let position = Position { epochs: epoch, batches: self.batches };
            let reason = "expected a pseudo-likelihood below 0 on average, found that every unit is certain of \
                          every bit: the weights are too large";
            return Err(TrainError::Useless { position, reason: reason.to_owned() });
        }
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join("filters.png");
        write_filters(&path, &self.weights.get_value()?)?;
        Ok(vec![path])
    }

    fn write_epoch_pictures(&self, directory: &Path, epoch: u64) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join(format!("filters_at_epoch_{epoch}.png"));
        write_filters(&path, &self.weights.get_value()?)?;
        Ok(vec![path])
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train)]
    }
}

#[derive(Args)]
struct Draw {
    /// Chains that run beside each other, one in each column of the picture
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    chains: u32,
    /// Rows of the picture
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rows: u32,
    /// Steps of Gibbs sampling before each row
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    steps: u32,
}

/// Gibbs chains that begin at test images.
impl SamplingOptions for Draw {
    fn sample(
        self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let (chains, rows) = (self.chains as usize, self.rows as usize);
        let hidden = checkpoint.count_setting("hidden")?;
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let chain = shared("persistent_vis_chain", first_states(settings, chains, &mut rng)?);
        let w = shared("W", Array::zeros(DType::F32, &[IMAGE_PIXELS, hidden]));
        let hbias = shared("hbias", Array::zeros(DType::F32, &[hidden]));
        let rbm = Rbm::sharing(&streams, &chain, &w, &hbias);
        for parameter in Parameter::list(&PARAMETERS, rbm.params()) {
            checkpoint.restore_parameter(&parameter)?;
        }
        let mut next = sampling_function(settings, &rbm, &chain, self.steps as usize)?;
        let mut means: Vec<f32> = Vec::with_capacity(rows * chains * IMAGE_PIXELS);
        for _ in 0..rows {
            means.extend(floats(next.call(&[])?.array(0))?);
        }
        let tiling = Tiling {
            image_shape: (IMAGE_SIDE, IMAGE_SIDE),
            tile_shape: (rows, chains),
            tile_spacing: (1, 1),
            scale_rows_to_unit_interval: true,
        };
        let path = directory.join("samples.png");
        tile_raster_images(&means, &tiling)?.write_png(&path)?;
        Ok(vec![path])
    }
}

/// Test images one after the other, from a random one on, `f32[chains, IMAGE_PIXELS]`.
fn first_states(settings: &Settings, chains: usize, rng: &mut RandomState) -> Result<Array, TrainError> {
    let test = settings.labelled_images()?.test;
    if test.len() < chains {
        return Err(TrainError::Usage(format!(
            "--chains: expected at most {}, the number of test images, found {chains}",
            test.len()
        )));
    }
    let places = (test.len() - chains).max(1) as i64;
    let from = rng.randint(0, places, 1)?[0] as usize * IMAGE_PIXELS;
    let images = &test.pixels()[from..from + chains * IMAGE_PIXELS];
    Ok(Array::new(&[chains, IMAGE_PIXELS], images)?)
}

/// Lets the chains go on by so many steps and returns the probabilities of the visible units.
fn sampling_function(
    settings: &Settings,
    rbm: &Rbm,
    chain: &Shared,
    steps: usize,
) -> Result<Function, TrainError> {
    let scanned = Scan::new().carry(chain).steps(steps).run(|step| {
        let visible = rbm.gibbs_vhv(&step.carries[0]).visible;
        Next::new().carry(visible.sample).output(visible.mean)
    });
    let vis_mf = scanned.outputs[0].index(ix![-1]);
    let mut updates = scanned.updates;
    updates.push((chain.clone(), scanned.last[0].clone()));
    Ok(settings.builder().outputs(&[&vis_mf]).updates(&borrowed(&updates)).compile()?)
}
