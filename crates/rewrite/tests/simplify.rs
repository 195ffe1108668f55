//! What `simplify` promises of every graph: equal values, nothing dearer, names and sites kept, the same result each
//! time, and time that grows with the length.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use std::f64::consts::FRAC_PI_4;

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::All;
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::grad;
use hypatia_graph::interp::interpret;
use hypatia_graph::tensor::{constant, input, shared};
use hypatia_graph::text::{formula, parse_formula};
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, DType, Graph, NodeId, Op, ScalarFn, Tensor};
use hypatia_rewrite::{Numerics, Options, Stop, explain, simplify};

fn graph_of(inputs: &[&Tensor], outputs: &[&Tensor]) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|t| (*t).clone()).collect(),
        outputs: outputs.iter().map(|t| (*t).clone()).collect(),
        unused: Unused::Ignore,
        ..Request::default()
    };
    collect(&request).unwrap()
}

fn trained(graph: &Graph, numerics: Numerics) -> Graph {
    let taken = differentiate(graph, &mut |forward| simplify(forward, numerics).0).unwrap();
    verify(&taken, Stage::Differentiated).unwrap();
    let (simplified, _) = simplify(&taken, Options { numerics, gradients_taken: true });
    verify(&simplified, Stage::Differentiated).unwrap();
    simplified
}

/// The formula that a formula becomes.
fn real(text: &str) -> String {
    let graph = parse_formula(text).unwrap().graph().unwrap();
    let (simplified, report) = simplify(&graph, Numerics::Real);
    assert_eq!(report.stop, Stop::Saturated, "{text}");
    formula(&simplified, simplified.outputs[0])
}

fn strict(text: &str) -> String {
    let graph = parse_formula(text).unwrap().graph().unwrap();
    let (simplified, _) = simplify(&graph, Numerics::Strict);
    formula(&simplified, simplified.outputs[0])
}

/// A step of descent on a table of which the cost reads some rows adds to these rows, whatever the rate is.
#[test]
fn a_table_is_changed_only_where_it_is_read() {
    let table = shared("table", Array::zeros(DType::F32, &[50, 4]).unwrap());
    let (rows, rate) = (input("rows", DType::I64, &[Some(6)]), input("rate", DType::F32, &[]));
    let cost = table.take(&rows).sin().sum(All);
    let gradient = grad(&cost, [&table]).remove(0);
    for next in [
        &table - &gradient * 0.1,
        &table - &gradient * &rate,
        &table - &gradient / &rate,
        &table - &rate * &gradient,
    ] {
        let request = Request {
            inputs: vec![rows.clone(), rate.clone()],
            updates: vec![(table.clone(), next)],
            unused: Unused::Ignore,
            ..Request::default()
        };
        let simplified = trained(&collect(&request).unwrap(), Numerics::Real);
        let update = simplified.node(simplified.updates[0].1);
        assert_eq!(update.op.name(), "scatter_add", "{simplified}");
        assert!(matches!(simplified.node(update.operands[0]).op, Op::Leaf(_)), "{simplified}");
        let large = |id: &NodeId| simplified.ty(*id).element_count() == Some(200);
        let live = simplified.reachable();
        let whole = simplified.nodes().map(|(id, _)| id).filter(|id| live[id.index()] && large(id)).count();
        assert_eq!(whole, 2, "{simplified}");
    }
}

#[test]
fn products_with_a_factor_in_common_are_one() {
    let declared = "x: f32[20, 30]; y: f32[20, 30]; p: f32[30, 30]; ";
    let one = |text: &str| real(&format!("{declared}{text}"));
    assert_eq!(one("x @ p + x @ p.T"), "x @ (p + p.T)");
    assert_eq!(one("x @ p - y @ p"), "(x - y) @ p");
    assert_eq!(one("x @ p + y @ p.T"), "x @ p + y @ p.T");
    assert_eq!(one("0.5 * (x @ p) + (0.5 * x) @ p.T"), "0.5 * (x @ (p + p.T))");
}

