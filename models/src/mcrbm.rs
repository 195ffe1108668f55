//! The mean and covariance restricted Boltzmann machine: visible units that are normal given two sets of hidden ones,
//! of which one says where their mean lies and the other how they vary together.
//!
//! With visible `v`, `v^` its rows brought to about unit length, and hidden units summed out, the free energy is
//!
//! ```text
//! F(v) = - sum softplus(b - (v^ U)^2 / 2) - sum softplus(c + v W) + |v|^2 / 2 - v . a
//! ```
//!
//! and with a pooling matrix `P <= 0` the first argument is `b + ((v^ U)^2 P) / 2`. Source: Ranzato and Hinton,
//! "Modeling pixel means and covariances using factorized third-order Boltzmann machines" (2010), as implemented for
//! the Deep Learning Tutorials, whose names and constants are kept. Samples are drawn by [`crate::hmc`], as nothing
//! conditional on the hidden units is easily drawn from.

use hypatia::{
    All, Array, DType, Diagnostic, Gradient, RandomStreams, Shared, Tensor, constant, shared, switch,
};

use hypatia_datasets::numpy::RandomState;

use crate::descent::Schedule;
use crate::hmc::{Adaptation, HmcSettings, Proposal, hmc_move};
use crate::parameter::extents;

/// How rows are brought to about unit length for the covariance units: divided by
/// `sqrt(slope * sum of squares + offset)`.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct RowNorm {
    /// Factor of the sum of squares.
    pub slope: f64,
    /// What keeps short rows short.
    pub offset: f64,
}

impl RowNorm {
    /// The root of the mean square of so many units, with the tutorial's offset of 0.5.
    #[must_use]
    pub fn mean_square(visible: usize) -> Self {
        Self { slope: 1.0 / visible.max(1) as f64, offset: 0.5 }
    }

    /// The tutorial's for models with pooling, made for patches of 8 x 8 pixels in three colours.
    pub const POOLED: Self = Self { slope: 1.0 / 192.0, offset: 0.5 };

    /// The rows `[n, d]` of about unit length.
    #[must_use]
    #[track_caller]
    pub fn apply(self, v: &Tensor) -> Tensor {
        v / (self.slope * v.sqr().sum_keepdims(1) + self.offset).sqrt()
    }
}

/// The parameters and the formulas of the model.
#[derive(Clone, Debug)]
pub struct McRbm {
    /// Covariance filters, `f32[visible, filters]`.
    pub u: Shared,
    /// Mean filters, `f32[visible, mean]`.
    pub w: Shared,
    /// Visible biases, `f32[visible]`.
    pub a: Shared,
    /// Biases of the covariance units, `f32[covariance]`.
    pub b: Shared,
    /// Biases of the mean units, `f32[mean]`.
    pub c: Shared,
    /// How filters act on covariance units, `f32[filters, covariance]`, nowhere positive; without it each filter has
    /// a unit of its own.
    pub p: Option<Shared>,
    /// How rows are normalised.
    pub row_norm: RowNorm,
}

impl McRbm {
    /// A model whose filters have a covariance unit each: `U` normal with deviation 0.02, `W` with 0.05, biases 0, 2
    /// and -2. Draws `U` from `rng`, then `W`.
    #[must_use]
    #[track_caller]
    pub fn new(rng: &mut RandomState, visible: usize, covariance: usize, mean: usize) -> Self {
        Self::start(rng, visible, covariance, covariance, mean)
    }

    /// A model with a pooling matrix `f32[filters, covariance]` without positive entries: see
    /// [`identity_pooling`] and [`topological_pooling`]. Rows are normalised by [`RowNorm::POOLED`].
    #[must_use]
    #[track_caller]
    pub fn with_pooling(rng: &mut RandomState, pooling: Array, visible: usize, mean: usize) -> Self {
        let extent = |axis: usize| pooling.shape().get(axis).copied().unwrap_or(1);
        let model = Self::start(rng, visible, extent(0), extent(1), mean);
        Self { p: Some(shared("P", pooling)), row_norm: RowNorm::POOLED, ..model }
    }

