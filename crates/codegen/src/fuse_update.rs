//! Updates of the form `W' = beta W + alpha (A . B)`, brought to the shape that becomes one accumulating product.
//!
//! A training step spends much of its time on `W - rate * x' . d`. As written it is a product into a temporary and a
//! pass over W; as one product that scales and accumulates it reads and writes W once. [`fuse_updates`] reads an update as
//! a sum of terms with scalar factors and, where exactly W and products are left, writes it anew with the factors
//! gathered. Several thin products, as the statistics of data and model that a Boltzmann machine learns from, are one
//! product over the length of both; that is worth it beside other terms too, as a penalty of each weight has them, which
//! are then added to W before the product is. Regrouping rounds differently in the last place, as any order of a sum
//! does.
#![warn(clippy::wildcard_enum_match_arm)]

use std::collections::BTreeMap;

use hypatia_graph::op::{View, known_dims};
use hypatia_graph::{Graph, LeafId, Literal, NodeId, Op, ScalarFn};
use smallvec::{SmallVec, smallvec};

/// `base * beta + product * alpha`; the factors are of rank 0.
#[derive(Copy, Clone, Debug)]
pub struct Accumulation {
    /// The value scaled by `beta`: the variable, or a sum of it and other terms.
    pub base: NodeId,
    /// A product of matrices that nothing else uses.
    pub product: NodeId,
    /// Factor of the product.
    pub alpha: NodeId,
    /// Factor of the base.
    pub beta: NodeId,
}

/// The graph with updates of matrices brought to `W * broadcast(beta) + (A . B) * broadcast(alpha)` where they allow it.
pub fn fuse_updates(graph: &Graph) -> Graph {
    let uses = graph.use_counts();
    let mut copies: Vec<Option<NodeId>> = vec![None; graph.len()];
    graph
        .rebuilt(|out, from, id, operands| {
            let mut leaves = from.updates.iter().filter(|(_, new)| *new == id).map(|(leaf, _)| *leaf);
            let sum = leaves.find_map(|leaf| fused_update(out, from, id, leaf, &uses, &copies));
            let copy = sum.unwrap_or_else(|| out.add_like(from, id, operands));
            copies[id.index()] = Some(copy);
            copy
        })
        .pruned()
}

/// The update of a variable as a node of `out` in that form; what else uses the new value uses that too, so that the
/// product is made once.
fn fused_update(
    out: &mut Graph,
    graph: &Graph,
    old: NodeId,
    leaf: LeafId,
    uses: &[u32],
    copies: &[Option<NodeId>],
) -> Option<NodeId> {
    let terms = terms(graph, old, uses)?;
    let is_base = |id: NodeId| graph.node(id).op == Op::Leaf(leaf);
    let is_product =
        |id: NodeId| graph.node(id).op == Op::Dot && graph.ty(id).dtype.is_float() && uses[id.index()] == 1;
    let (bases, others): (Vec<_>, Vec<_>) =
        terms.iter().filter(|(id, _)| !is_product(*id)).partition(|(id, _)| is_base(*id));
    let [(base, beta)] = bases[..] else { return None };
    let mut products: Vec<(NodeId, &Factor)> =
        terms.iter().filter(|(id, _)| is_product(*id)).map(|(id, factor)| (*id, factor)).collect();
    products.sort_by_key(|(id, _)| *id);
    let (_, alpha) = *products.first()?;
    // One product beside other terms is read by their kernel as well as it is added to what that wrote.
    if !others.is_empty() && products.len() == 1 {
        return None;
    }
    let site = graph.node(old).site;
    let products: SmallVec<[(NodeId, f64); 2]> = products
        .iter()
        .map(|(id, factor)| Some((copies[id.index()]?, factor.over(alpha)?)))
        .collect::<Option<_>>()?;
    let product = if let [(only, _)] = products[..] { only } else { joined(out, &products)? };
    let shape = graph.ty(old).extents()?;
    let scaled = |out: &mut Graph, value: NodeId, factor: &Factor| -> Option<NodeId> {
        let factor = factor.build(copies, out, value)?;
        let factor = out.add(Op::Broadcast { axes: smallvec![], dims: known_dims(&shape) }, &[factor], site);
        Some(out.add(Op::Map(ScalarFn::Mul), &[value, factor], site))
    };
    let mut start = scaled(out, copies[base.index()]?, beta)?;
    for (other, factor) in &others {
        let other = scaled(out, copies[other.index()]?, factor)?;
        start = out.add(Op::Map(ScalarFn::Add), &[start, other], site);
    }
    if !others.is_empty() {
        start = scaled(out, start, &Factor::one())?;
    }
    let product = scaled(out, product, alpha)?;
    let sum = out.add(Op::Map(ScalarFn::Add), &[start, product], site);
    if let Some(name) = graph.name(old) {
        out.set_name(sum, name.into());
    }
    Some(sum)
}

