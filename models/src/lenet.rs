//! LeNet, the convolutional network of the Deep Learning Tutorials: two layers of filters and pooling below a perceptron.
//!
//! After LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), simplified as
//! in the tutorial: the largest element of each window instead of weighted sums, every filter sees every channel. The bias is
//! added after pooling, with the same result as before it. The classes hold formulas only.

use hypatia::{Array, Conv, DType, Shared, Tensor, shared};
use hypatia_datasets::numpy::RandomState;

use crate::logistic_regression::LogisticRegression;
use crate::mlp::{Activation, HiddenLayer};

/// Rows and columns of a filter.
const FILTER: usize = 5;
/// Rows and columns of a window of pooling.
const POOL: usize = 2;

/// Filters, the largest element of each window of their results, a bias and the hyperbolic tangent.
#[derive(Clone, Debug)]
pub struct LeNetConvPoolLayer {
    /// The filters, `f32[filters, channels, rows, columns]`.
    pub w: Shared,
    /// Biases, `f32[filters]`, zero at the start.
    pub b: Shared,
    /// What comes out, `f32[n, filters, rows, columns]`.
    pub output: Tensor,
}

impl LeNetConvPoolLayer {
    /// The layer on `input`, `f32[n, channels, rows, columns]`, with filters of the extents `[filters, channels, rows,
    /// columns]`, whose elements it draws from `rng`, and windows of `pool`.
    ///
    /// Weights are uniform within `sqrt(6 / (fan_in + fan_out))`: the inputs of a unit, and the outputs that one feeds, of
    /// which pooling leaves one in a window.
    #[must_use]
    #[track_caller]
    pub fn new(rng: &mut RandomState, input: &Tensor, filters: [usize; 4], pool: [usize; 2]) -> Self {
        let [count, channels, rows, columns] = filters;
        let fan_in = channels * rows * columns;
        let fan_out = count * rows * columns / (pool[0] * pool[1]).max(1);
        let bound = Activation::Tanh.weight_bound(fan_in, fan_out);
        let weights: Vec<f32> =
            rng.uniform(-bound, bound, count * fan_in).into_iter().map(|weight| weight as f32).collect();
        let w = shared("W", Array::new(&filters, &weights));
        let b = shared("b", Array::zeros(DType::F32, &[count]));
        let pooled = input.conv2d(&w, Conv::valid()).max_pool_2d(pool, true);
        let output = (pooled + Tensor::from(&b).dimshuffle(&[None, Some(0), None, None])).tanh();
        Self { w, b, output }
    }

    /// The parameters in the order of the tutorial.
    #[must_use]
    pub fn params(&self) -> [&Shared; 2] {
        [&self.w, &self.b]
    }
}

/// Two convolutional layers with filters of 5x5 and windows of 2x2, a hidden layer of tanh units and a classifier.
#[derive(Clone, Debug)]
pub struct LeNet {
    /// The layer on the image.
    pub layer0: LeNetConvPoolLayer,
    /// The layer on that.
    pub layer1: LeNetConvPoolLayer,
    /// The fully connected layer.
    pub layer2: HiddenLayer,
    /// The classifier on top of it.
    pub layer3: LogisticRegression,
}

impl LeNet {
    /// The model on `input`, `f32[n, side * side]`, square grey images of at least 16 rows, with as many filters in each
    /// convolutional layer, `n_hidden` hidden units, for `n_out` classes.
    #[must_use]
    #[track_caller]
    pub fn new(
        rng: &mut RandomState,
        input: &Tensor,
        side: usize,
        filters: [usize; 2],
        n_hidden: usize,
        n_out: usize,
    ) -> Self {
        let after = |side: usize| (side + 1).saturating_sub(FILTER) / POOL;
        let images = input.reshape([-1, 1, side as i64, side as i64]);
        let layer0 = LeNetConvPoolLayer::new(rng, &images, [filters[0], 1, FILTER, FILTER], [POOL; 2]);
        let extents = [filters[1], filters[0], FILTER, FILTER];
        let layer1 = LeNetConvPoolLayer::new(rng, &layer0.output, extents, [POOL; 2]);
        let n_in = filters[1] * after(after(side)).pow(2);
        let layer2 = HiddenLayer::new(rng, &layer1.output.flatten(2), n_in, n_hidden, Activation::Tanh);
        let layer3 = LogisticRegression::new(&layer2.output, n_hidden, n_out);
        Self { layer0, layer1, layer2, layer3 }
    }

    /// See [`LogisticRegression::negative_log_likelihood`].
    #[must_use]
    #[track_caller]
    pub fn negative_log_likelihood(&self, y: &Tensor) -> Tensor {
        self.layer3.negative_log_likelihood(y)
    }

    /// The parameters, from the image to the classes.
    #[must_use]
    pub fn params(&self) -> [&Shared; 8] {
        let ([w0, b0], [w1, b1]) = (self.layer0.params(), self.layer1.params());
        let ([w2, b2], [w3, b3]) = (self.layer2.params(), self.layer3.params());
        [w0, b0, w1, b1, w2, b2, w3, b3]
    }
}
