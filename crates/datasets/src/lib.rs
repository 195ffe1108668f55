//! Data to learn from: readers of published files, generators that need no file, and what prepares values for a model.
//!
//! Labelled digits ([`Dataset`]: MNIST or [`digits`]), colour images and patches of them ([`patches`]), music as
//! piano-rolls ([`music`]), sentences and reviews ([`text`]), anything in a Python pickle ([`pickle`]); principal component [`whitening`]; the random
//! generators of NumPy ([`numpy`]), from which published runs draw their parameters and benchmarks their data.
//!
//! Files are read as streams, gzipped or not, and whatever they contain, the outcome is a value or a [`DataError`].
//! Values are plain vectors: nothing here knows of graphs. Downloading is deliberately absent.

mod count;
mod data_file;
pub mod digits;
mod error;
pub mod files;
mod idx;
mod images;
mod mnist;
pub mod music;
pub mod numpy;
pub mod patches;
pub mod pickle;
pub mod text;
pub mod whitening;

pub use count::Counted;
pub use data_file::DataFile;
pub use error::DataError;
pub use images::{CLASSES, Dataset, IMAGE_PIXELS, IMAGE_SIDE, LabelledImages, SetSizes};
