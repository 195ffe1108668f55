use hypatia::{constant, matrix};
use nalgebra::DMatrix;

use super::*;
use hypatia_datasets::numpy::RandomState;

/// The quadratic form `(x - mu)' precision (x - mu) / 2` of each row.
fn gaussian(mu: &Array, precision: &Array) -> impl Fn(&Tensor) -> Tensor + use<> {
    let (mu, precision) = (constant(mu.clone()), constant(precision.clone()));
    move |x| {
        let centred = x - &mu;
        0.5 * (centred.dot(&precision) * &centred).sum(1)
    }
}

fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|value| *value as f32).collect()
}

/// The mean and the standard error of a mean over draws that depend on one another, by the means of 25 batches.
fn batch_mean(values: &[f64]) -> (f64, f64) {
    let means: Vec<f64> = values
        .chunks_exact(values.len() / 25)
        .map(|batch| batch.iter().sum::<f64>() / batch.len() as f64)
        .collect();
    let count = means.len() as f64;
    let mean = means.iter().sum::<f64>() / count;
    let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (count - 1.0);
    (mean, (variance / count).sqrt())
}

/// The test that the tutorial comes with: 5 dimensions, 3 particles, 1,000 draws after 1,000 others.
#[test]
fn the_tutorials_gaussian_is_sampled() {
    const DIM: usize = 5;
    let mut rng = RandomState::new(123);
    let mu: Vec<f64> = rng.random_sample(DIM).iter().map(|u| u * 10.0).collect();
    let square = DMatrix::from_row_slice(DIM, DIM, &rng.random_sample(DIM * DIM));
    let mut covariance = (&square + square.transpose()) / 2.0;
    covariance.fill_diagonal(1.0);
    let precision = covariance.clone().try_inverse().unwrap();
    let positions = Array::new(&[3, DIM], &floats(&rng.standard_normal(3 * DIM))).unwrap();
    let energy = gaussian(
        &Array::vector(&floats(&mu)),
        &Array::new(&[DIM, DIM], &floats(precision.as_slice())).unwrap(),
    );
    let settings = HmcSettings { initial_stepsize: 1e-3, stepsize_max: 0.5, ..HmcSettings::default() };
    let mut sampler = HmcSampler::new(positions, energy, settings, 12345).unwrap();
    let mut draws: Vec<Vec<f64>> = Vec::new();
    for number in 0..2000 {
        let positions = sampler.draw().unwrap();
        if number >= 1000 {
            draws.push(positions.to_vec::<f32>().unwrap().into_iter().map(f64::from).collect());
        }
    }
    let (rate, step) = (sampler.acceptance_rate().unwrap(), sampler.stepsize().unwrap());
    eprintln!("acceptance rate {rate}, step {step}");
    assert!((rate - 0.9).abs() < 0.1, "{rate}");
    assert!((settings.stepsize_min..=settings.stepsize_max).contains(&step), "{step}");
    let mean_of = |f: &dyn Fn(&[f64]) -> f64| {
        let values: Vec<f64> = draws.iter().map(|row| row.chunks(DIM).map(f).sum::<f64>() / 3.0).collect();
        batch_mean(&values)
    };
    // Twenty quantities are compared, so that one of five standard errors is one in 90,000.
    for i in 0..DIM {
        let (mean, error) = mean_of(&|x| x[i]);
        assert!((mean - mu[i]).abs() < 5.0 * error, "mean {i}: {mean} for {} +- {error}", mu[i]);
        for j in 0..=i {
            let (found, error) = mean_of(&|x| (x[i] - mu[i]) * (x[j] - mu[j]));
            let expected = covariance[(i, j)];
            assert!(
                (found - expected).abs() < 5.0 * error,
                "covariance {i} {j}: {found} for {expected} +- {error}"
            );
            assert!(error < 0.1, "{error}");
        }
    }
}

