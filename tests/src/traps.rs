//! The numeric traps on which Theano's successors and JAX fail, through compiled functions: under `Real` every formula
//! gives the value of real arithmetic, under `Strict` a NaN stays one.
//!
//! Expected values stand in `tests/reference/traps.txt`, written by `tests/reference/traps.py` with mpmath.

use hypatia::{All, Array, Builder, DType, Numerics, Tensor, constant, full, grad, input, switch};

use crate::snapshot::reference;

const FLOATS: [DType; 2] = [DType::F32, DType::F64];

fn vector(name: &str, dtype: DType, n: usize) -> Tensor {
    input(name, dtype, &[Some(n)])
}

fn call(inputs: &[&Tensor], output: &Tensor, values: &[&[f64]], numerics: Numerics) -> Vec<f64> {
    let function = Builder::new().inputs(inputs).outputs(&[output]).numerics(numerics).threads(1).compile();
    let mut function = function.unwrap_or_else(|e| panic!("{e}"));
    let arrays: Vec<Array> = inputs
        .iter()
        .zip(values)
        .map(|(t, v)| Array::new(&t.ty().extents().unwrap(), v).unwrap().cast(t.dtype()))
        .collect();
    let arrays: Vec<&Array> = arrays.iter().collect();
    let outputs = function.call(&arrays).unwrap_or_else(|e| panic!("{e}"));
    let value = outputs.array(0);
    (0..value.len()).map(|i| value.get(i).to_f64()).collect()
}

/// The values named in the reference, within a few units in the last place of the type.
#[track_caller]
fn check(trap: &str, inputs: &[&Tensor], output: &Tensor, values: &[&[f64]]) {
    let expected = reference(include_str!("../reference/traps.txt"), trap);
    let found = call(inputs, output, values, Numerics::Real);
    // Eight units in the last place; in f32 inputs are rounded as well.
    let tolerance =
        if output.dtype() == DType::F64 { 8.0 * f64::EPSILON } else { 8.0 * f64::from(f32::EPSILON) };
    assert_eq!(found.len(), expected.len(), "{trap}");
    for (x, y) in found.iter().zip(&expected) {
        // What underflows may be zero.
        let smallest = if output.dtype() == DType::F64 { 1e-300 } else { 1e-38 };
        let close = (x - y).abs() <= tolerance * y.abs() + smallest;
        assert!(close, "{trap} in {}: {x:e} instead of {y:e}, of {found:?}", output.dtype());
    }
}

/// softmax as a user may write it, without the shift.
fn naive_softmax(x: &Tensor, axis: i64) -> Tensor {
    x.exp() / x.exp().sum_keepdims(axis)
}

#[test]
fn log_of_transposed_softmax() {
    for dtype in FLOATS {
        let x = input("x", dtype, &[Some(1), Some(2)]);
        for p in [x.softmax(1), naive_softmax(&x, 1)] {
            check("log_transposed_softmax", &[&x], &p.t().log(), &[&[0.0, 1000.0]]);
        }
    }
}

#[test]
fn log_of_reshaped_softmax() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 4);
        let rows = x.reshape([2, 2]);
        for p in [rows.softmax(1), naive_softmax(&rows, 1)] {
            let values: &[f64] = &[0.0, 1000.0, 0.0, -1000.0];
            check("log_reshaped_softmax", &[&x], &p.reshape([4]).log(), &[values]);
        }
    }
}

#[test]
fn gradient_of_cross_entropy_of_sigmoid() {
    for dtype in FLOATS {
        let a = vector("a", dtype, 1);
        let one = full(1.0, dtype, [1, 1]);
        let cost = a.reshape([1, 1]).sigmoid().binary_crossentropy(&one).sum(All);
        check("gradient_cross_entropy_of_sigmoid", &[&a], &grad(&cost, [&a])[0], &[&[40.0]]);
        let (b, t) = (vector("b", dtype, 3), vector("t", dtype, 3));
        let cost = b.sigmoid().reshape([3, 1]).binary_crossentropy(t.reshape([3, 1])).sum(All);
        let values: [&[f64]; 2] = [&[40.0, -40.0, 40.0], &[0.0, 1.0, 1.0]];
        let trap = "gradient_cross_entropy_of_reshaped_sigmoid";
        if dtype == DType::F64 {
            // The third is 1 - t - sigmoid(-b), for a t that the compiler does not know: it cancels to the last place.
            let found = call(&[&b, &t], &grad(&cost, [&b])[0], &values, Numerics::Real);
            let expected = reference(include_str!("../reference/traps.txt"), trap);
            for (x, y) in found.iter().zip(&expected) {
                assert!((x - y).abs() <= 4.0 * f64::EPSILON, "{found:?} instead of {expected:?}");
            }
        } else {
            let found = call(&[&b, &t], &grad(&cost, [&b])[0], &values, Numerics::Real);
            let expected = reference(include_str!("../reference/traps.txt"), trap);
            for (x, y) in found.iter().zip(&expected) {
                assert!((x - y).abs() <= 4.0 * f64::from(f32::EPSILON), "{found:?} instead of {expected:?}");
            }
        }
    }
}

#[test]
fn log_of_one_minus_reshaped_sigmoid() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let y = (1.0 - x.sigmoid().reshape([1, 2])).log();
        check("log_one_minus_reshaped_sigmoid", &[&x], &y, &[&[40.0, 100.0]]);
    }
}

