//! Runs that are interrupted, resumed, or cannot be.

use std::cell::Cell;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::{Arc, Mutex};

use hypatia_cli::checkpoint::Checkpoint;
use hypatia_cli::error::TrainError;
use hypatia_cli::model::{Settings, Source};
use hypatia_cli::models::find_model;
use hypatia_cli::run::{Begin, CHECKPOINT, Console, LOG, Outcome, train};
use serde_json::Value;

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

impl Lines {
    /// The lines but for the first, without their seconds, which differ from run to run.
    fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let lines = text.lines().map(without_seconds);
        lines.filter(|line| !line.contains("\"start\"")).collect()
    }
}

fn without_seconds(line: &str) -> String {
    let mut value: Value = serde_json::from_str(line).unwrap();
    value.as_object_mut().unwrap().remove("seconds");
    value.to_string()
}

fn settings(model: &str) -> Settings {
    let defaults = find_model(model).unwrap().settings(Source::Generated(300));
    Settings { epochs: 6, batch_size: 20, seed: 5, threads: Some(1), ..defaults }
}

/// Trains in a directory; asked for the `stop_after`-th time, the run is told to stop.
fn run(
    model: &str,
    words: &[&str],
    settings: &Settings,
    directory: &Path,
    resume: bool,
    stop_after: usize,
) -> (Result<Outcome, TrainError>, Lines) {
    let lines = Lines::default();
    let asked = Cell::new(0);
    let stop = || {
        asked.set(asked.get() + 1);
        asked.get() > stop_after
    };
    let model = find_model(model).unwrap();
    let options = model.trainer.parse_options(words).unwrap();
    let log_output: Option<Box<dyn Write + Send>> = Some(Box::new(lines.clone()));
    let begin = if resume { Begin::Resume } else { Begin::Overwrite };
    let outcome = train(model, settings, &options, Console { directory, begin, log_output, stop: &stop });
    (outcome, lines)
}

fn finished(result: Result<Outcome, TrainError>) -> bool {
    matches!(result.unwrap(), Outcome::Finished { .. })
}

/// The state of a run but for the time it took.
fn state(directory: &Path) -> Checkpoint {
    let mut checkpoint = Checkpoint::read(&directory.join(CHECKPOINT)).unwrap();
    assert!(checkpoint.metadata.remove("seconds").is_some());
    checkpoint
}

#[test]
fn an_interrupted_run_goes_on_with_the_same_numbers() {
    let network = ["--hidden-layers", "12,8", "--pretraining-epochs", "2"];
    let keeping = [&network[..], &["--keep-activations"]].concat();
    let stack = [&network[..], &["--corruption", "0.1,0.2"]].concat();
    let stack_keeping = [&stack[..], &["--keep-activations"]].concat();
    let mcrbm = ["--patch-side", "6", "--components", "12", "--covariance", "8", "--mean", "4"];
    // Before the first minibatch, within epochs, between two of them, between phases, several times in one run. There
    // are 15 minibatches in an epoch.
    let every: &[&[usize]] = &[&[0], &[1], &[14], &[15], &[37], &[60], &[4, 0, 11, 30]];
    let few: &[&[usize]] = &[&[37], &[60], &[4, 0, 11, 30]];
    for (model, words, epochs, cuts) in [
        ("logreg", &[][..], 6, every),
        ("mlp", &["--hidden", "30"], 6, few),
        ("lenet", &["--filters", "2", "3", "--hidden", "10"], 6, few),
        ("da", &["--hidden", "20", "--corruption", "0.3"], 6, few),
        ("ca", &["--hidden", "20"], 6, every),
        ("rbm", &["--hidden", "20", "-k", "2"], 6, every),
        ("rbm", &["--hidden", "20", "-k", "1", "--cd"], 6, few),
        // Two epochs for each layer, then six.
        ("sda", &stack, 10, few),
        ("sda", &stack_keeping, 10, few),
        // Two epochs for each layer, then four, after which the patience is over.
        ("dbn", &network, 8, few),
        ("dbn", &keeping, 8, few),
        ("mcrbm", &mcrbm, 6, few),
    ] {
        goes_on(model, words, &settings(model), epochs, cuts);
    }
}

