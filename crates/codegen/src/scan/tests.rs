//! Scans through every engine of this crate, against the interpreter and against scans written out.

mod native;

use std::sync::Arc;

use hypatia_graph::collect::{Request, collect};
use hypatia_graph::interp::interpret;
use hypatia_graph::leaf::{LeafKind, SharedCell};
use hypatia_graph::scan::{Next, Scan, ScanStep};
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::streams::RandomStreams;
use hypatia_graph::tensor::{Shared, constant, matrix, scalar, shared, vector};
use hypatia_graph::{Array, Graph, Tensor, ix};

use crate::cpu::call::CpuProgram;
use crate::kernel::reference::evaluate;
use crate::kernel::verify::verify;
use crate::kernel::{Kernel, OutOfRange, Program, RunError, ScanKernel};
#[cfg(feature = "opencl")]
use crate::opencl::OpenClProgram;
use hypatia_kernels::features::{Features, InstructionSet};
use hypatia_kernels::pool::Pool;

/// Numbers that are not exact, in [-1, 1): the fractional parts of multiples of the golden ratio.
pub(crate) fn numbers(shape: &[usize], seed: usize) -> Array {
    let len = shape.iter().product::<usize>();
    let golden = |i: usize| ((i + 1 + 1000 * seed) as f64 * 0.618_033_988_749_894_9).fract() * 2.0 - 1.0;
    Array::new(shape, &(0..len).map(|i| golden(i) as f32).collect::<Vec<_>>()).unwrap()
}

/// A graph whose extents are known.
pub(crate) fn graph(outputs: &[&Tensor], updates: &[(Shared, Tensor)], inputs: &[(&Tensor, Array)]) -> Graph {
    let request = Request {
        inputs: inputs.iter().map(|(input, _)| (*input).clone()).collect(),
        outputs: outputs.iter().map(|output| (*output).clone()).collect(),
        updates: updates.to_vec(),
        ..Request::default()
    };
    let graph = collect(&request).unwrap();
    let mut arguments = Arguments::default();
    for (id, (_, value)) in graph.inputs.iter().zip(inputs) {
        if !graph.leaf(*id).unwrap().ty.is_known() {
            arguments.shapes.insert(*id, value.shape().into());
        }
        if value.rank() == 0
            && let Some(value) = value.get(0).to_i64()
        {
            arguments.values.insert(*id, value);
        }
    }
    specialise(&graph, &arguments).unwrap()
}

fn cells(graph: &Graph, program: &Program) -> Vec<Arc<SharedCell>> {
    let cell = |id| match &graph.leaf(id).unwrap().kind {
        LeafKind::Shared(cell) => cell.clone(),
        kind => panic!("{kind:?} is no shared variable"),
    };
    program.shared.iter().map(|id| cell(*id)).collect()
}

/// What the processor gives: results, then the new values of all shared variables.
pub(crate) fn on_cpu(
    graph: &Graph,
    inputs: &[Array],
    limit: InstructionSet,
    threads: usize,
) -> Result<Vec<Array>, RunError> {
    let program = Arc::new(crate::compile(graph).unwrap());
    let pool = Arc::new(Pool::new(threads));
    let mut cpu = CpuProgram::new(program.clone(), &Features::detect().restricted_to(limit), pool).unwrap();
    let before: Vec<Array> = cells(graph, &program).iter().map(|cell| cell.lock().host.clone()).collect();
    let inputs: Vec<&Array> = inputs.iter().collect();
    let mut outputs: Vec<Array> =
        program.outputs.iter().map(|(dtype, shape)| Array::zeros(*dtype, shape).unwrap()).collect();
    let mut shared = before.clone();
    // The second call finds memory as the first one left it.
    for _ in 0..2 {
        shared.clone_from(&before);
        let result = cpu.run(&inputs, &mut shared.iter_mut().collect::<Vec<_>>(), &mut outputs);
        if result.is_err() {
            assert_eq!(shared, before, "a failed call changed a shared variable");
        }
        result?;
    }
    Ok(outputs.into_iter().chain(shared).collect())
}

