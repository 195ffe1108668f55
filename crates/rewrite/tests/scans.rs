//! Rewritings of scans: each keeps the values of the interpreter, and leaves in the scan what it is said to.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::{All, Size, full};
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::grad;
use hypatia_graph::index::Index;
use hypatia_graph::interp::interpret;
use hypatia_graph::op::{self, ScanResult};
use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::streams::RandomStreams;
use hypatia_graph::tensor::input;
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, DType, Graph, Op, ScalarFn, Tensor};
use hypatia_rewrite::{Numerics, Options, Report, explain, simplify};

const TAKEN: Options = Options { numerics: Numerics::Real, gradients_taken: true };

fn graph_of(inputs: &[&Tensor], outputs: &[&Tensor]) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|t| (*t).clone()).collect(),
        outputs: outputs.iter().map(|t| (*t).clone()).collect(),
        unused: Unused::Ignore,
        ..Request::default()
    };
    specialise(&collect(&request).unwrap(), &Arguments::default()).unwrap()
}

/// Numbers that look like any others.
fn some_numbers(ty: &hypatia_graph::TensorType, seed: f64) -> Array {
    let extents = ty.extents().unwrap();
    let count: usize = extents.iter().product();
    let values: Vec<f64> = (0..count).map(|i| (seed + 1.7 * i as f64).sin()).collect();
    Array::new(&extents, &values).unwrap().cast(ty.dtype)
}

/// The simplified graph, after its values were compared with those of the graph as it was built.
#[track_caller]
fn simplified(inputs: &[&Tensor], outputs: &[&Tensor]) -> (Graph, Report) {
    let graph = graph_of(inputs, outputs);
    let arrays: Vec<Array> = inputs.iter().enumerate().map(|(i, t)| some_numbers(t.ty(), i as f64)).collect();
    let expected = interpret(&graph, &arrays).unwrap().outputs;
    let mut result = None;
    for numerics in [Numerics::Strict, Numerics::Real] {
        for gradients_taken in [false, true] {
            let (simple, report) = simplify(&graph, Options { numerics, gradients_taken });
            verify(&simple, Stage::Specialised).unwrap();
            let found = interpret(&simple, &arrays).unwrap().outputs;
            for (x, y) in found.iter().zip(&expected) {
                assert_eq!(x.shape(), y.shape());
                for i in 0..x.len() {
                    let (x, y) = (x.get(i).to_f64(), y.get(i).to_f64());
                    assert!(
                        (x - y).abs() <= 1e-5 * (1.0 + y.abs()),
                        "{x} instead of {y} in\n{graph}\nas\n{simple}"
                    );
                }
            }
            result = Some((simple, report));
        }
    }
    result.unwrap()
}

/// The scans of a graph, each once.
fn scans(graph: &Graph) -> Vec<op::Scan> {
    let live = graph.reachable();
    let mut found: Vec<op::Scan> = Vec::new();
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Scan(scan) = &node.op
            && !found.iter().any(|other| other.body == scan.body)
        {
            let _ = id;
            found.push((**scan).clone());
        }
    }
    found
}

fn results(graph: &Graph) -> Vec<ScanResult> {
    let live = graph.reachable();
    let scans = graph.nodes().filter(|(id, _)| live[id.index()]);
    scans
        .filter_map(|(_, node)| if let Op::Scan(scan) = &node.op { Some(scan.result) } else { None })
        .collect()
}

fn count(graph: &Graph, is: impl Fn(&Op) -> bool) -> usize {
    let live = graph.reachable();
    graph.nodes().filter(|(id, node)| live[id.index()] && is(&node.op)).count()
}

fn matrix(name: &str, rows: usize, columns: usize) -> Tensor {
    input(name, DType::F32, &[Some(rows), Some(columns)])
}

fn cube(name: &str, n: usize, rows: usize, columns: usize) -> Tensor {
    input(name, DType::F32, &[Some(n), Some(rows), Some(columns)])
}

