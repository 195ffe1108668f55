//! Running a plan: the loops over tiles, on raw memory.
//!
//! Everything here is decided by the plan; a part reads its rows of A, its columns of B, and its region of C, and writes
//! that region and its own scratch memory only.
#![allow(unsafe_code, reason = "plans run on raw memory")]

use super::kernels::{Copy2, DotTile, Kernels, Tile, Transposed};
use super::strategy::{self, Method, Oriented, Outer, PanelSource};
use super::vector::Element;
use super::{Float, PackPlan, ProductError, ProductPlan, ProductShape, Region, piece};
use crate::pool::Pool;
use std::ops::Range;

/// The alignment in bytes of what lies in scratch memory: a cache line.
pub(crate) const ALIGNMENT: usize = 64;
/// How many rows of B ahead of its use tiles ask for.
const ROWS_AHEAD: isize = 8;
/// How many tiles ahead, where the tiles that come next read on in the same rows.
const TILES_AHEAD: usize = 2;

/// One part of one product of a batch, and what is decided for it.
struct Part<'a, E: Element> {
    plan: &'a ProductPlan,
    kernels: &'static Kernels<E>,
    rows: Range<usize>,
    columns: Range<usize>,
    a: *const E,
    b: *const E,
    c: *mut E,
    alpha: E,
    beta: E,
    scratch_a: *mut E,
    scratch_b: *mut E,
    scratch_c: *mut E,
    scratch_sums: *mut E,
}

impl ProductPlan {
    /// Computes one part; of a part that is not in the plan, nothing.
    ///
    /// `a`, `b` and `c` point to the first elements, `scratch` to [`ProductPlan::scratch_bytes`] bytes (any pointer when
    /// that is 0). `beta` is taken as 0 unless the shape accumulates, and when it is 0, C is not read.
    ///
    /// # Safety
    /// For every index within the shape's extents and batch, the strides lead to a valid, aligned element: readable in A
    /// and B (a packed B: `packed_bytes` of the [`PackPlan`]), readable and writable in C. The elements of C are distinct
    /// and overlap neither A nor B. Nobody else writes A or B, or touches this part's region of C or `scratch`, meanwhile.
    #[expect(clippy::too_many_arguments, reason = "the raw interface of a product")]
    pub unsafe fn run_part(
        &self,
        part: usize,
        a: *const u8,
        b: *const u8,
        c: *mut u8,
        alpha: f64,
        beta: f64,
        scratch: *mut u8,
    ) {
        // SAFETY: the caller's promises, with the element type of the shape.
        unsafe {
            match self.shape.dtype {
                Float::F32 => self.run_typed::<f32>(part, a.cast(), b.cast(), c.cast(), alpha, beta, scratch),
                Float::F64 => self.run_typed::<f64>(part, a.cast(), b.cast(), c.cast(), alpha, beta, scratch),
            }
        }
    }

    /// [`ProductPlan::run_part`] for the element type of the shape.
    #[expect(clippy::too_many_arguments, reason = "the raw interface of a product")]
    unsafe fn run_typed<E: Element>(
        &self,
        part: usize,
        a: *const E,
        b: *const E,
        c: *mut E,
        alpha: f64,
        beta: f64,
        scratch: *mut u8,
    ) {
        let Region { batch, rows, columns } = self.oriented_region(part);
        let beta = if self.shape.accumulate { E::round_from(beta) } else { E::ZERO };
        let scratch_a = scratch.wrapping_add(scratch.align_offset(ALIGNMENT)).cast::<E>();
        let scratch_b = scratch_a.wrapping_add(self.scratch.a);
        let (a, b) = if self.oriented.swapped { (b, a) } else { (a, b) };
        let distances = self.shape.batch;
        let (a_next, b_next) =
            if self.oriented.swapped { (distances.b, distances.a) } else { (distances.a, distances.b) };
        for index in batch {
            let index = index as isize;
            let part = Part {
                plan: self,
                kernels: E::kernels(self.instruction_set),
                rows: rows.clone(),
                columns: columns.clone(),
                a: a.wrapping_offset(index * a_next),
                b: b.wrapping_offset(index * b_next),
                c: c.wrapping_offset(index * distances.c),
                alpha: E::round_from(alpha),
                beta,
                scratch_a,
                scratch_b,
                scratch_c: scratch_b.wrapping_add(self.scratch.b),
                scratch_sums: scratch_b.wrapping_add(self.scratch.b + self.scratch.c),
            };
            // SAFETY: the caller's promises hold for each product of the batch.
            unsafe {
                match self.method {
                    Method::Scale => part.scale(),
                    Method::Panels { .. } if self.oriented.swapped => part.transposed_panels(),
                    Method::Panels { .. } => {
                        let c = part.at_c(part.rows.start, part.columns.start);
                        part.panels(c, self.shape.c_row, beta);
                    }
                    Method::Dots { gather_a, gather_b, outer } => part.dots(gather_a, gather_b, outer),
                    Method::LongDot => part.long_dot(),
                }
            }
        }
    }
}