#[test]
fn formulas_become_what_was_meant() {
    let cases = [
        ("log(1 + exp(x))", "softplus(x)"),
        ("log(exp(x) + 1)", "softplus(x)"),
        ("log(sigmoid(x))", "-softplus(-x)"),
        ("log(1 - sigmoid(x))", "-softplus(x)"),
        ("1 - sigmoid(x)", "sigmoid(-x)"),
        ("exp(x) / (1 + exp(x))", "sigmoid(x)"),
        ("1 / (1 + exp(-x))", "sigmoid(x)"),
        ("exp(x) - 1", "expm1(x)"),
        ("1 - erf(x)", "erfc(x)"),
        ("softplus(x) - x", "softplus(-x)"),
        ("2 * sigmoid(2 * x) - 1", "tanh(x)"),
        ("1 - tanh(x) ** 2", "4 * (sigmoid(t1) * sigmoid(-t1)) where t1 = 2 * x"),
        ("1 - cos(x)", "2 * sqr(sin(0.5 * x))"),
        ("exp(x) * exp(y)", "exp(x + y)"),
        ("sqrt(x ** 2)", "abs(x)"),
        ("abs(exp(x))", "exp(x)"),
        ("x: f32[3, 4]; argmax(softmax(x), axis=1)", "argmax(x, axis=1)"),
        ("x: f32[3, 4]; sum(sum(x, axis=1), axis=0)", "sum(x)"),
        ("x: f32[3, 4]; x.T.T", "x"),
        ("x: f32[4]; max(sigmoid(x))", "sigmoid(max(x))"),
        ("x + 0 * y", "x"),
        ("3 * x - x * 5", "-2 * x"),
        ("(x * 6) / 3", "2 * x"),
        ("2 * 3 * x + (4 + 5)", "6 * x + 9"),
    ];
    for (given, expected) in cases {
        assert_eq!(real(given), expected, "{given}");
    }
}

/// The largest number of elements that a function is computed of.
fn largest_map(graph: &Graph) -> usize {
    let maps = graph.nodes().filter(|(_, node)| matches!(node.op, Op::Map(_)));
    let elements = maps.map(|(_, node)| node.ty.extents().unwrap().iter().product());
    elements.max().unwrap_or(0)
}

/// Factors of a sum that lack some of its axes: the product is never made.
#[test]
fn sums_move_inside_of_products() {
    // Extents are powers of ten times primes, so that a product of extents tells which they were.
    let declared = "a: f32[2, 1, 50]; w: f32[1, 30, 50]; v: f32[2, 30, 1]; c: f32[50]; ";
    for (given, largest) in [
        ("sum(a * w)", 100),
        ("sum((a * w) ** 2)", 30 * 50),
        ("sum((a * w) * (a * w))", 30 * 50),
        ("sum((a * w) ** 2, axis=[1, 2])", 30 * 50),
        ("sum((a * w) ** 2, axis=0)", 30 * 50),
        ("sum((a * w) * a, axis=0)", 30 * 50),
        ("sum((a * w) * w, axis=1)", 30 * 50),
        ("sum((w * a) * (3 * a), axis=0)", 30 * 50),
        ("mean((a * w) ** 2)", 30 * 50),
        ("sum(w / a)", 100),
        ("sum((w * v) * c, axis=[0, 1])", 30 * 50),
    ] {
        let graph = parse_formula(&format!("{declared}{given}")).unwrap().graph().unwrap();
        let (simplified, report) = simplify(&graph, Numerics::Real);
        assert_eq!(report.stop, Stop::Saturated, "{given}");
        let text = formula(&simplified, simplified.outputs[0]);
        println!("{given}: {} {text}", largest_map(&simplified));
        assert!(largest_map(&simplified) <= largest, "{given}: {text}");
    }
}

#[test]
fn strict_hides_nothing() {
    for kept in ["x * 0", "x / x", "0 / x", "x - x", "log(exp(x))", "sqrt(sqr(x))", "exp(x) * exp(y)"] {
        assert_eq!(strict(kept), kept);
    }
    // The logarithm of 1 + -0 is +0.
    assert_eq!(strict("log(1 + x)"), "log1p(x + 0)");
    assert_eq!(strict("x / 4"), "0.25 * x");
    assert_eq!(strict("1 - cos(x)"), "2 * sqr(sin(0.5 * x))");
    assert_eq!(strict("log(1 + exp(x))"), "log1p(exp(x))");
}

