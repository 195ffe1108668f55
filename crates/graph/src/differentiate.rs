//! Reverse-mode differentiation: the walk.
//!
//! [`differentiate`] replaces every `Grad` node of a specialised graph, in the bodies of loops too. A rule
//! ([`rules`]) says how the cotangent of a node's value becomes that of one operand and never accumulates; the walk
//! alone does. All results of a loop are pulled back together ([`loops`]). Before a gradient is taken the forward formula
//! passes through `stabilise`, so rules see the stable form.

mod flow;
mod kept;
mod loops;
mod rules;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

pub use self::flow::{Flow, Parameters};
use self::loops::Loops;
use self::rules::{Rules, pullback};
use crate::body::Body;
use crate::diagnostic::{Diagnostic, Diagnostics, Site};
use crate::dtype::DType;
use crate::graph::{Graph, NodeId, Operands};
use crate::leaf::{Leaf, LeafKind, fresh_leaf_id};
use crate::op::{Disconnected, Fold, Grad, LeafId, Op, Scan, ScanResult};
use crate::scalar::ScalarFn;

/// The graph with every gradient taken. `stabilise` rewrites a graph into one of the same meaning; its outputs
/// correspond one to one, and it leaves loops as they are.
pub fn differentiate(
    graph: &Graph,
    stabilise: &mut dyn FnMut(&Graph) -> Graph,
) -> Result<Graph, Diagnostics> {
    let mut loops = Loops::new(stabilise);
    let result = without_gradients(graph, &mut loops)?;
    result.check()?;
    Ok(loops.settle(result))
}

fn without_gradients(graph: &Graph, loops: &mut Loops<'_>) -> Result<Graph, Diagnostic> {
    loops.note(graph);
    let mut taken: HashMap<Operands, Vec<(Grad, Vec<NodeId>)>> = HashMap::new();
    let mut failure = None;
    let result = graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let grad = match &node.op {
            Op::Grad(grad) => grad,
            Op::Scan(scan) => {
                let body = body_without_gradients(&scan.body, loops).unwrap_or_else(|fault| {
                    failure.get_or_insert(fault);
                    scan.body.clone()
                });
                return loops::add_with_body(out, from, id, operands, scan, body);
            }
            _ => return out.add_like(from, id, operands),
        };
        let request = Grad { index: 0, ..(**grad).clone() };
        let known = taken.get(operands).and_then(|all| all.iter().find(|(g, _)| *g == request));
        let gradients = match known {
            Some((_, gradients)) => gradients.clone(),
            None => match take_gradients(out, &request, operands, node.site, loops) {
                Ok(gradients) => {
                    taken.entry(operands.into()).or_default().push((request, gradients.clone()));
                    gradients
                }
                Err(fault) => {
                    failure.get_or_insert(fault);
                    operands[usize::from(grad.has_cost)..].into()
                }
            },
        };
        let gradient = gradients[usize::from(grad.index)];
        if let Some(name) = from.name(id) {
            out.set_name(gradient, name.into());
        }
        gradient
    });
    match failure {
        Some(fault) => Err(fault),
        None => Ok(result),
    }
}

/// The body with every gradient in it taken; the same one where there is none.
fn body_without_gradients(body: &Arc<Body>, loops: &mut Loops<'_>) -> Result<Arc<Body>, Diagnostic> {
    if !holds_gradients(&body.graph) {
        return Ok(body.clone());
    }
    let latest = loops.latest(body);
    if latest != *body {
        return Ok(latest);
    }
    let graph = without_gradients(&body.graph, loops)?;
    let free = Arc::new(body.with_graph(loops.settle(graph)));
    loops.succeed(body, &free);
    Ok(free)
}

fn holds_gradients(graph: &Graph) -> bool {
    graph.nodes().any(|(_, node)| match &node.op {
        Op::Grad(_) => true,
        Op::Scan(scan) => holds_gradients(&scan.body.graph),
        _ => false,
    })
}

