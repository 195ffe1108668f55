//! Running a plan on raw memory. A part reads the input and the filters, and writes its region of the result and its own
//! scratch memory only.
#![allow(unsafe_code, reason = "plans run on raw memory")]

use std::ops::Range;

use super::{Axis, ConvolutionPlan, ConvolutionShape, Float, Kernels, MOST_AXES, Method, ROWS, SUMS, piece};
use crate::pool::Pool;
use crate::product::ProductError;
use crate::product::execute::ALIGNMENT;
use crate::product::kernels::{AddRows, Columns, Copy2, OffsetTile, STRETCH, Transposed, stretches};
use crate::product::vector::{Element, sealed::Sealed};

/// Bytes of scratch memory that are lost where its parts are aligned.
pub(super) const SLACK: usize = 6 * ALIGNMENT;

/// Scratch memory of a part.
#[derive(Clone, Copy)]
struct Memory<E> {
    filters: *mut E,
    input: *mut E,
    columns: *mut E,
    sums: *mut E,
    offsets: *mut isize,
}

/// A part while it runs.
struct Part<'a, E: Element> {
    plan: &'a ConvolutionPlan,
    kernels: &'static Kernels<E>,
    memory: Memory<E>,
}

impl ConvolutionPlan {
    /// Computes one part; of a part that is not in the plan, nothing.
    ///
    /// `x`, `w` and `result` point to the first elements, `scratch` to [`ConvolutionPlan::scratch_bytes`] bytes.
    ///
    /// # Safety
    /// For every index within the shape's extents, the strides lead to a valid, aligned element that can be read, in the
    /// input and in the filters; the result holds as many elements as its extents say, aligned, and overlaps neither.
    /// Nobody else writes the input or the filters, or touches this part's region of the result or `scratch`, meanwhile.
    pub unsafe fn run_part(
        &self,
        part: usize,
        x: *const u8,
        w: *const u8,
        result: *mut u8,
        scratch: *mut u8,
    ) {
        // SAFETY: the caller's promises, with the element type of the shape.
        unsafe {
            match self.shape.dtype {
                Float::F32 => self.run_typed::<f32>(part, x.cast(), w.cast(), result.cast(), scratch),
                Float::F64 => self.run_typed::<f64>(part, x.cast(), w.cast(), result.cast(), scratch),
            }
        }
    }

