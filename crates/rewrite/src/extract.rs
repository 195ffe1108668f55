//! Choosing one term for every class that is needed, so that the whole costs least, each class charged once.
//!
//! Two starts: the terms that the graph was built from, which makes the result never dearer than the input, and for
//! each class the term that is cheapest as a tree. Either is improved class by class until no single change helps; the
//! better one wins. A choice is always free of cycles. Finding the best of all is NP-hard and not attempted.

use std::collections::{HashMap, HashSet};

use egg::Id;
use hypatia_graph::Op;
use smallvec::SmallVec;

use crate::cost::{Cost, cost};
use crate::term::{Egraph, Term};

/// A term that may be chosen, with operands as positions in the table of classes.
struct Candidate<'e> {
    term: &'e Term,
    operands: SmallVec<[u32; 4]>,
    cost: Cost,
}

struct Class<'e> {
    candidates: Vec<Candidate<'e>>,
    /// The candidate that the graph was built with, and the number of its node.
    built: Option<(u32, usize)>,
}

/// The chosen terms: classes in dependency order, operands as positions in this list.
pub(crate) struct Extraction<'e> {
    pub(crate) nodes: Vec<(Id, &'e Term, SmallVec<[usize; 4]>)>,
    /// Positions of the roots.
    pub(crate) roots: Vec<usize>,
}

/// Chooses terms for the roots. `built` has the terms of the graph in its order, with their classes.
pub(crate) fn extract<'e>(egraph: &'e Egraph<'_>, roots: &[Id], built: &[(Id, Term)]) -> Extraction<'e> {
    let (ids, mut classes, roots) = reachable_classes(egraph, roots);
    let position: HashMap<Id, u32> = ids.iter().enumerate().map(|(i, id)| (*id, i as u32)).collect();
    for (order, (id, term)) in built.iter().enumerate() {
        let Some(&class) = position.get(&egraph.find(*id)) else { continue };
        let class = &mut classes[class as usize];
        if class.built.is_none() {
            let mut canonical = term.clone();
            for operand in &mut canonical.operands {
                *operand = egraph.find(*operand);
            }
            let found = class.candidates.iter().position(|candidate| {
                candidate.term.op == canonical.op && same_operands(egraph, candidate.term, &canonical)
            });
            class.built = found.map(|found| (found as u32, order));
        }
    }
    let cheapest = cheapest_trees(&classes);
    let mut best: Option<Choice<'_, '_>> = None;
    let mut built_cost = None;
    let as_built: Vec<u32> = classes
        .iter()
        .zip(&cheapest)
        .map(|(class, cheapest)| class.built.map_or(*cheapest, |(candidate, _)| candidate))
        .collect();
    for (start, chosen) in [as_built, cheapest].into_iter().enumerate() {
        let Some(mut choice) = Choice::new(&classes, &roots, chosen) else { continue };
        if start == 0 {
            built_cost = Some(choice.total);
        }
        choice.improve();
        if best.as_ref().is_none_or(|best| choice.total < best.total) {
            best = Some(choice);
        }
    }
    match best {
        Some(choice) => {
            debug_assert!(built_cost.is_none_or(|built| choice.total <= built), "the result is dearer");
            choice.finish(&ids)
        }
        None => Extraction { nodes: Vec::new(), roots: Vec::new() },
    }
}

/// Equal up to the order of two operands, which the e-graph does not keep for sums and products.
fn same_operands(egraph: &Egraph<'_>, a: &Term, b: &Term) -> bool {
    let find =
        |term: &Term| -> SmallVec<[Id; 4]> { term.operands.iter().map(|id| egraph.find(*id)).collect() };
    let (left, mut right) = (find(a), find(b));
    if left == right {
        return true;
    }
    right.reverse();
    matches!(&a.op, Op::Map(f) if f.is_commutative()) && left == right
}

