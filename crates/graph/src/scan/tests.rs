use super::*;
use crate::array::Array;
use crate::collect::{Request, collect};
use crate::gradient::grad;
use crate::interp::interpret;
use crate::specialise::{Arguments, Unspecialised, specialise};
use crate::streams::RandomStreams;
use crate::tensor::{input, matrix, scalar, shared, vector};

/// The values of expressions of these inputs.
fn values(outputs: &[&Tensor], inputs: &[(&Tensor, Array)]) -> Vec<Vec<f64>> {
    let request = Request {
        inputs: inputs.iter().map(|(input, _)| (*input).clone()).collect(),
        outputs: outputs.iter().map(|output| (*output).clone()).collect(),
        ..Request::default()
    };
    let arrays: Vec<Array> = inputs.iter().map(|(_, value)| value.clone()).collect();
    let result = interpret(&collect(&request).unwrap(), &arrays).unwrap();
    result.outputs.iter().map(|array| (0..array.len()).map(|i| array.get(i).to_f64()).collect()).collect()
}

fn problem(output: &Tensor, inputs: &[&Tensor]) -> String {
    let request = Request {
        inputs: inputs.iter().map(|input| (*input).clone()).collect(),
        outputs: vec![output.clone()],
        ..Request::default()
    };
    collect(&request).unwrap_err().to_string()
}

fn counting(n: usize) -> Array {
    Array::vector(&(0..n).map(|i| i as f32).collect::<Vec<_>>())
}

#[test]
fn taps_of_a_sequence_are_aligned() {
    let x = vector::<f32>("x");
    let taps = |taps: &[i64]| {
        let scanned = Scan::new()
            .sequence_taps(&x, taps)
            .run(|step| step.sequences.iter().fold(Next::new(), |next, tap| next.output(tap)));
        values(&scanned.outputs.iter().collect::<Vec<_>>(), &[(&x, counting(5))])
    };
    assert_eq!(taps(&[0]), [[0.0, 1.0, 2.0, 3.0, 4.0]]);
    assert_eq!(taps(&[-1, 0]), [[0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]]);
    assert_eq!(taps(&[0, 2, -1]), [[1.0, 2.0], [3.0, 4.0], [0.0, 1.0]]);
    // A tap alone still counts from the first element that every step could see.
    assert_eq!(taps(&[2]), [[2.0, 3.0, 4.0]]);
}

#[test]
fn taps_of_a_carry_reach_back() {
    let begin = vector::<f32>("begin");
    let fibonacci = Scan::new()
        .carry_taps(&begin, &[-2, -1])
        .steps(6)
        .run(|step| Next::new().carry(&step.carries[0] + &step.carries[1]));
    let found =
        values(&[&fibonacci.carries[0], &fibonacci.last[0]], &[(&begin, Array::vector(&[0f32, 1.0]))]);
    assert_eq!(found, [vec![1.0, 2.0, 3.0, 5.0, 8.0, 13.0], vec![13.0]]);
    // Of three past values only the oldest is seen.
    let third =
        Scan::new().carry_taps(&begin, &[-3]).steps(4).run(|step| Next::new().carry(&step.carries[0] * 2.0));
    let found = values(&[&third.carries[0]], &[(&begin, Array::vector(&[1f32, 10.0, 100.0]))]);
    assert_eq!(found, [[2.0, 20.0, 200.0, 4.0]]);
}

#[test]
fn sequences_are_read_backwards_and_cut_to_the_steps() {
    let (x, n) = (vector::<f32>("x"), scalar::<i64>("n"));
    let step = |step: &ScanStep| Next::new().carry(&step.carries[0] * 10.0 + &step.sequences[0]);
    let forwards = Scan::new().sequence(&x).carry(0.0).steps(&n).run(step);
    let backwards = Scan::new().sequence(&x).carry(0.0).steps(&n).go_backwards().run(step);
    let inputs = [(&x, counting(5)), (&n, Array::scalar(3i64))];
    assert_eq!(values(&[&forwards.last[0], &backwards.last[0]], &inputs), [[12.0], [432.0]]);
    let none = [(&x, counting(5)), (&n, Array::scalar(0i64))];
    assert_eq!(values(&[&forwards.last[0], &forwards.carries[0]], &none), [vec![0.0], vec![]]);
}

