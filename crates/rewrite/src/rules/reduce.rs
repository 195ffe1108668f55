//! Reductions: of broadcasts, of reductions, of products with constants; positions of largest elements.

use hypatia_graph::op::{Op, known_dims};
use hypatia_graph::{Axes, Fold, Literal, ScalarFn};
use smallvec::SmallVec;

use super::algebra::rises;
use super::{Exactness::*, Found, Rule, function, rule};
use crate::pattern::Built;

#[rustfmt::skip] // One line a rule.
pub(crate) fn rules() -> Vec<Rule> {
    vec![
        function("reduce_nothing", Exact, "(reduce:r ?x)", reduce_nothing),
        // Sums in another order overflow elsewhere.
        function("reduce_reduce_any_order", Exact, "(reduce:r (reduce:s ?x))", |found| in_any_order(found).then(|| reduce_reduce(found))?).under_strict(),
        function("reduce_reduce", Real, "(reduce:r (reduce:s ?x))", reduce_reduce),
        function("reduce_unit_axes", Exact, "(reduce:r ?x)", reduce_unit_axes),
        function("sum_broadcast_integer", Exact, "(sum:r (broadcast:b ?x)) if discrete ?x", sum_broadcast).under_strict(),
        function("sum_broadcast", Real, "(sum:r (broadcast:b ?x))", sum_broadcast),
        function("fold_broadcast", Exact, "(reduce:r (broadcast:b ?x))", fold_broadcast),
        function("reduce_permute_same_order", Exact, "(reduce:r (permute:p ?x))", reduce_permute_same_order).under_strict(),
        function("reduce_permute", Real, "(reduce:r (permute:p ?x))", reduce_permute),
        function("reduce_all_reshaped", Rounding, "(reduce:r (reshape:s ?x))", reduce_all_reshaped),
        // What is known of sums serves means too; the mean itself is more accurate, see `risk`.
        function("mean_as_sum", Real, "(mean:r ?x)", mean_as_sum),
        // Factors and signs leave sums.
        rule("sum_neg_integer", Exact, "(sum:r (neg ?x)) => (neg (:r ?x)) if discrete ?x").under_strict(),
        rule("sum_neg", Real, "(sum:r (neg ?x)) => (neg (:r ?x))"),
        function("sum_constant_times", Real, "(sum:r (mul ?c ?x)) if constant ?c, finite ?c, float ?c", sum_constant_times),
        function("sum_over_constant", Real, "(sum:r (div ?x ?c)) if constant ?c, finite ?c, nonzero ?c", sum_over_constant),
        function("sum_broadcast_times", Real, "(sum:r (mul (broadcast:b ?c) ?x))", sum_broadcast_times),
        function("sum_over_broadcast", Real, "(sum:r (div ?x (broadcast:b ?c)))", sum_over_broadcast),
        function("max_neg", Exact, "(max:r (neg ?x)) if float ?x", max_neg),
        function("min_neg", Exact, "(min:r (neg ?x)) if float ?x", min_neg),
        // The largest of a rising function is the function of the largest.
        function("max_of_rising", Real, "(max:r (unary:f ?x))", largest_of_rising),
        function("min_of_rising", Real, "(min:r (unary:f ?x))", largest_of_rising),
        // The place of the largest does not change under rising functions, shifts and scales, unless integers wrap.
        function("argmax_of_rising", Real, "(argmax:a (unary:f ?x))", argmax_of_rising),
        function("argmax_shifted", Real, "(argmax:a (sub ?x (broadcast:b ?m))) if float ?x", argmax_of_shifted),
        function("argmax_raised", Real, "(argmax:a (add ?x (broadcast:b ?m))) if float ?x", argmax_of_shifted),
        function("argmax_scaled", Real, "(argmax:a (div ?x (broadcast:b ?m))) if positive ?m", argmax_of_shifted),
        function("argmax_multiplied", Real, "(argmax:a (mul ?x (broadcast:b ?m))) if positive ?m, float ?x", argmax_of_shifted),
    ]
}

