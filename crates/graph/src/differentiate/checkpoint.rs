//! Scans whose gradient is to need little memory, as scans over chunks.
//!
//! A checkpointed scan of `n` steps of which a gradient is taken becomes a scan over chunks of about the square root of
//! `n` steps, whose body is the scan over one chunk, and a scan over the steps that are left. Of a scan over chunks only
//! the carries are kept for the gradient: its reverse scan makes each chunk again, now with all that the chunk's own
//! gradient wants ([`super::scans`]). A scan that may end early stays whole, as its chunks would have no fixed number; of it
//! too only the carries are kept.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::rules::Rules;
use super::scans::{Scans, add_with_body};
use crate::body::{Body, parameter};
use crate::dtype::Literal;
use crate::graph::{Graph, NodeId, Operands};
use crate::op::{Backward, Dim, Op, Scan, ScanResult, Start, WindowAxis};
use crate::shape::Extent;

/// Fewer steps are not divided.
const SHORTEST: usize = 4;

/// The bodies made so far.
#[derive(Default)]
pub(super) struct Checkpoints {
    /// Those of scans over chunks, by the body of a step and the steps of a chunk.
    of_chunks: HashMap<(Arc<Body>, usize), Arc<Body>>,
    outer: HashSet<Arc<Body>>,
    /// Those with divided scans in them, by what they were.
    holders: HashMap<Arc<Body>, Arc<Body>>,
}

/// The graph with checkpointed scans divided where a gradient reads them, or everywhere.
pub(super) fn checkpointed<'g>(graph: &'g Graph, everywhere: bool, scans: &mut Scans<'_>) -> Cow<'g, Graph> {
    if !holds_checkpointed(graph) {
        return Cow::Borrowed(graph);
    }
    let mut read = vec![everywhere; graph.len()];
    for (id, node) in graph.nodes().rev() {
        if read[id.index()] || matches!(node.op, Op::Grad(_)) {
            for operand in &node.operands {
                read[operand.index()] = true;
            }
        }
    }
    Cow::Owned(graph.rebuilt(|out, from, id, operands| {
        let node = from.node(id);
        let Op::Scan(scan) = &node.op else { return out.add_like(from, id, operands) };
        if !read[id.index()] || scans.checkpoints.outer.contains(&scan.body) {
            return out.add_like(from, id, operands);
        }
        let body = checkpointed_body(&scan.body, scans);
        let whole = Scan { body: body.clone(), ..(**scan).clone() };
        match Parts::of(&whole) {
            None => add_with_body(out, from, id, operands, scan, body),
            Some(parts) => {
                let mut rules = Rules::new(out, node.site);
                let result = parts.result(&mut rules, scans, &whole, operands);
                if let Some(name) = from.name(id) {
                    out.set_name(result, name.into());
                }
                result
            }
        }
    }))
}

fn checkpointed_body(body: &Arc<Body>, scans: &mut Scans<'_>) -> Arc<Body> {
    if !holds_checkpointed(&body.graph) {
        return body.clone();
    }
    if let Some(known) = scans.checkpoints.holders.get(body) {
        return known.clone();
    }
    let made = Arc::new(body.with_graph(checkpointed(&body.graph, true, scans).into_owned()));
    scans.succeed(body, &made);
    scans.checkpoints.holders.insert(body.clone(), made.clone());
    made
}

fn holds_checkpointed(graph: &Graph) -> bool {
    let mut seen = HashSet::new();
    graph.scan_nodes().any(|(key, _)| {
        key.backward.checkpointed || seen.insert(key.body) && holds_checkpointed(&key.body.graph)
    })
}

/// The scans that a scan becomes, in their order.
struct Parts {
    /// First steps through which no gradient flows.
    forgotten: usize,
    /// Chunks and the steps in one.
    chunks: usize,
    size: usize,
    /// Last steps that make no chunk.
    left: usize,
}

impl Parts {
    /// `None` where a scan stays whole.
    fn of(scan: &Scan) -> Option<Parts> {
        let Dim::Known(steps) = scan.steps else { return None };
        let depth = scan.backward.truncate.map_or(steps, |k| steps.min(usize::try_from(k).unwrap_or(steps)));
        if !scan.backward.checkpointed || scan.body.until || depth < SHORTEST {
            return None;
        }
        let size = depth.isqrt() + usize::from(depth.isqrt().pow(2) < depth);
        Some(Parts { forgotten: steps - depth, chunks: depth / size, size, left: depth % size })
    }

