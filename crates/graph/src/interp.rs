//! The reference interpreter: the definition of every operator, against which engines are tested.
//!
//! It is slow and obvious: row-major index arithmetic, one node after another, no views. Sums, products and dot products
//! of `f32` are accumulated in `f64` and rounded once, so that engines with any order of summation approximate it;
//! those of integers wrap. It takes graphs at every stage but with [`Op::Grad`]: unknown extents are found when run.
//! Each node is computed in two steps: [`resolve`] replaces extents and bounds given as operands by their values, then
//! [`infer`] checks the very operator that is computed. Values are dropped after their last use. A scan is the graph of
//! its body run step by step, once for all of its results that are used.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use crate::array::{Array, element_count, fits_in_memory, row_major_strides};
use crate::diagnostic::Diagnostic;
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, Node, NodeId};
use crate::infer::{infer, resolve_slice};
use crate::leaf::{Leaf, LeafKind, SharedCell};
use crate::op::{
    Bound, ConvAxis, Dim, Fold, IndexCheck, LeafId, Op, Scan, ScanResult, SliceAxis, Start, WindowAxis, Write,
};
use crate::random::uniform_element;
use crate::scalar::ScalarFn;
use crate::scan_nodes::{ScanNode, by_scan};
use crate::shape::{Axes, TensorType};
use crate::text::shown::Few;

mod scan;

/// What a run of a graph gives.
#[derive(Clone, PartialEq)]
pub struct Evaluation {
    /// The values of the graph's outputs, in their order.
    pub outputs: Vec<Array>,
    /// The new values of shared variables, in the order of the graph's updates. They are not written.
    pub updates: Vec<(LeafId, Array)>,
}

impl fmt::Debug for Evaluation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Evaluation")
            .field("outputs", &Few(&self.outputs))
            .field("updates", &Few(&self.updates))
            .finish()
    }
}

/// Runs a graph on inputs given in its order. Shared variables are read and not written.
///
/// An error says which input has another type than declared, or which node met extents that do not fit or an index
/// out of range, with the line that built it.
pub fn interpret(graph: &Graph, inputs: &[Array]) -> Result<Evaluation, Diagnostic> {
    interpret_with(graph, inputs, &mut evaluate_node)
}

/// What computes a node that is neither a leaf nor a scan, from its operator and the values of its operands.
pub type Evaluate<'e> = &'e mut dyn FnMut(&Op, &[&Array]) -> Result<Array, Diagnostic>;

/// Runs a graph as [`interpret`] does, with every node, also those of scans' bodies, computed by `evaluate`: for tests
/// that disturb or watch values.
pub fn interpret_with(
    graph: &Graph,
    inputs: &[Array],
    evaluate: Evaluate<'_>,
) -> Result<Evaluation, Diagnostic> {
    check_inputs(graph, inputs)?;
    let inputs: Vec<&Array> = inputs.iter().collect();
    let run = Run::new(graph, graph.roots());
    let values = run.values(&inputs, &[], evaluate)?;
    let value = |id: NodeId| values.of(id).cloned();
    Ok(Evaluation {
        outputs: graph.outputs.iter().map(|&id| value(id)).collect::<Result<_, _>>()?,
        updates: graph
            .updates
            .iter()
            .map(|&(leaf, id)| value(id).map(|value| (leaf, value)))
            .collect::<Result<_, _>>()?,
    })
}

/// A graph about to be run, once or step by step.
struct Run<'a> {
    graph: &'a Graph,
    /// For every node, how many nodes and roots wait for it.
    uses: Vec<u32>,
    /// The results of each scan that are used, by the first of them: they are made together.
    scans: BTreeMap<NodeId, Vec<ScanNode>>,
}

/// Values that one node has led to: its own, and those of the other results of a scan.
type Made<'a> = SmallVec<[(NodeId, Cow<'a, Array>); 1]>;

/// The values of the roots of a run.
struct Values<'a>(Vec<Option<Cow<'a, Array>>>);

impl Values<'_> {
    fn of(&self, id: NodeId) -> Result<&Array, Diagnostic> {
        match self.0.get(id.index()) {
            Some(Some(value)) => Ok(value),
            Some(None) | None => {
                Err(Diagnostic::new("an output or update names a node that the graph lacks"))
            }
        }
    }
}

