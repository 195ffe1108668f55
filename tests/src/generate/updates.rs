//! Random updates that overlap: of variables of one type that read and write windows of themselves and of each other.

use std::sync::Arc;

use hypatia_graph::body::{Body, parameter};
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Backward, Bound, Dim, Scan, ScanResult, SliceAxis, known_dims};
use hypatia_graph::{Array, DType, Graph, LeafId, Literal, NodeId, Op, ScalarFn, TensorType, tensor};
use smallvec::SmallVec;

use super::{Grown, Growth, Recipe, Soil};
use crate::values::Generator;

/// The graph of a recipe whose nodes are mostly windows of matrices, written into matrices of the same shape. Three shared
/// variables get new values, and the results ask for some of the nodes on the way.
pub fn grow_updates(recipe: &Recipe, dtype: DType) -> Grown {
    let soil = Soil { float: dtype, mixed: false, symbolic: false, wild: false, special: false, scans: 1 };
    let mut growth = Growth {
        graph: Graph::new(),
        values: Vec::new(),
        inputs: Vec::new(),
        generator: Generator(recipe.seed),
        soil,
    };
    let shape = [2 + growth.generator.below(5), 1 + growth.generator.below(7)];
    let [m, n] = shape;
    growth.input(dtype, &shape, -3.0, 4.0);
    growth.input(dtype, &[n, n], -1.0, 2.0);
    growth.input(DType::I64, &[3], 0.0, m as f64);
    for name in ["u", "v", "w"] {
        let value = growth.generator.array(dtype, &shape, -3.0, 4.0);
        growth.graph.add_leaf(tensor::shared(name, value.clone()).leaf());
        growth.values.push(value);
    }
    for step in &recipe.steps {
        growth.generator = Generator(recipe.seed ^ (u64::from(*step) << 20));
        growth.move_windows(step % 16, &shape);
    }
    let variables = growth.shared();
    for (leaf, _) in &variables {
        // Late nodes have been written into the most.
        let new = growth.matrix(&shape);
        growth.graph.updates.push((*leaf, new));
    }
    for _ in 0..growth.generator.below(3) {
        let output = growth.pick();
        growth.graph.outputs.push(output);
    }
    Grown { graph: growth.graph, inputs: growth.inputs }
}

/// Part of an axis: the first position, how many, and from one to the next.
type Stretch = (usize, usize, i64);

impl Growth {
    fn shared(&self) -> Vec<(LeafId, NodeId)> {
        let nodes = self.graph.nodes().filter_map(|(id, node)| match node.op {
            Op::Leaf(leaf) => Some((leaf, id)),
            _ => None,
        });
        let shared = |leaf| self.graph.leaf(leaf).is_some_and(|l| matches!(l.kind, LeafKind::Shared(_)));
        nodes.filter(|(leaf, _)| shared(*leaf)).collect()
    }

    /// A matrix of that shape: a late one, or any.
    fn matrix(&mut self, shape: &[usize]) -> NodeId {
        let dtype = self.soil.float;
        let fits = |x: &Array| x.shape() == shape && x.dtype() == dtype;
        let all: Vec<usize> = (0..self.values.len()).filter(|i| fits(&self.values[*i])).collect();
        let back = if self.generator.below(2) == 0 { all.len().min(2) } else { all.len() };
        NodeId(all[all.len() - 1 - self.generator.below(back)] as u32)
    }

    /// A variable, or another matrix of that shape.
    fn old(&mut self, shape: &[usize]) -> NodeId {
        let leaves = (0..self.values.len()).filter(|i| {
            let fits = self.values[*i].shape() == shape && self.values[*i].dtype() == self.soil.float;
            fits && matches!(self.graph.node(NodeId(*i as u32)).op, Op::Leaf(_))
        });
        let leaves: Vec<usize> = leaves.collect();
        match self.generator.below(4) {
            0 => self.matrix(shape),
            _ => NodeId(leaves[self.generator.below(leaves.len())] as u32),
        }
    }

