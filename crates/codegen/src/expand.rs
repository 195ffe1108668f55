//! Operators that become several, whose kernels are faster and whose sums lose less to rounding.
#![warn(clippy::wildcard_enum_match_arm)]

use hypatia_graph::op::{WindowAxis, known_dims};
use hypatia_graph::{Axes, DType, Fold, Graph, Literal, NodeId, Op, ScalarFn, Site};
use smallvec::SmallVec;

/// The graph with large reductions in two stages, means as sums, and cumulative sums as sums of blocks.
pub fn expand(graph: &Graph) -> Graph {
    graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let expanded = if let Op::Reduce(fold, axes) = node.op {
            two_stages(out, fold, axes, operands[0], node.site)
        } else if let Op::Mean(axes) = node.op {
            mean(out, axes, operands[0], node.site)
        } else if let Op::Cumsum(axis) = node.op {
            cumsum(out, usize::from(axis), operands[0], node.site)
        } else {
            None
        };
        expanded.unwrap_or_else(|| out.add_like(from, id, operands))
    })
}

/// A large reduction over several axes as two: over the last axis first, then over the partial results. The first has
/// rows that are independent, and sums of rows lose less to rounding than one long sum.
fn two_stages(out: &mut Graph, fold: Fold, axes: Axes, x: NodeId, site: Option<Site>) -> Option<NodeId> {
    let extents = out.ty(x).extents()?;
    let last = extents.len().checked_sub(1)?;
    let several = axes.contains(last) && axes.len() > 1;
    let large = extents.iter().product::<usize>() > 1 << 14 && extents[last] >= 16;
    if !several || !large || matches!(fold, Fold::All | Fold::Any) {
        return None;
    }
    let rows = out.add(Op::Reduce(fold, Axes::one(last)), &[x], site);
    let rest = axes.iter().filter(|axis| *axis != last).collect();
    Some(out.add(Op::Reduce(fold, rest), &[rows], site))
}

/// A sum over axes, of however many elements.
fn sum(out: &mut Graph, axes: Axes, x: NodeId, site: Option<Site>) -> NodeId {
    two_stages(out, Fold::Sum, axes, x, site)
        .unwrap_or_else(|| out.add(Op::Reduce(Fold::Sum, axes), &[x], site))
}

/// A mean as the sum of shares, which cannot overflow, corrected by the mean of what is left: of elements close to each
/// other all digits of that are right, so that the result never leaves their range.
fn mean(out: &mut Graph, axes: Axes, x: NodeId, site: Option<Site>) -> Option<NodeId> {
    let (dtype, extents) = (out.ty(x).dtype, out.ty(x).extents()?);
    let rest: SmallVec<[usize; 4]> = axes.others(extents.len()).map(|axis| extents[axis]).collect();
    let count = axes.iter().map(|axis| extents[axis] as f64).product::<f64>();
    let number = |out: &mut Graph, value: f64, shape: &[usize]| {
        out.add_uniform(Literal::from_f64(value, dtype), shape, site)
    };
    if count == 0.0 {
        return Some(number(out, f64::NAN, &rest));
    }
    let map = |out: &mut Graph, f: ScalarFn, operands: &[NodeId]| out.add(Op::Map(f), operands, site);
    let share = number(out, 1.0 / count, &extents);
    let shares = map(out, ScalarFn::Mul, &[x, share]);
    let mean = sum(out, axes, shares, site);
    if count == 1.0 {
        return Some(mean);
    }
    // Where all elements are nearly the largest number, roundings may have gone beyond it.
    let largest = if dtype == DType::F32 { f64::from(f32::MAX) } else { f64::MAX };
    let [most, least] = [largest, -largest].map(|end| number(out, end, &rest));
    let centre = map(out, ScalarFn::Min, &[mean, most]);
    let centre = map(out, ScalarFn::Max, &[centre, least]);
    let kept = axes.others(extents.len()).map(|axis| axis as u8).collect();
    let spread = out.add(Op::Broadcast { axes: kept, dims: known_dims(&extents) }, &[centre], site);
    let left = map(out, ScalarFn::Sub, &[x, spread]);
    let left = sum(out, axes, left, site);
    let [total, infinity] = [count, f64::INFINITY].map(|value| number(out, value, &rest));
    let correction = map(out, ScalarFn::Div, &[left, total]);
    let corrected = map(out, ScalarFn::Add, &[centre, correction]);
    let size = map(out, ScalarFn::Abs, &[left]);
    let finite = map(out, ScalarFn::Lt, &[size, infinity]);
    Some(map(out, ScalarFn::Select, &[finite, corrected, mean]))
}

