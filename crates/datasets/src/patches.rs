//! Colour images and the square patches that are cut out of them: arrays of bytes, CIFAR-10, generated ones.
//!
//! All images of a set have one size; a pixel is three bytes, red, green, blue, and rows go from the top. Files may be
//! gzipped and may contain anything: the outcome is a value or a [`DataError`]. What the bytes become for a model
//! (scale, whitening) is deliberately absent.

mod cifar;
mod generate;
mod npy;

use std::path::{Path, PathBuf};

pub use cifar::{CIFAR_SIDE, read_cifar10};

use crate::numpy::RandomState;
use crate::{DataError, DataFile};

/// Bytes of a pixel: red, green, blue.
pub const CHANNELS: usize = 3;

/// Larger files are refused, so that a forged header cannot ask for all memory.
const MAX_BYTES: u64 = 1 << 30;

/// Colour images of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColourImages {
    height: usize,
    width: usize,
    bytes: Vec<u8>,
    origin: String,
}

impl ColourImages {
    /// `bytes` holds whole images of `height * width * CHANNELS` bytes, of which there is at least one.
    fn new(height: usize, width: usize, bytes: Vec<u8>, origin: String) -> Self {
        debug_assert!(!bytes.is_empty() && bytes.len().is_multiple_of(height * width * CHANNELS));
        Self { height, width, bytes, origin }
    }

    /// Reads images from a NumPy file of bytes of shape `[n, height, width, 3]`, from a CIFAR-10 file, or from a
    /// directory with one of the former or with `data_batch*.bin` of the latter.
    ///
    /// # Errors
    ///
    /// A [`DataError`] that says which file, where in it, and what was expected there.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let metadata =
            std::fs::metadata(path).map_err(|source| DataError::Open { path: path.to_owned(), source })?;
        if metadata.is_dir() { read_directory(path) } else { read_file(path) }
    }

    /// Generates square patches of overlapping surfaces in correlated colours, whose outlines are edges, bars and
    /// discs of any orientation: the same bytes for the same `seed` on every machine.
    #[must_use]
    pub fn generate(seed: u32, side: usize, count: usize) -> Self {
        let (side, count) = (side.max(1), count.max(1));
        let origin = format!("generated patches, seed {seed}");
        Self::new(side, side, generate::generate_patches(seed, side, count), origin)
    }

    /// Black square patches.
    #[must_use]
    pub fn blank(side: usize, count: usize) -> Self {
        Self::new(side, side, vec![0; count * side * side * CHANNELS], "blank".to_owned())
    }

    /// Pixels from top to bottom.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// Pixels from left to right.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of images, at least 1.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always an image")]
    pub fn len(&self) -> usize {
        self.bytes.len() / (self.height * self.width * CHANNELS)
    }

    /// All bytes, shape `[len, height, width, CHANNELS]` in row-major order.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the images come from, for the log.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// CRC-32 of all bytes: runs with the same one see the same images, wherever they come from.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(&self.bytes);
        crc.sum()
    }

    /// Square patches of these images: the first `count` images themselves where they have that size, otherwise
    /// `count` windows at random places of random images.
    ///
    /// # Errors
    ///
    /// [`DataError::Layout`] for images smaller than a patch, naming their origin.
    pub fn cut(self, side: usize, count: usize, seed: u32) -> Result<Self, DataError> {
        if side == 0 || self.height < side || self.width < side {
            return Err(layout(
                Path::new(&self.origin),
                "size of the images",
                format!("at least 1 x 1, and for patches of side {side} at least {side} x {side} pixels"),
                format!("{} x {}", self.height, self.width),
            ));
        }
        let image_bytes = self.height * self.width * CHANNELS;
        if (self.height, self.width) == (side, side) {
            let mut patches = self;
            patches.bytes.truncate(count.max(1).saturating_mul(image_bytes));
            return Ok(patches);
        }
        let mut rng = RandomState::new(seed);
        let images = self.len();
        let mut bytes = Vec::with_capacity(count * side * side * CHANNELS);
        for _ in 0..count.max(1) {
            // A uniform number below 1 times an extent is below that extent, rounded down.
            let mut below = |extent: usize| match rng.random_sample(1).first() {
                Some(unit) => (unit * extent as f64) as usize,
                None => 0,
            };
            let (image, top, left) =
                (below(images), below(self.height - side + 1), below(self.width - side + 1));
            for row in top..top + side {
                let start = image * image_bytes + (row * self.width + left) * CHANNELS;
                bytes.extend_from_slice(&self.bytes[start..start + side * CHANNELS]);
            }
        }
        Ok(Self::new(side, side, bytes, self.origin))
    }
}

fn read_file(path: &Path) -> Result<ColourImages, DataError> {
    let head = DataFile::open(path)?.read_up_to(npy::MAGIC.len() as u64)?;
    if head == npy::MAGIC {
        npy::read_images(path)
    } else if path.extension().is_some_and(|extension| extension == "npy") {
        Err(layout(path, "bytes 0 to 5", "the magic string of a NumPy file", format!("{head:02x?}")))
    } else {
        Ok(read_cifar10(path)?.0)
    }
}

fn read_directory(path: &Path) -> Result<ColourImages, DataError> {
    let unreadable = |source| DataError::Open { path: path.to_owned(), source };
    let mut files: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        files.push(entry.map_err(unreadable)?.path());
    }
    files.sort();
    let name = |file: &PathBuf| file.file_name().map(|name| name.to_string_lossy().into_owned());
    let arrays: Vec<&PathBuf> =
        files.iter().filter(|file| name(file).is_some_and(|name| name.ends_with(".npy"))).collect();
    if let [array] = arrays.as_slice() {
        return read_file(array);
    }
    let is_batch = |name: String| name.starts_with("data_batch") && name.ends_with(".bin");
    let batches: Vec<&PathBuf> =
        files.iter().filter(|file| arrays.is_empty() && name(file).is_some_and(is_batch)).collect();
    let mut bytes = Vec::new();
    for batch in &batches {
        bytes.append(&mut read_cifar10(batch)?.0.bytes);
    }
    if bytes.is_empty() {
        let found = match arrays.len() {
            0 => files.iter().filter_map(name).take(10).collect::<Vec<_>>().join(", "),
            count => format!("{count} files *.npy"),
        };
        return Err(layout(
            path,
            "content of the directory",
            "one file *.npy of images, or CIFAR-10 files data_batch*.bin",
            if found.is_empty() { "no files".to_owned() } else { found },
        ));
    }
    Ok(ColourImages::new(CIFAR_SIDE, CIFAR_SIDE, bytes, path.display().to_string()))
}

fn layout(path: &Path, what: &str, expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::Layout {
        path: path.to_owned(),
        what: what.to_owned(),
        expected: expected.into(),
        found: found.into(),
    }
}

#[cfg(test)]
mod tests;
