//! The deep belief network of the Deep Learning Tutorials: a sigmoid perceptron whose layers are pre-trained, one after
//! the other, as restricted Boltzmann machines (Hinton, Osindero and Teh, 2006).
//!
//! Each machine shares its weights and hidden biases with a layer and learns from what the layers below make of the
//! data; afterwards the whole perceptron is fine-tuned as a classifier. [`Dbn`] holds formulas, the rest is the
//! training, in phases that can be interrupted anywhere.

use std::path::{Path, PathBuf};

use clap::{ArgMatches, Args, Command, FromArgMatches};
use hypatia::{Array, Function, RandomStreams, Shared, Tensor, scalar, shared};
use serde_json::json;

use crate::checkpoint::Checkpoint;
use crate::classifier::{Classifier, ClassifierTraining, Sets, minibatch_inputs};
use crate::data::{CLASSES, IMAGE_PIXELS};
use crate::early_stopping::Patience;
use crate::log::{Epoch, Phase};
use crate::logistic_regression::LogisticRegression;
use crate::mlp::{Activation, HiddenLayer};
use crate::model::{
    Defaults, Model, Position, Setting, Settings, Step, TrainError, Training, parse_learning_rate,
};
use crate::monitor::Monitor;
use crate::random_state::RandomState;
use crate::rbm::{CostUpdates, Divergence, RECONSTRUCTION, Rbm, STREAMS, next_streams};
use crate::resident::{Resident, rows_of, set_index};
use crate::state::{Parameter, restore_streams, save_streams};

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

/// Options of `dbn` alone.
#[derive(Args, Clone, Debug)]
struct DbnOptions {
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

/// `dbn`: the tutorial's `test_DBN`.
pub(crate) struct BeliefNetwork;

impl Model for BeliefNetwork {
    fn name(&self) -> &'static str {
        "dbn"
    }

    fn about(&self) -> &'static str {
        "Deep belief network: 784-1000-1000-1000-10, layers pre-trained by contrastive divergence, then fine-tuned"
    }

    fn defaults(&self) -> Defaults {
        Defaults { epochs: 1000, batch_size: 10, learning_rate: 0.1, seed: 123 }
    }

    fn add_options(&self, command: Command) -> Command {
        DbnOptions::augment_args(command)
    }

    fn prepare(&self, settings: &Settings, options: &ArgMatches) -> Result<Box<dyn Training>, TrainError> {
        let options =
            DbnOptions::from_arg_matches(options).map_err(|error| TrainError::Usage(error.to_string()))?;
        Ok(Box::new(DbnTraining::new(settings, &options)?))
    }
}

/// A machine being pre-trained.
struct Layer {
    name: String,
    rbm: Rbm,
    /// What this layer makes of its input.
    output: Tensor,
    learning: CostUpdates,
    /// Compiled when its turn comes, if it learns from kept activations.
    train: Option<Function>,
}

/// A network being trained.
struct DbnTraining {
    layers: Vec<Layer>,
    train_set: Resident,
    /// Biases of the visible units of each machine, which fine-tuning does not know.
    visible_biases: Vec<Parameter>,
    streams: RandomStreams,
    /// Within the pre-training of all layers.
    position: Position,
    monitor: Monitor,
    index: Array,
    fine_tuning: ClassifierTraining,
    options: DbnOptions,
    settings: Settings,
}