/// Results and updated variables of every engine; all agree with the interpreter to that relative difference.
pub(crate) fn check(
    outputs: &[&Tensor],
    updates: &[(Shared, Tensor)],
    inputs: &[(&Tensor, Array)],
    tolerance: f64,
) -> (Vec<Array>, Program) {
    let graph = graph(outputs, updates, inputs);
    let inputs: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let expected = interpret(&graph, &inputs).unwrap();
    let program = crate::compile(&graph).unwrap();
    let cells = cells(&graph, &program);
    let mut values: Vec<Array> = cells.iter().map(|cell| cell.lock().host.clone()).collect();
    for (id, new) in &expected.updates {
        values[program.shared.binary_search(id).unwrap()] = new.clone();
    }
    let expected: Vec<Array> = expected.outputs.into_iter().chain(values).collect();
    let compare = |engine: &str, found: &[Array]| {
        assert_eq!(found.len(), expected.len());
        for (n, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert_eq!((found.dtype(), found.shape()), (expected.dtype(), expected.shape()));
            for i in 0..found.len() {
                let (f, e) = (found.get(i).to_f64(), expected.get(i).to_f64());
                let near = (f - e).abs() <= tolerance * e.abs().max(1.0) || (f.is_nan() && e.is_nan());
                assert!(near, "{engine}: result {n}[{i}]: expected {e}, found {f}\n{program}");
            }
        }
    };
    let mut shared: Vec<Array> = cells.iter().map(|cell| cell.lock().host.clone()).collect();
    let mut found = evaluate(&program, &inputs.iter().collect::<Vec<_>>(), &mut shared).unwrap();
    found.extend(shared);
    compare("reference", &found);
    let one = on_cpu(&graph, &inputs, InstructionSet::Avx512, 1).unwrap();
    compare("processor", &one);
    assert_eq!(one, on_cpu(&graph, &inputs, InstructionSet::Avx512, 3).unwrap(), "threads change bits");
    for limit in [InstructionSet::Avx2, InstructionSet::Portable] {
        compare("processor, narrower", &on_cpu(&graph, &inputs, limit, 1).unwrap());
    }
    #[cfg(feature = "opencl")]
    match OpenClProgram::new(Arc::new(program.clone()), 0) {
        Err(reason) => eprintln!("skipped: {reason}"),
        Ok(mut device) => {
            let before: Vec<Array> = cells.iter().map(|cell| cell.lock().host.clone()).collect();
            let mut outputs: Vec<Array> =
                program.outputs.iter().map(|(dtype, shape)| Array::zeros(*dtype, shape).unwrap()).collect();
            let shared: Vec<&SharedCell> = cells.iter().map(|cell| &**cell).collect();
            device.run(&inputs.iter().collect::<Vec<_>>(), &shared, &mut outputs).unwrap();
            for (cell, old) in cells.iter().zip(before) {
                let mut state = cell.lock();
                state.fetch().unwrap();
                outputs.push(std::mem::replace(&mut state.host, old));
                state.version += 1;
            }
            compare("OpenCL", &outputs);
        }
    }
    (one, program)
}

/// The only scan among the steps.
fn only_scan(program: &Program) -> &ScanKernel {
    let mut scans = program.steps.iter().filter_map(|step| match &step.kernel {
        Kernel::Scan(kernel) => Some(kernel),
        _ => None,
    });
    let first = scans.next().expect("a scan");
    assert!(scans.next().is_none(), "more than one scan:\n{program}");
    first
}

fn floats(array: &Array) -> Vec<f64> {
    (0..array.len()).map(|i| array.get(i).to_f64()).collect()
}

