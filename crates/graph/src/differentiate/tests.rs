use super::differentiate;
use crate::array::Array;
use crate::body::Body;
use crate::collect::{Request, Unused, collect};
use crate::compose::{All, AxisSet, arange, stack};
use crate::dtype::{DType, Literal};
use crate::gradient::{Gradient, grad};
use crate::graph::Graph;
use crate::index::Index;
use crate::interp::interpret;
use crate::op::{Disconnected, Op, ScanResult};
use crate::scan::{Next, Scan, Scanned, map};
use crate::shape::Axes;
use crate::specialise::{Arguments, specialise};
use crate::streams::RandomStreams;
use crate::tensor::{Tensor, constant, matrix, scalar, tensor3, vector};
use crate::verify::{Stage, verify};
use std::collections::BTreeSet;
use std::sync::Arc;

type Inputs<'a> = [(&'a Tensor, Array)];

/// The graph of expressions with every gradient taken.
fn taken(outputs: &[Tensor], inputs: &Inputs<'_>) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|(input, _)| (*input).clone()).collect(),
        outputs: outputs.to_vec(),
        unused: Unused::Ignore,
        ..Request::default()
    };
    let collected = collect(&request).unwrap_or_else(|faults| panic!("{faults}"));
    let shapes = collected.inputs.iter().zip(inputs).map(|(id, (_, x))| (*id, x.shape().into())).collect();
    let counts =
        collected.inputs.iter().zip(inputs).filter(|(_, (_, x))| x.rank() == 0 && x.dtype().is_int());
    let values = counts.map(|(id, (_, x))| (*id, x.get(0).to_i64().unwrap())).collect();
    let specialised = specialise(&collected, &Arguments { shapes, values }).unwrap();
    let graph = differentiate(&specialised, &mut Graph::clone).unwrap_or_else(|faults| panic!("{faults}"));
    verify(&graph, Stage::Differentiated).unwrap_or_else(|faults| panic!("{faults}"));
    graph
}

fn values(outputs: &[Tensor], inputs: &Inputs<'_>) -> Vec<Vec<f64>> {
    let arrays: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let result = interpret(&taken(outputs, inputs), &arrays).unwrap_or_else(|fault| panic!("{fault}"));
    result.outputs.iter().map(|array| (0..array.len()).map(|i| array.get(i).to_f64()).collect()).collect()
}

/// Numbers between -1 and 1 that look like noise.
fn noise(shape: &[usize], seed: u64) -> Array {
    let numbers: Vec<f64> = (0..shape.iter().product::<usize>())
        .map(|i| ((i as f64 + 1.7) * 12.9898 + seed as f64 * 78.233).sin() * 0.8)
        .collect();
    Array::new(shape, &numbers).unwrap()
}

fn assert_close(found: &[Vec<f64>], expected: &[Vec<f64>], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (position, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{what} {position}");
        for (a, b) in found.iter().zip(expected) {
            assert!(
                (a - b).abs() <= tolerance * (1.0 + b.abs()),
                "{what} {position}: {found:?}, not {expected:?}"
            );
        }
    }
}

/// Checks gradients of a cost that has a scan, and gradients of these, against those of the same cost without one.
fn check(rolled: &Tensor, unrolled: &Tensor, variables: &[&Tensor], inputs: &Inputs<'_>) {
    let with_gradients = |cost: &Tensor| {
        let first = Gradient::of(cost).disconnected(Disconnected::Zero).wrt(variables.iter().copied());
        let mut outputs = vec![cost.clone()];
        outputs.extend(first.iter().cloned());
        (outputs, first)
    };
    let (found, first) = with_gradients(rolled);
    let (expected, first_expected) = with_gradients(unrolled);
    assert_close(&values(&found, inputs), &values(&expected, inputs), 1e-12, "gradient");
    check_differences(rolled, &first, variables, inputs);
    let second = |first: &[Tensor]| {
        let squares = first.iter().map(|g| g.sqr().sum(All)).reduce(|a, b| a + b).unwrap();
        Gradient::of(&squares).disconnected(Disconnected::Zero).wrt(variables.iter().copied())
    };
    assert_close(
        &values(&second(&first), inputs),
        &values(&second(&first_expected), inputs),
        1e-11,
        "second derivative",
    );
}

/// Checks gradients against the difference quotient along one direction a variable.
fn check_differences(cost: &Tensor, gradients: &[Tensor], variables: &[&Tensor], inputs: &Inputs<'_>) {
    let gradients = values(gradients, inputs);
    for (variable, gradient) in variables.iter().zip(gradients) {
        let at = |step: f64| {
            let moved: Vec<(&Tensor, Array)> = inputs
                .iter()
                .map(|(input, value)| {
                    let mut value = value.clone();
                    if input.leaf().unwrap().id == variable.leaf().unwrap().id {
                        for i in 0..value.len() {
                            let x = value.get(i).to_f64() + step * ((i % 3) as f64 - 0.7);
                            value.set(i, Literal::from_f64(x, DType::F64));
                        }
                    }
                    (*input, value)
                })
                .collect();
            values(std::slice::from_ref(cost), &moved)[0][0]
        };
        // Of fourth order, so that neither the curvature of the cost nor its rounding shows.
        let step = 1e-4;
        let quotient = (8.0 * (at(step) - at(-step)) - (at(2.0 * step) - at(-2.0 * step))) / (12.0 * step);
        let slope: f64 = gradient.iter().enumerate().map(|(i, g)| g * ((i % 3) as f64 - 0.7)).sum();
        let scale = 1.0 + slope.abs();
        assert!((quotient - slope).abs() < 2e-7 * scale, "{variable:?}: {slope}, differences say {quotient}");
    }
}

fn row(x: &Tensor, t: usize) -> Tensor {
    x.index([Index::At((t as i64).into())])
}

