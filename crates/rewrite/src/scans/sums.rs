//! Sums over the steps. A sum of products, such as the gradient of a recurrent weight, is one product of stacks after the
//! scan; a sum over the rows of a result is added up in the scan, where that stores less.
//!
//! Both change the order of a sum, and a scan that may end early repeats rows that a sum must not count again.

use std::collections::{BTreeMap, BTreeSet};

use hypatia_graph::array::Extents;
use hypatia_graph::op::{Along, Class, ScanResult, View, known_dims};
use hypatia_graph::{Axes, Fold, Graph, LeafId, Literal, NodeId, Op, ScalarFn};
use smallvec::SmallVec;

use super::Group;
use super::form::{Dependence, ScanForm, Written, import, is_made_by_scan, root_of};
use super::last::users;
use super::products::MOST_STACKED;
use crate::{Numerics, Options};

/// Rows with fewer elements are stacked though only their sum is used.
const LARGE_ROW: usize = 256;
/// The depth to which a summand is looked into, and how many values: one that is used twice is looked at twice.
const DEEPEST: usize = 32;
const LOOKED_AT: usize = 1000;

/// The steps that a scan adds up one after another, at most.
const LONGEST_SUM: usize = 64;
/// The steps of a sum that begins anew, and the sums of a stage that the next one adds up.
const STAGE_STEPS: usize = 32;

/// The sum of a value of the body over all steps, as it is computed after the scan.
enum Sum {
    /// Of what is stacked, over the steps and further axes of the value, which has those elements in those extents.
    Stack { base: NodeId, extents: Extents, axes: Axes },
    /// Of products of what is stacked: the left one with its axes turned.
    Product { left: Side, right: Side },
    /// A view of a sum.
    View(Op, Box<Sum>),
    /// A sum with a factor that is the same in every step, or a divisor, or a sign.
    Scaled(ScalarFn, Box<Sum>, Option<NodeId>),
    /// A sum or difference of sums.
    Joined(ScalarFn, Box<Sum>, Box<Sum>),
}

/// One side of a product whose stack is `[steps * inner, outer]`, or the transposed of it.
#[derive(Copy, Clone)]
struct Side {
    /// What is stacked.
    base: NodeId,
    /// Its extents in one step.
    rows: usize,
    columns: usize,
    /// Whether the rows are those of the product.
    turned: bool,
}

/// The scan with sums of products after it.
pub(super) fn sums_after(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let inner =
        ScanForm::of(outer, near).filter(|inner| inner.steps > 1 && !inner.until && inner.may_stack())?;
    if options.numerics != Numerics::Real || !options.gradients_taken {
        return None;
    }
    let dependence = inner.dependence();
    let mut summing = Summing {
        inner,
        dependence,
        stacked: BTreeMap::new(),
        turned: BTreeMap::new(),
        new: 0,
        left_to_look_at: LOOKED_AT,
    };
    for (_, result) in &group.members {
        if let ScanResult::Rows(at) = result {
            let row = *summing.inner.rows().get(usize::from(*at))?;
            summing.stacked.insert(root_of(&summing.inner.graph, row), row);
        }
    }
    let mut parts: BTreeMap<usize, Vec<(bool, NodeId)>> = BTreeMap::new();
    for (_, result) in &group.members {
        let ScanResult::Last(at) = *result else { continue };
        if let Some(summands) = summing.summands(usize::from(at)) {
            parts.insert(usize::from(at), summands);
        }
    }
    // First the products, which decide what is stacked, then what can be summed from the same stacks.
    let mut after: BTreeMap<(usize, usize), Sum> = BTreeMap::new();
    for products in [true, false] {
        for (&carry, summands) in &parts {
            for (position, (_, summand)) in summands.iter().enumerate() {
                if after.contains_key(&(carry, position)) {
                    continue;
                }
                summing.left_to_look_at = LOOKED_AT;
                if let Some(sum) =
                    summing.sum(*summand, products, 0).filter(|sum| !products || sum.has_product())
                {
                    after.insert((carry, position), sum);
                }
            }
        }
    }
    if after.is_empty() {
        return None;
    }
    summing.finish(outer, group, &parts, &after)
}

impl Sum {
    fn has_product(&self) -> bool {
        match self {
            Sum::Stack { .. } => false,
            Sum::Product { .. } => true,
            Sum::View(_, sum) | Sum::Scaled(_, sum, _) => sum.has_product(),
            Sum::Joined(_, left, right) => left.has_product() || right.has_product(),
        }
    }
}