#[test]
fn a_condition_ends_the_scan_with_the_step_that_meets_it() {
    let limit = scalar::<f32>("limit");
    let doubled = Scan::new().carry(1.0).steps(6).run(|step| {
        let next = &step.carries[0] * 2.0;
        Next::new().carry(&next).until(next.gt(&limit))
    });
    let results = [&doubled.carries[0], &doubled.last[0], &doubled.steps];
    let found = values(&results, &[(&limit, Array::scalar(5f32))]);
    assert_eq!(found, [vec![2.0, 4.0, 8.0, 8.0, 8.0, 8.0], vec![8.0], vec![3.0]]);
    let found = values(&results, &[(&limit, Array::scalar(1000f32))]);
    assert_eq!(found, [vec![2.0, 4.0, 8.0, 16.0, 32.0, 64.0], vec![64.0], vec![6.0]]);
}

#[test]
fn shorthands_fold_from_either_end() {
    let x = vector::<f32>("x");
    let join = |a: &Tensor, b: &Tensor| a * 10.0 + b;
    let outputs = [
        map(&[&x, &x], |e| &e[0] * &e[1]),
        foldl(7.0, &[&x], |a, e| join(a, &e[0])),
        foldr(7.0, &[&x], |a, e| join(a, &e[0])),
        reduce(&x, join),
    ];
    let found = values(&outputs.iter().collect::<Vec<_>>(), &[(&x, counting(4))]);
    assert_eq!(found, [vec![0.0, 1.0, 4.0, 9.0], vec![70123.0], vec![73210.0], vec![123.0]]);
}

#[test]
fn what_does_not_depend_on_the_step_is_captured_whole() {
    let (x, w) = (matrix::<f32>("x"), matrix::<f32>("w"));
    let scanned =
        Scan::new().sequence(&x).run(|step| Next::new().output(&step.sequences[0] * w.exp().sum(0)));
    let Op::Scan(scan) = &scanned.outputs[0].0.op else { panic!("no scan") };
    assert_eq!(scan.body.inputs(), 2);
    assert!(
        scan.body.graph.nodes().all(|(_, node)| !matches!(node.op, Op::Reduce(..))),
        "{}",
        scan.body.graph
    );
}

#[test]
fn a_gradient_in_a_step_may_be_for_something_outside() {
    let (x, w) = (vector::<f32>("x"), scalar::<f32>("w"));
    let scanned = Scan::new().sequence(&x).run(|step| {
        // `w * 2` is the largest expression of outside, and yet the gradient has to get through it.
        let cost = (&step.sequences[0] * (&w * 2.0)).sqr();
        Next::new().output(&grad(&cost, [&w])[0])
    });
    let Op::Scan(scan) = &scanned.outputs[0].0.op else { panic!("no scan") };
    assert_eq!(scan.body.inputs(), 2);
    let captured = scan.body.graph.inputs[1];
    assert_eq!(scan.body.graph.leaf(captured).and_then(|leaf| leaf.name.as_deref()), Some("w"));
}

