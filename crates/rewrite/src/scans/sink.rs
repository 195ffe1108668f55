//! Formulas on the results of a scan sink into its body, where rules see both sides: the logarithm of rows of sigmoids
//! becomes a row of what never underflows.
//!
//! A formula can go in if it treats every step alike, be it behind a window on some steps or a reshape that joins the
//! steps with the next axis. Values of outside go with it: numbers as they are, what is the same for all steps as
//! captured values, what has a value for each step as sequences. Only formulas with something to gain are moved: a
//! function that can overflow or lose digits, on a row that is made by one that can. A sum over all axes is split, so
//! that what stays outside is the sum over the steps.

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::op::{Along, Class, ScanResult, Start, View, WindowAxis, known_dims};
use hypatia_graph::{Axes, Fold, Graph, Node, NodeId, Op, ScalarFn};
use smallvec::SmallVec;

use super::Group;
use super::form::ScanForm;
use crate::Options;

/// How a value outside is made of the values of a node of the body in all steps.
#[derive(Copy, Clone, PartialEq, Debug)]
enum Seen {
    /// They are stacked.
    All,
    /// They are stacked, and the leading axis of the node is joined with that over the steps.
    Joined,
    /// Those of some steps are stacked.
    Part(WindowAxis),
    /// That of one step.
    At(usize),
}

/// A value outside as that of a node of the body.
#[derive(Copy, Clone, Debug)]
struct Moved {
    value: NodeId,
    view: Seen,
    /// Whether the row that it is made of is the value of a function with which rules could do something.
    shows: bool,
    /// Whether a function that could gain from being seen with that one is on the way.
    gains: bool,
}

/// What a node outside is in the body.
enum Inside {
    /// The operand itself: only the view of it differs.
    Same,
    Op(Op),
}

/// What takes the place of a node outside.
enum Target {
    /// The value itself.
    Value(NodeId, Moved),
    /// Its fold over the steps: the fold over the other axes stands in the body.
    Folded(NodeId, Fold, NodeId),
}

/// Moves the formulas that gain from it into the body.
pub(super) fn sink_consumers(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 0)?;
    let numbers_only = !inner.may_give(options);
    let mut region = Region { inner, numbers_only, moved: BTreeMap::new(), dependent: Vec::new() };
    for &(id, result) in &group.members {
        region.add_member(id, result);
    }
    let ids: Vec<NodeId> = group.members.iter().map(|(id, _)| *id).collect();
    let targets = region.spread(outer, &ids);
    if targets.is_empty() {
        return None;
    }
    let mut inner = region.inner;
    let mut wanted = group.wanted();
    let mut places: Vec<ScanResult> = Vec::new();
    for target in &targets {
        let (value, view) = match target {
            Target::Value(_, moved) => (moved.value, moved.view),
            Target::Folded(_, _, value) => (*value, Seen::All),
        };
        let result =
            if last_step(view, inner.steps) { inner.add_last(outer, value)? } else { inner.add_row(value) };
        places.push(result);
        wanted.push(result);
    }
    let written = inner.write(outer, &wanted, near);
    let mut pairs = written.replacing(&group.members);
    for (target, place) in targets.iter().zip(places) {
        let result = written.get(place)?;
        pairs.push(match target {
            Target::Value(old, moved) => (*old, seen_as(outer, *old, result, moved.view, inner.steps)?),
            Target::Folded(old, fold, _) => {
                let site = outer.node(*old).site;
                (*old, outer.add(Op::Reduce(*fold, Axes::one(0)), &[result], site))
            }
        });
    }
    Some(pairs)
}

/// Whether only the value of the last step is seen.
fn last_step(view: Seen, steps: usize) -> bool {
    match view {
        Seen::All | Seen::Joined => false,
        Seen::Part(window) => window.len == 1 && window.start == Start::Known(steps - 1),
        Seen::At(step) => step + 1 == steps,
    }
}

