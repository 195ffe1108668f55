//! The real data sets, where they are at hand beside the project.

use std::path::PathBuf;

use hypatia_datasets::pickle::{Items, Pickle, read_pickles};
use hypatia_datasets::{Dataset, IMAGE_PIXELS, LabelledImages};

/// The file or folder of the real data, or `None`, said aloud, where there is none.
fn real(name: &str) -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(name);
    if !path.exists() {
        eprintln!("skipped: no {} here", path.display());
        return None;
    }
    Some(path)
}

fn counts(set: &LabelledImages) -> [usize; 10] {
    let mut counts = [0; 10];
    set.labels().iter().for_each(|label| counts[*label as usize] += 1);
    counts
}

fn items(value: Option<Pickle<'_>>) -> Items<'_> {
    match value {
        Some(Pickle::List(items) | Pickle::Tuple(items)) => items,
        other => panic!("expected a list or tuple, found {other:?}"),
    }
}

#[test]
fn mnist_is_the_same_in_both_forms() {
    let (Some(directory), Some(file)) = (real("mnist"), real("mnist/mnist.pkl.gz")) else { return };
    let from_idx = Dataset::read(&directory).unwrap();
    let from_pickle = Dataset::read(&file).unwrap();
    assert!(from_idx.train == from_pickle.train);
    assert!(from_idx.valid == from_pickle.valid);
    assert!(from_idx.test == from_pickle.test);
    let data = from_idx;
    assert_eq!(counts(&data.train), [4932, 5678, 4968, 5101, 4859, 4506, 4951, 5175, 4842, 4988]);
    assert_eq!(counts(&data.valid), [991, 1064, 990, 1030, 983, 915, 967, 1090, 1009, 961]);
    assert_eq!(counts(&data.test), [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]);
    assert_eq!(data.train.labels()[..10], [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]);
    assert_eq!(data.valid.labels()[..10], [3, 8, 6, 9, 6, 4, 5, 3, 8, 4]);
    assert_eq!(data.test.labels()[..10], [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]);
    let largest = data.train.pixels().iter().copied().fold(0.0, f32::max);
    assert_eq!((data.train.pixels().len(), largest), (50_000 * IMAGE_PIXELS, 0.99609375));
}

#[test]
fn atis_is_lists_of_arrays() {
    let Some(file) = real("atis/atis.fold3.pkl.gz") else { return };
    let documents = read_pickles(&file).unwrap();
    let parts = items(Some(documents[0].root()));
    let words = |part: usize| -> (usize, usize) {
        let sentences = items(items(parts.get(part)).get(0));
        let lengths = sentences.iter().map(|sentence| {
            let Pickle::Array(array) = sentence else { panic!("expected an array, found {sentence}") };
            array.shape()[0]
        });
        (sentences.len(), lengths.sum())
    };
    assert_eq!(words(0).1, 45376);
    assert_eq!(words(1).1, 11214);
    assert_eq!(words(2), (893, 9198));
    let Some(Pickle::Dict(dictionaries)) = parts.get(3) else { panic!("no dictionaries") };
    let Some(Pickle::Dict(labels)) = dictionaries.get("labels2idx") else { panic!("no labels") };
    assert_eq!(labels.len(), 127);
}

#[test]
fn music_is_lists_of_tuples() {
    let Some(file) = real("music/JSB_Chorales.pickle.gz") else { return };
    let documents = read_pickles(&file).unwrap();
    let Pickle::Dict(sets) = documents[0].root() else { panic!("{}", documents[0].root()) };
    for (name, sequences, frames) in [("train", 229, 13807), ("valid", 76, 4602), ("test", 77, 4725)] {
        let set = items(sets.get(name));
        let found: usize = set.iter().map(|sequence| items(Some(sequence)).len()).sum();
        assert_eq!((set.len(), found), (sequences, frames), "{name}");
    }
}

#[test]
fn reviews_are_two_pickles_in_one_file() {
    let Some(file) = real("imdb/imdb.pkl.gz") else { return };
    let documents = read_pickles(&file).unwrap();
    let words: Vec<usize> = documents
        .iter()
        .map(|document| {
            let pair = items(Some(document.root()));
            assert_eq!((items(pair.get(0)).len(), items(pair.get(1)).len()), (25_000, 25_000));
            items(pair.get(0)).iter().map(|review| items(Some(review)).len()).sum()
        })
        .collect();
    assert_eq!(words, [7_120_901, 6_962_202]);
}
