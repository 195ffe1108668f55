//! Making every extent known: a graph for one set of argument shapes.
//!
//! After this pass there is no unknown extent, no `Slice`, `SetSlice` or `Extent`, and no extent given by an operand.
//! Integer scalars are folded where that takes; the bounds `i * n` and `(i + 1) * n` of a minibatch are seen to be `n`
//! apart whatever `i` is, and become a window with a start computed when run. An extent that depends on the value of
//! an integer input makes the graph one for that value; [`Unspecialised::Needs`] asks for it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use smallvec::SmallVec;

use crate::array::{Array, Extents, fits_in_memory};
use crate::body::Body;
use crate::broken;
use crate::broken::Broken;
use crate::diagnostic::{Diagnostic, Diagnostics, Site};
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, NodeId, Operands};
use crate::infer::resolve_slice;
use crate::interp::evaluate_node;
use crate::leaf::LeafKind;
use crate::op::{
    Bound, Class, Dim, Dims, IndexCheck, LeafId, Op, Scan, ScanResult, SliceAxis, Start, View, WindowAxis,
    known_dims,
};
use crate::scalar::ScalarFn;
use crate::shape::{Extent, TensorType};

/// What is known of the arguments.
#[derive(Clone, Debug, Default)]
pub struct Arguments {
    /// The shapes of the inputs whose declared extents are not all known.
    pub shapes: BTreeMap<LeafId, Extents>,
    /// The values of the integer inputs that extents depend on.
    pub values: BTreeMap<LeafId, i64>,
}

/// Why a graph could not be made concrete.
#[derive(Clone, Debug)]
pub enum Unspecialised {
    /// Shapes do not fit, or an extent depends on a computed value.
    Faults(Diagnostics),
    /// Extents depend on the values of these integer scalar inputs; give them.
    Needs(Vec<LeafId>),
}

/// The graph for these arguments.
pub fn specialise(graph: &Graph, arguments: &Arguments) -> Result<Graph, Unspecialised> {
    let mut state = State {
        known: BTreeMap::new(),
        affine: BTreeMap::new(),
        sources: BTreeMap::new(),
        given: arguments.values.keys().copied().collect(),
        bodies: BTreeMap::new(),
        needs: BTreeSet::new(),
        faults: Vec::new(),
    };
    let mut concrete = graph.rebuilt(|out, from, id, operands| {
        let new = state.node(out, from, id, operands, arguments);
        state.note(out, new, arguments);
        new
    });
    concrete.inputs.clone_from(&graph.inputs);
    state.faults.extend(concrete.faults().iter().cloned());
    if !state.needs.is_empty() && state.faults.is_empty() {
        return Err(Unspecialised::Needs(state.needs.into_iter().collect()));
    }
    for (leaf, id) in &concrete.updates {
        let Some(leaf) = concrete.leaf(*leaf) else { continue };
        if leaf.ty != *concrete.ty(*id) {
            let title = match leaf.kind {
                LeafKind::Carry => match &leaf.name {
                    Some(name) => format!("the next value of the carry `{name}` has another type"),
                    None => "the next value of a carry has another type".to_string(),
                },
                LeafKind::Input | LeafKind::Shared(_) | LeafKind::Constant(_) => {
                    format!("the update of {} has another type than the variable", leaf.label())
                }
            };
            state.faults.push(
                Diagnostic::new(title)
                    .at(concrete.node(*id).site)
                    .with("expected", leaf.ty.to_string(), leaf.site)
                    .with("found", concrete.ty(*id).to_string(), concrete.node(*id).site),
            );
        }
    }
    // The results of a scan, and a gradient beside its formula, meet the same fault.
    let mut faults: Vec<Diagnostic> = Vec::new();
    for fault in state.faults {
        if !faults.contains(&fault) {
            faults.push(fault);
        }
    }
    if faults.is_empty() { Ok(concrete) } else { Err(Unspecialised::Faults(Diagnostics(faults))) }
}

/// A sum of integer nodes times factors, plus a constant.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Affine {
    terms: BTreeMap<NodeId, i64>,
    constant: i64,
}

