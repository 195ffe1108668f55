//! Saturation: rules are applied in rounds until nothing changes or a limit is reached.
//!
//! A round first collects what every rule wants at every class that changed (or lies above one that did), then does
//! it. Classes are visited by number and rules in the order of the tables, and no clock is consulted, so equal graphs
//! give equal results. The limits grow with the input: a chain of rules that each make the next one match is as long as
//! the graph is deep.

use std::fmt;

use egg::Id;

use crate::pattern::Built;
use crate::rules::{Right, RuleSet, Step};
use crate::term::{Egraph, Origin, learn};

/// Why saturation stopped.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stop {
    /// No rule had anything new to say.
    Saturated,
    /// The e-graph reached its limit of nodes.
    Nodes,
    /// The limit of rounds was reached.
    Rounds,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Saturated => "saturated",
            Stop::Nodes => "node limit",
            Stop::Rounds => "round limit",
        })
    }
}

/// How far saturation may go.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) nodes: usize,
    pub(crate) rounds: usize,
}

impl Limits {
    /// Room for the rules to work on that many nodes. A level of a formula takes a round or two; where rules feed each
    /// other without end, the limit of nodes is met first.
    pub(crate) fn for_nodes(nodes: usize) -> Limits {
        Limits { nodes: 3_000 + 10 * nodes, rounds: 24 + 2 * nodes }
    }
}

/// What saturation did.
#[derive(Clone, Debug)]
pub(crate) struct Saturation {
    pub(crate) rounds: usize,
    pub(crate) stop: Stop,
    /// For each rule how often it brought something new.
    pub(crate) applied: Vec<u32>,
}

/// A round that does something at one class in so many is small. To rebuild the e-graph goes through all of it, so a few
/// small rounds share a rebuilding: chains of rules in a large graph are many of them.
const SMALL: usize = 500;
const MOST_UNBUILT: usize = 12;

struct Wanted {
    rule: u16,
    class: Id,
    /// The matched term, for explanations.
    left: Option<Built>,
    step: Step,
}

/// Applies the rules to the e-graph.
pub(crate) fn saturate(egraph: &mut Egraph<'_>, rules: &RuleSet, limits: Limits) -> Saturation {
    let mut applied = vec![0; rules.rules.len()];
    egraph.rebuild();
    egraph.analysis.touched.clear();
    let mut dirty: Vec<Id> = egraph.classes().map(|class| class.id).collect();
    dirty.sort_unstable();
    let mut rounds = 0;
    // Rounds since the e-graph was last rebuilt.
    let mut unbuilt = 0;
    let stop = loop {
        // What is known of new terms may show that a rule has nothing to do there.
        let mut learned = false;
        for want in collect(egraph, rules, &dirty, true) {
            let index = usize::from(want.rule);
            if carry_out(egraph, want, rules.rules[index].name) {
                applied[index] += 1;
                learned = true;
            }
        }
        if learned {
            egraph.rebuild();
            dirty.extend(changed(egraph, rules.depth));
            dirty.sort_unstable();
            dirty.dedup();
        }
        let wanted = collect(egraph, rules, &dirty, false);
        if wanted.is_empty() {
            if unbuilt == 0 {
                break Stop::Saturated;
            }
            egraph.rebuild();
            unbuilt = 0;
            dirty = changed(egraph, rules.depth);
            continue;
        }
        if rounds >= limits.rounds {
            break Stop::Rounds;
        }
        rounds += 1;
        let mut full = false;
        let small = wanted.len() * SMALL < egraph.number_of_classes();
        for want in wanted {
            let index = usize::from(want.rule);
            let rule = &rules.rules[index];
            egraph.analysis.rule = rule.name;
            if carry_out(egraph, want, rule.name) {
                applied[index] += 1;
            }
            if egraph.total_size() > limits.nodes {
                full = true;
                break;
            }
        }
        unbuilt += 1;
        if full || !small || unbuilt >= MOST_UNBUILT {
            egraph.rebuild();
            unbuilt = 0;
        }
        if full {
            break Stop::Nodes;
        }
        dirty = changed(egraph, rules.depth);
    };
    Saturation { rounds, stop, applied }
}

/// What rules want at classes: those that add facts, or all others.
fn collect(egraph: &Egraph<'_>, rules: &RuleSet, dirty: &[Id], facts: bool) -> Vec<Wanted> {
    let explained = egraph.are_explanations_enabled();
    let mut wanted = Vec::new();
    for &class in dirty {
        // Nothing is simpler than a constant.
        if egraph[class].data.constant.is_some() && !explained {
            continue;
        }
        for term in &egraph[class].nodes {
            for &index in rules.beginning_with(&term.op) {
                let rule = &rules.rules[usize::from(index)];
                if facts != matches!(rule.right, Right::Facts(_)) {
                    continue;
                }
                for (bindings, step) in rule.apply(egraph, class, term) {
                    let left = explained.then(|| rule.witness(egraph, &bindings, term)).flatten();
                    wanted.push(Wanted { rule: index, class, left, step });
                }
            }
        }
    }
    wanted
}

/// Whether it brought anything new.
fn carry_out(egraph: &mut Egraph<'_>, want: Wanted, rule: &'static str) -> bool {
    let built = match want.step {
        Step::Learn(facts) => return learn(egraph, want.class, &facts),
        Step::Replace(built) => built,
    };
    let origin = egraph[want.class].data.origin;
    egraph.analysis.origin = Origin { derived: true, node: origin.node };
    let ty = egraph[want.class].data.ty.clone();
    let Some(right) = built.insert(egraph, &ty) else { return false };
    if egraph[right].data.ty != ty {
        debug_assert!(false, "rule `{rule}` replaces a {ty} by a {}", egraph[right].data.ty);
        return false;
    }
    let left = want.left.and_then(|left| left.insert(egraph, &ty)).unwrap_or(want.class);
    if egraph.find(left) == egraph.find(right) {
        return false;
    }
    egraph.union_trusted(left, right, rule)
}

/// The classes that changed since the last call, and those at most `depth` levels above them.
fn changed(egraph: &mut Egraph<'_>, depth: usize) -> Vec<Id> {
    let mut level: Vec<Id> = std::mem::take(&mut egraph.analysis.touched);
    let mut seen = vec![false; egraph.nodes().len()];
    let mut all = Vec::new();
    for _ in 0..=depth {
        let mut next = Vec::new();
        for id in level {
            let id = egraph.find(id);
            if std::mem::replace(&mut seen[usize::from(id)], true) {
                continue;
            }
            all.push(id);
            next.extend(egraph[id].parents().map(|parent| egraph.find(parent)));
        }
        level = next;
    }
    all.sort_unstable();
    all
}
