//! Pictures of many small images at once: learnt filters, samples, digits.
//!
//! [`tile_raster_images`] lays the rows of a matrix out as tiles, as the function of that name in the Deep Learning
//! Tutorials does, and [`Picture::write_png`] stores the result.

mod piano_roll;

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use piano_roll::draw_piano_roll;

use crate::files::create_plain;
use hypatia_datasets::Counted;

/// Why a picture cannot be made or stored.
#[derive(Debug, Error)]
pub enum PictureError {
    /// A matrix of another size than the tiles need.
    #[error(
        "picture: {channel}: expected rows of {} for images of {height} x {width}, found {} in all",
        Counted(*pixels, "value"), Counted(*found, "value")
    )]
    Length {
        /// The channel concerned.
        channel: &'static str,
        /// Values of a row.
        pixels: usize,
        /// Rows of a small image.
        height: usize,
        /// Columns of a small image.
        width: usize,
        /// Values found.
        found: usize,
    },
    /// Tiles of no extent, or too many to address.
    #[error("picture: expected between 1 and 2^31 - 1 pixels in height and width, found {height} x {width}")]
    Extent {
        /// Pixels in height.
        height: usize,
        /// Pixels in width.
        width: usize,
    },
    /// The file cannot be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the encoder or the system says.
        source: png::EncodingError,
    },
}

/// How the pixels of a [`Picture`] are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colours {
    /// One byte a pixel, 0 for black.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Red, green, blue, opacity.
    Rgba,
}

impl Colours {
    fn channels(self) -> usize {
        match self {
            Self::Grey => 1,
            Self::Rgb => 3,
            Self::Rgba => 4,
        }
    }
}

/// An image of bytes, rows from the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picture {
    /// Pixels in height.
    pub height: usize,
    /// Pixels in width.
    pub width: usize,
    /// Meaning of the bytes.
    pub colours: Colours,
    /// `height * width` pixels, the bytes of a pixel side by side.
    pub bytes: Vec<u8>,
}

impl Picture {
    /// Writes the picture as a PNG file, replacing an earlier one.
    ///
    /// # Errors
    ///
    /// [`PictureError::Extent`] for an empty picture, [`PictureError::Write`] with the path when it cannot be stored.
    pub fn write_png(&self, path: &Path) -> Result<(), PictureError> {
        let error = |source| PictureError::Write { path: path.to_owned(), source };
        let (width, height) = self.extents()?;
        let file = create_plain(path).map_err(|source| error(source.into()))?;
        let mut file = BufWriter::new(file);
        let mut encoder = png::Encoder::new(&mut file, width, height);
        encoder.set_depth(png::BitDepth::Eight);
        encoder.set_color(match self.colours {
            Colours::Grey => png::ColorType::Grayscale,
            Colours::Rgb => png::ColorType::Rgb,
            Colours::Rgba => png::ColorType::Rgba,
        });
        let mut writer = encoder.write_header().map_err(error)?;
        writer.write_image_data(&self.bytes).map_err(error)?;
        writer.finish().map_err(error)?;
        file.flush().map_err(|source| error(source.into()))
    }

    fn extents(&self) -> Result<(u32, u32), PictureError> {
        let extent = |value: usize| u32::try_from(value).ok().filter(|v| (1..=i32::MAX as u32).contains(v));
        match (extent(self.width), extent(self.height)) {
            (Some(width), Some(height)) => Ok((width, height)),
            (Some(_) | None, _) => Err(PictureError::Extent { height: self.height, width: self.width }),
        }
    }
}

/// How [`tile_raster_images`] lays out and scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// Rows and columns of a small image.
    pub image_shape: (usize, usize),
    /// Tiles from top to bottom and from left to right.
    pub tile_shape: (usize, usize),
    /// Empty pixels between tiles, vertically and horizontally.
    pub tile_spacing: (usize, usize),
    /// Whether each row of the matrix is stretched to `[0, 1]` by itself; otherwise values are taken as they are.
    pub scale_rows_to_unit_interval: bool,
}

/// `x` stretched so that its smallest value becomes 0 and its largest just less than 1.
///
/// The tutorials' `scale_to_unit_interval`: `x -= x.min(); x *= 1 / (x.max() + 1e-8)`, in place. NaN stays NaN.
pub fn scale_to_unit_interval(x: &mut [f32]) {
    let smallest = x.iter().copied().fold(f32::INFINITY, f32::min);
    x.iter_mut().for_each(|value| *value -= smallest);
    let largest = x.iter().copied().fold(0.0, f32::max);
    let factor = 1.0 / (largest + 1e-8);
    x.iter_mut().for_each(|value| *value *= factor);
}

