//! Steps of autoencoders: denoising, contractive in two forms, and denoising above another layer.

use hypatia::{All, Array, DType, Diagnostics, RandomStreams, Tensor, grad, scalar, shared};

use super::weights::{ROWS, glorot, random_images, weight_generator};
use super::{Compilation, Step};
use crate::resident::{borrowed, rows_of};
use hypatia_datasets::IMAGE_PIXELS;
use hypatia_models::autoencoder::Autoencoder;
use hypatia_models::descent::Descent;
use hypatia_models::parameter::Parameter;

const HIDDEN: usize = 500;
/// Units of each layer of the network.
const LAYER: usize = 1000;
/// Weights of logistic units are drawn four times as wide.
const GAIN: f64 = 4.0;
const SEED: u64 = 1234;
/// Weight of the contraction in the cost.
const CONTRACTION: f64 = 0.1;

pub(super) fn da(compilation: Compilation) -> Result<Step, Diagnostics> {
    learn_images(compilation, 20, 0.1, |da| da.denoising_cost(&RandomStreams::new(SEED), 0.3))
}

/// With the norm of the Jacobian as somebody would write it who knows its closed form.
pub(super) fn ca(compilation: Compilation) -> Result<Step, Diagnostics> {
    learn_images(compilation, 10, 0.01, |ca| {
        let hidden = ca.hidden_values(&ca.input);
        let slopes = &hidden * (1.0 - &hidden);
        let jacobian = slopes.sqr().dot(ca.w.sqr().sum(0)).mean(All);
        ca.reconstruction_cost(&hidden) + jacobian * CONTRACTION
    })
}

/// With the Jacobian as the tutorial writes it, a tensor of 784 by 500 for each image.
pub(super) fn ca_3d(compilation: Compilation) -> Result<Step, Diagnostics> {
    learn_images(compilation, 10, 0.01, |ca| ca.contractive_cost(CONTRACTION).cost)
}

/// The second layer of a stack.
pub(super) fn sda_pretrain(compilation: Compilation) -> Result<Step, Diagnostics> {
    let images = shared("x", random_images().0);
    let mut generator = weight_generator();
    let below = shared("W1", glorot(&mut generator, IMAGE_PIXELS, LAYER, GAIN));
    let bias = shared("b1", Array::zeros(DType::F32, &[LAYER]));
    let index = scalar::<i64>("index");
    let input = (rows_of(&images, &index, 1).dot(&below) + &bias).sigmoid();
    let da = autoencoder(&input, glorot(&mut generator, LAYER, LAYER, GAIN)?, LAYER);
    let cost = da.denoising_cost(&RandomStreams::new(SEED), 0.2);
    learn(compilation, &index, &da, &cost, 1, 0.001)
}

/// An autoencoder with these weights, `[visible, hidden]`.
fn autoencoder(input: &Tensor, weights: Array, hidden: usize) -> Autoencoder {
    let w = shared("W", weights);
    let bias = shared("bhid", Array::zeros(DType::F32, &[hidden]));
    Autoencoder::sharing(input, &w, &bias)
}

/// A step on images.
fn learn_images(
    compilation: Compilation,
    batch_size: usize,
    learning_rate: f64,
    cost: impl FnOnce(&Autoencoder) -> Tensor,
) -> Result<Step, Diagnostics> {
    let images = shared("x", random_images().0);
    let index = scalar::<i64>("index");
    let weights = glorot(&mut weight_generator(), IMAGE_PIXELS, HIDDEN, GAIN)?;
    let model = autoencoder(&rows_of(&images, &index, batch_size), weights, HIDDEN);
    learn(compilation, &index, &model, &cost(&model), batch_size, learning_rate)
}

fn learn(
    compilation: Compilation,
    index: &Tensor,
    model: &Autoencoder,
    cost: &Tensor,
    batch_size: usize,
    learning_rate: f64,
) -> Result<Step, Diagnostics> {
    let parameters = Parameter::list(&["W", "bhid", "bvis"], model.params());
    let (updates, _) = Descent::sgd(learning_rate).updates(&parameters, grad(cost, model.params()));
    let function =
        compilation.builder().inputs(&[index]).outputs(&[cost]).updates(&borrowed(&updates)).compile()?;
    Ok(Step::of_minibatches(function, ROWS / batch_size))
}
