//! The picture of what the units of a first layer look for: the weights of each as a tile.

use std::path::Path;

use hypatia::Array;
use hypatia_datasets::IMAGE_SIDE;

use crate::error::TrainError;
use crate::picture::{Tiling, tile_raster_images, tile_shape};
use crate::state::floats;

/// Writes the weights `f32[IMAGE_PIXELS, units]` of each unit as a tile of one picture, each stretched to the whole
/// range from black to white.
///
/// # Errors
///
/// [`TrainError::Picture`].
pub fn write_filters(path: &Path, weights: &Array) -> Result<(), TrainError> {
    let (image_shape, filters): (_, &[f32]) = match *weights.shape() {
        // Each channel of each filter is a picture.
        [_, _, rows, columns] => ((rows, columns), floats(weights)?),
        _ => ((IMAGE_SIDE, IMAGE_SIDE), &columns(weights)?),
    };
    let pixels = image_shape.0 * image_shape.1;
    let tiling = Tiling {
        image_shape,
        tile_shape: tile_shape(filters.len() / pixels.max(1)),
        tile_spacing: (1, 1),
        scale_rows_to_unit_interval: true,
    };
    Ok(tile_raster_images(filters, &tiling)?.write_png(path)?)
}

/// The columns of a matrix `f32`, one after another.
pub(crate) fn columns(matrix: &Array) -> Result<Vec<f32>, TrainError> {
    let values = floats(matrix)?;
    let width = matrix.shape().last().copied().unwrap_or(1);
    Ok((0..width).flat_map(|column| values.iter().skip(column).step_by(width).copied()).collect())
}
