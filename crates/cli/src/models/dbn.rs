//! `dbn`: the tutorial's `test_DBN`. The layers are pre-trained one after the other, then the whole is fine-tuned.

use clap::Args;
use hypatia::{Array, Function, RandomStreams, Tensor, scalar, shared};
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS};
use hypatia_models::dbn::Dbn;
use hypatia_models::early_stopping::Patience;
use hypatia_models::parameter::Parameter;
use hypatia_models::rbm::{CostUpdates, Rbm};
use serde_json::json;

use super::classifier::{Classifier, Sets, minibatch_inputs};
use super::rbm::RECONSTRUCTION;
use super::{STREAMS, next_streams};
use crate::error::TrainError;
use crate::log::{Epoch, Phase};
use crate::model::{
    Defaults, Examples, Model, Setting, Settings, Trainer, TrainingOptions, parse_learning_rate,
};
use crate::resident::{Resident, borrowed, index_of, rows_of};
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage, Training};

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
        let pretraining = self.pretraining(settings, &dbn, &streams, &sets.train)?;
        let mut parameters = Vec::new();
        for (number, layer) in (1..).zip(&dbn.sigmoid_layers) {
            let names = [format!("layer_{number}.W"), format!("layer_{number}.b")];
            parameters.extend(Parameter::list(&[&names[0], &names[1]], layer.params()));
        }
        parameters.extend(Parameter::list(&["output.W", "output.b"], dbn.log_layer.params()));
        let classifier = Classifier {
            cost: dbn.finetune_cost(&y),
            misclassified: dbn.log_layer.misclassified(&y),
            parameters,
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

impl Options {
    /// The stage before fine-tuning.
    fn pretraining(
        &self,
        settings: &Settings,
        dbn: &Dbn,
        streams: &RandomStreams,
        images: &Resident,
    ) -> Result<Stage, TrainError> {
        let rate = self.pretraining_learning_rate;
        let learning = dbn.pretraining_updates(rate, self.gibbs_steps as usize);
        let machines = dbn.rbm_layers.iter().zip(&dbn.sigmoid_layers).zip(learning);
        let layers = machines.map(|((rbm, layer), learning)| Layer {
            rbm: rbm.clone(),
            output: layer.output.clone(),
            learning,
            train: None,
        });
        let mut learner = Pretraining {
            layers: layers.collect(),
            images: images.clone(),
            epochs: self.pretraining_epochs,
            settings: settings.clone(),
        };
        let at_once = if self.keep_activations { 1 } else { learner.layers.len() };
        for number in 0..at_once {
            let index = scalar::<i64>("index");
            let (input, rows) = (&learner.layers[0].rbm.input, images.minibatch(&index).0);
            let train = learner.compile(number, &index, input, &rows)?;
            learner.layers[number].train = Some(train);
        }
        // Fine-tuning does not know the biases of the visible units.
        let biases = (1..).zip(&dbn.rbm_layers);
        let biases = biases.map(|(number, rbm)| Parameter::new(format!("layer_{number}.vbias"), &rbm.vbias));
        let epochs = self.pretraining_epochs * dbn.rbm_layers.len() as u64;
        Ok(Stage::new(learner, Measure::monitor(RECONSTRUCTION), epochs, rate, biases.collect())
            .with_position_name("pretraining")
            .drawing_from(STREAMS, streams))
    }
}

/// A machine being pre-trained.
struct Layer {
    rbm: Rbm,
    /// What this layer makes of its input.
    output: Tensor,
    learning: CostUpdates,
    /// Compiled when its turn comes, if it learns from kept activations.
    train: Option<Function>,
}

/// The layers being pre-trained.
struct Pretraining {
    /// From the bottom.
    layers: Vec<Layer>,
    images: Resident,
    /// Of each layer.
    epochs: u64,
    settings: Settings,
}

impl Pretraining {
    /// The number of the layer, from 0, that learns in an epoch, from 0.
    fn layer_of(&self, epoch: u64) -> usize {
        (epoch / self.epochs) as usize
    }

    /// The function that pre-trains a layer on minibatch `index`, whose `rows` stand for `input`.
    fn compile(
        &self,
        number: usize,
        index: &Tensor,
        input: &Tensor,
        rows: &Tensor,
    ) -> Result<Function, TrainError> {
        let learning = &self.layers[number].learning;
        let builder = self.settings.builder().inputs(&[index]).outputs(&[&learning.monitoring_cost]);
        Ok(builder.updates(&borrowed(&learning.updates)).given(input, rows).compile()?)
    }

    /// Passes the data up to a layer above the first whose turn has come; the function by which it learns from the result.
    fn compile_on_activations(&mut self, number: usize) -> Result<Function, TrainError> {
        // The function of the layer below holds what that layer learnt from.
        self.layers.iter_mut().for_each(|layer| layer.train = None);
        let below = &self.layers[number - 1];
        let index = scalar::<i64>("index");
        let mut pass_up = self
            .settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&below.output])
            .given(&self.layers[0].rbm.input, self.images.minibatch(&index).0)
            .compile()?;
        let (units, size) = (below.rbm.n_hidden, self.images.batch_size());
        let count = self.images.batches as usize * size;
        let mut activations: Vec<f32> = Vec::with_capacity(count * units);
        for batch in 0..self.images.batches {
            activations.extend(floats(pass_up.call(&[&index_of(batch)])?.array(0))?);
        }
        let kept = shared(&format!("activations_{number}"), Array::new(&[count, units], &activations));
        self.compile(number, &index, &below.output, &rows_of(&kept, &index, size))
    }
}

impl Learner for Pretraining {
    fn batches(&self) -> u64 {
        self.images.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let number = self.layer_of(at.epochs);
        let train = match self.layers[number].train.take() {
            Some(train) => train,
            None => self.compile_on_activations(number)?,
        };
        let train = self.layers[number].train.insert(train);
        Ok(train.call(&[&index_of(at.batches)])?.scalar(0)?)
    }

    fn report(&mut self, epoch: u64, _mean: f64, results: &mut Epoch) -> Result<(), TrainError> {
        let number = self.layer_of(epoch - 1);
        results.phase = Some(Phase {
            name: format!("layer {}", number + 1),
            epoch: epoch - number as u64 * self.epochs,
            epochs: self.epochs,
        });
        Ok(())
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        const NAMES: [&str; 5] = ["pretrain_1", "pretrain_2", "pretrain_3", "pretrain_4", "pretrain_5"];
        let layers = NAMES.into_iter().zip(&self.layers);
        layers.filter_map(|(name, layer)| Some((name, layer.train.as_ref()?))).collect()
    }
}
