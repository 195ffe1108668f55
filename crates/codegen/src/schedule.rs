//! Which values get memory of their own, and which are computed again inside the kernels that use them.
//!
//! Fusion is decided here and only here. A node is *stored* if something needs it in memory (a result, an operand of a
//! product, the source of a gather), if its operator cannot be computed one element at a time from its operands
//! (reductions, products), or if computing it again in several kernels would cost more than reading it. All other nodes
//! are *inlined*: they become instructions or index arithmetic of the kernels of stored nodes.

use std::collections::BTreeSet;

use hypatia_graph::array::element_count;
use hypatia_graph::op::{Start, WindowAxis};
use hypatia_graph::{Graph, NodeId, Op, ScalarFn};
use smallvec::SmallVec;

use crate::accumulate::{Accumulation, accumulation};
use crate::loops::Key;

/// Instructions that a kernel may inline from one operand; a longer chain is cut, so kernels stay of bounded size.
const INLINE_LIMIT: u32 = 160;

/// Instructions that are cheaper to repeat than to store and load.
const REPEAT_LIMIT: u32 = 6;

/// For every node, whether it gets memory of its own. Leaves have theirs already and are not marked.
pub fn stored_nodes(graph: &Graph) -> Vec<bool> {
    let live = graph.reachable();
    let mut stored = vec![false; graph.len()];
    for root in graph.roots() {
        stored[root.index()] = true;
    }
    let size = inline_sizes(graph, &live, &mut stored);
    let accumulations: Vec<Accumulation> =
        graph.updates.iter().filter_map(|(_, new)| accumulation(graph, *new)).collect();
    let accumulated = |id: NodeId| accumulations.iter().any(|form| form.product == id);
    for scale in accumulations.iter().flat_map(|form| [form.alpha, form.beta]) {
        stored[scale.index()] = graph.uniform(scale).is_none();
    }
    // What is read where its memory begins, even if it is a literal.
    let read: BTreeSet<NodeId> = graph
        .nodes()
        .flat_map(|(_, node)| match &node.op {
            Op::Random { .. } => &node.operands[..1],
            Op::Scan(scan) => &node.operands[..scan.body.inputs()],
            Op::Window(_) => &node.operands[1..],
            Op::SetWindow(..) => &node.operands[2..],
            _ => &[],
        })
        .copied()
        .filter(|id| !matches!(graph.node(*id).op, Op::Leaf(_)))
        .collect();
    // The stored node whose kernel computes an inlined one; `Many` if there are several.
    let mut kernel_of = vec![Reach::None; graph.len()];
    for (id, node) in graph.nodes().rev() {
        if !live[id.index()] {
            continue;
        }
        let repeats = kernel_of[id.index()] == Reach::Many
            && (is_heavy(graph, id, &stored) || size[id.index()] > REPEAT_LIMIT);
        if is_stored_op(graph, id) && !accumulated(id) || repeats {
            stored[id.index()] = true;
        }
        if matches!(node.op, Op::Leaf(_)) {
            stored[id.index()] = false;
        } else if matches!(node.op, Op::Literal(_)) {
            stored[id.index()] = read.contains(&id) || graph.roots().any(|root| root == id);
        }
        let reach = match &node.op {
            // The results of a loop are one kernel.
            Op::Scan(scan) => Reach::Loop(Key::new(scan, &node.operands)),
            _ if stored[id.index()] => Reach::One(id),
            _ => kernel_of[id.index()],
        };
        let expands = expansion(graph, id) > 1;
        for (index, operand) in node.operands.iter().enumerate() {
            kernel_of[operand.index()] = kernel_of[operand.index()].join(reach);
            let in_memory = match &node.op {
                Op::Reshape(_) => is_contiguous(graph, *operand, &stored),
                // The kernel reads the counter where its memory begins, so a view of other memory will not do.
                Op::Random { .. } => false,
                Op::Scan(scan) => is_rows(graph, *operand, &stored, index < scan.body.sequences),
                _ => is_view(graph, *operand, &stored),
            };
            let must =
                needs_memory(graph, id, index) && !in_memory || expands && is_heavy(graph, *operand, &stored);
            if must && !matches!(graph.node(*operand).op, Op::Leaf(_)) {
                stored[operand.index()] = true;
            }
        }
    }
    stored
}

#[derive(Copy, Clone, PartialEq, Debug)]
enum Reach<'g> {
    None,
    One(NodeId),
    Loop(Key<'g>),
    Many,
}

