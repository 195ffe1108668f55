//! Formulas that lose their digits, and the same value without the loss: logarithms, exponentials, sigmoids, softmax,
//! variances, differences of roots.
//!
//! A hidden infinity or NaN makes a rule `Real`. Formulas meet their rule through reshapes and broadcasts because
//! the rules of [`super::shape`] carry elementwise functions through those.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use egg::Id;
use hypatia_graph::op::{Op, View};
use hypatia_graph::{Axes, Extent, Fold, ScalarFn};
use smallvec::SmallVec;

use super::{Exactness::*, Found, Rule, fact, function, rule};
use crate::facts::{Facts, exp_limit, tiny};
use crate::pattern::Built;
use crate::term::{Egraph, Term};

#[rustfmt::skip] // One line a rule.
pub(crate) fn rules() -> Vec<Rule> {
    vec![
        // log of one plus, exp minus one. What is 0 on the left side is +0, also for an `x` of -0.
        rule("log1p_strict", Rounding, "(log (add 1 ?x)) => (log1p (add ?x +0)) if variable ?x").under_strict(),
        rule("log1p", Real, "(log (add 1 ?x)) => (log1p ?x) if variable ?x"),
        rule("log1p_minus_strict", Rounding, "(log (sub 1 ?x)) => (log1p (sub +0 ?x)) if variable ?x").under_strict(),
        rule("log1p_minus", Real, "(log (sub 1 ?x)) => (log1p (neg ?x)) if variable ?x"),
        rule("log2_1p_strict", Rounding, "(log2 (add 1 ?x)) => (add (mul 1.4426950408889634 (log1p ?x)) +0) if variable ?x").under_strict(),
        rule("log2_1p", Real, "(log2 (add 1 ?x)) => (mul 1.4426950408889634 (log1p ?x)) if variable ?x"),
        rule("log2_1p_minus_strict", Rounding, "(log2 (sub 1 ?x)) => (add (mul 1.4426950408889634 (log1p (neg ?x))) +0) if variable ?x").under_strict(),
        rule("log2_1p_minus", Real, "(log2 (sub 1 ?x)) => (mul 1.4426950408889634 (log1p (neg ?x))) if variable ?x"),
        rule("log10_1p_strict", Rounding, "(log10 (add 1 ?x)) => (add (mul 0.4342944819032518 (log1p ?x)) +0) if variable ?x").under_strict(),
        rule("log10_1p", Real, "(log10 (add 1 ?x)) => (mul 0.4342944819032518 (log1p ?x)) if variable ?x"),
        rule("log10_1p_minus_strict", Rounding, "(log10 (sub 1 ?x)) => (add (mul 0.4342944819032518 (log1p (neg ?x))) +0) if variable ?x").under_strict(),
        rule("log10_1p_minus", Real, "(log10 (sub 1 ?x)) => (mul 0.4342944819032518 (log1p (neg ?x))) if variable ?x"),
        rule("expm1_strict", Rounding, "(sub (exp ?x) 1) => (expm1 (add ?x +0))").under_strict(),
        rule("expm1", Real, "(sub (exp ?x) 1) => (expm1 ?x)"),
        rule("one_minus_exp_strict", Rounding, "(sub 1 (exp ?x)) => (sub +0 (expm1 ?x))").under_strict(),
        rule("one_minus_exp", Real, "(sub 1 (exp ?x)) => (neg (expm1 ?x))"),
        rule("exp2_minus_one", Real, "(sub (exp2 ?x) 1) => (expm1 (mul 0.6931471805599453 ?x))"),
        rule("one_minus_exp2", Real, "(sub 1 (exp2 ?x)) => (neg (expm1 (mul 0.6931471805599453 ?x)))"),
        rule("expm1_plus_one", Real, "(add (expm1 ?x) 1) => (exp ?x)"),
        rule("exp_log1p", Real, "(exp (log1p ?x)) => (add 1 ?x)"),
        rule("expm1_log1p", Real, "(expm1 (log1p ?x)) => ?x"),
        rule("log1p_expm1", Real, "(log1p (expm1 ?x)) => ?x"),
        // Logarithms of exponentials and back.
        rule("log_exp", Real, "(log (exp ?x)) => ?x"),
        rule("exp_log", Real, "(exp (log ?x)) => ?x"),
        rule("log2_exp2", Real, "(log2 (exp2 ?x)) => ?x"),
        rule("exp2_log2", Real, "(exp2 (log2 ?x)) => ?x"),
        rule("log1p_exp", Real, "(log1p (exp ?x)) => (softplus ?x)"),
        rule("log1p_neg_exp", Real, "(log1p (neg (exp ?x))) => (log1mexp ?x)"),
        rule("log_neg_expm1", Real, "(log (neg (expm1 ?x))) => (log1mexp ?x)"),
        rule("exp_log1mexp", Real, "(exp (log1mexp ?x)) => (neg (expm1 ?x))"),
        rule("log_expm1", Real, "(log (expm1 ?x)) => (add ?x (log1mexp (neg ?x)))"),
        rule("exp_softplus", Real, "(exp (softplus ?x)) => (add 1 (exp ?x))"),
        rule("exp_neg_softplus", Real, "(exp (neg (softplus ?x))) => (sigmoid (neg ?x))"),
        rule("expm1_softplus", Real, "(expm1 (softplus ?x)) => (exp ?x)"),
        rule("log_recip", Real, "(log (reciprocal ?x)) => (neg (log ?x)) if float ?x"),
        rule("log_sqrt", Rounding, "(log (sqrt ?x)) => (mul 0.5 (log ?x))"),
        rule("log_sqr_positive", Real, "(log (sqr ?x)) => (mul 2 (log ?x)) if positive ?x"),
        rule("log_sqr", Real, "(log (sqr ?x)) => (mul 2 (log (abs ?x)))"),
        rule("log_pow", Real, "(log (pow ?x ?n)) => (mul ?n (log ?x)) if positive ?x"),
        function("log_product", Real, "(log (mul ?a ?b)) if positive ?a, positive ?b", |found| log_of_factors(found, 1.0)),
        function("log_quotient", Real, "(log (div ?a ?b)) if positive ?a, positive ?b", |found| log_of_factors(found, -1.0)),
        function("log_prod", Real, "(log (prod:r ?x)) if positive ?x", log_prod),
        rule("log_switch", Exact, "(log (switch ?c ?a ?b)) => (switch ?c (log ?a) (log ?b))"),
        rule("log2_of_exp", Real, "(log2 (exp ?x)) => (mul 1.4426950408889634 ?x)"),
        rule("log10_of_exp", Real, "(log10 (exp ?x)) => (mul 0.4342944819032518 ?x)"),
        // Exponentials of sums.
        rule("exp_times_exp", Real, "(mul (exp ?a) (exp ?b)) => (exp (add ?a ?b))"),
        rule("exp_over_exp", Real, "(div (exp ?a) (exp ?b)) => (exp (sub ?a ?b))"),
        rule("over_exp", Real, "(div ?a (exp ?b)) => (mul ?a (exp (neg ?b)))"),
        rule("recip_exp", Real, "(reciprocal (exp ?x)) => (exp (neg ?x))"),
        rule("sqr_exp", Real, "(sqr (exp ?x)) => (exp (mul 2 ?x))"),
        rule("sqrt_exp", Real, "(sqrt (exp ?x)) => (exp (mul 0.5 ?x))"),
        rule("pow_exp", Real, "(pow (exp ?x) ?n) => (exp (mul ?x ?n)) if finite ?n"),
        // The sigmoid in its disguises.
        rule("sigmoid_of_neg_exp", Real, "(reciprocal (add 1 (exp ?x))) => (sigmoid (neg ?x))"),
        rule("over_one_plus_exp", Real, "(div ?a (add 1 (exp ?x))) => (mul ?a (sigmoid (neg ?x)))"),
        rule("exp_over_one_plus_exp", Real, "(div (exp ?x) (add 1 (exp ?x))) => (sigmoid ?x)"),
        rule("exp_times_sigmoid", Real, "(mul (exp ?x) (sigmoid (neg ?x))) => (sigmoid ?x)"),
        rule("exp_neg_times_sigmoid", Real, "(mul (exp (neg ?x)) (sigmoid ?x)) => (sigmoid (neg ?x))"),
        rule("one_minus_sigmoid", Rounding, "(sub 1 (sigmoid ?x)) => (sigmoid (neg ?x))"),
        rule("one_minus_sigmoid_neg", Rounding, "(sub 1 (sigmoid (neg ?x))) => (sigmoid ?x)"),
        rule("sigmoid_minus_one_strict", Rounding, "(sub (sigmoid ?x) 1) => (sub +0 (sigmoid (neg ?x)))").under_strict(),
        rule("sigmoid_minus_one", Real, "(sub (sigmoid ?x) 1) => (neg (sigmoid (neg ?x)))"),
        rule("sigmoid_odds", Real, "(div (sigmoid ?x) (sub 1 (sigmoid ?x))) => (exp ?x)"),
        rule("sigmoid_ratio", Real, "(div (sigmoid ?x) (sigmoid (neg ?x))) => (exp ?x)"),
        rule("recip_sigmoid", Real, "(reciprocal (sigmoid ?x)) => (add 1 (exp (neg ?x)))"),
        rule("sigmoid_logit", Real, "(sigmoid (log (div ?p (sub 1 ?p)))) => ?p"),
        rule("sigmoid_logit_split", Real, "(sigmoid (sub (log ?p) (log1p (neg ?p)))) => ?p"),
        rule("sigmoid_times_both", Rounding, "(mul (sigmoid ?x) (sub 1 (sigmoid ?x))) => (mul (sigmoid ?x) (sigmoid (neg ?x)))"),
        rule("log_sigmoid", Real, "(log (sigmoid ?x)) => (neg (softplus (neg ?x)))"),
        rule("log1p_neg_sigmoid", Real, "(log1p (neg (sigmoid ?x))) => (neg (softplus ?x))"),
        rule("log_one_minus_sigmoid", Real, "(log (sub 1 (sigmoid ?x))) => (neg (softplus ?x))"),
        // The softplus.
        rule("softplus_minus", Real, "(sub (softplus ?x) ?x) => (softplus (neg ?x))"),
        rule("minus_softplus", Real, "(sub ?x (softplus ?x)) => (neg (softplus (neg ?x)))"),
        rule("softplus_neg_plus", Real, "(add (softplus (neg ?x)) ?x) => (softplus ?x)"),
        rule("softplus_difference", Real, "(sub (softplus ?x) (softplus (neg ?x))) => ?x"),
        rule("softplus_log", Real, "(softplus (log ?x)) => (log1p ?x)"),
        // Hyperbolic tangents.
        rule("tanh_by_sigmoid_strict", Rounding, "(sub (mul 2 (sigmoid (mul 2 ?x))) 1) => (tanh (add ?x +0))").under_strict(),
        rule("tanh_by_sigmoid", Real, "(sub (mul 2 (sigmoid (mul 2 ?x))) 1) => (tanh ?x)"),
        rule("sigmoid_by_tanh", Rounding, "(mul 0.5 (add 1 (tanh (mul 0.5 ?x)))) => (sigmoid ?x)"),
        rule("tanh_by_half_sigmoid_strict", Rounding, "(sub (mul 2 (sigmoid ?x)) 1) => (tanh (add (mul 0.5 ?x) +0))").under_strict(),
        rule("tanh_by_half_sigmoid", Real, "(sub (mul 2 (sigmoid ?x)) 1) => (tanh (mul 0.5 ?x))"),
        rule("tanh_by_half_sigmoid_neg_strict", Rounding, "(sub 1 (mul 2 (sigmoid ?x))) => (sub +0 (tanh (mul 0.5 ?x)))").under_strict(),
        rule("tanh_by_half_sigmoid_neg", Real, "(sub 1 (mul 2 (sigmoid ?x))) => (neg (tanh (mul 0.5 ?x)))"),
        rule("sigmoid_minus_half_strict", Rounding, "(sub (sigmoid ?x) 0.5) => (mul 0.5 (tanh (add (mul 0.5 ?x) +0)))").under_strict(),
        rule("sigmoid_minus_half", Real, "(sub (sigmoid ?x) 0.5) => (mul 0.5 (tanh (mul 0.5 ?x)))"),
        rule("half_minus_sigmoid_strict", Rounding, "(sub 0.5 (sigmoid ?x)) => (sub +0 (mul 0.5 (tanh (mul 0.5 ?x))))").under_strict(),
        rule("half_minus_sigmoid", Real, "(sub 0.5 (sigmoid ?x)) => (mul -0.5 (tanh (mul 0.5 ?x)))"),
        rule("sigmoid_difference_strict", Rounding, "(sub (sigmoid ?x) (sigmoid (neg ?x))) => (tanh (add (mul 0.5 ?x) +0))").under_strict(),
        rule("sigmoid_difference", Real, "(sub (sigmoid ?x) (sigmoid (neg ?x))) => (tanh (mul 0.5 ?x))"),
        rule("sigmoid_difference_neg_strict", Rounding, "(sub (sigmoid (neg ?x)) (sigmoid ?x)) => (sub +0 (tanh (mul 0.5 ?x)))").under_strict(),
        rule("sigmoid_difference_neg", Real, "(sub (sigmoid (neg ?x)) (sigmoid ?x)) => (neg (tanh (mul 0.5 ?x)))"),
        rule("one_plus_tanh", Rounding, "(add 1 (tanh ?x)) => (mul 2 (sigmoid (mul 2 ?x)))"),
        rule("one_minus_tanh", Rounding, "(sub 1 (tanh ?x)) => (mul 2 (sigmoid (neg (mul 2 ?x))))"),
        rule("tanh_minus_one_strict", Rounding, "(sub (tanh ?x) 1) => (sub +0 (mul 2 (sigmoid (neg (mul 2 ?x)))))").under_strict(),
        rule("tanh_minus_one", Real, "(sub (tanh ?x) 1) => (mul -2 (sigmoid (neg (mul 2 ?x))))"),
        rule("one_minus_sqr_tanh", Rounding, "(sub 1 (sqr (tanh ?x))) => (mul 4 (mul (sigmoid (mul 2 ?x)) (sigmoid (neg (mul 2 ?x)))))"),
        rule("tanh_by_exp", Real, "(div (sub (exp ?x) (exp (neg ?x))) (add (exp ?x) (exp (neg ?x)))) => (tanh ?x)"),
        rule("tanh_by_exp_twice", Real, "(div (expm1 (mul 2 ?x)) (add 1 (exp (mul 2 ?x)))) => (tanh ?x)"),
        rule("tanh_by_exp_minus_twice", Real, "(div (neg (expm1 (mul -2 ?x))) (add 1 (exp (mul -2 ?x)))) => (tanh ?x)"),
        rule("sinh_by_exp", Real, "(mul 0.5 (sub (exp ?x) (exp (neg ?x)))) => (sinh ?x)"),
        rule("twice_sinh_by_exp", Real, "(sub (exp ?x) (exp (neg ?x))) => (mul 2 (sinh ?x))"),
        rule("twice_minus_sinh_by_exp", Real, "(sub (exp (neg ?x)) (exp ?x)) => (mul -2 (sinh ?x))"),
        rule("cosh_minus_one", Rounding, "(sub (cosh ?x) 1) => (mul 2 (sqr (sinh (mul 0.5 ?x))))"),
        rule("one_minus_cosh_strict", Rounding, "(sub 1 (cosh ?x)) => (sub +0 (mul 2 (sqr (sinh (mul 0.5 ?x)))))").under_strict(),
        rule("one_minus_cosh", Real, "(sub 1 (cosh ?x)) => (mul -2 (sqr (sinh (mul 0.5 ?x))))"),
        rule("cosh_minus_sinh", Real, "(sub (cosh ?x) (sinh ?x)) => (exp (neg ?x))"),
        rule("sinh_minus_cosh", Real, "(sub (sinh ?x) (cosh ?x)) => (neg (exp (neg ?x)))"),
        rule("cosh_plus_sinh", Real, "(add (cosh ?x) (sinh ?x)) => (exp ?x)"),
        rule("cosh_by_exp", Real, "(mul 0.5 (add (exp ?x) (exp (neg ?x)))) => (cosh ?x)"),
        // The error function.
        rule("erfc", Rounding, "(sub 1 (erf ?x)) => (erfc ?x)"),
        rule("erfc_of_neg", Rounding, "(add 1 (erf ?x)) => (erfc (neg ?x))"),
        rule("erf_minus_one_strict", Rounding, "(sub (erf ?x) 1) => (sub +0 (erfc ?x))").under_strict(),
        rule("erf_minus_one", Real, "(sub (erf ?x) 1) => (neg (erfc ?x))"),
        rule("one_minus_erfc_strict", Rounding, "(sub 1 (erfc ?x)) => (erf (add ?x +0))").under_strict(),
        rule("one_minus_erfc", Real, "(sub 1 (erfc ?x)) => (erf ?x)"),
        rule("erfc_minus_one_strict", Rounding, "(sub (erfc ?x) 1) => (sub +0 (erf ?x))").under_strict(),
        rule("erfc_minus_one", Real, "(sub (erfc ?x) 1) => (neg (erf ?x))"),
        rule("two_minus_erfc", Rounding, "(sub 2 (erfc ?x)) => (erfc (neg ?x))"),
        // Two exponentials under a logarithm. The order of the operands of `minimum` makes equal ones share the gradient;
        // -inf - -inf would be NaN.
        rule("log_add_exp", Real, "(log (add (exp ?a) (exp ?b))) => (add (maximum ?a ?b) (softplus (switch (isinf (maximum ?a ?b)) 0 (sub (minimum ?b ?a) (maximum ?a ?b)))))"),
        rule("log_add_exp_constant", Real, "(log (add ?c (exp ?x))) => (add (! log ?c) (softplus (sub ?x (! log ?c)))) if constant ?c, positive ?c"),
        rule("log_sub_exp", Real, "(log (sub (exp ?a) (exp ?b))) => (add ?a (log1mexp (sub ?b ?a)))"),
        // Logarithms of near numbers.
        function("log_difference", Real, "(sub (log (add ?x ?c)) (log ?x)) if constant ?c", log_of_ratio),
        function("log_difference_neg", Real, "(sub (log ?x) (log (add ?x ?c))) if constant ?c", |found| {
            log_of_ratio(found).map(|log| Built::map(ScalarFn::Neg, [log]))
        }),
        // Many exponentials under a logarithm, and softmax.
        function("log_sum_exp", Real, "(log (sum:r (exp ?x)))", log_sum_exp),
        function("softmax", Real, "(div (exp ?x) (broadcast:b (sum:r (exp ?x))))", softmax),
        function("softmax_flat", Real, "(div (exp ?x) (broadcast:b (reshape:k (sum:r (exp ?x)))))", softmax_flat),
        fact("shifted_is_nonpositive", Real, "(sub ?x ?m) if peak ?m ?x, float ?x", |_| {
            Some(Facts::within(f64::NEG_INFINITY, 0.0))
        }),
        fact("sum_holds_a_one", Real, "(sum:r (exp (sub ?x ?m))) if peak ?m ?x", sum_holds_a_one),
        fact("quotient_by_own_sum", Real, "(div ?x (broadcast:b (sum:r ?x))) if nonnegative ?x", quotient_by_own_sum),
        // A chosen 0 beside y log y is there for an infinite logarithm.
        rule("xlogy", Real, "(xlogy ?y ?z) => (switch (eq ?y 0) 0 (mul ?y (log ?z)))"),
        rule("xlogy_eq", Real, "(switch (eq ?y 0) 0 (mul ?y ?z)) => (mul ?y ?z) if finite ?z"),
        rule("xlogy_eq_spread", Real, "(switch (broadcast:b (eq ?y 0)) 0 (mul (broadcast:b ?y) ?z)) => (mul (:b ?y) ?z) if finite ?z"),
        rule("xlogy_ne", Real, "(switch (ne ?y 0) (mul ?y ?z) 0) => (mul ?y ?z) if finite ?z"),
        rule("xlogy_gt", Real, "(switch (gt ?y 0) (mul ?y ?z) 0) => (mul ?y ?z) if finite ?z, nonnegative ?y"),
        // Differences that cancel.
        rule("sqrt_difference", Real, "(sub (sqrt (add ?x ?c)) (sqrt ?x)) => (div ?c (add (sqrt (add ?x ?c)) (sqrt ?x))) if positive ?c"),
        rule("sqrt_difference_neg", Real, "(sub (sqrt ?x) (sqrt (add ?x ?c))) => (neg (div ?c (add (sqrt (add ?x ?c)) (sqrt ?x)))) if positive ?c"),
        rule("sqrt_difference_left", Real, "(sub (sqrt ?a) (sqrt ?b)) => (div (sub ?a ?b) (add (sqrt ?a) (sqrt ?b))) if positive ?a"),
        rule("sqrt_difference_right", Real, "(sub (sqrt ?a) (sqrt ?b)) => (div (sub ?a ?b) (add (sqrt ?a) (sqrt ?b))) if positive ?b"),
        rule("sqrt_minus_constant", Real, "(sub (sqrt ?x) ?c) => (div (sub ?x (! mul ?c ?c)) (add (sqrt ?x) ?c)) if constant ?c, positive ?c"),
        rule("constant_minus_sqrt", Real, "(sub ?c (sqrt ?x)) => (div (sub (! mul ?c ?c) ?x) (add (sqrt ?x) ?c)) if constant ?c, positive ?c"),
        rule("one_minus_cos", Rounding, "(sub 1 (cos ?x)) => (mul 2 (sqr (sin (mul 0.5 ?x))))"),
        rule("cos_minus_one_strict", Rounding, "(sub (cos ?x) 1) => (sub +0 (mul 2 (sqr (sin (mul 0.5 ?x)))))").under_strict(),
        rule("cos_minus_one", Real, "(sub (cos ?x) 1) => (mul -2 (sqr (sin (mul 0.5 ?x))))"),
        rule("one_plus_cos", Rounding, "(add 1 (cos ?x)) => (mul 2 (sqr (cos (mul 0.5 ?x))))"),
        rule("one_minus_sqr_cos", Rounding, "(sub 1 (sqr (cos ?x))) => (sqr (sin ?x))"),
        rule("one_minus_sqr_sin", Rounding, "(sub 1 (sqr (sin ?x))) => (sqr (cos ?x))"),
        rule("one_minus_cos_over_sqr", Real, "(div (sub 1 (cos ?x)) (sqr ?x)) => (mul 0.5 (sqr (div (sin (mul 0.5 ?x)) (mul 0.5 ?x))))"),
        function("variance", Real, "(sub (mul ?c (sum:r (sqr ?x))) (sqr (mul ?c (sum:r ?x)))) if constant ?c, float ?c", variance),
        function("variance_of_quotients", Real, "(sub (div (sum:r (sqr ?x)) ?c) (sqr (div (sum:r ?x) ?c))) if constant ?c", variance_of_quotients),
        // A norm whose squares would overflow.
        function("norm", Real, "(sqrt (sum:r (sqr ?x)))", norm),
        function("hypotenuse", Real, "(sqrt (add (sqr ?a) (sqr ?b)))", hypotenuse),
        fact("scaled_by_largest", Real, "(div ?x (broadcast:b (stop? (switch (or (eq (max:r (abs ?x)) 0) (isinf (max:r (abs ?x)))) 1 (max:r (abs ?x))))))", scaled_by_largest),
        fact("scaled_by_larger", Real, "(div ?a (stop? (switch (or (eq (maximum (abs ?a) (abs ?b)) 0) (isinf (maximum (abs ?a) (abs ?b)))) 1 (maximum (abs ?a) (abs ?b)))))", |_| Some(unit_range())),
    ]
}

