//! `mcrbm`: the mean and covariance model on patches of natural images, as the program trains it.
//!
//! Patches are whitened, so filters are learnt in few uncorrelated coordinates, and turned back into pixels for
//! pictures. A step is two functions: one moves the negative particles, one learns from them, so that an energy that
//! turns NaN is found before anything is learnt from it.

use std::path::{Path, PathBuf};

use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, Command, FromArgMatches};
use hypatia::{Array, DType, Function, RandomStreams, Shared, Tensor, Unused, scalar, shared};
use serde_json::json;

use super::{McRbm, McRbmTrainer, TrainerSettings, identity_pooling, topological_pooling};
use crate::checkpoint::Checkpoint;
use crate::count::Counted;
use crate::data::patches::{CHANNELS, ColourImages};
use crate::hmc::Diagnosis;
use crate::log::{Done, Epoch, Measures};
use crate::model::{
    Defaults, Examples, Model, Position, Setting, Settings, Source, Step, TrainError, Training,
    parse_penalty, saved_float, saved_number,
};
use crate::picture::{Tiling, tile_colour_images, tile_shape};
use crate::random_state::RandomState;
use crate::resident::{rows_of, set_index};
use crate::state::{Parameter, restore_streams, save_streams};
use crate::whitening::Whitening;

/// Options of `mcrbm` alone.
#[derive(Args, Clone, Debug)]
struct McRbmOptions {
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

/// The model on the command line.
pub(crate) struct MeanCovarianceRbm;

impl Model for MeanCovarianceRbm {
    fn name(&self) -> &'static str {
        "mcrbm"
    }

    fn about(&self) -> &'static str {
        "Mean and covariance RBM: whitened colour patches, 256 covariance and 100 mean units, particles by hybrid Monte Carlo"
    }

    /// 63 epochs of 80 minibatches are the 5,000 iterations of the tutorial.
    fn defaults(&self) -> Defaults {
        Defaults { epochs: 63, batch_size: 128, learning_rate: 0.075, seed: 123 }
    }

    fn examples(&self) -> Examples {
        Examples {
            data: "a NumPy file of colour images, a CIFAR-10 file, or a directory with either",
            generated: "patches",
            generated_help: "Without --data: patches with edges, bars and discs to generate",
            generated_default: 10_240,
            generated_range: (200, 200_000),
        }
    }

    fn add_options(&self, command: Command) -> Command {
        McRbmOptions::augment_args(command)
    }

    fn prepare(&self, settings: &Settings, options: &ArgMatches) -> Result<Box<dyn Training>, TrainError> {
        let options =
            McRbmOptions::from_arg_matches(options).map_err(|error| TrainError::Usage(error.to_string()))?;
        Ok(Box::new(McRbmTraining::new(settings, &options)?))
    }
}

/// Whitened patches and what they were made of.
struct Patches {
    side: usize,
    count: usize,
    /// `[count, components]`.
    whitened: Vec<f32>,
    /// `None` for blank ones, which do not vary.
    whitening: Option<Whitening>,
    settings: Vec<Setting>,
}

impl Patches {
    fn new(settings: &Settings, options: &McRbmOptions) -> Result<Self, TrainError> {
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
            return Ok(Self { side, count, whitened, whitening: None, settings: listed });
        }
        let pixels: Vec<f32> = images.bytes().iter().map(|byte| f32::from(*byte)).collect();
        let whitening = Whitening::fit(&pixels, side * side * CHANNELS, components)
            .map_err(|error| TrainError::Usage(format!("--components: {error}")))?;
        // A share in percent, rounded: its last digits depend on the machine.
        let explained = format!("{:.2} %", 100.0 * whitening.explained_variance());
        listed.push(Setting::free("explained_variance", explained));
        let whitened = whitening.whiten(&pixels);
        Ok(Self { side, count, whitened, whitening: Some(whitening), settings: listed })
    }
}

/// The model being trained.
struct McRbmTraining {
    learn: Function,
    sample: Function,
    diagnosis: Diagnosis,
    trainer: McRbmTrainer,
    random: RandomStreams,
    /// All that a checkpoint holds beside the streams.
    state: Vec<Parameter>,
    /// The argument of the functions, written in place.
    index: Array,
    batches: u64,
    position: Position,
    current: Current,
    listed: Vec<Setting>,
    epochs: u64,
    learning_rate: f64,
    patch_side: usize,
    whitening: Option<Whitening>,
    /// The first patches as they are learnt from, whitened.
    shown: Vec<f32>,
}

/// Sums over the minibatches of the present epoch.
#[derive(Copy, Clone, Default)]
struct Current {
    cost: f64,
    accepted: f64,
}

