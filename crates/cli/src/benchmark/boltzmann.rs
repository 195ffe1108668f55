//! Steps of restricted Boltzmann machines: learning, sampling, and learning above another layer.

use hypatia::{All, Array, DType, Diagnostics, Next, RandomStreams, Scan, Tensor, ix, scalar, shared};

use super::weights::{ROWS, glorot, random_images, weight_generator};
use super::{Compilation, Step};
use crate::resident::{borrowed, rows_of};
use hypatia_datasets::IMAGE_PIXELS;
use hypatia_models::rbm::{Divergence, Rbm};

const HIDDEN: usize = 500;
/// Units of each layer of the network.
const LAYER: usize = 1000;
/// Weights of logistic units are drawn four times as wide.
const GAIN: f64 = 4.0;
const SEED: u64 = 1234;

pub(super) fn rbm_cd1(compilation: Compilation) -> Result<Step, Diagnostics> {
    let images = shared("x", random_images().0);
    let index = scalar::<i64>("index");
    let rbm = machine(
        &rows_of(&images, &index, 20),
        glorot(&mut weight_generator(), IMAGE_PIXELS, HIDDEN, GAIN)?,
        HIDDEN,
    );
    learn(compilation, &index, &rbm, 0.1, Divergence { persistent: None, k: 1 }, 20)
}

pub(super) fn rbm_pcd15(compilation: Compilation) -> Result<Step, Diagnostics> {
    let images = shared("x", random_images().0);
    let chain = shared("chain", Array::zeros(DType::F32, &[20, HIDDEN]));
    let index = scalar::<i64>("index");
    let rbm = machine(
        &rows_of(&images, &index, 20),
        glorot(&mut weight_generator(), IMAGE_PIXELS, HIDDEN, GAIN)?,
        HIDDEN,
    );
    learn(compilation, &index, &rbm, 0.1, Divergence { persistent: Some(&chain), k: 15 }, 20)
}

pub(super) fn dbn_pretrain(compilation: Compilation) -> Result<Step, Diagnostics> {
    let images = shared("x", random_images().0);
    let mut generator = weight_generator();
    let below = shared("W1", glorot(&mut generator, IMAGE_PIXELS, LAYER, GAIN));
    let bias = shared("b1", Array::zeros(DType::F32, &[LAYER]));
    let index = scalar::<i64>("index");
    let input = (rows_of(&images, &index, 10).dot(&below) + &bias).sigmoid();
    let rbm = machine(&input, glorot(&mut generator, LAYER, LAYER, GAIN)?, LAYER);
    learn(compilation, &index, &rbm, 0.01, Divergence { persistent: None, k: 1 }, 10)
}

pub(super) fn rbm_sample(compilation: Compilation) -> Result<Step, Diagnostics> {
    const CHAINS: usize = 20;
    const STEPS: usize = 1000;
    let mut generator = weight_generator();
    let weights = glorot(&mut generator, IMAGE_PIXELS, HIDDEN, GAIN)?;
    let ink = generator.random(CHAINS * IMAGE_PIXELS);
    let states: Vec<f32> = ink.into_iter().map(|x| f32::from(u8::from(x < 0.2))).collect();
    let chain = shared("v", Array::new(&[CHAINS, IMAGE_PIXELS], &states));
    let rbm = machine(&Tensor::from(&chain), weights, HIDDEN);
    let scanned = Scan::new().carry(&chain).steps(STEPS).run(|step| {
        let visible = rbm.gibbs_vhv(&step.carries[0]).visible;
        Next::new().carry(visible.sample).output(visible.mean)
    });
    let mut updates = scanned.updates;
    updates.push((chain, scanned.last[0].clone()));
    let mean = scanned.outputs[0].index(ix![-1]).mean(All);
    Ok(Step::without_input(compilation.builder().outputs(&[&mean]).updates(&borrowed(&updates)).compile()?))
}

/// A machine with these weights, `[visible, hidden]`.
fn machine(input: &Tensor, weights: Array, hidden: usize) -> Rbm {
    let w = shared("W", weights);
    let bias = shared("hbias", Array::zeros(DType::F32, &[hidden]));
    Rbm::sharing(&RandomStreams::new(SEED), input, &w, &bias)
}

/// A step of contrastive divergence. Others monitor the cross-entropy of the reconstruction with its own sign.
fn learn(
    compilation: Compilation,
    index: &Tensor,
    rbm: &Rbm,
    learning_rate: f64,
    divergence: Divergence<'_>,
    batch_size: usize,
) -> Result<Step, Diagnostics> {
    let learning = rbm.get_cost_updates(learning_rate, divergence);
    let monitor = match divergence.persistent {
        Some(_) => learning.monitoring_cost,
        None => -learning.monitoring_cost,
    };
    let function = compilation
        .builder()
        .inputs(&[index])
        .outputs(&[&monitor])
        .updates(&borrowed(&learning.updates))
        .compile()?;
    Ok(Step::of_minibatches(function, ROWS / batch_size))
}
