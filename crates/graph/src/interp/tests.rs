use smallvec::smallvec;

use super::*;
use crate::body::{Body, parameter};
use crate::leaf::fresh_leaf_id;
use crate::op::{Backward, known_dims};
use crate::shape::Extent;
use crate::tensor;
use crate::text::parse;

fn f32s(shape: &[usize], data: &[f32]) -> Array {
    Array::new(shape, data).unwrap()
}

fn input(graph: &mut Graph, ty: TensorType) -> NodeId {
    let leaf =
        Arc::new(Leaf { id: fresh_leaf_id(), name: Some("x".into()), ty, site: None, kind: LeafKind::Input });
    graph.inputs.push(leaf.id);
    graph.add_leaf(&leaf)
}

#[test]
fn sums_of_f32_are_rounded_once() {
    // 2^24 + 1 + 1: each addition of 1 alone would be lost in f32.
    let x = f32s(&[3], &[16_777_216.0, 1.0, 1.0]);
    let sum = evaluate_node(&Op::Reduce(Fold::Sum, Axes::one(0)), &[&x]).unwrap();
    assert_eq!(sum, Array::scalar(16_777_218.0f32));
    let ones = f32s(&[3, 1], &[1.0; 3]);
    let product = evaluate_node(&Op::Dot, &[&x.reshaped(&[1, 3]).unwrap(), &ones]).unwrap();
    assert_eq!(product, f32s(&[1, 1], &[16_777_218.0]));
}

#[test]
fn integers_wrap_in_sums_and_products() {
    let x = Array::vector(&[200u8, 100]);
    let sum = evaluate_node(&Op::Reduce(Fold::Sum, Axes::one(0)), &[&x]).unwrap();
    assert_eq!(sum, Array::scalar(44u8));
    let a = Array::new(&[1, 2], &[i32::MAX, 2]).unwrap();
    let b = Array::new(&[2, 1], &[2i32, 3]).unwrap();
    assert_eq!(evaluate_node(&Op::Dot, &[&a, &b]).unwrap(), Array::new(&[1, 1], &[4i32]).unwrap());
}

#[test]
fn a_nan_is_largest_smallest_and_first() {
    let x = f32s(&[4], &[1.0, f32::NAN, 7.0, f32::NAN]);
    for fold in [Fold::Max, Fold::Min] {
        let value = evaluate_node(&Op::Reduce(fold, Axes::one(0)), &[&x]).unwrap();
        assert!(value.item().unwrap().is_nan());
    }
    assert_eq!(evaluate_node(&Op::ArgMax(0), &[&x]).unwrap(), Array::scalar(1i64));
    let tied = f32s(&[3], &[1.0, 2.0, 2.0]);
    assert_eq!(evaluate_node(&Op::ArgMax(0), &[&tied]).unwrap(), Array::scalar(1i64));
}

#[test]
fn long_chains_run() {
    let mut graph = Graph::new();
    let mut id = input(&mut graph, TensorType::known(DType::F64, &[2]));
    let step = graph.add_uniform(Literal::F64(1.0f64.to_bits()), &[2], None);
    for _ in 0..200_000 {
        id = graph.add(Op::Map(ScalarFn::Add), &[id, step], None);
    }
    graph.outputs.push(id);
    let result = interpret(&graph, &[Array::vector(&[0.0f64, 1.0])]).unwrap();
    assert_eq!(result.outputs, [Array::vector(&[200_000.0f64, 200_001.0])]);
}

#[test]
fn unknown_extents_are_found_when_run() {
    let mut graph = Graph::new();
    let x = input(&mut graph, TensorType::new(DType::F32, &[Extent::Unknown]));
    let extent = graph.add(Op::Extent(0), &[x], None);
    let dims = Box::new([Dim::Known(2), Dim::Operand]);
    let tiled = graph.add(Op::Broadcast { axes: smallvec![1], dims }, &[x, extent], None);
    let last = SliceAxis::Range { start: Bound::Operand, stop: Bound::End, step: -1 };
    let two = graph.add(Op::Literal(Literal::I64(-2)), &[], None);
    let part = graph.add(Op::Slice(Box::new([SliceAxis::WHOLE, last])), &[tiled, two], None);
    graph.outputs.push(part);
    let result = interpret(&graph, &[f32s(&[3], &[1.0, 2.0, 3.0])]).unwrap();
    assert_eq!(result.outputs[0], f32s(&[2, 2], &[2.0, 1.0, 2.0, 1.0]));
}

