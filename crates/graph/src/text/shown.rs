//! What values of the user's program look like in `{}` and `{:?}`: short, whatever their size.
//!
//! A tensor is shown as its formula, down to a depth and up to a number of nodes; what lies below is `...`. Nothing here
//! descends the stack, and nothing takes longer for a larger expression.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use super::formula;
use crate::collect::key_of;
use crate::graph::{Graph, NodeId};
use crate::leaf::{Leaf, LeafKind, fresh_leaf_id};
use crate::tensor::Tensor;

/// The depth down to which an expression is shown.
const DEPTH: usize = 8;
/// The number of nodes that are shown.
const NODES: usize = 48;
/// The number of operands of one node that are shown.
const OPERANDS: usize = 8;
/// The length of a text in characters.
const LENGTH: usize = 600;
/// The number of elements of a list that are shown.
const FEW: usize = 6;

/// The formula of an expression, cut to a depth and a length.
pub(crate) fn shown(root: &Tensor) -> String {
    let (inner, order) = near(root);
    let mut graph = Graph::new();
    let mut placed: HashMap<usize, NodeId> = HashMap::new();
    for tensor in order {
        let place = |graph: &mut Graph, operand: &Tensor| match placed.get(&key_of(operand)) {
            Some(id) => *id,
            None => cut(graph, operand),
        };
        let id = match tensor.leaf() {
            Some(leaf) => graph.add_leaf(leaf),
            // With so many operands only some can be shown, so that it is no longer that operator.
            None if !inner.contains_key(&key_of(tensor)) => cut(&mut graph, tensor),
            None => {
                let operands: Vec<NodeId> =
                    tensor.operands().iter().map(|operand| place(&mut graph, operand)).collect();
                graph.add(tensor.op().clone(), &operands, None)
            }
        };
        if let (None, Some(name)) = (tensor.leaf(), tensor.name()) {
            graph.set_name(id, abridged(name, 40).into());
        }
        placed.insert(key_of(tensor), id);
    }
    match placed.get(&key_of(root)) {
        Some(id) => abridged(&formula(&graph, *id), LENGTH),
        None => "...".to_string(),
    }
}

/// The expressions near a root, by key, and these with their operands in an order in which operands come first.
fn near(root: &Tensor) -> (HashMap<usize, usize>, Vec<&Tensor>) {
    let mut inner: HashMap<usize, usize> = HashMap::new();
    let mut pending = VecDeque::from([(root, 0)]);
    while let Some((tensor, depth)) = pending.pop_front() {
        let few = tensor.operands().len() <= OPERANDS;
        if depth >= DEPTH || inner.len() >= NODES || !few || inner.contains_key(&key_of(tensor)) {
            continue;
        }
        inner.insert(key_of(tensor), depth);
        pending.extend(tensor.operands().iter().map(|operand| (operand, depth + 1)));
    }
    // The order of a walk that goes down first; it is small, so a stack of its own is enough.
    let mut order = Vec::new();
    let mut seen = HashSet::new();
    let mut walk = vec![(root, false)];
    while let Some((tensor, entered)) = walk.pop() {
        if entered {
            order.push(tensor);
            continue;
        }
        if !seen.insert(key_of(tensor)) {
            continue;
        }
        walk.push((tensor, true));
        if inner.contains_key(&key_of(tensor)) {
            walk.extend(tensor.operands().iter().rev().map(|operand| (operand, false)));
        }
    }
    (inner, order)
}

/// What stands for an expression that is not shown.
fn cut(graph: &mut Graph, tensor: &Tensor) -> NodeId {
    let name = tensor.name().map_or_else(|| "...".to_string(), |name| abridged(name, 40));
    graph.add_leaf(&Arc::new(Leaf {
        id: fresh_leaf_id(),
        name: Some(name.into()),
        ty: tensor.ty().clone(),
        site: None,
        kind: LeafKind::Input,
    }))
}

/// At most so many characters of a text; a longer one ends in dots.
pub fn abridged(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_string(),
        Some((end, _)) => format!("{} ...", &text[..end]),
    }
}

/// The first elements of a list, and how many more there are.
pub struct Few<'a, T>(pub &'a [T]);

