//! The choice of a strategy from a product's shape.
//!
//! The strategies were compared with `examples/product_speed.rs` of this crate on one processor with AVX-512; the thresholds between them
//! were not swept one by one, nor tuned for other processors. None changes what a product means.
//! The number of ranges that k is cut into depends on k alone, so that all panel strategies sum in one order.

use super::vector::{Element, sealed::Sealed};
use super::{Float, Grid, ProductPlan, ProductShape, Scratch};
use crate::features::{Features, InstructionSet};

/// The most terms that are summed without a visit to C: a panel of this depth fits the first-level cache, nearly.
const DEPTH: usize = 400;
/// Rows up to which B is streamed as it lies rather than packed: fewer do not pay for the copy.
const THIN: usize = 64;
/// Columns up to which C counts as narrow.
const NARROW: usize = 16;
/// Terms and rows from which a product of few terms packs B.
const OUTER_DEPTH: usize = 8;
const OUTER_ROWS: usize = 256;
/// Columns from which it pays to copy A into the order in which tiles read it.
const WIDE: usize = 192;
/// Rows up to which dots beat packing a transposed B.
const DOT_ROWS: usize = 48;
/// The same where k is small.
const DOT_ROWS_SHALLOW: usize = 4;
/// Bytes of B up to which it is streamed whatever the number of rows: it stays in cache as it lies.
const SMALL_B: usize = 128 << 10;
/// The depth from which summing lanes at the end is worth it.
const DOT_DEPTH: usize = 64;
/// Columns of B that one part packs at most.
const PACKED_COLUMNS: usize = 512;
/// Bytes of A that are packed at one time: a part of the second-level cache.
const PACKED_A_BYTES: usize = 256 << 10;
/// Operations of a part, at least: some 10 microseconds, against half a one to hand it out.
const PART_OPERATIONS: f64 = 1.5e6;
/// The most parts.
const MAX_PARTS: usize = 32;

/// The product as it is computed: itself, or `C' = B' A'` (then C is written transposed).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Oriented {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) a: [isize; 2],
    pub(super) b: [isize; 2],
    pub(super) swapped: bool,
}

impl Oriented {
    fn new(shape: &ProductShape) -> Self {
        let ProductShape { m, n, k, a, b, .. } = *shape;
        Self { m, n, k, a, b, swapped: false }.with_unit_strides()
    }

    fn swapped(self) -> Self {
        Self {
            m: self.n,
            n: self.m,
            k: self.k,
            a: [self.b[1], self.b[0]],
            b: [self.a[1], self.a[0]],
            swapped: !self.swapped,
        }
    }

    /// The stride of an extent of 1 says nothing; as 1 it is as good as contiguous.
    fn with_unit_strides(mut self) -> Self {
        let Self { m, n, k, .. } = self;
        for (extents, strides) in [([m, k], &mut self.a), ([k, n], &mut self.b)] {
            for (extent, stride) in extents.into_iter().zip(strides) {
                if extent <= 1 {
                    *stride = 1;
                }
            }
        }
        self
    }
}

/// How the product is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Method {
    /// k = 0: only beta matters.
    Scale,
    /// Panel tiles.
    Panels {
        b: PanelSource,
        /// A is copied block by block into the order in which tiles read it.
        pack_a: bool,
        outer: Outer,
    },
    /// Dot tiles; factors that are not contiguous along k are gathered first.
    Dots { gather_a: bool, gather_b: bool, outer: Outer },
    /// One row, one column.
    LongDot,
}

/// Where panel tiles find B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PanelSource {
    /// As it lies, with contiguous rows.
    Streamed,
    /// The same, a stretch of rows after the other. The rows of a stretch are read from end to end, side by side, which is
    /// how memory is read fastest; the sums of C wait in scratch memory from one stretch to the next.
    Stretched,
    /// Packed by the caller.
    Packed,
    /// Packed by each part for itself.
    PackedHere,
}

/// Which loop over tiles is the outer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outer {
    Rows,
    Columns,
}

/// The number of ranges that k is cut into.
pub(super) fn depth_blocks(k: usize) -> usize {
    k.div_ceil(DEPTH).max(1)
}

/// The next multiple, or the largest number where that does not fit: more than any memory holds.
fn rounded_up(count: usize, unit: usize) -> usize {
    count.checked_next_multiple_of(unit).unwrap_or(usize::MAX)
}