impl Affine {
    fn plus(&self, other: &Affine, sign: i64) -> Affine {
        let mut sum = self.clone();
        sum.constant = sum.constant.wrapping_add(other.constant.wrapping_mul(sign));
        for (id, factor) in &other.terms {
            let term = sum.terms.entry(*id).or_default();
            *term = term.wrapping_add(factor.wrapping_mul(sign));
        }
        sum.terms.retain(|_, factor| *factor != 0);
        sum
    }

    fn times(&self, factor: i64) -> Affine {
        let mut product = Affine { constant: self.constant.wrapping_mul(factor), ..Affine::default() };
        if factor != 0 {
            product.terms = self.terms.iter().map(|(id, f)| (*id, f.wrapping_mul(factor))).collect();
        }
        product
    }
}

/// What a concrete body depends on.
type BodyKey = (Arc<Body>, Vec<TensorType>, BTreeMap<LeafId, i64>);

/// What is known of the integer scalars of the new graph.
struct State {
    known: BTreeMap<NodeId, i64>,
    affine: BTreeMap<NodeId, Affine>,
    /// The integer inputs a scalar depends on; `None` where it depends on anything else.
    sources: BTreeMap<NodeId, Option<BTreeSet<LeafId>>>,
    /// The integer inputs whose values are given.
    given: BTreeSet<LeafId>,
    /// The bodies made so far: from which, for which operand types, for which captured integers.
    bodies: BTreeMap<BodyKey, Arc<Body>>,
    needs: BTreeSet<LeafId>,
    faults: Vec<Diagnostic>,
}

impl State {
    fn node(
        &mut self,
        out: &mut Graph,
        from: &Graph,
        id: NodeId,
        operands: &[NodeId],
        arguments: &Arguments,
    ) -> NodeId {
        let node = from.node(id);
        let add = |out: &mut Graph, op: Op, operands: &[NodeId]| {
            let new = out.add_expecting(op, operands, node.site, Some(&node.ty));
            if let (Some(name), false) = (from.name(id), matches!(node.op, Op::Leaf(_))) {
                out.set_name(new, name.into());
            }
            new
        };
        if let Op::Leaf(leaf) = &node.op {
            let Some(leaf) = from.leaf(*leaf) else { return add(out, node.op.clone(), operands) };
            let ty = match arguments.shapes.get(&leaf.id) {
                Some(shape) => TensorType::known(leaf.ty.dtype, shape),
                None => leaf.ty.clone(),
            };
            if let Some(fault) = ty.fault() {
                self.faults.push(fault.at(leaf.site).with("of", leaf.label(), leaf.site));
            }
            return out.add_leaf_as(leaf, ty);
        }
        if let Op::Scan(scan) = &node.op {
            return match self.scan(out, scan, operands, node.site) {
                Some((scan, operands)) if scan.steps == Dim::Known(1) && !scan.body.until => {
                    self.only_step(out, &scan, &operands, node.site).unwrap_or_else(|broken| {
                        self.faults.push(broken.with_input(&scan.body.graph).into());
                        out.add_like(from, id, &operands)
                    })
                }
                Some((scan, operands)) => add(out, Op::Scan(Box::new(scan)), &operands),
                None => out.add_like(from, id, operands),
            };
        }
        let (values, scalars) = operands.split_at(node.op.values(operands.len()));
        if let Op::Extent(axis) = node.op
            && let Some(Extent::Known(n)) = out.ty(operands[0]).shape.get(usize::from(axis))
        {
            return add(out, Op::Literal(Literal::I64(*n as i64)), &[]);
        }
        if let Some(dims) = node.op.dims()
            && let Some(dims) = self.dims(out, dims, scalars, node.site)
        {
            return add(out, node.op.with_dims(dims), values);
        }
        if let Some(axes) = node.op.slice()
            && let Some((window, starts)) = self.window(out, axes, operands[0], scalars, node.site)
        {
            let operands: Operands = values.iter().copied().chain(starts).collect();
            return add(out, node.op.with_window(window), &operands);
        }
        out.add_like(from, id, operands)
    }