/// Everything that any term below the roots could need, operands first as far as that goes in a cyclic graph.
fn reachable_classes<'e>(egraph: &'e Egraph<'_>, roots: &[Id]) -> (Vec<Id>, Vec<Class<'e>>, Vec<u32>) {
    let mut position: HashMap<Id, u32> = HashMap::new();
    let mut ids: Vec<Id> = Vec::new();
    let mut seen = vec![false; egraph.nodes().len()];
    let mut pending: Vec<(Id, bool)> = roots.iter().rev().map(|id| (egraph.find(*id), false)).collect();
    while let Some((id, done)) = pending.pop() {
        if done {
            position.insert(id, ids.len() as u32);
            ids.push(id);
            continue;
        }
        if std::mem::replace(&mut seen[usize::from(id)], true) {
            continue;
        }
        pending.push((id, true));
        for term in candidates_of(egraph, id) {
            pending.extend(term.operands.iter().map(|operand| (egraph.find(*operand), false)));
        }
    }
    let classes = ids
        .iter()
        .map(|&id| {
            let candidates = candidates_of(egraph, id)
                .filter_map(|term| {
                    let operands: SmallVec<[u32; 4]> =
                        term.operands.iter().map(|operand| position[&egraph.find(*operand)]).collect();
                    let itself = operands.contains(&position[&id]);
                    (!itself).then(|| Candidate { term, operands, cost: cost(egraph, id, term) })
                })
                .collect();
            Class { candidates, built: None }
        })
        .collect();
    let roots = roots.iter().map(|id| position[&egraph.find(*id)]).collect();
    (ids, classes, roots)
}

/// The terms of a class. A constant is written in one way only.
fn candidates_of<'e>(egraph: &'e Egraph<'_>, id: Id) -> impl Iterator<Item = &'e Term> {
    let class = &egraph[id];
    let constant = class.data.constant.is_some();
    class.nodes.iter().filter(move |term| {
        let spread = matches!(&term.op, Op::Broadcast { axes, .. } if axes.is_empty());
        !constant || spread || matches!(term.op, Op::Literal(_))
    })
}

/// For each class the candidate that is cheapest where everything is charged as often as it is used.
fn cheapest_trees(classes: &[Class<'_>]) -> Vec<u32> {
    let mut best: Vec<Option<(Cost, u32)>> = vec![None; classes.len()];
    loop {
        let mut changed = false;
        for (index, class) in classes.iter().enumerate() {
            for (number, candidate) in class.candidates.iter().enumerate() {
                let total = candidate
                    .operands
                    .iter()
                    .try_fold(candidate.cost, |sum, &operand| Some(sum.plus(best[operand as usize]?.0)));
                if let Some(total) = total
                    && best[index].is_none_or(|(cost, _)| total < cost)
                {
                    best[index] = Some((total, number as u32));
                    changed = true;
                }
            }
        }
        if !changed {
            break;
        }
    }
    best.into_iter().map(|best| best.map_or(0, |(_, number)| number)).collect()
}

/// A candidate for every class; those that the roots need are counted.
struct Choice<'c, 'e> {
    classes: &'c [Class<'e>],
    roots: &'c [u32],
    chosen: Vec<u32>,
    /// How many chosen terms and roots use each class; 0 where it is not needed.
    uses: Vec<u32>,
    total: Cost,
    /// Needed classes, operands first.
    order: Vec<u32>,
    /// Place in `order`; what is not needed has none.
    place: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

/// What a change does to the order in which the classes stand.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Effect {
    /// What stands in it stays in order; what comes to be needed has no place yet.
    None,
    /// The classes have to be sorted again: something is out of order, or much has no place.
    Disorder,
    /// The class would be below itself.
    Cycle,
}

/// Classes without a place that are looked through rather than sorted in.
const FEW: usize = 32;

