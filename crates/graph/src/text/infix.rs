//! Prints the expression of a node as people write it: `x - max(x, axis=1)`.
//!
//! For messages and explanations, not to be compiled: broadcasts, gradient stops and reshapes that only insert or drop
//! axes of extent 1 are left out. What is used twice, has a name or stands too deep is defined after `where`, so the
//! length is that of the graph, not that of the tree. Walks iteratively.

use std::collections::BTreeSet;

use crate::dtype::Literal;
use crate::graph::{Graph, Node, NodeId};
use crate::op::{Along, Bound, Class, Dim, Op, ScanResult, SliceAxis, Start, View, Write};
use crate::scalar::ScalarFn;
use crate::shape::{Extent, TensorType};

/// Operators nested deeper than this are defined apart.
const MAX_DEPTH: usize = 12;

/// How tightly the outermost operator of a text binds its operands.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Binding {
    Comparison,
    Sum,
    Product,
    Sign,
    Power,
    Operand,
}

/// A printed expression.
#[derive(Clone)]
struct Printed {
    text: String,
    binding: Binding,
    depth: usize,
}

impl Printed {
    fn operand(text: String, depth: usize) -> Printed {
        Printed { text, binding: Binding::Operand, depth }
    }

    /// In parentheses where the place binds more tightly.
    fn at(&self, place: Binding) -> String {
        if self.binding >= place { self.text.clone() } else { format!("({})", self.text) }
    }
}

/// The expression of a node in infix notation, followed by `where t1 = ...; t2 = ...` if parts of it are shared.
/// [`super::parse_formula`] reads those of elementwise functions, sums over axes and products of matrices.
pub fn formula(graph: &Graph, node: NodeId) -> String {
    let reached = reached_from(graph, node);
    let uses = count_uses(graph, &reached);
    let mut taken: BTreeSet<String> =
        reached.iter().filter_map(|id| Some(graph.name(*id)?.to_string())).collect();
    let mut definitions: Vec<String> = Vec::new();
    let mut printed: Vec<Option<Printed>> = vec![None; node.index() + 1];
    let mut unnamed = 0;
    for &id in &reached {
        let operands: Vec<Printed> =
            graph.node(id).operands.iter().filter_map(|o| printed.get(o.index())?.clone()).collect();
        let mut text = print(graph, id, &operands);
        let simple = text.depth == 0 || is_transparent(graph, graph.node(id));
        let shared = uses[id.index()] > 1 || text.depth > MAX_DEPTH || graph.name(id).is_some();
        if shared && !simple && id != node {
            let name = match graph.name(id) {
                Some(name) => name.to_string(),
                None => loop {
                    unnamed += 1;
                    let name = format!("t{unnamed}");
                    if taken.insert(name.clone()) {
                        break name;
                    }
                },
            };
            definitions.push(format!("{name} = {}", text.text));
            text = Printed::operand(name, 0);
        }
        printed[id.index()] = Some(text);
    }
    let text = printed.pop().flatten().map(|printed| printed.text).unwrap_or_default();
    if definitions.is_empty() { text } else { format!("{text} where {}", definitions.join("; ")) }
}

/// The nodes that a node depends on and itself, operands first.
fn reached_from(graph: &Graph, node: NodeId) -> Vec<NodeId> {
    let mut reached = BTreeSet::from([node]);
    let mut pending = vec![node];
    while let Some(id) = pending.pop() {
        let shown = shown_operands(graph.node(id));
        pending.extend(graph.node(id).operands[..shown].iter().filter(|o| reached.insert(**o)));
    }
    reached.into_iter().collect()
}

/// How many operands of a node are printed: extents of what is left out are not.
fn shown_operands(node: &Node) -> usize {
    if let Op::Broadcast { .. } = node.op { 1 } else { node.operands.len() }
}

/// For every node, how often it is printed if nothing is defined apart.
fn count_uses(graph: &Graph, reached: &[NodeId]) -> Vec<usize> {
    let mut uses = vec![0; graph.len()];
    if let Some(last) = reached.last() {
        uses[last.index()] = 1;
    }
    for &id in reached.iter().rev() {
        let node = graph.node(id);
        // What is left out hands its own uses on.
        let passed = if is_transparent(graph, node) { uses[id.index()] } else { 1 };
        for operand in &node.operands[..shown_operands(node)] {
            uses[operand.index()] += passed;
        }
    }
    uses
}

/// Whether a node is left out.
fn is_transparent(graph: &Graph, node: &Node) -> bool {
    match node.op.view() {
        Some(View::Broadcast(_) | View::Same) => true,
        Some(View::Reshape) => long_extents(graph.ty(node.operands[0])) == long_extents(&node.ty),
        Some(View::Permute(_) | View::Slice | View::Window(_)) | None => false,
    }
}

