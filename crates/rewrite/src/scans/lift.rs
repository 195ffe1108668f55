//! Formulas of a body for all steps at once.
//!
//! A formula that treats every step alike can be computed on stacks of its operands, with an axis over the steps before
//! all others. What is the same in every step stays one value; a product with it becomes one product of all rows of all
//! steps.

use std::collections::BTreeMap;

use hypatia_graph::op::{Class, known_dims};
use hypatia_graph::shape::MAX_RANK;
use hypatia_graph::{Graph, LeafId, NodeId, Op};
use smallvec::SmallVec;

use super::form::{Dependence, ScanForm};

/// A value of a body outside of the scan.
#[derive(Copy, Clone, PartialEq, Debug)]
pub(super) enum Lifted {
    /// The same in every step.
    Same(NodeId),
    /// One for every step along the leading axis.
    Stack(NodeId),
}

/// Computes values of a body for all steps.
pub(super) struct Lift<'l> {
    inner: &'l ScanForm,
    dependence: &'l [Dependence],
    inputs: BTreeMap<LeafId, Lifted>,
    known: BTreeMap<NodeId, Lifted>,
}

/// Whether an operator of a body can be applied to stacks. `varies` says of each operand whether it differs from step to
/// step.
pub(super) fn is_liftable(graph: &Graph, id: NodeId, varies: &dyn Fn(NodeId) -> bool) -> bool {
    let node = graph.node(id);
    match node.op.class() {
        // A product of two matrices that both differ is no faster for all steps at once.
        Class::Product => {
            graph.ty(id).rank() == 2 && node.operands.iter().filter(|operand| varies(**operand)).count() == 1
        }
        Class::Indexed(_) if node.op == (Op::Gather { batch: 0 }) && !varies(node.operands[0]) => true,
        Class::Indexed(_) if !node.operands.iter().all(|operand| varies(*operand)) => false,
        Class::Leaf(_)
        | Class::Literal(_)
        | Class::Index
        | Class::Map(_)
        | Class::Cast(_)
        | Class::View(_)
        | Class::Assembly
        | Class::Indexed(_)
        | Class::Fold(_)
        | Class::Convolution(_)
        | Class::Random(_)
        | Class::Scan(_)
        | Class::Gradient(_) => graph.ty(id).rank() < MAX_RANK && node.op.batched(1).is_some(),
    }
}