#[test]
fn shared_variables_are_read_and_not_written() {
    let counter = tensor::shared("counter", 3i64);
    let mut graph = Graph::new();
    let id = graph.add_leaf(counter.leaf());
    let one = graph.add(Op::Literal(Literal::I64(1)), &[], None);
    let next = graph.add(Op::Map(ScalarFn::Add), &[id, one], None);
    graph.outputs.push(id);
    graph.updates.push((counter.leaf().id, next));
    let result = interpret(&graph, &[]).unwrap();
    assert_eq!(result.outputs, [Array::scalar(3i64)]);
    assert_eq!(result.updates, [(counter.leaf().id, Array::scalar(4i64))]);
    assert_eq!(counter.get_value().unwrap(), Array::scalar(3i64));
}

#[test]
fn inputs_are_checked() {
    let mut graph = Graph::new();
    let id = input(&mut graph, TensorType::new(DType::F32, &[Extent::Unknown, Extent::Known(2)]));
    graph.outputs.push(id);
    let message = |inputs: &[Array]| interpret(&graph, inputs).unwrap_err().to_string();
    assert_eq!(message(&[]), "error: 1 inputs are expected, 0 were given");
    assert_eq!(
        message(&[f32s(&[2, 3], &[0.0; 6])]),
        "error: input 0 (`x`) was given a value of another type\n  expected  f32[?, 2]\n  found     f32[2, 3]"
    );
}

/// `h = h + x`; the output is the next `h`, and the scan ends where that exceeds 5.
fn running_sum(until: bool, extent: Extent) -> Arc<Body> {
    let ty = TensorType::new(DType::F32, &[extent]);
    let (x, h) = (parameter(None, ty.clone(), LeafKind::Input), parameter(None, ty, LeafKind::Carry));
    let mut graph = Graph::new();
    graph.inputs.push(x.id);
    let (a, b) = (graph.add_leaf(&x), graph.add_leaf(&h));
    let next = graph.add(Op::Map(ScalarFn::Add), &[a, b], None);
    graph.outputs.push(next);
    graph.updates.push((h.id, next));
    if until {
        let five = graph.add(Op::Literal(Literal::from_f64(5.0, DType::F32)), &[], None);
        let largest = graph.add(Op::Reduce(Fold::Max, Axes::one(0)), &[next], None);
        let met = graph.add(Op::Map(ScalarFn::Gt), &[largest, five], None);
        graph.outputs.push(met);
    }
    Arc::new(Body::new(graph, 1, until))
}

const RESULTS: [ScanResult; 3] = [ScanResult::Rows(0), ScanResult::Last(0), ScanResult::Steps];

fn run_scan(body: &Arc<Body>, steps: Dim, operands: &[&Array]) -> Result<Vec<Array>, Diagnostic> {
    let all = RESULTS.map(|result| {
        let scan = Scan { body: body.clone(), steps, result, backward: Backward::default() };
        evaluate_node(&Op::Scan(Box::new(scan)), operands)
    });
    all.into_iter().collect()
}

#[test]
fn scans_run_step_by_step() {
    let xs = f32s(&[4, 2], &[1.0, 2.0, 3.0, 1.0, 2.0, 2.0, 9.0, 9.0]);
    let h = f32s(&[2], &[0.5, 0.0]);
    for extent in [Extent::Known(2), Extent::Unknown] {
        let found = run_scan(&running_sum(false, extent), Dim::Known(4), &[&xs, &h]).unwrap();
        assert_eq!(found[0], f32s(&[4, 2], &[1.5, 2.0, 4.5, 3.0, 6.5, 5.0, 15.5, 14.0]));
        assert_eq!(found[1..], [f32s(&[2], &[15.5, 14.0]), Array::scalar(4i64)]);
        // The third step meets the condition and is the last; its row is repeated.
        let found =
            run_scan(&running_sum(true, extent), Dim::Operand, &[&xs, &h, &Array::scalar(4i64)]).unwrap();
        assert_eq!(found[0], f32s(&[4, 2], &[1.5, 2.0, 4.5, 3.0, 6.5, 5.0, 6.5, 5.0]));
        assert_eq!(found[1..], [f32s(&[2], &[6.5, 5.0]), Array::scalar(3i64)]);
        let none = f32s(&[0, 2], &[]);
        let found = run_scan(&running_sum(true, extent), Dim::Known(0), &[&none, &h]).unwrap();
        assert_eq!(found, [none, h.clone(), Array::scalar(0i64)]);
    }
}

