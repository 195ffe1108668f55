//! The inner loops of a matrix product, written once over [`Vector`] and compiled for each instruction set.
//!
//! Two forms of product. A *panel* tile keeps rows x columns of C in registers and walks down k, with a row of B in
//! vectors and elements of A broadcast. A *dot* tile has both factors contiguous along k and sums lanes at the end. In both,
//! chains of multiply-adds are short: after a stretch of k, sums begin with 0 anew, and what they came to is added to a total
//! that waits in memory, so that the error of a sum does not grow with k. The order of summation of an element depends
//! neither on its place nor on the size of the tile.
//! No closures in these loops: one that is not inlined would be compiled without the instruction set.
#![allow(unsafe_code, reason = "kernels work on raw memory")]
#![allow(
    clippy::needless_range_loop,
    reason = "counted loops over several arrays, which unroll; iterators bring closures"
)]

use super::vector::{Element, MAX_LANES, Vector};
use std::mem::MaybeUninit;

/// Independent sums of [`long_dot`], enough to hide the latency of the multiply-add.
pub(crate) const LONG_DOT_SUMS: usize = 8;
/// The terms that a panel tile adds up one after another, at most.
pub(crate) const STRETCH: usize = 134;
/// The vectors that a dot tile adds up one after another: a multiple of 2, which a tile of two products takes at one go.
const DOT_STRETCH: usize = 128;
/// The same of [`long_dot`], for each of its sums.
const LONG_DOT_STRETCH: usize = 32;
/// How many vectors of W ahead of its use a tile of two products asks for it from the second-level cache.
const PAIR_AHEAD: usize = 4;
/// How many rows of W ahead it asks for it from memory.
const PAIR_ROWS_AHEAD: isize = 4;

/// The stretches of a range of k, which are nearly equal.
pub fn stretches(depth: usize) -> usize {
    depth.div_ceil(STRETCH).max(1)
}

/// One tile in panel form: `C = beta * C + alpha * A * B`, where beta = 0 does not read C. A tile that is called for some
/// stretches of k only keeps its totals in between.
pub(crate) struct Tile<E> {
    pub(crate) depth: usize,
    pub(crate) a: *const E,
    pub(crate) a_row: isize,
    pub(crate) a_column: isize,
    pub(crate) b: *const E,
    pub(crate) b_row: isize,
    /// The distance from one pair of vectors in a row of B to the next pair.
    pub(crate) b_panel: isize,
    /// The prefetch distance in B, in elements.
    pub(crate) b_ahead: isize,
    /// Where totals wait between calls, in rows of whole vectors; not followed by a tile of one call.
    pub(crate) sums: *mut E,
    pub(crate) sums_row: isize,
    /// This is the first call: there is no total yet.
    pub(crate) begins: bool,
    /// This is the last call: totals go to C.
    pub(crate) ends: bool,
    pub(crate) c: *mut E,
    pub(crate) c_row: isize,
    /// The first element of C in the next tile, to prefetch; it may be any address.
    pub(crate) c_next: *mut E,
    /// Columns of C to write, at least 1.
    pub(crate) columns: usize,
    pub(crate) alpha: E,
    pub(crate) beta: E,
}

/// One tile in dot form: `C = beta * C + alpha * A * B`, where beta = 0 does not read C. Rows of A and columns of B are
/// contiguous.
#[derive(Clone, Copy)]
pub(crate) struct DotTile<E> {
    pub(crate) depth: usize,
    pub(crate) a: *const E,
    pub(crate) a_row: isize,
    pub(crate) b: *const E,
    pub(crate) b_column: isize,
    pub(crate) c: *mut E,
    pub(crate) c_row: isize,
    pub(crate) c_column: isize,
    /// The prefetch distance in A, in elements; 0 for none.
    pub(crate) ahead: isize,
    pub(crate) alpha: E,
    pub(crate) beta: E,
}

/// A tile of two products that share the factor D: some columns of `back = D * W'`, and the same rows of
/// `W = beta * W + alpha * X' * D`. The first is `dots`, whose A is D and whose columns of B are the rows of W.
#[derive(Clone, Copy)]
pub(crate) struct PairTile<E> {
    pub(crate) dots: DotTile<E>,
    pub(crate) w: *mut E,
    pub(crate) w_row: isize,
    pub(crate) x: *const E,
    /// The distance in X from what belongs to one row of D to the next.
    pub(crate) x_term: isize,
    /// The distance in X from what belongs to one row of W to the next.
    pub(crate) x_row: isize,
    pub(crate) alpha: E,
    pub(crate) beta: E,
}

/// Tiles of a product of which one factor lies where offsets say: `C = A * B`, or `C + A * B` unless it `begins`. Either rows
/// of A have offsets, and B lies in rows of whole vectors; or the vectors of a row of B have them, and the rows of A lie side
/// by side. Every term has an offset, which is added to all of them. There are as many `tiles` one after another, below each
/// other or side by side, that share the other factor.
pub(crate) struct OffsetTile<E> {
    pub(crate) depth: usize,
    pub(crate) a: *const E,
    pub(crate) b: *const E,
    /// The distance from one term to the next in the factor without offsets.
    pub(crate) step: isize,
    /// Of each row of A, or of each vector of B.
    pub(crate) offsets: *const isize,
    /// Of each term, in the same factor.
    pub(crate) terms: *const isize,
    pub(crate) c: *mut E,
    pub(crate) c_row: isize,
    /// Columns of C to write, at least 1 in each tile.
    pub(crate) columns: usize,
    pub(crate) tiles: usize,
    /// There are no sums in C yet.
    pub(crate) begins: bool,
}

