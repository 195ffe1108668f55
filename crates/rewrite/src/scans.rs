//! Rewrites of scans, from graph to graph: what a scan computes is the same, but less of it, and less of it inside.
//!
//! To the e-graph a scan is a black box, so what needs to look into a body and at its surroundings at once is done here,
//! before and after the rules run. `dead_code` removes what nothing uses and what is one value for all steps, `sink` takes
//! formulas into the body where rules can do something with them, `fuse` joins scans with a carry in common, `last` and
//! `trim` keep only the steps that are used, `invariant` takes work that is the same in every step out of the scan,
//! `products` and `sums` do for all steps at once what need not be done one after another; `lift` and `form` are what
//! they share. The bodies themselves are simplified as any graph is.
//!
//! Always true: the nodes of one scan are rewritten together and get one new body, so that it still runs once; a body
//! that several scans share is simplified once. A graph with gradients not yet taken keeps its scans, because those
//! gradients refer to expressions by place; its bodies are simplified all the same.

mod dead_code;
mod form;
mod fuse;
mod invariant;
mod last;
mod lift;
mod products;
mod sink;
mod sums;
mod trim;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypatia_graph::body::Body;
use hypatia_graph::op::{Scan, ScanResult};
use hypatia_graph::scan_nodes::{ScanNode, by_scan};
use hypatia_graph::{Graph, NodeId, Op};
use smallvec::SmallVec;

use crate::report::Report;
use crate::simplify::simplify_graph;
use crate::{Exactness, Options};
use form::substituted;

/// The results of one scan that are used.
#[derive(Clone, Debug)]
struct Group {
    members: Vec<ScanNode>,
}

impl Group {
    fn wanted(&self) -> Vec<ScanResult> {
        self.members.iter().map(|(_, result)| *result).collect()
    }
}

/// A rewriting of one scan: adds nodes to the graph and says which of the old ones they replace; nothing if there is
/// nothing to do.
type Apply = fn(&mut Graph, &Group, Options) -> Option<Vec<(NodeId, NodeId)>>;

/// When a rewriting is done.
#[derive(Copy, Clone, PartialEq, Eq)]
enum When {
    /// Before the bodies are simplified, and after that.
    Always,
    /// As `Always`, and for one scan after another: where two scans could take in what the other computes, only the first
    /// may.
    OneByOne,
    /// When the bodies are simplified: what is taken out of a body is no longer seen together with the rest of it.
    Simplified,
}

/// What a rewriting of scans is, for reports and explanations.
pub(crate) struct Description {
    /// The name under which a report counts it.
    pub(crate) name: &'static str,
    /// What is lost by it.
    pub(crate) exactness: Exactness,
    /// What it does.
    pub(crate) text: &'static str,
}

/// A rewriting of scans one by one.
struct Rewriting {
    description: Description,
    when: When,
    apply: Apply,
}

const fn rewriting(
    name: &'static str,
    exactness: Exactness,
    when: When,
    apply: Apply,
    text: &'static str,
) -> Rewriting {
    Rewriting { description: Description { name, exactness, text }, when, apply }
}

/// The rewritings in the order in which they are done.
static REWRITINGS: [Rewriting; 11] = [
    rewriting(
        "scan_dead_code",
        Exactness::Exact,
        When::Always,
        dead_code::remove_dead_code,
        "a scan has no result, carry or input that it does not need, and is none if it makes one step",
    ),
    rewriting(
        SINK,
        Exactness::Rounding,
        When::OneByOne,
        sink::sink_consumers,
        "what is made of every row of a scan is made in its steps",
    ),
    rewriting(
        "scan_last_step",
        Exactness::Exact,
        When::Always,
        last::keep_last,
        "a row of which only the last one is read is carried and not stored",
    ),
    rewriting(
        "scan_invariant",
        Exactness::Exact,
        When::Simplified,
        invariant::move_invariants,
        "what is the same in every step is computed once, before the scan",
    ),
    rewriting(
        "scan_product_before",
        Exactness::Rounding,
        When::Simplified,
        products::products_before,
        "products of the elements of a sequence are one product before the scan",
    ),
    rewriting(
        "scan_last_after",
        Exactness::Exact,
        When::Simplified,
        last::last_after,
        "what is computed for the last value alone is computed after the scan",
    ),
    rewriting(
        "scan_product_after",
        Exactness::Rounding,
        When::Simplified,
        products::products_after,
        "products that no later step needs are one product after the scan",
    ),
    rewriting(
        "scan_sum_after",
        Exactness::Rounding,
        When::Simplified,
        sums::sums_after,
        "a sum of products over the steps is one product after the scan",
    ),
    rewriting(
        "scan_sum_inside",
        Exactness::Rounding,
        When::Simplified,
        sums::sums_inside,
        "a sum over the rows of a scan is added up in its steps",
    ),
    rewriting(
        "scan_sum_staged",
        Exactness::Rounding,
        When::Simplified,
        sums::sums_in_stages,
        "a sum of many steps is a sum of sums of some steps each",
    ),
    rewriting(
        "scan_trimmed",
        Exactness::Exact,
        When::Simplified,
        trim::trim,
        "steps and rows that nothing reads are not made",
    ),
];

