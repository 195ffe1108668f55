//! The text form of graphs: one line a node, and [`parse`] reads what `Display` prints.
//!
//! ```text
//! input %x: f32[600, 784]
//! shared %W: f32[784, 10]
//! %0 = dot(%x, %W) : f32[600, 10]
//! %1 = sum{axes=[1]}(%0) : f32[600]
//! output %1
//! update %W = %2
//! ```
//!
//! Numbers stand for nodes without a name, names for the others; equal names are told apart by a suffix `.1`, `.2`.
//! Literals stand where they are used, an extent or bound given as an operand is `?`. The body of a scan is a block
//! before its first use, with names of its own; the results of the scan refer to it:
//!
//! ```text
//! body b0 {
//!   sequence %x: f32[3]
//!   captured %w: f32[3]
//!   carry %h: f32[3]
//!   %0 = mul(%w, %h) : f32[3]
//!   %1 = add(%0, %x) : f32[3]
//!   row %1
//!   next %h = %1
//! }
//! %0 = scan{body=b0, result=rows 0, steps=5}(%xs, %w, %h0) : f32[5, 3]
//! %1 = scan{body=b0, result=last 0, steps=5}(%xs, %w, %h0) : f32[3]
//! ```
//!
//! A condition to end at is `until %2` behind the rows. A shared variable of the function whose updates the scan gives as
//! last values of carries is `updates %W` at the end of the body; this one name is that of the function. Sites are not
//! kept, and shared variables are read back as zeros; everything else returns: printing what was read gives the same text.
//! Formulas in infix notation are [`parse_formula`] and [`formula`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use crate::array::Array;
use crate::body::Body;
use crate::dtype::{DType, Literal};
use crate::graph::{Graph, NodeId};
use crate::leaf::{Leaf, LeafKind};
use crate::op::{
    Along, Border, Bound, Class, ConvAxis, Dim, Disconnected, LeafId, Op, Scan, ScanResult, SliceAxis, Start,
    View, WindowAxis,
};

mod formula;
mod infix;
mod lexer;
mod parse;
pub(crate) mod shown;

pub use formula::{Formula, parse_formula};
pub use infix::formula;
pub use parse::parse;
pub use shown::{Few, abridged};

/// The most characters of a text that an error shows.
const LINE: usize = 80;

/// Text that is not a graph or a formula: where, and what stood there instead.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParseError {
    /// Line, counted from 1.
    pub line: usize,
    /// Column in characters, counted from 1.
    pub column: usize,
    /// What could have stood there.
    pub expected: String,
    /// What does.
    pub found: String,
    /// The text of the line.
    pub text: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let margin = self.line.to_string();
        let found = abridged(&self.found, LINE);
        writeln!(f, "error: expected {}, found {found}", abridged(&self.expected, LINE))?;
        // Of a long line only what is near the place is shown.
        let before = self.column.saturating_sub(1);
        let from = if before < LINE { 0 } else { before - LINE / 2 };
        let near: String = self.text.chars().skip(from).take(LINE).collect();
        let begin = if from > 0 { "... " } else { "" };
        let end = if self.text.chars().nth(from + LINE).is_some() { " ..." } else { "" };
        // A tab would move the caret away from what it points at.
        writeln!(f, "{margin} | {begin}{}{end}", near.replace('\t', " "))?;
        let (margin, indent) = (" ".repeat(margin.len()), " ".repeat(begin.len() + before - from));
        write!(f, "{margin} | {indent}^")
    }
}

impl std::error::Error for ParseError {}

/// The names that nodes and leaves bear in text.
struct Names {
    of_nodes: Vec<Option<String>>,
    of_leaves: BTreeMap<LeafId, String>,
}

/// Gives every name once.
#[derive(Default)]
struct Namer {
    taken: BTreeSet<String>,
    unnamed: usize,
}

impl Namer {
    fn give(&mut self, name: Option<&str>) -> String {
        let Some(name) = name else {
            let number = self.unnamed;
            self.unnamed += 1;
            return format!("%{number}");
        };
        let mut unique = name.to_string();
        let mut suffix = 0;
        while !self.taken.insert(unique.clone()) {
            suffix += 1;
            unique = format!("{name}.{suffix}");
        }
        written_name(&unique)
    }
}