/// For each term, `rows` runs of elements one after another: `to[t * to_term + r * run + i] = from[terms[t] + r * from_row
/// + i * from_element]`. Behind the last run of a term, up to a vector of anything is written.
pub(crate) struct Columns<E> {
    pub(crate) depth: usize,
    pub(crate) terms: *const isize,
    pub(crate) rows: usize,
    pub(crate) run: usize,
    pub(crate) from: *const E,
    pub(crate) from_row: isize,
    pub(crate) from_element: isize,
    pub(crate) to: *mut E,
    pub(crate) to_term: isize,
}

/// `to[p * to_plane + r * to_row + i] += from[p * from_plane + r * from_row + i]` for `p < planes`, `r < rows`, `i < columns`.
pub(crate) struct AddRows<E> {
    pub(crate) planes: usize,
    pub(crate) from_plane: usize,
    pub(crate) to_plane: usize,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) from: *const E,
    pub(crate) from_row: isize,
    pub(crate) to: *mut E,
    pub(crate) to_row: isize,
}

/// A copy of a matrix into rows of `width`: `to[p * width + i] = from[p * from_row + i * from_column]` for `p < rows`
/// and `i < columns`; zero for the remaining `i < width`.
pub(crate) struct Copy2<E> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) width: usize,
    pub(crate) from: *const E,
    pub(crate) from_row: isize,
    pub(crate) from_column: isize,
    pub(crate) to: *mut E,
}

/// `C[i, j] = beta * C[i, j] + T[j, i]` for `i < rows`, `j < columns`, where both have contiguous rows and beta = 0 does
/// not read C.
pub(crate) struct Transposed<E> {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) from: *const E,
    pub(crate) from_row: isize,
    pub(crate) c: *mut E,
    pub(crate) c_row: isize,
    pub(crate) beta: E,
}

/// A kernel for panel tiles.
pub(crate) type PanelKernel<E> = unsafe fn(&Tile<E>);
/// A kernel for dot tiles.
pub(crate) type DotKernel<E> = unsafe fn(&DotTile<E>);
/// A kernel for tiles of two products.
pub(crate) type PairKernel<E> = unsafe fn(&PairTile<E>);

/// Kernels for offset tiles: with offsets of the vectors of B, and of the rows of A.
pub(crate) type OffsetKernels<E> = [unsafe fn(&OffsetTile<E>); 2];

/// The kernels of one element type for one instruction set.
///
/// # Safety
/// All need that instruction set, and pointers and strides that stay within valid memory.
pub(crate) struct Kernels<E: 'static> {
    /// Elements of a vector.
    pub(crate) lanes: usize,
    /// Panel tiles of 1, 2, 4, 8 vectors; of 1, 2, ... rows; with whole vectors, and with masked loads of B.
    pub(crate) panels: [&'static [[PanelKernel<E>; 2]]; 4],
    /// Dot tiles of 1, 2, ... rows; of 1, 2, ... columns. The most rows may go with fewer columns.
    pub(crate) dots: &'static [&'static [DotKernel<E>]],
    /// Tiles of two products, with 1, 2, ... rows of D; with 1, 2, ... rows of W.
    pub(crate) pairs: &'static [&'static [PairKernel<E>]],
    /// Offset tiles of 1, 2, ... vectors; of 1, 2, ... rows.
    pub(crate) offsets: &'static [&'static [OffsetKernels<E>]],
    /// A dot tile of one row and one column, for long ones.
    pub(crate) long_dot: DotKernel<E>,
    pub(crate) copy: unsafe fn(&Copy2<E>),
    pub(crate) transpose: unsafe fn(&Transposed<E>),
    pub(crate) columns: unsafe fn(&Columns<E>),
    pub(crate) add_rows: unsafe fn(&AddRows<E>),
}

impl<E> Kernels<E> {
    /// Columns of a panel of packed B.
    pub(crate) fn panel_width(&self) -> usize {
        2 * self.lanes
    }
    /// The most rows of a dot tile with the most columns.
    pub(crate) fn rows_of_wide_dots(&self) -> usize {
        self.dots.iter().filter(|columns| columns.len() == self.dots[0].len()).count()
    }
    /// The most rows of a tile of `1 << log_vectors` vectors.
    pub(crate) fn rows(&self, log_vectors: usize) -> usize {
        self.panels[log_vectors].len()
    }
}

/// What the sums of a tile came to in the stretches before: in memory, as registers are few.
struct Totals<V, const ROWS: usize, const COLUMNS: usize> {
    values: MaybeUninit<[[V; COLUMNS]; ROWS]>,
    /// Whether there was a stretch before; only then the values are.
    any: bool,
}

impl<V: Vector, const ROWS: usize, const COLUMNS: usize> Totals<V, ROWS, COLUMNS> {
    #[inline(always)]
    fn new() -> Self {
        Self { values: MaybeUninit::uninit(), any: false }
    }