impl<'l> Lift<'l> {
    /// With the values of inputs. Where the scan may end early, stacks of sequences are none of the scan's rows, so
    /// there they are not to be used.
    pub(super) fn new(inner: &'l ScanForm, dependence: &'l [Dependence]) -> Lift<'l> {
        let mut inputs = BTreeMap::new();
        for (leaf, input) in inner.graph.inputs.iter().zip(&inner.inputs) {
            if !input.sequence {
                inputs.insert(*leaf, Lifted::Same(input.value));
            } else if !inner.until {
                inputs.insert(*leaf, Lifted::Stack(input.value));
            }
        }
        Lift { inner, dependence, inputs, known: BTreeMap::new() }
    }

    /// Says what the values of a node in all steps are.
    pub(super) fn assume(&mut self, id: NodeId, stack: NodeId) {
        self.known.insert(id, Lifted::Stack(stack));
    }

    fn varies(&self, id: NodeId) -> bool {
        self.dependence[id.index()] >= Dependence::Sequence
    }

    /// The value of a node for all steps; none if something on the way cannot be lifted.
    pub(super) fn lift(&mut self, outer: &mut Graph, root: NodeId) -> Option<Lifted> {
        let mut pending = vec![root];
        while let Some(&id) = pending.last() {
            if self.known.contains_key(&id) {
                pending.pop();
                continue;
            }
            let graph = &self.inner.graph;
            let node = graph.node(id);
            if let Op::Leaf(leaf) = node.op {
                let value = match self.inputs.get(&leaf) {
                    Some(value) => *value,
                    // A constant array.
                    None if !self.varies(id) => Lifted::Same(outer.add_like(graph, id, &[])),
                    None => return None,
                };
                self.known.insert(id, value);
                continue;
            }
            if let Some(next) = node.operands.iter().find(|operand| !self.known.contains_key(operand)) {
                pending.push(*next);
                continue;
            }
            let operands: SmallVec<[Lifted; 4]> =
                node.operands.iter().map(|operand| self.known[operand]).collect();
            let same: Option<SmallVec<[NodeId; 4]>> = operands
                .iter()
                .map(|value| if let Lifted::Same(value) = value { Some(*value) } else { None })
                .collect();
            let value = match same {
                Some(operands) => Lifted::Same(outer.add_like(graph, id, &operands)),
                None => Lifted::Stack(self.stack(outer, id, &operands)?),
            };
            self.known.insert(id, value);
        }
        self.known.get(&root).copied()
    }

    /// A node applied to stacks.
    fn stack(&self, outer: &mut Graph, id: NodeId, operands: &[Lifted]) -> Option<NodeId> {
        let graph = &self.inner.graph;
        let node = graph.node(id);
        if !is_liftable(graph, id, &|operand| self.varies(operand)) {
            return None;
        }
        let steps = self.inner.steps;
        let extents = graph.ty(id).extents()?;
        let stacked: SmallVec<[usize; 8]> = std::iter::once(steps).chain(extents.iter().copied()).collect();
        if let Op::Dot = node.op {
            return self.product(outer, id, operands, &stacked);
        }
        if let (Op::Gather { .. }, &[Lifted::Same(x), Lifted::Stack(places)]) = (&node.op, operands) {
            let count = outer.ty(places).element_count()?;
            let flat = outer.add(Op::Reshape(known_dims(&[count])), &[places], node.site);
            let rows = outer.add(Op::Gather { batch: 0 }, &[x, flat], node.site);
            return Some(outer.add(Op::Reshape(known_dims(&stacked)), &[rows], node.site));
        }
        let op = node.op.batched(steps)?;
        let mut all: SmallVec<[NodeId; 4]> = SmallVec::new();
        for operand in operands {
            all.push(self.repeated(outer, *operand)?);
        }
        Some(outer.add(op, &all, node.site))
    }

    /// A value as a stack.
    fn repeated(&self, outer: &mut Graph, value: Lifted) -> Option<NodeId> {
        let value = match value {
            Lifted::Stack(stack) => return Some(stack),
            Lifted::Same(value) => value,
        };
        let extents = outer.ty(value).extents()?;
        let dims: SmallVec<[usize; 8]> =
            std::iter::once(self.inner.steps).chain(extents.iter().copied()).collect();
        let axes = (1..dims.len() as u8).collect();
        let site = outer.node(value).site;
        Some(outer.add(Op::Broadcast { axes, dims: known_dims(&dims) }, &[value], site))
    }

    /// The products of all steps with one matrix as one product.
    fn product(
        &self,
        outer: &mut Graph,
        id: NodeId,
        operands: &[Lifted],
        stacked: &[usize],
    ) -> Option<NodeId> {
        let site = self.inner.graph.node(id).site;
        let &[n, m, p] = stacked else { return None };
        let (a, b) = (operands[0], operands[1]);
        let mut add = |op: Op, operands: &[NodeId]| outer.add(op, operands, site);
        let reshape = |dims: &[usize]| Op::Reshape(known_dims(dims));
        let inner = |id: NodeId, axis: usize| self.inner.graph.ty(id).shape[axis].known();
        let k = inner(self.inner.graph.node(id).operands[1], 0)?;
        let permute = |axes: &[u8]| Op::Permute(axes.iter().copied().collect());
        let result = match (a, b) {
            (Lifted::Stack(a), Lifted::Same(b)) => {
                let rows = add(reshape(&[n * m, k]), &[a]);
                let product = add(Op::Dot, &[rows, b]);
                add(reshape(&[n, m, p]), &[product])
            }
            (Lifted::Same(a), Lifted::Stack(b)) if p == 1 => {
                let rows = add(reshape(&[n, k]), &[b]);
                let turned = add(permute(&[1, 0]), &[a]);
                let product = add(Op::Dot, &[rows, turned]);
                add(reshape(&[n, m, 1]), &[product])
            }
            (Lifted::Same(a), Lifted::Stack(b)) => {
                let columns = add(permute(&[1, 0, 2]), &[b]);
                let columns = add(reshape(&[k, n * p]), &[columns]);
                let product = add(Op::Dot, &[a, columns]);
                let product = add(reshape(&[m, n, p]), &[product]);
                add(permute(&[1, 0, 2]), &[product])
            }
            (Lifted::Same(_), Lifted::Same(_)) | (Lifted::Stack(_), Lifted::Stack(_)) => return None,
        };
        Some(result)
    }
}
