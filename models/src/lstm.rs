//! Sentiment of reviews by a layer of long short-term memory, the tutorial on LSTM networks.
//!
//! Hochreiter and Schmidhuber, "Long short-term memory" (1997), with the forget gates of Gers, Schmidhuber and Cummins
//! (2000), without the cell's influence on the output gate. A word is a row of a table, which is learnt. The states of
//! all words are averaged, half of the averages are dropped in training, and a softmax decides. Sequences of a minibatch
//! stand side by side; behind the end of one, a mask of 0 keeps its state as it is.

use hypatia::{All, Array, DType, Diagnostic, Next, RandomStreams, Scan, Shared, Tensor, shared, zeros};

use hypatia_datasets::numpy::RandomState;
use nalgebra::DMatrix;

use crate::parameter::{Parameter, extents};

/// The share of the averages that is kept in training.
const KEPT: f64 = 0.5;

/// The parameters of the network, and the formulas on them.
#[derive(Clone, Debug)]
pub struct Lstm {
    /// The rows of the words, `f32[words, units]`.
    pub embeddings: Shared,
    /// Weights from a word to the input gate, forget gate, output gate and cell, `f32[units, 4 units]`.
    pub w: Shared,
    /// Weights from a state to the same, `f32[units, 4 units]`.
    pub u: Shared,
    /// Their biases, `f32[4 units]`.
    pub b: Shared,
    /// Weights from the averages to the classes, `f32[units, classes]`.
    pub classifier_w: Shared,
    /// Biases of the classes.
    pub classifier_b: Shared,
}

impl Lstm {
    /// The network with small rows and orthogonal weights, drawn in the order of the tutorial.
    #[must_use]
    pub fn new(rng: &mut RandomState, words: usize, units: usize, classes: usize) -> Self {
        let rows: Vec<f32> =
            rng.random_sample(words * units).into_iter().map(|x| (0.01 * x) as f32).collect();
        let (w, u) = (orthogonal(rng, units), orthogonal(rng, units));
        let draws = rng.standard_normal(units * classes);
        let classifier: Vec<f32> = draws.into_iter().map(|x| (0.01 * x) as f32).collect();
        Self {
            embeddings: shared("Wemb", Array::new(&[words, units], &rows)),
            w: shared("lstm_W", w),
            u: shared("lstm_U", u),
            b: shared("lstm_b", Array::zeros(DType::F32, &[4 * units])),
            classifier_w: shared("U", Array::new(&[units, classes], &classifier)),
            classifier_b: shared("b", Array::zeros(DType::F32, &[classes])),
        }
    }

    /// The parameters in the order of the tutorial, by its names.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let all = [&self.embeddings, &self.w, &self.u, &self.b, &self.classifier_w, &self.classifier_b];
        Parameter::list(&["Wemb", "lstm_W", "lstm_U", "lstm_b", "U", "b"], all)
    }

    /// The mean of the states over the words of each sequence, `f32[batch, units]`. `words`, `i32[steps, batch]`, are the
    /// words; `mask`, `f32[steps, batch]`, is 1 for them and 0 behind the end of a sequence.
    #[must_use]
    #[track_caller]
    pub fn averages(&self, words: &Tensor, mask: &Tensor) -> Tensor {
        let (steps, batch) = (words.extent(0), words.extent(1));
        let rows = self.embeddings.take(words.flatten(1));
        let below = (rows.dot(&self.w) + &self.b).reshape([&steps, &batch, &self.b.extent(0)]);
        let nothing = zeros(DType::F32, [batch, self.u.extent(0)]);
        let states = Scan::new().sequence(mask).sequence(below).carry(&nothing).carry(&nothing).run(|step| {
            let (mask, below) = (step.sequences[0].expand_dims(1), &step.sequences[1]);
            let (h, c) = (&step.carries[0], &step.carries[1]);
            let (next_h, next_c) = self.step(below, h, c);
            let kept = |next: Tensor, before: &Tensor| &mask * next + (1.0 - &mask) * before;
            Next::new().carry(kept(next_h, h)).carry(kept(next_c, c))
        });
        let mask = mask.expand_dims(2);
        (&states.carries[0] * &mask).sum(0) / mask.sum(0)
    }

    /// The state and the cell after a step, of what is below (the word by its weights, plus biases) and those before it.
    #[must_use]
    #[track_caller]
    pub fn step(&self, below: &Tensor, h: &Tensor, c: &Tensor) -> (Tensor, Tensor) {
        let units = extents(&self.b)[0] / 4;
        let gates = (below + h.dot(&self.u)).split(&[units; 4], 1);
        let c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[3].tanh();
        let h = gates[2].sigmoid() * c.tanh();
        (h, c)
    }

    /// The probability of each class, `f32[batch, classes]`, of the averages.
    #[must_use]
    #[track_caller]
    pub fn p_y_given_x(&self, averages: &Tensor) -> Tensor {
        (averages.dot(&self.classifier_w) + &self.classifier_b).softmax(1)
    }

    /// The averages as they are learnt from: each is kept or becomes 0, at random.
    #[must_use]
    #[track_caller]
    pub fn dropped(random: &RandomStreams, averages: &Tensor) -> Tensor {
        averages * random.binomial([averages.extent(0), averages.extent(1)], 1, KEPT)
    }

    /// The averages as they are used after training, for which the classifier learnt from a share of them.
    #[must_use]
    #[track_caller]
    pub fn scaled(averages: &Tensor) -> Tensor {
        averages * KEPT
    }

    /// The mean over the minibatch of `-log p(label)`, a scalar.
    #[must_use]
    #[track_caller]
    pub fn negative_log_likelihood(p_y_given_x: &Tensor, labels: &Tensor) -> Tensor {
        -p_y_given_x.log().pick(labels).mean(All)
    }
}

/// Four random orthogonal matrices side by side: the rotations in normal ones.
fn orthogonal(rng: &mut RandomState, units: usize) -> Result<Array, Diagnostic> {
    let mut values = vec![0f32; units * 4 * units];
    for gate in 0..4 {
        let normal = DMatrix::from_row_slice(units, units, &rng.standard_normal(units * units));
        let vectors = normal.qr().q();
        for row in 0..units {
            for column in 0..units {
                values[(row * 4 + gate) * units + column] = vectors[(row, column)] as f32;
            }
        }
    }
    Array::new(&[units, 4 * units], &values)
}

#[cfg(test)]
mod tests;