impl<'g> Reach<'g> {
    fn join(self, other: Reach<'g>) -> Reach<'g> {
        match (self, other) {
            (Reach::None, r) | (r, Reach::None) => r,
            (a, b) if a == b => a,
            _ => Reach::Many,
        }
    }
}

/// Instructions that inlining each node takes; marks nodes where the count passes the limit.
fn inline_sizes(graph: &Graph, live: &[bool], stored: &mut [bool]) -> Vec<u32> {
    let mut size = vec![0u32; graph.len()];
    for (id, node) in graph.nodes() {
        if !live[id.index()] {
            continue;
        }
        let operands: u32 = node
            .operands
            .iter()
            .map(|o| if stored[o.index()] || is_stored_op(graph, *o) { 1 } else { size[o.index()] })
            .sum();
        size[id.index()] = operands + u32::from(!is_movement(&node.op));
        if size[id.index()] > INLINE_LIMIT {
            stored[id.index()] = true;
        }
    }
    size
}

/// Operators that only rearrange elements.
pub fn is_movement(op: &Op) -> bool {
    matches!(op, Op::Broadcast { .. } | Op::Reshape(_) | Op::Permute(_) | Op::Window(_) | Op::StopGradient)
}

/// Operators whose value cannot be computed element by element from their operands.
fn is_stored_op(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::Reduce(..)
        | Op::ArgMax(_)
        | Op::Dot
        | Op::Concat(_)
        | Op::SetWindow(..)
        | Op::Random { .. }
        | Op::Scan(_) => true,
        Op::Scatter { .. } => !is_one_hot(graph, id),
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Extent(_)
        | Op::Map(_)
        | Op::Cast(_)
        | Op::Broadcast { .. }
        | Op::Reshape(_)
        | Op::Permute(_)
        | Op::Slice(_)
        | Op::SetSlice(..)
        | Op::Window(_)
        | Op::Gather { .. }
        | Op::StopGradient
        | Op::Grad(_) => false,
    }
}

/// A scatter of one row for each leading index: each element compares its position with the index.
pub fn is_one_hot(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    let Op::Scatter { batch, .. } = node.op else { return false };
    graph.ty(node.operands[1]).shape[usize::from(batch)].known() == Some(1)
}

/// Whether a node reads that operand at computed places, so that it must lie in memory.
fn needs_memory(graph: &Graph, id: NodeId, operand: usize) -> bool {
    match &graph.node(id).op {
        Op::Dot | Op::Random { .. } => true,
        Op::Gather { .. } => operand == 0,
        Op::Window(_) => operand > 0,
        Op::SetWindow(..) => operand > 1,
        // Initial values of carries are computed where the carries lie.
        Op::Scan(scan) => operand < scan.body.inputs(),
        Op::Reshape(_) => !splits_only(&shape(graph, graph.node(id).operands[0]), &shape(graph, id)),
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Extent(_)
        | Op::Map(_)
        | Op::Cast(_)
        | Op::Reduce(..)
        | Op::ArgMax(_)
        | Op::Broadcast { .. }
        | Op::Permute(_)
        | Op::Slice(_)
        | Op::SetSlice(..)
        | Op::Concat(_)
        | Op::Scatter { .. }
        | Op::StopGradient
        | Op::Grad(_) => false,
    }
}

/// Whether a node is memory whose rows along the leading axis are row-major and lie at equal distances: memory in
/// row-major order under windows of the leading axis. Unless they may be `apart`, they lie one after another.
fn is_rows(graph: &Graph, mut id: NodeId, stored: &[bool], apart: bool) -> bool {
    loop {
        if is_contiguous(graph, id, stored) {
            return true;
        }
        let node = graph.node(id);
        match &node.op {
            Op::StopGradient => {}
            Op::Window(window) => {
                let from = shape(graph, node.operands[0]);
                let known = window
                    .first()
                    .is_some_and(|axis| matches!(axis.start, Start::Known(_)) && (apart || axis.step == 1));
                let whole = window.iter().zip(&from).skip(1).all(|(axis, n)| *axis == WindowAxis::whole(*n));
                if !known || !whole {
                    return false;
                }
            }
            _ => return false,
        }
        id = node.operands[0];
    }
}

/// Whether a node is memory under other strides: a chain of movements on a leaf or a stored node.
fn is_view(graph: &Graph, mut id: NodeId, stored: &[bool]) -> bool {
    loop {
        let node = graph.node(id);
        if matches!(node.op, Op::Leaf(_)) || stored[id.index()] || is_stored_op(graph, id) {
            return true;
        }
        let splits = || splits_only(&shape(graph, node.operands[0]), &shape(graph, id));
        let moves = match &node.op {
            Op::Reshape(_) => is_contiguous(graph, node.operands[0], stored) || splits(),
            op => is_movement(op),
        };
        if !moves {
            return false;
        }
        id = node.operands[0];
    }
}

/// Whether a node is memory in row-major order.
pub fn is_contiguous(graph: &Graph, mut id: NodeId, stored: &[bool]) -> bool {
    loop {
        let node = graph.node(id);
        if stored[id.index()] || is_stored_op(graph, id) || matches!(node.op, Op::Leaf(_)) {
            return true;
        }
        if !matches!(node.op, Op::Reshape(_) | Op::StopGradient) {
            return false;
        }
        id = node.operands[0];
    }
}

/// Whether computing an element costs more than loading it: a function that is no single instruction, without a stored
/// node in between.
fn is_heavy(graph: &Graph, id: NodeId, stored: &[bool]) -> bool {
    let mut pending = vec![id];
    let mut budget = 64;
    while let Some(id) = pending.pop() {
        let node = graph.node(id);
        let costly = matches!(&node.op, Op::Map(f) if is_costly(*f));
        if costly || budget == 0 {
            return true;
        }
        budget -= 1;
        pending.extend(node.operands.iter().filter(|o| !stored[o.index()] && !is_stored_op(graph, **o)));
    }
    false
}

