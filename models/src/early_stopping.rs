//! When to stop training: the patience rule of the Deep Learning Tutorials, as a state machine.
//!
//! The training scan counts minibatches, asks [`EarlyStopping::validation_is_due`] after each, hands in the validation
//! errors, and stops when [`EarlyStopping::is_exhausted`] says so. A significant improvement raises the patience to a
//! multiple of the minibatches seen. The machine holds numbers only and does no work of its own, so that it can be
//! saved in a checkpoint and goes on as if it had never stopped.

use std::collections::BTreeMap;

use thiserror::Error;

/// The constants of the rule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Patience {
    /// Minibatches to look at before stopping, whatever happens.
    pub initial: u64,
    /// What the count of minibatches is multiplied by at a significant improvement.
    pub increase: u64,
    /// A validation error below the best times this is a significant improvement.
    pub improvement_threshold: f64,
}

impl Patience {
    /// The tutorials' constants for this initial patience: increase 2, threshold 0.995.
    #[must_use]
    pub fn new(initial: u64) -> Self {
        Self { initial, increase: 2, improvement_threshold: 0.995 }
    }
}

/// What a validation error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not better than the best so far; also every NaN.
    NoBetter,
    /// The best so far: time to look at the test error and to save the parameters.
    Best,
}

/// The state of the rule.
#[derive(Debug, Clone, PartialEq)]
pub struct EarlyStopping {
    rule: Patience,
    validation_interval: u64,
    patience: u64,
    best_valid_error: f64,
    best_iteration: u64,
    test_error: Option<f64>,
}

/// Why a saved state cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("early stopping: expected {name} to be a number, found {found}")]
pub struct EarlyStoppingError {
    name: &'static str,
    found: String,
}

impl EarlyStopping {
    /// The start of a run with `batches_per_epoch` training minibatches in an epoch.
    ///
    /// Validation comes every `min(batches_per_epoch, patience / 2)` minibatches, at least every one.
    #[must_use]
    pub fn new(rule: Patience, batches_per_epoch: u64) -> Self {
        Self {
            rule,
            validation_interval: batches_per_epoch.min(rule.initial / 2).max(1),
            patience: rule.initial,
            best_valid_error: f64::INFINITY,
            best_iteration: 0,
            test_error: None,
        }
    }

    /// Whether to measure the validation error after minibatch `iteration`, counted from 0 over all epochs.
    #[must_use]
    pub fn validation_is_due(&self, iteration: u64) -> bool {
        (iteration + 1).is_multiple_of(self.validation_interval)
    }

    /// Takes in the validation error, a fraction, measured after minibatch `iteration`.
    pub fn record_validation(&mut self, iteration: u64, valid_error: f64) -> Verdict {
        if valid_error.is_nan() || valid_error >= self.best_valid_error {
            return Verdict::NoBetter;
        }
        if valid_error < self.best_valid_error * self.rule.improvement_threshold {
            self.patience = self.patience.max(iteration.saturating_mul(self.rule.increase));
        }
        self.best_valid_error = valid_error;
        self.best_iteration = iteration;
        Verdict::Best
    }

    /// Takes in the test error, a fraction, that belongs to the best validation error.
    pub fn record_test(&mut self, test_error: f64) {
        self.test_error = Some(test_error);
    }

    /// Whether to stop after minibatch `iteration`, which is asked after every one of them.
    #[must_use]
    pub fn is_exhausted(&self, iteration: u64) -> bool {
        self.patience <= iteration
    }

    /// Minibatches between two validations.
    #[must_use]
    pub fn validation_interval(&self) -> u64 {
        self.validation_interval
    }

    /// Minibatches that are looked at for sure.
    #[must_use]
    pub fn patience(&self) -> u64 {
        self.patience
    }

    /// The best validation error so far, infinite before the first.
    #[must_use]
    pub fn best_valid_error(&self) -> f64 {
        self.best_valid_error
    }

    /// The minibatch after which the best validation error was measured, from 0.
    #[must_use]
    pub fn best_iteration(&self) -> u64 {
        self.best_iteration
    }

    /// The test error at the best validation error.
    #[must_use]
    pub fn test_error(&self) -> Option<f64> {
        self.test_error
    }

    /// The changing part of the state as text, exact to the bit, for the metadata of a checkpoint.
    #[must_use]
    pub fn to_metadata(&self) -> BTreeMap<String, String> {
        let mut metadata = BTreeMap::from([
            (PATIENCE.to_owned(), self.patience.to_string()),
            (BEST_VALID_ERROR.to_owned(), self.best_valid_error.to_string()),
            (BEST_ITERATION.to_owned(), self.best_iteration.to_string()),
        ]);
        if let Some(error) = self.test_error {
            metadata.insert(TEST_ERROR.to_owned(), error.to_string());
        }
        metadata
    }

    /// Goes on from a state that [`Self::to_metadata`] wrote; the rule and the interval stay those of `self`.
    ///
    /// # Errors
    ///
    /// [`EarlyStoppingError`] when an entry is missing or is no number.
    pub fn restore(&mut self, metadata: &BTreeMap<String, String>) -> Result<(), EarlyStoppingError> {
        let mut restored = Self {
            patience: number(metadata, PATIENCE)?,
            best_valid_error: number(metadata, BEST_VALID_ERROR)?,
            best_iteration: number(metadata, BEST_ITERATION)?,
            ..self.clone()
        };
        restored.test_error =
            if metadata.contains_key(TEST_ERROR) { Some(number(metadata, TEST_ERROR)?) } else { None };
        let fraction = |name: &'static str, value: f64| match (0.0..=1.0).contains(&value) {
            true => Ok(()),
            false => Err(EarlyStoppingError { name, found: value.to_string() }),
        };
        // Before the first validation the best error is infinite.
        if restored.best_valid_error != f64::INFINITY {
            fraction(BEST_VALID_ERROR, restored.best_valid_error)?;
        }
        restored.test_error.map_or(Ok(()), |error| fraction(TEST_ERROR, error))?;
        *self = restored;
        Ok(())
    }
}