/// Of these, an epoch is 300 sentences, 15 minibatches of reviews, or one iteration.
#[test]
fn interrupted_runs_on_sequences_and_all_images_go_on_with_the_same_numbers() {
    let slots = ["--hidden", "6", "--embedding", "4", "--window", "3"];
    let reviews = ["--units", "4", "--words", "100", "--valid-every", "20"];
    let sentences = Settings { batch_size: 1, epochs: 3, ..settings("rnn-slu") };
    goes_on("rnn-slu", &slots, &sentences, 3, &[&[0], &[299], &[300, 1, 450]]);
    goes_on("lstm", &reviews, &settings("lstm"), 6, &[&[0], &[14], &[20], &[37, 0, 30]]);
    goes_on("logistic-cg", &[], &settings("logistic-cg"), 6, &[&[0], &[3], &[1, 2]]);
}

/// Whether a run that is stopped after so many minibatches and resumed, again and again, gives what a whole one gives.
fn goes_on(model: &str, words: &[&str], settings: &Settings, epochs: usize, cuts: &[&[usize]]) {
    let directory = tempfile::tempdir().unwrap();
    let (whole, cut) = (directory.path().join("whole"), directory.path().join("cut"));
    let (result, expected) = run(model, words, settings, &whole, false, usize::MAX);
    assert!(finished(result));
    let expected = expected.events();
    // Every epoch and the end.
    assert_eq!(expected.len(), epochs + 1, "{expected:?}");
    for stops in cuts {
        let mut found = Vec::new();
        for (number, stop_after) in stops.iter().chain(&[usize::MAX]).enumerate() {
            let (result, lines) = run(model, words, settings, &cut, number > 0, *stop_after);
            found.extend(lines.events());
            assert_eq!(finished(result), number == stops.len());
        }
        assert_eq!(found, expected, "{model} {stops:?}");
        assert_eq!(without_path(state(&cut)), without_path(state(&whole)), "{model} {stops:?}");
        let log = fs::read_to_string(cut.join(LOG)).unwrap();
        let logged: Vec<String> =
            log.lines().map(without_seconds).filter(|line| !line.contains("\"start\"")).collect();
        assert_eq!(logged, expected, "{model} {stops:?}");
    }
}

