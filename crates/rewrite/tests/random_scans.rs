//! Random scans with random formulas on their results, simplified and not, have equal values and equal gradients.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::{All, full};
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::Gradient;
use hypatia_graph::index::{Index, step};
use hypatia_graph::interp::interpret;
use hypatia_graph::op::Disconnected;
use hypatia_graph::scan::{Next, Scan, foldl};
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::tensor::input;
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Array, DType, Graph, Tensor};
use hypatia_rewrite::{Numerics, Options, simplify};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};

/// A formula is chosen by an operator and the numbers of its operands.
type Choices = Vec<(u8, u8, u8)>;

/// Grows a pool of `f64[3, 4]` tensors whose elements stay small.
fn grow(pool: &mut Vec<Tensor>, square: &Tensor, choices: &Choices) {
    for &(op, left, right) in choices {
        let a = pool[usize::from(left) % pool.len()].clone();
        let b = pool[usize::from(right) % pool.len()].clone();
        let axis = i64::from(right % 2);
        pool.push(match op % 21 {
            0 => (&a + &b) * 0.5,
            1 => &a - &b,
            2 => &a * &b,
            3 => a.sigmoid(),
            4 => a.tanh(),
            5 => a.sin(),
            6 => a.softmax(axis),
            7 => a.dot(square) * 0.25,
            8 => a.dot(b.t()).dot(&b) / 16.0,
            9 => (1.0 + a.exp()).log() * 0.5,
            10 => &a - a.mean_keepdims(axis),
            11 => a.t().reshape([3, 4]),
            12 => full(0.5, DType::F64, [3, 4]) - &a,
            13 => (square.exp().sum(0).reshape([1, 4]) * 0.1).broadcast_like(&a) * &b,
            14 => a.sum_keepdims(axis) * &b * 0.25,
            15 => square.dot(a.t()).t() * 0.25,
            16 => (1.0 - a.tanh().sigmoid()).log() * 0.5,
            17 => a.index([Index::from(0..3), step(.., -1)]),
            18 => a.stop_gradient() * &b,
            // A scan in a scan.
            19 => foldl(
                &a,
                &[&square.reshape([4, 4, 1, 1]).broadcast_like(&full(0.0, DType::F64, [4, 4, 3, 4])).take(1)],
                |h, x| (h * &x[0] + &b).tanh(),
            ),
            _ => a.sqr() * 0.5,
        });
    }
}

#[derive(Clone, Debug)]
struct Case {
    body: Choices,
    outside: Choices,
    steps: u8,
    ends: u8,
    truncate: u8,
}

impl Case {
    /// The inputs, and what is computed: of some results the formulas outside, their sums as a cost.
    fn build(&self) -> (Vec<Tensor>, Vec<Tensor>, Tensor) {
        let n = usize::from(self.steps % 5);
        let (three, four) = (Some(3), Some(4));
        let sequence = |name: &str| input(name, DType::F64, &[Some(n), three, four]);
        let (x, y) = (sequence("x"), sequence("y"));
        let h = input("h", DType::F64, &[three, four]);
        let square = input("w", DType::F64, &[four, four]);
        let zeros = full(0.0, DType::F64, [4, 4]);
        let count = Tensor::from(0i64).cast(DType::I64);
        let mut scan = Scan::new()
            .sequence(&x)
            .sequence(y.index([step(.., -1)]))
            .carry(&h)
            .carry(&h)
            .carry(&zeros)
            .carry(&count);
        if self.truncate.is_multiple_of(4) {
            scan = scan.truncate_gradient(2);
        }
        if self.truncate % 4 == 1 {
            scan = scan.checkpointed();
        }
        let scan = scan.run(|step| {
            let [x, y] = &step.sequences[..] else { unreachable!() };
            let [a, b, sum, count] = &step.carries[..] else { unreachable!() };
            let mut pool = vec![a.clone(), x.clone(), b.clone(), y.clone(), h.sin()];
            grow(&mut pool, &square, &self.body);
            let [.., u, v, w] = &pool[..] else { unreachable!() };
            let count = count + 1i64;
            let next = Next::new()
                .carry(v.tanh())
                .carry(if self.ends.is_multiple_of(3) { u.sigmoid() } else { v.tanh() })
                .carry(sum + w.t().dot(u) * 0.5 - v.t().dot(x))
                .carry(&count)
                .output(u.sigmoid())
                .output(w.softmax(1))
                .output(v * 0.5);
            if self.ends.is_multiple_of(4) { next.until(count.ge(i64::from(self.ends / 4))) } else { next }
        });
        let mut pool = vec![&h + 0.0];
        let positive = [&scan.outputs[0].padded(), &scan.outputs[1].padded()];
        for (index, &(kind, which, _)) in self.outside.iter().enumerate() {
            let rows = if which % 2 == 0 {
                positive[index % 2].clone()
            } else {
                scan.carries[usize::from(which / 2) % 2].padded()
            };
            let some = positive[index % 2];
            let joined = |rows: &Tensor| rows.reshape([-1, 4]);
            let all = |rows: &Tensor| rows.sum(0);
            pool.push(match kind % 10 {
                _ if n == 0 => all(&rows),
                0 => some.log().index([Index::from(-1)]),
                1 => (1.0 - some.index([Index::from(-1)])).log1p(),
                2 => all(&(&x * some.log() + (1.0 - &x) * (1.0 - some * 0.5).log())),
                3 => joined(some).log().sum(1).mean(All) * &h,
                4 => all(&rows) * 0.25,
                5 => scan.last[0].exp() + rows.index([Index::from(n as i64 / 2)]),
                6 => scan.last[1].sigmoid().log(),
                7 => h.dot(&scan.last[2]) * 0.1,
                8 => (rows.index([step(.., -1)]) * &x).sum([0, 1]).broadcast_like(&h) * 0.1,
                _ => all(&scan.outputs[2].exp()) / (1.0 + all(&some.sqr())),
            });
        }
        grow(&mut pool, &square, &self.outside);
        let outputs: Vec<Tensor> = pool.split_off(pool.len().saturating_sub(4));
        let cost = outputs.iter().map(|output| output.sum(All)).reduce(|a, b| a + b).unwrap();
        (vec![x, y, h, square], outputs, cost)
    }
}

