//! `hypatia train rbm` and `hypatia sample rbm`: the tutorial's `test_rbm`.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use hypatia::{Array, DType, Function, Next, RandomStreams, Scan, Shared, ix, matrix, scalar, shared};

use super::{Divergence, Rbm};
use crate::checkpoint::Checkpoint;
use crate::classifier::Sets;
use crate::data::{IMAGE_PIXELS, IMAGE_SIDE};
use crate::filters::write_filters;
use crate::log::{Done, Epoch};
use crate::model::{
    Defaults, Model, POSITION, Position, Sampler, Setting, Settings, Step, TrainError, Training, saved_count,
};
use crate::monitor::Monitor;
use crate::picture::{Tiling, tile_raster_images};
use crate::random_state::RandomState;
use crate::resident::set_index;
use crate::state::{Parameter, restore_streams, save_streams};

/// Seeds of streams are drawn below this, as in the tutorial.
pub(crate) const STREAM_SEEDS: i64 = 1 << 30;

/// The streams whose seed is the next draw of `rng`.
pub(crate) fn next_streams(rng: &mut RandomState) -> RandomStreams {
    // The range is not empty, so there is exactly one draw.
    let seed = rng.randint(0, STREAM_SEEDS, 1).ok().and_then(|seeds| seeds.first().copied());
    RandomStreams::new(seed.unwrap_or_default().unsigned_abs())
}

/// Options of `rbm` alone.
#[derive(Args, Clone, Copy, Debug)]
struct RbmOptions {
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

/// `rbm`: the tutorial's `test_rbm`.
pub(crate) struct BoltzmannMachine;

impl Model for BoltzmannMachine {
    fn name(&self) -> &'static str {
        "rbm"
    }

    fn about(&self) -> &'static str {
        "Restricted Boltzmann machine: 784-500, persistent contrastive divergence with 15 Gibbs steps"
    }

    fn defaults(&self) -> Defaults {
        Defaults { epochs: 15, batch_size: 20, learning_rate: 0.1, seed: 123 }
    }

    fn add_options(&self, command: Command) -> Command {
        RbmOptions::augment_args(command)
    }

    fn prepare(&self, settings: &Settings, options: &ArgMatches) -> Result<Box<dyn Training>, TrainError> {
        let options =
            RbmOptions::from_arg_matches(options).map_err(|error| TrainError::Usage(error.to_string()))?;
        Ok(Box::new(RbmTraining::new(settings, options)?))
    }

    fn sampler(&self) -> Option<&'static dyn Sampler> {
        Some(&GibbsChains)
    }
}

/// A machine being trained.
struct RbmTraining {
    train: Function,
    batches: u64,
    /// The argument of the function, written in place.
    index: Array,
    /// Weights and biases, and the persistent chain and the bit that is looked at where there is a chain.
    parameters: Vec<Parameter>,
    streams: RandomStreams,
    position: Position,
    /// The monitor of the present epoch, and of the last whole one.
    monitor: Monitor,
    monitor_name: &'static str,
    settings: Vec<Setting>,
    epochs: u64,
    learning_rate: f64,
}

const WEIGHTS: &str = "W";
const HIDDEN_BIAS: &str = "hbias";
const VISIBLE_BIAS: &str = "vbias";
const CHAIN: &str = "persistent_chain";
const BIT: &str = "bit_i_idx";
/// Name of the state of the streams in checkpoints.
pub(crate) const STREAMS: &str = "random_streams";
/// The monitor of chains that begin at the data.
pub(crate) const RECONSTRUCTION: &str = "reconstruction_cross_entropy";
const PSEUDO_LIKELIHOOD: &str = "pseudo_likelihood";

impl RbmTraining {
    fn new(settings: &Settings, options: RbmOptions) -> Result<Self, TrainError> {
        let sets = Sets::new(settings)?;
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng);
        let x = matrix::<f32>("x");
        let hidden = options.hidden as usize;
        let rbm = Rbm::new(&mut rng, &streams, &x, IMAGE_PIXELS, hidden);
        let chain = shared(CHAIN, Array::zeros(DType::F32, &[settings.batch_size, hidden]));
        let persistent = (!options.cd).then_some(&chain);
        let k = options.gibbs_steps as usize;
        let learning = rbm.get_cost_updates(settings.learning_rate, Divergence { persistent, k });
        let index = scalar::<i64>("index");
        let updates: Vec<_> = learning.updates.iter().map(|(shared, new)| (shared, new.clone())).collect();
        let train = settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&learning.monitoring_cost])
            .updates(&updates)
            .given(&x, sets.train.minibatch(&index).0)
            .compile()?;
        let names = [WEIGHTS, HIDDEN_BIAS, VISIBLE_BIAS].into_iter().zip(rbm.params());
        let mut parameters: Vec<Parameter> =
            names.map(|(name, shared)| Parameter::new(name, shared)).collect();
        if !options.cd {
            parameters.extend([Parameter::new(CHAIN, &chain), Parameter::new(BIT, &rbm.bit_i_idx)]);
        }
        let mut listed = sets.settings;
        listed.extend([
            Setting::free("epochs", settings.epochs),
            Setting::decisive("batch_size", settings.batch_size),
            Setting::decisive("learning_rate", settings.learning_rate),
            Setting::decisive("seed", settings.seed),
            Setting::decisive("hidden", options.hidden),
            Setting::decisive("gibbs_steps", options.gibbs_steps),
            Setting::decisive("persistent", !options.cd),
        ]);
        Ok(Self {
            train,
            batches: sets.train.batches,
            index: Array::scalar(0_i64),
            parameters,
            streams,
            position: Position::default(),
            monitor: Monitor::default(),
            monitor_name: if options.cd { RECONSTRUCTION } else { PSEUDO_LIKELIHOOD },
            settings: listed,
            epochs: settings.epochs,
            learning_rate: settings.learning_rate,
        })
    }

    fn weights(&self) -> Result<Array, TrainError> {
        match self.parameters.first() {
            Some(weights) => Ok(weights.shared.get_value()?),
            None => Ok(Array::zeros(DType::F32, &[0, 0])?),
        }
    }
}

