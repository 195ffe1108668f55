//! Formulas of a million nodes: everything walks iteratively, and time grows with the length.

use hypatia::{Array, DType, Tensor, function, grad, input};

/// `cos(sin(...x))`, which no rule makes shorter.
fn chain(x: &Tensor, length: usize) -> Tensor {
    (0..length).fold(x.clone(), |y, step| if step % 2 == 0 { y.sin() } else { y.cos() })
}

/// Where `cos(sin(v)) = v`.
const FIXED_POINT: f64 = 0.768_169_156_736_796;

#[test]
fn a_million_nodes() {
    let x = input("x", DType::F32, &[]);
    let y = chain(&x, 1_000_000);
    // Gradients double and redouble the nodes; they are taken of a part, to keep the test short.
    let part = chain(&x, 50_000);
    let slope = grad(&part, [&x]).remove(0);
    let mut f = function(&[&x], &[&y], &[]).unwrap_or_else(|e| panic!("{e}"));
    let mut g = function(&[&x], &[&part, &slope], &[]).unwrap_or_else(|e| panic!("{e}"));
    let start = Array::scalar(0.7f32);
    let result = f.call(&[&start]).unwrap_or_else(|e| panic!("{e}")).scalar(0).unwrap();
    assert!((result - FIXED_POINT).abs() < 1e-5, "{result}");
    let result = g.call(&[&start]).unwrap_or_else(|e| panic!("{e}"));
    assert!((result.scalar(0).unwrap() - FIXED_POINT).abs() < 1e-5, "{}", result.scalar(0).unwrap());
    // A pair of steps has a slope below 1, so the product of all of them is the smallest number or none.
    assert!(result.scalar(1).unwrap().abs() <= f64::from(f32::MIN_POSITIVE), "{}", result.scalar(1).unwrap());
}