/// Runs of other versions go on from their checkpoints by these names.
#[test]
fn checkpoints_keep_the_names_of_what_they_hold() {
    const STOPPING: &str = "early_stopping.best_iteration early_stopping.best_valid_error \
                            early_stopping.patience early_stopping.test_error epoch.cost_sum";
    const MONITOR: &str = "monitor.last monitor.sum";
    let pretrained = format!("{STOPPING} {MONITOR} pretraining.batches pretraining.epochs");
    let music = ["--hidden", "5", "--recurrent", "4", "--gibbs-steps", "1", "--momentum", "0.5"];
    let mcrbm = ["--patch-side", "6", "--components", "12", "--covariance", "8", "--mean", "4"];
    for (model, words, tensors, numbers) in [
        ("logreg", &[][..], "W b best.W best.b", STOPPING),
        (
            "mlp",
            &["--hidden", "5"],
            "best.hidden.W best.hidden.b best.output.W best.output.b hidden.W hidden.b output.W output.b",
            STOPPING,
        ),
        ("da", &["--hidden", "5"], "W bhid bvis random_streams", MONITOR),
        (
            "ca",
            &["--hidden", "5"],
            "W bhid bvis",
            "epoch.jacobian_sum epoch.printed_cost epoch.printed_norm monitor.last monitor.sum",
        ),
        (
            "sda",
            &["--hidden-layers", "5", "--corruption", "0.1", "--pretraining-epochs", "1"],
            "best.layer_1.W best.layer_1.b best.output.W best.output.b layer_1.W layer_1.b layer_1.bvis \
             output.W output.b random_streams",
            &pretrained,
        ),
        (
            "rbm",
            &["--hidden", "5", "-k", "1"],
            "W bit_i_idx hbias persistent_chain random_streams vbias",
            MONITOR,
        ),
        ("rbm", &["--hidden", "5", "-k", "1", "--cd"], "W hbias random_streams vbias", MONITOR),
        (
            "dbn",
            &["--hidden-layers", "5", "--pretraining-epochs", "1"],
            "best.layer_1.W best.layer_1.b best.output.W best.output.b layer_1.W layer_1.b layer_1.vbias \
             output.W output.b random_streams",
            &pretrained,
        ),
        (
            "rnn-rbm",
            &music,
            "W Wuh Wuu Wuv Wvu bh bu bv random_streams u0 velocity.W velocity.Wuh velocity.Wuu velocity.Wuv \
             velocity.Wvu velocity.bh velocity.bu velocity.bv",
            "epoch.monitor_sum log_likelihood_proxy",
        ),
        (
            "mcrbm",
            &mcrbm,
            "U W a avg_acceptance_rate b c iteration norm_vf particles random stepsize",
            "epoch.accepted_sum epoch.cost_sum",
        ),
    ] {
        let source = if model == "rnn-rbm" { Source::Generated(2) } else { Source::Generated(300) };
        let settings = Settings { source, epochs: 1, ..settings(model) };
        let directory = tempfile::tempdir().unwrap();
        assert!(finished(run(model, words, &settings, directory.path(), false, usize::MAX).0));
        let checkpoint = state(directory.path());
        let found: Vec<&str> = checkpoint.tensors.keys().map(String::as_str).collect();
        assert_eq!(found, tensors.split_whitespace().collect::<Vec<_>>(), "{model}");
        let mut numbers: Vec<&str> = numbers.split_whitespace().collect();
        numbers.extend(["model", "position.batches", "position.epochs"]);
        numbers.sort_unstable();
        let found = checkpoint.metadata.keys().filter(|name| !name.starts_with("setting."));
        assert_eq!(found.collect::<Vec<_>>(), numbers, "{model}");
    }
}

/// Where an epoch is longer than half the patience, errors are measured within it and remembered to its end.
#[test]
fn an_error_measured_within_an_epoch_survives_an_interruption() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, cut) = (directory.path().join("whole"), directory.path().join("cut"));
    let settings =
        Settings { source: Source::Generated(2600), batch_size: 1, epochs: 1, ..settings("logreg") };
    let (result, expected) = run("logreg", &[], &settings, &whole, false, usize::MAX);
    assert!(finished(result));
    let expected = expected.events();
    assert!(expected[0].contains("valid_error") && expected[0].contains("test_error"), "{expected:?}");
    // Validation is due after 2,500 of the 2,600 minibatches.
    assert!(!finished(run("logreg", &[], &settings, &cut, false, 2_550).0));
    let (result, found) = run("logreg", &[], &settings, &cut, true, usize::MAX);
    assert!(finished(result));
    assert_eq!(found.events(), expected);
}

/// Checkpoints compare by what they hold, wherever they lie.
fn without_path(
    checkpoint: Checkpoint,
) -> (impl PartialEq + std::fmt::Debug, impl PartialEq + std::fmt::Debug) {
    (checkpoint.tensors, checkpoint.metadata)
}

#[test]
fn a_finished_run_can_be_made_longer() {
    let directory = tempfile::tempdir().unwrap();
    let (whole, grown) = (directory.path().join("whole"), directory.path().join("grown"));
    let long = settings("logreg");
    let short = Settings { epochs: 2, threads: Some(2), ..long.clone() };
    let (result, expected) = run("logreg", &[], &long, &whole, false, usize::MAX);
    assert!(finished(result));
    assert!(finished(run("logreg", &[], &short, &grown, false, usize::MAX).0));
    let (result, rest) = run("logreg", &[], &long, &grown, true, usize::MAX);
    assert!(finished(result));
    assert_eq!(rest.events(), expected.events()[2..]);
    // There is nothing left to do.
    let (result, rest) = run("logreg", &[], &long, &grown, true, usize::MAX);
    assert!(finished(result));
    assert_eq!(rest.events(), expected.events()[6..]);
}

