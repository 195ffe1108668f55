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

/// The epochs of a run with these options, and the defaults for all others.
fn epochs_of(model: &str, words: &[&str], data: PathBuf, epochs: u64) -> Vec<Epoch> {
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
    train(model, &settings, &model.trainer.parse_options(words).unwrap(), console).unwrap();
    assert!(asked.get() > epochs.min(70));
    let log = std::fs::read_to_string(directory.path().join(LOG)).unwrap();
    log.lines().filter_map(Epoch::parse).collect()
}

/// Validation and test error of each epoch in percent.
fn errors(model: &str, data: PathBuf, epochs: u64) -> Vec<(f64, Option<f64>)> {
    let epochs = epochs_of(model, &[], data, epochs).into_iter();
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

#[test]
fn the_autoencoder_goes_as_published() {
    let Some(data) = mnist() else { return };
    let found = epochs_of("da", &[], data.clone(), 2);
    for (epoch, published) in found.iter().zip([63.2891, 55.7867]) {
        let cost = epoch.measures["reconstruction_cost"];
        assert!((cost - published).abs() < 2e-4, "{cost} for {published}");
    }
    // With other draws than those of the published run.
    let cost = epochs_of("da", &["--corruption", "0.3"], data, 1)[0].measures["reconstruction_cost"];
    assert!((cost - 81.7714).abs() < 0.2, "{cost}");
}

#[test]
fn the_contractive_autoencoder_goes_as_published() {
    let Some(data) = mnist() else { return };
    // `mean` of both costs of the first minibatch and of the roots of both of the second, which is what the tutorial prints.
    let found = &epochs_of("ca", &[], data, 1)[0].measures;
    assert!((found["tutorial_prints_cost"] - 589.571872).abs() < 2e-3, "{found:?}");
    assert!((found["tutorial_prints_norm"] - 20.993879).abs() < 1e-4, "{found:?}");
    assert!(found["squared_jacobian_norm"] < 250.0 && found["reconstruction_cost"] < 90.0, "{found:?}");
}
