//! Scans: which nodes are results of one scan, and the graph that a step runs.
//!
//! Every result of a scan is a node of its own; those of one scan ([`ScanKey`]) are one kernel. A carry lies in the memory of its
//! last value, whether or not anything asks for that, so [`with_carries`] sees to it that there is such a node. The graph
//! of a step makes no row that nobody asked for, and a carry whose values are stacked anyway lives in the rows. What a
//! body captures is memory: [`sink`] moves constants and mere views into the body, where they cost nothing.
#![cfg_attr(not(test), warn(clippy::wildcard_enum_match_arm))]

use std::collections::BTreeMap;
use std::sync::Arc;

use hypatia_graph::body::{Body, parameter};
use hypatia_graph::graph::Operands;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Scan, ScanResult, View};
use hypatia_graph::scan_nodes::{ScanKey, by_scan};
use hypatia_graph::{Broken, Graph, LeafId, NodeId, Op, Site, broken};

/// A value of outside as the body computes it: operators to apply, the last first, and what to apply them to, which is
/// captured in its place; nothing for a constant.
struct Sunk {
    operators: Vec<(Op, Option<Site>)>,
    base: Option<NodeId>,
}

impl Sunk {
    /// A captured value.
    fn captured(graph: &Graph, mut id: NodeId, permutes: bool) -> Sunk {
        let mut operators = Vec::new();
        loop {
            let node = graph.node(id);
            let reads = match node.op.view() {
                Some(View::Broadcast(_) | View::Same) => true,
                Some(View::Permute(_)) => permutes,
                Some(View::Reshape | View::Slice | View::Window(_)) | None => false,
            };
            if !reads {
                let constant = matches!(node.op, Op::Literal(_) | Op::Iota(_));
                operators.extend(constant.then(|| (node.op.clone(), node.site)));
                return Sunk { operators, base: (!constant).then_some(id) };
            }
            operators.push((node.op.clone(), node.site));
            id = node.operands[0];
        }
    }

    /// A sequence whose elements are all the same.
    fn repeated(graph: &Graph, id: NodeId) -> Option<Sunk> {
        let node = graph.node(id);
        let Op::Broadcast { axes, dims } = &node.op else { return None };
        if axes.contains(&0) {
            return None;
        }
        let mut sunk = Sunk::captured(graph, node.operands[0], false);
        let element =
            Op::Broadcast { axes: axes.iter().map(|axis| axis - 1).collect(), dims: dims[1..].into() };
        sunk.operators.insert(0, (element, node.site));
        Some(sunk)
    }
}

/// Whether only products and scans read a leaf of a body, which take its axes in any order.
fn feeds_products(body: &Graph, leaf: LeafId) -> bool {
    let Some((id, _)) = body.nodes().find(|(_, node)| node.op == Op::Leaf(leaf)) else { return true };
    let mut users = body.nodes().filter(|(_, node)| node.operands.contains(&id));
    users.all(|(_, node)| matches!(node.op, Op::Dot | Op::Scan(_))) && body.roots().all(|root| root != id)
}

/// The graph with constants, broadcasts, and transposed factors of products inside the bodies of the scans that read
/// them, and sequences of equal elements as captured values.
pub fn sink(graph: &Graph) -> Graph {
    let mut bodies: BTreeMap<ScanKey<'_>, Sinking> = BTreeMap::new();
    for (key, _) in graph.scan_nodes() {
        bodies.entry(key).or_insert_with(|| Sinking::new(graph, key.body, key.operands));
    }
    let mut copies: Vec<Option<NodeId>> = vec![None; graph.len()];
    let sunk = graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let scan = if let Op::Scan(scan) = &node.op { Some(scan) } else { None };
        let sinking = scan.and_then(|scan| Some((scan, bodies.get(&ScanKey::new(scan, &node.operands))?)));
        let copy = match sinking {
            Some((scan, sinking)) if sinking.changes => {
                let inputs = sinking.inputs.iter().filter_map(|input| match input {
                    Input::Same(index) => Some(operands[*index]),
                    Input::Base(base) => copies[base.index()],
                });
                let initial = operands[scan.body.inputs()..].iter().copied();
                let operands: Operands = inputs.chain(initial).collect();
                let op = Op::Scan(Box::new(Scan { body: sinking.body.clone(), ..(**scan).clone() }));
                let copy = out.add(op, &operands, node.site);
                if let Some(name) = from.name(id) {
                    out.set_name(copy, name.into());
                }
                copy
            }
            Some(_) | None => out.add_like(from, id, operands),
        };
        copies[id.index()] = Some(copy);
        copy
    });
    sunk.pruned()
}

/// What an input of a body that values have sunk into is.
enum Input {
    /// The operand with that number.
    Same(usize),
    /// What the operators that have sunk apply to.
    Base(NodeId),
}

/// A body into which values have sunk.
struct Sinking {
    body: Arc<Body>,
    inputs: Vec<Input>,
    changes: bool,
}