fn axes_of(op: &Op) -> Option<(Fold, Axes)> {
    if let Op::Reduce(fold, axes) = op { Some((*fold, *axes)) } else { None }
}

/// Whether the elements may be joined in any order and grouping: rounding and overflow of float sums and products
/// depend on it.
fn in_any_order(found: &Found<'_, '_>) -> bool {
    let float = found.result().ty.dtype.is_float();
    axes_of(found.op("r")).is_some_and(|(fold, _)| match fold {
        Fold::Sum | Fold::Prod => !float,
        Fold::Max | Fold::Min | Fold::All | Fold::Any => true,
    })
}

fn reduced(fold: Fold, axes: Axes, x: Built) -> Built {
    Built::node(Op::Reduce(fold, axes), x)
}

fn reduce_nothing(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, axes) = axes_of(found.op("r"))?;
    axes.is_empty().then(|| of_one_element(found, fold))
}

/// The elements, each reduced by itself. A sum begins with +0, which shows beside -0.
fn of_one_element(found: &Found<'_, '_>, fold: Fold) -> Built {
    let x = Built::Class(found.class("x"));
    let shows = fold == Fold::Sum && !found.data("x").facts.no_minus_zero() && found.egraph.analysis.strict;
    if shows { Built::map(ScalarFn::Add, [x, Built::Number(0.0)]) } else { x }
}

/// Reducing axes of extent 1 is a reshape.
fn reduce_unit_axes(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, axes) = axes_of(found.op("r"))?;
    let extents = found.extents("x");
    let (unit, long): (Vec<usize>, Vec<usize>) = axes.iter().partition(|&axis| extents[axis] == 1);
    if unit.is_empty() {
        return None;
    }
    let inner = reduced(fold, long.iter().copied().collect(), Built::Class(found.class("x")));
    let inner = if long.is_empty() { of_one_element(found, fold) } else { inner };
    Some(Built::node(Op::Reshape(known_dims(&found.result().extents())), inner))
}

/// A reduction of a reduction of the same kind is one.
fn reduce_reduce(found: &Found<'_, '_>) -> Option<Built> {
    let ((outer, outer_axes), (inner, inner_axes)) = (axes_of(found.op("r"))?, axes_of(found.op("s"))?);
    if outer != inner {
        return None;
    }
    let left: SmallVec<[usize; 8]> = inner_axes.others(found.data("x").ty.rank()).collect();
    let axes = inner_axes.iter().chain(outer_axes.iter().map(|axis| left[axis])).collect();
    Some(reduced(outer, axes, Built::Class(found.class("x"))))
}

/// What a reduction of a broadcast is: how often each element counts, the axes of the operand that are reduced, those
/// of the result that the operand's other axes become.
struct ReducedBroadcast {
    times: usize,
    inner: Axes,
    places: SmallVec<[u8; 8]>,
}

fn reduced_broadcast(found: &Found<'_, '_>) -> Option<ReducedBroadcast> {
    let (_, reduced) = axes_of(found.op("r"))?;
    let Op::Broadcast { axes, .. } = found.op("b") else { return None };
    let extents = found.extents("x");
    let outer = found.egraph[found.term("r").operands[0]].data.extents();
    let own = |axis: usize| axes.iter().position(|&a| usize::from(a) == axis);
    let repeated = |axis: usize| own(axis).is_none_or(|own| extents[own] != outer[axis]);
    let times = reduced.iter().filter(|&axis| repeated(axis)).map(|axis| outer[axis]).product();
    let inner = (0..extents.len()).filter(|&own| reduced.contains(usize::from(axes[own]))).collect();
    if !reduced.iter().any(repeated) || times == 0 {
        return None;
    }
    let left: SmallVec<[usize; 8]> = reduced.others(outer.len()).collect();
    let places = axes.iter().filter(|&&a| !reduced.contains(usize::from(a)));
    let places =
        places.filter_map(|&a| left.iter().position(|&l| l == usize::from(a))).map(|p| p as u8).collect();
    Some(ReducedBroadcast { times, inner, places })
}