    #[track_caller]
    fn start(rng: &mut RandomState, visible: usize, filters: usize, covariance: usize, mean: usize) -> Self {
        let mut normal = |deviation: f64, columns: usize| {
            let draws = rng.standard_normal(visible * columns);
            let weights: Vec<f32> = draws.into_iter().map(|x| (deviation * x) as f32).collect();
            Array::new(&[visible, columns], &weights)
        };
        let (u, w) = (normal(0.02, filters), normal(0.05, mean));
        Self {
            u: shared("U", u),
            w: shared("W", w),
            a: shared("a", Array::zeros(DType::F32, &[visible])),
            b: shared("b", Array::new(&[covariance], &vec![2.0_f32; covariance])),
            c: shared("c", Array::new(&[mean], &vec![-2.0_f32; mean])),
            p: None,
            row_norm: RowNorm::mean_square(visible),
        }
    }

    /// The parameters in the order of the tutorial: `U`, `W`, `a`, `b`, `c`, and `P` where there is one.
    #[must_use]
    pub fn params(&self) -> Vec<&Shared> {
        [&self.u, &self.w, &self.a, &self.b, &self.c].into_iter().chain(&self.p).collect()
    }

    /// Number of visible units.
    #[must_use]
    pub fn n_visible_units(&self) -> usize {
        extents(&self.a).iter().product()
    }

    /// Number of hidden units for the covariance.
    #[must_use]
    pub fn n_hidden_cov_units(&self) -> usize {
        extents(&self.b).iter().product()
    }

    /// Number of hidden units for the mean.
    #[must_use]
    pub fn n_hidden_mean_units(&self) -> usize {
        extents(&self.c).iter().product()
    }

    /// What the logistic function turns into the means of the covariance units given `v`, `[n, visible]`:
    /// `[n, covariance]`.
    #[must_use]
    #[track_caller]
    pub fn hidden_cov_units_preactivation_given_v(&self, v: &Tensor) -> Tensor {
        let squares = self.row_norm.apply(v).dot(&self.u).sqr();
        match &self.p {
            None => &self.b - 0.5 * squares,
            Some(p) => &self.b + 0.5 * squares.dot(p),
        }
    }

    /// The terms that add up to the free energy of `v`, `[n, visible]`, each `[n]`: that of the covariance units, that
    /// of the mean units, that of the squares of `v`, and that of its projection on the biases `a`.
    #[must_use]
    #[track_caller]
    pub fn free_energy_terms_given_v(&self, v: &Tensor) -> [Tensor; 4] {
        [
            -self.hidden_cov_units_preactivation_given_v(v).softplus().sum(1),
            -(&self.c + v.dot(&self.w)).softplus().sum(1),
            0.5 * v.sqr().sum(1),
            -v.dot(&self.a),
        ]
    }

    /// The free energies `[n]` of `v`, `[n, visible]`.
    #[must_use]
    #[track_caller]
    pub fn free_energy_given_v(&self, v: &Tensor) -> Tensor {
        let [covariance, mean, squares, projection] = self.free_energy_terms_given_v(v);
        covariance + mean + squares + projection
    }

    /// Expectations of the hidden units given `v`, `[n, visible]`: those of the covariance, `h[n, covariance]`, and
    /// those of the mean, `g[n, mean]`.
    #[must_use]
    #[track_caller]
    pub fn expected_h_g_given_v(&self, v: &Tensor) -> (Tensor, Tensor) {
        let h = self.hidden_cov_units_preactivation_given_v(v).sigmoid();
        let g = (&self.c + v.dot(&self.w)).sigmoid();
        (h, g)
    }

    /// One move of hybrid Monte Carlo from `positions`, `[n, visible]`, in the density of the model: from the visible
    /// minibatch it is contrastive divergence, from where the last move ended a persistent chain.
    #[must_use]
    #[track_caller]
    pub fn hmc_move(&self, random: &RandomStreams, positions: &Tensor, adaptation: &Adaptation) -> Proposal {
        let stepsize = Tensor::from(&adaptation.stepsize);
        let energy = |v: &Tensor| self.free_energy_given_v(v);
        hmc_move(random, positions, energy, &stepsize, adaptation.settings.n_steps)
    }
}

