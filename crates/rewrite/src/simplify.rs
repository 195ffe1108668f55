//! From a graph into e-graphs and back.
//!
//! A graph of moderate size is one e-graph. A larger one is cut into runs of consecutive nodes; what a run needs from
//! earlier ones is a leaf to it, of which type and facts are known. So time grows with the length, and a chain of a
//! million nodes is as safe as any. What is still large afterwards is cut once more, at other places, for the formulas
//! that lay across the first cuts. Opaque to rules are nodes with unknown extents, and the expressions that a gradient
//! not yet taken is asked for: the cost must keep going through them.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use egg::Id;
use hypatia_graph::{Graph, LeafId, NodeId, Op};
use smallvec::SmallVec;

use crate::cost::cost;
use crate::extract::{Extraction, extract};
use crate::facts::Facts;
use crate::fold::fold_constants;
use crate::report::{Report, RiskyForm, Stage, Unseen};
use crate::rules::RuleSet;
use crate::saturate::{Limits, Stop, saturate};
use crate::term::{Egraph, Knowledge, Origin, Term, insert_term};
use crate::{Numerics, Options, rules_for, scans};

/// Graphs with more nodes are cut.
const LARGEST_WHOLE: usize = 3_000;
/// Nodes of a part.
const PART: usize = 1_500;

/// Marks the leaf term that stands around an expression that a gradient refers to.
const BARRIER: u64 = 1 << 40;

/// As [`crate::simplify`].
pub(crate) fn simplify_graph(graph: &Graph, options: Options) -> (Graph, Report) {
    simplify_reporting(graph, options, Report::new())
}

/// As [`crate::simplify`], with the stages that it consists of.
pub(crate) fn simplify_in_stages(graph: &Graph, options: Options) -> (Graph, Vec<Stage>, Report) {
    let report = Report { stages: Some(Vec::new()), ..Report::new() };
    let (simplified, mut report) = simplify_reporting(graph, options, report);
    let stages = report.stages.take().unwrap_or_default();
    (simplified, stages, report)
}

fn simplify_reporting(graph: &Graph, options: Options, mut report: Report) -> (Graph, Report) {
    let start = Instant::now();
    let live = graph.reachable();
    report.nodes_before = live.iter().filter(|live| **live).count();
    if options.numerics == Numerics::AsWritten || graph.check().is_err() {
        // What is ill-typed is left for the verifier to report.
        report.nodes_after = graph.len();
        return (graph.clone(), report);
    }
    let rules = rules_for(options);
    let mut bodies = scans::Bodies::new();
    let improved = scans::improve(graph, options, &mut bodies, &mut report);
    let (mut simplified, mut risky) =
        simplify_formulas(improved.as_ref().unwrap_or(graph), options, rules, &mut report);
    // Rules may have brought to light what a scan does not need.
    if let Some(improved) = scans::improve(&simplified, options, &mut bodies, &mut report) {
        (simplified, risky) = simplify_formulas(&improved, options, rules, &mut report);
    }
    report.note_risky(risky);
    report.nodes_after = simplified.len();
    report.time = start.elapsed();
    (simplified, report)
}

/// The graph with its formulas simplified, scans left as they are, and the risky terms in it that rules did not see in
/// full.
fn simplify_formulas(
    graph: &Graph,
    options: Options,
    rules: &RuleSet,
    report: &mut Report,
) -> (Graph, Vec<RiskyForm>) {
    if let Some(stages) = &mut report.stages {
        stages.push(Stage::Formulas(graph.clone()));
    }
    let live = graph.reachable();
    let nodes: Vec<NodeId> = graph.nodes().map(|(id, _)| id).filter(|id| live[id.index()]).collect();
    let partitions = report.partitions;
    let (mut simplified, mut risky) = simplify_parts(graph, &nodes, PART, options, rules, report);
    if report.partitions - partitions > 1 {
        // What is left may be small enough to be seen at once; if not, it is cut elsewhere.
        let nodes: Vec<NodeId> = simplified.nodes().map(|(id, _)| id).collect();
        (simplified, risky) = simplify_parts(&simplified, &nodes, PART / 2, options, rules, report);
    }
    let (mut folded, mut count) = fold_constants(simplified, options.numerics);
    if count > 0 && folded.len() <= LARGEST_WHOLE {
        // New constants may be 0 or 1.
        let nodes: Vec<NodeId> = folded.nodes().map(|(id, _)| id).collect();
        let simplified;
        (simplified, risky) = simplify_parts(&folded, &nodes, PART, options, rules, report);
        let again = fold_constants(simplified, options.numerics);
        folded = again.0;
        count += again.1;
    }
    report.folded += count;
    (folded, risky)
}

