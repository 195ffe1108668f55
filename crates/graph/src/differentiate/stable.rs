//! Formulas made stable before gradients are taken of them.
//!
//! What a gradient refers to (its origins, variables and constants) is cut out of the formulas that use it, so that it is
//! found again afterwards: a formula ends at a cut, and its users begin with a leaf in its place. A graph with scans is
//! made stable as a whole before its first gradient, so that values and gradients read the same scans; then, and in a
//! graph without scans, what further gradients are taken of.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::scans::Scans;
use super::{Roles, import};
use crate::graph::{Graph, NodeId, Operands};
use crate::leaf::{Leaf, LeafKind, fresh_leaf_id};
use crate::op::{LeafId, Op};

/// Part of a graph with cuts in it.
struct Cut {
    /// Its outputs are the nodes that are cut, in their order, then further ones that were asked for.
    forward: Graph,
    /// The nodes for which leaves stand.
    of_leaf: HashMap<LeafId, NodeId>,
}

impl Cut {
    /// The part of a graph that `cuts` and `others` are made of. Gradients in it become leaves.
    fn new(graph: &Graph, cuts: &BTreeSet<NodeId>, others: &[NodeId]) -> Cut {
        let mut forward = graph.emptied();
        let mut of_leaf: HashMap<LeafId, NodeId> = HashMap::new();
        let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
        let mut cone: HashSet<NodeId> = HashSet::new();
        let mut pending: Vec<NodeId> = cuts.iter().chain(others).copied().collect();
        while let Some(id) = pending.pop() {
            if cone.insert(id) {
                pending.extend(graph.node(id).operands.iter().copied());
            }
        }
        let mut order: Vec<NodeId> = cone.into_iter().collect();
        order.sort_unstable();
        for id in order {
            let node = graph.node(id);
            let gradient = matches!(node.op, Op::Grad(_));
            if !gradient {
                let operands: Operands = node.operands.iter().map(|o| copies[o]).collect();
                let copy = forward.add_like(graph, id, &operands);
                copies.insert(id, copy);
                if cuts.contains(&id) {
                    forward.outputs.push(copy);
                }
            }
            if gradient || cuts.contains(&id) {
                let kind = LeafKind::Input;
                let ty = node.ty.clone();
                let leaf = Arc::new(Leaf { id: fresh_leaf_id(), name: None, ty, site: node.site, kind });
                of_leaf.insert(leaf.id, id);
                copies.insert(id, forward.add_leaf(&leaf));
            }
        }
        forward.outputs.extend(others.iter().map(|id| copies[id]));
        Cut { forward, of_leaf }
    }
}

/// Formulas made stable, and where each output of the cut graph stands in them.
struct Stable {
    graphs: Vec<Graph>,
    outputs: Vec<(usize, NodeId)>,
}

impl Stable {
    /// Stabilises `forward`, whose first outputs are the cuts, as a whole, so that all formulas read the same scans.
    ///
    /// A scan that has taken in what is made of its own result needs a cut before that cut is there; then every cut is
    /// stabilised by itself, and the other outputs after them.
    fn new(
        forward: Graph,
        of_leaf: &HashMap<LeafId, NodeId>,
        cuts: &BTreeSet<NodeId>,
        stabilise: &mut dyn FnMut(&Graph) -> Graph,
    ) -> Stable {
        let whole = stabilise(&forward);
        if in_order(&whole, of_leaf, cuts) {
            let outputs = whole.outputs.iter().map(|root| (0, *root)).collect();
            return Stable { graphs: vec![whole], outputs };
        }
        let (first, others) = forward.outputs.split_at(cuts.len());
        let parts = first.chunks(1).chain([others]).filter(|part| !part.is_empty());
        let mut stable = Stable { graphs: Vec::new(), outputs: Vec::new() };
        for (number, part) in parts.enumerate() {
            let mut formulas = forward.clone();
            formulas.outputs = part.to_vec();
            let formulas = stabilise(&formulas.pruned());
            stable.outputs.extend(formulas.outputs.iter().map(|root| (number, *root)));
            stable.graphs.push(formulas);
        }
        stable
    }

    /// A table for [`import`] of each graph.
    fn tables(&self) -> Vec<Vec<Option<NodeId>>> {
        self.graphs.iter().map(|graph| vec![None; graph.len()]).collect()
    }
}

/// Whether every cut, which are the first outputs of a graph, is made of nothing but earlier ones.
fn in_order(graph: &Graph, of_leaf: &HashMap<LeafId, NodeId>, cuts: &BTreeSet<NodeId>) -> bool {
    // The latest of the nodes that leaves below a node stand for.
    let mut latest: Vec<Option<NodeId>> = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let own = if let Op::Leaf(leaf) = node.op { of_leaf.get(&leaf).copied() } else { None };
        let below = node.operands.iter().filter_map(|operand| latest[operand.index()]).max();
        latest.push(own.max(below));
    }
    cuts.iter().zip(&graph.outputs).all(|(cut, root)| latest[root.index()] < Some(*cut))
}

