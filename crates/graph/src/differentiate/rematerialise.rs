//! Which values of a step are kept for its gradient: a smallest set of bytes from which the rest is computed again.
//!
//! The gradient of a step reads values of the step. Some must be kept (carries, and whatever is dear to compute), cheap
//! ones above can be made from them again; and sometimes the cheap one is smaller than what it is made of. The choice is
//! a minimum cut between values that cannot be made again and those that are read, each node of the graph split in two
//! with its size between. Of equal cuts the one nearest to the dear values is taken: those are the likelier to be shared.

use std::collections::{BTreeMap, BTreeSet};

use petgraph::algo::dinics;
use petgraph::graph::{DiGraph, NodeIndex};
use petgraph::visit::{Dfs, EdgeRef};

use crate::graph::{Graph, NodeId};

/// What has to be done to have a value again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Recompute {
    /// Nothing: it is at hand.
    AtHand,
    /// Compute it from its operands.
    Compute,
    /// It cannot be had unless it is kept.
    Keep,
}

/// The smallest set of values to keep so that `read` can be had again.
pub(super) fn least_kept(
    graph: &Graph,
    read: &BTreeSet<NodeId>,
    recompute: impl Fn(NodeId) -> Recompute,
) -> BTreeSet<NodeId> {
    let mut involved: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut pending: Vec<NodeId> = read.iter().copied().collect();
    while let Some(id) = pending.pop() {
        let effort = recompute(id);
        if effort == Recompute::AtHand || involved.contains_key(&id) {
            continue;
        }
        involved.insert(id, involved.len());
        if effort == Recompute::Compute {
            pending.extend(graph.node(id).operands.iter().copied());
        }
    }
    // Each value is an edge of its size, into which its operands lead and out of which its users do.
    let mut network = DiGraph::<(), u64>::new();
    let (source, sink) = (network.add_node(()), network.add_node(()));
    let ends: Vec<(NodeIndex, NodeIndex)> =
        involved.iter().map(|_| (network.add_node(()), network.add_node(()))).collect();
    for (&id, &place) in &involved {
        let (enter, leave) = ends[place];
        network.add_edge(enter, leave, bytes(graph, id));
        if read.contains(&id) {
            network.add_edge(leave, sink, UNBOUNDED);
        }
        if recompute(id) == Recompute::Keep {
            network.add_edge(source, enter, UNBOUNDED);
            continue;
        }
        for place in graph.node(id).operands.iter().filter_map(|operand| involved.get(operand)) {
            network.add_edge(ends[*place].1, enter, UNBOUNDED);
        }
    }
    let near = near_side(&network, source, sink);
    let cut = |(enter, leave): (NodeIndex, NodeIndex)| near[enter.index()] && !near[leave.index()];
    involved.into_iter().filter(|(_, place)| cut(ends[*place])).map(|(id, _)| id).collect()
}

/// The size of a value, at least 1. Without a known extent it is not worth keeping.
fn bytes(graph: &Graph, id: NodeId) -> u64 {
    let ty = graph.ty(id);
    let bytes = ty.element_count().map_or(usize::MAX, |count| count.saturating_mul(ty.dtype.size()));
    (bytes as u64).clamp(1, UNBOUNDED / 2)
}

/// More than all values of a step together.
const UNBOUNDED: u64 = 1 << 62;

/// Of the minimum cuts of a network the one nearest to the source: whether each place is on its side.
fn near_side(network: &DiGraph<(), u64>, source: NodeIndex, sink: NodeIndex) -> Vec<bool> {
    let (_, flows) = dinics(network, source, sink);
    let mut residual = DiGraph::<(), ()>::new();
    for _ in network.node_indices() {
        residual.add_node(());
    }
    for (edge, flow) in network.edge_references().zip(flows) {
        if flow < *edge.weight() {
            residual.add_edge(edge.source(), edge.target(), ());
        }
        if flow > 0 {
            residual.add_edge(edge.target(), edge.source(), ());
        }
    }
    let mut near = vec![false; network.node_count()];
    let mut walk = Dfs::new(&residual, source);
    while let Some(place) = walk.next(&residual) {
        near[place.index()] = true;
    }
    near
}