impl Training for RbmTraining {
    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn epochs(&self) -> u64 {
        self.epochs
    }

    fn batches_per_epoch(&self) -> u64 {
        self.batches
    }

    fn position(&self) -> Position {
        self.position
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        if self.position.epochs >= self.epochs {
            let measures = self.monitor.last().map(|mean| (self.monitor_name.to_owned(), mean));
            return Ok(Step::Done(Done { measures: measures.into_iter().collect(), ..Done::default() }));
        }
        set_index(&mut self.index, self.position.batches);
        let monitor = self.train.call(&[&self.index])?.scalar(0)?;
        self.monitor.add(monitor, self.position, self.learning_rate)?;
        self.position.batches += 1;
        if self.position.batches < self.batches {
            return Ok(Step::Batch);
        }
        let mean = self.monitor.finish_epoch(self.batches);
        if self.monitor_name == PSEUDO_LIKELIHOOD && mean >= 0.0 {
            let position = Position { epochs: self.position.epochs + 1, ..self.position };
            let reason =
                "expected a pseudo-likelihood below 0 on average, found that every unit is certain of \
                          every bit: the weights are too large"
                    .to_owned();
            return Err(TrainError::Useless { position, reason });
        }
        self.position = Position { epochs: self.position.epochs + 1, batches: 0 };
        Ok(Step::Epoch(Epoch {
            epoch: self.position.epochs,
            measures: [(self.monitor_name.to_owned(), mean)].into(),
            ..Epoch::default()
        }))
    }

    fn best_epoch(&self) -> Option<u64> {
        None
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        self.parameters.iter().try_for_each(|parameter| parameter.save(checkpoint))?;
        save_streams(STREAMS, &self.streams, checkpoint)?;
        self.position.save(POSITION, checkpoint);
        self.monitor.save(checkpoint);
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let position = Position::saved(POSITION, checkpoint, self.batches)?;
        let monitor = Monitor::saved(checkpoint)?;
        let names = self.parameters.iter().map(|parameter| parameter.name.as_str());
        checkpoint.expect_only(names.chain([STREAMS]))?;
        let values: Vec<Array> =
            self.parameters.iter().map(|parameter| parameter.saved(checkpoint)).collect::<Result<_, _>>()?;
        restore_streams(STREAMS, &self.streams, checkpoint)?;
        for (parameter, value) in self.parameters.iter().zip(values) {
            parameter.shared.set_value(value)?;
        }
        (self.position, self.monitor) = (position, monitor);
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join("filters.png");
        write_filters(&path, &self.weights()?)?;
        Ok(vec![path])
    }

    fn write_epoch_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join(format!("filters_at_epoch_{}.png", self.position.epochs));
        write_filters(&path, &self.weights()?)?;
        Ok(vec![path])
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("train", &self.train)]
    }
}

/// Options of sampling.
#[derive(Args, Clone, Copy, Debug)]
struct SampleOptions {
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
struct GibbsChains;

impl Sampler for GibbsChains {
    fn about(&self) -> &'static str {
        "Runs Gibbs chains from test images of the data and draws what they have become"
    }

    fn begins_at_examples(&self) -> bool {
        true
    }

    fn add_options(&self, command: Command) -> Command {
        SampleOptions::augment_args(command)
    }

    fn sample(
        &self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        options: &ArgMatches,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let options =
            SampleOptions::from_arg_matches(options).map_err(|error| TrainError::Usage(error.to_string()))?;
        let (chains, rows) = (options.chains as usize, options.rows as usize);
        let hidden = saved_count(checkpoint, "hidden")?;
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng);
        let chain = shared("persistent_vis_chain", first_states(settings, chains, &mut rng)?);
        let w = shared(WEIGHTS, Array::zeros(DType::F32, &[IMAGE_PIXELS, hidden]));
        let hbias = shared(HIDDEN_BIAS, Array::zeros(DType::F32, &[hidden]));
        let rbm = Rbm::sharing(&streams, &chain, &w, &hbias);
        for (name, shared) in [(WEIGHTS, &w), (HIDDEN_BIAS, &hbias), (VISIBLE_BIAS, &rbm.vbias)] {
            Parameter::new(name, shared).restore(checkpoint)?;
        }
        let mut next = sampling_function(settings, &rbm, &chain, options.steps as usize)?;
        let mut means: Vec<f32> = Vec::with_capacity(rows * chains * IMAGE_PIXELS);
        for _ in 0..rows {
            means.extend(next.call(&[])?.array(0).as_slice::<f32>().unwrap_or_default());
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
    // The range is not empty, so there is exactly one draw.
    let first = rng.randint(0, places, 1).ok().and_then(|draws| usize::try_from(*draws.first()?).ok());
    let from = first.unwrap_or(0) * IMAGE_PIXELS;
    let images = test.pixels().get(from..from + chains * IMAGE_PIXELS).unwrap_or_default();
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
    let updates: Vec<_> = updates.iter().map(|(shared, new)| (shared, new.clone())).collect();
    Ok(settings.builder().outputs(&[&vis_mf]).updates(&updates).compile()?)
}
