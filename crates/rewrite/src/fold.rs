//! Folding of constants, after the rules have seen the formulas: computed in double precision and rounded once.
//!
//! Until here constants are left alone, because the value of an unstable formula is as wrong when it is computed at
//! compile time. Large constants are left to run time: they would only take memory.

use hypatia_graph::{DType, Graph, Literal, Op};

/// The graph with constant subgraphs computed, and how many values were put in.
pub(crate) fn fold_constants(graph: &Graph) -> (Graph, usize) {
    // The uniform value of each node in double precision, where it has one.
    let mut values: Vec<Option<f64>> = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let operand = |index: usize| node.operands.get(index).and_then(|id| values[id.index()]);
        let value = match &node.op {
            Op::Literal(value) if value.dtype().is_float() => Some(value.to_f64()),
            Op::Broadcast { .. } | Op::Reshape(_) | Op::Permute(_) | Op::Window(_) => operand(0),
            Op::Map(f) if node.ty.dtype.is_float() => {
                let operands: Option<Vec<Literal>> = (0..node.operands.len())
                    .map(|index| operand(index).map(|value| Literal::from_f64(value, DType::F64)))
                    .collect();
                operands.and_then(|operands| f.eval(&operands)).map(Literal::to_f64)
            }
            _ => None,
        };
        values.push(value);
    }
    let mut count = 0;
    let folded = graph.rebuilt(|new, from, id, operands| {
        let node = from.node(id);
        let folds = matches!(node.op, Op::Map(_)) && node.ty.is_known();
        match values[id.index()] {
            Some(value) if folds => {
                count += 1;
                let extents = node.ty.extents().unwrap_or_default();
                new.add_uniform(Literal::from_f64(value, node.ty.dtype), &extents, node.site)
            }
            Some(_) | None => new.add_like(from, id, operands),
        }
    });
    let pruned = folded.pruned();
    (pruned, count)
}