#[test]
fn two_threads_give_the_numbers_of_one() {
    let directory = tempfile::tempdir().unwrap();
    let (one, two) = (directory.path().join("one"), directory.path().join("two"));
    let settings = settings("mlp");
    let both = Settings { threads: Some(2), ..settings.clone() };
    let (result, expected) = run("mlp", &[], &settings, &one, false, usize::MAX);
    assert!(finished(result));
    let (result, found) = run("mlp", &[], &both, &two, false, usize::MAX);
    assert!(finished(result));
    assert_eq!(found.events(), expected.events());
    assert_eq!(state(&one).tensors, state(&two).tensors);
}

#[test]
fn a_run_of_other_settings_is_not_resumed() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let settings = settings("mlp");
    let words = ["--hidden", "30"];
    assert!(!finished(run("mlp", &words, &settings, directory, false, 3).0));
    let before = fs::read(directory.join(CHECKPOINT)).unwrap();
    let other = Settings { learning_rate: 0.5, batch_size: 10, ..settings.clone() };
    let message = |result: (Result<Outcome, TrainError>, Lines)| result.0.unwrap_err().to_string();
    let error = message(run("mlp", &["--hidden", "31"], &other, directory, true, 0));
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines[0].starts_with("cannot resume from ") && lines[0].ends_with("it belongs to another run"));
    assert_eq!(
        lines[1..],
        [
            "  batch_size: the checkpoint has 20, this run 10",
            "  learning_rate: the checkpoint has 0.01, this run 0.5",
            "  hidden: the checkpoint has 30, this run 31",
        ]
    );
    let error = message(run("mlp", &words, &Settings { seed: 6, ..settings.clone() }, directory, true, 0));
    assert!(error.contains("  data_crc32: the checkpoint has \"") && error.contains("  seed: "), "{error}");
    let error = message(run("logreg", &[], &settings, directory, true, 0));
    assert!(error.ends_with("  model: the checkpoint has mlp, this run logreg"), "{error}");
    // Nothing of it is lost.
    assert_eq!(fs::read(directory.join(CHECKPOINT)).unwrap(), before);
    assert!(finished(run("mlp", &words, &settings, directory, true, usize::MAX).0));
}

/// Whatever is wrong with a checkpoint, there is a message that names it and the file stays.
#[test]
fn a_damaged_checkpoint_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let settings = settings("logreg");
    let path = directory.join(CHECKPOINT);
    let error = run("logreg", &[], &settings, directory, true, 0).0.unwrap_err().to_string();
    assert!(error.starts_with("cannot read checkpoint ") && error.contains(CHECKPOINT), "{error}");
    assert!(!finished(run("logreg", &[], &settings, directory, false, 20).0));
    let whole = Checkpoint::read(&path).unwrap();
    let damage = |name: &str, text: &str| {
        let mut damaged = whole.clone();
        damaged.metadata.insert(name.to_owned(), text.to_owned());
        damaged.write(&path).unwrap();
        run("logreg", &[], &settings, directory, true, 0).0.unwrap_err().to_string()
    };
    for (name, text, expected) in [
        ("position.batches", "many", "expected position.batches to be a number, found \"many\""),
        ("position.batches", "15", "expected a position within epochs of 15 minibatches"),
        ("position.epochs", "18446744073709551615", "expected a position within epochs of 15 minibatches"),
        ("seconds", "", "expected seconds to be a number"),
        ("early_stopping.patience", "-1", "expected early_stopping.patience to be a number"),
        ("epoch.cost_sum", "nan", "expected epoch.cost_sum to be a finite number, found NaN"),
        ("epoch.cost_sum", "inf", "expected epoch.cost_sum to be a finite number"),
        ("seconds", "-1", "expected seconds of 0 or more"),
        ("early_stopping.best_valid_error", "nan", "early_stopping.best_valid_error"),
        ("early_stopping.best_valid_error", "-1", "early_stopping.best_valid_error"),
    ] {
        let error = damage(name, text);
        assert!(error.contains(expected) && error.contains(CHECKPOINT), "{error}");
    }
    for value in [f32::NAN, f32::INFINITY, -1e30] {
        let mut damaged = whole.clone();
        damaged.tensors.get_mut("b").unwrap().bytes[..4].copy_from_slice(&value.to_le_bytes());
        damaged.write(&path).unwrap();
        let error = run("logreg", &[], &settings, directory, true, 0).0.unwrap_err().to_string();
        assert!(error.contains("tensor b: expected numbers from -1e6 to 1e6"), "{error}");
    }
    let mut damaged = whole.clone();
    damaged.tensors.remove("b");
    damaged.write(&path).unwrap();
    let error = run("logreg", &[], &settings, directory, true, 0).0.unwrap_err().to_string();
    assert!(error.contains("expected tensor b, found none"), "{error}");
    let mut damaged = whole.clone();
    let (w, b) = (damaged.tensors["W"].clone(), damaged.tensors["b"].clone());
    damaged.tensors.insert("b".to_owned(), w);
    damaged.tensors.insert("c".to_owned(), b);
    damaged.write(&path).unwrap();
    let error = run("logreg", &[], &settings, directory, true, 0).0.unwrap_err().to_string();
    assert!(error.contains("found c"), "{error}");
    whole.write(&path).unwrap();
    assert!(finished(run("logreg", &[], &settings, directory, true, usize::MAX).0));
}