/// A scan whose sums are looked at.
struct Summing {
    inner: ScanForm,
    dependence: Vec<Dependence>,
    /// Values of the body that are stacked, by what they have the elements of.
    stacked: BTreeMap<NodeId, NodeId>,
    /// For values that are stacked transposed, the transposed ones.
    turned: BTreeMap<NodeId, NodeId>,
    /// Elements of stacks that were not there before.
    new: usize,
    /// How many values may still be looked at for the present summand.
    left_to_look_at: usize,
}

impl Summing {
    fn varies(&self, id: NodeId) -> bool {
        self.dependence.get(id.index()).is_none_or(|dependence| *dependence >= Dependence::Sequence)
    }

    /// What is stacked with the elements of a value.
    fn stack_of(&self, id: NodeId) -> Option<NodeId> {
        let root = root_of(&self.inner.graph, id);
        let element = self.inner.sequence(root).map(|_| root);
        element.or_else(|| self.stacked.get(&root).copied())
    }

    /// What is stacked with the elements of a value, or could be.
    fn base_of(&self, id: NodeId) -> NodeId {
        self.stack_of(id).unwrap_or_else(|| root_of(&self.inner.graph, id))
    }

    /// The summands that a carry adds to itself, with their signs, if that is all that happens to it.
    fn summands(&self, carry: usize) -> Option<Vec<(bool, NodeId)>> {
        let graph = &self.inner.graph;
        let (leaf, next) = graph.updates[carry];
        let own = self.inner.reading(leaf).filter(|own| *own != next)?;
        let mut tainted = vec![false; graph.len()];
        let mut uses = vec![0; graph.len()];
        let live = graph.reachable();
        for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
            tainted[id.index()] = id == own || node.operands.iter().any(|operand| tainted[operand.index()]);
            for operand in &node.operands {
                uses[operand.index()] += 1;
            }
        }
        for root in graph.roots() {
            uses[root.index()] += 1;
        }
        let mut summands = Vec::new();
        let mut id = next;
        let mut positive = true;
        while id != own {
            let node = graph.node(id);
            // Whatever holds the sum so far is used by the next sum only.
            if !tainted[id.index()] || uses[id.index()] != 1 {
                return None;
            }
            let side = node.operands.iter().position(|operand| tainted[operand.index()])?;
            let other = node.operands.get(1 - side.min(1)).copied();
            let difference = node.op == Op::Map(ScalarFn::Sub);
            if !difference && node.op != Op::Map(ScalarFn::Add) {
                return None;
            }
            // A difference turns the sign of its right side: the summand's, or that of the sum so far.
            summands.push((positive != (difference && side == 0), other?));
            positive ^= difference && side == 1;
            if summands.last().is_some_and(|(_, summand)| tainted[summand.index()]) {
                return None;
            }
            id = node.operands[side];
        }
        (positive && uses[own.index()] == 1 && graph.ty(own).dtype.is_float()).then_some(summands)
    }

    /// How the sum of a value over all steps is computed after the scan. Only for `products` new stacks are made.
    fn sum(&mut self, id: NodeId, products: bool, depth: usize) -> Option<Sum> {
        if depth > DEEPEST || self.left_to_look_at == 0 || !self.varies(id) {
            return None;
        }
        self.left_to_look_at -= 1;
        let node = self.inner.graph.node(id).clone();
        let sum = match node.op.class() {
            Class::Product => return self.product(id, products),
            Class::Map(f @ (ScalarFn::Add | ScalarFn::Sub)) => {
                let left = self.sum(node.operands[0], products, depth + 1);
                let right = left.is_some().then(|| self.sum(node.operands[1], products, depth + 1)).flatten();
                left.zip(right).map(|(left, right)| Sum::Joined(f, Box::new(left), Box::new(right)))
            }
            Class::Map(ScalarFn::Neg) => self
                .sum(node.operands[0], products, depth + 1)
                .map(|sum| Sum::Scaled(ScalarFn::Neg, Box::new(sum), None)),
            Class::Map(f @ (ScalarFn::Mul | ScalarFn::Div)) => {
                let (x, factor) = (node.operands[0], node.operands[1]);
                let swapped = f == ScalarFn::Mul && !self.varies(x);
                let (x, factor) = if swapped { (factor, x) } else { (x, factor) };
                let sum = if self.varies(factor) { None } else { self.sum(x, products, depth + 1) };
                sum.map(|sum| Sum::Scaled(f, Box::new(sum), Some(factor)))
            }
            Class::View(View::Reshape | View::Permute(_) | View::Broadcast(_) | View::Same) => self
                .sum(node.operands[0], products, depth + 1)
                .map(|sum| Sum::View(node.op.clone(), Box::new(sum))),
            Class::Fold(Along::Reduce(Fold::Sum, axes)) => self.stacked_sum(node.operands[0], axes),
            Class::Leaf(_)
            | Class::Literal(_)
            | Class::Index
            | Class::Map(_)
            | Class::Cast(_)
            | Class::View(View::Slice | View::Window(_))
            | Class::Assembly
            | Class::Indexed(_)
            | Class::Fold(_)
            | Class::Convolution(_)
            | Class::Random(_)
            | Class::Scan(_)
            | Class::Gradient(_) => None,
        };
        if sum.is_some() {
            return sum;
        }
        self.stacked_sum(id, Axes::NONE)
    }

    /// The sum of a value that is stacked already.
    fn stacked_sum(&self, id: NodeId, axes: Axes) -> Option<Sum> {
        let base = self.stack_of(id)?;
        Some(Sum::Stack { base, extents: self.inner.graph.ty(id).extents()?, axes })
    }

    /// The sum of products of two matrices that both change.
    fn product(&mut self, id: NodeId, products: bool) -> Option<Sum> {
        let node = self.inner.graph.node(id).clone();
        let extents = self.inner.graph.ty(id).extents()?;
        let &[m, p] = extents.as_slice() else { return None };
        let (a, b) = (node.operands[0], node.operands[1]);
        let k = self.inner.graph.ty(a).extents()?[1];
        if !self.varies(a) || !self.varies(b) {
            return None;
        }
        let (left, right) =
            (self.left(a, m, k)?, Side { base: self.base_of(b), rows: k, columns: p, turned: false });
        let size =
            |side: &Side| if self.stack_of(side.base).is_some() { 0 } else { side.rows * side.columns };
        let new = size(&left) + if left.base == right.base { 0 } else { size(&right) };
        if new > 0 {
            let all = new.saturating_mul(self.inner.steps).saturating_add(self.new);
            // What a scan in the body made is as many rows already, and perhaps made again so that it is not kept.
            let again = [&left, &right].iter().any(|side| is_made_by_scan(&self.inner.graph, side.base));
            if !products || all > MOST_STACKED || new > 2 * m * p || again {
                return None;
            }
            self.new = all;
        }
        for base in [left.base, right.base] {
            self.stacked.entry(root_of(&self.inner.graph, base)).or_insert(base);
        }
        Some(Sum::Product { left, right })
    }

    /// The left side of a product `[m, k] . [k, p]`: stacked as `[k, m]` unless it is one row or stacked already.
    fn left(&mut self, a: NodeId, m: usize, k: usize) -> Option<Side> {
        let graph = &self.inner.graph;
        if matches!(&graph.node(a).op, Op::Permute(axes) if axes[..] == [1, 0]) {
            let base = self.base_of(graph.node(a).operands[0]);
            return Some(Side { base, rows: k, columns: m, turned: true });
        }
        let base = self.base_of(a);
        if k == 1 {
            // A column: its elements lie as those of a row.
            return Some(Side { base, rows: 1, columns: m, turned: true });
        }
        if m == 1 || self.stack_of(a).is_some() {
            return Some(Side { base, rows: m, columns: k, turned: false });
        }
        let turned = match self.turned.get(&a) {
            Some(turned) => *turned,
            None => {
                let site = graph.node(a).site;
                let turned = self.inner.graph.add(Op::Permute(SmallVec::from_slice(&[1, 0])), &[a], site);
                self.turned.insert(a, turned);
                turned
            }
        };
        Some(Side { base: turned, rows: k, columns: m, turned: true })
    }

    fn finish(
        mut self,
        outer: &mut Graph,
        group: &Group,
        parts: &BTreeMap<usize, Vec<(bool, NodeId)>>,
        after: &BTreeMap<(usize, usize), Sum>,
    ) -> Option<Vec<(NodeId, NodeId)>> {
        // What is left of each carry: the summands that stay.
        for (&carry, summands) in parts {
            let (leaf, _) = self.inner.graph.updates[carry];
            if !(0..summands.len()).any(|position| after.contains_key(&(carry, position))) {
                continue;
            }
            let mut next = self.inner.reading(leaf)?;
            for (position, (positive, summand)) in summands.iter().enumerate() {
                if !after.contains_key(&(carry, position)) {
                    let f = if *positive { ScalarFn::Add } else { ScalarFn::Sub };
                    let site = self.inner.graph.node(*summand).site;
                    next = self.inner.graph.add(Op::Map(f), &[next, *summand], site);
                }
            }
            self.inner.graph.updates[carry].1 = next;
        }
        let mut used = BTreeSet::new();
        after.values().for_each(|sum| sum.bases(&mut used));
        let mut rows: BTreeMap<NodeId, ScanResult> = BTreeMap::new();
        for base in used {
            if self.inner.sequence(base).is_none() {
                rows.insert(base, self.inner.add_row(base));
            }
        }
        let mut wanted = group.wanted();
        wanted.extend(rows.values().copied());
        let written = self.inner.write(outer, &wanted, group.members[0].0);
        let captured =
            self.inner.graph.inputs.iter().zip(&self.inner.inputs).filter(|(_, input)| !input.sequence);
        let values = captured.map(|(leaf, input)| (*leaf, input.value)).collect();
        let mut sums = Sums { inner: &self.inner, rows, written: &written, values, placed: BTreeMap::new() };
        let mut pairs = Vec::new();
        for &(old, result) in &group.members {
            let mut value = written.get(result)?;
            if let ScanResult::Last(at) = result {
                let carry = usize::from(at);
                for (position, (positive, _)) in parts.get(&carry).into_iter().flatten().enumerate() {
                    let Some(sum) = after.get(&(carry, position)) else { continue };
                    let sum = sums.build(outer, sum)?;
                    let f = if *positive { ScalarFn::Add } else { ScalarFn::Sub };
                    value = outer.add(Op::Map(f), &[value, sum], outer.node(old).site);
                }
            }
            pairs.push((old, value));
        }
        Some(pairs)
    }
}

