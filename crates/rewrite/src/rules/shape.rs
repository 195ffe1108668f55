//! Views and elementwise functions: chains of views become one, functions go to the side of a view where they meet
//! their rules and where there are fewer elements, products of transposed matrices turn round.
//!
//! Functions leave reshapes, permutes and broadcasts (never more elements inside than outside); windows and gathers,
//! which pick few elements, go the other way, below the function. Logarithms leave windows, gathers and
//! concatenations too, so that they meet the softmax or sigmoid that was cut up.

use egg::Id;
use hypatia_graph::op::{Op, Start, WindowAxis, Write, known_dims};
use hypatia_graph::{Extent, ScalarFn};
use smallvec::{SmallVec, smallvec};

use super::{Exactness::*, Found, Rule, function, rule};
use crate::pattern::{Built, exact_number};

#[rustfmt::skip] // One line a rule.
pub(crate) fn rules() -> Vec<Rule> {
    vec![
        // Chains of views.
        function("permute_permute", Exact, "(permute:p (permute:q ?x))", permute_permute),
        function("reshape_reshape", Exact, "(reshape:r (reshape:s ?x))", reshape_reshape),
        function("broadcast_broadcast", Exact, "(broadcast:b (broadcast:c ?x))", broadcast_broadcast),
        function("window_window", Exact, "(window:v (window:w ?x))", window_window),
        function("view_of_same", Exact, "(view:v ?x)", same_view),
        function("window_whole", Exact, "(window:w ?x)", whole_window),
        function("concat_of_one", Exact, "(concat:c ?x)", |found| Some(Built::Class(found.class("x")))),
        // Views through views.
        function("broadcast_reshape", Exact, "(broadcast:b (reshape:r ?x))", broadcast_reshape),
        function("reshape_broadcast", Exact, "(reshape:r (broadcast:b ?x))", reshape_broadcast),
        function("permute_broadcast", Exact, "(permute:p (broadcast:b ?x))", permute_broadcast),
        function("permute_is_reshape", Exact, "(permute:p ?x)", permute_is_reshape),
        function("window_broadcast", Exact, "(window:w (broadcast:b ?x))", window_broadcast),
        function("window_permute", Exact, "(window:w (permute:p ?x))", window_permute),
        function("window_concat", Exact, "(window:w (concat:c ?x ...))", window_concat),
        function("window_set_window", Exact, "(window:w (set_window:s ?x ?y))", window_set_window),
        function("gather_one_place", Exact, "(gather:g ?x ?i) if constant ?i", gather_one_place),
        // Elementwise functions leave views.
        rule("unary_of_view", Exact, "(unary:f (view:v ?x)) => (:v (:f ?x))"),
        function("cast_of_view", Exact, "(cast:c (view:v ?x))", cast_of_view),
        function("binary_of_views", Exact, "(binary:f (view:v ?x) (view:v ?y))", binary_of_views),
        function("binary_of_view_and_constant", Exact, "(binary:f (view:v ?x) ?c) if constant ?c, variable ?x", view_and_constant),
        function("binary_of_constant_and_view", Exact, "(binary:f ?c (view:v ?x)) if constant ?c, variable ?x", constant_and_view),
        function("unary_of_concat", Exact, "(unary:f (concat:c ?x ...))", unary_of_concat),
        // Logarithms leave what picks elements.
        function("log_of_window", Exact, "(unary:f (window:v ?x ...))", logarithm_of_part),
        function("log_of_gather", Exact, "(unary:f (gather:v ?x ?i))", logarithm_of_part),
        function("constant_minus_part", Exact, "(sub ?c (window:v ?x ...)) if constant ?c, variable ?x", constant_minus_part),
        function("constant_minus_picked", Exact, "(sub ?c (gather:v ?x ?i)) if constant ?c, variable ?x", constant_minus_part),
        // What picks elements goes below functions.
        function("window_of_unary", Exact, "(window:v (unary:f ?x) ...)", part_of_unary),
        function("gather_of_unary", Exact, "(gather:v (unary:f ?x) ?i)", part_of_unary),
        function("window_of_binary", Exact, "(window:v (binary:f ?x ?y) ...)", part_of_binary),
        function("gather_of_binary", Exact, "(gather:v (binary:f ?x ?y) ?i)", part_of_binary),
        // Products.
        function("transpose_of_dot", Exact, "(permute:p (dot ?a ?b))", transpose_of_dot),
        function("dot_of_nothing", Exact, "(dot ?a ?b)", dot_of_nothing),
        function("dot_zero", Real, "(dot ?a ?b)", dot_zero),
        function("dot_of_constant_left", Real, "(dot ?c ?x) if constant ?c, finite ?c", dot_of_constant_left),
        function("dot_of_constant_right", Real, "(dot ?x ?c) if constant ?c, finite ?c", dot_of_constant_right),
        function("dot_scaled_left", Real, "(dot (mul ?c ?a) ?b) if constant ?c, finite ?c", dot_scaled_left),
        function("dot_scaled_right", Real, "(dot ?a (mul ?c ?b)) if constant ?c, finite ?c", dot_scaled_right),
        // One product for two with a factor in common: the gradient of x' P x for a P that is not symmetric.
        rule("dots_of_one_left", Real, "(add (dot ?a ?b) (dot ?a ?c)) => (dot ?a (add ?b ?c))"),
        rule("dots_of_one_right", Real, "(add (dot ?a ?c) (dot ?b ?c)) => (dot (add ?a ?b) ?c)"),
        rule("difference_of_dots_of_one_left", Real, "(sub (dot ?a ?b) (dot ?a ?c)) => (dot ?a (sub ?b ?c))"),
        rule("difference_of_dots_of_one_right", Real, "(sub (dot ?a ?c) (dot ?b ?c)) => (dot (sub ?a ?b) ?c)"),
        rule("scaled_dots_of_one_left", Real, "(add (mul ?k (dot ?a ?b)) (mul ?k (dot ?a ?c))) => (mul ?k (dot ?a (add ?b ?c)))"),
        rule("scaled_dots_of_one_right", Real, "(add (mul ?k (dot ?a ?c)) (mul ?k (dot ?b ?c))) => (mul ?k (dot (add ?a ?b) ?c))"),
        // What cancels is +0 on either side of the sign.
        rule("dot_neg_left_integer", Exact, "(dot (neg ?a) ?b) => (neg (dot ?a ?b)) if discrete ?a").under_strict(),
        rule("dot_neg_right_integer", Exact, "(dot ?a (neg ?b)) => (neg (dot ?a ?b)) if discrete ?a").under_strict(),
        rule("dot_neg_left", Real, "(dot (neg ?a) ?b) => (neg (dot ?a ?b))"),
        rule("dot_neg_right", Real, "(dot ?a (neg ?b)) => (neg (dot ?a ?b))"),
        // Writes.
        function("set_window_whole", Exact, "(set_window:s ?x ?y)", set_window_whole),
        function("inc_window_whole", Exact, "(inc_window:s ?x ?y)", inc_window_whole),
        // Windows with a start that is checked when run stay, as do all writes at indices: the error must.
        rule("inc_window_plus_zero", Exact, "(inc_window:s ?x 0) => ?x if no_minus_zero ?x").under_strict(),
        rule("inc_window_zero", Real, "(inc_window:s ?x 0) => ?x"),
        // What is added up first may overflow by itself.
        rule("add_scattered_integer", Exact, "(add ?x (scatter_add:s 0 ?i ?y)) => (:s ?x ?i ?y) if discrete ?x").under_strict(),
        rule("add_scattered", Real, "(add ?x (scatter_add:s 0 ?i ?y)) => (:s ?x ?i ?y)"),
        // A step of descent touches only the rows that the cost read.
        rule("subtract_scattered", Real, "(sub ?x (scatter_add:s 0 ?i ?y)) => (:s ?x ?i (neg ?y))"),
        function("neg_of_scattered", Real, "(neg (scatter_add:s 0 ?i ?y))", neg_of_scattered),
        function("scaled_scattered", Real, "(mul (scatter_add:s 0 ?i ?y) (broadcast:b ?k))", |found| scaled_rows(found, ScalarFn::Mul)),
        function("divided_scattered", Real, "(div (scatter_add:s 0 ?i ?y) (broadcast:b ?k))", |found| scaled_rows(found, ScalarFn::Div)),
        rule("add_incremented_number", Exact, "(add ?x (inc_window:s +0 ?y)) => (:s ?x ?y) if no_minus_zero ?x").under_strict(),
        rule("add_incremented", Real, "(add ?x (inc_window:s 0 ?y)) => (:s ?x ?y)"),
    ]
}