#[test]
fn scans_that_cannot_run_say_why() {
    let (xs, h) = (f32s(&[4, 2], &[0.0; 8]), f32s(&[2], &[0.0; 2]));
    let body = running_sum(true, Extent::Unknown);
    let message = |operands: &[&Array]| run_scan(&body, Dim::Operand, operands).unwrap_err().to_string();
    assert_eq!(
        message(&[&xs, &h, &Array::scalar(-1i64)]),
        "error: the number of steps of a scan is negative\n  expected  0 or more\n  found     -1"
    );
    assert!(message(&[&xs, &h, &Array::scalar(3i64)]).contains("another length than the scan has steps"));
    assert!(message(&[&h, &h, &Array::scalar(2i64)]).contains("another type than its body expects"));
    // The sum of `f32[2]` and `f32[3]` is ill typed when it is met.
    let wide = f32s(&[3], &[0.0; 3]);
    assert!(message(&[&xs, &wide, &Array::scalar(4i64)]).contains("operands of `add` differ in shape"));
}

#[test]
fn results_of_one_scan_are_made_together() {
    let mut graph = Graph::new();
    let xs = input(&mut graph, TensorType::known(DType::F32, &[3, 1]));
    let h = input(&mut graph, TensorType::known(DType::F32, &[1]));
    let body = running_sum(false, Extent::Known(1));
    for result in RESULTS {
        let scan = Scan { body: body.clone(), steps: Dim::Known(3), result, backward: Backward::default() };
        let id = graph.add(Op::Scan(Box::new(scan)), &[xs, h], None);
        graph.outputs.push(id);
    }
    let mut additions = 0;
    let mut count = |op: &Op, operands: &[&Array]| {
        additions += usize::from(*op == Op::Map(ScalarFn::Add));
        evaluate_node(op, operands)
    };
    let inputs = [f32s(&[3, 1], &[1.0, 2.0, 3.0]), f32s(&[1], &[0.0])];
    let found = interpret_with(&graph, &inputs, &mut count).unwrap().outputs;
    assert_eq!(found, [f32s(&[3, 1], &[1.0, 3.0, 6.0]), f32s(&[1], &[6.0]), Array::scalar(3i64)]);
    assert_eq!(additions, 3);
}

fn message(op: &Op, operands: &[&Array]) -> String {
    evaluate_node(op, operands).unwrap_err().to_string()
}

#[test]
fn what_is_out_of_range_is_said() {
    let x = f32s(&[3, 2], &[0.0; 6]);
    let indices = Array::vector(&[0i64, 3]);
    assert_eq!(
        message(&Op::Gather { batch: 0 }, &[&x, &indices]),
        "error: index 3 is out of range for axis 0 of extent 3\n  expected  -3 to 2\n  found     3\n  \
         at        [1] of the indices\n  operand   f32[3, 2]"
    );
    let window = WindowAxis { start: Start::Operand, len: 2, step: 1 };
    let op = Op::Window(Box::new([window, WindowAxis::whole(2)]));
    assert_eq!(
        message(&op, &[&x, &Array::scalar(2i64)]),
        "error: 2 elements from 2 on do not lie within axis 0 of extent 3\n  expected  -3 to 1\n  found     2\n  \
         operand   f32[3, 2]"
    );
    assert_eq!(
        message(&Op::Iota(Box::new([Dim::Operand])), &[&Array::scalar(-1i64)]),
        "error: an extent of `iota` is negative\n  expected  0 or more\n  found     -1"
    );
    let huge = Op::Broadcast { axes: smallvec![], dims: known_dims(&[usize::MAX, 2]) };
    assert!(message(&huge, &[&Array::scalar(1.0f32)]).contains("more elements than memory can hold"));
    assert!(message(&Op::Map(ScalarFn::Add), &[&x, &indices]).contains("not defined on these element types"));
}

