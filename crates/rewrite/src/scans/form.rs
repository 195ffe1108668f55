//! A scan taken apart, to be changed and put together again.
//!
//! [`ScanForm`] holds a copy of the body's graph with its roles beside it. Rows, carries and inputs are only ever added;
//! putting it together ([`ScanForm::write`]) leaves out whatever the wanted results do not need, so no rewriting has to
//! clean up behind itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hypatia_graph::body::{Body, parameter};
use hypatia_graph::leaf::{Leaf, LeafKind};
use hypatia_graph::op::{Backward, Class, Dim, Scan, ScanResult, View};
use hypatia_graph::{Graph, LeafId, NodeId, Op, TensorType};
use smallvec::SmallVec;

use crate::Options;

/// What an input of a body stands for.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Input {
    /// The value outside: with a leading axis over the steps for a sequence.
    pub(super) value: NodeId,
    pub(super) sequence: bool,
}

/// What the value of a node of a body depends on; of several the last in this order.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Dependence {
    /// On nothing.
    Constant,
    /// On captured values.
    Captured,
    /// On the elements of sequences.
    Sequence,
    /// On carries.
    Carry,
}

/// A scan whose graph can be changed.
#[derive(Clone, Debug)]
pub(super) struct ScanForm {
    /// Its inputs, updates and outputs are those of a body.
    pub(super) graph: Graph,
    /// One for each input of the graph, in any order.
    pub(super) inputs: Vec<Input>,
    /// The initial value of each carry.
    pub(super) initial: Vec<NodeId>,
    pub(super) until: bool,
    pub(super) steps: usize,
    pub(super) backward: Backward,
    pub(super) updated: Vec<Arc<Leaf>>,
}

/// Where the results of a scan stand that was put together.
pub(super) struct Written {
    nodes: BTreeMap<ScanResult, NodeId>,
}

impl Written {
    /// The node of a result that was wanted.
    pub(super) fn get(&self, result: ScanResult) -> Option<NodeId> {
        self.nodes.get(&result).copied()
    }

    /// What replaces each of those old nodes.
    pub(super) fn replacing(&self, members: &[(NodeId, ScanResult)]) -> Vec<(NodeId, NodeId)> {
        members.iter().filter_map(|(old, result)| Some((*old, self.get(*result)?))).collect()
    }
}

impl ScanForm {
    /// The scan that a node of a graph is a result of. None where an extent is unknown, and where its body holds
    /// gradients not yet taken, which refer to expressions by place.
    pub(super) fn of(outer: &Graph, id: NodeId) -> Option<ScanForm> {
        let node = outer.node(id);
        let Op::Scan(scan) = &node.op else { return None };
        let Dim::Known(steps) = scan.steps else { return None };
        let body = &*scan.body;
        let known = |graph: &Graph, id: &NodeId| graph.ty(*id).is_known();
        let live = body.graph.reachable();
        let plain = body.graph.nodes().all(|(id, node)| {
            !live[id.index()] || known(&body.graph, &id) && !matches!(node.op, Op::Grad(_))
        });
        if !plain || !node.operands.iter().all(|id| known(outer, id)) || body.graph.check().is_err() {
            return None;
        }
        let (inputs, initial) = node.operands.split_at_checked(body.inputs())?;
        let input =
            |(index, value): (usize, &NodeId)| Input { value: *value, sequence: index < body.sequences };
        Some(ScanForm {
            graph: body.graph.clone(),
            inputs: inputs.iter().enumerate().map(input).collect(),
            initial: initial.to_vec(),
            until: body.until,
            steps,
            backward: scan.backward,
            updated: body.updated.clone(),
        })
    }

    /// The nodes whose values are stacked.
    pub(super) fn rows(&self) -> &[NodeId] {
        let outputs = &self.graph.outputs;
        &outputs[..outputs.len() - usize::from(self.until)]
    }

    /// The node of a leaf; inputs and carries that nothing reads have none until now.
    pub(super) fn leaf(&mut self, id: LeafId) -> Option<NodeId> {
        let leaf = self.graph.leaf(id)?.clone();
        Some(self.graph.add_leaf(&leaf))
    }

