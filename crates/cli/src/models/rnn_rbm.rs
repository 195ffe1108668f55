//! `rnn-rbm`: the tutorial's `test_rnnrbm` on a collection of music, and tunes that a trained model plays.
//!
//! An epoch goes through all pieces in a new random order, cut into chunks of so many frames; the last chunk of a piece is
//! shorter, and each length has a program of its own, compiled when it is first met. Pre-training fits the Boltzmann
//! machine alone to single frames in random order before. The order of an epoch is a function of the seed and the number of
//! the epoch, so a checkpoint need not hold it.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use hypatia::{Array, Function, RandomStreams, Shared, Tensor, matrix};
use hypatia_datasets::music::{MusicSizes, PIANO, PianoRoll, Sampling, Songbook, TempoMap, write_midi};
use hypatia_datasets::numpy::RandomState;
use hypatia_models::descent::{Descent, Rule};
use hypatia_models::rnn_rbm::{RbmChain, RnnRbm};
use serde_json::json;

use super::{STREAMS, next_streams};
use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::filters::columns;
use crate::log::{Epoch, Phase};
use crate::model::{
    Defaults, Examples, Model, Sampler, SamplingOptions, Setting, Settings, Source, Trainer, TrainingOptions,
    parse_penalty,
};
use crate::picture::{Tiling, draw_piano_roll, tile_raster_images};
use crate::resident::borrowed;
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage, Training};

pub(super) const MODEL: Model = Model {
    name: "rnn-rbm",
    about: "Recurrent network of Boltzmann machines on polyphonic music, contrastive divergence",
    defaults: Defaults { epochs: 200, batch_size: 100, learning_rate: 0.001, seed: 0xbeef },
    examples: Examples {
        data: "Nottingham.tar.gz or another archive of MIDI files, a directory of them, a single one, or a pickle of \
               piano-rolls",
        generated: "tunes",
        generated_help: "Without --data: simple tunes to generate for training",
        generated_default: 100,
        generated_range: (1, 20_000),
    },
    trainer: Trainer::of::<Options>(),
    sampler: Some(Sampler::of::<Draw>(
        "Lets a trained model play tunes, written as MIDI files and as pictures of their piano-rolls",
        false,
    )),
};

#[derive(Args)]
struct Options {
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

/// What an epoch is measured by: see [`RbmChain::monitor`].
const MONITOR: &str = "log_likelihood_proxy";

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        if settings.batch_size == 0 {
            return Err(TrainError::Usage("--batch-size: expected 1 frame or more, found 0".to_owned()));
        }
        let music = read_music(settings, &self)?;
        let frames: usize = music.train.iter().map(PianoRoll::frames).sum();
        let data = vec![
            Setting::free("data", music.origin.as_str()),
            Setting::decisive("train_pieces", music.train.len()),
            Setting::decisive("train_frames", frames),
            Setting::decisive("data_crc32", format!("{:08x}", music.checksum())),
        ];
        let own = vec![
            ("hidden", json!(self.hidden)),
            ("recurrent", json!(self.recurrent)),
            ("gibbs_steps", json!(self.gibbs_steps)),
            ("frame_seconds", json!(self.frame_seconds)),
            ("tempo_map", json!(self.tempo_map)),
            ("pretraining_epochs", json!(self.pretraining_epochs)),
            ("clip", json!(self.clip)),
            ("momentum", json!(self.momentum)),
            ("learn_initial_state", json!(self.learn_initial_state)),
        ];
        let stage = self.stage(settings, music.train, frames)?;
        let mut training = Training::new(Setting::list(data, settings, own), stage);
        if settings.source == Source::Blank {
            // Functions are compiled when the length of a chunk is known.
            training.step()?;
        }
        Ok(training)
    }
}