/// How much lower the energies of the data are than those of the negative particles, summed over the rows of both.
#[must_use]
#[track_caller]
pub fn contrastive_cost(free_energy: impl Fn(&Tensor) -> Tensor, pos_v: &Tensor, neg_v: &Tensor) -> Tensor {
    free_energy(pos_v).sum(All) - free_energy(neg_v).sum(All)
}

/// The gradient of [`contrastive_cost`], and of another cost where one is given, with respect to `wrt`. Nothing flows
/// through the negative particles, however they were made.
#[must_use]
#[track_caller]
pub fn contrastive_grad<V: Into<Tensor>>(
    free_energy: impl Fn(&Tensor) -> Tensor,
    pos_v: &Tensor,
    neg_v: &Tensor,
    wrt: impl IntoIterator<Item = V>,
    other_cost: Option<&Tensor>,
) -> Vec<Tensor> {
    let mut cost = contrastive_cost(free_energy, pos_v, neg_v);
    if let Some(other) = other_cost {
        cost = cost + other;
    }
    Gradient::of(&cost).consider_constant([neg_v]).wrt(wrt)
}

/// The pooling in which each filter has a covariance unit of its own: minus the identity.
///
/// # Errors
///
/// More filters than there is memory for.
pub fn identity_pooling(filters: usize) -> Result<Array, Diagnostic> {
    let entries: Vec<f32> =
        (0..filters * filters).map(|i| if i % (filters + 1) == 0 { -1.0 } else { 0.0 }).collect();
    Array::new(&[filters, filters], &entries)
}

/// The pooling of filters that lie on a grid, and of which neighbours act on a unit: minus two times
/// [`topological_connectivity`].
///
/// # Errors
///
/// More filters than there is memory for.
pub fn topological_pooling(
    out_shape: (usize, usize),
    window_shape: (usize, usize),
    window_stride: (usize, usize),
) -> Result<Array, Diagnostic> {
    let (shape, weights) = topological_connectivity(out_shape, window_shape, window_stride);
    let entries: Vec<f32> = weights.into_iter().map(|weight| (-2.0 * weight) as f32).collect();
    Array::new(&shape, &entries)
}

/// Weights of filters on a grid of `stride * out_shape` for units on a grid of `out_shape`, row-major `[filters,
/// units]`, and these extents. A unit sees a window of filters, wrapped at the edges of the grid, with the weights of
/// a binomial kernel (1 2 1 by 1 2 1 for a window of 3 by 3), which add up to 1. Extents of 0 count as 1.
#[must_use]
pub fn topological_connectivity(
    out_shape: (usize, usize),
    window_shape: (usize, usize),
    window_stride: (usize, usize),
) -> ([usize; 2], Vec<f64>) {
    let at_least_1 = |(rows, columns): (usize, usize)| (rows.max(1), columns.max(1));
    let (out, window, stride) = (at_least_1(out_shape), at_least_1(window_shape), at_least_1(window_stride));
    let grid = (out.0 * stride.0, out.1 * stride.1);
    let (filters, units) = (grid.0 * grid.1, out.0 * out.1);
    let (down, right) = (binomial_kernel(window.0), binomial_kernel(window.1));
    let mut weights = vec![0.0; filters * units];
    for unit in 0..units {
        let (top, left) = (unit / out.1 * stride.0, unit % out.1 * stride.1);
        for (row, a) in down.iter().enumerate() {
            for (column, b) in right.iter().enumerate() {
                let filter = (top + row) % grid.0 * grid.1 + (left + column) % grid.1;
                weights[filter * units + unit] += a * b;
            }
        }
    }
    ([filters, units], weights)
}

/// The binomial coefficients of `length - 1`, divided by their sum.
fn binomial_kernel(length: usize) -> Vec<f64> {
    let mut kernel = vec![1.0];
    for _ in 1..length {
        let shifted = std::iter::once(0.0).chain(kernel.iter().copied());
        kernel = kernel.iter().copied().chain([0.0]).zip(shifted).map(|(a, b)| (a + b) / 2.0).collect();
    }
    kernel
}