/// Zeros have a sign under `Strict`, constant or not; no rule, fact or folding changes it.
#[test]
fn strict_keeps_the_sign_of_zero() {
    let x = input("x", DType::F64, &[Some(1)]);
    let minus_zero = constant(-0.0f64);
    let spread = |x: &Tensor| x.reshape([1]);
    let value = |y: &Tensor, x0: f64| {
        let (simplified, _) = simplify(&graph_of(&[&x], &[y]), Numerics::Strict);
        interpret(&simplified, &[Array::vector(&[x0])]).unwrap().outputs[0].to_vec::<f64>().unwrap()[0]
    };
    let same = |y: &Tensor, x0: f64, expected: f64| {
        let found = value(y, x0);
        assert!(found.to_bits() == expected.to_bits(), "{found} instead of {expected} at {x0}");
    };
    let inf = f64::INFINITY;
    same(&(&x - &spread(&minus_zero)), -0.0, 0.0);
    same(&(&x + 0.0), -0.0, 0.0);
    same(&(0.0 - &x), 0.0, 0.0);
    same(&(1.0 / (&x + 0.0)).relu(), -0.0, inf);
    same(&(spread(&minus_zero).abs() * &x), 3.0, 0.0);
    same(&(spread(&minus_zero).abs() * &x), -3.0, -0.0);
    same(&(spread(&(1.0 / minus_zero.sqrt())).relu() + &x), 1.0, 1.0);
    same(&(1.0 / x.sqrt()).relu(), -0.0, 0.0);
    same(&(1.0 / x.sqrt()).pow(0.5), -0.0, inf);
    same(&(1.0 + &x).log(), -0.0, 0.0);
    same(&(x.exp() - 1.0), -0.0, 0.0);
    same(&(1.0 - x.exp()), 0.0, 0.0);
    same(&-(&x - 2.0), 2.0, -0.0);
    same(&(-&x - &spread(&minus_zero)), 0.0, 0.0);
    same(&(&x * 0.0), -2.0, -0.0);
    same(&x.sum_keepdims(0), -0.0, 0.0);
}

/// A quotient by an infinite constant is 0 or NaN, whatever is divided.
#[test]
fn an_infinite_constant_bounds_nothing_else() {
    let x = input("x", DType::F64, &[Some(1)]);
    for numerics in [Numerics::Strict, Numerics::Real] {
        let value = |y: &Tensor, x0: f64| {
            let (simplified, _) = simplify(&graph_of(&[&x], &[y]), numerics);
            interpret(&simplified, &[Array::vector(&[x0])]).unwrap().outputs[0].to_vec::<f64>().unwrap()[0]
        };
        let quotient = &x / f64::INFINITY;
        assert_eq!(value(&quotient.maximum(2.5), 1.0), 2.5);
        assert_eq!(value(&quotient.minimum(-2.5), 1.0), -2.5);
        assert_eq!(value(&(1.0 / &(&quotient + f64::INFINITY)).sign(), 1.0), 0.0);
        assert_eq!(value(&(1.0 / x.sqrt()).relu(), -0.0), 0.0);
        assert_eq!(value(&(1.0 / x.sqrt()).pow(0.5), -0.0), f64::INFINITY);
    }
}

/// Facts about integers are exact, and what wraps has none.
#[test]
fn integers_at_the_ends_of_their_types() {
    for numerics in [Numerics::Strict, Numerics::Real] {
        let value = |dtype: DType, y: &dyn Fn(&Tensor) -> Tensor, x0: i64| {
            let x = input("x", dtype, &[Some(1)]);
            let (simplified, _) = simplify(&graph_of(&[&x], &[&y(&x)]), numerics);
            let array = Array::vector(&[x0]).cast(dtype);
            interpret(&simplified, &[array]).unwrap().outputs[0].get(0).to_i64().unwrap()
        };
        assert_eq!(value(DType::I64, &|x| (x.maximum(0) + 1).maximum(0), i64::MAX), 0);
        assert_eq!(value(DType::I64, &|x| (x.maximum(i64::MAX - 1)).minimum(i64::MAX - 1), 5), i64::MAX - 1);
        assert_eq!(value(DType::I32, &|x| x.abs().maximum(0), i64::from(i32::MIN)), 0);
        assert_eq!(value(DType::I32, &|x| x.sqr().maximum(0), 65_537), 131_073);
        assert_eq!(value(DType::U8, &|x| (-x).abs(), 1), 255);
        assert_eq!(value(DType::I32, &|x| (-x).maximum(&-(x + 5)), i64::from(i32::MIN)), 2_147_483_643);
        assert_eq!(value(DType::I32, &|x| x.cast(DType::F64).cast(DType::U8), 300), 255);
    }
}

