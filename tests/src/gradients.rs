//! Every derivative, in the middle of a graph and with a random cotangent: reverse mode against dual numbers
//! ([`crate::forward`]) and central differences, all in `f64` by the interpreter; second derivatives; and the
//! conventions that operators document.

use std::collections::BTreeMap;

use hypatia_graph::collect::{Request, Unused, collect};
use hypatia_graph::compose::{All, switch};
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::gradient::{Gradient, grad};
use hypatia_graph::interp::interpret;
use hypatia_graph::leaf::LeafKind;
use hypatia_graph::op::{Disconnected, Grad, ScanResult};
use hypatia_graph::tensor::{constant, input, input_of_type};
use hypatia_graph::text::parse;
use hypatia_graph::{Array, DType, Graph, Literal, NodeId, Op, ScalarFn, Tensor};
use proptest::prelude::*;

use crate::composites::{self, Composite};
use crate::engines::concrete;
use crate::forward::{forward, forward_sizes, inner_product};
use crate::generate::{Recipe, Soil, config, grow, recipes};
use crate::samples;
use crate::scans::unrolled;
use crate::values::Generator;

/// A question about derivatives: how the origins move with the variables.
struct Question {
    graph: Graph,
    inputs: Vec<Array>,
    variables: Vec<NodeId>,
    origins: Vec<NodeId>,
}

/// The gradients of the origins, weighted by cotangents that are inputs of the result.
struct Answer {
    /// With every gradient taken; the outputs are the gradients, in the order of the variables.
    graph: Graph,
    inputs: Vec<Array>,
    cotangents: Vec<Array>,
    gradients: Vec<Array>,
}

impl Question {
    fn answer(&self, generator: &mut Generator) -> Result<Answer, String> {
        let mut graph = self.graph.clone();
        let mut inputs = self.inputs.clone();
        graph.outputs.clear();
        graph.updates.clear();
        let mut operands = self.variables.clone();
        let mut cotangents = Vec::new();
        for origin in &self.origins {
            let ty = graph.ty(*origin).clone();
            let shape = ty.extents().ok_or("an extent is not known")?;
            let cotangent = input_of_type("cotangent", ty);
            let leaf = cotangent.leaf().ok_or("an input has a leaf")?;
            operands.extend([*origin, graph.add_leaf(leaf)]);
            graph.inputs.push(leaf.id);
            cotangents.push(generator.array(DType::F64, &shape, -1.0, 1.0));
        }
        inputs.extend(cotangents.iter().cloned());
        for index in 0..self.variables.len() {
            let grad = Grad {
                index: index as u16,
                variables: self.variables.len() as u16,
                known: self.origins.len() as u16,
                constants: 0,
                has_cost: false,
                disconnected: Disconnected::Zero,
            };
            let gradient = graph.add(Op::Grad(Box::new(grad)), &operands, None);
            graph.outputs.push(gradient);
        }
        let graph = differentiate(&graph, &mut Graph::clone).map_err(|e| e.to_string())?;
        let gradients = interpret(&graph, &inputs).map_err(|e| e.to_string())?.outputs;
        Ok(Answer { graph, inputs, cotangents, gradients })
    }

