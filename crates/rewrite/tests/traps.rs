//! The numeric traps on which Theano's successors and JAX fail (features.md, 6.1), as far as they need no scan: each
//! formula, simplified under `Real` with gradients taken after that, must give the value of real arithmetic.
//! Expected values are from mpmath (`tests/reference/rewriting_traps.py`), or follow from the policy.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::{full, switch};
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::interp::interpret;
use hypatia_graph::tensor::{constant, input};
use hypatia_graph::{Array, DType, Graph, Op, ScalarFn, Tensor};
use hypatia_rewrite::{Numerics, Options, simplify};

const FLOATS: [DType; 2] = [DType::F32, DType::F64];

fn graph_of(inputs: &[&Tensor], output: &Tensor) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|t| (*t).clone()).collect(),
        outputs: vec![output.clone()],
        unused: Unused::Ignore,
        ..Request::default()
    };
    collect(&request).unwrap()
}

/// The whole pipeline: gradients of the simplified formula, then all simplified again.
fn compiled(graph: &Graph, numerics: Numerics) -> Graph {
    let taken = differentiate(graph, &mut |forward| simplify(forward, numerics).0).unwrap();
    simplify(&taken, Options { numerics, gradients_taken: true }).0
}

fn run(graph: &Graph, inputs: &[Array]) -> Vec<f64> {
    let value = &interpret(graph, inputs).unwrap().outputs[0];
    (0..value.len()).map(|i| value.get(i).to_f64()).collect()
}

#[track_caller]
fn check(inputs: &[&Tensor], output: &Tensor, values: &[&[f64]], expected: &[f64]) {
    let graph = compiled(&graph_of(inputs, output), Numerics::Real);
    let arrays: Vec<Array> = inputs
        .iter()
        .zip(values)
        .map(|(t, v)| Array::new(&t.ty().extents().unwrap(), v).unwrap().cast(t.dtype()))
        .collect();
    let found = run(&graph, &arrays);
    let tolerance = if output.dtype() == DType::F64 { 1e-12 } else { 2e-6 };
    assert_eq!(found.len(), expected.len(), "{graph}");
    for (x, y) in found.iter().zip(expected) {
        let close = x == y || (x - y).abs() <= tolerance * y.abs() || (x.is_nan() && y.is_nan());
        assert!(close, "{x:e} instead of {y:e} in {}:\n{graph}", output.dtype());
    }
}

fn grad(cost: &Tensor, variable: &Tensor) -> Tensor {
    hypatia_graph::gradient::grad(cost, [variable]).remove(0)
}

/// The product of the other elements, of which one or two are 0, and its derivative, without a division.
#[test]
fn products_with_zeros() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 3);
        let first = grad(&x.prod(0), &x);
        check(&[&x], &first, &[&[2.0, 0.0, 4.0]], &[0.0, 8.0, 0.0]);
        check(&[&x], &first, &[&[0.0, 0.0, 4.0]], &[0.0, 0.0, 0.0]);
        let graph = compiled(&graph_of(&[&x], &first), Numerics::Real);
        let divides = |op: &Op| matches!(op, Op::Map(ScalarFn::Div | ScalarFn::Recip));
        assert!(!graph.nodes().any(|(_, node)| divides(&node.op)), "{graph}");
        let second = grad(&first.take(0), &x);
        check(&[&x], &second, &[&[2.0, 3.0, 4.0]], &[0.0, 4.0, 3.0]);
        check(&[&x], &second, &[&[2.0, 0.0, 4.0]], &[0.0, 4.0, 0.0]);
        check(&[&x], &second, &[&[0.0, 0.0, 4.0]], &[0.0, 4.0, 0.0]);
    }
}

fn vector(name: &str, dtype: DType, n: usize) -> Tensor {
    input(name, dtype, &[Some(n)])
}

fn scalar(name: &str, dtype: DType) -> Tensor {
    input(name, dtype, &[])
}

/// softmax as a formula of the user's own, without the shift.
fn naive_softmax(x: &Tensor, axis: i64) -> Tensor {
    x.exp() / x.exp().sum_keepdims(axis)
}

