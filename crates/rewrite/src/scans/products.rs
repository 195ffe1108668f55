//! Matrix products leave the scan where all steps can be computed at once: those on sequences before it, those that no
//! later step needs after it. One large product is faster than many small ones, and its gradient is one as well.

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::op::{ScanResult, known_dims};
use hypatia_graph::{Graph, NodeId, Op};

use super::Group;
use super::form::{Dependence, ScanForm, is_made_by_scan, root_of, work_of};
use super::lift::{Lift, Lifted, is_liftable};
use crate::Options;

/// The most elements of stacks that are stored so that products can leave a scan.
pub(super) const MOST_STACKED: usize = 1 << 24;

/// The scan with its products of elements of sequences with captured matrices before it.
pub(super) fn products_before(outer: &mut Graph, group: &Group, _: Options) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner =
        ScanForm::of(outer, near).filter(|inner| inner.steps > 1 && !inner.until && inner.may_stack())?;
    let dependence = inner.dependence();
    let live = inner.graph.reachable();
    let on_sequences = |id: NodeId| {
        let node = inner.graph.node(id);
        node.op == Op::Dot && dependence[id.index()] == Dependence::Sequence && live[id.index()]
    };
    let found: Vec<NodeId> = inner.graph.nodes().map(|(id, _)| id).filter(|id| on_sequences(*id)).collect();
    let mut before = Vec::new();
    {
        let mut lift = Lift::new(&inner, &dependence);
        for id in found {
            let size = inner.graph.ty(id).element_count()?.saturating_mul(inner.steps);
            let liftable = is_liftable(&inner.graph, id, &|o| dependence[o.index()] >= Dependence::Sequence);
            if size <= MOST_STACKED
                && liftable
                && let Some(Lifted::Stack(stack)) = lift.lift(outer, id)
            {
                before.push((id, stack));
            }
        }
    }
    if before.is_empty() {
        return None;
    }
    let mut replaced = BTreeMap::new();
    for (id, stack) in before {
        replaced.insert(id, inner.add_input(outer, stack, true)?);
    }
    inner.substitute(&replaced);
    Some(inner.write(outer, &group.wanted(), near).replacing(&group.members))
}

/// Computes products that only rows need after the scan, as one product of stacks, and with them whatever is made of
/// values that are stacked anyway.
pub(super) fn products_after(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near)
        .filter(|inner| inner.steps > 1 && inner.may_give(options) && inner.may_stack())?;
    let dependence = inner.dependence();
    let carried = needed_by_steps(&inner);
    // Rows that cannot be computed from anything else.
    let row_of = |result: &ScanResult| match result {
        ScanResult::Rows(at) => inner.rows().get(usize::from(*at)).copied(),
        ScanResult::Last(_) | ScanResult::Steps => None,
    };
    let rows = group.members.iter().filter_map(|(_, result)| row_of(result));
    let mut stacked: BTreeSet<NodeId> =
        rows.filter(|row| tail_of(&inner, &dependence, &carried, *row).is_none()).collect();
    let mut members: Vec<(NodeId, ScanResult)> = Vec::new();
    let mut lifted: Vec<(NodeId, NodeId)> = Vec::new();
    let mut bases: BTreeSet<NodeId> = BTreeSet::new();
    for &(old, result) in &group.members {
        let tail = row_of(&result).and_then(|row| Some((row, tail_of(&inner, &dependence, &carried, row)?)));
        let Some((row, tail)) = tail else {
            members.push((old, result));
            continue;
        };
        let size = |id: &NodeId| inner.graph.ty(*id).element_count().unwrap_or(usize::MAX / 4);
        let new: usize = tail.bases.iter().filter(|id| !stacked.contains(id)).map(size).sum();
        // What is made of stacks alone is not stored as well. A checkpointed scan is to keep little, and rematerialises the
        // scans in its body.
        let again = tail.bases.iter().any(|id| !stacked.contains(id) && is_made_by_scan(&inner.graph, *id));
        let kept = inner.backward.checkpointed && new > size(&row);
        let worthwhile = new == 0 || tail.products >= new.saturating_mul(4).max(1) && !again && !kept;
        if !worthwhile || new.saturating_mul(inner.steps) > MOST_STACKED {
            members.push((old, result));
            continue;
        }
        stacked.extend(tail.bases.iter().copied());
        bases.extend(tail.bases);
        lifted.push((old, row));
    }
    if lifted.is_empty() {
        return None;
    }
    let bases: Vec<(NodeId, ScanResult)> =
        bases.into_iter().map(|base| (base, inner.add_row(base))).collect();
    let wanted: Vec<ScanResult> = members.iter().chain(&bases).map(|(_, result)| *result).collect();
    let written = inner.write(outer, &wanted, near);
    let mut pairs = written.replacing(&members);
    let mut lift = Lift::new(&inner, &dependence);
    for (base, result) in bases {
        lift.assume(base, written.get(result)?);
    }
    for (old, row) in lifted {
        let Lifted::Stack(value) = lift.lift(outer, row)? else { return None };
        let extents = outer.ty(old).extents()?;
        let site = outer.node(old).site;
        pairs.push((old, outer.add(Op::Reshape(known_dims(&extents)), &[value], site)));
    }
    Some(pairs)
}

/// For every node of a body whether a carry or the condition depends on it.
fn needed_by_steps(inner: &ScanForm) -> Vec<bool> {
    let mut needed = vec![false; inner.graph.len()];
    for (_, next) in &inner.graph.updates {
        needed[next.index()] = true;
    }
    if let Some(condition) = inner.graph.outputs.last().filter(|_| inner.until) {
        needed[condition.index()] = true;
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

/// The part of a row that can be computed after the scan.
struct Tail {
    /// From what.
    bases: BTreeSet<NodeId>,
    /// The operations of the products on the way.
    products: usize,
}

/// The part of a row that can be computed after the scan, unless that is nothing.
fn tail_of(inner: &ScanForm, dependence: &[Dependence], carried: &[bool], row: NodeId) -> Option<Tail> {
    let graph = &inner.graph;
    let varies = |id: NodeId| dependence[id.index()] >= Dependence::Sequence;
    let mut bases = BTreeSet::new();
    let mut products = 0usize;
    let mut seen = BTreeSet::new();
    let mut pending = vec![row];
    while let Some(id) = pending.pop() {
        if !varies(id) || !seen.insert(id) {
            continue;
        }
        let sequence = !inner.until && inner.sequence(id).is_some();
        if sequence {
            continue;
        }
        // Views move outside.
        let root = root_of(graph, id);
        if root != id {
            pending.push(root);
            continue;
        }
        if carried[id.index()] || !is_liftable(graph, id, &varies) {
            bases.insert(id);
            continue;
        }
        if graph.node(id).op == Op::Dot {
            products = products.saturating_add(work_of(graph, id));
        }
        pending.extend(graph.node(id).operands.iter().copied());
    }
    (!bases.contains(&row)).then_some(Tail { bases, products })
}
