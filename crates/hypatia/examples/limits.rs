//! Two limits: what a call with nothing to compute costs, and a chain of a million nodes with its gradient.
//! `cargo run --release -p hypatia --example limits`

use std::time::Instant;

use hypatia::{Array, function, grad, scalar};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut nothing = function(&[], &[], &[])?;
    nothing.call(&[])?;
    let calls = 1_000_000;
    let begin = Instant::now();
    for _ in 0..calls {
        nothing.call(&[])?;
    }
    println!(
        "a call with nothing to compute: {:.0} ns",
        begin.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
    );

    let begin = Instant::now();
    let x = scalar::<f32>("x");
    let mut y = x.clone();
    let links: usize = std::env::args().nth(1).map_or(Ok(500_000), |n| n.parse())?;
    for _ in 0..links {
        y = (&y * 0.999_999).sin();
    }
    println!("{links} links of two nodes built in {:?}", begin.elapsed());
    let begin = Instant::now();
    let slope = grad(&y, [&x]).remove(0);
    let mut f = function(&[&x], &[&y, &slope], &[])?;
    println!("differentiated and compiled in {:?}", begin.elapsed());
    if let Some(stages) = f.stages() {
        println!(
            "  simplify, kernels, machine code: {:?}; {} kernels",
            stages.times,
            stages.program.steps.len()
        );
    }
    let begin = Instant::now();
    let value = f.call(&[&Array::scalar(1.0f32)])?;
    println!("y = {}, dy/dx = {} in {:?}", value.scalar(0)?, value.scalar(1)?, begin.elapsed());
    let begin = Instant::now();
    drop(f);
    drop((x, y, slope));
    println!("dropped in {:?}", begin.elapsed());
    Ok(())
}
