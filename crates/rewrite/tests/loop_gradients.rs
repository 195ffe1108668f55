//! Gradients of scans through the whole of it: made stable, taken, simplified.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use std::collections::BTreeSet;

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::All;
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::grad;
use hypatia_graph::index::Index;
use hypatia_graph::interp::interpret;
use hypatia_graph::op::ScanResult;
use hypatia_graph::scan::{Next, Scan, Scanned};
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::tensor::input;
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, DType, Graph, Op, Tensor};
use hypatia_rewrite::{Numerics, Options, simplify};

const STEPS: usize = 9;

fn graph_of(inputs: &[&Tensor], outputs: Vec<Tensor>) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|t| (*t).clone()).collect(),
        outputs,
        unused: Unused::Ignore,
        ..Request::default()
    };
    specialise(&collect(&request).unwrap(), &Arguments::default()).unwrap()
}

fn some_numbers(ty: &hypatia_graph::TensorType, seed: f64) -> Array {
    let extents = ty.extents().unwrap();
    let values: Vec<f64> =
        (0..extents.iter().product::<usize>()).map(|i| 0.7 * (seed + 1.7 * i as f64).sin()).collect();
    Array::new(&extents, &values).unwrap().cast(ty.dtype)
}

/// Differentiated as compiled functions are, after its values were compared with those without any rewriting.
#[track_caller]
fn compiled(inputs: &[&Tensor], outputs: Vec<Tensor>) -> Graph {
    let graph = graph_of(inputs, outputs);
    let arrays: Vec<Array> = inputs.iter().enumerate().map(|(i, t)| some_numbers(t.ty(), i as f64)).collect();
    let plain = differentiate(&graph, &mut Graph::clone).unwrap();
    let expected = interpret(&plain, &arrays).unwrap().outputs;
    let mut result = None;
    for numerics in [Numerics::Strict, Numerics::Real] {
        let options = |gradients_taken| Options { numerics, gradients_taken };
        let taken = differentiate(&graph, &mut |forward| simplify(forward, options(false)).0).unwrap();
        verify(&taken, Stage::Differentiated).unwrap();
        let simple = simplify(&taken, options(true)).0;
        verify(&simple, Stage::Differentiated).unwrap();
        for graph in [&taken, &simple] {
            let found = interpret(graph, &arrays).unwrap().outputs;
            for (x, y) in found.iter().zip(&expected) {
                assert_eq!(x.shape(), y.shape());
                for i in 0..x.len() {
                    let (x, y) = (x.get(i).to_f64(), y.get(i).to_f64());
                    assert!((x - y).abs() <= 1e-10 * (1.0 + y.abs()), "{x} instead of {y} in\n{graph}");
                }
            }
        }
        result = Some(simple);
    }
    result.unwrap()
}

/// The number of scans, those in bodies included.
fn scans(graph: &Graph) -> usize {
    let live = graph.reachable();
    let mut found = BTreeSet::new();
    let mut bodies = BTreeSet::new();
    for (_, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        if let Op::Scan(scan) = &node.op {
            found.insert((scan.body.clone(), node.operands.to_vec()));
            bodies.insert(scan.body.clone());
        }
    }
    found.len() + bodies.iter().map(|body| scans(&body.graph)).sum::<usize>()
}

/// The number of elements of the largest stack that a scan makes, those in bodies included.
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

struct Layer {
    x: Tensor,
    h: Tensor,
    w: Tensor,
    u: Tensor,
    b: Tensor,
}

impl Layer {
    fn new() -> Layer {
        let tensor = |name: &str, shape: &[usize]| {
            let shape: Vec<Option<usize>> = shape.iter().map(|n| Some(*n)).collect();
            input(name, DType::F64, &shape)
        };
        Layer {
            x: tensor("x", &[STEPS, 2, 3]),
            h: tensor("h", &[2, 4]),
            w: tensor("w", &[3, 4]),
            u: tensor("u", &[4, 4]),
            b: tensor("b", &[4]),
        }
    }

