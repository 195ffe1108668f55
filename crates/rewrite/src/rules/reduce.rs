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
        function("mean_broadcast", Real, "(mean:r (broadcast:b ?x))", mean_broadcast),
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
        // A sum over axes that a factor does not have moves inside: sum_ij (a_j w_ij)^2 is sum_j a_j^2 sum_i w_ij^2.
        function("sum_broadcast_times", Real, "(sum:r (mul (broadcast:b ?c) ?x))", sum_broadcast_times),
        function("sum_broadcast_times_two", Real, "(sum:r (mul (mul (broadcast:b ?c) ?x) ?y))", sum_broadcast_times_two),
        function("sum_broadcast_times_squared", Real, "(sum:r (sqr (mul (broadcast:b ?c) ?x)))", sum_broadcast_times_squared),
        function("sum_over_broadcast", Real, "(sum:r (div ?x (broadcast:b ?c)))", sum_over_broadcast),
        function("mean_broadcast_times", Real, "(mean:r (mul (broadcast:b ?c) ?x))", sum_broadcast_times),
        function("mean_broadcast_times_two", Real, "(mean:r (mul (mul (broadcast:b ?c) ?x) ?y))", sum_broadcast_times_two),
        function("mean_broadcast_times_squared", Real, "(mean:r (sqr (mul (broadcast:b ?c) ?x)))", sum_broadcast_times_squared),
        function("mean_over_broadcast", Real, "(mean:r (div ?x (broadcast:b ?c)))", sum_over_broadcast),
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
    /// The product of the extents of axes that repeat elements, where there are such axes.
    times: Option<usize>,
    inner: Axes,
    places: SmallVec<[u8; 8]>,
}

/// The axes of a reduction or a mean.
fn axes_along(op: &Op) -> Option<Axes> {
    if let Op::Reduce(_, axes) | Op::Mean(axes) = op { Some(*axes) } else { None }
}

fn reduced_broadcast(found: &Found<'_, '_>) -> Option<ReducedBroadcast> {
    let reduced = axes_along(found.op("r")).filter(|axes| !axes.is_empty())?;
    let Op::Broadcast { axes, .. } = found.op("b") else { return None };
    let extents = found.extents("x");
    let outer = found.egraph[found.term("r").operands[0]].data.extents();
    let own = |axis: usize| axes.iter().position(|&a| usize::from(a) == axis);
    let repeated = |axis: &usize| own(*axis).is_none_or(|own| extents[own] != outer[*axis]);
    let times =
        reduced.iter().filter(repeated).map(|axis| outer[axis]).reduce(|product, extent| product * extent);
    let inner = (0..extents.len()).filter(|&own| reduced.contains(usize::from(axes[own]))).collect();
    (times != Some(0)).then(|| ReducedBroadcast {
        times,
        inner,
        places: places_left(axes, reduced, outer.len()),
    })
}

/// The places of a broadcast that are not reduced, among the axes that are left of `rank`.
fn places_left(places: &[u8], reduced: Axes, rank: usize) -> SmallVec<[u8; 8]> {
    let left: SmallVec<[usize; 8]> = reduced.others(rank).collect();
    let kept = places.iter().map(|&place| usize::from(place)).filter(|&place| !reduced.contains(place));
    kept.filter_map(|place| left.iter().position(|&l| l == place)).map(|place| place as u8).collect()
}

/// The reduction of the operand's own axes, repeated as the result is. `op` makes a reduction of the same kind.
fn rebuilt(found: &Found<'_, '_>, parts: &ReducedBroadcast, op: impl FnOnce(Axes) -> Op) -> Built {
    let x = Built::Class(found.class("x"));
    let inner = if parts.inner.is_empty() { x } else { Built::node(op(parts.inner), x) };
    Built::node(
        Op::Broadcast { axes: parts.places.clone(), dims: known_dims(&found.result().extents()) },
        inner,
    )
}

/// A sum over repeated elements is a multiple.
fn sum_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let parts = reduced_broadcast(found)?;
    let sum = rebuilt(found, &parts, |axes| Op::Reduce(Fold::Sum, axes));
    let times = Literal::from_i64(parts.times? as i64, found.result().ty.dtype);
    Some(Built::map(ScalarFn::Mul, [Built::Uniform(times), sum]))
}

