//! The phases of compiling a training step, one by one, and all of them.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot compile its workload has nothing to measure")]

use std::sync::Arc;

use divan::{Bencher, black_box};
use hypatia::codegen::cpu::call::CpuProgram;
use hypatia::graph::collect::{Request, collect};
use hypatia::graph::differentiate::differentiate;
use hypatia::graph::specialise::{Arguments, specialise};
use hypatia::kernels::features::Features;
use hypatia::kernels::pool::Pool;
use hypatia::rewrite::{Numerics, Options, simplify};
use hypatia::{Graph, codegen};
use hypatia_benches::{Step, logistic_regression, multilayer_perceptron};

fn main() {
    divan::main();
}

const MODELS: [&str; 2] = ["logistic_regression", "multilayer_perceptron"];

fn step(model: &str) -> Step {
    if model == "logistic_regression" { logistic_regression(1200) } else { multilayer_perceptron(40) }
}

fn request(model: &str) -> Request {
    let step = step(model);
    let (inputs, outputs) = (vec![step.index], vec![step.cost]);
    Request { inputs, outputs, updates: step.updates, ..Request::default() }
}

fn options(gradients_taken: bool) -> Options {
    Options { numerics: Numerics::Real, gradients_taken }
}

fn specialised(model: &str) -> Graph {
    specialise(&collect(&request(model)).unwrap(), &Arguments::default()).unwrap()
}

fn differentiated(model: &str) -> Graph {
    differentiate(&specialised(model), &mut |g| simplify(g, options(false)).0).unwrap()
}

fn simplified(model: &str) -> Graph {
    simplify(&differentiated(model), options(true)).0
}

#[divan::bench(args = MODELS)]
fn a_collect(bencher: Bencher<'_, '_>, model: &str) {
    let request = request(model);
    bencher.bench(|| collect(black_box(&request)).unwrap());
}

#[divan::bench(args = MODELS)]
fn b_specialise(bencher: Bencher<'_, '_>, model: &str) {
    let graph = collect(&request(model)).unwrap();
    bencher.bench(|| specialise(black_box(&graph), &Arguments::default()).unwrap());
}

#[divan::bench(args = MODELS)]
fn c_differentiate_with_stabilising(bencher: Bencher<'_, '_>, model: &str) {
    let graph = specialised(model);
    bencher.bench(|| differentiate(black_box(&graph), &mut |g| simplify(g, options(false)).0).unwrap());
}

#[divan::bench(args = MODELS)]
fn c_differentiate_alone(bencher: Bencher<'_, '_>, model: &str) {
    let graph = specialised(model);
    bencher.bench(|| differentiate(black_box(&graph), &mut Graph::clone).unwrap());
}

#[divan::bench(args = MODELS)]
fn d_simplify(bencher: Bencher<'_, '_>, model: &str) {
    let graph = differentiated(model);
    bencher.bench(|| simplify(black_box(&graph), options(true)).0);
}

#[divan::bench(args = MODELS)]
fn e_schedule_lower_plan(bencher: Bencher<'_, '_>, model: &str) {
    let graph = simplified(model);
    bencher.bench(|| codegen::compile(black_box(&graph)).unwrap());
}

#[divan::bench(args = MODELS)]
fn f_machine_code(bencher: Bencher<'_, '_>, model: &str) {
    let program = Arc::new(codegen::compile(&simplified(model)).unwrap());
    let pool = Arc::new(Pool::new(1));
    let features = Features::detect();
    bencher.bench(|| CpuProgram::new(program.clone(), &features, pool.clone()).unwrap());
}

#[divan::bench(args = MODELS)]
fn g_all(bencher: Bencher<'_, '_>, model: &str) {
    let step = step(model);
    bencher.bench(|| step.compile(1).unwrap());
}
