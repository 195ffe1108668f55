//! Composite functions against NumPy, with extents known when they are built and at the call only; and what is said of
//! arguments that make none.
//!
//! Expected values: `tests/reference/composites.py`. Derivatives are checked in `gradients`.

use std::collections::BTreeMap;

use hypatia::{
    All, Array, Builder, DType, Numerics, Padding, Tensor, constant, function, input, ones, switch, zeros,
};

/// The operands: `x`, `y` and `cube` of the reference.
pub(crate) const OPERANDS: [&str; 3] = ["x", "y", "cube"];

/// A name in the reference, and the formula of the operands.
pub(crate) struct Composite(pub(crate) &'static str, pub(crate) fn(&[Tensor; 3]) -> Tensor);

const MARGINS: [(usize, usize); 2] = [(1, 2), (3, 0)];
const LONG: [(usize, usize); 2] = [(2, 1), (11, 13)];

fn vector(values: [f64; 3]) -> Tensor {
    constant(Array::vector(&values))
}

fn scale_and_shift() -> [Tensor; 2] {
    [vector([0.5, 1.0, 2.0]), vector([-1.0, 0.0, 3.0])]
}

fn normalised(cube: &Tensor) -> hypatia::Normalised {
    let [scale, shift] = scale_and_shift();
    cube.batch_normalise([0, 2], scale, shift, 1e-4)
}

fn running(cube: &Tensor) -> (Tensor, Tensor) {
    normalised(cube).running(&vector([0.25, 0.0, -1.0]), &vector([0.5, 1.0, 4.0]), 0.1)
}

pub(crate) const COMPOSITES: &[Composite] = &[
    Composite("squeeze", |[_, y, _]| y.squeeze(0)),
    Composite("expand_dims_first", |[x, ..]| x.expand_dims(0)),
    Composite("expand_dims_last", |[x, ..]| x.expand_dims(-1)),
    Composite("swapaxes", |[.., cube]| cube.swapaxes(0, -1)),
    Composite("repeat_rows", |[x, ..]| x.repeat(x.extent(0), 0)),
    Composite("repeat_columns", |[x, ..]| x.repeat(2, -1)),
    Composite("repeat_none", |[x, ..]| x.repeat(0, 1)),
    Composite("tile_last", |[x, ..]| x.tile([2])),
    Composite("tile_both", |[x, ..]| x.tile([2.into(), hypatia::Size::from(x.extent(0))])),
    Composite("tile_new_axis", |[x, ..]| x.tile([2, 1, 3])),
    Composite("tile_none", |[x, ..]| x.tile([0, 1])),
    Composite("pad_constant", |[x, ..]| x.pad(&[(1, 2), (0, 3)], Padding::Constant(7.5))),
    Composite("pad_edge", |[x, ..]| x.pad(&MARGINS, Padding::Edge)),
    Composite("pad_reflect", |[x, ..]| x.pad(&MARGINS, Padding::Reflect)),
    Composite("pad_symmetric", |[x, ..]| x.pad(&MARGINS, Padding::Symmetric)),
    Composite("pad_wrap", |[x, ..]| x.pad(&MARGINS, Padding::Wrap)),
    Composite("pad_edge_long", |[_, y, _]| y.pad(&LONG, Padding::Edge)),
    Composite("pad_reflect_long", |[_, y, _]| y.pad(&LONG, Padding::Reflect)),
    Composite("pad_symmetric_long", |[_, y, _]| y.pad(&LONG, Padding::Symmetric)),
    Composite("pad_wrap_long", |[_, y, _]| y.pad(&LONG, Padding::Wrap)),
    Composite("norm_two", |[x, ..]| x.norm(2.0, 1)),
    Composite("norm_frobenius", |[x, ..]| x.norm(2.0, All)),
    Composite("norm_one", |[x, ..]| x.norm(1.0, 0)),
    Composite("norm_three", |[x, ..]| x.norm(3.0, 1)),
    Composite("norm_half", |[x, ..]| x.norm(0.5, 1)),
    Composite("norm_negative", |[x, ..]| x.norm(-2.0, 1)),
    Composite("norm_zero", |[x, ..]| x.relu().norm(0.0, 1)),
    Composite("norm_infinite", |[x, ..]| x.norm(f64::INFINITY, 0)),
    Composite("norm_minus_infinite", |[x, ..]| x.norm(f64::NEG_INFINITY, 0)),
    Composite("where", |[x, ..]| switch(x.gt(0.0), x, x.index(hypatia::ix![0, 0]))),
    Composite("leaky_relu", |[x, ..]| x.leaky_relu(0.1)),
    Composite("elu", |[x, ..]| x.elu(0.7)),
    Composite("selu", |[x, ..]| x.selu()),
    Composite("batch_normalise", |[.., cube]| normalised(cube).values),
    Composite("running_mean", |[.., cube]| running(cube).0),
    Composite("running_variance", |[.., cube]| running(cube).1),
    Composite("normalise_by", |[.., cube]| {
        let [scale, shift] = scale_and_shift();
        let (mean, variance) = (vector([0.25, 0.0, -1.0]), vector([0.5, 1.0, 4.0]));
        cube.normalise_by([0, 2], mean, variance, scale, shift, 1e-4)
    }),
    Composite("zeros", |[x, y, _]| zeros(DType::F64, [x.extent(0), y.extent(1)])),
    Composite("ones", |[x, ..]| ones(DType::F64, [x.extent(1)])),
    Composite("lookup", |[x, ..]| {
        let rows = Array::new(&[2, 2], &[2i32, 0, 0, -1]);
        x.take(constant(rows))
    }),
];

/// The arrays of the reference by name.
pub(crate) fn reference() -> BTreeMap<&'static str, Array> {
    let array = |line: &'static str| {
        let mut words = line.split(' ');
        let (name, extents) = (words.next().unwrap(), words.next().unwrap());
        let shape: Vec<usize> = match extents {
            "scalar" => Vec::new(),
            extents => extents.split('x').map(|extent| extent.parse().unwrap()).collect(),
        };
        let values: Vec<f64> =
            words.filter(|word| !word.is_empty()).map(|word| word.parse().unwrap()).collect();
        (name, Array::new(&shape, &values).unwrap())
    };
    include_str!("../reference/composites.txt").lines().map(array).collect()
}

