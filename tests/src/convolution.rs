//! Convolutions and poolings against values from outside: `tests/reference/convolution.py`, which follows the definitions, and
//! for convolutions agrees with PyTorch.

use hypatia::{
    All, Array, Builder, Conv, DType, Function, Pool, PoolMode, Shared, Tensor, constant, function, grad,
    input, shared, tensor4,
};
use hypatia_datasets::numpy::RandomState;

use crate::engines::Engine;

/// The elements that the script gives an operand of that number.
fn pattern(shape: &[usize], seed: usize) -> Array {
    let count = shape.iter().product::<usize>();
    let value = |i: usize| ((i * 37 + i / 7 * 5 + seed * 11) % 23) as f64;
    let values: Vec<f64> = (0..count).map(|i| (value(i) - 11.0) / 8.0).collect();
    Array::new(shape, &values).unwrap()
}

fn list<T: std::str::FromStr<Err: std::fmt::Debug>>(text: &str, between: char) -> Vec<T> {
    text.split(between).filter(|part| !part.is_empty()).map(|part| part.parse().unwrap()).collect()
}

fn sides<const N: usize>(text: &str) -> [usize; N] {
    list(text, ',').try_into().unwrap()
}

fn conv<const N: usize>(words: &[&str]) -> Conv<N> {
    let conv = match words[1] {
        "valid" => Conv::valid(),
        "half" => Conv::half(),
        "full" => Conv::full(),
        padded => {
            let zeros: Vec<usize> = list(padded, ',');
            Conv::padded(std::array::from_fn(|axis| [zeros[2 * axis], zeros[2 * axis + 1]]))
        }
    };
    let conv = conv.stride(sides(words[2])).dilation(sides(words[3])).groups(words[4].parse().unwrap());
    if words[5] == "1" { conv } else { conv.correlation() }
}

fn pool<const N: usize>(words: &[&str]) -> Pool<N> {
    let mode = match words[1] {
        "max" => PoolMode::Max,
        "sum" => PoolMode::Sum,
        "average_inc_pad" => PoolMode::AverageIncPad,
        "average_exc_pad" => PoolMode::AverageExcPad,
        other => panic!("no mode {other}"),
    };
    let pool = Pool::new(mode, sides(words[2])).stride(sides(words[3])).pad(sides(words[4]));
    if words[5] == "1" { pool.ignore_border() } else { pool }
}

/// The formula of a line of the reference.
fn formula(words: &[&str], x: &Tensor, w: Option<&Tensor>) -> Tensor {
    match (words[0], w) {
        ("conv1", Some(w)) => x.conv1d(w, conv(words)),
        ("conv2", Some(w)) => x.conv2d(w, conv(words)),
        ("conv3", Some(w)) => x.conv3d(w, conv(words)),
        ("pool1", None) => x.pool_1d(pool(words)),
        ("pool2", None) => x.pool_2d(pool(words)),
        ("pool3", None) => x.pool_3d(pool(words)),
        other => panic!("no formula {other:?}"),
    }
}

#[track_caller]
fn assert_close(found: &Array, shape: &[usize], expected: &[f64], what: &str) {
    assert_eq!(found.shape(), shape, "{what}");
    let bound = if found.dtype() == DType::F32 { 1e-5 } else { 1e-13 };
    let largest = expected.iter().fold(1.0f64, |most, x| most.max(x.abs()));
    for (i, expected) in expected.iter().enumerate() {
        let found = found.get(i).to_f64();
        assert!(
            (found - expected).abs() <= bound * largest,
            "{what}: element {i} is {found}, expected {expected}"
        );
    }
}

/// The engines that run here, half of them for each precision; a device for every fourth line, since its compiler takes its
/// time.
fn engines(dtype: DType, line: usize) -> Vec<Engine> {
    if dtype == DType::F64 {
        return std::iter::once(Engine::REFERENCE).chain(Engine::rewriting()).collect();
    }
    let device = if line.is_multiple_of(4) { Engine::opencl() } else { Vec::new() };
    Engine::literal().into_iter().chain(device.into_iter().take(1)).collect()
}

