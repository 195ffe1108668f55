//! Matrix products: `C = beta * C + alpha * A * B`, single and double precision, planned once and run often.
//!
//! A [`ProductPlan`] fixes the strategy, the block sizes and the parts from the shape, the strides, the instruction set
//! and the number of threads. Parts are regions of C that any thread may compute in any order, and the order in which an
//! element is summed depends on k and the [`Summation`] only: neither threads, nor parts, nor packing beforehand change a bit.
//! Packing B into panels is a step of its own ([`PackPlan`]), so that a loop can do it once.
//! Deliberately absent: conjugates, integers, and factors whose elements overlap with C.
//!
//! The blocking follows Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (2008), where factors are
//! large enough to be packed; the shapes of models are mostly thin, and then one factor is streamed as it lies.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub(crate) mod execute;
pub(crate) mod kernels;
mod pair;
mod portable;
mod strategy;
#[cfg(test)]
mod tests;
pub(crate) mod vector;

use crate::features::{Features, InstructionSet};
pub use kernels::stretches;
pub use pair::{PairOperands, PairPlan};
use std::fmt;
use std::ops::Range;
use strategy::{Method, Oriented, Outer, PanelSource};
pub use vector::Element;

/// The type of a product's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Float {
    /// Single precision.
    F32,
    /// Double precision.
    F64,
}

impl Float {
    /// Bytes of an element.
    #[must_use]
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }
}

impl fmt::Display for Float {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// Several products of one shape, at constant distances (in elements). A distance of 0 shares a factor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// How many products.
    pub count: usize,
    /// From one A to the next.
    pub a: isize,
    /// From one B to the next; for a packed B a multiple of [`PackPlan::packed_bytes`] in elements.
    pub b: isize,
    /// From one C to the next.
    pub c: isize,
}

/// What is known of a product when it is planned: `C[m, n] = beta * C + alpha * A[m, k] * B[k, n]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ProductShape {
    /// The type of all elements.
    pub dtype: Float,
    /// Rows of A and C.
    pub m: usize,
    /// Columns of B and C.
    pub n: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Distances in elements from one row of A to the next, and from one column to the next.
    pub a: [isize; 2],
    /// The same of B; not looked at when B is packed.
    pub b: [isize; 2],
    /// B was packed beforehand by a [`PackPlan`] for the same `k`, `n` and features.
    pub b_packed: bool,
    /// Distance from one row of C to the next; columns of C are contiguous.
    pub c_row: isize,
    /// C is read: beta is not 0. Without it beta is taken as 0.
    pub accumulate: bool,
    /// The number of products.
    pub batch: Batch,
}

impl ProductShape {
    /// One product of row-major matrices that does not read C.
    #[must_use]
    pub fn row_major(dtype: Float, m: usize, k: usize, n: usize) -> Self {
        Self {
            dtype,
            m,
            n,
            k,
            a: [k as isize, 1],
            b: [n as isize, 1],
            b_packed: false,
            c_row: n as isize,
            accumulate: false,
            batch: Batch { count: 1, a: 0, b: 0, c: 0 },
        }
    }

    /// A is stored as its transpose, a row-major `k x m` matrix.
    #[must_use]
    pub fn a_transposed(self) -> Self {
        Self { a: [1, self.m as isize], ..self }
    }

    /// B is stored as its transpose, a row-major `n x k` matrix.
    #[must_use]
    pub fn b_transposed(self) -> Self {
        Self { b: [1, self.k as isize], ..self }
    }

    /// The result is added to `beta * C`.
    #[must_use]
    pub fn accumulating(self) -> Self {
        Self { accumulate: true, ..self }
    }

    /// B is packed beforehand.
    #[must_use]
    pub fn packed(self) -> Self {
        Self { b_packed: true, ..self }
    }

    /// Floating-point operations of the product: a multiplication and an addition each for m n k and the batch.
    #[must_use]
    pub fn operations(&self) -> f64 {
        2.0 * self.m as f64 * self.n as f64 * self.k as f64 * self.batch.count as f64
    }
}