#[test]
fn what_nothing_uses_goes_away() {
    let (x, y, h) = (cube("x", 5, 2, 3), cube("y", 5, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new().sequence(&x).sequence(&y).carry(&h).carry(&h).run(|step| {
        let [x, y] = &step.sequences[..] else { unreachable!() };
        let [a, b] = &step.carries[..] else { unreachable!() };
        Next::new().carry((a * x).tanh()).carry(b + y * y).output(a * y).output(x + 1.0)
    });
    let (graph, _) = simplified(&[&x, &y, &h], &[&scan.last[0]]);
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!((scan.body.carries(), scan.body.inputs(), scan.body.rows().len()), (1, 1, 0), "{graph}");
}

#[test]
fn numbers_and_repeated_values_are_written_in_the_body() {
    let (x, h, b) = (cube("x", 5, 2, 3), matrix("h", 2, 3), input("b", DType::F32, &[Some(3)]));
    let wide = b.reshape([1, 3]) + full(0.0, DType::F32, [2, 3]);
    let ones = full(1.0, DType::F32, [5, 2, 3]);
    let scan = Scan::new().sequence(&x).sequence(&ones).carry(&h).run(|step| {
        let next = (&step.carries[0] * &step.sequences[0] + &wide).tanh() * &step.sequences[1];
        Next::new().carry(next)
    });
    let graph = graph_of(&[&x, &h, &b], &[&scan.carries[0]]);
    // Simplified once, the values outside are seen to be numbers; the scan is looked at after that.
    let (graph, _) = simplify(&simplify(&graph, TAKEN).0, TAKEN);
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!((scan.body.sequences, scan.body.inputs()), (1, 2), "{graph}");
    let captured = scan.body.graph.leaf(scan.body.graph.inputs[1]).unwrap();
    assert_eq!(captured.ty.to_string(), "f32[3]");
    simplified(&[&x, &h, &b], &[&scan_output(&x, &h, &b)]);
}

fn scan_output(x: &Tensor, h: &Tensor, b: &Tensor) -> Tensor {
    let scan = Scan::new()
        .sequence(x)
        .carry(h)
        .run(|step| Next::new().carry((&step.carries[0] * &step.sequences[0] + b).tanh()));
    scan.carries[0].clone()
}

#[test]
fn only_the_last_step_is_kept() {
    let (x, h) = (cube("x", 5, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
        let next = (&step.carries[0] + &step.sequences[0]).tanh();
        Next::new().carry(&next).output(next.sin())
    });
    let (graph, report) =
        simplified(&[&x, &h], &[&scan.carries[0].take(-1), &(scan.outputs[0].take(-1) + 1.0)]);
    assert!(report.rules.contains_key("scan_last_step"), "{report}");
    assert!(results(&graph).iter().all(|result| matches!(result, ScanResult::Last(_))), "{graph}");
    let all = simplified(&[&x, &h], &[&scan.carries[0].take(-1), &scan.carries[0].take(2)]).0;
    assert_eq!(results(&all), [ScanResult::Rows(0)]);
}

#[test]
fn work_that_is_the_same_in_every_step_leaves_the_scan() {
    let (x, h, w) = (cube("x", 5, 2, 3), matrix("h", 2, 3), matrix("w", 3, 3));
    let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
        // The builder captures what does not depend on the step; what the rules bring to light is left.
        let zero = &step.carries[0] - &step.carries[0];
        let scale = (&w + zero.sum(All)).exp();
        Next::new().carry((step.carries[0].dot(scale.t()) + &step.sequences[0]).tanh())
    });
    let (graph, report) = simplified(&[&x, &h, &w], &[&scan.last[0]]);
    assert!(report.rules.contains_key("scan_invariant"), "{report}");
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!(count(&scan.body.graph, |op| *op == Op::Map(ScalarFn::Exp)), 0, "{graph}");
    assert_eq!(count(&graph, |op| *op == Op::Map(ScalarFn::Exp)), 1, "{graph}");
}