/// The scan of a text, on inputs.
fn results(text: &str, inputs: &[Array]) -> Result<Vec<Array>, String> {
    let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
    interpret(&graph, inputs).map(|evaluation| evaluation.outputs).map_err(|e| e.to_string())
}

/// Fibonacci numbers: two carries that pass a value on, both read from before the step.
#[test]
fn carries_are_written_together() {
    let text = "\
        body b0 {\n\
          carry %a: i64[]\n\
          carry %b: i64[]\n\
          %0 = add(%a, %b)\n\
          row %a\n\
          next %a = %b\n\
          next %b = %0\n\
        }\n\
        input %n: i64[]\n\
        %0 = scan{body=b0, result=rows 0, steps=?}(0i64, 1i64, %n)\n\
        %1 = scan{body=b0, result=last 1, steps=?}(0i64, 1i64, %n)\n\
        output %0\n\
        output %1\n";
    let found = results(text, &[Array::scalar(10i64)]).unwrap();
    assert_eq!(found, [Array::vector(&[0i64, 1, 1, 2, 3, 5, 8, 13, 21, 34]), Array::scalar(89i64)]);
    assert_eq!(
        results(text, &[Array::scalar(0i64)]).unwrap(),
        [Array::vector::<i64>(&[]), Array::scalar(1i64)]
    );
}

/// Row `i` of the result is the sum of powers of `x[i]` with exponents 1 to `n`, by a scan in a scan.
#[test]
fn scans_nest() {
    let text = "\
        input %x: f64[?]\n\
        input %n: i64[]\n\
        body outer {\n\
          sequence %x: f64[]\n\
          captured %n: i64[]\n\
          body inner {\n\
            captured %x: f64[]\n\
            carry %power: f64[]\n\
            carry %sum: f64[]\n\
            %0 = mul(%power, %x)\n\
            %1 = add(%sum, %0)\n\
            next %power = %0\n\
            next %sum = %1\n\
          }\n\
          %0 = scan{body=inner, result=last 1, steps=?}(%x, 1.0f64, 0.0f64, %n)\n\
          row %0\n\
        }\n\
        %0 = extent{axis=0}(%x)\n\
        %1 = scan{body=outer, result=rows 0, steps=?}(%x, %n, %0)\n\
        output %1\n";
    let found = results(text, &[Array::vector(&[1.0f64, 2.0, -1.0]), Array::scalar(4i64)]).unwrap();
    assert_eq!(found, [Array::vector(&[4.0f64, 30.0, 0.0])]);
}

#[test]
fn only_what_is_wanted_is_computed() {
    // The row of the gather would be out of range; the carry that counts is needed for the condition.
    let text = "\
        body b0 {\n\
          captured %x: f32[2]\n\
          carry %i: i64[1]\n\
          %0 = add(%i, %1)\n\
          row %2\n\
          row %0\n\
          until %4\n\
          next %i = %0\n\
        }\n"
        .replace("%0 = add(%i, %1)", "%1 = broadcast{axes=[], dims=[1]}(1i64)\n%0 = add(%i, %1)\n%2 = gather{batch=0}(%x, %0)\n%3 = max{axes=[0]}(%0)\n%4 = ge(%3, 5i64)");
    let scans = |wanted: &str| {
        text.clone()
            + "input %x: f32[2]\ninput %i: i64[1]\n%0 = scan{body=b0, result="
            + wanted
            + ", steps=7}(%x, %i)\noutput %0\n"
    };
    let inputs = [f32s(&[2], &[0.0; 2]), Array::vector(&[0i64])];
    assert_eq!(results(&scans("steps"), &inputs).unwrap(), [Array::scalar(5i64)]);
    let rows = results(&scans("rows 1"), &inputs).unwrap();
    assert_eq!(rows, [Array::new(&[7, 1], &[1i64, 2, 3, 4, 5, 5, 5]).unwrap()]);
    let message = results(&scans("rows 0"), &inputs).unwrap_err();
    assert!(message.contains("is out of range for axis"), "{message}");
}

