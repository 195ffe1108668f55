use hypatia::{constant, function, grad, matrix, vector};

use super::*;
use crate::tests::{assert_close, reference};

const REVIEWS: [&[i32]; 3] = [&[1, 4, 4, 2], &[0, 3], &[2]];
const LABELS: [i32; 3] = [1, 0, 1];

/// With padding to the longest review and beyond it, costs and gradients are those of NumPy, which sees no padding.
#[test]
fn cost_and_gradients_are_those_of_numpy() {
    let reference = reference("lstm.");
    let model = Lstm::new(&mut RandomState::new(1), 5, 3, 2);
    let parameters = model.parameters();
    for parameter in &parameters {
        parameter.shared.set_value(reference[parameter.name.as_str()].clone()).unwrap();
    }
    let (words, mask, labels) = (matrix::<i32>("words"), matrix::<f32>("mask"), vector::<i32>("labels"));
    let averages = model.averages(&words, &mask);
    let p = model.p_y_given_x(&Lstm::scaled(&averages));
    let dropped = &averages * constant(reference["dropped"].clone());
    let cost = Lstm::negative_log_likelihood(&model.p_y_given_x(&dropped), &labels);
    let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
    let outputs: Vec<&Tensor> = [&p, &cost].into_iter().chain(&gradients).collect();
    let mut f = function(&[&words, &mask, &labels], &outputs, &[]).unwrap();
    for steps in [4, 6] {
        let mut values = vec![0i32; steps * 3];
        let mut present = vec![0f32; steps * 3];
        for (column, review) in REVIEWS.iter().enumerate() {
            for (step, word) in review.iter().enumerate() {
                (values[step * 3 + column], present[step * 3 + column]) = (*word, 1.0);
            }
        }
        let (words, mask) =
            (Array::new(&[steps, 3], &values).unwrap(), Array::new(&[steps, 3], &present).unwrap());
        let found = f.call(&[&words, &mask, &Array::vector(&LABELS)]).unwrap();
        assert_close(found.array(0), &reference["probabilities"], "probabilities");
        assert_close(found.array(1), &reference["cost"], "cost");
        for (number, parameter) in parameters.iter().enumerate() {
            let name = format!("gradient.{}", parameter.name);
            assert_close(found.array(number + 2), &reference[name.as_str()], &name);
        }
    }
}

#[test]
fn weights_are_orthogonal() {
    let units = 6;
    let weights = orthogonal(&mut RandomState::new(3), units).unwrap().to_vec::<f32>().unwrap();
    for gate in 0..4 {
        for (a, b) in (0..units).flat_map(|a| (0..units).map(move |b| (a, b))) {
            let column = |row: usize, column: usize| f64::from(weights[(row * 4 + gate) * units + column]);
            let product: f64 = (0..units).map(|row| column(row, a) * column(row, b)).sum();
            assert!((product - f64::from(u8::from(a == b))).abs() < 1e-6);
        }
    }
}

/// Half of the averages are dropped, and the mean stays what it is after training.
#[test]
fn dropout_keeps_half() {
    let random = RandomStreams::new(5);
    let averages = matrix::<f32>("averages");
    let (dropped, scaled) = (Lstm::dropped(&random, &averages), Lstm::scaled(&averages));
    let mut f = function(&[&averages], &[&dropped.mean(All), &scaled.mean(All)], &[]).unwrap();
    let ones = Array::full(&[100, 100], 1f64.into()).unwrap().cast(DType::F32);
    let found = f.call(&[&ones]).unwrap();
    assert_eq!(found.scalar(1).unwrap(), 0.5);
    // Six standard deviations of the mean of 10,000 coins.
    assert!((found.scalar(0).unwrap() - 0.5).abs() < 0.03);
}
