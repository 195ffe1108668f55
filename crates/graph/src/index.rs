//! Parts of tensors: slices, rows by index, one element a row, and writing to them.
//!
//! ```
//! use hypatia_graph::{index::step, ix, tensor::matrix};
//! let x = matrix::<f32>("x");
//! let reversed = x.index(ix![step(.., -1), 0..10]);
//! let last_row = x.index(ix![-1]);
//! assert_eq!((reversed.rank(), last_row.rank()), (2, 1));
//! ```

use std::ops::{Range, RangeFrom, RangeFull, RangeTo};
use std::panic::Location;

use smallvec::{SmallVec, smallvec};

use crate::compose::{Size, mistake};
use crate::diagnostic::{Diagnostic, Site};
use crate::dtype::DType;
use crate::op::{Bound, Dim, Op, SliceAxis, Write};
use crate::shape::{Axes, Extent};
use crate::tensor::{Tensor, build, build_plainly, faulty};

/// What is taken of one axis.
#[derive(Clone, Debug)]
pub enum Index {
    /// One position; the axis goes away. Negative ones count from the end.
    At(Size),
    /// NumPy's `start:stop:step`.
    Range {
        /// First position; `None` from the beginning (from the end for a negative step).
        start: Option<Size>,
        /// Position before which to stop; `None` to the end.
        stop: Option<Size>,
        /// Distance from one element to the next.
        step: i64,
    },
}

/// A range of positions, as [`step`] takes it.
pub trait Span: Into<Index> {}

impl Span for RangeFull {}

/// The range with another step: `step(.., -1)` reverses.
pub fn step(range: impl Span, by: i64) -> Index {
    match range.into() {
        Index::Range { start, stop, .. } => Index::Range { start, stop, step: by },
        at @ Index::At(_) => at,
    }
}

macro_rules! index_from {
    ($($ty:ty),*) => {$(
        impl From<$ty> for Index {
            fn from(at: $ty) -> Index { Index::At(at.into()) }
        }
        impl From<Range<$ty>> for Index {
            fn from(r: Range<$ty>) -> Index {
                Index::Range { start: Some(r.start.into()), stop: Some(r.end.into()), step: 1 }
            }
        }
        impl From<RangeFrom<$ty>> for Index {
            fn from(r: RangeFrom<$ty>) -> Index { Index::Range { start: Some(r.start.into()), stop: None, step: 1 } }
        }
        impl From<RangeTo<$ty>> for Index {
            fn from(r: RangeTo<$ty>) -> Index { Index::Range { start: None, stop: Some(r.end.into()), step: 1 } }
        }
        impl Span for Range<$ty> {}
        impl Span for RangeFrom<$ty> {}
        impl Span for RangeTo<$ty> {}
    )*};
}
index_from!(i32, i64, usize, Tensor, &Tensor);

impl From<RangeFull> for Index {
    fn from(_: RangeFull) -> Index {
        Index::Range { start: None, stop: None, step: 1 }
    }
}

/// A list of [`Index`]es, one for each of the first axes: `ix![0, 2.., step(.., -1)]` (see [`step`](crate::index::step)).
#[macro_export]
macro_rules! ix {
    ($($index:expr),* $(,)?) => {
        [$($crate::index::Index::from($index)),*]
    };
}

/// Bounds, the operands that give them, and the axes of which one position is taken.
struct Part {
    axes: Box<[SliceAxis]>,
    operands: SmallVec<[Tensor; 2]>,
    single: Axes,
}

impl Tensor {
    fn part(&self, indices: &[Index]) -> Result<Part, Diagnostic> {
        if indices.len() > self.rank() {
            return Err(Diagnostic::new(format!(
                "{} indices into a tensor of rank {}",
                indices.len(),
                self.rank()
            ))
            .with("operand", self.ty().to_string(), None));
        }
        let mut part = Part { axes: Box::new([]), operands: smallvec![], single: Axes::NONE };
        let mut axes = Vec::new();
        for axis in 0..self.rank() {
            axes.push(match indices.get(axis) {
                None => SliceAxis::WHOLE,
                Some(Index::Range { step: 0, .. }) => {
                    return Err(Diagnostic::new("a slice with a step of 0"));
                }
                Some(Index::Range { start, stop, step }) => SliceAxis::Range {
                    start: part.bound(start.as_ref())?,
                    stop: part.bound(stop.as_ref())?,
                    step: *step,
                },
                Some(Index::At(at)) => {
                    part.single = part.single.iter().chain([axis]).collect();
                    SliceAxis::At(part.bound(Some(at))?)
                }
            });
        }
        part.axes = axes.into();
        Ok(part)
    }

