//! The text of graphs and programs after each stage: of small graphs kept as text, and of the training steps of logistic
//! regression and a multilayer perceptron, built here. `HYPATIA_BLESS=1` writes the expected texts anew.

use std::collections::BTreeMap;
use std::fmt::Write;

use hypatia::kernels::features::Features;
use hypatia::scan::{Next, Scan};
use hypatia::{All, Array, Builder, DType, Function, Numerics, Tensor, grad, ix, scalar, shared};
use hypatia_codegen::cpu::Plan;
use hypatia_graph::differentiate::differentiate;
use hypatia_graph::specialise::{Arguments, specialise};
use hypatia_graph::text::parse;
use hypatia_graph::verify::{Stage, verify};
use hypatia_graph::{Graph, TensorType};
use hypatia_rewrite::{Options, simplify};

use crate::snapshot::{golden, read};

fn zeros(shape: &[usize]) -> Array {
    Array::zeros(DType::F32, shape).unwrap()
}

fn compiled(i: &Tensor, cost: &Tensor, updates: &[(&hypatia::Shared, Tensor)]) -> Function {
    let function = Builder::new().inputs(&[i]).outputs(&[cost]).updates(updates).threads(1).compile();
    function.unwrap_or_else(|e| panic!("{e}"))
}

/// The training step of the tutorial's logistic regression, batch by number from resident data.
fn logistic_regression() -> Function {
    let (x, y) = (shared("x", zeros(&[1800, 784])), shared("y", Array::zeros(DType::I32, &[1800]).unwrap()));
    let (w, b) = (shared("W", zeros(&[784, 10])), shared("b", zeros(&[10])));
    let i = scalar::<i64>("index");
    let rows = |t: &Tensor| t.index(ix![&i * 600..(&i + 1) * 600]);
    let p = (rows(&x).dot(&w) + &b).softmax(1);
    let cost = -p.log().pick(rows(&y)).mean(All);
    let g = grad(&cost, [&w, &b]);
    compiled(&i, &cost, &[(&w, &w - &g[0] * 0.13), (&b, &b - &g[1] * 0.13)])
}

/// The training step of the tutorial's multilayer perceptron with its penalty on the squares of the weights.
fn multilayer_perceptron() -> Function {
    let (x, y) = (shared("x", zeros(&[60, 784])), shared("y", Array::zeros(DType::I32, &[60]).unwrap()));
    let (hidden_w, hidden_b) = (shared("hidden_W", zeros(&[784, 500])), shared("hidden_b", zeros(&[500])));
    let (w, b) = (shared("W", zeros(&[500, 10])), shared("b", zeros(&[10])));
    let i = scalar::<i64>("index");
    let rows = |t: &Tensor| t.index(ix![&i * 20..(&i + 1) * 20]);
    let hidden = (rows(&x).dot(&hidden_w) + &hidden_b).tanh().named("hidden");
    let p = (hidden.dot(&w) + &b).softmax(1);
    let penalty = hidden_w.sqr().sum(All) + w.sqr().sum(All);
    let cost = -p.log().pick(rows(&y)).mean(All) + penalty * 0.0001;
    let parameters = [&hidden_w, &hidden_b, &w, &b];
    let g = grad(&cost, parameters);
    let updates: Vec<_> = parameters.iter().zip(&g).map(|(p, g)| (*p, *p - g * 0.01)).collect();
    compiled(&i, &cost, &updates)
}

fn stages(function: &Function) -> String {
    let stages = function.stages().unwrap();
    let mut text = String::new();
    writeln!(text, "== collected\n{}", function.graph()).unwrap();
    writeln!(text, "== specialised\n{}", stages.graph).unwrap();
    writeln!(text, "== simplified\n{}", stages.simplified).unwrap();
    writeln!(text, "== program\n{}", stages.program).unwrap();
    text
}

#[test]
fn logistic_regression_at_each_stage() {
    golden("logistic_regression.txt", &stages(&logistic_regression()));
}

#[test]
fn multilayer_perceptron_at_each_stage() {
    golden("multilayer_perceptron.txt", &stages(&multilayer_perceptron()));
}

/// What the processor does for a program, on every machine alike: without vector extensions, on two threads.
fn plan(function: &Function) -> String {
    let program = function.stages().unwrap().program.clone();
    Plan::new(program, &Features::portable(), 2).unwrap().to_string()
}