/// The scans of a graph, those in bodies included: bodies with operands, without which of their results is meant.
fn scans(graph: &Graph) -> usize {
    let live = graph.reachable();
    let mut found = BTreeSet::new();
    let mut bodies: BTreeSet<Arc<Body>> = BTreeSet::new();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Scan(scan) = &node.op {
            found.insert((scan.body.clone(), scan.steps, node.operands.to_vec()));
            bodies.insert(scan.body.clone());
        }
    }
    found.len() + bodies.iter().map(|body| scans(&body.graph)).sum::<usize>()
}

/// The widths of what a graph's scans stack.
fn stacked(graph: &Graph) -> Vec<String> {
    let live = graph.reachable();
    let rows = graph.nodes().filter(|(id, node)| {
        live[id.index()] && matches!(&node.op, Op::Scan(scan) if matches!(scan.result, ScanResult::Rows(_)))
    });
    rows.map(|(_, node)| node.ty.to_string()).collect()
}

struct Recurrent {
    x: Tensor,
    h0: Tensor,
    w: Tensor,
    u: Tensor,
    b: Tensor,
}

impl Recurrent {
    fn new() -> Recurrent {
        let (x, h0) = (tensor3::<f64>("x"), matrix::<f64>("h0"));
        Recurrent { x, h0, w: matrix::<f64>("w"), u: matrix::<f64>("u"), b: vector::<f64>("b") }
    }

    fn step(&self, x: &Tensor, h: &Tensor) -> Tensor {
        (x.dot(&self.w) + h.dot(&self.u) + &self.b).tanh()
    }

    fn variables(&self) -> Vec<&Tensor> {
        vec![&self.x, &self.h0, &self.w, &self.u, &self.b]
    }

    fn inputs(&self, n: usize) -> Vec<(&Tensor, Array)> {
        vec![
            (&self.x, noise(&[n, 2, 3], 1)),
            (&self.h0, noise(&[2, 4], 2)),
            (&self.w, noise(&[3, 4], 3)),
            (&self.u, noise(&[4, 4], 4)),
            (&self.b, noise(&[4], 5)),
        ]
    }

    fn unrolled(&self, n: usize) -> Vec<Tensor> {
        let mut h = self.h0.clone();
        let mut all = Vec::new();
        for t in 0..n {
            h = self.step(&row(&self.x, t), &h);
            all.push(h.clone());
        }
        all
    }
}

#[test]
fn a_recurrent_layer_is_that_of_its_steps() {
    let layer = Recurrent::new();
    let scanned = Scan::new()
        .sequence(&layer.x)
        .carry(&layer.h0)
        .run(|step| Next::new().carry(layer.step(&step.sequences[0], &step.carries[0])));
    for n in [2, 5] {
        let inputs = layer.inputs(n);
        let all = layer.unrolled(n);
        let last = |h: &Tensor| h.sqr().sum(All);
        check(&last(&scanned.last[0]), &last(&all[n - 1]), &layer.variables(), &inputs);
        let rows = |h: &Tensor| (h.sqr() * 0.5 + h.sin()).sum(All);
        let rolled = rows(&scanned.carries[0]) + last(&scanned.last[0]);
        let unrolled = rows(&stack(&all, 0)) + last(&all[n - 1]);
        check(&rolled, &unrolled, &layer.variables(), &inputs);
    }
}

#[test]
fn a_scan_and_its_gradient_are_two_scans() {
    let layer = Recurrent::new();
    let scanned = Scan::new()
        .sequence(&layer.x)
        .carry(&layer.h0)
        .run(|step| Next::new().carry(layer.step(&step.sequences[0], &step.carries[0])));
    let cost = scanned.last[0].sum(All);
    let outputs = |cost: &Tensor| {
        let mut outputs = vec![cost.clone()];
        outputs.extend(grad(cost, layer.variables()));
        outputs
    };
    let graph = taken(&outputs(&cost), &layer.inputs(6));
    assert_eq!(scans(&graph), 2);
    // Only what a step had before is kept, not what it gave, beside the cotangents of x.
    assert_eq!(stacked(&graph), ["f64[6, 2, 4]", "f64[6, 2, 3]"]);
    // Asked for one after another, and of two costs: one scan forwards all the same.
    let other = scanned.carries[0].sqr().sum(All);
    let mut separate: Vec<Tensor> = layer.variables().iter().flat_map(|v| grad(&cost, [*v])).collect();
    separate.extend(grad(&other, [&layer.u]));
    separate.extend([cost, other]);
    let graph = taken(&separate, &layer.inputs(6));
    let live = graph.reachable();
    let forward: BTreeSet<_> = graph
        .nodes()
        .filter(|(id, _)| live[id.index()])
        .filter_map(|(_, node)| match &node.op {
            Op::Scan(scan) if scan.body.graph.name(scan.body.graph.updates[0].1).is_none() => {
                Some((scan.body.clone(), node.operands.clone()))
            }
            _ => None,
        })
        .filter(|(body, _)| {
            body.graph.nodes().any(|(_, node)| matches!(node.op, Op::Map(crate::scalar::ScalarFn::Tanh)))
        })
        .collect();
    assert_eq!(forward.len(), 1);
}

#[test]
fn several_carries_with_outputs_beside_them() {
    // The carries change places, one is squared on the way, and the output reads both as they were before.
    let (x, a, b, w) = (vector::<f64>("x"), scalar::<f64>("a"), scalar::<f64>("b"), scalar::<f64>("w"));
    let step = |x: &Tensor, a: &Tensor, b: &Tensor| ((b * &w).sin(), a + x * b, a * b.exp() + x);
    let scanned = Scan::new().sequence(&x).carry(&a).carry(&b).run(|s| {
        let (a, b, y) = step(&s.sequences[0], &s.carries[0], &s.carries[1]);
        Next::new().carry(a).carry(b).output(y)
    });
    for n in [1, 2, 6] {
        let inputs = [(&x, noise(&[n], 1)), (&a, noise(&[], 2)), (&b, noise(&[], 3)), (&w, noise(&[], 4))];
        let (mut p, mut q, mut ys) = (a.clone(), b.clone(), Vec::new());
        for t in 0..n {
            let (next_p, next_q, y) = step(&row(&x, t), &p, &q);
            (p, q) = (next_p, next_q);
            ys.push(y);
        }
        let variables = [&x, &a, &b, &w];
        let rows = |y: &Tensor| (y.sqr() * 0.3).sum(All);
        check(&rows(&scanned.outputs[0]), &rows(&stack(&ys, 0)), &variables, &inputs);
        let rolled = rows(&scanned.outputs[0]) + &scanned.last[0] * &scanned.last[1];
        check(&rolled, &(rows(&stack(&ys, 0)) + &p * &q), &variables, &inputs);
        // Of a result that the output does not reach, and of the second carry alone.
        check(&scanned.last[1].sqr(), &q.sqr(), &variables, &inputs);
    }
}