    fn result(&self, g: &mut Rules<'_>, scans: &mut Scans<'_>, scan: &Scan, operands: &[NodeId]) -> NodeId {
        let inputs = scan.body.inputs();
        let mut carries: Operands = operands[inputs..].into();
        let mut rows = Vec::new();
        let covered = self.chunks * self.size;
        let outer = of_chunks(&scan.body, self.size, scans);
        let parts = [
            (self.forgotten, 1, scan.body.clone(), Backward { truncate: Some(0), checkpointed: false }),
            (self.chunks, self.size, outer, Backward { truncate: None, checkpointed: true }),
            (self.left, 1, scan.body.clone(), Backward::default()),
        ];
        let mut first = 0;
        for (steps, size, body, backward) in parts {
            if steps == 0 {
                continue;
            }
            let mut given: Operands = (operands[..inputs].iter().enumerate())
                .map(|(position, operand)| match position < scan.body.sequences {
                    true => part_of_sequence(g, *operand, first, steps, size),
                    false => *operand,
                })
                .collect();
            given.extend(carries.iter().copied());
            let result = |g: &mut Rules<'_>, result: ScanResult| {
                let part = Scan { body: body.clone(), steps: Dim::Known(steps), result, backward };
                g.op(Op::Scan(Box::new(part)), &given)
            };
            if let ScanResult::Rows(row) = scan.result {
                let stack = result(g, ScanResult::Rows(row));
                let mut shape = g.extents(stack);
                if size > 1 {
                    shape.remove(0);
                    shape[0] = covered;
                }
                rows.push(g.reshape(stack, &shape));
            }
            carries = (0..scan.body.carries()).map(|c| result(g, ScanResult::Last(c as u16))).collect();
            first += steps * size;
        }
        match scan.result {
            ScanResult::Rows(_) if rows.len() == 1 => rows[0],
            ScanResult::Rows(_) => g.op(Op::Concat(0), &rows),
            ScanResult::Last(carry) => carries[usize::from(carry)],
            ScanResult::Steps => g.graph.add_uniform(Literal::I64(first as i64), &[], g.site),
        }
    }
}

/// The body of a scan over chunks of so many steps of a scan: the scan over one.
fn of_chunks(body: &Arc<Body>, size: usize, scans: &mut Scans<'_>) -> Arc<Body> {
    let key = (body.clone(), size);
    if let Some(known) = scans.checkpoints.of_chunks.get(&key) {
        return known.clone();
    }
    let mut graph = Graph::new();
    let (mut operands, mut carries) = (Operands::new(), Vec::new());
    for (position, leaf) in body.parameters().enumerate() {
        let Some(leaf) = body.graph.leaf(leaf) else { continue };
        let mut ty = leaf.ty.clone();
        if position < body.sequences {
            ty.shape.insert(0, Extent::Known(size));
        }
        let own = parameter(leaf.name.clone(), ty, leaf.kind.clone());
        operands.push(graph.add_leaf(&own));
        if position < body.inputs() { graph.inputs.push(own.id) } else { carries.push(own.id) }
    }
    let mut result = |result: ScanResult| {
        let scan =
            Scan { body: body.clone(), steps: Dim::Known(size), result, backward: Backward::default() };
        graph.add(Op::Scan(Box::new(scan)), &operands, None)
    };
    let rows = (0..body.rows().len()).map(|row| result(ScanResult::Rows(row as u16))).collect();
    let last: Vec<NodeId> = (0..carries.len()).map(|c| result(ScanResult::Last(c as u16))).collect();
    graph.outputs = rows;
    graph.updates = carries.into_iter().zip(last).collect();
    let mut outer = Body::new(graph, body.sequences, false);
    outer.updated = body.updated.clone();
    let outer = Arc::new(outer);
    scans.checkpoints.outer.insert(outer.clone());
    scans.checkpoints.of_chunks.insert(key, outer.clone());
    outer
}

/// `chunks` times `size` elements of a sequence from `first` on, a chunk an element where `size` is not 1.
fn part_of_sequence(g: &mut Rules<'_>, x: NodeId, first: usize, chunks: usize, size: usize) -> NodeId {
    let mut shape = g.extents(x);
    let count = chunks * size;
    let mut part = x;
    if shape[0] != count {
        let mut window: Vec<WindowAxis> = shape.iter().map(|&n| WindowAxis::whole(n)).collect();
        window[0] = WindowAxis { start: Start::Known(first), len: count, step: 1 };
        part = g.op(Op::Window(window.into()), &[x]);
    }
    if size > 1 {
        shape[0] = size;
        shape.insert(0, chunks);
        part = g.reshape(part, &shape);
    }
    part
}
