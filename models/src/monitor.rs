//! The mean over an epoch of what every step measures.

use crate::checkpoint::Checkpoint;
use crate::model::{Position, TrainError, saved_float};

/// The measure of the present epoch so far, and that of the last whole one.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Monitor {
    sum: f64,
    last: Option<f64>,
}

impl Monitor {
    /// Adds the value of the step at `position`.
    ///
    /// # Errors
    ///
    /// [`TrainError::Diverged`] for what is no number or too large, which makes all that follows useless.
    pub fn add(&mut self, value: f64, position: Position, learning_rate: f64) -> Result<(), TrainError> {
        position.expect_number("monitor", value, learning_rate)?;
        self.sum += value;
        Ok(())
    }

    /// Ends an epoch of so many steps and returns its mean.
    pub fn finish_epoch(&mut self, steps: u64) -> f64 {
        let mean = self.sum / steps.max(1) as f64;
        *self = Self { sum: 0.0, last: Some(mean) };
        mean
    }

    /// The mean of the last whole epoch.
    #[must_use]
    pub fn last(&self) -> Option<f64> {
        self.last
    }

    /// Adds its state to a checkpoint.
    pub fn save(&self, checkpoint: &mut Checkpoint) {
        checkpoint.metadata.insert(SUM.to_owned(), self.sum.to_string());
        checkpoint.metadata.extend(self.last.map(|last| (LAST.to_owned(), last.to_string())));
    }

    /// The state in a checkpoint.
    ///
    /// # Errors
    ///
    /// A number that is missing or none.
    pub fn saved(checkpoint: &Checkpoint) -> Result<Self, TrainError> {
        let has_last = checkpoint.metadata.contains_key(LAST);
        Ok(Self {
            sum: saved_float(checkpoint, SUM)?,
            last: has_last.then(|| saved_float(checkpoint, LAST)).transpose()?,
        })
    }
}

const SUM: &str = "monitor.sum";
const LAST: &str = "monitor.last";