impl<'a> Run<'a> {
    /// A run that computes what these nodes depend on.
    fn new(graph: &'a Graph, roots: impl Iterator<Item = NodeId>) -> Run<'a> {
        let mut uses = vec![0; graph.len()];
        for root in roots.filter(|root| root.index() < graph.len()) {
            uses[root.index()] += 1;
        }
        for (id, node) in graph.nodes().rev() {
            if uses[id.index()] > 0 {
                for operand in node.operands.iter().filter(|operand| operand.index() < graph.len()) {
                    uses[operand.index()] += 1;
                }
            }
        }
        let used = by_scan(graph.scan_nodes().filter(|(_, (id, _))| uses[id.index()] > 0));
        let scans = used.into_iter().map(|(_, results)| (results[0].0, results)).collect();
        Run { graph, uses, scans }
    }

    /// The values of the roots, for values of the inputs and, in a scan's body, of the carries.
    fn values<'b>(
        &'b self,
        inputs: &[&'b Array],
        carries: &[&'b Array],
        evaluate: Evaluate<'_>,
    ) -> Result<Values<'b>, Diagnostic> {
        let mut uses = self.uses.clone();
        let mut values: Vec<Option<Cow<'b, Array>>> = vec![None; self.graph.len()];
        for (id, node) in self.graph.nodes() {
            if uses[id.index()] == 0 {
                continue;
            }
            if values[id.index()].is_none() {
                let made = self
                    .compute(id, node, inputs, carries, &values, evaluate)
                    .map_err(|fault| if fault.at.is_some() { fault } else { fault.at(node.site) })?;
                for (id, value) in made {
                    values[id.index()] = Some(value);
                }
            }
            for operand in &node.operands {
                uses[operand.index()] -= 1;
                if uses[operand.index()] == 0 {
                    values[operand.index()] = None;
                }
            }
        }
        Ok(Values(values))
    }

    /// The value of a node; where it is a result of a scan, those of the others too.
    fn compute<'b>(
        &'b self,
        id: NodeId,
        node: &Node,
        inputs: &[&'b Array],
        carries: &[&'b Array],
        values: &[Option<Cow<'b, Array>>],
        evaluate: Evaluate<'_>,
    ) -> Result<Made<'b>, Diagnostic> {
        if let Op::Leaf(leaf) = node.op {
            let value = leaf_value(self.graph, leaf, inputs, carries)?;
            return Ok(smallvec![(id, check_value(value, &node.ty)?)]);
        }
        let operands: SmallVec<[&Array; 4]> =
            node.operands.iter().filter_map(|o| values.get(o.index())?.as_deref()).collect();
        if operands.len() != node.operands.len() {
            return Err(Diagnostic::new(format!("an operand of `{}` stands after it", node.op.name())));
        }
        let Op::Scan(scan) = &node.op else {
            let value = evaluate(&node.op, &operands)?;
            return Ok(smallvec![(id, check_value(Cow::Owned(value), &node.ty)?)]);
        };
        let own = [(id, scan.result)];
        let results = self.scans.get(&id).map_or(&own[..], Vec::as_slice);
        let wanted: Vec<ScanResult> = results.iter().map(|(_, result)| *result).collect();
        let made = scan::run(scan, &operands, &wanted, evaluate)?.into_iter();
        results
            .iter()
            .zip(made)
            .map(|((id, _), value)| Ok((*id, check_value(Cow::Owned(value), self.graph.ty(*id))?)))
            .collect()
    }
}

/// The type of an array.
fn type_of(array: &Array) -> TensorType {
    TensorType::known(array.dtype(), array.shape())
}

fn check_inputs(graph: &Graph, inputs: &[Array]) -> Result<(), Diagnostic> {
    if inputs.len() != graph.inputs.len() {
        return Err(Diagnostic::new(format!(
            "{} inputs are expected, {} were given",
            graph.inputs.len(),
            inputs.len()
        )));
    }
    for (position, (id, value)) in graph.inputs.iter().zip(inputs).enumerate() {
        let Some(leaf) = graph.leaf(*id) else {
            return Err(Diagnostic::new(format!("input {position} of the graph is no leaf of it")));
        };
        if !leaf.ty.accepts(&type_of(value)) {
            return Err(Diagnostic::new(format!(
                "input {position} ({}) was given a value of another type",
                leaf.label()
            ))
            .at(leaf.site)
            .with("expected", leaf.ty.to_string(), leaf.site)
            .with("found", type_of(value).to_string(), None));
        }
    }
    Ok(())
}

fn leaf_value<'a>(
    graph: &'a Graph,
    id: LeafId,
    inputs: &[&'a Array],
    carries: &[&'a Array],
) -> Result<Cow<'a, Array>, Diagnostic> {
    let leaf: &Arc<Leaf> =
        graph.leaf(id).ok_or_else(|| Diagnostic::new(format!("leaf {} is not listed in the graph", id.0)))?;
    match &leaf.kind {
        LeafKind::Constant(value) => Ok(Cow::Borrowed(value.as_ref())),
        LeafKind::Shared(cell) => shared_value(leaf, cell).map(Cow::Owned),
        LeafKind::Carry => graph
            .updates
            .iter()
            .position(|(carry, _)| *carry == id)
            .and_then(|position| carries.get(position))
            .map(|value| Cow::Borrowed(*value))
            .ok_or_else(|| Diagnostic::new(format!("{} has no value outside of its scan", leaf.label()))),
        LeafKind::Input => graph
            .inputs
            .iter()
            .position(|&input| input == id)
            .and_then(|position| inputs.get(position))
            .map(|value| Cow::Borrowed(*value))
            .ok_or_else(|| Diagnostic::new(format!("{} is used and not listed as an input", leaf.label()))),
    }
}

fn shared_value(leaf: &Leaf, cell: &SharedCell) -> Result<Array, Diagnostic> {
    let mut state = cell.lock();
    state.fetch().map_err(|e| {
        Diagnostic::new(format!("the value of {} could not be read from its device: {e}", leaf.label()))
    })?;
    Ok(state.host.clone())
}

fn check_value<'a>(value: Cow<'a, Array>, ty: &TensorType) -> Result<Cow<'a, Array>, Diagnostic> {
    if ty.accepts(&type_of(&value)) {
        return Ok(value);
    }
    Err(Diagnostic::new("a value has another type than its node")
        .with("expected", ty.to_string(), None)
        .with("found", type_of(&value).to_string(), None))
}

