//! Which elements of which buffers a kernel checks as indices, so that a check is known to hold where it was made before.
//!
//! A gradient is scattered to the rows that the cost has read by the same indices. The scatter checks them once more, but
//! cannot fail, and so may write a shared variable in its own memory.

use smallvec::SmallVec;

use super::{Affine, Instruction, Kernel, LoopKernel, RuntimeStart, Value};

/// Elements that are checked to be indices of an axis. `M` names buffers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct CheckedIndices<M> {
    buffer: M,
    /// Extent of the axis.
    extent: usize,
    /// The first element.
    offset: i64,
    /// The others: strides and how many, the smallest stride first, neighbours joined.
    counters: SmallVec<[(i64, usize); 4]>,
    /// Run-time starts with factors: the buffers that hold them, and what they are counted from.
    starts: SmallVec<[(M, usize, i64); 1]>,
}

/// What a kernel checks as indices, with `buffer` for the buffers of its parameters; `None` where that cannot be told.
pub(crate) fn checked_indices<M>(
    kernel: &Kernel,
    buffer: impl Fn(u16) -> M,
) -> Option<Vec<CheckedIndices<M>>> {
    let Kernel::Loop(kernel) = kernel else {
        return (!kernel.checks_indices()).then(Vec::new);
    };
    let mut all = Vec::new();
    for instruction in &kernel.body {
        if let Instruction::Index { index, extent, .. } = instruction {
            all.push(elements(kernel, *index, *extent, &buffer)?);
        }
    }
    Some(all)
}

/// The elements of an index that is read from a buffer, converted perhaps; `None` of a computed one.
fn elements<M>(
    kernel: &LoopKernel,
    index: Value,
    extent: usize,
    buffer: &impl Fn(u16) -> M,
) -> Option<CheckedIndices<M>> {
    let address = match kernel.body.get(index.index())? {
        Instruction::Load(address) => address,
        Instruction::Cast(_, from) => return elements(kernel, *from, extent, buffer),
        Instruction::Literal(_)
        | Instruction::LoadAt { .. }
        | Instruction::Position(_)
        | Instruction::Index { .. }
        | Instruction::Map(..) => return None,
    };
    let Affine { offset, strides, starts } = &address.position;
    let mut steps: SmallVec<[(i64, usize); 4]> =
        strides.iter().copied().zip(kernel.extents.iter().copied()).collect();
    if steps.iter().any(|(_, count)| *count == 0) {
        return None;
    }
    steps.retain(|(stride, count)| *stride != 0 && *count > 1);
    steps.sort_unstable();
    let mut counters: SmallVec<[(i64, usize); 4]> = SmallVec::new();
    for (stride, count) in steps {
        match counters.last_mut() {
            Some((below, joined)) if i64::try_from(*joined).ok()?.checked_mul(*below)? == stride => {
                *joined *= count
            }
            _ => counters.push((stride, count)),
        }
    }
    let start = |(number, factor): &(u16, i64)| {
        let RuntimeStart { param, extent, .. } = kernel.starts.get(usize::from(*number))?;
        Some((buffer(*param), *extent, *factor))
    };
    let starts: Option<SmallVec<[_; 1]>> = starts.iter().map(start).collect();
    Some(CheckedIndices { buffer: buffer(address.param), extent, offset: *offset, counters, starts: starts? })
}
