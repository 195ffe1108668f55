//! The typing rules: the type of a node from its operator and the types of its operands.
//!
//! This is the only place that knows them; the builder, the parser, the verifier and every pass ask here.
//! A violated rule is a [`Diagnostic`] without a place; who asked adds it.

use smallvec::SmallVec;

use crate::diagnostic::Diagnostic;
use crate::dtype::DType;
use crate::op::{
    Border, Bound, ConvAxis, Dim, Fold, Grad, IndexCheck, Op, Scan, ScanResult, SliceAxis, Start, WindowAxis,
};
use crate::scalar::ScalarFn;
use crate::shape::{Axes, Extent, MAX_RANK, TensorType};

type Inferred = Result<TensorType, Diagnostic>;

/// The type of `op` on operands of these types. Leaves have no rule: their type is declared.
pub fn infer(op: &Op, operands: &[&TensorType]) -> Inferred {
    let ty = match op {
        Op::Leaf(_) => return Err(Diagnostic::new("a leaf has a declared type")),
        Op::Literal(x) => {
            take::<0>(op, operands)?;
            TensorType::scalar(x.dtype())
        }
        Op::Iota(dims) => {
            if dims.len() != 1 {
                return Err(Diagnostic::new(format!("`iota` takes one extent, found {}", dims.len())));
            }
            let shape = extents_of_dims(op, dims, operands)?;
            TensorType { dtype: DType::I64, shape }
        }
        Op::Extent(axis) => {
            let [x] = take(op, operands)?;
            check_axis(op, usize::from(*axis), x)?;
            TensorType::scalar(DType::I64)
        }
        Op::Map(f) => infer_map(*f, operands)?,
        Op::Cast(dtype) => take::<1>(op, operands)?[0].with_dtype(*dtype),
        Op::Reduce(fold, axes) => {
            let [x] = take(op, operands)?;
            check_dtype(op, *fold, x)?;
            without_axes(op, *axes, x)?
        }
        Op::Mean(axes) => {
            let [x] = take(op, operands)?;
            if !x.dtype.is_float() {
                return Err(not_defined_on(op, x));
            }
            without_axes(op, *axes, x)?
        }
        Op::ArgMax(axis) => {
            let [x] = take(op, operands)?;
            check_axis(op, usize::from(*axis), x)?;
            if x.shape[usize::from(*axis)] == Extent::Known(0) {
                return Err(Diagnostic::new("`argmax` along an axis of extent 0 has no answer").with(
                    "operand",
                    x.to_string(),
                    None,
                ));
            }
            let mut shape = x.shape.clone();
            shape.remove(usize::from(*axis));
            TensorType { dtype: DType::I64, shape }
        }
        Op::Cumsum(axis) => {
            let [x] = take(op, operands)?;
            check_dtype(op, Fold::Sum, x)?;
            check_axis(op, usize::from(*axis), x)?;
            x.clone()
        }
        Op::Dot => infer_dot(op, operands)?,
        Op::Conv(axes) => infer_conv(op, axes, operands)?,
        Op::Broadcast { axes, dims } => infer_broadcast(op, axes, dims, operands)?,
        Op::Reshape(dims) => {
            let x = *operands.first().ok_or_else(|| arity(op, 1, 0))?;
            let shape = extents_of_dims(op, dims, &operands[1..])?;
            let ty = TensorType { dtype: x.dtype, shape };
            if let (Some(from), Some(to)) = (x.element_count(), ty.element_count())
                && from != to
            {
                return Err(Diagnostic::new(format!("`reshape` of {from} elements into {to}"))
                    .with("operand", x.to_string(), None)
                    .with("result", ty.to_string(), None));
            }
            ty
        }
        Op::Permute(permutation) => {
            let [x] = take(op, operands)?;
            let mut seen: SmallVec<[u8; 8]> = permutation.clone();
            seen.sort_unstable();
            if seen.len() != x.rank() || seen.iter().enumerate().any(|(i, &axis)| i != usize::from(axis)) {
                return Err(Diagnostic::new(format!(
                    "`permute` wants every axis of a tensor of rank {} once, found {:?}",
                    x.rank(),
                    permutation.as_slice()
                ))
                .with("operand", x.to_string(), None));
            }
            TensorType {
                dtype: x.dtype,
                shape: permutation.iter().map(|&axis| x.shape[usize::from(axis)]).collect(),
            }
        }
        Op::Slice(axes) => {
            let x = *operands.first().ok_or_else(|| arity(op, 1, 0))?;
            check_scalars(op, &operands[1..], slice_operands(axes))?;
            slice_type(op, axes, x)?
        }
        Op::SetSlice(axes, _) => {
            let [x, y] = take_first(op, operands)?;
            check_scalars(op, &operands[2..], slice_operands(axes))?;
            check_part(op, &slice_type(op, axes, x)?, y)?;
            x.clone()
        }
        Op::Window(axes) => {
            let x = *operands.first().ok_or_else(|| arity(op, 1, 0))?;
            check_scalars(op, &operands[1..], window_operands(axes))?;
            window_type(op, axes, x)?
        }
        Op::SetWindow(axes, _) => {
            let [x, y] = take_first(op, operands)?;
            check_scalars(op, &operands[2..], window_operands(axes))?;
            check_part(op, &window_type(op, axes, x)?, y)?;
            x.clone()
        }
        Op::Concat(axis) => infer_concat(op, usize::from(*axis), operands)?,
        Op::Gather { batch } => {
            let [x, indices] = take(op, operands)?;
            gather_type(op, usize::from(*batch), x, indices)?
        }
        Op::Scatter { batch, .. } => {
            let [x, indices, y] = take(op, operands)?;
            check_part(op, &gather_type(op, usize::from(*batch), x, indices)?, y)?;
            x.clone()
        }
        Op::Random { dims, .. } => {
            let counter = *operands.first().ok_or_else(|| arity(op, 1, 0))?;
            if counter.rank() != 0 || counter.dtype != DType::I64 {
                return Err(Diagnostic::new("`random` takes its counter as an i64 scalar").with(
                    "found",
                    counter.to_string(),
                    None,
                ));
            }
            TensorType { dtype: DType::F32, shape: extents_of_dims(op, dims, &operands[1..])? }
        }
        Op::StopGradient => take::<1>(op, operands)?[0].clone(),
        Op::Scan(scan) => infer_scan(op, scan, operands)?,
        Op::Grad(grad) => {
            let wanted = usize::from(grad.has_cost)
                + usize::from(grad.variables)
                + 2 * usize::from(grad.known)
                + usize::from(grad.constants);
            if operands.len() != wanted || grad.index >= grad.variables {
                return Err(arity(op, wanted, operands.len()));
            }
            check_gradient(grad, operands)?;
            operands[usize::from(grad.has_cost) + usize::from(grad.index)].clone()
        }
    };
    if ty.rank() > MAX_RANK {
        return Err(Diagnostic::new(format!(
            "a tensor has at most {MAX_RANK} axes, `{}` would give {}",
            op.name(),
            ty.rank()
        )));
    }
    match ty.fault() {
        Some(fault) => Err(fault),
        None => Ok(ty),
    }
}

