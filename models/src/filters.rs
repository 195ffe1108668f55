//! The picture of what the units of a first layer look for: the weights of each as a tile.

use std::path::Path;

use hypatia::{Array, DType};

use crate::data::{IMAGE_PIXELS, IMAGE_SIDE};
use crate::model::TrainError;
use crate::picture::{Tiling, tile_raster_images, tile_shape};

/// Writes the weights `f32[IMAGE_PIXELS, units]` of each unit as a tile of one picture, each stretched to the whole
/// range from black to white.
///
/// # Errors
///
/// [`TrainError::Picture`].
pub fn write_filters(path: &Path, weights: &Array) -> Result<(), TrainError> {
    let values = weights.cast(DType::F32).to_vec::<f32>().unwrap_or_default();
    let units = values.len() / IMAGE_PIXELS;
    let transposed: Vec<f32> =
        (0..values.len()).map(|i| values[i % IMAGE_PIXELS * units + i / IMAGE_PIXELS]).collect();
    let tiling = Tiling {
        image_shape: (IMAGE_SIDE, IMAGE_SIDE),
        tile_shape: tile_shape(units),
        tile_spacing: (1, 1),
        scale_rows_to_unit_interval: true,
    };
    Ok(tile_raster_images(&transposed, &tiling)?.write_png(path)?)
}
