//! Training steps of the classifiers.

use hypatia::{Diagnostics, Shared, Tensor, grad, scalar, shared};

use super::weights::{ROWS, assign, filters, glorot, random_images, weight_generator};
use super::{Compilation, Step};
use crate::models::classifier::minibatch_inputs;
use crate::resident::rows_of;
use hypatia_datasets::numpy::RandomState;
use hypatia_datasets::{CLASSES, IMAGE_PIXELS, IMAGE_SIDE};
use hypatia_models::lenet::LeNet;
use hypatia_models::logistic_regression::LogisticRegression;
use hypatia_models::mlp::Mlp;
use hypatia_models::sda::Sda;

/// A classifier as formulas of a minibatch `x`, `y`.
struct Formulas<'a> {
    x: &'a Tensor,
    y: &'a Tensor,
    cost: Tensor,
    parameters: Vec<Shared>,
}

pub(super) fn logreg(compilation: Compilation) -> Result<Step, Diagnostics> {
    let (x, y) = minibatch_inputs();
    let model = LogisticRegression::new(&x, IMAGE_PIXELS, CLASSES);
    let cost = model.negative_log_likelihood(&y);
    let parameters = model.params().map(Clone::clone).to_vec();
    descend(compilation, &Formulas { x: &x, y: &y, cost, parameters }, 600, 0.13)
}

pub(super) fn mlp(compilation: Compilation) -> Result<Step, Diagnostics> {
    const HIDDEN: usize = 500;
    let (x, y) = minibatch_inputs();
    let model = Mlp::new(&mut RandomState::new(1234), &x, IMAGE_PIXELS, HIDDEN, CLASSES);
    assign(&model.hidden_layer.w, glorot(&mut weight_generator(), IMAGE_PIXELS, HIDDEN, 1.0));
    let cost = model.regularised_cost(&y, 0.0, 1e-4);
    let parameters = model.params().map(Clone::clone).to_vec();
    descend(compilation, &Formulas { x: &x, y: &y, cost, parameters }, 20, 0.01)
}

/// LeNet in minibatches of 500, as the tutorial trains it.
pub(super) fn lenet_b500(compilation: Compilation) -> Result<Step, Diagnostics> {
    lenet(compilation, 500)
}

/// LeNet in minibatches of 20.
pub(super) fn lenet_b20(compilation: Compilation) -> Result<Step, Diagnostics> {
    lenet(compilation, 20)
}

fn lenet(compilation: Compilation, batch_size: usize) -> Result<Step, Diagnostics> {
    const FILTERS: [usize; 2] = [20, 50];
    const HIDDEN: usize = 500;
    let (x, y) = minibatch_inputs();
    let model = LeNet::new(&mut RandomState::new(1234), &x, IMAGE_SIDE, FILTERS, HIDDEN, CLASSES);
    let mut generator = weight_generator();
    // Pooling leaves a quarter of what a unit feeds.
    let [first, second] = FILTERS;
    let (inputs, outputs) = (25.0, (first * 25) as f64 / 4.0);
    assign(&model.layer0.w, filters(&mut generator, [first, 1, 5, 5], inputs, outputs));
    let (inputs, outputs) = ((first * 25) as f64, (second * 25) as f64 / 4.0);
    assign(&model.layer1.w, filters(&mut generator, [second, first, 5, 5], inputs, outputs));
    assign(&model.layer2.w, glorot(&mut generator, second * 16, HIDDEN, 1.0));
    let cost = model.negative_log_likelihood(&y);
    let parameters = model.params().map(Clone::clone).to_vec();
    descend(compilation, &Formulas { x: &x, y: &y, cost, parameters }, batch_size, 0.1)
}

/// Fine-tuning of the deep belief network.
pub(super) fn dbn_finetune(compilation: Compilation) -> Result<Step, Diagnostics> {
    finetune(compilation, 10)
}

/// Fine-tuning of the stacked denoising autoencoder, which is the same perceptron.
pub(super) fn sda_finetune(compilation: Compilation) -> Result<Step, Diagnostics> {
    finetune(compilation, 1)
}

/// A step of the perceptron 784-1000-1000-1000-10.
fn finetune(compilation: Compilation, batch_size: usize) -> Result<Step, Diagnostics> {
    const LAYERS: [usize; 3] = [1000, 1000, 1000];
    let (x, y) = minibatch_inputs();
    let model = Sda::new(&mut RandomState::new(1234), &x, IMAGE_PIXELS, &LAYERS, CLASSES);
    let mut generator = weight_generator();
    let mut inputs = IMAGE_PIXELS;
    for (layer, units) in model.sigmoid_layers.iter().zip(LAYERS) {
        assign(&layer.w, glorot(&mut generator, inputs, units, 4.0));
        inputs = units;
    }
    let cost = model.finetune_cost(&y);
    let parameters = model.params().into_iter().cloned().collect();
    descend(compilation, &Formulas { x: &x, y: &y, cost, parameters }, batch_size, 0.1)
}

/// A step of gradient descent.
fn descend(
    compilation: Compilation,
    formulas: &Formulas<'_>,
    batch_size: usize,
    learning_rate: f64,
) -> Result<Step, Diagnostics> {
    let (images, labels) = random_images();
    let (images, labels) = (shared("x", images), shared("y", labels));
    let index = scalar::<i64>("index");
    let gradients = grad(&formulas.cost, &formulas.parameters);
    let updates: Vec<(&Shared, Tensor)> = formulas
        .parameters
        .iter()
        .zip(gradients)
        .map(|(parameter, gradient)| (parameter, parameter - gradient * learning_rate))
        .collect();
    let function = compilation
        .builder()
        .inputs(&[&index])
        .outputs(&[&formulas.cost])
        .updates(&updates)
        .given(formulas.x, rows_of(&images, &index, batch_size))
        .given(formulas.y, rows_of(&labels, &index, batch_size))
        .compile()?;
    Ok(Step::of_minibatches(function, ROWS / batch_size))
}