/// The value of one operator on values of its operands.
///
/// An error says which typing rule the values violate, or which index, bound or extent is out of range. Leaves and
/// gradients not yet taken have no value of their own.
pub fn evaluate_node(op: &Op, operands: &[&Array]) -> Result<Array, Diagnostic> {
    if let Op::Scan(scan) = op {
        let mut results = scan::run(scan, operands, &[scan.result], &mut evaluate_node)?;
        return results.pop().ok_or_else(|| Diagnostic::new("a scan gave no result"));
    }
    let type_on = |op: &Op, operands: &[&Array]| {
        let types: SmallVec<[TensorType; 4]> = operands.iter().map(|x| type_of(x)).collect();
        infer(op, &types.iter().collect::<SmallVec<[&TensorType; 4]>>())
    };
    check_extents(op)?;
    type_on(op, operands)?;
    let (op, operands) = resolve(op, operands)?;
    check_extents(&op)?;
    let ty = type_on(&op, operands)?;
    let shape = ty.extents().ok_or_else(|| {
        Diagnostic::new(format!("the extents of `{}` are not known when it is run", op.name()))
    })?;
    check_size(&op, &shape, ty.dtype)?;
    // `infer` has refused other numbers of operands.
    match &op {
        Op::Literal(value) => Ok(Array::from(*value)),
        Op::Iota(_) => {
            let positions: Vec<i64> = (0..element_count(&shape) as i64).collect();
            Array::new(&shape, &positions)
        }
        Op::Extent(axis) => Ok(Array::scalar(operands[0].shape()[usize::from(*axis)] as i64)),
        Op::Map(f) => map(*f, operands, &ty, &shape),
        Op::Cast(dtype) => Ok(operands[0].cast(*dtype)),
        Op::Reduce(fold, axes) => reduce(*fold, *axes, operands[0], &shape),
        Op::Mean(axes) => mean(*axes, operands[0], &shape),
        Op::ArgMax(axis) => argmax(usize::from(*axis), operands[0], &shape),
        Op::Cumsum(axis) => cumsum(usize::from(*axis), operands[0]),
        Op::Dot => dot(operands[0], operands[1], &shape),
        Op::Conv(axes) => conv(axes, operands[0], operands[1], &shape),
        Op::Broadcast { axes, .. } => {
            let x = operands[0];
            let own = row_major_strides(x.shape());
            let mut strides = vec![0isize; shape.len()];
            for (axis, &place) in axes.iter().enumerate() {
                strides[usize::from(place)] = if x.shape()[axis] == 1 { 0 } else { own[axis] as isize };
            }
            view(x, &shape, 0, &strides)
        }
        Op::Permute(permutation) => {
            let own = row_major_strides(operands[0].shape());
            let strides: Vec<isize> =
                permutation.iter().map(|&axis| own[usize::from(axis)] as isize).collect();
            view(operands[0], &shape, 0, &strides)
        }
        Op::Reshape(_) => {
            operands[0].clone().reshaped(&shape).ok_or_else(|| Diagnostic::new("`reshape` to another size"))
        }
        Op::Window(axes) => {
            let (offset, strides) = window_strides(axes, operands[0].shape());
            view(operands[0], &shape, offset, &strides)
        }
        Op::SetWindow(axes, write) => {
            let (x, y) = (operands[0], operands[1]);
            let (offset, strides) = window_strides(axes, x.shape());
            let mut result = x.clone();
            for (from, to) in positions(y.shape(), offset, &strides).enumerate() {
                write_element(&op, *write, &mut result, to, y.get(from))?;
            }
            Ok(result)
        }
        Op::Concat(axis) => concat(usize::from(*axis), operands, ty.dtype, &shape),
        Op::Gather { batch } => gather(&op, usize::from(*batch), operands[0], operands[1], &shape),
        Op::Scatter { batch, write } => {
            scatter(&op, usize::from(*batch), *write, operands[0], operands[1], operands[2])
        }
        Op::Random { key, .. } => random(*key, operands[0], &shape),
        Op::StopGradient => Ok(operands[0].clone()),
        // `infer` refuses leaves, `resolve` replaces slices by windows, and scans are run above.
        Op::Leaf(_) | Op::Slice(_) | Op::SetSlice(..) | Op::Scan(_) => {
            Err(Diagnostic::new(format!("`{}` has no value of its own", op.name())))
        }
        Op::Grad(_) => Err(Diagnostic::new("a gradient has no value before it is taken")
            .hint("differentiate the graph before it is interpreted")),
    }
}

