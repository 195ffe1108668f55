//! Training of the RNN-RBM on a collection of music.
//!
//! An epoch goes through all pieces in a new random order, cut into chunks of so many frames; the last chunk of a piece is
//! shorter, and each length has a program of its own, compiled when it is first met. Pre-training fits the Boltzmann
//! machine alone to single frames in random order before. The order of an epoch is a function of the seed and the number of
//! the epoch, so a checkpoint need not hold it.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use hypatia::{Array, Function, RandomStreams, Shared, Tensor, matrix};

use super::sampling::Performer;
use super::{Descent, RbmChain, RnnRbm};
use crate::checkpoint::Checkpoint;
use crate::count::Counted;
use crate::log::{Done, Epoch, Measures, Phase};
use crate::model::{
    Defaults, Examples, Model, Position, Sampler, Setting, Settings, Source, Step, TrainError, Training,
    parse_penalty, saved_float, saved_number,
};
use crate::music::{MusicSizes, PIANO, PianoRoll, Sampling, Songbook, TempoMap};
use crate::picture::{Tiling, tile_raster_images};
use crate::random_state::RandomState;
use crate::state::{Parameter, restore_streams, save_streams};

/// What an epoch is measured by: see [`RbmChain::monitor`].
const MONITOR: &str = "log_likelihood_proxy";
const PRE_TRAINING: &str = "pre-training";
const STREAMS: &str = "random_streams";
const EPOCHS: &str = "position.epochs";
const BATCHES: &str = "position.batches";
const MONITOR_SUM: &str = "epoch.monitor_sum";

/// Options of `rnn-rbm` alone.
#[derive(Args, Clone, Debug)]
struct RnnRbmOptions {
    /// Number of hidden units of the Boltzmann machine
    #[arg(long, value_name = "N", default_value_t = 150, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Number of units of the recurrent network
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    recurrent: u32,
    /// Gibbs steps of contrastive divergence
    #[arg(long, value_name = "K", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gibbs_steps: u32,
    /// Seconds of a frame of a piano-roll
    #[arg(long, value_name = "SECONDS", default_value_t = 0.3, value_parser = parse_frame_seconds)]
    frame_seconds: f64,
    /// How changes of tempo in one track of a MIDI file are taken in the others: sequential, as the tutorial's reader, or
    /// merged, as the format defines it
    #[arg(long, value_name = "HOW", default_value = "sequential", value_parser = ["sequential", "merged"])]
    tempo_map: String,
    /// Epochs in which the Boltzmann machine alone learns single frames in random order before the others
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pretraining_epochs: u64,
    /// Largest norm of the gradient, to which a longer one is scaled down; 0 for any
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = parse_penalty)]
    clip: f64,
    /// Nesterov's momentum, from 0 for none up to, not including, 1
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = parse_momentum)]
    momentum: f64,
    /// Learns the recurrent state before the first frame as well
    #[arg(long)]
    learn_initial_state: bool,
}

fn parse_frame_seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse().ok().filter(|seconds: &f64| (0.001..=16.0).contains(seconds));
    seconds.ok_or_else(|| "expected a number from 0.001 to 16".to_owned())
}

fn parse_momentum(text: &str) -> Result<f64, String> {
    let momentum = text.parse().ok().filter(|momentum: &f64| (0.0..1.0).contains(momentum));
    momentum.ok_or_else(|| "expected a number from 0 up to, not including, 1".to_owned())
}

/// `rnn-rbm`: the tutorial's `test_rnnrbm`.
pub(crate) struct RecurrentRbm;

