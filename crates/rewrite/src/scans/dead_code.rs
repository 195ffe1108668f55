//! What a scan does not need: results, carries and inputs that nothing uses, inputs that are one number or repeat a
//! smaller value, carries that never change or that equal another one, and the scan itself where it makes one step or
//! none.

use std::collections::BTreeMap;

use hypatia_graph::op::{ScanResult, known_dims};
use hypatia_graph::{DType, Graph, LeafId, Literal, NodeId, Op};
use smallvec::SmallVec;

use super::Group;
use super::form::{ScanForm, import};
use crate::Options;

/// The scan without what it does not need.
pub(super) fn remove_dead_code(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near)?;
    let free = inner.may_give(options);
    if inner.steps == 0 {
        return Some(
            group
                .members
                .iter()
                .filter_map(|&member| Some((member.0, unmade(outer, &inner, member)?)))
                .collect(),
        );
    }
    if inner.steps == 1 && free {
        return inlined(outer, &inner, group);
    }
    let mut changed = false;
    loop {
        let mut replaced = smaller_inputs(outer, &mut inner);
        if free {
            unchanged_carries(outer, &mut inner, &mut replaced);
        }
        if replaced.is_empty() {
            break;
        }
        inner.substitute(&replaced);
        changed = true;
    }
    let mut members = group.members.clone();
    changed |= merge_carries(&mut inner, &mut members);
    let mut pairs = Vec::new();
    members.retain(|&(old, result)| {
        let value = if free { outside(outer, &inner, result, old) } else { None };
        pairs.extend(value.map(|value| (old, value)));
        value.is_none()
    });
    let wanted: Vec<ScanResult> = members.iter().map(|(_, result)| *result).collect();
    if !members.is_empty() {
        if !changed && pairs.is_empty() && inner.is_needed_whole(&wanted) {
            return None;
        }
        pairs.extend(inner.write(outer, &wanted, near).replacing(&members));
    }
    Some(pairs)
}

/// A result of a scan that makes no step.
fn unmade(outer: &mut Graph, inner: &ScanForm, (old, result): (NodeId, ScanResult)) -> Option<NodeId> {
    match result {
        ScanResult::Last(at) => inner.initial.get(usize::from(at)).copied(),
        ScanResult::Rows(_) | ScanResult::Steps => {
            let ty = outer.ty(old).clone();
            Some(outer.add_uniform(Literal::from_f64(0.0, ty.dtype), &ty.extents()?, outer.node(old).site))
        }
    }
}

/// The results of the only step, computed without a scan.
fn inlined(outer: &mut Graph, inner: &ScanForm, group: &Group) -> Option<Vec<(NodeId, NodeId)>> {
    let mut values: BTreeMap<LeafId, NodeId> = BTreeMap::new();
    for (leaf, input) in inner.graph.inputs.iter().zip(&inner.inputs) {
        let value = if input.sequence {
            let element = outer.ty(input.value).extents()?;
            outer.add(
                Op::Reshape(known_dims(element.get(1..)?)),
                &[input.value],
                outer.node(input.value).site,
            )
        } else {
            input.value
        };
        values.insert(*leaf, value);
    }
    let carries = inner.graph.updates.iter().map(|(leaf, _)| *leaf);
    values.extend(carries.zip(inner.initial.iter().copied()));
    let mut placed = BTreeMap::new();
    let mut pairs = Vec::new();
    for &(old, result) in &group.members {
        let value = match result {
            ScanResult::Rows(at) => {
                let row = *inner.rows().get(usize::from(at))?;
                let value = import(outer, &inner.graph, row, &values, &mut placed)?;
                outer.add(Op::Reshape(known_dims(&outer.ty(old).extents()?)), &[value], outer.node(old).site)
            }
            ScanResult::Last(at) => {
                let (_, next) = *inner.graph.updates.get(usize::from(at))?;
                import(outer, &inner.graph, next, &values, &mut placed)?
            }
            ScanResult::Steps => outer.add(Op::Literal(Literal::I64(1)), &[], outer.node(old).site),
        };
        pairs.push((old, value));
    }
    Some(pairs)
}

/// Replaces inputs by smaller ones: a constant by its number, a broadcast by its operand, a transposed matrix by the matrix.
fn smaller_inputs(outer: &mut Graph, inner: &mut ScanForm) -> BTreeMap<NodeId, NodeId> {
    let mut replaced = BTreeMap::new();
    for at in 0..inner.inputs.len() {
        let input = inner.inputs[at];
        let Some(node) = inner.reading(inner.graph.inputs[at]) else { continue };
        let first = inner.inputs.iter().position(|other| *other == input);
        let new = if let Some(first) = first.filter(|first| *first < at) {
            inner.leaf(inner.graph.inputs[first])
        } else if let Some(literal) = outer.uniform(input.value) {
            inner.graph.ty(node).extents().map(|shape| inner.graph.add_uniform(literal, &shape, None))
        } else {
            repeated(outer, inner, at, node).or_else(|| turned(outer, inner, at))
        };
        replaced.extend(new.filter(|new| *new != node).map(|new| (node, new)));
    }
    replaced
}

/// A captured matrix that is another one transposed, as that one transposed in the body: products read it in place.
fn turned(outer: &Graph, inner: &mut ScanForm, at: usize) -> Option<NodeId> {
    let input = inner.inputs[at];
    let node = outer.node(input.value);
    if input.sequence || !matches!(node.op, Op::Permute(_)) {
        return None;
    }
    let value = inner.add_input(outer, node.operands[0], false)?;
    Some(inner.graph.add(node.op.clone(), &[value], node.site))
}