/// The operator with every extent, bound and start that is an operand replaced by its value, slices by windows, and
/// the operands that remain. The types of operator and operands have been checked.
pub fn resolve<'a, 'b>(op: &Op, operands: &'a [&'b Array]) -> Result<(Op, &'a [&'b Array]), Diagnostic> {
    let (values, scalars) = operands.split_at(op.values(operands.len()));
    let mut scalars = scalars.iter();
    let mut next = || next_scalar(op, &mut scalars);
    let mut resolved = op.clone();
    if let Some(dims) = op.dims() {
        let known = |dim: &Dim| match dim {
            Dim::Known(n) => Ok(Dim::Known(*n)),
            Dim::Operand => extent_value(op, next()?).map(Dim::Known),
        };
        resolved = op.with_dims(dims.iter().map(known).collect::<Result<_, _>>()?);
    } else if let Some(axes) = op.slice() {
        resolved = op.with_window(resolve_slices(op, axes, values[0], next)?);
    } else if let Some(axes) = op.window() {
        resolved = op.with_window(resolve_windows(axes, values[0], next)?);
    } else if let Op::Scan(scan) = op
        && scan.steps == Dim::Operand
    {
        let steps = next()?;
        let steps = usize::try_from(steps).map_err(|_| {
            Diagnostic::new("the number of steps of a scan is negative")
                .with("expected", "0 or more", None)
                .with("found", steps.to_string(), None)
        })?;
        resolved = Op::Scan(Box::new(Scan { steps: Dim::Known(steps), ..(**scan).clone() }));
    }
    Ok((resolved, values))
}

fn random(key: u64, counter: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let counter = counter.get(0).to_i64().ok_or_else(|| Diagnostic::new("`random` takes an i64 counter"))?;
    let elements: Vec<f32> =
        (0..element_count(shape)).map(|e| uniform_element(key, counter, e as u64)).collect();
    Array::new(shape, &elements)
}

fn next_scalar<'a>(op: &Op, scalars: &mut impl Iterator<Item = &'a &'a Array>) -> Result<i64, Diagnostic> {
    scalars
        .next()
        .filter(|array| array.len() == 1)
        .and_then(|array| array.get(0).to_i64())
        .ok_or_else(|| Diagnostic::new(format!("`{}` takes bounds and extents as i64 scalars", op.name())))
}

fn extent_value(op: &Op, value: i64) -> Result<usize, Diagnostic> {
    usize::try_from(value).map_err(|_| {
        Diagnostic::new(format!("an extent of `{}` is negative", op.name()))
            .with("expected", "0 or more", None)
            .with("found", value.to_string(), None)
    })
}