/// `%name`, in quotes where it is not a plain word or could be taken for the number of an unnamed node.
fn written_name(name: &str) -> String {
    let plain = name.chars().all(lexer::is_name_character) && !name.chars().all(|c| c.is_ascii_digit());
    if plain { format!("%{name}") } else { format!("%{name:?}") }
}

/// The leaves in the order of their lines: inputs as called, then the others by identity, `more` of them.
fn leaves_in_order(graph: &Graph, more: impl Iterator<Item = LeafId>) -> Vec<LeafId> {
    let used = graph.nodes().filter_map(|(_, node)| if let Op::Leaf(id) = node.op { Some(id) } else { None });
    let others = used.chain(graph.updates.iter().map(|(id, _)| *id)).chain(more);
    let others: BTreeSet<LeafId> = others.filter(|id| !graph.inputs.contains(id)).collect();
    graph.inputs.iter().copied().chain(others).collect()
}

/// The shared variables that scans say they update, also scans in scans.
fn updated_by_scans(graph: &Graph) -> BTreeMap<LeafId, &Arc<Leaf>> {
    let mut updated = BTreeMap::new();
    let mut seen: BTreeSet<&Arc<Body>> = BTreeSet::new();
    let mut pending = vec![graph];
    while let Some(graph) = pending.pop() {
        for (_, node) in graph.nodes() {
            let Op::Scan(scan) = &node.op else { continue };
            if seen.insert(&scan.body) {
                updated.extend(scan.body.updated.iter().map(|leaf| (leaf.id, leaf)));
                pending.push(&scan.body.graph);
            }
        }
    }
    updated
}

impl Names {
    fn of(graph: &Graph, leaves: &[LeafId], updated: &BTreeMap<LeafId, &Arc<Leaf>>) -> Names {
        let mut namer = Namer::default();
        let mut of_leaves = BTreeMap::new();
        for &id in leaves {
            let leaf = graph.leaf(id).or_else(|| updated.get(&id).copied());
            let name = leaf.and_then(|leaf| leaf.name.as_deref());
            of_leaves.entry(id).or_insert_with(|| namer.give(name));
        }
        let of_nodes = graph.nodes().map(|(id, node)| {
            if let Op::Leaf(leaf) = node.op {
                return of_leaves.get(&leaf).cloned();
            }
            let name = graph.name(id);
            // A literal without a name stands where it is used.
            let inline = name.is_none() && matches!(node.op, Op::Literal(_));
            (!inline).then(|| namer.give(name))
        });
        let of_nodes = of_nodes.collect();
        Names { of_nodes, of_leaves }
    }

    /// A node as an operand.
    fn operand(&self, graph: &Graph, id: NodeId) -> String {
        if let Some(Some(name)) = self.of_nodes.get(id.index()) {
            return name.clone();
        }
        let literal = (id.index() < graph.len()).then(|| &graph.node(id).op);
        if let Some(Op::Literal(value)) = literal {
            Written(*value).to_string()
        } else {
            format!("%{}", id.0)
        }
    }
}

impl fmt::Display for Graph {
    /// The text form; with `{:#}` constants are cut after 16 elements, for reading only.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_graph(f, self, None, &mut Function::default())
    }
}

/// What has been written of a function.
#[derive(Default)]
struct Function<'g> {
    /// The names of the bodies.
    bodies: BTreeMap<&'g Arc<Body>, String>,
    /// The names of the function's leaves.
    leaves: BTreeMap<LeafId, String>,
    /// How many bodies are being written, one in another.
    depth: usize,
}