#[test]
fn carries_that_swap_need_nothing_kept() {
    let (a, b) = (scalar::<f64>("a"), scalar::<f64>("b"));
    let scanned = Scan::new().carry(&a).carry(&b).steps(5).run(|s| {
        Next::new()
            .carry(&s.carries[1])
            .carry(&s.carries[0])
            .output(&s.carries[0] * &s.carries[1] * &s.carries[0])
    });
    let cost = scanned.outputs[0].sum(All);
    let unrolled =
        (0..5).map(|t| if t % 2 == 0 { &a * &b * &a } else { &b * &a * &b }).reduce(|x, y| x + y).unwrap();
    let inputs = [(&a, noise(&[], 1)), (&b, noise(&[], 2))];
    check(&cost, &unrolled, &[&a, &b], &inputs);
    assert_eq!(stacked(&taken(&grad(&cost, [&a, &b]), &inputs)), Vec::<String>::new());
}

#[test]
fn taps_of_sequences_and_carries() {
    let (x, begin, w) = (vector::<f64>("x"), vector::<f64>("begin"), scalar::<f64>("w"));
    let step = |x: [&Tensor; 2], h: [&Tensor; 2]| (x[0] * &w + h[1] * x[1] - h[0].sqr() * 0.5).tanh();
    let scanned = Scan::new().sequence_taps(&x, &[-1, 0]).carry_taps(&begin, &[-3, -1]).run(|s| {
        let (x, h) = (&s.sequences, &s.carries);
        Next::new().carry(step([&x[0], &x[1]], [&h[0], &h[1]]))
    });
    let n = 7;
    let mut all: Vec<Tensor> = (0..3).map(|i| row(&begin, i)).collect();
    for t in 1..n {
        all.push(step([&row(&x, t - 1), &row(&x, t)], [&all[t - 1], &all[t + 1]]));
    }
    let inputs = [(&x, noise(&[n], 1)), (&begin, noise(&[3], 2)), (&w, noise(&[], 3))];
    let cost = |rows: &Tensor, last: &Tensor| rows.sqr().sum(All) + last.exp();
    let rolled = cost(&scanned.carries[0], &scanned.last[0]);
    check(&rolled, &cost(&stack(&all[3..], 0), &all[n + 1]), &[&x, &begin, &w], &inputs);
}

#[test]
fn sequences_read_backwards_and_captured_expressions_used_twice() {
    let (x, w) = (vector::<f64>("x"), scalar::<f64>("w"));
    let outside = (&w * 2.0).exp();
    let step = |x: &Tensor, h: &Tensor| h * &outside * 0.3 + (x * &outside).sin() + &w;
    let scanned = Scan::new()
        .sequence(&x)
        .carry(constant(Array::scalar(0.5)))
        .go_backwards()
        .run(|s| Next::new().carry(step(&s.sequences[0], &s.carries[0])));
    let n = 4;
    let mut h = constant(Array::scalar(0.5));
    for t in (0..n).rev() {
        h = step(&row(&x, t), &h);
    }
    check(&scanned.last[0].sqr(), &h.sqr(), &[&x, &w], &[(&x, noise(&[n], 1)), (&w, noise(&[], 3))]);
}

#[test]
fn scans_in_scans() {
    let (x, h0, w) = (matrix::<f64>("x"), scalar::<f64>("h0"), scalar::<f64>("w"));
    let inner = |x: &Tensor, h: &Tensor| (h * &w + x).tanh();
    let scanned = Scan::new().sequence(&x).carry(&h0).run(|outer| {
        let row = &outer.sequences[0];
        let scanned = Scan::new()
            .sequence(row)
            .carry(&outer.carries[0])
            .run(|s| Next::new().carry(inner(&s.sequences[0], &s.carries[0])));
        Next::new()
            .carry(&scanned.last[0] * &w)
            .output((scanned.carries[0].clone() * &outer.carries[0]).sum(All))
    });
    let (n, m) = (3, 4);
    let (mut h, mut ys) = (h0.clone(), Vec::new());
    for i in 0..n {
        let before = h.clone();
        let mut all = Vec::new();
        for j in 0..m {
            h = inner(&row(&row(&x, i), j), &h);
            all.push(h.clone());
        }
        ys.push((stack(&all, 0) * &before).sum(All));
        h = &h * &w;
    }
    let inputs = [(&x, noise(&[n, m], 1)), (&h0, noise(&[], 2)), (&w, noise(&[], 3))];
    let cost = |ys: &Tensor, h: &Tensor| ys.sqr().sum(All) + h;
    let rolled = cost(&scanned.outputs[0], &scanned.last[0]);
    check(&rolled, &cost(&stack(&ys, 0), &h), &[&x, &h0, &w], &inputs);
    let mut outputs = grad(&rolled, [&x, &h0, &w]);
    outputs.push(rolled);
    // Both forwards, both back.
    let graph = taken(&outputs, &inputs);
    assert_eq!(scans(&graph), 4);
    // Outputs that the cost reads, the outer carry and the inner scan's last value; what the inner scan had before its
    // steps and what it gave; cotangents of x.
    assert_eq!(stacked(&graph), ["f64[3]", "f64[3]", "f64[3]", "f64[3, 4]", "f64[3, 4]", "f64[3, 4]"]);
}