    /// A part of the tensor: see [`ix!`](crate::ix). Axes without an index are taken whole.
    #[track_caller]
    pub fn index(&self, indices: impl AsRef<[Index]>) -> Tensor {
        self.index_at(indices.as_ref(), Location::caller())
    }

    /// As [`Tensor::index`], built by that line.
    pub(crate) fn index_at(&self, indices: &[Index], site: Site) -> Tensor {
        if let Some(part) = self.part_of_made(indices, site) {
            return part;
        }
        let part = match self.part(indices) {
            Ok(part) => part,
            Err(fault) => return faulty(fault, smallvec![self.clone()], self.ty().clone(), site),
        };
        let mut operands: SmallVec<[Tensor; 2]> = smallvec![self.clone()];
        operands.extend(part.operands);
        let sliced = build(Op::Slice(part.axes), operands, site);
        if part.single.is_empty() {
            return sliced;
        }
        let mut operands: SmallVec<[Tensor; 2]> = smallvec![sliced.clone()];
        let dims = part.single.others(self.rank()).map(|axis| match sliced.ty().shape[axis] {
            Extent::Known(n) => Dim::Known(n),
            Extent::Unknown => {
                operands.push(build(Op::Extent(axis as u8), smallvec![sliced.clone()], site));
                Dim::Operand
            }
        });
        let dims = dims.collect();
        build_plainly(Op::Reshape(dims), operands, sliced.made_without(part.single), site)
    }

    #[track_caller]
    fn write(&self, indices: &[Index], value: Tensor, write: Write, site: Site) -> Tensor {
        let part = match self.part(indices) {
            Ok(part) => part,
            Err(fault) => return faulty(fault, smallvec![self.clone()], self.ty().clone(), site),
        };
        let target = self.index(indices);
        let what = if write == Write::Set { "set_index" } else { "inc_index" };
        if let Some(fault) = value.number_fault(self.dtype(), what) {
            return faulty(fault, smallvec![self.clone()], self.ty().clone(), site);
        }
        let value = value.cast(self.dtype());
        let value = if value.rank() <= target.rank() { value.broadcast_like(&target) } else { value };
        // Axes at which one position is written have an extent of 1 in the part.
        let pattern: Vec<Option<usize>> = (0..self.rank())
            .scan(0, |next, axis| {
                Some(if part.single.contains(axis) {
                    None
                } else {
                    *next += 1;
                    Some(*next - 1)
                })
            })
            .collect();
        let value = if part.single.is_empty() { value } else { value.dimshuffle(&pattern) };
        let mut operands: SmallVec<[Tensor; 2]> = smallvec![self.clone(), value];
        operands.extend(part.operands);
        build(Op::SetSlice(part.axes, write), operands, site)
    }

    /// The tensor with a part replaced by `value`, which is broadcast to it (Theano's `set_subtensor`).
    #[track_caller]
    pub fn set_index(&self, indices: impl AsRef<[Index]>, value: impl Into<Tensor>) -> Tensor {
        self.write(indices.as_ref(), value.into(), Write::Set, Location::caller())
    }

    /// The tensor with `value` added to a part (Theano's `inc_subtensor`).
    #[track_caller]
    pub fn inc_index(&self, indices: impl AsRef<[Index]>, value: impl Into<Tensor>) -> Tensor {
        self.write(indices.as_ref(), value.into(), Write::Add, Location::caller())
    }

    /// Rows by index: element `[i.., r..]` of the result is `self[indices[i..], r..]`. Indices of any rank; negative
    /// ones count from the end.
    #[track_caller]
    pub fn take(&self, indices: impl Into<Tensor>) -> Tensor {
        let site = Location::caller();
        let indices = indices.into();
        if indices.rank() == 1 {
            return build(Op::Gather { batch: 0 }, smallvec![self.clone(), indices], site);
        }
        let flat = indices.reshape([-1]);
        let rows = build(Op::Gather { batch: 0 }, smallvec![self.clone(), flat], site);
        let sizes: Vec<Size> = (0..indices.rank())
            .map(|axis| Size::Tensor(indices.extent(axis)))
            .chain((1..self.rank()).map(|axis| Size::Tensor(self.extent(axis))))
            .collect();
        rows.reshape(sizes)
    }

