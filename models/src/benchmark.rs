//! Time of one training step of each model, on the data and by the method that other frameworks are measured with.
//!
//! The data are random with the extents of MNIST, resident, and a minibatch is chosen by its index; a step computes the
//! cost, its gradients and the updates, and is over when the cost is on the host. Windows of some seconds are timed, at
//! least three, and the one with the lowest median counts, because the speed of a virtual machine swings. Data and
//! initial weights come from [`crate::generator`], so that the first costs can be compared with those of others.

mod machine;

use std::time::{Duration, Instant};

use hypatia::{
    Array, Builder, CallError, Device, Diagnostics, Function, Shared, Tensor, grad, ix, scalar, shared,
};
use serde_json::{Value, json};

use crate::classifier::minibatch_inputs;
use crate::data::{CLASSES, IMAGE_PIXELS};
use crate::generator::Generator;
use crate::logistic_regression::LogisticRegression;
use crate::mlp::Mlp;
use crate::random_state::RandomState;

/// Rows of the random data.
const ROWS: usize = 50_000;
/// Rows whose pixels are blackened at a time.
const ROWS_AT_ONCE: usize = 1_000;
/// Share of the pixels that are not black.
const INK: f32 = 0.25;

/// A training step that can be timed.
pub struct Workload {
    /// The name that all frameworks know it by.
    pub name: &'static str,
    batch_size: usize,
    learning_rate: f64,
    build: fn(&Workload) -> Model,
}

/// Every workload there is.
pub const WORKLOADS: [Workload; 2] = [
    Workload { name: "logreg", batch_size: 600, learning_rate: 0.13, build: build_logistic_regression },
    Workload { name: "mlp", batch_size: 20, learning_rate: 0.01, build: build_mlp },
];

/// A model as formulas of a minibatch `x`, `y`.
struct Model {
    x: Tensor,
    y: Tensor,
    cost: Tensor,
    parameters: Vec<Shared>,
}

fn build_logistic_regression(_workload: &Workload) -> Model {
    let (x, y) = minibatch_inputs();
    let model = LogisticRegression::new(&x, IMAGE_PIXELS, CLASSES);
    let cost = model.negative_log_likelihood(&y);
    Model { x, y, cost, parameters: model.params().map(Clone::clone).to_vec() }
}

fn build_mlp(_workload: &Workload) -> Model {
    const HIDDEN: usize = 500;
    let (x, y) = minibatch_inputs();
    let model = Mlp::new(&mut RandomState::new(1234), &x, IMAGE_PIXELS, HIDDEN, CLASSES);
    let bound = (6.0 / (IMAGE_PIXELS + HIDDEN) as f64).sqrt() as f32;
    let draws = Generator::new(1234).random(IMAGE_PIXELS * HIDDEN);
    let weights: Vec<f32> = draws.into_iter().map(|x| (x * 2.0 - 1.0) * bound).collect();
    // The type is that of the layer, so the value is always taken.
    let _ = model.hidden_layer.w.set_value(Array::new(&[IMAGE_PIXELS, HIDDEN], &weights));
    let cost = model.regularised_cost(&y, 0.0, 1e-4);
    Model { x, y, cost, parameters: model.params().map(Clone::clone).to_vec() }
}

/// Random images and labels, those of NumPy's `default_rng(7)`.
fn random_images() -> (Array, Array) {
    let mut generator = Generator::new(7);
    let mut pixels = generator.random(ROWS * IMAGE_PIXELS);
    for rows in pixels.chunks_mut(ROWS_AT_ONCE * IMAGE_PIXELS) {
        for pixel in rows {
            if generator.next_f32() >= INK {
                *pixel = 0.0;
            }
        }
    }
    let labels: Vec<i32> =
        generator.integers(CLASSES as u32, ROWS).into_iter().map(|label| label as i32).collect();
    (Array::new(&[ROWS, IMAGE_PIXELS], &pixels), Array::vector(&labels))
}

/// A compiled training step.
struct Step {
    function: Function,
    index: Array,
    batches: i64,
}

impl Step {
    fn new(workload: &Workload, threads: usize, device: Device) -> Result<Step, Diagnostics> {
        let (images, labels) = random_images();
        let (images, labels) = (shared("x", images), shared("y", labels));
        let model = (workload.build)(workload);
        let index = scalar::<i64>("index");
        let size = workload.batch_size as i64;
        let rows = |set: &Shared| set.index(ix![&index * size..(&index + 1) * size]);
        let gradients = grad(&model.cost, &model.parameters);
        let updates: Vec<(&Shared, Tensor)> = model
            .parameters
            .iter()
            .zip(gradients)
            .map(|(parameter, gradient)| (parameter, parameter - gradient * workload.learning_rate))
            .collect();
        let function = Builder::new()
            .inputs(&[&index])
            .outputs(&[&model.cost])
            .updates(&updates)
            .given(&model.x, rows(&images))
            .given(&model.y, rows(&labels))
            .threads(threads)
            .device(device)
            .compile()?;
        Ok(Step { function, index: Array::scalar(0_i64), batches: ROWS as i64 / size })
    }

    /// The cost of a minibatch, after which the parameters are updated.
    fn call(&mut self, number: u64) -> Result<f64, CallError> {
        if let Some([index]) = self.index.as_mut_slice::<i64>() {
            *index = number as i64 % self.batches;
        }
        Ok(self.function.call(&[&self.index])?.scalar(0))
    }
}

/// How to measure.
#[derive(Copy, Clone, PartialEq, Debug)]
pub struct Method {
    /// Threads that a step may use; as many processors are set aside for it where the system allows that.
    pub threads: usize,
    /// Seconds in a window.
    pub seconds: f64,
    /// Where steps run.
    pub device: Device,
}

