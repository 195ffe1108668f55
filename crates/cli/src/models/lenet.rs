//! `lenet`: the tutorial's `evaluate_lenet5`.

use clap::Args;
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_SIDE};
use hypatia_models::early_stopping::Patience;
use hypatia_models::lenet::LeNet;
use hypatia_models::parameter::Parameter;
use serde_json::json;

use super::classifier::{Classifier, Sets, minibatch_inputs};
use crate::error::TrainError;
use crate::model::{Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions};
use crate::training::Training;

pub(super) const MODEL: Model = Model {
    name: "lenet",
    about: "LeNet: 20 and 50 filters of 5x5 with max-pooling and tanh, 500 hidden units, early stopping",
    defaults: Defaults { epochs: 200, batch_size: 500, learning_rate: 0.1, seed: 23_455 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Number of filters in each convolutional layer
    #[arg(long, value_name = "N", num_args = 2, default_values_t = [20, 50], value_parser = clap::value_parser!(u32).range(1..=10_000))]
    filters: Vec<u32>,
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let mut rng = RandomState::new(settings.seed);
        let filters = [self.filters[0] as usize, self.filters[1] as usize];
        let model = LeNet::new(&mut rng, &x, IMAGE_SIDE, filters, self.hidden as usize, CLASSES);
        let names =
            ["conv0.W", "conv0.b", "conv1.W", "conv1.b", "hidden.W", "hidden.b", "output.W", "output.b"];
        let classifier = Classifier {
            cost: model.negative_log_likelihood(&y),
            misclassified: model.layer3.misclassified(&y),
            parameters: Parameter::list(&names, model.params()),
            x,
            y,
            patience: Patience::new(10_000),
        };
        let stage = classifier.stage(settings, &sets)?;
        let own = vec![("filters", json!(self.filters)), ("hidden", json!(self.hidden))];
        Ok(Training::new(Setting::list(sets.settings, settings, own), stage))
    }
}
