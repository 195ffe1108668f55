//! What a compiled function promises: updates from old values, defaults, givens, symbolic shapes.

use hypatia::{
    All, Array, Builder, DType, Next, Numerics, Scan, Shared, Tensor, Unused, arange, function, grad, input,
    ix, matrix, scalar, shared, step, vector,
};

fn values(array: &Array) -> Vec<f64> {
    (0..array.len()).map(|i| array.get(i).to_f64()).collect()
}

#[test]
fn updates_are_computed_from_old_values() {
    let (a, b) = (shared("a", Array::vector(&[1.0f32, 2.0])), shared("b", Array::vector(&[3.0f32, 4.0])));
    let total = (&a + &b).sum(All);
    let mut swap = function(&[], &[&a, &total], &[(&a, (&b).into()), (&b, (&a).into())]).unwrap();
    let result = swap.call(&[]).unwrap();
    assert_eq!((values(result.array(0)), result.scalar(1).unwrap()), (vec![1.0, 2.0], 10.0));
    assert_eq!(values(&a.get_value().unwrap()), [3.0, 4.0]);
    assert_eq!(values(&b.get_value().unwrap()), [1.0, 2.0]);
    swap.call(&[]).unwrap();
    assert_eq!(values(&a.get_value().unwrap()), [1.0, 2.0]);
}

#[test]
fn an_update_reads_another_updates_old_value() {
    let (a, b) = (shared("a", 1.0f32), shared("b", 10.0f32));
    let new_a = &a + 1.0;
    // Both read the old `a`, one of them through the update's own expression.
    let mut step = function(&[], &[&a], &[(&a, new_a.clone()), (&b, &b + &a * 100.0 + &new_a)]).unwrap();
    assert_eq!(step.call(&[]).unwrap().scalar(0).unwrap(), 1.0);
    assert_eq!((a.get_value().unwrap().item(), b.get_value().unwrap().item()), (Some(2.0), Some(112.0)));
    assert_eq!(step.call(&[]).unwrap().scalar(0).unwrap(), 2.0);
    assert_eq!((a.get_value().unwrap().item(), b.get_value().unwrap().item()), (Some(3.0), Some(315.0)));
}

/// Parts of a variable moved within it, whatever is written in place.
#[test]
fn an_update_may_overlap_itself() {
    let data: Vec<f32> = (0..40).map(|i| i as f32).collect();
    for (name, formula) in [
        ("reversed", (|a: &Tensor| a.index(ix![step(.., -1)])) as fn(&Tensor) -> Tensor),
        ("shifted up", |a| a.set_index(ix![1..], a.index(ix![..-1]))),
        ("shifted down", |a| a.set_index(ix![..-1], a.index(ix![1..]))),
        ("summed", |a| a + a.sum(All)),
        ("rolled", |a| a.take(arange(40) - 1)),
        ("transposed", |a| a.reshape([5, 8]).t().flatten(1)),
    ] {
        let a = shared("a", Array::vector(&data));
        let new = formula(&a);
        let mut peek = function(&[], &[&new], &[]).unwrap();
        let expected = peek.call(&[]).unwrap().array(0).clone();
        function(&[], &[], &[(&a, new)]).unwrap().call(&[]).unwrap();
        assert_eq!(a.get_value().unwrap(), expected, "{name}");
    }
}

/// A function of one input, with both policies.
fn outputs(x: &Tensor, y: &Tensor, array: &Array) -> Vec<f64> {
    let [strict, real] = [Numerics::Strict, Numerics::Real].map(|numerics| {
        let mut f = Builder::new().inputs(&[x]).outputs(&[y]).numerics(numerics).compile().unwrap();
        values(f.call(&[array]).unwrap().array(0))
    });
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(&strict), bits(&real));
    real
}