/// Whether a change of an operand can reach the value at all. Steps (`floor`) connect with a gradient of zero;
/// integers and truth values do not.
#[warn(clippy::wildcard_enum_match_arm)]
pub fn connects(op: &Op, operand: usize) -> bool {
    match op {
        Op::Map(f) => {
            f.result_dtype(&[DType::F32, DType::F32, DType::F32][..f.arity()]).is_some_and(DType::is_float)
                || (*f == ScalarFn::Select && operand > 0)
        }
        Op::Cast(dtype) => dtype.is_float(),
        Op::Reduce(fold, _) => !matches!(fold, Fold::All | Fold::Any),
        Op::Dot | Op::Concat(_) => true,
        Op::Broadcast { .. } | Op::Reshape(_) | Op::Permute(_) | Op::Slice(_) | Op::Window(_) => operand == 0,
        Op::SetSlice(..) | Op::SetWindow(..) => operand < 2,
        Op::Gather { .. } => operand == 0,
        Op::Scatter { .. } => operand != 1,
        Op::Grad(grad) => {
            operand < usize::from(grad.has_cost) + usize::from(grad.variables) + 2 * usize::from(grad.known)
        }
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Extent(_)
        | Op::ArgMax(_)
        | Op::Random { .. }
        | Op::StopGradient => false,
        Op::Scan(scan) => flow::loop_connects(scan, operand),
    }
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

/// Checks every gradient of a graph that is still symbolic: what [`differentiate`] would refuse for want of a path.
pub fn check(graph: &Graph) -> Result<(), Diagnostics> {
    let mut faults = Vec::new();
    check_gradients(graph, &mut HashSet::new(), &mut faults);
    if faults.is_empty() { Ok(()) } else { Err(Diagnostics(faults)) }
}

fn check_gradients(graph: &Graph, bodies: &mut HashSet<Arc<Body>>, faults: &mut Vec<Diagnostic>) {
    let live = graph.reachable();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        match &node.op {
            Op::Grad(grad) if grad.index == 0 => {
                faults
                    .extend(check_connected(graph, grad, &Roles::new(grad, &node.operands), node.site).err());
            }
            Op::Scan(scan) if bodies.insert(scan.body.clone()) => {
                check_gradients(&scan.body.graph, bodies, faults);
            }
            _ => {}
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
    loops: &mut Loops<'_>,
) -> Result<Vec<NodeId>, Diagnostic> {
    let roles = Roles::new(grad, operands);
    check_connected(out, grad, &roles, site)?;
    let stable = stable_forward(out, &roles, loops);
    let at = |id: &NodeId| stable.get(id).copied().unwrap_or(*id);
    let mapped: Vec<NodeId> = operands.iter().map(at).collect();
    let roles = Roles::new(grad, &mapped);
    let cotangents = walk(out, &roles, site, loops);
    Ok(roles
        .variables
        .iter()
        .map(|v| match cotangents.get(v) {
            Some(cotangent) => *cotangent,
            None => zeros_like(out, *v, site),
        })
        .collect())
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
        let passes = |(i, operand): (usize, &NodeId)| reached.contains(operand) && connects(&node.op, i);
        if targets.contains(&id) || node.operands.iter().enumerate().any(passes) {
            reached.insert(id);
        }
    }
    reached
}

/// Stabilises what the origins compute and adds it to `out`; returns where each node of a role now stands. Nodes of a
/// role are cut out of the formulas that use them, so they are found again afterwards.
fn stable_forward(out: &mut Graph, roles: &Roles<'_>, loops: &mut Loops<'_>) -> BTreeMap<NodeId, NodeId> {
    let mut cuts: Vec<NodeId> =
        roles.variables.iter().chain(roles.constants).copied().chain(roles.origins()).collect();
    cuts.sort_unstable();
    cuts.dedup();
    cuts.retain(|id| !matches!(out.node(*id).op, Op::Leaf(_)));
    let mut forward = out.emptied();
    let mut placeholders: BTreeMap<NodeId, LeafId> = BTreeMap::new();
    let mut copies: HashMap<NodeId, NodeId> = HashMap::new();
    let mut cone: HashSet<NodeId> = HashSet::new();
    let mut pending = cuts.clone();
    while let Some(id) = pending.pop() {
        if cone.insert(id) {
            pending.extend(out.node(id).operands.iter().copied());
        }
    }
    let mut order: Vec<NodeId> = cone.into_iter().collect();
    order.sort_unstable();
    for id in order {
        let operands: Operands = out.node(id).operands.iter().map(|o| copies[o]).collect();
        let copy = loops.add_stable(&mut forward, out, id, &operands);
        if cuts.contains(&id) {
            forward.outputs.push(copy);
            let ty = out.ty(id).clone();
            let leaf = Arc::new(Leaf {
                id: fresh_leaf_id(),
                name: None,
                ty,
                site: out.node(id).site,
                kind: LeafKind::Input,
            });
            placeholders.insert(id, leaf.id);
            copies.insert(id, forward.add_leaf(&leaf));
        } else {
            copies.insert(id, copy);
        }
    }
    let stable = (loops.stabilise)(&forward);
    let of_leaf: HashMap<LeafId, NodeId> = placeholders.iter().map(|(id, leaf)| (*leaf, *id)).collect();
    let mut placed: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    let mut imported: Vec<Option<NodeId>> = vec![None; stable.len()];
    // Each formula may use the cut nodes before it, so they are brought over one by one.
    for (cut, root) in cuts.iter().zip(&stable.outputs) {
        let id = import(out, &stable, *root, &mut imported, &|leaf| {
            of_leaf.get(&leaf).and_then(|id| placed.get(id)).copied()
        });
        placed.insert(*cut, id);
    }
    placed
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
    loops: &mut Loops<'_>,
) -> HashMap<NodeId, NodeId> {
    let reached = dependents(out, roles, roles.variables);
    let mut order: Vec<NodeId> = reached.iter().copied().collect();
    order.sort_unstable();
    let groups = results_of_loops(out, &order);
    let mut rules = Rules { graph: out, site };
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
            // At its first result all that uses a loop has been met.
            if let Some(results) = groups.get(&id) {
                for (operand, part) in loops.pull_back(&mut rules, results, &cotangents, &reached) {
                    rules.accumulate(&mut cotangents, operand, part);
                }
            }
            continue;
        }
        let Some(&cotangent) = cotangents.get(&id) else { continue };
        for (index, operand) in node.operands.iter().enumerate() {
            if reached.contains(operand)
                && connects(&node.op, index)
                && let Some(part) = pullback(&mut rules, id, cotangent, index)
            {
                rules.accumulate(&mut cotangents, *operand, part);
            }
        }
    }
    cotangents
}

/// The results of each loop among these nodes, by the first of them.
fn results_of_loops(graph: &Graph, order: &[NodeId]) -> HashMap<NodeId, Vec<NodeId>> {
    let mut loops: HashMap<(Scan, &Operands), Vec<NodeId>> = HashMap::new();
    for id in order {
        let node = graph.node(*id);
        if let Op::Scan(scan) = &node.op {
            let whole = Scan { result: ScanResult::Steps, ..(**scan).clone() };
            loops.entry((whole, &node.operands)).or_default().push(*id);
        }
    }
    loops.into_values().map(|results| (results[0], results)).collect()
}

fn zeros_like(graph: &mut Graph, id: NodeId, site: Option<Site>) -> NodeId {
    Rules { graph, site }.like(id, 0.0)
}

#[cfg(test)]
mod tests;
