//! Times the convolutions of a training step of LeNet, forward and both gradients, beside the fastest product there is:
//! `cargo run --release -p hypatia-kernels --example convolution_speed [FILTER]`.
//!
//! Prints the best of many repetitions in GFLOP/s, that of the product, the share, the median share of calls that take turns, and
//! the plan; on one thread, or on the number in the environment variable `THREADS`. Multiplications with zeros around an image
//! are not counted. Run it on a core of its own (`taskset -c 1`).

use hypatia_kernels::convolution::{Axis, ConvolutionPlan, ConvolutionShape};
use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::pool::Pool;
use hypatia_kernels::product::{Float, ProductPlan, ProductShape};
use std::time::Instant;

/// Seconds of a call.
fn time(mut call: impl FnMut()) -> f64 {
    let start = Instant::now();
    call();
    start.elapsed().as_secs_f64()
}

/// Seconds of two calls that take turns, the least of each, and the median of their quotients: the speed of a processor that
/// others use swings, and both feel it.
fn compare(mut first: impl FnMut(), mut second: impl FnMut()) -> ([f64; 2], f64) {
    let begin = Instant::now();
    let mut all = Vec::new();
    while begin.elapsed().as_secs_f64() < 1.0 || all.len() < 7 {
        all.push([time(&mut first), time(&mut second)]);
    }
    let least =
        [0, 1].map(|call: usize| all.iter().fold(f64::INFINITY, |least, times| least.min(times[call])));
    all.sort_by(|a, b| f64::total_cmp(&(a[0] / a[1]), &(b[0] / b[1])));
    let [a, b] = all[all.len() / 2];
    (least, a / b)
}

/// Numbers in (-0.5, 0.5).
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    (0..count).map(|_| next()).collect()
}

fn row_major(extents: &[usize]) -> Vec<isize> {
    let mut strides = vec![1isize; extents.len()];
    for axis in (1..extents.len()).rev() {
        strides[axis - 1] = strides[axis] * extents[axis] as isize;
    }
    strides
}

/// A layer, the gradient by its filters and the gradient by its input.
fn layer(images: usize, channels: usize, filters: usize, input: usize, taps: usize) -> [ConvolutionShape; 3] {
    let result = input + 1 - taps;
    let axes = |input, taps, result, low| {
        vec![Axis { input, taps, result, low, stride: 1, spread: 1, dilation: 1 }; 2]
    };
    let x = row_major(&[images, channels, input, input]);
    let w = row_major(&[filters, channels, taps, taps]);
    let y = row_major(&[images, filters, result, result]);
    let turned = |strides: &[isize]| vec![strides[1], strides[0], strides[2], strides[3]];
    let of = |images, filters, channels, axes, x, w| ConvolutionShape {
        dtype: Float::F32,
        lead: Vec::new(),
        images,
        filters,
        channels,
        axes,
        x,
        w,
    };
    [
        of(images, filters, channels, axes(input, taps, result, 0), x.clone(), w.clone()),
        of(channels, filters, images, axes(input, result, taps, 0), turned(&x), turned(&y)),
        of(images, channels, filters, axes(result, taps, input, taps as isize - 1), y, turned(&w)),
    ]
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let threads = std::env::var("THREADS").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let pool = Pool::new(threads);
    let limit = match std::env::var("KERNELS").as_deref() {
        Ok("portable") => InstructionSet::Portable,
        Ok("avx2") => InstructionSet::Avx2,
        Ok(_) | Err(_) => InstructionSet::Avx512,
    };
    let features = Features::detect().restricted_to(limit);
    println!("{features}; {threads} threads");
    let product = ProductPlan::new(ProductShape::row_major(Float::F32, 192, 384, 384), &features, threads);
    let (a, b, mut c) = (random(192 * 384, 1), random(384 * 384, 2), random(192 * 384, 3));
    for images in [500, 20] {
        for (name, [channels, filters, input, taps]) in
            [("layer 1", [1, 20, 28, 5]), ("layer 2", [20, 50, 12, 5])]
        {
            let result = input + 1 - taps;
            let operations = 2.0 * (images * channels * filters * taps * taps * result * result) as f64;
            let kinds = ["forward", "by filters", "by input"];
            for (kind, shape) in kinds.iter().zip(layer(images, channels, filters, input, taps)) {
                let name = format!("{name} {kind} {images}");
                if !name.contains(&filter) {
                    continue;
                }
                let count = |extents: [usize; 2], of: fn(&Axis) -> usize| {
                    extents[0] * extents[1] * shape.axes.iter().map(of).product::<usize>()
                };
                let x = random(count([shape.images, shape.channels], |axis| axis.input), 1);
                let w = random(count([shape.filters, shape.channels], |axis| axis.taps), 2);
                let mut y = random(count([shape.images, shape.filters], |axis| axis.result), 3);
                let plan = ConvolutionPlan::new(shape, &features, threads);
                let ([ours, peak], quotient) = compare(
                    || plan.run(&x, &w, &mut y, &pool).expect("the slices fit the plan"),
                    || product.run(&a, &b, &mut c, 1.0, 0.0, &pool).expect("the slices fit the plan"),
                );
                let reached = operations / product.shape().operations();
                println!(
                    "{name:24} {:6.1} of {:5.1} GFLOP/s, {:3.0} %, median {:3.0} % | {plan}",
                    operations / ours / 1e9,
                    product.shape().operations() / peak / 1e9,
                    100.0 * reached * peak / ours,
                    100.0 * reached / quotient,
                );
            }
        }
    }
}