/// Whether the values of a class are surely not so large that an exponential overflows or vanishes.
fn exp_is_safe(egraph: &Egraph<'_>, x: Id) -> bool {
    let data = &egraph[x].data;
    let limit = exp_limit(data.ty.dtype);
    data.facts.low >= -limit && data.facts.high <= limit
}

/// For each axis of a value the axis of another one that it lies along, if any.
type Places = SmallVec<[Option<usize>; 8]>;

/// The axes along which `m` is the largest element of `x`, spread again to the shape of `x`: through broadcasts,
/// `stop_gradient` and a choice of 0 where it is infinite.
pub(crate) fn peak(egraph: &Egraph<'_>, m: Id, x: Id) -> Option<Axes> {
    let x = egraph.find(x);
    let rank = egraph[x].data.ty.rank();
    // Which axis of `x` each axis of the present value lies along.
    let places: Places = (0..rank).map(Some).collect();
    let mut pending: VecDeque<(Id, Places, usize)> = VecDeque::from([(m, places, 0)]);
    // A class may hold many choices between its own values, which are looked at once; from near to far, so that none is
    // reached at a greater depth than it has.
    let mut seen: BTreeSet<(Id, Places)> = BTreeSet::new();
    while let Some((class, places, depth)) = pending.pop_front() {
        if depth > 6 || !seen.insert((egraph.find(class), places.clone())) {
            continue;
        }
        for term in &egraph[class].nodes {
            if let Op::Reduce(Fold::Max, axes) = term.op
                && egraph.find(term.operands[0]) == x
            {
                let shape = &egraph[x].data.ty.shape;
                let kept = axes.others(rank);
                let lies = kept
                    .zip(&places)
                    .all(|(axis, place)| *place == Some(axis) || shape[axis] == Extent::Known(1));
                if lies {
                    return Some(axes);
                }
            }
            if term.op == Op::Map(ScalarFn::Select) {
                pending.push_back((term.operands[2], places.clone(), depth + 1));
            }
            let inner_places = match term.op.view() {
                Some(View::Same) => places.clone(),
                Some(View::Broadcast(axes)) => {
                    let inner = &egraph[term.operands[0]].data.ty.shape;
                    let shape = &egraph[class].data.ty.shape;
                    let place = |(&axis, extent): (&u8, &Extent)| {
                        places[usize::from(axis)].filter(|_| *extent == shape[usize::from(axis)])
                    };
                    axes.iter().zip(inner).map(place).collect()
                }
                Some(View::Reshape) => {
                    // Only extents of 1 come or go.
                    let long = |id: Id| -> SmallVec<[(usize, Extent); 8]> {
                        let shape = egraph[id].data.ty.shape.iter().copied().enumerate();
                        shape.filter(|(_, e)| *e != Extent::Known(1)).collect()
                    };
                    let (outer, inner) = (long(class), long(term.operands[0]));
                    if outer.iter().map(|o| o.1).ne(inner.iter().map(|i| i.1)) {
                        continue;
                    }
                    let mut inner_places: Places =
                        egraph[term.operands[0]].data.ty.shape.iter().map(|_| None).collect();
                    for ((from, _), (to, _)) in outer.iter().zip(&inner) {
                        inner_places[*to] = places[*from];
                    }
                    inner_places
                }
                Some(View::Permute(_) | View::Slice | View::Window(_)) | None => continue,
            };
            pending.push_back((term.operands[0], inner_places, depth + 1));
        }
    }
    None
}