fn rebuilt(found: &Found<'_, '_>, parts: &ReducedBroadcast, fold: Fold) -> Built {
    let x = Built::Class(found.class("x"));
    let inner = if parts.inner.is_empty() { x } else { reduced(fold, parts.inner, x) };
    Built::node(
        Op::Broadcast { axes: parts.places.clone(), dims: known_dims(&found.result().extents()) },
        inner,
    )
}

/// A sum over repeated elements is a multiple.
fn sum_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let parts = reduced_broadcast(found)?;
    let sum = rebuilt(found, &parts, Fold::Sum);
    let times = Literal::from_i64(parts.times as i64, found.result().ty.dtype);
    Some(Built::map(ScalarFn::Mul, [Built::Uniform(times), sum]))
}

/// Repetition does not show in the largest, smallest, all and any.
fn fold_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, _) = axes_of(found.op("r"))?;
    match fold {
        Fold::Max | Fold::Min | Fold::All | Fold::Any => {
            Some(rebuilt(found, &reduced_broadcast(found)?, fold))
        }
        Fold::Sum | Fold::Prod => None,
    }
}

/// As [`reduce_permute`], where the elements are met in the same order as before, or it does not matter.
fn reduce_permute_same_order(found: &Found<'_, '_>) -> Option<Built> {
    let (_, axes) = axes_of(found.op("r"))?;
    let Op::Permute(permutation) = found.op("p") else { return None };
    let places: SmallVec<[u8; 8]> = axes.iter().map(|axis| permutation[axis]).collect();
    let same = places.windows(2).all(|pair| pair[0] < pair[1]);
    (same || in_any_order(found)).then(|| reduce_permute(found))?
}

/// The axes are reduced where they stand.
fn reduce_permute(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, axes) = axes_of(found.op("r"))?;
    let Op::Permute(permutation) = found.op("p") else { return None };
    let inner: Axes = axes.iter().map(|axis| usize::from(permutation[axis])).collect();
    let kept: SmallVec<[usize; 8]> = inner.others(permutation.len()).collect();
    let order = axes.others(permutation.len()).map(|axis| usize::from(permutation[axis]));
    let order: SmallVec<[u8; 8]> =
        order.filter_map(|axis| kept.iter().position(|&k| k == axis)).map(|axis| axis as u8).collect();
    Some(Built::node(Op::Permute(order), reduced(fold, inner, Built::Class(found.class("x")))))
}

/// Reducing all elements does not care for their arrangement.
fn reduce_all_reshaped(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, axes) = axes_of(found.op("r"))?;
    let outer = found.egraph[found.term("r").operands[0]].data.ty.rank();
    let all = Axes::all(found.data("x").ty.rank());
    (axes.len() == outer).then(|| reduced(fold, all, Built::Class(found.class("x"))))
}

fn mean_as_sum(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Mean(axes) = found.op("r") else { return None };
    let ty = &found.data("x").ty;
    let count = axes.iter().try_fold(1.0, |count, axis| Some(count * ty.shape[axis].known()? as f64))?;
    let sum = reduced(Fold::Sum, *axes, Built::Class(found.class("x")));
    Some(Built::map(ScalarFn::Div, [sum, Built::Number(count)]))
}

fn sum_constant_times(found: &Found<'_, '_>) -> Option<Built> {
    let sum = Built::node(found.op("r").clone(), Built::Class(found.class("x")));
    let constant = found.data("c").constant?.to_f64();
    (found.data("x").constant.is_none()).then(|| Built::map(ScalarFn::Mul, [Built::Number(constant), sum]))
}