/// Writes a graph, or the graph of a body, with the bodies of its scans that have no name yet.
fn write_graph<'g>(
    f: &mut fmt::Formatter<'_>,
    graph: &'g Graph,
    body: Option<&'g Body>,
    written: &mut Function<'g>,
) -> fmt::Result {
    let margin = "  ".repeat(written.depth);
    let updated = if body.is_none() { updated_by_scans(graph) } else { BTreeMap::new() };
    let leaves = leaves_in_order(graph, updated.keys().copied());
    let names = Names::of(graph, &leaves, &updated);
    if body.is_none() {
        written.leaves.clone_from(&names.of_leaves);
    }
    let mut leaf_nodes: BTreeMap<LeafId, NodeId> = BTreeMap::new();
    for (id, node) in graph.nodes() {
        if let Op::Leaf(leaf) = node.op {
            leaf_nodes.insert(leaf, id);
        }
    }
    for (position, id) in leaves.iter().enumerate() {
        let leaf = graph.leaf(*id).or_else(|| updated.get(id).copied());
        let ty = match (leaf_nodes.get(id), leaf) {
            (Some(node), _) => graph.ty(*node).to_string(),
            (None, Some(leaf)) => leaf.ty.to_string(),
            (None, None) => "?".to_string(),
        };
        let name = names.of_leaves.get(id).map_or("", String::as_str);
        let keyword = match (leaf.map(|leaf| &leaf.kind), body) {
            (_, Some(body)) if position < body.sequences => "sequence",
            (_, Some(_)) if position < graph.inputs.len() => "captured",
            (_, None) if position < graph.inputs.len() => "input",
            (Some(LeafKind::Shared(_)), _) => "shared",
            (Some(LeafKind::Constant(_)), _) => "constant",
            (Some(LeafKind::Carry), _) => "carry",
            (Some(LeafKind::Input) | None, _) => "unlisted",
        };
        write!(f, "{margin}{keyword} {name}: {ty}")?;
        if let Some(LeafKind::Constant(value)) = leaf.map(|leaf| &leaf.kind) {
            f.write_str(" = ")?;
            write_elements(f, value)?;
        }
        writeln!(f)?;
    }
    for (id, node) in graph.nodes() {
        let Some(Some(name)) = names.of_nodes.get(id.index()) else { continue };
        if let Op::Leaf(_) = node.op {
            continue;
        }
        if let Op::Literal(_) = node.op {
            writeln!(f, "{margin}{name} = {}", node.op)?;
            continue;
        }
        let operands: Vec<String> = node.operands.iter().map(|o| names.operand(graph, *o)).collect();
        let Op::Scan(scan) = &node.op else {
            writeln!(f, "{margin}{name} = {}({}) : {}", node.op, operands.join(", "), node.ty)?;
            continue;
        };
        if !written.bodies.contains_key(&scan.body) {
            let body_name = format!("b{}", written.bodies.len());
            writeln!(f, "{margin}body {body_name} {{")?;
            written.bodies.insert(&scan.body, body_name);
            written.depth += 1;
            write_graph(f, &scan.body.graph, Some(&scan.body), written)?;
            written.depth -= 1;
            writeln!(f, "{margin}}}")?;
        }
        write!(f, "{margin}{name} = scan")?;
        write_scan(f, scan, written.bodies.get(&scan.body).map(String::as_str))?;
        writeln!(f, "({}) : {}", operands.join(", "), node.ty)?;
    }
    let rows = body.map_or(usize::MAX, |body| body.rows().len());
    for (position, output) in graph.outputs.iter().enumerate() {
        let keyword = match body {
            None => "output",
            Some(_) if position < rows => "row",
            Some(_) => "until",
        };
        writeln!(f, "{margin}{keyword} {}", names.operand(graph, *output))?;
    }
    let keyword = if body.is_some() { "next" } else { "update" };
    for (leaf, id) in &graph.updates {
        let name = names.of_leaves.get(leaf).map_or("", String::as_str);
        writeln!(f, "{margin}{keyword} {name} = {}", names.operand(graph, *id))?;
    }
    for leaf in body.into_iter().flat_map(|body| &body.updated) {
        let name = written.leaves.get(&leaf.id).map_or("", String::as_str);
        writeln!(f, "{margin}updates {name}")?;
    }
    Ok(())
}