/// Among the summands along the axes of the maximum is `e^0`.
fn sum_holds_a_one(found: &Found<'_, '_>) -> Option<Facts> {
    let Op::Reduce(_, summed) = found.op("r") else { return None };
    let axes = peak(found.egraph, found.class("m"), found.class("x"))?;
    let extents = found.extents("x");
    let covered = axes.iter().all(|axis| summed.contains(axis));
    let some = summed.iter().all(|axis| extents[axis] > 0);
    (covered && some).then(|| Facts::within(1.0, f64::INFINITY))
}

/// Each is at most the sum of all.
fn quotient_by_own_sum(found: &Found<'_, '_>) -> Option<Facts> {
    keeps_places(found, "b", "r", "x").then(|| Facts::within(0.0, 1.0))
}

/// Whether a broadcast puts the axes that a reduction of `x` left back to their places, in the shape of `x`.
fn keeps_places(found: &Found<'_, '_>, broadcast: &str, reduction: &str, x: &str) -> bool {
    let (Op::Broadcast { axes, .. }, Op::Reduce(_, reduced)) = (found.op(broadcast), found.op(reduction))
    else {
        return false;
    };
    let ty = &found.data(x).ty;
    axes.iter().map(|&axis| usize::from(axis)).eq(reduced.others(ty.rank()))
}