/// The operands, with the extents of the arrays or unknown ones. An extent of 1 that is to be left out is known.
pub(crate) fn operands(arrays: &[&Array; 3], is_known: bool) -> [Tensor; 3] {
    let operand = |name: &str, array: &Array| {
        let shape: Vec<Option<usize>> =
            array.shape().iter().map(|n| (is_known || name == "y" && *n == 1).then_some(*n)).collect();
        input(name, DType::F64, &shape)
    };
    std::array::from_fn(|i| operand(OPERANDS[i], arrays[i]))
}

#[test]
fn composites_are_those_of_numpy() {
    let reference = reference();
    let arrays = OPERANDS.map(|name| &reference[name]);
    for (numerics, is_known) in [(Numerics::Real, false), (Numerics::Strict, true)] {
        let inputs = operands(&arrays, is_known);
        let outputs: Vec<Tensor> = COMPOSITES.iter().map(|Composite(_, formula)| formula(&inputs)).collect();
        let mut compiled = Builder::new()
            .inputs(&inputs.each_ref())
            .outputs(&outputs.iter().collect::<Vec<_>>())
            .numerics(numerics)
            .compile()
            .unwrap_or_else(|faults| panic!("{faults}"));
        let found = compiled.call(&arrays).unwrap_or_else(|error| panic!("{error}"));
        for (number, Composite(name, _)) in COMPOSITES.iter().enumerate() {
            let (found, expected) = (found.array(number), &reference[name]);
            assert_eq!(found.shape(), expected.shape(), "{name}");
            for i in 0..expected.len() {
                let (found, expected) = (found.get(i).to_f64(), expected.get(i).to_f64());
                assert!(
                    (found - expected).abs() <= 1e-12 * (1.0 + expected.abs()),
                    "{name}: {found} {expected}"
                );
            }
        }
    }
}