fn resolve_slices(
    op: &Op,
    axes: &[SliceAxis],
    operand: &Array,
    mut next: impl FnMut() -> Result<i64, Diagnostic>,
) -> Result<Box<[WindowAxis]>, Diagnostic> {
    let mut bound = |bound: Bound| match bound {
        Bound::End => Ok(None),
        Bound::Known(value) => Ok(Some(value)),
        Bound::Operand => next().map(Some),
    };
    let parts = axes.iter().zip(operand.shape()).enumerate().map(|(number, (axis, &extent))| {
        let (start, stop, step) = match *axis {
            SliceAxis::At(at) => {
                let check = IndexCheck { axis: number as u8, extent, len: 1, is_range: false };
                let found =
                    bound(at)?.ok_or_else(|| Diagnostic::new(format!("`{}` at no position", op.name())))?;
                let start = Start::Known(checked(&check, found, operand)?);
                return Ok(WindowAxis { start, len: 1, step: 1 });
            }
            SliceAxis::Part { start, stop, .. } => {
                return Ok(WindowAxis { start: Start::Known(start), len: stop - start, step: 1 });
            }
            SliceAxis::Range { start, stop, step } => (bound(start)?, bound(stop)?, step),
        };
        let (first, len) = resolve_slice(start, stop, step, extent);
        Ok(WindowAxis { start: Start::Known(first), len, step })
    });
    parts.collect()
}

/// The position that an index or a start names in an operand.
fn checked(check: &IndexCheck, found: i64, operand: &Array) -> Result<usize, Diagnostic> {
    check
        .position(found)
        .ok_or_else(|| check.fault(found).with("operand", type_of(operand).to_string(), None))
}

fn resolve_windows(
    axes: &[WindowAxis],
    operand: &Array,
    mut next: impl FnMut() -> Result<i64, Diagnostic>,
) -> Result<Box<[WindowAxis]>, Diagnostic> {
    let starts = axes.iter().zip(operand.shape()).enumerate().map(|(number, (axis, &extent))| {
        let Some(check) = axis.check(number, extent) else { return Ok(*axis) };
        let start = checked(&check, next()?, operand)?;
        Ok(WindowAxis { start: Start::Known(start), ..*axis })
    });
    starts.collect()
}

/// Refuses attributes whose products would overflow, before any rule multiplies them.
pub(crate) fn check_extents(op: &Op) -> Result<(), Diagnostic> {
    if let Some(axes) = op.window() {
        return check_windows(op, axes);
    }
    let Some(dims) = op.dims() else { return Ok(()) };
    let known: Vec<usize> = dims
        .iter()
        .filter_map(|dim| match dim {
            Dim::Known(n) => Some(*n),
            Dim::Operand => None,
        })
        .collect();
    if fits_in_memory(&known) {
        return Ok(());
    }
    Err(Diagnostic::new(format!("`{}` would give more elements than memory can hold", op.name())).with(
        "extents",
        format!("{known:?}"),
        None,
    ))
}

fn check_windows(op: &Op, axes: &[WindowAxis]) -> Result<(), Diagnostic> {
    let lengths: Vec<usize> = axes.iter().map(|axis| axis.len).collect();
    let reaches = |axis: &WindowAxis| {
        let start = match axis.start {
            Start::Known(start) => i64::try_from(start).ok()?,
            Start::Operand | Start::Range => 0,
        };
        axis.step.checked_mul(i64::try_from(axis.len).ok()?)?.checked_add(start)
    };
    if fits_in_memory(&lengths) && axes.iter().all(|axis| reaches(axis).is_some()) {
        return Ok(());
    }
    Err(Diagnostic::new(format!("`{}` reaches outside any tensor", op.name())).with(
        "window",
        format!("{axes:?}"),
        None,
    ))
}

/// Asks for the memory of a large result before it is taken, since running out would end the process.
pub(crate) fn check_size(op: &Op, shape: &[usize], dtype: DType) -> Result<(), Diagnostic> {
    const UNQUESTIONED: usize = 1 << 28;
    let fail = || {
        Diagnostic::new(format!("the result of `{}` does not fit in memory", op.name())).with(
            "result",
            TensorType::known(dtype, shape).to_string(),
            None,
        )
    };
    if !fits_in_memory(shape) {
        return Err(fail());
    }
    let bytes = element_count(shape) * dtype.size();
    if bytes > UNQUESTIONED {
        Vec::<u8>::new().try_reserve_exact(bytes).map_err(|_| fail())?;
    }
    Ok(())
}

/// The positions `offset + sum(index[axis] * strides[axis])` for every index of the shape, in row-major order.
fn positions<'a>(
    shape: &'a [usize],
    offset: isize,
    strides: &'a [isize],
) -> impl Iterator<Item = usize> + 'a {
    let mut index: SmallVec<[usize; 8]> = shape.iter().map(|_| 0).collect();
    let mut position = offset;
    (0..element_count(shape)).map(move |_| {
        let current = position;
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            position += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            position -= strides[axis] * shape[axis] as isize;
            index[axis] = 0;
        }
        current as usize
    })
}

