//! `mlp`: the tutorial's `test_mlp`.

use clap::Args;
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::early_stopping::Patience;
use hypatia_models::mlp::Mlp;
use hypatia_models::parameter::Parameter;
use serde_json::json;

use super::classifier::{Classifier, Sets, minibatch_inputs};
use crate::error::TrainError;
use crate::model::{Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions, parse_penalty};
use crate::training::Training;

pub(super) const MODEL: Model = Model {
    name: "mlp",
    about: "Multilayer perceptron: 784-500-10 with tanh, weight decay and early stopping",
    defaults: Defaults { epochs: 1000, batch_size: 20, learning_rate: 0.01, seed: 1234 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {
    /// Number of hidden units
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    hidden: u32,
    /// Weight of the sum of absolute weights in the cost
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = parse_penalty)]
    l1: f64,
    /// Weight of the sum of squared weights in the cost
    #[arg(long, value_name = "X", default_value_t = 1e-4, value_parser = parse_penalty)]
    l2: f64,
}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let mut rng = RandomState::new(settings.seed);
        let model = Mlp::new(&mut rng, &x, IMAGE_PIXELS, self.hidden as usize, CLASSES);
        let names = ["hidden.W", "hidden.b", "output.W", "output.b"];
        let classifier = Classifier {
            cost: model.regularised_cost(&y, self.l1, self.l2),
            misclassified: model.log_regression_layer.misclassified(&y),
            parameters: Parameter::list(&names, model.params()),
            x,
            y,
            patience: Patience::new(10_000),
        };
        let stage = classifier.stage(settings, &sets)?;
        let own = vec![("hidden", json!(self.hidden)), ("l1", json!(self.l1)), ("l2", json!(self.l2))];
        Ok(Training::new(Setting::list(sets.settings, settings, own), stage))
    }
}