const PATIENCE: &str = "early_stopping.patience";
const BEST_VALID_ERROR: &str = "early_stopping.best_valid_error";
const BEST_ITERATION: &str = "early_stopping.best_iteration";
const TEST_ERROR: &str = "early_stopping.test_error";

fn number<T: std::str::FromStr>(
    metadata: &BTreeMap<String, String>,
    name: &'static str,
) -> Result<T, EarlyStoppingError> {
    let text = metadata.get(name).ok_or(EarlyStoppingError { name, found: "nothing".to_owned() })?;
    text.parse().map_err(|_| EarlyStoppingError { name, found: format!("{text:?}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs epochs of three batches; `errors[k]` is the k-th validation error. Returns, for each validation,
    /// (iteration, verdict, patience afterwards), and the iteration at which it stopped.
    fn run(
        stopping: &mut EarlyStopping,
        first: u64,
        errors: &[f64],
    ) -> (Vec<(u64, Verdict, u64)>, Option<u64>) {
        let mut errors = errors.iter();
        let mut table = Vec::new();
        for iteration in first.. {
            if stopping.validation_is_due(iteration) {
                let Some(error) = errors.next() else { return (table, None) };
                let verdict = stopping.record_validation(iteration, *error);
                table.push((iteration, verdict, stopping.patience()));
            }
            if stopping.is_exhausted(iteration) {
                return (table, Some(iteration));
            }
        }
        (table, None)
    }

    // Worked out by hand from the scan of the tutorials with patience 8 and three batches an epoch: validation every
    // min(3, 4) = 3 batches. 0.5 is below infinity * 0.995, but 2 * 2 < 8 leaves the patience; 0.499 is better yet not
    // significantly (0.4975 would be); 0.4 is, and makes the patience 2 * 8 = 16; 0.3 makes it 2 * 11 = 22; a NaN and a
    // tie change nothing; at iteration 22 the patience is used up.
    const ERRORS: [f64; 8] = [0.5, 0.499, 0.4, 0.3, f64::NAN, 0.3, 0.299, 0.1];

    fn expected() -> Vec<(u64, Verdict, u64)> {
        vec![
            (2, Verdict::Best, 8),
            (5, Verdict::Best, 8),
            (8, Verdict::Best, 16),
            (11, Verdict::Best, 22),
            (14, Verdict::NoBetter, 22),
            (17, Verdict::NoBetter, 22),
            (20, Verdict::Best, 22),
        ]
    }

    #[test]
    fn patience_follows_the_tutorial() {
        let mut stopping = EarlyStopping::new(Patience::new(9), 3);
        assert_eq!(stopping.validation_interval(), 3);
        // The third error, at iteration 8, comes before patience 9 is used up.
        let (table, stopped) = run(&mut stopping, 0, &ERRORS);
        let raised: Vec<_> = expected().into_iter().map(|(i, v, p)| (i, v, p.max(9))).collect();
        assert_eq!((table, stopped), (raised, Some(22)));
        assert_eq!(stopping.best_valid_error(), 0.299);
        assert_eq!(stopping.best_iteration(), 20);
    }

    #[test]
    fn patience_runs_out_in_the_iteration_it_names() {
        // An improvement in the very iteration that would have been the last one still counts.
        let mut stopping = EarlyStopping::new(Patience::new(8), 3);
        assert_eq!(run(&mut stopping, 0, &ERRORS), (expected(), Some(22)));
        let mut stopping = EarlyStopping::new(Patience::new(8), 3);
        let (_, stopped) = run(&mut stopping, 0, &[0.5, 0.499, 0.498]);
        assert_eq!(stopped, Some(8));
    }

    #[test]
    fn small_patience_validates_within_an_epoch() {
        assert_eq!(EarlyStopping::new(Patience::new(10), 83).validation_interval(), 5);
        assert_eq!(EarlyStopping::new(Patience::new(5000), 83).validation_interval(), 83);
        assert_eq!(EarlyStopping::new(Patience::new(1), 83).validation_interval(), 1);
    }

    #[test]
    fn a_saved_run_goes_on_as_if_uninterrupted() {
        let mut first = EarlyStopping::new(Patience::new(8), 3);
        let (mut table, stopped) = run(&mut first, 0, &ERRORS[..4]);
        assert_eq!(stopped, None);
        first.record_test(1.0 / 3.0);
        let mut second = EarlyStopping::new(Patience::new(8), 3);
        second.restore(&first.to_metadata()).unwrap();
        assert_eq!(second, first);
        let (rest, stopped) = run(&mut second, 12, &ERRORS[4..]);
        table.extend(rest);
        assert_eq!((table, stopped), (expected(), Some(22)));
    }

    #[test]
    fn a_broken_state_is_named() {
        let mut stopping = EarlyStopping::new(Patience::new(8), 3);
        let before = stopping.clone();
        let mut metadata = stopping.to_metadata();
        stopping.restore(&metadata).unwrap();
        metadata.insert(PATIENCE.to_owned(), "much".to_owned());
        let error = stopping.restore(&metadata).unwrap_err().to_string();
        let expected = "early stopping: expected early_stopping.patience to be a number, found \"much\"";
        assert_eq!(error, expected);
        metadata.remove(PATIENCE);
        assert!(stopping.restore(&metadata).unwrap_err().to_string().ends_with("found nothing"));
        assert_eq!(stopping, before);
    }
}