#[test]
fn gradients_reach_back_as_far_as_truncation_says() {
    let layer = Recurrent::new();
    let n = 6;
    let inputs = layer.inputs(n);
    for k in [1, 2, 5, 6, 9] {
        let scanned = Scan::new()
            .sequence(&layer.x)
            .carry(&layer.h0)
            .truncate_gradient(k)
            .run(|step| Next::new().carry(layer.step(&step.sequences[0], &step.carries[0])));
        let cut = n.saturating_sub(k as usize);
        let mut h = layer.h0.clone();
        let mut all = Vec::new();
        for t in 0..n {
            h = layer.step(&row(&layer.x, t), &h);
            if t < cut {
                h = h.stop_gradient();
            }
            all.push(h.clone());
        }
        let gradients = |h: &Tensor, rows: &Tensor| {
            let cost = h.sqr().sum(All) + rows.sin().sum(All);
            Gradient::of(&cost).disconnected(Disconnected::Zero).wrt(layer.variables())
        };
        assert_close(
            &values(&gradients(&scanned.last[0], &scanned.carries[0]), &inputs),
            &values(&gradients(&h, &stack(&all, 0)), &inputs),
            1e-12,
            "truncated gradient",
        );
    }
}

#[test]
fn scans_that_end_early() {
    let (x, h0, w) = (vector::<f64>("x"), scalar::<f64>("h0"), scalar::<f64>("w"));
    let step = |x: &Tensor, h: &Tensor| h * &w + x.exp();
    for (bound, made, checkpointed) in
        [(1.0, 1, false), (2.5, 3, false), (2.5, 3, true), (4.0, 4, false), (1e9, 6, false), (1e9, 6, true)]
    {
        let scan = Scan::new().sequence(&x).carry(&h0);
        let scan = if checkpointed { scan.checkpointed() } else { scan };
        let scanned = scan.run(|s| {
            let h = step(&s.sequences[0], &s.carries[0]);
            Next::new().until(h.gt(bound)).output(h.sqr() * &s.carries[0]).carry(h)
        });
        let n = 6;
        let inputs = [(&x, noise(&[n], 1)), (&h0, noise(&[], 2)), (&w, Array::scalar(0.9f64))];
        assert_eq!(
            values(std::slice::from_ref(&scanned.steps), &inputs)[0],
            [made as f64],
            "with the bound {bound}"
        );
        let (mut h, mut hs, mut ys) = (h0.clone(), Vec::new(), Vec::new());
        for t in 0..made {
            let next = step(&row(&x, t), &h);
            ys.push(next.sqr() * &h);
            h = next;
            hs.push(h.clone());
        }
        for _ in made..n {
            hs.push(h.clone());
            ys.push(ys[made - 1].clone());
        }
        let weights = arange(n as i64).cast(DType::F64);
        let cost = |hs: &Tensor, ys: &Tensor, h: &Tensor| {
            (hs.sqr() * &weights).sum(All) + (ys * 0.1).sin().sum(All) + h.sqr()
        };
        let rolled = cost(&scanned.carries[0].padded(), &scanned.outputs[0].padded(), &scanned.last[0]);
        check(&rolled, &cost(&stack(&hs, 0), &stack(&ys, 0), &h), &[&x, &h0, &w], &inputs);
        check(&scanned.last[0].sqr(), &h.sqr(), &[&x, &h0, &w], &inputs);
    }
}

#[test]
fn nothing_beyond_the_end_spoils_a_gradient() {
    // The step after the end would divide by zero.
    let (x, h0) = (vector::<f64>("x"), scalar::<f64>("h0"));
    let scanned = Scan::new().sequence(&x).carry(&h0).run(|s| {
        let h = &s.carries[0] / &s.sequences[0];
        Next::new().until(s.sequences[0].lt(1.0)).carry(h)
    });
    let inputs = [(&x, Array::vector(&[2.0f64, 0.5, 0.0])), (&h0, Array::scalar(3.0f64))];
    let gradients = grad(&scanned.last[0], [&x, &h0]);
    assert_eq!(values(&gradients, &inputs), [vec![-1.5, -6.0, 0.0], vec![1.0]]);
}

#[test]
fn truncation_counts_from_the_step_that_ended_the_scan() {
    let (h0, w) = (scalar::<f64>("h0"), scalar::<f64>("w"));
    // h = 3, 9 / 2, 27 / 4 with w = 3 / 2 and h0 = 2: three of ten steps.
    let run = |k: u32| {
        let scanned = Scan::new().carry(&h0).steps(10).truncate_gradient(k).run(|s| {
            let h = &s.carries[0] * &w;
            Next::new().until(h.gt(6.0)).carry(h)
        });
        let gradients = grad(&scanned.last[0], [&h0, &w]);
        values(&gradients, &[(&h0, Array::scalar(2.0f64)), (&w, Array::scalar(1.5f64))])
    };
    assert_eq!(run(2), [[0.0], [4.5 + 1.5 * 3.0]]);
    assert_eq!(run(3), [[3.375], [4.5 + 1.5 * 3.0 + 2.25 * 2.0]]);
    assert_eq!(run(7), run(3));
}

#[test]
fn integer_carries_and_draws_have_no_gradient_and_do_no_harm() {
    let (h0, w) = (vector::<f64>("h0"), scalar::<f64>("w"));
    let streams = RandomStreams::new(7);
    let scanned = Scan::new().carry(&h0).carry(constant(Array::scalar(1i64))).steps(4).run(|s| {
        let keep = streams.binomial([3], 1, 0.5).cast(DType::F64);
        let h = (&s.carries[0] * &keep * &w + s.carries[1].cast(DType::F64)).sin();
        Next::new().carry(h).carry(&s.carries[1] * 2i64)
    });
    let cost = (scanned.last[0].sqr()).sum(All) + scanned.carries[0].sum(All);
    let gradients = grad(&cost, [&h0, &w]);
    let inputs = [(&h0, noise(&[3], 1)), (&w, Array::scalar(0.7f64))];
    check_differences(&cost, &gradients, &[&h0, &w], &inputs);
    assert!(values(&gradients, &inputs)[1][0] != 0.0);
}