/// Spreads a reduced value over the axes that went away.
pub(super) fn spread(reduced: Built, axes: Axes, extents: &[usize]) -> Built {
    let kept = axes.others(extents.len()).map(|axis| axis as u8).collect();
    Built::node(Op::Broadcast { axes: kept, dims: hypatia_graph::op::known_dims(extents) }, reduced)
}

/// The largest element along axes, 0 where that is infinite; no gradient flows through it.
fn shift(x: Id, axes: Axes) -> Built {
    let largest = Built::node(Op::Reduce(Fold::Max, axes), Built::Class(x));
    let infinite = Built::map(ScalarFn::IsInf, [largest.clone()]);
    let guarded = Built::map(ScalarFn::Select, [infinite, Built::Number(0.0), largest]);
    Built::node(Op::StopGradient, guarded)
}

/// Whether a sum of `e^x` needs no shift: `x` is small, or shifted already.
fn needs_no_shift(found: &Found<'_, '_>) -> bool {
    let x = found.class("x");
    found.extents("x").contains(&0)
        || exp_is_safe(found.egraph, x)
        || (found.data("x").facts.high <= 0.0 && is_shifted(found.egraph, x))
}

/// Whether the class holds something minus its own largest element.
fn is_shifted(egraph: &Egraph<'_>, class: Id) -> bool {
    egraph[class].nodes.iter().any(|term| {
        term.op == Op::Map(ScalarFn::Sub) && peak(egraph, term.operands[1], term.operands[0]).is_some()
    })
}

