//! Autoencoders with tied weights: what a hidden layer makes of the input, and what the transposed weights make of that.
//!
//! `y = sigmoid(x W + b)` and `z = sigmoid(y W' + b')`. A denoising autoencoder (Vincent, Larochelle, Bengio and
//! Manzagol, 2008) is given the input with some of its elements set to 0 and learns to restore it; a contractive one
//! (Rifai, Vincent, Muller, Glorot and Bengio, 2011) pays for the derivatives of its hidden units. The class holds
//! formulas only, written as in the tutorials: stable logarithms, and the sum of the Jacobian without a tensor of that
//! size, are found by rewriting.

use hypatia::{All, Array, DType, RandomStreams, Shared, Tensor, shared};
use hypatia_datasets::numpy::RandomState;

use crate::mlp::Activation;
use crate::parameter::{extents, sizes};

/// An autoencoder on an input.
#[derive(Clone, Debug)]
pub struct Autoencoder {
    /// What it learns to restore, `f32[n, n_visible]`, within 0 and 1.
    pub input: Tensor,
    /// Weights, `f32[n_visible, n_hidden]`.
    pub w: Shared,
    /// Biases of the hidden units, `f32[n_hidden]`.
    pub bhid: Shared,
    /// Biases of the restored input, `f32[n_visible]`.
    pub bvis: Shared,
}

/// The cost of a contractive autoencoder, and what it is made of.
#[derive(Clone, Debug)]
pub struct ContractiveCost {
    /// What goes downhill, a scalar: the cost of the reconstruction and the weighted norm.
    pub cost: Tensor,
    /// See [`Autoencoder::reconstruction_cost`].
    pub reconstruction: Tensor,
    /// The mean over the minibatch of the squared Frobenius norm of the Jacobian, a scalar.
    pub jacobian: Tensor,
}

impl Autoencoder {
    /// An autoencoder with weights drawn from `rng` as the tutorials do: uniform within
    /// `4 sqrt(6 / (n_hidden + n_visible))`. Biases are zero.
    #[must_use]
    #[track_caller]
    pub fn new(rng: &mut RandomState, input: &Tensor, n_visible: usize, n_hidden: usize) -> Self {
        let w = shared("W", Activation::Sigmoid.weights(rng, n_visible, n_hidden));
        let bhid = shared("bhid", Array::zeros(DType::F32, &[n_hidden]));
        Self::sharing(input, &w, &bhid)
    }

    /// An autoencoder that shares its weights, `f32[n_visible, n_hidden]`, and the biases of its hidden units with a
    /// layer of another model. The biases of the restored input are zero.
    #[must_use]
    #[track_caller]
    pub fn sharing(input: &Tensor, w: &Shared, bhid: &Shared) -> Self {
        // Of weights that are no matrix the first product tells.
        let n_visible = extents(w).first().copied().unwrap_or(0);
        let bvis = shared("bvis", Array::zeros(DType::F32, &[n_visible]));
        Self { input: input.clone(), w: w.clone(), bhid: bhid.clone(), bvis }
    }

    /// What is learnt, in the order of the tutorials.
    #[must_use]
    pub fn params(&self) -> [&Shared; 3] {
        [&self.w, &self.bhid, &self.bvis]
    }

    /// The input with each element kept with probability `1 - corruption_level`, a scalar, and else set to 0.
    #[must_use]
    #[track_caller]
    pub fn corrupted_input(&self, streams: &RandomStreams, corruption_level: impl Into<Tensor>) -> Tensor {
        let kept = streams.binomial(sizes(&self.input), 1, 1.0 - corruption_level.into());
        kept * &self.input
    }

    /// What the hidden units make of an input, `f32[n, n_hidden]`.
    #[must_use]
    #[track_caller]
    pub fn hidden_values(&self, input: &Tensor) -> Tensor {
        (input.dot(&self.w) + &self.bhid).sigmoid()
    }

    /// The input as hidden units restore it, `f32[n, n_visible]`.
    #[must_use]
    #[track_caller]
    pub fn reconstructed_input(&self, hidden: &Tensor) -> Tensor {
        (hidden.dot(self.w.t()) + &self.bvis).sigmoid()
    }

    /// The mean over the minibatch of the cross-entropy of the input and what hidden units restore, a scalar.
    #[must_use]
    #[track_caller]
    pub fn reconstruction_cost(&self, hidden: &Tensor) -> Tensor {
        let (x, z) = (&self.input, self.reconstructed_input(hidden));
        let cross_entropy = -(x * z.log() + (1.0 - x) * (1.0 - &z).log()).sum(1);
        cross_entropy.mean(All)
    }

    /// The cost of a denoising autoencoder, a scalar: that of restoring the input from a corrupted one.
    #[must_use]
    #[track_caller]
    pub fn denoising_cost(&self, streams: &RandomStreams, corruption_level: impl Into<Tensor>) -> Tensor {
        let corrupted = self.corrupted_input(streams, corruption_level);
        self.reconstruction_cost(&self.hidden_values(&corrupted))
    }

    /// The derivatives of the hidden units with respect to the input, `f32[n, n_visible, n_hidden]`.
    #[must_use]
    #[track_caller]
    pub fn jacobian(&self, hidden: &Tensor) -> Tensor {
        let slopes = (hidden * (1.0 - hidden)).dimshuffle(&[Some(0), None, Some(1)]);
        slopes * self.w.dimshuffle(&[None, Some(0), Some(1)])
    }

    /// The cost of a contractive autoencoder, with the squared norm of its Jacobian weighted by `contraction_level`.
    #[must_use]
    #[track_caller]
    pub fn contractive_cost(&self, contraction_level: f64) -> ContractiveCost {
        let hidden = self.hidden_values(&self.input);
        let reconstruction = self.reconstruction_cost(&hidden);
        let jacobian = self.jacobian(&hidden).sqr().sum([1, 2]).mean(All);
        let cost = &reconstruction + &jacobian * contraction_level;
        ContractiveCost { cost, reconstruction, jacobian }
    }
}

#[cfg(test)]
mod tests;