#[test]
fn log_of_transposed_softmax() {
    for dtype in FLOATS {
        let x = input("x", dtype, &[Some(1), Some(2)]);
        check(&[&x], &x.softmax(1).t().log(), &[&[0.0, 1000.0]], &[-1000.0, 0.0]);
        check(&[&x], &naive_softmax(&x, 1).t().log(), &[&[0.0, 1000.0]], &[-1000.0, 0.0]);
    }
}

#[test]
fn log_of_reshaped_softmax_of_reshaped() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 4);
        let p = naive_softmax(&x.reshape([2, 2]), 1).reshape([4]).log();
        check(&[&x], &p, &[&[0.0, 1000.0, 0.0, -1000.0]], &[-1000.0, 0.0, 0.0, -1000.0]);
    }
}

#[test]
fn gradient_of_cross_entropy_of_sigmoid() {
    for dtype in FLOATS {
        let a = vector("a", dtype, 1);
        let one = full(1.0, dtype, [1, 1]);
        let cost = a.reshape([1, 1]).sigmoid().binary_crossentropy(&one).sum(hypatia_graph::compose::All);
        // -(1 - sigmoid(40))
        check(&[&a], &grad(&cost, &a), &[&[40.0]], &[-4.248354255291589e-18]);
        let t = vector("t", dtype, 2);
        let b = vector("b", dtype, 2);
        let p = b.sigmoid().reshape([2, 1]);
        let cost = p.binary_crossentropy(t.reshape([2, 1])).sum(hypatia_graph::compose::All);
        check(&[&b, &t], &grad(&cost, &b), &[&[40.0, -40.0], &[0.0, 1.0]], &[1.0, -1.0]);
    }
}

#[test]
fn log_of_one_minus_reshaped_sigmoid() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let y = (1.0 - x.sigmoid().reshape([1, 2])).log();
        check(&[&x], &y, &[&[40.0, 100.0]], &[-40.0, -100.0]);
    }
}

#[test]
fn gradients_of_powers_at_zero() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let all = hypatia_graph::compose::All;
        check(&[&x], &grad(&x.pow(0.0).sum(all), &x), &[&[0.0, 2.0]], &[0.0, 0.0]);
        let n = scalar("n", dtype);
        check(&[&x, &n], &grad(&x.pow(&n).sum(all), &x), &[&[0.0, 2.0], &[0.0]], &[0.0, 0.0]);
    }
}

/// Zero divided by zero is a NaN only where the policy says that floats are floats.
#[test]
fn strict_keeps_what_is_no_number() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        for (y, values) in [(&x / &x, [0.0, 2.0]), (&x * 0.0, [f64::NAN, 2.0]), (0.0 / &x, [0.0, 2.0])] {
            let graph = graph_of(&[&x], &y);
            let array = Array::new(&[2], &values).unwrap().cast(dtype);
            let strict = run(&compiled(&graph, Numerics::Strict), std::slice::from_ref(&array));
            assert!(strict[0].is_nan() && !strict[1].is_nan());
            assert!(run(&compiled(&graph, Numerics::Real), &[array]).iter().all(|v| v.is_finite()));
        }
    }
}

#[test]
fn cross_entropy_of_constant_softmax() {
    for dtype in FLOATS {
        let logits = constant(Array::new(&[1, 2], &[0.0, 1000.0]).unwrap().cast(dtype));
        let y = -naive_softmax(&logits, 1).log();
        check(&[], &y, &[], &[1000.0, 0.0]);
        let labels = constant(Array::vector(&[0i64]));
        check(&[], &naive_softmax(&logits, 1).categorical_crossentropy(&labels), &[], &[1000.0]);
    }
}

#[test]
fn y_log_sigmoid() {
    for dtype in FLOATS {
        let (v, x) = (vector("v", dtype, 2), vector("x", dtype, 2));
        let y = switch(v.eq(0.0), 0.0, &v * x.sigmoid().log());
        check(&[&v, &x], &y, &[&[0.0, 1.0], &[-800.0, -800.0]], &[0.0, -800.0]);
        check(&[&v, &x], &y, &[&[1.0, 0.0], &[800.0, 800.0]], &[0.0, 0.0]);
    }
}

