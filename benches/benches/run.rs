//! Calls: what one costs that does nothing, single kernels, matrix products, and whole training steps.
#![allow(clippy::unwrap_used, reason = "a benchmark that cannot run its workload has nothing to measure")]

use divan::counter::{BytesCount, ItemsCount};
use divan::{Bencher, black_box};
use hypatia::{Array, Builder, DType, Function, Tensor, function, input};
use hypatia_benches::{Step, logistic_regression, multilayer_perceptron, of_matrix, pattern};

fn main() {
    divan::main();
}

#[divan::bench]
fn empty_call(bencher: Bencher<'_, '_>) {
    let mut nothing = function(&[], &[], &[]).unwrap();
    bencher.bench_local(|| black_box(nothing.call(&[]).unwrap().arrays().len()));
}

/// Ten elements in, ten out: the price of an argument and a kernel.
#[divan::bench]
fn small_call(bencher: Bencher<'_, '_>) {
    let (function, x) = of_matrix([1, 10], |x| x + 1.0).unwrap();
    call(bencher, function, &x);
}

fn call(bencher: Bencher<'_, '_>, mut function: Function, x: &Array) {
    bencher.bench_local(|| black_box(function.call(&[black_box(x)]).unwrap().arrays().len()));
}

const SHAPES: [[usize; 2]; 2] = [[20, 500], [600, 784]];

/// Elements are counted; bytes are those read and written once.
fn kernel(bencher: Bencher<'_, '_>, shape: [usize; 2], formula: fn(&Tensor) -> Tensor) {
    let (function, x) = of_matrix(shape, formula).unwrap();
    call(bencher.counter(ItemsCount::new(shape[0] * shape[1])), function, &x);
}

#[divan::bench(args = SHAPES)]
fn elementwise_chain(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    kernel(bencher, shape, |x| (x * 2.0 + 1.0).sigmoid() * x - 0.5);
}

#[divan::bench(args = SHAPES)]
fn tanh(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    kernel(bencher, shape, Tensor::tanh);
}

#[divan::bench(args = SHAPES)]
fn softmax(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    kernel(bencher, shape, |x| x.softmax(1));
}

#[divan::bench(args = SHAPES)]
fn sum_of_rows(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    kernel(bencher, shape, |x| x.sum(1));
}

#[divan::bench(args = SHAPES)]
fn sum_of_columns(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    kernel(bencher, shape, |x| x.sum(0));
}

#[divan::bench(args = SHAPES)]
fn transpose(bencher: Bencher<'_, '_>, shape: [usize; 2]) {
    let (function, x) = of_matrix(shape, Tensor::t).unwrap();
    call(bencher.counter(BytesCount::new(8 * shape[0] * shape[1])), function, &x);
}

/// m, k, n of the products of the tutorials' models; items are floating-point operations.
#[divan::bench(args = [[20, 784, 500], [20, 500, 784], [784, 20, 500], [600, 784, 10], [784, 600, 10], [512, 512, 512]])]
fn product(bencher: Bencher<'_, '_>, shape: [usize; 3]) {
    let [m, k, n] = shape;
    let (a, b) = (input("a", DType::F32, &[Some(m), Some(k)]), input("b", DType::F32, &[Some(k), Some(n)]));
    let mut product = Builder::new().inputs(&[&a, &b]).outputs(&[&a.dot(&b)]).threads(1).compile().unwrap();
    let (a, b) = (pattern(&[m, k]), pattern(&[k, n]));
    bencher
        .counter(ItemsCount::new(2 * m * k * n))
        .bench_local(|| black_box(product.call(&[black_box(&a), black_box(&b)]).unwrap().arrays().len()));
}

fn training_step(bencher: Bencher<'_, '_>, step: &Step, batches: i64, threads: usize) {
    let mut function = step.compile(threads).unwrap();
    let mut batch = 0;
    bencher.bench_local(|| {
        batch = (batch + 1) % batches;
        black_box(function.call(&[&Array::scalar(batch)]).unwrap().scalar(0).unwrap())
    });
}

#[divan::bench(args = [1, 2])]
fn step_of_logistic_regression(bencher: Bencher<'_, '_>, threads: usize) {
    training_step(bencher, &logistic_regression(12_000), 20, threads);
}

#[divan::bench(args = [1, 2])]
fn step_of_multilayer_perceptron(bencher: Bencher<'_, '_>, threads: usize) {
    training_step(bencher, &multilayer_perceptron(10_000), 500, threads);
}