    /// The node of a leaf, if the body reads it.
    pub(super) fn reading(&self, id: LeafId) -> Option<NodeId> {
        self.graph.nodes().find(|(_, node)| node.op == Op::Leaf(id)).map(|(node, _)| node)
    }

    /// The value outside that a node of the body is the element of.
    pub(super) fn sequence(&self, node: NodeId) -> Option<NodeId> {
        self.input(node).filter(|input| input.sequence).map(|input| input.value)
    }

    /// The value outside that a node of the body is.
    pub(super) fn captured(&self, node: NodeId) -> Option<NodeId> {
        self.input(node).filter(|input| !input.sequence).map(|input| input.value)
    }

    fn input(&self, node: NodeId) -> Option<Input> {
        let Op::Leaf(leaf) = self.graph.node(node).op else { return None };
        let at = self.graph.inputs.iter().position(|input| *input == leaf)?;
        Some(self.inputs[at])
    }

    /// Whether work may move between the steps and outside. Not while a truncated gradient is still to be taken: it flows
    /// through the last steps only, but from all rows.
    pub(super) fn may_give(&self, options: Options) -> bool {
        options.gradients_taken || self.backward.truncate.is_none()
    }

    /// Whether values may be stacked so that all steps are computed at once. Not in a checkpointed scan, which saves memory.
    pub(super) fn may_stack(&self) -> bool {
        !self.backward.checkpointed
    }

    /// The number of the row with that value, which is added if there is none.
    pub(super) fn add_row(&mut self, value: NodeId) -> ScanResult {
        let at = self.rows().iter().position(|row| *row == value).unwrap_or_else(|| {
            let at = self.rows().len();
            self.graph.outputs.insert(at, value);
            at
        });
        ScanResult::Rows(at as u16)
    }

    /// The number of the carry whose next value is that, which is added if there is none. An added one begins with
    /// zeros, which nothing sees if there is a step.
    pub(super) fn add_last(&mut self, outer: &mut Graph, value: NodeId) -> Option<ScanResult> {
        let at = match self.graph.updates.iter().position(|(_, next)| *next == value) {
            Some(at) => at,
            None => {
                let ty = self.graph.ty(value).clone();
                let zero = hypatia_graph::Literal::from_f64(0.0, ty.dtype);
                let initial = outer.add_uniform(zero, &ty.extents()?, self.graph.node(value).site);
                let (_, at) = self.add_carry(initial, ty);
                self.graph.updates[at].1 = value;
                at
            }
        };
        Some(ScanResult::Last(at as u16))
    }

    /// A new carry: the node of its value and its number. It keeps its value until its update is changed.
    pub(super) fn add_carry(&mut self, initial: NodeId, ty: TensorType) -> (NodeId, usize) {
        let leaf = parameter(None, ty, LeafKind::Carry);
        let node = self.graph.add_leaf(&leaf);
        self.graph.updates.push((leaf.id, node));
        self.initial.push(initial);
        (node, self.initial.len() - 1)
    }

    /// The node of an input with that value outside, which is added if there is none.
    pub(super) fn add_input(&mut self, outer: &Graph, value: NodeId, sequence: bool) -> Option<NodeId> {
        let input = Input { value, sequence };
        if let Some(at) = self.inputs.iter().position(|known| *known == input) {
            return self.leaf(self.graph.inputs[at]);
        }
        let mut ty = outer.ty(value).clone();
        if sequence {
            if ty.rank() == 0 {
                return None;
            }
            ty.shape.remove(0);
        }
        let leaf = parameter(outer.name(value).map(Arc::from), ty, LeafKind::Input);
        self.graph.inputs.push(leaf.id);
        self.inputs.push(input);
        Some(self.graph.add_leaf(&leaf))
    }