impl DbnTraining {
    fn new(settings: &Settings, options: &DbnOptions) -> Result<Self, TrainError> {
        let sets = Sets::new(settings)?;
        let (x, y) = minibatch_inputs();
        let mut rng = RandomState::new(settings.seed);
        let streams = next_streams(&mut rng);
        let sizes: Vec<usize> = options.hidden_layers.iter().map(|size| *size as usize).collect();
        let dbn = Dbn::new(&mut rng, &streams, &x, IMAGE_PIXELS, &sizes, CLASSES);
        let learning =
            dbn.pretraining_updates(options.pretraining_learning_rate, options.gibbs_steps as usize);
        let mut layers: Vec<Layer> = Vec::new();
        for ((rbm, layer), learning) in dbn.rbm_layers.iter().zip(&dbn.sigmoid_layers).zip(learning) {
            let name = format!("layer {}", layers.len() + 1);
            let (rbm, output) = (rbm.clone(), layer.output.clone());
            layers.push(Layer { name, rbm, output, learning, train: None });
        }
        let visible_biases = (1..)
            .zip(&layers)
            .map(|(number, layer)| Parameter::new(format!("layer_{number}.vbias"), &layer.rbm.vbias))
            .collect();
        let numbered = (1..).zip(&dbn.sigmoid_layers).flat_map(|(number, layer)| {
            let [w, b] = layer.params();
            [(format!("layer_{number}.W"), w), (format!("layer_{number}.b"), b)]
        });
        let [w, b] = dbn.log_layer.params();
        let output = [("output.W".to_owned(), w), ("output.b".to_owned(), b)];
        let classifier = Classifier {
            cost: dbn.finetune_cost(&y),
            misclassified: dbn.log_layer.misclassified(&y),
            parameters: numbered.chain(output).map(|(name, shared)| Parameter::new(name, shared)).collect(),
            x: x.clone(),
            y,
            patience: Patience::new(4 * sets.train.batches),
            options: vec![
                ("hidden_layers", json!(options.hidden_layers)),
                ("pretraining_epochs", json!(options.pretraining_epochs)),
                ("pretraining_learning_rate", json!(options.pretraining_learning_rate)),
                ("gibbs_steps", json!(options.gibbs_steps)),
                ("keep_activations", json!(options.keep_activations)),
            ],
        };
        let mut training = Self {
            layers,
            visible_biases,
            streams,
            position: Position::default(),
            monitor: Monitor::default(),
            index: Array::scalar(0_i64),
            fine_tuning: ClassifierTraining::on_sets(classifier, settings, &sets)?,
            train_set: sets.train,
            options: options.clone(),
            settings: settings.clone(),
        };
        let at_once = if options.keep_activations { 1 } else { training.layers.len() };
        let index = scalar::<i64>("index");
        let images = training.train_set.minibatch(&index).0;
        for number in 0..at_once {
            training.compile(number, &index, &x, &images)?;
        }
        Ok(training)
    }

    /// Makes the function that pre-trains a layer on minibatch `index`, whose `rows` stand for `input`.
    fn compile(
        &mut self,
        number: usize,
        index: &Tensor,
        input: &Tensor,
        rows: &Tensor,
    ) -> Result<(), TrainError> {
        let Some(layer) = self.layers.get_mut(number) else { return Ok(()) };
        let updates: Vec<_> =
            layer.learning.updates.iter().map(|(shared, new)| (shared, new.clone())).collect();
        let function = self
            .settings
            .builder()
            .inputs(&[index])
            .outputs(&[&layer.learning.monitoring_cost])
            .updates(&updates)
            .given(input, rows)
            .compile()?;
        layer.train = Some(function);
        Ok(())
    }

    /// Passes the data up to a layer whose turn has come and lets it learn from the result.
    fn compile_on_activations(&mut self, number: usize) -> Result<(), TrainError> {
        let (Some(bottom), Some(below)) = (self.layers.first(), self.layers.get(number.wrapping_sub(1)))
        else {
            return Ok(());
        };
        let index = scalar::<i64>("index");
        let mut pass_up = self
            .settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&below.output])
            .given(&bottom.rbm.input, self.train_set.minibatch(&index).0)
            .compile()?;
        let (units, batches) = (below.rbm.n_hidden, self.train_set.batches);
        let count = batches as usize * self.train_set.batch_size();
        let mut activations: Vec<f32> = Vec::with_capacity(count * units);
        for batch in 0..batches {
            set_index(&mut self.index, batch);
            let outputs = pass_up.call(&[&self.index])?;
            activations.extend(outputs.array(0).as_slice::<f32>().unwrap_or_default());
        }
        let kept = shared(&format!("activations_{number}"), Array::new(&[count, units], &activations));
        let input = below.output.clone();
        // The function of the layer below holds what that layer learnt from.
        for layer in &mut self.layers {
            layer.train = None;
        }
        self.compile(number, &index, &input, &rows_of(&kept, &index, self.train_set.batch_size()))
    }

    /// Epochs of pre-training in all.
    fn pretraining_epochs(&self) -> u64 {
        self.options.pretraining_epochs * self.layers.len() as u64
    }

    fn is_pretrained(&self) -> bool {
        self.position.epochs >= self.pretraining_epochs()
    }

    fn pretrain(&mut self) -> Result<Step, TrainError> {
        let number = (self.position.epochs / self.options.pretraining_epochs.max(1)) as usize;
        if self.layers.get(number).is_some_and(|layer| layer.train.is_none()) {
            self.compile_on_activations(number)?;
        }
        set_index(&mut self.index, self.position.batches);
        let Some(Layer { name, train: Some(train), .. }) = self.layers.get_mut(number) else {
            return Ok(Step::Batch);
        };
        let monitor = train.call(&[&self.index])?.scalar(0)?;
        self.monitor.add(monitor, self.position, self.options.pretraining_learning_rate)?;
        self.position.batches += 1;
        if self.position.batches < self.train_set.batches {
            return Ok(Step::Batch);
        }
        let epochs = self.options.pretraining_epochs;
        let epoch = self.position.epochs % epochs + 1;
        let phase = Some(Phase { name: name.clone(), epoch, epochs });
        self.position = Position { epochs: self.position.epochs + 1, batches: 0 };
        let mean = self.monitor.finish_epoch(self.train_set.batches);
        Ok(Step::Epoch(Epoch {
            epoch: self.position.epochs,
            phase,
            measures: [(RECONSTRUCTION.to_owned(), mean)].into(),
            ..Epoch::default()
        }))
    }

    /// The same step, counted from the beginning of the pre-training.
    fn counted_on(&self, step: Step) -> Step {
        match step {
            Step::Epoch(epoch) => {
                let phase = Phase {
                    name: "fine-tuning".to_owned(),
                    epoch: epoch.epoch,
                    epochs: self.fine_tuning.epochs(),
                };
                Step::Epoch(Epoch {
                    epoch: epoch.epoch + self.pretraining_epochs(),
                    phase: Some(phase),
                    ..epoch
                })
            }
            Step::Batch | Step::Done(_) => step,
        }
    }
}