/// The lanes of a vector.
pub(super) fn lanes(dtype: Float, set: InstructionSet) -> usize {
    match dtype {
        Float::F32 => f32::kernels(set).lanes,
        Float::F64 => f64::kernels(set).lanes,
    }
}

/// How often tiles are called for a range of k: for each of its stretches, whose rows of B are read side by side, so that
/// what they hold of some tiles stays in the first-level cache; or once.
pub(super) fn calls(b: PanelSource, depth: usize) -> usize {
    if b == PanelSource::Stretched { super::kernels::stretches(depth) } else { 1 }
}

/// Rows of A that are packed at one time: whole tiles, as many as fit.
pub(super) fn packed_rows(depth: usize, tile_rows: usize, bytes: usize) -> usize {
    (PACKED_A_BYTES / bytes / depth.max(1) / tile_rows).max(1) * tile_rows
}

/// Chooses.
pub(super) fn plan<E: Element>(shape: ProductShape, features: &Features, threads: usize) -> ProductPlan {
    let instruction_set = features.instruction_set();
    let kernels = E::kernels(instruction_set);
    // Rows side by side are faster for few tiles, except with AVX2 (a fifth slower).
    let stretched_above = match instruction_set {
        InstructionSet::Avx512 | InstructionSet::Portable => kernels.rows(2),
        InstructionSet::Avx2 => THIN,
    };
    let (oriented, method) = choose(&shape, stretched_above);
    let (width, tile_rows) = (kernels.panel_width(), kernels.rows(1));
    let depth_blocks = depth_blocks(shape.k);
    let grid = cut(&shape, &oriented, method, width, tile_rows, threads);

    let part_rows = oriented.m.div_ceil(grid.rows.max(1));
    let part_columns = oriented
        .n
        .div_ceil(grid.unit)
        .div_ceil(grid.columns.max(1))
        .saturating_mul(grid.unit)
        .min(oriented.n);
    let whole_panels = rounded_up(part_columns, width);
    let depth = shape.k.div_ceil(depth_blocks);
    let mut scratch = Scratch::default();
    match method {
        Method::Scale | Method::LongDot => {}
        // A plan without parts needs nothing.
        Method::Panels { .. } | Method::Dots { .. } if grid.rows == 0 => {}
        Method::Panels { b, pack_a, .. } => {
            if calls(b, depth) > 1 {
                scratch.sums = part_rows.saturating_mul(whole_panels);
            }
            if b == PanelSource::PackedHere {
                scratch.b = depth.saturating_mul(whole_panels);
            }
            if pack_a {
                let rows = part_rows.min(packed_rows(depth, tile_rows, shape.dtype.bytes()));
                scratch.a = depth.saturating_mul(rows);
            }
            if oriented.swapped {
                scratch.c = part_rows.saturating_mul(whole_panels);
            }
        }
        Method::Dots { gather_a, gather_b, .. } => {
            let row = rounded_up(shape.k, kernels.lanes);
            scratch.a = if gather_a { part_rows.saturating_mul(row) } else { 0 };
            scratch.b = if gather_b { part_columns.saturating_mul(row) } else { 0 };
        }
    }
    let line = super::execute::ALIGNMENT / shape.dtype.bytes();
    let Scratch { a, b, c, sums } = scratch;
    let [a, b, c, sums] = [a, b, c, sums].map(|elements| rounded_up(elements, line));
    let scratch = Scratch { a, b, c, sums };
    ProductPlan { shape, instruction_set, oriented, method, depth_blocks, grid, scratch }
}