    /// Two stretches of an axis, equally long and more often than not the same.
    fn stretches(&mut self, n: usize) -> [Stretch; 2] {
        let step = [1, 1, 1, 2, -1][self.generator.below(5)];
        let longest = if step == 2 { n.div_ceil(2) } else { n };
        let count = if self.generator.below(3) == 0 { longest } else { 1 + self.generator.below(longest) };
        let span = if step == 2 { 2 * count - 1 } else { count };
        let first = |generator: &mut Generator| {
            let low = generator.below(n - span + 1);
            if step < 0 { low + count - 1 } else { low }
        };
        let one = (first(&mut self.generator), count, step);
        let other =
            if self.generator.below(3) == 0 { (first(&mut self.generator), count, step) } else { one };
        [one, other]
    }

    fn slice(stretches: &[Stretch]) -> Box<[SliceAxis]> {
        let axis = |&(first, count, step): &Stretch| {
            let stop = first as i64 + step * count as i64;
            let stop = if stop < 0 { Bound::End } else { Bound::Known(stop) };
            SliceAxis::Range { start: Bound::Known(first as i64), stop, step }
        };
        stretches.iter().map(axis).collect()
    }

    /// One matrix more.
    fn move_windows(&mut self, kind: u32, shape: &[usize]) -> Option<NodeId> {
        let dtype = self.soil.float;
        let (base, source) = (self.matrix(shape), self.old(shape));
        match kind {
            0..=2 => {
                let f = [ScalarFn::Add, ScalarFn::Sub, ScalarFn::Max][self.generator.below(3)];
                self.add(Op::Map(f), &[base, source])
            }
            3..=8 => {
                let axes: Vec<[Stretch; 2]> = shape.iter().map(|n| self.stretches(*n)).collect();
                let [to, from] = [0, 1].map(|i| axes.iter().map(|axis| axis[i]).collect::<Vec<_>>());
                let mut part = self.add(Op::Slice(Self::slice(&from)), &[source])?;
                if self.generator.below(4) == 0 {
                    let other = self.old(shape);
                    let other = self.add(Op::Slice(Self::slice(&to)), &[other])?;
                    part = self.add(Op::Map(ScalarFn::Sub), &[part, other])?;
                }
                let write = self.write(dtype);
                self.add(Op::SetSlice(Self::slice(&to), write), &[base, part])
            }
            9 | 10 => {
                let (m, count) = (shape[0] as i64, 1 + self.generator.below(3));
                let indices = if self.generator.below(2) == 0 {
                    self.pick_where(|x| x.dtype() == DType::I64 && x.shape() == [3])?
                } else {
                    let values: Vec<i64> =
                        (0..count).map(|_| self.generator.below(m as usize) as i64).collect();
                    let leaf = tensor::constant(Array::vector(&values));
                    let id = self.graph.add_leaf(leaf.leaf()?);
                    self.values.push(Array::vector(&values));
                    id
                };
                let rows = self.add(Op::Gather { batch: 0 }, &[source, indices])?;
                let write = self.write(dtype);
                self.add(Op::Scatter { batch: 0, write }, &[base, indices, rows])
            }
            11 | 12 => {
                let axis = self.generator.below(2);
                let cut = self.generator.below(shape[axis] + 1);
                let half = |part: std::ops::Range<usize>| {
                    let mut axes = vec![SliceAxis::WHOLE; 2];
                    let (start, stop) = (part.start as i64, part.end as i64);
                    axes[axis] =
                        SliceAxis::Range { start: Bound::Known(start), stop: Bound::Known(stop), step: 1 };
                    Op::Slice(axes.into())
                };
                let begin =
                    if self.generator.below(2) == 0 { 0..cut } else { shape[axis] - cut..shape[axis] };
                let first = self.add(half(begin), &[base])?;
                let second = self.add(half(cut..shape[axis]), &[source])?;
                self.add(Op::Concat(axis as u8), &[first, second])
            }
            13 => {
                let square = self.pick_where(|x| x.dtype() == dtype && x.shape() == [shape[1], shape[1]])?;
                let product = self.add(Op::Dot, &[source, square])?;
                let minus = self.add(Op::Literal(Literal::from_i64(-1, dtype)), &[])?;
                let dims = known_dims(shape);
                let factor = self.add(Op::Broadcast { axes: SmallVec::new(), dims }, &[minus])?;
                let product = self.add(Op::Map(ScalarFn::Mul), &[product, factor])?;
                self.add(Op::Map(ScalarFn::Add), &[base, product])
            }
            _ if self.soil.scans > 0 => self.scan_over_windows(shape),
            _ => None,
        }
    }

