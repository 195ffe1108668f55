//! The two published forms of MNIST: four idx files, and the tutorials' pickle of three pairs of arrays.

use std::path::{Path, PathBuf};

use crate::idx::{IdxArray, read_idx};
use crate::pickle::{Array, ElementType, Items, Pickle, read_pickles};
use crate::{CLASSES, DataError, Dataset, IMAGE_PIXELS, IMAGE_SIDE, LabelledImages};

/// Divisor of the pixel bytes: the tutorials' file has 255 as 0.99609375.
const PIXEL_SCALE: f32 = 1.0 / 256.0;

const PICKLES: [&str; 2] = ["mnist.pkl.gz", "mnist.pkl"];
const IDX_FILES: [&str; 4] = [
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
];

pub(super) fn read(path: &Path) -> Result<Dataset, DataError> {
    let metadata =
        std::fs::metadata(path).map_err(|source| DataError::Open { path: path.to_owned(), source })?;
    if !metadata.is_dir() {
        return read_pickle(path);
    }
    let idx_files = IDX_FILES.map(|name| find_idx(path, name));
    if let [Some(train_images), Some(train_labels), Some(test_images), Some(test_labels)] = &idx_files {
        let training = Pair { images: train_images, labels: train_labels, set: "training" };
        let test = Pair { images: test_images, labels: test_labels, set: "test" };
        return read_idx_files(path, &training, &test);
    }
    if let Some(pickle) = PICKLES.iter().map(|name| path.join(name)).find(|file| file.is_file()) {
        return read_pickle(&pickle);
    }
    let missing = IDX_FILES.iter().zip(&idx_files).filter(|(_, file)| file.is_none()).map(|(name, _)| *name);
    Err(DataError::Incomplete { path: path.to_owned(), missing: missing.collect() })
}

/// The idx file called `name`, gzipped or not; some unpackers write a dot before `idx`.
fn find_idx(directory: &Path, name: &str) -> Option<PathBuf> {
    let dotted = name.replace("-idx", ".idx");
    let candidates = [name.to_owned(), format!("{name}.gz"), dotted.clone(), format!("{dotted}.gz")];
    candidates.into_iter().map(|name| directory.join(name)).find(|file| file.is_file())
}

struct Pair<'a> {
    images: &'a Path,
    labels: &'a Path,
    set: &'static str,
}

fn read_idx_files(directory: &Path, training: &Pair<'_>, test: &Pair<'_>) -> Result<Dataset, DataError> {
    let (mut pixels, mut labels) = read_pair(training)?;
    let valid_len = labels.len() / 6;
    let train_len = labels.len() - valid_len;
    if valid_len == 0 {
        return Err(layout(training.images, "number of images", "at least 6", labels.len()));
    }
    let valid_labels = labels.split_off(train_len);
    let valid_pixels = pixels.split_off(train_len * IMAGE_PIXELS);
    let (test_pixels, test_labels) = read_pair(test)?;
    if test_labels.is_empty() {
        return Err(layout(test.images, "number of images", "at least 1", 0));
    }
    Ok(Dataset {
        train: LabelledImages::new(pixels, labels),
        valid: LabelledImages::new(valid_pixels, valid_labels),
        test: LabelledImages::new(test_pixels, test_labels),
        origin: directory.display().to_string(),
    })
}

fn read_pair(pair: &Pair<'_>) -> Result<(Vec<f32>, Vec<i32>), DataError> {
    let images = read_idx(pair.images, 3)?;
    if images.shape[1..] != [IMAGE_SIDE, IMAGE_SIDE] {
        let expected = format!("{IMAGE_SIDE} x {IMAGE_SIDE} pixels");
        let found = format!("{} x {}", images.shape[1], images.shape[2]);
        return Err(layout(pair.images, "size of the images (bytes 8 to 15)", &expected, found));
    }
    let IdxArray { bytes: labels, .. } = read_idx(pair.labels, 1)?;
    if labels.len() != images.shape[0] {
        let expected = format!("one label for each of the {} images", images.shape[0]);
        return Err(layout(pair.labels, "number of labels (bytes 4 to 7)", &expected, labels.len()));
    }
    let labels = labels.iter().enumerate().map(|(index, label)| {
        check_label(i64::from(*label)).ok_or_else(|| DataError::Label {
            path: pair.labels.to_owned(),
            set: pair.set,
            index,
            found: label.to_string(),
        })
    });
    let labels = labels.collect::<Result<_, _>>()?;
    let pixels = images.bytes.iter().map(|byte| f32::from(*byte) * PIXEL_SCALE).collect();
    Ok((pixels, labels))
}

