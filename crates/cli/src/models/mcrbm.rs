//! `mcrbm`: the mean and covariance model on patches of natural images.
//!
//! Patches are whitened, so filters are learnt in few uncorrelated coordinates, and turned back into pixels for
//! pictures. A step is two functions: one moves the negative particles, one learns from them, so that an energy that
//! turns NaN is found before anything is learnt from it.

use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::PossibleValuesParser;
use hypatia::{Array, DType, Function, RandomStreams, Shared, Tensor, Unused, scalar, shared};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::patches::{CHANNELS, ColourImages};
use hypatia_datasets::whitening::Whitening;
use hypatia_models::hmc::Diagnosis;
use hypatia_models::mcrbm::{McRbm, McRbmTrainer, TrainerSettings, identity_pooling, topological_pooling};
use hypatia_models::parameter::Parameter;
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::filters::columns;
use crate::log::{Done, Epoch, Measures};
use crate::model::{
    Defaults, Examples, Model, Setting, Settings, Source, Trainer, TrainingOptions, parse_penalty,
};
use crate::picture::{Tiling, tile_colour_images, tile_shape};
use crate::resident::{borrowed, index_of, rows_of};
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "mcrbm",
    about: "Mean and covariance RBM: whitened colour patches, 256 covariance and 100 mean units, particles by hybrid Monte Carlo",
    // 63 epochs of 80 minibatches are the 5,000 iterations of the tutorial.
    defaults: Defaults { epochs: 63, batch_size: 128, learning_rate: 0.075, seed: 123 },
    examples: Examples {
        data: "a NumPy file of colour images, a CIFAR-10 file, or a directory with either",
        generated: "patches",
        generated_help: "Without --data: patches with edges, bars and discs to generate",
        generated_default: 10_240,
        generated_range: (200, 200_000),
    },
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Pixels along the side of a patch; larger images are cut at random places
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=64))]
    patch_side: u32,
    /// Patches to cut out of images that are larger
    #[arg(long, value_name = "N", default_value_t = 10_240, value_parser = clap::value_parser!(u32).range(2..=1_000_000))]
    cut: u32,
    /// Principal components that patches are whitened to
    #[arg(long, value_name = "N", default_value_t = 105, value_parser = clap::value_parser!(u32).range(1..=4096))]
    components: u32,
    /// Covariance units, but for topological pooling
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    covariance: u32,
    /// Mean units
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    mean: u32,
    /// How filters act on covariance units: each on its own, the same with a matrix that is learnt, or neighbours on a
    /// grid together
    #[arg(long, value_name = "KIND", default_value = "none", value_parser = PossibleValuesParser::new(["none", "identity", "topological"]))]
    pooling: String,
    /// Side of the grid of units of topological pooling; filters are on one of twice that
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u32).range(2..=64))]
    pooling_side: u32,
    /// Negative particles go on from where they were, or start from the data (contrastive divergence)
    #[arg(long, value_name = "KIND", default_value = "persistent", value_parser = PossibleValuesParser::new(["persistent", "cd1"]))]
    chains: String,
    /// Weight of the sum of absolute filter weights
    #[arg(long, value_name = "X", default_value_t = 1e-3, value_parser = parse_penalty)]
    l1: f64,
    /// Iteration from which filter weights are penalised
    #[arg(long, value_name = "N", default_value_t = 1000)]
    l1_start: u64,
    /// Iteration from which the rate falls as one over the iteration
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(1..))]
    anneal_start: u64,
    /// Iteration from which the pooling matrix is learnt
    #[arg(long, value_name = "N", default_value_t = 4000)]
    pooling_start: u64,
}

/// Name of the state of the streams in checkpoints.
const STREAMS: &str = "random";

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let patches = Patches::new(settings, &self)?;
        let trainer = self.trainer(settings, &patches)?;
        let own = vec![
            ("components", json!(self.components)),
            ("covariance", json!(trainer.model.n_hidden_cov_units())),
            ("mean", json!(self.mean)),
            ("pooling", json!(self.pooling)),
            ("chains", json!(self.chains)),
            ("l1", json!(self.l1)),
            ("l1_start", json!(self.l1_start)),
            ("anneal_start", json!(self.anneal_start)),
            ("pooling_start", json!(self.pooling_start)),
        ];
        let listed = Setting::list(patches.settings.clone(), settings, own);
        Ok(Training::new(listed, stage(settings, patches, trainer)?))
    }
}

