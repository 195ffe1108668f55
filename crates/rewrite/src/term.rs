//! The e-graph speaks the graph's own operators: a [`Term`] is an [`Op`] on e-classes.
//!
//! What is known of a class ([`Data`]): its type, whether it is everywhere the same constant, [`Facts`] about its
//! elements, and the node of the graph that it stems from. Always true: all terms of a class have one type; a class
//! with a known constant holds the canonical term of that constant. `Op::Leaf` stands for "node number so and so of the
//! graph being simplified", taken as it is: real leaves, nodes of an earlier partition, and (with one operand) a
//! barrier around an expression that a gradient not yet taken refers to.

use egg::{Analysis, DidMerge, EGraph, Id, Language};
use hypatia_graph::infer::infer;
use hypatia_graph::op::known_dims;
use hypatia_graph::{Graph, LeafId, Literal, NodeId, Op, TensorType};
use smallvec::{SmallVec, smallvec};

use crate::facts::Facts;

/// An operator applied to classes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct Term {
    pub(crate) op: Op,
    pub(crate) operands: SmallVec<[Id; 2]>,
}

impl Language for Term {
    type Discriminant = std::mem::Discriminant<Op>;

    fn discriminant(&self) -> Self::Discriminant {
        std::mem::discriminant(&self.op)
    }

    fn matches(&self, other: &Self) -> bool {
        self.op == other.op && self.operands.len() == other.operands.len()
    }

    fn children(&self) -> &[Id] {
        &self.operands
    }

    fn children_mut(&mut self) -> &mut [Id] {
        &mut self.operands
    }
}

/// The node of the graph that a class stems from; built ones come before those that a rule derived from them.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Origin {
    /// Whether a rule made the class, to stand in place of the node.
    pub(crate) derived: bool,
    /// The node.
    pub(crate) node: NodeId,
}

/// What is known of a class.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) ty: TensorType,
    /// The value of every element.
    pub(crate) constant: Option<Literal>,
    pub(crate) facts: Facts,
    pub(crate) origin: Origin,
    /// How often the facts became sharper. Bounded, because in a cyclic e-graph they could do so for ever.
    improved: u8,
}

const MOST_IMPROVEMENTS: u8 = 12;

impl Data {
    /// The number of elements; 0 where it is not known, so that no rule counts on it.
    pub(crate) fn count(&self) -> usize {
        self.ty.element_count().unwrap_or(0)
    }

    /// The extents; none where one is unknown.
    pub(crate) fn extents(&self) -> SmallVec<[usize; 4]> {
        self.ty.extents().unwrap_or_default()
    }

    /// Takes over sharper facts; whether any was.
    fn sharpen(&mut self, facts: &Facts) -> bool {
        let sharper = self.facts.and(facts);
        if sharper == self.facts || self.improved >= MOST_IMPROVEMENTS {
            return false;
        }
        self.facts = sharper;
        self.improved += 1;
        true
    }
}

/// The analysis that keeps [`Data`] of every class.
pub(crate) struct Knowledge<'g> {
    graph: &'g Graph,
    /// Facts of nodes of the graph that earlier partitions found.
    known: &'g [Facts],
    /// Whether floats may be NaN or infinite wherever nothing excludes it.
    pub(crate) strict: bool,
    /// What classes made now stem from.
    pub(crate) origin: Origin,
    /// The type of the term about to be added.
    next: Option<TensorType>,
    /// Classes that changed since they were last taken.
    pub(crate) touched: Vec<Id>,
    /// The rule being applied, for the message should it prove unsound.
    pub(crate) rule: &'static str,
}

pub(crate) type Egraph<'g> = EGraph<Term, Knowledge<'g>>;

impl<'g> Knowledge<'g> {
    pub(crate) fn new(graph: &'g Graph, known: &'g [Facts], strict: bool) -> Knowledge<'g> {
        let origin = Origin { derived: false, node: NodeId(0) };
        Knowledge { graph, known, strict, origin, next: None, touched: Vec::new(), rule: "" }
    }

    /// The node that a leaf term stands for.
    pub(crate) fn node_of(leaf: LeafId) -> NodeId {
        NodeId(leaf.0 as u32)
    }
}

impl<'g> Analysis<Term> for Knowledge<'g> {
    type Data = Data;

