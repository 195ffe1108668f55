//! Values that are flat where they are zero.
//!
//! A sum of squares is never negative, so where it is zero its slope is zero too. The slope of its root is infinite there,
//! and the product of both is the gradient of a norm at 0: the rules of roots take it for 0 where they see that their
//! operand is of this kind, and leave the infinite slope of other roots as it is.

use std::collections::HashSet;
use std::sync::Arc;

use crate::body::Body;
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, NodeId, Operands};
use crate::leaf::LeafKind;
use crate::op::{Class, LeafId, Op, ScanResult, View};
use crate::scalar::{ScalarFn, Zeros};

/// Leaves of a body that stand for values which are flat where they are zero.
pub(super) type Flat = Arc<HashSet<LeafId>>;

/// Whether a value is nowhere negative and has a slope of zero wherever it is zero, as far as its formula shows it: sums,
/// products and the like of squares, of powers above 1 and of constants. `leaves` are known to be so.
///
/// As a quotient is zero where its numerator is, nothing is asked of a denominator on top.
pub(super) fn is_flat(graph: &Graph, id: NodeId, leaves: &HashSet<LeafId>) -> bool {
    let mut id = id;
    while let Class::Map(ScalarFn::Div) | Class::View(View::Reshape | View::Broadcast(_)) =
        graph.node(id).op.class()
    {
        id = graph.node(id).operands[0];
    }
    is_flat_sum(graph, [id], leaves)
}

/// Whether all of these are flat where they are zero, and not negative.
fn is_flat_sum(graph: &Graph, roots: impl IntoIterator<Item = NodeId>, leaves: &HashSet<LeafId>) -> bool {
    let mut pending: Vec<NodeId> = roots.into_iter().collect();
    let mut seen: HashSet<NodeId> = HashSet::new();
    while let Some(id) = pending.pop() {
        if seen.insert(id) {
            match parts(graph, id, leaves) {
                Some(parts) => pending.extend(parts),
                None => return false,
            }
        }
    }
    true
}

/// The operands that have to be flat where they are zero for the node to be; `None` where the node is not in any case.
fn parts(graph: &Graph, id: NodeId, leaves: &HashSet<LeafId>) -> Option<Operands> {
    let node = graph.node(id);
    match node.op.class() {
        Class::Literal(value) => (value.to_f64() >= 0.0).then(Operands::new),
        Class::Leaf(leaf) if leaves.contains(&leaf) => Some(Operands::new()),
        Class::Leaf(leaf) => match &graph.leaf(leaf)?.kind {
            LeafKind::Constant(array) => {
                (0..array.len()).all(|i| array.get(i).to_f64() >= 0.0).then(Operands::new)
            }
            LeafKind::Input | LeafKind::Shared(_) | LeafKind::Carry => None,
        },
        Class::Map(f) => parts_of_map(graph, f, &node.operands),
        Class::Cast(_) => match graph.ty(node.operands[0]).dtype {
            DType::Bool | DType::U8 => Some(Operands::new()),
            DType::F32 | DType::F64 | DType::I32 | DType::I64 => Some(node.operands.clone()),
        },
        Class::Product if is_square(graph, &node.operands) => Some(Operands::new()),
        Class::Index
        | Class::View(_)
        | Class::Assembly
        | Class::Indexed(_)
        | Class::Fold(_)
        | Class::Product
        | Class::Convolution(_)
        | Class::Random(_) => {
            let parts = node.operands.iter().enumerate().filter(|(i, _)| node.op.carries(*i));
            Some(parts.map(|(_, operand)| *operand).collect())
        }
        Class::Scan(scan) => {
            let flat = flat_parameters(graph, &node.operands, &scan.body, leaves);
            let body = &scan.body;
            let is_flat = match scan.result {
                ScanResult::Rows(row) => {
                    is_flat_sum(&body.graph, body.rows().get(usize::from(row)).copied(), &flat)
                }
                ScanResult::Last(carry) => {
                    body.graph.updates.get(usize::from(carry)).is_some_and(|(leaf, _)| flat.contains(leaf))
                }
                ScanResult::Steps => true,
            };
            is_flat.then(Operands::new)
        }
        Class::Gradient(_) => None,
    }
}

