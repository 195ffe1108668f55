//! The invariants of memory: what a kernel writes is its own to write, elements have the types that code takes them for, and
//! threads that run parts of a step never touch one element.

use std::collections::HashMap;

use hypatia_graph::{Broken, DType};

use super::invalid;
use crate::kernel::region::{Region, reads_only_what_it_writes};
use crate::kernel::{
    Address, Buffer, ConvolutionKernel, Instruction, Kernel, LoopKernel, Place, ProductKernel, Program,
    ScanKernel, Step, StoreKind, Value,
};

/// Whether buffers at one place are one and the same, and those of constants and results what the program says of them.
pub(super) fn verify_buffers(program: &Program) -> Result<(), Broken> {
    let mut known: HashMap<(u8, usize), (DType, usize)> = HashMap::new();
    for (number, buffer) in program.buffers.iter().enumerate() {
        let own = (buffer.dtype, buffer.len());
        let (kind, index, declared) = match buffer.place {
            Place::Arena(_) => continue,
            Place::Input(index) => (0, index, Some(own)),
            Place::Shared(index) => (1, index, program.shared.get(index).map(|_| own)),
            Place::Constant(index) => {
                (2, index, program.constants.get(index).map(|array| (array.dtype(), array.len())))
            }
            Place::Output(index) => {
                let declared = program.outputs.get(index);
                (3, index, declared.map(|(dtype, shape)| (*dtype, shape.iter().product())))
            }
        };
        if declared != Some(own) || *known.entry((kind, index)).or_insert(own) != own {
            return Err(invalid(format!("b{number} is not what lies in its place, {:?}", buffer.place)));
        }
    }
    Ok(())
}

/// Whether the body of a scan kernel is well-typed.
pub(super) fn verify_types(kernel: &LoopKernel) -> Result<(), Broken> {
    let ty = |value: &Value| kernel.types.get(value.index()).copied();
    let param = |address: &Address| kernel.params.get(usize::from(address.param)).map(|param| param.dtype);
    for (index, instruction) in kernel.body.iter().enumerate() {
        let given = match instruction {
            Instruction::Literal(value) => Some(value.dtype()),
            Instruction::Load(address) => param(address),
            Instruction::LoadAt { address, index, .. } => {
                param(address).filter(|_| ty(index) == Some(DType::I64))
            }
            Instruction::Position(_) => Some(DType::I64),
            Instruction::Index { index, .. } => ty(index).filter(|dtype| dtype.is_int()).map(|_| DType::I64),
            Instruction::Map(f, operands) => {
                let operands: Option<Vec<DType>> = operands.iter().map(ty).collect();
                operands.and_then(|operands| f.result_dtype(&operands))
            }
            Instruction::Cast(to, _) => Some(*to),
        };
        if given.is_none() || given != kernel.types.get(index).copied() {
            return Err(invalid(format!("v{index} has another type than its operands give")));
        }
    }
    for store in &kernel.stores {
        let value = ty(&store.value);
        let stored = match store.kind {
            StoreKind::Plain | StoreKind::At { .. } => value,
            StoreKind::Fold(fold) => value.filter(|dtype| fold.takes(*dtype)),
            StoreKind::ArgMax => value.map(|_| DType::I64),
        };
        if stored.is_none() || stored != param(&store.address) {
            return Err(invalid(format!("{} is not of the type of p{}", store.value, store.address.param)));
        }
        if matches!(store.kind, StoreKind::At { index, .. } if kernel.index_extent(index).is_none()) {
            return Err(invalid("an element written at an index that was not checked"));
        }
    }
    Ok(())
}

