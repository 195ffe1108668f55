//! Labelled images for training: the MNIST files in their two published forms, or generated digits. Colour images
//! without labels are in [`patches`].
//!
//! Every set holds images of 28 x 28 float32 pixels in `[0, 1)`, row by row, with one label in `0..=9` each; both are
//! checked while they are read, so what follows need not check again. Files are read as streams, gzipped or not, and
//! whatever they contain, the outcome is a value or a [`DataError`]. Downloading is deliberately absent.

mod idx;
mod mnist;
pub mod patches;
pub mod pickle;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use source::Source;

use crate::count::Counted;
use crate::digits;
use crate::music::MidiError;

/// Rows, and columns, of an image.
pub const IMAGE_SIDE: usize = 28;
/// Pixels of an image.
pub const IMAGE_PIXELS: usize = IMAGE_SIDE * IMAGE_SIDE;
/// Number of classes, the digits 0 to 9.
pub const CLASSES: usize = 10;

/// Images and their labels, equally many.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabelledImages {
    pixels: Vec<f32>,
    labels: Vec<i32>,
}

impl LabelledImages {
    /// `pixels` holds one image after another; its length is `labels.len() * IMAGE_PIXELS`.
    pub(crate) fn new(pixels: Vec<f32>, labels: Vec<i32>) -> Self {
        debug_assert_eq!(pixels.len(), labels.len() * IMAGE_PIXELS);
        Self { pixels, labels }
    }

    /// So many black images, all labelled 0.
    pub(crate) fn blank(count: usize) -> Self {
        Self::new(vec![0.0; count * IMAGE_PIXELS], vec![0; count])
    }

    /// Number of images.
    #[must_use]
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// All pixels, shape `[len, IMAGE_PIXELS]` in row-major order.
    #[must_use]
    pub fn pixels(&self) -> &[f32] {
        &self.pixels
    }

    /// All labels, shape `[len]`.
    #[must_use]
    pub fn labels(&self) -> &[i32] {
        &self.labels
    }

    /// The pixels and the labels themselves.
    #[must_use]
    pub fn into_parts(self) -> (Vec<f32>, Vec<i32>) {
        (self.pixels, self.labels)
    }
}

/// The three sets of a training run.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Images to learn from.
    pub train: LabelledImages,
    /// Images that decide when to stop.
    pub valid: LabelledImages,
    /// Images that tell how good the result is.
    pub test: LabelledImages,
    /// Where the images come from, for the log.
    pub origin: String,
}

/// Sizes of the three sets of a [`Dataset`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSizes {
    /// Number of training images.
    pub train: usize,
    /// Number of validation images.
    pub valid: usize,
    /// Number of test images.
    pub test: usize,
}

impl Default for SetSizes {
    /// The split of the tutorials: 50,000, 10,000 and 10,000.
    fn default() -> Self {
        Self { train: 50_000, valid: 10_000, test: 10_000 }
    }
}

impl Dataset {
    /// Reads MNIST from `path`: `mnist.pkl.gz`, a directory that holds it, or a directory of the four idx files.
    ///
    /// Of idx files the last sixth of the training images becomes the validation set (10,000 of 60,000) and pixels are
    /// divided by 256, as was done for the tutorials' pickle.
    ///
    /// # Errors
    ///
    /// A [`DataError`] that says which file, where in it, and what was expected there.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        mnist::read(path)
    }

    /// Generates handwritten-looking digits: the same images for the same `seed` on every machine.
    #[must_use]
    pub fn generate(seed: u64, sizes: SetSizes) -> Self {
        digits::generate_dataset(seed, sizes)
    }

    /// CRC-32 of all pixels and labels: runs with the same one see the same data, wherever they come from.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        let mut buffer = Vec::new();
        for set in [&self.train, &self.valid, &self.test] {
            for pixels in set.pixels.chunks(IMAGE_PIXELS * 64) {
                buffer.clear();
                buffer.extend(pixels.iter().flat_map(|pixel| pixel.to_le_bytes()));
                crc.update(&buffer);
            }
            buffer.clear();
            buffer.extend(set.labels.iter().flat_map(|label| label.to_le_bytes()));
            crc.update(&buffer);
        }
        crc.sum()
    }

    /// Sizes of the three sets.
    #[must_use]
    pub fn sizes(&self) -> SetSizes {
        SetSizes { train: self.train.len(), valid: self.valid.len(), test: self.test.len() }
    }
}

