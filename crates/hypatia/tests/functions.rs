//! Functions as users call them.

use hypatia::{
    All, Array, DType, Next, Scan, Tensor, constant, function, grad, input, ix, matrix, scalar, shared,
    vector,
};

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
    let x = shared("x", Array::new(&[n, d], &data).unwrap());
    let y = shared("y", Array::vector(&labels));
    let w = shared("w", Array::zeros(DType::F32, &[d, c]).unwrap());
    let b = shared("b", Array::zeros(DType::F32, &[c]).unwrap());
    let i = scalar::<i64>("i");
    let rows = |t: &Tensor| t.index(ix![&i * 20..(&i + 1) * 20]);
    let p = (rows(&x).dot(&w) + &b).softmax(1);
    let cost = -p.log().pick(rows(&y)).mean(All);
    let g = grad(&cost, [&w, &b]);
    let mut train = function(&[&i], &[&cost], &[(&w, &w - &g[0] * 0.5), (&b, &b - &g[1] * 0.5)]).unwrap();
    let mut costs = Vec::new();
    for epoch in 0..30 {
        for batch in 0..10i64 {
            let cost = train.call(&[&Array::scalar(batch)]).unwrap().scalar(0).unwrap();
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
    let a = Array::new(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    assert_eq!(f.call(&[&a]).unwrap().array(0).to_vec::<f32>().unwrap(), [14.0, 16.0, 18.0]);
    let b = Array::new(&[1, 2], &[1.0f32, 2.0]).unwrap();
    assert_eq!(f.call(&[&b]).unwrap().array(0).to_vec::<f32>().unwrap(), [3.0, 4.0]);
    let e = f.call(&[&Array::scalar(1.0f32)]).unwrap_err().to_string();
    assert!(e.contains("does not fit the input `x`"), "{e}");
}

/// What a Boltzmann machine learns by: the statistics of the data less those of the model, in one pass over the weights.
#[test]
fn an_update_by_two_products_reads_and_writes_its_matrix_once() {
    const ROWS: usize = 5;
    const N: usize = 40;
    const M: usize = 30;
    let values = |n: usize, seed: usize| -> Vec<f32> {
        (0..n).map(|i| ((i * 31 + seed * 17) % 23) as f32 / 11.0 - 1.0).collect()
    };
    let names = ["v0", "h0", "v1", "h1"];
    let extents = [N, M, N, M];
    let matrices: Vec<Tensor> =
        names.iter().zip(extents).map(|(name, n)| input(name, DType::F32, &[Some(ROWS), Some(n)])).collect();
    let [v0, h0, v1, h1] = &matrices[..] else { unreachable!() };
    let start = values(N * M, 9);
    let w = shared("w", Array::new(&[N, M], &start).unwrap());
    let data = v0.t().dot(h0 * 0.5);
    let model = v1.t().dot(h1.tanh());
    let mut learn = function(&[v0, h0, v1, h1], &[], &[(&w, &w + (data - model) * 0.25)]).unwrap();
    let arrays: Vec<Vec<f32>> = extents.iter().enumerate().map(|(i, n)| values(ROWS * n, i)).collect();
    let arguments: Vec<Array> =
        arrays.iter().zip(extents).map(|(x, n)| Array::new(&[ROWS, n], x).unwrap()).collect();
    learn.call(&arguments.iter().collect::<Vec<_>>()).unwrap();
    let found = w.get_value().unwrap().to_vec::<f32>().unwrap();
    let at =
        |matrix: usize, row: usize, column: usize| f64::from(arrays[matrix][row * extents[matrix] + column]);
    for i in 0..N {
        for j in 0..M {
            let statistics: f64 =
                (0..ROWS).map(|r| at(0, r, i) * at(1, r, j) * 0.5 - at(2, r, i) * at(3, r, j).tanh()).sum();
            let expected = f64::from(start[i * M + j]) + 0.25 * statistics;
            assert!((f64::from(found[i * M + j]) - expected).abs() < 1e-5, "{i} {j}");
        }
    }
    let program = learn.stages().unwrap().program.to_string();
    assert_eq!(program.matches("\nproduct ").count(), 1, "{program}");
}

/// Constants are computed with while a formula is compiled, but not before its gradient is taken.
#[test]
fn gradients_reach_constants() {
    let x = vector::<f64>("x");
    let c = constant(Array::vector(&[1.0f64, 2.0, 3.0]));
    let scale = constant(3.0f64);
    // d/dc = 2 scale c x + scale, d/dscale = c² . x + sum c: for x = (1, 10, 100).
    let cost = (c.sqr() * &scale * &x).sum(All) + (&c * &scale).sum(All);
    let gradients = grad(&cost, [&c, &scale]);
    let mut f = function(&[&x], &[&gradients[0], &gradients[1]], &[]).unwrap();
    let found = f.call(&[&Array::vector(&[1.0f64, 10.0, 100.0])]).unwrap();
    assert_eq!(found.array(0).to_vec::<f64>().unwrap(), [9.0, 123.0, 1803.0]);
    assert_eq!(found.scalar(1).unwrap(), 947.0);

    // The same through a scan: the cost is x c^4.
    let power = Scan::new().carry(&x).steps(4).run(|step| Next::new().carry(&step.carries[0] * &c));
    let gradient = &grad(&power.last[0].sum(All), [&c])[0];
    let mut f = function(&[&x], &[gradient], &[]).unwrap();
    let found = f.call(&[&Array::vector(&[1.0f64, 10.0, 100.0])]).unwrap();
    assert_eq!(found.array(0).to_vec::<f64>().unwrap(), [4.0, 320.0, 10800.0]);
}

/// The logarithm of a product of so many factors is simplified in parts: it is right, or users are told where it is not.
#[test]
fn what_simplification_did_not_see_is_said() {
    let n = 1200;
    let x = input("x", DType::F64, &[Some(n)]);
    let factors = (0..n).map(|i| x.take(i as i64).sigmoid());
    let log = factors.reduce(|a, b| a * b).unwrap().log();
    let mut f = function(&[&x], &[&log], &[]).unwrap();
    let found = f.call(&[&Array::vector(&vec![-40.0f64; n])]).unwrap().scalar(0).unwrap();
    let warnings = f.warnings();
    let said = warnings.iter().any(|w| w.at.map(|at| at.line()) == Some(log.site().line()));
    assert!(said || (found + 40.0 * n as f64).abs() < 1e-6, "{found} {warnings:?}");
    assert_eq!(said, f.profile().to_string().contains("warning: `log` may overflow or lose digits"));
    let f = function(&[&x], &[&x.sigmoid().prod(All).log()], &[]).unwrap();
    assert!(f.warnings().is_empty());
}

/// Rewriting may compute in a scan what is made of its results; not where a gradient is taken with respect to one of them.
#[test]
fn gradients_with_respect_to_results_of_a_scan() {
    let h0 = scalar::<f64>("h0");
    let chain = Scan::new().carry(&h0).steps(3).run(|step| {
        let h = &step.carries[0];
        Next::new().carry(h * 0.5).output(h.softplus()).output(h.sigmoid())
    });
    let quotient = &chain.outputs[1] / &chain.outputs[0];
    let gradients = grad(&quotient.sum(All), [&chain.outputs[0], &h0]);
    let mut f = function(&[&h0], &[&quotient, &gradients[0], &gradients[1]], &[]).unwrap();
    let found = f.call(&[&Array::scalar(1.2f64)]).unwrap();
    let mut slope = 0.0;
    for (step, h) in [1.2f64, 0.6, 0.3].into_iter().enumerate() {
        let (softplus, sigmoid) = (h.exp().ln_1p(), 1.0 / (1.0 + (-h).exp()));
        let at = |output: usize| found.array(output).to_vec::<f64>().unwrap()[step];
        assert!((at(0) - sigmoid / softplus).abs() < 1e-14);
        assert!((at(1) + sigmoid / softplus.powi(2)).abs() < 1e-14);
        let outer = sigmoid * (1.0 - sigmoid) / softplus - (sigmoid / softplus).powi(2);
        slope += outer * 0.5f64.powi(step as i32);
    }
    assert!((found.scalar(2).unwrap() - slope).abs() < 1e-14, "{} {slope}", found.scalar(2).unwrap());
}

/// Two products and a penalty of each weight: the products are one, which is added to what the other terms gave, in the
/// variable's own memory.
#[test]
fn an_update_by_products_and_other_terms_is_one_product() {
    let (m, k, n) = (40, 3, 50);
    let numbers = |seed: usize, count: usize| -> Vec<f32> {
        (0..count).map(|i| ((i * 37 + seed * 11) % 64) as f32 / 64.0 - 0.5).collect()
    };
    let start = numbers(1, m * n);
    let w = shared("w", Array::new(&[m, n], &start));
    let [a, c] = [2, 3].map(|seed| numbers(seed, k * m));
    let [b, d] = [4, 5].map(|seed| numbers(seed, k * n));
    let strength = numbers(6, n);
    let array =
        |values: &[f32], columns: usize| constant(Array::new(&[values.len() / columns, columns], values));
    let rate = scalar::<f32>("rate");
    // Inputs, so that nothing is computed when compiling.
    let [a_in, c_in] = ["a", "c"].map(|name| input(name, DType::F32, &[Some(k), Some(m)]));
    let penalty = &w * (&w * array(&strength, n).reshape([n])).abs();
    let step = (a_in.t().dot(array(&b, n)) + c_in.t().dot(array(&d, n)) * 0.5 + penalty) * &rate;
    let mut update = function(&[&a_in, &c_in, &rate], &[], &[(&w, &w - step)]).unwrap();
    let products = update.stages().unwrap().program.steps.iter();
    let products =
        products.filter(|step| matches!(step.kernel, hypatia::codegen::kernel::Kernel::Product(_)));
    assert_eq!(products.count(), 1);
    let [a_is, c_is] = [&a, &c].map(|values| Array::new(&[k, m], values).unwrap());
    update.call(&[&a_is, &c_is, &Array::scalar(0.25_f32)]).unwrap();
    let found = w.get_value().unwrap().to_vec::<f32>().unwrap();
    for (at, found) in found.into_iter().enumerate() {
        let (i, j) = (at / n, at % n);
        let dot = |x: &[f32], y: &[f32]| {
            (0..k).map(|t| f64::from(x[t * m + i]) * f64::from(y[t * n + j])).sum::<f64>()
        };
        let old = f64::from(start[at]);
        let penalty = old * (old * f64::from(strength[j])).abs();
        let expected = old - 0.25 * (dot(&a, &b) + 0.5 * dot(&c, &d) + penalty);
        assert!((f64::from(found) - expected).abs() < 1e-6, "{at}: {found} for {expected}");
    }
}