#[test]
fn a_sum_over_a_sequence_keeps_the_last_only() {
    let x = vector::<f32>("x");
    let sum = Scan::new()
        .sequence(&x)
        .carry(0.5)
        .run(|step| Next::new().carry(&step.carries[0] + &step.sequences[0]));
    let input = Array::vector(&[1f32, 2.0, 4.0, 8.0]);
    let (found, program) = check(&[&sum.last[0]], &[], &[(&x, input)], 0.0);
    assert_eq!(floats(&found[0]), [15.5]);
    let kernel = only_scan(&program);
    assert!(kernel.rows.is_empty());
    // The carry is updated where it lies: neither the body nor the program needs memory.
    assert_eq!((kernel.body.steps.len(), kernel.body.arena_bytes, program.arena_bytes), (1, 0, 0));
}

/// h[t] = tanh(x[t] + h[t - 1] . w).
fn recurrent(x: &Tensor, h0: &Tensor, w: &Tensor) -> hypatia_graph::scan::Scanned {
    Scan::new()
        .sequence(x)
        .carry(h0)
        .run(|step| Next::new().carry((&step.sequences[0] + step.carries[0].dot(w)).tanh()))
}

#[test]
fn a_recurrent_layer_lives_in_its_rows() {
    let (x, h0, w) = (input3("x"), matrix::<f32>("h0"), matrix::<f32>("w"));
    let layer = recurrent(&x, &h0, &w);
    let inputs = [(&x, numbers(&[7, 3, 50], 1)), (&h0, numbers(&[3, 50], 2)), (&w, numbers(&[50, 50], 3))];
    let (found, program) = check(&[&layer.carries[0], &layer.last[0]], &[], &inputs, 1e-5);
    let kernel = only_scan(&program);
    assert!(kernel.carries[0].row.as_ref().is_some_and(|row| row.kept));
    // The product and the rest: nothing is copied in a step.
    assert_eq!(kernel.body.steps.len(), 2, "{program}");
    let (rows, last) = (floats(&found[0]), floats(&found[1]));
    assert_eq!(rows[6 * 150..], last);
    // Written out, the scan does the same arithmetic but for the packed product, whose order of summing may be another.
    let mut h = h0.clone();
    let mut unrolled = Vec::new();
    for t in 0..7 {
        h = (x.index(ix![t]) + h.dot(&w)).tanh();
        unrolled.push(h.clone());
    }
    let outputs: Vec<&Tensor> = unrolled.iter().collect();
    let graph = graph(&outputs, &[], &inputs);
    let values: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let written = on_cpu(&graph, &values, InstructionSet::Avx512, 1).unwrap();
    let written: Vec<f64> = written.iter().flat_map(floats).collect();
    assert_eq!(rows, written);
}

fn input3(name: &str) -> Tensor {
    hypatia_graph::tensor::input(name, hypatia_graph::DType::F32, &[None, None, None])
}

#[test]
fn sequences_and_captured_values_are_read_where_they_lie() {
    let (x, w) = (matrix::<f32>("x"), matrix::<f32>("w"));
    let scan_ = Scan::new().sequence_taps(&x, &[-2, 0]).go_backwards().carry(w.index(ix![1])).run(|step| {
        let next =
            &step.sequences[0] - &step.sequences[1] * 2.0 + step.carries[0].dot(w.index(ix![0..3])) * 0.1;
        Next::new().carry(&next).output(&step.carries[0])
    });
    let inputs = [(&x, numbers(&[6, 3], 1)), (&w, numbers(&[4, 3], 2))];
    let (_, program) = check(&[&scan_.carries[0], &scan_.outputs[0], &scan_.last[0]], &[], &inputs, 1e-5);
    let kernel = only_scan(&program);
    let strides: Vec<i64> = kernel.inputs.iter().map(|input| input.stride).collect();
    assert_eq!(strides, [-3, -3, 0], "{program}");
    // Only the initial value is computed before the scan.
    assert_eq!(program.steps.len(), 2, "{program}");
}