/// Why data cannot be used. Every message names the file, the place in it, what was expected and what was found.
#[derive(Debug, Error)]
pub enum DataError {
    /// The path cannot be opened.
    #[error("cannot open {}: {source}", path.display())]
    Open {
        /// The file or directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The system failed while reading.
    #[error("{}: cannot read after byte {offset}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Bytes read before, after decompression.
        offset: u64,
        /// What the system says.
        source: io::Error,
    },
    /// A gzip file stops before its end.
    #[error(
        "{}: truncated gzip file: expected more data after byte {offset} of the uncompressed content, found the end of the file",
        path.display()
    )]
    GzipTruncated {
        /// The file.
        path: PathBuf,
        /// Bytes of uncompressed content before the end.
        offset: u64,
    },
    /// A gzip file whose bytes cannot be decompressed, or whose checksum differs.
    #[error("{}: corrupt gzip file: {reason}, after byte {offset} of the uncompressed content", path.display())]
    GzipCorrupt {
        /// The file.
        path: PathBuf,
        /// Bytes of uncompressed content before the fault.
        offset: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// A directory without a complete form of MNIST.
    #[error(
        "{}: expected mnist.pkl.gz or the four idx files of MNIST (gzipped or not), found no {}",
        path.display(), missing.join(", no ")
    )]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// Names not found.
        missing: Vec<&'static str>,
    },
    /// An idx file of another kind.
    #[error(
        "{}: expected an idx file of bytes with {rank} axes (magic number {expected:#010x}), found {found} at byte 0",
        path.display()
    )]
    IdxMagic {
        /// The file.
        path: PathBuf,
        /// Axes expected.
        rank: u8,
        /// Magic number expected.
        expected: u32,
        /// The first four bytes, or that there are fewer.
        found: String,
    },
    /// An idx file whose length is not what its header says.
    #[error(
        "{}: expected {} for the extents {shape:?} in the header, found {found}",
        path.display(), Counted(*expected, "byte")
    )]
    IdxLength {
        /// The file.
        path: PathBuf,
        /// Extents in the header.
        shape: Vec<usize>,
        /// Bytes the file should have, uncompressed.
        expected: u64,
        /// Bytes it has, or that it has more.
        found: String,
    },
    /// Images of another size, or sets that do not belong together.
    #[error("{}: {what}: expected {expected}, found {found}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The part of the file.
        what: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A label that is no digit.
    #[error("{}: {set} label {index}: expected an integer from 0 to 9, found {found}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// The set: training, validation or test.
        set: &'static str,
        /// Index of the label in the set, from 0.
        index: usize,
        /// The label.
        found: String,
    },
    /// A pixel outside of `[0, 1]`.
    #[error(
        "{}: {set} image {index}, pixel {pixel}: expected a value from 0 to 1, found {found}",
        path.display()
    )]
    Pixel {
        /// The file.
        path: PathBuf,
        /// The set: training, validation or test.
        set: &'static str,
        /// Index of the image in the set, from 0.
        index: usize,
        /// Index of the pixel in the image, from 0, row by row.
        pixel: usize,
        /// The value.
        found: f32,
    },
    /// A pickle that cannot be read as data.
    #[error("{}: {source}", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pickle::PickleError,
    },
    /// A MIDI file that cannot be read.
    #[error("{}: MIDI: {source}", path.display())]
    Midi {
        /// The file; of an archive, its path with that of the entry.
        path: PathBuf,
        /// What is wrong with it.
        source: MidiError,
    },
}