    /// Adds sums to the totals, and begins them anew.
    ///
    /// # Safety
    /// See [`Vector`].
    #[inline(always)]
    unsafe fn take(&mut self, sums: &mut [[V; COLUMNS]; ROWS]) {
        // SAFETY: the caller's; the places of the values are written.
        unsafe {
            self.join(sums);
            let values = self.values.as_mut_ptr().cast::<V>();
            for i in 0..ROWS {
                for j in 0..COLUMNS {
                    values.add(i * COLUMNS + j).write(sums[i][j]);
                    sums[i][j] = V::splat(V::Element::ZERO);
                }
            }
        }
        self.any = true;
    }

    /// Adds the totals, if there are any, to sums.
    ///
    /// # Safety
    /// See [`Vector`].
    #[inline(always)]
    unsafe fn join(&self, sums: &mut [[V; COLUMNS]; ROWS]) {
        if !self.any {
            return;
        }
        // SAFETY: the caller's; all values were written when `any` became true.
        unsafe {
            let values = self.values.as_ptr().cast::<V>();
            for i in 0..ROWS {
                for j in 0..COLUMNS {
                    sums[i][j] = values.add(i * COLUMNS + j).read().add(sums[i][j]);
                }
            }
        }
    }
}

/// A tile of `ROWS` rows and `VECTORS` vectors in panel form; `MASKED` when loading whole vectors of B could leave its
/// memory.
///
/// # Safety
/// See [`Vector`] and [`Tile`].
#[inline(always)]
pub(crate) unsafe fn panel<V: Vector, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
    tile: &Tile<V::Element>,
) {
    // SAFETY: the caller gives a tile within valid memory and the instruction set. Pointers beyond the last row are made
    // with wrapping arithmetic and not followed, except by prefetches, which may go anywhere.
    unsafe {
        let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
        let mut masks = [V::mask(0); VECTORS];
        for v in 0..VECTORS {
            masks[v] = V::mask(tile.columns.saturating_sub(v * V::LANES));
        }
        let (a_row, a_column, b_row, b_panel) = (tile.a_row, tile.a_column, tile.b_row, tile.b_panel);
        let (mut a, mut b) = (tile.a, tile.b);
        macro_rules! panel_terms {
            ($terms:expr) => {
                for _ in 0..$terms {
                    let mut row = [V::splat(V::Element::ZERO); VECTORS];
                    for v in 0..VECTORS {
                        let from =
                            b.wrapping_offset((v / 2) as isize * b_panel).wrapping_add(v % 2 * V::LANES);
                        row[v] = if MASKED { V::load_masked(from, masks[v]) } else { V::load(from) };
                        V::prefetch(from.wrapping_offset(tile.b_ahead));
                    }
                    for i in 0..ROWS {
                        let x = V::splat(*a.wrapping_offset(i as isize * a_row));
                        for v in 0..VECTORS {
                            sums[i][v] = x.multiply_add(row[v], sums[i][v]);
                        }
                    }
                    a = a.wrapping_offset(a_column);
                    b = b.wrapping_offset(b_row);
                }
            };
        }
        // Prefetch the next tile of C two rows at a time; all at once stalls the loads.
        let asking = tile.depth.min(ROWS.div_ceil(2));
        let mut ask = tile.c_next;
        for _ in 0..asking {
            for v in 0..VECTORS {
                V::prefetch(ask.wrapping_add(v * V::LANES));
                V::prefetch(ask.wrapping_offset(tile.c_row).wrapping_add(v * V::LANES));
            }
            ask = ask.wrapping_offset(2 * tile.c_row);
            panel_terms!(1);
        }
        // A single stretch has its own code, so that no register holds totals.
        if tile.depth <= STRETCH {
            panel_terms!(tile.depth - asking);
        } else {
            let mut totals = Totals::<V, ROWS, VECTORS>::new();
            let (mut left, mut parts) = (tile.depth, stretches(tile.depth));
            let mut done = asking;
            loop {
                let terms = left.div_ceil(parts);
                panel_terms!(terms - done);
                done = 0;
                left -= terms;
                parts -= 1;
                if left == 0 {
                    break;
                }
                totals.take(&mut sums);
            }
            totals.join(&mut sums);
        }
        if !tile.begins {
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    let from =
                        tile.sums.wrapping_offset(i as isize * tile.sums_row).wrapping_add(v * V::LANES);
                    sums[i][v] = V::load(from).add(sums[i][v]);
                }
            }
        }
        if !tile.ends {
            for i in 0..ROWS {
                for v in 0..VECTORS {
                    let to = tile.sums.wrapping_offset(i as isize * tile.sums_row).wrapping_add(v * V::LANES);
                    sums[i][v].store(to);
                }
            }
            return;
        }
        let (alpha, beta) = (V::splat(tile.alpha), V::splat(tile.beta));
        let reads = tile.beta != V::Element::ZERO;
        let whole = tile.columns >= VECTORS * V::LANES;
        // Read all of C before writing any: a masked store stalls later loads from the same cache line, in which the next
        // row may begin.
        for i in 0..ROWS {
            for v in 0..VECTORS {
                let c = tile.c.wrapping_offset(i as isize * tile.c_row).wrapping_add(v * V::LANES);
                sums[i][v] = sums[i][v].multiply(alpha);
                if reads {
                    let old = if whole { V::load(c) } else { V::load_masked(c, masks[v]) };
                    sums[i][v] = old.multiply_add(beta, sums[i][v]);
                }
            }
        }
        for i in 0..ROWS {
            for v in 0..VECTORS {
                let c = tile.c.wrapping_offset(i as isize * tile.c_row).wrapping_add(v * V::LANES);
                if whole {
                    sums[i][v].store(c);
                } else {
                    sums[i][v].store_masked(c, masks[v]);
                }
            }
        }
    }
}

