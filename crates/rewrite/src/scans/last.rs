//! Only what is used of the steps is kept: where nothing but the last row of a result is read, the scan carries that
//! value instead of storing every row, and what is computed for the last value alone is computed after the scan.

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::op::{ScanResult, Start, WindowAxis, known_dims};
use hypatia_graph::{Graph, LeafId, NodeId, Op};
use smallvec::SmallVec;

use super::Group;
use super::form::{ScanForm, import, work_of};
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

/// Replaces rows of which only the last one is read by a carry.
pub(super) fn keep_last(outer: &mut Graph, group: &Group, _: Options) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 0)?;
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

/// Computes what only last values need after the scan, once, from the last values of what the steps need anyway.
pub(super) fn last_after(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 0 && inner.may_give(options))?;
    let unread: Vec<bool> =
        inner.graph.updates.iter().map(|(leaf, _)| !is_read(&inner.graph, *leaf)).collect();
    let needed = needed_in_steps(&inner, &unread);
    // Values that need a carry of their own.
    let new = |bases: &BTreeSet<NodeId>| -> usize {
        let carried = |id: &NodeId| inner.graph.updates.iter().any(|(_, next)| next == id);
        let size = |id: &NodeId| inner.graph.ty(*id).element_count().unwrap_or(usize::MAX / 4);
        bases.iter().filter(|id| !carried(id)).map(size).sum()
    };
    let mut members: Vec<(NodeId, ScanResult)> = Vec::new();
    let mut moved: Vec<(NodeId, NodeId)> = Vec::new();
    let mut bases: BTreeSet<NodeId> = BTreeSet::new();
    for &(old, result) in &group.members {
        let next = match result {
            ScanResult::Last(at) if unread[usize::from(at)] => Some(inner.graph.updates[usize::from(at)].1),
            ScanResult::Last(_) | ScanResult::Rows(_) | ScanResult::Steps => None,
        };
        let found = next.map(|next| (next, bases_of(&inner, &needed, next)));
        match found {
            // Storing an element is worth a few operations.
            Some((next, (found, work)))
                if !found.contains(&next) && work > 0 && work >= new(&found).saturating_mul(4) =>
            {
                bases.extend(found);
                moved.push((old, next));
            }
            _ => members.push((old, result)),
        }
    }
    if moved.is_empty() {
        return None;
    }
    let mut carried: Vec<(NodeId, ScanResult)> = Vec::new();
    for base in bases {
        carried.push((base, inner.add_last(outer, base)?));
    }
    let wanted: Vec<ScanResult> = members.iter().chain(&carried).map(|(_, result)| *result).collect();
    let written = inner.write(outer, &wanted, near);
    let mut pairs = written.replacing(&members);
    let mut placed: BTreeMap<NodeId, NodeId> = BTreeMap::new();
    for (base, result) in carried {
        placed.insert(base, written.get(result)?);
    }
    let mut values: BTreeMap<LeafId, NodeId> = BTreeMap::new();
    for (leaf, input) in inner.graph.inputs.iter().zip(&inner.inputs) {
        if !input.sequence {
            values.insert(*leaf, input.value);
        } else if !inner.until {
            values.insert(*leaf, element(outer, input.value, inner.steps - 1)?);
        }
    }
    for (old, next) in moved {
        pairs.push((old, import(outer, &inner.graph, next, &values, &mut placed)?));
    }
    Some(pairs)
}

/// An element of a sequence.
fn element(outer: &mut Graph, sequence: NodeId, at: usize) -> Option<NodeId> {
    let extents = outer.ty(sequence).extents()?;
    let site = outer.node(sequence).site;
    let mut axes: Vec<WindowAxis> = extents.iter().map(|&n| WindowAxis::whole(n)).collect();
    *axes.first_mut()? = WindowAxis { start: Start::Known(at), len: 1, step: 1 };
    let row = outer.add(Op::Window(axes.into()), &[sequence], site);
    Some(outer.add(Op::Reshape(known_dims(&extents[1..])), &[row], site))
}

fn is_read(graph: &Graph, leaf: LeafId) -> bool {
    let live = graph.reachable();
    graph.nodes().any(|(id, node)| live[id.index()] && node.op == Op::Leaf(leaf))
}

/// For every node of a body whether a row, the condition or a carry that steps read depends on it.
fn needed_in_steps(inner: &ScanForm, unread: &[bool]) -> Vec<bool> {
    let mut needed = vec![false; inner.graph.len()];
    let carried = inner.graph.updates.iter().zip(unread).filter(|(_, unread)| !**unread);
    for id in carried.map(|((_, next), _)| next).chain(&inner.graph.outputs) {
        needed[id.index()] = true;
    }
    for (id, node) in inner.graph.nodes().rev() {
        if needed[id.index()] {
            for operand in &node.operands {
                needed[operand.index()] = true;
            }
        }
    }
    needed
}

/// The values of the last step from which another one can be computed after the scan, and the work that takes.
fn bases_of(inner: &ScanForm, needed: &[bool], value: NodeId) -> (BTreeSet<NodeId>, usize) {
    let mut bases = BTreeSet::new();
    let mut work = 0usize;
    let mut seen = BTreeSet::new();
    let mut pending = vec![value];
    while let Some(id) = pending.pop() {
        let outside = inner.captured(id).is_some() || !inner.until && inner.sequence(id).is_some();
        if outside || !seen.insert(id) {
            continue;
        }
        let node = inner.graph.node(id);
        let carry =
            matches!(node.op, Op::Leaf(leaf) if inner.graph.updates.iter().any(|(own, _)| *own == leaf));
        let element = inner.sequence(id).is_some();
        if carry || element || needed[id.index()] && !node.operands.is_empty() {
            bases.insert(id);
        } else {
            work = work.saturating_add(work_of(&inner.graph, id));
            pending.extend(node.operands.iter().copied());
        }
    }
    (bases, work)
}
