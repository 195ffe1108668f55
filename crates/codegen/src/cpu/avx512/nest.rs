//! The order of the loops: a kernel with needless axes removed, and which of its loops runs over vectors.
//!
//! Axes of extent 1 go, neighbours that one loop can run over are merged. The innermost axis is cut into strips of 16
//! lanes. If it is reduced, or nothing is, its loop is the innermost; if it is kept while other axes are reduced, the
//! reduced loops move inside it, so that a strip's accumulators stay in registers. Neither changes the order in which
//! the elements of a fold are joined.

use hypatia_graph::array::Extents;
use smallvec::SmallVec;

use crate::kernel::{Affine, Instruction, LANES, LoopKernel, StoreKind};

/// One loop.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Loop {
    /// The axis of the kernel.
    pub(super) axis: usize,
    /// Iterations if all are run.
    pub(super) extent: usize,
    /// Whether the caller gives the range, in units of that many iterations.
    pub(super) given: Option<i64>,
}

/// The loops around a body, outermost first.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct Nest {
    pub(super) loops: SmallVec<[Loop; 4]>,
    /// The position of the loop over strips.
    pub(super) strip: usize,
    /// Folds begin before and end after the loop at this position.
    pub(super) folds: usize,
}

impl Nest {
    /// How many of the loops run where a value with that address (or position) can be computed earliest.
    pub(super) fn level(&self, position: &Affine) -> usize {
        let varies = |l: &Loop| position.strides.get(l.axis).is_some_and(|&stride| stride != 0);
        self.loops.iter().rposition(varies).map_or(0, |l| l + 1)
    }

    /// Whether folds run along the strips.
    pub(super) fn folds_lanes(&self) -> bool {
        self.folds <= self.strip
    }
}

/// What is left of a kernel to do.
pub(super) enum Normal {
    /// Nothing: there is no element to write.
    Empty,
    /// These loops around that body. The kernel's axes are not those of the original.
    Loops(Box<(LoopKernel, Nest)>),
}

/// Removes needless axes and orders the loops; `None` where the axes are in an order that kernels do not have.
pub(super) fn normalise(kernel: &LoopKernel) -> Option<Normal> {
    let mut kernel = kernel.clone();
    let rank = kernel.extents.len();
    let mut fits = kernel.reduced.len() == rank;
    for_each_affine(&mut kernel, |affine| fits &= affine.strides.len() == rank);
    if !fits || kernel.extents.iter().any(|&extent| extent >= 1 << 31) {
        return None;
    }
    if kernel.extents.iter().zip(&kernel.reduced).any(|(&extent, &reduced)| extent == 0 && !reduced) {
        return Some(Normal::Empty);
    }
    let mut given = (rank > 0 && !kernel.reduced[0]).then_some(1);
    if kernel.extents.contains(&0) {
        drop_body(&mut kernel);
    }
    let mut axis = kernel.extents.len();
    while axis > 0 {
        axis -= 1;
        if kernel.extents[axis] == 1 && !decides_lanes(&kernel, axis) {
            given = given.filter(|_| axis > 0);
            remove_axis(&mut kernel, axis);
        }
    }
    let mut axis = kernel.extents.len().saturating_sub(1);
    while axis > 0 {
        axis -= 1;
        if merges(&mut kernel, axis) {
            let inner = kernel.extents[axis + 1];
            if axis == 0 {
                given = given.map(|factor: i64| factor * inner as i64);
            }
            kernel.extents[axis + 1] = inner * kernel.extents[axis];
            remove_axis(&mut kernel, axis);
        }
    }
    if kernel.extents.is_empty() {
        kernel.extents.push(1);
        kernel.reduced.push(false);
        for_each_affine(&mut kernel, |affine| affine.strides.push(0));
    }
    let nest = order(&kernel, given)?;
    Some(Normal::Loops(Box::new((kernel, nest))))
}

/// Whether the elements of folds would join other partial results without this axis: the innermost axis decides whether
/// there are several, and which one an element joins.
fn decides_lanes(kernel: &LoopKernel, axis: usize) -> bool {
    let is_last = axis + 1 == kernel.extents.len();
    let (last, others) = (kernel.reduced[axis], &kernel.reduced[..axis]);
    is_last && others.contains(&true) && (last || others.last() == Some(&true))
}

