//! Scans that may end early, in compiled functions.

use hypatia::{All, Array, Builder, DType, Next, Numerics, Scan, Tensor, function, grad, ix, matrix, scalar};

#[test]
fn powers_of_two_below_a_limit() {
    // Theano's tutorial: 2, 4, .., 64 of at most 1024 steps.
    let limit = scalar::<f64>("limit");
    let base = scalar::<f64>("base");
    let powers = Scan::new().carry(&limit * 0.0 + 1.0).steps(1024).run(|s| {
        let next = &s.carries[0] * &base;
        Next::new().until(next.gt(&limit)).carry(next)
    });
    let rows = &powers.carries[0];
    let cost = rows.sum(All);
    let slope = grad(&cost, [&base]).remove(0);
    let outputs = [rows, &cost, &slope, &rows.mean(0), &rows.index(ix![-1]), &(rows * 2.0).index(ix![1..])];
    for numerics in [Numerics::Real, Numerics::Strict] {
        let builder = Builder::new().inputs(&[&base, &limit]).outputs(&outputs).numerics(numerics);
        let mut f = builder.compile().unwrap();
        for (limit, made) in [(45.0f64, 6), (1.5, 1), (300.0, 9), (45.0, 6)] {
            let results = f.call(&[&Array::scalar(2.0f64), &Array::scalar(limit)]).unwrap();
            let expected: Vec<f64> = (1..=made).map(|k| 2f64.powi(k)).collect();
            let total: f64 = expected.iter().sum();
            assert_eq!(results.arrays().len(), 6);
            assert_eq!(results.array(0).to_vec::<f64>().unwrap(), expected);
            assert_eq!(results.scalar(1).unwrap(), total);
            assert_eq!(
                results.scalar(2).unwrap(),
                (1..=made).map(|k| f64::from(k) * 2f64.powi(k - 1)).sum::<f64>()
            );
            assert_eq!(results.scalar(3).unwrap(), total / f64::from(made));
            assert_eq!(results.scalar(4).unwrap(), expected[made as usize - 1]);
            let rest: Vec<f64> = expected[1..].iter().map(|x| x * 2.0).collect();
            assert_eq!(results.array(5).to_vec::<f64>().unwrap(), rest);
        }
    }
}

#[test]
fn rows_of_rows_are_cut_along_their_axis() {
    let x = matrix::<f32>("x");
    let sums = Scan::new().sequence(&x).carry(x.sum(0) * 0.0).run(|s| {
        let next = &s.carries[0] + &s.sequences[0];
        Next::new().until(next.sum(All).gt(6.0)).carry(next)
    });
    let turned = sums.carries[0].t();
    let mut f = function(&[&x], &[&sums.carries[0], &turned, &sums.steps], &[]).unwrap();
    let ones = Array::new(&[5, 2], &[1f32; 10]).unwrap();
    let results = f.call(&[&ones]).unwrap();
    assert_eq!((results.array(0).shape(), results.array(1).shape()), ([4, 2].as_slice(), [2, 4].as_slice()));
    assert_eq!(results.array(1).to_vec::<f32>().unwrap(), [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
    let small = Array::new(&[5, 2], &[0.5f32; 10]).unwrap();
    assert_eq!(f.call(&[&small]).unwrap().array(1).shape(), [2, 5]);
    assert_eq!(f.call(&[&ones]).unwrap().array(1).shape(), [2, 4]);
    assert_eq!(f.call(&[&Array::zeros(DType::F32, &[0, 2]).unwrap()]).unwrap().array(0).shape(), [0, 2]);
}

#[test]
fn a_scan_in_a_scan_counts_its_own_rows() {
    let x = matrix::<f64>("x");
    let total = |row: &Tensor| {
        let inner = Scan::new().sequence(row).carry(0.0 * row.index(ix![0])).run(|s| {
            let next = &s.carries[0] + &s.sequences[0];
            Next::new().until(next.ge(3.0)).carry(next)
        });
        inner.carries[0].sum(All)
    };
    let totals = hypatia::scan::map(&[&x], |e| total(&e[0]));
    let slope = grad(&totals.sum(All), [&x]).remove(0);
    let mut f = function(&[&x], &[&totals, &slope], &[]).unwrap();
    let results =
        f.call(&[&Array::new(&[2, 4], &[1.0f64, 1.0, 1.0, 1.0, 3.0, 1.0, 1.0, 1.0]).unwrap()]).unwrap();
    assert_eq!(results.array(0).to_vec::<f64>().unwrap(), [6.0, 3.0]);
    assert_eq!(results.array(1).to_vec::<f64>().unwrap(), [3.0, 2.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
}