fn long_extents(ty: &TensorType) -> Vec<Extent> {
    ty.shape.iter().copied().filter(|extent| *extent != Extent::Known(1)).collect()
}

/// A node on printed operands.
fn print(graph: &Graph, id: NodeId, operands: &[Printed]) -> Printed {
    let node = graph.node(id);
    let first = || operands.first().map_or("", |x| x.text.as_str());
    if is_transparent(graph, node) {
        return operands.first().cloned().unwrap_or_else(|| Printed::operand(String::new(), 0));
    }
    let depth = 1 + operands.iter().map(|x| x.depth).max().unwrap_or(0);
    let call = |name: &str, rest: &str| Printed::operand(format!("{name}({}{rest})", list(operands)), depth);
    let base = || operands.first().map_or(String::new(), |x| x.at(Binding::Operand));
    let along = || node.op.axis().map_or(String::new(), |axis| format!(", axis={axis}"));
    match node.op.class() {
        Class::Leaf(leaf) => {
            let text = graph.name(id).map_or_else(|| format!("c{}", leaf.0), str::to_string);
            Printed::operand(text, 0)
        }
        Class::Literal(value) => literal(value),
        Class::Map(f) => print_map(f, operands, depth),
        Class::Product => infix(operands, "@", Binding::Product, depth),
        Class::Index => match node.op.dims().and_then(|dims| dims.first()) {
            Some(Dim::Known(n)) => Printed::operand(format!("arange({n})"), depth),
            Some(Dim::Operand) => call("arange", ""),
            None => call(node.op.name(), &along()),
        },
        Class::Cast(dtype) => call(dtype.name(), ""),
        Class::Fold(Along::Reduce(_, axes) | Along::Mean(axes)) => {
            let name = node.op.name();
            let rank = graph.ty(node.operands[0]).rank();
            let list: Vec<String> = axes.iter().map(|axis| axis.to_string()).collect();
            match list.as_slice() {
                _ if axes.len() == rank => call(name, ""),
                [axis] => call(name, &format!(", axis={axis}")),
                axes => call(name, &format!(", axis=[{}]", axes.join(", "))),
            }
        }
        Class::Fold(_) => call(node.op.name(), &along()),
        Class::View(View::Permute([1, 0])) => Printed::operand(format!("{}.T", base()), depth),
        Class::View(View::Permute(axes)) => call("transpose", &format!(", {axes:?}")),
        Class::View(View::Reshape) => {
            Printed::operand(format!("reshape({}, {})", first(), shape_of(&node.ty)), depth)
        }
        Class::View(View::Slice | View::Window(_)) => {
            Printed::operand(format!("{}{}", base(), part(&node.op, operands, 1)), depth)
        }
        Class::View(View::Broadcast(_) | View::Same) => Printed::operand(first().to_string(), depth),
        Class::Assembly => {
            let name = match node.op.write() {
                Some(Write::Set) => "set",
                Some(Write::Add) => "inc",
                None => {
                    let text = format!("concatenate([{}]{})", list(operands), along());
                    return Printed::operand(text, depth);
                }
            };
            let value = operands.get(1).map_or("", |y| y.text.as_str());
            Printed::operand(format!("{name}({}{}, {value})", base(), part(&node.op, operands, 2)), depth)
        }
        Class::Indexed(0) if node.op.write().is_none() => {
            let indices = operands.get(1).map_or("", |indices| indices.text.as_str());
            Printed::operand(format!("{}[{indices}]", base()), depth)
        }
        Class::Indexed(batch) => call(node.op.name(), &format!(", batch={batch}")),
        Class::Convolution(_) => call(node.op.name(), ""),
        Class::Random(key) => Printed::operand(format!("random({}, key={key})", first()), depth),
        Class::Scan(scan) => {
            let result = match scan.result {
                ScanResult::Rows(output) => format!("rows {output}"),
                ScanResult::Last(carry) => format!("last {carry}"),
                ScanResult::Steps => "steps".to_string(),
            };
            call("scan", &format!(", {result}"))
        }
        Class::Gradient(grad) => {
            let variable = usize::from(grad.has_cost) + usize::from(grad.index);
            let variable = operands.get(variable).map_or("", |x| x.text.as_str());
            let cost = if grad.has_cost { first() } else { "known cotangents" };
            Printed::operand(format!("grad({cost}, {variable})"), depth)
        }
    }
}

fn list(operands: &[Printed]) -> String {
    operands.iter().map(|x| x.text.as_str()).collect::<Vec<_>>().join(", ")
}

fn shape_of(ty: &TensorType) -> String {
    let extents: Vec<String> = ty.shape.iter().map(|extent| extent.to_string()).collect();
    format!("[{}]", extents.join(", "))
}