/// Functions that take more than one or two instructions of the processor.
pub(crate) fn is_costly(f: ScalarFn) -> bool {
    match f {
        ScalarFn::Add
        | ScalarFn::Sub
        | ScalarFn::Mul
        | ScalarFn::Max
        | ScalarFn::Min
        | ScalarFn::Neg
        | ScalarFn::Abs
        | ScalarFn::Sign
        | ScalarFn::Sqr
        | ScalarFn::Floor
        | ScalarFn::Ceil
        | ScalarFn::Trunc
        | ScalarFn::Round
        | ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::And
        | ScalarFn::Or
        | ScalarFn::Xor
        | ScalarFn::Not
        | ScalarFn::IsNan
        | ScalarFn::IsInf
        | ScalarFn::Select => false,
        ScalarFn::Div
        | ScalarFn::FloorDiv
        | ScalarFn::Mod
        | ScalarFn::Pow
        | ScalarFn::Sqrt
        | ScalarFn::Recip
        | ScalarFn::Exp
        | ScalarFn::Exp2
        | ScalarFn::Expm1
        | ScalarFn::Log
        | ScalarFn::Log2
        | ScalarFn::Log10
        | ScalarFn::Log1p
        | ScalarFn::Log1mexp
        | ScalarFn::Sin
        | ScalarFn::Cos
        | ScalarFn::Tan
        | ScalarFn::Asin
        | ScalarFn::Acos
        | ScalarFn::Atan
        | ScalarFn::Atan2
        | ScalarFn::Sinh
        | ScalarFn::Cosh
        | ScalarFn::Tanh
        | ScalarFn::Asinh
        | ScalarFn::Acosh
        | ScalarFn::Atanh
        | ScalarFn::Sigmoid
        | ScalarFn::Softplus
        | ScalarFn::Erf
        | ScalarFn::Erfc => true,
    }
}

/// How often a broadcast repeats an element; 1 for other operators.
fn expansion(graph: &Graph, id: NodeId) -> usize {
    let node = graph.node(id);
    if !matches!(node.op, Op::Broadcast { .. }) {
        return 1;
    }
    element_count(&shape(graph, id)) / element_count(&shape(graph, node.operands[0])).max(1)
}

/// The extents of a node; a specialised graph knows all.
pub fn shape(graph: &Graph, id: NodeId) -> SmallVec<[usize; 4]> {
    graph.ty(id).shape.iter().map(|e| e.known().unwrap_or(0)).collect()
}

/// Whether every axis of `from` is one or several neighbouring axes of `to` (apart from extents of 1), so that a
/// position in `to` gives one in `from` by multiplication and addition alone.
pub fn splits_only(from: &[usize], to: &[usize]) -> bool {
    axis_groups(from, to).is_some_and(|groups| {
        groups.iter().all(|(f, _)| from[f.clone()].iter().filter(|n| **n != 1).count() <= 1)
    })
}

/// Neighbouring axes of two shapes of equal size that hold the same elements.
type AxisGroups = Vec<(std::ops::Range<usize>, std::ops::Range<usize>)>;

/// The shortest groups of neighbouring axes with equal products; `None` if there is an extent of 0.
pub fn axis_groups(from: &[usize], to: &[usize]) -> Option<AxisGroups> {
    if from.contains(&0) || to.contains(&0) {
        return None;
    }
    let mut groups = Vec::new();
    let (mut f, mut t) = (0, 0);
    while f < from.len() || t < to.len() {
        let (first_f, first_t) = (f, t);
        let (mut size_f, mut size_t) = (1, 1);
        // An axis on each side where there is one, then the smaller side grows.
        if f < from.len() {
            size_f *= from[f];
            f += 1;
        }
        if t < to.len() {
            size_t *= to[t];
            t += 1;
        }
        while size_f != size_t {
            if size_f < size_t && f < from.len() {
                size_f *= from[f];
                f += 1;
            } else if t < to.len() {
                size_t *= to[t];
                t += 1;
            } else {
                return None;
            }
        }
        groups.push((first_f..f, first_t..t));
    }
    Some(groups)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_axes_have_equal_products() {
        assert_eq!(axis_groups(&[6, 4], &[2, 3, 4]).unwrap(), [(0..1, 0..2), (1..2, 2..3)]);
        assert_eq!(axis_groups(&[2, 3], &[6]).unwrap(), [(0..2, 0..1)]);
        assert_eq!(axis_groups(&[5], &[1, 5]).unwrap(), [(0..1, 0..2)]);
        assert_eq!(axis_groups(&[5, 1], &[5]).unwrap(), [(0..1, 0..1), (1..2, 1..1)]);
        assert!(splits_only(&[6, 4], &[2, 3, 4]) && splits_only(&[5], &[1, 5]) && splits_only(&[1, 5], &[5]));
        assert!(!splits_only(&[2, 3], &[6]));
    }
}