    /// Whether reverse mode agrees with dual numbers, one variable after another along random directions; returns how
    /// many variables were compared (those with finite derivatives).
    fn check(&self, answer: &Answer, generator: &mut Generator) -> Result<usize, String> {
        let mut graph = self.graph.clone();
        graph.outputs.clone_from(&self.origins);
        graph.outputs.extend(&self.variables);
        graph.updates.clear();
        let mut compared = 0;
        for (variable, gradient) in self.variables.iter().zip(&answer.gradients) {
            let shape = graph.ty(*variable).extents().ok_or("an extent is not known")?;
            let direction = generator.array(DType::F64, &shape, -1.0, 1.0);
            let seeds = BTreeMap::from([(*variable, direction.clone())]);
            let dual = forward(&graph, &self.inputs, &seeds)?;
            let sizes = forward_sizes(&graph, &self.inputs, &seeds)?;
            let mut moved = 0.0;
            let mut size = 0.0;
            let mut terms = 0.0;
            for (origin, cotangent) in self.origins.iter().zip(&answer.cotangents) {
                let Some(tangent) = &dual.tangents[origin.index()] else { continue };
                moved += inner_product(tangent, cotangent);
                size += size_of_product(tangent, cotangent);
                terms +=
                    sizes.tangents[origin.index()].as_ref().map_or(0.0, |t| size_of_product(t, cotangent));
            }
            let reverse = inner_product(gradient, &direction);
            size += size_of_product(gradient, &direction);
            if !moved.is_finite() || !reverse.is_finite() || !terms.is_finite() || size > 1e12 {
                continue;
            }
            compared += 1;
            if (moved - reverse).abs() > 1e-8 * size + ROUNDING * terms + 1e-10 {
                return Err(format!(
                    "with respect to node {variable:?}: reverse mode {reverse:e}, dual numbers {moved:e}"
                ));
            }
        }
        Ok(compared)
    }
}

/// The rounding error of a sum of a hundred terms or so, in proportion to their size.
const ROUNDING: f64 = 1e-13;

fn size_of_product(a: &Array, b: &Array) -> f64 {
    (0..a.len()).map(|i| (a.get(i).to_f64() * b.get(i).to_f64()).abs()).sum()
}

/// The float nodes of a graph that something depends on, and the leaves among them first. A computed constant is none of
/// them: two ways to write one may become one node (the steps of a scan are known to be 4), which then is the other's
/// derivative.
fn floats(graph: &Graph) -> Vec<NodeId> {
    let live = graph.reachable();
    let mut varies: Vec<bool> = Vec::with_capacity(graph.len());
    for (_, node) in graph.nodes() {
        varies.push(match &node.op {
            Op::Leaf(leaf) => {
                !matches!(graph.leaf(*leaf).map(|leaf| &leaf.kind), Some(LeafKind::Constant(_)) | None)
            }
            Op::Scan(scan) if scan.result == ScanResult::Steps => false,
            _ => node.operands.iter().any(|operand| varies[operand.index()]),
        });
    }
    let is_constant_leaf = |id: NodeId| matches!(graph.node(id).op, Op::Leaf(_)) && !varies[id.index()];
    let mut all: Vec<NodeId> = graph
        .nodes()
        .filter(|(id, node)| live[id.index()] && node.ty.dtype == DType::F64)
        .map(|(id, _)| id)
        .filter(|id| varies[id.index()] || is_constant_leaf(*id))
        .collect();
    all.sort_by_key(|id| !matches!(graph.node(*id).op, Op::Leaf(_)));
    all
}

const SMOOTH: Soil =
    Soil { float: DType::F64, mixed: false, symbolic: true, wild: false, special: false, scans: 0 };

proptest! {
    #![proptest_config(config(128))]

    /// First derivatives with respect to leaves and to nodes in between, some upstream of others; then, of the graph that
    /// differentiation has made, second derivatives.
    #[test]
    fn reverse_mode_agrees_with_dual_numbers(recipe in recipes(5..50)) {
        check_random(&recipe, SMOOTH)?;
    }

    /// The same through scans with random bodies, some in each other, some that end early or cut the gradient off.
    #[test]
    fn reverse_mode_agrees_with_dual_numbers_through_scans(recipe in recipes(5..30)) {
        check_random(&recipe, Soil { scans: 2, ..SMOOTH })?;
    }
}