/// Why a product on slices could not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProductError {
    /// The slices hold another type.
    #[error("the product was planned for {expected}, and the slices hold {found}")]
    Type {
        /// The plan's.
        expected: Float,
        /// The slices'.
        found: Float,
    },
    /// Slices are addressed from their first element onwards.
    #[error("{operand} has the stride {stride}: expected 0 or more for a product on slices")]
    Negative {
        /// The operand's name.
        operand: &'static str,
        /// Its stride in elements.
        stride: isize,
    },
    /// A slice ends before the last element.
    #[error("{operand} needs {needed} elements, and its slice holds {found}")]
    Short {
        /// The operand's name.
        operand: &'static str,
        /// Elements that extents and strides reach.
        needed: usize,
        /// Elements in the slice.
        found: usize,
    },
    /// Out of memory for scratch.
    #[error("out of memory: the product needs {0} bytes of scratch memory")]
    Memory(usize),
    /// Elements of C lie on each other.
    #[error(
        "rows of C at a distance of {rows} and products at {batch} overlap: expected rows of {n} apart from each other"
    )]
    Overlap {
        /// From row to row.
        rows: isize,
        /// From product to product.
        batch: isize,
        /// Columns.
        n: usize,
    },
}

/// The order in which the terms of an element are summed. Plans for the same k with equal summations give equal bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Summation {
    /// In the order of k, in `blocks` nearly equal ranges of k whose sums are added in order, as are those of the
    /// `stretches` of each range; with a fused multiply-add or without.
    Sequential {
        /// Ranges of k.
        blocks: usize,
        /// The multiply-add rounds once.
        fused: bool,
    },
    /// In `sums` interleaved sums, each of stretches that are added in order; they are added in pairs at the end.
    Interleaved {
        /// The number of sums, a multiple of the vector's lanes.
        sums: usize,
        /// The multiply-add rounds once.
        fused: bool,
    },
}

/// The part of the result that one part of a plan computes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Products of the batch.
    pub batch: Range<usize>,
    /// Rows of C.
    pub rows: Range<usize>,
    /// Columns of C.
    pub columns: Range<usize>,
}

/// How a product is computed, for one shape and one instruction set. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductPlan {
    shape: ProductShape,
    instruction_set: InstructionSet,
    oriented: Oriented,
    method: Method,
    /// Ranges of k that are summed apart.
    depth_blocks: usize,
    grid: Grid,
    scratch: Scratch,
}

/// How C is cut into parts: pieces of the batch, of rows and of columns (in units of panels).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    batches: usize,
    rows: usize,
    columns: usize,
    /// Columns that stay together.
    unit: usize,
}

/// Elements of scratch memory that a part needs for each purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Scratch {
    b: usize,
    a: usize,
    c: usize,
    /// Sums of C between stretches of k.
    sums: usize,
}

/// The `index`-th of `pieces` nearly equal pieces of `0..total`.
pub fn piece(total: usize, pieces: usize, index: usize) -> Range<usize> {
    // Not `total * index / pieces`, which could overflow.
    let (whole, rest) = (total / pieces, total % pieces);
    let start = whole * index + rest.min(index);
    start..start + whole + usize::from(index < rest)
}

impl ProductPlan {
    /// Chooses the strategy for a shape, and parts for so many threads.
    #[must_use]
    pub fn new(shape: ProductShape, features: &Features, threads: usize) -> Self {
        match shape.dtype {
            Float::F32 => strategy::plan::<f32>(shape, features, threads),
            Float::F64 => strategy::plan::<f64>(shape, features, threads),
        }
    }

    /// What was planned for.
    #[must_use]
    pub fn shape(&self) -> &ProductShape {
        &self.shape
    }

    /// Bytes of scratch memory for one part; parts that run at one time need their own. Its contents may be anything, its
    /// alignment too (64 bytes is best).
    #[must_use]
    pub fn scratch_bytes(&self) -> usize {
        let Scratch { a, b, c, sums } = self.scratch;
        // Saturate: with strides of 0, extents may multiply to more than memory can hold.
        let elements = [b, c, sums].into_iter().fold(a, usize::saturating_add);
        let bytes = elements.saturating_mul(self.shape.dtype.bytes());
        if bytes == 0 { 0 } else { bytes.saturating_add(execute::ALIGNMENT) }
    }