/// Whether formulas made stable still use a node as it is: a leaf, unless it is a constant, which is computed with.
fn stays(graph: &Graph, id: NodeId) -> bool {
    let Op::Leaf(leaf) = graph.node(id).op else { return false };
    !graph.leaf(leaf).is_some_and(|leaf| matches!(leaf.kind, LeafKind::Constant(_)))
}

/// Stabilises what the origins of a gradient compute and adds it to `out`; where each node of a role now stands.
pub(super) fn stable_forward(
    out: &mut Graph,
    roles: &Roles<'_>,
    scans: &mut Scans<'_>,
) -> BTreeMap<NodeId, NodeId> {
    let cuts: BTreeSet<NodeId> = (roles.variables.iter().chain(roles.constants).copied())
        .chain(roles.origins())
        .filter(|id| !stays(out, *id))
        .collect();
    let cut = Cut::new(out, &cuts, &[]);
    let stable = Stable::new(scans.settle(cut.forward), &cut.of_leaf, &cuts, scans.stabilise);
    for graph in &stable.graphs {
        scans.note(graph);
    }
    let mut placed: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut imported = stable.tables();
    // Each formula may use the cut nodes before it, so they are brought over one by one.
    for (id, (part, root)) in cuts.iter().zip(&stable.outputs) {
        let place = |leaf| cut.of_leaf.get(&leaf).and_then(|id| placed.get(id)).copied();
        let new = import(out, &stable.graphs[*part], *root, &mut imported[*part], &place);
        placed.insert(*id, new);
    }
    placed
}

/// A graph with all its formulas stabilised, if it has scans and gradients; the gradients are not taken.
pub(super) fn stable_whole<'g>(graph: Cow<'g, Graph>, scans: &mut Scans<'_>) -> Cow<'g, Graph> {
    let live = graph.reachable();
    let gradients: Vec<NodeId> = graph
        .nodes()
        .filter(|(id, node)| live[id.index()] && matches!(node.op, Op::Grad(_)))
        .map(|(id, _)| id)
        .collect();
    let has_scans = graph.scan_nodes().any(|(_, (id, _))| live[id.index()]);
    if gradients.is_empty() || !has_scans || graph.check().is_err() {
        return graph;
    }
    let asked = gradients.iter().flat_map(|id| &graph.node(*id).operands).copied();
    let cuts: BTreeSet<NodeId> =
        asked.filter(|id| !stays(&graph, *id) && !matches!(graph.node(*id).op, Op::Grad(_))).collect();
    let roots: Vec<NodeId> = graph.roots().collect();
    let cut = Cut::new(&graph, &cuts, &roots);
    let stable = Stable::new(cut.forward, &cut.of_leaf, &cuts, scans.stabilise);
    let mut out = graph.emptied();
    let mut placed: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut imported = stable.tables();
    let place = |placed: &BTreeMap<NodeId, NodeId>, leaf: LeafId| {
        cut.of_leaf.get(&leaf).and_then(|id| placed.get(id)).copied()
    };
    // Cuts and gradients in their order, as each may use those before it.
    let outputs: HashMap<NodeId, (usize, NodeId)> =
        cuts.iter().copied().zip(stable.outputs.iter().copied()).collect();
    let order: BTreeSet<NodeId> = cuts.iter().chain(&gradients).copied().collect();
    for id in order {
        let new = match outputs.get(&id) {
            Some((part, root)) => {
                let place = |leaf| place(&placed, leaf);
                import(&mut out, &stable.graphs[*part], *root, &mut imported[*part], &place)
            }
            None => {
                let mut operands = Operands::new();
                for operand in &graph.node(id).operands {
                    let known = placed.get(operand).copied();
                    operands.push(known.unwrap_or_else(|| out.add_like(&graph, *operand, &[])));
                }
                out.add_like(&graph, id, &operands)
            }
        };
        placed.insert(id, new);
    }
    let mut results = Vec::with_capacity(roots.len());
    for (part, root) in &stable.outputs[cuts.len()..] {
        let place = |leaf| place(&placed, leaf);
        results.push(import(&mut out, &stable.graphs[*part], *root, &mut imported[*part], &place));
    }
    let updated = results.split_off(graph.outputs.len());
    out.outputs = results;
    out.updates = graph.updates.iter().zip(updated).map(|((leaf, _), new)| (*leaf, new)).collect();
    Cow::Owned(out)
}