fn check_random(recipe: &Recipe, soil: Soil) -> Result<(), TestCaseError> {
    let grown = grow(recipe, soil);
    let mut generator = Generator(recipe.seed);
    let fail = |e: String| TestCaseError::fail(format!("{e}\n{}\n{:?}", grown.graph, grown.inputs));
    let graph = concrete(&grown.graph, &grown.inputs).map_err(fail)?;
    let mut origins: Vec<NodeId> =
        graph.outputs.iter().copied().filter(|id| graph.ty(*id).dtype == DType::F64).collect();
    origins.sort_unstable();
    origins.dedup();
    let mut variables = floats(&graph);
    variables.truncate(4);
    if let Some(last) = floats(&graph).get(variables.len()..).filter(|rest| !rest.is_empty()) {
        variables.extend([last[last.len() / 2], last[last.len() - 1]]);
    }
    variables.dedup();
    if origins.is_empty() || variables.is_empty() {
        return Ok(());
    }
    let question = Question { graph, inputs: grown.inputs.clone(), variables, origins };
    let answer = question.answer(&mut generator).map_err(fail)?;
    question.check(&answer, &mut generator).map_err(fail)?;

    let mut variables = floats(&answer.graph);
    variables.truncate(3);
    let mut origins = answer.graph.outputs.clone();
    origins.sort_unstable();
    origins.dedup();
    let second = Question { graph: answer.graph, inputs: answer.inputs, variables, origins };
    let answer = second.answer(&mut generator).map_err(fail)?;
    second.check(&answer, &mut generator).map_err(|e| fail(format!("second derivative {e}")))?;
    Ok(())
}

#[test]
fn composites_agree_with_dual_numbers_to_second_order() {
    let reference = composites::reference();
    let arrays = composites::OPERANDS.map(|name| &reference[name]);
    let inputs: Vec<Array> = arrays.iter().map(|array| (*array).clone()).collect();
    for Composite(name, formula) in composites::COMPOSITES {
        let operands = composites::operands(&arrays, false);
        let output = formula(&operands);
        let request = Request {
            inputs: operands.to_vec(),
            outputs: vec![output],
            unused: Unused::Ignore,
            ..Request::default()
        };
        let graph = collect(&request).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        let graph = concrete(&graph, &inputs).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let mut generator = Generator(7);
        let variables: Vec<NodeId> =
            floats(&graph).into_iter().filter(|id| matches!(graph.node(*id).op, Op::Leaf(_))).collect();
        let first = Question { origins: graph.outputs.clone(), variables, inputs: inputs.clone(), graph };
        let answer = first.answer(&mut generator).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        first.check(&answer, &mut generator).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        let variables: Vec<NodeId> = floats(&answer.graph).into_iter().take(3).collect();
        let origins = answer.graph.outputs.clone();
        let second = Question { graph: answer.graph, inputs: answer.inputs, variables, origins };
        let answer = second.answer(&mut generator).unwrap_or_else(|fault| panic!("{name}: {fault}"));
        second.check(&answer, &mut generator).unwrap_or_else(|fault| panic!("{name}, second: {fault}"));
    }
}