/// `log(sum(e^x))` is `m + log(sum(e^(x - m)))`, with the largest `x` for `m`.
fn log_sum_exp(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Reduce(fold, axes) = found.op("r") else { return None };
    if needs_no_shift(found) || axes.is_empty() {
        return None;
    }
    let x = found.class("x");
    let m = shift(x, *axes);
    let shifted = Built::map(ScalarFn::Sub, [Built::Class(x), spread(m, *axes, &found.extents("x"))]);
    let total = Built::node(Op::Reduce(*fold, *axes), Built::map(ScalarFn::Exp, [shifted]));
    // Where all are -inf, the largest is the whole: the logarithm of 0 would have no gradient.
    let largest = Built::node(Op::Reduce(Fold::Max, *axes), Built::Class(x));
    let none = Built::map(ScalarFn::Eq, [largest.clone(), Built::Number(f64::NEG_INFINITY)]);
    let total = Built::map(ScalarFn::Select, [none, Built::Number(1.0), total]);
    let largest = Built::node(Op::StopGradient, largest);
    Some(Built::map(ScalarFn::Add, [largest, Built::map(ScalarFn::Log, [total])]))
}

/// `e^x / sum(e^x)` with `x` shifted by its largest element.
fn softmax(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Reduce(_, axes) = found.op("r") else { return None };
    keeps_places(found, "b", "r", "x").then(|| shifted_softmax(found, *axes))?
}

