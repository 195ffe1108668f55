//! Tunes played by a trained RNN-RBM.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use hypatia::RandomStreams;

use super::RnnRbm;
use crate::checkpoint::Checkpoint;
use crate::model::{Sampler, Settings, TrainError, saved_count, saved_setting};
use crate::music::{PIANO, PianoRoll, draw_piano_roll, write_midi};
use crate::random_state::RandomState;

/// Options of `sample rnn-rbm` alone.
#[derive(Args, Clone, Copy, Debug)]
struct PerformerOptions {
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

/// Draws tunes as the tutorial's `generate`.
pub(super) struct Performer;

impl Sampler for Performer {
    fn about(&self) -> &'static str {
        "Lets a trained model play tunes, written as MIDI files and as pictures of their piano-rolls"
    }

    fn add_options(&self, command: Command) -> Command {
        PerformerOptions::augment_args(command)
    }

    fn sample(
        &self,
        checkpoint: &Checkpoint,
        settings: &Settings,
        options: &ArgMatches,
        directory: &Path,
    ) -> Result<Vec<PathBuf>, TrainError> {
        let options = PerformerOptions::from_arg_matches(options)
            .map_err(|error| TrainError::Usage(error.to_string()))?;
        let (hidden, recurrent) = (saved_count(checkpoint, "hidden")?, saved_count(checkpoint, "recurrent")?);
        let frame_seconds = saved_setting(checkpoint, "frame_seconds")?;
        let frame_seconds = frame_seconds.as_f64().filter(|seconds| *seconds > 0.0);
        let frame_seconds = frame_seconds.ok_or_else(|| TrainError::State {
            path: checkpoint.path().to_owned(),
            reason: "expected the setting frame_seconds to be a number above 0".to_owned(),
        })?;
        let model = RnnRbm::new(&mut RandomState::new(settings.seed), PIANO.len(), hidden, recurrent);
        for parameter in model.parameters() {
            parameter.restore(checkpoint)?;
        }
        let streams = RandomStreams::new(u64::from(settings.seed));
        let tune = model.generate(&streams, options.frames as usize, options.gibbs_steps as usize);
        let mut generate = settings.builder().outputs(&[&tune]).compile()?;
        let mut files = Vec::new();
        for number in 1..=options.count {
            let outputs = generate.call(&[])?;
            let values = outputs.array(0).as_slice::<f32>().unwrap_or(&[]);
            let roll = PianoRoll::from_values(PIANO, values);
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