/// Costs are float scalars, variables floats, known cotangents of the types of their expressions.
fn check_gradient(grad: &Grad, operands: &[&TensorType]) -> Result<(), Diagnostic> {
    let found = |title: &str, label: &str, ty: &TensorType| {
        Err(Diagnostic::new(title).with(label, ty.to_string(), None))
    };
    let (cost, others) = operands.split_at(usize::from(grad.has_cost));
    if let Some(cost) = cost.iter().find(|cost| cost.rank() != 0 || !cost.dtype.is_float()) {
        return found("a gradient is that of a float scalar", "cost", cost);
    }
    let (variables, others) = others.split_at(usize::from(grad.variables));
    if let Some(variable) = variables.iter().find(|variable| !variable.dtype.is_float()) {
        return found("a gradient is taken with respect to float variables", "found", variable);
    }
    for pair in others[..2 * usize::from(grad.known)].chunks_exact(2) {
        let [expression, cotangent] = [pair[0], pair[1]];
        let fits = expression.dtype == cotangent.dtype
            && expression.rank() == cotangent.rank()
            && expression.shape.iter().zip(&cotangent.shape).all(|(x, y)| x.unify(*y).is_some());
        if !fits {
            return Err(Diagnostic::new("a known cotangent has another type than its expression")
                .with("expected", expression.to_string(), None)
                .with("found", cotangent.to_string(), None));
        }
    }
    Ok(())
}