#[test]
fn softplus_and_logaddexp() {
    for dtype in FLOATS {
        let (a, b) = (vector("a", dtype, 2), vector("b", dtype, 2));
        check(&[&a], &(1.0 + a.exp()).log(), &[&[800.0, -800.0]], &[800.0, 0.0]);
        let y = (a.exp() + b.exp()).log();
        check(&[&a, &b], &y, &[&[800.0, -800.0], &[801.0, -800.0]], &[801.3132616875183, -799.306852819440]);
        let cost = y.sum(hypatia_graph::compose::All);
        check(&[&a, &b], &grad(&cost, &a), &[&[800.0, -800.0], &[801.0, -800.0]], &[0.2689414213699951, 0.5]);
    }
}

/// The builders and the formulas that users write, under both policies: SciPy's values, and gradients that are limits.
#[test]
fn sums_of_exponentials_at_infinities() {
    const INF: f64 = f64::INFINITY;
    let rows: [(&[f64], f64); 6] = [
        (&[-INF, -INF], -INF),
        (&[INF, 1.0], INF),
        (&[-INF, 2.0], 2.0),
        (&[INF, -INF], INF),
        (&[INF, INF], INF),
        (&[f64::NAN, 1.0], f64::NAN),
    ];
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let (a, b) = (vector("a", dtype, 1), vector("b", dtype, 1));
        let (float, naive, pair) = (x.logsumexp(0), x.exp().sum(0).log(), a.logaddexp(&b));
        let halves = |row: &[f64]| [0, 1].map(|i| Array::vector(&row[i..=i]).cast(dtype));
        for numerics in [Numerics::Real, Numerics::Strict] {
            let value = |inputs: &[&Tensor], output: &Tensor, arrays: &[Array]| {
                run(&compiled(&graph_of(inputs, output), numerics), arrays)
            };
            for (row, expected) in rows {
                let whole = [Array::vector(row).cast(dtype)];
                for (name, found) in [
                    ("logsumexp", value(&[&x], &float, &whole)),
                    ("naive", value(&[&x], &naive, &whole)),
                    ("logaddexp", value(&[&a, &b], &pair, &halves(row))),
                ] {
                    let same = found == [expected] || (found[0].is_nan() && expected.is_nan());
                    assert!(
                        same,
                        "{name} of {row:?} in {dtype} under {numerics:?}: {found:?}, not {expected}"
                    );
                }
            }
            let cost = pair.sum(hypatia_graph::compose::All);
            let (none, some) = ([-INF, -INF], [-INF, 2.0]);
            for (row, expected) in [(none, [0.0, 0.0]), (some, [0.0, 1.0])] {
                let whole = [Array::vector(&row).cast(dtype)];
                assert_eq!(value(&[&x], &grad(&float, &x), &whole), expected, "{dtype} under {numerics:?}");
                let slopes = [&a, &b].map(|t| value(&[&a, &b], &grad(&cost, t), &halves(&row))[0]);
                assert_eq!(slopes, expected, "{dtype} under {numerics:?}");
            }
        }
        check(&[&x], &grad(&naive, &x), &[&[-INF, -INF]], &[0.0, 0.0]);
        // The difference is far below a rounding of 1.
        check(&[&a, &b], &pair, &[&[0.0], &[-20.0]], &[2.061153620314381e-9]);
        check(&[&a, &b], &grad(&pair.sum(0), &a), &[&[3.0], &[3.0]], &[0.5]);
        check(&[&x], &x.softmax(0), &[&[-INF, -INF]], &[f64::NAN, f64::NAN]);
        check(&[&x], &x.softmax(0), &[&[1.0, -INF]], &[1.0, 0.0]);
        check(&[&x], &x.log_softmax(0), &[&[INF, 1.0]], &[f64::NAN, -INF]);
        check(&[&x], &x.log_softmax(0), &[&[-INF, 1.0]], &[-INF, 0.0]);
    }
}

