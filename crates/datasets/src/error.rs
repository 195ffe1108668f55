//! Why data cannot be used. Every message names the file, the place in it, what was expected and what was found.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::count::Counted;
use crate::music::MidiError;
use crate::pickle::PickleError;

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
        source: PickleError,
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