/// A tile of `ROWS` x `COLUMNS` in dot form.
///
/// # Safety
/// See [`Vector`] and [`DotTile`].
#[inline(always)]
pub(crate) unsafe fn dot<V: Vector, const ROWS: usize, const COLUMNS: usize>(tile: &DotTile<V::Element>) {
    // SAFETY: the caller gives a tile within valid memory and the instruction set.
    unsafe {
        let zero = V::splat(V::Element::ZERO);
        let mut sums = [[zero; COLUMNS]; ROWS];
        let (mut a, mut b) = (tile.a, tile.b);
        macro_rules! dot_vectors {
            ($vectors:expr) => {
                for _ in 0..$vectors {
                    let mut rows = [zero; ROWS];
                    for i in 0..ROWS {
                        rows[i] = V::load(a.wrapping_offset(i as isize * tile.a_row));
                    }
                    if tile.ahead != 0 {
                        for i in 0..ROWS {
                            V::prefetch(a.wrapping_offset(i as isize * tile.a_row + tile.ahead));
                        }
                    }
                    for j in 0..COLUMNS {
                        let column = V::load(b.wrapping_offset(j as isize * tile.b_column));
                        for i in 0..ROWS {
                            sums[i][j] = rows[i].multiply_add(column, sums[i][j]);
                        }
                    }
                    a = a.add(V::LANES);
                    b = b.add(V::LANES);
                }
            };
        }
        let mut left = tile.depth;
        let mut vectors = left / V::LANES;
        left -= vectors * V::LANES;
        // A single stretch has its own code, so that no register holds totals.
        if vectors <= DOT_STRETCH {
            dot_vectors!(vectors);
        } else {
            let mut totals = Totals::<V, ROWS, COLUMNS>::new();
            loop {
                dot_vectors!(vectors.min(DOT_STRETCH));
                if vectors <= DOT_STRETCH {
                    break;
                }
                vectors -= DOT_STRETCH;
                totals.take(&mut sums);
            }
            totals.join(&mut sums);
        }
        if left > 0 {
            let mask = V::mask(left);
            let mut rows = [zero; ROWS];
            for i in 0..ROWS {
                rows[i] = V::load_masked(a.wrapping_offset(i as isize * tile.a_row), mask);
            }
            for j in 0..COLUMNS {
                let column = V::load_masked(b.wrapping_offset(j as isize * tile.b_column), mask);
                for i in 0..ROWS {
                    sums[i][j] = rows[i].multiply_add(column, sums[i][j]);
                }
            }
        }
        add_lanes(tile, &sums);
    }
}

/// Writes the elements of a dot tile, each the sum of the lanes of a vector.
///
/// # Safety
/// See [`Vector`] and [`DotTile`].
#[inline(always)]
unsafe fn add_lanes<V: Vector, const ROWS: usize, const COLUMNS: usize>(
    tile: &DotTile<V::Element>,
    sums: &[[V; COLUMNS]; ROWS],
) {
    // SAFETY: the elements lie in the tile.
    unsafe {
        // Store the sums in memory first: constant indices keep `sums` in registers up to here.
        let mut vectors = MaybeUninit::<[[[V::Element; MAX_LANES]; COLUMNS]; ROWS]>::uninit();
        let vectors = vectors.as_mut_ptr().cast::<V::Element>();
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                sums[i][j].store(vectors.add((i * COLUMNS + j) * MAX_LANES));
            }
        }
        let mut values = MaybeUninit::<[[[V::Element; MAX_LANES]; COLUMNS]; ROWS]>::uninit();
        let values = values.as_mut_ptr().cast::<V::Element>();
        let (zero, alpha) = (V::splat(V::Element::ZERO), V::splat(tile.alpha));
        let mut first = 0;
        while first + V::LANES <= ROWS * COLUMNS {
            let mut group = [zero; MAX_LANES];
            for l in 0..V::LANES {
                group[l] = V::load(vectors.add((first + l) * MAX_LANES));
            }
            V::sums(&group).multiply(alpha).store(values.add(first));
            first += V::LANES;
        }
        let rest = ROWS * COLUMNS % V::LANES;
        if rest > 0 {
            let mut group = [zero; MAX_LANES];
            for l in 0..rest {
                group[l] = V::load(vectors.add((first + l) * MAX_LANES));
            }
            V::sums(&group).multiply(alpha).store(values.add(first));
        }
        for i in 0..ROWS {
            for j in 0..COLUMNS {
                let c = tile.c.wrapping_offset(i as isize * tile.c_row + j as isize * tile.c_column);
                let value = *values.add(i * COLUMNS + j);
                *c = if tile.beta == V::Element::ZERO { value } else { *c * tile.beta + value };
            }
        }
    }
}

