use hypatia::{constant, function, grad, matrix};

use super::*;
use crate::hmc::HmcSampler;

/// Values made by `tests/reference/mcrbm.py`.
fn reference(name: &str) -> Vec<f64> {
    let text = include_str!("../../../tests/reference/mcrbm.txt");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
    line.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

const VISIBLE: usize = 5;

fn array(name: &str, dtype: DType, shape: &[usize]) -> Array {
    Array::new(shape, &reference(name)).unwrap().cast(dtype)
}

/// The model of the reference, `plain` or `pooled`.
fn model(kind: &str, dtype: DType) -> McRbm {
    let variable = |name: &str, shape: &[usize]| shared(name, array(name, dtype, shape));
    let plain = McRbm {
        u: variable("u", &[VISIBLE, 4]),
        w: variable("w", &[VISIBLE, 3]),
        a: variable("a", &[VISIBLE]),
        b: variable("b", &[4]),
        c: variable("c", &[3]),
        p: None,
        row_norm: RowNorm::mean_square(VISIBLE),
    };
    if kind == "plain" {
        return plain;
    }
    let three = Array::vector(&reference("b")[..3]).cast(dtype);
    McRbm { b: shared("b", three), p: Some(variable("p", &[4, 3])), row_norm: RowNorm::POOLED, ..plain }
}

fn assert_close(found: &Array, expected: &[f64], what: &str) {
    let found = found.cast(DType::F64).to_vec::<f64>().unwrap();
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs();
        assert!(error <= 2e-5 * expected.abs().max(1.0), "{what}[{index}]: {found} for {expected}");
    }
}

#[test]
fn free_energies_are_sums_over_all_states_of_the_hidden_units() {
    for kind in ["plain", "pooled"] {
        let model = model(kind, DType::F32);
        let v = matrix::<f32>("v");
        let terms = model.free_energy_terms_given_v(&v);
        let (h, g) = model.expected_h_g_given_v(&v);
        let mut outputs: Vec<&Tensor> = terms.iter().collect();
        let energy = model.free_energy_given_v(&v);
        outputs.extend([&energy, &h, &g]);
        let mut function = function(&[&v], &outputs, &[] as &[(&Shared, Tensor)]).unwrap();
        let results = function.call(&[&array("pos", DType::F32, &[6, VISIBLE])]).unwrap();
        for (number, expected) in reference(&format!("{kind}_terms")).chunks(6).enumerate() {
            assert_close(results.array(number), expected, &format!("{kind} term {number}"));
        }
        for (number, name) in [(4, "free_energy"), (5, "h"), (6, "g")] {
            let name = format!("{kind}_{name}");
            assert_close(results.array(number), &reference(&name), &name);
        }
    }
}

#[test]
fn derivatives_are_those_of_finite_differences() {
    for kind in ["plain", "pooled"] {
        let model = model(kind, DType::F64);
        let v = shared("v", array("pos", DType::F64, &[6, VISIBLE]));
        let cost = model.free_energy_given_v(&Tensor::from(&v)).sum(All);
        let mut variables = vec![&v];
        variables.extend(model.params());
        let gradients = grad(&cost, variables.iter().copied());
        let none: &[(&Shared, Tensor)] = &[];
        let gradients: Vec<&Tensor> = gradients.iter().collect();
        let mut gradient = function(&[], &gradients, none).unwrap();
        let found: Vec<Vec<f64>> =
            gradient.call(&[]).unwrap().arrays().iter().map(|g| g.to_vec().unwrap()).collect();
        let mut value = function(&[], &[&cost], none).unwrap();
        for (variable, found) in variables.into_iter().zip(found) {
            let before = variable.get_value().unwrap();
            let entries = before.to_vec::<f64>().unwrap();
            for (place, found) in found.into_iter().enumerate() {
                let mut at = |step: f64| {
                    let mut moved = entries.clone();
                    moved[place] += step;
                    variable.set_value(Array::new(before.shape(), &moved).unwrap()).unwrap();
                    value.call(&[]).unwrap().scalar(0).unwrap()
                };
                let expected = (at(1e-5) - at(-1e-5)) / 2e-5;
                let name = variable.name();
                assert!((found - expected).abs() < 1e-8, "{kind} {name}[{place}]: {found} for {expected}");
            }
            variable.set_value(before).unwrap();
        }
    }
}

