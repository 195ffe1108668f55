//! Reverse-mode differentiation: the walk.
//!
//! [`differentiate`] replaces every `Grad` node of a specialised graph, in the bodies of scans too. A rule
//! (`rules`) says how the cotangent of a node's value becomes that of one operand and never accumulates; the walk
//! alone does. All results of a scan are pulled back together (`scans`). Before a gradient is taken the forward formula
//! passes through `stabilise`, so rules see the stable form.

mod checkpoint;
mod flat;
mod flow;
mod lost;
mod rematerialise;
mod rules;
mod scans;
mod stable;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use self::checkpoint::checkpointed;
pub use self::flow::{Flow, Parameters};
pub use self::lost::lost_gradients;
use self::rules::{Rules, pullback};
use self::scans::Scans;
use self::stable::{stable_forward, stable_whole};
use crate::body::Body;
use crate::broken;
use crate::diagnostic::{Diagnostic, Diagnostics, Site};
use crate::graph::{Graph, NodeId, Operands};
use crate::op::{Disconnected, Grad, LeafId, Op};
use crate::scan_nodes::{ScanKey, by_scan};

/// The graph with every gradient taken; zeros where a cost does not depend on a variable, which [`check`] refuses if that
/// is asked for. `stabilise` rewrites a graph into one of the same meaning; its outputs
/// correspond one to one.
pub fn differentiate(
    graph: &Graph,
    stabilise: &mut dyn FnMut(&Graph) -> Graph,
) -> Result<Graph, Diagnostics> {
    if let Some((id, node)) = graph.nodes().find(|(_, node)| !node.ty.is_known()) {
        return Err(broken!("known extents of {id}", node.ty).with_input(graph).into());
    }
    let mut scans = Scans::new(stabilise);
    let result = without_gradients(graph, &mut scans);
    result.check()?;
    Ok(scans.settle(result))
}

/// The graph without `Grad` nodes, here and in bodies.
fn without_gradients(graph: &Graph, scans: &mut Scans<'_>) -> Graph {
    let graph = checkpointed(graph, false, scans);
    let graph = bodies_without_gradients(graph, scans);
    let graph = stable_whole(graph, scans);
    scans.note(&graph);
    let behind = behind_gradients(&graph);
    let has_scans = graph.has_scans();
    let mut taken: HashMap<Operands, Vec<(Grad, Vec<NodeId>)>> = HashMap::new();
    graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let Op::Grad(grad) = &node.op else { return out.add_like(from, id, operands) };
        let request = Grad { index: 0, ..(**grad).clone() };
        let known = taken.get(operands).and_then(|all| all.iter().find(|(g, _)| *g == request));
        let gradients = match known {
            Some((_, gradients)) => gradients.clone(),
            None => {
                let is_stable = has_scans && !node.operands.iter().any(|o| behind[o.index()]);
                let gradients = take_gradients(out, &request, operands, node.site, is_stable, scans);
                taken.entry(operands.into()).or_default().push((request, gradients.clone()));
                gradients
            }
        };
        let gradient = gradients[usize::from(grad.index)];
        if let Some(name) = from.name(id) {
            out.set_name(gradient, name.into());
        }
        gradient
    })
}

/// The graph with every gradient in the bodies of its scans taken.
fn bodies_without_gradients<'g>(graph: Cow<'g, Graph>, scans: &mut Scans<'_>) -> Cow<'g, Graph> {
    if !graph.scan_nodes().any(|(key, _)| holds_gradients(&key.body.graph)) {
        return graph;
    }
    let live = graph.reachable();
    for (ScanKey { body, .. }, _) in graph.scan_nodes().filter(|(_, (id, _))| live[id.index()]) {
        if scans.latest(body) == body && holds_gradients(&body.graph) {
            let free = without_gradients(&body.graph, scans);
            let free = Arc::new(body.with_graph(scans.settle(free)));
            scans.succeed(body, &free);
        }
    }
    Cow::Owned(scans.settle(graph.into_owned()))
}

fn holds_gradients(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| matches!(node.op, Op::Grad(_)))
        || graph.scan_nodes().any(|(key, _)| holds_gradients(&key.body.graph))
}

