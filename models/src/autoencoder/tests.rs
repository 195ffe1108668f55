use std::collections::BTreeMap;

use hypatia::{Builder, Function, function, grad, matrix, scalar};

use super::*;
use crate::descent::Descent;
use crate::parameter::Parameter;
use crate::tests::{assert_close, read};

/// Values made by `tests/reference/autoencoder.py`.
fn reference() -> BTreeMap<&'static str, Array> {
    read(include_str!("../../../tests/reference/autoencoder.txt"), "")
}

const NAMES: [&str; 3] = ["W", "bhid", "bvis"];

/// The tiny model with the parameters of the reference, on an input.
fn tiny(input: &Tensor, reference: &BTreeMap<&str, Array>) -> Autoencoder {
    let model = Autoencoder::new(&mut RandomState::new(1), input, 4, 3);
    for (name, shared) in NAMES.into_iter().zip(model.params()) {
        shared.set_value(reference[name].clone()).unwrap();
    }
    model
}

/// A cost and its gradients are those of the reference, by these names.
fn check(model: &Autoencoder, x: &Tensor, cost: &Tensor, name: &str, reference: &BTreeMap<&str, Array>) {
    let gradients = grad(cost, model.params());
    let outputs: Vec<&Tensor> = [cost].into_iter().chain(&gradients).collect();
    let mut function = function(&[x], &outputs, &[]).unwrap();
    let found = function.call(&[&reference["x"]]).unwrap();
    let value = if name == "cost" { "cost" } else { "reconstruction" };
    assert_close(found.array(0), &reference[value], name);
    for (index, parameter) in (1..).zip(NAMES) {
        let name = format!("{name}.{parameter}");
        assert_close(found.array(index), &reference[name.as_str()], &name);
    }
}

#[test]
fn costs_and_gradients_are_those_of_numpy() {
    let (x, reference) = (matrix::<f32>("x"), reference());
    let model = tiny(&x, &reference);
    check(&model, &x, &model.reconstruction_cost(&model.hidden_values(&x)), "reconstruction", &reference);
    let streams = RandomStreams::new(1);
    check(&model, &x, &model.denoising_cost(&streams, 0.0), "reconstruction", &reference);
    check(&model, &x, &model.contractive_cost(0.5).cost, "cost", &reference);
}

/// The division by the size of a minibatch is a true one, through which the contraction trains.
#[test]
fn the_contraction_and_its_derivatives_are_those_of_numpy() {
    let (x, reference) = (matrix::<f32>("x"), reference());
    let model = tiny(&x, &reference);
    let jacobian = model.jacobian(&model.hidden_values(&x));
    let contraction = model.contractive_cost(0.5).jacobian;
    let slope = grad(&contraction, [&model.w]).remove(0);
    let mut function = function(&[&x], &[&jacobian, &contraction, &slope], &[]).unwrap();
    let found = function.call(&[&reference["x"]]).unwrap();
    assert_close(found.array(0), &reference["jacobian"], "jacobian");
    assert_close(found.array(1), &reference["contraction"], "contraction");
    let difference = |name: &str| {
        let both = ["cost", "reconstruction"].map(|cost| format!("{cost}.{name}"));
        let [cost, reconstruction] = both.map(|name| reference[name.as_str()].to_vec::<f32>().unwrap());
        cost.into_iter().zip(reconstruction).map(|(a, b)| (a - b) / 0.5).collect::<Vec<f32>>()
    };
    let slopes = found.array(2).to_vec::<f32>().unwrap();
    for (found, expected) in slopes.iter().zip(difference("W")) {
        assert!((found - expected).abs() < 1e-5, "{found}, {expected}");
    }
    assert!(slopes.iter().any(|slope| slope.abs() > 0.05), "{slopes:?}");
}

/// The elements of a tensor `n` by visible by hidden are never computed, however the norm is written.
#[test]
fn no_kernel_has_an_element_for_each_derivative() {
    const EXAMPLES: usize = 10;
    let x = hypatia::input("x", DType::F32, &[Some(EXAMPLES), Some(32)]);
    let model = Autoencoder::new(&mut RandomState::new(1), &x, 32, 16);
    let hidden = model.hidden_values(&x);
    let jacobian = model.jacobian(&hidden);
    for (how, contraction) in [
        ("as the class does", model.contractive_cost(0.5).jacobian),
        ("over the number of examples", jacobian.sqr().sum(All) / EXAMPLES as f64),
        ("by a power", jacobian.pow(2.0).sum(All) / EXAMPLES as f64),
        ("by a product", (&jacobian * &jacobian).sum([2]).sum([1]).mean(All)),
    ] {
        let cost = model.reconstruction_cost(&hidden) + contraction;
        let parameters = Parameter::list(&NAMES, model.params());
        let (updates, _) = Descent::sgd(0.1).updates(&parameters, grad(&cost, model.params()));
        let updates: Vec<_> = updates.iter().map(|(shared, next)| (shared, next.clone())).collect();
        let step: Function =
            Builder::new().inputs(&[&x]).outputs(&[&cost]).updates(&updates).compile().unwrap();
        let simplified = &step.stages().unwrap().simplified;
        let elements = |node: &hypatia::graph::Node| node.ty.extents().unwrap().iter().product::<usize>();
        let largest = simplified.nodes().map(|(_, node)| elements(node)).max().unwrap();
        assert!(largest <= 32 * 16, "{how}: {largest} elements in\n{simplified}");
    }
}

#[test]
fn a_corrupted_input_keeps_its_share_of_elements() {
    let (x, level) = (matrix::<f32>("x"), scalar::<f32>("level"));
    let model = Autoencoder::new(&mut RandomState::new(1), &x, 50, 3);
    let corrupted = model.corrupted_input(&RandomStreams::new(3), &level);
    let mut function = function(&[&x, &level], &[&corrupted], &[]).unwrap();
    let pixels: Vec<f32> = (1..=20_000_u16).map(f32::from).collect();
    let x = Array::new(&[400, 50], &pixels).unwrap();
    for level in [0.0_f32, 0.3, 0.9, 1.0] {
        let found = function.call(&[&x, &Array::scalar(level)]).unwrap().array(0).to_vec::<f32>().unwrap();
        assert!(found.iter().zip(&pixels).all(|(found, pixel)| *found == 0.0 || found == pixel));
        let kept = found.iter().filter(|x| **x != 0.0).count() as f32 / 20_000.0;
        // Four standard deviations.
        let slack = 4.0 * (level * (1.0 - level) / 20_000.0).sqrt();
        assert!((kept - (1.0 - level)).abs() <= slack, "{level}: {kept}");
    }
}