/// Whether a loop kernel writes only what it says it writes, and each element in one iteration of the axes that are kept.
pub(super) fn verify_stores(kernel: &LoopKernel) -> Result<(), Broken> {
    // Kept axes, then reduced ones, then the innermost again if it is kept.
    let kept_last = usize::from(kernel.reduced.last() == Some(&false));
    let (outer, _) = kernel.reduced.split_at(kernel.reduced.len() - kept_last);
    if outer.windows(2).any(|pair| pair[0] && !pair[1]) {
        return Err(invalid("a reduced axis outside a kept one"));
    }
    for store in &kernel.stores {
        if !kernel.params.get(usize::from(store.address.param)).is_some_and(|param| param.written) {
            return Err(invalid(format!("writes p{}, which is not said to be written", store.address.param)));
        }
        // Elements written one after another may be the same; such a kernel is not divided.
        if matches!(store.kind, StoreKind::At { .. }) {
            if kernel.reduced.contains(&true) {
                return Err(invalid("a fold beside elements written one after another"));
            }
            continue;
        }
        let axes = kernel.extents.iter().zip(&store.address.position.strides).zip(&kernel.reduced);
        let kept = axes.filter(|((extent, _), reduced)| **extent > 1 && !**reduced);
        if !are_distinct(kept.map(|((extent, stride), _)| (*stride, *extent))) {
            return Err(invalid("iterations write the same element"));
        }
    }
    Ok(())
}

/// Whether different iterations of axes, each a stride and an extent, lead to different elements: each stride is longer than
/// the axes of smaller strides reach together.
fn are_distinct(axes: impl Iterator<Item = (i64, usize)>) -> bool {
    let mut axes: Vec<(u128, u128)> =
        axes.map(|(stride, extent)| (stride.unsigned_abs().into(), extent as u128)).collect();
    axes.sort_unstable();
    let mut reach = 0u128;
    axes.into_iter().all(|(stride, extent)| {
        let apart = stride > reach;
        reach = reach.saturating_add(stride.saturating_mul(extent - 1));
        apart
    })
}

/// Whether a product has the types that it says, and writes each element of its result once.
pub(super) fn verify_factors(kernel: &ProductKernel) -> Result<(), Broken> {
    if !kernel.dtype.is_float() {
        return Err(invalid(format!("a product of {}", kernel.dtype)));
    }
    for matrix in [&kernel.a, &kernel.b, &kernel.c] {
        let written = matrix.param == kernel.c.param;
        let param = kernel.params.get(usize::from(matrix.param));
        if param.is_none_or(|param| param.dtype != kernel.dtype || param.written != written) {
            return Err(invalid(format!("p{} is not a factor, or not the result", matrix.param)));
        }
    }
    if [kernel.a.param, kernel.b.param].contains(&kernel.c.param) {
        return Err(invalid("a product that reads its result"));
    }
    let c = &kernel.c;
    let axes =
        [(c.batch_stride, kernel.batch), (c.row_stride, kernel.m), (c.column_stride, kernel.n)].into_iter();
    // An empty result has no elements that could be the same.
    let empty = [kernel.batch, kernel.m, kernel.n].contains(&0);
    if !empty && !are_distinct(axes.filter(|(_, extent)| *extent > 1)) {
        return Err(invalid("elements of the result that lie on each other"));
    }
    Ok(())
}

/// Whether a convolution has the types that it says, and reads nothing of its result.
pub(super) fn verify_operands(kernel: &ConvolutionKernel) -> Result<(), Broken> {
    if !kernel.dtype.is_float() {
        return Err(invalid(format!("a convolution of {}", kernel.dtype)));
    }
    for (number, written) in [(kernel.x.param, false), (kernel.w.param, false), (kernel.out, true)] {
        let param = kernel.params.get(usize::from(number));
        if param.is_none_or(|param| param.dtype != kernel.dtype || param.written != written) {
            return Err(invalid(format!("p{number} is not an operand of a convolution, or not the result")));
        }
    }
    Ok(())
}

