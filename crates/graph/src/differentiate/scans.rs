//! The gradient of a scan is a scan that goes backwards.
//!
//! When the walk has the cotangents of all results of a scan, [`Scans::pull_back`] takes the gradient of one step inside
//! the body's graph, with the ordinary rules, from cotangents of the next values of carries and of rows. The part that
//! reads only the step itself is cut off where least has to be kept ([`super::rematerialise`]): kept values become further rows
//! of the scan, and the rest is the body of the reverse scan. Its carries are the cotangents of the scan's carries and
//! sums for what the scan captures; its rows are the cotangents of elements.
//!
//! Of a checkpointed scan only carries are kept, and the reverse scan makes the step again. Bodies gain rows by all this.
//! Results of earlier forms of a body are the same in later ones, so [`Scans::settle`] puts the last form everywhere, and
//! a scan is made once whoever reads it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::checkpoint::Checkpoints;
use super::flat::{Flat, flat_parameters, takes_roots};
use super::rematerialise::{Recompute, least_kept};
use super::rules::Rules;
use super::{Roles, import, walk};
use crate::body::{Body, parameter};
use crate::diagnostic::Site;
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, NodeId, Operands};
use crate::leaf::{Leaf, LeafKind};
use crate::op::{Backward, Dim, Fold, LeafId, Op, Scan, ScanResult, Start, WindowAxis, Write, known_dims};
use crate::scalar::ScalarFn;
use crate::shape::{Axes, TensorType};

/// What a pass knows of scans.
pub(super) struct Scans<'a> {
    pub(super) stabilise: &'a mut dyn FnMut(&Graph) -> Graph,
    /// The form that stands in the place of a body; it gives the same results, and perhaps further rows.
    later: HashMap<Arc<Body>, Arc<Body>>,
    /// The rows that something reads, so that they are stacked in any case.
    stacked: HashMap<Arc<Body>, BTreeSet<usize>>,
    pub(super) checkpoints: Checkpoints,
    /// The parameters of the step being walked that are flat where they are zero.
    pub(super) flat: Flat,
}

