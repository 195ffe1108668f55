//! Times the matrix products of the models, shape by shape: `cargo run --release -p hypatia-kernels --example product_speed [FILTER]`.
//!
//! Prints the plan, and the median and the best of many repetitions in GFLOP/s; on one thread, or on the number in the
//! environment variable `THREADS`. Run it on a core of its own (`taskset -c 1`).

use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::pool::Pool;
use hypatia_kernels::product::{Element, Float, PackPlan, PairPlan, ProductPlan, ProductShape};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

/// Seconds of one call: median and best over rounds of enough calls for a clock tick to be negligible.
fn time(mut call: impl FnMut()) -> (f64, f64) {
    let start = Instant::now();
    call();
    let once = start.elapsed().as_secs_f64().max(1e-8);
    let calls = (2e-4 / once).ceil().max(1.0) as usize;
    let rounds = ((0.15 / (once * calls as f64)) as usize).clamp(5, 201);
    let mut seconds: Vec<f64> = (0..rounds)
        .map(|_| {
            let start = Instant::now();
            (0..calls).for_each(|_| call());
            start.elapsed().as_secs_f64() / calls as f64
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    (seconds[rounds / 2], seconds[0])
}

/// Numbers in (-0.5, 0.5).
fn random<E: Element>(count: usize, seed: u64) -> Vec<E> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        E::round_from((state >> 40) as f64 / f64::from(1 << 24) - 0.5)
    };
    (0..count).map(|_| next()).collect()
}

/// Prints what was measured: GFLOP/s of the median and of the best, the median, and the plan.
fn report(name: &str, operations: f64, (median, best): (f64, f64), plan: &str) {
    let speed = |seconds: f64| operations / seconds / 1e9;
    println!("{name:34} {:6.1} {:6.1} GFLOP/s {:9.2} us | {plan}", speed(median), speed(best), median * 1e6);
}

/// Plans, runs and prints one product.
fn measure<E: Element>(name: &str, shape: ProductShape, features: &Features, pool: &Pool) {
    let ProductShape { m, n, k, .. } = shape;
    let (a, b, mut c) = (random::<E>(m * k, 1), random(k * n, 2), random(m * n, 3));
    let mut packed = Vec::new();
    let mut pack_time = String::new();
    if shape.b_packed {
        let plan = PackPlan::new(shape.dtype, k, n, shape.b, features);
        packed = random(plan.packed_bytes() / shape.dtype.bytes(), 4);
        let (median, _) = time(|| plan.run(&b, &mut packed, pool).expect("the slices fit the plan"));
        pack_time = format!(" (packing {:.0} us)", median * 1e6);
    }
    let b = if shape.b_packed { &packed } else { &b };
    let plan = ProductPlan::new(shape, features, pool.threads());
    let times = time(|| plan.run(&a, b, &mut c, 0.5, 0.5, pool).expect("the slices fit the plan"));
    report(name, shape.operations(), times, &format!("{plan}{pack_time}"));
}

/// The same for the gradient of x and the update of W at one go, where there is a plan for that.
fn measure_pair(name: &str, back: ProductShape, weights: ProductShape, features: &Features, pool: &Pool) {
    let plan = |shape| ProductPlan::new(shape, features, pool.threads());
    let Some(pair) = PairPlan::new(&plan(back), &plan(weights)) else { return };
    let ProductShape { m, n, k, .. } = back;
    let (d, x) = (random::<f32>(m * k, 1), random(m * n, 2));
    let (mut w, mut c) = (random(n * k, 3), random(m * n, 4));
    let factors = [[1.0, 0.0], [-1e-6, 1.0]];
    let times = time(|| pair.run(&d, &x, &mut w, &mut c, factors, pool).expect("the slices fit the plan"));
    report(name, back.operations() + weights.operations(), times, &pair.to_string());
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let pool = Pool::new(number("THREADS").unwrap_or(1));
    let limit = match std::env::var("KERNELS").as_deref() {
        Ok("portable") => InstructionSet::Portable,
        Ok("avx2") => InstructionSet::Avx2,
        Ok(_) | Err(_) => InstructionSet::Avx512,
    };
    let features = Features::detect().restricted_to(limit);
    println!("{features}; {} threads; median and best", pool.threads());
    if pool.threads() > 1 {
        // Each part waits for all to have begun, so that every thread takes one.
        let round = std::sync::atomic::AtomicUsize::new(0);
        let (median, best) = time(|| {
            let parts = pool.threads();
            let goal = round.load(Relaxed) + parts;
            pool.run(parts, &|_, _| {
                round.fetch_add(1, Relaxed);
                while round.load(Relaxed) < goal {
                    std::hint::spin_loop();
                }
            });
        });
        println!("fork and join with all threads: {:.2} us, best {:.2} us", median * 1e6, best * 1e6);
    }
    let layers = [
        (784, 500),
        (500, 784),
        (500, 10),
        (784, 10),
        (784, 1000),
        (1000, 1000),
        (1000, 10),
        (105, 256),
        (256, 256),
        (88, 150),
        (150, 88),
        (100, 88),
        (100, 150),
        (100, 100),
    ];
    for (inputs, outputs) in layers {
        for m in [1, 10, 20, 40, 100, 128, 500, 600] {
            let forward = ProductShape::row_major(Float::F32, m, inputs, outputs);
            // x W, the gradient of W (in place: W -= rate * x' d), and the gradient of x (d W').
            let weights =
                ProductShape::row_major(Float::F32, inputs, m, outputs).a_transposed().accumulating();
            let back = ProductShape::row_major(Float::F32, m, outputs, inputs).b_transposed();
            for (kind, shape) in [
                ("forward", forward),
                ("forward packed", forward.packed()),
                ("weights", weights),
                ("back", back),
                ("back packed", back.packed()),
            ] {
                let name = format!("{kind} {}x{}x{}", shape.m, shape.k, shape.n);
                if name.contains(&filter) {
                    measure::<f32>(&name, shape, &features, &pool);
                }
            }
            let name = format!("back and weights {m}x{outputs}x{inputs}");
            if name.contains(&filter) {
                measure_pair(&name, back, weights, &features, &pool);
            }
        }
    }
    for (m, k, n) in [(500, 784, 500), (1000, 1000, 1000), (1, 100_000, 1)] {
        for (kind, dtype) in [("general f32", Float::F32), ("general f64", Float::F64)] {
            let shape = ProductShape::row_major(dtype, m, k, n);
            let name = format!("{kind} {m}x{k}x{n}");
            if name.contains(&filter) {
                match dtype {
                    Float::F32 => measure::<f32>(&name, shape, &features, &pool),
                    Float::F64 => measure::<f64>(&name, shape, &features, &pool),
                }
            }
        }
    }
}