#[test]
fn values_and_gradients_are_those_of_the_definition() {
    for (number, line) in include_str!("../reference/convolution.txt").lines().enumerate() {
        let fields: Vec<&str> = line.split(" ; ").collect();
        let words: Vec<&str> = fields[0].split(' ').collect();
        let operands = if words[0].starts_with("conv") { 2 } else { 1 };
        let shapes: Vec<Vec<usize>> = fields[1..=operands + 1].iter().map(|text| list(text, ' ')).collect();
        let values: Vec<Vec<f64>> = fields[operands + 2..].iter().map(|text| list(text, ' ')).collect();
        for dtype in [DType::F64, DType::F32] {
            let extents = |shape: &[usize]| shape.iter().map(|n| Some(*n)).collect::<Vec<_>>();
            let x = input("x", dtype, &extents(&shapes[0]));
            let w = (operands == 2).then(|| input("w", dtype, &extents(&shapes[1])));
            let y = formula(&words, &x, w.as_ref());
            let weights = constant(pattern(&shapes[operands], 3)).cast(dtype);
            let variables: Vec<&Tensor> = std::iter::once(&x).chain(&w).collect();
            let gradients = grad(&(&y * weights).sum(All), variables.iter().copied());
            let outputs: Vec<&Tensor> = std::iter::once(&y).chain(&gradients).collect();
            let function = function(&variables, &outputs, &[]).unwrap_or_else(|e| panic!("{line}\n{e}"));
            let inputs: Vec<Array> = (0..operands).map(|n| pattern(&shapes[n], n + 1).cast(dtype)).collect();
            let of = |n: usize| if n == 0 { &shapes[operands] } else { &shapes[n - 1] };
            for engine in engines(dtype, number) {
                let found = engine.run(function.graph(), &inputs);
                let found = found.unwrap_or_else(|e| panic!("{} on {engine}: {e}", fields[0])).outputs;
                for (n, expected) in values.iter().enumerate() {
                    assert_close(
                        &found[n],
                        of(n),
                        expected,
                        &format!("{} of {dtype}, {n}, on {engine}", fields[0]),
                    );
                }
            }
        }
    }
}

#[test]
fn the_example_of_the_tutorial() {
    let values = RandomState::new(1).uniform(0.0, 1.0, 3 * 2 * 5 * 5);
    let images = Array::new(&[3, 2, 5, 5], &values).unwrap();
    let x = input("x", DType::F64, &[None, None, Some(5), Some(5)]);
    let outputs = [x.max_pool_2d([2, 2], true), x.max_pool_2d([2, 2], false)];
    let mut function = function(&[&x], &[&outputs[0], &outputs[1]], &[]).unwrap();
    let found = function.call(&[&images]).unwrap();
    let printed = |array: &Array, from: usize, count: usize| -> Vec<String> {
        (from..from + count).map(|i| format!("{:.8}", array.get(i).to_f64())).collect()
    };
    assert_eq!(printed(found.array(0), 0, 4), ["0.72032449", "0.39676747", "0.68521950", "0.87811744"]);
    assert_eq!(found.array(1).shape(), [3, 2, 3, 3]);
    let expected = [
        "0.67883553",
        "0.58930554",
        "0.69975836",
        "0.66379465",
        "0.94459476",
        "0.58655504",
        "0.90340192",
        "0.80739129",
        "0.39767684",
    ];
    assert_eq!(printed(found.array(1), 18, 9), expected);
}

/// A function of images and filters whose extents are known when it is called.
fn symbolic(formula: impl Fn(&Tensor, &Tensor) -> Tensor) -> Function {
    let (x, w) = (tensor4::<f64>("x"), tensor4::<f64>("w"));
    let y = formula(&x, &w);
    let gradients = grad(&y.sqr().sum(All), [&x, &w]);
    function(&[&x, &w], &[&y, &gradients[0], &gradients[1]], &[]).unwrap()
}