impl<E: Element> Part<'_, E> {
    /// The element of C at a row and a column of the oriented product.
    fn at_c(&self, row: usize, column: usize) -> *mut E {
        let [c_row, c_column] = self.c_strides();
        self.c.wrapping_offset(row as isize * c_row + column as isize * c_column)
    }

    /// The strides of C in the oriented product.
    fn c_strides(&self) -> [isize; 2] {
        let c_row = self.plan.shape.c_row;
        if self.plan.oriented.swapped { [1, c_row] } else { [c_row, 1] }
    }

    /// `C = beta * C`.
    unsafe fn scale(&self) {
        for row in self.rows.clone() {
            for column in self.columns.clone() {
                let c = self.at_c(row, column);
                // SAFETY: the element lies in the part's region of C.
                unsafe { *c = if self.beta == E::ZERO { E::ZERO } else { *c * self.beta } };
            }
        }
    }

    /// Panel tiles into scratch memory, then transposed into C.
    unsafe fn transposed_panels(&self) {
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let row = columns.next_multiple_of(self.kernels.panel_width()) as isize;
        // SAFETY: the scratch for C holds `rows` rows of this length; region and strides of C are the caller's promise.
        unsafe {
            self.panels(self.scratch_c, row, E::ZERO);
            (self.kernels.transpose)(&Transposed {
                rows: columns,
                columns: rows,
                from: self.scratch_c,
                from_row: row,
                c: self.at_c(self.rows.start, self.columns.start),
                c_row: self.plan.shape.c_row,
                beta: self.beta,
            });
        }
    }

    /// Panel tiles into `c`, which stands for the first element of the region.
    unsafe fn panels(&self, c: *mut E, c_row: isize, beta: E) {
        let Method::Panels { b: source, pack_a, outer } = self.plan.method else { return };
        let Oriented { n, k, a: [a_row, a_column], b: [b_row, b_column], .. } = self.plan.oriented;
        let width = self.kernels.panel_width();
        let one = E::round_from(1.0);
        for block in 0..self.plan.depth_blocks {
            let range = piece(k, self.plan.depth_blocks, block);
            let (start, depth) = (range.start, range.len());
            let at_b = |row: usize, column: usize| {
                self.b.wrapping_offset(row as isize * b_row + column as isize * b_column)
            };
            let panels = match source {
                PanelSource::Streamed | PanelSource::Stretched => Panels {
                    b: at_b(start, self.columns.start),
                    b_row,
                    b_panel: width as isize,
                    padded: false,
                },
                PanelSource::Packed => {
                    let before = start * n.next_multiple_of(width) + self.columns.start * depth;
                    Panels::packed(self.b.wrapping_add(before), depth, width)
                }
                PanelSource::PackedHere => {
                    // SAFETY: the columns and rows lie in B, and the scratch for B holds the part's columns.
                    unsafe {
                        let from = at_b(start, self.columns.start);
                        pack(
                            self.kernels,
                            from,
                            [b_row, b_column],
                            depth,
                            self.columns.len(),
                            self.scratch_b,
                        );
                    }
                    Panels::packed(self.scratch_b, depth, width)
                }
            };
            let rows_at_once = if pack_a {
                strategy::packed_rows(
                    k.div_ceil(self.plan.depth_blocks),
                    self.kernels.rows(1),
                    self.plan.shape.dtype.bytes(),
                )
            } else {
                self.rows.len()
            };
            let chunks = self.rows.len().div_ceil(rows_at_once.max(1));
            let calls = strategy::calls(source, depth);
            for index in 0..chunks * calls {
                let (chunk, call) = (index / calls, index % calls);
                let rows = piece(self.rows.len(), chunks, chunk);
                let within = piece(depth, calls, call);
                let a = self.a.wrapping_offset(
                    (self.rows.start + rows.start) as isize * a_row
                        + (start + within.start) as isize * a_column,
                );
                let strip = Strip {
                    panels: &panels.below(within.start),
                    depth: within.len(),
                    rows: rows.len(),
                    a,
                    a_strides: [a_row, a_column],
                    a_packed: pack_a,
                    c: c.wrapping_offset(rows.start as isize * c_row),
                    c_row,
                    beta: if block == 0 { beta } else { one },
                    begins: call == 0,
                    ends: call + 1 == calls,
                };
                // SAFETY: the rows of the chunk lie in A and in the region of C.
                unsafe { self.tiles(&strip, outer) };
            }
        }
    }

    /// All panel tiles of some rows and of one range of k.
    unsafe fn tiles(&self, strip: &Strip<'_, E>, outer: Outer) {
        let kernels = self.kernels;
        let blocks = strip.rows.div_ceil(kernels.rows(1));
        let most_rows = strip.rows.div_ceil(blocks.max(1));
        // Few rows leave registers for more columns: at most four panels of two vectors.
        let log_vectors = if most_rows <= kernels.rows(3) {
            3
        } else if most_rows <= kernels.rows(2) {
            2
        } else {
            1
        };
        let columns_at_once = kernels.lanes << log_vectors;
        let sums_row = self.columns.len().next_multiple_of(kernels.panel_width());
        let all_columns = self.columns.len().next_multiple_of(columns_at_once) as isize;
        let b_ahead = |column: usize| {
            if strip.begins && strip.ends {
                return ROWS_AHEAD * strip.panels.b_row;
            }
            let ahead = (TILES_AHEAD * columns_at_once) as isize;
            if column as isize + ahead < all_columns {
                ahead
            } else {
                // From the beginning of the next stretch.
                ahead - all_columns + strip.depth as isize * strip.panels.b_row
            }
        };
        if strip.a_packed {
            for block in 0..blocks {
                let rows = piece(strip.rows, blocks, block);
                // SAFETY: the rows lie in A; the scratch for A holds `rows x depth` of the chunk.
                unsafe {
                    (kernels.copy)(&Copy2 {
                        rows: strip.depth,
                        columns: rows.len(),
                        width: rows.len(),
                        from: strip.a.wrapping_offset(rows.start as isize * strip.a_strides[0]),
                        from_row: strip.a_strides[1],
                        from_column: strip.a_strides[0],
                        to: self.scratch_a.wrapping_add(rows.start * strip.depth),
                    });
                }
            }
        }
        let tile = |block: usize, column: usize| {
            let rows = piece(strip.rows, blocks, block);
            let columns = (self.columns.len() - column).min(columns_at_once);
            let vectors = columns.div_ceil(kernels.lanes).next_power_of_two();
            let log_vectors = vectors.trailing_zeros() as usize;
            let loaded =
                if strip.panels.padded { columns.next_multiple_of(2 * kernels.lanes) } else { columns };
            let masked = loaded < vectors * kernels.lanes;
            let (a, a_row, a_column) = if strip.a_packed {
                (self.scratch_a.wrapping_add(rows.start * strip.depth).cast_const(), 1, rows.len() as isize)
            } else {
                let [a_row, a_column] = strip.a_strides;
                (strip.a.wrapping_offset(rows.start as isize * a_row), a_row, a_column)
            };
            let c = strip.c.wrapping_offset(rows.start as isize * strip.c_row).wrapping_add(column);
            let tile = Tile {
                depth: strip.depth,
                a,
                a_row,
                a_column,
                b: strip.panels.at(column, 2 * kernels.lanes),
                b_row: strip.panels.b_row,
                b_panel: strip.panels.b_panel,
                b_ahead: b_ahead(column),
                sums: self.scratch_sums.wrapping_add(rows.start * sums_row + column),
                sums_row: sums_row as isize,
                begins: strip.begins,
                ends: strip.ends,
                c,
                c_row: strip.c_row,
                c_next: match outer {
                    Outer::Rows => c.wrapping_add(columns_at_once),
                    Outer::Columns => c.wrapping_offset(rows.len() as isize * strip.c_row),
                },
                columns,
                alpha: self.alpha,
                beta: strip.beta,
            };
            // SAFETY: rows and columns lie within the part; loads are masked where a whole vector could leave B.
            unsafe { kernels.panels[log_vectors][rows.len() - 1][usize::from(masked)](&tile) }
        };
        match outer {
            Outer::Columns => {
                for column in (0..self.columns.len()).step_by(columns_at_once) {
                    for block in 0..blocks {
                        tile(block, column);
                    }
                }
            }
            Outer::Rows => {
                // Last rows first: the next reader of an updated matrix begins with its first rows, which are then in the
                // cache.
                for block in (0..blocks).rev() {
                    for column in (0..self.columns.len()).step_by(columns_at_once) {
                        tile(block, column);
                    }
                }
            }
        }
    }

    /// Dot tiles.
    unsafe fn dots(&self, gather_a: bool, gather_b: bool, outer: Outer) {
        let kernels = self.kernels;
        let Oriented { k, a: [mut a_row, a_column], b: [b_row, mut b_column], .. } = self.plan.oriented;
        let (rows, columns) = (self.rows.len(), self.columns.len());
        let mut a = self.a.wrapping_offset(self.rows.start as isize * a_row);
        let mut b = self.b.wrapping_offset(self.columns.start as isize * b_column);
        let width = k.next_multiple_of(kernels.lanes);
        // SAFETY: the part's rows of A and columns of B, all of k, and scratch for them as rows of `width`.
        unsafe {
            if gather_a {
                let (from_row, from_column, to) = (a_row, a_column, self.scratch_a);
                (kernels.copy)(&Copy2 { rows, columns: k, width, from: a, from_row, from_column, to });
                (a, a_row) = (to.cast_const(), width as isize);
            }
            if gather_b {
                let (from_row, from_column, to) = (b_column, b_row, self.scratch_b);
                (kernels.copy)(&Copy2 {
                    rows: columns,
                    columns: k,
                    width,
                    from: b,
                    from_row,
                    from_column,
                    to,
                });
                (b, b_column) = (to.cast_const(), width as isize);
            }
        }
        // Tiles with the most rows have fewer columns; that pays for one or two columns only.
        let most_rows = kernels.dots.len();
        let most_rows = if rows.div_ceil(most_rows) <= 2 { most_rows } else { kernels.rows_of_wide_dots() };
        let row_blocks = rows.div_ceil(most_rows);
        let most_columns = kernels.dots[rows.div_ceil(row_blocks.max(1)).max(1) - 1].len();
        let column_blocks = columns.div_ceil(most_columns);
        let [c_row, c_column] = self.c_strides();
        let tile = |row_block: usize, column_block: usize| {
            let (row, column) =
                (piece(rows, row_blocks, row_block), piece(columns, column_blocks, column_block));
            let tile = DotTile {
                depth: k,
                a: a.wrapping_offset(row.start as isize * a_row),
                a_row,
                b: b.wrapping_offset(column.start as isize * b_column),
                b_column,
                c: self.at_c(self.rows.start + row.start, self.columns.start + column.start),
                c_row,
                c_column,
                // Only the first tile of each set of rows prefetches: later tiles find the rows in the cache.
                ahead: if outer == Outer::Rows && column_block == 0 { row.len() as isize * a_row } else { 0 },
                alpha: self.alpha,
                beta: self.beta,
            };
            // SAFETY: rows and columns lie within the part.
            unsafe { kernels.dots[row.len() - 1][column.len() - 1](&tile) }
        };
        match outer {
            Outer::Rows => {
                for row_block in 0..row_blocks {
                    (0..column_blocks).for_each(|column_block| tile(row_block, column_block));
                }
            }
            Outer::Columns => {
                for column_block in 0..column_blocks {
                    (0..row_blocks).for_each(|row_block| tile(row_block, column_block));
                }
            }
        }
    }

    /// One row by one column.
    unsafe fn long_dot(&self) {
        let tile = DotTile {
            depth: self.plan.oriented.k,
            a: self.a,
            a_row: 0,
            b: self.b,
            b_column: 0,
            c: self.c,
            c_row: 0,
            c_column: 0,
            ahead: 0,
            alpha: self.alpha,
            beta: self.beta,
        };
        // SAFETY: both factors are contiguous along k.
        unsafe { (self.kernels.long_dot)(&tile) }
    }
}

