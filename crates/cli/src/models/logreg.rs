//! `logreg`: the tutorial's `sgd_optimization_mnist`.

use clap::Args;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::early_stopping::Patience;
use hypatia_models::logistic_regression::LogisticRegression;
use hypatia_models::parameter::Parameter;

use super::classifier::{Classifier, Sets, minibatch_inputs};
use crate::error::TrainError;
use crate::model::{Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions};
use crate::training::Training;

pub(super) const MODEL: Model = Model {
    name: "logreg",
    about: "Logistic regression: softmax(x W + b), minibatch gradient descent with early stopping",
    defaults: Defaults { epochs: 1000, batch_size: 600, learning_rate: 0.13, seed: 1234 },
    examples: Examples::DIGITS,
    trainer: Trainer::of::<Options>(),
    sampler: None,
};

#[derive(Args)]
struct Options {}

impl TrainingOptions for Options {
    fn prepare(self, settings: &Settings) -> Result<Training, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let model = LogisticRegression::new(&x, IMAGE_PIXELS, CLASSES);
        let classifier = Classifier {
            cost: model.negative_log_likelihood(&y),
            misclassified: model.misclassified(&y),
            parameters: Parameter::list(&["W", "b"], model.params()),
            x,
            y,
            patience: Patience::new(5_000),
        };
        let stage = classifier.stage(settings, &sets)?;
        Ok(Training::new(Setting::list(sets.settings, settings, Vec::new()), stage))
    }
}