/// Rules that would change a gradient not yet taken.
pub(crate) fn rules_after_gradients() -> Vec<Rule> {
    vec![
        rule("stop_gradient", Exact, "(stop_gradient ?x) => ?x"),
        // One sigmoid instead of two; of a size, whose gradient at 0 would be 0.
        rule(
            "sigmoid_times_sigmoid_of_neg",
            Rounding,
            "(mul (sigmoid ?x) (sigmoid (neg ?x))) => (sub (sigmoid (neg (abs ?x))) (sqr (sigmoid (neg (abs ?x)))))",
        ),
    ]
}

fn reshaped(x: Built, extents: &[usize]) -> Built {
    Built::node(Op::Reshape(known_dims(extents)), x)
}

fn x(found: &Found<'_, '_>) -> Built {
    Built::Class(found.class("x"))
}

fn permute_permute(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Permute(outer), Op::Permute(inner)) = (found.op("p"), found.op("q")) else { return None };
    let joined = outer.iter().map(|&axis| inner[usize::from(axis)]).collect();
    Some(Built::node(Op::Permute(joined), x(found)))
}

fn reshape_reshape(found: &Found<'_, '_>) -> Option<Built> {
    Some(reshaped(x(found), &found.result().extents()))
}

fn broadcast_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Broadcast { axes: outer, dims }, Op::Broadcast { axes: inner, .. }) =
        (found.op("b"), found.op("c"))
    else {
        return None;
    };
    let axes = inner.iter().map(|&axis| outer[usize::from(axis)]).collect();
    Some(Built::node(Op::Broadcast { axes, dims: dims.clone() }, x(found)))
}

