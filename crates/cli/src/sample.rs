//! Samples of a trained model, from the checkpoint in the directory of its run.

use std::path::{Path, PathBuf};

use clap::ArgMatches;

use crate::checkpoint::Checkpoint;
use crate::error::TrainError;
use crate::model::{Model, Settings};
use crate::run::{CHECKPOINT, MODEL};

/// Draws from the model that was trained in a directory, and says which files that made there.
///
/// # Errors
///
/// [`TrainError::Untrained`] where there is no checkpoint, [`TrainError::Differs`] for that of another model,
/// [`TrainError::Usage`] for a model that cannot be drawn from, and all that [`crate::model::SamplingOptions::sample`] lists.
pub fn sample(
    model: &Model,
    settings: &Settings,
    options: &ArgMatches,
    directory: &Path,
) -> Result<Vec<PathBuf>, TrainError> {
    let Some(sampler) = &model.sampler else {
        return Err(TrainError::Usage(format!("expected a model to draw from, found {}", model.name)));
    };
    let path = directory.join(CHECKPOINT);
    if !path.exists() {
        return Err(TrainError::Untrained { path, model: model.name });
    }
    let checkpoint = Checkpoint::read(&path)?;
    let trained = checkpoint.entry(MODEL)?;
    if trained != model.name {
        let differences = vec![format!("  model: the checkpoint has {trained}, expected {}", model.name)];
        return Err(TrainError::Differs { path, differences });
    }
    sampler.sample(&checkpoint, settings, options, directory)
}
