//! Expressions, collection and specialisation, as a user meets them.

use hypatia_graph::collect::{Request, collect};
use hypatia_graph::compose::All;
use hypatia_graph::gradient::grad;
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::tensor::{matrix, scalar, shared, vector};
use hypatia_graph::{Array, DType, Op, Tensor, ix};

fn request(inputs: &[&Tensor], outputs: &[&Tensor]) -> Request {
    Request {
        inputs: inputs.iter().map(|t| (*t).clone()).collect(),
        outputs: outputs.iter().map(|t| (*t).clone()).collect(),
        ..Request::default()
    }
}

#[test]
fn a_minibatch_of_shared_data_is_a_window_whatever_the_index() {
    let data = shared("data", Array::zeros(DType::F32, &[100, 7]).unwrap());
    let i = scalar::<i64>("i");
    let batch = data.index(ix![&i * 20..(&i + 1) * 20]);
    let graph = collect(&request(&[&i], &[&batch])).unwrap();
    let graph = specialise(&graph, &Arguments::default()).unwrap();
    let output = graph.node(graph.outputs[0]);
    assert!(matches!(output.op, Op::Window(_)), "{output:?}");
    assert_eq!(output.ty.to_string(), "f32[20, 7]");
}

#[test]
fn a_chain_of_a_million_nodes_builds_collects_differentiates_and_drops() {
    let x = scalar::<f32>("x");
    let mut y = x.clone();
    for _ in 0..1_000_000 {
        y = y.sin();
    }
    let dx = grad(&y, [&x]);
    let graph = collect(&request(&[&x], &[&dx[0]])).unwrap();
    let graph = hypatia_graph::differentiate::differentiate(&graph, &mut |g| g.clone()).unwrap();
    assert!(graph.len() > 2_000_000);
}

#[test]
fn all_mistakes_come_at_once_with_their_lines() {
    let x = matrix::<f32>("x");
    let w = shared("w", Array::zeros(DType::F32, &[3, 4]).unwrap());
    let v = shared("v", Array::zeros(DType::F32, &[5]).unwrap());
    let bad = w.dot(&v);
    let worse = &w + &v;
    let not_scalar = grad(&x.sqr(), [&x]).remove(0);
    let unused = vector::<f32>("unused");
    let problems = collect(&request(&[&x, &unused], &[&bad, &worse, &not_scalar, &x.sum(All)])).unwrap_err();
    let text = problems.to_string();
    assert_eq!(problems.0.len(), 4, "{text}");
    for part in [
        "inner extents of `dot` differ",
        "operands of `add` differ in shape",
        "float scalar",
        "`unused`",
        "tests/building.rs:",
    ] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}