    /// For every node what its value depends on.
    pub(super) fn dependence(&self) -> Vec<Dependence> {
        let inputs: BTreeMap<LeafId, Dependence> = self
            .graph
            .inputs
            .iter()
            .zip(&self.inputs)
            .map(|(leaf, input)| {
                (*leaf, if input.sequence { Dependence::Sequence } else { Dependence::Captured })
            })
            .collect();
        let carries: BTreeSet<LeafId> = self.graph.updates.iter().map(|(leaf, _)| *leaf).collect();
        let mut all: Vec<Dependence> = Vec::with_capacity(self.graph.len());
        for (_, node) in self.graph.nodes() {
            let leaf = if let Op::Leaf(leaf) = &node.op { Some(leaf) } else { None };
            let carry = leaf.filter(|leaf| carries.contains(leaf)).map(|_| Dependence::Carry);
            let input = leaf.and_then(|leaf| inputs.get(leaf).copied());
            let own = carry.or(input).unwrap_or(Dependence::Constant);
            all.push(node.operands.iter().map(|operand| all[operand.index()]).fold(own, Dependence::max));
        }
        all
    }

    /// Puts nodes of the body in the places of others.
    pub(super) fn substitute(&mut self, replaced: &BTreeMap<NodeId, NodeId>) {
        if !replaced.is_empty() {
            self.graph = substituted(&self.graph, replaced);
        }
    }

    /// What the wanted results need: which carries, and which nodes.
    fn needed(&self, wanted: &[ScanResult]) -> (Vec<bool>, Vec<bool>) {
        let mut carries = vec![false; self.initial.len()];
        let mut nodes = vec![false; self.graph.len()];
        let mut pending: Vec<NodeId> = Vec::new();
        for result in wanted {
            match result {
                ScanResult::Rows(at) => pending.extend(self.rows().get(usize::from(*at))),
                ScanResult::Last(at) => {
                    carries[usize::from(*at)] = true;
                    pending.extend(self.graph.updates.get(usize::from(*at)).map(|(_, next)| *next));
                }
                ScanResult::Steps => {}
            }
        }
        if self.until {
            pending.extend(self.graph.outputs.last());
        }
        let carry_of: BTreeMap<LeafId, usize> =
            self.graph.updates.iter().enumerate().map(|(at, (leaf, _))| (*leaf, at)).collect();
        while let Some(id) = pending.pop() {
            if std::mem::replace(&mut nodes[id.index()], true) {
                continue;
            }
            let node = self.graph.node(id);
            pending.extend(node.operands.iter().copied());
            if let Op::Leaf(leaf) = node.op
                && let Some(&at) = carry_of.get(&leaf)
                && !std::mem::replace(&mut carries[at], true)
            {
                pending.push(self.graph.updates[at].1);
            }
        }
        (carries, nodes)
    }

    /// Whether the wanted results need every row, carry and input.
    pub(super) fn is_needed_whole(&self, wanted: &[ScanResult]) -> bool {
        let (carries, nodes) = self.needed(wanted);
        let rows: BTreeSet<&ScanResult> =
            wanted.iter().filter(|result| matches!(result, ScanResult::Rows(_))).collect();
        let read: BTreeSet<LeafId> = self.leaves_among(&nodes).collect();
        carries.iter().all(|needed| *needed)
            && rows.len() == self.rows().len()
            && self.graph.inputs.iter().all(|leaf| read.contains(leaf))
    }

    fn leaves_among<'a>(&'a self, nodes: &'a [bool]) -> impl Iterator<Item = LeafId> + 'a {
        let nodes = self.graph.nodes().filter(|(id, _)| nodes[id.index()]);
        nodes.filter_map(|(_, node)| if let Op::Leaf(leaf) = node.op { Some(leaf) } else { None })
    }

