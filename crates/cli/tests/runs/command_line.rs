//! The program as users run it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[cfg(unix)]
use hypatia_cli::interrupt::caught_signals;
use serde_json::Value;

/// The program in a directory of its own.
fn hypatia(directory: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hypatia"));
    command.args(words).current_dir(directory);
    command
}

fn output(directory: &Path, words: &[&str]) -> Output {
    hypatia(directory, words).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Exit status and messages of a command that fails; it must not panic and prints no result.
fn failure(directory: &Path, words: &[&str]) -> (i32, String) {
    let output = output(directory, words);
    let message = text(&output.stderr);
    assert!(!message.contains("panicked") && !message.is_empty(), "{words:?}: {message}");
    assert!(output.stdout.is_empty(), "{words:?}: {}", text(&output.stdout));
    (output.status.code().unwrap(), message)
}

const SMALL: [&str; 8] = ["train", "logreg", "--digits", "300", "--batch-size", "20", "--epochs", "3"];

fn small<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SMALL.iter().chain(more).copied().collect()
}

#[test]
fn training_prints_the_events_of_the_contract_and_leaves_its_files() {
    let directory = tempfile::tempdir().unwrap();
    let output = output(directory.path(), &small(&["--json"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events: Vec<Value> = text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let names: Vec<&str> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(names, ["start", "epoch", "epoch", "epoch", "done"]);
    assert_eq!((&events[0]["model"], &events[0]["batch_size"]), (&"logreg".into(), &20.into()));
    assert_eq!(events[1]["epoch"], 1);
    for key in ["train_cost", "valid_error", "test_error", "seconds"] {
        assert!(events[1][key].is_f64(), "{key}: {}", events[1]);
    }
    let best = events[1..4].iter().map(|e| e["valid_error"].as_f64().unwrap()).fold(1.0, f64::min);
    assert_eq!(events[4]["best_valid_error"].as_f64(), Some(best));
    let run = directory.path().join("runs/logreg");
    let mut files: Vec<String> =
        run.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();
    assert_eq!(files, ["checkpoint.safetensors", "filters.png", "learning_curve.svg", "log.jsonl"]);
    assert_eq!(text(&std::fs::read(run.join("log.jsonl")).unwrap()), text(&output.stdout));
}

#[test]
fn people_see_progress_and_results() {
    let directory = tempfile::tempdir().unwrap();
    let output = output(directory.path(), &small(&["--out", "here"]));
    assert!(output.status.success());
    let (progress, results) = (text(&output.stderr), text(&output.stdout));
    assert!(progress.lines().any(|line| line.starts_with("epoch 3/3  cost ")), "{progress}");
    assert!(results.starts_with("3 epochs in ") && results.contains("best validation error "), "{results}");
    assert!(results.contains("here/checkpoint.safetensors"), "{results}");
    let words = [&SMALL[..6], &["--epochs", "1", "--out", "one"]].concat();
    let one = self::output(directory.path(), &words);
    assert!(text(&one.stdout).starts_with("1 epoch in "), "{}", text(&one.stdout));
}

#[test]
fn wrong_usage_is_told_from_failure() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    for (words, expected) in [
        (&["train", "perceptron"][..], "expected a model, one of logreg, logistic-cg, mlp, "),
        (&["train", "perceptron"], "found `perceptron`"),
        (&["show", "x"], "expected a model, one of logreg, logistic-cg, mlp, "),
        (&["sample", "mlp"], "expected a model, one of "),
        (&["sample", "mlp"], "found `mlp`"),
        (&["train", "logreg", "--epochs", "0"], "0 is not in 1..=1000000000"),
        (&["train", "logreg", "--batch-size", "0"], "0 is not in 1..="),
        (&["train", "logreg", "--learning-rate", "nan"], "expected a finite number above 0"),
        (&["train", "logreg", "--learning-rate", "-1"], "expected a finite number above 0"),
        (&["train", "logreg", "--learning-rate", "1e999"], "expected a finite number above 0"),
        (&["train", "logreg", "--threads", "0"], "0 is not in 1..=256"),
        (&["train", "logreg", "--seed", "4294967296"], "is not in 0..=4294967295"),
        (&["train", "logreg", "--digits", "3"], "3 is not in 5..=200000"),
        (&["train", "logreg", "--device", "tpu"], "expected cpu, opencl or opencl:N"),
        (&["train", "logreg", "--device", "opencl:x"], "expected cpu, opencl or opencl:N"),
        (&["train", "logreg", "--data", "a", "--digits", "9"], "cannot be used with"),
        (&["train", "logreg", "--hidden", "9"], "unexpected argument '--hidden'"),
        (&["train", "mlp", "--l2", "inf"], "expected a finite number from 0"),
        (&["train", "mlp", "--hidden", "0"], "0 is not in 1..=100000"),
        (&["train", "rbm", "-k", "0"], "0 is not in 1..=10000"),
        (&["train", "dbn", "--hidden-layers", "10,,10"], "cannot parse integer from empty string"),
        (&["train", "dbn", "--pretraining-learning-rate", "-1"], "expected a finite number above 0"),
        (&["sample", "rbm", "--chains", "0"], "0 is not in 1..=1000"),
        (&["sample", "rbm", "--epochs", "3"], "unexpected argument '--epochs'"),
        (&["sample", "rnn-rbm", "--data", "tunes"], "unexpected argument '--data'"),
        (&["sample", "rnn-rbm", "--tunes", "3"], "unexpected argument '--tunes'"),
        (
            &["train", "logreg", "--digits", "300", "--batch-size", "61"],
            "--batch-size: expected 1 to 60, the number of validation images, found 61",
        ),
        (&["explain", "log("], "expected"),
        (&["explain", ""], "expected"),
        (&["explain", "x: f32[3]; y: f32[4]; x + y"], "differ in shape"),
        (&["show", "mlp", "--stage", "asm"], "invalid value 'asm'"),
        (&["show", "mlp", "--function", "fit"], "one of train, validate, test, found `fit`"),
        (&["bench", "--workload", "autumn"], "invalid value 'autumn'"),
        (&["bench", "--seconds", "0"], "expected a number from 0.001 to 600"),
        (&["train", "mlp", "--data", ""], "a value is required for '--data <PATH>'"),
        (&["dance"], "unrecognized subcommand"),
        (&[], "Usage"),
    ] {
        let (status, message) = failure(directory, words);
        assert!(message.contains(expected), "{words:?}: {message}");
        assert_eq!(status, 2, "{words:?}: {message}");
    }
    std::fs::write(directory.join("file"), "no data").unwrap();
    std::fs::create_dir(directory.join("empty")).unwrap();
    for (words, expected) in [
        (small(&["--resume"]), "cannot read checkpoint"),
        (small(&["--out", "file"]), "cannot create the directory file"),
        (small(&["--out", "file/deeper"]), "cannot create the directory file/deeper"),
        (small(&["--device", "opencl:4711"]), "OpenCL"),
        (vec!["sample", "rbm"], "no trained model in runs/rbm: there is no runs/rbm/checkpoint.safetensors"),
        (vec!["sample", "rbm"], "hint: `hypatia train rbm` makes one"),
        (vec!["sample", "rbm", "--out", "file"], "no trained model in file"),
        (vec!["train", "mlp", "--data", "nowhere"], "cannot open nowhere"),
        (vec!["train", "mlp", "--data", "file"], "file"),
        (vec!["train", "mlp", "--data", "empty"], "expected mnist.pkl.gz or the four idx files of MNIST"),
    ] {
        let (status, message) = failure(directory, &words);
        assert!(message.contains(expected), "{words:?}: {message}");
        assert_eq!(status, 1, "{words:?}: {message}");
    }
}

/// On a disk that is full when a run begins, the checkpoint of the run before stays whole.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_checkpoint_whole() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    assert!(output(directory, &small(&["--json"])).status.success());
    let path = directory.join("runs/logreg/checkpoint.safetensors");
    let before = std::fs::read(&path).unwrap();
    // Files may not grow beyond some kilobytes; a write that would is an error, as on a full disk.
    let output = Command::new("sh")
        .args(["-c", "ulimit -f 8; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_hypatia")])
        .args(small(&["--json", "--seed", "9", "--overwrite"]))
        .current_dir(directory)
        .output()
        .unwrap();
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("the earlier checkpoint of that name is unchanged"), "{message}");
    assert!(output.stdout.is_empty());
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert!(self::output(directory, &small(&["--json", "--resume"])).status.success());
}