fn sum_over_constant(found: &Found<'_, '_>) -> Option<Built> {
    let sum = Built::node(found.op("r").clone(), Built::Class(found.class("x")));
    let constant = found.data("c").constant?.to_f64();
    (found.data("x").constant.is_none()).then(|| Built::map(ScalarFn::Div, [sum, Built::Number(constant)]))
}

/// A factor that is constant along the summed axes leaves the sum.
fn factor_outside(found: &Found<'_, '_>) -> Option<(Built, Built)> {
    let (fold, axes) = axes_of(found.op("r"))?;
    let Op::Broadcast { axes: places, .. } = found.op("b") else { return None };
    let (extents, outer) = (found.extents("c"), found.extents("x"));
    // Each axis of the factor stays, or is one of extent 1.
    let constant = places.iter().zip(&extents).all(|(&axis, &n)| !axes.contains(usize::from(axis)) || n == 1);
    if !constant
        || axes.iter().map(|axis| outer[axis]).product::<usize>() <= 1
        || found.data("x").constant.is_some()
    {
        return None;
    }
    let left: SmallVec<[usize; 8]> = axes.others(outer.len()).collect();
    let kept: SmallVec<[usize; 8]> =
        (0..extents.len()).filter(|&own| !axes.contains(usize::from(places[own]))).collect();
    let squeezed: SmallVec<[usize; 8]> = kept.iter().map(|&own| extents[own]).collect();
    let factor = Built::Class(found.class("c"));
    let factor = if kept.len() == extents.len() {
        factor
    } else {
        Built::node(Op::Reshape(known_dims(&squeezed)), factor)
    };
    let places = kept.iter().filter_map(|&own| left.iter().position(|&l| l == usize::from(places[own])));
    let op = Op::Broadcast {
        axes: places.map(|p| p as u8).collect(),
        dims: known_dims(&found.result().extents()),
    };
    Some((Built::node(op, factor), reduced(fold, axes, Built::Class(found.class("x")))))
}

fn sum_broadcast_times(found: &Found<'_, '_>) -> Option<Built> {
    let (factor, sum) = factor_outside(found)?;
    Some(Built::map(ScalarFn::Mul, [factor, sum]))
}

fn sum_over_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (factor, sum) = factor_outside(found)?;
    Some(Built::map(ScalarFn::Div, [sum, factor]))
}

fn max_neg(found: &Found<'_, '_>) -> Option<Built> {
    let (_, axes) = axes_of(found.op("r"))?;
    Some(Built::map(ScalarFn::Neg, [reduced(Fold::Min, axes, Built::Class(found.class("x")))]))
}

fn min_neg(found: &Found<'_, '_>) -> Option<Built> {
    let (_, axes) = axes_of(found.op("r"))?;
    Some(Built::map(ScalarFn::Neg, [reduced(Fold::Max, axes, Built::Class(found.class("x")))]))
}

fn largest_of_rising(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Map(f), (fold, axes)) = (found.op("f"), axes_of(found.op("r"))?) else { return None };
    let extents = found.extents("x");
    let some = axes.iter().all(|axis| extents[axis] > 0);
    (rises(*f, &found.data("x").facts) && some)
        .then(|| Built::map(*f, [reduced(fold, axes, Built::Class(found.class("x")))]))
}

fn argmax_of_rising(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Map(f) = found.op("f") else { return None };
    rises(*f, &found.data("x").facts)
        .then(|| Built::node(found.op("a").clone(), Built::Class(found.class("x"))))
}

/// The shift or scale must be constant along the axis.
fn argmax_of_shifted(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::ArgMax(axis), Op::Broadcast { axes, .. }) = (found.op("a"), found.op("b")) else { return None };
    let own = axes.iter().position(|a| a == axis);
    let constant = own.is_none_or(|own| found.extents("m")[own] == 1);
    constant.then(|| Built::node(found.op("a").clone(), Built::Class(found.class("x"))))
}
