//! Gradients that are lost: costs that depend on a variable through an operator whose derivative is 0 everywhere.
//!
//! `//`, roundings, comparisons and `argmax` move by jumps, so nothing is learnt through them. Where a whole term of a
//! cost hangs on one, that is rarely meant: [`lost_gradients`] warns. It is meant, and there is no warning, where the
//! operator only says which part of something else counts (a mask, a choice of `switch`, an index), where what is
//! rounded has its slope beside it (`x - floor(x)`), behind a `stop_gradient`, and where nothing that is learnt goes in
//! (dropout). Asked of the symbolic graph, once.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::Roles;
use crate::body::Body;
use crate::diagnostic::Diagnostic;
use crate::dtype::DType;
use crate::graph::{Graph, NodeId};
use crate::op::{Class, Op, Scan, ScanResult};
use crate::scalar::ScalarFn;

/// A warning for every operator of a graph at which a gradient is lost, in their order.
pub fn lost_gradients(graph: &Graph) -> Vec<Diagnostic> {
    let mut warnings = Vec::new();
    warn(graph, &mut HashSet::new(), &mut warnings);
    warnings
}

/// Adds the warnings of the gradients of a graph, and of those asked for in the bodies of its scans.
fn warn(graph: &Graph, bodies: &mut HashSet<Arc<Body>>, warnings: &mut Vec<Diagnostic>) {
    let reachable = graph.reachable();
    let mut requests = HashSet::new();
    for (_, node) in graph.nodes().filter(|(id, _)| reachable[id.index()]) {
        if let Op::Grad(grad) = &node.op
            && requests.insert(&node.operands)
        {
            let roles = Roles::new(grad, &node.operands);
            let origins: Vec<NodeId> = roles.origins().collect();
            Walk::new(graph, &origins, roles.variables, roles.constants).warn(warnings);
        }
        if let Op::Scan(scan) = &node.op
            && bodies.insert(scan.body.clone())
        {
            warn(&scan.body.graph, bodies, warnings);
        }
    }
}

/// The way of a gradient from its origins down to the variables.
struct Walk<'g> {
    graph: &'g Graph,
    origins: &'g [NodeId],
    /// Whether the value depends on a variable at all, by way of what is in the cone of the origins.
    depends: Vec<bool>,
    /// Whether it does through slopes.
    has_slope: Vec<bool>,
    /// Whether the gradient of an origin comes by.
    is_met: Vec<bool>,
    /// For each node that is met, those it is met from.
    users: Vec<Vec<NodeId>>,
}

/// Whether elements of the operand, or the place of one, are in the value.
fn goes_in(op: &Op, operand: usize) -> bool {
    *op != Op::StopGradient && (op.carries(operand) || op.is_flat())
}

/// Whether the gradient of the value goes on to the operand.
fn passes(op: &Op, operand: usize) -> bool {
    op.connects(operand) && !op.is_flat()
}

