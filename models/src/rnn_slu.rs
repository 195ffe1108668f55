//! Slot filling with a recurrent network, the tutorial on spoken language: which part of a sentence each word belongs to.
//!
//! Mesnil, He, Deng and Bengio, "Investigation of Recurrent-Neural-Network Architectures and Learning Methods for Spoken
//! Language Understanding" (Interspeech 2013). A word is a row of a table, which is learnt; the input of a step is the
//! rows of the words around it, `h_t = sigmoid(x_t wx + h_(t-1) wh + bh)`, and the label of the word is drawn from
//! `softmax(h_t w + b)`. A sentence may be followed by padding, which counts for nothing: its labels have no weight, and
//! no step depends on a later one.

use hypatia::{All, Array, DType, Next, Scan, Shared, Tensor, shared};

use hypatia_datasets::numpy::RandomState;

use crate::parameter::Parameter;

/// Sizes of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Words of the vocabulary; the table has a row more, the last one, for what is beyond the ends of a sentence.
    pub words: usize,
    /// Elements of the row of a word.
    pub embedding: usize,
    /// Words that a step sees, an odd number.
    pub window: usize,
    /// Hidden units.
    pub hidden: usize,
    /// Labels.
    pub classes: usize,
}

/// The parameters of the network, and the formulas on them.
#[derive(Clone, Debug)]
pub struct RnnSlu {
    /// The rows of the words, `f32[words + 1, embedding]`.
    pub embeddings: Shared,
    /// Weights from the rows of a window to the hidden units, `f32[embedding * window, hidden]`.
    pub wx: Shared,
    /// Weights from a hidden state to the next one, `f32[hidden, hidden]`.
    pub wh: Shared,
    /// Weights from the hidden units to the labels, `f32[hidden, classes]`.
    pub w: Shared,
    /// Biases of the hidden units.
    pub bh: Shared,
    /// Biases of the labels.
    pub b: Shared,
    /// The hidden state before the first word.
    pub h0: Shared,
}

impl RnnSlu {
    /// The network with weights uniform in +-0.2, drawn in the order of the tutorial; the other parameters are 0.
    #[must_use]
    pub fn new(rng: &mut RandomState, sizes: Sizes) -> Self {
        let mut uniform = |name: &str, shape: [usize; 2]| {
            let draws = rng.uniform(-1.0, 1.0, shape[0] * shape[1]);
            let values: Vec<f32> = draws.into_iter().map(|value| (0.2 * value) as f32).collect();
            shared(name, Array::new(&shape, &values))
        };
        let zeros = |name: &str, length| shared(name, Array::zeros(DType::F32, &[length]));
        let Sizes { words, embedding, window, hidden, classes } = sizes;
        Self {
            embeddings: uniform("embeddings", [words + 1, embedding]),
            wx: uniform("wx", [embedding * window, hidden]),
            wh: uniform("wh", [hidden, hidden]),
            w: uniform("w", [hidden, classes]),
            bh: zeros("bh", hidden),
            b: zeros("b", classes),
            h0: zeros("h0", hidden),
        }
    }

    /// The parameters in the order of the tutorial, by name.
    #[must_use]
    pub fn parameters(&self) -> Vec<Parameter> {
        let all = [&self.embeddings, &self.wx, &self.wh, &self.w, &self.bh, &self.b, &self.h0];
        Parameter::list(&["embeddings", "wx", "wh", "w", "bh", "b", "h0"], all)
    }

    /// The probability of each label for each word, `f32[length, classes]`, of `windows`, `i32[length, window]`: see
    /// [`windows`].
    #[must_use]
    #[track_caller]
    pub fn p_y_given_x(&self, windows: &Tensor) -> Tensor {
        let x = self.embeddings.take(windows).reshape([windows.extent(0), self.wx.extent(0)]);
        let below = x.dot(&self.wx) + &self.bh;
        let states = Scan::new()
            .sequence(&below)
            .carry(&self.h0)
            .run(|step| Next::new().carry((&step.sequences[0] + step.carries[0].dot(&self.wh)).sigmoid()));
        (states.carries[0].dot(&self.w) + &self.b).softmax(1)
    }

    /// The mean over the words of `-log p(label)`, a scalar. `weights`, `f32[length]`, are 1 for words and 0 for padding.
    #[must_use]
    #[track_caller]
    pub fn negative_log_likelihood(&self, windows: &Tensor, labels: &Tensor, weights: &Tensor) -> Tensor {
        let log_p = self.p_y_given_x(windows).log().pick(labels);
        -(log_p * weights).sum(All) / weights.sum(All)
    }

    /// The table with every row scaled to length 1, which follows each step of learning.
    #[must_use]
    #[track_caller]
    pub fn normalised(table: &Tensor) -> Tensor {
        table / table.norm(2.0, 1).expand_dims(1)
    }
}

/// The windows around the words of a sentence, `i32[length, window]`: `word`, `-1` beyond the ends. With `length` above
/// the number of words, windows of padding follow.
#[must_use]
pub fn windows(words: &[i32], window: usize, length: usize) -> Vec<i32> {
    let half = window / 2;
    let at = |place: usize| place.checked_sub(half).and_then(|word| words.get(word)).copied().unwrap_or(-1);
    (0..length).flat_map(|first| (first..first + window).map(at)).collect()
}

#[cfg(test)]
mod tests;