#[test]
fn a_condition_ends_the_scan_and_the_last_row_is_repeated() {
    let limit = scalar::<f32>("limit");
    let doubled = Scan::new().carry(1.0).steps(6).run(|step| {
        let next = &step.carries[0] * 2.0;
        Next::new().carry(&next).output(-&next).until(next.gt(&limit))
    });
    let results = [&doubled.carries[0], &doubled.last[0], &doubled.steps, &doubled.outputs[0]];
    let (found, _) = check(&results, &[], &[(&limit, Array::scalar(5f32))], 0.0);
    let found: Vec<Vec<f64>> = found.iter().map(floats).collect();
    let rows = vec![2.0, 4.0, 8.0, 8.0, 8.0, 8.0];
    let negative = rows.iter().map(|x| -x).collect::<Vec<f64>>();
    assert_eq!(found, [rows, vec![8.0], vec![3.0], negative]);
    let (found, _) = check(&[&doubled.last[0], &doubled.steps], &[], &[(&limit, Array::scalar(5f32))], 0.0);
    assert_eq!(found.iter().map(floats).collect::<Vec<_>>(), [[8.0], [3.0]]);
}

#[test]
fn no_step_leaves_the_initial_values() {
    let (x, n) = (matrix::<f32>("x"), scalar::<i64>("n"));
    let scan_ = Scan::new().carry(x.sum(0)).steps(&n).run(|step| Next::new().carry(step.carries[0].exp()));
    let inputs = [(&x, numbers(&[3, 4], 1)), (&n, Array::scalar(0i64))];
    let (found, _) = check(&[&scan_.carries[0], &scan_.last[0], &scan_.steps], &[], &inputs, 1e-6);
    assert_eq!(found[0].shape(), [0, 4]);
    assert_eq!(floats(&found[2]), [0.0]);
}

#[test]
fn scans_in_scans() {
    let (x, w) = (matrix::<f32>("x"), matrix::<f32>("w"));
    let outer = Scan::new().sequence(&x).carry(w.index(ix![0])).run(|outer| {
        let inner = Scan::new().carry(&outer.carries[0]).steps(4).run(|inner| {
            let next = (inner.carries[0].dot(&w) * 0.1 + &outer.sequences[0]).tanh();
            Next::new().carry(&next).until(next.sum(0).gt(2.0))
        });
        let made = inner.steps.cast(hypatia_graph::DType::F32);
        Next::new().carry(&inner.last[0]).output(inner.carries[0].sum(0) * 0.5).output(made)
    });
    let inputs = [(&x, numbers(&[5, 40], 1)), (&w, numbers(&[40, 40], 2))];
    let results = [&outer.carries[0], &outer.outputs[0], &outer.outputs[1]];
    let (_, program) = check(&results, &[], &inputs, 2e-5);
    assert_eq!(program.count(), program.all_steps().len());
    for (number, (_, step)) in program.all_steps().into_iter().enumerate() {
        assert!(std::ptr::eq(step, program.step(number).unwrap()));
    }
    assert!(program.step(program.count()).is_none());
}

#[test]
fn draws_differ_from_step_to_step_and_advance_the_stream() {
    let streams = RandomStreams::new(7);
    let scan_ = Scan::new()
        .carry(constant(Array::vector(&[0f32; 5])))
        .steps(4)
        .run(|step| Next::new().carry(&step.carries[0] + streams.uniform([5], 0.0, 1.0)));
    let (found, _) = check(&[&scan_.carries[0]], &[], &[], 1e-6);
    let rows = floats(&found[0]);
    assert_ne!(rows[0..5], rows[5..10].iter().zip(&rows[0..5]).map(|(b, a)| b - a).collect::<Vec<_>>());
    // The counter, the only shared variable, has moved.
    assert_eq!(found.len(), 2);
    assert_ne!(found[1], streams.counters()[0].get_value().unwrap());
}

