//! Labelled images of digits in the three sets of a training run.
//!
//! Every set holds images of 28 x 28 float32 pixels in `[0, 1)`, row by row, with one label in `0..=9` each; both are
//! checked while they are read, so what follows need not check again.

use std::path::Path;

use crate::{DataError, digits, mnist};

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
    #[must_use]
    pub fn blank(count: usize) -> Self {
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
