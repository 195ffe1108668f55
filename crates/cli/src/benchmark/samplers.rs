//! Draws of hybrid Monte Carlo, from a normal density and while a mean and covariance model is trained.

use hypatia::graph::broken;
use hypatia::{All, Array, Diagnostic, Diagnostics, RandomStreams, Shared, Tensor, scalar, shared};
use nalgebra::DMatrix;

use super::{Compilation, Step};
use crate::resident::{borrowed, rows_of};
use hypatia_datasets::numpy::RandomState;
use hypatia_models::hmc::{Adaptation, HmcSettings, hmc_move, hmc_updates};
use hypatia_models::mcrbm::{McRbm, RowNorm, contrastive_grad, identity_pooling};

pub(super) fn hmc_3x10(compilation: Compilation) -> Result<Step, Diagnostics> {
    normal_density(compilation, 3, 10)
}

pub(super) fn hmc_128x105(compilation: Compilation) -> Result<Step, Diagnostics> {
    normal_density(compilation, 128, 105)
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// `deviation` times standard normal numbers.
fn normal(rng: &mut RandomState, shape: &[usize], deviation: f64) -> Result<Array, Diagnostic> {
    let draws: Vec<f64> = rng.standard_normal(shape.iter().product());
    Array::new(shape, &floats(&draws.into_iter().map(|x| deviation * x).collect::<Vec<_>>()))
}

/// A draw of every chain in a normal density with a full precision matrix; the cost is the acceptance rate.
fn normal_density(compilation: Compilation, chains: usize, dimensions: usize) -> Result<Step, Diagnostics> {
    let mut rng = RandomState::new(1234);
    let factor =
        DMatrix::from_row_slice(dimensions, dimensions, &rng.standard_normal(dimensions * dimensions));
    let mut covariance = &factor * factor.transpose() / dimensions as f64;
    covariance += DMatrix::identity(dimensions, dimensions);
    // A sum with the identity is never singular.
    let factor = covariance.cholesky().ok_or_else(|| broken!("a positive definite matrix"))?;
    let precision = factor.inverse();
    let mean: Vec<f64> = rng.random_sample(dimensions).into_iter().map(|u| 10.0 * u).collect();
    let mean = Tensor::from(&shared("mean", Array::vector(&floats(&mean))));
    let precision = Array::new(&[dimensions, dimensions], &floats(precision.as_slice()));
    let precision = Tensor::from(&shared("precision", precision));
    let positions = shared("positions", normal(&mut rng, &[chains, dimensions], 1.0));
    let energy = |x: &Tensor| {
        let centred = x - &mean;
        0.5 * (centred.dot(&precision) * &centred).sum(1)
    };
    let adaptation = Adaptation::new(HmcSettings::default());
    let proposal = hmc_move(
        &RandomStreams::new(1),
        &Tensor::from(&positions),
        energy,
        &Tensor::from(&adaptation.stepsize),
        adaptation.settings.n_steps,
    );
    let updates = hmc_updates(&positions, &adaptation, &proposal);
    let rate = updates.last().map(|(_, rate)| rate.clone()).unwrap_or_else(|| Tensor::from(0.0));
    let function = compilation.builder().outputs(&[&rate]).updates(&borrowed(&updates)).compile()?;
    Ok(Step::without_input(function))
}

/// A minibatch of contrastive learning with persistent particles and a dense pooling matrix that stays as it is.
pub(super) fn mcrbm(compilation: Compilation) -> Result<Step, Diagnostics> {
    const ROWS: usize = 10_000;
    const BATCH: usize = 128;
    const LEARNING_RATE: f64 = 0.01;
    let (visible, filters, mean_units) = (105, 256, 100);
    let mut rng = RandomState::new(1234);
    let u = normal(&mut rng, &[visible, filters], 0.1)?;
    let columns = u.to_vec::<f32>().ok_or_else(|| broken!("weights of f32", u.dtype()))?;
    let norm = |column: usize| {
        let entries = columns.iter().skip(column).step_by(filters);
        entries.map(|entry| f64::from(*entry).powi(2)).sum::<f64>().sqrt()
    };
    let norm_vf = (0..filters).map(norm).sum::<f64>() / filters as f64;
    let constant_vector = |length: usize, value: f32| Array::vector(&vec![value; length]);
    let model = McRbm {
        u: shared("U", u),
        w: shared("W", normal(&mut rng, &[visible, mean_units], 0.05)),
        a: shared("a", constant_vector(visible, 0.0)),
        b: shared("b", constant_vector(filters, 2.0)),
        c: shared("c", constant_vector(mean_units, -2.0)),
        p: Some(shared("P", identity_pooling(filters))),
        row_norm: RowNorm { slope: 1.0 / visible as f64, offset: 1e-8 },
    };
    let data = shared("x", normal(&mut rng, &[ROWS, visible], 1.0));
    let particles = shared("particles", normal(&mut rng, &[BATCH, visible], 1.0));
    let norm_vf = shared("norm_vf", Array::scalar(norm_vf as f32));
    let index = scalar::<i64>("index");
    let batch = rows_of(&data, &index, BATCH);

    let adaptation = Adaptation::new(HmcSettings::default());
    let proposal = model.hmc_move(&RandomStreams::new(1), &Tensor::from(&particles), &adaptation);
    let negative = proposal.next_positions(&Tensor::from(&particles));
    let energy = |v: &Tensor| model.free_energy_given_v(v) / BATCH as f64;
    let cost = energy(&batch).sum(All) - energy(&negative).sum(All);
    let learnt = &model.params()[..5];
    let gradients = contrastive_grad(energy, &batch, &negative, learnt.iter().copied(), None);
    let mut updates: Vec<(Shared, Tensor)> = learnt
        .iter()
        .zip(gradients)
        .map(|(parameter, gradient)| ((*parameter).clone(), *parameter - LEARNING_RATE * gradient))
        .collect();
    let norms = updates[0].1.sqr().sum(0).sqrt();
    let next_norm = 0.95 * &norm_vf + 0.05 * norms.mean(All);
    updates[0].1 = &updates[0].1 * (&next_norm / norms);
    updates.extend([(particles.clone(), negative), (norm_vf.clone(), next_norm)]);
    updates.extend(adaptation.updates(&proposal.accept));
    let function =
        compilation.builder().inputs(&[&index]).outputs(&[&cost]).updates(&borrowed(&updates)).compile()?;
    Ok(Step::of_minibatches(function, ROWS / BATCH))
}