/// The graph simplified at once, or in parts of which the first has `first` nodes; and the risky terms in it that rules did
/// not see in full.
fn simplify_parts(
    graph: &Graph,
    nodes: &[NodeId],
    first: usize,
    options: Options,
    rules: &RuleSet,
    report: &mut Report,
) -> (Graph, Vec<RiskyForm>) {
    let mut pass = Pass::new(graph, options, nodes);
    if nodes.len() <= LARGEST_WHOLE {
        pass.simplify_part(nodes, rules, report);
        return pass.finish();
    }
    // The results of one scan stay in one part, so that they keep equal operands.
    let nodes = scans::side_by_side(graph, nodes);
    let mut rest = &nodes[..];
    while !rest.is_empty() {
        let is_scan = |id: &NodeId| matches!(graph.node(*id).op, Op::Scan(_));
        let part = if rest.len() == nodes.len() { first } else { PART };
        let mut size = part.min(rest.len());
        while size < rest.len() && is_scan(&rest[size]) {
            size += 1;
        }
        let (part, others) = rest.split_at(size);
        pass.simplify_part(part, rules, report);
        rest = others;
    }
    pass.finish()
}

/// One simplification under way.
struct Pass<'g> {
    graph: &'g Graph,
    options: Options,
    new: Graph,
    /// For each node of the graph the node of the new one, once it is there.
    mapped: Vec<Option<NodeId>>,
    facts: Vec<Facts>,
    /// The last node that uses each node; roots are used at the very end.
    last_use: Vec<u32>,
    /// Expressions that a gradient refers to.
    barriers: Vec<bool>,
    risky: Vec<RiskyForm>,
}