impl Model for RecurrentRbm {
    fn name(&self) -> &'static str {
        "rnn-rbm"
    }

    fn about(&self) -> &'static str {
        "Recurrent network of Boltzmann machines on polyphonic music, contrastive divergence"
    }

    fn defaults(&self) -> Defaults {
        Defaults { epochs: 200, batch_size: 100, learning_rate: 0.001, seed: 0xbeef }
    }

    fn examples(&self) -> Examples {
        Examples {
            data: "Nottingham.tar.gz or another archive of MIDI files, a directory of them, a single one, or a pickle of \
                   piano-rolls",
            generated: "tunes",
            generated_help: "Without --data: simple tunes to generate for training",
            generated_default: 100,
            generated_range: (1, 20_000),
        }
    }

    fn add_options(&self, command: Command) -> Command {
        RnnRbmOptions::augment_args(command)
    }

    fn prepare(&self, settings: &Settings, options: &ArgMatches) -> Result<Box<dyn Training>, TrainError> {
        let options =
            RnnRbmOptions::from_arg_matches(options).map_err(|error| TrainError::Usage(error.to_string()))?;
        let mut training = RnnRbmTraining::new(settings, &options)?;
        if settings.source == Source::Blank {
            // Functions are compiled when the length of a chunk is known.
            training.step()?;
        }
        Ok(Box::new(training))
    }

    fn sampler(&self) -> Option<&'static dyn Sampler> {
        Some(&Performer)
    }
}

/// A part of the training with a function and an order of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Single frames in random order for the Boltzmann machine alone.
    Frames,
    /// Chunks of pieces.
    Sequences,
}

/// An [`RnnRbm`] being trained.
struct RnnRbmTraining {
    model: RnnRbm,
    streams: RandomStreams,
    train: Function,
    pretrain: Option<Function>,
    /// What updates change: parameters and velocities.
    state: Vec<Parameter>,
    pieces: Vec<PianoRoll>,
    order: Order,
    pretraining_epochs: u64,
    /// Epochs of both parts.
    epochs: u64,
    batch_size: usize,
    position: Position,
    monitor_sum: f64,
    last_monitor: Option<f64>,
    settings: Vec<Setting>,
    learning_rate: f64,
}

impl RnnRbmTraining {
    fn new(settings: &Settings, options: &RnnRbmOptions) -> Result<Self, TrainError> {
        if settings.batch_size == 0 {
            return Err(TrainError::Usage("--batch-size: expected 1 frame or more, found 0".to_owned()));
        }
        let music = read_music(settings, options)?;
        let listed = list_settings(settings, options, &music);
        let pieces = music.train;
        let mut rng = RandomState::new(settings.seed);
        // The tutorial draws the seed of its streams first.
        let seed = rng.randint(0, 1 << 30, 1).map_err(|error| TrainError::Usage(error.to_string()))?;
        let streams = RandomStreams::new(seed.first().map_or(0, |seed| seed.unsigned_abs()));
        let model = RnnRbm::new(&mut rng, PIANO.len(), options.hidden as usize, options.recurrent as usize);
        let steps = options.gibbs_steps as usize;
        let descent = Descent {
            learning_rate: settings.learning_rate,
            clip: (options.clip > 0.0).then_some(options.clip),
            momentum: options.momentum,
        };
        let parameters = model.parameters();
        let learnt = parameters.len() - usize::from(!options.learn_initial_state);
        let v = matrix::<f32>("v");
        let compile = |chain: &RbmChain, updates: &[(Shared, Tensor)]| {
            let updates: Vec<(&Shared, &Tensor)> =
                updates.iter().map(|(shared, next)| (shared, next)).collect();
            settings.builder().inputs(&[&v]).outputs(&[&chain.monitor]).updates(&updates).compile()
        };
        let chain = model.chain(&streams, &v, steps);
        let (updates, velocities) = descent.updates(&chain, &parameters[..learnt]);
        let train = compile(&chain, &updates)?;
        let pretrain = if options.pretraining_epochs > 0 {
            let chain = model.static_chain(&streams, &v, steps);
            let (updates, _) = Descent { momentum: 0.0, ..descent }.updates(&chain, &parameters[..3]);
            Some(compile(&chain, &updates)?)
        } else {
            None
        };
        let frames = pieces.iter().map(PianoRoll::frames).sum();
        let mut training = Self {
            streams,
            train,
            pretrain,
            state: parameters.into_iter().chain(velocities).collect(),
            order: Order::new(rng, pieces.len(), frames),
            model,
            pieces,
            pretraining_epochs: options.pretraining_epochs,
            epochs: options.pretraining_epochs.saturating_add(settings.epochs),
            batch_size: settings.batch_size,
            position: Position::default(),
            monitor_sum: 0.0,
            last_monitor: None,
            settings: listed,
            learning_rate: settings.learning_rate,
        };
        training.begin_epoch();
        Ok(training)
    }