/// Values of `numpy.cumsum`.
#[test]
fn cumulative_sums() {
    for dtype in [DType::F32, DType::F64] {
        let x = input("x", dtype, &[None, None]);
        let array = Array::new(&[2, 3], &[1.0f64, -2.0, 3.0, 0.5, 4.0, -8.0]).unwrap().cast(dtype);
        assert_eq!(outputs(&x, &x.cumsum(0), &array), [1.0, -2.0, 3.0, 1.5, 2.0, -5.0]);
        assert_eq!(outputs(&x, &x.cumsum(-1), &array), [1.0, -1.0, 2.0, 0.5, 4.5, -3.5]);
        for shape in [[0, 3], [3, 0], [1, 1]] {
            let some = Array::zeros(dtype, &shape).unwrap();
            assert_eq!(outputs(&x, &x.cumsum(1), &some), vec![0.0; shape[0] * shape[1]]);
        }
        // What is infinite or NaN reaches the sums behind it only, in and across blocks.
        let x = input("x", dtype, &[None]);
        for n in [4, 70, 1000] {
            let mut line = vec![1.0f64; n];
            line[n / 2] = f64::INFINITY;
            line[n - 1] = f64::NAN;
            let sums = outputs(&x, &x.cumsum(0), &Array::vector(&line).cast(dtype));
            let expected = |i: usize| if i < n / 2 { i as f64 + 1.0 } else { f64::INFINITY };
            assert!(sums[..n - 1].iter().enumerate().all(|(i, sum)| *sum == expected(i)), "{n}: {sums:?}");
            assert!(sums[n - 1].is_nan());
        }
    }
    let (x, flags) = (input("x", DType::U8, &[None]), input("flags", DType::Bool, &[None]));
    assert_eq!(outputs(&x, &x.cumsum(0), &Array::vector(&[200u8, 100, 7])), [200.0, 300.0, 307.0]);
    assert_eq!(outputs(&flags, &flags.cumsum(0), &Array::vector(&[true, false, true])), [1.0, 1.0, 2.0]);
    assert_eq!((x.cumsum(0).dtype(), flags.cumsum(0).dtype()), (DType::I64, DType::I64));
    let long: Vec<i64> = (0..2003).map(|i| i * i % 1009 - 500).collect();
    let mut sum = 0;
    let expected: Vec<f64> = long.iter().map(|x| (sum += x, sum as f64).1).collect();
    let x = input("x", DType::I64, &[None]);
    assert_eq!(outputs(&x, &x.cumsum(0), &Array::vector(&long)), expected);
}

#[test]
fn gradients_of_cumulative_sums() {
    let x = vector::<f64>("x");
    let array = Array::vector(&[1.0f64, 2.0, 3.0]);
    // d/dx of half the sum of squares of L x is L' L x, whose derivative along (1, 0, 0) is the first row of L' L.
    let gradient = grad(&(x.cumsum(0).sqr().sum(All) * 0.5), [&x]).remove(0);
    assert_eq!(outputs(&x, &gradient, &array), [10.0, 9.0, 6.0]);
    let second = grad(&gradient.index(ix![0]), [&x]).remove(0);
    assert_eq!(outputs(&x, &second, &array), [3.0, 2.0, 1.0]);
    // In the steps of a scan, through which the gradient flows as well.
    let sums =
        Scan::new().carry(&x * 0.0).steps(3).run(|step| Next::new().carry((&step.carries[0] + &x).cumsum(0)));
    assert_eq!(outputs(&x, &sums.last[0], &array), [3.0, 12.0, 31.0]);
    let gradient = grad(&sums.last[0].sum(All), [&x]).remove(0);
    assert_eq!(outputs(&x, &gradient, &array), [19.0, 9.0, 3.0]);
}