    /// Records what is known of a node that has just been added.
    fn note(&mut self, out: &Graph, id: NodeId, arguments: &Arguments) {
        let node = out.node(id);
        if node.ty.rank() != 0
            || !node.ty.dtype.is_int() && node.ty.dtype != DType::Bool
            || self.sources.contains_key(&id)
        {
            return;
        }
        let known = |o: &NodeId| self.known.get(o).copied();
        let value = match node.op.class() {
            Class::Literal(value) => value.to_i64(),
            Class::Leaf(leaf) => arguments.values.get(&leaf).copied(),
            Class::Map(f) => {
                let operands: Option<SmallVec<[Literal; 3]>> = node
                    .operands
                    .iter()
                    .map(|o| Some(Literal::from_i64(known(o)?, out.ty(*o).dtype)))
                    .collect();
                operands.and_then(|operands| f.eval(&operands)).and_then(Literal::to_i64)
            }
            Class::Cast(dtype) => known(&node.operands[0]).and_then(|v| Literal::I64(v).cast(dtype).to_i64()),
            Class::View(View::Reshape | View::Broadcast(_) | View::Same) => known(&node.operands[0]),
            // Of scalars these are scalars as well.
            Class::View(_) | Class::Assembly | Class::Fold(_) => {
                let operands: Option<SmallVec<[Array; 2]>> = node
                    .operands
                    .iter()
                    .map(|o| Some(Array::from(Literal::from_i64(known(o)?, out.ty(*o).dtype))))
                    .collect();
                operands.and_then(|operands| {
                    let operands: SmallVec<[&Array; 2]> = operands.iter().collect();
                    evaluate_node(&node.op, &operands).ok()?.get(0).to_i64()
                })
            }
            Class::Index
            | Class::Indexed(_)
            | Class::Product
            | Class::Convolution(_)
            | Class::Random(_)
            | Class::Scan(_)
            | Class::Gradient(_) => None,
        };
        if let Some(value) = value {
            self.known.insert(id, value);
        }
        let known = |o: &NodeId| self.known.get(o).copied();
        // Sums of `u8` wrap at values that are positions of tensors.
        let adds = node.ty.dtype != DType::U8;
        let keeps = |to: DType| match out.ty(node.operands[0]).dtype {
            DType::Bool | DType::U8 => true,
            DType::I32 => to != DType::U8,
            DType::I64 => to == DType::I64,
            DType::F32 | DType::F64 => false,
        };
        let own = || Affine { terms: BTreeMap::from([(id, 1)]), constant: 0 };
        let part = |operand: usize| node.operands.get(operand).and_then(|o| self.affine.get(o));
        let factor = |operand: usize| node.operands.get(operand).and_then(known);
        let sum = match (value, &node.op) {
            (Some(value), _) => Some(Affine { constant: value, ..Affine::default() }),
            (None, Op::Map(ScalarFn::Add)) if adds => {
                part(0).zip(part(1)).map(|(left, right)| left.plus(right, 1))
            }
            (None, Op::Map(ScalarFn::Sub)) if adds => {
                part(0).zip(part(1)).map(|(left, right)| left.plus(right, -1))
            }
            (None, Op::Map(ScalarFn::Neg)) if adds => part(0).map(|x| x.times(-1)),
            (None, Op::Map(ScalarFn::Mul)) if adds => match (factor(0), factor(1)) {
                (Some(factor), _) => part(1).map(|x| x.times(factor)),
                (None, Some(factor)) => part(0).map(|x| x.times(factor)),
                (None, None) => None,
            },
            (None, Op::Cast(dtype)) if dtype.is_int() && keeps(*dtype) => part(0).cloned(),
            _ => None,
        };
        let affine = sum.unwrap_or_else(own);
        self.affine.insert(id, affine);
        let sources = if let Op::Leaf(leaf) = node.op {
            let leaf = out.leaf(leaf).filter(|leaf| matches!(leaf.kind, LeafKind::Input));
            leaf.map(|leaf| BTreeSet::from([leaf.id]))
        } else if let Op::Scan(_) = node.op {
            // What a scan gives is not known before it is run.
            None
        } else {
            node.operands.iter().try_fold(BTreeSet::new(), |mut all, o| {
                all.extend(self.sources.get(o)?.clone()?);
                Some(all)
            })
        };
        self.sources.insert(id, if value.is_some() { Some(BTreeSet::new()) } else { sources });
    }

