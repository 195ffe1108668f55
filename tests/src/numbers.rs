//! Plain numbers beside tensors, and functions of integers: exact, whatever the numbers.
//!
//! Expected values are counted by hand in integers, or NumPy's where said.

use hypatia::{All, Array, Builder, DType, Numerics, Tensor, constant, full, function, input, stack, switch};
use hypatia_graph::{Literal, ScalarFn};

const INTEGERS: [DType; 3] = [DType::U8, DType::I32, DType::I64];

/// A vector of those elements.
fn array(values: &[Literal]) -> Array {
    let mut array = Array::zeros(values[0].dtype(), &[values.len()]).unwrap();
    for (index, value) in values.iter().enumerate() {
        array.set(index, *value);
    }
    array
}

fn integers(dtype: DType, values: &[i64]) -> Array {
    let values: Vec<Literal> = values.iter().map(|x| Literal::from_i64(*x, dtype)).collect();
    array(&values)
}

/// The value of a formula of one input, under both policies.
#[track_caller]
fn value(formula: impl Fn(&Tensor) -> Tensor, at: &Array) -> Array {
    let mut found: Vec<Array> = [Numerics::Real, Numerics::Strict]
        .into_iter()
        .map(|numerics| {
            let x = input("x", at.dtype(), &[Some(at.len())]);
            let y = formula(&x);
            let compiled = Builder::new().inputs(&[&x]).outputs(&[&y]).numerics(numerics).compile();
            let mut compiled = compiled.unwrap_or_else(|e| panic!("{e}"));
            compiled.call(&[at]).unwrap_or_else(|e| panic!("{e}")).array(0).clone()
        })
        .collect();
    assert_eq!(found[0], found[1]);
    found.remove(0)
}

/// What is said of a formula that cannot be compiled.
#[track_caller]
fn refusal(formula: impl Fn(&Tensor) -> Tensor, dtype: DType) -> String {
    let x = input("x", dtype, &[Some(3)]);
    match function(&[&x], &[&formula(&x)], &[]) {
        Ok(_) => panic!("compiled"),
        Err(error) => error.to_string(),
    }
}

fn ends(dtype: DType) -> Vec<i64> {
    match dtype {
        DType::U8 => vec![0, 1, 2, 3, 127, 128, 254, 255],
        DType::I32 => vec![i32::MIN.into(), -3, -1, 0, 1, 2, 3, 1 << 24, (1 << 24) + 1, i32::MAX.into()],
        _ => vec![i64::MIN, -3, -1, 0, 1, 2, 3, 1 << 53, (1 << 53) + 1, i64::MAX - 1, i64::MAX],
    }
}

/// How an integer compares with a float, in whole numbers of 128 bits.
fn ordering(x: i64, number: f64) -> Option<std::cmp::Ordering> {
    if number.is_nan() {
        return None;
    }
    let floor = if number.is_infinite() || number.abs() > 1e30 {
        if number > 0.0 { i128::MAX } else { i128::MIN }
    } else {
        number.floor() as i128
    };
    let order = i128::from(x).cmp(&floor);
    let is_between = number.is_finite() && number.fract() != 0.0;
    Some(if order.is_eq() && is_between { std::cmp::Ordering::Less } else { order })
}

fn holds(f: ScalarFn, order: Option<std::cmp::Ordering>) -> bool {
    match (f, order) {
        (ScalarFn::Ne, order) => order != Some(std::cmp::Ordering::Equal),
        (_, None) => false,
        (ScalarFn::Lt, Some(order)) => order.is_lt(),
        (ScalarFn::Le, Some(order)) => order.is_le(),
        (ScalarFn::Gt, Some(order)) => order.is_gt(),
        (ScalarFn::Ge, Some(order)) => order.is_ge(),
        (_, Some(order)) => order.is_eq(),
    }
}

/// A comparison as the method.
fn compared(f: ScalarFn, x: &Tensor, y: &Tensor) -> Tensor {
    match f {
        ScalarFn::Lt => x.lt(y),
        ScalarFn::Le => x.le(y),
        ScalarFn::Gt => x.gt(y),
        ScalarFn::Ge => x.ge(y),
        ScalarFn::Eq => x.eq(y),
        _ => x.neq(y),
    }
}