/// Four iterations with constants that make everything happen: the rate falls after the second, weights are penalised
/// from the second on, and the pooling matrix is learnt after the first.
#[test]
fn learning_is_that_of_the_reference() {
    for kind in ["plain", "pooled"] {
        let model = model(kind, DType::F32);
        let settings = TrainerSettings {
            batch_size: 6,
            l1_penalty: 0.3,
            l1_penalty_start: 1,
            anneal_start: 2,
            pooling_start: 0,
            ..TrainerSettings::default()
        };
        let trainer = McRbmTrainer::new(model, settings, &mut RandomState::new(1));
        trainer.particles.set_value(array("neg", DType::F32, &[6, VISIBLE])).unwrap();
        let batch = constant(array("pos", DType::F32, &[6, VISIBLE]));
        let (cost, updates) = trainer.learning_updates(&batch);
        let updates: Vec<(&Shared, Tensor)> =
            updates.iter().map(|(shared, next)| (shared, next.clone())).collect();
        let mut learn = function(&[], &[&cost], &updates).unwrap();
        let costs: Vec<f64> = (0..4).map(|_| learn.call(&[]).unwrap().scalar(0).unwrap()).collect();
        assert_close(&Array::vector(&costs), &reference(&format!("{kind}_costs")), "costs");
        for (name, parameter) in ["u", "w", "a", "b", "c", "p"].into_iter().zip(trainer.model.params()) {
            let name = format!("{kind}_learnt_{name}");
            assert_close(&parameter.get_value().unwrap(), &reference(&name), &name);
        }
        let norm = trainer.norm_vf.get_value().unwrap();
        assert_close(&norm, &reference(&format!("{kind}_norm_vf")), "norm_vf");
        assert_eq!(trainer.iteration.get_value().unwrap().item(), Some(4.0));
        let columns = trainer.model.u.get_value().unwrap().to_vec::<f32>().unwrap();
        for column in 0..4 {
            let squares = columns.iter().skip(column).step_by(4).map(|u| f64::from(*u).powi(2));
            assert!((squares.sum::<f64>().sqrt() - norm.item().unwrap()).abs() < 1e-5);
        }
    }
}

#[test]
fn a_pooling_matrix_keeps_its_form() {
    let before = Array::new(
        &[3, 4],
        &[
            -0.5f32, 0.0, 0.0, -1.0, //
            -0.5, -1.0, 0.0, 0.0, //
            0.0, 0.0, -1.0, 0.0,
        ],
    )
    .unwrap();
    let p = shared("P", before.clone());
    let support: Vec<f32> = before.to_vec::<f32>().unwrap().iter().map(|p| f32::from(*p != 0.0)).collect();
    // Outside of the support, positive within it, a column that loses everything, and one that is scaled.
    let next = constant(
        Array::new(
            &[3, 4],
            &[
                -0.3f32, -5.0, 2.0, -4.0, //
                -0.9, 0.1, -7.0, -1.0, //
                0.4, -2.0, 0.2, -3.0,
            ],
        )
        .unwrap(),
    );
    let after = project_pooling(&p, &next, &constant(Array::new(&[3, 4], &support)));
    let mut function = function(&[], &[&after], &[] as &[(&Shared, Tensor)]).unwrap();
    let found = function.call(&[]).unwrap().array(0).to_vec::<f32>().unwrap();
    assert_eq!(found, [-0.25, 0.0, 0.0, -1.0, -0.75, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0, 0.0]);
}

#[test]
fn topological_connectivity_is_that_of_the_reference() {
    let (shape, weights) = topological_connectivity((3, 4), (3, 3), (2, 2));
    assert_eq!(shape, [48, 12]);
    assert_close(&Array::vector(&weights), &reference("connectivity"), "connectivity");
    // The tutorial's, times -2.
    let pooling = topological_pooling((12, 12), (3, 3), (2, 2)).unwrap();
    assert_eq!(pooling.shape(), [576, 144]);
    let entries = pooling.to_vec::<f32>().unwrap();
    assert!(entries.iter().all(|entry| *entry <= 0.0));
    for unit in 0..144 {
        let column: Vec<f32> = entries.iter().skip(unit).step_by(144).copied().collect();
        assert_eq!(column.iter().sum::<f32>(), -2.0);
        assert_eq!(column.iter().filter(|entry| **entry != 0.0).count(), 9);
    }
    assert_eq!(identity_pooling(2).unwrap().to_vec::<f32>().unwrap(), [-1.0, 0.0, 0.0, -1.0]);
}