    /// The value of a scalar that an extent depends on; where it is not known, says what is missing.
    fn value(&mut self, out: &Graph, id: NodeId, site: Option<Site>) -> Option<i64> {
        if let Some(value) = self.known.get(&id) {
            return Some(*value);
        }
        match self.sources.get(&id) {
            Some(Some(sources)) if sources.iter().any(|leaf| !self.given.contains(leaf)) => {
                self.needs.extend(sources.iter().copied());
            }
            // It may depend on the extent of something that waits for a value: the next attempt will tell.
            _ if !self.needs.is_empty() => {}
            // Of something faulty the extents are not known; that it is faulty is told.
            _ if rests_on_extent(out, id) && !(self.faults.is_empty() && out.faults().is_empty()) => {}
            _ => self.faults.push(
                Diagnostic::new("an extent depends on a computed value")
                    .at(site)
                    .with(
                        "value",
                        format!("{} of `{}`", out.ty(id), out.node(id).op.name()),
                        out.node(id).site,
                    )
                    .hint("extents may depend on shapes and on integer inputs; pass the value as an input"),
            ),
        }
        None
    }

    /// A scan with known steps and a body for operands of these types.
    fn scan(
        &mut self,
        out: &Graph,
        scan: &Scan,
        operands: &[NodeId],
        site: Option<Site>,
    ) -> Option<(Scan, Operands)> {
        let body = &*scan.body;
        let (values, counts) = operands.split_at_checked(body.inputs() + body.carries())?;
        if let Some(n) = counts.first().and_then(|id| self.known.get(id)).filter(|n| **n < 0) {
            self.faults.push(Diagnostic::new(format!("a scan of {n} steps")).at(site));
            return None;
        }
        let steps = self.dims(out, &[scan.steps], counts, site)?[0];
        let types: Vec<TensorType> = values.iter().map(|id| out.ty(*id).clone()).collect();
        if types.iter().any(|ty| !ty.is_known()) {
            return None;
        }
        // Carries change from step to step, elements are not looked into; a captured integer is what it is outside.
        let known: BTreeMap<LeafId, i64> = (body.graph.inputs.iter().zip(values).skip(body.sequences))
            .filter_map(|(leaf, id)| Some((*leaf, *self.known.get(id)?)))
            .collect();
        let key = (scan.body.clone(), types, known);
        let concrete = match self.bodies.get(&key) {
            Some(concrete) => concrete.clone(),
            None => {
                let (_, types, known) = &key;
                let concrete = self.body(out, body, values, types, known, site)?;
                self.bodies.entry(key).or_insert(concrete).clone()
            }
        };
        Some((Scan { body: concrete, steps, ..scan.clone() }, values.into()))
    }

    /// A result of a scan of one step: that of the step itself.
    fn only_step(
        &mut self,
        out: &mut Graph,
        scan: &Scan,
        operands: &[NodeId],
        site: Option<Site>,
    ) -> Result<NodeId, Broken> {
        let extents = |ty: &TensorType| ty.extents().ok_or_else(|| broken!("known extents in a step", ty));
        let body = &scan.body.graph;
        let root = match scan.result {
            ScanResult::Rows(output) => body.outputs[usize::from(output)],
            ScanResult::Last(carry) => body.updates[usize::from(carry)].1,
            ScanResult::Steps => return Ok(out.add(Op::Literal(Literal::I64(1)), &[], site)),
        };
        let leaves: BTreeMap<LeafId, NodeId> = scan.body.parameters().zip(operands.iter().copied()).collect();
        let mut step = body.clone();
        step.outputs = vec![root];
        step.updates.clear();
        let live = step.reachable();
        let mut placed: Vec<Option<NodeId>> = vec![None; body.len()];
        for (id, node) in body.nodes().filter(|(id, _)| live[id.index()]) {
            let value = if let Op::Leaf(leaf) = &node.op { leaves.get(leaf) } else { None };
            let new = match value {
                Some(value) if *out.ty(*value) == node.ty => *value,
                // An element of a sequence of one.
                Some(value) => {
                    let shape = known_dims(&extents(&node.ty)?);
                    out.add(Op::Reshape(shape), &[*value], site)
                }
                None => {
                    let operands: Operands = node.operands.iter().filter_map(|o| placed[o.index()]).collect();
                    out.add_like(body, id, &operands)
                }
            };
            self.note(out, new, &Arguments::default());
            placed[id.index()] = Some(new);
        }
        let value = placed[root.index()].ok_or_else(|| broken!("the result {root} of a step"))?;
        Ok(match scan.result {
            ScanResult::Rows(_) => {
                let row = extents(out.ty(value))?;
                let dims: Vec<usize> = std::iter::once(1).chain(row).collect();
                out.add(Op::Reshape(known_dims(&dims)), &[value], site)
            }
            ScanResult::Last(_) | ScanResult::Steps => value,
        })
    }

