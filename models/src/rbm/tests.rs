//! A machine of four visible and three hidden units, all of whose states can be counted.

use hypatia::{Builder, Function, matrix};

use super::*;

const VISIBLE: usize = 4;
const HIDDEN: usize = 3;
const STATES: usize = 1 << VISIBLE;

/// Parameters in `f64`, to calculate with by hand.
struct Exact {
    w: Vec<f64>,
    hbias: Vec<f64>,
    vbias: Vec<f64>,
}

/// The bits of a number, as a state of units.
fn state(bits: usize, units: usize) -> Vec<f64> {
    (0..units).map(|unit| (bits >> unit & 1) as f64).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

impl Exact {
    fn energy(&self, v: &[f64], h: &[f64]) -> f64 {
        let pairs = v.iter().zip(self.w.chunks(HIDDEN)).map(|(v, row)| v * dot(row, h)).sum::<f64>();
        -dot(&self.vbias, v) - dot(&self.hbias, h) - pairs
    }

    /// By the definition: minus the logarithm of a sum over all hidden states.
    fn free_energy(&self, v: &[f64]) -> f64 {
        let sum: f64 = (0..1 << HIDDEN).map(|h| (-self.energy(v, &state(h, HIDDEN))).exp()).sum();
        -sum.ln()
    }

    /// The probability of each visible state.
    fn probabilities(&self) -> Vec<f64> {
        let weights: Vec<f64> = (0..STATES).map(|v| (-self.free_energy(&state(v, VISIBLE))).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|weight| weight / sum).collect()
    }
}

/// A machine with uneven biases and weights of both signs, and the same by hand.
fn tiny(input: &Tensor) -> (Rbm, Exact) {
    let mut rng = RandomState::new(3);
    let rbm = Rbm::new(&mut rng, &RandomStreams::new(17), input, VISIBLE, HIDDEN);
    let draw = |rng: &mut RandomState, n: usize| -> Vec<f32> {
        rng.uniform(-1.5, 1.5, n).into_iter().map(|x| x as f32).collect()
    };
    let (w, hbias, vbias) =
        (draw(&mut rng, VISIBLE * HIDDEN), draw(&mut rng, HIDDEN), draw(&mut rng, VISIBLE));
    rbm.w.set_value(Array::new(&[VISIBLE, HIDDEN], &w).unwrap()).unwrap();
    rbm.hbias.set_value(Array::vector(&hbias)).unwrap();
    rbm.vbias.set_value(Array::vector(&vbias)).unwrap();
    let [w, hbias, vbias] = [w, hbias, vbias].map(|x| x.into_iter().map(f64::from).collect());
    (rbm, Exact { w, hbias, vbias })
}

/// All visible states, one in each row.
fn all_states() -> Array {
    let rows: Vec<f32> = (0..STATES).flat_map(|v| state(v, VISIBLE)).map(|x| x as f32).collect();
    Array::new(&[STATES, VISIBLE], &rows).unwrap()
}

fn values(array: &Array) -> Vec<f64> {
    array.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect()
}

fn compile(builder: Builder, updates: &[(Shared, Tensor)]) -> Function {
    let updates: Vec<_> = updates.iter().map(|(shared, new)| (shared, new.clone())).collect();
    builder.updates(&updates).compile().unwrap()
}

#[test]
fn free_energies_are_sums_over_all_hidden_states() {
    let x = matrix::<f32>("x");
    let (rbm, exact) = tiny(&x);
    let mut function = Builder::new().inputs(&[&x]).outputs(&[&rbm.free_energy(&x)]).compile().unwrap();
    let found = values(function.call(&[&all_states()]).unwrap().array(0));
    for (v, found) in found.into_iter().enumerate() {
        let expected = exact.free_energy(&state(v, VISIBLE));
        assert!((found - expected).abs() < 1e-5, "{v}: {found} {expected}");
    }
}

#[test]
fn units_are_as_probable_as_the_energy_says() {
    let (x, h) = (matrix::<f32>("x"), matrix::<f32>("h"));
    let (rbm, exact) = tiny(&x);
    let (up, down) = (rbm.propup(&x), rbm.propdown(&h));
    let mut function = Builder::new().inputs(&[&x, &h]).outputs(&[&up, &down]).compile().unwrap();
    let hidden: Vec<f32> = (0..1 << HIDDEN).flat_map(|h| state(h, HIDDEN)).map(|x| x as f32).collect();
    let outputs =
        function.call(&[&all_states(), &Array::new(&[1 << HIDDEN, HIDDEN], &hidden).unwrap()]).unwrap();
    let (up, down) = (values(outputs.array(0)), values(outputs.array(1)));
    for v in 0..STATES {
        for h in 0..1 << HIDDEN {
            let (v_state, h_state) = (state(v, VISIBLE), state(h, HIDDEN));
            // p(h | v) of the whole layer, from the energies of all hidden states.
            let joint = |h: &[f64]| (-exact.energy(&v_state, h)).exp();
            let all: f64 = (0..1 << HIDDEN).map(|h| joint(&state(h, HIDDEN))).sum();
            let product = |means: &[f64], state: &[f64]| -> f64 {
                means.iter().zip(state).map(|(p, s)| s * p + (1.0 - s) * (1.0 - p)).product()
            };
            let found = product(&up[v * HIDDEN..(v + 1) * HIDDEN], &h_state);
            assert!((found - joint(&h_state) / all).abs() < 1e-5);
            let joint = |v: &[f64]| (-exact.energy(v, &h_state)).exp();
            let all: f64 = (0..STATES).map(|v| joint(&state(v, VISIBLE))).sum();
            let found = product(&down[h * VISIBLE..(h + 1) * VISIBLE], &v_state);
            assert!((found - joint(&v_state) / all).abs() < 1e-5);
        }
    }
}

/// Visible states of many chains after many steps, counted, beside the exact distribution.
#[test]
fn gibbs_chains_visit_states_as_often_as_they_are_probable() {
    const CHAINS: usize = 4096;
    const CALLS: usize = 12;
    type GibbsOf = fn(&Rbm, &Tensor) -> Tensor;
    // From visible to visible units, and from hidden to hidden units with the visible ones between.
    let steps: [GibbsOf; 2] = [
        |rbm, v| rbm.gibbs_vhv(v).visible.sample,
        |rbm, v| rbm.gibbs_hvh(&rbm.sample_h_given_v(v).sample).visible.sample,
    ];
    for gibbs in steps {
        let chain = shared("chain", Array::zeros(DType::F32, &[CHAINS, VISIBLE]).unwrap());
        let (rbm, exact) = tiny(&Tensor::from(&chain));
        let scanned =
            Scan::new().carry(&chain).steps(20).run(|step| Next::new().carry(gibbs(&rbm, &step.carries[0])));
        let mut updates = scanned.updates;
        updates.push((chain.clone(), scanned.last[0].clone()));
        let mut function = compile(Builder::new(), &updates);
        let mut counts = [0.0; STATES];
        for _ in 0..CALLS {
            function.call(&[]).unwrap();
            for row in values(&chain.get_value().unwrap()).chunks(VISIBLE) {
                let bits = row.iter().enumerate().map(|(unit, x)| (*x as usize) << unit).sum::<usize>();
                counts[bits] += 1.0;
            }
        }
        let total = (CHAINS * CALLS) as f64;
        let chi_square: f64 = counts
            .iter()
            .zip(exact.probabilities())
            .map(|(count, p)| (count - total * p).powi(2) / (total * p))
            .sum();
        // 15 degrees of freedom: 44.3 is exceeded once in ten thousand.
        assert!(chi_square < 44.3, "{chi_square}: {counts:?}");
    }
}

/// Over a whole turn of the bit, the stochastic pseudo-likelihood is the exact one.
#[test]
fn the_rotating_bit_gives_the_pseudo_likelihood() {
    let x = matrix::<f32>("x");
    let (rbm, exact) = tiny(&x);
    let chain = shared("chain", Array::zeros(DType::F32, &[STATES, HIDDEN]).unwrap());
    let learning = rbm.get_cost_updates(0.0, Divergence { persistent: Some(&chain), k: 2 });
    let builder = Builder::new().inputs(&[&x]).outputs(&[&learning.monitoring_cost]);
    let mut function = compile(builder, &learning.updates);
    let data = all_states();
    let found: Vec<f64> = (0..VISIBLE).map(|_| function.call(&[&data]).unwrap().scalar(0).unwrap()).collect();
    assert_eq!(rbm.bit_i_idx.get_value().unwrap().item(), Some(0.0));
    for (bit, found) in found.into_iter().enumerate() {
        // p(v_i | v_-i) of both states that differ in unit i, by their free energies.
        let log_conditional = |v: usize| {
            let weight = |v: usize| (-exact.free_energy(&state(v, VISIBLE))).exp();
            (weight(v) / (weight(v) + weight(v ^ 1 << bit))).ln()
        };
        let expected = VISIBLE as f64 * (0..STATES).map(log_conditional).sum::<f64>() / STATES as f64;
        assert!((found - expected).abs() < 1e-5, "{bit}: {found} {expected}");
    }
}

/// The updates are the difference of the statistics of data and chain, as Hinton wrote them.
#[test]
fn learning_takes_the_difference_of_statistics() {
    const RATE: f64 = 0.25;
    for (persistent, k) in [(false, 1), (false, 3), (true, 1), (true, 4)] {
        let x = matrix::<f32>("x");
        let (rbm, exact) = tiny(&x);
        let chain = shared("chain", Array::zeros(DType::F32, &[STATES, HIDDEN]).unwrap());
        let divergence = Divergence { persistent: persistent.then_some(&chain), k };
        let learning = rbm.get_cost_updates(RATE, divergence);
        let builder = Builder::new().inputs(&[&x]).outputs(&[&learning.chain_end]);
        let mut function = compile(builder, &learning.updates);
        let data = all_states();
        let end = values(function.call(&[&data]).unwrap().array(0));
        let data = values(&data);
        // <v h>, <h> and <v> with the hidden units at their probabilities.
        let statistics = |rows: &[f64]| {
            let (mut vh, mut h, mut v) = (vec![0.0; VISIBLE * HIDDEN], vec![0.0; HIDDEN], vec![0.0; VISIBLE]);
            for row in rows.chunks(VISIBLE) {
                for unit in 0..HIDDEN {
                    let column: Vec<f64> = exact.w.iter().skip(unit).step_by(HIDDEN).copied().collect();
                    let p = 1.0 / (1.0 + (-(dot(row, &column) + exact.hbias[unit])).exp());
                    h[unit] += p / STATES as f64;
                    for (visible, value) in row.iter().enumerate() {
                        vh[visible * HIDDEN + unit] += value * p / STATES as f64;
                    }
                }
                for (visible, value) in row.iter().enumerate() {
                    v[visible] += value / STATES as f64;
                }
            }
            [vh, h, v]
        };
        let old = [&exact.w, &exact.hbias, &exact.vbias];
        let statistics = statistics(&data).into_iter().zip(statistics(&end));
        for ((parameter, old), (of_data, of_chain)) in rbm.params().into_iter().zip(old).zip(statistics) {
            let new = values(&parameter.get_value().unwrap());
            for (index, new) in new.into_iter().enumerate() {
                let expected = old[index] + RATE * (of_data[index] - of_chain[index]);
                assert!((new - expected).abs() < 1e-5, "{parameter:?} {index}: {new} {expected}");
            }
        }
        // The chain has moved, and is in a state of ones and zeros.
        let ended = values(&chain.get_value().unwrap());
        assert!(ended.iter().all(|h| *h == 0.0 || *h == 1.0));
        assert_eq!(ended.contains(&1.0), persistent);
    }
}

/// Where probabilities round to 0 and 1, their logarithms stay finite.
#[test]
fn the_reconstruction_cost_is_finite_for_large_weights() {
    for k in [1, 5] {
        let x = matrix::<f32>("x");
        let (rbm, _) = tiny(&x);
        rbm.w.set_value(Array::new(&[VISIBLE, HIDDEN], &[200.0_f32; VISIBLE * HIDDEN]).unwrap()).unwrap();
        let learning = rbm.get_cost_updates(0.1, Divergence { persistent: None, k });
        let builder = Builder::new().inputs(&[&x]).outputs(&[&learning.monitoring_cost]);
        let mut function = compile(builder, &learning.updates);
        let cost = function.call(&[&all_states()]).unwrap().scalar(0).unwrap();
        assert!(cost.is_finite() && cost < -100.0, "k = {k}: {cost}");
    }
}
