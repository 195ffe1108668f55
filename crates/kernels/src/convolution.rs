//! Convolutions of many images with some filters, and both their gradients, which are convolutions too: planned once and run
//! often, as [`crate::product`], whose vectors they use.
//!
//! A convolution is a product of the filters, `filters x (channels and taps)`, and of what lies under each place of the
//! filters in the image. That matrix is never made: a tile of the product finds its elements by offsets. Three
//! Methods differ in what is in the lanes of a vector. Always true: parts are regions of the result that any thread may
//! compute in any order, and neither threads nor parts change the order in which an element is summed; scratch memory is of the
//! size of an image or of some thousand places, never of the batch. Deliberately absent: integers, and any reversal of filters.

mod execute;
#[cfg(test)]
mod tests;

use std::fmt;

use crate::features::{Features, InstructionSet};
use crate::product::kernels::{Kernels, STRETCH};
use crate::product::vector::{Element, sealed::Sealed};
use crate::product::{Float, piece};

/// Places, or elements of a channel, that are computed at one time: their rows for a stretch of terms fit a cache.
const PLACES: usize = 256;
/// Bytes of products that wait to be added to where they overlap: a part of the first-level cache.
const OVERLAPPING: usize = 24 << 10;
/// Sums of stretches that are added one after another; those sums are added up again.
const SUMS: usize = 32;
/// Rows of images and places that are computed at one time with filters in the lanes.
const ROWS: usize = 1024;
/// Vectors that are transposed in the time of a multiply-add of vectors, about: one for each three.
const TRANSPOSING: f64 = 3.0;
/// The most axes along which filters move.
pub const MOST_AXES: usize = 3;

/// One axis along which the filters move: result `y` and tap `t` meet the input at `(y * stride + t * dilation - low) /
/// spread`, or a zero where that is no position of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Axis {
    /// Extent of the input.
    pub input: usize,
    /// Extent of the filters.
    pub taps: usize,
    /// Extent of the result.
    pub result: usize,
    /// Zeros before the input; below 0 elements are left out.
    pub low: isize,
    /// Distance from place to place; at least 1.
    pub stride: usize,
    /// Distance from element to element of the input; at least 1.
    pub spread: usize,
    /// Distance from tap to tap; at least 1.
    pub dilation: usize,
}

impl Axis {
    /// An axis that is not there.
    const NONE: Axis = Axis { input: 1, taps: 1, result: 1, low: 0, stride: 1, spread: 1, dilation: 1 };

    /// The position in the input that a result and a tap meet at, unless it is a zero.
    #[must_use]
    pub fn source(&self, result: usize, tap: usize) -> Option<usize> {
        let at = (result * self.stride + tap * self.dilation) as i128 - self.low as i128;
        let at = usize::try_from(at).ok().filter(|at| at % self.spread == 0)? / self.spread;
        (at < self.input).then_some(at)
    }

    /// The result that an element of the input and a tap belong to.
    fn target(&self, input: usize, tap: usize) -> Option<usize> {
        let at = (input * self.spread) as isize + self.low - (tap * self.dilation) as isize;
        let at = usize::try_from(at).ok().filter(|at| at % self.stride == 0)? / self.stride;
        (at < self.result).then_some(at)
    }

    /// Positions of the input with its zeros, from the first to the last that any result needs.
    fn touched(&self) -> usize {
        let places = self.result.saturating_sub(1).saturating_mul(self.stride);
        places.saturating_add(self.taps.saturating_sub(1).saturating_mul(self.dilation)).saturating_add(1)
    }

    /// Whether no result needs a zero.
    fn lies_inside(&self) -> bool {
        self.spread == 1
            && self.low <= 0
            && self.touched().saturating_add(self.low.unsigned_abs()) <= self.input
    }
}

