//! The invariants of programs, checked in the order of this list. Generated code relies on them; it checks nothing itself.
//!
//! 1. A body uses values that were computed before, and every value has a type.
//! 2. Parameters, starts and loop axes that are named exist, starts and factors have an element; affine expressions have a stride for each loop axis.
//! 3. Every address lies inside its parameter for all iterations, all starts up to their limits, and all checked indices.
//! 4. A fold's address does not depend on reduced axes; a store's address differs for different kept iterations, but where
//!    elements are written one after another.
//! 5. A step has a buffer for each parameter, of the same element type and at least its length; arena buffers lie inside
//!    the arena, and none overlaps another that is live at the same time, but for operands overwritten element by element.
//! 6. No step before `commit` writes a shared variable, and no step from there on checks an index that none before it has
//!    checked; but for bodies of scans, whose carries nobody sees after a failure.
//! 7. A random kernel reads its counter from an `i64` parameter and writes another parameter, of `f32`.
//!    A convolution writes its result, as a whole, and reads its operands inside their parameters.
//! 8. The body of a scan is a program for which all this holds; each of its buffers lies, in every step, inside
//!    a parameter of its element type, which is written if the body writes the buffer.
//!
//! 9. Values of a body have the types that their operands give, elements those of their parameters; buffers at one place are
//!    alike, and are what the program says of its constants and results.
//! 10. A kernel writes only parameters that are said to be written. In one step what is written is apart from what is read,
//!     but for elements that an iteration reads and then writes itself.
//!
//! Sizes and extents are bounded before anything else, so that no number of bytes wraps in the checks or in what runs.
//! That a value is not overwritten while a later step needs it (in 5, and of indices in 6) is by construction of [`crate::place`] and is not checked
//! again here: it would be a wrong number, not an access to other memory.

mod memory;

use std::fmt;

use hypatia_graph::{Broken, DType, broken};
use hypatia_kernels::convolution::MOST_AXES;
use smallvec::SmallVec;

use crate::kernel::checked::checked_indices;
use crate::kernel::{
    Address, Affine, BufferId, ConvolutionKernel, Instruction, Kernel, LoopKernel, Param, Place,
    ProductKernel, Program, RandomKernel, RuntimeStart, Scale, ScanKernel, Step, StoreKind, Value,
};

/// The first violated invariant, with the text of the step.
pub fn verify(program: &Program) -> Result<(), Broken> {
    verify_sizes(program)?;
    verify_steps(program)?;
    let checks = |step: &Step| checked_indices(&step.kernel, |param| step.arguments[usize::from(param)]);
    let checked: Vec<_> = program.steps.iter().take(program.commit).filter_map(checks).flatten().collect();
    for (index, step) in program.steps.iter().enumerate() {
        let writes_shared = |(param, argument): (&Param, &BufferId)| {
            param.written && matches!(program.buffers[argument.index()].place, Place::Shared(_))
        };
        let wrong = if index >= program.commit {
            let known =
                checks(step).is_some_and(|indices| indices.iter().all(|index| checked.contains(index)));
            (!known).then_some("checks an index for the first time after the commit")
        } else {
            let written = step.kernel.params().iter().zip(&step.arguments).any(writes_shared);
            written.then_some("writes a shared variable before the commit")
        };
        if let Some(wrong) = wrong {
            return Err(invalid(wrong).with_input(&in_step(index, step)));
        }
    }
    Ok(())
}

/// A violated invariant, in words.
fn invalid(found: impl fmt::Display) -> Broken {
    broken!("a valid program", found)
}

/// A step for a report.
fn in_step(index: usize, step: &Step) -> String {
    format!("step {index}: {}\n{}", step.label, step.kernel)
}

/// Bytes that a program may name in one place; sums and products of two such numbers hold in 128 bits, of one and an
/// element's size in 64.
const MOST_BYTES: usize = 1 << 52;

