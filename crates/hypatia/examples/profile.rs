//! Times a training step of a classifier on random data and prints where the time goes:
//! `cargo run --release -p hypatia --example profile -- [mlp|logreg] [program]`.

use std::time::Instant;

use hypatia::{All, Array, Builder, Tensor, grad, ix, scalar, shared};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mlp = arguments.first().is_none_or(|name| name == "mlp");
    let batch = if mlp { 20 } else { 600 };
    let mut state = 1u32;
    let mut random = |n: usize, scale: f32| -> Vec<f32> {
        let next = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * scale
        };
        (0..n).map(next).collect()
    };
    let rows = 50_000;
    let pixels: Vec<f32> =
        random(rows * 784, 2.0).into_iter().map(|x| if x > 1.0 { x - 1.0 } else { 0.0 }).collect();
    let labels: Vec<i32> = random(rows, 5.0).into_iter().map(|x| (x + 5.0) as i32 % 10).collect();
    let x = shared("x", Array::new(&[rows, 784], &pixels));
    let y = shared("y", Array::vector(&labels));
    let i = scalar::<i64>("i");
    let part = |t: &Tensor| t.index(ix![&i * batch..(&i + 1) * batch]);
    let (x, y) = (part(&x), part(&y));
    let begin = Instant::now();
    let (logits, params, decay) = if mlp {
        let w1 = shared("w1", Array::new(&[784, 500], &random(784 * 500, 0.068)));
        let b1 = shared("b1", Array::new(&[500], &[0f32; 500]));
        let w2 = shared("w2", Array::new(&[500, 10], &random(5000, 0.1)));
        let b2 = shared("b2", Array::new(&[10], &[0f32; 10]));
        let hidden = (x.dot(&w1) + &b1).tanh();
        let decay = (w1.sqr().sum(All) + w2.sqr().sum(All)) * 1e-4;
        (hidden.dot(&w2) + &b2, vec![w1, b1, w2, b2], Some(decay))
    } else {
        let w = shared("w", Array::new(&[784, 10], &[0f32; 7840]));
        let b = shared("b", Array::new(&[10], &[0f32; 10]));
        (x.dot(&w) + &b, vec![w, b], None)
    };
    let mut cost = -logits.softmax(1).log().pick(&y).mean(All);
    if let Some(decay) = decay {
        cost = cost + decay;
    }
    let rate = if mlp { 0.01 } else { 0.13 };
    let gradients = grad(&cost, &params);
    let updates: Vec<_> = params.iter().zip(&gradients).map(|(p, g)| (p, p - g * rate)).collect();
    let mut train = Builder::new().inputs(&[&i]).outputs(&[&cost]).updates(&updates).threads(1).compile()?;
    println!("built and compiled in {:?}", begin.elapsed());
    if arguments.get(1).is_some_and(|a| a == "program") {
        let stages = train.stages().ok_or("no stages")?;
        println!("{}\n{}", stages.simplified, stages.program);
    }
    println!("stages {:?}", train.stages().map(|s| s.times));
    let batches = (rows as i64) / batch;
    let mut costs = Vec::new();
    let mut times = Vec::new();
    for step in 0..2000i64 {
        let index = Array::scalar(step % batches);
        let begin = Instant::now();
        let cost = train.call(&[&index])?.scalar(0)?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        if step < 3 {
            costs.push(cost);
        }
    }
    times.sort_by(f64::total_cmp);
    println!("costs {costs:?}; step median {:.3} ms, min {:.3} ms", times[1000], times[0]);
    train.set_profiling(true);
    for step in 0..500 {
        train.call(&[&Array::scalar(step % batches)])?;
    }
    print!("{}", train.profile());
    Ok(())
}