impl<'c, 'e> Choice<'c, 'e> {
    /// `None` where the choice has a cycle.
    fn new(classes: &'c [Class<'e>], roots: &'c [u32], chosen: Vec<u32>) -> Option<Choice<'c, 'e>> {
        let n = classes.len();
        let mut choice = Choice {
            classes,
            roots,
            chosen,
            uses: vec![0; n],
            total: Cost::default(),
            order: Vec::new(),
            place: vec![NOWHERE; n],
        };
        if !choice.sort() {
            return None;
        }
        for &root in roots {
            choice.acquire(root);
        }
        Some(choice)
    }

    fn candidate(&self, class: u32) -> &'c Candidate<'e> {
        &self.classes[class as usize].candidates[self.chosen[class as usize] as usize]
    }

    /// Puts the needed classes in order; whether there was no cycle.
    fn sort(&mut self) -> bool {
        self.order.clear();
        self.place.fill(NOWHERE);
        let mut open = vec![false; self.classes.len()];
        let mut pending: Vec<(u32, bool)> = self.roots.iter().rev().map(|&root| (root, false)).collect();
        while let Some((class, done)) = pending.pop() {
            let index = class as usize;
            if done {
                self.place[index] = self.order.len() as u32;
                self.order.push(class);
                continue;
            }
            if self.place[index] != NOWHERE {
                continue;
            }
            if std::mem::replace(&mut open[index], true) {
                return false;
            }
            pending.push((class, true));
            if self.classes[index].candidates.is_empty() {
                return false;
            }
            for &operand in self.candidate(class).operands.iter().rev() {
                if self.place[operand as usize] == NOWHERE {
                    if open[operand as usize] {
                        return false;
                    }
                    pending.push((operand, false));
                }
            }
        }
        true
    }

    /// One more use; what becomes needed is charged.
    fn acquire(&mut self, class: u32) {
        let mut pending = vec![class];
        while let Some(class) = pending.pop() {
            self.uses[class as usize] += 1;
            if self.uses[class as usize] == 1 {
                let candidate = self.candidate(class);
                self.total = self.total.plus(candidate.cost);
                pending.extend(candidate.operands.iter().copied());
            }
        }
    }

    /// One use less; what is no longer needed is credited.
    fn release(&mut self, class: u32) {
        let mut pending = vec![class];
        while let Some(class) = pending.pop() {
            self.uses[class as usize] -= 1;
            if self.uses[class as usize] == 0 {
                let candidate = self.candidate(class);
                self.total = self.total.minus(candidate.cost);
                pending.extend(candidate.operands.iter().copied());
            }
        }
    }

    /// What taking that candidate does to the order of the classes.
    fn effect(&self, class: u32, candidate: u32) -> Effect {
        let limit = self.place[class as usize];
        let mut pending: Vec<u32> =
            self.classes[class as usize].candidates[candidate as usize].operands.to_vec();
        let mut seen: HashSet<u32> = HashSet::new();
        let mut effect = Effect::None;
        while let Some(next) = pending.pop() {
            if next == class {
                return Effect::Cycle;
            }
            // What stands earlier in the order cannot be above.
            let place = self.place[next as usize];
            if place != NOWHERE && place < limit || !seen.insert(next) {
                continue;
            }
            if place != NOWHERE || seen.len() > FEW {
                effect = Effect::Disorder;
            }
            if self.classes[next as usize].candidates.is_empty() {
                return Effect::Cycle;
            }
            pending.extend(self.candidate(next).operands.iter().copied());
        }
        effect
    }

    fn switch(&mut self, class: u32, candidate: u32) {
        let old = self.candidate(class);
        let new = &self.classes[class as usize].candidates[candidate as usize];
        for &operand in &new.operands {
            self.acquire(operand);
        }
        self.total = self.total.plus(new.cost).minus(old.cost);
        self.chosen[class as usize] = candidate;
        for &operand in &old.operands {
            self.release(operand);
        }
    }

    /// Changes one class at a time as long as that helps.
    fn improve(&mut self) {
        // Each pass goes through the needed classes from the roots down; few passes change anything.
        for _ in 0..6 {
            let mut helped = false;
            self.sort();
            let order: Vec<u32> = self.order.iter().rev().copied().collect();
            for class in order {
                if self.uses[class as usize] == 0 {
                    continue;
                }
                for candidate in 0..self.classes[class as usize].candidates.len() as u32 {
                    let old = self.chosen[class as usize];
                    if candidate == old {
                        continue;
                    }
                    let effect = self.effect(class, candidate);
                    if effect == Effect::Cycle {
                        continue;
                    }
                    let before = self.total;
                    self.switch(class, candidate);
                    if self.total < before {
                        helped = true;
                        if effect == Effect::Disorder {
                            self.sort();
                        }
                    } else {
                        self.switch(class, old);
                    }
                }
            }
            if !helped {
                break;
            }
        }
        self.sort();
    }

    fn finish(self, ids: &[Id]) -> Extraction<'e> {
        let nodes = self
            .order
            .iter()
            .map(|&class| {
                let candidate = self.candidate(class);
                let operands = candidate.operands.iter().map(|o| self.place[*o as usize] as usize).collect();
                (ids[class as usize], candidate.term, operands)
            })
            .collect();
        let roots = self.roots.iter().map(|root| self.place[*root as usize] as usize).collect();
        Extraction { nodes, roots }
    }
}