/// As [`softmax`], where the reduced axes came back as extents of 1 by a reshape.
fn softmax_flat(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Reduce(_, axes), Op::Reshape(_)) = (found.op("r"), found.op("k")) else { return None };
    let extents = found.extents("x");
    let kept: SmallVec<[usize; 8]> =
        extents.iter().enumerate().map(|(axis, &n)| if axes.contains(axis) { 1 } else { n }).collect();
    let reshaped = found.egraph[found.term("b").operands[0]].data.extents();
    (reshaped.as_slice() == kept.as_slice()).then(|| shifted_softmax(found, *axes))?
}

fn shifted_softmax(found: &Found<'_, '_>, axes: Axes) -> Option<Built> {
    if needs_no_shift(found) || axes.is_empty() {
        return None;
    }
    let (x, extents) = (found.class("x"), found.extents("x"));
    let shifted = Built::map(ScalarFn::Sub, [Built::Class(x), spread(shift(x, axes), axes, &extents)]);
    let exponentials = Built::map(ScalarFn::Exp, [shifted]);
    let total = Built::node(Op::Reduce(Fold::Sum, axes), exponentials.clone());
    Some(Built::map(ScalarFn::Div, [exponentials, spread(total, axes, &extents)]))
}

/// `log(a b)` is `log(a) + log(b)`, and `log(a / b)` their difference: for all positive factors at once, so that a long
/// product is no long chain of steps. A factor whose logarithm is there already stays whole: others share it.
fn log_of_factors(found: &Found<'_, '_>, of_second: f64) -> Option<Built> {
    let egraph = found.egraph;
    let positive = |id: Id| egraph[id].data.facts.positive();
    let has_log = |id: Id| {
        let log = Term { op: Op::Map(ScalarFn::Log), operands: SmallVec::from_slice(&[id]) };
        egraph.lookup(log).is_some()
    };
    // Two factors and the exponent of the second.
    let split = |id: Id| {
        let terms = egraph[id].nodes.iter().filter(|_| !has_log(id));
        terms.filter(|term| term.operands.iter().all(|o| positive(*o))).find_map(|term| {
            let quotient = term.op == Op::Map(ScalarFn::Div);
            if !quotient && term.op != Op::Map(ScalarFn::Mul) {
                return None;
            }
            let of_second = if quotient { -1.0 } else { 1.0 };
            Some((egraph.find(term.operands[0]), egraph.find(term.operands[1]), of_second))
        })
    };
    let (first, second) = (egraph.find(found.class("a")), egraph.find(found.class("b")));
    // Products before their factors: the order in which they are left, backwards.
    let mut order: Vec<Id> = Vec::new();
    let mut open: BTreeMap<Id, bool> = BTreeMap::new();
    let mut pending = vec![(first, false), (second, false)];
    while let Some((id, done)) = pending.pop() {
        if done {
            open.insert(id, false);
            order.push(id);
        } else if let Some(is_open) = open.get(&id) {
            if *is_open {
                // A value that is a factor of itself.
                return None;
            }
        } else {
            open.insert(id, true);
            pending.push((id, true));
            if let Some((a, b, _)) = split(id) {
                pending.extend([(a, false), (b, false)]);
            }
        }
    }
    let mut exponents: BTreeMap<Id, f64> = BTreeMap::new();
    *exponents.entry(first).or_default() += 1.0;
    *exponents.entry(second).or_default() += of_second;
    // Summands with their signs.
    let mut logs: Vec<(Built, bool)> = Vec::new();
    for id in order.into_iter().rev() {
        let exponent = exponents[&id];
        if let Some((a, b, of_second)) = split(id) {
            *exponents.entry(a).or_default() += exponent;
            *exponents.entry(b).or_default() += exponent * of_second;
        } else if exponent != 0.0 {
            let log = Built::map(ScalarFn::Log, [Built::Class(id)]);
            let times = exponent.abs();
            let log = if times == 1.0 { log } else { Built::map(ScalarFn::Mul, [Built::Number(times), log]) };
            logs.push((log, exponent < 0.0));
        }
    }
    // In pairs: what rules do with a sum takes as many rounds as the sum is deep.
    while logs.len() > 1 {
        let mut pairs = Vec::with_capacity(logs.len().div_ceil(2));
        let mut rest = logs.into_iter();
        while let Some((left, minus)) = rest.next() {
            pairs.push(match rest.next() {
                None => (left, minus),
                Some((right, other)) if minus == other => (Built::map(ScalarFn::Add, [left, right]), minus),
                Some((right, _)) => (Built::map(ScalarFn::Sub, [left, right]), minus),
            });
        }
        logs = pairs;
    }
    let (sum, minus) = logs.pop().unwrap_or((Built::Number(0.0), false));
    Some(if minus { Built::map(ScalarFn::Neg, [sum]) } else { sum })
}

