//! Rows that nothing reads are not made: a scan of which only the first rows are read makes no more steps than that, and
//! one of which only later rows are read stores none before, as where the first draws of a chain are thrown away.

use std::collections::BTreeMap;

use hypatia_graph::op::{ScanResult, Start, WindowAxis};
use hypatia_graph::{Graph, NodeId, Op};

use super::Group;
use super::form::{Input, ScanForm};
use super::last::users;
use crate::Options;

/// The scan is made in two if that saves storing as many elements; the second body costs time to compile.
const WORTH_TWO_LOOPS: usize = 1 << 16;

/// Two scans: one without rows for the steps before those that are read, then one with rows.
pub(super) fn trim(outer: &mut Graph, group: &Group, options: Options) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 1 && !inner.until)?;
    if !options.gradients_taken {
        return None;
    }
    let windows = windows_on_rows(outer, group)?;
    let mut first = windows.values().map(|(low, _)| *low).min()?;
    let to_the_end = group.members.iter().any(|(_, result)| !matches!(result, ScanResult::Rows(_)));
    let highest = windows.values().map(|(_, high)| *high).max()?;
    let end = if to_the_end { inner.steps } else { highest + 1 };
    let rows = group.members.iter().filter_map(|(_, result)| match result {
        ScanResult::Rows(at) => inner.graph.ty(*inner.rows().get(usize::from(*at))?).element_count(),
        ScanResult::Last(_) | ScanResult::Steps => None,
    });
    let row: usize = rows.sum();
    if row.saturating_mul(first) < WORTH_TWO_LOOPS {
        first = 0;
    }
    if first == 0 && end == inner.steps {
        return None;
    }
    let sequences: Vec<Input> = inner.inputs.clone();
    if first > 0 {
        let mut before = inner.clone();
        before.steps = first;
        before.inputs = elements(outer, &sequences, 0, first)?;
        let carries: Vec<ScanResult> = (0..inner.initial.len() as u16).map(ScanResult::Last).collect();
        let written = before.write(outer, &carries, near);
        inner.initial = carries.iter().map(|carry| written.get(*carry)).collect::<Option<_>>()?;
    }
    inner.steps = end - first;
    inner.inputs = elements(outer, &sequences, first, end)?;
    let written = inner.write(outer, &group.wanted(), near);
    let mut pairs = Vec::new();
    for &(old, result) in &group.members {
        // Rows have another extent now: what changes are the windows on them.
        if !matches!(result, ScanResult::Rows(_)) {
            pairs.push((old, written.get(result)?));
        }
    }
    for window in windows.keys() {
        let node = outer.node(*window).clone();
        let Op::Window(mut axes) = node.op else { return None };
        let (_, result) = group.members.iter().find(|(id, _)| *id == node.operands[0])?;
        let Start::Known(start) = axes[0].start else { return None };
        axes[0].start = Start::Known(start - first);
        let mut operands = node.operands.clone();
        operands[0] = written.get(*result)?;
        pairs.push((*window, outer.add(Op::Window(axes), &operands, node.site)));
    }
    Some(pairs)
}

/// The windows that are all that reads rows, each with the first and the last row it reads.
fn windows_on_rows(outer: &Graph, group: &Group) -> Option<BTreeMap<NodeId, (usize, usize)>> {
    let rows: Vec<NodeId> = group
        .members
        .iter()
        .filter(|(_, result)| matches!(result, ScanResult::Rows(_)))
        .map(|(id, _)| *id)
        .collect();
    let mut windows = BTreeMap::new();
    for user in users(outer, &rows).into_values().flatten() {
        let Op::Window(axes) = &outer.node(user?).op else { return None };
        let &WindowAxis { start: Start::Known(start), len: 1.., step } = axes.first()? else { return None };
        let last = start as i64 + step * (axes[0].len as i64 - 1);
        let last = usize::try_from(last).ok()?;
        windows.insert(user?, (start.min(last), start.max(last)));
    }
    Some(windows)
}

/// The inputs with the elements of sequences from one position up to another.
fn elements(outer: &mut Graph, inputs: &[Input], from: usize, to: usize) -> Option<Vec<Input>> {
    let mut part = |input: &Input| {
        if !input.sequence {
            return Some(*input);
        }
        let extents = outer.ty(input.value).extents()?;
        let mut axes: Vec<WindowAxis> = extents.iter().map(|&n| WindowAxis::whole(n)).collect();
        axes[0] = WindowAxis { start: Start::Known(from), len: to - from, step: 1 };
        let site = outer.node(input.value).site;
        let value = outer.add(Op::Window(axes.into()), &[input.value], site);
        Some(Input { value, sequence: true })
    };
    inputs.iter().map(&mut part).collect()
}