#[test]
fn gradients_taken_in_a_step() {
    // Steps down a slope: the step holds a gradient, and the whole is differentiated again.
    let (x0, rate) = (vector::<f64>("x0"), scalar::<f64>("rate"));
    let energy = |x: &Tensor| (x.sqr().sqr() * 0.25 + x.cos()).sum(All);
    let scanned = Scan::new().carry(&x0).steps(4).run(|s| {
        let slope = grad(&energy(&s.carries[0]), [&s.carries[0]]).remove(0);
        Next::new().carry(&s.carries[0] - slope * &rate)
    });
    let mut x = x0.clone();
    for _ in 0..4 {
        x = &x - (x.sqr() * &x - x.sin()) * &rate;
    }
    let inputs = [(&x0, noise(&[3], 1)), (&rate, Array::scalar(0.1f64))];
    check(&energy(&scanned.last[0]), &energy(&x), &[&x0, &rate], &inputs);
}

#[test]
fn a_scan_without_steps_passes_its_gradient_on() {
    let (x, h0, w) = (vector::<f64>("x"), scalar::<f64>("h0"), scalar::<f64>("w"));
    for until in [false, true] {
        let scanned = Scan::new().sequence(&x).carry(&h0).run(|s| {
            let next = Next::new().carry(&s.carries[0] * &s.sequences[0] * &w);
            if until { next.until(s.carries[0].gt(1.0)) } else { next }
        });
        let cost = scanned.last[0].sqr() + scanned.carries[0].sum(All);
        let inputs =
            [(&x, Array::vector::<f64>(&[])), (&h0, Array::scalar(3.0f64)), (&w, Array::scalar(1.0f64))];
        assert_eq!(values(&grad(&cost, [&x, &h0, &w]), &inputs), [vec![], vec![6.0], vec![0.0]]);
    }
}

#[test]
fn exact_numbers_have_the_bits_of_the_unrolled_gradient() {
    // Small integers in f32: nothing is rounded, whatever the order of sums.
    let (x, h0, w) = (matrix::<f32>("x"), vector::<f32>("h0"), matrix::<f32>("w"));
    let scanned = Scan::new()
        .sequence(&x)
        .carry(&h0)
        .run(|s| Next::new().carry(s.carries[0].dot(&w) + s.sequences[0].sqr()));
    let n = 4;
    let mut h = h0.clone();
    for t in 0..n {
        h = h.dot(&w) + row(&x, t).sqr();
    }
    let integers = |shape: &[usize], seed: usize| {
        let count: usize = shape.iter().product();
        Array::new(shape, &(0..count).map(|i| ((i * 7 + seed) % 5) as f32 - 2.0).collect::<Vec<_>>()).unwrap()
    };
    let inputs = [(&x, integers(&[n, 3], 1)), (&h0, integers(&[3], 2)), (&w, integers(&[3, 3], 3))];
    let gradients = |h: &Tensor| values(&grad(&h.sqr().sum(All), [&x, &h0, &w]), &inputs);
    assert_eq!(gradients(&scanned.last[0]), gradients(&h));
}

#[test]
fn what_a_scan_does_not_reach_is_named() {
    let (x, w, v) = (vector::<f64>("x"), scalar::<f64>("w"), scalar::<f64>("v"));
    let scanned = Scan::new()
        .sequence(&x)
        .carry(constant(Array::scalar(0.0)))
        .carry(constant(Array::scalar(1.0)))
        .run(|s| Next::new().carry(&s.carries[0] + &s.sequences[0] * &w).carry(&s.carries[1] * &v));
    let problem = |cost: &Tensor, variable: &Tensor| {
        let request = Request {
            inputs: vec![x.clone(), w.clone(), v.clone()],
            outputs: grad(cost, [variable]),
            unused: Unused::Ignore,
            ..Request::default()
        };
        super::check(&collect(&request).unwrap()).map_err(|faults| faults.to_string())
    };
    assert_eq!(problem(&scanned.last[0], &w), Ok(()));
    assert!(problem(&scanned.last[0], &v).unwrap_err().contains("the cost does not depend on `v`"));
    assert!(problem(&scanned.last[1], &w).unwrap_err().contains("the cost does not depend on `w`"));
    // Constants cut at a result, the others of the same scan not.
    let cost = scanned.last[0].sqr() * &scanned.last[1];
    let inputs = [(&x, noise(&[3], 1)), (&w, Array::scalar(0.5f64)), (&v, Array::scalar(0.8f64))];
    let gradients = Gradient::of(&cost)
        .consider_constant([&scanned.last[0]])
        .disconnected(Disconnected::Zero)
        .wrt([&w, &v]);
    let found = values(&gradients, &inputs);
    assert_eq!(found[0], [0.0]);
    assert!(found[1][0] != 0.0);
}

#[test]
fn maps_need_no_carry() {
    let (x, w) = (matrix::<f64>("x"), vector::<f64>("w"));
    let mapped = map(&[&x], |x| (x[0].clone() * &w).exp().sum(All));
    let unrolled = (&x * &w).exp().sum([1]);
    let inputs = [(&x, noise(&[4, 3], 1)), (&w, noise(&[3], 2))];
    check(&mapped.sin().sum(All), &unrolled.sin().sum(All), &[&x, &w], &inputs);
}

/// The number of elements of the largest stack that a scan of a graph makes, those in bodies included.
fn largest_stack(graph: &Graph) -> usize {
    let live = graph.reachable();
    let mut largest = 0;
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Scan(scan) = &node.op {
            largest = largest.max(largest_stack(&scan.body.graph));
            if let ScanResult::Rows(_) = scan.result {
                largest = largest.max(node.ty.element_count().unwrap());
            }
        }
    }
    largest
}