/// Names that stand for what has no end, or waits for somebody, and a program that is asked to end while it waits.
#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let run = directory.join("run");
    std::fs::create_dir(&run).unwrap();
    let checkpoint = run.join("checkpoint.safetensors");
    std::os::unix::fs::symlink("/dev/zero", &checkpoint).unwrap();
    let resume = small(&["--out", "run", "--resume"]);
    let refused = |words: &[&str], found: &str| {
        let (status, message) = failure(directory, words);
        assert!(status == 1 && message.contains(found), "{words:?}: {message}");
    };
    refused(&resume, "expected a plain file, found a device");
    std::fs::remove_file(&checkpoint).unwrap();
    for path in [&checkpoint, &directory.join("pipe")] {
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    }
    refused(&resume, "expected a plain file, found a pipe");
    refused(&["train", "logreg", "--data", "pipe"], "expected a plain file, found a pipe");
    refused(&["train", "logreg", "--data", "/dev/zero"], "expected a plain file, found a device");
    std::fs::remove_file(&checkpoint).unwrap();
    let (status, message) =
        failure(directory, &small(&["--out", "run", "--json", "--resume", "--overwrite"]));
    assert!(status == 2 && message.contains("cannot be used with"), "{message}");
    assert!(output(directory, &small(&["--out", "run"])).status.success());
    let log = run.join("log.jsonl");
    std::fs::remove_file(&log).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &log).unwrap();
    refused(&resume, "expected a plain file, found a device");
    refused(&small(&["--out", "run", "--overwrite"]), "expected a plain file, found a device");
    // Where no checkpoint was, none is said to be unchanged.
    let limited = Command::new("sh")
        .args(["-c", "ulimit -f 8; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_hypatia")])
        .args(small(&["--out", "new"]))
        .current_dir(directory)
        .output()
        .unwrap();
    let message = text(&limited.stderr);
    assert_eq!(limited.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot write checkpoint") && !message.contains("unchanged"), "{message}");
}

