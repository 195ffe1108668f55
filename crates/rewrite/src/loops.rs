//! Rewrites of loops, from graph to graph: what a loop computes is the same, but less of it, and less of it inside.
//!
//! To the e-graph a loop is a black box, so what needs to look into a body and at its surroundings at once is done here,
//! before the rules run: `tidy` removes what nothing uses and what is one value for all steps, `last` keeps only the
//! steps that are used, `hoist` takes work that is the same in every step out of the loop. The bodies themselves are
//! simplified as any graph is.
//!
//! Always true: the nodes of one loop are rewritten together and get one new body, so that it still runs once; a body
//! that several loops share is simplified once. A graph with gradients not yet taken keeps its loops, because those
//! gradients refer to expressions by place; its bodies are simplified all the same.

mod consume;
mod form;
mod fuse;
mod hoist;
mod last;
mod lift;
mod products;
mod sums;
mod tidy;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use hypatia_graph::body::Body;
use hypatia_graph::op::{Scan, ScanResult};
use hypatia_graph::{Graph, Node, NodeId, Op};
use smallvec::SmallVec;

use crate::Options;
use crate::report::Report;
use crate::simplify::simplify_graph;
use form::substituted;

/// The results of one loop that are used.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<(NodeId, ScanResult)>,
}

impl Group {
    fn wanted(&self) -> Vec<ScanResult> {
        self.members.iter().map(|(_, result)| *result).collect()
    }
}

/// A rewriting of one loop: adds nodes to the graph and says which of the old ones they replace; nothing if there is
/// nothing to do.
type Rewriting = fn(&mut Graph, &Group, Options) -> Option<Vec<(NodeId, NodeId)>>;

/// The rewritings by the names under which a report counts them, and whether one loop is rewritten after another: where
/// two loops could take in what the other computes, only the first may.
const REWRITINGS: [(&str, Rewriting, bool); 8] = [
    ("loop_tidied", tidy::tidy, false),
    ("loop_consumer", consume::consume, true),
    ("loop_last_step", last::keep_last, false),
    ("loop_invariant", hoist::hoist, false),
    ("loop_product_before", products::products_before, false),
    ("loop_product_after", products::products_after, false),
    ("loop_sum_after", sums::sums_after, false),
    ("loop_sum_inside", sums::sums_inside, false),
];

/// The bodies that are simplified already.
pub(crate) type Bodies = BTreeSet<Arc<Body>>;

/// The graph with its loops rewritten and their bodies simplified, unless nothing is left to do.
pub(crate) fn improve(
    graph: &Graph,
    options: Options,
    known: &mut Bodies,
    report: &mut Report,
) -> Option<Graph> {
    if !has_loops(graph) {
        return None;
    }
    let rewritten = rewrite(graph, options, report);
    let bodies = simplify_bodies(rewritten.as_ref().unwrap_or(graph), options, known, report);
    let improved = bodies.or(rewritten)?;
    Some(rewrite(&improved, options, report).unwrap_or(improved))
}

fn has_loops(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| matches!(node.op, Op::Scan(_)))
}

/// The graph with its loops rewritten; none if that changes nothing.
fn rewrite(graph: &Graph, options: Options, report: &mut Report) -> Option<Graph> {
    if graph.nodes().any(|(_, node)| matches!(node.op, Op::Grad(_))) {
        return None;
    }
    let mut result: Option<Graph> = None;
    for (name, rewriting, one_by_one) in REWRITINGS {
        loop {
            let graph = result.as_ref().unwrap_or(graph);
            let mut extended = graph.clone();
            let mut replaced = BTreeMap::new();
            let mut count = 0;
            for group in groups(graph) {
                if let Some(pairs) = rewriting(&mut extended, &group, options) {
                    count += 1;
                    replaced.extend(pairs.into_iter().filter(|(old, new)| old != new));
                    if one_by_one {
                        break;
                    }
                }
            }
            if count == 0 {
                break;
            }
            *report.rules.entry(name).or_default() += count;
            result = Some(substituted(&extended, &replaced));
            if !one_by_one {
                break;
            }
        }
        if name == "loop_consumer" {
            result = fuse_all(result.as_ref().unwrap_or(graph), report).or(result);
        }
    }
    result
}

/// The graph with loops joined that share carries; none if there are none.
fn fuse_all(graph: &Graph, report: &mut Report) -> Option<Graph> {
    let mut result: Option<Graph> = None;
    loop {
        let graph = result.as_ref().unwrap_or(graph);
        let mut extended = graph.clone();
        let Some(pairs) = fuse::fuse(&mut extended, &groups(graph)) else { return result };
        *report.rules.entry("loops_fused").or_default() += 1;
        result = Some(substituted(&extended, &pairs.into_iter().collect()));
    }
}

/// The loops of a graph by their used results, in the order of their first ones.
fn groups(graph: &Graph) -> Vec<Group> {
    let live = graph.reachable();
    let mut found: HashMap<(Scan, &[NodeId]), usize> = HashMap::new();
    let mut groups: Vec<Group> = Vec::new();
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        let Op::Scan(scan) = &node.op else { continue };
        let key = Scan { result: ScanResult::Steps, ..(**scan).clone() };
        let index = *found.entry((key, &node.operands)).or_insert_with(|| {
            groups.push(Group { members: Vec::new() });
            groups.len() - 1
        });
        groups[index].members.push((id, scan.result));
    }
    groups
}

/// The graph with every body simplified, each once; none if all are.
fn simplify_bodies(
    graph: &Graph,
    options: Options,
    known: &mut Bodies,
    report: &mut Report,
) -> Option<Graph> {
    let is_new = |node: &Node| matches!(&node.op, Op::Scan(scan) if !known.contains(&scan.body));
    if !graph.nodes().any(|(_, node)| is_new(node)) {
        return None;
    }
    let mut simplified: BTreeMap<Arc<Body>, Arc<Body>> =
        known.iter().map(|body| (body.clone(), body.clone())).collect();
    let result = graph.rebuilt(|out, from, id, operands| {
        let Op::Scan(scan) = &from.node(id).op else { return out.add_like(from, id, operands) };
        let body = simplified.entry(scan.body.clone()).or_insert_with(|| {
            let (graph, inner) = simplify_graph(&scan.body.graph, options);
            report.include(&inner);
            Arc::new(scan.body.with_graph(graph))
        });
        let scan = Scan { body: body.clone(), ..(**scan).clone() };
        let node = out.add(Op::Scan(Box::new(scan)), operands, from.node(id).site);
        if let Some(name) = from.name(id) {
            out.set_name(node, name.into());
        }
        node
    });
    known.extend(simplified.into_values());
    Some(result)
}

/// Nodes in an order in which the results of one loop stand side by side, operands still before users.
pub(crate) fn side_by_side(graph: &Graph, nodes: &[NodeId]) -> Vec<NodeId> {
    if !has_loops(graph) {
        return nodes.to_vec();
    }
    let mut together: BTreeMap<NodeId, SmallVec<[NodeId; 4]>> = BTreeMap::new();
    let mut moved: BTreeSet<NodeId> = BTreeSet::new();
    for Group { members } in groups(graph) {
        let others: SmallVec<[NodeId; 4]> = members.iter().skip(1).map(|(id, _)| *id).collect();
        moved.extend(others.iter().copied());
        together.insert(members[0].0, others);
    }
    let mut order = Vec::with_capacity(nodes.len());
    for id in nodes.iter().filter(|id| !moved.contains(id)) {
        order.push(*id);
        order.extend(together.get(id).into_iter().flatten().copied());
    }
    order
}
