//! The published runs of the tutorials, on real MNIST where it is at hand beside the project.

use std::cell::Cell;
use std::path::PathBuf;

use hypatia_cli::log::Epoch;
use hypatia_cli::model::{Settings, Source};
use hypatia_cli::models::find_model;
use hypatia_cli::run::{Begin, Console, LOG, train};

fn mnist() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/mnist/mnist.pkl.gz");
    if !path.exists() {
        eprintln!("skipped: no {} here", path.display());
        return None;
    }
    Some(path)
}

/// Validation and test error of each epoch in percent.
fn errors(model: &str, data: PathBuf, epochs: u64) -> Vec<(f64, Option<f64>)> {
    let model = find_model(model).unwrap();
    let settings = Settings { epochs, ..model.settings(Source::Path(data)) };
    let directory = tempfile::tempdir().unwrap();
    let asked = Cell::new(0_u64);
    let stop = || {
        asked.set(asked.get() + 1);
        false
    };
    let sink: Box<dyn std::io::Write + Send> = Box::new(std::io::sink());
    let console =
        Console { directory: directory.path(), begin: Begin::New, log_output: Some(sink), stop: &stop };
    train(model, &settings, &model.trainer.parse_options(&[]).unwrap(), console).unwrap();
    assert!(asked.get() > epochs.min(70));
    let log = std::fs::read_to_string(directory.path().join(LOG)).unwrap();
    let epochs = log.lines().filter_map(Epoch::parse);
    epochs.map(|e| (100.0 * e.valid_error.unwrap(), e.test_error.map(|error| 100.0 * error))).collect()
}

#[test]
fn logistic_regression_goes_as_published() {
    let Some(data) = mnist() else { return };
    // The tutorial's text: 73 epochs, 12.458333 % after the first, 7.510417 and 7.5 % after the last two, with a test
    // error of 7.489583 %. In between a single example may fall on the other side by rounding.
    let found = errors("logreg", data, 1000);
    let one_example = 100.0 / 9600.0 + 1e-9;
    assert!((found[0].0 - 12.458333).abs() < 1e-6, "{found:?}");
    assert_eq!(found.len(), 73);
    assert!((found[71].0 - 7.510417).abs() < one_example, "{found:?}");
    assert!((found[72].0 - 7.5).abs() < 1e-6, "{found:?}");
    assert!((found[72].1.unwrap() - 7.489583).abs() < 1e-6, "{found:?}");
}

#[test]
fn the_perceptron_goes_as_published() {
    if std::env::var_os("HYPATIA_LONG").is_none() {
        eprintln!("skipped: set HYPATIA_LONG=1 to train the perceptron for four epochs of MNIST");
        return;
    }
    let Some(data) = mnist() else { return };
    let found = errors("mlp", data, 4);
    let published = [(9.62, 10.09), (8.61, 8.74), (8.00, 8.16), (7.60, 7.79)];
    assert_eq!(found.len(), 4);
    for ((valid, test), (published_valid, published_test)) in found.iter().zip(published) {
        assert!((valid - published_valid).abs() < 0.011, "{found:?}");
        assert!((test.unwrap() - published_test).abs() < 0.011, "{found:?}");
    }
}