    /// One element of each row: `self[i, columns[i]]`, Theano's `x[arange(n), y]`. Labels out of range are an error at
    /// the call.
    #[track_caller]
    pub fn pick(&self, columns: impl Into<Tensor>) -> Tensor {
        let site = Location::caller();
        let columns = columns.into();
        if self.rank() != 2 || columns.rank() != 1 {
            let fault = Diagnostic::new("`pick` takes a matrix and a vector of columns")
                .with("operand", self.ty().to_string(), None)
                .with("columns", columns.ty().to_string(), None);
            return faulty(fault, smallvec![self.clone(), columns], self.ty().clone(), site);
        }
        let indices = columns.dimshuffle(&[Some(0), None]);
        build(Op::Gather { batch: 1 }, smallvec![self.clone(), indices], site).dimshuffle(&[Some(0)])
    }

    /// The tensor with rows replaced: row `indices[i]` becomes `rows[i]`; of equal indices the last wins.
    #[track_caller]
    pub fn set_rows(&self, indices: impl Into<Tensor>, rows: impl Into<Tensor>) -> Tensor {
        let operands = smallvec![self.clone(), indices.into(), rows.into()];
        build(Op::Scatter { batch: 0, write: Write::Set }, operands, Location::caller())
    }

    /// The tensor with `rows[i]` added to row `indices[i]`; equal indices add up.
    #[track_caller]
    pub fn inc_rows(&self, indices: impl Into<Tensor>, rows: impl Into<Tensor>) -> Tensor {
        let operands = smallvec![self.clone(), indices.into(), rows.into()];
        build(Op::Scatter { batch: 0, write: Write::Add }, operands, Location::caller())
    }

    /// Consecutive parts of the given lengths along an axis. The lengths add up to the extent of the axis; anything else
    /// is an error.
    #[track_caller]
    pub fn split(&self, lengths: &[usize], axis: usize) -> Vec<Tensor> {
        let site = Location::caller();
        let total = lengths.iter().try_fold(0usize, |total, length| total.checked_add(*length));
        let fault = match (total, self.ty().shape.get(axis)) {
            (_, None) => {
                Some(format!("`split`: axis {axis} does not exist in a tensor of rank {}", self.rank()))
            }
            (None, _) => Some(format!("`split` into lengths that no axis has: {lengths:?}")),
            (Some(total), Some(Extent::Known(extent))) if total != *extent => Some(format!(
                "`split` into lengths that add up to {total}, of axis {axis} of extent {extent}"
            )),
            (Some(_), Some(_)) => None,
        };
        let mut stop = 0;
        let part = |length: &usize| match &fault {
            Some(message) => mistake(self, message.clone(), site),
            None => {
                let start = stop;
                stop += length;
                self.part_of(axis, start..stop, total.unwrap_or(stop), site)
            }
        };
        lengths.iter().map(part).collect()
    }

    /// Positions of an axis that has the extent `of`; another extent is an error.
    pub(crate) fn part_of(&self, axis: usize, range: Range<usize>, of: usize, site: Site) -> Tensor {
        let mut axes = vec![SliceAxis::WHOLE; self.rank()];
        if let Some(part) = axes.get_mut(axis) {
            *part = SliceAxis::Part { start: range.start, stop: range.end, of };
        }
        build(Op::Slice(axes.into()), smallvec![self.clone()], site)
    }
}

impl Part {
    fn bound(&mut self, bound: Option<&Size>) -> Result<Bound, Diagnostic> {
        match bound {
            None => Ok(Bound::End),
            Some(Size::Number(n)) => Ok(Bound::Known(*n)),
            Some(Size::Tensor(t)) if t.rank() != 0 || !t.dtype().is_int() => {
                let fault = Diagnostic::new("positions and bounds of slices are integer scalars").with(
                    "found",
                    t.ty().to_string(),
                    Some(t.site()),
                );
                let is_vector = t.rank() > 0 && t.dtype().is_int();
                let hint = "rows by a vector of indices are `take`, one element of each row is `pick`";
                Err(if is_vector { fault.hint(hint) } else { fault })
            }
            Some(Size::Tensor(t)) => {
                if let Op::Literal(value) = t.0.op
                    && let Some(value) = value.to_i64()
                {
                    return Ok(Bound::Known(value));
                }
                self.operands.push(t.cast(DType::I64));
                Ok(Bound::Operand)
            }
        }
    }
}