/// Number of operands that a slice takes for its bounds.
pub fn slice_operands(axes: &[SliceAxis]) -> usize {
    axes.iter().flat_map(SliceAxis::bounds).filter(|bound| *bound == Bound::Operand).count()
}

/// Number of operands that a window takes for its starts.
pub fn window_operands(axes: &[WindowAxis]) -> usize {
    axes.iter().filter(|a| !matches!(a.start, Start::Known(_))).count()
}

/// First position and number of elements of NumPy's `start:stop:step` on an axis of known extent; negative bounds
/// count from the end, `None` is a bound left out.
pub fn resolve_slice(start: Option<i64>, stop: Option<i64>, step: i64, extent: usize) -> (usize, usize) {
    let n = extent as i64;
    let clamp = |bound: i64| {
        let bound = if bound < 0 { bound.saturating_add(n) } else { bound };
        if step > 0 { bound.clamp(0, n) } else { bound.clamp(-1, n - 1) }
    };
    let first = start.map_or(if step > 0 { 0 } else { n - 1 }, clamp);
    let end = stop.map_or(if step > 0 { n } else { -1 }, clamp);
    let span = if step > 0 { end - first } else { first - end };
    let len = if span <= 0 { 0 } else { (span - 1) / step.saturating_abs() + 1 };
    (if len == 0 { 0 } else { first as usize }, len as usize)
}

fn arity(op: &Op, expected: usize, found: usize) -> Diagnostic {
    Diagnostic::new(format!("`{}` takes {expected} operands, found {found}", op.name()))
}

fn take<'a, const N: usize>(op: &Op, operands: &[&'a TensorType]) -> Result<[&'a TensorType; N], Diagnostic> {
    operands.try_into().map_err(|_| arity(op, N, operands.len()))
}

fn take_first<'a, const N: usize>(
    op: &Op,
    operands: &[&'a TensorType],
) -> Result<[&'a TensorType; N], Diagnostic> {
    operands.get(..N).and_then(|first| first.try_into().ok()).ok_or_else(|| arity(op, N, operands.len()))
}

fn check_axis(op: &Op, axis: usize, x: &TensorType) -> Result<(), Diagnostic> {
    if axis < x.rank() {
        return Ok(());
    }
    Err(Diagnostic::new(format!("`{}` along axis {axis} of a tensor of rank {}", op.name(), x.rank())).with(
        "operand",
        x.to_string(),
        None,
    ))
}

/// The type of the elements without those axes.
fn without_axes(op: &Op, axes: Axes, x: &TensorType) -> Inferred {
    for axis in axes.iter() {
        check_axis(op, axis, x)?;
    }
    Ok(TensorType { dtype: x.dtype, shape: axes.others(x.rank()).map(|axis| x.shape[axis]).collect() })
}

/// Elements of the type can be folded so.
fn check_dtype(op: &Op, fold: Fold, x: &TensorType) -> Result<(), Diagnostic> {
    if fold.takes(x.dtype) { Ok(()) } else { Err(not_defined_on(op, x)) }
}

fn not_defined_on(op: &Op, x: &TensorType) -> Diagnostic {
    let title = format!("`{}` is not defined on {}", op.name(), x.dtype);
    Diagnostic::new(title).with("operand", x.to_string(), None)
}

/// The scalars that give extents and bounds.
fn check_scalars(op: &Op, scalars: &[&TensorType], wanted: usize) -> Result<(), Diagnostic> {
    if scalars.len() != wanted {
        return Err(Diagnostic::new(format!(
            "`{}` takes {wanted} bounds, found {}",
            op.name(),
            scalars.len()
        )));
    }
    match scalars.iter().find(|s| s.rank() != 0 || s.dtype != DType::I64) {
        Some(scalar) => Err(Diagnostic::new(format!(
            "`{}` takes bounds and extents as i64 scalars",
            op.name()
        ))
        .with("found", scalar.to_string(), None)),
        None => Ok(()),
    }
}