/// Repetition does not show in the largest, smallest, all and any; nor does it in sums and products of what is not
/// repeated along their axes.
fn fold_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (fold, _) = axes_of(found.op("r"))?;
    let parts = reduced_broadcast(found)?;
    let shows = match fold {
        Fold::Max | Fold::Min | Fold::All | Fold::Any => false,
        Fold::Sum | Fold::Prod => parts.times.is_some(),
    };
    (!shows).then(|| rebuilt(found, &parts, |axes| Op::Reduce(fold, axes)))
}

/// A mean does not care for repetition.
fn mean_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    Some(rebuilt(found, &reduced_broadcast(found)?, Op::Mean))
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

/// A factor that is spread, and what it multiplies or divides under a sum or a mean.
struct Spread {
    /// The axes of the sum along which the factor is the same everywhere, and there are several elements.
    idle: Axes,
    /// The factor, spread over the axes that the sum over `idle` leaves.
    factor: Built,
    /// The axes that remain to be summed then.
    rest: Axes,
}

/// The factor made of `?c` and spread by `:b`, where the sum or mean over some axes can come first. `factor` has the
/// shape of `?c`.
fn spread(found: &Found<'_, '_>, factor: Built) -> Option<Spread> {
    let axes = axes_along(found.op("r"))?;
    let Op::Broadcast { axes: places, .. } = found.op("b") else { return None };
    let extents = found.extents("c");
    let outer = found.egraph[found.term("r").operands[0]].data.extents();
    let own = |axis: usize| places.iter().position(|&a| usize::from(a) == axis);
    let is_idle = |axis: &usize| outer[*axis] > 1 && own(*axis).is_none_or(|own| extents[own] == 1);
    let idle: Axes = axes.iter().filter(is_idle).collect();
    if idle.is_empty() || found.data("x").constant.is_some() {
        return None;
    }
    let left: SmallVec<[usize; 8]> = idle.others(outer.len()).collect();
    let dims: SmallVec<[usize; 8]> = left.iter().map(|&axis| outer[axis]).collect();
    let kept: SmallVec<[usize; 8]> =
        (0..extents.len()).filter(|&own| !idle.contains(usize::from(places[own]))).collect();
    let factor = if kept.len() == extents.len() {
        factor
    } else {
        let squeezed: SmallVec<[usize; 8]> = kept.iter().map(|&own| extents[own]).collect();
        Built::node(Op::Reshape(known_dims(&squeezed)), factor)
    };
    let at = |axis: usize| left.iter().position(|&l| l == axis);
    let places = kept.iter().filter_map(|&own| at(usize::from(places[own]))).map(|p| p as u8).collect();
    let factor = Built::node(Op::Broadcast { axes: places, dims: known_dims(&dims) }, factor);
    Some(Spread { idle, factor, rest: axes.iter().filter_map(at).collect() })
}

/// The sum or mean of `x` over the idle axes first, then `f` of it and the factor, then that over the other axes.
fn sum_inside(found: &Found<'_, '_>, parts: Spread, x: Built, f: ScalarFn) -> Built {
    let is_mean = matches!(found.op("r"), Op::Mean(_));
    let along = |axes, x| Built::node(if is_mean { Op::Mean(axes) } else { Op::Reduce(Fold::Sum, axes) }, x);
    let inner = along(parts.idle, x);
    let joined =
        Built::map(f, if f == ScalarFn::Div { [inner, parts.factor] } else { [parts.factor, inner] });
    if parts.rest.is_empty() { joined } else { along(parts.rest, joined) }
}

fn sum_broadcast_times(found: &Found<'_, '_>) -> Option<Built> {
    let parts = spread(found, Built::Class(found.class("c")))?;
    Some(sum_inside(found, parts, Built::Class(found.class("x")), ScalarFn::Mul))
}

fn sum_broadcast_times_two(found: &Found<'_, '_>) -> Option<Built> {
    let parts = spread(found, Built::Class(found.class("c")))?;
    let product = Built::map(ScalarFn::Mul, [Built::Class(found.class("x")), Built::Class(found.class("y"))]);
    Some(sum_inside(found, parts, product, ScalarFn::Mul))
}

fn sum_broadcast_times_squared(found: &Found<'_, '_>) -> Option<Built> {
    let squared = |name| Built::map(ScalarFn::Sqr, [Built::Class(found.class(name))]);
    Some(sum_inside(found, spread(found, squared("c"))?, squared("x"), ScalarFn::Mul))
}

fn sum_over_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let parts = spread(found, Built::Class(found.class("c")))?;
    Some(sum_inside(found, parts, Built::Class(found.class("x")), ScalarFn::Div))
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