/// The attributes of a scan.
fn write_scan(f: &mut fmt::Formatter<'_>, scan: &Scan, body: Option<&str>) -> fmt::Result {
    f.write_str("{")?;
    if let Some(body) = body {
        write!(f, "body={body}, ")?;
    }
    match scan.result {
        ScanResult::Rows(output) => write!(f, "result=rows {output}")?,
        ScanResult::Last(carry) => write!(f, "result=last {carry}")?,
        ScanResult::Steps => f.write_str("result=steps")?,
    }
    f.write_str(", steps=")?;
    scan.steps.write(f)?;
    if let Some(steps) = scan.backward.truncate {
        write!(f, ", truncate={steps}")?;
    }
    f.write_str(if scan.backward.checkpointed { ", checkpointed=true}" } else { "}" })
}

fn write_elements(f: &mut fmt::Formatter<'_>, value: &Array) -> fmt::Result {
    let shown = if f.alternate() { value.len().min(16) } else { value.len() };
    f.write_str("[")?;
    for position in 0..shown {
        write!(f, "{}{}", if position > 0 { ", " } else { "" }, Bare(value.get(position)))?;
    }
    f.write_str(if shown < value.len() { ", ...]" } else { "]" })
}

/// The bits of a NaN whose sign or payload is not the usual one: a literal is its bits.
fn unusual_nan(value: Literal) -> Option<u64> {
    let (bits, usual) = match value {
        Literal::F32(bits) => (u64::from(bits), u64::from(f32::NAN.to_bits())),
        Literal::F64(bits) => (bits, f64::NAN.to_bits()),
        Literal::Bool(_) | Literal::U8(_) | Literal::I32(_) | Literal::I64(_) => return None,
    };
    (value.to_f64().is_nan() && bits != usual).then_some(bits)
}

/// A literal without its element type: `2.0`, `-inf`, `nan`, `nan(0x7fc00001)`.
struct Bare(Literal);

impl fmt::Display for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match unusual_nan(self.0) {
            Some(bits) => write!(f, "nan({bits:#x})"),
            None if self.0.to_f64().is_nan() => f.write_str("nan"),
            None => write!(f, "{}", self.0),
        }
    }
}

/// A literal with its element type: `2.0f32`, `3i64`, `true`, `-inf_f32`, `nan_f64`, `nan_f32(0x7fc00001)`.
struct Written(Literal);

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let dtype = self.0.dtype();
        match unusual_nan(self.0) {
            Some(bits) => write!(f, "nan_{dtype}({bits:#x})"),
            None if dtype == DType::Bool => write!(f, "{}", self.0),
            None if self.0.to_f64().is_finite() => write!(f, "{}{dtype}", self.0),
            None => write!(f, "{}_{dtype}", Bare(self.0)),
        }
    }
}

/// Items between brackets.
struct List<'a, T>(&'a [T]);

impl<T: Item> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, item) in self.0.iter().enumerate() {
            f.write_str(if position > 0 { ", " } else { "" })?;
            item.write(f)?;
        }
        f.write_str("]")
    }
}

/// What stands in attribute lists.
trait Item {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

impl Item for u8 {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Item for Dim {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Known(n) => write!(f, "{n}"),
            Dim::Operand => f.write_str("?"),
        }
    }
}

impl Item for SliceAxis {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bound = |f: &mut fmt::Formatter<'_>, bound: Bound| match bound {
            Bound::End => Ok(()),
            Bound::Known(value) => write!(f, "{value}"),
            Bound::Operand => f.write_str("?"),
        };
        match *self {
            SliceAxis::At(at) => bound(f, at),
            SliceAxis::Part { start, stop, of } => write!(f, "{start}:{stop}/{of}"),
            SliceAxis::Range { start, stop, step } => {
                bound(f, start)?;
                f.write_str(":")?;
                bound(f, stop)?;
                if step == 1 { Ok(()) } else { write!(f, ":{step}") }
            }
        }
    }
}

impl fmt::Display for Border {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Border::Padded(low, high) => write!(f, "{low}:{high}"),
            Border::Half => f.write_str("half"),
            Border::Full => f.write_str("full"),
        }
    }
}