/// What is known of a convolution when it is planned: `result[lead, image, filter, place] = sum over channels and taps of
/// x[lead, image, channel, position] * w[lead, filter, channel, tap]`, row-major.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConvolutionShape {
    /// The type of all elements.
    pub dtype: Float,
    /// Leading extents: a convolution for each index.
    pub lead: Vec<usize>,
    /// How many images.
    pub images: usize,
    /// How many filters.
    pub filters: usize,
    /// Channels of images and filters.
    pub channels: usize,
    /// The axes along which filters move, at most [`MOST_AXES`].
    pub axes: Vec<Axis>,
    /// Distances in elements along each axis of the input: leading ones, images, channels, `axes`.
    pub x: Vec<isize>,
    /// The same of the filters.
    pub w: Vec<isize>,
}

impl ConvolutionShape {
    /// Floating-point operations: a multiplication and an addition for each tap, also where it meets a zero.
    #[must_use]
    pub fn operations(&self) -> f64 {
        let along: f64 = self.axes.iter().map(|axis| axis.result as f64 * axis.taps as f64).product();
        let lead: f64 = self.lead.iter().map(|n| *n as f64).product();
        2.0 * lead * self.images as f64 * self.filters as f64 * self.channels as f64 * along
    }

    fn outer(&self) -> usize {
        self.lead.iter().fold(1, |all, n| all.saturating_mul(*n))
    }

    /// The distance to where the input, and the filters, of a leading index begin.
    fn begins(&self, mut outer: usize) -> [isize; 2] {
        let mut begins = [0; 2];
        for (axis, n) in self.lead.iter().enumerate().rev() {
            let index = (outer % n) as isize;
            begins = [begins[0] + index * self.x[axis], begins[1] + index * self.w[axis]];
            outer /= n;
        }
        begins
    }
}

/// What is in the lanes of a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Method {
    /// There is nothing to add up: zeros.
    Zeros,
    /// Places of one image. Each filter's element meets all of them at one time.
    Places,
    /// Elements of one image's channel. Their products with all taps are added to where they overlap; fewer products than
    /// for places where most of these meet zeros.
    Elements,
    /// Filters. Each element of the input meets all of them at one time; for many channels and few places, as in a gradient
    /// by the filters.
    Filters,
}

/// Where the lanes of [`Method::Places`] or [`Method::Elements`] find their elements in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grid {
    extents: [usize; MOST_AXES],
    strides: [isize; MOST_AXES],
    /// Vectors lie in the image as they are; else columns are copied.
    direct: bool,
    /// Rows along the last axis, and elements of them, that are computed at one time.
    rows: usize,
    run: usize,
}

impl Grid {
    fn new(extents: [usize; MOST_AXES], strides: [isize; MOST_AXES], lanes: usize) -> Grid {
        let [outer, middle, inner] = extents;
        // Elements that lie one after another.
        let mut contiguous = inner;
        if strides[1] == (inner as isize) * strides[2] {
            contiguous *= middle;
            if strides[0] == (middle as isize) * strides[1] {
                contiguous *= outer;
            }
        }
        let direct = strides[2] == 1 && contiguous % lanes == 0;
        let unit = if direct && inner % lanes != 0 { lanes } else { 1 };
        let rows = (PLACES / inner.max(1)).max(1).next_multiple_of(unit).min((outer * middle).max(1));
        let run = if rows == 1 { inner.min(PLACES) } else { inner };
        Grid { extents, strides, direct, rows, run }
    }

    /// Elements of a row of copied columns: whole vectors, one more, and an odd number of cache lines, which spreads rows
    /// over a cache.
    fn row(&self, lanes: usize) -> usize {
        let line = 16;
        ((self.rows * self.run).next_multiple_of(lanes) + lanes).div_ceil(line) / 2 * 2 * line + line
    }

    fn places(&self) -> usize {
        self.extents.iter().product()
    }
}

/// Elements of scratch memory that a part needs for each purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scratch {
    filters: usize,
    input: usize,
    columns: usize,
    sums: usize,
    /// Offsets, not elements.
    offsets: usize,
}

