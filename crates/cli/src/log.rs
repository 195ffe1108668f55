//! The log of a training run: JSON lines, on standard output for programs and in a file for later.
//!
//! One line is one event: `start`, then one `epoch` after each epoch, then `done`. Errors are fractions, epochs count
//! from 1 over all phases of a run, and a field that does not apply is left out; a number that is not finite is `null`.
//! What a model measures beside costs and errors stands under its own name. The file is at any time a beginning of the
//! run, and a resumed run continues it from the epoch of its checkpoint.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use hypatia_datasets::files::read_plain;
use serde_json::Value;
use thiserror::Error;

use crate::files::{create_plain, replace_file};

/// Something that a training run reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The run begins, or goes on.
    Start(Start),
    /// An epoch is over.
    Epoch(Epoch),
    /// The run is over.
    Done(Done),
}

/// What is being trained, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Name of the model.
    pub model: String,
    /// Settings in the order in which they are shown: data, seed, learning rate and so on.
    pub settings: Vec<(String, Value)>,
}

/// What a model measures by itself, by name: `pseudo_likelihood`, `acceptance_rate`. A name is an
/// identifier and not one of the other fields of an event.
pub type Measures = BTreeMap<String, f64>;

/// A part of a run with an aim of its own, as the pre-training of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Phase {
    /// Its name, for people.
    pub name: String,
    /// Number of the epoch within it, from 1.
    pub epoch: u64,
    /// The largest number of epochs it has.
    pub epochs: u64,
}

/// The results of an epoch.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Epoch {
    /// Number of the epoch, from 1, over all phases.
    pub epoch: u64,
    /// The phase it belongs to, for models that are trained in several.
    pub phase: Option<Phase>,
    /// Mean cost over the training minibatches.
    pub train_cost: Option<f64>,
    /// Validation error as a fraction, for models with labels.
    pub valid_error: Option<f64>,
    /// Test error as a fraction, when the validation error is the best so far.
    pub test_error: Option<f64>,
    /// What the model measures by itself.
    pub measures: Measures,
    /// Seconds since the beginning of the run.
    pub seconds: f64,
}

/// The results of the run.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Done {
    /// The best validation error as a fraction, for models with labels.
    pub best_valid_error: Option<f64>,
    /// The test error that belongs to it.
    pub test_error: Option<f64>,
    /// What the model measures by itself, as it was at the end.
    pub measures: Measures,
    /// Seconds since the beginning of the run.
    pub seconds: f64,
}

const EVENT: &str = "event";
const EPOCH: &str = "epoch";
const PHASE: &str = "phase";
const PHASE_EPOCH: &str = "phase_epoch";
const PHASE_EPOCHS: &str = "phase_epochs";
const TRAIN_COST: &str = "train_cost";
const VALID_ERROR: &str = "valid_error";
const TEST_ERROR: &str = "test_error";
const SECONDS: &str = "seconds";

/// The fields of an epoch that are not its own measures.
const EPOCH_FIELDS: [&str; 9] =
    [EVENT, EPOCH, PHASE, PHASE_EPOCH, PHASE_EPOCHS, TRAIN_COST, VALID_ERROR, TEST_ERROR, SECONDS];

impl Event {
    fn fields(&self) -> Vec<(&str, Value)> {
        fn optional(name: &str, value: Option<f64>) -> Option<(&str, Value)> {
            value.map(|value| (name, Value::from(value)))
        }
        fn measured(measures: &Measures) -> impl Iterator<Item = (&str, Value)> {
            measures.iter().map(|(name, value)| (name.as_str(), Value::from(*value)))
        }
        match self {
            Self::Start(start) => {
                let settings = start.settings.iter().map(|(name, value)| (name.as_str(), value.clone()));
                [(EVENT, "start".into()), ("model", start.model.as_str().into())]
                    .into_iter()
                    .chain(settings)
                    .collect()
            }
            Self::Epoch(epoch) => [(EVENT, "epoch".into()), (EPOCH, epoch.epoch.into())]
                .into_iter()
                .chain(epoch.phase.iter().flat_map(|phase| {
                    [
                        (PHASE, phase.name.as_str().into()),
                        (PHASE_EPOCH, phase.epoch.into()),
                        (PHASE_EPOCHS, phase.epochs.into()),
                    ]
                }))
                .chain(optional(TRAIN_COST, epoch.train_cost))
                .chain(optional(VALID_ERROR, epoch.valid_error))
                .chain(optional(TEST_ERROR, epoch.test_error))
                .chain(measured(&epoch.measures))
                .chain([(SECONDS, epoch.seconds.into())])
                .collect(),
            Self::Done(done) => [(EVENT, "done".into())]
                .into_iter()
                .chain(optional("best_valid_error", done.best_valid_error))
                .chain(optional(TEST_ERROR, done.test_error))
                .chain(measured(&done.measures))
                .chain([(SECONDS, done.seconds.into())])
                .collect(),
        }
    }
}