/// Whether what a scan reads is apart from what it writes, each thing that it writes is apart from the others, and
/// all that its steps need is there.
pub(super) fn verify_roles(kernel: &ScanKernel) -> Result<(), Broken> {
    let param = |param: u16| kernel.params.get(usize::from(param));
    let carries = kernel.carries.iter().map(|carry| carry.param);
    let rows = kernel.rows.iter().map(|row| row.param);
    let mut written: Vec<u16> = carries.chain(rows).chain(kernel.made).chain(kernel.arena).collect();
    if let Some(until) = &kernel.until {
        let bytes = param(until.param).map_or(0, |param| param.len * param.dtype.size());
        let inside = usize::try_from(until.offset).is_ok_and(|offset| offset < bytes);
        let apart = Some(until.param) != kernel.arena || until.offset >= kernel.body.arena_bytes as i64;
        if !inside || !apart || until.stride != 0 {
            return Err(invalid("a condition that has no place of its own"));
        }
        if Some(until.param) != kernel.arena {
            written.push(until.param);
        }
    }
    let count = written.len();
    written.sort_unstable();
    written.dedup();
    if written.len() != count || !written.iter().all(|p| param(*p).is_some_and(|param| param.written)) {
        return Err(invalid("results of a loop that share a parameter, or one that is not written"));
    }
    if kernel.inputs.iter().any(|input| param(input.param).is_none_or(|param| param.written)) {
        return Err(invalid("a loop that reads what it writes"));
    }
    if kernel
        .carries
        .iter()
        .filter_map(|carry| carry.row.as_ref())
        .any(|row| usize::from(row.output) >= kernel.rows.len())
    {
        return Err(invalid("a carry in rows that the loop does not have"));
    }
    Ok(())
}

/// Whether two buffers share bytes.
fn overlap(a: &Buffer, b: &Buffer) -> bool {
    match (&a.place, &b.place) {
        _ if a.bytes() == 0 || b.bytes() == 0 => false,
        (Place::Arena(x), Place::Arena(y)) => *x < y + b.bytes() && *y < x + a.bytes(),
        (x, y) => x == y,
    }
}

/// Whether a step writes only memory that it does not read, or reads just where it writes, element by element.
pub(super) fn verify_aliases(program: &Program, step: &Step) -> Result<(), Broken> {
    let params = step.kernel.params();
    let buffer = |param: usize| &program.buffers[step.arguments[param].index()];
    for written in (0..params.len()).filter(|param| params[*param].written) {
        for other in 0..params.len() {
            let apart = match &step.kernel {
                Kernel::Loop(kernel) if other == written => rereads(kernel, written, other),
                _ if other == written || !overlap(buffer(written), buffer(other)) => true,
                // Elements can only be told apart where both are counted from one beginning.
                Kernel::Loop(kernel) => {
                    buffer(written).place == buffer(other).place
                        && params[written].dtype.size() == params[other].dtype.size()
                        && rereads(kernel, written, other)
                }
                Kernel::Product(_) | Kernel::Convolution(_) | Kernel::Random(_) | Kernel::Scan(_) => false,
            };
            if !apart {
                return Err(invalid(format!("p{other} lies in p{written}, which is written")));
            }
        }
    }
    Ok(())
}

/// Whether a loop kernel writes one parameter and reads or writes another at the same place so that no iteration sees or
/// touches what a different one writes.
fn rereads(kernel: &LoopKernel, written: usize, other: usize) -> bool {
    let stores: Vec<(usize, Region)> =
        Region::written(kernel).map(|(param, region)| (usize::from(param), region)).collect();
    let own = stores.iter().enumerate().filter(|(_, (param, _))| *param == written);
    let twice = own.clone().any(|(index, (_, a))| {
        stores.iter().enumerate().any(|(second, (param, b))| second != index && *param == other && a.meets(b))
    });
    let mut read = Region::read(kernel).filter(|(param, _)| usize::from(*param) == other);
    let reads = read.any(|(_, region)| own.clone().any(|(_, (_, store))| region.meets(store)));
    let is = |param: u16, index: usize| usize::from(param) == index;
    !twice
        && (!reads || reads_only_what_it_writes(kernel, |read| is(read, other), |store| is(store, written)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iterations_are_apart_where_strides_reach_over_smaller_ones() {
        let distinct = |axes: &[(i64, usize)]| are_distinct(axes.iter().copied());
        assert!(distinct(&[]) && distinct(&[(8, 6), (1, 8)]) && distinct(&[(-8, 6), (2, 4)]));
        assert!(!distinct(&[(0, 2)]) && !distinct(&[(7, 6), (1, 8)]) && !distinct(&[(1, 2), (1, 2)]));
        assert!(!distinct(&[(i64::MIN, usize::MAX), (i64::MAX, usize::MAX)]));
    }
}