/// How a convolution is computed, for one shape and one instruction set. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvolutionPlan {
    shape: ConvolutionShape,
    instruction_set: InstructionSet,
    /// All three axes, the last ones those of the shape.
    axes: [Axis; MOST_AXES],
    method: Method,
    /// The input is copied with its zeros.
    padded: bool,
    /// Distances in the input, or in its copy, along channels and axes.
    view: [isize; 1 + MOST_AXES],
    grid: Grid,
    /// Vectors of a tile.
    vectors: usize,
    /// Rows that are multiplied at one time: of filters, or of filters and taps.
    chunk: usize,
    /// Channels that are joined at one time in [`Method::Filters`].
    group: usize,
    /// Offsets in the filters of what is a row, and of what is a term, of the left factor.
    w_rows: Vec<isize>,
    w_terms: Vec<isize>,
    /// Offsets in the input, or in copied columns, of each term.
    terms: Vec<isize>,
    /// The same of each vector, or in [`Method::Filters`] of each place.
    places: Vec<isize>,
    parts: usize,
    scratch: Scratch,
}

/// Every index along three axes with the sum of its distances.
fn offsets(extents: [usize; MOST_AXES], strides: [isize; MOST_AXES]) -> impl Iterator<Item = isize> {
    let [a, b, c] = extents;
    (0..a).flat_map(move |i| {
        (0..b).flat_map(move |j| {
            (0..c).map(move |k| i as isize * strides[0] + j as isize * strides[1] + k as isize * strides[2])
        })
    })
}

/// The last three, with `missing` before where there are fewer.
fn last_three<T: Copy>(all: &[T], missing: T) -> [T; MOST_AXES] {
    let mut three = [missing; MOST_AXES];
    for (to, from) in three.iter_mut().rev().zip(all.iter().rev()) {
        *to = *from;
    }
    three
}

impl ConvolutionPlan {
    /// Chooses a method for a shape, and parts for so many threads.
    #[must_use]
    pub fn new(shape: ConvolutionShape, features: &Features, threads: usize) -> Self {
        Self::by(shape, features, threads, None)
    }

    /// The same with a method that is given.
    fn by(shape: ConvolutionShape, features: &Features, threads: usize, method: Option<Method>) -> Self {
        match shape.dtype {
            Float::F32 => plan::<f32>(shape, features, threads, method),
            Float::F64 => plan::<f64>(shape, features, threads, method),
        }
    }

    /// What was planned for.
    #[must_use]
    pub fn shape(&self) -> &ConvolutionShape {
        &self.shape
    }

    /// Bytes of scratch memory for one part; parts that run at one time need their own.
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        let Scratch { filters, input, columns, sums, offsets } = self.scratch;
        let elements = [filters, input, columns, sums].into_iter().fold(0, usize::saturating_add);
        let bytes = elements.saturating_mul(self.shape.dtype.bytes());
        bytes.saturating_add(offsets.saturating_mul(size_of::<isize>())).saturating_add(execute::SLACK)
    }

    /// The number of independent parts; any number of threads may share them.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.parts
    }

    fn taps(&self) -> usize {
        self.axes.iter().map(|axis| axis.taps).product()
    }

    fn results(&self) -> usize {
        self.axes.iter().map(|axis| axis.result).product()
    }
}

/// The work of each method, about, in multiply-adds of vectors.
struct Work {
    places: f64,
    elements: f64,
    filters: f64,
}