    fn body(
        &mut self,
        out: &Graph,
        body: &Body,
        values: &[NodeId],
        types: &[TensorType],
        known: &BTreeMap<LeafId, i64>,
        site: Option<Site>,
    ) -> Option<Arc<Body>> {
        let mut graph = body.graph.clone();
        for (position, (leaf, ty)) in body.parameters().zip(types).enumerate() {
            let mut ty = ty.clone();
            if position < body.sequences && ty.rank() > 0 {
                ty.shape.remove(0);
            }
            // A value of another type is the fault of the scan's node, which says so.
            if !body.leaf_type(leaf)?.accepts(&ty) {
                return None;
            }
            graph.retype_leaf(leaf, ty);
        }
        let arguments = Arguments { shapes: BTreeMap::new(), values: known.clone() };
        match specialise(&graph, &arguments) {
            Ok(graph) => Some(Arc::new(body.with_graph(graph))),
            Err(Unspecialised::Faults(faults)) => {
                self.faults.extend(faults.0);
                None
            }
            Err(Unspecialised::Needs(leaves)) => {
                for (leaf, value) in body.graph.inputs.iter().zip(values) {
                    if leaves.contains(leaf) {
                        self.value(out, *value, site);
                    }
                }
                None
            }
        }
    }

    fn dims(&mut self, out: &Graph, dims: &[Dim], scalars: &[NodeId], site: Option<Site>) -> Option<Dims> {
        let mut scalars = scalars.iter();
        let mut resolved = Vec::new();
        let mut complete = true;
        for dim in dims {
            match dim {
                Dim::Known(n) => resolved.push(Dim::Known(*n)),
                Dim::Operand => match scalars.next().and_then(|id| self.value(out, *id, site)) {
                    Some(n) if n >= 0 => resolved.push(Dim::Known(n as usize)),
                    Some(n) => {
                        self.faults.push(Diagnostic::new(format!("a negative extent {n}")).at(site));
                        complete = false;
                    }
                    None => complete = false,
                },
            }
        }
        let known: Vec<usize> =
            resolved.iter().filter_map(|dim| if let Dim::Known(n) = dim { Some(*n) } else { None }).collect();
        if !fits_in_memory(&known) {
            let fault = Diagnostic::new("extents of more elements than memory can hold");
            self.faults.push(fault.at(site).with("extents", format!("{known:?}"), None));
            return None;
        }
        complete.then(|| resolved.into())
    }