/// Where panel tiles find one range of k of B.
struct Panels<E> {
    b: *const E,
    b_row: isize,
    b_panel: isize,
    /// Columns are filled up to whole panels.
    padded: bool,
}

impl<E> Panels<E> {
    fn packed(b: *const E, depth: usize, width: usize) -> Self {
        Self { b, b_row: width as isize, b_panel: (depth * width) as isize, padded: true }
    }

    /// The same from a row on.
    fn below(&self, row: usize) -> Self {
        let Self { b, b_row, b_panel, padded } = *self;
        Self { b: b.wrapping_offset(row as isize * b_row), b_row, b_panel, padded }
    }

    /// The first row of the panel that begins with a column.
    fn at(&self, column: usize, width: usize) -> *const E {
        self.b.wrapping_offset((column / width) as isize * self.b_panel)
    }
}

/// Some rows of a part and one range of k.
struct Strip<'a, E> {
    panels: &'a Panels<E>,
    depth: usize,
    rows: usize,
    a: *const E,
    a_strides: [isize; 2],
    a_packed: bool,
    c: *mut E,
    c_row: isize,
    beta: E,
    /// The first call for the range, and the last one.
    begins: bool,
    ends: bool,
}

/// Packs one range of k of some columns into panels, one after the other.
///
/// # Safety
/// The strides lead to valid elements of B; `to` holds `depth` times the columns filled up to whole panels.
unsafe fn pack<E: Element>(
    kernels: &Kernels<E>,
    from: *const E,
    [b_row, b_column]: [isize; 2],
    depth: usize,
    columns: usize,
    to: *mut E,
) {
    let width = kernels.panel_width();
    for column in (0..columns).step_by(width) {
        // SAFETY: the panel's columns are below `columns`, and its place in `to` follows the panels before it.
        unsafe {
            (kernels.copy)(&Copy2 {
                rows: depth,
                columns: (columns - column).min(width),
                width,
                from: from.wrapping_offset(column as isize * b_column),
                from_row: b_row,
                from_column: b_column,
                to: to.wrapping_add(column * depth),
            });
        }
    }
}