#[test]
fn equal_carries_are_one() {
    let (x, h) = (cube("x", 5, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new().sequence(&x).carry(&h).carry(&h).carry(&h).run(|step| {
        let [a, b, c] = &step.carries[..] else { unreachable!() };
        let x = &step.sequences[0];
        // Each of the first two needs the other.
        Next::new().carry((b + x).tanh()).carry((a + x).tanh()).carry((a * c).sin())
    });
    let (graph, _) = simplified(&[&x, &h], &[&scan.last[0], &scan.last[1], &scan.last[2]]);
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!(scan.body.carries(), 2, "{graph}");
}

#[test]
fn carries_that_never_change_and_rows_of_sequences_need_no_scan() {
    let (x, h) = (cube("x", 5, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new()
        .sequence(&x)
        .carry(&h)
        .run(|step| Next::new().carry(&step.carries[0]).output(&step.sequences[0]).output(&step.carries[0]));
    let (graph, _) = simplified(&[&x, &h], &[&scan.last[0], &scan.outputs[0], &scan.outputs[1]]);
    assert!(scans(&graph).is_empty(), "{graph}");
}

#[test]
fn scans_of_one_step_and_of_none_are_no_scans() {
    for n in [0, 1] {
        let (x, h) = (cube("x", n, 2, 3), matrix("h", 2, 3));
        let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
            let next = (&step.carries[0] + &step.sequences[0]).tanh();
            Next::new().carry(&next).output(next.sin()).until(next.sum(All).gt(0.0))
        });
        let (graph, _) =
            simplified(&[&x, &h], &[&scan.last[0], &scan.outputs[0], &scan.carries[0], &scan.steps]);
        assert!(scans(&graph).is_empty(), "{graph}");
    }
}

#[test]
fn a_scan_with_a_condition_keeps_it() {
    let (x, h) = (cube("x", 9, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new().sequence(&x).carry(&h).carry(&h).run(|step| {
        let next = (&step.carries[0] + &step.sequences[0]).tanh();
        let sum = &step.carries[1] + 1.0;
        let until = sum.sum(All).gt(30.0);
        Next::new().carry(&next).carry(sum).output(&step.sequences[0]).until(until)
    });
    let (graph, _) = simplified(&[&x, &h], &[&scan.last[0], &scan.outputs[0].padded().take(-1), &scan.steps]);
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert!(scan.body.until);
}

#[test]
fn bodies_and_scans_in_bodies_are_simplified() {
    let (x, h) = (cube("x", 5, 2, 3), matrix("h", 2, 3));
    let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
        let x = step.sequences[0].clone();
        let inner = Scan::new()
            .carry(&step.carries[0])
            .steps(3)
            .run(|step| Next::new().carry((1.0 + (&step.carries[0] + &x).exp()).log()));
        Next::new().carry(inner.carries[0].take(-1))
    });
    let (graph, report) = simplified(&[&x, &h], &[&scan.last[0]]);
    let [outer] = &scans(&graph)[..] else { panic!("{graph}") };
    let [inner] = &scans(&outer.body.graph)[..] else { panic!("{graph}") };
    assert_eq!(count(&inner.body.graph, |op| *op == Op::Map(ScalarFn::Softplus)), 1, "{report}");
    assert_eq!(results(&outer.body.graph), [ScanResult::Last(0)]);
}

/// Four steps of `h = sigmoid(x + 2 h)` from 0.25 with pre-activations around -200 and 200, where every sigmoid is 0 or
/// 1 in `f32`.
fn saturated() -> (Tensor, Array, hypatia_graph::scan::Scanned) {
    let x = matrix("x", 4, 2);
    let values: Vec<f64> =
        (0..4).flat_map(|t| [-200.0 - 10.0 * f64::from(t), 200.0 + 10.0 * f64::from(t)]).collect();
    let h = full(0.25, DType::F32, [2]);
    let scan = Scan::new()
        .sequence(&x)
        .carry(&h)
        .run(|step| Next::new().carry((&step.sequences[0] + &step.carries[0] * 2.0).sigmoid()));
    (x, Array::new(&[4, 2], &values).unwrap().cast(DType::F32), scan)
}

#[track_caller]
fn check(inputs: &[&Tensor], arrays: &[Array], output: &Tensor, expected: &[f64]) {
    for gradients_taken in [false, true] {
        let options = Options { numerics: Numerics::Real, gradients_taken };
        let (graph, _) = simplify(&graph_of(inputs, &[output]), options);
        let value = &interpret(&graph, arrays).unwrap().outputs[0];
        let found: Vec<f64> = (0..value.len()).map(|i| value.get(i).to_f64()).collect();
        assert_eq!(found.len(), expected.len());
        for (x, y) in found.iter().zip(expected) {
            // What is below the smallest number of the type is 0.
            assert!((x - y).abs() <= 1e-5 * y.abs() + 1e-37, "{x} instead of {y} in\n{graph}");
        }
    }
}

/// Values of tests/reference/scan_traps.py.
#[test]
fn logarithms_of_what_saturates_in_a_scan_are_finite() {
    let log = [-230.0, -1.7525894717410478e-101];
    let rest = [-1.2949981925089836e-100, -232.0];
    let last = Index::At(Size::from(-1));
    let (x, values, scan) = saturated();
    let check =
        |output: &Tensor, expected: &[f64]| check(&[&x], std::slice::from_ref(&values), output, expected);
    let (rows, end) = (&scan.carries[0], &scan.last[0]);
    for h in
        [rows.index([last.clone()]), rows.take(-1), end.clone(), rows.take(3).reshape([1, 2]).reshape([2])]
    {
        check(&h.log(), &log);
        check(&(1.0 - &h).log(), &rest);
        check(&((1.0 - &h).log() + h.log()), &[log[0] + rest[0], log[1] + rest[1]]);
    }
    check(&rows.log().index([last.clone()]), &log);
    check(&(1.0 - rows).reshape([8]).log().index([Index::from(6..8)]), &rest);
}

#[test]
fn cross_entropy_of_what_saturates_in_a_scan_is_finite() {
    let (x, values, scan) = saturated();
    let y = input("y", DType::F32, &[Some(2)]);
    let targets = Array::new(&[2], &[0.25, 0.75]).unwrap().cast(DType::F32);
    let h = &scan.carries[0];
    let cost = -(&y * h.log() + (1.0 - &y) * (1.0 - h).log()).mean(All);
    check(&[&x, &y], &[values.clone(), targets.clone()], &cost, &[53.9375]);
    // A target for every step.
    let all = matrix("all", 4, 2);
    let targets =
        Array::new(&[4, 2], &[0.25, 0.75, 0.25, 0.75, 0.25, 0.75, 0.25, 0.75]).unwrap().cast(DType::F32);
    check(
        &[&x, &all],
        &[values.clone(), targets.clone()],
        &h.binary_crossentropy(&all).mean(All),
        &[53.9375],
    );
    let flat = h.reshape([8, 1]).binary_crossentropy(all.reshape([8, 1])).sum(1).mean(All);
    check(&[&x, &all], &[values, targets], &flat, &[53.9375]);
}

#[test]
fn logarithm_of_a_softmax_in_a_scan_is_finite() {
    let x = cube("x", 4, 1, 3);
    let values: Vec<f64> = (0..4).flat_map(|t| [0.0, 300.0 + f64::from(t), -300.0]).collect();
    let values = Array::new(&[4, 1, 3], &values).unwrap().cast(DType::F32);
    let p = input("p", DType::F32, &[Some(1), Some(3)]);
    let first = Array::new(&[1, 3], &[0.25, 0.25, 0.5]).unwrap().cast(DType::F32);
    let scan = Scan::new()
        .sequence(&x)
        .carry(&p)
        .run(|step| Next::new().carry((&step.sequences[0] + &step.carries[0] * 2.0).softmax(1)));
    let arrays = [values, first];
    let log_softmax = [-305.0, -3.4688300239292163e-133, -605.0];
    check(&[&x, &p], &arrays, &scan.carries[0].log().take(-1).reshape([3]), &log_softmax);
    check(&[&x, &p], &arrays, &scan.last[0].log().reshape([3]), &log_softmax);
    let labels = hypatia_graph::tensor::constant(Array::vector(&[0i64, 0, 0, 2]));
    let cost = scan.carries[0].reshape([4, 3]).categorical_crossentropy(&labels);
    let last = cost.index([Index::from(3..4)]);
    check(&[&x, &p], &arrays, &last, &[-log_softmax[2]]);
}

/// A recurrent layer with its output layer: `h = tanh(x . w + h . u)`, `y = h . v`.
fn recurrent(n: usize, m: usize) -> (Vec<Tensor>, hypatia_graph::scan::Scanned) {
    let (x, h, w) = (cube("x", n, m, 3), matrix("h", m, 4), matrix("w", 3, 4));
    let (u, v) = (matrix("u", 4, 4), matrix("v", 4, 2));
    let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
        let next = ((&step.sequences[0] * 2.0).dot(&w) + step.carries[0].dot(&u)).tanh();
        Next::new().carry(&next).output(next.dot(&v).softmax(1))
    });
    (vec![x, h, w, u, v], scan)
}