impl<'g> Walk<'g> {
    fn new(graph: &'g Graph, origins: &'g [NodeId], variables: &[NodeId], constants: &[NodeId]) -> Walk<'g> {
        let n = graph.len();
        let blocked: HashSet<NodeId> = constants.iter().copied().collect();
        let mut in_cone = vec![false; n];
        let mut pending: Vec<NodeId> = origins.to_vec();
        while let Some(id) = pending.pop() {
            if !blocked.contains(&id) && !std::mem::replace(&mut in_cone[id.index()], true) {
                let node = graph.node(id);
                let inside = node.operands.iter().enumerate().filter(|(i, _)| goes_in(&node.op, *i));
                pending.extend(inside.map(|(_, operand)| *operand));
            }
        }
        let (mut depends, mut has_slope) = (vec![false; n], vec![false; n]);
        for (id, node) in graph.nodes().filter(|(id, _)| in_cone[id.index()]) {
            let any = |known: &[bool], test: fn(&Op, usize) -> bool| {
                node.operands.iter().enumerate().any(|(i, o)| known[o.index()] && test(&node.op, i))
            };
            let is_variable = variables.contains(&id);
            depends[id.index()] = is_variable || any(&depends, goes_in);
            has_slope[id.index()] = is_variable || any(&has_slope, passes);
        }
        let (mut is_met, mut users) = (vec![false; n], vec![Vec::new(); n]);
        origins.iter().for_each(|origin| is_met[origin.index()] = true);
        for index in (0..n).rev().filter(|index| in_cone[*index]) {
            let id = NodeId(index as u32);
            let node = graph.node(id);
            if !is_met[index] {
                continue;
            }
            for (_, operand) in node.operands.iter().enumerate().filter(|(i, _)| passes(&node.op, *i)) {
                is_met[operand.index()] = true;
                users[operand.index()].push(id);
            }
        }
        Walk { graph, origins, depends, has_slope, is_met, users }
    }

    fn warn(&self, warnings: &mut Vec<Diagnostic>) {
        for (id, node) in self.graph.nodes().filter(|(id, _)| self.is_met[id.index()]) {
            if let Op::Scan(scan) = &node.op {
                self.warn_in_body(scan, &node.operands, warnings);
            }
            if node.op.is_flat() && self.depends[id.index()] && self.is_lost(id) {
                let warning = warning(self.graph, id);
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
            }
        }
    }

    /// Whether a term of an origin hangs on what a flat operator gives, rather than a part of something with a slope.
    fn is_lost(&self, flat: NodeId) -> bool {
        let node = self.graph.node(flat);
        let is_mask = is_mask(&node.op);
        // What goes into the flat operator, found where it is asked for.
        let mut below: Option<HashSet<NodeId>> = None;
        let mut seen = BTreeSet::from([flat]);
        let mut pending = vec![flat];
        while let Some(id) = pending.pop() {
            if self.origins.contains(&id) {
                return true;
            }
            for &user in &self.users[id.index()] {
                let op = &self.graph.node(user).op;
                let others =
                    self.graph.node(user).operands.iter().enumerate().filter(|(_, other)| **other != id);
                let beside: Vec<NodeId> = others
                    .filter(|(i, other)| passes(op, *i) && self.has_slope[other.index()])
                    .map(|(_, other)| *other)
                    .collect();
                if beside.is_empty() {
                    if seen.insert(user) {
                        pending.push(user);
                    }
                } else if adds(op) || !is_mask {
                    let below = below.get_or_insert_with(|| self.below(&node.operands));
                    if !beside.iter().any(|other| below.contains(other)) {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// The nodes, and those that go into them and depend on a variable.
    fn below(&self, ids: &[NodeId]) -> HashSet<NodeId> {
        let (mut found, mut pending) = (HashSet::new(), ids.to_vec());
        while let Some(id) = pending.pop() {
            if found.insert(id) {
                let node = self.graph.node(id);
                let inside = node.operands.iter().enumerate().filter(|(i, _)| goes_in(&node.op, *i));
                pending.extend(inside.map(|(_, operand)| *operand).filter(|o| self.depends[o.index()]));
            }
        }
        found
    }

    /// The same of the step of a scan, one of whose results is met.
    fn warn_in_body(&self, scan: &Scan, operands: &[NodeId], warnings: &mut Vec<Diagnostic>) {
        let (body, flow) = (&scan.body, scan.body.flow());
        let (origin, reach) = match scan.result {
            ScanResult::Rows(output) => {
                (body.rows().get(usize::from(output)).copied(), flow.reach_rows.get(usize::from(output)))
            }
            ScanResult::Last(carry) => {
                let next = body.graph.updates.get(usize::from(carry)).map(|(_, next)| *next);
                (next, flow.reach_next.get(usize::from(carry)))
            }
            ScanResult::Steps => (None, None),
        };
        let (Some(origin), Some(reach)) = (origin, reach) else { return };
        let next = body.graph.updates.iter().enumerate();
        let next =
            next.filter(|(carry, _)| reach.contains(body.inputs() + carry)).map(|(_, (_, next))| *next);
        let origins: Vec<NodeId> = std::iter::once(origin).chain(next).collect();
        let learnt = body.parameters().zip(operands).enumerate();
        let learnt = learnt.filter(|(position, (_, operand))| {
            self.has_slope[operand.index()] || *position >= body.inputs() && reach.contains(*position)
        });
        let learnt: HashSet<_> = learnt.map(|(_, (leaf, _))| leaf).collect();
        let variables: Vec<NodeId> = body
            .graph
            .nodes()
            .filter(|(_, node)| matches!(&node.op, Op::Leaf(leaf) if learnt.contains(leaf)))
            .map(|(id, _)| id)
            .collect();
        Walk::new(&body.graph, &origins, &variables, &[]).warn(warnings);
    }
}

/// Whether the value is one of a few, which say yes, no, or which: a factor of that kind is a mask.
fn is_mask(op: &Op) -> bool {
    match op {
        Op::Map(f) => *f == ScalarFn::Sign || !f.properties().is_flat,
        Op::Cast(dtype) => *dtype == DType::Bool,
        other => matches!(other, Op::ArgMax(_)),
    }
}

/// Whether each operand is a term of the value, or a part that lies beside the others.
fn adds(op: &Op) -> bool {
    matches!(op.class(), Class::Map(ScalarFn::Add | ScalarFn::Sub) | Class::Assembly)
}

fn warning(graph: &Graph, id: NodeId) -> Diagnostic {
    let node = graph.node(id);
    let name = node.op.name();
    let mut warning = Diagnostic::warning(format!(
        "a gradient is lost at `{name}`: its value moves by jumps, so the derivative is 0 everywhere"
    ))
    .at(node.site);
    for operand in &node.operands {
        let label = graph.name(*operand).map_or_else(|| "operand".to_owned(), |name| format!("`{name}`"));
        warning = warning.with(label, graph.ty(*operand).to_string(), graph.node(*operand).site);
    }
    let smooth =
        if node.op == Op::Map(ScalarFn::FloorDiv) { "divide with `/`" } else { "use a smooth function" };
    warning.hint(format!("{smooth}, or say with `.stop_gradient()` that nothing is to be learnt through it"))
}
