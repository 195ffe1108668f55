//! Text as numbers of words: sentences with slots to fill ([`SlotData`]) and labelled reviews ([`Reviews`]).
//!
//! A word is its number in a vocabulary; what the number 1 of reviews stands for, and how chunks of labels are compared,
//! is said where they are. Splitting text into words is deliberately absent.

mod chunks;
mod reviews;
mod slots;

use std::path::Path;

use crate::DataError;
use crate::pickle::{Items, Pickle};

pub use chunks::Agreement;
pub use reviews::{Review, Reviews, UNKNOWN_WORD};
pub use slots::{Sentence, SlotData};

/// Lengths between a power of two and the next that [`padded_length`] returns.
const LENGTHS_PER_OCTAVE: usize = 8;

/// The length that sequences of at most `longest` elements are padded to: at most one eighth more, and one of few lengths,
/// since a function is compiled for each.
#[must_use]
pub fn padded_length(longest: usize) -> usize {
    let mut step = 1;
    while longest > 2 * LENGTHS_PER_OCTAVE * step {
        step *= 2;
    }
    longest.div_ceil(step) * step
}

fn layout(path: &Path, what: &str, expected: &str, found: impl ToString) -> DataError {
    DataError::Layout {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

/// The items of a list or tuple, or what was found instead.
fn items(value: Option<Pickle<'_>>) -> Result<Items<'_>, String> {
    match value {
        Some(Pickle::List(items) | Pickle::Tuple(items)) => Ok(items),
        Some(other) => Err(other.to_string()),
        None => Err("nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::padded_length;

    #[test]
    fn padded_lengths_are_few_and_not_much_longer() {
        let padded: Vec<usize> = (0..=3000).map(padded_length).collect();
        for (length, &padded) in padded.iter().enumerate() {
            assert!(padded >= length && 8 * (padded - length) <= length, "{length} {padded}");
            assert_eq!(padded_length(padded), padded);
        }
        let mut different = padded;
        different.dedup();
        assert!(different.len() <= 17 + 8 * 8, "{different:?}");
    }
}
