//! Runs of the RNN-RBM: interrupted and resumed, with every option, and the tunes it plays.

use std::cell::Cell;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use hypatia_cli::checkpoint::Checkpoint;
use hypatia_cli::error::TrainError;
use hypatia_cli::log::Epoch;
use hypatia_cli::model::{Settings, Source};
use hypatia_cli::models::find_model;
use hypatia_cli::run::{Begin, CHECKPOINT, Console, LOG, Outcome, train};
use hypatia_cli::sample::sample;
use hypatia_datasets::music::{PIANO, Sampling, TuneSet, generate_tunes, read_midi, write_midi};

const SMALL: [&str; 6] = ["--hidden", "9", "--recurrent", "7", "--gibbs-steps", "3"];
const MONITOR: &str = "log_likelihood_proxy";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(source: Source, epochs: u64) -> Settings {
    Settings { epochs, threads: Some(1), ..find_model("rnn-rbm").unwrap().settings(source) }
}

/// Trains in a directory; asked for the `stop_after`-th time, the run is told to stop.
fn run(
    words: &[&str],
    settings: &Settings,
    directory: &Path,
    resume: bool,
    stop_after: usize,
) -> Result<Outcome, TrainError> {
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > stop_after
    };
    let model = find_model("rnn-rbm").unwrap();
    let words: Vec<&str> = SMALL.iter().chain(words).copied().collect();
    let options = model.trainer.parse_options(&words).unwrap();
    let log_output: Option<Box<dyn Write + Send>> = Some(Box::new(Lines::default()));
    let begin = if resume { Begin::Resume } else { Begin::Overwrite };
    train(model, settings, &options, Console { directory, begin, log_output, stop: &stop })
}

fn epochs(directory: &Path) -> Vec<Epoch> {
    let log = fs::read_to_string(directory.join(LOG)).unwrap();
    log.lines().filter_map(Epoch::parse).map(|epoch| Epoch { seconds: 0.0, ..epoch }).collect()
}

fn tensors(directory: &Path) -> impl PartialEq + std::fmt::Debug {
    Checkpoint::read(&directory.join(CHECKPOINT)).unwrap().tensors
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_numbers() {
    let words = ["--pretraining-epochs", "1", "--momentum", "0.5", "--clip", "2", "--learn-initial-state"];
    let directory = tempfile::tempdir().unwrap();
    let (whole, cut) = (directory.path().join("whole"), directory.path().join("cut"));
    let settings = settings(Source::Generated(3), 2);
    assert!(matches!(run(&words, &settings, &whole, false, usize::MAX), Ok(Outcome::Finished { .. })));
    let expected = epochs(&whole);
    assert_eq!(expected.len(), 3);
    let phases: Vec<(String, u64)> = expected
        .iter()
        .map(|epoch| epoch.phase.clone().unwrap())
        .map(|phase| (phase.name, phase.epoch))
        .collect();
    let phase = |name: &str, epoch| (name.to_owned(), epoch);
    assert_eq!(phases, [phase("pre-training", 1), phase("training", 1), phase("training", 2)]);
    for stops in [&[0][..], &[2], &[4], &[7], &[1, 3, 2]] {
        for (number, stop_after) in stops.iter().chain(&[usize::MAX]).enumerate() {
            let outcome = run(&words, &settings, &cut, number > 0, *stop_after).unwrap();
            assert_eq!(matches!(outcome, Outcome::Finished { .. }), number == stops.len());
        }
        assert_eq!(epochs(&cut), expected, "{stops:?}");
        assert!(tensors(&cut) == tensors(&whole), "{stops:?}");
    }
    let error = run(&["--momentum", "0.9"], &settings, &cut, true, 0).unwrap_err().to_string();
    assert!(error.contains("momentum: the checkpoint has 0.5, this run 0.9"), "{error}");
}

#[test]
fn training_raises_the_monitor() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { learning_rate: 0.01, ..settings(Source::Generated(10), 6) };
    run(&[], &settings, directory.path(), false, usize::MAX).unwrap();
    let monitors: Vec<f64> = epochs(directory.path()).iter().map(|epoch| epoch.measures[MONITOR]).collect();
    // At the start every key is a fair coin: 88 log(1/2) = -61.
    assert!(monitors[0] > -61.0 && monitors[5] > -47.0, "{monitors:?}");
    assert!(monitors.is_sorted(), "{monitors:?}");
}

#[test]
fn a_trained_model_plays_tunes() {
    let directory = tempfile::tempdir().unwrap();
    let music = directory.path().join("one.mid");
    fs::write(&music, write_midi(&generate_tunes(1, TuneSet::Train, 1, &Sampling::default())[0], 0.3))
        .unwrap();
    let settings = settings(Source::Path(music), 1);
    let run_directory = directory.path().join("run");
    run(&[], &settings, &run_directory, false, usize::MAX).unwrap();
    let model = find_model("rnn-rbm").unwrap();
    let command =
        model.sampler.as_ref().unwrap().add_options(clap::Command::new("sample").no_binary_name(true));
    let options = command.try_get_matches_from(["--frames", "30", "--gibbs-steps", "2"]).unwrap();
    let files = sample(model, &settings, &options, &run_directory).unwrap();
    let names: Vec<&str> = files.iter().map(|file| file.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["sample1.mid", "sample1.png", "sample2.mid", "sample2.png"]);
    let tunes: Vec<_> = [0, 2]
        .iter()
        .map(|file| read_midi(&fs::read(&files[*file]).unwrap(), &Sampling::default()).unwrap())
        .collect();
    // After one epoch the machine is hardly more than noise, of which half the keys sound; two tunes are two draws.
    assert!(tunes[0].frames() == 30 && tunes[0].cells() != tunes[1].cells());
    let on: usize = tunes[0].cells().iter().map(|cell| usize::from(*cell)).sum();
    assert!((30 * PIANO.len() / 10..30 * PIANO.len()).contains(&on), "{on}");
}

/// The tutorial's log: -15.03 after the first epoch, -10.49 after the second.
#[test]
fn training_on_nottingham_goes_as_published() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/music/Nottingham.tar.gz");
    if !path.exists() || std::env::var_os("HYPATIA_LONG").is_none() {
        eprintln!("skipped: no {} here, or HYPATIA_LONG is not set", path.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let model = find_model("rnn-rbm").unwrap();
    let options = model.trainer.parse_options(&[]).unwrap();
    let console = Console {
        directory: directory.path(),
        begin: Begin::New,
        log_output: Some(Box::new(io::sink())),
        stop: &|| false,
    };
    train(model, &settings(Source::Path(path), 2), &options, console).unwrap();
    let monitors: Vec<f64> = epochs(directory.path()).iter().map(|epoch| epoch.measures[MONITOR]).collect();
    assert!((monitors[0] + 15.03).abs() < 0.3 && (monitors[1] + 10.49).abs() < 0.15, "{monitors:?}");
}