impl McRbmTraining {
    fn new(settings: &Settings, options: &McRbmOptions) -> Result<Self, TrainError> {
        let patches = Patches::new(settings, options)?;
        let (count, components) = (patches.count, options.components as usize);
        let batch_size = settings.batch_size;
        if batch_size == 0 || batch_size > count {
            return Err(TrainError::Usage(format!(
                "--batch-size: expected 1 to {count}, the number of patches, found {batch_size}"
            )));
        }
        let mut rng = RandomState::new(settings.seed);
        let (covariance, mean) = (options.covariance as usize, options.mean as usize);
        let side = options.pooling_side as usize;
        let model = match options.pooling.as_str() {
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
            anneal_start: options.anneal_start,
            l1_penalty: options.l1,
            l1_penalty_start: options.l1_start,
            pooling_start: options.pooling_start,
            persistent: options.chains == "persistent",
            ..TrainerSettings::default()
        };
        let trainer = McRbmTrainer::new(model, trainer_settings, &mut rng);
        let data = shared("patches", Array::new(&[count, components], &patches.whitened));
        let index = scalar::<i64>("index");
        let batch = rows_of(&data, &index, batch_size);
        let random = RandomStreams::new(u64::from(settings.seed));

        let (proposal, updates) = trainer.sampling_updates(&random, &batch);
        let energies = &proposal.energy_start + &proposal.energy_end;
        let is_nan = energies.isnan().any(0);
        let accepted = proposal.accept.cast(DType::F32).mean(0);
        let start =
            if trainer_settings.persistent { Tensor::from(&trainer.particles) } else { batch.clone() };
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
        let diagnosis = Diagnosis::new(&particles, energy, trainer_settings.hmc.n_steps, settings.device);
        let mut state: Vec<Parameter> = ["U", "W", "a", "b", "c", "P"]
            .into_iter()
            .zip(trainer.model.params())
            .map(|(name, parameter)| Parameter::new(name, parameter))
            .collect();
        state.extend([
            Parameter::new("norm_vf", &trainer.norm_vf),
            Parameter::new("iteration", &trainer.iteration),
            Parameter::new("particles", &trainer.particles),
            Parameter::new("stepsize", &trainer.adaptation.stepsize),
            Parameter::new("avg_acceptance_rate", &trainer.adaptation.avg_acceptance_rate),
        ]);
        Ok(Self {
            learn,
            sample,
            diagnosis,
            listed: list_settings(settings, options, &patches, &trainer),
            trainer,
            random,
            state,
            index: Array::scalar(0_i64),
            batches: (count / batch_size) as u64,
            position: Position::default(),
            current: Current::default(),
            epochs: settings.epochs,
            learning_rate: settings.learning_rate,
            patch_side: patches.side,
            whitening: patches.whitening,
            shown: patches.whitened[..batch_size * components].to_vec(),
        })
    }

    /// Moves the particles; the share of them that moved.
    fn move_particles(&mut self) -> Result<f64, TrainError> {
        let outputs = self.sample.call(&[&self.index])?;
        let accepted = outputs.scalar(1)?;
        if outputs.scalar(0)? == 0.0 {
            return Ok(accepted);
        }
        let (epoch, batch) = (self.position.epochs + 1, self.position.batches + 1);
        let learning_rate = self.learning_rate;
        let [start, velocities, stepsize] = [2, 3, 4].map(|output| outputs.array(output));
        Err(match self.diagnosis.find(start, velocities, stepsize)? {
            Some(energy) => TrainError::Energy { epoch, batch, energy, learning_rate },
            None => TrainError::Diverged { what: "energy", found: f64::NAN, epoch, batch, learning_rate },
        })
    }

    fn measures(&self) -> Result<Measures, TrainError> {
        let value = |shared: &Shared| Ok(shared.get_value()?.item().unwrap_or(f64::NAN));
        let adaptation = &self.trainer.adaptation;
        let stepsize: Result<f64, TrainError> = value(&adaptation.stepsize);
        let average: Result<f64, TrainError> = value(&adaptation.avg_acceptance_rate);
        Ok(Measures::from([("stepsize".to_owned(), stepsize?), ("acceptance_rate".to_owned(), average?)]))
    }
}

fn borrowed(updates: &[(Shared, Tensor)]) -> Vec<(&Shared, &Tensor)> {
    updates.iter().map(|(shared, next)| (shared, next)).collect()
}