#[test]
fn draws_of_a_step_advance_from_step_to_step_and_from_call_to_call() {
    let random = RandomStreams::new(3);
    let outside = random.uniform([2], 0.0, 1.0);
    let scanned = Scan::new().steps(3).run(|_| {
        let inside = random.uniform([2], 0.0, 1.0);
        Next::new().output(inside).output(&outside + 0.0)
    });
    let request = Request { outputs: scanned.outputs.clone(), ..Request::default() };
    let graph = collect(&request).unwrap();
    let first = interpret(&graph, &[]).unwrap();
    assert_eq!(first.updates.len(), 2, "one counter outside, one inside");
    let numbers = |array: &Array| (0..array.len()).map(|i| array.get(i).to_f64()).collect::<Vec<_>>();
    let (inside, outside) = (numbers(&first.outputs[0]), numbers(&first.outputs[1]));
    assert!(inside[..2] != inside[2..4] && inside[2..4] != inside[4..], "{inside:?}");
    assert!(outside[..2] == outside[2..4] && outside[2..4] == outside[4..], "{outside:?}");
    for counter in random.counters() {
        let (_, after) = first.updates.iter().find(|(id, _)| *id == counter.leaf().id).unwrap();
        counter.set_value(after.clone()).unwrap();
    }
    let second = numbers(&interpret(&graph, &[]).unwrap().outputs[0]);
    assert!(inside.iter().all(|number| !second.contains(number)), "{inside:?} {second:?}");
}

#[test]
fn shared_variables_updated_in_a_step_must_be_updated_by_the_function() {
    let count = shared("count", Array::scalar(5f32));
    let scanned = Scan::new().steps(4).run(|_| Next::new().output(&count * 1.0).update(&count, &count + 1.0));
    assert!(problem(&scanned.outputs[0], &[]).contains("a scan updates `count` at every step"));
    let request =
        Request { outputs: scanned.outputs.clone(), updates: scanned.updates.clone(), ..Request::default() };
    let result = interpret(&collect(&request).unwrap(), &[]).unwrap();
    assert_eq!(result.outputs[0], Array::vector(&[5f32, 6.0, 7.0, 8.0]));
    assert_eq!(result.updates[0].1, Array::scalar(9f32));
}

#[test]
fn mistakes_are_named() {
    let (x, m) = (vector::<f32>("x"), matrix::<f32>("m"));
    let (short, long) = (input("short", DType::F32, &[Some(3)]), input("long", DType::F32, &[Some(4)]));
    let lengths = map(&[&short, &long], |e| &e[0] + &e[1]);
    assert!(problem(&lengths, &[&short, &long]).contains("another length than the scan has steps"));
    let changed = Scan::new().carry(0.0).steps(2).run(|step| Next::new().carry(&step.carries[0] + &x));
    assert!(problem(&changed.last[0], &[&x]).contains("changes the type of a carry"));
    let converted =
        Scan::new().carry(0.0).steps(2).run(|step| Next::new().carry(step.carries[0].cast(DType::F64)));
    assert!(problem(&converted.last[0], &[]).contains("cast(DType::F32)"));
    let endless = Scan::new().carry(0.0).run(|step| Next::new().carry(&step.carries[0]));
    assert!(problem(&endless.last[0], &[]).contains("needs a number of steps"));
    let negative = Scan::new().carry(0.0).steps(-1).run(|step| Next::new().carry(&step.carries[0]));
    assert!(problem(&negative.last[0], &[]).contains("a scan of -1 steps"));
    let fractional = Scan::new().carry(0.0).steps(x.sum(0)).run(|step| Next::new().carry(&step.carries[0]));
    assert!(problem(&fractional.last[0], &[&x]).contains("an integer scalar"));
    let lost = Scan::new().carry(0.0).carry(0.0).steps(2).run(|step| Next::new().carry(&step.carries[0]));
    assert!(problem(&lost.last[1], &[]).contains("a scan with 2 carries gives the next values of 1"));
    let vague =
        Scan::new().carry(&x).steps(2).run(|step| Next::new().carry(&step.carries[0]).until(x.gt(0.0)));
    assert!(problem(&vague.last[0], &[&x]).contains("a bool scalar"));
    let ahead = Scan::new().carry_taps(&x, &[1]).steps(2).run(|_| Next::new().carry(0.0));
    assert!(problem(&ahead.last[0], &[&x]).contains("negative and distinct"));
    let inside = map(&[&m], |e| e[0].dot(m.t().dot(&x)) + m.index(vec![Index::At(Size::from(0)); 3]).sum(0));
    assert!(problem(&inside, &[&m, &x]).contains("indices"), "{}", problem(&inside, &[&m, &x]));
    let mut escaped = None;
    let _ = map(&[&x], |e| {
        escaped = Some(e[0].clone());
        e[0].clone()
    });
    assert!(problem(&escaped.unwrap(), &[&x]).contains("among the inputs"));
}