impl Options {
    fn stage(&self, settings: &Settings, pieces: Vec<PianoRoll>, frames: usize) -> Result<Stage, TrainError> {
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let model = RnnRbm::new(&mut rng, PIANO.len(), self.hidden as usize, self.recurrent as usize);
        let steps = self.gibbs_steps as usize;
        let momentum = self.momentum;
        let rule = if momentum > 0.0 { Rule::Nesterov { momentum } } else { Rule::Sgd };
        let clip = (self.clip > 0.0).then_some(self.clip);
        let descent = Descent { clip, ..Descent::new(rule, settings.learning_rate) };
        let mut parameters = model.parameters();
        let learnt = parameters.len() - usize::from(!self.learn_initial_state);
        let v = matrix::<f32>("v");
        let compile = |chain: &RbmChain, updates: &[(Shared, Tensor)]| {
            settings.builder().inputs(&[&v]).outputs(&[&chain.monitor]).updates(&borrowed(updates)).compile()
        };
        let chain = model.chain(&streams, &v, steps);
        let (updates, velocities) =
            descent.updates(&parameters[..learnt], chain.gradients(&parameters[..learnt]));
        let train = compile(&chain, &updates)?;
        let pretrain = if self.pretraining_epochs > 0 {
            let chain = model.static_chain(&streams, &v, steps);
            let gradients = chain.gradients(&parameters[..3]);
            let (updates, _) = Descent { rule: Rule::Sgd, ..descent }.updates(&parameters[..3], gradients);
            Some(compile(&chain, &updates)?)
        } else {
            None
        };
        let learner = RnnRbmLearner {
            train,
            pretrain,
            order: Order::new(rng, pieces.len(), frames),
            begun: 0,
            weights: model.w,
            pieces,
            pretraining_epochs: self.pretraining_epochs,
            epochs: settings.epochs,
            batch_size: settings.batch_size,
        };
        parameters.extend(velocities);
        let measure = Measure::Monitor { name: MONITOR, sum: "epoch.monitor_sum", last: MONITOR };
        let epochs = self.pretraining_epochs.saturating_add(settings.epochs);
        Ok(Stage::new(learner, measure, epochs, settings.learning_rate, parameters)
            .drawing_from(STREAMS, &streams))
    }
}

fn read_music(settings: &Settings, options: &Options) -> Result<Songbook, TrainError> {
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

/// A part of the training with a function and an order of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// Single frames in random order for the Boltzmann machine alone.
    Frames,
    /// Chunks of pieces.
    Sequences,
}

/// An [`RnnRbm`] being trained.
struct RnnRbmLearner {
    train: Function,
    pretrain: Option<Function>,
    weights: Shared,
    pieces: Vec<PianoRoll>,
    order: Order,
    /// Epochs whose order was drawn.
    begun: u64,
    pretraining_epochs: u64,
    /// Epochs after pre-training.
    epochs: u64,
    batch_size: usize,
}

impl RnnRbmLearner {
    /// The part that an epoch, counted from 0, belongs to.
    fn part(&self, epoch: u64) -> Part {
        if epoch < self.pretraining_epochs { Part::Frames } else { Part::Sequences }
    }

    /// The frames of a minibatch of the present epoch, `[frames, keys]`.
    fn minibatch(&self, batch: usize) -> Result<Array, TrainError> {
        let mut values = Vec::with_capacity(self.batch_size * PIANO.len());
        let mut add = |cells: &[u8]| values.extend(cells.iter().map(|cell| f32::from(*cell)));
        match self.order.batches[batch] {
            Batch::Chunk { piece, start, frames } => {
                let cells = self.pieces[piece].cells();
                add(&cells[start * PIANO.len()..(start + frames) * PIANO.len()]);
            }
            Batch::Frames { start, frames } => {
                for frame in &self.order.frames[start..start + frames] {
                    let (piece, frame) = self.order.place(*frame);
                    add(&self.pieces[piece].cells()[frame * PIANO.len()..][..PIANO.len()]);
                }
            }
        }
        Ok(Array::new(&[values.len() / PIANO.len(), PIANO.len()], &values)?)
    }
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

impl Learner for RnnRbmLearner {
    fn batches(&self) -> u64 {
        self.order.batches.len() as u64
    }