fn list_settings(
    settings: &Settings,
    options: &McRbmOptions,
    patches: &Patches,
    trainer: &McRbmTrainer,
) -> Vec<Setting> {
    let mut listed = patches.settings.clone();
    listed.extend([
        Setting::free("epochs", settings.epochs),
        Setting::decisive("batch_size", settings.batch_size),
        Setting::decisive("learning_rate", settings.learning_rate),
        Setting::decisive("seed", settings.seed),
        Setting::decisive("components", options.components),
        Setting::decisive("covariance", trainer.model.n_hidden_cov_units()),
        Setting::decisive("mean", options.mean),
        Setting::decisive("pooling", options.pooling.as_str()),
        Setting::decisive("chains", options.chains.as_str()),
        Setting::decisive("l1", json!(options.l1)),
        Setting::decisive("l1_start", options.l1_start),
        Setting::decisive("anneal_start", options.anneal_start),
        Setting::decisive("pooling_start", options.pooling_start),
    ]);
    listed
}

const EPOCHS: &str = "position.epochs";
const BATCHES: &str = "position.batches";
const COST_SUM: &str = "epoch.cost_sum";
const ACCEPTED_SUM: &str = "epoch.accepted_sum";
const STREAMS: &str = "random";

impl Training for McRbmTraining {
    fn settings(&self) -> Vec<Setting> {
        self.listed.clone()
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
            return Ok(Step::Done(Done { measures: self.measures()?, ..Done::default() }));
        }
        set_index(&mut self.index, self.position.batches);
        let accepted = self.move_particles()?;
        let cost = self.learn.call(&[&self.index])?.scalar(0)?;
        self.position.expect_number("training cost", cost, self.learning_rate)?;
        self.current.cost += cost;
        self.current.accepted += accepted;
        self.position.batches += 1;
        if self.position.batches < self.batches {
            return Ok(Step::Batch);
        }
        self.position = Position { epochs: self.position.epochs + 1, batches: 0 };
        let current = std::mem::take(&mut self.current);
        let mut measures = self.measures()?;
        // Over the whole epoch instead of the last few minibatches.
        measures.insert("acceptance_rate".to_owned(), current.accepted / self.batches as f64);
        Ok(Step::Epoch(Epoch {
            epoch: self.position.epochs,
            train_cost: Some(current.cost / self.batches as f64),
            measures,
            ..Epoch::default()
        }))
    }

    fn best_epoch(&self) -> Option<u64> {
        None
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        for parameter in &self.state {
            parameter.save(checkpoint)?;
        }
        save_streams(STREAMS, &self.random, checkpoint)?;
        let numbers = [
            (EPOCHS, self.position.epochs.to_string()),
            (BATCHES, self.position.batches.to_string()),
            (COST_SUM, self.current.cost.to_string()),
            (ACCEPTED_SUM, self.current.accepted.to_string()),
        ];
        checkpoint.metadata.extend(numbers.map(|(name, value)| (name.to_owned(), value)));
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let current = Current {
            cost: saved_float(checkpoint, COST_SUM)?,
            accepted: saved_float(checkpoint, ACCEPTED_SUM)?,
        };
        let position = Position {
            epochs: saved_number(checkpoint, EPOCHS)?,
            batches: saved_number(checkpoint, BATCHES)?,
        };
        if position.batches >= self.batches {
            return Err(TrainError::State {
                path: checkpoint.path().to_owned(),
                reason: format!(
                    "expected a position within epochs of {}, found minibatch {}",
                    Counted(self.batches, "minibatch"),
                    position.batches
                ),
            });
        }
        let names = self.state.iter().map(|parameter| parameter.name.as_str());
        checkpoint.expect_only(names.chain([STREAMS]))?;
        let values: Vec<Array> = self.state.iter().map(|p| p.saved(checkpoint)).collect::<Result<_, _>>()?;
        restore_streams(STREAMS, &self.random, checkpoint)?;
        for (parameter, value) in self.state.iter().zip(values) {
            parameter.shared.set_value(value)?;
        }
        self.position = position;
        self.current = current;
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let Some(whitening) = &self.whitening else { return Ok(Vec::new()) };
        let side = self.patch_side;
        let mut files = Vec::new();
        for (name, filters) in
            [("covariance_filters.png", &self.trainer.model.u), ("mean_filters.png", &self.trainer.model.w)]
        {
            let mut pixels = whitening.unwhiten_directions(&transposed(&filters.get_value()?));
            for filter in pixels.chunks_mut(side * side * CHANNELS) {
                centre_on_grey(filter);
            }
            let path = directory.join(name);
            write_tiles(&path, &pixels, side)?;
            files.push(path);
        }
        let particles = self.trainer.particles.get_value()?.to_vec::<f32>().unwrap_or_default();
        for (name, rows) in [("particles.png", &particles), ("patches.png", &self.shown)] {
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

/// The columns of a matrix as rows.
fn transposed(matrix: &Array) -> Vec<f32> {
    let values = matrix.to_vec::<f32>().unwrap_or_default();
    let columns = matrix.shape().last().copied().unwrap_or(1);
    let column = |column: usize| values.iter().skip(column).step_by(columns).copied();
    (0..columns).flat_map(column).collect()
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