#[test]
fn an_index_out_of_range_in_a_step_changes_nothing() {
    let (x, i) = (vector::<f32>("x"), vector::<i64>("i"));
    let total = shared("total", 1f32);
    let scan_ = Scan::new()
        .sequence(&i)
        .carry(&total)
        .run(|step| Next::new().carry(&step.carries[0] + x.take(&step.sequences[0])));
    let updates = [(total.clone(), scan_.last[0].clone())];
    let good = [(&x, numbers(&[5], 1)), (&i, Array::vector(&[0i64, 4, -1, 2]))];
    check(&[&scan_.carries[0]], &updates, &good, 1e-6);
    let bad = [(&x, numbers(&[5], 1)), (&i, Array::vector(&[0i64, 4, 5, 2]))];
    let graph = graph(&[&scan_.carries[0]], &updates, &bad);
    let program = crate::compile(&graph).unwrap();
    let values: Vec<Array> = bad.iter().map(|(_, value)| value.clone()).collect();
    let error = on_cpu(&graph, &values, InstructionSet::Avx512, 1).unwrap_err();
    let RunError::OutOfRange(found @ OutOfRange { step, value: 5, .. }) = error else { panic!("{error:?}") };
    assert_eq!(program.check(&found).unwrap().extent, 5);
    // The number is that of a step in the body, which knows its line.
    assert!(matches!(program.step(step).unwrap().kernel, Kernel::Loop(_)));
    assert!(!program.steps.iter().any(|s| std::ptr::eq(s, program.step(step).unwrap())));
    assert!(program.step(step).unwrap().site.is_some());
    let mut shared = [Array::scalar(1f32)];
    let found = evaluate(&program, &values.iter().collect::<Vec<_>>(), &mut shared);
    assert_eq!(found, Err(error));
}

#[test]
fn an_accumulated_matrix_is_one_product_in_place() {
    let (x, d, w) = (input3("x"), input3("d"), shared("w", numbers(&[4, 6], 3)));
    let scan_ = Scan::new().sequence(&x).sequence(&d).carry(&w).run(|step| {
        let [x, d] = &step.sequences[..] else { unreachable!() };
        Next::new().carry(&step.carries[0] * 0.9 - x.t().dot(d) * 0.1)
    });
    let updates = [(w.clone(), scan_.last[0].clone())];
    let inputs = [(&x, numbers(&[5, 3, 4], 1)), (&d, numbers(&[5, 3, 6], 2))];
    let (_, program) = check(&[], &updates, &inputs, 1e-5);
    // The scan works in the shared variable's own memory, and a step is one accumulating product.
    assert_eq!((program.steps.len(), program.arena_bytes), (1, 0), "{program}");
    let kernel = only_scan(&program);
    assert!(
        matches!(&kernel.body.steps[..], [step] if matches!(step.kernel, Kernel::Product(_))),
        "{program}"
    );
}

#[test]
fn carries_change_places() {
    let (a, b) = (shared("a", numbers(&[6], 1)), shared("b", numbers(&[6], 2)));
    let scan_ = Scan::new().carry(&a).carry(&b).steps(3).run(|step: &ScanStep| {
        let [a, b] = &step.carries[..] else { unreachable!() };
        Next::new().carry(b).carry(a + b)
    });
    // The variables change places as well.
    let updates = [(a.clone(), scan_.last[1].clone()), (b.clone(), scan_.last[0].clone())];
    check(&[&scan_.last[0]], &updates, &[], 1e-6);
    let updates = [(a, scan_.last[0].clone()), (b, scan_.last[1].clone())];
    check(&[&scan_.carries[1]], &updates, &[], 1e-6);
}

