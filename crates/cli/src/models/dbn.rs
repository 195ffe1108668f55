//! `dbn`: the tutorial's `test_DBN`. The layers are pre-trained one after the other, then the whole is fine-tuned.

use clap::Args;
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::dbn::Dbn;
use hypatia_models::early_stopping::Patience;
use hypatia_models::parameter::Parameter;
use serde_json::json;

use super::classifier::{Classifier, Sets, minibatch_inputs};
use super::pretraining::{Layer, Pretraining, layer_parameters};
use super::rbm::RECONSTRUCTION;
use super::{STREAMS, next_streams};
use crate::error::TrainError;
use crate::model::{
    Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions, parse_learning_rate,
};
use crate::training::{Measure, Training};

pub(super) const MODEL: Model = Model {
    name: "dbn",
    about: "Deep belief network: 784-1000-1000-1000-10, layers pre-trained by contrastive divergence, then fine-tuned",
    defaults: Defaults { epochs: 1000, batch_size: 10, learning_rate: 0.1, seed: 123 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Numbers of hidden units, from the bottom
    #[arg(long, value_name = "N,N,..", default_value = "1000,1000,1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden_layers: Vec<u32>,
    /// Epochs of pre-training for each layer
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pretraining_epochs: u64,
    /// Step of the gradient descent while pre-training
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = parse_learning_rate, allow_negative_numbers = true)]
    pretraining_learning_rate: f64,
    /// Steps of Gibbs sampling for each minibatch while pre-training
    #[arg(short = 'k', long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    gibbs_steps: u32,
    /// Pass the data up once for each layer and keep the result: faster, and 4 bytes more memory for each image and unit
    #[arg(long)]
    keep_activations: bool,
}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let sizes: Vec<usize> = self.hidden_layers.iter().map(|size| *size as usize).collect();
        let dbn = Dbn::new(&mut rng, &streams, &x, IMAGE_PIXELS, &sizes, CLASSES);
        let rate = self.pretraining_learning_rate;
        let learning = dbn.pretraining_updates(rate, self.gibbs_steps as usize);
        let layers = dbn.sigmoid_layers.iter().zip(&dbn.rbm_layers).zip(learning);
        let layers = layers.map(|((layer, rbm), learning)| Layer {
            input: rbm.input.clone(),
            output: layer.output.clone(),
            units: rbm.n_hidden,
            monitor: learning.monitoring_cost,
            updates: learning.updates,
            choices: Vec::new(),
        });
        let pretraining = Pretraining {
            layers: layers.collect(),
            epochs: self.pretraining_epochs,
            keeps_activations: self.keep_activations,
        };
        // Fine-tuning does not know the biases of the visible units.
        let biases = (1..).zip(&dbn.rbm_layers);
        let biases = biases.map(|(number, rbm)| Parameter::new(format!("layer_{number}.vbias"), &rbm.vbias));
        let pretraining = pretraining
            .stage(settings, &sets.train, Measure::monitor(RECONSTRUCTION), rate, biases.collect())?
            .drawing_from(STREAMS, &streams);
        let classifier = Classifier {
            cost: dbn.finetune_cost(&y),
            misclassified: dbn.log_layer.misclassified(&y),
            parameters: layer_parameters(&dbn.sigmoid_layers, &dbn.log_layer),
            x,
            y,
            patience: Patience::new(4 * sets.train.batches),
        };
        let fine_tuning = classifier.stage(settings, &sets)?.as_phase("fine-tuning");
        let own = vec![
            ("hidden_layers", json!(self.hidden_layers)),
            ("pretraining_epochs", json!(self.pretraining_epochs)),
            ("pretraining_learning_rate", json!(self.pretraining_learning_rate)),
            ("gibbs_steps", json!(self.gibbs_steps)),
            ("keep_activations", json!(self.keep_activations)),
        ];
        Ok(Training::new(Setting::list(sets.settings, settings, own), fine_tuning).after(pretraining))
    }
}