#[test]
fn matrices_are_updated_by_products_of_themselves() {
    let w = shared("w", Array::new(&[2, 2], &[1.0f32, 2.0, 3.0, 4.0]).unwrap());
    let mut square = function(&[], &[], &[(&w, w.dot(&w))]).unwrap();
    square.call(&[]).unwrap();
    assert_eq!(values(&w.get_value().unwrap()), [7.0, 10.0, 15.0, 22.0]);
    let mut step = function(&[], &[&w], &[(&w, &w * 0.5 - w.dot(w.t()) * 0.1)]).unwrap();
    assert_eq!(values(step.call(&[]).unwrap().array(0)), [7.0, 10.0, 15.0, 22.0]);
    let expected = [-11.4, -27.5, -25.0, -59.9];
    for (found, expected) in values(&w.get_value().unwrap()).iter().zip(expected) {
        assert!((found - expected).abs() < 1e-4, "{found} instead of {expected}");
    }
}

#[test]
fn default_updates_are_made_unless_told_otherwise() {
    let counter = shared("counter", 0i64);
    counter.set_default_update(Some(&counter + 1));
    let mut read = function(&[], &[&counter], &[]).unwrap();
    assert_eq!(read.call(&[]).unwrap().scalar(0).unwrap(), 0.0);
    assert_eq!(read.call(&[]).unwrap().scalar(0).unwrap(), 1.0);
    let mut reset = function(&[], &[], &[(&counter, Tensor::from(100).cast(DType::I64))]).unwrap();
    reset.call(&[]).unwrap();
    assert_eq!(counter.get_value().unwrap(), Array::scalar(100i64));
}

#[test]
fn inputs_may_have_defaults_and_names() {
    let (x, rate, shift) = (vector::<f32>("x"), scalar::<f32>("rate"), scalar::<f32>("shift"));
    let y = &x * &rate + &shift;
    let builder =
        Builder::new().inputs(&[&x]).input_with_default(&rate, 0.5f32).input_with_default(&shift, 1.0f64);
    let mut f = builder.outputs(&[&y]).compile().unwrap();
    let (a, three) = (Array::vector(&[2.0f32, 4.0]), Array::scalar(3.0f32));
    assert_eq!(values(f.call(&[&a]).unwrap().array(0)), [2.0, 3.0]);
    assert_eq!(values(f.call(&[&a, &three]).unwrap().array(0)), [7.0, 13.0]);
    assert_eq!(values(f.call(&[&a, &three, &three]).unwrap().array(0)), [9.0, 15.0]);
    assert_eq!(values(f.call_named(&[("shift", &three), ("x", &a)]).unwrap().array(0)), [4.0, 5.0]);
}

#[test]
fn a_function_may_have_no_output() {
    let mut nothing = function(&[], &[], &[]).unwrap();
    assert!(nothing.call(&[]).unwrap().arrays().is_empty());
    let a = shared("a", 1.0f64);
    function(&[], &[], &[(&a, &a * 2.0)]).unwrap().call(&[]).unwrap();
    assert_eq!(a.get_value().unwrap(), Array::scalar(2.0f64));
}

#[test]
fn an_output_may_be_anything_and_appear_twice() {
    let x = vector::<f32>("x");
    let a = shared("a", 5i32);
    let y = x.exp();
    let mut f = function(&[&x], &[&x, &y, &y, &a, &Tensor::from(2.5).cast(DType::F32), &x.t()], &[]).unwrap();
    let result = f.call(&[&Array::vector(&[0.0f32, 0.0])]).unwrap();
    let found: Vec<Vec<f64>> = result.arrays().iter().map(values).collect();
    let expected = [vec![0.0, 0.0], vec![1.0, 1.0], vec![1.0, 1.0], vec![5.0], vec![2.5], vec![0.0, 0.0]];
    assert_eq!(found, expected);
}