/// Name of the position within the pre-training, in checkpoints.
const PRETRAINING: &str = "pretraining";

impl Training for DbnTraining {
    fn settings(&self) -> Vec<Setting> {
        self.fine_tuning.settings()
    }

    fn epochs(&self) -> u64 {
        self.pretraining_epochs().saturating_add(self.fine_tuning.epochs())
    }

    fn batches_per_epoch(&self) -> u64 {
        self.train_set.batches
    }

    fn position(&self) -> Position {
        if self.is_pretrained() {
            let Position { epochs, batches } = self.fine_tuning.position();
            Position { epochs: epochs + self.pretraining_epochs(), batches }
        } else {
            self.position
        }
    }

    fn step(&mut self) -> Result<Step, TrainError> {
        if !self.is_pretrained() {
            return self.pretrain();
        }
        match self.fine_tuning.step() {
            Ok(step) => Ok(self.counted_on(step)),
            Err(TrainError::Diverged { what, found, epoch, batch, learning_rate }) => {
                let epoch = epoch + self.pretraining_epochs();
                Err(TrainError::Diverged { what, found, epoch, batch, learning_rate })
            }
            Err(error) => Err(error),
        }
    }

    fn best_epoch(&self) -> Option<u64> {
        self.fine_tuning.best_epoch().map(|epoch| epoch + self.pretraining_epochs())
    }

    fn save(&self, checkpoint: &mut Checkpoint) -> Result<(), TrainError> {
        self.fine_tuning.save(checkpoint)?;
        self.visible_biases.iter().try_for_each(|bias| bias.save(checkpoint))?;
        save_streams(STREAMS, &self.streams, checkpoint)?;
        self.position.save(PRETRAINING, checkpoint);
        self.monitor.save(checkpoint);
        Ok(())
    }

    fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), TrainError> {
        let position = Position::saved(PRETRAINING, checkpoint, self.train_set.batches)?;
        let monitor = Monitor::saved(checkpoint)?;
        let biases: Vec<Array> =
            self.visible_biases.iter().map(|bias| bias.saved(checkpoint)).collect::<Result<_, _>>()?;
        let names = self.visible_biases.iter().map(|bias| bias.name.as_str());
        let others: Vec<&str> = names.chain([STREAMS]).collect();
        self.fine_tuning.restore_beside(checkpoint, &others)?;
        restore_streams(STREAMS, &self.streams, checkpoint)?;
        for (bias, value) in self.visible_biases.iter().zip(biases) {
            bias.shared.set_value(value)?;
        }
        (self.position, self.monitor) = (position, monitor);
        Ok(())
    }

    fn write_pictures(&self, directory: &Path) -> Result<Vec<PathBuf>, TrainError> {
        self.fine_tuning.write_pictures(directory)
    }

    fn functions(&self) -> Vec<(&'static str, &Function)> {
        const NAMES: [&str; 5] = ["pretrain_1", "pretrain_2", "pretrain_3", "pretrain_4", "pretrain_5"];
        let layers = NAMES.into_iter().zip(&self.layers);
        let layers = layers.filter_map(|(name, layer)| Some((name, layer.train.as_ref()?)));
        layers.chain(self.fine_tuning.functions()).collect()
    }
}