#[test]
fn gradient_of_a_power_of_zero() {
    for dtype in FLOATS {
        let (x, n) = (vector("x", dtype, 2), input("n", dtype, &[]));
        let fixed = grad(&x.pow(0.0).sum(All), [&x]).remove(0);
        check("gradient_of_power_zero", &[&x], &(&fixed + &x * 0.0), &[&[0.0, 2.0]]);
        let symbolic = grad(&x.pow(&n).sum(All), [&x]).remove(0);
        check("gradient_of_power_zero", &[&x, &n], &symbolic, &[&[0.0, 2.0], &[0.0]]);
    }
}

#[test]
fn strict_keeps_nan_and_real_does_not_make_one() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let cases = [
            ("0 / x", 0.0 / &x, [0.0, 2.0]),
            ("0 * x", &x * 0.0, [f64::NAN, 2.0]),
            ("x / x", &x / &x, [0.0, 2.0]),
        ];
        for (name, y, values) in cases {
            let strict = call(&[&x], &y, &[&values], Numerics::Strict);
            assert!(strict[0].is_nan() && strict[1].is_finite(), "{name} in {dtype}: {strict:?}");
        }
    }
}

#[test]
fn cross_entropy_of_constant_softmax() {
    for dtype in FLOATS {
        let logits = constant(Array::new(&[1, 2], &[0.0, 1000.0]).unwrap().cast(dtype));
        for p in [logits.softmax(1), naive_softmax(&logits, 1)] {
            check("cross_entropy_of_constant_softmax", &[], &-p.log().reshape([2]), &[]);
        }
    }
}

#[test]
fn x_log_y_of_sigmoid() {
    for dtype in FLOATS {
        let (v, x) = (vector("v", dtype, 4), vector("x", dtype, 4));
        let y = switch(v.eq(0.0), 0.0, &v * x.sigmoid().log());
        let values: [&[f64]; 2] = [&[0.0, 1.0, 0.0, 1.0], &[-800.0, -800.0, 800.0, 800.0]];
        check("xlogy_of_sigmoid", &[&v, &x], &y, &values);
    }
}

#[test]
fn logarithms_of_sums_of_exponentials() {
    for dtype in FLOATS {
        let (a, b) = (vector("a", dtype, 2), vector("b", dtype, 2));
        check("log_one_plus_exp", &[&a], &(1.0 + a.exp()).log(), &[&[800.0, -800.0]]);
        let y = (a.exp() + b.exp()).log();
        check("log_of_sum_of_exp", &[&a, &b], &y, &[&[800.0, -800.0], &[801.0, -800.0]]);
    }
}

#[test]
fn differences_that_cancel() {
    let x = input("x", DType::F64, &[]);
    let roots = ((&x + 1.0).sqrt() - x.sqrt()).reshape([1]);
    check("difference_of_roots", &[&x], &roots, &[&[1e16]]);
    check("one_minus_cosine", &[&x], &((1.0 - x.cos()) / x.sqr()).reshape([1]), &[&[1e-9]]);
    check("exp_minus_one", &[&x], &((x.exp() - 1.0) / &x).reshape([1]), &[&[1e-12]]);
    let x = input("x", DType::F32, &[]);
    check("one_minus_cosine", &[&x], &((1.0 - x.cos()) / x.sqr()).reshape([1]), &[&[1e-9]]);
    check("exp_minus_one", &[&x], &((x.exp() - 1.0) / &x).reshape([1]), &[&[1e-12]]);
}

#[test]
fn gradient_of_a_guarded_root() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let cost = switch(x.gt(0.0), x.sqrt(), 0.0).sum(All);
        check("gradient_of_guarded_root", &[&x], &grad(&cost, [&x])[0], &[&[-1.0, 4.0]]);
    }
}

#[test]
fn norms_do_not_overflow() {
    for (dtype, big, trap) in [(DType::F32, 1e30, "norm_f32"), (DType::F64, 1e200, "norm_f64")] {
        let x = vector("x", dtype, 2);
        check(trap, &[&x], &x.sqr().sum(All).sqrt().reshape([1]), &[&[big, big]]);
    }
}

#[test]
fn variances() {
    let cases: [(DType, &str, &[f64]); 2] = [
        (DType::F64, "variance", &[1e9, 1e9 + 1.0, 1e9 + 2.0]),
        (DType::F32, "variance_f32", &[10_000.0, 10_001.0, 10_002.0]),
    ];
    for (dtype, trap, data) in cases {
        let x = vector("x", dtype, 3);
        check(trap, &[&x], &x.var(All).reshape([1]), &[data]);
        check(trap, &[&x], &(x.sqr().mean(All) - x.mean(All).sqr()).reshape([1]), &[data]);
    }
}

#[test]
fn logarithms_of_products_of_sigmoids() {
    for dtype in FLOATS {
        let x = vector("x", dtype, 2);
        let y = (x.sigmoid() * (-&x).sigmoid()).log();
        check("log_of_product_of_sigmoids", &[&x], &y, &[&[800.0, -800.0]]);
        let folded = x.sigmoid().prod(0).log().reshape([1]);
        check("log_of_folded_sigmoids", &[&x], &folded, &[&[-500.0, -500.0]]);
    }
}

#[test]
fn entropy_of_a_hard_softmax() {
    for dtype in FLOATS {
        let x = input("x", dtype, &[Some(1), Some(2)]);
        for p in [x.softmax(1), naive_softmax(&x, 1)] {
            check("entropy_of_hard_softmax", &[&x], &-(&p * p.log()).sum(1), &[&[0.0, 2000.0]]);
        }
    }
}