/// An extent of 1 that is known at the call only can be left out; another one is an error then.
#[test]
fn an_unknown_extent_is_squeezed_at_the_call() {
    let x = hypatia::matrix::<f32>("x");
    let mut squeezed = function(&[&x], &[&x.squeeze(1)], &[]).unwrap();
    let column = Array::new(&[2, 1], &[1f32, 2.0]).unwrap();
    assert_eq!(squeezed.call(&[&column]).unwrap().array(0), &Array::vector(&[1f32, 2.0]));
    assert!(squeezed.call(&[&Array::new(&[1, 2], &[1f32, 2.0]).unwrap()]).is_err());
}

/// Far from the corner nothing overflows, in the values or in their slopes.
#[test]
fn activations_of_large_numbers_have_finite_slopes() {
    let x = hypatia::vector::<f32>("x");
    for y in [x.elu(1.0), x.selu(), x.leaky_relu(0.01)] {
        let slope = hypatia::grad(&y.sum(All), [&x]).remove(0);
        let mut f = function(&[&x], &[&slope], &[]).unwrap();
        let at = Array::vector(&[-1e30f32, -200.0, 0.0, 200.0, 1e30]);
        let slopes = f.call(&[&at]).unwrap().array(0).clone();
        let finite = (0..5).all(|i| slopes.get(i).to_f64().is_finite());
        assert!(finite && slopes.get(2).to_f64() >= 1.0, "{slopes:?}");
    }
}

/// A sample of one has no estimate of a variance.
#[test]
fn the_running_variance_of_one_element_is_that_of_nothing() {
    let x = hypatia::matrix::<f64>("x");
    let normalised = x.batch_normalise(0, 1.0, 0.0, 1e-4);
    let (_, variance) = normalised.running(&zeros(DType::F64, [2]), &ones(DType::F64, [2]), 0.5);
    let mut f = function(&[&x], &[&variance], &[]).unwrap();
    let row = Array::new(&[1, 2], &[3.0, 4.0]).unwrap();
    assert_eq!(f.call(&[&row]).unwrap().array(0), &Array::vector(&[0.5, 0.5]));
}

#[test]
fn mistakes_are_named() {
    let x = input("x", DType::F32, &[Some(3), Some(0)]);
    let said = |y: Tensor| match function(&[&x], &[&y], &[]) {
        Ok(_) => panic!("compiled"),
        Err(faults) => faults.to_string(),
    };
    let margins = [(1, 0), (0, 1)];
    for (formula, expected) in [
        (x.squeeze(0), "`squeeze` expected an extent of 1 at axis 0, found 3"),
        (x.squeeze(2), "axis 2 does not exist in a tensor of rank 2"),
        (x.expand_dims(4), "`expand_dims`: axis 4 does not exist in a tensor of rank 3"),
        (x.swapaxes(0, -3), "`swapaxes`: axis -3 does not exist"),
        (x.repeat(-2, 0), "`repeat` expected a number from 0, found -2"),
        (x.tile([1, -1]), "`tile` expected a number from 0, found -1"),
        (x.repeat(&x, 0), "`repeat` expected an integer scalar, found f32[3, 0]"),
        (x.pad(&[(1, 1)], Padding::Edge), "`pad` expected the margins of 2 axes, found [(1, 1)]"),
        (x.pad(&margins, Padding::Wrap), "elements to copy along axis 1, found an extent of 0"),
        (x.cast(DType::U8).pad(&margins, Padding::Constant(-1.0)), "the number of `pad` is no `u8`"),
        (x.norm(f64::NAN, All), "`norm`: expected an order, found NaN"),
        (zeros(DType::F32, [-1]), "`full` expected a number from 0, found -1"),
        (x.batch_normalise(2, 1.0, 0.0, 0.1).values, "`batch_normalise`: axis 2 does not exist"),
        (x.batch_normalise(0, &x, 0.0, 0.1).values, "expected statistics, scale and shift of rank 1"),
    ] {
        let said = said(formula);
        assert!(said.contains(expected), "{said}\n{expected}");
    }
}