#[test]
fn checkpointed_gradients_are_the_same_with_short_stacks() {
    let layer = Recurrent::new();
    let scan = |checkpointed: bool| {
        let scan = Scan::new().sequence(&layer.x).carry(&layer.h0);
        let scan = if checkpointed { scan.checkpointed() } else { scan };
        scan.run(|step| {
            let h = layer.step(&step.sequences[0], &step.carries[0]);
            Next::new().output(h.sqr().sum(All)).carry(h)
        })
    };
    for n in [1, 3, 4, 7, 9, 17] {
        let inputs = layer.inputs(n);
        let cost = |scanned: &Scanned| {
            scanned.last[0].sqr().sum(All)
                + scanned.outputs[0].sin().sum(All)
                + scanned.carries[0].exp().sum(All)
        };
        check(&cost(&scan(true)), &cost(&scan(false)), &layer.variables(), &inputs);
    }
    let n = 100;
    let without_x: Vec<&Tensor> = layer.variables()[1..].to_vec();
    let graph = taken(&grad(&scan(true).last[0].sum(All), without_x.iter().copied()), &layer.inputs(n));
    // A row has 2 x 4 elements.
    assert_eq!(largest_stack(&graph), 10 * 8);
    let graph = taken(&grad(&scan(false).last[0].sum(All), without_x.iter().copied()), &layer.inputs(n));
    assert_eq!(largest_stack(&graph), n * 8);
}

#[test]
fn checkpoints_keep_to_truncation_and_to_what_is_in_them() {
    let (h0, w) = (scalar::<f64>("h0"), scalar::<f64>("w"));
    let inputs = [(&h0, noise(&[], 1)), (&w, Array::scalar(0.7f64))];
    let run = |checkpointed: bool, k: Option<u32>, n: i64| {
        let mut scan = Scan::new().carry(&h0).steps(n);
        if checkpointed {
            scan = scan.checkpointed();
        }
        if let Some(k) = k {
            scan = scan.truncate_gradient(k);
        }
        let scanned = scan.run(|s| {
            // A checkpointed scan in the step.
            let inner = Scan::new().carry(&s.carries[0]).steps(5);
            let inner = if checkpointed { inner.checkpointed() } else { inner };
            let inner = inner.run(|s| Next::new().carry((&s.carries[0] * &w + 0.1).sin()));
            Next::new().carry(&inner.last[0] + inner.carries[0].sum(All) * 0.1)
        });
        let cost = scanned.last[0].sqr() + scanned.carries[0].sum(All);
        let first = Gradient::of(&cost).disconnected(Disconnected::Zero).wrt([&h0, &w]);
        let second = Gradient::of(&first[1]).disconnected(Disconnected::Zero).wrt([&h0, &w]);
        values(&[first, second].concat(), &inputs)
    };
    for (k, n) in [(None, 7), (Some(5), 7), (Some(4), 13), (Some(20), 13), (Some(0), 6)] {
        assert_close(&run(true, k, n), &run(false, k, n), 1e-12, "checkpointed gradient");
    }
}

#[test]
fn the_smallest_values_are_kept() {
    let (x, h0, w) = (tensor3::<f64>("x"), matrix::<f64>("h0"), matrix::<f64>("w"));
    let inputs = [(&x, noise(&[5, 2, 3], 1)), (&h0, noise(&[2, 3], 2)), (&w, noise(&[3, 3], 3))];
    let kept = |step: &dyn Fn(&Tensor, &Tensor) -> Tensor| {
        let scanned = Scan::new()
            .sequence(&x)
            .carry(&h0)
            .run(|s| Next::new().carry(step(&s.sequences[0], &s.carries[0])));
        let cost = scanned.last[0].sqr().sum(All);
        stacked(&taken(&grad(&cost, [&w, &h0]), &inputs))
    };
    let h = "f64[5, 2, 3]";
    // Of a rectifier, beside the carry, where it was open.
    assert_eq!(kept(&|x, h| (x + h.dot(&w)).relu()), [h, "bool[5, 2, 3]"]);
    // What a step gave is what the next one had; sums and products with elements are made again.
    assert_eq!(kept(&|x, h| (x + h.dot(&w)).tanh()), [h]);
    assert_eq!(kept(&|x, h| (x + h.dot(&w)).sigmoid() * x), [h, h]);
    assert_eq!(kept(&|x, h| (h * x + x).dot(&w)), [h]);
    assert_eq!(kept(&|x, h| x + h.dot(&w)), [h]);
}

#[test]
fn results_of_scans_have_cotangents_and_are_variables() {
    let layer = Recurrent::new();
    let n = 4;
    let inputs = layer.inputs(n);
    let scanned = Scan::new()
        .sequence(&layer.x)
        .carry(&layer.h0)
        .run(|step| Next::new().carry(layer.step(&step.sequences[0], &step.carries[0])));
    let rows = stack(&layer.unrolled(n), 0);
    // Begun with known cotangents of rows, without a cost.
    let begun = |rows: &Tensor| Gradient::of_known().known(rows, rows.cos()).wrt(layer.variables());
    assert_close(
        &values(&begun(&scanned.carries[0]), &inputs),
        &values(&begun(&rows), &inputs),
        1e-12,
        "gradient from known cotangents",
    );
    // With respect to rows, of which the cost is a formula.
    let of_rows = |rows: &Tensor| grad(&rows.sin().sum(All), [rows]);
    assert_close(
        &values(&of_rows(&scanned.carries[0]), &inputs),
        &values(&of_rows(&rows), &inputs),
        1e-12,
        "gradient with respect to rows",
    );
}

/// Derivatives of a function of one number at some places: the value, then every order up to the last.
fn orders(at: f64, count: usize, f: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let x = scalar::<f64>("x");
    let mut derivatives = vec![f(&x)];
    for order in 0..count {
        let next = Gradient::of(&derivatives[order]).disconnected(Disconnected::Zero).wrt([&x]).remove(0);
        derivatives.push(next);
    }
    values(&derivatives, &[(&x, Array::scalar(at))]).into_iter().map(|v| v[0]).collect()
}

