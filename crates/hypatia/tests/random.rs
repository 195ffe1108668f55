//! Random streams in compiled functions: the interpreter's bits, the rule of advance, and the distributions.
//!
//! Statistical tests run on fixed seeds and refuse what has a probability below 1e-4 under the distribution; critical
//! values are those of `tests/reference/random_thresholds.py`.

use hypatia::graph::interp::interpret;
use hypatia::graph::random::uniform_element;
use hypatia::{Array, Builder, DType, Device, Function, RandomStreams, Tensor, function, scalar, shared};

/// The normal distribution's quantile of 1 - 1e-4 / 2.
const NORMAL: f64 = 3.8906;

/// The critical value of sqrt(n) D of Kolmogorov and Smirnov.
const KOLMOGOROV: f64 = 2.2253;

/// The critical value of chi-square with that many degrees of freedom.
fn chi_square_limit(degrees: usize) -> f64 {
    match degrees {
        1 => 15.14,
        2 => 18.42,
        3 => 21.11,
        9 => 33.72,
        19 => 50.80,
        23 => 57.07,
        99 => 160.06,
        255 => 347.65,
        _ => panic!("no critical value for {degrees}"),
    }
}

/// The values of one call of a function without inputs.
fn draw(x: &Tensor) -> Vec<f64> {
    let mut f = function(&[], &[x], &[]).expect("a draw compiles");
    values(&mut f)
}

fn values(f: &mut Function) -> Vec<f64> {
    let array = f.call(&[]).expect("a draw cannot fail").array(0).clone();
    (0..array.len()).map(|i| array.get(i).to_f64()).collect()
}

/// Pearson's statistic of counts against probabilities, checked against its critical value.
fn check_counts(what: &str, counts: &[usize], probabilities: &[f64]) {
    let n: usize = counts.iter().sum();
    let statistic: f64 = counts
        .iter()
        .zip(probabilities)
        .map(|(count, p)| (*count as f64 - n as f64 * p).powi(2) / (n as f64 * p))
        .sum();
    let limit = chi_square_limit(counts.len() - 1);
    assert!(statistic < limit, "{what}: chi-square {statistic} against {limit}: {counts:?}");
}

/// The distance of Kolmogorov and Smirnov from a distribution function, checked against its critical value.
fn check_distribution(what: &str, mut x: Vec<f64>, cdf: impl Fn(f64) -> f64) {
    x.sort_by(f64::total_cmp);
    let n = x.len() as f64;
    let distance = x.iter().enumerate().fold(0.0f64, |d, (i, x)| {
        let f = cdf(*x);
        d.max((f - i as f64 / n).abs()).max((f - (i + 1) as f64 / n).abs())
    });
    assert!(distance * n.sqrt() < KOLMOGOROV, "{what}: sqrt(n) D = {}", distance * n.sqrt());
}

/// That the mean of numbers of known mean and standard deviation is where it should be.
fn check_mean(what: &str, x: impl ExactSizeIterator<Item = f64>, mean: f64, deviation: f64) {
    let n = x.len() as f64;
    let z = (x.sum::<f64>() / n - mean) / deviation * n.sqrt();
    assert!(z.abs() < NORMAL, "{what}: {z} standard errors from {mean}");
}

fn normal_cdf(x: f64) -> f64 {
    0.5 * libm::erfc(-x / std::f64::consts::SQRT_2)
}