fn window_window(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Window(outer), Op::Window(inner)) = (found.op("v"), found.op("w")) else { return None };
    let joined: Option<Vec<WindowAxis>> = outer
        .iter()
        .zip(inner)
        .map(|(o, i)| match (o.start, i.start) {
            (Start::Known(from), Start::Known(base)) => {
                let start = if o.len == 0 { 0 } else { base as i64 + i.step * from as i64 };
                let start = usize::try_from(start).ok()?;
                // The step of a single element means nothing; joined again and again it would grow without bound.
                let step = if o.len > 1 { i.step * o.step } else { 1 };
                Some(WindowAxis { start: Start::Known(start), len: o.len, step })
            }
            _ => None,
        })
        .collect();
    Some(Built::node(Op::Window(joined?.into()), x(found)))
}

/// A view that changes nothing.
fn same_view(found: &Found<'_, '_>) -> Option<Built> {
    let op = found.op("v");
    let kept = matches!(op, Op::Permute(permutation) if permutation.iter().enumerate().all(|(i, &axis)| i == usize::from(axis)));
    let view = matches!(op, Op::Reshape(_) | Op::Broadcast { .. });
    let same = kept || view && found.data("x").ty == found.result().ty;
    same.then(|| x(found))
}

fn whole_window(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Window(axes) = found.op("w") else { return None };
    let extents = found.extents("x");
    axes.iter().zip(&extents).all(|(axis, &n)| *axis == WindowAxis::whole(n)).then(|| x(found))
}

/// For each axis of the longer shape, the axis of the shorter one that it is, where they differ by extents of 1 only.
fn unit_axes(short: &[usize], long: &[usize]) -> Option<SmallVec<[Option<usize>; 8]>> {
    let mut places: SmallVec<[Option<usize>; 8]> = smallvec![];
    let mut next = 0;
    for &n in long {
        if short.get(next) == Some(&n) {
            places.push(Some(next));
            next += 1;
        } else if n == 1 {
            places.push(None);
        } else {
            return None;
        }
    }
    (next == short.len()).then_some(places)
}

