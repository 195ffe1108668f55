use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::array::Extents;
use crate::differentiate::differentiate;
use crate::leaf::{Leaf, fresh_leaf_id};
use crate::op::{Border, ConvAxis, Dims, Fold, Grad, Write};
use crate::scalar::ScalarFn;
use crate::shape::{Axes, Extent, TensorType};
use crate::specialise::{Arguments, specialise};
use crate::tensor;
use crate::verify::{Stage, verify};

fn reprinted(text: &str) -> String {
    match parse(text) {
        Ok(graph) => graph.to_string(),
        Err(error) => panic!("{error}"),
    }
}

/// One use of every operator and attribute, as it is printed.
const EVERY_OPERATOR: &str = "\
input %x: f32[600, 784]
input %n: i64[]
input %\"1\": f32[?, 3]
shared %W: f32[784, 10]
shared %W.1: f64[2]
constant %0: f32[2, 3] = [1.0, -2.5, inf, nan, nan(0x7fc00001), -0.0]
constant %k: i64[2] = [-9223372036854775808, 9223372036854775807]
constant %b: bool[2] = [true, false]
constant %e: f64[0] = []
%1 = dot(%x, %W) : f32[600, 10]
%2 = sum{axes=[1]}(%1) : f32[600]
%3 = broadcast{axes=[0], dims=[600, 10]}(%2) : f32[600, 10]
%4 = broadcast{axes=[0], dims=[600, ?]}(%2, %n) : f32[600, ?]
%5 = iota{dims=[5]}() : i64[5]
%6 = iota{dims=[?]}(7i64) : i64[?]
%7 = extent{axis=0}(%\"1\") : i64[]
%8 = cast{dtype=f64}(%1) : f64[600, 10]
%9 = max{axes=[0, 1]}(%1) : f32[]
%10 = argmax{axis=1}(%1) : i64[600]
%11 = reshape{dims=[10, ?]}(%1, 600i64) : f32[10, ?]
%12 = permute{axes=[1, 0]}(%1) : f32[10, 600]
%13 = slice{ranges=[1:?, ::-1]}(%1, %n) : f32[?, 10]
%14 = slice{ranges=[:, ?:-2:3]}(%1, -8i64) : f32[600, ?]
%15 = set_slice{ranges=[:, :]}(%1, %3) : f32[600, 10]
%16 = inc_slice{ranges=[:600, 0:]}(%1, %3) : f32[600, 10]
%17 = window{starts=[0, ?], lengths=[2, 3]}(%1, %n) : f32[2, 3]
%18 = window{starts=[5, 0], lengths=[2, 3], steps=[-1, 4]}(%1) : f32[2, 3]
%19 = set_window{starts=[0, ?], lengths=[2, 3]}(%1, %18, %n) : f32[600, 10]
%20 = inc_window{starts=[1, 2], lengths=[2, 3]}(%1, %17) : f32[600, 10]
%21 = concat{axis=0}(%1, %3, %1) : f32[1800, 10]
%22 = gather{batch=0}(%1, %k) : f32[2, 10]
%23 = scatter{batch=0}(%1, %k, %22) : f32[600, 10]
%24 = scatter_add{batch=0}(%1, %k, %22) : f32[600, 10]
%hidden = tanh(%1) : f32[600, 10]
%25 = stop_gradient(%hidden) : f32[600, 10]
%26 = grad{index=0, variables=1, known=0, constants=1, cost=true, disconnected=raise}(%9, %W, %25) : f32[784, 10]
%27 = grad{index=1, variables=2, known=1, constants=0, cost=false, disconnected=zero}(%x, %W, %1, %3) : f32[784, 10]
%28 = add(%9, 2.0f32) : f32[]
%29 = mul(%28, -1e-7f32) : f32[]
%30 = minimum(%29, -inf_f32) : f32[]
%31 = maximum(%30, nan_f32) : f32[]
%32 = switch(true, nan_f32(0xffc00000), %31) : f32[]
%rate = 0.1f32
%33 = mul(%32, %rate) : f32[]
%34 = any{axes=[0]}(%b) : bool[]
%35 = all{axes=[]}(%b) : bool[2]
%36 = add(3u8, 4u8) : u8[]
%37 = add(3i32, -4i32) : i32[]
%\"two words\" = prod{axes=[0]}(%2) : f32[]
output %33
output 2.5f64
output %33
update %W = %26
update %W.1 = %W.1
";

#[test]
fn every_operator_returns_as_it_was() {
    assert_eq!(reprinted(EVERY_OPERATOR), EVERY_OPERATOR);
    let names: Vec<&str> = EVERY_OPERATOR.split([' ', '{', '(', '\n']).collect();
    for fold in Fold::ALL.into_iter().filter(|fold| *fold != Fold::Min) {
        assert!(names.contains(&fold.name()), "{}", fold.name());
    }
}

/// Scans with every attribute, one in another, and a body used by two scans.
const LOOPS: &str = "\
input %xs: f32[5, 3]
input %w: f32[3, 3]
input %n: i64[]
input %w.1: f32[3]
shared %count: i64[]
shared %h: f32[]
body b0 {
  sequence %x: f32[3]
  captured %w: f32[3, 3]
  carry %h: f32[3]
  carry %count: i64[]
  constant %0: f32[3] = [1.0, 2.0, 3.0]
  %1 = add(%x, %h) : f32[3]
  %2 = reshape{dims=[1, 3]}(%1) : f32[1, 3]
  body b1 {
    captured %w: f32[3, 3]
    carry %v: f32[1, 3]
    %0 = dot(%v, %w) : f32[1, 3]
    next %v = %0
    updates %h
  }
  %3 = scan{body=b1, result=last 0, steps=4}(%w, %2) : f32[1, 3]
  %\"next state\" = reshape{dims=[3]}(%3) : f32[3]
  %4 = mul(%\"next state\", %0) : f32[3]
  %5 = add(%count, 1i64) : i64[]
  %6 = ge(%5, 4i64) : bool[]
  row %\"next state\"
  row %count
  row 2.5f64
  until %6
  next %h = %4
  next %count = %5
  updates %count
  updates %h
}
%0 = scan{body=b0, result=rows 0, steps=5}(%xs, %w, %w.1, 0i64) : f32[5, 3]
%1 = scan{body=b0, result=last 1, steps=5, truncate=2}(%xs, %w, %w.1, 0i64) : i64[]
%2 = scan{body=b0, result=steps, steps=5, checkpointed=true}(%xs, %w, %w.1, 0i64) : i64[]
%3 = scan{body=b0, result=rows 2, steps=5, truncate=0, checkpointed=true}(%xs, %w, %w.1, 0i64) : f64[5]
body b2 {
  captured %x: f32[?]
  %0 = exp(%x) : f32[?]
  row %0
}
%4 = scan{body=b2, result=rows 0, steps=?}(%w.1, %n) : f32[?, ?]
output %0
output %1
output %4
update %count = %1
";

#[test]
fn scans_return_as_they_were() {
    assert_eq!(reprinted(LOOPS), LOOPS);
    let graph = parse(LOOPS).unwrap();
    verify(&graph, Stage::Collected).unwrap();
    let bodies: BTreeSet<Arc<Body>> = graph
        .nodes()
        .filter_map(|(_, node)| if let Op::Scan(scan) = &node.op { Some(scan.body.clone()) } else { None })
        .collect();
    assert_eq!(bodies.len(), 2);
    // The carries of these names are others.
    let ids = |body: &Body| -> Vec<LeafId> { body.updated.iter().map(|leaf| leaf.id).collect() };
    let shared: Vec<LeafId> = (graph.leaves())
        .filter(|leaf| matches!(leaf.kind, LeafKind::Shared(_)))
        .map(|leaf| leaf.id)
        .collect();
    let updated: Vec<Vec<LeafId>> = bodies.iter().map(|body| ids(body)).collect();
    assert_eq!(updated, [shared.clone(), vec![]]);
    let inner = bodies.iter().flat_map(|body| body.graph.nodes()).find_map(|(_, node)| match &node.op {
        Op::Scan(scan) => Some(scan.body.clone()),
        _ => None,
    });
    assert_eq!(ids(&inner.unwrap()), [shared[1]]);
}

/// A variable that only a scan names has a line all the same.
#[test]
fn variables_that_only_scans_update_return() {
    let text = "\
shared %w: f32[2]
body b0 {
  carry %w: f32[2]
  next %w = %w
  updates %w
}
%0 = scan{body=b0, result=last 0, steps=3}(%w) : f32[2]
output %0
";
    let graph = parse(text).unwrap();
    let shared = graph.leaves().next().unwrap().clone();
    let Op::Scan(scan) = &graph.nodes().last().unwrap().1.op else { panic!("{graph}") };
    let scan = scan.clone();
    let mut other = Graph::new();
    let start = other.add_uniform(Literal::from_f64(1.0, DType::F32), &[2], None);
    let last = other.add(Op::Scan(scan), &[start], None);
    other.outputs.push(last);
    assert!(other.leaf(shared.id).is_none());
    let text = other.to_string();
    assert!(text.starts_with("shared %w: f32[2]\n"), "{text}");
    assert_eq!(reprinted(&text), text);
}

#[test]
fn every_function_returns_as_it_was() {
    for f in ScalarFn::ALL {
        let dtype = DType::ALL.into_iter().rev().find_map(|dtype| {
            let mut dtypes = vec![dtype; f.arity()];
            if *f == ScalarFn::Select {
                dtypes[0] = DType::Bool;
            }
            f.result_dtype(&dtypes).map(|result| (dtypes, result))
        });
        let (dtypes, result) = dtype.unwrap();
        let mut text = String::new();
        for (position, dtype) in dtypes.iter().enumerate() {
            text += &format!("input %x{position}: {dtype}[?]\n");
        }
        let operands: Vec<String> = (0..f.arity()).map(|position| format!("%x{position}")).collect();
        text += &format!("%0 = {f}({}) : {result}[?]\noutput %0\n", operands.join(", "));
        assert_eq!(reprinted(&text), text);
    }
}

#[test]
fn equal_names_are_told_apart() {
    let mut graph = Graph::new();
    for name in ["x", "x", "x.1", "7", "a b", ""] {
        let ty = TensorType::scalar(DType::F32);
        let leaf =
            Leaf { id: fresh_leaf_id(), name: Some(name.into()), ty, site: None, kind: LeafKind::Input };
        graph.add_leaf(&Arc::new(leaf));
        graph.inputs.push(graph.leaves().last().unwrap().id);
    }
    let text = graph.to_string();
    let names: Vec<&str> = text.lines().map(|line| line.trim_start_matches("input ")).collect();
    let expected = ["%x", "%x.1", "%x.1.1", "%\"7\"", "%\"a b\"", "%\"\""];
    assert_eq!(names, expected.map(|name| format!("{name}: f32[]")));
    assert_eq!(reprinted(&text), text);
}

#[test]
fn spaces_comments_and_types_are_free() {
    let text = "  # a comment\n\ninput %x:f32[ 2 ,\n 3 ] # another\n%y=exp( %x )\noutput %y";
    assert_eq!(reprinted(text), "input %x: f32[2, 3]\n%y = exp(%x) : f32[2, 3]\noutput %y\n");
}

#[test]
fn shared_variables_are_read_as_zeros() {
    let w = tensor::shared("W", Array::vector(&[1.0f32, 2.0]));
    let mut graph = Graph::new();
    let id = graph.add_leaf(w.leaf());
    graph.outputs.push(id);
    let read = parse(&graph.to_string()).unwrap();
    let LeafKind::Shared(cell) = &read.leaves().next().unwrap().kind else { panic!("not shared") };
    assert_eq!(cell.lock().host, Array::zeros(DType::F32, &[2]).unwrap());
}

#[test]
fn large_constants_are_cut_on_demand() {
    let mut graph = Graph::new();
    let value = tensor::constant(Array::new(&[20], &[1u8; 20]).unwrap());
    graph.add_leaf(value.leaf().unwrap());
    assert!(format!("{graph:#}").ends_with("1, 1, ...]\n"));
    assert_eq!(reprinted(&graph.to_string()), graph.to_string());
}

#[test]
fn errors_point_at_the_text() {
    let cases = [
        ("input %x: f32[2\noutput %x", "2:1: expected `,` or `]`, found `output`"),
        ("output %y", "1:8: expected a name that a line above defines, found the unknown `%y`"),
        ("input %x: f16[]", "1:11: expected an element type"),
        ("input %x: f32[]\ninput %x: f32[]", "2:7: expected a new name, found the name that line 1 defines"),
        ("input %x: f32[]\n%0 = expo(%x)", "2:6: expected an operator or a literal, found `expo`"),
        ("input %x: f32[2]\n%0 = sum{axis=0}(%x)", "2:10: expected the attribute `axes`, found `axis`"),
        (
            "input %x: f32[2]\n%0 = exp(%x) : f32[3]",
            "2:16: expected `f32[2]`, the type of this node, found `f32[3]`",
        ),
        (
            "input %x: f32[2]\ninput %y: f32[3]\n%0 = add(%x, %y)",
            "3:6: expected operands that `add` takes, found that operands of `add` differ in shape",
        ),
        (
            "%0 = add(1.0f32, 2)",
            "1:18: expected a literal with its element type, such as `2.0f32`, found `2`",
        ),
        ("constant %c: f32[3] = [1, 2]", "1:23: expected 3 elements, found 2"),
        ("constant %c: u8[1] = [256]", "1:23: expected an element of type u8, found `256`"),
        ("shared %w: f32[?]", "1:12: expected a type with known extents, found `f32[?]`"),
        ("shared %w: f32[281474976710656]", "1:12: expected a value that fits in memory"),
        ("input %x: f32[99999999, 99999999999]", "1:14: expected extents of a tensor that fits in memory"),
        ("input %x: f32[]\n%y = exp(%x)\nupdate %y = %x", "3:8: expected the name of a shared variable"),
        ("input %x: f32[] extra", "1:17: expected the end of the line, found `extra`"),
        (
            "input %\"x: f32[]",
            "1:7: expected a name, a number or an operator, found a name without its closing quote",
        ),
        ("input %x: f32[] ~", "1:17: expected a name, a number or an operator, found `~`"),
        ("body {", "1:6: expected the name of a body, such as `b0`, found `{`"),
        (
            "body b {\n}\nbody b {\n}",
            "3:6: expected a new name, found the name of the body that ends in line 2",
        ),
        ("body b {\n input %x: f32[]\n}", "2:2: expected `sequence`, `captured`, `carry`"),
        ("body b {\n row 1i64\n", "2:10: expected `sequence`, `captured`, `carry`"),
        (
            "body b {\n captured %x: f32[]\n sequence %y: f32[]\n}",
            "3:2: expected sequences before captured values",
        ),
        ("body b {\n until 1i64\n}", "2:8: expected a condition of type `bool[]`, found `i64[]`"),
        ("body b {\n until true\n until true\n}", "3:2: expected one condition, found a second one"),
        (
            "body b {\n captured %x: f32[]\n %y = exp(%x)\n next %y = %x\n}",
            "4:7: expected the name of a carry",
        ),
        ("input %x: f32[]\nbody b {\n row %x\n}", "3:6: expected a name that a line above defines"),
        (
            "shared %x: f32[]\nbody b {\n carry %h: f32[]\n updates %h\n}",
            "4:10: expected the name of a shared variable of the function, found `%h`",
        ),
        (
            "%0 = grad{index=0, variables=1, known=0, constants=0, cost=true, disconnected=raise}(1.0f32, 2i64)",
            "1:6: expected operands that `grad` takes, found that a gradient is taken with respect to float variables",
        ),
        (
            "input %x: f32[2]\n\
             %0 = grad{index=0, variables=1, known=1, constants=0, cost=false, disconnected=raise}(%x, %x, 2.0f32)",
            "2:6: expected operands that `grad` takes, found that a known cotangent has another type than its",
        ),
        ("updates %h", "1:1: expected `input`, `shared`, `constant`, `body`"),
        ("%0 = scan{body=b, result=steps, steps=1}()", "1:16: expected the name of a body that stands above"),
        (
            "body b {\n}\n%0 = scan{body=b, result=first, steps=1}()",
            "3:26: expected `rows` or `last` or `steps`",
        ),
        (
            "body b {\n}\n%0 = scan{body=b, result=steps, steps=1, often=true}()",
            "3:42: expected the attribute",
        ),
        (
            "body b {\n}\n%0 = scan{body=b, result=rows 0, steps=1}()",
            "3:6: expected operands that `scan` takes, found that `scan` names a result that its body does not give",
        ),
        (
            "body b {\n sequence %x: f32[]\n}\ninput %x: f32[3]\n%0 = scan{body=b, result=steps, steps=2}(%x)",
            "5:6: expected operands that `scan` takes, found that a sequence of a scan has another length",
        ),
        ("}", "1:1: expected `input`, `shared`, `constant`, `body`"),
        ("output 1i64 }", "1:13: expected the end of the line, found `}`"),
    ];
    for (text, expected) in cases {
        let error = parse(text).unwrap_err();
        let found =
            format!("{}:{}: expected {}, found {}", error.line, error.column, error.expected, error.found);
        assert!(found.starts_with(expected), "{text:?}\n{found}\n{expected}");
    }
    assert_eq!(
        parse("input %x: f32[]\noutput %xx").unwrap_err().to_string(),
        "error: expected a name that a line above defines, found the unknown `%xx`\n\
         2 | output %xx\n  \
           |        ^"
    );
}

#[test]
fn scans_nest_so_far() {
    let nested = |depth: usize| {
        let open: String = (0..depth).map(|level| format!("body b{level} {{\n")).collect();
        open + &"}\n".repeat(depth)
    };
    assert!(parse(&nested(16)).is_ok());
    assert_eq!(parse(&nested(17)).unwrap_err().expected, "at most 16 scans in each other");
    assert!(parse(&nested(100_000)).is_err());
}

/// An operator that may or may not fit what it will be applied to.
fn any_op() -> impl Strategy<Value = Op> {
    let axis = 0u8..4;
    let write = prop_oneof![Just(Write::Set), Just(Write::Add)];
    let dim = prop_oneof![(0usize..5).prop_map(Dim::Known), Just(Dim::Operand)];
    let dims = proptest::collection::vec(dim, 0..4).prop_map(Dims::from);
    let bound = prop_oneof![Just(Bound::End), (-5i64..5).prop_map(Bound::Known), Just(Bound::Operand)];
    let at = prop_oneof![(-5i64..5).prop_map(Bound::Known), Just(Bound::Operand)];
    let slice = prop_oneof![
        at.prop_map(SliceAxis::At),
        (0usize..3, 0usize..5, 0usize..5).prop_map(|(start, stop, of)| SliceAxis::Part { start, stop, of }),
        (bound.clone(), bound, -3i64..4).prop_map(|(start, stop, step)| SliceAxis::Range {
            start,
            stop,
            step
        }),
    ];
    let slices = proptest::collection::vec(slice, 0..4).prop_map(Box::from);
    let start = prop_oneof![(0usize..4).prop_map(Start::Known), Just(Start::Operand), Just(Start::Range)];
    let window = (start, 0usize..3, -2i64..3).prop_map(|(start, len, step)| WindowAxis { start, len, step });
    let windows = proptest::collection::vec(window, 0..4).prop_map(Box::from);
    let border = prop_oneof![
        Just(Border::Half),
        Just(Border::Full),
        (-2i64..3, -2i64..3).prop_map(|(low, high)| Border::Padded(low, high)),
    ];
    let conv = (border, 0usize..3, 0usize..3, 0usize..3)
        .prop_map(|(border, stride, spread, dilation)| ConvAxis { border, stride, spread, dilation });
    let grad = (0u16..2, 1u16..3, 0u16..2, 0u16..2, any::<bool>(), any::<bool>());
    prop_oneof![
        any_literal().prop_map(Op::Literal),
        dims.clone().prop_map(Op::Iota),
        proptest::sample::select(ScalarFn::ALL).prop_map(Op::Map),
        proptest::sample::select(&DType::ALL).prop_map(Op::Cast),
        (proptest::sample::select(&Fold::ALL), 0usize..16)
            .prop_map(|(fold, set)| Op::Reduce(fold, (0..4).filter(|i| set >> i & 1 == 1).collect::<Axes>())),
        (proptest::sample::select(&Op::ALONG_AN_AXIS), axis).prop_map(|(along, axis)| along(axis)),
        Just(Op::Dot),
        proptest::collection::vec(conv, 0..3).prop_map(|axes| Op::Conv(axes.into())),
        (proptest::collection::vec(0u8..4, 0..4), dims.clone())
            .prop_map(|(axes, dims)| Op::Broadcast { axes: axes.into(), dims }),
        dims.prop_map(Op::Reshape),
        proptest::collection::vec(0u8..3, 0..4).prop_map(|axes| Op::Permute(axes.into())),
        slices.clone().prop_map(Op::Slice),
        (slices, write.clone()).prop_map(|(axes, write)| Op::SetSlice(axes, write)),
        windows.clone().prop_map(Op::Window),
        (windows, write.clone()).prop_map(|(axes, write)| Op::SetWindow(axes, write)),
        (0u8..2).prop_map(|batch| Op::Gather { batch }),
        (0u8..2, write).prop_map(|(batch, write)| Op::Scatter { batch, write }),
        Just(Op::StopGradient),
        grad.prop_map(|(index, variables, known, constants, has_cost, zero)| {
            let disconnected = if zero { Disconnected::Zero } else { Disconnected::Raise };
            Op::Grad(Box::new(Grad { index, variables, known, constants, has_cost, disconnected }))
        }),
    ]
}

fn any_literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        any::<bool>().prop_map(Literal::Bool),
        any::<u8>().prop_map(Literal::U8),
        any::<i32>().prop_map(Literal::I32),
        any::<i64>().prop_map(Literal::I64),
        any::<u32>().prop_map(Literal::F32),
        any::<u64>().prop_map(Literal::F64),
    ]
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    let extents = proptest::collection::vec(prop_oneof![0usize..5, Just(1)], 0..4);
    let name = proptest::option::of("[xyz]{1,2}|\\PC{0,3}|[0-9]");
    (proptest::sample::select(&DType::ALL), extents, name, 0..4, any::<u64>()).prop_map(
        |(dtype, mut shape, name, kind, seed)| {
            // A constant of rank 0 would be a literal.
            let kind = if shape.is_empty() { kind % 3 } else { kind };
            let mut ty = TensorType::known(dtype, &shape);
            let kind = match kind {
                0 => LeafKind::Input,
                1 => {
                    ty.shape.iter_mut().step_by(2).for_each(|extent| *extent = Extent::Unknown);
                    LeafKind::Input
                }
                2 => LeafKind::Shared(Arc::new(crate::leaf::SharedCell::new(
                    Array::zeros(dtype, &shape).unwrap(),
                ))),
                _ => {
                    shape.truncate(4);
                    let mut value = Array::zeros(dtype, &shape).unwrap();
                    for (position, byte) in value.bytes_mut().iter_mut().enumerate() {
                        let random = (seed >> (position % 8 * 8)) as u8;
                        *byte = if dtype == DType::Bool { random & 1 } else { random };
                    }
                    LeafKind::Constant(Arc::new(value))
                }
            };
            let name = name.map(|name| name.as_str().into());
            Leaf { id: fresh_leaf_id(), name, ty, site: None, kind }
        },
    )
}