#[test]
fn compiled_draws_have_the_interpreters_bits_whatever_the_threads() {
    let streams = RandomStreams::new(77);
    let p = shared("p", Array::vector(&[0.1f32, 0.5, 0.9, 0.3, 0.7]));
    let rows = shared(
        "rows",
        Array::new(&[3, 4], &[0.1f32, 0.2, 0.3, 0.4, 0.5, 0.5, 0.0, 0.0, 0.9, 0.1, 0.2, 0.3]).unwrap(),
    );
    let draws = [
        streams.uniform([200, 301], 0.0, 1.0),
        streams.uniform([7, 5], -2.0, 3.0),
        streams.normal([100, 333], 1.0, 2.0),
        streams.binomial([1001, 5], 1, &p),
        streams.binomial([11, 5], 9, &p),
        streams.multinomial(&rows),
        streams.categorical(&rows),
        streams.binomial([301, 4], 1, 1e-6),
        streams.multinomial(rows.cast(DType::F64)),
        streams.integers([1000], -5, 17),
        streams.choice(10, [3, 4]),
        streams.permutation(300),
        // Longer than one part, and a draw used twice, under a reduction and beside it.
        {
            let x = streams.uniform([50_000], 0.0, 1.0);
            &x * x.max(0)
        },
    ];
    for (number, x) in draws.iter().enumerate() {
        let mut by_threads = [1, 2, 3].map(|threads| {
            let f = Builder::new().outputs(&[x]).threads(threads).compile().unwrap();
            (f, Vec::new())
        });
        let begin = streams.state().unwrap();
        for (f, results) in &mut by_threads {
            streams.set_state(&begin).unwrap();
            let simplified = f.stages().unwrap().simplified.clone();
            let written = interpret(f.graph(), &[]).unwrap();
            let expected = interpret(&simplified, &[]).unwrap();
            *results = f.call(&[]).unwrap().array(0).bytes().to_vec();
            assert_eq!(results[..], *expected.outputs[0].bytes(), "draw {number}");
            if !matches!(number, 1 | 2) {
                assert_eq!(results[..], *written.outputs[0].bytes(), "draw {number} before rewriting");
            }
        }
        assert!(by_threads.iter().all(|(_, results)| *results == by_threads[0].1), "draw {number}");
    }
}

#[test]
fn devices_draw_the_same_bits() {
    if let Err(reason) = hypatia::codegen::opencl::devices() {
        eprintln!("skipped: {reason}");
        return;
    }
    let streams = RandomStreams::new(78);
    let values: Vec<f32> = (0..70).map(|i| (i as f32 - 60.0).exp().min(1.0)).collect();
    let p = shared("p", Array::vector(&values));
    let draws = [
        streams.uniform([200, 301], -1.0, 1.0),
        streams.normal([100, 33], 1.0, 2.0),
        streams.binomial([1001, 5], 1, 0.4),
        streams.binomial([50], 9, 0.4),
        streams.binomial([50, 70], 2, &p),
        streams.multinomial(&p),
        streams.categorical(p.cast(DType::F64)),
        streams.integers([1000], -5, 17),
        streams.permutation(100),
    ];
    let outputs: Vec<&Tensor> = draws.iter().collect();
    let [cpu, device] = [Device::Cpu, Device::OpenCl(0)].map(|device| {
        streams.seed(78).unwrap();
        let mut f = Builder::new().outputs(&outputs).device(device).compile().unwrap();
        f.call(&[]).unwrap();
        f.call(&[]).unwrap().arrays().to_vec()
    });
    for (number, (cpu, device)) in cpu.iter().zip(&device).enumerate() {
        assert_eq!(cpu.bytes(), device.bytes(), "draw {number}");
    }
}

#[test]
fn a_call_advances_each_draw_once_and_functions_take_turns() {
    let streams = RandomStreams::new(5);
    let x = streams.uniform([100], 0.0, 1.0);
    let key = streams.state().unwrap().get(0).to_i64().unwrap() as u64;
    // 100 elements are two blocks of 16 counters.
    let expected =
        |call: i64| -> Vec<f64> { (0..100).map(|e| f64::from(uniform_element(key, 32 * call, e))).collect() };
    let mut f = function(&[], &[&x, &(&x + &x)], &[]).unwrap();
    let mut g = function(&[], &[&x], &[]).unwrap();
    assert_eq!(values(&mut f), expected(0));
    assert_eq!(values(&mut g), expected(1));
    let results = f.call(&[]).unwrap();
    let twice: Vec<f64> = results.array(1).to_vec::<f32>().unwrap().iter().map(|x| f64::from(*x)).collect();
    assert_eq!(twice, expected(2).iter().map(|x| 2.0 * x).collect::<Vec<_>>());
    assert_eq!(streams.counters()[0].get_value().unwrap().get(0).to_i64(), Some(96));
    // A function that does not use the draw leaves it alone.
    draw(&streams.uniform([3], 0.0, 1.0));
    assert_eq!(values(&mut g), expected(3));
}