/// Windows that are timed at least.
const FEWEST_WINDOWS: usize = 3;
/// Windows that are timed while other programs keep the processors busy.
const MOST_WINDOWS: usize = 6;
/// Seconds after which no further window is begun.
const LONGEST: f64 = 60.0;
/// Processors that others may use in a window before it is distrusted.
const QUIET: f64 = 0.05;
/// Calls of a window at least.
const FEWEST_CALLS: usize = 5;

/// Why a workload could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchmarkError {
    /// The step does not compile.
    #[error("{0}")]
    Compile(#[from] Diagnostics),
    /// A step failed.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Milliseconds of the steps of a window, ascending, and what others used of the processors meanwhile.
struct Window {
    contention: f64,
    times: Vec<f64>,
}

/// Measures a workload in this process and describes the result by the keys that are common to all frameworks.
///
/// `started` is when the process began.
///
/// # Errors
///
/// [`BenchmarkError`].
pub fn measure(workload: &Workload, method: Method, started: Instant) -> Result<Value, BenchmarkError> {
    let processors = machine::set_aside(method.threads);
    let memory_before = machine::peak_memory_mb();
    let import = started.elapsed();
    let begin = Instant::now();
    let mut step = Step::new(workload, method.threads, method.device)?;
    let build = begin.elapsed();
    let mut costs = vec![step.call(0)?];
    let compile = begin.elapsed();
    let mut number = 1;
    while costs.len() < 5 {
        costs.push(step.call(number)?);
        number += 1;
    }
    warm_up(&mut step, &mut number)?;
    let mut windows: Vec<Window> = Vec::new();
    let begin_windows = Instant::now();
    let mut last_cost = f64::NAN;
    loop {
        windows.push(time_window(&mut step, &mut number, &mut last_cost, method.seconds, &processors)?);
        let quiet = windows.iter().any(|window| window.contention < QUIET);
        let enough =
            quiet || windows.len() >= MOST_WINDOWS || begin_windows.elapsed().as_secs_f64() > LONGEST;
        if windows.len() >= FEWEST_WINDOWS && enough {
            break;
        }
    }
    let mut all: Vec<f64> = windows.iter().flat_map(|window| window.times.iter().copied()).collect();
    all.sort_by(f64::total_cmp);
    let count = windows.len();
    let best = windows
        .into_iter()
        .min_by(|a, b| {
            let rank = |w: &Window| (w.contention >= QUIET, percentile(&w.times, 50.0));
            let ((a_busy, a_median), (b_busy, b_median)) = (rank(a), rank(b));
            a_busy.cmp(&b_busy).then(a_median.total_cmp(&b_median))
        })
        .unwrap_or(Window { contention: 0.0, times: Vec::new() });
    let stages = step.function.stages().map(|stages| stages.times.map(|time| time.as_secs_f64()));
    Ok(json!({
        "workload": workload.name,
        "peer": "hypatia",
        "threads": method.threads,
        "median_ms": percentile(&best.times, 50.0),
        "min_ms": percentile(&best.times, 0.0),
        "p90_ms": percentile(&best.times, 90.0),
        "median_all_windows_ms": percentile(&all, 50.0),
        "steps": all.len(),
        "import_s": import.as_secs_f64(),
        "build_s": build.as_secs_f64(),
        "first_call_s": (compile - build).as_secs_f64(),
        "compile_s": compile.as_secs_f64(),
        "function_compile_s": stages.map(|times| times.iter().sum::<f64>()),
        "peak_rss_mb": machine::peak_memory_mb(),
        "rss_after_import_mb": memory_before,
        "contention": best.contention,
        "windows": count,
        "costs5": costs,
        "last_cost": last_cost,
        "finite": last_cost.is_finite(),
        "versions": { "hypatia": env!("CARGO_PKG_VERSION") },
    }))
}

/// At least three calls and half a second.
fn warm_up(step: &mut Step, number: &mut u64) -> Result<(), CallError> {
    let begin = Instant::now();
    let mut calls = 0;
    while calls < 3 || begin.elapsed() < Duration::from_millis(500) {
        step.call(*number)?;
        *number += 1;
        calls += 1;
    }
    Ok(())
}

fn time_window(
    step: &mut Step,
    number: &mut u64,
    last_cost: &mut f64,
    seconds: f64,
    processors: &[usize],
) -> Result<Window, CallError> {
    let mut times = Vec::new();
    let (busy, own) = (machine::busy_seconds(processors), machine::own_seconds());
    let begin = Instant::now();
    loop {
        let before = Instant::now();
        *last_cost = step.call(*number)?;
        times.push(before.elapsed().as_secs_f64() * 1e3);
        *number += 1;
        let elapsed = begin.elapsed().as_secs_f64();
        if (elapsed >= seconds && times.len() >= FEWEST_CALLS) || elapsed > 10.0 * seconds {
            break;
        }
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let others = (machine::busy_seconds(processors) - busy) - (machine::own_seconds() - own);
    times.sort_by(f64::total_cmp);
    Ok(Window { contention: others / elapsed, times })
}

/// A percentile of ascending numbers, by linear interpolation as NumPy's; NaN where there are none.
fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let position = percent / 100.0 * sorted.len().saturating_sub(1) as f64;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    let (low, high) = (at(position.floor() as usize), at(position.ceil() as usize));
    low + (high - low) * position.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 4, 8], [0, 50, 90]).
        let found = [0.0, 50.0, 90.0].map(|percent| percentile(&[1.0, 2.0, 4.0, 8.0], percent));
        assert_eq!(found[..2], [1.0, 3.0]);
        assert!((found[2] - 6.8).abs() < 1e-12);
        assert!(percentile(&[], 50.0).is_nan());
    }
}