/// Lays the rows of `x` out as tiles of one grey picture.
///
/// `x` is row-major of shape `[n, height * width]`; row `i` goes to tile row `i / columns`, tile column `i % columns`.
/// Rows beyond the last tile are left out, tiles without a row and the spacing stay black. A value `v` becomes the byte
/// `v * 255`, cut off at the ends, its fraction dropped; NaN becomes 0. Published as `tile_raster_images` in the
/// tutorials' `utils.py` with `output_pixel_vals=True`; use [`tile_values`] for the values themselves.
///
/// # Errors
///
/// [`PictureError::Length`] unless `x` is made of whole rows, [`PictureError::Extent`] for a picture without pixels.
pub fn tile_raster_images(x: &[f32], tiling: &Tiling) -> Result<Picture, PictureError> {
    let (height, width, values) = tile_values(x, tiling)?;
    Ok(Picture { height, width, colours: Colours::Grey, bytes: values.into_iter().map(to_byte).collect() })
}

/// The same layout as floats: height, width, and the values in row-major order (`output_pixel_vals=False`).
///
/// # Errors
///
/// As [`tile_raster_images`].
pub fn tile_values(x: &[f32], tiling: &Tiling) -> Result<(usize, usize, Vec<f32>), PictureError> {
    let (height, width) = tiling.extents()?;
    let mut canvas = vec![0.0; height * width];
    tiling.place("values", x, &mut canvas, width)?;
    Ok((height, width, canvas))
}

/// Lays out four matrices, the red, green, blue and opacity of the same rows, as tiles of one colour picture.
///
/// A channel that is `None` is black, or opaque for the opacity, everywhere, as in the tutorials. Without an opacity the
/// picture is stored as [`Colours::Rgb`], else as [`Colours::Rgba`].
///
/// # Errors
///
/// As [`tile_raster_images`], naming the channel.
pub fn tile_colour_images(channels: [Option<&[f32]>; 4], tiling: &Tiling) -> Result<Picture, PictureError> {
    const NAMES: [&str; 4] = ["red", "green", "blue", "opacity"];
    let (height, width) = tiling.extents()?;
    let colours = if channels[3].is_some() { Colours::Rgba } else { Colours::Rgb };
    let count = colours.channels();
    let mut bytes = vec![0; height * width * count];
    for (number, (channel, name)) in channels.into_iter().zip(NAMES).enumerate().take(count) {
        let Some(x) = channel else { continue };
        let mut canvas = vec![0.0; height * width];
        tiling.place(name, x, &mut canvas, width)?;
        for (pixel, value) in bytes.iter_mut().skip(number).step_by(count).zip(canvas) {
            *pixel = to_byte(value);
        }
    }
    Ok(Picture { height, width, colours, bytes })
}

/// The fraction is dropped, as in NumPy's cast to uint8; what does not fit is cut off, where NumPy would wrap.
fn to_byte(value: f32) -> u8 {
    (value * 255.0) as u8
}

/// Rows and columns for so many tiles: a full rectangle where there is one that is not too long.
#[must_use]
pub fn tile_shape(count: usize) -> (usize, usize) {
    let side = count.isqrt().max(1);
    let rows = (side / 2 + 1..=side).rev().find(|rows| count.is_multiple_of(*rows)).unwrap_or(side);
    (rows, count.div_ceil(rows).max(1))
}

impl Tiling {
    /// Height and width of the whole: `(image + spacing) * tiles - spacing`.
    fn extents(&self) -> Result<(usize, usize), PictureError> {
        let extent = |image: usize, tiles: usize, spacing: usize| {
            let whole = image.saturating_add(spacing).saturating_mul(tiles);
            if image == 0 || tiles == 0 { 0 } else { whole.saturating_sub(spacing) }
        };
        let height = extent(self.image_shape.0, self.tile_shape.0, self.tile_spacing.0);
        let width = extent(self.image_shape.1, self.tile_shape.1, self.tile_spacing.1);
        // Four bytes a pixel stay addressable, and no mistyped extent asks for all memory.
        let fits = height.checked_mul(width).is_some_and(|pixels| (1..1 << 31).contains(&pixels));
        if fits { Ok((height, width)) } else { Err(PictureError::Extent { height, width }) }
    }