/// Numbers that are finite and mean nothing: costs, monitors and parameters after steps that are far too long.
#[test]
fn a_diverged_run_is_an_error_and_leaves_its_last_checkpoint() {
    let directory = tempfile::tempdir().unwrap();
    let music = ["--hidden", "10", "--recurrent", "5", "--clip", "0", "--gibbs-steps", "2"];
    let mcrbm = ["--patch-side", "6", "--components", "12", "--covariance", "8", "--mean", "4"];
    let network = ["--hidden-layers", "12", "--pretraining-epochs", "1"];
    let rate = [&network[..], &["--pretraining-learning-rate", "1e30"]].concat();
    for (model, words, learning_rate) in [
        ("logreg", &[][..], 1e30),
        ("logreg", &[], 1e20),
        ("mlp", &["--hidden", "30"], 1e30),
        ("rbm", &["--hidden", "20", "-k", "2"], 1e30),
        ("rbm", &["--hidden", "20", "-k", "2"], 1e10),
        ("rbm", &["--hidden", "20", "-k", "2"], 1e5),
        ("rbm", &["--hidden", "20", "-k", "2", "--cd"], 1e30),
        ("dbn", &network, 1e30),
        ("dbn", &rate, 0.1),
        ("rnn-rbm", &music, 1e30),
        ("rnn-rbm", &music, 1e12),
        ("mcrbm", &mcrbm, 1e30),
    ] {
        let source = if model == "rnn-rbm" { Source::Generated(3) } else { Source::Generated(300) };
        let settings = Settings { learning_rate, source, epochs: 2, ..settings(model) };
        let path = directory.path().join(format!("{model}-{learning_rate:e}-{}", words.len()));
        let (result, lines) = run(model, words, &settings, &path, false, usize::MAX);
        let error = match result {
            Ok(outcome) => panic!("{model} {learning_rate}: {outcome:?}"),
            Err(error) => error.to_string(),
        };
        assert!(error.contains("epoch ") && error.contains("minibatch "), "{model}: {error}");
        assert!(error.contains("--learning-rate"), "{model}: {error}");
        assert!(lines.events().iter().all(|line| !line.contains("done")), "{model}: {error}");
        let kept = Checkpoint::read(&path.join(CHECKPOINT)).unwrap();
        assert_eq!(kept.fault_of_values(), None, "{model}");
    }
}

