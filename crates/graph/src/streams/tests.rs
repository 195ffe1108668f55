//! Streams against values of `tests/reference/philox.py`, their state, and what they refuse.

use super::*;
use crate::Graph;
use crate::collect::{Request, collect};
use crate::compose::All;
use crate::differentiate::{check, differentiate};
use crate::gradient::grad;
use crate::interp::interpret;
use crate::random::uniform_element;
use crate::specialise::{Arguments, specialise};
use crate::tensor::{constant, matrix, scalar, vector};
use crate::text::parse;
use crate::verify::{Stage, verify};

fn graph(outputs: &[&Tensor]) -> Graph {
    let outputs = outputs.iter().map(|t| (*t).clone()).collect();
    collect(&Request { outputs, ..Request::default() }).unwrap()
}

/// The values of expressions without inputs, by the interpreter.
fn values(outputs: &[&Tensor]) -> Vec<Array> {
    interpret(&graph(outputs), &[]).unwrap().outputs
}

fn floats(x: &Tensor) -> Vec<f32> {
    values(&[x])[0].to_vec().unwrap()
}

fn message(x: &Tensor) -> String {
    collect(&Request { outputs: vec![x.clone()], ..Request::default() }).unwrap_err().to_string()
}

#[test]
fn generator_and_keys_are_those_of_the_reference() {
    let mut lines = 0;
    for line in include_str!("reference.txt").lines() {
        let (given, expected) = line.split_once(" = ").unwrap();
        let given: Vec<&str> = given.split(' ').collect();
        let hexadecimal = |word: &str| u32::from_str_radix(word, 16).unwrap();
        lines += 1;
        match given[0] {
            "words" => {
                let words: Vec<u32> = given[1..].iter().map(|w| hexadecimal(w)).collect();
                let got = philox4x32_10([words[0], words[1], words[2], words[3]], [words[4], words[5]]);
                let expected: Vec<u32> = expected.split(' ').map(hexadecimal).collect();
                assert_eq!(got[..], expected, "{line}");
            }
            "uniform" => {
                let [key, counter, element] = [1, 2, 3].map(|i| given[i].parse::<u64>().unwrap());
                let got = uniform_element(key, counter as i64, element);
                assert_eq!(got.to_bits(), hexadecimal(expected), "{line}");
            }
            "key" => {
                let [seed, number] = [1, 2].map(|i| given[i].parse::<u64>().unwrap());
                assert_eq!(key_of(seed, number), expected.parse::<u64>().unwrap(), "{line}");
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!(lines, 103);
}

#[test]
fn a_draw_is_the_function_of_its_key_and_counter() {
    let streams = RandomStreams::new(1234);
    let draw = streams.uniform([3, 50], 0.0, 1.0);
    streams.counters()[0].set_value(Array::scalar(160i64)).unwrap();
    let expected: Vec<f32> = (0..150).map(|e| uniform_element(key_of(1234, 0), 160, e)).collect();
    let graph = graph(&[&draw]);
    verify(&graph, Stage::Collected).unwrap();
    let evaluation = interpret(&graph, &[]).unwrap();
    assert_eq!(evaluation.outputs[0].to_vec::<f32>().unwrap(), expected);
    // 150 elements are three blocks of 64, each of 16 counters.
    assert_eq!(evaluation.updates[0].1.get(0).to_i64(), Some(160 + 48));
}

#[test]
fn one_draw_is_shared_and_two_differ() {
    let streams = RandomStreams::new(1);
    let (a, b) = (streams.uniform([100], 0.0, 1.0), streams.uniform([100], 0.0, 1.0));
    assert_eq!(floats(&(&a - &a)), [0.0; 100]);
    assert_ne!(floats(&a), floats(&b));
    let again = RandomStreams::new(1).uniform([100], 0.0, 1.0);
    assert_eq!(floats(&a), floats(&again));
    assert_ne!(floats(&a), floats(&RandomStreams::new(2).uniform([100], 0.0, 1.0)));
}

#[test]
fn extents_may_be_symbolic() {
    let n = scalar::<i64>("n");
    let x = matrix::<f32>("x");
    let streams = RandomStreams::new(5);
    let draw = streams.uniform([Size::from(&n), Size::from(x.extent(1))], 0.0, 1.0);
    let request = Request { inputs: vec![n.clone(), x.clone()], outputs: vec![draw], ..Request::default() };
    let graph = collect(&request).unwrap();
    let arguments = [Array::scalar(7i64), Array::zeros(DType::F32, &[2, 30]).unwrap()];
    let symbolic = interpret(&graph, &arguments).unwrap();
    assert_eq!(symbolic.outputs[0].shape(), [7, 30]);
    // 210 elements are four blocks.
    assert_eq!(symbolic.updates[0].1.get(0).to_i64(), Some(64));
    let id = |t: &Tensor| t.leaf().unwrap().id;
    let known =
        Arguments { shapes: [(id(&x), [2usize, 30][..].into())].into(), values: [(id(&n), 7)].into() };
    let concrete = specialise(&graph, &known).unwrap();
    verify(&concrete, Stage::Specialised).unwrap();
    assert_eq!(interpret(&concrete, &arguments).unwrap(), symbolic);
}

#[test]
fn text_keeps_draws() {
    let streams = RandomStreams::new(9);
    let n = scalar::<i64>("n");
    let sum = streams.uniform([4, 5], -1.0, 1.0) + streams.normal([Size::from(&n), Size::from(5)], 0.0, 1.0);
    let graph = collect(&Request { inputs: vec![n], outputs: vec![sum], ..Request::default() }).unwrap();
    let text = graph.to_string();
    assert!(text.contains("random{key="), "{text}");
    assert_eq!(parse(&text).unwrap().to_string(), text);
    let wrong = parse("%0 = random{key=1, dims=[3]}(1.0f32) : f32[3]\noutput %0").unwrap_err().to_string();
    assert!(wrong.contains("i64 scalar"), "{wrong}");
}

#[test]
fn nothing_flows_through_a_draw_but_its_parameters_learn() {
    let (mean, std) = (shared("mean", Array::vector(&[1.0f32, 2.0])), shared("std", Array::scalar(0.5f32)));
    let streams = RandomStreams::new(3);
    let x = streams.normal([6, 2], &mean, &std);
    let gradients = grad(&x.sum(All), [&mean, &std]);
    let request = Request {
        outputs: vec![gradients[0].clone(), gradients[1].clone(), (&x - &mean).sum(All) / &std],
        ..Request::default()
    };
    let collected = collect(&request).unwrap();
    let specialised = specialise(&collected, &Arguments::default()).unwrap();
    let taken = differentiate(&specialised, &mut Graph::clone).unwrap();
    let got = interpret(&taken, &[]).unwrap().outputs;
    assert_eq!(got[0].to_vec::<f32>().unwrap(), [6.0, 6.0]);
    let (slope, expected) = (got[1].item().unwrap(), got[2].item().unwrap());
    assert!((slope - expected).abs() < 1e-5, "{slope} {expected}");
    let p = shared("p", Array::scalar(0.5f32));
    let cost = streams.binomial([4], 1, &p).sum(All);
    let gradient = &grad(&cost, [&p])[0];
    let fault = check(&graph(&[gradient])).unwrap_err().to_string();
    assert!(fault.contains("the cost does not depend on `p`"), "{fault}");
}

#[test]
fn state_returns_and_seeds_begin_anew() {
    let streams = RandomStreams::new(42);
    let draws = [streams.uniform([10], 0.0, 1.0), streams.uniform([10], 0.0, 1.0)];
    let both = || -> Vec<Vec<f32>> { draws.iter().map(floats).collect() };
    let first = both();
    streams.counters()[1].set_value(Array::scalar(16i64)).unwrap();
    let kept = streams.state().unwrap();
    let later = both();
    assert!(first[0] == later[0] && first[1] != later[1]);
    streams.seed(43).unwrap();
    let others = both();
    assert!(others[0] != first[0] && others[1] != first[1]);
    streams.seed(43).unwrap();
    assert_eq!(both(), others);
    streams.seed(42).unwrap();
    assert_eq!(both(), first);
    streams.set_state(&kept).unwrap();
    assert_eq!(both(), later);
    // A fresh program resumes where the first one stood; another program is told why it cannot.
    let resumed = RandomStreams::new(42);
    let draw = [resumed.uniform([10], 0.0, 1.0), resumed.uniform([10], 0.0, 1.0)];
    resumed.set_state(&kept).unwrap();
    assert_eq!(draw.each_ref().map(floats)[..], later[..]);
    let other = RandomStreams::new(41);
    let _ = other.uniform([10], 0.0, 1.0);
    let fault = other.set_state(&kept).unwrap_err().to_string();
    assert!(fault.contains("expected  i64[1, 2]") && fault.contains("found     i64[2, 2]"), "{fault}");
    let _ = other.uniform([10], 0.0, 1.0);
    let fault = other.set_state(&kept).unwrap_err().to_string();
    assert!(fault.contains("another seed"), "{fault}");
}

#[test]
fn rows_and_edges_of_each_distribution() {
    let streams = RandomStreams::new(8);
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [[0.0, 1.0], [1.0, 0.0], [0.0, 0.0], [-1.0, nan], [nan, 1e-45], [inf, 1.0], [1e38, -inf]];
    let p = shared("p", Array::new(&[7, 2], rows.as_flattened()).unwrap());
    let expected = [0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0];
    assert_eq!(floats(&streams.multinomial(&p)), expected);
    // A row without a positive number gives what no index can be.
    let column = values(&[&streams.categorical(&p)]).remove(0);
    assert_eq!((column.shape(), column.to_vec::<i64>().unwrap()), (&[7][..], vec![1, 0, 2, 2, 1, 0, 0]));
    // Clamped when run: below 0 and NaN never, above 1 always.
    let p = shared("p", Array::vector(&[-0.5f32, f32::NAN, 1.5, 1.0, 0.0]));
    assert_eq!(floats(&streams.binomial([5], 1, &p)), [0.0, 0.0, 1.0, 1.0, 0.0]);
    assert_eq!(floats(&streams.binomial([5], 7, &p)), [0.0, 0.0, 7.0, 7.0, 0.0]);
    assert_eq!(floats(&streams.binomial([2], 0, 0.5)), [0.0, 0.0]);
    let (low, high) = (shared("low", Array::scalar(5i64)), shared("high", Array::scalar(5i64)));
    assert_eq!(values(&[&streams.integers([2], &low, &high)])[0].to_vec::<i64>().unwrap(), [5, 5]);
    let large = 1i64 << 37;
    let wide = values(&[&streams.integers([1000], -large, large)])[0].to_vec::<i64>().unwrap();
    assert!(wide.iter().all(|x| (-large..large).contains(x)));
    assert!(wide.iter().any(|x| x % 2 != 0) && wide.iter().any(|x| *x < -large / 2));
    let mut order = values(&[&streams.permutation(100)])[0].to_vec::<i64>().unwrap();
    assert_ne!(order, (0..100).collect::<Vec<i64>>());
    order.sort_unstable();
    assert_eq!(order, (0..100).collect::<Vec<i64>>());
    assert_eq!(floats(&streams.uniform([0usize; 0], 2.0, 3.0)).len(), 1);
    assert!(floats(&streams.uniform([0, 4], 0.0, 1.0)).is_empty());
    assert!(values(&[&streams.permutation(0)])[0].is_empty());
}

#[test]
fn the_ends_of_a_uniform_draw_stay_in_the_range() {
    // Counters at which the first draw of seed 7 begins with the largest and the least of the 2^24 values.
    let ends = [(6_672_775, 1.0 - 1.0 / 16_777_216.0), (11_392_244, 0.0)];
    for (at, word) in ends {
        assert_eq!(uniform_element(key_of(7, 0), at, 0), word);
        let drawn = |draw: &dyn Fn(&RandomStreams) -> Tensor| {
            let streams = RandomStreams::new(7);
            let draw = draw(&streams);
            streams.counters()[0].set_value(Array::scalar(at)).unwrap();
            f64::from(floats(&draw)[0])
        };
        for (low, high) in [(0.0, 1.0), (1.0, 2.0), (-2.0, 3.0), (0.0, 3.0), (1e8, 1e8 + 8.0), (-1e-3, 1e3)] {
            let x = drawn(&|streams| streams.uniform([1], low, high));
            assert!((f64::from(low as f32)..high).contains(&x), "{x} of {low}..{high}");
        }
        let [one, zero] = [1.0f32, 0.0].map(|p| shared("p", Array::scalar(p)));
        assert_eq!(drawn(&|streams| streams.binomial([1], 1, &one)), 1.0);
        assert_eq!(drawn(&|streams| streams.binomial([1], 1, &zero)), 0.0);
        assert!(drawn(&|streams| streams.normal([1], 0.0, 1.0)).abs() <= 5.77);
        // An impossible column does not win by a waiting time of 0.
        let p = shared("p", Array::vector(&[0.0f32, 1e-38, 0.0]));
        assert_eq!(drawn(&|streams| streams.multinomial(&p)), 0.0);
    }
}

#[test]
fn what_is_outside_of_a_domain_is_refused() {
    let streams = RandomStreams::new(0);
    let p = constant(Array::vector(&[0.5f32, 1.5]));
    let x = vector::<f32>("x");
    let cases: Vec<(Tensor, &[&str])> = vec![
        (streams.binomial([3], 1, 1.5), &["`binomial` takes probabilities in [0, 1]", "found  1.5"]),
        (streams.binomial([3], 1, f64::NAN), &["probabilities in [0, 1]", "found  NaN"]),
        (streams.binomial([2], 1, &p), &["probabilities in [0, 1]", "found  1.5"]),
        (
            streams.multinomial(constant(Array::vector(&[0.5f32, -0.5]))),
            &["`multinomial` takes finite probabilities of 0 or more", "found  -0.5"],
        ),
        (streams.categorical(constant(Array::vector(&[0.0f64; 3]))), &["rows with a positive probability"]),
        (streams.uniform([3], -3e38, 3e38), &["bounds whose distance is a finite f32"]),
        (streams.multinomial(0.5), &["`multinomial` takes rows of probabilities", "f64[]"]),
        (streams.uniform([3], 2.0, 1.0), &["`uniform` takes finite bounds", "2 and 1"]),
        (streams.normal([3], 0.0, -1.0), &["a standard deviation of 0 or more", "found  -1"]),
        (streams.integers([3], 4, 4), &["`integers` takes a range of 1 to", "found  4..4"]),
        (streams.integers([3], 0.5, 4), &["`integers` takes integer bounds"]),
        (streams.choice(0, [3]), &["`choice` takes a range of 1 to", "0..0"]),
        (streams.permutation(1 << 60), &["more elements than memory can hold"]),
        (streams.uniform([3, -1], 0.0, 1.0), &["extents that are 0 or more", "found  -1"]),
        (streams.uniform([&x], 0.0, 1.0), &["or integer scalars", "f32[?]", "`x`"]),
        (streams.uniform([1usize << 40, 1 << 40], 0.0, 1.0), &["more elements than memory can hold"]),
        (streams.binomial([3, 4], 1, x.dimshuffle(&[None, None, Some(0)])), &["repeat to 2 axes"]),
        (streams.normal([3, 1], constant(Array::vector(&[0.0f32; 4])), 1.0), &["cannot broadcast"]),
    ];
    for (draw, parts) in cases {
        let text = message(&draw);
        for part in parts {
            assert!(text.contains(part), "{part} in:\n{text}");
        }
        assert!(text.contains("streams/tests.rs"), "{text}");
    }
}

/// A default update that reads its own variable does not keep it.
#[test]
fn streams_and_draws_are_given_back_when_dropped() {
    let streams = RandomStreams::new(3);
    let steps = vector::<f32>("x");
    let rolled = Scan::new().sequence(&steps).run(|step| {
        let noise = streams.normal([2], 0.0, 1.0);
        let kept = streams.multinomial(constant(Array::vector(&[0.5f32, 0.5])));
        Next::new().output(noise * kept * &step.sequences[0])
    });
    let n = scalar::<i64>("n");
    let draw = streams.uniform([&n], 0.0, 1.0);
    let own = shared("own", Array::scalar(1.0f32));
    own.set_default_update(Some(&own * &own + draw.sum(All)));
    let mut cells: Vec<_> = streams.counters().iter().map(|c| Arc::downgrade(c.cell())).collect();
    cells.push(Arc::downgrade(own.cell()));
    assert_eq!(cells.len(), 4);
    // What is left of a stream is a draw, which still advances.
    drop(streams);
    let request = Request { inputs: vec![n.clone()], outputs: vec![draw.clone()], ..Request::default() };
    let evaluation = interpret(&collect(&request).unwrap(), &[Array::scalar(70i64)]).unwrap();
    assert_eq!(evaluation.updates[0].1.get(0).to_i64(), Some(32));
    // The update is read back as it was given.
    let update = own.default_update().unwrap();
    let mut again =
        collect(&Request { inputs: vec![n.clone()], outputs: vec![update], ..Request::default() }).unwrap();
    let value = interpret(&again, &[Array::scalar(0i64)]).unwrap().outputs.remove(0);
    assert_eq!(value.item(), Some(1.0));
    again = Graph::new();
    assert!(cells.iter().all(|cell| cell.upgrade().is_some()) && again.is_empty());
    drop((rolled, draw, own, request));
    let kept = cells.iter().filter(|cell| cell.upgrade().is_some()).count();
    assert_eq!(kept, 0, "{kept} of {} states", cells.len());
}