impl Sum {
    /// The values whose stacks the sum is computed from.
    fn bases(&self, found: &mut BTreeSet<NodeId>) {
        match self {
            Sum::Stack { base, .. } => {
                found.insert(*base);
            }
            Sum::Product { left, right } => found.extend([left.base, right.base]),
            Sum::View(_, sum) | Sum::Scaled(_, sum, _) => sum.bases(found),
            Sum::Joined(_, left, right) => {
                left.bases(found);
                right.bases(found);
            }
        }
    }
}

/// Sums as they are built after a scan.
struct Sums<'l> {
    inner: &'l ScanForm,
    rows: BTreeMap<NodeId, ScanResult>,
    written: &'l Written,
    values: BTreeMap<LeafId, NodeId>,
    placed: BTreeMap<NodeId, NodeId>,
}

impl Sums<'_> {
    fn stack(&self, base: NodeId) -> Option<NodeId> {
        self.inner.sequence(base).or_else(|| self.written.get(*self.rows.get(&base)?))
    }

    fn build(&mut self, outer: &mut Graph, sum: &Sum) -> Option<NodeId> {
        match sum {
            Sum::Stack { base, extents, axes } => {
                let site = self.inner.graph.node(*base).site;
                let axes: Axes = std::iter::once(0).chain(axes.iter().map(|axis| axis + 1)).collect();
                let mut stack = self.stack(*base)?;
                let stacked: Extents =
                    std::iter::once(self.inner.steps).chain(extents.iter().copied()).collect();
                if outer.ty(stack).extents()? != stacked {
                    stack = outer.add(Op::Reshape(known_dims(&stacked)), &[stack], site);
                }
                Some(outer.add(Op::Reduce(Fold::Sum, axes), &[stack], site))
            }
            Sum::Product { left, right } => {
                let site = self.inner.graph.node(left.base).site;
                let left = self.side(outer, left, true)?;
                let right = self.side(outer, right, false)?;
                Some(outer.add(Op::Dot, &[left, right], site))
            }
            Sum::View(op, sum) => {
                let value = self.build(outer, sum)?;
                Some(outer.add(op.clone(), &[value], outer.node(value).site))
            }
            Sum::Scaled(f, sum, factor) => {
                let value = self.build(outer, sum)?;
                let mut operands: SmallVec<[NodeId; 2]> = SmallVec::from_slice(&[value]);
                if let Some(factor) = factor {
                    operands.push(import(outer, &self.inner.graph, *factor, &self.values, &mut self.placed)?);
                }
                Some(outer.add(Op::Map(*f), &operands, outer.node(value).site))
            }
            Sum::Joined(f, left, right) => {
                let operands = [self.build(outer, left)?, self.build(outer, right)?];
                Some(outer.add(Op::Map(*f), &operands, outer.node(operands[0]).site))
            }
        }
    }

    /// A side of the product of stacks: `[m, steps * k]` on the left, `[steps * k, p]` on the right.
    fn side(&self, outer: &mut Graph, side: &Side, is_left: bool) -> Option<NodeId> {
        let site = self.inner.graph.node(side.base).site;
        let (steps, rows, columns) = (self.inner.steps, side.rows, side.columns);
        let stack = self.stack(side.base)?;
        let mut add = |op: Op, operand: NodeId| outer.add(op, &[operand], site);
        if side.turned || !is_left {
            let joined = add(Op::Reshape(known_dims(&[steps * rows, columns])), stack);
            return Some(if is_left {
                add(Op::Permute(SmallVec::from_slice(&[1, 0])), joined)
            } else {
                joined
            });
        }
        let cube = add(Op::Reshape(known_dims(&[steps, rows, columns])), stack);
        let turned = add(Op::Permute(SmallVec::from_slice(&[1, 0, 2])), cube);
        Some(add(Op::Reshape(known_dims(&[rows, steps * columns])), turned))
    }
}