    /// The part that an epoch, counted from 0, belongs to.
    fn part(&self, epoch: u64) -> Part {
        if epoch < self.pretraining_epochs { Part::Frames } else { Part::Sequences }
    }

    /// Draws the order of the epoch that begins.
    fn begin_epoch(&mut self) {
        let part = self.part(self.position.epochs);
        self.order.draw(part, &self.pieces, self.batch_size);
    }

    /// The frames of a minibatch of the present epoch, `[frames, keys]`.
    fn minibatch(&self, batch: usize) -> Result<Array, TrainError> {
        let mut values = Vec::with_capacity(self.batch_size * PIANO.len());
        let mut add = |cells: &[u8]| values.extend(cells.iter().map(|cell| f32::from(*cell)));
        match self.order.batches.get(batch) {
            Some(Batch::Chunk { piece, start, frames }) => {
                let cells = self.pieces[*piece].cells();
                add(&cells[start * PIANO.len()..(start + frames) * PIANO.len()]);
            }
            Some(Batch::Frames { start, frames }) => {
                for frame in &self.order.frames[*start..start + frames] {
                    let (piece, frame) = self.order.place(*frame);
                    add(&self.pieces[piece].cells()[frame * PIANO.len()..][..PIANO.len()]);
                }
            }
            None => {}
        }
        Ok(Array::new(&[values.len() / PIANO.len(), PIANO.len()], &values)?)
    }
}

fn read_music(settings: &Settings, options: &RnnRbmOptions) -> Result<Songbook, TrainError> {
    let tempo_map = if options.tempo_map == "merged" { TempoMap::Merged } else { TempoMap::Sequential };
    let sampling = Sampling { keys: PIANO, frame_seconds: options.frame_seconds, tempo_map };
    Ok(match &settings.source {
        Source::Path(path) => Songbook::read(path, &sampling)?,
        Source::Generated(tunes) => {
            // The training watches itself by its own monitor, so it needs no other sets.
            let sizes = MusicSizes { train: *tunes as usize, valid: 0, test: 0 };
            Songbook::generate(settings.seed, sizes, &sampling)
        }
        Source::Blank => Songbook {
            train: vec![PianoRoll::silent(PIANO, settings.batch_size)],
            valid: Vec::new(),
            test: Vec::new(),
            sampling,
            origin: "blank".to_owned(),
        },
    })
}

fn list_settings(settings: &Settings, options: &RnnRbmOptions, music: &Songbook) -> Vec<Setting> {
    let frames: usize = music.train.iter().map(PianoRoll::frames).sum();
    vec![
        Setting::free("data", music.origin.as_str()),
        Setting::decisive("train_pieces", music.train.len()),
        Setting::decisive("train_frames", frames),
        Setting::decisive("data_crc32", format!("{:08x}", music.checksum())),
        Setting::free("epochs", settings.epochs),
        Setting::decisive("batch_size", settings.batch_size),
        Setting::decisive("learning_rate", settings.learning_rate),
        Setting::decisive("seed", settings.seed),
        Setting::decisive("hidden", options.hidden),
        Setting::decisive("recurrent", options.recurrent),
        Setting::decisive("gibbs_steps", options.gibbs_steps),
        Setting::decisive("frame_seconds", options.frame_seconds),
        Setting::decisive("tempo_map", options.tempo_map.as_str()),
        Setting::decisive("pretraining_epochs", options.pretraining_epochs),
        Setting::decisive("clip", options.clip),
        Setting::decisive("momentum", options.momentum),
        Setting::decisive("learn_initial_state", options.learn_initial_state),
    ]
}