/// A reshape that inserts or removes extents of 1 is part of the broadcast above it.
fn broadcast_reshape(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Broadcast { axes, dims } = found.op("b") else { return None };
    let inner = found.extents("x");
    let middle = found.egraph[found.term("b").operands[0]].data.extents();
    if inner.len() <= middle.len() {
        let places = unit_axes(&inner, &middle)?;
        let mut kept: SmallVec<[u8; 8]> = smallvec![0; inner.len()];
        for (axis, place) in places.iter().enumerate() {
            if let Some(own) = place {
                kept[*own] = axes[axis];
            }
        }
        return Some(Built::node(Op::Broadcast { axes: kept, dims: dims.clone() }, x(found)));
    }
    None
}

/// A reshape above a broadcast that only inserts or removes extents of 1 is a broadcast.
fn reshape_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Broadcast { axes, .. } = found.op("b") else { return None };
    let middle = found.egraph[found.term("r").operands[0]].data.extents();
    let outer = found.result().extents();
    let inner = found.extents("x");
    if middle.contains(&0) {
        return None;
    }
    // Where each axis of the broadcast goes.
    let mut goes: SmallVec<[Option<usize>; 8]> = smallvec![None; middle.len()];
    if outer.len() >= middle.len() {
        for (axis, place) in unit_axes(&middle, &outer)?.iter().enumerate() {
            if let Some(own) = place {
                goes[*own] = Some(axis);
            }
        }
    } else {
        for (axis, place) in unit_axes(&outer, &middle)?.iter().enumerate() {
            goes[axis] = *place;
        }
    }
    // An axis of the operand that goes away has extent 1: it is reshaped away.
    let kept: SmallVec<[usize; 8]> =
        (0..inner.len()).filter(|&own| goes[usize::from(axes[own])].is_some()).collect();
    let places: SmallVec<[u8; 8]> =
        kept.iter().filter_map(|&own| goes[usize::from(axes[own])]).map(|axis| axis as u8).collect();
    let squeezed: SmallVec<[usize; 8]> = kept.iter().map(|&own| inner[own]).collect();
    let operand = if kept.len() == inner.len() { x(found) } else { reshaped(x(found), &squeezed) };
    Some(Built::node(Op::Broadcast { axes: places, dims: known_dims(&outer) }, operand))
}

/// The operand is permuted, not the repeated elements.
fn permute_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Permute(permutation), Op::Broadcast { axes, .. }) = (found.op("p"), found.op("b")) else {
        return None;
    };
    let place = |axis: u8| permutation.iter().position(|&p| p == axis);
    let mut moved: SmallVec<[(usize, u8); 8]> =
        axes.iter().enumerate().filter_map(|(own, &axis)| Some((place(axis)?, own as u8))).collect();
    moved.sort_unstable();
    let order: SmallVec<[u8; 8]> = moved.iter().map(|(_, own)| *own).collect();
    let places = moved.iter().map(|(place, _)| *place as u8).collect();
    let rising = order.windows(2).all(|pair| pair[0] < pair[1]);
    let operand = if rising { x(found) } else { Built::node(Op::Permute(order), x(found)) };
    Some(Built::node(Op::Broadcast { axes: places, dims: known_dims(&found.result().extents()) }, operand))
}

/// A permutation that moves extents of 1 only.
fn permute_is_reshape(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Permute(permutation) = found.op("p") else { return None };
    let extents = found.extents("x");
    let long: SmallVec<[u8; 8]> =
        permutation.iter().copied().filter(|&axis| extents[usize::from(axis)] != 1).collect();
    let moves = permutation.windows(2).any(|pair| pair[0] > pair[1]);
    (moves && long.windows(2).all(|pair| pair[0] < pair[1]))
        .then(|| reshaped(x(found), &found.result().extents()))
}