    /// A slice as a window, with the scalars that give starts.
    fn window(
        &mut self,
        out: &mut Graph,
        axes: &[SliceAxis],
        x: NodeId,
        scalars: &[NodeId],
        site: Option<Site>,
    ) -> Option<(Box<[WindowAxis]>, Operands)> {
        let mut scalars = scalars.iter().copied();
        let mut windows = Vec::new();
        let mut starts = Operands::new();
        let mut complete = true;
        for (axis, slice) in axes.iter().enumerate() {
            let Extent::Known(extent) = out.ty(x).shape[axis] else { return None };
            let operand = |bound: Bound, scalars: &mut dyn Iterator<Item = NodeId>| {
                if bound == Bound::Operand { scalars.next() } else { None }
            };
            let (start, stop, step) = match *slice {
                SliceAxis::At(at) => {
                    let given = operand(at, &mut scalars);
                    let known = match (at, given) {
                        (Bound::Known(at), _) => Some(at),
                        (_, Some(id)) => self.known.get(&id).copied(),
                        (_, None) => None,
                    };
                    let check = IndexCheck { axis: axis as u8, extent, len: 1, is_range: false };
                    match (known.map(|at| (at, check.position(at))), given) {
                        (Some((_, Some(first))), _) => {
                            windows.push(WindowAxis { start: Start::Known(first), len: 1, step: 1 });
                        }
                        (Some((at, None)), _) => {
                            let operand = describe(out, x);
                            let fault = check.fault(at).at(site).with("operand", operand, out.node(x).site);
                            self.faults.push(fault);
                            complete = false;
                        }
                        (None, Some(_)) if extent == 0 => {
                            let title = format!("an index into axis {axis}, which has no element");
                            let operand = describe(out, x);
                            let fault = Diagnostic::new(title).at(site);
                            self.faults.push(fault.with("operand", operand, out.node(x).site));
                            complete = false;
                        }
                        (None, Some(id)) => {
                            windows.push(WindowAxis { start: Start::Operand, len: 1, step: 1 });
                            starts.push(id);
                        }
                        (None, None) => complete = false,
                    }
                    continue;
                }
                SliceAxis::Part { start, stop, of } if of == extent => {
                    windows.push(WindowAxis { start: Start::Known(start), len: stop - start, step: 1 });
                    continue;
                }
                // The typing rule of the slice says what is wrong.
                SliceAxis::Part { .. } => return None,
                SliceAxis::Range { start, stop, step } => (start, stop, step),
            };
            let (first, last) = (operand(start, &mut scalars), operand(stop, &mut scalars));
            if step == 1
                && let (Some(first), Some(last)) = (first, last)
                && let Some(len) = self.fixed_length(first, last, extent)
            {
                if len == 0 {
                    // Whatever the bounds are.
                    windows.push(WindowAxis { start: Start::Known(0), len, step: 1 });
                } else {
                    windows.push(WindowAxis { start: Start::Range, len, step: 1 });
                    starts.push(first);
                }
                continue;
            }
            let mut bound = |bound: Bound, operand: Option<NodeId>| match (bound, operand) {
                (Bound::End, _) => Some(None),
                (Bound::Known(n), _) => Some(Some(n)),
                (Bound::Operand, Some(id)) => self.value(out, id, site).map(Some),
                (Bound::Operand, None) => None,
            };
            match (bound(start, first), bound(stop, last)) {
                (Some(from), Some(to)) => {
                    let (first, len) = resolve_slice(from, to, step, extent);
                    windows.push(WindowAxis {
                        start: Start::Known(first),
                        len,
                        step: if len == 0 { 1 } else { step },
                    });
                }
                _ => complete = false,
            }
        }
        complete.then(|| (windows.into(), starts))
    }

    /// The length of a slice whose start is not known but whose bounds are a fixed distance apart.
    fn fixed_length(&self, start: NodeId, stop: NodeId, extent: usize) -> Option<usize> {
        if self.known.contains_key(&start) {
            return None;
        }
        let distance = self.affine.get(&stop)?.plus(self.affine.get(&start)?, -1);
        let len = usize::try_from(distance.constant).ok()?;
        // Bounds computed in `i32` are that far apart only where the second one is an `i32`.
        let holds = distance.terms.is_empty() && extent <= i32::MAX as usize;
        (holds && len <= extent).then_some(len)
    }
}

/// A value for messages: its type, and its name where it has one.
fn describe(graph: &Graph, id: NodeId) -> String {
    match graph.name(id) {
        Some(name) => format!("{} `{name}`", graph.ty(id)),
        None => graph.ty(id).to_string(),
    }
}

/// Whether a scalar is computed from an extent that is not known.
fn rests_on_extent(graph: &Graph, id: NodeId) -> bool {
    let mut seen = BTreeSet::new();
    let mut pending = vec![id];
    while let Some(id) = pending.pop() {
        if seen.insert(id) {
            let node = graph.node(id);
            if let Op::Extent(_) = node.op {
                return true;
            }
            pending.extend(node.operands.iter().copied());
        }
    }
    false
}

#[cfg(test)]
mod tests;
