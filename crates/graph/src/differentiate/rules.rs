//! The rules of differentiation, one arm an operator: how the cotangent of a node's value becomes that of an operand.
//!
//! A rule never accumulates and never looks at who uses what; the walk of [`super`] alone does. Scans have their own
//! file, as all results of one are pulled back together.

use std::collections::HashMap;

use smallvec::{SmallVec, smallvec};

use super::flat::{Flat, is_flat, uniform};
use crate::diagnostic::Site;
use crate::dtype::Literal;
use crate::graph::{Graph, NodeId, Operands};
use crate::op::{ConvAxis, Fold, Op, Start, WindowAxis, Write, known_dims};
use crate::scalar::ScalarFn;
use crate::shape::Axes;

/// Short names for building nodes, so that the rules read as mathematics. Operands have equal shapes.
pub(super) struct Rules<'a> {
    pub(super) graph: &'a mut Graph,
    pub(super) site: Option<Site>,
    /// Parameters of a scan's step that are flat where they are zero ([`is_flat`]).
    pub(super) flat: Flat,
}

impl<'a> Rules<'a> {
    pub(super) fn new(graph: &'a mut Graph, site: Option<Site>) -> Rules<'a> {
        Rules { graph, site, flat: Flat::default() }
    }

    pub(super) fn op(&mut self, op: Op, operands: &[NodeId]) -> NodeId {
        self.graph.add(op, operands, self.site)
    }

    pub(super) fn map(&mut self, f: ScalarFn, operands: &[NodeId]) -> NodeId {
        self.op(Op::Map(f), operands)
    }

    pub(super) fn add(&mut self, x: NodeId, y: NodeId) -> NodeId {
        self.map(ScalarFn::Add, &[x, y])
    }

    pub(super) fn sub(&mut self, x: NodeId, y: NodeId) -> NodeId {
        self.map(ScalarFn::Sub, &[x, y])
    }

    pub(super) fn mul(&mut self, x: NodeId, y: NodeId) -> NodeId {
        self.map(ScalarFn::Mul, &[x, y])
    }

    pub(super) fn div(&mut self, x: NodeId, y: NodeId) -> NodeId {
        self.map(ScalarFn::Div, &[x, y])
    }

    pub(super) fn neg(&mut self, x: NodeId) -> NodeId {
        self.map(ScalarFn::Neg, &[x])
    }

    pub(super) fn sqr(&mut self, x: NodeId) -> NodeId {
        self.map(ScalarFn::Sqr, &[x])
    }

    /// `1 - x^2` as `(1 - x) (1 + x)`, which keeps its digits where `x` is nearly 1 or -1.
    fn one_minus_square(&mut self, x: NodeId) -> NodeId {
        let one = self.like(x, 1.0);
        let (below, above) = (self.sub(one, x), self.add(one, x));
        self.mul(below, above)
    }

    pub(super) fn select(&mut self, condition: NodeId, then: NodeId, otherwise: NodeId) -> NodeId {
        self.map(ScalarFn::Select, &[condition, then, otherwise])
    }

    /// The extents, all of which are known: [`super::differentiate`] refuses other graphs.
    pub(super) fn extents(&self, id: NodeId) -> SmallVec<[usize; 4]> {
        self.graph.ty(id).shape.iter().filter_map(|extent| extent.known()).collect()
    }

    /// The same number everywhere, of the type of `x`.
    pub(super) fn like(&mut self, x: NodeId, value: f64) -> NodeId {
        let shape = self.extents(x);
        let literal = Literal::from_f64(value, self.graph.ty(x).dtype);
        self.graph.add_uniform(literal, &shape, self.site)
    }

    pub(super) fn reshape(&mut self, x: NodeId, shape: &[usize]) -> NodeId {
        self.op(Op::Reshape(known_dims(shape)), &[x])
    }

    /// `x`, reduced over `axes` of a tensor of that shape, repeated to the shape again.
    pub(super) fn spread(&mut self, x: NodeId, axes: Axes, shape: &[usize]) -> NodeId {
        let axes = axes.others(shape.len()).map(|axis| axis as u8).collect();
        self.op(Op::Broadcast { axes, dims: known_dims(shape) }, &[x])
    }

    /// The elements along an axis from the last to the first.
    fn reversed(&mut self, x: NodeId, axis: usize) -> NodeId {
        let mut window: Vec<WindowAxis> = self.extents(x).iter().map(|&n| WindowAxis::whole(n)).collect();
        let len = window[axis].len;
        if len < 2 {
            return x;
        }
        window[axis] = WindowAxis { start: Start::Known(len - 1), len, step: -1 };
        self.op(Op::Window(window.into()), &[x])
    }

    /// Swaps an axis with the next one.
    fn swapped(&mut self, x: NodeId, axis: usize) -> NodeId {
        let mut permutation: SmallVec<[u8; 8]> = (0..self.graph.ty(x).rank() as u8).collect();
        permutation.swap(axis, axis + 1);
        self.op(Op::Permute(permutation), &[x])
    }

    /// Swaps the last two axes.
    pub(super) fn transpose(&mut self, x: NodeId) -> NodeId {
        self.swapped(x, self.graph.ty(x).rank() - 2)
    }

    /// `rows` where index `m` is the last of its value, else zeros: of equal indices only the last one's row stands in
    /// what a scatter into `x` gave. Every index writes its number, and reads back who wrote last.
    pub(super) fn of_last_writers(&mut self, batch: u8, x: NodeId, indices: NodeId, rows: NodeId) -> NodeId {
        let lead = usize::from(batch);
        let shape = self.extents(indices);
        let count = shape[lead];
        if count <= 1 {
            return rows;
        }
        let numbers = self.op(Op::Iota(known_dims(&[count])), &[]);
        let numbers = self.op(Op::Broadcast { axes: smallvec![batch], dims: known_dims(&shape) }, &[numbers]);
        let places = self.extents(x);
        let nobody = self.graph.add_uniform(Literal::I64(0), &places[..=lead], self.site);
        let writers = self.op(Op::Scatter { batch, write: Write::Set }, &[nobody, indices, numbers]);
        let writers = self.op(Op::Gather { batch }, &[writers, indices]);
        let last = self.map(ScalarFn::Eq, &[writers, numbers]);
        let extents = self.extents(rows);
        let within: Axes = (lead + 1..extents.len()).collect();
        let last = self.spread(last, within, &extents);
        let zero = self.like(rows, 0.0);
        self.select(last, rows, zero)
    }

    /// For each element the product of the others along `axes`, of the shape of `x`.
    ///
    /// Nothing is divided, so zeros, infinities and derivatives of any order need no care.
    fn products_of_others(&mut self, x: NodeId, axes: Axes) -> NodeId {
        let shape = self.extents(x);
        let Some(last) = axes.iter().last() else { return self.like(x, 1.0) };
        // The last axes that stand side by side are one axis.
        let mut first = last;
        while first > 0 && axes.contains(first - 1) {
            first -= 1;
        }
        let size = |range: &[usize]| range.iter().product::<usize>();
        let flat = [size(&shape[..first]), size(&shape[first..=last]), size(&shape[last + 1..])];
        let flattened = self.reshape(x, &flat);
        let others = self.others_along_middle(flattened, flat);
        let others = self.reshape(others, &shape);
        let rest: Axes = axes.iter().filter(|axis| *axis < first).collect();
        if rest.is_empty() {
            return others;
        }
        let side_by_side: Axes = (first..=last).collect();
        let joined = self.op(Op::Reduce(Fold::Prod, side_by_side), &[x]);
        let outer = self.products_of_others(joined, rest);
        let outer = self.spread(outer, side_by_side, &shape);
        self.mul(outer, others)
    }

    /// The same along axis 1 of three: of each half those of the product of both, times the other half. That takes as
    /// many nodes as the logarithm of the extent and a few operations an element.
    fn others_along_middle(&mut self, x: NodeId, shape: [usize; 3]) -> NodeId {
        let [lead, n, inner] = shape;
        if n < 2 {
            return self.like(x, 1.0);
        }
        if n % 2 == 1 {
            let ones = Literal::from_f64(1.0, self.graph.ty(x).dtype);
            let ones = self.graph.add_uniform(ones, &[lead, 1, inner], self.site);
            let even = self.op(Op::Concat(1), &[x, ones]);
            let others = self.others_along_middle(even, [lead, n + 1, inner]);
            let whole = shape.map(WindowAxis::whole);
            return self.op(Op::Window(Box::new(whole)), &[others]);
        }
        let half = n / 2;
        let halves = [lead, 2, half, inner];
        let x = self.reshape(x, &halves);
        let mut swapped = halves.map(WindowAxis::whole);
        swapped[1] = WindowAxis { start: Start::Known(1), len: 2, step: -1 };
        let mut others = self.op(Op::Window(Box::new(swapped)), &[x]);
        if half > 1 {
            let products = self.op(Op::Reduce(Fold::Prod, Axes::one(1)), &[x]);
            let outer = self.others_along_middle(products, [lead, half, inner]);
            let outer = self.spread(outer, Axes::one(1), &halves);
            others = self.mul(outer, others);
        }
        self.reshape(others, &shape)
    }

    /// Where the infinite slope of a root meets a slope of zero, as that of `sqrt(sum(sqr(x)))` at 0: what holds there, and
    /// only there. The gradient is 0 then, as that of `abs`. `None` where this cannot be.
    ///
    /// Whoever divides has to replace the divisor too: a quotient that is thrown away still has a derivative.
    fn root_of_flat(&mut self, f: ScalarFn, x: NodeId, exponent: NodeId) -> Option<NodeId> {
        let constant = uniform(self.graph, exponent).map(Literal::to_f64);
        let always = f == ScalarFn::Sqrt || constant.is_some_and(|y| 0.0 < y && y < 1.0);
        if !always && constant.is_some() || !is_flat(self.graph, x, &self.flat) {
            return None;
        }
        let zero = self.like(x, 0.0);
        let vanishes = self.map(ScalarFn::Eq, &[x, zero]);
        if always {
            return Some(vanishes);
        }
        let one = self.like(exponent, 1.0);
        let above = self.map(ScalarFn::Gt, &[exponent, zero]);
        let below = self.map(ScalarFn::Lt, &[exponent, one]);
        let root = self.map(ScalarFn::And, &[above, below]);
        Some(self.map(ScalarFn::And, &[root, vanishes]))
    }

    pub(super) fn accumulate(&mut self, cotangents: &mut HashMap<NodeId, NodeId>, id: NodeId, part: NodeId) {
        let total = match cotangents.get(&id) {
            Some(&sum) => self.add(sum, part),
            None => part,
        };
        cotangents.insert(id, total);
    }
}

/// The cotangent of operand `index` of a node, given that of its value; `None` where it is zero.
pub(super) fn pullback(g: &mut Rules<'_>, id: NodeId, c: NodeId, index: usize) -> Option<NodeId> {
    let node = g.graph.node(id).clone();
    let x = *node.operands.get(index)?;
    let shape = g.extents(x);
    match &node.op {
        Op::Map(f) => pullback_map(g, *f, id, &node.operands, c, index),
        Op::Cast(_) => {
            let dtype = g.graph.ty(x).dtype;
            dtype.is_float().then(|| g.op(Op::Cast(dtype), &[c]))
        }
        Op::Reduce(fold, axes) => pullback_reduce(g, *fold, *axes, id, x, c),
        Op::Mean(axes) => {
            let count = g.like(c, axes.iter().map(|axis| shape[axis] as f64).product());
            let share = g.div(c, count);
            Some(g.spread(share, *axes, &shape))
        }
        // Each element goes into the sums behind it.
        Op::Cumsum(axis) => {
            let from_last = g.reversed(c, usize::from(*axis));
            let sums = g.op(Op::Cumsum(*axis), &[from_last]);
            Some(g.reversed(sums, usize::from(*axis)))
        }
        Op::Dot => {
            let other = g.transpose(node.operands[1 - index]);
            Some(if index == 0 { g.op(Op::Dot, &[c, other]) } else { g.op(Op::Dot, &[other, c]) })
        }
        Op::Conv(axes) => {
            let lead = shape.len() - 2 - axes.len();
            let (input, filters) = (g.extents(node.operands[0]), g.extents(node.operands[1]));
            let each = |of: fn(&ConvAxis, usize, usize) -> ConvAxis| {
                let spatial = input[lead + 2..].iter().zip(&filters[lead + 2..]);
                Op::Conv(
                    axes.iter()
                        .zip(spatial)
                        .map(|(axis, (input, filter))| of(axis, *input, *filter))
                        .collect(),
                )
            };
            if index == 0 {
                let reversed = (lead + 2..shape.len()).fold(node.operands[1], |f, axis| g.reversed(f, axis));
                let turned = g.swapped(reversed, lead);
                return Some(g.op(each(ConvAxis::by_input), &[c, turned]));
            }
            let (images, slopes) = (g.swapped(node.operands[0], lead), g.swapped(c, lead));
            let turned = g.op(each(ConvAxis::by_filters), &[images, slopes]);
            Some(g.swapped(turned, lead))
        }
        Op::Broadcast { axes, .. } => {
            let result = g.extents(id);
            let own = |axis: usize| axes.iter().position(|&a| usize::from(a) == axis);
            let summed: Axes = (0..result.len())
                .filter(|&axis| own(axis).is_none_or(|i| shape[i] != result[axis]))
                .collect();
            let sum = if summed.is_empty() { c } else { g.op(Op::Reduce(Fold::Sum, summed), &[c]) };
            Some(if g.extents(sum) == shape { sum } else { g.reshape(sum, &shape) })
        }
        Op::Reshape(_) => Some(g.reshape(c, &shape)),
        Op::Permute(permutation) => {
            let mut inverse: SmallVec<[u8; 8]> = smallvec![0; permutation.len()];
            for (to, &from) in permutation.iter().enumerate() {
                inverse[usize::from(from)] = to as u8;
            }
            Some(g.op(Op::Permute(inverse), &[c]))
        }
        Op::Window(axes) => {
            let zeros = g.like(x, 0.0);
            let mut operands: Operands = smallvec![zeros, c];
            operands.extend_from_slice(&node.operands[1..]);
            Some(g.op(Op::SetWindow(axes.clone(), Write::Add), &operands))
        }
        Op::SetWindow(axes, write) => {
            let mut operands: Operands = smallvec![c];
            if index == 0 && *write == Write::Add {
                return Some(c);
            }
            if index == 0 {
                operands.push(g.like(node.operands[1], 0.0));
            }
            operands.extend_from_slice(&node.operands[2..]);
            Some(if index == 0 {
                g.op(Op::SetWindow(axes.clone(), Write::Set), &operands)
            } else {
                g.op(Op::Window(axes.clone()), &operands)
            })
        }
        Op::Concat(axis) => {
            let axis = usize::from(*axis);
            let start = node.operands[..index].iter().map(|o| g.extents(*o)[axis]).sum();
            let mut window: Vec<WindowAxis> = shape.iter().map(|&n| WindowAxis::whole(n)).collect();
            window[axis].start = Start::Known(start);
            Some(g.op(Op::Window(window.into()), &[c]))
        }
        Op::Gather { batch } => {
            let zeros = g.like(x, 0.0);
            Some(g.op(Op::Scatter { batch: *batch, write: Write::Add }, &[zeros, node.operands[1], c]))
        }
        Op::Scatter { batch, write } => match (index, write) {
            (0, Write::Add) => Some(c),
            (0, Write::Set) => {
                let zeros = g.like(node.operands[2], 0.0);
                Some(g.op(Op::Scatter { batch: *batch, write: Write::Set }, &[c, node.operands[1], zeros]))
            }
            (_, Write::Add) => Some(g.op(Op::Gather { batch: *batch }, &[c, node.operands[1]])),
            (_, Write::Set) => {
                let rows = g.op(Op::Gather { batch: *batch }, &[c, node.operands[1]]);
                Some(g.of_last_writers(*batch, node.operands[0], node.operands[1], rows))
            }
        },
        // Specialisation and this very walk have removed the symbolic ones; nothing flows through the others.
        Op::Leaf(_)
        | Op::Literal(_)
        | Op::Iota(_)
        | Op::Extent(_)
        | Op::ArgMax(_)
        | Op::Slice(_)
        | Op::SetSlice(..)
        | Op::Random { .. }
        | Op::StopGradient
        | Op::Scan(_)
        | Op::Grad(_) => None,
    }
}

fn pullback_reduce(
    g: &mut Rules<'_>,
    fold: Fold,
    axes: Axes,
    id: NodeId,
    x: NodeId,
    c: NodeId,
) -> Option<NodeId> {
    let shape = g.extents(x);
    let c = g.spread(c, axes, &shape);
    match fold {
        Fold::Sum => Some(c),
        Fold::Prod => {
            let others = g.products_of_others(x, axes);
            Some(g.mul(c, others))
        }
        Fold::Max | Fold::Min => {
            let extreme = g.spread(id, axes, &shape);
            let (zero, one) = (g.like(x, 0.0), g.like(x, 1.0));
            let tied = g.map(ScalarFn::Eq, &[x, extreme]);
            let mask = g.select(tied, one, zero);
            let count = g.op(Op::Reduce(Fold::Sum, axes), &[mask]);
            let count = g.spread(count, axes, &shape);
            let share = g.div(mask, count);
            Some(g.mul(c, share))
        }
        Fold::All | Fold::Any => None,
    }
}
fn pullback_map(
    g: &mut Rules<'_>,
    f: ScalarFn,
    out: NodeId,
    operands: &[NodeId],
    c: NodeId,
    index: usize,
) -> Option<NodeId> {
    let x = operands[0];
    let y = operands.get(1).copied().unwrap_or(x);
    let first = index == 0;
    Some(match f {
        ScalarFn::Add => c,
        ScalarFn::Sub => {
            if first {
                c
            } else {
                g.neg(c)
            }
        }
        ScalarFn::Mul => g.mul(c, if first { y } else { x }),
        ScalarFn::Div if first => g.div(c, y),
        ScalarFn::Div => {
            let scaled = g.mul(c, out);
            let quotient = g.div(scaled, y);
            g.neg(quotient)
        }
        ScalarFn::Mod if first => c,
        ScalarFn::Mod => {
            let quotient = g.map(ScalarFn::FloorDiv, &[x, y]);
            let scaled = g.mul(c, quotient);
            g.neg(scaled)
        }
        ScalarFn::Pow if first => {
            // y x^(y-1), and 0 for y = 0 whatever x is.
            let (zero, one) = (g.like(y, 0.0), g.like(y, 1.0));
            let lower = g.sub(y, one);
            let root = g.root_of_flat(f, x, y);
            let base = root.map_or(x, |root| g.select(root, one, x));
            let power = g.map(ScalarFn::Pow, &[base, lower]);
            let slope = g.mul(y, power);
            let constant = g.map(ScalarFn::Eq, &[y, zero]);
            let slope = g.select(constant, zero, slope);
            let slope = root.map_or(slope, |root| g.select(root, zero, slope));
            g.mul(c, slope)
        }
        ScalarFn::Pow => {
            // x^y log x, and 0 for x = 0.
            let zero = g.like(x, 0.0);
            let logarithm = g.map(ScalarFn::Log, &[x]);
            let slope = g.mul(out, logarithm);
            let vanishes = g.map(ScalarFn::Eq, &[x, zero]);
            let slope = g.select(vanishes, zero, slope);
            g.mul(c, slope)
        }
        ScalarFn::Max | ScalarFn::Min => {
            let wins = g.map(if f == ScalarFn::Max { ScalarFn::Ge } else { ScalarFn::Le }, &[x, y]);
            let zero = g.like(c, 0.0);
            if first { g.select(wins, c, zero) } else { g.select(wins, zero, c) }
        }
        ScalarFn::Neg => g.neg(c),
        ScalarFn::Abs => {
            let sign = g.map(ScalarFn::Sign, &[x]);
            g.mul(c, sign)
        }
        ScalarFn::Sqr => {
            let two = g.like(x, 2.0);
            let slope = g.mul(two, x);
            g.mul(c, slope)
        }
        ScalarFn::Sqrt => {
            let half = g.like(x, 0.5);
            let slope = match g.root_of_flat(f, x, y) {
                None => g.div(half, out),
                Some(root) => {
                    let (zero, one) = (g.like(x, 0.0), g.like(x, 1.0));
                    let divisor = g.select(root, one, out);
                    let slope = g.div(half, divisor);
                    g.select(root, zero, slope)
                }
            };
            g.mul(c, slope)
        }
        ScalarFn::Recip => {
            let square = g.sqr(out);
            let scaled = g.mul(c, square);
            g.neg(scaled)
        }
        ScalarFn::Exp => g.mul(c, out),
        ScalarFn::Exp2 => {
            let ln2 = g.like(x, std::f64::consts::LN_2);
            let slope = g.mul(out, ln2);
            g.mul(c, slope)
        }
        ScalarFn::Expm1 => {
            let slope = g.map(ScalarFn::Exp, &[x]);
            g.mul(c, slope)
        }
        ScalarFn::Log => g.div(c, x),
        ScalarFn::Log2 | ScalarFn::Log10 => {
            let base = if f == ScalarFn::Log2 { std::f64::consts::LN_2 } else { std::f64::consts::LN_10 };
            let base = g.like(x, base);
            let scaled = g.mul(x, base);
            g.div(c, scaled)
        }
        ScalarFn::Log1p => {
            let one = g.like(x, 1.0);
            let shifted = g.add(one, x);
            g.div(c, shifted)
        }
        ScalarFn::XLogY => {
            // log y and x / y, of a y that has them where x is 0.
            let (zero, one) = (g.like(x, 0.0), g.like(y, 1.0));
            let vanishes = g.map(ScalarFn::Eq, &[x, zero]);
            if first {
                let outside = g.map(ScalarFn::Le, &[y, zero]);
                let either = g.map(ScalarFn::And, &[vanishes, outside]);
                let inside = g.select(either, one, y);
                let slope = g.map(ScalarFn::Log, &[inside]);
                g.mul(c, slope)
            } else {
                let divisor = g.select(vanishes, one, y);
                let slope = g.div(x, divisor);
                g.mul(c, slope)
            }
        }
        ScalarFn::Log1mexp => {
            // d log(1 - e^x) = -1 / (e^-x - 1)
            let minus = g.neg(x);
            let below = g.map(ScalarFn::Expm1, &[minus]);
            let quotient = g.div(c, below);
            g.neg(quotient)
        }
        ScalarFn::Sin => {
            let slope = g.map(ScalarFn::Cos, &[x]);
            g.mul(c, slope)
        }
        ScalarFn::Cos => {
            let slope = g.map(ScalarFn::Sin, &[x]);
            let scaled = g.mul(c, slope);
            g.neg(scaled)
        }
        ScalarFn::Tan => {
            let (one, square) = (g.like(x, 1.0), g.sqr(out));
            let slope = g.add(one, square);
            g.mul(c, slope)
        }
        ScalarFn::Asin | ScalarFn::Acos => {
            let rest = g.one_minus_square(x);
            let root = g.map(ScalarFn::Sqrt, &[rest]);
            let quotient = g.div(c, root);
            if f == ScalarFn::Asin { quotient } else { g.neg(quotient) }
        }
        ScalarFn::Atan => {
            let (one, square) = (g.like(x, 1.0), g.sqr(x));
            let norm = g.add(one, square);
            g.div(c, norm)
        }
        ScalarFn::Atan2 => {
            let (xx, yy) = (g.sqr(x), g.sqr(y));
            let norm = g.add(xx, yy);
            let scaled = g.mul(c, if first { y } else { x });
            let quotient = g.div(scaled, norm);
            if first { quotient } else { g.neg(quotient) }
        }
        ScalarFn::Sinh => {
            let slope = g.map(ScalarFn::Cosh, &[x]);
            g.mul(c, slope)
        }
        ScalarFn::Cosh => {
            let slope = g.map(ScalarFn::Sinh, &[x]);
            g.mul(c, slope)
        }
        ScalarFn::Tanh => {
            // Of the value alone, so that a scan keeps nothing else for it. Where the argument is at hand, rules find the form
            // that keeps its digits where the tanh is nearly 1.
            let (one, square) = (g.like(x, 1.0), g.sqr(out));
            let slope = g.sub(one, square);
            g.mul(c, slope)
        }
        ScalarFn::Asinh => {
            let (one, square) = (g.like(x, 1.0), g.sqr(x));
            let inner = g.add(square, one);
            let root = g.map(ScalarFn::Sqrt, &[inner]);
            g.div(c, root)
        }
        ScalarFn::Acosh => {
            let one = g.like(x, 1.0);
            let (below, above) = (g.sub(x, one), g.add(x, one));
            let inner = g.mul(below, above);
            let root = g.map(ScalarFn::Sqrt, &[inner]);
            g.div(c, root)
        }
        ScalarFn::Atanh => {
            let rest = g.one_minus_square(x);
            g.div(c, rest)
        }
        ScalarFn::Sigmoid => {
            // 1 - s(x) is s(-x), which keeps its digits where the sigmoid is nearly 1.
            let minus = g.neg(x);
            let rest = g.map(ScalarFn::Sigmoid, &[minus]);
            let slope = g.mul(out, rest);
            g.mul(c, slope)
        }
        ScalarFn::Softplus => {
            let slope = g.map(ScalarFn::Sigmoid, &[x]);
            g.mul(c, slope)
        }
        ScalarFn::Erf | ScalarFn::Erfc => {
            let scale = std::f64::consts::FRAC_2_SQRT_PI;
            let scale = g.like(x, if f == ScalarFn::Erf { scale } else { -scale });
            let square = g.sqr(x);
            let minus = g.neg(square);
            let bell = g.map(ScalarFn::Exp, &[minus]);
            let slope = g.mul(scale, bell);
            g.mul(c, slope)
        }
        ScalarFn::Erfinv => {
            let scale = g.like(x, 1.0 / std::f64::consts::FRAC_2_SQRT_PI);
            let square = g.sqr(out);
            let bell = g.map(ScalarFn::Exp, &[square]);
            let slope = g.mul(scale, bell);
            g.mul(c, slope)
        }
        ScalarFn::Select => {
            let zero = g.like(c, 0.0);
            if index == 1 { g.select(x, c, zero) } else { g.select(x, zero, c) }
        }
        ScalarFn::FloorDiv
        | ScalarFn::Sign
        | ScalarFn::Floor
        | ScalarFn::Ceil
        | ScalarFn::Trunc
        | ScalarFn::Round
        | ScalarFn::Lt
        | ScalarFn::Le
        | ScalarFn::Gt
        | ScalarFn::Ge
        | ScalarFn::Eq
        | ScalarFn::Ne
        | ScalarFn::And
        | ScalarFn::Or
        | ScalarFn::Xor
        | ScalarFn::Not
        | ScalarFn::IsNan
        | ScalarFn::IsInf => return None,
    })
}
