//! Pre-training of a stack of layers, one after the other, before the whole is fine-tuned.
//!
//! A layer learns from what the layers below make of the data: passed up anew in each step, or, faster, once for each
//! layer and kept. Epochs count over all layers. What a layer learns, and how, are formulas of the model.

use hypatia::{Array, Function, Shared, Tensor, scalar, shared};
use hypatia_models::logistic_regression::LogisticRegression;
use hypatia_models::mlp::HiddenLayer;
use hypatia_models::parameter::Parameter;

use crate::error::TrainError;
use crate::log::{Epoch, Phase};
use crate::model::Settings;
use crate::resident::{Resident, borrowed, index_of, rows_of};
use crate::state::floats;
use crate::training::{Learner, Measure, Position, Stage};

/// The parameters of a perceptron by the names of checkpoints: those of the layers from the bottom, then those of the
/// classifier on top.
pub(super) fn layer_parameters(layers: &[HiddenLayer], top: &LogisticRegression) -> Vec<Parameter> {
    let mut parameters = Vec::new();
    for (number, layer) in (1..).zip(layers) {
        let names = [format!("layer_{number}.W"), format!("layer_{number}.b")];
        parameters.extend(Parameter::list(&[&names[0], &names[1]], layer.params()));
    }
    parameters.extend(Parameter::list(&["output.W", "output.b"], top.params()));
    parameters
}

/// A layer to be pre-trained, as formulas.
pub(super) struct Layer {
    /// What it learns from, `f32[n, units below]`.
    pub(super) input: Tensor,
    /// What it makes of its input, `f32[n, units]`.
    pub(super) output: Tensor,
    /// How many units it has.
    pub(super) units: usize,
    /// What a step reports, a scalar.
    pub(super) monitor: Tensor,
    /// What a step changes.
    pub(super) updates: Vec<(Shared, Tensor)>,
    /// Inputs of its function beside the index of a minibatch, and the values they take when a call leaves them out.
    pub(super) choices: Vec<(Tensor, Array)>,
}

/// How layers are pre-trained.
pub(super) struct Pretraining {
    /// From the bottom.
    pub(super) layers: Vec<Layer>,
    /// Of each layer.
    pub(super) epochs: u64,
    /// Whether the data are passed up once for each layer.
    pub(super) keeps_activations: bool,
}

impl Pretraining {
    /// The stage that pre-trains the layers on images. `rest` is what only pre-training learns.
    pub(super) fn stage(
        self,
        settings: &Settings,
        images: &Resident,
        measure: Measure,
        learning_rate: f64,
        rest: Vec<Parameter>,
    ) -> Result<Stage, TrainError> {
        let epochs = self.epochs * self.layers.len() as u64;
        let at_once = if self.keeps_activations { 1 } else { self.layers.len() };
        let mut learner = LayerLearner {
            trains: self.layers.iter().map(|_| None).collect(),
            layers: self.layers,
            images: images.clone(),
            epochs: self.epochs,
            settings: settings.clone(),
        };
        for number in 0..at_once {
            let index = scalar::<i64>("index");
            let (input, rows) = (&learner.layers[0].input, images.minibatch(&index).0);
            learner.trains[number] = Some(learner.compile(number, &index, input, &rows)?);
        }
        Ok(Stage::new(learner, measure, epochs, learning_rate, rest).with_position_name("pretraining"))
    }
}

/// Layers being pre-trained.
struct LayerLearner {
    /// From the bottom.
    layers: Vec<Layer>,
    /// The function of each layer, compiled when its turn comes if it learns from kept activations.
    trains: Vec<Option<Function>>,
    images: Resident,
    /// Of each layer.
    epochs: u64,
    settings: Settings,
}

impl LayerLearner {
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
        let layer = &self.layers[number];
        let builder = self.settings.builder().inputs(&[index]).outputs(&[&layer.monitor]);
        let builder = layer
            .choices
            .iter()
            .fold(builder, |builder, (input, value)| builder.input_with_default(input, value.clone()));
        Ok(builder.updates(&borrowed(&layer.updates)).given(input, rows).compile()?)
    }

    /// Passes the data up to a layer above the first whose turn has come; the function by which it learns from the result.
    fn compile_on_activations(&mut self, number: usize) -> Result<Function, TrainError> {
        // The function of the layer below holds what that layer learnt from.
        self.trains.iter_mut().for_each(|train| *train = None);
        let below = &self.layers[number - 1];
        let index = scalar::<i64>("index");
        let mut pass_up = self
            .settings
            .builder()
            .inputs(&[&index])
            .outputs(&[&below.output])
            .given(&self.layers[0].input, self.images.minibatch(&index).0)
            .compile()?;
        let size = self.images.batch_size();
        let count = self.images.batches as usize * size;
        let mut activations: Vec<f32> = Vec::with_capacity(count * below.units);
        for batch in 0..self.images.batches {
            activations.extend(floats(pass_up.call(&[&index_of(batch)])?.array(0))?);
        }
        let kept = shared(&format!("activations_{number}"), Array::new(&[count, below.units], &activations));
        self.compile(number, &index, &below.output, &rows_of(&kept, &index, size))
    }
}

impl Learner for LayerLearner {
    fn batches(&self) -> u64 {
        self.images.batches
    }

    fn learn(&mut self, at: Position) -> Result<f64, TrainError> {
        let number = self.layer_of(at.epochs);
        let train = match self.trains[number].take() {
            Some(train) => train,
            None => self.compile_on_activations(number)?,
        };
        let train = self.trains[number].insert(train);
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
        let trains = NAMES.into_iter().zip(&self.trains);
        trains.filter_map(|(name, train)| Some((name, train.as_ref()?))).collect()
    }
}
