//! Which nodes of a graph are results of one loop.
//!
//! A loop has one node a result; the nodes have equal operands and equal attributes but for the result. Whoever makes or
//! changes a loop takes them together, and finds them here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::body::Body;
use crate::graph::{Graph, NodeId};
use crate::op::{Backward, Dim, Op, Scan, ScanResult};

/// What the results of one loop have in common.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LoopKey<'g> {
    /// What a step computes.
    pub body: &'g Arc<Body>,
    /// How many steps are made, at most.
    pub steps: Dim,
    /// How its gradient is taken.
    pub backward: Backward,
    /// What the loop reads.
    pub operands: &'g [NodeId],
}

impl<'g> LoopKey<'g> {
    /// The loop that a node with these operands is a result of.
    pub fn new(scan: &'g Scan, operands: &'g [NodeId]) -> LoopKey<'g> {
        LoopKey { body: &scan.body, steps: scan.steps, backward: scan.backward, operands }
    }
}

/// A node that is a result of a loop, and which one it is.
pub type LoopResult = (NodeId, ScanResult);

impl Graph {
    /// All nodes that are results of loops.
    pub fn loop_results(&self) -> impl Iterator<Item = (LoopKey<'_>, LoopResult)> {
        self.nodes().filter_map(|(id, node)| {
            let Op::Scan(scan) = &node.op else { return None };
            Some((LoopKey::new(scan, &node.operands), (id, scan.result)))
        })
    }

    /// Whether there are loops.
    pub fn has_loops(&self) -> bool {
        self.loop_results().next().is_some()
    }
}

/// The results of each loop, in their order, the loops in the order of their first ones.
pub fn by_loop<'g>(
    results: impl IntoIterator<Item = (LoopKey<'g>, LoopResult)>,
) -> Vec<(LoopKey<'g>, Vec<LoopResult>)> {
    let mut places: HashMap<LoopKey<'g>, usize> = HashMap::new();
    let mut loops: Vec<(LoopKey<'g>, Vec<LoopResult>)> = Vec::new();
    for (key, result) in results {
        let place = *places.entry(key).or_insert_with(|| {
            loops.push((key, Vec::new()));
            loops.len() - 1
        });
        loops[place].1.push(result);
    }
    loops
}