/// The rewriting after which scans with a carry in common are joined, before results get carries of their own.
const SINK: &str = "scan_sink";

/// What joins scans.
static FUSION: Description = Description {
    name: "scans_fused",
    exactness: Exactness::Exact,
    text: "scans that carry the same value are one",
};

/// The bodies that are simplified already.
pub(crate) type Bodies = BTreeSet<Arc<Body>>;

/// The graph with its scans rewritten and their bodies simplified, unless nothing is left to do.
pub(crate) fn improve(
    graph: &Graph,
    options: Options,
    known: &mut Bodies,
    report: &mut Report,
) -> Option<Graph> {
    if !graph.has_scans() {
        return None;
    }
    let rewritten = rewrite(graph, options, false, report);
    let bodies = simplify_bodies(rewritten.as_ref().unwrap_or(graph), options, known, report);
    let improved = bodies.or(rewritten)?;
    Some(rewrite(&improved, options, true, report).unwrap_or(improved))
}

/// The graph with its scans rewritten; none if that changes nothing.
fn rewrite(graph: &Graph, options: Options, simplified: bool, report: &mut Report) -> Option<Graph> {
    if graph.nodes().any(|(_, node)| matches!(node.op, Op::Grad(_))) {
        return None;
    }
    let mut current = graph.clone();
    let mut changed = false;
    for rewriting in &REWRITINGS {
        let when = rewriting.when;
        if when == When::Simplified && !simplified {
            continue;
        }
        loop {
            let mut replaced = BTreeMap::new();
            let mut count = 0;
            for group in groups(&current) {
                if let Some(pairs) = (rewriting.apply)(&mut current, &group, options) {
                    count += 1;
                    replaced.extend(pairs.into_iter().filter(|(old, new)| old != new));
                    if when == When::OneByOne {
                        break;
                    }
                }
            }
            if count == 0 {
                break;
            }
            current = substituted(&current, &replaced);
            report.note_scans(&rewriting.description, count, &current);
            changed = true;
            if when != When::OneByOne {
                break;
            }
        }
        if rewriting.description.name == SINK {
            changed |= fuse_all(&mut current, report);
        }
    }
    changed.then_some(current)
}

/// Joins scans with a carry in common; whether there were any.
fn fuse_all(graph: &mut Graph, report: &mut Report) -> bool {
    let mut count = 0;
    loop {
        let groups = groups(graph);
        let Some(pairs) = fuse::fuse(graph, &groups) else { break };
        *graph = substituted(graph, &pairs.into_iter().collect());
        count += 1;
    }
    if count > 0 {
        report.note_scans(&FUSION, count, graph);
    }
    count > 0
}

/// The scans of a graph by their used results, in the order of their first ones.
fn groups(graph: &Graph) -> Vec<Group> {
    let live = graph.reachable();
    let used = graph.scan_nodes().filter(|(_, (id, _))| live[id.index()]);
    by_scan(used).into_iter().map(|(_, members)| Group { members }).collect()
}

/// The graph with every body simplified, each once; none if all are.
fn simplify_bodies(
    graph: &Graph,
    options: Options,
    known: &mut Bodies,
    report: &mut Report,
) -> Option<Graph> {
    if graph.scan_nodes().all(|(key, _)| known.contains(key.body)) {
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

/// Nodes in an order in which the results of one scan stand side by side, operands still before users.
pub(crate) fn side_by_side(graph: &Graph, nodes: &[NodeId]) -> Vec<NodeId> {
    if !graph.has_scans() {
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