#[test]
fn an_explicit_update_wins() {
    let streams = RandomStreams::new(5);
    let x = streams.uniform([10], 0.0, 1.0);
    let counter = &streams.counters()[0];
    let mut still = function(&[], &[&x], &[(counter, Tensor::from(counter))]).unwrap();
    let first = values(&mut still);
    assert_eq!(values(&mut still), first);
    let mut leaps = function(&[], &[&x], &[(counter, counter + 1000)]).unwrap();
    values(&mut leaps);
    assert_eq!(counter.get_value().unwrap().get(0).to_i64(), Some(1000));
    assert_ne!(values(&mut still), first);
}

#[test]
fn draws_update_state_in_place_and_follow_shapes() {
    let streams = RandomStreams::new(6);
    let n = scalar::<i64>("n");
    let w = shared("w", Array::zeros(DType::F32, &[40]).unwrap());
    let noise = streams.normal([40], 0.0, 1.0);
    let many = streams.uniform([&n], 0.0, 1.0);
    let mut f = function(&[&n], &[&many], &[(&w, &w + &noise)]).unwrap();
    for (n, steps) in [(10i64, 16), (1000, 16 + 256), (10, 32 + 256)] {
        let results = f.call(&[&Array::scalar(n)]).unwrap();
        assert_eq!(results.array(0).len() as i64, n);
        assert_eq!(streams.counters()[1].get_value().unwrap().get(0).to_i64(), Some(steps));
    }
    let sum = w.get_value().unwrap();
    streams.seed(6).unwrap();
    let mut noise = function(&[], &[&noise], &[]).unwrap();
    let mut expected = vec![0f32; 40];
    for _ in 0..3 {
        let step = noise.call(&[]).unwrap().array(0).to_vec::<f32>().unwrap();
        expected.iter_mut().zip(step).for_each(|(sum, x)| *sum += x);
    }
    assert_eq!(sum.to_vec::<f32>().unwrap(), expected);
}

#[test]
fn uniform_numbers_are_uniform_and_independent() {
    let streams = RandomStreams::new(2026);
    let n = 1_000_000;
    let x = draw(&streams.uniform([n], 0.0, 1.0));
    assert!(x.iter().all(|x| (0.0..1.0).contains(x)));
    check_mean("mean", x.iter().copied(), 0.5, (1.0f64 / 12.0).sqrt());
    check_mean("square", x.iter().map(|x| x * x), 1.0 / 3.0, (4.0f64 / 45.0).sqrt());
    check_distribution("uniform", x.clone(), |x| x);
    let mut counts = vec![0; 256];
    x.iter().for_each(|x| counts[(x * 256.0) as usize] += 1);
    check_counts("upper eight bits", &counts, &[1.0 / 256.0; 256]);
    let mut counts = vec![0; 256];
    x.iter().for_each(|x| counts[(x * f64::from(1 << 24)) as usize % 256] += 1);
    check_counts("lower eight bits", &counts, &[1.0 / 256.0; 256]);
    // Pairs at the distances at which the layout puts words, lanes and blocks of neighbouring counters.
    for distance in [1, 15, 16, 17, 48, 64, 1024] {
        let mut counts = vec![0; 256];
        for pair in (0..n - distance).step_by(2 * distance).flat_map(|i| i..(i + distance).min(n - distance))
        {
            counts[(x[pair] * 16.0) as usize * 16 + (x[pair + distance] * 16.0) as usize] += 1;
        }
        check_counts(&format!("pairs at distance {distance}"), &counts, &[1.0 / 256.0; 256]);
    }
    let y = draw(&streams.uniform([n], -3.0, 5.0));
    check_distribution("bounds", y.clone(), |y| (y + 3.0) / 8.0);
    // Two streams, the same stream at the next call, and streams of neighbouring seeds.
    let z = streams.uniform([n], 0.0, 1.0);
    let mut f = function(&[], &[&z], &[]).unwrap();
    let (first, second) = (values(&mut f), values(&mut f));
    let other = draw(&RandomStreams::new(2027).uniform([n], 0.0, 1.0));
    for (what, a, b) in [("streams", &x, &first), ("calls", &first, &second), ("seeds", &x, &other)] {
        let mut counts = vec![0; 256];
        a.iter().zip(b).for_each(|(a, b)| counts[(a * 16.0) as usize * 16 + (b * 16.0) as usize] += 1);
        check_counts(what, &counts, &[1.0 / 256.0; 256]);
    }
}