/// Moments of the density `exp(-x^4 + 3 x^2)`, which has two peaks, by Simpson's rule.
#[test]
fn a_density_with_two_peaks_is_sampled() {
    let energy = |x: f64| x.powi(4) - 3.0 * x * x;
    let integral = |f: &dyn Fn(f64) -> f64| {
        const PIECES: i32 = 2000;
        let width = 10.0 / f64::from(PIECES);
        let at = |i: i32| -5.0 + f64::from(i) * width;
        let weight = |i: i32| if i == 0 || i == PIECES { 1.0 } else { f64::from(2 + 2 * (i % 2)) };
        (0..=PIECES).map(|i| weight(i) * f(at(i)) * (-energy(at(i))).exp()).sum::<f64>() * width / 3.0
    };
    let total = integral(&|_| 1.0);
    let functions: [&dyn Fn(f64) -> f64; 5] =
        [&|x| x, &|x| x * x, &|x| x.powi(4), &|x| f64::from(u8::from(x.abs() < 0.5)), &|x| {
            f64::from(u8::from(x > 1.5))
        }];
    const CHAINS: usize = 64;
    let start = Array::new(&[CHAINS, 1], &floats(&RandomState::new(5).standard_normal(CHAINS))).unwrap();
    let settings = HmcSettings { stepsize_max: 0.15, ..HmcSettings::default() };
    let formula = |x: &Tensor| (x.sqr().sqr() - 3.0 * x.sqr()).sum(1);
    let mut sampler = HmcSampler::new(start, formula, settings, 99).unwrap();
    let mut sums = vec![[0.0; 5]; CHAINS];
    const DRAWS: usize = 1500;
    for number in 0..DRAWS + 300 {
        let positions = sampler.draw().unwrap().to_vec::<f32>().unwrap();
        for (sums, x) in sums.iter_mut().zip(positions) {
            if number >= 300 {
                sums.iter_mut().zip(functions).for_each(|(sum, f)| *sum += f(f64::from(x)));
            }
        }
    }
    for (number, f) in functions.into_iter().enumerate() {
        let expected = integral(f) / total;
        // The chains are independent but for the common step, so their spread is the error.
        let means: Vec<f64> = sums.iter().map(|sums| sums[number] / DRAWS as f64).collect();
        let mean = means.iter().sum::<f64>() / CHAINS as f64;
        let variance = means.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (CHAINS - 1) as f64;
        let error = (variance / CHAINS as f64).sqrt();
        assert!((mean - expected).abs() < 4.5 * error, "{number}: {mean} for {expected} +- {error}");
        assert!(error < 0.05, "{number}: {error}");
    }
}

/// Positions and velocities after a motion in the potential `sum(x^4 / 4 + x^2 / 2 + x_0 x_1)`, and the change of the
/// total energy.
fn follow(pos: &Array, vel: &Array, stepsize: f64, n_steps: usize) -> (Array, Array, Vec<f64>) {
    let energy = |x: &Tensor| {
        let squares = x.sqr();
        let sum = (0.25 * squares.sqr() + 0.5 * squares).sum(1);
        let column = |i: i64| x.index(hypatia::ix![.., i]);
        sum + column(0) * column(1)
    };
    let (q, v) = (matrix::<f64>("q"), matrix::<f64>("v"));
    let step = Tensor::from(stepsize).cast(DType::F64);
    let (end_q, end_v) = simulate_dynamics(&q, &v, &step, n_steps, energy);
    let change = hamiltonian(&end_q, &end_v, energy) - hamiltonian(&q, &v, energy);
    let mut function =
        hypatia::function(&[&q, &v], &[&end_q, &end_v, &change], &[] as &[(&Shared, Tensor)]).unwrap();
    let outputs = function.call(&[pos, vel]).unwrap();
    (outputs.array(0).clone(), outputs.array(1).clone(), outputs.array(2).to_vec().unwrap())
}

fn start() -> (Array, Array) {
    let mut rng = RandomState::new(8);
    let mut normal = |n| rng.standard_normal(n);
    (Array::new(&[4, 3], &normal(12)).unwrap(), Array::new(&[4, 3], &normal(12)).unwrap())
}

#[test]
fn a_motion_runs_back_the_way_it_came() {
    let (pos, vel) = start();
    let (end, end_vel, _) = follow(&pos, &vel, 0.1, 25);
    let negated: Vec<f64> = end_vel.to_vec::<f64>().unwrap().into_iter().map(|v| -v).collect();
    let (back, back_vel, _) = follow(&end, &Array::new(&[4, 3], &negated).unwrap(), 0.1, 25);
    let far = |a: &Array, b: &Array, sign: f64| {
        let (a, b) = (a.to_vec::<f64>().unwrap(), b.to_vec::<f64>().unwrap());
        a.into_iter().zip(b).map(|(a, b)| (a - sign * b).abs()).fold(0.0, f64::max)
    };
    assert!(far(&back, &pos, 1.0) < 1e-12);
    assert!(far(&back_vel, &vel, -1.0) < 1e-12);
    assert!(far(&end, &pos, 1.0) > 0.5);
}

#[test]
fn the_energy_is_kept_to_the_square_of_the_step() {
    let (pos, vel) = start();
    let error = |stepsize: f64, n_steps: usize| {
        let (_, _, change) = follow(&pos, &vel, stepsize, n_steps);
        change.into_iter().map(|change| change * change).sum::<f64>().sqrt()
    };
    let (coarse, fine, finest) = (error(0.02, 50), error(0.01, 100), error(0.005, 200));
    assert!((coarse / fine - 4.0).abs() < 0.1, "{coarse} {fine}");
    assert!((fine / finest - 4.0).abs() < 0.03, "{fine} {finest}");
}