impl<'a> Scans<'a> {
    pub(super) fn new(stabilise: &'a mut dyn FnMut(&Graph) -> Graph) -> Scans<'a> {
        Scans {
            stabilise,
            later: HashMap::new(),
            stacked: HashMap::new(),
            checkpoints: Checkpoints::default(),
            flat: Flat::default(),
        }
    }

    /// Records which rows of scans are read by what a graph is there for.
    pub(super) fn note(&mut self, graph: &Graph) {
        self.note_read(graph, graph.roots().collect());
    }

    fn note_read(&mut self, graph: &Graph, mut pending: Vec<NodeId>) {
        let mut live = vec![false; graph.len()];
        let mut bodies: BTreeMap<Arc<Body>, BTreeSet<usize>> = BTreeMap::new();
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut live[id.index()], true) {
                continue;
            }
            let node = graph.node(id);
            pending.extend(node.operands.iter().copied());
            if let Op::Scan(scan) = &node.op {
                let rows = bodies.entry(scan.body.clone()).or_default();
                if let ScanResult::Rows(row) = scan.result {
                    rows.insert(usize::from(row));
                }
            }
        }
        for (body, rows) in bodies {
            let next = body.graph.updates.iter().map(|(_, next)| *next);
            let roots =
                rows.iter().map(|row| body.rows()[*row]).chain(next).chain(body.condition()).collect();
            self.note_read(&body.graph, roots);
            self.stacked.entry(body).or_default().extend(rows);
        }
    }

    /// Puts a body in the place of another.
    pub(super) fn succeed(&mut self, body: &Arc<Body>, by: &Arc<Body>) {
        if body != by {
            let rows = self.stacked.get(body).cloned().unwrap_or_default();
            self.stacked.entry(by.clone()).or_default().extend(rows);
            self.later.insert(body.clone(), by.clone());
        }
    }

    /// The form that stands in the place of a body.
    pub(super) fn latest<'b>(&'b self, mut body: &'b Arc<Body>) -> &'b Arc<Body> {
        while let Some(next) = self.later.get(body) {
            body = next;
        }
        body
    }

    /// The graph with the last form of every body.
    pub(super) fn settle(&self, graph: Graph) -> Graph {
        if !graph.scan_nodes().any(|(key, _)| self.later.contains_key(key.body)) {
            return graph;
        }
        graph.rebuilt(|out, from, id, operands| {
            let Op::Scan(scan) = &from.node(id).op else { return out.add_like(from, id, operands) };
            add_with_body(out, from, id, operands, scan, self.latest(&scan.body).clone())
        })
    }

    /// The cotangents that the results of one scan give to its operands.
    pub(super) fn pull_back(
        &mut self,
        g: &mut Rules<'_>,
        results: &[NodeId],
        cotangents: &HashMap<NodeId, NodeId>,
        reached: &HashSet<NodeId>,
    ) -> Vec<(NodeId, NodeId)> {
        let Some(forward) = Forward::new(self, g, results, cotangents, reached) else { return Vec::new() };
        if forward.steps == 0 {
            // What comes out of a carry is what went in.
            let inputs = forward.body.inputs();
            let passed = forward.last.iter().filter(|(carry, _)| forward.wanted[inputs + **carry]);
            return passed.map(|(carry, cotangent)| (forward.operands[inputs + carry], *cotangent)).collect();
        }
        if forward.order.count == 0 {
            return Vec::new();
        }
        let flat = match takes_roots(&forward.body.graph) {
            true => flat_parameters(g.graph, &forward.operands, &forward.body, &g.flat),
            false => Flat::default(),
        };
        let outside = std::mem::replace(&mut self.flat, flat);
        let step = StepGradient::new(self, &forward, g.site);
        self.flat = outside;
        if step.of.is_empty() {
            return Vec::new();
        }
        let choice = Choice::new(self, &forward, &step);
        let extended = self.extended(&forward.body, &step.graph, &choice.kept);
        Reverse::new(g, forward, step, &choice, &extended).finish(self)
    }

    /// The body with further rows for the values kept, which are nodes of `step`.
    fn extended(&mut self, body: &Arc<Body>, step: &Graph, kept: &BTreeSet<NodeId>) -> Extended {
        let own = body.rows().len();
        let mut outputs: Vec<NodeId> = step.outputs[..own].to_vec();
        let mut rows: BTreeMap<NodeId, usize> = BTreeMap::new();
        for id in kept {
            let own = outputs.iter().position(|row| row == id).unwrap_or_else(|| {
                outputs.push(*id);
                outputs.len() - 1
            });
            rows.insert(*id, own);
        }
        if outputs.len() == own {
            self.stacked.entry(body.clone()).or_default().extend(rows.values());
            return Extended { body: body.clone(), rows };
        }
        outputs.extend(&step.outputs[own..]);
        let mut graph = body.graph.emptied();
        let mut placed = vec![None; step.len()];
        let mut bring = |id: &NodeId| import(&mut graph, step, *id, &mut placed, &|_| None);
        let outputs = outputs.iter().map(&mut bring).collect();
        let updates = step.updates.iter().map(|(leaf, next)| (*leaf, bring(next))).collect();
        (graph.outputs, graph.updates) = (outputs, updates);
        let extended = Arc::new(body.with_graph(self.settle(graph)));
        self.succeed(body, &extended);
        self.stacked.entry(extended.clone()).or_default().extend(rows.values());
        Extended { body: extended, rows }
    }
}

/// A body with rows for the values kept, and which row each is.
struct Extended {
    body: Arc<Body>,
    rows: BTreeMap<NodeId, usize>,
}

/// Adds a scan's result like one of another graph, with another body.
pub(super) fn add_with_body(
    out: &mut Graph,
    from: &Graph,
    id: NodeId,
    operands: &[NodeId],
    scan: &Scan,
    body: Arc<Body>,
) -> NodeId {
    let new = out.add(Op::Scan(Box::new(Scan { body, ..scan.clone() })), operands, from.node(id).site);
    if let Some(name) = from.name(id) {
        out.set_name(new, name.into());
    }
    new
}

/// A scan whose results have cotangents.
struct Forward {
    body: Arc<Body>,
    steps: usize,
    backward: Backward,
    operands: Operands,
    /// For each operand, whether its cotangent is asked for.
    wanted: Vec<bool>,
    /// The cotangents of rows, by output.
    rows: BTreeMap<usize, NodeId>,
    /// The cotangents of last values, by carry.
    last: BTreeMap<usize, NodeId>,
    order: Order,
}