    fn place(
        &self,
        channel: &'static str,
        x: &[f32],
        canvas: &mut [f32],
        canvas_width: usize,
    ) -> Result<(), PictureError> {
        let (height, width) = self.image_shape;
        let pixels = height * width;
        if !x.len().is_multiple_of(pixels) {
            return Err(PictureError::Length { channel, pixels, height, width, found: x.len() });
        }
        let (tile_rows, tile_columns) = self.tile_shape;
        for (number, row) in x.chunks_exact(pixels).take(tile_rows * tile_columns).enumerate() {
            let top = number / tile_columns * (height + self.tile_spacing.0);
            let left = number % tile_columns * (width + self.tile_spacing.1);
            let mut row = row.to_vec();
            if self.scale_rows_to_unit_interval {
                scale_to_unit_interval(&mut row);
            }
            for (y, values) in row.chunks_exact(width).enumerate() {
                let start = (top + y) * canvas_width + left;
                canvas[start..start + width].copy_from_slice(values);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::BufReader;

    const TILING: Tiling = Tiling {
        image_shape: (2, 3),
        tile_shape: (2, 2),
        tile_spacing: (1, 2),
        scale_rows_to_unit_interval: false,
    };

    /// Three images of 2 x 3 whose values tell image, row and column.
    fn images() -> Vec<f32> {
        let value = |i: usize| ((i / 6 + 1) * 36 + (i % 6) * 6) as f32 / 255.0;
        (0..18).map(|i| value(i) + 0.5 / 255.0).collect()
    }

    #[test]
    fn tiles_fill_a_rectangle_where_they_can() {
        let shapes = [1, 2, 7, 10, 100, 500, 1000].map(tile_shape);
        assert_eq!(shapes, [(1, 1), (1, 2), (2, 4), (2, 5), (10, 10), (20, 25), (25, 40)]);
    }

    #[test]
    fn tiles_are_laid_out_as_in_the_tutorial() {
        // Worked out by hand from out_shape = (image + spacing) * tiles - spacing and the scans of utils.py.
        let picture = tile_raster_images(&images(), &TILING).unwrap();
        assert_eq!((picture.height, picture.width, picture.colours), (5, 8, Colours::Grey));
        #[rustfmt::skip]
        let expected = [
             36,  42,  48, 0, 0,  72,  78,  84,
             54,  60,  66, 0, 0,  90,  96, 102,
              0,   0,   0, 0, 0,   0,   0,   0,
            108, 114, 120, 0, 0,   0,   0,   0,
            126, 132, 138, 0, 0,   0,   0,   0,
        ];
        assert_eq!(picture.bytes, expected);
        // A fifth image has no tile.
        let many = [images(), images()].concat();
        assert_eq!(tile_raster_images(&many, &TILING).unwrap().height, 5);
    }

    #[test]
    fn rows_are_scaled_by_themselves() {
        let tiling = Tiling { image_shape: (1, 3), tile_shape: (2, 1), tile_spacing: (0, 0), ..TILING };
        let tiling = Tiling { scale_rows_to_unit_interval: true, ..tiling };
        let x = [-4.0, 0.0, 4.0, 7.0, 7.0, 7.0];
        let (height, width, values) = tile_values(&x, &tiling).unwrap();
        assert_eq!((height, width), (2, 3));
        assert_eq!(values, [0.0, 0.5, 1.0, 0.0, 0.0, 0.0]);
        assert_eq!(tile_raster_images(&x, &tiling).unwrap().bytes, [0, 127, 255, 0, 0, 0]);
        let odd = [f32::NAN, 1e30, -1e30, f32::INFINITY, 0.5, -1.0];
        let tiling = Tiling { scale_rows_to_unit_interval: false, ..tiling };
        assert_eq!(tile_raster_images(&odd, &tiling).unwrap().bytes, [0, 255, 0, 255, 127, 0]);
    }

    #[test]
    fn colours_come_from_four_matrices() {
        let tiling = Tiling { image_shape: (1, 1), tile_shape: (1, 2), tile_spacing: (0, 1), ..TILING };
        let rgb = tile_colour_images([Some(&[1.0, 0.5]), None, Some(&[0.25, 1.0]), None], &tiling).unwrap();
        assert_eq!(rgb.colours, Colours::Rgb);
        assert_eq!(rgb.bytes, [255, 0, 63, 0, 0, 0, 127, 0, 255]);
        let rgba = tile_colour_images([None, Some(&[1.0, 0.5]), None, Some(&[1.0, 1.0])], &tiling).unwrap();
        assert_eq!(rgba.bytes, [0, 255, 0, 255, 0, 0, 0, 0, 0, 127, 0, 255]);
    }

    #[test]
    fn sizes_that_do_not_fit_are_explained() {
        let error = tile_raster_images(&images()[..7], &TILING).unwrap_err().to_string();
        assert_eq!(
            error,
            "picture: values: expected rows of 6 values for images of 2 x 3, found 7 values in all"
        );
        for (image_shape, tile_shape) in
            [((0, 3), (1, 1)), ((1, 1), (0, 0)), ((usize::MAX, 2), (2, 2)), ((1 << 20, 1 << 20), (1, 1))]
        {
            let tiling = Tiling { image_shape, tile_shape, ..TILING };
            assert!(matches!(tile_raster_images(&[], &tiling), Err(PictureError::Extent { .. })));
        }
    }

    #[test]
    fn a_written_picture_reads_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tiles.png");
        let picture = tile_raster_images(&images(), &TILING).unwrap();
        picture.write_png(&path).unwrap();
        let mut reader = png::Decoder::new(BufReader::new(File::open(&path).unwrap())).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height, info.color_type), (8, 5, png::ColorType::Grayscale));
        assert_eq!(bytes, picture.bytes);
        let error = picture.write_png(&directory.path().join("no/tiles.png")).unwrap_err().to_string();
        assert!(error.starts_with("cannot write ") && error.contains("tiles.png"), "{error}");
        let short = Picture { bytes: vec![0; 3], ..picture };
        assert!(matches!(short.write_png(&path), Err(PictureError::Write { .. })));
    }
}