#[test]
fn products_that_no_later_step_needs_leave_the_scan() {
    for m in [1, 5] {
        let (inputs, scan) = recurrent(6, m);
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        let (graph, report) = simplified(&inputs, &[&scan.outputs[0], &scan.last[0]]);
        let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
        assert_eq!(count(&scan.body.graph, |op| *op == Op::Dot), 1, "{report}\n{graph}");
        assert_eq!(count(&graph, |op| *op == Op::Dot), 2, "{graph}");
    }
}

/// The weight gradients of a recurrent layer, as the scan that goes backwards computes them.
#[test]
fn sums_of_products_are_one_product() {
    let (n, m) = (7, 5);
    let (x, d) = (cube("x", n, m, 3), cube("d", n, m, 4));
    let u = matrix("u", 4, 4);
    let zero = |shape: &[usize]| full(0.0, DType::F32, shape);
    let (cotangent, w, b) = (zero(&[m, 4]), matrix("w", 3, 4), zero(&[4]));
    let scan = Scan::new().sequence(&x).sequence(&d).carry(&cotangent).carry(&w).carry(&b).run(|step| {
        let [x, d] = &step.sequences[..] else { unreachable!() };
        let [c, w, b] = &step.carries[..] else { unreachable!() };
        let e = (c.dot(u.t()) + d).sin();
        Next::new().carry(&e).carry(w + x.t().dot(&e) * 0.5 - e.sum(0)).carry(b + e.sum(0))
    });
    let (graph, report) = simplified(&[&x, &d, &u, &w], &[&scan.last[1], &scan.last[2], &scan.last[0]]);
    assert!(report.rules.contains_key("scan_sum_after"), "{report}\n{graph}");
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!(scan.body.carries(), 1, "{graph}");
    assert_eq!(count(&graph, |op| *op == Op::Dot), 1, "{graph}");
}