/// `TERMS` rows of D with `ROWS` rows of W, for both products of a [`PairTile`]: each vector of D is loaded once for both.
///
/// # Safety
/// See [`Vector`] and [`PairTile`].
#[inline(always)]
pub(crate) unsafe fn pair<V: Vector, const TERMS: usize, const ROWS: usize>(tile: &PairTile<V::Element>) {
    // SAFETY: the caller gives a tile within valid memory and the instruction set.
    unsafe {
        let mut dots = [[V::splat(V::Element::ZERO); ROWS]; TERMS];
        // A local copy, so that the compiler knows that stores to W do not change it.
        let tile = &tile.clone();
        let (depth, all) = (tile.dots.depth, V::mask(V::LANES));
        macro_rules! pair_vectors {
            ($column:ident, $end:expr) => {
                while $column + 2 * V::LANES <= $end {
                    pair_columns::<V, TERMS, ROWS, 2, false>(tile, $column, all, &mut dots);
                    $column += 2 * V::LANES;
                }
                if $column + V::LANES <= $end {
                    pair_columns::<V, TERMS, ROWS, 1, false>(tile, $column, all, &mut dots);
                    $column += V::LANES;
                }
            };
        }
        let mut column = 0;
        // The same stretches as in `dot`.
        if depth / V::LANES <= DOT_STRETCH {
            pair_vectors!(column, depth);
        } else {
            let mut totals = Totals::<V, TERMS, ROWS>::new();
            loop {
                let end = depth.min(column + DOT_STRETCH * V::LANES);
                pair_vectors!(column, end);
                if column + V::LANES > depth {
                    break;
                }
                totals.take(&mut dots);
            }
            totals.join(&mut dots);
        }
        if column < depth {
            pair_columns::<V, TERMS, ROWS, 1, true>(tile, column, V::mask(depth - column), &mut dots);
        }
        add_lanes(&tile.dots, &dots);
    }
}

/// `VECTORS` vectors of columns of a [`PairTile`]; with `MASKED`, the lanes of the mask.
///
/// # Safety
/// See [`Vector`] and [`PairTile`]; the columns lie within it.
#[inline(always)]
unsafe fn pair_columns<
    V: Vector,
    const TERMS: usize,
    const ROWS: usize,
    const VECTORS: usize,
    const MASKED: bool,
>(
    tile: &PairTile<V::Element>,
    column: usize,
    mask: V::Mask,
    dots: &mut [[V; ROWS]; TERMS],
) {
    // SAFETY: the caller's; prefetches may go anywhere.
    unsafe {
        let zero = V::splat(V::Element::ZERO);
        let (mut old, mut sums) = ([[zero; VECTORS]; ROWS], [[zero; VECTORS]; ROWS]);
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let w = tile.w.wrapping_offset(r as isize * tile.w_row).wrapping_add(column + v * V::LANES);
                old[r][v] = if MASKED { V::load_masked(w, mask) } else { V::load(w) };
                V::prefetch(w.wrapping_add(PAIR_AHEAD * V::LANES));
                V::prefetch_far(w.wrapping_offset(PAIR_ROWS_AHEAD * tile.w_row));
            }
        }
        for t in 0..TERMS {
            let d = tile.dots.a.wrapping_offset(t as isize * tile.dots.a_row).wrapping_add(column);
            let mut row = [zero; VECTORS];
            for v in 0..VECTORS {
                let d = d.wrapping_add(v * V::LANES);
                row[v] = if MASKED { V::load_masked(d, mask) } else { V::load(d) };
            }
            for r in 0..ROWS {
                let x = tile.x.wrapping_offset(t as isize * tile.x_term + r as isize * tile.x_row);
                let x = V::splat(*x);
                for v in 0..VECTORS {
                    dots[t][r] = row[v].multiply_add(old[r][v], dots[t][r]);
                    sums[r][v] = x.multiply_add(row[v], sums[r][v]);
                }
            }
        }
        let (alpha, beta) = (V::splat(tile.alpha), V::splat(tile.beta));
        for r in 0..ROWS {
            for v in 0..VECTORS {
                let w = tile.w.wrapping_offset(r as isize * tile.w_row).wrapping_add(column + v * V::LANES);
                let new = old[r][v].multiply_add(beta, sums[r][v].multiply(alpha));
                if MASKED { new.store_masked(w, mask) } else { new.store(w) }
            }
        }
    }
}

/// A tile of one row and one column in dot form, with [`LONG_DOT_SUMS`] independent sums.
///
/// # Safety
/// See [`Vector`] and [`DotTile`].
#[inline(always)]
pub(crate) unsafe fn long_dot<V: Vector>(tile: &DotTile<V::Element>) {
    // SAFETY: the caller gives a tile within valid memory and the instruction set.
    unsafe {
        let zero = V::splat(V::Element::ZERO);
        let mut sums = [[zero; LONG_DOT_SUMS]];
        let mut totals = Totals::<V, 1, LONG_DOT_SUMS>::new();
        let (mut a, mut b) = (tile.a, tile.b);
        let mut left = tile.depth;
        loop {
            let rounds = (left / (V::LANES * LONG_DOT_SUMS)).min(LONG_DOT_STRETCH);
            for _ in 0..rounds {
                for s in 0..LONG_DOT_SUMS {
                    let (x, y) = (V::load(a.add(s * V::LANES)), V::load(b.add(s * V::LANES)));
                    sums[0][s] = x.multiply_add(y, sums[0][s]);
                }
                a = a.add(V::LANES * LONG_DOT_SUMS);
                b = b.add(V::LANES * LONG_DOT_SUMS);
            }
            left -= rounds * V::LANES * LONG_DOT_SUMS;
            if left < V::LANES * LONG_DOT_SUMS {
                break;
            }
            totals.take(&mut sums);
        }
        totals.join(&mut sums);
        let [mut sums] = sums;
        for sum in &mut sums {
            let mask = V::mask(left);
            *sum = V::load_masked(a, mask).multiply_add(V::load_masked(b, mask), *sum);
            a = a.wrapping_add(V::LANES);
            b = b.wrapping_add(V::LANES);
            left = left.saturating_sub(V::LANES);
        }
        for half in [4, 2, 1] {
            for s in 0..half {
                sums[s] = sums[s].add(sums[s + half]);
            }
        }
        add_lanes::<V, 1, 1>(tile, &[[sums[0]]]);
    }
}