const COMPARISONS: [ScalarFn; 6] =
    [ScalarFn::Lt, ScalarFn::Le, ScalarFn::Gt, ScalarFn::Ge, ScalarFn::Eq, ScalarFn::Ne];

#[test]
fn comparisons_with_numbers_are_exact() {
    let whole = [0, 1, 2, 255, 256, -1, 3_000_000_000, (1 << 53) + 1, i64::MAX, i64::MIN];
    let floats = [
        0.0,
        -0.0,
        0.5,
        2.5,
        -2.5,
        1e-50,
        255.5,
        256.0,
        16_777_216.0,
        9_007_199_254_740_992.0,
        2f64.powi(63),
        -(2f64.powi(63)),
        1e300,
        -1e300,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    for dtype in INTEGERS.into_iter().chain([DType::Bool]) {
        let members = if dtype == DType::Bool { vec![0, 1] } else { ends(dtype) };
        let x = input("x", dtype, &[Some(members.len())]);
        let mut outputs = Vec::new();
        let mut expected = Vec::new();
        for f in COMPARISONS {
            for n in whole {
                outputs.push(compared(f, &x, &n.into()));
                expected.push(members.iter().map(|x| holds(f, Some(x.cmp(&n)))).collect::<Vec<_>>());
                outputs.push(compared(f, &n.into(), &x));
                expected.push(members.iter().map(|x| holds(f, Some(n.cmp(x)))).collect());
            }
            for n in floats {
                outputs.push(compared(f, &x, &n.into()));
                expected.push(members.iter().map(|x| holds(f, ordering(*x, n))).collect());
                outputs.push(compared(f, &n.into(), &x));
                let turned = |x: &i64| ordering(*x, n).map(std::cmp::Ordering::reverse);
                expected.push(members.iter().map(|x| holds(f, turned(x))).collect());
            }
        }
        let references: Vec<&Tensor> = outputs.iter().collect();
        let mut compiled = function(&[&x], &references, &[]).unwrap_or_else(|e| panic!("{e}"));
        let results = compiled.call(&[&integers(dtype, &members)]).unwrap_or_else(|e| panic!("{e}"));
        for (i, expected) in expected.iter().enumerate() {
            let found: Vec<bool> =
                (0..members.len()).map(|k| results.array(i).get(k).to_i64() == Some(1)).collect();
            assert_eq!(&found, expected, "{dtype}, comparison {i}: {:?}", outputs[i].ty());
        }
    }
}

#[test]
fn numbers_that_a_type_does_not_have_are_refused() {
    for (formula, dtype) in [
        ((|x| x + 1000) as fn(&Tensor) -> Tensor, DType::U8),
        (|x| x - -1, DType::U8),
        (|x| 300 * x, DType::U8),
        (|x| switch(x.gt(100), x, -1), DType::U8),
        (|x| x.maximum(3_000_000_000i64), DType::I32),
        (|x| x.clip(-5, 300), DType::U8),
        (|x| x & 256, DType::U8),
        (|x| x % 256, DType::U8),
        (|x| x.pow(-1), DType::U8),
        (|x| x.full_like(2.5), DType::I32),
        (|x| x.full_like(f64::NAN), DType::I64),
        (|x| x + full(256.0, DType::U8, [3]), DType::U8),
        (|x| x.set_index([hypatia::Index::from(0)], 300), DType::U8),
        (|x| x.set_index([hypatia::Index::from(0)], 0.5), DType::I32),
        (|x| stack(&[x.index([hypatia::Index::from(0)]), 300.into()], 0), DType::U8),
    ] {
        let message = refusal(formula, dtype);
        for part in ["expected", "an integer from", "found", "numbers.rs", "cast(DType::"] {
            assert!(message.contains(part), "{part}: {message}");
        }
    }
    // What fits is taken.
    let x = integers(DType::U8, &[0, 100, 255]);
    assert_eq!(value(|x| switch(x.gt(100), x, 255), &x), integers(DType::U8, &[255, 255, 255]));
    assert_eq!(value(|x| x.cast(DType::I64) + 1000, &x), integers(DType::I64, &[1000, 1100, 1255]));
}

#[test]
fn positions_of_the_smallest_integers() {
    for (dtype, values, expected) in [
        (DType::U8, vec![200, 0, 100], 1),
        (DType::U8, vec![255, 255], 0),
        (DType::I32, vec![5, i32::MIN.into(), 3], 1),
        (DType::I32, vec![i32::MAX.into(), i32::MIN.into(), i32::MIN.into()], 1),
        (DType::I64, vec![i64::MIN + 1, i64::MIN, i64::MAX], 1),
        (DType::I64, vec![(1 << 53) + 1, 1 << 53], 1),
        (DType::Bool, vec![1, 0, 0], 1),
        (DType::Bool, vec![1, 1], 0),
    ] {
        let found = value(|x| x.argmin(0), &integers(dtype, &values));
        assert_eq!(found.get(0), Literal::I64(expected), "{dtype} {values:?}");
        let largest = value(|x| x.argmax(0), &integers(dtype, &values));
        let most = values.iter().max().unwrap();
        let first = values.iter().position(|x| x == most).unwrap();
        assert_eq!(largest.get(0), Literal::I64(first as i64), "{dtype} {values:?}");
    }
    let floats = Array::vector(&[1.0f32, -3.0, f32::NAN, -5.0]);
    assert_eq!(value(|x| x.argmin(0), &floats).get(0), Literal::I64(2));
}

#[test]
fn integers_at_their_ends() {
    let min = i64::from(i32::MIN);
    let x = integers(DType::I32, &[min, 5, -7]);
    // Not the negative of a minimum: that of the least integer wraps.
    assert_eq!(value(|x| (-x).maximum(-(x + 1)), &x), integers(DType::I32, &[i32::MAX.into(), -5, 7]));
    assert_eq!(value(|x| (-x).minimum(-(x + 1)), &x), integers(DType::I32, &[min, -6, 6]));
    assert_eq!(value(|x| (-x).max(All), &x).get(0), Literal::I32(7));
    assert_eq!(value(|x| (-x).min(All), &x).get(0), Literal::I32(i32::MIN));
    // A shift wraps, and with it the place of the largest.
    let ten = constant(Array::vector(&[10i32]));
    let shifted = value(|x| (x - ten.index([hypatia::Index::from(0)])).argmax(0), &x);
    assert_eq!(shifted.get(0), Literal::I64(0));
    assert_eq!(value(|x| x * Tensor::from(0), &integers(DType::U8, &[3, 255])), integers(DType::U8, &[0, 0]));
    for round in [Tensor::floor, Tensor::ceil, Tensor::trunc, Tensor::round] {
        let large = integers(DType::I64, &[(1 << 53) + 1, i64::MAX, i64::MIN]);
        assert_eq!(value(round, &large), large);
    }
}

/// Means and variances as NumPy gives them (in double precision), rounded to `f32` once.
#[test]
fn means_of_integers() {
    let (one, thirty) = (1i64, 1i64 << 30);
    for (dtype, values, mean, variance) in [
        (DType::I32, vec![thirty + 1, -thirty], 0.5f32, 1.152_921_5e18),
        (DType::I32, vec![thirty, thirty + 1], 1_073_741_824.0, 0.25),
        (DType::I64, vec![i64::MAX, i64::MAX], 9.223_372e18, 0.0),
        (DType::I64, vec![-one, one << 40], 549_755_813_888.0, 3.022_314_5e23),
        (DType::U8, vec![255, 254, 255], 254.666_67, 0.222_222_22),
        (DType::Bool, vec![1, 0, 1], 0.666_666_7, 0.222_222_22),
    ] {
        let x = integers(dtype, &values);
        let found = [value(|x| x.mean(All), &x).get(0), value(|x| x.var(All), &x).get(0)];
        let expected = [mean, variance].map(|x| Literal::F32(x.to_bits()));
        assert_eq!(found, expected, "{dtype} {values:?}");
    }
}

/// A mean lies between the least and the largest element, and is exact but for two roundings.
#[test]
fn means_stay_in_the_range_of_their_elements() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    for n in [1, 2, 3, 7, 10, 100, 1001, 65_537, 300_000] {
        for dtype in [DType::F32, DType::F64] {
            let (largest, smallest) = match dtype {
                DType::F32 => (f64::from(f32::MAX), f64::from(f32::from_bits(1))),
                _ => (f64::MAX, f64::from_bits(1)),
            };
            let unit = if dtype == DType::F32 { f64::from(f32::EPSILON) } else { f64::EPSILON };
            // Equal elements, neighbours, the largest and the smallest numbers, and one element beside others.
            let cases: [&mut dyn FnMut(usize) -> f64; 7] = [
                &mut |_| 0.1,
                &mut |_| -1.0 / 3.0,
                &mut |_| 0.7 + (uniform() * 3.0).floor() * unit,
                &mut |_| largest,
                &mut |i| if i % 2 == 0 { largest } else { -largest },
                &mut |_| 3.0 * smallest,
                &mut |i| if i == 0 { 1e10 } else { 0.1 },
            ];
            for (case, element) in cases.into_iter().enumerate() {
                let elements: Vec<f64> = (0..n).map(element).collect();
                let x = Array::vector(&elements).cast(dtype);
                let of = |i: usize| x.get(i).to_f64();
                let (low, high) = (0..n).map(of).fold((of(0), of(0)), |(a, b), x| (a.min(x), b.max(x)));
                // From the least element on, in halves, so that nothing overflows or cancels.
                let above = (0..n).map(|i| (of(i) / 2.0 - low / 2.0) / n as f64).sum::<f64>();
                let exact = low + above + above;
                // What adding up the parts themselves loses where they alternate.
                let lost = (4.0 * unit).max(if case == 4 { 1e-10 } else { 0.0 });
                let means = [value(|x| x.mean(All), &x), value(|x| x.reshape([1, -1]).mean_keepdims(-1), &x)];
                for found in means {
                    let found = found.get(0).to_f64();
                    assert!(low <= found && found <= high, "case {case} of {n}, {dtype}: {found:e}");
                    let close = (found - exact).abs() <= lost * low.abs().max(high.abs());
                    assert!(close, "case {case} of {n}, {dtype}: {found:e} instead of {exact:e}");
                }
            }
        }
    }
    for (elements, mean) in [
        (vec![f64::INFINITY, 1.0, 2.0], f64::INFINITY),
        (vec![f64::NEG_INFINITY, f64::INFINITY, 0.0], f64::NAN),
        (vec![1.0, f64::NAN, 0.0], f64::NAN),
        (vec![], f64::NAN),
    ] {
        let found = value(|x| x.mean(All), &Array::vector(&elements)).get(0).to_f64();
        assert!(found == mean || found.is_nan() && mean.is_nan(), "{elements:?}: {found}");
    }
}