/// Elements of a block. An element costs as many additions; smaller blocks need more levels, each with its own kernels.
const BLOCK: usize = 16;

/// Cumulative sums along an axis, the others joined to one on each side.
fn cumsum(out: &mut Graph, axis: usize, x: NodeId, site: Option<Site>) -> Option<NodeId> {
    let extents = out.ty(x).extents()?;
    let size = |extents: &[usize]| extents.iter().product();
    let flat = [size(&extents[..axis]), extents[axis], size(&extents[axis + 1..])];
    let x = out.add(Op::Reshape(known_dims(&flat)), &[x], site);
    let sums = sums_before(out, x, flat, ScalarFn::Le, site);
    Some(out.add(Op::Reshape(known_dims(&extents)), &[sums], site))
}

/// For each element along the middle axis the sum of those whose positions compare so with its own. Of many elements it
/// is the sum of the blocks before its own plus that within its own, so that no element goes into a sum before it.
fn sums_before(
    out: &mut Graph,
    x: NodeId,
    extents: [usize; 3],
    which: ScalarFn,
    site: Option<Site>,
) -> NodeId {
    let [lead, n, inner] = extents;
    if n <= 2 * BLOCK {
        let x = out.add(Op::Reshape(known_dims(&[lead, 1, n, inner])), &[x], site);
        let sums = sums_in_blocks(out, x, [lead, 1, n, inner], which, site);
        return out.add(Op::Reshape(known_dims(&extents)), &[sums], site);
    }
    let even = (BLOCK / 2..=2 * BLOCK).filter(|block| n.is_multiple_of(*block));
    let block = even.min_by_key(|block| block.abs_diff(BLOCK)).unwrap_or(BLOCK);
    let count = n.div_ceil(block);
    let blocks = [lead, count, block, inner];
    let whole = [lead, count * block, inner];
    let rest = count * block - n;
    let x = if rest == 0 {
        x
    } else {
        let zeros = out.add_uniform(Literal::from_i64(0, out.ty(x).dtype), &[lead, rest, inner], site);
        out.add(Op::Concat(1), &[x, zeros], site)
    };
    let x = out.add(Op::Reshape(known_dims(&blocks)), &[x], site);
    let totals = out.add(Op::Reduce(Fold::Sum, Axes::one(2)), &[x], site);
    let before = sums_before(out, totals, [lead, count, inner], ScalarFn::Lt, site);
    let axes = SmallVec::from_slice(&[0, 1, 3]);
    let before = out.add(Op::Broadcast { axes, dims: known_dims(&blocks) }, &[before], site);
    let own = sums_in_blocks(out, x, blocks, which, site);
    let sums = out.add(Op::Map(ScalarFn::Add), &[before, own], site);
    let sums = out.add(Op::Reshape(known_dims(&whole)), &[sums], site);
    out.add(Op::Window(Box::new(extents.map(WindowAxis::whole))), &[sums], site)
}

/// The same within each block, as one fold: what is not counted is replaced by 0. A product with a triangle of zeros and
/// ones would make a NaN of every infinity.
fn sums_in_blocks(
    out: &mut Graph,
    x: NodeId,
    [lead, count, block, inner]: [usize; 4],
    which: ScalarFn,
    site: Option<Site>,
) -> NodeId {
    let pairs = [lead, count, block, block, inner];
    let positions = out.add(Op::Iota(known_dims(&[block])), &[], site);
    let mut spread = |value: NodeId, axes: &[u8]| {
        out.add(Op::Broadcast { axes: axes.into(), dims: known_dims(&pairs) }, &[value], site)
    };
    let (of_sum, of_element) = (spread(positions, &[2]), spread(positions, &[3]));
    let elements = spread(x, &[0, 1, 3, 4]);
    let zeros = out.add_uniform(Literal::from_i64(0, out.ty(x).dtype), &pairs, site);
    let counts = out.add(Op::Map(which), &[of_element, of_sum], site);
    let counted = out.add(Op::Map(ScalarFn::Select), &[counts, elements, zeros], site);
    out.add(Op::Reduce(Fold::Sum, Axes::one(3)), &[counted], site)
}