impl PackPlan {
    /// Packs one part of B; of a part that is not in the plan, nothing.
    ///
    /// # Safety
    /// `b` points to the first element, and the strides lead to a valid, aligned element for each index; `packed` points to
    /// [`PackPlan::packed_bytes`] writable bytes, aligned to the element. Nobody else writes B or touches `packed`
    /// meanwhile, other parts of the same packing excepted.
    pub unsafe fn run_part(&self, part: usize, b: *const u8, packed: *mut u8) {
        // SAFETY: the caller's promises, with the element type of the plan.
        unsafe {
            match self.dtype {
                Float::F32 => self.run_typed::<f32>(part, b.cast(), packed.cast()),
                Float::F64 => self.run_typed::<f64>(part, b.cast(), packed.cast()),
            }
        }
    }

    unsafe fn run_typed<E: Element>(&self, part: usize, b: *const E, packed: *mut E) {
        if part >= self.parts() {
            return;
        }
        let kernels = E::kernels(self.instruction_set);
        let panels = piece(self.panels(), self.parts(), part);
        let columns = panels.start * self.width..(panels.end * self.width).min(self.n);
        for block in 0..self.depth_blocks {
            let range = piece(self.k, self.depth_blocks, block);
            let before = range.start * self.panels() * self.width + columns.start * range.len();
            let [b_row, b_column] = self.b;
            let from = b.wrapping_offset(range.start as isize * b_row + columns.start as isize * b_column);
            // SAFETY: rows and columns lie in B; the ranges of k and the panels before this one fill the packed form up
            // to here.
            unsafe { pack(kernels, from, self.b, range.len(), columns.len(), packed.wrapping_add(before)) };
        }
    }
}