#[test]
fn functions_of_numbers_are_numbers() {
    let z = 2.5f64;
    let x = Array::vector(&[z]);
    let three = || Tensor::from(3);
    let found = value(|x| (three().maximum(x) / three().log()).exp(), &x).get(0).to_f64();
    assert!((found - (3.0 / 3f64.ln()).exp()).abs() < 1e-14 * found, "{found}");
    let third = |x: &Tensor| x * (Tensor::from(1) / Tensor::from(3));
    assert_eq!(
        value(third, &Array::vector(&[3.0f64])).get(0),
        Literal::F64((3.0 * (1.0 / 3.0f64)).to_bits())
    );
    assert_eq!(
        value(third, &Array::vector(&[3.0f32])).get(0),
        Literal::F32((3.0 * (1.0f32 / 3.0)).to_bits())
    );
    let tenth = |x: &Tensor| x + switch(Tensor::from(true), Tensor::from(0.1), Tensor::from(0.3));
    assert_eq!(value(tenth, &Array::vector(&[0.0f64])).get(0), Literal::F64(0.1f64.to_bits()));
    // Integers stay integers, truth values truth values, and what meets nothing is `f32`.
    let nine = value(|x| x + Tensor::from(3).sqr(), &integers(DType::U8, &[1]));
    assert_eq!(nine, integers(DType::U8, &[10]));
    let mut alone = function(&[], &[&(Tensor::from(1.0) + 2.0), &(Tensor::from(1) + 2)], &[]).unwrap();
    let results = alone.call(&[]).unwrap();
    assert_eq!(
        (results.array(0).get(0), results.array(1).get(0)),
        (Literal::F32(3f32.to_bits()), Literal::I64(3))
    );
    let message = refusal(|x| x + (Tensor::from(i64::MAX) + 1), DType::I64);
    assert!(message.contains("does not fit `i64`"), "{message}");
    let pair = stack(&[constant(Array::from(1.0f32)), Tensor::from(0.5)], 0);
    assert_eq!(pair.dtype(), DType::F32);
}