fn window_broadcast(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Window(windows), Op::Broadcast { axes, .. }) = (found.op("w"), found.op("b")) else {
        return None;
    };
    let inner = found.extents("x");
    let middle = found.egraph[found.term("w").operands[0]].data.extents();
    let repeated = |own: usize| inner[own] != middle[usize::from(axes[own])];
    let parts: Vec<WindowAxis> = (0..inner.len())
        .map(
            |own| if repeated(own) { WindowAxis::whole(inner[own]) } else { windows[usize::from(axes[own])] },
        )
        .collect();
    let whole = parts.iter().zip(&inner).all(|(part, &n)| *part == WindowAxis::whole(n));
    let operand = if whole { x(found) } else { Built::node(Op::Window(parts.into()), x(found)) };
    let dims = known_dims(&found.result().extents());
    Some(Built::node(Op::Broadcast { axes: axes.clone(), dims }, operand))
}

fn window_permute(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Window(windows), Op::Permute(permutation)) = (found.op("w"), found.op("p")) else { return None };
    let mut parts: Vec<WindowAxis> = windows.to_vec();
    for (axis, &own) in permutation.iter().enumerate() {
        parts[usize::from(own)] = windows[axis];
    }
    Some(Built::node(found.op("p").clone(), Built::node(Op::Window(parts.into()), x(found))))
}

/// A window on one of the joined parts.
fn window_concat(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Window(windows), Op::Concat(axis)) = (found.op("w"), found.op("c")) else { return None };
    let axis = usize::from(*axis);
    let window = windows[axis];
    let Start::Known(start) = window.start else { return None };
    let last = start as i64 + window.step * (window.len as i64 - 1);
    let (low, high) = (last.min(start as i64), last.max(start as i64));
    let mut offset = 0;
    for &part in &found.term("c").operands {
        let extent = found.egraph[part].data.ty.shape[axis].known()? as i64;
        if window.len > 0 && low >= offset && high < offset + extent {
            let mut inner = windows.clone();
            inner[axis].start = Start::Known((start as i64 - offset) as usize);
            return Some(Built::node(Op::Window(inner), Built::Class(part)));
        }
        offset += extent;
    }
    None
}

/// A window on what was just written there.
fn window_set_window(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Window(read), Op::SetWindow(written, _)) = (found.op("w"), found.op("s")) else { return None };
    (read == written).then(|| Built::Class(found.class("y")))
}

/// A product with a matrix of one number: the columns are summed.
fn dot_of_constant_left(found: &Found<'_, '_>) -> Option<Built> {
    let rank = found.result().extents().len();
    dot_of_constant(found, rank - 2, rank - 1)
}

/// As [`dot_of_constant_left`]: the rows are summed.
fn dot_of_constant_right(found: &Found<'_, '_>) -> Option<Built> {
    let rank = found.result().extents().len();
    dot_of_constant(found, rank - 1, rank - 2)
}

/// The number times the sums of the other factor over its axis `summed`, repeated beside its axis `kept`.
fn dot_of_constant(found: &Found<'_, '_>, summed: usize, kept: usize) -> Option<Built> {
    let number = found.data("c").constant?;
    let extents = found.result().extents();
    if found.data("x").constant.is_some() || number.to_f64() == 0.0 {
        return None;
    }
    let axes = hypatia_graph::Axes::one(summed);
    let sum = Built::node(Op::Reduce(hypatia_graph::Fold::Sum, axes), x(found));
    let scaled = Built::map(ScalarFn::Mul, [Built::Uniform(number), sum]);
    let batch = extents.len() - 2;
    let axes = (0..batch).chain([kept]).map(|axis| axis as u8).collect();
    Some(Built::node(Op::Broadcast { axes, dims: known_dims(&extents) }, scaled))
}

/// Picking one row again and again: a window on it, repeated.
fn gather_one_place(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Gather { batch } = found.op("g") else { return None };
    let axis = usize::from(*batch);
    let extents = found.extents("x");
    let n = *extents.get(axis)? as i64;
    let place = found.data("i").constant?.to_i64()?;
    // A place out of range is an error when run.
    if found.result().count() == 0 || !(-n..n).contains(&place) {
        return None;
    }
    let mut axes: Vec<WindowAxis> = extents.iter().map(|&extent| WindowAxis::whole(extent)).collect();
    axes[axis] = WindowAxis { start: Start::Known(place.rem_euclid(n) as usize), len: 1, step: 1 };
    let row = Built::node(Op::Window(axes.into()), x(found));
    let all = (0..extents.len() as u8).collect();
    Some(Built::node(Op::Broadcast { axes: all, dims: known_dims(&found.result().extents()) }, row))
}