/// The array of that shape whose element at `index` is the one of `x` at `offset + sum(index[axis] * strides[axis])`.
fn view(x: &Array, shape: &[usize], offset: isize, strides: &[isize]) -> Result<Array, Diagnostic> {
    let mut result = Array::zeros(x.dtype(), shape)?;
    let size = x.dtype().size();
    let source = x.bytes();
    let slots = result.bytes_mut().chunks_exact_mut(size);
    for (slot, from) in slots.zip(positions(shape, offset, strides)) {
        slot.copy_from_slice(&source[from * size..(from + 1) * size]);
    }
    Ok(result)
}

/// Position of the first element of a window, and distances between its elements.
fn window_strides(axes: &[WindowAxis], shape: &[usize]) -> (isize, SmallVec<[isize; 8]>) {
    let mut offset = 0;
    let strides = axes.iter().zip(row_major_strides(shape)).map(|(axis, stride)| {
        if let Start::Known(start) = axis.start
            && axis.len > 0
        {
            offset += (start * stride) as isize;
        }
        // A step reaches past the axis only where the window has a single element, and is then never taken.
        if axis.len > 1 { axis.step as isize * stride as isize } else { 0 }
    });
    let strides = strides.collect();
    (offset, strides)
}

fn write_element(
    op: &Op,
    write: Write,
    array: &mut Array,
    position: usize,
    value: Literal,
) -> Result<(), Diagnostic> {
    let value = match write {
        Write::Set => value,
        Write::Add => ScalarFn::Add
            .eval(&[array.get(position), value])
            .ok_or_else(|| Diagnostic::new(format!("`{}` is not defined on {}", op.name(), array.dtype())))?,
    };
    array.set(position, value);
    Ok(())
}

fn map(f: ScalarFn, operands: &[&Array], ty: &TensorType, shape: &[usize]) -> Result<Array, Diagnostic> {
    let mut result = Array::zeros(ty.dtype, shape)?;
    for position in 0..result.len() {
        let elements: SmallVec<[Literal; 3]> = operands.iter().map(|x| x.get(position)).collect();
        let value = f
            .eval(&elements)
            .ok_or_else(|| Diagnostic::new(format!("`{f}` is not defined on these element types")))?;
        result.set(position, value);
    }
    Ok(result)
}

/// The strides in the result of folding `axes` of the elements of `x`: those that differ along these axes only go to one
/// position.
fn strides_of_fold(x: &Array, axes: Axes, shape: &[usize]) -> SmallVec<[isize; 8]> {
    let mut strides: SmallVec<[isize; 8]> = x.shape().iter().map(|_| 0).collect();
    for (axis, stride) in axes.others(x.rank()).zip(row_major_strides(shape)) {
        strides[axis] = stride as isize;
    }
    strides
}

/// In double precision, of parts that cannot overflow, and then corrected by the mean of what is left.
fn mean(axes: Axes, x: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let count = axes.iter().map(|axis| x.shape()[axis] as f64).product::<f64>();
    let extents: usize = shape.iter().product();
    let (mut means, mut left) = (vec![0.0; extents], vec![0.0; extents]);
    let element = |position| x.get(position).to_f64();
    let strides = strides_of_fold(x, axes, shape);
    for (from, to) in positions(x.shape(), 0, &strides).enumerate() {
        means[to] += element(from) / count;
    }
    for (from, to) in positions(x.shape(), 0, &strides).enumerate() {
        left[to] += element(from) - means[to];
    }
    let mut result = Array::zeros(x.dtype(), shape)?;
    for (position, (mean, left)) in means.into_iter().zip(left).enumerate() {
        let correction = if left.is_finite() { left / count } else { 0.0 };
        let value = if count == 0.0 { f64::NAN } else { mean + correction };
        result.set(position, Literal::from_f64(value, x.dtype()));
    }
    Ok(result)
}

fn reduce(fold: Fold, axes: Axes, x: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let strides = strides_of_fold(x, axes, shape);
    let targets = positions(x.shape(), 0, &strides).enumerate();
    let mut result = Array::full(shape, fold.identity(x.dtype()))?;
    if x.dtype() == DType::F32 && matches!(fold, Fold::Sum | Fold::Prod) {
        let mut wide = result.cast(DType::F64);
        for (from, to) in targets {
            join(fold, &mut wide, to, x.get(from).cast(DType::F64))?;
        }
        return Ok(wide.cast(DType::F32));
    }
    for (from, to) in targets {
        join(fold, &mut result, to, x.get(from))?;
    }
    Ok(result)
}

