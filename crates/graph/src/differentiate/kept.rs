//! Which values of a step are kept for its gradient: a smallest set of bytes from which the rest is computed again.
//!
//! The gradient of a step reads values of the step. Some must be kept (carries, and whatever is dear to compute), cheap
//! ones above can be made from them again; and sometimes the cheap one is smaller than what it is made of. The choice is
//! a minimum cut between values that cannot be made again and those that are read, each node of the graph split in two
//! with its size between. Of equal cuts the one nearest to the dear values is taken: those are the likelier to be shared.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::graph::{Graph, NodeId};

/// What has to be done to have a value again.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Again {
    /// Nothing: it is at hand.
    AtHand,
    /// Compute it from its operands.
    Compute,
    /// It cannot be had unless it is kept.
    Keep,
}

/// The smallest set of values to keep so that `read` can be had again.
pub(super) fn least_kept(
    graph: &Graph,
    read: &BTreeSet<NodeId>,
    again: impl Fn(NodeId) -> Again,
) -> BTreeSet<NodeId> {
    let mut involved: BTreeMap<NodeId, usize> = BTreeMap::new();
    let mut pending: Vec<NodeId> = read.iter().copied().collect();
    while let Some(id) = pending.pop() {
        let effort = again(id);
        if effort == Again::AtHand || involved.contains_key(&id) {
            continue;
        }
        involved.insert(id, involved.len());
        if effort == Again::Compute {
            pending.extend(graph.node(id).operands.iter().copied());
        }
    }
    let mut network = Network::new(2 + 2 * involved.len());
    let (source, sink) = (0, 1);
    let (enter, leave) = (|place: usize| 2 + 2 * place, |place: usize| 3 + 2 * place);
    for (&id, &place) in &involved {
        let ty = graph.ty(id);
        let bytes = ty.element_count().unwrap_or(0).saturating_mul(ty.dtype.size());
        network.connect(enter(place), leave(place), (bytes as u64).clamp(1, UNBOUNDED / 2));
        if read.contains(&id) {
            network.connect(leave(place), sink, UNBOUNDED);
        }
        if again(id) == Again::Keep {
            network.connect(source, enter(place), UNBOUNDED);
            continue;
        }
        for operand in &graph.node(id).operands {
            if let Some(&from) = involved.get(operand) {
                network.connect(leave(from), enter(place), UNBOUNDED);
            }
        }
    }
    let near = network.saturate(source, sink);
    let cut = |place: usize| near[enter(place)] && !near[leave(place)];
    involved.into_iter().filter(|(_, place)| cut(*place)).map(|(id, _)| id).collect()
}

/// More than all values of a step together.
const UNBOUNDED: u64 = 1 << 62;

/// A directed network with capacities; edge `2 i + 1` is the way back of edge `2 i`.
struct Network {
    edges: Vec<(usize, u64)>,
    from: Vec<Vec<usize>>,
}

impl Network {
    fn new(places: usize) -> Network {
        Network { edges: Vec::new(), from: vec![Vec::new(); places] }
    }

    fn connect(&mut self, from: usize, to: usize, capacity: u64) {
        self.from[from].push(self.edges.len());
        self.edges.push((to, capacity));
        self.from[to].push(self.edges.len());
        self.edges.push((from, 0));
    }

    /// Sends as much as passes from one place to another, along shortest paths; the places that more could reach.
    fn saturate(&mut self, source: usize, sink: usize) -> Vec<bool> {
        loop {
            let mut arrived: Vec<Option<usize>> = vec![None; self.from.len()];
            let mut pending = VecDeque::from([source]);
            while let Some(place) = pending.pop_front()
                && arrived[sink].is_none()
            {
                for &edge in &self.from[place] {
                    let (to, capacity) = self.edges[edge];
                    if capacity > 0 && to != source && arrived[to].is_none() {
                        arrived[to] = Some(edge);
                        pending.push_back(to);
                    }
                }
            }
            let mut path = Vec::new();
            let mut place = sink;
            while let Some(edge) = arrived[place] {
                path.push(edge);
                place = self.edges[edge ^ 1].0;
            }
            let Some(amount) = path.iter().map(|edge| self.edges[*edge].1).min() else {
                return arrived
                    .iter()
                    .enumerate()
                    .map(|(place, edge)| place == source || edge.is_some())
                    .collect();
            };
            for edge in path {
                self.edges[edge].1 -= amount;
                self.edges[edge ^ 1].1 = self.edges[edge ^ 1].1.saturating_add(amount);
            }
        }
    }
}