#[test]
fn givens_replace_inputs_and_expressions() {
    let (x, y, z) = (scalar::<f32>("x"), scalar::<f32>("y"), scalar::<f32>("z"));
    let square = x.sqr();
    let total = &square + &y;
    let one = |builder: Builder, inputs: &[&Tensor], arguments: &[f32]| {
        let mut f = builder.inputs(inputs).outputs(&[&total]).compile().unwrap_or_else(|e| panic!("{e}"));
        let arrays: Vec<Array> = arguments.iter().map(|&a| Array::scalar(a)).collect();
        f.call(&arrays.iter().collect::<Vec<_>>()).unwrap().scalar(0).unwrap()
    };
    // An input by a shared variable, and by a number.
    let w = shared("w", 3.0f32);
    assert_eq!(one(Builder::new().given(&x, &w), &[&y], &[1.0]), 10.0);
    assert_eq!(one(Builder::new().given(&x, Tensor::from(4.0).cast(DType::F32)), &[&y], &[1.0]), 17.0);
    // An expression.
    assert_eq!(one(Builder::new().given(&square, &z * 10.0), &[&y, &z], &[1.0, 2.0]), 21.0);
    // Several, and one that speaks of what another replaces: in what replaces nothing is replaced.
    assert_eq!(one(Builder::new().given(&x, &z).given(&y, &z * 10.0), &[&z], &[2.0]), 24.0);
    assert_eq!(one(Builder::new().given(&x, &y).given(&y, &z * 10.0), &[&y, &z], &[3.0, 2.0]), 29.0);
    // A replacement may speak of what it replaces.
    assert_eq!(one(Builder::new().given(&x, &x + 1.0), &[&x, &y], &[2.0, 0.0]), 9.0);
}

#[test]
fn unused_inputs_are_allowed_on_request() {
    let (x, y) = (scalar::<f32>("x"), scalar::<f32>("y"));
    let builder = Builder::new().inputs(&[&x, &y]).outputs(&[&x]).on_unused_input(Unused::Ignore);
    let mut f = builder.compile().unwrap();
    assert_eq!(f.call(&[&Array::scalar(1.0f32), &Array::scalar(2.0f32)]).unwrap().scalar(0).unwrap(), 1.0);
}

#[test]
fn a_function_meets_new_shapes() {
    let (x, y) = (matrix::<f32>("x"), matrix::<f32>("y"));
    let z = x.dot(&y).sum(0) + x.mean(All);
    let mut f = function(&[&x, &y], &[&z], &[]).unwrap();
    for (m, k, n) in [(2, 3, 4), (1, 1, 1), (2, 3, 4), (5, 0, 2), (0, 3, 4), (17, 33, 2), (2, 3, 4)] {
        let result =
            f.call(&[&Array::full(&[m, k], 1.0.into()).unwrap().cast(DType::F32), &ones(&[k, n])]).unwrap();
        let expected = vec![(m * k) as f32 + if m * k == 0 { f32::NAN } else { 1.0 }; n];
        let found = result.array(0).to_vec::<f32>().unwrap();
        assert_eq!(format!("{found:?}"), format!("{expected:?}"), "{m} {k} {n}");
    }
}

fn ones(shape: &[usize]) -> Array {
    Array::full(shape, 1.0.into()).unwrap().cast(DType::F32)
}