/// A machine that learns a little, and draws.
#[test]
fn a_boltzmann_machine_learns_and_draws_samples() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let size = ["--digits", "300", "--batch-size", "20", "--epochs", "4", "--hidden", "50"];
    let train = [&["train", "rbm", "-k", "3", "--json"], &size[..]].concat();
    let output = output(directory, &train);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let events: Vec<Value> = text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let likelihoods: Vec<f64> =
        events[1..].iter().map(|event| event["pseudo_likelihood"].as_f64().unwrap()).collect();
    assert_eq!(likelihoods.len(), 5);
    assert!(likelihoods[3] > likelihoods[0] && likelihoods[3] < 0.0, "{likelihoods:?}");
    assert_eq!(likelihoods[4], likelihoods[3]);
    let run = directory.join("runs/rbm");
    assert!(run.join("filters_at_epoch_1.png").exists() && run.join("filters_at_epoch_4.png").exists());
    let sample = |words: &[&str]| {
        let words = [&["sample", "rbm", "--digits", "300", "--chains", "7", "--rows", "3"], words].concat();
        let output = self::output(directory, &words);
        assert!(output.status.success(), "{}", text(&output.stderr));
        assert_eq!(text(&output.stdout), "runs/rbm/samples.png\n");
        let file = std::fs::File::open(run.join("samples.png")).unwrap();
        let reader = png::Decoder::new(BufReader::new(file)).read_info().unwrap();
        assert_eq!((reader.info().height, reader.info().width), (3 * 29 - 1, 7 * 29 - 1));
        std::fs::read(run.join("samples.png")).unwrap()
    };
    let once = sample(&["--steps", "4"]);
    assert_eq!(sample(&["--steps", "4"]), once);
    assert_ne!(sample(&["--steps", "4", "--seed", "5"]), once);
    // A run of another model is told apart.
    assert!(self::output(directory, &small(&["--json"])).status.success());
    let (status, message) = failure(directory, &["sample", "rbm", "--out", "runs/logreg"]);
    assert_eq!(status, 1);
    assert!(message.contains("the checkpoint has logreg, expected rbm"), "{message}");
    let (status, message) = failure(directory, &["sample", "rbm", "--digits", "50", "--chains", "11"]);
    assert_eq!(status, 2);
    assert!(
        message.contains("--chains: expected at most 10, the number of test images, found 11"),
        "{message}"
    );
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_resume_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let directory = directory.path();
    let words = ["train", "logreg", "--digits", "300", "--batch-size", "20", "--json", "--epochs"];
    let many: Vec<&str> = words.iter().copied().chain(["1000000"]).collect();
    let mut child = hypatia(directory, &many).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.by_ref().any(|line| line.contains("\"epoch\":3,")));
    // The tests, and with them the program, may have been started to ignore Ctrl-C.
    let (signal, _) = caught_signals().into_iter().next().unwrap();
    let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let epochs = 3 + lines.filter(|line| line.contains("\"event\":\"epoch\"")).count();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let message = text(&output.stderr);
    assert!(message.contains(&format!("interrupted after {epochs} epochs")), "{message}");
    assert!(message.contains("--resume"), "{message}");
    let two_more = (epochs + 2).to_string();
    let rest: Vec<&str> = words.iter().copied().chain([two_more.as_str(), "--resume"]).collect();
    let output = self::output(directory, &rest);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let numbers: Vec<u64> = text(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["epoch"].as_u64())
        .collect();
    assert_eq!(numbers, [epochs as u64 + 1, epochs as u64 + 2]);
}