#[test]
fn explanations_name_each_step() {
    let graph = parse_formula("log(1 + exp(x))").unwrap().graph().unwrap();
    let expected = "\
log(1 + exp(x))
  = log1p(exp(x))
      log1p in real arithmetic: (log (add 1 ?x)) => (log1p ?x) if variable ?x
  = softplus(x)
      log1p_exp in real arithmetic: (log1p (exp ?x)) => (softplus ?x)
";
    assert_eq!(explain(&graph, Numerics::Real).to_string(), expected);
    let (x, two) = (input("x", DType::F32, &[]), constant(2.0f32));
    let graph = graph_of(&[&x], &[&(x.clone() * (&two + constant(3.0f32)))]);
    assert!(explain(&graph, Numerics::Real).to_string().contains("constants computed"));
}

/// Thirty squarings of a sum with itself: 2^60 nodes were nothing shared.
#[test]
fn explanations_of_shared_towers_stay_short() {
    let mut x = input("x", DType::F64, &[]);
    let inputs = [x.clone()];
    for _ in 0..30 {
        x = (&x + &x.sin()) * &x;
    }
    let graph = graph_of(&[&inputs[0]], &[&x]);
    let explanation = explain(&graph, Numerics::Real);
    assert!(explanation.derivations[0].too_large);
    assert!(explanation.to_string().contains("too large"));
}

/// A classifier of the tutorial's kind, with its gradients.
fn classifier(naive: bool) -> (Graph, Vec<Array>) {
    let dtype = DType::F32;
    let x = input("x", dtype, &[Some(4), Some(3)]);
    let y = input("y", DType::I32, &[Some(4)]);
    let w = shared(
        "W",
        Array::new(
            &[3, 5],
            &[0.5f32, -1.0, 2.0, 0.25, 3.0, 1.0, 1.5, -2.0, 0.0, 1.0, -0.5, 0.75, 1.0, 2.0, -1.0],
        )
        .unwrap(),
    );
    let b = shared("b", Array::vector(&[1000.0f32, -1000.0, 0.0, 999.0, 3.0]));
    let logits = x.dot(&w) + &b;
    let p = if naive { logits.exp() / logits.exp().sum_keepdims(1) } else { logits.softmax(1) };
    let cost = p.categorical_crossentropy(&y).mean(All);
    let gradients = grad(&cost, [&w, &b]);
    let request = Request {
        inputs: vec![x, y],
        outputs: vec![cost],
        updates: vec![(w.clone(), &*w - 0.1 * &gradients[0]), (b.clone(), &*b - 0.1 * &gradients[1])],
        ..Request::default()
    };
    let data =
        Array::new(&[4, 3], &[1.0f32, 2.0, 3.0, -1.0, 0.5, 0.0, 0.0, 0.0, 1.0, 2.0, -2.0, 1.0]).unwrap();
    (collect(&request).unwrap(), vec![data, Array::vector(&[0i32, 1, 4, 3])])
}