/// What a graph, or the body of a scan, is made of.
#[derive(Debug)]
struct Level {
    leaves: Vec<Leaf>,
    steps: Vec<(Op, [u32; 6], Option<String>)>,
    roots: [u32; 8],
}

fn any_level(steps: usize) -> impl Strategy<Value = Level> {
    let name = proptest::option::of("[xyz%\"\\\\]{1,2}");
    let step = (any_op(), any::<[u32; 6]>(), name);
    let leaves = proptest::collection::vec(any_leaf(), 1..5);
    (leaves, proptest::collection::vec(step, 0..steps), any::<[u32; 8]>())
        .prop_map(|(leaves, steps, roots)| Level { leaves, steps, roots })
}

/// Random operators on random nodes, those kept that the typing rules accept.
fn add_steps(graph: &mut Graph, steps: &[(Op, [u32; 6], Option<String>)]) {
    let zero = graph.add(Op::Literal(Literal::I64(0)), &[], None);
    for (op, choices, name) in steps {
        for count in 0..=6 {
            let mut operands: Vec<NodeId> =
                choices[..count].iter().map(|&n| NodeId(n % graph.len() as u32)).collect();
            // Bounds and extents are seldom met by chance.
            for scalar in operands.iter_mut().skip(2) {
                *scalar = zero;
            }
            let inferred = {
                let types: Vec<&TensorType> = operands.iter().map(|id| graph.ty(*id)).collect();
                crate::infer::infer(op, &types)
            };
            if inferred.is_ok_and(|ty| ty.element_count().unwrap_or(0) < 1000) {
                let id = graph.add(op.clone(), &operands, None);
                if let Some(name) = name {
                    graph.set_name(id, name.as_str().into());
                }
            }
        }
    }
}