/// `log((x + c) / x)`, of a constant that no normal number makes overflow.
fn log_of_ratio(found: &Found<'_, '_>) -> Option<Built> {
    let small = found.data("c").constant?.to_f64().abs() <= 2.0;
    let ratio = [Built::Class(found.class("c")), Built::Class(found.class("x"))];
    small.then(|| Built::map(ScalarFn::Log1p, [Built::map(ScalarFn::Div, ratio)]))
}

fn log_prod(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Reduce(_, axes) = found.op("r") else { return None };
    let logarithms = Built::map(ScalarFn::Log, [Built::Class(found.class("x"))]);
    Some(Built::node(Op::Reduce(Fold::Sum, *axes), logarithms))
}

/// `E[x^2] - E[x]^2` is `E[(x - E[x])^2]`.
fn variance(found: &Found<'_, '_>) -> Option<Built> {
    centred_squares(found, |constant, count| (constant * count - 1.0).abs() < 1e-6)
}

fn variance_of_quotients(found: &Found<'_, '_>) -> Option<Built> {
    centred_squares(found, |constant, count| constant == count)
}

fn centred_squares(found: &Found<'_, '_>, averages: fn(f64, f64) -> bool) -> Option<Built> {
    let Op::Reduce(fold, axes) = found.op("r") else { return None };
    let extents = found.extents("x");
    let count: usize = axes.iter().map(|axis| extents[axis]).product();
    if count == 0 || !averages(found.data("c").constant?.to_f64(), count as f64) {
        return None;
    }
    let mean = |sum: Built| Built::map(ScalarFn::Div, [sum, Built::Number(count as f64)]);
    let total = |x: Built| Built::node(Op::Reduce(*fold, *axes), x);
    let x = Built::Class(found.class("x"));
    let centred = Built::map(ScalarFn::Sub, [x.clone(), spread(mean(total(x)), *axes, &extents)]);
    Some(mean(total(Built::map(ScalarFn::Sqr, [centred]))))
}

