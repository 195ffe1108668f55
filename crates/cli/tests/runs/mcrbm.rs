//! Runs of the mean and covariance model.

use std::path::{Path, PathBuf};

use hypatia_cli::error::TrainError;
use hypatia_cli::log::Epoch;
use hypatia_cli::model::{Settings, Source};
use hypatia_cli::models::find_model;
use hypatia_cli::run::{Begin, Console, LOG, Outcome, train};

fn settings(source: Source, epochs: u64, batch_size: usize) -> Settings {
    let defaults = find_model("mcrbm").unwrap().settings(source);
    Settings { epochs, batch_size, threads: Some(1), ..defaults }
}

fn run(settings: &Settings, words: &[&str], directory: &Path) -> Result<(Outcome, Vec<Epoch>), TrainError> {
    let model = find_model("mcrbm").unwrap();
    let sink: Box<dyn std::io::Write + Send> = Box::new(std::io::sink());
    let console = Console { directory, begin: Begin::Overwrite, log_output: Some(sink), stop: &|| false };
    let outcome = train(model, settings, &model.trainer.parse_options(words).unwrap(), console)?;
    let log = std::fs::read_to_string(directory.join(LOG)).unwrap();
    Ok((outcome, log.lines().filter_map(Epoch::parse).collect()))
}

const SMALL: [&str; 8] = ["--patch-side", "8", "--components", "30", "--covariance", "32", "--mean", "10"];

#[test]
fn every_kind_of_model_keeps_its_acceptance_rate() {
    let pooling =
        |kind| [&SMALL[..], &["--pooling", kind, "--pooling-side", "4", "--pooling-start", "100"]].concat();
    let chains = [&SMALL[..], &["--chains", "cd1"]].concat();
    for words in [SMALL.to_vec(), chains, pooling("identity"), pooling("topological")] {
        let directory = tempfile::tempdir().unwrap();
        let settings = settings(Source::Generated(1280), 30, 64);
        let (outcome, epochs) = run(&settings, &words, directory.path()).unwrap();
        let Outcome::Finished { files, .. } = outcome else { panic!("{outcome:?}") };
        for name in ["covariance_filters.png", "mean_filters.png", "particles.png", "patches.png"] {
            assert!(files.contains(&directory.path().join(name)), "{files:?}");
        }
        assert_eq!(epochs.len(), 30);
        for epoch in &epochs[10..] {
            let rate = epoch.measures["acceptance_rate"];
            assert!((rate - 0.9).abs() < 0.1, "{words:?}: {rate} in epoch {}", epoch.epoch);
            let step = epoch.measures["stepsize"];
            assert!((0.001..=0.25).contains(&step), "{words:?}: {step}");
        }
    }
}

#[test]
fn a_rate_that_is_too_large_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let settings = Settings { learning_rate: 100.0, ..settings(Source::Generated(300), 5, 20) };
    let error = run(&settings, &SMALL, directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("the training cost became ") && error.contains("--learning-rate (now 100)"),
        "{error}"
    );
}

#[test]
fn settings_that_do_not_fit_the_patches_are_named() {
    let message = |source: Source, words: &[&str]| {
        let directory = tempfile::tempdir().unwrap();
        run(&settings(source, 1, 20), words, directory.path()).unwrap_err().to_string()
    };
    assert_eq!(
        message(Source::Generated(200), &["--patch-side", "8", "--components", "193"]),
        "--components: whitening: expected between 1 and 192 components, as the data vary in 192 directions, found 193"
    );
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("data_batch_1.bin");
    let records: Vec<u8> =
        (0..2 * 3073_u32).map(|i| if i % 3073 == 0 { 1 } else { (i * 7 % 251) as u8 }).collect();
    std::fs::write(&path, records).unwrap();
    let error = message(Source::Path(path), &["--patch-side", "64"]);
    assert!(error.contains("at least 64 x 64 pixels, found 32 x 32"), "{error}");
    assert_eq!(
        message(Source::Generated(10), &["--patch-side", "8", "--components", "5"]),
        "--batch-size: expected 1 to 10, the number of patches, found 20"
    );
}

/// The 5,000 iterations of the tutorial on natural patches.
#[test]
fn natural_patches_keep_the_acceptance_rate_near_its_target() {
    if std::env::var_os("HYPATIA_LONG").is_none() {
        eprintln!("skipped: set HYPATIA_LONG=1 to make 5,000 iterations on natural patches");
        return;
    }
    let data = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/patches");
    if !data.exists() {
        eprintln!("skipped: no {} here", data.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_, epochs) = run(&settings(Source::Path(data), 63, 128), &[], directory.path()).unwrap();
    assert_eq!(epochs.len(), 63);
    for epoch in epochs {
        let rate = epoch.measures["acceptance_rate"];
        assert!((rate - 0.9).abs() < 0.1, "{rate} in epoch {}", epoch.epoch);
    }
}
