//! Multi-class logistic regression, the first model of the Deep Learning Tutorials.
//!
//! A linear map and a softmax: `p(y = i | x) = softmax(x W + b)_i`. Parameters start at zero. The class holds formulas
//! only; it is the output layer of the deeper models as well, and what is done with its cost is theirs to say.

use hypatia::{All, Array, DType, Shared, Tensor, shared};

/// The classifier `argmax softmax(x W + b)`.
#[derive(Clone, Debug)]
pub struct LogisticRegression {
    /// Weights, `f32[n_in, n_out]`.
    pub w: Shared,
    /// Biases, `f32[n_out]`.
    pub b: Shared,
    /// Probability of each class, `f32[n, n_out]`.
    pub p_y_given_x: Tensor,
    /// The most probable class, `i64[n]`.
    pub y_pred: Tensor,
}

impl LogisticRegression {
    /// The model on `input`, `f32[n, n_in]`, for `n_out` classes.
    #[must_use]
    #[track_caller]
    pub fn new(input: &Tensor, n_in: usize, n_out: usize) -> Self {
        let w = shared("W", Array::zeros(DType::F32, &[n_in, n_out]));
        let b = shared("b", Array::zeros(DType::F32, &[n_out]));
        let p_y_given_x = (input.dot(&w) + &b).softmax(1).named("p_y_given_x");
        let y_pred = p_y_given_x.argmax(1).named("y_pred");
        Self { w, b, p_y_given_x, y_pred }
    }

    /// The mean over the minibatch of `-log p(y | x)`, a scalar; `y` holds the right classes, an integer vector.
    ///
    /// The mean, not the sum, so that the learning rate depends less on the size of the minibatch.
    #[must_use]
    #[track_caller]
    pub fn negative_log_likelihood(&self, y: &Tensor) -> Tensor {
        -self.p_y_given_x.log().pick(y).mean(All)
    }

    /// The fraction of the minibatch that is classified wrongly (zero-one loss), a scalar.
    #[must_use]
    #[track_caller]
    pub fn errors(&self, y: &Tensor) -> Tensor {
        self.y_pred.neq(y).mean(All)
    }

    /// How many of the minibatch are classified wrongly, an `i64` scalar: exact where a fraction is rounded.
    #[must_use]
    #[track_caller]
    pub fn misclassified(&self, y: &Tensor) -> Tensor {
        self.y_pred.neq(y).sum(All)
    }

    /// The parameters in the order of the tutorial.
    #[must_use]
    pub fn params(&self) -> [&Shared; 2] {
        [&self.w, &self.b]
    }
}
