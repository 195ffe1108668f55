//! Functions that meet many shapes: what they compile is found at once, bounded, and freed.
#![allow(clippy::unwrap_used, reason = "a test that cannot build its function has failed")]

use std::time::Instant;

use hypatia::{All, Array, Builder, Function, Next, Scan, Shared, function, grad, shared, vector};

fn numbers(shape: &[usize], seed: usize) -> Array {
    let len = shape.iter().product::<usize>();
    let golden = |i: usize| ((i + 1 + 1000 * seed) as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0;
    Array::new(shape, &(0..len).map(|i| golden(i) as f32).collect::<Vec<_>>()).unwrap()
}

/// A step of training a recurrent net of twenty units on a sequence of any length.
fn recurrent(builder: Builder) -> (Function, Shared) {
    let (x, w) = (vector::<f32>("x"), shared("w", numbers(&[20, 20], 1)));
    let (inward, start) = (shared("v", numbers(&[20], 2)), shared("h0", numbers(&[20], 3)));
    let net = Scan::new().sequence(&x).carry(&start).run(|step| {
        let (x, h) = (&step.sequences[0], &step.carries[0]);
        let next = (h.dot(&w) * 0.2 + &inward * x).tanh();
        Next::new().carry(&next).output(next.sum(All))
    });
    let cost = (&net.outputs[0] - &x).sqr().mean(All);
    let gradients = grad(&cost, [&w, &inward]);
    let updates = [(&w, &w - &gradients[0] * 0.01), (&inward, &inward - &gradients[1] * 0.01)];
    (builder.inputs(&[&x]).outputs(&[&cost]).updates(&updates).compile().unwrap(), w)
}

/// Bytes of this process that lie in memory; 0 where the system does not say.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<usize>().ok());
    pages.unwrap_or(0) * 4096
}

/// Whether long runs and times are asked for: `HYPATIA_LONG=1 cargo test --release -p hypatia --test shapes -- --nocapture`.
fn long(what: &str) -> bool {
    let asked = std::env::var_os("HYPATIA_LONG").is_some();
    if !asked {
        eprintln!("skipped: set HYPATIA_LONG=1 to {what}");
    }
    asked
}

fn sum() -> Function {
    let x = vector::<f32>("x");
    function(&[&x], &[&x.sum(All)], &[]).unwrap()
}

#[test]
fn executables_are_bounded_by_bytes_and_counted() {
    let (mut step, _) = recurrent(Builder::new());
    for length in [3, 4, 5, 3, 4, 5] {
        step.call(&[&numbers(&[length], 4)]).unwrap();
    }
    let kept = step.profile().executables;
    assert_eq!((kept.compiled, kept.cached, kept.evicted), (3, 3, 0), "{kept}");
    assert!(kept.bytes > 10_000 && kept.bytes < 10_000_000, "{kept}");
    assert!(step.profile().to_string().contains("executables: 3 compiled, 3 kept"));

    // Room for one besides the one in use.
    let (mut step, _) = recurrent(Builder::new().cache_bytes(kept.bytes / 2));
    for length in [3, 4, 5, 4, 5, 3] {
        step.call(&[&numbers(&[length], 4)]).unwrap();
    }
    let counts = step.profile().executables;
    assert_eq!((counts.compiled, counts.cached, counts.evicted), (4, 2, 2), "{counts}");

    let (mut step, _) = recurrent(Builder::new().cache_bytes(0));
    for length in [3, 4, 3, 4] {
        step.call(&[&numbers(&[length], 4)]).unwrap();
    }
    let counts = step.profile().executables;
    assert_eq!((counts.compiled, counts.cached, counts.evicted), (4, 1, 3), "{counts}");
}

/// What is kept, given up, and in which memory values between steps lie changes no bit.
#[test]
fn values_do_not_depend_on_what_is_kept() {
    let lengths = [5, 40, 3, 3, 40, 7, 5, 40, 1, 3];
    let run = |builder: Builder| {
        let (mut step, w) = recurrent(builder);
        let costs: Vec<Array> = lengths
            .iter()
            .map(|length| step.call(&[&numbers(&[*length], 4)]).unwrap().array(0).clone())
            .collect();
        (costs, w.get_value())
    };
    let all = run(Builder::new());
    assert_eq!(all, run(Builder::new().cache_bytes(0)));
    assert_eq!(all, run(Builder::new().cache_bytes(400_000)));
}

/// Shapes that were met are found at once, however many there are.
#[test]
fn calls_are_as_fast_after_many_shapes() {
    let mut f = sum();
    let arrays: Vec<Array> = (1..=200).map(|length| Array::vector(&vec![1.0f32; length])).collect();
    for (array, length) in arrays.iter().zip(1u8..) {
        assert_eq!(f.call(&[array]).unwrap().scalar(0).unwrap(), f64::from(length));
    }
    assert_eq!(f.profile().executables.cached, 200);
    if !long("time calls of two hundred shapes") {
        return;
    }
    let time = |f: &mut Function, arrays: &[Array]| {
        let rounds = 20_000 / arrays.len();
        let least = (0..5).map(|_| {
            let begin = Instant::now();
            for _ in 0..rounds {
                for array in arrays {
                    f.call(&[array]).unwrap();
                }
            }
            begin.elapsed().as_secs_f64() / (rounds * arrays.len()) as f64
        });
        least.fold(f64::INFINITY, f64::min)
    };
    let (one, few, all) = (time(&mut f, &arrays[..1]), time(&mut f, &arrays[..2]), time(&mut f, &arrays));
    println!(
        "a call: {:.0} ns; of two shapes in turn {:.0} ns, of 200 {:.0} ns",
        one * 1e9,
        few * 1e9,
        all * 1e9
    );
    // A search through all of them takes ten times as long.
    assert!(all < 4.0 * few + 1e-6, "two shapes {few:.2e} s, two hundred {all:.2e} s");
}

#[test]
fn memory_stays_bounded_over_thousands_of_shapes() {
    if !long("compile thousands of executables") {
        return;
    }
    let (mut step, _) = recurrent(Builder::new());
    step.call(&[&numbers(&[1], 4)]).unwrap();
    let start = resident();
    for length in 2..=1500 {
        step.call(&[&numbers(&[length], 4)]).unwrap();
        if length % 100 == 0 {
            println!(
                "{length} lengths: {} MB more; {}",
                (resident() - start) / 1_000_000,
                step.profile().executables
            );
        }
    }
    assert!(resident() - start < 150_000_000, "{} MB", (resident() - start) / 1_000_000);
    let mut f = sum();
    for length in 1..=2000 {
        f.call(&[&numbers(&[length], 4)]).unwrap();
    }
    let last = numbers(&[100], 4);
    f.call(&[&last]).unwrap();
    let begin = Instant::now();
    for _ in 0..100_000 {
        f.call(&[&last]).unwrap();
    }
    let each = begin.elapsed().as_secs_f64() / 1e5;
    println!("a call of `sum` after 2000 lengths: {:.0} ns; {}", each * 1e9, f.profile().executables);
    assert!(each < 5e-6, "{each:.2e} s");
}
