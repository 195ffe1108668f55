use std::sync::Arc;

use super::*;
use crate::array::Array;
use crate::collect::{Request, collect};
use crate::compose::All;
use crate::differentiate::differentiate;
use crate::dtype::DType;
use crate::gradient::grad;
use crate::leaf::{Leaf, SharedCell, fresh_leaf_id};
use crate::specialise::{Arguments, specialise};
use crate::tensor;
use crate::text::parse;

/// A small graph that keeps all promises at every stage.
fn sound() -> Graph {
    parse(
        "input %x: f32[2, 3]\n\
         shared %w: f32[3]\n\
         constant %0: i64[2] = [0, 1]\n\
         %1 = sum{axes=[0]}(%x) : f32[3]\n\
         %2 = sub(%w, %1) : f32[3]\n\
         %3 = gather{batch=0}(%1, %0) : f32[2]\n\
         output %3\n\
         update %w = %2\n",
    )
    .unwrap()
}

/// What is wrong at a stage, one line for each problem.
fn problems(graph: &Graph, stage: Stage) -> Vec<String> {
    match verify(graph, stage) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.0.into_iter().map(|problem| problem.title).collect(),
    }
}

fn broken(change: impl FnOnce(&mut Graph)) -> Vec<String> {
    let mut graph = sound();
    change(&mut graph);
    problems(&graph, Stage::Differentiated)
}

fn node_of(graph: &Graph, name: &str) -> NodeId {
    graph.nodes().find(|(_, node)| node.op.name() == name).unwrap().0
}

#[test]
fn a_sound_graph_passes() {
    for stage in [Stage::Collected, Stage::Specialised, Stage::Differentiated] {
        assert_eq!(problems(&sound(), stage), Vec::<String>::new());
    }
}

#[test]
fn graphs_of_every_pass_pass() {
    let x = tensor::matrix::<f32>("x");
    let w = tensor::shared("w", Array::vector(&[1.0f32, 2.0]));
    let cost = (x.dot(&w).tanh() - 1.0).sqr().mean(All);
    let step = grad(&cost, [&w]).remove(0);
    let request = Request {
        inputs: vec![x.clone()],
        outputs: vec![cost],
        updates: vec![(w.clone(), &w - step * 0.1)],
        ..Request::default()
    };
    let collected = collect(&request).unwrap();
    verify(&collected, Stage::Collected).unwrap();
    assert!(verify(&collected, Stage::Specialised).is_err());
    let shapes = [(collected.inputs[0], [5, 2].into_iter().collect())].into_iter().collect();
    let specialised = specialise(&collected, &Arguments { shapes, ..Arguments::default() }).unwrap();
    verify(&specialised, Stage::Specialised).unwrap();
    assert!(verify(&specialised, Stage::Differentiated).is_err());
    let differentiated = differentiate(&specialised, &mut Graph::clone).unwrap();
    verify(&differentiated, Stage::Differentiated).unwrap();
}

#[test]
fn operands_stand_before_users() {
    let found = broken(|graph| {
        let sum = node_of(graph, "sum");
        graph.node_mut(sum).operands[0] = NodeId(100);
    });
    assert_eq!(found, ["node 3 (`sum`) uses node 100, which does not stand before it"]);
}

#[test]
fn faults_are_reported() {
    let found = broken(|graph| {
        let (x, w) = (NodeId(0), NodeId(1));
        graph.add(Op::Dot, &[x, w], None);
    });
    assert_eq!(found, ["`dot` takes two matrices, or two stacks of matrices"]);
}

#[test]
fn leaves_are_listed_and_typed() {
    let found = broken(|graph| graph.node_mut(NodeId(0)).op = Op::Leaf(LeafId(u64::MAX)));
    assert_eq!(found, [format!("node 0 (`leaf`) is leaf {}, which is not listed", u64::MAX)]);
    let found = broken(|graph| graph.node_mut(NodeId(0)).ty = TensorType::known(DType::F32, &[3, 3]));
    assert_eq!(found, ["node 0 (`leaf`) has another type than `x`"]);
}