/// The sum of products of matrices with factors, as one product of their operands side by side; nothing where that
/// would copy more than the passes over the result that it saves.
fn joined(out: &mut Graph, products: &[(NodeId, f64)]) -> Option<NodeId> {
    let operands = |out: &Graph, side: usize| -> SmallVec<[NodeId; 2]> {
        products.iter().map(|(id, _)| out.node(*id).operands[side]).collect()
    };
    let (lefts, mut rights) = (operands(out, 0), operands(out, 1));
    let size = |id: NodeId| out.ty(id).element_count();
    let copied = lefts.iter().chain(&rights).map(|id| size(*id)).sum::<Option<usize>>()?;
    let matrices = lefts.iter().chain(&rights).all(|id| out.ty(*id).rank() == 2);
    if !matrices || copied > (products.len() - 1) * size(products[0].0)? {
        return None;
    }
    for (right, (_, factor)) in rights.iter_mut().zip(products).filter(|(_, (_, factor))| *factor != 1.0) {
        let factor = Literal::from_f64(*factor, out.ty(*right).dtype);
        let extents = out.ty(*right).extents()?;
        let factor = out.add_uniform(factor, &extents, None);
        *right = out.add(Op::Map(ScalarFn::Mul), &[*right, factor], None);
    }
    // Rows that are read as columns are laid one below the other and read as columns again.
    let swapped = |id: NodeId| {
        let Some(View::Permute([1, 0])) = out.node(id).op.view() else { return None };
        Some(out.node(id).operands[0])
    };
    let below: Option<SmallVec<[NodeId; 2]>> = lefts.iter().map(|id| swapped(*id)).collect();
    let left = match below {
        Some(rows) => {
            let rows = out.add(Op::Concat(0), &rows, None);
            out.add(Op::Permute(smallvec![1, 0]), &[rows], None)
        }
        None => out.add(Op::Concat(1), &lefts, None),
    };
    let right = out.add(Op::Concat(0), &rights, None);
    Some(out.add(Op::Dot, &[left, right], out.node(products[0].0).site))
}

/// The updates that [`fuse_updates`] has brought to its form, by their nodes.
pub fn accumulations(graph: &Graph) -> BTreeMap<NodeId, Accumulation> {
    graph.updates.iter().filter_map(|(leaf, new)| Some((*new, accumulation(graph, *leaf, *new)?))).collect()
}

/// The parts of the new value of a variable, if it has that form.
fn accumulation(graph: &Graph, leaf: LeafId, id: NodeId) -> Option<Accumulation> {
    let scaled = |id: NodeId| {
        let node = graph.node(id);
        let [value, factor] = node.operands[..] else { return None };
        (node.op == Op::Map(ScalarFn::Mul)).then_some((value, spread_scalar(graph, factor)?))
    };
    let node = graph.node(id);
    if node.op != Op::Map(ScalarFn::Add) {
        return None;
    }
    let (base, beta) = scaled(node.operands[0])?;
    let (product, alpha) = scaled(node.operands[1])?;
    let is_product = graph.node(product).op == Op::Dot && graph.ty(product).dtype.is_float();
    let begins = matches!(graph.node(base).op, Op::Leaf(own) if own == leaf)
        || graph.node(base).op == Op::Map(ScalarFn::Add);
    (is_product && begins).then_some(Accumulation { base, product, alpha, beta })
}

/// A scalar factor: a sum of constants times products of rank-0 nodes.
#[derive(Clone, Debug, Default, PartialEq)]
struct Factor(Vec<(f64, SmallVec<[NodeId; 2]>)>);

impl Factor {
    fn one() -> Factor {
        Factor(vec![(1.0, smallvec![])])
    }

    /// The quotient of two factors, where it is a finite number.
    fn over(&self, other: &Factor) -> Option<f64> {
        if self == other {
            return Some(1.0);
        }
        match (&self.0[..], &other.0[..]) {
            ([(x, x_nodes)], [(y, y_nodes)]) if x_nodes == y_nodes => Some(x / y).filter(|q| q.is_finite()),
            _ => None,
        }
    }