/// The gradient of the cross entropy is the softmax minus the targets: one exponential, shared with the forward pass,
/// and finite for logits of 1000.
#[test]
fn gradient_of_cross_entropy_is_softmax_minus_targets() {
    let (graph, inputs) = classifier(false);
    let reference = interpret(&trained(&graph, Numerics::Real), &inputs).unwrap();
    for naive in [false, true] {
        let (graph, inputs) = classifier(naive);
        let simplified = trained(&graph, Numerics::Real);
        let count = |op: &dyn Fn(&Op) -> bool| simplified.nodes().filter(|(_, node)| op(&node.op)).count();
        assert_eq!(count(&|op| *op == Op::Map(ScalarFn::Exp)), 1, "{simplified}");
        assert_eq!(count(&|op| *op == Op::Map(ScalarFn::Log)), 1, "{simplified}");
        assert_eq!(count(&|op| matches!(op, Op::Scatter { .. })), 1, "{simplified}");
        assert_eq!(count(&|op| *op == Op::StopGradient), 0, "{simplified}");
        let evaluation = interpret(&simplified, &inputs).unwrap();
        let cost = evaluation.outputs[0].item().unwrap();
        // Logits of about 1000 against -1000, 3 and 999: (0 + ~2000 + ~997 + ~1) / 4 from NumPy's logsumexp in doubles.
        assert!((500.0..1000.0).contains(&cost), "{cost}");
        for ((_, value), (_, expected)) in evaluation.updates.iter().zip(&reference.updates) {
            for i in 0..value.len() {
                let (a, b) = (value.get(i).to_f64(), expected.get(i).to_f64());
                assert!(a.is_finite() && (a - b).abs() <= 1e-5 * b.abs().max(1.0), "{a} {b}");
            }
        }
    }
}

#[test]
fn equal_graphs_give_equal_text() {
    let texts: Vec<String> = (0..3)
        .map(|_| {
            let (graph, _) = classifier(true);
            let taken = differentiate(&graph, &mut |forward| simplify(forward, Numerics::Real).0).unwrap();
            let (simplified, report) =
                simplify(&taken, Options { numerics: Numerics::Real, gradients_taken: true });
            let counts = format!("{:?} {} {} {}", report.rules, report.rounds, report.e_nodes, report.stop);
            format!("{simplified}\n{counts}")
        })
        .collect();
    assert_eq!(texts[0], texts[1]);
    assert_eq!(texts[0], texts[2]);
}

#[test]
fn names_and_sites_survive() {
    let x = input("x", DType::F32, &[Some(3)]);
    let hidden = (1.0 + x.exp()).log().named("hidden");
    let line = hidden.site().line();
    let graph = graph_of(&[&x], &[&(hidden * 2.0)]);
    let (simplified, _) = simplify(&graph, Numerics::Real);
    let (id, node) = simplified.nodes().find(|(_, node)| node.op == Op::Map(ScalarFn::Softplus)).unwrap();
    assert_eq!(simplified.name(id), Some("hidden"));
    assert_eq!(node.site.unwrap().line(), line);
}

/// A gradient that is not yet taken goes through the very expression that it is asked for.
#[test]
fn gradients_not_yet_taken_keep_their_variables() {
    let x = input("x", DType::F64, &[Some(2)]);
    let inner = (&x * 2.0).exp();
    let cost = inner.log().sum(All);
    let gradient = grad(&cost, [&inner]).remove(0);
    let graph = graph_of(&[&x], &[&gradient]);
    let (simplified, _) = simplify(&graph, Numerics::Real);
    let taken = differentiate(&simplified, &mut Graph::clone).unwrap();
    let value = interpret(&taken, &[Array::vector(&[0.5f64, 1.0])]).unwrap().outputs.remove(0);
    for (i, expected) in [(-1.0f64).exp(), (-2.0f64).exp()].into_iter().enumerate() {
        assert!((value.get(i).to_f64() - expected).abs() < 1e-15);
    }
}

#[test]
fn unknown_extents_are_left_alone() {
    let x = input("x", DType::F32, &[None]);
    let graph = graph_of(&[&x], &[&(1.0 + x.exp()).log()]);
    let (simplified, _) = simplify(&graph, Numerics::Real);
    let value = interpret(&simplified, &[Array::vector(&[0.0f32, 1.0])]).unwrap().outputs.remove(0);
    assert_eq!(value.shape(), [2]);
}

