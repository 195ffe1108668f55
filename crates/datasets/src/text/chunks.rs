//! How well chunks of labels agree: F1 as `conlleval` of the CoNLL-2000 shared task counts it.
//!
//! A label is `O`, outside of any chunk, or `B-type`, which begins one, or `I-type`, which goes on with one. A chunk that
//! is not begun begins where its type does. A chunk is right where it has the same first word, last word and type.

/// Counts of chunks, over any number of sentences.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Agreement {
    /// Chunks of the right labels.
    pub expected: u64,
    /// Chunks of the labels that were found.
    pub found: u64,
    /// Chunks that are in both.
    pub right: u64,
}

impl Agreement {
    /// Adds a sentence: its right labels, and those that were found, one for each word.
    pub fn add<'a>(
        &mut self,
        expected: impl IntoIterator<Item = &'a str>,
        found: impl IntoIterator<Item = &'a str>,
    ) {
        let (expected, found) = (chunks(expected), chunks(found));
        self.expected += expected.len() as u64;
        self.found += found.len() as u64;
        self.right += found.iter().filter(|chunk| expected.contains(chunk)).count() as u64;
    }

    /// The harmonic mean of precision (what of `found` is right) and recall (what of `expected` was found); 0 of nothing.
    #[must_use]
    pub fn f1(&self) -> f64 {
        let all = self.found + self.expected;
        if all == 0 { 0.0 } else { 2.0 * self.right as f64 / all as f64 }
    }
}

/// Words `first..end` of a type.
#[derive(Debug, PartialEq, Eq)]
struct Chunk<'a> {
    first: usize,
    end: usize,
    kind: &'a str,
}

fn chunks<'a>(labels: impl IntoIterator<Item = &'a str>) -> Vec<Chunk<'a>> {
    let mut chunks: Vec<Chunk<'a>> = Vec::new();
    let mut open = false;
    for (word, label) in labels.into_iter().enumerate() {
        let (tag, kind) = label.split_once('-').unwrap_or((label, ""));
        if tag == "O" {
            open = false;
            continue;
        }
        match chunks.last_mut() {
            Some(chunk) if open && tag != "B" && chunk.kind == kind => chunk.end = word + 1,
            _ => chunks.push(Chunk { first: word, end: word + 1, kind }),
        }
        open = true;
    }
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(expected: &str, found: &str) -> [u64; 3] {
        let mut agreement = Agreement::default();
        agreement.add(expected.split(' '), found.split(' '));
        [agreement.expected, agreement.found, agreement.right]
    }

    // Counted by conlleval.pl (Sang and Buchholz), version of 2004-01-26, for the same columns.
    #[test]
    fn chunks_are_counted_as_in_the_shared_task() {
        assert_eq!(counted("B-a I-a O B-b", "B-a I-a O B-b"), [2, 2, 2]);
        assert_eq!(counted("B-a I-a O B-b", "B-a O O B-b"), [2, 2, 1]);
        assert_eq!(counted("B-a B-a O", "B-a I-a O"), [2, 1, 0]);
        // A chunk that is not begun, and one whose type changes.
        assert_eq!(counted("O I-a I-a I-b", "O B-a I-a B-b"), [2, 2, 2]);
        assert_eq!(counted("O O", "O O"), [0, 0, 0]);
        // The end of a chunk is part of it.
        assert_eq!(counted("B-a I-a", "B-a O"), [1, 1, 0]);
    }

    #[test]
    fn f1_is_the_harmonic_mean_of_precision_and_recall() {
        let agreement = Agreement { expected: 10, found: 8, right: 6 };
        assert!((agreement.f1() - 2.0 * 0.75 * 0.6 / 1.35).abs() < 1e-15);
        assert_eq!(Agreement::default().f1(), 0.0);
    }
}