/// Scans of sums and products, whose gradients of small whole numbers have no rounding.
const POLYNOMIALS: &[&str] = &[
    "
input %x: f64[4]
input %h: f64[]
body b0 {
  sequence %x: f64[]
  carry %h: f64[]
  %0 = mul(%x, %h)
  %1 = add(%0, %x)
  row %1
  next %h = %1
}
%0 = scan{body=b0, result=rows 0, steps=4}(%x, %h)
%1 = scan{body=b0, result=last 0, steps=4}(%x, %h)
output %0
output %1",
    "
input %x: f64[3, 2, 3]
input %h: f64[2, 2]
input %W: f64[3, 2]
input %U: f64[2, 2]
body b0 {
  sequence %x: f64[2, 3]
  captured %W: f64[3, 2]
  captured %U: f64[2, 2]
  carry %h: f64[2, 2]
  %0 = dot(%x, %W)
  %1 = dot(%h, %U)
  %2 = add(%0, %1)
  %3 = sqr(%h)
  row %3
  next %h = %2
}
%0 = scan{body=b0, result=rows 0, steps=3, checkpointed=true}(%x, %W, %U, %h)
%1 = scan{body=b0, result=last 0, steps=3, checkpointed=true}(%x, %W, %U, %h)
output %0
output %1",
    "
input %a: f64[3]
input %b: f64[3]
input %c: f64[3]
body b0 {
  captured %c: f64[3]
  carry %a: f64[3]
  carry %b: f64[3]
  %0 = mul(%b, %c)
  row %a
  next %a = %b
  next %b = %0
}
%0 = scan{body=b0, result=rows 0, steps=5}(%c, %a, %b)
%1 = scan{body=b0, result=last 1, steps=5}(%c, %a, %b)
output %0
output %1",
    "
input %table: f64[4, 2]
input %i: i64[5, 3]
body b0 {
  sequence %i: i64[3]
  captured %table: f64[4, 2]
  carry %sum: f64[4, 2]
  %0 = gather{batch=0}(%table, %i)
  %1 = scatter_add{batch=0}(%sum, %i, %0)
  %2 = gather{batch=0}(%1, %i)
  %3 = scatter{batch=0}(%1, %i, %0)
  row %2
  next %sum = %3
}
%0 = scan{body=b0, result=rows 0, steps=5}(%i, %table, %table)
%1 = scan{body=b0, result=last 0, steps=5}(%i, %table, %table)
output %0
output %1",
    "
input %x: f64[8]
input %y: f64[8]
body b0 {
  captured %x: f64[8]
  carry %i: i64[]
  carry %y: f64[8]
  %0 = window{starts=[?], lengths=[3]}(%x, %i)
  %1 = window{starts=[2], lengths=[3], steps=[-1]}(%y)
  %2 = mul(%0, %1)
  %3 = set_window{starts=[?], lengths=[3]}(%y, %2, %i)
  %4 = add(%i, 2i64)
  next %i = %4
  next %y = %3
}
%0 = scan{body=b0, result=last 1, steps=3}(%x, 0i64, %y)
output %0",
    "
input %x: f64[3, 2]
input %w: f64[]
input %s: f64[]
body outer {
  sequence %x: f64[2]
  captured %w: f64[]
  carry %s: f64[]
  body inner {
    sequence %x: f64[]
    captured %w: f64[]
    captured %s: f64[]
    carry %h: f64[]
    %0 = mul(%h, %w)
    %1 = add(%0, %x)
    %2 = add(%1, %s)
    row %0
    next %h = %2
  }
  %0 = scan{body=inner, result=rows 0, steps=2}(%x, %w, %s, %w)
  %1 = scan{body=inner, result=last 0, steps=2}(%x, %w, %s, %w)
  row %0
  next %s = %1
}
%0 = scan{body=outer, result=rows 0, steps=3}(%x, %w, %s)
%1 = scan{body=outer, result=last 0, steps=3}(%x, %w, %s)
output %0
output %1",
    "
input %x: f64[6, 2]
input %y: f64[6, 3]
body b0 {
  sequence %x: f64[2]
  sequence %y: f64[3]
  carry %s: f64[2, 3]
  %0 = broadcast{axes=[0], dims=[2, 3]}(%x)
  %1 = broadcast{axes=[1], dims=[2, 3]}(%y)
  %2 = mul(%0, %1)
  %3 = sub(%2, %s)
  next %s = %3
}
%0 = broadcast{axes=[], dims=[2, 3]}(3.0f64)
%1 = scan{body=b0, result=last 0, steps=6}(%x, %y, %0)
output %1",
];

#[test]
fn gradients_of_scans_are_those_of_their_steps_to_the_bit() {
    for (number, text) in POLYNOMIALS.iter().enumerate() {
        let graph = parse(text).unwrap_or_else(|e| panic!("{e}"));
        let mut generator = Generator(number as u64);
        let inputs = graph.inputs.iter().map(|id| {
            let ty = &graph.leaf(*id).unwrap().ty;
            let values = generator.array(DType::I64, &ty.extents().unwrap(), -3.0, 4.0);
            values.cast(ty.dtype)
        });
        let inputs: Vec<Array> = inputs.collect();
        let (rolled, flat) = (with_gradients(&graph), with_gradients(&unrolled(&graph).unwrap()));
        let (rolled, flat) = (interpret(&rolled, &inputs).unwrap(), interpret(&flat, &inputs).unwrap());
        assert!(rolled.outputs.len() > graph.outputs.len() + 1, "{text}");
        // A zero may have either sign.
        for (position, (found, expected)) in rolled.outputs.iter().zip(&flat.outputs).enumerate() {
            let numbers = |x: &Array| -> Vec<f64> { (0..x.len()).map(|i| x.get(i).to_f64()).collect() };
            assert_eq!(numbers(found), numbers(expected), "output {position} of{text}");
        }
    }
}