impl Options {
    /// The formulas, with parameters and particles at their start.
    fn trainer(&self, settings: &Settings, patches: &Patches) -> Result<McRbmTrainer, TrainError> {
        let (count, batch_size) = (patches.count, settings.batch_size);
        if batch_size == 0 || batch_size > count {
            return Err(TrainError::Usage(format!(
                "--batch-size: expected 1 to {count}, the number of patches, found {batch_size}"
            )));
        }
        let mut rng = RandomState::new(settings.seed);
        let (components, mean) = (self.components as usize, self.mean as usize);
        let (covariance, side) = (self.covariance as usize, self.pooling_side as usize);
        let model = match self.pooling.as_str() {
            "topological" => {
                let pooling = topological_pooling((side, side), (3, 3), (2, 2))?;
                McRbm::with_pooling(&mut rng, pooling, components, mean)
            }
            "identity" => McRbm::with_pooling(&mut rng, identity_pooling(covariance)?, components, mean),
            _ => McRbm::new(&mut rng, components, covariance, mean),
        };
        let trainer_settings = TrainerSettings {
            batch_size,
            learning_rate_per_example: settings.learning_rate,
            anneal_start: self.anneal_start,
            l1_penalty: self.l1,
            l1_penalty_start: self.l1_start,
            pooling_start: self.pooling_start,
            persistent: self.chains == "persistent",
            ..TrainerSettings::default()
        };
        Ok(McRbmTrainer::new(model, trainer_settings, &mut rng))
    }
}

fn stage(settings: &Settings, patches: Patches, trainer: McRbmTrainer) -> Result<Stage, TrainError> {
    let (count, components) = (patches.count, patches.components);
    let batch_size = settings.batch_size;
    let data = shared("patches", Array::new(&[count, components], &patches.whitened));
    let index = scalar::<i64>("index");
    let batch = rows_of(&data, &index, batch_size);
    let random = RandomStreams::new(u64::from(settings.seed));

    let (proposal, updates) = trainer.sampling_updates(&random, &batch);
    let energies = &proposal.energy_start + &proposal.energy_end;
    let is_nan = energies.isnan().any(0);
    let accepted = proposal.accept.cast(DType::F32).mean(0);
    let persistent = trainer.settings.persistent;
    let start = if persistent { Tensor::from(&trainer.particles) } else { batch.clone() };
    let stepsize = Tensor::from(&trainer.adaptation.stepsize);
    let sample = settings
        .builder()
        .inputs(&[&index])
        .on_unused_input(Unused::Ignore)
        .outputs(&[&is_nan, &accepted, &start, &proposal.initial_vel, &stepsize])
        .updates(&borrowed(&updates))
        .compile()?;
    let (cost, updates) = trainer.learning_updates(&batch);
    let learn =
        settings.builder().inputs(&[&index]).outputs(&[&cost]).updates(&borrowed(&updates)).compile()?;

    let particles = Tensor::from(&trainer.particles);
    let energy = |v: &Tensor| trainer.model.free_energy_given_v(v);
    let diagnosis = Diagnosis::new(&particles, energy, trainer.settings.hmc.n_steps, settings.device);
    let mut parameters = Parameter::list(&["U", "W", "a", "b", "c", "P"], trainer.model.params());
    parameters.extend([
        Parameter::new("norm_vf", &trainer.norm_vf),
        Parameter::new("iteration", &trainer.iteration),
        Parameter::new("particles", &trainer.particles),
        Parameter::new("stepsize", &trainer.adaptation.stepsize),
        Parameter::new("avg_acceptance_rate", &trainer.adaptation.avg_acceptance_rate),
    ]);
    let learner = McRbmLearner {
        learn,
        sample,
        diagnosis,
        trainer,
        batches: (count / batch_size) as u64,
        accepted: 0.0,
        learning_rate: settings.learning_rate,
        patch_side: patches.side,
        whitening: patches.whitening,
        shown: patches.whitened[..batch_size * components].to_vec(),
    };
    Ok(Stage::new(learner, Measure::Cost, settings.epochs, settings.learning_rate, parameters)
        .drawing_from(STREAMS, &random))
}

/// Whitened patches and what they were made of.
struct Patches {
    side: usize,
    count: usize,
    components: usize,
    /// `[count, components]`.
    whitened: Vec<f32>,
    /// `None` for blank ones, which do not vary.
    whitening: Option<Whitening>,
    settings: Vec<Setting>,
}

impl Patches {
    fn new(settings: &Settings, options: &Options) -> Result<Self, TrainError> {
        let (side, components) = (options.patch_side as usize, options.components as usize);
        let images = match &settings.source {
            Source::Path(path) => ColourImages::read(path)?.cut(side, options.cut as usize, settings.seed)?,
            Source::Generated(count) => ColourImages::generate(settings.seed, side, *count as usize),
            Source::Blank => ColourImages::blank(side, options.cut as usize),
        };
        let count = images.len();
        let mut listed = vec![
            Setting::free("data", images.origin()),
            Setting::decisive("patches", count),
            Setting::decisive("patch_side", side),
            Setting::decisive("data_crc32", format!("{:08x}", images.checksum())),
        ];
        if settings.source == Source::Blank {
            let whitened = vec![0.0; count * components];
            return Ok(Self { side, count, components, whitened, whitening: None, settings: listed });
        }
        let pixels: Vec<f32> = images.bytes().iter().map(|byte| f32::from(*byte)).collect();
        let whitening = Whitening::fit(&pixels, side * side * CHANNELS, components)
            .map_err(|error| TrainError::Usage(format!("--components: {error}")))?;
        // A share in percent, rounded: its last digits depend on the machine.
        let explained = format!("{:.2} %", 100.0 * whitening.explained_variance());
        listed.push(Setting::free("explained_variance", explained));
        let whitened = whitening.whiten(&pixels);
        Ok(Self { side, count, components, whitened, whitening: Some(whitening), settings: listed })
    }
}