fn cumsum(axis: usize, x: &Array) -> Result<Array, Diagnostic> {
    let (stride, extent) = (row_major_strides(x.shape())[axis], x.shape()[axis]);
    let mut sums = if x.dtype() == DType::F32 { x.cast(DType::F64) } else { x.clone() };
    // Row-major order meets the sum before that of each element.
    for position in (0..x.len()).filter(|position| position / stride % extent > 0) {
        let before = sums.get(position - stride);
        join(Fold::Sum, &mut sums, position, before)?;
    }
    Ok(sums.cast(x.dtype()))
}

fn join(fold: Fold, array: &mut Array, position: usize, value: Literal) -> Result<(), Diagnostic> {
    let joined = fold
        .join()
        .eval(&[array.get(position), value])
        .ok_or_else(|| Diagnostic::new(format!("`{}` is not defined on {}", fold.name(), array.dtype())))?;
    array.set(position, joined);
    Ok(())
}

fn argmax(axis: usize, x: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let extent = x.shape()[axis];
    if extent == 0 {
        return Err(Diagnostic::new("`argmax` along an axis of extent 0 has no answer").with(
            "operand",
            type_of(x).to_string(),
            None,
        ));
    }
    let stride = row_major_strides(x.shape())[axis];
    let mut result = Array::zeros(DType::I64, shape)?;
    for position in 0..result.len() {
        let first = position / stride * stride * extent + position % stride;
        let mut best = 0;
        for candidate in 1..extent {
            if exceeds(x.get(first + candidate * stride), x.get(first + best * stride)) {
                best = candidate;
            }
        }
        result.set(position, Literal::I64(best as i64));
    }
    Ok(result)
}

/// Whether an element takes the place of the largest so far: a NaN exceeds everything but a NaN.
fn exceeds(x: Literal, best: Literal) -> bool {
    match (x.to_i64(), best.to_i64()) {
        (Some(x), Some(best)) => x > best,
        _ => {
            let (x, best) = (x.to_f64(), best.to_f64());
            x > best || x.is_nan() && !best.is_nan()
        }
    }
}

fn dot(a: &Array, b: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let lead = a.rank() - 2;
    let count: usize = element_count(&a.shape()[..lead]);
    let (m, k, n) = (a.shape()[lead], a.shape()[lead + 1], b.shape()[lead + 1]);
    let mut result = Array::zeros(a.dtype(), shape)?;
    // Integers join in i64, where wrapping keeps the low bits of the narrower types.
    let wide_int = |x: &Array| -> Vec<i64> { (0..x.len()).filter_map(|i| x.get(i).to_i64()).collect() };
    let wide_float = |x: &Array| -> Vec<f64> { (0..x.len()).map(|i| x.get(i).to_f64()).collect() };
    if a.dtype().is_float() {
        let (a, b) = (wide_float(a), wide_float(b));
        each_product(count, m, k, n, |to, pairs| {
            let sum: f64 = pairs.map(|(i, j)| a[i] * b[j]).fold(0.0, |sum, x| sum + x);
            result.set(to, Literal::F64(sum.to_bits()));
        });
    } else {
        let (a, b) = (wide_int(a), wide_int(b));
        each_product(count, m, k, n, |to, pairs| {
            let sum = pairs.map(|(i, j)| a[i].wrapping_mul(b[j])).fold(0i64, i64::wrapping_add);
            result.set(to, Literal::I64(sum));
        });
    }
    Ok(result)
}

/// A convolution by its definition, summed in double precision.
fn conv(axes: &[ConvAxis], x: &Array, filters: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let lead = x.rank() - 2 - axes.len();
    let (own, others) = (row_major_strides(x.shape()), row_major_strides(filters.shape()));
    let (channels, extents, taps) =
        (x.shape()[lead + 1], &x.shape()[lead + 2..], &filters.shape()[lead + 2..]);
    let inner: Vec<usize> = std::iter::once(channels).chain(taps.iter().copied()).collect();
    let mut result = Array::zeros(x.dtype(), shape)?;
    for to in 0..result.len() {
        let place = place_of(to, shape);
        let sum = (0..element_count(&inner)).map(|tap| {
            let tap = place_of(tap, &inner);
            let (mut from, mut by) = (tap[0] * own[lead + 1], tap[0] * others[lead + 1]);
            for axis in 0..lead {
                from += place[axis] * own[axis];
                by += place[axis] * others[axis];
            }
            from += place[lead] * own[lead];
            by += place[lead + 1] * others[lead];
            for (axis, conv) in axes.iter().enumerate() {
                let tap = tap[1 + axis];
                // Zeros around the input and between its elements.
                let Some(at) = conv.source(place[lead + 2 + axis], tap, extents[axis], taps[axis]) else {
                    return 0.0;
                };
                from += at * own[lead + 2 + axis];
                by += tap * others[lead + 2 + axis];
            }
            x.get(from).to_f64() * filters.get(by).to_f64()
        });
        let sum = sum.fold(0.0, |sum, x| sum + x);
        result.set(to, Literal::F64(f64::to_bits(sum)));
    }
    Ok(result)
}