/// The graph with the derivatives of the sum of its outputs with respect to its float inputs, and with those of the sum
/// of these derivatives, as further outputs.
fn with_gradients(graph: &Graph) -> Graph {
    let mut graph = graph.clone();
    let inputs = graph.inputs.clone();
    for _ in 0..2 {
        let node_of = |input| graph.nodes().find(|(_, node)| node.op == Op::Leaf(input));
        let leaves = inputs.iter().filter_map(|input| node_of(*input));
        let variables: Vec<NodeId> =
            leaves.filter(|(_, node)| node.ty.dtype == DType::F64).map(|(id, _)| id).collect();
        let mut pairs = Vec::new();
        for origin in graph.outputs.clone() {
            let shape = graph.ty(origin).extents().unwrap();
            let one = graph.add_uniform(Literal::from_i64(1, DType::F64), &shape, None);
            pairs.extend([origin, one]);
        }
        let operands: Vec<NodeId> = variables.iter().chain(&pairs).copied().collect();
        for index in 0..variables.len() {
            let grad = Grad {
                index: index as u16,
                variables: variables.len() as u16,
                known: (pairs.len() / 2) as u16,
                constants: 0,
                has_cost: false,
                disconnected: Disconnected::Zero,
            };
            let gradient = graph.add(Op::Grad(Box::new(grad)), &operands, None);
            graph.outputs.push(gradient);
        }
        graph = differentiate(&graph, &mut Graph::clone).unwrap();
    }
    graph
}

/// A sample's operator with operands that are computed and a result that is used: `k * op(-(-x)..)`.
fn mid_graph(sample: &samples::Sample) -> Option<Question> {
    let graph = concrete(&sample.graph, &sample.inputs).ok()?;
    let mut variables = Vec::new();
    let mut result = graph.rebuilt(|out, from, id, operands| {
        let copy = out.add_like(from, id, operands);
        if matches!(from.node(id).op, Op::Leaf(_)) && from.ty(id).dtype == DType::F64 {
            variables.push(copy);
            let minus = out.add(Op::Map(ScalarFn::Neg), &[copy], None);
            return out.add(Op::Map(ScalarFn::Neg), &[minus], None);
        }
        copy
    });
    let output = *result.outputs.first()?;
    if variables.is_empty() || result.ty(output).dtype != DType::F64 {
        return None;
    }
    let shape = result.ty(output).extents()?;
    let factor = result.add_uniform(Literal::from_f64(1.25, DType::F64), &shape, None);
    let scaled = result.add(Op::Map(ScalarFn::Mul), &[output, factor], None);
    result.outputs.clear();
    Some(Question { graph: result, inputs: sample.inputs.clone(), variables, origins: vec![scaled] })
}

#[test]
fn every_operator_has_its_derivative() {
    let all = [samples::operators(), samples::functions(), samples::function_shapes()].concat();
    let (mut asked, mut compared) = (0, 0);
    for sample in &all {
        let Some(question) = mid_graph(sample) else { continue };
        let mut generator = Generator(asked as u64);
        let fail = |e: String| panic!("{}: {e}", sample.title);
        let answer = question.answer(&mut generator).unwrap_or_else(fail);
        let agreed =
            question.check(&answer, &mut generator).unwrap_or_else(|e| panic!("{}: {e}", sample.title));
        asked += question.variables.len();
        compared += agreed;
    }
    // Functions at the edges of the type have infinite slopes; they are compared at ordinary points below.
    assert!(compared * 3 > asked, "{compared} of {asked}");
}

