//! Training step of an LSTM on random words.

use hypatia::{Array, DType, Diagnostics, Next, Scan, Shared, Tensor, grad, ix, scalar, shared, zeros};
use hypatia_datasets::numpy::{Generator, RandomState};
use hypatia_models::descent::Descent;
use hypatia_models::lstm::Lstm;

use super::weights::{assign, weight_generator};
use super::{Compilation, Step};

const WORDS: usize = 10_000;
const UNITS: usize = 128;
const CLASSES: usize = 2;
/// Minibatches, words of the longest sequence and sequences of each; the shortest has so many words.
const SEQUENCES: [usize; 3] = [50, 100, 16];
const SHORTEST: u32 = 20;
const LEARNING_RATE: f64 = 0.05;
/// The order of the gates in the weights of other frameworks, of which the third is the cell and the last the output gate.
const GATES: [usize; 4] = [0, 1, 3, 2];

/// Sixteen sequences of a hundred words, the states of the words averaged, plain descent, which changes the rows of the
/// words that were read. No state is masked: what follows the end of a sequence is not averaged.
pub(super) fn lstm(compilation: Compilation) -> Result<Step, Diagnostics> {
    let mut generator = weight_generator();
    let model = Lstm::new(&mut RandomState::new(1), WORDS, UNITS, CLASSES);
    let rows: Vec<f32> = generator.random(WORDS * UNITS).into_iter().map(|x| x * 0.01).collect();
    assign(&model.embeddings, Array::new(&[WORDS, UNITS], &rows));
    for weights in [&model.w, &model.u] {
        assign(weights, Array::new(&[UNITS, 4 * UNITS], &gates(&mut generator)));
    }
    let classifier: Vec<f32> =
        generator.standard_normal_f32(UNITS * CLASSES).into_iter().map(|x| x * 0.01).collect();
    assign(&model.classifier_w, Array::new(&[UNITS, CLASSES], &classifier));

    let [count, steps, batch] = SEQUENCES;
    let lengths = generator.integers(steps as u32 + 1 - SHORTEST, count * batch);
    let numbers = |draws: Vec<u32>| draws.into_iter().map(|x| x as i32).collect::<Vec<_>>();
    let words = numbers(generator.integers(WORDS as u32, count * steps * batch));
    let labels = numbers(generator.integers(CLASSES as u32, count * batch));
    let present = |element: usize| {
        let (minibatch, step, sequence) =
            (element / (steps * batch), element / batch % steps, element % batch);
        f32::from(u8::from(step < (SHORTEST + lengths[minibatch * batch + sequence]) as usize))
    };
    let mask: Vec<f32> = (0..count * steps * batch).map(present).collect();
    let index = scalar::<i64>("index");
    let minibatch = |set: Shared| set.index(ix![&index]);
    let words = minibatch(shared("words", Array::new(&[count, steps, batch], &words)));
    let mask = minibatch(shared("mask", Array::new(&[count, steps, batch], &mask)));
    let labels = minibatch(shared("labels", Array::new(&[count, batch], &labels)));

    let rows = model.embeddings.take(words.flatten(1));
    let below = (rows.dot(&model.w) + &model.b).reshape([steps, batch, 4 * UNITS]);
    let nothing = zeros(DType::F32, [batch, UNITS]);
    let states = Scan::new().sequence(below).carry(&nothing).carry(&nothing).run(|step| {
        let (h, c) = model.step(&step.sequences[0], &step.carries[0], &step.carries[1]);
        Next::new().carry(h).carry(c)
    });
    let mask = mask.expand_dims(2);
    let averages = (&states.carries[0] * &mask).sum(0) / mask.sum(0);
    let cost = Lstm::negative_log_likelihood(&model.p_y_given_x(&averages), &labels);
    let parameters = model.parameters();
    let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
    let (updates, _) = Descent::sgd(LEARNING_RATE).updates(&parameters, gradients);
    let updates: Vec<(&Shared, &Tensor)> = updates.iter().map(|(shared, next)| (shared, next)).collect();
    let function = compilation.builder().inputs(&[&index]).outputs(&[&cost]).updates(&updates).compile()?;
    Ok(Step::of_minibatches(function, count))
}

/// Orthogonal matrices for the gates side by side, in the order of the model.
fn gates(generator: &mut Generator) -> Vec<f32> {
    let matrices: Vec<Vec<f64>> = (0..4).map(|_| orthogonal(generator)).collect();
    let row = |row: usize| GATES.map(|gate| &matrices[gate][row * UNITS..(row + 1) * UNITS]).concat();
    (0..UNITS).flat_map(row).map(|x| x as f32).collect()
}

/// `numpy.linalg.qr(standard_normal((n, n)))[0]`, row by row: products of Householder's reflections with the signs of
/// LAPACK.
fn orthogonal(generator: &mut Generator) -> Vec<f64> {
    let n = UNITS;
    let mut a = generator.standard_normal(n * n);
    let mut reflections: Vec<Vec<f64>> = Vec::new();
    for k in 0..n - 1 {
        let mut v: Vec<f64> = (k..n).map(|row| a[row * n + k]).collect();
        let length = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        // The first element goes to the other side of 0, so that nothing cancels.
        v[0] += length.copysign(v[0]);
        reflect(&mut a, k, &v);
        reflections.push(v);
    }
    let mut q = vec![0.0; n * n];
    (0..n).for_each(|i| q[i * n + i] = 1.0);
    for (k, v) in reflections.iter().enumerate().rev() {
        reflect(&mut q, k, v);
    }
    q
}

/// The rows from `first` on reflected along `v`.
fn reflect(matrix: &mut [f64], first: usize, v: &[f64]) {
    let n = UNITS;
    let squares: f64 = v.iter().map(|x| x * x).sum();
    for column in 0..n {
        let along: f64 = v.iter().enumerate().map(|(i, x)| x * matrix[(first + i) * n + column]).sum();
        let factor = 2.0 * along / squares;
        v.iter().enumerate().for_each(|(i, x)| matrix[(first + i) * n + column] -= factor * x);
    }
}