#[test]
fn sums_over_large_rows_are_added_up_in_the_scan() {
    let (x, h) = (cube("x", 5, 20, 30), matrix("h", 20, 30));
    let scan = Scan::new()
        .sequence(&x)
        .carry(&h)
        .run(|step| Next::new().carry((&step.carries[0] + &step.sequences[0]).sin()));
    let (graph, _) = simplified(&[&x, &h], &[&scan.carries[0].sum(0)]);
    assert!(results(&graph).iter().all(|result| matches!(result, ScanResult::Last(_))), "{graph}");
}

#[test]
fn scans_with_a_carry_in_common_are_one() {
    let (x, h, w) = (cube("x", 5, 2, 3), matrix("h", 2, 3), matrix("w", 3, 3));
    let run = |output: fn(&Tensor) -> Tensor| {
        Scan::new().sequence(&x).carry(&h).run(|step| {
            let next = (step.carries[0].dot(&w) + &step.sequences[0]).tanh();
            Next::new().carry(&next).output(output(&next))
        })
    };
    let (a, b) = (run(|h| h.exp()), run(|h| h.sin()));
    let (graph, report) = simplified(&[&x, &h, &w], &[&a.outputs[0], &b.outputs[0], &b.last[0]]);
    assert!(report.rules.contains_key("scans_fused"), "{report}\n{graph}");
    assert_eq!(scans(&graph).len(), 1, "{graph}");
}

/// The whole pipeline, after its values were compared with those of plain gradients of the formula as it was built.
#[track_caller]
fn compiled(inputs: &[&Tensor], outputs: &[&Tensor]) -> (Graph, Report) {
    let graph = graph_of(inputs, outputs);
    let arrays: Vec<Array> = inputs.iter().enumerate().map(|(i, t)| some_numbers(t.ty(), i as f64)).collect();
    let plain = differentiate(&graph, &mut Graph::clone).unwrap();
    let expected = interpret(&plain, &arrays).unwrap().outputs;
    let taken = differentiate(&graph, &mut |forward| simplify(forward, Numerics::Real).0).unwrap();
    let (simple, report) = simplify(&taken, TAKEN);
    verify(&simple, Stage::Differentiated).unwrap();
    let found = interpret(&simple, &arrays).unwrap().outputs;
    for (x, y) in found.iter().zip(&expected) {
        for i in 0..x.len() {
            let (x, y) = (x.get(i).to_f64(), y.get(i).to_f64());
            assert!((x - y).abs() <= 1e-4 * (1.0 + y.abs()), "{x} instead of {y} in\n{plain}\nas\n{simple}");
        }
    }
    (simple, report)
}

