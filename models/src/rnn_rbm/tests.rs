use std::collections::BTreeMap;

use hypatia::{Function, function, grad, matrix};

use super::*;
use crate::tests::{assert_close, read};

/// Values made by `tests/reference/rnn_rbm.py`: extents and elements by name.
fn reference() -> BTreeMap<&'static str, Array> {
    read(include_str!("../../../tests/reference/rnn_rbm.txt"), "")
}

/// The tiny model with the parameters of the reference.
fn tiny(reference: &BTreeMap<&str, Array>) -> RnnRbm {
    let model = RnnRbm::new(&mut RandomState::new(1), 4, 3, 2);
    for parameter in model.parameters() {
        parameter.shared.set_value(reference[parameter.name.as_str()].clone()).unwrap();
    }
    model
}

/// The cost of a chain that ended in `sample`.
fn cost_of(model: &RnnRbm, (bv, bh): &(Tensor, Tensor), v: &Tensor, sample: &Tensor) -> Tensor {
    let machine = Machine { random: &RandomStreams::new(1), w: &(&model.w).into(), bv, bh };
    (machine.free_energy(v) - machine.free_energy(sample)) / v.extent(0).cast(DType::F32)
}

/// The biases by writing every step down.
fn unrolled(model: &RnnRbm, v: &Tensor, frames: i64) -> (Tensor, Tensor) {
    let mut u = Tensor::from(&model.u0);
    let (mut bv, mut bh) = (Vec::new(), Vec::new());
    for frame in 0..frames {
        let (bv_t, bh_t) = model.biases_after(&u);
        bv.push(bv_t);
        bh.push(bh_t);
        u = model.next_state(&u, &v.index(ix![frame]));
    }
    (hypatia::stack(&bv, 0), hypatia::stack(&bh, 0))
}

#[test]
fn biases_cost_and_gradients_are_those_of_numpy_and_of_the_unrolled_formula() {
    let reference = reference();
    let model = tiny(&reference);
    let (v, sample) = (matrix::<f32>("v"), matrix::<f32>("sample"));
    let parameters = model.parameters();
    let build = |biases: (Tensor, Tensor)| -> Function {
        let cost = cost_of(&model, &biases, &v, &sample);
        let gradients = grad(&cost, parameters.iter().map(|parameter| &parameter.shared));
        let outputs: Vec<&Tensor> = [&biases.0, &biases.1, &cost].into_iter().chain(&gradients).collect();
        function(&[&v, &sample], &outputs, &[]).unwrap()
    };
    let mut scanned = build(model.biases(&v));
    let mut written_out = build(unrolled(&model, &v, 6));
    let arguments = [&reference["v"], &reference["sample"]];
    let scanned = scanned.call(&arguments).unwrap();
    let written_out = written_out.call(&arguments).unwrap();
    let gradients = parameters.iter().map(|parameter| format!("gradient.{}", parameter.name));
    let names = ["bv_t", "bh_t", "cost"].map(str::to_owned).into_iter().chain(gradients);
    for (number, name) in names.enumerate() {
        let expected = &reference[name.as_str()];
        assert_close(scanned.array(number), expected, &name);
        assert_close(written_out.array(number), expected, &name);
    }
}

#[test]
fn the_monitor_is_finite_for_saturated_units() {
    let model = RnnRbm::new(&mut RandomState::new(1), 4, 3, 2);
    let v = matrix::<f32>("v");
    let chain = model.chain(&RandomStreams::new(3), &v, 2);
    let mut monitor = function(&[&v], &[&chain.monitor], &[]).unwrap();
    let frames = Array::new(&[2, 4], &[1.0_f32, 0.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0]).unwrap();
    // Where a sigmoid is 0 or 1 in float32 and the data say the opposite, its logarithm would be infinite.
    for scale in [1.0_f32, 100.0, 1e4, -1e4, 1e30] {
        model.bv.set_value(Array::vector(&[scale, scale, -scale, -scale])).unwrap();
        let found = monitor.call(&[&frames]).unwrap().scalar(0).unwrap();
        assert!(found.is_finite() && found < 0.0, "{scale}: {found}");
        if scale.abs() > 50.0 && scale.abs() < 1e10 {
            // W is tiny and the states are near 0: log(sigmoid(-|b|)) = -|b| for each unit that is wrong.
            // In both frames two of the four units are wrong.
            let expected = -2.0 * f64::from(scale.abs());
            assert!((found / expected - 1.0).abs() < 0.1, "{scale}: {found}, {expected}");
        }
    }
}

