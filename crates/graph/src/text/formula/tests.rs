use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::super::formula;
use super::*;
use crate::array::Array;
use crate::dtype::Literal;
use crate::graph::NodeId;
use crate::interp::interpret;
use crate::op::Op;

/// The formula as it is printed.
fn reprinted(text: &str) -> String {
    let graph = parse_formula(text).unwrap_or_else(|e| panic!("{e}")).graph().unwrap();
    formula(&graph, graph.outputs[0])
}

fn value(text: &str, inputs: &[Array]) -> Array {
    let graph = parse_formula(text).unwrap_or_else(|e| panic!("{e}")).graph().unwrap();
    interpret(&graph, inputs).unwrap_or_else(|e| panic!("{e}")).outputs.remove(0)
}

/// Values from Python.
#[test]
fn operators_bind_as_in_python() {
    let cases = [
        ("2.0 ** 3.0 ** 2.0", 512.0),
        ("-2.0 ** 2.0", -4.0),
        ("2.0 ** -1.0", 0.5),
        ("7 - 2 - 1", 4.0),
        ("7 - (2 - 1)", 6.0),
        ("16.0 / 4.0 / 2.0", 2.0),
        ("16.0 / (4.0 / 2.0)", 8.0),
        ("1 + 2 * 3", 7.0),
        ("-7 // 2", -4.0),
        ("7 % -3", -2.0),
        ("- - 3", 3.0),
        ("1.5e2 - 5e-1", 149.5),
        ("1 + 2 < 2 * 2", 1.0),
        ("maximum(2, 3) + arctan2(0.0, 1.0)", 3.0),
    ];
    for (text, expected) in cases {
        assert_eq!(value(text, &[]).item(), Some(expected), "{text}");
    }
}

#[test]
fn names_are_inputs_in_order() {
    let read = parse_formula("b: f32[3, ?]; a + b * a").unwrap();
    let names: Vec<&str> = read.inputs.iter().filter_map(|input| input.name()).collect();
    assert_eq!(names, ["b", "a"]);
    assert_eq!(read.tensor.ty().to_string(), "f32[3, ?]");
}

/// NumPy: `x = np.arange(6.).reshape(2, 3)`, then the formula with `np.` before its functions.
#[test]
fn axes_are_those_of_numpy() {
    let x = Array::new(&[2, 3], &[0.0f32, 1.0, 2.0, 3.0, 4.0, 5.0]).unwrap();
    let of_x = |text: &str| value(&format!("x: f32[2, 3]; {text}"), std::slice::from_ref(&x));
    assert_eq!(of_x("sum(x, axis=0)"), Array::vector(&[3.0f32, 5.0, 7.0]));
    assert_eq!(of_x("mean(x, axis=-1)"), Array::vector(&[1.0f32, 4.0]));
    assert_eq!(of_x("max(x, axis=[0, 1])"), Array::scalar(5.0f32));
    assert_eq!(of_x("x - max(x, axis=1, keepdims=true)").to_vec::<f32>().unwrap()[..3], [-2.0, -1.0, 0.0]);
    assert_eq!(of_x("x @ x.T"), Array::new(&[2, 2], &[5.0f32, 14.0, 14.0, 50.0]).unwrap());
    assert_eq!(of_x("argmax(x, axis=1)"), Array::vector(&[2i64, 2]));
    assert_eq!(of_x("sum(softmax(x))").item(), Some(2.0));
}

#[test]
fn formulas_are_printed_as_they_are_written() {
    for text in [
        "log(1 + exp(x))",
        "a - (b - c) - d",
        "-x ** 2",
        "(-x) ** 2",
        "2 ** x ** y",
        "(2 ** x) ** y",
        "a * (b + c) / -d",
        "(a < b) == (c >= d)",
        "-2",
        "x * -2.5",
        "softplus(x) // y % z",
        "t2 * (x - t2) where t1 = exp(x); t2 = t1 + 1 / t1",
        "switch(x < 0, -x, x)",
    ] {
        assert_eq!(reprinted(text), text);
    }
    assert_eq!(reprinted("x: f32[3, 4]; w: f32[4, 5]; sum(x @ w, axis=1)"), "sum(x @ w, axis=1)");
    assert_eq!(reprinted("x: f32[3, 4]; x - max(x, axis=1, keepdims=true)"), "x - max(x, axis=1)");
    assert_eq!(
        reprinted("x: f32[8, 10]; log(softmax(x))"),
        "log(t2 / sum(t2, axis=1)) where t1 = max(x, axis=1); t2 = exp(x - switch(isinf(t1), 0, t1))"
    );
}