impl Forward {
    fn new(
        scans: &Scans<'_>,
        g: &mut Rules<'_>,
        results: &[NodeId],
        cotangents: &HashMap<NodeId, NodeId>,
        reached: &HashSet<NodeId>,
    ) -> Option<Forward> {
        let node = g.graph.node(*results.first()?).clone();
        let Op::Scan(scan) = node.op else { return None };
        let Dim::Known(steps) = scan.steps else { return None };
        let (mut rows, mut last) = (BTreeMap::new(), BTreeMap::new());
        for id in results {
            let Op::Scan(scan) = &g.graph.node(*id).op else { continue };
            let Some(cotangent) = cotangents.get(id) else { continue };
            let (place, position) = match scan.result {
                ScanResult::Rows(row) => (&mut rows, usize::from(row)),
                ScanResult::Last(carry) => (&mut last, usize::from(carry)),
                ScanResult::Steps => continue,
            };
            // A result of an earlier form of the body is the same result.
            let sum = match place.get(&position) {
                Some(other) => g.add(*other, *cotangent),
                None => *cotangent,
            };
            place.insert(position, sum);
        }
        let wanted =
            node.operands.iter().map(|o| reached.contains(o) && g.graph.ty(*o).dtype.is_float()).collect();
        let mut forward = Forward {
            body: scans.latest(&scan.body).clone(),
            steps,
            backward: scan.backward,
            operands: node.operands,
            wanted,
            rows,
            last,
            order: Order::plain(steps, scan.backward.truncate),
        };
        if forward.body.until && steps > 0 && forward.order.count > 0 {
            let made = forward.result(g, &forward.body, ScanResult::Steps);
            forward.order.made = Some(made);
            for cotangent in forward.rows.values_mut() {
                *cotangent = of_rows_made(g, *cotangent, made);
            }
        }
        Some(forward)
    }

    /// A result of this scan with that form of its body.
    fn result(&self, g: &mut Rules<'_>, body: &Arc<Body>, result: ScanResult) -> NodeId {
        let scan =
            Scan { body: body.clone(), steps: Dim::Known(self.steps), result, backward: self.backward };
        g.op(Op::Scan(Box::new(scan)), &self.operands)
    }

    /// The carries through which cotangents flow: those that change with something asked for and on which a result with
    /// a cotangent depends.
    fn flowing(&self) -> Vec<usize> {
        let (flow, inputs) = (self.body.flow(), self.body.inputs());
        let carries = 0..self.body.carries();
        let mut changing: Vec<bool> = carries.clone().map(|c| self.wanted[inputs + c]).collect();
        let mut needed: Vec<bool> = carries
            .clone()
            .map(|c| {
                self.last.contains_key(&c) || self.rows.keys().any(|row| flow.rows[*row].contains(inputs + c))
            })
            .collect();
        loop {
            let mut grown = false;
            for c in carries.clone() {
                let reads = |parameter: usize| flow.next[c].contains(parameter);
                if !changing[c]
                    && ((0..inputs).any(|p| self.wanted[p] && reads(p))
                        || carries.clone().any(|other| changing[other] && reads(inputs + other)))
                {
                    (changing[c], grown) = (true, true);
                }
                for other in carries.clone() {
                    if needed[c] && !needed[other] && reads(inputs + other) {
                        (needed[other], grown) = (true, true);
                    }
                }
            }
            if !grown {
                break;
            }
        }
        let float = |c: usize| {
            let (leaf, _) = self.body.graph.updates[c];
            self.body.leaf_type(leaf).is_some_and(|ty| ty.dtype.is_float())
        };
        carries.filter(|&c| changing[c] && needed[c] && float(c)).collect()
    }
}

/// Cotangents of rows as made: those of repetitions of the last row are the last row's.
fn of_rows_made(g: &mut Rules<'_>, cotangent: NodeId, made: NodeId) -> NodeId {
    let shape = g.extents(cotangent);
    let positions = g.op(Op::Iota(known_dims(&shape[..1])), &[]);
    let ends = g.spread(made, Axes::one(0), &shape[..1]);
    let repeated = g.map(ScalarFn::Ge, &[positions, ends]);
    let repeated = g.spread(repeated, (1..shape.len()).collect(), &shape);
    let zero = g.like(cotangent, 0.0);
    let rest = g.select(repeated, cotangent, zero);
    let rest = g.op(Op::Reduce(Fold::Sum, Axes::one(0)), &[rest]);
    let mut row = shape.clone();
    row[0] = 1;
    let rest = g.reshape(rest, &row);
    let one = g.graph.add_uniform(Literal::I64(1), &[], g.site);
    let last = g.sub(made, one);
    let mut window: Vec<WindowAxis> = shape.iter().map(|&n| WindowAxis::whole(n)).collect();
    window[0] = WindowAxis { start: Start::Operand, len: 1, step: 1 };
    g.op(Op::SetWindow(window.into(), Write::Add), &[cotangent, rest, last])
}