/// How [`McRbmTrainer`] learns; the defaults are the tutorial's.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct TrainerSettings {
    /// Examples in a minibatch, and negative particles.
    pub batch_size: usize,
    /// The learning rate times the size of a minibatch.
    pub learning_rate_per_example: f64,
    /// Factors of the rate for `U`, `W`, `a`, `b` and `c`.
    pub multipliers: [f64; 5],
    /// The iteration after which the rate falls as one over the iteration.
    pub anneal_start: u64,
    /// Weight of the absolute values of `U` and `W`.
    pub l1_penalty: f64,
    /// The iteration from which they are penalised.
    pub l1_penalty_start: u64,
    /// Factor of the rate for `P`.
    pub pooling_multiplier: f64,
    /// The iteration after which `P` learns.
    pub pooling_start: u64,
    /// Whether negative particles go on from where they were, instead of starting from the data (CD-1).
    pub persistent: bool,
    /// How negative particles move.
    pub hmc: HmcSettings,
}

impl Default for TrainerSettings {
    fn default() -> Self {
        Self {
            batch_size: 128,
            learning_rate_per_example: 0.075,
            multipliers: [2.0, 0.2, 0.02, 0.1, 0.02],
            anneal_start: 2000,
            l1_penalty: 1e-3,
            l1_penalty_start: 1000,
            pooling_multiplier: 0.02,
            pooling_start: 4000,
            persistent: true,
            hmc: HmcSettings::default(),
        }
    }
}

/// The state of contrastive learning, and the formulas that bring it on by one minibatch.
#[derive(Clone, Debug)]
pub struct McRbmTrainer {
    /// The model.
    pub model: McRbm,
    /// How it learns.
    pub settings: TrainerSettings,
    /// The negative particles, `f32[batch_size, visible]`.
    pub particles: Shared,
    /// The step of their motion and how many moves are accepted.
    pub adaptation: Adaptation,
    /// The norm that columns of `U` are brought to, an `f32` scalar.
    pub norm_vf: Shared,
    /// Minibatches learnt from, an `i64` scalar.
    pub iteration: Shared,
    /// Where `P` may be other than 0, as 1 and 0.
    support: Option<Tensor>,
}

impl McRbmTrainer {
    /// At the start, with particles drawn from `rng`, standard normal.
    #[must_use]
    #[track_caller]
    pub fn new(model: McRbm, settings: TrainerSettings, rng: &mut RandomState) -> Self {
        let shape = [settings.batch_size, model.n_visible_units()];
        let draws: Vec<f32> =
            rng.standard_normal(shape[0] * shape[1]).into_iter().map(|x| x as f32).collect();
        let support = model.p.as_ref().map(|p| {
            constant(p.get_value().and_then(|p| {
                let other = || Diagnostic::new(format!("a pooling matrix is f32, found {}", p.dtype()));
                let entries = p.to_vec::<f32>().ok_or_else(other)?;
                let support: Vec<f32> = entries.iter().map(|entry| f32::from(*entry != 0.0)).collect();
                Array::new(p.shape(), &support)
            }))
        });
        Self {
            model,
            settings,
            particles: shared("particles", Array::new(&shape, &draws)),
            adaptation: Adaptation::new(settings.hmc),
            norm_vf: shared("norm_vf", Array::scalar(1.0_f32)),
            iteration: shared("iteration", Array::scalar(0_i64)),
            support,
        }
    }

    /// A move of the negative particles and the updates that make it, given the minibatch that is learnt from next.
    #[must_use]
    #[track_caller]
    pub fn sampling_updates(
        &self,
        random: &RandomStreams,
        visible_batch: &Tensor,
    ) -> (Proposal, Vec<(Shared, Tensor)>) {
        let particles = Tensor::from(&self.particles);
        let start = if self.settings.persistent { &particles } else { visible_batch };
        let proposal = self.model.hmc_move(random, start, &self.adaptation);
        let mut updates = vec![(self.particles.clone(), proposal.next_positions(start))];
        updates.extend(self.adaptation.updates(&proposal.accept));
        (proposal, updates)
    }