/// A result as the view of it that an old node was.
fn seen_as(outer: &mut Graph, old: NodeId, result: NodeId, view: Seen, steps: usize) -> Option<NodeId> {
    let site = outer.node(old).site;
    let extents = outer.ty(old).extents()?;
    let mut value = result;
    if !last_step(view, steps) {
        let window = match view {
            Seen::All | Seen::Joined => WindowAxis::whole(steps),
            Seen::Part(window) => window,
            Seen::At(step) => WindowAxis { start: Start::Known(step), len: 1, step: 1 },
        };
        if window != WindowAxis::whole(steps) {
            let others = outer.ty(value).extents()?;
            let axes = std::iter::once(window).chain(others[1..].iter().map(|&n| WindowAxis::whole(n)));
            value = outer.add(Op::Window(axes.collect()), &[value], site);
        }
    }
    if outer.ty(value).extents()? != extents {
        value = outer.add(Op::Reshape(known_dims(&extents)), &[value], site);
    }
    Some(value)
}

/// The nodes outside that could stand in the body.
struct Region {
    inner: ScanForm,
    /// Whether only numbers may go in with them: a gradient flows to other values from all steps outside and from few
    /// inside.
    numbers_only: bool,
    moved: BTreeMap<NodeId, Moved>,
    /// For every node outside whether it depends on the scan.
    dependent: Vec<bool>,
}

impl Region {
    fn add_member(&mut self, id: NodeId, result: ScanResult) {
        let (value, view) = match result {
            ScanResult::Rows(at) => (self.inner.rows().get(usize::from(at)).copied(), Seen::All),
            ScanResult::Last(at) => {
                let next = self.inner.graph.updates.get(usize::from(at)).map(|(_, next)| *next);
                (next, Seen::At(self.inner.steps - 1))
            }
            ScanResult::Steps => (None, Seen::All),
        };
        if let Some(value) = value {
            let shows = shows(&self.inner.graph, value);
            self.moved.insert(id, Moved { value, view, shows, gains: false });
        }
    }

    /// Moves whatever can be, and says what of it is to be replaced.
    fn spread(&mut self, outer: &mut Graph, members: &[NodeId]) -> Vec<Target> {
        let live = outer.reachable();
        let count = outer.len();
        self.dependent = vec![false; count];
        let mut folded: BTreeMap<NodeId, (Fold, NodeId)> = BTreeMap::new();
        let mut used: BTreeSet<NodeId> = outer.roots().collect();
        for id in (0..count as u32).map(NodeId).filter(|id| live[id.index()]) {
            let node = outer.node(id).clone();
            let own = members.contains(&id);
            self.dependent[id.index()] =
                own || node.operands.iter().any(|operand| self.dependent[operand.index()]);
            if own || !node.operands.iter().any(|operand| self.moved.contains_key(operand)) {
                continue;
            }
            if let Some(moved) = self.move_in(outer, &node, id) {
                self.moved.insert(id, moved);
            } else if let Some(fold) = self.fold_in(&node) {
                folded.insert(id, fold);
            } else {
                used.extend(node.operands.iter().copied());
            }
        }
        let gaining = |(id, moved): (&NodeId, &Moved)| {
            (used.contains(id) && moved.shows && moved.gains).then_some(Target::Value(*id, *moved))
        };
        let mut targets: Vec<Target> = self.moved.iter().filter_map(gaining).collect();
        targets.extend(folded.into_iter().map(|(id, (fold, value))| Target::Folded(id, fold, value)));
        targets
    }

    fn move_in(&mut self, outer: &mut Graph, node: &Node, id: NodeId) -> Option<Moved> {
        let known: SmallVec<[Option<Moved>; 4]> =
            node.operands.iter().map(|operand| self.moved.get(operand).copied()).collect();
        let (position, first) = known.iter().enumerate().find_map(|(at, moved)| Some((at, (*moved)?)))?;
        if known.iter().flatten().any(|moved| moved.view != first.view) {
            return None;
        }
        let from = outer.ty(node.operands[position]).extents()?;
        let (inside, view) = self.op_in(&node.op, first.view, &from, &node.ty.extents()?)?;
        let op = match inside {
            Inside::Same => return Some(Moved { view, ..first }),
            Inside::Op(op) => op,
        };
        let mut operands: SmallVec<[NodeId; 4]> = SmallVec::new();
        for (operand, known) in node.operands.iter().zip(&known) {
            operands.push(match known {
                Some(moved) => moved.value,
                None => self.take_along(outer, *operand, first.view)?,
            });
        }
        let numbers = operands.iter().skip(1).all(|operand| self.inner.graph.uniform(*operand).is_some());
        let gains = matches!(&op, Op::Map(f) if gains(*f, numbers));
        Some(Moved {
            value: self.inner.graph.add(op, &operands, outer.node(id).site),
            view,
            shows: known.iter().flatten().any(|moved| moved.shows),
            gains: gains || known.iter().flatten().any(|moved| moved.gains),
        })
    }