#[test]
fn extents_may_be_known_at_the_call() {
    let mut convs = [
        symbolic(|x, w| x.conv2d(w, Conv::half().stride([2, 1]))),
        symbolic(|x, w| x.conv2d(w, Conv::full().groups(2))),
    ];
    for (n, channels, filters) in [(2, 4, 6), (1, 2, 2)] {
        let images = pattern(&[n, channels, 6, 5], 1);
        for (groups, function) in [1, 2].into_iter().zip(&mut convs) {
            let w = pattern(&[filters, channels / groups, 3, 2], 2);
            let (x, v) = (constant(images.clone()), constant(w.clone()));
            let y = match groups {
                1 => x.conv2d(&v, Conv::half().stride([2, 1])),
                _ => x.conv2d(&v, Conv::full().groups(2)),
            };
            let mut known = Builder::new().outputs(&[&y]).compile().unwrap();
            let found = function.call(&[&images, &w]).unwrap();
            assert_eq!(found.array(0), known.call(&[]).unwrap().array(0));
            assert_eq!(found.array(1).shape(), images.shape());
            assert_eq!(found.array(2).shape(), w.shape());
        }
    }
}

/// The transposed convolution is what takes `y` to the `z` with `<x conv w, y> = <x, z>` for every `x`.
#[test]
fn transposed_convolutions_are_adjoint() {
    let convs = [
        Conv::valid(),
        Conv::half().stride([2, 3]),
        Conv::full().dilation([2, 1]).correlation(),
        Conv::padded([[1, 0], [2, 1]]).stride([3, 2]).groups(2),
    ];
    for conv in convs {
        let groups = if conv == conv.clone().groups(2) { 2 } else { 1 };
        let x = constant(pattern(&[2, 4, 7, 8], 1));
        let w = constant(pattern(&[6, 4 / groups, 3, 2], 2));
        let y = x.conv2d(&w, conv.clone());
        let weights = constant(pattern(&y.ty().extents().unwrap(), 3));
        let z = weights.conv2d_transposed(&w, [7, 8], conv.clone());
        let sums = [(y * &weights).sum(All), (x * &z).sum(All)];
        let mut both = Builder::new().outputs(&[&sums[0], &sums[1], &z]).compile().unwrap();
        let found = both.call(&[]).unwrap();
        assert_eq!(found.scalar(0).unwrap(), found.scalar(1).unwrap(), "{conv:?}");
        assert_eq!(found.array(2).shape(), [2, 4, 7, 8]);
        assert!(found.scalar(0).unwrap() != 0.0);
    }
}

#[track_caller]
fn refused(y: &Tensor, wanted: &str) {
    let fault = match Builder::new().outputs(&[y]).compile() {
        Ok(_) => panic!("compiled"),
        Err(faults) => faults.to_string(),
    };
    assert!(fault.contains(wanted), "{fault}");
}

#[test]
fn mistakes_say_what_was_expected() {
    let variable = |shape: &[usize]| -> Shared { shared("v", Array::zeros(DType::F32, shape)) };
    let x = Tensor::from(variable(&[2, 3, 8, 8]));
    let w = variable(&[4, 2, 3, 3]);
    refused(&x.conv2d(&w, Conv::valid()), "`conv2d` of 3 channels by filters of 2");
    refused(&x.conv2d(variable(&[4, 1, 3, 3]), Conv::valid().groups(2)), "`conv2d` in 2 groups");
    refused(&x.conv2d(variable(&[3, 3, 3]), Conv::valid()), "with 2 axes behind");
    refused(&x.conv2d(variable(&[4, 3, 3, 3]), Conv::valid().stride([0, 1])), "strides and dilations from 1");
    let integers = Tensor::from(shared("i", Array::zeros(DType::I32, &[2, 3, 8, 8])));
    refused(&integers.conv2d(&integers, Conv::valid()), "`f32` or `f64`");
    refused(&x.pool_2d(Pool::max([2, 0])), "expected 1 or more");
    refused(&x.pool_2d(Pool::max([2, 2]).pad([2, 0]).ignore_border()), "expected less than the window");
    refused(&x.pool_2d(Pool::max([2, 2]).pad([1, 0])), "expected `.ignore_border()`");
    refused(&tensor4::<f32>("x").max_pool_2d([2, 2], true), "expected them known");
    refused(
        &x.conv2d_transposed(variable(&[3, 5, 3, 3]), [9, 10], Conv::valid()),
        "to 9 along axis 2: expected 7",
    );
}