/// The zeros that IEEE 754 and NumPy give, in both orders, alone and in vectors.
#[test]
fn zeros_have_their_signs() {
    for dtype in [DType::F32, DType::F64] {
        let zeros = |values: &[f64]| {
            let values: Vec<Literal> = values.iter().map(|x| Literal::from_f64(*x, dtype)).collect();
            array(&values)
        };
        for n in [1, 3, 4, 7, 16, 33] {
            let cycle: Vec<f64> = (0..n).map(|i| [-0.0, 0.0, -0.0][i % 3]).collect();
            let other: Vec<f64> = (0..n).map(|i| [0.0, -0.0, -0.0][i % 3]).collect();
            let larger: Vec<f64> = (0..n).map(|i| [0.0, 0.0, -0.0][i % 3]).collect();
            let (a, b) = (zeros(&cycle), zeros(&other));
            let y = constant(b.clone());
            assert_eq!(value(|x| x.maximum(&y), &a), zeros(&larger), "{dtype}[{n}]");
            assert_eq!(value(|x| x.minimum(&y), &a), zeros(&vec![-0.0; n]), "{dtype}[{n}]");
            assert_eq!(value(Tensor::sign, &a), zeros(&vec![0.0; n]), "{dtype}[{n}]");
        }
        let infinite = zeros(&[f64::NEG_INFINITY, -1e4]);
        assert_eq!(value(Tensor::log1mexp, &infinite), zeros(&[-0.0, -0.0]), "{dtype}");
    }
}