fn plan<E: Element + Sealed>(
    shape: ConvolutionShape,
    features: &Features,
    threads: usize,
    forced: Option<Method>,
) -> ConvolutionPlan {
    let instruction_set = features.instruction_set();
    let kernels = E::kernels(instruction_set);
    let lanes = kernels.lanes;
    let axes = last_three(&shape.axes, Axis::NONE);
    let rank = shape.lead.len();
    let [x, w] = [&shape.x, &shape.w].map(|strides| last_three(&strides[rank + 2..], 0));
    let extent = |of: fn(&Axis) -> usize| axes.each_ref().map(of);
    let (results, taps, inputs) = (extent(|a| a.result), extent(|a| a.taps), extent(|a| a.input));
    let size = |extents: [usize; MOST_AXES]| extents.iter().product::<usize>();
    let (all_results, all_taps, all_inputs) = (size(results), size(taps), size(inputs));

    // The input as places see it.
    let padded = axes.iter().any(|axis| !axis.lies_inside());
    let [_, rows, row] = extent(Axis::touched);
    let view = if padded { [(rows.saturating_mul(row)) as isize, row as isize, 1] } else { x };
    let plane = extent(Axis::touched).into_iter().fold(1usize, usize::saturating_mul);
    let channel = if padded { plane as isize } else { shape.x[rank + 1] };
    let between = |of: fn(&Axis) -> usize| [0, 1, 2].map(|axis| of(&axes[axis]) as isize * view[axis]);
    let by_places = Grid::new(results, between(|axis| axis.stride), lanes);
    let by_elements = Grid::new(inputs, x, lanes);

    let ConvolutionShape { images, filters, channels, .. } = shape;
    let method = forced.unwrap_or_else(|| {
        if [channels, all_taps, all_inputs].contains(&0) {
            return Method::Zeros;
        }
        let whole = |n: usize| n.next_multiple_of(lanes) as f64;
        let [n, o, c] = [images, filters, channels].map(|n| n as f64);
        let (s, t, i) = (all_results as f64, all_taps as f64, all_inputs as f64);
        // A vector is copied in the time of two multiply-adds, a row of fewer elements as well.
        let copied = |grid: &Grid| {
            if grid.direct { 0.0 } else { whole(grid.extents[2]) / grid.extents[2] as f64 * 2.0 }
        };
        let added = if axes[2].stride == axes[2].spread { 2.0 } else { 4.0 * lanes as f64 };
        let work = Work {
            places: n * o * c * t * whole(all_results) + n * c * t * s * copied(&by_places),
            elements: n * o * c * t * whole(all_inputs)
                + n * c * i * copied(&by_elements)
                + n * o * t * i * added,
            filters: n * s * c * t * whole(filters) + (o * c * t + n * s * o) * TRANSPOSING,
        };
        match work {
            Work { places, elements, filters } if places <= elements && places <= filters => Method::Places,
            Work { elements, filters, .. } if elements <= filters => Method::Elements,
            Work { .. } => Method::Filters,
        }
    });
    let padded = padded && matches!(method, Method::Places | Method::Filters);

    let vectors_at_most = kernels.offsets.len();
    let grid = if method == Method::Elements { by_elements } else { by_places };
    let lanes_in_all = if method == Method::Filters { filters } else { grid.rows * grid.run };
    let vectors = lanes_in_all.div_ceil(lanes).clamp(1, vectors_at_most);
    let tile_rows = kernels.offsets[vectors - 1].len();

    let [row_of_filter, row_of_channel] = [shape.w[rank], shape.w[rank + 1]];
    let along = |count: usize, stride: isize, then: Vec<isize>| -> Vec<isize> {
        (0..count)
            .flat_map(|i| then.iter().map(move |t| i as isize * stride + t).collect::<Vec<_>>())
            .collect()
    };
    let w_taps: Vec<isize> = offsets(taps, w).collect();
    let x_taps: Vec<isize> = offsets(taps, between(|axis| axis.dilation)).collect();
    let (w_rows, w_terms, terms) = match method {
        Method::Zeros => (Vec::new(), Vec::new(), Vec::new()),
        Method::Places => (
            along(filters, row_of_filter, vec![0]),
            along(channels, row_of_channel, w_taps),
            along(channels, channel, x_taps),
        ),
        Method::Elements => (
            along(filters, row_of_filter, w_taps),
            along(channels, row_of_channel, vec![0]),
            along(channels, shape.x[rank + 1], vec![0]),
        ),
        Method::Filters => (Vec::new(), w_taps, x_taps),
    };
    let places: Vec<isize> = match method {
        Method::Filters => offsets(results, between(|axis| axis.stride)).collect(),
        Method::Places | Method::Elements if grid.direct => {
            offsets(grid.extents, grid.strides).step_by(lanes).collect()
        }
        Method::Zeros | Method::Places | Method::Elements => Vec::new(),
    };
    let chunk = match method {
        Method::Elements => {
            let of_filter = all_taps.saturating_mul(grid.row(lanes)).saturating_mul(shape.dtype.bytes());
            let some = (OVERLAPPING / of_filter.max(1)).clamp(1, filters.max(1));
            if some > tile_rows { some - some % tile_rows } else { some }
        }
        Method::Zeros | Method::Places | Method::Filters => filters,
    };
    let group = (STRETCH / all_taps.max(1)).clamp(1, channels.max(1));

    let outer = shape.outer();
    let wanted = if threads == 1 { 1 } else { 4 * threads };
    let units = match method {
        Method::Zeros | Method::Places | Method::Elements => outer.saturating_mul(images),
        Method::Filters if outer > 1 => outer,
        // Each part transposes all filters anew.
        Method::Filters => images.saturating_mul(all_results).div_ceil(2 * tile_rows),
    };
    let empty = outer == 0 || images == 0 || filters == 0 || all_results == 0;
    let parts = if empty {
        0
    } else if method == Method::Filters {
        wanted.min(threads).min(units)
    } else {
        wanted.min(units)
    };

    let mut scratch = Scratch::default();
    let linear = STRETCH + PLACES / lanes + vectors_at_most;
    match method {
        Method::Zeros => {}
        Method::Places | Method::Elements => {
            scratch.filters = w_rows.len().saturating_mul(w_terms.len());
            if padded {
                scratch.input = channels.saturating_mul(plane).saturating_add(row);
            }
            if !grid.direct {
                scratch.columns = STRETCH * grid.row(lanes);
            }
            if method == Method::Elements {
                scratch.sums = chunk.saturating_mul(all_taps).saturating_mul(grid.row(lanes));
            }
            scratch.offsets = linear + grid.rows * grid.run / lanes;
        }
        Method::Filters => {
            let row_of_sums = filters.next_multiple_of(lanes);
            let rows = images.saturating_mul(all_results).min(ROWS);
            let images = images.min(ROWS.div_ceil(all_results.max(1)) + 1);
            scratch.filters = STRETCH.saturating_mul(row_of_sums);
            if padded {
                scratch.input = images.saturating_mul(group).saturating_mul(plane).saturating_add(row);
            }
            scratch.sums = rows.saturating_mul(row_of_sums).saturating_mul(2);
            scratch.offsets = linear + rows;
        }
    }
    ConvolutionPlan {
        instruction_set,
        axes,
        method,
        padded,
        view: [channel, view[0], view[1], view[2]],
        grid,
        vectors,
        chunk,
        group,
        w_rows,
        w_terms,
        terms,
        places,
        parts,
        scratch,
        shape,
    }
}

impl fmt::Display for ConvolutionPlan {
    /// One line, such as `f32 500 images of 20 channels, 50 filters, 12x12 by 5x5: lanes of places, 1 parts, avx2`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ConvolutionShape { dtype, images, filters, channels, axes, .. } = &self.shape;
        let extents =
            |of: fn(&Axis) -> usize| axes.iter().map(|a| of(a).to_string()).collect::<Vec<_>>().join("x");
        write!(f, "{dtype} {images} images of {channels} channels, {filters} filters, ")?;
        write!(f, "{} by {}: ", extents(|axis| axis.input), extents(|axis| axis.taps))?;
        f.write_str(match (self.method, self.grid.direct) {
            (Method::Zeros, _) => "zeros",
            (Method::Places, true) => "lanes of places",
            (Method::Places, false) => "lanes of places, copied",
            (Method::Elements, true) => "lanes of elements",
            (Method::Elements, false) => "lanes of elements, copied",
            (Method::Filters, _) => "lanes of filters",
        })?;
        f.write_str(if self.padded { ", input with its zeros" } else { "" })?;
        write!(f, ", {} parts, {}", self.parts, self.instruction_set)
    }
}
