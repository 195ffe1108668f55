//! What a step of a scan computes: a graph like that of a function, with carries in the place of shared variables.
//!
//! The graph's inputs are an element of each sequence, then what the scan captures from outside. Its updates are the
//! carries ([`LeafKind::Carry`]) in their order, each with its next value, computed from the old ones. Its outputs are the
//! values that are stacked, and last, if there is one, the condition to end at. It names no shared variable. A body is
//! never changed: a pass that changes one makes a new one, and two are equal only if they are the same.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering as Memory};
use std::sync::{Arc, OnceLock};

use crate::differentiate::Flow;
use crate::graph::{Graph, NodeId};
use crate::leaf::{Leaf, LeafKind, fresh_leaf_id};
use crate::op::LeafId;
use crate::shape::TensorType;

/// The body of a scan.
#[derive(Clone)]
pub struct Body {
    id: u64,
    /// The step as a function of elements, captured values and carries.
    pub graph: Graph,
    /// The number of inputs that are elements of sequences; the others are captured.
    pub sequences: usize,
    /// Whether the last output is a condition (`bool[]`): the step that meets it is the last.
    pub until: bool,
    /// Shared variables whose updates the scan gives as last values of carries, and that a function which uses the scan
    /// must therefore make.
    pub updated: Vec<Arc<Leaf>>,
    flow: OnceLock<Flow>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({}: {} sequences, {:?})", self.id, self.sequences, self.graph)
    }
}

impl Body {
    /// A body that equals no other.
    pub fn new(graph: Graph, sequences: usize, until: bool) -> Body {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let id = NEXT.fetch_add(1, Memory::Relaxed);
        Body { id, graph, sequences, until, updated: Vec::new(), flow: OnceLock::new() }
    }

    /// A body with another graph of the same inputs, carries and outputs.
    pub fn with_graph(&self, graph: Graph) -> Body {
        Body { updated: self.updated.clone(), ..Body::new(graph, self.sequences, self.until) }
    }

    /// The same body with `leaves` in the places of the updated variables of their identities; `None` where there are
    /// none.
    pub(crate) fn with_updated(&self, leaves: &[Arc<Leaf>]) -> Option<Arc<Body>> {
        let find = |own: &Arc<Leaf>| leaves.iter().find(|leaf| leaf.id == own.id);
        if !self.updated.iter().any(|own| find(own).is_some()) {
            return None;
        }
        let updated = self.updated.iter().map(|own| find(own).unwrap_or(own).clone()).collect();
        Some(Arc::new(Body { updated, ..self.clone() }))
    }

    /// Which parameters reach which results through floats; found at the first question.
    pub fn flow(&self) -> &Flow {
        self.flow.get_or_init(|| Flow::of(self))
    }

    /// The number of inputs: sequences and captured values.
    pub fn inputs(&self) -> usize {
        self.graph.inputs.len()
    }

    /// The number of carries.
    pub fn carries(&self) -> usize {
        self.graph.updates.len()
    }

    /// The outputs that are stacked.
    pub fn rows(&self) -> &[NodeId] {
        let outputs = &self.graph.outputs;
        &outputs[..outputs.len().saturating_sub(usize::from(self.until))]
    }

    /// The condition to end at.
    pub fn condition(&self) -> Option<NodeId> {
        if self.until { self.graph.outputs.last().copied() } else { None }
    }

    /// The leaves that operands stand for, in their order: inputs, then carries.
    pub fn parameters(&self) -> impl Iterator<Item = LeafId> + '_ {
        self.graph.inputs.iter().copied().chain(self.graph.updates.iter().map(|(leaf, _)| *leaf))
    }

    /// The declared type of a leaf of the body.
    pub fn leaf_type(&self, leaf: LeafId) -> Option<&TensorType> {
        self.graph.leaf(leaf).map(|leaf| &leaf.ty)
    }
}

impl PartialEq for Body {
    fn eq(&self, other: &Body) -> bool {
        self.id == other.id
    }
}

impl Eq for Body {}

impl PartialOrd for Body {
    fn partial_cmp(&self, other: &Body) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Body {
    fn cmp(&self, other: &Body) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for Body {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}

/// A leaf of a body: an element or captured value ([`LeafKind::Input`]) or a carry.
pub fn parameter(name: Option<Arc<str>>, ty: TensorType, kind: LeafKind) -> Arc<Leaf> {
    Arc::new(Leaf { id: fresh_leaf_id(), name, ty, site: None, kind })
}
