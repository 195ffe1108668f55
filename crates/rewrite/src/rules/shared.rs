//! A value does not change because something else is asked for too: a formula for every stability rule where its naive
//! form loses digits or breaks, compiled alone, with its gradients, and with each of its parts as a further result. The
//! value of the formula must be that of real arithmetic in all of them.

use std::collections::BTreeSet;

use hypatia_graph::differentiate::differentiate;
use hypatia_graph::interp::interpret;
use hypatia_graph::op::{Disconnected, Grad, Op};
use hypatia_graph::text::parse_formula;
use hypatia_graph::{Array, DType, Graph, NodeId};

use super::{Exactness, stability};
use crate::{Numerics, Options, simplify};

/// Rule, formula, values of `x` and `y` (of the vector `x` after `v:`), value of the formula: `tests/reference/
/// stability_rules.py`.
type Row = (&'static str, &'static str, &'static [f64], f64);

#[rustfmt::skip] // One line a formula.
const ROWS: &[Row] = &[
    ("log1p", "log(1 + x)", &[9.313225746154785e-10], 9.313225741817976e-10),
    ("log1p", "log(1 + x * x)", &[1.52587890625e-05], 2.3283064362676457e-10),
    ("log1p", "log(1 + x) / x", &[9.313225746154785e-10], 0.9999999995343387),
    ("log1p_minus", "log(1 - x)", &[9.313225746154785e-10], -9.313225750491594e-10),
    ("log2_1p", "log2(1 + x)", &[9.313225746154785e-10], 1.3436144592400231e-09),
    ("log2_1p_minus", "log2(1 - x)", &[9.313225746154785e-10], -1.3436144604913617e-09),
    ("log10_1p", "log10(1 + x)", &[9.313225746154785e-10], 4.044682548390866e-10),
    ("log10_1p_minus", "log10(1 - x)", &[9.313225746154785e-10], -4.04468255215777e-10),
    ("expm1", "exp(x) - 1", &[9.313225746154785e-10], 9.313225750491594e-10),
    ("expm1", "(exp(x) - 1) / x", &[9.313225746154785e-10], 1.0000000004656613),
    ("expm1", "exp(x) + -1", &[9.313225746154785e-10], 9.313225750491594e-10),
    ("one_minus_exp", "1 - exp(x)", &[9.313225746154785e-10], -9.313225750491594e-10),
    ("exp2_minus_one", "exp2(x) - 1", &[9.313225746154785e-10], 6.455436169949115e-10),
    ("one_minus_exp2", "1 - exp2(x)", &[9.313225746154785e-10], -6.455436169949115e-10),
    ("expm1_plus_one", "expm1(x) + 1", &[-40.0], 4.248354255291589e-18),
    ("exp_log1p", "exp(log1p(x))", &[0.75], 1.75),
    ("expm1_log1p", "expm1(log1p(x))", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("log1p_expm1", "log1p(expm1(x))", &[800.0], 800.0),
    ("log_exp", "log(exp(x))", &[800.0], 800.0),
    ("log_exp", "log(exp(x))", &[-800.0], -800.0),
    ("exp_log", "exp(log(x))", &[0.75], 0.75),
    ("log2_exp2", "log2(exp2(x))", &[2000.0], 2000.0),
    ("exp2_log2", "exp2(log2(x))", &[0.75], 0.75),
    ("log1p_exp", "log(1 + exp(x))", &[800.0], 800.0),
    ("log1p_exp", "log(1 + exp(x))", &[-40.0], 4.248354255291589e-18),
    ("log1p_neg_exp", "log(1 - exp(x))", &[-9.313225746154785e-10], -20.79441541726402),
    ("log1p_neg_exp", "log(1 - exp(x))", &[-40.0], -4.248354255291589e-18),
    ("log_neg_expm1", "log(-expm1(x))", &[-40.0], -4.248354255291589e-18),
    ("exp_log1mexp", "exp(log1mexp(x))", &[-9.313225746154785e-10], 9.313225741817976e-10),
    ("log_expm1", "log(exp(x) - 1)", &[800.0], 800.0),
    ("exp_softplus", "exp(softplus(x))", &[2.0], 8.38905609893065),
    ("exp_neg_softplus", "exp(-softplus(x))", &[40.0], 4.248354255291589e-18),
    ("expm1_softplus", "expm1(softplus(x))", &[-40.0], 4.248354255291589e-18),
    ("log_recip", "log(1 / x)", &[0.75], 0.2876820724517809),
    ("log_sqrt", "log(sqrt(x))", &[0.75], -0.14384103622589045),
    ("log_sqr_positive", "log((1 / (1 + exp(-x))) ** 2)", &[-60.0], -120.0),
    ("log_sqr", "log(x ** 2)", &[7.888609052210118e-31], -138.62943611198907),
    ("log_pow", "log(sigmoid(x) ** 40)", &[-60.0], -2400.0),
    ("log_product", "log(sigmoid(x) * sigmoid(y))", &[-60.0, -50.0], -110.0),
    ("log_product", "log(erfc(x) * erfc(y))", &[8.0, 8.5], -141.6287076593778),
    ("log_quotient", "log(erfc(x) / erfc(y))", &[8.0, 8.5], 8.309763717767485),
    ("log_prod", "v: log(prod(sigmoid(x)))", &[-60.0, -50.0, -40.0], -150.0),
    ("log_switch", "log(switch(x > 0, 1 + y, 2))", &[1.0, 9.313225746154785e-10], 9.313225741817976e-10),
    ("log2_of_exp", "log2(exp(x))", &[800.0], 1154.1560327111708),
    ("log10_of_exp", "log10(exp(x))", &[800.0], 347.43558552260146),
    ("exp_times_exp", "exp(x) * exp(y)", &[800.0, -798.0], 7.38905609893065),
    ("exp_over_exp", "exp(x) / exp(y)", &[800.0, 798.0], 7.38905609893065),
    ("over_exp", "y / exp(x)", &[60.0, 2.0], 1.751302152539304e-26),
    ("recip_exp", "1 / exp(x)", &[-20.0], 485165195.4097903),
    ("sqr_exp", "exp(x) ** 2", &[-20.0], 4.248354255291589e-18),
    ("sqrt_exp", "sqrt(exp(x))", &[120.0], 1.1420073898156842e+26),
    ("sqrt_exp", "sqrt(exp(x))", &[-120.0], 8.75651076269652e-27),
    ("pow_exp", "exp(x) ** 0.25", &[200.0], 5.184705528587072e+21),
    ("sigmoid_of_neg_exp", "1 / (1 + exp(x))", &[80.0], 1.8048513878454153e-35),
    ("over_one_plus_exp", "y / (1 + exp(x))", &[80.0, 2.0], 3.6097027756908306e-35),
    ("exp_over_one_plus_exp", "exp(x) / (1 + exp(x))", &[800.0], 1.0),
    ("exp_times_sigmoid", "exp(x) * sigmoid(-x)", &[800.0], 1.0),
    ("exp_neg_times_sigmoid", "exp(-x) * sigmoid(x)", &[-800.0], 1.0),
    ("one_minus_sigmoid", "1 - sigmoid(x)", &[40.0], 4.248354255291589e-18),
    ("one_minus_sigmoid_neg", "1 - sigmoid(-x)", &[-40.0], 4.248354255291589e-18),
    ("sigmoid_minus_one", "sigmoid(x) - 1", &[40.0], -4.248354255291589e-18),
    ("sigmoid_odds", "sigmoid(x) / (1 - sigmoid(x))", &[40.0], 2.3538526683702e+17),
    ("sigmoid_ratio", "sigmoid(x) / sigmoid(-x)", &[40.0], 2.3538526683702e+17),
    ("recip_sigmoid", "1 / sigmoid(x)", &[-40.0], 2.3538526683702e+17),
    ("sigmoid_logit", "sigmoid(log(x / (1 - x)))", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("sigmoid_logit_split", "sigmoid(log(x) - log(1 - x))", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("sigmoid_times_both", "sigmoid(x) * (1 - sigmoid(x))", &[40.0], 4.248354255291589e-18),
    ("log_sigmoid", "log(sigmoid(x))", &[-800.0], -800.0),
    ("log_sigmoid", "log(sigmoid(x))", &[40.0], -4.248354255291589e-18),
    ("log1p_neg_sigmoid", "log1p(-sigmoid(x))", &[800.0], -800.0),
    ("log_one_minus_sigmoid", "log(1 - sigmoid(x))", &[800.0], -800.0),
    ("softplus_minus", "softplus(x) - x", &[40.0], 4.248354255291589e-18),
    ("minus_softplus", "x - softplus(x)", &[40.0], -4.248354255291589e-18),
    ("softplus_neg_plus", "softplus(-x) + x", &[-40.0], 4.248354255291589e-18),
    ("softplus_difference", "softplus(x) - softplus(-x)", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("softplus_log", "softplus(log(x))", &[9.313225746154785e-10], 9.313225741817976e-10),
    ("tanh_by_sigmoid", "2 * sigmoid(2 * x) - 1", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("tanh_by_half_sigmoid", "2 * sigmoid(x) - 1", &[9.313225746154785e-10], 4.656612873077393e-10),
    ("tanh_by_half_sigmoid_neg", "1 - 2 * sigmoid(x)", &[9.313225746154785e-10], -4.656612873077393e-10),
    ("sigmoid_minus_half", "sigmoid(x) - 0.5", &[9.313225746154785e-10], 2.3283064365386963e-10),
    ("half_minus_sigmoid", "0.5 - sigmoid(x)", &[9.313225746154785e-10], -2.3283064365386963e-10),
    ("sigmoid_difference", "sigmoid(x) - sigmoid(-x)", &[9.313225746154785e-10], 4.656612873077393e-10),
    ("sigmoid_difference_neg", "sigmoid(-x) - sigmoid(x)", &[9.313225746154785e-10], -4.656612873077393e-10),
    ("sigmoid_by_tanh", "0.5 * (1 + tanh(0.5 * x))", &[-40.0], 4.248354255291589e-18),
    ("one_plus_tanh", "1 + tanh(x)", &[-20.0], 8.496708510583178e-18),
    ("one_minus_tanh", "1 - tanh(x)", &[20.0], 8.496708510583178e-18),
    ("tanh_minus_one", "tanh(x) - 1", &[20.0], -8.496708510583178e-18),
    ("one_minus_sqr_tanh", "1 - tanh(x) ** 2", &[20.0], 1.6993417021166355e-17),
    ("tanh_by_exp", "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("tanh_by_exp", "(exp(x) - exp(-x)) / (exp(x) + exp(-x))", &[800.0], 1.0),
    ("tanh_by_exp_twice", "(exp(2 * x) - 1) / (exp(2 * x) + 1)", &[800.0], 1.0),
    ("tanh_by_exp_minus_twice", "(1 - exp(-2 * x)) / (1 + exp(-2 * x))", &[-800.0], -1.0),
    ("sinh_by_exp", "(exp(x) - exp(-x)) / 2", &[9.313225746154785e-10], 9.313225746154785e-10),
    ("twice_sinh_by_exp", "exp(x) - exp(-x)", &[9.313225746154785e-10], 1.862645149230957e-09),
    ("twice_minus_sinh_by_exp", "exp(-x) - exp(x)", &[9.313225746154785e-10], -1.862645149230957e-09),
    ("cosh_by_exp", "(exp(x) + exp(-x)) / 2", &[2.0], 3.7621956910836314),
    ("cosh_minus_one", "cosh(x) - 1", &[9.313225746154785e-10], 4.336808689942018e-19),
    ("one_minus_cosh", "1 - cosh(x)", &[9.313225746154785e-10], -4.336808689942018e-19),
    ("cosh_minus_sinh", "cosh(x) - sinh(x)", &[20.0], 2.061153622438558e-09),
    ("sinh_minus_cosh", "sinh(x) - cosh(x)", &[20.0], -2.061153622438558e-09),
    ("cosh_plus_sinh", "cosh(x) + sinh(x)", &[-20.0], 2.061153622438558e-09),
    ("erfc", "1 - erf(x)", &[8.0], 1.1224297172982926e-29),
    ("erfc_of_neg", "1 + erf(x)", &[-8.0], 1.1224297172982926e-29),
    ("erf_minus_one", "erf(x) - 1", &[8.0], -1.1224297172982926e-29),
    ("one_minus_erfc", "1 - erfc(x)", &[9.313225746154785e-10], 1.050884991041862e-09),
    ("erfc_minus_one", "erfc(x) - 1", &[9.313225746154785e-10], -1.050884991041862e-09),
    ("two_minus_erfc", "2 - erfc(x)", &[-8.0], 1.1224297172982926e-29),
    ("log_add_exp", "log(exp(x) + exp(y))", &[800.0, 801.0], 801.3132616875182),
    ("log_add_exp", "log(exp(x) + exp(y))", &[-800.0, -801.0], -799.6867383124818),
    ("log_add_exp_constant", "log(2 + exp(x))", &[800.0], 800.0),
    ("log_sub_exp", "log(exp(x) - exp(y))", &[800.0, 799.0], 799.5413248546129),
    ("log_difference", "log(x + 1) - log(x)", &[1125899906842624.0], 8.881784197001248e-16),
    ("log_difference", "log(1 + x) - log(x)", &[9.5367431640625e-07], 13.862944564872768),
    ("log_difference_neg", "log(x) - log(x + 1)", &[1125899906842624.0], -8.881784197001248e-16),
    ("log_product", "log(1 - tanh(x) ** 2)", &[400.0], -798.6137056388801),
    ("log_sum_exp", "v: log(sum(exp(x)))", &[800.0, 801.0, -800.0], 801.3132616875182),
    ("softmax", "v: max(exp(x) / sum(exp(x)))", &[800.0, 801.0, -800.0], 0.7310585786300049),
    ("softmax_flat", "v: max(exp(x) / sum(exp(x), axis=0, keepdims=true))", &[800.0, 801.0, -800.0], 0.7310585786300049),
    ("shifted_is_nonpositive", "v: log(sum(exp(x - max(x))))", &[800.0, 801.0, -800.0], 0.3132616875182228),
    ("sum_holds_a_one", "v: log(sum(exp(x - max(x))))", &[800.0, 801.0, -800.0], 0.3132616875182228),
    ("quotient_by_own_sum", "v: sum(abs(x) / sum(abs(x)))", &[1.0, 2.0, 5.0], 1.0),
    ("xlogy", "xlogy(y, sigmoid(x))", &[-800.0, 2.0], -1600.0),
    ("xlogy_eq", "switch(y == 0, 0, y * log(sigmoid(x)))", &[-800.0, 2.0], -1600.0),
    ("xlogy_ne", "switch(y != 0, y * log(sigmoid(x)), 0)", &[-800.0, 2.0], -1600.0),
    ("xlogy_gt", "switch(abs(y) > 0, abs(y) * log(sigmoid(x)), 0)", &[-800.0, 2.0], -1600.0),
    ("sqrt_difference", "sqrt(x + 1) - sqrt(x)", &[1125899906842624.0], 1.4901161193847653e-08),
    ("sqrt_difference_neg", "sqrt(x) - sqrt(x + 1)", &[1125899906842624.0], -1.4901161193847653e-08),
    ("sqrt_difference_left", "sqrt(1 + x * x) - sqrt(y * y)", &[0.0009765625, 1.0], 4.768370445163415e-07),
    ("sqrt_difference_right", "sqrt(y * y) - sqrt(1 + x * x)", &[0.0009765625, 1.0], -4.768370445163415e-07),
    ("sqrt_minus_constant", "sqrt(1 + x) - 1", &[9.313225746154785e-10], 4.6566128719931904e-10),
    ("constant_minus_sqrt", "1 - sqrt(1 + x)", &[9.313225746154785e-10], -4.6566128719931904e-10),
    ("one_minus_cos", "1 - cos(x)", &[9.5367431640625e-07], 4.5474735088642964e-13),
    ("cos_minus_one", "cos(x) - 1", &[9.5367431640625e-07], -4.5474735088642964e-13),
    ("one_plus_cos", "1 + cos(x)", &[3.1415927410125732], 3.821371231789835e-15),
    ("one_minus_sqr_cos", "1 - cos(x) ** 2", &[9.5367431640625e-07], 9.094947017726525e-13),
    ("one_minus_sqr_sin", "1 - sin(x) ** 2", &[1.5707963705062866], 1.9106856158949176e-15),
    ("one_minus_cos_over_sqr", "(1 - cos(x)) / x ** 2", &[9.5367431640625e-07], 0.4999999999999621),
    ("one_minus_cos_over_sqr", "(1 - cos(x)) / x ** 2", &[7.888609052210118e-31], 0.5),
    ("variance", "v: 0.25 * sum(x ** 2) - (0.25 * sum(x)) ** 2", &[65536.0, 65537.0, 65538.0, 65539.0], 1.25),
    ("variance_of_quotients", "v: sum(x ** 2) / 3 - (sum(x) / 3) ** 2", &[65536.0, 65537.0, 65538.0], 0.6666666666666666),
    ("norm", "v: sqrt(sum(x ** 2))", &[1.2676506002282294e+30, 2.535301200456459e+30, 0.0], 2.8345529138287315e+30),
    ("hypotenuse", "sqrt(x ** 2 + y ** 2)", &[1.2676506002282294e+30, 2.535301200456459e+30], 2.8345529138287315e+30),
    ("scaled_by_largest", "v: sqrt(sum(x ** 2))", &[1.2676506002282294e+30, 2.535301200456459e+30, 0.0], 2.8345529138287315e+30),
    ("scaled_by_larger", "sqrt(x ** 2 + y ** 2)", &[1.2676506002282294e+30, 2.535301200456459e+30], 2.8345529138287315e+30),
];

/// Rules about axes, whose formulas are those of other rows, broadcast.
const WITHOUT_ROW: [&str; 1] = ["xlogy_eq_spread"];

fn graph_of(text: &str, dtype: DType, count: usize) -> Graph {
    let declared = match text.strip_prefix("v: ") {
        Some(formula) => format!("x: {dtype}[{count}]; {formula}"),
        None if count == 2 => format!("x: {dtype}[]; y: {dtype}[]; {text}"),
        None => format!("x: {dtype}[]; {text}"),
    };
    parse_formula(&declared).unwrap().graph().unwrap()
}

fn arguments(text: &str, dtype: DType, point: &[f64]) -> Vec<Array> {
    if text.starts_with("v: ") {
        return vec![Array::vector(point).cast(dtype)];
    }
    point.iter().map(|x| Array::scalar(*x).cast(dtype)).collect()
}

/// The graph with gradients of its first output for all inputs.
fn with_gradients(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let leaves: Vec<NodeId> = graph
        .nodes()
        .filter(|(_, node)| matches!(node.op, Op::Leaf(leaf) if graph.inputs.contains(&leaf)))
        .map(|(id, _)| id)
        .collect();
    let cost = graph.outputs[0];
    for index in 0..leaves.len() {
        let grad = Grad {
            index: index as u16,
            variables: leaves.len() as u16,
            known: 0,
            constants: 0,
            has_cost: true,
            disconnected: Disconnected::Zero,
        };
        let mut operands = vec![cost];
        operands.extend(&leaves);
        let gradient = graph.add(Op::Grad(Box::new(grad)), &operands, None);
        graph.outputs.push(gradient);
    }
    graph
}

/// The graph, alone and with what else may be asked for.
fn asked_for(graph: &Graph) -> Vec<Graph> {
    let live = graph.reachable();
    let parts = |(id, node): (NodeId, &hypatia_graph::Node)| {
        let computed = matches!(node.op, Op::Map(_) | Op::Reduce(..));
        (live[id.index()] && computed && id != graph.outputs[0]).then_some(id)
    };
    let parts: Vec<NodeId> = graph.nodes().filter_map(parts).collect();
    let with = |base: &Graph, parts: &[NodeId]| {
        let mut graph = base.clone();
        graph.outputs.extend(parts);
        graph
    };
    let gradients = with_gradients(graph);
    let mut all = vec![graph.clone(), gradients.clone(), with(&gradients, &parts)];
    all.extend(parts.iter().map(|part| with(graph, &[*part])));
    all.extend(parts.iter().map(|part| with(&gradients, &[*part])));
    all
}

fn compiled(graph: &Graph, numerics: Numerics) -> Graph {
    let taken = differentiate(graph, &mut |forward| simplify(forward, numerics).0).unwrap();
    simplify(&taken, Options { numerics, gradients_taken: true }).0
}

#[test]
fn values_do_not_depend_on_what_else_is_asked_for() {
    let rules = stability::rules();
    let mut wrong = Vec::new();
    for (name, text, point, expected) in ROWS {
        let rule = rules.iter().find(|rule| rule.name == *name).unwrap();
        let strict = rule.exactness <= Exactness::Rounding;
        let policies = [Numerics::Real, Numerics::Strict];
        for numerics in &policies[..1 + usize::from(strict)] {
            for (dtype, tolerance) in [(DType::F64, 1e-13), (DType::F32, 3e-6)] {
                let graph = graph_of(text, dtype, point.len());
                let data = arguments(text, dtype, point);
                for asked in asked_for(&graph) {
                    let compiled = compiled(&asked, *numerics);
                    let value = interpret(&compiled, &data).unwrap().outputs[0].item().unwrap();
                    if (value - expected).abs() > tolerance * expected.abs() {
                        wrong.push(format!(
                            "{name} {numerics:?}: {value:e} instead of {expected:e}\n{asked}\n{compiled}"
                        ));
                        break;
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// So that a rule that is added gets a row.
#[test]
fn every_stability_rule_has_a_formula() {
    let named: BTreeSet<&str> = ROWS.iter().map(|row| row.0).chain(WITHOUT_ROW).collect();
    // What is for `Strict` alone has the formula of its twin.
    let rules = stability::rules();
    let rules: BTreeSet<&str> = rules.iter().filter(|rule| !rule.strict_only).map(|rule| rule.name).collect();
    assert_eq!(named, rules);
}