#[test]
fn products_have_derivatives_of_every_order() {
    let power = |n: usize| move |s: &Tensor| stack(&vec![s.clone(); n], 0).prod(All);
    assert_eq!(orders(0.0, 4, power(3)), [0.0, 0.0, 0.0, 6.0, 0.0]);
    assert_eq!(orders(0.0, 5, power(4)), [0.0, 0.0, 0.0, 0.0, 24.0, 0.0]);
    assert_eq!(orders(0.0, 5, power(5)), [0.0, 0.0, 0.0, 0.0, 0.0, 120.0]);
    assert_eq!(orders(2.0, 4, power(3)), [8.0, 12.0, 12.0, 6.0, 0.0]);
    assert_eq!(orders(-1.0, 3, power(7)), [-1.0, 7.0, -42.0, 210.0]);
    // s (s - 1) (s - 2) at each of its zeros.
    let factors = |s: &Tensor| stack(&[s.clone(), s - 1.0, s - 2.0], 0).prod(All);
    assert_eq!(orders(0.0, 3, factors), [0.0, 2.0, -6.0, 6.0]);
    assert_eq!(orders(1.0, 3, factors), [0.0, -1.0, 0.0, 6.0]);
    assert_eq!(orders(2.0, 3, factors), [0.0, 2.0, 6.0, 6.0]);
}

struct Chosen<'a>(&'a [usize]);

impl AxisSet for Chosen<'_> {
    fn axes(&self, _: usize) -> Result<Axes, String> {
        Ok(self.0.iter().copied().collect())
    }
}

#[test]
fn products_of_the_others_need_no_division() {
    let slopes = |x: &[f64]| {
        let v = vector::<f64>("v");
        values(&grad(&v.prod(All), [&v]), &[(&v, Array::vector(x))]).remove(0)
    };
    assert_eq!(slopes(&[2.0]), [1.0]);
    assert_eq!(slopes(&[]), [0.0; 0]);
    assert_eq!(slopes(&[2.0, 0.0, 0.0]), [0.0, 0.0, 0.0]);
    assert_eq!(slopes(&[f64::INFINITY, 2.0, 3.0]), [6.0, f64::INFINITY, f64::INFINITY]);
    assert_eq!(slopes(&[1e-300, 1e-300, 1e300]), [1.0, 1.0, 0.0]);
    let with_nan = slopes(&[f64::NAN, 2.0, 5.0]);
    assert!(with_nan[0] == 10.0 && with_nan[1].is_nan() && with_nan[2].is_nan(), "{with_nan:?}");
    // Along axes that stand apart and side by side, with zeros, against all pairs.
    let shape = [2, 3, 1, 2];
    let x =
        Array::new(&shape, &(0..12).map(|i| f64::from((i * 7 + 3) % 5) - 1.0).collect::<Vec<_>>()).unwrap();
    let element = |i: [usize; 4]| x.get(((i[0] * 3 + i[1]) + i[2]) * 2 + i[3]).to_f64();
    let v = tensor3::<f64>("v");
    for axes in [[0, 1, 2].as_slice(), &[0, 2], &[1], &[1, 2], &[0, 1], &[2]] {
        let cube = Array::new(&[2, 3, 2], &x.to_vec::<f64>().unwrap()).unwrap();
        let found = values(&grad(&v.prod(Chosen(axes)).sum(All), [&v]), &[(&v, cube)]).remove(0);
        let places: Vec<[usize; 3]> = (0..12).map(|i| [i / 6, i / 2 % 3, i % 2]).collect();
        let expected = places.iter().map(|at| {
            let others =
                places.iter().filter(|o| *o != at && (0..3).all(|a| axes.contains(&a) || o[a] == at[a]));
            others.map(|o| element([o[0], o[1], 0, o[2]])).product::<f64>()
        });
        assert_eq!(found, expected.collect::<Vec<_>>(), "{axes:?}");
    }
    // A long axis takes as many nodes as its logarithm.
    let long = |n: usize| taken(&grad(&v.prod(All), [&v]), &[(&v, noise(&[1, n, 1], 1))]).len();
    assert!(long(1 << 16) < 2 * long(1 << 8), "{} {}", long(1 << 16), long(1 << 8));
}