fn check_label(label: i64) -> Option<i32> {
    i32::try_from(label).ok().filter(|label| (0..CLASSES as i32).contains(label))
}

fn layout(path: &Path, what: &str, expected: &str, found: impl ToString) -> DataError {
    DataError::Layout {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: expected.to_owned(),
        found: found.to_string(),
    }
}

fn read_pickle(path: &Path) -> Result<Dataset, DataError> {
    let documents = read_pickles(path)?;
    let [document] = documents.as_slice() else {
        return Err(layout(path, "number of pickles in the file", "1", documents.len()));
    };
    let expected = "a tuple of three pairs (images, labels)";
    let sets = sequence(document.root(), 3)
        .ok_or_else(|| layout(path, "content of the pickle", expected, document.root()))?;
    let set = |index: usize, name: &'static str| {
        let entry = sets.get(index).unwrap_or(Pickle::None);
        let pair = sequence(entry, 2).and_then(|pair| match (pair.get(0), pair.get(1)) {
            (Some(Pickle::Array(images)), Some(Pickle::Array(labels))) => Some((images, labels)),
            (Some(_) | None, _) => None,
        });
        let Some((images, labels)) = pair else {
            let what = format!("entry {index}, the {name} set");
            return Err(layout(path, &what, "a pair of arrays (images, labels)", entry));
        };
        read_arrays(path, index, name, images, labels)
    };
    Ok(Dataset {
        train: set(0, "training")?,
        valid: set(1, "validation")?,
        test: set(2, "test")?,
        origin: path.display().to_string(),
    })
}

fn sequence(value: Pickle<'_>, length: usize) -> Option<Items<'_>> {
    match value {
        Pickle::Tuple(items) | Pickle::List(items) if items.len() == length => Some(items),
        Pickle::Tuple(_)
        | Pickle::List(_)
        | Pickle::None
        | Pickle::Bool(_)
        | Pickle::Int(_)
        | Pickle::Float(_)
        | Pickle::Bytes(_)
        | Pickle::Text(_)
        | Pickle::Dict(_)
        | Pickle::Array(_)
        | Pickle::Name(_) => None,
    }
}

fn read_arrays(
    path: &Path,
    entry: usize,
    set: &'static str,
    images: &Array,
    labels: &Array,
) -> Result<LabelledImages, DataError> {
    let float = matches!(images.element(), ElementType::Float32 | ElementType::Float64);
    if !float || images.shape().len() != 2 || images.shape()[1] != IMAGE_PIXELS || images.shape()[0] == 0 {
        let expected = format!("a float32 or float64 array of shape [n, {IMAGE_PIXELS}] with n > 0");
        return Err(layout(path, &format!("entry {entry}.0, the {set} images"), &expected, images));
    }
    if labels.shape() != [images.shape()[0]] {
        let expected = format!("an array of shape [{}], one label for each image", images.shape()[0]);
        return Err(layout(path, &format!("entry {entry}.1, the {set} labels"), &expected, labels));
    }
    let pixels = images.to_f32();
    if let Some(position) = pixels.iter().position(|pixel| !(0.0..=1.0).contains(pixel)) {
        let (index, pixel) = (position / IMAGE_PIXELS, position % IMAGE_PIXELS);
        return Err(DataError::Pixel { path: path.to_owned(), set, index, pixel, found: pixels[position] });
    }
    // As float64 a fraction or a NaN can be told from a digit, and every digit is exact.
    let labels =
        labels.to_f64().into_iter().enumerate().map(|(index, label)| {
            check_label(label as i64).filter(|digit| f64::from(*digit) == label).ok_or_else(|| {
                DataError::Label { path: path.to_owned(), set, index, found: label.to_string() }
            })
        });
    Ok(LabelledImages::new(pixels, labels.collect::<Result<_, _>>()?))
}