#[test]
fn differences_that_cancel() {
    let x = scalar("x", DType::F64);
    check(&[&x], &((&x + 1.0).sqrt() - x.sqrt()), &[&[1e16]], &[5e-9]);
    check(&[&x], &((1.0 - x.cos()) / x.sqr()), &[&[1e-9]], &[0.5]);
    check(&[&x], &((x.exp() - 1.0) / &x), &[&[1e-12]], &[1.0000000000005]);
    let x = scalar("x", DType::F32);
    check(&[&x], &((1.0 - x.cos()) / x.pow(2.0)), &[&[1e-5]], &[0.5]);
    check(&[&x], &((x.exp() - 1.0) / &x), &[&[1e-6]], &[1.0000005]);
}

#[test]
fn gradient_of_guarded_root() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let y = switch(x.gt(0.0), x.sqrt(), 0.0).sum(hypatia_graph::compose::All);
        check(&[&x], &grad(&y, &x), &[&[-1.0, 4.0]], &[0.0, 0.25]);
    }
}

#[test]
fn norms_do_not_overflow() {
    let all = hypatia_graph::compose::All;
    for (dtype, big) in [(DType::F32, 1e30), (DType::F64, 1e200)] {
        let x = vector("x", dtype, 2);
        let norm = x.sqr().sum(all).sqrt();
        check(&[&x], &norm, &[&[big, big]], &[std::f64::consts::SQRT_2 * big]);
        check(&[&x], &norm, &[&[0.0, 0.0]], &[0.0]);
        check(&[&x], &grad(&norm, &x), &[&[big, big]], &[std::f64::consts::FRAC_1_SQRT_2; 2]);
    }
}

#[test]
fn variances() {
    let all = hypatia_graph::compose::All;
    let x = vector("x", DType::F64, 3);
    let data: &[f64] = &[1e9, 1e9 + 1.0, 1e9 + 2.0];
    check(&[&x], &x.var(all), &[data], &[2.0 / 3.0]);
    check(&[&x], &(x.sqr().mean(all) - x.mean(all).sqr()), &[data], &[2.0 / 3.0]);
    let m = input("m", DType::F64, &[Some(2), Some(3)]);
    let rows: &[f64] = &[1e9, 1e9 + 1.0, 1e9 + 2.0, 0.0, 3.0, 6.0];
    check(&[&m], &(m.pow(2.0).mean(1) - m.mean(1).pow(2.0)), &[rows], &[2.0 / 3.0, 6.0]);
}

#[test]
fn logs_of_products_of_sigmoids() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        check(&[&x], &(x.sigmoid() * (-&x).sigmoid()).log(), &[&[800.0, -800.0]], &[-800.0, -800.0]);
        check(&[&x], &x.sigmoid().prod(0).log(), &[&[-500.0, -500.0]], &[-1000.0]);
    }
}

#[test]
fn entropy_of_hard_softmax() {
    for dtype in FLOATS {
        let x = input("x", dtype, &[Some(1), Some(2)]);
        for p in [x.softmax(1), naive_softmax(&x, 1)] {
            check(&[&x], &-(&p * p.log()).sum(1), &[&[0.0, 2000.0]], &[0.0]);
        }
    }
}

/// A formula and what is asked for besides, each with its value at one point.
fn check_all(x: &Tensor, numerics: Numerics, at: f64, results: &[(&Tensor, f64, f64)]) {
    let request = Request {
        inputs: vec![x.clone()],
        outputs: results.iter().map(|(tensor, ..)| (*tensor).clone()).collect(),
        ..Request::default()
    };
    let graph = compiled(&collect(&request).unwrap(), numerics);
    let found = interpret(&graph, &[Array::scalar(at).cast(x.dtype())]).unwrap().outputs;
    for (found, (_, expected, tolerance)) in found.iter().zip(results) {
        let found = found.item().unwrap();
        let close = (found - expected).abs() <= tolerance * expected.abs();
        assert!(close, "{found:e} instead of {expected:e}, {numerics:?}, {}:\n{graph}", x.dtype());
    }
}

