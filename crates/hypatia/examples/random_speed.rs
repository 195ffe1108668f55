//! Times random numbers in compiled functions, in nanoseconds a number on one thread:
//! `cargo run --release -p hypatia --example random_speed`.

use std::time::Instant;

use hypatia::{Array, Builder, DType, RandomStreams, Tensor, shared};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let streams = RandomStreams::new(1);
    // A layer's worth of hidden units of a minibatch, which lies in the second-level cache.
    let shape = [20usize, 1284];
    let p = shared("p", Array::zeros(DType::F32, &shape));
    let draws: [(&str, Tensor); 6] = [
        ("uniform", streams.uniform(shape, 0.0, 1.0)),
        ("binomial, p constant", streams.binomial(shape, 1, 0.3)),
        ("binomial, p a tensor", streams.binomial(shape, 1, &p)),
        ("normal", streams.normal(shape, 0.0, 1.0)),
        ("integers", streams.integers(shape, 0, 100)),
        ("multinomial, a number of a row of 12", streams.multinomial(p.reshape([2140, 12]))),
    ];
    let count = (shape[0] * shape[1]) as f64;
    for (what, draw) in &draws {
        let mut f = Builder::new().outputs(&[draw]).threads(1).compile()?;
        f.call(&[])?;
        let mut times = Vec::new();
        for _ in 0..61 {
            let begin = Instant::now();
            for _ in 0..10 {
                f.call(&[])?;
            }
            times.push(begin.elapsed().as_secs_f64() * 1e9 / (10.0 * count));
        }
        times.sort_by(f64::total_cmp);
        println!("{what}: {:.2} ns a number (fastest {:.2})", times[30], times[0]);
        f.set_profiling(true);
        for _ in 0..100 {
            f.call(&[])?;
        }
        for row in f.profile().rows {
            let time = row.time.as_secs_f64() * 1e9 / (100.0 * count);
            println!("    {time:5.2} ns  {} ({})", row.label, row.how);
        }
    }
    Ok(())
}
