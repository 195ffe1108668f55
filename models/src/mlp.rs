//! The multilayer perceptron of the Deep Learning Tutorials: hidden layers below a logistic regression.
//!
//! Weights are drawn from NumPy's legacy generator in float64 and rounded to float32, as the published runs did, uniform
//! within the bound of Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks"
//! (2010). The classes hold formulas only.

use hypatia::{All, Array, DType, Diagnostic, Shared, Tensor, shared};
use hypatia_datasets::numpy::RandomState;

use crate::logistic_regression::LogisticRegression;

/// What a layer does to its linear map, element by element.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Activation {
    /// Nothing.
    Linear,
    /// The hyperbolic tangent.
    Tanh,
    /// The logistic function.
    Sigmoid,
}

impl Activation {
    /// The function of a tensor.
    #[must_use]
    #[track_caller]
    pub fn apply(self, x: &Tensor) -> Tensor {
        match self {
            Self::Linear => x.clone(),
            Self::Tanh => x.tanh(),
            Self::Sigmoid => x.sigmoid(),
        }
    }

    /// Weights are drawn uniformly between minus and plus this: `sqrt(6 / (n_in + n_out))`, four times that for the
    /// logistic function, whose slope at 0 is a quarter of the hyperbolic tangent's.
    #[must_use]
    pub fn weight_bound(self, n_in: usize, n_out: usize) -> f64 {
        let bound = (6.0 / (n_in + n_out) as f64).sqrt();
        match self {
            Self::Linear | Self::Tanh => bound,
            Self::Sigmoid => 4.0 * bound,
        }
    }

    /// Weights `f32[n_in, n_out]` drawn from `rng` within [`Activation::weight_bound`].
    ///
    /// # Errors
    ///
    /// Extents that no memory holds.
    pub fn weights(self, rng: &mut RandomState, n_in: usize, n_out: usize) -> Result<Array, Diagnostic> {
        let bound = self.weight_bound(n_in, n_out);
        let draws = rng.uniform(-bound, bound, n_in * n_out);
        let weights: Vec<f32> = draws.into_iter().map(|weight| weight as f32).collect();
        Array::new(&[n_in, n_out], &weights)
    }
}

/// A fully connected layer, `activation(x W + b)`.
#[derive(Clone, Debug)]
pub struct HiddenLayer {
    /// Weights, `f32[n_in, n_out]`.
    pub w: Shared,
    /// Biases, `f32[n_out]`, zero at the start.
    pub b: Shared,
    /// What comes out, `f32[n, n_out]`.
    pub output: Tensor,
}

impl HiddenLayer {
    /// The layer on `input`, `f32[n, n_in]`, with `n_out` units; draws `n_in * n_out` weights from `rng`.
    #[must_use]
    #[track_caller]
    pub fn new(
        rng: &mut RandomState,
        input: &Tensor,
        n_in: usize,
        n_out: usize,
        activation: Activation,
    ) -> Self {
        let w = shared("W", activation.weights(rng, n_in, n_out));
        let b = shared("b", Array::zeros(DType::F32, &[n_out]));
        let output = activation.apply(&(input.dot(&w) + &b));
        Self { w, b, output }
    }

    /// The parameters in the order of the tutorial.
    #[must_use]
    pub fn params(&self) -> [&Shared; 2] {
        [&self.w, &self.b]
    }
}

/// A perceptron with one hidden layer of tanh units.
#[derive(Clone, Debug)]
pub struct Mlp {
    /// The hidden layer.
    pub hidden_layer: HiddenLayer,
    /// The classifier on top of it.
    pub log_regression_layer: LogisticRegression,
    /// Sum of the absolute values of all weights, a scalar.
    pub l1: Tensor,
    /// Sum of the squares of all weights, a scalar.
    pub l2_sqr: Tensor,
}

impl Mlp {
    /// The model on `input`, `f32[n, n_in]`, with `n_hidden` hidden units, for `n_out` classes.
    #[must_use]
    #[track_caller]
    pub fn new(rng: &mut RandomState, input: &Tensor, n_in: usize, n_hidden: usize, n_out: usize) -> Self {
        let hidden_layer = HiddenLayer::new(rng, input, n_in, n_hidden, Activation::Tanh);
        let log_regression_layer = LogisticRegression::new(&hidden_layer.output, n_hidden, n_out);
        let l1 = hidden_layer.w.abs().sum(All) + log_regression_layer.w.abs().sum(All);
        let l2_sqr = hidden_layer.w.sqr().sum(All) + log_regression_layer.w.sqr().sum(All);
        Self { hidden_layer, log_regression_layer, l1, l2_sqr }
    }

    /// See [`LogisticRegression::negative_log_likelihood`].
    #[must_use]
    #[track_caller]
    pub fn negative_log_likelihood(&self, y: &Tensor) -> Tensor {
        self.log_regression_layer.negative_log_likelihood(y)
    }

    /// See [`LogisticRegression::errors`].
    #[must_use]
    #[track_caller]
    pub fn errors(&self, y: &Tensor) -> Tensor {
        self.log_regression_layer.errors(y)
    }

    /// The parameters of both layers in the order of the tutorial.
    #[must_use]
    pub fn params(&self) -> [&Shared; 4] {
        let ([hidden_w, hidden_b], [w, b]) = (self.hidden_layer.params(), self.log_regression_layer.params());
        [hidden_w, hidden_b, w, b]
    }

    /// The likelihood with both penalties; a penalty of weight 0 is left out.
    #[must_use]
    #[track_caller]
    pub fn regularised_cost(&self, y: &Tensor, l1_weight: f64, l2_weight: f64) -> Tensor {
        let mut cost = self.negative_log_likelihood(y);
        if l1_weight != 0.0 {
            cost = cost + &self.l1 * l1_weight;
        }
        if l2_weight != 0.0 {
            cost = cost + &self.l2_sqr * l2_weight;
        }
        cost
    }
}
