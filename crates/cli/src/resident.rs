//! Examples where compiled functions find them, and the minibatches of them.
//!
//! A set lies in shared variables and a minibatch is chosen by its index, so a step moves nothing but that number. A set
//! is cut into whole minibatches and the rest of it is left out, as in the tutorials: 10,000 validation images in
//! minibatches of 600 are 9,600.

use hypatia::{Array, Shared, Tensor, ix, shared};
use hypatia_datasets::{IMAGE_PIXELS, LabelledImages};

use crate::error::TrainError;

/// Images and their labels.
#[derive(Clone, Debug)]
pub struct Resident {
    /// The images, `f32[n, IMAGE_PIXELS]`.
    pub images: Shared,
    /// The labels, `i32[n]`.
    pub labels: Shared,
    /// Whole minibatches in the set.
    pub batches: u64,
    batch_size: usize,
}

impl Resident {
    /// The set of that name (training, validation, test); the data are dropped once they are copied.
    ///
    /// # Errors
    ///
    /// [`TrainError::Usage`] for a minibatch larger than the set.
    pub fn new(name: &str, set: LabelledImages, batch_size: usize) -> Result<Self, TrainError> {
        let (count, (pixels, labels)) = (set.len(), set.into_parts());
        if batch_size == 0 || batch_size > count {
            return Err(TrainError::Usage(format!(
                "--batch-size: expected 1 to {count}, the number of {name} images, found {batch_size}"
            )));
        }
        Ok(Self {
            images: shared(&format!("{name}_x"), Array::new(&[count, IMAGE_PIXELS], &pixels)),
            labels: shared(&format!("{name}_y"), Array::vector(&labels)),
            batches: (count / batch_size) as u64,
            batch_size,
        })
    }

    /// Examples in a minibatch.
    #[must_use]
    pub fn batch_size(&self) -> usize {
        self.batch_size
    }

    /// The images and the labels of minibatch `index`, an `i64` scalar.
    #[must_use]
    #[track_caller]
    pub fn minibatch(&self, index: &Tensor) -> (Tensor, Tensor) {
        (rows_of(&self.images, index, self.batch_size), rows_of(&self.labels, index, self.batch_size))
    }
}

/// The `size` rows of minibatch `index` of a set.
#[must_use]
#[track_caller]
pub fn rows_of(set: &Shared, index: &Tensor, size: usize) -> Tensor {
    let size = size as i64;
    set.index(ix![index * size..(index + 1) * size])
}

/// The index of a minibatch as the argument of a function.
#[must_use]
pub fn index_of(batch: u64) -> Array {
    Array::scalar(batch as i64)
}

/// Updates as functions take them.
#[must_use]
pub fn borrowed(updates: &[(Shared, Tensor)]) -> Vec<(&Shared, &Tensor)> {
    updates.iter().map(|(shared, next)| (shared, next)).collect()
}