#[test]
fn normal_numbers_are_normal() {
    let streams = RandomStreams::new(11);
    let x = draw(&streams.normal([1_000_000], 0.0, 1.0));
    // Moments of a normal variable: E x^k, and the deviation of x^k.
    for (power, mean, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)] {
        check_mean(&format!("moment {power}"), x.iter().map(|x| x.powi(power)), mean, f64::sqrt(variance));
    }
    let mut counts = vec![0; 20];
    x.iter().for_each(|x| counts[(normal_cdf(*x) * 20.0).min(19.0) as usize] += 1);
    check_counts("twentieths", &counts, &[0.05; 20]);
    let beyond = x.iter().filter(|x| x.abs() > 4.0).count();
    // 63.3 are expected beyond 4 deviations.
    assert!((33..=98).contains(&beyond), "{beyond}");
    check_mean("neighbours", x.chunks_exact(2).map(|pair| pair[0] * pair[1]), 0.0, 1.0);
    check_distribution("normal", x, normal_cdf);
    let y = draw(&streams.normal([200_000], 3.0, 0.25));
    check_distribution("mean and deviation", y, |y| normal_cdf((y - 3.0) / 0.25));
}

#[test]
fn binomial_counts_are_binomial() {
    let streams = RandomStreams::new(12);
    for p in [0.02, 0.5, 0.9] {
        let x = draw(&streams.binomial([400_000], 1, p));
        let ones = x.iter().filter(|x| **x == 1.0).count();
        assert_eq!(x.iter().filter(|x| **x == 0.0).count(), x.len() - ones);
        check_counts(&format!("p = {p}"), &[x.len() - ones, ones], &[1.0 - p, p]);
    }
    let p = 0.3f64;
    let x = draw(&streams.binomial([200_000], 3, p));
    let mut counts = [0; 4];
    x.iter().for_each(|x| counts[*x as usize] += 1);
    let q = 1.0 - p;
    check_counts("three trials", &counts, &[q * q * q, 3.0 * p * q * q, 3.0 * p * p * q, p * p * p]);
    // Each column with a probability of its own.
    let columns = [0.1f32, 0.35, 0.8];
    let x = draw(&streams.binomial([100_000, 3], 1, hypatia::constant(Array::vector(&columns))));
    for (column, p) in columns.iter().enumerate() {
        let ones = x.iter().skip(column).step_by(3).filter(|x| **x == 1.0).count();
        let p = f64::from(*p);
        check_counts(&format!("column {column}"), &[100_000 - ones, ones], &[1.0 - p, p]);
    }
}