    fn make(egraph: &mut Egraph<'g>, term: &Term, _: Id) -> Data {
        let next = egraph.analysis.next.take();
        let operands: SmallVec<[&Data; 4]> = term.operands.iter().map(|id| &egraph[*id].data).collect();
        let analysis = &egraph.analysis;
        let origin = analysis.origin;
        if let Op::Leaf(leaf) = term.op {
            let node = Knowledge::node_of(leaf);
            let ty = analysis.graph.ty(node).clone();
            let unknown = Facts::unknown(ty.dtype, analysis.strict);
            let facts = analysis.known.get(node.index()).map_or(unknown, |known| known.and(&unknown));
            return Data { ty, constant: None, facts, origin, improved: 0 };
        }
        let ty = next.unwrap_or_else(|| {
            let types: SmallVec<[&TensorType; 4]> = operands.iter().map(|data| &data.ty).collect();
            // Terms are typed before they are added, so this cannot fail.
            infer(&term.op, &types).unwrap_or_else(|_| TensorType::scalar(hypatia_graph::DType::F32))
        });
        let constant = term.op.literal().or_else(|| term.op.view().and(operands.first()?.constant));
        let facts = match constant {
            Some(value) => Facts::of_literal(value),
            None => Facts::derive(&term.op, &ty, &operands, analysis.strict),
        };
        Data { ty, constant, facts, origin, improved: 0 }
    }

    fn merge(&mut self, a: &mut Data, b: Data) -> DidMerge {
        debug_assert_eq!(a.ty, b.ty, "rule `{}` equates values of different types", self.rule);
        let mut changed = false;
        if a.constant.is_none() && b.constant.is_some() {
            a.constant = b.constant;
            changed = true;
        }
        changed |= a.sharpen(&b.facts);
        a.origin = a.origin.min(b.origin);
        let differs = a.facts != b.facts || a.constant != b.constant;
        DidMerge(changed, differs)
    }

    fn modify(egraph: &mut Egraph<'g>, id: Id) {
        egraph.analysis.touched.push(id);
        let data = &egraph[id].data;
        let Some(value) = data.constant else { return };
        let canonical = if data.ty.rank() == 0 {
            Term { op: Op::Literal(value), operands: smallvec![] }
        } else {
            let Some(extents) = data.ty.extents() else { return };
            let scalar = insert_term(egraph, Op::Literal(value), &[]);
            let op = Op::Broadcast { axes: smallvec![], dims: known_dims(&extents) };
            Term { op, operands: scalar.into_iter().collect() }
        };
        let holds = egraph.lookup(canonical.clone()).is_some_and(|found| found == egraph.find(id));
        if !holds
            && let Some(found) = insert_term(egraph, canonical.op, &canonical.operands)
            && egraph.find(found) != egraph.find(id)
        {
            egraph.union_trusted(id, found, "constant");
        }
    }
}

/// Adds a term, or finds it; `None` where its operands do not fit, which for a term that a rule built means that the
/// rule is wrong.
pub(crate) fn insert_term(egraph: &mut Egraph<'_>, op: Op, operands: &[Id]) -> Option<Id> {
    let mut term = Term { op, operands: operands.iter().copied().collect() };
    let explained = egraph.are_explanations_enabled();
    if !explained {
        if let Some(id) = egraph.lookup(&mut term) {
            return Some(id);
        }
        // The order of the operands of a sum or product never shows: one of the two is enough.
        if let Op::Map(f) = term.op
            && matches!(f, hypatia_graph::ScalarFn::Add | hypatia_graph::ScalarFn::Mul)
        {
            let swapped = smallvec![term.operands[1], term.operands[0]];
            if let Some(id) = egraph.lookup(Term { op: term.op.clone(), operands: swapped }) {
                return Some(id);
            }
        }
    }
    if !matches!(term.op, Op::Leaf(_)) {
        let inferred = {
            let types: SmallVec<[&TensorType; 4]> = operands.iter().map(|id| &egraph[*id].data.ty).collect();
            infer(&term.op, &types)
        };
        match inferred {
            Ok(ty) => egraph.analysis.next = Some(ty),
            Err(fault) => {
                debug_assert!(false, "rule `{}` builds an ill-typed term: {fault}", egraph.analysis.rule);
                return None;
            }
        }
    }
    let id = egraph.add_uncanonical(term);
    egraph.analysis.next = None;
    Some(id)
}

/// Sharpens what is known of a class beyond what its terms say; whether anything was new.
pub(crate) fn learn(egraph: &mut Egraph<'_>, id: Id, facts: &Facts) -> bool {
    let mut data = egraph[id].data.clone();
    let sharper = data.sharpen(facts);
    if sharper {
        egraph.set_analysis_data(id, data);
    }
    sharper
}
