//! Restricted Boltzmann machines: visible and hidden binary units, connected with each other and not among themselves.
//!
//! The energy of a state is `E(v, h) = -vbias.v - hbias.h - v W h`, so that each layer is independent given the other
//! and Gibbs sampling draws whole layers. [`Rbm::get_cost_updates`] trains by contrastive divergence (Hinton, 2002) or
//! its persistent form (Tieleman, 2008): the gradient of the difference of two free energies, with the end of a chain
//! of Gibbs steps held constant. The chain is a scan in the graph. The class holds formulas only; values before the
//! logistic function are not carried along, because logarithms of probabilities are made stable by the compiler.

use hypatia::{All, Array, DType, Gradient, Next, RandomStreams, Scan, Shared, Tensor, ix, shared};

use hypatia_datasets::numpy::RandomState;

use crate::descent::Descent;
use crate::mlp::Activation;
use crate::parameter::{Parameter, extents, sizes};

/// A restricted Boltzmann machine on an input.
#[derive(Clone, Debug)]
pub struct Rbm {
    /// What it learns from, `f32[n, n_visible]`: states of the visible units, or probabilities that they are 1.
    pub input: Tensor,
    /// Visible units.
    pub n_visible: usize,
    /// Hidden units.
    pub n_hidden: usize,
    /// Weights, `f32[n_visible, n_hidden]`.
    pub w: Shared,
    /// Biases of the hidden units, `f32[n_hidden]`.
    pub hbias: Shared,
    /// Biases of the visible units, `f32[n_visible]`.
    pub vbias: Shared,
    /// The visible unit whose conditional probability the next pseudo-likelihood takes, an `i64` scalar.
    pub bit_i_idx: Shared,
    /// Where samples are drawn from.
    pub streams: RandomStreams,
}

/// The units of a layer given the other layer.
#[derive(Clone, Debug)]
pub struct Units {
    /// The probability of each unit to be 1.
    pub mean: Tensor,
    /// A state drawn with these probabilities: 0 or 1.
    pub sample: Tensor,
}

/// Both layers after a step of Gibbs sampling.
#[derive(Clone, Debug)]
pub struct GibbsStep {
    /// The visible units, `f32[n, n_visible]`.
    pub visible: Units,
    /// The hidden units, `f32[n, n_hidden]`.
    pub hidden: Units,
}

/// A step of learning, as formulas.
#[derive(Clone, Debug)]
#[must_use = "nothing is learnt, and chains stand still, unless the updates are given to the function"]
pub struct CostUpdates {
    /// How well it does, a scalar: [`Rbm::get_pseudo_likelihood_cost`] of a persistent chain, else
    /// [`Rbm::get_reconstruction_cost`]. Both are negative, and better nearer to 0.
    pub monitoring_cost: Tensor,
    /// What goes downhill, a scalar: the mean free energy of the input less that of the end of the chain.
    pub cost: Tensor,
    /// The visible units at the end of the chain, `f32[n, n_visible]`.
    pub chain_end: Tensor,
    /// New values of the parameters, and of the persistent chain and the bit that is looked at where there is a chain.
    pub updates: Vec<(Shared, Tensor)>,
}

/// How [`Rbm::get_cost_updates`] learns, besides the size of its steps.
#[derive(Copy, Clone, Debug)]
pub struct Divergence<'a> {
    /// The hidden units where the chain goes on, `f32[n, n_hidden]`; `None` begins each chain at the input.
    pub persistent: Option<&'a Shared>,
    /// Steps of Gibbs sampling, CD-k or PCD-k.
    pub k: usize,
}

impl Rbm {
    /// A machine on `input`, `f32[n, n_visible]`, with weights drawn from `rng` as the tutorial does: uniform within
    /// `4 sqrt(6 / (n_hidden + n_visible))`. Biases are zero.
    #[must_use]
    #[track_caller]
    pub fn new(
        rng: &mut RandomState,
        streams: &RandomStreams,
        input: &Tensor,
        n_visible: usize,
        n_hidden: usize,
    ) -> Self {
        let w = shared("W", Activation::Sigmoid.weights(rng, n_visible, n_hidden));
        let hbias = shared("hbias", Array::zeros(DType::F32, &[n_hidden]));
        Self::sharing(streams, input, &w, &hbias)
    }

    /// A machine on `input` that shares its weights, `f32[n_visible, n_hidden]`, and the biases of its hidden units
    /// with a layer of another model. The biases of the visible units are zero.
    #[must_use]
    #[track_caller]
    pub fn sharing(streams: &RandomStreams, input: &Tensor, w: &Shared, hbias: &Shared) -> Self {
        // Of weights that are no matrix the first product tells.
        let (n_visible, n_hidden) = match extents(w)[..] {
            [n_visible, n_hidden] => (n_visible, n_hidden),
            _ => (0, 0),
        };
        Self {
            input: input.clone(),
            n_visible,
            n_hidden,
            w: w.clone(),
            hbias: hbias.clone(),
            vbias: shared("vbias", Array::zeros(DType::F32, &[n_visible])),
            bit_i_idx: shared("bit_i_idx", Array::scalar(0_i64)),
            streams: streams.clone(),
        }
    }

    /// What is learnt, in the order of the tutorial.
    #[must_use]
    pub fn params(&self) -> [&Shared; 3] {
        [&self.w, &self.hbias, &self.vbias]
    }

