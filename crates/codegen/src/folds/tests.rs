//! Sums against sums in double precision: the relative error stays within some `log2(n)` roundings, in whatever form, along
//! whatever axis, on every engine.

use hypatia_graph::compose::All;
use hypatia_graph::tensor::{Shared, matrix, shared, tensor3, vector};
use hypatia_graph::{Array, Literal, Tensor};

use super::*;
use crate::scan::tests::{check, graph, on_cpu};
use hypatia_kernels::features::InstructionSet;

/// The relative error that a sum of so many terms may have: a rounding for each halving, and some for the terms themselves
/// and what is done with the sum.
fn bound(n: usize) -> f64 {
    ((n as f64).log2() + 8.0) * f64::powi(2.0, -24)
}

fn tenths(shape: &[usize]) -> Array {
    Array::full(shape, Literal::from_f64(0.1, DType::F32)).unwrap()
}

/// Equal elements, whose roundings all go one way, and elements between 0 and 1.
fn values(shape: &[usize]) -> [Array; 2] {
    let len = shape.iter().product::<usize>();
    let golden = |i: usize| ((i + 1) as f64 * 0.618_033_988_749_894_9).fract() as f32;
    [tenths(shape), Array::new(shape, &(0..len).map(golden).collect::<Vec<f32>>()).unwrap()]
}

#[test]
fn pieces_leave_no_rest_where_they_can() {
    assert_eq!(piece(784, 512, 16), 112);
    assert_eq!(piece(1024, 512, 16), 512);
    assert_eq!(piece(1000, 512, 16), 512);
    assert_eq!(piece(1_000_003, 512, 16), 512);
    assert_eq!(piece(600, 32, 1), 30);
    assert_eq!(piece(37, 32, 1), 19);
    assert_eq!(piece(50, 1, 1), 1);
}

/// Forms of a sum over all of a vector.
fn of_vector(x: &Tensor) -> Vec<Tensor> {
    vec![x.sum(All), x.mean(All), x.sqr().sum(All), (x * 2.0 + 1.0).mean(All), x.exp().sum(All), x.dot(x)]
}

#[test]
fn sums_of_vectors() {
    for n in [1, 7, 33, 100, 511, 513, 784, 1000, 5003] {
        for value in values(&[n]) {
            let x = vector::<f32>("x");
            let outputs = of_vector(&x);
            check(&outputs.iter().collect::<Vec<_>>(), &[], &[(&x, value)], bound(n));
        }
    }
}

#[test]
fn sums_along_rows_and_columns() {
    for [m, n] in [[3, 1000], [1000, 3], [37, 70], [300, 20], [2, 5003], [2003, 2], [700, 1]] {
        for value in values(&[m, n]) {
            let x = matrix::<f32>("x");
            let outputs =
                [x.sum(0), x.sum(1), x.mean(0), x.mean(1), x.sqr().sum(All), x.mean(All), x.t().exp().sum(0)];
            check(&outputs.iter().collect::<Vec<_>>(), &[], &[(&x, value)], bound(m * n));
        }
    }
}

#[test]
fn sums_along_axes_in_the_middle_and_around_it() {
    for shape in [[5, 300, 7], [90, 3, 80], [40, 50, 3]] {
        for value in values(&shape) {
            let x = tensor3::<f32>("x");
            let outputs = [x.sum(1), x.sum([0, 2]), x.sum([0, 1]), x.mean([1, 2]), x.mean(All)];
            let n = shape.iter().product();
            check(&outputs.iter().collect::<Vec<_>>(), &[], &[(&x, value)], bound(n));
        }
    }
}

#[test]
fn products_of_many_terms() {
    for [m, k, n] in [[1, 9000, 1], [3, 5000, 2], [20, 1000, 30], [2, 700, 70], [70, 300, 70], [1, 500, 3]] {
        for (a, b) in values(&[m, k]).into_iter().zip(values(&[k, n])) {
            let (x, y) = (matrix::<f32>("x"), matrix::<f32>("y"));
            check(&[&x.dot(&y)], &[], &[(&x, a), (&y, b)], bound(k));
        }
    }
}

#[test]
fn a_deep_product_is_added_to_a_variable() {
    let (x, d) = (matrix::<f32>("x"), matrix::<f32>("d"));
    let w: Shared = shared("w", Array::full(&[4, 6], Literal::from_f64(0.5, DType::F32)).unwrap());
    let new = &w * 0.9 - x.t().dot(&d) * 0.001;
    let [_, a] = values(&[9001, 4]);
    let [_, b] = values(&[9001, 6]);
    let (_, program) = check(&[], &[(w, new)], &[(&x, a), (&d, b)], 64.0 * bound(9001));
    assert!(
        program.steps.iter().any(|step| matches!(&step.kernel, Kernel::Product(p) if p.batch == 2)),
        "{program}"
    );
}

#[test]
fn stacks_of_deep_products() {
    let (x, y) = (tensor3::<f32>("x"), tensor3::<f32>("y"));
    let [_, a] = values(&[2, 3, 4500]);
    let [_, b] = values(&[2, 4500, 2]);
    check(&[&x.dot(&y)], &[], &[(&x, a), (&y, b)], bound(4500));
}

#[test]
fn millions_of_terms() {
    let results = |outputs: &[&Tensor], inputs: &[(&Tensor, Array)]| {
        let graph = graph(outputs, &[], inputs);
        let inputs: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
        on_cpu(&graph, &inputs, InstructionSet::Avx512, 2).unwrap()
    };
    let near = |found: &Array, expected: f64, n: usize| {
        for i in 0..found.len() {
            let x = found.get(i).to_f64();
            assert!((x - expected).abs() <= bound(n) * expected, "{x}, not {expected}");
        }
    };
    let tenth = f64::from(0.1_f32);
    let n = 4_000_003;
    let x = vector::<f32>("x");
    let all = tenths(&[n]);
    let found = results(&[&x.sum(All), &x.mean(All), &x.sqr().sum(All), &x.dot(&x)], &[(&x, all)]);
    let count = n as f64;
    for (found, expected) in
        found.iter().zip([tenth * count, tenth, tenth * tenth * count, tenth * tenth * count])
    {
        near(found, expected, n);
    }
    let x = matrix::<f32>("x");
    let all = tenths(&[n, 2]);
    near(&results(&[&x.mean(0)], &[(&x, all)])[0], tenth, n);
}