/// All results of a scan with that body, on new inputs of the graph.
fn add_scan(graph: &mut Graph, body: &Arc<Body>, roots: &[u32; 8]) {
    let length = roots[0] as usize % 4;
    let mut operands: Vec<NodeId> = Vec::new();
    for (position, id) in body.parameters().enumerate() {
        let leaf = body.graph.leaf(id).unwrap();
        let mut ty = leaf.ty.clone();
        if position < body.sequences {
            ty.shape.insert(0, Extent::Known(length));
        }
        let leaf =
            Leaf { id: fresh_leaf_id(), name: leaf.name.clone(), ty, site: None, kind: LeafKind::Input };
        graph.inputs.push(leaf.id);
        operands.push(graph.add_leaf(&Arc::new(leaf)));
    }
    let mut steps = Dim::Known(length);
    if roots[1].is_multiple_of(2) {
        steps = Dim::Operand;
        operands.push(graph.add(Op::Literal(Literal::I64(length as i64)), &[], None));
    }
    let backward = crate::op::Backward {
        truncate: (roots[2].is_multiple_of(2)).then_some(roots[2] % 5),
        checkpointed: roots[3].is_multiple_of(2),
    };
    let rows = (0..body.rows().len()).map(|row| ScanResult::Rows(row as u16));
    let carries = (0..body.carries()).map(|carry| ScanResult::Last(carry as u16));
    for result in rows.chain(carries).chain([ScanResult::Steps]) {
        let scan = Scan { body: body.clone(), steps, result, backward };
        graph.add(Op::Scan(Box::new(scan)), &operands, None);
    }
}