    /// The mean difference of energies between a minibatch `[batch_size, visible]` and the particles, and the updates
    /// of parameters, column norm and iteration that make it smaller.
    #[must_use]
    #[track_caller]
    pub fn learning_updates(&self, visible_batch: &Tensor) -> (Tensor, Vec<(Shared, Tensor)>) {
        let model = &self.model;
        let settings = &self.settings;
        let negative = Tensor::from(&self.particles);
        let free_energy = |v: &Tensor| model.free_energy_given_v(v);
        let cost = contrastive_cost(free_energy, visible_batch, &negative) / settings.batch_size as f64;
        let penalty = self.l1_penalty();
        let parameters = model.params();
        let gradients = contrastive_grad(
            free_energy,
            visible_batch,
            &negative,
            parameters.iter().copied(),
            penalty.as_ref(),
        );
        let rate = self.learning_rate();
        let iteration = Tensor::from(&self.iteration);
        let pooling = switch(iteration.gt(settings.pooling_start as i64), settings.pooling_multiplier, 0.0);
        let multipliers = settings.multipliers.into_iter().map(Tensor::from).chain([pooling]);
        let moved: Vec<Tensor> = parameters
            .iter()
            .zip(gradients)
            .zip(multipliers)
            .map(|((parameter, gradient), multiplier)| *parameter - (&rate * multiplier) * gradient)
            .collect();
        let mut updates: Vec<(Shared, Tensor)> =
            parameters.iter().zip(&moved).map(|(shared, next)| ((*shared).clone(), next.clone())).collect();
        let (u, norm_vf) = self.normalize_u(&moved[0]);
        updates[0].1 = u;
        if let (Some(p), Some(next), Some(support)) = (&model.p, moved.get(5), &self.support) {
            updates[5].1 = project_pooling(p, next, support);
        }
        updates.push((self.norm_vf.clone(), norm_vf));
        updates.push((self.iteration.clone(), iteration + 1));
        (cost, updates)
    }

    /// The rate of this iteration: that of the settings, and after `anneal_start` iterations less by as much as there
    /// were more.
    #[must_use]
    #[track_caller]
    pub fn learning_rate(&self) -> Tensor {
        let settings = &self.settings;
        let rate = settings.learning_rate_per_example / settings.batch_size as f64;
        rate * Schedule::Inverse { after: settings.anneal_start }.factor(&Tensor::from(&self.iteration))
    }

    /// The weighted absolute values of both kinds of filters once they are penalised, `None` without a penalty.
    #[track_caller]
    fn l1_penalty(&self) -> Option<Tensor> {
        let settings = &self.settings;
        if settings.l1_penalty == 0.0 {
            return None;
        }
        let due = Tensor::from(&self.iteration).ge(settings.l1_penalty_start as i64);
        let absolute = self.model.u.abs().sum(All) + self.model.w.abs().sum(All);
        Some(absolute * switch(due, settings.l1_penalty, 0.0))
    }

    /// `new_u` with all columns of one norm, and that norm: 0.95 of the one before and 0.05 of the mean over columns.
    #[must_use]
    #[track_caller]
    pub fn normalize_u(&self, new_u: &Tensor) -> (Tensor, Tensor) {
        let norms = new_u.sqr().sum(0).sqrt();
        let norm = 0.95 * &self.norm_vf + 0.05 * norms.mean(All);
        // A column of zeros has no direction and stays one.
        let normalized = new_u * (&norm / norms.maximum(f64::from(f32::MIN_POSITIVE)));
        (normalized, norm)
    }
}

/// A pooling matrix after a step, as it should be: nothing outside of its support, nothing positive, columns that sum
/// to -1. A column of which nothing is left stays as it was before the step.
#[track_caller]
fn project_pooling(before: &Shared, next: &Tensor, support: &Tensor) -> Tensor {
    let negative = (next * support).minimum(0.0);
    let sums = negative.sum_keepdims(0);
    switch(sums.lt(0.0), -&negative / sums, before)
}

#[cfg(test)]
mod tests;