fn cast_of_view(found: &Found<'_, '_>) -> Option<Built> {
    Some(Built::node(found.op("v").clone(), Built::node(found.op("c").clone(), x(found))))
}

fn binary_of_views(found: &Found<'_, '_>) -> Option<Built> {
    if found.data("x").ty.shape != found.data("y").ty.shape {
        return None;
    }
    let inner = Built::Node(found.op("f").clone(), vec![x(found), Built::Class(found.class("y"))]);
    Some(Built::node(found.op("v").clone(), inner))
}

/// The constant with the shape below the view.
fn constant_below(found: &Found<'_, '_>) -> Option<Built> {
    let constant = found.data("c").constant?;
    let ty = found.data("x").ty.with_dtype(constant.dtype());
    exact_number(constant).map(|number| Built::Constant(number, ty))
}

fn view_and_constant(found: &Found<'_, '_>) -> Option<Built> {
    let inner = Built::Node(found.op("f").clone(), vec![x(found), constant_below(found)?]);
    Some(Built::node(found.op("v").clone(), inner))
}

fn constant_and_view(found: &Found<'_, '_>) -> Option<Built> {
    let inner = Built::Node(found.op("f").clone(), vec![constant_below(found)?, x(found)]);
    Some(Built::node(found.op("v").clone(), inner))
}

/// Functions whose rules must be met before elements are picked.
fn meets_rules(f: ScalarFn) -> bool {
    matches!(f, ScalarFn::Log | ScalarFn::Log1p | ScalarFn::Neg)
}

fn unary_of_concat(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Map(f), concat) = (found.op("f"), found.term("c")) else { return None };
    let parts = concat.operands.iter().map(|part| Built::map(*f, [Built::Class(*part)])).collect();
    meets_rules(*f).then(|| Built::Node(concat.op.clone(), parts))
}

/// The kept term `v` on another first operand.
fn again(found: &Found<'_, '_>, operand: Built) -> Built {
    let term = found.term("v");
    let mut operands = vec![operand];
    operands.extend(term.operands[1..].iter().map(|id| Built::Class(*id)));
    Built::Node(term.op.clone(), operands)
}

fn logarithm_of_part(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Map(f) = found.op("f") else { return None };
    meets_rules(*f).then(|| again(found, Built::map(*f, [x(found)])))
}

fn constant_minus_part(found: &Found<'_, '_>) -> Option<Built> {
    let inner = Built::map(ScalarFn::Sub, [constant_below(found)?, x(found)]);
    Some(again(found, inner))
}

/// Whether picking leaves fewer elements.
fn shrinks(found: &Found<'_, '_>) -> bool {
    found.result().count() < found.data("x").count()
}

fn part_of_unary(found: &Found<'_, '_>) -> Option<Built> {
    shrinks(found).then(|| Built::node(found.op("f").clone(), again(found, x(found))))
}

fn part_of_binary(found: &Found<'_, '_>) -> Option<Built> {
    let (left, right) = (found.class("x"), found.class("y"));
    let picked = |side: Id| again(found, Built::Class(side));
    // One side is picked in any case, so that an index out of range stays an error.
    let sides = match (picked_plainly(found, left), picked_plainly(found, right)) {
        (_, Some(right)) => vec![picked(left), right],
        (Some(left), None) => vec![left, picked(right)],
        (None, None) => vec![picked(left), picked(right)],
    };
    shrinks(found).then(|| Built::Node(found.op("f").clone(), sides))
}

