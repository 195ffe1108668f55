//! Which nodes of a graph are results of one scan.
//!
//! A scan has one node a result; the nodes have equal operands and equal attributes but for the result. Whoever makes or
//! changes a scan takes them together, and finds them here.

use std::collections::HashMap;
use std::sync::Arc;

use crate::body::Body;
use crate::graph::{Graph, NodeId};
use crate::op::{Backward, Dim, Op, Scan, ScanResult};

/// What the results of one scan have in common.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ScanKey<'g> {
    /// What a step computes.
    pub body: &'g Arc<Body>,
    /// How many steps are made, at most.
    pub steps: Dim,
    /// How its gradient is taken.
    pub backward: Backward,
    /// What the scan reads.
    pub operands: &'g [NodeId],
}

impl<'g> ScanKey<'g> {
    /// The scan that a node with these operands is a result of.
    pub fn new(scan: &'g Scan, operands: &'g [NodeId]) -> ScanKey<'g> {
        ScanKey { body: &scan.body, steps: scan.steps, backward: scan.backward, operands }
    }
}

/// A node that is a result of a scan, and which one it is.
pub type ScanNode = (NodeId, ScanResult);

impl Graph {
    /// All nodes that are results of scans.
    pub fn scan_nodes(&self) -> impl Iterator<Item = (ScanKey<'_>, ScanNode)> {
        self.nodes().filter_map(|(id, node)| {
            let Op::Scan(scan) = &node.op else { return None };
            Some((ScanKey::new(scan, &node.operands), (id, scan.result)))
        })
    }

    /// Whether there are scans.
    pub fn has_scans(&self) -> bool {
        self.scan_nodes().next().is_some()
    }
}

/// The results of each scan, in their order, the scans in the order of their first ones.
pub fn by_scan<'g>(
    results: impl IntoIterator<Item = (ScanKey<'g>, ScanNode)>,
) -> Vec<(ScanKey<'g>, Vec<ScanNode>)> {
    let mut places: HashMap<ScanKey<'g>, usize> = HashMap::new();
    let mut scans: Vec<(ScanKey<'g>, Vec<ScanNode>)> = Vec::new();
    for (key, result) in results {
        let place = *places.entry(key).or_insert_with(|| {
            scans.push((key, Vec::new()));
            scans.len() - 1
        });
        scans[place].1.push(result);
    }
    scans
}
