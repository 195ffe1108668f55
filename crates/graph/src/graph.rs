//! The arena form of a program: nodes in dependency order, equal ones merged.
//!
//! Always true (checked by [`crate::verify`]): operands stand before the node that uses them; each node's type is what
//! [`crate::infer`] says; every leaf is listed. A graph is never changed in place: passes read one and build the next.
//! Adding never fails: an ill-typed node is kept with a fault, which `verify` reports.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::body::Body;
use crate::diagnostic::{Diagnostic, Diagnostics, Site};
use crate::dtype::{DType, Literal};
use crate::infer::infer;
use crate::leaf::{Leaf, LeafKind};
use crate::op::{LeafId, Op, Scan, known_dims};
use crate::scalar::ScalarFn;
use crate::shape::TensorType;
use crate::text::shown::Few;

/// Position of a node in its graph.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId(pub u32);

impl NodeId {
    /// As an index into tables with one entry a node.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "%{}", self.0)
    }
}

/// The operands of a node.
pub type Operands = SmallVec<[NodeId; 2]>;

/// An operator applied to operands.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it does.
    pub op: Op,
    /// On what.
    pub operands: Operands,
    /// The type of its value.
    pub ty: TensorType,
    /// The user's line that built it.
    pub site: Option<Site>,
}

/// A program: what goes in, what comes out, what is updated. Its text form is all of it; `{:?}` counts its parts.
#[derive(Clone, Default)]
pub struct Graph {
    nodes: Vec<Node>,
    merged: HashMap<(Op, Operands), NodeId>,
    leaves: BTreeMap<LeafId, Arc<Leaf>>,
    names: BTreeMap<NodeId, Arc<str>>,
    faults: Vec<Diagnostic>,
    /// The inputs in the order of the call.
    pub inputs: Vec<LeafId>,
    /// What a call returns.
    pub outputs: Vec<NodeId>,
    /// New values of shared variables, computed from the old ones and written together.
    pub updates: Vec<(LeafId, NodeId)>,
}

impl fmt::Debug for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Graph")
            .field("nodes", &self.nodes.len())
            .field("inputs", &self.inputs.len())
            .field("outputs", &Few(&self.outputs))
            .field("updates", &Few(&self.updates))
            .field("faults", &self.faults.len())
            .finish()
    }
}

impl Graph {
    /// A graph without nodes.
    pub fn new() -> Graph {
        Graph::default()
    }

    /// A graph without nodes that has the inputs and leaves of this one, for a pass to fill.
    pub fn emptied(&self) -> Graph {
        Graph { leaves: self.leaves.clone(), inputs: self.inputs.clone(), ..Graph::default() }
    }

    /// Bytes that the graph and the bodies of its scans hold, about, but for leaves, which graphs share.
    pub fn bytes(&self) -> usize {
        let merged = self.merged.capacity() * (size_of::<(Op, Operands)>() + size_of::<NodeId>());
        let mut bytes = self.nodes.capacity() * size_of::<Node>() + merged;
        let mut known: Vec<*const Body> = Vec::new();
        for node in &self.nodes {
            if let Op::Scan(scan) = &node.op {
                bytes += size_of::<Scan>();
                if !known.contains(&Arc::as_ptr(&scan.body)) {
                    known.push(Arc::as_ptr(&scan.body));
                    bytes += scan.body.graph.bytes();
                }
            }
        }
        bytes
    }