#[test]
fn shared_chains_print_in_the_length_of_the_graph() {
    let read = parse_formula("x + 1").unwrap();
    let mut tensor = read.tensor;
    for _ in 0..100 {
        tensor = &tensor * &tensor;
    }
    let graph = Formula { tensor, inputs: read.inputs }.graph().unwrap();
    let text = formula(&graph, graph.outputs[0]);
    assert!(text.starts_with("t100 * t100 where t1 = x + 1; t2 = t1 * t1; t3 = t2 * t2"), "{text}");
    assert!(text.len() < 2500, "{}", text.len());
    let mut chain = graph.outputs[0];
    let mut graph = graph;
    for _ in 0..100_000 {
        chain = graph.add(Op::Map(ScalarFn::Exp), &[chain], None);
    }
    assert!(formula(&graph, chain).contains("; t200 = "));
}

#[test]
fn errors_point_at_the_formula() {
    let cases = [
        ("log(1 + ", "1:9: expected a number, a name or `(`, found the end of the text"),
        ("expo(x)", "1:1: expected a function such as `exp`, `sum` or `softmax`, found `expo` of 1 operands"),
        ("exp(x, y)", "1:1: expected 1 operands of `exp`, found `exp` of 2 operands"),
        ("x + * y", "1:5: expected a number, a name or `(`, found `*`"),
        ("x y", "1:3: expected an operator or the end, found `y`"),
        (
            "x: f32[2]; y: f32[3]; x + y",
            "1:25: expected a well-typed formula, found that operands of `add` differ in shape",
        ),
        (
            "x: f32[2]; sum(x, axis=1)",
            "1:12: expected a well-typed formula, found that `sum`: axis 1 does not exist",
        ),
        ("x: f32[2]; x: f32[3]; x", "1:12: expected a new name"),
        ("sum(x, exis=1)", "1:8: expected `axis=` or `keepdims=`, found `exis`"),
        ("2x", "1:1: expected a number without suffix, found `2x`"),
        ("t where t = ", "1:13: expected a number, a name or `(`"),
    ];
    for (text, expected) in cases {
        let error = parse_formula(text).unwrap_err();
        let found =
            format!("{}:{}: expected {}, found {}", error.line, error.column, error.expected, error.found);
        assert!(found.starts_with(expected), "{text:?}\n{found}\n{expected}");
    }
    let deep = "(".repeat(100_000);
    assert!(parse_formula(&deep).unwrap_err().expected.contains("nested at most"));
    assert!(parse_formula(&"2 ** ".repeat(100_000)).unwrap_err().expected.contains("nested at most"));
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), failure_persistence: None, ..ProptestConfig::default() })]
    /// Random graphs of elementwise functions, printed and read, give the same bits.
    #[test]
    fn what_is_printed_is_read_as_the_same(
        steps in proptest::collection::vec((0usize..ScalarFn::ALL.len(), any::<[u16; 3]>()), 1..40),
        x in -3.0f32..3.0, y in -3.0f32..3.0,
    ) {
        let read = parse_formula("x: f32[]; y: f32[]; x + y").unwrap();
        let mut graph = read.graph().unwrap();
        // A number takes the type of what it meets, so it meets an input here.
        for value in [2.0f32, -0.5, 1e-7, 3e9, f32::INFINITY, -0.0] {
            let literal = graph.add(Op::Literal(Literal::F32(value.to_bits())), &[], None);
            graph.add(Op::Map(ScalarFn::Mul), &[NodeId(0), literal], None);
            graph.add(Op::Map(ScalarFn::Sub), &[literal, NodeId(0)], None);
        }
        for (f, choices) in steps {
            let f = ScalarFn::ALL[f];
            let floats: Vec<NodeId> = graph
                .nodes()
                .filter(|(_, node)| node.ty.dtype == DType::F32 && !matches!(node.op, Op::Literal(_)))
                .map(|(id, _)| id)
                .collect();
            let operands: Vec<NodeId> =
                choices[..f.arity()].iter().map(|&n| floats[usize::from(n) % floats.len()]).collect();
            let dtypes = vec![DType::F32; f.arity()];
            if f.result_dtype(&dtypes).is_some() {
                graph.add(Op::Map(f), &operands, None);
            }
        }
        graph.outputs = vec![NodeId(graph.len() as u32 - 1)];
        let text = format!("x: f32[]; y: f32[]; {}", formula(&graph, graph.outputs[0]));
        let inputs = [Array::scalar(x), Array::scalar(y)];
        let expected = interpret(&graph, &inputs).unwrap().outputs.remove(0);
        prop_assert_eq!(value(&text, &inputs), expected, "{}", text);
    }

    #[test]
    fn no_formula_makes_the_parser_panic(text in "[a-c0-9().,;:=@*/%<>+ \\-]{0,60}|\\PC{0,40}|(x|exp|sum|softmax|where|T|\\(|\\)|\\.|[-+*/@,;=:]|axis=|f32|\\[|\\]|[0-9]){0,30}") {
        if let Ok(read) = parse_formula(&text) {
            let graph = read.graph().unwrap();
            let _ = formula(&graph, graph.outputs[0]);
        }
    }
}