#[test]
fn no_step_and_one_step_are_motions_too() {
    let (pos, vel) = start();
    let (same, same_vel, change) = follow(&pos, &vel, 0.1, 0);
    assert_eq!((&same, &same_vel), (&pos, &vel));
    assert!(change.into_iter().all(|change| change == 0.0));
    // By hand: half a step for the velocity, a step for the position, half a step for the velocity.
    let (moved, moved_vel, _) = follow(&pos, &vel, 0.1, 1);
    let (q, v) = (pos.to_vec::<f64>().unwrap(), vel.to_vec::<f64>().unwrap());
    let gradient = |q: &[f64]| [q[0].powi(3) + q[0] + q[1], q[1].powi(3) + q[1] + q[0], q[2].powi(3) + q[2]];
    let half: Vec<f64> = v[..3].iter().zip(gradient(&q[..3])).map(|(v, g)| v - 0.05 * g).collect();
    let end: Vec<f64> = q[..3].iter().zip(&half).map(|(q, v)| q + 0.1 * v).collect();
    let end_vel: Vec<f64> = half.iter().zip(gradient(&end)).map(|(v, g)| v - 0.05 * g).collect();
    let (moved, moved_vel) = (moved.to_vec::<f64>().unwrap(), moved_vel.to_vec::<f64>().unwrap());
    for i in 0..3 {
        assert!((moved[i] - end[i]).abs() < 1e-14 && (moved_vel[i] - end_vel[i]).abs() < 1e-14);
    }
}

#[test]
fn an_energy_that_turns_nan_is_named_with_its_step() {
    // Defined within 1 of the origin only. The third chain begins near the rim.
    let energy = |x: &Tensor| -(1.0 - x.sqr().sum(1)).sqrt();
    let start = Array::new(&[3, 2], &[0.0f32, 0.0, 0.1, 0.0, 0.0, 0.97]).unwrap();
    let settings = HmcSettings { initial_stepsize: 0.2, stepsize_max: 0.2, ..HmcSettings::default() };
    let mut sampler = HmcSampler::new(start.clone(), energy, settings, 3).unwrap();
    let error = (0..50).find_map(|_| sampler.draw().err()).unwrap();
    let HmcError::Nan { draw, energy: found, .. } = &error else { panic!("{error}") };
    assert!(*draw >= 1 && found.chain < 3 && (1..=20).contains(&found.step));
    let text = error.to_string();
    let expected = format!(
        "draw {draw}: the energy of chain {} became NaN at leapfrog step {} of 20: expected a number\nhint: positions may have left the domain of the energy function; a smaller largest step (now 0.2) keeps them nearer",
        found.chain, found.step
    );
    assert_eq!(text, expected);
    // A chain that was never inside.
    let outside = Array::new(&[2, 2], &[0.0f32, 0.0, 2.0, 0.0]).unwrap();
    let mut sampler = HmcSampler::new(outside, energy, settings, 3).unwrap();
    let text = sampler.draw().unwrap_err().to_string();
    assert!(
        text.starts_with("draw 1: the energy of chain 1 became NaN before the first leapfrog step"),
        "{text}"
    );
}

#[test]
fn a_sampler_of_nothing_sensible_is_refused() {
    let message = |positions: Array, energy: &dyn Fn(&Tensor) -> Tensor, settings: HmcSettings| {
        HmcSampler::new(positions, energy, settings, 1).err().unwrap().to_string()
    };
    let normal = |x: &Tensor| 0.5 * x.sqr().sum(1);
    let defaults = HmcSettings::default();
    let start = Array::zeros(DType::F32, &[3, 2]).unwrap();
    assert_eq!(
        message(start.clone(), &normal, HmcSettings { n_steps: 0, ..defaults }),
        "hybrid Monte Carlo: n_steps: expected at least 1, found 0"
    );
    assert_eq!(
        message(start.clone(), &normal, HmcSettings { stepsize_max: 1e-4, ..defaults }),
        "hybrid Monte Carlo: stepsize_max: expected a number not below stepsize_min, found 0.0001"
    );
    assert_eq!(
        message(Array::zeros(DType::F32, &[3]).unwrap(), &normal, defaults),
        "hybrid Monte Carlo: expected positions of type f32 or f64 and shape [chains, dimensions], neither 0, found f32[3]"
    );
    assert_eq!(
        message(start, &|x| 0.5 * x.sqr().sum(All), defaults),
        "hybrid Monte Carlo: expected an energy function from f32[3, 2] to f32[n], found one that gives f32[]"
    );
}

#[test]
fn equal_seeds_give_equal_chains() {
    let chain = |seed: u64| {
        let energy = |x: &Tensor| 0.5 * x.sqr().sum(1);
        let start = Array::zeros(DType::F64, &[2, 3]).unwrap();
        let mut sampler = HmcSampler::new(start, energy, HmcSettings::default(), seed).unwrap();
        (0..3).map(|_| sampler.draw().unwrap()).collect::<Vec<_>>()
    };
    let first = chain(1);
    assert_eq!(first, chain(1));
    assert_ne!(first, chain(2));
    assert_ne!(first[0], first[1]);
}