/// In which order the reverse scan meets the steps.
#[derive(Copy, Clone)]
struct Order {
    /// The steps of the scan, at most.
    steps: usize,
    /// The steps of the reverse scan, at most.
    count: usize,
    /// Where the scan may end early: how many steps it made.
    made: Option<NodeId>,
}

impl Order {
    fn plain(steps: usize, truncate: Option<u32>) -> Order {
        let count = truncate.map_or(steps, |k| steps.min(usize::try_from(k).unwrap_or(usize::MAX)));
        Order { steps, count, made: None }
    }

    /// Where the scan may end early: for each step of the reverse scan, whether it meets the first step.
    fn ends(self, g: &mut Rules<'_>) -> Option<NodeId> {
        let positions = Order::mirrored(g, self.made?, self.count);
        let first = g.graph.add_uniform(Literal::I64(0), &[self.count], g.site);
        Some(g.map(ScalarFn::Eq, &[positions, first]))
    }

    /// `made - 1 - position` for positions below `count`.
    fn mirrored(g: &mut Rules<'_>, made: NodeId, count: usize) -> NodeId {
        let one = g.graph.add_uniform(Literal::I64(1), &[], g.site);
        let last = g.sub(made, one);
        let last = g.spread(last, Axes::one(0), &[count]);
        let positions = g.op(Op::Iota(known_dims(&[count])), &[]);
        g.sub(last, positions)
    }

    /// A stack of the scan as a sequence of the reverse scan.
    fn reversed(self, g: &mut Rules<'_>, stack: NodeId) -> NodeId {
        match self.made {
            None => reversed(g, stack, self.steps - 1, self.count),
            Some(made) => {
                let positions = Order::mirrored(g, made, self.count);
                let zero = g.graph.add_uniform(Literal::I64(0), &[self.count], g.site);
                let positions = g.map(ScalarFn::Max, &[positions, zero]);
                g.op(Op::Gather { batch: 0 }, &[stack, positions])
            }
        }
    }

    /// Rows of the reverse scan as rows of the scan; zeros for steps that it did not meet.
    fn restored(self, g: &mut Rules<'_>, rows: NodeId) -> NodeId {
        let mut shape = g.extents(rows);
        let dtype = g.graph.ty(rows).dtype;
        let Some(made) = self.made else {
            let rows = reversed(g, rows, self.count - 1, self.count);
            if self.count == self.steps {
                return rows;
            }
            shape[0] = self.steps - self.count;
            let zeros = g.graph.add_uniform(Literal::from_f64(0.0, dtype), &shape, g.site);
            return g.op(Op::Concat(0), &[zeros, rows]);
        };
        shape[0] = self.steps;
        let positions = Order::mirrored(g, made, self.steps);
        let bound =
            |g: &mut Rules<'_>, n: usize| g.graph.add_uniform(Literal::I64(n as i64), &[self.steps], g.site);
        let (first, last) = (bound(g, 0), bound(g, self.count - 1));
        let within = g.map(ScalarFn::Max, &[positions, first]);
        let within = g.map(ScalarFn::Min, &[within, last]);
        let met = g.map(ScalarFn::Eq, &[within, positions]);
        let rows = g.op(Op::Gather { batch: 0 }, &[rows, within]);
        let met = g.spread(met, (1..shape.len()).collect(), &shape);
        let zero = g.like(rows, 0.0);
        g.select(met, rows, zero)
    }

    /// The cotangent of an initial value from the one that the reverse scan ends with: a scan with more steps than the
    /// reverse one has forgotten it.
    fn initial(self, g: &mut Rules<'_>, cotangent: NodeId) -> Option<NodeId> {
        match self.made {
            _ if self.count == self.steps => Some(cotangent),
            None => None,
            Some(made) => {
                let count = g.graph.add_uniform(Literal::I64(self.count as i64), &[], g.site);
                let whole = g.map(ScalarFn::Le, &[made, count]);
                let shape = g.extents(cotangent);
                let whole = g.spread(whole, Axes::all(shape.len()), &shape);
                let zero = g.like(cotangent, 0.0);
                Some(g.select(whole, cotangent, zero))
            }
        }
    }
}