    /// The number of nodes.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no nodes.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.index()]
    }

    /// The type of a node.
    pub fn ty(&self, id: NodeId) -> &TensorType {
        &self.nodes[id.index()].ty
    }

    /// A node to be changed, for tests that break what is always true.
    #[cfg(test)]
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        &mut self.nodes[id.index()]
    }

    /// All nodes, operands before users.
    pub fn nodes(&self) -> impl DoubleEndedIterator<Item = (NodeId, &Node)> + ExactSizeIterator {
        self.nodes.iter().enumerate().map(|(i, node)| (NodeId(i as u32), node))
    }

    /// Outputs and updates: what the graph is there for.
    pub fn roots(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.outputs.iter().copied().chain(self.updates.iter().map(|(_, id)| *id))
    }

    /// The leaf of that identity.
    pub fn leaf(&self, id: LeafId) -> Option<&Arc<Leaf>> {
        self.leaves.get(&id)
    }

    /// All leaves, by identity.
    pub fn leaves(&self) -> impl Iterator<Item = &Arc<Leaf>> {
        self.leaves.values()
    }

    /// The user's name of a node: given with `named`, or the leaf's own.
    pub fn name(&self, id: NodeId) -> Option<&str> {
        if let Op::Leaf(leaf) = self.node(id).op {
            return self.leaf(leaf)?.name.as_deref();
        }
        self.names.get(&id).map(|name| &**name)
    }

    /// Names a node; the first name stays.
    pub fn set_name(&mut self, id: NodeId, name: Arc<str>) {
        self.names.entry(id).or_insert(name);
    }

    /// What was wrong with added nodes.
    pub fn faults(&self) -> &[Diagnostic] {
        &self.faults
    }

    /// Adds a leaf, or finds it.
    pub fn add_leaf(&mut self, leaf: &Arc<Leaf>) -> NodeId {
        self.leaves.entry(leaf.id).or_insert_with(|| leaf.clone());
        self.insert(Op::Leaf(leaf.id), Operands::new(), leaf.ty.clone(), leaf.site)
    }

    /// Adds a leaf with a type more exact than its declaration.
    pub fn add_leaf_as(&mut self, leaf: &Arc<Leaf>, ty: TensorType) -> NodeId {
        self.leaves.entry(leaf.id).or_insert_with(|| leaf.clone());
        self.insert(Op::Leaf(leaf.id), Operands::new(), ty, leaf.site)
    }

    /// Declares a leaf anew, with a more exact type.
    pub fn retype_leaf(&mut self, id: LeafId, ty: TensorType) {
        if let Some(leaf) = self.leaves.get_mut(&id) {
            let Leaf { name, site, kind, .. } = &**leaf;
            *leaf = Arc::new(Leaf { id, name: name.clone(), ty, site: *site, kind: kind.clone() });
        }
    }

    /// Adds a node, or finds the equal one.
    pub fn add(&mut self, op: Op, operands: &[NodeId], site: Option<Site>) -> NodeId {
        self.add_expecting(op, operands, site, None)
    }

    /// Adds a node of which a type, perhaps a less exact one, is known already. A fault is then a fault of extents
    /// only, and the node gets that type: what is built on it keeps to ranks and dtypes that are right.
    pub fn add_expecting(
        &mut self,
        op: Op,
        operands: &[NodeId],
        site: Option<Site>,
        expected: Option<&TensorType>,
    ) -> NodeId {
        let inferred = {
            let types: SmallVec<[&TensorType; 4]> = operands.iter().map(|id| self.ty(*id)).collect();
            infer(&op, &types)
        };
        let ty = match inferred {
            Ok(ty) => ty,
            Err(fault) => {
                self.faults.push(self.placed(fault, operands).at(site));
                let stand_in = expected.or_else(|| operands.first().map(|id| self.ty(*id)));
                stand_in.cloned().unwrap_or_else(|| TensorType::scalar(DType::F32))
            }
        };
        self.insert(op, operands.into(), ty, site)
    }

    /// A fault that says of the operands it speaks of which they are and which lines built them.
    fn placed(&self, mut fault: Diagnostic, operands: &[NodeId]) -> Diagnostic {
        let mut rest = operands.iter();
        for related in &mut fault.related {
            let mut ahead = rest.clone();
            if let Some(operand) = ahead.find(|id| self.ty(**id).to_string() == related.text) {
                rest = ahead;
                related.at = self.node(*operand).site;
                if let Some(name) = self.name(*operand) {
                    related.text = format!("{} `{name}`", related.text);
                }
            }
        }
        fault
    }

    fn insert(&mut self, op: Op, operands: Operands, ty: TensorType, site: Option<Site>) -> NodeId {
        let mut key = operands.clone();
        // Equal up to the order of the operands is equal where the order never shows.
        if matches!(op, Op::Map(ScalarFn::Add | ScalarFn::Mul | ScalarFn::Eq | ScalarFn::Ne)) {
            key.sort_unstable();
        }
        let next = NodeId(self.nodes.len() as u32);
        match self.merged.entry((op, key)) {
            std::collections::hash_map::Entry::Occupied(entry) => *entry.get(),
            std::collections::hash_map::Entry::Vacant(entry) => {
                let op = entry.key().0.clone();
                entry.insert(next);
                self.nodes.push(Node { op, operands, ty, site });
                next
            }
        }
    }

    /// Adds a node like one of another graph, on operands of this one; keeps site and name.
    pub fn add_like(&mut self, from: &Graph, id: NodeId, operands: &[NodeId]) -> NodeId {
        let node = from.node(id);
        let copy = if let Op::Leaf(leaf) = node.op {
            match from.leaf(leaf) {
                Some(leaf) => self.add_leaf_as(leaf, node.ty.clone()),
                None => self.insert(node.op.clone(), operands.into(), node.ty.clone(), node.site),
            }
        } else {
            self.add_expecting(node.op.clone(), operands, node.site, Some(&node.ty))
        };
        if let Some(name) = from.names.get(&id) {
            self.set_name(copy, name.clone());
        }
        copy
    }

    /// A constant of that literal everywhere, of the given shape.
    pub fn add_uniform(&mut self, value: Literal, shape: &[usize], site: Option<Site>) -> NodeId {
        let scalar = self.add(Op::Literal(value), &[], site);
        if shape.is_empty() {
            return scalar;
        }
        self.add(Op::Broadcast { axes: SmallVec::new(), dims: known_dims(shape) }, &[scalar], site)
    }

    /// The constant that is everywhere the same in the value of a node: a literal under views.
    pub fn uniform(&self, mut id: NodeId) -> Option<Literal> {
        loop {
            let node = self.node(id);
            if let Op::Literal(value) = node.op {
                return Some(value);
            }
            node.op.view()?;
            id = node.operands[0];
        }
    }

    /// For every node, whether an output or update depends on it.
    pub fn reachable(&self) -> Vec<bool> {
        let mut live = vec![false; self.len()];
        for root in self.roots() {
            live[root.index()] = true;
        }
        for (id, node) in self.nodes().rev() {
            if live[id.index()] {
                for operand in &node.operands {
                    live[operand.index()] = true;
                }
            }
        }
        live
    }

    /// For every node, how many reachable nodes and roots use it.
    pub fn use_counts(&self) -> Vec<u32> {
        let live = self.reachable();
        let mut counts = vec![0; self.len()];
        for root in self.roots() {
            counts[root.index()] += 1;
        }
        for (id, node) in self.nodes() {
            if live[id.index()] {
                for operand in &node.operands {
                    counts[operand.index()] += 1;
                }
            }
        }
        counts
    }

    /// The graph without the nodes that nothing depends on.
    pub fn pruned(&self) -> Graph {
        self.rebuilt(|graph, from, id, operands| graph.add_like(from, id, operands))
    }

    /// A new graph from this one, node by node: `step` gets the graph being built, this graph, the node and its
    /// operands in the new graph, and returns the new node. Only what is reachable is visited.
    pub fn rebuilt(&self, mut step: impl FnMut(&mut Graph, &Graph, NodeId, &[NodeId]) -> NodeId) -> Graph {
        let live = self.reachable();
        let mut graph = self.emptied();
        let mut new: Vec<NodeId> = vec![NodeId(u32::MAX); self.len()];
        for (id, node) in self.nodes() {
            if live[id.index()] {
                let operands: Operands = node.operands.iter().map(|o| new[o.index()]).collect();
                new[id.index()] = step(&mut graph, self, id, &operands);
            }
        }
        graph.faults.extend(self.faults.iter().cloned());
        graph.outputs = self.outputs.iter().map(|o| new[o.index()]).collect();
        graph.updates = self.updates.iter().map(|(leaf, id)| (*leaf, new[id.index()])).collect();
        graph
    }

    /// The shared variables (in a scan's body the carries) that reachable nodes read or updates write, by identity.
    pub fn shared(&self) -> Vec<LeafId> {
        let live = self.reachable();
        let mut ids: Vec<LeafId> = self
            .nodes()
            .filter(|(id, _)| live[id.index()])
            .filter_map(|(_, node)| if let Op::Leaf(leaf) = node.op { Some(leaf) } else { None })
            .chain(self.updates.iter().map(|(leaf, _)| *leaf))
            .filter(|id| {
                matches!(self.leaf(*id).map(|leaf| &leaf.kind), Some(LeafKind::Shared(_) | LeafKind::Carry))
            })
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// Faults of the nodes, as an error if there is any.
    pub fn check(&self) -> Result<(), Diagnostics> {
        if self.faults.is_empty() { Ok(()) } else { Err(Diagnostics(self.faults.clone())) }
    }
}
