//! Scans of small bodies, which are one function on the processor, against the meaning of their kernels, bit by bit, and
//! against the interpreter.

use std::sync::Arc;

use hypatia_graph::compose::{full, switch};
use hypatia_graph::scan::{Next, Scan};
use hypatia_graph::tensor::{Shared, Tensor, input, matrix, scalar, shared, vector};
use hypatia_graph::{Array, DType, ix};

use super::{cells, check, floats, graph, numbers, on_cpu};
use crate::cpu::call::CpuProgram;
use crate::kernel::reference::evaluate;
use crate::kernel::{Kernel, OutOfRange, Program, RunError};
use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::pool::Pool;

/// What the processor says of each step, on every instruction set.
fn described(program: &Program) -> Vec<String> {
    let features = Features::detect();
    let sets = features.available();
    let pool = Arc::new(Pool::new(1));
    sets.into_iter()
        .flat_map(|set| {
            let features = features.clone().restricted_to(set);
            let cpu = CpuProgram::new(Arc::new(program.clone()), &features, pool.clone()).unwrap();
            (0..program.count()).map(|number| cpu.plan().describe(number)).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether every scan that stands in no other is one function.
fn is_native(program: &Program) -> bool {
    let described = described(program);
    assert!(described.iter().any(|text| text.contains("steps")), "no scan:\n{program}");
    described.iter().filter(|text| text.contains("steps")).all(|text| text.ends_with("one native scan"))
}

/// Results and updated variables where all scans are native: those of every engine as near as `tolerance` (of float
/// functions and folds; 0 for the same bits as the interpreter's), and the processor's with the bits that the
/// kernels mean.
fn native(
    outputs: &[&Tensor],
    updates: &[(Shared, Tensor)],
    inputs: &[(&Tensor, Array)],
    tolerance: f64,
) -> Vec<Array> {
    let (found, program) = check(outputs, updates, inputs, tolerance);
    assert!(is_native(&program), "{:?}\n{program}", described(&program));
    let graph = graph(outputs, updates, inputs);
    let inputs: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let mut shared: Vec<Array> =
        cells(&graph, &program).iter().map(|cell| cell.lock().host.clone()).collect();
    let mut meant = evaluate(&program, &inputs.iter().collect::<Vec<_>>(), &mut shared).unwrap();
    meant.extend(shared);
    assert_eq!(found, meant, "other bits than the kernels'\n{program}");
    assert_eq!(found, on_cpu(&graph, &inputs, InstructionSet::Avx512, 2).unwrap(), "threads change bits");
    if Features::detect().instruction_set() != InstructionSet::Portable {
        // The same formulas, with a fused multiply-add.
        assert_eq!(found, on_cpu(&graph, &inputs, InstructionSet::Avx2, 1).unwrap());
    }
    found
}

#[test]
fn a_scalar_recurrence_has_the_bits_of_the_interpreter() {
    let (x, a) = (scalar::<f32>("x"), scalar::<f32>("a"));
    let logistic = Scan::new().carry(&x).steps(1000).run(|step| {
        let x = &step.carries[0];
        Next::new().carry(x * &a * (1.0 - x))
    });
    let inputs = [(&x, Array::scalar(0.3f32)), (&a, Array::scalar(3.7f32))];
    let found = native(&[&logistic.last[0]], &[], &inputs, 0.0);
    let mut expected = 0.3f32;
    for _ in 0..1000 {
        expected = expected * 3.7 * (1.0 - expected);
    }
    assert_eq!(floats(&found[0]), [f64::from(expected)]);
    // Rows, the last value beside them, and the number of steps.
    let results = [&logistic.carries[0], &logistic.last[0], &logistic.steps];
    let found = native(&results, &[], &inputs, 0.0);
    assert_eq!(found[0].get(999).to_f64(), f64::from(expected));
    assert_eq!((found[1].get(0).to_f64(), found[2].get(0).to_i64()), (f64::from(expected), Some(1000)));
}

#[test]
fn double_precision_and_integers() {
    let (x, n) = (scalar::<f64>("x"), scalar::<i64>("n"));
    let scan_ = Scan::new().carry(&x).carry(&n).steps(50).run(|step| {
        let [x, n] = &step.carries[..] else { unreachable!() };
        let odd = (n % 2).eq(1);
        let next = switch(&odd, n * 3 + 1, n.floordiv(2));
        Next::new().carry(x * 0.75 + x.sin()).carry(next).output(odd)
    });
    let inputs = [(&x, Array::scalar(0.3f64)), (&n, Array::scalar(27i64))];
    let results = [&scan_.carries[0], &scan_.carries[1], &scan_.outputs[0]];
    // The sines of a device may be others.
    let found = native(&results, &[], &inputs, 1e-14);
    assert_eq!(floats(&found[1])[..6], [82.0, 41.0, 124.0, 62.0, 31.0, 94.0]);
}

#[test]
fn a_condition_ends_a_native_scan() {
    // Newton's iteration for the square root of 2.
    let x = scalar::<f64>("x");
    let newton = Scan::new().carry(&x).steps(40).run(|step| {
        let x = &step.carries[0];
        let next = (x + 2.0 / x) * 0.5;
        let near = (&next - x).abs().lt(1e-12);
        Next::new().carry(&next).output(&next * &next).until(near)
    });
    let results = [&newton.carries[0], &newton.outputs[0], &newton.last[0], &newton.steps];
    let found = native(&results, &[], &[(&x, Array::scalar(1f64))], 0.0);
    let made = found[3].get(0).to_i64().unwrap();
    assert!((4..8).contains(&made), "{made}");
    let root = found[2].get(0).to_f64();
    assert!((root - std::f64::consts::SQRT_2).abs() < 1e-15);
    assert!(floats(&found[0])[made as usize - 1..].iter().all(|row| *row == root));
    // A condition that never holds, and one that holds at once.
    let never = Scan::new().carry(&x).steps(5).run(|step| {
        let next = &step.carries[0] + 1.0;
        Next::new().carry(&next).until(next.gt(100.0))
    });
    let found = native(&[&never.last[0], &never.steps], &[], &[(&x, Array::scalar(1f64))], 0.0);
    assert_eq!((floats(&found[0]), floats(&found[1])), (vec![6.0], vec![5.0]));
    let found = native(&[&never.carries[0], &never.steps], &[], &[(&x, Array::scalar(1000f64))], 0.0);
    assert_eq!((floats(&found[0]), floats(&found[1])), (vec![1001.0; 5], vec![1.0]));
}

#[test]
fn indices_out_of_range_are_reported_by_the_kernel_that_finds_them() {
    let (x, i) = (vector::<f32>("x"), vector::<i64>("i"));
    let total = shared("total", 1f32);
    let scan_ = Scan::new().sequence(&i).carry(&total).run(|step| {
        let inner = Scan::new().carry(&step.carries[0]).steps(2).run(|inner| {
            let index = &step.sequences[0];
            Next::new().carry(&inner.carries[0] * 0.5 + x.take(index))
        });
        Next::new().carry(&inner.last[0])
    });
    let updates = [(total.clone(), scan_.last[0].clone())];
    let good = [(&x, numbers(&[5], 1)), (&i, Array::vector(&[0i64, 4, -1, 2]))];
    native(&[&scan_.carries[0]], &updates, &good, 0.0);
    let bad = [(&x, numbers(&[5], 1)), (&i, Array::vector(&[0i64, 4, -6, 9]))];
    let graph = graph(&[&scan_.carries[0]], &updates, &bad);
    let program = crate::compile(&graph).unwrap();
    assert!(is_native(&program), "{program}");
    let values: Vec<Array> = bad.iter().map(|(_, value)| value.clone()).collect();
    let mut shared = [Array::scalar(1f32)];
    let expected = evaluate(&program, &values.iter().collect::<Vec<_>>(), &mut shared).unwrap_err();
    let RunError::OutOfRange(found @ OutOfRange { step, value: -6, .. }) = expected else {
        panic!("{expected:?}")
    };
    assert_eq!(program.check(&found).unwrap().extent, 5);
    assert!(matches!(program.step(step).unwrap().kernel, Kernel::Loop(_)));
    for threads in [1, 2] {
        let found = on_cpu(&graph, &values, InstructionSet::Avx512, threads);
        assert_eq!(found, Err(expected.clone()));
    }
}

#[test]
fn starts_out_of_range_are_reported() {
    let (x, i) = (matrix::<f32>("x"), vector::<i64>("i"));
    let scan_ = Scan::new().sequence(&i).carry(x.index(ix![0])).run(|step| {
        let at = &step.sequences[0];
        let row = x.index(ix![at]);
        Next::new().carry(&step.carries[0] * 0.5 + row)
    });
    let good = [(&x, numbers(&[4, 6], 1)), (&i, Array::vector(&[0i64, 3, -1, 2]))];
    native(&[&scan_.carries[0]], &[], &good, 0.0);
    let bad = [(&x, numbers(&[4, 6], 1)), (&i, Array::vector(&[0i64, 3, 4, 2]))];
    let graph = graph(&[&scan_.carries[0]], &[], &bad);
    let program = crate::compile(&graph).unwrap();
    let values: Vec<Array> = bad.iter().map(|(_, value)| value.clone()).collect();
    let expected = evaluate(&program, &values.iter().collect::<Vec<_>>(), &mut []).unwrap_err();
    assert!(matches!(expected, RunError::OutOfRange(OutOfRange { value: 4, .. })), "{expected:?}");
    assert_eq!(on_cpu(&graph, &values, InstructionSet::Avx512, 1), Err(expected));
}

#[test]
fn scans_in_scans_are_one_function() {
    let x = vector::<f32>("x");
    let outer = Scan::new().sequence(&x).carry(0.5).run(|outer| {
        let inner = Scan::new().carry(&outer.carries[0]).steps(7).run(|inner| {
            let next = &inner.carries[0] * 1.5 + &outer.sequences[0];
            Next::new().carry(&next).output(&next * 0.5).until(next.gt(3.0))
        });
        let made = inner.steps.cast(DType::F32);
        Next::new()
            .carry(&inner.last[0] * 0.25)
            .output(inner.carries[0].padded() + 1.0)
            .output(inner.outputs[0].padded())
            .output(made)
    });
    let results = [&outer.carries[0], &outer.outputs[0], &outer.outputs[1], &outer.outputs[2]];
    let found = native(&results, &[], &[(&x, numbers(&[9], 1))], 1e-6);
    // Some inner scans end early and some do not.
    let made = floats(&found[3]);
    assert!(made.contains(&7.0) && made.iter().any(|steps| *steps < 7.0), "{made:?}");
}

#[test]
fn no_step() {
    let (x, n) = (matrix::<f32>("x"), scalar::<i64>("n"));
    let scan_ = Scan::new().carry(x.index(ix![0])).steps(&n).run(|step| {
        let next = &step.carries[0] * 0.5 + 1.0;
        Next::new().carry(&next).output(&next * 2.0)
    });
    let results = [&scan_.carries[0], &scan_.last[0], &scan_.outputs[0], &scan_.steps];
    for steps in [0i64, 2] {
        let inputs = [(&x, numbers(&[2, 5], 1)), (&n, Array::scalar(steps))];
        let found = native(&results, &[], &inputs, 0.0);
        assert_eq!((found[0].shape()[0] as i64, found[3].get(0).to_i64()), (steps, Some(steps)));
    }
    // A scan of no step in another.
    let outer = Scan::new().carry(x.index(ix![0])).steps(3).run(|outer| {
        let inner = Scan::new()
            .carry(&outer.carries[0])
            .steps(0)
            .run(|inner| Next::new().carry(&inner.carries[0] * 2.0));
        Next::new().carry(&inner.last[0] + 1.0).output(inner.steps.cast(DType::F32))
    });
    let inputs = [(&x, numbers(&[2, 5], 1))];
    let found = native(&[&outer.carries[0], &outer.outputs[0]], &[], &inputs, 0.0);
    assert_eq!(floats(&found[1]), [0.0; 3]);
}

#[test]
fn sequences_backwards_taps_and_lags() {
    let x = matrix::<f32>("x");
    for columns in [1, 3, 4, 7, 8] {
        let scan_ = Scan::new()
            .sequence_taps(&x, &[-2, 0])
            .go_backwards()
            .carry_taps(x.index(ix![0..3]), &[-3, -1])
            .run(|step| {
                let [older, newer] = &step.sequences[..] else { unreachable!() };
                let next = &step.carries[0] * 0.5 + &step.carries[1] * 0.25 + older - newer * 2.0;
                Next::new().carry(&next).output(next.sum(0))
            });
        let results = [&scan_.carries[0], &scan_.outputs[0], &scan_.last[0]];
        native(&results, &[], &[(&x, numbers(&[9, columns], columns))], 1e-5);
        native(&[&scan_.last[0]], &[], &[(&x, numbers(&[9, columns], columns))], 1e-5);
    }
}

#[test]
fn folds_of_few_elements_and_values_used_again() {
    for n in [1, 2, 5, 8, 16, 19] {
        let (x, w) = (vector::<f32>("x"), matrix::<f32>("w"));
        let scan_ = Scan::new().sequence(&w).carry(&x).steps(6).run(|step| {
            let x = &step.carries[0];
            let size = (x * x).sum(0).sqrt();
            let most = x.max(0);
            let next = x / (1.0 + size.broadcast_like(x)) + &step.sequences[0] * most.broadcast_like(x);
            Next::new().carry(&next).output(next.mean(0)).output(next.argmax(0)).output(size)
        });
        let results = [&scan_.carries[0], &scan_.outputs[0], &scan_.outputs[1], &scan_.outputs[2]];
        native(&results, &[], &[(&x, numbers(&[n], 1)), (&w, numbers(&[6, n], 2))], 1e-4);
    }
}

#[test]
fn sums_over_rows_and_columns_of_a_small_matrix() {
    let x = matrix::<f32>("x");
    let scan_ = Scan::new().carry(&x).steps(5).run(|step| {
        let x = &step.carries[0];
        let (rows, columns) = (x.sum(1), x.sum(0));
        let next = x * 0.5 + columns.broadcast_like(x) * 0.1;
        Next::new().carry(&next).output(rows).output(columns)
    });
    for shape in [[3, 5], [4, 4], [2, 9]] {
        let results = [&scan_.carries[0], &scan_.outputs[0], &scan_.outputs[1]];
        native(&results, &[], &[(&x, numbers(&shape, 1))], 1e-5);
    }
}

#[test]
fn carries_that_change_places() {
    let (a, b) = (shared("a", 0.25f32), shared("b", -1.5f32));
    let scan_ = Scan::new().carry(&a).carry(&b).steps(5).run(|step| {
        let [a, b] = &step.carries[..] else { unreachable!() };
        Next::new().carry(b).carry(a + b * 0.5)
    });
    let updates = [(a.clone(), scan_.last[1].clone()), (b.clone(), scan_.last[0].clone())];
    native(&[&scan_.last[0]], &updates, &[], 0.0);
    let updates = [(a, scan_.last[0].clone()), (b, scan_.last[1].clone())];
    native(&[&scan_.carries[1]], &updates, &[], 0.0);
}

#[test]
fn large_bodies_are_run_step_by_step() {
    let x = vector::<f32>("x");
    let scan_ = Scan::new().carry(&x).steps(3).run(|step| Next::new().carry(step.carries[0].tanh()));
    let (_, program) = check(&[&scan_.last[0]], &[], &[(&x, numbers(&[5000], 1))], 1e-5);
    assert!(!is_native(&program));
}

/// Small products sum as those do that run by themselves: the scan has the bits of its steps written out.
#[test]
fn small_products_have_the_bits_of_products_by_themselves() {
    let (h, w) = (matrix::<f32>("h"), matrix::<f32>("w"));
    for [rows, n] in [[3, 10], [1, 4], [5, 3], [2, 8], [4, 9]] {
        let step = |h: &Tensor| (h.dot(&w) * 0.5 + h * 0.25).tanh();
        let layer = Scan::new().carry(&h).steps(3).run(|each| Next::new().carry(step(&each.carries[0])));
        let inputs = [(&h, numbers(&[rows, n], 1)), (&w, numbers(&[n, n], n))];
        let (_, program) = check(&[&layer.carries[0], &layer.last[0]], &[], &inputs, 1e-5);
        assert!(is_native(&program), "{:?}\n{program}", described(&program));
        let mut written = vec![step(&h)];
        written.push(step(&written[0]));
        written.push(step(&written[1]));
        let values: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
        for set in Features::detect().available() {
            let scanned = on_cpu(&graph(&[&layer.carries[0]], &[], &inputs), &values, set, 1).unwrap();
            let outputs: Vec<&Tensor> = written.iter().collect();
            let apart = on_cpu(&graph(&outputs, &[], &inputs), &values, set, 1).unwrap();
            let apart: Vec<f64> = apart.iter().flat_map(floats).collect();
            assert_eq!(floats(&scanned[0]), apart, "{set} {rows} {n}");
        }
    }
}

/// The dynamics of Hamiltonian Monte Carlo, with a product that adds to a carry, in both precisions.
#[test]
fn a_product_adds_to_a_carry() {
    let (q, p, a) = (matrix::<f64>("q"), matrix::<f64>("p"), matrix::<f64>("a"));
    let leapfrog = Scan::new().carry(&q).carry(&p).steps(20).run(|step| {
        let [q, p] = &step.carries[..] else { unreachable!() };
        let p = p * 0.5 - q.dot(&a) * 0.1;
        Next::new().carry(q + &p * 0.1).carry(&p)
    });
    let double = |array: Array| array.cast(DType::F64);
    let inputs = [
        (&q, double(numbers(&[2, 5], 1))),
        (&p, double(numbers(&[2, 5], 2))),
        (&a, double(numbers(&[5, 5], 3))),
    ];
    let (_, program) = check(&[&leapfrog.last[0], &leapfrog.last[1]], &[], &inputs, 1e-12);
    assert!(is_native(&program), "{:?}\n{program}", described(&program));
    check(&[&leapfrog.carries[0], &leapfrog.carries[1]], &[], &inputs, 1e-12);
}

/// Kernels of some hundred elements are called from the scan; what they find out of range has their number.
#[test]
fn larger_kernels_are_called() {
    let (x, i) = (vector::<f32>("x"), matrix::<i32>("i"));
    let scan_ = Scan::new().sequence(&i).carry(&x).carry(1.0).run(|step| {
        let [x, scale] = &step.carries[..] else { unreachable!() };
        let next = (x.take(&step.sequences[0]) * scale.broadcast_like(x)).tanh();
        let sum = next.sum(0);
        Next::new().carry(&next).carry(scale * 0.5 + &sum * 1e-3).output(sum)
    });
    let indices = |bad: i32| {
        let mut list: Vec<i32> = (0..4 * 100).map(|e| e * 7 % 100 - 50 * (e % 2)).collect();
        list[250] = bad;
        Array::new(&[4, 100], &list).unwrap()
    };
    let results = [&scan_.carries[0], &scan_.outputs[0], &scan_.last[1]];
    let good = [(&x, numbers(&[100], 1)), (&i, indices(3))];
    native(&results, &[], &good, 1e-5);
    let bad = [(&x, numbers(&[100], 1)), (&i, indices(-101))];
    let graph = graph(&results, &[], &bad);
    let program = crate::compile(&graph).unwrap();
    let values: Vec<Array> = bad.iter().map(|(_, value)| value.clone()).collect();
    let expected = evaluate(&program, &values.iter().collect::<Vec<_>>(), &mut []).unwrap_err();
    assert!(matches!(expected, RunError::OutOfRange(OutOfRange { value: -101, .. })));
    for set in Features::detect().available() {
        assert_eq!(on_cpu(&graph, &values, set, 1), Err(expected.clone()), "{set}");
    }
}

/// Sums over an outer axis begin with zeros in the row that they go to, and nowhere else: what follows it stays.
#[test]
fn sums_to_rows_stay_in_them() {
    for (rows, columns) in [(1, 4), (2, 4), (4, 4), (3, 7), (2, 8)] {
        let x = input("x", DType::F32, &[Some(2), Some(2), Some(rows), Some(columns)]);
        let zeros = full(0.0, DType::F32, [rows, columns]);
        let scanned = Scan::new()
            .sequence(&x)
            .carry(&zeros)
            .run(|step| Next::new().carry(&step.carries[0] + step.sequences[0].sum(0)));
        let last = scanned.carries[0].index(ix![-1]);
        native(&[&last], &[], &[(&x, numbers(&[2, 2, rows, columns], 1))], 1e-6);
    }
}