/// `count` rows from `first` downwards.
fn reversed(g: &mut Rules<'_>, stack: NodeId, first: usize, count: usize) -> NodeId {
    let mut window: Vec<WindowAxis> = g.extents(stack).iter().map(|&n| WindowAxis::whole(n)).collect();
    let step = if count > 1 { -1 } else { 1 };
    window[0] = WindowAxis { start: Start::Known(first), len: count, step };
    g.op(Op::Window(window.into()), &[stack])
}

/// The gradient of one step, in a graph that also has what the body gives: its outputs and updates.
struct StepGradient {
    graph: Graph,
    /// The carries through which cotangents flow, with what stands for the cotangents of their next values.
    carries: Vec<(usize, Arc<Leaf>)>,
    /// The outputs with cotangents, with what stands for these.
    rows: Vec<(usize, Arc<Leaf>)>,
    /// The cotangents of parameters by position; those that are missing are zero.
    of: BTreeMap<usize, NodeId>,
}

impl StepGradient {
    fn new(scans: &mut Scans<'_>, forward: &Forward, site: Option<Site>) -> StepGradient {
        let body = &forward.body;
        let mut graph = body.graph.clone();
        let mut known = Vec::new();
        let mut stand_in = |graph: &mut Graph, id: NodeId, kind: LeafKind| {
            let leaf = parameter(None, graph.ty(id).clone(), kind);
            let cotangent = graph.add_leaf(&leaf);
            known.extend([id, cotangent]);
            leaf
        };
        let mut carries = Vec::new();
        for carry in forward.flowing() {
            let (_, next) = body.graph.updates[carry];
            carries.push((carry, stand_in(&mut graph, next, LeafKind::Carry)));
        }
        let mut rows = Vec::new();
        for row in forward.rows.keys() {
            rows.push((*row, stand_in(&mut graph, body.rows()[*row], LeafKind::Input)));
        }
        let inputs = body.inputs();
        let asked = |position: usize| match position.checked_sub(inputs) {
            None => forward.wanted[position],
            Some(carry) => carries.iter().any(|(flowing, _)| *flowing == carry),
        };
        let mut variables: Vec<(usize, NodeId)> = Vec::new();
        for (position, leaf) in body.parameters().enumerate().filter(|(position, _)| asked(*position)) {
            if let Some(leaf) = body.graph.leaf(leaf) {
                variables.push((position, graph.add_leaf(leaf)));
            }
        }
        let nodes: Vec<NodeId> = variables.iter().map(|(_, node)| *node).collect();
        let roles = Roles { cost: None, variables: &nodes, known: &known, constants: &[] };
        let cotangents = walk(&mut graph, &roles, site, scans);
        let found = |(position, node): &(usize, NodeId)| Some((*position, *cotangents.get(node)?));
        let found: Vec<(usize, NodeId)> = variables.iter().filter_map(found).collect();
        // Scans in the step may have gained rows; their values are the same, and so are the nodes after this.
        let given = graph.outputs.len();
        graph.outputs.extend(found.iter().map(|(_, cotangent)| *cotangent));
        let mut graph = scans.settle(graph);
        let settled = graph.outputs.split_off(given);
        let of = found.iter().map(|(position, _)| *position).zip(settled).collect();
        StepGradient { graph, carries, rows, of }
    }

    /// For each node, whether a cotangent is made of it.
    fn read(&self) -> Vec<bool> {
        let mut read = vec![false; self.graph.len()];
        let mut pending: Vec<NodeId> = self.of.values().copied().collect();
        while let Some(id) = pending.pop() {
            if !std::mem::replace(&mut read[id.index()], true) {
                pending.extend(self.graph.node(id).operands.iter().copied());
            }
        }
        read
    }

    /// For each node, whether it depends on a cotangent.
    fn behind(&self) -> Vec<bool> {
        let stand_ins: HashSet<LeafId> =
            self.carries.iter().chain(&self.rows).map(|(_, leaf)| leaf.id).collect();
        dependent(&self.graph, |leaf| stand_ins.contains(&leaf))
    }
}