#[test]
fn a_scan_of_one_step_is_the_step() {
    let (x, h0) = (input("x", DType::F32, &[Some(1), Some(2)]), input("h0", DType::F32, &[Some(2)]));
    let scanned = Scan::new()
        .sequence(&x)
        .carry(&h0)
        .run(|step| Next::new().carry(&step.sequences[0] + &step.carries[0]).output(step.sequences[0].sqr()));
    let request = Request {
        inputs: vec![x, h0],
        outputs: vec![scanned.carries[0].clone(), scanned.last[0].clone(), scanned.outputs[0].clone()],
        ..Request::default()
    };
    let graph = specialise(&collect(&request).unwrap(), &Arguments::default()).unwrap();
    assert!(graph.nodes().all(|(_, node)| !matches!(node.op, Op::Scan(_))), "{graph}");
    let inputs = [Array::new(&[1, 2], &[2f32, 3.0]).unwrap(), Array::vector(&[10f32, 20.0])];
    let outputs = interpret(&graph, &inputs).unwrap().outputs;
    assert_eq!(outputs[0], Array::new(&[1, 2], &[12f32, 23.0]).unwrap());
    assert_eq!(outputs[1], Array::vector(&[12f32, 23.0]));
    assert_eq!(outputs[2], Array::new(&[1, 2], &[4f32, 9.0]).unwrap());
}

#[test]
fn lengths_that_differ_are_found_when_they_are_known() {
    let (x, y) = (vector::<f32>("x"), vector::<f32>("y"));
    let sums = map(&[&x, &y], |e| &e[0] + &e[1]);
    let request = Request { inputs: vec![x, y], outputs: vec![sums], ..Request::default() };
    let graph = collect(&request).unwrap();
    let shapes = |n: usize, m: usize| Arguments {
        shapes: graph
            .inputs
            .iter()
            .copied()
            .zip([[n], [m]].map(|shape| shape.into_iter().collect()))
            .collect(),
        ..Arguments::default()
    };
    assert!(specialise(&graph, &shapes(3, 3)).is_ok());
    let Err(Unspecialised::Faults(faults)) = specialise(&graph, &shapes(3, 4)) else { panic!("passed") };
    assert!(faults.to_string().contains("f32[4]"), "{faults}");
}

#[test]
fn steps_may_be_asked_for_at_the_call() {
    let (n, x) = (scalar::<i64>("n"), vector::<f32>("x"));
    let powers = Scan::new().carry(1.0).steps(&n).run(|step| Next::new().carry(&step.carries[0] * x.sum(0)));
    let request = Request {
        inputs: vec![n.clone(), x],
        outputs: vec![powers.carries[0].clone()],
        ..Request::default()
    };
    let graph = collect(&request).unwrap();
    let mut arguments = Arguments::default();
    arguments.shapes.insert(graph.inputs[1], [2].into_iter().collect());
    let Err(Unspecialised::Needs(needs)) = specialise(&graph, &arguments) else { panic!("nothing needed") };
    assert_eq!(needs, [graph.inputs[0]]);
    arguments.values.insert(graph.inputs[0], 3);
    let known = specialise(&graph, &arguments).unwrap();
    assert_eq!(known.ty(known.outputs[0]).to_string(), "f32[3]");
    arguments.values.insert(graph.inputs[0], -2);
    let Err(Unspecialised::Faults(faults)) = specialise(&graph, &arguments) else { panic!("passed") };
    assert!(faults.to_string().contains("a scan of -2 steps"), "{faults}");
}