/// A body with sequences, captured values, carries in the place of shared variables, and perhaps a condition and some of
/// the function's shared variables to update.
fn body_of(level: Level, inner: Option<&Arc<Body>>, shared: &[Arc<Leaf>]) -> Arc<Body> {
    let mut graph = Graph::new();
    let mut carries = Vec::new();
    for mut leaf in level.leaves {
        if let LeafKind::Shared(_) = leaf.kind {
            leaf.kind = LeafKind::Carry;
        }
        let leaf = Arc::new(leaf);
        let id = graph.add_leaf(&leaf);
        match leaf.kind {
            LeafKind::Input => graph.inputs.push(leaf.id),
            LeafKind::Carry => carries.push((leaf.id, id)),
            LeafKind::Shared(_) | LeafKind::Constant(_) => {}
        }
    }
    let sequences = level.roots[7] as usize % (graph.inputs.len() + 1);
    if let Some(inner) = inner {
        add_scan(&mut graph, inner, &level.roots);
    }
    add_steps(&mut graph, &level.steps);
    let len = graph.len() as u32;
    // Rows have one axis more in the stack.
    let rows = level.roots[..3].iter().map(|n| NodeId(n % len)).filter(|id| graph.ty(*id).rank() < 6);
    let mut outputs: Vec<NodeId> = rows.collect();
    let condition = graph.nodes().rev().find(|(_, node)| node.ty == TensorType::scalar(DType::Bool));
    let until = condition.filter(|_| !level.roots[3].is_multiple_of(3)).map(|(id, _)| id);
    outputs.extend(until);
    graph.outputs = outputs;
    graph.updates = carries
        .into_iter()
        .map(|(leaf, before)| {
            let next = graph.nodes().rev().find(|(_, node)| node.ty == *graph.ty(before));
            (leaf, next.map_or(before, |(id, _)| id))
        })
        .collect();
    let mut body = Body::new(graph, sequences, until.is_some());
    body.updated = shared.iter().skip(level.roots[4] as usize % 3).cloned().collect();
    Arc::new(body)
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
    /// Random well-typed graphs, some with scans of random bodies, some of which hold scans.
    #[test]
    fn graphs_return_as_they_were(level in any_level(200), bodies in proptest::collection::vec(any_level(40), 0..3)) {
        let leaves: Vec<Arc<Leaf>> = level.leaves.into_iter().map(Arc::new).collect();
        let is_shared = |leaf: &&Arc<Leaf>| matches!(leaf.kind, LeafKind::Shared(_));
        let shared: Vec<Arc<Leaf>> = leaves.iter().filter(is_shared).cloned().collect();
        let body = bodies.into_iter().fold(None, |inner, level| Some(body_of(level, inner.as_ref(), &shared)));
        let mut graph = Graph::new();
        for leaf in leaves {
            graph.add_leaf(&leaf);
            if let LeafKind::Input = leaf.kind {
                graph.inputs.push(leaf.id);
            }
        }
        if let Some(body) = &body {
            add_scan(&mut graph, body, &level.roots);
        }
        add_steps(&mut graph, &level.steps);
        let roots = level.roots;
        graph.outputs.extend(roots.map(|n| NodeId(n % graph.len() as u32)));
        let shared = graph.leaves().find(|leaf| matches!(leaf.kind, LeafKind::Shared(_))).map(|leaf| leaf.id);
        graph.updates.extend(shared.map(|id| (id, NodeId(roots[0] % graph.len() as u32))));
        graph.check().map_err(|e| TestCaseError::fail(e.to_string()))?;
        let text = graph.to_string();
        prop_assert_eq!(reprinted(&text), text);
        // Run, they give values of their types, which the interpreter checks, or a message; never a panic.
        let mut arguments = Arguments::default();
        let mut inputs = Vec::new();
        for leaf in graph.inputs.iter().filter_map(|id| graph.leaf(*id)) {
            let shape: Extents = leaf.ty.shape.iter().map(|extent| extent.known().unwrap_or(2)).collect();
            inputs.push(Array::zeros(leaf.ty.dtype, &shape).unwrap());
            if shape.is_empty() && leaf.ty.dtype.is_int() {
                arguments.values.insert(leaf.id, 0);
            }
            arguments.shapes.insert(leaf.id, shape);
        }
        let _ = crate::interp::interpret(&graph, &inputs);
        let is_sound = verify(&graph, Stage::Collected).is_ok();
        // Nor do the passes panic, and what they make of a sound graph is sound.
        if let Ok(concrete) = specialise(&graph, &arguments) {
            let found = verify(&concrete, Stage::Specialised);
            prop_assert!(found.is_ok() || !is_sound, "{:?}\n{}\n{}", found, graph, concrete);
            if let Ok(taken) = differentiate(&concrete, &mut Graph::clone) {
                let found = verify(&taken, Stage::Differentiated);
                prop_assert!(found.is_ok() || !is_sound, "{:?}\n{}\n{}", found, concrete, taken);
            }
        }
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC*", changes in proptest::collection::vec((any::<usize>(), any::<char>()), 1..8)) {
        let _ = parse(&text);
        let mut changed: Vec<char> = [EVERY_OPERATOR, LOOPS][changes.len() % 2].chars().collect();
        for (place, c) in changes {
            let place = place % changed.len();
            changed[place] = if c.is_ascii() { c } else { changed[(place * 31) % changed.len()] };
        }
        let _ = parse(&changed.into_iter().collect::<String>());
    }
}