fn extents_of_dims(
    op: &Op,
    dims: &[Dim],
    scalars: &[&TensorType],
) -> Result<SmallVec<[Extent; 4]>, Diagnostic> {
    check_scalars(op, scalars, dims.iter().filter(|&&d| d == Dim::Operand).count())?;
    Ok(dims
        .iter()
        .map(|d| match d {
            Dim::Known(n) => Extent::Known(*n),
            Dim::Operand => Extent::Unknown,
        })
        .collect())
}

fn infer_map(f: ScalarFn, operands: &[&TensorType]) -> Inferred {
    let op = Op::Map(f);
    if operands.len() != f.arity() {
        return Err(arity(&op, f.arity(), operands.len()));
    }
    let labels: &[&str] = match f.arity() {
        1 => &["operand"],
        2 => &["left", "right"],
        _ => &["condition", "then", "else"],
    };
    let describe = |title: String| {
        labels
            .iter()
            .zip(operands)
            .fold(Diagnostic::new(title), |d, (label, ty)| d.with(*label, ty.to_string(), None))
    };
    let dtypes: SmallVec<[DType; 3]> = operands.iter().map(|ty| ty.dtype).collect();
    let Some(dtype) = f.result_dtype(&dtypes) else {
        return Err(describe(format!("`{f}` is not defined on these element types")));
    };
    let mut shape = operands[0].shape.clone();
    for ty in &operands[1..] {
        if ty.rank() != shape.len() {
            return Err(describe(format!("operands of `{f}` differ in rank")));
        }
        for (extent, other) in shape.iter_mut().zip(&ty.shape) {
            *extent =
                extent.unify(*other).ok_or_else(|| describe(format!("operands of `{f}` differ in shape")))?;
        }
    }
    Ok(TensorType { dtype, shape })
}

fn infer_dot(op: &Op, operands: &[&TensorType]) -> Inferred {
    let [a, b] = take(op, operands)?;
    let fail = |title: &str| {
        Err(Diagnostic::new(title).with("left", a.to_string(), None).with("right", b.to_string(), None))
    };
    if a.rank() != b.rank() || !(2..=3).contains(&a.rank()) {
        return fail("`dot` takes two matrices, or two stacks of matrices");
    }
    if a.dtype != b.dtype || a.dtype == DType::Bool {
        return fail("`dot` takes numbers of one type");
    }
    let lead = a.rank() - 2;
    let mut shape = SmallVec::new();
    if lead == 1 {
        match a.shape[0].unify(b.shape[0]) {
            Some(extent) => shape.push(extent),
            None => return fail("stacks of matrices of `dot` differ in length"),
        }
    }
    if a.shape[lead + 1].unify(b.shape[lead]).is_none() {
        return fail("inner extents of `dot` differ");
    }
    shape.extend([a.shape[lead], b.shape[lead + 1]]);
    Ok(TensorType { dtype: a.dtype, shape })
}