/// That no number of bytes wraps where it is computed.
fn verify_sizes(program: &Program) -> Result<(), Broken> {
    let bytes = |dtype: DType, shape: &[usize]| {
        let count = shape.iter().try_fold(1usize, |count, n| count.checked_mul((*n).max(1)));
        count.and_then(|count| count.checked_mul(dtype.size())).filter(|bytes| *bytes <= MOST_BYTES)
    };
    for (number, buffer) in program.buffers.iter().enumerate() {
        let offset = if let Place::Arena(offset) = buffer.place { offset } else { 0 };
        if bytes(buffer.dtype, &buffer.shape).is_none() || offset > MOST_BYTES {
            return Err(invalid(format!("b{number} has more bytes than memory")));
        }
    }
    if program.outputs.iter().any(|(dtype, shape)| bytes(*dtype, shape).is_none())
        || program.arena_bytes > MOST_BYTES
    {
        return Err(invalid("results or an arena of more bytes than memory"));
    }
    for (index, step) in program.steps.iter().enumerate() {
        let along: SmallVec<[usize; 8]>;
        let too_long = |param: &Param| bytes(param.dtype, &[param.len]).is_none();
        let extents: &[usize] = match &step.kernel {
            Kernel::Loop(kernel) => &kernel.extents,
            Kernel::Product(kernel) => &[kernel.batch, kernel.m, kernel.n, kernel.k],
            Kernel::Convolution(kernel) => {
                let own = kernel.input().into_iter().chain(kernel.taps()).chain(kernel.results());
                let steps = kernel.axes.iter().flat_map(|axis| [axis.stride, axis.spread, axis.dilation]);
                along =
                    own.chain(steps).chain(kernel.axes.iter().map(|axis| axis.low.unsigned_abs())).collect();
                &along
            }
            Kernel::Random(_) => &[],
            Kernel::Scan(kernel) => &[kernel.steps],
        };
        if step.kernel.params().iter().any(too_long) || extents.iter().any(|n| *n > MOST_BYTES) {
            return Err(invalid(format!("step {index} ({}): more elements than memory", step.label)));
        }
        if let Some(body) = step.kernel.body() {
            verify_sizes(body)?;
        }
    }
    Ok(())
}

/// What holds for the body of a scan as well.
fn verify_steps(program: &Program) -> Result<(), Broken> {
    memory::verify_buffers(program)?;
    for (index, step) in program.steps.iter().enumerate() {
        let in_step = |fault: Broken| fault.with_input(&in_step(index, step));
        match &step.kernel {
            Kernel::Loop(kernel) => verify_loop(kernel).map_err(in_step)?,
            Kernel::Product(kernel) => verify_product(kernel).map_err(in_step)?,
            Kernel::Convolution(kernel) => verify_convolution(kernel).map_err(in_step)?,
            Kernel::Random(kernel) => verify_random(kernel).map_err(in_step)?,
            Kernel::Scan(kernel) => verify_scan(kernel).map_err(in_step)?,
        }
        let params = step.kernel.params();
        let has_element = |param: u16, dtype: DType| {
            params.get(usize::from(param)).is_some_and(|p| p.dtype == dtype && p.len > 0)
        };
        if let Some(start) = step.kernel.starts().iter().find(|start| !has_element(start.param, DType::I64)) {
            return Err(in_step(invalid(format!("a start in p{}, which has no i64 element", start.param))));
        }
        if let Kernel::Product(product) = &step.kernel {
            for scale in [product.alpha, product.beta] {
                if matches!(scale, Scale::Param(param) if !has_element(param, product.dtype)) {
                    return Err(in_step(invalid(format!("a factor {scale}, which is not there"))));
                }
            }
        }
        if params.len() != step.arguments.len() {
            return Err(in_step(invalid(format!(
                "{} parameters, {} arguments",
                params.len(),
                step.arguments.len()
            ))));
        }
        for (param, argument) in params.iter().zip(&step.arguments) {
            let Some(buffer) = program.buffers.get(argument.index()) else {
                return Err(in_step(invalid(format!("no buffer b{}", argument.0))));
            };
            if buffer.dtype != param.dtype || buffer.len() < param.len {
                return Err(in_step(invalid(format!("b{} does not fit its parameter", argument.0))));
            }
            match buffer.place {
                Place::Arena(offset) if offset % 64 != 0 || offset + buffer.bytes() > program.arena_bytes => {
                    return Err(in_step(invalid(format!("b{} lies outside the arena", argument.0))));
                }
                Place::Input(_) | Place::Constant(_) if param.written => {
                    return Err(in_step(invalid(format!(
                        "writes b{}, which is only to be read",
                        argument.0
                    ))));
                }
                Place::Input(_)
                | Place::Constant(_)
                | Place::Shared(_)
                | Place::Output(_)
                | Place::Arena(_) => {}
            }
        }
        memory::verify_aliases(program, step).map_err(in_step)?;
    }
    Ok(())
}