/// Whether the factors are the size of a value and its square, in either order.
fn is_cube(graph: &Graph, operands: &[NodeId]) -> bool {
    let of = |id: NodeId, f: ScalarFn| {
        let node = graph.node(id);
        (node.op == Op::Map(f)).then(|| node.operands[0])
    };
    let matches = |size: NodeId, square: NodeId| {
        let base = of(size, ScalarFn::Abs);
        base.is_some_and(|base| of(square, ScalarFn::Sqr).is_some_and(|x| x == base || x == size))
    };
    matches(operands[0], operands[1]) || matches(operands[1], operands[0])
}

fn parts_of_map(graph: &Graph, f: ScalarFn, operands: &[NodeId]) -> Option<Operands> {
    if f == ScalarFn::Mul && (operands[0] == operands[1] || is_cube(graph, operands)) {
        return Some(Operands::new());
    }
    if f == ScalarFn::Pow {
        let exponent = uniform(graph, operands[1])?.to_f64();
        return (exponent > 1.0).then(Operands::new);
    }
    match f.properties().zeros {
        // What underflows is flat there too.
        Zeros::Flat => Some(Operands::new()),
        // The condition of a choice does not count.
        Zeros::OfOperands => Some(operands[operands.len().saturating_sub(2)..].into()),
        Zeros::Anywhere => None,
    }
}

/// Which parameters of a scan's body are flat where they are zero, given those around it: elements and captured values
/// that are, and carries that begin so and stay so.
pub(super) fn flat_parameters(
    graph: &Graph,
    operands: &[NodeId],
    body: &Body,
    leaves: &HashSet<LeafId>,
) -> Flat {
    let parameters = body.parameters().zip(operands);
    let mut flat: HashSet<LeafId> = parameters
        .filter(|(_, operand)| is_flat_sum(graph, [**operand], leaves))
        .map(|(leaf, _)| leaf)
        .collect();
    loop {
        let left = |(leaf, next): &&(LeafId, NodeId)| {
            flat.contains(leaf) && !is_flat_sum(&body.graph, [*next], &flat)
        };
        let Some((leaf, _)) = body.graph.updates.iter().find(left) else { return Arc::new(flat) };
        flat.remove(leaf);
    }
}

/// Whether a matrix product is that of one vector with itself.
fn is_square(graph: &Graph, operands: &[NodeId]) -> bool {
    let extents = |id: NodeId| graph.ty(id).extents();
    let (Some(left), Some(right)) = (extents(operands[0]), extents(operands[1])) else { return false };
    let one = left.len() == 2 && left[0] == 1 && right[1] == 1;
    one && source(graph, operands[0]) == source(graph, operands[1])
}

/// What a vector in the form of a matrix is a view of, with its elements in the same order.
fn source(graph: &Graph, id: NodeId) -> NodeId {
    let size = |id: NodeId| graph.ty(id).element_count();
    let mut id = id;
    loop {
        let node = graph.node(id);
        // Permutations move only axes of one element.
        let is_vector =
            || graph.ty(id).extents().is_some_and(|shape| shape.iter().filter(|n| **n != 1).count() < 2);
        let same_order = match node.op.view() {
            Some(View::Reshape) => true,
            Some(View::Broadcast(_)) => size(node.operands[0]) == size(id),
            Some(View::Permute(_)) => is_vector(),
            Some(View::Same | View::Slice | View::Window(_)) | None => false,
        };
        if !same_order {
            return id;
        }
        id = node.operands[0];
    }
}

/// The number that a node is everywhere, if it is written as one.
pub(super) fn uniform(graph: &Graph, id: NodeId) -> Option<Literal> {
    let mut id = id;
    while let Some(View::Broadcast(_) | View::Reshape) = graph.node(id).op.view() {
        id = graph.node(id).operands[0];
    }
    if let Op::Literal(value) = graph.node(id).op { Some(value) } else { None }
}

/// Whether a step takes roots, so that it matters what is flat in it.
pub(super) fn takes_roots(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| matches!(node.op, Op::Map(ScalarFn::Sqrt | ScalarFn::Pow)))
        || graph.scan_nodes().any(|(key, _)| takes_roots(&key.body.graph))
}
