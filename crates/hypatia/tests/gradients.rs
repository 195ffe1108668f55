//! Gradients of compiled functions where formulas have corners: no steps, zeros, roots.

use hypatia::{
    All, Array, Builder, DType, Next, Numerics, Scan, Tensor, function, grad, matrix, scalar, shared, stack,
    vector,
};

/// The results of a formula of one vector under both policies, which agree.
fn results(outputs: &[&Tensor], input: &Tensor, value: &Array) -> Vec<Vec<f64>> {
    let found = [Numerics::Real, Numerics::Strict].map(|numerics| {
        let builder = Builder::new().inputs(&[input]).outputs(outputs).numerics(numerics);
        let mut f = builder.compile().unwrap_or_else(|faults| panic!("{faults}"));
        let results = f.call(&[value]).unwrap_or_else(|fault| panic!("{fault}"));
        let numbers = |array: &Array| (0..array.len()).map(|i| array.get(i).to_f64()).collect();
        results.arrays().iter().map(numbers).collect::<Vec<Vec<f64>>>()
    });
    assert_eq!(found[0], found[1]);
    found[0].clone()
}

#[test]
fn a_training_step_works_with_data_of_any_length() {
    let x = matrix::<f64>("x");
    let w = shared("w", Array::vector(&[0.5f64, 0.5]));
    let hidden = Scan::new()
        .sequence(&x)
        .carry(&w * 0.0)
        .run(|s| Next::new().carry((&s.sequences[0] + &s.carries[0] * &w).tanh()));
    let cost = hidden.carries[0].sqr().sum(All) + w.sqr().sum(All);
    let slope = grad(&cost, [Tensor::from(&w)]).remove(0);
    let mut train = function(&[&x], &[&cost], &[(&w, &w - &slope * 0.1)]).unwrap();
    for (steps, expected) in [(0, 0.4), (3, 0.32), (0, 0.256)] {
        train.call(&[&Array::zeros(DType::F64, &[steps, 2]).unwrap()]).unwrap();
        let found = w.get_value().unwrap().get(0).to_f64();
        assert!((found - expected).abs() < 1e-12, "{steps}: {found}");
    }
    // Where a rule takes the path away, too.
    let n = scalar::<i64>("n");
    let last =
        Scan::new().carry(&w - &w).steps(&n).run(|s| Next::new().carry(&s.carries[0] * &w)).last.remove(0);
    let slope = grad(&(last.sum(All) + (&w - &w).sum(All)), [Tensor::from(&w)]).remove(0);
    let mut f = function(&[&n], &[&slope], &[]).unwrap();
    for steps in [0i64, 1, 2] {
        assert_eq!(f.call(&[&Array::scalar(steps)]).unwrap().array(0).to_vec::<f64>().unwrap(), [0.0; 2]);
    }
}

#[test]
fn products_and_norms_at_zero() {
    let v = vector::<f64>("v");
    let zeros = |n: usize| Array::zeros(DType::F64, &[n]).unwrap();
    let total = |t: &Tensor| t.sum(All);
    let cube = stack(&vec![total(&v); 3], 0).prod(All);
    let first = grad(&cube, [&v]).remove(0);
    let second = grad(&total(&first), [&v]).remove(0);
    let third = grad(&total(&second), [&v]).remove(0);
    let fourth = grad(&total(&third), [&v]).remove(0);
    let found = results(&[&cube, &first, &second, &third, &fourth], &v, &zeros(1));
    assert_eq!(found, [[0.0], [0.0], [0.0], [6.0], [0.0]]);
    let others = grad(&v.prod(All), [&v]).remove(0);
    let found = results(&[&others], &v, &Array::vector(&[2.0f64, 0.0, 3.0, 5.0, 7.0]));
    assert_eq!(found[0], [0.0, 210.0, 0.0, 0.0, 0.0]);

    let norms: [(&str, Tensor); 8] = [
        ("norm", v.sqr().sum(All).sqrt()),
        ("std", v.std(All)),
        ("dot", v.dot(&v).sqrt()),
        ("product", (&v * &v).sum(All).sqrt()),
        ("mean", (v.sqr().mean(All) / 2.0).sqrt()),
        ("half power", v.pow(2.0).sum(All).pow(0.5)),
        ("cubic", v.abs().pow(3.0).sum(All).pow(1.0 / 3.0)),
        ("distance", (&v - v.relu()).sqr().sum(All).sqrt()),
    ];
    for (name, norm) in &norms {
        let first = grad(norm, [&v]).remove(0);
        let second = grad(&(&first * (&v + 2.0)).sum(All), [&v]).remove(0);
        for n in [1, 3] {
            let found = results(&[norm, &first, &second], &v, &zeros(n));
            assert_eq!(found, [vec![0.0], vec![0.0; n], vec![0.0; n]], "{name}");
            let found = results(&[&first], &v, &zeros(n));
            assert_eq!(found, [vec![0.0; n]], "{name}");
        }
    }
}