/// The event as one JSON object, its fields in a fixed order, without a line feed.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (name, value)) in self.fields().into_iter().enumerate() {
            let separator = if number == 0 { '{' } else { ',' };
            write!(f, "{separator}{}:{value}", Value::from(name))?;
        }
        f.write_str("}")
    }
}

impl Epoch {
    /// Reads back the line that an epoch was logged as; `None` for any other line.
    #[must_use]
    pub fn parse(line: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(line).ok()?;
        // What was not finite was written as null.
        let float = |value: &Value| if value.is_null() { Some(f64::NAN) } else { value.as_f64() };
        let number = |name: &str| value.get(name).and_then(float);
        (value.get(EVENT)?.as_str()? == "epoch").then_some(())?;
        let phase = value.get(PHASE).and_then(|name| {
            Some(Phase {
                name: name.as_str()?.to_owned(),
                epoch: value.get(PHASE_EPOCH)?.as_u64()?,
                epochs: value.get(PHASE_EPOCHS)?.as_u64()?,
            })
        });
        let others = value.as_object()?.iter().filter(|(name, _)| !EPOCH_FIELDS.contains(&name.as_str()));
        Some(Self {
            epoch: value.get(EPOCH)?.as_u64()?,
            phase,
            train_cost: number(TRAIN_COST),
            valid_error: number(VALID_ERROR),
            test_error: number(TEST_ERROR),
            measures: others.filter_map(|(name, value)| Some((name.clone(), float(value)?))).collect(),
            seconds: number(SECONDS)?,
        })
    }
}

/// Why the log cannot be kept.
#[derive(Debug, Error)]
pub enum LogError {
    /// The file or its directory cannot be read or written.
    #[error("cannot keep the log {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Standard output is closed or full.
    #[error("cannot write the log to standard output: {0}")]
    Output(#[source] io::Error),
}

/// The longest log that is read: 1 GiB, some five million epochs.
const MOST_BYTES: u64 = 1 << 30;

/// Writes events to the file of a run, and if asked to, to an output as well.
pub struct RunLog {
    path: PathBuf,
    file: File,
    output: Option<Box<dyn Write + Send>>,
}

impl RunLog {
    /// Begins the log of a new run at `path`, making its directory if need be and replacing an earlier log.
    ///
    /// `output` gets the same lines: standard output under `--json`, nothing otherwise.
    ///
    /// # Errors
    ///
    /// [`LogError::File`].
    pub fn create(path: &Path, output: Option<Box<dyn Write + Send>>) -> Result<Self, LogError> {
        let error = |source| LogError::File { path: path.to_owned(), source };
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(error)?;
        }
        let file = create_plain(path).map_err(error)?;
        Ok(Self { path: path.to_owned(), file, output })
    }