fn order(kernel: &LoopKernel, given: Option<i64>) -> Option<Nest> {
    let rank = kernel.extents.len();
    let last = rank - 1;
    let first_reduced = kernel.reduced.iter().position(|reduced| *reduced).unwrap_or(rank);
    let axes: SmallVec<[usize; 4]> = if kernel.reduced[last] {
        (0..rank).collect()
    } else {
        let outer = |reduced: bool| (0..last).filter(move |&axis| kernel.reduced[axis] == reduced);
        outer(false).chain([last]).chain(outer(true)).collect()
    };
    if kernel.reduced[last] && kernel.reduced[first_reduced..].contains(&false) {
        return None;
    }
    let strip = axes.iter().position(|&axis| axis == last)?;
    let folds = if kernel.reduced[last] { first_reduced } else { strip + 1 };
    let loops = axes
        .iter()
        .map(|&axis| Loop {
            axis,
            extent: kernel.extents[axis],
            given: given.filter(|_| axis == 0 && !kernel.reduced[0]),
        })
        .collect();
    Some(Nest { loops, strip, folds })
}

fn for_each_affine(kernel: &mut LoopKernel, mut visit: impl FnMut(&mut Affine)) {
    for instruction in &mut kernel.body {
        match instruction {
            Instruction::Load(address) | Instruction::LoadAt { address, .. } => visit(&mut address.position),
            Instruction::Position(position) => visit(position),
            Instruction::Literal(_)
            | Instruction::Index { .. }
            | Instruction::Map(..)
            | Instruction::Cast(..) => {}
        }
    }
    for store in &mut kernel.stores {
        visit(&mut store.address.position);
    }
}

fn remove_axis(kernel: &mut LoopKernel, axis: usize) {
    kernel.extents.remove(axis);
    kernel.reduced.remove(axis);
    for_each_affine(kernel, |affine| {
        affine.strides.remove(axis);
    });
}

/// Whether one loop can run over this axis and the next.
fn merges(kernel: &mut LoopKernel, axis: usize) -> bool {
    let inner = kernel.extents[axis + 1];
    let is_last = axis + 2 == kernel.extents.len();
    let (outer_reduced, reduced) = (kernel.reduced[axis], kernel.reduced[axis + 1]);
    // A merged innermost axis must give each element the lane it had.
    if outer_reduced != reduced || (reduced && is_last && !inner.is_multiple_of(LANES)) {
        return false;
    }
    if inner.saturating_mul(kernel.extents[axis]) >= 1 << 31 {
        return false;
    }
    let mut fits = true;
    for_each_affine(kernel, |affine| {
        fits &= affine.strides[axis] == affine.strides[axis + 1].wrapping_mul(inner as i64);
    });
    fits
}

/// The kernel whose reductions are empty: each writes the value of nothing.
fn drop_body(kernel: &mut LoopKernel) {
    kernel.body.clear();
    kernel.types.clear();
    let dtypes: SmallVec<[_; 4]> = kernel.params.iter().map(|param| param.dtype).collect();
    kernel.stores.retain(|store| matches!(store.kind, StoreKind::Fold(_)));
    for store in &mut kernel.stores {
        if let StoreKind::Fold(fold) = store.kind {
            let dtype = dtypes[usize::from(store.address.param)];
            store.value = crate::kernel::Value(kernel.body.len() as u32);
            store.kind = StoreKind::Plain;
            kernel.body.push(Instruction::Literal(fold.identity(dtype)));
            kernel.types.push(dtype);
        }
    }
    let kept: SmallVec<[usize; 4]> =
        (0..kernel.extents.len()).filter(|&axis| !kernel.reduced[axis]).collect();
    let keep = |strides: &[i64]| kept.iter().map(|&axis| strides[axis]).collect::<SmallVec<[i64; 4]>>();
    for store in &mut kernel.stores {
        store.address.position.strides = keep(&store.address.position.strides);
    }
    kernel.extents = kept.iter().map(|&axis| kernel.extents[axis]).collect::<Extents>();
    kernel.reduced = kept.iter().map(|_| false).collect();
}
