use std::sync::Arc;

use super::*;
use crate::array::Array;
use crate::body::parameter;
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

/// A scan that keeps all promises at every stage; `change` gets the graph of its body.
fn broken_body(change: impl FnOnce(&mut Graph, &mut usize, &mut bool)) -> Vec<String> {
    let graph = parse(
        "body b0 {\n\
           sequence %x: f32[3]\n\
           captured %w: f32[3]\n\
           carry %h: f32[3]\n\
           %0 = add(%h, %x) : f32[3]\n\
           %1 = mul(%0, %w) : f32[3]\n\
           %2 = max{axes=[0]}(%1) : f32[]\n\
           %3 = gt(%2, 9.0f32) : bool[]\n\
           row %0\n\
           until %3\n\
           next %h = %1\n\
         }\n\
         input %xs: f32[4, 3]\n\
         input %w: f32[3]\n\
         %0 = scan{body=b0, result=rows 0, steps=4}(%xs, %w, %w) : f32[4, 3]\n\
         output %0\n",
    )
    .unwrap();
    assert_eq!(problems(&graph, Stage::Differentiated), Vec::<String>::new());
    let mut change = Some(change);
    let changed = graph.rebuilt(|out, from, id, operands| {
        let Op::Scan(scan) = &from.node(id).op else { return out.add_like(from, id, operands) };
        let (mut body, mut sequences, mut until) = (scan.body.graph.clone(), scan.body.sequences, true);
        change.take().unwrap()(&mut body, &mut sequences, &mut until);
        let body = Arc::new(Body::new(body, sequences, until));
        out.add(Op::Scan(Box::new(crate::op::Scan { body, ..(**scan).clone() })), operands, None)
    });
    problems(&changed, Stage::Differentiated)
}

#[test]
fn bodies_keep_the_promises_of_graphs() {
    assert_eq!(broken_body(|_, _, _| {}), Vec::<String>::new());
    let found = broken_body(|graph, _, _| {
        let sum = node_of(graph, "add");
        graph.node_mut(sum).operands[0] = NodeId(100);
    });
    assert_eq!(found, ["node 3 (`add`) uses node 100, which does not stand before it"]);
    let found = broken_body(|graph, _, _| graph.inputs[1] = graph.updates[0].0);
    assert_eq!(
        found,
        ["input 1 is `h`, which is no input", "node 1 (`leaf`) is an input that is not among the inputs"]
    );
    let found = broken_body(|graph, _, _| {
        let product = node_of(graph, "mul");
        graph.node_mut(product).op = Op::StopGradient;
        graph.node_mut(product).operands.pop();
        let x = NodeId(0);
        let grad = parse("input %a: f32[]\n%0 = grad{index=0, variables=1, known=0, constants=0, cost=true, disconnected=zero}(%a, %a)\n").unwrap();
        let largest = node_of(graph, "max");
        let taken = graph.add(grad.node(NodeId(1)).op.clone(), &[largest, x], None);
        graph.outputs[0] = taken;
    });
    assert_eq!(found, ["node 8 (`grad`) is a gradient not taken after differentiation"]);
}

#[test]
fn updates_of_bodies_are_their_carries() {
    assert_eq!(
        broken_body(|graph, _, _| graph.updates[0].1 = node_of(graph, "max")),
        ["the update of `h` has another type than the variable"]
    );
    let found = broken_body(|graph, _, _| graph.updates.push(graph.updates[0]));
    assert!(found.contains(&"`h` is updated twice".to_string()), "{found:?}");
    // Without a next value the scan has an operand too many as well, which is the fault of the graph that holds it.
    let found = broken_body(|graph, _, _| graph.updates.clear());
    assert!(found.contains(&"node 2 (`leaf`) is a carry without a next value".to_string()), "{found:?}");
    let found = broken_body(|graph, _, _| graph.updates[0].0 = graph.inputs[1]);
    assert!(found.contains(&"the update of `w` writes what is not a carry".to_string()), "{found:?}");
}

#[test]
fn conditions_and_sequences_of_bodies_exist() {
    let found = broken_body(|graph, _, _| graph.outputs[1] = node_of(graph, "max"));
    assert_eq!(found, ["node 5 (`max`) is the condition to end a scan at and has another type"]);
    let found = broken_body(|graph, _, until| {
        graph.outputs.clear();
        *until = true;
    });
    assert!(
        found.contains(&"the body of a scan with a condition to end at has no output for it".to_string()),
        "{found:?}"
    );
    let found = broken_body(|_, sequences, _| *sequences = 3);
    assert!(found.contains(&"a body reads 3 sequences and has 2 inputs".to_string()), "{found:?}");
}

#[test]
fn what_belongs_outside_stays_outside() {
    let w = tensor::shared("v", Array::vector(&[1.0f32, 2.0, 3.0]));
    let found = broken_body(|graph, _, _| {
        let shared = graph.add_leaf(w.leaf());
        let sum = graph.outputs[0];
        let both = graph.add(Op::Map(crate::scalar::ScalarFn::Mul), &[shared, sum], None);
        graph.outputs[0] = both;
    });
    assert_eq!(found, ["node 8 (`leaf`) is a shared variable in the body of a scan"]);
    let carry = parameter(Some("h".into()), TensorType::scalar(DType::F32), LeafKind::Carry);
    let found = broken(|graph| {
        let outside = graph.add_leaf(&carry);
        graph.outputs.push(outside);
    });
    assert_eq!(found, ["node 6 (`leaf`) is a carry outside of its scan"]);
    let found = broken(|graph| {
        let w = graph.updates[0].1;
        let ty = graph.ty(w).clone();
        let carry = parameter(Some("h".into()), ty, LeafKind::Carry);
        graph.add_leaf(&carry);
        graph.updates.push((carry.id, w));
    });
    assert_eq!(found, ["the update of `h` writes what is not a shared variable"]);
}

#[test]
fn stages_reach_into_bodies() {
    let graph = parse(
        "body b0 {\n\
           sequence %x: f32[?]\n\
           body b1 {\n\
             captured %y: f32[?]\n\
             carry %h: i64[]\n\
             %0 = extent{axis=0}(%y)\n\
             next %h = %0\n\
           }\n\
           %0 = scan{body=b1, result=last 0, steps=2}(%x, 0i64)\n\
           row %0\n\
         }\n\
         input %x: f32[?, ?]\n\
         %0 = extent{axis=0}(%x)\n\
         %1 = scan{body=b0, result=rows 0, steps=?}(%x, %0)\n\
         output %1\n",
    )
    .unwrap();
    assert_eq!(problems(&graph, Stage::Collected), Vec::<String>::new());
    assert_eq!(
        problems(&graph, Stage::Specialised),
        [
            "node 0 (`leaf`) has an unknown extent after specialisation",
            "node 1 (`extent`) is of a kind that specialisation replaces",
            "node 2 (`scan`) has an unknown extent after specialisation",
            "node 2 (`scan`) is of a kind that specialisation replaces",
            "node 0 (`leaf`) has an unknown extent after specialisation",
            "node 0 (`leaf`) has an unknown extent after specialisation",
            "node 2 (`extent`) is of a kind that specialisation replaces",
        ]
    );
    let shapes = [(graph.inputs[0], [5, 2].into_iter().collect())].into_iter().collect();
    let concrete = specialise(&graph, &Arguments { shapes, ..Arguments::default() }).unwrap();
    verify(&concrete, Stage::Specialised).unwrap();
}