impl<'g> Pass<'g> {
    fn new(graph: &'g Graph, options: Options, nodes: &[NodeId]) -> Pass<'g> {
        let mut last_use = vec![0; graph.len()];
        let mut barriers = vec![false; graph.len()];
        for &id in nodes {
            let node = graph.node(id);
            for operand in &node.operands {
                last_use[operand.index()] = id.0;
            }
            if let Op::Grad(grad) = &node.op {
                for operand in &node.operands[usize::from(grad.has_cost)..] {
                    barriers[operand.index()] = !matches!(graph.node(*operand).op, Op::Leaf(_));
                }
            }
        }
        for root in graph.roots() {
            last_use[root.index()] = u32::MAX;
        }
        let strict = options.numerics == Numerics::Strict;
        let facts = graph.nodes().map(|(_, node)| Facts::unknown(node.ty.dtype, strict)).collect();
        Pass {
            graph,
            options,
            new: graph.emptied(),
            mapped: vec![None; graph.len()],
            facts,
            last_use,
            barriers,
            risky: Vec::new(),
        }
    }

    fn simplify_part(&mut self, part: &[NodeId], rules: &RuleSet, report: &mut Report) {
        let Some(last) = part.last() else { return };
        let strict = self.options.numerics == Numerics::Strict;
        let known = std::mem::take(&mut self.facts);
        let mut egraph = Egraph::new(Knowledge::new(self.graph, &known, strict));
        let loaded = load(&mut egraph, self.graph, part, &self.barriers);
        let saturation = saturate(&mut egraph, rules, Limits::for_nodes(part.len()));
        report.partitions += 1;
        report.rounds += saturation.rounds;
        report.stop = report.stop.max(saturation.stop);
        report.e_nodes += egraph.total_number_of_nodes();
        for (rule, count) in rules.rules.iter().zip(saturation.applied) {
            if count > 0 {
                *report.rules.entry(rule.name).or_default() += count;
            }
        }
        let roots: Vec<NodeId> =
            part.iter().copied().filter(|id| self.last_use[id.index()] > last.0).collect();
        let root_classes: Vec<Id> = roots.iter().map(|id| egraph.find(loaded.classes[id])).collect();
        let extraction = extract(&egraph, &root_classes, &loaded.built);
        let made = emit(&mut self.new, self.graph, &egraph, &extraction, &self.mapped);
        let mut facts = Vec::new();
        for (root, &position) in roots.iter().zip(&extraction.roots) {
            self.mapped[root.index()] = Some(made[position]);
            facts.push((*root, egraph[loaded.classes[root]].data.facts));
        }
        self.note_risky(&egraph, &extraction, part, saturation.stop);
        let places: HashMap<Id, NodeId> =
            extraction.nodes.iter().zip(&made).map(|((class, ..), node)| (*class, *node)).collect();
        for &id in part {
            if let (Some(name), Some(&node)) =
                (self.graph.name(id), places.get(&egraph.find(loaded.classes[&id])))
            {
                self.new.set_name(node, name.into());
            }
        }
        drop(egraph);
        self.facts = known;
        for (id, known) in facts {
            self.facts[id.index()] = known;
        }
    }

    /// Notes chosen terms that may break or lose digits, where more was to be said of them: all where saturation stopped
    /// early, else those made of what another part computes.
    fn note_risky(&mut self, egraph: &Egraph<'_>, extraction: &Extraction<'_>, part: &[NodeId], stop: Stop) {
        let inside: HashSet<NodeId> = part.iter().copied().collect();
        // A computed value of another part; leaves have no more to say anywhere.
        let unseen = |position: &usize| {
            let Op::Leaf(leaf) = extraction.nodes[*position].1.op else { return false };
            let node = Knowledge::node_of(leaf);
            !inside.contains(&node) && !matches!(self.graph.node(node).op, Op::Leaf(_))
        };
        for (class, term, operands) in &extraction.nodes {
            let reason = match stop {
                Stop::Nodes | Stop::Rounds => Unseen::Stopped(stop),
                Stop::Saturated if operands.iter().any(unseen) => Unseen::Cut,
                Stop::Saturated => continue,
            };
            if let Op::Map(f) = &term.op
                && cost(egraph, *class, term).risk > 0
            {
                let site = self.graph.node(egraph[*class].data.origin.node).site;
                self.risky.push(RiskyForm { operator: f.name(), site, reason });
            }
        }
    }

    fn finish(mut self) -> (Graph, Vec<RiskyForm>) {
        let new = |id: &NodeId| self.mapped[id.index()];
        self.new.outputs = self.graph.outputs.iter().filter_map(new).collect();
        self.new.updates =
            self.graph.updates.iter().filter_map(|(leaf, id)| Some((*leaf, new(id)?))).collect();
        // A part may have kept what a later one turned out not to need.
        let new = if self.new.reachable().contains(&false) { self.new.pruned() } else { self.new };
        (new, self.risky)
    }
}

/// The nodes of a part in an e-graph.
pub(crate) struct Loaded {
    /// The class of every node, and of those outside that it uses.
    pub(crate) classes: HashMap<NodeId, Id>,
    /// The terms as built, in order.
    pub(crate) built: Vec<(Id, Term)>,
}

/// Puts nodes into an e-graph; operands outside are leaves.
pub(crate) fn load(egraph: &mut Egraph<'_>, graph: &Graph, part: &[NodeId], barriers: &[bool]) -> Loaded {
    let mut loaded = Loaded { classes: HashMap::new(), built: Vec::new() };
    for &id in part {
        let node = graph.node(id);
        let mut operands: SmallVec<[Id; 4]> = SmallVec::new();
        for operand in &node.operands {
            let class = match loaded.classes.get(operand) {
                Some(class) => *class,
                None => load_outside(egraph, graph, *operand, &mut loaded),
            };
            operands.push(class);
        }
        let known = node.ty.is_known() && node.operands.iter().all(|operand| graph.ty(*operand).is_known());
        let opaque = node.op.is_symbolic() || matches!(node.op, Op::Leaf(_));
        let op = if known && !opaque { node.op.clone() } else { leaf_of(id) };
        let mut class = add(egraph, op, &operands, id, &mut loaded);
        if barriers[id.index()] {
            class = add(egraph, Op::Leaf(LeafId(u64::from(id.0) | BARRIER)), &[class], id, &mut loaded);
        }
        loaded.classes.insert(id, class);
    }
    loaded
}

fn leaf_of(id: NodeId) -> Op {
    Op::Leaf(LeafId(u64::from(id.0)))
}

fn add(egraph: &mut Egraph<'_>, op: Op, operands: &[Id], id: NodeId, loaded: &mut Loaded) -> Id {
    egraph.analysis.origin = Origin { derived: false, node: id };
    let term = Term { op: op.clone(), operands: operands.iter().copied().collect() };
    let class = insert_term(egraph, op, operands).unwrap_or_else(|| {
        // The graph was checked, so its nodes are well typed; a node that is not would stay as it is.
        let opaque = Term { op: leaf_of(id), operands: term.operands.clone() };
        egraph.add(opaque)
    });
    loaded.built.push((class, term));
    class
}

/// An operand from an earlier part: a constant is written again, anything else is a leaf.
fn load_outside(egraph: &mut Egraph<'_>, graph: &Graph, id: NodeId, loaded: &mut Loaded) -> Id {
    let class = match graph.uniform(id).zip(graph.ty(id).extents()) {
        Some((literal, extents)) => {
            let scalar = add(egraph, Op::Literal(literal), &[], id, loaded);
            let dims = hypatia_graph::op::known_dims(&extents);
            match extents.is_empty() {
                true => scalar,
                false => add(egraph, Op::Broadcast { axes: SmallVec::new(), dims }, &[scalar], id, loaded),
            }
        }
        None => add(egraph, leaf_of(id), &[], id, loaded),
    };
    loaded.classes.insert(id, class);
    class
}

/// Writes the chosen terms into the new graph; the node of each.
pub(crate) fn emit(
    new: &mut Graph,
    graph: &Graph,
    egraph: &Egraph<'_>,
    extraction: &Extraction<'_>,
    mapped: &[Option<NodeId>],
) -> Vec<NodeId> {
    let mut made: Vec<NodeId> = Vec::with_capacity(extraction.nodes.len());
    for (class, term, operands) in &extraction.nodes {
        let operands: SmallVec<[NodeId; 4]> = operands.iter().map(|&position| made[position]).collect();
        let node = if let Op::Leaf(leaf) = term.op {
            let id = Knowledge::node_of(leaf);
            match mapped[id.index()] {
                _ if leaf.0 & BARRIER != 0 => operands[0],
                Some(node) => node,
                None => new.add_like(graph, id, &operands),
            }
        } else {
            new.add(term.op.clone(), &operands, graph.node(egraph[*class].data.origin.node).site)
        };
        made.push(node);
    }
    made
}