#[test]
fn nothing_flows_through_the_negative_particles() {
    let model = model("plain", DType::F32);
    let v = constant(array("pos", DType::F32, &[6, VISIBLE]));
    let energy = |v: &Tensor| model.free_energy_given_v(v);
    // Particles that depend on what the gradient is taken of.
    let negative = &v * &model.a + &v;
    let through = contrastive_grad(energy, &v, &negative, [&model.a], None).remove(0);
    let none: &[(&Shared, Tensor)] = &[];
    let value = function(&[], &[&negative], none).unwrap().call(&[]).unwrap().array(0).clone();
    let fixed = contrastive_grad(energy, &v, &constant(value), [&model.a], None).remove(0);
    let flowing = grad(&contrastive_cost(energy, &v, &negative), [&model.a]).remove(0);
    let mut all = function(&[], &[&through, &fixed, &flowing], none).unwrap();
    let results = all.call(&[]).unwrap();
    let expected = results.array(1).cast(DType::F64).to_vec::<f64>().unwrap();
    assert_close(results.array(0), &expected, "gradient");
    let flowing = results.array(2).to_vec::<f32>().unwrap();
    assert!(flowing.iter().zip(&expected).all(|(flowing, fixed)| (f64::from(*flowing) - fixed).abs() > 1e-3));
}

/// A model of one visible unit, whose density can be integrated.
#[test]
fn a_small_model_is_sampled_as_its_density_says() {
    let variable =
        |name: &str, shape: &[usize], value: &[f32]| shared(name, Array::new(shape, value).unwrap());
    let model = McRbm {
        u: variable("U", &[1, 2], &[2.0, 0.7]),
        w: variable("W", &[1, 1], &[1.5]),
        a: variable("a", &[1], &[0.3]),
        b: variable("b", &[2], &[2.0, 1.0]),
        c: variable("c", &[1], &[-1.0]),
        p: None,
        row_norm: RowNorm::mean_square(1),
    };
    let energy = |v: f64| {
        let unit = v / (v * v + 0.5).sqrt();
        let softplus = |x: f64| x.exp().ln_1p();
        let covariance = softplus(2.0 - 2.0 * unit * unit) + softplus(1.0 - 0.245 * unit * unit);
        -covariance - softplus(-1.0 + 1.5 * v) + 0.5 * v * v - 0.3 * v
    };
    let integral = |f: &dyn Fn(f64) -> f64| {
        let points = (-8000..=8000).map(|i| f64::from(i) / 1000.0);
        points.map(|v| f(v) * (-energy(v)).exp()).sum::<f64>() / 1000.0
    };
    let total = integral(&|_| 1.0);
    let expected =
        [integral(&|v| v) / total, integral(&|v| v * v) / total, integral(&|v| f64::from(v > 1.0)) / total];
    const CHAINS: usize = 100;
    let mut rng = RandomState::new(2);
    let start: Vec<f32> = rng.standard_normal(CHAINS).into_iter().map(|x| x as f32).collect();
    let formula = |v: &Tensor| model.free_energy_given_v(v);
    let mut sampler =
        HmcSampler::new(Array::new(&[CHAINS, 1], &start).unwrap(), formula, HmcSettings::default(), 4)
            .unwrap();
    let mut sums = vec![[0.0; 3]; CHAINS];
    for number in 0..1300 {
        let positions = sampler.draw().unwrap().to_vec::<f32>().unwrap();
        for (sums, v) in sums.iter_mut().zip(positions) {
            let v = f64::from(v);
            if number >= 300 {
                sums.iter_mut().zip([v, v * v, f64::from(v > 1.0)]).for_each(|(sum, x)| *sum += x / 1000.0);
            }
        }
    }
    for (number, expected) in expected.into_iter().enumerate() {
        let mean = sums.iter().map(|sums| sums[number]).sum::<f64>() / CHAINS as f64;
        let squares: f64 = sums.iter().map(|sums| (sums[number] - mean).powi(2)).sum();
        let error = (squares / (CHAINS * (CHAINS - 1)) as f64).sqrt();
        assert!((mean - expected).abs() < 4.5 * error, "{number}: {mean} for {expected} +- {error}");
        assert!(error < 0.03, "{error}");
    }
}

/// A test of the implementation that the tutorial's was made from: steepest descent on `sum((S S' - I)^2)`.
#[test]
fn a_matrix_is_made_orthogonal_by_descent() {
    let start: Vec<f32> = RandomState::new(44).standard_normal(20).into_iter().map(|x| x as f32).collect();
    let s = shared("S", Array::new(&[5, 4], &start).unwrap());
    let identity: Vec<f32> = (0..25).map(|i| f32::from(i % 6 == 0)).collect();
    let cost = (s.dot(s.t()) - constant(Array::new(&[5, 5], &identity).unwrap())).sqr().sum(All);
    let next = &s - 0.01 * &grad(&cost, [&s])[0];
    let mut step = function(&[], &[&cost], &[(&s, next)]).unwrap();
    let costs: Vec<f64> = (0..10).map(|_| step.call(&[]).unwrap().scalar(0).unwrap()).collect();
    assert!(costs[0] > 139.0 && costs[9] < 2.5, "{costs:?}");
}
