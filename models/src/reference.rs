//! Arrays made by the scripts of `tests/reference`, for tests.

use std::collections::BTreeMap;

use hypatia::Array;

/// The arrays of a text whose lines are a name, the extents (`4x3`, or `scalar`) and the elements.
pub(crate) fn read(text: &'static str) -> BTreeMap<&'static str, Array> {
    let line = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, extents) = (words.next().unwrap(), words.next().unwrap());
        let shape: Vec<usize> = match extents {
            "scalar" => Vec::new(),
            extents => extents.split('x').map(|extent| extent.parse().unwrap()).collect(),
        };
        let values: Vec<f32> = words.map(|word| word.parse::<f64>().unwrap() as f32).collect();
        (name, Array::new(&shape, &values).unwrap())
    };
    text.lines().map(line).collect()
}

/// Panics where elements differ by more than the roundings of a few operations.
pub(crate) fn assert_close(found: &Array, expected: &Array, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let pairs = found.to_vec::<f32>().unwrap().into_iter().zip(expected.to_vec::<f32>().unwrap());
    for (found, expected) in pairs {
        assert!((found - expected).abs() <= 2e-6 * (1.0 + expected.abs()), "{what}: {found}, {expected}");
    }
}