#[test]
fn plans_of_training_steps() {
    golden("plan_logistic_regression.txt", &plan(&logistic_regression()));
    golden("plan_multilayer_perceptron.txt", &plan(&multilayer_perceptron()));
}

/// A scan whose matrix is packed before it, and one that is a single function.
#[test]
fn plans_of_scans() {
    let (x, w) = (shared("x", zeros(&[20, 40])), shared("w", zeros(&[40, 40])));
    let layers = Scan::new().carry(&x).steps(5).run(|step| {
        let x = step.carries[0].dot(&w).tanh();
        Next::new().carry(&x).output(x.sum(All))
    });
    let start = scalar::<f32>("start");
    let root = Scan::new().carry(&start).steps(9).run(|step| {
        let x = &step.carries[0];
        let next = (x + 2.0 / x) * 0.5;
        Next::new().carry(&next).until((&next - x).abs().lt(1e-6))
    });
    let outputs = [&layers.outputs[0], &root.last[0], &root.steps];
    let updates = [(&x, layers.last[0].clone())];
    let builder = Builder::new().inputs(&[&start]).outputs(&outputs).updates(&updates).threads(1);
    golden("plan_scans.txt", &plan(&builder.compile().unwrap_or_else(|e| panic!("{e}"))));
}

/// Compiling twice gives the same text to the letter.
#[test]
fn compiling_is_deterministic() {
    assert_eq!(stages(&logistic_regression()), stages(&logistic_regression()));
}

/// The graph after the stage that a file asks for.
fn after(stage: &str, graph: &Graph, shapes: &BTreeMap<String, Vec<usize>>) -> String {
    let mut arguments = Arguments::default();
    for id in &graph.inputs {
        let leaf = graph.leaf(*id).unwrap();
        if let Some(shape) = leaf.name.as_deref().and_then(|name| shapes.get(name)) {
            assert!(leaf.ty.accepts(&TensorType::known(leaf.ty.dtype, shape)));
            arguments.shapes.insert(*id, shape.as_slice().into());
        }
    }
    let specialised = specialise(graph, &arguments).unwrap_or_else(|e| panic!("{e:?}"));
    verify(&specialised, Stage::Specialised).unwrap_or_else(|e| panic!("{e}"));
    if stage == "specialised" {
        return specialised.to_string();
    }
    let plain = differentiate(&specialised, &mut Graph::clone).unwrap_or_else(|e| panic!("{e}"));
    verify(&plain, Stage::Differentiated).unwrap_or_else(|e| panic!("{e}"));
    if stage == "differentiated" {
        return plain.to_string();
    }
    let numerics = if stage == "strict" { Numerics::Strict } else { Numerics::Real };
    let options = |gradients_taken| Options { numerics, gradients_taken };
    let taken = differentiate(&specialised, &mut |g| simplify(g, options(false)).0).unwrap();
    let simplified = simplify(&taken, options(true)).0;
    verify(&simplified, Stage::Differentiated).unwrap_or_else(|e| panic!("{e}"));
    match stage {
        "strict" | "simplified" => simplified.to_string(),
        "program" => hypatia_codegen::compile(&simplified).unwrap_or_else(|e| panic!("{e}")).to_string(),
        _ => panic!("no stage is called `{stage}`"),
    }
}

/// Files of sections: `== title`, the graph, then for each stage a line `-- stage` (with the shapes of symbolic inputs)
/// and the expected text, which blessing writes.
#[test]
fn graphs_after_each_stage() {
    for name in ["slices.txt", "gradients.txt", "stability.txt", "fusion.txt"] {
        let text = read(name);
        assert!(!text.is_empty(), "{name} is missing");
        let mut result = String::new();
        for section in text.split("== ").skip(1) {
            let (title, rest) = section.split_once('\n').unwrap();
            let mut parts = rest.split("-- ");
            let source = parts.next().unwrap().trim_end();
            let graph = parse(source).unwrap_or_else(|e| panic!("{name}, {title}: {e}"));
            write!(result, "== {title}\n{source}\n").unwrap();
            for part in parts {
                let question = part.lines().next().unwrap();
                let mut words = question.split(' ');
                let stage = words.next().unwrap();
                let shapes = words.map(|word| {
                    let (input, extents) = word.split_once('=').unwrap();
                    (input.to_string(), extents.split('x').map(|n| n.parse().unwrap()).collect())
                });
                let found = after(stage, &graph, &shapes.collect());
                write!(result, "-- {question}\n{}\n", found.trim_end()).unwrap();
            }
            result += "\n";
        }
        golden(name, &result);
    }
}
