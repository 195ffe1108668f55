//! Training step and generation of the RNN-RBM, on random frames.

use hypatia::{
    All, Array, Diagnostics, Gradient, Next, RandomStreams, Scan, Shared, Tensor, ix, scalar, shared,
};

use super::weights::weight_generator;
use super::{Compilation, Step};
use hypatia_datasets::music::PIANO;
use hypatia_datasets::numpy::RandomState;
use hypatia_models::rnn_rbm::RnnRbm;

/// Hidden and recurrent units.
const UNITS: (usize, usize) = (150, 100);
/// Random sequences, and frames of each.
const SEQUENCES: [usize; 2] = [50, 100];
/// Share of the keys that sound.
const DENSITY: f32 = 0.05;
const LEARNING_RATE: f64 = 0.001;

fn model() -> RnnRbm {
    RnnRbm::new(&mut RandomState::new(1234), PIANO.len(), UNITS.0, UNITS.1)
}

/// 100 frames: the recurrence, then a chain of 15 Gibbs steps over all frames at once. The monitor is taken of the means
/// of the last step.
pub(super) fn rnnrbm_train(compilation: Compilation) -> Result<Step, Diagnostics> {
    let model = model();
    let random = RandomStreams::new(1234);
    let [count, frames] = SEQUENCES;
    let draws = weight_generator().random(count * frames * PIANO.len());
    let values: Vec<f32> = draws.into_iter().map(|x| f32::from(u8::from(x < DENSITY))).collect();
    let sequences = shared("seq", Array::new(&[count, frames, PIANO.len()], &values));
    let index = scalar::<i64>("index");
    let v = sequences.index(ix![&index]);

    let (bv, bh) = model.biases(&v);
    let chain = Scan::new().carry(&v).steps(15).run(|step| {
        let mean_h = (step.carries[0].dot(&model.w) + &bh).sigmoid();
        let h = random.binomial([frames, UNITS.0], 1, mean_h);
        let mean_v = (h.dot(model.w.t()) + &bv).sigmoid();
        Next::new().carry(random.binomial([frames, PIANO.len()], 1, &mean_v)).output(mean_v)
    });
    let (v_sample, mean_v) = (&chain.last[0], chain.outputs[0].index(ix![-1]));
    let free_energy = |v: &Tensor| -(v * &bv).sum(All) - ((v.dot(&model.w) + &bh).exp() + 1.0).log().sum(All);
    let cost = (free_energy(&v) - free_energy(v_sample)) / frames as f64;
    let cross_entropy = -(&v * mean_v.log() + (1.0 - &v) * (1.0 - &mean_v).log()).sum(All) / frames as f64;
    let parameters: Vec<Shared> =
        model.parameters().into_iter().filter(|p| p.name != "u0").map(|p| p.shared).collect();
    let gradients = Gradient::of(&cost).consider_constant([v_sample]).wrt(&parameters);
    let updates: Vec<(&Shared, Tensor)> = parameters
        .iter()
        .zip(gradients)
        .map(|(parameter, gradient)| (parameter, parameter - gradient * LEARNING_RATE))
        .collect();
    let function =
        compilation.builder().inputs(&[&index]).outputs(&[&cross_entropy]).updates(&updates).compile()?;
    Ok(Step::of_minibatches(function, count))
}

/// 200 frames with 25 Gibbs steps each; the result is the share of the keys that sound.
pub(super) fn rnnrbm_gen(compilation: Compilation) -> Result<Step, Diagnostics> {
    let tune = model().generate(&RandomStreams::new(1234), 200, 25);
    let share = tune.mean(All);
    let function = compilation.builder().outputs(&[&share]).compile()?;
    Ok(Step::without_input(function))
}