    unsafe fn run_typed<E: Element + Sealed>(
        &self,
        part: usize,
        x: *const E,
        w: *const E,
        result: *mut E,
        scratch: *mut u8,
    ) {
        if part >= self.parts {
            return;
        }
        let mut at = scratch;
        let mut take = |bytes: usize| {
            let begin = at.wrapping_add(at.align_offset(ALIGNMENT));
            at = begin.wrapping_add(bytes);
            begin
        };
        let mut elements = |count: usize| take(count.saturating_mul(size_of::<E>())).cast::<E>();
        let super::Scratch { filters, input, columns, sums, .. } = self.scratch;
        let [filters, input, columns, sums] = [filters, input, columns, sums].map(&mut elements);
        let memory = Memory { filters, input, columns, sums, offsets: take(0).cast() };
        let run = Part { plan: self, kernels: E::kernels(self.instruction_set), memory };
        let ConvolutionShape { images, filters, .. } = self.shape;
        let outer = self.shape.outer();
        let of_image = filters * self.results();
        let of_outer = images * of_image;
        let begin = |outer: usize| {
            let [from_x, from_w] = self.shape.begins(outer);
            (x.wrapping_offset(from_x), w.wrapping_offset(from_w), result.wrapping_add(outer * of_outer))
        };
        // SAFETY: the caller's promises hold for each leading index and image; results of different ones are disjoint.
        unsafe {
            match self.method {
                Method::Zeros => {
                    for image in piece(outer * images, self.parts, part) {
                        result.wrapping_add(image * of_image).write_bytes(0, of_image);
                    }
                }
                Method::Places | Method::Elements => {
                    let units = piece(outer * images, self.parts, part);
                    let mut packed = None;
                    for unit in units {
                        let (index, image) = (unit / images, unit % images);
                        let (x, w, result) = begin(index);
                        if packed != Some(index) {
                            run.pack_filters(w);
                            packed = Some(index);
                        }
                        let x = x.wrapping_offset(image as isize * self.shape.x[self.shape.lead.len()]);
                        let result = result.wrapping_add(image * of_image);
                        if self.method == Method::Places {
                            run.places(x, result)
                        } else {
                            run.elements(x, result)
                        }
                    }
                }
                Method::Filters => {
                    let rows = images * self.results();
                    let (outer, rows) = match outer {
                        1 => (0..1, piece(rows, self.parts, part)),
                        outer => (piece(outer, self.parts, part), 0..rows),
                    };
                    for index in outer {
                        let (x, w, result) = begin(index);
                        for first in rows.clone().step_by(ROWS) {
                            run.filters(x, w, result, first..rows.end.min(first + ROWS));
                        }
                    }
                }
            }
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// The rows of a tile.
    fn tile_rows(&self) -> usize {
        self.kernels.offsets[self.plan.vectors - 1].len()
    }

    /// The left factor: for each chunk of rows, for each tile of rows, term by term.
    unsafe fn pack_filters(&self, w: *const E) {
        let (rows, terms) = (&self.plan.w_rows, &self.plan.w_terms);
        let chunk = self.chunk_rows();
        let mut to = self.memory.filters;
        for first in (0..rows.len()).step_by(chunk) {
            let count = chunk.min(rows.len() - first);
            let tiles = count.div_ceil(self.tile_rows());
            for tile in 0..tiles {
                let tile = piece(count, tiles, tile);
                for term in terms {
                    for row in &rows[first + tile.start..first + tile.end] {
                        // SAFETY: row and term name an element of the filters; the scratch holds all rows of all terms.
                        unsafe {
                            to.write(*w.wrapping_offset(row + term));
                            to = to.add(1);
                        }
                    }
                }
            }
        }
    }

    /// Rows of the left factor in a chunk.
    fn chunk_rows(&self) -> usize {
        match self.plan.method {
            Method::Elements => self.plan.chunk * self.plan.taps(),
            Method::Zeros | Method::Places | Method::Filters => self.plan.chunk,
        }
    }

    /// The channels of some images with the zeros around and between their elements, one after the other.
    unsafe fn pad(&self, x: *const E, images: Range<usize>, channels: Range<usize>) {
        let shape = &self.plan.shape;
        let rank = shape.lead.len();
        let strides = super::last_three(&shape.x[rank + 2..], 0);
        let axes = &self.plan.axes;
        let [_, rows, row] = axes.each_ref().map(Axis::touched);
        let plane: usize = axes.iter().map(Axis::touched).product();
        let inside = axes.each_ref().map(inside);
        let mut to = self.memory.input;
        for image in images {
            for channel in channels.clone() {
                let from = x
                    .wrapping_offset(image as isize * shape.x[rank])
                    .wrapping_offset(channel as isize * shape.x[rank + 1]);
                // SAFETY: the scratch holds a plane for each image and channel, and the positions inside lie in it; the
                // elements are those of the input.
                unsafe {
                    to.write_bytes(0, plane);
                    for i in inside[0].clone() {
                        for j in inside[1].clone() {
                            let place = |axis: &Axis, i: usize| (i * axis.spread) as isize + axis.low;
                            let line = to.wrapping_offset(
                                (place(&axes[0], i) * rows as isize + place(&axes[1], j)) * row as isize,
                            );
                            let from = from
                                .wrapping_offset(i as isize * strides[0])
                                .wrapping_offset(j as isize * strides[1]);
                            if axes[2].spread == 1 && strides[2] == 1 {
                                let first = inside[2].start;
                                let to = line.wrapping_offset(place(&axes[2], first));
                                to.copy_from_nonoverlapping(from.wrapping_add(first), inside[2].len());
                            } else {
                                for k in inside[2].clone() {
                                    let element = *from.wrapping_offset(k as isize * strides[2]);
                                    line.wrapping_offset(place(&axes[2], k)).write(element);
                                }
                            }
                        }
                    }
                    to = to.add(plane);
                }
            }
        }
    }

    /// Where the first position that results need would lie in the input.
    fn first(&self, x: *const E) -> *const E {
        let [_, strides @ ..] = self.plan.view;
        let axes = self.plan.axes.iter().zip(strides);
        axes.fold(x, |x, (axis, stride)| x.wrapping_offset(-axis.low * stride))
    }

    /// One image with places in the lanes.
    unsafe fn places(&self, x: *const E, result: *mut E) {
        let places = self.plan.grid.places();
        // SAFETY: the caller's promises for one image; padded, its copy has all positions that places need.
        unsafe {
            let x = if self.plan.padded {
                self.pad(x, 0..1, 0..self.plan.shape.channels);
                self.memory.input.cast_const()
            } else {
                self.first(x)
            };
            self.each_block(|rows, run, first| {
                self.block(x, rows, run, 0, result.wrapping_add(first), places as isize);
            });
        }
    }

    /// One image with elements of a channel in the lanes, whose products are added to where they overlap.
    unsafe fn elements(&self, x: *const E, result: *mut E) {
        let plan = self.plan;
        let (filters, results) = (plan.shape.filters, plan.results());
        let row = plan.grid.row(self.kernels.lanes);
        // SAFETY: the caller's promises for one image; the scratch for sums holds a chunk of rows.
        unsafe {
            result.write_bytes(0, filters * results);
            self.each_block(|rows, run, _| {
                for first in (0..filters).step_by(plan.chunk) {
                    let chunk = plan.chunk.min(filters - first);
                    self.block(
                        x,
                        rows.clone(),
                        run.clone(),
                        first * plan.taps(),
                        self.memory.sums,
                        row as isize,
                    );
                    self.overlap(chunk, row, &rows, &run, result.wrapping_add(first * results));
                }
            });
        }
    }

    /// Calls for each block of a grid with its rows, the elements of them, and the number of its first place.
    fn each_block(&self, mut visit: impl FnMut(Range<usize>, Range<usize>, usize)) {
        let grid = &self.plan.grid;
        let [outer, middle, inner] = grid.extents;
        for row in (0..outer * middle).step_by(grid.rows) {
            for begin in (0..inner).step_by(grid.run.max(1)) {
                let rows = row..(row + grid.rows).min(outer * middle);
                visit(rows, begin..(begin + grid.run).min(inner), row * inner + begin);
            }
        }
    }

    /// The product of a chunk of rows, from `first_row` on, and a block of a grid. The first element of C is that of the
    /// block's first place.
    unsafe fn block(
        &self,
        x: *const E,
        rows: Range<usize>,
        run: Range<usize>,
        first_row: usize,
        c: *mut E,
        c_row: isize,
    ) {
        let plan = self.plan;
        let (grid, depth) = (&plan.grid, plan.w_terms.len());
        let lanes = self.kernels.lanes;
        let places = rows.len() * run.len();
        let row = grid.row(lanes) as isize;
        let vectors = places.div_ceil(lanes);
        let groups = vectors.div_ceil(plan.vectors);
        let chunk = self.chunk_rows().min(plan.w_rows.len() - first_row);
        let tiles = chunk.div_ceil(self.tile_rows());
        // Columns that are copied lie at equal distances.
        let (copied_terms, copied_places) = (self.memory.offsets, self.memory.offsets.wrapping_add(STRETCH));
        // SAFETY: offsets of terms and places lead to elements of the image or of copied columns; the filters are packed; rows
        // and columns of C are in the caller's memory.
        unsafe {
            if !grid.direct {
                (0..STRETCH).for_each(|term| copied_terms.add(term).write(term as isize * row));
                (0..vectors).for_each(|v| copied_places.add(v).write((v * lanes) as isize));
            }
            let first_place = rows.start * grid.extents[2] + run.start;
            let parts = stretches(depth);
            for part in 0..parts {
                let terms = piece(depth, parts, part);
                let mut offsets = plan.terms[terms.clone()].as_ptr();
                let mut b = x;
                let mut found = copied_places.cast_const();
                if grid.direct {
                    found = plan.places[first_place / lanes..].as_ptr();
                } else {
                    self.copy_columns(x, &rows, &run, offsets, terms.len());
                    (b, offsets) = (self.memory.columns.cast_const(), copied_terms.cast_const());
                }
                for tile in 0..tiles {
                    let tile = piece(chunk, tiles, tile);
                    let a = (first_row + tile.start) * depth + terms.start * tile.len();
                    for (size, groups) in sizes(vectors, groups) {
                        let column = groups.start * lanes;
                        let offset_tile = OffsetTile {
                            depth: terms.len(),
                            a: self.memory.filters.wrapping_add(a).cast_const(),
                            b,
                            step: tile.len() as isize,
                            offsets: found.wrapping_add(groups.start),
                            terms: offsets,
                            c: c.wrapping_offset(tile.start as isize * c_row).wrapping_add(column),
                            c_row,
                            columns: places - column,
                            tiles: groups.len() / size,
                            begins: part == 0,
                        };
                        self.kernels.offsets[size - 1][tile.len() - 1][0](&offset_tile);
                    }
                }
            }
        }
    }

    /// Copies the columns of some terms and a block of a grid.
    unsafe fn copy_columns(
        &self,
        x: *const E,
        rows: &Range<usize>,
        run: &Range<usize>,
        terms: *const isize,
        depth: usize,
    ) {
        let grid = &self.plan.grid;
        let (middle, [outer_stride, middle_stride, inner_stride]) = (grid.extents[1], grid.strides);
        let mut to = self.memory.columns;
        let mut row = rows.start;
        while row < rows.end {
            let (i, j) = (row / middle, row % middle);
            let count = (rows.end - row).min(middle - j);
            let columns = Columns {
                depth,
                terms,
                rows: count,
                run: run.len(),
                from: x
                    .wrapping_offset(i as isize * outer_stride)
                    .wrapping_offset(j as isize * middle_stride)
                    .wrapping_offset(run.start as isize * inner_stride),
                from_row: middle_stride,
                from_element: inner_stride,
                to,
                to_term: grid.row(self.kernels.lanes) as isize,
            };
            // SAFETY: the rows lie in the image; a row of copied columns holds the block and a vector more.
            unsafe { (self.kernels.columns)(&columns) };
            to = to.wrapping_add(count * run.len());
            row += count;
        }
    }

    /// Adds the products of a block with all taps of some filters to where they belong.
    unsafe fn overlap(
        &self,
        filters: usize,
        row: usize,
        rows: &Range<usize>,
        run: &Range<usize>,
        result: *mut E,
    ) {
        let (sums, results) = (self.memory.sums.cast_const(), self.plan.results());
        let axes = &self.plan.axes;
        let middle = axes[1].input;
        let [_, height, width] = axes.each_ref().map(|axis| axis.result);
        for tap in 0..self.plan.taps() {
            let t =
                [tap / axes[2].taps / axes[1].taps, tap / axes[2].taps % axes[1].taps, tap % axes[2].taps];
            let (across, first) = targets(&axes[2], t[2], run);
            if across.is_empty() {
                continue;
            }
            let mut input_row = rows.start;
            while input_row < rows.end {
                let (i, j) = (input_row / middle, input_row % middle);
                let count = (rows.end - input_row).min(middle - j);
                let from = sums.wrapping_add(tap * row + (input_row - rows.start) * run.len());
                input_row += count;
                let Some(slab) = axes[0].target(i, t[0]) else { continue };
                // SAFETY: targets are places of the result; the sums are those of the block.
                unsafe {
                    if axes[1..].iter().all(|axis| axis.spread == axis.stride) {
                        let (down, top) = targets(&axes[1], t[1], &(j..j + count));
                        (self.kernels.add_rows)(&AddRows {
                            planes: filters,
                            from_plane: self.plan.taps() * row,
                            to_plane: results,
                            rows: down.len(),
                            columns: across.len(),
                            from: from.wrapping_add((down.start - j) * run.len() + across.start - run.start),
                            from_row: run.len() as isize,
                            to: result.wrapping_add((slab * height + top) * width + first),
                            to_row: width as isize,
                        });
                        continue;
                    }
                    for (filter, k) in (0..filters).flat_map(|filter| (0..count).map(move |k| (filter, k))) {
                        let Some(line) = axes[1].target(j + k, t[1]) else { continue };
                        let from = from.wrapping_add(filter * self.plan.taps() * row + k * run.len());
                        let line = result.wrapping_add(filter * results + (slab * height + line) * width);
                        for element in across.clone() {
                            let Some(at) = axes[2].target(element, t[2]) else { continue };
                            let to = line.wrapping_add(at);
                            *to = *to + *from.wrapping_add(element - run.start);
                        }
                    }
                }
            }
        }
    }

    /// Some rows of images and places, with filters in the lanes.
    unsafe fn filters(&self, x: *const E, w: *const E, result: *mut E, rows: Range<usize>) {
        let plan = self.plan;
        let ConvolutionShape { filters, channels, .. } = plan.shape;
        let (rank, x_strides, w_strides) = (plan.shape.lead.len(), &plan.shape.x, &plan.shape.w);
        let (results, taps) = (plan.results(), plan.taps());
        let lanes = self.kernels.lanes;
        let row = filters.next_multiple_of(lanes);
        let (sums, totals) = (self.memory.sums, self.memory.sums.wrapping_add(rows.len() * row));
        let (terms, row_offsets) = (self.memory.offsets, self.memory.offsets.wrapping_add(STRETCH));
        let [channel, ..] = plan.view;
        let images = rows.start / results..rows.end.div_ceil(results);
        let plane: usize = plan.axes.iter().map(Axis::touched).product();
        let image_stride = if plan.padded { (plan.group * plane) as isize } else { x_strides[rank] };
        let vectors = row / lanes;
        let groups = vectors.div_ceil(plan.vectors);
        // SAFETY: the caller's promises; scratch memory holds sums and totals for each row, an offset for each, the filters of
        // a stretch, and where the input is padded a group of channels.
        unsafe {
            for (number, place) in rows.clone().enumerate() {
                let image = if plan.padded { place / results - images.start } else { place / results };
                row_offsets.add(number).write(image as isize * image_stride + plan.places[place % results]);
            }
            let mut done = 0;
            let mut first = true;
            for from in (0..channels).step_by(plan.group) {
                let count = plan.group.min(channels - from);
                let x = if plan.padded {
                    self.pad_group(x, images.clone(), from..from + count);
                    self.memory.input.cast_const()
                } else {
                    self.first(x).wrapping_offset(from as isize * channel)
                };
                let w = w.wrapping_offset(from as isize * w_strides[rank + 1]);
                let depth = count * taps;
                let parts = stretches(depth);
                for part in 0..parts {
                    let stretch = piece(depth, parts, part);
                    for (number, term) in stretch.clone().enumerate() {
                        terms.add(number).write((term / taps) as isize * channel + plan.terms[term % taps]);
                    }
                    self.transpose_filters(w, stretch.clone(), row);
                    for group in 0..groups {
                        let group = piece(vectors, groups, group);
                        let kernels = self.kernels.offsets[group.len() - 1];
                        let tiles = rows.len().div_ceil(kernels.len());
                        for (size, rows) in sizes(rows.len(), tiles) {
                            let offset_tile = OffsetTile {
                                depth: stretch.len(),
                                a: x,
                                b: self.memory.filters.wrapping_add(group.start * lanes).cast_const(),
                                step: row as isize,
                                offsets: row_offsets.wrapping_add(rows.start).cast_const(),
                                terms: terms.cast_const(),
                                c: sums.wrapping_add(rows.start * row + group.start * lanes),
                                c_row: row as isize,
                                columns: group.len() * lanes,
                                tiles: rows.len() / size,
                                begins: done % SUMS == 0,
                            };
                            kernels[size - 1][1](&offset_tile);
                        }
                    }
                    done += 1;
                    if done % SUMS == 0 {
                        self.gather_sums(sums, totals, rows.len() * row, first);
                        first = false;
                    }
                }
            }
            if done % SUMS != 0 {
                self.gather_sums(sums, totals, rows.len() * row, first);
            }
            for image in images {
                let places = rows.start.max(image * results)..rows.end.min((image + 1) * results);
                (self.kernels.transpose)(&Transposed {
                    rows: filters,
                    columns: places.len(),
                    from: totals.wrapping_add((places.start - rows.start) * row).cast_const(),
                    from_row: row as isize,
                    c: result.wrapping_add(image * filters * results + places.start - image * results),
                    c_row: results as isize,
                    beta: E::ZERO,
                });
            }
        }
    }

    /// Adds sums to the totals, or begins the totals with them.
    unsafe fn gather_sums(&self, sums: *const E, totals: *mut E, count: usize, first: bool) {
        // SAFETY: both hold as many elements and are apart.
        unsafe {
            if first {
                totals.copy_from_nonoverlapping(sums, count);
                return;
            }
            (self.kernels.add_rows)(&AddRows {
                planes: 1,
                from_plane: 0,
                to_plane: 0,
                rows: 1,
                columns: count,
                from: sums,
                from_row: 0,
                to: totals,
                to_row: 0,
            });
        }
    }

    /// As [`Part::pad`], with the channels at the places that a whole group has.
    unsafe fn pad_group(&self, x: *const E, images: Range<usize>, channels: Range<usize>) {
        let plane: usize = self.plan.axes.iter().map(Axis::touched).product();
        for (number, image) in images.enumerate() {
            let to = self.memory.input.wrapping_add(number * self.plan.group * plane);
            let memory = Memory { input: to, ..self.memory };
            // SAFETY: the caller's promises; the scratch holds a group for each image.
            unsafe { Part { memory, ..*self }.pad(x, image..image + 1, channels.clone()) };
        }
    }

    /// The filters' elements for a range of channels and taps, a row of whole vectors for each.
    unsafe fn transpose_filters(&self, w: *const E, terms: Range<usize>, width: usize) {
        let plan = self.plan;
        let rank = plan.shape.lead.len();
        let taps = plan.taps();
        let strides = super::last_three(&plan.shape.w[rank + 2..], 0);
        let extents = plan.axes.each_ref().map(|axis| axis.taps);
        // Taps at equal distances.
        let mut run = extents[2];
        let mut stride = strides[2];
        for axis in [1, 0] {
            if run == 1 {
                stride = strides[axis];
            }
            if strides[axis] != run as isize * stride && extents[axis] != 1 {
                break;
            }
            run *= extents[axis];
        }
        let mut term = terms.start;
        let mut to = self.memory.filters;
        while term < terms.end {
            let (channel, tap) = (term / taps, term % taps);
            let count = (terms.end - term).min(run - tap % run);
            // SAFETY: the terms name elements of the filters; the scratch holds a row for each term of a stretch.
            unsafe {
                (self.kernels.copy)(&Copy2 {
                    rows: count,
                    columns: plan.shape.filters,
                    width,
                    from: w
                        .wrapping_offset(channel as isize * plan.shape.w[rank + 1])
                        .wrapping_offset(plan.w_terms[tap]),
                    from_row: stride,
                    from_column: plan.shape.w[rank],
                    to,
                });
                to = to.add(count * width);
            }
            term += count;
        }
    }
}

/// `total` in as many nearly equal pieces: those of the larger size, then those of the smaller one, by what they cover.
fn sizes(total: usize, pieces: usize) -> impl Iterator<Item = (usize, Range<usize>)> {
    let (whole, rest) = (total / pieces.max(1), total % pieces.max(1));
    let larger = rest * (whole + 1);
    [(whole + 1, 0..larger), (whole, larger..total)].into_iter().filter(|(_, range)| !range.is_empty())
}

/// The elements of the input that lie between the first and the last position that results need.
fn inside(axis: &Axis) -> Range<usize> {
    let element_from = |position: isize| (position.max(0) as usize).div_ceil(axis.spread).min(axis.input);
    let first = element_from(-axis.low);
    first..element_from(axis.touched() as isize - axis.low).max(first)
}

/// The elements of a run whose target for a tap exists, and the first one's, where targets are at equal distances; else all
/// of the run.
fn targets(axis: &Axis, tap: usize, run: &Range<usize>) -> (Range<usize>, usize) {
    if axis.spread != axis.stride {
        return (run.clone(), 0);
    }
    let stride = axis.stride as isize;
    let shift = axis.low - (tap * axis.dilation) as isize;
    if shift % stride != 0 {
        return (0..0, 0);
    }
    let shift = shift / stride;
    let first = (run.start as isize).max(-shift);
    let end = (run.end as isize).min(axis.result as isize - shift);
    if end <= first { (0..0, 0) } else { (first as usize..end as usize, (first + shift) as usize) }
}

const _: () = assert!(MOST_AXES == 3, "axes are walked by three loops");

impl ConvolutionPlan {
    /// Computes the whole convolution on slices, with scratch memory of its own: the safe way, for all but compiled functions.
    ///
    /// # Errors
    /// When the element type is not the plan's, a stride is negative, a slice is too short, or there is no memory for scratch.
    pub fn run<E: Element>(
        &self,
        x: &[E],
        w: &[E],
        result: &mut [E],
        pool: &Pool,
    ) -> Result<(), ProductError> {
        let shape = &self.shape;
        if E::FLOAT != shape.dtype {
            return Err(ProductError::Type { expected: shape.dtype, found: E::FLOAT });
        }
        let along = |own: usize, of: fn(&Axis) -> usize| -> Vec<usize> {
            let spatial = shape.axes.iter().map(of);
            shape.lead.iter().copied().chain([own, shape.channels]).chain(spatial).collect()
        };
        check_length("the input", &along(shape.images, |axis| axis.input), &shape.x, x.len())?;
        check_length("the filters", &along(shape.filters, |axis| axis.taps), &shape.w, w.len())?;
        let outer = shape.outer().saturating_mul(shape.images);
        let needed = outer.saturating_mul(shape.filters).saturating_mul(self.results());
        if result.len() < needed {
            return Err(ProductError::Short { operand: "the result", needed, found: result.len() });
        }
        let bytes = self.scratch_bytes();
        let all = bytes.saturating_mul(pool.threads());
        let mut scratch = Vec::new();
        scratch.try_reserve_exact(all).map_err(|_| ProductError::Memory(all))?;
        scratch.resize(all, 0u8);
        let operands = Operands {
            x: x.as_ptr(),
            w: w.as_ptr(),
            result: result.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
        };
        let operands = &operands;
        pool.run(self.parts(), &|part, thread| {
            let Operands { x, w, result, scratch } = *operands;
            // SAFETY: the slices are as long as extents and strides reach, the result is borrowed mutably, parts write disjoint
            // regions of it, and each thread has scratch memory of its own.
            unsafe {
                self.run_part(part, x.cast(), w.cast(), result.cast(), scratch.wrapping_add(thread * bytes));
            }
        });
        Ok(())
    }
}

/// The operands of a convolution that several threads compute.
#[derive(Clone, Copy)]
struct Operands<E> {
    x: *const E,
    w: *const E,
    result: *mut E,
    scratch: *mut u8,
}

// SAFETY: the pointers come from slices that outlive the call, and threads write disjoint parts of what they point to.
unsafe impl<E: Element> Sync for Operands<E> {}

/// Checks that a slice holds what extents and strides reach.
fn check_length(
    operand: &'static str,
    extents: &[usize],
    strides: &[isize],
    found: usize,
) -> Result<(), ProductError> {
    if extents.contains(&0) {
        return Ok(());
    }
    let mut last = 0usize;
    for (extent, stride) in extents.iter().zip(strides) {
        let step =
            usize::try_from(*stride).map_err(|_| ProductError::Negative { operand, stride: *stride })?;
        last = last.saturating_add((extent - 1).saturating_mul(step));
    }
    if last < found {
        Ok(())
    } else {
        Err(ProductError::Short { operand, needed: last.saturating_add(1), found })
    }
}