    fn times(&self, constant: f64, node: Option<NodeId>) -> Factor {
        let mut product = self.clone();
        for (c, nodes) in &mut product.0 {
            *c *= constant;
            nodes.extend(node);
        }
        product
    }

    fn add(&mut self, other: &Factor) {
        for (c, nodes) in &other.0 {
            match self.0.iter_mut().find(|(_, own)| own == nodes) {
                Some((own, _)) => *own += c,
                None => self.0.push((*c, nodes.clone())),
            }
        }
    }

    /// The factor as a rank-0 node of `out`, of the element type of `like`; constants are gathered in double precision.
    fn build(&self, copies: &[Option<NodeId>], out: &mut Graph, like: NodeId) -> Option<NodeId> {
        let dtype = out.ty(like).dtype;
        let mut sum: Option<NodeId> = None;
        for (constant, nodes) in &self.0 {
            let mut term: Option<NodeId> = None;
            if *constant != 1.0 || nodes.is_empty() {
                term = Some(out.add(Op::Literal(Literal::from_f64(*constant, dtype)), &[], None));
            }
            for node in nodes {
                let node = copies[node.index()]?;
                term = Some(match term {
                    Some(term) => out.add(Op::Map(ScalarFn::Mul), &[term, node], None),
                    None => node,
                });
            }
            sum = match (sum, term) {
                (Some(sum), Some(term)) => Some(out.add(Op::Map(ScalarFn::Add), &[sum, term], None)),
                (sum, term) => sum.or(term),
            };
        }
        sum
    }
}

/// An update as terms with factors, equal terms joined; `None` where it is not a sum or there are too many. What is used
/// elsewhere as well is a term as it stands.
fn terms(graph: &Graph, root: NodeId, uses: &[u32]) -> Option<Vec<(NodeId, Factor)>> {
    let mut terms: Vec<(NodeId, Factor)> = Vec::new();
    let mut pending = vec![(root, Factor::one())];
    let mut budget = 64;
    while let Some((id, factor)) = pending.pop() {
        budget -= 1;
        if budget == 0 {
            return None;
        }
        let node = graph.node(id);
        if id != root && uses[id.index()] > 1 {
            join(&mut terms, id, &factor);
            continue;
        }
        let scalar = |id: NodeId| -> Option<(f64, Option<NodeId>)> {
            if let Some(value) = graph.uniform(id) {
                return Some((value.to_f64(), None));
            }
            Some((1.0, Some(spread_scalar(graph, id)?)))
        };
        let (Op::Map(f), [x, rest @ ..]) = (&node.op, &node.operands[..]) else {
            join(&mut terms, id, &factor);
            continue;
        };
        let y = rest.first().copied().unwrap_or(*x);
        let scaled = if *f == ScalarFn::Mul {
            scalar(*x).map(|scale| (y, scale)).or_else(|| Some((*x, scalar(y)?)))
        } else if *f == ScalarFn::Div {
            graph.uniform(y).map(|value| (*x, (1.0 / value.to_f64(), None)))
        } else {
            None
        };
        if let Some((x, (constant, node))) = scaled {
            pending.push((x, factor.times(constant, node)));
        } else if *f == ScalarFn::Add {
            pending.extend([(*x, factor.clone()), (y, factor)]);
        } else if *f == ScalarFn::Sub {
            pending.extend([(*x, factor.clone()), (y, factor.times(-1.0, None))]);
        } else if *f == ScalarFn::Neg {
            pending.push((*x, factor.times(-1.0, None)));
        } else {
            join(&mut terms, id, &factor);
        }
    }
    Some(terms)
}

fn join(terms: &mut Vec<(NodeId, Factor)>, id: NodeId, factor: &Factor) {
    match terms.iter_mut().find(|(own, _)| *own == id) {
        Some((_, own)) => own.add(factor),
        None => terms.push((id, factor.clone())),
    }
}

/// The scalar that a node repeats.
fn spread_scalar(graph: &Graph, id: NodeId) -> Option<NodeId> {
    let Some(View::Broadcast(_)) = graph.node(id).op.view() else { return None };
    let scalar = graph.node(id).operands[0];
    (graph.ty(scalar).rank() == 0).then_some(scalar)
}