    /// The number of independent parts; any number of threads may share them.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.grid.batches * self.grid.rows * self.grid.columns
    }

    /// Where in C a part writes. The regions of all parts cover C once; of a part that is not in the plan the region is
    /// empty.
    #[must_use]
    pub fn region(&self, part: usize) -> Region {
        let Region { batch, rows, columns } = self.oriented_region(part);
        if self.oriented.swapped {
            Region { batch, rows: columns, columns: rows }
        } else {
            Region { batch, rows, columns }
        }
    }

    /// The region in the product as it is computed, which may be the transposed one.
    fn oriented_region(&self, part: usize) -> Region {
        if part >= self.parts() {
            return Region { batch: 0..0, rows: 0..0, columns: 0..0 };
        }
        let n = self.oriented.n;
        if self.parts() == 1 {
            return Region { batch: 0..self.shape.batch.count, rows: 0..self.oriented.m, columns: 0..n };
        }
        let Grid { rows, columns, unit, batches } = self.grid;
        let (outer, column) = (part / columns, part % columns);
        let (batch, row) = (outer / rows, outer % rows);
        let units = piece(n.div_ceil(unit), columns, column);
        Region {
            batch: piece(self.shape.batch.count, batches, batch),
            rows: piece(self.oriented.m, rows, row),
            columns: units.start * unit..(units.end * unit).min(n),
        }
    }

    /// The order in which each element is summed.
    #[must_use]
    pub fn summation(&self) -> Summation {
        let fused = self.instruction_set >= InstructionSet::Avx2;
        let lanes = strategy::lanes(self.shape.dtype, self.instruction_set);
        match self.method {
            Method::Scale | Method::Panels { .. } => {
                Summation::Sequential { blocks: self.depth_blocks, fused }
            }
            Method::Dots { .. } => Summation::Interleaved { sums: lanes, fused },
            Method::LongDot => Summation::Interleaved { sums: lanes * kernels::LONG_DOT_SUMS, fused },
        }
    }
}

impl fmt::Display for ProductPlan {
    /// One line, such as `f32 20x784x500 streamed, k in 2 x 392, 8 parts, avx512`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProductShape { dtype, m, n, k, batch, .. } = self.shape;
        write!(f, "{dtype} {m}x{k}x{n}")?;
        if batch.count != 1 {
            write!(f, " times {}", batch.count)?;
        }
        f.write_str(if self.oriented.swapped { " as its transpose:" } else { ":" })?;
        match self.method {
            Method::Scale => f.write_str(" scale only")?,
            Method::Panels { b, pack_a, outer } => {
                f.write_str(match b {
                    PanelSource::Streamed => " streamed",
                    PanelSource::Stretched => " streamed in stretches",
                    PanelSource::Packed => " packed beforehand",
                    PanelSource::PackedHere => " packed",
                })?;
                f.write_str(if pack_a { ", left side packed" } else { "" })?;
                f.write_str(match outer {
                    Outer::Rows => ", by rows",
                    Outer::Columns => ", by panels",
                })?;
                write!(f, ", k in {} x {}", self.depth_blocks, k.div_ceil(self.depth_blocks))?;
            }
            Method::Dots { gather_a, gather_b, outer } => {
                f.write_str(match outer {
                    Outer::Rows => " dots by rows",
                    Outer::Columns => " dots by columns",
                })?;
                f.write_str(match (gather_a, gather_b) {
                    (false, false) => "",
                    (true, false) => ", left side gathered",
                    (false, true) => ", right side gathered",
                    (true, true) => ", both sides gathered",
                })?;
            }
            Method::LongDot => f.write_str(" one dot")?,
        }
        write!(f, ", {} parts, {}", self.parts(), self.instruction_set)
    }
}

/// How a matrix B (`k x n`) is packed into panels, for any product of the same k, n and features with
/// [`ProductShape::b_packed`].
///
/// The packed form is `[range of k][panel of columns][row][column]`; the last panel is filled up with zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackPlan {
    dtype: Float,
    k: usize,
    n: usize,
    b: [isize; 2],
    instruction_set: InstructionSet,
    depth_blocks: usize,
    width: usize,
}

impl PackPlan {
    /// Plans to pack a matrix with the given distances from row to row and from column to column, in elements.
    #[must_use]
    pub fn new(dtype: Float, k: usize, n: usize, b: [isize; 2], features: &Features) -> Self {
        let instruction_set = features.instruction_set();
        let depth_blocks = strategy::depth_blocks(k);
        let width = 2 * strategy::lanes(dtype, instruction_set);
        Self { dtype, k, n, b, instruction_set, depth_blocks, width }
    }

    /// Bytes of the packed form; aligned to 64 bytes it is read fastest.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        [self.panels(), self.width, self.dtype.bytes()].into_iter().fold(self.k, usize::saturating_mul)
    }

    /// The number of independent parts.
    #[must_use]
    pub fn parts(&self) -> usize {
        // About 10 microseconds of copying each.
        (self.packed_bytes() >> 17).clamp(1, 32).min(self.panels())
    }

    fn panels(&self) -> usize {
        self.n.div_ceil(self.width)
    }
}

impl fmt::Display for PackPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { dtype, k, n, width, depth_blocks, .. } = self;
        write!(
            f,
            "{dtype} {k}x{n} into panels of {width}, k in {depth_blocks} x {}",
            k.div_ceil(*depth_blocks)
        )
    }
}
