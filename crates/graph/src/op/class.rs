//! What kind each operator is: the questions that passes ask of all operators, answered once for each.
//!
//! A new operator says here how its elements come from those of its operands, and most passes need no other word about
//! it. Nothing here looks at types or values: what depends on them is decided where they are known.

use smallvec::SmallVec;

use super::{ConvAxis, Dim, Dims, Fold, Grad, LeafId, Op, Scan, SliceAxis, Start, WindowAxis, Write};
use crate::dtype::{DType, Literal};
use crate::scalar::ScalarFn;
use crate::shape::Axes;

/// How the elements of a value come from those of the operands.
#[derive(Copy, Clone, Debug)]
pub enum Class<'o> {
    /// They are given.
    Leaf(LeafId),
    /// They are that one.
    Literal(Literal),
    /// They are positions or extents, which depend on shapes alone.
    Index,
    /// Each by that function from those at its own position.
    Map(ScalarFn),
    /// Each by conversion from that at its own position.
    Cast(DType),
    /// Each is one of the operand's, read at another position.
    View(View<'o>),
    /// Each is one of several operands' or a sum of two: parts put side by side, or written over a part.
    Assembly,
    /// As in a view or an assembly, of rows that an operand names along that axis.
    Indexed(usize),
    /// Each joins several along axes.
    Fold(Along),
    /// Each is a sum of products of two operands.
    Product,
    /// Each is a sum of products of elements of two operands that lie side by side along axes.
    Convolution(&'o [ConvAxis]),
    /// Each is a random number of that key.
    Random(u64),
    /// A scan computes them.
    Scan(&'o Scan),
    /// A gradient not yet taken.
    Gradient(&'o Grad),
}

/// Where a view reads its elements.
#[derive(Copy, Clone, Debug)]
pub enum View<'o> {
    /// At the same positions.
    Same,
    /// Axis `i` of the operand along that axis of the view; all others repeat.
    Broadcast(&'o [u8]),
    /// In the same row-major order.
    Reshape,
    /// Axis `i` of the view along that axis of the operand.
    Permute(&'o [u8]),
    /// In a part whose bounds are not yet resolved.
    Slice,
    /// In a part.
    Window(&'o [WindowAxis]),
}

/// What elements are joined to along axes.
#[derive(Copy, Clone, Debug)]
pub enum Along {
    /// One by a fold; the axes go away.
    Reduce(Fold, Axes),
    /// One, their mean; the axes go away.
    Mean(Axes),
    /// The position of the largest; the axis goes away.
    ArgMax(usize),
    /// The sum of those up to each; the axis stays.
    Cumsum(usize),
}

/// The work of functions that are cheaper to compute again than to keep: a division, but no series.
const CHEAP: u32 = 8;

impl Op {
    /// How the elements of the value come from those of the operands.
    pub fn class(&self) -> Class<'_> {
        match self {
            Op::Leaf(leaf) => Class::Leaf(*leaf),
            Op::Literal(value) => Class::Literal(*value),
            Op::Iota(_) | Op::Extent(_) => Class::Index,
            Op::Map(f) => Class::Map(*f),
            Op::Cast(dtype) => Class::Cast(*dtype),
            Op::StopGradient => Class::View(View::Same),
            Op::Broadcast { axes, .. } => Class::View(View::Broadcast(axes)),
            Op::Reshape(_) => Class::View(View::Reshape),
            Op::Permute(permutation) => Class::View(View::Permute(permutation)),
            Op::Slice(_) => Class::View(View::Slice),
            Op::Window(axes) => Class::View(View::Window(axes)),
            Op::SetSlice(..) | Op::SetWindow(..) | Op::Concat(_) => Class::Assembly,
            Op::Gather { batch } | Op::Scatter { batch, .. } => Class::Indexed(usize::from(*batch)),
            Op::Reduce(fold, axes) => Class::Fold(Along::Reduce(*fold, *axes)),
            Op::Mean(axes) => Class::Fold(Along::Mean(*axes)),
            Op::ArgMax(axis) => Class::Fold(Along::ArgMax(usize::from(*axis))),
            Op::Cumsum(axis) => Class::Fold(Along::Cumsum(usize::from(*axis))),
            Op::Dot => Class::Product,
            Op::Conv(axes) => Class::Convolution(axes),
            Op::Random { key, .. } => Class::Random(*key),
            Op::Scan(scan) => Class::Scan(scan),
            Op::Grad(grad) => Class::Gradient(grad),
        }
    }

    /// The constant, if it is one.
    pub fn literal(&self) -> Option<Literal> {
        if let Op::Literal(value) = self { Some(*value) } else { None }
    }

    /// How the operand is read, if each element of the value is one of it.
    pub fn view(&self) -> Option<View<'_>> {
        if let Class::View(view) = self.class() { Some(view) } else { None }
    }

    /// Whether computing a value again costs more than keeping and reading it.
    pub fn is_dear(&self) -> bool {
        match self.class() {
            Class::Map(f) => f.work() > CHEAP,
            Class::Indexed(_)
            | Class::Fold(_)
            | Class::Product
            | Class::Convolution(_)
            | Class::Random(_)
            | Class::Scan(_) => true,
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::Cast(_)
            | Class::View(_)
            | Class::Assembly
            | Class::Gradient(_) => false,
        }
    }

    /// How many of that many operands are values; those behind are the scalars that give extents, bounds and starts.
    pub fn values(&self, operands: usize) -> usize {
        let values = match self.class() {
            Class::Index if matches!(self, Op::Iota(_)) => 0,
            Class::View(_) | Class::Random(_) => 1,
            Class::Assembly if self.write().is_some() => 2,
            Class::Scan(scan) => scan.body.inputs() + scan.body.carries(),
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::Map(_)
            | Class::Cast(_)
            | Class::Assembly
            | Class::Indexed(_)
            | Class::Fold(_)
            | Class::Product
            | Class::Convolution(_)
            | Class::Gradient(_) => operands,
        };
        values.min(operands)
    }

    /// Whether elements of that operand are among those of the value, or go into them; not if it only says where they
    /// are, or which are chosen.
    pub fn carries(&self, operand: usize) -> bool {
        match self.class() {
            Class::Leaf(_) | Class::Literal(_) | Class::Index | Class::Random(_) => false,
            Class::Map(f) => f != ScalarFn::Select || operand > 0,
            Class::Indexed(_) => operand != 1,
            Class::Fold(along) => !matches!(along, Along::ArgMax(_)),
            Class::Cast(_)
            | Class::View(_)
            | Class::Assembly
            | Class::Product
            | Class::Convolution(_)
            | Class::Scan(_)
            | Class::Gradient(_) => operand < self.values(operand + 1),
        }
    }

    /// Whether a change of an operand can reach the value at all. Steps (`floor`) connect with a gradient of zero;
    /// integers and truth values do not.
    pub fn connects(&self, operand: usize) -> bool {
        let floats = match self.class() {
            Class::Map(f) => {
                let floats = [DType::F32; 3];
                f == ScalarFn::Select || f.result_dtype(&floats[..f.arity()]).is_some_and(DType::is_float)
            }
            Class::Cast(dtype) => dtype.is_float(),
            Class::View(View::Same) => false,
            Class::Fold(along) => !matches!(along, Along::Reduce(Fold::All | Fold::Any, _)),
            Class::Scan(scan) => scan.connects(operand),
            Class::Gradient(grad) => grad.connects(operand),
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::View(_)
            | Class::Assembly
            | Class::Indexed(_)
            | Class::Product
            | Class::Convolution(_)
            | Class::Random(_) => true,
        };
        floats && self.carries(operand)
    }

    /// Whether the value moves by jumps only when float operands change, so that its derivative is 0 wherever there is
    /// one.
    pub fn is_flat(&self) -> bool {
        match self.class() {
            Class::Map(f) => {
                let floats = [DType::F32; 3];
                let jumps = f.result_dtype(&floats[..f.arity()]).is_none_or(|dtype| !dtype.is_float());
                f.properties().is_flat || f != ScalarFn::Select && jumps
            }
            Class::Cast(dtype) => !dtype.is_float(),
            Class::Fold(along) => matches!(along, Along::ArgMax(_)),
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::View(_)
            | Class::Assembly
            | Class::Indexed(_)
            | Class::Product
            | Class::Random(_)
            | Class::Convolution(_)
            | Class::Scan(_)
            | Class::Gradient(_) => false,
        }
    }

    /// Whether a part is replaced or added to, if one is written.
    pub fn write(&self) -> Option<Write> {
        let (Op::SetSlice(_, write) | Op::SetWindow(_, write) | Op::Scatter { write, .. }) = self else {
            return None;
        };
        Some(*write)
    }

    /// The extents that are attributes.
    pub fn dims(&self) -> Option<&Dims> {
        let (Op::Iota(dims) | Op::Reshape(dims) | Op::Broadcast { dims, .. } | Op::Random { dims, .. }) =
            self
        else {
            return None;
        };
        Some(dims)
    }

    /// The operator with other extents.
    pub fn with_dims(&self, new: Dims) -> Op {
        let mut op = self.clone();
        if let Op::Iota(dims) | Op::Reshape(dims) | Op::Broadcast { dims, .. } | Op::Random { dims, .. } =
            &mut op
        {
            *dims = new;
        }
        op
    }

    /// The part that is read or written, before specialisation.
    pub fn slice(&self) -> Option<&[SliceAxis]> {
        if let Op::Slice(axes) | Op::SetSlice(axes, _) = self { Some(axes) } else { None }
    }

    /// The part that is read or written.
    pub fn window(&self) -> Option<&[WindowAxis]> {
        if let Op::Window(axes) | Op::SetWindow(axes, _) = self { Some(axes) } else { None }
    }

    /// The operator with another part.
    pub fn with_window(&self, axes: Box<[WindowAxis]>) -> Op {
        match self.write() {
            Some(write) => Op::SetWindow(axes, write),
            None => Op::Window(axes),
        }
    }

    /// Whether operands say where a window starts.
    pub fn starts_vary(&self) -> bool {
        self.window().is_some_and(|axes| axes.iter().any(|axis| !matches!(axis.start, Start::Known(_))))
    }

    /// The operators whose only attribute is an axis.
    pub(crate) const ALONG_AN_AXIS: [fn(u8) -> Op; 4] = [Op::Extent, Op::ArgMax, Op::Cumsum, Op::Concat];

    /// The axis, if that is the only attribute.
    pub fn axis(&self) -> Option<u8> {
        if let Op::Extent(axis) | Op::ArgMax(axis) | Op::Cumsum(axis) | Op::Concat(axis) = self {
            Some(*axis)
        } else {
            None
        }
    }

    /// Whether specialisation replaces the operator.
    pub fn is_symbolic(&self) -> bool {
        let unknown = |dims: &[Dim]| dims.contains(&Dim::Operand);
        matches!(self, Op::Extent(_))
            || self.slice().is_some()
            || self.dims().is_some_and(|dims| unknown(dims))
            || matches!(self, Op::Scan(scan) if unknown(&[scan.steps]))
    }

    /// The operator that does for every index of a new leading axis of extent `n`, which all operands have as well, what
    /// this one does once; `None` where there is none.
    pub fn batched(&self, n: usize) -> Option<Op> {
        let higher = |axes: &[u8]| -> SmallVec<[u8; 8]> {
            std::iter::once(0).chain(axes.iter().map(|axis| axis + 1)).collect()
        };
        let dims =
            self.dims().map(|dims| std::iter::once(Dim::Known(n)).chain(dims.iter().copied()).collect());
        if self.starts_vary() || self.is_symbolic() {
            return None;
        }
        Some(match self {
            Op::Map(_) | Op::Cast(_) | Op::StopGradient | Op::Dot | Op::Conv(_) => self.clone(),
            Op::Reshape(_) => self.with_dims(dims?),
            Op::Broadcast { axes, .. } => Op::Broadcast { axes: higher(axes), dims: dims? },
            Op::Permute(axes) => Op::Permute(higher(axes)),
            Op::Window(axes) | Op::SetWindow(axes, _) => {
                self.with_window(std::iter::once(WindowAxis::whole(n)).chain(axes.iter().copied()).collect())
            }
            Op::Reduce(fold, axes) => Op::Reduce(*fold, axes.iter().map(|axis| axis + 1).collect::<Axes>()),
            Op::Mean(axes) => Op::Mean(axes.iter().map(|axis| axis + 1).collect::<Axes>()),
            Op::ArgMax(axis) => Op::ArgMax(axis + 1),
            Op::Cumsum(axis) => Op::Cumsum(axis + 1),
            Op::Concat(axis) => Op::Concat(axis + 1),
            Op::Gather { batch } => Op::Gather { batch: batch + 1 },
            Op::Leaf(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Extent(_)
            | Op::Slice(_)
            | Op::SetSlice(..)
            | Op::Scatter { .. }
            | Op::Random { .. }
            | Op::Scan(_)
            | Op::Grad(_) => return None,
        })
    }

    /// The operator that does once what this one does for every index of the leading axis, which the operands of those
    /// extents and the result have in common; `None` where the indices are not kept apart.
    pub fn unbatched(&self, operand: &[usize], result: &[usize]) -> Option<Op> {
        let lower = |axes: &[u8]| -> Option<SmallVec<[u8; 8]>> {
            let kept = axes.first() == Some(&0) && operand.first() == result.first();
            kept.then(|| axes[1..].iter().map(|axis| axis - 1).collect())
        };
        Some(match self {
            Op::Map(_) | Op::Cast(_) | Op::StopGradient => self.clone(),
            Op::Broadcast { axes, dims } => Op::Broadcast { axes: lower(axes)?, dims: dims[1..].into() },
            Op::Permute(axes) => Op::Permute(lower(axes)?),
            Op::Reduce(fold, axes) if !axes.contains(0) => {
                Op::Reduce(*fold, axes.iter().map(|axis| axis - 1).collect::<Axes>())
            }
            Op::Mean(axes) if !axes.contains(0) => {
                Op::Mean(axes.iter().map(|axis| axis - 1).collect::<Axes>())
            }
            Op::ArgMax(axis) => Op::ArgMax(axis.checked_sub(1)?),
            Op::Cumsum(axis) => Op::Cumsum(axis.checked_sub(1)?),
            Op::Concat(axis) => Op::Concat(axis.checked_sub(1)?),
            Op::Gather { batch } => Op::Gather { batch: batch.checked_sub(1)? },
            Op::Leaf(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Extent(_)
            | Op::Reduce(..)
            | Op::Mean(_)
            | Op::Dot
            | Op::Conv(_)
            | Op::Reshape(_)
            | Op::Slice(_)
            | Op::SetSlice(..)
            | Op::Window(_)
            | Op::SetWindow(..)
            | Op::Scatter { .. }
            | Op::Random { .. }
            | Op::Scan(_)
            | Op::Grad(_) => return None,
        })
    }
}