impl Sinking {
    fn new(graph: &Graph, body: &Arc<Body>, operands: &[NodeId]) -> Sinking {
        let mut sunk: BTreeMap<LeafId, Sunk> = BTreeMap::new();
        for (index, (leaf, operand)) in body.graph.inputs.iter().zip(operands).enumerate() {
            if index >= body.sequences {
                let value = Sunk::captured(graph, *operand, feeds_products(&body.graph, *leaf));
                if !value.operators.is_empty() {
                    sunk.insert(*leaf, value);
                }
            } else if let Some(value) = Sunk::repeated(graph, *operand) {
                sunk.insert(*leaf, value);
            }
        }
        if sunk.is_empty() {
            return Sinking { body: body.clone(), inputs: Vec::new(), changes: false };
        }
        let mut inputs = Vec::new();
        let mut leaves = Vec::new();
        let mut sequences = 0;
        for (index, leaf) in body.graph.inputs.iter().enumerate() {
            if !sunk.contains_key(leaf) {
                inputs.push(Input::Same(index));
                leaves.push(*leaf);
                sequences += usize::from(index < body.sequences);
            }
        }
        let mut bases = BTreeMap::new();
        for (leaf, value) in &sunk {
            let Some(base) = value.base else { continue };
            let name = graph.name(base).map(Arc::from);
            let new = parameter(name, graph.ty(base).clone(), LeafKind::Input);
            inputs.push(Input::Base(base));
            leaves.push(new.id);
            bases.insert(*leaf, new);
        }
        let mut step = body.graph.rebuilt(|out, from, id, operands| {
            let Op::Leaf(leaf) = from.node(id).op else { return out.add_like(from, id, operands) };
            let Some(value) = sunk.get(&leaf) else { return out.add_like(from, id, operands) };
            let mut node = bases.get(&leaf).map(|base| out.add_leaf(base));
            for (op, site) in value.operators.iter().rev() {
                node = Some(out.add(op.clone(), node.as_slice(), *site));
            }
            node.unwrap_or_else(|| out.add_like(from, id, operands))
        });
        // A body has the leaves of all its inputs, also of those that it does not read.
        for base in bases.values() {
            step.add_leaf(base);
        }
        step.inputs = leaves;
        let mut new = Body::new(step, sequences, body.until);
        new.updated.clone_from(&body.updated);
        Sinking { body: Arc::new(new), inputs, changes: true }
    }
}

/// The graph with a node for the last value of every carry of every scan in use.
pub fn with_carries(graph: &Graph) -> Graph {
    let live = graph.reachable();
    let mut out = graph.clone();
    for (key, _) in by_scan(graph.scan_nodes().filter(|(_, (id, _))| live[id.index()])) {
        let ScanKey { body, steps, backward, operands } = key;
        for carry in 0..body.carries() {
            let result = ScanResult::Last(carry as u16);
            out.add(Op::Scan(Box::new(Scan { body: body.clone(), steps, result, backward })), operands, None);
        }
    }
    out
}

/// The results of a scan.
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

/// The results of each scan of a graph with carries.
pub fn results<'g>(graph: &'g Graph, live: &[bool]) -> BTreeMap<ScanKey<'g>, Results> {
    let mut scans: BTreeMap<ScanKey<'g>, Results> = BTreeMap::new();
    for (key, (id, result)) in graph.scan_nodes() {
        let results = scans.entry(key).or_default();
        if live[id.index()] {
            results.live.push(id);
        }
        match result {
            ScanResult::Rows(output) if live[id.index()] => {
                results.rows.insert(output, id);
            }
            ScanResult::Steps if live[id.index()] => results.made = Some(id),
            ScanResult::Last(carry) => {
                results.last.insert(carry, id);
            }
            ScanResult::Rows(_) | ScanResult::Steps => {}
        }
    }
    scans
}

/// The graph that a step runs.
pub struct StepGraph {
    /// The rows asked for, in rising order, and the condition are its outputs. Carries that live in rows are not updated.
    pub graph: Graph,
    /// For each carry, the output in whose rows it lives.
    pub rows: Vec<Option<u16>>,
}

/// The graph that a step of a scan runs.
///
/// # Errors
/// Results that the body does not have.
pub fn step_graph(body: &Body, results: &Results) -> Result<StepGraph, Broken> {
    let mut graph = body.graph.clone();
    let row = |k: &u16| body.rows().get(usize::from(*k)).copied().ok_or_else(|| broken!("row {k} of a scan"));
    graph.outputs = results.rows.keys().map(row).collect::<Result<_, _>>()?;
    let row_of = |new: NodeId| {
        let computed = !matches!(graph.node(new).op, Op::Leaf(_));
        graph.outputs.iter().position(|row| computed && *row == new).map(|row| row as u16)
    };
    let rows: Vec<Option<u16>> = graph.updates.iter().map(|(_, new)| row_of(*new)).collect();
    graph.outputs.extend(body.condition());
    let in_memory = graph.updates.iter().zip(&rows).filter(|(_, row)| row.is_none());
    graph.updates = in_memory.map(|(update, _)| *update).collect();
    Ok(StepGraph { graph, rows })
}

#[cfg(test)]
pub(crate) mod tests;
