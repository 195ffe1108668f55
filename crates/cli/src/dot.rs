//! Graphs and programs in the language of Graphviz.

use hypatia::Graph;
use hypatia::codegen::kernel::{BufferId, Place, Program};
use hypatia::graph::{LeafId, NodeId, Op};
use petgraph::dot::{Config, Dot};
use petgraph::graph::{DiGraph, NodeIndex};

/// A tensor graph: a box for every node that an output or an update needs, arrows from operands to users.
#[must_use]
pub fn graph_dot(graph: &Graph) -> String {
    let mut drawing = DiGraph::new();
    let live = graph.reachable();
    let mut places: Vec<Option<NodeIndex>> = vec![None; graph.len()];
    let leaf_label = |id: LeafId| graph.leaf(id).map_or_else(|| "?".to_owned(), |leaf| leaf.label());
    for (id, node) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        let what = match (&node.op, graph.name(id)) {
            (Op::Leaf(leaf), _) => leaf_label(*leaf),
            (op, Some(name)) => format!("{name} = {op}"),
            (op, None) => op.to_string(),
        };
        let place = drawing.add_node(format!("{what}\n{}", node.ty));
        for operand in &node.operands {
            if let Some(from) = places[operand.index()] {
                drawing.add_edge(from, place, String::new());
            }
        }
        places[id.index()] = Some(place);
    }
    let mut root = |label: String, id: NodeId| {
        let place = drawing.add_node(label);
        if let Some(from) = places[id.index()] {
            drawing.add_edge(from, place, String::new());
        }
    };
    for (number, id) in graph.outputs.iter().enumerate() {
        root(format!("output {number}"), *id);
    }
    for (leaf, id) in &graph.updates {
        root(format!("update {}", leaf_label(*leaf)), *id);
    }
    write(&drawing)
}

/// A program: a box for every step, and an arrow for every buffer from the step that wrote it last to one that reads it.
#[must_use]
pub fn program_dot(program: &Program) -> String {
    let mut drawing = DiGraph::new();
    // Where the present value of each buffer comes from, and whether a step made it.
    let mut sources: Vec<Option<NodeIndex>> = vec![None; program.buffers.len()];
    let mut made = vec![false; program.buffers.len()];
    let describe = |buffer: BufferId| {
        program.buffers.get(buffer.index()).map_or_else(String::new, |buffer| {
            let place = match buffer.place {
                Place::Input(n) => format!("input {n}"),
                Place::Shared(n) => format!("shared {n}"),
                Place::Constant(n) => format!("constant {n}"),
                Place::Output(n) => format!("output {n}"),
                Place::Arena(offset) => format!("arena {offset}"),
            };
            format!("{place}: {}{:?}", buffer.dtype, buffer.shape.as_slice())
        })
    };
    for (number, step) in program.steps.iter().enumerate() {
        let place = drawing.add_node(format!("{number}: {}", step.label));
        for (param, buffer) in step.kernel.params().iter().zip(&step.arguments) {
            let source = sources[buffer.index()];
            if let Some(from) =
                source.or_else(|| (!param.written).then(|| drawing.add_node(describe(*buffer))))
            {
                sources[buffer.index()] = Some(from);
                drawing.add_edge(from, place, describe(*buffer));
            }
        }
        for (param, buffer) in step.kernel.params().iter().zip(&step.arguments) {
            if param.written {
                sources[buffer.index()] = Some(place);
                made[buffer.index()] = true;
            }
        }
    }
    for (number, buffer) in program.buffers.iter().enumerate() {
        let (Place::Output(_) | Place::Shared(_), true, Some(from)) =
            (&buffer.place, made[number], sources[number])
        else {
            continue;
        };
        let result = drawing.add_node(describe(BufferId(number as u32)));
        drawing.add_edge(from, result, String::new());
    }
    write(&drawing)
}

fn write(drawing: &DiGraph<String, String>) -> String {
    let boxes = |_: &DiGraph<String, String>, _| "shape=box ".to_owned();
    let plain = |_: &DiGraph<String, String>, _| String::new();
    format!("{}", Dot::with_attr_getters(drawing, &[] as &[Config], &plain, &boxes))
}
