//! What the benchmarks measure: training steps of the tutorials' models on random resident data, and single kernels.
//!
//! `cargo bench -p hypatia-benches` runs them all, `-- NAME` those whose name contains it, `-- --test` each once.
//! Nothing here is tuned to a machine; the data are a fixed pattern, since speed does not depend on values.
#![forbid(unsafe_code)]

use hypatia::{All, Array, Builder, DType, Diagnostics, Function, Shared, Tensor, grad, ix, scalar, shared};

/// A request for a function, to be compiled or taken apart into phases.
#[derive(Clone, Debug)]
pub struct Step {
    /// The number of the minibatch.
    pub index: Tensor,
    /// The cost.
    pub cost: Tensor,
    /// New values of the parameters.
    pub updates: Vec<(Shared, Tensor)>,
}

impl Step {
    /// The compiled training step.
    ///
    /// # Errors
    /// As [`Builder::compile`].
    pub fn compile(&self, threads: usize) -> Result<Function, Diagnostics> {
        let updates: Vec<(&Shared, &Tensor)> = self.updates.iter().map(|(s, t)| (s, t)).collect();
        Builder::new()
            .inputs(&[&self.index])
            .outputs(&[&self.cost])
            .updates(&updates)
            .threads(threads)
            .compile()
    }
}

/// Numbers in [0, 1) of a fixed pattern.
pub fn pattern(shape: &[usize]) -> Array {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|i: usize| (i * 7919 % 1000) as f32 / 1000.0).collect();
    Array::new(shape, &values).expect("as many values as the shape has")
}

fn labels(count: usize) -> Array {
    let values: Vec<i32> = (0..count).map(|i| (i * 31 % 10) as i32).collect();
    Array::vector(&values)
}

fn rows(data: &Shared, index: &Tensor, batch: i32) -> Tensor {
    data.index(ix![index * batch..(index + 1) * batch])
}

fn parameter(name: &str, shape: &[usize]) -> Shared {
    let mut value = pattern(shape);
    if let Some(values) = value.as_mut_slice::<f32>() {
        for x in values {
            *x = (*x - 0.5) * 0.1;
        }
    }
    shared(name, value)
}

fn descend(cost: Tensor, index: Tensor, parameters: &[Shared], rate: f64) -> Step {
    let gradients = grad(&cost, parameters);
    let updates = parameters.iter().zip(&gradients).map(|(p, g)| (p.clone(), p - g * rate)).collect();
    Step { index, cost, updates }
}

/// Logistic regression, 784 inputs, 10 classes, batches of 600.
pub fn logistic_regression(examples: usize) -> Step {
    let (x, y) = (shared("x", pattern(&[examples, 784])), shared("y", labels(examples)));
    let (w, b) = (parameter("W", &[784, 10]), parameter("b", &[10]));
    let index = scalar::<i64>("index");
    let p = (rows(&x, &index, 600).dot(&w) + &b).softmax(1);
    let cost = -p.log().pick(rows(&y, &index, 600)).mean(All);
    descend(cost, index, &[w, b], 0.13)
}

/// A perceptron of 500 hidden units with its penalty on squares, batches of 20.
pub fn multilayer_perceptron(examples: usize) -> Step {
    let (x, y) = (shared("x", pattern(&[examples, 784])), shared("y", labels(examples)));
    let (hidden_w, hidden_b) = (parameter("hidden_W", &[784, 500]), parameter("hidden_b", &[500]));
    let (w, b) = (parameter("W", &[500, 10]), parameter("b", &[10]));
    let index = scalar::<i64>("index");
    let hidden = (rows(&x, &index, 20).dot(&hidden_w) + &hidden_b).tanh();
    let p = (hidden.dot(&w) + &b).softmax(1);
    let penalty = hidden_w.sqr().sum(All) + w.sqr().sum(All);
    let cost = -p.log().pick(rows(&y, &index, 20)).mean(All) + penalty * 0.0001;
    descend(cost, index, &[hidden_w, hidden_b, w, b], 0.01)
}

/// A function of one matrix on one thread, with an argument for it.
///
/// # Errors
/// As [`Builder::compile`].
pub fn of_matrix(
    shape: [usize; 2],
    formula: impl Fn(&Tensor) -> Tensor,
) -> Result<(Function, Array), Diagnostics> {
    let x = hypatia::input("x", DType::F32, &shape.map(Some));
    let function = Builder::new().inputs(&[&x]).outputs(&[&formula(&x)]).threads(1).compile()?;
    Ok((function, pattern(&shape)))
}