#[test]
fn a_directory_that_holds_a_run_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let begin = |begin: Begin, stop: &dyn Fn() -> bool| {
        let model = find_model("logreg").unwrap();
        let options = model.trainer.parse_options(&[]).unwrap();
        let console = Console { directory, begin, log_output: None, stop };
        train(model, &Settings { epochs: 1, ..settings("logreg") }, &options, console)
    };
    // While a run goes on, nobody else begins one in its directory, in whatever way.
    let inner = Cell::new(0);
    let stop = || {
        for way in [Begin::New, Begin::Resume, Begin::Overwrite] {
            let error = begin(way, &|| true).unwrap_err();
            assert!(matches!(error, TrainError::Locked { .. }), "{error}");
        }
        inner.set(inner.get() + 1);
        inner.get() > 2
    };
    assert!(matches!(begin(Begin::New, &stop).unwrap(), Outcome::Interrupted { .. }));
    let before = fs::read(directory.join(CHECKPOINT)).unwrap();
    let partial = directory.join(".checkpoint.safetensors.1.partial");
    fs::write(&partial, "half").unwrap();
    let error = begin(Begin::New, &|| false).unwrap_err().to_string();
    assert!(error.contains("--resume") && error.contains("--overwrite"), "{error}");
    assert_eq!(fs::read(directory.join(CHECKPOINT)).unwrap(), before);
    assert!(partial.exists());
    assert!(finished(begin(Begin::Resume, &|| false)));
    assert!(!partial.exists());
    assert!(finished(begin(Begin::Overwrite, &|| false)));
    // A log alone is a run too.
    fs::remove_file(directory.join(CHECKPOINT)).unwrap();
    assert!(matches!(begin(Begin::New, &|| false), Err(TrainError::Present { .. })));
}

#[test]
fn a_cost_that_is_no_number_ends_the_run() {
    let directory = tempfile::tempdir().unwrap();
    for (model, words, learning_rate) in [
        ("mlp", &["--hidden", "30"][..], 1e30),
        ("rbm", &["--hidden", "20", "-k", "2"], 3e38),
        ("dbn", &["--hidden-layers", "20", "--pretraining-epochs", "0"], 3e38),
        ("dbn", &["--hidden-layers", "20", "--pretraining-learning-rate", "3e38"], 0.1),
    ] {
        let settings = Settings { learning_rate, ..settings(model) };
        let error = run(model, words, &settings, directory.path(), false, usize::MAX).0.unwrap_err();
        // Either a cost that is none, or a parameter after the first step.
        let diverged = matches!(error, TrainError::Diverged { epoch: 1, batch: 1..=15, .. });
        assert!(diverged || matches!(error, TrainError::Useless { .. }), "{model}: {error}");
        assert!(error.to_string().contains("epoch 1, minibatch "), "{error}");
        assert!(directory.path().join(CHECKPOINT).exists());
    }
}

/// Layers learn from kept activations what they learn from those computed anew for every minibatch.
#[test]
fn kept_activations_are_those_of_the_layers_below() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["--hidden-layers", "30,20,10", "--pretraining-epochs", "3"];
    let settings = Settings { epochs: 1, ..settings("dbn") };
    let (result, expected) = run("dbn", &words, &settings, directory.path(), false, usize::MAX);
    assert!(finished(result));
    let words = [&words[..], &["--keep-activations"]].concat();
    let (result, found) = run("dbn", &words, &settings, directory.path(), false, usize::MAX);
    assert!(finished(result));
    let costs = |lines: &Lines| -> Vec<(String, f64)> {
        let events = lines.events().into_iter().map(|line| serde_json::from_str::<Value>(&line).unwrap());
        let cost = |event: Value| {
            let phase = event["phase"].as_str()?.to_owned();
            Some((phase, event["reconstruction_cross_entropy"].as_f64()?))
        };
        events.filter_map(cost).collect()
    };
    let (found, expected) = (costs(&found), costs(&expected));
    assert_eq!((found.len(), found[8].0.as_str()), (9, "layer 3"));
    for (found, expected) in found.iter().zip(&expected) {
        assert_eq!(found.0, expected.0);
        assert!((found.1 - expected.1).abs() < 1e-3 * expected.1.abs(), "{found:?} {expected:?}");
    }
}
