//! A training run from its first to its last line: log, progress, checkpoints, interruption, resumption.
//!
//! A run owns a directory, in which it keeps `checkpoint.safetensors`, `log.jsonl`, `learning_curve.png` and the
//! pictures of its model. There is a whole checkpoint from the beginning on; a new one replaces it after every epoch and
//! at an interruption, between any two minibatches. A resumed run gives the numbers that an uninterrupted one gives.
//! Nothing here knows what a model computes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ArgMatches;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::log::{Done, Epoch, Event, RunLog, Start};
use crate::model::{
    Model, Position, Setting, Settings, Step, TrainError, Training, saved_number, setting_name,
};
use crate::plot::write_learning_curve;
use crate::progress::Progress;

/// Name of the checkpoint in the directory of a run.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the log in the directory of a run.
pub const LOG: &str = "log.jsonl";
/// Name of the plot in the directory of a run.
pub const LEARNING_CURVE: &str = "learning_curve.png";

/// Where a run is kept and how it shows itself.
pub struct Console<'a> {
    /// The directory; it is made if need be.
    pub directory: &'a Path,
    /// Whether to go on from the checkpoint in the directory.
    pub resume: bool,
    /// Gets every line of the log; progress for people is shown only without it.
    pub log_output: Option<Box<dyn Write + Send>>,
    /// Asked before every minibatch whether to save and stop.
    pub stop: &'a dyn Fn() -> bool,
}

/// How a run ended.
#[derive(Clone, PartialEq, Debug)]
pub enum Outcome {
    /// Training is over.
    Finished {
        /// The results.
        done: Done,
        /// Epochs that were trained in all.
        epochs: u64,
        /// The files that were written.
        files: Vec<PathBuf>,
    },
    /// It was asked to stop, and its state is saved.
    Interrupted {
        /// How far it came.
        position: Position,
        /// Where the state is.
        checkpoint: PathBuf,
    },
}

/// Trains a model.
///
/// # Errors
///
/// Everything that [`TrainError`] lists. The checkpoint of the last whole epoch stays.
pub fn train(
    model: &dyn Model,
    settings: &Settings,
    options: &ArgMatches,
    console: Console<'_>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    let mut training = model.prepare(settings, options)?;
    let mut listed = training.settings();
    listed.push(Setting::decisive("device", device_name(settings.device)));
    listed.extend(settings.threads.map(|threads| Setting::free("threads", threads)));
    let path = console.directory.join(CHECKPOINT);
    let mut run = Run {
        model: model.name(),
        settings: listed,
        seconds_before: 0.0,
        started,
        directory: console.directory,
        path,
        epochs: Vec::new(),
        files: Vec::new(),
    };
    let log_path = run.directory.join(LOG);
    let json = console.log_output.is_some();
    let mut log = if console.resume {
        run.restore(&mut *training)?;
        let (log, epochs) = RunLog::resume(&log_path, training.position().epochs, console.log_output)?;
        run.epochs = epochs;
        log
    } else {
        run.make_directory()?;
        run.save(&*training)?;
        RunLog::create(&log_path, console.log_output)?
    };
    log.write(&run.start_event(console.resume.then(|| training.position())))?;
    let position = training.position();
    let mut progress = if json {
        Progress::hidden()
    } else {
        Progress::on_stderr(training.epochs(), training.batches_per_epoch(), position.epochs)
    };
    progress.advance(position.batches);
    loop {
        if (console.stop)() {
            progress.finish();
            run.save(&*training)?;
            run.write_pictures(&*training)?;
            return Ok(Outcome::Interrupted { position: training.position(), checkpoint: run.path });
        }
        match training.step()? {
            Step::Batch => progress.advance(1),
            Step::Epoch(mut epoch) => {
                epoch.seconds = run.seconds();
                progress.advance(1);
                progress.epoch(&epoch);
                log.write(&Event::Epoch(epoch.clone()))?;
                run.epochs.push(epoch);
                run.save(&*training)?;
                run.files.append(&mut training.write_epoch_pictures(run.directory)?);
            }
            Step::Done(mut done) => {
                done.seconds = run.seconds();
                progress.finish();
                log.write(&Event::Done(done.clone()))?;
                run.save(&*training)?;
                let mut files = vec![run.path.clone(), log_path];
                files.append(&mut run.files);
                files.append(&mut run.write_pictures(&*training)?);
                return Ok(Outcome::Finished { done, epochs: training.position().epochs, files });
            }
        }
    }
}