#[test]
fn shapes_stay_from_step_to_step() {
    let text = |row: &str, next: &str| {
        format!(
            "body b0 {{\n\
               sequence %n: i64[]\n\
               carry %h: f32[?]\n\
               %0 = iota{{dims=[?]}}(%n)\n\
               %1 = concat{{axis=0}}(%h, %h)\n\
               row {row}\n\
               next %h = {next}\n\
             }}\n\
             input %n: i64[3]\n\
             input %h: f32[?]\n\
             %0 = scan{{body=b0, result=rows 0, steps=3}}(%n, %h)\n\
             %1 = scan{{body=b0, result=last 0, steps=3}}(%n, %h)\n\
             output %0\n\
             output %1\n"
        )
    };
    let inputs = [Array::vector(&[2i64, 2, 3]), f32s(&[2], &[1.0, 2.0])];
    assert_eq!(
        results(&text("%0", "%h"), &inputs).unwrap_err(),
        "error: output 0 of a scan changes its shape from step to step\n  before  i64[2]\n  step 2  i64[3]"
    );
    assert_eq!(
        results(&text("%n", "%1"), &inputs).unwrap_err(),
        "error: the next value of `h` of a scan has another type than the one before\n  \
         expected  f32[2]\n  found     f32[4]"
    );
    assert!(results(&text("%n", "%h"), &inputs).is_ok());
}

/// The extents of rows that no step made are those that a step would give.
#[test]
fn rows_of_no_step_have_their_extents() {
    let text = "\
        body b0 {\n\
          sequence %x: f32[?]\n\
          captured %n: i64[]\n\
          %0 = broadcast{axes=[1], dims=[?, ?]}(%x, %n, %1)\n\
          row %0\n\
        }\n\
        input %x: f32[?, ?]\n\
        input %n: i64[]\n\
        %0 = scan{body=b0, result=rows 0, steps=?}(%x, %n, 0i64)\n\
        output %0\n"
        .replace("%0 = broadcast", "%1 = extent{axis=0}(%x)\n%0 = broadcast");
    let found = results(&text, &[f32s(&[0, 3], &[]), Array::scalar(2i64)]).unwrap();
    assert_eq!(found, [f32s(&[0, 2, 3], &[])]);
}

/// Whether two arrays have the same type and elements, floats within a relative error; a NaN equals a NaN of any bits.
fn agrees(found: &Array, expected: &Array, tolerance: f64) -> bool {
    let same = |position: usize| {
        let (x, y) = (found.get(position), expected.get(position));
        let (a, b) = (x.to_f64(), y.to_f64());
        x == y || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * b.abs()
    };
    type_of(found) == type_of(expected) && (0..found.len()).all(same)
}

/// NumPy's values; `reference.txt` is written by `tests/reference/interpreter.py`.
#[test]
fn operators_agree_with_numpy() {
    let text = include_str!("reference.txt");
    let mut cases = 0;
    for case in text.split("== ").skip(1) {
        let (title, lines) = case.split_once('\n').unwrap();
        let (expected, graph): (Vec<&str>, Vec<&str>) =
            lines.lines().partition(|line| line.starts_with("= "));
        let graph = parse(&graph.join("\n")).unwrap_or_else(|e| panic!("{title}\n{e}"));
        let found = interpret(&graph, &[]).unwrap_or_else(|e| panic!("{title}\n{e}")).outputs;
        assert_eq!(found.len(), expected.len(), "{title}");
        let tolerance = if title.ends_with('~') { 4.0 * f64::EPSILON } else { 0.0 };
        for (position, (found, line)) in found.iter().zip(expected).enumerate() {
            let expected = parse(&format!("{}\noutput %0", &line[2..])).unwrap();
            let expected = interpret(&expected, &[]).unwrap().outputs.remove(0);
            assert!(
                agrees(found, &expected, tolerance),
                "{title}, output {position}\nfound    {found:?}\nexpected {expected:?}\n{graph}"
            );
        }
        cases += 1;
    }
    assert!(cases > 150, "{cases} cases");
}
