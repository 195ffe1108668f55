//! Which values get memory of their own, and which are computed again inside the kernels that use them.
//!
//! Fusion is decided here and only here. A node is *stored* if something needs it in memory (a result, an operand of a
//! product, the source of a gather), if its operator cannot be computed one element at a time from its operands
//! (reductions, products), or if computing it again in several kernels would cost more than reading it. All other nodes
//! are *inlined*: they become instructions or index arithmetic of the kernels of stored nodes.
//!
//! [`Compute`] says of every operator how it is computed, and is the only list of them in this crate; lowering follows
//! the [`Schedule`] and decides nothing.
#![warn(clippy::wildcard_enum_match_arm)]

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::array::{Extents, element_count};
use hypatia_graph::op::{ConvAxis, Scan, Start, View, WindowAxis, Write};
use hypatia_graph::scan_nodes::ScanKey;
use hypatia_graph::{Axes, Broken, DType, Fold, Graph, Literal, NodeId, Op, ScalarFn, broken};

use crate::fuse_update::{Accumulation, accumulations};

/// Instructions that a kernel may inline from one operand; a longer chain is cut, so kernels stay of bounded size.
const INLINE_LIMIT: u32 = 160;

/// Instructions that are cheaper to repeat than to store and load.
const REPEAT_LIMIT: u32 = 6;

/// The work of functions that are cheaper to repeat than to load: one or two fast instructions.
const CHEAP: u32 = 2;