/// Whether squares of the values surely stay far from overflow.
fn squares_are_safe(egraph: &Egraph<'_>, x: Id) -> bool {
    let data = &egraph[x].data;
    let limit = 1.0 / tiny(data.ty.dtype).sqrt() * 1e-3;
    data.facts.high <= limit && data.facts.low >= -limit
}

/// `sqrt(sum(x^2))` is `m sqrt(sum((x / m)^2))`, with the largest `|x|` for `m`.
fn norm(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Reduce(fold, axes) = found.op("r") else { return None };
    let x = found.class("x");
    let extents = found.extents("x");
    if squares_are_safe(found.egraph, x) || extents.contains(&0) || axes.is_empty() {
        return None;
    }
    let sizes = Built::map(ScalarFn::Abs, [Built::Class(x)]);
    let m = scale(Built::node(Op::Reduce(Fold::Max, *axes), sizes));
    let scaled = Built::map(ScalarFn::Div, [Built::Class(x), spread(m.clone(), *axes, &extents)]);
    let total = Built::node(Op::Reduce(*fold, *axes), Built::map(ScalarFn::Sqr, [scaled]));
    Some(Built::map(ScalarFn::Mul, [m, Built::map(ScalarFn::Sqrt, [total])]))
}

/// `sqrt(a^2 + b^2)`, scaled as [`norm`].
fn hypotenuse(found: &Found<'_, '_>) -> Option<Built> {
    let (a, b) = (found.class("a"), found.class("b"));
    if [a, b].iter().all(|x| squares_are_safe(found.egraph, *x) || found.egraph[*x].data.constant.is_some()) {
        return None;
    }
    let size = |x: Id| Built::map(ScalarFn::Abs, [Built::Class(x)]);
    let m = scale(Built::map(ScalarFn::Max, [size(a), size(b)]));
    let part = |x: Id| Built::map(ScalarFn::Sqr, [Built::map(ScalarFn::Div, [Built::Class(x), m.clone()])]);
    let root = Built::map(ScalarFn::Sqrt, [Built::map(ScalarFn::Add, [part(a), part(b)])]);
    Some(Built::map(ScalarFn::Mul, [m.clone(), root]))
}

fn unit_range() -> Facts {
    Facts { finite: true, number: true, ..Facts::within(-1.0, 1.0) }
}

/// See [`norm`].
fn scaled_by_largest(found: &Found<'_, '_>) -> Option<Facts> {
    keeps_places(found, "b", "r", "x").then(unit_range)
}

/// What to divide by so that the largest becomes 1: nothing where it is 0 or infinite.
fn scale(largest: Built) -> Built {
    let zero = Built::map(ScalarFn::Eq, [largest.clone(), Built::Number(0.0)]);
    let infinite = Built::map(ScalarFn::IsInf, [largest.clone()]);
    let none = Built::map(ScalarFn::Or, [zero, infinite]);
    Built::node(Op::StopGradient, Built::map(ScalarFn::Select, [none, Built::Number(1.0), largest]))
}