#[test]
fn types_are_those_of_the_rules() {
    let found = broken(|graph| {
        let sum = node_of(graph, "sum");
        graph.node_mut(sum).op = Op::Cast(DType::F64);
        let gather = node_of(graph, "gather");
        graph.outputs = vec![NodeId(0)];
        graph.updates.clear();
        graph.node_mut(gather).ty = TensorType::known(DType::F32, &[7]);
    });
    assert_eq!(
        found,
        [
            "node 3 (`cast`) has another type than its rule gives",
            "node 5 (`gather`) has another type than its rule gives"
        ]
    );
}

#[test]
fn inputs_are_inputs_once() {
    assert_eq!(
        broken(|graph| graph.inputs.push(graph.inputs[0])),
        ["input 1 is `x`, which is an input twice"]
    );
    let found = broken(|graph| graph.inputs.push(graph.updates[0].0));
    assert_eq!(found, ["input 1 is `w`, which is no input"]);
    assert_eq!(
        broken(|graph| graph.inputs.clear()),
        ["node 0 (`leaf`) is an input that is not among the inputs"]
    );
    let found = broken(|graph| graph.inputs.push(LeafId(u64::MAX)));
    assert_eq!(found, [format!("input 1 is leaf {}, which is not listed", u64::MAX)]);
}

#[test]
fn roots_exist() {
    let found = broken(|graph| {
        graph.outputs.push(NodeId(70));
        graph.updates[0].1 = NodeId(80);
    });
    assert_eq!(
        found,
        ["output 1 is node 70, which does not exist", "the update of `w` is node 80, which does not exist"]
    );
}

#[test]
fn updates_fit_their_variables() {
    let found = broken(|graph| graph.updates[0].1 = NodeId(0));
    assert_eq!(found, ["the update of `w` has another type than the variable"]);
    let found = broken(|graph| graph.updates.push(graph.updates[0]));
    assert_eq!(found, ["`w` is updated twice"]);
    let found = broken(|graph| graph.updates.push((graph.inputs[0], NodeId(0))));
    assert_eq!(found, ["the update of `x` writes what is not a shared variable"]);
    let found = broken(|graph| graph.updates.push((LeafId(u64::MAX), NodeId(0))));
    assert_eq!(found[0], format!("an update writes leaf {}, which is not listed", u64::MAX));
}

#[test]
fn values_have_the_declared_type() {
    let found = broken(|graph| {
        let value = Array::vector(&[1.0f64]);
        let kind = LeafKind::Shared(Arc::new(SharedCell::new(value)));
        let ty = TensorType::known(DType::F32, &[1]);
        graph.add_leaf(&Arc::new(Leaf { id: fresh_leaf_id(), name: Some("v".into()), ty, site: None, kind }));
    });
    assert_eq!(found, ["the value of `v` has another type than declared"]);
}

#[test]
fn stages_leave_nothing_behind() {
    let graph = parse(
        "input %x: f32[?]\n\
         %0 = extent{axis=0}(%x)\n\
         %1 = iota{dims=[?]}(4i64)\n\
         %2 = slice{ranges=[:2]}(%x)\n\
         output %2\n",
    )
    .unwrap();
    assert_eq!(problems(&graph, Stage::Collected), Vec::<String>::new());
    assert_eq!(
        problems(&graph, Stage::Specialised),
        [
            "node 0 (`leaf`) has an unknown extent after specialisation",
            "node 1 (`extent`) is of a kind that specialisation replaces",
            "node 3 (`iota`) has an unknown extent after specialisation",
            "node 3 (`iota`) is of a kind that specialisation replaces",
            "node 4 (`slice`) has an unknown extent after specialisation",
            "node 4 (`slice`) is of a kind that specialisation replaces",
        ]
    );
    let graph = parse(
        "input %x: f32[]\n\
         %0 = sqr(%x)\n\
         %1 = grad{index=0, variables=1, known=0, constants=0, cost=true, disconnected=raise}(%0, %x)\n\
         output %1\n",
    )
    .unwrap();
    assert_eq!(problems(&graph, Stage::Specialised), Vec::<String>::new());
    assert_eq!(
        problems(&graph, Stage::Differentiated),
        ["node 2 (`grad`) is a gradient not taken after differentiation"]
    );
}