fn graph_of(inputs: &[Tensor], outputs: Vec<Tensor>) -> Graph {
    let request = Request { inputs: inputs.to_vec(), outputs, unused: Unused::Ignore, ..Request::default() };
    specialise(&collect(&request).unwrap(), &Arguments::default()).unwrap()
}

fn values(inputs: &[Tensor]) -> Vec<Array> {
    let some = |(seed, tensor): (usize, &Tensor)| {
        let extents = tensor.ty().extents().unwrap();
        let count: usize = extents.iter().product();
        let values: Vec<f64> = (0..count).map(|i| 0.9 * (seed as f64 + 1.7 * i as f64).sin()).collect();
        Array::new(&extents, &values).unwrap()
    };
    inputs.iter().enumerate().map(some).collect()
}

fn compare(
    expected: &[Array],
    found: &[Array],
    tolerance: f64,
    what: &str,
    graph: &Graph,
) -> Result<(), TestCaseError> {
    for (x, y) in found.iter().zip(expected) {
        prop_assert_eq!(x.shape(), y.shape());
        for i in 0..x.len() {
            let (x, y) = (x.get(i).to_f64(), y.get(i).to_f64());
            if y.is_finite() {
                prop_assert!(
                    (x - y).abs() <= tolerance * (1.0 + y.abs()),
                    "{what}: {x} instead of {y} in\n{graph}"
                );
            }
        }
    }
    Ok(())
}

fn case() -> impl Strategy<Value = Case> {
    let choices = |n| proptest::collection::vec(any::<(u8, u8, u8)>(), 0..n);
    (choices(9), choices(5), any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(body, outside, steps, ends, truncate)| Case { body, outside, steps, ends, truncate })
}

fn config(cases: u32, seed: u64) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(100, 1))]
    #[test]
    fn simplified_scans_have_the_same_values(case in case()) {
        let (inputs, outputs, _) = case.build();
        let graph = graph_of(&inputs, outputs);
        let arrays = values(&inputs);
        let expected = interpret(&graph, &arrays).unwrap().outputs;
        for numerics in [Numerics::Strict, Numerics::Real] {
            for gradients_taken in [false, true] {
                let options = Options { numerics, gradients_taken };
                let (simple, _) = simplify(&graph, options);
                verify(&simple, Stage::Specialised).unwrap();
                let found = interpret(&simple, &arrays).unwrap().outputs;
                compare(&expected, &found, 1e-9, &format!("{options:?} of\n{graph}"), &simple)?;
            }
        }
    }
}

proptest! {
    #![proptest_config(config(60, 2))]
    #[test]
    fn simplified_scans_have_the_same_gradients(case in case()) {
        let (inputs, mut outputs, cost) = case.build();
        outputs.extend(Gradient::of(&cost).disconnected(Disconnected::Zero).wrt(&inputs));
        let graph = graph_of(&inputs, outputs);
        let arrays = values(&inputs);
        let plain = differentiate(&graph, &mut Graph::clone).unwrap();
        let expected = interpret(&plain, &arrays).unwrap().outputs;
        for numerics in [Numerics::Strict, Numerics::Real] {
            let taken = differentiate(&graph, &mut |forward| simplify(forward, numerics).0).unwrap();
            let (simple, _) = simplify(&taken, Options { numerics, gradients_taken: true });
            verify(&simple, Stage::Differentiated).unwrap();
            let found = interpret(&simple, &arrays).unwrap().outputs;
            compare(&expected, &found, 1e-7, &format!("{numerics:?} of\n{graph}"), &simple)?;
        }
    }
}
