//! Operators that become several, whose kernels are faster and whose sums lose less to rounding.

use hypatia_graph::{Axes, Fold, Graph, NodeId, Op, Site};

/// The graph with large reductions in two stages.
pub fn expand(graph: &Graph) -> Graph {
    graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let expanded = if let Op::Reduce(fold, axes) = node.op {
            two_stages(out, fold, axes, operands[0], node.site)
        } else {
            None
        };
        expanded.unwrap_or_else(|| out.add_like(from, id, operands))
    })
}

/// A large reduction over several axes as two: over the last axis first, then over the partial results. The first has
/// rows that are independent, and sums of rows lose less to rounding than one long sum.
fn two_stages(out: &mut Graph, fold: Fold, axes: Axes, x: NodeId, site: Option<Site>) -> Option<NodeId> {
    let extents = out.ty(x).extents()?;
    let last = extents.len().checked_sub(1)?;
    let several = axes.contains(last) && axes.len() > 1;
    let large = extents.iter().product::<usize>() > 1 << 14 && extents[last] >= 16;
    if !several || !large || matches!(fold, Fold::All | Fold::Any) {
        return None;
    }
    let rows = out.add(Op::Reduce(fold, Axes::one(last)), &[x], site);
    let rest = axes.iter().filter(|axis| *axis != last).collect();
    Some(out.add(Op::Reduce(fold, rest), &[rows], site))
}