impl ProductPlan {
    /// Computes the whole product on slices, with scratch memory of its own: the safe way, for all but compiled functions.
    ///
    /// # Errors
    /// When the element type is not the plan's, a stride or a distance is negative, a slice is too short, or elements of C
    /// share their place.
    pub fn run<E: Element>(
        &self,
        a: &[E],
        b: &[E],
        c: &mut [E],
        alpha: f64,
        beta: f64,
        pool: &Pool,
    ) -> Result<(), ProductError> {
        self.run_ordered(a, b, c, [alpha, beta], pool, false)
    }

    /// [`ProductPlan::run`] with `factors` alpha and beta; hands out the last part first if `reversed`.
    pub(super) fn run_ordered<E: Element>(
        &self,
        a: &[E],
        b: &[E],
        c: &mut [E],
        factors: [f64; 2],
        pool: &Pool,
        reversed: bool,
    ) -> Result<(), ProductError> {
        let [alpha, beta] = factors;
        self.check(a, b, c)?;
        let bytes = self.scratch_bytes();
        let all = bytes.saturating_mul(pool.threads());
        let mut scratch = Vec::new();
        scratch.try_reserve_exact(all).map_err(|_| ProductError::Memory(all))?;
        scratch.resize(all, 0u8);
        let operands =
            Operands { a: a.as_ptr(), b: b.as_ptr(), c: c.as_mut_ptr(), scratch: scratch.as_mut_ptr() };
        let operands = &operands;
        pool.run(self.parts(), &|part, thread| {
            let part = if reversed { self.parts() - 1 - part } else { part };
            let Operands { a, b, c, scratch } = *operands;
            // SAFETY: the slices are as long as shape and strides reach, C is borrowed mutably and its elements are
            // distinct, parts write disjoint regions, and each thread has scratch memory of its own.
            unsafe {
                let scratch = scratch.wrapping_add(thread * bytes);
                self.run_part(part, a.cast(), b.cast(), c.cast(), alpha, beta, scratch);
            }
        });
        Ok(())
    }

