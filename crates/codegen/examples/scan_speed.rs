//! The speed of scans: microseconds a step, and what of them the kernels of the body take.
//!
//! `cargo run --release -p hypatia-codegen --example scan_speed`, with `-- show` for the programs as well. Bodies of few
//! elements are native loops; their time is in nanoseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use hypatia_codegen::cpu::call::CpuProgram;
use hypatia_graph::collect::{Request, collect};
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::streams::RandomStreams;
use hypatia_graph::tensor::shared;
use hypatia_graph::{Array, Tensor};
use hypatia_kernels::features::Features;
use hypatia_kernels::pool::Pool;

type Failure = Box<dyn std::error::Error>;

/// Numbers in [-scale, scale).
fn numbers(shape: &[usize], scale: f64) -> Array {
    let len = shape.iter().product::<usize>();
    let golden = |i: usize| ((i + 1) as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0;
    Array::new(shape, &(0..len).map(|i| (golden(i) * scale) as f32).collect::<Vec<_>>())
        .expect("as many numbers as the shape has")
}

/// Times a function of no inputs whose result is a loop of that many steps.
fn time(name: &str, steps: usize, result: &Tensor) -> Result<(), Failure> {
    let graph = collect(&Request { outputs: vec![result.clone()], ..Request::default() })?;
    let graph = specialise(&graph, &Arguments::default()).map_err(|e| format!("{e:?}"))?;
    let program = Arc::new(hypatia_codegen::compile(&graph)?);
    if std::env::args().any(|argument| argument == "show") {
        println!("{program}");
    }
    let pool = Arc::new(Pool::new(1));
    let begin = Instant::now();
    let mut cpu = CpuProgram::new(program.clone(), &Features::detect(), pool)?;
    let compiling = begin.elapsed();
    let mut values = Vec::new();
    for id in &program.shared {
        if let Some(LeafKind::Shared(cell)) = graph.leaf(*id).map(|leaf| &leaf.kind) {
            values.push(cell.lock().host.clone());
        }
    }
    let mut outputs: Vec<Array> = program
        .outputs
        .iter()
        .map(|(dtype, shape)| Array::zeros(*dtype, shape).expect("memory for the results"))
        .collect();
    let mut run = |cpu: &mut CpuProgram| -> Result<Duration, Failure> {
        let begin = Instant::now();
        cpu.run(&[], &mut values.iter_mut().collect::<Vec<_>>(), &mut outputs)?;
        Ok(begin.elapsed())
    };
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 5 || begin.elapsed() < Duration::from_secs(2) && times.len() < 1000 {
        times.push(run(&mut cpu)?);
    }
    times.sort();
    let best = times[times.len() / 4].as_secs_f64();
    let operations: u64 = program.steps.iter().map(|step| step.kernel.operations()).sum();
    println!(
        "{name}: {:.4} us a step, {:.3} ms in all, {:.1} GFLOP/s, {:.2} ms for machine code",
        best * 1e6 / steps as f64,
        best * 1e3,
        operations as f64 / best / 1e9,
        compiling.as_secs_f64() * 1e3
    );
    cpu.set_profiling(true);
    run(&mut cpu)?;
    let labels = program.all_steps();
    for (number, ((depth, step), time)) in labels.iter().zip(cpu.times().unwrap_or(&[])).enumerate() {
        let each = time.as_secs_f64() * 1e6 / steps as f64;
        let indent = 2 * depth;
        println!("    {each:9.3} us a step  {:indent$}{}: {}", "", step.label, cpu.plan().describe(number));
    }
    Ok(())
}

/// Loops whose bodies are a few elements: what a step costs is what its arithmetic waits for.
fn small_bodies() -> Result<(), Failure> {
    let steps = 10_000;
    let scalar = shared("scalar", Array::scalar(0.3f32));
    let recurrence = Scan::new()
        .carry(&scalar)
        .steps(steps)
        .run(|step| Next::new().carry(&step.carries[0] * 0.999 + 0.001));
    time("scalar recurrence", steps, &recurrence.last[0])?;

    let logistic = Scan::new().carry(&scalar).steps(steps).run(|step| {
        let x = &step.carries[0];
        Next::new().carry(x * 3.7 * (1.0 - x))
    });
    time("logistic map, all rows", steps, &logistic.carries[0])?;

    let newton = Scan::new().carry(&scalar).steps(steps).run(|step| {
        let x = &step.carries[0];
        let next = x - (x.exp() - 2.0) / x.exp();
        Next::new().carry(&next).until(next.gt(1e9))
    });
    time("Newton's iteration with a condition that never holds", steps, &newton.last[0])?;

    for [rows, n] in [[3, 10], [1, 8], [1, 16], [1, 32], [4, 16], [8, 12]] {
        let (h, w) = (shared("h", numbers(&[rows, n], 1.0)), shared("w", numbers(&[n, n], 0.2)));
        // Without the sum, numbers would vanish and become slow.
        let cell = Scan::new().carry(&h).steps(steps).run(|step| {
            let h = &step.carries[0];
            Next::new().carry(h.dot(&w) * 0.1 + h * 0.5 + 0.25)
        });
        time(&format!("linear cell of {rows} x {n}"), steps, &cell.last[0])?;
    }

    let state = shared("state", numbers(&[3], 1.0));
    let force = Scan::new().carry(&state).carry(&state).steps(steps).run(|step| {
        let [q, p] = &step.carries[..] else { return Next::new() };
        let p = p - q / (1.0 + (q * q).sum(0).broadcast_like(q)) * 0.01;
        Next::new().carry(q + &p * 0.01).carry(&p)
    });
    time("leapfrog steps in three dimensions", steps, &force.last[0])?;

    for n in [8, 16, 32, 64, 128, 256] {
        let x = shared("x", numbers(&[n], 1.0));
        let scaled = Scan::new()
            .carry(&x)
            .steps(steps)
            .run(|step| Next::new().carry(&step.carries[0] * 0.999 + 0.001));
        time(&format!("x * a + b of {n} elements"), steps, &scaled.last[0])?;
        let tanh =
            Scan::new().carry(&x).steps(steps).run(|step| Next::new().carry((&step.carries[0] * 1.1).tanh()));
        time(&format!("tanh of {n} elements"), steps, &tanh.last[0])?;
        let mean = Scan::new().carry(&x).steps(steps).run(|step| {
            let x = &step.carries[0];
            Next::new().carry(x - (x * x).sum(0).broadcast_like(x) * 1e-6)
        });
        time(&format!("sum of squares of {n} elements"), steps, &mean.last[0])?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let streams = RandomStreams::new(1);
    let (w, b, c) = (
        shared("w", numbers(&[784, 500], 0.05)),
        shared("b", numbers(&[500], 0.1)),
        shared("c", numbers(&[784], 0.1)),
    );
    let v0 = shared("v0", numbers(&[20, 784], 1.0));
    let chain = Scan::new().carry(&v0).steps(1000).run(|step| {
        let up = (step.carries[0].dot(&w) + &b).sigmoid();
        let h = streams.binomial([20, 500], 1, up);
        let down = (h.dot(w.t()) + &c).sigmoid();
        Next::new().carry(streams.binomial([20, 784], 1, &down))
    });
    time("gibbs sampling, 20 chains of 784 x 500, 1000 steps", 1000, &chain.last[0])?;

    small_bodies()?;

    let x = shared("x", numbers(&[10], 1.0));
    let tiny = Scan::new().carry(&x).steps(10_000).run(|step| Next::new().carry(&step.carries[0] * 0.999));
    time("one kernel of 10 elements", 10_000, &tiny.last[0])?;

    let (q, p) = (shared("q", numbers(&[3, 10], 1.0)), shared("p", numbers(&[3, 10], 1.0)));
    let precision = shared("precision", numbers(&[10, 10], 0.2));
    let leapfrog = Scan::new().carry(&q).carry(&p).steps(2000).run(|step| {
        let [q, p] = &step.carries[..] else { return Next::new() };
        let p = p - q.dot(&precision) * 0.01;
        Next::new().carry(q + &p * 0.01).carry(&p)
    });
    time("leapfrog steps, 3 chains of 10", 2000, &leapfrog.last[0])?;

    let rows = shared("rows", numbers(&[200, 88], 1.0));
    let (u, wu) = (shared("u", numbers(&[100], 0.1)), shared("wu", numbers(&[100, 100], 0.1)));
    let input = shared("input", numbers(&[88, 100], 0.1));
    let recurrent = Scan::new()
        .sequence(rows.dot(&input))
        .carry(&u)
        .run(|step| Next::new().carry((&step.sequences[0] + step.carries[0].dot(&wu)).tanh()));
    time("recurrent layer of 100, 200 steps", 200, &recurrent.carries[0])?;
    Ok(())
}