/// Tiles of `ROWS` rows and `VECTORS` vectors, with offsets of the rows of A if `BY_ROWS`, else of the vectors of B.
///
/// # Safety
/// See [`Vector`] and [`OffsetTile`].
#[inline(always)]
pub(crate) unsafe fn offset<V: Vector, const ROWS: usize, const VECTORS: usize, const BY_ROWS: bool>(
    tile: &OffsetTile<V::Element>,
) {
    // SAFETY: the caller gives tiles within valid memory and the instruction set. Pointers beyond the last term are made with
    // wrapping arithmetic and not followed.
    unsafe {
        // A local copy, so that the compiler knows that stores to C do not change it.
        let OffsetTile { depth, a: first_a, b: first_b, step, terms, c_row, begins, tiles, .. } = *tile;
        let (mut offsets, mut c, mut columns) = (tile.offsets, tile.c, tile.columns);
        for _ in 0..tiles {
            let mut sums = [[V::splat(V::Element::ZERO); VECTORS]; ROWS];
            let (mut a, mut b) = (first_a, first_b);
            let mut rows = [a; ROWS];
            let mut vectors = [b; VECTORS];
            if BY_ROWS {
                for i in 0..ROWS {
                    rows[i] = a.wrapping_offset(*offsets.add(i));
                }
            } else {
                for v in 0..VECTORS {
                    vectors[v] = b.wrapping_offset(*offsets.add(v));
                }
            }
            for term in 0..depth {
                let at = *terms.add(term);
                let mut row = [V::splat(V::Element::ZERO); VECTORS];
                for v in 0..VECTORS {
                    row[v] = V::load(if BY_ROWS {
                        b.wrapping_add(v * V::LANES)
                    } else {
                        vectors[v].wrapping_offset(at)
                    });
                }
                for i in 0..ROWS {
                    let x = V::splat(if BY_ROWS { *rows[i].wrapping_offset(at) } else { *a.wrapping_add(i) });
                    for v in 0..VECTORS {
                        sums[i][v] = x.multiply_add(row[v], sums[i][v]);
                    }
                }
                if BY_ROWS {
                    b = b.wrapping_offset(step);
                } else {
                    a = a.wrapping_offset(step);
                }
            }
            if columns >= VECTORS * V::LANES {
                // Read before writing, as in `panel`.
                if !begins {
                    for i in 0..ROWS {
                        for v in 0..VECTORS {
                            let c = c.wrapping_offset(i as isize * c_row).wrapping_add(v * V::LANES);
                            sums[i][v] = V::load(c).add(sums[i][v]);
                        }
                    }
                }
                for i in 0..ROWS {
                    for v in 0..VECTORS {
                        sums[i][v].store(c.wrapping_offset(i as isize * c_row).wrapping_add(v * V::LANES));
                    }
                }
            } else {
                for v in 0..VECTORS {
                    let mask = V::mask(columns.saturating_sub(v * V::LANES));
                    for i in 0..ROWS {
                        let c = c.wrapping_offset(i as isize * c_row).wrapping_add(v * V::LANES);
                        if !begins {
                            sums[i][v] = V::load_masked(c, mask).add(sums[i][v]);
                        }
                        sums[i][v].store_masked(c, mask);
                    }
                }
            }
            if BY_ROWS {
                offsets = offsets.wrapping_add(ROWS);
                c = c.wrapping_offset(ROWS as isize * c_row);
            } else {
                offsets = offsets.wrapping_add(VECTORS);
                c = c.wrapping_add(VECTORS * V::LANES);
                columns = columns.saturating_sub(VECTORS * V::LANES);
            }
        }
    }
}

/// Carries out a [`Columns`].
///
/// # Safety
/// See [`Vector`] and [`Columns`].
#[inline(always)]
pub(crate) unsafe fn columns<V: Vector>(columns: &Columns<V::Element>) {
    // SAFETY: the caller gives valid memory for what the offsets reach, and the instruction set.
    unsafe {
        let run = columns.run;
        // A whole vector is stored behind each run; the next run or nothing lies there.
        let (whole, rest) = (run / V::LANES * V::LANES, run % V::LANES);
        let mask = V::mask(rest);
        for term in 0..columns.depth {
            let mut from = columns.from.wrapping_offset(*columns.terms.add(term));
            let mut to = columns.to.wrapping_offset(term as isize * columns.to_term);
            if columns.from_element == 1 {
                for _ in 0..columns.rows {
                    let mut i = 0;
                    while i < whole {
                        V::load(from.wrapping_add(i)).store(to.wrapping_add(i));
                        i += V::LANES;
                    }
                    if rest > 0 {
                        V::load_masked(from.wrapping_add(i), mask).store(to.wrapping_add(i));
                    }
                    from = from.wrapping_offset(columns.from_row);
                    to = to.wrapping_add(run);
                }
            } else {
                for _ in 0..columns.rows {
                    for i in 0..run {
                        *to.wrapping_add(i) = *from.wrapping_offset(i as isize * columns.from_element);
                    }
                    from = from.wrapping_offset(columns.from_row);
                    to = to.wrapping_add(run);
                }
            }
        }
    }
}