#[test]
fn a_cost_and_its_gradient_run_one_scan_each_way() {
    for m in [1, 5] {
        let (inputs, scan) = recurrent(6, m);
        let [x, h, w, u, v] = &inputs[..] else { unreachable!() };
        let y = cube("y", 6, m, 2);
        let cost = -(&y * scan.outputs[0].log()).sum(2).mean(All);
        let gradients = grad(&cost, [w, u, v, h]);
        let outputs: Vec<&Tensor> = std::iter::once(&cost).chain(&gradients).collect();
        let (graph, report) = compiled(&[x, h, w, u, v, &y], &outputs);
        let found = scans(&graph);
        assert_eq!(found.len(), 2, "{report}\n{graph}");
        for scan in &found {
            assert_eq!(count(&scan.body.graph, |op| *op == Op::Dot), 1, "{report}\n{graph}");
            // Going backwards, the value after a step is the one before the next.
            assert!(scan.body.carries() <= 2, "{report}\n{graph}");
        }
    }
}

#[test]
fn gradients_through_what_saturates_in_a_scan_are_finite() {
    let (x, values, scan) = saturated();
    let y = 0.25;
    let h = scan.carries[0].index([Index::At(Size::from(-1))]);
    let cost = -(y * h.log() + (1.0 - y) * (1.0 - &h).log()).sum(All);
    let gradient = grad(&cost, [&x]).remove(0);
    let graph = graph_of(&[&x], &[&gradient]);
    let taken = differentiate(&graph, &mut |forward| simplify(forward, Numerics::Real).0).unwrap();
    let (graph, _) = simplify(&taken, TAKEN);
    let value = &interpret(&graph, &[values]).unwrap().outputs[0];
    let found: Vec<f64> = (0..value.len()).map(|i| value.get(i).to_f64()).collect();
    // sigmoid - y in the last step; nothing flows through the sigmoids before it, which are flat.
    assert_eq!(found, [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -0.25, 0.75], "{graph}");
}

#[test]
fn what_only_the_last_value_is_made_of_is_computed_after_the_scan() {
    let (x, h, v) = (cube("x", 5, 2, 3), matrix("h", 2, 3), matrix("v", 3, 3));
    let scan = Scan::new().sequence(&x).carry(&h).carry(&h).run(|step| {
        let [a, _] = &step.carries[..] else { unreachable!() };
        let next = (a + &step.sequences[0]).sin();
        Next::new().carry(&next).carry(next.dot(&v).exp() + &step.sequences[0])
    });
    let (graph, report) = simplified(&[&x, &h, &v], &[&scan.last[0], &scan.last[1]]);
    assert!(report.rules.contains_key("scan_last_after"), "{report}");
    assert_eq!(count(&graph, |op| *op == Op::Dot), 1, "{graph}");
}

#[test]
fn maps_need_no_scan() {
    let (x, w) = (cube("x", 5, 2, 3), matrix("w", 4, 2));
    let y = hypatia_graph::scan::map(&[&x], |x| w.dot(&x[0]).softmax(0).t());
    let (graph, report) = simplified(&[&x, &w], &[&y]);
    assert!(scans(&graph).is_empty(), "{report}\n{graph}");
}

#[test]
fn explanations_of_scans_end() {
    let (x, _, scan) = saturated();
    let graph = graph_of(&[&x], &[&scan.carries[0].log().sum(All)]);
    let text = explain(&graph, Numerics::Real).to_string();
    assert!(text.contains("scan"), "{text}");
}

/// A summand whose parts are used twice, forty times over: the ways through it are without number.
#[test]
fn sums_of_shared_towers_end() {
    let (x, h) = (matrix("x", 5, 4), matrix("h", 4, 4));
    let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
        let element = &step.sequences[0];
        let mut summand = element.reshape([4, 1]).dot(element.exp().reshape([1, 4]));
        for _ in 0..40 {
            summand = (&summand + summand.t()) * 0.25;
        }
        Next::new().carry(&step.carries[0] + summand)
    });
    let graph = graph_of(&[&x, &h], &[&scan.last[0]]);
    let arrays = [some_numbers(x.ty(), 0.0), some_numbers(h.ty(), 1.0)];
    let expected = interpret(&graph, &arrays).unwrap().outputs;
    let (simple, _) = simplify(&graph, TAKEN);
    let found = interpret(&simple, &arrays).unwrap().outputs;
    for index in 0..16 {
        let (x, y) = (found[0].get(index).to_f64(), expected[0].get(index).to_f64());
        assert!((x - y).abs() <= 1e-5 * (1.0 + y.abs()), "{x} instead of {y}");
    }
}