#[test]
fn constants_fold_in_double_precision() {
    // 0.1f + 0.2f - 0.3f in doubles of the rounded literals, rounded once: 3.7252903e-9 * 2 = 7.450581e-9.
    let y = constant(0.1f32) + constant(0.2f32) - constant(0.3f32);
    let (simplified, report) = simplify(&graph_of(&[], &[&y]), Numerics::Strict);
    let expected = (f64::from(0.1f32) + f64::from(0.2f32) - f64::from(0.3f32)) as f32;
    assert_eq!(simplified.uniform(simplified.outputs[0]).unwrap().to_f64(), f64::from(expected));
    assert!(report.folded > 0);
    let table = constant(Array::new(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap());
    let (simplified, _) = simplify(&graph_of(&[], &[&table.t().sum(0)]), Numerics::Real);
    assert_eq!(simplified.len(), 1);
    let value = interpret(&simplified, &[]).unwrap().outputs.remove(0);
    assert_eq!(value.to_vec::<f32>().unwrap(), [3.0, 7.0]);
}

/// What overflows or underflows in single precision does so under `Strict`, constant or not.
#[test]
fn constants_keep_their_range() {
    let folded = |y: &Tensor, numerics| {
        let (simplified, report) = simplify(&graph_of(&[], &[y]), numerics);
        assert!(report.folded > 0, "{simplified}");
        simplified.uniform(simplified.outputs[0]).unwrap().to_f64()
    };
    let large = constant(100f32).exp();
    let difference = (&large - constant(99f32).exp()) / &large;
    assert!(folded(&difference, Numerics::Strict).is_nan());
    assert!((folded(&difference, Numerics::Real) - 0.6321206).abs() < 1e-6);
    let small = constant(17f32).erfc();
    assert_eq!(folded(&small.arctan2(&small), Numerics::Strict), 0.0);
    assert!((folded(&small.arctan2(&small), Numerics::Real) - FRAC_PI_4).abs() < 1e-6);
}

/// A chain of `n` operators on a vector.
fn tower(n: usize, step: impl Fn(&mut Graph, NodeId, NodeId, usize) -> NodeId) -> Graph {
    let x = input("x", DType::F32, &[Some(4)]);
    let leaf = x.leaf().unwrap().clone();
    let mut graph = Graph::new();
    let first = graph.add_leaf(&leaf);
    graph.inputs.push(leaf.id);
    let last = (0..n).fold(first, |id, i| step(&mut graph, id, first, i));
    graph.outputs.push(last);
    graph
}

#[test]
fn deep_towers_end() {
    let n = 40_000;
    let functions = [ScalarFn::Tanh, ScalarFn::Sin, ScalarFn::Sigmoid, ScalarFn::Sqr];
    let (same, report) =
        simplify(&tower(n, |g, id, _, i| g.add(Op::Map(functions[i % 4]), &[id], None)), Numerics::Real);
    assert_eq!(same.len(), n + 1);
    assert!(report.partitions > 1);
    let pairs = |g: &mut Graph, id, _, i| {
        g.add(Op::Map(if i % 2 == 0 { ScalarFn::Exp } else { ScalarFn::Log }), &[id], None)
    };
    assert_eq!(simplify(&tower(n, pairs), Numerics::Real).0.len(), 1);
    // As a tree this has 2^n nodes.
    let doubled = tower(2_000, |g, id, _, _| g.add(Op::Map(ScalarFn::Add), &[id, id], None));
    assert_eq!(simplify(&doubled, Numerics::Real).0.len(), 2_001);
    let sums = tower(2_500, |g, id, x, _| g.add(Op::Map(ScalarFn::Add), &[id, x], None));
    assert_eq!(simplify(&sums, Numerics::Real).0.len(), 2_501);
}

/// Formulas that feed one rule into another stay within their limits.
#[test]
fn saturation_ends() {
    let x = input("x", DType::F32, &[Some(3), Some(4)]);
    let mut y = x.clone();
    for _ in 0..12 {
        y = (y.softmax(1).log() + y.sigmoid().log() - (1.0 + y.exp()).log()) / 2.0
            - y.t().reshape([3, 4]).sqr();
    }
    let (simplified, report) = simplify(&graph_of(&[&x], &[&y]), Numerics::Real);
    assert!(report.e_nodes < 20_000, "{report}");
    assert!(simplified.len() < 500, "{report}");
    let value = &interpret(&simplified, &[Array::new(&[3, 4], &[0.1f32; 12]).unwrap()]).unwrap().outputs[0];
    assert_eq!(value.shape(), [3, 4]);
}
