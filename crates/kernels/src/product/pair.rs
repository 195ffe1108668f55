//! Two products over one matrix at one go: `back = D W'` and `W = beta W + X' D`, backpropagation through a layer and the
//! update of its weights.
//!
//! Each row of W is read once, used for its column of `back`, and written; each vector of D is loaded once for both
//! products. The bits are those of the two products one after the other.
//! Deliberately absent: products with different factors D, and more rows of D than registers hold the sums of; for these the
//! products one after the other are as fast.
#![allow(unsafe_code, reason = "plans run on raw memory")]

use super::kernels::{DotTile, PairTile};
use super::strategy::{Method, Outer};
use super::vector::Element;
use super::vector::sealed::Sealed;
use super::{Float, ProductError, ProductPlan, Region};
use crate::pool::Pool;
use std::fmt;

/// How both products are computed: row after row of W. Prints as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairPlan {
    reads: ProductPlan,
    adds: ProductPlan,
}

/// Where the matrices of a pair of products begin, and the factors of both.
#[derive(Clone, Copy, Debug)]
pub struct PairOperands {
    /// The left side of the first product and the right side of the second.
    pub d: *const u8,
    /// The left side of the second product.
    pub x: *const u8,
    /// The right side of the first product and the result of the second.
    pub w: *mut u8,
    /// The result of the first product.
    pub back: *mut u8,
    /// Alpha and beta of the first product, and of the second, whose old W is read also where its beta is 0.
    pub factors: [[f64; 2]; 2],
}

impl PairPlan {
    /// Joins `back = D W'` and `W = beta W + X' D`; both have the same D, and the first the transpose of what the second adds
    /// to. `None` where their shapes or plans do not allow that.
    #[must_use]
    pub fn new(reads: &ProductPlan, adds: &ProductPlan) -> Option<PairPlan> {
        let by_rows = matches!(
            (reads.method, adds.method),
            (
                Method::Dots { gather_a: false, gather_b: false, outer: Outer::Columns },
                Method::Panels { pack_a: false, outer: Outer::Rows, .. }
            )
        );
        let plain = |plan: &ProductPlan| !plan.oriented.swapped && plan.shape.batch.count == 1;
        let most_terms = match reads.shape.dtype {
            Float::F32 => f32::kernels(reads.instruction_set).pairs.len(),
            Float::F64 => f64::kernels(reads.instruction_set).pairs.len(),
        };
        let (back, update) = (&reads.oriented, &adds.oriented);
        let alike = (reads.shape.dtype, reads.instruction_set) == (adds.shape.dtype, adds.instruction_set)
            && (back.m, back.n, back.k) == (update.k, update.m, update.n)
            && back.a == update.b
            && back.b == [1, adds.shape.c_row];
        let few = back.m <= most_terms && adds.depth_blocks == 1;
        (by_rows && plain(reads) && plain(adds) && alike && few && adds.shape.accumulate)
            .then(|| PairPlan { reads: reads.clone(), adds: adds.clone() })
    }

    /// The number of independent parts; any number of threads may share them.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.reads.parts()
    }

    /// Computes both products.
    ///
    /// # Safety
    /// For each of both products what [`ProductPlan::run_part`] asks for all parts, but that W is read and written.
    pub unsafe fn run_raw(&self, operands: &PairOperands, pool: &Pool) {
        let shared = &Shared(*operands);
        pool.run(self.parts(), &|part, _| {
            let Shared(operands) = shared;
            // SAFETY: the caller's promises, with the element type of the shape; parts are disjoint rows of W and columns of
            // `back`.
            unsafe {
                match self.reads.shape.dtype {
                    Float::F32 => self.run_part::<f32>(part, operands),
                    Float::F64 => self.run_part::<f64>(part, operands),
                }
            }
        });
    }

    /// One part.
    unsafe fn run_part<E: Element>(&self, part: usize, operands: &PairOperands) {
        let kernels = E::kernels(self.reads.instruction_set);
        let PairOperands { d, x, w, back, factors } = *operands;
        let (d, x, w, back) = (d.cast::<E>(), x.cast::<E>(), w.cast::<E>(), back.cast::<E>());
        let [[alpha, beta], adds] = factors.map(|factors| factors.map(E::round_from));
        let beta = if self.reads.shape.accumulate { beta } else { E::ZERO };
        let Region { columns: rows, .. } = self.reads.region(part);
        let (depth, terms) = (self.reads.oriented.k, self.reads.oriented.m);
        let [a_row, _] = self.reads.oriented.a;
        let [x_row, x_term] = self.adds.oriented.a;
        let (w_row, c_row) = (self.adds.shape.c_row, self.reads.shape.c_row);
        let kernels = kernels.pairs[terms - 1];
        for row in rows.clone().step_by(kernels.len()) {
            let w = w.wrapping_offset(row as isize * w_row);
            let c = back.wrapping_add(row);
            let tile = PairTile {
                dots: DotTile {
                    depth,
                    a: d,
                    a_row,
                    b: w,
                    b_column: w_row,
                    c,
                    c_row,
                    c_column: 1,
                    ahead: 0,
                    alpha,
                    beta,
                },
                w,
                w_row,
                x: x.wrapping_offset(row as isize * x_row),
                x_term,
                x_row,
                alpha: adds[0],
                beta: adds[1],
            };
            // SAFETY: the rows of W and the columns of `back` are the part's, and all rows of D and X belong to them.
            unsafe { kernels[kernels.len().min(rows.end - row) - 1](&tile) }
        }
    }

    /// Computes both products on slices.
    ///
    /// # Errors
    /// As [`ProductPlan::run`] for each.
    pub fn run<E: Element>(
        &self,
        d: &[E],
        x: &[E],
        w: &mut [E],
        back: &mut [E],
        factors: [[f64; 2]; 2],
        pool: &Pool,
    ) -> Result<(), ProductError> {
        self.reads.check(d, w, back)?;
        self.adds.check(x, d, w)?;
        let operands = PairOperands {
            d: d.as_ptr().cast(),
            x: x.as_ptr().cast(),
            w: w.as_mut_ptr().cast(),
            back: back.as_mut_ptr().cast(),
            factors,
        };
        // SAFETY: the slices are as long as shapes and strides reach, and the two written are borrowed mutably, with distinct
        // elements.
        unsafe { self.run_raw(&operands, pool) };
        Ok(())
    }
}

/// What several threads use.
struct Shared(PairOperands);

// SAFETY: threads write disjoint parts of what the pointers lead to.
unsafe impl Sync for Shared {}

impl fmt::Display for PairPlan {
    /// One line: the first product, and what its matrix is used for besides.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ProductPlan { shape, instruction_set, .. } = &self.reads;
        let (m, k, n) = (shape.m, shape.k, shape.n);
        write!(
            f,
            "{} {m}x{k}x{n} and {n}x{m}x{k}: by rows of the matrix that both use, {} parts, {instruction_set}",
            shape.dtype,
            self.parts()
        )
    }
}