/// What a run remembers beside its training.
struct Run<'a> {
    model: &'static str,
    settings: Vec<Setting>,
    /// Seconds before a resumption.
    seconds_before: f64,
    started: Instant,
    directory: &'a Path,
    path: PathBuf,
    epochs: Vec<Epoch>,
    /// Pictures of epochs that were written since it began or was resumed.
    files: Vec<PathBuf>,
}

/// The name of the model among the metadata of a checkpoint.
pub(crate) const MODEL: &str = "model";
const SECONDS: &str = "seconds";

impl Run<'_> {
    fn seconds(&self) -> f64 {
        self.seconds_before + self.started.elapsed().as_secs_f64()
    }

    fn make_directory(&self) -> Result<(), TrainError> {
        std::fs::create_dir_all(self.directory)
            .map_err(|source| TrainError::Directory { path: self.directory.to_owned(), source })
    }

    fn start_event(&self, resumed: Option<Position>) -> Event {
        let mut settings: Vec<(String, Value)> =
            self.settings.iter().map(|s| (s.name.to_owned(), s.value.clone())).collect();
        if let Some(position) = resumed {
            settings.push(("resumed_after_epochs".to_owned(), position.epochs.into()));
            settings.push(("resumed_after_batches".to_owned(), position.batches.into()));
        }
        Event::Start(Start { model: self.model.to_owned(), settings })
    }

    fn save(&self, training: &dyn Training) -> Result<(), TrainError> {
        let mut checkpoint = Checkpoint::new();
        training.save(&mut checkpoint)?;
        let metadata = &mut checkpoint.metadata;
        metadata.insert(MODEL.to_owned(), self.model.to_owned());
        metadata.insert(SECONDS.to_owned(), self.seconds().to_string());
        metadata.extend(self.settings.iter().map(|s| (setting_name(s.name), s.value.to_string())));
        Ok(checkpoint.write(&self.path)?)
    }

    fn restore(&mut self, training: &mut dyn Training) -> Result<(), TrainError> {
        let checkpoint = Checkpoint::read(&self.path)?;
        let mut differences = Vec::new();
        let mut compare = |name: &str, ours: &str, theirs: &str| {
            if ours != theirs {
                differences.push(format!("  {name}: the checkpoint has {theirs}, this run {ours}"));
            }
        };
        let model = checkpoint.entry(MODEL)?;
        compare(MODEL, self.model, model);
        if model == self.model {
            for setting in self.settings.iter().filter(|setting| setting.decisive) {
                let theirs = checkpoint.entry(&setting_name(setting.name))?;
                compare(setting.name, &setting.value.to_string(), theirs);
            }
        }
        if !differences.is_empty() {
            return Err(TrainError::Differs { path: self.path.clone(), differences });
        }
        training.restore(&checkpoint)?;
        self.seconds_before = saved_number(&checkpoint, SECONDS)?;
        Ok(())
    }

    fn write_pictures(&self, training: &dyn Training) -> Result<Vec<PathBuf>, TrainError> {
        let curve = self.directory.join(LEARNING_CURVE);
        write_learning_curve(&curve, self.model, &self.epochs, training.best_epoch())?;
        let mut files = vec![curve];
        files.append(&mut training.write_pictures(self.directory)?);
        Ok(files)
    }
}

/// A device as the command line names it.
pub(crate) fn device_name(device: hypatia::Device) -> String {
    match device {
        hypatia::Device::Cpu => "cpu".to_owned(),
        hypatia::Device::OpenCl(number) => format!("opencl:{number}"),
    }
}