fn infer_conv(op: &Op, axes: &[ConvAxis], operands: &[&TensorType]) -> Inferred {
    let [x, filters] = take(op, operands)?;
    let fail = |title: &str| {
        Err(Diagnostic::new(title).with("input", x.to_string(), None).with(
            "filters",
            filters.to_string(),
            None,
        ))
    };
    let far = |n: usize| !(1..=ConvAxis::LARGEST).contains(&n);
    let wide = |n: i64| n.unsigned_abs() > ConvAxis::LARGEST as u64;
    if axes.iter().any(|axis| {
        far(axis.stride)
            || far(axis.spread)
            || far(axis.dilation)
            || matches!(axis.border, Border::Padded(low, high) if wide(low) || wide(high))
    }) {
        return fail(&format!(
            "`conv` takes strides and dilations from 1 to {0}, and padding up to {0}, found {axes:?}",
            ConvAxis::LARGEST
        ));
    }
    let lead = x.rank().checked_sub(2 + axes.len());
    let Some(lead) = lead.filter(|_| x.rank() == filters.rank() && (1..=3).contains(&axes.len())) else {
        return fail(&format!(
            "`conv` along {} axes takes an input [n, c, ..] and filters [o, c, ..] with as many axes behind",
            axes.len()
        ));
    };
    if x.dtype != filters.dtype || !x.dtype.is_float() {
        return fail("`conv` takes `f32` or `f64`, of the input and the filters alike");
    }
    let mut shape: SmallVec<[Extent; 4]> = SmallVec::new();
    for axis in 0..lead {
        match x.shape[axis].unify(filters.shape[axis]) {
            Some(extent) => shape.push(extent),
            None => return fail("the input and the filters of `conv` differ in a leading axis"),
        }
    }
    if x.shape[lead + 1].unify(filters.shape[lead + 1]).is_none() {
        return fail("the channels of the input and of the filters of `conv` differ");
    }
    shape.extend([x.shape[lead], filters.shape[lead]]);
    for (axis, (input, filter)) in axes.iter().zip(x.shape[lead + 2..].iter().zip(&filters.shape[lead + 2..]))
    {
        shape.push(match (input.known(), filter.known()) {
            (Some(input), Some(filter)) => Extent::Known(axis.extent(input, filter)),
            (Some(_), None) | (None, Some(_)) | (None, None) => Extent::Unknown,
        });
    }
    Ok(TensorType { dtype: x.dtype, shape })
}

fn infer_broadcast(op: &Op, axes: &[u8], dims: &[Dim], operands: &[&TensorType]) -> Inferred {
    let x = *operands.first().ok_or_else(|| arity(op, 1, 0))?;
    let shape = extents_of_dims(op, dims, &operands[1..])?;
    let ty = TensorType { dtype: x.dtype, shape };
    let rising = axes.windows(2).all(|pair| pair[0] < pair[1]);
    if axes.len() != x.rank() || !rising || axes.iter().any(|&axis| usize::from(axis) >= dims.len()) {
        return Err(Diagnostic::new(format!(
            "`broadcast` wants a rising place for each axis, found {axes:?}"
        ))
        .with("operand", x.to_string(), None)
        .with("result", ty.to_string(), None));
    }
    for (&axis, &extent) in axes.iter().zip(&x.shape) {
        if extent != Extent::Known(1) && extent.unify(ty.shape[usize::from(axis)]).is_none() {
            return Err(Diagnostic::new("cannot broadcast: an extent is neither 1 nor that of the result")
                .with("operand", x.to_string(), None)
                .with("result", ty.to_string(), None));
        }
    }
    Ok(ty)
}

fn slice_type(op: &Op, axes: &[SliceAxis], x: &TensorType) -> Inferred {
    if axes.len() != x.rank() {
        return Err(Diagnostic::new(format!(
            "`{}` wants bounds for {} axes, found {}",
            op.name(),
            x.rank(),
            axes.len()
        )));
    }
    let mut shape = SmallVec::new();
    for (axis, (part, &extent)) in axes.iter().zip(&x.shape).enumerate() {
        shape.push(slice_extent(op, *part, axis, extent, x)?);
    }
    Ok(TensorType { dtype: x.dtype, shape })
}