    /// The free energy of visible states `v`, `f32[n, n_visible]`: `-log sum_h exp(-E(v, h))`, `f32[n]`.
    #[must_use]
    #[track_caller]
    pub fn free_energy(&self, v: &Tensor) -> Tensor {
        let wx_b = v.dot(&self.w) + &self.hbias;
        let vbias_term = v.dot(&self.vbias);
        let hidden_term = (1.0 + wx_b.exp()).log().sum(1);
        -hidden_term - vbias_term
    }

    /// The probabilities of the hidden units given the visible ones, `f32[n, n_hidden]`.
    #[must_use]
    #[track_caller]
    pub fn propup(&self, visible: &Tensor) -> Tensor {
        (visible.dot(&self.w) + &self.hbias).sigmoid()
    }

    /// The probabilities of the visible units given the hidden ones, `f32[n, n_visible]`.
    #[must_use]
    #[track_caller]
    pub fn propdown(&self, hidden: &Tensor) -> Tensor {
        (hidden.dot(self.w.t()) + &self.vbias).sigmoid()
    }

    /// The hidden units given the visible ones.
    #[must_use]
    #[track_caller]
    pub fn sample_h_given_v(&self, v0_sample: &Tensor) -> Units {
        self.draw(self.propup(v0_sample))
    }

    /// The visible units given the hidden ones.
    #[must_use]
    #[track_caller]
    pub fn sample_v_given_h(&self, h0_sample: &Tensor) -> Units {
        self.draw(self.propdown(h0_sample))
    }

    #[track_caller]
    fn draw(&self, mean: Tensor) -> Units {
        let sample = self.streams.binomial(sizes(&mean), 1, &mean);
        Units { mean, sample }
    }

    /// A step of Gibbs sampling from hidden units: down and up again.
    #[must_use]
    #[track_caller]
    pub fn gibbs_hvh(&self, h0_sample: &Tensor) -> GibbsStep {
        let visible = self.sample_v_given_h(h0_sample);
        let hidden = self.sample_h_given_v(&visible.sample);
        GibbsStep { visible, hidden }
    }

    /// A step of Gibbs sampling from visible units: up and down again.
    #[must_use]
    #[track_caller]
    pub fn gibbs_vhv(&self, v0_sample: &Tensor) -> GibbsStep {
        let hidden = self.sample_h_given_v(v0_sample);
        let visible = self.sample_v_given_h(&hidden.sample);
        GibbsStep { visible, hidden }
    }

    /// A step of CD-k or PCD-k with that learning rate.
    #[track_caller]
    pub fn get_cost_updates(&self, learning_rate: f64, divergence: Divergence<'_>) -> CostUpdates {
        let chain_start = match divergence.persistent {
            Some(chain) => Tensor::from(chain),
            None => self.sample_h_given_v(&self.input).sample,
        };
        let chain = Scan::new().carry(&chain_start).steps(divergence.k).run(|step| {
            let GibbsStep { visible, hidden } = self.gibbs_hvh(&step.carries[0]);
            Next::new().carry(hidden.sample).output(visible.mean).output(visible.sample)
        });
        let last = |output: usize| chain.outputs[output].index(ix![-1]);
        let (nv_mean, chain_end) = (last(0), last(1));
        let cost = self.free_energy(&self.input).mean(All) - self.free_energy(&chain_end).mean(All);
        let gradients = Gradient::of(&cost).consider_constant([&chain_end]).wrt(self.params());
        let parameters = Parameter::list(&["W", "hbias", "vbias"], self.params());
        let (mut updates, _) = Descent::sgd(learning_rate).updates(&parameters, gradients);
        let monitoring_cost = match divergence.persistent {
            Some(persistent) => {
                updates.push((persistent.clone(), chain.last[0].clone()));
                updates.push((self.bit_i_idx.clone(), (&self.bit_i_idx + 1) % self.n_visible as i64));
                self.get_pseudo_likelihood_cost()
            }
            None => self.get_reconstruction_cost(&nv_mean),
        };
        updates.extend(chain.updates);
        CostUpdates { monitoring_cost, cost, chain_end, updates }
    }

    /// The mean log pseudo-likelihood of the input, a scalar, estimated by one unit for all:
    /// `n_visible log p(v_i | v_-i)` of the rounded input, where `i` is [`Rbm::bit_i_idx`], which is to go on by one.
    #[must_use]
    #[track_caller]
    pub fn get_pseudo_likelihood_cost(&self) -> Tensor {
        let xi = self.input.round();
        let bit = Tensor::from(&self.bit_i_idx);
        let flipped = 1.0 - xi.index(ix![.., &bit]);
        let xi_flip = xi.set_index(ix![.., &bit], flipped);
        let difference = self.free_energy(&xi_flip) - self.free_energy(&xi);
        (self.n_visible as f64 * difference.sigmoid().log()).mean(All)
    }

    /// The mean log-probability of the input under the probabilities of its reconstruction, `f32[n, n_visible]`: a
    /// scalar, the negative cross-entropy summed over the units.
    #[must_use]
    #[track_caller]
    pub fn get_reconstruction_cost(&self, nv_mean: &Tensor) -> Tensor {
        let x = &self.input;
        (x * nv_mean.log() + (1.0 - x) * (1.0 - nv_mean).log()).sum(1).mean(All)
    }
}

#[cfg(test)]
mod tests;