/// As in the dynamics of Hamiltonian Monte Carlo: a new value that is an accumulating product, and another that uses it.
#[test]
fn an_accumulated_value_is_used_by_another_carry() {
    let (q, p, a) = (matrix::<f32>("q"), matrix::<f32>("p"), matrix::<f32>("a"));
    let leapfrog = Scan::new().carry(&q).carry(&p).steps(5).run(|step: &ScanStep| {
        let [q, p] = &step.carries[..] else { unreachable!() };
        let p = p - q.dot(&a) * 0.1;
        Next::new().carry(q + &p * 0.1).carry(&p)
    });
    let inputs = [(&q, numbers(&[3, 10], 1)), (&p, numbers(&[3, 10], 2)), (&a, numbers(&[10, 10], 3))];
    let (_, program) = check(&[&leapfrog.last[0], &leapfrog.last[1]], &[], &inputs, 1e-5);
    let kernel = only_scan(&program);
    assert_eq!(kernel.body.steps.len(), 2, "{program}");
    check(&[&leapfrog.carries[0], &leapfrog.carries[1]], &[], &inputs, 1e-5);
}

#[test]
fn an_update_that_is_used_elsewhere_is_one_product_too() {
    let (x, w, v) = (matrix::<f32>("x"), shared("w", numbers(&[4, 4], 1)), shared("v", numbers(&[4, 4], 2)));
    let new_v = &v * 0.9 - x.t().dot(&x) * 0.1;
    let updates = [(v.clone(), new_v.clone()), (w.clone(), &w + &new_v)];
    let (_, program) = check(&[], &updates, &[(&x, numbers(&[3, 4], 3))], 1e-5);
    let products = program.steps.iter().filter(|step| matches!(step.kernel, Kernel::Product(_)));
    assert_eq!((products.count(), program.steps.len()), (1, 2), "{program}");
}

#[test]
fn views_and_equal_elements_cost_no_memory() {
    let (x, w, b, s) = (matrix::<f32>("x"), matrix::<f32>("w"), vector::<f32>("b"), scalar::<f32>("s"));
    let begin = constant(numbers(&[2, 4], 1));
    let (repeated, transposed, bias) = (s.broadcast_like(&x), w.t(), b.broadcast_like(&begin));
    let scan_ = Scan::new().sequence(&x).sequence(&repeated).carry(&begin).run(|step| {
        let [x, repeated] = &step.sequences[..] else { unreachable!() };
        Next::new().carry((step.carries[0].dot(&transposed) * 0.1 + &bias + x * repeated).tanh())
    });
    let inputs = [
        (&x, numbers(&[5, 4], 2)),
        (&w, numbers(&[4, 4], 3)),
        (&b, numbers(&[4], 4)),
        (&s, Array::scalar(0.5f32)),
    ];
    let (_, program) = check(&[&scan_.carries[0]], &[], &inputs, 1e-5);
    // The initial value is put in place; everything else is read where it is.
    assert_eq!(program.steps.len(), 2, "{program}");
    assert!(program.arena_bytes <= 128, "{program}");
}

#[test]
fn broken_scans_are_found() {
    let (x, limit) = (matrix::<f32>("x"), scalar::<f32>("limit"));
    let scan_ = Scan::new().sequence(&x).carry(x.index(ix![0])).run(|step| {
        let next = &step.carries[0] + &step.sequences[0];
        Next::new().carry(&next).until(next.sum(0).gt(&limit))
    });
    let inputs = [(&x, numbers(&[5, 4], 1)), (&limit, Array::scalar(1f32))];
    let results = [&scan_.carries[0], &scan_.last[0], &scan_.steps];
    let program = crate::compile(&graph(&results, &[], &inputs)).unwrap();
    let broken = |change: &dyn Fn(&mut ScanKernel)| -> String {
        let mut program = program.clone();
        for step in &mut program.steps {
            if let Kernel::Scan(kernel) = &mut step.kernel {
                change(kernel);
            }
        }
        verify(&program).unwrap_err().to_string()
    };
    assert!(broken(&|k| k.steps = 6).contains("does not lie in"));
    assert!(broken(&|k| k.inputs[0].offset = 1).contains("does not lie in"));
    assert!(broken(&|k| k.inputs[0].stride = -4).contains("does not lie in"));
    assert!(broken(&|k| k.rows[0].stride = 3).contains("do not fit"));
    assert!(broken(&|k| k.inputs.clear()).contains("lies nowhere"));
    assert!(broken(&|k| k.made = Some(k.inputs[0].param)).contains("number of steps"));
    assert!(broken(&|k| k.carries.clear()).contains("lies nowhere"));
    assert!(broken(&|k| k.until = None).contains("lies nowhere"));
    let kernel = only_scan(&program);
    let (arena, row) = (usize::from(kernel.arena.unwrap()), usize::from(kernel.rows[0].param));
    assert!(broken(&|k| k.params[arena].written = false).contains("does not lie in"));
    assert!(broken(&|k| k.params[arena].len = 1).contains("does not lie in"));
    assert!(broken(&|k| k.params[row].written = false).contains("does not lie in"));
}