/// The extent of what a slice takes of an axis.
fn slice_extent(
    op: &Op,
    part: SliceAxis,
    axis: usize,
    extent: Extent,
    x: &TensorType,
) -> Result<Extent, Diagnostic> {
    let bound = |b: Bound| match b {
        Bound::End => Some(None),
        Bound::Known(v) => Some(Some(v)),
        Bound::Operand => None,
    };
    match (part, extent) {
        (SliceAxis::WHOLE, _) => Ok(extent),
        (SliceAxis::At(Bound::End), _) => Err(Diagnostic::new(format!("`{}` at no position", op.name()))),
        (SliceAxis::At(Bound::Known(at)), Extent::Known(extent)) => {
            let check = IndexCheck { axis: axis as u8, extent, len: 1, is_range: false };
            match check.position(at) {
                Some(_) => Ok(Extent::Known(1)),
                None => Err(check.fault(at).with("operand", x.to_string(), None)),
            }
        }
        (SliceAxis::At(Bound::Operand), Extent::Known(0)) => Err(Diagnostic::new(format!(
            "an index into axis {axis}, which has no element"
        ))
        .with("operand", x.to_string(), None)),
        (SliceAxis::At(_), _) => Ok(Extent::Known(1)),
        (SliceAxis::Part { start, stop, of }, _) if start > stop || stop > of => {
            Err(Diagnostic::new(format!("`{}` of a part {start}..{stop} of {of} elements", op.name())))
        }
        (SliceAxis::Part { of, .. }, Extent::Known(extent)) if extent != of => {
            Err(Diagnostic::new(format!("the parts taken of axis {axis} add up to another extent"))
                .with("expected", extent.to_string(), None)
                .with("found", of.to_string(), None)
                .with("operand", x.to_string(), None))
        }
        (SliceAxis::Part { start, stop, .. }, _) => Ok(Extent::Known(stop - start)),
        (SliceAxis::Range { step: 0, .. }, _) => {
            Err(Diagnostic::new(format!("`{}` with a step of 0", op.name())))
        }
        (SliceAxis::Range { start, stop, step }, _) => Ok(match (bound(start), bound(stop), extent) {
            (Some(start), Some(stop), Extent::Known(n)) => {
                Extent::Known(resolve_slice(start, stop, step, n).1)
            }
            _ => Extent::Unknown,
        }),
    }
}

fn window_type(op: &Op, axes: &[WindowAxis], x: &TensorType) -> Inferred {
    if axes.len() != x.rank() {
        return Err(Diagnostic::new(format!(
            "`{}` wants {} axes, found {}",
            op.name(),
            x.rank(),
            axes.len()
        )));
    }
    for (a, extent) in axes.iter().zip(&x.shape) {
        let Some(n) = extent.known() else { continue };
        let fits = match a.start {
            Start::Operand | Start::Range => a.step == 1 && a.len <= n,
            Start::Known(_) if a.len == 0 => true,
            Start::Known(start) => {
                let last = start as i64 + a.step * (a.len as i64 - 1);
                a.step != 0 && start < n && last >= 0 && last < n as i64
            }
        };
        if !fits {
            return Err(Diagnostic::new(format!("`{}` reaches outside an axis of extent {n}", op.name()))
                .with("window", format!("{a:?}"), None)
                .with("operand", x.to_string(), None));
        }
    }
    Ok(TensorType { dtype: x.dtype, shape: axes.iter().map(|a| Extent::Known(a.len)).collect() })
}

/// `y` replaces or is added to a part of that type.
fn check_part(op: &Op, part: &TensorType, y: &TensorType) -> Result<(), Diagnostic> {
    if part.accepts(y) {
        return Ok(());
    }
    Err(Diagnostic::new(format!("`{}` writes a value of another type than the part it goes to", op.name()))
        .with("expected", part.to_string(), None)
        .with("found", y.to_string(), None))
}

fn infer_concat(op: &Op, axis: usize, operands: &[&TensorType]) -> Inferred {
    let first = *operands.first().ok_or_else(|| Diagnostic::new("`concat` of nothing"))?;
    check_axis(op, axis, first)?;
    let mut ty = first.clone();
    for x in &operands[1..] {
        let fits = x.dtype == ty.dtype
            && x.rank() == ty.rank()
            && (0..ty.rank()).all(|i| i == axis || x.shape[i].unify(ty.shape[i]).is_some());
        if !fits {
            return Err(Diagnostic::new(format!(
                "operands of `concat` differ in more than the extent of axis {axis}"
            ))
            .with("first", first.to_string(), None)
            .with("other", x.to_string(), None));
        }
        for i in 0..ty.rank() {
            ty.shape[i] = if i == axis {
                ty.shape[i].known().zip(x.shape[i].known()).map(|(a, b)| a.saturating_add(b)).into()
            } else {
                ty.shape[i].unify(x.shape[i]).unwrap_or(ty.shape[i])
            };
        }
    }
    Ok(ty)
}