    /// Adds the wanted results to a graph, with as much of the scan as they need and a new body.
    pub(super) fn write(&self, outer: &mut Graph, wanted: &[ScanResult], near: NodeId) -> Written {
        let (carries, nodes) = self.needed(wanted);
        let mut step = Graph::new();
        let mut copies: Vec<Option<NodeId>> = vec![None; self.graph.len()];
        for (id, node) in self.graph.nodes().filter(|(id, _)| nodes[id.index()]) {
            let operands: SmallVec<[NodeId; 4]> =
                node.operands.iter().filter_map(|operand| copies[operand.index()]).collect();
            copies[id.index()] = Some(step.add_like(&self.graph, id, &operands));
        }
        let copy = |id: &NodeId| copies[id.index()];
        let read: BTreeSet<LeafId> = self.leaves_among(&nodes).collect();
        let mut operands: SmallVec<[NodeId; 8]> = SmallVec::new();
        let mut sequences = 0;
        for sequence in [true, false] {
            for (leaf, input) in self.graph.inputs.iter().zip(&self.inputs) {
                if input.sequence == sequence && read.contains(leaf) {
                    step.inputs.push(*leaf);
                    operands.push(input.value);
                    sequences += usize::from(sequence);
                }
            }
        }
        let mut carry_places: Vec<Option<u16>> = vec![None; carries.len()];
        for (at, (leaf, next)) in self.graph.updates.iter().enumerate().filter(|(at, _)| carries[*at]) {
            if let Some(leaf) = self.graph.leaf(*leaf) {
                // A carry that no step reads is still a leaf of the body.
                step.add_leaf(leaf);
            }
            if let Some(next) = copy(next) {
                carry_places[at] = Some(step.updates.len() as u16);
                step.updates.push((*leaf, next));
                operands.push(self.initial[at]);
            }
        }
        let mut row_places: Vec<Option<u16>> = vec![None; self.rows().len()];
        for result in wanted {
            let ScanResult::Rows(at) = result else { continue };
            let Some(value) = self.rows().get(usize::from(*at)).and_then(copy) else { continue };
            let place = step.outputs.iter().position(|row| *row == value).unwrap_or_else(|| {
                step.outputs.push(value);
                step.outputs.len() - 1
            });
            row_places[usize::from(*at)] = Some(place as u16);
        }
        if self.until {
            step.outputs.extend(self.graph.outputs.last().and_then(copy));
        }
        let mut body = Body::new(step, sequences, self.until);
        body.updated.clone_from(&self.updated);
        let body = Arc::new(body);
        let site = outer.node(near).site;
        let mut nodes = BTreeMap::new();
        for &old in wanted {
            let result = match old {
                ScanResult::Rows(at) => row_places[usize::from(at)].map(ScanResult::Rows),
                ScanResult::Last(at) => carry_places[usize::from(at)].map(ScanResult::Last),
                ScanResult::Steps => Some(ScanResult::Steps),
            };
            let Some(result) = result else { continue };
            let scan =
                Scan { body: body.clone(), steps: Dim::Known(self.steps), result, backward: self.backward };
            nodes.insert(old, outer.add(Op::Scan(Box::new(scan)), &operands, site));
        }
        Written { nodes }
    }
}

/// A new graph in which nodes stand in the places of others, in the order of the old one as far as that goes. A
/// replacement never depends on what it replaces.
pub(super) fn substituted(graph: &Graph, replaced: &BTreeMap<NodeId, NodeId>) -> Graph {
    let target = |mut id: NodeId| {
        while let Some(next) = replaced.get(&id) {
            id = *next;
        }
        id
    };
    let mut live = vec![false; graph.len()];
    let mut pending: Vec<NodeId> = graph.roots().map(target).collect();
    while let Some(id) = pending.pop() {
        if !std::mem::replace(&mut live[id.index()], true) {
            pending.extend(graph.node(id).operands.iter().map(|operand| target(*operand)));
        }
    }
    let mut new = graph.emptied();
    let mut placed: Vec<Option<NodeId>> = vec![None; graph.len()];
    let mut pending: Vec<NodeId> = Vec::new();
    for (id, _) in graph.nodes().filter(|(id, _)| live[id.index()]) {
        pending.push(id);
        while let Some(&id) = pending.last() {
            if placed[id.index()].is_some() {
                pending.pop();
                continue;
            }
            debug_assert!(pending.len() <= graph.len(), "a replacement depends on what it replaces");
            let node = graph.node(id);
            let missing = node.operands.iter().map(|operand| target(*operand));
            if let Some(next) = missing.clone().find(|operand| placed[operand.index()].is_none()) {
                pending.push(next);
                continue;
            }
            let operands: SmallVec<[NodeId; 4]> =
                missing.filter_map(|operand| placed[operand.index()]).collect();
            placed[id.index()] = Some(new.add_like(graph, id, &operands));
            pending.pop();
        }
    }
    for old in replaced.keys() {
        if let (Some(name), Some(node)) = (graph.name(*old), placed[target(*old).index()]) {
            new.set_name(node, name.into());
        }
    }
    let at = |id: &NodeId| placed[target(*id).index()];
    new.outputs = graph.outputs.iter().filter_map(at).collect();
    new.updates = graph.updates.iter().filter_map(|(leaf, id)| Some((*leaf, at(id)?))).collect();
    new
}

