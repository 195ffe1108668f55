//! Random well-typed graphs, simplified and not, have equal values. Where the graph as it was built gives a number,
//! the simplified one must give that number under either policy; `Strict` must also keep every NaN and infinity.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its graph has failed")]

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::{All, arange, concatenate, switch};
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::Gradient;
use hypatia_graph::interp::interpret;
use hypatia_graph::op::Disconnected;
use hypatia_graph::tensor::input;
use hypatia_graph::{Array, DType, Graph, Tensor};
use hypatia_rewrite::{Numerics, Options, simplify};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestCaseError};

/// Grows a pool of `f64[3, 4]` tensors by operators chosen by numbers; the last ones are summed up. Functions with steps
/// take inputs only: rounding decides on which side of a step a computed 0 lies.
fn grow(choices: &[(u8, u8, u8)]) -> (Vec<Tensor>, Tensor) {
    let inputs: Vec<Tensor> =
        ["x", "y"].iter().map(|name| input(name, DType::F64, &[Some(3), Some(4)])).collect();
    let mut pool = inputs.clone();
    for &(op, left, right) in choices {
        let a = pool[usize::from(left) % pool.len()].clone();
        let b = pool[usize::from(right) % pool.len()].clone();
        let c = [2.0, 0.5, 1.0, 0.0, -1.0, 3.0][usize::from(right) % 6];
        let axis = i64::from(right % 2);
        pool.push(match op % 48 {
            0 => &a + &b,
            1 => &a - &b,
            2 => &a * &b,
            3 => &a / (&b.abs() + 1.0),
            4 => &a * c,
            5 => &a + c,
            6 => c - &a,
            7 => &a / 3.0,
            8 => a.exp(),
            9 => a.abs().log1p(),
            10 => (1.0 + a.exp()).log(),
            11 => a.sigmoid(),
            12 => (1.0 - a.tanh().sigmoid()).log(),
            13 => a.tanh(),
            14 => a.sqr(),
            15 => (a.abs() + 1.0).sqrt(),
            16 => -&a,
            17 => a.softmax(axis),
            18 => a.softmax(axis).log(),
            19 => a.exp() / a.exp().sum_keepdims(axis),
            20 => a.exp().sum_keepdims(axis).log() + &b,
            21 => &a - a.mean_keepdims(axis),
            22 => a.maximum(&b),
            23 => a.minimum(c),
            24 => switch(inputs[0].gt(&inputs[1]), &a, 0.0),
            25 => switch(inputs[1].gt(c), &a, &b) * &b,
            26 => a.t().reshape([3, 4]),
            27 => a.t().t() + &b,
            28 => a.reshape([2, 6]).sigmoid().log().reshape([3, 4]),
            29 => a.dot(b.t()).dot(&b) / 16.0,
            30 => a.sum_keepdims(axis) * &b,
            31 => a.max_keepdims(axis) - &b,
            32 => a.reshape([12]).index_halves().reshape([3, 4]),
            33 => concatenate(&[a.take(0), b.take(1), a.take(2)].map(|row| row.reshape([1, 4])), 0),
            34 => a.take(arange(3)) + a.take(2),
            35 => a.pick(arange(3)).reshape([3, 1]) * &b,
            36 => a.set_rows(arange(2), b.take(arange(2))),
            37 => a.inc_rows(arange(2), b.take(arange(2))),
            38 => (a.exp() + b.exp()).log(),
            39 => a.abs().sqrt().sqr() - b.sqr().sqrt(),
            40 => a.var(axis).mean(All) + &b,
            41 => (a.sqr().mean(All) - a.mean(All).sqr()) + &b,
            42 => a.sqr().sum(axis).sqrt().sum(All) * &b,
            43 => (&a * c).sum(axis).sum(All) - &b,
            44 => a.stop_gradient() * &b,
            45 => inputs[0].floor() * &a + inputs[1].sign() * &b,
            46 => (a.cos() - 1.0) * &b,
            _ => a.erf() + (1.0 - b.erf()),
        });
    }
    let result = pool.split_off(pool.len().saturating_sub(2)).into_iter().reduce(|a, b| a + b);
    (inputs, result.unwrap())
}

trait Halves {
    fn index_halves(&self) -> Tensor;
}

impl Halves for Tensor {
    /// The second half before the first.
    fn index_halves(&self) -> Tensor {
        let parts = self.split(&[6, 6], 0);
        concatenate(&[parts[1].clone(), parts[0].clone()], 0)
    }
}

fn graph_of(inputs: &[Tensor], outputs: Vec<Tensor>) -> Graph {
    let request = Request { inputs: inputs.to_vec(), outputs, unused: Unused::Ignore, ..Request::default() };
    collect(&request).unwrap()
}

fn compare(graph: &Graph, other: &Graph, data: &[Array], numerics: Numerics) -> Result<(), TestCaseError> {
    let (left, right) = (interpret(graph, data).unwrap(), interpret(other, data).unwrap());
    for (a, b) in left.outputs.iter().zip(&right.outputs) {
        let all: Vec<f64> = (0..a.len()).map(|i| a.get(i).to_f64()).collect();
        let scale = all.iter().filter(|x| x.is_finite()).fold(1.0f64, |m, x| m.max(x.abs()));
        for (i, &x) in all.iter().enumerate() {
            let y = b.get(i).to_f64();
            if !x.is_finite() {
                let kept = x.is_nan() == y.is_nan() && x.is_infinite() == y.is_infinite();
                prop_assert!(kept || numerics == Numerics::Real, "{x} became {y}\n{graph}\n{other}");
            } else if scale < 1e8 {
                prop_assert!(
                    (x - y).abs() <= 1e-6 * scale,
                    "{x:e} became {y:e} ({numerics:?})\n{graph}\n{other}"
                );
            }
        }
    }
    Ok(())
}

fn data(values: &[f64]) -> Vec<Array> {
    values.chunks(12).map(|part| Array::new(&[3, 4], part).unwrap()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(20), ..ProptestConfig::default() })]

    #[test]
    fn simplified_graphs_have_the_same_values(
        choices in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..14),
        values in prop::collection::vec(-2.0f64..2.0, 24),
    ) {
        let (inputs, result) = grow(&choices);
        let graph = graph_of(&inputs, vec![result]);
        for numerics in [Numerics::Strict, Numerics::Real] {
            let (simplified, _) = simplify(&graph, numerics);
            compare(&graph, &simplified, &data(&values), numerics)?;
        }
    }

    #[test]
    fn simplified_gradients_have_the_same_values(
        choices in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u8>()), 1..9),
        values in prop::collection::vec(-2.0f64..2.0, 24),
    ) {
        let (inputs, result) = grow(&choices);
        let cost = result.sum(All);
        let gradients = Gradient::of(&cost).disconnected(Disconnected::Zero).wrt(inputs.clone());
        let graph = graph_of(&inputs, gradients);
        let plain = differentiate(&graph, &mut Graph::clone).unwrap();
        for numerics in [Numerics::Strict, Numerics::Real] {
            let taken = differentiate(&graph, &mut |forward| simplify(forward, numerics).0).unwrap();
            let (simplified, _) = simplify(&taken, Options { numerics, gradients_taken: true });
            compare(&plain, &simplified, &data(&values), Numerics::Real)?;
        }
    }
}
