//! The stacked denoising autoencoder of the Deep Learning Tutorials: a sigmoid perceptron whose layers are pre-trained,
//! one after the other, as denoising autoencoders (Vincent, Larochelle, Lajoie, Bengio and Manzagol, 2010).
//!
//! The model has two faces that share their weights. As a list of autoencoders each learns to restore what the layers
//! below make of the data; as a perceptron the whole is fine-tuned as a classifier.

use hypatia::{RandomStreams, Shared, Tensor};
use hypatia_datasets::numpy::RandomState;

use crate::autoencoder::Autoencoder;
use crate::logistic_regression::LogisticRegression;
use crate::mlp::{Activation, HiddenLayer};

/// A perceptron of sigmoid layers, an autoencoder for each of them, and a classifier on top.
#[derive(Clone, Debug)]
pub struct Sda {
    /// The layers of the perceptron, from the bottom.
    pub sigmoid_layers: Vec<HiddenLayer>,
    /// The autoencoder of each layer, which shares its weights and hidden biases. Its input is that of the layer.
    pub da_layers: Vec<Autoencoder>,
    /// The classifier on the output of the last layer.
    pub log_layer: LogisticRegression,
}

impl Sda {
    /// The model on `x`, `f32[n, n_ins]`, for `n_outs` classes, with weights drawn from `rng` layer by layer.
    #[must_use]
    #[track_caller]
    pub fn new(
        rng: &mut RandomState,
        x: &Tensor,
        n_ins: usize,
        hidden_layers_sizes: &[usize],
        n_outs: usize,
    ) -> Self {
        let (mut sigmoid_layers, mut da_layers) = (Vec::<HiddenLayer>::new(), Vec::new());
        let (mut input, mut n_in) = (x.clone(), n_ins);
        for &n_out in hidden_layers_sizes {
            let layer = HiddenLayer::new(rng, &input, n_in, n_out, Activation::Sigmoid);
            da_layers.push(Autoencoder::sharing(&input, &layer.w, &layer.b));
            (input, n_in) = (layer.output.clone(), n_out);
            sigmoid_layers.push(layer);
        }
        let log_layer = LogisticRegression::new(&input, n_in, n_outs);
        Self { sigmoid_layers, da_layers, log_layer }
    }

    /// What fine-tuning learns: weights and biases of the layers from the bottom, then those of the classifier.
    #[must_use]
    pub fn params(&self) -> Vec<&Shared> {
        self.sigmoid_layers.iter().flat_map(HiddenLayer::params).chain(self.log_layer.params()).collect()
    }

    /// The cost of each autoencoder, from the bottom, with that share of its input set to 0, a scalar.
    #[must_use]
    #[track_caller]
    pub fn pretraining_costs(&self, streams: &RandomStreams, corruption_level: &Tensor) -> Vec<Tensor> {
        self.da_layers.iter().map(|da| da.denoising_cost(streams, corruption_level)).collect()
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
