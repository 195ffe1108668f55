use super::differentiate;
use crate::array::Array;
use crate::body::Body;
use crate::collect::{Request, collect};
use crate::compose::{All, concatenate, stack, switch};
use crate::dtype::{DType, Literal};
use crate::gradient::{Gradient, grad};
use crate::graph::Graph;
use crate::index::Index;
use crate::interp::interpret;
use crate::op::{Disconnected, Op, ScanResult};
use crate::scan::{Next, Scan, map};
use crate::specialise::{Arguments, specialise};
use crate::tensor::{Tensor, matrix, scalar, tensor3, vector};
use crate::verify::{Stage, verify};
use std::collections::BTreeSet;
use std::sync::Arc;

type Inputs<'a> = [(&'a Tensor, Array)];

/// The graph of expressions with every gradient taken.
fn taken(outputs: &[Tensor], inputs: &Inputs<'_>) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|(input, _)| (*input).clone()).collect(),
        outputs: outputs.to_vec(),
        unused: crate::collect::Unused::Ignore,
        ..Request::default()
    };
    let collected = collect(&request).unwrap_or_else(|faults| panic!("{faults}"));
    let shapes = collected.inputs.iter().zip(inputs).map(|(id, (_, x))| (*id, x.shape().into())).collect();
    let specialised = specialise(&collected, &Arguments { shapes, ..Arguments::default() }).unwrap();
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
    Array::new(shape, &numbers)
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

/// Checks gradients of a cost that has a loop, and gradients of these, against those of the same cost without one.
fn check(looped: &Tensor, unrolled: &Tensor, variables: &[&Tensor], inputs: &Inputs<'_>) {
    let with_gradients = |cost: &Tensor| {
        let first = grad(cost, variables.iter().copied());
        let mut outputs = vec![cost.clone()];
        outputs.extend(first.iter().cloned());
        (outputs, first)
    };
    let (found, first) = with_gradients(looped);
    let (expected, first_expected) = with_gradients(unrolled);
    assert_close(&values(&found, inputs), &values(&expected, inputs), 1e-12, "gradient");
    check_differences(looped, &first, variables, inputs);
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
        let quotient = (at(1e-5) - at(-1e-5)) / 2e-5;
        let slope: f64 = gradient.iter().enumerate().map(|(i, g)| g * ((i % 3) as f64 - 0.7)).sum();
        let scale = 1.0 + slope.abs();
        assert!((quotient - slope).abs() < 2e-7 * scale, "{variable:?}: {slope}, differences say {quotient}");
    }
}

fn row(x: &Tensor, t: usize) -> Tensor {
    x.index([Index::At((t as i64).into())])
}

/// The loops of a graph, those in bodies included: bodies with operands, without which of their results is meant.
fn loops(graph: &Graph) -> usize {
    let live = graph.reachable();
    let mut found = BTreeSet::new();
    let mut bodies: BTreeSet<Arc<Body>> = BTreeSet::new();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Scan(scan) = &node.op {
            found.insert((scan.body.clone(), scan.steps, node.operands.to_vec()));
            bodies.insert(scan.body.clone());
        }
    }
    found.len() + bodies.iter().map(|body| loops(&body.graph)).sum::<usize>()
}

/// The widths of what a graph's loops stack.
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
        let looped = rows(&scanned.carries[0]) + last(&scanned.last[0]);
        let unrolled = rows(&stack(&all, 0)) + last(&all[n - 1]);
        check(&looped, &unrolled, &layer.variables(), &inputs);
    }
}

#[test]
fn a_loop_and_its_gradient_are_two_loops() {
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
    assert_eq!(loops(&graph), 2);
    // Only what a step had before is kept, not what it gave, beside the cotangents of x.
    assert_eq!(stacked(&graph), ["f64[6, 2, 4]", "f64[6, 2, 3]"]);
    // Asked for one after another, and of two costs: one loop forwards all the same.
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