/// What is picked of a value that is the same at every place along the axis of a gather: no index decides it.
fn picked_plainly(found: &Found<'_, '_>, class: Id) -> Option<Built> {
    let Op::Gather { batch } = found.op("v") else { return None };
    let dims = known_dims(&found.result().extents());
    found.egraph[class].nodes.iter().find_map(|term| {
        let Op::Broadcast { axes, .. } = &term.op else { return None };
        let inner = &found.egraph[term.operands[0]].data.ty.shape;
        let own = axes.iter().position(|axis| axis == batch);
        own.is_none_or(|own| inner[own] == Extent::Known(1)).then(|| {
            let op = Op::Broadcast { axes: axes.clone(), dims: dims.clone() };
            Built::node(op, Built::Class(term.operands[0]))
        })
    })
}

fn swap_last(rank: usize) -> Op {
    let mut order: SmallVec<[u8; 8]> = (0..rank as u8).collect();
    order.swap(rank - 1, rank - 2);
    Op::Permute(order)
}

/// The transpose of A B is that of B times that of A.
fn transpose_of_dot(found: &Found<'_, '_>) -> Option<Built> {
    let rank = found.data("a").ty.rank();
    if *found.op("p") != swap_last(rank) {
        return None;
    }
    let turned = |name: &str| Built::node(swap_last(rank), Built::Class(found.class(name)));
    Some(Built::Node(Op::Dot, vec![turned("b"), turned("a")]))
}

/// Sums of no products.
fn dot_of_nothing(found: &Found<'_, '_>) -> Option<Built> {
    let inner = found.data("a").ty.shape.last().copied();
    (inner == Some(Extent::Known(0))).then_some(Built::Number(0.0))
}

fn dot_zero(found: &Found<'_, '_>) -> Option<Built> {
    let zero = |name: &str| found.data(name).constant.is_some_and(|c| c.to_f64() == 0.0);
    (zero("a") || zero("b")).then_some(Built::Number(0.0))
}

fn dot_scaled_left(found: &Found<'_, '_>) -> Option<Built> {
    let product = Built::Node(Op::Dot, vec![Built::Class(found.class("a")), Built::Class(found.class("b"))]);
    let constant = found.data("c").constant?;
    (found.data("a").constant.is_none())
        .then(|| Built::map(ScalarFn::Mul, [Built::Uniform(constant), product]))
}

fn dot_scaled_right(found: &Found<'_, '_>) -> Option<Built> {
    let product = Built::Node(Op::Dot, vec![Built::Class(found.class("a")), Built::Class(found.class("b"))]);
    let constant = found.data("c").constant?;
    (found.data("b").constant.is_none())
        .then(|| Built::map(ScalarFn::Mul, [Built::Uniform(constant), product]))
}

/// The kept scatter `s` of other rows.
fn scattered(found: &Found<'_, '_>, rows: Built) -> Option<Built> {
    let scatter = found.term("s");
    let operands = vec![Built::Class(scatter.operands[0]), Built::Class(found.class("i")), rows];
    Some(Built::Node(scatter.op.clone(), operands))
}

fn neg_of_scattered(found: &Found<'_, '_>) -> Option<Built> {
    scattered(found, Built::map(ScalarFn::Neg, [Built::Class(found.class("y"))]))
}

/// Rows are scaled by a number before they are added up, not all that they are added to.
fn scaled_rows(found: &Found<'_, '_>, f: ScalarFn) -> Option<Built> {
    if !found.extents("k").is_empty() {
        return None;
    }
    let spread = Op::Broadcast { axes: smallvec![], dims: known_dims(&found.extents("y")) };
    let number = Built::node(spread, Built::Class(found.class("k")));
    scattered(found, Built::map(f, [Built::Class(found.class("y")), number]))
}

fn writes_whole(found: &Found<'_, '_>) -> Option<Write> {
    let Op::SetWindow(windows, write) = found.op("s") else { return None };
    let extents = found.extents("x");
    windows.iter().zip(&extents).all(|(axis, &n)| *axis == WindowAxis::whole(n)).then_some(*write)
}

fn set_window_whole(found: &Found<'_, '_>) -> Option<Built> {
    writes_whole(found).map(|_| Built::Class(found.class("y")))
}

fn inc_window_whole(found: &Found<'_, '_>) -> Option<Built> {
    writes_whole(found).map(|_| Built::map(ScalarFn::Add, [x(found), Built::Class(found.class("y"))]))
}