/// Carries out an [`AddRows`].
///
/// # Safety
/// See [`Vector`] and [`AddRows`].
#[inline(always)]
pub(crate) unsafe fn add_rows<V: Vector>(add: &AddRows<V::Element>) {
    // SAFETY: the caller gives valid memory for what the extents and strides reach, and the instruction set.
    unsafe {
        for plane in 0..add.planes {
            let mut from = add.from.wrapping_add(plane * add.from_plane);
            let mut to = add.to.wrapping_add(plane * add.to_plane);
            for _ in 0..add.rows {
                let mut i = 0;
                while i + V::LANES <= add.columns {
                    V::load(to.wrapping_add(i)).add(V::load(from.wrapping_add(i))).store(to.wrapping_add(i));
                    i += V::LANES;
                }
                // One by one: a masked store would stall the next load of the row.
                while i < add.columns {
                    *to.wrapping_add(i) = *to.wrapping_add(i) + *from.wrapping_add(i);
                    i += 1;
                }
                from = from.wrapping_offset(add.from_row);
                to = to.wrapping_offset(add.to_row);
            }
        }
    }
}

/// Carries out a [`Copy2`]; through transposed squares where the source is contiguous down its columns.
///
/// # Safety
/// See [`Vector`] and [`Copy2`].
#[inline(always)]
pub(crate) unsafe fn copy<V: Vector>(copy: &Copy2<V::Element>) {
    // SAFETY: the caller gives valid memory for what the strides reach, and the instruction set.
    unsafe {
        let zero = V::splat(V::Element::ZERO);
        if copy.from_column == 1 {
            for p in 0..copy.rows {
                let from = copy.from.offset(p as isize * copy.from_row);
                let to = copy.to.add(p * copy.width);
                let mut i = 0;
                while i + V::LANES <= copy.columns {
                    V::load(from.add(i)).store(to.add(i));
                    i += V::LANES;
                }
                while i < copy.width {
                    let mask = V::mask(copy.columns.saturating_sub(i));
                    V::load_masked(from.wrapping_add(i), mask)
                        .store_masked(to.add(i), V::mask(copy.width - i));
                    i += V::LANES;
                }
            }
        } else if copy.from_row == 1 {
            let mut p = 0;
            while p < copy.rows {
                let rows = (copy.rows - p).min(V::LANES);
                let mut i = 0;
                while i < copy.width {
                    let mut square = [zero; MAX_LANES];
                    let from = copy.from.add(p).wrapping_offset(i as isize * copy.from_column);
                    if i + V::LANES <= copy.columns && rows == V::LANES {
                        for l in 0..V::LANES {
                            square[l] = V::load(from.offset(l as isize * copy.from_column));
                        }
                    } else {
                        for l in 0..V::LANES {
                            if i + l < copy.columns {
                                square[l] =
                                    V::load_masked(from.offset(l as isize * copy.from_column), V::mask(rows));
                            }
                        }
                    }
                    V::transpose(&mut square);
                    let to = copy.to.add(p * copy.width + i);
                    if i + V::LANES <= copy.width && rows == V::LANES {
                        for l in 0..V::LANES {
                            square[l].store(to.add(l * copy.width));
                        }
                    } else {
                        for l in 0..V::LANES {
                            if l < rows {
                                square[l].store_masked(to.add(l * copy.width), V::mask(copy.width - i));
                            }
                        }
                    }
                    i += V::LANES;
                }
                p += V::LANES;
            }
        } else {
            for p in 0..copy.rows {
                for i in 0..copy.width {
                    *copy.to.add(p * copy.width + i) = if i < copy.columns {
                        *copy.from.offset(p as isize * copy.from_row + i as isize * copy.from_column)
                    } else {
                        V::Element::ZERO
                    };
                }
            }
        }
    }
}

/// Carries out a [`Transposed`].
///
/// # Safety
/// See [`Vector`] and [`Transposed`].
#[inline(always)]
pub(crate) unsafe fn transpose<V: Vector>(transposed: &Transposed<V::Element>) {
    // SAFETY: the caller gives valid memory for what the extents and strides reach, and the instruction set.
    unsafe {
        let zero = V::splat(V::Element::ZERO);
        let beta = V::splat(transposed.beta);
        let reads = transposed.beta != V::Element::ZERO;
        for i in (0..transposed.rows).step_by(V::LANES) {
            let rows = (transposed.rows - i).min(V::LANES);
            for j in (0..transposed.columns).step_by(V::LANES) {
                let columns = (transposed.columns - j).min(V::LANES);
                let mut square = [zero; MAX_LANES];
                for l in 0..V::LANES {
                    if l < columns {
                        let from = transposed.from.offset((j + l) as isize * transposed.from_row).add(i);
                        square[l] = V::load_masked(from, V::mask(rows));
                    }
                }
                V::transpose(&mut square);
                let mask = V::mask(columns);
                // Read before writing, as in `panel`.
                if reads {
                    for l in 0..V::LANES {
                        if l < rows {
                            let c = transposed
                                .c
                                .wrapping_offset((i + l) as isize * transposed.c_row)
                                .wrapping_add(j);
                            square[l] = V::load_masked(c, mask).multiply_add(beta, square[l]);
                        }
                    }
                }
                for l in 0..V::LANES {
                    if l < rows {
                        let c =
                            transposed.c.wrapping_offset((i + l) as isize * transposed.c_row).wrapping_add(j);
                        square[l].store_masked(c, mask);
                    }
                }
            }
        }
    }
}

