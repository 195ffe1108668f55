//! Sentences whose words have labels, as the ATIS corpus of questions about flights, and generated ones like them.
//!
//! Every sentence has at least one word and as many labels as words; both are in range, which is checked while they are
//! read.

use std::path::Path;

use super::{items, layout};
use crate::DataError;
use crate::numpy::RandomState;
use crate::pickle::{Items, Pickle, read_pickles};

/// A sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sentence {
    /// Numbers of its words.
    pub words: Vec<i32>,
    /// For each word the number of its label.
    pub labels: Vec<i32>,
}

/// Labelled sentences in the three sets of a training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotData {
    /// Sentences to learn from.
    pub train: Vec<Sentence>,
    /// Sentences that decide when to stop.
    pub valid: Vec<Sentence>,
    /// Sentences that tell how good the result is.
    pub test: Vec<Sentence>,
    /// How many words the vocabulary has.
    pub words: usize,
    /// The labels by number.
    pub labels: Vec<String>,
    /// Where the sentences come from, for the log.
    pub origin: String,
}

impl SlotData {
    /// Reads a fold of ATIS in the tutorial's form from `path`: the file, or a directory with `atis.fold{fold}.pkl.gz`.
    ///
    /// # Errors
    ///
    /// A [`DataError`] that says which file, where in it, and what was expected there.
    pub fn read(path: &Path, fold: u32) -> Result<Self, DataError> {
        let file = if path.is_dir() { path.join(format!("atis.fold{fold}.pkl.gz")) } else { path.to_owned() };
        let documents = read_pickles(&file)?;
        let [document] = documents.as_slice() else {
            return Err(layout(&file, "number of pickles in the file", "1", documents.len()));
        };
        let expected = "a tuple of three sets of sentences and the dictionaries";
        let parts = items(Some(document.root()))
            .map_err(|found| layout(&file, "content of the pickle", expected, found))?;
        let Some(Pickle::Dict(dictionaries)) = parts.get(3) else {
            return Err(layout(
                &file,
                "content of the pickle",
                expected,
                format!("a tuple of {}", parts.len()),
            ));
        };
        let numbers = |name: &str| match dictionaries.get(name) {
            Some(Pickle::Dict(entries)) => {
                let entry = |(key, value): (Pickle<'_>, Pickle<'_>)| match (key, value) {
                    (Pickle::Bytes(key), Pickle::Int(number)) => {
                        Some((String::from_utf8_lossy(key).into_owned(), number))
                    }
                    (Pickle::Text(key), Pickle::Int(number)) => Some((key.to_owned(), number)),
                    _ => None,
                };
                let entries: Option<Vec<(String, i64)>> = entries.iter().map(entry).collect();
                entries.ok_or_else(|| {
                    layout(&file, &format!("dictionary {name:?}"), "a number for each text", "something else")
                })
            }
            _ => Err(layout(&file, "dictionaries", &format!("one named {name:?}"), "none")),
        };
        let words = numbers("words2idx")?.len();
        let mut labels = numbers("labels2idx")?;
        labels.sort_by_key(|(_, number)| *number);
        if labels.iter().zip(0..).any(|((_, number), expected)| *number != expected) {
            return Err(layout(&file, "numbers of labels", "0, 1, 2, ...", "others"));
        }
        let labels: Vec<String> = labels.into_iter().map(|(label, _)| label).collect();
        let set = |part: usize, name: &str| sentences(&file, &parts, part, name, [words, labels.len()]);
        Ok(Self {
            train: set(0, "training")?,
            valid: set(1, "validation")?,
            test: set(2, "test")?,
            words,
            labels,
            origin: file.display().to_string(),
        })
    }

    /// Generates simple questions about flights: so many to learn from, and a fifth of that, at least one, for validation
    /// and for the test each. The same ones for the same `seed` on every machine.
    #[must_use]
    pub fn generate(seed: u32, train: usize) -> Self {
        let mut rng = RandomState::new(seed);
        let mut vocabulary = Vocabulary::default();
        let mut set = |count: usize| (0..count.max(1)).map(|_| question(&mut rng, &mut vocabulary)).collect();
        let (train, valid, test) = (set(train), set(train / 5), set(train / 5));
        let origin = format!("generated questions, seed {seed}");
        let labels = vocabulary.labels.iter().map(|label| (*label).to_owned()).collect();
        // All words of the grammar count, also where few sentences use few of them.
        Self { train, valid, test, words: WORDS, labels, origin }
    }

    /// One sentence of so many words in each set, all of them word 0 with label 0, and the sizes of ATIS.
    #[must_use]
    pub fn blank(words: usize) -> Self {
        let set = vec![Sentence { words: vec![0; words], labels: vec![0; words] }];
        let labels = (0..127).map(|_| "O".to_owned()).collect();
        Self {
            train: set.clone(),
            valid: set.clone(),
            test: set,
            words: 572,
            labels,
            origin: "blank".to_owned(),
        }
    }

    /// CRC-32 of all words and labels: runs with the same one see the same sentences, wherever they come from.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        for set in [&self.train, &self.valid, &self.test] {
            crc.update(&(set.len() as u64).to_le_bytes());
            for sentence in set {
                crc.update(&(sentence.words.len() as u64).to_le_bytes());
                let numbers = sentence.words.iter().chain(&sentence.labels);
                crc.update(&numbers.flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>());
            }
        }
        crc.sum()
    }
}