    /// Continues the log of a run that goes on after `epochs_done` epochs, and returns those epochs.
    ///
    /// Lines of later epochs, of the end of the run, and a line that was cut off are taken out: they will be written
    /// again. A log that does not exist is begun.
    ///
    /// # Errors
    ///
    /// [`LogError::File`].
    pub fn resume(
        path: &Path,
        epochs_done: u64,
        output: Option<Box<dyn Write + Send>>,
    ) -> Result<(Self, Vec<Epoch>), LogError> {
        let error = |source| LogError::File { path: path.to_owned(), source };
        let text = match read_plain(path, MOST_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
                return Ok((Self::create(path, output)?, Vec::new()));
            }
            Err(source) => return Err(error(source)),
        };
        let mut epochs = Vec::new();
        let mut kept = String::new();
        for line in text.lines() {
            let keep = match Epoch::parse(line) {
                Some(epoch) if epoch.epoch <= epochs_done => {
                    epochs.push(epoch);
                    true
                }
                Some(_) => false,
                None => {
                    let event = serde_json::from_str::<Value>(line).ok();
                    event.is_some_and(|event| event.get("event") == Some(&"start".into()))
                }
            };
            if keep {
                kept.push_str(line);
                kept.push('\n');
            }
        }
        replace_file(path, |file| file.write_all(kept.as_bytes())).map_err(error)?;
        let file = OpenOptions::new().append(true).open(path).map_err(error)?;
        Ok((Self { path: path.to_owned(), file, output }, epochs))
    }

    /// Writes one event as one line, at once.
    ///
    /// # Errors
    ///
    /// [`LogError::File`] or [`LogError::Output`].
    pub fn write(&mut self, event: &Event) -> Result<(), LogError> {
        let line = format!("{event}\n");
        if let Some(output) = &mut self.output {
            output.write_all(line.as_bytes()).and_then(|()| output.flush()).map_err(LogError::Output)?;
        }
        self.file
            .write_all(line.as_bytes())
            .map_err(|source| LogError::File { path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    fn epoch(number: u64) -> Epoch {
        let valid_error = Some(0.12458333333333334);
        Epoch { epoch: number, train_cost: Some(1.5), valid_error, seconds: 0.25, ..Epoch::default() }
    }

    #[test]
    fn events_are_the_objects_of_the_contract() {
        let settings = vec![("batch_size".to_owned(), json!(600)), ("data".to_owned(), json!("a \"b\""))];
        let start = Event::Start(Start { model: "logreg".to_owned(), settings });
        assert_eq!(
            start.to_string(),
            r#"{"event":"start","model":"logreg","batch_size":600,"data":"a \"b\""}"#
        );
        assert_eq!(
            Event::Epoch(Epoch { test_error: Some(0.125), ..epoch(1) }).to_string(),
            r#"{"event":"epoch","epoch":1,"train_cost":1.5,"valid_error":0.12458333333333334,"test_error":0.125,"seconds":0.25}"#
        );
        let without_labels = Epoch { epoch: 2, train_cost: Some(f64::NAN), seconds: 1.0, ..Epoch::default() };
        assert_eq!(
            Event::Epoch(without_labels).to_string(),
            r#"{"event":"epoch","epoch":2,"train_cost":null,"seconds":1.0}"#
        );
        let done = Done {
            best_valid_error: Some(0.075),
            test_error: Some(0.07489583333333333),
            seconds: 9.5,
            ..Done::default()
        };
        assert_eq!(
            Event::Done(done).to_string(),
            r#"{"event":"done","best_valid_error":0.075,"test_error":0.07489583333333333,"seconds":9.5}"#
        );
    }

    #[test]
    fn measures_and_phases_have_their_own_fields() {
        let phase = Some(Phase { name: "layer 2".to_owned(), epoch: 4, epochs: 100 });
        let measures =
            Measures::from([("pseudo_likelihood".to_owned(), -90.5), ("chains".to_owned(), f64::NAN)]);
        let epoch = Epoch { epoch: 104, phase, measures: measures.clone(), ..Epoch::default() };
        let line = Event::Epoch(epoch.clone()).to_string();
        assert_eq!(
            line,
            r#"{"event":"epoch","epoch":104,"phase":"layer 2","phase_epoch":4,"phase_epochs":100,"chains":null,"pseudo_likelihood":-90.5,"seconds":0.0}"#
        );
        let read = Epoch::parse(&line).unwrap();
        assert!(read.measures["chains"].is_nan());
        assert_eq!((read.phase, read.measures["pseudo_likelihood"]), (epoch.phase, -90.5));
        let done = Done { measures, seconds: 2.0, ..Done::default() };
        let line = Event::Done(done).to_string();
        assert_eq!(line, r#"{"event":"done","chains":null,"pseudo_likelihood":-90.5,"seconds":2.0}"#);
    }

    #[test]
    fn epochs_are_read_back() {
        let line = Event::Epoch(epoch(3)).to_string();
        assert_eq!(Epoch::parse(&line), Some(epoch(3)));
        let diverged = Epoch { train_cost: Some(f64::INFINITY), ..epoch(4) };
        let read = Epoch::parse(&Event::Epoch(diverged).to_string()).unwrap();
        assert!(read.train_cost.unwrap().is_nan());
        assert_eq!(Epoch::parse(r#"{"event":"done","seconds":1.0}"#), None);
        assert_eq!(Epoch::parse(&line[..line.len() - 3]), None);
    }

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_file_and_the_output_get_the_same_lines() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("runs").join("mlp").join("log.jsonl");
        let output = Buffer::default();
        let mut log = RunLog::create(&path, Some(Box::new(output.clone()))).unwrap();
        log.write(&Event::Start(Start { model: "mlp".to_owned(), settings: Vec::new() })).unwrap();
        log.write(&Event::Epoch(epoch(1))).unwrap();
        log.write(&Event::Done(Done::default())).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.as_bytes(), output.0.lock().unwrap().as_slice());
        assert_eq!(text.lines().count(), 3);
    }

    #[test]
    fn a_resumed_log_continues_after_its_checkpoint() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log.jsonl");
        let mut log = RunLog::create(&path, None).unwrap();
        log.write(&Event::Start(Start { model: "mlp".to_owned(), settings: Vec::new() })).unwrap();
        for number in 1..=3 {
            log.write(&Event::Epoch(epoch(number))).unwrap();
        }
        // The run was killed while it wrote a line.
        OpenOptions::new().append(true).open(&path).unwrap().write_all(br#"{"event":"epo"#).unwrap();
        let (mut log, epochs) = RunLog::resume(&path, 2, None).unwrap();
        assert_eq!(epochs, [epoch(1), epoch(2)]);
        log.write(&Event::Epoch(epoch(3))).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let numbers: Vec<u64> = text.lines().filter_map(Epoch::parse).map(|e| e.epoch).collect();
        assert_eq!((numbers, text.lines().count()), (vec![1, 2, 3], 4));
        let (_, none) = RunLog::resume(&directory.path().join("new.jsonl"), 0, None).unwrap();
        assert!(none.is_empty());
    }

    #[test]
    fn a_log_that_cannot_be_kept_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let error = RunLog::create(&file.join("log.jsonl"), None).err().unwrap().to_string();
        assert!(error.starts_with("cannot keep the log ") && error.contains("file"), "{error}");
    }
}