/// Compiles the kernels of a module for its instruction set, and puts them in the tables `F32` and `F64`.
macro_rules! kernel_tables {
    (
        features = $features:tt;
        F32: f32 = $singles:ty;
        F64: f64 = $doubles:ty;
        rows_by_vectors = [$rows1:tt, $rows2:tt, $rows4:tt, $rows8:tt];
        dot_columns_by_rows = $dots:tt;
        offset_rows_by_vectors = $offsets:tt;
        pair_terms = [$($pair_terms:literal),*];
        pair_rows = $pair_rows:tt;
    ) => {
        $crate::product::kernels::enabling! { $features;
            unsafe fn panel<V: Vector, const ROWS: usize, const VECTORS: usize, const MASKED: bool>(
                tile: &kernels::Tile<V::Element>,
            ) {
                // SAFETY: this function enables the instruction set; the rest is the caller's.
                unsafe { kernels::panel::<V, ROWS, VECTORS, MASKED>(tile) }
            }
            unsafe fn dot<V: Vector, const ROWS: usize, const COLUMNS: usize>(tile: &kernels::DotTile<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::dot::<V, ROWS, COLUMNS>(tile) }
            }
            unsafe fn pair<V: Vector, const TERMS: usize, const ROWS: usize>(tile: &kernels::PairTile<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::pair::<V, TERMS, ROWS>(tile) }
            }
            unsafe fn long_dot<V: Vector>(tile: &kernels::DotTile<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::long_dot::<V>(tile) }
            }
            unsafe fn copy<V: Vector>(copy: &kernels::Copy2<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::copy::<V>(copy) }
            }
            unsafe fn offset<V: Vector, const ROWS: usize, const VECTORS: usize, const BY_ROWS: bool>(
                tile: &kernels::OffsetTile<V::Element>,
            ) {
                // SAFETY: as for `panel`.
                unsafe { kernels::offset::<V, ROWS, VECTORS, BY_ROWS>(tile) }
            }
            unsafe fn columns<V: Vector>(columns: &kernels::Columns<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::columns::<V>(columns) }
            }
            unsafe fn add_rows<V: Vector>(add: &kernels::AddRows<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::add_rows::<V>(add) }
            }
            unsafe fn transpose<V: Vector>(transposed: &kernels::Transposed<V::Element>) {
                // SAFETY: as for `panel`.
                unsafe { kernels::transpose::<V>(transposed) }
            }
        }
        $crate::product::kernels::kernel_table! { F32: f32 = $singles; $rows1 $rows2 $rows4 $rows8 $dots $offsets $($pair_terms $pair_rows)* }
        $crate::product::kernels::kernel_table! { F64: f64 = $doubles; $rows1 $rows2 $rows4 $rows8 $dots $offsets $($pair_terms $pair_rows)* }
    };
}

/// Puts the instruction set on functions.
macro_rules! enabling {
    (none; $($item:item)*) => { $($item)* };
    ($features:literal; $($item:item)*) => { $(#[target_feature(enable = $features)] $item)* };
}

/// One table of [`kernel_tables`].
macro_rules! kernel_table {
    (
        $name:ident: $element:ty = $vector:ty;
        [$($rows1:literal),*] [$($rows2:literal),*] [$($rows4:literal),*] [$($rows8:literal),*]
        [$($dot_rows:literal => [$($dot_columns:literal),*]),*]
        [$($offset_vectors:literal => [$($offset_rows:literal),*]),*]
        $($pair_terms:literal [$($pair_rows:literal),*])*
    ) => {
        #[doc = concat!("The kernels of `", stringify!($element), "`.")]
        pub(crate) static $name: Kernels<$element> = Kernels {
            lanes: <$vector>::LANES,
            panels: [
                &[$([panel::<$vector, $rows1, 1, false>, panel::<$vector, $rows1, 1, true>]),*],
                &[$([panel::<$vector, $rows2, 2, false>, panel::<$vector, $rows2, 2, true>]),*],
                &[$([panel::<$vector, $rows4, 4, false>, panel::<$vector, $rows4, 4, true>]),*],
                &[$([panel::<$vector, $rows8, 8, false>, panel::<$vector, $rows8, 8, true>]),*],
            ],
            dots: &[$(&[$(dot::<$vector, $dot_rows, $dot_columns>),*]),*],
            offsets: &[$(&[$([
                offset::<$vector, $offset_rows, $offset_vectors, false>,
                offset::<$vector, $offset_rows, $offset_vectors, true>,
            ]),*]),*],
            pairs: &[$(&[$(pair::<$vector, $pair_terms, $pair_rows>),*]),*],
            long_dot: long_dot::<$vector>,
            copy: copy::<$vector>,
            transpose: transpose::<$vector>,
            columns: columns::<$vector>,
            add_rows: add_rows::<$vector>,
        };
    };
}

pub(crate) use {enabling, kernel_table, kernel_tables};
