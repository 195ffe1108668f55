//! Reviews of films with their sentiment, as the IMDB data of the tutorial, and generated ones.
//!
//! Words are numbered by falling frequency from 2 on; 0 stands for nothing, in padding, and 1 for an unknown word.

use std::path::Path;

use super::{items, layout};
use crate::DataError;
use crate::numpy::RandomState;
use crate::pickle::{Pickle, PickleDocument, read_pickles};

/// The number of a word that the vocabulary lacks.
pub const UNKNOWN_WORD: i32 = 1;

/// A review.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Review {
    /// Numbers of its words, one or more.
    pub words: Vec<i32>,
    /// 1 for praise, 0 for blame.
    pub label: i32,
}

/// Reviews in two sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reviews {
    /// Reviews to learn from.
    pub train: Vec<Review>,
    /// Reviews that tell how good the result is.
    pub test: Vec<Review>,
    /// Where the reviews come from, for the log.
    pub origin: String,
}

impl Reviews {
    /// Reads the tutorial's `imdb.pkl`, gzipped or not, from `path`: the file, or a directory with it.
    ///
    /// # Errors
    ///
    /// A [`DataError`] that says which file, where in it, and what was expected there.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let names = ["imdb.pkl.gz", "imdb.pkl"].map(|name| path.join(name));
        let file = match names.iter().find(|file| file.is_file()) {
            Some(file) if path.is_dir() => file.clone(),
            _ => path.to_owned(),
        };
        let documents = read_pickles(&file)?;
        let [train, test] = documents.as_slice() else {
            return Err(layout(&file, "number of pickles in the file", "2", documents.len()));
        };
        let (train, test) = (reviews(&file, train, "training")?, reviews(&file, test, "test")?);
        Ok(Self { train, test, origin: file.display().to_string() })
    }

    /// Generates reviews of 4 to 60 words, of which some speak for the sentiment: so many to learn from, and a fifth of
    /// that, at least one, for the test. The same ones for the same `seed` on every machine.
    #[must_use]
    pub fn generate(seed: u32, train: usize) -> Self {
        let mut rng = RandomState::new(seed);
        let mut set = |count: usize| (0..count.max(1)).map(|_| invented(&mut rng)).collect();
        let (train, test) = (set(train), set(train / 5));
        Self { train, test, origin: format!("generated reviews, seed {seed}") }
    }

    /// So many reviews of that length in each set, all words unknown.
    #[must_use]
    pub fn blank(count: usize, words: usize) -> Self {
        let set = vec![Review { words: vec![UNKNOWN_WORD; words], label: 0 }; count];
        Self { train: set.clone(), test: set, origin: "blank".to_owned() }
    }

    /// With only the `vocabulary` most frequent words, all others unknown.
    #[must_use]
    pub fn with_vocabulary(mut self, vocabulary: usize) -> Self {
        for review in self.train.iter_mut().chain(&mut self.test) {
            for word in review.words.iter_mut().filter(|word| **word as usize >= vocabulary) {
                *word = UNKNOWN_WORD;
            }
        }
        self
    }

    /// CRC-32 of all words and labels: runs with the same one see the same reviews, wherever they come from.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        for set in [&self.train, &self.test] {
            crc.update(&(set.len() as u64).to_le_bytes());
            for review in set {
                crc.update(&(review.words.len() as u64).to_le_bytes());
                let numbers = review.words.iter().chain([&review.label]);
                crc.update(&numbers.flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
        crc.sum()
    }
}

/// A set: a list of lists of words, and a list of labels.
fn reviews(file: &Path, document: &PickleDocument, name: &str) -> Result<Vec<Review>, DataError> {
    let fault = |what: String, expected: &str, found: String| {
        layout(file, &format!("the {name} set{what}"), expected, found)
    };
    let pair = "a list of reviews and a list of their labels";
    let parts = items(Some(document.root())).map_err(|found| fault(String::new(), pair, found))?;
    let list = |part: usize| items(parts.get(part)).map_err(|found| fault(String::new(), pair, found));
    let (texts, labels) = (list(0)?, list(1)?);
    if texts.len() != labels.len() || texts.is_empty() {
        let found = format!("{} and {}", texts.len(), labels.len());
        return Err(fault(String::new(), "as many labels as reviews, one or more", found));
    }
    let review = |(number, (words, label)): (usize, (Pickle<'_>, Pickle<'_>))| {
        let fault = |expected: &str, found: String| fault(format!(", review {number}"), expected, found);
        let words = items(Some(words)).map_err(|found| fault("a list of words", found))?;
        let word = |word: Pickle<'_>| match word {
            Pickle::Int(word) => i32::try_from(word).ok().filter(|word| *word >= 0),
            _ => None,
        };
        let words: Option<Vec<i32>> = words.iter().map(word).collect();
        match (words.filter(|words| !words.is_empty()), label) {
            (None, _) => Err(fault("one or more words, which are integers from 0", "others".to_owned())),
            (Some(words), Pickle::Int(label @ (0 | 1))) => Ok(Review { words, label: label as i32 }),
            (Some(_), label) => Err(fault("a label of 0 or 1", label.to_string())),
        }
    };
    texts.iter().zip(labels.iter()).enumerate().map(review).collect()
}

/// Words of generated reviews: the first numbers speak for praise, the next ones for blame, all others for nothing.
const WORDS: usize = 200;
const TELLING: usize = 20;

fn invented(rng: &mut RandomState) -> Review {
    let mut below = |count: usize| (rng.random_sample(1)[0] * count as f64) as usize;
    let label = below(2);
    let words = (0..4 + below(57)).map(|_| match below(4) {
        0 => 2 + (1 - label) * TELLING + below(TELLING),
        _ => 2 + 2 * TELLING + below(WORDS - 2 * TELLING),
    });
    let words = words.map(|word| word as i32).collect();
    Review { words, label: label as i32 }
}