/// Each frame of a model without memory is a draw from its Boltzmann machine, whose probabilities can be enumerated.
#[test]
fn generated_frames_have_the_probabilities_of_the_machine() {
    let (visible, hidden, frames) = (3, 2, 40_000);
    let model = RnnRbm::new(&mut RandomState::new(1), visible, hidden, 2);
    let (w, bv, bh) = ([0.8_f32, -0.5, 0.3, 0.9, -1.0, 0.4], [0.2_f32, -0.4, 0.1], [-0.3_f32, 0.5]);
    model.w.set_value(Array::new(&[visible, hidden], &w).unwrap()).unwrap();
    model.bv.set_value(Array::vector(&bv)).unwrap();
    model.bh.set_value(Array::vector(&bh)).unwrap();
    for weights in [&model.wuh, &model.wuv] {
        let zeros =
            weights.get_value().unwrap().to_vec::<f32>().unwrap().iter().map(|_| 0.0).collect::<Vec<f32>>();
        weights.set_value(Array::new(weights.get_value().unwrap().shape(), &zeros).unwrap()).unwrap();
    }
    // exp(-F(v)) = exp(v . bv) prod(1 + exp(v . W[:, j] + bh[j])).
    let weight = |state: usize| {
        let on = |i: usize| (state >> i & 1) as f64;
        let linear: f64 = (0..visible).map(|i| on(i) * f64::from(bv[i])).sum();
        let units = (0..hidden).map(|j| {
            let input: f64 = (0..visible).map(|i| on(i) * f64::from(w[i * hidden + j])).sum();
            1.0 + (input + f64::from(bh[j])).exp()
        });
        linear.exp() * units.product::<f64>()
    };
    let total: f64 = (0..8).map(weight).sum();
    let tune = model.generate(&RandomStreams::new(5), frames, 25);
    let mut generate = function(&[], &[&tune], &[]).unwrap();
    let values = generate.call(&[]).unwrap().array(0).to_vec::<f32>().unwrap();
    let mut counts = [0_usize; 8];
    for frame in values.chunks_exact(visible) {
        counts[frame.iter().enumerate().map(|(i, on)| (*on as usize) << i).sum::<usize>()] += 1;
    }
    for (state, count) in counts.into_iter().enumerate() {
        let p = weight(state) / total;
        let deviation = (frames as f64 * p * (1.0 - p)).sqrt();
        let difference = (count as f64 - frames as f64 * p).abs();
        assert!(difference < 4.5 * deviation, "state {state}: {count}, expected {}", frames as f64 * p);
    }
}

#[test]
fn a_frame_depends_on_the_state_before_it() {
    // A unit that switches itself: the recurrent state remembers the last frame and forbids it.
    let model = RnnRbm::new(&mut RandomState::new(1), 1, 1, 1);
    model.wvu.set_value(Array::new(&[1, 1], &[40.0_f32]).unwrap()).unwrap();
    model.bu.set_value(Array::vector(&[-20.0_f32])).unwrap();
    model.wuv.set_value(Array::new(&[1, 1], &[-60.0_f32]).unwrap()).unwrap();
    model.u0.set_value(Array::vector(&[-1.0_f32])).unwrap();
    let tune = model.generate(&RandomStreams::new(2), 6, 1);
    let mut generate = function(&[], &[&tune], &[]).unwrap();
    let values = generate.call(&[]).unwrap().array(0).to_vec::<f32>().unwrap();
    assert_eq!(values, [1.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
}

#[test]
fn the_first_weights_are_those_of_numpy() {
    // numpy.random.seed(0xbeef); randint(1 << 30); normal(scale=0.01, size=(88, 150))[0, :2], and the last of Wuu.
    let mut rng = RandomState::new(0xbeef);
    let seed = rng.randint(0, 1 << 30, 1).unwrap();
    let model = RnnRbm::new(&mut rng, 88, 150, 100);
    let first = model.w.get_value().unwrap().to_vec::<f32>().unwrap();
    let last = model.wuu.get_value().unwrap().to_vec::<f32>().unwrap();
    assert_eq!(seed, [SEED]);
    assert_eq!(first[..2], FIRST);
    assert_eq!(last.last(), Some(&LAST));
}

const SEED: i64 = 564144054;
const FIRST: [f32; 2] = [-0.0080531435, -0.0007798803];
const LAST: f32 = 0.00015229899;