/// Where central differences are taken: within 3 of an end of where the function is smooth, and not too near.
fn interval(f: ScalarFn) -> (f64, f64) {
    match f.properties().smooth {
        (low, high) if low.is_finite() && high.is_finite() => (0.9 * low, 0.9 * high),
        (low, _) if low.is_finite() => (low + 0.2, low + 3.0),
        (_, high) if high.is_finite() => (high - 3.0, high - 0.1),
        _ => (0.05, 2.95),
    }
}

#[test]
fn functions_agree_with_central_differences() {
    const STEP: f64 = 1e-5;
    for &f in ScalarFn::ALL {
        for dtypes in samples::signatures(f).iter().filter(|s| s.last() == Some(&DType::F64)) {
            let result = f.result_dtype(dtypes);
            if result != Some(DType::F64) {
                continue;
            }
            let (low, high) = interval(f);
            let mut generator = Generator(3);
            for _ in 0..40 {
                let operands: Vec<Literal> =
                    dtypes.iter().map(|dtype| generator.between(low, high, *dtype)).collect();
                // No point within a step of a place where the function jumps or bends.
                let bends = operands.iter().any(|x| (x.to_f64() * 2.0).fract().abs() < 1e-3)
                    || operands.windows(2).any(|w| {
                        let ratio = w[0].to_f64() / w[1].to_f64();
                        (ratio - ratio.round()).abs() < 1e-3
                    });
                if bends {
                    continue;
                }
                for place in 0..dtypes.len() {
                    if dtypes[place] != DType::F64 {
                        continue;
                    }
                    let slope = reverse_slope(f, &operands, place);
                    let at = |x: f64| {
                        let mut moved = operands.clone();
                        moved[place] = Literal::from_f64(x, DType::F64);
                        f.eval(&moved).unwrap().to_f64()
                    };
                    let x = operands[place].to_f64();
                    let difference = (at(x + STEP) - at(x - STEP)) / (2.0 * STEP);
                    let near = (slope - difference).abs() <= 1e-6 * (1.0 + slope.abs());
                    assert!(
                        near,
                        "{f} of {operands:?}, operand {place}: {slope:e}, difference {difference:e}"
                    );
                }
            }
        }
    }
}

/// The derivative by the differentiator at one point.
fn reverse_slope(f: ScalarFn, operands: &[Literal], place: usize) -> f64 {
    let mut graph = Graph::new();
    let leaves: Vec<Tensor> = operands.iter().map(|x| input("x", x.dtype(), &[])).collect();
    let ids: Vec<NodeId> = leaves
        .iter()
        .map(|t| {
            graph.inputs.push(t.leaf().unwrap().id);
            graph.add_leaf(t.leaf().unwrap())
        })
        .collect();
    let value = graph.add(Op::Map(f), &ids, None);
    let question = Grad {
        index: 0,
        variables: 1,
        known: 0,
        constants: 0,
        has_cost: true,
        disconnected: Disconnected::Zero,
    };
    let gradient = graph.add(Op::Grad(Box::new(question)), &[value, ids[place]], None);
    graph.outputs.push(gradient);
    let graph = differentiate(&graph, &mut Graph::clone).unwrap();
    let inputs: Vec<Array> = operands.iter().map(|x| Array::full(&[], *x).unwrap()).collect();
    interpret(&graph, &inputs).unwrap().outputs[0].item().unwrap()
}

/// Interprets expressions of some inputs.
fn values(inputs: &[(&Tensor, Array)], outputs: &[&Tensor]) -> Vec<Vec<f64>> {
    let request = Request {
        inputs: inputs.iter().map(|(t, _)| (*t).clone()).collect(),
        outputs: outputs.iter().map(|t| (*t).clone()).collect(),
        unused: Unused::Ignore,
        ..Request::default()
    };
    let arrays: Vec<Array> = inputs.iter().map(|(_, a)| a.clone()).collect();
    let graph = concrete(&collect(&request).unwrap(), &arrays).unwrap();
    let graph = differentiate(&graph, &mut Graph::clone).unwrap();
    let outputs = interpret(&graph, &arrays).unwrap().outputs;
    outputs.iter().map(|a| (0..a.len()).map(|i| a.get(i).to_f64()).collect()).collect()
}