    fn begin_epoch(&mut self, epoch: u64) {
        while self.begun <= epoch {
            let part = self.part(self.begun);
            self.order.draw(part, &self.pieces, self.batch_size);
            self.begun += 1;
        }
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let v = self.minibatch(at.batches as usize)?;
        let function = match (self.part(at.epochs), &mut self.pretrain) {
            (Part::Frames, Some(pretrain)) => pretrain,
            (Part::Frames | Part::Sequences, _) => &mut self.train,
        };
        Ok(function.call(&[&v])?.scalar(0)?)
    }

    fn report(&mut self, epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        let phase = |name: &str, epoch, epochs| Phase { name: name.to_owned(), epoch, epochs };
        let before = self.pretraining_epochs;
        results.phase = (before > 0).then(|| match self.part(epoch - 1) {
            Part::Frames => phase("pre-training", epoch, before),
            Part::Sequences => phase("training", epoch - before, self.epochs),
        });
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let path = directory.join("weights.png");
        write_weights(&path, &self.weights.get_value()?)?;
        Ok(vec![path])
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        let pretrain = self.pretrain.iter().map(|function| ("pretrain", function));
        std::iter::once(("train", &self.train)).chain(pretrain).collect()
    }
}

/// Writes the weights `f32[keys, hidden]` as one picture: a row for each hidden unit, a column for each key.
fn write_weights(path: &Path, weights: &Array) -> Result<(), TrainError> {
    let rows = columns(weights)?;
    let tiling = Tiling {
        image_shape: (rows.len() / PIANO.len(), PIANO.len()),
        tile_shape: (1, 1),
        tile_spacing: (0, 0),
        scale_rows_to_unit_interval: true,
    };
    Ok(tile_raster_images(&rows, &tiling)?.write_png(path)?)
}

#[derive(Args)]
struct Draw {
    /// Number of tunes
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    count: u32,
    /// Frames of a tune
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    frames: u32,
    /// Gibbs steps for each frame
    #[arg(long, value_name = "K", default_value_t = 25, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gibbs_steps: u32,
}

/// Tunes as the tutorial's `generate` makes them.
impl SamplingOptions for Draw {
    fn sample(
        self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let hidden = checkpoint.count_setting("hidden")?;
        let recurrent = checkpoint.count_setting("recurrent")?;
        let frame_seconds = checkpoint.setting("frame_seconds")?.as_f64().filter(|seconds| *seconds > 0.0);
        let frame_seconds = frame_seconds.ok_or_else(|| {
            checkpoint.fault("expected the setting frame_seconds to be a number above 0".to_owned())
        })?;
        let model = RnnRbm::new(&mut RandomState::new(settings.seed), PIANO.len(), hidden, recurrent);
        for parameter in model.parameters() {
            checkpoint.restore_parameter(&parameter)?;
        }
        let streams = RandomStreams::new(u64::from(settings.seed));
        let tune = model.generate(&streams, self.frames as usize, self.gibbs_steps as usize);
        let mut generate = settings.builder().outputs(&[&tune]).compile()?;
        let mut files = Vec::new();
        for number in 1..=self.count {
            let roll = PianoRoll::from_values(PIANO, floats(generate.call(&[])?.array(0))?);
            let path = directory.join(format!("sample{number}.mid"));
            fs::write(&path, write_midi(&roll, frame_seconds))
                .map_err(|source| TrainError::Write { path: path.clone(), source })?;
            files.push(path);
            let path = directory.join(format!("sample{number}.png"));
            draw_piano_roll(&roll).write_png(&path)?;
            files.push(path);
        }
        Ok(files)
    }
}