/// As in the background of a script, or under `nohup`.
#[cfg(target_os = "linux")]
#[test]
fn a_run_that_ignores_signals_goes_on_until_another_one_comes() {
    let directory = tempfile::tempdir().unwrap();
    let script = "trap '' HUP INT; exec \"$@\"";
    let words = ["train", "logreg", "--digits", "300", "--batch-size", "20", "--json", "--epochs", "1000000"];
    let mut child = Command::new("sh")
        .args(["-c", script, "sh", env!("CARGO_BIN_EXE_hypatia")])
        .args(words)
        .current_dir(directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map_while(Result::ok);
    for signal in ["-INT", "-HUP", "-TERM"] {
        let is_epoch = |line: String| line.contains("\"event\":\"epoch\"");
        assert!(lines.by_ref().any(is_epoch) && lines.by_ref().any(is_epoch), "ended before {signal}");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
    }
    // Its output would stand still if nobody read it.
    let _ = lines.count();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("interrupted after"), "{}", text(&output.stderr));
}

#[test]
fn formulas_are_explained() {
    let directory = tempfile::tempdir().unwrap();
    let output = output(directory.path(), &["explain", "log(1 + exp(x))"]);
    assert!(output.status.success());
    let explanation = text(&output.stdout);
    assert!(explanation.starts_with("log(1 + exp(x))\n"), "{explanation}");
    assert!(explanation.contains("= softplus(x)") && explanation.contains("log1p_exp"), "{explanation}");
    // Strictly, e^x overflows to infinity, and that may not be hidden.
    let strict = self::output(directory.path(), &["explain", "--strict", "log(1 + exp(x))"]);
    assert!(!text(&strict.stdout).contains("softplus"), "{}", text(&strict.stdout));
    // Whatever the formula, an error is short.
    let long = "very_long_name_".repeat(8_000);
    for formula in [
        " ".repeat(65_536),
        format!("{}x +", " ".repeat(65_536)),
        format!("{long} +"),
        format!("x {long}"),
        "(".repeat(65_536),
    ] {
        let (status, message) = failure(directory.path(), &["explain", &formula]);
        assert!(
            status == 2 && message.len() < 600,
            "{}: {}",
            message.len(),
            &message[..600.min(message.len())]
        );
        assert!(message.lines().nth(2).is_some_and(|line| line.trim_end().ends_with('^')), "{message}");
    }
    // A formula that begins with a minus is no option.
    assert!(self::output(directory.path(), &["explain", "-x"]).status.success());
}