    /// The extents in the body of a value of those extents outside.
    fn extents_in(&self, extents: &[usize], view: Seen) -> Option<SmallVec<[usize; 8]>> {
        let steps = self.inner.steps;
        match view {
            Seen::At(_) => Some(extents.into()),
            Seen::All => (*extents.first()? == steps).then(|| extents[1..].into()),
            Seen::Part(window) => (*extents.first()? == window.len).then(|| extents[1..].into()),
            Seen::Joined => {
                let mut extents: SmallVec<[usize; 8]> = extents.into();
                let first = extents.first_mut()?;
                if *first % steps != 0 {
                    return None;
                }
                *first /= steps;
                Some(extents)
            }
        }
    }

    /// An operator in the body, on operands that are seen so outside; and how its value is. Extents are
    /// those outside, of an operand that is moved and of the result.
    fn op_in(&self, op: &Op, seen: Seen, from: &[usize], to: &[usize]) -> Option<(Inside, Seen)> {
        let steps = self.inner.steps;
        match op.view() {
            Some(View::Window(axes)) => return self.window_in(axes, seen, from),
            Some(View::Reshape) => {
                let seen = match seen {
                    Seen::At(_) => seen,
                    Seen::All | Seen::Joined if to.first() == Some(&steps) => Seen::All,
                    Seen::All | Seen::Joined => Seen::Joined,
                    Seen::Part(window) if to.first() == Some(&window.len) => seen,
                    Seen::Part(WindowAxis { start: Start::Known(start), len: 1, .. }) => Seen::At(start),
                    Seen::Part(_) => return None,
                };
                return Some((Inside::Op(op.with_dims(known_dims(&self.extents_in(to, seen)?))), seen));
            }
            Some(View::Same | View::Broadcast(_) | View::Permute(_) | View::Slice) | None => {}
        }
        let inside = match seen {
            // The value outside has an axis over the steps before those of the body.
            Seen::All | Seen::Part(_) => op.unbatched(from, to)?,
            // It is joined with the first of those; steps must be kept apart all the same.
            Seen::Joined => op.unbatched(from, to).map(|_| op.clone())?,
            Seen::At(_) => op.batched(1)?.unbatched(&[1], &[1])?,
        };
        let inside = match inside.dims() {
            Some(_) => inside.with_dims(known_dims(&self.extents_in(to, seen)?)),
            None => inside,
        };
        Some((Inside::Op(inside), seen))
    }

    fn window_in(&self, axes: &[WindowAxis], view: Seen, from: &[usize]) -> Option<(Inside, Seen)> {
        let known = |axis: &WindowAxis| if let Start::Known(start) = axis.start { Some(start) } else { None };
        if !axes.iter().all(|axis| known(axis).is_some()) {
            return None;
        }
        let first = *axes.first()?;
        let whole = first == WindowAxis::whole(from[0]);
        let (view, others) = match view {
            Seen::At(_) => (view, axes),
            Seen::Joined if whole => (view, axes),
            Seen::Joined => return None,
            Seen::All if whole => (view, &axes[1..]),
            Seen::All => (Seen::Part(first), &axes[1..]),
            Seen::Part(outer) => {
                let start = known(&outer)? as i64 + outer.step * known(&first)? as i64;
                let step = if first.len > 1 { outer.step * first.step } else { 1 };
                let start = Start::Known(usize::try_from(start).ok().filter(|_| first.len > 0)?);
                (Seen::Part(WindowAxis { start, len: first.len, step }), &axes[1..])
            }
        };
        let extents = &from[from.len() - others.len()..];
        if others.iter().zip(extents).all(|(axis, &n)| *axis == WindowAxis::whole(n)) {
            return Some((Inside::Same, view));
        }
        let mut others = others.to_vec();
        if view == Seen::Joined {
            others[0] = WindowAxis::whole(from[0] / self.inner.steps);
        }
        Some((Inside::Op(Op::Window(others.into())), view))
    }