/// For each node, whether it is a gradient or depends on one.
fn behind_gradients(graph: &Graph) -> Vec<bool> {
    let mut behind = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        let found = matches!(node.op, Op::Grad(_)) || node.operands.iter().any(|o| behind[o.index()]);
        behind.push(found);
    }
    behind
}

/// The operands of a `Grad` node by role.
struct Roles<'a> {
    cost: Option<NodeId>,
    variables: &'a [NodeId],
    known: &'a [NodeId],
    constants: &'a [NodeId],
}

impl<'a> Roles<'a> {
    fn new(grad: &Grad, operands: &'a [NodeId]) -> Roles<'a> {
        let (cost, rest) = operands.split_at(usize::from(grad.has_cost));
        let (variables, rest) = rest.split_at(usize::from(grad.variables));
        let (known, constants) = rest.split_at(2 * usize::from(grad.known));
        Roles { cost: cost.first().copied(), variables, known, constants }
    }

    /// Where the walk begins.
    fn origins(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.cost.into_iter().chain(self.known.iter().step_by(2).copied())
    }
}

/// Checks that the cost of every gradient depends on the variables, unless zeros were asked for.
///
/// This is decided here and only here, of a graph that is still symbolic: in a concrete one a scan of no steps, an array
/// of no elements or a rule can have taken the path away, and the gradient is then zero.
pub fn check(graph: &Graph) -> Result<(), Diagnostics> {
    let mut faults = Vec::new();
    check_gradients(graph, &mut HashSet::new(), &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(Diagnostics(faults)) }
}

fn check_gradients(graph: &Graph, bodies: &mut HashSet<Arc<Body>>, faults: &mut Vec<Diagnostic>) {
    let live = graph.reachable();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Grad(grad) = &node.op
            && grad.index == 0
        {
            faults.extend(check_connected(graph, grad, &Roles::new(grad, &node.operands), node.site).err());
        }
        if let Op::Scan(scan) = &node.op
            && bodies.insert(scan.body.clone())
        {
            check_gradients(&scan.body.graph, bodies, faults);
        }
    }
}

/// Whether the origins depend on every variable, if that is asked for.
fn check_connected(
    graph: &Graph,
    grad: &Grad,
    roles: &Roles<'_>,
    site: Option<Site>,
) -> Result<(), Diagnostic> {
    if grad.disconnected == Disconnected::Zero {
        return Ok(());
    }
    let disconnected = |v: &&NodeId| {
        let reached = dependents(graph, roles, &[**v]);
        !roles.origins().any(|origin| reached.contains(&origin))
    };
    let Some(variable) = roles.variables.iter().find(disconnected) else { return Ok(()) };
    let name = graph.name(*variable).map_or("a variable".to_string(), |name| format!("`{name}`"));
    Err(Diagnostic::new(format!("the cost does not depend on {name}"))
        .at(site)
        .with("variable", graph.ty(*variable).to_string(), graph.node(*variable).site)
        .hint("leave it out, or ask for zeros with `Gradient::disconnected(Disconnected::Zero)`"))
}

fn take_gradients(
    out: &mut Graph,
    grad: &Grad,
    operands: &[NodeId],
    site: Option<Site>,
    is_stable: bool,
    scans: &mut Scans<'_>,
) -> Vec<NodeId> {
    let roles = Roles::new(grad, operands);
    let stable = if is_stable { BTreeMap::new() } else { stable_forward(out, &roles, scans) };
    let at = |id: &NodeId| stable.get(id).copied().unwrap_or(*id);
    let mapped: Vec<NodeId> = operands.iter().map(at).collect();
    let roles = Roles::new(grad, &mapped);
    let cotangents = walk(out, &roles, site, scans);
    let gradient = |v: &NodeId| match cotangents.get(v) {
        Some(cotangent) => *cotangent,
        None => zeros_like(out, *v, site),
    };
    roles.variables.iter().map(gradient).collect()
}