/// The scan with carries that add up large rows of which only the sum over the steps is used.
pub(super) fn sums_inside(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let mut inner = ScanForm::of(outer, near).filter(|inner| inner.steps > 1 && !inner.until)?;
    if options.numerics != Numerics::Real || !options.gradients_taken {
        return None;
    }
    let ids: Vec<NodeId> = group.members.iter().map(|(id, _)| *id).collect();
    let users = users(outer, &ids);
    let mut members: Vec<(NodeId, ScanResult)> = Vec::new();
    let mut sums: Vec<(NodeId, ScanResult)> = Vec::new();
    for &(old, result) in &group.members {
        let row = match result {
            ScanResult::Rows(at) => inner.rows().get(usize::from(at)).copied(),
            ScanResult::Last(_) | ScanResult::Steps => None,
        };
        let reduced = |user: &Option<NodeId>| {
            let Op::Reduce(Fold::Sum, axes) = outer.node((*user)?).op else { return None };
            axes.contains(0).then_some(((*user)?, axes))
        };
        let used: Option<Vec<(NodeId, Axes)>> = users[&old].iter().map(reduced).collect();
        let large = |row: &NodeId| {
            let ty = inner.graph.ty(*row);
            ty.dtype.is_float() && ty.element_count().is_some_and(|n| n >= LARGE_ROW)
        };
        let (Some(row), Some(used)) = (row.filter(large), used.filter(|used| !used.is_empty())) else {
            members.push((old, result));
            continue;
        };
        for (user, axes) in used {
            let axes: Axes = axes.iter().filter(|axis| *axis > 0).map(|axis| axis - 1).collect();
            let site = outer.node(user).site;
            let value = if axes.is_empty() {
                row
            } else {
                inner.graph.add(Op::Reduce(Fold::Sum, axes), &[row], site)
            };
            let ty = inner.graph.ty(value).clone();
            let zero = outer.add_uniform(Literal::from_f64(0.0, ty.dtype), &ty.extents()?, site);
            let (sum, at) = inner.add_carry(zero, ty);
            inner.graph.updates[at].1 = inner.graph.add(Op::Map(ScalarFn::Add), &[sum, value], site);
            sums.push((user, ScanResult::Last(at as u16)));
        }
    }
    if sums.is_empty() {
        return None;
    }
    let wanted: Vec<ScanResult> = members.iter().chain(&sums).map(|(_, result)| *result).collect();
    let written = inner.write(outer, &wanted, near);
    let mut pairs = written.replacing(&members);
    pairs.extend(written.replacing(&sums));
    Some(pairs)
}