#[test]
fn rows_are_drawn_with_their_probabilities() {
    let streams = RandomStreams::new(13);
    let p = [0.1f32, 0.2, 0.3, 0.4];
    let rows =
        hypatia::constant(Array::vector(&p)).broadcast_like(&hypatia::full(0.0, DType::F32, [200_000, 4]));
    let probabilities = p.map(f64::from);
    let x = draw(&streams.multinomial(&rows));
    let mut counts = [0; 4];
    for row in x.chunks_exact(4) {
        assert_eq!((row.iter().sum::<f64>(), row.iter().filter(|x| **x == 1.0).count()), (1.0, 1));
        counts[row.iter().position(|x| *x == 1.0).unwrap()] += 1;
    }
    check_counts("multinomial", &counts, &probabilities);
    let mut counts = [0; 4];
    draw(&streams.categorical(rows)).iter().for_each(|x| counts[*x as usize] += 1);
    check_counts("categorical", &counts, &probabilities);
}

/// How often each column of a row is drawn from `n` rows like it.
fn counts_of_row(streams: &RandomStreams, row: impl Into<Array>, n: usize) -> Vec<usize> {
    let row = shared("row", row);
    let rows = row.broadcast_like(&hypatia::full(
        0.0,
        DType::F32,
        [n, row.ty().shape[0].known().expect("a row of known length")],
    ));
    let counts = streams.multinomial(&rows).sum(0);
    let columns = draw(&streams.categorical(&rows));
    let by_multinomial: Vec<usize> = draw(&counts).iter().map(|count| *count as usize).collect();
    let mut by_categorical = vec![0; by_multinomial.len()];
    columns.iter().for_each(|column| by_categorical[*column as usize] += 1);
    assert_eq!(by_categorical.iter().sum::<usize>(), by_multinomial.iter().sum::<usize>());
    by_multinomial.iter().zip(by_categorical).map(|(a, b)| a + b).collect()
}

/// Rows whose numbers lie at the ends of what their type holds: what counts are their ratios.
#[test]
fn rows_of_extreme_numbers_are_drawn_by_their_ratios() {
    let streams = RandomStreams::new(131);
    let n = 200_000;
    for row in [[0.0f32, 1e-38, 0.0], [1e-30, 1.0, 1e-38], [0.0, 1e-45, 0.0], [0.0, f32::MAX, 1.0]] {
        assert_eq!(counts_of_row(&streams, Array::vector(&row), n), [0, 2 * n, 0], "{row:?}");
    }
    for row in [[0.0f64, 1e-308, 0.0], [1e-300, 1.0, 1e-20], [0.0, 5e-324, 0.0], [0.0, f64::MAX, 1.0]] {
        assert_eq!(counts_of_row(&streams, Array::vector(&row), n), [0, 2 * n, 0], "{row:?}");
    }
    // Multiples of the least subnormal number, and numbers whose sum is infinite.
    let step = f64::from(f32::from_bits(1));
    for scale in [step, 1e-38, 1e-30, 1.0, 8e37] {
        let row = [1.0, 4.0, 2.0, 3.0].map(|share| (share * scale) as f32);
        let counts = counts_of_row(&streams, Array::vector(&row), n);
        check_counts(&format!("scale {scale}"), &counts, &[0.1, 0.4, 0.2, 0.3]);
    }
    for scale in [5e-324, 1e-300, 4e307] {
        let row = [1.0, 4.0, 2.0, 3.0].map(|share| share * scale);
        let counts = counts_of_row(&streams, Array::vector(&row), n);
        check_counts(&format!("scale {scale}"), &counts, &[0.1, 0.4, 0.2, 0.3]);
    }
    // 40 and 4 rare ones are expected among four million; the limits have a probability below 1e-4.
    let row = Array::vector(&[1e-20f32, 1e-15, 0.0, 1e-21]);
    let counts = counts_of_row(&streams, row, 2_000_000);
    assert!((19..=68).contains(&counts[0]) && counts[2] == 0 && counts[3] <= 13, "{counts:?}");
    // Many columns: their waiting times are short, and the first of equal ones wins, so they must differ.
    let columns = draw(&streams.categorical(hypatia::full(1.0, DType::F32, [2000, 1000])));
    let mut counts = vec![0; 100];
    columns.iter().for_each(|column| counts[*column as usize / 10] += 1);
    check_counts("a thousand columns", &counts, &[0.01; 100]);
}

