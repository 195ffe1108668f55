//! Loops over steps: which nodes are results of one loop, and the graph that a step runs.
//!
//! Every result of a loop is a node of its own; nodes with one [`Key`] are one kernel. A carry lies in the memory of its
//! last value, whether or not anything asks for that, so [`with_carries`] sees to it that there is such a node. The graph
//! of a step makes no row that nobody asked for, and a carry whose values are stacked anyway lives in the rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypatia_graph::body::Body;
use hypatia_graph::graph::Operands;
use hypatia_graph::op::{Dim, Scan, ScanResult};
use hypatia_graph::{Graph, NodeId, Op};

/// What the results of one loop have in common.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key<'g> {
    body: &'g Arc<Body>,
    steps: Dim,
    operands: &'g Operands,
}

impl<'g> Key<'g> {
    /// The key of a result.
    pub fn new(scan: &'g Scan, operands: &'g Operands) -> Key<'g> {
        Key { body: &scan.body, steps: scan.steps, operands }
    }

    /// The key of a node, if it is the result of a loop.
    pub fn of(graph: &'g Graph, id: NodeId) -> Option<Key<'g>> {
        let node = graph.node(id);
        if let Op::Scan(scan) = &node.op { Some(Key::new(scan, &node.operands)) } else { None }
    }
}

/// The graph with a node for the last value of every carry of every loop in use.
pub fn with_carries(mut graph: Graph) -> Graph {
    let live = graph.reachable();
    let scans: Vec<(Scan, Operands)> = graph
        .nodes()
        .filter(|(id, _)| live[id.index()])
        .filter_map(|(_, node)| {
            if let Op::Scan(scan) = &node.op { Some(((**scan).clone(), node.operands.clone())) } else { None }
        })
        .collect();
    for (scan, operands) in scans {
        for carry in 0..scan.body.carries() {
            let last = Scan { result: ScanResult::Last(carry as u16), ..scan.clone() };
            graph.add(Op::Scan(Box::new(last)), &operands, None);
        }
    }
    graph
}

/// The results of a loop.
#[derive(Clone, Debug, Default)]
pub struct Results {
    /// The nodes that something asks for, in their order.
    pub live: Vec<NodeId>,
    /// The stacked outputs that something asks for.
    pub rows: BTreeMap<u16, NodeId>,
    /// For each carry, the node of its last value.
    pub last: BTreeMap<u16, NodeId>,
    /// The number of steps made, if something asks for it.
    pub made: Option<NodeId>,
}

/// The results of each loop of a graph with carries.
pub fn results<'g>(graph: &'g Graph, live: &[bool]) -> BTreeMap<Key<'g>, Results> {
    let mut loops: BTreeMap<Key<'g>, Results> = BTreeMap::new();
    for (id, node) in graph.nodes() {
        let Op::Scan(scan) = &node.op else { continue };
        let results = loops.entry(Key::new(scan, &node.operands)).or_default();
        if live[id.index()] {
            results.live.push(id);
        }
        match scan.result {
            ScanResult::Rows(output) if live[id.index()] => {
                results.rows.entry(output).or_insert(id);
            }
            ScanResult::Steps if live[id.index()] => results.made = Some(id),
            ScanResult::Last(carry) => {
                results.last.insert(carry, id);
            }
            ScanResult::Rows(_) | ScanResult::Steps => {}
        }
    }
    loops
}

/// The graph that a step runs.
pub struct StepGraph {
    /// The rows asked for, in rising order, and the condition are its outputs. Carries that live in rows are not updated.
    pub graph: Graph,
    /// For each carry, the output in whose rows it lives.
    pub rows: Vec<Option<u16>>,
}

/// The graph that a step of a loop runs.
pub fn step_graph(body: &Body, results: &Results) -> StepGraph {
    let mut graph = body.graph.clone();
    graph.outputs = results.rows.keys().filter_map(|k| body.rows().get(usize::from(*k)).copied()).collect();
    let row_of = |new: NodeId| {
        let computed = !matches!(graph.node(new).op, Op::Leaf(_));
        graph.outputs.iter().position(|row| computed && *row == new).map(|row| row as u16)
    };
    let rows: Vec<Option<u16>> = graph.updates.iter().map(|(_, new)| row_of(*new)).collect();
    graph.outputs.extend(body.condition());
    let in_memory = graph.updates.iter().zip(&rows).filter(|(_, row)| row.is_none());
    graph.updates = in_memory.map(|(update, _)| *update).collect();
    StepGraph { graph, rows }
}