fn verify_loop(kernel: &LoopKernel) -> Result<(), Broken> {
    if kernel.types.len() != kernel.body.len() || kernel.reduced.len() != kernel.extents.len() {
        return Err(invalid("lists of unequal length"));
    }
    let before = |value: Value, limit: usize| {
        if value.index() < limit {
            Ok(())
        } else {
            Err(invalid(format!("{value} is used before it is computed")))
        }
    };
    let empty = kernel.extents.contains(&0);
    let inside = |address: &Address, index: Option<(Value, i64)>| -> Result<(), Broken> {
        let reach = match index {
            Some((value, stride)) => {
                kernel.index_extent(value).map(|extent| (extent as i128 - 1) * i128::from(stride))
            }
            None => Some(0),
        };
        let reach = reach.ok_or_else(|| invalid("an index that was not checked"))?;
        if empty {
            Ok(())
        } else {
            in_bounds(address, &kernel.extents, &kernel.params, &kernel.starts, reach)
        }
    };
    for (index, instruction) in kernel.body.iter().enumerate() {
        match instruction {
            Instruction::Literal(_) => {}
            Instruction::Load(address) => inside(address, None)?,
            Instruction::LoadAt { address, index: at, stride } => {
                before(*at, index)?;
                inside(address, Some((*at, *stride)))?;
            }
            Instruction::Position(position) => {
                affine_fits(position, kernel.extents.len(), kernel.starts.len())?
            }
            Instruction::Index { index: at, .. } => before(*at, index)?,
            Instruction::Cast(_, value) => before(*value, index)?,
            Instruction::Map(f, operands) => {
                if operands.len() != f.arity() {
                    return Err(invalid(format!("`{f}` of {} operands", operands.len())));
                }
                operands.iter().try_for_each(|v| before(*v, index))?;
            }
        }
    }
    for store in &kernel.stores {
        before(store.value, kernel.body.len())?;
        match &store.kind {
            StoreKind::At { index, stride, .. } => {
                before(*index, kernel.body.len())?;
                inside(&store.address, Some((*index, *stride)))?;
            }
            StoreKind::Plain => inside(&store.address, None)?,
            StoreKind::Fold(_) | StoreKind::ArgMax => {
                inside(&store.address, None)?;
                if kernel.reduced.iter().zip(&store.address.position.strides).any(|(r, s)| *r && *s != 0) {
                    return Err(invalid("a fold's address depends on a reduced axis"));
                }
            }
        }
    }
    memory::verify_types(kernel)?;
    memory::verify_stores(kernel)
}

fn affine_fits(affine: &Affine, axes: usize, starts: usize) -> Result<(), Broken> {
    if affine.strides.len() != axes || affine.starts.iter().any(|(s, _)| usize::from(*s) >= starts) {
        return Err(invalid(format!("a position of other axes or starts: {affine}")));
    }
    Ok(())
}

/// Whether an address plus 0 to `reach` lies inside its parameter for all iterations and starts.
fn in_bounds(
    address: &Address,
    extents: &[usize],
    params: &[Param],
    starts: &[RuntimeStart],
    reach: i128,
) -> Result<(), Broken> {
    affine_fits(&address.position, extents.len(), starts.len())?;
    let Some(param) = params.get(usize::from(address.param)) else {
        return Err(invalid(format!("no parameter p{}", address.param)));
    };
    // Products of two numbers of 64 bits, of which there are few: nothing wraps.
    let offset = i128::from(address.position.offset);
    let (mut low, mut high) = (offset, offset);
    let mut widen = |span: i128| if span < 0 { low += span } else { high += span };
    for (extent, stride) in extents.iter().zip(&address.position.strides) {
        widen((*extent as i128 - 1) * i128::from(*stride));
    }
    for (start, coefficient) in &address.position.starts {
        widen(starts[usize::from(*start)].limit as i128 * i128::from(*coefficient));
    }
    widen(reach);
    if low < 0 || high >= param.len as i128 {
        return Err(invalid(format!(
            "p{}[{}] reaches {low} to {high} of {} elements",
            address.param, address.position, param.len
        )));
    }
    Ok(())
}

fn verify_random(kernel: &RandomKernel) -> Result<(), Broken> {
    let fits = |param: u16, dtype: DType, written: bool| {
        kernel
            .params
            .get(usize::from(param))
            .is_some_and(|p| p.dtype == dtype && p.written == written && p.len > 0)
    };
    if !fits(kernel.counter, DType::I64, false) {
        return Err(invalid("a counter that is not read from an i64 parameter"));
    }
    if !fits(kernel.out, DType::F32, true) || kernel.params.len() != 2 {
        return Err(invalid("random numbers that are not written to the one f32 parameter"));
    }
    Ok(())
}