/// The derivative shares `exp(x)`, `1 + x` and the like with the naive form, which gets no better by that. The derivatives
/// are differences of values near `1/x`: a few roundings of those are left of them.
#[test]
fn values_do_not_change_with_their_gradients() {
    let x = scalar("x", DType::F64);
    let y = (x.exp() - 1.0) / &x;
    check_all(&x, Numerics::Real, 1e-12, &[(&y, 1.0000000000005, 1e-15), (&grad(&y, &x), 0.5, 1e-3)]);
    let y = (1.0 + &x).log() / &x;
    check_all(&x, Numerics::Real, 1e-10, &[(&y, 0.99999999995, 1e-15), (&grad(&y, &x), -0.5, 1e-5)]);
    let y = (1.0 + &x * &x).log();
    check_all(&x, Numerics::Real, 1e-10, &[(&y, 1e-20, 1e-15), (&grad(&y, &x), 2e-10, 1e-15)]);
    check_all(&x, Numerics::Strict, 1e-10, &[(&y, 1e-20, 1e-15), (&grad(&y, &x), 2e-10, 1e-15)]);
    let y = (1.0 - x.cos()) / x.sqr();
    check_all(&x, Numerics::Real, 1e-170, &[(&y, 0.5, 1e-15), (&x.cos(), 1.0, 0.0), (&x.sqr(), 0.0, 0.0)]);
}

/// Where a sigmoid is nearly 1 its derivative is not 0.
#[test]
fn gradients_in_tails() {
    let small = 4.248354255291589e-18; // sigmoid(-40)
    for dtype in FLOATS {
        let x = scalar("x", dtype);
        let digits = if dtype == DType::F64 { 1e-14 } else { 2e-6 };
        let sigmoid = x.sigmoid();
        for numerics in [Numerics::Real, Numerics::Strict] {
            let product = &sigmoid * (1.0 - &sigmoid);
            check_all(&x, numerics, 40.0, &[(&sigmoid, 1.0, digits), (&grad(&sigmoid, &x), small, digits)]);
            check_all(
                &x,
                numerics,
                40.0,
                &[(&product, small, digits), (&grad(&product, &x), -small, digits)],
            );
            let second = grad(&grad(&sigmoid, &x), &x);
            check_all(&x, numerics, 40.0, &[(&second, -small, digits)]);
            // 1 - tanh(20)^2 and its derivative -2 tanh(20) (1 - tanh(20)^2)
            let (slope, second) = (1.6993417021166355e-17, -3.398683404233271e-17);
            let derivative = grad(&x.tanh(), &x);
            check_all(&x, numerics, 20.0, &[(&derivative, slope, digits)]);
            check_all(&x, numerics, 20.0, &[(&x.tanh(), 1.0, 0.0), (&grad(&derivative, &x), second, digits)]);
            check_all(&x, numerics, 20.0, &[(&(1.0 - x.tanh().sqr()), slope, digits)]);
            // The third derivative at 0, which a form by |x| would not have.
            let third = grad(&grad(&grad(&sigmoid, &x), &x), &x);
            check_all(&x, numerics, 0.0, &[(&third, -0.125, digits)]);
            let close = if dtype == DType::F64 { 1.0 - 2f64.powi(-50) } else { 1.0 - 2f64.powi(-22) };
            let rest = 1.0 - close;
            let root = 1.0 / (rest * (1.0 + close)).sqrt();
            check_all(&x, numerics, close, &[(&grad(&x.arcsin(), &x), root, digits)]);
            check_all(&x, numerics, close, &[(&grad(&x.arccos(), &x), -root, digits)]);
            check_all(&x, numerics, close, &[(&grad(&x.arctanh(), &x), root * root, digits)]);
            check_all(
                &x,
                numerics,
                1.0 + rest,
                &[(&grad(&x.arccosh(), &x), 1.0 / (rest * (2.0 + rest)).sqrt(), digits)],
            );
        }
        for sigmoid in [1.0 / (1.0 + (-&x).exp()), x.exp() / (1.0 + x.exp())] {
            check_all(
                &x,
                Numerics::Real,
                40.0,
                &[(&sigmoid, 1.0, digits), (&grad(&sigmoid, &x), small, digits)],
            );
        }
        let odds = x.sigmoid() / (1.0 - x.sigmoid());
        let value = 1.0 / small;
        check_all(&x, Numerics::Real, 40.0, &[(&odds, value, digits), (&grad(&odds, &x), value, digits)]);
        check_all(&x, Numerics::Real, 40.0, &[(&odds, value, digits), (&x.sigmoid(), 1.0, digits)]);
    }
}

