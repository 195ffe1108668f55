//! The deep belief network of the Deep Learning Tutorials: a sigmoid perceptron whose layers are pre-trained, one after
//! the other, as restricted Boltzmann machines (Hinton, Osindero and Teh, 2006).
//!
//! Each machine shares its weights and hidden biases with a layer and learns from what the layers below make of the
//! data; afterwards the whole perceptron is fine-tuned as a classifier.

use hypatia::{RandomStreams, Shared, Tensor};
use hypatia_datasets::numpy::RandomState;

use crate::logistic_regression::LogisticRegression;
use crate::mlp::{Activation, HiddenLayer};
use crate::rbm::{CostUpdates, Divergence, Rbm};

/// A perceptron of sigmoid layers, a restricted Boltzmann machine for each of them, and a classifier on top.
#[derive(Clone, Debug)]
pub struct Dbn {
    /// The layers of the perceptron, from the bottom.
    pub sigmoid_layers: Vec<HiddenLayer>,
    /// The machine of each layer, which shares its weights and hidden biases. Its input is that of the layer.
    pub rbm_layers: Vec<Rbm>,
    /// The classifier on the output of the last layer.
    pub log_layer: LogisticRegression,
}

impl Dbn {
    /// The model on `x`, `f32[n, n_ins]`, for `n_outs` classes, with weights drawn from `rng` layer by layer.
    #[must_use]
    #[track_caller]
    pub fn new(
        rng: &mut RandomState,
        streams: &RandomStreams,
        x: &Tensor,
        n_ins: usize,
        hidden_layers_sizes: &[usize],
        n_outs: usize,
    ) -> Self {
        let (mut sigmoid_layers, mut rbm_layers) = (Vec::<HiddenLayer>::new(), Vec::new());
        let (mut input, mut n_in) = (x.clone(), n_ins);
        for &n_out in hidden_layers_sizes {
            let layer = HiddenLayer::new(rng, &input, n_in, n_out, Activation::Sigmoid);
            rbm_layers.push(Rbm::sharing(streams, &input, &layer.w, &layer.b));
            (input, n_in) = (layer.output.clone(), n_out);
            sigmoid_layers.push(layer);
        }
        let log_layer = LogisticRegression::new(&input, n_in, n_outs);
        Self { sigmoid_layers, rbm_layers, log_layer }
    }

    /// What fine-tuning learns: weights and biases of the layers from the bottom, then those of the classifier.
    #[must_use]
    pub fn params(&self) -> Vec<&Shared> {
        self.sigmoid_layers.iter().flat_map(HiddenLayer::params).chain(self.log_layer.params()).collect()
    }

    /// A step of CD-k of each machine, from the bottom.
    #[must_use]
    #[track_caller]
    pub fn pretraining_updates(&self, learning_rate: f64, k: usize) -> Vec<CostUpdates> {
        let divergence = Divergence { persistent: None, k };
        self.rbm_layers.iter().map(|rbm| rbm.get_cost_updates(learning_rate, divergence)).collect()
    }

    /// See [`LogisticRegression::negative_log_likelihood`].
    #[must_use]
    #[track_caller]
    pub fn finetune_cost(&self, y: &Tensor) -> Tensor {
        self.log_layer.negative_log_likelihood(y)
    }

    /// See [`LogisticRegression::errors`].
    #[must_use]
    #[track_caller]
    pub fn errors(&self, y: &Tensor) -> Tensor {
        self.log_layer.errors(y)
    }
}
