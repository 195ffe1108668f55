//! What tests of several models share: values of the scripts in `tests/reference`.

use std::collections::BTreeMap;

use hypatia::Array;

/// The arrays of a text, in single precision: lines of a name, the extents (`4x3`, or `scalar`) and the elements. Those
/// whose names begin with `prefix`, by the rest of the name.
pub(crate) fn read(text: &'static str, prefix: &str) -> BTreeMap<&'static str, Array> {
    let line = |line: &'static str| {
        let mut words = line.split(' ');
        let name = words.next().unwrap().strip_prefix(prefix)?;
        let shape: Vec<usize> = match words.next().unwrap() {
            "scalar" => Vec::new(),
            extents => extents.split('x').map(|extent| extent.parse().unwrap()).collect(),
        };
        let values: Vec<f32> = words.map(|word| word.parse::<f64>().unwrap() as f32).collect();
        Some((name, Array::new(&shape, &values).unwrap()))
    };
    text.lines().filter_map(line).collect()
}

/// The arrays of `tests/reference/sequences.py` whose names begin with `prefix`, by the rest of the name.
pub(crate) fn reference(prefix: &str) -> BTreeMap<&'static str, Array> {
    read(include_str!("../../tests/reference/sequences.txt"), prefix)
}

#[track_caller]
pub(crate) fn assert_close(found: &Array, expected: &Array, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let pairs = found.to_vec::<f32>().unwrap().into_iter().zip(expected.to_vec::<f32>().unwrap());
    for (found, expected) in pairs {
        assert!((found - expected).abs() <= 2e-6 * (1.0 + expected.abs()), "{what}: {found}, {expected}");
    }
}
