//! Folding of constants, after the rules have seen the formulas: computed in double precision and rounded once.
//!
//! Until here constants are left alone, because the value of an unstable formula is as wrong when it is computed at
//! compile time. Under `Strict` what overflows or underflows in single precision does so here too, as double precision
//! must not hide it. Large constants are left to run time: they would only take memory and compile time.

use std::sync::Arc;

use hypatia_graph::interp::evaluate_node;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::Class;
use hypatia_graph::{Array, DType, Graph, Literal, Node, NodeId, Op, tensor};

use crate::Numerics;

/// Most elements of a constant that is computed, or that another is computed from.
const LARGEST: usize = 1024;

/// The graph with constant subgraphs computed, and how many values were put in.
pub(crate) fn fold_constants(graph: Graph, numerics: Numerics) -> (Graph, usize) {
    let mut values: Vec<Option<Arc<Array>>> = Vec::with_capacity(graph.len());
    let mut any = false;
    for (_, node) in graph.nodes() {
        let value = value_of(&graph, node, &values, numerics);
        any |= value.is_some() && !stays(&graph, node);
        values.push(value);
    }
    if !any {
        return (graph, 0);
    }
    let mut count = 0;
    let folded = graph.rebuilt(|new, from, id, operands| {
        let node = from.node(id);
        match &values[id.index()] {
            Some(value) if !stays(from, node) => {
                count += 1;
                put(new, &value.cast(node.ty.dtype), from, id)
            }
            Some(_) | None => new.add_like(from, id, operands),
        }
    });
    (folded.pruned(), count)
}

/// Whether a constant is written well as it is: a leaf, a literal, or one of them repeated.
fn stays(graph: &Graph, node: &Node) -> bool {
    let plain = |op: &Op| matches!(op, Op::Leaf(_) | Op::Literal(_) | Op::Iota(_));
    let repeated = matches!(node.op, Op::Broadcast { .. })
        && node.operands.first().is_some_and(|id| plain(&graph.node(*id).op));
    plain(&node.op) || repeated
}

/// The value of a node that depends on small constants only, floats in double precision.
fn value_of(
    graph: &Graph,
    node: &Node,
    values: &[Option<Arc<Array>>],
    numerics: Numerics,
) -> Option<Arc<Array>> {
    if node.ty.element_count().is_none_or(|n| n > LARGEST) {
        return None;
    }
    let operands: Option<Vec<&Array>> =
        node.operands.iter().map(|id| values[id.index()].as_deref()).collect();
    let operands = operands?;
    let value = match node.op.class() {
        Class::Leaf(leaf) => match &graph.leaf(leaf)?.kind {
            LeafKind::Constant(value) => (**value).clone(),
            LeafKind::Input | LeafKind::Shared(_) | LeafKind::Carry => return None,
        },
        // Rounding that the user asked for.
        Class::Cast(dtype) => operands[0].cast(node_dtype(graph, node)).cast(dtype),
        // Not worth the time at compile time.
        Class::Product | Class::Convolution(_) | Class::Random(_) | Class::Scan(_) | Class::Gradient(_) => {
            return None;
        }
        // An index out of range is an error of the call.
        Class::Indexed(_) => return None,
        Class::Literal(_)
        | Class::Index
        | Class::Map(_)
        | Class::View(_)
        | Class::Assembly
        | Class::Fold(_) => evaluate_node(&node.op, &operands).ok()?,
    };
    let mut widened = if value.dtype() == DType::F32 { value.cast(DType::F64) } else { value };
    if numerics == Numerics::Strict && node.ty.dtype == DType::F32 {
        limit_to_single(&mut widened);
    }
    Some(Arc::new(widened))
}

/// Makes of numbers beyond the range of single precision what they would be there: infinite, 0 or subnormal.
fn limit_to_single(value: &mut Array) {
    for x in value.as_mut_slice::<f64>().unwrap_or_default() {
        let single = *x as f32;
        if single.is_infinite() || single.abs() < f32::MIN_POSITIVE {
            *x = f64::from(single);
        }
    }
}

/// The element type of the first operand.
fn node_dtype(graph: &Graph, node: &Node) -> DType {
    node.operands.first().map_or(node.ty.dtype, |id| graph.ty(*id).dtype)
}

fn put(new: &mut Graph, value: &Array, from: &Graph, id: NodeId) -> NodeId {
    let site = from.node(id).site;
    let first: Option<Literal> = (!value.is_empty()).then(|| value.get(0));
    match first {
        Some(first) if (1..value.len()).all(|index| value.get(index) == first) => {
            new.add_uniform(first, value.shape(), site)
        }
        _ => match tensor::constant(value.clone()).leaf() {
            Some(leaf) => new.add_leaf(leaf),
            // A constant of rank 0 or with no elements has no leaf.
            None => {
                new.add_uniform(first.unwrap_or(Literal::from_i64(0, value.dtype())), value.shape(), site)
            }
        },
    }
}