/// Hits and misses far rarer than the steps of one word, as often as they should be.
#[test]
fn rare_hits_and_misses_are_as_rare_as_they_should() {
    let streams = RandomStreams::new(132);
    let shape = [1024, 32_768];
    let n = (shape[0] * shape[1]) as f64;
    let [tiny, rare] = [2f32.powi(-30), 1e-6].map(|p| shared("p", Array::scalar(p)));
    let hits = |x: Tensor| draw(&x.cast(DType::F64).sum(hypatia::All))[0];
    // 0.06 of 2^26 are expected, where steps of 2^-24 would give 4.
    let found: f64 = (0..2).map(|_| hits(streams.binomial(shape, 1, &tiny))).sum();
    assert!(found <= 1.0, "{found}");
    // 33.6 are expected.
    let limits = 14.0..=60.0;
    for found in [
        hits(streams.binomial(shape, 1, &rare)),
        n - hits(streams.binomial(shape, 1, 1.0 - 1e-6)),
        hits(streams.binomial([32_768], 1024, &rare)),
        hits(streams.binomial([1 << 25], 1, &rare)),
    ] {
        assert!(limits.contains(&found), "{found}");
    }
    let shape = [1024, 1024];
    for p in [0.0f32, 1.0] {
        let p = shared("p", Array::scalar(p));
        let expected = p.get_value().unwrap().get(0).to_f64() * (shape[0] * shape[1]) as f64;
        assert_eq!(hits(streams.binomial(shape, 1, &p)), expected);
        assert_eq!(hits(streams.binomial(shape, 1, p.cast(DType::F64))), expected);
    }
}

#[test]
fn integers_are_equally_likely() {
    let streams = RandomStreams::new(14);
    let x = draw(&streams.integers([500_000], -50, 50));
    let mut counts = vec![0; 100];
    x.iter().for_each(|x| counts[(*x + 50.0) as usize] += 1);
    check_counts("integers", &counts, &[0.01; 100]);
    let mut counts = vec![0; 3];
    draw(&streams.choice(3, [300, 1000])).iter().for_each(|x| counts[*x as usize] += 1);
    check_counts("choice", &counts, &[1.0 / 3.0; 3]);
    let large = (1i64 << 38) as f64;
    let wide = draw(&streams.integers([200_000], 0, 1i64 << 38));
    // The lower bits of a range far above 2^24 vary as well.
    let mut counts = vec![0; 256];
    wide.iter().for_each(|x| counts[*x as usize % 256] += 1);
    check_counts("lower bits", &counts, &[1.0 / 256.0; 256]);
    check_distribution("wide range", wide, |x| x / large);
}

#[test]
fn every_order_is_equally_likely() {
    let streams = RandomStreams::new(15);
    let order = streams.permutation(4);
    let mut f = function(&[], &[&order], &[]).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for _ in 0..24_000 {
        let x: Vec<i64> = f.call(&[]).unwrap().array(0).to_vec().unwrap();
        *counts.entry(x).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 24);
    check_counts("orders", &counts.into_values().collect::<Vec<usize>>(), &[1.0 / 24.0; 24]);
    let first = streams.permutation(100).index(hypatia::ix![0]);
    let mut f = function(&[], &[&first], &[]).unwrap();
    let mut places = vec![0; 100];
    for _ in 0..20_000 {
        places[f.call(&[]).unwrap().scalar(0).unwrap() as usize] += 1;
    }
    check_counts("first of a hundred", &places, &[0.01; 100]);
    let mut f = function(&[], &[&streams.permutation(60_000)], &[]).unwrap();
    let order: Vec<i64> = f.call(&[]).unwrap().array(0).to_vec().unwrap();
    let in_place = order.iter().enumerate().filter(|(place, i)| *place as i64 == **i).count();
    assert!(in_place < 10, "{in_place} of 60000 where they were, 1 expected");
    let mut sorted = order;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..60_000));
}