/// Rewritings of scans are steps as rules are, with the formula after each.
#[test]
fn explanations_name_rewritings_of_scans() {
    let (x, h) = (matrix("x", 4, 2), input("h", DType::F32, &[Some(2)]));
    let scan = Scan::new()
        .sequence(&x)
        .carry(&h)
        .run(|step| Next::new().carry((&step.sequences[0] + &step.carries[0]).sin()));
    let graph = graph_of(&[&x, &h], &[&scan.carries[0].take(-1).exp().log()]);
    let explanation = explain(&graph, Numerics::Real);
    let [derivation] = &explanation.derivations[..] else { panic!("{explanation}") };
    let rules: Vec<&str> = derivation.steps.iter().map(|step| step.rule.as_str()).collect();
    assert!(rules.contains(&"scan_last_step") && rules.contains(&"log_exp"), "{explanation}");
    assert_eq!(derivation.steps.last().map(|step| &step.formula), Some(&derivation.result), "{explanation}");
    let text = explanation.to_string();
    assert!(
        text.contains(
            "scan_last_step exact: a row of which only the last one is read is carried and not stored"
        ),
        "{text}"
    );
}

/// A Gibbs chain, of which the last step is watched: the watching is done once.
#[test]
fn a_watched_last_step_costs_nothing_in_the_scan() {
    let (v, w, x) = (matrix("v", 4, 6), matrix("w", 6, 3), matrix("x", 4, 6));
    let wt = w.t();
    let scan = Scan::new().carry(&v).steps(5).run(|step| {
        let hidden = step.carries[0].dot(&w).sigmoid();
        let visible = hidden.dot(&wt).sigmoid();
        Next::new().carry(&visible).output(visible)
    });
    let p = scan.outputs[0].take(-1);
    let cost = (&x * p.log() + (1.0 - &x) * (1.0 - &p).log()).sum(1).mean(All);
    let (graph, _) = simplified(&[&v, &w, &x], &[&cost, &scan.last[0]]);
    let [scan] = &scans(&graph)[..] else { panic!("{graph}") };
    assert_eq!(count(&scan.body.graph, |op| *op == Op::Map(ScalarFn::Softplus)), 0, "{graph}");
    // The transposed weights are read in place, not captured as well.
    assert_eq!(scan.body.inputs(), 1, "{graph}");
}

/// Draws in a scan are the same ones, and the counters end where they did.
#[test]
fn draws_are_the_same() {
    let (v, w) = (matrix("v", 4, 6), matrix("w", 6, 3));
    let streams = RandomStreams::new(5);
    let scan = Scan::new().carry(&v).steps(5).run(|step| {
        let hidden = streams.binomial([4, 3], 1, step.carries[0].dot(&w).sigmoid());
        let p = hidden.dot(w.t()).sigmoid();
        Next::new()
            .carry(streams.binomial([4, 6], 1, &p))
            .output(&p)
            .output(streams.uniform([4, 6], 0.0, 1.0) * p)
    });
    let outputs = [scan.outputs[0].take(-1).log(), scan.carries[0].sum(0), scan.outputs[1].take(-1)];
    let graph = graph_of(&[&v, &w], &outputs.each_ref());
    let arrays = [some_numbers(v.ty(), 0.0), some_numbers(w.ty(), 1.0)];
    let expected = interpret(&graph, &arrays).unwrap();
    assert_eq!(expected.updates.len(), 3);
    let (simple, _) = simplify(&graph, TAKEN);
    let found = interpret(&simple, &arrays).unwrap();
    assert_eq!(found.updates, expected.updates);
    assert_eq!(found.outputs[1], expected.outputs[1]);
    assert_eq!(found.outputs[2], expected.outputs[2]);
}

