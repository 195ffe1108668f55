//! `sda`: the tutorial's `test_SdA`. The layers are pre-trained one after the other, then the whole is fine-tuned.

use clap::Args;
use hypatia::{Array, grad, scalar};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::descent::Descent;
use hypatia_models::early_stopping::Patience;
use hypatia_models::parameter::Parameter;
use hypatia_models::sda::Sda;
use serde_json::json;

use super::autoencoders::{PARAMETERS, parse_corruption};
use super::classifier::{Classifier, Sets, minibatch_inputs};
use super::pretraining::{Layer, Pretraining, layer_parameters};
use super::{STREAMS, next_streams};
use crate::error::TrainError;
use crate::model::{
    Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions, parse_learning_rate,
};
use crate::training::{Measure, Training};

pub(super) const MODEL: Model = Model {
    name: "sda",
    about: "Stacked denoising autoencoder: 784-1000-1000-1000-10, layers pre-trained to restore their input, then fine-tuned",
    defaults: Defaults { epochs: 1000, batch_size: 1, learning_rate: 0.1, seed: 89677 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Numbers of hidden units, from the bottom
    #[arg(long, value_name = "N,N,..", default_value = "1000,1000,1000", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden_layers: Vec<u32>,
    /// Shares of the inputs that are set to 0 while pre-training, one for each layer
    #[arg(long, value_name = "X,X,..", default_value = "0.1,0.2,0.3", value_delimiter = ',', value_parser = parse_corruption)]
    corruption: Vec<f64>,
    /// Epochs of pre-training for each layer
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    pretraining_epochs: u64,
    /// Step of the gradient descent while pre-training
    #[arg(long, value_name = "X", default_value_t = 0.001, value_parser = parse_learning_rate, allow_negative_numbers = true)]
    pretraining_learning_rate: f64,
    /// Pass the data up once for each layer and keep the result: faster, and 4 bytes more memory for each image and unit
    #[arg(long)]
    keep_activations: bool,
}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        if self.corruption.len() != self.hidden_layers.len() {
            return Err(TrainError::Usage(format!(
                "--corruption: expected {}, one for each layer of --hidden-layers, found {}",
                self.hidden_layers.len(),
                self.corruption.len()
            )));
        }
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng)?;
        let sizes: Vec<usize> = self.hidden_layers.iter().map(|size| *size as usize).collect();
        let sda = Sda::new(&mut rng, &x, IMAGE_PIXELS, &sizes, CLASSES);
        let (corruption, rate) = (scalar::<f32>("corruption"), scalar::<f32>("lr"));
        let costs = sda.pretraining_costs(&streams, &corruption);
        let layers = costs.into_iter().enumerate().map(|(number, cost)| {
            let (layer, da) = (&sda.sigmoid_layers[number], &sda.da_layers[number]);
            let parameters = Parameter::list(&PARAMETERS, da.params());
            let (updates, _) = Descent::sgd(&rate).updates(&parameters, grad(&cost, da.params()));
            let (level, step) = (self.corruption[number] as f32, self.pretraining_learning_rate as f32);
            Layer {
                input: da.input.clone(),
                output: layer.output.clone(),
                units: sizes[number],
                monitor: cost,
                updates,
                choices: vec![
                    (corruption.clone(), Array::scalar(level)),
                    (rate.clone(), Array::scalar(step)),
                ],
            }
        });
        let pretraining = Pretraining {
            layers: layers.collect(),
            epochs: self.pretraining_epochs,
            keeps_activations: self.keep_activations,
        };
        // Fine-tuning does not know the biases of what is restored.
        let biases = (1..).zip(&sda.da_layers);
        let biases = biases.map(|(number, da)| Parameter::new(format!("layer_{number}.bvis"), &da.bvis));
        let measure = Measure::monitor("reconstruction_cost");
        let pretraining = pretraining
            .stage(settings, &sets.train, measure, self.pretraining_learning_rate, biases.collect())?
            .drawing_from(STREAMS, &streams);
        let classifier = Classifier {
            cost: sda.finetune_cost(&y),
            misclassified: sda.log_layer.misclassified(&y),
            parameters: layer_parameters(&sda.sigmoid_layers, &sda.log_layer),
            x,
            y,
            patience: Patience::new(10 * sets.train.batches),
        };
        let fine_tuning = classifier.stage(settings, &sets)?.as_phase("fine-tuning");
        let own = vec![
            ("hidden_layers", json!(self.hidden_layers)),
            ("corruption", json!(self.corruption)),
            ("pretraining_epochs", json!(self.pretraining_epochs)),
            ("pretraining_learning_rate", json!(self.pretraining_learning_rate)),
            ("keep_activations", json!(self.keep_activations)),
        ];
        Ok(Training::new(Setting::list(sets.settings, settings, own), fine_tuning).after(pretraining))
    }
}