/// A literal without its type; whole floats as integers.
fn literal(value: Literal) -> Printed {
    let x = value.to_f64();
    let text = match value {
        Literal::F32(_) | Literal::F64(_) if x.is_nan() => "nan".to_string(),
        Literal::F32(_) | Literal::F64(_)
            if x == x.trunc() && x.abs() < 1e6 && x.to_bits() != (-0.0f64).to_bits() =>
        {
            format!("{x}")
        }
        Literal::Bool(_)
        | Literal::U8(_)
        | Literal::I32(_)
        | Literal::I64(_)
        | Literal::F32(_)
        | Literal::F64(_) => value.to_string(),
    };
    let binding = if text.starts_with('-') { Binding::Sign } else { Binding::Operand };
    Printed { text, binding, depth: 0 }
}

fn infix(operands: &[Printed], sign: &str, binding: Binding, depth: usize) -> Printed {
    let [left, right] = operands else { return Printed::operand(list(operands), depth) };
    // Operators group from the left; comparisons do not group, and powers group from the right.
    let (left_place, right_place) = match binding {
        Binding::Comparison => (Binding::Sum, Binding::Sum),
        Binding::Sum => (Binding::Sum, Binding::Product),
        Binding::Product => (Binding::Product, Binding::Sign),
        Binding::Sign | Binding::Power | Binding::Operand => (Binding::Operand, Binding::Sign),
    };
    Printed { text: format!("{} {sign} {}", left.at(left_place), right.at(right_place)), binding, depth }
}

fn print_map(f: ScalarFn, operands: &[Printed], depth: usize) -> Printed {
    const INFIX: [(ScalarFn, &str, Binding); 13] = [
        (ScalarFn::Add, "+", Binding::Sum),
        (ScalarFn::Sub, "-", Binding::Sum),
        (ScalarFn::Mul, "*", Binding::Product),
        (ScalarFn::Div, "/", Binding::Product),
        (ScalarFn::FloorDiv, "//", Binding::Product),
        (ScalarFn::Mod, "%", Binding::Product),
        (ScalarFn::Pow, "**", Binding::Power),
        (ScalarFn::Lt, "<", Binding::Comparison),
        (ScalarFn::Le, "<=", Binding::Comparison),
        (ScalarFn::Gt, ">", Binding::Comparison),
        (ScalarFn::Ge, ">=", Binding::Comparison),
        (ScalarFn::Eq, "==", Binding::Comparison),
        (ScalarFn::Ne, "!=", Binding::Comparison),
    ];
    if let Some((_, sign, binding)) = INFIX.iter().find(|(g, ..)| *g == f) {
        return infix(operands, sign, *binding, depth);
    }
    if let (ScalarFn::Neg, [x]) = (f, operands) {
        // `-2` would be read as a number.
        let text = if x.depth == 0 && x.text.starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            format!("-({})", x.text)
        } else {
            format!("-{}", x.at(Binding::Sign))
        };
        return Printed { text, binding: Binding::Sign, depth };
    }
    Printed::operand(format!("{}({})", f.name(), list(operands)), depth)
}

/// The part that a slice or window reads or writes, as `[1:3, ::-1]`; its scalars begin at operand `main`.
fn part(op: &Op, operands: &[Printed], main: usize) -> String {
    let mut scalars = operands.get(main..).unwrap_or(&[]).iter();
    let mut scalar = || scalars.next().map_or_else(|| "?".to_string(), |x| x.at(Binding::Sum));
    let step = |step: i64| if step == 1 { String::new() } else { format!(":{step}") };
    let axes: Vec<String> = if let Some(axes) = op.slice() {
        let mut bound = |bound: Bound| match bound {
            Bound::End => String::new(),
            Bound::Known(n) => n.to_string(),
            Bound::Operand => scalar(),
        };
        let mut written = |axis: &SliceAxis| match *axis {
            SliceAxis::At(at) => bound(at),
            SliceAxis::Part { start, stop, .. } => format!("{start}:{stop}"),
            SliceAxis::Range { start, stop, step: by } => {
                format!("{}:{}{}", bound(start), bound(stop), step(by))
            }
        };
        axes.iter().map(&mut written).collect()
    } else if let Some(axes) = op.window() {
        let ranges = axes.iter().map(|a| match a.start {
            Start::Known(start) => {
                let stop = start as i64 + a.step * a.len as i64;
                // Counting down to the first element has no stop that can be written.
                let stop = if stop < 0 { String::new() } else { stop.to_string() };
                format!("{start}:{stop}{}", step(a.step))
            }
            Start::Operand | Start::Range => {
                let start = scalar();
                format!("{start}:{start} + {}", a.len)
            }
        });
        ranges.collect()
    } else {
        Vec::new()
    };
    format!("[{}]", axes.join(", "))
}