fn vector(data: &[f64]) -> (Tensor, Array) {
    (input("x", DType::F64, &[Some(data.len())]), Array::vector(data))
}

/// The gradient of the sum of what `formula` makes of a vector.
fn slopes_of(data: &[f64], formula: impl Fn(&Tensor) -> Tensor) -> Vec<f64> {
    let (x, a) = vector(data);
    let gradient = grad(&formula(&x).sum(All), [&x]).remove(0);
    values(&[(&x, a)], &[&gradient]).remove(0)
}

#[test]
fn ties_and_edges_follow_the_documentation() {
    assert_eq!(slopes_of(&[1.0, 3.0, 3.0], |x| x.max(All)), [0.0, 0.5, 0.5]);
    assert_eq!(slopes_of(&[1.0, 1.0, 1.0], |x| x.min(All)), [1.0 / 3.0; 3]);
    assert_eq!(slopes_of(&[-2.0, 0.0, 3.0], |x| x.abs()), [-1.0, 0.0, 1.0]);
    assert_eq!(slopes_of(&[-2.0, 0.0, 3.0], |x| x.relu()), [0.0, 1.0, 1.0]);
    assert_eq!(slopes_of(&[-1.0, 0.0, 0.5, 1.0, 2.0], |x| x.clip(0.0, 1.0)), [0.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(slopes_of(&[1.0, 2.0], |x| constant(Array::vector(&[1.0, 1.0])).maximum(x)), [0.0, 1.0]);
    assert_eq!(slopes_of(&[0.0, 2.0], |x| x.pow(0.0)), [0.0, 0.0]);
    assert_eq!(slopes_of(&[0.0, 2.0], |x| x.pow(2.0)), [0.0, 4.0]);
    assert_eq!(slopes_of(&[3.0, 0.5], |x| constant(Array::vector(&[0.0, 0.0])).pow(x)), [0.0, 0.0]);
    assert_eq!(slopes_of(&[1.5, -1.5], |x| x.floor() + x.round() + x.sign() + x.floordiv(2.0)), [0.0, 0.0]);
    assert_eq!(slopes_of(&[7.5, -7.5], |x| x.clone() % 2.0), [1.0, 1.0]);
    assert_eq!(slopes_of(&[-1.0, 4.0], |x| switch(x.gt(0.0), x, -x)), [-1.0, 1.0]);
}

/// The product of the others, also where one or several are zero.
#[test]
fn products_with_zeros() {
    assert_eq!(slopes_of(&[2.0, 3.0, 4.0], |x| x.prod(All)), [12.0, 8.0, 6.0]);
    assert_eq!(slopes_of(&[2.0, 0.0, 4.0], |x| x.prod(All)), [0.0, 8.0, 0.0]);
    assert_eq!(slopes_of(&[0.0, 0.0, 4.0], |x| x.prod(All)), [0.0, 0.0, 0.0]);
    // Second derivatives: the products of the elements but two.
    let hessian = |elements: &[f64]| -> Vec<Vec<f64>> {
        let (x, a) = vector(elements);
        let first = grad(&x.prod(All), [&x]).remove(0);
        let rows: Vec<Tensor> =
            (0..elements.len()).map(|row| grad(&first.take(row as i64), [&x]).remove(0)).collect();
        values(&[(&x, a)], &rows.iter().collect::<Vec<_>>())
    };
    assert_eq!(hessian(&[2.0, 3.0, 4.0]), [[0.0, 4.0, 3.0], [4.0, 0.0, 2.0], [3.0, 2.0, 0.0]]);
    assert_eq!(hessian(&[2.0, 0.0, 4.0]), [[0.0, 4.0, 0.0], [4.0, 0.0, 2.0], [0.0, 2.0, 0.0]]);
    assert_eq!(hessian(&[0.0, 0.0, 4.0]), [[0.0, 4.0, 0.0], [4.0, 0.0, 0.0], [0.0, 0.0, 0.0]]);
    assert_eq!(hessian(&[0.0, 0.0, 0.0]), [[0.0; 3]; 3]);
}

#[test]
fn nothing_flows_through_what_is_constant() {
    let (x, a) = vector(&[2.0, 3.0]);
    let square = x.sqr();
    let cost = (&square * &x).sum(All);
    let whole = grad(&cost, [&x]).remove(0);
    let cut = Gradient::of(&cost).consider_constant([&square]).wrt([&x]).remove(0);
    let stopped = grad(&(square.stop_gradient() * &x).sum(All), [&x]).remove(0);
    let found = values(&[(&x, a)], &[&whole, &cut, &stopped]);
    assert_eq!(found, [vec![12.0, 27.0], vec![4.0, 9.0], vec![4.0, 9.0]]);
}

#[test]
fn known_cotangents_are_where_it_begins() {
    let (x, a) = vector(&[2.0, 3.0]);
    let square = x.sqr();
    let c = constant(Array::vector(&[10.0, 100.0]));
    let alone = Gradient::of_known().known(&square, &c).wrt([&x]).remove(0);
    // Beside a cost they add up.
    let both = Gradient::of(&x.sum(All)).known(&square, &c).wrt([&x]).remove(0);
    let twice = Gradient::of(&square.sum(All)).known(&square, &c).wrt([&x]).remove(0);
    let found = values(&[(&x, a)], &[&alone, &both, &twice]);
    assert_eq!(found, [vec![40.0, 600.0], vec![41.0, 601.0], vec![44.0, 606.0]]);
}

#[test]
fn variables_in_between_and_upstream_of_each_other() {
    let (x, a) = vector(&[2.0, 3.0]);
    let y = x.sqr();
    let z = &y * &x;
    let cost = (&z + &y).sum(All);
    let gradients = grad(&cost, [&x, &y, &z, &cost]);
    let found = values(&[(&x, a)], &gradients.iter().collect::<Vec<_>>());
    // z = x^3, y = x^2: 3x^2 + 2x; x + 1; 1; 1.
    assert_eq!(found, [vec![16.0, 33.0], vec![3.0, 4.0], vec![1.0, 1.0], vec![1.0]]);
}

#[test]
fn disconnected_variables_are_zero_on_request() {
    let (x, a) = vector(&[2.0, 3.0]);
    let other = input("other", DType::F64, &[Some(3)]);
    let cost = (&x * other.extent(0).cast(DType::F64) + x.floor()).sum(All);
    let gradients = Gradient::of(&cost).disconnected(Disconnected::Zero).wrt([&x, &other]);
    let found = values(&[(&x, a), (&other, Array::vector(&[0.0; 3]))], &gradients.iter().collect::<Vec<_>>());
    assert_eq!(found, [vec![3.0, 3.0], vec![0.0; 3]]);
}

/// Hessian of a quadratic form and a third derivative.
#[test]
fn gradients_of_gradients() {
    let (x, a) = vector(&[1.0, 2.0]);
    let m = constant(Array::new(&[2, 2], &[1.0, 2.0, 3.0, 4.0]).unwrap());
    let form = (x.dot(&m) * &x).sum(All);
    let first = grad(&form, [&x]).remove(0);
    let rows: Vec<Tensor> =
        (0..2).map(|i| grad(&first.index(hypatia_graph::ix![i]), [&x]).remove(0)).collect();
    let mut power = x.pow(4.0).sum(All);
    for _ in 0..3 {
        power = grad(&power, [&x]).remove(0).sum(All);
    }
    let found = values(&[(&x, a)], &[&first, &rows[0], &rows[1], &power]);
    assert_eq!(found, [vec![12.0, 21.0], vec![2.0, 5.0], vec![5.0, 8.0], vec![72.0]]);
}
