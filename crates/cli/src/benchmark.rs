//! Time of one step of each model, on the data and by the method that other frameworks are measured with.
//!
//! A workload is a compiled function that is called once a step, with the index of a minibatch or with nothing; its
//! first result is the cost, and a step is over when that is on the host. Windows of some seconds are timed, at least
//! three, and the one with the lowest median counts, because the speed of a virtual machine swings. Data and initial
//! weights come from [`hypatia_datasets::numpy`], so that the first costs can be compared with those of others. A new workload
//! is a function below this module and a line in [`WORKLOADS`].

mod autoencoders;
mod boltzmann;
mod classifiers;
mod machine;
mod music;
mod samplers;
mod sentiment;
mod weights;

use std::time::{Duration, Instant};

use hypatia::{Builder, CallError, Device, Diagnostics, Function};
use serde_json::{Value, json};

use crate::resident::index_of;

/// A step that can be timed.
pub struct Workload {
    /// The name that all frameworks know it by.
    pub name: &'static str,
    build: fn(Compilation) -> Result<Step, Diagnostics>,
}

/// Every workload there is.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "logreg", build: classifiers::logreg },
    Workload { name: "mlp", build: classifiers::mlp },
    Workload { name: "lenet_b500", build: classifiers::lenet_b500 },
    Workload { name: "lenet_b20", build: classifiers::lenet_b20 },
    Workload { name: "da", build: autoencoders::da },
    Workload { name: "ca", build: autoencoders::ca },
    Workload { name: "ca_3d", build: autoencoders::ca_3d },
    Workload { name: "sda_pretrain", build: autoencoders::sda_pretrain },
    Workload { name: "sda_finetune", build: classifiers::sda_finetune },
    Workload { name: "rbm_cd1", build: boltzmann::rbm_cd1 },
    Workload { name: "rbm_pcd15", build: boltzmann::rbm_pcd15 },
    Workload { name: "rbm_sample", build: boltzmann::rbm_sample },
    Workload { name: "dbn_pretrain", build: boltzmann::dbn_pretrain },
    Workload { name: "dbn_finetune", build: classifiers::dbn_finetune },
    Workload { name: "rnnrbm_train", build: music::rnnrbm_train },
    Workload { name: "rnnrbm_gen", build: music::rnnrbm_gen },
    Workload { name: "hmc_3x10", build: samplers::hmc_3x10 },
    Workload { name: "hmc_128x105", build: samplers::hmc_128x105 },
    Workload { name: "mcrbm", build: samplers::mcrbm },
    Workload { name: "lstm", build: sentiment::lstm },
];

/// How the function of a workload is compiled.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct Compilation {
    threads: usize,
    device: Device,
}

impl Compilation {
    fn builder(self) -> Builder {
        Builder::new().threads(self.threads).device(self.device)
    }
}

/// A compiled step, whose first output is the cost.
struct Step {
    function: Function,
    /// How many minibatches there are, of which the function takes the index of one.
    minibatches: Option<u64>,
}

impl Step {
    /// A step that takes the index of one of so many minibatches.
    fn of_minibatches(function: Function, batches: usize) -> Step {
        Step { function, minibatches: Some(batches.max(1) as u64) }
    }

    /// A step that takes nothing.
    fn without_input(function: Function) -> Step {
        Step { function, minibatches: None }
    }

    /// The cost of the step of that number.
    fn call(&mut self, number: u64) -> Result<f64, CallError> {
        match self.minibatches {
            Some(batches) => self.function.call(&[&index_of(number % batches)])?.scalar(0),
            None => self.function.call(&[])?.scalar(0),
        }
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
    /// Whether to time every kernel of some further steps.
    pub profile: bool,
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
/// Seconds of steps that are profiled.
const PROFILED: f64 = 0.5;

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
    let compilation = Compilation { threads: method.threads, device: method.device };
    let mut step = (workload.build)(compilation)?;
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
    let mut entry = json!({
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
    });
    if method.profile {
        entry["profile"] = profile(&mut step, &mut number)?.into();
    }
    Ok(entry)
}

/// What the kernels of a step take, as text.
fn profile(step: &mut Step, number: &mut u64) -> Result<String, CallError> {
    step.function.set_profiling(true);
    let begin = Instant::now();
    while begin.elapsed().as_secs_f64() < PROFILED {
        step.call(*number)?;
        *number += 1;
    }
    Ok(step.function.profile().to_string())
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