#[test]
fn what_a_scan_packs_is_packed_as_seldom_as_it_can_be() {
    // The inner scan makes two steps; through the outer one its matrix is used ten times.
    let (w, x) = (matrix::<f32>("w"), matrix::<f32>("x"));
    let nested = Scan::new().carry(&x).steps(5).run(|outer| {
        let inner = Scan::new()
            .carry(&outer.carries[0])
            .steps(2)
            .run(|inner| Next::new().carry((inner.carries[0].dot(&w) * 0.1).tanh()));
        Next::new().carry(&inner.last[0])
    });
    let inputs = [(&w, numbers(&[40, 40], 1)), (&x, numbers(&[3, 40], 2))];
    let (_, program) = check(&[&nested.last[0]], &[], &inputs, 1e-4);
    let cpu =
        CpuProgram::new(Arc::new(program.clone()), &Features::detect(), Arc::new(Pool::new(1))).unwrap();
    let described: Vec<String> = (0..program.count()).map(|number| cpu.plan().describe(number)).collect();
    let scans: Vec<&String> = described.iter().filter(|text| text.contains("steps")).collect();
    assert_eq!(scans, ["5 steps, 1 matrices packed before", "2 steps, 0 matrices packed before"]);
    assert!(described.iter().any(|text| text.contains("packed beforehand")), "{described:?}");
    // A matrix that changes with the outer scan is not worth packing for two products.
    let changing = Scan::new().carry(&x).carry(&w).steps(5).run(|outer| {
        let [x, w] = &outer.carries[..] else { unreachable!() };
        let inner = Scan::new()
            .carry(x)
            .steps(2)
            .run(|inner| Next::new().carry((inner.carries[0].dot(w) * 0.1).tanh()));
        Next::new().carry(&inner.last[0]).carry(w * 0.9)
    });
    let (_, program) = check(&[&changing.last[0]], &[], &inputs, 1e-4);
    let cpu =
        CpuProgram::new(Arc::new(program.clone()), &Features::detect(), Arc::new(Pool::new(1))).unwrap();
    assert!((0..program.count()).all(|number| !cpu.plan().describe(number).contains("packed beforehand")));
}

#[test]
fn past_values_are_passed_on() {
    let begin = matrix::<f32>("begin");
    let scan_ = Scan::new()
        .carry_taps(&begin, &[-3, -1])
        .steps(6)
        .run(|step| Next::new().carry(&step.carries[0] * 0.5 + &step.carries[1] * 0.25));
    let inputs = [(&begin, numbers(&[3, 4], 1))];
    let (_, program) = check(&[&scan_.carries[0]], &[], &inputs, 1e-6);
    // The newest value lives in the rows and is copied once as it becomes the one before.
    assert!(only_scan(&program).body.steps.len() <= 4, "{program}");
    check(&[&scan_.last[0]], &[], &inputs, 1e-6);
}