#[test]
fn every_stage_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    for (stage, expected) in [
        ("graph", "grad"),
        ("simplified", "update %W"),
        ("kernels", "product f32 600x784x10"),
        ("program", "arena of "),
    ] {
        let words = ["show", "logreg", "--stage", stage];
        let plain = text(&output(directory.path(), &words).stdout);
        assert!(plain.contains(expected), "{stage}: {plain}");
        let dot: Vec<&str> = words.iter().copied().chain(["--dot"]).collect();
        let dot = text(&output(directory.path(), &dot).stdout);
        assert!(
            dot.starts_with("digraph {") && dot.contains(" -> ") && dot.contains("dot"),
            "{stage}: {dot}"
        );
    }
    let validate = ["show", "logreg", "--function", "validate"];
    let validate = text(&output(directory.path(), &validate).stdout);
    assert!(validate.contains("argmax") && !validate.contains("update"), "{validate}");
}

#[test]
fn the_doctor_names_processor_threads_and_opencl() {
    let directory = tempfile::tempdir().unwrap();
    let output = output(directory.path(), &["doctor"]);
    assert!(output.status.success());
    let report = text(&output.stdout);
    for part in ["processor  ", "kernels", "threads    ", "opencl"] {
        assert!(report.contains(part), "{report}");
    }
}

/// Costs of the same steps on the same data by JAX, PyTorch and Theano (all agree to six digits).
#[test]
fn benchmarks_compute_what_other_frameworks_compute() {
    let directory = tempfile::tempdir().unwrap();
    let words = ["bench", "--json", "--threads", "1", "--seconds", "0.01"];
    let workloads = ["--workload", "logreg", "--workload", "mlp", "--workload", "dbn_finetune"];
    let words: Vec<&str> = words.into_iter().chain(workloads).collect();
    let output = output(directory.path(), &words);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let entries: Vec<Value> =
        text(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let expected = [("logreg", LOGREG_COSTS), ("mlp", MLP_COSTS), ("dbn_finetune", DBN_COSTS)];
    assert_eq!(entries.len(), expected.len());
    for (entry, (name, costs)) in entries.iter().zip(expected) {
        assert_eq!((&entry["workload"], &entry["peer"]), (&name.into(), &"hypatia".into()));
        let found = entry["costs5"].as_array().unwrap();
        assert_eq!(found.len(), 5);
        for (found, expected) in found.iter().zip(costs) {
            assert!((found.as_f64().unwrap() - expected).abs() < 1e-4 * expected.max(1.0), "{name}: {entry}");
        }
        for key in KEYS {
            assert!(!entry[key].is_null(), "{key}: {entry}");
        }
        assert!(entry["finite"].as_bool().unwrap());
        let (low, middle) = (entry["min_ms"].as_f64().unwrap(), entry["median_ms"].as_f64().unwrap());
        assert!(0.0 < low && low <= middle && middle <= entry["p90_ms"].as_f64().unwrap(), "{entry}");
    }
}

const KEYS: [&str; 20] = [
    "workload",
    "peer",
    "threads",
    "median_ms",
    "min_ms",
    "p90_ms",
    "median_all_windows_ms",
    "steps",
    "import_s",
    "build_s",
    "first_call_s",
    "compile_s",
    "peak_rss_mb",
    "rss_after_import_mb",
    "contention",
    "windows",
    "costs5",
    "last_cost",
    "finite",
    "versions",
];

/// Weights of zero give every class the same probability.
const LOGREG_COSTS: [f64; 5] = [std::f64::consts::LN_10, 2.303537, 2.302716, 2.303818, 2.301145];
const MLP_COSTS: [f64; 5] = [2.363626, 2.364337, 2.362385, 2.363359, 2.364675];
const DBN_COSTS: [f64; 5] = [std::f64::consts::LN_10, 4.045212, 7.305265, 6.081635, 11.678001];