/// Logarithms of a product of many sigmoids: associated to the left, to the right, in halves, and as a reduction.
fn logs_of_products(x: &Tensor, n: usize) -> Vec<Tensor> {
    let factors: Vec<Tensor> = (0..n).map(|i| x.take(i as i64).sigmoid()).collect();
    let to_the_left = factors.iter().cloned().reduce(|a, b| a * b).unwrap();
    let to_the_right = factors.iter().cloned().rev().reduce(|a, b| b * a).unwrap();
    let mut halves = factors;
    while halves.len() > 1 {
        halves = halves.chunks(2).map(|pair| pair.iter().cloned().reduce(|a, b| a * b).unwrap()).collect();
    }
    [to_the_left, to_the_right, halves.remove(0), x.sigmoid().prod(0)].iter().map(Tensor::log).collect()
}

/// Products of sigmoids are 0 long before their logarithm is a large number: however many there are, and however they are
/// put together.
#[test]
fn logs_of_long_products() {
    for n in [25, 60, 300] {
        let x = vector("x", DType::F64, n);
        let values: Vec<f64> = (0..n).map(|i| -40.0 - (i % 7) as f64).collect();
        let expected: f64 = values.iter().map(|x| -(-x).exp().ln_1p()).sum();
        for log in logs_of_products(&x, n) {
            let (graph, report) = simplify(&graph_of(&[&x], &log), Numerics::Real);
            let found = run(&graph, &[Array::vector(&values)])[0];
            assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{n}: {found} instead of {expected}");
            assert!(report.warnings().is_empty(), "{report}");
        }
    }
}

/// Of a graph that is simplified in parts, a logarithm does not see all factors: that is said.
#[test]
fn what_rules_did_not_see_is_reported() {
    let n = 1300;
    let x = vector("x", DType::F64, n);
    let log = logs_of_products(&x, n).remove(0);
    let line = log.site().line();
    let (_, report) = simplify(&graph_of(&[&x], &log), Numerics::Real);
    let warnings = report.warnings();
    assert!(warnings.iter().any(|w| w.at.map(|site| site.line()) == Some(line)), "{report}");
    assert!(report.to_string().contains("warning: `log` may overflow or lose digits"), "{report}");
}

/// Chains of rules that each make the next one match are as long as the formula is deep.
#[test]
fn long_chains_of_rules() {
    let n = 200;
    let x = vector("x", DType::F64, 4);
    // e^a e^b ... overflows in the middle, the sum of the exponents does not.
    let y = (0..n).map(|i| (if i < n / 2 { 1.0 } else { -1.0 } * 9.0 * &x).exp()).reduce(|a, b| a * b);
    check(&[&x], &y.unwrap(), &[&[1.0, 2.0, 3.0, 4.0]], &[1.0; 4]);
    // A softmax far below its logarithm.
    let mut y = naive_softmax(&x, 0);
    for i in 0..n {
        y = if i % 2 == 0 { y.reshape([2, 2]).t() } else { y.t().reshape([4]) };
    }
    check(&[&x], &y.log(), &[&[0.0, 1000.0, -1000.0, 0.0]], &[-1000.0, 0.0, -2000.0, -1000.0]);
    // Logarithms of quotients.
    let y = (0..n).fold(x.sigmoid(), |y, _| y / (-&x).sigmoid());
    check(&[&x], &y.log(), &[&[40.0, -40.0, 800.0, 1.0]], &[8000.0, -40.0, 160000.0, 262.3390758161263]);
}