    fn inputs(&self) -> Vec<&Tensor> {
        vec![&self.x, &self.h, &self.w, &self.u, &self.b]
    }

    fn run(&self, scan: &Scan) -> Scanned {
        let (w, u, b) = (&self.w, &self.u, &self.b);
        scan.clone().sequence(&self.x).carry(&self.h).run(|step| {
            let h = (step.sequences[0].dot(w) + step.carries[0].dot(u) + b).tanh();
            Next::new().output(h.sqr().sum(All)).carry(h)
        })
    }
}

#[test]
fn a_recurrent_layer_runs_once_each_way() {
    let layer = Layer::new();
    let scanned = layer.run(&Scan::new());
    for cost in
        [scanned.last[0].sqr().sum(All), scanned.carries[0].exp().sum(All) + scanned.outputs[0].sum(All)]
    {
        let mut outputs = grad(&cost, layer.inputs());
        outputs.push(cost);
        assert_eq!(scans(&compiled(&layer.inputs(), outputs)), 2);
    }
    // Values of the scan that the cost does not read, and a gradient of a second cost.
    let cost = scanned.last[0].sqr().sum(All);
    let mut outputs = grad(&cost, [&layer.w, &layer.u]);
    outputs.extend(grad(&scanned.outputs[0].sum(All), [&layer.u]));
    outputs.extend([cost, scanned.carries[0].index([Index::At(3i64.into())])]);
    assert_eq!(scans(&compiled(&layer.inputs(), outputs)), 3);
}

#[test]
fn checkpointed_truncated_and_second_gradients_keep_their_values() {
    let layer = Layer::new();
    for scan in [Scan::new(), Scan::new().checkpointed(), Scan::new().truncate_gradient(4)] {
        let scanned = layer.run(&scan);
        let cost = scanned.last[0].sqr().sum(All) + scanned.outputs[0].sin().sum(All);
        let first = grad(&cost, [&layer.w, &layer.u]);
        let second = grad(&(first[0].sqr().sum(All) + first[1].sum(All)), [&layer.u, &layer.b]);
        compiled(&layer.inputs(), [first, second, vec![cost]].concat());
    }
}

#[test]
fn nothing_stacks_what_checkpoints_save() {
    let layer = Layer::new();
    let stack = |scan: Scan| {
        let cost = layer.run(&scan).last[0].sqr().sum(All);
        largest_stack(&compiled(&layer.inputs(), grad(&cost, [&layer.w, &layer.u, &layer.b])))
    };
    // Three chunks of three steps; a row has 2 x 4 elements.
    assert_eq!(stack(Scan::new().checkpointed()), 3 * 8);
    assert_eq!(stack(Scan::new()), STEPS * 8);
}

/// No digits of the derivative of a sigmoid are lost in the tails. That of a tanh is made of its value, which a scan keeps
/// anyway: it is right to a rounding of 1.
#[test]
fn gradients_of_steps_keep_their_digits_in_the_tails() {
    let x = input("x", DType::F64, &[Some(3)]);
    for scan in [Scan::new(), Scan::new().checkpointed()] {
        let scanned = scan.sequence(&x).run(|step| {
            let element = &step.sequences[0];
            Next::new().output(element.sigmoid()).output((0.5 * element).tanh())
        });
        let of = |rows: &Tensor| grad(&rows.sum(All), [&x]).remove(0);
        let graph = compiled(&[&x], vec![of(&scanned.outputs[0]), of(&scanned.outputs[1])]);
        let found = interpret(&graph, &[Array::vector(&[40.0, -40.0, 0.0])]).unwrap().outputs;
        // sigmoid(-40), and half of 1 - tanh(20)^2.
        for (found, expected) in found.iter().zip([4.248354255291589e-18, 8.496708510583178e-18]) {
            let found: Vec<f64> = (0..2).map(|i| found.get(i).to_f64()).collect();
            let allowed = if expected < 5e-18 { 1e-13 * expected } else { f64::EPSILON };
            assert!(found.iter().all(|x| (x - expected).abs() < allowed), "{found:?}\n{graph}");
        }
    }
}
