//! Work that is the same in every step is done once, before the scan, and captured.

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::{Graph, LeafId, NodeId, Op};

use super::Group;
use super::form::{Dependence, ScanForm, import};
use crate::Options;

/// Moves what depends on captured values only before the scan. Views of them stay: a transposed or broadcast matrix is
/// read in place.
pub(super) fn move_invariants(outer: &mut Graph, group: &Group, _: Options) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 1)?;
    let found = computed_before(&inner);
    if found.is_empty() {
        return None;
    }
    let captured = inner.graph.inputs.iter().zip(&inner.inputs).filter(|(_, input)| !input.sequence);
    let values: BTreeMap<LeafId, NodeId> = captured.map(|(leaf, input)| (*leaf, input.value)).collect();
    let body = inner.graph.clone();
    let mut placed = BTreeMap::new();
    let mut replaced = BTreeMap::new();
    for node in found {
        let value = import(outer, &body, node, &values, &mut placed)?;
        replaced.insert(node, inner.add_input(outer, value, false)?);
    }
    inner.substitute(&replaced);
    Some(inner.write(outer, &group.wanted(), near).replacing(&group.members))
}

/// The invariant values that a result, or something that varies, reads, be it through views.
fn computed_before(inner: &ScanForm) -> BTreeSet<NodeId> {
    let dependence = inner.dependence();
    let varies = |id: NodeId| dependence[id.index()] >= Dependence::Sequence;
    let live = inner.graph.reachable();
    let mut pending: Vec<NodeId> = inner.graph.roots().filter(|id| !varies(*id)).collect();
    for (id, node) in inner.graph.nodes().filter(|(id, _)| live[id.index()]) {
        if varies(id) {
            pending.extend(node.operands.iter().copied().filter(|operand| !varies(*operand)));
        }
    }
    let mut found = BTreeSet::new();
    for mut id in pending {
        while inner.graph.node(id).op.view().is_some() && !inner.graph.node(id).op.starts_vary() {
            id = inner.graph.node(id).operands[0];
        }
        let plain = matches!(inner.graph.node(id).op, Op::Leaf(_) | Op::Literal(_) | Op::Iota(_));
        if !plain && inner.graph.uniform(id).is_none() {
            found.insert(id);
        }
    }
    found
}