impl<T: fmt::Debug> fmt::Debug for Few<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut list = f.debug_list();
        list.entries(self.0.iter().take(FEW));
        if self.0.len() > FEW {
            list.entry(&format_args!("and {} more", self.0.len() - FEW));
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::array::Array;
    use crate::compose::concatenate;
    use crate::gradient::grad;
    use crate::scan::{Next, Scan};
    use crate::streams::RandomStreams;
    use crate::tensor::{constant, matrix, shared, vector};

    #[test]
    fn a_tensor_is_shown_as_its_formula() {
        let (x, w) = (matrix::<f32>("x"), shared("w", Array::zeros(crate::DType::F32, &[3, 2])));
        let y = (x.dot(&w) + 1.0).tanh();
        assert_eq!(y.to_string(), "tanh(x @ w + 1)");
        assert_eq!(format!("{y:?}"), "Tensor(tanh(x @ w + 1): f32[?, 2])");
        assert_eq!(x.to_string(), "x");
        assert_eq!(format!("{w:?}"), "Shared(w: f32[3, 2])");
        assert_eq!(format!("{:?}", Tensor::from(2.5)), "Tensor(2.5: f64[])");
        let wrong = &x + vector::<f32>("v").reshape([3, 4, 5]).dot(&x);
        assert!(format!("{wrong} {wrong:?}").len() < 2000);
    }

    /// Each would be huge, or end on the stack, if it were shown to its end.
    #[test]
    fn whatever_its_size_it_is_short() {
        let x = vector::<f32>("x");
        let mut doubled = x.clone();
        for _ in 0..64 {
            doubled = &doubled + &doubled;
        }
        let mut chain = x.clone();
        for _ in 0..200_000 {
            chain = chain.sin();
        }
        let wide = concatenate(&vec![x.clone(); 20_000], 0);
        let named = x.exp().named(&"n".repeat(100_000)) + 1.0;
        let large = constant(Array::vector(&vec![0.5f32; 1 << 20])) + &x;
        let cost = doubled.sum(crate::compose::All);
        let scans = Scan::new()
            .sequence(&x)
            .carry(&chain)
            .run(|step| Next::new().carry(&step.carries[0] * &step.sequences[0]).output(doubled.sum(0)));
        let noise = RandomStreams::new(1);
        let draws: Vec<Tensor> = (0..2000).map(|_| noise.normal([3], 0.0, 1.0)).collect();
        let sum = draws.iter().cloned().reduce(|a, b| a + b).unwrap();
        let gradient = &grad(&cost, [&x])[0];
        for tensor in
            [&doubled, &chain, &wide, &named, &large, gradient, &scans.carries[0], &scans.last[0], &sum]
        {
            let (display, debug) = (tensor.to_string(), format!("{tensor:?}"));
            assert!(display.len() <= 1000 && debug.len() <= 1200, "{}: {display}", display.len());
            assert!(!display.is_empty());
        }
        let counter = shared("counter", Array::scalar(0i64));
        counter.set_default_update(Some(&counter + 1));
        let many = vec![chain.clone(); 1000];
        let request = crate::collect::Request { outputs: many.clone(), ..Default::default() };
        let graph = crate::collect::collect(&crate::collect::Request {
            inputs: vec![x.clone()],
            outputs: vec![chain.clone()],
            ..Default::default()
        })
        .unwrap();
        let next = (0..1000).fold(Next::new(), |next, _| next.carry(&chain));
        let scan = (0..1000).fold(Scan::new(), |scan, _| scan.sequence(&chain));
        for text in [
            format!("{counter:?} {:?}", counter.cell()),
            format!("{request:?}"),
            format!("{graph:?}"),
            format!("{next:?}"),
            format!("{scan:?}"),
            format!("{scans:?}"),
            format!("{noise:?}"),
            format!("{:?}", crate::gradient::Gradient::of(&cost).consider_constant(many)),
            format!("{:?}", large.leaf()),
            format!("{:?}", scans.last[0].op()),
        ] {
            assert!(text.len() < 20_000, "{}: {}", text.len(), &text[..2000]);
        }
    }
}