#[test]
fn norms_are_flat_at_zero() {
    // Values, gradients and second derivatives at zero, of functions of a vector.
    let zero = |name: &str, n: usize, f: &dyn Fn(&Tensor) -> Tensor| {
        let v = vector::<f64>("v");
        let first = grad(&f(&v), [&v]).remove(0);
        let weights = constant(noise(&[n], 5));
        let second = grad(&(&first * &weights).sum(All), [&v]).remove(0);
        let found = values(&[f(&v), first, second], &[(&v, Array::zeros(DType::F64, &[n]).unwrap())]);
        assert_eq!(found, [vec![0.0], vec![0.0; n], vec![0.0; n]], "{name}");
    };
    zero("norm", 3, &|v| v.sqr().sum(All).sqrt());
    zero("product", 3, &|v| (v * v).sum(All).sqrt());
    zero("power", 3, &|v| v.pow(2.0).sum(All).sqrt());
    zero("dot", 3, &|v| v.dot(v).sqrt());
    zero("std", 4, &|v| v.std(All));
    zero("std of one", 1, &|v| v.std(All));
    zero("distance", 3, &|v| {
        (v - v.index([Index::Range { start: None, stop: None, step: -1 }])).sqr().sum(All).sqrt()
    });
    zero("root of mean", 3, &|v| v.sqr().mean(All).sqrt());
    zero("scaled", 3, &|v| (v.sqr().sum(All) * 0.5 / v.exp().sum(All)).sqrt());
    zero("rows", 2, &|v| v.reshape([2, 1]).sqr().sum(1).sqrt().sum(All));
    zero("half power", 3, &|v| v.sqr().sum(All).pow(0.5));
    zero("cubic norm", 3, &|v| v.abs().pow(3.0).sum(All).pow(1.0 / 3.0));
    zero("clipped", 3, &|v| v.sqr().sum(All).maximum(0.0).sqrt());
    zero("components", 2, &|v| {
        let at = |i: i64| v.index([Index::from(i)]);
        (at(0).sqr() + at(1).sqr()).sqrt()
    });
    // A sum of squares that a scan makes, outside of it and in its steps.
    let squares = |v: &Tensor, inside: bool| {
        let begin = constant(Array::scalar(0.0));
        let scanned = Scan::new().sequence(v).carry(begin).run(|s| {
            let sum = &s.carries[0] + s.sequences[0].sqr();
            Next::new().output(sum.sqrt()).carry(sum)
        });
        if inside { scanned.outputs[0].sum(All) } else { scanned.last[0].sqrt() }
    };
    zero("scan", 3, &|v| squares(v, false));
    zero("steps", 3, &|v| squares(v, true));
    zero("captured", 3, &|v| {
        let norm = v.sqr().sum(All);
        map(&[v], |x| (&norm + x[0].sqr()).sqrt()).sum(All)
    });
    // A power of one keeps its curvature, a root that is one its slope.
    assert_eq!(orders(0.0, 2, |x| x.sqr().pow(1.0)), [0.0, 0.0, 2.0]);
    assert_eq!(orders(0.0, 2, |x| x.sqr().pow(1.5)), [0.0, 0.0, 0.0]);
    assert_eq!(orders(0.0, 1, Tensor::sqrt), [0.0, f64::INFINITY]);
    let norm = |v: &Tensor| v.sqr().sum(All).sqrt();
    let v = vector::<f64>("v");
    let found = values(&grad(&norm(&v), [&v]), &[(&v, Array::vector(&[3.0, -4.0]))]);
    assert_close(&found, &[vec![0.6, -0.8]], 1e-15, "norm");
}

/// A scan of no steps: zeros for what it captures and for what it begins with and forgets, nothing for its elements.
#[test]
fn scans_of_no_steps_have_gradients() {
    let (x, h, past, w, n) = (
        matrix::<f64>("x"),
        vector::<f64>("h"),
        matrix::<f64>("past"),
        scalar::<f64>("w"),
        scalar::<i64>("n"),
    );
    let scans: Vec<(&str, Scan)> = vec![
        ("plain", Scan::new().sequence(&x)),
        ("truncated", Scan::new().sequence(&x).truncate_gradient(2)),
        ("truncated to nothing", Scan::new().sequence(&x).truncate_gradient(0)),
        ("checkpointed", Scan::new().sequence(&x).checkpointed()),
        ("backwards", Scan::new().sequence(&x).go_backwards()),
        ("steps", Scan::new().sequence(&x).steps(&n)),
        ("fixed", Scan::new().sequence(&x).steps(0)),
    ];
    for (name, scan) in scans {
        for until in [false, true] {
            let scanned = scan.clone().carry(&h).carry_taps(&past, &[-2, -1]).run(|s| {
                let next = (&s.sequences[0] + &s.carries[0] * &w).tanh() + &s.carries[1];
                let inner = map(&[&next], |e| &e[0] * &w);
                let step = Next::new().output(inner).carry(&next).carry(&next * &s.carries[2]);
                if until { step.until(next.sum(All).gt(10.0)) } else { step }
            });
            let rows = scanned.outputs[0].sum(All) + scanned.carries[0].sqr().sum(All);
            let inputs = [
                (&x, Array::zeros(DType::F64, &[0, 2]).unwrap()),
                (&h, Array::vector(&[1.0f64, 2.0])),
                (&past, Array::new(&[2, 2], &[1.0f64, 2.0, 3.0, 4.0]).unwrap()),
                (&w, Array::scalar(0.5f64)),
                (&n, Array::scalar(0i64)),
            ];
            let all = [&x, &h, &past, &w];
            let found = |cost: &Tensor| {
                let request = grad(cost, all);
                let listed: Vec<Tensor> = inputs.iter().map(|(input, _)| (*input).clone()).collect();
                let symbolic = Request {
                    inputs: listed,
                    outputs: request.clone(),
                    unused: Unused::Ignore,
                    ..Request::default()
                };
                super::check(&collect(&symbolic).unwrap()).unwrap();
                values(&request, &inputs)
            };
            let nothing = || vec![vec![], vec![0.0; 2], vec![0.0; 4], vec![0.0]];
            assert_eq!(found(&rows), nothing(), "{name}");
            let last = found(&(scanned.last[0].sqr().sum(All) + &rows));
            assert_eq!(last, [vec![], vec![2.0, 4.0], vec![0.0; 4], vec![0.0]], "{name}");
            let tapped = found(&(scanned.last[1].sum(All) + &rows));
            assert_eq!(tapped, [vec![], vec![0.0; 2], vec![0.0, 0.0, 1.0, 1.0], vec![0.0]], "{name}");
        }
    }
    // A second derivative, and a gradient in a step of a scan over nothing.
    let penalty = |x: &Tensor| {
        let cost = map(&[x], |e| (&e[0] * &w).sqr()).sum(All);
        grad(&grad(&cost, [&w])[0].sqr(), [&w]).remove(0)
    };
    let empty = [(&x, Array::zeros(DType::F64, &[0, 2]).unwrap()), (&w, Array::scalar(0.5f64))];
    assert_eq!(values(&[penalty(&x)], &empty), [vec![0.0]]);
    let outer = map(&[&x], |e| penalty(&e[0]));
    assert_eq!(values(&[outer], &empty), [vec![]]);
    let empty = [(&x, Array::zeros(DType::F64, &[2, 0]).unwrap()), (&w, Array::scalar(0.5f64))];
    let outer = map(&[&x], |e| penalty(&e[0]));
    assert_eq!(values(&[outer], &empty), [vec![0.0, 0.0]]);
}