/// A minibatch.
#[derive(Clone, Copy, Debug)]
enum Batch {
    /// Neighbouring frames of a piece.
    Chunk { piece: usize, start: usize, frames: usize },
    /// Single frames: a range of those in [`Order::frames`].
    Frames { start: usize, frames: usize },
}

/// In which order an epoch goes through the music.
struct Order {
    rng: RandomState,
    pieces: Vec<usize>,
    /// All frames of all pieces by their number, for pre-training.
    frames: Vec<u32>,
    /// Number of the first frame of each piece.
    first_frames: Vec<usize>,
    batches: Vec<Batch>,
}

impl Order {
    fn new(rng: RandomState, pieces: usize, frames: usize) -> Self {
        Self {
            rng,
            pieces: (0..pieces).collect(),
            frames: (0..frames as u32).collect(),
            first_frames: Vec::new(),
            batches: Vec::new(),
        }
    }

    /// Shuffles what the last epoch of the part left, as the tutorial does with its list of pieces.
    fn draw(&mut self, part: Part, pieces: &[PianoRoll], batch_size: usize) {
        self.batches.clear();
        let cut = |frames: usize| {
            (0..frames).step_by(batch_size).map(move |start| (start, batch_size.min(frames - start)))
        };
        match part {
            Part::Frames => {
                let starts = pieces.iter().scan(0, |total, piece| {
                    *total += piece.frames();
                    Some(*total - piece.frames())
                });
                self.first_frames = starts.collect();
                self.rng.shuffle(&mut self.frames);
                let batches = cut(self.frames.len()).map(|(start, frames)| Batch::Frames { start, frames });
                self.batches.extend(batches);
            }
            Part::Sequences => {
                self.rng.shuffle(&mut self.pieces);
                for &piece in &self.pieces {
                    let chunks = cut(pieces[piece].frames());
                    self.batches.extend(chunks.map(|(start, frames)| Batch::Chunk { piece, start, frames }));
                }
            }
        }
    }

    /// The piece and the frame in it of a frame by its number.
    fn place(&self, frame: u32) -> (usize, usize) {
        let frame = frame as usize;
        let piece = self.first_frames.partition_point(|first| *first <= frame).saturating_sub(1);
        (piece, frame - self.first_frames[piece])
    }
}

impl Training for RnnRbmTraining {
    fn settings(&self) -> Vec<Setting> {
        self.settings.clone()
    }

    fn epochs(&self) -> u64 {
        self.epochs
    }

    fn batches_per_epoch(&self) -> u64 {
        self.order.batches.len() as u64
    }

    fn position(&self) -> Position {
        self.position
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        if self.position.epochs >= self.epochs {
            let measures: Measures =
                self.last_monitor.map(|monitor| (MONITOR.to_owned(), monitor)).into_iter().collect();
            return Ok(Step::Done(Done { measures, ..Done::default() }));
        }
        let part = self.part(self.position.epochs);
        let v = self.minibatch(self.position.batches as usize)?;
        let function = match (part, &mut self.pretrain) {
            (Part::Frames, Some(pretrain)) => pretrain,
            (Part::Frames | Part::Sequences, _) => &mut self.train,
        };
        let monitor = function.call(&[&v])?.scalar(0)?;
        self.position.expect_number("monitor", monitor, self.learning_rate)?;
        self.monitor_sum += monitor;
        self.position.batches += 1;
        let batches = self.order.batches.len();
        if self.position.batches < batches as u64 {
            return Ok(Step::Batch);
        }
        let mean = std::mem::take(&mut self.monitor_sum) / batches as f64;
        self.last_monitor = Some(mean);
        self.position = Position { epochs: self.position.epochs + 1, batches: 0 };
        self.begin_epoch();
        let phase = (self.pretraining_epochs > 0).then(|| match part {
            Part::Frames => Phase {
                name: PRE_TRAINING.to_owned(),
                epoch: self.position.epochs,
                epochs: self.pretraining_epochs,
            },
            Part::Sequences => Phase {
                name: "training".to_owned(),
                epoch: self.position.epochs - self.pretraining_epochs,
                epochs: self.epochs - self.pretraining_epochs,
            },
        });
        let measures = Measures::from([(MONITOR.to_owned(), mean)]);
        Ok(Step::Epoch(Epoch { epoch: self.position.epochs, phase, measures, ..Epoch::default() }))
    }