    /// Three steps of a scan whose carries are matrices of that shape, with a captured one; its last values and rows.
    fn scan_over_windows(&mut self, shape: &[usize]) -> Option<NodeId> {
        let dtype = self.soil.float;
        let indices = self.pick_where(|x| x.dtype() == DType::I64 && x.shape() == [3])?;
        let operands = [indices, self.old(shape), self.matrix(shape), self.old(shape)];
        let mut body = Growth {
            graph: Graph::new(),
            values: Vec::new(),
            inputs: Vec::new(),
            generator: Generator(self.generator.next_u64()),
            soil: Soil { scans: 0, ..self.soil },
        };
        let mut carries = Vec::new();
        for (position, name) in ["i", "c", "g", "h"].into_iter().enumerate() {
            let ty = match position {
                0 => TensorType::known(DType::I64, &[]),
                _ => TensorType::known(dtype, shape),
            };
            let value = match position {
                0 => Array::scalar(self.value(indices).get(0).to_i64()?),
                _ => self.value(operands[position]).clone(),
            };
            let kind = if position < 2 { LeafKind::Input } else { LeafKind::Carry };
            let leaf = parameter(Some(name.into()), ty, kind);
            let node = body.graph.add_leaf(&leaf);
            body.values.push(value);
            if position < 2 { body.graph.inputs.push(leaf.id) } else { carries.push((leaf.id, node)) }
        }
        let index = NodeId(0);
        for _ in 0..1 + body.generator.below(5) {
            if body.generator.below(4) == 0 {
                // A row at the index of the step.
                let (base, source) = (body.matrix(shape), body.old(shape));
                let place =
                    body.add(Op::Broadcast { axes: SmallVec::new(), dims: known_dims(&[1]) }, &[index])?;
                let row = body.add(Op::Gather { batch: 0 }, &[source, place])?;
                let write = body.write(dtype);
                body.add(Op::Scatter { batch: 0, write }, &[base, place, row]);
            } else {
                let kind = body.generator.below(14) as u32;
                body.move_windows(kind, shape);
            }
        }
        let row = body.matrix(shape);
        body.graph.outputs.push(row);
        for (leaf, _) in &carries {
            let next = body.matrix(shape);
            body.graph.updates.push((*leaf, next));
        }
        let body = Arc::new(Body::new(body.graph, 1, false));
        let mut made = None;
        for result in [ScanResult::Rows(0), ScanResult::Last(0), ScanResult::Last(1)] {
            if self.generator.below(3) > 0 {
                let scan =
                    Scan { body: body.clone(), steps: Dim::Known(3), result, backward: Backward::default() };
                let id = self.add(Op::Scan(Box::new(scan)), &operands)?;
                made = if let ScanResult::Rows(_) = result {
                    let row = SliceAxis::Range { start: Bound::Known(1), stop: Bound::Known(2), step: 1 };
                    let row = self.add(Op::Slice([row, SliceAxis::WHOLE, SliceAxis::WHOLE].into()), &[id])?;
                    self.add(Op::Reshape(known_dims(shape)), &[row])
                } else {
                    Some(id)
                };
            }
        }
        made
    }
}
