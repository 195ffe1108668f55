//! Only what is used of the steps is kept: where nothing but the last row of a result is read, the loop carries that
//! value instead of storing every row.

use std::collections::BTreeMap;

use hypatia_graph::op::{ScanResult, Start, WindowAxis, known_dims};
use hypatia_graph::{Graph, NodeId, Op};
use smallvec::SmallVec;

use super::Group;
use super::form::Loop;
use crate::Options;

/// The nodes that use each of some nodes; a root counts as a use by nothing.
pub(super) fn users(graph: &Graph, of: &[NodeId]) -> BTreeMap<NodeId, Vec<Option<NodeId>>> {
    let mut users: BTreeMap<NodeId, Vec<Option<NodeId>>> = of.iter().map(|id| (*id, Vec::new())).collect();
    let live = graph.reachable();
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        for operand in &node.operands {
            if let Some(users) = users.get_mut(operand) {
                users.push(Some(id));
            }
        }
    }
    for root in graph.roots() {
        if let Some(users) = users.get_mut(&root) {
            users.push(None);
        }
    }
    users
}

/// Whether a node is a window on the last row of its first operand.
fn is_last_row(graph: &Graph, user: NodeId, steps: usize) -> bool {
    let Op::Window(axes) = &graph.node(user).op else { return false };
    matches!(axes.first(), Some(WindowAxis { start: Start::Known(start), len: 1, .. }) if start + 1 == steps)
}

/// The loop with the last values of those results of which nothing else is used.
pub(super) fn keep_last(outer: &mut Graph, group: &Group, _: Options) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = Loop::of(outer, near).filter(|inner| inner.steps > 0)?;
    let ids: Vec<NodeId> = group.members.iter().map(|(id, _)| *id).collect();
    let users = users(outer, &ids);
    let mut members: Vec<(NodeId, ScanResult)> = Vec::new();
    let mut windows: Vec<(NodeId, ScanResult)> = Vec::new();
    for &(old, result) in &group.members {
        let used = &users[&old];
        let last = |user: &Option<NodeId>| user.is_some_and(|user| is_last_row(outer, user, inner.steps));
        let ScanResult::Rows(at) = result else {
            members.push((old, result));
            continue;
        };
        if used.is_empty() || !used.iter().all(last) {
            members.push((old, result));
            continue;
        }
        let value = *inner.rows().get(usize::from(at))?;
        let last = inner.add_last(outer, value)?;
        windows.extend(used.iter().flatten().map(|user| (*user, last)));
    }
    if windows.is_empty() {
        return None;
    }
    let wanted: Vec<ScanResult> = members.iter().chain(&windows).map(|(_, result)| *result).collect();
    let written = inner.write(outer, &wanted, near);
    let mut pairs = written.replacing(&members);
    for (window, last) in windows {
        let node = outer.node(window).clone();
        let mut value = written.get(last)?;
        let mut extents: SmallVec<[usize; 8]> = SmallVec::from_slice(&[1]);
        extents.extend(outer.ty(value).extents()?);
        value = outer.add(Op::Reshape(known_dims(&extents)), &[value], node.site);
        if let Op::Window(mut axes) = node.op {
            axes[0] = WindowAxis::whole(1);
            let operands: SmallVec<[NodeId; 4]> =
                std::iter::once(value).chain(node.operands.iter().skip(1).copied()).collect();
            value = outer.add(Op::Window(axes), &operands, node.site);
        }
        pairs.push((window, value));
    }
    Some(pairs)
}