/// The orientation and the method. Products of more than `stretched_above` thin rows read a large B in stretches.
fn choose(shape: &ProductShape, stretched_above: usize) -> (Oriented, Method) {
    let plain = Oriented::new(shape);
    let Oriented { m, n, k, .. } = plain;
    let by_panels = |b| Method::Panels { b, pack_a: false, outer: Outer::Columns };
    if k == 0 {
        return (plain, Method::Scale);
    }
    if shape.b_packed {
        let pack_a = m > THIN && n >= WIDE;
        return (plain, Method::Panels { b: PanelSource::Packed, pack_a, outer: Outer::Columns });
    }
    if m == 1 && n == 1 && plain.a[1] == 1 && plain.b[0] == 1 {
        return (plain, Method::LongDot);
    }
    // One column is one row of the transposed product.
    let oriented = if n == 1 && m > 1 { plain.swapped() } else { plain };
    let Oriented { m, n, a, b, .. } = oriented;
    let deep = k >= DOT_DEPTH;
    if b[1] == 1 && n > NARROW && m == 1 {
        return (oriented, by_panels(PanelSource::Streamed));
    }
    if n <= NARROW && m >= NARROW / 2 {
        // A narrow result is bound by reading A, so read it once.
        if a[1] == 1 && deep {
            return (oriented, Method::Dots { gather_a: false, gather_b: b[0] != 1, outer: Outer::Rows });
        }
        if a[0] == 1 && m >= THIN {
            return (oriented.swapped(), by_panels(PanelSource::Streamed));
        }
    }
    if b[0] == 1 && b[1] != 1 && m <= DOT_ROWS && (deep || m <= DOT_ROWS_SHALLOW) {
        return (oriented, Method::Dots { gather_a: a[1] != 1, gather_b: false, outer: Outer::Columns });
    }
    if b[1] == 1 && k <= THIN {
        // Nearly an outer product is bound by writing C, so write it once, by rows. Each tile of rows reads all of B, which
        // is faster from panels.
        let pays = k >= OUTER_DEPTH && m >= OUTER_ROWS;
        let b = if pays { PanelSource::PackedHere } else { PanelSource::Streamed };
        return (oriented, Method::Panels { b, pack_a: false, outer: Outer::Rows });
    }
    let small_b = k.saturating_mul(n).saturating_mul(shape.dtype.bytes()) <= SMALL_B;
    if b[1] == 1 && m <= THIN && m > stretched_above && !small_b {
        return (oriented, by_panels(PanelSource::Stretched));
    }
    if b[1] == 1 && (m <= THIN || small_b) {
        return (oriented, by_panels(PanelSource::Streamed));
    }
    let pack_a = n >= WIDE && m > THIN && k > THIN;
    (oriented, Method::Panels { b: PanelSource::PackedHere, pack_a, outer: Outer::Columns })
}

/// Cuts C into parts that each hold enough work; for one thread into as few as can be.
fn cut(
    shape: &ProductShape,
    oriented: &Oriented,
    method: Method,
    width: usize,
    tile_rows: usize,
    threads: usize,
) -> Grid {
    let Oriented { m, n, .. } = *oriented;
    let count = shape.batch.count;
    let unit = match method {
        Method::Panels { .. } | Method::Scale => width,
        Method::Dots { .. } | Method::LongDot => 1,
    };
    if m == 0 || n == 0 || count == 0 {
        return Grid { batches: 0, rows: 0, columns: 0, unit };
    }
    let wanted =
        if threads == 1 { 1 } else { ((shape.operations() / PART_OPERATIONS) as usize).clamp(1, MAX_PARTS) };
    let batches = wanted.min(count);
    let wanted = wanted / batches;
    let whole_tiles = m.div_ceil(tile_rows);
    let units = n.div_ceil(unit);
    let (rows, columns) = match method {
        Method::Scale | Method::LongDot => (1, 1),
        Method::Panels { b: PanelSource::PackedHere, .. } | Method::Panels { pack_a: true, .. } => {
            // Each part packs its own columns of B or rows of A, so keep both large.
            let columns =
                wanted.min(n.div_ceil(PACKED_COLUMNS / 2)).max(n.div_ceil(PACKED_COLUMNS)).min(units);
            ((wanted / columns).clamp(1, (m / (16 * tile_rows)).max(1)), columns)
        }
        Method::Panels { outer: Outer::Rows, .. } => (wanted.min(whole_tiles), 1),
        Method::Panels { outer: Outer::Columns, .. } => {
            let columns = wanted.min(units);
            ((wanted / columns).clamp(1, (m / (16 * tile_rows)).max(1)), columns)
        }
        Method::Dots { outer: Outer::Rows, .. } => (wanted.min(m.div_ceil(16)), 1),
        Method::Dots { outer: Outer::Columns, .. } => (1, wanted.min(n.div_ceil(16))),
    };
    Grid { batches, rows, columns, unit }
}
