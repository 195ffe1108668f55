//! Loops over steps: which nodes are results of one loop, and the graph that a step runs.
//!
//! Every result of a loop is a node of its own; nodes with one [`Key`] are one kernel. A carry lies in the memory of its
//! last value, whether or not anything asks for that, so [`with_carries`] sees to it that there is such a node. The graph
//! of a step makes no row that nobody asked for, and a carry whose values are stacked anyway lives in the rows. What a
//! body captures is memory: [`sink`] moves constants and mere views into the body, where they cost nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use hypatia_graph::body::{Body, parameter};
use hypatia_graph::graph::Operands;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Dim, Scan, ScanResult};
use hypatia_graph::{Graph, NodeId, Op, Site};

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
}

/// A captured value as the body computes it: operators to apply, the last first, and what to apply them to, which is
/// captured in its place; nothing for a constant.
struct Sunk {
    operators: Vec<(Op, Option<Site>)>,
    base: Option<NodeId>,
}

impl Sunk {
    fn new(graph: &Graph, mut id: NodeId, permutes: bool) -> Sunk {
        let mut operators = Vec::new();
        loop {
            let node = graph.node(id);
            let moves = match &node.op {
                Op::Broadcast { .. } | Op::StopGradient => true,
                Op::Permute(_) => permutes,
                Op::Literal(_) | Op::Iota(_) => {
                    operators.push((node.op.clone(), node.site));
                    return Sunk { operators, base: None };
                }
                _ => false,
            };
            if !moves {
                return Sunk { operators, base: Some(id) };
            }
            operators.push((node.op.clone(), node.site));
            id = node.operands[0];
        }
    }
}

/// Whether only products and loops read a leaf of a body, which take its axes in any order.
fn feeds_products(body: &Graph, leaf: hypatia_graph::LeafId) -> bool {
    let Some((id, _)) = body.nodes().find(|(_, node)| node.op == Op::Leaf(leaf)) else { return true };
    let mut users = body.nodes().filter(|(_, node)| node.operands.contains(&id));
    users.all(|(_, node)| matches!(node.op, Op::Dot | Op::Scan(_))) && body.roots().all(|root| root != id)
}

/// The graph with constants, broadcasts, and transposed factors of products inside the bodies that capture them.
pub fn sink(graph: &Graph) -> Graph {
    let mut bodies: BTreeMap<Key<'_>, (Arc<Body>, Vec<Sunk>)> = BTreeMap::new();
    for (_, node) in graph.nodes() {
        let Op::Scan(scan) = &node.op else { continue };
        let body = &scan.body;
        bodies.entry(Key::new(scan, &node.operands)).or_insert_with(|| {
            let captured = body.graph.inputs.iter().zip(&node.operands).skip(body.sequences);
            let sunk: Vec<Sunk> = captured
                .map(|(leaf, operand)| Sunk::new(graph, *operand, feeds_products(&body.graph, *leaf)))
                .collect();
            (with_sunk(graph, body, &sunk), sunk)
        });
    }
    let mut copies: Vec<Option<NodeId>> = vec![None; graph.len()];
    graph
        .rebuilt(|out, from, id, operands| {
            let node = from.node(id);
            let copy = match &node.op {
                Op::Scan(scan) => {
                    let Some((body, sunk)) = bodies.get(&Key::new(scan, &node.operands)) else {
                        return out.add_like(from, id, operands);
                    };
                    let (sequences, rest) = operands.split_at(scan.body.sequences);
                    let bases = sunk.iter().filter_map(|sunk| copies[sunk.base?.index()]);
                    let initial = &rest[sunk.len()..];
                    let operands: Operands =
                        sequences.iter().copied().chain(bases).chain(initial.iter().copied()).collect();
                    let copy = out.add(
                        Op::Scan(Box::new(Scan { body: body.clone(), ..(**scan).clone() })),
                        &operands,
                        node.site,
                    );
                    if let Some(name) = from.name(id) {
                        out.set_name(copy, name.into());
                    }
                    copy
                }
                _ => out.add_like(from, id, operands),
            };
            copies[id.index()] = Some(copy);
            copy
        })
        .pruned()
}

/// The body that applies operators to what it captures.
fn with_sunk(graph: &Graph, body: &Arc<Body>, sunk: &[Sunk]) -> Arc<Body> {
    if sunk.iter().all(|sunk| sunk.operators.is_empty()) {
        return body.clone();
    }
    let mut inputs = body.graph.inputs[..body.sequences].to_vec();
    let captured: BTreeMap<_, _> = body.graph.inputs[body.sequences..].iter().copied().zip(sunk).collect();
    let mut leaves = BTreeMap::new();
    for (leaf, sunk) in &captured {
        if let (false, Some(base)) = (sunk.operators.is_empty(), sunk.base) {
            let ty = graph.ty(base).clone();
            leaves.insert(*leaf, parameter(graph.name(base).map(Arc::from), ty, LeafKind::Input));
        }
    }
    for leaf in &body.graph.inputs[body.sequences..] {
        match (leaves.get(leaf), captured.get(leaf)) {
            (Some(new), _) => inputs.push(new.id),
            (None, Some(sunk)) if sunk.base.is_some() => inputs.push(*leaf),
            (None, _) => {}
        }
    }
    let mut step = body.graph.rebuilt(|out, from, id, operands| {
        let Op::Leaf(leaf) = from.node(id).op else { return out.add_like(from, id, operands) };
        let Some(sunk) = captured.get(&leaf).filter(|sunk| !sunk.operators.is_empty()) else {
            return out.add_like(from, id, operands);
        };
        let mut value = leaves.get(&leaf).map(|leaf| out.add_leaf(leaf));
        for (op, site) in sunk.operators.iter().rev() {
            value = Some(out.add(op.clone(), value.as_slice(), *site));
        }
        value.unwrap_or(NodeId(0))
    });
    // A body has the leaves of all its inputs, also of those that it does not read.
    for leaf in leaves.values() {
        step.add_leaf(leaf);
    }
    step.inputs = inputs;
    Arc::new(body.with_graph(step))
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

#[cfg(test)]
mod tests;