/// For each node, whether it depends on such a leaf.
fn dependent(graph: &Graph, on: impl Fn(LeafId) -> bool) -> Vec<bool> {
    let mut found = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let own = matches!(node.op, Op::Leaf(leaf) if on(leaf));
        let depends = own || node.operands.iter().any(|o| found[o.index()]);
        found.push(depends);
    }
    found
}

/// Where the reverse scan has the values of a step from.
struct Choice {
    /// Kept as rows of the scan, or stacked in any case and read.
    kept: BTreeSet<NodeId>,
    /// Next values of carries that are kept as they were before: what the step behind has read. By the carry.
    held: BTreeMap<NodeId, usize>,
}

impl Choice {
    fn new(scans: &Scans<'_>, forward: &Forward, step: &StepGradient) -> Choice {
        let (body, graph) = (&forward.body, &step.graph);
        let behind = step.behind();
        let mut read: BTreeSet<NodeId> = BTreeSet::new();
        let mut seen: HashSet<NodeId> = HashSet::new();
        let mut pending: Vec<NodeId> = step.of.values().copied().collect();
        while let Some(id) = pending.pop() {
            if !behind[id.index()] {
                read.insert(id);
            } else if seen.insert(id) {
                pending.extend(graph.node(id).operands.iter().copied());
            }
        }
        let elements: HashSet<LeafId> = body.graph.inputs[..body.sequences].iter().copied().collect();
        let carries: HashMap<LeafId, usize> =
            body.graph.updates.iter().enumerate().map(|(carry, (leaf, _))| (*leaf, carry)).collect();
        let varying = dependent(graph, |leaf| elements.contains(&leaf) || carries.contains_key(&leaf));
        let stacked: BTreeSet<NodeId> =
            scans.stacked.get(body).into_iter().flatten().map(|row| graph.outputs[*row]).collect();
        let again = |id: NodeId| {
            let op = &graph.node(id).op;
            if !varying[id.index()] || stacked.contains(&id) {
                return Recompute::AtHand;
            }
            if let Op::Leaf(leaf) = op {
                return if elements.contains(leaf) { Recompute::AtHand } else { Recompute::Keep };
            }
            if op.is_dear() && !forward.backward.checkpointed { Recompute::Keep } else { Recompute::Compute }
        };
        // Of a carry kept as it was before a step, the step behind has read what the step gave.
        let mut kept = least_kept(graph, &read, again);
        let mut givers: BTreeMap<NodeId, (usize, NodeId)> = BTreeMap::new();
        for id in kept.iter().chain(&stacked) {
            if let Op::Leaf(leaf) = graph.node(*id).op
                && let Some(carry) = carries.get(&leaf)
            {
                let (_, next) = graph.updates[*carry];
                if next != *id && !stacked.contains(&next) {
                    givers.entry(next).or_insert((*carry, *id));
                }
            }
        }
        let before: BTreeSet<NodeId> = givers.values().map(|(_, before)| *before).collect();
        kept = least_kept(graph, &read, |id| {
            if givers.contains_key(&id) || before.contains(&id) { Recompute::AtHand } else { again(id) }
        });
        kept.extend(before);
        // What of all this is read.
        let mut choice = Choice { kept: BTreeSet::new(), held: BTreeMap::new() };
        let mut pending: Vec<NodeId> = read.into_iter().collect();
        let mut seen: HashSet<NodeId> = HashSet::new();
        while let Some(id) = pending.pop() {
            let element = matches!(graph.node(id).op, Op::Leaf(leaf) if elements.contains(&leaf));
            if element || !varying[id.index()] || !seen.insert(id) {
                continue;
            }
            if let Some((carry, before)) = givers.get(&id) {
                choice.held.insert(id, *carry);
                pending.push(*before);
            } else if kept.contains(&id) || stacked.contains(&id) {
                choice.kept.insert(id);
            } else {
                pending.extend(graph.node(id).operands.iter().copied());
            }
        }
        choice
    }
}

/// The reverse scan being made.
struct Reverse<'r, 'g> {
    g: &'r mut Rules<'g>,
    forward: Forward,
    step: StepGradient,
    graph: Graph,
    /// Where the nodes of the step stand in `graph`.
    placed: Vec<Option<NodeId>>,
    /// Leaves for elements, and what they are elements of.
    elements: Vec<(LeafId, NodeId)>,
    captured: Vec<(LeafId, NodeId)>,
    /// Leaves of carries with their next and initial values.
    carries: Vec<(LeafId, NodeId, NodeId)>,
}

