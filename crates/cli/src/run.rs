//! A training run from its first to its last line: log, progress, checkpoints, interruption, resumption.
//!
//! A run owns a directory, in which it keeps `checkpoint.safetensors`, `log.jsonl`, `learning_curve.svg` and the
//! pictures of its model; the directory is locked while it goes on. There is a whole checkpoint from the beginning on; a
//! new one replaces it after every epoch and at an interruption, between any two minibatches. A resumed run gives the
//! numbers that an uninterrupted one gives. NaN and values out of range end a run with an error and never reach a
//! checkpoint. Nothing here knows what a model computes.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::ArgMatches;
use serde_json::Value;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::files::{DirectoryLock, create_plain, first_there, remove_partial_files};
use crate::log::{Done, Epoch, Event, RunLog, Start};
use crate::model::{Model, Setting, Settings};
use crate::plot::learning_curve;
use crate::progress::Progress;
use crate::training::{LARGEST_MEASURE, Position, Step, Training};

/// Name of the checkpoint in the directory of a run.
pub const CHECKPOINT: &str = "checkpoint.safetensors";
/// Name of the log in the directory of a run.
pub const LOG: &str = "log.jsonl";
/// Name of the plot in the directory of a run.
pub const LEARNING_CURVE: &str = "learning_curve.svg";

/// Where a run is kept and how it shows itself.
pub struct Console<'a> {
    /// The directory; it is made if need be.
    pub directory: &'a Path,
    /// What becomes of a run that is in the directory already.
    pub begin: Begin,
    /// Gets every line of the log; progress for people is shown only without it.
    pub log_output: Option<Box<dyn Write + Send>>,
    /// Asked before every minibatch whether to save and stop.
    pub stop: &'a dyn Fn() -> bool,
}