/// One attribute of convolutions, along all axes.
struct Each<'a, T>(&'a [ConvAxis], fn(&ConvAxis) -> T);

impl<T: fmt::Display> fmt::Display for Each<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(|axis| self.1(axis).to_string()).collect();
        write!(f, "[{}]", all.join(", "))
    }
}

/// One attribute of windows, along all axes.
struct PerAxis<'a>(&'a [WindowAxis], fn(&WindowAxis, &mut fmt::Formatter<'_>) -> fmt::Result);

impl fmt::Display for PerAxis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[")?;
        for (position, axis) in self.0.iter().enumerate() {
            f.write_str(if position > 0 { ", " } else { "" })?;
            self.1(axis, f)?;
        }
        f.write_str("]")
    }
}

fn write_windows(f: &mut fmt::Formatter<'_>, axes: &[WindowAxis]) -> fmt::Result {
    let starts = PerAxis(axes, |axis, f| match axis.start {
        Start::Known(n) => write!(f, "{n}"),
        Start::Operand => f.write_str("?"),
        Start::Range => f.write_str("?:"),
    });
    let lengths = PerAxis(axes, |axis, f| write!(f, "{}", axis.len));
    write!(f, "{{starts={starts}, lengths={lengths}")?;
    if axes.iter().any(|axis| axis.step != 1) {
        write!(f, ", steps={}", PerAxis(axes, |axis, f| write!(f, "{}", axis.step)))?;
    }
    f.write_str("}")
}

impl fmt::Display for Op {
    /// The name with the attributes, as in the text form of graphs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Op::Literal(value) = self {
            return write!(f, "{}", Written(*value));
        }
        f.write_str(self.name())?;
        if let Some(axis) = self.axis() {
            return write!(f, "{{axis={axis}}}");
        }
        if let Some(axes) = self.slice() {
            return write!(f, "{{ranges={}}}", List(axes));
        }
        if let Some(axes) = self.window() {
            return write_windows(f, axes);
        }
        let dims = List(self.dims().map_or(&[][..], |dims| dims));
        match self.class() {
            Class::Leaf(id) => write!(f, "{{id={}}}", id.0),
            Class::Index | Class::View(View::Reshape) => write!(f, "{{dims={dims}}}"),
            Class::Cast(dtype) => write!(f, "{{dtype={dtype}}}"),
            Class::Fold(Along::Reduce(_, axes) | Along::Mean(axes)) => write!(f, "{{axes={axes:?}}}"),
            Class::View(View::Broadcast(axes)) => write!(f, "{{axes={}, dims={dims}}}", List(axes)),
            Class::View(View::Permute(axes)) => write!(f, "{{axes={}}}", List(axes)),
            Class::Convolution(axes) => {
                write!(
                    f,
                    "{{borders={}, strides={}",
                    Each(axes, |axis| axis.border),
                    Each(axes, |axis| axis.stride)
                )?;
                let (spreads, dilations) = (Each(axes, |axis| axis.spread), Each(axes, |axis| axis.dilation));
                write!(f, ", spreads={spreads}, dilations={dilations}}}")
            }
            Class::Indexed(batch) => write!(f, "{{batch={batch}}}"),
            Class::Random(key) => write!(f, "{{key={key}, dims={dims}}}"),
            Class::Gradient(grad) => {
                write!(f, "{{index={}, variables={}, known={}", grad.index, grad.variables, grad.known)?;
                let disconnected = match grad.disconnected {
                    Disconnected::Raise => "raise",
                    Disconnected::Zero => "zero",
                };
                let (constants, cost) = (grad.constants, grad.has_cost);
                write!(f, ", constants={constants}, cost={cost}, disconnected={disconnected}}}")
            }
            Class::Scan(scan) => write_scan(f, scan, None),
            Class::Literal(_)
            | Class::Map(_)
            | Class::View(View::Same | View::Slice | View::Window(_))
            | Class::Assembly
            | Class::Fold(_)
            | Class::Product => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