#[test]
fn rows_that_nothing_reads_are_not_stored() {
    let (x, h) = (cube("x", 30, 40, 100), matrix("h", 40, 100));
    let scan = Scan::new()
        .sequence(&x)
        .carry(&h)
        .run(|step| Next::new().carry((&step.carries[0] + &step.sequences[0]).sin()));
    let rows = |range: std::ops::Range<i64>| scan.carries[0].index([Index::from(range)]);
    let steps = |graph: &Graph| -> Vec<op::Dim> { scans(graph).iter().map(|scan| scan.steps).collect() };
    let (graph, _) = simplified(&[&x, &h], &[&rows(0..4)]);
    assert_eq!(steps(&graph), [op::Dim::Known(4)], "{graph}");
    let (graph, report) = simplified(&[&x, &h], &[&rows(20..30), &scan.last[0]]);
    assert_eq!(steps(&graph), [op::Dim::Known(20), op::Dim::Known(10)], "{report}\n{graph}");
    let (graph, _) = simplified(&[&x, &h], &[&rows(20..25), &rows(18..21).sum(0)]);
    assert_eq!(steps(&graph), [op::Dim::Known(18), op::Dim::Known(7)], "{graph}");
}

/// The most elements that a scan of the graph or of a body stacks.
fn most_stacked(graph: &Graph) -> usize {
    let mut most = 0;
    for (_, node) in graph.nodes() {
        if let Op::Scan(scan) = &node.op {
            let rows =
                if let ScanResult::Rows(_) = scan.result { node.ty.element_count().unwrap() } else { 0 };
            most = most.max(rows).max(most_stacked(&scan.body.graph));
        }
    }
    most
}

#[test]
fn scans_with_checkpoints_store_little() {
    let (h, w, v) = (matrix("h", 3, 8), matrix("w", 8, 8), matrix("v", 8, 8));
    let run = |scan: Scan| {
        let scan = scan.carry(&h).steps(64).run(|step| {
            let next = step.carries[0].dot(&w).tanh();
            Next::new().carry(&next).output(next.dot(&v).sqr().sum(All))
        });
        let cost = scan.last[0].sqr().sum(All) + scan.outputs[0].sum(0);
        let mut outputs = vec![cost.clone()];
        outputs.extend(grad(&cost, [&h, &w, &v]));
        compiled(&[&h, &w, &v], &outputs.iter().collect::<Vec<_>>()).0
    };
    assert_eq!(most_stacked(&run(Scan::new())), 64 * 3 * 8);
    assert!(most_stacked(&run(Scan::new().checkpointed())) <= 16 * 3 * 8);
}

/// The gradient of a weight that all steps share is a sum over the steps, here of nearly equal numbers, which one after
/// another would be off by hundreds of roundings.
#[test]
fn sums_over_many_steps_lose_few_digits() {
    let run = |dtype: DType| {
        let (x, w) = (input("x", dtype, &[Some(4000), Some(2)]), input("w", dtype, &[Some(2)]));
        let h = full(0.0, dtype, [2]);
        let scan = Scan::new().sequence(&x).carry(&h).run(|step| {
            let next = (&step.carries[0] * &w + &step.sequences[0]).tanh();
            Next::new().carry(&next).output(&next)
        });
        let slope = grad(&scan.outputs[0].sum(All), [&w]).remove(0);
        let taken = differentiate(&graph_of(&[&x, &w], &[&slope]), &mut |forward| {
            simplify(forward, Numerics::Real).0
        })
        .unwrap();
        let (simple, report) = simplify(&taken, TAKEN);
        let inputs = [
            Array::full(&[4000, 2], hypatia_graph::Literal::from_f64(0.3, DType::F64)).unwrap().cast(dtype),
            Array::vector(&[0.5, 0.25]).cast(dtype),
        ];
        let value = interpret(&simple, &inputs).unwrap().outputs.remove(0);
        let staged = report.rules.get("scan_sum_staged").copied().unwrap_or(0);
        assert!(staged > 0, "{simple}");
        [0, 1].map(|i| value.get(i).to_f64())
    };
    for (x, y) in run(DType::F32).into_iter().zip(run(DType::F64)) {
        assert!((x - y).abs() <= 24.0 * f64::powi(2.0, -24) * y.abs(), "{x} instead of {y}");
    }
}