/// The position along each axis of an element in row-major order.
fn place_of(mut element: usize, shape: &[usize]) -> SmallVec<[usize; 8]> {
    let mut place: SmallVec<[usize; 8]> = SmallVec::from_elem(0, shape.len());
    for (place, n) in place.iter_mut().zip(shape).rev() {
        *place = element % n;
        element /= n;
    }
    place
}

/// Calls `visit` for each element of `count` products `[m, k] . [k, n]` with its position and the positions of the
/// `k` pairs of factors.
fn each_product(
    count: usize,
    m: usize,
    k: usize,
    n: usize,
    mut visit: impl FnMut(usize, &mut dyn Iterator<Item = (usize, usize)>),
) {
    for to in 0..count * m * n {
        let (stack, row, column) = (to / (m * n), to / n % m, to % n);
        let mut pairs = (0..k).map(|inner| ((stack * m + row) * k + inner, (stack * k + inner) * n + column));
        visit(to, &mut pairs);
    }
}

fn concat(axis: usize, operands: &[&Array], dtype: DType, shape: &[usize]) -> Result<Array, Diagnostic> {
    let mut result = Array::zeros(dtype, shape)?;
    let inner = element_count(&shape[axis + 1..]) * dtype.size();
    let outer = element_count(&shape[..axis]);
    let mut written = 0;
    for index in 0..outer {
        for x in operands {
            let run = x.shape()[axis] * inner;
            result.bytes_mut()[written..written + run]
                .copy_from_slice(&x.bytes()[index * run..(index + 1) * run]);
            written += run;
        }
    }
    Ok(result)
}

/// The rows that indices name: for each index, the position of its row among the rows of `x[B.., N, R..]`.
fn rows(op: &Op, batch: usize, x: &Array, indices: &Array) -> Result<Vec<usize>, Diagnostic> {
    let extent = x.shape()[batch];
    let count = indices.shape()[batch];
    let check = IndexCheck { axis: batch as u8, extent, len: 1, is_range: false };
    let row = |position: usize| {
        let found = indices
            .get(position)
            .to_i64()
            .ok_or_else(|| Diagnostic::new(format!("`{}` takes integer indices", op.name())))?;
        match check.position(found) {
            Some(index) => Ok(position / count * extent + index),
            None => {
                let place: Vec<usize> = row_major_strides(indices.shape())
                    .iter()
                    .zip(indices.shape())
                    .map(|(stride, extent)| position / stride % extent)
                    .collect();
                Err(check.fault(found).with("at", format!("{place:?} of the indices"), None).with(
                    "operand",
                    type_of(x).to_string(),
                    None,
                ))
            }
        }
    };
    (0..indices.len()).map(row).collect()
}

fn gather(op: &Op, batch: usize, x: &Array, indices: &Array, shape: &[usize]) -> Result<Array, Diagnostic> {
    let run = element_count(&x.shape()[batch + 1..]) * x.dtype().size();
    let mut result = Array::zeros(x.dtype(), shape)?;
    for (to, from) in rows(op, batch, x, indices)?.into_iter().enumerate() {
        let source = &x.bytes()[from * run..(from + 1) * run];
        result.bytes_mut()[to * run..(to + 1) * run].copy_from_slice(source);
    }
    Ok(result)
}

fn scatter(
    op: &Op,
    batch: usize,
    write: Write,
    x: &Array,
    indices: &Array,
    y: &Array,
) -> Result<Array, Diagnostic> {
    let run = element_count(&x.shape()[batch + 1..]);
    let mut result = x.clone();
    for (from, to) in rows(op, batch, x, indices)?.into_iter().enumerate() {
        for inner in 0..run {
            write_element(op, write, &mut result, to * run + inner, y.get(from * run + inner))?;
        }
    }
    Ok(result)
}

#[cfg(test)]
mod tests;