fn gather_type(op: &Op, batch: usize, x: &TensorType, indices: &TensorType) -> Inferred {
    let fail = |title: String| {
        Err(Diagnostic::new(title).with("operand", x.to_string(), None).with(
            "indices",
            indices.to_string(),
            None,
        ))
    };
    if !indices.dtype.is_int() {
        return fail(format!("`{}` takes integer indices, found {}", op.name(), indices.dtype));
    }
    if indices.rank() != batch + 1 || x.rank() <= batch {
        return fail(format!(
            "`{}` with {batch} shared axes takes indices of rank {} into a tensor of rank {} or more",
            op.name(),
            batch + 1,
            batch + 1
        ));
    }
    if x.shape[batch] == Extent::Known(0) && indices.element_count().is_some_and(|count| count > 0) {
        return fail(format!("an index into axis {batch}, which has no element"));
    }
    let mut shape = SmallVec::new();
    for axis in 0..batch {
        match x.shape[axis].unify(indices.shape[axis]) {
            Some(extent) => shape.push(extent),
            None => return fail(format!("operand and indices of `{}` differ along axis {axis}", op.name())),
        }
    }
    shape.push(indices.shape[batch]);
    shape.extend(x.shape[batch + 1..].iter().copied());
    Ok(TensorType { dtype: x.dtype, shape })
}

fn infer_scan(op: &Op, scan: &Scan, operands: &[&TensorType]) -> Inferred {
    let body = &*scan.body;
    let (inputs, carries) = (body.inputs(), body.carries());
    let counted = usize::from(scan.steps == Dim::Operand);
    if operands.len() != inputs + carries + counted {
        return Err(arity(op, inputs + carries + counted, operands.len()));
    }
    let (values, counts) = operands.split_at(inputs + carries);
    let steps = extents_of_dims(op, &[scan.steps], counts)?[0];
    let parameters = body.parameters().filter_map(|leaf| body.leaf_type(leaf));
    for (position, (&value, expected)) in values.iter().zip(parameters).enumerate() {
        let role = match position {
            p if p < body.sequences => "sequence",
            p if p < inputs => "captured value",
            _ => "carry",
        };
        let mut given = value.clone();
        if position < body.sequences {
            if given.rank() == 0 {
                return Err(Diagnostic::new("a sequence of a scan wants a leading axis to run along").with(
                    "sequence",
                    value.to_string(),
                    None,
                ));
            }
            let length = given.shape.remove(0);
            if length.unify(steps).is_none() {
                let sequence = value.to_string();
                return Err(Diagnostic::new("a sequence of a scan has another length than the scan has steps")
                    .with("sequence", sequence, None)
                    .with("steps", steps.to_string(), None)
                    .hint("sequences read together have one length: slice the longer ones, or give the number of steps"));
            }
        }
        if !expected.accepts(&given) {
            return Err(Diagnostic::new(format!(
                "a {role} of a scan has another type than its body expects"
            ))
            .with("expected", expected.to_string(), None)
            .with("found", given.to_string(), None));
        }
    }
    let unknown = || Diagnostic::new("`scan` names a result that its body does not give");
    Ok(match scan.result {
        ScanResult::Steps => TensorType::scalar(DType::I64),
        ScanResult::Rows(output) => {
            let row = body.graph.ty(*body.rows().get(usize::from(output)).ok_or_else(unknown)?);
            let shape = std::iter::once(steps).chain(row.shape.iter().copied()).collect();
            TensorType { dtype: row.dtype, shape }
        }
        ScanResult::Last(carry) => {
            let carry = usize::from(carry);
            (*values.get(inputs + carry).filter(|_| carry < carries).ok_or_else(unknown)?).clone()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Python's own `range(n)[start:stop:step]`.
    #[test]
    fn slices_resolve_as_in_python() {
        let cases = [
            (Some(1), Some(4), 1, 5, (1, 3)),
            (Some(-2), None, 1, 5, (3, 2)),
            (None, None, -1, 5, (4, 5)),
            (Some(10), Some(-10), -2, 5, (4, 3)),
            (Some(3), Some(3), 1, 5, (0, 0)),
            (None, Some(100), 2, 5, (0, 3)),
            (Some(0), Some(5), 3, 0, (0, 0)),
            (None, None, -1, 0, (0, 0)),
        ];
        for (start, stop, step, n, expected) in cases {
            assert_eq!(resolve_slice(start, stop, step, n), expected, "{start:?}:{stop:?}:{step} of {n}");
        }
    }
}