/// The model being trained.
struct McRbmLearner {
    learn: Function,
    sample: Function,
    diagnosis: Diagnosis,
    trainer: McRbmTrainer,
    batches: u64,
    /// Sum over the present epoch of the shares of particles that moved.
    accepted: f64,
    learning_rate: f64,
    patch_side: usize,
    whitening: Option<Whitening>,
    /// The first patches as they are learnt from, whitened.
    shown: Vec<f32>,
}

impl McRbmLearner {
    /// Moves the particles; the share of them that moved.
    fn move_particles(&mut self, at: Position) -> Result<f64, TrainError> {
        let outputs = self.sample.call(&[&index_of(at.batches)])?;
        let accepted = outputs.scalar(1)?;
        if outputs.scalar(0)? == 0.0 {
            return Ok(accepted);
        }
        let (epoch, batch) = (at.epochs + 1, at.batches + 1);
        let learning_rate = self.learning_rate;
        let [start, velocities, stepsize] = [2, 3, 4].map(|output| outputs.array(output));
        Err(match self.diagnosis.find(start, velocities, stepsize)? {
            Some(energy) => TrainError::Energy { epoch, batch, energy, learning_rate },
            None => TrainError::Diverged { what: "energy", found: f64::NAN, epoch, batch, learning_rate },
        })
    }

    fn measures(&self) -> Result<Measures, TrainError> {
        let value =
            |shared: &Shared| -> Result<f64, TrainError> { Ok(f64::from(floats(&shared.get_value()?)?[0])) };
        let adaptation = &self.trainer.adaptation;
        Ok(Measures::from([
            ("stepsize".to_owned(), value(&adaptation.stepsize)?),
            ("acceptance_rate".to_owned(), value(&adaptation.avg_acceptance_rate)?),
        ]))
    }
}

const ACCEPTED_SUM: &str = "epoch.accepted_sum";

impl Learner for McRbmLearner {
    fn batches(&self) -> u64 {
        self.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        self.accepted += self.move_particles(at)?;
        Ok(self.learn.call(&[&index_of(at.batches)])?.scalar(0)?)
    }

    fn report(&mut self, _epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        results.measures = self.measures()?;
        // Over the whole epoch instead of the last few minibatches.
        let accepted = std::mem::take(&mut self.accepted) / self.batches as f64;
        results.measures.insert("acceptance_rate".to_owned(), accepted);
        Ok(())
    }

    fn finish(&self, results: &mut Done) -> Result<(), TrainError> {
        results.measures = self.measures()?;
        Ok(())
    }

    fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.save_number(ACCEPTED_SUM, self.accepted);
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        self.accepted = checkpoint.float(ACCEPTED_SUM)?;
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let Some(whitening) = &self.whitening else { return Ok(Vec::new()) };
        let side = self.patch_side;
        let mut files = Vec::new();
        for (name, filters) in
            [("covariance_filters.png", &self.trainer.model.u), ("mean_filters.png", &self.trainer.model.w)]
        {
            let mut pixels = whitening.unwhiten_directions(&columns(&filters.get_value()?)?);
            for filter in pixels.chunks_mut(side * side * CHANNELS) {
                centre_on_grey(filter);
            }
            let path = directory.join(name);
            write_tiles(&path, &pixels, side)?;
            files.push(path);
        }
        let particles = self.trainer.particles.get_value()?;
        for (name, rows) in [("particles.png", floats(&particles)?), ("patches.png", &self.shown)] {
            let mut pixels = whitening.unwhiten(rows);
            pixels.iter_mut().for_each(|level| *level = (*level / 255.0).clamp(0.0, 1.0));
            let path = directory.join(name);
            write_tiles(&path, &pixels, side)?;
            files.push(path);
        }
        Ok(files)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        vec![("learn", &self.learn), ("sample", &self.sample)]
    }
}

/// A filter as a picture: 0 becomes grey, and its largest value in any colour black or the full colour.
fn centre_on_grey(filter: &mut [f32]) {
    let largest = filter.iter().fold(f32::MIN_POSITIVE, |largest, value| largest.max(value.abs()));
    filter.iter_mut().for_each(|value| *value = 0.5 + 0.5 * (*value / largest));
}

/// Writes rows of `side * side` pixels of three values from 0 to 1 as tiles of one picture.
fn write_tiles(path: &Path, rows: &[f32], side: usize) -> Result<(), TrainError> {
    let channel =
        |channel: usize| -> Vec<f32> { rows.iter().skip(channel).step_by(CHANNELS).copied().collect() };
    let [red, green, blue] = [channel(0), channel(1), channel(2)];
    let tiling = Tiling {
        image_shape: (side, side),
        tile_shape: tile_shape(red.len() / (side * side)),
        tile_spacing: (1, 1),
        scale_rows_to_unit_interval: false,
    };
    let channels = [Some(red.as_slice()), Some(green.as_slice()), Some(blue.as_slice()), None];
    Ok(tile_colour_images(channels, &tiling)?.write_png(path)?)
}