/// Sums in stages: after some steps a sum is added to that of the next stage and begins at 0 again, and so on. A sum of
/// many steps then has a few roundings a stage, and not one a step.
pub(super) fn sums_in_stages(
    outer: &mut Graph,
    group: &Group,
    options: Options,
) -> Option<Vec<(NodeId, NodeId)>> {
    let near = group.members[0].0;
    let inner = ScanForm::of(outer, near).filter(|inner| inner.steps > LONGEST_SUM)?;
    if options.numerics != Numerics::Real || !options.gradients_taken {
        return None;
    }
    let steps = inner.steps;
    let dependence = inner.dependence();
    let mut summing = Summing {
        inner,
        dependence,
        stacked: BTreeMap::new(),
        turned: BTreeMap::new(),
        new: 0,
        left_to_look_at: LOOKED_AT,
    };
    let mut sums: BTreeMap<usize, Vec<(bool, NodeId)>> = BTreeMap::new();
    for (_, result) in &group.members {
        let ScanResult::Last(at) = *result else { continue };
        let Some(summands) = summing.summands(usize::from(at)) else { continue };
        // A product is added to a sum in place, which a sum that begins anew could not have.
        let product = summands.iter().any(|(_, id)| summing.inner.graph.node(*id).op == Op::Dot);
        if !product && !summands.is_empty() {
            sums.insert(usize::from(at), summands);
        }
    }
    if sums.is_empty() {
        return None;
    }
    let inner = &mut summing.inner;
    // For each stage but the last, whether its sum ends at a step.
    let site = outer.node(near).site;
    let mut ends: Vec<NodeId> = Vec::new();
    let mut length = STAGE_STEPS;
    while length < steps {
        let count = outer.add(Op::Iota(known_dims(&[steps])), &[], site);
        let [every, last] =
            [length, length - 1].map(|value| outer.add_uniform(Literal::I64(value as i64), &[steps], site));
        let place = outer.add(Op::Map(ScalarFn::Mod), &[count, every], site);
        let end = outer.add(Op::Map(ScalarFn::Eq), &[place, last], site);
        ends.push(inner.add_input(outer, end, true)?);
        length = length.saturating_mul(STAGE_STEPS);
    }
    // The carries of each sum that begin anew, the shortest first.
    let mut stages: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (&carry, summands) in &sums {
        let (leaf, _) = inner.graph.updates[carry];
        let own = inner.reading(leaf)?;
        let ty = inner.graph.ty(own).clone();
        let extents = ty.extents()?;
        let zero = Literal::from_f64(0.0, ty.dtype);
        let nothing = inner.graph.add_uniform(zero, &extents, site);
        let initial = outer.add_uniform(zero, &extents, site);
        // What the stage before has come to where it ends.
        let mut ended: Option<(NodeId, NodeId)> = None;
        let places = stages.entry(carry).or_default();
        for end in ends.iter().map(Some).chain([None]) {
            let (sum, at) = match end {
                Some(_) => inner.add_carry(initial, ty.clone()),
                None => (own, carry),
            };
            let graph = &mut inner.graph;
            let next = match ended {
                Some((before, end)) => {
                    let more = graph.add(Op::Map(ScalarFn::Add), &[sum, before], site);
                    graph.add(Op::Map(ScalarFn::Select), &[end, more, sum], site)
                }
                None => summands.iter().fold(sum, |sum, (positive, summand)| {
                    let f = if *positive { ScalarFn::Add } else { ScalarFn::Sub };
                    graph.add(Op::Map(f), &[sum, *summand], graph.node(*summand).site)
                }),
            };
            graph.updates[at].1 = next;
            if let Some(&end) = end {
                let dims = known_dims(&extents);
                let end = graph.add(Op::Broadcast { axes: SmallVec::new(), dims }, &[end], site);
                graph.updates[at].1 = graph.add(Op::Map(ScalarFn::Select), &[end, nothing, next], site);
                ended = Some((next, end));
                places.push(at);
            }
        }
    }
    let mut wanted = group.wanted();
    wanted.extend(stages.values().flatten().map(|at| ScanResult::Last(*at as u16)));
    let written = inner.write(outer, &wanted, near);
    let mut pairs = Vec::new();
    for &(old, result) in &group.members {
        let mut value = written.get(result)?;
        if let ScanResult::Last(at) = result
            && let Some(places) = stages.get(&usize::from(at))
        {
            let mut rest: Option<NodeId> = None;
            for place in places {
                let part = written.get(ScanResult::Last(*place as u16))?;
                rest = Some(match rest {
                    Some(rest) => outer.add(Op::Map(ScalarFn::Add), &[rest, part], site),
                    None => part,
                });
            }
            if let Some(rest) = rest {
                value = outer.add(Op::Map(ScalarFn::Add), &[value, rest], site);
            }
        }
        pairs.push((old, value));
    }
    Some(pairs)
}