/// An input that repeats a smaller value, as that value repeated in the body.
fn repeated(outer: &mut Graph, inner: &mut ScanForm, at: usize, node: NodeId) -> Option<NodeId> {
    let input = inner.inputs[at];
    let Op::Broadcast { axes, .. } = outer.node(input.value).op.clone() else { return None };
    let value = outer.node(input.value).operands[0];
    let extents = outer.ty(value).extents()?;
    if extents.iter().product::<usize>() >= outer.ty(input.value).element_count()? {
        return None;
    }
    let element = inner.graph.ty(node).extents()?;
    let dims = known_dims(&element);
    let (leaf, axes): (NodeId, SmallVec<[u8; 8]>) = if !input.sequence {
        (inner.add_input(outer, value, false)?, axes)
    } else if axes.first() != Some(&0) {
        (inner.add_input(outer, value, false)?, axes.iter().map(|axis| axis - 1).collect())
    } else if extents[0] == inner.steps {
        (inner.add_input(outer, value, true)?, axes[1..].iter().map(|axis| axis - 1).collect())
    } else {
        let value = outer.add(Op::Reshape(known_dims(&extents[1..])), &[value], outer.node(value).site);
        (inner.add_input(outer, value, false)?, axes[1..].iter().map(|axis| axis - 1).collect())
    };
    if inner.graph.ty(leaf) == inner.graph.ty(node) {
        return Some(leaf);
    }
    Some(inner.graph.add(Op::Broadcast { axes, dims }, &[leaf], None))
}

/// Carries that keep their initial values are captured values.
fn unchanged_carries(outer: &Graph, inner: &mut ScanForm, replaced: &mut BTreeMap<NodeId, NodeId>) {
    for at in 0..inner.initial.len() {
        let (leaf, next) = inner.graph.updates[at];
        let initial = inner.initial[at];
        let Some(node) = inner.reading(leaf) else { continue };
        let same_number = match (outer.uniform(initial), inner.graph.uniform(next)) {
            (Some(first), Some(next)) => first == next,
            _ => false,
        };
        let new = if next == node {
            inner.add_input(outer, initial, false)
        } else if same_number || inner.captured(next) == Some(initial) {
            Some(next)
        } else {
            None
        };
        replaced.extend(new.map(|new| (node, new)));
    }
}

/// Carries that begin equal and stay equal are one. Equality is assumed until next values differ, so that carries which
/// depend on each other are found too.
pub(super) fn merge_carries(inner: &mut ScanForm, members: &mut [(NodeId, ScanResult)]) -> bool {
    let count = inner.initial.len();
    let first_like = |same: &dyn Fn(usize, usize) -> bool| -> Vec<usize> {
        (0..count).map(|at| (0..at).find(|&other| same(other, at)).unwrap_or(at)).collect()
    };
    let mut first = first_like(&|a, b| inner.initial[a] == inner.initial[b]);
    loop {
        let mut replaced = BTreeMap::new();
        for (at, &like) in first.iter().enumerate() {
            let (leaf, _) = inner.graph.updates[at];
            if like != at
                && let Some(node) = inner.reading(leaf)
                && let Some(to) = inner.leaf(inner.graph.updates[like].0)
            {
                replaced.insert(node, to);
            }
        }
        if first.iter().enumerate().all(|(at, like)| at == *like) {
            return false;
        }
        let mut joined = inner.clone();
        joined.substitute(&replaced);
        let next = |at: usize| joined.graph.updates[at].1;
        let finer = first_like(&|a, b| first[a] == first[b] && next(a) == next(b));
        if finer == first {
            let mut merged = !replaced.is_empty();
            for (_, result) in members {
                if let ScanResult::Last(at) = result {
                    let to = first[usize::from(*at)] as u16;
                    merged |= to != *at;
                    *at = to;
                }
            }
            *inner = joined;
            return merged;
        }
        first = finer;
    }
}

/// A result that can be said without the scan: a row that is the element of a sequence, or a value that is the same in
/// every step.
fn outside(outer: &mut Graph, inner: &ScanForm, result: ScanResult, old: NodeId) -> Option<NodeId> {
    let site = outer.node(old).site;
    let (value, row) = match result {
        ScanResult::Rows(at) => (*inner.rows().get(usize::from(at))?, true),
        ScanResult::Last(at) => (inner.graph.updates.get(usize::from(at))?.1, false),
        ScanResult::Steps if inner.until => return None,
        ScanResult::Steps => {
            let steps = Literal::from_i64(inner.steps as i64, DType::I64);
            return Some(outer.add(Op::Literal(steps), &[], site));
        }
    };
    let extents = outer.ty(old).extents()?;
    if let Some(literal) = inner.graph.uniform(value) {
        return Some(outer.add_uniform(literal, &extents, site));
    }
    if row
        && !inner.until
        && let Some(sequence) = inner.sequence(value)
    {
        return Some(sequence);
    }
    let captured = inner.captured(value)?;
    if !row {
        return Some(captured);
    }
    let axes: SmallVec<[u8; 8]> = (1..extents.len() as u8).collect();
    Some(outer.add(Op::Broadcast { axes, dims: known_dims(&extents) }, &[captured], site))
}
