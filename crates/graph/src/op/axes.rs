//! Which axes each operator keeps apart: the same operator for every index of a further leading axis, and back.

use smallvec::SmallVec;

use super::{Dim, Op, WindowAxis};
use crate::shape::Axes;

impl Op {
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
            Op::Map(_) | Op::Cast(_) | Op::StopGradient | Op::Dot => self.clone(),
            Op::Reshape(_) => self.with_dims(dims?),
            Op::Broadcast { axes, .. } => Op::Broadcast { axes: higher(axes), dims: dims? },
            Op::Permute(axes) => Op::Permute(higher(axes)),
            Op::Window(axes) | Op::SetWindow(axes, _) => {
                self.with_window(std::iter::once(WindowAxis::whole(n)).chain(axes.iter().copied()).collect())
            }
            Op::Reduce(fold, axes) => Op::Reduce(*fold, axes.iter().map(|axis| axis + 1).collect::<Axes>()),
            Op::ArgMax(axis) => Op::ArgMax(axis + 1),
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
            Op::ArgMax(axis) => Op::ArgMax(axis.checked_sub(1)?),
            Op::Concat(axis) => Op::Concat(axis.checked_sub(1)?),
            Op::Gather { batch } => Op::Gather { batch: batch.checked_sub(1)? },
            Op::Leaf(_)
            | Op::Literal(_)
            | Op::Iota(_)
            | Op::Extent(_)
            | Op::Reduce(..)
            | Op::Dot
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
