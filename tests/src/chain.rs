//! A formula of a million nodes: everything walks iteratively, and time grows with the length.

use hypatia::{Array, DType, Tensor, function, grad, input};

/// `cos(sin(...x))`, which no rule makes shorter.
fn chain(x: &Tensor, length: usize) -> Tensor {
    (0..length).fold(x.clone(), |y, step| if step % 2 == 0 { y.sin() } else { y.cos() })
}

#[test]
fn a_million_nodes() {
    const LENGTH: usize = 1_000_000;
    let x = input("x", DType::F32, &[]);
    let y = chain(&x, LENGTH);
    let slope = grad(&y, [&x]).remove(0);
    let mut f = function(&[&x], &[&y, &slope], &[]).unwrap_or_else(|e| panic!("{e}"));
    let result = f.call(&[&Array::scalar(0.7f32)]).unwrap_or_else(|e| panic!("{e}"));
    // The fixed point of cos(sin(v)), where the slope of a pair of steps is below 1, so that their product vanishes.
    assert!((result.scalar(0) - 0.768_169_156_736_796).abs() < 1e-5, "{}", result.scalar(0));
    assert_eq!(result.scalar(1), 0.0);
}

#[test]
fn lengths() {
    for length in [1_000, 10_000, 100_000] {
        let x = input("x", DType::F32, &[]);
        let t = std::time::Instant::now();
        let y = chain(&x, length);
        eprintln!("{length} build {:?}", t.elapsed());
        let slope = grad(&y, [&x]).remove(0);
        let t = std::time::Instant::now();
        let mut f = function(&[&x], &[&y], &[]).unwrap_or_else(|e| panic!("{e}"));
        eprintln!("{length} forward {:?} {:?}", t.elapsed(), f.stages().unwrap().times);
        f.call(&[&Array::scalar(0.7f32)]).unwrap();
        let t = std::time::Instant::now();
        let mut f = function(&[&x], &[&y, &slope], &[]).unwrap_or_else(|e| panic!("{e}"));
        eprintln!("{length} with gradient {:?} {:?}", t.elapsed(), f.stages().unwrap().times);
        let t = std::time::Instant::now();
        let result = f.call(&[&Array::scalar(0.7f32)]).unwrap();
        eprintln!("{length} call {:?} {}", t.elapsed(), result.scalar(1));
        let t = std::time::Instant::now();
        drop(f);
        drop((y, slope));
        eprintln!("{length} drop {:?}", t.elapsed());
    }
}
