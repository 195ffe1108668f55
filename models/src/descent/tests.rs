use std::collections::BTreeMap;

use hypatia::{constant, function, scalar};

use super::*;

/// Values made by `tests/reference/descent.py`.
fn reference() -> BTreeMap<&'static str, Vec<f64>> {
    let text = include_str!("../../../tests/reference/descent.txt");
    let line = |line: &'static str| {
        let (name, values) = line.split_once(' ').unwrap();
        (name, values.split(' ').map(|value| value.parse().unwrap()).collect())
    };
    text.lines().map(line).collect()
}

const STEPS: usize = 6;
const RATE: f32 = 0.0625;

/// The path of the script's parameters, which are two here; the names of what is remembered.
fn path(descent: impl FnOnce(&Tensor) -> Descent) -> (Vec<f32>, Vec<String>) {
    let (t, rate) = (scalar::<f32>("t"), scalar::<f32>("rate"));
    let starts = [Array::vector(&[0.5_f32]), Array::vector(&[-1.25_f32, 2.0])];
    let slopes = [Array::vector(&[1.0_f32]), Array::vector(&[3.0_f32, 0.25])];
    let middles = [Array::vector(&[0.25_f32]), Array::vector(&[-0.5_f32, 1.5])];
    let parameters: Vec<Parameter> = ["p", "q"]
        .into_iter()
        .zip(starts)
        .map(|(name, start)| Parameter::new(name, &shared(name, start)))
        .collect();
    let gradients = parameters.iter().zip(slopes).zip(middles);
    let gradients = gradients
        .map(|((parameter, slope), middle)| constant(slope) * (&parameter.shared - constant(middle) * &t))
        .collect();
    let (updates, remembered) = descent(&rate).updates(&parameters, gradients);
    let updates: Vec<_> = updates.iter().map(|(shared, next)| (shared, next.clone())).collect();
    let mut step = hypatia::Builder::new()
        .inputs(&[&t])
        .input_with_default(&rate, Array::scalar(RATE))
        .on_unused_input(hypatia::Unused::Ignore)
        .updates(&updates)
        .compile()
        .unwrap();
    let mut values = Vec::new();
    for number in 0..STEPS {
        step.call(&[&Array::scalar(number as f32)]).unwrap();
        let parts = parameters.iter().map(|p| p.shared.get_value().unwrap().to_vec::<f32>().unwrap());
        values.extend(parts.flatten());
    }
    (values, remembered.into_iter().map(|parameter| parameter.name).collect())
}

fn assert_close(found: &[f32], expected: &[f64], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (f64::from(*found) - expected).abs();
        assert!(error <= 2e-6 * expected.abs().max(1.0), "{what}[{index}]: {found} for {expected}");
    }
}

#[test]
fn rules_go_the_way_of_their_papers() {
    let reference = reference();
    let momentum = 0.75;
    for (name, rule, remembered) in [
        ("sgd", Rule::Sgd, ""),
        ("momentum", Rule::Momentum { momentum }, "velocity.p velocity.q"),
        ("nesterov", Rule::Nesterov { momentum }, "velocity.p velocity.q"),
        ("adagrad", Rule::ADAGRAD, "squares.p squares.q"),
        ("rmsprop", Rule::RMSPROP, "squares.p squares.q"),
        ("centred_rmsprop", Rule::CENTRED_RMSPROP, "squares.p mean.p velocity.p squares.q mean.q velocity.q"),
        ("adam", Rule::ADAM, "mean.p squares.p step mean.q squares.q"),
    ] {
        let (found, names) = path(|rate| Descent::new(rule, rate));
        assert_close(&found, &reference[name], name);
        assert_eq!(names, remembered.split_whitespace().collect::<Vec<_>>(), "{name}");
        // A number is as good a rate as an input.
        assert_eq!(path(|_| Descent::new(rule, f64::from(RATE))).0, found, "{name}");
    }
    let (found, names) = path(|_| Descent::new(Rule::ADADELTA, 1.0));
    assert_close(&found, &reference["adadelta"], "adadelta");
    assert_eq!(names, ["squares.p", "steps.p", "squares.q", "steps.q"]);
}

#[test]
fn gradients_are_clipped_together() {
    assert_close(&path(|rate| Descent::sgd(rate).with_clip(1.0)).0, &reference()["clipped"], "clipped");
    let unclipped = path(|rate| Descent::sgd(rate)).0;
    assert_eq!(path(|rate| Descent::sgd(rate).with_clip(1e6)).0, unclipped);
    // Gradients of 0 have no direction and stay 0.
    let zero = clipped(vec![constant(Array::vector(&[0.0_f32, 0.0]))], 1.0).remove(0);
    let mut function = function(&[], &[&zero], &[]).unwrap();
    assert_eq!(function.call(&[]).unwrap().array(0).to_vec::<f32>().unwrap(), [0.0, 0.0]);
}

#[test]
fn schedules_have_the_factors_of_numpy() {
    let reference = reference();
    let t = scalar::<i64>("t");
    for (name, schedule) in [
        ("constant", Schedule::Constant),
        ("staircase", Schedule::Staircase { factor: 0.5, every: 3 }),
        ("exponential", Schedule::Exponential { factor: 0.5, every: 3 }),
        ("inverse", Schedule::Inverse { after: 4 }),
        ("linear", Schedule::Linear { over: 8, last: 0.25 }),
        ("cosine", Schedule::Cosine { over: 8, last: 0.25 }),
    ] {
        let mut factor = hypatia::Builder::new()
            .inputs(&[&t])
            .outputs(&[&schedule.factor(&t)])
            .on_unused_input(hypatia::Unused::Ignore)
            .compile()
            .unwrap();
        let at = [0_i64, 1, 2, 3, 4, 5, 7, 8, 9, 100];
        let found = at.map(|t| factor.call(&[&Array::scalar(t)]).unwrap().scalar(0).unwrap() as f32);
        assert_close(&found, &reference[name], name);
    }
}

#[test]
fn a_schedule_counts_its_own_steps() {
    let schedule = Schedule::Linear { over: 8, last: 0.25 };
    let (found, names) = path(|rate| Descent::sgd(rate).with_schedule(schedule));
    assert_close(&found, &reference()["scheduled"], "scheduled");
    assert_eq!(names, ["step"]);
    // Adam counts with the same counter.
    let (_, names) = path(|rate| Descent::new(Rule::ADAM, rate).with_schedule(schedule));
    assert_eq!(names.iter().filter(|name| *name == "step").count(), 1);
}
