//! Which parameters of a scan's body reach which of its results through floats.
//!
//! A parameter is named by its position: inputs, then carries, as in the operands of the scan. Found once a body, in one
//! pass over its graph with a bit a parameter.

use smallvec::SmallVec;

use crate::body::Body;
use crate::op::{Dim, Op, Scan, ScanResult};

/// A set of parameters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Parameters(SmallVec<[u64; 1]>);

impl Parameters {
    fn insert(&mut self, parameter: usize) {
        if self.0.len() <= parameter / 64 {
            self.0.resize(parameter / 64 + 1, 0);
        }
        self.0[parameter / 64] |= 1 << (parameter % 64);
    }

    /// Adds those of another set; whether any is new.
    fn join(&mut self, other: &Parameters) -> bool {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        let mut grown = false;
        for (mine, theirs) in self.0.iter_mut().zip(&other.0) {
            grown |= *theirs & !*mine != 0;
            *mine |= theirs;
        }
        grown
    }

    /// Whether the parameter is in the set.
    pub fn contains(&self, parameter: usize) -> bool {
        self.0.get(parameter / 64).is_some_and(|word| word >> (parameter % 64) & 1 == 1)
    }
}

/// What the results of a body depend on.
#[derive(Clone, Debug)]
pub struct Flow {
    /// For the next value of each carry, the parameters it reads in one step.
    pub next: Vec<Parameters>,
    /// The same for each output that is stacked.
    pub rows: Vec<Parameters>,
    /// For each carry, the parameters that reach its last value over any number of steps.
    pub reach_next: Vec<Parameters>,
    /// For each output, the parameters that reach its rows over any number of steps.
    pub reach_rows: Vec<Parameters>,
}

impl Flow {
    /// The flow of a body.
    pub(crate) fn of(body: &Body) -> Flow {
        let graph = &body.graph;
        let positions: std::collections::HashMap<_, _> =
            body.parameters().enumerate().map(|(position, leaf)| (leaf, position)).collect();
        let mut sets: Vec<Parameters> = Vec::with_capacity(graph.len());
        for (_, node) in graph.nodes() {
            let mut set = Parameters::default();
            if let Op::Leaf(leaf) = &node.op
                && node.ty.dtype.is_float()
                && let Some(position) = positions.get(leaf)
            {
                set.insert(*position);
            }
            for (index, operand) in node.operands.iter().enumerate() {
                let from = &sets[operand.index()];
                if !from.0.is_empty() && node.op.connects(index) {
                    set.join(from);
                }
            }
            sets.push(set);
        }
        let next: Vec<Parameters> = graph.updates.iter().map(|(_, id)| sets[id.index()].clone()).collect();
        let rows: Vec<Parameters> = body.rows().iter().map(|id| sets[id.index()].clone()).collect();
        let mut reach_next = next.clone();
        let through = |set: &mut Parameters, reach_next: &[Parameters]| {
            let mut grown = false;
            for (carry, from) in reach_next.iter().enumerate() {
                if set.contains(body.inputs() + carry) {
                    grown |= set.join(from);
                }
            }
            grown
        };
        loop {
            let mut grown = false;
            for carry in 0..reach_next.len() {
                let mut set = std::mem::take(&mut reach_next[carry]);
                grown |= through(&mut set, &reach_next);
                reach_next[carry] = set;
            }
            if !grown {
                break;
            }
        }
        let mut reach_rows = rows.clone();
        for set in &mut reach_rows {
            through(set, &reach_next);
        }
        Flow { next, rows, reach_next, reach_rows }
    }
}

impl Scan {
    /// Whether a change of an operand of the scan can reach this result of it.
    pub(crate) fn connects(&self, operand: usize) -> bool {
        let flow = self.body.flow();
        match self.result {
            ScanResult::Rows(output) => {
                flow.reach_rows.get(usize::from(output)).is_some_and(|set| set.contains(operand))
            }
            ScanResult::Last(carry) => {
                let carry = usize::from(carry);
                let kept = operand == self.body.inputs() + carry && !matches!(self.steps, Dim::Known(1..));
                kept || flow.reach_next.get(carry).is_some_and(|set| set.contains(operand))
            }
            ScanResult::Steps => false,
        }
    }
}
