//! Functions as users call them.

use hypatia::{All, Array, DType, Tensor, function, grad, ix, matrix, scalar, shared, vector};

#[test]
fn a_formula_is_computed() {
    let (x, y) = (vector::<f32>("x"), vector::<f32>("y"));
    let z = (&x * 2.0 + &y).exp();
    let mut f = function(&[&x, &y], &[&z], &[]).unwrap();
    let r = f.call(&[&Array::vector(&[0.0f32, 1.0, 2.0]), &Array::vector(&[1.0f32, 0.0, -4.0])]).unwrap();
    let got = r.array(0).to_vec::<f32>().unwrap();
    for (g, e) in got.iter().zip([1f64.exp(), 2f64.exp(), 1.0]) {
        assert!((f64::from(*g) - e).abs() < 1e-6 * e, "{got:?}");
    }
}

#[test]
fn logistic_regression_learns() {
    let (n, d, c) = (200usize, 5usize, 3usize);
    let data: Vec<f32> = (0..n * d).map(|i| ((i * 7919 % 101) as f32) / 50.0 - 1.0).collect();
    let labels: Vec<i32> = (0..n)
        .map(|i| {
            let r = &data[i * d..];
            (0..3).max_by(|a, b| (r[*a]).total_cmp(&r[*b])).unwrap() as i32
        })
        .collect();
    let x = shared("x", Array::new(&[n, d], &data));
    let y = shared("y", Array::vector(&labels));
    let w = shared("w", Array::zeros(DType::F32, &[d, c]));
    let b = shared("b", Array::zeros(DType::F32, &[c]));
    let i = scalar::<i64>("i");
    let rows = |t: &Tensor| t.index(ix![&i * 20..(&i + 1) * 20]);
    let p = (rows(&x).dot(&w) + &b).softmax(1);
    let cost = -p.log().pick(rows(&y)).mean(All);
    let g = grad(&cost, [&w, &b]);
    let mut train = function(&[&i], &[&cost], &[(&w, &w - &g[0] * 0.5), (&b, &b - &g[1] * 0.5)]).unwrap();
    let mut costs = Vec::new();
    for epoch in 0..30 {
        for batch in 0..10i64 {
            let cost = train.call(&[&Array::scalar(batch)]).unwrap().scalar(0);
            if batch == 0 {
                costs.push(cost);
            }
        }
        let _ = epoch;
    }
    eprintln!("{}", train.stages().unwrap().simplified);
    eprintln!("{}", train.stages().unwrap().program);
    eprintln!("{:?} {:?}", costs, train.stages().unwrap().times);
    assert!((costs[0] - 3f64.ln()).abs() < 1e-5 && costs[29] < 0.45, "{costs:?}");
}

#[test]
fn shapes_are_met_at_the_call() {
    let x = matrix::<f32>("x");
    let y = x.sum(0) + x.max(1).sum(All);
    let mut f = function(&[&x], &[&y], &[]).unwrap();
    let a = Array::new(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert_eq!(f.call(&[&a]).unwrap().array(0).to_vec::<f32>().unwrap(), [14.0, 16.0, 18.0]);
    let b = Array::new(&[1, 2], &[1.0f32, 2.0]);
    assert_eq!(f.call(&[&b]).unwrap().array(0).to_vec::<f32>().unwrap(), [3.0, 4.0]);
    let e = f.call(&[&Array::scalar(1.0f32)]).unwrap_err().to_string();
    assert!(e.contains("does not fit the input `x`"), "{e}");
}