/// The nodes between the origins and `targets` through which a change passes, targets included.
fn dependents(graph: &Graph, roles: &Roles<'_>, targets: &[NodeId]) -> HashSet<NodeId> {
    let blocked: HashSet<NodeId> = roles.constants.iter().copied().collect();
    let mut cone: HashSet<NodeId> = HashSet::new();
    let mut pending: Vec<NodeId> = roles.origins().collect();
    while let Some(id) = pending.pop() {
        if !blocked.contains(&id) && cone.insert(id) {
            pending.extend(graph.node(id).operands.iter().copied());
        }
    }
    let mut order: Vec<NodeId> = cone.into_iter().collect();
    order.sort_unstable();
    let mut reached: HashSet<NodeId> = HashSet::new();
    for id in order {
        let node = graph.node(id);
        let passes = |(i, operand): (usize, &NodeId)| reached.contains(operand) && node.op.connects(i);
        if targets.contains(&id) || node.operands.iter().enumerate().any(passes) {
            reached.insert(id);
        }
    }
    reached
}

/// Adds the cone of `root` to `out`, nodes already imported and leaves replaced as `place` says; where the root now
/// stands.
fn import(
    out: &mut Graph,
    from: &Graph,
    root: NodeId,
    imported: &mut [Option<NodeId>],
    place: &dyn Fn(LeafId) -> Option<NodeId>,
) -> NodeId {
    let mut pending = vec![root];
    while let Some(&id) = pending.last() {
        if imported[id.index()].is_some() {
            pending.pop();
            continue;
        }
        let node = from.node(id);
        if let Some(next) = node.operands.iter().find(|o| imported[o.index()].is_none()) {
            pending.push(*next);
            continue;
        }
        let operands: Operands = node.operands.iter().filter_map(|o| imported[o.index()]).collect();
        let replaced = if let Op::Leaf(leaf) = node.op { place(leaf) } else { None };
        imported[id.index()] = Some(replaced.unwrap_or_else(|| out.add_like(from, id, &operands)));
        pending.pop();
    }
    imported[root.index()].unwrap_or(root)
}

/// The cotangents of all nodes between the origins and the variables.
fn walk(
    out: &mut Graph,
    roles: &Roles<'_>,
    site: Option<Site>,
    scans: &mut Scans<'_>,
) -> HashMap<NodeId, NodeId> {
    let reached = dependents(out, roles, roles.variables);
    let mut order: Vec<NodeId> = reached.iter().copied().collect();
    order.sort_unstable();
    let groups = results_of_scans(out, &reached, scans);
    let mut rules = Rules { graph: out, site, flat: scans.flat.clone() };
    let mut cotangents: HashMap<NodeId, NodeId> = HashMap::new();
    if let Some(cost) = roles.cost {
        let one = rules.like(cost, 1.0);
        cotangents.insert(cost, one);
    }
    for pair in roles.known.chunks(2) {
        rules.accumulate(&mut cotangents, pair[0], pair[1]);
    }
    for &id in order.iter().rev() {
        let node = rules.graph.node(id).clone();
        rules.site = node.site.or(site);
        if let Op::Scan(_) = node.op {
            // At its first result all that uses a scan has been met.
            if let Some(results) = groups.get(&id) {
                for (operand, part) in scans.pull_back(&mut rules, results, &cotangents, &reached) {
                    rules.accumulate(&mut cotangents, operand, part);
                }
            }
            continue;
        }
        let Some(&cotangent) = cotangents.get(&id) else { continue };
        for (index, operand) in node.operands.iter().enumerate() {
            if reached.contains(operand)
                && node.op.connects(index)
                && let Some(part) = pullback(&mut rules, id, cotangent, index)
            {
                rules.accumulate(&mut cotangents, *operand, part);
            }
        }
    }
    cotangents
}

/// The results of each scan among these nodes, by the first of them; a scan with an earlier form of a body is the same.
fn results_of_scans(
    graph: &Graph,
    reached: &HashSet<NodeId>,
    scans: &Scans<'_>,
) -> HashMap<NodeId, Vec<NodeId>> {
    let results = graph.scan_nodes().filter(|(_, (id, _))| reached.contains(id));
    let groups =
        by_scan(results.map(|(key, result)| (ScanKey { body: scans.latest(key.body), ..key }, result)));
    let nodes =
        groups.into_iter().map(|(_, results)| results.into_iter().map(|(id, _)| id).collect::<Vec<_>>());
    nodes.map(|results| (results[0], results)).collect()
}

fn zeros_like(graph: &mut Graph, id: NodeId, site: Option<Site>) -> NodeId {
    Rules::new(graph, site).like(id, 0.0)
}

#[cfg(test)]
mod tests;