/// Adds the formula of a node of a body to a graph, with `values` for its leaves. Calls with the same table share nodes.
pub(super) fn import(
    outer: &mut Graph,
    body: &Graph,
    root: NodeId,
    values: &BTreeMap<LeafId, NodeId>,
    placed: &mut BTreeMap<NodeId, NodeId>,
) -> Option<NodeId> {
    let mut pending = vec![root];
    while let Some(&id) = pending.last() {
        if placed.contains_key(&id) {
            pending.pop();
            continue;
        }
        let node = body.node(id);
        if let Some(next) = node.operands.iter().find(|operand| !placed.contains_key(operand)) {
            pending.push(*next);
            continue;
        }
        let operands: SmallVec<[NodeId; 4]> = node.operands.iter().map(|operand| placed[operand]).collect();
        let leaf = if let Op::Leaf(leaf) = node.op { values.get(&leaf).copied() } else { None };
        let copy = leaf.unwrap_or_else(|| outer.add_like(body, id, &operands));
        placed.insert(id, copy);
        pending.pop();
    }
    placed.get(&root).copied()
}

/// The value below reshapes: it has the same elements in the same order.
pub(super) fn root_of(graph: &Graph, mut id: NodeId) -> NodeId {
    loop {
        let node = graph.node(id);
        let same = match node.op.view() {
            Some(View::Reshape) => true,
            Some(View::Broadcast(_)) => graph.ty(node.operands[0]).element_count() == node.ty.element_count(),
            Some(View::Same | View::Permute(_) | View::Slice | View::Window(_)) | None => false,
        };
        if !same {
            return id;
        }
        id = node.operands[0];
    }
}

/// Whether a value is a result of a scan in the body, or a view of one.
pub(super) fn is_made_by_scan(graph: &Graph, mut id: NodeId) -> bool {
    while graph.node(id).op.view().is_some() {
        id = graph.node(id).operands[0];
    }
    matches!(graph.node(id).op, Op::Scan(_))
}

/// Operations that a node takes, about; a view takes none.
pub(super) fn work_of(graph: &Graph, id: NodeId) -> usize {
    let node = graph.node(id);
    let count = |id: NodeId| graph.ty(id).element_count().unwrap_or(0);
    match node.op.class() {
        Class::Leaf(_) | Class::Literal(_) | Class::Index | Class::View(_) => 0,
        Class::Map(f) => (f.work() as usize).saturating_mul(count(id)),
        Class::Fold(_) => count(node.operands[0]),
        Class::Product => {
            let inner = graph.ty(node.operands[0]).shape.last().and_then(|extent| extent.known());
            count(id).saturating_mul(2 * inner.unwrap_or(1))
        }
        Class::Convolution(axes) => {
            let filters = graph.ty(node.operands[1]).shape.iter().rev().take(axes.len() + 1);
            let inner = filters.fold(1, |all: usize, n| all.saturating_mul(n.known().unwrap_or(1)));
            count(id).saturating_mul(2 * inner)
        }
        Class::Cast(_)
        | Class::Assembly
        | Class::Indexed(_)
        | Class::Random(_)
        | Class::Scan(_)
        | Class::Gradient(_) => count(id),
    }
}