impl<'r, 'g> Reverse<'r, 'g> {
    fn new(
        g: &'r mut Rules<'g>,
        forward: Forward,
        step: StepGradient,
        choice: &Choice,
        extended: &Extended,
    ) -> Reverse<'r, 'g> {
        let placed = vec![None; step.graph.len()];
        let (elements, captured, carries) = (Vec::new(), Vec::new(), Vec::new());
        let mut reverse =
            Reverse { g, forward, step, graph: Graph::new(), placed, elements, captured, carries };
        reverse.place_cotangents();
        for (id, row) in &extended.rows {
            let stack = reverse.forward.result(reverse.g, &extended.body, ScanResult::Rows(*row as u16));
            let ty = reverse.step.graph.ty(*id).clone();
            reverse.placed[id.index()] = Some(reverse.element(ty, stack));
        }
        reverse.place_parameters(choice);
        reverse.place_held(choice, extended);
        reverse
    }

    /// A leaf for the elements of a stack of the scan.
    fn element(&mut self, ty: TensorType, stack: NodeId) -> NodeId {
        let sequence = self.forward.order.reversed(self.g, stack);
        self.sequence(ty, sequence)
    }

    fn sequence(&mut self, ty: TensorType, sequence: NodeId) -> NodeId {
        let leaf = parameter(None, ty, LeafKind::Input);
        self.elements.push((leaf.id, sequence));
        self.graph.add_leaf(&leaf)
    }

    /// Where a leaf stands in the step.
    fn inner(&mut self, leaf: &Arc<Leaf>) -> usize {
        let inner = self.step.graph.add_leaf(leaf).index();
        self.placed.resize(self.step.graph.len(), None);
        inner
    }

    /// Cotangents of next values come from the step behind, those of rows are elements.
    fn place_cotangents(&mut self) {
        for (_, leaf) in self.step.carries.clone() {
            let inner = self.inner(&leaf);
            self.placed[inner] = Some(self.graph.add_leaf(&leaf));
        }
        let read = self.step.read();
        for (row, leaf) in self.step.rows.clone() {
            let inner = self.inner(&leaf);
            if read.get(inner) == Some(&true) {
                self.placed[inner] = Some(self.element(leaf.ty.clone(), self.forward.rows[&row]));
            }
        }
    }

    /// Elements and captured values that the gradient reads.
    fn place_parameters(&mut self, choice: &Choice) {
        let mut seen = vec![false; self.step.graph.len()];
        let mut pending: Vec<NodeId> = self.step.of.values().copied().collect();
        while let Some(id) = pending.pop() {
            let made = self.placed[id.index()].is_some() || choice.held.contains_key(&id);
            if !made && !std::mem::replace(&mut seen[id.index()], true) {
                pending.extend(self.step.graph.node(id).operands.iter().copied());
            }
        }
        let body = self.forward.body.clone();
        for (position, leaf) in body.graph.inputs.iter().enumerate() {
            let Some(leaf) = body.graph.leaf(*leaf) else { continue };
            let inner = self.inner(leaf);
            if seen.get(inner) != Some(&true) {
                continue;
            }
            let operand = self.forward.operands[position];
            self.placed[inner] = Some(if position < body.sequences {
                self.element(leaf.ty.clone(), operand)
            } else {
                let own = parameter(leaf.name.clone(), leaf.ty.clone(), LeafKind::Input);
                self.captured.push((own.id, operand));
                self.graph.add_leaf(&own)
            });
        }
    }

    /// Carries for next values: the step behind has read them as values before.
    fn place_held(&mut self, choice: &Choice, extended: &Extended) {
        let leaves: Vec<LeafId> = choice
            .held
            .keys()
            .map(|next| {
                let ty = self.step.graph.ty(*next).clone();
                let leaf = parameter(None, ty, LeafKind::Carry);
                self.placed[next.index()] = Some(self.graph.add_leaf(&leaf));
                leaf.id
            })
            .collect();
        for (leaf, carry) in leaves.into_iter().zip(choice.held.values()) {
            let (before, _) = self.forward.body.graph.updates[*carry];
            let before = self.forward.body.graph.leaf(before).cloned().map(|leaf| self.inner(&leaf));
            if let Some(before) = before.and_then(|inner| self.placed[inner]) {
                let last = self.forward.result(self.g, &extended.body, ScanResult::Last(*carry as u16));
                self.carries.push((leaf, before, last));
            }
        }
    }