fn verify_scan(kernel: &ScanKernel) -> Result<(), Broken> {
    verify_steps(&kernel.body)?;
    if kernel.steps > 0 {
        let last = kernel.steps - 1;
        for (number, buffer) in kernel.body.buffers.iter().enumerate() {
            if let Place::Constant(_) = buffer.place {
                continue;
            }
            // Addresses are linear in the step but for the first, where a carry may lie elsewhere.
            for step in [0, 1.min(last), last] {
                let Some((param, begin)) = kernel.locate(&buffer.place, step) else {
                    return Err(invalid(format!("b{number} of the body lies nowhere")));
                };
                let is_arena = kernel.arena == Some(param);
                let inside = kernel.params.get(usize::from(param)).is_some_and(|param| {
                    let fits = begin >= 0
                        && i128::from(begin) + buffer.bytes() as i128
                            <= (param.len * param.dtype.size()) as i128;
                    let typed = param.dtype == buffer.dtype || is_arena && param.dtype == DType::U8;
                    let writable = param.written || matches!(buffer.place, Place::Input(_));
                    fits && typed && writable
                });
                if !inside {
                    let param = kernel.params.get(usize::from(param)).map(|p| format!("{p:?}"));
                    return Err(invalid(format!(
                        "b{number} of the body does not lie in {} in step {step}",
                        param.as_deref().unwrap_or("a parameter")
                    )));
                }
            }
        }
    }
    let counts = |param: u16| {
        let param = kernel.params.get(usize::from(param));
        param.is_some_and(|param| param.dtype == DType::I64 && param.len > 0 && param.written)
    };
    if kernel.made.is_some_and(|made| !counts(made)) {
        return Err(invalid("a number of steps that is not written to an i64 parameter"));
    }
    let condition = usize::from(kernel.until.is_some());
    let outputs = kernel.rows.len() + condition;
    if kernel.body.outputs.len() != outputs || kernel.body.shared.len() > kernel.carries.len() {
        return Err(invalid("outputs or carries that the body does not have"));
    }
    if condition == 1
        && kernel.body.outputs.last().is_none_or(|(dtype, shape)| *dtype != DType::Bool || !shape.is_empty())
    {
        return Err(invalid("a condition that is no truth value"));
    }
    for (row, (dtype, shape)) in kernel.rows.iter().zip(&kernel.body.outputs) {
        let len = shape.iter().product::<usize>();
        let param = kernel.params.get(usize::from(row.param));
        if param.is_none_or(|param| {
            param.dtype != *dtype
                || (param.len as u128) < len as u128 * kernel.steps as u128
                || row.stride != len as i64
        }) {
            return Err(invalid(format!("rows that do not fit p{}", row.param)));
        }
    }
    for (row, param) in kernel.kept_rows() {
        let to = kernel.params.get(usize::from(param));
        if to.is_none_or(|to| !to.written || to.len < row.stride.unsigned_abs() as usize) {
            return Err(invalid(format!("a last row that does not fit p{param}")));
        }
    }
    memory::verify_roles(kernel)
}

fn verify_product(kernel: &ProductKernel) -> Result<(), Broken> {
    for (matrix, rows, columns) in
        [(&kernel.a, kernel.m, kernel.k), (&kernel.b, kernel.k, kernel.n), (&kernel.c, kernel.m, kernel.n)]
    {
        if [kernel.batch, rows, columns].contains(&0) {
            continue;
        }
        let mut position = matrix.position.clone();
        position.strides =
            [matrix.batch_stride, matrix.row_stride, matrix.column_stride].into_iter().collect();
        let address = Address { param: matrix.param, position };
        in_bounds(&address, &[kernel.batch, rows, columns], &kernel.params, &kernel.starts, 0)?;
    }
    if kernel.c.column_stride != 1 {
        return Err(invalid("a result whose rows are not contiguous"));
    }
    memory::verify_factors(kernel)
}

fn verify_convolution(kernel: &ConvolutionKernel) -> Result<(), Broken> {
    if kernel.axes.is_empty() || kernel.axes.len() > MOST_AXES {
        return Err(invalid(format!("a convolution along {} axes", kernel.axes.len())));
    }
    if kernel.axes.iter().any(|axis| [axis.stride, axis.spread, axis.dilation].contains(&0)) {
        return Err(invalid("a convolution with a distance of 0"));
    }
    for (operand, extents) in [(&kernel.x, kernel.input()), (&kernel.w, kernel.taps())] {
        if operand.strides.len() != extents.len() {
            return Err(invalid(format!("p{} with other axes than its extents", operand.param)));
        }
        if !extents.contains(&0) {
            let position = Affine { strides: operand.strides.clone(), ..operand.position.clone() };
            let address = Address { param: operand.param, position };
            in_bounds(&address, &extents, &kernel.params, &kernel.starts, 0)?;
        }
    }
    let results = kernel.results().iter().try_fold(1usize, |all, n| all.checked_mul(*n));
    if kernel.params.get(usize::from(kernel.out)).is_none_or(|param| results.is_none_or(|n| n > param.len)) {
        return Err(invalid(format!("a result of more elements than p{}", kernel.out)));
    }
    memory::verify_operands(kernel)
}

#[cfg(test)]
mod tests;