    /// Checks that slices hold what the plan reaches.
    pub(super) fn check<E: Element>(&self, a: &[E], b: &[E], c: &[E]) -> Result<(), ProductError> {
        let ProductShape { m, n, k, batch, c_row, .. } = self.shape;
        check_type::<E>(self.shape.dtype)?;
        check_length("A", [(batch.count, batch.a), (m, self.shape.a[0]), (k, self.shape.a[1])], a.len())?;
        if self.shape.b_packed {
            let width = E::kernels(self.instruction_set).panel_width();
            let packed = n.div_ceil(width).saturating_mul(width).saturating_mul(k);
            check_length("packed B", [(batch.count, batch.b), (packed, 1), (1, 0)], b.len())?;
        } else {
            check_length("B", [(batch.count, batch.b), (k, self.shape.b[0]), (n, self.shape.b[1])], b.len())?;
        }
        check_length("C", [(batch.count, batch.c), (m, c_row), (n, 1)], c.len())?;
        // The length of C was checked, so its strides are positive and the last element's place fits.
        let overlaps = |matrix: usize| {
            (m > 1 && c_row.unsigned_abs() < n) || (batch.count > 1 && batch.c.unsigned_abs() < matrix)
        };
        if self.parts() > 0 && overlaps((m - 1) * c_row.unsigned_abs() + n) {
            return Err(ProductError::Overlap { rows: c_row, batch: batch.c, n });
        }
        Ok(())
    }
}

impl PackPlan {
    /// Packs the whole of B on slices.
    ///
    /// # Errors
    /// When the element type is not the plan's, a stride is negative, or a slice is too short.
    pub fn run<E: Element>(&self, b: &[E], packed: &mut [E], pool: &Pool) -> Result<(), ProductError> {
        check_type::<E>(self.dtype)?;
        check_length("B", [(1, 0), (self.k, self.b[0]), (self.n, self.b[1])], b.len())?;
        let elements = self.packed_bytes() / self.dtype.bytes();
        check_length("packed B", [(1, 0), (1, 0), (elements, 1)], packed.len())?;
        let none = std::ptr::null_mut();
        let operands = &Operands { a: b.as_ptr(), b: b.as_ptr(), c: packed.as_mut_ptr(), scratch: none };
        pool.run(self.parts(), &|part, _| {
            let Operands { b, c, .. } = *operands;
            // SAFETY: the slices are as long as extents and strides reach, and parts write disjoint panels.
            unsafe { self.run_part(part, b.cast(), c.cast()) };
        });
        Ok(())
    }
}

/// The operands of a product that several threads compute.
#[derive(Clone, Copy)]
struct Operands<E> {
    a: *const E,
    b: *const E,
    c: *mut E,
    scratch: *mut u8,
}

// SAFETY: the pointers come from slices that outlive the call, and threads write disjoint parts of what they point to.
unsafe impl<E: Element> Sync for Operands<E> {}

fn check_type<E: Element>(expected: Float) -> Result<(), ProductError> {
    if E::FLOAT == expected { Ok(()) } else { Err(ProductError::Type { expected, found: E::FLOAT }) }
}

/// Checks that a slice holds what extents and strides reach.
fn check_length(operand: &'static str, axes: [(usize, isize); 3], found: usize) -> Result<(), ProductError> {
    if axes.iter().any(|(extent, _)| *extent == 0) {
        return Ok(());
    }
    let mut last = 0usize;
    for (extent, stride) in axes {
        let step = usize::try_from(stride).map_err(|_| ProductError::Negative { operand, stride })?;
        last = last.saturating_add((extent - 1).saturating_mul(step));
    }
    if last < found {
        Ok(())
    } else {
        Err(ProductError::Short { operand, needed: last.saturating_add(1), found })
    }
}