/// Broadcasting is decided while building: an extent that only happens to be 1 is not repeated.
#[test]
fn rows_and_columns_are_repeated() {
    let (x, r, c) = (matrix::<f32>("x"), hypatia::row::<f32>("r"), hypatia::col::<f32>("c"));
    let mut f = function(&[&x, &r, &c], &[&(&x * &r + &c)], &[]).unwrap();
    let x = Array::new(&[2, 3], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let (r, c) =
        (Array::new(&[1, 3], &[1.0f32, 10.0, 100.0]).unwrap(), Array::new(&[2, 1], &[0.5f32, 0.25]).unwrap());
    let result = f.call(&[&x, &r, &c]).unwrap();
    assert_eq!(values(result.array(0)), [1.5, 20.5, 300.5, 4.25, 50.25, 600.25]);
}

#[test]
fn an_integer_input_decides_an_extent() {
    let (n, x) = (scalar::<i64>("n"), vector::<f32>("x"));
    let rows = x.reshape([Tensor::from(&n), Tensor::from(-1)]);
    let mut f = function(&[&n, &x], &[&arange(&n), &x.index(ix![..&n]), &rows], &[]).unwrap();
    let x: Vec<f32> = (0..12).map(|i| i as f32).collect();
    for n in [3i64, 4, 1, 3] {
        let result = f.call(&[&Array::scalar(n), &Array::vector(&x)]);
        let result = result.unwrap_or_else(|e| panic!("{e}"));
        let first: Vec<f64> = (0..n).map(|i| i as f64).collect();
        assert_eq!((values(result.array(0)), values(result.array(1))), (first.clone(), first));
        assert_eq!(result.array(2).shape(), [n as usize, 12 / n as usize]);
    }
}

/// One executable serves every minibatch: the start of the window is read when run.
#[test]
fn minibatches_share_one_executable() {
    let data = shared("data", Array::new(&[6, 2], &(0..12).map(|i| i as f32).collect::<Vec<_>>()).unwrap());
    let i = scalar::<i64>("i");
    let batch = data.index(ix![&i * 2..(&i + 1) * 2]);
    let mut f = function(&[&i], &[&batch.sum(1)], &[]).unwrap();
    for (i, expected) in [(0i64, [1.0, 5.0]), (2, [17.0, 21.0]), (1, [9.0, 13.0])] {
        assert_eq!(values(f.call(&[&Array::scalar(i)]).unwrap().array(0)), expected);
        assert!(f.stages().unwrap().graph.inputs.len() == 1);
    }
    assert!(f.call(&[&Array::scalar(3i64)]).is_err());
}

/// A failed call changes nothing.
#[test]
fn a_failed_call_leaves_shared_variables_alone() {
    let (w, table) = (shared("w", 1.0f32), shared("table", Array::vector(&[1.0f32, 2.0, 3.0])));
    let i = vector::<i64>("i");
    let picked = table.take(&i).sum(All);
    let mut f = function(&[&i], &[&picked], &[(&w, &w + 1.0), (&table, &table * 2.0)]).unwrap();
    f.call(&[&Array::vector(&[0i64, 7])]).unwrap_err();
    assert_eq!(w.get_value().unwrap().item(), Some(1.0));
    assert_eq!(values(&table.get_value().unwrap()), [1.0, 2.0, 3.0]);
    assert_eq!(f.call(&[&Array::vector(&[0i64, -1])]).unwrap().scalar(0).unwrap(), 4.0);
    assert_eq!(
        (w.get_value().unwrap().item(), values(&table.get_value().unwrap())),
        (Some(2.0), vec![2.0, 4.0, 6.0])
    );
}

/// The same variable in many functions.
/// All givens hold at once, as on paper: `a - b` with `b` for `a` and `a` for `b` is `b - a`.
#[test]
fn givens_that_speak_of_each_other_hold_at_once() {
    let (a, b) = (scalar::<f32>("a"), scalar::<f32>("b"));
    let mut swapped = Builder::new()
        .inputs(&[&a, &b])
        .outputs(&[&(&a - &b), &(&a * 10.0 + &b)])
        .given(&a, &b)
        .given(&b, &a)
        .compile()
        .unwrap();
    let outputs = swapped.call(&[&Array::scalar(1f32), &Array::scalar(5f32)]).unwrap();
    assert_eq!((outputs.scalar(0).unwrap(), outputs.scalar(1).unwrap()), (4.0, 51.0));
    let mut shifted = Builder::new()
        .inputs(&[&a, &b])
        .outputs(&[&(&a * 10.0 + &b)])
        .given(&a, &a + &b)
        .given(&b, &a * &b)
        .compile()
        .unwrap();
    let outputs = shifted.call(&[&Array::scalar(2f32), &Array::scalar(3f32)]).unwrap();
    assert_eq!(outputs.scalar(0).unwrap(), 56.0);
}

#[test]
fn a_range_to_a_number_below_0_is_empty() {
    let n = scalar::<i64>("n");
    let mut range = function(&[&n], &[&arange(&n - 5), &arange(&n - 5).sum(All)], &[]).unwrap();
    for (given, length) in [(3i64, 0), (5, 0), (8, 3), (i64::MIN + 5, 0)] {
        let outputs = range.call(&[&Array::scalar(given)]).unwrap();
        assert_eq!(outputs.array(0).len(), length, "{given}");
    }
    let nothing = hypatia::RandomStreams::new(1).permutation(0);
    let mut nothing = function(&[], &[&nothing], &[]).unwrap();
    assert!(nothing.call(&[]).unwrap().array(0).is_empty());
}

#[test]
fn expressions_are_free() {
    let x = input("x", DType::F64, &[]);
    let y = x.sqr();
    let mut first = function(&[&x], &[&y], &[]).unwrap();
    let mut second = function(&[&x], &[&(&y + 1.0)], &[]).unwrap();
    drop(y);
    assert_eq!(first.call(&[&Array::scalar(3.0f64)]).unwrap().scalar(0).unwrap(), 9.0);
    assert_eq!(second.call(&[&Array::scalar(3.0f64)]).unwrap().scalar(0).unwrap(), 10.0);
}

/// An index that is out of range in the last step of a scan: nothing of the call remains.
#[test]
fn a_failing_scan_leaves_shared_variables_as_they_were() {
    let table = shared("table", Array::new(&[3, 2], &[1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap());
    let total = shared("total", Array::zeros(DType::F32, &[2]).unwrap());
    let indices = input("indices", DType::I64, &[None]);
    let scanned = Scan::new().sequence(&indices).run(|step| {
        let index = &step.sequences[0];
        let row = table.index(ix![index]);
        Next::new().output(row.sum(All)).update(&total, &total + &row).update(&table, &table * 2.0)
    });
    let updates: Vec<(&Shared, Tensor)> = scanned.updates.iter().map(|(s, t)| (s, t.clone())).collect();
    for threads in [1, 2] {
        let mut step = Builder::new()
            .inputs(&[&indices])
            .outputs(&[&scanned.outputs[0]])
            .updates(&updates)
            .threads(threads)
            .compile()
            .unwrap();
        let before = (table.get_value().unwrap(), total.get_value().unwrap());
        let message = step.call(&[&Array::vector(&[0i64, 1, 2, 3])]).unwrap_err().to_string();
        assert!(message.contains("out of range"), "{message}");
        assert_eq!((table.get_value().unwrap(), total.get_value().unwrap()), before);
        // The next call finds everything in order.
        let sums = step.call(&[&Array::vector(&[0i64, -1])]).unwrap().array(0).clone();
        let first = before.0.get(0).to_f64() as f32;
        assert_eq!(sums, Array::vector(&[first * 3.0, first * 22.0]));
        let doubled = table.get_value().unwrap();
        assert_eq!(doubled.get(0).to_f64() as f32, first * 4.0);
    }
}

/// A variable that a scan writes one element of in each step, some of them out of range.
#[test]
fn a_failing_write_in_a_scan_leaves_the_variable_as_it_was() {
    let table = shared("table", Array::vector(&[1.0f32, 2.0, 3.0]));
    let indices = input("indices", DType::I64, &[None]);
    let scanned = Scan::new().sequence(&indices).run(|step| {
        let index = &step.sequences[0];
        Next::new().update(&table, table.set_index(ix![index], table.index(ix![index]) * 10.0))
    });
    let updates: Vec<(&Shared, Tensor)> = scanned.updates.iter().map(|(s, t)| (s, t.clone())).collect();
    let mut write = function(&[&indices], &[], &updates).unwrap();
    let message = write.call(&[&Array::vector(&[0i64, 1, 3])]).unwrap_err().to_string();
    assert!(message.contains("out of range"), "{message}");
    assert_eq!(values(&table.get_value().unwrap()), [1.0, 2.0, 3.0]);
    write.call(&[&Array::vector(&[0i64, -1, 0])]).unwrap();
    assert_eq!(values(&table.get_value().unwrap()), [100.0, 2.0, 30.0]);
}