/// How the value of a node is computed.
#[derive(Copy, Clone, Debug)]
pub enum Compute<'g> {
    /// It is memory already.
    Leaf,
    /// Element by element, inside the kernel that asks.
    Inline(Inline<'g>),
    /// By kernels of its own, to memory of its own.
    Whole(Whole<'g>),
}

/// How an element is computed from elements of the operands.
#[derive(Copy, Clone, Debug)]
pub enum Inline<'g> {
    /// It is that constant.
    Literal(Literal),
    /// It is its position.
    Position,
    /// It is a function of those at the same position.
    Map(ScalarFn),
    /// It is the one at the same position, converted.
    Cast(DType),
    /// It is the one at another position.
    View(View<'g>),
    /// It lies in the row that an index names along that axis.
    Gather(usize),
    /// It lies in the row that an index names along that axis, or it is the old one.
    OneHot(usize, Write),
}

/// Which kernels compute a value.
#[derive(Copy, Clone, Debug)]
pub enum Whole<'g> {
    /// A fold over axes.
    Reduce(Fold, Axes),
    /// A search along an axis.
    ArgMax(usize),
    /// A matrix product.
    Product,
    /// A convolution.
    Convolution(&'g [ConvAxis]),
    /// A matrix product that is added to a variable.
    Accumulation(Accumulation),
    /// A copy of each operand to its place along the axis.
    Concat(usize),
    /// A copy of the first operand, and the second written to a part of it.
    SetWindow(&'g [WindowAxis], Write),
    /// A copy of the first operand, and rows written where indices say, along that axis.
    Scatter(usize, Write),
    /// A fill with random numbers of that key.
    Random(u64),
    /// A scan.
    Scan(&'g Scan),
}

impl<'g> Compute<'g> {
    fn of(graph: &'g Graph, id: NodeId) -> Result<Compute<'g>, Broken> {
        let node = graph.node(id);
        let inline = match &node.op {
            Op::Literal(value) => Inline::Literal(*value),
            Op::Iota(_) => Inline::Position,
            Op::Map(f) => Inline::Map(*f),
            Op::Cast(dtype) => Inline::Cast(*dtype),
            Op::StopGradient => Inline::View(View::Same),
            Op::Broadcast { axes, .. } => Inline::View(View::Broadcast(axes)),
            Op::Reshape(_) => Inline::View(View::Reshape),
            Op::Permute(axes) => Inline::View(View::Permute(axes)),
            Op::Window(axes) => Inline::View(View::Window(axes)),
            Op::Gather { batch } => Inline::Gather(usize::from(*batch)),
            // Each element compares its position with the index.
            Op::Scatter { batch, write }
                if graph.ty(node.operands[1]).shape[usize::from(*batch)].known() == Some(1) =>
            {
                Inline::OneHot(usize::from(*batch), *write)
            }
            Op::Leaf(_) => return Ok(Compute::Leaf),
            Op::Reduce(fold, axes) => return Ok(Compute::Whole(Whole::Reduce(*fold, *axes))),
            Op::ArgMax(axis) => return Ok(Compute::Whole(Whole::ArgMax(usize::from(*axis)))),
            Op::Dot => return Ok(Compute::Whole(Whole::Product)),
            Op::Conv(axes) => return Ok(Compute::Whole(Whole::Convolution(axes))),
            Op::Concat(axis) => return Ok(Compute::Whole(Whole::Concat(usize::from(*axis)))),
            Op::SetWindow(axes, write) => return Ok(Compute::Whole(Whole::SetWindow(axes, *write))),
            Op::Scatter { batch, write } => {
                return Ok(Compute::Whole(Whole::Scatter(usize::from(*batch), *write)));
            }
            Op::Random { key, .. } => return Ok(Compute::Whole(Whole::Random(*key))),
            Op::Scan(scan) => return Ok(Compute::Whole(Whole::Scan(scan))),
            Op::Extent(_) | Op::Slice(_) | Op::SetSlice(..) | Op::Grad(_) | Op::Mean(_) | Op::Cumsum(_) => {
                return Err(broken!("a specialised, expanded graph without gradients", node.op.name()));
            }
        };
        Ok(Compute::Inline(inline))
    }
}

/// How every node of a graph is computed, and which of them are stored.
pub struct Schedule<'g> {
    /// The graph.
    pub graph: &'g Graph,
    /// For every node that something asks for, how it is computed.
    compute: Vec<Compute<'g>>,
    /// The extents of every node.
    extents: Vec<Extents>,
    /// For every node, whether it gets memory of its own. Leaves have theirs already and are not marked.
    stored: Vec<bool>,
}

impl<'g> Schedule<'g> {
    /// The schedule of a graph.
    pub fn new(graph: &'g Graph) -> Result<Schedule<'g>, Broken> {
        let live = graph.reachable();
        let (mut compute, mut extents) = (Vec::with_capacity(graph.len()), Vec::with_capacity(graph.len()));
        for (id, node) in graph.nodes() {
            compute.push(if live[id.index()] { Compute::of(graph, id)? } else { Compute::Leaf });
            extents.push(node.ty.extents().ok_or_else(|| broken!("known extents of a node", node.ty))?);
        }
        let mut stored = vec![false; graph.len()];
        for root in graph.roots() {
            stored[root.index()] = true;
        }
        let mut schedule = Schedule { graph, compute, extents, stored };
        schedule.store(&live);
        Ok(schedule)
    }

    /// How a node is computed.
    pub fn compute(&self, id: NodeId) -> Compute<'g> {
        self.compute[id.index()]
    }

    /// The extents of a node.
    pub fn shape(&self, id: NodeId) -> Extents {
        self.extents[id.index()].clone()
    }

    /// Whether a node gets memory of its own.
    pub fn is_stored(&self, id: NodeId) -> bool {
        self.stored[id.index()]
    }

    /// Where a node reads its elements, if it is a view.
    pub fn view(&self, id: NodeId) -> Option<View<'g>> {
        if let Compute::Inline(Inline::View(view)) = self.compute(id) { Some(view) } else { None }
    }

    /// The operand of a view.
    pub fn viewed(&self, id: NodeId) -> NodeId {
        self.graph.node(id).operands[0]
    }

    /// Whether a node has memory, or will have.
    fn in_memory(&self, id: NodeId) -> bool {
        self.stored[id.index()] || matches!(self.compute(id), Compute::Leaf | Compute::Whole(_))
    }

    fn store(&mut self, live: &[bool]) {
        let graph = self.graph;
        let size = self.inline_sizes(live);
        let accumulations: BTreeMap<NodeId, Accumulation> = accumulations(graph);
        let accumulated: BTreeSet<NodeId> = accumulations.values().map(|form| form.product).collect();
        for scale in accumulations.values().flat_map(|form| [form.alpha, form.beta]) {
            self.stored[scale.index()] = graph.uniform(scale).is_none();
        }
        // What is read where its memory begins, even if it is a literal.
        let mut read: BTreeSet<NodeId> = BTreeSet::new();
        for (id, node) in graph.nodes() {
            let begin = match self.compute(id) {
                Compute::Whole(Whole::Random(_)) => &node.operands[..1],
                Compute::Whole(Whole::Scan(scan)) => &node.operands[..scan.body.inputs()],
                Compute::Leaf | Compute::Inline(_) | Compute::Whole(_) => {
                    &node.operands[node.op.values(node.operands.len())..]
                }
            };
            read.extend(begin);
        }
        // The stored node whose kernel computes an inlined one; `Many` if there are several.
        let mut kernel_of = vec![Reach::None; graph.len()];
        for (id, node) in graph.nodes().rev().filter(|(id, _)| live[id.index()]) {
            let compute = self.compute(id);
            let repeats = kernel_of[id.index()] == Reach::Many
                && (self.is_heavy(id) || size[id.index()] > REPEAT_LIMIT);
            if matches!(compute, Compute::Whole(_)) && !accumulated.contains(&id) || repeats {
                self.stored[id.index()] = true;
            }
            match compute {
                Compute::Leaf => self.stored[id.index()] = false,
                Compute::Inline(Inline::Literal(_)) => {
                    self.stored[id.index()] = read.contains(&id) || graph.roots().any(|root| root == id);
                }
                Compute::Inline(_) | Compute::Whole(_) => {}
            }
            let reach = match compute {
                // The results of a scan are one kernel.
                Compute::Whole(Whole::Scan(scan)) => Reach::Scan(ScanKey::new(scan, &node.operands)),
                Compute::Leaf | Compute::Inline(_) | Compute::Whole(_) => match self.stored[id.index()] {
                    true => Reach::One(id),
                    false => kernel_of[id.index()],
                },
            };
            let expands = self.expansion(id) > 1;
            for (index, operand) in node.operands.iter().enumerate() {
                kernel_of[operand.index()] = kernel_of[operand.index()].join(reach);
                let in_place = match compute {
                    Compute::Inline(Inline::View(View::Reshape)) => self.is_contiguous(*operand),
                    // The kernel reads the counter where its memory begins, so a view of other memory will not do.
                    Compute::Whole(Whole::Random(_)) => false,
                    Compute::Whole(Whole::Scan(scan)) => self.is_rows(*operand, index < scan.body.sequences),
                    Compute::Leaf | Compute::Inline(_) | Compute::Whole(_) => self.is_view(*operand),
                };
                let must = self.needs_memory(id, index) && !in_place || expands && self.is_heavy(*operand);
                if must && !matches!(self.compute(*operand), Compute::Leaf) {
                    self.stored[operand.index()] = true;
                }
            }
        }
        // Where the product is stored for another reason, the sum is one like others.
        for (id, form) in accumulations.into_iter().filter(|(_, form)| !self.stored[form.product.index()]) {
            self.compute[id.index()] = Compute::Whole(Whole::Accumulation(form));
        }
    }

    /// Instructions that inlining each node takes; marks nodes where the count passes the limit.
    fn inline_sizes(&mut self, live: &[bool]) -> Vec<u32> {
        let mut size = vec![0u32; self.graph.len()];
        for (id, node) in self.graph.nodes().filter(|(id, _)| live[id.index()]) {
            let loads = |o: &NodeId| self.stored[o.index()] || matches!(self.compute(*o), Compute::Whole(_));
            let operands: u32 =
                node.operands.iter().map(|o| if loads(o) { 1 } else { size[o.index()] }).sum();
            size[id.index()] = operands + u32::from(self.view(id).is_none());
            if size[id.index()] > INLINE_LIMIT {
                self.stored[id.index()] = true;
            }
        }
        size
    }

    /// Whether a node reads that operand at computed places, so that it must lie in memory.
    fn needs_memory(&self, id: NodeId, operand: usize) -> bool {
        let node = self.graph.node(id);
        match self.compute(id) {
            Compute::Inline(Inline::Gather(_)) => operand == 0,
            Compute::Inline(Inline::View(View::Reshape)) => {
                !splits_only(&self.shape(node.operands[0]), &self.shape(id))
            }
            Compute::Whole(Whole::Product | Whole::Convolution(_) | Whole::Random(_)) => true,
            // Initial values of carries are computed where the carries lie.
            Compute::Whole(Whole::Scan(scan)) => operand < scan.body.inputs(),
            Compute::Leaf | Compute::Inline(_) | Compute::Whole(_) => {
                operand >= node.op.values(node.operands.len())
            }
        }
    }

    /// Whether a node is memory whose rows along the leading axis are row-major and lie at equal distances: memory in
    /// row-major order under windows of the leading axis. Unless they may be `apart`, they lie one after another.
    fn is_rows(&self, mut id: NodeId, apart: bool) -> bool {
        while !self.is_contiguous(id) {
            match self.view(id) {
                Some(View::Same) => {}
                Some(View::Window(window)) => {
                    let from = self.shape(self.viewed(id));
                    let known = window.first().is_some_and(|axis| {
                        matches!(axis.start, Start::Known(_)) && (apart || axis.step == 1)
                    });
                    let whole =
                        window.iter().zip(&from).skip(1).all(|(axis, n)| *axis == WindowAxis::whole(*n));
                    if !known || !whole {
                        return false;
                    }
                }
                Some(View::Broadcast(_) | View::Reshape | View::Permute(_) | View::Slice) | None => {
                    return false;
                }
            }
            id = self.viewed(id);
        }
        true
    }

    /// Whether a node is memory under other strides: a chain of views of a leaf or a stored node.
    fn is_view(&self, mut id: NodeId) -> bool {
        while !self.in_memory(id) {
            let Some(view) = self.view(id) else { return false };
            let operand = self.viewed(id);
            let splits = || splits_only(&self.shape(operand), &self.shape(id));
            if matches!(view, View::Reshape) && !self.is_contiguous(operand) && !splits() {
                return false;
            }
            id = operand;
        }
        true
    }

    /// Whether a node is memory in row-major order.
    pub fn is_contiguous(&self, mut id: NodeId) -> bool {
        while !self.in_memory(id) {
            let Some(View::Reshape | View::Same) = self.view(id) else { return false };
            id = self.viewed(id);
        }
        true
    }

    /// Whether computing an element costs more than loading it: a function that is no single instruction, without a
    /// stored node in between.
    fn is_heavy(&self, id: NodeId) -> bool {
        let mut pending = vec![id];
        let mut budget = 64;
        while let Some(id) = pending.pop() {
            let costly = matches!(self.compute(id), Compute::Inline(Inline::Map(f)) if f.work() > CHEAP);
            if costly || budget == 0 {
                return true;
            }
            budget -= 1;
            let loads = |o: &NodeId| self.stored[o.index()] || matches!(self.compute(*o), Compute::Whole(_));
            pending.extend(self.graph.node(id).operands.iter().filter(|o| !loads(o)));
        }
        false
    }

    /// How often a broadcast repeats an element; 1 for other operators.
    fn expansion(&self, id: NodeId) -> usize {
        let Some(View::Broadcast(_)) = self.view(id) else { return 1 };
        let size = |id: NodeId| element_count(&self.shape(id));
        size(id) / size(self.viewed(id)).max(1)
    }
}

#[derive(Copy, Clone, PartialEq, Debug)]
enum Reach<'g> {
    None,
    One(NodeId),
    Scan(ScanKey<'g>),
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