    /// A value of outside in the body, where it stands beside values with that view.
    fn take_along(&mut self, outer: &mut Graph, operand: NodeId, view: Seen) -> Option<NodeId> {
        if self.dependent.get(operand.index()).is_none_or(|dependent| *dependent) {
            return None;
        }
        let extents = outer.ty(operand).extents()?;
        let element = self.extents_in(&extents, view)?;
        let node = outer.node(operand).clone();
        if let Some(number) = outer.uniform(operand) {
            return Some(self.inner.graph.add_uniform(number, &element, node.site));
        }
        if self.numbers_only {
            return None;
        }
        let shift = u8::from(matches!(view, Seen::All | Seen::Part(_)));
        if let Op::Broadcast { axes, .. } = &node.op
            && !matches!(view, Seen::At(_))
            && !axes.contains(&0)
        {
            // The same for all steps.
            let value = self.inner.add_input(outer, node.operands[0], false)?;
            let axes = axes.iter().map(|axis| axis - shift).collect();
            let spread = Op::Broadcast { axes, dims: known_dims(&element) };
            return Some(self.inner.graph.add(spread, &[value], node.site));
        }
        let mut as_element = |leading: &[usize]| {
            let dims: SmallVec<[usize; 8]> = leading.iter().chain(&element).copied().collect();
            outer.add(Op::Reshape(known_dims(&dims)), &[operand], node.site)
        };
        let steps = self.inner.steps;
        match view {
            Seen::At(_) => self.inner.add_input(outer, operand, false),
            // Rows beyond an early end repeat the last one, and an element would not.
            Seen::All | Seen::Joined if self.inner.until => None,
            Seen::All => self.inner.add_input(outer, operand, true),
            Seen::Joined => {
                let value = as_element(&[steps]);
                self.inner.add_input(outer, value, true)
            }
            Seen::Part(window) if window.len == 1 => {
                let value = as_element(&[]);
                self.inner.add_input(outer, value, false)
            }
            Seen::Part(_) => None,
        }
    }

    /// A fold over the steps and other axes of what gains in the body, as the fold over the other axes there.
    fn fold_in(&mut self, node: &Node) -> Option<(Fold, NodeId)> {
        let Op::Reduce(fold, axes) = node.op else { return None };
        let moved = *self.moved.get(&node.operands[0]).filter(|moved| moved.shows && moved.gains)?;
        let inner: Axes = match moved.view {
            Seen::All => axes.iter().filter(|axis| *axis > 0).map(|axis| axis - 1).collect(),
            Seen::Joined => axes,
            Seen::Part(_) | Seen::At(_) => return None,
        };
        if !axes.contains(0) || inner.is_empty() {
            return None;
        }
        Some((fold, self.inner.graph.add(Op::Reduce(fold, inner), &[moved.value], node.site)))
    }
}

/// Whether rules may do something with a function if they see what its operand is. Division by numbers is none.
fn gains(f: ScalarFn, by_numbers: bool) -> bool {
    f.properties().is_sensitive && !(f == ScalarFn::Div && by_numbers)
}

/// The most nodes of a body that are looked at to find out what a row is made of.
const LOOKED_AT: usize = 64;

/// Whether a value is made by a curved function, through views, sums and scalings.
fn shows(graph: &Graph, value: NodeId) -> bool {
    let mut pending = vec![value];
    let mut seen = BTreeSet::new();
    while let Some(id) = pending.pop() {
        if seen.len() >= LOOKED_AT || !seen.insert(id) || graph.uniform(id).is_some() {
            continue;
        }
        let node = graph.node(id);
        let curved = |f: ScalarFn| gains(f, false) || f.properties().saturates || f == ScalarFn::Sqr;
        if matches!(node.op, Op::Map(f) if curved(f)) {
            return true;
        }
        let through = match node.op.class() {
            Class::Map(_) | Class::Cast(_) | Class::View(_) | Class::Fold(Along::Reduce(..)) => true,
            Class::Assembly | Class::Indexed(_) => node.op.write().is_none(),
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::Fold(_)
            | Class::Product
            | Class::Convolution(_)
            | Class::Random(_)
            | Class::Scan(_)
            | Class::Gradient(_) => false,
        };
        if through {
            pending.extend(node.operands.iter().copied());
        }
    }
    false
}
