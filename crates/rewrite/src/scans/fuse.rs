//! Two scans that compute the same carries are one: a cost and its gradient run the same recurrence, each with results
//! of its own.

use std::collections::BTreeMap;

use hypatia_graph::op::ScanResult;
use hypatia_graph::{Graph, LeafId, NodeId, Op};

use super::Group;
use super::dead_code::merge_carries;
use super::form::{ScanForm, import};

/// Joins the first two scans that have a carry in common: the pairs of old and new nodes.
pub(super) fn fuse(outer: &mut Graph, groups: &[Group]) -> Option<Vec<(NodeId, NodeId)>> {
    let scans: Vec<Option<ScanForm>> =
        groups.iter().map(|group| ScanForm::of(outer, group.members[0].0)).collect();
    for (second, later) in scans.iter().enumerate() {
        let Some(later) = later.as_ref().filter(|inner| is_plain(inner)) else { continue };
        for (first, earlier) in scans.iter().enumerate().take(second) {
            let Some(earlier) = earlier.as_ref().filter(|inner| is_plain(inner)) else { continue };
            let alike = earlier.steps == later.steps
                && earlier.backward == later.backward
                && earlier.initial.iter().any(|initial| later.initial.contains(initial));
            if alike
                && !depends(outer, &groups[first], &groups[second])
                && !depends(outer, &groups[second], &groups[first])
                && let Some(pairs) = joined(outer, earlier, later, &groups[first], &groups[second])
            {
                return Some(pairs);
            }
        }
    }
    None
}

fn is_plain(inner: &ScanForm) -> bool {
    inner.steps > 0 && !inner.until
}

/// Whether a scan depends on a result of another.
fn depends(outer: &Graph, group: &Group, on: &Group) -> bool {
    let first = on.members.iter().map(|(id, _)| *id).min();
    let mut seen = vec![false; outer.len()];
    let mut pending: Vec<NodeId> = outer.node(group.members[0].0).operands.to_vec();
    while let Some(id) = pending.pop() {
        // What stands before a result cannot depend on it.
        if Some(id) < first || std::mem::replace(&mut seen[id.index()], true) {
            continue;
        }
        if on.members.iter().any(|(member, _)| *member == id) {
            return true;
        }
        pending.extend(outer.node(id).operands.iter().copied());
    }
    false
}

/// Both scans as one, if a carry of the one is a carry of the other.
fn joined(
    outer: &mut Graph,
    first: &ScanForm,
    second: &ScanForm,
    first_group: &Group,
    second_group: &Group,
) -> Option<Vec<(NodeId, NodeId)>> {
    let mut both = first.clone();
    let mut values: BTreeMap<LeafId, NodeId> = BTreeMap::new();
    for (leaf, input) in second.graph.inputs.iter().zip(&second.inputs) {
        values.insert(*leaf, both.add_input(outer, input.value, input.sequence)?);
    }
    let shift = both.initial.len();
    for ((leaf, _), initial) in second.graph.updates.iter().zip(&second.initial) {
        let ty = second.graph.leaf(*leaf)?.ty.clone();
        values.insert(*leaf, both.add_carry(*initial, ty).0);
    }
    let mut placed = BTreeMap::new();
    let mut bring = |graph: &mut Graph, id: NodeId| import(graph, &second.graph, id, &values, &mut placed);
    for (at, (_, next)) in second.graph.updates.iter().enumerate() {
        both.graph.updates[shift + at].1 = bring(&mut both.graph, *next)?;
    }
    let mut members = first_group.members.clone();
    for &(old, result) in &second_group.members {
        let result = match result {
            ScanResult::Rows(at) => {
                let row = *second.rows().get(usize::from(at))?;
                let row = bring(&mut both.graph, row)?;
                both.add_row(row)
            }
            ScanResult::Last(at) => ScanResult::Last(at + shift as u16),
            ScanResult::Steps => ScanResult::Steps,
        };
        members.push((old, result));
    }
    let before = distinct_carries(&both);
    merge_carries(&mut both, &mut members);
    if distinct_carries(&both) == before {
        return None;
    }
    for leaf in &second.updated {
        if !both.updated.iter().any(|own| own.id == leaf.id) {
            both.updated.push(leaf.clone());
        }
    }
    let wanted: Vec<ScanResult> = members.iter().map(|(_, result)| *result).collect();
    let near = first_group.members[0].0;
    Some(both.write(outer, &wanted, near).replacing(&members))
}

/// The number of carries that the body reads.
fn distinct_carries(inner: &ScanForm) -> usize {
    let live = inner.graph.reachable();
    let read =
        |leaf: LeafId| inner.graph.nodes().any(|(id, node)| live[id.index()] && node.op == Op::Leaf(leaf));
    inner.graph.updates.iter().filter(|(leaf, _)| read(*leaf)).count()
}