/// Python's own values.
#[test]
fn float_division_rounds_down() {
    let inf = f64::INFINITY;
    for (x, y, quotient, remainder) in [
        (1.0, 0.1, 9.0, 0.099_999_999_999_999_95),
        (5.0, inf, 0.0, 5.0),
        (-5.0, inf, -1.0, inf),
        (5.0, -inf, -1.0, -inf),
        (-1e-20, 3.0, -1.0, 3.0),
        (1e300, 7.0, 1.428_571_428_571_428_6e299, 1.0),
        (-7.5, 2.0, -4.0, 0.5),
        (0.0, -2.0, -0.0, -0.0),
    ] {
        let by = Array::vector(&[y]);
        let by = constant(by);
        assert_eq!(value(|x| x.floordiv(&by), &Array::vector(&[x])).get(0).to_f64(), quotient, "{x} // {y}");
        assert_eq!(value(|x| x % &by, &Array::vector(&[x])).get(0).to_f64(), remainder, "{x} % {y}");
    }
    for (x, y, remainder) in [(1e8f32, 3.0f32, 1.0f32), (1e9, 7.0, 6.0), (3e38, 1e-45, 0.0), (-1e9, 7.0, 1.0)]
    {
        for n in [1, 5, 40] {
            let found = value(|x| x % f64::from(y), &Array::vector(&vec![x; n]));
            assert_eq!(found, Array::vector(&vec![remainder; n]), "{x} % {y}");
        }
    }
}
