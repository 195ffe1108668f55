use hypatia::{function, grad, matrix, vector};

use super::*;
use crate::tests::{assert_close, reference};

const SIZES: Sizes = Sizes { words: 4, embedding: 2, window: 3, hidden: 3, classes: 3 };
const WORDS: [i32; 5] = [2, 0, 0, 3, 2];
const LABELS: [i32; 5] = [0, 2, 1, 1, 0];

#[test]
fn windows_reach_beyond_the_ends() {
    assert_eq!(windows(&[7, 8], 3, 2), [-1, 7, 8, 7, 8, -1]);
    assert_eq!(windows(&[7], 1, 3), [7, -1, -1]);
}

/// With padding and without, costs and gradients are those of NumPy.
#[test]
fn cost_and_gradients_are_those_of_numpy() {
    let reference = reference("slu.");
    let model = RnnSlu::new(&mut RandomState::new(1), SIZES);
    for parameter in model.parameters() {
        parameter.shared.set_value(reference[parameter.name.as_str()].clone()).unwrap();
    }
    let (windows_of, labels, weights) =
        (matrix::<i32>("windows"), vector::<i32>("labels"), vector::<f32>("weights"));
    let p = model.p_y_given_x(&windows_of);
    let cost = model.negative_log_likelihood(&windows_of, &labels, &weights);
    let parameters = model.parameters();
    let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
    let outputs: Vec<&Tensor> = [&p, &cost].into_iter().chain(&gradients).collect();
    let mut f = function(&[&windows_of, &labels, &weights], &outputs, &[]).unwrap();
    for length in [WORDS.len(), 8] {
        let padded = |values: &[i32]| -> Vec<i32> {
            values.iter().copied().chain(std::iter::repeat(0)).take(length).collect()
        };
        let ones: Vec<f32> = (0..length).map(|word| f32::from(u8::from(word < WORDS.len()))).collect();
        let words = Array::new(&[length, SIZES.window], &windows(&WORDS, SIZES.window, length)).unwrap();
        let found = f.call(&[&words, &Array::vector(&padded(&LABELS)), &Array::vector(&ones)]).unwrap();
        let p = found.array(0).to_vec::<f32>().unwrap()[..WORDS.len() * SIZES.classes].to_vec();
        let p = Array::new(&[WORDS.len(), SIZES.classes], &p).unwrap();
        assert_close(&p, &reference["probabilities"], "probabilities");
        assert_close(found.array(1), &reference["cost"], "cost");
        for (number, parameter) in parameters.iter().enumerate() {
            let name = format!("gradient.{}", parameter.name);
            assert_close(found.array(number + 2), &reference[name.as_str()], &name);
        }
    }
}

#[test]
fn rows_of_the_table_are_scaled_to_length_one() {
    let table = matrix::<f32>("table");
    let mut f = function(&[&table], &[&RnnSlu::normalised(&table)], &[]).unwrap();
    let value = Array::new(&[2, 2], &[3f32, 4.0, 0.0, -2.0]).unwrap();
    let expected = Array::new(&[2, 2], &[0.6f32, 0.8, 0.0, -1.0]).unwrap();
    assert_close(f.call(&[&value]).unwrap().array(0), &expected, "rows");
}