/// A set: lists of arrays for words, for tables of the database (which are not used), and for labels.
fn sentences(
    file: &Path,
    parts: &Items<'_>,
    part: usize,
    name: &str,
    limits: [usize; 2],
) -> Result<Vec<Sentence>, DataError> {
    let fault = |expected: &str, found: String| layout(file, &format!("the {name} set"), expected, found);
    let lists = items(parts.get(part)).map_err(|found| fault("three lists", found))?;
    let list = |index: usize| items(lists.get(index)).map_err(|found| fault("three lists of arrays", found));
    let (words, labels) = (list(0)?, list(2)?);
    if words.len() != labels.len() || words.is_empty() {
        let expected = "as many sentences as lists of labels, one or more";
        return Err(fault(expected, format!("{} and {}", words.len(), labels.len())));
    }
    let numbers = |sentence: usize, value: Pickle<'_>, limit: usize| {
        let place = |found: String| {
            layout(
                file,
                &format!("the {name} set, sentence {sentence}"),
                &format!("an array of numbers below {limit}"),
                found,
            )
        };
        let Pickle::Array(array) = value else { return Err(place(value.to_string())) };
        // As float64 a fraction can be told from a number, and every number is exact.
        let number = |x: f64| {
            let whole = (x.fract() == 0.0 && (0.0..limit as f64).contains(&x)).then_some(x as i32);
            whole.ok_or_else(|| place(x.to_string()))
        };
        array.to_f64().into_iter().map(number).collect::<Result<Vec<i32>, _>>()
    };
    let pairs = words.iter().zip(labels.iter()).enumerate();
    pairs
        .map(|(sentence, (words, labels))| {
            let (words, labels) =
                (numbers(sentence, words, limits[0])?, numbers(sentence, labels, limits[1])?);
            if words.len() != labels.len() || words.is_empty() {
                let what = format!("the {name} set, sentence {sentence}");
                let found = format!("{} and {}", words.len(), labels.len());
                return Err(layout(file, &what, "as many labels as words, one or more", found));
            }
            Ok(Sentence { words, labels })
        })
        .collect()
}

/// A part of a generated question: a word, or a phrase out of several that fills a slot.
enum Part {
    Plain(&'static str),
    Slot(&'static str, &'static [&'static str]),
}

const CITIES: &[&str] =
    &["boston", "denver", "san francisco", "new york", "atlanta", "salt lake city", "dallas"];
const DAYS: &[&str] = &["monday", "tuesday", "friday", "sunday"];
const TIMES: &[&str] = &["morning", "afternoon", "evening"];

const QUESTIONS: &[&[Part]] = &[
    &[
        Part::Plain("show"),
        Part::Plain("flights"),
        Part::Plain("from"),
        Part::Slot("fromloc", CITIES),
        Part::Plain("to"),
        Part::Slot("toloc", CITIES),
    ],
    &[
        Part::Plain("which"),
        Part::Plain("flights"),
        Part::Plain("leave"),
        Part::Slot("fromloc", CITIES),
        Part::Plain("on"),
        Part::Slot("day", DAYS),
        Part::Slot("time", TIMES),
    ],
    &[
        Part::Plain("fares"),
        Part::Plain("to"),
        Part::Slot("toloc", CITIES),
        Part::Plain("in"),
        Part::Plain("the"),
        Part::Slot("time", TIMES),
    ],
];

/// Different words of the grammar.
const WORDS: usize = 10 + 11 + 4 + 3;

/// Numbers for words and labels in the order in which they are met.
struct Vocabulary {
    words: Vec<&'static str>,
    labels: Vec<String>,
}

impl Default for Vocabulary {
    /// With all labels, so that their numbers do not depend on the sentences.
    fn default() -> Self {
        let mut labels = vec!["O".to_owned()];
        for slot in ["fromloc", "toloc", "day", "time"] {
            labels.extend(["B", "I"].map(|tag| format!("{tag}-{slot}")));
        }
        Self { words: Vec::new(), labels }
    }
}

impl Vocabulary {
    fn word(&mut self, word: &'static str) -> i32 {
        let number = self.words.iter().position(|known| *known == word).unwrap_or_else(|| {
            self.words.push(word);
            self.words.len() - 1
        });
        number as i32
    }

    fn label(&self, label: &str) -> i32 {
        self.labels.iter().position(|known| known == label).unwrap_or(0) as i32
    }
}

fn question(rng: &mut RandomState, vocabulary: &mut Vocabulary) -> Sentence {
    let mut one_of = |count: usize| (rng.random_sample(1)[0] * count as f64) as usize;
    let mut sentence = Sentence { words: Vec::new(), labels: Vec::new() };
    for part in QUESTIONS[one_of(QUESTIONS.len())] {
        match part {
            Part::Plain(word) => {
                sentence.words.push(vocabulary.word(word));
                sentence.labels.push(vocabulary.label("O"));
            }
            Part::Slot(slot, phrases) => {
                for (index, word) in phrases[one_of(phrases.len())].split(' ').enumerate() {
                    let tag = if index == 0 { "B" } else { "I" };
                    sentence.words.push(vocabulary.word(word));
                    sentence.labels.push(vocabulary.label(&format!("{tag}-{slot}")));
                }
            }
        }
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_questions_are_in_range_and_repeatable() {
        let data = SlotData::generate(3, 200);
        assert_eq!(data, SlotData::generate(3, 200));
        assert_ne!(data.checksum(), SlotData::generate(4, 200).checksum());
        assert_eq!((data.train.len(), data.valid.len(), data.test.len()), (200, 40, 40));
        let mut seen = vec![false; data.words];
        for sentence in data.train.iter().chain(&data.valid).chain(&data.test) {
            assert_eq!(sentence.words.len(), sentence.labels.len());
            assert!(sentence.labels.iter().all(|label| (*label as usize) < data.labels.len()));
            sentence.words.iter().for_each(|word| seen[*word as usize] = true);
        }
        assert!(seen.iter().all(|seen| *seen), "{seen:?}");
    }
}
