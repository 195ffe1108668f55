//! A formula of a million nodes: everything walks iteratively.

use hypatia::{Array, DType, Tensor, function, grad, input};

const LENGTH: usize = 1_000_000;

/// `x + c1 * x`-like steps that no rule can collapse into one: each takes the sum of the last two.
fn chain(x: &Tensor) -> Tensor {
    let (mut last, mut sum) = (x.clone(), x * 0.5);
    for step in 0..LENGTH / 2 {
        let next = if step % 2 == 0 { sum.sin() } else { sum.cos() };
        last = &next + &last * 0.0;
        sum = last.clone();
    }
    sum
}

#[test]
fn a_million_nodes() {
    let x = input("x", DType::F32, &[]);
    let y = chain(&x);
    let slope = grad(&y, [&x]).remove(0);
    let mut f = function(&[&x], &[&y, &slope], &[]).unwrap_or_else(|e| panic!("{e}"));
    let result = f.call(&[&Array::scalar(0.7f32)]).unwrap_or_else(|e| panic!("{e}"));
    // sin and cos in turn have one attracting cycle: cos(sin(v)) = v at 0.768169..., sin of it 0.694819...
    let expected = 0.768_169_156_736_796;
    assert!((result.scalar(0) - expected).abs() < 1e-5, "{}", result.scalar(0));
    assert!(result.scalar(1).abs() < 1e-6, "{}", result.scalar(1));
}