    fn best_epoch(&self) -> Option<u64> {
        None
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        for parameter in &self.state {
            parameter.save(checkpoint)?;
        }
        save_streams(STREAMS, &self.streams, checkpoint)?;
        let metadata = &mut checkpoint.metadata;
        metadata.insert(EPOCHS.to_owned(), self.position.epochs.to_string());
        metadata.insert(BATCHES.to_owned(), self.position.batches.to_string());
        metadata.insert(MONITOR_SUM.to_owned(), self.monitor_sum.to_string());
        metadata.extend(self.last_monitor.map(|monitor| (MONITOR.to_owned(), monitor.to_string())));
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let names = self.state.iter().map(|parameter| parameter.name.as_str()).chain([STREAMS]);
        checkpoint.expect_only(names)?;
        let values =
            self.state.iter().map(|parameter| parameter.saved(checkpoint)).collect::<Result<Vec<_>, _>>()?;
        let position = Position {
            epochs: saved_number(checkpoint, EPOCHS)?,
            batches: saved_number(checkpoint, BATCHES)?,
        };
        let monitor_sum = saved_float(checkpoint, MONITOR_SUM)?;
        let last_monitor = if checkpoint.metadata.contains_key(MONITOR) {
            Some(saved_float(checkpoint, MONITOR)?)
        } else {
            None
        };
        let state = |reason: String| TrainError::State { path: checkpoint.path().to_owned(), reason };
        // Orders are drawn anew up to the present epoch, which takes a while for very many.
        const MOST_EPOCHS: u64 = 1_000_000;
        if position.epochs > MOST_EPOCHS {
            return Err(state(format!("expected at most {MOST_EPOCHS} epochs, found {}", position.epochs)));
        }
        while self.position.epochs < position.epochs {
            self.position.epochs += 1;
            self.begin_epoch();
        }
        if position.batches >= self.batches_per_epoch() {
            return Err(state(format!(
                "expected a position within an epoch of {}, found minibatch {}",
                Counted(self.batches_per_epoch(), "minibatch"),
                position.batches
            )));
        }
        restore_streams(STREAMS, &self.streams, checkpoint)?;
        for (parameter, value) in self.state.iter().zip(values) {
            parameter.shared.set_value(value)?;
        }
        self.position = position;
        self.monitor_sum = monitor_sum;
        self.last_monitor = last_monitor;
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join("weights.png");
        write_weights(&path, &self.model.w.get_value()?)?;
        Ok(vec![path])
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        let pretrain = self.pretrain.iter().map(|function| ("pretrain", function));
        std::iter::once(("train", &self.train)).chain(pretrain).collect()
    }
}

/// Writes the weights `f32[keys, hidden]` as one picture: a row for each hidden unit, a column for each key.
fn write_weights(path: &Path, weights: &Array) -> Result<(), TrainError> {
    let keys = PIANO.len();
    let values = weights.as_slice::<f32>().unwrap_or(&[]);
    let hidden = values.len() / keys;
    let rows: Vec<f32> = (0..values.len()).map(|i| values[i % keys * hidden + i / keys]).collect();
    let tiling = Tiling {
        image_shape: (hidden, keys),
        tile_shape: (1, 1),
        tile_spacing: (0, 0),
        scale_rows_to_unit_interval: true,
    };
    Ok(tile_raster_images(&rows, &tiling)?.write_png(path)?)
}