    /// The cotangents of the scan's operands.
    fn finish(mut self, scans: &mut Scans<'_>) -> Vec<(NodeId, NodeId)> {
        let body = self.forward.body.clone();
        let (inputs, held) = (body.inputs(), std::mem::take(&mut self.carries));
        let mut results: Vec<(usize, ScanResult)> = Vec::new();
        for (carry, leaf) in std::mem::take(&mut self.step.carries) {
            let operand = self.forward.operands[inputs + carry];
            let next = match self.step.of.get(&(inputs + carry)).copied() {
                Some(next) => {
                    if self.forward.wanted[inputs + carry] {
                        results.push((inputs + carry, ScanResult::Last(self.carries.len() as u16)));
                    }
                    self.bring(next)
                }
                None => {
                    let own = self.graph.add_leaf(&leaf);
                    Rules::new(&mut self.graph, self.g.site).like(own, 0.0)
                }
            };
            let initial = self.forward.last.get(&carry).copied();
            let initial = initial.unwrap_or_else(|| self.g.like(operand, 0.0));
            self.carries.push((leaf.id, next, initial));
        }
        self.carries.extend(held);
        for position in body.sequences..inputs {
            let Some(part) = self.step.of.get(&position).copied() else { continue };
            let part = self.bring(part);
            let leaf = parameter(None, self.graph.ty(part).clone(), LeafKind::Carry);
            let sum = self.graph.add_leaf(&leaf);
            let next = self.graph.add(Op::Map(ScalarFn::Add), &[sum, part], self.g.site);
            let initial = self.g.like(self.forward.operands[position], 0.0);
            results.push((position, ScanResult::Last(self.carries.len() as u16)));
            self.carries.push((leaf.id, next, initial));
        }
        let mut outputs = Vec::new();
        for position in 0..body.sequences {
            let Some(part) = self.step.of.get(&position).copied() else { continue };
            results.push((position, ScanResult::Rows(outputs.len() as u16)));
            outputs.push(self.bring(part));
        }
        if let Some(ends) = self.forward.order.ends(self.g) {
            outputs.push(self.sequence(TensorType::scalar(DType::Bool), ends));
        }
        self.graph.outputs = outputs;
        self.add_scan(scans, &results)
    }

    fn bring(&mut self, id: NodeId) -> NodeId {
        import(&mut self.graph, &self.step.graph, id, &mut self.placed, &|_| None)
    }

    /// Adds the reverse scan; what its results are for as operands of the scan, with their cotangents.
    fn add_scan(mut self, scans: &mut Scans<'_>, results: &[(usize, ScanResult)]) -> Vec<(NodeId, NodeId)> {
        let order = self.forward.order;
        self.graph.inputs = self.elements.iter().chain(&self.captured).map(|(leaf, _)| *leaf).collect();
        self.graph.updates = self.carries.iter().map(|(leaf, next, _)| (*leaf, *next)).collect();
        let operands: Operands = (self.elements.iter().chain(&self.captured).map(|(_, value)| *value))
            .chain(self.carries.iter().map(|(_, _, initial)| *initial))
            .collect();
        let graph = scans.settle(self.graph);
        let body = Arc::new(Body::new(graph, self.elements.len(), order.made.is_some()));
        scans.stacked.insert(body.clone(), (0..body.rows().len()).collect());
        let mut parts = Vec::new();
        for (position, result) in results {
            let scan = Scan {
                body: body.clone(),
                steps: Dim::Known(order.count),
                result: *result,
                // Whoever rewrites scans sees by it which are to need little memory.
                backward: Backward { truncate: None, checkpointed: self.forward.backward.checkpointed },
            };
            let value = self.g.op(Op::Scan(Box::new(scan)), &operands);
            let part = if *position < self.forward.body.sequences {
                Some(order.restored(self.g, value))
            } else if *position < self.forward.body.inputs() {
                Some(value)
            } else {
                order.initial(self.g, value)
            };
            parts.extend(part.map(|part| (self.forward.operands[*position], part)));
        }
        parts
    }
}