/// How a run begins in a directory that may hold one already.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Begin {
    /// From the start; a run that is there is an error.
    New,
    /// From the start; a run that is there is lost.
    Overwrite,
    /// From the checkpoint that is there.
    Resume,
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
    model: &Model,
    settings: &Settings,
    options: &ArgMatches,
    console: Console<'_>,
) -> Result<Outcome, TrainError> {
    let started = Instant::now();
    let resume = console.begin == Begin::Resume;
    // Before the data are read, so that nobody waits for that in vain.
    let lock = if console.directory.is_dir() { Some(claim(console.directory, console.begin)?) } else { None };
    let mut training = model.trainer.prepare(settings, options)?;
    let mut listed = training.settings().to_vec();
    listed.push(Setting::decisive("device", device_name(settings.device)));
    listed.extend(settings.threads.map(|threads| Setting::free("threads", threads)));
    let path = console.directory.join(CHECKPOINT);
    let mut run = Run {
        model: model.name,
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
    let (mut log, _lock) = if resume {
        run.restore(&mut training)?;
        let (log, epochs) = RunLog::resume(&log_path, training.position().epochs, console.log_output)?;
        run.epochs = epochs;
        (log, lock)
    } else {
        run.make_directory()?;
        let lock = match lock {
            Some(lock) => lock,
            None => claim(console.directory, console.begin)?,
        };
        run.snapshot(&training)?.write(&run.path)?;
        (RunLog::create(&log_path, console.log_output)?, Some(lock))
    };
    // Catch signals before the run prints anything: whoever waits for that may send one.
    let mut stopping = (console.stop)();
    log.write(&run.start_event(resume.then(|| training.position())))?;
    let position = training.position();
    let mut progress = if json {
        Progress::hidden()
    } else {
        Progress::on_stderr(training.epochs(), training.batches_per_epoch(), position.epochs)
    };
    progress.advance(position.batches);
    let mut first = true;
    loop {
        if stopping {
            progress.finish();
            run.snapshot(&training)?.write(&run.path)?;
            run.write_pictures(&training)?;
            return Ok(Outcome::Interrupted { position: training.position(), checkpoint: run.path });
        }
        match training.step()? {
            Step::Batch => {
                if first {
                    // What is useless after one step need not be trained for an epoch.
                    run.snapshot(&training)?;
                }
                progress.advance(1);
            }
            Step::Epoch(mut epoch) => {
                epoch.seconds = run.seconds();
                let checkpoint = run.snapshot(&training)?;
                expect_numbers(&epoch, training.batches_per_epoch())?;
                progress.advance(1);
                progress.epoch(&epoch);
                log.write(&Event::Epoch(epoch.clone()))?;
                run.epochs.push(epoch);
                checkpoint.write(&run.path)?;
                run.files.append(&mut training.write_epoch_pictures(run.directory)?);
            }
            Step::Done(mut done) => {
                done.seconds = run.seconds();
                progress.finish();
                log.write(&Event::Done(done.clone()))?;
                run.snapshot(&training)?.write(&run.path)?;
                let mut files = vec![run.path.clone(), log_path];
                files.append(&mut run.files);
                files.append(&mut run.write_pictures(&training)?);
                return Ok(Outcome::Finished { done, epochs: training.position().epochs, files });
            }
        }
        first = false;
        stopping = (console.stop)();
    }
}

/// Locks the directory of a run, removes what killed runs left half written, and looks whether there is a run already.
fn claim(directory: &Path, begin: Begin) -> Result<DirectoryLock, TrainError> {
    let failed = |source| TrainError::Directory { path: directory.to_owned(), source };
    let lock = DirectoryLock::take(directory).map_err(failed)?;
    let lock = lock.ok_or_else(|| TrainError::Locked { path: directory.to_owned() })?;
    if let (Begin::New, Some(path)) = (begin, first_there(directory, &[CHECKPOINT, LOG])) {
        return Err(TrainError::Present { path });
    }
    remove_partial_files(directory).map_err(failed)?;
    Ok(lock)
}

/// Checks what an epoch reports.
fn expect_numbers(epoch: &Epoch, batches: u64) -> Result<(), TrainError> {
    let own = [
        ("train_cost", epoch.train_cost),
        ("valid_error", epoch.valid_error),
        ("test_error", epoch.test_error),
    ];
    let own = own.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let measured = epoch.measures.iter().map(|(name, value)| (name.as_str(), *value));
    match own.chain(measured).find(|(_, value)| value.is_nan() || value.abs() > LARGEST_MEASURE) {
        None => Ok(()),
        Some((name, value)) => Err(TrainError::Useless {
            position: Position { epochs: epoch.epoch, batches },
            reason: format!("expected the mean {name} to be a number of sensible size, found {value}"),
        }),
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

    /// The state as a checkpoint, unless it is one that nobody wants.
    fn snapshot(&self, training: &Training) -> Result<Checkpoint, TrainError> {
        let mut checkpoint = Checkpoint::new();
        training.save(&mut checkpoint)?;
        if let Some(reason) = checkpoint.fault_of_values() {
            return Err(TrainError::Useless { position: training.last_step(), reason });
        }
        checkpoint.metadata.insert(MODEL.to_owned(), self.model.to_owned());
        checkpoint.save_number(SECONDS, self.seconds());
        for setting in &self.settings {
            checkpoint.save_setting(setting.name, &setting.value);
        }
        Ok(checkpoint)
    }

    fn restore(&mut self, training: &mut Training) -> Result<(), TrainError> {
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
                let theirs = checkpoint.setting_text(setting.name)?;
                compare(setting.name, &setting.value.to_string(), theirs);
            }
        }
        if !differences.is_empty() {
            return Err(TrainError::Differs { path: self.path.clone(), differences });
        }
        if let Some(reason) = checkpoint.fault_of_values() {
            return Err(checkpoint.fault(reason));
        }
        let seconds = checkpoint.float(SECONDS)?;
        if seconds < 0.0 {
            return Err(checkpoint.fault(format!("expected {SECONDS} of 0 or more, found {seconds}")));
        }
        training.restore(&checkpoint)?;
        self.seconds_before = seconds;
        Ok(())
    }

    fn write_pictures(&self, training: &Training) -> Result<Vec<PathBuf>, TrainError> {
        let curve = self.directory.join(LEARNING_CURVE);
        let text = learning_curve(self.model, &self.epochs, training.best_epoch());
        create_plain(&curve)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| TrainError::Write { path: curve.clone(), source })?;
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
