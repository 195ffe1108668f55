//! Algebra of single elements: identities, signs, powers, choices, comparisons, conversions.

use hypatia_graph::op::Op;
use hypatia_graph::{DType, ScalarFn};

use super::{Exactness::*, Found, Rule, function, rule};
use crate::facts::Facts;
use crate::pattern::Built;

#[rustfmt::skip] // One line a rule.
pub(crate) fn rules() -> Vec<Rule> {
    vec![
        // Neutral elements. Only `-0` is neutral to every float: 0 + -0 is 0.
        rule("add_zero", Rounding, "(add ?x 0) => ?x"),
        rule("sub_zero", Exact, "(sub ?x 0) => ?x"),
        rule("zero_sub", Rounding, "(sub 0 ?x) => (neg ?x)"),
        rule("mul_one", Exact, "(mul ?x 1) => ?x"),
        rule("div_one", Exact, "(div ?x 1) => ?x"),
        rule("mul_minus_one", Exact, "(mul ?x -1) => (neg ?x)"),
        rule("div_minus_one", Exact, "(div ?x -1) => (neg ?x)"),
        rule("pow_zero", Exact, "(pow ?x 0) => 1"),
        rule("pow_one", Exact, "(pow ?x 1) => ?x"),
        rule("floordiv_one", Exact, "(floordiv ?x 1) => ?x if integer ?x, finite ?x"),
        // What cancels. A NaN or infinity would not.
        rule("mul_zero", Rounding, "(mul ?x 0) => 0 if finite ?x"),
        rule("mul_zero_real", Real, "(mul ?x 0) => 0"),
        rule("zero_div", Rounding, "(div 0 ?x) => 0 if nonzero ?x, number ?x"),
        rule("zero_div_real", Real, "(div 0 ?x) => 0"),
        rule("sub_self", Exact, "(sub ?x ?x) => 0 if finite ?x"),
        rule("sub_self_real", Real, "(sub ?x ?x) => 0"),
        rule("div_self", Exact, "(div ?x ?x) => 1 if nonzero ?x, finite ?x"),
        rule("div_self_real", Real, "(div ?x ?x) => 1"),
        rule("add_sub_cancel", Real, "(sub (add ?x ?y) ?y) => ?x"),
        rule("sub_add_cancel", Real, "(add (sub ?x ?y) ?y) => ?x"),
        rule("sub_sub_cancel", Real, "(sub ?x (sub ?x ?y)) => ?y"),
        rule("sub_of_sum_cancel", Real, "(sub ?x (add ?x ?y)) => (neg ?y)"),
        rule("difference_of_same", Real, "(sub (sub ?x ?y) ?x) => (neg ?y)"),
        rule("mul_div_cancel", Real, "(div (mul ?x ?y) ?y) => ?x if nonzero ?y"),
        rule("div_mul_cancel", Real, "(mul (div ?x ?y) ?y) => ?x if nonzero ?y"),
        rule("div_div_cancel", Real, "(div ?x (div ?x ?y)) => ?y if nonzero ?x"),
        rule("mul_recip_cancel", Real, "(mul ?x (reciprocal ?x)) => 1 if nonzero ?x"),
        rule("common_factor_cancel", Real, "(div (mul ?a ?c) (mul ?b ?c)) => (div ?a ?b) if nonzero ?c"),
        // Signs.
        rule("neg_neg", Exact, "(neg (neg ?x)) => ?x"),
        rule("neg_sub", Rounding, "(neg (sub ?a ?b)) => (sub ?b ?a)"),
        rule("add_neg", Exact, "(add ?a (neg ?b)) => (sub ?a ?b)"),
        rule("sub_neg", Exact, "(sub ?a (neg ?b)) => (add ?a ?b)"),
        rule("neg_minus", Exact, "(sub (neg ?a) ?b) => (neg (add ?a ?b))"),
        rule("mul_neg", Exact, "(mul (neg ?a) ?b) => (neg (mul ?a ?b)) if variable ?b"),
        rule("div_neg", Exact, "(div (neg ?a) ?b) => (neg (div ?a ?b)) if variable ?b"),
        rule("div_by_neg", Exact, "(div ?a (neg ?b)) => (neg (div ?a ?b)) if variable ?a"),
        rule("mul_neg_constant", Exact, "(mul ?c (neg ?x)) => (mul (! neg ?c) ?x) if constant ?c, float ?c"),
        rule("div_neg_constant", Exact, "(div ?c (neg ?x)) => (div (! neg ?c) ?x) if constant ?c"),
        rule("neg_mul_constant", Exact, "(neg (mul ?c ?x)) => (mul (! neg ?c) ?x) if constant ?c, float ?c"),
        rule("neg_div_constant", Exact, "(neg (div ?c ?x)) => (div (! neg ?c) ?x) if constant ?c"),
        rule("sub_neg_constant", Exact, "(add (neg ?x) ?c) => (sub ?c ?x)"),
        rule("abs_neg", Exact, "(abs (neg ?x)) => (abs ?x)"),
        rule("sqr_neg", Exact, "(sqr (neg ?x)) => (sqr ?x)"),
        rule("cos_neg", Exact, "(cos (neg ?x)) => (cos ?x)"),
        rule("cosh_neg", Exact, "(cosh (neg ?x)) => (cosh ?x)"),
        rule("sin_neg", Exact, "(sin (neg ?x)) => (neg (sin ?x))"),
        rule("tanh_neg", Exact, "(tanh (neg ?x)) => (neg (tanh ?x))"),
        rule("erf_neg", Exact, "(erf (neg ?x)) => (neg (erf ?x))"),
        rule("abs_sqr", Exact, "(sqr (abs ?x)) => (sqr ?x)"),
        rule("abs_abs", Exact, "(abs (abs ?x)) => (abs ?x)"),
        rule("abs_of_nonnegative", Rounding, "(abs ?x) => ?x if nonnegative ?x"),
        rule("abs_of_nonpositive", Rounding, "(abs ?x) => (neg ?x) if nonpositive ?x"),
        rule("sign_of_positive", Exact, "(sign ?x) => 1 if positive ?x, number ?x"),
        rule("sign_times_abs", Exact, "(mul (sign ?x) (abs ?x)) => ?x if finite ?x, nonzero ?x"),
        rule("sign_times_abs_real", Real, "(mul (sign ?x) (abs ?x)) => ?x"),
        // Constants gather: an overflow between them goes away, so none of these is for `Strict`.
        rule("mul_mul_constant", Real, "(mul ?a (mul ?b ?x)) => (mul (! mul ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("add_add_constant", Real, "(add ?a (add ?b ?x)) => (add (! add ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("add_sub_constant", Real, "(add ?a (sub ?b ?x)) => (sub (! add ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("sub_add_constant", Real, "(sub (add ?a ?x) ?b) => (add (! sub ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("sub_from_constants", Real, "(sub ?a (add ?b ?x)) => (sub (! sub ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("sub_sub_constant", Real, "(sub ?a (sub ?b ?x)) => (add (! sub ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("mul_div_constant", Real, "(div (mul ?a ?x) ?b) => (mul (! div ?a ?b) ?x) if constant ?a, constant ?b, nonzero ?b"),
        rule("div_power_of_two", Exact, "(div ?x ?c) => (mul (! reciprocal ?c) ?x) if power_of_two ?c, invertible ?c, variable ?x"),
        rule("div_constant", Rounding, "(div ?x ?c) => (mul (! reciprocal ?c) ?x) if invertible ?c, variable ?x"),
        rule("div_of_div", Real, "(div (div ?x ?y) ?c) => (div (mul (! reciprocal ?c) ?x) ?y) if invertible ?c, variable ?x"),
        rule("constant_over_mul", Real, "(div ?a (mul ?b ?x)) => (div (! div ?a ?b) ?x) if constant ?a, constant ?b, nonzero ?b"),
        rule("mul_constant_over", Real, "(mul ?a (div ?b ?x)) => (div (! mul ?a ?b) ?x) if constant ?a, constant ?b"),
        rule("common_variable", Real, "(add (mul ?a ?x) (mul ?b ?x)) => (mul (! add ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        rule("common_variable_once", Real, "(add ?x (mul ?a ?x)) => (mul (! add ?a 1) ?x) if constant ?a, float ?a"),
        rule("common_variable_sub", Real, "(sub (mul ?a ?x) (mul ?b ?x)) => (mul (! sub ?a ?b) ?x) if constant ?a, constant ?b, float ?a"),
        // Products and quotients.
        rule("mul_self", Exact, "(mul ?x ?x) => (sqr ?x)"),
        rule("one_over", Exact, "(div 1 ?x) => (reciprocal ?x)"),
        rule("mul_recip", Real, "(mul ?a (reciprocal ?b)) => (div ?a ?b)"),
        rule("recip_recip", Rounding, "(reciprocal (reciprocal ?x)) => ?x if finite ?x, nonzero ?x"),
        rule("recip_div", Real, "(reciprocal (div ?a ?b)) => (div ?b ?a) if nonzero ?a, nonzero ?b"),
        rule("div_by_recip", Real, "(div ?a (reciprocal ?b)) => (mul ?a ?b) if nonzero ?b, finite ?b"),
        rule("mul_div_same", Real, "(mul ?x (div ?y ?x)) => ?y if nonzero ?x, finite ?x, finite ?y"),
        // Powers.
        rule("pow_two", Rounding, "(pow ?x 2) => (sqr ?x)"),
        rule("pow_three", Rounding, "(pow ?x 3) => (mul (sqr ?x) ?x)"),
        rule("pow_four", Rounding, "(pow ?x 4) => (sqr (sqr ?x))"),
        rule("pow_half", Rounding, "(pow ?x 0.5) => (sqrt ?x) if nonnegative ?x, float ?x"),
        rule("pow_half_real", Real, "(pow ?x 0.5) => (sqrt ?x) if float ?x"),
        rule("pow_minus_half", Real, "(pow ?x -0.5) => (reciprocal (sqrt ?x)) if float ?x"),
        rule("pow_minus_one", Rounding, "(pow ?x -1) => (reciprocal ?x) if float ?x"),
        rule("pow_minus_two", Real, "(pow ?x -2) => (reciprocal (sqr ?x)) if float ?x"),
        rule("two_to_the", Rounding, "(pow 2 ?x) => (exp2 ?x) if float ?x"),
        rule("one_to_the", Exact, "(pow 1 ?x) => 1 if number ?x"),
        rule("sqrt_sqr", Real, "(sqrt (sqr ?x)) => (abs ?x)"),
        rule("sqr_sqrt", Real, "(sqr (sqrt ?x)) => ?x"),
        rule("sqrt_times_sqrt", Real, "(div ?x (sqrt ?x)) => (sqrt ?x)"),
        rule("sqr_over_self", Real, "(div (sqr ?x) ?x) => ?x if nonzero ?x"),
        rule("product_of_sqrts", Real, "(mul (sqrt ?x) (sqrt ?x)) => ?x"),
        // Larger and smaller.
        rule("max_self", Exact, "(maximum ?x ?x) => ?x"),
        rule("min_self", Exact, "(minimum ?x ?x) => ?x"),
        rule("max_above", Rounding, "(maximum ?x ?y) => ?y if below ?x ?y, number ?x"),
        rule("min_below", Rounding, "(minimum ?x ?y) => ?x if below ?x ?y, number ?y"),
        rule("max_at_least", Rounding, "(maximum ?x ?y) => ?y if at_most ?x ?y, number ?x, constant ?x"),
        rule("min_at_most", Rounding, "(minimum ?x ?y) => ?x if at_most ?x ?y, number ?y, constant ?y"),
        rule("max_max", Exact, "(maximum ?x (maximum ?x ?y)) => (maximum ?x ?y)"),
        rule("min_min", Exact, "(minimum ?x (minimum ?x ?y)) => (minimum ?x ?y)"),
        rule("max_of_negated", Exact, "(maximum (neg ?x) (neg ?y)) => (neg (minimum ?x ?y)) if float ?x"),
        rule("min_of_negated", Exact, "(minimum (neg ?x) (neg ?y)) => (neg (maximum ?x ?y)) if float ?x"),
        // Choices.
        rule("switch_true", Exact, "(switch true ?a ?b) => ?a"),
        rule("switch_false", Exact, "(switch false ?a ?b) => ?b"),
        rule("switch_same", Exact, "(switch ?c ?a ?a) => ?a"),
        rule("switch_not", Exact, "(switch (not ?c) ?a ?b) => (switch ?c ?b ?a)"),
        rule("switch_then_switch", Exact, "(switch ?c (switch ?c ?a ?b) ?d) => (switch ?c ?a ?d)"),
        rule("switch_else_switch", Exact, "(switch ?c ?a (switch ?c ?b ?d)) => (switch ?c ?a ?d)"),
        rule("switch_both_negated", Exact, "(switch ?c (neg ?a) (neg ?b)) => (neg (switch ?c ?a ?b))"),
        // A branch that is not taken must not send a NaN through a product with 0 (gradients of `switch`).
        rule("mul_switch_zero", Real, "(mul (switch ?c ?a 0) ?b) => (switch ?c (mul ?a ?b) 0)"),
        rule("mul_switch_zero_then", Real, "(mul (switch ?c 0 ?a) ?b) => (switch ?c 0 (mul ?a ?b))"),
        rule("div_switch_zero", Real, "(div (switch ?c ?a 0) ?b) => (switch ?c (div ?a ?b) 0)"),
        rule("div_switch_zero_then", Real, "(div (switch ?c 0 ?a) ?b) => (switch ?c 0 (div ?a ?b))"),
        rule("neg_switch_zero", Rounding, "(neg (switch ?c ?a 0)) => (switch ?c (neg ?a) 0)"),
        rule("neg_switch_zero_then", Rounding, "(neg (switch ?c 0 ?a)) => (switch ?c 0 (neg ?a))"),
        // Comparisons and truth values. That leaves are numbers is an assumption of `Real`, so no question whether
        // something is NaN (`isnan x`, `x == x`) is ever answered by it.
        rule("lt_by_range", Real, "(lt ?x ?y) => true if below ?x ?y"),
        rule("le_by_range", Real, "(le ?x ?y) => true if at_most ?x ?y"),
        rule("gt_by_range", Real, "(gt ?x ?y) => true if below ?y ?x"),
        rule("ge_by_range", Real, "(ge ?x ?y) => true if at_most ?y ?x"),
        rule("not_lt_by_range", Real, "(lt ?x ?y) => false if at_most ?y ?x"),
        rule("not_le_by_range", Real, "(le ?x ?y) => false if below ?y ?x"),
        rule("not_gt_by_range", Real, "(gt ?x ?y) => false if at_most ?x ?y"),
        rule("not_ge_by_range", Real, "(ge ?x ?y) => false if below ?x ?y"),
        rule("not_eq_by_range", Exact, "(eq ?x ?y) => false if below ?x ?y"),
        rule("ne_by_range", Exact, "(ne ?x ?y) => true if below ?x ?y"),
        rule("eq_self", Exact, "(eq ?x ?x) => true if discrete ?x"),
        rule("ne_self", Exact, "(ne ?x ?x) => false if discrete ?x"),
        rule("lt_self", Exact, "(lt ?x ?x) => false"),
        rule("gt_self", Exact, "(gt ?x ?x) => false"),
        rule("le_self", Exact, "(le ?x ?x) => true if discrete ?x"),
        rule("ge_self", Exact, "(ge ?x ?x) => true if discrete ?x"),
        rule("isinf_of_bounded", Exact, "(isinf ?x) => false if bounded ?x"),
        rule("not_not", Exact, "(not (not ?x)) => ?x"),
        rule("not_eq", Exact, "(not (eq ?x ?y)) => (ne ?x ?y)"),
        rule("not_ne", Exact, "(not (ne ?x ?y)) => (eq ?x ?y)"),
        rule("and_self", Exact, "(and ?x ?x) => ?x"),
        rule("or_self", Exact, "(or ?x ?x) => ?x"),
        rule("xor_self", Exact, "(xor ?x ?x) => 0"),
        function("and_constant", Exact, "(and ?x ?c) if constant ?c", and_constant),
        function("or_constant", Exact, "(or ?x ?c) if constant ?c", or_constant),
        // Roundings of what is round.
        rule("floor_integer", Exact, "(floor ?x) => ?x if integer ?x"),
        rule("ceil_integer", Exact, "(ceil ?x) => ?x if integer ?x"),
        rule("trunc_integer", Exact, "(trunc ?x) => ?x if integer ?x"),
        rule("round_integer", Exact, "(round ?x) => ?x if integer ?x"),
        // Inverse functions.
        rule("sinh_arcsinh", Real, "(sinh (arcsinh ?x)) => ?x"),
        rule("arcsinh_sinh", Real, "(arcsinh (sinh ?x)) => ?x"),
        rule("tanh_arctanh", Real, "(tanh (arctanh ?x)) => ?x"),
        rule("arctanh_tanh", Real, "(arctanh (tanh ?x)) => ?x"),
        rule("tan_arctan", Real, "(tan (arctan ?x)) => ?x"),
        rule("sin_arcsin", Real, "(sin (arcsin ?x)) => ?x"),
        rule("cos_arccos", Real, "(cos (arccos ?x)) => ?x"),
        rule("sin_over_cos", Rounding, "(div (sin ?x) (cos ?x)) => (tan ?x)"),
        rule("sinh_over_cosh", Real, "(div (sinh ?x) (cosh ?x)) => (tanh ?x)"),
        // Conversions.
        function("cast_same", Exact, "(cast:c ?x)", cast_same),
        function("cast_cast", Exact, "(cast:c (cast:d ?x))", cast_cast),
        function("cast_constant", Exact, "(cast:c ?x) if constant ?x", cast_constant),
    ]
}

fn cast_same(found: &Found<'_, '_>) -> Option<Built> {
    (*found.op("c") == Op::Cast(found.data("x").ty.dtype)).then(|| Built::Class(found.class("x")))
}

/// Whether every value of the first type is one of the second.
fn widens(from: DType, to: DType) -> bool {
    match (from, to) {
        (DType::Bool, _) => true,
        (DType::U8, to) => to != DType::Bool,
        (DType::I32, to) => matches!(to, DType::I32 | DType::I64 | DType::F64),
        (DType::I64, to) => to == DType::I64,
        (DType::F32, to) => to.is_float(),
        (DType::F64, to) => to == DType::F64,
    }
}

/// The inner conversion does not show where it loses nothing.
fn cast_cast(found: &Found<'_, '_>) -> Option<Built> {
    let (Op::Cast(to), Op::Cast(between)) = (found.op("c"), found.op("d")) else { return None };
    widens(found.data("x").ty.dtype, *between)
        .then(|| Built::node(Op::Cast(*to), Built::Class(found.class("x"))))
}

fn cast_constant(found: &Found<'_, '_>) -> Option<Built> {
    let Op::Cast(to) = found.op("c") else { return None };
    let value = found.data("x").constant?;
    // A number that the type has to round is left for the folding at the end, which rounds once.
    let cast = value.cast(*to);
    (cast.to_f64() == value.to_f64()).then(|| Built::Constant(cast.to_f64(), found.result().ty.clone()))
}

fn and_constant(found: &Found<'_, '_>) -> Option<Built> {
    let boolean = found.result().ty.dtype == DType::Bool;
    match found.data("c").constant?.to_i64()? {
        0 => Some(Built::Number(0.0)),
        1 if boolean => Some(Built::Class(found.class("x"))),
        -1 => Some(Built::Class(found.class("x"))),
        _ => None,
    }
}

fn or_constant(found: &Found<'_, '_>) -> Option<Built> {
    let boolean = found.result().ty.dtype == DType::Bool;
    match found.data("c").constant?.to_i64()? {
        0 => Some(Built::Class(found.class("x"))),
        1 if boolean => Some(Built::Number(1.0)),
        _ => None,
    }
}

/// Whether a function of one element rises wherever the element may be.
pub(super) fn rises(f: ScalarFn, element: &Facts) -> bool {
    let everywhere = matches!(
        f,
        ScalarFn::Exp
            | ScalarFn::Exp2
            | ScalarFn::Expm1
            | ScalarFn::Sigmoid
            | ScalarFn::Softplus
            | ScalarFn::Tanh
            | ScalarFn::Sinh
            | ScalarFn::Asinh
            | ScalarFn::Atan
            | ScalarFn::Erf
    );
    let above_zero = matches!(f, ScalarFn::Log | ScalarFn::Log2 | ScalarFn::Log10 | ScalarFn::Sqrt);
    everywhere || above_zero && element.low >= 0.0 || f == ScalarFn::Log1p && element.low >= -1.0
}
